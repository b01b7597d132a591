//! The simulator's seeds: a sweep in every `cargo test`, and each seed that once failed, by name.
//!
//! `rkv-sim --seeds A..B` runs more of them; a script in `tests/sim/` is a failure made small.

use raftkv::sim::{self, script::Script, swarm};

/// The seeds of every `cargo test`, or what `SIM_SEEDS` says.
fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SIM_SEEDS") else {
        return default;
    };
    let (from, to) = text.split_once("..").expect("SIM_SEEDS is from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn run_all(range: std::ops::Range<u64>) {
    for seed in range {
        if let Err(failure) = sim::run_seed(seed) {
            let (_, story) = sim::tell(&swarm::script(seed));
            panic!("seed {seed}: {}\n  at {}\n{story}", failure.what, failure.at);
        }
    }
}

#[test]
fn every_seed_keeps_every_invariant() {
    run_all(seeds(0..150));
}

#[test]
fn every_other_seed_keeps_every_invariant() {
    if std::env::var("SIM_SEEDS").is_err() {
        run_all(150..300);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| sim::run_seed(seed).expect("a good seed").trace_hash;
    assert_eq!(trace(3), trace(3), "reproducible");
    assert_ne!(trace(3), trace(4));
}

#[test]
fn scripts_that_once_failed_hold() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim");
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .expect("the scripts are there")
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable script");
        let script = Script::parse(&text).expect("a sound script");
        if let Err(failure) = sim::run(&script) {
            panic!("{}: {}\n  at {}", path.display(), failure.what, failure.at);
        }
    }
}
