//! Members of a running cluster come and go: real processes, asked as an operator asks them.
//!
//! The same with a virtual clock, and in bad weather, is in `membership.rs`.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::cluster::PATIENCE;
use crate::common::history::Action;
use crate::common::load::{Load, Outcome};
use crate::common::{Cluster, Reply, eventually};

fn plan(_connection: usize, _position: usize) -> Action {
    Action::Increment(0)
}

/// The lines of RAFT NODES as the leader has them, by id.
fn members(cluster: &Cluster) -> Option<BTreeMap<u64, String>> {
    let leader = cluster.leader()?;
    let mut client = crate::common::Client::connect(&cluster.nodes[leader].client).ok()?;
    client.set_timeout(Duration::from_secs(2));
    let text = client.call(&["RAFT", "NODES"]).ok()?.text();
    let line = |line: &str| {
        let id = line.split_whitespace().next()?.strip_prefix("id=")?.parse().ok()?;
        Some((id, line.to_owned()))
    };
    Some(text.lines().filter_map(line).collect())
}

/// Waits until exactly these vote, and no change is under way.
fn wait_for_voters(cluster: &Cluster, expected: &[u64]) {
    eventually(&format!("the voters are {expected:?}"), PATIENCE, || {
        let members = members(cluster)?;
        let all_vote = members.values().all(|line| line.contains(" vote=yes "));
        (all_vote && members.keys().eq(expected)).then_some(())
    });
}

/// Asks a node for a change, and expects OK.
fn ask(cluster: &Cluster, through: usize, words: &[&str]) {
    let reply = cluster.client(through).must(words);
    assert_eq!(reply, Reply::ok(), "{words:?}");
}

fn add(cluster: &Cluster, through: usize, position: usize) {
    let [id, peer, client] = cluster.introduced(position);
    ask(cluster, through, &["RAFT", "ADD", &id, &peer, &client]);
}

/// Two more servers, through node 1, one after the other.
fn let_two_in(cluster: &mut Cluster) {
    for _ in 0..2 {
        let position = cluster.prepare_another();
        cluster.restart(position);
        add(cluster, 0, position);
        let voters: Vec<u64> = (1..=cluster.nodes.len() as u64).collect();
        wait_for_voters(cluster, &voters);
    }
}

/// Every command was answered with a number. Returns how many there were, and the longest wait.
fn all_done(outcomes: &[Outcome]) -> (usize, Duration) {
    let mut longest = Duration::ZERO;
    let mut count = 0;
    for outcome in outcomes {
        assert!(outcome.broken.is_none(), "{:?}", outcome.broken);
        for operation in &outcome.operations {
            let (done, reply) = operation.done.as_ref().expect("all were waited for");
            assert!(reply.number().is_some(), "{reply:?}");
            longest = longest.max(done.duration_since(operation.sent));
            count += 1;
        }
    }
    (count, longest)
}

