//! Random numbers for commands that answer one of several right things (RANDOMKEY).
//!
//! SplitMix64's sequence from a seed that the node is given. Only reads draw: what changes the
//! store is the same on every node.

use std::cell::Cell;

use super::pivots::mix;

/// What SplitMix64 counts in: 2^64 divided by the golden ratio, made odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence of random numbers.
#[derive(Debug)]
pub struct Luck(Cell<u64>);

impl Luck {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Luck {
        Luck(Cell::new(mix(seed)))
    }

    /// The next number.
    pub fn draw(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(STEP));
        mix(self.0.get())
    }
}
