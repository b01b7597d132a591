//! The gateway's batches: gathered, numbered, sent until they are seen applied, or given up.
//!
//! Design 2-client-path §2. The write commands of a turn make one batch, or those of several while a
//! leader's last entry is on its way to the disk; reads that have to keep their place behind a write
//! wait beside it and never enter the log. Called by `node.rs` and `apply.rs`; who leads and what is
//! sent is decided there.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::Effect;
use super::clients::{Clients, Origin};
use super::held::HeldReads;
use crate::kv::command::Command;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::batch::{Batch, BatchBuilder, Standing};
use crate::proto::message::{BatchId, GatewayId};
use crate::proto::reply::Reply;
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{BatchSeq, Boot, Instant, LogIndex};

/// A batch that has no number yet.
#[derive(Debug)]
struct Gathered {
    builder: BatchBuilder,
    origins: Vec<Origin>,
    reads: HeldReads,
    since: Instant,
    /// The log's last entry when it was first asked whether to gather on.
    behind: Option<LogIndex>,
}

/// A batch that has its number and was not yet seen applied.
#[derive(Debug)]
pub struct Pending {
    /// Its number.
    pub seq: BatchSeq,
    /// What is sent.
    pub payload: Bytes,
    /// Whose its commands are, in order; empty once they were answered.
    pub origins: Vec<Origin>,
    /// Reads that keep their place in it.
    pub reads: HeldReads,
    /// When the first of its commands came.
    pub since: Instant,
    /// Whether its clients were told that nobody knows what became of it.
    pub is_given_up: bool,
}

/// All batches of this node's clients.
#[derive(Debug)]
pub struct Gateway {
    boot: Boot,
    id: Option<GatewayId>,
    gathering: Option<Gathered>,
    waiting: VecDeque<Gathered>,
    waiting_bytes: usize,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    next_seq: BatchSeq,
    /// Whether everything pending has to be sent again.
    must_resend: bool,
    /// Whether a batch was skipped as a gap since everything was last sent.
    gap_seen: bool,
    /// When something pending was last sent.
    sent: Instant,
}

impl Gateway {
    /// A gateway that was not admitted yet, in its boot.
    pub fn new(boot: Boot) -> Gateway {
        Gateway {
            boot,
            id: None,
            gathering: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
            next_seq: BatchSeq(1),
            must_resend: false,
            gap_seen: false,
            sent: Instant::ZERO,
        }
    }

    /// Its name, once this node applied the entry that admitted it.
    pub fn id(&self) -> Option<GatewayId> {
        self.id
    }

    /// A membership was applied, or came in a snapshot: by it this node's gateway has this name, or
    /// none. What was sent under another name is over, because a name isn't used again: surely not
    /// done where `has_applied_all` before, in doubt where a snapshot leaves that open.
    pub fn rename(
        &mut self,
        id: Option<GatewayId>,
        has_applied_all: bool,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        if self.id == id {
            return;
        }
        let write = if has_applied_all { left() } else { overtaken_write() };
        self.id = id;
        self.next_seq = BatchSeq(1);
        self.must_resend = false;
        self.gap_seen = false;
        self.pending_bytes = 0;
        for mut pending in std::mem::take(&mut self.pending) {
            pending.answer_all(&left(), &write, clients, effects);
        }
    }

    /// Whether this batch was sent by this very process.
    pub fn is_own(&self, id: BatchId) -> bool {
        self.id == Some(id.gateway) && id.epoch == self.boot
    }

    /// Whether more commands may be taken: see `limits.rs` for what happens where not.
    pub fn has_room(&self) -> bool {
        self.waiting_bytes < limits::GATEWAY_WAITING_BYTES
            && self.waiting.len() < limits::GATEWAY_WINDOW_BATCHES
    }

    /// Numbered batches that are kept, and their bytes.
    pub fn pending_held(&self) -> (usize, usize) {
        (self.pending.len(), self.pending_bytes)
    }

