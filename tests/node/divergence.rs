//! Divergence (design page 3, §4): a server whose state is wrong is found out by the others.
//!
//! Whole clusters in memory, with one server that applies others' writes to nothing. The checkers
//! of the simulator are told to look away from it, so that it is the servers who have to see.

use std::time::Duration;

use raftkv::proto::reply_decoder::Value;
use raftkv::sim::Cluster;
use raftkv::sim::mutants::{hunt, invariant};
use raftkv::testing::mutation::{Mutation, with};
use raftkv::types::ServerId;

const PATIENCE: Duration = Duration::from_secs(20);
const WRONG: ServerId = ServerId(1);

/// A cluster whose server 1 will go wrong, once it has a leader; `leader` says who that is.
fn cluster(nodes: u64, leader: ServerId) -> Cluster {
    let mut cluster = Cluster::new(nodes, 7);
    cluster.distrust(WRONG);
    cluster.run_until(PATIENCE, "a leader", |cluster| cluster.leader().is_some());
    if cluster.leader() != Some(leader) {
        let asked = cluster.leader().expect("just seen");
        cluster.call(asked, &format!("RAFT TRANSFER {leader}"));
        cluster.run_until(PATIENCE, "the transfer", |cluster| cluster.leader() == Some(leader));
    }
    cluster
}

/// Writes a little for some seconds, through server 2.
fn write(cluster: &mut Cluster, seconds: u64) {
    for number in 0..seconds {
        let reply = cluster.call(ServerId(2), &format!("SET key{number} value"));
        assert_eq!(reply, Value::Simple("OK".to_owned()));
        cluster.run_for(Duration::from_secs(1));
    }
}

fn info(cluster: &mut Cluster, id: ServerId, name: &str) -> String {
    let text = match cluster.call(id, "INFO raft") {
        Value::Bulk(bytes) | Value::Text(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("INFO has text: {other:?}"),
    };
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

#[test]
fn who_a_majority_contradicts_stops_and_comes_back_with_nothing() {
    for leader in [ServerId(2), WRONG] {
        with(Some(Mutation::LosesForeignWrite), || {
            let mut cluster = cluster(3, leader);
            // 1. Server 1 makes nothing of writes that came through server 2.
            write(&mut cluster, 4);
            // 2. It was found out. Started again, it has set its files aside, and is nobody.
            assert_eq!(cluster.struck("diverged"), 1, "led by {leader}");
            assert_eq!(cluster.struck("diverged-start"), 1);
            assert_eq!(info(&mut cluster, WRONG, "raft_role"), "recovering");
            let reason = info(&mut cluster, WRONG, "raft_recovering_reason");
            assert!(reason.contains("majority has come to another state"), "{reason}");
            // 3. The others go on, and say who it was that differed.
            let reply = cluster.call(ServerId(3), "GET key3");
            assert_eq!(reply, Value::Bulk(b"value".to_vec()));
            assert_eq!(info(&mut cluster, ServerId(2), "raft_diverging_peers"), "1");
            // 4. Who has left is not counted any more.
            let asked = cluster.leader().expect("two of three");
            let reply = cluster.call(asked, "RAFT REMOVE 1");
            assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
            write(&mut cluster, 3);
            for id in [ServerId(2), ServerId(3)] {
                assert_eq!(info(&mut cluster, id, "raft_diverging_peers"), "0");
            }
        });
    }
}

#[test]
fn where_nobody_has_a_majority_it_is_said_and_nobody_stops() {
    with(Some(Mutation::LosesForeignWrite), || {
        let mut cluster = cluster(2, ServerId(2));
        write(&mut cluster, 4);
        assert_eq!(cluster.alive(), [WRONG, ServerId(2)]);
        for id in [WRONG, ServerId(2)] {
            assert_eq!(info(&mut cluster, id, "raft_diverging_peers"), "1");
        }
    });
}

#[test]
fn who_is_away_is_told_when_it_comes_back() {
    with(Some(Mutation::LosesForeignWrite), || {
        let mut cluster = cluster(3, ServerId(2));
        // 1. While nobody hears it, the wrong server has nobody who contradicts it.
        cluster.cut(WRONG, ServerId(2));
        cluster.cut(WRONG, ServerId(3));
        write(&mut cluster, 3);
        assert!(cluster.node(WRONG).is_some());
        // 2. It catches up, and is found out by what it makes of that.
        cluster.heal();
        cluster.run_for(Duration::from_secs(10));
        write(&mut cluster, 2);
        assert_eq!(cluster.struck("diverged"), 1);
    });
}

#[test]
fn the_simulators_checkers_see_it_too() {
    let caught = hunt(Mutation::LosesForeignWrite, 0..10).expect("a seed with two servers");
    let invariants = ["state-machine-safety", "exactly-once"];
    assert!(invariants.contains(&invariant(&caught.failure).as_str()), "{:?}", caught.failure);
}

#[test]
fn sound_servers_agree_for_as_long_as_they_live() {
    let mut cluster = Cluster::new(3, 8);
    cluster.run_until(PATIENCE, "a leader", |cluster| cluster.leader().is_some());
    write(&mut cluster, 5);
    for id in cluster.ids() {
        assert_eq!(info(&mut cluster, id, "raft_diverging_peers"), "0");
    }
    assert_eq!(cluster.alive().len(), 3);
}
