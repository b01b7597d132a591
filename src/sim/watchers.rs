//! Simulated watchers: they watch a prefix at one server, are cut off or move on, and go on at
//! another one behind the last revision that they were told.
//!
//! What they are told is judged word by word by [`super::checkers`] (*watch-lossless*). Called by
//! the world for each event that concerns a watcher. Speaks through the real codecs; never looks
//! into a server.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::link::Gate;
use super::network::{Host, StreamId};
use super::process::Mail;
use super::script::Settings;
use super::world::{Event, World};
use crate::proto::reply::{Protocol, Reply};
use crate::proto::reply_decoder::{ReplyDecoder, Value};
use crate::types::{Revision, ServerId};

/// What is drawn here is not what is drawn elsewhere from the same seed.
const SALT: u64 = 0x7e7e_5eed_e7e7_5eed;
const WAYS_SALT: u64 = 0x1ee1_5eed_1ee1_5eed;

/// How long a watcher waits before it tries another server, in microseconds at most.
const PAUSE_US: u64 = 50_000;

/// What is watched: everything, the clients' shared keys, and those that expire.
const PREFIXES: [&[u8]; 4] = [b"", b"k", b"k", b"x"];

/// Draws what the settings say of it.
pub(super) fn settle(seed: u64, settings: &mut Settings) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT);
    settings.watchers = [0, 0, 0, 1, 2][random.random_range(0..5)];
}

/// One watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    prefix: &'static [u8],
    protocol: Protocol,
    server: ServerId,
    stream: Option<StreamId>,
    decoder: ReplyDecoder,
    /// What it awaits before it is told changes: the answers to HELLO and to KWATCH.
    stage: Stage,
    /// It was told everything up to this; nothing where it begins, or has to begin anew.
    told: Option<Revision>,
    /// Watches so far: a time to move on is for one of them.
    watches: u64,
    random: Xoshiro256PlusPlus,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Introduced,
    Asked,
    Watching,
}

impl Watcher {
    /// All watchers of a run.
    pub fn all(seed: u64, settings: &Settings) -> Vec<Watcher> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ WAYS_SALT);
        let watcher = |_| Watcher {
            prefix: PREFIXES[random.random_range(0..PREFIXES.len())],
            protocol: [Protocol::Resp2, Protocol::Resp3][random.random_range(0..2)],
            server: ServerId(1),
            stream: None,
            decoder: ReplyDecoder::new(),
            stage: Stage::Asked,
            told: None,
            watches: 0,
            random: Xoshiro256PlusPlus::seed_from_u64(random.random_range(0..=u64::MAX)),
        };
        (0..settings.watchers).map(watcher).collect()
    }

    fn request(&self) -> bytes::Bytes {
        let mut out = Vec::new();
        let mut say = |words: &[&[u8]]| {
            let bulks = words.iter().map(|word| Reply::bulk(word)).collect();
            Reply::Array(bulks).encode(Protocol::Resp2, &mut out);
        };
        if self.protocol == Protocol::Resp3 {
            say(&[b"HELLO", b"3"]);
        }
        match self.told {
            None => say(&[b"KWATCH", self.prefix]),
            Some(told) => say(&[b"KWATCH", self.prefix, b"FROM", told.0.to_string().as_bytes()]),
        }
        out.into()
    }

    /// What it knows of its prefix.
    pub fn told(&self) -> (&'static [u8], Option<Revision>) {
        (self.prefix, self.told)
    }
}

