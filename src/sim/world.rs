//! The world: servers, network, disks, clocks and clients on one queue of events, from one seed.
//!
//! [`World::step`] goes to the next event and lets it happen; a server's turn ([`super::turns`])
//! follows on its mail.
//! All chance comes from the script's seed, so the same script gives the same trace. Called by
//! [`super::run`] and by tests that steer a cluster by hand. The faults are in [`super::faults`].

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::ambush::Mailbag;
use super::checkers::Checkers;
use super::clients::Client;
use super::disk::SimDisk;
use super::history::Recorder;
use super::link::Gate;
use super::network::{Arrival, Host, Network, Plan, StreamId};
use super::operators::Request;
use super::process::{Callee, Mail};
use super::script::{Fault, Script};
use super::server::{Server, client_address, peer_address};
use super::story::Story;
use super::timekeepers::{self, Timekeepers};
use super::upgrades;
use super::watchers::Watcher;
use crate::config::{Config, NodeConfig, Overrides, Readmit};
use crate::node::{Node, Role};
use crate::types::{Instant, ServerId};

/// Where every simulated server keeps its data.
pub(super) const DIR: &str = "/data";
/// Where its log is.
pub(super) const LOG: &str = "/data/log";
/// Where its snapshots are.
pub(super) const SNAP: &str = "/data/snap";

/// When the world begins: an instant that no overflow is near to.
pub(super) const BEGIN: Instant = Instant(1_000_000_000);

/// Something that happens.
pub(super) enum Event {
    Arrive {
        stream: StreamId,
        end: usize,
        what: Arrival,
    },
    GiveUp {
        stream: StreamId,
        end: usize,
    },
    /// The kernel finds out that nobody is at the other end any more.
    Silence {
        stream: StreamId,
        end: usize,
    },
    Dial {
        from: ServerId,
        callee: Callee,
        life: u64,
    },
    Connected {
        from: ServerId,
        callee: Callee,
        life: u64,
        stream: StreamId,
    },
    DialFailed {
        from: ServerId,
        callee: Callee,
        life: u64,
    },
    Copy {
        from: ServerId,
        to: ServerId,
        frame: Bytes,
        is_late: bool,
    },
    Disk {
        server: ServerId,
        life: u64,
        number: u64,
    },
    Turn {
        server: ServerId,
    },
    Start {
        server: ServerId,
    },
    Client {
        client: usize,
    },
    TimeOut {
        client: usize,
        pipeline: u64,
    },
    Fault {
        place: usize,
    },
    Cut {
        from: ServerId,
        to: ServerId,
        is_cut: bool,
    },
    /// A client hears and is heard again, as well as ever.
    ClientHeard {
        client: usize,
    },
    Watcher {
        watcher: usize,
    },
    WatchEnds {
        watcher: usize,
        watch: u64,
    },
    /// An operator looks what became of a request.
    Operator {
        request: usize,
    },
    /// What an earlier fault has led up to.
    Strike {
        fault: Fault,
    },
    /// The damage strikes for which a server was stopped.
    Ruin {
        fault: Fault,
    },
    /// A client reads again.
    Unstick {
        server: ServerId,
        stream: StreamId,
    },
}

/// Everything.
pub struct World {
    /// What time it is, which no server knows.
    pub now: Instant,
    pub(super) script: Script,
    pub(super) servers: BTreeMap<ServerId, Server>,
    pub(super) network: Network,
    pub(super) mailbag: Mailbag,
    pub(super) clients: Vec<Client>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) recorder: Recorder,
    pub(super) timekeepers: Timekeepers,
    /// What operators ask for.
    pub(super) requests: Vec<Request>,
    pub(super) checkers: Checkers,
    pub(super) random: Xoshiro256PlusPlus,
    pub(super) story: Story,
    pub(super) is_healing: bool,
    pub(super) strikes: BTreeMap<&'static str, u64>,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    pub(super) config: Config,
    trace_hash: u64,
    /// Time in which everybody slept: it costs nothing and proves little.
    pub(super) slept: Duration,
    /// Until then everybody sleeps.
    pub(super) sleeps_until: Instant,
    /// Members may come and go in this run.
    pub(super) changes_members: bool,
    /// Operators have replaced whatever was damaged.
    pub(super) is_repaired: bool,
    /// An operator has moved machines back, and has yet to look where they are known to be.
    pub(super) is_relocating: bool,
    /// An operator has said FORCE.
    pub(super) has_forced: bool,
}

