//! Snapshots in a cluster of real nodes in memory: taken under load, installed on who lags, loaded
//! after a kill; also in bad weather. The seeds are drawn anew by `SIM_SEEDS=from..to`.

use std::time::Duration;

use raftkv::proto::reply_decoder::Value;
use raftkv::sim::Cluster;
use raftkv::sim::script::Settings;
use raftkv::types::{LogIndex, ServerId};

const MINUTE: Duration = Duration::from_secs(60);

/// So many KiB of log make a snapshot due: some fifty small batches.
const SNAPSHOT_KIB: u64 = 8;

fn calm(nodes: u64) -> Settings {
    Settings { nodes, snapshot_kib: SNAPSHOT_KIB, ..Cluster::calm() }
}

fn ok() -> Value {
    Value::Simple("OK".to_owned())
}

fn founded(settings: Settings, seed: u64) -> (Cluster, ServerId) {
    let mut cluster = Cluster::with(seed, settings);
    cluster.run_until(Duration::from_secs(5), "the first leader", |c| c.leader().is_some());
    let leader = cluster.leader().expect("just seen");
    cluster.converge(MINUTE);
    (cluster, leader)
}

/// Writes `count` keys through one server, each in a batch of its own.
fn load(cluster: &mut Cluster, id: ServerId, from: u64, count: u64) {
    let client = cluster.connect(id);
    let value = "v".repeat(100);
    for number in from..from + count {
        cluster.send(client, &[&format!("SET key{number:05} {value}{number}")]);
        cluster.run_for(Duration::from_micros(200));
    }
    let mut done = 0;
    let deadline = cluster.now().after(MINUTE);
    while done < count {
        assert!(cluster.now() < deadline, "convergence: {done} of {count} writes are done");
        cluster.step();
        for reply in cluster.replies(client) {
            assert_eq!(reply, ok());
            done += 1;
        }
    }
}

fn snapshot_index(cluster: &Cluster, id: ServerId) -> LogIndex {
    let snapshot = cluster.node(id).expect("alive").status().snapshot;
    snapshot.map_or(LogIndex::ZERO, |(id, _)| id.index)
}

/// Everything that every server's state machine holds is the same.
fn assert_same_state(cluster: &Cluster) {
    let ids = cluster.alive();
    let first = cluster.node(ids[0]).expect("alive").machine();
    for id in &ids[1..] {
        let other = cluster.node(*id).expect("alive").machine();
        assert_eq!(first.last_applied(), other.last_applied());
        assert_eq!(first.digest(), other.digest(), "state-machine-safety: {id}");
        assert!(first.store().iter_from(b"").eq(other.store().iter_from(b"")), "{id}");
    }
}

fn follower_of(cluster: &Cluster, leader: ServerId) -> ServerId {
    cluster.ids().into_iter().find(|id| *id != leader).expect("three servers")
}

/// Kills some servers and starts them anew: what they had in memory of their logs' beginnings is
/// gone.
fn restart(cluster: &mut Cluster, ids: &[ServerId]) {
    for id in ids {
        cluster.kill(*id);
    }
    for id in ids {
        cluster.start(*id);
    }
    cluster.run_until(MINUTE, "a leader", |cluster| cluster.leader().is_some());
}

#[test]
fn every_server_takes_snapshots_under_load_and_its_log_stays_short() {
    let (mut cluster, leader) = founded(calm(3), 1);
    load(&mut cluster, leader, 0, 1000);
    cluster.converge(MINUTE);
    for id in cluster.ids() {
        assert!(snapshot_index(&cluster, id) > LogIndex(800), "{id}");
        let status = cluster.node(id).expect("alive").status();
        let kept = status.last_log_index.0 - status.first_log_index.0;
        assert!(kept < 400, "{id} keeps {kept} entries");
    }
    assert!(cluster.struck("snapshot-taken") >= 15, "{}", cluster.struck("snapshot-taken"));
    assert_same_state(&cluster);
}

#[test]
fn a_restart_loads_the_snapshot_and_the_log_behind_it() {
    let (mut cluster, leader) = founded(calm(3), 2);
    load(&mut cluster, leader, 0, 300);
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.start(id);
        let status = cluster.node(id).expect("started").status();
        assert_eq!(status.loading_percent, Some(0));
        assert!(status.first_log_index > LogIndex(1));
    }
    cluster.run_until(MINUTE, "a leader", |cluster| cluster.leader().is_some());
    cluster.converge(MINUTE);
    assert_same_state(&cluster);
    for id in cluster.ids() {
        assert_eq!(cluster.call(id, "DBSIZE"), Value::Integer(300));
    }
}

