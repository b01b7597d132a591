//! The running digest: one number that tells whether two nodes have applied the same, and come to
//! the same.
//!
//! Design page 3, §4. Every entry is folded in, and what the store is after it. Called by
//! `machine.rs`; part of snapshots. Defends against faults, not against an attacker. What is folded
//! and how may never change: nodes of different versions compare it.

use super::store::Store;
use crate::proto::entry::Entry;

/// The digest of everything applied so far.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Digest {
    folded: u64,
    /// Whether what the store is after the last entry is not yet folded in.
    is_open: bool,
}

impl Digest {
    /// That of a snapshot.
    pub(super) fn of_snapshot(digest: u64) -> Digest {
        Digest { folded: digest, is_open: false }
    }

    /// An entry begins; `store` is as the one before left it.
    pub(super) fn begin(&mut self, entry: &Entry, store: &Store) {
        let mut folded = self.value(store);
        let sum = u64::from(crc32fast::hash(&entry.payload)) << 8 | entry.kind as u64;
        for number in [entry.index.0, entry.term.0, entry.time.0, sum] {
            folded = fold(folded, number);
        }
        *self = Digest { folded, is_open: true };
    }

    /// The digest, between two entries; `store` is as the last one left it.
    pub(super) fn value(self, store: &Store) -> u64 {
        if !self.is_open {
            return self.folded;
        }
        let results = [store.revision().0, store.digest_bytes() as u64, store.stored() as u64];
        // Nothing is folded for what is not there: so had the versions that didn't know of it.
        let beside = [store.sessions().digest(), store.leases().digest()]
            .into_iter()
            .filter(|digest| *digest != 0);
        results.into_iter().chain(beside).fold(self.folded, fold)
    }
}

/// Two digests, or two numbers, that differ give digests that differ: each step is a bijection of
/// both.
fn fold(digest: u64, number: u64) -> u64 {
    // The multiplier is 2^64 divided by the golden ratio, made odd.
    let mixed = (digest.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}
