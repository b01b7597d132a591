//! How clients act in the world: they connect, send, wait, give up and go elsewhere.
//!
//! Called by the world for each event that concerns a client. What they say is in
//! [`super::clients`].

use std::time::Duration;

use rand::RngExt;

use super::clients::{Client, Manner, Words};
use super::link::Gate;
use super::network::{Host, StreamId};
use super::process::Mail;
use super::world::{BEGIN, Event, World};
use crate::node::Node;
use crate::types::{Instant, LogIndex, ServerId};

/// Into so many pieces a dripping client's pipeline falls at most.
const DROPS: usize = 400;

/// How often a deaf client floods a server in one run.
const FLOODS: u32 = 2;

impl World {
    /// A client's next step: a connection where it has none, else a pipeline.
    pub(super) fn client_acts(&mut self, number: usize) {
        let client = &self.clients[number];
        let bound = self.script.settings.commands;
        let has_said_all = bound > 0 && self.recorder.invoked >= bound;
        // What is asked for again belongs to what was said before.
        let is_done = (self.is_healing || has_said_all) && !client.is_unanswered();
        if is_done || client.is_listening() || client.told.is_some() {
            return;
        }
        if self.sleeps_until > self.now {
            self.plan(self.sleeps_until.since(self.now), Event::Client { client: number });
            return;
        }
        if client.stream.is_none() && !self.connect_client(number) {
            let pause = self.think(number);
            self.plan(pause, Event::Client { client: number });
            return;
        }
        if let Some(name) = self.clients[number].manner.strike() {
            self.strike(name);
        }
        match self.clients[number].manner {
            Manner::Deaf => return self.flood(number),
            Manner::HalfOpen => return self.vanish_half_open(number),
            _ if self.clients[number].repeats() => self.strike("repeated-command"),
            _ if self.clients[number].is_unanswered() => self.strike("asked-again-in-session"),
            _ => {}
        }
        self.clients[number].server_state_of = self.state_of(self.clients[number].server);
        let World { clients, recorder, script, now, slept, .. } = self;
        let awake = now.since(BEGIN).saturating_sub(*slept);
        let bytes = clients[number].next_pipeline(*now, awake, &script.settings, recorder);
        self.client_sends(number, bytes);
        let client = &mut self.clients[number];
        let moves = client.random.random_range(0..100) < self.script.settings.move_pc;
        let pipeline = client.pipelines;
        if moves {
            let delay = Duration::from_micros(client.random.random_range(10..5000));
            self.plan(delay, Event::TimeOut { client: number, pipeline });
        }
    }

    /// Until when what a server has applied was the newest state: now, if it still is.
    fn state_of(&self, id: ServerId) -> Instant {
        let outdated_at = |node: &Node| self.checkers.outdated_at(node.machine().last_applied());
        // A process that is gone answers nothing.
        self.node(id).and_then(outdated_at).unwrap_or(self.now)
    }

    /// Sends these commands over the client's connection to `server`, a new one if it has none.
    pub(super) fn client_sends_commands(
        &mut self,
        number: usize,
        server: ServerId,
        commands: &[Words],
    ) -> bool {
        if self.clients[number].stream.is_none() {
            self.clients[number].server = server;
            if !self.connect_client_to(number, server) {
                return false;
            }
        }
        let World { clients, recorder, now, .. } = self;
        let bytes = clients[number].pipeline_of(*now, commands, recorder);
        self.client_sends(number, bytes);
        true
    }

    fn client_sends(&mut self, number: usize, mut bytes: bytes::Bytes) {
        let client = &mut self.clients[number];
        let committed = LogIndex(self.checkers.committed());
        client.floor = if client.introduces_itself { LogIndex::ZERO } else { committed };
        let (stream, pipeline) = (client.stream.expect("it was just connected"), client.pipelines);
        let timeout = Duration::from_millis(self.script.settings.client_timeout_ms);
        // Pieces arrive in turns of their own: a command then meets what came before it on its
        // connection, undecided.
        let pieces = match client.manner {
            Manner::Dripping => {
                let drop = 1 + bytes.len() / DROPS;
                vec![drop; bytes.len() / drop]
            }
            _ => (0..client.random.random_range(0..3))
                .map(|_| client.random.random_range(0..=bytes.len() / 3))
                .collect(),
        };
        for length in pieces {
            let first = bytes.split_to(length);
            if !first.is_empty() {
                self.network.send(self.now, stream, 0, first);
            }
        }
        if !bytes.is_empty() {
            self.network.send(self.now, stream, 0, bytes);
        }
        // Whoever comes after the clients of the load is patient.
        if (number as u64) < self.script.settings.clients {
            self.plan(timeout, Event::TimeOut { client: number, pipeline });
        }
    }

