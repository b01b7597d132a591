//! The mutation check: every mutation must be caught by a seed, and the same seeds are good without.
//!
//! Called by main for `--mutants`. Threads take one mutation each. Without the feature `testing`
//! there is nothing to switch on, and it says so.

use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

#[cfg(not(feature = "testing"))]
pub fn with(_: &str, _: impl FnOnce() -> ExitCode) -> ExitCode {
    check(&(0..0), 0, None, None)
}

#[cfg(not(feature = "testing"))]
pub fn check(_: &Range<u64>, _: usize, _: Option<&str>, _: Option<&Path>) -> ExitCode {
    eprintln!(
        "rkv-sim: this build has no mutations; build with\n  \
         cargo build --release --features testing --bin rkv-sim"
    );
    ExitCode::from(2)
}

#[cfg(feature = "testing")]
pub use with_mutations::{check, with};

#[cfg(feature = "testing")]
mod with_mutations {
    use std::collections::BTreeMap;
    use std::fmt::Write;
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use raftkv::sim::mutants::{Caught, hunt, invariant};
    use raftkv::sim::{Failure, run_seed};
    use raftkv::testing::Mutation;

    use super::{ExitCode, Path, Range};

    /// Runs something with that rule broken.
    pub fn with(name: &str, run: impl FnOnce() -> ExitCode) -> ExitCode {
        let Some(mutation) = Mutation::ALL.iter().find(|mutation| mutation.name() == name) else {
            eprintln!("rkv-sim: no mutation is called '{name}'; those are:");
            Mutation::ALL.iter().for_each(|m| eprintln!("  {:28} {}", m.name(), m.what()));
            return ExitCode::from(2);
        };
        raftkv::testing::mutation::with(Some(*mutation), run)
    }

    /// Every mutation (or those whose name holds `only`) over the seeds, then the seeds without.
    pub fn check(
        seeds: &Range<u64>,
        jobs: usize,
        only: Option<&str>,
        record: Option<&Path>,
    ) -> ExitCode {
        let chosen: Vec<Mutation> = Mutation::ALL
            .iter()
            .copied()
            .filter(|mutation| only.is_none_or(|part| mutation.name().contains(part)))
            .collect();
        println!("{:28} {:>8} {:>6} {:>8}  caught by", "mutation", "seed", "runs", "seconds");
        let caught = Mutex::new(BTreeMap::new());
        each(jobs, &chosen, |mutation| {
            let began = Instant::now();
            let found = hunt(*mutation, seeds.clone());
            print_row(*mutation, found.as_ref(), began.elapsed());
            caught.lock().expect("no panic while it is held").insert(*mutation, found);
        });
        let caught = caught.into_inner().expect("no panic while it is held");
        let survivors: Vec<&str> =
            caught.iter().filter(|(_, found)| found.is_none()).map(|(m, _)| m.name()).collect();
        let last = caught.values().flatten().map(|caught| caught.seed).max();
        let same = seeds.start..last.map_or(seeds.start, |last| last + 1);
        println!("without a mutation: seeds {}..{}", same.start, same.end);
        let failed = Mutex::new(0);
        each(jobs, &same.collect::<Vec<u64>>(), |seed| {
            if let Err(failure) = run_seed(*seed) {
                println!("seed {seed} FAILED {}\n  at {}", first_line(&failure.what), failure.at);
                *failed.lock().expect("no panic while it is held") += 1;
            }
        });
        let failed = failed.into_inner().expect("no panic while it is held");
        println!(
            "{} mutations, {} survive{}; {failed} seeds fail without one",
            caught.len(),
            survivors.len(),
            survivors.iter().fold(String::new(), |list, name| list + " " + name)
        );
        if let Some(path) = record
            && let Err(error) = std::fs::write(path, recorded(&caught))
        {
            eprintln!("rkv-sim: {}: {error}", path.display());
            return ExitCode::from(2);
        }
        if survivors.is_empty() && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Does something with each item, on several threads.
    fn each<T: Sync>(jobs: usize, items: &[T], act: impl Fn(&T) + Sync) {
        let left = Mutex::new(items.iter());
        let take = || left.lock().expect("no panic while it is held").next();
        std::thread::scope(|scope| {
            for _ in 0..jobs.clamp(1, 64) {
                scope.spawn(|| std::iter::from_fn(take).for_each(&act));
            }
        });
    }

    fn print_row(mutation: Mutation, found: Option<&Caught>, took: Duration) {
        let (name, seconds) = (mutation.name(), took.as_secs_f64());
        match found {
            Some(Caught { seed, runs, failure }) => {
                println!("{name:28} {seed:8} {runs:6} {seconds:8.1}  {}", said(failure))
            }
            None => println!("{name:28} {:>8} {:>6} {seconds:8.1}  SURVIVES", "-", "all"),
        }
    }

    fn first_line(text: &str) -> &str {
        text.lines().next().unwrap_or_default()
    }

    /// The invariant and what it says, in one line.
    fn said(failure: &Failure) -> String {
        let (by, what) = (invariant(failure), first_line(&failure.what));
        let what = what.split_once(&format!("{by}: ")).map_or(what, |(_, rest)| rest);
        format!("{by}: {}", what.chars().take(100).collect::<String>())
    }

    /// What `tests/mutants.rs` reads.
    fn recorded(caught: &BTreeMap<Mutation, Option<Caught>>) -> String {
        let mut text = String::from(
            "# mutation, a seed that catches it, and by which invariant; written by\n\
             # rkv-sim --mutants --record\n",
        );
        for (mutation, found) in caught {
            if let Some(found) = found {
                let by = invariant(&found.failure);
                writeln!(text, "{} {} {by}", mutation.name(), found.seed)
                    .expect("writing to a string cannot fail");
            }
        }
        text
    }
}
