//! Where records are kept: each in one run of bytes, in pages of slots of one length.
//!
//! A record of its own allocation costs the allocator's header and rounding, and two of them if key
//! and value are apart; here a small one costs what it is long, rounded up to eight bytes. Follows
//! Bonwick, "The Slab Allocator", 1994: a page has slots of one length, knows its free ones, and is
//! given back when all are free. What is too long for a page stands alone. Called by `records.rs`;
//! knows no order and finds nothing by key.

use byteorder::{ByteOrder, LittleEndian};

use super::record::{NEVER, Record, RecordRef};
use crate::types::{ClusterTime, Revision};

/// What lengths of slots, and places in a page, are multiples of.
const UNIT_BYTES: usize = 8;

/// Units of a page, and its bytes: a power of two, so that a handle is two numbers.
const PAGE_UNITS: usize = 1 << PAGE_SHIFT;
const PAGE_SHIFT: u32 = 12;
const PAGE_BYTES: usize = PAGE_UNITS * UNIT_BYTES;

/// Records that take more stand alone: a page of few slots would waste its end.
const SMALL_BYTES: usize = 2048;
const SLOT_LENGTHS: usize = SMALL_BYTES / UNIT_BYTES + 1;

/// Pages at most, 16 GiB of them; from there on small records stand alone too.
const PAGES: usize = 1 << (31 - PAGE_SHIFT);

/// How far from a record's beginning its second touch is: a cache line.
const TOUCHED_BYTES: usize = 64;

/// Set in the handle of a record that stands alone.
const ALONE: u32 = 1 << 31;

/// Revision, length of the key, length of the value; then a deadline if there is one, the key, the
/// value.
const HEADER_BYTES: usize = 12;
const DEADLINE_BYTES: usize = 8;
/// Set in the length of the key where there is a deadline.
const HAS_DEADLINE: u16 = 1 << 15;

/// Stands for "none" among the free slots of a page.
const NO_SLOT: u16 = u16::MAX;

/// Names a record as long as that stays where it is: until it is freed, or a change gives it
/// another place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handle(pub(super) u32);

/// All records. See the file's head.
#[derive(Clone, Default, Debug)]
pub(super) struct Slab {
    /// The pages' bytes, apart from what is kept of them: a look-up needs nothing else.
    pages: Vec<Option<Box<[u8; PAGE_BYTES]>>>,
    states: Vec<PageState>,
    /// Numbers of pages that were given back.
    vacant: Vec<u32>,
    /// By the length of slots in units: the pages that have a free one.
    roomy: Vec<Vec<u32>>,
    alone: Vec<Option<Alone>>,
    vacant_alone: Vec<u32>,
}

/// What is kept of a page beside its bytes; places and lengths in units.
#[derive(Clone, Copy, Debug)]
struct PageState {
    slot: u16,
    used: u16,
    /// The first of the slots that were freed; each one's first bytes name the next.
    freed: u16,
    /// Where the slots begin that were never used.
    fresh: u16,
    /// Its place in the list of pages with a free slot, if it has one.
    place: u32,
}

#[derive(Clone, Debug)]
struct Alone {
    key: Box<[u8]>,
    record: Record,
}

impl Slab {
    /// Puts a record in.
    pub(super) fn put(&mut self, record: RecordRef<'_>) -> Handle {
        let length = record_bytes(&record);
        if length <= SMALL_BYTES
            && let Some((page, unit)) = self.take_slot(length.div_ceil(UNIT_BYTES))
        {
            write(&mut self.page_mut(page)[unit * UNIT_BYTES..], &record);
            return Handle((page << PAGE_SHIFT | unit) as u32);
        }
        let alone = Alone { key: record.key.into(), record: record.to_record() };
        let place = self.vacant_alone.pop().unwrap_or_else(|| {
            self.alone.push(None);
            self.alone.len() as u32 - 1
        });
        assert!(place < ALONE, "so many records don't fit any memory");
        self.alone[place as usize] = Some(alone);
        Handle(ALONE | place)
    }

