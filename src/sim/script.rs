//! What one simulated run is made of: settings and a list of dated faults, as values and as text.
//!
//! A seed is turned into a script by [`super::swarm`]; a failing script is made smaller by
//! [`super::shrink`] and kept as a file that replays. The text is lines of words and numbers; see
//! [`Script::parse`]. Nothing here touches a world.

use std::fmt;

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident = $default:expr,)*) => {
        /// The numbers of one run, all of them plain: a script says only those that differ.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct Settings { $($(#[$doc])* pub $name: u64,)* }

        impl Default for Settings {
            fn default() -> Settings {
                Settings { $($name: $default,)* }
            }
        }

        impl Settings {
            /// Sets the number of that name; false if there is none.
            pub fn set(&mut self, name: &str, value: u64) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return false,
                }
                true
            }

            /// All numbers by their names.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

settings! {
    /// Servers of the cluster.
    nodes = 3,
    /// Servers beside those that found the cluster: they are launched and added later, or never.
    spares = 0,
    /// Whether a server that lost its disk is readmitted without a command.
    readmit = 0,
    /// Whether operators, once everything has healed, replace damaged disks and readmit their
    /// servers.
    repair = 0,
    /// Clients with one connection each.
    clients = 3,
    /// How long faults strike, in milliseconds.
    chaos_ms = 3000,
    /// The shortest election timeout in milliseconds.
    election_min_ms = 150,
    /// The longest.
    election_max_ms = 300,
    /// The leader's heartbeat in milliseconds.
    heartbeat_ms = 50,
    /// When a gateway gives a command up, in milliseconds.
    request_timeout_ms = 2000,
    /// Watchers, with one watch each.
    watchers = 0,
    /// When a client gives a connection up, and a watcher moves on, in milliseconds.
    client_timeout_ms = 1000,
    /// The size of a log segment in KiB.
    segment_kib = 64,
    /// KiB of log that make a snapshot due; 0: the program's own default.
    snapshot_kib = 0,
    /// The shortest way of a segment through the network, in microseconds.
    delay_min_us = 20,
    /// The longest.
    delay_max_us = 80,
    /// Segments in a thousand that are lost and sent again by the kernel 200 ms later.
    loss_pm = 0,
    /// Frames in a thousand that are never sent.
    frame_loss_pm = 0,
    /// Frames in a thousand that arrive a second time, later and out of order.
    copy_pm = 0,
    /// How much later at most, in milliseconds.
    copy_delay_ms = 100,
    /// Copies in a thousand that are hours late.
    hours_pm = 0,
    /// The shortest disk operation in microseconds.
    disk_min_us = 50,
    /// The longest.
    disk_max_us = 300,
    /// Whether everything goes wrong with the disks that can, and what blocks a server takes time.
    rough_disks = 0,
    /// The longest turn of a server in microseconds.
    turn_us = 20,
    /// In so many of a thousand stages of its turns a server stands still.
    stumble_pm = 0,
    /// For so long at most, in milliseconds.
    stumble_ms = 100,
    /// How much a server's clock runs too fast or slow at most, in millionths.
    skew_ppm = 0,
    /// KiB that the kernels take of one connection between servers before it is read (0: any number).
    kernel_kib = 0,
    /// KiB that a server lets wait for such a connection (0: as the program does).
    peer_output_kib = 0,
    /// Pipelines in a hundred with something that no server takes: it is refused, or ends the
    /// connection.
    nonsense_pc = 0,
    /// Commands that a client sends at once at most.
    pipeline = 4,
    /// Commands that the clients send in all (0: as many as they like).
    commands = 0,
    /// Clients that only read, of those beyond the first. Whoever writes soon waits on a server that
    /// lost its majority; whoever reads there is the one to be told something old.
    readers = 0,
    /// How long a client thinks at most, in milliseconds.
    think_ms = 20,
    /// Keys that the clients share.
    keys = 3,
    /// Bytes of the largest value.
    value_bytes = 8,
    /// Hellos in a thousand that are lost, doubled, or late.
    hello_pm = 0,
    /// Whether lease reads are offered, and some clients use them.
    lease = 0,
    /// Clients in a hundred that behave oddly: by line, byte by byte, in RESP3, deaf, half-open.
    odd_pc = 0,
    /// Pipelines in a hundred that are sent once more elsewhere after they were given up.
    repeat_pc = 0,
    /// Clients of the last ones whose writes are those of a client session.
    sessions = 0,
    /// Whether servers begin with an older build, which doesn't know every command.
    upgrades = 0,
    /// Commands in a hundred that are transactions, or on their keys.
    transactions = 0,
    /// Whether clients set keys that expire; 2: some of them late, when the run is over.
    expiry = 0,
    /// Whether a majority heals before the rest does.
    half_healed = 0,
    /// A client in a hundred turns moves to another server with commands unanswered.
    move_pc = 0,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// A fault that strikes at a given time.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// Its name in scripts and summaries.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// kill -9 of server `a` (0: the leader), behind `b` steps of its next turn (0: at once).
    Kill = "kill",
    /// The machine of server `a` (0: the leader's) loses its power.
    PowerLoss = "power-loss",
    /// kill -9 of all.
    KillAll = "kill-all",
    /// All machines lose their power.
    PowerLossAll = "power-loss-all",
    /// Server `a` is started (0: all that are down).
    Start = "start",
    /// Server `a` (0: the leader) stands still for `b` milliseconds.
    Pause = "pause",
    /// Server `a` (0: the leader) stands still for `b` milliseconds in the middle of a turn: between
    /// the poll and what is read (`c` 0), before the node decides (1), or before anything is sent (2).
    Stumble = "stumble",
    /// Of three, one of the leader's followers, the first or second of them by `a`, loses it; the
    /// other one stands still in a turn for `b` milliseconds, as [`Kind::Stumble`] says by `c`, and
    /// hears no more of the leader than what has come by the end of that.
    SleepyVoter = "sleepy-voter",
    /// All servers stand still for `b` minutes.
    Suspend = "suspend",
    /// Server `a` is asked to stop.
    Stop = "stop",
    /// Server `a` dies and its disk is replaced by an empty one.
    Wipe = "wipe",
    /// The disk of server `a` is copied.
    Save = "save",
    /// Server `a` dies and comes back on the copy.
    OldCopy = "old-copy",
    /// The machine of server `a` (0: the leader's) dies in the middle of the disk operation that is
    /// `b` steps ahead.
    CrashAt = "crash-in-operation",
    /// Server `a` dies, starts, and dies in the middle of the start's disk operation `b`.
    CrashInStart = "crash-in-recovery",
    /// Server `a` dies, and its successors' next `b` reads fail. If `c` is 1 it goes on, and they are
    /// its own.
    ReadError = "read-error",
    /// Server `a` dies, and a bit of its meta file flips.
    MetaRot = "meta-rot",
    /// Server `a` dies, and its meta file is cut short.
    MetaCut = "meta-cut",
    /// Server `a` loses its power, and its meta file is as it was some boots ago.
    MetaStale = "meta-stale",
    /// Server `a` dies, and a segment of its log is cut short.
    SegmentCut = "segment-cut",
    /// Server `a` dies, and a bit of its log flips.
    Rot = "bit-rot",
    /// Server `a` dies, and a sector of its log is found in place of another.
    Misdirected = "misdirected-sector",
    /// Server `a` dies, and a sector of its log is as it was before.
    Stale = "stale-sector",
    /// Behind `b` more operations the disk of server `a` fails one.
    Error = "disk-error",
    /// The disk of server `a` has `b` KiB left.
    Full = "disk-full",
    /// The disk of server `a` has space again.
    Space = "disk-space",
    /// Every operation of the disk of server `a` takes `b` milliseconds more.
    Stall = "disk-stall",
    /// What is submitted to the disk of server `a` takes `b` milliseconds more, which is for ever.
    Hang = "disk-hang",
    /// Nothing passes from server `a` to server `b`.
    Cut = "one-way-cut",
    /// The servers of mask `a` and the others don't hear each other.
    Split = "partition",
    /// Two halves that only server `a` hears both of.
    Bridge = "bridge",
    /// Each server hears only its two neighbours.
    Ring = "ring",
    /// Server `a` (0: the leader) hears nobody, and nobody hears it.
    Isolate = "isolate",
    /// Servers `a` and `b` lose each other `c` times, for some ten milliseconds each.
    Flap = "flap",
    /// The connection between servers `a` and `b` is reset, in the middle of what was sent.
    Reset = "reset",
    /// From server `a` to server `b` pass `c` KiB a second (0: any number).
    Slow = "slow-link",
    /// From server `a` to server `b` pass `c` bytes a second (0: any number): a heartbeat takes
    /// seconds.
    Crawl = "crawling-link",
    /// What server `a` sends to server `b` over the connections of this moment is no longer read.
    StalledReads = "stalled-reads",
    /// Who dials server `a` meets server `b`, and the other way round.
    Swap = "swapped-addresses",
    /// Everyone hears everyone.
    Heal = "heal",
    /// Server `a`, a spare, is started for the first time.
    Launch = "launch",
    /// An operator says RAFT ADD of server `b` to server `a` (0: the leader). Of `c`, 1 adds LEARNER,
    /// 2 leaves the addresses out, 4 adds DRYRUN.
    Add = "raft-add",
    /// RAFT REMOVE of server `b` (0: the leader), said to server `a`. Of `c`, 1 adds FORCE, 4 DRYRUN.
    Remove = "raft-remove",
    /// RAFT PROMOTE of server `b`, said to server `a`. Of `c`, 4 adds DRYRUN.
    Promote = "raft-promote",
    /// RAFT REPLACE of server `b` by server `c`, said to server `a`.
    Replace = "raft-replace",
    /// The machine of server `b` moves to another address, and RAFT MOVE is said to server `a`;
    /// before that if `c` is 1.
    Move = "raft-move",
    /// RAFT TRANSFER to server `b` (0: to anyone), said to server `a`. Of `c`, 4 adds DRYRUN.
    Transfer = "raft-transfer",
    /// RAFT SNAPSHOT, said to server `a` (0: the leader).
    Snapshot = "raft-snapshot",
    /// Server `a` dies, and a bit of each of its newest `b` snapshots flips. If `b` is 0: of the
    /// newest one, and the server goes on.
    SnapshotRot = "snapshot-rot",
    /// What server `a` (0: the leader) was ever answered, in whatever term, comes once more within `b`
    /// milliseconds, in any order.
    LateAnswers = "late-answers",
    /// Of three, one of the leader's followers, the first or second of them by `a`, loses it; `b`
    /// milliseconds later the other one, which dies then and is back within `c` milliseconds.
    ForgetfulVoter = "forgetful-voter",
    /// The wall clock of server `a` jumps `b` minutes ahead and `c` minutes back.
    WallJump = "wall-jump",
    /// Client `a` resets its connection in the middle of a command.
    ClientReset = "client-reset",
    /// For `c` milliseconds nothing arrives of client `a` (`b` 1), or at it (2), or neither (3).
    ClientCut = "client-cut",
    /// For `c` milliseconds `b` bytes a second reach client `a`.
    ClientSlow = "client-slow",
    /// The connection of client `a` is reset, in the middle of what both sides have sent.
    HalfReply = "half-reply",
    /// Server `a` dies, and comes back as a newer build.
    Upgrade = "upgrade",
    /// `b` clients connect to server `a` (0: the leader) and say nothing.
    IdleClients = "idle-clients",
}

