//! Snapshots in a simulated process: the node's effects on files, and what the disk says of them.
//!
//! As `loop/snapshots.rs` has it, without the log lines. Called by [`super::process`], in the steps
//! of a turn that are the loop's. Decides nothing.

use bytes::Bytes;

use crate::node::{Effect, Input};
use crate::storage::{SnapshotEvent, Storage, StorageError};
use crate::types::SnapshotKind;

/// Carries out an effect on snapshot files or the log's beginning. What was read is put into
/// `inputs`, for the next turn.
pub(super) fn carry_out(
    effect: Effect,
    storage: &mut Storage,
    inputs: &mut Vec<Input>,
) -> Result<(), StorageError> {
    match effect {
        Effect::WriteSnapshot { kind, id, offset, bytes } => {
            storage.write_snapshot(kind, id, offset, bytes)
        }
        Effect::FinishSnapshot { kind, id, length } => storage.finish_snapshot(kind, id, length),
        Effect::AbandonSnapshot { kind } => storage.abandon_snapshot(kind),
        Effect::CompactLog { through } => storage.compact(through),
        Effect::ReadSnapshot { id, offset, length, reader } => {
            let mut bytes = vec![0; length];
            let read = storage.read_snapshot(id, offset, &mut bytes)?;
            let bytes = (read == Some(length)).then(|| Bytes::from(bytes));
            inputs.push(Input::SnapshotRead { id, offset, bytes, reader });
            Ok(())
        }
        Effect::Persist { .. }
        | Effect::Send { .. }
        | Effect::Reply { .. }
        | Effect::Close { .. } => unreachable!("the process carries these out itself"),
    }
}

/// What became of a snapshot, for the summary.
pub(super) fn strike(event: SnapshotEvent) -> &'static str {
    match event {
        SnapshotEvent::Written { .. } => "snapshot-written",
        SnapshotEvent::Durable { kind: SnapshotKind::Own, .. } => "snapshot-taken",
        SnapshotEvent::Durable { kind: SnapshotKind::Received, .. } => "snapshot-received",
        SnapshotEvent::Full { .. } => "snapshot-without-space",
    }
}

/// What the node is told of a snapshot's file.
pub(super) fn input(event: SnapshotEvent) -> Input {
    match event {
        SnapshotEvent::Written { kind, id, through } => {
            Input::SnapshotWritten { kind, id, through }
        }
        SnapshotEvent::Durable { kind, id } => Input::SnapshotDurable { kind, id },
        SnapshotEvent::Full { kind, id } => Input::SnapshotFull { kind, id },
    }
}
