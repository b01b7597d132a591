//! *durable-before-ack*: on whose stable media each entry is, by data directory.
//!
//! An entry that a server had and has truncated since counts no more: who commits by its old word
//! commits by what is gone (dissertation §3.5, §5.4). Called by the checkers as the disks' records
//! are read.

use std::collections::{BTreeMap, BTreeSet};

use super::Directory;
use crate::types::{LogIndex, Term};

/// The directories that hold each entry.
#[derive(Default)]
pub(super) struct Holders(BTreeMap<(LogIndex, Term), BTreeSet<Directory>>);

impl Holders {
    /// The entry is in the log of that directory.
    pub fn holds(&mut self, directory: Directory, index: LogIndex, term: Term) {
        self.0.entry((index, term)).or_default().insert(directory);
    }

    /// The log of that directory ends before `from`.
    pub fn truncates(&mut self, directory: Directory, from: LogIndex) {
        for (_, holders) in self.0.range_mut((from, Term::ZERO)..) {
            holders.remove(&directory);
        }
    }

    /// Who has it.
    pub fn of(&self, index: LogIndex, term: Term) -> BTreeSet<Directory> {
        self.0.get(&(index, term)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, ServerId};

    #[test]
    fn of_leaves_out_who_has_truncated_it() {
        let directory = |id| (ServerId(id), Incarnation(7));
        let mut holders = Holders::default();
        for id in 1..=3 {
            holders.holds(directory(id), LogIndex(4), Term(2));
            holders.holds(directory(id), LogIndex(5), Term(2));
        }
        holders.truncates(directory(3), LogIndex(5));
        holders.holds(directory(3), LogIndex(5), Term(3));
        assert_eq!(holders.of(LogIndex(4), Term(2)).len(), 3);
        assert_eq!(holders.of(LogIndex(5), Term(2)), [directory(1), directory(2)].into());
        assert_eq!(holders.of(LogIndex(5), Term(3)), [directory(3)].into());
    }
}
