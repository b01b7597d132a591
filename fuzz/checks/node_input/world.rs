//! The servers, the messages between them, and the time: one step for each choice of the input.
//!
//! Called by `node_input`. In the hostile world messages of the node's go nowhere, but may be
//! answered, well or badly; in the honest one they wait to be delivered in any order.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;

use raftkv::config::{Config, NodeConfig, Overrides};
use raftkv::limits;
use raftkv::node::{Input, Role};
use raftkv::proto::entry::EntryKind;
use raftkv::proto::hello::{Hello, HelloRefused, Refusal};
use raftkv::proto::message::{Message, Packet, ReadId, RequestVote};
use raftkv::proto::peer_message;
use raftkv::types::{
    Boot, ClusterId, CommandSet, Incarnation, Instant, Lineage, LogIndex, Nonce, Room, ServerId,
    Term, WallClock,
};

use super::Seen;
use super::forge::{self, KINDS};
use super::reader::Reader;
use super::server::{Server, incarnation};

/// Messages that wait; the oldest is lost when there are more.
const WAITING: usize = 128;
/// Rounds of good weather that heal everything; an election takes some ten.
const HEALING_ROUNDS: usize = 3000;
const NAME: &str = "main";
/// The flag of a world whose servers take snapshots all the time, and how much log makes one due.
pub const SNAPSHOTS: u8 = 32;
const SNAPSHOT_LOG_BYTES: u64 = 300;
/// The step that is a flood, and the byte behind it. A flood takes as long as many inputs without
/// one, so it has to be meant, and comes once.
pub const FLOOD: u8 = 0xf1;

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident),* $(,)?) => {
        /// What can happen next; in an input each is its number in this list.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Step {
            $($(#[$doc])* $step,)*
            /// More of one thing in one turn than may wait.
            Flood = FLOOD,
        }
        const ALL: &[Step] = &[$(Step::$step),*];
    };
}

steps! {
    /// The inputs so far were a turn.
    EndTurn,
    /// Good weather for some rounds: all mail arrives, all writes finish, time passes.
    Calm,
    /// One waiting message arrives; hostile: it is answered well.
    Deliver,
    /// One waiting message is lost.
    Lose,
    /// One waiting message will arrive twice.
    Double,
    /// The oldest writes become durable.
    Persist,
    /// Time passes until a server wants a tick, and it gets it.
    Tick,
    /// Some time passes.
    Wait,
    /// Clients send commands.
    Commands,
    /// A client goes, and perhaps another comes.
    Reconnect,
    /// A link comes up.
    LinkUp,
    /// A link goes down.
    LinkDown,
    /// A process is killed and started again.
    Restart,
    /// There is more or less room for the log.
    Room,
    /// A process is asked to end.
    Stop,
    /// A member says something (the next byte: what kind of message).
    Forge,
    /// The same, with entries: the richest kind, so it has a step of its own.
    Append,
    /// Mail for someone else.
    Misdirect,
    /// A hello that may not be in order, or a refusal of the node's own.
    Hello,
    /// A peer's frame of any bytes, through the decoder.
    Raw,
}

pub struct World {
    servers: Vec<Server>,
    members: u64,
    now: Instant,
    mail: Vec<Packet>,
    is_hostile: bool,
    is_flooded: bool,
    /// Who led in which term.
    leaders: BTreeMap<Term, ServerId>,
    /// What was applied at each index, where somebody has shown it before it was discarded.
    applied: BTreeMap<LogIndex, (Term, EntryKind, Bytes)>,
    /// Up to where each server's applied entries were compared.
    checked: Vec<LogIndex>,
}

impl World {
    pub fn new(reader: &mut Reader<'_>) -> World {
        let flags = reader.byte();
        let is_hostile = flags & 1 == 0;
        let members = [3, 1, 5, 2][usize::from(flags >> 1 & 3)];
        let mut config = config(members, flags & 8 != 0, flags & 16 != 0);
        if flags & SNAPSHOTS != 0 {
            config.storage.snapshot_log_bytes = SNAPSHOT_LOG_BYTES;
        }
        let real = if is_hostile { 1 } else { members };
        let now = Instant(1_000_000_000);
        let servers = (1..=real).map(|id| Server::new(ServerId(id), &config, now)).collect();
        let mut world = World {
            servers,
            members,
            now,
            mail: Vec::new(),
            is_hostile,
            is_flooded: false,
            leaders: BTreeMap::new(),
            applied: BTreeMap::new(),
            checked: vec![LogIndex::ZERO; real as usize],
        };
        world.link_all();
        world
    }

