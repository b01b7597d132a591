//! The replicated log in memory (§3.5).
//!
//! Called by the rest of `raft/`; never touches the disk: what is durable is
//! [`super::durability`]'s business. Entries begin at index 1; index 0 is the place before the
//! first one and has term 0.

use std::collections::VecDeque;

use crate::proto::entry::Entry;
use crate::types::{LogIndex, Term};

/// The log: entries without gaps, oldest first.
#[derive(Default, Debug)]
pub struct Log {
    entries: VecDeque<Entry>,
}

impl Log {
    /// A log that holds `entries`, which begin at index 1 and have no gaps.
    pub fn new(entries: Vec<Entry>) -> Log {
        let mut log = Log::default();
        for entry in entries {
            log.append(entry);
        }
        log
    }

    /// The index of the last entry, 0 if there is none.
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.entries.len() as u64)
    }

    /// The term of the last entry, 0 if there is none.
    pub fn last_term(&self) -> Term {
        self.entries.back().map_or(Term::ZERO, |entry| entry.term)
    }

    /// The last entry.
    pub fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// The entry at `index`.
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let position = index.0.checked_sub(1)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// The term of the entry at `index`: 0 for index 0, `None` past the end.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == LogIndex::ZERO {
            return Some(Term::ZERO);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Appends the entry that follows on the last one.
    pub fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last_index().next(), "the log has no gaps");
        assert!(entry.term >= self.last_term(), "terms never fall along the log");
        self.entries.push_back(entry);
    }

    /// Removes the entry at `from` and all behind it.
    pub fn truncate_from(&mut self, from: LogIndex) {
        assert!(from > LogIndex::ZERO, "there is no entry 0 to remove");
        self.entries.truncate((from.0 - 1) as usize);
    }

    /// Copies of the entries from `from` on: at least one if there is one, then as many as fit in
    /// `max_bytes` of payload and `max_entries`. The payloads are shared, not copied.
    pub fn slice(&self, from: LogIndex, max_bytes: usize, max_entries: usize) -> Vec<Entry> {
        let start = (from.0.max(1) - 1) as usize;
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
    /// that one round trip skips a whole run of terms (§3.5, the conflict hint).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::entry::EntryKind;
    use crate::types::ClusterTime;
    use bytes::Bytes;

    fn log(terms: &[u64]) -> Log {
        let entry = |(position, term): (usize, &u64)| Entry {
            index: LogIndex(position as u64 + 1),
            term: Term(*term),
            time: ClusterTime(0),
            kind: EntryKind::Batch,
            payload: Bytes::from_static(b"0123456789"),
        };
        Log::new(terms.iter().enumerate().map(entry).collect())
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
}
