//! The node: [`Node::handle`] and the end of a turn.
//!
//! Called by the drivers. Control flow lives here; what each part does, in the file of that part:
//! `pipeline` (requests come in), `gateway` and `reads` (they wait), `apply` (they take effect),
//! `clients` (they are answered), `connection` and `info` (what a node answers by itself),
//! `handshake` (who may connect).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::admin::Requested;
use super::clients::Clients;
use super::divergence::Checkpoints;
use super::export::Exports;
use super::gateway::Gateway;
use super::lineage::Descent;
use super::parking::ParkedBytes;
use super::pipeline::without_growth;
use super::reads::Reads;
use super::server::Operations;
use super::snapshots::{Snapshots, log_tail_bytes, snapshot_of};
use super::versions::Versions;
use super::{Effect, Facts, Input, Role, SnapshotReader, Status};
use crate::config::Config;
use crate::kv::command::ReadContext;
use crate::kv::luck::Luck;
use crate::kv::machine::StateMachine;
use crate::limits;
use crate::proto::batch::Batch;
use crate::proto::entry::{EntryKind, Recovered};
use crate::proto::message::{Envelope, GrowthRefusal, Message, Packet};
use crate::raft::{Action, Founder, Raft, RoleName, Setup};
use crate::testing::{Mark, reached};
use crate::types::{ClusterTime, Identity, Incarnation, Instant, LogIndex, Room, ServerId, Term};

/// A batch or a read request that was not answered for so many election timeouts is sent again.
const RESEND_ELECTION_TIMEOUTS: u32 = 2;

/// How long a node that was asked to stop waits for what is undecided.
const STOP_PATIENCE: Duration = Duration::from_millis(1500);

/// Figures for `INFO`.
#[derive(Default, Debug)]
pub(super) struct Counters {
    /// Commands taken from clients.
    pub commands: u64,
    /// Packets that were meant for someone else.
    pub misdirected: u64,
    /// Forwarded batches that make no sense.
    pub malformed: u64,
    /// Snapshots from a leader that were damaged, or not what they were called.
    pub bad_snapshots: u64,
}

/// What must never regress.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Monotone {
    term: Term,
    voted_for: Option<ServerId>,
    commit_index: LogIndex,
    last_applied: LogIndex,
}

/// One node of the cluster.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) identity: Identity,
    pub(super) descent: Descent,
    /// The newest process of every peer that this data directory has met.
    pub(super) known_peers: BTreeMap<ServerId, Identity>,
    pub(super) raft: Raft,
    pub(super) machine: StateMachine,
    pub(super) versions: Versions,
    pub(super) clients: Clients,
    pub(super) gateway: Gateway,
    pub(super) reads: Reads,
    pub(super) luck: Luck,
    /// Requests about the membership.
    pub(super) requested: Requested,
    pub(super) snapshots: Snapshots,
    pub(super) checkpoints: Checkpoints,
    pub(super) exports: Exports,
    pub(super) operations: Operations,
    /// CONFIG SET maxclients goes up to this.
    pub(super) most_clients: usize,
    pub(super) parked_bytes: ParkedBytes,
    pub(super) facts: Facts,
    pub(super) counters: Counters,
    pub(super) started: Instant,
    /// Why this node takes part in nothing.
    pub(super) recovering_reason: Option<String>,
    /// Whether its directory was found out as an old copy while it runs: no admission helps until
    /// its files were set aside.
    pub(super) is_old_copy: bool,
    /// What others say who don't know this node as a member, until one of them does.
    pub(super) outcast_reason: Option<String>,
    /// The newest membership, by its index, of a server that knows this node on its directory.
    pub(super) named_as_of: LogIndex,
    /// Whether somebody knows this node on another directory, though its own log names this one.
    pub(super) is_doubted: bool,
    /// Who knew a later membership than this node, and its index.
    pub(super) guests: BTreeMap<ServerId, LogIndex>,
    /// Lines for the log that the driver has not taken yet.
    pub(super) notices: Vec<String>,
    room: Room,
    /// The term and leader that what is pending was sent to.
    followed: (Term, Option<ServerId>),
    stop_deadline: Option<Instant>,
    /// The stop deadline has passed: everyone was answered, decided or not.
    is_abandoned: bool,
    actions: Vec<Action>,
    monotone: Monotone,
}

