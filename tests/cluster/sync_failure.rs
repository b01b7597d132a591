//! A failed fdatasync is final: the node says so and ends, and the cluster goes on without it.
//!
//! strace makes the calls fail; where it cannot be used the tests say that they were skipped.

use std::time::Duration;

use crate::common::strace;
use crate::common::{Cluster, Options, Reply, eventually, skip};

const THREAD: &str = "\n[storage]\nsync = \"thread\"\n";
const INJECT: &str = "inject=fdatasync,fsync:error=EIO:when=5+";
/// From the failed call to the end of the process.
const AT_ONCE: f64 = 2.0;

#[test]
fn sync_failure_ends_a_follower_and_not_the_cluster() {
    let test = "sync_failure_ends_a_follower_and_not_the_cluster";
    if let Some(why) = strace::missing() {
        return skip(test, why);
    }
    // 1. A cluster that has run before, so that the calls of its foundation are behind it.
    let mut cluster =
        Cluster::start_with(Options { toml: THREAD.to_owned(), ..Options::default() });
    let mut client = cluster.client(0);
    for number in 0..20 {
        let key = format!("early{number}");
        assert_eq!(client.must(&["SET", &key, "1"]), Reply::ok());
    }
    let victim = 2;
    cluster.kill(victim);
    let prefix = cluster.directory().join("trace");
    let wrapper = strace::wrapper(&prefix, "trace=fdatasync,fsync,exit_group", &["-e", INJECT]);
    cluster.set_wrapper(victim, wrapper);
    cluster.restart(victim);

    // 2. A client writes through another node until the disk fails, and beyond.
    let mut client = cluster.client(1);
    let mut acknowledged = Vec::new();
    let mut number = 0;
    let status = loop {
        let key = format!("late{number}");
        number += 1;
        match client.must(&["SET", &key, &number.to_string()]) {
            Reply::Simple(_) => acknowledged.push((key, number.to_string())),
            other => panic!("node 2's client sees an error: {other:?}"),
        }
        if strace::ended(&prefix).is_some() {
            break cluster.nodes[victim].wait(Duration::from_secs(5));
        }
        assert!(number < 20_000, "the disk never failed");
    };

    // 3. It ended by itself, at once, and said why.
    assert_eq!(status.code(), Some(1));
    let calls = strace::calls(&prefix);
    let failed = calls.iter().find(|call| call.line.contains("INJECTED")).expect("a call failed");
    let ended = strace::ended(&prefix).unwrap();
    assert!(ended - failed.ended < AT_ONCE, "it lived on for {} s", ended - failed.ended);
    let log = cluster.nodes[victim].logged();
    let said = log.lines().any(|line| line.contains("[ERROR]") && line.contains("os error 5"));
    assert!(said, "its log names the error: {log}");

    // 4. The others go on; nothing that was acknowledged is lost, there or on the node itself.
    assert_eq!(client.must(&["SET", "after", "1"]), Reply::ok());
    cluster.set_wrapper(victim, Vec::new());
    cluster.restart(victim);
    cluster.wait_until_even();
    for position in 0..3 {
        let mut client = cluster.client(position);
        for (key, value) in &acknowledged {
            assert_eq!(client.must(&["GET", key]), Reply::bulk(value), "{key} on {position}");
        }
    }
}

#[test]
fn sync_failure_ends_a_single_node() {
    let test = "sync_failure_ends_a_single_node";
    if let Some(why) = strace::missing() {
        return skip(test, why);
    }
    let mut cluster =
        Cluster::start_with(Options { nodes: 1, toml: THREAD.to_owned(), ..Options::default() });
    cluster.client(0).must(&["SET", "a", "1"]);
    cluster.kill(0);
    let prefix = cluster.directory().join("trace");
    let late = "inject=fdatasync,fsync:error=EIO:when=40+";
    cluster.set_wrapper(0, strace::wrapper(&prefix, "trace=fdatasync,fsync", &["-e", late]));
    cluster.restart(0);
    cluster.wait_for_leader();
    // Its client sees acknowledgements until the disk fails, then the end of the connection, and
    // never an acknowledgement of what is not there.
    let mut client = cluster.client(0);
    let mut acknowledged = 0;
    while let Ok(reply) = client.call(&["SET", "n", &(acknowledged + 1).to_string()]) {
        assert_eq!(reply, Reply::ok());
        acknowledged += 1;
        assert!(acknowledged < 1_000, "the disk never failed");
    }
    assert_eq!(cluster.nodes[0].wait(Duration::from_secs(5)).code(), Some(1));
    cluster.set_wrapper(0, Vec::new());
    cluster.restart(0);
    cluster.wait_for_leader();
    let value = cluster.client(0).must(&["GET", "n"]).number().unwrap_or(0);
    // The write whose sync failed may have reached the disk.
    assert!((acknowledged..=acknowledged + 1).contains(&value), "{value} of {acknowledged}");
}

#[test]
fn sync_failure_ends_a_leader_and_not_the_cluster() {
    let test = "sync_failure_ends_a_leader_and_not_the_cluster";
    if let Some(why) = strace::missing() {
        return skip(test, why);
    }
    // 1. One node's disk will fail, later than it takes to become leader.
    let mut cluster =
        Cluster::start_with(Options { toml: THREAD.to_owned(), ..Options::default() });
    let victim = cluster.wait_for_leader();
    cluster.kill(victim);
    let prefix = cluster.directory().join("trace");
    let late = "inject=fdatasync,fsync:error=EIO:when=60+";
    cluster.set_wrapper(victim, strace::wrapper(&prefix, "trace=fdatasync,fsync", &["-e", late]));
    cluster.restart(victim);
    // 2. Whoever else leads is killed and comes back, until this one does.
    eventually("the victim leads", Duration::from_secs(60), || {
        cluster.wait_until_even();
        let leader = cluster.wait_for_leader();
        if leader == victim {
            return Some(());
        }
        cluster.kill(leader);
        let next = cluster.wait_for_leader();
        cluster.restart(leader);
        (next == victim).then_some(())
    });
    // 3. Its disk fails under load through another node, whose client sees no error.
    let through = cluster.others(victim)[0];
    let mut client = cluster.client(through);
    let mut number = 0;
    while strace::ended(&prefix).is_none() {
        number += 1;
        assert_eq!(client.must(&["INCR", "n"]), Reply::Integer(number));
        assert!(number < 20_000, "the disk never failed");
    }
    assert_eq!(cluster.nodes[victim].wait(Duration::from_secs(5)).code(), Some(1));
    assert_eq!(client.must(&["INCR", "n"]), Reply::Integer(number + 1));
}
