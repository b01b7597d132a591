//! CLIENT TRACKING on a cluster in memory: whoever keeps what it has read is told when it changes,
//! on whichever node, through fail-overs; in all of its modes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raftkv::limits;
use raftkv::proto::reply_decoder::Value;
use raftkv::sim::script::Settings;
use raftkv::sim::{Cluster, Connection};
use raftkv::types::ServerId;

use super::values::{bulk, founded_with as founded, ok};

fn invalid(keys: &[&str]) -> Value {
    let keys = keys.iter().map(|key| bulk(key)).collect();
    Value::Push(vec![bulk("invalidate"), Value::Array(keys)])
}

fn calm() -> Settings {
    Settings { nodes: 3, ..Cluster::calm() }
}

/// Sends all lines at once and takes all that comes within a moment.
fn say(cluster: &mut Cluster, connection: Connection, lines: &[&str]) -> Vec<Value> {
    cluster.send(connection, lines);
    cluster.run_for(Duration::from_millis(100));
    cluster.replies(connection)
}

/// A client that tracks, of that server.
fn tracking(cluster: &mut Cluster, id: ServerId, words: &str) -> Connection {
    let client = cluster.connect(id);
    let line = format!("CLIENT TRACKING ON {words}");
    let replies = say(cluster, client, &["HELLO 3", line.trim_end()]);
    assert_eq!(replies[1], ok());
    client
}

#[test]
fn what_was_read_is_invalidated_once_by_whoever_changes_it() {
    let (mut cluster, leader) = founded(1, calm());
    let clients: Vec<Connection> =
        cluster.ids().into_iter().map(|id| tracking(&mut cluster, id, "")).collect();
    for client in &clients {
        let read = say(&mut cluster, *client, &["GET a", "MGET b c", "GETREV d", "SET e 1"]);
        assert_eq!(read.len(), 4);
    }
    cluster.call(leader, "SET a 1");
    cluster.call(leader, "SET a 2");
    cluster.call(leader, "MSET c 1 d 1 e 2");
    cluster.run_for(Duration::from_millis(50));
    for client in &clients {
        // Keys that were only written are not tracked, and nothing is told twice.
        let told: Vec<Value> = cluster.replies(*client);
        let told: Vec<String> = told.iter().map(|value| format!("{value:?}")).collect();
        let expected = [invalid(&["a"]), invalid(&["c", "d"])];
        assert_eq!(told, expected.map(|value| format!("{value:?}")));
        assert_eq!(say(&mut cluster, *client, &["GET a"]), [bulk("2")]);
    }
    // All keys at once; an expiry; and no more once it is off.
    cluster.call(leader, "FLUSHALL");
    cluster.call(leader, "SET x 1 PX 2000");
    for client in &clients {
        let all = Value::Push(vec![bulk("invalidate"), Value::Nil]);
        assert_eq!(say(&mut cluster, *client, &["GET x"]), [all, bulk("1")]);
    }
    cluster.run_for(Duration::from_secs(3));
    for client in &clients {
        assert_eq!(cluster.replies(*client), [invalid(&["x"])]);
        assert_eq!(
            say(&mut cluster, *client, &["GET x", "CLIENT TRACKING OFF"]),
            [Value::Nil, ok()]
        );
    }
    cluster.call(leader, "SET x 2");
    cluster.run_for(Duration::from_millis(50));
    for client in &clients {
        assert_eq!(cluster.replies(*client), []);
    }
}

#[test]
fn reads_in_transactions_are_tracked_and_own_changes_where_wanted_are_not() {
    let (mut cluster, leader) = founded(2, calm());
    let client = tracking(&mut cluster, leader, "NOLOOP");
    say(&mut cluster, client, &["MULTI", "GET a", "GET b", "EXEC"]);
    say(&mut cluster, client, &["MULTI", "GET c", "SET z 1", "EXEC"]);
    say(&mut cluster, client, &["TXN IF MISSING no THEN 2 GET d ELSE 2 GET e"]);
    // 1. Its own change is not told, but the key is not tracked any more.
    assert_eq!(say(&mut cluster, client, &["SET a 1"]), [ok()]);
    for key in ["a", "b", "c", "d", "e", "z"] {
        cluster.call(leader, &format!("SET {key} 2"));
    }
    cluster.run_for(Duration::from_millis(50));
    let expected = ["b", "c", "d", "e"].map(|key| invalid(&[key]));
    assert_eq!(cluster.replies(client), expected);
}

