//! The part of a seed in which members come and go (spares, operators' requests, lost disks), and
//! in which snapshots are sent and damaged more than by chance.
//!
//! Drawn from a generator of its own, so that a seed without any of it is what it was before there
//! was such a part. Called by [`super::swarm`]. Draws from the seed alone.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::script::{Fault, Kind, Settings};

/// What is drawn here is not what is drawn elsewhere from the same seed.
const SALT: u64 = 0x3c3c_5eed_c3c3_5eed;
const PLAN_SALT: u64 = 0x0ff0_5eed_f00f_5eed;
const SNAPSHOT_SALT: u64 = 0x6996_5eed_9669_5eed;

/// One seed in so many has a membership that changes.
const CHANGES_IN: u64 = 2;

/// Servers of one run at most, spares included.
const MACHINES: u64 = 8;

/// Requests that nothing sensible can come of are drawn too, one in so many.
const ODD_IN: u64 = 8;

/// Whether this file plans faults of that kind.
pub(super) fn plans(kind: Kind) -> bool {
    kind.is_request() || matches!(kind, Kind::Launch | Kind::Snapshot | Kind::SnapshotRot)
}

/// Draws what the settings say of it.
pub(super) fn settle(seed: u64, settings: &mut Settings) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT);
    if random.random_range(0..CHANGES_IN) > 0 {
        return;
    }
    let most = MACHINES - settings.nodes;
    settings.spares = random.random_range(0..=3).min(most);
    settings.readmit = u64::from(random.random_range(0..3) == 0);
    settings.repair = u64::from(random.random_bool(0.6));
    settings.chaos_ms = settings.chaos_ms.max(2000);
}

/// Adds what operators and spares do to the faults of a seed whose membership changes, and what is
/// to go wrong with snapshots.
pub(super) fn plan(seed: u64, settings: &Settings, faults: &mut Vec<Fault>) {
    if settings.snapshot_kib > 0 {
        let random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SNAPSHOT_SALT);
        let mut plan = Plan { random, settings, faults, may_force: false };
        match plan.below(5) {
            0 => plan.far_behind(),
            1 => plan.rotting_snapshots(),
            2 => plan.overtaken_leader(),
            _ => {}
        }
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT);
    if random.random_range(0..CHANGES_IN) > 0 {
        return;
    }
    let random = Xoshiro256PlusPlus::seed_from_u64(seed ^ PLAN_SALT);
    let ruins = faults.iter().any(|fault| fault.kind.is_ruin());
    let mut plan = Plan { random, settings, faults, may_force: !ruins };
    plan.spares();
    plan.requests();
    match plan.below(3) {
        0 => plan.lost_disks(),
        1 => plan.siege(),
        _ => {}
    }
}

struct Plan<'a> {
    random: Xoshiro256PlusPlus,
    settings: &'a Settings,
    faults: &'a mut Vec<Fault>,
    may_force: bool,
}

