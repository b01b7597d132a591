//! Many commands ahead of their replies.
//!
//! Called through [`Client::pipeline`]. What the fail-over beside it does for one command it does
//! here for those whose replies were lost, one by one and in order.

use std::time::Instant;

use super::command::is_repeatable;
use super::error::{ClientError, Doubt, LinkError};
use super::failover::{Client, check_size, encoded_bytes, result_of};
use super::session::{gap, is_forgotten, is_of_node, is_over};
use crate::limits;
use crate::proto::frame::SessionMark;
use crate::proto::reply_decoder::Value;

type Outcome = Result<Value, ClientError>;

impl Client {
    /// Sends many commands without waiting for each reply; returns one result a command, in
    /// order. Passing refusals are not tried again, since that would change the order; in a session
    /// what was sent behind a command that a node refused is not done either. Where the connection
    /// breaks, what has no reply yet is done again one by one: reads, and writes of the session,
    /// which are done once. Other writes are in doubt, and behind one that is nothing more is sent.
    pub fn pipeline(&mut self, commands: &[Vec<impl AsRef<[u8]>>]) -> Vec<Outcome> {
        let mut results = Vec::with_capacity(commands.len());
        let mut broken = false;
        while results.len() < commands.len() {
            let rest = &commands[results.len()..];
            if broken {
                results.push(Err(ClientError::NotSent));
            } else if let Err(error) = check_size(&rest[0]) {
                results.push(Err(error));
            } else {
                broken = self.window(rest, &mut results);
            }
        }
        results
    }

    /// Sends as many of `commands` as may go ahead of their replies, and adds their results.
    /// Returns whether something was lost.
    fn window(&mut self, commands: &[Vec<impl AsRef<[u8]>>], results: &mut Vec<Outcome>) -> bool {
        if let Err(error) = self.connect_until(Instant::now() + self.options.retry_timeout) {
            results.push(Err(error));
            return true;
        }
        // Which number is the next one is found out with the first command alone.
        let is_sure = self.session.as_ref().is_some_and(|session| !session.is_unsure);
        if !is_sure && self.takes_number(&commands[0]) {
            let result = self.command(&commands[0]);
            let broken = is_lost(&result);
            results.push(result);
            return broken;
        }
        let marks = self.queue_window(commands);
        let (answers, lost) = self.receive_window(marks.len());
        let endpoint = if lost.is_some() { self.abandon() } else { self.endpoint().to_owned() };
        let mut lost = lost.map(|error| (endpoint, error));
        let mut broken = false;
        let mut answers = answers.into_iter();
        for (args, mark) in commands.iter().zip(marks) {
            let answer = answers.next();
            let result = match (answer, mark) {
                (Some(answer), None) => answer,
                (Some(answer), Some(mark)) => self.settle(args, mark, answer),
                (None, Some(mark)) if broken => {
                    self.forget(mark);
                    let closed = (self.endpoint().to_owned(), LinkError::Closed);
                    Err(ClientError::InDoubt(in_doubt(closed)))
                }
                (None, Some(mark)) => {
                    let doubt = Doubt::Link { endpoint: String::new(), error: LinkError::Closed };
                    let doubt = lost.take().map_or(doubt, in_doubt);
                    self.command_after(args, Some((mark, doubt)))
                }
                (None, None) if is_repeatable(args) => self.command(args),
                (None, None) => {
                    let closed = || (self.endpoint().to_owned(), LinkError::Closed);
                    Err(ClientError::InDoubt(in_doubt(lost.take().unwrap_or_else(closed))))
                }
            };
            broken |= is_lost(&result);
            results.push(result);
        }
        broken
    }

    /// Queues what may go ahead of its replies; what each is in the session, if it is of it.
    fn queue_window(&mut self, commands: &[Vec<impl AsRef<[u8]>>]) -> Vec<Option<SessionMark>> {
        let mut marks: Vec<Option<SessionMark>> = Vec::new();
        let mut next = self.session.as_ref().map(|session| session.next());
        for args in commands {
            let connection = self.connection.as_mut().expect("connected just now");
            let bytes = connection.queued_bytes() + encoded_bytes(args);
            let is_full =
                bytes > limits::CLIENT_PIPELINE_BYTES || marks.len() >= limits::SESSION_REPLIES;
            // One that is too large ends the window here; it is the next one's first.
            if !marks.is_empty() && (is_full || check_size(args).is_err()) {
                break;
            }
            let takes_number = self.takes_number(args);
            if takes_number && next.is_none() {
                break;
            }
            let connection = self.connection.as_mut().expect("connected just now");
            match next.as_mut().filter(|_| takes_number) {
                None => {
                    connection.queue(args);
                    marks.push(None);
                }
                Some(mark) => {
                    connection.queue_in_session(*mark, args);
                    marks.push(Some(*mark));
                    mark.number = mark.number.next();
                }
            }
            self.note_block(args, true);
        }
        marks
    }

    /// The replies to what was queued, as far as they come.
    fn receive_window(&mut self, count: usize) -> (Vec<Outcome>, Option<LinkError>) {
        let connection = self.connection.as_mut().expect("its commands were just queued");
        let mut answers = Vec::with_capacity(count);
        let mut deadline = Instant::now() + self.options.reply_timeout;
        let mut lost = connection.flush(deadline).err();
        while lost.is_none() && answers.len() < count {
            match connection.receive(deadline) {
                Ok(value) => {
                    answers.push(result_of(value));
                    deadline = Instant::now() + self.options.reply_timeout;
                }
                Err(error) => lost = Some(error),
            }
        }
        (answers, lost)
    }

    /// What the answer to a session's command comes to. It was sent once.
    fn settle(&mut self, args: &[impl AsRef<[u8]>], mark: SessionMark, answer: Outcome) -> Outcome {
        match answer {
            // None of the session's commands was done, so those behind it weren't either.
            Err(ClientError::InDoubt(Doubt::Server(text))) if is_over(&text) => {
                self.forget(mark);
                self.command_after(args, None)
            }
            Err(ClientError::InDoubt(doubt)) => match doubt {
                Doubt::Server(text) if is_forgotten(&text) => {
                    self.pass(mark, false);
                    Err(ClientError::InDoubt(Doubt::Server(text)))
                }
                doubt => self.command_after(args, Some((mark, doubt))),
            },
            Err(ClientError::Reply(reply)) if gap(&reply).is_some() => {
                self.pass(mark, true);
                Err(ClientError::NotSent)
            }
            Err(ClientError::Reply(reply)) => {
                self.pass(mark, is_of_node(&reply));
                Err(ClientError::Reply(reply))
            }
            answer => {
                self.pass(mark, false);
                answer
            }
        }
    }
}

fn in_doubt((endpoint, error): (String, LinkError)) -> Doubt {
    Doubt::Link { endpoint, error }
}

/// Whether what follows would be done behind something that perhaps was not.
fn is_lost(result: &Outcome) -> bool {
    matches!(result, Err(ClientError::InDoubt(_) | ClientError::Unreachable { .. }))
}
