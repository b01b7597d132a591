//! The store's last changes in their order: what watches, notifications and tracking are fed from.
//!
//! Design 2-client-path §5: each mutation has a revision. Every node applies the log and so has the
//! same changes, whoever watches where. Written by `store.rs`, read by `node/`. It is no part of
//! the state: it is in no snapshot and no digest, and begins anew behind an installed snapshot.

use std::collections::VecDeque;

use byteorder::{ByteOrder, LittleEndian};

use super::command::NEVER_LOGGED;
use crate::limits;
use crate::types::{ClusterTime, Revision};

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// It has this value, and this deadline or none.
    Set,
    /// This was appended to its value, which is not here: appending to a large value stays cheap.
    Appended,
    /// It has another deadline, or none any more.
    Deadline,
    /// It was deleted.
    Deleted,
    /// Its time had come, and it was removed.
    Expired,
    /// Every key was deleted.
    Cleared,
    /// Nothing: a message was published to the channel that the key names. It has the revision of
    /// the change before it.
    Message,
}

const KINDS: [ChangeKind; 7] = [
    ChangeKind::Set,
    ChangeKind::Appended,
    ChangeKind::Deadline,
    ChangeKind::Deleted,
    ChangeKind::Expired,
    ChangeKind::Cleared,
    ChangeKind::Message,
];

/// One change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change<'a> {
    /// The mutation's number; no two mutations have the same.
    pub revision: Revision,
    /// What happened.
    pub kind: ChangeKind,
    /// The code of the command that did it; of no meaning where the key expired.
    pub command: u16,
    /// The key; empty where all were cleared.
    pub key: &'a [u8],
    /// The value, or what was appended to it; else empty.
    pub value: &'a [u8],
    /// When the key dies, by the cluster clock; of a set and of a deadline.
    pub deadline: Option<ClusterTime>,
}

/// A place between two changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Position {
    chunk: u64,
    offset: usize,
}

/// Changes one behind the other in one piece of memory.
#[derive(Clone, Debug)]
struct Chunk {
    /// The newest change in it.
    last: Revision,
    bytes: Vec<u8>,
}

/// The last changes. See the file's head.
#[derive(Clone, Debug)]
pub struct History {
    chunks: VecDeque<Chunk>,
    /// The number of the first of these.
    first: u64,
    bytes: usize,
    /// Bytes that are kept at most.
    most: usize,
    /// Changes up to here are gone.
    floor: Revision,
    /// The command that is being carried out.
    command: u16,
}

/// What a change takes beside its key and value: kind, command, revision, deadline, two lengths.
const HEAD_BYTES: usize = 1 + 2 + 8 + 8 + 4 + 4;

/// Stands for no deadline, as it does in the store.
const NO_DEADLINE: u64 = u64::MAX;

impl Default for History {
    fn default() -> History {
        History {
            chunks: VecDeque::new(),
            first: 0,
            bytes: 0,
            most: limits::HISTORY_BYTES,
            floor: Revision::ZERO,
            command: 0,
        }
    }
}

impl History {
    /// One that knows no change up to this revision.
    pub(super) fn behind(revision: Revision) -> History {
        History { floor: revision, ..History::default() }
    }

    /// Changes from here on are this command's.
    pub(super) fn begin(&mut self, command: u16) {
        self.command = command;
    }

    /// At most so many bytes are kept from here on.
    pub(super) fn bound(&mut self, most: usize) {
        self.most = most;
    }

    /// Forgets all changes: those up to `revision` can't be told any more. Positions stay in order:
    /// what comes next is behind every one that was given out.
    pub(super) fn forget(&mut self, revision: Revision) {
        self.first += self.chunks.len() as u64;
        self.chunks.clear();
        self.bytes = 0;
        self.floor = revision;
    }

    /// Adds a change behind the others; the oldest ones go while there is too much.
    pub(super) fn push(
        &mut self,
        kind: ChangeKind,
        revision: Revision,
        key: &[u8],
        value: &[u8],
        deadline: Option<ClusterTime>,
    ) {
        let needed = HEAD_BYTES + key.len() + value.len();
        let fits = |chunk: &Chunk| chunk.bytes.len() + needed <= chunk.bytes.capacity();
        if !self.chunks.back().is_some_and(fits) {
            self.begin_chunk(needed);
        }
        let command = if kind == ChangeKind::Expired { NEVER_LOGGED } else { self.command };
        let mut head = [0; HEAD_BYTES];
        head[0] = kind as u8;
        LittleEndian::write_u16(&mut head[1..3], command);
        LittleEndian::write_u64(&mut head[3..11], revision.0);
        LittleEndian::write_u64(&mut head[11..19], deadline.map_or(NO_DEADLINE, |time| time.0));
        LittleEndian::write_u32(&mut head[19..23], key.len() as u32);
        LittleEndian::write_u32(&mut head[23..27], value.len() as u32);
        let chunk = self.chunks.back_mut().expect("begun just now if there was none");
        let is_new = chunk.last < revision || kind == ChangeKind::Message;
        assert!(is_new, "each change has a revision of its own");
        chunk.last = revision;
        chunk.bytes.extend_from_slice(&head);
        chunk.bytes.extend_from_slice(key);
        chunk.bytes.extend_from_slice(value);
    }

