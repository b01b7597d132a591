//! *election-safety*, *leader-completeness* and *one-change*: who leads, by whose votes, with what.
//!
//! Called by the checkers' front door after every turn.

use super::Checkers;
use crate::node::{Node, Role};
use crate::proto::entry::EntryKind;
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
        let log = &self.servers[&id].log;
        let behind_base = log.base().0 as usize;
        let missing = self
            .committed
            .iter()
            .zip(1..)
            .skip(behind_base)
            .find(|(mark, index)| log.at(LogIndex(*index)) != Some(**mark));
        assert!(
            missing.is_none(),
            "leader-completeness: n{id} leads term {term} without entry {missing:?}"
        );
        self.check_votes(id, node);
    }

    /// Only voters count: a majority of those that the leader's own log names has voted for it, and
    /// all of them where it founds the cluster.
    fn check_votes(&self, id: ServerId, node: &Node) {
        let term = node.status().current_term;
        let has_voted = |voter| voter == id || self.votes.get(&(voter, term)) == Some(&id);
        let membership = node.raft().membership();
        let voters: Vec<ServerId> =
            membership.members().iter().map(|member| member.id).filter(|v| has_voted(*v)).collect();
        assert!(
            super::has_majority(membership, has_voted),
            "one-change: n{id} leads term {term} by the votes of {voters:?}"
        );
        let founds = node.raft().log().term_at(LogIndex(1)) == Some(term);
        assert!(
            !founds || voters.len() == self.nodes,
            "one-change: n{id} founds a cluster by the votes of {voters:?} alone"
        );
    }

    /// At most one membership of a log is uncommitted.
    pub(super) fn check_one_change(&self, id: ServerId, node: &Node) {
        let log = node.raft().log();
        let mut uncommitted = 0;
        let mut index = node.status().commit_index.next();
        while let Some(entry) = log.entry(index) {
            uncommitted += u32::from(entry.kind == EntryKind::Membership);
            index = index.next();
        }
        assert!(uncommitted <= 1, "one-change: {uncommitted} under way in the log of n{id}");
        let members = node.raft().membership().members().len();
        assert!(members == 0 || members == self.nodes, "one-change: nobody changed the members");
    }
}
