//! One connection to one node: commands out, replies in, each with a deadline.
//!
//! Speaks frames (design page 4 §5) or plain RESP. Called by the fail-over beside it, and by
//! `rkv-bench failover`, which must see each broken connection. Never retries and never reconnects.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::command::encode_command;
use super::error::LinkError;
use crate::proto::frame::{
    self, ClientTag, FLAG_IN_SESSION, FLAG_MORE, FrameDecoder, FrameKind, SessionMark, encode_frame,
};
use crate::proto::hello::{Hello, HelloRefused};
use crate::proto::reply_decoder::{ReplyDecoder, Value};
use crate::types::{RequestSeq, SessionId};

/// What a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Wire {
    /// Length-prefixed, checksummed frames.
    #[default]
    Frames,
    /// RESP as any Redis client, to any Redis server.
    Text,
}

/// Whether `text` is of the form `host:port`.
pub fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    !host.is_empty() && port.parse().is_ok_and(|port: u16| port > 0)
}

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// A connection that is open, as far as is known. After an error it is of no further use.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    wire: Wire,
    frames: FrameDecoder,
    replies: ReplyDecoder,
    /// What was read; the bytes up to `input_used` are decoded.
    input: Vec<u8>,
    input_used: usize,
    /// What waits to be sent.
    output: Vec<u8>,
    last_sent: RequestSeq,
    /// What the replies bear that are to come, the next one first; of frames only.
    expected: VecDeque<ClientTag>,
}

impl Connection {
    /// Connects to `host:port`, and greets and is greeted where frames are spoken, all within
    /// `timeout`.
    pub fn open(endpoint: &str, wire: Wire, timeout: Duration) -> Result<Connection, LinkError> {
        let deadline = Instant::now() + timeout;
        let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in endpoint.to_socket_addrs().map_err(LinkError::Resolve)? {
            match TcpStream::connect_timeout(&address, remaining(deadline)?) {
                Ok(stream) => return Connection::greet(stream, wire, deadline),
                Err(failure) => error = failure,
            }
        }
        Err(LinkError::Connect(error))
    }

    fn greet(stream: TcpStream, wire: Wire, deadline: Instant) -> Result<Connection, LinkError> {
        stream.set_nodelay(true).map_err(LinkError::Io)?;
        let mut connection = Connection {
            stream,
            wire,
            frames: FrameDecoder::new(),
            replies: ReplyDecoder::new(),
            input: Vec::new(),
            input_used: 0,
            output: Vec::new(),
            last_sent: RequestSeq::ZERO,
            expected: VecDeque::new(),
        };
        if wire == Wire::Frames {
            connection.output.extend_from_slice(&frame::PREFACE);
            let greeting = &mut connection.output;
            encode_frame(FrameKind::Hello, 0, greeting, |out| Hello::client().encode(out));
            connection.flush(deadline)?;
            connection.receive_hello(deadline)?;
        }
        Ok(connection)
    }

    /// Sends one command and waits for its reply, `timeout` at most.
    pub fn call(
        &mut self,
        args: &[impl AsRef<[u8]>],
        timeout: Duration,
    ) -> Result<Value, LinkError> {
        let deadline = Instant::now() + timeout;
        self.queue(args);
        self.flush(deadline)?;
        self.receive(deadline)
    }

    /// Adds one command to what [`flush`](Connection::flush) sends. Its caller has checked that
    /// it is within [`COMMAND_BYTES`](crate::limits::COMMAND_BYTES).
    pub fn queue(&mut self, args: &[impl AsRef<[u8]>]) {
        match self.wire {
            Wire::Text => encode_command(args, &mut self.output),
            Wire::Frames => {
                self.last_sent = self.last_sent.next();
                let tag = ClientTag { session: SessionId::ZERO, sequence: self.last_sent };
                self.expected.push_back(tag);
                encode_frame(FrameKind::ClientRequest, 0, &mut self.output, |out| {
                    tag.encode(out);
                    encode_command(args, out);
                });
            }
        }
    }

    /// The same for a command of a client session. Frames only.
    ///
    /// # Panics
    /// The connection speaks [`Wire::Text`].
    pub fn queue_in_session(&mut self, mark: SessionMark, args: &[impl AsRef<[u8]>]) {
        assert_eq!(self.wire, Wire::Frames, "the text protocol has no marks");
        self.expected.push_back(mark.tag());
        encode_frame(FrameKind::ClientRequest, FLAG_IN_SESSION, &mut self.output, |out| {
            mark.encode(out);
            encode_command(args, out);
        });
    }

    /// Bytes that are queued and not sent.
    pub fn queued_bytes(&self) -> usize {
        self.output.len()
    }

