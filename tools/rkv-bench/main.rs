//! rkv-bench: how fast a server answers under load, and how soon after its leader's death.
//!
//! The way through its files: `load` starts threads of `worker`s, which send what `workload` makes
//! and fill a `report`; `failover` kills the leaders of a `cluster` that it starts. Speaks plain
//! RESP, so that the same run can be done against any server that does.

mod cluster;
mod failover;
mod load;
mod report;
mod worker;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const LONG_ABOUT: &str = "\
Measures a server that speaks Redis's protocol, by a closed loop: each connection sends a batch of
commands (-P of them), waits for all replies, and sends the next. Latency is from the sending of the
batch to the reply. While a closed loop waits, it sends nothing, so that a stall of the server counts
once for each connection and not for all requests that it would have delayed.";

const AFTER_HELP: &str = "\
Examples:
  rkv-bench                                   50 connections write for 10 seconds
  rkv-bench --workload get --fill -P 16       pipelined reads of keys that are there
  rkv-bench --workload mixed --reads 90 -c 127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103
  rkv-bench failover --rounds 20              kills leaders of a cluster that it starts itself

Exit code: 0 if there was no error, 1 if there was one, 2 for bad usage.";

/// The command line.
#[derive(Parser)]
#[command(name = "rkv-bench", version, about = "Measures a Redis-protocol server")]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,

    #[command(flatten)]
    load: load::LoadArguments,
}

#[derive(Subcommand)]
enum What {
    /// Kill the leader again and again, and measure how long writes wait
    Failover(failover::FailoverArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_clean = match arguments.what {
        Some(What::Failover(arguments)) => failover::run(&arguments),
        None => load::run(&arguments.load),
    };
    match is_clean {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rkv-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }
}
