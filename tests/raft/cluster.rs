//! A cluster of real nodes in memory, with a virtual clock: elections, replication, exactly-once,
//! reads and recovery, also in bad weather. The seeds are drawn anew by `SIM_SEEDS=from..to`.

use std::collections::BTreeMap;
use std::time::Duration;

use raftkv::node::Role;
use raftkv::proto::reply_decoder::Value;
use raftkv::sim::script::{Kind, Settings};
use raftkv::sim::{Cluster, Connection};
use raftkv::types::ServerId;

const MINUTE: Duration = Duration::from_secs(60);

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn ok() -> Value {
    Value::Simple("OK".to_owned())
}

fn founded(count: u64, seed: u64) -> (Cluster, ServerId) {
    let mut cluster = Cluster::new(count, seed);
    cluster.run_until(Duration::from_secs(2), "the first leader", |c| c.leader().is_some());
    let leader = cluster.leader().expect("just seen");
    cluster.converge(Duration::from_secs(2));
    (cluster, leader)
}

#[test]
fn every_node_serves_writes_and_reads() {
    let (mut cluster, _) = founded(3, 1);
    for id in cluster.ids() {
        let key = format!("key{id}");
        assert_eq!(cluster.call(id, &format!("SET {key} 1")), ok());
        for other in cluster.ids() {
            assert_eq!(cluster.call(other, &format!("GET {key}")), bulk("1"), "{other}");
        }
    }
}

#[test]
fn a_single_node_serves_at_once() {
    let (mut cluster, leader) = founded(1, 2);
    assert_eq!(cluster.call(leader, "INCR n"), Value::Integer(1));
    assert_eq!(cluster.call(leader, "GET n"), bulk("1"));
}

#[test]
fn a_pipeline_that_mixes_reads_and_writes_keeps_its_order_on_every_node() {
    let (mut cluster, _) = founded(3, 3);
    for id in cluster.ids() {
        let client = cluster.connect(id);
        let lines = ["SET x 1", "GET x", "INCR x", "GET x", "PING", "DEL x", "GET x"];
        cluster.send(client, &lines);
        cluster.run_for(Duration::from_millis(200));
        let expected = [
            ok(),
            bulk("1"),
            Value::Integer(2),
            bulk("2"),
            Value::Simple("PONG".to_owned()),
            Value::Integer(1),
            Value::Nil,
        ];
        assert_eq!(cluster.replies(client), expected, "on {id}");
    }
}

#[test]
fn killing_the_leader_costs_clients_of_the_others_nothing_but_a_moment() {
    for seed in 0..20 {
        let (mut cluster, leader) = founded(3, seed);
        let follower = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
        let client = cluster.connect(follower);
        // 1. Fifty writes are on their way.
        cluster.send(client, &["INCR n"; 50]);
        cluster.run_for(Duration::from_micros(cluster.now().0 % 300));
        // 2. The leader dies.
        let killed_at = cluster.now();
        cluster.kill(leader);
        cluster.send(client, &["INCR n"]);
        let mut replies = Vec::new();
        while replies.len() < 51 {
            cluster.step();
            replies.extend(cluster.replies(client));
            assert!(cluster.now().since(killed_at) < Duration::from_secs(1), "seed {seed}");
        }
        // 3. Each was done once, in order.
        let expected: Vec<Value> = (1..=51).map(Value::Integer).collect();
        assert_eq!(replies, expected, "seed {seed}");
    }
}

#[test]
fn failing_over_takes_some_ten_milliseconds() {
    let mut waits = Vec::new();
    for seed in 0..100 {
        let (mut cluster, leader) = founded(3, seed);
        let survivor = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
        let killed_at = cluster.now();
        cluster.kill(leader);
        assert_eq!(cluster.call(survivor, "INCR n"), Value::Integer(1));
        waits.push(cluster.now().since(killed_at));
    }
    waits.sort();
    // Virtual time: the figure depends on the seeds alone.
    assert!(waits[50] < Duration::from_millis(30), "median {:?}", waits[50]);
    assert!(waits[99] < Duration::from_millis(400), "longest {:?}", waits[99]);
}