    /// Sends all that is queued. After an error an unknown part of it was sent.
    pub fn flush(&mut self, deadline: Instant) -> Result<(), LinkError> {
        let mut sent = 0;
        while sent < self.output.len() {
            self.stream.set_write_timeout(Some(remaining(deadline)?)).map_err(LinkError::Io)?;
            match self.stream.write(&self.output[sent..]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => sent += count,
                Err(error) => retry_or_fail(error)?,
            }
        }
        self.output.clear();
        Ok(())
    }

    /// The reply to the earliest command that has none yet.
    pub fn receive(&mut self, deadline: Instant) -> Result<Value, LinkError> {
        loop {
            match self.decode_reply()? {
                // A push is nobody's reply.
                Some(Value::Push(_)) => {}
                Some(value) => {
                    self.expected.pop_front();
                    return Ok(value);
                }
                None => self.fill(deadline)?,
            }
        }
    }

    /// Whether the server has surely closed the connection, or sent what it was not asked for. What
    /// is sent on such a connection could not be answered; what is not sent is surely not done.
    pub fn is_stale(&self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let peeked = self.stream.peek(&mut [0]);
        let waiting = matches!(&peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).is_err() || !waiting
    }

    fn decode_reply(&mut self) -> Result<Option<Value>, LinkError> {
        let unread = &self.input[self.input_used..];
        let mut rest = unread;
        let decoded = match self.wire {
            Wire::Text => self.replies.decode(&mut rest)?,
            Wire::Frames => {
                let expected = self.expected.front().copied();
                decode_framed(&mut self.frames, &mut self.replies, expected, &mut rest)?
            }
        };
        self.input_used += unread.len() - rest.len();
        Ok(decoded)
    }

    fn receive_hello(&mut self, deadline: Instant) -> Result<(), LinkError> {
        loop {
            let unread = &self.input[self.input_used..];
            let mut rest = unread;
            if let Some(frame) = self.frames.decode(&mut rest)? {
                self.input_used += unread.len() - rest.len();
                return match frame.kind {
                    FrameKind::Hello => Ok(Hello::decode(frame.payload).map(|_| ())?),
                    FrameKind::HelloRefused => {
                        Err(LinkError::Refused(HelloRefused::decode(frame.payload)?))
                    }
                    kind => Err(LinkError::UnexpectedFrame(kind)),
                };
            }
            self.input_used = self.input.len();
            self.fill(deadline)?;
        }
    }

    /// Waits for more bytes. All that came before has been decoded.
    fn fill(&mut self, deadline: Instant) -> Result<(), LinkError> {
        assert_eq!(self.input_used, self.input.len(), "decoders take all before they want more");
        self.input_used = 0;
        self.input.resize(READ_BYTES, 0);
        loop {
            let wait = remaining(deadline).inspect_err(|_| self.input.clear())?;
            self.stream.set_read_timeout(Some(wait)).map_err(LinkError::Io)?;
            match self.stream.read(&mut self.input) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => {
                    self.input.truncate(count);
                    return Ok(());
                }
                Err(error) => retry_or_fail(error)?,
            }
        }
    }
}

/// The next reply, whose pieces may be spread over several frames.
fn decode_framed(
    frames: &mut FrameDecoder,
    replies: &mut ReplyDecoder,
    expected: Option<ClientTag>,
    input: &mut &[u8],
) -> Result<Option<Value>, LinkError> {
    while let Some(frame) = frames.decode(input)? {
        if frame.kind != FrameKind::ClientReply {
            return Err(LinkError::UnexpectedFrame(frame.kind));
        }
        let (tag, mut resp) = ClientTag::decode(frame.payload)?;
        if tag.sequence == RequestSeq::ZERO {
            // What no request asked for; whoever wants that reads the text protocol.
            continue;
        }
        if Some(tag) != expected {
            return Err(LinkError::UnexpectedTag);
        }
        let value = replies.decode(&mut resp)?;
        // A reply ends where its last frame ends, or the two don't speak of the same thing.
        let goes_on = frame.flags & FLAG_MORE != 0;
        if value.is_none() != goes_on || !resp.is_empty() {
            return Err(LinkError::UnexpectedTag);
        }
        if value.is_some() {
            return Ok(value);
        }
    }
    Ok(None)
}

fn remaining(deadline: Instant) -> Result<Duration, LinkError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(LinkError::TimedOut) } else { Ok(left) }
}

/// A time-out is told by the deadline, which is looked at before each attempt.
fn retry_or_fail(error: io::Error) -> Result<(), LinkError> {
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(()),
        _ => Err(LinkError::Io(error)),
    }
}
