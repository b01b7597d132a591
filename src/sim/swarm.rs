//! A seed becomes a script: which faults it has, how often, on what cluster, under which load.
//!
//! Swarm testing (Groce et al., 2012): a run that leaves most faults out reaches states that a run
//! with all of them never does. Called by [`super::run_seed`]. Draws from the seed alone.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::script::{Fault, Kind, Script, Settings};
use super::{minorities, outages, sieges, turnover, upgrades, watchers};

/// What is drawn here is not what the world draws from the same seed.
const SALT: u64 = 0x5eed_5eed_5eed_5eed;

/// See [`SALT`].
const SNAPSHOT_SALT: u64 = 0x5a5a_5eed_5a5a_5eed;

/// KiB of log that make a snapshot due; 0 stands for more than a run has.
const SNAPSHOT_KIB: [u64; 6] = [0, 0, 1, 4, 16, 64];

/// One seed in so many, this one, has clients with sessions.
const SESSIONS_IN: u64 = 6;
const SESSIONS_AT: u64 = 4;

/// Another one has clients with transactions.
const TRANSACTIONS_AT: u64 = 1;

/// In one seed of so many, this one, servers stand still in the middle of their turns.
const STUMBLES_IN: u64 = 8;
const STUMBLES_AT: u64 = 5;
const STUMBLE_PM: u64 = 1;

/// The script of a seed.
pub fn script(seed: u64) -> Script {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT);
    let mut settings = settings(&mut random);
    // A generator of its own: where no snapshot is due, a seed is what it was before there were any.
    let mut apart = Xoshiro256PlusPlus::seed_from_u64(seed ^ SNAPSHOT_SALT);
    settings.snapshot_kib = SNAPSHOT_KIB[apart.random_range(0..SNAPSHOT_KIB.len())];
    settings.rough_disks = apart.random_range(0..2);
    settings.expiry *= apart.random_range(1..=2);
    // Not drawn, so that the other seeds are what they were before there were sessions.
    if seed % SESSIONS_IN == SESSIONS_AT {
        settings.sessions = 2;
    }
    if seed % SESSIONS_IN == TRANSACTIONS_AT {
        settings.transactions = 25;
    }
    turnover::settle(seed, &mut settings);
    sieges::settle(seed, &mut settings);
    watchers::settle(seed, &mut settings);
    upgrades::settle(seed, &mut settings);
    outages::settle(seed, &mut settings);
    if seed % STUMBLES_IN == STUMBLES_AT {
        settings.stumble_pm = STUMBLE_PM;
        settings.stumble_ms = settings.election_min_ms;
    }
    minorities::settle(seed, &mut settings);
    let mut faults = Plan { random, settings: &settings, faults: Vec::new() }.all();
    turnover::plan(seed, &settings, &mut faults);
    sieges::plan(seed, &settings, &mut faults);
    upgrades::plan(seed, &settings, &mut faults);
    outages::plan(seed, &settings, &mut faults);
    for fault in faults.iter_mut().filter(|fault| fault.kind == Kind::ReadError) {
        // A read fails while the server runs, or in its start.
        fault.c = settings.rough_disks * (fault.at_ms % 2);
    }
    faults.sort_by_key(|fault| fault.at_ms);
    Script { seed, settings, faults }
}

fn settings(random: &mut Xoshiro256PlusPlus) -> Settings {
    let mut settings = Settings::default();
    let mut pick = |from: &[u64]| from[random.random_range(0..from.len())];
    settings.nodes = pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
    settings.clients = pick(&[1, 2, 3, 4, 6]);
    settings.chaos_ms = pick(&[500, 1500, 3000, 5000]);
    (settings.election_min_ms, settings.election_max_ms, settings.heartbeat_ms) =
        [(150, 300, 50), (150, 300, 50), (50, 100, 15), (300, 900, 100)]
            [pick(&[0, 1, 2, 3]) as usize];
    settings.request_timeout_ms = pick(&[300, 1000, 5000]);
    settings.client_timeout_ms = pick(&[100, 500, 2000, 8000]);
    settings.segment_kib = pick(&[64, 64, 128, 256]);
    settings.delay_max_us = pick(&[80, 80, 1000, 10_000, 40_000]);
    settings.loss_pm = pick(&[0, 0, 0, 5, 30]);
    settings.frame_loss_pm = pick(&[0, 0, 0, 5, 50]);
    settings.copy_pm = pick(&[0, 0, 20, 100]);
    settings.copy_delay_ms = pick(&[5, 100, 2000]);
    settings.hours_pm = pick(&[0, 100]);
    settings.disk_max_us = pick(&[60, 300, 300, 5000, 30_000]);
    settings.turn_us = pick(&[1, 20, 200, 2000]);
    settings.skew_ppm = pick(&[0, 100, 500]);
    settings.pipeline = pick(&[1, 4, 4, 12]);
    settings.think_ms = pick(&[1, 5, 20, 100]);
    settings.keys = pick(&[1, 2, 3]);
    settings.value_bytes = pick(&[8, 8, 8, 300, 300, 6000, 6000, 30_000, 1_000_000]);
    settings.hello_pm = pick(&[0, 0, 0, 50, 300]);
    settings.odd_pc = pick(&[0, 0, 30]);
    settings.repeat_pc = pick(&[0, 0, 30]);
    settings.lease = pick(&[0, 0, 0, 1]);
    if settings.lease > 0 {
        settings.skew_ppm = pick(&[0, 500, 100_000]);
    }
    settings.expiry = pick(&[0, 1]);
    settings.move_pc = pick(&[0, 0, 2, 10]);
    settings.readers = pick(&[0, 0, 1, 3]);
    let minutes = pick(&[10, 20, 60]);
    if random.random_range(0..LONG_IN) == 0 {
        lengthen(&mut settings, minutes);
    }
    settings
}

