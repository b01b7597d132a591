//! What a node shows of itself: the source of `INFO raft`, the loop's log lines and the tests.

use crate::types::{Incarnation, LogIndex, ServerId, SnapshotId, Term};

/// What a node is, by the dissertation's names and two of our own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether a campaign would succeed (§9.6).
    PreCandidate,
    /// Campaigns (§3.4).
    Candidate,
    /// Leads.
    Leader,
    /// Follows without a vote.
    Learner,
    /// Was a member, and is none any more.
    Removed,
    /// Runs on a disk that the cluster does not know: takes part in nothing.
    Recovering,
}

impl Role {
    /// Its name in `INFO raft`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Follower => "follower",
            Role::PreCandidate => "pre_candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
            Role::Learner => "learner",
            Role::Removed => "removed",
            Role::Recovering => "recovering",
        }
    }
}

/// What tells that the node may want connections with others than before.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PeersStamp {
    pub(super) membership: LogIndex,
    pub(super) committed: LogIndex,
    pub(super) dials_everyone: bool,
    pub(super) concerned: usize,
}

/// A node's state at a glance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Its id.
    pub server: ServerId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub current_term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<ServerId>,
    /// Entries up to here are committed.
    pub commit_index: LogIndex,
    /// Entries up to here are in the store.
    pub last_applied: LogIndex,
    /// The log's end.
    pub last_log_index: LogIndex,
    /// The log's beginning, as it is in memory.
    pub first_log_index: LogIndex,
    /// The newest durable snapshot, and its file's length in bytes.
    pub snapshot: Option<(SnapshotId, u64)>,
    /// The snapshot that is being taken.
    pub taking: Option<SnapshotId>,
    /// The snapshot that is being received, how many of its bytes came, and how many there are.
    pub receiving: Option<(SnapshotId, u64, u64)>,
    /// How much of a snapshot was loaded, while one is.
    pub loading_percent: Option<u64>,
}

/// A peer that this node wants a connection to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its id.
    pub id: ServerId,
    /// Its peer address, `host:port`.
    pub address: String,
    /// Whether this node is to dial it. As a rule the smaller id of two dials; who can't know whom to
    /// dial is dialled, and everybody is by whoever leads, or while nobody does.
    pub dial: bool,
}
