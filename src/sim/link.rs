//! The ends of a server's connections: what has come and was not read, what waits to be sent.
//!
//! What the bytes say is `driver/peers.rs`'s and `driver/conversation.rs`'s, as for the real server;
//! here is what `loop/peer.rs` and `loop/client.rs` are around them, without sockets. Called by
//! [`super::process`]. Judges no hello.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::driver::conversation::{Conversation as Codec, Flow, Inbox};
use crate::driver::peers::{Hearing, News, Nonsense};
use crate::limits;
use crate::node::Requests;
use crate::proto::frame::{FrameKind, PREFACE, encode_frame};
use crate::proto::hello::{Hello, HelloRefused};
use crate::proto::message::Packet;
use crate::proto::peer_message;
use crate::proto::reply::{Protocol, Reply};
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
    /// The kernel takes no more for now.
    pub waits_writable: bool,
    /// How much the kernel takes.
    pub room: usize,
    /// What has come and was not read yet.
    unread: VecDeque<u8>,
    /// Behind that the other side has closed.
    pub is_ended: bool,
    /// It is among those that are to be read.
    pub in_ready: bool,
    hearing: Hearing,
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
            waits_writable: false,
            room: usize::MAX,
            unread: VecDeque::new(),
            is_ended: false,
            in_ready: false,
            hearing: Hearing::new(),
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

    /// Whether a flush would bring something about.
    pub fn wants_flush(&self) -> bool {
        !self.waits_writable && !self.out.is_empty()
    }

    /// What the kernel takes of what is to be sent.
    pub fn flush(&mut self) -> Bytes {
        let count = self.out.len().min(self.room);
        self.waits_writable = count < self.out.len();
        let rest = self.out.split_off(count);
        std::mem::replace(&mut self.out, rest).into()
    }

    /// Something has come.
    pub fn arrived(&mut self, bytes: &[u8]) {
        self.unread.extend(bytes);
    }

    /// Whether reading it would bring something.
    pub fn wants_read(&self) -> bool {
        !self.unread.is_empty() || self.is_ended
    }

    /// Reads once and appends what was said to `news`: how many bytes came, and whether they make
    /// sense.
    pub fn read(&mut self, news: &mut Vec<News>) -> (usize, Result<(), Nonsense>) {
        let count = self.unread.len().min(limits::READ_SCRATCH_BYTES);
        let bytes: Vec<u8> = self.unread.drain(..count).collect();
        (count, self.hearing.receive(&bytes, news))
    }

    /// The message of one whole frame.
    pub fn decode_alone(frame: &[u8]) -> Packet {
        let mut news = Vec::new();
        let verdict = Hearing::greeted().receive(&[&PREFACE[..], frame].concat(), &mut news);
        verdict.expect("a server has encoded it");
        match news.pop() {
            Some(News::Packet(packet)) => packet,
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
    /// Its client says no more: what it has said is still done, and answered.
    pub is_finishing: bool,
    /// Bytes of pushes since the node was last told that all was taken.
    pushed_bytes: usize,
    codec: Codec,
    scratch: Vec<u8>,
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
            is_finishing: false,
            pushed_bytes: 0,
            codec: Codec::default(),
            scratch: Vec::new(),
        }
    }

    /// Whether more of it may be read: not while its replies pile up, or too many commands wait.
    pub fn wants_read(&self) -> bool {
        !self.unread.is_empty()
            && !self.is_closing
            && !self.is_closed
            && self.out.len() <= limits::CLIENT_OUTPUT_PAUSE_BYTES
            && self.codec.awaited() < limits::CLIENT_AWAITED_COMMANDS
    }

    /// Whether it is to be forgotten.
    pub fn is_over(&self) -> bool {
        let is_flushed = self.out.is_empty() || self.is_stuck;
        let is_done = self.unread.is_empty() && self.codec.awaited() == 0 && is_flushed;
        self.is_closed || self.is_finishing && is_done
    }

    /// Turns what has come into commands, as far as one turn's budget goes. Where it makes no sense
    /// any more, that is the last that is read.
    pub fn read(&mut self, requests: &mut Requests, host: &Hello) -> Flow {
        let budget = self.unread.len().min(limits::READ_BUDGET_BYTES);
        let rest = self.unread.split_off(budget);
        let read = std::mem::replace(&mut self.unread, rest);
        let mut inbox = Inbox { client: self.id, requests, host };
        let flow = self.codec.receive(&read, &mut inbox, &mut self.out);
        if flow != Flow::Open {
            self.unread.clear();
            self.is_finishing = true;
        }
        flow
    }

    /// Adds what no command asked for.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.is_closed {
            return;
        }
        self.pushed_bytes += bytes.len();
        self.codec.push(bytes, &mut self.out);
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
        assert!(self.codec.awaited() > 0, "exactly-once: the core answers each command once");
        self.codec.answer(protocol, reply, &mut self.out, &mut self.scratch);
        let is_within = self.out.len() <= limits::CLIENT_OUTPUT_BYTES;
        if !is_within {
            self.out = Vec::new();
            self.is_closed = true;
        }
        is_within
    }
}
