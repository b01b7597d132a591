//! Clients that are thrown off and come back elsewhere, and write down what they sent and learned.
//!
//! Each sends pipelines of SET, GET, CAS, INCR, DEL, MSET and MGET on a few keys, waits for as long
//! as it likes, and goes to another node when the connection breaks or the node says that it can't.
//! Called by the tests of chaos; the history is judged by `verdict`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::common::history::Action;
use crate::common::{Client, Reply};

pub const COUNTERS: usize = 2;
/// Keys of one generation that are only used one by one.
pub const SINGLES: usize = 3;
/// Keys of one generation that are also used together, and so are judged together.
pub const JOINED: usize = 2;
/// For so long all clients use the same keys, and then other ones: what is judged together stays
/// short enough to be searched through.
pub const GENERATION: Duration = Duration::from_millis(500);
const CLIENTS_PER_NODE: usize = 2;
const PIPELINE: usize = 8;
/// How long a client waits for a reply before it gives up, in milliseconds.
const TIMEOUT_MS: Range<u64> = 200..2_500;
/// How long a client waits between two pipelines, in milliseconds.
pub const PAUSE_MS: Range<u64> = 0..5;

/// What is asked, by how it will be judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// A counter, or a key that is written once.
    Counted(Action),
    /// A command on registers of one generation.
    Searched { generation: u64, words: Vec<String> },
}

impl Asked {
    /// The command `line` on registers of a generation.
    pub fn line(generation: u64, line: &str) -> Asked {
        Asked::Searched { generation, words: line.split(' ').map(str::to_owned).collect() }
    }

    pub fn words(&self) -> Vec<String> {
        match self {
            Asked::Counted(action) => action.words(),
            Asked::Searched { words, .. } => words.clone(),
        }
    }
}

/// What became of it, as far as its client can tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Answered(Instant, Reply),
    /// The node said that it was surely not done.
    NotDone(Instant),
    /// No reply, or one that says that it may or may not have been done.
    InDoubt,
}

/// One command of one client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The node that it was sent to.
    pub address: String,
    pub asked: Asked,
    pub sent: Instant,
    pub outcome: Outcome,
}

/// What one client saw.
#[derive(Default)]
pub struct Story {
    /// By connection.
    pub connections: Vec<Vec<Operation>>,
}

/// The name of a register.
pub fn single(generation: u64, number: usize) -> String {
    format!("single:{generation}:{number}")
}

/// The name of a register that is used together with the others of its generation.
pub fn joined(generation: u64, number: usize) -> String {
    format!("joined:{generation}:{number}")
}

/// One pipeline: what became of each command, in order.
pub fn exchange(client: &mut Client, address: &str, asked: &[Asked]) -> Vec<Operation> {
    let mut bytes = Vec::new();
    for one in asked {
        let words = one.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        crate::common::client::encode(&words, &mut bytes);
    }
    let sent = Instant::now();
    let mut connected = client.send_raw(&bytes).is_ok();
    let mut operations = Vec::new();
    for one in asked {
        let reply = connected.then(|| client.receive()).and_then(Result::ok);
        connected &= reply.is_some();
        let outcome = reply.map_or(Outcome::InDoubt, |reply| outcome(Instant::now(), reply));
        let address = address.to_owned();
        operations.push(Operation { address, asked: one.clone(), sent, outcome });
    }
    operations
}

fn outcome(now: Instant, reply: Reply) -> Outcome {
    match &reply {
        Reply::Error(text) if text.starts_with("CLUSTERDOWN ") => Outcome::NotDone(now),
        Reply::Error(text) if text.starts_with("LOADING ") => Outcome::NotDone(now),
        Reply::Error(text) if text.starts_with("INDOUBT ") => Outcome::InDoubt,
        _ => Outcome::Answered(now, reply),
    }
}

/// Clients at work; they stop when this is dropped.
pub struct Workload {
    addresses: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Story>>,
}

impl Workload {
    /// Some clients for each of these nodes, which pause for so long between pipelines.
    pub fn begin(addresses: &[String], pause_ms: Range<u64>, seed: u64) -> Workload {
        let shared = Arc::new(Mutex::new(addresses.to_vec()));
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let clients = 0..addresses.len() * CLIENTS_PER_NODE;
        let threads = clients.map(|number| {
            let worker = Worker {
                number,
                addresses: Arc::clone(&shared),
                at: addresses[number % addresses.len()].clone(),
                pause_ms: pause_ms.clone(),
                random: Xoshiro256PlusPlus::seed_from_u64(seed ^ (number as u64 + 1)),
                stop: Arc::clone(&stop),
                answered: Arc::clone(&answered),
                began,
                generation: 0,
                written: 0,
                seen: BTreeMap::new(),
                story: Story::default(),
            };
            std::thread::spawn(move || worker.run())
        });
        let threads = threads.collect();
        Workload { addresses: shared, stop, answered, threads }
    }

    /// From now on clients that look for another node look among these.
    pub fn move_to(&self, addresses: &[String]) {
        *self.addresses.lock().unwrap() = addresses.to_vec();
    }