#[test]
fn a_follower_that_was_away_is_brought_up_to_date_by_a_snapshot() {
    for seed in 0..10 {
        let (mut cluster, leader) = founded(calm(3), seed);
        load(&mut cluster, leader, 0, 50);
        let follower = follower_of(&cluster, leader);
        cluster.kill(follower);
        // 1. The others compact past it.
        load(&mut cluster, leader, 50, 300);
        let others = cluster.alive();
        restart(&mut cluster, &others);

        // 2. It comes back, and is sent a snapshot while writes go on.
        let before = cluster.struck("snapshot-received");
        cluster.start(follower);
        let leader = cluster.leader().expect("just seen");
        cluster.converge(MINUTE);
        load(&mut cluster, leader, 350, 100);
        cluster.converge(MINUTE);
        assert!(cluster.struck("snapshot-received") > before, "seed {seed}: it was installed");
        assert_same_state(&cluster);

        // 3. It serves like any other, and so it does after a restart.
        assert_eq!(cluster.call(follower, "DBSIZE"), Value::Integer(450), "seed {seed}");
        cluster.kill(follower);
        cluster.start(follower);
        cluster.converge(MINUTE);
        assert_same_state(&cluster);
    }
}

#[test]
fn two_followers_are_brought_up_to_date_at_once() {
    let (mut cluster, leader) = founded(calm(5), 3);
    let away: Vec<ServerId> =
        cluster.ids().into_iter().filter(|id| *id != leader).take(2).collect();
    for id in &away {
        cluster.kill(*id);
    }
    load(&mut cluster, leader, 0, 300);
    let others = cluster.alive();
    restart(&mut cluster, &others);
    cluster.converge(MINUTE);
    let before = cluster.struck("snapshot-received");
    for id in &away {
        cluster.start(*id);
    }
    cluster.converge(MINUTE);
    assert_eq!(cluster.struck("snapshot-received") - before, 2);
    assert_same_state(&cluster);
}

/// Three servers, one of which is down and needs a snapshot: the others have begun again behind
/// theirs. Returns who leads, and who is down.
fn left_behind(seed: u64) -> (Cluster, ServerId, ServerId) {
    let (mut cluster, leader) = founded(calm(3), seed);
    let follower = follower_of(&cluster, leader);
    cluster.kill(follower);
    load(&mut cluster, leader, 0, 2000);
    let others = cluster.alive();
    take_snapshots(&mut cluster, &others);
    restart(&mut cluster, &others);
    cluster.converge(MINUTE);
    let leader = cluster.leader().expect("just seen");
    (cluster, leader, follower)
}

/// Everything is in a snapshot on each of these servers.
fn take_snapshots(cluster: &mut Cluster, ids: &[ServerId]) {
    cluster.run_for(Duration::from_secs(2));
    for id in ids {
        assert_eq!(cluster.call(*id, "RAFT SNAPSHOT"), ok());
    }
    cluster.run_for(Duration::from_secs(2));
}

#[test]
fn a_link_that_is_cut_and_slow_delays_a_snapshot_and_no_heartbeat() {
    let (mut cluster, leader, follower) = left_behind(7);
    let term = cluster.node(leader).expect("alive").status().current_term;
    // 1. Some hundred KiB through a link of 400 KiB a second, which is cut again and again.
    cluster.strike(raftkv::sim::script::Kind::Slow, leader.0, follower.0, 400);
    cluster.start(follower);
    for _ in 0..4 {
        cluster.run_for(Duration::from_millis(250));
        cluster.strike(raftkv::sim::script::Kind::Reset, leader.0, follower.0, 0);
    }
    // 2. It arrives, and nobody took the leader for dead meanwhile.
    cluster.converge(MINUTE);
    assert_eq!(cluster.struck("snapshot-received"), 1);
    let status = cluster.node(leader).expect("alive").status();
    assert_eq!((status.leader, status.current_term), (Some(leader), term));
    assert_same_state(&cluster);
}