    /// Makes room for a change of so many bytes. The chunk that goes leaves its memory to the new
    /// one where that fits, so that a steady load allocates nothing.
    fn begin_chunk(&mut self, needed: usize) {
        let capacity = needed.max(limits::HISTORY_CHUNK_BYTES);
        let mut spare = None;
        while self.bytes + capacity > self.most
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.first += 1;
            self.floor = oldest.last;
            self.bytes -= oldest.bytes.capacity();
            spare = Some(oldest.bytes);
        }
        let spare = spare.filter(|bytes| bytes.capacity() == capacity);
        let mut bytes = spare.unwrap_or_else(|| Vec::with_capacity(capacity));
        bytes.clear();
        self.bytes += bytes.capacity();
        let last = self.chunks.back().map_or(self.floor, |chunk| chunk.last);
        self.chunks.push_back(Chunk { last, bytes });
    }

    /// Changes up to here can't be told any more: a watch begins at this revision or later.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// Bytes of memory that the changes take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The place behind the newest change.
    pub fn end(&self) -> Position {
        match self.chunks.back() {
            Some(chunk) => Position {
                chunk: self.first + self.chunks.len() as u64 - 1,
                offset: chunk.bytes.len(),
            },
            None => Position { chunk: self.first, offset: 0 },
        }
    }

    /// The place behind the last change up to this revision; `None` where changes behind it are
    /// gone.
    pub fn behind_revision(&self, revision: Revision) -> Option<Position> {
        if revision < self.floor {
            return None;
        }
        let place = self.chunks.partition_point(|chunk| chunk.last <= revision);
        let Some(chunk) = self.chunks.get(place) else {
            return Some(self.end());
        };
        let mut offset = 0;
        while let Some((change, length)) = read(&chunk.bytes[offset..])
            && change.revision <= revision
        {
            offset += length;
        }
        Some(Position { chunk: self.first + place as u64, offset })
    }

    /// The change behind `position`, which moves behind it. `None` where there is none, or where it
    /// is gone: see [`has`](History::has).
    pub fn next(&self, position: &mut Position) -> Option<Change<'_>> {
        loop {
            let place = usize::try_from(position.chunk.checked_sub(self.first)?).ok()?;
            let chunk = self.chunks.get(place)?;
            if let Some((change, length)) = read(&chunk.bytes[position.offset..]) {
                position.offset += length;
                return Some(change);
            }
            if place + 1 == self.chunks.len() {
                return None;
            }
            *position = Position { chunk: position.chunk + 1, offset: 0 };
        }
    }

    /// Bytes of memory behind `position`, roughly; all of it where that is gone.
    pub fn bytes_behind(&self, position: Position) -> usize {
        let passed = position.chunk.saturating_sub(self.first);
        let passed = usize::try_from(passed).unwrap_or(usize::MAX).min(self.chunks.len());
        self.chunks.range(passed..).map(|chunk| chunk.bytes.capacity()).sum()
    }

    /// Whether everything behind `position` is still here.
    pub fn has(&self, position: Position) -> bool {
        position.chunk >= self.first
    }
}

