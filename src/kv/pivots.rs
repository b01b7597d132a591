//! The keys at which a page of SCAN may end: a sample that is the same on every node.
//!
//! A cursor is a number, and the keys are in the order of their bytes. A key is a pivot if its hash
//! says so; a page ends in front of one, and the cursor is that pivot's hash. So any node goes on
//! where another one stopped, with nothing kept for a client. Called by `records.rs`, which tells it
//! of every key that comes, moves or goes, and where it is. In no snapshot: it follows from the keys.

use std::collections::BTreeMap;

use super::slab::Handle;

/// One key in so many is a pivot.
const KEYS_PER_PIVOT: u64 = 32;

/// The pivots by their cursor. Of two with one hash the first to come is the pivot: with 59 bits
/// that takes a client who looks for it.
#[derive(Clone, Default, Debug)]
pub(super) struct Pivots {
    places: BTreeMap<u64, Handle>,
}

impl Pivots {
    /// A key came.
    pub(super) fn insert(&mut self, key: &[u8], place: Handle) {
        if let Some(cursor) = sampled(key) {
            self.places.entry(cursor).or_insert(place);
        }
    }

    /// A key went.
    pub(super) fn remove(&mut self, key: &[u8], place: Handle) {
        if let Some(cursor) = self.cursor_of(key, place) {
            self.places.remove(&cursor);
        }
    }

    /// A key is elsewhere.
    pub(super) fn replace(&mut self, key: &[u8], before: Handle, after: Handle) {
        if let Some(cursor) = self.cursor_of(key, before) {
            self.places.insert(cursor, after);
        }
    }

    fn cursor_of(&self, key: &[u8], place: Handle) -> Option<u64> {
        sampled(key).filter(|cursor| self.place_of(*cursor) == Some(place))
    }

    /// Where the key is that a cursor stands for.
    pub(super) fn place_of(&self, cursor: u64) -> Option<Handle> {
        self.places.get(&cursor).copied()
    }
}

/// The cursor of a key that the sample takes. Part of what nodes of different versions agree on:
/// a scan may begin on one and go on on another.
pub(super) fn sampled(key: &[u8]) -> Option<u64> {
    let hash = hash(key);
    let cursor = hash / KEYS_PER_PIVOT;
    (hash.is_multiple_of(KEYS_PER_PIVOT) && cursor != 0).then_some(cursor)
}

/// Eight bytes a step, each mixed in by a multiplication, and the length at the end.
fn hash(key: &[u8]) -> u64 {
    let (words, rest) = key.as_chunks();
    let mut hash = words.iter().fold(0, |hash, word| mix(hash ^ u64::from_le_bytes(*word)));
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |last, byte| last << 8 | u64::from(*byte));
        hash = mix(hash ^ last);
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
    fn hash_is_what_other_versions_come_to() {
        let hashes: [(&[u8], u64); 5] = [
            (b"", 0xe220_a839_7b1d_cdaf),
            (b"a", 0x1218_42d0_0719_760b),
            (b"12345678", 0x3e8e_c462_dc9a_15b3),
            (b"bench:000000123456", 0x85a7_b9ad_9b47_2551),
            (&[0xff; 23], 0xa940_45ad_07b5_9e3f),
        ];
        hashes.iter().for_each(|(key, expected)| assert_eq!(hash(key), *expected, "{key:?}"));
    }

    #[test]
    fn pivots_are_one_key_in_so_many() {
        let mut pivots = Pivots::default();
        let keys: Vec<_> =
            (0..32_000).map(|number| (format!("key:{number}"), Handle(number))).collect();
        keys.iter().for_each(|(key, place)| pivots.insert(key.as_bytes(), *place));
        let count = pivots.places.len();
        assert!((900..1100).contains(&count), "{count}");
        let mut seen = 0;
        for (key, place) in &keys {
            let (key, moved) = (key.as_bytes(), Handle(place.0 + 40_000));
            let cursor = pivots.cursor_of(key, *place);
            pivots.replace(key, *place, moved);
            assert_eq!(pivots.cursor_of(key, moved), cursor);
            if let Some(cursor) = cursor {
                seen += 1;
                assert_eq!(pivots.place_of(cursor), Some(moved));
                assert_eq!(pivots.cursor_of(key, *place), None, "it is there no more");
            }
            pivots.remove(key, *place);
            assert_eq!(pivots.cursor_of(key, moved), cursor, "another record's key stays");
            pivots.remove(key, moved);
        }
        assert_eq!((seen, pivots.places.len()), (count, 0));
    }
}