    /// Batches that wait for a number, and their bytes.
    pub fn waiting_held(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting_bytes)
    }

    /// Whether no client awaits an answer.
    pub fn is_idle(&self) -> bool {
        let is_decided = self.pending.iter().all(|pending| pending.is_given_up);
        self.gathering.is_none() && self.waiting.is_empty() && is_decided
    }

    /// Adds a write to the batch that gathers.
    pub fn push_write(
        &mut self,
        now: Instant,
        origin: Origin,
        command: &'static Command,
        args: Args<'_>,
    ) {
        if self.gathering.as_ref().is_some_and(|gathered| !gathered.builder.fits(&args)) {
            self.end_batch();
        }
        let gathered = self.gathered(now);
        gathered.builder.push(command.code, &args);
        gathered.origins.push(origin);
    }

    /// Gives a read its place behind the writes of the gathering batch so far. The batch has not been
    /// sent, so it will be appended behind everything that was acknowledged before the read came.
    pub fn push_read(
        &mut self,
        now: Instant,
        origin: Origin,
        command: &'static Command,
        args: Args<'_>,
    ) {
        let gathered = self.gathered(now);
        let position = gathered.builder.len();
        gathered.reads.push(origin, command, args, position);
    }

    fn gathered(&mut self, now: Instant) -> &mut Gathered {
        self.gathering.get_or_insert_with(|| Gathered {
            builder: BatchBuilder::default(),
            origins: Vec::new(),
            reads: HeldReads::default(),
            since: now,
            behind: None,
        })
    }

    /// What gathers may gather on behind this entry: that of index `last`, the log's last one, where
    /// nothing was asked of it before. `None` where it is enough, or nothing.
    pub fn gathers_behind(&mut self, last: LogIndex) -> Option<LogIndex> {
        let gathered = self.gathering.as_mut()?;
        let may_grow = gathered.bytes() < limits::GATHER_BYTES;
        may_grow.then(|| *gathered.behind.get_or_insert(last))
    }

    /// What has gathered is a batch: it waits for its number.
    pub fn end_batch(&mut self) {
        if let Some(gathered) = self.gathering.take() {
            self.waiting_bytes += gathered.bytes();
            self.waiting.push_back(gathered);
        }
    }

    /// Gives the oldest waiting batch its number, to be sent now, if the window has room. `None`
    /// also before this node was admitted.
    pub fn number_next(&mut self, now: Instant) -> Option<Bytes> {
        let gateway = self.id?;
        let next_bytes = self.waiting.front()?.bytes();
        let has_room = self.pending_bytes + next_bytes <= limits::GATEWAY_WINDOW_BYTES
            && self.pending.len() < limits::GATEWAY_WINDOW_BATCHES;
        if !has_room && !self.pending.is_empty() {
            return None;
        }
        let Gathered { builder, origins, reads, since, .. } = self.waiting.pop_front()?;
        self.waiting_bytes -= next_bytes;
        let seq = self.next_seq;
        self.next_seq = seq.next();
        let payload = builder.finish(BatchId { gateway, epoch: self.boot, seq });
        let pending =
            Pending { seq, payload: payload.clone(), origins, reads, since, is_given_up: false };
        self.pending_bytes += pending.bytes();
        self.pending.push_back(pending);
        self.sent = now;
        Some(payload)
    }

    /// Everything pending must be sent again: who leads has changed, or the link to it is new.
    pub fn resend(&mut self) {
        self.must_resend = true;
    }

    /// A batch of ours was skipped because one before it was lost: everything pending must be sent
    /// again, but not for every such batch. What was sent last may be on its way still, so the next
    /// sending waits until [`resend_deadline`](Gateway::resend_deadline).
    pub fn note_gap(&mut self) {
        reached(Mark::GapSeen);
        self.gap_seen = true;
    }

    /// Whether that happened since everything was last sent.
    pub fn has_seen_gap(&self) -> bool {
        self.gap_seen
    }

    /// What has to be sent again now, in order.
    pub fn take_resend(&mut self, now: Instant) -> Vec<Bytes> {
        if !std::mem::take(&mut self.must_resend) {
            return Vec::new();
        }
        self.sent = now;
        if std::mem::take(&mut self.gap_seen) && !self.pending.is_empty() {
            reached(Mark::GapSentAgain);
        }
        if is_on(Mutation::NeverSendsAgain) {
            return Vec::new();
        }
        if is_on(Mutation::RetryRenumbers) {
            self.renumber();
        }
        self.pending.iter().map(|pending| pending.payload.clone()).collect()
    }

    /// Only ever as a mutation: everything pending gets numbers that were not used yet.
    fn renumber(&mut self) {
        for pending in &mut self.pending {
            let batch = Batch::decode(&pending.payload).expect("the gateway built it");
            let mut builder = BatchBuilder::default();
            batch.commands().for_each(|command| builder.push(command.code, &command.args));
            pending.seq = self.next_seq;
            self.next_seq = pending.seq.next();
            pending.payload = builder.finish(BatchId { seq: pending.seq, ..batch.id });
        }
    }

    /// A batch of ours took effect: it is the oldest pending one.
    pub fn applied(&mut self, seq: BatchSeq) -> Pending {
        let pending = self.pending.pop_front().expect("exactly-once: what is applied was pending");
        assert_eq!(pending.seq, seq, "exactly-once: batches take effect in order");
        self.pending_bytes -= pending.bytes();
        pending
    }

    /// The state up to an installed snapshot came without the answers: what it covers of our
    /// batches took effect, and nobody knows what came of it.
    pub fn overtaken(
        &mut self,
        epoch: Boot,
        last_seq: BatchSeq,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        while epoch == self.boot
            && let Some(front) = self.pending.front()
            && front.seq <= last_seq
        {
            let mut pending = self.pending.pop_front().expect("just seen");
            self.pending_bytes -= pending.bytes();
            pending.answer_all(&overtaken_read(), &overtaken_write(), clients, effects);
        }
    }

    /// When [`time_out`](Gateway::time_out) is due.
    pub fn deadline(&self, timeout: Duration) -> Instant {
        let undecided = self.pending.iter().find(|pending| !pending.is_given_up);
        let oldest_pending = undecided.map(|pending| pending.since);
        let waiting = self.waiting.front().or(self.gathering.as_ref());
        let oldest_waiting = waiting.map(|gathered| gathered.since);
        let oldest = [oldest_pending, oldest_waiting].into_iter().flatten().min();
        oldest.map_or(Instant::NEVER, |since| since.after(timeout))
    }

    /// When what is pending has been on its way for `resend_after`, or for `gap_patience` where a
    /// gap was seen.
    pub fn resend_deadline(&self, resend_after: Duration, gap_patience: Duration) -> Instant {
        if self.pending.is_empty() || self.must_resend {
            return Instant::NEVER;
        }
        self.sent.after(if self.gap_seen { gap_patience } else { resend_after })
    }

    /// Answers what could not be decided since `timeout`: a batch without a number was surely not
    /// done and is dropped; one with a number may have been, and is emptied under its own number,
    /// so that what was given up is not sent again and nothing behind it is a gap.
    pub fn time_out(
        &mut self,
        now: Instant,
        timeout: Duration,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        if self.gathering.as_ref().is_some_and(|gathered| now >= gathered.since.after(timeout)) {
            self.end_batch();
        }
        while let Some(front) = self.waiting.front()
            && now >= front.since.after(timeout)
        {
            reached(Mark::UnnumberedTimedOut);
            let gathered = self.waiting.pop_front().expect("just seen");
            self.waiting_bytes -= gathered.bytes();
            let reply = not_done(timeout);
            for origin in gathered.origins.iter().copied().chain(gathered.reads.origins()) {
                clients.write_done(origin.client);
                clients.answer(origin, reply.clone(), effects);
            }
        }
        for pending in &mut self.pending {
            if pending.is_given_up || now < pending.since.after(timeout) {
                continue;
            }
            self.pending_bytes -= pending.bytes();
            pending.give_up(timeout, clients, effects);
            self.pending_bytes += pending.bytes();
        }
        if is_on(Mutation::GivenUpLeavesGap) {
            self.pending.retain(|pending| !pending.is_given_up);
            self.pending_bytes = self.pending.iter().map(Pending::bytes).sum();
        }
    }
}