#[test]
fn a_link_slower_than_a_piece_in_a_heartbeat_carries_a_snapshot() {
    for kib_per_s in [50, 20] {
        let (mut cluster, leader, follower) = left_behind(7);
        let term = cluster.node(leader).expect("alive").status().current_term;
        cluster.strike(raftkv::sim::script::Kind::Slow, leader.0, follower.0, kib_per_s);
        cluster.start(follower);
        // 1. It takes the time that the link takes, and a little more.
        let (_, bytes) = cluster.node(leader).expect("alive").status().snapshot.expect("taken");
        assert!(bytes > 200_000, "{bytes}");
        let started = cluster.now();
        cluster.converge(2 * Duration::from_secs(bytes / (kib_per_s * 1024)));
        let took = cluster.now().since(started);
        assert!(took > Duration::from_secs(bytes / (kib_per_s * 1024)), "not so slow: {took:?}");
        assert_eq!(cluster.struck("snapshot-received"), 1);
        // 2. Nobody took the leader for dead meanwhile, nor did who received it.
        let status = cluster.node(leader).expect("alive").status();
        assert_eq!((status.leader, status.current_term), (Some(leader), term));
        assert_same_state(&cluster);
    }
}

#[test]
fn a_damaged_snapshot_is_refused_and_a_new_one_is_sent() {
    let (mut cluster, leader) = founded(calm(3), 4);
    let follower = follower_of(&cluster, leader);
    cluster.kill(follower);
    load(&mut cluster, leader, 0, 300);
    let others = cluster.alive();
    take_snapshots(&mut cluster, &others);
    restart(&mut cluster, &others);
    cluster.converge(MINUTE);
    for id in &others {
        cluster.damage_snapshot(*id);
    }
    cluster.start(follower);
    cluster.converge(MINUTE);
    assert_eq!(cluster.struck("snapshot-received"), 1);
    assert_same_state(&cluster);
    let Value::Bulk(info) = cluster.call(follower, "RAFT INFO") else {
        panic!("RAFT INFO is a text");
    };
    let info = String::from_utf8_lossy(&info).into_owned();
    assert!(!info.contains("raft_bad_snapshots:0\r\n"), "{info}");
}

#[test]
fn commands_are_refused_while_the_state_is_loaded() {
    // A slow machine, and a state of some pieces.
    let (mut cluster, leader) = founded(Settings { turn_us: 2000, ..calm(1) }, 5);
    let value = "v".repeat(60_000);
    for number in 0..60 {
        assert_eq!(cluster.call(leader, &format!("SET key{number} {value}")), ok());
    }
    // The snapshot that the last ones made due is taken, and then one of everything.
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(cluster.call(leader, "RAFT SNAPSHOT"), ok());
    cluster.run_for(Duration::from_secs(2));
    cluster.kill(leader);
    cluster.start(leader);
    let client = cluster.connect(leader);
    cluster.send(client, &["PING", "GET key1", "SET a 1", "RAFT HEALTH"]);
    let mut replies = Vec::new();
    while replies.len() < 4 {
        cluster.step();
        replies.extend(cluster.replies(client));
    }
    let loading = |reply: &Value| matches!(reply, Value::Error(text) if text.starts_with("LOADING raftkv is loading the dataset in memory ("));
    assert_eq!(replies[0], Value::Simple("PONG".to_owned()));
    assert!(replies[1..].iter().all(loading) && replies.len() == 4, "{replies:?}");
    cluster.run_until(MINUTE, "it leads again", |cluster| cluster.leader().is_some());
    cluster.converge(MINUTE);
    assert_eq!(cluster.call(leader, "DBSIZE"), Value::Integer(60));
}

#[test]
fn raft_snapshot_takes_one_now() {
    let (mut cluster, leader) = founded(calm(3), 6);
    assert_eq!(cluster.call(leader, "SET a 1"), ok());
    assert_eq!(cluster.call(leader, "RAFT SNAPSHOT"), ok());
    cluster.run_for(Duration::from_millis(100));
    let index = snapshot_index(&cluster, leader);
    assert_eq!(index, cluster.node(leader).expect("alive").status().last_applied);
    // Nothing new: nothing to take.
    assert_eq!(cluster.call(leader, "RAFT SNAPSHOT"), ok());
    cluster.run_for(Duration::from_millis(100));
    assert_eq!(cluster.struck("snapshot-taken"), 1);
}

/// Overwrites the keys of [`load`] through `leader` for so long, a batch every few milliseconds, and
/// asks for a snapshot about each second; ends early once `done`. Whether it was.
fn write_steadily(
    cluster: &mut Cluster,
    leader: ServerId,
    duration: Duration,
    done: impl Fn(&Cluster) -> bool,
) -> bool {
    let client = cluster.connect(leader);
    let value = "w".repeat(100);
    let end = cluster.now().after(duration);
    let mut number = 0;
    while cluster.now() < end && !done(cluster) {
        cluster.send(client, &[&format!("SET key{:05} {value}", number * 7919 % 2000)]);
        number += 1;
        if number % 160 == 0 {
            cluster.send(client, &["RAFT SNAPSHOT"]);
        }
        cluster.run_for(Duration::from_millis(6));
        cluster.replies(client);
    }
    done(cluster)
}

