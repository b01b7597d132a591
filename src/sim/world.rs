//! The world: servers, network, disks, clocks and clients on one queue of events, from one seed.
//!
//! [`World::step`] goes to the next event and lets it happen; a server's turn follows on its mail.
//! All chance comes from the script's seed, so the same script gives the same trace. Called by
//! [`super::run`] and by tests that steer a cluster by hand. The faults are in [`super::faults`].

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::checkers::Checkers;
use super::clients::Client;
use super::disk::SimDisk;
use super::history::Recorder;
use super::link::Gate;
use super::media::Media;
use super::network::{Arrival, Host, Network, Plan, StreamId};
use super::process::{Mail, Output, Process};
use super::rules::Rules;
use super::script::{Kind, Script};
use super::story::Story;
use crate::config::{Config, NodeConfig, Overrides};
use crate::node::{Effect, Node, Role};
use crate::proto::message::Message;
use crate::types::{Boot, Instant, LogIndex, ServerId, WallClock};

/// Where every simulated server keeps its data.
pub(super) const DIR: &str = "/data";
/// Where its log is.
pub(super) const LOG: &str = "/data/log";

/// When the world begins: an instant that no overflow is near to.
pub(super) const BEGIN: Instant = Instant(1_000_000_000);

/// What the wall clocks show then, in milliseconds.
const WALL_BEGIN_MS: u64 = 1_700_000_000_000;

/// Turns in a row, less than a millisecond apart, in which a server does nothing.
const IDLE_TURNS: u32 = 1000;

/// Something that happens.
pub(super) enum Event {
    Arrive { stream: StreamId, end: usize, what: Arrival },
    GiveUp { stream: StreamId, end: usize },
    Dial { from: ServerId, to: ServerId, life: u64 },
    Connected { from: ServerId, to: ServerId, life: u64, stream: StreamId },
    DialFailed { from: ServerId, to: ServerId, life: u64 },
    Copy { to: ServerId, frame: Bytes },
    Disk { server: ServerId, life: u64, number: u64 },
    Turn { server: ServerId },
    Start { server: ServerId },
    Client { client: usize },
    TimeOut { client: usize, pipeline: u64 },
    Fault { place: usize },
    Cut { from: ServerId, to: ServerId, is_cut: bool },
}

/// How a server's clocks differ from the world's time.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// How many millionths too fast it runs.
    ppm: i64,
    /// How far the wall clock is off, in milliseconds.
    pub wall_ms: i64,
}

impl Clock {
    pub(super) fn local(self, now: Instant) -> Instant {
        let passed = i128::from(now.0) * i128::from(1_000_000 + self.ppm) / 1_000_000;
        Instant(passed as u64)
    }

    /// The first moment at which it shows `local`.
    fn world(self, local: Instant) -> Instant {
        if local == Instant::NEVER {
            return local;
        }
        let passed = i128::from(local.0) * 1_000_000 / i128::from(1_000_000 + self.ppm);
        Instant(passed as u64 + 1)
    }

    fn wall(self, now: Instant) -> WallClock {
        let true_ms = WALL_BEGIN_MS + now.0 / 1_000_000;
        WallClock(true_ms.saturating_add_signed(self.wall_ms))
    }
}

/// A server: its machine, and its process if it runs.
pub(super) struct Server {
    pub disk: SimDisk,
    pub process: Option<Process>,
    /// Grows with each end of the process, so that what was meant for a former one is told apart.
    pub life: u64,
    pub clock: Clock,
    pub mail: Vec<Mail>,
    pub(super) turn_at: Option<Instant>,
    busy_until: Instant,
    pub paused_until: Instant,
    /// The process dies behind so many outputs of its next turn.
    pub kill_behind: Option<usize>,
    /// The newest boot of its directory.
    pub boot: Boot,
    /// Whose boots it has met, as its meta file has them.
    pub met: BTreeMap<ServerId, Boot>,
    /// A copy of its disk, and the boot it was taken in.
    pub saved: Option<(Media, Boot)>,
    /// It runs on an old copy of its disk.
    pub is_copy: bool,
    /// What was done to its log: it must not start on it.
    pub rotten: Option<String>,
    last_turn: Instant,
    idle_turns: u32,
}