impl Node {
    /// A node that starts from what its data directory holds.
    pub fn recover(config: &Config, recovered: Recovered, seed: u64, now: Instant) -> Node {
        let founder = |node: &crate::config::NodeConfig| Founder {
            id: node.id,
            peer: node.peer.clone(),
            client: node.client.clone(),
            http: node.http.clone().unwrap_or_default(),
        };
        // Who is to join a cluster founds none; nor does who has forgotten what it promised: else
        // all nodes of a cluster, each with a damaged disk, would found an empty one.
        let may_found = config.join.is_empty() && recovered.recovering.is_none();
        let founders = config.cluster.nodes.iter().filter(|_| may_found);
        let identity = recovered.identity;
        let snapshots = Snapshots::new(recovered.snapshot.as_ref());
        let snapshot = recovered.snapshot.map(|(header, bytes)| snapshot_of(&header, bytes));
        let setup = Setup {
            id: identity.server,
            incarnation: identity.incarnation,
            config: config.raft.clone(),
            founders: founders.map(founder).collect(),
            hard_state: recovered.hard_state,
            snapshot,
            log_tail_bytes: log_tail_bytes(config),
            entries: recovered.entries,
            seed,
        };
        let known = recovered.known_peers.into_iter();
        let mut node = Node {
            config: config.clone(),
            identity,
            descent: Descent::new(recovered.lineage),
            known_peers: known.map(|peer| (peer.server, peer)).collect(),
            raft: Raft::new(setup, now),
            machine: StateMachine::default(),
            versions: Versions::default(),
            clients: Clients::default(),
            gateway: Gateway::new(identity.boot),
            luck: Luck::new(seed),
            reads: Reads::new(identity.boot),
            requested: Requested::new(identity.boot),
            snapshots,
            checkpoints: Checkpoints::default(),
            exports: Exports::default(),
            operations: Operations::default(),
            most_clients: config.limits.max_clients,
            parked_bytes: ParkedBytes::default(),
            facts: Facts::default(),
            counters: Counters::default(),
            started: now,
            recovering_reason: None,
            is_old_copy: false,
            outcast_reason: None,
            named_as_of: LogIndex::ZERO,
            is_doubted: false,
            guests: BTreeMap::new(),
            notices: Vec::new(),
            room: Room::Ample,
            followed: (Term::ZERO, None),
            stop_deadline: None,
            is_abandoned: false,
            actions: Vec::new(),
            monotone: Monotone::default(),
        };
        if let Some(reason) = recovered.recovering {
            node.lost_disk(now, reason);
        }
        node
    }

