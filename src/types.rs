//! The vocabulary: one newtype for each kind of number that crosses a module border.
//!
//! Called by everything, calls nothing. The names are those of the Raft dissertation (Ongaro,
//! "Consensus: Bridging Theory and Practice", 2014). Nothing here reads a clock: an [`Instant`]
//! is a number that a driver gives to the core.

use std::fmt;
use std::time::Duration;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The smallest value; where a field may be absent on the wire, it stands for "none".
            pub const ZERO: $name = $name(0);

            /// The value after this one. At the top of the range it stays there, so that a forged
            /// number from outside can never wrap round to a small one.
            #[must_use]
            pub const fn next(self) -> $name {
                $name(self.0.saturating_add(1))
            }

            /// The value before this one, or zero.
            #[must_use]
            pub const fn prev(self) -> $name {
                $name(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

number! {
    /// A cluster's identity on the wire: a digest of its name and its lineage.
    ClusterId
}
number! {
    /// Which of the clusters of one name: 0 is the one that was founded; each restore from a backup
    /// and each recovery of a lost quorum draws a random number, so that nothing of the cluster
    /// before it is ever heard in the new one.
    Lineage
}
number! {
    /// A server's id, 1 and up, chosen by the operator. 0 is nobody.
    ServerId
}
number! {
    /// A random number drawn when a data directory is created: a wiped disk gets a new one.
    Incarnation
}
number! {
    /// How often a data directory was started; durable before it is used. A gateway's epoch.
    Boot
}
number! {
    /// A random number of one process, so that two processes with one boot counter can be told
    /// apart.
    Nonce
}
number! {
    /// Raft's `currentTerm` (§3.3).
    Term
}
number! {
    /// An index into the replicated log; the first entry is 1, 0 is the place before it (§3.5).
    LogIndex
}
number! {
    /// The number of one [`Persist`](crate::node::Effect::Persist) effect. Never reused, so that a
    /// late completion can never vouch for entries that were replaced meanwhile.
    WalSeq
}
number! {
    /// The number of one mutation of the store; also a key's fencing token and ETag.
    Revision
}

impl Revision {
    /// As clients are told it. Revisions stay below 2^63: one a nanosecond would take 292 years.
    pub fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

number! {
    /// The number of one gateway's batch, 1 and up from each boot.
    BatchSeq
}
number! {
    /// The number of one round of AppendEntries that confirms reads (ReadIndex, §6.4).
    ReadRound
}
number! {
    /// A client session; 0 is none. Opened through the log when clients ask for one.
    SessionId
}
number! {
    /// A lease; 0 is none. Given by a client, or that of the mutation that granted it.
    LeaseId
}
number! {
    /// The number of one request of a client, 1 and up on its session or connection.
    RequestSeq
}
number! {
    /// Milliseconds since the Unix epoch by some node's own wall clock.
    WallClock
}
number! {
    /// Milliseconds since the Unix epoch by the cluster's clock, which the leader sets and the log
    /// carries. Expiry is decided by nothing else.
    ClusterTime
}
number! {
    /// Monotonic nanoseconds since some point before the process began. Only differences mean
    /// anything.
    Instant
}

impl ClusterId {
    /// The digest of a cluster's name: FNV-1a, 64 bits. It tells clusters apart that meet by a
    /// mistake of configuration; it is no defence against an attacker.
    #[must_use]
    pub const fn from_name(name: &str) -> ClusterId {
        ClusterId(fnv(0xcbf2_9ce4_8422_2325, name.as_bytes()))
    }

    /// The cluster of that lineage, where `self` is the digest of its name. The cluster that was
    /// founded is named by its name alone.
    #[must_use]
    pub const fn of_lineage(self, lineage: Lineage) -> ClusterId {
        match lineage.0 {
            0 => self,
            number => ClusterId(fnv(self.0, &number.to_le_bytes())),
        }
    }
}

/// FNV-1a, 64 bits, of what `digest` was made of and of `bytes`.
const fn fnv(mut digest: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        digest = (digest ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    digest
}

impl Instant {
    /// This instant and `duration` more; [`NEVER`](Instant::NEVER) where that is past the range. A
    /// key may live for longer than 2^64 nanoseconds.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Instant {
        let nanos = duration.as_nanos();
        if nanos > u64::MAX as u128 {
            return Instant::NEVER;
        }
        Instant(self.0.saturating_add(nanos as u64))
    }

    /// The time from `earlier` to this instant, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// An instant that never comes.
    pub const NEVER: Instant = Instant(u64::MAX);
}

impl LogIndex {
    /// This index and `count` more.
    #[must_use]
    pub const fn plus(self, count: u64) -> LogIndex {
        LogIndex(self.0.saturating_add(count))
    }
}

impl ClusterTime {
    /// This time and `duration_ms` milliseconds more.
    #[must_use]
    pub const fn plus_ms(self, duration_ms: u64) -> ClusterTime {
        ClusterTime(self.0.saturating_add(duration_ms))
    }
}

/// How much the log on disk can still grow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Room {
    /// No worry.
    #[default]
    Ample,
    /// Only the reserve is left: growing commands are refused, deletions go on.
    Scarce,
    /// Only room for terms and votes is left: nothing is appended.
    Exhausted,
}

/// A client connection: the driver's slot for it, and a generation that tells two users of one
/// slot apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId {
    /// The driver's slot; small and dense, so that it can index a vector.
    pub slot: u32,
    /// Grows each time the slot is given to a new connection.
    pub generation: u32,
}

/// Who a process is: what its hello says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The digest of the cluster's name.
    pub cluster: ClusterId,
    /// The server's id.
    pub server: ServerId,
    /// Which data directory it runs on.
    pub incarnation: Incarnation,
    /// How often that directory was started, this time included.
    pub boot: Boot,
    /// A random number of this process.
    pub nonce: Nonce,
}

/// What a node has made of the log, and what a majority of the voters has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// The last entry that was applied.
    pub index: LogIndex,
    /// The node's digest there.
    pub own: u64,
    /// The majority's.
    pub majority: u64,
}

/// A snapshot's name: the last entry of the log that it includes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct SnapshotId {
    /// That entry's index.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
}

/// Whose work a snapshot file is that is not yet whole. One of each may be written at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotKind {
    /// This node takes it of its own state.
    Own,
    /// A leader sends it.
    Received,
}

/// For whom a piece of a snapshot is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotReader {
    /// The state machine is made from it.
    Load,
    /// It is sent to this peer.
    Peer(ServerId),
    /// A client makes a backup of it.
    Client,
}

/// A version of the command set: which commands, and which meanings of them, the log may hold. It
/// lives in the log and grows only (design 3-storage §5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CommandSet(pub u32);

impl CommandSet {
    /// What every build knows, and every log begins with.
    pub const FIRST: CommandSet = CommandSet(1);
}

impl Default for CommandSet {
    fn default() -> CommandSet {
        CommandSet::FIRST
    }
}

impl fmt::Display for CommandSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_id_tells_lineages_of_one_name_apart() {
        let named = ClusterId::from_name("main");
        assert_eq!(named.of_lineage(Lineage::ZERO), named);
        let one = named.of_lineage(Lineage(1));
        assert!(one != named && one != named.of_lineage(Lineage(2)));
        assert_ne!(one, ClusterId::from_name("other").of_lineage(Lineage(1)));
    }
}