impl Plan<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    fn push(&mut self, at_ms: u64, kind: Kind, a: u64, b: u64, c: u64) {
        self.faults.push(Fault { at_ms, kind, a, b, c });
    }

    /// Some time after the cluster was founded.
    fn moment(&mut self) -> u64 {
        let (least, all) = (2 * self.settings.election_max_ms, self.settings.chaos_ms);
        least + self.below(all.saturating_sub(least).max(1))
    }

    /// Whom a request is said to: mostly the leader.
    fn via(&mut self) -> u64 {
        match self.below(3) {
            0 => 1 + self.below(self.settings.machines()),
            _ => 0,
        }
    }

    fn anyone(&mut self) -> u64 {
        let most = self.settings.machines();
        1 + match self.below(ODD_IN) {
            0 => self.below(most + 1),
            _ => self.below(most),
        }
    }

    /// Spares are launched before or after they are added, or never; added or taken as a
    /// replacement, to vote or to learn.
    fn spares(&mut self) {
        for spare in self.settings.nodes + 1..=self.settings.machines() {
            if self.below(8) > 0 {
                let at = match self.below(2) {
                    0 => self.below(200),
                    _ => self.moment(),
                };
                self.push(at, Kind::Launch, spare, 0, 0);
            }
            let (at, via) = (self.moment(), self.via());
            match self.below(5) {
                0 => {
                    let old = 1 + self.below(self.settings.nodes);
                    self.push(at, Kind::Replace, via, old, spare);
                }
                1 => {
                    self.push(at, Kind::Add, via, spare, 1);
                    let (later, via) = (self.moment(), self.via());
                    self.push(later.max(at), Kind::Promote, via, spare, 0);
                }
                _ => self.push(at, Kind::Add, via, spare, 0),
            }
        }
    }

    fn requests(&mut self) {
        let times = 1 + self.below(2 + self.settings.chaos_ms.min(6000) / 700);
        for _ in 0..times {
            let (at, via, id) = (self.moment(), self.via(), self.anyone());
            let dry = if self.below(ODD_IN) == 0 { 4 } else { 0 };
            match self.below(16) {
                0..3 => self.push(at, Kind::Remove, via, id, dry),
                3 => self.push(at, Kind::Remove, via, 0, dry),
                4..7 => self.push(at, Kind::Transfer, via, id, dry),
                7 => self.push(at, Kind::Transfer, via, 0, 0),
                8..10 => {
                    let before = self.below(2);
                    self.push(at, Kind::Move, via, id, before);
                }
                10..12 => {
                    let learner = self.below(2);
                    self.push(at, Kind::Add, via, id, learner | dry);
                }
                12 => {
                    let new = self.anyone();
                    self.push(at, Kind::Replace, via, id, new);
                }
                13 => self.push(at, Kind::Promote, via, id, dry),
                14 if self.may_force => self.push(at, Kind::Remove, via, id, 1),
                _ => self.push(at, Kind::Snapshot, via, 0, 0),
            }
        }
    }

    /// A server loses its disk, comes back, and is readmitted by a command, perhaps too early.
    fn lost_disks(&mut self) {
        for _ in 0..1 + self.below(3) {
            let (at, server) = (self.moment(), self.anyone());
            let back = at + 3 * self.settings.election_max_ms + 50;
            self.push(at, Kind::Wipe, server, 0, 0);
            self.push(back, Kind::Start, server, 0, 0);
            let (later, via) = (self.below(1500), self.via());
            self.push(back + later, Kind::Add, via, server, 2);
        }
    }

    /// A server is away until the others' logs no longer reach back; then it is sent a snapshot, over
    /// a link on which something happens, while the next ones are taken.
    fn far_behind(&mut self) {
        let server = 1 + self.below(self.settings.machines());
        let at = 2 * self.settings.election_max_ms + self.below(self.settings.chaos_ms / 4 + 1);
        let back = at + 300 + self.below(self.settings.chaos_ms / 3 + 1);
        self.push(at, Kind::Isolate, server, 0, 0);
        self.push(back - 100, Kind::Snapshot, 0, 0, 0);
        let kib = 1 + self.below(200);
        let is_slow = self.below(2) == 0;
        for other in (1..=self.settings.machines()).filter(|other| is_slow && *other != server) {
            self.push(back + 1, Kind::Slow, other, server, kib);
        }
        if self.below(3) == 0 {
            // What it is sent rots where it was taken; the newest one may be another by then.
            for step in 0..4 {
                self.push(back - 1 + 10 * step, Kind::SnapshotRot, 0, 0, 0);
            }
        }
        self.push(back, Kind::Heal, 0, 0, 0);
        for _ in 0..1 + self.below(4) {
            let (then, other) = (back + 2 + self.below(1200), 1 + self.below(self.settings.nodes));
            match self.below(8) {
                0 => self.push(then, Kind::Reset, other, server, 0),
                1 => self.push(then, Kind::Snapshot, 0, 0, 0),
                2 => {
                    let behind = self.below(12);
                    self.push(then, Kind::Kill, server, behind, 0);
                    self.push(then + 50, Kind::Start, server, 0, 0);
                }
                3 => {
                    let steps = self.below(30);
                    self.push(then, Kind::CrashAt, server, steps, 0);
                }
                4 => {
                    self.push(then, Kind::Kill, 0, 0, 0);
                    self.push(then + 300, Kind::Start, 0, 0, 0);
                }
                5 => {
                    let kib = self.below(20);
                    self.push(then, Kind::Full, server, kib, 0);
                    self.push(then + 400, Kind::Space, server, 0, 0);
                }
                6 => self.push(then, Kind::Flap, other, server, 5),
                _ => {
                    self.push(then, Kind::Snapshot, 0, 0, 0);
                    self.push(then + 30, Kind::Snapshot, 0, 0, 0);
                }
            }
        }
    }

    /// A leader goes on appending what nobody hears of, while the next one takes snapshots of other
    /// entries at the same indexes.
    fn overtaken_leader(&mut self) {
        let timeout = self.settings.election_max_ms;
        let at = 2 * timeout + self.below(self.settings.chaos_ms / 2 + 1);
        self.push(at, Kind::Isolate, 0, 0, 0);
        let mut then = at + timeout;
        for _ in 0..4 {
            then += self.below(timeout / 2 + 2);
            self.push(then, Kind::Snapshot, 0, 0, 0);
        }
        let pause = self.below(timeout);
        self.push(then + pause, Kind::Heal, 0, 0, 0);
    }

    fn rotting_snapshots(&mut self) {
        for _ in 0..1 + self.below(3) {
            let (at, server, count) = (self.moment(), self.anyone(), self.below(3));
            self.push(at, Kind::SnapshotRot, server, count, 0);
            self.push(at + 200, Kind::Start, server, 0, 0);
        }
    }

    /// A leader that nobody hears is told to remove everyone else, and later the next one is told
    /// something else.
    fn siege(&mut self) {
        let at = self.moment();
        self.push(at, Kind::Isolate, 0, 0, 0);
        for server in 1..=self.settings.machines() {
            self.push(at + 1, Kind::Remove, 0, server, 0);
        }
        let (then, id) = (at + 3 * self.settings.election_max_ms, self.anyone());
        self.push(then, Kind::Remove, 0, id, 0);
        self.push(then + 300, Kind::Heal, 0, 0, 0);
    }
}
