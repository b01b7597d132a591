//! ioredis and node-redis, against every node of a real cluster, and on surviving nodes while the
//! leader dies.
//!
//! The sessions are in tests/clients: ioredis.js and node_redis.js. The packages are looked for in
//! target/ci-node (`npm install --prefix target/ci-node ioredis redis`); where they are not there,
//! the tests say that they were skipped.

use std::process::Command;

use crate::common::{Cluster, skip};
use crate::fail_over::load_through_a_fail_over;

const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/ci-node/node_modules");

/// Node.js with a script of tests/clients, if the package is there.
fn node(test: &str, package: &str, script: &str) -> Option<Command> {
    let mut probe = Command::new("node");
    probe.args(["-e", &format!("require('{package}')")]).env("NODE_PATH", PACKAGES);
    if !probe.output().is_ok_and(|output| output.status.success()) {
        skip(test, &format!("node has no package {package}"));
        return None;
    }
    let mut command = Command::new("node");
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/");
    command.arg(format!("{directory}{script}")).env("NODE_PATH", PACKAGES);
    Some(command)
}

fn works_on_every_node(test: &str, package: &str, script: &str) {
    let Some(mut command) = node(test, package, script) else {
        return;
    };
    let cluster = Cluster::start();
    cluster.wait_until_even();
    let addresses = cluster.nodes.iter().map(|node| &node.client);
    let output = command.args(addresses).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("ok "), "{stderr}");
}

#[test]
fn ioredis_works_on_every_node() {
    works_on_every_node("ioredis_works_on_every_node", "ioredis", "ioredis.js");
}

#[test]
fn node_redis_works_on_every_node() {
    works_on_every_node("node_redis_works_on_every_node", "redis", "node_redis.js");
}

#[test]
fn ioredis_sees_no_error_on_surviving_nodes() {
    let test = "ioredis_sees_no_error_on_surviving_nodes";
    if let Some(command) = node(test, "ioredis", "ioredis.js") {
        load_through_a_fail_over(command);
    }
}

#[test]
fn node_redis_sees_no_error_on_surviving_nodes() {
    let test = "node_redis_sees_no_error_on_surviving_nodes";
    if let Some(command) = node(test, "redis", "node_redis.js") {
        load_through_a_fail_over(command);
    }
}
