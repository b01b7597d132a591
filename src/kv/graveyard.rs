//! What left the store all at once: its memory is given back in slices, a bounded one a turn.
//!
//! To free ten million records takes a second, in which a node would answer nobody; so FLUSHALL, a
//! state that a snapshot replaces and a snapshot that is given up are put here. Called by
//! `store.rs`, `machine.rs` and `node/snapshots.rs`. Nothing in it is part of the state.

use std::fmt;

use super::records::Records;
use crate::limits;

/// Gives back one record, or what else goes with a key, and says how many bytes that were beside
/// the place of it.
type Heap = Box<dyn Iterator<Item = usize> + Send>;

/// What one snapshot that is given up and one FLUSHALL leave behind: so many heaps.
const CROWD: usize = 5;

/// Records whose memory is not yet given back.
#[derive(Default)]
pub(super) struct Graveyard {
    heaps: Vec<Heap>,
}

impl Clone for Graveyard {
    /// A copy of a store has nothing to give back.
    fn clone(&self) -> Graveyard {
        Graveyard::default()
    }
}

impl fmt::Debug for Graveyard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graveyard").field("heaps", &self.heaps.len()).finish()
    }
}

impl Graveyard {
    /// Takes a collection, each element of which gives back so many `bytes`.
    pub fn bury<T>(&mut self, dead: T, bytes: impl Fn(T::Item) -> usize + Send + 'static)
    where
        T: IntoIterator<IntoIter: ExactSizeIterator + Send + 'static>,
    {
        let dead = dead.into_iter();
        if dead.len() > 0 {
            self.heaps.push(Box::new(dead.map(bytes)));
        }
    }

    /// Takes records; they go in pieces of some KiB, each with many of them, and large values one by
    /// one. A piece counts as a key.
    pub fn bury_records(&mut self, records: Records) {
        if records.len() > 0 {
            self.heaps.push(Box::new(records.into_pieces()));
        }
    }

    /// Takes all that another one holds.
    pub fn take_over(&mut self, mut other: Graveyard) {
        self.heaps.append(&mut other.heaps);
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.heaps.is_empty()
    }

    /// Whether more is here than a snapshot and a FLUSHALL leave behind. Nothing is applied then:
    /// else who fills and empties a store faster than its memory is given back would have all of it.
    pub fn is_crowded(&self) -> bool {
        self.heaps.len() > CROWD
    }

    /// Gives back the next slice: at most [`limits::DISCARD_KEYS`] keys and, but for the last one,
    /// [`limits::DISCARD_BYTES`] of values.
    pub fn free_slice(&mut self) {
        let (mut keys, mut bytes) = (limits::DISCARD_KEYS, limits::DISCARD_BYTES);
        while let Some(heap) = self.heaps.last_mut() {
            while keys > 0 && bytes > 0 {
                let Some(freed) = heap.next() else { break };
                (keys, bytes) = (keys - 1, bytes.saturating_sub(freed));
            }
            if keys == 0 || bytes == 0 {
                return;
            }
            self.heaps.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(graveyard: &mut Graveyard) -> usize {
        let mut slices = 0;
        while !graveyard.is_empty() {
            graveyard.free_slice();
            slices += 1;
        }
        slices
    }

    #[test]
    fn free_slice_is_bounded_in_keys_and_in_bytes() {
        let mut graveyard = Graveyard::default();
        graveyard.bury(Vec::<u8>::new(), |_| 1);
        assert!(graveyard.is_empty(), "there is nothing to give back");
        graveyard.bury(vec![0_u8; 3 * limits::DISCARD_KEYS + 1], |_| 1);
        assert_eq!(slices(&mut graveyard), 4);
        let value_bytes = 10 * limits::DISCARD_BYTES / limits::DISCARD_KEYS;
        graveyard.bury(vec![0_u8; limits::DISCARD_KEYS], move |_| value_bytes);
        assert_eq!(slices(&mut graveyard), 10);
    }

    #[test]
    fn free_slice_comes_to_every_heap() {
        let mut graveyard = Graveyard::default();
        let count = limits::DISCARD_KEYS;
        (0..CROWD).for_each(|_| graveyard.bury(vec![0_u8; count], |_| 1));
        assert!(!graveyard.is_crowded());
        let mut other = Graveyard::default();
        other.bury(vec![0_u8; count], |_| 1);
        graveyard.take_over(other);
        assert!(graveyard.is_crowded());
        assert_eq!(slices(&mut graveyard), CROWD + 2);
    }
}
