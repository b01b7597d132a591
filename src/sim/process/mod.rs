//! One server process: the unchanged `Node` and `Storage`, and what stands around them in a turn.
//!
//! The order of a turn is the server's own, `driver/turn.rs` (design page 1, §5), with mail in place
//! of sockets; between its stages the process may stand still. Called by the world. Decides nothing,
//! and knows only its own server's clock.

mod peers;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::link::{self, Conversation, Gate, PeerLink};
use super::network::StreamId;
use crate::driver;
use crate::driver::turn;
use crate::limits;
use crate::node::{ClientInfo, Effect, Facts, Input, Node, PeersStamp, Requests};
use crate::proto::hello::{self, Hello};
use crate::proto::message::Packet;
use crate::proto::reply::Reply;
use crate::storage::{Storage, StorageError};
use crate::types::{Boot, ClientId, Instant, LogIndex, Room, ServerId, WallClock};

use peers::{Ask, Dial};

/// Whom a connection is made to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Callee {
    /// A peer, at the address that the membership names.
    Peer(ServerId, String),
    /// Whoever is at this address, to be asked to be let in.
    Anyone(String),
}

impl Callee {
    pub fn address(&self) -> &str {
        match self {
            Callee::Peer(_, address) | Callee::Anyone(address) => address,
        }
    }
}

/// What has come for a process since its last turn.
#[derive(Debug)]
pub(super) enum Mail {
    /// Somebody connected to one of its ports.
    Accepted(StreamId, Gate),
    /// What it dialled stands.
    Connected(Callee, StreamId),
    /// What it dialled does not answer, or refuses.
    DialFailed(Callee),
    Bytes(StreamId, Bytes),
    Closed(StreamId),
    /// A connection with a peer takes bytes again.
    Writable(StreamId),
    /// A client reads no more, or reads again.
    Stuck(StreamId),
    Unstuck(StreamId),
    /// A frame that went astray and comes late, or twice.
    Copy(Bytes),
    /// What a test puts before the node itself.
    Forged(Input),
    /// The disk has finished something.
    Disk,
    /// SIGTERM.
    Stop,
}

/// What a process wants of its surroundings, in order.
#[derive(Debug)]
pub(super) enum Output {
    Dial(Callee),
    Send(StreamId, Bytes),
    /// The same, with a hello at the beginning.
    Greet(StreamId, Bytes),
    Close(StreamId),
}

/// How far a process is with its turn, where it may stand still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The poll has reported.
    Polled,
    /// Everything was read.
    Heard,
    /// The node has said what it wants done.
    Decided,
}

