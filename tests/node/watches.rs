//! KWATCH on a cluster in memory: every change in order, on whichever node, through fail-overs and
//! installed snapshots; nothing missed and nothing told twice.

use std::time::Duration;

use raftkv::kv::history::ChangeKind;
use raftkv::proto::reply_decoder::Value;
use raftkv::sim::script::Settings;
use raftkv::sim::{Cluster, Connection};
use raftkv::types::{Revision, ServerId};

use super::values::{bulk, founded_with as founded};

fn calm() -> Settings {
    Settings { nodes: 3, ..Cluster::calm() }
}

/// A message to a watcher: event, revision, and what follows as text.
type Told = (String, u64, Vec<String>);

fn text(value: &Value) -> String {
    match value {
        Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Integer(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

fn message(value: Value) -> Told {
    let (Value::Array(words) | Value::Push(words)) = value else { panic!("{value:?}") };
    let words: Vec<String> = words.iter().map(text).collect();
    assert_eq!(words[0], "kwatch");
    (words[2].clone(), words[3].parse().unwrap(), words[4..].to_vec())
}

/// Everything that a connection was told, marks left out.
fn told(cluster: &mut Cluster, connection: Connection) -> Vec<Told> {
    let messages = cluster.replies(connection).into_iter().map(message);
    messages.filter(|(event, ..)| event != "progress").collect()
}

/// Begins a watch and returns the revision that it begins behind.
fn watch(cluster: &mut Cluster, id: ServerId, line: &str) -> (Connection, Value) {
    let connection = cluster.connect(id);
    cluster.send(connection, &[line]);
    cluster.run_for(Duration::from_millis(20));
    let mut replies = cluster.replies(connection);
    assert!(!replies.is_empty(), "'{line}' is answered at once");
    let first = replies.remove(0);
    assert!(replies.is_empty() || line.contains("FROM"), "{replies:?}");
    (connection, first)
}

/// What a node's history has behind a revision, as a watcher of everything is told it.
fn history(cluster: &Cluster, id: ServerId, from: u64) -> Vec<Told> {
    let history = cluster.node(id).expect("it runs").machine().store().history();
    let mut position = history.behind_revision(Revision(from)).expect("it reaches back so far");
    let mut all = Vec::new();
    while let Some(change) = history.next(&mut position) {
        let event = match (change.kind, change.deadline) {
            (ChangeKind::Set, _) => "set",
            (ChangeKind::Appended, _) => "append",
            (ChangeKind::Deadline, Some(_)) => "expire",
            (ChangeKind::Deadline, None) => "persist",
            (ChangeKind::Deleted, _) => "del",
            (ChangeKind::Expired, _) => "expired",
            (ChangeKind::Cleared, _) => "clear",
            (ChangeKind::Message, _) => continue,
        };
        let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut words = Vec::new();
        if change.kind != ChangeKind::Cleared {
            words.push(string(change.key));
        }
        if matches!(change.kind, ChangeKind::Set | ChangeKind::Appended) {
            words.push(string(change.value));
        }
        words.extend(change.deadline.map(|time| time.0.to_string()));
        all.push((event.to_owned(), change.revision.0, words));
    }
    all
}

#[test]
fn kwatch_tells_every_kind_of_change_in_order_on_every_node() {
    let (mut cluster, leader) = founded(1, calm());
    let watchers: Vec<_> =
        cluster.ids().into_iter().map(|id| watch(&mut cluster, id, "KWATCH a")).collect();
    for (_, answer) in &watchers {
        assert_eq!(*answer, Value::Integer(0));
    }
    for line in [
        "SET a 1",
        "SET b 1",
        "APPEND a 2",
        "MSET a1 x b1 x a2 y",
        "SET a5 v PX 100",
        "PEXPIRE a1 100000",
        "PERSIST a1",
        "DEL a2 b1",
        "RENAME a3 a4",
    ] {
        cluster.call(leader, line);
    }
    cluster.run_for(Duration::from_millis(500));
    cluster.call(leader, "FLUSHALL");
    cluster.run_for(Duration::from_millis(100));
    for (connection, _) in watchers {
        let mut told = told(&mut cluster, connection);
        // Deadlines are times of the cluster's clock.
        for (event, _, words) in &mut told {
            if event == "expire" || words.first().is_some_and(|key| key == "a5") {
                let fields = if event == "set" { 2 } else { 1 };
                words.truncate(fields);
            }
        }
        let expected = [
            ("set", 1, &["a", "1"][..]),
            ("append", 3, &["a", "2"]),
            ("set", 4, &["a1", "x"]),
            ("set", 6, &["a2", "y"]),
            ("set", 7, &["a5", "v"]),
            ("expire", 8, &["a1"]),
            ("persist", 9, &["a1"]),
            ("del", 10, &["a2"]),
            ("expired", 12, &["a5"]),
            ("clear", 13, &[]),
        ];
        let expected: Vec<Told> = expected
            .into_iter()
            .map(|(event, revision, words)| {
                let words = words.iter().map(|word| (*word).to_owned()).collect();
                (event.to_owned(), revision, words)
            })
            .collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn kwatch_speaks_the_connections_protocol_and_keeps_replies_apart() {
    let (mut cluster, leader) = founded(2, calm());
    let connection = cluster.connect(leader);
    cluster.send(connection, &["HELLO 3", "KWATCH k", "SET k 1", "GET k"]);
    cluster.run_for(Duration::from_millis(200));
    let replies = cluster.replies(connection);
    let push =
        vec![bulk("kwatch"), bulk("k"), bulk("set"), Value::Integer(1), bulk("k"), bulk("1")];
    // What was asked is answered first; the change to what was read comes behind it.
    assert_eq!(
        replies[1..],
        [Value::Integer(0), Value::Simple("OK".to_owned()), bulk("1"), Value::Push(push)]
    );
    // It may not be part of a transaction, and ends when it is told to.
    cluster
        .send(connection, &["MULTI", "KWATCH k", "DISCARD", "KUNWATCH k", "KUNWATCH", "SET k 2"]);
    cluster.run_for(Duration::from_millis(200));
    let replies = cluster.replies(connection);
    assert!(matches!(&replies[1], Value::Error(text) if text.contains("not allowed")));
    let ok = Value::Simple("OK".to_owned());
    assert_eq!(replies[2..], [ok.clone(), Value::Integer(1), Value::Integer(0), ok]);
}

#[test]
fn kwatch_from_tells_what_was_before_and_nothing_twice() {
    let (mut cluster, leader) = founded(3, calm());
    for number in 1..=20 {
        cluster.call(leader, &format!("SET k{number} v"));
    }
    cluster.converge(Duration::from_secs(1));
    for id in cluster.ids() {
        for from in [0, 1, 7, 19, 20] {
            let (connection, answer) = watch(&mut cluster, id, &format!("KWATCH k FROM {from}"));
            assert_eq!(answer, Value::Integer(from));
            // `watch` has dropped what came with the answer: nothing comes again.
            cluster.run_for(Duration::from_millis(20));
            assert_eq!(told(&mut cluster, connection), []);
        }
        // All of it, in one piece.
        let connection = cluster.connect(id);
        cluster.send(connection, &["KWATCH k FROM 7"]);
        cluster.run_for(Duration::from_millis(20));
        let replies = cluster.replies(connection);
        let whole: Vec<Told> = replies.into_iter().skip(1).map(message).collect();
        assert_eq!(whole, history(&cluster, id, 7));
        // A revision that this node hasn't reached: what another node has told isn't told again.
        let ahead = cluster.node(leader).unwrap().machine().store().revision().0 + 2;
        let (connection, _) = watch(&mut cluster, id, &format!("KWATCH k FROM {ahead}"));
        for _ in 0..4 {
            cluster.call(leader, "SET k-more v");
        }
        cluster.run_for(Duration::from_millis(50));
        let told = told(&mut cluster, connection);
        let revisions: Vec<u64> = told.iter().map(|(_, revision, _)| *revision).collect();
        assert_eq!(revisions, [ahead + 1, ahead + 2], "{id}");
    }
}

#[test]
fn idle_watchers_are_told_how_far_they_are() {
    let (mut cluster, leader) = founded(4, calm());
    let (connection, _) = watch(&mut cluster, leader, "KWATCH other");
    cluster.call(leader, "SET k v");
    cluster.run_for(Duration::from_secs(6));
    let marks: Vec<Told> = cluster.replies(connection).into_iter().map(message).collect();
    assert_eq!(marks, [("progress".to_owned(), 1, Vec::new())]);
}

/// Writes that differ, so that a change that is missed or told twice shows.
fn write(cluster: &mut Cluster, writers: &[Connection], number: u64) {
    let writer = writers[(number % writers.len() as u64) as usize];
    let lines = match number % 5 {
        0 => vec![format!("APPEND journal {number};")],
        1 => vec![format!("MSET a{} {number} b {number}", number % 7)],
        2 => vec![format!("SET a{} {number} PX 50", number % 7)],
        3 => vec![format!("DEL a{}", number % 7), format!("INCR counter")],
        _ => vec!["MULTI".to_owned(), format!("SET c {number}"), "DEL b".into(), "EXEC".into()],
    };
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    cluster.send(writer, &lines);
}

/// A watcher that goes from node to node and remembers how far it was told.
struct Wanderer {
    connection: Option<(Connection, ServerId)>,
    last: u64,
    told: Vec<Told>,
    compacted: u32,
}

impl Wanderer {
    fn new() -> Wanderer {
        Wanderer { connection: None, last: 0, told: Vec::new(), compacted: 0 }
    }

    fn listen(&mut self, cluster: &mut Cluster) {
        let Some((connection, _)) = self.connection else { return };
        for value in cluster.replies(connection) {
            match value {
                Value::Integer(from) => assert_eq!(from as u64, self.last),
                Value::Error(text) => {
                    let known = text.starts_with("COMPACTED") || text.starts_with("LOADING");
                    assert!(known, "{text}");
                    self.compacted += u32::from(text.starts_with("COMPACTED"));
                    self.connection = None;
                    return;
                }
                value => {
                    let (event, revision, words) = message(value);
                    if event == "compacted" {
                        assert!(revision > self.last, "nothing is gone that was not told");
                        self.compacted += 1;
                        self.connection = None;
                        return;
                    }
                    assert!(revision >= self.last, "{event} {revision} behind {}", self.last);
                    if event != "progress" {
                        assert!(revision > self.last, "told twice: {event} {revision}");
                        self.told.push((event, revision, words));
                    }
                    self.last = revision;
                }
            }
        }
    }

    fn go_to(&mut self, cluster: &mut Cluster, id: ServerId) {
        let connection = cluster.connect(id);
        cluster.send(connection, &[&format!("KWATCH  FROM {}", self.last)]);
        self.connection = Some((connection, id));
    }
}

#[test]
fn watchers_that_go_from_node_to_node_miss_nothing_and_are_told_nothing_twice() {
    for seed in 10..16 {
        let (mut cluster, _) = founded(seed, calm());
        let mut wanderers: Vec<Wanderer> = (0..6).map(|_| Wanderer::new()).collect();
        let mut number = 0;
        for round in 0..6 {
            // 1. Everyone who watches nothing goes somewhere; others move on for no reason.
            let alive = cluster.alive();
            for wanderer in &mut wanderers {
                if wanderer.connection.is_none() || cluster.draw(3) == 0 {
                    wanderer.listen(&mut cluster);
                    let id = alive[cluster.draw(alive.len() as u64) as usize];
                    wanderer.go_to(&mut cluster, id);
                }
            }
            // 2. Writes by clients of a node that stays.
            let victim = match round % 3 {
                0 => cluster.leader().unwrap_or(alive[0]),
                _ => alive[cluster.draw(alive.len() as u64) as usize],
            };
            let stays = *alive.iter().find(|id| **id != victim).expect("three are alive");
            let writers: Vec<Connection> = (0..3).map(|_| cluster.connect(stays)).collect();
            for step in 0..40 {
                number += 1;
                write(&mut cluster, &writers, number);
                cluster.run_for(Duration::from_millis(5));
                // 3. In the middle of it a node dies, the leader every third time.
                if step == 15 {
                    cluster.kill(victim);
                    for wanderer in &mut wanderers {
                        if wanderer.connection.is_some_and(|(_, id)| id == victim) {
                            wanderer.listen(&mut cluster);
                            wanderer.connection = None;
                            wanderer.go_to(&mut cluster, stays);
                        }
                    }
                }
                for wanderer in &mut wanderers {
                    wanderer.listen(&mut cluster);
                }
            }
            cluster.start(victim);
            cluster.run_for(Duration::from_secs(1));
            cluster.converge(Duration::from_secs(5));
        }
        // 4. The end: each was told exactly what has happened.
        cluster.run_for(Duration::from_secs(1));
        let id = cluster.alive()[0];
        let all = history(&cluster, id, 0);
        assert!(all.len() > 200, "{} changes", all.len());
        for wanderer in &mut wanderers {
            wanderer.listen(&mut cluster);
            assert_eq!((wanderer.compacted, &wanderer.told), (0, &all), "seed {seed}");
        }
    }
}

#[test]
fn a_node_that_installs_a_snapshot_ends_its_watches_and_others_go_on() {
    const KIB: u64 = 64;
    let settings = Settings { snapshot_kib: KIB, segment_kib: 64, ..calm() };
    let (mut cluster, leader) = founded(20, settings);
    let cut = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
    let other = cluster.ids().into_iter().find(|id| *id != leader && *id != cut).expect("three");
    let (whole, _) = watch(&mut cluster, other, "KWATCH a");
    cluster.call(leader, "SET a 0");
    cluster.converge(Duration::from_secs(1));
    let (behind, _) = watch(&mut cluster, cut, "KWATCH a");
    // 1. A node is away while so much is written that it will be sent a snapshot.
    for id in cluster.ids() {
        if id != cut {
            cluster.cut(id, cut);
        }
    }
    let value = "v".repeat(4096);
    for number in 0..200 {
        cluster.call(leader, &format!("SET a{number} {value}"));
    }
    cluster.run_for(Duration::from_secs(3));
    cluster.heal();
    cluster.converge(Duration::from_secs(20));
    let floor = |c: &Cluster| c.node(cut).unwrap().machine().store().history().floor().0;
    cluster.run_until(Duration::from_secs(20), "a snapshot is installed", |c| floor(c) > 1);
    // 2. Its watchers are told that they have missed something, and nothing behind it.
    cluster.call(leader, "SET a-last v");
    cluster.run_for(Duration::from_millis(200));
    let floor = floor(&cluster);
    let end = told(&mut cluster, behind);
    assert_eq!(end, [("compacted".to_owned(), floor, Vec::new())]);
    // 3. There a watch can't begin before the snapshot, and begins behind it.
    let (_, refused) = watch(&mut cluster, cut, &format!("KWATCH a FROM {}", floor - 1));
    assert!(
        matches!(&refused, Value::Error(text) if text.starts_with("COMPACTED ")),
        "{refused:?}"
    );
    let (_, answer) = watch(&mut cluster, cut, &format!("KWATCH a FROM {floor}"));
    assert_eq!(answer, Value::Integer(floor as i64));
    // 4. Who watched elsewhere was told all of it.
    let all = told(&mut cluster, whole);
    assert_eq!(all, history(&cluster, other, 0));
    assert_eq!(all.len(), 202);
}

#[test]
fn who_has_left_refuses_watches() {
    let (mut cluster, leader) = founded(9, calm());
    let left = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
    assert_eq!(cluster.call(left, "KWATCH a"), Value::Integer(0));
    assert_eq!(cluster.call(leader, &format!("RAFT REMOVE {left}")), Value::Simple("OK".into()));
    cluster.run_for(Duration::from_secs(2));
    let Value::Error(text) = cluster.call(left, "KWATCH a") else { panic!("it watches") };
    assert_eq!(text, "CLUSTERDOWN this node was removed from the cluster");
}
