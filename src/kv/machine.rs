//! The state machine: the store, the gateways' table, and how far the log was applied.
//!
//! Design 2-client-path §2 and §4, and 3-storage §3 (snapshots). The same entries give the same
//! state on every node. Called by `node/apply.rs`, entry by entry; decides nothing by a clock of
//! this node.

use bytes::Bytes;

use super::capture::SnapshotProgress;
use super::command::{self, Handler, WriteContext};
use super::digest::Digest;
use super::gateways::{Gateways, Verdict};
use super::in_session;
use super::store::Store;
use crate::limits;
use crate::proto::batch::BatchCommand;
use crate::proto::entry::Entry;
use crate::proto::message::{BatchId, GatewayId};
use crate::proto::reply::Reply;
use crate::proto::snapshot::{Section, SnapshotEnd, SnapshotHeader, SnapshotRecord};
use crate::testing::{Mutation, is_on};
use crate::types::{ClusterId, CommandSet, LogIndex, SnapshotId};

/// What the log has made of nothing.
#[derive(Default, Debug)]
pub struct StateMachine {
    store: Store,
    gateways: Gateways,
    /// The last entry applied.
    last: SnapshotId,
    digest: Digest,
    command_set: CommandSet,
}

/// What a snapshot's header holds and the state machine does not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotContext {
    /// The cluster.
    pub cluster: ClusterId,
    /// The index of the newest membership entry that was applied; 0 where there was none.
    pub membership_index: LogIndex,
    /// That membership, as its entry has it.
    pub membership: Bytes,
}

impl StateMachine {
    /// The store, to read.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// `lastApplied`: entries up to here are in the store.
    pub fn last_applied(&self) -> LogIndex {
        self.last.index
    }

    /// The running digest of everything applied: nodes that have applied the same entries have the
    /// same. To be asked for between two entries.
    pub fn digest(&self) -> u64 {
        self.digest.value(&self.store)
    }

    /// The version of the command set that is in force.
    pub fn command_set(&self) -> CommandSet {
        self.command_set
    }

    /// An entry says that this version of the command set is in force from here on. It never falls.
    pub fn raise(&mut self, set: CommandSet) {
        self.command_set = self.command_set.max(set);
    }

