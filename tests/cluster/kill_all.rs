//! `kill -9` for all three nodes at once, ten times: all that was acknowledged is there.

use std::collections::BTreeMap;

use crate::common::history::{self, Action, Operation};
use crate::common::load::Load;
use crate::common::{Cluster, Reply, eventually};

const KILLS: usize = 10;
const CONNECTIONS: usize = 4;
const WINDOW: usize = 8;
const COUNTERS: usize = 2;

#[test]
fn kill_all_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start();
    let mut all: Vec<Operation> = Vec::new();
    for round in 0..KILLS {
        // 1. Clients write through all nodes: counters, and keys that are written once.
        let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.client.clone()).collect();
        let load = Load::begin(&addresses, CONNECTIONS, WINDOW, move |connection, position| {
            if position % 2 == 0 {
                Action::Increment(connection % COUNTERS)
            } else {
                Action::Put(1_000 * round + connection, position)
            }
        });
        eventually("the load is under way", crate::common::cluster::PATIENCE, || {
            (load.answered() > 600).then_some(())
        });

        // 2. All die, and all come back.
        cluster.kill_all();
        for outcome in load.finish() {
            assert!(outcome.broken.is_some(), "its node is dead");
            all.extend(outcome.operations);
        }
        for position in 0..3 {
            cluster.restart(position);
        }
        cluster.wait_until_even();

        // 3. Each key that was acknowledged is there; asked through another node each time.
        let puts: Vec<&Operation> = all.iter().filter(|one| was_put(one)).collect();
        assert!(puts.len() > 100 * (round + 1) / 2, "{} keys were acknowledged", puts.len());
        let gets: Vec<Vec<String>> = puts.iter().map(|put| get(put)).collect();
        let mut client = cluster.client(round % 3);
        let mut replies = Vec::new();
        for some in gets.chunks(500) {
            replies.extend(client.pipeline(some).unwrap());
        }
        for (put, reply) in puts.iter().zip(&replies) {
            assert_eq!(*reply, Reply::bulk(&put.action.words()[2]), "round {round}: {put:?}");
        }
    }
    let mut last = BTreeMap::new();
    for counter in 0..COUNTERS {
        let value = cluster.client(0).must(&["GET", &format!("counter:{counter}")]);
        last.insert(counter, value.number().unwrap());
    }
    history::assert_counters_linearizable(&all, &last);
    println!("{} operations, counters {last:?}", all.len());
}

fn was_put(operation: &Operation) -> bool {
    let acknowledged = operation.done.as_ref().is_some_and(|(_, reply)| *reply == Reply::ok());
    matches!(operation.action, Action::Put(..)) && acknowledged
}

fn get(put: &Operation) -> Vec<String> {
    vec!["GET".to_owned(), put.action.words()[1].clone()]
}
