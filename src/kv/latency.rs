//! LATENCY's rows, and the buckets of its histograms.
//!
//! Redis 7's. Called by the table, and by `node/latencies.rs`, which counts. Knows no clock.

use std::time::Duration;

use super::command::{Command, Flags, Group, ROW};
use super::connection::ADMIN;
use super::server::{ServerCommand, plain};

const LATENCY: Command =
    Command { group: Group::Server, flags: ADMIN, arity: 2, since: "2.8.13", ..ROW };

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "latency",
    flags: Flags::NONE,
    arity: -2,
    complexity: "Depends on subcommand.",
    summary: "A container for latency diagnostics commands",
    subcommands: LATENCY_SUBCOMMANDS,
    ..LATENCY
}];

const LATENCY_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "latency|latest",
        summary: "Return the latest latency samples for all events",
        tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
        handler: plain(ServerCommand::LatencyLatest),
        ..LATENCY
    },
    Command {
        name: "latency|history",
        arity: 3,
        summary: "Return timestamp-latency samples for the event",
        usage: "event",
        tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
        handler: plain(ServerCommand::LatencyHistory),
        ..LATENCY
    },
    Command {
        name: "latency|reset",
        arity: -2,
        summary: "Reset latency data for one or more events.",
        usage: "[event ...]",
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        handler: plain(ServerCommand::LatencyReset),
        ..LATENCY
    },
    Command {
        name: "latency|doctor",
        summary: "Return a human readable latency analysis report.",
        tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
        handler: plain(ServerCommand::LatencyDoctor),
        ..LATENCY
    },
    Command {
        name: "latency|histogram",
        arity: -2,
        since: "7.0.0",
        complexity: "O(N) where N is the number of commands with latency information being \
                     retrieved.",
        summary: "Return the cumulative distribution of latencies of a subset of or all commands.",
        usage: "[command ...]",
        tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
        handler: plain(ServerCommand::LatencyHistogram),
        ..LATENCY
    },
];

/// How many buckets there are; the last one has what took longer than all others, 36 minutes.
pub const BUCKETS: usize = 32;

/// The last nanosecond of a bucket. Redis counts in steps of a 128th, and a bucket ends with a step.
fn bucket_end_ns(bucket: usize) -> u64 {
    ((1024 + 8) << bucket) - 1
}

/// The bucket of what took so long: each ends at twice the end of the one before.
pub fn bucket(took: Duration) -> usize {
    let is_within = |bucket: &usize| took.as_nanos() <= u128::from(bucket_end_ns(*bucket));
    (0..BUCKETS).find(is_within).unwrap_or(BUCKETS - 1)
}

/// Where a bucket ends, in microseconds, as Redis shows it: 1, 2, 4, 8, 16, 33, 66, ...
pub fn bucket_end_us(bucket: usize) -> u64 {
    bucket_end_ns(bucket) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_ends_at_what_it_shows() {
        let ends: Vec<u64> = (0..9).map(bucket_end_us).collect();
        assert_eq!(ends, [1, 2, 4, 8, 16, 33, 66, 132, 264]);
        for (nanos, expected) in [(0, 0), (1031, 0), (1032, 1), (2063, 1), (2064, 2)] {
            assert_eq!(bucket(Duration::from_nanos(nanos)), expected, "{nanos}");
        }
        assert_eq!(bucket(Duration::from_secs(100_000)), BUCKETS - 1);
        assert_eq!(bucket_end_us(BUCKETS - 1) / 1_000_000 / 60, 36);
    }
}
