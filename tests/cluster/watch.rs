//! Watching real nodes: a watcher whose node is killed goes on at another one, by the last revision
//! that it was told, and has missed nothing and been told nothing twice. And many watchers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::common::Cluster;
use crate::common::client::{Client, Reply};

const WATCHERS: usize = 1000;

/// A message to a watcher: event, revision, key, value.
fn message(reply: Reply) -> (String, i64, Vec<String>) {
    let Reply::Array(words) = reply else { panic!("{reply:?}") };
    assert_eq!(words[0].text(), "kwatch");
    let revision = words[3].number().expect("the fourth word is a revision");
    (words[2].text(), revision, words[4..].iter().map(Reply::text).collect())
}

/// Writes numbers to a few keys until told to stop; returns how many were acknowledged.
fn write_on(address: String, stop: Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut client = Client::connect(&address).unwrap();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let (key, value) = (format!("w:{}", number % 5), number.to_string());
            assert_eq!(client.must(&["SET", &key, &value]), Reply::ok());
        }
        number
    })
}

#[test]
fn a_watcher_goes_on_at_another_node_when_its_own_is_killed() {
    let mut cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    let writer_at = cluster.others(leader)[0];
    let stop = Arc::new(AtomicBool::new(false));
    let writer = write_on(cluster.nodes[writer_at].client.clone(), stop.clone());

    let mut last = 0;
    let mut values: Vec<u64> = Vec::new();
    let mut position = leader;
    for round in 0..4 {
        // 1. It watches from where it was.
        let mut client = cluster.client(position);
        let begun = client.must(&["KWATCH", "w:", "FROM", &last.to_string()]);
        assert_eq!(begun, Reply::Integer(last));
        let wanted = values.len() + 300;
        while values.len() < wanted {
            let (event, revision, words) = message(client.receive().unwrap());
            assert!(revision > last || event == "progress", "{event} {revision} behind {last}");
            last = revision;
            if event == "set" {
                values.push(words[1].parse().unwrap());
            }
        }
        // 2. Its node dies; the writer's node stays.
        let victim = position;
        cluster.kill(victim);
        position = if round % 2 == 0 { writer_at } else { cluster.others(writer_at)[0] };
        if position == victim {
            position = writer_at;
        }
        cluster.restart(victim);
        cluster.wait_until_even();
        if position == writer_at && round < 3 {
            // The next one to die must not be the writer's.
            position = cluster.others(writer_at)[round % 2];
        }
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();

    // 3. The rest, at the writer's node: each value was told once, in order, to the last.
    let mut client = cluster.client(writer_at);
    client.must(&["KWATCH", "w:", "FROM", &last.to_string()]);
    while values.last() != Some(&written) {
        let (event, revision, words) = message(client.receive().unwrap());
        assert!(revision > last || event == "progress");
        last = revision;
        if event == "set" {
            values.push(words[1].parse().unwrap());
        }
    }
    assert_eq!(values, (1..=written).collect::<Vec<_>>());
}

#[test]
fn a_watcher_that_does_not_read_is_bounded_and_goes_on_or_is_told() {
    let cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    let mut slow = cluster.client(leader);
    assert_eq!(slow.must(&["KWATCH", "k"]), Reply::Integer(0));
    // 1. More than the history keeps is written while it doesn't read.
    let mut writer = cluster.client(leader);
    let value = "v".repeat(1024 * 1024);
    for number in 0..40 {
        let key = format!("k{number}");
        assert_eq!(writer.must(&["SET", &key, &value]), Reply::ok());
    }
    // 2. What it is told then is in order and ends with a clear word, the connection stays.
    let mut last = 0;
    let mut told = 0;
    let end = loop {
        let (event, revision, _) = message(slow.receive().unwrap());
        if event != "set" {
            break (event, revision);
        }
        assert_eq!(revision, last + 1, "nothing is left out before the end");
        last = revision;
        told += 1;
    };
    assert_eq!(end.0, "compacted", "after {told} changes");
    assert!(end.1 > last && told < 30, "{told} changes, then {end:?}");
    assert_eq!(slow.must(&["PING"]), Reply::Simple("PONG".to_owned()));
    assert!(slow.must(&["KWATCH", "k", "FROM", "1"]).text().starts_with("COMPACTED "));
    let again = slow.must(&["KWATCH", "k", "FROM", &end.1.to_string()]);
    assert_eq!(again, Reply::Integer(end.1));
}

#[test]
fn a_thousand_watchers_of_one_prefix_are_all_told_everything() {
    const WRITES: usize = 200;
    let cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    let mut watchers: Vec<Client> = (0..WATCHERS).map(|_| cluster.client(leader)).collect();
    for watcher in &mut watchers {
        watcher.send(&["KWATCH", "k"]).unwrap();
    }
    for watcher in &mut watchers {
        assert_eq!(watcher.receive().unwrap(), Reply::Integer(0));
    }
    let mut writer = cluster.client(leader);
    let begun = Instant::now();
    let commands: Vec<Vec<String>> = (0..WRITES)
        .map(|number| vec!["SET".to_owned(), format!("k{}", number % 9), number.to_string()])
        .collect();
    for chunk in commands.chunks(20) {
        writer.pipeline(chunk).unwrap();
    }
    let written = begun.elapsed();
    for watcher in &mut watchers {
        for number in 0..WRITES {
            let (event, revision, words) = message(watcher.receive().unwrap());
            assert_eq!((event.as_str(), revision), ("set", number as i64 + 1));
            assert_eq!(words[1], number.to_string());
        }
    }
    println!("{WRITES} writes took {written:?}; all {WATCHERS} told {:?}", begun.elapsed());
}
