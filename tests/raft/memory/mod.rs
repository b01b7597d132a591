//! A cluster in memory: several `Node`s, a virtual clock, and nothing else.
//!
//! One thread, one seed: the network delays, loses and duplicates packets (as bytes, through the
//! real codec), a disk makes writes durable some time after they were handed to it, and a crash
//! loses what it had not. The forerunner of the simulator; the core is the real one.

mod disk;
pub mod members;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use raftkv::config::{Config, NodeConfig, Overrides};
use raftkv::limits;
use raftkv::node::{ClientInfo, Effect, Input, Node, Requests, Role, SnapshotReader, Verdict};
use raftkv::proto::args::push_arg;
use raftkv::proto::entry::{EntryKind, Recovered};
use raftkv::proto::hello::{Hello, HelloRefused};
use raftkv::proto::peer_message;
use raftkv::proto::reply::Reply;
use raftkv::types::{
    Boot, ClientId, ClusterId, Identity, Incarnation, Instant, Lineage, LogIndex, Nonce, ServerId,
    SnapshotId, SnapshotKind, Term, WalSeq, WallClock,
};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

pub use disk::Disk;

/// How unkind the world is, in parts of a thousand and durations.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loss: u32,
    pub duplication: u32,
    pub delay: (Duration, Duration),
    pub sync: (Duration, Duration),
}

impl Weather {
    /// A quiet machine room.
    pub fn calm() -> Weather {
        let micros = Duration::from_micros;
        Weather {
            loss: 0,
            duplication: 0,
            delay: (micros(20), micros(80)),
            sync: (micros(80), micros(300)),
        }
    }

    /// Packets get lost, doubled and overtaken; the disk is slow.
    pub fn storm() -> Weather {
        let millis = Duration::from_millis;
        Weather {
            loss: 30,
            duplication: 30,
            delay: (millis(0), millis(25)),
            sync: (millis(0), millis(30)),
        }
    }
}

#[derive(Debug)]
enum Event {
    Packet { from: ServerId, to: ServerId, bytes: Bytes, life: u64 },
    Persisted { server: ServerId, life: u64, through: WalSeq },
    LinkUp { a: ServerId, b: ServerId },
    Snapshot { server: ServerId, life: u64, step: SnapshotStep },
}

/// What a disk does with snapshots, some time after it was asked to.
#[derive(Debug)]
enum SnapshotStep {
    Written { kind: SnapshotKind, id: SnapshotId, through: u64 },
    Finished { kind: SnapshotKind, id: SnapshotId, length: u64 },
    Read { id: SnapshotId, offset: u64, length: usize, reader: SnapshotReader },
}

struct Server {
    node: Option<Node>,
    disk: Disk,
    /// Whether it was started to join, and founds nothing.
    joins: bool,
    /// Where peers reach it, whatever the membership says.
    addresses: Vec<String>,
    /// How many disks it has had.
    disks: u64,
    boot: u64,
    /// Grows with each start, so that mail and completions of a former life are told apart.
    life: u64,
    inbox: Vec<Input>,
    clients: BTreeMap<ClientId, VecDeque<Reply>>,
    next_client: u32,
    closed: BTreeSet<ClientId>,
}

impl Server {
    fn new(id: ServerId, joins: bool) -> Server {
        Server {
            node: None,
            disk: Disk::default(),
            joins,
            addresses: vec![format!("10.0.0.{id}:7201")],
            disks: 0,
            boot: 0,
            life: 0,
            inbox: Vec::new(),
            clients: BTreeMap::new(),
            next_client: 0,
            closed: BTreeSet::new(),
        }
    }
}

/// The cluster.
pub struct Cluster {
    pub now: Instant,
    pub weather: Weather,
    servers: BTreeMap<ServerId, Server>,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    random: Xoshiro256PlusPlus,
    config: Config,
    /// Pairs between which no packet passes.
    cut: BTreeSet<(ServerId, ServerId)>,
    linked: BTreeSet<(ServerId, ServerId)>,
    /// Who led in which term: election-safety.
    leaders: BTreeMap<Term, ServerId>,
    /// What was applied at which index: state-machine-safety.
    applied: Vec<(Term, EntryKind, Bytes)>,
    checked: BTreeMap<ServerId, (u64, LogIndex)>,
    pub trace_hash: u64,
    /// Steps in which no time passed.
    idle_steps: u32,
}