#[test]
fn three_four_five_three_under_load_without_an_error() {
    let mut cluster = Cluster::start();
    cluster.wait_until_even();
    let stays = cluster.nodes[2].client.clone();
    let load = Load::begin(&[stays], 4, 16, plan);
    let more = |load: &Load| {
        let goal = load.answered() + 200;
        eventually("the load goes on", PATIENCE, || (load.answered() > goal).then_some(()));
    };
    more(&load);
    // 1. Two more, each through another node.
    for through in [0, 1] {
        let position = cluster.prepare_another();
        cluster.restart(position);
        add(&cluster, through, position);
        let voters: Vec<u64> = (1..=cluster.nodes.len() as u64).collect();
        wait_for_voters(&cluster, &voters);
        more(&load);
    }
    // 2. Both serve.
    let newcomers = [cluster.nodes[3].client.clone(), cluster.nodes[4].client.clone()];
    let second = Load::begin(&newcomers, 2, 16, plan);
    more(&second);
    // 3. Two of the founders leave; whoever leads among them hands over.
    ask(&cluster, 4, &["RAFT", "REMOVE", "1"]);
    more(&load);
    ask(&cluster, 3, &["RAFT", "REMOVE", "2"]);
    wait_for_voters(&cluster, &[3, 4, 5]);
    more(&load);
    more(&second);
    let outcomes: Vec<Outcome> = load.finish().into_iter().chain(second.finish()).collect();
    let (count, longest) = all_done(&outcomes);
    println!("{count} commands, none failed, the longest took {longest:?}");
    let total = outcomes[0].operations[0].action.words()[1].clone();
    let value = cluster.client(3).must(&["GET", &total]).number();
    assert_eq!(value, Some(count as i64), "each was done once");
    for position in [3, 4] {
        let log = cluster.nodes[position].logged();
        assert!(!log.contains("was removed"), "it came, and did not leave: {log}");
    }
    // 4. Those who left say so in their logs, and stay quiet.
    for position in [0, 1] {
        let what = format!("node {} says that it was removed", position + 1);
        eventually(&what, PATIENCE, || {
            let is_removed = cluster.info(position)?.get("raft_role")? == "removed";
            let says_so = cluster.nodes[position].logged().contains("was removed from the cluster");
            (is_removed && says_so).then_some(())
        });
    }
    let term = cluster.figure(2, "raft_term");
    std::thread::sleep(Duration::from_secs(2));
    cluster.kill(0);
    cluster.restart(0);
    eventually("it is still removed", PATIENCE, || {
        (cluster.info(0)?.get("raft_role")? == "removed").then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(cluster.figure(2, "raft_term"), term, "nobody was disturbed");
}

#[test]
fn the_leader_is_removed_through_itself() {
    let mut cluster = Cluster::start();
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    let others: Vec<String> =
        cluster.others(leader).iter().map(|at| cluster.nodes[*at].client.clone()).collect();
    let load = Load::begin(&others, 2, 16, plan);
    let id = cluster.nodes[leader].id.to_string();
    let asked = Instant::now();
    ask(&cluster, leader, &["RAFT", "REMOVE", &id]);
    let answered = asked.elapsed();
    eventually("another leads", PATIENCE, || cluster.leader().filter(|at| *at != leader));
    let goal = load.answered() + 500;
    eventually("the load goes on", PATIENCE, || (load.answered() > goal).then_some(()));
    let (_, longest) = all_done(&load.finish());
    println!("answered after {answered:?}; the longest wait was {longest:?}");
    assert_eq!(members(&cluster).unwrap().len(), 2);
    // What is left is a cluster like any other, also after everybody starts again.
    cluster.kill_all();
    for position in 0..3 {
        cluster.restart(position);
    }
    let leads = cluster.wait_for_leader();
    assert_ne!(leads, leader);
}

#[test]
fn a_wiped_node_is_readmitted_by_one_command() {
    let mut cluster = Cluster::start();
    for value in 0..200 {
        cluster.client(0).must(&["SET", &format!("key{value}"), "1"]);
    }
    let leader = cluster.wait_for_leader();
    let [wiped, other] = cluster.others(leader)[..] else { panic!("three nodes run") };
    cluster.kill(wiped);
    std::fs::remove_dir_all(&cluster.nodes[wiped].data).unwrap();
    cluster.restart(wiped);
    eventually("the wiped node says that it is recovering", PATIENCE, || {
        (cluster.info(wiped)?.get("raft_role")? == "recovering").then_some(())
    });
    // 1. One command, through a follower, or through the wiped node's neighbour.
    let id = cluster.nodes[wiped].id.to_string();
    //    Until the leader has heard its hello, the answer is to say it again.
    eventually("the leader has met the wiped node", PATIENCE, || {
        let reply = cluster.client(other).must(&["RAFT", "ADD", &id]);
        let is_early = matches!(&reply, Reply::Error(text) if text.contains("say this again"));
        assert!(is_early || reply == Reply::ok(), "{reply:?}");
        (!is_early).then_some(())
    });
    wait_for_voters(&cluster, &[1, 2, 3]);
    cluster.wait_until_even();
    // 2. It votes and serves as before, and has everything.
    cluster.kill(leader);
    cluster.wait_for_leader();
    assert_eq!(cluster.client(wiped).must(&["DBSIZE"]).number(), Some(200));
    assert_eq!(cluster.client(wiped).must(&["SET", "a", "1"]), Reply::ok());
}

#[test]
fn a_wiped_node_is_readmitted_by_itself() {
    let options = crate::common::Options {
        toml: "\n[cluster]\nreadmit = \"auto\"\n".to_owned(),
        ..crate::common::Options::default()
    };
    let mut cluster = Cluster::start_with(options);
    cluster.client(0).must(&["SET", "a", "1"]);
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    cluster.kill(leader);
    std::fs::remove_dir_all(&cluster.nodes[leader].data).unwrap();
    cluster.restart(leader);
    eventually("it is healthy again", PATIENCE, || cluster.is_healthy(leader).then_some(()));
    wait_for_voters(&cluster, &[1, 2, 3]);
    assert_eq!(cluster.client(leader).must(&["GET", "a"]), Reply::bulk("1"));
}

#[test]
fn a_change_goes_on_after_the_leader_is_killed_midway() {
    let mut cluster = Cluster::start();
    for round in 0..5 {
        cluster.wait_until_even();
        let leader = cluster.wait_for_leader();
        let others = cluster.others(leader);
        let old = cluster.nodes[others[0]].id;
        let position = cluster.prepare_another();
        cluster.restart(position);
        let [id, peer, client] = cluster.introduced(position);
        // 1. The leader dies some milliseconds after it was asked.
        let mut asking = cluster.client(others[1]);
        asking.send(&["RAFT", "REPLACE", &old.to_string(), &id, &peer, &client]).unwrap();
        std::thread::sleep(Duration::from_millis(3 * round));
        cluster.kill(leader);
        // 2. The others go on with it, all of it.
        let reply = asking.receive().unwrap();
        assert!(reply == Reply::ok() || reply.text().starts_with("INDOUBT"), "{reply:?}");
        cluster.wait_for_leader();
        let settled = eventually("the change is over", PATIENCE, || {
            let members = members(&cluster)?;
            let is_over = members.values().all(|line| line.contains(" vote=yes "));
            is_over.then_some(members)
        });
        let new = cluster.nodes[position].id;
        assert!(settled.contains_key(&new) && !settled.contains_key(&old), "{settled:?}");
        cluster.restart(leader);
        cluster.kill(others[0]);
        assert_eq!(cluster.client(others[1]).must(&["SET", "a", "1"]), Reply::ok());
    }
}

#[test]
fn a_node_that_was_away_while_everyone_else_changed_finds_back() {
    let mut cluster = Cluster::start();
    cluster.wait_until_even();
    // 1. Node 3 knows nodes 1 and 2 alone, and those leave.
    cluster.kill(2);
    let_two_in(&mut cluster);
    for id in ["1", "2"] {
        ask(&cluster, 4, &["RAFT", "REMOVE", id]);
    }
    wait_for_voters(&cluster, &[3, 4, 5]);
    cluster.kill(0);
    cluster.kill(1);
    // 2. It is back, and whoever leads has a greater id: it is dialled.
    cluster.restart(2);
    eventually("it is healthy", PATIENCE, || cluster.is_healthy(2).then_some(()));
    assert_eq!(cluster.client(2).must(&["SET", "a", "1"]), Reply::ok());
}

#[test]
fn a_node_moves_to_other_addresses() {
    let mut cluster = Cluster::start();
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    let moving = cluster.others(leader)[0];
    let (peer, client) = cluster.reserve_addresses();
    let id = cluster.nodes[moving].id.to_string();
    // 1. The cluster is told, then the node is started there.
    ask(&cluster, moving, &["RAFT", "MOVE", &id, &peer, &client]);
    cluster.kill(moving);
    cluster.peers[moving] = peer.clone();
    cluster.nodes[moving].client = client;
    cluster.write_alone(moving);
    cluster.restart(moving);
    eventually("it is healthy there", PATIENCE, || cluster.is_healthy(moving).then_some(()));
    // 2. The others reach it at its new address whoever dials.
    let shown = members(&cluster).unwrap();
    assert!(shown[&cluster.nodes[moving].id].contains(&peer), "{shown:?}");
    cluster.wait_until_even();
}

#[test]
fn a_leader_moves_to_other_addresses_and_nobody_storms() {
    let mut cluster = Cluster::start();
    cluster.wait_until_even();
    // 1. The largest id leads: as a rule the others dial it.
    ask(&cluster, 0, &["RAFT", "TRANSFER", "3"]);
    eventually("node 3 leads", PATIENCE, || cluster.leader().filter(|at| *at == 2));
    let (peer, client) = cluster.reserve_addresses();
    ask(&cluster, 0, &["RAFT", "MOVE", "3", &peer, &client]);
    // 2. It has not moved yet. The others start again, and can't reach it where it will be.
    for position in [0, 1] {
        cluster.kill(position);
        cluster.restart(position);
        eventually("it is healthy", PATIENCE, || cluster.is_healthy(position).then_some(()));
        assert_eq!(cluster.client(position).must(&["SET", "a", "1"]), Reply::ok());
    }
    std::thread::sleep(Duration::from_secs(3));
    // 3. It moves, and whoever leads then reaches it there.
    cluster.kill(2);
    cluster.peers[2] = peer;
    cluster.nodes[2].client = client;
    cluster.write_alone(2);
    cluster.restart(2);
    eventually("it is healthy there", PATIENCE, || cluster.is_healthy(2).then_some(()));
    cluster.wait_until_even();
    // 4. None of them has much to say about all this.
    for node in &cluster.nodes {
        let lines = node.logged().lines().filter(|line| line.contains("peer ")).count();
        assert!(lines < 40, "node {}: {lines} lines about peers", node.id);
    }
}

#[test]
fn a_founder_that_listed_itself_alone_founds_nothing_anew() {
    // Node 1 founded alone and let two others in; then it loses its disk.
    let mut cluster =
        Cluster::start_with(crate::common::Options { nodes: 1, ..Default::default() });
    let_two_in(&mut cluster);
    cluster.client(0).must(&["SET", "a", "1"]);
    cluster.wait_until_even();
    cluster.kill(0);
    std::fs::remove_dir_all(&cluster.nodes[0].data).unwrap();
    eventually("another leads", PATIENCE, || cluster.leader().filter(|at| *at != 0));
    cluster.restart(0);
    eventually("it is recovering", PATIENCE, || {
        (cluster.info(0)?.get("raft_role")? == "recovering").then_some(())
    });
    eventually("one command lets it in", PATIENCE, || {
        (cluster.client(1).must(&["RAFT", "ADD", "1"]) == Reply::ok()).then_some(())
    });
    wait_for_voters(&cluster, &[1, 2, 3]);
    assert_eq!(cluster.client(0).must(&["GET", "a"]), Reply::bulk("1"));
}

#[test]
fn rkv_cli_shows_the_progress_of_a_new_member() {
    let mut cluster = Cluster::start();
    let position = cluster.prepare_another();
    cluster.restart(position);
    eventually("it says what it waits for", PATIENCE, || {
        cluster.nodes[position].logged().contains("waiting to be added").then_some(())
    });
    let [id, peer, client] = cluster.introduced(position);
    let output = Command::new(env!("CARGO_BIN_EXE_rkv-cli"))
        .args(["-c", &cluster.nodes[0].client, "RAFT", "ADD", &id, &peer, &client])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{shown}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "OK");
    assert!(shown.trim_end().ends_with("server 4: voter"), "{shown}");
    wait_for_voters(&cluster, &[1, 2, 3, 4]);
    let shown = String::from_utf8_lossy(
        &Command::new(env!("CARGO_BIN_EXE_rkv-cli"))
            .args(["-c", &cluster.nodes[1].client, "RAFT", "REMOVE", &id])
            .output()
            .unwrap()
            .stderr,
    )
    .into_owned();
    assert!(shown.contains("server 4: not a member"), "{shown}");
}
