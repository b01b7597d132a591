//! Reads that wait for a read index (§6.4), this node's own and, on the leader, the followers'.
//!
//! Design 2-client-path §3. The reads of one turn are one *group* and ask once. Groups are released
//! in the order of their arrival, so that no client sees time run backwards. Called by `node.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use super::Effect;
use super::clients::{Clients, Origin};
use super::gateway::not_done;
use super::held::HeldReads;
use super::slowlog::Slowlog;
use crate::kv::command::{Command, ReadContext};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::message::ReadId;
use crate::proto::reply::Reply;
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Boot, Instant, LogIndex, ReadRound, ServerId};

/// The reads of one turn.
#[derive(Debug)]
struct Group {
    reads: HeldReads,
    since: Instant,
    state: State,
}

/// What a group waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Somebody to ask.
    Fresh,
    /// This node leads: for its round.
    Local { round: ReadRound, index: LogIndex },
    /// The leader's answer.
    Asked { id: ReadId, at: Instant },
    /// Applying up to here.
    Confirmed(LogIndex),
}

/// A follower's question, waiting on the leader for its round.
#[derive(Clone, Copy, Debug)]
struct RemoteRead {
    from: ServerId,
    id: ReadId,
    round: ReadRound,
    index: LogIndex,
}

/// All reads that wait.
#[derive(Debug)]
pub struct Reads {
    boot: Boot,
    next_number: u64,
    gathering: Option<Group>,
    groups: VecDeque<Group>,
    bytes: usize,
    /// Followers' questions that came before this leader could know what is committed.
    early: Vec<(ServerId, ReadId)>,
    remote: VecDeque<RemoteRead>,
}

impl Reads {
    /// None yet, in this boot.
    pub fn new(boot: Boot) -> Reads {
        Reads {
            boot,
            next_number: 1,
            gathering: None,
            groups: VecDeque::new(),
            bytes: 0,
            early: Vec::new(),
            remote: VecDeque::new(),
        }
    }

    /// Whether more reads may be taken.
    pub fn has_room(&self) -> bool {
        self.groups.len() < limits::GATEWAY_READ_GROUPS
            && self.bytes < limits::GATEWAY_WAITING_BYTES
    }

    /// Groups that wait, their bytes, and followers' questions.
    pub fn held(&self) -> (usize, usize, usize) {
        (self.groups.len(), self.bytes, self.early.len() + self.remote.len())
    }

    /// Whether no client's read waits.
    pub fn is_idle(&self) -> bool {
        self.gathering.is_none() && self.groups.is_empty()
    }

    /// Adds a read to this turn's group.
    pub fn push(
        &mut self,
        now: Instant,
        origin: Origin,
        command: &'static Command,
        args: Args<'_>,
    ) {
        let group = self.gathering.get_or_insert_with(|| Group {
            reads: HeldReads::default(),
            since: now,
            state: State::Fresh,
        });
        group.reads.push(origin, command, args, 0);
    }

    /// The turn is over: its group begins to wait.
    pub fn end_turn(&mut self) {
        if let Some(group) = self.gathering.take() {
            self.bytes += group.reads.bytes();
            self.groups.push_back(group);
        }
    }

    /// Whether a group has nobody asked for it yet.
    pub fn has_fresh(&self) -> bool {
        self.groups.iter().any(|group| group.state == State::Fresh)
    }

    /// This node leads, and a round was requested for everything fresh.
    pub fn wait_for_round(&mut self, round: ReadRound, index: LogIndex) {
        for group in self.groups.iter_mut().filter(|group| group.state == State::Fresh) {
            group.state = State::Local { round, index };
        }
    }

    /// Another leads: the question to ask it for everything fresh.
    pub fn ask(&mut self, now: Instant) -> ReadId {
        let id = ReadId { boot: self.boot, number: self.next_number };
        self.next_number += 1;
        for group in self.groups.iter_mut().filter(|group| group.state == State::Fresh) {
            group.state = State::Asked { id, at: now };
        }
        id
    }

    /// Who leads has changed, or the link to it is new: what is not confirmed is asked again, and
    /// what waits for an entry that is not known to be committed, because it may never be.
    pub fn start_over(&mut self, commit_index: LogIndex) {
        for group in &mut self.groups {
            if matches!(group.state, State::Local { .. }) {
                reached(Mark::StepDownWithReads);
            }
            if !matches!(group.state, State::Confirmed(index) if index <= commit_index) {
                group.state = State::Fresh;
            }
        }
    }

    /// Asks again what was not answered for `resend_after`.
    pub fn ask_overdue_again(&mut self, now: Instant, resend_after: Duration) {
        for group in &mut self.groups {
            if let State::Asked { at, .. } = group.state
                && now >= at.after(resend_after)
            {
                reached(Mark::ReadAskedAgain);
                group.state = State::Fresh;
            }
        }
    }

