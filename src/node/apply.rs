//! Applying committed entries, and answering this node's own clients from them.
//!
//! Design 2-client-path §1: a gateway answers when its own node applies the batch. Called by
//! `node.rs` at the end of a turn; bounded in each, so that a node with much to catch up on still
//! answers its peers.

use std::time::Duration;

use super::Effect;
use super::clients::Origin;
use super::gateway::Pending;
use super::latencies::Took;
use super::node::Node;
use super::pipeline::refusal;
use super::snapshots::gateways;
use crate::kv::command::{ReadContext, by_code};
use crate::kv::gateways::Verdict;
use crate::kv::in_session;
use crate::kv::pubsub;
use crate::limits;
use crate::proto::batch::{Batch, BatchCommand, Standing};
use crate::proto::entry::{Entry, EntryKind};
use crate::proto::message::GrowthRefusal;
use crate::proto::reply::Reply;
use crate::raft::membership::Membership;
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{ClusterTime, Instant, LogIndex, Revision};

impl Node {
    /// Applies what is committed, within this turn's bound.
    pub(super) fn apply_committed(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut bytes = 0;
        self.machine.bound_history(!self.clients.listeners.is_empty());
        while self.has_unapplied()
            && !self.is_outdated()
            && bytes < limits::APPLY_BYTES
            && self.may_apply()
        {
            let index = self.machine.last_applied().next();
            let entry = self.raft.log().entry(index).expect("a committed entry is in the log");
            let mut entry = entry.clone();
            if is_on(Mutation::ExpiryByOwnClock) {
                entry.time = self.estimate(now);
            }
            bytes += entry.payload.len();
            let clock = self.machine.store().clock();
            self.snapshots.note_applied(&entry);
            self.machine.begin(&entry);
            match entry.kind {
                EntryKind::Empty => {}
                EntryKind::CommandSet => self.apply_command_set(&entry),
                EntryKind::Membership => self.apply_membership(&entry, effects),
                EntryKind::Batch => self.apply_batch(now, &entry, effects),
            }
            self.note_checkpoint(clock, effects);
            self.feed_listeners_early(now, effects);
        }
    }

    /// Whether something committed has not been applied.
    pub(super) fn has_unapplied(&self) -> bool {
        self.machine.last_applied() < self.raft.commit_index()
    }

    fn apply_membership(&mut self, entry: &Entry, effects: &mut Vec<Effect>) {
        let membership = Membership::decode(&entry.payload)
            .expect("consensus adopted it when it entered the log");
        let gateways = gateways(&membership);
        let identity = &self.identity;
        let own = gateways.clone().find(|gateway| {
            (gateway.server, gateway.incarnation) == (identity.server, identity.incarnation)
        });
        self.gateway.rename(own, true, &mut self.clients, effects);
        self.machine.set_members(gateways);
    }

    fn apply_batch(&mut self, now: Instant, entry: &Entry, effects: &mut Vec<Effect>) {
        let Some(batch) = Batch::decode(&entry.payload) else {
            // No leader of this version appends what it can't read; whatever it is, it has no
            // effect on any node.
            return;
        };
        let is_own = self.gateway.is_own(batch.id);
        match self.machine.admit(batch.id) {
            Verdict::Apply if is_own => {
                let pending = self.gateway.applied(batch.id.seq);
                self.apply_own(now, entry.index, batch, pending, effects);
            }
            Verdict::Apply if is_on(Mutation::LosesForeignWrite) && self.identity.server.0 == 1 => {
            }
            Verdict::Apply => {
                let mut rest = batch.commands();
                let mut near = Vec::with_capacity(batch.len().min(limits::WARMED_KEYS));
                while self.bring_near(&mut rest, &mut near) {
                    for command in &near {
                        self.machine.execute(*command);
                    }
                }
            }
            Verdict::Gap if is_own => self.gateway.note_gap(),
            Verdict::Gap | Verdict::Duplicate | Verdict::Stranger => {}
        }
    }

