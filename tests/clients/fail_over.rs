//! A stock client's load through a fail-over: what the programs beside this file say of it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use crate::common::cluster::PATIENCE;
use crate::common::{Client, Cluster, eventually};

/// Runs a client's load (`command load HOST:PORT ...`) on two nodes while the third one, which
/// leads, is killed: it says `ready`, goes on until its input ends, and then says `ok` if it has met
/// no error.
pub fn load_through_a_fail_over(mut command: Command) {
    let mut cluster = Cluster::start();
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    let survivors = cluster.others(leader);
    command.arg("load").args(survivors.iter().map(|at| &cluster.nodes[*at].client));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    let is_ready = first == "ready\n";
    if is_ready {
        cluster.kill(leader);
        cluster.wait_for_leader();
        // Under the new leader for a while, too.
        let mut client = cluster.client(survivors[0]);
        let index = |client: &mut Client| {
            let info = client.must(&["INFO", "raft"]).text();
            let line = info.lines().find_map(|line| line.strip_prefix("raft_applied_index:"));
            line.and_then(|text| text.trim().parse::<u64>().ok()).unwrap()
        };
        let goal = index(&mut client) + 200;
        eventually("the load goes on", PATIENCE, || (index(&mut client) >= goal).then_some(()));
    }
    drop(child.stdin.take());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(is_ready && output.status.success() && rest.starts_with("ok "), "{rest}{errors}");
}
