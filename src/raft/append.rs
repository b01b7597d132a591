//! Log replication, the follower's side (§3.5).
//!
//! Called by `server.rs`. A follower answers with what is the same *and durable*, so an answer is a
//! report of its state rather than a reply to one request; it is sent at the end of the turn, and
//! again when the disk has caught up.

use super::membership::Membership;
use super::server::{Raft, Role};
use crate::proto::entry::{Entry, EntryKind};
use crate::proto::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, InstallOutcome, InstallSnapshotResponse,
    Message,
};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{ClusterTime, Instant, LogIndex, ReadRound, ServerId, SnapshotId, Term};

/// What a server knows only while it follows one leader.
#[derive(Default, Debug)]
pub(super) struct Following {
    /// Our log is the leader's up to here.
    verified_index: LogIndex,
    /// What we last acknowledged.
    acknowledged_index: LogIndex,
    /// Whether the leader awaits an answer even if nothing new is durable.
    owes_answer: bool,
    /// Whether the leader knows, by this link, that our log is its own so far: else it waits for an
    /// answer to whatever it sends, before it sends more.
    is_followed: bool,
    /// A request that didn't fit our log, to be answered instead.
    conflict: Option<Conflict>,
    /// The newest read round that the leader named.
    read_round: ReadRound,
    /// What is to be said of the leader's snapshot.
    pub install_answer: Option<InstallAnswer>,
}

/// How far we are with the leader's snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct InstallAnswer {
    pub snapshot: SnapshotId,
    pub asked: u64,
    pub outcome: InstallOutcome,
}

impl Following {
    /// Our log is the leader's up to `index`, and the leader is to be told so.
    pub fn verified(&mut self, index: LogIndex) {
        self.verified_index = self.verified_index.max(index);
        self.owes_answer = true;
    }

    /// A link is new, perhaps the one to the leader: what was said by the old one may be lost.
    pub fn link_is_new(&mut self) {
        self.is_followed = false;
    }
}

#[derive(Clone, Copy, Debug)]
struct Conflict {
    rejected_index: LogIndex,
    hint_index: LogIndex,
    hint_term: Term,
}

impl Raft {
    /// AppendEntries, receiver.
    pub(super) fn receive_append_entries(
        &mut self,
        now: Instant,
        from: ServerId,
        request: AppendEntries,
    ) {
        if request.term < self.current_term {
            // The sender was deposed and doesn't know: our term tells it.
            reached(Mark::DeposedLeaderTold);
            let outcome = AppendOutcome::Match { match_index: LogIndex::ZERO };
            let read_round = ReadRound::ZERO;
            let term = self.current_term;
            let response = AppendEntriesResponse { term, read_round, outcome };
            return self.withhold(from, Message::AppendEntriesResponse(response));
        }
        if !is_well_formed(&request) || self.knows_another_leader(from, request.term) {
            self.refused_messages += 1;
            return;
        }
        self.hear_leader(now, from, request.term, request.cluster_time);
        self.leader_refuses_growth = request.refuses_growth;
        self.append_from_leader(request);
    }

    /// `from` leads in `term`, which is not behind ours, and says what time it is.
    pub(super) fn hear_leader(
        &mut self,
        now: Instant,
        from: ServerId,
        term: Term,
        cluster_time: ClusterTime,
    ) {
        let is_known_leader = self.leader == Some(from) && matches!(self.role, Role::Follower(_));
        if term > self.current_term || !is_known_leader {
            self.become_follower(now, term, Some(from));
        }
        self.leader_heard = Some(now);
        self.leader_contact = now;
        self.hurry_until = Instant::ZERO;
        self.clock.hear(now, term, cluster_time);
        self.reset_election_timer(now);
    }

    /// Whether somebody else, perhaps this server, leads in that term: then the sender can't have
    /// been elected in it (election-safety), and to follow it would mix two logs.
    pub(super) fn knows_another_leader(&self, from: ServerId, term: Term) -> bool {
        term == self.current_term && self.leader.is_some_and(|leader| leader != from)
    }

