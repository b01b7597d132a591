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
use super::sessions::{Meaning, Said, Session};
use super::transactions::{Watch, stands_alone};
use crate::limits;
use crate::proto::reply::{Protocol, Reply};
use crate::proto::reply_decoder::{ReplyDecoder, Value};
use crate::types::{Instant, LogIndex, ServerId};

/// The words of one command.
pub(super) type Words = Vec<Vec<u8>>;

/// How long the clients stay with the same keys at least, in milliseconds of a run without
/// suspension: the search through what is in doubt grows with the history of a key.
const GENERATION_MS: u64 = 200;

/// Generations of keys in one run at most.
const GENERATIONS: u64 = 40;

/// One number of a session in so many is lost.
const LOST_NUMBER_IN: u64 = 50;

/// What a client that never reads asks for again and again.
const FLOOD_VALUE_BYTES: usize = 64 * 1024;

/// What is no command, and after which nothing else is read.
const NONSENSE: &[u8] = b"*1\r\n:4\r\n";

/// How a server answers what it doesn't take.
fn refusal(words: &Words) -> Option<&'static str> {
    match &words[..] {
        [word] if word == NONSENSE => Some("ERR Protocol error"),
        [word] if word == b"GET" => Some("ERR wrong number of arguments"),
        _ => None,
    }
}

/// A request is an array of bulk strings: the same bytes as such a reply.
fn as_array(words: &[Vec<u8>], out: &mut Vec<u8>) {
    let bulks = words.iter().map(|word| Reply::bulk(word)).collect();
    Reply::Array(bulks).encode(Protocol::Resp2, out);
}

/// Which generation of keys the clients use.
pub(super) fn generation(awake: Duration, settings: &Settings) -> u64 {
    let passed = awake.as_millis() as u64;
    (passed / generation_ms(settings)).min(last_generation(settings))
}

fn generation_ms(settings: &Settings) -> u64 {
    GENERATION_MS.max(settings.chaos_ms / GENERATIONS)
}

pub(super) fn last_generation(settings: &Settings) -> u64 {
    (settings.chaos_ms / generation_ms(settings)).min(GENERATIONS - 1)
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

/// How a client behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// As a client library does.
    Plain,
    /// It says `HELLO 3` first.
    Resp3,
    /// It types lines.
    Inline,
    /// Its bytes come one by one.
    Dripping,
    /// It asks for more than it ever reads.
    Deaf,
    /// It goes away without a word, with half a command sent.
    HalfOpen,
}

impl Manner {
    fn draw(random: &mut Xoshiro256PlusPlus, settings: &Settings) -> Manner {
        if settings.odd_pc == 0 || random.random_range(0..100) >= settings.odd_pc {
            return Manner::Plain;
        }
        let odd = [Manner::Resp3, Manner::Inline, Manner::Dripping, Manner::Deaf, Manner::HalfOpen];
        odd[random.random_range(0..odd.len())]
    }

    /// Its name among the faults.
    pub fn strike(self) -> Option<&'static str> {
        match self {
            Manner::Plain => None,
            Manner::Resp3 => Some("resp3-client"),
            Manner::Inline => Some("inline-client"),
            Manner::Dripping => Some("dripping-client"),
            Manner::Deaf => Some("deaf-client"),
            Manner::HalfOpen => Some("half-open-client"),
        }
    }

    /// Whether it wants answers; what the others are told is not judged.
    pub fn listens(self) -> bool {
        !matches!(self, Manner::Deaf | Manner::HalfOpen)
    }
}

