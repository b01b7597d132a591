//! What clients saw of the registers, as a history for the library's checker of linearizability.
//!
//! The order of a history is that of the clients' own clocks, which are one clock here: a command
//! begins when its bytes were handed to the kernel, and ends when its reply was read. Called by
//! `verdict`; the tests at the end give it histories that cannot be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use raftkv::sim::linearizability::{
    Answer, ClientId, Command, Failure, History, OperationId, STEPS, Verdict, check,
};

use super::workload::{Asked, Operation, Outcome, Story};
use crate::common::Reply;

/// An invocation, or the end of the operation that was invoked.
struct Event<'a> {
    at: Instant,
    /// An end comes behind an invocation of the same instant: what overlaps has no order.
    is_end: bool,
    connection: u32,
    operation: &'a Operation,
    words: &'a [String],
}

/// What each generation of registers was found to be.
#[derive(Default, Debug)]
pub struct Checked {
    pub generations: usize,
    pub operations: usize,
    pub components: usize,
    /// The most steps that one generation took, of [`STEPS`].
    pub most_steps: u64,
}

/// Whether every generation's history is linearizable.
///
/// # Errors
/// The first generation's that is not, or that could not be searched through.
pub fn judge<'a>(stories: impl IntoIterator<Item = &'a Story>) -> Result<Checked, Failure> {
    let mut generations: BTreeMap<u64, Vec<Event<'_>>> = BTreeMap::new();
    let connections = stories.into_iter().flat_map(|story| &story.connections);
    for (connection, operations) in (0_u32..).zip(connections) {
        for operation in operations {
            let Asked::Searched { generation, words } = &operation.asked else { continue };
            let events = generations.entry(*generation).or_default();
            let event = |at, is_end| Event { at, is_end, connection, operation, words };
            events.push(event(operation.sent, false));
            if let Outcome::Answered(at, _) | Outcome::NotDone(at) = operation.outcome {
                events.push(event(at, true));
            }
        }
    }
    let mut checked = Checked::default();
    for (_, events) in generations {
        let Verdict { operations, components, steps } = check(&history(events), STEPS)?;
        checked.generations += 1;
        checked.operations += operations;
        checked.components += components;
        checked.most_steps = checked.most_steps.max(steps);
    }
    Ok(checked)
}

/// The events of one generation in the order of time. Those of one pipeline were sent at one
/// instant and stay in their order.
fn history(mut events: Vec<Event<'_>>) -> History {
    events.sort_by_key(|event| (event.at, event.is_end));
    let began = events.first().map_or_else(Instant::now, |event| event.at);
    let mut history = History::new();
    let mut open: BTreeMap<*const Operation, OperationId> = BTreeMap::new();
    for Event { at, is_end, connection, operation, words } in events {
        let at_us = at.duration_since(began).as_micros() as u64;
        if !is_end {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let command = Command::from_words(&words).expect("clients say what is modelled");
            let id = history.invoke(ClientId(connection), at_us, command);
            open.insert(operation, id);
            continue;
        }
        let id = open.remove(&std::ptr::from_ref(operation)).expect("it was invoked before");
        match &operation.outcome {
            Outcome::Answered(_, reply) => history.answer(id, at_us, answer(reply)),
            Outcome::NotDone(_) => history.not_done(id, at_us),
            Outcome::InDoubt => unreachable!("it has no end"),
        }
    }
    history
}

fn answer(reply: &Reply) -> Answer {
    let value = |reply: &Reply| match reply {
        Reply::Bulk(value) => Some(value.clone()),
        Reply::Nil => None,
        other => panic!("no value of MGET: {other:?}"),
    };
    match reply {
        Reply::Simple(text) if text == "OK" => Answer::Ok,
        Reply::Nil => Answer::Nil,
        Reply::Integer(number) => Answer::Integer(*number),
        Reply::Bulk(value) => Answer::Value(value.clone()),
        Reply::Array(values) => Answer::Values(values.iter().map(value).collect()),
        Reply::Simple(text) | Reply::Error(text) => Answer::Error(text.clone()),
    }
}

/// A story that a test makes up: by connection, each command with its milliseconds and reply.
struct MadeUp {
    began: Instant,
    story: Story,
}

