//! The part of a seed in which a leader is cut off again and again while clients read from it, and
//! that in which thousands of clients connect and say nothing.
//!
//! A lease holds for a fraction of a second, so what breaks it has to come just then; by chance it
//! hardly ever would. Drawn from a generator of its own, so that a seed without any of it is what it
//! was before there was such a part. Called by [`super::swarm`]. Draws from the seed alone.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::script::{Fault, Kind, Settings};
use crate::limits;

/// What is drawn here is not what is drawn elsewhere from the same seed.
const SALT: u64 = 0xa55a_5eed_5aa5_5eed;
const PLAN_SALT: u64 = 0x1ea5_5eed_e51a_5eed;
const STUMBLE_SALT: u64 = 0x57e9_5eed_0a11_5eed;
const IDLE_SALT: u64 = 0x1d1e_5eed_e1d1_5eed;

/// One seed in so many is a siege.
const SIEGE_IN: u64 = 10;

/// One in so many has clients that say nothing.
const IDLE_IN: u64 = 300;

/// Frames in a thousand that come again in a siege with much old mail.
const OLD_MAIL_PM: u64 = 400;

/// Whether this file plans faults of that kind.
pub(super) fn plans(kind: Kind) -> bool {
    let of_a_siege = matches!(
        kind,
        Kind::LateAnswers | Kind::ForgetfulVoter | Kind::SleepyVoter | Kind::Stumble
    );
    of_a_siege || kind == Kind::IdleClients
}

fn is_siege(seed: u64) -> bool {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT);
    random.random_range(0..SIEGE_IN) == 0
}

/// Draws what the settings say of a siege: three servers, leases, clocks that differ by as much as a
/// lease allows, and clients that mostly read, without a pause.
pub(super) fn settle(seed: u64, settings: &mut Settings) {
    if !is_siege(seed) {
        return;
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT ^ PLAN_SALT);
    let mut pick = |from: &[u64]| from[random.random_range(0..from.len())];
    (settings.nodes, settings.spares) = (3, 0);
    settings.lease = 1;
    settings.skew_ppm = pick(&[0, 100_000]);
    (settings.election_min_ms, settings.election_max_ms, settings.heartbeat_ms) =
        [(150, 300, 50), (50, 100, 15), (300, 450, 100)][pick(&[0, 1, 2]) as usize];
    (settings.clients, settings.readers) = (6, 3);
    (settings.think_ms, settings.pipeline, settings.keys) = (pick(&[1, 5]), pick(&[1, 4]), 2);
    settings.chaos_ms = 4000;
    settings.client_timeout_ms = pick(&[500, 2000]);
    settings.value_bytes = 8;
    settings.turn_us = settings.turn_us.min(20);
    settings.delay_max_us = settings.delay_max_us.min(1000);
    settings.disk_max_us = settings.disk_max_us.min(300);
    if pick(&[0, 1]) == 0 {
        // What a leader was told in a former term of its own comes again while it is cut off; so
        // terms are short.
        (settings.copy_pm, settings.copy_delay_ms, settings.hours_pm) = (OLD_MAIL_PM, 2000, 0);
        (settings.election_min_ms, settings.election_max_ms, settings.heartbeat_ms) = (50, 100, 15);
        settings.think_ms = 1;
    }
}

/// Adds the sieges of a seed to its faults, or puts them in the place of all others; and clients
/// that say nothing.
pub(super) fn plan(seed: u64, settings: &Settings, faults: &mut Vec<Fault>) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ IDLE_SALT);
    if random.random_range(0..IDLE_IN) == 0 {
        let at_ms = random.random_range(0..settings.chaos_ms);
        let count = random.random_range(1000..=limits::CLIENTS as u64);
        faults.push(Fault { at_ms, kind: Kind::IdleClients, a: 0, b: count, c: 0 });
    }
    if !is_siege(seed) {
        return;
    }
    let random = Xoshiro256PlusPlus::seed_from_u64(seed ^ PLAN_SALT);
    let mut plan = Plan { random, settings, faults };
    if plan.below(2) == 0 {
        plan.faults.clear();
    }
    let mut at = 2 * settings.election_max_ms + plan.below(settings.election_max_ms);
    while at < settings.chaos_ms {
        at = match plan.below(4) {
            1 | 2 if settings.copy_pm != OLD_MAIL_PM => plan.forgetful_voter(at),
            _ => plan.cut_off(at),
        };
    }
    stumbles(seed, settings, faults);
}

/// In some sieges servers stand still in the middle of their turns: one by chance, or the one whom
/// the leader's lease rests on.
fn stumbles(seed: u64, settings: &Settings, faults: &mut Vec<Fault>) {
    let random = Xoshiro256PlusPlus::seed_from_u64(seed ^ STUMBLE_SALT);
    let mut plan = Plan { random, settings, faults };
    match plan.below(3) {
        0 => {}
        1 => {
            for _ in 0..8 {
                let (at, server) = (plan.below(settings.chaos_ms), plan.below(settings.nodes + 1));
                let (ms, stage) = (1 + plan.below(2 * settings.election_min_ms), plan.below(3));
                plan.push(at, Kind::Stumble, server, ms, stage);
            }
        }
        _ => {
            plan.faults.clear();
            let mut at = 2 * settings.election_max_ms + plan.below(settings.election_max_ms);
            while at < settings.chaos_ms {
                at = plan.sleepy_voter(at);
            }
        }
    }
}

struct Plan<'a> {
    random: Xoshiro256PlusPlus,
    settings: &'a Settings,
    faults: &'a mut Vec<Fault>,
}

impl Plan<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound.max(1))
    }

    fn push(&mut self, at_ms: u64, kind: Kind, a: u64, b: u64, c: u64) {
        self.faults.push(Fault { at_ms, kind, a, b, c });
    }

    /// The leader hears nobody until the others have long had another; in half of all cases but what
    /// it was answered before, perhaps when it led for the first time. Returns when that is over.
    fn cut_off(&mut self, at: u64) -> u64 {
        let timeout = self.settings.election_max_ms;
        self.push(at, Kind::Isolate, 0, 0, 0);
        if self.below(2) == 0 {
            self.push(at, Kind::LateAnswers, 0, 3 * timeout, 0);
        }
        let healed = at + 2 * timeout + self.below(timeout);
        self.push(healed, Kind::Heal, 0, 0, 0);
        healed + timeout + self.below(timeout)
    }

    /// A server loses its leader, and the third one stands still just then: see
    /// [`Kind::SleepyVoter`]. Returns when that is over.
    fn sleepy_voter(&mut self, at: u64) -> u64 {
        let (least, most) = (self.settings.election_min_ms, self.settings.election_max_ms);
        let (place, stage) = (self.below(2), 2 * self.below(2));
        let sleeps = least / 2 + self.below(least / 2);
        self.push(at, Kind::SleepyVoter, place, sleeps, stage);
        let healed = at + 3 * most + self.below(most);
        self.push(healed, Kind::Heal, 0, 0, 0);
        healed + most + self.below(most)
    }

    /// A server loses its leader, and the third one forgets that it hears it: see
    /// [`Kind::ForgetfulVoter`]. Returns when that is over.
    fn forgetful_voter(&mut self, at: u64) -> u64 {
        let timeout = self.settings.election_max_ms;
        let (place, dies) = (self.below(2), timeout + self.below(timeout));
        let back = 1 + self.below(5);
        self.push(at, Kind::ForgetfulVoter, place, dies, back);
        let healed = at + dies + timeout + self.below(timeout);
        self.push(healed, Kind::Heal, 0, 0, 0);
        healed + timeout + self.below(timeout)
    }
}
