//! Real nodes under load: their logs stay bounded, who was away is brought up to date by a snapshot,
//! and what all of them load after `kill -9` is the same.

use std::path::Path;
use std::time::Duration;

use crate::common::cluster::PATIENCE;
use crate::common::{Client, Cluster, Options, Reply, eventually};

const SEGMENT_BYTES: u64 = 256 * 1024;
const SNAPSHOT_LOG_BYTES: u64 = 1024 * 1024;
const VALUE_BYTES: usize = 1000;
const KEYS: usize = 2000;
const BATCH: usize = 50;

/// What the state takes in a snapshot, and then makes the next one due.
const STATE_BYTES: u64 = (KEYS * (VALUE_BYTES + 100)) as u64;

/// Segments that hold what two snapshots leave to the log, the current one, and the next one.
const LOG_BYTES: u64 = 3 * STATE_BYTES + 4 * SEGMENT_BYTES;

fn options() -> Options {
    let toml = format!(
        "\n[storage]\nsegment_bytes = {SEGMENT_BYTES}\nsnapshot_log_bytes = {SNAPSHOT_LOG_BYTES}\n"
    );
    Options { toml, ..Options::default() }
}

/// Writes `rounds` times over all keys, and counts each round; returns the rounds so far.
fn load(client: &mut Client, from: usize, rounds: usize) {
    for round in from..from + rounds {
        for first in (0..KEYS).step_by(BATCH) {
            let sets: Vec<Vec<String>> =
                (first..first + BATCH).map(|key| set(key, round)).collect();
            for reply in client.pipeline(&sets).unwrap() {
                assert_eq!(reply, Reply::ok());
            }
        }
        assert!(client.must(&["INCR", "rounds"]).number().is_some());
    }
}

fn set(key: usize, round: usize) -> Vec<String> {
    vec!["SET".to_owned(), format!("key:{key}"), value(key, round)]
}

fn value(key: usize, round: usize) -> String {
    format!("{round}:{key}:{}", "v".repeat(VALUE_BYTES))
}

/// Bytes of the files in a directory whose names end like this, and how many there are.
fn held(directory: &Path, suffix: &str) -> (u64, usize) {
    let mut bytes = 0;
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        // One may be removed while we look.
        if entry.file_name().to_string_lossy().ends_with(suffix)
            && let Ok(data) = entry.metadata()
        {
            bytes += data.len();
            files += 1;
        }
    }
    (bytes, files)
}

fn assert_bounded(cluster: &Cluster, position: usize) {
    let data = &cluster.nodes[position].data;
    eventually("what is no longer needed is gone", PATIENCE, || {
        let (log_bytes, _) = held(&data.join("log"), ".wal");
        let (_, snapshots) = held(&data.join("snap"), ".snap");
        (log_bytes <= LOG_BYTES && snapshots <= 2).then_some(())
    });
}

/// Every key's value on a node, by a linearizable read.
fn dump(cluster: &Cluster, position: usize) -> Vec<Reply> {
    let mut client = cluster.client(position);
    let gets: Vec<Vec<String>> =
        (0..KEYS).map(|key| vec!["GET".to_owned(), format!("key:{key}")]).collect();
    gets.chunks(500).flat_map(|some| client.pipeline(some).unwrap()).collect()
}

#[test]
fn a_log_stays_bounded_and_snapshots_bring_back_who_was_away() {
    let mut cluster = Cluster::start_with(options());
    let leader = cluster.wait_for_leader();
    let mut client = cluster.client(leader);

    // 1. Ten times what makes a snapshot due: every node has taken some, and its log is short.
    load(&mut client, 0, 5);
    cluster.wait_until_even();
    for position in 0..3 {
        let taken = || (cluster.figure(position, "raft_snapshot_index") > 1).then_some(());
        eventually("a snapshot is taken", PATIENCE, taken);
        assert_bounded(&cluster, position);
    }

    // 2. One dies, and the others compact past it.
    let away = cluster.others(leader)[0];
    let reached = cluster.figure(away, "raft_last_log_index");
    cluster.kill(away);
    let mut rounds = 5;
    eventually("the log begins behind what the dead node has", 3 * PATIENCE, || {
        load(&mut client, rounds, 1);
        rounds += 1;
        (cluster.figure(leader, "raft_first_log_index") > reached + 1).then_some(())
    });
    let before = rounds;

    // 3. It comes back under load, and is brought up to date by a snapshot.
    cluster.restart(away);
    load(&mut client, rounds, 3);
    rounds += 3;
    cluster.wait_until_even();
    let log = cluster.nodes[away].logged();
    assert!(log.contains("received"), "by a snapshot:\n{log}");
    assert!(log.contains("loaded the state up to entry"), "{log}");
    let expected: Vec<Reply> = (0..KEYS).map(|key| Reply::bulk(&value(key, rounds - 1))).collect();
    assert!(before < rounds);
    for position in 0..3 {
        assert!(dump(&cluster, position) == expected, "node {position} holds the last round");
    }

    // 4. All die, and all load what they had.
    cluster.kill_all();
    for position in 0..3 {
        cluster.restart(position);
    }
    cluster.wait_until_even();
    for position in 0..3 {
        assert!(dump(&cluster, position) == expected, "node {position} after its restart");
        let mut client = cluster.client(position);
        assert_eq!(client.must(&["GET", "rounds"]), Reply::bulk(&rounds.to_string()));
        assert_bounded(&cluster, position);
    }

    // 5. A clean stop and a start: nothing is lost either, and the log on disk goes on.
    let stopped = cluster.others(cluster.wait_for_leader())[0];
    cluster.nodes[stopped].signal(rustix::process::Signal::TERM);
    assert!(cluster.nodes[stopped].wait(PATIENCE).success());
    cluster.restart(stopped);
    cluster.wait_until_even();
    assert!(dump(&cluster, stopped) == expected);
}

#[test]
fn raft_snapshot_makes_one_at_once() {
    let cluster = Cluster::start_with(options());
    let leader = cluster.wait_for_leader();
    let mut client = cluster.client(leader);
    assert_eq!(client.must(&["SET", "a", "1"]), Reply::ok());
    assert_eq!(client.must(&["RAFT", "SNAPSHOT"]), Reply::ok());
    eventually("it is taken", Duration::from_secs(5), || {
        (cluster.figure(leader, "raft_snapshot_index") > 1).then_some(())
    });
    let (bytes, files) = held(&cluster.nodes[leader].data.join("snap"), ".snap");
    assert_eq!((bytes, files), (cluster.figure(leader, "raft_snapshot_bytes"), 1));
}