/// One client.
pub(super) struct Client {
    number: usize,
    pub manner: Manner,
    /// It reads by the leader's lease.
    uses_lease: bool,
    /// What it waits for begins with who it is, which no server has to have applied anything for.
    pub introduces_itself: bool,
    /// It has not said who it is on this connection.
    is_new: bool,
    /// What was given up and is sent once more, elsewhere.
    repeat: Vec<Words>,
    repeat_pc: u64,
    /// Where a test steers by hand: what it was told and has not been asked for. Nothing that it does
    /// is judged.
    pub told: Option<Vec<Value>>,
    /// How often it has flooded a server, if it is deaf.
    pub floods: u32,
    /// Which server it talks to, and over what.
    pub server: ServerId,
    pub stream: Option<StreamId>,
    /// Pipelines sent so far: a time-out is for one of them.
    pub pipelines: u64,
    pub(super) connection: u32,
    /// How far anyone had applied the log when it sent what it waits for.
    pub floor: LogIndex,
    /// When what its server had applied then was the newest state.
    pub server_state_of: Instant,
    decoder: ReplyDecoder,
    pub(super) outstanding: VecDeque<Said>,
    /// Where its writes are those of a session.
    session: Option<Session>,
    /// What it last read of each shared key, to swap it.
    seen: Vec<Vec<u8>>,
    values: u64,
    /// Its keys that expire so far. It takes another one where a write of one is in doubt: of that
    /// one nothing could be said any more.
    expiring: u64,
    /// What it watches on its connection, and what it last saw of a key of transactions.
    pub(super) watch: Watch,
    pub(super) held: Vec<u8>,
    pub random: Xoshiro256PlusPlus,
}

impl Client {
    pub fn new(number: usize, mut random: Xoshiro256PlusPlus, settings: &Settings) -> Client {
        let is_of_the_load = (number as u64) < settings.clients;
        let manner = match is_of_the_load {
            true => Manner::draw(&mut random, settings),
            false => Manner::Plain,
        };
        let mut client = Client {
            number,
            manner,
            uses_lease: is_of_the_load && settings.lease > 0 && random.random_bool(0.7),
            introduces_itself: false,
            is_new: false,
            repeat: Vec::new(),
            repeat_pc: settings.repeat_pc,
            told: None,
            floods: 0,
            server: ServerId(1 + number as u64 % settings.nodes),
            stream: None,
            pipelines: 0,
            connection: 0,
            floor: LogIndex::ZERO,
            server_state_of: Instant::ZERO,
            decoder: ReplyDecoder::new(),
            outstanding: VecDeque::new(),
            session: None,
            seen: vec![b"0".to_vec(); settings.keys as usize],
            values: 0,
            expiring: 0,
            watch: Watch::Nothing,
            held: Vec::new(),
            random,
        };
        let is_of_the_last = number as u64 + settings.sessions >= settings.clients;
        if is_of_the_load && is_of_the_last && client.manner == Manner::Plain {
            client.session = Some(Session::default());
        }
        client
    }

    /// Whether it waits for replies.
    pub fn is_waiting(&self) -> bool {
        self.is_listening() || self.is_unanswered()
    }

    /// Whether replies are to come over the connection that it has.
    pub fn is_listening(&self) -> bool {
        !self.outstanding.is_empty() || self.session.as_ref().is_some_and(|it| it.is_opening)
    }

