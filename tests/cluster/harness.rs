//! The harness's own checks have teeth: histories that cannot be are refused.
//!
//! No process is started here.

use std::collections::BTreeMap;
use std::panic;
use std::time::{Duration, Instant};

use crate::common::Reply;
use crate::common::history::{self, Action, Operation};

/// What was done, when it was sent, when it was answered and with which number; times are in
/// milliseconds after some instant.
type Line = (Action, u64, Option<(u64, i64)>);

fn history(operations: &[Line]) -> Vec<Operation> {
    let origin = Instant::now();
    let at = |millis: u64| origin + Duration::from_millis(millis);
    let reply = |action: Action, number: i64| match action {
        Action::Read(_) => Reply::bulk(&number.to_string()),
        _ => Reply::Integer(number),
    };
    let operations = operations.iter().map(|&(action, sent, done)| Operation {
        address: String::new(),
        action,
        sent: at(sent),
        done: done.map(|(when, number)| (at(when), reply(action, number))),
    });
    operations.collect()
}

fn is_refused(operations: &[Line], last: i64) -> bool {
    let history = history(operations);
    let last = BTreeMap::from([(0, last)]);
    panic::catch_unwind(|| history::assert_counters_linearizable(&history, &last)).is_err()
}

#[test]
fn counters_that_lose_repeat_or_reorder_are_refused() {
    use Action::{Increment, Read};
    let (inc, get) = (Increment(0), Read(0));
    // Two at once may come in either order, and a read beside them may see either.
    assert!(!is_refused(&[(inc, 0, Some((9, 2))), (inc, 1, Some((8, 1)))], 2));
    assert!(!is_refused(&[(inc, 0, Some((9, 1))), (get, 1, Some((8, 0)))], 1));
    assert!(!is_refused(&[(inc, 0, Some((9, 1))), (get, 1, Some((8, 1)))], 1));
    // Unanswered: done or not.
    assert!(!is_refused(&[(inc, 0, None), (inc, 1, Some((2, 1)))], 1));
    assert!(!is_refused(&[(inc, 0, None), (inc, 1, Some((2, 2)))], 2));

    // One is lost; one was done twice; two got one number.
    assert!(is_refused(&[(inc, 0, Some((1, 1))), (inc, 2, Some((3, 2)))], 1));
    assert!(is_refused(&[(inc, 0, Some((1, 1))), (inc, 2, Some((3, 2)))], 3));
    assert!(is_refused(&[(inc, 0, Some((1, 1))), (inc, 0, Some((1, 1)))], 2));
    assert!(is_refused(&[(inc, 0, None), (inc, 1, Some((2, 3)))], 3));
    // A later one got the smaller number.
    assert!(is_refused(&[(inc, 0, Some((1, 2))), (inc, 2, Some((3, 1)))], 2));
    // A read that is stale; one that is ahead of time; two reads that go backwards.
    assert!(is_refused(&[(inc, 0, Some((1, 1))), (get, 2, Some((3, 0)))], 1));
    assert!(is_refused(&[(get, 0, Some((1, 1))), (inc, 2, Some((3, 1)))], 1));
    assert!(is_refused(
        &[(inc, 0, Some((9, 1))), (get, 1, Some((2, 1))), (get, 3, Some((4, 0)))],
        1
    ));
}

#[test]
fn unanswered_and_refused_operations_are_found() {
    let inc = Action::Increment(0);
    let complete = history(&[(inc, 0, Some((1, 1)))]);
    history::assert_all_answered(&complete);
    let open = history(&[(inc, 0, None)]);
    assert!(panic::catch_unwind(|| history::assert_all_answered(&open)).is_err());
    let mut refused = complete.clone();
    refused[0].done = Some((Instant::now(), Reply::Error("ERR no".to_owned())));
    assert!(panic::catch_unwind(|| history::assert_all_answered(&refused)).is_err());
}

#[test]
fn writes_in_flight_counts_what_spans_the_instant() {
    let (inc, get) = (Action::Increment(0), Action::Read(0));
    let history = history(&[
        (inc, 0, Some((1, 1))),
        (inc, 0, Some((9, 2))),
        (inc, 0, None),
        (get, 0, Some((9, 2))),
        (inc, 8, Some((9, 3))),
    ]);
    let at = history[0].sent + Duration::from_millis(5);
    assert_eq!(history::writes_in_flight(&history, at, at), 2);
    assert_eq!(history::longest_wait(&history), Duration::from_millis(9));
}
