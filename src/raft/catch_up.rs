//! What follows on a membership change by itself, on whoever leads (§4.2.1, §4.2.2, §4.3).
//!
//! A new leader finds all of it in its log, so that a change goes on where the last leader left it:
//! the joint membership is left, a new member's data directory is recorded, a learner that has
//! caught up is promoted, and a leader that is no voter any more hands over. Called by `server.rs`
//! at the end of each turn; does at most one step, because each waits for the one before.

use std::collections::BTreeMap;
use std::time::Duration;

use super::membership::{Member, Membership};
use super::progress::Progress;
use super::server::{Raft, Role};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Incarnation, Instant, LogIndex, ServerId};

/// A member that left is told so much longer, in election timeouts, that its leaving is committed.
const FAREWELL_ELECTION_TIMEOUTS: u32 = 10;

/// The newest round of a learner's catching up (§4.2.1): it has to reach where the log ended when
/// the round began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    target: LogIndex,
    since: Instant,
}

/// A member that has left.
#[derive(Clone, Copy, Debug)]
struct Farewell {
    /// The entry by which it did.
    index: LogIndex,
    /// When it is let go in any case.
    until: Instant,
    /// When it was told that the entry is committed.
    told: Option<Instant>,
}

/// What the leader keeps for members that come and go.
#[derive(Default, Debug)]
pub(super) struct Turnover {
    /// The round of each learner that is to be promoted.
    rounds: BTreeMap<ServerId, Round>,
    /// Members that have left and are still to be told so.
    farewells: BTreeMap<ServerId, Farewell>,
    /// Whether this leader has begun to hand over because it has left.
    is_leaving: bool,
}

impl Raft {
    /// Goes on with whatever change is under way, as far as it can in this turn.
    pub(super) fn progress_change(&mut self, now: Instant) {
        self.end_farewells(now);
        let Role::Leader(leading) = &self.role else {
            return;
        };
        let (index, membership) = self.memberships.last().expect("a leader has a membership");
        if *index > self.commit_index || !self.is_ready() {
            return;
        }
        let is_transferring = leading.transfer.is_some();
        if membership.is_joint() {
            if !is_transferring && !self.log_is_full {
                if self.log.term_at(*index).is_some_and(|term| term < self.current_term) {
                    reached(Mark::JointInherited);
                }
                let next = membership.leave_joint();
                self.append_membership(now, &next);
            }
            return;
        }
        if !membership.is_voter(self.id) {
            return self.leave_office(now);
        }
        if self.may_change().is_ok()
            && let Some(next) = self.first_met().or_else(|| self.first_caught_up(now))
        {
            self.enter(now, &next);
        }
    }

