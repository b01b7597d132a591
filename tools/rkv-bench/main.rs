//! rkv-bench: how fast a server answers under load, and how soon after its leader's death.
//!
//! The way through its files: `load` starts threads of `worker`s, which send what `workload` makes,
//! when `schedule` says so, and count it in a `tally` that ends as a `report`; `progress` shows it as
//! it goes on; `compare` puts two results side by side; `failover` kills the leaders of a `cluster`
//! that it starts. Speaks plain RESP, so that the same run can be done against any server that does;
//! `etcd`, behind the feature of that name, is the one driver of another protocol.

mod cluster;
mod compare;
#[cfg(feature = "etcd")]
mod etcd;
mod failover;
mod load;
mod progress;
mod report;
mod schedule;
mod sessions;
mod tally;
mod worker;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

const LONG_ABOUT: &str = "\
Measures a server that speaks Redis's protocol. Without --rate, by a closed loop: each connection
sends a batch of commands (-P of them), waits for all replies, and sends the next. Latency is from
the sending of the batch to the reply. While a closed loop waits, it sends nothing, so that a stall
of the server counts once for each connection and not for all requests that it would have delayed.
With --rate, by an open loop: batches are due at that rate whether or not the server keeps up, and
latency is from when a batch was due, so that a stall counts for all that it delays.";

const AFTER_HELP: &str = "\
Examples:
  rkv-bench                                   50 connections write for 10 seconds
  rkv-bench --workload get --fill -P 16       pipelined reads of keys that are there
  rkv-bench --workload mixed --reads 90 -c 127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103
  rkv-bench --rate 20000 --zipf 0.99          20,000 a second, some keys more often than others
  rkv-bench --leader --json > a.json          only through the node that leads
  rkv-bench --compare a.json b.json           two such results, and their ratio
  rkv-bench --sessions -w incr -c A,B,C       numbered writes, that go on when a node dies
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

    /// Compare two results that --json printed, and run nothing
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], exclusive = true)]
    compare: Option<Vec<PathBuf>>,
}

#[derive(Subcommand)]
enum What {
    /// Kill the leader again and again, and measure how long writes wait
    Failover(failover::FailoverArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_clean = match (arguments.what, arguments.compare.as_deref()) {
        (Some(What::Failover(arguments)), _) => failover::run(&arguments),
        (None, Some([first, second])) => compare::run(first, second),
        (None, _) => load::run(&arguments.load),
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
