//! The replicated log in memory (§3.5), which begins behind what a snapshot replaced (§5).
//!
//! Called by the rest of `raft/`; never touches the disk: what is durable is
//! [`super::durability`]'s business. Entries begin behind the *base*, the last entry that was
//! discarded: index 0 and term 0 as long as none was.

use std::collections::VecDeque;

use crate::limits;
use crate::proto::entry::Entry;
use crate::types::{ClusterTime, LogIndex, SnapshotId, Term};

/// The last entry that is no longer there: a snapshot includes it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Base {
    /// Its index and term.
    pub last: SnapshotId,
    /// The cluster clock when it was appended, or a later time that the snapshot knows.
    pub time: ClusterTime,
}

/// The log: entries without gaps, oldest first.
#[derive(Default, Debug)]
pub struct Log {
    base: Base,
    entries: VecDeque<Entry>,
    /// What they take in memory.
    bytes: usize,
}

impl Log {
    /// A log that holds `entries`, which begin behind `base` and have no gaps.
    pub fn new(base: Base, entries: Vec<Entry>) -> Log {
        let mut log = Log { base, ..Log::default() };
        for entry in entries {
            log.append(entry);
        }
        log
    }

    /// What the log begins behind.
    pub fn base(&self) -> Base {
        self.base
    }

    /// What the entries that are there take in memory, in bytes; an estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The index of the first entry that is there, or would be.
    pub fn first_index(&self) -> LogIndex {
        self.base.last.index.next()
    }

    /// The index of the last entry, discarded ones included; 0 if there never was one.
    pub fn last_index(&self) -> LogIndex {
        self.base.last.index.plus(self.entries.len() as u64)
    }

    /// The term of the last entry, 0 if there never was one.
    pub fn last_term(&self) -> Term {
        self.entries.back().map_or(self.base.last.term, |entry| entry.term)
    }

    /// The time of the last entry, 0 if there never was one.
    pub fn last_time(&self) -> ClusterTime {
        self.entries.back().map_or(self.base.time, |entry| entry.time)
    }

