//! redis-py, with RESP3 and RESP2, against every node of a real cluster.
//!
//! The session itself is tests/clients/redis_py.py. Where redis-py is not installed the test says
//! that it was skipped.

mod common;

use std::process::Command;

use common::{Cluster, skip, works};

#[test]
fn redis_py_works_on_every_node() {
    if !works("python3", &["-c", "import redis"]) {
        return skip("redis_py_works_on_every_node", "python3 has no module redis");
    }
    let cluster = Cluster::start();
    cluster.wait_until_even();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/redis_py.py");
    let addresses = cluster.nodes.iter().map(|node| &node.client);
    let output = Command::new("python3").arg(script).args(addresses).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("ok "), "{stderr}");
}
