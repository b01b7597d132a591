//! One connection on the peer port: being dialled, greeting, established.
//!
//! Design pages 1 §4 and 4 §5. What the bytes say is `driver/peers.rs`'s; what a hello means is the
//! node's to judge. Called by `peers`. A violation closes the connection and changes no state.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::output::{Flushed, Output, Spares};
use crate::driver::peers::{Hearing, News, Nonsense};
use crate::limits;
use crate::proto::frame::{FrameKind, PREFACE, encode_frame};
use crate::proto::hello::{Hello, HelloRefused};
use crate::proto::message::Packet;
use crate::proto::peer_message;
use crate::types::{Instant, ServerId};

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// We dialled; the kernels have not met yet.
    Dialling,
    /// The other side's hello is awaited.
    Greeting,
    /// Both hellos were accepted.
    Established,
}

/// One connection between servers.
#[derive(Debug)]
pub(super) struct PeerConnection {
    stream: TcpStream,
    pub(super) stage: Stage,
    /// Whom we dialled, or who said hello; unknown on an accepted connection before that.
    pub(super) peer: Option<ServerId>,
    /// Whether we dialled.
    pub(super) dialled: bool,
    /// When it is given up unless it is established by then.
    pub(super) deadline: Instant,
    hearing: Hearing,
    output: Output,
    /// The kernel may have bytes for us.
    readable: bool,
    /// The other side has closed; bytes before that may be unread.
    read_closed: bool,
    waits_writable: bool,
    pub(super) in_ready: bool,
    pub(super) in_dirty: bool,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Fault {
    /// The socket is dead.
    Io(io::Error),
    /// The other side closed it.
    Closed,
    /// The bytes make no sense.
    Nonsense(Nonsense),
    /// A message in another server's name.
    WrongSender(ServerId),
    /// It was not established in time.
    TimedOut,
    /// It does not read what it is sent.
    Overflow,
    /// A newer connection of the same peer takes its place.
    Replaced,
    /// One of both sides did not accept the other's hello; it was said why.
    NotAccepted,
    /// One of both is no member for the other, or the other is to dial.
    Stranger,
}

impl Fault {
    /// Whether the other side broke the protocol; such ends are counted.
    pub(super) fn is_violation(&self) -> bool {
        match self {
            Fault::Nonsense(_) | Fault::WrongSender(_) | Fault::NotAccepted => true,
            Fault::Io(_)
            | Fault::Closed
            | Fault::TimedOut
            | Fault::Overflow
            | Fault::Replaced
            | Fault::Stranger => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(error) => write!(f, "{error}"),
            Fault::Closed => write!(f, "the peer closed the connection"),
            Fault::Nonsense(nonsense) => write!(f, "{nonsense}"),
            Fault::WrongSender(id) => write!(f, "a message in the name of server {id}"),
            Fault::TimedOut => write!(f, "no connection or no hello in time"),
            Fault::Overflow => write!(f, "the peer does not read what it is sent"),
            Fault::Replaced => write!(f, "the peer connected anew"),
            Fault::NotAccepted => write!(f, "the hello was not accepted"),
            Fault::Stranger => write!(f, "one of both sides does not want it"),
        }
    }
}

impl PeerConnection {
    /// A connection that was dialled (`peer` is known) or accepted.
    pub(super) fn new(stream: TcpStream, peer: Option<ServerId>, now: Instant) -> PeerConnection {
        PeerConnection::begin(stream, peer, peer.is_some(), now)
    }

    /// A connection that was dialled to ask whoever answers to be let in.
    pub(super) fn to_anyone(stream: TcpStream, now: Instant) -> PeerConnection {
        PeerConnection::begin(stream, None, true, now)
    }

    fn begin(
        stream: TcpStream,
        peer: Option<ServerId>,
        dialled: bool,
        now: Instant,
    ) -> PeerConnection {
        let (stage, timeout) = match dialled {
            true => (Stage::Dialling, limits::DIAL_TIMEOUT),
            false => (Stage::Greeting, limits::HELLO_TIMEOUT),
        };
        PeerConnection {
            stream,
            stage,
            peer,
            dialled,
            deadline: now.after(timeout),
            hearing: Hearing::new(),
            output: Output::default(),
            readable: true,
            read_closed: false,
            // A dialled socket is registered for both: being writable is how it says that it is
            // connected.
            waits_writable: dialled,
            in_ready: false,
            in_dirty: false,
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, interest(self.waits_writable))
    }

