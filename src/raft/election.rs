//! Leader election (§3.4), pre-vote (§9.6), and the closed connection as a failure detector.
//!
//! Called by `server.rs`. A vote, and the request for one, leaves only once the term and vote it
//! rests on are durable; a pre-vote promises nothing and leaves at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::append::Following;
use super::membership::{Member, Membership};
use super::replication::Leading;
use super::server::{Raft, Role};
use crate::limits;
use crate::proto::entry::EntryKind;
use crate::proto::message::{Message, RequestVote, Vote};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{ClusterTime, Incarnation, Instant, LogIndex, ServerId, Term};

/// After the leader's connection closed, the first pre-vote waits for a random time up to this:
/// long enough that one of the followers is usually alone, short against a client's patience.
const HURRY_DELAY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(8));

/// A pre-vote that was refused in a hurry is tried again after this.
const HURRY_RETRY: (Duration, Duration) = (Duration::from_millis(8), Duration::from_millis(24));

/// A vote that was split in a hurry is tried again after this: longer, because the voters' disks
/// have to write before they answer, and who moves on too soon finds every answer too late.
const HURRY_CAMPAIGN: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(90));

/// The votes for one candidacy.
#[derive(Default, Debug)]
pub(super) struct Ballot {
    /// Who granted, and on which data directory.
    granted: BTreeMap<ServerId, Incarnation>,
    /// The highest estimate of the cluster clock among them.
    time: Option<ClusterTime>,
    /// Whether the leader asked for this campaign (§3.10).
    transfer: bool,
}

impl Raft {
    /// Whether this server may take part in founding the cluster: it has nothing, and is listed.
    pub(super) fn is_founding(&self) -> bool {
        let has_nothing = self.log.last_index() == LogIndex::ZERO && self.membership().is_empty();
        has_nothing && self.founders.iter().any(|founder| founder.id == self.id)
    }

    /// A server starts. Where its own vote would found a cluster it waits a little: it may have done
    /// so before, and lost its disk since, and who knows it will say so (`lost_disk`).
    pub(super) fn start_election_timer(&mut self, now: Instant) {
        self.reset_election_timer(now);
        if self.is_founding() && self.founders.len() == 1 {
            let earliest = now.after(limits::FOUNDING_ALONE);
            self.election_deadline = self.election_deadline.max(earliest);
        }
    }

    /// The election timer ran out: ask whether a campaign would succeed.
    pub(super) fn election_timed_out(&mut self, now: Instant) {
        if self.recovering || !(self.may_campaign() || self.is_founding()) {
            self.leader = None;
            self.reset_election_timer(now);
            return;
        }
        if matches!(self.role, Role::Candidate(_)) && !self.durability.is_hard_state_persisted() {
            // A slow disk: nobody was asked yet, and another campaign would wait for it as long.
            reached(Mark::CandidateAwaitsDisk);
            self.reset_candidate_timer(now);
            return;
        }
        if !self.is_founding() && !self.membership().is_voter(self.id) {
            reached(Mark::LeftCandidate);
        }
        self.leader = None;
        self.leader_heard = None;
        if is_on(Mutation::SkipsPreVote) && !self.is_founding() {
            return self.campaign(now, false);
        }
        self.role = Role::PreCandidate(Ballot::default());
        self.reset_candidate_timer(now);
        for peer in self.electorate() {
            let request = self.vote_request();
            self.outbox.push((peer, Message::RequestVote(request)));
        }
        self.grant(now, self.id, self.incarnation, None);
    }

    /// The connection to `peer` closed. If it led, that is news: its process is gone, and the
    /// kernel says so within a millisecond. The pre-vote keeps acting on it safe and calm: whoever
    /// still hears the leader refuses. Silent death is left to the election timeout, and so is
    /// everything where leases are on, because a lease leans on nobody voting early.
    pub(super) fn leader_link_closed(&mut self, now: Instant, peer: ServerId) {
        if self.leader != Some(peer) || self.config.lease {
            return;
        }
        self.leader = None;
        self.leader_heard = None;
        reached(Mark::HurriedPreVote);
        self.hurry_until = now.after(self.config.election_timeout.1);
        let delay = self.random_between(HURRY_DELAY.0, HURRY_DELAY.1);
        self.election_deadline = self.election_deadline.min(now.after(delay));
    }

    /// A connection came up while this server asks for votes: it missed the question.
    pub(super) fn ask_vote_again(&mut self, _now: Instant, peer: ServerId) {
        if !self.electorate().contains(&peer) {
            return;
        }
        let request = self.vote_request();
        if matches!(self.role, Role::PreCandidate(_) | Role::Candidate(_)) {
            reached(Mark::VoteAskedAgain);
        }
        match &self.role {
            Role::PreCandidate(_) => self.outbox.push((peer, Message::RequestVote(request))),
            Role::Candidate(_) => self.withhold(peer, Message::RequestVote(request)),
            Role::Follower(_) | Role::Leader(_) => {}
        }
    }