    pub fn seen(&self) -> Seen {
        let nodes = || self.servers.iter().map(|server| &server.node);
        Seen {
            trace: self.servers.iter().fold(0, |trace, one| trace.rotate_left(7) ^ one.trace),
            leaders: self.leaders.len(),
            applied: nodes().map(|node| node.status().last_applied.0).max().unwrap_or(0),
            replies: self.servers.iter().map(|server| server.replies).sum(),
            refused: nodes().map(|node| node.raft().refused_messages()).sum(),
            snapshots: nodes().filter(|node| node.status().snapshot.is_some()).count(),
            installs: self.servers.iter().map(|server| server.installs).sum(),
        }
    }

    /// The next byte says what happens, the ones behind it to whom and how.
    pub fn step(&mut self, reader: &mut Reader<'_>) {
        let step = match reader.byte() {
            FLOOD => Step::Flood,
            choice => ALL[usize::from(choice) % ALL.len()],
        };
        let at = if self.servers.len() > 1 { reader.below(self.servers.len()) } else { 0 };
        let now = self.now;
        match step {
            Step::EndTurn => self.servers[at].end_turn(now),
            Step::Calm => (0..=reader.below(24)).for_each(|_| self.calm()),
            Step::Deliver => self.deliver(reader.byte()),
            Step::Lose => drop(self.take_mail(reader.byte())),
            Step::Double => {
                if let Some(packet) = self.take_mail(reader.byte()) {
                    self.mail.extend([packet.clone(), packet]);
                }
            }
            Step::Persist => self.servers[at].persist(now, 1 + reader.below(4)),
            Step::Tick => self.tick(at),
            Step::Wait => self.wait(reader),
            Step::Commands => self.servers[at].send_commands(now, reader),
            Step::Reconnect => {
                let slot = reader.below(4);
                self.servers[at].disconnect(now, slot);
                if reader.flag() {
                    self.servers[at].connect(now, slot);
                }
            }
            Step::LinkUp => self.link_up(at, reader.below(self.members as usize)),
            Step::LinkDown => self.link_down(at, reader.below(self.members as usize)),
            Step::Restart => self.restart(at, reader.below(4)),
            Step::Room => {
                let room = [Room::Ample, Room::Scarce, Room::Exhausted][reader.below(3)];
                self.servers[at].has_room = room != Room::Exhausted;
                self.servers[at].handle(now, Input::LogRoom { room });
            }
            Step::Stop => {
                self.servers[at].is_stopping = true;
                self.servers[at].handle(now, Input::Stop);
            }
            Step::Misdirect => self.misdirect(at, reader),
            Step::Flood => {
                if self.is_hostile && !self.is_flooded && reader.byte() == FLOOD {
                    self.flood(reader);
                }
            }
            Step::Forge | Step::Append | Step::Hello | Step::Raw => {
                if self.is_hostile {
                    self.forge(step, reader);
                }
            }
        }
        self.collect();
        if self.servers[at].wants_to_exit() {
            self.restart(at, usize::MAX);
        }
        self.check();
    }

    /// Everything is well from now on: all commands are answered, and real servers agree.
    pub fn finish(&mut self) {
        let now = self.now;
        for at in 0..self.servers.len() {
            if self.servers[at].is_stopping {
                self.restart(at, usize::MAX);
            }
            self.servers[at].has_room = true;
            self.servers[at].handle(now, Input::LogRoom { room: Room::Ample });
            self.servers[at].end_turn(now);
        }
        self.collect();
        if !self.is_hostile {
            return self.converge();
        }
        // Nobody helps the node any more: it tells its clients what it knows, in time. A command
        // that waited behind a read begins to wait for itself when that read is given up.
        self.mail.clear();
        for _ in 0..4 {
            self.now = self.now.after(Duration::from_secs(6));
            let (now, wall) = (self.now, self.wall());
            let server = &mut self.servers[0];
            server.persist(now, usize::MAX);
            server.tick(now, wall);
            server.end_turn(now);
        }
        assert!(self.servers[0].has_answered_all(), "bounded: a command waits for ever");
    }

