//! All client connections: who is to be read, who is to be flushed, who is to be forgotten.
//!
//! Design page 1, §5: fairness and backpressure; 10,000 idle connections cost memory only. Called
//! by the turn. Never walks all connections at once: each list holds only those it concerns.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::client::{Client, Phase, Shared};
use super::sockets;
use crate::config::Config;
use crate::driver::conversation::Inbox;
use crate::limits;
use crate::node::{ClientInfo, Requests};
use crate::proto::hello::Hello;
use crate::proto::reply::{Protocol, Reply};
use crate::types::{ClientId, Instant};

/// What Redis says to one client too many.
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// All client connections.
#[derive(Debug)]
pub(super) struct Clients {
    slots: Slab<Client>,
    /// The token of slot 0.
    first_token: usize,
    max_clients: usize,
    idle_timeout: Duration,
    /// What this server says to a framed client.
    host: Hello,
    /// Connections so far; the newest one's number.
    accepted: u64,
    refused: u64,
    /// To be read, the longest waiting first.
    ready: VecDeque<ClientId>,
    /// To be flushed at the turn's end.
    dirty: Vec<ClientId>,
    /// Those that have only been told what they didn't ask for, the longest waiting first: some of
    /// them are flushed in each turn. A thousand watchers must not stand before the next command.
    told: VecDeque<ClientId>,
    /// Dead, to be told to the core.
    gone: Vec<ClientId>,
    /// They have taken all that they were told, which the core is to know.
    drained: Vec<ClientId>,
    /// Whether somebody may be waiting for that.
    has_drained_much: bool,
    shared: Shared,
    sweep_at: Instant,
    sweep_from: usize,
}

/// Since the process began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Figures {
    /// Connections that were taken in.
    pub(super) accepted: u64,
    /// Connections that were one too many.
    pub(super) refused: u64,
    /// Bytes read.
    pub(super) input_bytes: u64,
    /// Bytes written.
    pub(super) output_bytes: u64,
    /// Framed connections that were closed for a violation.
    pub(super) violations: u64,
}

impl Clients {
    pub(super) fn new(config: &Config, host: Hello, first_token: usize) -> Clients {
        Clients {
            slots: Slab::new(),
            first_token,
            max_clients: config.limits.max_clients,
            idle_timeout: config.client.idle_timeout,
            host,
            accepted: 0,
            refused: 0,
            ready: VecDeque::new(),
            dirty: Vec::new(),
            told: VecDeque::new(),
            gone: Vec::new(),
            drained: Vec::new(),
            has_drained_much: false,
            shared: Shared::default(),
            sweep_at: Instant::ZERO,
            sweep_from: 0,
        }
    }

    /// Takes a new connection in, or refuses it because there are too many.
    pub(super) fn admit(
        &mut self,
        mut stream: TcpStream,
        address: SocketAddr,
        registry: &Registry,
        now: Instant,
    ) -> Option<(ClientId, ClientInfo)> {
        if self.slots.len() >= self.max_clients {
            self.refused += 1;
            // Best effort: an empty send buffer takes so short a line.
            let _ = stream.write(TOO_MANY);
            return None;
        }
        // A connection that is already reset has no address any more.
        let local_address = stream.local_addr().ok()?;
        sockets::tune_client(&stream);
        let slot = self.slots.vacant_key();
        let token = Token(self.first_token + slot);
        registry.register(&mut stream, token, Interest::READABLE).ok()?;

        self.accepted += 1;
        let id = ClientId {
            slot: u32::try_from(slot).expect("max_clients is far below 2^32"),
            generation: self.accepted as u32,
        };
        let inserted = self.slots.insert(Client::new(id, stream, now));
        assert_eq!(inserted, slot);
        self.settle(id);
        Some((id, ClientInfo { id: self.accepted, address, local_address }))
    }

    /// What the poll says of the connection in a slot.
    pub(super) fn on_event(&mut self, slot: usize, event: &Event) {
        let Some(client) = self.slots.get_mut(slot) else {
            return;
        };
        client.readable |= event.is_readable() || event.is_read_closed();
        client.read_closed |= event.is_read_closed();
        let id = client.id;
        if event.is_error() {
            client.cut_off();
        }
        if event.is_writable() && !client.in_dirty {
            client.in_dirty = true;
            self.dirty.push(id);
        }
        self.settle(id);
    }

    /// Whether a connection has bytes that could be read now.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether there is somebody to flush whom the last turn has left.
    pub(super) fn has_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// Whether the core has yet to be told of a dead connection.
    pub(super) fn has_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Whether the core has yet to be told that a connection can be told more.
    pub(super) fn has_drained(&self) -> bool {
        self.has_drained_much
    }

    /// Calls those that have taken all that they were told.
    pub(super) fn tell_drained(&mut self, tell: impl FnMut(ClientId)) {
        self.has_drained_much = false;
        self.drained.drain(..).for_each(tell);
    }

    /// Reads each connection that has bytes once, until the turn's commands are enough. Who was not
    /// read is the first in the next turn.
    pub(super) fn read_queries(
        &mut self,
        now: Instant,
        scratch: &mut [u8],
        requests: &mut Requests,
    ) {
        for _ in 0..self.ready.len() {
            if requests.cost() >= limits::TURN_BYTES {
                return;
            }
            let Some(id) = self.ready.pop_front() else {
                return;
            };
            let Some(client) = lookup(&mut self.slots, id) else {
                continue;
            };
            client.in_ready = false;
            let mut inbox = Inbox { client: id, requests: &mut *requests, host: &self.host };
            client.read_query(now, scratch, &mut inbox, &mut self.shared);
            self.settle(id);
        }
    }

