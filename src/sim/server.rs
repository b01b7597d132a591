//! A server as the world knows it: its machine with disk and clocks, and its process if one runs.
//!
//! Called by the world, which owns it. Knows how its clocks differ from the world's time, and
//! nothing of what its process does: that is `process.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::disk::SimDisk;
use super::media::Media;
use super::process::{Mail, Process, Stage};
use super::script::Fault;
use crate::kv::command_set::Build;
use crate::types::{Boot, Instant, ServerId, WallClock};

/// What the wall clocks show when the world begins, in milliseconds.
const WALL_BEGIN_MS: u64 = 1_700_000_000_000;

/// How a server's clocks differ from the world's time.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// How many millionths too fast it runs.
    pub ppm: i64,
    /// How far the wall clock is off, in milliseconds.
    pub wall_ms: i64,
}

impl Clock {
    pub(super) fn local(self, now: Instant) -> Instant {
        let passed = i128::from(now.0) * i128::from(1_000_000 + self.ppm) / 1_000_000;
        Instant(passed as u64)
    }

    /// The first moment at which it shows `local`.
    pub(super) fn world(self, local: Instant) -> Instant {
        if local == Instant::NEVER {
            return local;
        }
        let passed = i128::from(local.0) * 1_000_000 / i128::from(1_000_000 + self.ppm);
        Instant(passed as u64 + 1)
    }

    pub(super) fn wall(self, now: Instant) -> WallClock {
        let true_ms = WALL_BEGIN_MS + now.0 / 1_000_000;
        WallClock(true_ms.saturating_add_signed(self.wall_ms))
    }
}

/// A copy of a disk.
#[derive(Clone)]
pub(super) struct Saved {
    pub media: Media,
    /// The boot it was taken in.
    pub boot: Boot,
    /// Whether by what is on it the server decides everything alone.
    pub votes_alone: bool,
}

/// Where in a turn a server is to stand still.
pub(super) struct Stumble {
    /// Behind the poll only once that has reported something that a peer said.
    pub stage: Stage,
    /// For how long.
    pub pause: Duration,
    /// What strikes meanwhile, so long after the beginning.
    pub meanwhile: Vec<(Duration, Fault)>,
}

/// A server: its machine, and its process if it runs.
pub(super) struct Server {
    pub disk: SimDisk,
    pub process: Option<Process>,
    /// Grows with each end of the process, so that what was meant for a former one is told apart.
    pub life: u64,
    pub clock: Clock,
    pub mail: Vec<Mail>,
    pub turn_at: Option<Instant>,
    pub busy_until: Instant,
    pub paused_until: Instant,
    /// The process dies behind so many effects and outputs of its next turn.
    pub kill_behind: Option<usize>,
    /// It is to stand still in the middle of a turn.
    pub stumble: Option<Stumble>,
    /// The newest boot of its directory.
    pub boot: Boot,
    /// Whose boots it has met, as its meta file has them.
    pub met: BTreeMap<ServerId, Boot>,
    /// A copy of its disk.
    pub saved: Option<Saved>,
    /// It runs on an old copy of its disk.
    pub is_copy: bool,
    /// What was done to its log: it must not start on it.
    pub rotten: Option<String>,
    /// A snapshot of it has rotted: it may start without, if the log reaches back far enough.
    pub is_doubtful: bool,
    pub last_turn: Instant,
    pub idle_turns: u32,
    /// It was put into operation; a spare is at some time, or never.
    pub is_launched: bool,
    /// It is started with `--join`: it founds no cluster.
    pub joins: bool,
    /// It stays down until what it was stopped for has happened.
    pub is_held: bool,
    /// What its processes know.
    pub build: Build,
    /// How often its machine has moved to another address.
    pub moves: u64,
}

/// Where peers reach a server that has moved so often.
pub(super) fn peer_address(id: ServerId, moves: u64) -> String {
    format!("10.0.{moves}.{id}:7201")
}

/// Where clients do.
pub(super) fn client_address(id: ServerId, moves: u64) -> String {
    format!("10.0.{moves}.{id}:7101")
}

impl Server {
    /// A machine that nothing runs on yet; its clock runs `ppm` millionths too fast. A spare is no
    /// founder of the cluster.
    pub fn new(disk: SimDisk, ppm: i64, build: Build, is_spare: bool) -> Server {
        Server {
            disk,
            process: None,
            life: 0,
            clock: Clock { ppm, wall_ms: 0 },
            mail: Vec::new(),
            turn_at: None,
            busy_until: Instant::ZERO,
            paused_until: Instant::ZERO,
            kill_behind: None,
            stumble: None,
            boot: Boot::ZERO,
            met: BTreeMap::new(),
            saved: None,
            is_copy: false,
            rotten: None,
            is_doubtful: false,
            last_turn: Instant::ZERO,
            idle_turns: 0,
            is_launched: !is_spare,
            joins: is_spare,
            is_held: false,
            build,
            moves: 0,
        }
    }

    /// Where peers reach it.
    pub fn address(&self, own: ServerId) -> String {
        peer_address(own, self.moves)
    }
}
