//! Faults, drawn from a seed: processes killed and paused, links cut in one direction or both.
//!
//! They overlap, and end by themselves; `heal` ends them all. Every kind strikes once before any
//! strikes again. Called by the tests of chaos; it runs in their own thread, since a node ends
//! with the thread that started it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::network::{Cut, Network, Side};
use crate::common::Cluster;

/// How long a fault lasts, in milliseconds: from less than an election timeout to many.
const LASTS_MS: std::ops::Range<u64> = 50..2_500;
/// How long until the next one, in milliseconds.
const NEXT_MS: std::ops::Range<u64> = 50..1_200;
/// How often what is over is looked for.
const TURN: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    KillAny,
    KillLeader,
    KillAll,
    PauseAny,
    PauseLeader,
    CutOneWay,
    /// Nobody hears the leader.
    MuteLeader,
    /// The leader hears nobody.
    DeafLeader,
    Split,
    /// Two sides that only one node hears both of.
    Bridge,
    Flap,
}

pub const KINDS: [Kind; 11] = [
    Kind::KillAny,
    Kind::KillLeader,
    Kind::KillAll,
    Kind::PauseAny,
    Kind::PauseLeader,
    Kind::CutOneWay,
    Kind::MuteLeader,
    Kind::DeafLeader,
    Kind::Split,
    Kind::Bridge,
    Kind::Flap,
];

/// What is broken now, and for how long.
pub struct Faults<'a> {
    pub cluster: &'a mut Cluster,
    network: &'a Network,
    random: Xoshiro256PlusPlus,
    began: Instant,
    /// Whom faults strike, by position; two at least.
    pub members: Vec<usize>,
    /// How long until the next fault, in milliseconds.
    pub next_ms: std::ops::Range<u64>,
    bag: Vec<Kind>,
    /// When a killed node comes back.
    down: BTreeMap<usize, Instant>,
    /// When a paused node goes on.
    paused: BTreeMap<usize, Instant>,
    cuts: Vec<(Cut, Instant)>,
    pub struck: BTreeMap<Kind, usize>,
}

