//! SIGTERM: a node hands over what it leads and leaves with 0; other nodes' clients notice little.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::common::history::{self, Action};
use crate::common::load::Load;
use crate::common::{Cluster, Options, Reply, eventually};
use rustix::process::Signal;

const LEAVES_WITHIN: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[test]
fn shutdown_of_the_leader_hands_over_and_exits_cleanly() {
    let mut cluster = Cluster::start();
    let mut all = Vec::new();
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        // 1. Clients work through the other nodes.
        cluster.wait_until_even();
        let leader = cluster.wait_for_leader();
        let others = cluster.others(leader);
        let addresses: Vec<String> =
            others.iter().map(|&position| cluster.nodes[position].client.clone()).collect();
        let load = Load::begin(&addresses, 4, 8, |_, position| {
            if position % 3 == 2 { Action::Read(0) } else { Action::Increment(0) }
        });
        eventually("the load is under way", crate::common::cluster::PATIENCE, || {
            (load.answered() > 300).then_some(())
        });
        // 2. The leader is asked to leave, and does.
        let began = Instant::now();
        cluster.nodes[leader].signal(signal);
        let status = cluster.nodes[leader].wait(LEAVES_WITHIN);
        assert_eq!(status.code(), Some(0), "after {:?}", began.elapsed());
        let goal = load.answered() + 300;
        eventually("the clients go on", crate::common::cluster::PATIENCE, || {
            (load.answered() > goal).then_some(())
        });
        // 3. Nobody saw an error or waited long.
        for outcome in load.finish() {
            assert!(outcome.broken.is_none(), "{:?}", outcome.broken);
            history::assert_all_answered(&outcome.operations);
            all.extend(outcome.operations);
        }
        cluster.restart(leader);
    }
    let wait = history::longest_wait(&all);
    assert!(wait < LONGEST_WAIT, "a client waited {wait:?}");
    let value = cluster.client(0).must(&["GET", "counter:0"]).number().unwrap();
    history::assert_counters_linearizable(&all, &BTreeMap::from([(0, value)]));
    println!("longest wait {wait:?}");
}

#[test]
fn shutdown_of_all_nodes_and_a_single_one_is_clean() {
    for nodes in [1, 3] {
        let mut cluster = Cluster::start_with(Options { nodes, ..Options::default() });
        cluster.client(0).must(&["SET", "a", "1"]);
        // All at once: the last ones have nobody to hand over to, and leave all the same.
        for node in &cluster.nodes {
            node.signal(Signal::TERM);
        }
        for node in &mut cluster.nodes {
            assert_eq!(node.wait(2 * LEAVES_WITHIN).code(), Some(0));
        }
        for position in 0..nodes {
            cluster.restart(position);
        }
        cluster.wait_for_leader();
        assert_eq!(cluster.client(0).must(&["GET", "a"]), Reply::bulk("1"));
    }
}

#[test]
fn shutdown_by_a_client_hands_over_and_exits_cleanly() {
    let mut cluster = Cluster::start();
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    let other = cluster.others(leader)[0];
    // 1. What was sent before it is answered; it is not, and the connection ends.
    let mut client = cluster.client(leader);
    assert_eq!(client.must(&["SET", "a", "1"]), Reply::ok());
    client.send(&["INCR", "a"]).unwrap();
    client.send(&["SHUTDOWN", "NOSAVE"]).unwrap();
    assert_eq!(client.receive().expect("it comes first"), Reply::Integer(2));
    assert_eq!(cluster.nodes[leader].wait(LEAVES_WITHIN).code(), Some(0));
    assert_eq!(client.read_to_end().unwrap(), b"", "there is no answer to SHUTDOWN");
    // 2. The others go on at once.
    assert_eq!(cluster.client(other).must(&["INCR", "a"]), Reply::Integer(3));
}

#[test]
fn signal_behind_a_clients_shutdown_is_the_first_one() {
    let mut cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    // With nobody to hand over to, leaving takes its time: long enough for a supervisor's signal.
    for other in cluster.others(leader) {
        cluster.nodes[other].signal(Signal::STOP);
    }
    let mut client = cluster.client(leader);
    client.send(&["SHUTDOWN", "NOSAVE"]).unwrap();
    eventually("it has heard", crate::common::cluster::PATIENCE, || {
        std::net::TcpStream::connect(&cluster.nodes[leader].client).is_err().then_some(())
    });
    cluster.nodes[leader].signal(Signal::TERM);
    assert_eq!(cluster.nodes[leader].wait(LEAVES_WITHIN).code(), Some(0), "it isn't cut short");
    for other in cluster.others(leader) {
        cluster.nodes[other].signal(Signal::CONT);
    }
}

#[test]
fn second_process_on_a_data_directory_exits_at_once() {
    let cluster = Cluster::start_with(Options { nodes: 1, ..Options::default() });
    // Another port, the same directory.
    let ports = crate::common::ports::reserve(2);
    let file = cluster.directory().join("second.toml");
    let text = format!(
        "id = 1\ndata_dir = {:?}\n[[cluster.node]]\nid = 1\npeer = \"127.0.0.1:{}\"\n\
         client = \"127.0.0.1:{}\"\n",
        cluster.nodes[0].data.display().to_string(),
        ports.numbers[0],
        ports.numbers[1]
    );
    std::fs::write(&file, text).unwrap();
    let began = Instant::now();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_raftkvd"));
    let output = command.arg("-c").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    // A second is promised; another is for a machine that is busy with other tests.
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    let stderr = String::from_utf8(output.stderr).unwrap();
    let holder = cluster.nodes[0].process_id().to_string();
    assert!(stderr.contains("LOCK") && stderr.contains(&holder), "who holds it: {stderr}");
}

#[test]
fn port_in_use_is_named_with_its_key() {
    let cluster = Cluster::start_with(Options { nodes: 1, ..Options::default() });
    let directory = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_raftkvd"));
    command.arg("-c").arg(&cluster.nodes[0].file);
    let output = command.arg("--data-dir").arg(directory.path().join("data")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let address = &cluster.nodes[0].client;
    assert!(stderr.contains("cluster.node.client") && stderr.contains(address), "{stderr}");
    assert!(!directory.path().join("data").exists(), "the data directory was touched");
}
