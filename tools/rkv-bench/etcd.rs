//! The same load for etcd, through etcd's own protocol: one thread's share of the connections.
//!
//! Called by `load`, behind the feature `etcd`. Each connection is a client of its own, with its own
//! HTTP/2 connection. etcd has no pipelining: the commands of a batch are sent at once, as so many
//! requests on that connection, and the next batch follows when all are answered. The counting and
//! the schedule are those of `worker`. The only file that runs on tokio, one thread of it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use etcd_client::{Client, Error, KvClient, Txn, TxnOp};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::report::{Report, Second};
use crate::schedule::Schedule;
use crate::tally::{self, Batch, Phase, Tally};
use crate::worker::{LAST_REPLIES, Plan, RECONNECT_PAUSE, STALLED};
use crate::workload::{Commands, Plain, key_name, random_value};

/// Keys in one transaction of the fill: as many as etcd allows by default.
const FILL_KEYS: u64 = 128;

/// How often is looked whether a second is over, and everything with it.
const LOOK: Duration = Duration::from_millis(20);

/// What the connections of one thread share.
struct State {
    tally: Tally,
    /// Measured requests without a reply.
    awaited: usize,
}

type Shared = Rc<RefCell<State>>;

struct Connection {
    plan: Rc<Plan>,
    shared: Shared,
    commands: Commands,
    /// Which of the addresses it is connected to.
    address: usize,
    client: Option<KvClient>,
    /// When its batches are due, in an open loop.
    due: Option<UnboundedReceiver<Instant>>,
    /// Batches of all connections that are due and not sent.
    overdue: Arc<AtomicUsize>,
}

/// Runs the share of thread `thread` of `threads`; each second's results go to `seconds`.
///
/// # Errors
/// The system's, where it has no poll or timer. What happens to connections is counted.
pub fn run(
    plan: &Plan,
    thread: usize,
    threads: usize,
    seconds: &Sender<Second>,
) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let schedule = tally::schedule(plan, thread, threads)?;
    let tally = Tally::new(plan, thread, threads, seconds);
    let shared = Rc::new(RefCell::new(State { tally, awaited: 0 }));
    let numbers = (thread..plan.connections).step_by(threads);
    let all = run_connections(Rc::new(plan.clone()), numbers.collect(), schedule, &shared);
    LocalSet::new().block_on(&runtime, all)?;
    Ok(shared.borrow_mut().tally.finish())
}

/// Sets all keys through one connection.
///
/// # Errors
/// The server's.
pub fn fill(endpoints: &[String], keys: u64, value_bytes: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let value = random_value(&mut rng, value_bytes);
    let all = async {
        let mut client = Client::connect(endpoints, None).await?.kv_client();
        let mut number = 0;
        while number < keys {
            let end = keys.min(number + FILL_KEYS);
            let put = |number| TxnOp::put(key_name(number), value.clone(), None);
            client.txn(Txn::new().and_then((number..end).map(put).collect::<Vec<_>>())).await?;
            number = end;
        }
        Ok(())
    };
    let filled: Result<(), Error> = runtime.block_on(all);
    filled.map_err(|error| io::Error::other(format!("filling the keys: {error}")))
}

async fn run_connections(
    plan: Rc<Plan>,
    numbers: Vec<usize>,
    schedule: Option<Schedule>,
    shared: &Shared,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let mut queues = Vec::new();
    let overdue = Arc::new(AtomicUsize::new(0));
    for number in numbers {
        let due = schedule.as_ref().map(|_| {
            let (queue, due) = unbounded_channel();
            queues.push(queue);
            due
        });
        let connection = Connection {
            plan: Rc::clone(&plan),
            shared: Rc::clone(shared),
            commands: Commands::new(&plan.workload, number),
            address: number % plan.addresses.len(),
            client: None,
            due,
            overdue: Arc::clone(&overdue),
        };
        connections.spawn_local(connection.run());
    }
    if let Some(schedule) = schedule {
        let end = shared.borrow().tally.ends_at();
        let overdue = Arc::clone(&overdue);
        // It ends with the last batch, or with the first connection that takes none any more.
        thread::spawn(move || keep_time(schedule, &queues, end, &overdue));
    }
    loop {
        let ended = timeout(LOOK, connections.join_next()).await;
        let mut state = shared.borrow_mut();
        state.tally.end_second_if_over(Instant::now());
        if matches!(ended, Ok(None)) {
            return Ok(());
        }
        let is_over = state.tally.phase(Instant::now()) == Phase::Over;
        let silence = state.tally.silence();
        if silence > STALLED || is_over && silence > LAST_REPLIES {
            let awaited = state.awaited;
            state.tally.failed("no-reply", awaited);
            state.tally.failed("not-sent", overdue.load(Relaxed) * plan.pipeline);
            return Ok(());
        }
    }
}

