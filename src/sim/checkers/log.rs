//! *log-matching*, *state-machine-safety* and *exactly-once*: what the nodes hold and have made of it.
//!
//! Each node's log and store are compared with all that was seen before, at the same index. Called
//! by the checkers' front door after every turn.

use std::collections::BTreeSet;

use super::{Checkers, mark};
use crate::node::Node;
use crate::types::{LogIndex, ServerId, Term};

impl Checkers {
    pub(super) fn check_log(&mut self, id: ServerId, node: &Node) {
        let watched = self.servers.get_mut(&id).expect("it has started");
        let log = node.raft().log();
        watched.log.truncate(log.last_index().0 as usize);
        // Entries of one index and term are the same, so a log that agrees in its last term agrees
        // before it too.
        while let Some(last) = watched.log.last()
            && log.term_at(LogIndex(watched.log.len() as u64)) != Some(last.term)
        {
            watched.log.pop();
        }
        while (watched.log.len() as u64) < log.last_index().0 {
            let index = LogIndex(watched.log.len() as u64 + 1);
            let entry = log.entry(index).expect("a log has no gaps");
            let prev_term = watched.log.last().map_or(Term::ZERO, |mark| mark.term);
            let mark = mark(entry);
            let key = (index, mark.term);
            let known = *self.entries.entry(key).or_insert((mark.digest, prev_term));
            assert_eq!(known, (mark.digest, prev_term), "log-matching: n{id} at {index}");
            watched.log.push(mark);
        }
    }

    pub(super) fn check_applied(&mut self, id: ServerId, node: &Node) {
        let watched = self.servers.get_mut(&id).expect("it has started");
        let applied = node.machine().last_applied();
        if applied == watched.applied {
            return;
        }
        for at in watched.applied.0..applied.0 {
            let index = LogIndex(at + 1);
            let mark = watched.log[at as usize];
            match self.committed.get(at as usize) {
                Some(known) => assert_eq!(*known, mark, "state-machine-safety: n{id} at {index}"),
                None => {
                    let none = BTreeSet::new();
                    let holders = self.durable.get(&(index, mark.term)).unwrap_or(&none);
                    assert!(
                        node.raft().membership().is_quorum(|voter| holders.contains(&voter)),
                        "durable-before-ack: {index} is applied, and on the disks of {holders:?}"
                    );
                    self.committed.push(mark);
                    let entry = node.raft().log().entry(index).expect("what is applied is there");
                    self.once.apply(entry);
                }
            }
        }
        watched.applied = applied;
        let digest = super::digest(node.machine().store());
        if applied == self.once.last_applied() {
            let once = super::digest(self.once.store());
            assert_eq!(once, digest, "exactly-once: the store of n{id} at {applied}");
        }
        let known = *self.digests.entry(applied).or_insert(digest);
        assert_eq!(known, digest, "state-machine-safety: the store of n{id} at {applied}");
    }
}
