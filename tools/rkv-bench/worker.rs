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
use crate::workload::{Commands, Workload};

/// How long to wait for the last replies. What has not come by then counts as `no-reply`.
const LAST_REPLIES: Duration = Duration::from_secs(10);

/// How long to go on without a single reply.
const STALLED: Duration = Duration::from_secs(30);

/// How long after a lost connection a new one is tried.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

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
    /// Since when which batches are due, in an open loop.
    overdue: VecDeque<Instant>,
}

struct Worker<'a> {
    plan: &'a Plan,
    seconds: &'a Sender<Second>,
    /// What the second under way has come to.
    second: Second,
    report: Report,
    buffer: Vec<u8>,
    schedule: Option<Schedule>,
    warm_until: Instant,
    measure_until: Option<Instant>,
    /// Measured requests that may still be sent.
    quota: u64,
    /// The last reply to a measured request.
    last_measured: Instant,
    /// The last reply of all.
    last_reply: Instant,
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
    let mut worker = Worker::new(plan, thread, threads, seconds)?;
    if let Some(schedule) = &worker.schedule {
        schedule.register(poll.registry(), ALARM)?;
    }
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<_> = (thread..plan.connections)
        .step_by(threads)
        .map(|number| Connection::new(number, plan, worker.last_reply))
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
        worker.end_second_if_over(Instant::now());
        let is_over = worker.phase(Instant::now()) == Phase::Over;
        if is_over && connections.iter().all(Connection::is_idle) {
            break;
        }
        let waited = worker.last_reply.elapsed();
        if waited > STALLED || is_over && waited > LAST_REPLIES {
            connections.iter_mut().for_each(|connection| worker.give_up(connection));
            break;
        }
    }
    worker.end_second();
    worker.report.elapsed = worker.last_measured.saturating_duration_since(worker.warm_until);
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
            overdue: VecDeque::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.awaited == 0 && self.overdue.is_empty()
    }
}

impl<'a> Worker<'a> {
    fn new(
        plan: &'a Plan,
        thread: usize,
        threads: usize,
        seconds: &'a Sender<Second>,
    ) -> io::Result<Worker<'a>> {
        let batches_per_second = plan.rate.map(|rate| rate / plan.pipeline as f64);
        let own = (thread..plan.connections).step_by(threads).count();
        let schedule = batches_per_second.map(|rate| Schedule::new(rate, thread, threads, own));
        let begin = Instant::now();
        let warm_until = begin + plan.warm_up;
        let (measure_until, quota) = match plan.measure {
            Measure::For(duration) => (Some(warm_until + duration), u64::MAX),
            Measure::Requests(requests) => (None, share(requests, thread, threads)),
        };
        Ok(Worker {
            plan,
            seconds,
            second: Second { number: 0, report: Report::new() },
            report: Report::new(),
            buffer: vec![0; 64 * 1024],
            schedule: schedule.transpose()?,
            warm_until,
            measure_until,
            quota,
            last_measured: warm_until,
            last_reply: begin,
        })
    }

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

    /// Hands out what the schedule says is due, and sets its alarm.
    fn send_what_is_due(&mut self, connections: &mut [Connection]) -> io::Result<()> {
        let now = Instant::now();
        while let Some((at, since)) = self.schedule.as_mut().and_then(|due| due.take(now)) {
            if self.phase(since) == Phase::Over {
                continue;
            }
            let connection = &mut connections[at];
            if connection.overdue.len() < OVERDUE_MAX {
                connection.overdue.push_back(since);
            } else if self.phase(since) == Phase::Measured {
                self.second.report.record_errors("not-sent", self.plan.pipeline as u64);
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
        let phase = self.phase(began);
        if phase == Phase::Over {
            // The number of requests was reached: what else is due is not sent.
            connection.overdue.clear();
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
        connection.batch_began = began;
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
            if connection.batch_is_measured {
                match error {
                    Some(word) => self.second.report.record_errors(&word, 1),
                    None => self.second.report.record(now - connection.batch_began),
                }
                self.last_measured = now;
            }
            self.last_reply = now;
        }
    }

    /// Adds a second that is over to the whole, and sends it.
    fn end_second_if_over(&mut self, now: Instant) {
        let mut number = now.saturating_duration_since(self.warm_until).as_secs();
        if let Measure::For(duration) = self.plan.measure {
            // The last replies come after the last second, and belong to it.
            number = number.min(duration.as_secs().saturating_sub(1));
        }
        if number > self.second.number {
            self.end_second();
            self.second.number = number;
        }
    }

    fn end_second(&mut self) {
        self.report.merge(&self.second.report);
        let next = Second { number: self.second.number + 1, report: Report::new() };
        // Whoever shows the seconds may have stopped.
        let _shown = self.seconds.send(std::mem::replace(&mut self.second, next));
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
            self.second.report.record_errors(word, connection.awaited.max(1) as u64);
        }
        self.prepare_next(connection);
    }

    /// Counts what waits on a connection, and what was never sent: nothing comes any more.
    fn give_up(&mut self, connection: &mut Connection) {
        if connection.awaited > 0 {
            self.lose(connection, "no-reply");
        }
        let due = connection.overdue.drain(..).filter(|due| *due >= self.warm_until).count();
        self.second.report.record_errors("not-sent", (due * self.plan.pipeline) as u64);
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
