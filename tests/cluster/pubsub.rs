//! Messages and keyspace notifications between real nodes, as Redis's clients expect them in RESP2.

use crate::common::Cluster;
use crate::common::client::{Client, Reply};
use crate::common::cluster::Options;

fn with_notifications() -> Cluster {
    let toml = "[client]\nnotify_keyspace_events = \"KEA\"\n".to_owned();
    Cluster::start_with(Options { toml, ..Options::default() })
}

fn words(words: &[&str]) -> Reply {
    Reply::Array(words.iter().map(|word| Reply::bulk(word)).collect())
}

fn confirmed(word: &str, name: &str, count: i64) -> Reply {
    Reply::Array(vec![Reply::bulk(word), Reply::bulk(name), Reply::Integer(count)])
}

fn next(client: &mut Client) -> Reply {
    client.receive().expect("it is told something")
}

#[test]
fn publish_reaches_subscribers_of_every_node_in_one_order() {
    let cluster = Cluster::start();
    let mut subscribers: Vec<Client> = (0..3).map(|position| cluster.client(position)).collect();
    for subscriber in &mut subscribers {
        subscriber.send(&["SUBSCRIBE", "news", "other"]).unwrap();
        assert_eq!(next(subscriber), confirmed("subscribe", "news", 1));
        assert_eq!(next(subscriber), confirmed("subscribe", "other", 2));
        assert_eq!(subscriber.must(&["PSUBSCRIBE", "n*"]), confirmed("psubscribe", "n*", 3));
    }
    // 1. Published everywhere; the answer counts the receivers at the publisher's node.
    for number in 0..9 {
        let mut publisher = cluster.client(number % 3);
        let receivers = publisher.must(&["PUBLISH", "news", &number.to_string()]);
        assert_eq!(receivers, Reply::Integer(2));
        assert_eq!(publisher.must(&["PUBLISH", "nobody-here", "x"]), Reply::Integer(1));
    }
    for subscriber in &mut subscribers {
        for number in 0..9 {
            let number = number.to_string();
            assert_eq!(next(subscriber), words(&["message", "news", &number]));
            assert_eq!(next(subscriber), words(&["pmessage", "n*", "news", &number]));
            assert_eq!(next(subscriber), words(&["pmessage", "n*", "nobody-here", "x"]));
        }
    }
    // 2. What a subscribed connection may say in RESP2.
    let subscriber = &mut subscribers[0];
    let refused = "ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                   RESET are allowed in this context";
    assert_eq!(subscriber.must(&["GET", "a"]), Reply::Error(refused.to_owned()));
    assert_eq!(subscriber.must(&["PING"]), words(&["pong", ""]));
    assert_eq!(subscriber.must(&["PING", "hello"]), words(&["pong", "hello"]));
    // 3. PUBSUB is about one node.
    let mut other = cluster.client(0);
    assert_eq!(other.must(&["PUBSUB", "CHANNELS"]), words(&["news", "other"]));
    assert_eq!(other.must(&["PUBSUB", "CHANNELS", "o*"]), words(&["other"]));
    let counts = vec![Reply::bulk("news"), Reply::Integer(1), Reply::bulk("x"), Reply::Integer(0)];
    assert_eq!(other.must(&["PUBSUB", "NUMSUB", "news", "x"]), Reply::Array(counts));
    assert_eq!(other.must(&["PUBSUB", "NUMPAT"]), Reply::Integer(1));
    // 4. It ends, and the connection is like any other again.
    subscriber.send(&["UNSUBSCRIBE"]).unwrap();
    assert_eq!(next(subscriber), confirmed("unsubscribe", "news", 2));
    assert_eq!(next(subscriber), confirmed("unsubscribe", "other", 1));
    assert_eq!(subscriber.must(&["PUNSUBSCRIBE", "n*"]), confirmed("punsubscribe", "n*", 0));
    let none = vec![Reply::bulk("unsubscribe"), Reply::Nil, Reply::Integer(0)];
    assert_eq!(subscriber.must(&["UNSUBSCRIBE"]), Reply::Array(none));
    assert_eq!(subscriber.must(&["GET", "a"]), Reply::Nil);
    assert_eq!(other.must(&["PUBSUB", "NUMPAT"]), Reply::Integer(0));
}

#[test]
fn keyspace_notifications_come_at_every_node_whoever_wrote() {
    let cluster = with_notifications();
    let mut keys: Vec<Client> = (0..3).map(|position| cluster.client(position)).collect();
    let mut events: Vec<Client> = (0..3).map(|position| cluster.client(position)).collect();
    for client in &mut keys {
        client.must(&["PSUBSCRIBE", "__keyspace@0__:k*"]);
    }
    for client in &mut events {
        client.must(&["SUBSCRIBE", "__keyevent@0__:expired"]);
    }
    let mut writer = cluster.client(1);
    for command in [
        &["SET", "k", "1"][..],
        &["INCR", "k"],
        &["APPEND", "k", "x"],
        &["SET", "k", "1", "EX", "100"],
        &["PERSIST", "k"],
        &["EXPIRE", "k", "100"],
        &["RENAME", "k", "k2"],
        &["SET", "other", "1"],
        &["DEL", "k2"],
        &["SET", "k3", "1", "PX", "20"],
    ] {
        assert!(!writer.must(command).is_error());
    }
    let expected = vec![
        ("k", "set"),
        ("k", "incrby"),
        ("k", "append"),
        ("k", "set"),
        ("k", "expire"),
        ("k", "persist"),
        ("k", "expire"),
    ];
    for client in &mut keys {
        let mut told = Vec::new();
        for _ in 0..13 {
            let Reply::Array(message) = next(client) else { panic!("a message is an array") };
            let channel = message[2].text();
            let key = channel.strip_prefix("__keyspace@0__:").unwrap().to_owned();
            told.push((key, message[3].text()));
        }
        let told: Vec<(&str, &str)> =
            told.iter().map(|(key, event)| (key.as_str(), event.as_str())).collect();
        // RENAME is two changes, in whichever order they are made.
        let mut renamed = told[7..9].to_vec();
        renamed.sort_unstable();
        assert_eq!(renamed, [("k", "rename_from"), ("k2", "rename_to")]);
        assert_eq!(told[..7], expected);
        let rest = [("k2", "del"), ("k3", "set"), ("k3", "expire"), ("k3", "expired")];
        assert_eq!(told[9..], rest);
    }
    for client in &mut events {
        assert_eq!(next(client), words(&["message", "__keyevent@0__:expired", "k3"]));
    }
    let shown = writer.must(&["CONFIG", "GET", "notify-keyspace-events"]);
    assert_eq!(shown, words(&["notify-keyspace-events", "AKE"]));
}