/// A running server.
pub(super) struct Process {
    pub node: Node,
    storage: Storage,
    own: ServerId,
    peers: BTreeMap<StreamId, PeerLink>,
    clients: BTreeMap<StreamId, Conversation>,
    by_client: BTreeMap<ClientId, StreamId>,
    slots: Vec<bool>,
    generation: u32,
    established: BTreeMap<ServerId, StreamId>,
    dials: BTreeMap<ServerId, Dial>,
    /// When those whom it misses are dialled first: see `loop/peers.rs`.
    first_dials: BTreeMap<ServerId, Instant>,
    asks: Vec<Ask>,
    /// The peers that the dials were made for.
    peers_stamp: Option<PeersStamp>,
    lost: Vec<ServerId>,
    /// Connections with peers that are to be read.
    ready: Vec<StreamId>,
    /// What may wait for one peer; at more the connection is closed.
    pub peer_output_bytes: usize,
    /// What it says of itself to a client that speaks in frames.
    host: Hello,
    gone: Vec<ClientId>,
    requests: Requests,
    /// What this turn wants done.
    pub effects: Vec<Effect>,
    outputs: Vec<Output>,
    /// Where in its turn it stands still.
    pub stage: Option<Stage>,
    /// The time of this turn, as it has read it; what its clocks show; and when its poll reported.
    now: Instant,
    shown: Instant,
    wall: WallClock,
    looked_at: Instant,
    /// What the poll has reported.
    inbox: Vec<Mail>,
    /// This turn has met mail.
    pub is_busy: bool,
    /// What was applied before this turn.
    applied: LogIndex,
    /// So many steps of this turn are left before it dies.
    left: usize,
    /// The turn's disk write was begun; not if the process died before that.
    pub has_submitted: bool,
    /// Whose processes were met, for the world to remember.
    pub met: Vec<(ServerId, Boot)>,
    disk_ready: bool,
    room: Room,
    observe_at: Instant,
    stop: Option<Instant>,
    /// A peer has met a later process of its directory.
    pub is_old_copy: bool,
    /// The client that is read first in the next turn.
    next_client: StreamId,
    /// Bytes on a connection need not make sense: the script lets the network lose hellos.
    network_lies: bool,
    /// What it was struck by in this turn.
    pub strikes: Vec<(&'static str, u64)>,
}

impl Process {
    pub fn new(
        own: ServerId,
        node: Node,
        storage: Storage,
        now: Instant,
        network_lies: bool,
    ) -> Process {
        let host = Hello { role: hello::Role::Client, ..node.hello_to(ServerId::ZERO) };
        let mut process = Process {
            node,
            storage,
            own,
            peers: BTreeMap::new(),
            clients: BTreeMap::new(),
            by_client: BTreeMap::new(),
            slots: Vec::new(),
            generation: 0,
            established: BTreeMap::new(),
            dials: BTreeMap::new(),
            first_dials: BTreeMap::new(),
            asks: Vec::new(),
            peers_stamp: None,
            lost: Vec::new(),
            ready: Vec::new(),
            peer_output_bytes: limits::PEER_OUTPUT_BYTES,
            host,
            gone: Vec::new(),
            requests: Requests::default(),
            effects: Vec::new(),
            outputs: Vec::new(),
            stage: None,
            now,
            shown: now,
            wall: WallClock::ZERO,
            looked_at: now,
            inbox: Vec::new(),
            is_busy: false,
            applied: LogIndex::ZERO,
            left: usize::MAX,
            has_submitted: false,
            met: Vec::new(),
            disk_ready: true,
            room: Room::Ample,
            observe_at: now,
            stop: None,
            is_old_copy: false,
            next_client: StreamId(0),
            network_lies,
            strikes: Vec::new(),
        };
        process.update_dials(now);
        process
    }

    /// Whether it has accepted the hello of `peer`, and their connection stands.
    pub fn has_accepted(&self, peer: ServerId) -> bool {
        self.link_with(peer).is_some()
    }

    /// The connection with `peer`, once it has accepted its hello, and while it stands.
    pub fn link_with(&self, peer: ServerId) -> Option<StreamId> {
        self.established.get(&peer).copied()
    }

    /// Step 1 of a turn: the poll reports `mail`, and the clock shows `now`.
    pub fn poll(&mut self, now: Instant, mail: Vec<Mail>) {
        self.is_busy = !mail.is_empty();
        self.applied = self.node.machine().last_applied();
        (self.now, self.shown, self.looked_at) = (now, now, now);
        self.inbox = mail;
    }

    /// Whether the poll has reported that a peer has said something.
    pub fn is_told_something(&self) -> bool {
        let of_peer = |mail: &Mail| matches!(mail, Mail::Bytes(id, _) if self.is_established(*id));
        self.inbox.iter().any(of_peer)
    }

    fn is_established(&self, stream: StreamId) -> bool {
        self.peers.get(&stream).is_some_and(|link| link.stage == link::Stage::Established)
    }

    /// Steps 2 and 3. The process may have stood still since its poll: by now the clock shows `now`,
    /// and `mail` has come, of which it reads what is on the connections that it reads anyway. The
    /// rest is left there for the next poll.
    ///
    /// # Errors
    /// The disk's: the process ends.
    pub fn hear(&mut self, now: Instant, mail: &mut Vec<Mail>) -> Result<(), StorageError> {
        self.shown = now;
        let reported = self.inbox.iter().filter_map(|mail| match mail {
            Mail::Bytes(stream, _) | Mail::Accepted(stream, _) => Some(*stream),
            _ => None,
        });
        let read: BTreeSet<StreamId> = reported.collect();
        let is_read = |mail: &mut Mail| matches!(mail, Mail::Bytes(id, _) if read.contains(id));
        self.inbox.extend(mail.extract_if(.., is_read));
        turn::hear(self)
    }

    /// Steps 4 and 5; the effects are left in [`Process::effects`].
    pub fn decide(&mut self, now: Instant, wall: WallClock) {
        (self.shown, self.wall) = (now, wall);
        turn::decide(self);
    }

    /// Whether this turn has applied anything.
    pub fn has_applied(&self) -> bool {
        self.node.machine().last_applied() > self.applied
    }