impl Settings {
    /// All servers of a run, spares included.
    pub fn machines(&self) -> u64 {
        self.nodes + self.spares
    }
}

impl Kind {
    /// Whether an operator asks for it.
    pub fn is_request(self) -> bool {
        use Kind as K;
        matches!(self, K::Add | K::Remove | K::Promote | K::Replace | K::Move | K::Transfer)
    }

    /// Whether it makes a server forget what it promised.
    pub fn is_ruin(self) -> bool {
        use Kind as K;
        matches!(
            self,
            K::Wipe
                | K::OldCopy
                | K::MetaRot
                | K::MetaCut
                | K::MetaStale
                | K::SegmentCut
                | K::Rot
                | K::Misdirected
                | K::Stale
                | K::SnapshotRot
        )
    }

    /// Whether it only makes ready what strikes later, if at all: counted is what struck.
    pub fn only_arms(self) -> bool {
        matches!(self, Kind::Error | Kind::Full | Kind::CrashAt | Kind::ReadError)
    }

    fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// One fault and its numbers; what they mean is written at its [`Kind`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Milliseconds after the run's beginning.
    pub at_ms: u64,
    /// What strikes.
    pub kind: Kind,
    /// Mostly whom.
    pub a: u64,
    /// How much.
    pub b: u64,
    /// How much more.
    pub c: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} {}", self.at_ms, self.kind.name())?;
        let numbers = [self.a, self.b, self.c];
        let count = numbers.iter().rposition(|number| *number != 0).map_or(0, |last| last + 1);
        numbers[..count].iter().try_for_each(|number| write!(f, " {number}"))
    }
}