/// Hands out what is due, in a thread of its own: tokio's timers tell no less than a millisecond.
fn keep_time(
    mut schedule: Schedule,
    queues: &[UnboundedSender<Instant>],
    end: Option<Instant>,
    overdue: &AtomicUsize,
) {
    loop {
        while let Some((at, since)) = schedule.take(Instant::now()) {
            let is_over = end.is_some_and(|end| since >= end);
            overdue.fetch_add(1, Relaxed);
            if is_over || queues[at].send(since).is_err() {
                overdue.fetch_sub(1, Relaxed);
                return;
            }
        }
        thread::sleep(schedule.next().saturating_duration_since(Instant::now()));
    }
}

impl Connection {
    async fn run(mut self) {
        loop {
            let began = match &mut self.due {
                None => Instant::now(),
                Some(due) => match due.recv().await {
                    Some(since) => since,
                    None => return,
                },
            };
            if self.due.is_some() {
                self.overdue.fetch_sub(1, Relaxed);
            }
            let batch = self.shared.borrow_mut().tally.take_batch(began);
            match batch {
                Some(batch) => self.send(batch).await,
                None => return,
            }
        }
    }

    /// Sends a batch and waits until all of it is answered.
    async fn send(&mut self, batch: Batch) {
        let Some(client) = self.connected().await else {
            self.shared.borrow_mut().tally.failed_of(batch, "refused");
            return self.begin_anew().await;
        };
        if batch.is_measured {
            self.shared.borrow_mut().awaited += batch.count;
        }
        let mut is_lost = false;
        let mut requests = JoinSet::new();
        for _ in 1..batch.count {
            requests.spawn_local(call(client.clone(), self.commands.next_plain()));
        }
        // One of them needs no task of its own: without a pipeline there is none.
        let first = call(client, self.commands.next_plain()).await;
        is_lost |= self.replied(batch, first);
        while let Some(ended) = requests.join_next().await {
            match ended {
                Ok(result) => is_lost |= self.replied(batch, result),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        if is_lost {
            self.begin_anew().await;
        }
    }

    /// Counts a reply; whether the connection is of no more use.
    fn replied(&self, batch: Batch, result: Result<(), Error>) -> bool {
        let mut state = self.shared.borrow_mut();
        if batch.is_measured {
            state.awaited -= 1;
        }
        let word = result.as_ref().err().map(word);
        state.tally.replied(batch, Instant::now(), word.as_deref());
        word.is_some_and(|word| word == "Unavailable" || word == "reset")
    }

    async fn connected(&mut self) -> Option<KvClient> {
        if self.client.is_none() {
            let address = self.plan.addresses[self.address].to_string();
            self.client = Client::connect([address], None).await.ok().map(|one| one.kv_client());
        }
        self.client.clone()
    }

    async fn begin_anew(&mut self) {
        self.client = None;
        self.address = (self.address + 1) % self.plan.addresses.len();
        sleep(RECONNECT_PAUSE).await;
    }
}

/// A read is linearizable: etcd's default.
async fn call(mut client: KvClient, command: Plain) -> Result<(), Error> {
    match command.value {
        Some(value) => client.put(command.key, value, None).await.map(|_| ()),
        None => client.get(command.key, None).await.map(|_| ()),
    }
}

/// What an error counts under.
fn word(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => format!("{:?}", status.code()),
        _ => "reset".to_owned(),
    }
}
