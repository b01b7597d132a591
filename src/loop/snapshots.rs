//! Snapshots in the loop: the node's effects on files, what the disk says of them, and log lines.
//!
//! Design page 3, §3. Called by `turn.rs`, steps 3 and 6. Pieces are read where they are asked for:
//! they are small, and their file is in the page cache or about to be. Decides nothing.

use bytes::Bytes;

use crate::node::{Effect, Input, Status};
use crate::storage::{SnapshotEvent, Storage, StorageError};
use crate::types::{SnapshotId, SnapshotKind};

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
        | Effect::Close { .. } => {
            unreachable!("the turn carries these out itself")
        }
    }
}

/// What the node is told of a snapshot's file.
pub(super) fn input(event: SnapshotEvent) -> Input {
    match event {
        SnapshotEvent::Written { kind, id, through } => {
            Input::SnapshotWritten { kind, id, through }
        }
        SnapshotEvent::Durable { kind, id } => {
            let work = match kind {
                SnapshotKind::Own => "taken",
                SnapshotKind::Received => "received",
            };
            log::info!("snapshot up to entry {} (term {}) {work}", id.index, id.term);
            Input::SnapshotDurable { kind, id }
        }
        SnapshotEvent::Full { kind, id } => {
            log::warn!("no space for a snapshot up to entry {}: it will be tried again", id.index);
            Input::SnapshotFull { kind, id }
        }
    }
}

/// What was last logged about snapshots.
#[derive(Default, Debug)]
pub(super) struct SnapshotLines {
    loading_tenths: Option<u64>,
    receiving: Option<(SnapshotId, u64)>,
}

impl SnapshotLines {
    /// Logs each tenth of a load and of a transfer, once.
    pub fn log(&mut self, status: &Status) {
        let tenths = status.loading_percent.map(|percent| percent / 10);
        if tenths != self.loading_tenths {
            match (status.loading_percent, status.snapshot) {
                (Some(percent), Some((id, bytes))) => {
                    log::info!("loading snapshot {} of {bytes} bytes: {percent}%", id.index);
                }
                _ => log::info!("loaded the state up to entry {}", status.last_applied),
            }
            self.loading_tenths = tenths;
        }
        let receiving = status.receiving.map(|(id, came, total)| (id, came * 10 / total.max(1)));
        if receiving != self.receiving {
            if let Some((id, came, total)) = status.receiving {
                log::info!("receiving snapshot {}: {came} of {total} bytes", id.index);
            }
            self.receiving = receiving;
        }
    }
}
