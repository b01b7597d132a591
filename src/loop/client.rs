//! One client connection: its socket, what it is waiting for, and how it ends.
//!
//! Called by `clients`, which decides when to read. Redis's names: `read_query` takes the bytes of
//! one turn, `flush` is its `writeToClient`. Never reads past its budget, never blocks.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::output::{Flushed, Output, Spares};
use crate::driver::conversation::{Conversation, Flow, Inbox};
use crate::limits;
use crate::proto::reply::{Protocol, Reply};
use crate::types::{ClientId, Instant};

/// How far a connection is on its way from open to closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// Commands are read.
    Open,
    /// No more is read: the client closed its sending side, or sent nonsense. What it is still
    /// owed is delivered.
    Finishing,
    /// What is in the output is written, for as long as it is being read, and no more is added.
    Closing,
    /// Our sending side is closed. What still comes is thrown away until the client closes too:
    /// closing with unread bytes would reset the connection and take our last reply with it.
    Lingering,
    /// The socket is dead; to be forgotten at the turn's end.
    Gone,
}

/// One client connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ClientId,
    stream: TcpStream,
    conversation: Conversation,
    output: Output,
    phase: Phase,
    /// The kernel may have bytes for us: readiness is reported once, and kept here.
    pub(super) readable: bool,
    /// The client has closed its sending side; bytes before that may be unread.
    pub(super) read_closed: bool,
    /// All it sent was read, and its sending side is closed.
    read_ended: bool,
    /// It stands in the list of those to read.
    pub(super) in_ready: bool,
    /// It stands in the list of those to flush.
    pub(super) in_dirty: bool,
    /// It stands in the list of those that were told what they didn't ask for.
    pub(super) in_told: bool,
    /// It stands in the list of those to forget.
    pub(super) in_gone: bool,
    /// The poll tells when the socket takes bytes again.
    waits_writable: bool,
    /// Bytes of pushes since the core was last told that the output is empty.
    pushed_bytes: usize,
    last_active: Instant,
    /// When it is closed whatever happens.
    deadline: Instant,
}

/// What all connections share during a turn.
#[derive(Default, Debug)]
pub(super) struct Shared {
    pub(super) spares: Spares,
    /// Where a framed reply is made before its length is known.
    pub(super) encoded: Vec<u8>,
    /// Bytes read from clients since the start.
    pub(super) input_bytes: u64,
    /// Bytes written to clients since the start.
    pub(super) output_bytes: u64,
    /// Framed connections that were closed for a violation since the start.
    pub(super) violations: u64,
}

