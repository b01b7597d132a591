//! *durable-before-ack*: on whose stable media each entry is, by data directory.
//!
//! An entry that a server had and has truncated since counts no more: who commits by its old word
//! commits by what is gone (dissertation §3.5, §5.4). A directory that is put back to an older state
//! is another case: see [`Holders::forgets`]. Called by the checkers as the disks' records are read.

use std::collections::{BTreeMap, BTreeSet};

use super::Directory;
use crate::types::{LogIndex, Term};

/// The directories that hold each entry.
#[derive(Default)]
pub(super) struct Holders {
    of: BTreeMap<(LogIndex, Term), BTreeSet<Directory>>,
    /// Those that have forgotten something.
    forgetful: BTreeSet<Directory>,
}

impl Holders {
    /// The directory may have forgotten what it held. What it acknowledged before that was true, and
    /// may be on its way to the leader yet, or be counted already; it stands, as the directory gets no
    /// vote any more by which another leader could come to be without those entries (design page 1,
    /// §4). What its media say from here on counts for nothing: neither an entry that is back, nor a
    /// truncation out of its past that is read once more.
    pub fn forgets(&mut self, directory: Directory) {
        self.forgetful.insert(directory);
    }

    /// The entry is in the log of that directory.
    pub fn holds(&mut self, directory: Directory, index: LogIndex, term: Term) {
        if !self.forgetful.contains(&directory) {
            self.of.entry((index, term)).or_default().insert(directory);
        }
    }

    /// The log of that directory ends before `from`.
    pub fn truncates(&mut self, directory: Directory, from: LogIndex) {
        if self.forgetful.contains(&directory) {
            return;
        }
        for (_, holders) in self.of.range_mut((from, Term::ZERO)..) {
            holders.remove(&directory);
        }
    }

    /// Who has it, or had it when it gave its word.
    pub fn of(&self, index: LogIndex, term: Term) -> BTreeSet<Directory> {
        self.of.get(&(index, term)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, ServerId};

    fn directory(id: u64) -> Directory {
        (ServerId(id), Incarnation(7))
    }

    #[test]
    fn of_leaves_out_who_has_truncated_it() {
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
    #[test]
    fn an_old_copy_takes_back_no_word_and_gives_none() {
        let mut holders = Holders::default();
        for id in 1..=3 {
            for index in 1..=5 {
                holders.holds(directory(id), LogIndex(index), Term(1));
            }
            holders.truncates(directory(id), LogIndex(4));
            holders.holds(directory(id), LogIndex(4), Term(2));
        }
        // What 3 had acknowledged is gone with what it had done to its log; the record of a
        // truncation is among what is left of that.
        holders.forgets(directory(3));
        holders.holds(directory(3), LogIndex(4), Term(1));
        holders.truncates(directory(3), LogIndex(2));
        holders.holds(directory(3), LogIndex(2), Term(3));
        let [one, two, three] = [1, 2, 3].map(directory);
        assert_eq!(holders.of(LogIndex(3), Term(1)), [one, two, three].into());
        assert_eq!(holders.of(LogIndex(4), Term(2)), [one, two, three].into());
        assert_eq!(holders.of(LogIndex(4), Term(1)), [].into());
        assert_eq!(holders.of(LogIndex(2), Term(3)), [].into());
        // The others are held to theirs as before, and so is 3 on another directory.
        holders.truncates(two, LogIndex(4));
        let anew = (ServerId(3), Incarnation(8));
        holders.holds(anew, LogIndex(4), Term(2));
        holders.truncates(anew, LogIndex(4));
        assert_eq!(holders.of(LogIndex(4), Term(2)), [one, three].into());
    }
}
