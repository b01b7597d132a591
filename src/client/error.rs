//! What can go wrong for a client, parted by what it may do next.
//!
//! The line that matters (design page 2 §2): *surely not done*, or *maybe*. Called by the
//! connection and the fail-over beside it.

use std::error::Error;
use std::fmt;
use std::io;

use crate::proto::frame::{FrameError, FrameKind};
use crate::proto::hello::{HelloError, HelloRefused};
use crate::proto::reply_decoder::ReplyError;

/// Why a connection could not be made, or broke.
#[derive(Debug)]
pub enum LinkError {
    /// The endpoint's name has no address.
    Resolve(io::Error),
    /// Connecting failed.
    Connect(io::Error),
    /// Reading or writing failed.
    Io(io::Error),
    /// The server closed the connection.
    Closed,
    /// No answer in time.
    TimedOut,
    /// The server refused the hello.
    Refused(HelloRefused),
    /// The server sent no hello that this version reads.
    Hello(HelloError),
    /// The server sent what is no frame.
    Frame(FrameError),
    /// The server sent a frame of a kind that has no business here.
    UnexpectedFrame(FrameKind),
    /// The server answered another request than the one that is next.
    UnexpectedTag,
    /// The server sent what is no reply.
    Reply(ReplyError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Resolve(error) => write!(f, "no address: {error}"),
            LinkError::Connect(error) => write!(f, "cannot connect: {error}"),
            LinkError::Io(error) => write!(f, "connection lost: {error}"),
            LinkError::Closed => write!(f, "the server closed the connection"),
            LinkError::TimedOut => write!(f, "no answer in time"),
            LinkError::Refused(refused) => write!(f, "refused: {}", refused.text),
            LinkError::Hello(error) => write!(f, "{error}"),
            LinkError::Frame(error) => write!(f, "{error}"),
            LinkError::UnexpectedFrame(kind) => write!(f, "unexpected frame {kind:?}"),
            LinkError::UnexpectedTag => write!(f, "a reply to another request"),
            LinkError::Reply(error) => write!(f, "{error}"),
        }
    }
}

impl Error for LinkError {}

impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> LinkError {
        LinkError::Frame(error)
    }
}

impl From<HelloError> for LinkError {
    fn from(error: HelloError) -> LinkError {
        LinkError::Hello(error)
    }
}

impl From<ReplyError> for LinkError {
    fn from(error: ReplyError) -> LinkError {
        LinkError::Reply(error)
    }
}

/// An error reply: the server understood, and says no.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorReply {
    /// The whole line, without the leading `-`.
    pub text: String,
}

impl ErrorReply {
    /// The first word: `ERR`, `WRONGTYPE`, `CLUSTERDOWN` ...
    pub fn code(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// Whether another node, or this one a little later, may well say yes: the command was surely
    /// not done.
    pub fn is_passing(&self) -> bool {
        matches!(self.code(), "CLUSTERDOWN" | "LOADING")
    }
}

/// Why it is not known whether a command was done.
#[derive(Debug)]
pub enum Doubt {
    /// The connection broke after the command was sent and before its reply came.
    Link {
        /// The node that it was sent to.
        endpoint: String,
        /// How it broke.
        error: LinkError,
    },
    /// The server says so itself: the text of its `-INDOUBT`.
    Server(String),
}

/// What a command came to, when it was not a reply.
#[derive(Debug)]
pub enum ClientError {
    /// No node could be reached. Surely not done.
    Unreachable {
        /// Each endpoint that was tried, and what came of the last attempt.
        attempts: Vec<(String, LinkError)>,
    },
    /// There is no endpoint to connect to. Surely not done.
    NoEndpoint,
    /// A command without a word. Surely not done.
    NoCommand,
    /// A command over [`COMMAND_BYTES`](crate::limits::COMMAND_BYTES). Surely not done.
    TooLarge {
        /// Its length when encoded.
        bytes: usize,
    },
    /// Part of a pipeline that was not sent any more after an earlier part was lost. Surely not
    /// done.
    NotSent,
    /// The server's refusal. Surely not done.
    Reply(ErrorReply),
    /// It may have been done, or not, or may still be.
    InDoubt(Doubt),
}

impl ClientError {
    /// Whether the command is surely not done, now and later.
    pub fn is_surely_not_done(&self) -> bool {
        !matches!(self, ClientError::InDoubt(_))
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable { attempts } => {
                write!(f, "no node could be reached")?;
                for (number, (endpoint, error)) in attempts.iter().enumerate() {
                    let separator = if number == 0 { ": " } else { "; " };
                    write!(f, "{separator}{endpoint}: {error}")?;
                }
                Ok(())
            }
            ClientError::NoEndpoint => write!(f, "no endpoint was given"),
            ClientError::NoCommand => write!(f, "an empty command"),
            ClientError::TooLarge { bytes } => {
                write!(f, "a command of {bytes} bytes, limit {}", crate::limits::COMMAND_BYTES)
            }
            ClientError::NotSent => write!(f, "not sent: an earlier command was lost"),
            ClientError::Reply(reply) => write!(f, "{}", reply.text),
            ClientError::InDoubt(Doubt::Link { endpoint, error }) => {
                write!(f, "INDOUBT it may have been done or not ({endpoint}: {error})")
            }
            ClientError::InDoubt(Doubt::Server(text)) => write!(f, "{text}"),
        }
    }
}

impl Error for ClientError {}
