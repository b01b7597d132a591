//! A cluster that a test steers by hand: connect, send, wait, kill, cut, heal.
//!
//! The same [`World`] as a seed's run, with all its checkers, but without a script's faults and
//! without clients of its own. Called by tests that read as plots. Simulates nothing itself.

use std::time::Duration;

use rand::RngExt;

use super::clients::Client;
use super::process::Mail;
use super::script::{Fault, Kind, Script, Settings};
use super::world::World;
use crate::node::{Input, Node};
use crate::proto::reply_decoder::Value;
use crate::types::{Instant, ServerId};

/// How long [`Cluster::call`] waits for its reply.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client's connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Connection(usize);

/// A cluster and its surroundings.
pub struct Cluster {
    world: World,
}

impl Cluster {
    /// A cluster of `nodes` servers in a quiet machine room; they start now.
    pub fn new(nodes: u64, seed: u64) -> Cluster {
        Cluster::with(seed, Settings { nodes, ..Cluster::calm() })
    }

    /// A cluster with the settings of a script. Clients of its own it has none.
    pub fn with(seed: u64, settings: Settings) -> Cluster {
        let settings = Settings { clients: 0, ..settings };
        Cluster { world: World::new(&Script { seed, settings, faults: Vec::new() }, false) }
    }

    /// What a quiet machine room is like.
    pub fn calm() -> Settings {
        Settings { request_timeout_ms: 5000, disk_min_us: 80, ..Settings::default() }
    }

    /// From now on nothing is lost or late.
    pub fn calm_down(&mut self) {
        let calm = Cluster::calm();
        let micros = Duration::from_micros;
        self.world.network.delay = (micros(calm.delay_min_us), micros(calm.delay_max_us));
        let latency = (micros(calm.disk_min_us), micros(calm.disk_max_us));
        for server in self.world.servers.values() {
            server.disk.with(|state| state.latency = latency);
        }
        self.world.script.settings.frame_loss_pm = 0;
        self.world.script.settings.copy_pm = 0;
    }

    /// What time it is in the world.
    pub fn now(&self) -> Instant {
        self.world.now
    }

    /// All servers.
    pub fn ids(&self) -> Vec<ServerId> {
        self.world.ids()
    }

    /// Servers that run.
    pub fn alive(&self) -> Vec<ServerId> {
        self.world.alive()
    }

    /// The node of a server that runs.
    pub fn node(&self, id: ServerId) -> Option<&Node> {
        self.world.node(id)
    }

    /// Who leads with the others' consent, if anyone does.
    pub fn leader(&self) -> Option<ServerId> {
        self.world.leader()
    }

    /// A digest of all that happened.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace_hash()
    }

    /// A number below `bound`.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.world.random.random_range(0..bound)
    }

    /// Lets a fault strike now; what its numbers mean is written at its kind.
    pub fn strike(&mut self, kind: Kind, a: u64, b: u64, c: u64) {
        self.world.strike_now(Fault { at_ms: 0, kind, a, b, c });
    }

    /// kill -9.
    pub fn kill(&mut self, id: ServerId) {
        self.world.kill(id);
    }

    /// Starts a server that is down.
    pub fn start(&mut self, id: ServerId) {
        self.world.start(id);
    }

    /// The disk of a server that is down is lost with everything on it, whoever else lost theirs.
    pub fn wipe(&mut self, id: ServerId) {
        assert!(self.node(id).is_none(), "a running server's disk stays");
        self.world.replace_disk(id);
    }

    /// No byte passes between the two any more, silently.
    pub fn cut(&mut self, a: ServerId, b: ServerId) {
        self.strike(Kind::Cut, a.0, b.0, 0);
        self.strike(Kind::Cut, b.0, a.0, 0);
    }

    /// Everyone hears everyone again.
    pub fn heal(&mut self) {
        self.strike(Kind::Heal, 0, 0, 0);
    }

    /// Asks the process to end.
    pub fn stop(&mut self, id: ServerId) {
        self.strike(Kind::Stop, id.0, 0, 0);
    }

    /// How often what the summary calls `name` has happened.
    pub fn struck(&self, name: &str) -> u64 {
        self.world.strikes.get(name).copied().unwrap_or(0)
    }

    /// A bit of a server's newest snapshot flips.
    pub fn damage_snapshot(&mut self, id: ServerId) {
        let damaged = self.world.servers[&id].disk.with(|state| state.media.damage_snapshot());
        assert!(damaged, "n{id} has a snapshot");
    }

    /// Puts an input before the node of a server, as if its driver had it from somewhere.
    pub fn give(&mut self, id: ServerId, input: Input) {
        self.world.checkers.lied_to.insert(id);
        self.world.give(id, Mail::Forged(input));
    }

    /// The state of a server is about to be wrong: the checkers look away, so that it is the other
    /// servers who have to find out.
    pub fn distrust(&mut self, id: ServerId) {
        self.world.checkers.distrusted.insert(id);
    }

    /// A client of that server. It connects when it first sends.
    pub fn connect(&mut self, id: ServerId) -> Connection {
        let number = self.world.clients.len();
        let random = self.world.random.clone();
        let mut client = Client::new(number, random, &self.world.script.settings);
        client.server = id;
        client.told = Some(Vec::new());
        self.world.clients.push(client);
        Connection(number)
    }

    /// Sends commands, each a line of words, at once.
    pub fn send(&mut self, connection: Connection, lines: &[&str]) {
        let sent = self.world.client_sends_lines(connection.0, lines);
        assert!(sent, "the server runs while a test talks to it");
    }

    /// The replies that came since the last call.
    pub fn replies(&mut self, connection: Connection) -> Vec<Value> {
        let told = &mut self.world.clients[connection.0].told;
        told.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Sends one command on a connection of its own and waits for its reply.
    pub fn call(&mut self, id: ServerId, line: &str) -> Value {
        let connection = self.connect(id);
        self.send(connection, &[line]);
        let deadline = self.now().after(PATIENCE);
        while self.now() < deadline {
            self.step();
            if let Some(reply) = self.replies(connection).pop() {
                return reply;
            }
        }
        panic!("no reply to '{line}' from n{id}");
    }

    /// Lets the next thing happen, within 10 ms.
    pub fn step(&mut self) {
        let until = self.now().after(Duration::from_millis(10));
        self.world.step(until);
    }

    /// Goes on for that long.
    pub fn run_for(&mut self, duration: Duration) {
        self.world.run_for(duration);
    }

    /// Runs until `done`, or fails after `patience` of virtual time.
    pub fn run_until(&mut self, patience: Duration, what: &str, done: impl Fn(&Cluster) -> bool) {
        let deadline = self.now().after(patience);
        while !done(self) {
            assert!(self.now() < deadline, "convergence: {what} not within {patience:?}");
            self.step();
        }
    }

    /// Runs until everyone alive has applied the leader's log.
    pub fn converge(&mut self, patience: Duration) {
        self.run_until(patience, "everyone alive has applied the leader's log", |cluster| {
            let leader = cluster.leader().and_then(|id| cluster.node(id));
            let Some(last) = leader.map(|node| node.status().last_log_index) else {
                return false;
            };
            let has_all = |id| cluster.node(id).is_some_and(|n| n.status().last_applied == last);
            cluster.alive().into_iter().all(has_all)
        });
    }
}
