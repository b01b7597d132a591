//! The simulated network: connections that carry bytes in order, and everything that breaks them.
//!
//! A connection is two lanes; bytes arrive in order or not at all, as TCP has it. A cut path holds
//! what is sent until it heals or the sender's kernel gives the connection up. What arrives when is
//! said to the world, which owns time. Never looks into the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::limits;
use crate::types::{Instant, ServerId};

/// The kernel's first retransmission pause.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// A connection's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct StreamId(pub u64);

/// Who holds one end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Host {
    Server(ServerId),
    Client(usize),
    Watcher(usize),
}

/// What reaches an end of a connection.
#[derive(Clone, Debug)]
pub(super) enum Arrival {
    Bytes(Bytes),
    /// The connection is gone.
    Closed,
}

/// What the world has to plan.
pub(super) enum Plan {
    /// This reaches that end then.
    Arrive { at: Instant, stream: StreamId, end: usize, what: Arrival },
    /// If this lane is still held then, its sender gives up.
    GiveUp { at: Instant, stream: StreamId, end: usize },
}

#[derive(Default)]
struct Lane {
    last_arrival: Instant,
    held: Vec<Arrival>,
    held_since: Option<Instant>,
    in_flight: usize,
    /// Nobody reads at its end, though the path is fine.
    is_stalled: bool,
    /// Its sender waits until the kernel takes more.
    is_awaited: bool,
    /// The connection was reset: so many bytes still arrive, then it is gone.
    left: Option<usize>,
}

struct Stream {
    hosts: [Host; 2],
    is_open: [bool; 2],
    lanes: [Lane; 2],
}

/// The network between all hosts.
pub(super) struct Network {
    streams: BTreeMap<StreamId, Stream>,
    next_stream: u64,
    /// From whom to whom nothing passes.
    pub cut: BTreeSet<(ServerId, ServerId)>,
    /// Clients of whom nothing arrives, and such as nothing arrives at.
    pub unheard: BTreeSet<usize>,
    pub deafened: BTreeSet<usize>,
    /// Bytes a second that reach a client, where that is limited.
    pub slow_clients: BTreeMap<usize, u64>,
    /// Machines without power.
    pub dark: BTreeSet<ServerId>,
    /// Who lives at whose address, where that is somebody else.
    pub misrouted: BTreeMap<ServerId, ServerId>,
    /// Bytes a second from whom to whom, where that is limited.
    pub slow: BTreeMap<(ServerId, ServerId), u64>,
    pub delay: (Duration, Duration),
    pub loss_pm: u64,
    random: Xoshiro256PlusPlus,
    plans: Vec<Plan>,
    writable: Vec<(Host, StreamId)>,
    pub lost_segments: u64,
    pub half_frames: u64,
    pub slowed: u64,
}

impl Network {
    pub fn new(random: Xoshiro256PlusPlus, delay: (Duration, Duration), loss_pm: u64) -> Network {
        Network {
            streams: BTreeMap::new(),
            next_stream: 0,
            cut: BTreeSet::new(),
            unheard: BTreeSet::new(),
            deafened: BTreeSet::new(),
            slow_clients: BTreeMap::new(),
            dark: BTreeSet::new(),
            misrouted: BTreeMap::new(),
            slow: BTreeMap::new(),
            delay,
            loss_pm,
            random,
            plans: Vec::new(),
            writable: Vec::new(),
            lost_segments: 0,
            half_frames: 0,
            slowed: 0,
        }
    }

    /// What has to be planned since the last call.
    pub fn take_plans(&mut self) -> Vec<Plan> {
        std::mem::take(&mut self.plans)
    }

    /// Whose connections take bytes again, of those that were awaited.
    pub fn take_writable(&mut self) -> Vec<(Host, StreamId)> {
        std::mem::take(&mut self.writable)
    }

