//! Snapshots in a cluster of real nodes in memory: taken under load, installed on who lags, loaded
//! after a kill; also in bad weather. The seeds are drawn anew by `SIM_SEEDS=from..to`.

mod memory;

use std::time::Duration;

use memory::{Cluster, Weather};
use raftkv::config::{Config, NodeConfig, Overrides};
use raftkv::proto::reply::Reply;
use raftkv::types::{ClientId, LogIndex, ServerId};

const MINUTE: Duration = Duration::from_secs(60);

/// So many bytes of log make a snapshot due: some fifty small batches.
const SNAPSHOT_LOG_BYTES: u64 = 8 * 1024;

fn founded(count: u64, seed: u64) -> (Cluster, ServerId) {
    let mut config = Config::single(&Overrides::default()).expect("the defaults are sound");
    config.cluster.nodes = (1..=count)
        .map(|id| NodeConfig {
            id: ServerId(id),
            peer: format!("10.0.0.{id}:7201"),
            client: format!("10.0.0.{id}:7101"),
            http: None,
        })
        .collect();
    config.storage.snapshot_log_bytes = SNAPSHOT_LOG_BYTES;
    let mut cluster = Cluster::with_config(config, seed);
    cluster.run_until(Duration::from_secs(2), "the first leader", |c| c.leader().is_some());
    let leader = cluster.leader().expect("just seen");
    cluster.converge(Duration::from_secs(2));
    (cluster, leader)
}