impl World {
    /// A cluster whose servers all start now, and whose faults are planned.
    pub fn new(script: &Script, tells: bool) -> World {
        let settings = &script.settings;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(script.seed);
        let mut fork = || Xoshiro256PlusPlus::seed_from_u64(random.random_range(0..=u64::MAX));
        let micros = Duration::from_micros;
        let delay = (micros(settings.delay_min_us), micros(settings.delay_max_us));
        let network = Network::new(fork(), delay, settings.loss_pm);
        let latency = (micros(settings.disk_min_us), micros(settings.disk_max_us));
        let clients =
            (0..settings.clients as usize).map(|n| Client::new(n, fork(), settings)).collect();
        let disks: Vec<SimDisk> =
            (0..settings.machines()).map(|_| SimDisk::new(fork(), latency)).collect();
        let mut world = World {
            now: BEGIN,
            script: script.clone(),
            servers: BTreeMap::new(),
            network,
            mailbag: Mailbag::new(script),
            clients,
            watchers: Watcher::all(script.seed, settings),
            requests: Vec::new(),
            recorder: Recorder::new(timekeepers::expiry_slack(script)),
            timekeepers: Timekeepers::new(script),
            checkers: Checkers::new(settings.nodes as usize),
            random,
            story: Story::new(tells),
            is_healing: false,
            strikes: BTreeMap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            config: config_of(script),
            trace_hash: 0xcbf2_9ce4_8422_2325,
            slept: Duration::ZERO,
            sleeps_until: Instant::ZERO,
            changes_members: settings.spares > 0
                || settings.readmit > 0
                || settings.repair > 0
                || script.faults.iter().any(|fault| fault.kind.is_request()),
            is_repaired: false,
            is_relocating: false,
            has_forced: false,
        };
        for (id, disk) in (1..).map(ServerId).zip(disks) {
            if settings.rough_disks > 0 {
                disk.roughen();
            }
            world.add_server(id, disk);
        }
        for client in 0..world.clients.len() {
            world.plan(Duration::from_millis(1), Event::Client { client });
        }
        for watcher in 0..world.watchers.len() {
            world.plan(Duration::from_millis(1), Event::Watcher { watcher });
        }
        for (place, fault) in script.faults.iter().enumerate() {
            world.plan(Duration::from_millis(fault.at_ms), Event::Fault { place });
        }
        for id in (1..=settings.nodes).map(ServerId) {
            world.start(id);
        }
        world
    }

    fn add_server(&mut self, id: ServerId, disk: SimDisk) {
        let bound = self.script.settings.skew_ppm as i64;
        let ppm = self.random.random_range(-bound..=bound);
        if ppm != 0 {
            self.strike("clock-skew");
        }
        let is_spare = id.0 > self.script.settings.nodes;
        let build = upgrades::first_build(&self.script.settings);
        let server = Server::new(disk, ppm, build, is_spare);
        self.servers.insert(id, server);
    }

    /// All servers, running or not.
    pub fn ids(&self) -> Vec<ServerId> {
        self.servers.keys().copied().collect()
    }

    /// The node of a server that runs.
    pub fn node(&self, id: ServerId) -> Option<&Node> {
        self.servers[&id].process.as_ref().map(|process| &process.node)
    }

    /// Servers that run.
    pub fn alive(&self) -> Vec<ServerId> {
        self.servers.iter().filter(|(_, s)| s.process.is_some()).map(|(id, _)| *id).collect()
    }

    /// Who leads with the others' consent, if anyone does.
    pub fn leader(&self) -> Option<ServerId> {
        let leads = |id: &ServerId| {
            self.node(*id)
                .is_some_and(|node| node.status().role == Role::Leader && node.raft().is_ready())
        };
        let term = |id: &ServerId| self.node(*id).map(|node| node.status().current_term);
        self.alive().into_iter().filter(leads).max_by_key(term)
    }

    /// A digest of everything that happened so far: the same for the same script, anywhere.
    pub fn trace_hash(&self) -> u64 {
        self.trace_hash
    }

    pub(super) fn strike(&mut self, name: &'static str) {
        *self.strikes.entry(name).or_default() += 1;
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        self.story.tell(self.now, what);
    }

