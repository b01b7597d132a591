//! Our own compare-and-set commands: CAS, CAD, DELIFEQ; and GETREV, which shows what IFREV compares with.
//!
//! Design 4-surface §3. Called through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext, WriteContext};
use super::error::CommandError;
use super::expiry::{Lifetime, Unit};
use crate::proto::args::Args;
use crate::proto::reply::Reply;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "cas",
        code: 13,
        arity: -4,
        flags: Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST),
        keys: Keys::one(&["RW", "access", "update"]),
        group: Group::String,
        since: "0.1.0",
        summary: "Set the value of a key, only if it has the given one",
        usage: "key old new [EX seconds | PX milliseconds]",
        handler: Handler::Write { check: |args| parse_cas(args).map(drop), apply: cas },
        ..ROW
    },
    Command {
        name: "cad",
        code: 14,
        arity: 3,
        flags: Flags::WRITE.and(Flags::FAST),
        keys: Keys::one(&["RW", "access", "delete"]),
        group: Group::String,
        since: "0.1.0",
        summary: "Delete a key, only if it has the given value",
        usage: "key old",
        handler: Handler::Write { check: |_| Ok(()), apply: cad },
        ..ROW
    },
    Command {
        name: "delifeq",
        code: 54,
        arity: 3,
        flags: Flags::WRITE.and(Flags::FAST),
        keys: Keys::one(&["RW", "access", "delete"]),
        group: Group::String,
        since: "0.1.0",
        summary: "Delete a key, only if it has the given value (Valkey's command; see CAD)",
        usage: "key value",
        handler: Handler::Write { check: |_| Ok(()), apply: delifeq },
        ..ROW
    },
    Command {
        name: "getrev",
        code: 15,
        arity: 2,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: Keys::one(&["RO", "access"]),
        group: Group::String,
        since: "0.1.0",
        summary: "Get the value of a key and its revision",
        usage: "key",
        handler: Handler::Read { check: |_| Ok(()), run: getrev },
        ..ROW
    },
];

/// What CAS and CAD answer: the new value stands, another one was there, no such key.
const DONE: Reply = Reply::Integer(1);
const OTHER_VALUE: Reply = Reply::Integer(0);
const NO_KEY: Reply = Reply::Integer(-1);

struct Cas<'a> {
    key: &'a [u8],
    old: &'a [u8],
    new: &'a [u8],
    lifetime: Option<Lifetime>,
}

fn parse_cas(args: Args<'_>) -> Result<Cas<'_>, CommandError> {
    let mut words = args.iter().skip(1);
    let (Some(key), Some(old), Some(new)) = (words.next(), words.next(), words.next()) else {
        return Err(CommandError::WrongArity("cas"));
    };
    let lifetime = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some(unit), Some(text), None) if unit.eq_ignore_ascii_case(b"ex") => {
            Some(Lifetime::relative(text, Unit::Seconds, "cas")?)
        }
        (Some(unit), Some(text), None) if unit.eq_ignore_ascii_case(b"px") => {
            Some(Lifetime::relative(text, Unit::Milliseconds, "cas")?)
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok(Cas { key, old, new, lifetime })
}

fn cas(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Cas { key, old, new, lifetime } = parse_cas(args)?;
    let clock = context.store.clock();
    let deadline = lifetime.map(|lifetime| lifetime.deadline(clock, "cas")).transpose()?;
    match context.store.get(key) {
        None => Ok(NO_KEY),
        Some(item) if item.value != old => Ok(OTHER_VALUE),
        Some(_) => {
            context.store.set(key, new, deadline);
            Ok(DONE)
        }
    }
}

fn cad(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut words = args.iter().skip(1);
    let (Some(key), Some(old)) = (words.next(), words.next()) else {
        return Err(CommandError::WrongArity("cad"));
    };
    match context.store.get(key) {
        None => Ok(NO_KEY),
        Some(item) if item.value != old => Ok(OTHER_VALUE),
        Some(_) => {
            context.store.delete(key);
            Ok(DONE)
        }
    }
}

/// As CAD, but a key that does not exist is answered like one with another value.
fn delifeq(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(if cad(context, args)? == DONE { DONE } else { Reply::Integer(0) })
}

fn getrev(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.get(1).unwrap_or_default();
    let Some(item) = context.store.get(key) else {
        return Ok(Reply::Nil);
    };
    let revision = Reply::Integer(item.revision.signed());
    Ok(Reply::Array(vec![Reply::bulk(item.value), revision]))
}
