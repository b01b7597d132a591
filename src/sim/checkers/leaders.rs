//! *election-safety* and *leader-completeness*: who leads, and with what in its log.
//!
//! Called by the checkers' front door after every turn.

use super::Checkers;
use crate::node::{Node, Role};
use crate::types::{LogIndex, ServerId};

impl Checkers {
    pub(super) fn check_leader(&mut self, id: ServerId, node: &Node) {
        let refused = node.raft().refused_messages();
        let may_be = refused == 0 || self.lied_to.contains(&id);
        assert!(may_be, "election-safety: n{id} was sent what no leader can have sent");
        let status = node.status();
        if status.role != Role::Leader {
            return;
        }
        let term = status.current_term;
        let is_new = !self.leaders.contains_key(&term);
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "election-safety: two leaders in term {term}");
        if !is_new {
            return;
        }
        // Who wins an old term late, when a later one has its leader, need not have what that one
        // committed; it commits nothing itself.
        let log = &self.servers[&id].log;
        let behind_base = log.base().0 as usize;
        let missing =
            self.committed.iter().zip(&self.committed_in).zip(1..).skip(behind_base).find(
                |((mark, by), index)| **by < term && log.at(LogIndex(*index)) != Some(**mark),
            );
        assert!(
            missing.is_none(),
            "leader-completeness: n{id} leads term {term} without entry {missing:?}"
        );
        self.check_votes(id, node);
    }
}
