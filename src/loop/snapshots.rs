//! Log lines about snapshots: what was taken and received, and how far a load or a transfer is.
//!
//! Called by `turn.rs`, steps 3 and 6. What is done about snapshots is [`crate::driver`]'s.

use crate::node::Status;
use crate::storage::SnapshotEvent;
use crate::types::{SnapshotId, SnapshotKind};

/// Logs what the disk says of a snapshot, but for each piece.
pub(super) fn log_event(event: &SnapshotEvent) {
    match event {
        SnapshotEvent::Written { .. } | SnapshotEvent::Read { .. } => {}
        SnapshotEvent::Durable { kind, id } => {
            let work = match kind {
                SnapshotKind::Own => "taken",
                SnapshotKind::Received => "received",
            };
            log::info!("snapshot up to entry {} (term {}) {work}", id.index, id.term);
        }
        SnapshotEvent::Full { id, .. } => {
            log::warn!("no space for a snapshot up to entry {}: it will be tried again", id.index);
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
