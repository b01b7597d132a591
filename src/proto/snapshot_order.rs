//! That no key of a snapshot comes twice, told while the file is read.
//!
//! Called by [`super::snapshot_decoder`] for every record: so a file that would make another state
//! than it says is refused by whoever reads it, before anything is replaced by it. Keys in their
//! order are compared with the last one alone; of an early one a digest is kept, 16 bytes beside a
//! record that takes more than that in the file, and a mark in a table of bits, so that most keys
//! are seen to be none of the early ones by one look. Keeps no value, and one key.

use std::hash::{DefaultHasher, Hasher};

use super::snapshot::SnapshotFault;

/// The keys that have come.
#[derive(Debug, Default)]
pub(super) struct KeyOrder {
    /// The last one that came in its turn.
    last: Option<Vec<u8>>,
    /// Those that came early: all of them stand behind `last` when they come.
    early: Digests,
    marks: Marks,
    /// Whether the reader knows them by itself.
    is_early_known: bool,
}

/// Digests of early keys: hash tables, of which each grows by itself, so that no key waits for all
/// digests to be moved. What is looked for is all of a digest, and its bits are good for a place.
#[derive(Debug, Default)]
struct Digests {
    tables: Vec<Table>,
}

/// Open addressing; 0 stands for nothing.
#[derive(Clone, Debug, Default)]
struct Table {
    places: Vec<u128>,
    count: usize,
}

const TABLES: usize = 256;

impl Digests {
    /// Whether it was not there yet.
    fn insert(&mut self, digest: u128) -> bool {
        if self.tables.is_empty() {
            self.tables.resize(TABLES, Table::default());
        }
        self.tables[digest as usize % TABLES].insert(digest.max(1))
    }

    fn contains(&self, digest: u128) -> bool {
        let table = self.tables.get(digest as usize % TABLES);
        table.is_some_and(|table| table.seek(digest.max(1)).is_ok())
    }
}

impl Table {
    fn insert(&mut self, digest: u128) -> bool {
        if self.count * 3 >= self.places.len() * 2 {
            let grown = vec![0; (2 * self.places.len()).max(16)];
            for old in std::mem::replace(&mut self.places, grown) {
                if let Err(Some(place)) = self.seek(old) {
                    self.places[place] = old;
                }
            }
        }
        let Err(place) = self.seek(digest) else {
            return false;
        };
        self.places[place.expect("a third of the places is free")] = digest;
        self.count += 1;
        true
    }

    /// Where a digest is, or else where it would be put: nowhere in a table without places.
    fn seek(&self, digest: u128) -> Result<usize, Option<usize>> {
        let Some(last) = self.places.len().checked_sub(1) else {
            return Err(None);
        };
        let mut place = (digest >> 64) as usize & last;
        loop {
            match self.places[place] {
                0 => return Err(Some(place)),
                there if there == digest => return Ok(place),
                _ => place = (place + 1) & last,
            }
        }
    }
}

/// A bit for each value of some bits of a key's hash: set where an early key has it. A million early
/// keys set a sixteenth of them; keys that are chosen to have the same cost a look at the digests,
/// as all keys would without this.
#[derive(Debug, Default)]
struct Marks {
    /// Nothing as long as there is no early key.
    words: Vec<u64>,
}

/// As a power of two.
const MARKS: u32 = 24;

impl Marks {
    fn set(&mut self, key: &[u8]) {
        if self.words.is_empty() {
            self.words = vec![0; (1 << MARKS) / u64::BITS as usize];
        }
        let mark = mark(key);
        self.words[mark / 64] |= 1 << (mark % 64);
    }

    /// Whether a key may have been marked; what was is.
    fn may_have(&self, key: &[u8]) -> bool {
        let mark = mark(key);
        self.words.get(mark / 64).is_some_and(|word| word >> (mark % 64) & 1 == 1)
    }
}

/// Eight bytes a step; the upper bits of a product depend on all of what is multiplied.
fn mark(key: &[u8]) -> usize {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = key.len() as u64;
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mixed = (hash ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
        hash = mixed ^ (mixed >> 32);
    }
    (hash.wrapping_mul(MULTIPLIER) >> (u64::BITS - MARKS)) as usize
}

impl KeyOrder {
    /// For a reader that refuses a key that it has: no early key is remembered here.
    pub fn of_store() -> KeyOrder {
        KeyOrder { is_early_known: true, ..KeyOrder::default() }
    }

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
            if self.is_early_known {
                return Ok(());
            }
            self.marks.set(key);
            let is_new = self.early.insert(digest(key));
            return if is_new { Ok(()) } else { Err(SnapshotFault::DuplicateKey) };
        }
        if self.marks.may_have(key) && self.early.contains(digest(key)) {
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
    fn check_knows_each_of_many_early_keys() {
        let mut order = KeyOrder::default();
        let key = |number: u32| format!("key:{number:06}").into_bytes();
        assert_eq!(order.check(&key(0), false), Ok(()));
        for number in (1..100_000).step_by(2) {
            assert_eq!(order.check(&key(number), true), Ok(()), "{number}");
        }
        for number in (1..100_000).step_by(1000) {
            let twice = Err(SnapshotFault::DuplicateKey);
            assert_eq!(order.check(&key(number), true), twice, "{number}");
        }
        for number in 1..100_000 {
            let is_early = number % 2 == 1;
            let expected = if is_early { Err(SnapshotFault::DuplicateKey) } else { Ok(()) };
            assert_eq!(order.check(&key(number), false), expected, "{number}");
        }
    }

    #[test]
    fn check_wants_keys_in_order_and_early_ones_before_their_turn() {
        assert_eq!(check(&["b", "a"]), Err(SnapshotFault::OutOfOrder));
        assert_eq!(check(&["b", "!a"]), Err(SnapshotFault::OutOfOrder));
    }
}