impl<'a> Faults<'a> {
    pub fn new(cluster: &'a mut Cluster, network: &'a Network, seed: u64) -> Faults<'a> {
        Faults {
            members: (0..cluster.nodes.len()).collect(),
            next_ms: NEXT_MS,
            cluster,
            network,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            began: Instant::now(),
            bag: Vec::new(),
            down: BTreeMap::new(),
            paused: BTreeMap::new(),
            cuts: Vec::new(),
            struck: BTreeMap::new(),
        }
    }

    /// Strikes again and again, for so long.
    pub fn rage(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.strike_once();
        }
    }

    /// One fault, and the wait for the next.
    pub fn strike_once(&mut self) {
        let kind = self.draw();
        self.strike(kind);
        *self.struck.entry(kind).or_default() += 1;
        let pause = self.span(self.next_ms.clone());
        self.wait_until(Instant::now() + pause);
    }

    /// Nobody strikes this node any more, and it is stopped for good.
    pub fn retire(&mut self, position: usize) {
        self.members.retain(|member| *member != position);
        self.paused.remove(&position);
        self.down.remove(&position);
        self.cluster.kill(position);
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.say("heal everything".to_owned());
        self.expire(None);
        assert!(self.down.is_empty() && self.paused.is_empty() && self.cuts.is_empty());
    }

    /// Every kind once, in a random order, and again.
    fn draw(&mut self) -> Kind {
        if self.bag.is_empty() {
            self.bag = KINDS.to_vec();
        }
        let at = self.random.random_range(0..self.bag.len());
        self.bag.swap_remove(at)
    }

    fn strike(&mut self, kind: Kind) {
        let members = self.members.clone();
        let first = self.random.random_range(0..members.len());
        let second = (first + self.random.random_range(1..members.len())) % members.len();
        let (any, other) = (members[first], members[second]);
        let leader = self.leader().unwrap_or(any);
        let until = Instant::now() + self.span(LASTS_MS);
        let others = |one: usize| members.iter().copied().filter(move |&other| other != one);
        match kind {
            Kind::KillAny => self.kill(any, until),
            Kind::KillLeader => self.kill(leader, until),
            Kind::KillAll => {
                self.cluster.kill_all();
                self.paused.clear();
                self.down = members.iter().map(|position| (*position, until)).collect();
            }
            Kind::PauseAny => self.pause(any, until),
            Kind::PauseLeader => self.pause(leader, until),
            Kind::CutOneWay => self.cut([(any, other)], until),
            Kind::MuteLeader => self.cut(others(leader).map(|other| (leader, other)), until),
            Kind::DeafLeader => self.cut(others(leader).map(|other| (other, leader)), until),
            Kind::Split => self.split(None, until),
            Kind::Bridge => self.split(Some(any), until),
            Kind::Flap => {
                for _ in 0..self.random.random_range(3..10) {
                    let end = Instant::now() + self.span(10..150);
                    self.cut([(any, other)], end);
                    let pause = self.span(10..150);
                    self.wait_until(end + pause);
                }
            }
        }
        let lasts = until.saturating_duration_since(Instant::now());
        self.say(format!("{kind:?}: node {}, leader {}, {lasts:?}", any + 1, leader + 1));
    }

    fn kill(&mut self, position: usize, until: Instant) {
        self.cluster.kill(position);
        self.paused.remove(&position);
        self.down.insert(position, until);
    }

    fn pause(&mut self, position: usize, until: Instant) {
        if !self.down.contains_key(&position) {
            self.cluster.pause(position);
            self.paused.insert(position, until);
        }
    }

    /// Two sides that don't hear each other, and perhaps a node that hears both.
    fn split(&mut self, bridge: Option<usize>, until: Instant) {
        let members = self.members.iter().copied();
        let apart: Vec<usize> = members.filter(|one| Some(*one) != bridge).collect();
        let mut sides: Vec<bool> = apart.iter().map(|_| self.random.random()).collect();
        // The drawn sides may all be one: then the first node is alone.
        if sides.iter().all(|side| *side == sides[0]) {
            sides[0] = !sides[0];
        }
        let sided = || apart.iter().zip(&sides);
        let pairs = sided().flat_map(|from| sided().map(move |to| (from, to)));
        let links = pairs.filter(|((_, from), (_, to))| from != to);
        let links: Vec<(usize, usize)> = links.map(|((from, _), (to, _))| (*from, *to)).collect();
        self.cut(links, until);
    }

    fn cut(&mut self, links: impl IntoIterator<Item = (usize, usize)>, until: Instant) {
        for (from, to) in links {
            let side = if self.random.random() { Side::Sender } else { Side::Receiver };
            self.cuts.push((Cut { from, to, side }, until));
        }
        self.filter();
    }

    fn filter(&self) {
        let cuts: Vec<Cut> = self.cuts.iter().map(|(cut, _)| *cut).collect();
        self.network.cut(&cuts);
    }

    /// Lets what is over end, until then.
    pub fn wait_until(&mut self, moment: Instant) {
        while Instant::now() < moment {
            std::thread::sleep(TURN);
            self.expire(Some(Instant::now()));
        }
    }

    /// Ends what is over by now, or all. A node that ended by itself has broken an assertion.
    fn expire(&mut self, now: Option<Instant>) {
        let over = |until: Instant| now.is_none_or(|now| until <= now);
        for position in 0..self.cluster.nodes.len() {
            let ended = self.cluster.nodes[position].ended();
            assert!(ended.is_none(), "node {} ended by itself: {ended:?}", position + 1);
            if self.paused.get(&position).is_some_and(|until| over(*until)) {
                self.paused.remove(&position);
                self.cluster.resume(position);
            }
            if self.down.get(&position).is_some_and(|until| over(*until)) {
                self.down.remove(&position);
                self.cluster.restart(position);
            }
        }
        let before = self.cuts.len();
        self.cuts.retain(|(_, until)| !over(*until));
        if self.cuts.len() != before {
            self.filter();
        }
    }

    /// A node that says it leads; one that is paused can't be asked.
    fn leader(&self) -> Option<usize> {
        let mut awake = self.cluster.running();
        awake.retain(|position| !self.paused.contains_key(position));
        awake.into_iter().find(|&position| {
            let info = self.cluster.info(position).unwrap_or_default();
            info.get("raft_role").is_some_and(|role| role == "leader")
        })
    }

    fn span(&mut self, range_ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range_ms))
    }

    fn say(&self, what: String) {
        println!("t={:?} {what}", self.began.elapsed());
    }
}