/// One run.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Script {
    /// What all chance of the run is drawn from.
    pub seed: u64,
    /// Its numbers.
    pub settings: Settings,
    /// Its faults, in the order of their times.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        let usual = Settings::default().all();
        for ((name, value), (_, usual)) in self.settings.all().into_iter().zip(usual) {
            if value != usual {
                writeln!(f, "{name} {value}")?;
            }
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "{fault}"))
    }
}

impl Script {
    /// Reads a script: `seed N`, `<setting> N`, `at <ms> <fault> [a [b [c]]]`, each on a line;
    /// empty lines and what follows a `#` mean nothing.
    ///
    /// # Errors
    /// The first line that is none of these, by its number.
    pub fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            script.take(&words).ok_or_else(|| format!("line {number}: '{}'", line.trim()))?;
        }
        Ok(script)
    }

    fn take(&mut self, words: &[&str]) -> Option<()> {
        match words {
            [] => {}
            ["seed", seed] => self.seed = seed.parse().ok()?,
            ["at", at_ms, kind, numbers @ ..] if numbers.len() <= 3 => {
                let number = |place: usize| numbers.get(place).map_or(Some(0), |n| n.parse().ok());
                self.faults.push(Fault {
                    at_ms: at_ms.parse().ok()?,
                    kind: Kind::from_name(kind)?,
                    a: number(0)?,
                    b: number(1)?,
                    c: number(2)?,
                });
            }
            [name, value] => return self.settings.set(name, value.parse().ok()?).then_some(()),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_what_display_writes() {
        let script = Script {
            seed: 7,
            settings: Settings { nodes: 5, loss_pm: 3, ..Settings::default() },
            faults: vec![
                Fault { at_ms: 10, kind: Kind::Kill, a: 2, b: 1, c: 0 },
                Fault { at_ms: 20, kind: Kind::Heal, a: 0, b: 0, c: 0 },
                Fault { at_ms: 30, kind: Kind::Slow, a: 0, b: 0, c: 9 },
            ],
        };
        let text = script.to_string();
        assert_eq!(
            text,
            "seed 7\nnodes 5\nloss_pm 3\nat 10 kill 2 1\nat 20 heal\nat 30 slow-link 0 0 9\n"
        );
        assert_eq!(Script::parse(&text), Ok(script));
    }

    #[test]
    fn parse_names_the_line_that_is_wrong() {
        assert_eq!(Script::parse("seed 1\nat x kill\n"), Err("line 2: 'at x kill'".to_owned()));
        assert_eq!(Script::parse("# only\n\nnode 3"), Err("line 3: 'node 3'".to_owned()));
    }
}
