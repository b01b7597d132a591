//! What clients sent and were answered, in the order in which it happened.
//!
//! Source: Herlihy and Wing's histories of invocations and responses. Filled by the simulator's
//! clients and by tests, read by `check`. Judges nothing, except what kind of answer a reply is.

use std::collections::BTreeMap;
use std::fmt;

use super::transaction::{Transaction, answer_to_transaction};
use crate::proto::integer::parse_integer;
use crate::proto::reply_decoder::Value;

/// One connection. What it is answered takes effect in the order in which it was sent, and so do
/// writes of which it learns nothing, if they do at all; after a reconnect a client is a new one here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientId(pub u32);

/// The place of an operation in its history, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OperationId(pub u32);

/// A key or a value.
pub type Word = Vec<u8>;

/// A command as Redis understands it (CAS and CAD as design 4-surface §3 has them).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // The fields are Redis's arguments, by their names there.
pub enum Command {
    /// `GET key`
    Get { key: Word },
    /// `SET key value`
    Set { key: Word, value: Word },
    /// `SET key value NX` (`OK` or nil) and `SETNX key value` (1 or 0).
    SetNx { key: Word, value: Word },
    /// `DEL key ...`
    Del { keys: Vec<Word> },
    /// `EXISTS key ...`
    Exists { keys: Vec<Word> },
    /// `CAS key old new`: 1 done, 0 another value, -1 no such key.
    Cas { key: Word, old: Word, new: Word },
    /// `CAD key old`: likewise.
    Cad { key: Word, old: Word },
    /// `INCRBY key by` and its kin.
    Incr { key: Word, by: i64 },
    /// `APPEND key tail`
    Append { key: Word, tail: Word },
    /// `STRLEN key`
    Strlen { key: Word },
    /// `MSET key value ...`
    MSet { pairs: Vec<(Word, Word)> },
    /// `MGET key ...`
    MGet { keys: Vec<Word> },
    /// `TXN ...`, or a MULTI ... EXEC that comes to the same.
    Transaction(Transaction),
}

impl Command {
    /// The command that these words are, or `None` for one that is not modelled: such a command
    /// must not touch a key of the history.
    pub fn from_words(words: &[&[u8]]) -> Option<Command> {
        let (name, words) = words.split_first()?;
        let own = |word: &[u8]| word.to_vec();
        let all = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect();
        Some(match (name.to_ascii_lowercase().as_slice(), words) {
            (b"get", [key]) => Command::Get { key: own(key) },
            (b"set", [key, value]) => Command::Set { key: own(key), value: own(value) },
            (b"set", [key, value, option]) if option.eq_ignore_ascii_case(b"nx") => {
                Command::SetNx { key: own(key), value: own(value) }
            }
            (b"setnx", [key, value]) => Command::SetNx { key: own(key), value: own(value) },
            (b"del", [_, ..]) => Command::Del { keys: all(words) },
            (b"exists", [_, ..]) => Command::Exists { keys: all(words) },
            (b"cas", [key, old, new]) => {
                Command::Cas { key: own(key), old: own(old), new: own(new) }
            }
            (b"cad", [key, old]) => Command::Cad { key: own(key), old: own(old) },
            (b"incr", [key]) => Command::Incr { key: own(key), by: 1 },
            (b"decr", [key]) => Command::Incr { key: own(key), by: -1 },
            (b"incrby", [key, by]) => Command::Incr { key: own(key), by: parse_integer(by)? },
            (b"decrby", [key, by]) => {
                Command::Incr { key: own(key), by: parse_integer(by)?.checked_neg()? }
            }
            (b"append", [key, tail]) => Command::Append { key: own(key), tail: own(tail) },
            (b"strlen", [key]) => Command::Strlen { key: own(key) },
            (b"mset", [_, _, ..]) if words.len() % 2 == 0 => Command::MSet {
                pairs: words.chunks_exact(2).map(|pair| (own(pair[0]), own(pair[1]))).collect(),
            },
            (b"mget", [_, ..]) => Command::MGet { keys: all(words) },
            (b"txn", words) => Command::Transaction(Transaction::from_words(words)?),
            _ => return None,
        })
    }

    /// The keys it names, in order, twice if it names one twice.
    pub fn keys(&self) -> Vec<&[u8]> {
        match self {
            Command::Get { key }
            | Command::Set { key, .. }
            | Command::SetNx { key, .. }
            | Command::Cas { key, .. }
            | Command::Cad { key, .. }
            | Command::Incr { key, .. }
            | Command::Append { key, .. }
            | Command::Strlen { key } => vec![key],
            Command::Del { keys } | Command::Exists { keys } | Command::MGet { keys } => {
                keys.iter().map(Vec::as_slice).collect()
            }
            Command::MSet { pairs } => pairs.iter().map(|(key, _)| key.as_slice()).collect(),
            Command::Transaction(transaction) => transaction.keys(),
        }
    }