#[test]
fn standing_still_in_a_turn_is_not_taken_for_a_dead_leader() {
    let (mut cluster, leader) = founded(3, 8);
    let follower = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
    let pause_ms = 1000;
    // Between the poll and the reads, before the node decides, before anything is sent.
    for (stage, struck) in (0..3).zip(1..) {
        cluster.strike(Kind::Stumble, follower.0, pause_ms, stage);
        let end = cluster.now().after(Duration::from_millis(2 * pause_ms));
        while cluster.now() < end {
            cluster.step();
            let status = cluster.node(follower).expect("nobody dies").status();
            assert_eq!(status.role, Role::Follower, "stage {stage}");
            assert_eq!(status.leader, Some(leader), "stage {stage}");
        }
        assert_eq!(cluster.struck("stands-still-in-turn"), struck);
    }
}

#[test]
fn a_silent_partition_of_the_leader_ends_with_another_one_and_no_stale_read() {
    for seed in 0..20 {
        let (mut cluster, old_leader) = founded(3, seed);
        assert_eq!(cluster.call(old_leader, "SET x old"), ok());
        let others: Vec<ServerId> =
            cluster.ids().into_iter().filter(|id| *id != old_leader).collect();
        for other in &others {
            cluster.cut(old_leader, *other);
        }
        // 1. A read arrives at the cut-off leader, which does not know yet.
        let reader = cluster.connect(old_leader);
        cluster.send(reader, &["GET x"]);
        // 2. The others go on without it.
        cluster.run_until(Duration::from_secs(5), "another leader", |c| {
            c.leader().is_some_and(|leader| leader != old_leader)
        });
        assert_eq!(cluster.call(others[0], "SET x new"), ok());
        assert_eq!(cluster.replies(reader), [], "seed {seed}: no majority, no read");
        // 3. Healed, the read sees what was acknowledged meanwhile, or was given up.
        cluster.heal();
        cluster.run_for(Duration::from_secs(6));
        let replies = cluster.replies(reader);
        let is_right = matches!(&replies[..], [Value::Error(e)] if e.starts_with("CLUSTERDOWN"))
            || replies == [bulk("new")];
        assert!(is_right, "seed {seed}: {replies:?}");
    }
}

#[test]
fn a_wiped_server_votes_for_nobody_and_says_why() {
    let (mut cluster, leader) = founded(3, 7);
    assert_eq!(cluster.call(leader, "SET x 1"), ok());
    let others: Vec<ServerId> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    // 1. One disk is lost: its server is told so, and stays out.
    cluster.kill(others[0]);
    cluster.wipe(others[0]);
    cluster.start(others[0]);
    cluster.run_for(Duration::from_secs(2));
    let wiped = cluster.node(others[0]).expect("it runs");
    assert_eq!(wiped.status().role, Role::Recovering);
    assert!(wiped.recovering_reason().is_some_and(|reason| reason.contains("data directory")));
    // 2. Without it there is no majority once the leader dies: nobody is elected.
    cluster.kill(leader);
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(cluster.leader(), None);
    // 3. The leader comes back with its disk, and everything is there.
    cluster.start(leader);
    cluster.run_until(Duration::from_secs(5), "a leader", |c| c.leader().is_some());
    assert_eq!(cluster.call(others[1], "GET x"), bulk("1"));
}

#[test]
fn wiped_servers_never_found_a_second_cluster() {
    let (mut cluster, leader) = founded(3, 8);
    assert_eq!(cluster.call(leader, "SET x 1"), ok());
    for id in cluster.ids() {
        cluster.kill(id);
    }
    let survivor = cluster.ids()[0];
    for id in &cluster.ids()[1..] {
        cluster.wipe(*id);
        cluster.start(*id);
    }
    // The two wiped ones are a majority, and must not act like one, with or without the third.
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(cluster.leader(), None);
    cluster.start(survivor);
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(cluster.leader(), None);
}

