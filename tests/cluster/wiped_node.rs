//! A node of a running cluster that has lost its disk votes for nobody, and says why.

use std::time::Duration;

use crate::common::{Cluster, Reply, eventually};

#[test]
fn wiped_node_votes_for_nobody_and_says_why() {
    let mut cluster = Cluster::start();
    cluster.client(0).must(&["SET", "a", "1"]);
    cluster.wait_until_even();

    // 1. A follower comes back with an empty directory.
    let leader = cluster.wait_for_leader();
    let [wiped, other] = cluster.others(leader)[..] else { panic!("three nodes run") };
    cluster.kill(wiped);
    std::fs::remove_dir_all(&cluster.nodes[wiped].data).unwrap();
    cluster.restart(wiped);
    eventually(
        "the wiped node says that it is recovering",
        crate::common::cluster::PATIENCE,
        || {
            let info = cluster.info(wiped)?;
            (info.get("raft_role")? == "recovering").then_some(())
        },
    );
    let said = eventually("its log says why", crate::common::cluster::PATIENCE, || {
        let log = cluster.nodes[wiped].logged();
        let line = log.lines().find(|line| line.contains("[WARN]") || line.contains("[ERROR]"));
        line.map(str::to_owned)
    });
    println!("{said}");

    // 2. The cluster goes on with its majority.
    assert_eq!(cluster.client(leader).must(&["SET", "a", "2"]), Reply::ok());

    // 3. Without the other follower there is no majority: the wiped node must not stand in for it.
    cluster.kill(other);
    let mut client = cluster.client(leader);
    client.set_timeout(Duration::from_secs(30));
    let reply = client.must(&["SET", "a", "3"]);
    assert!(reply.is_error(), "acknowledged by a node that remembers nothing: {reply:?}");
    assert!(cluster.leader().is_none(), "nobody can lead now");

    // 4. With it, there is one again; nothing was lost.
    cluster.restart(other);
    eventually("a majority is back", crate::common::cluster::PATIENCE, || cluster.leader());
    let value = cluster.client(other).must(&["GET", "a"]).text();
    assert!(["2", "3"].contains(&value.as_str()), "{value}");
}

#[test]
fn wiped_nodes_never_found_a_second_cluster() {
    let mut cluster = Cluster::start();
    cluster.client(0).must(&["SET", "a", "1"]);
    cluster.wait_until_even();
    // Two of three come back empty; the third still knows the cluster.
    for position in [0, 1] {
        cluster.kill(position);
        std::fs::remove_dir_all(&cluster.nodes[position].data).unwrap();
        cluster.restart(position);
    }
    for position in [0, 1] {
        eventually("it is recovering", crate::common::cluster::PATIENCE, || {
            (cluster.info(position)?.get("raft_role")? == "recovering").then_some(())
        });
    }
    let reply = cluster.client(0).must(&["SET", "a", "2"]);
    assert!(reply.text().starts_with("CLUSTERDOWN "), "{reply:?}");
    assert!(cluster.leader().is_none());
}

#[test]
fn old_copy_of_a_directory_stays_out_however_often_it_is_restarted() {
    let mut cluster = Cluster::start();
    cluster.client(0).must(&["SET", "a", "1"]);
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    let position = cluster.others(leader)[0];

    // 1. A copy of a stopped node's directory is put aside; the node runs on, three boots more.
    cluster.kill(position);
    let data = cluster.nodes[position].data.clone();
    let copy = data.with_extension("copy");
    copy_directory(&data, &copy);
    for _ in 0..3 {
        cluster.restart(position);
        eventually("it is back", crate::common::cluster::PATIENCE, || {
            cluster.is_healthy(position).then_some(())
        });
        cluster.kill(position);
    }

    // 2. The copy takes its place. Each restart raises its boot counter, past the real one's in
    //    the end; it stays out all the same.
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    for _ in 0..5 {
        cluster.restart(position);
        eventually("it is recovering", crate::common::cluster::PATIENCE, || {
            (cluster.info(position)?.get("raft_role")? == "recovering").then_some(())
        });
        cluster.kill(position);
    }
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
