//! A node's snapshots: taken of its own state, received from a leader, and loaded; all in slices.
//!
//! Design page 3, §3; dissertation §5. Called by `node.rs` at the end of a turn and for what the
//! driver reports. A slice and a piece are bounded, so that a node with ten million keys still
//! answers its peers meanwhile. Reads and writes no file itself; installs nothing unverified.

use bytes::Bytes;

use super::Effect;
use super::node::Node;
use super::pace::Pace;
use super::verify::{Unfit, Verifying};
use crate::config::Config;
use crate::kv::capture::SnapshotProgress;
use crate::kv::loader::Loader;
use crate::kv::machine::SnapshotContext;
use crate::limits;
use crate::proto::entry::{Entry, EntryKind};
use crate::proto::message::GatewayId;
use crate::proto::snapshot::{SnapshotEnd, SnapshotHeader};
use crate::raft::membership::Membership;
use crate::raft::{Piece, Snapshot};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Instant, LogIndex, SnapshotId, SnapshotKind, SnapshotReader};

/// What an entry takes in the log beside its payload, in bytes.
const ENTRY_BYTES: u64 = 64;

/// What a node knows of its snapshots.
#[derive(Default, Debug)]
pub(super) struct Snapshots {
    taking: Option<Taking>,
    verifying: Option<Verifying>,
    loading: Option<Loading>,
    /// Bytes of the log that were applied since the newest snapshot was begun.
    logged_bytes: u64,
    /// Whether somebody asked for one.
    is_asked: bool,
    /// After the disk was full: not before this.
    retry_at: Instant,
}

/// A snapshot that is being taken.
#[derive(Debug)]
struct Taking {
    id: SnapshotId,
    /// What is made and not yet handed to the driver.
    made: Vec<u8>,
    handed: u64,
    written: u64,
    end: Option<SnapshotEnd>,
    is_finishing: bool,
    pace: Pace,
}

/// A snapshot that the state machine is made from.
#[derive(Debug)]
struct Loading {
    id: SnapshotId,
    total: u64,
    /// The memory that it will take, as its header says.
    used_bytes: u64,
    loader: Loader,
    is_reading: bool,
}

impl Taking {
    fn has_room(&self) -> bool {
        self.handed - self.written < limits::SNAPSHOT_WRITE_AHEAD_BYTES
    }

    /// Hands over what is made, as far as there is room: in large writes of whole blocks, but at
    /// the end.
    fn hand_over(&mut self, effects: &mut Vec<Effect>) {
        let least = if self.end.is_some() { 1 } else { limits::SNAPSHOT_WRITE_BYTES };
        while self.made.len() >= least && self.has_room() {
            let rest = self.made.split_off(self.made.len().min(limits::SNAPSHOT_WRITE_BYTES));
            let bytes = Bytes::from(std::mem::replace(&mut self.made, rest));
            let (kind, id, offset) = (SnapshotKind::Own, self.id, self.handed);
            self.handed += bytes.len() as u64;
            effects.push(Effect::WriteSnapshot { kind, id, offset, bytes });
        }
    }

    /// Whether there is nothing in the way of the next slice but its time.
    fn is_ready(&self) -> bool {
        self.end.is_none() && self.made.len() < limits::SNAPSHOT_WRITE_BYTES
    }
}

impl Snapshots {
    /// A node that starts from this snapshot, if there is one.
    pub fn new(newest: Option<&(SnapshotHeader, u64)>) -> Snapshots {
        let loading = newest.map(|(header, total)| Loading::new(header, *total));
        Snapshots { loading, ..Snapshots::default() }
    }

    /// Whether the state machine is being made: it has nothing to show, and applies nothing.
    pub fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// How much of the snapshot that is being loaded was, in percent.
    pub fn loading_percent(&self) -> Option<u64> {
        let loading = self.loading.as_ref()?;
        Some(loading.loader.bytes() * 100 / loading.total.max(1))
    }

    /// Which snapshot is being taken.
    pub fn taking(&self) -> Option<SnapshotId> {
        self.taking.as_ref().map(|taking| taking.id)
    }

    /// Bytes of the snapshot that is being taken that were handed over and are not yet written.
    pub fn held(&self) -> usize {
        self.taking.as_ref().map_or(0, |taking| (taking.handed - taking.written) as usize)
    }

