//! What all clients asked and were told: the history that the checkers judge.
//!
//! Checks of the whole are `linearizability`'s; here is what can be said without a search:
//! *exactly-once* by tokens that are appended to one key, and keys that expire neither early nor
//! twice. Called by the clients.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clients::Words;
use super::linearizability::{self, ClientId, Command, History, OperationId, STEPS};
use crate::proto::reply_decoder::Value;
use crate::types::Instant;

/// The time of the history: microseconds.
fn us(now: Instant) -> u64 {
    now.0 / 1000
}

/// How late a key may be seen to expire: what a server last heard of the cluster's clock may have
/// been under way for as long as a kernel sends it again.
const LATE: Duration = Duration::from_secs(5);

/// The key that clients append their tokens to.
const JOURNAL: &[u8] = b"journal";

/// A command that waits for its reply.
#[derive(Debug)]
pub(super) struct Operation {
    pub words: Words,
    connection: u32,
    invoked: Instant,
    /// When the state that answers it was the newest one, at the earliest.
    state_of: Instant,
    /// Its place in the history, if its keys are judged there.
    recorded: Option<OperationId>,
}

/// What became of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Done,
    NotDone,
    Unknown,
}

/// Keys with deadlines and the journal have checks of their own.
fn is_judged(words: &Words) -> bool {
    let is_of_the_connection = matches!(&words[0][..], b"HELLO" | b"CLIENT");
    !is_of_the_connection
        && words[1..].iter().all(|word| word != JOURNAL)
        && words.get(1).is_some_and(|key| !key.starts_with(b"x"))
}

/// A key that one client alone writes, with a deadline.
#[derive(Default)]
struct Expiring {
    /// What it must hold until when, unless its last write is in doubt.
    promise: Option<(Vec<u8>, Instant)>,
    /// From then on it must be gone, likewise.
    gone_at: Option<Instant>,
    /// Values that it may hold, the writes in doubt among them.
    possible: Vec<Vec<u8>>,
    is_in_doubt: bool,
}

/// Keys that WATCH named, and of when the state is whose revisions it noted, at the earliest, in
/// microseconds.
type Watched = Vec<(Vec<u8>, u64)>;

/// The history of one run.
pub(super) struct Recorder {
    connections: u32,
    history: History,
    tokens: BTreeMap<Vec<u8>, Outcome>,
    expiring: BTreeMap<Vec<u8>, Expiring>,
    /// How much earlier a key may expire than its writer's clock says.
    expiry_slack: Duration,
    /// Since when all servers agree what time it is, if they do: what was promised before doesn't
    /// hold.
    agreed_since: Option<Instant>,
    kept: Option<Vec<(u32, Value)>>,
    pub invoked: u64,
    pub answered: u64,
    pub refused: u64,
    pub in_doubt: u64,
    /// By connection: what is watched since the last EXEC.
    watched: BTreeMap<u32, Watched>,
    /// EXECs that were not carried out: what they watched, and when they were answered.
    discards: Vec<(Watched, u64)>,
    /// Times that EXEC carried out what was queued, and that it didn't, for what was watched.
    pub executed: u64,
    pub discarded: u64,
}

impl Recorder {
    pub fn new(expiry_slack: Duration) -> Recorder {
        Recorder {
            connections: 0,
            history: History::new(),
            tokens: BTreeMap::new(),
            expiring: BTreeMap::new(),
            expiry_slack,
            agreed_since: Some(Instant::ZERO),
            kept: None,
            invoked: 0,
            answered: 0,
            refused: 0,
            in_doubt: 0,
            watched: BTreeMap::new(),
            discards: Vec::new(),
            executed: 0,
            discarded: 0,
        }
    }

    /// The servers may not agree any more what time it is.
    pub fn time_is_open(&mut self) {
        self.agreed_since = None;
        for expiring in self.expiring.values_mut() {
            expiring.promise = None;
            expiring.gone_at = None;
        }
    }

    /// From now on they do.
    pub fn time_is_agreed(&mut self, now: Instant) {
        self.agreed_since = Some(now);
    }

    /// Keys with a deadline of which it is known until when they are there.
    pub fn promised_keys(&self) -> Vec<Vec<u8>> {
        let promised = self.expiring.iter().filter(|(_, expiring)| expiring.promise.is_some());
        promised.map(|(key, _)| key.clone()).collect()
    }

    /// Whether a write of that key with a deadline may still take effect at any time.
    pub fn is_in_doubt(&self, key: &[u8]) -> bool {
        self.expiring.get(key).is_some_and(|expiring| expiring.is_in_doubt)
    }

    /// The number of a new connection.
    pub fn next_connection(&mut self) -> u32 {
        self.connections += 1;
        self.connections
    }

