//! Many seeds: on several threads, with one summary.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use raftkv::sim::script::Kind;
use raftkv::sim::{Failure, Outcome, STRIKES, run_seed, swarm};

use crate::marks::Marks;

/// Failing seeds that are printed; the sweep ends there.
const FAILURES: usize = 10;

/// How long a night is, for what the summary says of one.
const NIGHT_HOURS: f64 = 10.0;

/// What all threads have found so far.
#[derive(Default)]
struct Sum {
    strikes: BTreeMap<&'static str, u64>,
    marks: Marks,
    simulated: Duration,
    answered: u64,
    refused: u64,
    in_doubt: u64,
    committed: u64,
    runs: u64,
    failures: BTreeMap<u64, Failure>,
}

impl Sum {
    fn add(&mut self, seed: u64, result: Result<Outcome, Failure>) {
        self.runs += 1;
        self.marks.add(seed);
        match result {
            Ok(outcome) => {
                for (name, times) in outcome.strikes {
                    *self.strikes.entry(name).or_default() += times;
                }
                self.simulated += outcome.simulated;
                self.answered += outcome.answered;
                self.refused += outcome.refused;
                self.in_doubt += outcome.in_doubt;
                self.committed += outcome.committed;
            }
            Err(failure) => {
                let first = failure.what.lines().next().unwrap_or_default();
                println!("seed {seed} FAILED {first}\n  at {}", failure.at);
                self.failures.insert(seed, failure);
            }
        }
    }
}

/// Runs all seeds of the range, or until enough have failed.
pub fn sweep(range: Range<u64>, jobs: usize, shrinks: bool) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(range.start);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, 64) {
            scope.spawn(|| work(&next, range.end, &sum));
        }
    });
    let sum = sum.into_inner().expect("a run's panic is caught before it gets here");
    print_sum(&sum, began.elapsed());
    if let Some((seed, failure)) = sum.failures.first_key_value() {
        if shrinks {
            super::report(&swarm::script(*seed), failure);
        }
        return ExitCode::FAILURE;
    }
    let names = Kind::ALL.iter().map(|kind| kind.name()).chain(STRIKES.iter().copied());
    let missing: Vec<&str> =
        names.filter(|name| sum.strikes.get(name).is_none_or(|times| *times == 0)).collect();
    if !missing.is_empty() {
        println!("FAILED these faults never struck: {}", missing.join(" "));
    }
    let unreached = sum.marks.missing();
    if !unreached.is_empty() {
        println!("FAILED these branches were never reached: {}", unreached.join(" "));
    }
    match missing.is_empty() && unreached.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn work(next: &AtomicU64, end: u64, sum: &Mutex<Sum>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let result = run_seed(seed);
        let mut sum = sum.lock().expect("a run's panic is caught before it gets here");
        sum.add(seed, result);
        if sum.failures.len() >= FAILURES {
            return;
        }
    }
}

fn print_sum(sum: &Sum, took: Duration) {
    println!("how often each fault struck:");
    for (name, times) in &sum.strikes {
        println!("  {name:24} {times}");
    }
    sum.marks.print();
    let seconds = took.as_secs_f64();
    let (rate, speed) = (sum.runs as f64 / seconds, sum.simulated.as_secs_f64() / seconds);
    println!(
        "{} seeds, {} failed, {seconds:.1} s: {rate:.1} seeds/s, {:.2} simulated hours/min",
        sum.runs,
        sum.failures.len(),
        speed / 60.0
    );
    println!(
        "a night of {NIGHT_HOURS} hours: {:.1} million seeds, {:.2} simulated years",
        rate * NIGHT_HOURS * 3600.0 / 1e6,
        speed * NIGHT_HOURS / (24.0 * 365.25)
    );
    println!(
        "{} entries committed; {} commands answered, {} refused, {} in doubt",
        sum.committed, sum.answered, sum.refused, sum.in_doubt
    );
}
