//! The snapshot file as bytes: a header, blocks of records, a footer, each with its checksum.
//!
//! Design page 3, §3. Called by `kv/` (which fills and reads it), by `node/` (which checks what a
//! leader sends) and by `storage/` (which reads headers). Never opens a file, never allocates by a
//! declared length.

use bytes::Bytes;

use super::message::GatewayId;
use crate::types::{BatchSeq, Boot, ClusterId, ClusterTime, LogIndex, Revision, SnapshotId};

/// What stands at the beginning of a snapshot: all of the state but the records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotHeader {
    /// The cluster.
    pub cluster: ClusterId,
    /// The last entry that it includes.
    pub id: SnapshotId,
    /// The index of the membership entry in force there; 0 where there was none.
    pub membership_index: LogIndex,
    /// That membership, as its entry has it.
    pub membership: Bytes,
    /// The state machine's clock.
    pub clock: ClusterTime,
    /// The number of the last mutation.
    pub revision: Revision,
    /// The running digest of everything applied.
    pub digest: u64,
    /// The version of the command set in force.
    pub command_set: u32,
    /// The newest batch of every member's gateway.
    pub gateways: Vec<(GatewayId, Boot, BatchSeq)>,
}