    /// Whether it can change nothing.
    pub fn is_read(&self) -> bool {
        match self {
            Command::Get { .. }
            | Command::Exists { .. }
            | Command::Strlen { .. }
            | Command::MGet { .. } => true,
            Command::Transaction(transaction) => transaction.is_read(),
            _ => false,
        }
    }
}

/// What a client was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// `+OK`
    Ok,
    /// No value.
    Nil,
    /// `:1`
    Integer(i64),
    /// A value.
    Value(Word),
    /// MGET's values.
    Values(Vec<Option<Word>>),
    /// Whether a transaction's compares held, and what the commands of that branch answered.
    Replies {
        #[allow(missing_docs)] // See above.
        held: bool,
        #[allow(missing_docs)]
        replies: Vec<Answer>,
    },
    /// Executed and refused by the state machine, without effect: the state must be one that
    /// refuses it.
    Error(String),
}

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// No answer, or INDOUBT: it takes effect at any later time, or never; but before the next write
    /// of its client that was answered.
    Unknown,
    /// Surely without effect.
    NotDone,
    /// Answered, at this event.
    Answered { event: usize, at_us: u64, answer: Answer },
}

/// One operation of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Operation {
    pub client: ClientId,
    pub command: Command,
    /// The number of the invocation among all events.
    pub invoked: usize,
    pub invoked_at_us: u64,
    pub ending: Ending,
    /// The next write of its client that was answered, and the event of that answer.
    pub next_write: Option<(usize, usize)>,
    ended: bool,
}

/// A history: invocations and answers. All keys are absent at its beginning.
///
/// The order of the calls is the real-time order: an operation that was answered before another
/// was invoked comes before it. The times are for the reader.
#[derive(Clone, Default, Debug)]
pub struct History {
    pub(super) operations: Vec<Operation>,
    /// By client: operations behind which no write of it was answered yet.
    unwritten: BTreeMap<ClientId, Vec<usize>>,
    events: usize,
    latest_us: u64,
}

impl History {
    /// A history of nothing.
    pub fn new() -> History {
        History::default()
    }

    /// `client` sends `command`. Until told otherwise its outcome is unknown.
    pub fn invoke(&mut self, client: ClientId, at_us: u64, command: Command) -> OperationId {
        let id = OperationId(u32::try_from(self.operations.len()).expect("below 2^32 operations"));
        let invoked = self.event(at_us);
        let ending = Ending::Unknown;
        let operation = Operation {
            client,
            command,
            invoked,
            invoked_at_us: at_us,
            ending,
            next_write: None,
            ended: false,
        };
        self.unwritten.entry(client).or_default().push(self.operations.len());
        self.operations.push(operation);
        id
    }

    /// The operation was executed, and this is what its client was told.
    pub fn answer(&mut self, id: OperationId, at_us: u64, answer: Answer) {
        let event = self.event(at_us);
        let number = id.0 as usize;
        let Operation { client, command, .. } = &self.operations[number];
        if !command.is_read() {
            let before = self.unwritten.entry(*client).or_default();
            for one in before.extract_if(.., |one| *one < number) {
                self.operations[one].next_write = Some((number, event));
            }
        }
        self.end(id, Ending::Answered { event, at_us, answer });
    }

    /// The operation was refused in a way that promises that it has no effect, ever.
    pub fn not_done(&mut self, id: OperationId, at_us: u64) {
        self.event(at_us);
        self.end(id, Ending::NotDone);
    }

    /// Nobody will learn what became of the operation.
    pub fn unknown(&mut self, id: OperationId, at_us: u64) {
        self.event(at_us);
        self.end(id, Ending::Unknown);
    }

    /// Sorts a reply into the three above: CLUSTERDOWN, MISCONF, LOADING, EXECABORT and an EXEC's nil
    /// promise that nothing was done, INDOUBT promises nothing, and everything else is an answer.
    pub fn reply(&mut self, id: OperationId, at_us: u64, reply: &Value) {
        if let Value::Error(text) = reply {
            match text.split(' ').next() {
                Some("CLUSTERDOWN" | "MISCONF" | "LOADING" | "EXECABORT") => {
                    return self.not_done(id, at_us);
                }
                Some("INDOUBT") => return self.unknown(id, at_us),
                _ => {}
            }
        }
        let answer = match self.operations[id.0 as usize].command {
            Command::Transaction(_) => answer_to_transaction(reply),
            _ => Some(answer_of(reply)),
        };
        match answer {
            Some(answer) => self.answer(id, at_us, answer),
            None => self.not_done(id, at_us),
        }
    }

