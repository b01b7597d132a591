//! Where records are kept: each in one run of bytes, in pages of slots of one length.
//!
//! A record of its own allocation costs the allocator's header and rounding, and two of them if key
//! and value are apart; here a small one costs what it is long, rounded up by a 32nd or so. Follows
//! Bonwick, "The Slab Allocator", 1994: a page has slots of one length, knows its free ones, and is
//! given back when all are free. What is too long for a page stands alone. How a record is written
//! into its slot is `packed.rs`'s business. Called by `records.rs`; knows no order and finds nothing
//! by key.

use byteorder::{ByteOrder, LittleEndian};

use super::packed;
use super::record::{Record, RecordRef};
use crate::limits;
use crate::types::{ClusterTime, Revision};

const PAGE_BYTES: usize = limits::STORE_PAGE_BYTES;

/// A handle is a page and a slot in it: so many bits are the slot's, enough for the shortest ones.
const SLOT_BITS: u32 = 11;
const SHORTEST_BYTES: usize = PAGE_BYTES >> SLOT_BITS;

/// Records that take more stand alone: a page of few slots would waste its end.
const SMALL_BYTES: usize = 2048;

/// Lengths of slots are multiples of four bytes up to here, of eight up to twice as much, and so on:
/// what rounding takes is little beside a record, and there are few lengths, each of which may have
/// a page that is not full.
const FINE_BYTES: usize = 256;
const FINE_STEP_BYTES: usize = 4;
const CLASSES: usize = class_of(SMALL_BYTES) + 1;

/// Pages at most, 32 GiB of them; from there on small records stand alone too.
const PAGES: usize = 1 << (31 - SLOT_BITS);

/// How far from a record's beginning its second touch is: a cache line.
const TOUCHED_BYTES: usize = 64;

/// Set in the handle of a record that stands alone.
const ALONE: u32 = 1 << 31;

/// Stands for "none" among the free slots of a page.
const NO_SLOT: u16 = u16::MAX;

/// Names a record as long as that stays where it is: until it is freed, or a change gives it
/// another place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handle(pub(super) u32);

/// All records. See the file's head.
#[derive(Clone, Default, Debug)]
pub(super) struct Slab {
    /// The pages, apart from which slots are free: a look-up needs nothing else.
    pages: Vec<Page>,
    states: Vec<PageState>,
    /// Numbers of pages that were given back.
    vacant: Vec<u32>,
    /// By the class of slots: the pages that have a free one.
    roomy: Vec<Vec<u32>>,
    alone: Vec<Option<Alone>>,
    vacant_alone: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Page {
    /// None where it was given back.
    bytes: Option<Box<[u8; PAGE_BYTES]>>,
    /// Bytes of a slot.
    slot: u16,
}

/// What is kept of a page beside its bytes. Slots are numbered from the page's beginning.
#[derive(Clone, Copy, Debug)]
struct PageState {
    used: u16,
    /// The first of the slots that were freed; each one's first bytes name the next.
    freed: u16,
    /// The first of the slots that were never used.
    fresh: u16,
    /// How many there are.
    slots: u16,
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
        let length = packed::length(&record);
        if length <= SMALL_BYTES
            && let Some(handle) = self.take_slot(class_of(length))
        {
            let Place::Slot(page, slot) = place_of(handle) else {
                unreachable!("a slot is in a page");
            };
            packed::write(self.slot_mut(page, slot), &record);
            return handle;
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
            Place::Slot(page, slot) => packed::key(self.at_slot(page, slot)),
            Place::Alone(place) => {
                &self.alone[place].as_ref().expect("a handle names a record").key
            }
        }
    }

