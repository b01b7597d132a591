//! What simulated clients do with transactions: TXN, MULTI ... EXEC, and EXEC behind WATCH and a read.
//!
//! They have two keys of their own, which are read and written alone too. An EXEC behind WATCH is
//! carried out only if what was read behind WATCH is still so: in the history it is a TXN that
//! compares. Called by [`super::clients`]. Judges no answer.

use std::time::Duration;

use rand::RngExt;

use super::clients::{Client, Words, generation, last_generation};
use super::history::{Operation, Recorder};
use super::script::Settings;
use super::sessions::Said;
use crate::proto::reply_decoder::Value;
use crate::types::Instant;

/// Keys that transactions are on.
const KEYS: u64 = 2;

/// What a client watches on its connection.
#[derive(Default)]
pub(super) enum Watch {
    #[default]
    Nothing,
    /// This key, which it reads then.
    Asked(Vec<u8>),
    /// This key, which held that when it was read.
    Seen(Vec<u8>, Option<Vec<u8>>),
}

fn transaction_key(place: u64, generation: u64) -> Vec<u8> {
    format!("t{place}.{generation}").into_bytes()
}

/// Every key that transactions are on.
pub(super) fn transaction_keys(settings: &Settings) -> Vec<Vec<u8>> {
    if settings.transactions == 0 {
        return Vec::new();
    }
    let keys = |generation| (0..KEYS).map(move |place| transaction_key(place, generation));
    (0..=last_generation(settings)).flat_map(keys).collect()
}

/// Whether these words are sent once more elsewhere on their own, where they were given up.
pub(super) fn stands_alone(words: &Words) -> bool {
    !matches!(&words[0][..], b"MULTI" | b"EXEC" | b"WATCH")
}

fn words(parts: &[&[u8]]) -> Words {
    parts.iter().map(|part| part.to_vec()).collect()
}

impl Client {
    /// The next thing that has to do with transactions, as bytes behind `out`.
    pub(super) fn transact(
        &mut self,
        now: Instant,
        awake: Duration,
        settings: &Settings,
        recorder: &mut Recorder,
        out: &mut Vec<u8>,
    ) {
        let newest = generation(awake, settings);
        let place = self.random.random_range(0..KEYS);
        let (one, other) =
            (transaction_key(place, newest), transaction_key((place + 1) % KEYS, newest));
        if let Watch::Seen(key, value) = std::mem::take(&mut self.watch) {
            return self.execute(now, Some((key, value)), &one, &other, recorder, out);
        }
        match self.random.random_range(0..6) {
            0 => {
                let old = self.held.clone();
                let (new, too) = (self.value(), self.value());
                let txn: [&[u8]; 20] = [
                    b"TXN", b"IF", b"VALUE", &one, &old, b"THEN", b"3", b"SET", &one, &new,
                    b"THEN", b"3", b"SET", &other, &too, b"ELSE", b"2", b"GET", &other, b"ELSE",
                ];
                let end: [&[u8]; 3] = [b"2", b"GET", &one];
                self.say(now, words(&[&txn[..], &end[..]].concat()), recorder, out);
            }
            1 => self.execute(now, None, &one, &other, recorder, out),
            2 => {
                self.say_watch(now, words(&[b"WATCH", &one]), recorder, out);
                self.say(now, words(&[b"GET", &one]), recorder, out);
                self.watch = Watch::Asked(one);
            }
            3 => {
                let value = self.value();
                self.say(now, words(&[b"SET", &one, &value]), recorder, out);
            }
            _ => self.say(now, words(&[b"MGET", &one, &other]), recorder, out),
        }
    }

    /// MULTI to EXEC. What was watched must still be as it was seen.
    fn execute(
        &mut self,
        now: Instant,
        seen: Option<(Vec<u8>, Option<Vec<u8>>)>,
        one: &[u8],
        other: &[u8],
        recorder: &mut Recorder,
        out: &mut Vec<u8>,
    ) {
        let (new, too) = (self.value(), self.value());
        let queued: [Words; 3] =
            [words(&[b"SET", one, &new]), words(&[b"GET", other]), words(&[b"SET", other, &too])];
        let mut txn = words(&[b"TXN"]);
        match seen {
            Some((key, Some(value))) => txn.extend(words(&[b"IF", b"VALUE", &key, &value])),
            Some((key, None)) => txn.extend(words(&[b"IF", b"MISSING", &key])),
            None => {}
        }
        self.say_apart(now, words(&[b"MULTI"]), recorder, out);
        for command in queued {
            txn.extend(words(&[b"THEN", command.len().to_string().as_bytes()]));
            txn.extend(command.iter().cloned());
            self.say_apart(now, command, recorder, out);
        }
        let exec = words(&[b"EXEC"]);
        self.encode(&exec, out);
        let operation = recorder.invoke_as(self.connection, now, exec, &txn);
        self.outstanding.push_back(Said { operation, number: 0, is_repeated: false });
    }

    /// A command whose answer says nothing of any key.
    fn say_apart(
        &mut self,
        now: Instant,
        words: Words,
        recorder: &mut Recorder,
        out: &mut Vec<u8>,
    ) {
        self.encode(&words, out);
        let operation = recorder.invoke_apart(self.connection, now, words);
        self.await_apart(operation);
    }

    fn say_watch(
        &mut self,
        now: Instant,
        words: Words,
        recorder: &mut Recorder,
        out: &mut Vec<u8>,
    ) {
        self.encode(&words, out);
        let state_of = self.server_state_of;
        let operation = recorder.invoke_watch(self.connection, now, state_of, words);
        self.await_apart(operation);
    }

    fn await_apart(&mut self, operation: Operation) {
        // The node answers it by itself, however little it has applied.
        self.introduces_itself = true;
        self.outstanding.push_back(Said { operation, number: 0, is_repeated: false });
    }

    /// What a key of transactions held. Read behind WATCH, and last of its pipeline, it is what is
    /// watched; any later read of that key would do as well.
    pub(super) fn note_watched(&mut self, words: &Words, value: &Value) {
        if words.get(1).is_none_or(|key| !key.starts_with(b"t")) {
            return;
        }
        let held = match value {
            Value::Bulk(bytes) => Some(bytes.clone()),
            Value::Nil => None,
            _ => return,
        };
        self.held = held.clone().unwrap_or_default();
        let is_watched = matches!(&self.watch, Watch::Asked(key) if *key == words[1]);
        if is_watched && words[0] == b"GET" && self.outstanding.is_empty() {
            self.watch = Watch::Seen(words[1].clone(), held);
        }
    }
}