    /// RequestVote, receiver (§3.4, §3.6.1, §9.6).
    pub(super) fn receive_request_vote(
        &mut self,
        now: Instant,
        from: ServerId,
        request: RequestVote,
    ) {
        if request.pre_vote {
            return self.receive_pre_vote_request(now, from, request);
        }
        let protects_lease = !request.transfer && self.lease_may_hold(now);
        if protects_lease {
            reached(Mark::VoteAwaitsLease);
        }
        if request.term > self.current_term && !protects_lease {
            self.become_follower(now, request.term, None);
        }
        let may_vote = match self.voted_for {
            None => !protects_lease,
            Some(voted_for) => voted_for == from || is_on(Mutation::VotesTwice),
        };
        let would_follow = self.would_follow(&request) || is_on(Mutation::VoteIgnoresLog);
        let granted = request.term == self.current_term && may_vote && would_follow;
        if request.term == self.current_term && !may_vote {
            reached(Mark::VoteGivenAway);
        } else if request.term == self.current_term && !would_follow {
            reached(Mark::VoteLogBehind);
        }
        if granted {
            if self.voted_for.is_none() {
                self.save_hard_state(self.current_term, Some(from));
            }
            self.reset_election_timer(now);
        }
        let vote = self.vote(now, self.current_term, false, granted);
        self.withhold(from, vote);
    }

    /// A pre-vote promises nothing, so it changes nothing; a question of a lower term is answered
    /// too, or its asker would stay behind forever.
    fn receive_pre_vote_request(&mut self, now: Instant, from: ServerId, request: RequestVote) {
        let is_later = request.term > self.current_term;
        let would_follow = self.would_follow(&request) || is_on(Mutation::PreVoteIgnoresLog);
        let hears_leader = self.hears_leader(now);
        let granted = is_later && would_follow && !hears_leader && !self.lease_may_hold(now);
        if is_later && !would_follow {
            reached(Mark::PreVoteLogBehind);
        } else if is_later && hears_leader {
            reached(Mark::PreVoteLeaderHeard);
        }
        let term = if granted { request.term } else { self.current_term };
        let vote = self.vote(now, term, true, granted);
        self.outbox.push((from, vote));
        if granted && matches!(self.role, Role::Follower(_) | Role::PreCandidate(_)) {
            // Let the other go first: two candidates at once would split the vote.
            let patience = self.random_between(HURRY_RETRY.0, HURRY_RETRY.1);
            self.election_deadline = self.election_deadline.max(now.after(patience));
        }
    }

    /// The answer to one of our questions.
    pub(super) fn receive_vote(&mut self, now: Instant, from: ServerId, vote: Vote) {
        let is_granted_pre_vote = vote.pre_vote && vote.granted;
        if vote.term > self.current_term && !is_granted_pre_vote {
            self.become_follower(now, vote.term, None);
            return;
        }
        let answers_us = match &self.role {
            Role::PreCandidate(_) => vote.pre_vote && vote.term == self.current_term.next(),
            Role::Candidate(_) => !vote.pre_vote && vote.term == self.current_term,
            Role::Follower(_) | Role::Leader(_) => false,
        };
        let Some(incarnation) = self.incarnation_of(from) else {
            return;
        };
        if answers_us && vote.granted {
            self.grant(now, from, incarnation, vote.cluster_time);
        }
    }

    /// A candidate votes for itself, once that vote is durable.
    pub(super) fn count_own_vote(&mut self, now: Instant) {
        if matches!(self.role, Role::Candidate(_)) && self.durability.is_hard_state_persisted() {
            self.grant(now, self.id, self.incarnation, None);
        }
    }

    /// §3.4: a new term, a vote for oneself, and a question to everyone else.
    pub(super) fn campaign(&mut self, now: Instant, transfer: bool) {
        let term = self.current_term.next();
        if term == self.current_term {
            // Somebody named the last term that there is. To vote in it twice would break
            // election-safety; without another term there are no more elections.
            return self.step_down(now);
        }
        self.drop_withheld();
        self.save_hard_state(term, Some(self.id));
        self.leader = None;
        self.role = Role::Candidate(Ballot { transfer, ..Ballot::default() });
        self.reset_candidate_timer(now);
        for peer in self.electorate() {
            let request = self.vote_request();
            self.withhold(peer, Message::RequestVote(request));
        }
    }

    /// Counts a vote, and acts if it was the decisive one.
    fn grant(
        &mut self,
        now: Instant,
        voter: ServerId,
        incarnation: Incarnation,
        time: Option<ClusterTime>,
    ) {
        let (Role::PreCandidate(ballot) | Role::Candidate(ballot)) = &mut self.role else {
            return;
        };
        ballot.granted.insert(voter, incarnation);
        ballot.time = ballot.time.max(time);
        let granted = &ballot.granted;
        let has_won = if self.memberships.is_empty() {
            // The first election of a new cluster needs everyone, so that wiped servers can never
            // found a second, empty one.
            self.founders.iter().all(|founder| granted.contains_key(&founder.id))
        } else {
            let (_, membership) = self.memberships.last().expect("just seen not to be empty");
            membership.is_quorum(|id| granted.contains_key(&id))
        };
        match &mut self.role {
            Role::PreCandidate(_) if has_won => self.campaign(now, false),
            Role::Candidate(ballot) if has_won => {
                let ballot = std::mem::take(ballot);
                self.become_leader(now, ballot);
            }
            _ => {}
        }
    }

