//! Simulated clients: pipelines of RESP bytes, time-outs, retries elsewhere, moves; and the history
//! of what they were told.
//!
//! A client sends the next pipeline once the last one is answered. One that waits too long drops its
//! connection, doesn't know what became of its commands, and goes to another server. Called by the
//! world. Speaks through the real codecs; never looks into a server.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::history::{Operation, Recorder};
use super::network::StreamId;
use super::script::Settings;
use crate::proto::reply::{Protocol, Reply};
use crate::proto::reply_decoder::{ReplyDecoder, Value};
use crate::types::{Instant, ServerId};

/// The words of one command.
pub(super) type Words = Vec<Vec<u8>>;

/// How long the clients stay with the same keys at least, in milliseconds of a run without
/// suspension: the search through what is in doubt grows with the history of a key.
const GENERATION_MS: u64 = 200;

/// Generations of keys in one run at most: in a long one each lasts for longer.
const GENERATIONS: u64 = 40;

/// How long a generation of keys lasts, in milliseconds.
fn generation_ms(settings: &Settings) -> u64 {
    GENERATION_MS.max(settings.chaos_ms / GENERATIONS)
}

/// The last generation of keys.
fn last_generation(settings: &Settings) -> u64 {
    (settings.chaos_ms / generation_ms(settings)).min(GENERATIONS - 1)
}

/// Which generation of keys the clients use.
fn generation(awake: Duration, settings: &Settings) -> u64 {
    let passed = awake.as_millis() as u64;
    (passed / generation_ms(settings)).min(last_generation(settings))
}

fn shared_key(place: u64, generation: u64) -> Vec<u8> {
    format!("k{place}.{generation}").into_bytes()
}

/// Every key that clients share and the checkers judge.
pub(super) fn shared_keys(settings: &Settings) -> Vec<Vec<u8>> {
    let last = last_generation(settings);
    let keys = |generation| (0..settings.keys).map(move |place| shared_key(place, generation));
    (0..=last).flat_map(keys).collect()
}

/// One client.
pub(super) struct Client {
    number: usize,
    /// Which server it talks to, and over what.
    pub server: ServerId,
    pub stream: Option<StreamId>,
    /// Pipelines sent so far: a time-out is for one of them.
    pub pipelines: u64,
    connection: u32,
    decoder: ReplyDecoder,
    outstanding: VecDeque<Operation>,
    /// What it last read of each shared key, to swap it.
    seen: Vec<Vec<u8>>,
    values: u64,
    pub random: Xoshiro256PlusPlus,
}

impl Client {
    pub fn new(number: usize, random: Xoshiro256PlusPlus, settings: &Settings) -> Client {
        Client {
            number,
            server: ServerId(1 + number as u64 % settings.nodes),
            stream: None,
            pipelines: 0,
            connection: 0,
            decoder: ReplyDecoder::new(),
            outstanding: VecDeque::new(),
            seen: vec![b"0".to_vec(); settings.keys as usize],
            values: 0,
            random,
        }
    }