    /// From now on replies are kept for whoever reads everything back.
    pub fn keep_replies(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// The replies since then over that connection.
    pub fn take_replies(&mut self, connection: u32) -> Vec<Value> {
        let kept = self.kept.take().unwrap_or_default().into_iter();
        kept.filter(|(over, _)| *over == connection).map(|(_, value)| value).collect()
    }

    /// A command is handed to the network.
    pub fn invoke(&mut self, connection: u32, now: Instant, words: Words) -> Operation {
        let recorded = is_judged(&words).then(|| {
            let borrowed: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
            let command = Command::from_words(&borrowed).expect("clients say what is modelled");
            self.history.invoke(ClientId(connection), us(now), command)
        });
        self.invoked += 1;
        Operation { words, connection, invoked: now, state_of: now, recorded }
    }

    /// The same for one that nothing is said about by itself.
    pub fn invoke_apart(&mut self, connection: u32, now: Instant, words: Words) -> Operation {
        self.invoked += 1;
        Operation { words, connection, invoked: now, state_of: now, recorded: None }
    }

    /// The same for WATCH, by a server whose state was the newest one until `state_of`, and may
    /// have been behind since: it notes what that server has.
    pub fn invoke_watch(
        &mut self,
        connection: u32,
        now: Instant,
        state_of: Instant,
        words: Words,
    ) -> Operation {
        Operation { state_of: state_of.min(now), ..self.invoke_apart(connection, now, words) }
    }

    /// The same for one that stands for `model`.
    pub fn invoke_as(
        &mut self,
        connection: u32,
        now: Instant,
        words: Words,
        model: &Words,
    ) -> Operation {
        let borrowed: Vec<&[u8]> = model.iter().map(|word| &word[..]).collect();
        let command = Command::from_words(&borrowed).expect("clients say what is modelled");
        let recorded = Some(self.history.invoke(ClientId(connection), us(now), command));
        Operation { recorded, ..self.invoke_apart(connection, now, words) }
    }

    /// It was answered.
    pub fn reply(&mut self, operation: Operation, now: Instant, value: &Value) {
        if let Some(kept) = &mut self.kept {
            kept.push((operation.connection, value.clone()));
        }
        // What follows would be carried out by itself.
        let is_begun = operation.words[0] != b"MULTI" || *value == Value::Simple("OK".to_owned());
        assert!(is_begun, "linearizable: no transaction is begun: {value:?}");
        self.note_transaction(&operation, now, value);
        let outcome = match value {
            Value::Error(text) if text.starts_with("INDOUBT") => Outcome::Unknown,
            Value::Error(text)
                if ["CLUSTERDOWN", "MISCONF", "LOADING", "EXECABORT"]
                    .iter()
                    .any(|word| text.starts_with(word)) =>
            {
                Outcome::NotDone
            }
            Value::Error(text) if text.starts_with("ERR value is not an integer") => Outcome::Done,
            Value::Error(text) => panic!("a reply that no fault explains: {text}"),
            _ => Outcome::Done,
        };
        if let Some(id) = operation.recorded {
            self.history.reply(id, us(now), value);
        }
        match outcome {
            Outcome::Done => self.answered += 1,
            Outcome::NotDone => self.refused += 1,
            Outcome::Unknown => self.in_doubt += 1,
        }
        self.settle(&operation, outcome, now, Some(value));
    }

    fn note_transaction(&mut self, operation: &Operation, now: Instant, value: &Value) {
        let watched = self.watched.entry(operation.connection).or_default();
        match (&operation.words[0][..], value) {
            (b"WATCH", Value::Simple(_)) => {
                let keys = operation.words[1..].iter();
                watched.extend(keys.map(|key| (key.clone(), us(operation.state_of))));
            }
            (b"EXEC", Value::Nil) => {
                self.discards.push((std::mem::take(watched), us(now)));
                self.discarded += 1;
            }
            (b"EXEC", Value::Array(_)) => {
                watched.clear();
                self.executed += 1;
            }
            _ => {}
        }
    }

    /// It never will be.
    pub fn unknown(&mut self, operation: Operation, now: Instant) {
        self.in_doubt += 1;
        if let Some(id) = operation.recorded {
            self.history.unknown(id, us(now));
        }
        self.settle(&operation, Outcome::Unknown, now, None);
    }

    fn settle(
        &mut self,
        operation: &Operation,
        outcome: Outcome,
        now: Instant,
        value: Option<&Value>,
    ) {
        let words: Vec<&[u8]> = operation.words.iter().map(|word| &word[..]).collect();
        match words[..] {
            [b"APPEND", JOURNAL, token] => {
                let before = self.tokens.insert(token.to_vec(), outcome);
                assert!(before.is_none(), "a token is appended once");
            }
            [b"SET", key, value, b"PX", ms] => {
                let ms = String::from_utf8_lossy(ms).parse().expect("a client wrote a number");
                let during = (operation.invoked, now);
                self.expiring_set(key, value, during, Duration::from_millis(ms), outcome);
            }
            [b"GET", key] if key.starts_with(b"x") && outcome == Outcome::Done => {
                let value = value.expect("what is done was answered");
                self.expiring_read(key, value, operation, now);
            }
            _ => {}
        }
    }

    fn expiring_set(
        &mut self,
        key: &[u8],
        value: &[u8],
        (invoked, replied): (Instant, Instant),
        lifetime: Duration,
        was: Outcome,
    ) {
        let is_agreed = self.agreed_since.is_some_and(|since| since <= invoked);
        let expiring = self.expiring.entry(key.to_vec()).or_default();
        match was {
            Outcome::NotDone => {}
            Outcome::Unknown => {
                expiring.possible.push(value.to_vec());
                expiring.promise = None;
                expiring.gone_at = None;
                expiring.is_in_doubt = true;
            }
            Outcome::Done => {
                // Whatever was in doubt on an older connection may still come to pass, later.
                if !expiring.is_in_doubt {
                    expiring.possible.clear();
                }
                expiring.possible.push(value.to_vec());
                let until = invoked.after(lifetime);
                let is_sure = !expiring.is_in_doubt && is_agreed;
                expiring.promise = is_sure.then(|| (value.to_vec(), until));
                expiring.gone_at = is_sure.then(|| replied.after(lifetime));
            }
        }
    }

    fn expiring_read(&mut self, key: &[u8], value: &Value, read: &Operation, now: Instant) {
        let connection = read.connection;
        let slack = self.expiry_slack;
        let expiring = self.expiring.entry(key.to_vec()).or_default();
        match value {
            Value::Bulk(bytes) => {
                let is_possible = expiring.possible.contains(bytes);
                let name = String::from_utf8_lossy(key);
                assert!(is_possible, "linearizable: {name} is back from the dead ({connection})");
                if let Some(gone_at) = expiring.gone_at {
                    let is_late = read.invoked > gone_at.after(slack + LATE);
                    let late = read.invoked.since(gone_at);
                    assert!(!is_late, "linearizable: {name} expires {late:?} late");
                }
            }
            Value::Nil => {
                if let Some((_, until)) = &expiring.promise {
                    let is_early = now.after(slack) < *until;
                    let early = until.since(now);
                    assert!(!is_early, "linearizable: a key expires {early:?} early");
                }
                if !expiring.is_in_doubt {
                    expiring.possible.clear();
                }
                expiring.promise = None;
                expiring.gone_at = None;
            }
            other => panic!("no reply to GET: {other:?}"),
        }
    }

    /// Linearizable: every history is. A search that runs out of steps has not shown it.
    pub fn check_linearizable(&self) {
        if let Err(failure) = linearizability::check(&self.history, STEPS) {
            panic!("{failure}");
        }
        for (watched, at_us) in &self.discards {
            let is_touched =
                |(key, from): &(Vec<u8>, u64)| self.history.may_be_written(key, *from, *at_us);
            assert!(
                watched.iter().any(is_touched),
                "linearizable: EXEC is not carried out at {at_us} us, and nobody wrote {watched:?}"
            );
        }
    }

    /// Exactly-once: what the journal holds at the end is what was done, once each, and of the rest
    /// only what is in doubt.
    pub fn check_journal(&self, journal: &[u8]) {
        let mut count: BTreeMap<&[u8], u32> = BTreeMap::new();
        for token in journal.split_inclusive(|byte| *byte == b';') {
            *count.entry(token).or_default() += 1;
        }
        for (token, outcome) in &self.tokens {
            let times = count.remove(&token[..]).unwrap_or(0);
            let name = String::from_utf8_lossy(token);
            match outcome {
                Outcome::Done => assert_eq!(times, 1, "exactly-once: {name} was acknowledged"),
                Outcome::NotDone => assert_eq!(times, 0, "exactly-once: {name} was refused"),
                Outcome::Unknown => {
                    assert!(times <= 1, "exactly-once: {name} is there {times} times")
                }
            }
        }
        assert!(count.is_empty(), "the journal holds what nobody appended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Words {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn at(us: u64) -> Instant {
        Instant(us * 1000)
    }

    /// One client writes the key from 10 to 20; another says WATCH at 30, of a state of `state_of`,
    /// and is told at 50 that EXEC is not carried out.
    fn discarded(state_of: u64) -> Recorder {
        let mut recorder = Recorder::new(Duration::ZERO);
        let write = recorder.invoke(1, at(10), words("SET t 1"));
        recorder.reply(write, at(20), &Value::Simple("OK".to_owned()));
        let watch = recorder.invoke_watch(2, at(30), at(state_of), words("WATCH t"));
        let read = recorder.invoke(2, at(30), words("GET t"));
        recorder.reply(watch, at(40), &Value::Simple("OK".to_owned()));
        recorder.reply(read, at(40), &Value::Bulk(b"1".to_vec()));
        let txn = words("TXN IF VALUE t 1 THEN 3 SET t 2");
        let exec = recorder.invoke_as(2, at(45), words("EXEC"), &txn);
        recorder.reply(exec, at(50), &Value::Nil);
        recorder
    }

    /// WATCH notes the revisions that its server has: behind, it makes EXEC answer nil for a write
    /// that was over before.
    #[test]
    fn exec_behind_the_watch_of_a_server_that_is_behind_may_be_discarded() {
        for state_of in [0, 15, 20] {
            discarded(state_of).check_linearizable();
        }
    }

    #[test]
    #[should_panic(expected = "nobody wrote")]
    fn exec_is_carried_out_if_its_server_had_seen_every_write() {
        discarded(21).check_linearizable();
    }
}
