//! *one-change*: the memberships that logs hold, how one follows on another, and whose votes count.
//!
//! Everything is counted here anew from the entries, both halves of a joint membership, and by data
//! directory: nothing is asked of the code that is tested. Called by the checkers' front door, and
//! by the faults, which must leave a majority that can heal.

use std::collections::BTreeSet;

use super::marks::Marks;
use super::{Checkers, Directory};
use crate::node::{Node, Role};
use crate::proto::entry::Entry;
use crate::raft::membership::{Member, Membership};
use crate::types::{LogIndex, ServerId, Term};

/// Whether a majority of each half holds, by data directory.
pub(super) fn has_majority(membership: &Membership, holds: impl Fn(Directory) -> bool) -> bool {
    let half = |votes: fn(&Member) -> bool| {
        let (mut all, mut holding) = (0, 0);
        for member in membership.members().iter().filter(|member| votes(member)) {
            all += 1;
            holding += usize::from(holds((member.id, member.incarnation)));
        }
        2 * holding > all
    };
    half(|member| member.voter) && (!membership.is_joint() || half(|member| member.outgoing_voter))
}

fn voters(membership: &Membership) -> BTreeSet<ServerId> {
    membership.members().iter().filter(|m| m.voter).map(|m| m.id).collect()
}

fn outgoing(membership: &Membership) -> BTreeSet<ServerId> {
    membership.members().iter().filter(|m| m.outgoing_voter).map(|m| m.id).collect()
}

impl Checkers {
    /// A membership entry is seen in the log of `id`.
    pub(super) fn sees_membership(&mut self, id: ServerId, node: &Node, entry: &Entry) {
        let key = (entry.index, entry.term);
        if self.memberships.contains_key(&key) {
            return;
        }
        let next = Membership::decode(&entry.payload);
        let next = next.expect("one-change: what a log holds can be read");
        for member in next.members().iter().filter(|member| member.is_met()) {
            self.admitted.insert((member.id, member.incarnation));
        }
        let before = self.in_force(&self.servers[&id].log, entry.index.prev()).cloned();
        if let Some(before) = before {
            self.check_step(id, entry.index, &before, &next);
            // A leader appends it, and nobody else has it before its turn is over.
            let status = node.status();
            if status.role == Role::Leader && status.current_term == entry.term {
                let known = node.raft().log().term_at(status.commit_index);
                assert_eq!(
                    known,
                    Some(entry.term),
                    "one-change: n{id} changes the members at {} before its term's first commit",
                    entry.index
                );
            }
        }
        self.memberships.insert(key, next);
    }

    /// §4.3: the voters change only by way of a joint membership, which holds both sets.
    fn check_step(&self, id: ServerId, index: LogIndex, before: &Membership, next: &Membership) {
        let (old, new) = (voters(before), voters(next));
        assert!(!new.is_empty(), "one-change: nobody votes by {index} of n{id}");
        match (before.is_joint(), next.is_joint()) {
            (false, false) => {
                assert_eq!(old, new, "one-change: the voters change at once, by {index} of n{id}");
            }
            (false, true) => {
                let kept = outgoing(next);
                assert_eq!(kept, old, "one-change: {index} of n{id} leaves old voters out");
            }
            (true, false) => {
                assert_eq!(old, new, "one-change: {index} of n{id} ends elsewhere than it began");
            }
            (true, true) => panic!("one-change: a change within a change, by {index} of n{id}"),
        }
        for member in
            next.members().iter().filter(|member| member.voter && !old.contains(&member.id))
        {
            let directory = (member.id, member.incarnation);
            assert!(member.is_met(), "one-change: n{} is to vote by {index}, unmet", member.id);
            // §4.2.1: who is to vote has caught up; at least to the entry that let it in.
            let reached = self.reached.get(&directory).copied().unwrap_or_default();
            assert!(
                reached >= member.admitted,
                "one-change: n{} is to vote by {index}, and has the log up to {reached} only",
                member.id
            );
        }
    }

    /// The membership in force at `index` of a log.
    pub(super) fn in_force(&self, log: &Marks, index: LogIndex) -> Option<&Membership> {
        self.place_in_force(log, index).map(|(_, membership)| membership)
    }

    fn place_in_force(&self, log: &Marks, index: LogIndex) -> Option<(LogIndex, &Membership)> {
        let before = self.memberships.range(..=(index, Term(u64::MAX))).rev();
        let mut held = before.filter(|((at, term), _)| self.holds(log, *at, *term));
        held.next().map(|((at, _), membership)| (*at, membership))
    }

    /// Whether a log has that entry: what is before its beginning was committed.
    fn holds(&self, log: &Marks, index: LogIndex, term: Term) -> bool {
        let mark = if index > log.base() { log.at(index) } else { self.committed_at(index) };
        mark.is_some_and(|mark| mark.term == term)
    }

    /// Whether an entry at `index` of the log of `id` is committed by those who hold it: by the
    /// membership in force there, or by a later one that whoever leads may count by already.
    pub(super) fn is_committed_by(
        &self,
        id: ServerId,
        index: LogIndex,
        holds: impl Fn(Directory) -> bool,
    ) -> bool {
        let log = &self.servers[&id].log;
        let mark = log.at(index);
        if self.in_force(log, index).is_some_and(|membership| has_majority(membership, &holds)) {
            return true;
        }
        let later = self.memberships.range((index.next(), Term::ZERO)..);
        let mut later = later.filter(|((at, term), _)| {
            let logs = self.servers.values().map(|watched| &watched.log);
            let mut logs = logs.filter(|log| log.at(index) == mark);
            logs.any(|log| self.holds(log, *at, *term))
        });
        later.any(|(_, membership)| has_majority(membership, &holds))
    }