    /// The key of a record.
    pub(super) fn key(&self, handle: Handle) -> &[u8] {
        match place_of(handle) {
            Place::Slot(page, unit) => {
                let page = self.pages[page].as_deref().expect("a record's page is there");
                key_of(&page[unit * UNIT_BYTES..])
            }
            Place::Alone(place) => {
                &self.alone[place].as_ref().expect("a handle names a record").key
            }
        }
    }

    /// A record as it is.
    pub(super) fn record(&self, handle: Handle) -> RecordRef<'_> {
        match place_of(handle) {
            Place::Slot(page, unit) => {
                let page = self.pages[page].as_deref().expect("a record's page is there");
                read(&page[unit * UNIT_BYTES..])
            }
            Place::Alone(place) => {
                let alone = self.alone[place].as_ref().expect("a handle names a record");
                alone.record.with_key(&alone.key)
            }
        }
    }

    /// Brings the beginning of a record near. Returns what can't be known without it, so that no
    /// compiler leaves that out.
    pub(super) fn touch(&self, handle: Handle) -> u8 {
        match place_of(handle) {
            Place::Slot(page, unit) => {
                let page = self.pages[page].as_deref().expect("a record's page is there");
                let (first, next) = (unit * UNIT_BYTES, unit * UNIT_BYTES + TOUCHED_BYTES);
                page[first] ^ page[next.min(PAGE_BYTES - 1)]
            }
            Place::Alone(place) => u8::from(self.alone[place].is_some()),
        }
    }

    /// Makes the record of a key what is given. If its place doesn't fit, that is left as it is, to
    /// be freed by the caller, and the new place is returned.
    pub(super) fn overwrite(&mut self, handle: Handle, record: RecordRef<'_>) -> Option<Handle> {
        let length = record_bytes(&record);
        match place_of(handle) {
            Place::Slot(page, unit) => {
                let slot = usize::from(self.states[page].slot) * UNIT_BYTES;
                let bytes = &mut self.page_mut(page)[unit * UNIT_BYTES..][..slot];
                let keeps_deadline = (read(bytes).deadline == NEVER) == (record.deadline == NEVER);
                if keeps_deadline && length.next_multiple_of(UNIT_BYTES) == slot {
                    // The key stays where it is.
                    write_head(bytes, &record);
                    bytes[length - record.value.len()..length].copy_from_slice(record.value);
                    return None;
                }
            }
            Place::Alone(place) if length > SMALL_BYTES => {
                let Alone { record: old, .. } = self.alone_mut(place);
                (old.revision, old.deadline) = (record.revision, record.deadline);
                old.overwrite(record.value);
                return None;
            }
            Place::Alone(_) => {}
        }
        Some(self.put(record))
    }

    /// Appends to a record's value; as [`overwrite`](Slab::overwrite).
    pub(super) fn append(
        &mut self,
        handle: Handle,
        tail: &[u8],
        revision: Revision,
    ) -> Option<Handle> {
        if let Place::Alone(place) = place_of(handle) {
            let Alone { record, .. } = self.alone_mut(place);
            record.revision = revision;
            record.value.extend_from_slice(tail);
            return None;
        }
        let RecordRef { key, value, deadline, .. } = self.record(handle);
        let (key, value) = (key.to_vec(), [value, tail].concat());
        self.overwrite(handle, RecordRef { key: &key, value: &value, revision, deadline })
    }

    /// Gives a record another deadline; as [`overwrite`](Slab::overwrite).
    pub(super) fn set_deadline(
        &mut self,
        handle: Handle,
        revision: Revision,
        deadline: ClusterTime,
    ) -> Option<Handle> {
        if let Place::Alone(place) = place_of(handle) {
            let Alone { record, .. } = self.alone_mut(place);
            (record.revision, record.deadline) = (revision, deadline);
            return None;
        }
        let RecordRef { key, value, .. } = self.record(handle);
        let (key, value) = (key.to_vec(), value.to_vec());
        self.overwrite(handle, RecordRef { key: &key, value: &value, revision, deadline })
    }

    /// Takes a record out.
    pub(super) fn free(&mut self, handle: Handle) {
        match place_of(handle) {
            Place::Slot(page, unit) => self.free_slot(page, unit),
            Place::Alone(place) => drop(self.take_alone(place)),
        }
    }

    /// Takes a record out and keeps it: a value that stands alone is moved.
    pub(super) fn take(&mut self, handle: Handle) -> Record {
        match place_of(handle) {
            Place::Slot(page, unit) => {
                let record = self.record(handle).to_record();
                self.free_slot(page, unit);
                record
            }
            Place::Alone(place) => self.take_alone(place).record,
        }
    }

    /// What a record is, for someone who keeps it, while it is about to be overwritten: a value
    /// that stands alone is moved out.
    pub(super) fn take_value(&mut self, handle: Handle) -> Record {
        match place_of(handle) {
            Place::Slot(..) => self.record(handle).to_record(),
            Place::Alone(place) => {
                let Alone { record, .. } = self.alone_mut(place);
                Record { value: std::mem::take(&mut record.value), ..*record }
            }
        }
    }

    /// Takes everything apart, in pieces of bounded size; each says how many bytes it was.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = usize> + Send + 'static {
        let pages = self.pages.into_iter().flatten().map(|page| page.len());
        let alone = self.alone.into_iter().flatten().map(|alone| alone.record.value.len());
        pages.chain(alone)
    }

    /// A free slot of so many units, and that it is taken; none where there are no more pages.
    fn take_slot(&mut self, slot: usize) -> Option<(usize, usize)> {
        if self.roomy.is_empty() {
            self.roomy.resize(SLOT_LENGTHS, Vec::new());
        }
        let page = match self.roomy[slot].last() {
            Some(page) => *page as usize,
            None => self.add_page(slot)?,
        };
        let freed = usize::from(self.states[page].freed);
        let unit = if freed == usize::from(NO_SLOT) {
            let fresh = self.states[page].fresh;
            self.states[page].fresh += slot as u16;
            usize::from(fresh)
        } else {
            let next = LittleEndian::read_u16(&self.page_mut(page)[freed * UNIT_BYTES..]);
            self.states[page].freed = next;
            freed
        };
        self.states[page].used += 1;
        if !self.states[page].has_room() {
            let last = self.roomy[slot].pop();
            assert_eq!(last, Some(page as u32), "slots are taken of the last page of a list");
        }
        Some((page, unit))
    }

    fn add_page(&mut self, slot: usize) -> Option<usize> {
        let page = match self.vacant.pop() {
            Some(page) => page as usize,
            None if self.pages.len() < PAGES => {
                self.pages.push(None);
                self.states.push(PageState { slot: 0, used: 0, freed: 0, fresh: 0, place: 0 });
                self.pages.len() - 1
            }
            None => return None,
        };
        let bytes = vec![0; PAGE_BYTES].into_boxed_slice();
        self.pages[page] = Some(bytes.try_into().expect("it has the length of a page"));
        let place = self.roomy[slot].len() as u32;
        self.states[page] =
            PageState { slot: slot as u16, used: 0, freed: NO_SLOT, fresh: 0, place };
        self.roomy[slot].push(page as u32);
        Some(page)
    }

    fn free_slot(&mut self, page: usize, unit: usize) {
        let state = self.states[page];
        LittleEndian::write_u16(&mut self.page_mut(page)[unit * UNIT_BYTES..], state.freed);
        let roomy = &mut self.roomy[usize::from(state.slot)];
        let now = &mut self.states[page];
        (now.freed, now.used) = (unit as u16, state.used - 1);
        if !state.has_room() {
            now.place = roomy.len() as u32;
            roomy.push(page as u32);
        }
        if now.used == 0 {
            let place = now.place as usize;
            roomy.swap_remove(place);
            if let Some(moved) = roomy.get(place) {
                self.states[*moved as usize].place = place as u32;
            }
            self.pages[page] = None;
            self.vacant.push(page as u32);
        }
    }

    fn take_alone(&mut self, place: usize) -> Alone {
        self.vacant_alone.push(place as u32);
        self.alone[place].take().expect("a handle names a record")
    }

    fn alone_mut(&mut self, place: usize) -> &mut Alone {
        self.alone[place].as_mut().expect("a handle names a record")
    }

    fn page_mut(&mut self, page: usize) -> &mut [u8; PAGE_BYTES] {
        self.pages[page].as_deref_mut().expect("a record's page is there")
    }
}

