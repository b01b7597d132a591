//! The client's end of its session: which commands it numbers, and what their replies say.
//!
//! Design page 2 §2. A command that goes through the log is sent as one of a session; when its reply
//! is lost it is sent again under the same number, to another node, and takes effect once. Called
//! by the fail-over beside it. Opens no connection and waits for nothing.

use super::error::ErrorReply;
use crate::kv::command;
use crate::kv::in_session::{REPLY_FORGOTTEN, SESSION_GAP, SESSION_OVER};
use crate::proto::args::{Args, push_arg};
use crate::proto::frame::SessionMark;
use crate::types::{RequestSeq, SessionId};

/// A session that was opened.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The number of the next command.
    next: RequestSeq,
    /// Whether a command was refused before the session counted it, so that `next` may be too high.
    pub(super) is_unsure: bool,
}

impl Session {
    /// One in which nothing was done.
    pub(super) fn new(id: SessionId) -> Session {
        Session { id, next: RequestSeq(1), is_unsure: false }
    }

    /// What the next command is; nothing before it is awaited.
    pub(super) fn next(&self) -> SessionMark {
        SessionMark { session: self.id, number: self.next, awaited: self.next }
    }

    /// A command of this number was sent: the one behind it is next.
    pub(super) fn pass(&mut self, number: RequestSeq) {
        self.next = self.next.max(number.next());
    }

    /// The server says which number is the next.
    pub(super) fn go_to(&mut self, next: RequestSeq) {
        self.next = next;
        self.is_unsure = false;
    }
}

/// Whether a command goes through the log, and is not refused before: those have numbers.
pub(super) fn has_number(args: &[impl AsRef<[u8]>]) -> bool {
    let mut encoded = Vec::new();
    args.iter().for_each(|arg| push_arg(&mut encoded, arg.as_ref()));
    let Ok(count) = u32::try_from(args.len()) else { return false };
    command::resolve(Args::new(count, &encoded)).is_ok_and(command::Command::is_write)
}

/// The number that a server names as the next one, where a command came too early.
pub(super) fn gap(reply: &ErrorReply) -> Option<RequestSeq> {
    if reply.code() != SESSION_GAP {
        return None;
    }
    reply.text.split(' ').nth(1)?.parse().ok().map(RequestSeq)
}

/// Whether it was a node that refused the command: then its session has not counted it.
pub(super) fn is_of_node(reply: &ErrorReply) -> bool {
    let codes = ["CLUSTERDOWN", "LOADING", "OOM", "MISCONF", "REDIRECT", "MOVED", "NOAUTH"];
    codes.contains(&reply.code())
}

/// Whether an `-INDOUBT` says that the session is over.
pub(super) fn is_over(text: &str) -> bool {
    text == SESSION_OVER
}

/// Whether an `-INDOUBT` says that asking again is of no use.
pub(super) fn is_forgotten(text: &str) -> bool {
    text == REPLY_FORGOTTEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_number_is_what_the_log_carries() {
        assert!(has_number(&["set", "a", "1"]));
        assert!(has_number(&["SESSION", "close", "4"]));
        assert!(!has_number(&["GET", "a"]));
        assert!(!has_number(&["SET", "a"]), "it is refused by itself");
        assert!(!has_number(&["EXEC"]), "what it does depends on its connection");
        assert!(!has_number(&["RAFT", "REMOVE", "1"]));
        assert!(!has_number(&[] as &[&str]));
    }

    #[test]
    fn replies_are_told_apart() {
        let reply = |text: &str| ErrorReply { text: text.to_owned() };
        assert_eq!(gap(&reply("SESSIONGAP 5 is the next")), Some(RequestSeq(5)));
        assert_eq!(gap(&reply("ERR 5")), None);
        assert!(is_of_node(&reply("OOM command not allowed")));
        assert!(!is_of_node(&reply("ERR value is not an integer or out of range")));
        assert!(is_over(SESSION_OVER) && !is_over(REPLY_FORGOTTEN));
    }

    #[test]
    fn pass_goes_on_and_a_gap_goes_back() {
        let mut session = Session::new(SessionId(3));
        session.pass(RequestSeq(4));
        session.pass(RequestSeq(2));
        assert_eq!(session.next().number, RequestSeq(5));
        session.go_to(RequestSeq(3));
        assert_eq!(session.next().number, RequestSeq(3));
    }
}
