//! *election-safety* and *leader-completeness*: who leads, and with what in its log.
//!
//! Called by the checkers' front door after every turn.

use super::Checkers;
use crate::node::{Node, Role};
use crate::types::{LogIndex, ServerId};

impl Checkers {
    /// What a server knows to be committed is what was decided there. Who knows it first has decided
    /// it: a leader, in its term; if it leads no more when its turn is over, in the last one that it
    /// led.
    pub(super) fn check_decided(&mut self, id: ServerId, node: &Node) {
        let commit = node.raft().commit_index();
        let watched = &self.servers[&id];
        let decided_in = match watched.role == Role::Leader && node.status().role != Role::Leader {
            true => self.leaders.iter().rev().find(|(_, leader)| **leader == id).map(|(t, _)| *t),
            false => None,
        };
        let term = decided_in.unwrap_or(node.raft().current_term());
        for index in (watched.decided.0 + 1..=commit.0).map(LogIndex) {
            // What a snapshot has replaced was decided long before.
            let Some(mark) = watched.log.at(index) else { continue };
            match self.decided.get(index.0 as usize - 1) {
                Some((known, _)) => {
                    assert_eq!(*known, mark, "state-machine-safety: n{id} commits {index}");
                }
                None => {
                    let next = LogIndex(self.decided.len() as u64).next();
                    assert_eq!(index, next, "state-machine-safety: n{id} leaves a gap");
                    self.decided.push((mark, term));
                }
            }
        }
        self.servers.get_mut(&id).expect("it has started").decided = commit;
    }

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
        let missing = self
            .decided
            .iter()
            .zip(1..)
            .skip(behind_base)
            .find(|((mark, by), index)| *by < term && log.at(LogIndex(*index)) != Some(*mark));
        assert!(
            missing.is_none(),
            "leader-completeness: n{id} leads term {term} without entry {missing:?}"
        );
        self.check_votes(id, node);
    }
}