impl PageState {
    fn has_room(self) -> bool {
        self.freed != NO_SLOT || usize::from(self.fresh) + usize::from(self.slot) <= PAGE_UNITS
    }
}

enum Place {
    /// The page and the unit at which the record begins.
    Slot(usize, usize),
    Alone(usize),
}

fn place_of(handle: Handle) -> Place {
    let place = (handle.0 & !ALONE) as usize;
    match handle.0 & ALONE {
        0 => Place::Slot(place >> PAGE_SHIFT, place % PAGE_UNITS),
        _ => Place::Alone(place),
    }
}

fn record_bytes(record: &RecordRef<'_>) -> usize {
    head_bytes(record.deadline) + record.key.len() + record.value.len()
}

/// What is in front of the key.
fn head_bytes(deadline: ClusterTime) -> usize {
    HEADER_BYTES + if deadline == NEVER { 0 } else { DEADLINE_BYTES }
}

fn write(bytes: &mut [u8], record: &RecordRef<'_>) {
    write_head(bytes, record);
    let key_at = head_bytes(record.deadline);
    let value_at = key_at + record.key.len();
    bytes[key_at..value_at].copy_from_slice(record.key);
    bytes[value_at..value_at + record.value.len()].copy_from_slice(record.value);
}

fn write_head(bytes: &mut [u8], record: &RecordRef<'_>) {
    let mut key_bytes = record.key.len() as u16;
    if record.deadline != NEVER {
        key_bytes |= HAS_DEADLINE;
        LittleEndian::write_u64(&mut bytes[HEADER_BYTES..], record.deadline.0);
    }
    LittleEndian::write_u64(bytes, record.revision.0);
    LittleEndian::write_u16(&mut bytes[8..], key_bytes);
    LittleEndian::write_u16(&mut bytes[10..], record.value.len() as u16);
}

