//! Values that go from one key to another: RENAME, RENAMENX, COPY.
//!
//! Redis's semantics; the time to live goes with the value. Called through the command table.

use super::command::{Command, Flags, Handler, Keys, ROW, WriteContext};
use super::error::CommandError;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;

const MOVE: Command = Command { arity: 3, flags: Flags::WRITE.and(Flags::FAST), ..ROW };

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "rename",
        code: 40,
        flags: Flags::WRITE,
        keys: Keys::two(&["RW", "access", "delete"], &["OW", "update"]),
        summary: "Rename a key",
        usage: "key newkey",
        handler: Handler::Write { check: |_| Ok(()), apply: rename },
        ..MOVE
    },
    Command {
        name: "renamenx",
        code: 41,
        keys: Keys::two(&["RW", "access", "delete"], &["OW", "insert"]),
        summary: "Rename a key, only if the new key does not exist",
        usage: "key newkey",
        handler: Handler::Write { check: |_| Ok(()), apply: renamenx },
        ..MOVE
    },
    Command {
        name: "copy",
        code: 42,
        arity: -3,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        keys: Keys::two(&["RO", "access"], &["OW", "update"]),
        since: "6.2.0",
        complexity: "O(N) where N is the length of the value.",
        summary: "Copy a key",
        usage: "source destination [DB destination-db] [REPLACE]",
        handler: Handler::Write { check: |args| parse_copy(args).map(drop), apply: copy },
        ..MOVE
    },
];

/// Gives `to` what `from` has; `false` if there is nothing.
fn duplicate(context: &mut WriteContext<'_>, from: &[u8], to: &[u8]) -> bool {
    let Some(item) = context.store.get(from) else {
        return false;
    };
    let (value, deadline) = (item.value.to_vec(), item.deadline);
    context.store.set(to, &value, deadline);
    true
}

fn two_keys<'a>(
    args: Args<'a>,
    command: &'static str,
) -> Result<(&'a [u8], &'a [u8]), CommandError> {
    let mut words = args.iter().skip(1);
    words.next().zip(words.next()).ok_or(CommandError::WrongArity(command))
}

fn rename(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (from, to) = two_keys(args, "rename")?;
    if !context.store.contains(from) {
        return Err(CommandError::NoSuchKey);
    }
    if from != to {
        duplicate(context, from, to);
        context.store.delete(from);
    }
    Ok(Reply::OK)
}

fn renamenx(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (from, to) = two_keys(args, "renamenx")?;
    if !context.store.contains(from) {
        return Err(CommandError::NoSuchKey);
    }
    if context.store.contains(to) {
        return Ok(Reply::Integer(0));
    }
    duplicate(context, from, to);
    context.store.delete(from);
    Ok(Reply::Integer(1))
}

fn parse_copy(args: Args<'_>) -> Result<(&[u8], &[u8], bool), CommandError> {
    let (from, to) = two_keys(args, "copy")?;
    let mut replaces = false;
    let mut words = args.iter().skip(3);
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(b"replace") {
            replaces = true;
        } else if word.eq_ignore_ascii_case(b"db") {
            let index = parse_integer(words.next().ok_or(CommandError::Syntax)?);
            let index = index.ok_or(CommandError::NotAnInteger)?;
            if i32::try_from(index).is_err() {
                return Err(CommandError::NotAnInteger32);
            }
            if index != 0 {
                return Err(CommandError::DatabaseRange);
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if from == to { Err(CommandError::SameKey) } else { Ok((from, to, replaces)) }
}

fn copy(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (from, to, replaces) = parse_copy(args)?;
    if !replaces && context.store.contains(to) {
        return Ok(Reply::Integer(0));
    }
    Ok(Reply::Integer(i64::from(duplicate(context, from, to))))
}
