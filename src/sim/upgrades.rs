//! Seeds in which servers run builds of two versions: they begin with the older one, and each is
//! stopped and started as the newer one, at a time of its own.
//!
//! There has been one version, and the rules of a change have to be seen at work before there is a
//! second: two plain commands are played as new ones. What must hold is *known-commands*: a version of the command set is in force only once every member knows it, and
//! before that its commands are not in the log. Drawn from a generator of its own, so that the other
//! seeds are what they were before. Called by [`super::swarm`] and by the world.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::script::{Fault, Kind, Settings};
use super::world::{Event, World};
use crate::kv::command_set::{Build, THIS};
use crate::types::{CommandSet, ServerId};

/// What is drawn here is not what is drawn elsewhere from the same seed.
const SALT: u64 = 0x0bad_5eed_0b1d_5eed;

/// One seed in so many, this one, has two versions side by side.
const UPGRADES_IN: u64 = 7;
const UPGRADES_AT: u64 = 3;

/// What the clients need of the newer build.
const NEWER: &[(&str, CommandSet)] = &[("append", CommandSet(2)), ("cas", CommandSet(2))];
/// The build that all servers begin with, and the one that they are upgraded to.
const OLD: Build = Build { known: CommandSet::FIRST, newer: NEWER };
const NEW: Build = Build { known: CommandSet(2), newer: NEWER };

/// The build that servers begin with.
pub(super) fn first_build(settings: &Settings) -> Build {
    if settings.upgrades > 0 { OLD } else { THIS }
}

/// Whether this file plans faults of that kind.
pub(super) fn plans(kind: Kind) -> bool {
    kind == Kind::Upgrade
}

/// Says whether servers begin with an older build. Who has a session asks until there is an answer,
/// and there is none as long as a member can't be upgraded because it has lost its disk.
pub(super) fn settle(seed: u64, settings: &mut Settings) {
    settings.upgrades = u64::from(seed % UPGRADES_IN == UPGRADES_AT && settings.sessions == 0);
}

/// Every machine is upgraded once: mostly one soon behind the other, as operators do it. In some seeds
/// the spare ones are forgotten: one that is added later is too old for the log, and stops.
pub(super) fn plan(seed: u64, settings: &Settings, faults: &mut Vec<Fault>) {
    if settings.upgrades == 0 {
        return;
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT);
    let begin = random.random_range(0..settings.chaos_ms);
    let apart = random.random_range(1..400);
    for (place, a) in (1..=settings.machines()).enumerate() {
        let at_ms = match random.random_range(0..5) {
            0 => random.random_range(0..settings.chaos_ms),
            _ => begin + place as u64 * apart,
        };
        let is_forgotten = a > settings.nodes && (seed / UPGRADES_IN).is_multiple_of(2);
        if !is_forgotten {
            faults.push(Fault { at_ms, kind: Kind::Upgrade, a, b: 0, c: 0 });
        }
    }
}

impl World {
    /// The server's process dies, and the next one is of the newer build.
    pub(super) fn upgrade(&mut self, id: ServerId) -> bool {
        let server = self.servers.get_mut(&id).expect("a server of this world");
        if self.script.settings.upgrades == 0 || server.build.known == NEW.known {
            return false;
        }
        server.build = NEW;
        if self.node(id).is_some() {
            self.kill(id);
            self.plan(Duration::from_millis(20), Event::Start { server: id });
        }
        true
    }

    /// A process was too old for the log: it was no member when the version was raised, so nobody
    /// asked what it knows.
    pub(super) fn outdated(&mut self, id: ServerId, in_force: CommandSet) {
        let known = self.servers[&id].build.known;
        assert!(known < in_force, "known-commands: n{id} knows {known}, and stops for it");
        self.servers.get_mut(&id).expect("a server of this world").build = NEW;
        self.strike("outdated-stop");
    }
}
