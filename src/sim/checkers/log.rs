//! *log-matching*, *state-machine-safety* and *exactly-once*: what the nodes hold and have made of it.
//!
//! Each node's log and store are compared with all that was seen before, at the same index. Called
//! by the checkers' front door after every turn.

use super::marks::Marks;
use super::{Checkers, mark};
use crate::node::Node;
use crate::proto::entry::EntryKind;
use crate::types::{LogIndex, ServerId};

impl Checkers {
    pub(super) fn check_log(&mut self, id: ServerId, node: &Node) {
        let Checkers { servers, entries, .. } = self;
        let watched = servers.get_mut(&id).expect("it has started");
        let mut changes = Vec::new();
        let log = node.raft().log();
        let base = log.base().last;
        if base.index > watched.log.base() {
            // What a snapshot has replaced was committed, whether this log had it or not.
            let known = self.committed.get(base.index.0 as usize - 1).map(|mark| mark.term);
            let term = base.term;
            assert_eq!(known, Some(term), "log-matching: n{id} begins behind {}", base.index);
            if watched.log.at(base.index).is_some_and(|mark| mark.term != base.term) {
                watched.log = Marks::behind(base.index);
            }
            watched.log.compact(base.index);
        }
        watched.log.truncate_from(log.last_index().next());
        // Entries of one index and term are the same, so a log that agrees in its last term agrees
        // before it too.
        while let Some(last) = watched.log.last()
            && log.term_at(watched.log.last_index()) != Some(last.term)
        {
            watched.log.pop();
        }
        while watched.log.last_index() < log.last_index() {
            let index = watched.log.last_index().next();
            let entry = log.entry(index).expect("a log has no gaps");
            let prev_term = watched.log.last().map_or(base.term, |mark| mark.term);
            let mark = mark(entry);
            let key = (index, mark.term);
            let known = *entries.entry(key).or_insert((mark.digest, prev_term));
            assert_eq!(known, (mark.digest, prev_term), "log-matching: n{id} at {index}");
            watched.log.push(mark);
            if entry.kind == EntryKind::Membership {
                changes.push(index);
            }
        }
        for index in changes {
            let entry = log.entry(index).expect("just seen");
            self.sees_membership(id, node, entry);
        }
    }

    pub(super) fn check_applied(&mut self, id: ServerId, node: &Node) {
        let watched = self.servers.get(&id).expect("it has started");
        let applied = node.machine().last_applied();
        if applied == watched.applied {
            return;
        }
        for at in watched.applied.0..applied.0 {
            let index = LogIndex(at + 1);
            let watched = &self.servers[&id];
            let Some(mark) = watched.log.at(index) else {
                // It came in a snapshot, or was discarded behind one.
                let is_known = index <= watched.log.base() && self.committed.len() as u64 > at;
                assert!(
                    is_known,
                    "state-machine-safety: n{id} has applied {index}, and nobody has"
                );
                continue;
            };
            match self.committed.get(at as usize) {
                Some(known) => assert_eq!(*known, mark, "state-machine-safety: n{id} at {index}"),
                None => {
                    let holders = self.holders.of(index, mark.term);
                    assert!(
                        self.is_committed_by(id, index, |voter| holders.contains(&voter)),
                        "durable-before-ack: {index} is applied, and on the disks of {holders:?}"
                    );
                    self.committed.push(mark);
                    let entry = node.raft().log().entry(index).expect("what is applied is there");
                    if entry.kind == EntryKind::Membership {
                        self.commits_membership(entry);
                    }
                    self.once.apply(entry);
                }
            }
        }
        self.servers.get_mut(&id).expect("it has started").applied = applied;
        if self.distrusted.contains(&id) {
            return;
        }
        let running = node.machine().digest();
        let known = *self.running.entry(applied).or_insert(running);
        assert_eq!(known, running, "state-machine-safety: the digest of n{id} at {applied}");
        let digest = super::digest(node.machine().store());
        if applied == self.once.last_applied() {
            let once = super::digest(self.once.store());
            assert_eq!(once, digest, "exactly-once: the store of n{id} at {applied}");
        }
        let known = *self.digests.entry(applied).or_insert(digest);
        assert_eq!(known, digest, "state-machine-safety: the store of n{id} at {applied}");
    }
}