    /// An entry was applied.
    pub fn note_applied(&mut self, entry: &Entry) {
        self.logged_bytes += entry.payload.len() as u64 + ENTRY_BYTES;
    }

    /// When the next slice can be made or loaded without waiting for the driver.
    pub fn deadline(&self, progress: Option<SnapshotProgress>) -> Instant {
        if self.loading.as_ref().is_some_and(|loading| !loading.is_reading) {
            return Instant::ZERO;
        }
        let taking = self.taking.as_ref().filter(|taking| taking.is_ready());
        let next = taking.zip(progress);
        next.map_or(Instant::NEVER, |(taking, progress)| {
            taking.pace.next_at(progress, self.logged_bytes)
        })
    }
}

impl Loading {
    fn new(header: &SnapshotHeader, total: u64) -> Loading {
        let SnapshotHeader { id, used_bytes, .. } = *header;
        Loading { id, total, used_bytes, loader: Loader::new(), is_reading: false }
    }
}

impl Node {
    /// Whether committed entries can be applied: not while the state machine is being loaded, and
    /// not while the old values that a snapshot in the making still needs fill their memory.
    pub(super) fn may_apply(&self) -> bool {
        let progress = self.machine.snapshot_progress();
        let backlog_bytes = progress.map_or(0, |progress| progress.backlog_bytes);
        let is_pressed = backlog_bytes >= limits::SNAPSHOT_BACKLOG_BYTES;
        !self.snapshots.is_loading() && !is_pressed && !self.machine.is_crowded()
    }

    /// The memory that the state takes, or will once it is loaded and what the log holds behind it
    /// is applied; an estimate.
    pub(super) fn used_bytes(&self) -> u64 {
        match &self.snapshots.loading {
            None => self.machine.store().used_bytes() as u64,
            Some(loading) => loading.used_bytes.saturating_add(self.raft.log().bytes() as u64),
        }
    }

    /// Whether the log has grown by as much as may be while none of it can be applied.
    pub(super) fn is_loading_full(&self) -> bool {
        let Some(loading) = &self.snapshots.loading else {
            return false;
        };
        let most_bytes = loading.total.max(limits::LOADING_LOG_BYTES as u64);
        self.raft.log().bytes() as u64 >= most_bytes
    }

    /// `RAFT SNAPSHOT`: one is begun at the end of this turn, unless everything is in one already.
    /// Returns which one is being taken in its place.
    pub(super) fn ask_for_snapshot(&mut self) -> Option<SnapshotId> {
        let taking = self.snapshots.taking();
        self.snapshots.is_asked |= taking.is_none();
        taking
    }

    /// Whether a snapshot was asked for or is being taken.
    pub(super) fn is_snapshot_wanted(&self) -> bool {
        self.snapshots.is_asked || self.snapshots.taking().is_some()
    }

    /// The end of a turn: the next slice of what is being taken or loaded.
    pub(super) fn advance_snapshots(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.machine.free_slice();
        self.load_next(effects);
        if self.is_snapshot_due(now) {
            self.begin_snapshot(now);
        }
        self.take_slice(now, effects);
    }

    /// What earlier turns have applied leaves the log in memory, but for its tail.
    pub(super) fn compact_log(&mut self, now: Instant) {
        let taking = self.snapshots.taking().map(|taking| taking.index);
        self.raft.compact(now, self.machine.last_applied(), taking);
    }

    fn is_snapshot_due(&mut self, now: Instant) -> bool {
        let snapshots = &self.snapshots;
        let is_busy = snapshots.taking.is_some() || snapshots.loading.is_some();
        let pinned = self.raft.pinned_snapshot(now);
        // Another one would leave its file in place, this one the last to do so.
        let is_newest = pinned.is_none() || pinned == self.raft.snapshot().map(|(id, _)| id);
        if is_busy || !is_newest || now < snapshots.retry_at {
            return false;
        }
        let is_urgent = snapshots.is_asked || self.raft.wants_snapshot();
        if is_urgent && !self.has_news() {
            // A follower may wait for another snapshot than the last: that takes another entry.
            let is_idle = self.raft.log().last_index() == self.machine.last_applied();
            if self.raft.wants_snapshot() && is_idle {
                self.raft.propose(now, EntryKind::Empty, Bytes::new());
            }
            self.snapshots.is_asked = false;
            return false;
        }
        let mut threshold = self.snapshot_threshold();
        if self.exports.is_at_work(now) {
            threshold = threshold.saturating_mul(limits::EXPORT_DEFERS);
        }
        let is_grown = self.snapshots.logged_bytes >= threshold;
        is_urgent || (is_grown && pinned.is_none() && self.has_news())
    }