    /// The leader's own leaving is committed (§4.2.2): the others take over.
    fn leave_office(&mut self, now: Instant) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        if leading.transfer.is_some() {
            return;
        }
        reached(Mark::LeaderLeaves);
        let was_tried = std::mem::replace(&mut leading.turnover.is_leaving, true);
        if was_tried || !self.hand_over(now) {
            self.step_down(now);
        }
    }

    /// The membership that records the data directory of a member which has said its first hello,
    /// if there is one.
    fn first_met(&self) -> Option<Membership> {
        let membership = self.membership();
        let index = self.log.last_index().next();
        let is_nobodys = |incarnation: Incarnation| {
            membership.members().iter().all(|member| member.incarnation != incarnation)
        };
        let unmet = membership.members().iter().filter(|member| !member.is_met());
        let (id, incarnation) =
            unmet.filter_map(|member| Some((member.id, *self.links.get(&member.id)?))).find(
                |(_, incarnation)| *incarnation != Incarnation::ZERO && is_nobodys(*incarnation),
            )?;
        let mut next = membership.clone();
        let member = next.members_mut().iter_mut().find(|member| member.id == id)?;
        member.incarnation = incarnation;
        member.admitted = index;
        reached(Mark::DirectoryRecorded);
        Some(next)
    }

    /// The membership that promotes a learner which has caught up, if there is one, and if the
    /// voters that are heard would be a majority of the new ones.
    fn first_caught_up(&mut self, now: Instant) -> Option<Membership> {
        let candidates: Vec<Member> = {
            let members = self.membership().members().iter();
            members.filter(|member| member.is_awaiting_promotion()).cloned().collect()
        };
        let Role::Leader(leading) = &mut self.role else {
            return None;
        };
        leading.turnover.rounds.retain(|id, _| candidates.iter().any(|one| one.id == *id));
        candidates.iter().find_map(|learner| {
            let is_ready = self.has_caught_up(now, learner) && self.is_heard(now, learner.id);
            if is_ready { self.promotion(now, learner) } else { None }
        })
    }

    /// Whether a learner's last round was shorter than an election timeout: then it could vote
    /// without the cluster's waiting for it any longer than for a crash. A round of its time before
    /// it was removed and added again counts for nothing.
    fn has_caught_up(&mut self, now: Instant, learner: &Member) -> bool {
        let last_index = self.log.last_index();
        let most: Duration = self.config.election_timeout.0;
        if is_on(Mutation::PromotesAtOnce) {
            return true;
        }
        let Role::Leader(leading) = &mut self.role else {
            return false;
        };
        let Some(progress) = leading.followers.get(&learner.id) else {
            return false;
        };
        let first = Round { target: last_index, since: now };
        let round = leading.turnover.rounds.entry(learner.id).or_insert(first);
        if progress.match_index < round.target.max(learner.admitted) {
            return false;
        }
        let took = now.since(round.since);
        *round = first;
        took < most
    }

    fn promotion(&self, now: Instant, learner: &Member) -> Option<Membership> {
        let mut next = self.membership().clone();
        if let Some(replaced) = learner.replaces {
            reached(Mark::MemberReplaced);
            let members = next.members_mut();
            members.retain(|member| member.id != replaced);
            // Another that was to replace it too must not remove whoever gets its id later.
            for member in members.iter_mut().filter(|member| member.replaces == Some(replaced)) {
                member.replaces = None;
            }
        }
        let member = next.members_mut().iter_mut().find(|member| member.id == learner.id)?;
        member.voter = true;
        member.promote = false;
        member.replaces = None;
        reached(Mark::LearnerPromoted);
        let heard = next.voters().filter(|id| self.is_heard(now, *id)).count();
        (heard > next.voters().count() / 2).then_some(next)
    }

    /// Follows the progress of every other member that was met. One that has left is followed until
    /// it knows: else it would call elections, for want of anyone who tells it.
    pub(super) fn track_members(&mut self, now: Instant) {
        let last_index = self.log.last_index();
        let until = now.after(self.config.election_timeout.1 * FAREWELL_ELECTION_TIMEOUTS);
        let (index, membership) = self.memberships.last().expect("a leader has a membership");
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let met = membership.members().iter().filter(|member| member.is_met());
        for id in met.map(|member| member.id).filter(|id| *id != self.id) {
            // The first message carries this term's first entry along.
            let before = leading.term_start.prev().min(last_index);
            leading.followers.entry(id).or_insert_with(|| Progress::new(before, now));
            leading.turnover.farewells.remove(&id);
        }
        for id in leading.followers.keys().filter(|id| membership.member(**id).is_none()) {
            let farewell = Farewell { index: *index, until, told: None };
            leading.turnover.farewells.entry(*id).or_insert(farewell);
        }
        // Who lost its disk is followed anew once its new one is known.
        let is_known = |id: &ServerId| membership.member(*id).is_none_or(Member::is_met);
        leading.followers.retain(|id, _| is_known(id));
    }

    /// Members that have left and know it, or can't be told, are no longer followed.
    fn end_farewells(&mut self, now: Instant) {
        let commit_index = self.commit_index;
        // What was said last is to arrive before the connection ends.
        let pause = self.config.election_timeout.0;
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let followers = &mut leading.followers;
        let links = &self.links;
        leading.turnover.farewells.retain(|id, farewell| {
            let is_told = followers.get(id).is_some_and(|progress| {
                progress.match_index >= farewell.index && progress.commit_told >= farewell.index
            });
            if is_told {
                reached(Mark::FarewellTold);
                farewell.told.get_or_insert(now);
            }
            let is_past = farewell.told.is_some_and(|told| now >= told.after(pause));
            let is_over = is_past || now >= farewell.until || !links.contains_key(id);
            let is_settled = is_over && commit_index >= farewell.index;
            if is_settled {
                followers.remove(id);
            }
            !is_settled
        });
    }

    /// The index of the entry of the membership in force; 0 until the cluster was founded.
    pub fn membership_index(&self) -> LogIndex {
        self.memberships.last().map_or(LogIndex::ZERO, |(index, _)| *index)
    }

    /// The index of the newest membership entry that is known to be committed; 0 if there is none.
    pub fn committed_membership_index(&self) -> LogIndex {
        let mut newest = self.memberships.iter().rev().map(|(index, _)| *index);
        newest.find(|index| *index <= self.commit_index).unwrap_or_default()
    }

    /// The data directory of `peer`: by the membership, else by its connection's hello.
    pub fn incarnation_of(&self, peer: ServerId) -> Option<Incarnation> {
        let member = self.membership().member(peer).filter(|member| member.is_met());
        let member = member.map(|member| member.incarnation);
        member.or_else(|| self.links.get(&peer).copied())
    }

    /// The data directory that `peer` runs on, by its hello, while a connection stands.
    pub fn link(&self, peer: ServerId) -> Option<Incarnation> {
        self.links.get(&peer).copied()
    }

    /// The cluster knows this server on its data directory: it takes part again.
    pub fn take_part_again(&mut self) {
        self.recovering = false;
    }

    /// Members that have left and are still being told so; empty where this server doesn't lead.
    pub fn farewells(&self) -> Vec<ServerId> {
        match &self.role {
            Role::Leader(leading) => leading.turnover.farewells.keys().copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Everyone whom this server has to be able to talk with: the members by the newest membership
    /// in its log and, as long as that isn't committed, by those before it. A leader that leaves
    /// leads until then.
    pub fn concerned(&self) -> Vec<&Member> {
        let mut concerned: Vec<&Member> = Vec::new();
        for (index, membership) in self.memberships.iter().rev() {
            for member in membership.members() {
                if !concerned.iter().any(|known| known.id == member.id) {
                    concerned.push(member);
                }
            }
            if *index <= self.commit_index {
                break;
            }
        }
        concerned
    }

    /// Whether this server may stand for election: it votes, or did until its leaving, of which it
    /// doesn't know that it is committed (§4.2.2: it may be the only one that holds that entry).
    pub fn may_campaign(&self) -> bool {
        let mut newest = self.memberships.iter().rev();
        let Some((index, membership)) = newest.next() else {
            return false;
        };
        if membership.is_voter(self.id) {
            return true;
        }
        let has_left = membership.member(self.id).is_none();
        let voted = newest.next().is_some_and(|(_, before)| before.is_voter(self.id));
        has_left && voted && *index > self.commit_index
    }
}
