//! Values that count: INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT.
//!
//! Redis's semantics: a missing key counts from 0, a key keeps its time to live. Called through the
//! command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, WriteContext};
use super::decimal::Decimal;
use super::error::CommandError;
use crate::proto::args::Args;
use crate::proto::integer::{parse_integer, push_integer};
use crate::proto::reply::Reply;

const COUNTER: Command = Command {
    flags: Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST),
    keys: Keys::one(&["RW", "access", "update"]),
    group: Group::String,
    ..ROW
};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "incr",
        code: 9,
        arity: 2,
        summary: "Increment the integer value of a key by one",
        usage: "key",
        handler: Handler::Write { check: |_| Ok(()), apply: |context, args| add(context, args, 1) },
        ..COUNTER
    },
    Command {
        name: "decr",
        code: 10,
        arity: 2,
        summary: "Decrement the integer value of a key by one",
        usage: "key",
        handler: Handler::Write {
            check: |_| Ok(()),
            apply: |context, args| add(context, args, -1),
        },
        ..COUNTER
    },
    Command {
        name: "incrby",
        code: 11,
        arity: 3,
        summary: "Increment the integer value of a key by the given amount",
        usage: "key increment",
        handler: Handler::Write {
            check: |args| increment(args).map(drop),
            apply: |context, args| add(context, args, increment(args)?),
        },
        ..COUNTER
    },
    Command {
        name: "decrby",
        code: 12,
        arity: 3,
        summary: "Decrement the integer value of a key by the given number",
        usage: "key decrement",
        handler: Handler::Write {
            check: |args| decrement(args).map(drop),
            apply: |context, args| add(context, args, decrement(args)?),
        },
        ..COUNTER
    },
    Command {
        name: "incrbyfloat",
        code: 58,
        arity: 3,
        since: "2.6.0",
        summary: "Increment the float value of a key by the given amount",
        usage: "key increment",
        handler: Handler::Write { check: |args| addend(args).map(drop), apply: incrbyfloat },
        ..COUNTER
    },
];

fn increment(args: Args<'_>) -> Result<i64, CommandError> {
    args.get(2).and_then(parse_integer).ok_or(CommandError::NotAnInteger)
}

fn decrement(args: Args<'_>) -> Result<i64, CommandError> {
    increment(args)?.checked_neg().ok_or(CommandError::DecrementOverflow)
}

fn add(
    context: &mut WriteContext<'_>,
    args: Args<'_>,
    increment: i64,
) -> Result<Reply, CommandError> {
    let key = args.get(1).unwrap_or_default();
    let (current, deadline) = match context.store.get(key) {
        Some(item) => (parse_integer(item.value).ok_or(CommandError::NotAnInteger)?, item.deadline),
        None => (0, None),
    };
    let sum = current.checked_add(increment).ok_or(CommandError::IncrementOverflow)?;
    let mut text = Vec::with_capacity(20);
    push_integer(&mut text, sum);
    context.store.set(key, &text, deadline);
    Ok(Reply::Integer(sum))
}

fn addend(args: Args<'_>) -> Result<Decimal, CommandError> {
    args.get(2).and_then(Decimal::parse).ok_or(CommandError::NotAFloat)
}

/// Added in decimal: what Redis's 80-bit numbers round to the same 17 places, but for sums of more
/// than 19 digits, where it is Redis that is inexact.
fn incrbyfloat(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.get(1).unwrap_or_default();
    let addend = addend(args)?;
    let (current, deadline) = match context.store.get(key) {
        Some(item) => (Decimal::parse(item.value).ok_or(CommandError::NotAFloat)?, item.deadline),
        None => (Decimal::zero(), None),
    };
    let sum = current.plus(addend).ok_or(CommandError::NotFinite)?;
    context.store.set(key, sum.as_bytes(), deadline);
    Ok(Reply::bulk(sum.as_bytes()))
}
