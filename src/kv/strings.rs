//! Strings: GET, MGET, MSET, MSETNX, SETNX, SETEX, PSETEX, APPEND, STRLEN; SET has options enough for
//! a file of its own, [`super::set`].
//!
//! Redis's semantics. Called through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext, WriteContext};
use super::error::CommandError;
use super::expiry::{Lifetime, Unit};
use super::set;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::Reply;

const STRING: Command = Command { group: Group::String, ..ROW };

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "set",
        code: 1,
        arity: -3,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        keys: Keys::one(&["RW", "access", "update", "variable_flags"]),
        summary: "Set the string value of a key",
        usage: "key value [NX | XX | IFEQ old | IFREV revision] [GET | REV] [LEASE lease] [EX seconds | \
                PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
        handler: Handler::Write { check: |args| set::parse(args).map(drop), apply: set::apply },
        ..STRING
    },
    Command {
        name: "get",
        code: 2,
        arity: 2,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: Keys::one(&["RO", "access"]),
        summary: "Get the value of a key",
        usage: "key",
        handler: Handler::Read { check: |_| Ok(()), run: get },
        ..STRING
    },
    Command {
        name: "mget",
        code: 5,
        arity: -2,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: Keys::all(1, &["RO", "access"]),
        complexity: "O(N) where N is the number of keys to retrieve.",
        summary: "Get the values of all the given keys",
        usage: "key [key ...]",
        tips: &["request_policy:multi_shard"],
        handler: Handler::Read { check: |_| Ok(()), run: mget },
        ..STRING
    },
    Command {
        name: "mset",
        code: 6,
        arity: -3,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        keys: Keys::all(2, &["OW", "update"]),
        since: "1.0.1",
        complexity: "O(N) where N is the number of keys to set.",
        summary: "Set multiple keys to multiple values",
        usage: "key value [key value ...]",
        tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
        handler: Handler::Write { check: |args| check_pairs(args, "mset"), apply: mset },
        ..STRING
    },
    Command {
        name: "setnx",
        code: 7,
        arity: 3,
        flags: Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST),
        keys: Keys::one(&["OW", "insert"]),
        summary: "Set the value of a key, only if the key does not exist",
        usage: "key value",
        handler: Handler::Write { check: |_| Ok(()), apply: setnx },
        ..STRING
    },
    Command {
        name: "setex",
        code: 55,
        arity: 4,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        keys: Keys::one(&["OW", "update"]),
        since: "2.0.0",
        summary: "Set the value and expiration in seconds of a key",
        usage: "key seconds value",
        handler: Handler::Write {
            check: |args| lifetime(args, Unit::Seconds, "setex").map(drop),
            apply: |context, args| setex(context, args, Unit::Seconds, "setex"),
        },
        ..STRING
    },
    Command {
        name: "psetex",
        code: 56,
        arity: 4,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        keys: Keys::one(&["OW", "update"]),
        since: "2.6.0",
        summary: "Set the value and expiration in milliseconds of a key",
        usage: "key milliseconds value",
        handler: Handler::Write {
            check: |args| lifetime(args, Unit::Milliseconds, "psetex").map(drop),
            apply: |context, args| setex(context, args, Unit::Milliseconds, "psetex"),
        },
        ..STRING
    },
    Command {
        name: "msetnx",
        code: 57,
        arity: -3,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        keys: Keys::all(2, &["OW", "insert"]),
        since: "1.0.1",
        complexity: "O(N) where N is the number of keys to set.",
        summary: "Set multiple keys to multiple values, only if none of the keys exist",
        usage: "key value [key value ...]",
        tips: &["request_policy:multi_shard", "response_policy:agg_min"],
        handler: Handler::Write { check: |args| check_pairs(args, "msetnx"), apply: msetnx },
        ..STRING
    },
    Command {
        name: "append",
        code: 8,
        arity: 3,
        flags: Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST),
        keys: Keys::one(&["RW", "insert"]),
        since: "2.0.0",
        complexity: "O(1) amortized over the bytes appended.",
        summary: "Append a value to a key",
        usage: "key value",
        handler: Handler::Write { check: |_| Ok(()), apply: append },
        ..STRING
    },
    Command {
        name: "strlen",
        code: 16,
        arity: 2,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: Keys::one(&["RO"]),
        since: "2.2.0",
        summary: "Get the length of the value stored in a key",
        usage: "key",
        handler: Handler::Read { check: |_| Ok(()), run: strlen },
        ..STRING
    },
];

fn get(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(value_of(context, args.get(1).unwrap_or_default()))
}

fn mget(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::Array(args.iter().skip(1).map(|key| value_of(context, key)).collect()))
}

fn value_of(context: &ReadContext<'_>, key: &[u8]) -> Reply {
    context.store.get(key).map_or(Reply::Nil, |item| Reply::bulk(item.value))
}

fn check_pairs(args: Args<'_>, command: &'static str) -> Result<(), CommandError> {
    if args.len() % 2 == 1 { Ok(()) } else { Err(CommandError::WrongArity(command)) }
}

fn msetnx(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    check_pairs(args, "msetnx")?;
    if args.iter().skip(1).step_by(2).any(|key| context.store.contains(key)) {
        return Ok(Reply::Integer(0));
    }
    mset(context, args)?;
    Ok(Reply::Integer(1))
}

fn lifetime(args: Args<'_>, unit: Unit, command: &'static str) -> Result<Lifetime, CommandError> {
    Lifetime::relative(args.get(2).unwrap_or_default(), unit, command)
}

fn setex(
    context: &mut WriteContext<'_>,
    args: Args<'_>,
    unit: Unit,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let deadline = lifetime(args, unit, command)?.deadline(context.store.clock(), command)?;
    let value = args.get(3).ok_or(CommandError::WrongArity(command))?;
    context.store.set(args.get(1).unwrap_or_default(), value, Some(deadline));
    Ok(Reply::OK)
}

/// A command with more keys brings them near itself: of those of its batch only the first ones were.
const MANY_KEYS: usize = 16;

fn mset(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    check_pairs(args, "mset")?;
    let mut words = args.iter().skip(1);
    let mut keys = words.clone().step_by(2);
    let mut near = Vec::new();
    for number in 0_usize.. {
        if number.is_multiple_of(limits::WARMED_KEYS) && args.len() > 2 * MANY_KEYS {
            near.clear();
            near.extend(keys.by_ref().take(limits::WARMED_KEYS));
            context.store.warm(&near);
        }
        let (Some(key), Some(value)) = (words.next(), words.next()) else { break };
        context.store.set(key, value, None);
    }
    Ok(Reply::OK)
}

fn setnx(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut words = args.iter().skip(1);
    let (Some(key), Some(value)) = (words.next(), words.next()) else {
        return Err(CommandError::WrongArity("setnx"));
    };
    let missing = !context.store.contains(key);
    if missing {
        context.store.set(key, value, None);
    }
    Ok(Reply::Integer(i64::from(missing)))
}

fn append(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut words = args.iter().skip(1);
    let (Some(key), Some(tail)) = (words.next(), words.next()) else {
        return Err(CommandError::WrongArity("append"));
    };
    let before = context.store.get(key).map_or(0, |item| item.value.len());
    if before + tail.len() > limits::VALUE_BYTES {
        return Err(CommandError::ValueTooLong);
    }
    let length = context.store.append(key, tail);
    Ok(Reply::count(length))
}

fn strlen(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.get(1).unwrap_or_default();
    let length = context.store.get(key).map_or(0, |item| item.value.len());
    Ok(Reply::count(length))
}