    /// Whether something was applied that the newest snapshot doesn't include.
    fn has_news(&self) -> bool {
        let newest = self.raft.snapshot().map_or(LogIndex::ZERO, |(newest, _)| newest.index);
        self.machine.last_applied() > newest
    }

    /// So many bytes of log make a snapshot due: as many as the last one has at least, so that of
    /// what is written snapshots are never more than half.
    fn snapshot_threshold(&self) -> u64 {
        let last = self.raft.snapshot().map_or(0, |(_, bytes)| bytes);
        self.config.storage.snapshot_log_bytes.max(last)
    }

    /// How much more log makes the next snapshot due.
    pub(super) fn bytes_to_snapshot(&self) -> u64 {
        self.snapshot_threshold().saturating_sub(self.snapshots.logged_bytes)
    }

    fn begin_snapshot(&mut self, now: Instant) {
        let (membership_index, membership) = self
            .raft
            .membership_at(self.machine.last_applied())
            .expect("the first entry of a log is a membership");
        let oldest =
            self.raft.oldest_membership().filter(|_| is_on(Mutation::SnapshotForgetsMembers));
        let (membership_index, membership) = oldest.unwrap_or((membership_index, membership));
        let context = SnapshotContext {
            cluster: self.identity.cluster,
            membership_index,
            membership: membership.encode(),
        };
        let mut made = Vec::new();
        let id = self.machine.begin_snapshot(context, &mut made);
        self.snapshots.logged_bytes = 0;
        self.snapshots.is_asked = false;
        self.snapshots.taking = Some(Taking {
            id,
            made,
            handed: 0,
            written: 0,
            end: None,
            is_finishing: false,
            pace: Pace::new(now, self.snapshot_threshold()),
        });
    }

    /// One slice in a turn, in its time, while the driver keeps up with writing.
    fn take_slice(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let logged_bytes = self.snapshots.logged_bytes;
        let progress = self.machine.snapshot_progress();
        let is_waiting = self.raft.log().last_index() > self.machine.last_applied();
        let Some(taking) = &mut self.snapshots.taking else {
            return;
        };
        taking.hand_over(effects);
        let next_at = progress.map(|progress| taking.pace.next_at(progress, logged_bytes));
        if taking.is_ready() && next_at.is_some_and(|next_at| next_at <= now) {
            let made = taking.made.len();
            let room = limits::SNAPSHOT_WRITE_BYTES + 2 * limits::SNAPSHOT_SLICE_BYTES;
            taking.made.reserve_exact(room.saturating_sub(made));
            taking.end =
                self.machine.snapshot_slice(limits::SNAPSHOT_SLICE_BYTES, &mut taking.made);
            taking.pace.note_slice(now, taking.made.len() - made, logged_bytes, is_waiting);
            taking.hand_over(effects);
        }
        if let Some(end) = taking.end
            && taking.made.is_empty()
            && !taking.is_finishing
        {
            taking.is_finishing = true;
            assert_eq!(taking.handed, end.bytes, "all that was made was handed over");
            let (kind, id, length) = (SnapshotKind::Own, taking.id, taking.handed);
            effects.push(Effect::FinishSnapshot { kind, id, length });
        }
    }

    /// Gives up the snapshot that is being taken.
    fn abandon_own(&mut self) {
        self.machine.abandon_snapshot();
        self.snapshots.taking = None;
    }

    /// The driver has written a snapshot up to here, not durably.
    pub(super) fn snapshot_written(&mut self, kind: SnapshotKind, id: SnapshotId, through: u64) {
        match kind {
            SnapshotKind::Own => {
                let taking = self.snapshots.taking.as_mut().filter(|taking| taking.id == id);
                if let Some(taking) = taking {
                    taking.written = taking.written.max(through);
                }
            }
            SnapshotKind::Received => self.raft.piece_written(id, through),
        }
    }

