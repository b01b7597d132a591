//! Commands about keys whatever their value: DEL, EXISTS, DBSIZE, KEYS, FLUSHALL.
//!
//! Redis's semantics. Called through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext, WriteContext};
use super::error::CommandError;
use super::glob;
use super::store::Store;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::{Reply, push_bulk};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "del",
        code: 3,
        arity: -2,
        flags: Flags::WRITE,
        keys: Keys::all(1, &["RM", "delete"]),
        complexity: "O(N) where N is the number of keys that will be removed.",
        summary: "Delete a key",
        usage: "key [key ...]",
        tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
        handler: Handler::Write { check: |_| Ok(()), apply: del },
        ..ROW
    },
    Command {
        name: "exists",
        code: 4,
        arity: -2,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: Keys::all(1, &["RO"]),
        complexity: "O(N) where N is the number of keys to check.",
        summary: "Determine if a key exists",
        usage: "key [key ...]",
        tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
        handler: Handler::Read { check: |_| Ok(()), run: exists },
        ..ROW
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
    Command {
        name: "keys",
        code: 24,
        arity: 2,
        flags: Flags::READONLY.and(Flags::CATEGORY_DANGEROUS),
        complexity: "O(N) with N being the number of keys in the database that begin as the \
                     pattern does.",
        summary: "Find all keys matching the given pattern",
        usage: "pattern",
        tips: &["request_policy:all_shards", "nondeterministic_output_order"],
        handler: Handler::Read { check: |_| Ok(()), run: keys },
        ..ROW
    },
    Command {
        name: "flushall",
        code: 25,
        arity: -1,
        flags: Flags::WRITE.and(Flags::CATEGORY_DANGEROUS).and(Flags::CATEGORY_KEYSPACE),
        group: Group::Server,
        complexity: "O(N) where N is the total number of keys in all databases",
        summary: "Remove all keys from all databases",
        usage: "[ASYNC | SYNC]",
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        handler: Handler::Write { check: check_flushall, apply: flushall },
        ..ROW
    },
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
    Ok(count(living))
}

fn dbsize(context: &ReadContext<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(count(context.store.len()))
}

fn count(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).expect("memory holds fewer than 2^63 keys"))
}

fn keys(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let pattern = args.get(1).unwrap_or_default();
    let prefix = glob::literal_prefix(pattern);
    let found = context
        .store
        .iter_from(&prefix)
        .map(|(key, _)| key)
        .take_while(|key| key.starts_with(&prefix))
        .filter(|key| glob::matches(pattern, key))
        .map(Reply::bulk);
    Ok(Reply::Array(found.collect()))
}

/// What one slice of a KEYS came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedSlice {
    /// Keys that match.
    pub count: usize,
    /// Where the next slice begins; nothing where no key is left.
    pub next: Option<Box<[u8]>>,
}

/// Whether the command lists keys, and can be carried out in slices.
pub fn is_listing(command: &Command) -> bool {
    command.name == "keys"
}

/// Where the first slice of a KEYS begins.
pub fn first_listed(pattern: &[u8]) -> Box<[u8]> {
    glob::literal_prefix(pattern).into()
}

/// Looks at the next [`limits::KEYS_SLICE`] keys from `from` on, and appends those that match, as
/// bulk strings.
pub fn list_slice(store: &Store, pattern: &[u8], from: &[u8], out: &mut Vec<u8>) -> ListedSlice {
    let prefix = glob::literal_prefix(pattern);
    let mut slice = ListedSlice { count: 0, next: None };
    for (looked_at, (key, _)) in store.iter_from(from).enumerate() {
        if !key.starts_with(&prefix) {
            break;
        }
        if looked_at == limits::KEYS_SLICE {
            slice.next = Some(key.into());
            break;
        }
        if glob::matches(pattern, key) {
            push_bulk(out, key);
            slice.count += 1;
        }
    }
    slice
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
