//! Our own commands for a run of keys in their order: KRANGE reads one, KDEL deletes one.
//!
//! A range is `start` up to `end`, `end` not included; an empty `end` is the end of all keys. The
//! keys that begin with `user:` are the range from `user:` to `user;` (the last byte one higher).
//! One command sees, or changes, one moment's state. Called through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext, WriteContext};
use super::error::CommandError;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "krange",
        code: 38,
        arity: -3,
        flags: Flags::READONLY,
        keys: Keys::NONE,
        group: Group::Generic,
        since: "0.1.0",
        complexity: "O(log N + M) with M being the number of keys returned.",
        summary: "Get the keys of a range in order, and the revision of the state they are of",
        usage: "start end [LIMIT count] [REV] [VALUES]",
        handler: Handler::Read { check: |args| parse_krange(args).map(drop), run: krange },
        ..ROW
    },
    Command {
        name: "kdel",
        code: 39,
        arity: -3,
        flags: Flags::WRITE,
        keys: Keys::NONE,
        group: Group::Generic,
        since: "0.1.0",
        complexity: "O(log N + M) with M being the number of keys deleted.",
        summary: "Delete the keys of a range, all at once or, with LIMIT, the first so many",
        usage: "start end [LIMIT count]",
        handler: Handler::Write { check: |args| parse_kdel(args).map(drop), apply: kdel },
        ..ROW
    },
];

/// `start` up to `end`.
#[derive(Clone, Copy)]
struct Range<'a> {
    start: &'a [u8],
    /// Not included; empty: all that follow.
    end: &'a [u8],
}

impl Range<'_> {
    fn ends_before(self, key: &[u8]) -> bool {
        !self.end.is_empty() && key >= self.end
    }
}

struct KRange<'a> {
    range: Range<'a>,
    limit: Option<usize>,
    backwards: bool,
    values: bool,
}

fn parse_krange(args: Args<'_>) -> Result<KRange<'_>, CommandError> {
    let mut words = args.iter().skip(1);
    let (Some(start), Some(end)) = (words.next(), words.next()) else {
        return Err(CommandError::WrongArity("krange"));
    };
    let range = Range { start, end };
    let mut krange = KRange { range, limit: None, backwards: false, values: false };
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"rev" => krange.backwards = true,
            b"values" => krange.values = true,
            b"limit" => krange.limit = Some(limit(words.next())?),
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(krange)
}

fn limit(word: Option<&[u8]>) -> Result<usize, CommandError> {
    let count = parse_integer(word.ok_or(CommandError::Syntax)?);
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.ok_or(CommandError::NotAnInteger)
}

/// `[revision, [key, ...]]`, or with VALUES `[revision, [[key, value, revision], ...]]`.
fn krange(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let KRange { range, limit, backwards, values } = parse_krange(args)?;
    let forwards = (!backwards).then(|| context.store.iter_from(range.start));
    let downwards = backwards.then(|| context.store.iter_down_from(range.end));
    let items = forwards.into_iter().flatten().chain(downwards.into_iter().flatten());
    let within = items.take_while(|(key, _)| *key >= range.start && !range.ends_before(key));
    let mut found = Vec::new();
    let mut bytes = 0;
    for (key, item) in within.take(limit.unwrap_or(usize::MAX)) {
        let one = match values {
            false => Reply::bulk(key),
            true => {
                let revision = Reply::Integer(item.revision.signed());
                Reply::Array(vec![Reply::bulk(key), Reply::bulk(item.value), revision])
            }
        };
        bytes += one.size_hint();
        if found.len() == limits::RANGE_REPLY_KEYS {
            return Err(CommandError::RangeKeys);
        }
        if bytes > limits::RANGE_REPLY_BYTES {
            return Err(CommandError::RangeReply);
        }
        found.push(one);
    }
    let revision = Reply::Integer(context.store.revision().signed());
    Ok(Reply::Array(vec![revision, Reply::Array(found)]))
}

fn parse_kdel(args: Args<'_>) -> Result<(Range<'_>, Option<usize>), CommandError> {
    let mut words = args.iter().skip(1);
    let (Some(start), Some(end)) = (words.next(), words.next()) else {
        return Err(CommandError::WrongArity("kdel"));
    };
    let limit = match words.next() {
        None => None,
        Some(word) if word.eq_ignore_ascii_case(b"limit") => Some(limit(words.next())?),
        Some(_) => return Err(CommandError::Syntax),
    };
    match (words.next(), limit) {
        (Some(_), _) => Err(CommandError::Syntax),
        (None, Some(limit)) if limit > limits::RANGE_DELETE_KEYS => Err(CommandError::RangeDelete),
        (None, limit) => Ok((Range { start, end }, limit)),
    }
}

fn kdel(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (range, limit) = parse_kdel(args)?;
    let living = context.store.iter_from(range.start).map(|(key, _)| key);
    let within = living.take_while(|key| !range.ends_before(key));
    // One more than may be deleted tells that there are too many.
    let keys: Vec<Box<[u8]>> =
        within.take(limit.unwrap_or(limits::RANGE_DELETE_KEYS + 1)).map(Box::from).collect();
    if keys.len() > limits::RANGE_DELETE_KEYS {
        return Err(CommandError::RangeDelete);
    }
    for key in &keys {
        context.store.delete(key);
    }
    Ok(Reply::count(keys.len()))
}