#[test]
fn a_follower_on_a_slow_link_catches_up_under_steady_writes() {
    let (mut cluster, leader, follower) = left_behind(8);
    // 1. The state takes some seconds through the link; a new snapshot is asked for each second.
    let taken = cluster.struck("snapshot-taken");
    assert!(!write_steadily(&mut cluster, leader, Duration::from_secs(5), |_| false));
    assert!(cluster.struck("snapshot-taken") >= taken + 4, "{}", cluster.struck("snapshot-taken"));
    let (_, bytes) = cluster.node(leader).expect("alive").status().snapshot.expect("taken");
    assert!(bytes > 200_000, "{bytes}");
    cluster.strike(raftkv::sim::script::Kind::Slow, leader.0, follower.0, 100);
    cluster.start(follower);
    // 2. It is sent one snapshot, and the log behind it, while the writes go on.
    let before = cluster.struck("snapshot-received");
    let caught_up = |cluster: &Cluster| {
        let of = |id| cluster.node(id).map(|node| node.status());
        let (Some(leader), Some(follower)) = (of(leader), of(follower)) else { return false };
        follower.last_applied.0 + 20 >= leader.last_log_index.0 && follower.last_applied.0 > 2000
    };
    let minute = Duration::from_secs(60);
    assert!(write_steadily(&mut cluster, leader, minute, caught_up), "convergence: it caught up");
    assert_eq!(cluster.struck("snapshot-received"), before + 1, "one was enough");
    // 3. What stayed for it goes.
    write_steadily(&mut cluster, leader, Duration::from_secs(5), |_| false);
    let status = cluster.node(leader).expect("alive").status();
    let kept = status.last_log_index.0 - status.first_log_index.0;
    assert!(kept < 1000, "{kept} entries");
    cluster.converge(MINUTE);
    assert_same_state(&cluster);
}

#[test]
fn a_snapshot_that_finds_no_space_at_its_first_byte_is_tried_again() {
    use raftkv::sim::script::Kind;

    let (mut cluster, leader) = founded(calm(3), 9);
    load(&mut cluster, leader, 0, 10);
    // 1. Not even a name fits: the node is told, although nothing was ever written.
    cluster.strike(Kind::Full, leader.0, 0, 0);
    assert_eq!(cluster.call(leader, "RAFT SNAPSHOT"), ok());
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.struck("snapshot-without-space"), 1);
    assert_eq!(snapshot_index(&cluster, leader), LogIndex(0));
    // 2. It tries again, and once there is space it succeeds.
    cluster.strike(Kind::Space, leader.0, 0, 0);
    cluster.run_for(raftkv::limits::SNAPSHOT_RETRY + Duration::from_secs(1));
    assert!(snapshot_index(&cluster, leader) > LogIndex(5));
}

#[test]
fn flushall_gives_memory_back_in_turns_of_their_own() {
    // A slow machine, so that the reply comes before the last turn.
    let (mut cluster, leader) = founded(Settings { turn_us: 2000, snapshot_kib: 0, ..calm(1) }, 10);
    let per_command = 2000;
    let keys = 5 * per_command;
    // So long that each is given back by itself: short ones go with many others.
    let value = "v".repeat(2100);
    for first in (0..keys).step_by(per_command) {
        let pair = |number: usize| format!(" key{number:06} {value}");
        let pairs: String = (first..first + per_command).map(pair).collect();
        assert_eq!(cluster.call(leader, &format!("MSET{pairs}")), ok());
    }
    // It is done in a turn; most of what it took is given back in the next ones, without anybody
    // having to come.
    let client = cluster.connect(leader);
    cluster.send(client, &["FLUSHALL"]);
    cluster.run_until(Duration::from_secs(5), "the store is empty", |cluster| {
        cluster.node(leader).expect("alive").machine().store().is_empty()
    });
    assert!(cluster.node(leader).expect("alive").machine().has_graveyard());
    cluster.run_until(Duration::from_secs(1), "all is given back", |cluster| {
        !cluster.node(leader).expect("alive").machine().has_graveyard()
    });
    assert_eq!(cluster.call(leader, "DBSIZE"), Value::Integer(0));
}
