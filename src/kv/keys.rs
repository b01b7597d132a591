//! Commands about keys whatever their value: DEL, UNLINK, EXISTS, TOUCH, DBSIZE, FLUSHALL, FLUSHDB.
//!
//! Redis's semantics. Called through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext, WriteContext};
use super::error::CommandError;
use crate::proto::args::Args;
use crate::proto::reply::Reply;

const DELETE: Command = Command {
    arity: -2,
    flags: Flags::WRITE,
    keys: Keys::all(1, &["RM", "delete"]),
    complexity: "O(N) where N is the number of keys that will be removed.",
    summary: "Delete a key",
    usage: "key [key ...]",
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    handler: Handler::Write { check: |_| Ok(()), apply: del },
    ..ROW
};

const EXISTS: Command = Command {
    arity: -2,
    flags: Flags::READONLY.and(Flags::FAST),
    keys: Keys::all(1, &["RO"]),
    complexity: "O(N) where N is the number of keys to check.",
    summary: "Determine if a key exists",
    usage: "key [key ...]",
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    handler: Handler::Read { check: |_| Ok(()), run: exists },
    ..ROW
};

const FLUSH: Command = Command {
    arity: -1,
    flags: Flags::WRITE.and(Flags::CATEGORY_DANGEROUS).and(Flags::CATEGORY_KEYSPACE),
    group: Group::Server,
    complexity: "O(1): what is removed is given back to the system a slice at a time.",
    summary: "Remove all keys",
    usage: "[ASYNC | SYNC]",
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    handler: Handler::Write { check: check_flushall, apply: flushall },
    ..ROW
};

pub(super) const COMMANDS: &[Command] = &[
    Command { name: "del", code: 3, ..DELETE },
    Command {
        name: "unlink",
        code: 47,
        since: "4.0.0",
        flags: DELETE.flags.and(Flags::FAST),
        ..DELETE
    },
    Command { name: "exists", code: 4, ..EXISTS },
    Command {
        name: "touch",
        code: 48,
        since: "3.2.1",
        summary: "Count the keys that exist; when a key was last used is not kept",
        ..EXISTS
    },
    Command {
        name: "dbsize",
        code: 23,
        arity: 1,
        flags: Flags::READONLY.and(Flags::FAST).and(Flags::CATEGORY_KEYSPACE),
        group: Group::Server,
        summary: "Return the number of keys in the selected database",
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        handler: Handler::Read { check: |_| Ok(()), run: dbsize },
        ..ROW
    },
    Command { name: "flushall", code: 25, ..FLUSH },
    Command { name: "flushdb", code: 49, ..FLUSH },
];

fn del(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut deleted = 0;
    for key in args.iter().skip(1) {
        deleted += i64::from(context.store.delete(key));
    }
    Ok(Reply::Integer(deleted))
}

/// A key that is named twice counts twice, as in Redis.
fn exists(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let living = args.iter().skip(1).filter(|key| context.store.contains(key)).count();
    Ok(Reply::count(living))
}

fn dbsize(context: &ReadContext<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(context.store.len()))
}

fn check_flushall(args: Args<'_>) -> Result<(), CommandError> {
    match (args.len(), args.get(1)) {
        (1, _) => Ok(()),
        (2, Some(mode)) if mode.eq_ignore_ascii_case(b"async") => Ok(()),
        (2, Some(mode)) if mode.eq_ignore_ascii_case(b"sync") => Ok(()),
        _ => Err(CommandError::Syntax),
    }
}

fn flushall(context: &mut WriteContext<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.store.clear();
    Ok(Reply::OK)
}
