//! What an operator asks of the cluster's members, and what is answered: RAFT ADD and its like.
//!
//! Design page 4, §3. A request travels to the leader as its words, so that the leader reads it as
//! if a client of its own had sent it. Called by `kv/admin.rs`, which reads the words, `node/`,
//! which carries them out, and [`super::peer_message`].

use bytes::Bytes;

use crate::proto::args::Args;
use crate::types::{Boot, ServerId};

/// Where a member is reached. Changed as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// By peers: `host:port`.
    pub peer: String,
    /// By clients.
    pub client: String,
    /// By HTTP; empty where it isn't.
    pub http: String,
}

/// A request, and whether it is only to be thought through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admin {
    /// What is asked for.
    pub request: AdminRequest,
    /// Whether nothing is to be changed: the answer tells what would be.
    pub dry_run: bool,
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminRequest {
    /// `RAFT ADD`: a new member, or one that lost its disk.
    Add {
        /// Its id.
        id: ServerId,
        /// Where it is reached; nothing for a member, which keeps its own.
        addresses: Option<Addresses>,
        /// Whether it is to stay a learner.
        learner: bool,
    },
    /// `RAFT REMOVE`
    Remove {
        /// Its id.
        id: ServerId,
        /// Whether the risk of a membership without a majority is taken.
        force: bool,
    },
    /// `RAFT PROMOTE`
    Promote {
        /// The learner's id.
        id: ServerId,
    },
    /// `RAFT REPLACE`: a new member in the place of another.
    Replace {
        /// Who is to leave.
        old: ServerId,
        /// Who takes its place.
        new: ServerId,
        /// Where that one is reached.
        addresses: Addresses,
    },
    /// `RAFT MOVE`: other addresses.
    Move {
        /// Whose.
        id: ServerId,
        /// The new ones.
        addresses: Addresses,
    },
    /// `RAFT TRANSFER`: another leader.
    Transfer {
        /// Who; nobody: whoever is furthest along.
        to: Option<ServerId>,
    },
}

/// The name of one request. It begins with the boot counter, so that no late answer serves a later
/// process's request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AdminId {
    /// The asking process's boot.
    pub boot: Boot,
    /// 1, 2, 3 ... in this boot.
    pub number: u64,
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is done, or was so already.
    Done,
    /// A text for people: what a dry run found.
    Text(String),
    /// It was not done: the error line.
    Refused(String),
}

impl Answer {
    /// Its code and its text.
    pub fn parts(&self) -> (u8, &str) {
        match self {
            Answer::Done => (0, ""),
            Answer::Text(text) => (1, text),
            Answer::Refused(text) => (2, text),
        }
    }

    /// The answer of a code and a text, or `None` where there is none.
    pub fn from_parts(code: u8, text: &str) -> Option<Answer> {
        match code {
            0 if text.is_empty() => Some(Answer::Done),
            1 => Some(Answer::Text(text.to_owned())),
            2 => Some(Answer::Refused(text.to_owned())),
            _ => None,
        }
    }
}

/// A command's words as they travel: how many (u32, little-endian), then the encoded form.
pub fn pack_words(args: Args<'_>) -> Bytes {
    let count = u32::try_from(args.len()).expect("limits::ARGS bounds it");
    let mut bytes = count.to_le_bytes().to_vec();
    bytes.extend_from_slice(args.encoded());
    Bytes::from(bytes)
}

/// The words of what travelled, or `None` where they are none.
pub fn unpack_words(packed: &[u8]) -> Option<Args<'_>> {
    let (count, words) = packed.split_first_chunk::<4>()?;
    Args::checked(u32::from_le_bytes(*count), words)
}
