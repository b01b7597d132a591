//! A transaction in a history: compares, and what is done where all hold or where one doesn't.
//!
//! Design 4-surface §3 (TXN). MULTI ... EXEC is one too: its compares are what was read of a watched
//! key behind WATCH, as it is carried out only if nothing has changed since. Called by `history`.
//! Takes only commands whose effect a search can follow: GET, SET, DEL.

use std::fmt;

use super::history::{Answer, Command, Word, answer_of, show};
use crate::proto::integer::parse_integer;
use crate::proto::reply_decoder::Value;

/// A transaction, atomic as one command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Keys and what they must hold; nothing: there must be no such key.
    pub compares: Vec<(Word, Option<Word>)>,
    /// What is done where all of them hold.
    pub then: Vec<Command>,
    /// What is done else.
    pub otherwise: Vec<Command>,
}

impl Transaction {
    /// The words behind TXN: `IF VALUE key value`, `IF MISSING key`, `THEN n command`, `ELSE n
    /// command`, as often as one likes; nothing for any other.
    pub(super) fn from_words(mut words: &[&[u8]]) -> Option<Transaction> {
        let mut transaction =
            Transaction { compares: Vec::new(), then: Vec::new(), otherwise: Vec::new() };
        while !words.is_empty() {
            words = match words {
                [b"IF", b"VALUE", key, value, rest @ ..] => {
                    transaction.compares.push((key.to_vec(), Some(value.to_vec())));
                    rest
                }
                [b"IF", b"MISSING", key, rest @ ..] => {
                    transaction.compares.push((key.to_vec(), None));
                    rest
                }
                [branch @ (b"THEN" | b"ELSE"), count, rest @ ..] => {
                    let count = usize::try_from(parse_integer(count)?).ok()?;
                    let (command, rest) = rest.split_at_checked(count)?;
                    let command = Command::from_words(command)?;
                    let is_followed = matches!(
                        command,
                        Command::Get { .. } | Command::Set { .. } | Command::Del { .. }
                    );
                    let branch = match *branch {
                        b"THEN" => &mut transaction.then,
                        _ => &mut transaction.otherwise,
                    };
                    branch.push(is_followed.then_some(command)?);
                    rest
                }
                _ => return None,
            };
        }
        (!transaction.keys().is_empty()).then_some(transaction)
    }

    /// The keys it names.
    pub(super) fn keys(&self) -> Vec<&[u8]> {
        let compared = self.compares.iter().map(|(key, _)| key.as_slice());
        let touched = self.commands().flat_map(Command::keys);
        compared.chain(touched).collect()
    }

    fn commands(&self) -> impl Iterator<Item = &Command> {
        self.then.iter().chain(&self.otherwise)
    }

    /// Whether it can change nothing.
    pub(super) fn is_read(&self) -> bool {
        self.commands().all(Command::is_read)
    }
}

/// What a transaction was answered; nothing for an EXEC that was not carried out, because what it
/// watched had changed.
pub(super) fn answer_to_transaction(reply: &Value) -> Option<Answer> {
    let all = |replies: &[Value]| replies.iter().map(answer_of).collect();
    match reply {
        Value::Nil => None,
        Value::Array(replies) => Some(match &replies[..] {
            [Value::Integer(held), Value::Array(replies)] => {
                Answer::Replies { held: *held == 1, replies: all(replies) }
            }
            replies => Answer::Replies { held: true, replies: all(replies) },
        }),
        other => Some(answer_of(other)),
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TXN")?;
        for (key, value) in &self.compares {
            match value {
                Some(value) => write!(f, " IF VALUE {} {}", key.escape_ascii(), show(value))?,
                None => write!(f, " IF MISSING {}", key.escape_ascii())?,
            }
        }
        self.then.iter().try_for_each(|command| write!(f, " THEN {command}"))?;
        self.otherwise.iter().try_for_each(|command| write!(f, " ELSE {command}"))
    }
}