impl World {
    /// A watcher's next step: it watches at a server of its choice.
    pub(super) fn watcher_acts(&mut self, number: usize) {
        if self.watchers[number].stream.is_some() {
            return;
        }
        if self.sleeps_until > self.now {
            self.plan(self.sleeps_until.since(self.now), Event::Watcher { watcher: number });
            return;
        }
        // In the end one must find a server that is told everything: who has left isn't.
        let servers = match self.is_healing {
            true => self.sound(),
            false => self.ids(),
        };
        if servers.is_empty() {
            return self.watcher_pauses(number);
        }
        let watcher = &mut self.watchers[number];
        let server = servers[watcher.random.random_range(0..servers.len())];
        let (here, there) = (Host::Watcher(number), Host::Server(server));
        if self.node(server).is_none() || !self.network.passes(here, there) {
            return self.watcher_pauses(number);
        }
        let stream = self.network.connect(here, there);
        self.give(server, Mail::Accepted(stream, Gate::Client));
        let watcher = &mut self.watchers[number];
        watcher.server = server;
        watcher.stream = Some(stream);
        watcher.decoder = ReplyDecoder::new();
        watcher.stage = match watcher.protocol {
            Protocol::Resp2 => Stage::Asked,
            Protocol::Resp3 => Stage::Introduced,
        };
        watcher.watches += 1;
        let (bytes, watch) = (watcher.request(), watcher.watches);
        self.network.send(self.now, stream, 0, bytes);
        if self.watchers[number].told.is_some() {
            self.strike("watch-resumed");
        }
        let patience = Duration::from_millis(self.script.settings.client_timeout_ms);
        self.plan(patience, Event::WatchEnds { watcher: number, watch });
    }

    fn watcher_pauses(&mut self, number: usize) {
        let pause = self.watchers[number].random.random_range(0..PAUSE_US);
        self.plan(Duration::from_micros(pause), Event::Watcher { watcher: number });
    }

    /// The watcher has been there for long enough, told anything or not, and moves on.
    pub(super) fn watcher_moves_on(&mut self, number: usize, watch: u64) {
        if self.watchers[number].watches == watch {
            self.end_watch(number);
        }
    }

    fn end_watch(&mut self, number: usize) {
        if let Some(stream) = self.watchers[number].stream.take() {
            self.network.close(self.now, stream, 0);
            self.watcher_pauses(number);
        }
    }

    pub(super) fn watcher_loses(&mut self, number: usize, stream: StreamId) {
        if self.watchers[number].stream == Some(stream) {
            self.watchers[number].stream = None;
            self.watcher_pauses(number);
        }
    }

    pub(super) fn watcher_receives(&mut self, number: usize, stream: StreamId, bytes: &[u8]) {
        self.fold(self.now.0 ^ !(number as u64));
        self.fold(u64::from(crc32fast::hash(bytes)));
        let mut rest = bytes;
        while self.watchers[number].stream == Some(stream) {
            let value = self.watchers[number].decoder.decode(&mut rest);
            let Some(value) = value.expect("servers speak RESP") else {
                return;
            };
            self.watcher_hears(number, value);
        }
    }

    fn watcher_hears(&mut self, number: usize, value: Value) {
        let watcher = &mut self.watchers[number];
        match (watcher.stage, value) {
            (Stage::Introduced, Value::Map(_)) => watcher.stage = Stage::Asked,
            (Stage::Asked, Value::Integer(after)) => {
                let after = Revision(after.try_into().expect("revisions are not negative"));
                let told = *watcher.told.get_or_insert(after);
                assert_eq!(told, after, "watch-lossless: w{number} goes on elsewhere");
                watcher.stage = Stage::Watching;
                self.checkers.check_begun(after);
            }
            (Stage::Introduced | Stage::Asked, Value::Error(text)) => {
                if let Some(rest) = text.strip_prefix("COMPACTED ") {
                    let floor = rest.split(' ').next().and_then(|word| word.parse().ok());
                    let floor = Revision(floor.expect("the answer names a revision"));
                    assert!(
                        watcher.told < Some(floor),
                        "watch-lossless: {floor} isn't behind w{number}"
                    );
                    watcher.told = None;
                    self.strike("watch-compacted");
                }
                self.end_watch(number);
            }
            (Stage::Watching, Value::Array(words) | Value::Push(words)) => {
                let (prefix, told) = (watcher.prefix, watcher.told.expect("it has begun"));
                if self.checkers.distrusted.contains(&watcher.server) {
                    return;
                }
                let told = self.checkers.check_told(prefix, told, &words);
                self.watchers[number].told = told;
                if told.is_none() {
                    self.strike("watch-compacted");
                    self.end_watch(number);
                }
            }
            (stage, value) => panic!("watch-lossless: w{number} is told {value:?} when {stage:?}"),
        }
    }
}
