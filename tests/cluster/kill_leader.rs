//! `kill -9` for the leader, under load, twenty times: who is connected to another node notices
//! nothing but a moment's delay.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::common::history::{self, Action, Operation};
use crate::common::load::Load;
use crate::common::{Cluster, eventually};
use rustix::process::Signal;

const KILLS: usize = 20;
/// A kill that found fewer writes under way is done again.
const IN_FLIGHT: usize = 50;
const CONNECTIONS: usize = 6;
const WINDOW: usize = 16;
const COUNTERS: usize = 3;
/// How long a client of a surviving node may wait for a reply.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Mostly increments; some connections read as well, so that pipelines mix the two.
fn plan(connection: usize, position: usize) -> Action {
    let counter = (connection + position) % COUNTERS;
    if connection.is_multiple_of(3) && position % 4 == 3 {
        Action::Read(counter)
    } else {
        Action::Increment(counter)
    }
}

/// One kill and its recovery; what the survivors' clients saw, and how many writes were in flight.
fn kill_once(cluster: &mut Cluster) -> (Vec<Operation>, usize) {
    // 1. Everyone is there; clients connect to the followers only.
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    let survivors: Vec<String> =
        cluster.others(leader).iter().map(|&at| cluster.nodes[at].client.clone()).collect();
    let load = Load::begin(&survivors, CONNECTIONS, WINDOW, plan);
    eventually("the load is under way", crate::common::cluster::PATIENCE, || {
        let busy = load.writes_under_way() >= 2 * IN_FLIGHT;
        (busy && load.answered() > 500).then_some(())
    });

    // 2. The leader dies.
    let before = Instant::now();
    cluster.nodes[leader].signal(Signal::KILL);
    let after = Instant::now();
    cluster.kill(leader);

    // 3. All that was under way is answered, and as much again and more.
    let answered = load.answered();
    let goal = answered + 2 * survivors.len() * CONNECTIONS * WINDOW;
    eventually("the clients go on", crate::common::cluster::PATIENCE, || {
        (load.answered() > goal).then_some(())
    });
    let outcomes = load.finish();
    cluster.restart(leader);

    let mut operations = Vec::new();
    for outcome in outcomes {
        assert!(outcome.broken.is_none(), "a survivor's client: {:?}", outcome.broken);
        operations.extend(outcome.operations);
    }
    let in_flight = history::writes_in_flight(&operations, before, after);
    (operations, in_flight)
}

#[test]
fn kill_leader_costs_clients_of_other_nodes_nothing_but_a_moment() {
    let mut cluster = Cluster::start();
    let mut all = Vec::new();
    let mut counted = 0;
    let mut waits = Vec::new();
    for attempt in 0.. {
        assert!(attempt < 3 * KILLS, "{counted} kills of {attempt} had {IN_FLIGHT} in flight");
        let (operations, in_flight) = kill_once(&mut cluster);
        history::assert_all_answered(&operations);
        let wait = history::longest_wait(&operations);
        assert!(wait <= LONGEST_WAIT, "kill {attempt}: a client waited {wait:?}");
        waits.push(wait);
        all.extend(operations);
        counted += usize::from(in_flight >= IN_FLIGHT);
        if counted == KILLS {
            break;
        }
    }
    // The counters, read through every node, are what the whole history says.
    cluster.wait_until_even();
    for position in 0..3 {
        let mut client = cluster.client(position);
        let mut last = BTreeMap::new();
        for counter in 0..COUNTERS {
            let value = client.must(&["GET", &format!("counter:{counter}")]);
            last.insert(counter, value.number().unwrap());
        }
        history::assert_counters_linearizable(&all, &last);
    }
    waits.sort();
    println!("{} operations; longest waits per kill: {waits:?}", all.len());
}