    /// Whether it has something to ask for again, of its session.
    pub fn is_unanswered(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.again.is_empty())
    }

    /// A connection stands.
    pub fn connected(&mut self, stream: StreamId, recorder: &mut Recorder) {
        self.stream = Some(stream);
        self.connection = recorder.next_connection();
        self.decoder = ReplyDecoder::new();
        self.is_new = true;
    }

    /// The connection is gone, and what was not answered is in doubt.
    pub fn disconnected(&mut self, now: Instant, recorder: &mut Recorder) {
        self.stream = None;
        self.watch = Watch::Nothing;
        if self.random.random_range(0..100) < self.repeat_pc {
            // A token is appended once, so that it can be told how often that was done.
            let repeats = |words: &Words| words[0] != b"APPEND" && stands_alone(words);
            let unnumbered = self.outstanding.iter().filter(|said| said.number == 0);
            let given_up = unnumbered.map(|said| said.operation.words.clone());
            self.repeat = given_up.filter(repeats).collect();
        }
        if let Some(session) = &mut self.session {
            session.is_opening = false;
        }
        // What was to be asked for again on this connection comes behind what was not answered.
        let mut rest = self.session.as_mut().map(|it| std::mem::take(&mut it.again));
        for said in std::mem::take(&mut self.outstanding) {
            match &mut rest {
                Some(again) if said.number > 0 => {
                    again.push_back(Said { is_repeated: true, ..said });
                }
                _ => recorder.unknown(said.operation, now),
            }
        }
        if let (Some(session), Some(again)) = (&mut self.session, rest) {
            session.again = again;
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
        assert!(!self.is_listening());
        if let Some(bytes) = self.next_of_session() {
            return bytes;
        }
        while recorder.is_in_doubt(&self.expiring_key()) {
            self.expiring += 1;
        }
        let count = self.random.random_range(1..=settings.pipeline.max(1));
        let mut out = Vec::new();
        let mut introduction = Vec::new();
        if std::mem::take(&mut self.is_new) {
            introduction.extend((self.manner == Manner::Resp3).then_some("HELLO 3"));
            introduction.extend(self.uses_lease.then_some("CLIENT READMODE lease"));
        }
        self.introduces_itself = !introduction.is_empty();
        for line in introduction {
            let words = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            self.say(now, words, recorder, &mut out);
        }
        for words in std::mem::take(&mut self.repeat) {
            self.say(now, words, recorder, &mut out);
        }
        let talks_nonsense = settings.nonsense_pc > 0
            && self.session.is_none()
            && self.random.random_range(0..100) < settings.nonsense_pc;
        if talks_nonsense {
            self.say(now, vec![b"GET".to_vec()], recorder, &mut out);
        }
        for _ in 0..count {
            // A session's commands are numbered one by one.
            let transacts = settings.transactions > 0
                && self.session.is_none()
                && self.random.random_range(0..100) < settings.transactions;
            if transacts {
                self.transact(now, awake, settings, recorder, &mut out);
                continue;
            }
            let words = self.next_command(awake, settings);
            self.say(now, words, recorder, &mut out);
        }
        if talks_nonsense && self.random.random_bool(0.3) {
            self.say(now, vec![NONSENSE.to_vec()], recorder, &mut out);
        }
        self.pipelines += 1;
        out.into()
    }

    /// What a client with a session says before anything new: that it wants one, or again what was
    /// not answered.
    fn next_of_session(&mut self) -> Option<Bytes> {
        let session = self.session.as_mut()?;
        let mut out = Vec::new();
        if session.must_open() {
            as_array(&[b"SESSION".to_vec(), b"OPEN".to_vec()], &mut out);
            self.pipelines += 1;
            return Some(out.into());
        }
        let awaited = session.again.front()?.number;
        for said in std::mem::take(&mut session.again) {
            as_array(&session.marked(&said.operation.words, said.number, awaited), &mut out);
            self.outstanding.push_back(Said { is_repeated: true, ..said });
        }
        self.pipelines += 1;
        Some(out.into())
    }

    /// These lines of words, as bytes; for a client that a test steers.
    pub fn lines(&self, lines: &[&str]) -> Bytes {
        let mut out = Vec::new();
        for line in lines {
            let words: Words = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            as_array(&words, &mut out);
        }
        out.into()
    }

    /// Whether the next pipeline has what was given up before.
    pub fn repeats(&self) -> bool {
        !self.repeat.is_empty()
    }

    /// A small value and so many questions for it; nobody waits for the answers.
    pub fn flood(&mut self, questions: usize) -> Bytes {
        self.floods += 1;
        let key = format!("xdeaf{}", self.number).into_bytes();
        let value = vec![b'd'; FLOOD_VALUE_BYTES];
        let mut out = Vec::new();
        as_array(&[b"SET".to_vec(), key.clone(), value], &mut out);
        for _ in 0..questions {
            as_array(&[b"GET".to_vec(), key.clone()], &mut out);
        }
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

    pub(super) fn say(
        &mut self,
        now: Instant,
        words: Words,
        recorder: &mut Recorder,
        out: &mut Vec<u8>,
    ) {
        if let Some(session) = &mut self.session
            && self.random.random_range(0..LOST_NUMBER_IN) == 0
        {
            session.skip();
        }
        let number = self.session.as_mut().map_or(0, |session| session.number(&words));
        if let Some(session) = self.session.as_ref().filter(|_| number > 0) {
            let first = self.outstanding.iter().find(|said| said.number > 0);
            let awaited = first.map_or(number, |said| said.number);
            as_array(&session.marked(&words, number, awaited), out);
        } else {
            self.encode(&words, out);
        }
        let operation = recorder.invoke(self.connection, now, words);
        self.outstanding.push_back(Said { operation, number, is_repeated: false });
    }

    /// A command as this client writes it.
    pub(super) fn encode(&self, words: &Words, out: &mut Vec<u8>) {
        if words[0] == NONSENSE {
            return out.extend_from_slice(NONSENSE);
        }
        let bytes: usize = words.iter().map(|word| word.len() + 1).sum();
        let fits_a_line = bytes < limits::INLINE_BYTES && words.iter().all(|word| !word.is_empty());
        if self.manner == Manner::Inline && fits_a_line {
            out.extend_from_slice(&words.join(&b' '));
            out.extend_from_slice(b"\r\n");
        } else {
            as_array(words, out);
        }
    }

    /// Bytes have come. True if that was the last reply awaited.
    pub fn receive(&mut self, now: Instant, bytes: &[u8], recorder: &mut Recorder) -> bool {
        let mut rest = bytes;
        let was_waiting = self.is_listening();
        if let Some(told) = &mut self.told {
            while let Some(value) = self.decoder.decode(&mut rest).expect("servers speak RESP") {
                told.push(value);
            }
            return false;
        }
        while let Some(value) = self.decoder.decode(&mut rest).expect("servers speak RESP") {
            if let Some(session) = self.session.as_mut().filter(|session| session.is_opening) {
                session.opened(&value);
                continue;
            }
            let said = self.outstanding.pop_front();
            let said = said.expect("exactly-once: a reply that nobody asked for");
            self.note(&said.operation, &value);
            self.note_watched(&said.operation.words, &value);
            self.take_reply(said, now, &value, recorder);
        }
        was_waiting && !self.is_listening()
    }

    fn take_reply(&mut self, said: Said, now: Instant, value: &Value, recorder: &mut Recorder) {
        if let Some(refusal) = refusal(&said.operation.words) {
            let is_refused = matches!(value, Value::Error(text) if text.starts_with(refusal));
            assert!(is_refused, "linearizable: {:?} is answered {value:?}", said.operation.words);
            return;
        }
        let meaning = match self.session.as_mut().filter(|_| said.number > 0) {
            Some(session) => session.judge(&said, value),
            None => Meaning::Answered,
        };
        match (meaning, &mut self.session) {
            (Meaning::NotDone, _) => {
                let not_done = Value::Error("CLUSTERDOWN".to_owned());
                recorder.reply(said.operation, now, &not_done);
            }
            (Meaning::Unknown, _) => recorder.unknown(said.operation, now),
            (Meaning::Again, Some(session)) => {
                session.again.push_back(Said { is_repeated: true, ..said });
            }
            (Meaning::Answered | Meaning::Again, _) => recorder.reply(said.operation, now, value),
        }
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

    pub(super) fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        (self.number as u64 * 1_000_000 + self.values).to_string().into_bytes()
    }

    /// The key with a deadline that this client alone writes.
    fn expiring_key(&self) -> Vec<u8> {
        format!("x{}.{}", self.number, self.expiring).into_bytes()
    }

    fn set_expiring(&mut self, ms: u64) -> Words {
        let value = self.value();
        let words = [b"SET".to_vec(), self.expiring_key(), value, b"PX".to_vec()];
        words.into_iter().chain([ms.to_string().into_bytes()]).collect()
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
        let place_among_clients = self.number as u64;
        if place_among_clients > 0 && place_among_clients + settings.readers >= settings.clients {
            return vec![word("GET"), key];
        }
        match self.random.random_range(0..100) {
            // Some are there until the run ends, and are read then.
            0..8 if settings.expiry > 1 => {
                let ms = self.random.random_range(60_000..120_000);
                self.set_expiring(ms)
            }
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
                let ms = self.random.random_range(20..1500);
                self.set_expiring(ms)
            }
            94..100 if settings.expiry > 0 => vec![word("GET"), self.expiring_key()],
            _ => vec![word("GET"), key],
        }
    }
}