    /// Answers a client's oldest unanswered command; a client that has gone is owed nothing.
    pub(super) fn reply(&mut self, id: ClientId, protocol: Protocol, reply: &Reply) {
        if let Some(client) = lookup(&mut self.slots, id) {
            client.reply(protocol, reply, &mut self.shared);
            // Who is owed a reply waits with nobody.
            if client.wants_flush() && !client.in_dirty {
                client.in_dirty = true;
                self.dirty.push(id);
            }
            self.settle(id);
        }
    }

    /// Tells a client something that it didn't ask for.
    pub(super) fn push(&mut self, id: ClientId, bytes: &[u8], now: Instant) {
        if let Some(client) = lookup(&mut self.slots, id) {
            client.push(now, bytes, &mut self.shared);
            if client.wants_flush() && !client.in_dirty && !client.in_told {
                client.in_told = true;
                self.told.push_back(id);
            }
            self.settle(id);
        }
    }

    /// Closes a connection once what was answered is written.
    pub(super) fn close(&mut self, id: ClientId, now: Instant) {
        if let Some(client) = lookup(&mut self.slots, id) {
            client.close(now);
            self.settle(id);
        }
    }

    /// Writes once to each connection that has something to be written; to those that have only been
    /// told something, as many as a turn has time for.
    pub(super) fn flush(&mut self, now: Instant, registry: &Registry) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if let Some(client) = lookup(&mut self.slots, id) {
                client.in_dirty = false;
                self.flush_client(id, now, registry);
            }
        }
        let due = self.told.len().min(limits::TOLD_CLIENTS);
        let told: Vec<ClientId> = self.told.drain(..due).collect();
        for id in told {
            if let Some(client) = lookup(&mut self.slots, id) {
                client.in_told = false;
                self.flush_client(id, now, registry);
            }
        }
        assert!(self.dirty.is_empty(), "a flush leaves nothing that another one could write");
        // The emptied list keeps its memory for the next turn.
        self.dirty = dirty;
    }

    fn flush_client(&mut self, id: ClientId, now: Instant, registry: &Registry) {
        let Some(client) = lookup(&mut self.slots, id) else {
            return;
        };
        let token = Token(self.first_token + id.slot as usize);
        client.flush(now, registry, token, &mut self.shared);
        if let Some(pushed) = client.take_drained() {
            self.drained.push(id);
            // What is less leaves the core's window open.
            self.has_drained_much |= pushed >= limits::PUSH_WINDOW_BYTES / 2;
        }
        self.settle(id);
    }

    /// Forgets the dead connections, and calls each by its name.
    pub(super) fn forget_gone(&mut self, mut tell: impl FnMut(ClientId)) {
        for id in self.gone.drain(..) {
            let client = self.slots.remove(id.slot as usize);
            assert_eq!(client.id, id, "a slot is given away only after its user was forgotten");
            tell(id);
        }
    }

    /// How many there may be, and how long one may be idle, zero being for ever. Fewer than there
    /// are already closes none of them.
    pub(super) fn set_bounds(&mut self, (max_clients, idle_timeout): (usize, Duration)) {
        self.max_clients = max_clients;
        self.idle_timeout = idle_timeout;
    }

    /// Looks for connections whose time is up, at some of them each time.
    pub(super) fn sweep(&mut self, now: Instant) {
        if self.slots.is_empty() || now < self.sweep_at {
            return;
        }
        self.sweep_at = now.after(limits::SWEEP_INTERVAL);
        let end = self.slots.capacity().min(self.sweep_from + limits::SWEEP_CLIENTS);
        for slot in self.sweep_from..end {
            let Some(client) = self.slots.get_mut(slot) else {
                continue;
            };
            if client.is_overdue(now, self.idle_timeout) {
                let id = client.id;
                client.cut_off();
                self.settle(id);
            }
        }
        self.sweep_from = if end == self.slots.capacity() { 0 } else { end };
    }

    /// When [`sweep`](Clients::sweep) wants to be called.
    pub(super) fn deadline(&self) -> Instant {
        if self.slots.is_empty() { Instant::NEVER } else { self.sweep_at }
    }

    /// What `INFO` shows.
    pub(super) fn figures(&self) -> Figures {
        Figures {
            accepted: self.accepted,
            refused: self.refused,
            input_bytes: self.shared.input_bytes,
            output_bytes: self.shared.output_bytes,
            violations: self.shared.violations,
        }
    }

    /// Whether no reply waits for a socket. Walks all connections: asked only at the end.
    pub(super) fn all_flushed(&self) -> bool {
        self.slots.iter().all(|(_, client)| client.is_flushed())
    }

    /// Puts a connection into the lists that its state asks for.
    fn settle(&mut self, id: ClientId) {
        let Some(client) = lookup(&mut self.slots, id) else {
            return;
        };
        if client.phase() == Phase::Gone {
            if !client.in_gone {
                client.in_gone = true;
                self.gone.push(id);
            }
            return;
        }
        if client.wants_read() && !client.in_ready {
            client.in_ready = true;
            self.ready.push_back(id);
        }
        if client.wants_flush() && !client.in_dirty && !client.in_told {
            client.in_dirty = true;
            self.dirty.push(id);
        }
    }
}

/// The connection of that name, unless its slot is empty or has another user by now.
fn lookup(slots: &mut Slab<Client>, id: ClientId) -> Option<&mut Client> {
    slots.get_mut(id.slot as usize).filter(|client| client.id == id)
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