impl Gathered {
    fn bytes(&self) -> usize {
        self.builder.bytes() + self.reads.bytes()
    }
}

impl Pending {
    fn bytes(&self) -> usize {
        self.payload.len() + self.reads.bytes()
    }

    fn give_up(&mut self, timeout: Duration, clients: &mut Clients, effects: &mut Vec<Effect>) {
        reached(Mark::BatchEmptied);
        self.is_given_up = true;
        let batch = Batch::decode(&self.payload).expect("the gateway built it");
        self.payload = batch.emptied(Standing::GivenUp);
        let is_failure = is_on(Mutation::MaybeReportedAsFailure);
        let write = if is_failure { not_done(timeout) } else { in_doubt(timeout) };
        // A read has no effect, so it was surely not done.
        self.answer_all(&not_done(timeout), &write, clients, effects);
    }

    /// Answers everybody who waits for this batch.
    fn answer_all(
        &mut self,
        read: &Reply,
        write: &Reply,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let reads = std::mem::take(&mut self.reads);
        for origin in reads.origins() {
            clients.write_done(origin.client);
            clients.answer(origin, read.clone(), effects);
        }
        for origin in std::mem::take(&mut self.origins) {
            clients.write_done(origin.client);
            clients.answer(origin, write.clone(), effects);
        }
    }
}

/// The command was surely not done.
pub fn not_done(timeout: Duration) -> Reply {
    let waited_ms = timeout.as_millis();
    let text = format!(
        "CLUSTERDOWN no leader could be reached within {waited_ms} ms; the command was not executed"
    );
    Reply::Error(text.into())
}

/// The command was surely not done: this node left the cluster, or was let in anew.
fn left() -> Reply {
    let text = "CLUSTERDOWN this node left the cluster or joined it anew meanwhile; the command was \
                not executed";
    Reply::Error(text.into())
}

/// The state came in a snapshot in which the command's batch is counted already.
fn overtaken_write() -> Reply {
    let text = "INDOUBT this node was brought up to date by a snapshot; the command may or may not \
                have been executed";
    Reply::Error(text.into())
}

/// The same for a read that travelled with such a batch.
fn overtaken_read() -> Reply {
    let text = "CLUSTERDOWN this node was brought up to date by a snapshot; the command was not \
                executed";
    Reply::Error(text.into())
}

/// The command may have been done, or be done yet.
fn in_doubt(timeout: Duration) -> Reply {
    let waited_ms = timeout.as_millis();
    let text = format!(
        "INDOUBT no majority confirmed the command within {waited_ms} ms; it may or may not have \
         been executed"
    );
    Reply::Error(text.into())
}