/// The first change of these bytes, and its length there.
fn read(bytes: &[u8]) -> Option<(Change<'_>, usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let deadline = LittleEndian::read_u64(&head[11..19]);
    let (key, rest) = rest.split_at(LittleEndian::read_u32(&head[19..23]) as usize);
    let value = &rest[..LittleEndian::read_u32(&head[23..27]) as usize];
    let change = Change {
        revision: Revision(LittleEndian::read_u64(&head[3..11])),
        kind: KINDS[usize::from(head[0])],
        command: LittleEndian::read_u16(&head[1..3]),
        key,
        value,
        deadline: (deadline != NO_DEADLINE).then_some(ClusterTime(deadline)),
    };
    Some((change, HEAD_BYTES + key.len() + value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(history: &History, mut position: Position) -> Vec<u64> {
        let mut revisions = Vec::new();
        while let Some(change) = history.next(&mut position) {
            revisions.push(change.revision.0);
        }
        assert_eq!(position, history.end());
        revisions
    }

    #[test]
    fn next_tells_what_was_pushed_from_any_revision_on() {
        let mut history = History::behind(Revision(10));
        history.begin(7);
        history.push(ChangeKind::Set, Revision(11), b"a", b"1", Some(ClusterTime(99)));
        history.push(ChangeKind::Expired, Revision(12), b"b", b"", None);
        // A mutation that changed nothing took the revision between.
        history.push(ChangeKind::Cleared, Revision(14), b"", b"", None);
        let mut position = history.behind_revision(Revision(10)).unwrap();
        let first = history.next(&mut position).unwrap();
        let deadline = Some(ClusterTime(99));
        let (key, value) = (&b"a"[..], &b"1"[..]);
        let revision = Revision(11);
        let kind = ChangeKind::Set;
        assert_eq!(first, Change { revision, kind, command: 7, key, value, deadline });
        for (from, expected) in [
            (10, &[11, 12, 14][..]),
            (11, &[12, 14]),
            (12, &[14]),
            (13, &[14]),
            (14, &[]),
            (20, &[]),
        ] {
            let position = history.behind_revision(Revision(from)).unwrap();
            assert_eq!(told(&history, position), expected, "from {from}");
        }
        assert_eq!(history.behind_revision(Revision(9)), None);
    }

    #[test]
    fn push_lets_the_oldest_go_at_the_bound_and_says_so() {
        let mut history = History::default();
        let start = history.end();
        let value = vec![b'v'; 1000];
        let pushed = 2 * limits::HISTORY_BYTES as u64 / 1000;
        for revision in 1..=pushed {
            history.push(ChangeKind::Set, Revision(revision), b"key", &value, None);
            assert!(history.bytes() <= limits::HISTORY_BYTES);
        }
        let floor = history.floor().0;
        assert!(floor > pushed / 4 && floor < pushed * 3 / 4, "{floor} of {pushed}");
        assert!(!history.has(start) && history.has(history.end()));
        assert_eq!(history.next(&mut start.clone()), None);
        let position = history.behind_revision(Revision(floor)).unwrap();
        assert_eq!(told(&history, position), (floor + 1..=pushed).collect::<Vec<_>>());
        assert_eq!(history.behind_revision(Revision(floor - 1)), None);
    }

    #[test]
    fn bound_takes_the_oldest_away_with_the_next_changes() {
        let mut history = History::default();
        let value = vec![b'v'; 1000];
        let pushed = limits::HISTORY_BYTES as u64 / 2000;
        for revision in 1..=pushed {
            history.push(ChangeKind::Set, Revision(revision), b"key", &value, None);
        }
        assert_eq!(history.floor(), Revision(0));
        history.bound(limits::HISTORY_UNHEARD_BYTES);
        let chunk = limits::HISTORY_CHUNK_BYTES as u64 / 1000;
        for revision in pushed + 1..=pushed + chunk {
            history.push(ChangeKind::Set, Revision(revision), b"key", &value, None);
        }
        assert!(history.bytes() <= limits::HISTORY_UNHEARD_BYTES);
        let floor = history.floor().0;
        assert!(floor + limits::HISTORY_UNHEARD_BYTES as u64 / 2000 < pushed + chunk);
        let position = history.behind_revision(Revision(floor)).unwrap();
        assert_eq!(told(&history, position), (floor + 1..=pushed + chunk).collect::<Vec<_>>());
    }

    #[test]
    fn push_takes_a_change_larger_than_all_that_is_kept() {
        let mut history = History::default();
        history.push(ChangeKind::Set, Revision(1), b"small", b"1", None);
        let large = vec![0; limits::HISTORY_BYTES + 1];
        history.push(ChangeKind::Set, Revision(2), b"large", &large, None);
        history.push(ChangeKind::Deleted, Revision(3), b"large", b"", None);
        assert_eq!(history.floor(), Revision(2));
        assert_eq!(told(&history, history.behind_revision(Revision(2)).unwrap()), [3]);
    }

    #[test]
    fn forget_leaves_no_position_valid_but_the_end() {
        let mut history = History::default();
        history.push(ChangeKind::Set, Revision(1), b"a", b"1", None);
        let before = history.behind_revision(Revision(0)).unwrap();
        history.forget(Revision(5));
        assert!(!history.has(before));
        assert_eq!((history.floor(), history.bytes()), (Revision(5), 0));
        let end = history.end();
        history.push(ChangeKind::Set, Revision(6), b"a", b"2", None);
        assert_eq!(told(&history, end), [6]);
    }
}