/// Everything.
pub struct World {
    /// What time it is, which no server knows.
    pub now: Instant,
    pub(super) script: Script,
    pub(super) servers: BTreeMap<ServerId, Server>,
    pub(super) network: Network,
    pub(super) clients: Vec<Client>,
    pub(super) recorder: Recorder,
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
            (0..settings.nodes).map(|_| SimDisk::new(fork(), latency)).collect();
        let has_jumps = script.faults.iter().any(|fault| fault.kind == Kind::WallJump);
        let mut world = World {
            now: BEGIN,
            script: script.clone(),
            servers: BTreeMap::new(),
            network,
            clients,
            recorder: Recorder::new((!has_jumps).then(|| expiry_slack(script))),
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
        };
        for (id, disk) in (1..).map(ServerId).zip(disks) {
            world.add_server(id, disk);
        }
        for client in 0..world.clients.len() {
            world.plan(Duration::from_millis(1), Event::Client { client });
        }
        for (place, fault) in script.faults.iter().enumerate() {
            world.plan(Duration::from_millis(fault.at_ms), Event::Fault { place });
        }
        for id in world.ids() {
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
        let server = Server {
            disk,
            process: None,
            life: 0,
            clock: Clock { ppm, wall_ms: 0 },
            mail: Vec::new(),
            turn_at: None,
            busy_until: Instant::ZERO,
            paused_until: Instant::ZERO,
            kill_behind: None,
            boot: Boot::ZERO,
            met: BTreeMap::new(),
            saved: None,
            is_copy: false,
            rotten: None,
            last_turn: Instant::ZERO,
            idle_turns: 0,
        };
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

    fn fold(&mut self, word: u64) {
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
            Event::Turn { server } => self.turn(server),
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
            Event::Dial { from, to, life } => self.dial(from, to, life),
            Event::Connected { from, to, life, stream } => {
                if self.servers[&from].life == life {
                    self.give(from, Mail::Connected(to, stream));
                }
            }
            Event::DialFailed { from, to, life } if self.servers[&from].life == life => {
                self.give(from, Mail::DialFailed(to));
            }
            Event::DialFailed { .. } => {}
            Event::Copy { to, frame } => self.give(to, Mail::Copy(frame)),
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
        }
    }

    fn give_up(&mut self, stream: StreamId, end: usize) {
        let Some(host) = self.network.host(stream, end) else {
            return;
        };
        self.network.vanish(stream, end);
        self.strike("connection-given-up");
        self.arrived(host, stream, Arrival::Closed);
    }

    fn dial(&mut self, from: ServerId, to: ServerId, life: u64) {
        let (here, there) = (Host::Server(from), Host::Server(to));
        if self.servers[&from].life != life
            || !self.network.passes(here, there)
            || !self.network.passes(there, here)
        {
            return;
        }
        let delay = self.network.draw_delay();
        if self.servers[&to].process.is_none() {
            self.plan(delay, Event::DialFailed { from, to, life });
            return;
        }
        let stream = self.network.connect(here, there);
        self.give(to, Mail::Accepted(stream, Gate::Peer));
        self.plan(delay, Event::Connected { from, to, life, stream });
    }

    fn disk_done(&mut self, id: ServerId, life: u64, number: u64) {
        let server = &self.servers[&id];
        if server.life != life || !server.disk.finish(number) {
            return;
        }
        server.disk.with(|state| self.checkers.disk_moved(id, &state.media));
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

    /// One turn of one server.
    fn turn(&mut self, id: ServerId) {
        let now = self.now;
        let server = self.servers.get_mut(&id).expect("a server of this world");
        if server.turn_at != Some(now) {
            return;
        }
        server.turn_at = None;
        let Some(process) = server.process.as_mut() else {
            return;
        };
        if server.paused_until > now {
            return self.wake(id, now);
        }
        let mail = std::mem::take(&mut server.mail);
        let has_mail = !mail.is_empty();
        let (local, wall) = (server.clock.local(now), server.clock.wall(now));
        if let Err(error) = process.take_turn(local, wall, mail) {
            return self.die(id, &error);
        }
        server.met.extend(process.met.drain(..));
        if let Some(role) = self.checkers.after_turn(id, &process.node) {
            let term = process.node.status().current_term;
            self.story.tell(now, || format!("n{id} is {}, term {term}", role.name()));
        }
        for effect in &process.effects {
            if let Effect::Send { packet } = effect {
                self.checkers.sends(id, packet);
                if let Message::Vote(vote) = &packet.message
                    && vote.granted
                    && !vote.pre_vote
                {
                    let (to, term) = (packet.envelope.to, vote.term);
                    self.story.tell(now, || format!("n{id} votes for n{to}, term {term}"));
                }
            }
        }
        let applied = process.node.machine().last_applied();
        for client in process.answered() {
            let client = self.clients.iter().find(|other| other.stream == Some(client));
            Rules::answers(id, applied, client.map_or(LogIndex::ZERO, |client| client.floor));
        }
        let has_effects = !process.effects.is_empty();
        self.carry_out(id);
        self.settle(id, has_mail || has_effects);
    }

    fn carry_out(&mut self, id: ServerId) {
        let World { servers, random, script, .. } = self;
        let server = servers.get_mut(&id).expect("a server of this world");
        let process = server.process.as_mut().expect("it is its turn");
        let settings = &script.settings;
        let is_calm = self.is_healing;
        let mut copies = Vec::new();
        let mut lost = 0;
        let outputs = process.carry_out(|packet, frame| {
            let mut chance = |pm: u64| pm > 0 && random.random_range(0..1000) < pm;
            if is_calm {
                return false;
            }
            if chance(settings.copy_pm) {
                let is_late = chance(settings.hours_pm);
                copies.push((packet.envelope.to, Bytes::copy_from_slice(frame), is_late));
            }
            let is_lost = chance(settings.frame_loss_pm);
            lost += u64::from(is_lost);
            is_lost
        });
        *self.strikes.entry("lost-frame").or_default() += lost;
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => return self.die(id, &error),
        };
        for (to, frame, is_late) in copies {
            self.copy(to, frame, is_late);
        }
        let kill_behind = self.servers[&id].kill_behind;
        for (count, output) in outputs.into_iter().enumerate() {
            if kill_behind.is_some_and(|bound| count >= bound) {
                break;
            }
            self.output(id, output);
        }
        if kill_behind.is_some() {
            self.tell(|| format!("n{id} is killed in the middle of its turn"));
            self.kill(id);
        }
    }

