//! What clients saw, operation by operation, and what must be true of it.
//!
//! The counters are what makes it checkable: each INCR's reply is its place in the order, so a lost
//! one is a hole, one done twice is a hole as well, and whether reads are linearizable can be
//! decided by sorting. Called by `load` and the tests that use it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Reply;

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Action {
    /// `INCR counter:N`
    Increment(usize),
    /// `GET counter:N`
    Read(usize),
    /// `SET own:N:M M`: a key that is written once.
    Put(usize, usize),
}

impl Action {
    pub fn words(self) -> Vec<String> {
        let text = match self {
            Action::Increment(counter) => format!("INCR counter:{counter}"),
            Action::Read(counter) => format!("GET counter:{counter}"),
            Action::Put(connection, number) => format!("SET own:{connection}:{number} {number}"),
        };
        text.split(' ').map(str::to_owned).collect()
    }

    pub fn writes(self) -> bool {
        !matches!(self, Action::Read(_))
    }
}

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Where the client was connected to.
    #[allow(dead_code, reason = "a history that cannot be is printed with it")]
    pub address: String,
    pub action: Action,
    pub sent: Instant,
    /// When the reply came, and what it was; nothing if the connection broke before.
    pub done: Option<(Instant, Reply)>,
}

impl Operation {
    pub fn number(&self) -> Option<i64> {
        match self.done.as_ref()?.1 {
            // A counter that nobody has counted up is not there yet.
            Reply::Nil => Some(0),
            ref reply => reply.number(),
        }
    }
}

/// Writes that were sent before `before` and not answered by `after`.
pub fn writes_in_flight(history: &[Operation], before: Instant, after: Instant) -> usize {
    let in_flight = |operation: &&Operation| {
        let open = operation.done.as_ref().is_none_or(|(done, _)| *done > after);
        operation.action.writes() && operation.sent < before && open
    };
    history.iter().filter(in_flight).count()
}

/// The longest that any answered operation took.
pub fn longest_wait(history: &[Operation]) -> Duration {
    let waits = history.iter().filter_map(|operation| {
        operation.done.as_ref().map(|(done, _)| done.duration_since(operation.sent))
    });
    waits.max().unwrap_or_default()
}

/// Panics unless every operation was answered, and none with an error.
pub fn assert_all_answered(history: &[Operation]) {
    for operation in history {
        match &operation.done {
            Some((_, reply)) => assert!(!reply.is_error(), "an error reply: {operation:?}"),
            None => panic!("no reply: {operation:?}"),
        }
    }
}

/// Panics unless the counters' replies are those of some order that agrees with time, and the
/// counters end where that order ends. `last` gives each counter's value after the history.
///
/// An increment that was never answered may or may not have happened, once; all others happened
/// exactly once.
pub fn assert_counters_linearizable(history: &[Operation], last: &BTreeMap<usize, i64>) {
    for (&counter, &last) in last {
        let of = |action: Action| -> Vec<&Operation> {
            history.iter().filter(|operation| operation.action == action).collect()
        };
        let increments = of(Action::Increment(counter));
        let mut values: Vec<i64> = increments.iter().filter_map(|one| one.number()).collect();
        let (sent, answered) = (increments.len() as i64, values.len() as i64);
        values.sort_unstable();
        let twice = values.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(twice, None, "counter {counter}: two increments got one number");
        let highest = values.last().copied().unwrap_or(0);
        assert!(highest <= last, "counter {counter}: {highest} was acknowledged, {last} is left");
        assert!(
            (answered..=sent).contains(&last),
            "counter {counter} is {last}; {answered} increments were acknowledged of {sent} sent"
        );
        assert_in_order(counter, &increments, &of(Action::Read(counter)));
    }
}

/// In the order of their numbers, no operation may have ended before an earlier one began. Reads
/// of one number have no order among themselves, and stand behind the increment that made it.
fn assert_in_order(counter: usize, increments: &[&Operation], reads: &[&Operation]) {
    let mut places: BTreeMap<(i64, bool), Vec<&Operation>> = BTreeMap::new();
    for (operations, read) in [(increments, false), (reads, true)] {
        for operation in operations {
            if let Some(number) = operation.number() {
                places.entry((number, read)).or_default().push(operation);
            }
        }
    }
    let mut latest: Option<&Operation> = None;
    for group in places.values() {
        for operation in group {
            let (done, _) = operation.done.as_ref().expect("it has a number");
            if let Some(earlier) = latest.filter(|earlier| *done < earlier.sent) {
                panic!("counter {counter}: {operation:?} ended before {earlier:?} began");
            }
        }
        let newest = group.iter().copied().chain(latest).max_by_key(|operation| operation.sent);
        latest = newest;
    }
}