fn key_of(bytes: &[u8]) -> &[u8] {
    let key_bytes = LittleEndian::read_u16(&bytes[8..]);
    let key_at = match key_bytes & HAS_DEADLINE {
        0 => HEADER_BYTES,
        _ => HEADER_BYTES + DEADLINE_BYTES,
    };
    &bytes[key_at..][..usize::from(key_bytes & !HAS_DEADLINE)]
}

fn read(bytes: &[u8]) -> RecordRef<'_> {
    let revision = Revision(LittleEndian::read_u64(bytes));
    let key_bytes = LittleEndian::read_u16(&bytes[8..]);
    let value_bytes = usize::from(LittleEndian::read_u16(&bytes[10..]));
    let deadline = match key_bytes & HAS_DEADLINE {
        0 => NEVER,
        _ => ClusterTime(LittleEndian::read_u64(&bytes[HEADER_BYTES..])),
    };
    let rest = &bytes[head_bytes(deadline)..];
    let (key, rest) = rest.split_at(usize::from(key_bytes & !HAS_DEADLINE));
    RecordRef { key, value: &rest[..value_bytes], revision, deadline }
}

const _: () = assert!(PAGE_UNITS < NO_SLOT as usize);
const _: () = assert!(SMALL_BYTES < HAS_DEADLINE as usize);

#[cfg(test)]
#[path = "slab_tests.rs"]
mod tests;