/// The nodes 1 to `count`, as a configuration lists them.
pub fn listed(count: u64) -> Vec<NodeConfig> {
    let node = |id| NodeConfig {
        id: ServerId(id),
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: None,
    };
    (1..=count).map(node).collect()
}

impl Cluster {
    pub fn new(count: u64, seed: u64) -> Cluster {
        let mut config = Config::single(&Overrides::default()).expect("the defaults are sound");
        config.cluster.nodes = listed(count);
        Cluster::with_config(config, seed)
    }

    pub fn with_config(config: Config, seed: u64) -> Cluster {
        let mut cluster = Cluster {
            now: Instant(1_000_000_000),
            weather: Weather::calm(),
            servers: BTreeMap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            cut: BTreeSet::new(),
            linked: BTreeSet::new(),
            leaders: BTreeMap::new(),
            applied: Vec::new(),
            checked: BTreeMap::new(),
            trace_hash: 0,
            idle_steps: 0,
            config,
        };
        let ids: Vec<ServerId> = cluster.config.cluster.nodes.iter().map(|node| node.id).collect();
        for id in ids {
            cluster.servers.insert(id, Server::new(id, false));
            cluster.start(id);
        }
        cluster
    }

    /// Starts a server that wants to be let in.
    pub fn join(&mut self, id: ServerId) {
        assert!(!self.servers.contains_key(&id), "it is a server of this cluster already");
        self.servers.insert(id, Server::new(id, true));
        self.start(id);
    }

    pub fn ids(&self) -> Vec<ServerId> {
        self.servers.keys().copied().collect()
    }

    pub fn node(&self, id: ServerId) -> Option<&Node> {
        self.servers[&id].node.as_ref()
    }

    pub fn alive(&self) -> Vec<ServerId> {
        self.servers.iter().filter(|(_, s)| s.node.is_some()).map(|(id, _)| *id).collect()
    }

