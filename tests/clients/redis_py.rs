//! redis-py, with RESP3 and RESP2, against every node of a real cluster.
//!
//! The sessions themselves are in tests/clients: redis_py.py, redis_py_asyncio.py, and
//! redis_py_cluster.py for its cluster and Sentinel modes. Where redis-py is not installed the tests say that they were skipped.

use std::process::Command;

use crate::common::{Cluster, Options, skip, works};
use crate::fail_over::load_through_a_fail_over;

#[test]
fn redis_py_works_on_every_node() {
    if !works("python3", &["-c", "import redis"]) {
        return skip("redis_py_works_on_every_node", "python3 has no module redis");
    }
    let cluster = Cluster::start();
    cluster.wait_until_even();
    run(&cluster, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/redis_py.py"));
}

#[test]
fn redis_py_finds_the_leader_in_cluster_and_sentinel_mode() {
    let name = "redis_py_finds_the_leader_in_cluster_and_sentinel_mode";
    if !works("python3", &["-c", "import redis"]) {
        return skip(name, "python3 has no module redis");
    }
    let toml = "\n[client]\nredirect = \"moved\"\n".to_owned();
    let cluster = Cluster::start_with(Options { toml, ..Options::default() });
    run(&cluster, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/redis_py_cluster.py"));
}

const ASYNCIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/redis_py_asyncio.py");

#[test]
fn redis_py_asyncio_works_on_every_node_and_through_sentinel() {
    let name = "redis_py_asyncio_works_on_every_node_and_through_sentinel";
    if !works("python3", &["-c", "import redis.asyncio"]) {
        return skip(name, "python3 has no module redis.asyncio");
    }
    let cluster = Cluster::start();
    cluster.wait_until_even();
    run(&cluster, ASYNCIO);
}

#[test]
fn redis_py_asyncio_sees_no_error_on_surviving_nodes() {
    let name = "redis_py_asyncio_sees_no_error_on_surviving_nodes";
    if !works("python3", &["-c", "import redis.asyncio"]) {
        return skip(name, "python3 has no module redis.asyncio");
    }
    let mut command = Command::new("python3");
    command.arg(ASYNCIO);
    load_through_a_fail_over(command);
}

fn run(cluster: &Cluster, script: &str) {
    let addresses = cluster.nodes.iter().map(|node| &node.client);
    let output = Command::new("python3").arg(script).args(addresses).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("ok "), "{stderr}");
}
