//! `kill -9` for the very node that a client is connected to, again and again: with a session the
//! client notices a delay, and each of its writes is done once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::cluster::PATIENCE;
use crate::common::{Cluster, eventually};
use raftkv::client::{Client, Options};
use raftkv::proto::reply_decoder::Value;

const KILLS: usize = 12;
const WINDOW: usize = 32;
const CLIENTS: usize = 3;

/// What a client does until it is told to stop.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicUsize,
    /// Which endpoint each client is connected to.
    endpoints: Mutex<Vec<String>>,
}

fn client_of(cluster: &Cluster) -> Client {
    let endpoints = cluster.nodes.iter().map(|node| node.client.clone()).collect();
    let mut options = Options::new(endpoints);
    options.retry_timeout = PATIENCE;
    Client::new(options)
}

fn number(value: Value) -> i64 {
    let Value::Integer(number) = value else { panic!("{value:?}") };
    number
}

/// Increments its own counter, one by one, many ahead, or two at once in a transaction; each reply is
/// one more than the last.
fn count(mut client: Client, place: usize, shared: &Shared) -> i64 {
    let key = format!("counter:{place}");
    let increment = vec!["INCR".to_owned(), key];
    let window = vec![increment.clone(); WINDOW];
    let mut last = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let results = match place {
            0 => vec![client.command(&increment)],
            1 => client.pipeline(&window),
            _ => {
                let done = client.transaction(&window[..2]).expect("it is done, and known to be");
                let Value::Array(replies) = done else { panic!("{done:?}") };
                replies.into_iter().map(Ok).collect()
            }
        };
        for result in results {
            let next = number(result.expect("no write is refused, and none is in doubt"));
            assert_eq!(next, last + 1, "each increment is done once");
            last = next;
        }
        shared.done.fetch_add(1, Ordering::Relaxed);
        shared.endpoints.lock().unwrap()[place] = client.endpoint().to_owned();
    }
    last
}

#[test]
fn killing_the_node_that_a_client_is_connected_to_costs_it_a_moment_and_no_doubt() {
    let mut cluster = Cluster::start();
    let shared = Arc::new(Shared {
        endpoints: Mutex::new(vec![String::new(); CLIENTS]),
        ..Shared::default()
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|place| {
            let (client, shared) = (client_of(&cluster), shared.clone());
            thread::spawn(move || count(client, place, &shared))
        })
        .collect();
    let mut leaders = 0;
    for kill in 0..KILLS {
        // 1. The node that one of them is connected to, in the middle of its load.
        let before = shared.done.load(Ordering::Relaxed);
        eventually("the clients go on", PATIENCE, || {
            (shared.done.load(Ordering::Relaxed) > before + 100).then_some(())
        });
        let endpoint = shared.endpoints.lock().unwrap()[kill % CLIENTS].clone();
        let node = cluster.nodes.iter().position(|node| node.client == endpoint).unwrap();
        leaders += usize::from(cluster.leader() == Some(node));
        cluster.kill(node);
        thread::sleep(Duration::from_millis(300));
        // 2. It is back before the next one goes.
        cluster.restart(node);
        eventually("it serves again", PATIENCE, || cluster.is_healthy(node).then_some(()));
    }
    shared.stop.store(true, Ordering::Relaxed);
    let counted: Vec<i64> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    // 3. Every node says what the clients were told.
    for position in 0..3 {
        let mut client = cluster.client(position);
        for (place, counted) in counted.iter().enumerate() {
            let value = client.must(&["GET", &format!("counter:{place}")]);
            assert_eq!(value.text(), counted.to_string());
        }
    }
    println!("{counted:?} increments, {KILLS} kills, {leaders} of them of the leader");
}
