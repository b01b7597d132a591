//! An idle cluster, after load, writes nothing to its disks and hardly runs.
//!
//! A few seconds by default; `RAFTKV_IDLE_SECONDS=60` watches for longer, and then holds the
//! processor time against its bound as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::common::{Cluster, Options, Reply, eventually};

/// Clock ticks a second in /proc, on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Of one core, for each node.
const CPU_SHARE: f64 = 0.01;
const EMPTY_RESIDENT_KIB: u64 = 10 * 1024;

fn idle_time() -> Duration {
    let seconds = std::env::var("RAFTKV_IDLE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

/// Every file below a directory: its size and when it was last written.
fn files(directory: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path(), (metadata.len(), metadata.modified().unwrap()));
        }
    }
    found
}

/// What a node has done so far, by the kernel's account.
#[derive(PartialEq, Debug)]
struct Account {
    written_bytes: String,
    files: BTreeMap<PathBuf, (u64, SystemTime)>,
}

fn account(cluster: &Cluster, position: usize) -> Account {
    let node = &cluster.nodes[position];
    let io = std::fs::read_to_string(format!("/proc/{}/io", node.process_id())).unwrap();
    let line = io.lines().find(|line| line.starts_with("write_bytes:")).unwrap();
    Account { written_bytes: line.to_owned(), files: files(&node.data) }
}

fn cpu_seconds(process_id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime, the 14th and 15th field of all.
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / TICKS_PER_SECOND
}

fn resident_kib(process_id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What all nodes have done over `idle`, after the disks have become quiet.
fn assert_writes_nothing(cluster: &Cluster, idle: Duration) {
    // What was under way may still be written: quiet is when half a second brought no change.
    let mut last = (Instant::now(), Vec::new());
    eventually("the disks are quiet", Duration::from_secs(20), || {
        let now: Vec<Account> = (0..3).map(|position| account(cluster, position)).collect();
        if now != last.1 {
            last = (Instant::now(), now);
        }
        (last.0.elapsed() > Duration::from_millis(500)).then_some(())
    });
    let cpu = |position: usize| cpu_seconds(cluster.nodes[position].process_id());
    let before: Vec<f64> = (0..3).map(cpu).collect();
    let began = Instant::now();
    // Time itself is what this test is about: the nodes are left alone for so long.
    std::thread::sleep(idle);
    for (position, before) in before.into_iter().enumerate() {
        assert_eq!(account(cluster, position), last.1[position], "node {position} wrote");
        let share = (cpu(position) - before) / began.elapsed().as_secs_f64();
        println!("node {position} used {:.2} % of a core", share * 100.0);
        // Over a few seconds the kernel's own ticks are too coarse to tell.
        if idle >= Duration::from_secs(30) {
            assert!(share < CPU_SHARE, "node {position} used {:.2} %", share * 100.0);
        }
    }
}

#[test]
fn idle_cluster_writes_nothing_and_is_small() {
    for sync in ["auto", "thread"] {
        let cluster = Cluster::start_with(Options {
            toml: format!("\n[storage]\nsync = \"{sync}\"\n"),
            ..Options::default()
        });
        cluster.wait_until_even();
        for node in &cluster.nodes {
            let kib = resident_kib(node.process_id());
            println!("node {} with an empty store: {kib} KiB", node.id);
            assert!(kib < EMPTY_RESIDENT_KIB, "node {} takes {kib} KiB", node.id);
        }
        // After load: the same, and keys that will expire only later don't wake it.
        let mut client = cluster.client(1);
        for number in 0..500 {
            let key = format!("key{number}");
            assert_eq!(client.must(&["SET", &key, "value", "EX", "3600"]), Reply::ok());
        }
        assert_writes_nothing(&cluster, idle_time());
        assert_eq!(client.must(&["GET", "key499"]), Reply::bulk("value"));
    }
}