    /// A number below `bound`.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    fn draw_between(&mut self, bounds: (Duration, Duration)) -> Duration {
        let nanos = bounds.0.as_nanos() as u64..=bounds.1.as_nanos() as u64;
        Duration::from_nanos(self.random.random_range(nanos))
    }

    /// Starts a server from what its disk holds.
    pub fn start(&mut self, id: ServerId) {
        let seed = self.random.random_range(0..=u64::MAX);
        let now = self.now;
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        assert!(server.node.is_none(), "it runs already");
        server.boot += 1;
        server.life += 1;
        let identity = Identity {
            cluster: ClusterId::from_name(&self.config.cluster.name),
            server: id,
            incarnation: Incarnation(1000 + id.0 + 100 * server.disk.generation),
            boot: Boot(server.boot),
            nonce: Nonce(seed),
        };
        let (snapshot, entries) = server.disk.recover();
        let recovered = Recovered {
            identity,
            lineage: Lineage::ZERO,
            hard_state: server.disk.hard_state(),
            snapshot,
            entries,
            known_peers: server.disk.known_peers.values().copied().collect(),
            recovering: None,
        };
        let mut config = self.config.clone();
        config.id = id;
        if server.joins {
            config.join = config.cluster.nodes.iter().map(|node| node.peer.clone()).collect();
        }
        server.node = Some(Node::recover(&config, recovered, seed, now));
        server.inbox.clear();
        self.checked.remove(&id);
        for other in self.ids() {
            self.plan_link(id, other, Duration::from_millis(3));
        }
    }

    /// kill -9: what is not durable is lost, and the peers' kernels say so at once.
    pub fn kill(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        server.node = None;
        server.life += 1;
        server.clients.clear();
        server.inbox.clear();
        server.disk.crash();
        for other in self.ids() {
            self.unlink(id, other);
        }
    }

    /// The disk is lost with everything on it.
    pub fn wipe(&mut self, id: ServerId) {
        assert!(self.node(id).is_none(), "a running server's disk stays");
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        server.disks += 1;
        server.disk = Disk::replacement(server.disks);
        server.boot = 0;
    }

    /// The disk of a server that is down is put aside, and a new one takes its place.
    pub fn exchange_disk(&mut self, id: ServerId) -> (Disk, u64) {
        assert!(self.node(id).is_none(), "a running server's disk stays");
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        server.disks += 1;
        let replacement = Disk::replacement(server.disks);
        (std::mem::replace(&mut server.disk, replacement), std::mem::take(&mut server.boot))
    }

    /// A disk that was put aside is back.
    pub fn put_back(&mut self, id: ServerId, (disk, boot): (Disk, u64)) {
        assert!(self.node(id).is_none(), "a running server's disk stays");
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        server.disk = disk;
        server.boot = boot;
    }

    /// From now on peers reach a server there, and nowhere else.
    pub fn relocate(&mut self, id: ServerId, addresses: &[String]) {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        server.addresses = addresses.to_vec();
    }

    /// Where peers reach a server.
    pub fn addresses(&self, id: ServerId) -> &[String] {
        &self.servers[&id].addresses
    }

    /// The connection between the two ends, if there is one; whoever dials may dial again.
    pub fn reset_link(&mut self, a: ServerId, b: ServerId) {
        self.unlink(a, b);
        self.plan_link(a, b, Duration::from_millis(5));
    }

    /// No packet passes between them any more, silently.
    pub fn cut(&mut self, a: ServerId, b: ServerId) {
        self.cut.insert(pair(a, b));
    }

    /// Everyone hears everyone again, over new connections.
    pub fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.unlink(a, b);
            self.plan_link(a, b, Duration::from_millis(5));
        }
    }

    fn plan_link(&mut self, a: ServerId, b: ServerId, within: Duration) {
        if a != b {
            let delay = self.draw_between((Duration::ZERO, within));
            self.plan(delay, Event::LinkUp { a, b });
        }
    }

    fn unlink(&mut self, a: ServerId, b: ServerId) {
        if !self.linked.remove(&pair(a, b)) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            self.give(from, Input::PeerDown { peer: to });
        }
        // What was on the connection is lost with it.
        let gone = |event: &Event| matches!(event, Event::Packet { from, to, .. } if pair(*from, *to) == pair(a, b));
        self.events.retain(|_, event| !gone(event));
    }

    fn plan(&mut self, delay: Duration, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now.after(delay), self.next_event), event);
    }

    /// Puts an input into the inbox of a server that runs.
    pub fn give(&mut self, id: ServerId, input: Input) {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        if server.node.is_some() {
            server.inbox.push(input);
        }
    }

    /// Connects a client to a server.
    pub fn connect(&mut self, id: ServerId) -> ClientId {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        server.next_client += 1;
        let client = ClientId { slot: server.next_client, generation: 1 };
        server.clients.insert(client, VecDeque::new());
        let address: SocketAddr = "127.0.0.1:50000".parse().expect("an address");
        let info = ClientInfo { id: client.slot.into(), address, local_address: address };
        self.give(id, Input::ClientArrived { client, info });
        client
    }

    /// Sends commands, each a line of words, in one turn.
    pub fn send(&mut self, id: ServerId, client: ClientId, lines: &[&str]) {
        let mut requests = Requests::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            for word in &words {
                push_arg(requests.arena(), word.as_bytes());
            }
            requests.push_command(client, words.len() as u32);
        }
        self.give(id, Input::Requests { batch: requests });
    }

    /// The replies that came since the last call.
    pub fn replies(&mut self, id: ServerId, client: ClientId) -> Vec<Reply> {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        server
            .clients
            .get_mut(&client)
            .map(|replies| replies.drain(..).collect())
            .unwrap_or_default()
    }

    /// Sends one command on a connection of its own and waits for its reply.
    pub fn call(&mut self, id: ServerId, line: &str) -> Reply {
        let client = self.connect(id);
        self.send(id, client, &[line]);
        let deadline = self.now.after(Duration::from_secs(30));
        while self.now < deadline {
            self.step();
            if let Some(reply) = self.replies(id, client).pop() {
                return reply;
            }
        }
        panic!("no reply to '{line}' from server {id}");
    }

    /// Who leads with the others' consent, if anyone does.
    pub fn leader(&self) -> Option<ServerId> {
        let leads = |id: &ServerId| {
            self.node(*id)
                .is_some_and(|node| node.status().role == Role::Leader && node.raft().is_ready())
        };
        self.alive()
            .into_iter()
            .filter(leads)
            .max_by_key(|id| self.node(*id).expect("alive").status().current_term)
    }

    /// Runs until `done`, or fails after `patience` of virtual time.
    pub fn run_until(&mut self, patience: Duration, what: &str, done: impl Fn(&Cluster) -> bool) {
        let deadline = self.now.after(patience);
        while !done(self) {
            assert!(self.now < deadline, "convergence: {what} not within {patience:?}");
            self.step();
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        let deadline = self.now.after(duration);
        while self.now < deadline {
            self.step();
        }
    }

    /// Runs until everyone alive has applied the same, and somebody leads.
    pub fn converge(&mut self, patience: Duration) {
        self.run_until(patience, "everyone alive has applied the leader's log", |cluster| {
            let Some(leader) = cluster.leader() else {
                return false;
            };
            let last = cluster.node(leader).expect("alive").status().last_log_index;
            cluster
                .alive()
                .iter()
                .all(|id| cluster.node(*id).expect("alive").status().last_applied == last)
        });
    }

    /// Goes to the next thing that happens, and lets it happen.
    pub fn step(&mut self) {
        let next_event = self.events.keys().next().map_or(Instant::NEVER, |(at, _)| *at);
        let has_mail = self.servers.values().any(|server| !server.inbox.is_empty());
        let ticks = self.servers.values().filter_map(|server| server.node.as_ref());
        let next_tick = ticks.map(|node| node.deadline(self.now)).min().unwrap_or(Instant::NEVER);
        if !has_mail {
            let next = next_event.min(next_tick);
            // Everybody may be dead; time passes all the same.
            let next = next.min(self.now.after(Duration::from_millis(10)));
            self.idle_steps = if next > self.now { 0 } else { self.idle_steps + 1 };
            assert!(self.idle_steps < 1000, "bounded: a node spins: {:?}", self.deadlines());
            self.now = self.now.max(next);
        }
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now
        {
            let event = entry.remove();
            self.deliver(event);
        }
        for id in self.ids() {
            self.turn(id);
        }
        self.check();
    }

    fn deadlines(&self) -> Vec<(ServerId, Instant, raftkv::node::Status)> {
        let nodes = self.alive().into_iter().filter_map(|id| self.node(id));
        nodes.map(|node| (node.status().server, node.deadline(self.now), node.status())).collect()
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Packet { from, to, bytes, life } => {
                let is_same_life = self.servers[&to].life == life;
                if is_same_life && self.linked.contains(&pair(from, to)) {
                    let packet = peer_message::decode(&bytes).expect("a node encoded it");
                    self.give(to, Input::Receive { packet });
                }
            }
            Event::Persisted { server: id, life, through } => {
                let server = self.servers.get_mut(&id).expect("a server of this cluster");
                if server.life == life {
                    server.disk.sync(through);
                    self.give(id, Input::Persisted { through });
                }
            }
            Event::LinkUp { a, b } => self.link_up(a, b),
            Event::Snapshot { server, life, step } => self.snapshot_step(server, life, step),
        }
    }

    fn snapshot_step(&mut self, server_id: ServerId, life: u64, step: SnapshotStep) {
        let server = self.servers.get_mut(&server_id).expect("a server of this cluster");
        if server.life != life {
            return;
        }
        let input = match step {
            SnapshotStep::Written { kind, id, through } => {
                Input::SnapshotWritten { kind, id, through }
            }
            SnapshotStep::Finished { kind, id, length } => {
                if !server.disk.finish_snapshot(kind, id, length) {
                    return;
                }
                Input::SnapshotDurable { kind, id }
            }
            SnapshotStep::Read { id, offset, length, reader } => {
                let bytes = server.disk.read_snapshot(id, offset, length);
                Input::SnapshotRead { id, offset, bytes, reader }
            }
        };
        self.give(server_id, input);
    }

    /// One server's disk.
    pub fn disk(&mut self, id: ServerId) -> &mut Disk {
        &mut self.servers.get_mut(&id).expect("a server of this cluster").disk
    }

    /// Whoever dials the other does, as two drivers would, and tries again later if it is refused.
    fn link_up(&mut self, a: ServerId, b: ServerId) {
        let is_possible = self.node(a).is_some() && self.node(b).is_some();
        if !is_possible || self.linked.contains(&pair(a, b)) {
            return;
        }
        if self.cut.contains(&pair(a, b)) {
            return self.plan_link(a, b, Duration::from_millis(50));
        }
        let is_linked = [(a, b), (b, a)].into_iter().any(|(from, to)| self.dial(from, to));
        if !is_linked {
            self.plan_link(a, b, Duration::from_millis(250));
        }
    }

    /// `from` dials `to`, if it wants to and knows where. Whether both have accepted the other.
    fn dial(&mut self, from: ServerId, to: ServerId) -> bool {
        let now = self.now;
        let is_there = |address: &String| self.servers[&to].addresses.contains(address);
        let dialler = self.node(from).expect("the caller has seen it");
        let mut peers = dialler.peers().into_iter();
        let is_peer = peers.any(|peer| peer.id == to && peer.dial && is_there(&peer.address));
        if !is_peer && !dialler.asks_to_join().iter().any(is_there) {
            return false;
        }
        // Who asks to be let in does not know whom it reaches.
        let dialled = is_peer.then_some(to);
        let hello = dialler.hello_to(dialled.unwrap_or(ServerId::ZERO));
        let accepter = self.node_mut(to);
        let verdict = match accepter.judge_hello(now, &hello) {
            Ok(verdict) => verdict,
            Err(refused) => {
                self.node_mut(from).hello_refused(now, dialled, &refused);
                return false;
            }
        };
        self.greeted(to, &verdict);
        let answer = self.node(to).expect("just seen").hello_to(from);
        let verdict_of_answer = match self.node_mut(from).judge_hello(now, &answer) {
            Ok(verdict) => verdict,
            Err(refused) => {
                self.node_mut(to).hello_refused(now, Some(from), &refused);
                return false;
            }
        };
        self.greeted(from, &verdict_of_answer);
        self.linked.insert(pair(from, to));
        for (server, Verdict { peer, incarnation, .. }) in
            [(to, verdict), (from, verdict_of_answer)]
        {
            self.give(server, Input::PeerUp { peer, incarnation });
        }
        true
    }

    /// Somebody says hello to a server, and nothing more.
    pub fn greet(&mut self, id: ServerId, hello: &Hello) -> Result<Verdict, HelloRefused> {
        let now = self.now;
        let verdict = self.node_mut(id).judge_hello(now, hello)?;
        self.greeted(id, &verdict);
        let Verdict { peer, incarnation, .. } = verdict;
        self.node_mut(id).handle(now, Input::PeerUp { peer, incarnation }, &mut Vec::new());
        Ok(verdict)
    }

    fn node_mut(&mut self, id: ServerId) -> &mut Node {
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        server.node.as_mut().expect("the caller has seen it")
    }

    /// What a hello asks to be remembered is, as the storage does it.
    fn greeted(&mut self, id: ServerId, verdict: &Verdict) {
        let known = &mut self.disk(id).known_peers;
        known.extend(verdict.record.map(|identity| (identity.server, identity)));
        assert!(known.len() <= limits::KNOWN_PEERS, "bounded: the storage refuses more");
    }

    /// One turn of one server's loop.
    fn turn(&mut self, id: ServerId) {
        let now = self.now;
        let wall = WallClock(1_700_000_000_000 + now.0 / 1_000_000);
        let server = self.servers.get_mut(&id).expect("a server of this cluster");
        let Some(node) = server.node.as_mut() else {
            return;
        };
        let inbox = std::mem::take(&mut server.inbox);
        let is_due = now >= node.deadline(now);
        if inbox.is_empty() && !is_due {
            return;
        }
        let mut effects = Vec::new();
        for input in inbox {
            node.handle(now, input, &mut effects);
        }
        if is_due {
            node.handle(now, Input::Tick { wall }, &mut effects);
        }
        node.handle(now, Input::EndOfTurn, &mut effects);
        node.take_notices();
        let linked = self.linked.iter().filter(|(a, b)| *a == id || *b == id);
        let others = linked.map(|(a, b)| if *a == id { *b } else { *a });
        let strangers: Vec<ServerId> = others.filter(|other| !node.knows(*other)).collect();
        for effect in effects {
            self.carry_out(id, effect);
        }
        for stranger in strangers {
            self.unlink(id, stranger);
            self.plan_link(id, stranger, Duration::from_secs(2));
        }
    }

    fn carry_out(&mut self, id: ServerId, effect: Effect) {
        match effect {
            Effect::Persist { seq, write } => {
                let delay = self.draw_between(self.weather.sync);
                let server = self.servers.get_mut(&id).expect("a server of this cluster");
                let due = server.disk.write(self.now.after(delay), seq, write);
                let life = server.life;
                let event = Event::Persisted { server: id, life, through: seq };
                self.plan(due.since(self.now), event);
            }
            Effect::Send { packet } => {
                let to = packet.envelope.to;
                let mut bytes = Vec::new();
                peer_message::encode(&packet, &mut bytes);
                let bytes = Bytes::from(bytes);
                self.trace_hash =
                    self.trace_hash.wrapping_mul(31) ^ u64::from(crc32fast::hash(&bytes));
                let copies = if self.chance(self.weather.duplication) { 2 } else { 1 };
                for _ in 0..copies {
                    let is_cut = self.cut.contains(&pair(id, to));
                    if is_cut || self.chance(self.weather.loss) || !self.servers.contains_key(&to) {
                        continue;
                    }
                    let delay = self.draw_between(self.weather.delay);
                    let life = self.servers[&to].life;
                    let bytes = bytes.clone();
                    self.plan(delay, Event::Packet { from: id, to, bytes, life });
                }
            }
            Effect::Reply { client, reply, .. } => {
                let server = self.servers.get_mut(&id).expect("a server of this cluster");
                if let Some(replies) = server.clients.get_mut(&client) {
                    replies.push_back(reply);
                }
            }
            Effect::Push { .. } => panic!("no client of these tests listens"),
            Effect::Close { client } => {
                self.servers.get_mut(&id).expect("a server").closed.insert(client);
            }
            effect => self.carry_out_snapshot(id, effect),
        }
    }

    fn carry_out_snapshot(&mut self, server_id: ServerId, effect: Effect) {
        let delay = self.draw_between(self.weather.sync);
        let server = self.servers.get_mut(&server_id).expect("a server of this cluster");
        let step = match effect {
            Effect::WriteSnapshot { kind, id, offset, bytes } => {
                let through = server.disk.write_snapshot(kind, id, offset, &bytes);
                SnapshotStep::Written { kind, id, through }
            }
            Effect::FinishSnapshot { kind, id, length } => {
                SnapshotStep::Finished { kind, id, length }
            }
            Effect::AbandonSnapshot { kind } => return server.disk.abandon_snapshot(kind),
            Effect::CompactLog { through } => return server.disk.compact(through.0),
            Effect::Diverged(divergence) => panic!("state-machine-safety: {divergence:?}"),
            Effect::ReadSnapshot { id, offset, length, reader } => {
                SnapshotStep::Read { id, offset, length, reader }
            }
            other => panic!("not an effect on snapshots: {other:?}"),
        };
        let life = server.life;
        self.plan(delay, Event::Snapshot { server: server_id, life, step });
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.random.random_range(0..1000) < per_mille
    }

    /// The invariants that need to see everyone.
    fn check(&mut self) {
        for id in self.alive() {
            let node = self.servers[&id].node.as_ref().expect("alive");
            let status = node.status();
            if status.role == Role::Leader {
                let leader = *self.leaders.entry(status.current_term).or_insert(id);
                assert_eq!(leader, id, "election-safety: two leaders in {}", status.current_term);
            }
            let life = self.servers[&id].life;
            let (_, checked) = self.checked.get(&id).copied().unwrap_or_default();
            let mut index = checked.next();
            while index <= status.last_applied {
                let Some(entry) = node.raft().log().entry(index) else {
                    // It came in a snapshot, or was discarded behind one.
                    index = index.next();
                    continue;
                };
                let seen = (entry.term, entry.kind, entry.payload.clone());
                match self.applied.get(index.0 as usize - 1) {
                    Some(known) => assert_eq!(known, &seen, "state-machine-safety at {index}"),
                    None => {
                        let holds = |id: ServerId| {
                            let server = self.servers.get(&id);
                            server.is_some_and(|server| server.disk.has_durable(entry))
                        };
                        // Which one decided depends on when it was committed: the one in force
                        // at its index, or one behind it.
                        let last = node.raft().log().last_index().0;
                        let memberships = (index.0..=last)
                            .filter_map(|at| node.raft().membership_at(LogIndex(at)));
                        assert!(
                            memberships.into_iter().any(|(_, one)| one.is_quorum(holds)),
                            "durable-before-ack: {index} is applied and not on a majority's disks"
                        );
                        assert_eq!(self.applied.len() as u64, index.0 - 1, "somebody showed each");
                        self.applied.push(seen);
                    }
                }
                index = index.next();
            }
            self.checked.insert(id, (life, status.last_applied));
        }
    }
}

fn pair(a: ServerId, b: ServerId) -> (ServerId, ServerId) {
    (a.min(b), a.max(b))
}