    /// Whether a write of `key` may have taken effect in that time: it was sent before its end, and
    /// not answered before its beginning.
    pub fn may_be_written(&self, key: &[u8], from_us: u64, to_us: u64) -> bool {
        let mut writes = self.operations.iter().filter(|one| !one.command.is_read());
        writes.any(|one| {
            let may_be = match one.ending {
                Ending::NotDone => false,
                Ending::Unknown => true,
                Ending::Answered { at_us, .. } => at_us >= from_us,
            };
            may_be && one.invoked_at_us <= to_us && one.command.keys().contains(&key)
        })
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether nothing was ever invoked.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn event(&mut self, at_us: u64) -> usize {
        assert!(at_us >= self.latest_us, "a history is written in the order of time");
        self.latest_us = at_us;
        self.events += 1;
        self.events - 1
    }

    fn end(&mut self, id: OperationId, ending: Ending) {
        let operation = &mut self.operations[id.0 as usize];
        assert!(!operation.ended, "an operation ends once");
        operation.ended = true;
        operation.ending = ending;
    }
}

pub(super) fn answer_of(reply: &Value) -> Answer {
    let odd = || Answer::Error(format!("an answer of no modelled kind: {reply:?}"));
    match reply {
        Value::Simple(text) if text == "OK" => Answer::Ok,
        Value::Integer(number) => Answer::Integer(*number),
        Value::Bulk(value) => Answer::Value(value.clone()),
        Value::Nil => Answer::Nil,
        Value::Error(text) => Answer::Error(text.clone()),
        Value::Array(replies) => {
            let value = |reply: &Value| match reply {
                Value::Bulk(value) => Some(Some(value.clone())),
                Value::Nil => Some(None),
                _ => None,
            };
            replies.iter().map(value).collect::<Option<Vec<_>>>().map_or_else(odd, Answer::Values)
        }
        _ => odd(),
    }
}

/// Bytes of a word that a report shows.
const SHOWN_BYTES: usize = 40;

pub(super) fn show(word: &[u8]) -> String {
    if word.len() <= SHOWN_BYTES {
        return format!("\"{}\"", word.escape_ascii());
    }
    format!("\"{}...\" ({} bytes)", word[..SHOWN_BYTES].escape_ascii(), word.len())
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = |key: &[u8]| key.escape_ascii().to_string();
        let all = |keys: &[Word]| keys.iter().map(|one| key(one)).collect::<Vec<_>>().join(" ");
        match self {
            Command::Get { key: one } => write!(f, "GET {}", key(one)),
            Command::Set { key: one, value } => write!(f, "SET {} {}", key(one), show(value)),
            Command::SetNx { key: one, value } => write!(f, "SETNX {} {}", key(one), show(value)),
            Command::Del { keys } => write!(f, "DEL {}", all(keys)),
            Command::Exists { keys } => write!(f, "EXISTS {}", all(keys)),
            Command::Cas { key: one, old, new } => {
                write!(f, "CAS {} {} {}", key(one), show(old), show(new))
            }
            Command::Cad { key: one, old } => write!(f, "CAD {} {}", key(one), show(old)),
            Command::Incr { key: one, by } => write!(f, "INCRBY {} {by}", key(one)),
            Command::Append { key: one, tail } => write!(f, "APPEND {} {}", key(one), show(tail)),
            Command::Strlen { key: one } => write!(f, "STRLEN {}", key(one)),
            Command::MSet { pairs } => {
                write!(f, "MSET")?;
                pairs.iter().try_for_each(|(one, value)| write!(f, " {} {}", key(one), show(value)))
            }
            Command::MGet { keys } => write!(f, "MGET {}", all(keys)),
            Command::Transaction(transaction) => transaction.fmt(f),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Ok => write!(f, "OK"),
            Answer::Nil => write!(f, "nil"),
            Answer::Integer(number) => write!(f, "{number}"),
            Answer::Value(value) => write!(f, "{}", show(value)),
            Answer::Values(values) => {
                let one = |value: &Option<Word>| value.as_deref().map_or("nil".into(), show);
                write!(f, "[{}]", values.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Answer::Replies { held, replies } => {
                let word = if *held { "THEN" } else { "ELSE" };
                let replies: Vec<String> = replies.iter().map(ToString::to_string).collect();
                write!(f, "{word} [{}]", replies.join(", "))
            }
            Answer::Error(text) => write!(f, "error: {text}"),
        }
    }
}
