//! What every driver of a node does alike: its effects on snapshot files, what they come to, what a
//! hello asks to be remembered, and when a peer is dialled.
//!
//! Design page 3, §3. The order of a turn is in [`turn`], what connections say in [`conversation`] and
//! [`peers`]. Called by `loop/` and by `sim/`, so that
//! the simulator runs what the server runs. Nothing here blocks but [`remember`]. Decides nothing.

pub mod conversation;
pub mod peers;
pub mod turn;

use crate::node::{Effect, Input, Node, Verdict};
use crate::proto::hello::HelloRefused;
use crate::storage::{PieceRead, SnapshotEvent, Storage, StorageError};

/// Carries out an effect on snapshot files or the log's beginning. What it comes to is an event of
/// the storage.
///
/// # Errors
/// The disk's: the process ends.
pub fn carry_out(effect: Effect, storage: &mut Storage) -> Result<(), StorageError> {
    match effect {
        Effect::WriteSnapshot { kind, id, offset, bytes } => {
            storage.write_snapshot(kind, id, offset, bytes)
        }
        Effect::FinishSnapshot { kind, id, length } => storage.finish_snapshot(kind, id, length),
        Effect::AbandonSnapshot { kind } => storage.abandon_snapshot(kind),
        Effect::CompactLog { through } => storage.compact(through),
        Effect::Diverged(divergence) => storage.note_divergence(divergence),
        Effect::Outdated { in_force, known } => Err(StorageError::Outdated { in_force, known }),
        Effect::ReadSnapshot { id, offset, length, reader } => {
            storage.read_snapshot(PieceRead { id, offset, length, reader })
        }
        Effect::Persist { .. }
        | Effect::Send { .. }
        | Effect::Reply { .. }
        | Effect::Push { .. }
        | Effect::Close { .. } => unreachable!("each driver carries these out itself"),
    }
}

/// Makes durable what a hello asks to be remembered, before it counts; or says why it doesn't.
///
/// # Errors
/// The disk's: the process ends. A full disk is none.
pub fn remember(
    verdict: &Verdict,
    node: &mut Node,
    storage: &mut Storage,
) -> Result<Option<HelloRefused>, StorageError> {
    if let Some(lineage) = verdict.adopt {
        storage.adopt_lineage(lineage)?;
    }
    let is_kept = match verdict.record {
        Some(identity) => storage.record_peer(identity)?,
        None => true,
    };
    Ok((!is_kept).then(|| node.take_back(verdict)))
}

/// What the node is told of a snapshot's file.
pub fn input(event: SnapshotEvent) -> Input {
    match event {
        SnapshotEvent::Written { kind, id, through } => {
            Input::SnapshotWritten { kind, id, through }
        }
        SnapshotEvent::Durable { kind, id } => Input::SnapshotDurable { kind, id },
        SnapshotEvent::Full { kind, id } => Input::SnapshotFull { kind, id },
        SnapshotEvent::Read { piece: PieceRead { id, offset, reader, .. }, bytes } => {
            Input::SnapshotRead { id, offset, bytes, reader }
        }
    }
}