#[test]
fn optin_and_optout_follow_client_caching_command_by_command() {
    let (mut cluster, leader) = founded(3, calm());
    let chooser = tracking(&mut cluster, leader, "OPTIN");
    let lines =
        ["CLIENT CACHING YES", "GET a", "GET b", "CLIENT CACHING YES", "GET c", "SET d 1", "GET e"];
    say(&mut cluster, chooser, &lines);
    let avoider = tracking(&mut cluster, leader, "OPTOUT");
    let lines =
        ["CLIENT CACHING NO", "GET a", "GET b", "CLIENT CACHING NO", "SET d 2", "GET e", "GET c"];
    say(&mut cluster, avoider, &lines);
    for key in ["a", "b", "c", "d", "e"] {
        cluster.call(leader, &format!("SET {key} 3"));
    }
    cluster.run_for(Duration::from_millis(50));
    assert_eq!(cluster.replies(chooser), ["a", "c"].map(|key| invalid(&[key])));
    assert_eq!(cluster.replies(avoider), ["b", "c", "e"].map(|key| invalid(&[key])));
    let refused = say(&mut cluster, chooser, &["CLIENT CACHING NO", "CLIENT TRACKING ON BCAST"]);
    assert!(refused.iter().all(|reply| matches!(reply, Value::Error(_))), "{refused:?}");
}

#[test]
fn broadcasting_tells_prefixes_and_a_redirect_tells_another_connection() {
    let (mut cluster, leader) = founded(4, calm());
    let broad = tracking(&mut cluster, leader, "BCAST PREFIX user: PREFIX item:");
    let other = cluster.connect(leader);
    let id = match &say(&mut cluster, other, &["CLIENT ID"])[..] {
        [Value::Integer(id)] => *id,
        other => panic!("{other:?}"),
    };
    let subscribed = say(&mut cluster, other, &["SUBSCRIBE __redis__:invalidate"]);
    assert_eq!(subscribed.len(), 1);
    let client = cluster.connect(leader);
    let redirected = format!("CLIENT TRACKING ON REDIRECT {id}");
    assert_eq!(say(&mut cluster, client, &[&redirected, "GET k"]), [ok(), Value::Nil]);
    let nobody = say(&mut cluster, client, &["CLIENT TRACKING ON REDIRECT 999999"]);
    assert!(matches!(&nobody[0], Value::Error(text) if text.contains("does not exist")));
    cluster.call(leader, "MSET user:1 a item:1 b k c other d");
    cluster.run_for(Duration::from_millis(50));
    assert_eq!(cluster.replies(broad), [invalid(&["item:1", "user:1"])]);
    let message = ["message", "__redis__:invalidate"].map(bulk);
    let told = message.into_iter().chain([Value::Array(vec![bulk("k")])]).collect();
    assert_eq!(cluster.replies(other), [Value::Array(told)]);
    assert_eq!(cluster.replies(client), []);
}

/// Takes what came: counts nils, and takes the keys that were invalidated out of what is kept.
/// Returns how many those were.
fn forget(cluster: &mut Cluster, client: Connection, kept: &mut BTreeSet<usize>) -> usize {
    let mut told = 0;
    for value in cluster.replies(client) {
        match value {
            Value::Push(words) => {
                let Value::Array(keys) = &words[1] else { panic!("not all of it has changed") };
                for key in keys {
                    let Value::Bulk(key) = key else { panic!("{key:?}") };
                    let number = std::str::from_utf8(key).unwrap().parse::<usize>().unwrap();
                    assert!(kept.remove(&number), "key {number} was told, and is not kept");
                    told += 1;
                }
            }
            Value::Nil | Value::Simple(_) => {}
            other => panic!("{other:?}"),
        }
    }
    told
}

#[test]
fn readers_are_told_of_keys_for_which_the_table_has_no_more_room() {
    const LENGTH: usize = 60_000;
    let name = |number: usize| format!("{number:0>LENGTH$}");
    let (mut cluster, leader) = founded(5, calm());
    let client = tracking(&mut cluster, leader, "");
    let room = limits::TRACKED_BYTES / (LENGTH + limits::WATCH_BYTES);
    let mut kept = BTreeSet::new();
    let mut told = 0;
    // 1. It reads more than the table has room for: the room is made, and it is told of that. It
    //    reads in a turn after the other: what is read beyond the room within one turn has no place
    //    to be remembered in, and whoever reads it is told that all may have changed.
    for number in 0..room + 40 {
        cluster.send(client, &[&format!("GET {}", name(number))]);
        kept.insert(number);
        cluster.run_for(Duration::from_millis(5));
        told += forget(&mut cluster, client, &mut kept);
    }
    cluster.run_for(Duration::from_millis(50));
    told += forget(&mut cluster, client, &mut kept);
    assert!(told > 0 && told < room / 4, "{told} of {room} keys were forgotten");
    assert!(kept.len() <= room + 1, "{} keys are kept, {room} have room", kept.len());
    // 2. What it was not told to forget is remembered: it is told when that changes, and once.
    let (first, last) = (*kept.first().unwrap(), *kept.last().unwrap());
    for number in [first, last, 0] {
        let line = format!("SET {} 1", name(number));
        assert_eq!(cluster.call(leader, &line), ok());
        assert_eq!(cluster.call(leader, &line), ok());
    }
    cluster.run_for(Duration::from_millis(50));
    let before = kept.clone();
    assert_eq!(forget(&mut cluster, client, &mut kept), 2);
    let gone: Vec<usize> = before.difference(&kept).copied().collect();
    assert_eq!(gone, [first, last]);
}

