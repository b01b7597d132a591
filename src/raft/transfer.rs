//! Leadership transfer (§3.10): every clean shutdown of a leader, and one whose disk has stalled.
//!
//! Called by `server.rs` and `node/`. While a transfer is under way nothing new is appended; should
//! the successor not take over within an election timeout, the leader goes on.

use super::change::ChangeRefused;
use super::server::{Raft, Role};
use crate::proto::message::Message;
use crate::testing::{Mark, reached};
use crate::types::{Instant, LogIndex, ServerId, Term};

/// A transfer under way.
#[derive(Debug)]
pub(super) struct Transfer {
    to: ServerId,
    deadline: Instant,
    /// Whether the successor was told to campaign.
    is_told: bool,
}

impl Raft {
    /// Hands leadership to the connected voter that is furthest along. Returns whether there is
    /// one; nothing happens on a server that doesn't lead.
    pub fn hand_over(&mut self, now: Instant) -> bool {
        self.hand_over_beyond(now, None)
    }

    /// Begins to hand leadership to `successor`, or to the voter that is furthest along. Whether it
    /// took over shows in [`leader`](Raft::leader), and that it did not in
    /// [`is_handing_over`](Raft::is_handing_over), within an election timeout.
    ///
    /// # Errors
    /// Nothing has happened.
    pub fn hand_over_to(
        &mut self,
        now: Instant,
        successor: Option<ServerId>,
    ) -> Result<(), ChangeRefused> {
        let deadline = now.after(self.config.election_timeout.1);
        let Role::Leader(leading) = &self.role else {
            return Err(ChangeRefused::NotLeader);
        };
        if leading.transfer.is_some() {
            return Err(ChangeRefused::Transferring);
        }
        let Some(to) = successor else {
            let has_successor = self.hand_over(now);
            return if has_successor { Ok(()) } else { Err(ChangeRefused::NotSuccessor(self.id)) };
        };
        let member = self.membership().member(to).ok_or(ChangeRefused::NotMember(to))?;
        if to == self.id || !member.voter || !self.is_heard(now, to) {
            return Err(ChangeRefused::NotSuccessor(to));
        }
        if let Role::Leader(leading) = &mut self.role {
            leading.transfer = Some(Transfer { to, deadline, is_told: false });
        }
        Ok(())
    }

    /// Whether a transfer is under way.
    pub fn is_handing_over(&self) -> bool {
        matches!(&self.role, Role::Leader(leading) if leading.transfer.is_some())
    }

    /// Whether the disk has been at one write for longer than an election timeout.
    pub fn is_disk_stalled(&self, now: Instant) -> bool {
        self.durability.stall(now) > self.config.election_timeout.1
    }

    /// A leader whose disk has been at one write for longer than an election timeout hands over to
    /// a voter that has on disk what it has not itself: that one's disk does better.
    pub(super) fn hand_over_stalled(&mut self, now: Instant) {
        if self.is_disk_stalled(now) {
            let is_under_way = self.hand_over_beyond(now, Some(self.durability.durable_index()));
            if is_under_way {
                reached(Mark::StalledDiskHandsOver);
            }
        }
    }

    /// Chooses among the voters that match beyond `least`, if it is given.
    fn hand_over_beyond(&mut self, now: Instant, least: Option<LogIndex>) -> bool {
        let deadline = now.after(self.config.election_timeout.1);
        let Role::Leader(leading) = &mut self.role else { return false };
        if leading.transfer.is_some() {
            return true;
        }
        let (_, membership) = self.memberships.last().expect("a leader has a membership");
        let successor = leading
            .followers
            .iter()
            .filter(|(id, _)| membership.member(**id).is_some_and(|member| member.voter))
            .filter(|(id, _)| self.links.contains_key(id))
            .filter(|(_, progress)| least.is_none_or(|least| progress.match_index > least))
            .max_by_key(|(_, progress)| progress.match_index)
            .map(|(id, _)| *id);
        let Some(to) = successor else { return false };
        leading.transfer = Some(Transfer { to, deadline, is_told: false });
        true
    }

    /// Tells the successor to campaign once it has everything.
    pub(super) fn progress_transfer(&mut self, now: Instant) {
        let term = self.current_term;
        let last_index = self.log.last_index();
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let Some(transfer) = &mut leading.transfer else {
            return;
        };
        if now >= transfer.deadline {
            reached(Mark::TransferAborted);
            leading.transfer = None;
            return;
        }
        let progress = leading.followers.get(&transfer.to);
        let is_caught_up = progress.is_some_and(|progress| progress.match_index == last_index);
        if is_caught_up && !transfer.is_told {
            transfer.is_told = true;
            leading.lease_forfeited = true;
            self.outbox.push((transfer.to, Message::TimeoutNow { term }));
        }
    }

    /// The leader asks us to take over: campaign at once, without a pre-vote, because everyone
    /// still hears the leader.
    pub(super) fn receive_timeout_now(&mut self, now: Instant, from: ServerId, term: Term) {
        let is_leader_asking = self.leader == Some(from) && term == self.current_term;
        let is_follower = matches!(self.role, Role::Follower(_));
        if is_leader_asking && is_follower && self.membership().is_voter(self.id) {
            reached(Mark::TransferTaken);
            self.campaign(now, true);
        }
    }
}
