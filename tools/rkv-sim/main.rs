//! rkv-sim: runs seeds of the simulator, tells the story of one, makes a failing one small.
//!
//! The work is `raftkv::sim`'s; here are arguments, threads for sweeps, and the summary. Exit codes:
//! 0 all good, 1 a run failed, a fault never struck or a mutation survives, 2 bad usage.

mod arguments;
mod marks;
mod mutants;
mod sweep;

use std::process::ExitCode;

use clap::Parser;
use raftkv::sim::script::Script;
use raftkv::sim::{Failure, Outcome, shrink, swarm};

use arguments::Arguments;

/// The seeds that every mutation is looked for in, where no others are given.
const MUTANT_SEEDS: std::ops::Range<u64> = 0..1000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.mutants {
        let seeds = arguments.seeds.clone().unwrap_or(MUTANT_SEEDS);
        let (only, record) = (arguments.only.as_deref(), arguments.record.as_deref());
        return mutants::check(&seeds, arguments.jobs, only, record);
    }
    if let Some(range) = &arguments.seeds {
        return sweep::sweep(range.clone(), arguments.jobs, !arguments.no_shrink);
    }
    let script = match (&arguments.script, arguments.seed) {
        (Some(path), _) => match read(path) {
            Ok(script) => script,
            Err(problem) => {
                eprintln!("rkv-sim: {problem}");
                return ExitCode::from(2);
            }
        },
        (None, Some(seed)) => swarm::script(seed),
        (None, None) => {
            eprintln!("rkv-sim: one of --seed, --seeds and --script is needed; see --help");
            return ExitCode::from(2);
        }
    };
    match &arguments.mutation {
        Some(name) => mutants::with(name, || one(&script, &arguments)),
        None => one(&script, &arguments),
    }
}

fn read(path: &std::path::Path) -> Result<Script, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Script::parse(&text).map_err(|what| format!("{}: {what}", path.display()))
}

/// One script: its verdict, and its story where it failed or was asked for.
fn one(script: &Script, arguments: &Arguments) -> ExitCode {
    let (result, story) = raftkv::sim::tell(script);
    match result {
        Ok(outcome) => {
            if arguments.story {
                print!("{script}\n{story}");
            }
            print_outcome(script.seed, &outcome);
            if arguments.story {
                let mut reached = marks::Marks::default();
                reached.add(script.seed);
                reached.print();
            }
            ExitCode::SUCCESS
        }
        Err(failure) if arguments.no_shrink || arguments.script.is_some() => {
            print!("{script}\n{story}");
            println!("FAILED {}\n  at {}", failure.what, failure.at);
            ExitCode::FAILURE
        }
        Err(failure) => {
            report(script, &failure);
            ExitCode::FAILURE
        }
    }
}

/// Shrinks a failing script and tells the story of what is left.
fn report(script: &Script, failure: &Failure) {
    println!("seed {} FAILED {}\n  at {}", script.seed, failure.what, failure.at);
    let (small, failure) = shrink::shrink(script, failure);
    let (_, story) = raftkv::sim::tell(&small);
    println!("\n# the smallest script found; it replays with rkv-sim --script\n{small}");
    println!("{story}FAILED {}\n  at {}", failure.what, failure.at);
}

fn print_outcome(seed: u64, outcome: &Outcome) {
    println!(
        "seed {seed}: good, {:.1} s simulated, {} entries, {} answered, {} refused, {} in doubt, \
         trace {:016x}",
        outcome.simulated.as_secs_f64(),
        outcome.committed,
        outcome.answered,
        outcome.refused,
        outcome.in_doubt,
        outcome.trace_hash
    );
}