    /// Handles one input. It cannot fail: decoders reject malformed input before it gets here, and
    /// a disk error ends the process. What has to be done about it is appended to `effects`, most
    /// of it at [`Input::EndOfTurn`].
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick { wall } => {
                self.raft.tick(now, wall);
                self.time_out(now, effects);
            }
            Input::PeerUp { peer, incarnation } => {
                self.peer_up(now, peer, incarnation);
                self.tell_last_checkpoint(peer, effects);
            }
            Input::PeerDown { peer } => self.raft.peer_down(now, peer),
            Input::Receive { packet } => self.receive(now, packet, effects),
            Input::ClientArrived { client, info } => self.clients.arrive(now, client, info),
            Input::Requests { batch } => self.take_requests(now, &batch, effects),
            Input::Drained { client } => self.clients.drained(client),
            Input::ClientGone { client } => {
                self.drop_parked(client);
                self.clients.leave(client);
            }
            Input::Persisted { through } => self.raft.persisted(now, through),
            Input::SnapshotWritten { kind, id, through } => {
                self.snapshot_written(kind, id, through);
            }
            Input::SnapshotDurable { kind, id } => self.snapshot_durable(now, kind, id, effects),
            Input::SnapshotFull { kind, id } => self.snapshot_full(now, kind, id),
            Input::SnapshotRead { id, offset, bytes, reader } => {
                self.snapshot_read(now, id, offset, bytes, reader, effects);
            }
            Input::LogRoom { room } => self.room = room,
            Input::Observed { facts } => self.facts = facts,
            Input::EndOfTurn => self.end_turn(now, effects),
            Input::Stop => self.stop_deadline = Some(now.after(STOP_PATIENCE)),
        }
        self.check_monotone();
    }

    /// When the next [`Input::Tick`] and [`Input::EndOfTurn`] are wanted.
    pub fn deadline(&self, now: Instant) -> Instant {
        let may_go_on = self.has_unapplied() && self.may_apply();
        let may_go_on = may_go_on || self.machine.has_graveyard();
        if self.clients.has_unparked() || !self.clients.listings.is_empty() || may_go_on {
            return Instant::ZERO;
        }
        let timeout = self.config.client.request_timeout;
        let resend_after = self.resend_after();
        let undecided = self.gateway.deadline(timeout);
        let resend = self.resend_deadline();
        let reads = self.reads.deadline(timeout, resend_after);
        let requested = self.requested.deadline(timeout, resend_after);
        let stop = self.stop_deadline.filter(|_| !self.is_abandoned).unwrap_or(Instant::NEVER);
        let expiry = self.expiry_deadline(now);
        let snapshots = self.snapshots.deadline(self.machine.snapshot_progress());
        let listeners = self.listeners_deadline();
        let holding = self.operations.holding.deadline();
        let own = self.raft.deadline().min(snapshots).min(listeners).min(holding);
        own.min(undecided).min(resend).min(reads).min(requested).min(stop).min(expiry)
    }

    /// Whether clients' sockets are to be read: not while the gateway's window is full, or the
    /// process is about to end.
    pub fn accepts_requests(&self) -> bool {
        self.gateway.has_room()
            && self.reads.has_room()
            && self.parked_bytes.has_room()
            && self.stop_deadline.is_none()
    }

    /// Whether a node that was asked to stop has handed over, and owes nobody an answer.
    pub fn may_exit(&self) -> bool {
        let own = self.identity.server;
        let has_successor = self.raft.membership().voters().any(|id| id != own);
        let is_done = self.gateway.is_idle() && self.reads.is_idle() && self.requested.is_idle();
        let has_handed_over = !(self.raft.is_leader() && has_successor);
        self.is_abandoned || (self.stop_deadline.is_some() && is_done && has_handed_over)
    }

    /// This node at a glance.
    pub fn status(&self) -> Status {
        let role = match self.raft.role() {
            _ if self.raft.is_recovering() => Role::Recovering,
            RoleName::Follower if self.is_brought_up() => Role::Learner,
            RoleName::Follower | RoleName::PreCandidate if self.was_removed() => Role::Removed,
            RoleName::Follower if self.is_learner() => Role::Learner,
            RoleName::Follower => Role::Follower,
            RoleName::PreCandidate => Role::PreCandidate,
            RoleName::Candidate => Role::Candidate,
            RoleName::Leader => Role::Leader,
        };
        Status {
            server: self.identity.server,
            incarnation: self.identity.incarnation,
            role,
            current_term: self.raft.current_term(),
            leader: self.raft.leader(),
            commit_index: self.raft.commit_index(),
            last_applied: self.machine.last_applied(),
            last_log_index: self.raft.log().last_index(),
            first_log_index: self.raft.log().first_index(),
            snapshot: self.raft.snapshot(),
            taking: self.snapshots.taking(),
            receiving: self.raft.receiving(),
            loading_percent: self.snapshots.loading_percent(),
        }
    }

    /// What consensus knows; for tests and checkers.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// What the log has made; for tests and checkers.
    pub fn machine(&self) -> &StateMachine {
        &self.machine
    }

    /// The cluster clock as far as this node knows it, not behind the state machine's.
    pub(super) fn estimate(&self, now: Instant) -> ClusterTime {
        let clock = self.machine.store().clock();
        self.raft.cluster_time(now).map_or(clock, |estimate| estimate.max(clock))
    }

    pub(super) fn resend_after(&self) -> Duration {
        self.config.raft.election_timeout.1 * RESEND_ELECTION_TIMEOUTS
    }

    /// When pending batches are sent again. What a leader has appended is in its log, unless a gap
    /// shows that it isn't.
    fn resend_deadline(&self) -> Instant {
        if self.raft.is_leader() && !self.gateway.has_seen_gap() {
            return Instant::NEVER;
        }
        self.gateway.resend_deadline(self.resend_after(), self.config.raft.heartbeat)
    }

    fn peer_up(&mut self, now: Instant, peer: ServerId, incarnation: Incarnation) {
        self.raft.peer_up(now, peer, incarnation);
        self.requested.forget_stray(peer);
        self.outcast_reason = None;
        if self.raft.leader() == Some(peer) {
            self.gateway.resend();
            self.reads.start_over(self.raft.commit_index());
        }
    }

    fn receive(&mut self, now: Instant, packet: Packet, effects: &mut Vec<Effect>) {
        let Packet { envelope, message } = packet;
        if !self.is_for_us(envelope, &message) {
            self.counters.misdirected += 1;
            return;
        }
        let from = envelope.from;
        self.note_admission(from, &message);
        match message {
            Message::Forward { batch } => self.receive_forward(now, from, batch),
            Message::ReadIndex { id } if self.raft.is_leader() => self.reads.remote_asks(from, id),
            Message::ReadIndex { .. } => {}
            Message::ReadIndexResponse { id, index } => self.reads.answered(id, index),
            Message::Admin { id, term, words } => {
                self.receive_admin(now, from, id, term, &words, effects);
            }
            Message::AdminResponse { id, answer } => {
                self.receive_admin_response(id, &answer, effects);
            }
            Message::Checkpoint { index, digest } => {
                self.receive_checkpoint(from, index, digest, effects);
            }
            message => self.raft.receive(now, from, message),
        }
    }

    /// A gateway's batch, to be appended if this node leads; if it doesn't, the gateway sends it
    /// again to whoever does.
    fn receive_forward(&mut self, now: Instant, from: ServerId, payload: Bytes) {
        // A larger entry would fit no AppendEntries: once appended, it would wedge replication.
        let fits = payload.len() <= limits::BATCH_BYTES;
        match Batch::decode(&payload) {
            Some(batch) if fits && batch.id.gateway.server == from => {
                self.append_batch(now, payload);
            }
            _ => self.counters.malformed += 1,
        }
    }

    /// Appends a batch if this node leads. One that grows the store while growth is refused is
    /// appended emptied, with the refusal as its result.
    fn append_batch(&mut self, now: Instant, payload: Bytes) {
        if !self.raft.accepts_proposals() {
            return;
        }
        let payload = match self.raft.growth_refusal() {
            Some(refused) => without_growth(payload, refused),
            None => payload,
        };
        self.raft.propose(now, EntryKind::Batch, payload);
    }

    /// A tick found something undecided for too long, or the process is about to end.
    fn time_out(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let resend_after = self.resend_after();
        let is_stopping = self.stop_deadline.is_some_and(|deadline| now >= deadline);
        let timeout = if is_stopping { Duration::ZERO } else { self.config.client.request_timeout };
        self.gateway.time_out(now, timeout, &mut self.clients, effects);
        self.reads.time_out(now, timeout, &mut self.clients, effects);
        self.requested.time_out(now, timeout, &mut self.clients, effects);
        self.reads.ask_overdue_again(now, resend_after);
        if now >= self.resend_deadline() {
            self.gateway.resend();
        }
        self.is_abandoned |= is_stopping;
    }

    /// The end of a turn: what is committed takes effect, what is confirmed is answered, and what
    /// came in is sent.
    fn end_turn(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.note_leadership();
        self.compact_log(now);
        self.apply_committed(now, effects);
        self.stop_if_outdated(effects);
        self.release_reads(now, effects);
        self.release_held(now, effects);
        self.take_parked(now, effects);
        self.advance_listings(effects);
        if !self.gathers_on() {
            self.gateway.end_batch();
        }
        self.reads.end_turn();
        let takes_nothing = self.room == Room::Exhausted || self.is_loading_full();
        self.raft.set_room(self.own_growth_refusal(), takes_nothing);
        if self.stop_deadline.is_some() || self.is_loading_full() {
            self.raft.hand_over(now);
        }
        self.send_batches(now, effects);
        self.ask_for_reads(now, effects);
        self.progress_admin(now, effects);
        self.expire_keys(now);
        self.raise_command_set(now);
        self.advance_snapshots(now, effects);
        self.flush_raft(now, effects);
        // Where this node is its own majority, the round that was just begun is confirmed already.
        self.release_reads(now, effects);
        self.feed_listeners(now, effects);
        self.clients.end_turn();
    }

    /// Whether the commands of the turns to come join this turn's batch. While a leader's last entry
    /// is on its way to the disk, another one would wait behind it on every disk, and cost each node
    /// a turn: what comes meanwhile makes one entry. A leader whose disk is slower than those of a
    /// majority doesn't keep it back; nor do entries that others forward behind that last one.
    fn gathers_on(&mut self) -> bool {
        let arrived = self.raft.durable_index().max(self.raft.commit_index());
        let behind = self.gateway.gathers_behind(self.raft.log().last_index());
        self.raft.is_leader() && behind.is_some_and(|last| arrived < last)
    }

    /// Under a new leader, or in a new term, everything pending is sent and asked again.
    fn note_leadership(&mut self) {
        let follows = (self.raft.current_term(), self.raft.leader());
        if follows == self.followed {
            return;
        }
        self.followed = follows;
        self.gateway.resend();
        self.reads.start_over(self.raft.commit_index());
        self.reads.forget_remote();
    }

    fn release_reads(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.raft.is_leader() {
            let round = self.raft.confirmed_round();
            self.reads.round_confirmed(round);
            for (from, id, index) in self.reads.remote_confirmed(round) {
                self.send(from, Message::ReadIndexResponse { id, index }, effects);
            }
        }
        if self.snapshots.is_loading() {
            // What the state machine holds meanwhile is no state.
            return;
        }
        let (store, estimate) = (self.machine.store(), self.estimate(now));
        let context = ReadContext { store, now: estimate, luck: &self.luck };
        let last_applied = self.machine.last_applied();
        let (clients, slowlog) = (&mut self.clients, &mut self.operations.slowlog);
        self.reads.release(now, last_applied, &context, clients, slowlog, effects);
    }

    /// Where a batch can go now, if anywhere.
    fn leader_in_reach(&self) -> Option<ServerId> {
        let leader = self.raft.leader()?;
        let is_in_reach = if leader == self.identity.server {
            self.raft.accepts_proposals()
        } else {
            self.raft.has_link(leader)
        };
        is_in_reach.then_some(leader)
    }

    fn send_batches(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(leader) = self.leader_in_reach() else {
            return;
        };
        for payload in self.gateway.take_resend(now) {
            self.dispatch(now, leader, payload, effects);
        }
        while let Some(payload) = self.gateway.number_next(now) {
            self.dispatch(now, leader, payload, effects);
        }
    }

    fn dispatch(
        &mut self,
        now: Instant,
        leader: ServerId,
        payload: Bytes,
        effects: &mut Vec<Effect>,
    ) {
        if leader == self.identity.server {
            self.append_batch(now, payload);
        } else {
            self.send(leader, Message::Forward { batch: payload }, effects);
        }
    }

    fn ask_for_reads(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(leader) = self.raft.leader() else {
            return;
        };
        if leader != self.identity.server {
            if self.reads.has_fresh() && self.raft.has_link(leader) {
                let id = self.reads.ask(now);
                self.send(leader, Message::ReadIndex { id }, effects);
            }
            return;
        }
        if !self.reads.has_fresh() && !self.reads.has_early() {
            return;
        }
        match self.raft.request_read() {
            Some((round, index)) => {
                let index = index.max(self.expire_overdue(now));
                self.reads.wait_for_round(round, index);
                self.reads.remote_wait_for_round(round, index);
            }
            None => reached(Mark::EarlyRead),
        }
    }

    fn flush_raft(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.raft.flush(now, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Persist { seq, write } => effects.push(Effect::Persist { seq, write }),
                Action::Send { to, message } => self.send(to, message, effects),
                Action::ReadSnapshot { to, snapshot: id, offset, length } => {
                    let reader = SnapshotReader::Peer(to);
                    effects.push(Effect::ReadSnapshot { id, offset, length, reader });
                }
                Action::WriteSnapshot(piece) => self.receive_piece(piece, effects),
                Action::AbandonSnapshot => self.abandon_received(effects),
            }
        }
        self.actions = actions;
    }

    pub(super) fn send(&self, to: ServerId, message: Message, effects: &mut Vec<Effect>) {
        assert_ne!(to, self.identity.server, "the node never sends to itself");
        // A peer whose data directory nobody knows yet has never said hello: nothing reaches it.
        let Some(to_incarnation) = self.incarnation_of_receiver(to) else {
            return;
        };
        let envelope = Envelope {
            cluster: self.identity.cluster,
            from: self.identity.server,
            from_incarnation: self.identity.incarnation,
            to,
            to_incarnation,
        };
        effects.push(Effect::Send { packet: Packet { envelope, message } });
    }

    fn own_growth_refusal(&self) -> Option<GrowthRefusal> {
        if self.room != Room::Ample {
            return Some(GrowthRefusal::Disk);
        }
        self.is_over_quota().then_some(GrowthRefusal::Memory)
    }

    /// The invariants `hard-state` and `monotone`, in release too.
    fn check_monotone(&mut self) {
        let before = self.monotone;
        let after = Monotone {
            term: self.raft.current_term(),
            voted_for: self.raft.voted_for(),
            commit_index: self.raft.commit_index(),
            last_applied: self.machine.last_applied(),
        };
        assert!(after.term >= before.term, "hard-state: a term never falls");
        assert!(
            after.term > before.term
                || before.voted_for.is_none()
                || after.voted_for == before.voted_for,
            "hard-state: one vote in a term"
        );
        assert!(after.commit_index >= before.commit_index, "monotone: commit never regresses");
        assert!(after.last_applied >= before.last_applied, "monotone: applied never regresses");
        assert!(after.last_applied <= after.commit_index, "monotone: applied <= commit");
        self.monotone = after;
    }
}
