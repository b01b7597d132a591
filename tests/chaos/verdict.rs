//! Whether what all clients saw together is possible, and all that was acknowledged is there.
//!
//! Registers are judged by `registers`, with the library's checker; counters, where each INCR has
//! to count exactly once, by tests/common/history.rs; keys that are written once by what is left of
//! them. Called by the tests of chaos after all was healed.

use std::collections::{BTreeMap, BTreeSet};

use super::registers::{self, Checked};
use super::workload::{self, Asked, COUNTERS, JOINED, Outcome, SINGLES, Story};
use crate::common::history::{self, Action};
use crate::common::{Client, Reply};

/// How many keys one MGET asks for.
const CHUNK: usize = 500;

/// Panics where a client was told what cannot be. `last` reads each node.
pub fn judge(stories: &[Story], last: &mut [Client]) -> Checked {
    for story in stories {
        story.connections.iter().for_each(|connection| assert_own_order(connection));
    }
    assert_counters(stories, last);
    for client in &mut *last {
        assert_kept(stories, client);
    }
    let read_back = read_back(stories, last);
    let checked = registers::judge(stories.iter().chain([&read_back]));
    checked.unwrap_or_else(|failure| panic!("{failure}"))
}

/// A connection's commands take effect in their order: what it learns of a counter only grows.
fn assert_own_order(connection: &[workload::Operation]) {
    let mut least = [i64::MIN; COUNTERS];
    for operation in connection {
        let (counter, grows) = match operation.asked {
            Asked::Counted(Action::Increment(counter)) => (counter, 1),
            Asked::Counted(Action::Read(counter)) => (counter, 0),
            _ => continue,
        };
        let Some(number) = counted(operation).and_then(|one| one.number()) else { continue };
        let least = &mut least[counter];
        assert!(number >= least.saturating_add(grows), "{least} was there before: {operation:?}");
        *least = number;
    }
}

/// Each increment counted once, those in doubt at most once, on every node.
fn assert_counters(stories: &[Story], last: &mut [Client]) {
    let connections = stories.iter().flat_map(|story| story.connections.iter().flatten());
    let all: Vec<history::Operation> = connections.filter_map(counted).collect();
    for client in last {
        let mut counters = BTreeMap::new();
        for counter in 0..COUNTERS {
            let value = client.must(&["GET", &format!("counter:{counter}")]);
            counters.insert(counter, value.number().unwrap());
        }
        history::assert_counters_linearizable(&all, &counters);
    }
}

/// The operation on a counter, or on a key that is written once, unless it was surely not done.
fn counted(operation: &workload::Operation) -> Option<history::Operation> {
    let Asked::Counted(action) = operation.asked else { return None };
    let done = match &operation.outcome {
        Outcome::Answered(at, reply) => Some((*at, reply.clone())),
        Outcome::InDoubt => None,
        Outcome::NotDone(_) => return None,
    };
    let (address, sent) = (operation.address.clone(), operation.sent);
    Some(history::Operation { address, action, sent, done })
}

/// Keys that were written once: there if acknowledged, absent if surely not done.
fn assert_kept(stories: &[Story], client: &mut Client) {
    let mut puts: Vec<(Action, Option<bool>)> = Vec::new();
    for operation in stories.iter().flat_map(|story| story.connections.iter().flatten()) {
        if let Asked::Counted(action @ Action::Put(..)) = operation.asked {
            let done = match operation.outcome {
                Outcome::Answered(..) => Some(true),
                Outcome::NotDone(_) => Some(false),
                Outcome::InDoubt => None,
            };
            puts.push((action, done));
        }
    }
    for chunk in puts.chunks(CHUNK) {
        let keys: Vec<String> =
            chunk.iter().map(|(action, _)| action.words().swap_remove(1)).collect();
        let words: Vec<&str> =
            std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
        let Reply::Array(values) = client.must(&words) else { panic!("MGET: no array") };
        assert_eq!(values.len(), chunk.len());
        for ((action, done), value) in chunk.iter().zip(values) {
            let there = value == Reply::Bulk(action.words().swap_remove(2).into_bytes());
            assert!(there || value == Reply::Nil, "{action:?} left {value:?}");
            assert!(done.is_none_or(|done| done == there), "{action:?}: {done:?} was said");
        }
    }
}

/// What every node says of every register after all else: an acknowledged write that is lost shows
/// here, also where nobody had read it.
fn read_back(stories: &[Story], last: &mut [Client]) -> Story {
    let operations = stories.iter().flat_map(|story| story.connections.iter().flatten());
    let generations: BTreeSet<u64> = operations
        .filter_map(|operation| match &operation.asked {
            Asked::Searched { generation, .. } => Some(*generation),
            Asked::Counted(_) => None,
        })
        .collect();
    let mut story = Story::default();
    for client in last {
        let mut connection = Vec::new();
        for &generation in &generations {
            let keys: Vec<String> =
                (0..JOINED).map(|number| workload::joined(generation, number)).collect();
            let mut lines = vec![format!("MGET {}", keys.join(" "))];
            lines.extend(
                (0..SINGLES).map(|one| format!("GET {}", workload::single(generation, one))),
            );
            let asked: Vec<Asked> =
                lines.iter().map(|line| Asked::line(generation, line)).collect();
            let operations = workload::exchange(client, "read back", &asked);
            for operation in &operations {
                let answered = matches!(operation.outcome, Outcome::Answered(..));
                assert!(answered, "all is healed: {operation:?}");
            }
            connection.extend(operations);
        }
        story.connections.push(connection);
    }
    story
}
