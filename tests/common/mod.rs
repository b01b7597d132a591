//! What the tests of real processes stand on: nodes, clients, load, and what the kernel saw.
//!
//! Used by tests/cluster_*.rs and tests/clients_*.rs. Nothing here sleeps to let something happen:
//! it polls until it has happened, with a deadline.
// Each test is a crate of its own and uses a part of this.
#![allow(dead_code, unused_imports)]

pub mod client;
pub mod cluster;
pub mod history;
pub mod load;
pub mod node;
pub mod ports;
pub mod strace;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use client::{Client, Reply};
pub use cluster::{Cluster, Options};

/// Asks `attempt` until it has an answer, and panics with `what` once `within` has passed.
pub fn eventually<T>(what: &str, within: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that a test could not run, past the test runner's capture: a test that was left out must
/// never look like one that passed.
pub fn skip(test: &str, why: &str) {
    let line = format!("\nSKIPPED {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Whether a program of the system runs with these arguments.
pub fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

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
        eventually("the load goes on", cluster::PATIENCE, || {
            (index(&mut client) >= goal).then_some(())
        });
    }
    drop(child.stdin.take());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(is_ready && output.status.success() && rest.starts_with("ok "), "{rest}{errors}");
}
