//! What is stored of one key, kept by someone or seen where it stands.
//!
//! Called by `store.rs`, `slab.rs` and `capture.rs`. Knows nothing of how records are found.

use crate::proto::snapshot::SnapshotRecord;
use crate::types::{ClusterTime, Revision};

/// Stands for "no deadline" in a record. No command can set it: deadlines come from an `i64`.
pub(super) const NEVER: ClusterTime = ClusterTime(u64::MAX);

/// What is stored of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) value: Vec<u8>,
    pub(super) revision: Revision,
    pub(super) deadline: ClusterTime,
}

/// A record where it stands, with its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecordRef<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) revision: Revision,
    pub(super) deadline: ClusterTime,
}

impl Record {
    /// Takes the memory of the value before, where that fits.
    pub(super) fn overwrite(&mut self, value: &[u8]) {
        let capacity = self.value.capacity();
        if value.len() > capacity || value.len() < capacity / 2 {
            self.value = value.to_vec();
        } else {
            self.value.clear();
            self.value.extend_from_slice(value);
        }
    }

    pub(super) fn with_key<'a>(&'a self, key: &'a [u8]) -> RecordRef<'a> {
        let Record { value, revision, deadline } = self;
        RecordRef { key, value, revision: *revision, deadline: *deadline }
    }
}

impl<'a> RecordRef<'a> {
    /// A copy to keep.
    pub(super) fn to_record(self) -> Record {
        let RecordRef { value, revision, deadline, .. } = self;
        Record { value: value.to_vec(), revision, deadline }
    }

    pub(super) fn as_snapshot_record(self) -> SnapshotRecord<'a> {
        let RecordRef { key, value, revision, deadline } = self;
        let deadline = known_deadline(deadline);
        SnapshotRecord { key, value, revision, deadline, is_early: false }
    }
}

/// What the C library's allocator takes for a piece of so many bytes on a machine of 64 bits: a
/// length before it, in multiples of 16.
#[cfg(test)]
pub(super) fn piece_bytes(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// A stored deadline, or none.
pub(super) fn known_deadline(deadline: ClusterTime) -> Option<ClusterTime> {
    (deadline != NEVER).then_some(deadline)
}
