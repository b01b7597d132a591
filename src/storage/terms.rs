//! Where a log begins and ends, and the terms of its entries, without the entries.
//!
//! Called by recovery, which builds it up record by record, and by the writer, which goes on with
//! it: a new segment begins with the log's last entry. Takes memory by the number of terms, not of
//! entries. Never judges what it is told.

use crate::types::{LogIndex, SnapshotId, Term};

/// The entries of a log, by their terms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The entry before the first one.
    base: LogIndex,
    last: LogIndex,
    /// Where each term begins, ascending. The base is among them if its term is known.
    runs: Vec<(LogIndex, Term)>,
}

impl Terms {
    /// A log without entries, behind this one. A term of 0 at an index above 0 is not known.
    pub fn new(base: SnapshotId) -> Terms {
        let SnapshotId { index, term } = base;
        let is_known = term > Term::ZERO || index == LogIndex::ZERO;
        let runs = is_known.then_some((index, term)).into_iter().collect();
        Terms { base: index, last: index, runs }
    }

    /// The entry before the first one.
    pub fn base(&self) -> LogIndex {
        self.base
    }

    /// The last entry; that before the first one where there is none.
    pub fn last(&self) -> LogIndex {
        self.last
    }

    /// The last entry with its term, as a record says it: 0 where it is not known.
    pub fn last_id(&self) -> SnapshotId {
        let term = self.term_at(self.last).unwrap_or(Term::ZERO);
        SnapshotId { index: self.last, term }
    }

    /// The term of an entry, if the log has it, or of the one before the first, if it is known.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index < self.base || index > self.last {
            return None;
        }
        let behind = self.runs.partition_point(|(first, _)| *first <= index);
        self.runs[..behind].last().map(|(_, term)| *term)
    }

    /// The entry behind the last one.
    pub fn append(&mut self, term: Term) {
        self.last = self.last.next();
        if self.runs.last().is_none_or(|(_, last)| *last != term) {
            self.runs.push((self.last, term));
        }
    }

    /// Entries at `from`, at least 1, and above are gone. Where that is before the log's beginning,
    /// it begins there now, behind an entry of unknown term.
    pub fn truncate(&mut self, from: LogIndex) {
        assert!(from > LogIndex::ZERO);
        self.last = self.last.min(from.prev());
        self.base = self.base.min(self.last);
        self.runs.retain(|(first, _)| *first < from);
    }

    /// Nobody will ask for entries before `index` again.
    pub fn forget_before(&mut self, index: LogIndex) {
        let index = index.min(self.last);
        self.base = self.base.max(index);
        let behind = self.runs.partition_point(|(first, _)| *first <= index);
        self.runs.drain(..behind.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64, term: u64) -> SnapshotId {
        SnapshotId { index: LogIndex(index), term: Term(term) }
    }

    #[test]
    fn term_at_knows_the_base_and_every_entry_and_nothing_else() {
        let mut terms = Terms::new(id(10, 2));
        for term in [2, 2, 5, 5, 6] {
            terms.append(Term(term));
        }
        let known: Vec<Option<u64>> =
            (9..=16).map(|at| terms.term_at(LogIndex(at)).map(|term| term.0)).collect();
        let some = |term| Some(term);
        assert_eq!(known, [None, some(2), some(2), some(2), some(5), some(5), some(6), None]);
        assert_eq!(terms.last_id(), id(15, 6));
        terms.forget_before(LogIndex(13));
        assert_eq!((terms.base(), terms.term_at(LogIndex(13))), (LogIndex(13), Some(Term(5))));
        assert_eq!(terms.term_at(LogIndex(12)), None);
    }

    #[test]
    fn truncate_gives_up_terms_and_at_last_the_base() {
        let mut terms = Terms::new(id(10, 2));
        for term in [3, 4, 5] {
            terms.append(Term(term));
        }
        terms.truncate(LogIndex(12));
        assert_eq!(terms.last_id(), id(11, 3));
        terms.append(Term(7));
        assert_eq!(terms.last_id(), id(12, 7));
        // Behind a base whose segments are gone the term is not known, and never guessed.
        terms.truncate(LogIndex(9));
        assert_eq!((terms.base(), terms.last_id()), (LogIndex(8), id(8, 0)));
        assert_eq!(terms.term_at(LogIndex(8)), None);
        terms.append(Term(8));
        assert_eq!(terms.term_at(LogIndex(9)), Some(Term(8)));
        assert_eq!(Terms::new(id(0, 0)).last_id(), id(0, 0));
        assert_eq!(Terms::new(id(0, 0)).term_at(LogIndex(0)), Some(Term(0)));
    }
}
