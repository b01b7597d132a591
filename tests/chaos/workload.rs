//! Clients that are thrown off and come back elsewhere, and write down what they sent and learned.
//!
//! Each sends pipelines of SET, GET, CAS and INCR on a few keys, waits for as long as it likes,
//! and goes to another node when the connection breaks or the node says that it can't. Called by
//! the tests of chaos; the history is judged by `verdict`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::common::history::{Action, Operation};
use crate::common::{Client, Reply};

pub const COUNTERS: usize = 2;
pub const REGISTERS: usize = 3;
const CLIENTS_PER_NODE: usize = 2;
const PIPELINE: usize = 8;
/// How long a client waits for a reply before it gives up, in milliseconds.
const TIMEOUT_MS: std::ops::Range<u64> = 200..2_500;

/// What one client saw.
#[derive(Default)]
pub struct Story {
    /// By connection; what had no certain answer has none here.
    pub connections: Vec<Vec<Operation>>,
    /// What was answered with "surely not done".
    pub not_done: Vec<Action>,
    /// Replies that said themselves that the outcome is in doubt.
    pub in_doubt: usize,
}

/// Clients at work; they stop when this is dropped.
pub struct Workload {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Story>>,
}

impl Workload {
    /// Some clients for each of these nodes.
    pub fn begin(addresses: &[String], seed: u64) -> Workload {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let clients = 0..addresses.len() * CLIENTS_PER_NODE;
        let threads = clients.map(|number| {
            let worker = Worker {
                number,
                addresses: addresses.to_vec(),
                at: number % addresses.len(),
                random: Xoshiro256PlusPlus::seed_from_u64(seed ^ (number as u64 + 1)),
                stop: Arc::clone(&stop),
                answered: Arc::clone(&answered),
                written: 0,
                seen: [0; REGISTERS],
                story: Story::default(),
            };
            std::thread::spawn(move || worker.run())
        });
        let threads = threads.collect();
        Workload { stop, answered, threads }
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
    addresses: Vec<String>,
    /// The node that it is connected to.
    at: usize,
    random: Xoshiro256PlusPlus,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    /// How many values it has made up: each is written once.
    written: u64,
    /// What each register last held, as far as it knows.
    seen: [u64; REGISTERS],
    story: Story,
}

impl Worker {
    fn run(mut self) -> Story {
        while !self.stop.load(Ordering::SeqCst) {
            if let Ok(mut client) = Client::connect(&self.addresses[self.at]) {
                client.set_timeout(Duration::from_millis(self.random.random_range(TIMEOUT_MS)));
                self.story.connections.push(Vec::new());
                self.talk(&mut client);
            }
            self.at = self.random.random_range(0..self.addresses.len());
            std::thread::sleep(Duration::from_millis(self.random.random_range(1..20)));
        }
        self.story
    }

    /// Sends pipelines until the connection breaks, or the node cannot serve.
    fn talk(&mut self, client: &mut Client) {
        while !self.stop.load(Ordering::SeqCst) {
            let count = self.random.random_range(1..=PIPELINE);
            let actions: Vec<Action> = (0..count).map(|_| self.draw()).collect();
            if !self.exchange(client, &actions) {
                return;
            }
            std::thread::sleep(Duration::from_millis(self.random.random_range(0..5)));
        }
    }

    /// One pipeline; whether the client stays where it is.
    fn exchange(&mut self, client: &mut Client, actions: &[Action]) -> bool {
        let address = &self.addresses[self.at];
        let mut bytes = Vec::new();
        for action in actions {
            let words = action.words();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            crate::common::client::encode(&words, &mut bytes);
        }
        let sent = Instant::now();
        let mut served = client.send_raw(&bytes).is_ok();
        let mut connected = served;
        for &action in actions {
            let reply = connected.then(|| client.receive()).and_then(Result::ok);
            connected &= reply.is_some();
            served &= connected;
            let mut operation = Operation { address: address.clone(), action, sent, done: None };
            match reply {
                Some(Reply::Error(text)) if text.starts_with("CLUSTERDOWN ") => {
                    served = false;
                    self.story.not_done.push(action);
                    continue;
                }
                Some(Reply::Error(text)) if text.starts_with("INDOUBT ") => {
                    served = false;
                    self.story.in_doubt += 1;
                }
                Some(reply) => {
                    learn(&mut self.seen, action, &reply);
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    operation.done = Some((Instant::now(), reply));
                }
                None => {}
            }
            self.story.connections.last_mut().expect("it is connected").push(operation);
        }
        served
    }

    fn draw(&mut self) -> Action {
        let counter = self.random.random_range(0..COUNTERS);
        let register = self.random.random_range(0..REGISTERS);
        self.written += 1;
        let value = ((self.number as u64 + 1) << 40) + self.written;
        match self.random.random_range(0..12) {
            0..=2 => Action::Increment(counter),
            3 => Action::Read(counter),
            4..=5 => Action::Write(register, value),
            6..=8 => Action::Look(register),
            9..=10 => Action::Swap(register, self.seen[register], value),
            _ => Action::Put(self.number, self.written as usize),
        }
    }
}

/// What a reply says of a register: only a swap that names what is there can succeed.
fn learn(seen: &mut [u64], action: Action, reply: &Reply) {
    match (action, reply.number()) {
        (Action::Look(register), Some(value)) => seen[register] = value.cast_unsigned(),
        (Action::Write(register, value), _) => seen[register] = value,
        (Action::Swap(register, _, new), Some(1)) => seen[register] = new,
        _ => {}
    }
}
