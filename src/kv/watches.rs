//! `KWATCH` and `KUNWATCH`: the rows, the reading of their words, and what a watcher is told.
//!
//! Ours; etcd's watches are the model: every change behind a revision, in order, and a clear word
//! where some are gone. Called by the table, for the check, and by `node/watches.rs`, which feeds
//! the watchers from [`super::history`]. Knows no connection.

use super::command::{Command, ConnectionCommand, Flags, Group, Handler, ROW};
use super::error::CommandError;
use super::history::{Change, ChangeKind};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::{push_bulk, push_count, push_number};
use crate::types::Revision;

const WATCHING: Command = Command {
    group: Group::PubSub,
    flags: Flags::NOSCRIPT.and(Flags::STALE),
    since: "0.1.0",
    ..ROW
};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "kwatch",
        arity: -2,
        summary: "Stream every change of the keys with a prefix, in order, from a revision on",
        usage: "prefix [FROM revision]",
        handler: Handler::Connection {
            check: |args| parse(args).map(drop),
            command: ConnectionCommand::KWatch,
        },
        ..WATCHING
    },
    Command {
        name: "kunwatch",
        arity: -1,
        summary: "End the watches of these prefixes, or all of this connection",
        usage: "[prefix ...]",
        handler: Handler::Connection { check: |_| Ok(()), command: ConnectionCommand::KUnwatch },
        ..WATCHING
    },
];

/// What a KWATCH asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch<'a> {
    /// What the keys begin with.
    pub prefix: &'a [u8],
    /// The changes behind this revision; `None`: those behind now.
    pub from: Option<Revision>,
}

