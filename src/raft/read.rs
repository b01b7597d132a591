//! Linearizable reads without a log entry (§6.4), and lease reads (§6.4.1).
//!
//! Every AppendEntries carries a growing round number and every answer echoes it. A read that
//! arrives asks for a round that begins after it; once a majority has echoed that round in this
//! term, nobody else led when the read arrived, so the commit index of that moment covers every
//! write that was acknowledged before it. Called by `node/`.

use super::server::{Raft, Role};
use crate::testing::{Mutation, is_on};
use crate::types::{Instant, LogIndex, ReadRound, ServerId};

/// The lease is shorter than the minimum election timeout by this share, in percent: clocks may run
/// at rates that differ by that much.
const LEASE_PERCENT: u32 = 80;

impl Raft {
    /// Whether this server leads and has committed an entry of its own term: before that it can't
    /// know what is committed.
    pub fn is_ready(&self) -> bool {
        match &self.role {
            Role::Leader(leading) => self.commit_index >= leading.term_start,
            _ => false,
        }
    }

    /// Asks for a round that begins with the next flush. Returns its number and the read index:
    /// once the round is confirmed, whoever has applied that far may serve the read. `None` where
    /// this server isn't [ready](Raft::is_ready).
    pub fn request_read(&mut self) -> Option<(ReadRound, LogIndex)> {
        if !self.is_ready() && !is_on(Mutation::ReadBeforeTermCommits) {
            return None;
        }
        let Role::Leader(leading) = &mut self.role else {
            return None;
        };
        leading.round_requested = true;
        Some((leading.read_round.next(), self.commit_index))
    }

    /// The newest round that a majority has echoed in this term; 0 where this server doesn't lead.
    pub fn confirmed_round(&self) -> ReadRound {
        let Role::Leader(leading) = &self.role else {
            return ReadRound::ZERO;
        };
        if is_on(Mutation::ReadWithoutRound) {
            return leading.read_round;
        }
        let echoed = |id: ServerId| {
            if id == self.id {
                return leading.read_round;
            }
            leading.followers.get(&id).map_or(ReadRound::ZERO, |progress| progress.read_round)
        };
        self.membership().quorum_value(echoed).unwrap_or(ReadRound::ZERO)
    }

    /// Whether this server's lease holds: no other can have been elected yet.
    pub fn has_lease(&self, now: Instant) -> bool {
        match &self.role {
            Role::Leader(leading) => {
                self.config.lease
                    && self.is_ready()
                    && leading.transfer.is_none()
                    && !leading.lease_forfeited
                    && now < leading.lease_until
            }
            _ => false,
        }
    }

    /// The lease counts from the moment the newest confirmed round was sent.
    pub(super) fn extend_lease(&mut self, now: Instant) {
        if !self.config.lease {
            return;
        }
        let confirmed = self.confirmed_round();
        let percent = if is_on(Mutation::LeaseTooLong) { 4 * LEASE_PERCENT } else { LEASE_PERCENT };
        let length = self.config.election_timeout.0 * percent / 100;
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        while let Some(&(round, sent)) = leading.rounds_sent.front()
            && round <= confirmed
        {
            let from = if is_on(Mutation::LeaseFromAnswer) { now } else { sent };
            leading.lease_until = from.after(length);
            leading.rounds_sent.pop_front();
        }
    }
}