    /// The disk is full: the driver has given the snapshot up.
    pub(super) fn snapshot_full(&mut self, now: Instant, kind: SnapshotKind, id: SnapshotId) {
        match kind {
            SnapshotKind::Own if self.snapshots.taking() == Some(id) => {
                self.abandon_own();
                self.snapshots.retry_at = now.after(limits::SNAPSHOT_RETRY);
                // What this one would have replaced is still there.
                self.snapshots.logged_bytes = self.snapshot_threshold();
            }
            SnapshotKind::Own => {}
            SnapshotKind::Received => {
                self.snapshots.verifying.take_if(|verifying| verifying.id() == id);
                self.raft.snapshot_full(now, id);
            }
        }
    }

    /// A snapshot is durable under its name.
    pub(super) fn snapshot_durable(
        &mut self,
        now: Instant,
        kind: SnapshotKind,
        id: SnapshotId,
        effects: &mut Vec<Effect>,
    ) {
        match kind {
            SnapshotKind::Own => {
                let taken = self.snapshots.taking.take_if(|taking| taking.id == id);
                // One that was given up at the last moment has been overtaken by a later one.
                let Some(Taking { end: Some(end), .. }) = taken else { return };
                self.raft.snapshot_taken(id, end.bytes);
                self.operations.last_save = self.estimate(now);
            }
            SnapshotKind::Received => {
                let received = self.snapshots.verifying.take_if(|verifying| verifying.id() == id);
                let Some((header, total)) = received.and_then(Verifying::finished) else { return };
                self.install(now, &header, total, effects);
            }
        }
        effects.push(Effect::CompactLog { through: id.index });
    }

    /// A received snapshot is verified and durable.
    fn install(
        &mut self,
        now: Instant,
        header: &SnapshotHeader,
        total: u64,
        effects: &mut Vec<Effect>,
    ) {
        let snapshot = snapshot_of(header, total);
        if !self.raft.install(now, &snapshot) {
            return;
        }
        if self.snapshots.taking.is_some() {
            self.abandon_own();
            effects.push(Effect::AbandonSnapshot { kind: SnapshotKind::Own });
        }
        let own = self.gateway.id();
        let newest = header.gateways.iter().find(|(gateway, ..)| Some(*gateway) == own);
        if let Some((_, epoch, seq)) = newest {
            self.gateway.overtaken(*epoch, *seq, &mut self.clients, effects);
        }
        self.snapshots.logged_bytes = 0;
        // What was there before goes first: both would not fit in memory.
        let unfinished = self.snapshots.loading.replace(Loading::new(header, total));
        if let Some(machine) = unfinished.and_then(|loading| loading.loader.give_up()) {
            self.machine.bury(machine);
        }
        self.machine.discard();
    }

    /// A piece of a snapshot came from the leader: it is checked before it is written, and the
    /// whole before it is made durable.
    pub(super) fn receive_piece(&mut self, piece: Piece, effects: &mut Vec<Effect>) {
        let Piece { snapshot: id, total, offset, bytes } = piece;
        if offset == 0 {
            self.snapshots.verifying =
                Some(Verifying::new(self.identity.cluster, self.known_command_set(), id, total));
        }
        let Some(verifying) = self.snapshots.verifying.as_mut().filter(|held| held.id() == id)
        else {
            return;
        };
        let kind = SnapshotKind::Received;
        match verifying.check(&bytes) {
            Ok(is_whole) => {
                effects.push(Effect::WriteSnapshot { kind, id, offset, bytes });
                if is_whole {
                    effects.push(Effect::FinishSnapshot { kind, id, length: total });
                }
            }
            Err(Unfit::Outdated(in_force)) => self.note_in_force(in_force),
            Err(_) => {
                self.counters.bad_snapshots += 1;
                reached(Mark::SnapshotDoubted);
                self.snapshots.verifying = None;
                effects.push(Effect::AbandonSnapshot { kind });
                self.raft.snapshot_refused(id);
            }
        }
    }

    /// Entries came that make the snapshot that is being received useless.
    pub(super) fn abandon_received(&mut self, effects: &mut Vec<Effect>) {
        self.snapshots.verifying = None;
        effects.push(Effect::AbandonSnapshot { kind: SnapshotKind::Received });
    }