    /// The leader's answer to one of our questions. Older groups arrived before it, so what holds
    /// for the question holds for them too.
    pub fn answered(&mut self, id: ReadId, index: LogIndex) {
        let serves = |asked: ReadId| asked == id || is_on(Mutation::AnswerServesLaterQuestion);
        let is_asked = |group: &Group| matches!(group.state, State::Asked { id, .. } if serves(id));
        let Some(newest) = self.groups.iter().rposition(is_asked) else {
            reached(Mark::ReadAnswerLate);
            return;
        };
        for group in self.groups.iter_mut().take(newest + 1) {
            if !matches!(group.state, State::Confirmed(_)) {
                group.state = State::Confirmed(index);
            }
        }
    }

    /// Rounds up to `round` are confirmed: this node still led when they began.
    pub fn round_confirmed(&mut self, round: ReadRound) {
        for group in &mut self.groups {
            match group.state {
                State::Local { round: waits_for, index } if waits_for <= round => {
                    group.state = State::Confirmed(index);
                }
                State::Confirmed(_) => {}
                State::Local { .. } | State::Fresh | State::Asked { .. } => break,
            }
        }
    }

    /// Evaluates and answers, oldest first, what is confirmed and covered by what was applied.
    pub fn release(
        &mut self,
        now: Instant,
        last_applied: LogIndex,
        context: &ReadContext<'_>,
        clients: &mut Clients,
        slowlog: &mut Slowlog,
        effects: &mut Vec<Effect>,
    ) {
        while let Some(front) = self.groups.front() {
            let State::Confirmed(index) = front.state else {
                break;
            };
            if index > last_applied {
                reached(Mark::ReadAwaitsApply);
                break;
            }
            let group = self.groups.pop_front().expect("just seen");
            self.bytes -= group.reads.bytes();
            group.reads.release(0, 0, context, clients, effects);
            group.reads.note_time(now.since(group.since), context.now, clients, slowlog);
            note_done(&group.reads, clients);
        }
    }

    /// When [`time_out`](Reads::time_out) or asking again is due.
    pub fn deadline(&self, timeout: Duration, resend_after: Duration) -> Instant {
        let Some(front) = self.groups.front() else {
            return Instant::NEVER;
        };
        let times_out = front.since.after(timeout);
        let asks = self.groups.iter().filter_map(|group| match group.state {
            State::Asked { at, .. } => Some(at.after(resend_after)),
            _ => None,
        });
        asks.min().unwrap_or(Instant::NEVER).min(times_out)
    }

    /// Answers reads that nobody confirmed since `timeout`.
    pub fn time_out(
        &mut self,
        now: Instant,
        timeout: Duration,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let had_unparked = clients.has_unparked();
        while let Some(front) = self.groups.front()
            && now >= front.since.after(timeout)
        {
            reached(Mark::ReadTimedOut);
            let group = self.groups.pop_front().expect("just seen");
            self.bytes -= group.reads.bytes();
            let reply: Reply = not_done(timeout);
            for origin in group.reads.origins() {
                clients.answer(origin, reply.clone(), effects);
            }
            note_done(&group.reads, clients);
        }
        if !had_unparked && clients.has_unparked() {
            reached(Mark::ParkedFreedByTimeOut);
        }
    }

    /// A follower asks for a read index.
    pub fn remote_asks(&mut self, from: ServerId, id: ReadId) {
        // At the bound the question is dropped: the follower asks again on its timer.
        if self.early.len() + self.remote.len() < limits::LEADER_READ_REQUESTS {
            self.early.push((from, id));
        }
    }

    /// Whether a follower's question has no round yet.
    pub fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// A round was requested for the followers' new questions.
    pub fn remote_wait_for_round(&mut self, round: ReadRound, index: LogIndex) {
        let early = self.early.drain(..);
        self.remote.extend(early.map(|(from, id)| RemoteRead { from, id, round, index }));
    }

    /// The followers' questions that rounds up to `round` answer.
    pub fn remote_confirmed(&mut self, round: ReadRound) -> Vec<(ServerId, ReadId, LogIndex)> {
        let count = self.remote.iter().take_while(|read| read.round <= round).count();
        self.remote.drain(..count).map(|read| (read.from, read.id, read.index)).collect()
    }

    /// This node does not lead, or leads in another term: the followers ask someone else.
    pub fn forget_remote(&mut self) {
        if !self.early.is_empty() || !self.remote.is_empty() {
            reached(Mark::RemoteReadsForgotten);
        }
        self.early.clear();
        self.remote.clear();
    }
}

fn note_done(reads: &HeldReads, clients: &mut Clients) {
    for origin in reads.origins() {
        clients.read_done(origin.client);
    }
}