    fn open(&mut self, now: Instant, mail: Mail) -> Result<(), StorageError> {
        match mail {
            Mail::Accepted(stream, Gate::Peer) => {
                self.peers.insert(stream, PeerLink::new(None, now));
            }
            Mail::Accepted(stream, Gate::Client) => self.admit_client(stream),
            Mail::Connected(callee, stream) => self.connected(now, &callee, stream),
            Mail::DialFailed(callee) => self.call_failed(now, &callee),
            Mail::Bytes(stream, bytes) if self.peers.contains_key(&stream) => {
                if let Some(link) = self.peers.get_mut(&stream) {
                    link.arrived(&bytes);
                }
                self.is_ready(stream);
            }
            Mail::Bytes(stream, bytes) => {
                if let Some(client) = self.clients.get_mut(&stream) {
                    client.unread.extend_from_slice(&bytes);
                }
            }
            Mail::Closed(stream) => self.closed(stream),
            Mail::Writable(stream) => {
                if let Some(link) = self.peers.get_mut(&stream) {
                    link.waits_writable = false;
                }
            }
            Mail::Stuck(stream) | Mail::Unstuck(stream) => {
                let is_stuck = matches!(mail, Mail::Stuck(_));
                if let Some(client) = self.clients.get_mut(&stream) {
                    client.is_stuck = is_stuck;
                }
            }
            Mail::Copy(frame) => {
                let packet = PeerLink::decode_alone(&frame);
                if self.established.contains_key(&packet.envelope.from) {
                    let incarnation = self.node.status().incarnation;
                    if packet.envelope.to_incarnation != incarnation {
                        self.strikes.push(("mail-for-another", 1));
                    }
                    self.handle(Input::Receive { packet });
                }
            }
            Mail::Forged(input) => self.handle(input),
            Mail::Disk => self.disk_ready = true,
            Mail::Stop => {
                self.stop = Some(now.after(limits::STOP_TIMEOUT));
                self.handle(Input::Stop);
            }
        }
        Ok(())
    }

