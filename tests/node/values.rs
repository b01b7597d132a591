//! What tests of clusters in memory begin with: a cluster with a leader, and replies by short names.

use std::time::Duration;

use raftkv::proto::reply_decoder::Value;
use raftkv::sim::Cluster;
use raftkv::sim::script::Settings;
use raftkv::types::ServerId;

pub fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

pub fn simple(text: &str) -> Value {
    Value::Simple(text.to_owned())
}

pub fn ok() -> Value {
    simple("OK")
}

pub fn error(text: &str) -> Value {
    Value::Error(text.to_owned())
}

/// Three nodes, and the one that leads.
pub fn founded(seed: u64) -> (Cluster, ServerId) {
    led(Cluster::new(3, seed))
}

/// The same with other settings.
pub fn founded_with(seed: u64, settings: Settings) -> (Cluster, ServerId) {
    led(Cluster::with(seed, settings))
}

fn led(mut cluster: Cluster) -> (Cluster, ServerId) {
    cluster.run_until(Duration::from_secs(2), "the first leader", |c| c.leader().is_some());
    let leader = cluster.leader().expect("just seen");
    cluster.converge(Duration::from_secs(2));
    (cluster, leader)
}
