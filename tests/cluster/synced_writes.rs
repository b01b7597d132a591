//! Durability is counted, not claimed: before each acknowledgement a majority has synced.
//!
//! One client, one command at a time. strace writes down every fdatasync of every node; where it
//! cannot be used the test says that it was skipped.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::strace::{self, Call};
use crate::common::{Cluster, Options, Reply, eventually, skip};

const WRITES: usize = 100;
/// strace's clock is read before the call is let go, ours after the reply was read: both are the
/// same clock, and an interval of ours can only be too long.
const CALLS: &str = "trace=fdatasync,fsync,pwrite64,pwritev,pwritev2,write";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn is_sync(call: &Call) -> bool {
    call.name == "fdatasync" && call.line.contains(" = 0 ")
}

#[test]
fn synced_writes_are_no_fewer_than_acknowledgements_need() {
    if let Some(why) = strace::missing() {
        return skip("synced_writes_are_no_fewer_than_acknowledgements_need", why);
    }
    // 1. Three nodes, each traced into files of its own.
    let mut cluster = Cluster::prepare(Options {
        // A traced node is slow: it shall not lose its leadership over it.
        toml: "\n[raft]\nelection_timeout_ms = [1000, 2000]\nheartbeat_ms = 100\n\
               [storage]\nsync = \"thread\"\n"
            .to_owned(),
        ..Options::default()
    });
    let mut prefixes: Vec<PathBuf> = Vec::new();
    for position in 0..3 {
        let prefix = cluster.directory().join(format!("trace{position}"));
        cluster.set_wrapper(position, strace::wrapper(&prefix, CALLS, &[]));
        cluster.restart(position);
        prefixes.push(prefix);
    }
    cluster.wait_until_even();

    // 2. One client at one node that does not lead.
    let leader = cluster.wait_for_leader();
    let mut client = cluster.client(cluster.others(leader)[0]);
    let mut intervals = Vec::new();
    for number in 0..WRITES {
        let sent = now();
        assert_eq!(client.must(&["SET", "k", &number.to_string()]), Reply::ok());
        intervals.push((sent, now()));
    }

    // 3. strace has written everything down once the nodes have ended.
    cluster.kill_all();
    eventually("strace has ended", Duration::from_secs(10), || {
        let ended = |prefix: &PathBuf| {
            let calls = strace::calls(prefix);
            calls.last().is_some_and(|call| call.ended > intervals[WRITES - 1].0)
        };
        (prefixes.iter().filter(|prefix| ended(prefix)).count() >= 2).then_some(())
    });
    let syncs: Vec<Vec<f64>> = prefixes
        .iter()
        .map(|prefix| strace::calls(prefix).into_iter().filter(is_sync).map(|c| c.ended).collect())
        .collect();

    // 4. Within each write's time at least two of the three synced.
    for (number, &(sent, acknowledged)) in intervals.iter().enumerate() {
        let within = |at: &&f64| (sent..=acknowledged).contains(*at);
        let nodes = syncs.iter().filter(|node| node.iter().any(|at| within(&at))).count();
        assert!(nodes >= 2, "write {number} was acknowledged when {nodes} node had synced it");
    }
    let counts: Vec<usize> = syncs.iter().map(Vec::len).collect();
    assert!(counts[leader] >= WRITES, "the leader synced {counts:?}");
    assert!(counts.iter().sum::<usize>() >= 2 * WRITES, "all nodes synced {counts:?}");
    println!("{WRITES} acknowledgements, fdatasync calls per node: {counts:?}");
}
