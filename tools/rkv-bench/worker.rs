//! One thread of load: its share of the connections on one mio poll.
//!
//! Called by `load`. In a closed loop each connection sends a batch, waits for all its replies, and
//! sends the next; in an open one it sends what `schedule` says is due as soon as it can. A lost
//! connection is counted with all that waited on it, and made anew to the next node.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use raftkv::proto::reply_decoder::ReplyDecoder;

use crate::report::{Report, Second};
use crate::schedule::Schedule;
use crate::tally::{self, Batch, Phase, Tally};
use crate::workload::{Commands, Workload};

/// How long to wait for the last replies. What has not come by then counts as `no-reply`.
pub const LAST_REPLIES: Duration = Duration::from_secs(10);

/// How long to go on without a single reply.
pub const STALLED: Duration = Duration::from_secs(30);

/// How long after a lost connection a new one is tried.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// How many batches may be due on one connection and not sent. More are counted as `not-sent`.
const OVERDUE_MAX: usize = 100_000;

/// The token of the schedule's alarm.
const ALARM: Token = Token(usize::MAX);

/// When measuring ends.
#[derive(Clone, Copy, Debug)]
pub enum Measure {
    /// After this long.
    For(Duration),
    /// After this many requests, of all threads together.
    Requests(u64),
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The nodes; connections are spread over them.
    pub addresses: Vec<SocketAddr>,
    /// What to send.
    pub workload: Workload,
    /// Connections of all threads together.
    pub connections: usize,
    /// Commands in a batch.
    pub pipeline: usize,
    /// Commands a second of all connections together, for an open loop.
    pub rate: Option<f64>,
    /// The load before measuring.
    pub warm_up: Duration,
    /// When measuring ends.
    pub measure: Measure,
    /// How long what counts as a second is.
    pub interval: Duration,
}

struct Connection {
    stream: Option<TcpStream>,
    /// Which of the addresses it is connected to.
    address: usize,
    connect_at: Instant,
    commands: Commands,
    decoder: ReplyDecoder,
    output: Vec<u8>,
    sent: usize,
    /// Requests of the current batch without a reply.
    awaited: usize,
    batch: Option<Batch>,
    /// Since when which batches are due, in an open loop.
    overdue: VecDeque<Instant>,
}

struct Worker<'a> {
    plan: &'a Plan,
    tally: Tally,
    buffer: Vec<u8>,
    schedule: Option<Schedule>,
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
    let mut poll = Poll::new()?;
    let mut worker = Worker {
        plan,
        tally: Tally::new(plan, thread, threads, seconds),
        buffer: vec![0; 64 * 1024],
        schedule: tally::schedule(plan, thread, threads)?,
    };
    if let Some(schedule) = &worker.schedule {
        schedule.register(poll.registry(), ALARM)?;
    }
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<_> = (thread..plan.connections)
        .step_by(threads)
        .map(|number| Connection::new(number, plan, Instant::now()))
        .collect();
    loop {
        for (token, connection) in connections.iter_mut().enumerate() {
            worker.connect_if_due(connection, Token(token), poll.registry());
        }
        poll_for(&mut poll, &mut events, Duration::from_millis(20))?;
        for event in events.iter().filter(|event| event.token() != ALARM) {
            worker.drive(&mut connections[event.token().0]);
        }
        worker.send_what_is_due(&mut connections)?;
        worker.tally.end_second_if_over(Instant::now());
        let is_over = worker.tally.phase(Instant::now()) == Phase::Over;
        if is_over && connections.iter().all(Connection::is_idle) {
            break;
        }
        let waited = worker.tally.silence();
        if waited > STALLED || is_over && waited > LAST_REPLIES {
            connections.iter_mut().for_each(|connection| worker.give_up(connection));
            break;
        }
    }
    Ok(worker.tally.finish())
}

fn poll_for(poll: &mut Poll, events: &mut Events, timeout: Duration) -> io::Result<()> {
    match poll.poll(events, Some(timeout)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        result => result,
    }
}

impl Connection {
    fn new(number: usize, plan: &Plan, begin: Instant) -> Connection {
        Connection {
            stream: None,
            address: number % plan.addresses.len(),
            connect_at: begin,
            commands: Commands::new(&plan.workload, number),
            decoder: ReplyDecoder::new(),
            output: Vec::new(),
            sent: 0,
            awaited: 0,
            batch: None,
            overdue: VecDeque::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.awaited == 0 && self.overdue.is_empty()
    }
}

impl Worker<'_> {
    fn connect_if_due(&mut self, connection: &mut Connection, token: Token, registry: &Registry) {
        let now = Instant::now();
        let is_due = connection.stream.is_none() && now >= connection.connect_at;
        if !is_due || self.tally.phase(now) == Phase::Over {
            return;
        }
        let opened =
            TcpStream::connect(self.plan.addresses[connection.address]).and_then(|mut stream| {
                stream.set_nodelay(true)?;
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(stream)
            });
        match opened {
            Ok(stream) => connection.stream = Some(stream),
            Err(error) => self.fail(connection, &error),
        }
    }