    pub(super) fn on_readable(&mut self, read_closed: bool) {
        self.readable = true;
        self.read_closed |= read_closed;
    }

    /// Whether reading it now would bring something.
    pub(super) fn wants_read(&self) -> bool {
        self.readable && self.stage != Stage::Dialling
    }

    /// Looks whether the dialled connection stands by now, and says hello if it does.
    pub(super) fn finish_dialling(
        &mut self,
        hello: &Hello,
        now: Instant,
        spares: &mut Spares,
    ) -> Result<(), Fault> {
        assert_eq!(self.stage, Stage::Dialling);
        if let Some(error) = self.stream.take_error().map_err(Fault::Io)? {
            return Err(Fault::Io(error));
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.stage = Stage::Greeting;
                self.deadline = now.after(limits::HELLO_TIMEOUT);
                self.say_hello(hello, spares);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            Err(error) => Err(Fault::Io(error)),
        }
    }

    /// Appends the preface and our hello: at once when we dialled, as the answer when we did not.
    pub(super) fn say_hello(&mut self, hello: &Hello, spares: &mut Spares) {
        let out = self.output.buffer(spares);
        out.extend_from_slice(&PREFACE);
        encode_frame(FrameKind::Hello, 0, out, |out| hello.encode(out));
    }

    /// Appends what the other side's hello lacked; the caller closes after a flush.
    pub(super) fn say_refused(&mut self, refused: &HelloRefused, spares: &mut Spares) {
        let out = self.output.buffer(spares);
        if !self.dialled {
            out.extend_from_slice(&PREFACE);
        }
        encode_frame(FrameKind::HelloRefused, 0, out, |out| refused.encode(out));
    }

    /// Appends one message.
    pub(super) fn send(&mut self, packet: &Packet, spares: &mut Spares) -> Result<(), Fault> {
        let out = self.output.buffer(spares);
        encode_frame(FrameKind::Peer, 0, out, |out| peer_message::encode(packet, out));
        match self.output.pending_bytes() > limits::PEER_OUTPUT_BYTES {
            true => Err(Fault::Overflow),
            false => Ok(()),
        }
    }

    /// Reads once and appends what was said to `news`. Returns how many bytes came; zero when
    /// there is nothing more to be read now.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        news: &mut Vec<News>,
    ) -> Result<usize, Fault> {
        if !self.wants_read() {
            return Ok(0);
        }
        match self.stream.read(scratch) {
            Ok(0) => Err(Fault::Closed),
            Ok(count) => {
                // As in client.rs: a short read has emptied the stream, its end excepted.
                self.readable = count == scratch.len() || self.read_closed;
                self.hearing.receive(&scratch[..count], news).map_err(Fault::Nonsense)?;
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(Fault::Io(error)),
        }
    }

    /// Whether a flush would bring something about.
    pub(super) fn wants_flush(&self) -> bool {
        self.stage != Stage::Dialling && !self.waits_writable && self.output.pending_bytes() > 0
    }

    /// Writes once.
    pub(super) fn flush(
        &mut self,
        registry: &Registry,
        token: Token,
        spares: &mut Spares,
    ) -> Result<(), Fault> {
        let mut written = 0;
        let flushed =
            self.output.flush(&mut self.stream, spares, &mut written).map_err(Fault::Io)?;
        let waits_writable = flushed == Flushed::Partly;
        if waits_writable != self.waits_writable {
            registry
                .reregister(&mut self.stream, token, interest(waits_writable))
                .map_err(Fault::Io)?;
            self.waits_writable = waits_writable;
        }
        Ok(())
    }

    /// Gives its memory back before it is dropped.
    pub(super) fn discard_output(&mut self, spares: &mut Spares) {
        self.output.discard(spares);
    }
}

fn interest(waits_writable: bool) -> Interest {
    match waits_writable {
        true => Interest::READABLE | Interest::WRITABLE,
        false => Interest::READABLE,
    }
}