    /// Takes the next commands of a batch, and brings near what they will look up. Whether there
    /// are any.
    fn bring_near<'a>(
        &self,
        rest: &mut impl Iterator<Item = BatchCommand<'a>>,
        near: &mut Vec<BatchCommand<'a>>,
    ) -> bool {
        near.clear();
        near.extend(rest.take(limits::WARMED_KEYS));
        self.machine.warm(near);
        !near.is_empty()
    }

    /// A batch of this node's own clients takes effect: each command, and each read in its place
    /// between them, is answered.
    fn apply_own(
        &mut self,
        now: Instant,
        index: LogIndex,
        batch: Batch<'_>,
        pending: Pending,
        effects: &mut Vec<Effect>,
    ) {
        if pending.is_given_up {
            let is_whole = batch.standing == Standing::Whole;
            reached(if is_whole { Mark::GivenUpTookEffect } else { Mark::EmptiedTookEffect });
        }
        let took = now.since(pending.since);
        let Pending { origins, reads, .. } = pending;
        let refused = match batch.standing {
            Standing::Whole | Standing::GivenUp => None,
            Standing::RefusedDisk => Some(GrowthRefusal::Disk),
            Standing::RefusedMemory => Some(GrowthRefusal::Memory),
        };
        if let Some(refused) = refused {
            for origin in &origins {
                self.clients.answer(*origin, refusal(refused), effects);
            }
        }
        // A batch that was given up has no origins left: its clients were told INDOUBT.
        let estimate = self.estimate(now);
        let bucket = Took::of(took);
        let mut next_read = 0;
        let (mut rest, mut position) = (batch.commands(), 0);
        let mut near = Vec::with_capacity(batch.len().min(limits::WARMED_KEYS));
        while self.bring_near(&mut rest, &mut near) {
            for command in near.iter().copied() {
                let (store, luck) = (self.machine.store(), &self.luck);
                let context = ReadContext { store, now: estimate, luck };
                let clients = &mut self.clients;
                next_read = reads.release(next_read, position, &context, clients, effects);
                let before = self.machine.store().revision();
                let sent = in_session::sent(command);
                let reply = self.execute_own(command, sent);
                if let Some(origin) = origins.get(position) {
                    self.note_tracked(*origin, sent, before);
                    self.operations.slowlog.latencies.count(sent.code, bucket);
                    self.clients.answer(*origin, reply, effects);
                }
                position += 1;
            }
        }
        let context = ReadContext { store: self.machine.store(), now: estimate, luck: &self.luck };
        reads.release(next_read, usize::MAX, &context, &mut self.clients, effects);
        self.note_slow_batch(took, estimate, &batch, &origins);
        let slowlog = &mut self.operations.slowlog;
        reads.note_time(took, estimate, &mut self.clients, slowlog);
        for origin in origins.iter().copied().chain(reads.origins()) {
            self.clients.write_applied(origin.client, index);
        }
    }

    /// Carries out a command of this node's own clients, who have sent it as `sent`.
    fn execute_own(&mut self, command: BatchCommand<'_>, sent: BatchCommand<'_>) -> Reply {
        match self.machine.execute(command) {
            // Only this node knows how many of its clients get it.
            Reply::Integer(_) if sent.code == pubsub::PUBLISH => {
                let channel = sent.args.get(1).unwrap_or_default();
                Reply::count(self.clients.listeners.subscribers.receivers(channel))
            }
            reply => reply,
        }
    }

    /// Notes a batch's commands in the slow log, if it took so long until they were answered.
    fn note_slow_batch(
        &mut self,
        took: Duration,
        at: ClusterTime,
        batch: &Batch<'_>,
        origins: &[Origin],
    ) {
        let slowlog = &mut self.operations.slowlog;
        if !slowlog.is_slow(took) {
            return;
        }
        let passed = slowlog.note_all(at, took, origins.len());
        for (command, origin) in batch.commands().zip(origins).skip(passed) {
            let sent = in_session::sent(command);
            let Some(command) = by_code(sent.code) else { continue };
            slowlog.note(at, took, *origin, (command, sent.args), &mut self.clients);
        }
    }

    /// For clients that track what they have read: this one's transaction may have read something,
    /// and what has changed behind `before` is its own doing.
    fn note_tracked(&mut self, origin: Origin, command: BatchCommand<'_>, before: Revision) {
        let trackers = &mut self.clients.listeners.trackers;
        if trackers.is_empty() {
            return;
        }
        trackers.note_author(before, self.machine.store().revision(), origin.client);
        if let Some(row) = by_code(command.code) {
            trackers.note_read(origin, row, command.args);
        }
    }
}
