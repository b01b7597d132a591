//! A disk that hangs on one node: a leader hands over, a follower is not waited for.
//!
//! strace attaches to the running node and delays each of its syncs by seconds; where it cannot be
//! used the tests say that they were skipped.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::cluster::PATIENCE;
use crate::common::strace;
use crate::common::{Cluster, Options, Reply, eventually, skip};

/// So that a sync is a call of its own, in a thread of its own.
const THREAD: &str = "\n[storage]\nsync = \"thread\"\n";
/// How long each sync takes, beside what the disk needs: many election timeouts.
const DELAY: Duration = Duration::from_secs(4);
/// Far less than one delayed sync, and far more than a busy machine makes of a commit.
const UNDELAYED: Duration = Duration::from_secs(2);

/// Syncs of a running process are delayed for as long as this lives.
struct Delay {
    strace: Child,
}

impl Delay {
    fn attach(process: u32, log: &Path) -> Delay {
        let inject = format!("inject=fdatasync,fsync:delay_exit={}", DELAY.as_micros());
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-p", &process.to_string(), "-e", "trace=fdatasync,fsync"]);
        command.args(["-e", &inject, "-o"]).arg(log);
        let strace = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{process}/status");
        eventually("strace is attached", PATIENCE, || {
            let text = std::fs::read_to_string(&status).ok()?;
            let tracer = text.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
            (tracer.trim() != "0").then_some(())
        });
        Delay { strace }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        // It may have ended with the node.
        let _ended = self.strace.kill();
        let _collected = self.strace.wait();
    }
}

fn start() -> Cluster {
    let cluster = Cluster::start_with(Options { toml: THREAD.to_owned(), ..Options::default() });
    cluster.wait_until_even();
    cluster
}

/// Writes one after the other for a while; returns how many were done, and the longest wait.
fn write_for(cluster: &Cluster, through: usize, duration: Duration) -> (usize, Duration) {
    let mut client = cluster.client(through);
    let (end, mut longest, mut count) = (Instant::now() + duration, Duration::ZERO, 0);
    while Instant::now() < end {
        let sent = Instant::now();
        let reply = client.must(&["INCR", "n"]);
        assert!(matches!(reply, Reply::Integer(_)), "{reply:?}");
        longest = longest.max(sent.elapsed());
        count += 1;
    }
    (count, longest)
}

#[test]
fn a_follower_whose_disk_hangs_slows_nobody() {
    let test = "a_follower_whose_disk_hangs_slows_nobody";
    if let Some(why) = strace::missing() {
        return skip(test, why);
    }
    let cluster = start();
    let leader = cluster.wait_for_leader();
    let [slow, other] = cluster.others(leader)[..] else { panic!("three nodes run") };
    let term = cluster.figure(leader, "raft_term");
    let log = cluster.directory().join("strace.log");
    let delay = Delay::attach(cluster.nodes[slow].process_id(), &log);
    // 1. Through the leader, and through the other follower, as if nothing were.
    for through in [leader, other] {
        let (count, longest) = write_for(&cluster, through, Duration::from_secs(3));
        println!("{count} writes, the longest took {longest:?}");
        assert!(longest < UNDELAYED && count > 50, "{count} writes, the longest {longest:?}");
    }
    assert!(std::fs::read_to_string(&log).unwrap().contains("sync("), "its syncs are delayed");
    // 2. It is heard all the time, and what hangs is its own: reads of it are answered.
    assert_eq!(cluster.figure(leader, "raft_term"), term, "nobody was disturbed");
    let answer = cluster.client(slow).must(&["GET", "n"]);
    assert!(!answer.is_error(), "{answer:?}");
    // 3. With its disk back it catches up.
    drop(delay);
    cluster.wait_until_even();
}

#[test]
fn a_leader_whose_disk_hangs_hands_over() {
    let test = "a_leader_whose_disk_hangs_hands_over";
    if let Some(why) = strace::missing() {
        return skip(test, why);
    }
    let cluster = start();
    let leader = cluster.wait_for_leader();
    let other = cluster.others(leader)[0];
    let mut client = cluster.client(other);
    let log = cluster.directory().join("strace.log");
    let delay = Delay::attach(cluster.nodes[leader].process_id(), &log);
    // 1. The first write makes its disk hang. It is done all the same: by a majority without the
    //    leader's disk, or by the next leader. No client sees an error.
    let sent = Instant::now();
    assert_eq!(client.must(&["INCR", "n"]), Reply::Integer(1));
    println!("the write took {:?}", sent.elapsed());
    assert!(sent.elapsed() < UNDELAYED);
    // 2. Somebody else leads, long before the sync is over.
    let next = eventually("another node leads", UNDELAYED, || {
        cluster.leader().filter(|next| *next != leader)
    });
    println!("node {} led {:?} after the write was sent", next + 1, sent.elapsed());
    let (count, longest) = write_for(&cluster, other, Duration::from_secs(1));
    assert!(longest < UNDELAYED && count > 20, "{count} writes, the longest {longest:?}");
    let log = cluster.nodes[leader].logged();
    assert!(log.contains("the disk has been at one write"), "it says why it hands over: {log}");
    drop(delay);
    eventually("the disk goes on", PATIENCE, || {
        cluster.nodes[leader].logged().contains("the disk goes on").then_some(())
    });
    cluster.wait_until_even();
}
