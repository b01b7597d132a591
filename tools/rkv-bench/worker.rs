//! One thread of load: its share of the connections on one mio poll, each a closed loop.
//!
//! Called by `load`. Each connection sends a batch, waits for all its replies, and sends the next.
//! A lost connection is counted with all that waited on it, and made anew to the next node.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use raftkv::proto::reply_decoder::ReplyDecoder;

use crate::report::Report;
use crate::workload::{Commands, Workload};

/// How long to wait for the last replies. What has not come by then counts as `no-reply`.
const LAST_REPLIES: Duration = Duration::from_secs(10);

/// How long to go on without a single reply.
const STALLED: Duration = Duration::from_secs(30);

/// How long after a lost connection a new one is tried.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

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
    /// The load before measuring.
    pub warm_up: Duration,
    /// When measuring ends.
    pub measure: Measure,
}

/// Whether and as what new batches are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measured,
    Over,
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
    batch_began: Instant,
    batch_is_measured: bool,
}

struct Worker<'a> {
    plan: &'a Plan,
    answered: &'a AtomicU64,
    report: Report,
    buffer: Vec<u8>,
    warm_until: Instant,
    measure_until: Option<Instant>,
    /// Measured requests that may still be sent.
    quota: u64,
    /// The last reply to a measured request.
    last_measured: Instant,
    /// The last reply of all.
    last_reply: Instant,
}

/// Runs the share of thread `thread` of `threads`; `answered` grows as replies come.
pub fn run(plan: &Plan, thread: usize, threads: usize, answered: &AtomicU64) -> io::Result<Report> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let begin = Instant::now();
    let warm_until = begin + plan.warm_up;
    let (measure_until, quota) = match plan.measure {
        Measure::For(duration) => (Some(warm_until + duration), u64::MAX),
        Measure::Requests(requests) => (None, share(requests, thread, threads)),
    };
    let mut worker = Worker {
        plan,
        answered,
        report: Report::new(),
        buffer: vec![0; 64 * 1024],
        warm_until,
        measure_until,
        quota,
        last_measured: warm_until,
        last_reply: begin,
    };
    let mut connections: Vec<_> = (thread..plan.connections)
        .step_by(threads)
        .map(|number| Connection::new(number, plan, begin))
        .collect();
    loop {
        for (token, connection) in connections.iter_mut().enumerate() {
            worker.connect_if_due(connection, Token(token), poll.registry());
        }
        poll_for(&mut poll, &mut events, Duration::from_millis(20))?;
        for event in &events {
            worker.drive(&mut connections[event.token().0]);
        }
        let is_over = worker.phase(Instant::now()) == Phase::Over;
        if is_over && connections.iter().all(|connection| connection.awaited == 0) {
            break;
        }
        let waited = worker.last_reply.elapsed();
        if waited > STALLED || is_over && waited > LAST_REPLIES {
            connections.iter_mut().for_each(|connection| worker.lose(connection, "no-reply"));
            break;
        }
    }
    worker.report.elapsed = worker.last_measured.saturating_duration_since(warm_until);
    Ok(worker.report)
}

/// The part of `total` that falls to one of `threads`.
fn share(total: u64, thread: usize, threads: usize) -> u64 {
    let (thread, threads) = (thread as u64, threads as u64);
    total / threads + u64::from(thread < total % threads)
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
            batch_began: begin,
            batch_is_measured: false,
        }
    }
}

impl Worker<'_> {
    fn phase(&self, now: Instant) -> Phase {
        if now < self.warm_until {
            Phase::WarmUp
        } else if self.quota == 0 || self.measure_until.is_some_and(|end| now >= end) {
            Phase::Over
        } else {
            Phase::Measured
        }
    }

    fn connect_if_due(&mut self, connection: &mut Connection, token: Token, registry: &Registry) {
        let now = Instant::now();
        let is_due = connection.stream.is_none() && now >= connection.connect_at;
        if !is_due || self.phase(now) == Phase::Over {
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

    /// Returns whether there is a batch to send.
    fn begin_batch(&mut self, connection: &mut Connection) -> bool {
        let now = Instant::now();
        let phase = self.phase(now);
        if phase == Phase::Over {
            return false;
        }
        let mut count = self.plan.pipeline;
        if phase == Phase::Measured {
            count = count.min(usize::try_from(self.quota).unwrap_or(usize::MAX));
            self.quota -= count as u64;
        }
        connection.output.clear();
        connection.sent = 0;
        for _ in 0..count {
            connection.commands.push_next(&mut connection.output);
        }
        connection.awaited = count;
        connection.batch_is_measured = phase == Phase::Measured;
        connection.batch_began = now;
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
        let mut replies = 0;
        loop {
            let reply = match connection.decoder.decode(&mut input) {
                Ok(Some(reply)) if connection.awaited > 0 => reply,
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => return self.lose(connection, "not-a-reply"),
            };
            connection.awaited -= 1;
            replies += 1;
            let error = connection.commands.error_of(&reply);
            if connection.batch_is_measured {
                match error {
                    Some(word) => self.report.record_errors(&word, 1),
                    None => self.report.record(now - connection.batch_began),
                }
                self.last_measured = now;
            }
            self.last_reply = now;
        }
        self.answered.fetch_add(replies, Ordering::Relaxed);
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
            0 => self.phase(Instant::now()) == Phase::Measured,
            _ => connection.batch_is_measured,
        };
        if is_measured {
            self.report.record_errors(word, connection.awaited.max(1) as u64);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_adds_up() {
        for (total, threads) in [(10, 3), (1, 4), (0, 2), (1000, 7)] {
            let shares: u64 = (0..threads).map(|thread| share(total, thread, threads)).sum();
            assert_eq!(shares, total);
        }
    }
}