    /// A piece of a durable snapshot was read; `None` where the file is gone.
    pub(super) fn snapshot_read(
        &mut self,
        now: Instant,
        id: SnapshotId,
        offset: u64,
        bytes: Option<Bytes>,
        reader: SnapshotReader,
        effects: &mut Vec<Effect>,
    ) {
        match reader {
            SnapshotReader::Peer(to) => self.raft.snapshot_read(now, to, id, offset, bytes),
            SnapshotReader::Client => self.export_read(id, offset, bytes, effects),
            SnapshotReader::Load => self.load_piece(id, offset, bytes, effects),
        }
    }

    /// Asks for the next piece of what is being loaded, once what was there before is gone.
    fn load_next(&mut self, effects: &mut Vec<Effect>) {
        if self.machine.has_graveyard() {
            return;
        }
        let Some(loading) = self.snapshots.loading.as_mut().filter(|held| !held.is_reading) else {
            return;
        };
        let offset = loading.loader.bytes();
        let left = usize::try_from(loading.total - offset).unwrap_or(usize::MAX);
        let length = left.min(limits::SNAPSHOT_LOAD_BYTES);
        loading.is_reading = true;
        let (id, reader) = (loading.id, SnapshotReader::Load);
        effects.push(Effect::ReadSnapshot { id, offset, length, reader });
    }

    fn load_piece(
        &mut self,
        id: SnapshotId,
        offset: u64,
        bytes: Option<Bytes>,
        effects: &mut Vec<Effect>,
    ) {
        let loading = self.snapshots.loading.as_mut();
        // A newer one may have been installed since that was asked for.
        let Some(loading) = loading.filter(|loading| loading.id == id) else {
            return;
        };
        let bytes = bytes.expect("the newest snapshot is kept");
        assert_eq!(offset, loading.loader.bytes(), "one piece is asked for at a time");
        loading.is_reading = false;
        if let Err(error) = loading.loader.feed(&bytes) {
            panic!("snapshot {id:?} is damaged, and was whole when it was checked: {error}");
        }
        if loading.loader.bytes() == loading.total {
            self.finish_loading(effects);
        }
    }

    /// The state machine is made: everything goes on behind the snapshot.
    fn finish_loading(&mut self, effects: &mut Vec<Effect>) {
        let Loading { id, loader, .. } = self.snapshots.loading.take().expect("it is being loaded");
        let (header, machine) = match loader.finish() {
            Ok(finished) => finished,
            Err(error) => panic!("snapshot {id:?} was whole when it was checked: {error}"),
        };
        assert_eq!(header.id, id, "a snapshot is what its name says");
        self.note_in_force(header.command_set);
        assert!(!self.machine.has_graveyard(), "it was empty before the first piece was read");
        self.machine = machine;
        self.listeners_begin_anew(effects);
        let identity = &self.identity;
        let own = header.gateways.iter().map(|(gateway, ..)| *gateway).find(|gateway| {
            (gateway.server, gateway.incarnation) == (identity.server, identity.incarnation)
        });
        self.gateway.rename(own, false, &mut self.clients, effects);
    }
}

/// How much of the log stays in memory at least once it was applied.
pub(super) fn log_tail_bytes(config: &Config) -> usize {
    let share = config.storage.snapshot_log_bytes / limits::LOG_TAIL_SHARE;
    share.min(limits::LOG_TAIL_BYTES) as usize
}

/// What consensus has to know of a snapshot.
pub(super) fn snapshot_of(header: &SnapshotHeader, bytes: u64) -> Snapshot {
    let membership = Membership::decode(&header.membership)
        .expect("a member took the snapshot, and checksums have guarded it since");
    Snapshot {
        id: header.id,
        bytes,
        time: header.clock,
        membership_index: header.membership_index,
        membership,
    }
}

/// The gateways of a membership's members.
pub(super) fn gateways(membership: &Membership) -> impl Iterator<Item = GatewayId> + Clone {
    let met = membership.members().iter().filter(|member| member.is_met());
    met.map(|member| GatewayId {
        server: member.id,
        incarnation: member.incarnation,
        admitted: member.admitted,
    })
}
