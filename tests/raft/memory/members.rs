//! What tests of members that come and go say all the time.

use std::time::Duration;

use raftkv::proto::reply::Reply;
use raftkv::types::ServerId;

use super::Cluster;

pub const SECOND: Duration = Duration::from_secs(1);

pub fn server(id: u64) -> ServerId {
    ServerId(id)
}

pub fn founded(count: u64, seed: u64) -> (Cluster, ServerId) {
    let mut cluster = Cluster::new(count, seed);
    cluster.run_until(2 * SECOND, "the first leader", |c| c.leader().is_some());
    let leader = cluster.leader().expect("just seen");
    cluster.converge(2 * SECOND);
    (cluster, leader)
}

pub fn words(id: u64) -> String {
    format!("{id} 10.0.0.{id}:7201 10.0.0.{id}:7101")
}

/// Who votes, by the newest membership of whoever leads; nothing while it is joint.
pub fn voters(cluster: &Cluster) -> Option<Vec<u64>> {
    let node = cluster.node(cluster.leader()?)?;
    let membership = node.raft().membership();
    (!membership.is_joint()).then(|| membership.voters().map(|id| id.0).collect())
}

pub fn wait_for_voters(cluster: &mut Cluster, expected: &[u64]) {
    let what = format!("the voters are {expected:?}");
    cluster.run_until(20 * SECOND, &what, |c| voters(c).as_deref() == Some(expected));
}

pub fn error(reply: &Reply) -> String {
    match reply {
        Reply::Error(text) => text.to_string(),
        other => panic!("not an error: {other:?}"),
    }
}
