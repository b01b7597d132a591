//! All client commands of one turn, in one piece of memory.
//!
//! The driver's decoders append each command's arguments to [`Requests::arena`] and then name it
//! with [`Requests::push_command`]; the gateway walks them once. No command has an allocation of
//! its own.

use crate::limits;
use crate::proto::args::Args;
use crate::proto::frame::SessionMark;
use crate::types::ClientId;

/// The commands of one turn, in arrival order.
#[derive(Default, Debug)]
pub struct Requests {
    arena: Vec<u8>,
    heads: Vec<Head>,
    /// Of all commands together.
    args: usize,
}

/// One command's place in the arena.
#[derive(Clone, Copy, Debug)]
struct Head {
    client: ClientId,
    kind: Kind,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Command { count: u32 },
    InSession { mark: SessionMark, count: u32 },
    Refused,
    Malformed,
}

impl Kind {
    fn args(self) -> usize {
        match self {
            Kind::Command { count } | Kind::InSession { count, .. } => count as usize,
            Kind::Refused | Kind::Malformed => 0,
        }
    }
}

/// What one client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// A command and its arguments.
    Command(Args<'a>),
    /// A command of a client session.
    InSession(SessionMark, Args<'a>),
    /// Something that was skipped, with the error line that answers it; the connection stays.
    Refused(&'a str),
    /// Something after which the stream makes no sense: the error line that answers it (nothing
    /// where it is empty), then the connection is closed.
    Malformed(&'a str),
}

impl Requests {
    /// Where a decoder appends a command's encoded arguments before it is named.
    pub fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// Names what was appended to the arena since the last call: a command of `count` arguments.
    pub fn push_command(&mut self, client: ClientId, count: u32) {
        self.push_kind(client, Kind::Command { count });
    }

    /// The same for a command of a client session.
    pub fn push_in_session(&mut self, client: ClientId, mark: SessionMark, count: u32) {
        self.push_kind(client, Kind::InSession { mark, count });
    }

    fn push_kind(&mut self, client: ClientId, kind: Kind) {
        let start = self.end();
        let end = self.arena.len();
        self.args += kind.args();
        self.heads.push(Head { client, kind, start, end });
    }

    /// Adds something that is answered with `error` (without the leading `-`) and skipped.
    pub fn push_refused(&mut self, client: ClientId, error: &str) {
        self.push_text(client, Kind::Refused, error);
    }

    /// Adds the end of a stream that makes no sense: `error` is answered unless it is empty, then
    /// the connection is closed.
    pub fn push_malformed(&mut self, client: ClientId, error: &str) {
        self.push_text(client, Kind::Malformed, error);
    }

    /// Whether nothing arrived.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// How many commands there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Bytes of arguments.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The same, and what the arguments count beside their bytes: by it a turn is bounded.
    pub fn cost(&self) -> usize {
        self.arena.len() + self.args * limits::ARG_COST_BYTES
    }

    /// The client and the request at `position`.
    pub fn get(&self, position: usize) -> Option<(ClientId, Request<'_>)> {
        let head = self.heads.get(position)?;
        let bytes = &self.arena[head.start..head.end];
        let text = || std::str::from_utf8(bytes).expect("push_text was given a str");
        let request = match head.kind {
            Kind::Command { count } => Request::Command(Args::new(count, bytes)),
            Kind::InSession { mark, count } => Request::InSession(mark, Args::new(count, bytes)),
            Kind::Refused => Request::Refused(text()),
            Kind::Malformed => Request::Malformed(text()),
        };
        Some((head.client, request))
    }

    /// Copies the request at `position` of `other` behind the ones here.
    pub fn push_from(&mut self, other: &Requests, position: usize) {
        let head = other.heads[position];
        let start = self.end();
        self.arena.extend_from_slice(&other.arena[head.start..head.end]);
        self.args += head.kind.args();
        self.heads.push(Head { start, end: self.arena.len(), ..head });
    }

    fn push_text(&mut self, client: ClientId, kind: Kind, text: &str) {
        let start = self.end();
        assert_eq!(start, self.arena.len(), "a command was left without its name");
        self.arena.extend_from_slice(text.as_bytes());
        self.heads.push(Head { client, kind, start, end: self.arena.len() });
    }

    fn end(&self) -> usize {
        self.heads.last().map_or(0, |head| head.end)
    }
}
