//! The command line of rkv-sim.

use std::ops::Range;
use std::path::PathBuf;

use clap::Parser;

/// Runs the simulator: a whole cluster with all its faults in one thread, from one seed.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100)]
pub struct Arguments {
    /// Runs one seed; a failing one is told and made small.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Runs the seeds A..B and sums up; every kind of fault must have struck.
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub seeds: Option<Range<u64>>,
    /// Breaks one rule of the server after the other: each must be caught by one of the seeds
    /// (--seeds, 0..1000 where it isn't given), and none may fail without. Needs a build with
    /// --features testing.
    #[arg(long)]
    pub mutants: bool,
    /// Breaks this rule while --seed or --script runs.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["mutants", "seeds"])]
    pub mutation: Option<String>,
    /// Only mutations whose name holds this.
    #[arg(long, value_name = "PART", requires = "mutants")]
    pub only: Option<String>,
    /// Writes which seed caught which mutation.
    #[arg(long, value_name = "FILE", requires = "mutants")]
    pub record: Option<PathBuf>,
    /// Runs a script, as a shrunken seed has printed it.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Tells the story of a good run too.
    #[arg(long)]
    pub story: bool,
    /// Threads for a range of seeds; each seed is one thread's.
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// Leaves a failing seed as it is.
    #[arg(long)]
    pub no_shrink: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| {
        let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
        (from < to).then_some(from..to)
    });
    parsed.ok_or_else(|| format!("'{text}' is no range of seeds, such as 0..100"))
}
