//! A simulated client's session: it numbers its writes, and says again what was not answered.
//!
//! Design 2-client-path §2. A write of a session whose reply is lost is asked for again elsewhere,
//! until it is known what became of it: the history then has it once, from when it was first said
//! to its answer. Called by the clients; decides nothing about a reply's truth.

use std::collections::VecDeque;

use super::clients::Words;
use super::history::Operation;
use crate::kv::in_session::{SESSION_GAP, SESSION_OVER};
use crate::proto::reply_decoder::Value;

/// A command that waits for its reply.
pub(super) struct Said {
    pub operation: Operation,
    /// Its number in the session; 0: it has none.
    pub number: u64,
    /// It was said before.
    pub is_repeated: bool,
}

/// What a reply means for a numbered command.
pub(super) enum Meaning {
    /// It is the command's.
    Answered,
    /// The command was surely not done, now or ever.
    NotDone,
    /// Nobody knows what became of it.
    Unknown,
    /// It has to be asked for again.
    Again,
}

/// A client's session, and what it has yet to ask for again.
#[derive(Default)]
pub(super) struct Session {
    /// Its number; 0: it has to be opened.
    id: u64,
    next: u64,
    /// It is being opened: the next reply says its number.
    pub is_opening: bool,
    /// A number was not used, or may not have been: another session has to follow.
    is_left: bool,
    /// What was said and not answered, in order.
    pub again: VecDeque<Said>,
}

impl Session {
    /// Whether the next thing to say is that one is to be opened.
    pub fn must_open(&mut self) -> bool {
        if self.is_left && self.again.is_empty() {
            (self.id, self.is_left) = (0, false);
        }
        self.is_opening = self.id == 0 && self.again.is_empty();
        self.is_opening
    }

    /// It was asked to be opened, and this came of it.
    pub fn opened(&mut self, value: &Value) {
        self.is_opening = false;
        if let Value::Integer(id) = value {
            (self.id, self.next) = (*id as u64, 1);
        }
    }

    /// The number of a new command; 0 where it is one that reads.
    pub fn number(&mut self, words: &Words) -> u64 {
        let reads: [&[u8]; 5] = [b"GET", b"MGET", b"STRLEN", b"HELLO", b"CLIENT"];
        if reads.contains(&&words[0][..]) {
            return 0;
        }
        self.next += 1;
        self.next - 1
    }

    /// A number is lost: the command that it belonged to is never said.
    pub fn skip(&mut self) {
        self.next += 1;
    }

    /// A command as one of the session, where `awaited` is the first that is not answered.
    pub fn marked(&self, words: &Words, number: u64, awaited: u64) -> Words {
        let mut marked = vec![b"SESSION".to_vec(), b"DO".to_vec()];
        for number in [self.id, number, awaited] {
            marked.push(number.to_string().into_bytes());
        }
        marked.extend(words.iter().cloned());
        marked
    }

    /// What this reply means for a numbered command. The first one that has to be asked for again
    /// knows that what was before it is decided.
    pub fn judge(&mut self, said: &Said, value: &Value) -> Meaning {
        let Value::Error(text) = value else {
            return Meaning::Answered;
        };
        let is_first = self.again.is_empty();
        if text == SESSION_OVER {
            self.is_left = true;
            return if said.is_repeated { Meaning::Unknown } else { Meaning::NotDone };
        }
        if text.starts_with("INDOUBT") {
            return Meaning::Again;
        }
        if text.starts_with(SESSION_GAP) {
            // The one that is missing won't be said any more, so this one is never done either.
            self.is_left = true;
            return if said.is_repeated && !is_first { Meaning::Again } else { Meaning::NotDone };
        }
        let is_of_node = ["CLUSTERDOWN", "MISCONF", "LOADING"];
        match is_of_node.iter().any(|code| text.starts_with(code)) {
            // It says nothing of what was said before.
            true if said.is_repeated => Meaning::Again,
            true => {
                self.is_left = true;
                Meaning::NotDone
            }
            false => Meaning::Answered,
        }
    }
}