    /// §3.4, §6.4: leads, and appends an entry of its own term at once, because only that can
    /// commit what earlier terms left (§3.6.2).
    fn become_leader(&mut self, now: Instant, ballot: Ballot) {
        self.clock.lead(now, ballot.time, self.log.last_time());
        self.leader = Some(self.id);
        self.drop_withheld();
        let is_founding = self.is_founding();
        let term_start = self.log.last_index().next();
        self.role = Role::Leader(Box::new(Leading::new(term_start, now)));
        if is_founding {
            reached(Mark::FoundingElection);
            let membership = self.founding_membership(&ballot.granted);
            self.append_own(now, EntryKind::Membership, membership.encode());
        } else {
            self.append_own(now, EntryKind::Empty, bytes::Bytes::new());
        }
        self.track_members(now);
    }

    /// The membership that a new cluster begins with: the founders, each on the data directory that
    /// voted.
    fn founding_membership(&self, granted: &BTreeMap<ServerId, Incarnation>) -> Membership {
        let member = |founder: &super::server::Founder| Member {
            id: founder.id,
            incarnation: granted[&founder.id],
            admitted: LogIndex::ZERO.next(),
            voter: true,
            outgoing_voter: false,
            promote: false,
            replaces: None,
            peer: founder.peer.clone(),
            client: founder.client.clone(),
            http: founder.http.clone(),
        };
        Membership::new(self.founders.iter().map(member).collect())
    }

    /// Whose votes count, this server's aside.
    fn electorate(&self) -> Vec<ServerId> {
        let ids: Vec<ServerId> = if self.memberships.is_empty() {
            self.founders.iter().map(|founder| founder.id).collect()
        } else {
            let members = self.membership().members().iter();
            members.map(|m| m.id).filter(|id| self.membership().is_voter(*id)).collect()
        };
        ids.into_iter().filter(|id| *id != self.id).collect()
    }

    /// The question that this server's candidacy asks.
    fn vote_request(&self) -> RequestVote {
        let pre_vote = matches!(self.role, Role::PreCandidate(_));
        let term = if pre_vote { self.current_term.next() } else { self.current_term };
        let transfer = matches!(&self.role, Role::Candidate(ballot) if ballot.transfer);
        RequestVote {
            term,
            pre_vote,
            transfer,
            bootstrap: self.is_founding(),
            last_log_index: self.log.last_index(),
            last_log_term: self.log.last_term(),
        }
    }

    fn vote(&self, now: Instant, term: Term, pre_vote: bool, granted: bool) -> Message {
        let cluster_time = self.clock.estimate(now);
        Message::Vote(Vote { term, pre_vote, granted, cluster_time })
    }

    /// Whether the candidate's log would do (§3.6.1). A founder asks only those who have nothing
    /// either; whoever knows a membership is asked by members alone, because the envelope names the
    /// data directory that the membership admitted.
    fn would_follow(&self, request: &RequestVote) -> bool {
        let may_found = !request.bootstrap || self.is_founding();
        may_found && self.log.is_up_to_date(request.last_log_index, request.last_log_term)
    }

    /// Whether a leader was heard within the minimum election timeout, or is this server itself.
    fn hears_leader(&self, now: Instant) -> bool {
        let least = self.config.election_timeout.0;
        self.is_leader() || self.leader_heard.is_some_and(|heard| now.since(heard) < least)
    }

    /// Whether some leader's lease may hold, as far as this server can tell (§6.4.1): a lease leans
    /// on nobody voting for the minimum election timeout after it last heard a leader, or started,
    /// because it may have heard one just before. A higher term in between changes nothing.
    fn lease_may_hold(&self, now: Instant) -> bool {
        let least = self.config.election_timeout.0;
        let is_recent = now.since(self.leader_contact) < least;
        self.config.lease && (self.is_leader() || is_recent) && !is_on(Mutation::VotesInLease)
    }

    /// A candidate tries again after an election timeout, or after milliseconds in a hurry.
    fn reset_candidate_timer(&mut self, now: Instant) {
        if now < self.hurry_until {
            let is_campaign = matches!(self.role, Role::Candidate(_));
            let (least, most) = if is_campaign { HURRY_CAMPAIGN } else { HURRY_RETRY };
            self.election_deadline = now.after(self.random_between(least, most));
        } else {
            self.reset_election_timer(now);
        }
    }

    /// A leader that gives up, or a candidate that lost, is a follower of nobody.
    pub(super) fn step_down(&mut self, now: Instant) {
        self.leader = None;
        self.leader_heard = None;
        self.role = Role::Follower(Following::default());
        self.reset_election_timer(now);
    }
}
