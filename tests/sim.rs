//! The simulator's seeds: a sweep in every `cargo test`, and each seed that once failed, by name.
//!
//! `rkv-sim --seeds A..B` runs more of them; a script in `tests/sim/` is a failure made small.

use std::path::PathBuf;

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

/// The scripts in `tests/sim/`, by their paths.
fn scripts() -> Vec<(PathBuf, Script)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("the scripts are there")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "script"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a readable script");
        let script = Script::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path, script)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn scripts_that_once_failed_hold() {
    for (path, script) in scripts() {
        if let Err(failure) = sim::run(&script) {
            panic!("{}: {}\n  at {}", path.display(), failure.what, failure.at);
        }
    }
}

/// A script with a story beside it is told the same way everywhere, to the byte, and ends in the
/// same trace. `UPDATE_STORIES=1` writes the stories anew: a changed one is committed only when it
/// is understood why.
#[test]
fn scripts_tell_the_same_story_on_any_machine() {
    let mut told = 0;
    for (path, script) in scripts() {
        let path = path.with_extension("story");
        let Ok(expected) = std::fs::read_to_string(&path) else { continue };
        let (result, story) = sim::tell(&script);
        let outcome = result.unwrap_or_else(|failure| panic!("{}", failure.what));
        let text = format!("{story}trace {:016x}\n", outcome.trace_hash);
        if std::env::var_os("UPDATE_STORIES").is_some() {
            std::fs::write(&path, &text).expect("a writable story");
        } else {
            let first = text.lines().zip(expected.lines()).position(|(one, other)| one != other);
            let line = first.map_or("the end".into(), |line| format!("line {}", line + 1));
            assert!(
                text == expected,
                "reproducible: {} differs at {line}:\n{text}",
                path.display()
            );
        }
        told += 1;
    }
    assert!(told >= 2, "the stories are there");
}
