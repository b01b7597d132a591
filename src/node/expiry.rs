//! Keys whose time has come: the leader says so in the log (design 2-client-path §4).
//!
//! No node lets a key expire by its own clock: a key is dead once an entry with a later time is
//! applied. Called by `node.rs`, at the end of each turn. Decides when such an entry is due, never
//! which keys it ends.

use bytes::Bytes;

use super::node::Node;
use crate::limits;
use crate::proto::entry::EntryKind;
use crate::testing::{Mark, reached};
use crate::types::{ClusterTime, Instant, LogIndex};

impl Node {
    /// Whether this node has to let keys expire: it leads, and no entry is on its way that would
    /// move the clock anyway. A leader that can append nothing (its log is full, it hands over)
    /// must not want a tick for it: a deadline that stays in the past has the driver spin.
    fn is_timekeeper(&self) -> bool {
        let may_append = self.raft.is_ready() && self.raft.accepts_proposals();
        may_append && self.raft.log().last_index() == self.machine.last_applied()
    }

    /// When the next key's deadline comes, for the timekeeper.
    pub(super) fn expiry_deadline(&self, now: Instant) -> Instant {
        match self.machine.store().next_deadline() {
            Some(deadline) if self.is_timekeeper() => now.after(self.raft.until(now, deadline)),
            _ => Instant::NEVER,
        }
    }

    /// The next key's deadline has come: the timekeeper appends an empty entry, whose time shows
    /// it to every node.
    pub(super) fn expire_keys(&mut self, now: Instant) {
        let Some(deadline) = self.machine.store().next_deadline() else {
            return;
        };
        let is_due = self.raft.cluster_time(now).is_some_and(|time| time >= deadline);
        if is_due && self.is_timekeeper() {
            reached(Mark::ExpiryEntry);
            self.raft.propose(now, EntryKind::Empty, Bytes::new());
        }
    }

    /// For reads that are about to be given an index: where a key's deadline is long past and no
    /// entry has said so, the leader has stood still (its machine slept, say), and what it has
    /// applied is a state of before. They wait for an entry with the time of now: the last one,
    /// which is appended if need be. 0 where nothing is overdue.
    pub(super) fn expire_overdue(&mut self, now: Instant) -> LogIndex {
        let store = self.machine.store();
        let due = store.next_deadline().filter(|deadline| store.clock() < *deadline);
        let Some(deadline) = due else {
            return LogIndex::ZERO;
        };
        let overdue = ClusterTime(deadline.0.saturating_add(limits::EXPIRY_OVERDUE_MS));
        let is_overdue = self.raft.cluster_time(now).is_some_and(|time| time >= overdue);
        if !is_overdue || !self.raft.accepts_proposals() {
            return LogIndex::ZERO;
        }
        reached(Mark::ReadAwaitsExpiry);
        if self.raft.log().last_time() < deadline {
            self.raft.propose(now, EntryKind::Empty, Bytes::new());
        }
        self.raft.log().last_index()
    }
}
