//! What is sent and answered as one: a command, or a transaction from MULTI to EXEC.
//!
//! Design page 2 §2: in a session the EXEC alone has a number; MULTI and what it queues are sent
//! with it on whichever connection it is tried, and are nothing without it. Called by the fail-over
//! beside it, which decides whether something is sent again.

use std::time::Instant;

use super::command::is_repeatable;
use super::connection::Connection;
use super::error::{ClientError, ErrorReply, LinkError};
use super::failover::{Client, check_size, encoded_bytes};
use crate::limits;
use crate::proto::frame::SessionMark;
use crate::proto::reply_decoder::Value;

/// See the file's head.
#[derive(Debug)]
pub(super) enum Request<'a, A> {
    Command(&'a [A]),
    Transaction(&'a [Vec<A>]),
}

// Not derived: the words themselves need not be copied.
impl<A> Clone for Request<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Request<'_, A> {}

impl<A: AsRef<[u8]>> Request<'_, A> {
    /// Whether it does no harm when it is done twice.
    pub(super) fn is_repeatable(self) -> bool {
        match self {
            Request::Command(args) => is_repeatable(args),
            Request::Transaction(commands) => commands.iter().all(|args| is_repeatable(args)),
        }
    }

    /// Adds it to what the connection sends next.
    pub(super) fn queue(self, mark: Option<SessionMark>, connection: &mut Connection) {
        match (self, mark) {
            (Request::Command(args), None) => connection.queue(args),
            (Request::Command(args), Some(mark)) => connection.queue_in_session(mark, args),
            (Request::Transaction(commands), mark) => {
                connection.queue(&["MULTI"]);
                commands.iter().for_each(|args| connection.queue(args));
                match mark {
                    None => connection.queue(&["EXEC"]),
                    Some(mark) => connection.queue_in_session(mark, &["EXEC"]),
                }
            }
        }
    }

    /// Its answer. Where a command could not be queued, that is the answer of the transaction: EXEC
    /// says only that there was such a one.
    ///
    /// # Errors
    /// The connection's.
    pub(super) fn receive(
        self,
        connection: &mut Connection,
        deadline: Instant,
    ) -> Result<Value, LinkError> {
        let Request::Transaction(commands) = self else {
            return connection.receive(deadline);
        };
        let mut refused = None;
        for _ in 0..=commands.len() {
            let reply = connection.receive(deadline)?;
            refused = refused.or(Some(reply).filter(|reply| matches!(reply, Value::Error(_))));
        }
        let answer = connection.receive(deadline)?;
        Ok(refused.unwrap_or(answer))
    }
}

/// The command's name, if what follows it would not be of the transaction any more, or if it would
/// only break it.
fn ends_a_block(args: &[impl AsRef<[u8]>]) -> Option<&'static str> {
    let names = ["MULTI", "EXEC", "DISCARD", "RESET", "WATCH", "UNWATCH", "QUIT"];
    let word = args.first()?.as_ref();
    names.into_iter().find(|name| word.eq_ignore_ascii_case(name.as_bytes()))
}

/// Why a transaction is not begun.
fn misplaced(client: &Client) -> Option<&'static str> {
    if client.is_in_block {
        return Some("ERR MULTI calls can not be nested");
    }
    let text = "ERR a transaction that may be sent again can't depend on WATCH: see TXN and IFREV";
    client.is_watching.then_some(text)
}

impl Client {
    /// Carries out all `commands` as one transaction (MULTI, the commands, EXEC): all of them at one
    /// place of the log, or none. Returns EXEC's reply, an array of each command's, errors among
    /// them. In a session it is sent again until it is answered, and done once, as one command is.
    ///
    /// # Errors
    /// As [`command`](Client::command). A command that is refused before it is queued is returned as
    /// that refusal; nothing was done. So is a transaction behind a WATCH or a MULTI that was sent as
    /// a command of its own: those depend on one connection.
    pub fn transaction(
        &mut self,
        commands: &[Vec<impl AsRef<[u8]>>],
    ) -> Result<Value, ClientError> {
        if let Some(text) = misplaced(self) {
            return Err(ClientError::Reply(ErrorReply { text: text.to_owned() }));
        }
        if commands.is_empty() {
            return Err(ClientError::NoCommand);
        }
        if let Some(word) = commands.iter().find_map(|args| ends_a_block(args)) {
            let text = format!("ERR {word} can't be one of a transaction's commands");
            return Err(ClientError::Reply(ErrorReply { text }));
        }
        commands.iter().try_for_each(|args| check_size(args))?;
        let bytes: usize = commands.iter().map(|args| encoded_bytes(args)).sum();
        if bytes > limits::COMMAND_BYTES {
            return Err(ClientError::TooLarge { bytes });
        }
        self.request(Request::Transaction(commands), None)
    }
}
