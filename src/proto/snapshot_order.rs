//! That no key of a snapshot comes twice, told while the file is read.
//!
//! Called by [`super::snapshot_decoder`] for every record: so a file that would make another state
//! than it says is refused by whoever reads it, before anything is replaced by it. Keys in their
//! order are compared with the last one alone; of an early one a digest is kept, 16 bytes beside a
//! record that takes more than that in the file. Keeps no value, and one key.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

use super::snapshot::SnapshotFault;

/// The keys that have come.
#[derive(Debug, Default)]
pub(super) struct KeyOrder {
    /// The last one that came in its turn.
    last: Option<Vec<u8>>,
    /// Those that came early: all of them stand behind `last` when they come.
    early: BTreeSet<u128>,
}

impl KeyOrder {
    /// The next record's key.
    pub fn check(&mut self, key: &[u8], is_early: bool) -> Result<(), SnapshotFault> {
        if let Some(last) = self.last.as_deref() {
            if key == last {
                return Err(SnapshotFault::DuplicateKey);
            }
            if key < last {
                return Err(SnapshotFault::OutOfOrder);
            }
        }
        if is_early {
            let is_new = self.early.insert(digest(key));
            return if is_new { Ok(()) } else { Err(SnapshotFault::DuplicateKey) };
        }
        // Mostly there are none: then this costs no digest.
        if !self.early.is_empty() && self.early.contains(&digest(key)) {
            return Err(SnapshotFault::DuplicateKey);
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        Ok(())
    }
}

/// Two keys of one digest would have a good file refused: at this width none ever meet by chance.
fn digest(key: &[u8]) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(key);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of keys, an early one written with a `!`.
    fn check(keys: &[&str]) -> Result<(), SnapshotFault> {
        let mut order = KeyOrder::default();
        keys.iter().try_for_each(|key| {
            let early = key.strip_prefix('!');
            order.check(early.unwrap_or(key).as_bytes(), early.is_some())
        })
    }

    #[test]
    fn check_wants_each_key_once() {
        assert_eq!(check(&["", "a", "!c", "!b", "aa", "!d", "bb"]), Ok(()));
        for twice in [&["a", "a"][..], &["!a", "!a"], &["!b", "a", "b"], &["a", "!a"]] {
            assert_eq!(check(twice), Err(SnapshotFault::DuplicateKey), "{twice:?}");
        }
    }

    #[test]
    fn check_wants_keys_in_order_and_early_ones_before_their_turn() {
        assert_eq!(check(&["b", "a"]), Err(SnapshotFault::OutOfOrder));
        assert_eq!(check(&["b", "!a"]), Err(SnapshotFault::OutOfOrder));
    }
}
