//! The snapshots on a server's stable media: each is whole, and the state at its index.
//!
//! Read with the real decoder and loaded like any other, once for each file. Called by the checkers'
//! front door when a disk has finished something. *durable-before-ack* leans on what is found here.

use std::collections::BTreeMap;
use std::path::Path;

use super::Mark;
use crate::kv::loader::Loader;
use crate::proto::snapshot::SnapshotHeader;
use crate::raft::membership::Membership;
use crate::sim::media::Media;
use crate::sim::world::SNAP;
use crate::storage::shelf;
use crate::types::{LogIndex, ServerId, SnapshotId, Term};

/// What snapshots have to agree with.
pub(super) struct Known<'a> {
    pub memberships: &'a BTreeMap<(LogIndex, Term), Membership>,
    pub committed: &'a [Mark],
}

impl Known<'_> {
    /// The membership of a snapshot is the one in force at its index.
    fn check_membership(&self, id: ServerId, header: &SnapshotHeader) {
        let index = header.id.index;
        let is_committed = |place: &&(LogIndex, Term)| {
            let mark = self.committed.get(place.0.0 as usize - 1);
            mark.is_some_and(|mark| mark.term == place.1)
        };
        let before = self.memberships.range(..=(index, Term(u64::MAX))).map(|(place, _)| place);
        let newest = before.rev().find(is_committed);
        let (at, _) = newest.expect("one-change: the first entry is a membership");
        let membership = Membership::decode(&header.membership);
        let is_same = header.membership_index == *at
            && newest.and_then(|place| self.memberships.get(place)) == membership.as_ref();
        assert!(
            is_same,
            "one-change: the snapshot at {index} of n{id} names the membership of {}, not of {at}",
            header.membership_index
        );
    }
}

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
    pub fn look(
        &mut self,
        id: ServerId,
        media: &Media,
        digests: &mut BTreeMap<LogIndex, u32>,
        known: &Known<'_>,
    ) {
        if self.looked_at.replace(media.names_moved) == Some(media.names_moved) {
            return;
        }
        let directory = Path::new(SNAP);
        self.newest = SnapshotId::default();
        let names = media.stable_names.iter().filter(|(path, _)| path.parent() == Some(directory));
        for (path, inode) in names {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(snapshot) = name.and_then(shelf::parse) else { continue };
            // One that rots is known for what it was; a start has to do without.
            if media.is_rotten(*inode) && !self.seen.contains_key(inode) {
                continue;
            }
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
            known.check_membership(id, &header);
            let digest = super::digest(machine.store());
            let known = *digests.entry(snapshot.index).or_insert(digest);
            assert_eq!(known, digest, "state-machine-safety: snapshot {name:?} of n{id}");
        }
    }
}
