//! rkv-count: a fixed amount of work, to have its instructions counted by a profiler.
//!
//! `matrix` has the rows; `count` runs one on a `cluster` of `server`s in memory, each with its
//! node, its storage on a `disk` that forgets, and all codecs. Run by `bench/instructions` under
//! callgrind; without one it only says how many commands each row has. The same rows take the same
//! steps in every run, on every machine.

mod cluster;
mod count;
mod disk;
mod matrix;
mod server;

use std::process::ExitCode;

use clap::Parser;
use matrix::Row;

/// The command line.
#[derive(Parser)]
#[command(name = "rkv-count", version, about = "A fixed amount of work, for a profiler to count")]
struct Arguments {
    /// Only these rows
    only: Vec<String>,

    /// Rows that take minutes too
    #[arg(long)]
    deep: bool,

    /// Print the rows' names, and run nothing
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let only = &arguments.only;
    let is_wanted = |row: &Row| only.is_empty() || only.contains(&row.name());
    for row in matrix::rows(arguments.deep).into_iter().filter(is_wanted) {
        if arguments.list {
            println!("{}", row.name());
            continue;
        }
        match count::run(&row) {
            Ok(commands) => println!("{} {commands}", row.name()),
            Err(error) => {
                eprintln!("rkv-count: {}: {error}", row.name());
                return ExitCode::FAILURE;
            }
        }
        count::row_ends(&row);
    }
    ExitCode::SUCCESS
}