    pub(super) fn plan(&mut self, delay: Duration, event: Event) {
        self.plan_at(self.now.after(delay), event);
    }

    fn plan_at(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.events.insert((at.max(self.now), self.next_event), event);
    }

    pub(super) fn fold(&mut self, word: u64) {
        self.trace_hash = (self.trace_hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Lets the next event happen, unless it is later than `until`: then time goes there.
    pub fn step(&mut self, until: Instant) {
        let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) else {
            self.now = self.now.max(until);
            return;
        };
        self.now = entry.key().0;
        let event = entry.remove();
        self.happen(event);
        self.plan_network();
    }

    /// Goes on for that long.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now.after(duration);
        while self.now < until {
            self.step(until);
        }
    }

    fn plan_network(&mut self) {
        for (host, stream) in self.network.take_writable() {
            if let Host::Server(id) = host {
                self.give(id, Mail::Writable(stream));
            }
        }
        for plan in self.network.take_plans() {
            match plan {
                Plan::Arrive { at, stream, end, what } => {
                    self.plan_at(at, Event::Arrive { stream, end, what });
                }
                Plan::GiveUp { at, stream, end } => {
                    self.plan_at(at, Event::GiveUp { stream, end });
                }
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn { server } => {
                self.turn(server);
                self.look_at_clock(server);
            }
            Event::Arrive { stream, end, what } => {
                if let Some((host, what)) = self.network.arrive(stream, end, what) {
                    self.arrived(host, stream, what);
                }
            }
            Event::GiveUp { stream, end } => {
                if self.network.give_up(self.now, stream, end) {
                    self.give_up(stream, end);
                }
            }
            Event::Silence { stream, end } => {
                if self.network.is_alone(stream, end) {
                    self.give_up(stream, end);
                }
            }
            Event::Dial { from, callee, life } => self.dial(from, callee, life),
            Event::Connected { from, callee, life, stream } => {
                if self.servers[&from].life == life {
                    self.give(from, Mail::Connected(callee, stream));
                }
            }
            Event::DialFailed { from, callee, life } if self.servers[&from].life == life => {
                self.give(from, Mail::DialFailed(callee));
            }
            Event::DialFailed { .. } => {}
            Event::Copy { from, to, frame, is_late } => {
                self.strike(if is_late { "frame-hours-late" } else { "copied-frame" });
                self.copy_arrives(from, to, frame);
            }
            Event::Disk { server, life, number } => self.disk_done(server, life, number),
            Event::Start { server } => self.start(server),
            Event::Client { client } => self.client_acts(client),
            Event::TimeOut { client, pipeline } => self.client_times_out(client, pipeline),
            Event::Fault { place } => {
                if !self.is_healing {
                    self.strike_fault(place);
                }
            }
            Event::Cut { from, to, is_cut } => {
                if is_cut && !self.is_healing {
                    self.network.cut.insert((from, to));
                } else if self.network.cut.remove(&(from, to)) {
                    self.network.release(self.now);
                }
            }
            Event::ClientHeard { client } => self.client_is_heard(client),
            Event::Watcher { watcher } => self.watcher_acts(watcher),
            Event::WatchEnds { watcher, watch } => self.watcher_moves_on(watcher, watch),
            Event::Operator { request } => self.look_after_request(request),
            Event::Strike { fault } => {
                if !self.is_healing {
                    self.strike_now(fault);
                }
            }
            Event::Ruin { fault } => self.ruin(fault),
            Event::Unstick { server, stream } => self.give(server, Mail::Unstuck(stream)),
        }
    }

    fn arrived(&mut self, host: Host, stream: StreamId, what: Arrival) {
        match (host, what) {
            (Host::Server(id), Arrival::Bytes(bytes)) => {
                self.give(id, Mail::Bytes(stream, bytes));
            }
            (Host::Server(id), Arrival::Closed) => self.give(id, Mail::Closed(stream)),
            (Host::Client(client), Arrival::Bytes(bytes)) => {
                self.client_receives(client, stream, &bytes);
            }
            (Host::Client(client), Arrival::Closed) => self.client_loses(client, stream),
            (Host::Watcher(watcher), Arrival::Bytes(bytes)) => {
                self.watcher_receives(watcher, stream, &bytes);
            }
            (Host::Watcher(watcher), Arrival::Closed) => self.watcher_loses(watcher, stream),
        }
    }

    pub(super) fn give_up(&mut self, stream: StreamId, end: usize) {
        let Some(host) = self.network.host(stream, end) else {
            return;
        };
        self.network.vanish(stream, end);
        self.strike("connection-given-up");
        self.arrived(host, stream, Arrival::Closed);
    }

    fn dial(&mut self, from: ServerId, callee: Callee, life: u64) {
        if self.servers[&from].life != life {
            return;
        }
        let delay = self.network.draw_delay();
        let Some(to) = self.resident(callee.address()) else {
            return self.plan(delay, Event::DialFailed { from, callee, life });
        };
        let lives_at = self.network.who_lives_at(to);
        let (here, there) = (Host::Server(from), Host::Server(lives_at));
        if lives_at == from {
            // At this address it meets itself, which is as good as nobody.
            return self.plan(delay, Event::DialFailed { from, callee, life });
        }
        if !self.network.passes(here, there) || !self.network.passes(there, here) {
            return;
        }
        if lives_at != to {
            self.strike("misrouted-dial");
        }
        if self.servers[&lives_at].process.is_none() {
            self.plan(delay, Event::DialFailed { from, callee, life });
            return;
        }
        let stream = self.network.connect(here, there);
        self.give(lives_at, Mail::Accepted(stream, Gate::Peer));
        self.plan(delay, Event::Connected { from, callee, life, stream });
    }

    /// Whose machine has that address: nobody's once it has moved elsewhere.
    fn resident(&self, address: &str) -> Option<ServerId> {
        let is_there = |(id, server): &(&ServerId, &Server)| server.address(**id) == address;
        self.servers.iter().find(is_there).map(|(id, _)| *id)
    }

    fn disk_done(&mut self, id: ServerId, life: u64, number: u64) {
        let server = &self.servers[&id];
        if server.life != life || !server.disk.finish(number) {
            return;
        }
        if server.disk.with(|state| state.has_crashed()) {
            return self.crash(id);
        }
        server.disk.with(|state| self.checkers.disk_moved(id, &state.media));
        self.fold(self.now.0 ^ number);
        self.give(id, Mail::Disk);
    }

    /// Puts mail before a running server, and wakes it.
    pub(super) fn give(&mut self, id: ServerId, mail: Mail) {
        let server = self.servers.get_mut(&id).expect("a server of this world");
        if server.process.is_some() {
            server.mail.push(mail);
            self.wake(id, self.now);
        }
    }

    /// A turn at `at`, or as soon after it as the server can.
    pub(super) fn wake(&mut self, id: ServerId, at: Instant) {
        let now = self.now;
        let server = self.servers.get_mut(&id).expect("a server of this world");
        let at = at.max(now).max(server.busy_until).max(server.paused_until);
        if at == Instant::NEVER || server.turn_at.is_some_and(|planned| planned <= at) {
            return;
        }
        server.turn_at = Some(at);
        self.plan_at(at, Event::Turn { server: id });
    }

    pub(super) fn plan_disk(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let life = server.life;
        for (number, takes) in server.disk.take_fresh() {
            self.plan(takes, Event::Disk { server: id, life, number });
        }
    }
}

fn config_of(script: &Script) -> Config {
    let settings = &script.settings;
    let millis = Duration::from_millis;
    let mut config = Config::single(&Overrides::default()).expect("the defaults are sound");
    config.cluster.nodes = (1..=settings.nodes)
        .map(|id| NodeConfig {
            id: ServerId(id),
            peer: peer_address(ServerId(id), 0),
            client: client_address(ServerId(id), 0),
            http: None,
        })
        .collect();
    if settings.readmit > 0 {
        config.cluster.readmit = Readmit::Auto;
    }
    config.raft.election_timeout =
        (millis(settings.election_min_ms), millis(settings.election_max_ms));
    config.raft.heartbeat = millis(settings.heartbeat_ms);
    config.client.request_timeout = millis(settings.request_timeout_ms);
    config.raft.lease = settings.lease > 0;
    config.storage.segment_bytes = settings.segment_kib * 1024;
    if settings.snapshot_kib > 0 {
        config.storage.snapshot_log_bytes = settings.snapshot_kib * 1024;
    }
    config
}