    /// Makes our log the leader's, as far as the request goes.
    fn append_from_leader(&mut self, request: AppendEntries) {
        let AppendEntries { prev_log_index, prev_log_term, leader_commit, read_round, .. } =
            request;
        if is_on(Mutation::CommitsUnverified) {
            let known_index = leader_commit.min(self.log.last_index());
            self.commit_index = self.commit_index.max(known_index);
        }
        if self.log_is_full && prev_log_index > self.log.last_index() {
            // To ask for what doesn't fit would have it sent in vain, again and again. Once there
            // is room, the next heartbeat is rejected, and the leader goes back.
            reached(Mark::FullLogRefusesEntry);
            let following = self.following();
            following.read_round = following.read_round.max(read_round);
            following.owes_answer = true;
            return;
        }
        // What a snapshot replaced was committed, so every leader has it too (§3.6.3).
        let SnapshotId { index: base_index, term: base_term } = self.log.base().last;
        let is_in_base = prev_log_index < base_index;
        if !is_in_base
            && self.log.term_at(prev_log_index) != Some(prev_log_term)
            && !(is_on(Mutation::SkipsLogMatching) && prev_log_index <= self.log.last_index())
        {
            let hint_index = self.log.last_possible_match(prev_log_index, prev_log_term);
            let hint_index = hint_index.max(base_index);
            let hint_term = self.log.term_at(hint_index).expect("a match is within the log");
            let following = self.following();
            following.read_round = following.read_round.max(read_round);
            following.conflict =
                Some(Conflict { rejected_index: prev_log_index, hint_index, hint_term });
            return;
        }
        let is_empty = request.entries.is_empty();
        let mut verified_index = prev_log_index.max(base_index);
        let mut has_appended = false;
        for entry in request.entries.into_iter().skip_while(|entry| entry.index <= base_index) {
            let index = entry.index;
            // Re-appending must be idempotent: a delayed duplicate would otherwise truncate
            // acknowledged entries (§3.5).
            let own_term = self.log.term_at(index);
            if own_term == Some(entry.term) && !is_on(Mutation::TruncatesOnDuplicate) {
                reached(Mark::DuplicateEntry);
            } else {
                if self.log_is_full && !self.begins_term(&entry) {
                    // What doesn't fit isn't taken; the leader sees a follower that lags.
                    reached(Mark::FullLogRefusesEntry);
                    break;
                }
                let contradicts_base = index.prev() == base_index && entry.term < base_term;
                if index <= self.commit_index || contradicts_base {
                    // No leader lacks a committed entry (§3.6.3). A peer that contradicts one is
                    // broken; that must not take this server down with it.
                    break;
                }
                if own_term.is_some() {
                    reached(Mark::LogTruncated);
                    self.truncate_from(index);
                }
                self.append(entry);
                has_appended = true;
            }
            verified_index = index;
        }
        let is_commit_news = is_empty && leader_commit.min(verified_index) > self.commit_index;
        self.commit_index = self.commit_index.max(leader_commit.min(verified_index));
        let following = self.following();
        following.verified_index = following.verified_index.max(verified_index);
        // New entries are answered when they are durable; a read round or a heartbeat doesn't wait
        // for the disk. That more is committed is no question: an answer to it would only wake a
        // leader that has better things to do.
        let is_told_only = has_appended || (is_commit_news && following.is_followed);
        following.owes_answer |= !is_told_only || read_round > following.read_round;
        following.read_round = following.read_round.max(read_round);
    }

    /// Answers the leader if there is something to say, and the term it would be said in is
    /// durable.
    pub(super) fn acknowledge(&mut self) {
        if !self.durability.is_hard_state_persisted() {
            return;
        }
        let durable_index = match is_on(Mutation::FollowerAcksBeforeSync) {
            true => self.log.last_index(),
            false => self.durability.durable_index(),
        };
        let (Some(leader), term) = (self.leader, self.current_term) else {
            return;
        };
        let following = self.following();
        if let Some(InstallAnswer { snapshot, asked, outcome }) = following.install_answer.take() {
            following.is_followed = false;
            let response = InstallSnapshotResponse { term, snapshot, asked, outcome };
            self.outbox.push((leader, Message::InstallSnapshotResponse(response)));
        }
        let following = self.following();
        let mut match_index = following.verified_index.min(durable_index);
        if is_on(Mutation::InstallAckedBeforeDurable)
            && let Some((snapshot, received, total)) = self.receiving()
            && received == total
        {
            match_index = match_index.max(snapshot.index);
        }
        let following = self.following();
        let outcome = if let Some(conflict) = following.conflict.take() {
            following.is_followed = false;
            let Conflict { rejected_index, hint_index, hint_term } = conflict;
            AppendOutcome::Conflict { rejected_index, hint_index, hint_term }
        } else if following.owes_answer || match_index > following.acknowledged_index {
            following.owes_answer = false;
            following.is_followed = true;
            following.acknowledged_index = match_index;
            AppendOutcome::Match { match_index }
        } else {
            return;
        };
        let read_round = following.read_round;
        let response = AppendEntriesResponse { term, read_round, outcome };
        self.outbox.push((leader, Message::AppendEntriesResponse(response)));
    }

    /// Whether this is a leader's empty first entry. There are no more of them than of terms, so it
    /// fits where terms and votes do; without it a full cluster's new leader could serve no read.
    fn begins_term(&self, entry: &Entry) -> bool {
        let before = self.log.term_at(entry.index.prev());
        let is_empty = entry.kind == EntryKind::Empty && entry.payload.is_empty();
        is_empty && before.is_some_and(|before| entry.term > before)
    }

    pub(super) fn following(&mut self) -> &mut Following {
        match &mut self.role {
            Role::Follower(following) => following,
            _ => unreachable!("only a follower takes a leader's entries"),
        }
    }
}

/// Whether the entries follow on each other and could have been appended by that leader. The
/// decoder can't know; a request that isn't is dropped like a lost one. Nobody leads, or appends,
/// in term 0: it is the term before the first election.
fn is_well_formed(request: &AppendEntries) -> bool {
    if request.term == Term::ZERO {
        return false;
    }
    let mut index = request.prev_log_index;
    let mut term = request.prev_log_term;
    for entry in &request.entries {
        let follows = entry.index.prev() == index && entry.index > index;
        let is_membership = entry.kind == EntryKind::Membership;
        let is_sound = !is_membership || Membership::decode(&entry.payload).is_some();
        let has_term = entry.term > Term::ZERO && entry.term >= term;
        if !follows || !has_term || !is_sound {
            return false;
        }
        index = entry.index;
        term = entry.term;
    }
    term <= request.term
}