    /// A record as it is.
    pub(super) fn record(&self, handle: Handle) -> RecordRef<'_> {
        match place_of(handle) {
            Place::Slot(page, slot) => packed::read(self.at_slot(page, slot)),
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
            Place::Slot(page, slot) => {
                let bytes = self.at_slot(page, slot);
                bytes[0] ^ bytes[TOUCHED_BYTES.min(bytes.len() - 1)]
            }
            Place::Alone(place) => u8::from(self.alone[place].is_some()),
        }
    }

    /// Makes the record of a key what is given. If its place doesn't fit, that is left as it is, to
    /// be freed by the caller, and the new place is returned.
    pub(super) fn overwrite(&mut self, handle: Handle, record: RecordRef<'_>) -> Option<Handle> {
        let length = packed::length(&record);
        match place_of(handle) {
            Place::Slot(page, slot) => {
                let bytes = self.slot_mut(page, slot);
                // What leaves less than the finest step has this class, whatever its length is.
                if bytes.len().wrapping_sub(length) < FINE_STEP_BYTES
                    || length <= SMALL_BYTES && slot_bytes(class_of(length)) == bytes.len()
                {
                    packed::overwrite(bytes, &record);
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
            Place::Slot(page, slot) => self.free_slot(page, slot),
            Place::Alone(place) => drop(self.take_alone(place)),
        }
    }

    /// Takes a record out and keeps it: a value that stands alone is moved.
    pub(super) fn take(&mut self, handle: Handle) -> Record {
        match place_of(handle) {
            Place::Slot(page, slot) => {
                let record = self.record(handle).to_record();
                self.free_slot(page, slot);
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
        let pages = self.pages.into_iter().filter_map(|page| page.bytes).map(|page| page.len());
        let alone = self.alone.into_iter().flatten().map(|alone| alone.record.value.len());
        pages.chain(alone)
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        use super::record::piece_bytes;
        let pages = self.pages.iter().filter(|page| page.bytes.is_some()).count();
        let alone =
            self.alone.iter().flatten().map(|alone| {
                piece_bytes(alone.key.len()) + piece_bytes(alone.record.value.capacity())
            });
        let lists = self.pages.capacity() * size_of::<Page>()
            + self.states.capacity() * size_of::<PageState>()
            + self.alone.capacity() * size_of::<Option<Alone>>();
        pages * piece_bytes(PAGE_BYTES) + alone.sum::<usize>() + lists
    }

    /// A free slot of a class, and that it is taken; none where there are no more pages.
    fn take_slot(&mut self, class: usize) -> Option<Handle> {
        if self.roomy.is_empty() {
            self.roomy.resize(CLASSES, Vec::new());
        }
        let page = match self.roomy[class].last() {
            Some(page) => *page as usize,
            None => self.add_page(class)?,
        };
        let PageState { freed, fresh, .. } = self.states[page];
        let slot = if freed == NO_SLOT {
            self.states[page].fresh += 1;
            fresh
        } else {
            let next = LittleEndian::read_u16(self.slot_mut(page, freed.into()));
            self.states[page].freed = next;
            freed
        };
        self.states[page].used += 1;
        if !self.states[page].has_room() {
            let last = self.roomy[class].pop();
            assert_eq!(last, Some(page as u32), "slots are taken of the last page of a list");
        }
        Some(Handle((page as u32) << SLOT_BITS | u32::from(slot)))
    }

    fn add_page(&mut self, class: usize) -> Option<usize> {
        let page = match self.vacant.pop() {
            Some(page) => page as usize,
            None if self.pages.len() < PAGES => {
                self.pages.push(Page { bytes: None, slot: 0 });
                self.states.push(PageState { used: 0, freed: 0, fresh: 0, slots: 0, place: 0 });
                self.pages.len() - 1
            }
            None => return None,
        };
        let bytes = vec![0; PAGE_BYTES].into_boxed_slice();
        let bytes = bytes.try_into().expect("it has the length of a page");
        let slot = slot_bytes(class);
        self.pages[page] = Page { bytes: Some(bytes), slot: slot as u16 };
        let (slots, place) = ((PAGE_BYTES / slot) as u16, self.roomy[class].len() as u32);
        self.states[page] = PageState { used: 0, freed: NO_SLOT, fresh: 0, slots, place };
        self.roomy[class].push(page as u32);
        Some(page)
    }

    fn free_slot(&mut self, page: usize, slot: usize) {
        let state = self.states[page];
        LittleEndian::write_u16(self.slot_mut(page, slot), state.freed);
        let roomy = &mut self.roomy[class_of(self.pages[page].slot.into())];
        let now = &mut self.states[page];
        (now.freed, now.used) = (slot as u16, state.used - 1);
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
            self.pages[page].bytes = None;
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

    /// A page from the beginning of a slot on.
    fn at_slot(&self, page: usize, slot: usize) -> &[u8] {
        let Page { bytes, slot: slot_bytes } = &self.pages[page];
        let bytes = bytes.as_deref().expect("a record's page is there");
        &bytes[slot * usize::from(*slot_bytes)..]
    }

    fn slot_mut(&mut self, page: usize, slot: usize) -> &mut [u8] {
        let Page { bytes, slot: slot_bytes } = &mut self.pages[page];
        let bytes = bytes.as_deref_mut().expect("a record's page is there");
        let slot_bytes = usize::from(*slot_bytes);
        &mut bytes[slot * slot_bytes..][..slot_bytes]
    }
}

impl PageState {
    fn has_room(self) -> bool {
        self.freed != NO_SLOT || self.fresh < self.slots
    }
}

enum Place {
    /// A page, and a slot in it.
    Slot(usize, usize),
    Alone(usize),
}

fn place_of(handle: Handle) -> Place {
    let place = (handle.0 & !ALONE) as usize;
    match handle.0 & ALONE {
        0 => Place::Slot(place >> SLOT_BITS, place % (1 << SLOT_BITS)),
        _ => Place::Alone(place),
    }
}

/// The class of the slots that a record of so many bytes goes to.
const fn class_of(bytes: usize) -> usize {
    let bytes = if bytes < SHORTEST_BYTES { SHORTEST_BYTES } else { bytes };
    if bytes <= FINE_BYTES {
        return bytes.div_ceil(FINE_STEP_BYTES);
    }
    // Each doubling has half as many classes as there are up to the first one.
    let doublings = (bytes - 1).ilog2() - FINE_BYTES.ilog2();
    let half = FINE_BYTES / FINE_STEP_BYTES / 2;
    let step = (2 * FINE_STEP_BYTES) << doublings;
    doublings as usize * half + bytes.div_ceil(step) + half
}

/// The length of a class's slots.
const fn slot_bytes(class: usize) -> usize {
    let fine = FINE_BYTES / FINE_STEP_BYTES;
    if class <= fine {
        return class * FINE_STEP_BYTES;
    }
    let half = fine / 2;
    let doublings = (class - fine - 1) / half;
    (class - half - doublings * half) * ((2 * FINE_STEP_BYTES) << doublings)
}

const _: () = assert!(PAGE_BYTES / SHORTEST_BYTES <= 1 << SLOT_BITS);
const _: () = assert!((1 << SLOT_BITS) < NO_SLOT as usize);
const _: () = assert!(slot_bytes(CLASSES - 1) == SMALL_BYTES);
const _: () = assert!(size_of::<Page>() == 16);

#[cfg(test)]
#[path = "slab_tests.rs"]
mod tests;
