//! The connections with the other servers: one for each pair, dialled as a rule by the smaller id.
//!
//! Design page 1, §4: a closed connection is a failure detector, so every end of an established one
//! is told to the caller at once. Called by the turn. Never looks names up once the loop runs, but
//! for a peer that is named for the first time; never logs a peer's absence twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use slab::Slab;

#[path = "join.rs"]
mod join;

use self::join::Ask;
use super::output::Spares;
use super::peer::{Fault, PeerConnection, Stage};
use super::sockets;
use crate::driver::peers::{self as rules, News};
use crate::limits;
use crate::node::Peer;
use crate::proto::hello::{Hello, HelloRefused};
use crate::proto::message::Packet;
use crate::types::{Instant, ServerId};

/// All connections with other servers.
#[derive(Debug)]
pub(super) struct Peers {
    own: ServerId,
    slots: Slab<PeerConnection>,
    /// The token of slot 0.
    first_token: usize,
    /// The established connection of each peer.
    established: BTreeMap<ServerId, usize>,
    /// Those whom this node dials.
    dials: BTreeMap<ServerId, Dial>,
    /// When those whom it misses are dialled first. That stays while leaders come and go, and with
    /// them the wish to dial: the wait of a larger id would otherwise begin anew each time.
    first_dials: BTreeMap<ServerId, Instant>,
    /// What the peers' names were looked up to be, dialled or not.
    addresses: BTreeMap<ServerId, (String, Option<SocketAddr>)>,
    /// Where this server asks to be let in.
    asks: Vec<Ask>,
    /// Slots to be read, the longest waiting first.
    ready: VecDeque<usize>,
    /// Slots to be flushed at the turn's end.
    dirty: Vec<usize>,
    /// Peers whose connection ended while effects were carried out; to be told to the core.
    lost: Vec<ServerId>,
    /// Peers that did not accept our last hello: they come and go several times a second, which is
    /// logged once.
    unwelcoming: BTreeSet<ServerId>,
    spares: Spares,
    /// Connections that were closed for a violation since the start.
    violations: u64,
}

/// A peer that this node dials.
#[derive(Debug)]
struct Dial {
    name: String,
    /// Nothing if the name could not be looked up.
    address: Option<SocketAddr>,
    /// The attempt under way, or the connection that came of it.
    slot: Option<usize>,
    retry_at: Instant,
    /// Attempts that failed since the last success.
    failures: u32,
    /// Whether the failure was logged; once for each absence.
    complained: bool,
}

impl Peers {
    pub(super) fn new(own: ServerId, first_token: usize) -> Peers {
        Peers {
            own,
            slots: Slab::new(),
            first_token,
            established: BTreeMap::new(),
            dials: BTreeMap::new(),
            first_dials: BTreeMap::new(),
            addresses: BTreeMap::new(),
            asks: Vec::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            lost: Vec::new(),
            unwelcoming: BTreeSet::new(),
            spares: Spares::default(),
            violations: 0,
        }
    }

    /// Takes over whom the node wants connections with. A peer that is new or has moved is looked
    /// up by name, which may block: that happens at the start and when the membership changes, and
    /// not whenever it is dialled for want of a leader.
    pub(super) fn update(&mut self, peers: &[Peer], now: Instant) {
        let dialled = |peer: &&Peer| peer.dial;
        self.dials.retain(|id, _| peers.iter().filter(dialled).any(|peer| peer.id == *id));
        self.addresses.retain(|id, _| peers.iter().any(|peer| peer.id == *id));
        self.first_dials.retain(|id, _| peers.iter().any(|peer| peer.id == *id));
        for peer in peers.iter().filter(|peer| !peer.address.is_empty()) {
            let known = self.addresses.get(&peer.id);
            if known.is_none_or(|(name, _)| *name != peer.address) {
                let address = look_up(&peer.address);
                if address.is_none() {
                    log::error!("peer {} cannot be dialled: no address for it", peer.id);
                }
                self.addresses.insert(peer.id, (peer.address.clone(), address));
            }
        }
        for peer in peers.iter().filter(dialled) {
            let known = self.dials.get(&peer.id);
            if known.is_some_and(|dial| dial.name == peer.address) {
                continue;
            }
            let (slot, retry_at) = match known {
                Some(dial) => (dial.slot, Instant::ZERO),
                None => (None, self.first_dial(peer.id, now)),
            };
            let dial = Dial {
                name: peer.address.clone(),
                address: self.addresses.get(&peer.id).and_then(|(_, address)| *address),
                slot,
                retry_at,
                failures: 0,
                complained: false,
            };
            self.dials.insert(peer.id, dial);
        }
    }

