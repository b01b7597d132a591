//! A server's disk as the core knows it: writes become durable in order, late, or never.
//!
//! Called by `server`. Has no faults of its own: `sim/` has those, under the real log.

use std::collections::{BTreeMap, VecDeque};

use raftkv::proto::entry::{Entry, HardState, LogWrite};
use raftkv::types::{Boot, Identity, LogIndex, ServerId, Term, WalSeq};

#[derive(Default)]
pub struct Disk {
    pub boot: Boot,
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
    pub known_peers: BTreeMap<ServerId, Identity>,
    under_way: VecDeque<(WalSeq, LogWrite)>,
}

impl Disk {
    /// Takes a write, which is not durable yet.
    pub fn take(&mut self, seq: WalSeq, write: LogWrite) {
        self.under_way.push_back((seq, write));
    }

    pub fn writes_under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Finishes the oldest writes; the number of the last of them, if there is one.
    pub fn finish(&mut self, count: usize) -> Option<WalSeq> {
        let count = count.min(self.under_way.len());
        let mut through = None;
        for (seq, write) in self.under_way.drain(..count) {
            if let Some(from) = write.truncate_from {
                let kept = from.0 as usize - 1;
                assert!(kept <= self.entries.len(), "a truncation removes what was written");
                self.entries.truncate(kept);
            }
            for entry in write.entries {
                assert_eq!(entry.index.0, self.entries.len() as u64 + 1, "the log has no gaps");
                self.entries.push(entry);
            }
            if let Some(after) = write.hard_state {
                let before = self.hard_state;
                assert!(after.current_term >= before.current_term, "hard-state: a term fell");
                let is_new_term = after.current_term > before.current_term;
                let keeps_vote = before.voted_for.is_none() || after.voted_for == before.voted_for;
                assert!(is_new_term || keeps_vote, "hard-state: two votes in a term");
                self.hard_state = after;
            }
            through = Some(seq);
        }
        through
    }

    /// The process dies: some of the writes under way were finished all the same.
    pub fn crash(&mut self, finished: usize) {
        self.finish(finished);
        self.under_way.clear();
    }

    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        let position = index.0.checked_sub(1)?;
        self.entries.get(usize::try_from(position).ok()?).map(|entry| entry.term)
    }
}
