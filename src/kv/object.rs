//! What a value is and takes: TYPE, OBJECT, MEMORY USAGE.
//!
//! Redis's commands, answered for a store that knows strings only. Nothing is kept of when or how
//! often a key was used, and whoever asks is told so. Called through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext};
use super::error::CommandError;
use super::server;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;

const OBJECT: Command = Command {
    arity: 3,
    flags: Flags::READONLY,
    keys: Keys::of_subcommand(&["RO"]),
    since: "2.2.3",
    usage: "key",
    tips: &["nondeterministic_output"],
    ..ROW
};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "type",
        code: 43,
        arity: 2,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: Keys::one(&["RO"]),
        summary: "Determine the type stored at key",
        usage: "key",
        handler: Handler::Read { check: |_| Ok(()), run: type_of },
        ..ROW
    },
    Command {
        name: "object",
        arity: -2,
        flags: Flags::NONE,
        keys: Keys::NONE,
        complexity: "Depends on subcommand.",
        summary: "A container for object introspection commands",
        usage: "",
        tips: &[],
        subcommands: OBJECT_SUBCOMMANDS,
        ..OBJECT
    },
    Command {
        name: "memory",
        arity: -2,
        since: "4.0.0",
        complexity: "Depends on subcommand.",
        summary: "A container for memory diagnostics commands",
        subcommands: MEMORY_SUBCOMMANDS,
        ..ROW
    },
];

const OBJECT_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "object|encoding",
        code: 44,
        summary: "Inspect the internal encoding of a Redis object",
        handler: Handler::Read { check: |_| Ok(()), run: encoding },
        ..OBJECT
    },
    Command {
        name: "object|refcount",
        code: 45,
        summary: "Get the number of references to the value of the key",
        handler: Handler::Read { check: |_| Ok(()), run: refcount },
        ..OBJECT
    },
    Command {
        name: "object|idletime",
        code: 59,
        summary: "Refused: when a key was last used is not kept",
        handler: Handler::Read {
            check: |_| Ok(()),
            run: |context, args| nil_or(context, args, CommandError::IdleTime),
        },
        ..OBJECT
    },
    Command {
        name: "object|freq",
        code: 60,
        summary: "Refused: how often a key is used is not kept",
        handler: Handler::Read {
            check: |_| Ok(()),
            run: |context, args| nil_or(context, args, CommandError::Frequency),
        },
        ..OBJECT
    },
];

const MEMORY_SUBCOMMANDS: &[Command] = &[USAGE, server::MEMORY_DOCTOR, server::MEMORY_STATS];

const USAGE: Command = Command {
    name: "memory|usage",
    code: 46,
    group: Group::Server,
    arity: -3,
    flags: Flags::READONLY,
    keys: Keys::of_subcommand(&["RO"]),
    since: "4.0.0",
    summary: "Estimate the memory usage of a key",
    usage: "key [SAMPLES count]",
    handler: Handler::Read { check: |args| check_usage(args), run: usage },
    ..ROW
};

fn type_of(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let is_there = context.store.contains(args.get(1).unwrap_or_default());
    Ok(Reply::Simple(if is_there { "string" } else { "none" }))
}

/// The longest string that Redis keeps in one block with its header.
const EMBSTR_BYTES: usize = 44;

/// What Redis would call the way in which it keeps such a value.
fn encoding(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let item = context.store.get(args.get(2).unwrap_or_default());
    Ok(item.map_or(Reply::Nil, |item| {
        Reply::Word(match item.value {
            value if parse_integer(value).is_some() => "int",
            value if value.len() <= EMBSTR_BYTES => "embstr",
            _ => "raw",
        })
    }))
}

fn refcount(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let is_there = context.store.contains(args.get(2).unwrap_or_default());
    Ok(if is_there { Reply::Integer(1) } else { Reply::Nil })
}

/// What isn't kept is refused only of a key that is there, as in Redis.
fn nil_or(
    context: &ReadContext<'_>,
    args: Args<'_>,
    refusal: CommandError,
) -> Result<Reply, CommandError> {
    let is_there = context.store.contains(args.get(2).unwrap_or_default());
    if is_there { Err(refusal) } else { Ok(Reply::Nil) }
}

fn check_usage(args: Args<'_>) -> Result<(), CommandError> {
    let mut words = args.iter().skip(3);
    while let Some(word) = words.next() {
        let count = words.next().filter(|_| word.eq_ignore_ascii_case(b"samples"));
        let count = parse_integer(count.ok_or(CommandError::Syntax)?);
        if count.ok_or(CommandError::NotAnInteger)? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    Ok(())
}

fn usage(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let bytes = context.store.bytes_of(args.get(2).unwrap_or_default());
    Ok(bytes.map_or(Reply::Nil, Reply::count))
}
