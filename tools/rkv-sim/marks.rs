//! The coverage marks of a sweep: how often each rare branch was reached, and by which seed first.
//!
//! Called by the sweep. Without the feature `testing` there are none, and nothing is printed.

use std::collections::BTreeMap;

/// What all threads have reached so far.
#[derive(Default)]
pub struct Marks {
    /// How often, and the lowest seed that reached it.
    reached: BTreeMap<&'static str, (u64, u64)>,
}

impl Marks {
    /// Adds what this thread's last run has reached.
    pub fn add(&mut self, seed: u64) {
        for (name, times) in taken() {
            let (count, first) = self.reached.entry(name).or_insert((0, seed));
            *count += times;
            *first = seed.min(*first);
        }
    }

    /// Prints the table.
    pub fn print(&self) {
        if !self.reached.is_empty() {
            println!("how often each rare branch was reached, and by which seed first:");
        }
        for (name, (count, first)) in &self.reached {
            println!("  {name:24} {count:10} {first:8}");
        }
    }

    /// Those that no seed has reached.
    pub fn missing(&self) -> Vec<&'static str> {
        let is_missing = |name: &&'static str| !self.reached.contains_key(name);
        names().into_iter().filter(is_missing).collect()
    }
}

#[cfg(feature = "testing")]
fn taken() -> Vec<(&'static str, u64)> {
    let counts = raftkv::testing::mark::take().into_iter();
    counts.filter(|(_, times)| *times > 0).map(|(mark, times)| (mark.name(), times)).collect()
}

#[cfg(feature = "testing")]
fn names() -> Vec<&'static str> {
    raftkv::testing::Mark::ALL.iter().map(|mark| mark.name()).collect()
}

#[cfg(not(feature = "testing"))]
fn taken() -> Vec<(&'static str, u64)> {
    Vec::new()
}

#[cfg(not(feature = "testing"))]
fn names() -> Vec<&'static str> {
    Vec::new()
}
