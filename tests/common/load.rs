//! Clients that keep a number of commands under way each and write down what they see.
//!
//! Called by the tests that break something meanwhile. A client never connects twice: a broken
//! connection ends it, and its history says so.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::client::{Client, encode};
use super::history::{Action, Operation};

/// What one client saw.
pub struct Outcome {
    pub operations: Vec<Operation>,
    /// Why its connection broke, if it did.
    pub broken: Option<io::Error>,
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    writes_under_way: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Outcome>>,
}

impl Load {
    /// Connects `connections` clients to each of `addresses`; each keeps `window` commands under
    /// way. `plan` says what the client of this number sends as its Nth command.
    pub fn begin<P>(addresses: &[String], connections: usize, window: usize, plan: P) -> Load
    where
        P: Fn(usize, usize) -> Action + Send + Copy + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let writes_under_way = Arc::new(AtomicUsize::new(0));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for number in 0..addresses.len() * connections {
            let address = addresses[number % addresses.len()].clone();
            let client = Client::connect(&address).unwrap();
            let worker = Worker {
                address,
                client,
                window,
                stop: Arc::clone(&stop),
                writes_under_way: Arc::clone(&writes_under_way),
                answered: Arc::clone(&answered),
                operations: Vec::new(),
                waiting: VecDeque::new(),
            };
            let plan = move |position| plan(number, position);
            threads.push(std::thread::spawn(move || worker.run(plan)));
        }
        Load { stop, writes_under_way, answered, threads }
    }

    pub fn writes_under_way(&self) -> usize {
        self.writes_under_way.load(Ordering::SeqCst)
    }

    /// Commands that were answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Sends nothing more, waits for what is under way, and gives each client's story.
    pub fn finish(self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

struct Worker {
    address: String,
    client: Client,
    window: usize,
    stop: Arc<AtomicBool>,
    writes_under_way: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    operations: Vec<Operation>,
    /// Positions in `operations` that have no reply yet.
    waiting: VecDeque<usize>,
}

impl Worker {
    fn run(mut self, plan: impl Fn(usize) -> Action) -> Outcome {
        let broken = self.work(plan).err();
        let open = self.waiting.iter().filter(|&&at| self.operations[at].action.writes()).count();
        self.writes_under_way.fetch_sub(open, Ordering::SeqCst);
        Outcome { operations: self.operations, broken }
    }

    fn work(&mut self, plan: impl Fn(usize) -> Action) -> io::Result<()> {
        loop {
            let mut bytes = Vec::new();
            while self.waiting.len() < self.window && !self.stop.load(Ordering::SeqCst) {
                let action = plan(self.operations.len());
                let words = action.words();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                encode(&words, &mut bytes);
                self.waiting.push_back(self.operations.len());
                self.operations.push(Operation {
                    address: self.address.clone(),
                    action,
                    sent: Instant::now(),
                    done: None,
                });
                self.writes_under_way.fetch_add(usize::from(action.writes()), Ordering::SeqCst);
            }
            self.client.send_raw(&bytes)?;
            let Some(&oldest) = self.waiting.front() else {
                return Ok(());
            };
            let reply = self.client.receive()?;
            let operation = &mut self.operations[oldest];
            operation.done = Some((Instant::now(), reply));
            let wrote = usize::from(operation.action.writes());
            self.writes_under_way.fetch_sub(wrote, Ordering::SeqCst);
            self.answered.fetch_add(1, Ordering::SeqCst);
            self.waiting.pop_front();
        }
    }
}