    fn converge(&mut self) {
        self.link_all();
        for _ in 0..HEALING_ROUNDS {
            self.calm();
            self.check();
            if self.has_converged() {
                return;
            }
        }
        let states: Vec<_> = self.servers.iter().map(|server| server.node.status()).collect();
        panic!("convergence: not after {HEALING_ROUNDS} rounds: {states:#?}");
    }

    fn has_converged(&self) -> bool {
        let mut nodes = self.servers.iter().map(|server| &server.node);
        let Some(leader) = nodes.find(|node| node.raft().is_ready()) else {
            return false;
        };
        let last = leader.status().last_log_index;
        self.servers.iter().all(|server| {
            let status = server.node.status();
            status.last_applied == last
                && status.leader == Some(leader.status().server)
                && server.has_answered_all()
        })
    }

    fn wall(&self) -> WallClock {
        WallClock(1_700_000_000_000 + self.now.0 / 1_000_000)
    }

    /// One round of good weather: turns for all, then time passes until someone wants a tick.
    fn calm(&mut self) {
        let mail = std::mem::take(&mut self.mail);
        for packet in mail {
            if self.is_hostile {
                self.answer(&packet);
            } else {
                self.arrive(packet);
            }
        }
        let (now, wall) = (self.now, self.wall());
        for server in &mut self.servers {
            server.persist(now, usize::MAX);
            server.tick(now, wall);
            server.end_turn(now);
        }
        self.collect();
        let is_busy = |s: &Server| s.disk.writes_under_way() > 0 || s.has_reports();
        if self.mail.is_empty() && !self.servers.iter().any(is_busy) {
            let wanted = self.servers.iter().map(|server| server.node.deadline(now)).min();
            let latest = now.after(Duration::from_millis(100));
            self.now = now.max(wanted.unwrap_or(latest).min(latest));
        }
    }

    fn tick(&mut self, at: usize) {
        let wanted = self.servers[at].node.deadline(self.now);
        // A key may want its tick in a hundred years.
        let latest = self.now.after(Duration::from_secs(3600));
        self.now = self.now.max(wanted.min(latest));
        let (now, wall) = (self.now, self.wall());
        self.servers[at].tick(now, wall);
    }

    fn wait(&mut self, reader: &mut Reader<'_>) {
        let duration = match reader.byte() {
            byte @ 0..=127 => Duration::from_micros(u64::from(byte) * 100),
            byte @ 128..=251 => Duration::from_millis(u64::from(byte - 127) * 10),
            252..=253 => Duration::from_secs(6),
            _ => Duration::from_secs(3 * 3600),
        };
        self.now = self.now.after(duration);
    }

    fn deliver(&mut self, choice: u8) {
        let Some(packet) = self.take_mail(choice) else { return };
        if self.is_hostile {
            self.answer(&packet);
        } else {
            self.arrive(packet);
        }
    }

    fn take_mail(&mut self, choice: u8) -> Option<Packet> {
        let count = self.mail.len();
        (count > 0).then(|| self.mail.remove(usize::from(choice) % count))
    }

    /// Takes what the servers have sent.
    fn collect(&mut self) {
        for server in &mut self.servers {
            self.mail.append(&mut server.outbox);
        }
        let surplus = self.mail.len().saturating_sub(WAITING);
        self.mail.drain(..surplus);
    }

    fn arrive(&mut self, packet: Packet) {
        let at = (packet.envelope.to.0 - 1) as usize;
        let now = self.now;
        if let Some(server) = self.servers.get_mut(at) {
            server.receive(now, packet);
        }
    }

    /// Hostile, but here like a good member.
    fn answer(&mut self, packet: &Packet) {
        if let Some(message) = forge::answer(packet) {
            self.hear(packet.envelope.to, message);
        }
    }

    /// The one real server hears this from another.
    fn hear(&mut self, from: ServerId, message: Message) {
        let server = &mut self.servers[0];
        let envelope = forge::envelope(ClusterId::from_name(NAME), from, server.id);
        server.receive(self.now, Packet { envelope, message });
    }