/// Reads a KWATCH.
///
/// # Errors
/// Words that are not its own, a revision that is none, a prefix longer than a key.
pub fn parse(args: Args<'_>) -> Result<Watch<'_>, CommandError> {
    let mut words = args.iter().skip(1);
    let prefix = words.next().ok_or(CommandError::WrongArity("kwatch"))?;
    if prefix.len() > limits::KEY_BYTES {
        return Err(CommandError::KeyTooLong);
    }
    let from = match words.next() {
        None => None,
        Some(word) if word.eq_ignore_ascii_case(b"from") => {
            let revision = parse_integer(words.next().ok_or(CommandError::Syntax)?);
            let revision = revision.and_then(|revision| u64::try_from(revision).ok());
            Some(Revision(revision.ok_or(CommandError::NotAnInteger)?))
        }
        Some(_) => return Err(CommandError::Syntax),
    };
    match words.next() {
        None => Ok(Watch { prefix, from }),
        Some(_) => Err(CommandError::Syntax),
    }
}

/// A message to a watcher, as RESP3 has it. The same in RESP2 begins with another byte: see
/// [`as_arrays`].
fn begin(out: &mut Vec<u8>, count: usize, prefix: &[u8], event: &[u8], revision: Revision) {
    push_count(out, b'>', count);
    push_bulk(out, b"kwatch");
    push_bulk(out, prefix);
    push_bulk(out, event);
    push_number(out, revision.signed());
}

/// Appends what a watcher of this prefix is told of a change.
pub fn push_change(out: &mut Vec<u8>, prefix: &[u8], change: &Change<'_>) {
    let deadline = change.deadline.map(|time| i64::try_from(time.0).unwrap_or(i64::MAX));
    let (event, has_value): (&[u8], bool) = match (change.kind, deadline) {
        (ChangeKind::Set, _) => (b"set", true),
        (ChangeKind::Appended, _) => (b"append", true),
        (ChangeKind::Deadline, Some(_)) => (b"expire", false),
        (ChangeKind::Deadline, None) => (b"persist", false),
        (ChangeKind::Deleted, _) => (b"del", false),
        (ChangeKind::Expired, _) => (b"expired", false),
        (ChangeKind::Cleared, _) => {
            begin(out, 4, prefix, b"clear", change.revision);
            return;
        }
        (ChangeKind::Message, _) => unreachable!("watchers are told changes of keys"),
    };
    let count = 5 + usize::from(has_value) + usize::from(deadline.is_some());
    begin(out, count, prefix, event, change.revision);
    push_bulk(out, change.key);
    if has_value {
        push_bulk(out, change.value);
    }
    if let Some(deadline) = deadline {
        push_number(out, deadline);
    }
}

/// Appends a mark: everything up to this revision was told.
pub fn push_progress(out: &mut Vec<u8>, prefix: &[u8], revision: Revision) {
    begin(out, 4, prefix, b"progress", revision);
}

/// Appends the end of a watch that has missed changes: those up to this revision can't be told.
pub fn push_compacted(out: &mut Vec<u8>, prefix: &[u8], floor: Revision) {
    begin(out, 4, prefix, b"compacted", floor);
}

/// Makes arrays, which RESP2 knows, of the messages that begin at these places.
pub fn as_arrays(messages: &mut [u8], starts: &[usize]) {
    for start in starts {
        assert_eq!(messages[*start], b'>', "a message begins here");
        messages[*start] = b'*';
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::args::push_arg;
    use crate::types::ClusterTime;

    fn parsed(line: &str) -> Result<(Vec<u8>, Option<u64>), CommandError> {
        let mut bytes = Vec::new();
        let words: Vec<&str> = line.split(' ').collect();
        words.iter().for_each(|word| push_arg(&mut bytes, word.as_bytes()));
        let watch = parse(Args::new(words.len() as u32, &bytes))?;
        Ok((watch.prefix.to_vec(), watch.from.map(|from| from.0)))
    }

    #[test]
    fn parse_takes_a_prefix_and_perhaps_a_revision() {
        assert_eq!(parsed("KWATCH user:"), Ok((b"user:".to_vec(), None)));
        assert_eq!(parsed("KWATCH a from 7"), Ok((b"a".to_vec(), Some(7))));
        assert_eq!(parsed("KWATCH a FROM"), Err(CommandError::Syntax));
        assert_eq!(parsed("KWATCH a TO 7"), Err(CommandError::Syntax));
        assert_eq!(parsed("KWATCH a FROM 7 8"), Err(CommandError::Syntax));
        assert_eq!(parsed("KWATCH a FROM -1"), Err(CommandError::NotAnInteger));
        let long = "k".repeat(limits::KEY_BYTES + 1);
        assert_eq!(parsed(&format!("KWATCH {long}")), Err(CommandError::KeyTooLong));
    }

    #[test]
    fn push_change_tells_each_kind() {
        let change = |kind, value, deadline: Option<u64>| Change {
            revision: Revision(5),
            kind,
            command: 1,
            key: b"k1",
            value,
            deadline: deadline.map(ClusterTime),
        };
        let told = |change: &Change<'_>| {
            let mut out = Vec::new();
            push_change(&mut out, b"k", change);
            String::from_utf8(out).unwrap().replace("\r\n", " ")
        };
        let head = "$6 kwatch $1 k";
        let cases = [
            (change(ChangeKind::Set, b"v", None), format!(">6 {head} $3 set :5 $2 k1 $1 v ")),
            (change(ChangeKind::Set, b"v", Some(9)), format!(">7 {head} $3 set :5 $2 k1 $1 v :9 ")),
            (
                change(ChangeKind::Appended, b"v", None),
                format!(">6 {head} $6 append :5 $2 k1 $1 v "),
            ),
            (
                change(ChangeKind::Deadline, b"", Some(9)),
                format!(">6 {head} $6 expire :5 $2 k1 :9 "),
            ),
            (change(ChangeKind::Deadline, b"", None), format!(">5 {head} $7 persist :5 $2 k1 ")),
            (change(ChangeKind::Deleted, b"", None), format!(">5 {head} $3 del :5 $2 k1 ")),
            (change(ChangeKind::Expired, b"", None), format!(">5 {head} $7 expired :5 $2 k1 ")),
            (change(ChangeKind::Cleared, b"", None), format!(">4 {head} $5 clear :5 ")),
        ];
        for (change, expected) in cases {
            assert_eq!(told(&change), expected);
        }
    }
}
