//! MONITOR on a cluster in memory: what Redis shows, to whom, and who is cut off.

use std::time::Duration;

use raftkv::limits;
use raftkv::proto::reply_decoder::Value;
use raftkv::sim::{Cluster, Connection};
use raftkv::types::ServerId;

use super::values::{founded, simple};

/// Sends all lines at once and takes all that comes within a moment.
fn say(cluster: &mut Cluster, connection: Connection, lines: &[&str]) -> Vec<Value> {
    cluster.send(connection, lines);
    cluster.run_for(Duration::from_millis(200));
    cluster.replies(connection)
}

fn monitor(cluster: &mut Cluster, id: ServerId) -> Connection {
    let connection = cluster.connect(id);
    assert_eq!(say(cluster, connection, &["MONITOR"]), [simple("OK")]);
    connection
}

/// The words of what a monitor was shown; its time and whose it was are looked at only for their
/// form.
fn shown(replies: Vec<Value>) -> Vec<String> {
    let words = |value| match value {
        Value::Simple(line) => {
            let (time, rest) = line.split_once(" [0 ").expect("the time, then whose it is");
            let (seconds, us) = time.split_once('.').expect("microseconds");
            assert!(seconds.parse::<u64>().is_ok() && us.len() == 6, "{line}");
            let (address, words) = rest.split_once("] ").expect("the address, then words");
            assert!(address.parse::<std::net::SocketAddr>().is_ok(), "{line}");
            words.to_owned()
        }
        other => panic!("{other:?} is no line"),
    };
    replies.into_iter().map(words).collect()
}