    fn forge(&mut self, step: Step, reader: &mut Reader<'_>) {
        let from = ServerId(2 + reader.below(4) as u64);
        match step {
            Step::Hello => self.forge_hello(reader, from),
            Step::Raw => {
                let decoded = peer_message::decode(&Bytes::copy_from_slice(reader.bytes(96)));
                if let Ok(Packet { message, .. }) = decoded
                    && !matches!(message, Message::AppendEntries(_))
                {
                    self.hear(from, message);
                }
            }
            Step::Append => {
                let message = forge::message(reader, forge::Kind::Append, &self.servers[0], from);
                self.hear(from, message);
            }
            _ => {
                let kind = KINDS[reader.below(KINDS.len())];
                let message = forge::message(reader, kind, &self.servers[0], from);
                self.hear(from, message);
            }
        }
    }

    /// What is over a bound is dropped, or not taken any more; see `limits.rs` at each.
    fn flood(&mut self, reader: &mut Reader<'_>) {
        self.is_flooded = true;
        let from = ServerId(2 + reader.below(4) as u64);
        let (now, raft) = (self.now, self.servers[0].node.raft());
        let question = RequestVote {
            term: raft.current_term().next(),
            pre_vote: false,
            transfer: false,
            bootstrap: raft.membership().is_empty(),
            last_log_index: raft.log().last_index(),
            last_log_term: raft.log().last_term(),
        };
        match reader.below(3) {
            0 => return self.servers[0].flood_commands(now),
            1 => (0..2 * limits::WITHHELD_MESSAGES)
                .for_each(|_| self.hear(from, Message::RequestVote(question))),
            _ => (0..2 * limits::LEADER_READ_REQUESTS as u64).for_each(|number| {
                self.hear(from, Message::ReadIndex { id: ReadId { boot: Boot(1), number } });
            }),
        }
        self.servers[0].end_turn(now);
    }

    fn forge_hello(&mut self, reader: &mut Reader<'_>, from: ServerId) {
        let now = self.now;
        let to = self.servers[0].id;
        let mut hello = hello(from, to, Boot(1 + reader.below(3) as u64));
        match reader.below(16) {
            0 => hello.cluster = "other".to_owned(),
            1 => hello.receiver = from,
            2 => hello.sender = to,
            3 => hello.sender_incarnation = Incarnation(reader.number()),
            4 => hello.nonce = Nonce(reader.number()),
            5 => hello.boot = Boot(reader.number()),
            // From here on the node is one that lost its disk, until it is started again.
            6 if reader.one_in(4) => hello.receiver_incarnation = Incarnation(5),
            7 if reader.one_in(4) => {
                let text = "an old copy".to_owned();
                let refused = HelloRefused { code: Refusal::OldCopy, text };
                self.servers[0].node.hello_refused(now, Some(from), &refused);
                return;
            }
            _ => {}
        }
        self.servers[0].hear_hello(now, &hello);
    }

    /// Mail for someone else changes nothing.
    fn misdirect(&mut self, at: usize, reader: &mut Reader<'_>) {
        let from = ServerId(1 + reader.below(self.members as usize) as u64);
        let now = self.now;
        let server = &mut self.servers[at];
        let kind = KINDS[reader.below(KINDS.len())];
        let message = forge::message(reader, kind, server, from);
        let right = forge::envelope(ClusterId::from_name(NAME), from, server.id);
        let envelope = forge::wrong_envelope(reader, right);
        let known = server.node.raft().incarnation_of(envelope.from);
        if envelope == right
            || known == Some(envelope.from_incarnation)
                && envelope.to == right.to
                && envelope.to_incarnation == right.to_incarnation
                && envelope.cluster == right.cluster
        {
            return;
        }
        let before = format!("{:?}", server.node.raft());
        server.handle(now, Input::Receive { packet: Packet { envelope, message } });
        assert_eq!(format!("{:?}", server.node.raft()), before, "mail for someone else counts");
    }

    fn link_all(&mut self) {
        for at in 0..self.servers.len() {
            (0..self.members as usize).for_each(|other| self.link_up(at, other));
        }
    }

