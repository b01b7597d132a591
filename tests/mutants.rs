//! The tester tested: each rule of the server, broken on purpose, makes a seed fail.
//!
//! `tests/mutants.txt` has a seed for each mutation. Where a change of the simulator has made that
//! seed good, the first ones are tried; should they be good too, this writes the file anew:
//! `cargo run --release --features testing --bin rkv-sim -- --mutants --record tests/mutants.txt`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use raftkv::sim::mutants::{Caught, hunt, invariant};
use raftkv::sim::run_seed;
use raftkv::testing::Mutation;

/// Seeds that are tried where the recorded one catches nothing.
const MORE_SEEDS: u64 = 60;

/// Mutation and seed by the file.
fn recorded() -> BTreeMap<String, u64> {
    let lines = include_str!("mutants.txt").lines().filter(|line| !line.starts_with('#'));
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let (name, seed) = (words.next().expect("a name"), words.next().expect("a seed"));
        (name.to_owned(), seed.parse().expect("a number"))
    };
    lines.map(parse).collect()
}

#[test]
fn every_mutation_is_caught_and_its_seed_is_good_without() {
    let recorded = recorded();
    let left = Mutex::new(Mutation::ALL.iter());
    let table = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("nobody panics with it").next();
                    let Some(mutation) = next else { return };
                    let first = recorded.get(mutation.name()).copied();
                    let caught = hunt(*mutation, first.into_iter().chain(0..MORE_SEEDS));
                    let good = caught.as_ref().map(|caught| run_seed(caught.seed));
                    let mut table = table.lock().expect("nobody panics with it");
                    table.insert(*mutation, (caught, good));
                }
            });
        }
    });
    let table = table.into_inner().expect("nobody panics with it");
    let mut problems = Vec::new();
    for (mutation, (caught, good)) in &table {
        let name = mutation.name();
        match caught {
            Some(Caught { seed, runs, failure }) => {
                println!("{name:28} seed {seed:6} {runs:4} runs  {}", invariant(failure));
            }
            None => problems.push(format!("{name} survives: {}", mutation.what())),
        }
        if let Some(Err(failure)) = good {
            problems.push(format!("{name}: its seed fails without it: {}", failure.what));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    assert!(table.len() >= 15, "the issue asks for so many");
    let names: Vec<&str> = Mutation::ALL.iter().map(|mutation| mutation.name()).collect();
    let unknown: Vec<&String> =
        recorded.keys().filter(|name| !names.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "no such mutation: {unknown:?}");
}