    /// Whether it waits for replies.
    pub fn is_waiting(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// A connection stands.
    pub fn connected(&mut self, stream: StreamId, recorder: &mut Recorder) {
        self.stream = Some(stream);
        self.connection = recorder.next_connection();
        self.decoder = ReplyDecoder::new();
    }

    /// The connection is gone, and what was not answered is in doubt.
    pub fn disconnected(&mut self, now: Instant, recorder: &mut Recorder) {
        self.stream = None;
        for operation in self.outstanding.drain(..) {
            recorder.unknown(operation, now);
        }
    }

    /// Its next commands, as bytes. `awake`: how long the run has lasted without suspension.
    pub fn next_pipeline(
        &mut self,
        now: Instant,
        awake: Duration,
        settings: &Settings,
        recorder: &mut Recorder,
    ) -> Bytes {
        assert!(self.outstanding.is_empty());
        let count = self.random.random_range(1..=settings.pipeline.max(1));
        let mut out = Vec::new();
        for _ in 0..count {
            let words = self.next_command(awake, settings);
            self.say(now, words, recorder, &mut out);
        }
        self.pipelines += 1;
        out.into()
    }

    /// These commands, as bytes.
    pub fn pipeline_of(
        &mut self,
        now: Instant,
        commands: &[Words],
        recorder: &mut Recorder,
    ) -> Bytes {
        let mut out = Vec::new();
        for words in commands {
            self.say(now, words.clone(), recorder, &mut out);
        }
        self.pipelines += 1;
        out.into()
    }

    fn say(&mut self, now: Instant, words: Words, recorder: &mut Recorder, out: &mut Vec<u8>) {
        let bulks = words.iter().map(|word| Reply::bulk(word)).collect();
        // A request is an array of bulk strings: the same bytes as such a reply.
        Reply::Array(bulks).encode(Protocol::Resp2, out);
        self.outstanding.push_back(recorder.invoke(self.connection, now, words));
    }

    /// Bytes have come. True if that was the last reply awaited.
    pub fn receive(&mut self, now: Instant, bytes: &[u8], recorder: &mut Recorder) -> bool {
        let mut rest = bytes;
        let was_waiting = self.is_waiting();
        while let Some(value) = self.decoder.decode(&mut rest).expect("servers speak RESP") {
            let operation = self.outstanding.pop_front();
            let operation = operation.expect("exactly-once: a reply that nobody asked for");
            self.note(&operation, &value);
            recorder.reply(operation, now, &value);
        }
        was_waiting && !self.is_waiting()
    }

    fn note(&mut self, operation: &Operation, value: &Value) {
        if let (Some(b"GET"), Some(key), Value::Bulk(bytes)) =
            (operation.words.first().map(|w| &w[..]), operation.words.get(1), value)
            && let Some(place) = key.strip_prefix(b"k").and_then(<[u8]>::first)
            && let Some(place) = place.checked_sub(b'0').map(usize::from)
            && let Some(seen) = self.seen.get_mut(place)
        {
            seen.clone_from(bytes);
        }
    }

    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        (self.number as u64 * 1_000_000 + self.values).to_string().into_bytes()
    }

    fn next_command(&mut self, awake: Duration, settings: &Settings) -> Words {
        let place = self.random.random_range(0..settings.keys.max(1));
        let newest = generation(awake, settings);
        let other = shared_key((place + 1) % settings.keys.max(1), newest);
        let key = match self.random.random_range(0..20) {
            // What was acknowledged long ago must still be there.
            0 => shared_key(place, self.random.random_range(0..=newest)),
            _ => shared_key(place, newest),
        };
        let word = |text: &str| text.as_bytes().to_vec();
        match self.random.random_range(0..100) {
            0..25 => vec![word("GET"), key],
            25..40 => vec![word("SET"), key, self.value()],
            40..50 => {
                let old = self.seen[place as usize].clone();
                vec![word("CAS"), key, old, self.value()]
            }
            50..60 => vec![word("INCR"), key],
            60..65 => vec![word("DEL"), key],
            65..68 if newest % 4 == 1 => {
                let key = shared_key(place, newest);
                vec![word("MSET"), key, self.value(), other, self.value()]
            }
            68..79 if newest % 4 == 1 => vec![word("MGET"), shared_key(place, newest), other],
            65..79 => vec![word("GET"), key],
            79..88 => {
                let token = format!("{};", String::from_utf8_lossy(&self.value()));
                vec![word("APPEND"), word("journal"), token.into_bytes()]
            }
            88..92 => {
                let length = self.random.random_range(0..=settings.value_bytes) as usize;
                let letter = b'a' + self.random.random_range(0..26);
                vec![word("SET"), word("blob"), vec![letter; length]]
            }
            92..94 => vec![word("STRLEN"), word("blob")],
            94..97 if settings.expiry > 0 => {
                let most = 1500.max(settings.think_ms * 20);
                let ms = self.random.random_range(20..most).to_string().into_bytes();
                let key = format!("x{}", self.number).into_bytes();
                vec![word("SET"), key, self.value(), word("PX"), ms]
            }
            94..100 if settings.expiry > 0 => {
                vec![word("GET"), format!("x{}", self.number).into_bytes()]
            }
            _ => vec![word("GET"), key],
        }
    }
}