    /// Commands that were answered and done so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Sends nothing more, waits for what is under way, and gives each client's story.
    pub fn finish(mut self) -> Vec<Story> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).map(|thread| thread.join().unwrap()).collect()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct Worker {
    number: usize,
    addresses: Arc<Mutex<Vec<String>>>,
    /// The node that it is connected to.
    at: String,
    pause_ms: Range<u64>,
    random: Xoshiro256PlusPlus,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    began: Instant,
    generation: u64,
    /// How many values it has made up: each is written once.
    written: u64,
    /// What each register of this generation last held, as far as it knows.
    seen: BTreeMap<String, String>,
    story: Story,
}

impl Worker {
    fn run(mut self) -> Story {
        while !self.stop.load(Ordering::SeqCst) {
            if let Ok(mut client) = Client::connect(&self.at) {
                client.set_timeout(Duration::from_millis(self.random.random_range(TIMEOUT_MS)));
                self.story.connections.push(Vec::new());
                self.talk(&mut client);
            }
            let addresses = self.addresses.lock().unwrap().clone();
            self.at = addresses[self.random.random_range(0..addresses.len())].clone();
            std::thread::sleep(Duration::from_millis(self.random.random_range(1..20)));
        }
        self.story
    }

    /// Sends pipelines until the connection breaks, or the node cannot serve.
    fn talk(&mut self, client: &mut Client) {
        while !self.stop.load(Ordering::SeqCst) {
            let count = self.random.random_range(1..=PIPELINE);
            self.enter_generation();
            let asked: Vec<Asked> = (0..count).map(|_| self.draw()).collect();
            let operations = exchange(client, &self.at, &asked);
            let mut served = true;
            for operation in &operations {
                match &operation.outcome {
                    Outcome::Answered(_, reply) => {
                        learn(&mut self.seen, &operation.asked.words(), reply);
                        self.answered.fetch_add(1, Ordering::SeqCst);
                    }
                    Outcome::NotDone(_) | Outcome::InDoubt => served = false,
                }
            }
            self.story.connections.last_mut().expect("it is connected").extend(operations);
            if !served {
                return;
            }
            let pause = self.random.random_range(self.pause_ms.clone());
            std::thread::sleep(Duration::from_millis(pause));
        }
    }

    fn enter_generation(&mut self) {
        let generation = (self.began.elapsed().as_millis() / GENERATION.as_millis()) as u64;
        if generation != self.generation {
            self.generation = generation;
            self.seen.clear();
        }
    }

    fn draw(&mut self) -> Asked {
        self.written += 1;
        let counter = self.random.random_range(0..COUNTERS);
        match self.random.random_range(0..16) {
            0..=1 => Asked::Counted(Action::Increment(counter)),
            2 => Asked::Counted(Action::Read(counter)),
            3 => Asked::Counted(Action::Put(self.number, self.written as usize)),
            4..=6 => Asked::line(self.generation, &self.draw_joined()),
            _ => {
                let number = self.random.random_range(0..SINGLES + JOINED);
                let key = match number.checked_sub(SINGLES) {
                    None => single(self.generation, number),
                    Some(number) => joined(self.generation, number),
                };
                Asked::line(self.generation, &self.draw_one(&key))
            }
        }
    }

    fn draw_one(&mut self, key: &str) -> String {
        let value = self.value();
        match self.random.random_range(0..12) {
            0..=2 => format!("SET {key} {value}"),
            3..=6 => format!("GET {key}"),
            7..=9 => {
                let old = self.seen.get(key).map_or("0", String::as_str);
                format!("CAS {key} {old} {value}")
            }
            10 => format!("INCR {key}"),
            _ => format!("DEL {key}"),
        }
    }

    fn draw_joined(&mut self) -> String {
        let keys = (0..JOINED).map(|number| joined(self.generation, number));
        if self.random.random() {
            let keys: Vec<String> = keys.collect();
            return format!("MGET {}", keys.join(" "));
        }
        let value = self.value();
        let pairs: Vec<String> = keys.map(|key| format!("{key} {value}")).collect();
        format!("MSET {}", pairs.join(" "))
    }

    /// A number that nobody else writes. There is room behind it for what INCR adds.
    fn value(&self) -> u64 {
        ((self.number as u64 + 1) << 40) + (self.written << 10)
    }
}

/// What a reply says of a register: only a swap that names what is there can succeed.
fn learn(seen: &mut BTreeMap<String, String>, words: &[String], reply: &Reply) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut know = |key: &str, value: &str| seen.insert(key.to_owned(), value.to_owned());
    match (&words[..], reply) {
        (["GET", key], Reply::Bulk(_)) => drop(know(key, &reply.text())),
        (["INCR", key], Reply::Integer(number)) => drop(know(key, &number.to_string())),
        (["CAS", key, _, new], Reply::Integer(1)) => drop(know(key, new)),
        (["SET", key, value], _) => drop(know(key, value)),
        (["MSET", pairs @ ..], _) => {
            pairs.chunks_exact(2).for_each(|pair| drop(know(pair[0], pair[1])));
        }
        (["MGET", keys @ ..], Reply::Array(values)) => {
            for (key, value) in keys.iter().zip(values) {
                know(key, &value.text());
            }
        }
        _ => {}
    }
}
