//! Log replication, the leader's side (§3.5, §3.6.2, §10.2.1), and check-quorum (§6.2).
//!
//! Called by `server.rs`. Entries are sent before the leader's own disk has them; its own match
//! index counts only once it has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::catch_up::Turnover;
use super::progress::Progress;
use super::server::{Raft, Role};
use super::transfer::Transfer;
use crate::limits;
use crate::proto::entry::{Entry, EntryKind};
use crate::proto::message::{AppendEntries, AppendEntriesResponse, AppendOutcome, Message};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Instant, LogIndex, ReadRound, ServerId, Term};

/// What a server knows only while it leads.
#[derive(Debug)]
pub(super) struct Leading {
    /// Everyone else, learners included.
    pub followers: BTreeMap<ServerId, Progress>,
    /// The index of this term's first entry: reads wait until it is committed (§6.4).
    pub term_start: LogIndex,
    pub heartbeat_deadline: Instant,
    /// Who is to hear of us in the next flush, whether there is news or not.
    pub heartbeat_due: BTreeSet<ServerId>,
    /// The newest read round.
    pub read_round: ReadRound,
    /// Whether reads wait for a round that begins with the next flush.
    pub round_requested: bool,
    /// When each round that isn't confirmed yet began; kept only where leases are on.
    pub rounds_sent: VecDeque<(ReadRound, Instant)>,
    /// Until when the lease holds.
    pub lease_until: Instant,
    /// Whether a successor was told to campaign in this term: its order may be late, and votes for
    /// it wait for no lease.
    pub lease_forfeited: bool,
    pub transfer: Option<Transfer>,
    /// Members that come and go.
    pub turnover: Turnover,
}

impl Leading {
    pub fn new(term_start: LogIndex, now: Instant) -> Leading {
        Leading {
            followers: BTreeMap::new(),
            term_start,
            heartbeat_deadline: now,
            heartbeat_due: BTreeSet::new(),
            read_round: ReadRound::ZERO,
            round_requested: false,
            rounds_sent: VecDeque::new(),
            lease_until: Instant::ZERO,
            lease_forfeited: false,
            transfer: None,
            turnover: Turnover::default(),
        }
    }
}

impl Role {
    /// A leader has heard from a follower: what it knows of that one, and the newest read round.
    /// Nothing where we don't lead, or not it.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        from: ServerId,
    ) -> Option<(&mut Progress, ReadRound)> {
        let Role::Leader(leading) = self else {
            return None;
        };
        let progress = leading.followers.get_mut(&from)?;
        progress.last_heard = now;
        progress.has_answered = true;
        Some((progress, leading.read_round))
    }
}

impl Raft {
    /// Appends an entry if this server leads and can take one; else `None`, and nothing happened.
    pub fn propose(&mut self, now: Instant, kind: EntryKind, payload: Bytes) -> Option<LogIndex> {
        let Role::Leader(leading) = &self.role else {
            return None;
        };
        if leading.transfer.is_some() || self.log_is_full {
            return None;
        }
        Some(self.append_own(now, kind, payload))
    }

    /// Whether [`propose`](Raft::propose) would take an entry.
    pub fn accepts_proposals(&self) -> bool {
        matches!(&self.role, Role::Leader(leading) if leading.transfer.is_none())
            && !self.log_is_full
    }

