//! How long writes wait when the leader dies: rounds of killing it under a client that writes.
//!
//! Called by `main`. The client stays connected to one surviving node and sends one INCR after the
//! other, as a stock Redis client would: an error, a lost connection or a sum that is not exact
//! ends the run. Measured is from the kill to the reply of the first write *sent after the kill*;
//! a write under way at that moment may have been committed before it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use raftkv::client::{Connection, Wire};
use raftkv::proto::reply_decoder::Value;
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::{Cluster, NODES};

/// The key that is counted up.
const KEY: &str = "bench:failover";

/// The longest that a write may take before the run is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest that a cluster may take to be whole again.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes that must have gone through before the leader is killed.
const WRITES_BEFORE: usize = 50;

/// The command line of a fail-over run.
#[derive(Args, Debug)]
pub struct FailoverArguments {
    /// The server's program; by default `raftkvd` beside this one
    #[arg(long, value_name = "PATH")]
    raftkvd: Option<PathBuf>,

    /// How often to take the leader away
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,

    /// Stop the leader (SIGSTOP) instead of killing it
    #[arg(long)]
    stop: bool,

    /// Where to put the nodes' data; by default a new directory that is removed afterwards
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// One acknowledged write.
struct Write {
    sent: Instant,
    acknowledged: Instant,
}

/// What one round came to.
#[derive(Debug)]
struct Round {
    leader: usize,
    survivor: usize,
    failover: Duration,
    longest_write: Duration,
    writes: usize,
}

/// Runs all rounds; an error is one that a client saw, or of the cluster.
pub fn run(arguments: &FailoverArguments) -> io::Result<bool> {
    let raftkvd = match &arguments.raftkvd {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("raftkvd"),
    };
    let dir = arguments.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("rkv-bench-failover-{}", std::process::id()))
    });
    let rounds =
        Cluster::start(&raftkvd, &dir).and_then(|mut cluster| run_rounds(arguments, &mut cluster));
    let rounds = rounds.map_err(|error| {
        io::Error::new(error.kind(), format!("{error} (what the nodes said: {})", dir.display()))
    })?;
    if arguments.dir.is_none() {
        fs::remove_dir_all(&dir)?;
    }
    show_summary(arguments, &rounds);
    Ok(true)
}

fn run_rounds(arguments: &FailoverArguments, cluster: &mut Cluster) -> io::Result<Vec<Round>> {
    let mut rounds = Vec::new();
    let mut count = 0;
    let mut leader = cluster.wait_until_healthy(HEALTH_TIMEOUT)?;
    for number in 1..=arguments.rounds as usize {
        let survivor = (leader + 1 + number % (NODES - 1)) % NODES;
        let round = run_round(cluster, leader, survivor, arguments.stop, &mut count)?;
        if !arguments.json {
            show_round(number, &round);
        }
        rounds.push(round);
        if arguments.stop {
            cluster.signal(leader, Signal::CONT)?;
        } else {
            cluster.spawn(leader)?;
        }
        leader = cluster.wait_until_healthy(HEALTH_TIMEOUT)?;
    }
    Ok(rounds)
}

