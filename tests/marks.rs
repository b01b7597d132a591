//! The rare branches are reached: each mark by a script of `tests/sim/` or by one of the seeds that
//! every `cargo test` runs.
//!
//! Prints which scenario reached which mark first (`cargo test --test marks -- --nocapture`).

use std::collections::BTreeMap;

use raftkv::sim::{self, script::Script};
use raftkv::testing::{Mark, mark};

/// The seeds of `tests/sim.rs`, and what a sweep has found: a write of several records is torn; a
/// snapshot rots on its way.
const SEEDS: std::ops::Range<u64> = 0..300;
const MORE_SEEDS: [u64; 2] = [441, 1894];

/// The scripts that are kept, by name.
fn scripts() -> Vec<(String, Script)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim");
    let entries = std::fs::read_dir(directory).expect("the scripts are there");
    let mut scripts: Vec<(String, Script)> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "script"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a readable script");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, Script::parse(&text).expect("a sound script"))
        })
        .collect();
    scripts.sort_by(|left, right| left.0.cmp(&right.0));
    scripts
}

#[test]
fn every_rare_branch_is_reached() {
    let mut first: BTreeMap<Mark, String> = BTreeMap::new();
    let mut note = |scenario: &str| {
        for (mark, _) in mark::take().into_iter().filter(|(_, times)| *times > 0) {
            first.entry(mark).or_insert_with(|| scenario.to_owned());
        }
        first.len() == Mark::ALL.len()
    };
    mark::take();
    // What a run says about the invariants is asserted in `tests/sim.rs`.
    let mut has_all = false;
    for (name, script) in scripts() {
        let _ = sim::run(&script);
        has_all = note(&name);
    }
    for seed in MORE_SEEDS.into_iter().chain(SEEDS) {
        if has_all {
            break;
        }
        let _ = sim::run_seed(seed);
        has_all = note(&format!("seed {seed}"));
    }
    for mark in Mark::ALL {
        let scenario = first.get(mark).map_or("NEVER", String::as_str);
        println!("{:24} {scenario:28} {}", mark.name(), mark.what());
    }
    let never: Vec<&str> =
        Mark::ALL.iter().filter(|mark| !first.contains_key(mark)).map(|m| m.name()).collect();
    assert!(never.is_empty(), "never reached: {}", never.join(" "));
}