#[test]
fn monitor_shows_what_redis_shows() {
    let (mut cluster, leader) = founded(1);
    let (watcher, client) = (monitor(&mut cluster, leader), cluster.connect(leader));
    // 1. All that is carried out, also what is refused by its own check. Not what is no command, or
    //    has too few words, nor commands of administrators.
    say(
        &mut cluster,
        client,
        &["set a 1", "GET a", "SET a 1 EX -1", "NOPE a", "SET a", "CLIENT LIST", "PING"],
    );
    let expected = [r#""set" "a" "1""#, r#""GET" "a""#, r#""SET" "a" "1" "EX" "-1""#, r#""PING""#];
    assert_eq!(shown(cluster.replies(watcher)), expected);
    // 2. A transaction when it is carried out, in its order.
    say(&mut cluster, client, &["MULTI", "SET b 2", "SET b 2 BAD", "GET b"]);
    assert_eq!(shown(cluster.replies(watcher)), [r#""MULTI""#]);
    say(&mut cluster, client, &["EXEC", "MULTI", "SET a", "EXEC", "MULTI", "GET a", "DISCARD"]);
    let expected = [
        r#""SET" "b" "2""#,
        r#""SET" "b" "2" "BAD""#,
        r#""GET" "b""#,
        r#""EXEC""#,
        r#""MULTI""#,
        r#""EXEC""#,
        r#""MULTI""#,
        r#""DISCARD""#,
    ];
    assert_eq!(shown(cluster.replies(watcher)), expected);
    // 3. No passwords.
    let lines = ["AUTH secret", "AUTH ann secret", "HELLO 3 AUTH default secret SETNAME ann"];
    say(&mut cluster, client, &lines);
    let expected = [
        r#""AUTH" "(redacted)""#,
        r#""AUTH" "(redacted)" "(redacted)""#,
        r#""HELLO" "3" "AUTH" "(redacted)" "(redacted)" "SETNAME" "ann""#,
    ];
    assert_eq!(shown(cluster.replies(watcher)), expected);
    // 4. Of this node's clients alone.
    let other = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
    cluster.call(other, "SET c 3");
    assert_eq!(cluster.replies(watcher), []);
}

#[test]
fn a_monitor_may_not_use_keys_and_reset_ends_it() {
    let (mut cluster, leader) = founded(2);
    let (watcher, client) = (monitor(&mut cluster, leader), cluster.connect(leader));
    let flags = |cluster: &mut Cluster| match &say(cluster, client, &["CLIENT LIST"])[..] {
        [Value::Bulk(text)] => String::from_utf8_lossy(text).contains(" flags=O "),
        other => panic!("{other:?}"),
    };
    assert!(flags(&mut cluster), "CLIENT LIST marks it");
    let refused = Value::Error("ERR Replica can't interact with the keyspace".to_owned());
    // Its reply comes before the line of it; a second MONITOR has no answer, as in Redis.
    let replies = say(&mut cluster, watcher, &["SET a 1", "GET a", "MONITOR", "PING"]);
    assert_eq!(replies[..3], [refused.clone(), refused, simple("PONG")]);
    assert_eq!(shown(replies[3..].to_vec()), [r#""PING""#]);
    let replies = say(&mut cluster, watcher, &["RESET", "SET a 1"]);
    assert_eq!(replies, [simple("RESET"), simple("OK")]);
    assert!(!flags(&mut cluster));
    say(&mut cluster, client, &["GET a"]);
    assert_eq!(cluster.replies(watcher), []);
    // In a transaction it is an error in its place.
    let replies = say(&mut cluster, watcher, &["MULTI", "MONITOR", "EXEC", "SET a 2"]);
    let refused = "ERR MONITOR isn't allowed for DENY BLOCKING client".to_owned();
    assert_eq!(replies[2..], [Value::Array(vec![Value::Error(refused)]), simple("OK")]);
}

#[test]
fn latency_histogram_counts_the_commands_of_this_nodes_clients() {
    let (mut cluster, leader) = founded(4);
    let client = cluster.connect(leader);
    say(&mut cluster, client, &["SET a 1", "SET a 2", "PING"]);
    say(&mut cluster, client, &["GET a"]);
    let calls = |value: &Value| match value {
        Value::Array(words) => match &words[..] {
            [Value::Bulk(calls), Value::Integer(count), Value::Bulk(_), Value::Array(buckets)] => {
                assert_eq!(calls, b"calls");
                assert_eq!(buckets.last(), Some(&Value::Integer(*count)), "they are cumulative");
                *count
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let replies = say(&mut cluster, client, &["LATENCY HISTOGRAM", "LATENCY HISTOGRAM get"]);
    let Value::Array(all) = &replies[0] else { panic!("an array of pairs") };
    assert_eq!(all[0], Value::Bulk(b"set".to_vec()));
    assert_eq!((calls(&all[1]), calls(&all[3]), all.len()), (2, 1, 4));
    let Value::Array(get) = &replies[1] else { panic!("an array of pairs") };
    assert_eq!((&get[0], get.len()), (&Value::Bulk(b"get".to_vec()), 2));
    let replies = say(&mut cluster, client, &["CONFIG RESETSTAT", "LATENCY HISTOGRAM"]);
    assert_eq!(replies, [simple("OK"), Value::Array(Vec::new())]);
}

#[test]
fn config_set_changes_who_may_connect_and_stay() {
    let (mut cluster, leader) = founded(5);
    let client = cluster.connect(leader);
    let most = limits::CLIENTS;
    let lines = [
        "CONFIG SET timeout 7 maxclients 3",
        "CONFIG GET timeout",
        "CONFIG SET timeout -1",
        "CONFIG SET maxclients 0",
        &format!("CONFIG SET maxclients {}", most + 1),
        &format!("CONFIG SET timeout 0 maxclients {most}"),
    ];
    let replies = say(&mut cluster, client, &lines);
    let words = ["timeout", "7"].map(|word| Value::Bulk(word.as_bytes().to_vec()));
    assert_eq!(replies[..2], [simple("OK"), Value::Array(words.to_vec())]);
    let refused = |name: &str, why: &str| {
        let text = "ERR CONFIG SET failed (possibly related to argument";
        Value::Error(format!("{text} '{name}') - {why}"))
    };
    let expected = [
        refused("timeout", "argument must be between 0 and 2147483647 inclusive"),
        refused("maxclients", "argument must be between 1 and 4294967295 inclusive"),
        refused(
            "maxclients",
            &format!(
                "The operating system is not able to handle the specified number of clients, \
                 try with {most}"
            ),
        ),
        simple("OK"),
    ];
    assert_eq!(replies[2..], expected);
}