    fn first_dial(&mut self, peer: ServerId, now: Instant) -> Instant {
        let first = rules::first_dial(self.own, peer, now);
        match self.established.contains_key(&peer) {
            true => first,
            false => *self.first_dials.entry(peer).or_insert(first),
        }
    }

    /// Dials whoever is missing and due, and gives up what has taken too long.
    pub(super) fn keep_up(&mut self, registry: &Registry, now: Instant) {
        let overdue: Vec<usize> = self
            .slots
            .iter()
            .filter(|(_, connection)| connection.deadline <= now)
            .map(|(slot, _)| slot)
            .collect();
        for slot in overdue {
            let peer = self.close(slot, Fault::TimedOut, now);
            assert_eq!(peer, None, "an established connection has no deadline");
        }
        self.keep_asking(registry, now);
        // Whom we dial may have dialled us.
        let due: Vec<(ServerId, SocketAddr)> = self
            .dials
            .iter()
            .filter(|(_, dial)| dial.slot.is_none() && dial.retry_at <= now)
            .filter(|(id, _)| !self.established.contains_key(id))
            .filter_map(|(id, dial)| Some((*id, dial.address?)))
            .collect();
        for (id, address) in due {
            self.dial(id, address, registry, now);
        }
    }

    fn dial(&mut self, id: ServerId, address: SocketAddr, registry: &Registry, now: Instant) {
        let slot = self.slots.vacant_key();
        let token = Token(self.first_token + slot);
        let connection = TcpStream::connect(address).and_then(|stream| {
            sockets::tune_peer(&stream);
            let mut connection = PeerConnection::new(stream, Some(id), now);
            connection.register(registry, token)?;
            Ok(connection)
        });
        match connection {
            Ok(connection) => {
                self.slots.insert(connection);
                self.dials.get_mut(&id).expect("the caller found it there").slot = Some(slot);
            }
            Err(error) => self.dial_failed(id, &Fault::Io(error), now),
        }
    }

    /// Plans the next attempt.
    fn dial_failed(&mut self, id: ServerId, fault: &Fault, now: Instant) {
        let Some(dial) = self.dials.get_mut(&id) else {
            return;
        };
        let pause = rules::dial_pause(dial.failures, matches!(fault, Fault::Stranger), now);
        dial.slot = None;
        dial.failures = dial.failures.saturating_add(1);
        dial.retry_at = now.after(pause);
        let is_there = matches!(fault, Fault::Stranger | Fault::Replaced)
            || self.established.contains_key(&id);
        if !dial.complained && !is_there {
            dial.complained = true;
            log::info!("peer {id} at {} cannot be reached: {fault}; trying on", dial.name);
        }
    }

    /// When [`keep_up`](Peers::keep_up) wants to be called.
    pub(super) fn deadline(&self) -> Instant {
        let dials = self.dials.iter().filter(|(_, dial)| dial.slot.is_none());
        let dials = dials.filter(|(id, _)| !self.established.contains_key(id));
        let dials = dials.filter(|(_, dial)| dial.address.is_some());
        let dials = dials.map(|(_, dial)| dial.retry_at);
        let connections = self.slots.iter().map(|(_, connection)| connection.deadline);
        let asks = self.asking_deadline();
        dials.chain(connections).min().unwrap_or(Instant::NEVER).min(asks)
    }

    /// Takes an accepted connection in; who it is, its hello will say.
    pub(super) fn admit(&mut self, stream: TcpStream, registry: &Registry, now: Instant) {
        if self.slots.len() >= limits::PEER_CONNECTIONS {
            self.violations += 1;
            return;
        }
        sockets::tune_peer(&stream);
        let slot = self.slots.vacant_key();
        let mut connection = PeerConnection::new(stream, None, now);
        if connection.register(registry, Token(self.first_token + slot)).is_ok() {
            self.slots.insert(connection);
            self.settle(slot);
        }
    }