/// Takes `leader` away while a client of `survivor` writes. `count` is what the counter holds.
fn run_round(
    cluster: &mut Cluster,
    leader: usize,
    survivor: usize,
    stop: bool,
    count: &mut i64,
) -> io::Result<Round> {
    assert_ne!(leader, survivor, "the client's own node survives");
    let connection = Connection::open(cluster.endpoint(survivor), Wire::Text, WRITE_TIMEOUT)
        .map_err(|error| io::Error::other(format!("node {}: {error}", survivor + 1)))?;
    let before = *count;
    let (sender, writes) = channel();
    let writer = thread::spawn(move || write_on(connection, before, &sender));

    let mut seen = Vec::new();
    let taken_away = receive_until(&writes, &mut seen, |_, seen| seen.len() >= WRITES_BEFORE)
        .then(|| take_away(cluster, leader, stop));
    let killed = match taken_away {
        Some(Ok(killed)) => Some(killed),
        Some(Err(error)) => return Err(error),
        None => None,
    };
    if let Some(killed) = killed {
        receive_until(&writes, &mut seen, |write, _| write.sent >= killed);
    }
    // The writer ends once nobody takes what it sends.
    drop(writes);
    *count = match writer.join() {
        Ok(counted) => counted.map_err(|error| {
            io::Error::other(format!("a write through node {} failed: {error}", survivor + 1))
        })?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let (Some(killed), Some(last)) = (killed, seen.last()) else {
        return Err(io::Error::other("the writer ended without an error"));
    };
    Ok(Round {
        leader,
        survivor,
        failover: last.acknowledged - killed,
        longest_write: seen.iter().map(|it| it.acknowledged - it.sent).max().unwrap_or_default(),
        writes: seen.len(),
    })
}

/// Returns the moment just before.
fn take_away(cluster: &mut Cluster, leader: usize, stop: bool) -> io::Result<Instant> {
    let killed = Instant::now();
    if stop {
        cluster.signal(leader, Signal::STOP)?;
    } else {
        cluster.kill(leader)?;
    }
    Ok(killed)
}

/// Counts up, one write at a time, until nobody takes what it reports. Returns the counter.
fn write_on(
    mut connection: Connection,
    mut count: i64,
    writes: &Sender<Write>,
) -> Result<i64, String> {
    loop {
        let sent = Instant::now();
        match connection.call(&["INCR", KEY], WRITE_TIMEOUT) {
            Ok(Value::Integer(number)) if number == count + 1 => count = number,
            Ok(Value::Integer(number)) => {
                return Err(format!("the counter is {number} after {count}"));
            }
            Ok(Value::Error(text)) => return Err(text),
            Ok(other) => return Err(format!("{other:?}")),
            Err(error) => return Err(error.to_string()),
        }
        let acknowledged = Instant::now();
        if writes.send(Write { sent, acknowledged }).is_err() {
            return Ok(count);
        }
    }
}

/// Collects writes until `is_enough` says so of the last one and all; `false` if the writer ended
/// first.
fn receive_until(
    writes: &Receiver<Write>,
    seen: &mut Vec<Write>,
    is_enough: impl Fn(&Write, &[Write]) -> bool,
) -> bool {
    loop {
        match writes.recv_timeout(2 * WRITE_TIMEOUT) {
            Ok(write) => {
                seen.push(write);
                if seen.last().is_some_and(|last| is_enough(last, seen)) {
                    return true;
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        }
    }
}

fn show_round(number: usize, round: &Round) {
    println!(
        "round {number:>3}: node {} led, writes through node {}: {:>8.1} ms to the next write, \
         {} writes",
        round.leader + 1,
        round.survivor + 1,
        ms(round.failover),
        round.writes,
    );
}

fn show_summary(arguments: &FailoverArguments, rounds: &[Round]) {
    let mut waits: Vec<_> = rounds.iter().map(|round| round.failover).collect();
    waits.sort();
    let longest = waits.last().copied().unwrap_or_default();
    let how = if arguments.stop { "SIGSTOP" } else { "kill -9" };
    if !arguments.json {
        println!(
            "{how} of the leader, {} rounds: median {:.1} ms, max {:.1} ms to the next \
             acknowledged write; no error, every count exact",
            rounds.len(),
            ms(median(&waits)),
            ms(longest),
        );
        return;
    }
    let list: Vec<_> = rounds
        .iter()
        .map(|round| {
            json!({
                "leader": round.leader + 1,
                "through": round.survivor + 1,
                "failover_ms": ms(round.failover),
                "longest_write_ms": ms(round.longest_write),
                "writes": round.writes,
            })
        })
        .collect();
    let summary = json!({
        "how": how,
        "rounds": list,
        "median_ms": ms(median(&waits)),
        "max_ms": ms(longest),
    });
    println!("{summary}");
}

/// `sorted` is not empty; of two in the middle, their mean.
fn median(sorted: &[Duration]) -> Duration {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        return sorted[middle];
    }
    (sorted[middle - 1] + sorted[middle]) / 2
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle() {
        let of = |list: &[u64]| {
            let list: Vec<_> = list.iter().map(|&it| Duration::from_millis(it)).collect();
            median(&list).as_millis()
        };
        assert_eq!(of(&[7]), 7);
        assert_eq!(of(&[1, 3]), 2);
        assert_eq!(of(&[1, 3, 100]), 3);
    }
}