impl MadeUp {
    fn new() -> MadeUp {
        MadeUp { began: Instant::now(), story: Story::default() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn push(mut self, line: &str, sent_ms: u64, outcome: Outcome) -> MadeUp {
        let (asked, sent) = (Asked::line(0, line), self.at(sent_ms));
        let address = "a node".to_owned();
        self.story.connections.push(vec![Operation { address, asked, sent, outcome }]);
        self
    }

    fn told(self, line: &str, sent_ms: u64, done_ms: u64, reply: Reply) -> MadeUp {
        let outcome = Outcome::Answered(self.at(done_ms), reply);
        self.push(line, sent_ms, outcome)
    }

    fn set(self, value: &str, sent_ms: u64, done_ms: u64) -> MadeUp {
        self.told(&format!("SET k {value}"), sent_ms, done_ms, Reply::ok())
    }

    fn get(self, value: &str, sent_ms: u64, done_ms: u64) -> MadeUp {
        let reply = if value.is_empty() { Reply::Nil } else { Reply::bulk(value) };
        self.told("GET k", sent_ms, done_ms, reply)
    }

    fn number(self, line: &str, sent_ms: u64, done_ms: u64, number: i64) -> MadeUp {
        self.told(line, sent_ms, done_ms, Reply::Integer(number))
    }

    fn refused(self, line: &str, sent_ms: u64, done_ms: u64) -> MadeUp {
        let outcome = Outcome::NotDone(self.at(done_ms));
        self.push(line, sent_ms, outcome)
    }

    fn in_doubt(self, line: &str, sent_ms: u64) -> MadeUp {
        self.push(line, sent_ms, Outcome::InDoubt)
    }

    fn mget(self, values: [&str; 2], sent_ms: u64, done_ms: u64) -> MadeUp {
        let reply = Reply::Array(values.map(Reply::bulk).to_vec());
        self.told("MGET k l", sent_ms, done_ms, reply)
    }
}

#[test]
fn judge_accepts_what_is_possible() {
    let new = MadeUp::new;
    let good = [
        new().get("", 1, 2).set("1", 3, 4).get("1", 5, 6),
        // Both reads run beside the write.
        new().set("1", 1, 9).get("1", 2, 3).get("1", 4, 5),
        new().set("1", 1, 9).get("", 2, 3).get("1", 4, 5),
        // A write in doubt takes effect late, or never; one that was not done never does.
        new().set("1", 1, 2).in_doubt("SET k 3", 3).get("1", 4, 5).get("3", 6, 7),
        new().set("1", 1, 2).in_doubt("SET k 3", 3).get("1", 4, 5).get("1", 6, 7),
        new().set("1", 1, 2).refused("SET k 3", 3, 4).get("1", 5, 6),
        new().set("1", 1, 2).number("CAS k 1 2", 3, 4, 1).number("CAS k 1 5", 5, 6, 0),
        new().number("INCR k", 1, 5, 2).number("INCR k", 2, 4, 1).number("DEL k", 6, 7, 1),
        new().told("MSET k 1 l 2", 1, 9, Reply::ok()).get("1", 2, 3).mget(["1", "2"], 4, 5),
    ];
    for (number, made_up) in good.into_iter().enumerate() {
        let checked = judge([&made_up.story]);
        assert!(checked.is_ok(), "{number}: {}", checked.expect_err("just seen"));
    }
}

#[test]
fn judge_rejects_each_anomaly() {
    let new = MadeUp::new;
    let bad = [
        ("stale read", new().set("1", 1, 2).set("2", 3, 4).get("1", 5, 6)),
        ("lost write", new().set("1", 1, 2).get("", 3, 4)),
        ("invented", new().get("7", 1, 2)),
        ("from the future", new().get("1", 1, 2).set("1", 3, 4)),
        ("not done, and done", new().refused("SET k 1", 1, 2).get("1", 3, 4)),
        (
            "lost update",
            new().number("CAS k 0 1", 2, 9, 1).number("CAS k 0 2", 3, 8, 1).set("0", 0, 1),
        ),
        ("wrong refusal", new().set("1", 1, 2).number("CAS k 1 2", 3, 4, 0)),
        ("counted twice", new().number("INCR k", 1, 2, 1).in_doubt("INCR k", 3).get("3", 4, 5)),
        ("one number for two", new().number("INCR k", 1, 9, 1).number("INCR k", 2, 8, 1)),
        ("deleted, and there", new().set("1", 1, 2).number("DEL k", 3, 4, 1).get("1", 5, 6)),
        ("split brain", new().set("1", 1, 2).set("2", 3, 4).get("2", 5, 6).get("1", 7, 8)),
        (
            "back and forth",
            new().set("1", 1, 20).set("2", 1, 20).get("1", 2, 3).get("2", 4, 5).get("1", 6, 7),
        ),
        ("half of a MSET", {
            let first = new().told("MSET k 1 l 1", 1, 2, Reply::ok());
            first.told("MSET k 2 l 2", 3, 9, Reply::ok()).mget(["2", "1"], 4, 5)
        }),
    ];
    for (name, made_up) in bad {
        let failure = judge([&made_up.story]).expect_err(name);
        assert!(matches!(failure, Failure::Contradiction(_)), "{name}: {failure}");
    }
}

#[test]
fn judge_keeps_the_order_of_a_connection() {
    // The two commands of a pipeline begin at one instant; only their order says that this is bad.
    let mut made_up = MadeUp::new();
    let (sent, done) = (made_up.at(1), made_up.at(2));
    let operation = |line: &str, reply: Reply| Operation {
        address: "a node".to_owned(),
        asked: Asked::line(0, line),
        sent,
        outcome: Outcome::Answered(done, reply),
    };
    let pipeline = vec![operation("SET k 1", Reply::ok()), operation("GET k", Reply::Nil)];
    made_up.story.connections.push(pipeline.clone());
    judge([&made_up.story]).expect_err("a client reads its own write");
    made_up.story.connections = pipeline.into_iter().map(|one| vec![one]).collect();
    judge([&made_up.story]).expect("two clients' commands overlap");
}