    /// The last entry, if it is there.
    pub fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// The entry at `index`, if it is there.
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let position = index.0.checked_sub(self.first_index().0)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// The term of the entry at `index`: known for the base too, `None` before it and past the
    /// end.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.last.index {
            return Some(self.base.last.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Whether the log has the entry that ends this snapshot: then what it has up to there is what
    /// the snapshot includes (§3.5, log matching).
    pub fn includes(&self, snapshot: SnapshotId) -> bool {
        self.term_at(snapshot.index) == Some(snapshot.term)
    }

    /// Appends the entry that follows on the last one.
    pub fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last_index().next(), "the log has no gaps");
        assert!(entry.term >= self.last_term(), "terms never fall along the log");
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
    }

    /// Removes the entry at `from` and all behind it.
    pub fn truncate_from(&mut self, from: LogIndex) {
        assert!(from >= self.first_index(), "what a snapshot includes was committed, and stays");
        let removed = self.entries.drain((from.0 - self.first_index().0) as usize..);
        self.bytes -= removed.map(|entry| entry_bytes(&entry)).sum::<usize>();
    }

    /// Discards the entries up to `through`, which a snapshot includes. Nothing happens where they
    /// are gone already.
    pub fn compact(&mut self, through: LogIndex) {
        let Some(last) = self.entry(through) else {
            assert!(through <= self.base.last.index, "a snapshot replaces entries that were there");
            return;
        };
        let last_id = SnapshotId { index: last.index, term: last.term };
        let time = last.time;
        let removed = self.entries.drain(..=(through.0 - self.base.last.index.next().0) as usize);
        self.bytes -= removed.map(|entry| entry_bytes(&entry)).sum::<usize>();
        self.base = Base { last: last_id, time };
    }

    /// Discards everything: the log begins anew behind a snapshot.
    pub fn reset(&mut self, base: Base) {
        *self = Log { base, ..Log::default() };
    }

    /// The lowest index such that the entries up to it take at least `bytes` of memory, or are
    /// `max_entries`; the base where that is 0.
    pub fn index_past(&self, bytes: usize, max_entries: u64) -> LogIndex {
        let base = self.base.last.index;
        let (mut index, mut passed) = (base, 0);
        for entry in &self.entries {
            if passed >= bytes || index.0 - base.0 >= max_entries {
                break;
            }
            passed += entry_bytes(entry);
            index = entry.index;
        }
        index
    }

    /// Copies of the entries from `from` on: at least one if there is one, then as many as fit in
    /// `max_bytes` of payload and `max_entries`. The payloads are shared, not copied.
    pub fn slice(&self, from: LogIndex, max_bytes: usize, max_entries: usize) -> Vec<Entry> {
        assert!(from >= self.first_index(), "only what is there is sent");
        let start = (from.0 - self.first_index().0) as usize;
        let mut bytes = 0;
        let mut slice = Vec::new();
        for entry in self.entries.range(start.min(self.entries.len())..) {
            bytes += entry.payload.len();
            if !slice.is_empty() && (bytes > max_bytes || slice.len() >= max_entries) {
                break;
            }
            slice.push(entry.clone());
        }
        slice
    }

    /// The last index, at most `index`, whose term is at most `term`: where a log that has `term`
    /// at `index` may still agree with this one. Used on both sides of a rejected AppendEntries, so
    /// that one round trip skips a whole run of terms (§3.5, the conflict hint). Below the base
    /// where nothing that is left may agree.
    pub fn last_possible_match(&self, index: LogIndex, term: Term) -> LogIndex {
        let mut candidate = index.min(self.last_index());
        while self.term_at(candidate).is_some_and(|own| own > term) {
            candidate = candidate.prev();
        }
        candidate
    }

    /// Whether a log that ends at `last_index` in `last_term` is at least as up-to-date as this one
    /// (§3.6.1).
    pub fn is_up_to_date(&self, last_index: LogIndex, last_term: Term) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last_index())
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    limits::LOG_ENTRY_BYTES + entry.payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::entry::EntryKind;
    use crate::types::ClusterTime;
    use bytes::Bytes;

    fn log(terms: &[u64]) -> Log {
        log_behind(Base::default(), terms)
    }

    fn log_behind(base: Base, terms: &[u64]) -> Log {
        let entry = |(position, term): (usize, &u64)| Entry {
            index: base.last.index.plus(position as u64 + 1),
            term: Term(*term),
            time: ClusterTime(0),
            kind: EntryKind::Batch,
            payload: Bytes::from_static(b"0123456789"),
        };
        Log::new(base, terms.iter().enumerate().map(entry).collect())
    }

    fn base(index: u64, term: u64) -> Base {
        let last = SnapshotId { index: LogIndex(index), term: Term(term) };
        Base { last, time: ClusterTime(0) }
    }

    #[test]
    fn slice_sends_at_least_one_and_keeps_the_bounds() {
        let log = log(&[1, 1, 1, 1]);
        assert_eq!(log.slice(LogIndex(2), 1, 100).len(), 1);
        assert_eq!(log.slice(LogIndex(1), 25, 100).len(), 2);
        assert_eq!(log.slice(LogIndex(1), 1000, 3).len(), 3);
        assert_eq!(log.slice(LogIndex(5), 1000, 3).len(), 0);
    }

    #[test]
    fn last_possible_match_skips_a_run_of_terms() {
        let log = log(&[1, 1, 4, 4, 4, 6, 6]);
        assert_eq!(log.last_possible_match(LogIndex(7), Term(5)), LogIndex(5));
        assert_eq!(log.last_possible_match(LogIndex(7), Term(3)), LogIndex(2));
        assert_eq!(log.last_possible_match(LogIndex(7), Term(0)), LogIndex(0));
        assert_eq!(log.last_possible_match(LogIndex(99), Term(9)), LogIndex(7));
    }

    #[test]
    fn is_up_to_date_compares_term_before_index() {
        let log = log(&[1, 2]);
        assert!(log.is_up_to_date(LogIndex(1), Term(3)));
        assert!(log.is_up_to_date(LogIndex(2), Term(2)));
        assert!(!log.is_up_to_date(LogIndex(9), Term(1)));
        assert!(!log.is_up_to_date(LogIndex(1), Term(2)));
    }

    #[test]
    fn term_at_is_known_for_the_base_and_not_below() {
        let log = log_behind(base(5, 2), &[2, 3]);
        assert_eq!(log.first_index(), LogIndex(6));
        assert_eq!(log.last_index(), LogIndex(7));
        let terms = [4, 5, 6, 7, 8].map(|index| log.term_at(LogIndex(index)));
        assert_eq!(terms, [None, Some(Term(2)), Some(Term(2)), Some(Term(3)), None]);
        assert_eq!(log.term_at(LogIndex(0)), None);
    }

    #[test]
    fn compact_leaves_what_stands_behind() {
        let mut log = log(&[1, 1, 2, 3]);
        log.compact(LogIndex(3));
        assert_eq!(log.base(), base(3, 2));
        assert_eq!((log.last_index(), log.last_term()), (LogIndex(4), Term(3)));
        log.compact(LogIndex(2));
        assert_eq!(log.base(), base(3, 2), "it doesn't come back");
        log.compact(LogIndex(4));
        assert_eq!((log.base(), log.last()), (base(4, 3), None));
        assert_eq!((log.last_index(), log.last_term()), (LogIndex(4), Term(3)));
        assert_eq!(log.slice(LogIndex(5), 100, 100), []);
    }

    #[test]
    fn index_past_counts_from_the_base() {
        let log = log_behind(base(10, 1), &[1; 10]);
        let each = limits::LOG_ENTRY_BYTES + 10;
        let past = [0, 1, each + 1, 100 * each].map(|bytes| log.index_past(bytes, 100).0);
        assert_eq!(past, [10, 11, 12, 20]);
        assert_eq!(log.index_past(100 * each, 3), LogIndex(13));
    }

    #[test]
    fn index_past_counts_entries_without_a_payload() {
        // A log of empty entries, as a leader writes for keys that expire, takes memory all the
        // same: what a MiB holds must not be a million of them.
        let mut log = Log::default();
        for index in 1..=100_000 {
            let (index, term, payload) = (LogIndex(index), Term(1), Bytes::new());
            log.append(Entry {
                index,
                term,
                time: ClusterTime(0),
                kind: EntryKind::Empty,
                payload,
            });
        }
        let past = log.index_past(1024 * 1024, u64::MAX).0;
        assert!((1..=16 * 1024).contains(&past), "{past} entries");
    }

    #[test]
    fn bytes_are_those_of_the_entries_that_are_there() {
        let each = limits::LOG_ENTRY_BYTES + 10;
        let mut log = log(&[1, 1, 2, 3, 3]);
        assert_eq!(log.bytes(), 5 * each);
        log.truncate_from(LogIndex(5));
        log.compact(LogIndex(1));
        assert_eq!(log.bytes(), 3 * each);
        log.reset(base(9, 3));
        assert_eq!(log.bytes(), 0);
    }

    #[test]
    fn last_possible_match_may_be_below_the_base() {
        let log = log_behind(base(5, 4), &[4, 6]);
        assert_eq!(log.last_possible_match(LogIndex(7), Term(5)), LogIndex(6));
        assert_eq!(log.last_possible_match(LogIndex(7), Term(3)), LogIndex(4));
        assert_eq!(log.last_possible_match(LogIndex(2), Term(9)), LogIndex(2));
    }
}