    /// A frame will arrive a second time, out of order.
    fn copy(&mut self, to: ServerId, frame: Bytes, is_late: bool) {
        let most = match is_late {
            true => 3 * 3_600_000,
            false => self.script.settings.copy_delay_ms.max(1),
        };
        self.strike(if is_late { "frame-hours-late" } else { "copied-frame" });
        let delay = Duration::from_millis(self.random.random_range(0..most));
        self.plan(delay, Event::Copy { to, frame });
    }

    fn output(&mut self, id: ServerId, output: Output) {
        let host = Host::Server(id);
        match output {
            Output::Dial(to) => {
                let life = self.servers[&id].life;
                let delay = self.network.draw_delay();
                self.plan(delay, Event::Dial { from: id, to, life });
            }
            Output::Send(stream, bytes) => {
                self.fold(self.now.0);
                self.fold(u64::from(crc32fast::hash(&bytes)));
                if let Some(end) = self.network.end_of(stream, host) {
                    self.network.send(self.now, stream, end, bytes);
                }
            }
            Output::Close(stream) => {
                if let Some(end) = self.network.end_of(stream, host) {
                    self.network.close(self.now, stream, end);
                }
            }
        }
    }

    /// What follows on a turn: the disk's operations, the next turn, or the end.
    fn settle(&mut self, id: ServerId, was_busy: bool) {
        let now = self.now;
        let turn_us = self.random.random_range(1..=self.script.settings.turn_us.max(1));
        let server = self.servers.get_mut(&id).expect("a server of this world");
        let Some(process) = server.process.as_ref() else {
            return;
        };
        let local = server.clock.local(now);
        if process.is_over(local) {
            return self.end(id);
        }
        let is_idle = !was_busy && now.since(server.last_turn) < Duration::from_millis(1);
        server.idle_turns = if is_idle { server.idle_turns + 1 } else { 0 };
        server.last_turn = now;
        let next = process.deadline(local);
        let status = process.node.status();
        assert!(server.idle_turns < IDLE_TURNS, "bounded: n{id} spins: {next:?} {status:?}");
        server.busy_until = now.after(Duration::from_micros(turn_us));
        let next = server.clock.world(next);
        self.plan_disk(id);
        self.wake(id, next);
    }
}

fn expiry_slack(script: &Script) -> Duration {
    // Skewed clocks may differ by twice their bound over all the time that the run can take.
    let suspended: u64 =
        script.faults.iter().filter(|f| f.kind == Kind::Suspend).map(|f| f.b * 60_000).sum();
    let all_ms = script.settings.chaos_ms + suspended + 60_000;
    Duration::from_millis(60 + all_ms * script.settings.skew_ppm * 2 / 1_000_000)
}

fn config_of(script: &Script) -> Config {
    let settings = &script.settings;
    let millis = Duration::from_millis;
    let mut config = Config::single(&Overrides::default()).expect("the defaults are sound");
    config.cluster.nodes = (1..=settings.nodes)
        .map(|id| NodeConfig {
            id: ServerId(id),
            peer: format!("10.0.0.{id}:7201"),
            client: format!("10.0.0.{id}:7101"),
            http: None,
        })
        .collect();
    config.raft.election_timeout =
        (millis(settings.election_min_ms), millis(settings.election_max_ms));
    config.raft.heartbeat = millis(settings.heartbeat_ms);
    config.client.request_timeout = millis(settings.request_timeout_ms);
    config.storage.segment_bytes = settings.segment_kib * 1024;
    config
}