impl Client {
    pub(super) fn new(id: ClientId, stream: TcpStream, now: Instant) -> Client {
        Client {
            id,
            stream,
            conversation: Conversation::default(),
            output: Output::default(),
            phase: Phase::Open,
            // Bytes may have come before the socket was registered; the first read tells.
            readable: true,
            read_closed: false,
            read_ended: false,
            in_ready: false,
            in_dirty: false,
            in_told: false,
            in_gone: false,
            waits_writable: false,
            pushed_bytes: 0,
            last_active: now,
            deadline: Instant::NEVER,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether no reply waits for the socket.
    pub(super) fn is_flushed(&self) -> bool {
        self.output.pending_bytes() == 0
    }

    /// Whether reading it now would bring something, and what it would bring is wanted.
    pub(super) fn wants_read(&self) -> bool {
        let wanted = match self.phase {
            Phase::Open => {
                self.output.pending_bytes() <= limits::CLIENT_OUTPUT_PAUSE_BYTES
                    && self.conversation.awaited() < limits::CLIENT_AWAITED_COMMANDS
            }
            Phase::Lingering => true,
            Phase::Finishing | Phase::Closing | Phase::Gone => false,
        };
        wanted && self.readable
    }

    /// Whether a flush would bring something about. While the socket takes no bytes it would not.
    pub(super) fn wants_flush(&self) -> bool {
        let ends = match self.phase {
            Phase::Open => false,
            Phase::Finishing => self.conversation.awaited() == 0,
            Phase::Closing => true,
            Phase::Lingering | Phase::Gone => return false,
        };
        !self.waits_writable && (ends || self.output.pending_bytes() > 0)
    }

    /// Reads what is there, within the budget of a turn.
    pub(super) fn read_query(
        &mut self,
        now: Instant,
        scratch: &mut [u8],
        inbox: &mut Inbox<'_>,
        shared: &mut Shared,
    ) {
        let mut budget = limits::READ_BUDGET_BYTES;
        while budget > 0 && self.wants_read() {
            let window = scratch.len().min(budget);
            match self.stream.read(&mut scratch[..window]) {
                Ok(0) => {
                    self.readable = false;
                    self.read_ended = true;
                    self.phase = match self.phase {
                        Phase::Lingering => Phase::Gone,
                        _ => Phase::Finishing,
                    };
                }
                Ok(count) => {
                    budget -= count;
                    shared.input_bytes += count as u64;
                    // A short read of a stream has emptied it (epoll(7)); its end, if that is
                    // known to have come, still wants to be read.
                    self.readable = count == window || self.read_closed;
                    if self.phase == Phase::Open {
                        self.receive(now, &scratch[..count], inbox, shared);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.phase = Phase::Gone,
            }
        }
    }

    fn receive(&mut self, now: Instant, bytes: &[u8], inbox: &mut Inbox<'_>, shared: &mut Shared) {
        let commands = inbox.requests.len();
        let awaited_hello = self.conversation.awaits_hello();
        let pending = self.output.pending_bytes();
        let flow = self.conversation.receive(bytes, inbox, self.output.buffer(&mut shared.spares));
        if self.output.pending_bytes() == 0 {
            self.output.discard(&mut shared.spares);
        }
        let answered_hello = self.output.pending_bytes() > pending;
        if inbox.requests.len() > commands
            || answered_hello
            || bytes.len() >= limits::CLIENT_PROGRESS_BYTES
        {
            self.last_active = now;
        }
        match (awaited_hello, self.conversation.awaits_hello()) {
            (false, true) => self.deadline = now.after(limits::HELLO_TIMEOUT),
            (_, false) => self.deadline = Instant::NEVER,
            (true, true) => {}
        }
        match flow {
            Flow::Open => {}
            Flow::Ended => self.phase = Phase::Finishing,
            Flow::Violated => {
                shared.violations += 1;
                self.close(now);
            }
        }
    }

    /// Answers the oldest unanswered command. A client that lets too much wait is cut off.
    pub(super) fn reply(&mut self, protocol: Protocol, reply: &Reply, shared: &mut Shared) {
        if self.phase >= Phase::Closing {
            return;
        }
        let output = self.output.buffer(&mut shared.spares);
        self.conversation.answer(protocol, reply, output, &mut shared.encoded);
        self.bound_output(shared);
    }

    /// Tells it something that it didn't ask for.
    pub(super) fn push(&mut self, now: Instant, bytes: &[u8], shared: &mut Shared) {
        if self.phase >= Phase::Closing {
            return;
        }
        // Who only listens isn't idle as long as there is something to hear.
        self.last_active = now;
        self.pushed_bytes += bytes.len();
        let output = self.output.buffer(&mut shared.spares);
        self.conversation.push(bytes, output);
        self.bound_output(shared);
    }

    /// How much it was told since the last call, once its output is empty.
    pub(super) fn take_drained(&mut self) -> Option<usize> {
        let is_drained = self.pushed_bytes > 0 && self.output.pending_bytes() == 0;
        is_drained.then(|| std::mem::take(&mut self.pushed_bytes))
    }

    fn bound_output(&mut self, shared: &mut Shared) {
        if self.output.pending_bytes() > limits::CLIENT_OUTPUT_BYTES {
            log::info!("client {} is cut off: it does not read its replies", self.id.generation);
            self.output.discard(&mut shared.spares);
            self.phase = Phase::Gone;
        }
    }

    /// Begins to close: what was answered is still written.
    pub(super) fn close(&mut self, now: Instant) {
        if self.phase < Phase::Closing {
            self.phase = Phase::Closing;
            self.deadline = now.after(limits::CLIENT_CLOSE_TIMEOUT);
        }
    }

    /// Ends the connection at once.
    pub(super) fn cut_off(&mut self) {
        self.phase = Phase::Gone;
    }

    /// Writes once, and goes on with closing if that was the last of it.
    pub(super) fn flush(
        &mut self,
        now: Instant,
        registry: &Registry,
        token: Token,
        shared: &mut Shared,
    ) {
        if self.phase >= Phase::Lingering {
            return;
        }
        let before = self.output.pending_bytes();
        let flushed =
            self.output.flush(&mut self.stream, &mut shared.spares, &mut shared.output_bytes);
        if self.phase == Phase::Closing && self.output.pending_bytes() < before {
            // It reads: a slow link is no reason to keep half of a reply from it.
            self.deadline = now.after(limits::CLIENT_CLOSE_TIMEOUT);
        }
        let waits_writable = match flushed {
            Ok(flushed) => flushed == Flushed::Partly,
            Err(_) => {
                self.phase = Phase::Gone;
                return;
            }
        };
        if waits_writable != self.waits_writable {
            let interest = match waits_writable {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            if registry.reregister(&mut self.stream, token, interest).is_err() {
                self.phase = Phase::Gone;
                return;
            }
            self.waits_writable = waits_writable;
        }
        if !waits_writable {
            self.finish(now);
        }
    }

    /// Everything is written: if nothing is owed any more, the end begins.
    fn finish(&mut self, now: Instant) {
        let owed = self.phase == Phase::Finishing && self.conversation.awaited() > 0;
        if self.phase == Phase::Open || owed {
            return;
        }
        if self.read_ended || self.stream.shutdown(Shutdown::Write).is_err() {
            self.phase = Phase::Gone;
            return;
        }
        self.phase = Phase::Lingering;
        self.deadline = self.deadline.min(now.after(limits::CLIENT_CLOSE_TIMEOUT));
    }

    /// Whether its time is up: a deadline has passed, or it has been idle for too long with nothing
    /// owed to it. `idle` of zero: it may be idle for ever.
    pub(super) fn is_overdue(&self, now: Instant, idle: std::time::Duration) -> bool {
        let idles = !idle.is_zero()
            && self.conversation.awaited() == 0
            && now.since(self.last_active) >= idle;
        self.deadline <= now || idles
    }
}