#[test]
fn keys_expire_by_the_cluster_clock_also_without_traffic() {
    let (mut cluster, leader) = founded(3, 9);
    assert_eq!(cluster.call(leader, "SET x 1 PX 500"), ok());
    cluster.run_for(Duration::from_millis(400));
    let Value::Integer(left_ms) = cluster.call(leader, "PTTL x") else { panic!("no integer") };
    assert!((50..=110).contains(&left_ms), "{left_ms}");
    cluster.run_for(Duration::from_millis(200));
    for id in cluster.ids() {
        let store = cluster.node(id).expect("alive").machine().store();
        assert_eq!(store.len(), 0, "the leader let it expire on {id}");
    }
    // An idle cluster writes nothing: with no deadline left, the log stays as it is.
    let before = cluster.node(leader).expect("alive").status().last_log_index;
    cluster.run_for(MINUTE);
    assert_eq!(cluster.node(leader).expect("alive").status().last_log_index, before);
}

#[test]
fn a_majority_gone_is_clusterdown_or_indoubt_and_never_anything_else() {
    let (mut cluster, leader) = founded(3, 10);
    let others: Vec<ServerId> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    for other in &others {
        cluster.kill(*other);
    }
    let client = cluster.connect(leader);
    cluster.send(client, &["SET x 1"]);
    cluster.run_for(Duration::from_secs(6));
    let reader = cluster.connect(leader);
    cluster.send(reader, &["GET x"]);
    let late = cluster.connect(leader);
    cluster.send(late, &["SET x 2"]);
    cluster.run_for(Duration::from_secs(6));
    let code = |replies: Vec<Value>| match &replies[..] {
        [Value::Error(text)] => text.split(' ').next().unwrap_or_default().to_owned(),
        other => format!("{other:?}"),
    };
    assert_eq!(code(cluster.replies(client)), "INDOUBT", "it was numbered and appended");
    assert_eq!(code(cluster.replies(reader)), "CLUSTERDOWN");
    assert_eq!(code(cluster.replies(late)), "CLUSTERDOWN", "nobody led all the while");
}

#[test]
fn a_clean_stop_hands_leadership_over() {
    let (mut cluster, leader) = founded(3, 11);
    let other = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
    let client = cluster.connect(other);
    cluster.send(client, &["INCR n"; 20]);
    let stopped_at = cluster.now();
    cluster.stop(leader);
    cluster
        .run_until(Duration::from_secs(1), "the leader has exited", |c| c.node(leader).is_none());
    assert!(cluster.now().since(stopped_at) < Duration::from_millis(20), "no election timeout");
    cluster.kill(leader);
    cluster.run_for(Duration::from_millis(300));
    let expected: Vec<Value> = (1..=20).map(Value::Integer).collect();
    assert_eq!(cluster.replies(client), expected);
}

/// Packets get lost, doubled and overtaken; the disk is slow.
fn bad_weather(count: u64) -> Settings {
    Settings {
        nodes: count,
        frame_loss_pm: 30,
        copy_pm: 30,
        copy_delay_ms: 25,
        delay_min_us: 0,
        delay_max_us: 25_000,
        disk_min_us: 0,
        disk_max_us: 30_000,
        ..Cluster::calm()
    }
}

