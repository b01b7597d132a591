//! Looking at many keys: KEYS, SCAN, RANDOMKEY.
//!
//! Redis's commands and promises: a SCAN from cursor 0 back to 0 returns each key that was there
//! throughout, on whichever nodes it runs; one that came or went meanwhile, perhaps; one may come
//! twice. A page ends at a pivot ([`super::pivots`]); where the pivot of a cursor has gone, the
//! scan begins anew. Called through the command table.

use super::command::{Command, Flags, Handler, Keys, ROW, ReadContext};
use super::error::CommandError;
use super::glob;
use super::store::Store;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::{Reply, push_bulk};

pub(super) const COMMANDS: &[Command] = &[
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
        name: "scan",
        code: 36,
        arity: -2,
        flags: Flags::READONLY,
        since: "2.8.0",
        complexity: "O(1) for every call. O(N) for a complete iteration, including enough command \
                     calls for the cursor to return back to 0. N is the number of elements inside \
                     the collection.",
        summary: "Incrementally iterate the keys space",
        usage: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        tips: &["nondeterministic_output", "request_policy:special"],
        handler: Handler::Read { check: |args| parse_scan(args).map(drop), run: scan },
        ..ROW
    },
    Command {
        name: "randomkey",
        code: 37,
        arity: 1,
        flags: Flags::READONLY,
        complexity: "O(log N)",
        summary: "Return a random key from the keyspace; any can come, some more often than others",
        tips: &["request_policy:all_shards", "nondeterministic_output"],
        handler: Handler::Read { check: |_| Ok(()), run: randomkey },
        keys: Keys::NONE,
        ..ROW
    },
];

fn keys(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let pattern = args.get(1).unwrap_or_default();
    let prefix = glob::literal_prefix(pattern);
    let keys = context.store.iter_from(&prefix).map(|(key, _)| key);
    let mut found = Vec::new();
    for (place, key) in keys.take_while(|key| key.starts_with(&prefix)).enumerate() {
        // Outside a transaction it takes turns from far fewer keys on.
        if place == limits::TRANSACTION_KEYS {
            return Err(CommandError::TransactionKeys);
        }
        if glob::matches(pattern, key) {
            found.push(Reply::bulk(key));
        }
    }
    Ok(Reply::Array(found))
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

/// A SCAN as it was sent.
struct Scan<'a> {
    cursor: u64,
    pattern: Option<&'a [u8]>,
    count: usize,
    /// Whether the keys of the type that was asked for are ours: strings.
    of_our_type: bool,
}

/// Keys that SCAN looks at in one call unless told otherwise, as in Redis.
const COUNT: usize = 10;

fn parse_scan(args: Args<'_>) -> Result<Scan<'_>, CommandError> {
    let mut words = args.iter().skip(1);
    let cursor = std::str::from_utf8(words.next().unwrap_or_default());
    let cursor = cursor.ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let cursor = cursor.and_then(|text| text.parse().ok()).ok_or(CommandError::InvalidCursor)?;
    let mut scan = Scan { cursor, pattern: None, count: COUNT, of_our_type: true };
    while let Some(word) = words.next() {
        let operand = words.next().ok_or(CommandError::Syntax)?;
        match word.to_ascii_lowercase().as_slice() {
            b"match" => scan.pattern = Some(operand),
            b"type" => scan.of_our_type = operand.eq_ignore_ascii_case(b"string"),
            b"count" => {
                let count = parse_integer(operand).ok_or(CommandError::NotAnInteger)?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                scan.count = count.ok_or(CommandError::Syntax)?.min(limits::SCAN_KEYS);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(scan)
}

fn scan(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let scan = parse_scan(args)?;
    let prefix = scan.pattern.map(glob::literal_prefix).unwrap_or_default();
    let start = context.store.scan_start(scan.cursor).max(&prefix);
    let mut found = Vec::new();
    let mut next = 0;
    for (seen, (key, _)) in context.store.iter_from(start).enumerate() {
        if !key.starts_with(&prefix) {
            break;
        }
        if seen >= scan.count
            && let Some(cursor) = context.store.scan_cursor(key)
        {
            next = cursor;
            break;
        }
        let matches = scan.pattern.is_none_or(|pattern| glob::matches(pattern, key));
        if scan.of_our_type && matches {
            found.push(Reply::bulk(key));
        }
    }
    Ok(Reply::Array(vec![Reply::Bulk(next.to_string().into()), Reply::Array(found)]))
}

fn randomkey(context: &ReadContext<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let key = context.store.random_key(|| context.luck.draw());
    Ok(key.map_or(Reply::Nil, Reply::bulk))
}