    /// What the poll says of the connection in a slot. `hello` is what would be said to a peer.
    pub(super) fn on_event(
        &mut self,
        slot: usize,
        event: &Event,
        hello: impl FnOnce(ServerId) -> Hello,
        now: Instant,
    ) {
        let Some(connection) = self.slots.get_mut(slot) else {
            return;
        };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.on_readable(event.is_read_closed() || event.is_error());
        }
        if connection.stage == Stage::Dialling {
            // Who asks to be let in does not know whom it reaches.
            let hello = hello(connection.peer.unwrap_or(ServerId::ZERO));
            if let Err(fault) = connection.finish_dialling(&hello, now, &mut self.spares) {
                let peer = self.close(slot, fault, now);
                assert_eq!(peer, None, "it was not established yet");
                return;
            }
        }
        if event.is_writable() && connection.stage != Stage::Dialling && !connection.in_dirty {
            connection.in_dirty = true;
            self.dirty.push(slot);
        }
        self.settle(slot);
    }

    /// The connections that may have bytes, each once.
    pub(super) fn take_ready(&mut self) -> VecDeque<usize> {
        for slot in &self.ready {
            if let Some(connection) = self.slots.get_mut(*slot) {
                connection.in_ready = false;
            }
        }
        std::mem::take(&mut self.ready)
    }

    /// Whether a connection has bytes that could be read now.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reads a connection once: see [`PeerConnection::read`]. Nothing if it is gone. Who is done
    /// with reading calls [`settle`](Peers::settle).
    pub(super) fn read(
        &mut self,
        slot: usize,
        scratch: &mut [u8],
        news: &mut Vec<News>,
    ) -> Result<usize, Fault> {
        match self.slots.get_mut(slot) {
            Some(connection) => connection.read(scratch, news),
            None => Ok(0),
        }
    }

    /// Whom the connection in a slot is with, as far as known.
    pub(super) fn peer(&self, slot: usize) -> Option<ServerId> {
        self.slots.get(slot)?.peer
    }

    /// Whether we know whom the connection in a slot is with, or have dialled it in the dark.
    pub(super) fn is_dialled_or_known(&self, slot: usize) -> bool {
        let connection = self.slots.get(slot);
        connection.is_some_and(|connection| connection.dialled || connection.peer.is_some())
    }

    /// Whom the connection in a slot is established with.
    pub(super) fn established_peer(&self, slot: usize) -> Option<ServerId> {
        let connection = self.slots.get(slot)?;
        connection.peer.filter(|_| connection.stage == Stage::Established)
    }

    /// Whether a hello of `sender` fits the way the connection came about: whom we dialled is who
    /// answers.
    pub(super) fn may_greet(&self, slot: usize, sender: ServerId) -> bool {
        let connection = self.slots.get(slot);
        connection.is_some_and(|one| one.peer.is_none_or(|dialled| dialled == sender))
    }

    /// Whether the connection in a slot is to give way to one that stands with the same peer, of whose
    /// process the hello was news or not.
    pub(super) fn gives_way(&self, slot: usize, peer: ServerId, is_news: bool) -> bool {
        let dialled = |slot: usize| self.slots.get(slot).map(|connection| connection.dialled);
        let older = self.established.get(&peer).filter(|older| **older != slot);
        let older = older.and_then(|older| dialled(*older));
        rules::gives_way(self.own, peer, is_news, dialled(slot) == Some(true), older)
    }

    /// Ends established connections with whoever isn't known any more.
    pub(super) fn forget(&mut self, is_known: impl Fn(ServerId) -> bool, now: Instant) {
        let established = self.established.iter().filter(|(peer, _)| !is_known(**peer));
        let slots: Vec<usize> = established.map(|(_, slot)| *slot).collect();
        for slot in slots {
            let lost = self.close(slot, Fault::Stranger, now);
            self.lost.extend(lost);
        }
    }

    /// The hello in this slot was accepted: from here on it is the connection with `peer`. An
    /// accepted connection is answered with `hello`. Returns the peer if an older connection of it
    /// ended by this.
    pub(super) fn establish(
        &mut self,
        slot: usize,
        peer: ServerId,
        hello: &Hello,
        now: Instant,
    ) -> Option<ServerId> {
        let older = self.established.get(&peer).copied();
        let replaced = older.and_then(|older| self.close(older, Fault::Replaced, now));

        let connection = &mut self.slots[slot];
        assert_eq!(connection.stage, Stage::Greeting);
        connection.stage = Stage::Established;
        connection.deadline = Instant::NEVER;
        connection.peer = Some(peer);
        if !connection.dialled {
            connection.say_hello(hello, &mut self.spares);
        }
        self.established.insert(peer, slot);
        self.first_dials.remove(&peer);
        if let Some(dial) = self.dials.get_mut(&peer) {
            dial.failures = 0;
            dial.complained = false;
        }
        log::log!(self.news_level(peer), "peer {peer} is connected");
        self.settle(slot);
        replaced
    }

    /// Tells the other side why its hello is not accepted, and closes.
    pub(super) fn refuse(
        &mut self,
        slot: usize,
        refused: &HelloRefused,
        registry: &Registry,
        now: Instant,
    ) {
        let token = Token(self.first_token + slot);
        if let Some(connection) = self.slots.get_mut(slot) {
            connection.say_refused(refused, &mut self.spares);
            // Written at once, as the connection ends here; so few bytes always fit.
            let _ = connection.flush(registry, token, &mut self.spares);
        }
        let peer = self.close(slot, Fault::NotAccepted, now);
        assert_eq!(peer, None, "a hello is judged before a connection is established");
    }

    /// Appends a message for the peer that its envelope names; without a connection it is dropped.
    pub(super) fn send(&mut self, packet: &Packet, now: Instant) {
        let Some(slot) = self.established.get(&packet.envelope.to).copied() else {
            return;
        };
        match self.slots[slot].send(packet, &mut self.spares) {
            Ok(()) => self.settle(slot),
            Err(fault) => {
                let lost = self.close(slot, fault, now);
                self.lost.extend(lost);
            }
        }
    }

    /// Writes once to each connection that has something to be written.
    pub(super) fn flush(&mut self, registry: &Registry, now: Instant) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            // The slot may have another user since it was listed. A connection that is still being
            // dialled must not be flushed: it would no longer be told that it stands.
            let Some(connection) = self.slots.get_mut(slot).filter(|listed| listed.in_dirty) else {
                continue;
            };
            connection.in_dirty = false;
            let token = Token(self.first_token + slot);
            if let Err(fault) = connection.flush(registry, token, &mut self.spares) {
                let lost = self.close(slot, fault, now);
                self.lost.extend(lost);
            }
        }
        self.dirty = dirty;
    }

    /// Peers whose connection ended since the last call, other than by [`close`](Peers::close).
    pub(super) fn take_lost(&mut self) -> Vec<ServerId> {
        std::mem::take(&mut self.lost)
    }

    /// Whether the core has yet to be told of a lost connection.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Ends a connection. Returns the peer if it was established: its core wants to know at once.
    pub(super) fn close(&mut self, slot: usize, fault: Fault, now: Instant) -> Option<ServerId> {
        let mut connection = self.slots.try_remove(slot)?;
        self.stop_asking(slot, now);
        connection.discard_output(&mut self.spares);
        self.violations += u64::from(fault.is_violation());
        let was_established = connection.stage == Stage::Established;
        match connection.peer {
            Some(peer) if was_established => {
                self.established.remove(&peer);
                let is_unwelcoming = matches!(fault, Fault::NotAccepted | Fault::Stranger);
                if !is_unwelcoming {
                    self.unwelcoming.remove(&peer);
                }
                log::log!(self.news_level(peer), "peer {peer} is disconnected: {fault}");
                if is_unwelcoming {
                    self.unwelcoming.insert(peer);
                }
            }
            _ if !connection.dialled => {
                log::debug!("a connection on the peer port is closed: {fault}");
            }
            _ => {}
        }
        if let (Some(peer), true) = (connection.peer, connection.dialled) {
            if was_established && let Some(dial) = self.dials.get_mut(&peer) {
                // It was just logged that the peer is gone.
                dial.complained = true;
            }
            self.dial_failed(peer, &fault, now);
        }
        connection.peer.filter(|_| was_established)
    }

    /// Connections that were closed for a violation since the start.
    pub(super) fn violations(&self) -> u64 {
        self.violations
    }

    fn news_level(&self, peer: ServerId) -> log::Level {
        match self.unwelcoming.contains(&peer) {
            true => log::Level::Debug,
            false => log::Level::Info,
        }
    }

    /// Puts a connection into the lists that its state asks for.
    pub(super) fn settle(&mut self, slot: usize) {
        let Some(connection) = self.slots.get_mut(slot) else {
            return;
        };
        if connection.wants_read() && !connection.in_ready {
            connection.in_ready = true;
            self.ready.push_back(slot);
        }
        if connection.wants_flush() && !connection.in_dirty {
            connection.in_dirty = true;
            self.dirty.push(slot);
        }
    }
}

/// The first address of a name.
fn look_up(name: &str) -> Option<SocketAddr> {
    match name.to_socket_addrs() {
        Ok(mut addresses) => addresses.next(),
        Err(error) => {
            log::error!("{name}: {error}");
            None
        }
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
