//! What stands between a connection's bytes and the core: a peer's frames, a client's commands.
//!
//! The same codecs and the same order (hello before messages) as `loop/peer.rs` and
//! `loop/conversation.rs`, without sockets. Called by [`super::process`]. Judges no hello.

use bytes::Bytes;

use crate::limits;
use crate::node::Requests;
use crate::proto::frame::{FrameDecoder, FrameError, FrameKind, PREFACE, encode_frame};
use crate::proto::hello::{Hello, HelloError, HelloRefused};
use crate::proto::message::Packet;
use crate::proto::peer_message::{self, PeerError};
use crate::proto::reply::{Protocol, Reply};
use crate::proto::resp::{Decoded, RequestDecoder};
use crate::types::{ClientId, Instant, ServerId};

/// Which port somebody connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gate {
    Peer,
    Client,
}

/// How far a connection with a peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Greeting,
    Established,
}

/// What a peer said.
#[derive(Debug)]
pub(super) enum Said {
    Hello(Hello),
    Refused(HelloRefused),
    Packet(Packet),
}

/// Why a peer's bytes make no sense.
#[derive(Debug)]
#[expect(dead_code, reason = "read where the assertion that nobody sends such bytes prints it")]
pub(super) enum Nonsense {
    Frame(FrameError),
    Hello(HelloError),
    Message(PeerError),
    Misplaced(FrameKind),
}

/// One connection with a peer.
pub(super) struct PeerLink {
    pub stage: Stage,
    /// Whom we dialled, or who said hello.
    pub peer: Option<ServerId>,
    /// Whether we dialled.
    pub dialled: bool,
    /// When it is given up unless it is established by then.
    pub deadline: Instant,
    pub out: Vec<u8>,
    /// What is to be sent begins with our hello.
    pub greets: bool,
    frames: FrameDecoder,
    greeted: bool,
}

impl PeerLink {
    pub fn new(peer: Option<ServerId>, now: Instant) -> PeerLink {
        PeerLink {
            stage: Stage::Greeting,
            peer,
            dialled: peer.is_some(),
            deadline: now.after(limits::HELLO_TIMEOUT),
            out: Vec::new(),
            greets: false,
            frames: FrameDecoder::new(),
            greeted: false,
        }
    }

    pub fn establish(&mut self, peer: ServerId) {
        self.stage = Stage::Established;
        self.peer = Some(peer);
        self.deadline = Instant::NEVER;
    }

    pub fn say_hello(&mut self, hello: &Hello) {
        self.greets = self.out.is_empty();
        self.out.extend_from_slice(&PREFACE);
        encode_frame(FrameKind::Hello, 0, &mut self.out, |out| hello.encode(out));
    }

    pub fn say_refused(&mut self, refused: &HelloRefused) {
        if !self.dialled {
            self.out.extend_from_slice(&PREFACE);
        }
        encode_frame(FrameKind::HelloRefused, 0, &mut self.out, |out| refused.encode(out));
    }

    pub fn send(&mut self, packet: &Packet) {
        encode_frame(FrameKind::Peer, 0, &mut self.out, |out| peer_message::encode(packet, out));
    }

    /// Takes the connection's next bytes and appends what they say.
    pub fn receive(&mut self, mut bytes: &[u8], said: &mut Vec<Said>) -> Result<(), Nonsense> {
        while let Some(frame) = self.frames.decode(&mut bytes).map_err(Nonsense::Frame)? {
            match (frame.kind, self.greeted) {
                (FrameKind::Hello, false) => {
                    self.greeted = true;
                    said.push(Said::Hello(Hello::decode(frame.payload).map_err(Nonsense::Hello)?));
                }
                (FrameKind::HelloRefused, _) => said.push(Said::Refused(
                    HelloRefused::decode(frame.payload).map_err(Nonsense::Hello)?,
                )),
                (FrameKind::Peer, true) => {
                    let payload = Bytes::copy_from_slice(frame.payload);
                    let packet = peer_message::decode(&payload).map_err(Nonsense::Message)?;
                    said.push(Said::Packet(packet));
                }
                (kind, _) => return Err(Nonsense::Misplaced(kind)),
            }
        }
        Ok(())
    }