    /// The client asks and asks, and reads nothing: some never, some later.
    fn flood(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let (stream, server) = (client.stream.expect("just connected"), client.server);
        if client.floods >= FLOODS {
            return;
        }
        let never_reads = client.random.random_bool(0.5);
        let bytes = client.flood(if never_reads { 1200 } else { 50 });
        let later = Duration::from_millis(client.random.random_range(50..1000));
        self.give(server, Mail::Stuck(stream));
        self.network.send(self.now, stream, 0, bytes);
        if !never_reads {
            self.plan(later, Event::Unstick { server, stream });
        }
    }

    /// The client is gone with half a command sent, and its machine says nothing.
    fn vanish_half_open(&mut self, number: usize) {
        let stream = self.clients[number].stream.take().expect("just connected");
        let half = bytes::Bytes::from_static(b"*3\r\n$3\r\nSET\r\n$4\r\nxh");
        self.network.send(self.now, stream, 0, half);
        self.network.fall_silent(stream, 0);
        let pause = Duration::from_millis(200) + self.think(number);
        self.plan(pause, Event::Client { client: number });
    }

    fn think(&mut self, number: usize) -> Duration {
        let most = self.script.settings.think_ms.max(1) * 1000;
        Duration::from_micros(self.clients[number].random.random_range(0..most))
    }

    fn connect_client(&mut self, number: usize) -> bool {
        let nodes = self.script.settings.machines();
        // In the end who must have an answer asks those who can give one.
        let sound = if self.is_healing { self.sound() } else { Vec::new() };
        let client = &mut self.clients[number];
        let server = match sound.len() {
            0 => ServerId(client.random.random_range(1..=nodes)),
            count => sound[client.random.random_range(0..count)],
        };
        client.server = server;
        self.connect_client_to(number, server)
    }

    /// Sends these lines over the client's connection to its server; for one that a test steers.
    pub(super) fn client_sends_lines(&mut self, number: usize, lines: &[&str]) -> bool {
        let server = self.clients[number].server;
        if self.clients[number].stream.is_none() && !self.connect_client_to(number, server) {
            return false;
        }
        let bytes = self.clients[number].lines(lines);
        let stream = self.clients[number].stream.expect("it was just connected");
        self.network.send(self.now, stream, 0, bytes);
        true
    }

    fn connect_client_to(&mut self, number: usize, server: ServerId) -> bool {
        let (here, there) = (Host::Client(number), Host::Server(server));
        if self.node(server).is_none() || !self.network.passes(here, there) {
            return false;
        }
        let stream = self.network.connect(here, there);
        self.give(server, Mail::Accepted(stream, Gate::Client));
        self.clients[number].connected(stream, &mut self.recorder);
        true
    }

    /// So many connect and say nothing. What they are told nobody hears: for the world they are the
    /// connections of one client that never asked.
    pub(super) fn connect_idle_clients(&mut self, id: ServerId, count: u64) -> bool {
        if self.node(id).is_none() {
            return false;
        }
        let number = self.clients.len();
        let mut client = Client::new(number, self.random.clone(), &self.script.settings);
        client.told = Some(Vec::new());
        self.clients.push(client);
        for _ in 0..count {
            let stream = self.network.connect(Host::Client(number), Host::Server(id));
            self.give(id, Mail::Accepted(stream, Gate::Client));
        }
        true
    }

    pub(super) fn client_receives(&mut self, number: usize, stream: StreamId, bytes: &[u8]) {
        self.fold(self.now.0 ^ number as u64);
        self.fold(u64::from(crc32fast::hash(bytes)));
        let World { clients, recorder, now, .. } = self;
        let client = &mut clients[number];
        if !client.manner.listens() {
            return;
        }
        if client.stream == Some(stream) && client.receive(*now, bytes, recorder) {
            if client.is_unanswered() {
                // This server may never know: another is asked.
                self.drop_client(number);
                return;
            }
            let pause = self.think(number);
            self.plan(pause, Event::Client { client: number });
        }
    }

    pub(super) fn client_loses(&mut self, number: usize, stream: StreamId) {
        let World { clients, recorder, now, .. } = self;
        let client = &mut clients[number];
        if client.stream != Some(stream) {
            return;
        }
        client.disconnected(*now, recorder);
        let pause = self.think(number);
        self.plan(pause, Event::Client { client: number });
    }

    /// The client has waited enough for that pipeline, and goes elsewhere.
    pub(super) fn client_times_out(&mut self, number: usize, pipeline: u64) {
        let client = &self.clients[number];
        if client.pipelines != pipeline || !client.is_listening() {
            return;
        }
        self.strike("client-gives-up");
        self.drop_client(number);
    }

    pub(super) fn drop_client(&mut self, number: usize) {
        if let Some(stream) = self.clients[number].stream {
            self.network.close(self.now, stream, 0);
            self.client_loses(number, stream);
        }
    }

    /// The client's connection is reset with a half-sent command.
    pub(super) fn reset_client(&mut self, number: usize) -> bool {
        let Some(stream) = self.clients.get(number).and_then(|client| client.stream) else {
            return false;
        };
        self.network.send(self.now, stream, 0, bytes::Bytes::from_static(b"*3\r\n$3\r\nSET\r\n$2"));
        self.drop_client(number);
        true
    }
}