    /// Begins with an entry: moves the clock, and removes some of the keys that are dead by it.
    pub fn begin(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.last.index.next(), "monotone: entries are applied in order");
        self.digest.begin(entry, &self.store);
        self.last = SnapshotId { index: entry.index, term: entry.term };
        self.store.advance_clock(entry.time);
        self.store.expire_due(limits::EXPIRE_KEYS);
        self.store.sessions.expire(self.store.clock());
    }

    /// Whether somebody is told of changes: if not, fewer are kept.
    pub fn bound_history(&mut self, is_heard: bool) {
        self.store.bound_history(is_heard);
    }

    /// The members' gateways are these from now on.
    pub fn set_members(&mut self, members: impl Iterator<Item = GatewayId>) {
        self.gateways.set_members(members);
    }

    /// Decides whether a batch takes effect.
    pub fn admit(&mut self, id: BatchId) -> Verdict {
        self.gateways.admit(id)
    }

    /// Brings near what these commands are about to look up, as far as that is no more than
    /// [`limits::WARMED_KEYS`]. Changes nothing.
    pub fn warm(&self, commands: &[BatchCommand<'_>]) {
        let mut keys: [&[u8]; limits::WARMED_KEYS] = [b""; limits::WARMED_KEYS];
        let mut count = 0;
        for command in commands {
            let command = in_session::sent(*command);
            let Some(row) = command::by_code(command.code) else { continue };
            for (place, key) in keys[count..].iter_mut().zip(row.keys.of(command.args)) {
                *place = key;
                count += 1;
            }
        }
        self.store.warm(&keys[..count]);
    }

    /// Carries out one command of a batch that takes effect.
    pub fn execute(&mut self, command: BatchCommand<'_>) -> Reply {
        let Some(row) = command::by_code(command.code) else {
            // No gateway sends what is not in force, and a node that doesn't know what is has ended
            // (`node/versions.rs`). What stands here in spite of it, all nodes skip alike.
            return Reply::Error("ERR this version does not know the command".into());
        };
        let Handler::Write { apply, .. } = row.handler else {
            return Reply::Error("ERR a batch carries only writes".into());
        };
        self.store.begin_command(command.code);
        let mut context = WriteContext { store: &mut self.store };
        apply(&mut context, command.args).unwrap_or_else(|error| error.reply())
    }

    /// Begins a snapshot of the state as it is, between two entries; appends the file's first
    /// bytes to `out`. Entries can be applied meanwhile: they are not part of it. Returns which
    /// snapshot it is: that of the last entry applied.
    ///
    /// # Panics
    /// One is being taken already.
    pub fn begin_snapshot(&mut self, context: SnapshotContext, out: &mut Vec<u8>) -> SnapshotId {
        let SnapshotContext { cluster, membership_index, membership } = context;
        let mut id = self.last;
        if is_on(Mutation::SnapshotAheadOfApplied) {
            id.index = id.index.next();
        }
        let gateways = match is_on(Mutation::SnapshotForgetsGateways) {
            true => Vec::new(),
            false => self.gateways.rows(),
        };
        let header = SnapshotHeader {
            cluster,
            id,
            membership_index,
            membership,
            clock: self.store.clock(),
            revision: self.store.revision(),
            digest: self.digest(),
            used_bytes: self.store.used_bytes() as u64,
            command_set: self.command_set,
            gateways,
        };
        self.store.begin_capture(&header, out);
        id
    }

    /// Appends the next bytes of the snapshot file to `out`, behind those of the calls before: some
    /// `max_bytes` (a record of the largest size more at most), or fewer where
    /// [`limits::SNAPSHOT_SLICE_KEYS`] ends it first; perhaps none. Returns the file's counts once
    /// it is whole: then the snapshot is no longer being taken.
    ///
    /// # Panics
    /// None is being taken.
    pub fn snapshot_slice(&mut self, max_bytes: usize, out: &mut Vec<u8>) -> Option<SnapshotEnd> {
        self.store.capture_slice(max_bytes, out)
    }

    /// Gives up the snapshot that is being taken, if there is one.
    pub fn abandon_snapshot(&mut self) {
        self.store.abandon_capture();
    }

    /// How far the snapshot that is being taken has come.
    pub fn snapshot_progress(&self) -> Option<SnapshotProgress> {
        self.store.capture_progress()
    }

    /// Drops all records without a trace: what remains is no state any more, and another is about
    /// to take its place. Their memory is given back by [`free_slice`](StateMachine::free_slice).
    pub fn discard(&mut self) {
        self.store.discard();
    }

    /// Takes a state machine that nobody has seen, to give its memory back.
    pub fn bury(&mut self, other: StateMachine) {
        self.store.bury(other.store);
    }

    /// Whether records have left the store, all at once, whose memory is not yet given back.
    pub fn has_graveyard(&self) -> bool {
        !self.store.graveyard().is_empty()
    }

    /// Whether so many have that nothing more is to be applied before some are gone.
    pub fn is_crowded(&self) -> bool {
        self.store.graveyard().is_crowded()
    }

    /// Gives back the memory of some of them: at most [`limits::DISCARD_KEYS`] and, but for one
    /// value, [`limits::DISCARD_BYTES`].
    pub fn free_slice(&mut self) {
        self.store.free_slice();
    }

    /// What a snapshot's header says: a state machine that lacks nothing but its records.
    pub(super) fn of_snapshot(header: &SnapshotHeader) -> StateMachine {
        StateMachine {
            store: Store::of_snapshot(header),
            gateways: Gateways::of_rows(&header.gateways),
            last: header.id,
            command_set: header.command_set,
            digest: match is_on(Mutation::SnapshotWithoutDigest) {
                true => Digest::default(),
                false => Digest::of_snapshot(header.digest),
            },
        }
    }

    /// Takes over a snapshot's section; `None` where it is none.
    pub(super) fn restore_section(&mut self, section: Section, bytes: &[u8]) -> Option<()> {
        match section {
            Section::Sessions => self.store.sessions.restore(bytes),
            Section::Leases => self.store.leases.restore(bytes),
        }
    }

    /// Puts a snapshot's record in. `false` if its key was there already.
    pub(super) fn restore(&mut self, record: SnapshotRecord<'_>) -> bool {
        self.store.restore(record)
    }

    /// That was the last one.
    pub(super) fn restored(&mut self) {
        self.store.restored();
    }
}
