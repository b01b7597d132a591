//! Parts of a value: GETRANGE, its old name SUBSTR, and SETRANGE.
//!
//! Redis's semantics: positions count from 0, negative ones from the end. Called through the
//! command table; [`clamp`] also by BITCOUNT and LCS's neighbours.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext, WriteContext};
use super::error::CommandError;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;

const GETRANGE: Command = Command {
    arity: 4,
    flags: Flags::READONLY,
    keys: Keys::one(&["RO", "access"]),
    group: Group::String,
    complexity: "O(N) where N is the length of the returned string.",
    summary: "Get a substring of the string stored at a key",
    usage: "key start end",
    handler: Handler::Read { check: |args| parse_range(args).map(drop), run: getrange },
    ..ROW
};

pub(super) const COMMANDS: &[Command] = &[
    Command { name: "getrange", code: 29, since: "2.4.0", ..GETRANGE },
    Command { name: "substr", code: 30, ..GETRANGE },
    Command {
        name: "setrange",
        code: 31,
        arity: 4,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        keys: Keys::one(&["RW", "update"]),
        group: Group::String,
        since: "2.2.0",
        complexity: "O(N) where N is the length of the value.",
        summary: "Overwrite part of a string at key starting at the specified offset",
        usage: "key offset value",
        handler: Handler::Write { check: |args| parse_patch(args).map(drop), apply: setrange },
        ..ROW
    },
];

/// The positions `start..=end` of something `length` long, as Redis counts: negative from the
/// end, cut to what is there. `None` where nothing is left.
pub(super) fn clamp(
    start: i64,
    end: i64,
    length: usize,
) -> Option<std::ops::RangeInclusive<usize>> {
    let length = i64::try_from(length).ok()?;
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let from_start = |position: i64| match position < 0 {
        true => position.saturating_add(length).max(0),
        false => position,
    };
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end {
        return None;
    }
    Some(usize::try_from(start).ok()?..=usize::try_from(end).ok()?)
}

fn parse_range(args: Args<'_>) -> Result<(i64, i64), CommandError> {
    let mut numbers = args.iter().skip(2).map(parse_integer);
    let mut next = || numbers.next().flatten().ok_or(CommandError::NotAnInteger);
    Ok((next()?, next()?))
}

fn getrange(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (start, end) = parse_range(args)?;
    let value = context.store.get(args.get(1).unwrap_or_default()).map_or(&b""[..], |i| i.value);
    Ok(match clamp(start, end, value.len()) {
        Some(range) => Reply::bulk(&value[range]),
        None => Reply::bulk(b""),
    })
}

/// An offset and the bytes to put there. What would end past the largest value is refused here,
/// whatever the key holds.
fn parse_patch(args: Args<'_>) -> Result<(usize, &[u8]), CommandError> {
    let mut words = args.iter().skip(2);
    let offset = words.next().and_then(parse_integer).ok_or(CommandError::NotAnInteger)?;
    let patch = words.next().ok_or(CommandError::WrongArity("setrange"))?;
    let offset = usize::try_from(offset).map_err(|_| CommandError::OffsetRange)?;
    let fits = offset.checked_add(patch.len()).is_some_and(|end| end <= limits::VALUE_BYTES);
    if patch.is_empty() || fits { Ok((offset, patch)) } else { Err(CommandError::ValueTooLong) }
}

fn setrange(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (offset, patch) = parse_patch(args)?;
    let key = args.get(1).unwrap_or_default();
    let before = context.store.get(key);
    let deadline = before.and_then(|item| item.deadline);
    let before = before.map_or(&b""[..], |item| item.value);
    if patch.is_empty() {
        return Ok(Reply::count(before.len()));
    }
    let end = offset + patch.len();
    let mut value = before.to_vec();
    value.resize(before.len().max(end), 0);
    value[offset..end].copy_from_slice(patch);
    context.store.set(key, &value, deadline);
    Ok(Reply::count(value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamp_counts_as_redis_does() {
        for (start, end, length, expected) in [
            (0, 3, 11, Some(0..=3)),
            (0, -1, 11, Some(0..=10)),
            (-4, -1, 11, Some(7..=10)),
            (5, 3, 11, None),
            (5, 5000, 11, Some(5..=10)),
            (-5000, 10000, 11, Some(0..=10)),
            (-1, -5, 11, None),
            (0, 0, 0, None),
            (-1, -1, 0, None),
            (i64::MIN, i64::MAX, 3, Some(0..=2)),
            (-1, -100, 0, None),
            (0, -4, 3, Some(0..=0)),
        ] {
            assert_eq!(clamp(start, end, length), expected, "{start} {end} of {length}");
        }
    }
}
