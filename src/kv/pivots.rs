//! The keys at which a page of SCAN may end: a sample that is the same on every node.
//!
//! A cursor is a number, and the keys are in the order of their bytes. A key is a pivot if its hash
//! says so; a page ends in front of one, and the cursor is that pivot's hash. So any node goes on
//! where another one stopped, with nothing kept for a client. Called by `store.rs`, which tells it
//! of every key that comes or goes. In no snapshot: it follows from the keys.

use std::collections::BTreeMap;

/// One key in so many is a pivot.
const KEYS_PER_PIVOT: u64 = 32;

/// The pivots by their cursor. Of two with one hash the first to come is the pivot: with 59 bits
/// that takes a client who looks for it.
#[derive(Clone, Default, Debug)]
pub(super) struct Pivots {
    keys: BTreeMap<u64, Box<[u8]>>,
}

impl Pivots {
    /// A key came.
    pub(super) fn insert(&mut self, key: &[u8]) {
        if let Some(cursor) = sampled(key) {
            self.keys.entry(cursor).or_insert_with(|| key.into());
        }
    }

    /// A key went.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some(cursor) = sampled(key)
            && self.keys.get(&cursor).is_some_and(|pivot| **pivot == *key)
        {
            self.keys.remove(&cursor);
        }
    }

    /// The cursor that stands for this key, never 0, if it is a pivot.
    pub(super) fn cursor_of(&self, key: &[u8]) -> Option<u64> {
        sampled(key).filter(|cursor| self.keys.get(cursor).is_some_and(|pivot| **pivot == *key))
    }

    /// The key that a cursor stands for.
    pub(super) fn key_at(&self, cursor: u64) -> Option<&[u8]> {
        self.keys.get(&cursor).map(|key| &**key)
    }
}

/// The cursor of a key that the sample takes. Part of what nodes of different versions agree on:
/// a scan may begin on one and go on on another.
fn sampled(key: &[u8]) -> Option<u64> {
    let hash = hash(key);
    let cursor = hash / KEYS_PER_PIVOT;
    (hash.is_multiple_of(KEYS_PER_PIVOT) && cursor != 0).then_some(cursor)
}

/// Eight bytes a step, each mixed in by a multiplication, and the length at the end.
fn hash(key: &[u8]) -> u64 {
    let mut hash = 0;
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(word));
    }
    mix(hash ^ key.len() as u64)
}

/// The finisher of SplitMix64 (Steele, Lea, Flood, *Fast splittable pseudorandom number
/// generators*, 2014).
pub(super) fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pivots_are_one_key_in_so_many() {
        let mut pivots = Pivots::default();
        let keys: Vec<_> = (0..32_000).map(|number| format!("key:{number}")).collect();
        keys.iter().for_each(|key| pivots.insert(key.as_bytes()));
        assert!((900..1100).contains(&pivots.keys.len()), "{}", pivots.keys.len());
        for key in &keys {
            if let Some(cursor) = pivots.cursor_of(key.as_bytes()) {
                assert_eq!(pivots.key_at(cursor), Some(key.as_bytes()));
            }
            pivots.remove(key.as_bytes());
        }
        assert!(pivots.keys.is_empty());
    }
}