    /// Goes on with a connection until it must wait for its socket.
    fn drive(&mut self, connection: &mut Connection) {
        while let Some(stream) = &mut connection.stream {
            if connection.sent < connection.output.len() {
                match stream.write(&connection.output[connection.sent..]) {
                    Ok(count) => connection.sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        // Replies may have come while the rest of the batch waits.
                        if !self.read(connection) {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                    Err(error) => self.fail(connection, &error),
                }
            } else if connection.awaited > 0 {
                if !self.read(connection) {
                    return;
                }
            } else if !self.begin_batch(connection) {
                return;
            }
        }
    }

    /// Hands out what the schedule says is due, and sets its alarm.
    fn send_what_is_due(&mut self, connections: &mut [Connection]) -> io::Result<()> {
        let now = Instant::now();
        while let Some((at, since)) = self.schedule.as_mut().and_then(|due| due.take(now)) {
            if self.tally.phase(since) == Phase::Over {
                continue;
            }
            let connection = &mut connections[at];
            if connection.overdue.len() < OVERDUE_MAX {
                connection.overdue.push_back(since);
            } else if self.tally.phase(since) == Phase::Measured {
                self.tally.failed("not-sent", self.plan.pipeline);
            }
            self.drive(connection);
        }
        match &self.schedule {
            Some(schedule) => schedule.set_alarm(Instant::now()),
            None => Ok(()),
        }
    }

    /// Returns whether there is a batch to send. It counts from when it was due.
    fn begin_batch(&mut self, connection: &mut Connection) -> bool {
        let began = match self.schedule {
            None => Instant::now(),
            Some(_) => match connection.overdue.pop_front() {
                Some(due) => due,
                None => return false,
            },
        };
        connection.batch = self.tally.take_batch(began);
        let Some(batch) = connection.batch else {
            // The number of requests was reached: what else is due is not sent.
            connection.overdue.clear();
            return false;
        };
        connection.output.clear();
        connection.sent = 0;
        for _ in 0..batch.count {
            connection.commands.push_next(&mut connection.output);
        }
        connection.awaited = batch.count;
        true
    }

    /// Takes what the socket has; returns whether it may have more.
    fn read(&mut self, connection: &mut Connection) -> bool {
        let Some(stream) = &mut connection.stream else {
            return false;
        };
        match stream.read(&mut self.buffer) {
            Ok(0) => {
                self.lose(connection, "closed");
                false
            }
            Ok(count) => {
                self.take_replies(connection, count);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                self.fail(connection, &error);
                false
            }
        }
    }

    fn take_replies(&mut self, connection: &mut Connection, count: usize) {
        let now = Instant::now();
        let mut input = &self.buffer[..count];
        loop {
            let reply = match connection.decoder.decode(&mut input) {
                Ok(Some(reply)) if connection.awaited > 0 => reply,
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => return self.lose(connection, "not-a-reply"),
            };
            connection.awaited -= 1;
            let error = connection.commands.error_of(&reply);
            let batch = connection.batch.expect("a reply is awaited for a batch only");
            self.tally.replied(batch, now, error.as_deref());
        }
    }

    fn fail(&mut self, connection: &mut Connection, error: &io::Error) {
        let word = match error.kind() {
            io::ErrorKind::ConnectionRefused => "refused",
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
            _ => "io-error",
        };
        self.lose(connection, word);
    }

    /// Counts what waited on the connection, or the connection itself if nothing did, and
    /// prepares the next one. During the warm-up nothing is counted.
    fn lose(&mut self, connection: &mut Connection, word: &str) {
        let is_measured = match connection.awaited {
            0 => self.tally.phase(Instant::now()) == Phase::Measured,
            _ => connection.batch.is_some_and(|batch| batch.is_measured),
        };
        if is_measured {
            self.tally.failed(word, connection.awaited.max(1));
        }
        self.prepare_next(connection);
    }

    /// Counts what waits on a connection, and what was never sent: nothing comes any more.
    fn give_up(&mut self, connection: &mut Connection) {
        if connection.awaited > 0 {
            self.lose(connection, "no-reply");
        }
        self.tally.never_sent(connection.overdue.drain(..));
    }

    fn prepare_next(&self, connection: &mut Connection) {
        connection.stream = None;
        connection.decoder = ReplyDecoder::new();
        connection.commands.forget();
        connection.output.clear();
        connection.sent = 0;
        connection.awaited = 0;
        connection.address = (connection.address + 1) % self.plan.addresses.len();
        connection.connect_at = Instant::now() + RECONNECT_PAUSE;
    }
}
