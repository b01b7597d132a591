//! The values of the replicated log: what Raft decides on, peers exchange and the disk keeps.
//!
//! Dissertation §3.5 (log entries) and §4 (membership entries). Called by `raft/`, `storage/` and
//! the codecs beside it; holds no encoding of its own: [`super::record`] writes entries to disk,
//! [`super::peer_message`] to peers, and both carry `payload` as it is.

use bytes::Bytes;

use super::snapshot::SnapshotHeader;
use crate::types::{ClusterTime, Identity, Lineage, LogIndex, ServerId, SnapshotId, Term};

/// What an entry is for. The number is its code in the log and between peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// Nothing but its term and time: a new leader's first entry (§6.4), or a tick of the cluster
    /// clock that lets a key expire.
    Empty = 0,
    /// A gateway's batch of commands: see [`super::batch`].
    Batch = 1,
    /// The membership from here on: see [`super::membership`](crate::raft::membership).
    Membership = 2,
    /// The version of the command set from here on, as four bytes: see `kv/command_set.rs`.
    CommandSet = 3,
}

impl EntryKind {
    /// The kind that has this code.
    pub fn from_code(code: u8) -> Option<EntryKind> {
        match code {
            0 => Some(EntryKind::Empty),
            1 => Some(EntryKind::Batch),
            2 => Some(EntryKind::Membership),
            3 => Some(EntryKind::CommandSet),
            _ => None,
        }
    }
}

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its place in the log, 1 and up without gaps.
    pub index: LogIndex,
    /// The term of the leader that appended it.
    pub term: Term,
    /// The cluster clock when it was appended.
    pub time: ClusterTime,
    /// What the payload is.
    pub kind: EntryKind,
    /// Encoded once, by the gateway; shared by memory, disk and every peer.
    pub payload: Bytes,
}

/// What a server must not forget (§3.3): its term, and whom it voted for in it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HardState {
    /// `currentTerm`.
    pub current_term: Term,
    /// `votedFor`.
    pub voted_for: Option<ServerId>,
}

/// One atomic change of what is durable, in this order: reset, truncate, append, hard state.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LogWrite {
    /// The log is empty from here on, and begins behind the last entry of this snapshot, which is
    /// durable under its name already.
    pub reset: Option<SnapshotId>,
    /// Entries at this index and above are no longer part of the log.
    pub truncate_from: Option<LogIndex>,
    /// Entries that follow on the last one that is left.
    pub entries: Vec<Entry>,
    /// The new term and vote, if they changed.
    pub hard_state: Option<HardState>,
}

impl LogWrite {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.reset.is_none()
            && self.truncate_from.is_none()
            && self.entries.is_empty()
            && self.hard_state.is_none()
    }
}

/// What a data directory held when it was opened; what a node starts from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Who this process is, its boot counter already raised and durable.
    pub identity: Identity,
    /// Which of the clusters of its name the directory belongs to.
    pub lineage: Lineage,
    /// Term and vote.
    pub hard_state: HardState,
    /// The newest valid snapshot, if there is one: its header, and the file's length in bytes.
    pub snapshot: Option<(SnapshotHeader, u64)>,
    /// The log behind the snapshot, without gaps; from index 1 where there is none.
    pub entries: Vec<Entry>,
    /// The newest process of every peer that this directory has met: see
    /// [`Identity`] for boot and nonce.
    pub known_peers: Vec<Identity>,
    /// Why the directory was begun anew, if it has replaced one that was damaged or an old copy, and
    /// was not admitted since: its server has forgotten promises, and takes part in nothing.
    pub recovering: Option<String>,
}