    /// Heartbeats and check-quorum: a leader that has not heard from a majority within an election
    /// timeout steps down, so that its clients look elsewhere.
    pub(super) fn tick_leader(&mut self, now: Instant) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        if now < leading.heartbeat_deadline {
            return;
        }
        leading.heartbeat_deadline = now.after(self.config.heartbeat);
        leading.heartbeat_due.extend(leading.followers.keys());
        // A heartbeat is a round too where a lease is to be kept alive.
        leading.round_requested |= self.config.lease;
        if !self.is_in_touch(now) && !is_on(Mutation::LeadsUnheard) {
            reached(Mark::LeaderLostQuorum);
            self.step_down(now);
        } else {
            self.look_after_installs(now);
            self.hand_over_stalled(now);
        }
    }

    /// Tells every follower what it doesn't know yet: entries, the commit index, a read round, or
    /// only that we are there.
    pub(super) fn replicate(&mut self, now: Instant) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        if std::mem::take(&mut leading.round_requested) {
            leading.read_round = leading.read_round.next();
            if self.config.lease {
                leading.rounds_sent.push_back((leading.read_round, now));
            }
        }
        let ids: Vec<ServerId> = leading.followers.keys().copied().collect();
        for id in ids {
            if self.links.contains_key(&id) {
                let is_installing = self.needs_snapshot(now, id);
                self.replicate_to(now, id, is_installing);
                self.want_pieces(now, id);
            }
        }
    }

    /// Sends what there is to say; nothing but heartbeats to a follower that needs a snapshot first.
    fn replicate_to(&mut self, now: Instant, to: ServerId, is_installing: bool) {
        let commit_index = self.commit_index;
        loop {
            let Role::Leader(leading) = &mut self.role else {
                return;
            };
            let read_round = leading.read_round;
            let progress = leading.followers.get_mut(&to).expect("the caller walks the followers");
            let has_entries = !is_installing && progress.next_index <= self.log.last_index();
            let has_more = has_entries && progress.is_open();
            if has_entries && progress.is_full() {
                reached(Mark::WindowClosed);
            }
            let has_news = progress.commit_told < commit_index || progress.round_told < read_round;
            if !has_more && !has_news && !leading.heartbeat_due.contains(&to) {
                return;
            }
            // What brings entries is answered when they are durable, and what says that more is
            // committed not at all: so a heartbeat is a message of its own.
            let is_bare = !has_more && progress.commit_told == commit_index;
            // Every log agrees with ours before its first entry.
            let (prev_log_index, prev_log_term) = match is_installing {
                true => (LogIndex::ZERO, Term::ZERO),
                false => {
                    let prev_log_index = progress.next_index.prev();
                    let term = self.log.term_at(prev_log_index).expect("sent entries are ours");
                    (prev_log_index, term)
                }
            };
            let entries = if has_more {
                let (bytes, count) = (limits::APPEND_BYTES, limits::APPEND_ENTRIES);
                self.log.slice(progress.next_index, bytes, count)
            } else {
                Vec::new()
            };
            match entries.last() {
                Some(last) => progress.sent(last.index, payload_bytes(&entries)),
                None => progress.probed(),
            }
            progress.commit_told = commit_index;
            progress.round_told = read_round;
            if is_bare {
                leading.heartbeat_due.remove(&to);
            }
            let request = AppendEntries {
                term: self.current_term,
                prev_log_index,
                prev_log_term,
                leader_commit: commit_index,
                read_round,
                cluster_time: self.clock.estimate(now).expect("a leader knows the time"),
                refuses_growth: self.refuses_growth,
                entries,
            };
            self.outbox.push((to, Message::AppendEntries(request)));
        }
    }

    /// Whether what a follower answers in `term` was asked in ours. A later term ends ours.
    pub(super) fn answers_this_term(&mut self, now: Instant, term: Term) -> bool {
        let is_older = term < self.current_term;
        let is_ours = term == self.current_term || is_older && is_on(Mutation::OldTermAcksCount);
        if term > self.current_term {
            self.become_follower(now, term, None);
        }
        is_ours
    }

    /// AppendEntries, the answer.
    pub(super) fn receive_append_response(
        &mut self,
        now: Instant,
        from: ServerId,
        response: AppendEntriesResponse,
    ) {
        if !self.answers_this_term(now, response.term) {
            return;
        }
        let Some((progress, read_round)) = self.role.hear(now, from) else {
            return;
        };
        // Nobody can have seen a round that has not begun.
        if response.read_round <= read_round {
            progress.read_round = progress.read_round.max(response.read_round);
        }
        match response.outcome {
            AppendOutcome::Match { match_index } if match_index <= self.log.last_index() => {
                if progress.matched(match_index) {
                    self.advance_commit();
                }
            }
            AppendOutcome::Match { .. } => {}
            AppendOutcome::Conflict { rejected_index, hint_index, hint_term } => {
                let possible_match = self.log.last_possible_match(hint_index, hint_term);
                progress.conflicted(rejected_index, possible_match);
            }
        }
        self.extend_lease(now);
    }

    /// §3.6.2: an entry of this term that a majority has on disk is committed, and all before it.
    /// An entry of an older term is never committed by counting.
    pub(super) fn advance_commit(&mut self) {
        let Role::Leader(leading) = &self.role else {
            return;
        };
        let own = match is_on(Mutation::LeaderCountsBeforeSync) {
            true => self.log.last_index(),
            false => self.durability.durable_index(),
        };
        let match_index = |id: ServerId| {
            if id == self.id {
                return own;
            }
            leading.followers.get(&id).map_or(LogIndex::ZERO, |progress| progress.match_index)
        };
        let majority_index = self.membership().quorum_value(match_index);
        let mut majority_index = majority_index.unwrap_or(LogIndex::ZERO);
        if is_on(Mutation::RemovedLeaderCounts) && !self.membership().is_voter(self.id) {
            let first = self.membership().voters().next();
            let with_own = |id| if Some(id) == first { own } else { match_index(id) };
            majority_index = self.membership().quorum_value(with_own).unwrap_or(majority_index);
        }
        let is_own_term = self.log.term_at(majority_index) == Some(self.current_term);
        if majority_index <= self.commit_index {
            return;
        }
        if is_own_term || is_on(Mutation::CommitsOldTerm) {
            self.commit_index = majority_index;
        } else {
            reached(Mark::OldTermNotCounted);
        }
    }
}

fn payload_bytes(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.payload.len()).sum()
}