/// One seed in so many lasts for minutes, up to an hour.
const LONG_IN: u64 = 100;

/// A run that is long enough for a disk that hangs for minutes, and for a minority that is given
/// proposals for an hour; with a slow beat, so that it costs no more than others.
fn lengthen(settings: &mut Settings, minutes: u64) {
    settings.chaos_ms = minutes * 60_000;
    settings.heartbeat_ms = 500;
    (settings.election_min_ms, settings.election_max_ms) = (2500, 5000);
    settings.think_ms = settings.think_ms.max(20) * 100;
    settings.request_timeout_ms = settings.request_timeout_ms.max(5000);
    settings.client_timeout_ms = settings.client_timeout_ms.max(2000);
}

fn is_planned_apart(kind: Kind) -> bool {
    turnover::plans(kind) || sieges::plans(kind) || upgrades::plans(kind) || outages::plans(kind)
}

/// A run of more than this many milliseconds is a long one.
const LONG_MS: u64 = 60_000;

/// Faults as they are drawn.
struct Plan<'a> {
    random: Xoshiro256PlusPlus,
    settings: &'a Settings,
    faults: Vec<Fault>,
}

impl Plan<'_> {
    fn all(mut self) -> Vec<Fault> {
        // A third of the kinds, each a few times.
        let kinds = Kind::ALL.iter().copied().filter(|kind| !is_planned_apart(*kind));
        let kinds: Vec<Kind> = kinds.filter(|_| self.random.random_bool(0.3)).collect();
        for kind in kinds {
            let times = match kind {
                Kind::Wipe
                | Kind::OldCopy
                | Kind::Rot
                | Kind::Misdirected
                | Kind::Stale
                | Kind::MetaRot
                | Kind::MetaCut
                | Kind::MetaStale
                | Kind::SegmentCut => 2,
                Kind::Suspend => 1,
                Kind::Isolate => 2,
                _ => self.random.random_range(1..=1 + self.settings.chaos_ms.min(5000) / 600),
            };
            for _ in 0..times {
                self.add(kind);
            }
        }
        self.faults.sort_by_key(|fault| fault.at_ms);
        self.faults
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    fn server(&mut self) -> u64 {
        self.random.random_range(1..=self.settings.machines())
    }

    /// A server, or the leader.
    fn victim(&mut self) -> u64 {
        self.random.random_range(0..=self.settings.machines())
    }

    fn push(&mut self, at_ms: u64, kind: Kind, a: u64, b: u64, c: u64) {
        self.faults.push(Fault { at_ms, kind, a, b, c });
    }

    /// One fault, and some time later what ends it.
    fn add(&mut self, kind: Kind) {
        let at = self.below(self.settings.chaos_ms);
        // Some last for longer than the kernel keeps a silent connection.
        let lasts = match self.below(4) {
            _ if self.settings.chaos_ms > LONG_MS => self.settings.chaos_ms,
            0 => 4000,
            _ => 1000,
        };
        let later = at + 10 + self.below(lasts);
        let server = self.server();
        match kind {
            Kind::Kill => {
                let (victim, behind) = (self.victim(), self.below(12));
                self.push(at, kind, victim, behind, 0);
                self.push(later, Kind::Start, 0, 0, 0);
            }
            Kind::PowerLoss | Kind::Stop => {
                let victim = self.victim();
                self.push(at, kind, victim, 0, 0);
                self.push(later, Kind::Start, 0, 0, 0);
            }
            Kind::KillAll | Kind::PowerLossAll | Kind::Ring | Kind::Start => {
                self.push(at, kind, 0, 0, 0);
                let end = if kind == Kind::Ring { Kind::Heal } else { Kind::Start };
                self.push(later, end, 0, 0, 0);
            }
            Kind::Pause => {
                let (victim, ms) = (self.victim(), 1 + self.below(1200));
                self.push(at, kind, victim, ms, 0);
            }
            Kind::Suspend => {
                let minutes = 1 + self.below(200);
                self.push(at, kind, 0, minutes, 0);
            }
            Kind::Wipe
            | Kind::Rot
            | Kind::Misdirected
            | Kind::Stale
            | Kind::MetaRot
            | Kind::MetaCut
            | Kind::SegmentCut => {
                let at = at.max(400);
                self.push(at, kind, server, 0, 0);
                self.push(at + 200, Kind::Start, server, 0, 0);
            }
            Kind::Save | Kind::OldCopy => {
                // A copy, two later boots that the others meet, and the copy's return.
                self.push(at / 2, Kind::Save, server, 0, 0);
                for step in 1..=2 {
                    let at = at / 2 + step * 250;
                    self.push(at, Kind::Kill, server, 0, 0);
                    self.push(at + 20, Kind::Start, server, 0, 0);
                }
                self.push(at / 2 + 1100 + self.settings.chaos_ms / 4, Kind::OldCopy, server, 0, 0);
            }
            _ => self.add_lasting(kind, at, later, server),
        }
    }

    fn add_lasting(&mut self, kind: Kind, at: u64, later: u64, server: u64) {
        let other = self.server();
        match kind {
            Kind::Error => {
                let good = self.below(60);
                self.push(at, kind, server, good, 0);
            }
            Kind::Full | Kind::Space => {
                let kib = self.below(100);
                self.push(at, Kind::Full, server, kib, 0);
                self.push(later, Kind::Space, server, 0, 0);
            }
            Kind::Stall => {
                let (victim, ms) = (self.victim(), 5 + self.below(300));
                self.push(at, kind, victim, ms, 0);
                (1..=self.settings.machines()).for_each(|n| self.push(later, Kind::Stall, n, 0, 0));
            }
            Kind::Hang => {
                let server = if self.below(2) == 0 { 0 } else { server };
                self.push(at, kind, server, 300_000, 0);
                if server == 0 {
                    (1..=self.settings.machines())
                        .for_each(|n| self.push(later, Kind::Stall, n, 0, 0));
                    return;
                }
                self.push(later, Kind::Stall, server, 0, 0);
                self.push(later + 1, Kind::Kill, server, 0, 0);
                self.push(later + 200, Kind::Start, server, 0, 0);
            }
            Kind::Cut => {
                self.push(at, kind, server, other, 0);
                self.push(later, Kind::Heal, 0, 0, 0);
            }
            Kind::Split => {
                let mask = self.below(256 << self.settings.spares.min(4));
                self.push(at, kind, mask, 0, 0);
                self.push(later, Kind::Heal, 0, 0, 0);
            }
            Kind::Isolate => {
                // Mostly the leader, and until the others have long had another: in between it may
                // tell what is no longer true.
                let victim = if self.below(4) > 0 { 0 } else { server };
                self.push(at, kind, victim, 0, 0);
                self.push(later + 2 * self.settings.election_max_ms, Kind::Heal, 0, 0, 0);
            }
            Kind::Bridge => {
                let victim = self.victim();
                self.push(at, kind, victim, 0, 0);
                self.push(later, Kind::Heal, 0, 0, 0);
            }
            Kind::Flap => {
                let times = 1 + self.below(20);
                self.push(at, kind, server, other, times);
            }
            Kind::Slow => {
                let kib = 1 + self.below(500);
                self.push(at, kind, server, other, kib);
                self.push(later, kind, server, other, 0);
            }
            Kind::WallJump => {
                let minutes = self.below(120);
                self.push(at, kind, server, minutes, 60);
            }
            Kind::ClientReset => {
                let client = self.below(self.settings.clients);
                self.push(at, kind, client, 0, 0);
            }
            Kind::Reset => self.push(at, kind, server, other, 0),
            Kind::CrashAt => {
                let (victim, steps) = (self.victim(), self.below(30));
                self.push(at, kind, victim, steps, 0);
            }
            Kind::CrashInStart => {
                let steps = self.below(16);
                self.push(at, kind, server, steps, 0);
            }
            Kind::ReadError => {
                let reads = 1 + self.below(4);
                self.push(at, kind, server, reads, 0);
            }
            Kind::MetaStale => {
                // Two more boots, that the others meet, and the meta file of before them.
                for step in 0..2 {
                    self.push(at + step * 400, Kind::Kill, server, 0, 0);
                    self.push(at + step * 400 + 20, Kind::Start, server, 0, 0);
                }
                self.push(at + 1000, kind, server, 0, 0);
            }
            Kind::Crawl => {
                let bytes = 20 + self.below(400);
                self.push(at, kind, server, other, bytes);
                self.push(later, kind, server, other, 0);
            }
            Kind::StalledReads | Kind::Swap => {
                self.push(at, kind, server, other, 0);
                if kind == Kind::Swap {
                    self.push(at + 1, Kind::Reset, server, other, 0);
                    (1..=self.settings.machines()).for_each(|n| {
                        self.push(at + 1, Kind::Reset, server, n, 0);
                        self.push(at + 1, Kind::Reset, other, n, 0);
                    });
                }
                self.push(later, Kind::Heal, 0, 0, 0);
            }
            _ => self.push(at, Kind::Heal, 0, 0, 0),
        }
    }
}