/// A client that keeps what it reads until it is told that it changed.
#[derive(Default)]
struct Cache {
    connection: Option<Connection>,
    server: ServerId,
    awaited: Vec<String>,
    kept: BTreeMap<String, Value>,
    told: usize,
}

impl Cache {
    fn listen(&mut self, cluster: &mut Cluster) {
        let Some(connection) = self.connection else { return };
        for value in cluster.replies(connection) {
            match value {
                Value::Push(words) => {
                    self.told += 1;
                    match &words[1] {
                        Value::Array(keys) => keys.iter().for_each(|key| {
                            let Value::Bulk(key) = key else { panic!("{key:?}") };
                            self.kept.remove(&String::from_utf8(key.clone()).unwrap());
                        }),
                        _ => self.kept.clear(),
                    }
                }
                Value::Map(_) | Value::Simple(_) => {}
                Value::Error(_) => drop(self.awaited.remove(0)),
                value => drop(self.kept.insert(self.awaited.remove(0), value)),
            }
        }
    }
}

#[test]
fn nothing_that_is_kept_is_old_once_all_is_quiet() {
    let mut told = 0;
    for seed in 10..16 {
        let settings = Settings { snapshot_kib: 64, segment_kib: 64, ..calm() };
        let (mut cluster, _) = founded(seed, settings);
        let ids = cluster.ids();
        let mut caches: Vec<Cache> = Vec::new();
        for number in 0..6 {
            let server = ids[number % 3];
            let connection = Some(tracking(&mut cluster, server, ""));
            caches.push(Cache { connection, server, ..Cache::default() });
        }
        let filler = "f".repeat(2000);
        for step in 0..400_u64 {
            let alive = cluster.alive();
            let id = alive[cluster.draw(alive.len() as u64) as usize];
            let writer = cluster.connect(id);
            let key = format!("k{}", cluster.draw(8));
            cluster.send(writer, &[&format!("SET {key} {step}"), &format!("SET filler {filler}")]);
            for cache in &mut caches {
                let Some(connection) = cache.connection else { continue };
                let key = format!("k{}", cluster.draw(8));
                if !cache.kept.contains_key(&key) && !cache.awaited.contains(&key) {
                    cluster.send(connection, &[&format!("GET {key}")]);
                    cache.awaited.push(key);
                }
            }
            // A server is cut off for so long that it is sent a snapshot, or the leader dies.
            match step {
                100 => ids[1..].iter().for_each(|other| cluster.cut(ids[0], *other)),
                250 => cluster.heal(),
                300 => {
                    let leader = cluster.leader().unwrap_or(ids[1]);
                    cluster.kill(leader);
                    for cache in caches.iter_mut().filter(|cache| cache.server == leader) {
                        *cache = Cache::default();
                    }
                }
                _ => {}
            }
            cluster.run_for(Duration::from_millis(2));
            caches.iter_mut().for_each(|cache| cache.listen(&mut cluster));
        }
        cluster.run_for(Duration::from_secs(12));
        cluster.converge(Duration::from_secs(10));
        caches.iter_mut().for_each(|cache| cache.listen(&mut cluster));
        let id = cluster.alive()[0];
        for (number, cache) in caches.iter().enumerate() {
            for (key, kept) in &cache.kept {
                let now = cluster.call(id, &format!("GET {key}"));
                assert_eq!(*kept, now, "seed {seed}, client {number}: {key}");
            }
            told += cache.told;
        }
    }
    assert!(told > 500, "{told} invalidations");
}

#[test]
fn prefixes_add_up_and_do_not_overlap() {
    let (mut cluster, leader) = founded(24, calm());
    let client = tracking(&mut cluster, leader, "BCAST PREFIX user: PREFIX item:");
    let refused = |value: &Value, text: &str| match value {
        Value::Error(error) => assert!(error.starts_with(text), "{error}"),
        other => panic!("{other:?}"),
    };
    // 1. Neither with one that is there nor with each other; what is refused changes nothing.
    let lines = [
        "CLIENT TRACKING ON BCAST PREFIX user:x",
        "CLIENT TRACKING ON BCAST PREFIX b PREFIX bc",
        "CLIENT TRACKING ON BCAST PREFIX other:",
    ];
    let replies = say(&mut cluster, client, &lines);
    refused(&replies[0], "ERR Prefix 'user:x' overlaps with an existing prefix 'user:'.");
    refused(&replies[1], "ERR Prefix 'b' overlaps with another provided prefix 'bc'.");
    assert_eq!(replies[2], ok());
    // 2. All of them are told.
    cluster.call(leader, "MSET user:1 a item:1 b other:1 c b 1");
    cluster.run_for(Duration::from_millis(50));
    assert_eq!(cluster.replies(client), [invalid(&["item:1", "other:1", "user:1"])]);
}
