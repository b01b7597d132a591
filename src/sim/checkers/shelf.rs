//! The snapshots on a server's stable media: each is whole, and the state at its index.
//!
//! Read with the real decoder and loaded like any other, once for each file. Called by the checkers'
//! front door when a disk has finished something. *durable-before-ack* leans on what is found here.

use std::collections::BTreeMap;
use std::path::Path;

use crate::kv::loader::Loader;
use crate::sim::media::Media;
use crate::sim::world::SNAP;
use crate::storage::shelf;
use crate::types::{LogIndex, ServerId, SnapshotId};

/// Those of one server that were seen, by the file that had the name.
#[derive(Default)]
pub(super) struct StableSnapshots {
    seen: BTreeMap<usize, SnapshotId>,
    newest: SnapshotId,
    /// The disk's count of changed names when they were last looked at.
    looked_at: Option<u64>,
}

impl StableSnapshots {
    /// The last entry that a stable snapshot includes; 0 where there is none.
    pub fn newest(&self) -> SnapshotId {
        self.newest
    }

    /// Looks for new ones. A name is stable only when every byte of its file is.
    pub fn look(&mut self, id: ServerId, media: &Media, digests: &mut BTreeMap<LogIndex, u32>) {
        if self.looked_at.replace(media.names_moved) == Some(media.names_moved) {
            return;
        }
        let directory = Path::new(SNAP);
        self.newest = SnapshotId::default();
        let names = media.stable_names.iter().filter(|(path, _)| path.parent() == Some(directory));
        for (path, inode) in names {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(snapshot) = name.and_then(shelf::parse) else { continue };
            self.newest = self.newest.max(snapshot);
            if self.seen.insert(*inode, snapshot) == Some(snapshot) {
                continue;
            }
            let mut loader = Loader::new();
            let loaded =
                loader.feed(&media.inodes[*inode].stable.whole()).and_then(|()| loader.finish());
            let (header, machine) = match loaded {
                Ok(loaded) => loaded,
                Err(error) => panic!("durable-before-ack: snapshot {name:?} of n{id}: {error}"),
            };
            assert_eq!(header.id, snapshot, "state-machine-safety: a snapshot of n{id} misnamed");
            let digest = super::digest(machine.store());
            let known = *digests.entry(snapshot.index).or_insert(digest);
            assert_eq!(known, digest, "state-machine-safety: snapshot {name:?} of n{id}");
        }
    }
}