/// One seed of bad weather: kills, cuts, heals and pauses of the network under load; then
/// everything is mended, and every counter must be what its client was told.
fn storm(count: u64, seed: u64) -> u64 {
    let mut cluster = Cluster::with(seed, bad_weather(count));
    let mut clients: BTreeMap<ServerId, Connection> = BTreeMap::new();
    // What each server's client has been told of its own counter, and how often it doesn't know.
    let mut told: BTreeMap<ServerId, i64> = BTreeMap::new();
    let mut in_doubt: BTreeMap<ServerId, i64> = BTreeMap::new();
    let ids = cluster.ids();
    for _ in 0..120 {
        cluster.run_for(Duration::from_millis(40));
        let id = ids[cluster.draw(count) as usize];
        match cluster.draw(12) {
            0 if cluster.node(id).is_some() => {
                collect(&mut cluster, id, &mut clients, &mut told, &mut in_doubt);
                cluster.kill(id);
                if clients.remove(&id).is_some() {
                    *in_doubt.entry(id).or_default() += outstanding(&mut told, id);
                }
            }
            1..=3 if cluster.node(id).is_none() => cluster.start(id),
            4 => {
                let other = ids[cluster.draw(count) as usize];
                if other != id {
                    cluster.cut(id, other);
                }
            }
            5 | 6 => cluster.heal(),
            _ if cluster.node(id).is_some() => {
                let client = *clients.entry(id).or_insert_with(|| cluster.connect(id));
                let lines = [&format!("INCR counter{id}")[..], &format!("GET counter{id}")];
                cluster.send(client, &lines);
                *told.entry(ServerId(id.0 + 100)).or_default() += 1;
            }
            _ => {}
        }
        for id in cluster.alive() {
            collect(&mut cluster, id, &mut clients, &mut told, &mut in_doubt);
        }
    }
    cluster.calm_down();
    cluster.heal();
    for id in ids.clone() {
        if cluster.node(id).is_none() {
            cluster.start(id);
        }
    }
    cluster.run_for(Duration::from_secs(7));
    cluster.converge(Duration::from_secs(10));
    for id in cluster.alive() {
        collect(&mut cluster, id, &mut clients, &mut told, &mut in_doubt);
    }
    for id in ids {
        let least = told.get(&id).copied().unwrap_or(0);
        let most = least + in_doubt.get(&id).copied().unwrap_or(0);
        let value = match cluster.call(id, &format!("GET counter{id}")) {
            Value::Bulk(bytes) => String::from_utf8_lossy(&bytes).parse().expect("a number"),
            _ => 0,
        };
        assert!(
            (least..=most).contains(&value),
            "exactly-once: {least} <= {value} <= {most}, seed {seed}"
        );
    }
    cluster.trace_hash()
}

/// Commands sent and not yet answered on the connection that is lost.
fn outstanding(told: &mut BTreeMap<ServerId, i64>, id: ServerId) -> i64 {
    told.insert(ServerId(id.0 + 100), 0).unwrap_or(0)
}

fn collect(
    cluster: &mut Cluster,
    id: ServerId,
    clients: &mut BTreeMap<ServerId, Connection>,
    told: &mut BTreeMap<ServerId, i64>,
    in_doubt: &mut BTreeMap<ServerId, i64>,
) {
    let Some(client) = clients.get(&id) else {
        return;
    };
    for reply in cluster.replies(*client) {
        match reply {
            Value::Integer(value) => {
                let doubt = in_doubt.get(&id).copied().unwrap_or(0);
                let before = told.get(&id).copied().unwrap_or(0);
                let expected = before + 1..=before + 1 + doubt;
                assert!(expected.contains(&value), "exactly-once: {value} after {before}");
                *in_doubt.entry(id).or_default() -= value - before - 1;
                told.insert(id, value);
                *told.entry(ServerId(id.0 + 100)).or_default() -= 1;
            }
            Value::Bulk(bytes) => {
                let value: i64 = String::from_utf8_lossy(&bytes).parse().expect("a number");
                let least = told.get(&id).copied().unwrap_or(0);
                let most = least + in_doubt.get(&id).copied().unwrap_or(0);
                assert!(
                    (least..=most).contains(&value),
                    "linearizable: read {value} after {least}"
                );
            }
            Value::Error(text) if text.starts_with("INDOUBT") => {
                *in_doubt.entry(id).or_default() += 1;
                *told.entry(ServerId(id.0 + 100)).or_default() -= 1;
            }
            Value::Error(text) if text.starts_with("CLUSTERDOWN") => {}
            Value::Nil => {}
            other => panic!("a reply that nobody asked for: {other:?}"),
        }
    }
}

/// The seeds to run: a small fixed set, or what `SIM_SEEDS` says.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SIM_SEEDS") else {
        return 0..default;
    };
    let (from, to) = text.split_once("..").expect("SIM_SEEDS is from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn three_nodes_survive_bad_weather() {
    for seed in seeds(60) {
        storm(3, seed);
    }
}

#[test]
fn five_nodes_survive_bad_weather() {
    for seed in seeds(30) {
        storm(5, seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    assert_eq!(storm(3, 42), storm(3, 42), "reproducible");
    assert_ne!(storm(3, 42), storm(3, 43));
}