    /// How many bytes sent from that end wait in the kernels, or are under way.
    pub fn pending_bytes(&self, id: StreamId, end: usize) -> usize {
        let Some(lane) = self.streams.get(&id).map(|stream| &stream.lanes[end]) else {
            return 0;
        };
        let length = |what: &Arrival| match what {
            Arrival::Bytes(bytes) => bytes.len(),
            Arrival::Closed => 0,
        };
        lane.in_flight + lane.held.iter().map(length).sum::<usize>()
    }

    /// The host at that end wants to know when the kernel takes more. Whether there is anything
    /// that it could wait for.
    pub fn await_room(&mut self, id: StreamId, end: usize) -> bool {
        let waits = self.pending_bytes(id, end) > 0;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.lanes[end].is_awaited = waits;
        }
        waits
    }

    /// How long a segment travels.
    pub fn draw_delay(&mut self) -> Duration {
        let (least, most) = self.delay;
        let nanos = least.as_nanos() as u64..=most.as_nanos() as u64;
        Duration::from_nanos(self.random.random_range(nanos))
    }

    /// Whether something sent now would arrive.
    pub fn passes(&self, from: Host, to: Host) -> bool {
        let is_dark = |host| matches!(host, Host::Server(id) if self.dark.contains(&id));
        let is_cut = match (from, to) {
            (Host::Server(from), Host::Server(to)) => self.cut.contains(&(from, to)),
            (Host::Client(client), _) => self.unheard.contains(&client),
            (_, Host::Client(client)) => self.deafened.contains(&client),
            _ => false,
        };
        !is_dark(from) && !is_dark(to) && !is_cut
    }

    /// A new connection; both ends know of it already.
    pub fn connect(&mut self, from: Host, to: Host) -> StreamId {
        self.next_stream += 1;
        let id = StreamId(self.next_stream);
        let stream = Stream {
            hosts: [from, to],
            is_open: [true; 2],
            lanes: [Lane::default(), Lane::default()],
        };
        self.streams.insert(id, stream);
        id
    }

    /// Who answers at the address of `id`.
    pub fn who_lives_at(&self, id: ServerId) -> ServerId {
        self.misrouted.get(&id).copied().unwrap_or(id)
    }

    /// What is sent from that end from now on arrives after `until`.
    pub fn hold_up(&mut self, until: Instant, id: StreamId, end: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let lane = &mut stream.lanes[end];
            lane.last_arrival = lane.last_arrival.max(until);
        }
    }

    /// What `from` sends to `to` over the connections that they have now is no longer read.
    pub fn stall(&mut self, from: ServerId, to: ServerId) -> bool {
        let mut struck = false;
        for stream in self.streams.values_mut() {
            for end in 0..2 {
                let hosts = (stream.hosts[end], stream.hosts[1 - end]);
                if hosts == (Host::Server(from), Host::Server(to)) {
                    stream.lanes[end].is_stalled = true;
                    struck = true;
                }
            }
        }
        struck
    }

    /// Everybody reads again.
    pub fn read_on(&mut self) {
        for stream in self.streams.values_mut() {
            stream.lanes.iter_mut().for_each(|lane| lane.is_stalled = false);
        }
    }

    /// Whether that end is open, and the other one's machine is gone without a word.
    pub fn is_alone(&self, stream: StreamId, end: usize) -> bool {
        self.streams.get(&stream).is_some_and(|one| one.is_open[end] && !one.is_open[1 - end])
    }

    /// Who holds that end.
    pub fn host(&self, stream: StreamId, end: usize) -> Option<Host> {
        self.streams.get(&stream).map(|stream| stream.hosts[end])
    }

    /// Which end of the connection `host` holds.
    pub fn end_of(&self, stream: StreamId, host: Host) -> Option<usize> {
        self.streams.get(&stream)?.hosts.iter().position(|one| *one == host)
    }

    /// Sends bytes from one end.
    pub fn send(&mut self, now: Instant, id: StreamId, end: usize, bytes: Bytes) {
        self.push(now, id, end, Arrival::Bytes(bytes));
    }

    /// Closes one end; what was sent before still arrives, then the other end learns of it.
    pub fn close(&mut self, now: Instant, id: StreamId, end: usize) {
        self.push(now, id, end, Arrival::Closed);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_open[end] = false;
            if stream.is_open == [false; 2] {
                self.streams.remove(&id);
            }
        }
    }

    /// One end is gone without a word: its machine has lost its power.
    pub fn vanish(&mut self, id: StreamId, end: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_open[end] = false;
            stream.lanes[end].held.clear();
            stream.lanes[end].held_since = None;
            if stream.is_open == [false; 2] {
                self.streams.remove(&id);
            }
        }
    }

    /// One end hears and says nothing any more, but what it has sent still arrives, and nobody tells
    /// the other end.
    pub fn fall_silent(&mut self, id: StreamId, end: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.lanes[1 - end].is_stalled = true;
        }
    }

    fn push(&mut self, now: Instant, id: StreamId, end: usize, what: Arrival) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let (from, to) = (stream.hosts[end], stream.hosts[1 - end]);
        if !stream.is_open[end] {
            return;
        }
        if !stream.is_open[1 - end] {
            // Nobody is there any more: the kernel says so, if its answer passes.
            if self.passes(from, to) && self.passes(to, from) {
                let at = now.after(self.draw_delay()).after(self.draw_delay());
                let closed = Arrival::Closed;
                self.plans.push(Plan::Arrive { at, stream: id, end, what: closed });
                return;
            }
        }
        if !self.passes(from, to) || self.streams[&id].lanes[end].is_stalled {
            let stream = self.streams.get_mut(&id).expect("just seen");
            let lane = &mut stream.lanes[end];
            lane.held.push(what);
            if lane.held_since.is_none() {
                lane.held_since = Some(now);
                let at = now.after(limits::PEER_SILENCE);
                self.plans.push(Plan::GiveUp { at, stream: id, end });
            }
            return;
        }
        self.fly(now, id, end, what);
    }

    fn fly(&mut self, now: Instant, id: StreamId, end: usize, what: Arrival) {
        let mut delay = self.draw_delay();
        if self.loss_pm > 0 && self.random.random_range(0..1000) < self.loss_pm {
            self.lost_segments += 1;
            delay += RETRANSMISSION;
        }
        let stream = self.streams.get_mut(&id).expect("the caller has seen it");
        let lane = &mut stream.lanes[end];
        let length = match &what {
            Arrival::Bytes(bytes) => bytes.len(),
            Arrival::Closed => 0,
        };
        let mut at = now.after(delay);
        let rate = match (stream.hosts[end], stream.hosts[1 - end]) {
            (Host::Server(from), Host::Server(to)) => self.slow.get(&(from, to)),
            (Host::Server(_), Host::Client(client)) => self.slow_clients.get(&client),
            _ => None,
        };
        if let Some(rate) = rate {
            self.slowed += 1;
            let takes = Duration::from_nanos(length as u64 * 1_000_000_000 / rate.max(&1));
            at = at.max(lane.last_arrival).after(takes);
        }
        lane.in_flight += length;
        lane.last_arrival = at.max(lane.last_arrival);
        let at = lane.last_arrival;
        self.plans.push(Plan::Arrive { at, stream: id, end: 1 - end, what });
    }

    /// Something planned has come to `end`: what its host gets of it, if anything.
    pub fn arrive(&mut self, id: StreamId, end: usize, what: Arrival) -> Option<(Host, Arrival)> {
        let stream = self.streams.get_mut(&id)?;
        if !stream.is_open[end] {
            return None;
        }
        let host = stream.hosts[end];
        let lane = &mut stream.lanes[1 - end];
        let what = match (what, &mut lane.left) {
            (Arrival::Closed, _) => Arrival::Closed,
            (Arrival::Bytes(bytes), None) => {
                lane.in_flight = lane.in_flight.saturating_sub(bytes.len());
                if std::mem::take(&mut lane.is_awaited) {
                    self.writable.push((stream.hosts[1 - end], id));
                }
                Arrival::Bytes(bytes)
            }
            (Arrival::Bytes(_), Some(0)) => Arrival::Closed,
            (Arrival::Bytes(bytes), Some(left)) => {
                let length = bytes.len().min(*left);
                *left -= length;
                if length < bytes.len() {
                    self.half_frames += 1;
                }
                Arrival::Bytes(bytes.slice(..length))
            }
        };
        if let Arrival::Closed = what {
            stream.is_open[end] = false;
            if stream.is_open == [false; 2] {
                self.streams.remove(&id);
            }
        }
        Some((host, what))
    }

    /// A lane was held for too long: its sender's kernel gives the connection up.
    pub fn give_up(&mut self, now: Instant, id: StreamId, end: usize) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let lane = &mut stream.lanes[end];
        let is_due = lane.held_since.is_some_and(|at| now.since(at) >= limits::PEER_SILENCE);
        if is_due {
            lane.held.clear();
            lane.held_since = None;
        }
        is_due
    }

    /// Paths have changed: what was held and may pass again is on its way.
    pub fn release(&mut self, now: Instant) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            for end in 0..2 {
                let Some(stream) = self.streams.get_mut(&id) else {
                    continue;
                };
                let (from, to) = (stream.hosts[end], stream.hosts[1 - end]);
                let is_dead = !stream.is_open[1 - end];
                let lane = &stream.lanes[end];
                let is_held = lane.held_since.is_some() && !lane.is_stalled;
                if !is_held || !self.passes(from, to) {
                    continue;
                }
                let stream = self.streams.get_mut(&id).expect("just seen");
                stream.lanes[end].held_since = None;
                let held = std::mem::take(&mut stream.lanes[end].held);
                if is_dead {
                    let at = now.after(self.draw_delay());
                    let what = Arrival::Closed;
                    self.plans.push(Plan::Arrive { at, stream: id, end, what });
                    continue;
                }
                for what in held {
                    self.fly(now, id, end, what);
                }
            }
        }
    }

    /// The connections that a host holds an open end of.
    pub fn of(&self, host: Host) -> Vec<(StreamId, usize)> {
        let held = self.streams.iter().filter_map(|(id, stream)| {
            let end = stream.hosts.iter().position(|one| *one == host)?;
            stream.is_open[end].then_some((*id, end))
        });
        held.collect()
    }

    /// The ends of connections between servers that are busy with their backlog after `until`.
    pub fn clogged(&self, until: Instant) -> Vec<(StreamId, usize)> {
        let is_clogged = |stream: &Stream| {
            let between_servers = stream.hosts.iter().all(|host| matches!(host, Host::Server(_)));
            between_servers && stream.lanes.iter().any(|lane| lane.last_arrival > until)
        };
        let clogged = self.streams.iter().filter(|(_, stream)| is_clogged(stream));
        clogged.flat_map(|(id, _)| [(*id, 0), (*id, 1)]).collect()
    }

    /// The connections between two servers are reset in the middle of what is under way.
    pub fn reset(&mut self, now: Instant, a: ServerId, b: ServerId) -> bool {
        let pair = [Host::Server(a), Host::Server(b)];
        self.reset_all(now, |hosts| hosts.iter().all(|host| pair.contains(host)))
    }

    /// The same of a client's connections.
    pub fn reset_client(&mut self, now: Instant, client: usize) -> bool {
        self.reset_all(now, |hosts| hosts.contains(&Host::Client(client)))
    }

    fn reset_all(&mut self, now: Instant, is_meant: impl Fn(&[Host; 2]) -> bool) -> bool {
        let meant = self.streams.iter().filter(|(_, stream)| is_meant(&stream.hosts));
        let ids: Vec<StreamId> = meant.map(|(id, _)| *id).collect();
        for id in &ids {
            for end in 0..2 {
                let stream = self.streams.get_mut(id).expect("just seen");
                let lane = &mut stream.lanes[end];
                let left = self.random.random_range(0..=lane.in_flight);
                lane.left = Some(lane.left.map_or(left, |before| before.min(left)));
                let at = lane.last_arrival.max(now);
                let what = Arrival::Closed;
                self.plans.push(Plan::Arrive { at, stream: *id, end: 1 - end, what });
            }
        }
        !ids.is_empty()
    }
}