    /// Both sides say hello, where both are real.
    fn link_up(&mut self, at: usize, other: usize) {
        if at == other {
            return;
        }
        let now = self.now;
        let (a, b) = (ServerId(at as u64 + 1), ServerId(other as u64 + 1));
        if self.is_hostile {
            self.servers[0].hear_hello(now, &hello(b, a, Boot(1)));
        } else if !self.servers[at].links.contains(&b) {
            let hellos =
                [(at, b), (other, a)].map(|(from, to)| self.servers[from].node.hello_to(to));
            let accepted = [(other, &hellos[0]), (at, &hellos[1])]
                .map(|(to, hello)| self.servers[to].hear_hello(now, hello));
            assert_eq!(accepted, [true, true], "honest servers accept each other");
        }
    }

    fn link_down(&mut self, at: usize, other: usize) {
        let now = self.now;
        self.servers[at].unlink(now, ServerId(other as u64 + 1));
        if let Some(server) = self.servers.get_mut(other) {
            server.unlink(now, ServerId(at as u64 + 1));
        }
    }

    fn restart(&mut self, at: usize, finished_writes: usize) {
        let now = self.now;
        let id = self.servers[at].id;
        self.servers[at].restart(now, finished_writes);
        self.checked[at] = LogIndex::ZERO;
        for other in 0..self.servers.len() {
            self.servers[other].unlink(now, id);
        }
        for other in 0..self.members as usize {
            self.link_up(at, other);
        }
    }

    /// What must hold of all servers together. Where others lie, only their leaders are counted.
    fn check(&mut self) {
        let majority = self.servers.len() / 2 + 1;
        for (at, server) in self.servers.iter().enumerate() {
            let status = server.node.status();
            if status.role == Role::Leader {
                let leader = *self.leaders.entry(status.current_term).or_insert(server.id);
                assert_eq!(leader, server.id, "election-safety: in {}", status.current_term);
            }
            if self.is_hostile {
                return;
            }
            assert_eq!(server.node.raft().refused_messages(), 0, "election-safety");
            while self.checked[at] < status.last_applied {
                let index = self.checked[at].next();
                self.checked[at] = index;
                let Some(entry) = server.node.raft().log().entry(index) else {
                    // It came in a snapshot, or was discarded behind one.
                    continue;
                };
                let seen = (entry.term, entry.kind, entry.payload.clone());
                if let Some(known) = self.applied.get(&index) {
                    assert_eq!(known, &seen, "state-machine-safety: at {index}");
                    continue;
                }
                let holds = |one: &&Server| {
                    one.disk.covers(index) || one.disk.term_at(index) == Some(entry.term)
                };
                let holders = self.servers.iter().filter(holds).count();
                assert!(holders >= majority, "durable-before-ack: {index} on {holders} disks");
                self.applied.insert(index, seen);
            }
        }
    }
}

fn hello(from: ServerId, to: ServerId, boot: Boot) -> Hello {
    Hello {
        role: raftkv::proto::hello::Role::Peer,
        cluster: NAME.to_owned(),
        sender: from,
        receiver: to,
        sender_incarnation: incarnation(from),
        receiver_incarnation: incarnation(to),
        boot,
        nonce: Nonce(boot.0),
        membership_index: LogIndex(1),
        lineage: Lineage::ZERO,
        is_blank: false,
        command_set: CommandSet::FIRST,
    }
}

fn config(members: u64, lease: bool, has_quota: bool) -> Config {
    static DEFAULTS: OnceLock<Config> = OnceLock::new();
    let defaults = DEFAULTS.get_or_init(|| {
        let mut config = Config::single(&Overrides::default()).expect("the defaults are sound");
        config.cluster.name = NAME.to_owned();
        config
    });
    let mut config = defaults.clone();
    config.raft.lease = lease;
    config.limits.max_memory = if has_quota { 1000 } else { 0 };
    config.cluster.nodes = (1..=members)
        .map(|id| NodeConfig {
            id: ServerId(id),
            peer: format!("10.0.0.{id}:7201"),
            client: format!("10.0.0.{id}:7101"),
            http: None,
        })
        .collect();
    config
}