/// Writes `count` keys through one server, each in a batch of its own.
fn load(cluster: &mut Cluster, id: ServerId, from: u64, count: u64) {
    let client = cluster.connect(id);
    let value = "v".repeat(100);
    for number in from..from + count {
        cluster.send(id, client, &[&format!("SET key{number:05} {value}{number}")]);
        cluster.run_for(Duration::from_micros(200));
    }
    let mut done = 0;
    let deadline = cluster.now.after(MINUTE);
    while done < count {
        assert!(cluster.now < deadline, "convergence: {done} of {count} writes are done");
        cluster.step();
        for reply in cluster.replies(id, client) {
            assert_eq!(reply, Reply::OK);
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

#[test]
fn every_server_takes_snapshots_under_load_and_its_log_stays_short() {
    let (mut cluster, leader) = founded(3, 1);
    load(&mut cluster, leader, 0, 1000);
    cluster.converge(MINUTE);
    for id in cluster.ids() {
        assert!(snapshot_index(&cluster, id) > LogIndex(800), "{id}");
        assert!(cluster.disk(id).finished[0] >= 5, "{id}");
        assert!(cluster.disk(id).log_entries() < 400, "{id}: {}", cluster.disk(id).log_entries());
    }
    assert_same_state(&cluster);
}

#[test]
fn a_restart_loads_the_snapshot_and_the_log_behind_it() {
    let (mut cluster, leader) = founded(3, 2);
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
        assert_eq!(cluster.call(id, "DBSIZE"), Reply::Integer(300));
    }
}

#[test]
fn a_follower_that_was_away_is_brought_up_to_date_by_a_snapshot() {
    for seed in 0..10 {
        let (mut cluster, leader) = founded(3, seed);
        load(&mut cluster, leader, 0, 50);
        let follower = follower_of(&cluster, leader);
        cluster.kill(follower);
        // 1. The others compact past it. A tail in memory would do for it, so they start anew.
        load(&mut cluster, leader, 50, 300);
        let others: Vec<ServerId> = cluster.alive();
        for id in &others {
            cluster.kill(*id);
        }
        for id in &others {
            cluster.start(*id);
        }
        cluster.run_until(MINUTE, "a leader", |cluster| cluster.leader().is_some());

        // 2. It comes back, and is sent a snapshot while writes go on.
        cluster.start(follower);
        let leader = cluster.leader().expect("just seen");
        load(&mut cluster, leader, 350, 100);
        cluster.converge(MINUTE);
        assert_eq!(cluster.disk(follower).finished[1], 1, "seed {seed}: it was installed");
        assert_same_state(&cluster);

        // 3. It serves like any other, and so it does after a restart.
        assert_eq!(cluster.call(follower, "DBSIZE"), Reply::Integer(450), "seed {seed}");
        cluster.kill(follower);
        cluster.start(follower);
        cluster.converge(MINUTE);
        assert_same_state(&cluster);
    }
}

#[test]
fn a_damaged_snapshot_is_refused_and_a_new_one_is_sent() {
    let (mut cluster, leader) = founded(3, 4);
    let follower = follower_of(&cluster, leader);
    cluster.kill(follower);
    load(&mut cluster, leader, 0, 300);
    let others: Vec<ServerId> = cluster.alive();
    for id in &others {
        cluster.kill(*id);
    }
    for id in &others {
        cluster.start(*id);
    }
    cluster.run_until(MINUTE, "a leader", |cluster| cluster.leader().is_some());
    cluster.run_until(MINUTE, "all is loaded", |cluster| {
        let loads = |id: &ServerId| cluster.node(*id).expect("alive").status().loading_percent;
        cluster.alive().iter().all(|id| loads(id).is_none())
    });
    for id in &others {
        cluster.disk(*id).damage_snapshot();
    }
    cluster.start(follower);
    cluster.converge(MINUTE);
    assert_eq!(cluster.disk(follower).finished[1], 1);
    assert_same_state(&cluster);
    let Reply::Text(info) = cluster.call(follower, "RAFT INFO") else {
        panic!("RAFT INFO is a text");
    };
    let info = String::from_utf8_lossy(&info).into_owned();
    assert!(!info.contains("raft_bad_snapshots:0\r\n"), "{info}");
}

#[test]
fn commands_are_refused_while_the_state_is_loaded() {
    let (mut cluster, leader) = founded(1, 5);
    load(&mut cluster, leader, 0, 3000);
    cluster.kill(leader);
    cluster.start(leader);
    let client = cluster.connect(leader);
    cluster.send(leader, client, &["PING", "GET key00001", "SET a 1", "RAFT HEALTH"]);
    cluster.step();
    let replies = cluster.replies(leader, client);
    let loading = |reply: &Reply| matches!(reply, Reply::Error(text) if text.starts_with("LOADING raftkv is loading the dataset in memory ("));
    assert_eq!(replies[0], Reply::Simple("PONG"));
    assert!(replies[1..].iter().all(loading) && replies.len() == 4, "{replies:?}");
    cluster.converge(MINUTE);
    assert_eq!(cluster.call(leader, "DBSIZE"), Reply::Integer(3000));
}

#[test]
fn raft_snapshot_takes_one_now() {
    let (mut cluster, leader) = founded(3, 6);
    assert_eq!(cluster.call(leader, "SET a 1"), Reply::OK);
    assert_eq!(cluster.call(leader, "RAFT SNAPSHOT"), Reply::OK);
    cluster.run_for(Duration::from_millis(100));
    let index = snapshot_index(&cluster, leader);
    assert_eq!(index, cluster.node(leader).expect("alive").status().last_applied);
    // Nothing new: nothing to take.
    assert_eq!(cluster.call(leader, "RAFT SNAPSHOT"), Reply::OK);
    cluster.run_for(Duration::from_millis(100));
    assert_eq!(cluster.disk(leader).finished[0], 1);
}

/// One client's increments of its own counter: how many were answered, and how many are in doubt.
struct Counter {
    server: ServerId,
    client: ClientId,
    key: String,
    sent: i64,
    /// The last number that it was told.
    told: i64,
    in_doubt: i64,
}

impl Counter {
    fn take(&mut self, cluster: &mut Cluster) {
        for reply in cluster.replies(self.server, self.client) {
            match reply {
                Reply::Integer(number) => {
                    let most = self.told + 1 + self.in_doubt;
                    let range = self.told + 1..=most;
                    assert!(range.contains(&number), "exactly-once: {number}, not in {range:?}");
                    self.in_doubt -= number - self.told - 1;
                    self.told = number;
                }
                Reply::Error(text) if text.starts_with("INDOUBT") => self.in_doubt += 1,
                Reply::Error(text) => {
                    let is_refusal = text.starts_with("CLUSTERDOWN") || text.starts_with("LOADING");
                    assert!(is_refusal, "{text}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn increments_are_exactly_once_through_kills_cuts_and_installs() {
    let seeds = std::env::var("SIM_SEEDS").ok().and_then(|range| {
        let (from, to) = range.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    let mut installed = 0;
    for seed in seeds.unwrap_or(0..25u64) {
        installed += storm(seed);
    }
    assert!(installed > 5, "snapshots were installed in some of them: {installed}");
}

/// Runs one seed; how many snapshots were installed.
fn storm(seed: u64) -> u32 {
    let (mut cluster, _) = founded(3, seed);
    cluster.weather = Weather::storm();
    let mut counters: Vec<Counter> = Vec::new();
    let mut down: Option<ServerId> = None;
    for round in 0..60 {
        // 1. Somebody dies, comes back, or is cut off.
        match (cluster.draw(6), down) {
            (0..=1, None) => {
                let id = ServerId(1 + cluster.draw(3));
                counters.retain(|counter| counter.server != id);
                cluster.kill(id);
                down = Some(id);
            }
            (0..=1, Some(id)) => {
                cluster.start(id);
                down = None;
            }
            (2, _) => {
                let (a, b) = (ServerId(1 + cluster.draw(3)), ServerId(1 + cluster.draw(3)));
                if a != b {
                    cluster.cut(a, b);
                }
            }
            (3, _) => cluster.heal(),
            (4, None) if round % 3 == 0 => {
                // Everybody's memory of the log's beginning is lost with them.
                counters.clear();
                for id in cluster.ids() {
                    cluster.kill(id);
                }
                for id in cluster.ids().into_iter().skip(cluster.draw(2) as usize) {
                    cluster.start(id);
                }
                down = Some(ServerId(1)).filter(|id| cluster.node(*id).is_none());
            }
            _ => {}
        }
        // 2. Clients come, and count.
        let alive = cluster.alive();
        let server = alive[cluster.draw(alive.len() as u64) as usize];
        let client = cluster.connect(server);
        let key = format!("counter{round}");
        counters.push(Counter { server, client, key, sent: 0, told: 0, in_doubt: 0 });
        for counter in &mut counters {
            let line = format!("INCR {}", counter.key);
            cluster.send(counter.server, counter.client, &[&line, &line]);
            counter.sent += 2;
        }
        cluster.run_for(Duration::from_millis(300));
        for counter in &mut counters {
            counter.take(&mut cluster);
        }
    }
    // 3. Fine weather: everyone agrees.
    cluster.weather = Weather::calm();
    cluster.heal();
    if let Some(id) = down {
        cluster.start(id);
    }
    cluster.run_until(MINUTE, "a leader", |cluster| cluster.leader().is_some());
    cluster.run_for(Duration::from_secs(10));
    cluster.converge(MINUTE);
    for counter in &mut counters {
        counter.take(&mut cluster);
    }
    assert_same_state(&cluster);
    for counter in &counters {
        let value = cluster.call(counter.server, &format!("GET {}", counter.key));
        let Reply::Bulk(text) = value else { continue };
        let count: i64 = String::from_utf8_lossy(&text).parse().expect("a number");
        let range = counter.told..=counter.told + counter.in_doubt;
        assert!(
            range.contains(&count),
            "exactly-once: {} is {count}, not in {range:?}",
            counter.key
        );
    }
    cluster.ids().into_iter().map(|id| cluster.disk(id).finished[1]).sum()
}