    /// At most one membership of a log is uncommitted, by what any server knows to be committed.
    pub(super) fn check_one_change(&self, id: ServerId) {
        let log = &self.servers[&id].log;
        let behind = self.memberships.range((self.commit.next(), Term::ZERO)..);
        let uncommitted = behind.filter(|((at, term), _)| self.holds(log, *at, *term)).count();
        assert!(uncommitted <= 1, "one-change: {uncommitted} under way in the log of n{id}");
    }

    /// Only voters count: a majority of those that the leader's own log names has voted for it, and
    /// all of them where it founds the cluster.
    pub(super) fn check_votes(&self, id: ServerId, node: &Node) {
        let term = node.status().current_term;
        let own = (id, node.status().incarnation);
        let log = &self.servers[&id].log;
        let has_voted = |voter: Directory| {
            voter == own || self.votes.get(&(voter.0, voter.1, term)) == Some(&id)
        };
        let (index, membership) = self
            .place_in_force(log, log.last_index())
            .expect("one-change: who leads has a membership");
        let founds = node.raft().log().term_at(LogIndex(1)) == Some(term);
        assert!(
            has_majority(membership, has_voted),
            "one-change: n{id} leads term {term} without the votes of {membership:?}"
        );
        let all_agree = membership.members().iter().all(|m| has_voted((m.id, m.incarnation)));
        assert!(
            !founds || (all_agree && membership.members().len() == self.founders),
            "one-change: n{id} founds a cluster without the votes of {membership:?}"
        );
        // §4.2.2: who has left may lead once more, as long as it can't know that it has.
        let votes = |membership: &Membership| {
            let own = membership.member(id);
            own.is_some_and(|member| member.voter || member.outgoing_voter)
        };
        let before = self.in_force(log, index.prev());
        assert!(
            votes(membership) || before.is_some_and(votes),
            "one-change: n{id} leads term {term}, and is no voter by {membership:?}"
        );
    }

    /// The newest membership that is committed.
    pub fn newest_committed(&self) -> Option<&Membership> {
        self.newest.and_then(|place| self.memberships.get(&place))
    }

    /// Whether the cluster could still heal if these forgot what they promised: every membership that
    /// is committed, or may become it, keeps a majority of voters on the directories that they were
    /// admitted with.
    pub fn keeps_majority_without(&self, ids: &BTreeSet<ServerId>) -> bool {
        let Some(newest) = self.newest else {
            return false;
        };
        let is_sound = |(server, incarnation): Directory| {
            !ids.contains(&server)
                && !self.damaged.contains_key(&server)
                && self.directories.get(&server) == Some(&incarnation)
        };
        let later = self.memberships.range(newest..).filter(|((at, term), _)| {
            let mut watched = self.servers.values();
            watched.any(|one| {
                self.holds(&one.log, *at, *term)
                    || one.stable.at(*at).is_some_and(|mark| mark.term == *term)
            })
        });
        let mut all = later.map(|(_, membership)| membership).chain(self.newest_committed());
        all.all(|membership| has_majority(membership, is_sound))
    }

    /// The data directory that a server has, unless it was lost and the server not started since.
    pub fn directory(&self, id: ServerId) -> Option<crate::types::Incarnation> {
        self.directories.get(&id).copied()
    }

    /// The disk of a server may have forgotten what it promised.
    pub fn is_damaged(&mut self, id: ServerId) {
        let lost = self.directories.get(&id).copied();
        let lost = lost.or_else(|| self.damaged.get(&id).copied()).unwrap_or_default();
        self.damaged.insert(id, lost);
    }

    /// The disk of a server is replaced by an empty one.
    pub fn loses_its_disk(&mut self, id: ServerId) {
        self.is_damaged(id);
        self.directories.remove(&id);
    }

    /// Whether a server is damaged and nobody has let it in again, on another directory.
    pub(super) fn is_lost(&self, id: ServerId) -> bool {
        let Some(lost) = self.damaged.get(&id) else {
            return false;
        };
        let directory = self.directories.get(&id).filter(|directory| *directory != lost);
        !directory.is_some_and(|directory| self.admitted.contains(&(id, *directory)))
    }

    /// Whether it runs on the directory that was damaged: that one may have forgotten its votes.
    pub(super) fn may_forget(&self, id: ServerId) -> bool {
        self.damaged.get(&id).is_some_and(|lost| self.directories.get(&id) == Some(lost))
    }

    /// An entry is committed: whoever votes by it on a new directory is whole again.
    pub(super) fn commits_membership(&mut self, entry: &Entry) {
        let place = (entry.index, entry.term);
        self.newest = Some(place);
        let membership = &self.memberships[&place];
        let directories = &self.directories;
        self.damaged.retain(|id, lost| {
            let Some(directory) = directories.get(id).filter(|directory| *directory != lost) else {
                return true;
            };
            let member = membership.member(*id);
            // One that is to stay a learner owes nobody a vote.
            !member.is_some_and(|member| {
                member.incarnation == *directory && (member.voter || !member.promote)
            })
        });
    }
}
