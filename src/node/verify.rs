//! Checks the snapshot that a leader sends, while it comes.
//!
//! Design page 3, §3: index and term are checked before anything is replaced. Called by
//! `snapshots.rs` with each piece, in order. Keeps one block of the file at most, and its header.

use crate::proto::snapshot::{SnapshotError, SnapshotHeader};
use crate::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};
use crate::raft::membership::Membership;
use crate::types::{ClusterId, CommandSet, SnapshotId};

/// Why a snapshot is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unfit {
    /// Its bytes are not those of a snapshot, or not all of them.
    Damaged(SnapshotError),
    /// It is another cluster's, or another snapshot than it was called.
    Misnamed,
    /// Its membership is none.
    NotUnderstood,
    /// It has a version of the command set in force that this build doesn't know.
    Outdated(CommandSet),
}

/// A snapshot that is being received.
#[derive(Debug)]
pub(super) struct Verifying {
    cluster: ClusterId,
    known: CommandSet,
    id: SnapshotId,
    total: u64,
    decoder: SnapshotDecoder,
    header: Option<SnapshotHeader>,
    is_whole: bool,
}

impl Verifying {
    /// Of the snapshot `id` of `cluster`, whose file is `total` bytes long, nothing has come yet.
    /// This build knows the command set up to `known`.
    pub fn new(cluster: ClusterId, known: CommandSet, id: SnapshotId, total: u64) -> Verifying {
        let decoder = SnapshotDecoder::new();
        Verifying { cluster, known, id, total, decoder, header: None, is_whole: false }
    }

    /// Which snapshot.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// Checks the file's next bytes; whether it is whole with them.
    pub fn check(&mut self, bytes: &[u8]) -> Result<bool, Unfit> {
        let mut rest = bytes;
        while let Some(item) = self.decoder.decode(&mut rest).map_err(Unfit::Damaged)? {
            if let SnapshotItem::Header(header) = item {
                check_header(&header, self.cluster, self.id)?;
                if header.command_set > self.known {
                    return Err(Unfit::Outdated(header.command_set));
                }
                self.header = Some(header);
            }
        }
        if self.decoder.bytes() < self.total {
            return Ok(false);
        }
        self.decoder.finish().map_err(Unfit::Damaged)?;
        self.is_whole = true;
        Ok(true)
    }

    /// The header and the length, once it is whole.
    pub fn finished(self) -> Option<(SnapshotHeader, u64)> {
        let header = self.header.filter(|_| self.is_whole)?;
        Some((header, self.total))
    }
}

fn check_header(header: &SnapshotHeader, cluster: ClusterId, id: SnapshotId) -> Result<(), Unfit> {
    if header.cluster != cluster || header.id != id {
        return Err(Unfit::Misnamed);
    }
    let membership = Membership::decode(&header.membership);
    let is_founded = membership.is_some_and(|membership| !membership.is_empty());
    if !is_founded || header.membership_index > id.index {
        return Err(Unfit::NotUnderstood);
    }
    Ok(())
}
