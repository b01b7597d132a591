//! Commands that answer a value and change its key in one step: GETSET, GETDEL, GETEX.
//!
//! Redis's semantics. Called through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, WriteContext};
use super::error::CommandError;
use super::expiry::{Lifetime, Unit};
use super::store::Item;
use crate::proto::args::Args;
use crate::proto::reply::Reply;

const EXCHANGE: Command =
    Command { flags: Flags::WRITE.and(Flags::FAST), group: Group::String, since: "6.2.0", ..ROW };

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "getset",
        code: 26,
        arity: 3,
        flags: Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST),
        keys: Keys::one(&["RW", "access", "update"]),
        since: "1.0.0",
        summary: "Set the string value of a key and return its old value",
        usage: "key value",
        handler: Handler::Write { check: |_| Ok(()), apply: getset },
        ..EXCHANGE
    },
    Command {
        name: "getdel",
        code: 27,
        arity: 2,
        keys: Keys::one(&["RW", "access", "delete"]),
        summary: "Get the value of a key and delete the key",
        usage: "key",
        handler: Handler::Write { check: |_| Ok(()), apply: getdel },
        ..EXCHANGE
    },
    Command {
        name: "getex",
        code: 28,
        arity: -2,
        keys: Keys::one(&["RW", "access", "update"]),
        summary: "Get the value of a key and optionally set its expiration",
        usage: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
                PXAT unix-time-milliseconds | PERSIST]",
        handler: Handler::Write { check: |args| parse_getex(args).map(drop), apply: getex },
        ..EXCHANGE
    },
];

fn value_of(item: Option<Item<'_>>) -> Reply {
    item.map_or(Reply::Nil, |item| Reply::bulk(item.value))
}

fn getset(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut words = args.iter().skip(1);
    let (Some(key), Some(value)) = (words.next(), words.next()) else {
        return Err(CommandError::WrongArity("getset"));
    };
    let before = value_of(context.store.get(key));
    context.store.set(key, value, None);
    Ok(before)
}

fn getdel(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.get(1).unwrap_or_default();
    let before = value_of(context.store.get(key));
    context.store.delete(key);
    Ok(before)
}

/// What becomes of the time to live.
enum NewExpiry {
    Keep,
    Persist,
    Set(Lifetime),
}

/// One of the options; as in Redis it may be said again, and the last word counts.
fn parse_getex(args: Args<'_>) -> Result<NewExpiry, CommandError> {
    let mut words = args.iter().skip(2);
    let mut chosen: Option<(Vec<u8>, &[u8])> = None;
    while let Some(word) = words.next() {
        let option = word.to_ascii_lowercase();
        let takes_time = matches!(option.as_slice(), b"ex" | b"px" | b"exat" | b"pxat");
        let operand = match takes_time {
            true => words.next().ok_or(CommandError::Syntax)?,
            false => b"",
        };
        let is_another = chosen.as_ref().is_some_and(|(before, _)| *before != option);
        if is_another || !takes_time && option != b"persist" {
            return Err(CommandError::Syntax);
        }
        chosen = Some((option, operand));
    }
    let Some((option, operand)) = chosen else {
        return Ok(NewExpiry::Keep);
    };
    let lifetime = match option.as_slice() {
        b"ex" => Lifetime::relative(operand, Unit::Seconds, "getex"),
        b"px" => Lifetime::relative(operand, Unit::Milliseconds, "getex"),
        b"exat" => Lifetime::absolute(operand, Unit::Seconds, "getex"),
        b"pxat" => Lifetime::absolute(operand, Unit::Milliseconds, "getex"),
        _ => return Ok(NewExpiry::Persist),
    };
    lifetime.map(NewExpiry::Set)
}

fn getex(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let expiry = parse_getex(args)?;
    let key = args.get(1).unwrap_or_default();
    let clock = context.store.clock();
    let Some(item) = context.store.get(key) else {
        return Ok(Reply::Nil);
    };
    let reply = Reply::bulk(item.value);
    match expiry {
        NewExpiry::Keep => {}
        NewExpiry::Persist if item.deadline.is_none() => {}
        NewExpiry::Persist => drop(context.store.set_deadline(key, None)),
        NewExpiry::Set(lifetime) => {
            let deadline = lifetime.deadline(clock, "getex")?;
            context.store.set_deadline(key, Some(deadline));
        }
    }
    Ok(reply)
}
