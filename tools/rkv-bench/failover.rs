//! How long writes wait when the leader dies: rounds of killing it under a client that writes.
//!
//! Called by `main`. The client stays connected to one surviving node and sends one INCR after the
//! other, as a stock Redis client would; or with `--own-node` it is the Rust client, connected to
//! the leader that dies, and its session says what became of its writes. An error or a sum that is
//! not exact ends the run, and so does a stock client's lost connection. Measured is from the kill to the reply of the first write *sent after the kill*;
//! a write under way at that moment may have been committed before it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use raftkv::client::{Client, Connection, Options, Wire};
use raftkv::proto::reply_decoder::Value;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::{Cluster, NODES};

/// The key that is counted up.
const KEY: &str = "bench:failover";

/// The longest that a write may take before the run is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest that a cluster may take to be whole again.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait between the last of the writes before it and the kill, in microseconds.
const KILL_DELAY_US: u64 = 20_000;

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

    /// Write through the leader itself, in a client session that goes on at another node
    #[arg(long)]
    own_node: bool,

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
    through: usize,
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
        let through = match arguments.own_node {
            true => leader,
            false => (leader + 1 + number % (NODES - 1)) % NODES,
        };
        let round = run_round(cluster, leader, through, arguments.stop, &mut count)?;
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

/// Takes `leader` away while a client writes through node `through`: a stock one, unless that is the
/// leader. `count` is what the counter holds.
fn run_round(
    cluster: &mut Cluster,
    leader: usize,
    through: usize,
    stop: bool,
    count: &mut i64,
) -> io::Result<Round> {
    let writer = match leader == through {
        true => Writer::in_session(cluster, through),
        false => Connection::open(cluster.endpoint(through), Wire::Text, WRITE_TIMEOUT)
            .map(Writer::Stock)
            .map_err(|error| io::Error::other(format!("node {}: {error}", through + 1)))?,
    };
    let before = *count;
    let (sender, writes) = channel();
    let writer = thread::spawn(move || write_on(writer, before, &sender));

    let mut seen = Vec::new();
    // Not always right behind a reply: a write may be anywhere on its way.
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(before as u64);
    let delay = Duration::from_micros(rng.random_range(0..KILL_DELAY_US));
    let taken_away =
        receive_until(&writes, &mut seen, |_, seen| seen.len() >= WRITES_BEFORE).then(|| {
            thread::sleep(delay);
            take_away(cluster, leader, stop)
        });
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
            io::Error::other(format!("a write through node {} failed: {error}", through + 1))
        })?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let (Some(killed), Some(last)) = (killed, seen.last()) else {
        return Err(io::Error::other("the writer ended without an error"));
    };
    Ok(Round {
        leader,
        through,
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

/// Who writes.
enum Writer {
    /// One connection; its loss ends the run.
    Stock(Connection),
    /// A client of all nodes, in a session.
    InSession(Client),
}

impl Writer {
    /// One that begins at this node.
    fn in_session(cluster: &Cluster, first: usize) -> Writer {
        let nodes = (0..NODES).map(|place| (first + place) % NODES);
        let endpoints = nodes.map(|node| cluster.endpoint(node).to_owned()).collect();
        let mut options = Options::new(endpoints);
        options.retry_timeout = WRITE_TIMEOUT;
        Writer::InSession(Client::new(options))
    }

    fn write(&mut self) -> Result<Value, String> {
        let words = ["INCR", KEY];
        match self {
            Writer::Stock(connection) => {
                connection.call(&words, WRITE_TIMEOUT).map_err(|error| error.to_string())
            }
            Writer::InSession(client) => client.command(&words).map_err(|error| error.to_string()),
        }
    }
}

/// Counts up, one write at a time, until nobody takes what it reports. Returns the counter.
fn write_on(mut writer: Writer, mut count: i64, writes: &Sender<Write>) -> Result<i64, String> {
    loop {
        let sent = Instant::now();
        match writer.write()? {
            Value::Integer(number) if number == count + 1 => count = number,
            Value::Integer(number) => {
                return Err(format!("the counter is {number} after {count}"));
            }
            Value::Error(text) => return Err(text),
            other => return Err(format!("{other:?}")),
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
        round.through + 1,
        ms(round.failover),
        round.writes,
    );
}

fn show_summary(arguments: &FailoverArguments, rounds: &[Round]) {
    let mut waits: Vec<_> = rounds.iter().map(|round| round.failover).collect();
    waits.sort();
    let longest = waits.last().copied().unwrap_or_default();
    let how = if arguments.stop { "SIGSTOP" } else { "kill -9" };
    let whose = if arguments.own_node { ", to which the client is connected" } else { "" };
    if !arguments.json {
        println!(
            "{how} of the leader{whose}, {} rounds: median {:.1} ms, max {:.1} ms to the next \
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
                "through": round.through + 1,
                "failover_ms": ms(round.failover),
                "longest_write_ms": ms(round.longest_write),
                "writes": round.writes,
            })
        })
        .collect();
    let summary = json!({
        "how": how,
        "own_node": arguments.own_node,
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