    /// The message of one whole frame.
    pub fn decode_alone(frame: &[u8]) -> Packet {
        let mut link = PeerLink::new(None, Instant::ZERO);
        link.greeted = true;
        let mut said = Vec::new();
        let verdict = link.receive(&[&PREFACE[..], frame].concat(), &mut said);
        verdict.expect("a server has encoded it");
        match said.pop() {
            Some(Said::Packet(packet)) => packet,
            _ => unreachable!("only messages are copied"),
        }
    }
}

/// One connection with a client.
pub(super) struct Conversation {
    pub id: ClientId,
    /// What has come and was not read yet.
    pub unread: Vec<u8>,
    pub out: Vec<u8>,
    /// The node wants it closed behind its replies.
    pub is_closing: bool,
    /// It is closed, and to be forgotten.
    pub is_closed: bool,
    /// Its client doesn't read: the socket takes no more.
    pub is_stuck: bool,
    /// Bytes of pushes since the node was last told that all was taken.
    pushed_bytes: usize,
    commands: RequestDecoder,
    awaited: u32,
}

impl Conversation {
    pub fn new(id: ClientId) -> Conversation {
        Conversation {
            id,
            unread: Vec::new(),
            out: Vec::new(),
            is_closing: false,
            is_closed: false,
            is_stuck: false,
            pushed_bytes: 0,
            commands: RequestDecoder::new(),
            awaited: 0,
        }
    }

    /// Whether more of it may be read: not while its replies pile up, or too many commands wait.
    pub fn wants_read(&self) -> bool {
        !self.unread.is_empty()
            && !self.is_closing
            && !self.is_closed
            && self.out.len() <= limits::CLIENT_OUTPUT_PAUSE_BYTES
            && self.awaited < limits::CLIENT_AWAITED_COMMANDS
    }

    /// Turns what has come into commands, as far as one turn's budget goes.
    pub fn read(&mut self, requests: &mut Requests) {
        let budget = self.unread.len().min(limits::READ_BUDGET_BYTES);
        let rest = self.unread.split_off(budget);
        let read = std::mem::replace(&mut self.unread, rest);
        let mut bytes = &read[..];
        loop {
            let (consumed, decoded) = self.commands.decode(bytes, requests.arena());
            bytes = &bytes[consumed..];
            match decoded {
                Decoded::Incomplete => return,
                Decoded::Command { count } => requests.push_command(self.id, count),
                Decoded::Refused(refusal) => {
                    unreachable!("simulated clients keep to the limits: {refusal:?}")
                }
                Decoded::Closed(error) => {
                    unreachable!("simulated clients speak the protocol: {error:?}")
                }
            }
            self.awaited += 1;
        }
    }

    /// Adds what no command asked for.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.is_closed {
            return;
        }
        self.pushed_bytes += bytes.len();
        self.out.extend_from_slice(bytes);
    }

    /// Whether the node waits to hear that all it pushed was taken.
    pub fn is_awaited(&self) -> bool {
        self.out.is_empty() && self.pushed_bytes >= limits::PUSH_WINDOW_BYTES / 2
    }

    /// Whether something was pushed since the last call, and all of it is taken.
    pub fn take_drained(&mut self) -> bool {
        let is_drained = self.out.is_empty() && self.pushed_bytes > 0;
        if is_drained {
            self.pushed_bytes = 0;
        }
        is_drained
    }

    /// Adds the reply to the oldest command. False if the client must be cut off: it doesn't read.
    pub fn answer(&mut self, protocol: Protocol, reply: &Reply) -> bool {
        if self.is_closed {
            return true;
        }
        assert!(self.awaited > 0, "exactly-once: the core answers each command once");
        self.awaited -= 1;
        reply.encode(protocol, &mut self.out);
        let is_within = self.out.len() <= limits::CLIENT_OUTPUT_BYTES;
        if !is_within {
            self.out = Vec::new();
            self.is_closed = true;
        }
        is_within
    }
}