    fn admit_client(&mut self, stream: StreamId) {
        let slot = self.slots.iter().position(|used| !used).unwrap_or_else(|| {
            self.slots.push(false);
            self.slots.len() - 1
        });
        self.slots[slot] = true;
        self.generation += 1;
        let client = ClientId { slot: slot as u32, generation: self.generation };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 50_000));
        let info = ClientInfo { id: self.generation.into(), address, local_address: address };
        self.clients.insert(stream, Conversation::new(client));
        self.by_client.insert(client, stream);
        self.handle(Input::ClientArrived { client, info });
    }

    /// The other side has closed: what came before that is read first.
    fn closed(&mut self, stream: StreamId) {
        if let Some(link) = self.peers.get_mut(&stream) {
            link.is_ended = true;
            self.is_ready(stream);
        }
        if let Some(client) = self.clients.get_mut(&stream) {
            client.is_finishing = true;
        }
    }

    fn forget_client(&mut self, stream: StreamId) {
        if let Some(client) = self.clients.remove(&stream) {
            self.by_client.remove(&client.id);
            self.gone.push(client.id);
        }
    }

    fn observe(&mut self, now: Instant) {
        self.observe_at = now.after(limits::OBSERVE_INTERVAL);
        if self.room != Room::Ample {
            self.storage.retry_room();
            self.disk_ready = true;
        }
        let facts = Facts { storage_engine: self.storage.engine().0, ..Facts::default() };
        self.handle(Input::Observed { facts });
    }

    /// Steps 6 and 7: the effects, one disk write, and everything that is to be sent. `frame_lost`
    /// says of a frame whether it is never sent. The process dies behind so many of these steps, if
    /// that is said: each effect is one, the disk write is one, each output is one. What it has sent
    /// is in [`Process::take_outputs`], whatever becomes of it.
    ///
    /// # Errors
    /// The disk's: the process ends.
    pub fn carry_out(
        &mut self,
        dies_behind: Option<usize>,
        mut frame_lost: impl FnMut(&Packet, &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.left = dies_behind.unwrap_or(usize::MAX);
        self.has_submitted = false;
        let mut has_appended = false;
        for effect in std::mem::take(&mut self.effects) {
            if !self.lives_on() {
                return Ok(());
            }
            has_appended |= matches!(effect, Effect::Persist { .. });
            self.carry_out_one(effect, &mut frame_lost)?;
        }
        turn::send_out(self, !has_appended && self.node.raft().is_leader())
    }

    /// Whether it comes to one step more.
    fn lives_on(&mut self) -> bool {
        let lives_on = self.left > 0;
        self.left = self.left.saturating_sub(1);
        lives_on
    }

    fn carry_out_one(
        &mut self,
        effect: Effect,
        frame_lost: &mut impl FnMut(&Packet, &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        match effect {
            Effect::Persist { seq, write } => self.storage.append(seq, &write),
            Effect::Send { packet } => {
                let stream = self.established.get(&packet.envelope.to);
                let Some(link) = stream.and_then(|stream| self.peers.get_mut(stream)) else {
                    return Ok(());
                };
                let start = link.out.len();
                link.send(&packet);
                if frame_lost(&packet, &link.out[start..]) {
                    link.out.truncate(start);
                }
                if link.out.len() > self.peer_output_bytes {
                    let stream = self.established[&packet.envelope.to];
                    let lost = self.drop_link(self.now, stream, false);
                    self.lost.extend(lost);
                    self.strikes.push(("peer-overflow", 1));
                }
            }
            Effect::Reply { client, protocol, reply } => {
                let stream = self.by_client.get(&client).copied();
                if let Some(stream) = stream
                    && let Some(conversation) = self.clients.get_mut(&stream)
                    && !conversation.answer(protocol, &reply)
                {
                    self.strikes.push(("client-cut-off", 1));
                    self.outputs.push(Output::Close(stream));
                }
            }
            Effect::Push { client, bytes } => {
                if let Some(stream) = self.by_client.get(&client)
                    && let Some(conversation) = self.clients.get_mut(stream)
                    && !conversation.is_closing
                {
                    conversation.push(&bytes);
                }
            }
            Effect::Close { client } => {
                if let Some(stream) = self.by_client.get(&client)
                    && let Some(conversation) = self.clients.get_mut(stream)
                {
                    conversation.is_closing = true;
                }
            }
            effect => {
                driver::carry_out(effect, &mut self.storage)?;
            }
        }
        Ok(())
    }

    /// How much it wants of its surroundings since the last call of [`Process::take_outputs`].
    pub fn said(&self) -> usize {
        self.outputs.len()
    }

    /// What it wants of its surroundings since the last call.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// The connections whose commands this turn has answered, other than by an error.
    pub fn answered(&self) -> impl Iterator<Item = StreamId> {
        self.effects.iter().filter_map(|effect| match effect {
            Effect::Reply { reply: Reply::Error(_), .. } => None,
            Effect::Reply { client, .. } => self.by_client.get(client).copied(),
            _ => None,
        })
    }

    /// The connections with peers, and what the kernel takes on each: `room` says of one.
    pub fn set_room(&mut self, room: impl Fn(StreamId) -> usize) {
        for (stream, link) in &mut self.peers {
            link.room = room(*stream);
        }
    }

    /// The connections on which it waits for the kernel to take more.
    pub fn waits_writable(&self) -> Vec<StreamId> {
        self.peers.iter().filter(|(_, link)| link.waits_writable).map(|(id, _)| *id).collect()
    }

    /// Whether it was asked to stop and may, or must by `now`.
    pub fn is_over(&self, now: Instant) -> bool {
        self.stop.is_some_and(|latest| self.node.may_exit() || latest <= now)
    }

    /// The clean end.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(self) -> Result<(), StorageError> {
        self.storage.close()
    }

    /// When it wants its next turn, should no mail come.
    pub fn deadline(&self, now: Instant) -> Instant {
        let unread = self.clients.values().any(Conversation::wants_read);
        if unread && self.node.accepts_requests()
            || !self.lost.is_empty()
            || self.storage.has_snapshot_event()
            || self.clients.values().any(|client| client.is_over() || client.is_awaited())
            || !self.ready.is_empty()
        {
            return now;
        }
        let dials = self.dials.iter().filter(|(id, _)| !self.established.contains_key(id));
        let dials = dials.filter_map(|(_, dial)| match dial {
            Dial { is_under_way: true, deadline, .. } => Some(*deadline),
            Dial { stream: None, retry_at, .. } => Some(*retry_at),
            Dial { .. } => None,
        });
        let links = self.peers.values().map(|link| link.deadline);
        let asks = self.asks.iter().map(Ask::deadline);
        let own = [self.node.deadline(now), self.observe_at, self.stop.unwrap_or(Instant::NEVER)];
        dials.chain(asks).chain(links).chain(own).min().unwrap_or(Instant::NEVER)
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(self.now, input, &mut self.effects);
    }
}
