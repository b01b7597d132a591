//! Values as rows of bits: SETBIT, GETBIT, BITCOUNT.
//!
//! Redis's semantics: bit 0 is the highest bit of the first byte. Called through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext, WriteContext};
use super::error::CommandError;
use super::substrings::clamp;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;

const BITS: Command = Command { group: Group::Bitmap, since: "2.2.0", ..ROW };

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "setbit",
        code: 32,
        arity: 4,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        keys: Keys::one(&["RW", "access", "update"]),
        complexity: "O(N) where N is the length of the value.",
        summary: "Sets or clears the bit at offset in the string value stored at key",
        usage: "key offset value",
        handler: Handler::Write { check: |args| parse_setbit(args).map(drop), apply: setbit },
        ..BITS
    },
    Command {
        name: "getbit",
        code: 33,
        arity: 3,
        flags: Flags::READONLY.and(Flags::FAST),
        keys: Keys::one(&["RO", "access"]),
        summary: "Returns the bit value at offset in the string value stored at key",
        usage: "key offset",
        handler: Handler::Read { check: |args| bit_offset(args).map(drop), run: getbit },
        ..BITS
    },
    Command {
        name: "bitcount",
        code: 34,
        arity: -2,
        flags: Flags::READONLY,
        keys: Keys::one(&["RO", "access"]),
        since: "2.6.0",
        complexity: "O(N)",
        summary: "Count set bits in a string",
        usage: "key [start end [BYTE | BIT]]",
        handler: Handler::Read { check: |args| parse_span(args).map(drop), run: bitcount },
        ..BITS
    },
];

/// The offset of a bit within the largest value.
fn bit_offset(args: Args<'_>) -> Result<usize, CommandError> {
    args.get(2)
        .and_then(parse_integer)
        .and_then(|offset| usize::try_from(offset).ok())
        .filter(|offset| *offset < limits::VALUE_BYTES * 8)
        .ok_or(CommandError::BitOffset)
}

/// The byte that holds a bit, and the bit's mask in it.
fn place(offset: usize) -> (usize, u8) {
    (offset / 8, 0x80 >> (offset % 8))
}

fn parse_setbit(args: Args<'_>) -> Result<(usize, bool), CommandError> {
    let offset = bit_offset(args)?;
    match args.get(3).and_then(parse_integer) {
        Some(0) => Ok((offset, false)),
        Some(1) => Ok((offset, true)),
        _ => Err(CommandError::BitValue),
    }
}

fn setbit(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (offset, is_set) = parse_setbit(args)?;
    let key = args.get(1).unwrap_or_default();
    let (byte, mask) = place(offset);
    let before = context.store.get(key);
    let deadline = before.and_then(|item| item.deadline);
    let mut value = before.map_or(Vec::new(), |item| item.value.to_vec());
    if value.len() <= byte {
        value.resize(byte + 1, 0);
    }
    let was_set = value[byte] & mask != 0;
    value[byte] = if is_set { value[byte] | mask } else { value[byte] & !mask };
    context.store.set(key, &value, deadline);
    Ok(Reply::Integer(i64::from(was_set)))
}

fn getbit(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (byte, mask) = place(bit_offset(args)?);
    let item = context.store.get(args.get(1).unwrap_or_default());
    let is_set = item.and_then(|item| item.value.get(byte)).is_some_and(|byte| byte & mask != 0);
    Ok(Reply::Integer(i64::from(is_set)))
}

/// What BITCOUNT counts in.
struct Span {
    start: i64,
    end: i64,
    in_bits: bool,
}

fn parse_span(args: Args<'_>) -> Result<Option<Span>, CommandError> {
    let mut words = args.iter().skip(2);
    let Some(start) = words.next() else {
        return Ok(None);
    };
    let end = words.next().ok_or(CommandError::Syntax)?;
    let in_bits = match words.next() {
        None => false,
        Some(unit) if unit.eq_ignore_ascii_case(b"byte") => false,
        Some(unit) if unit.eq_ignore_ascii_case(b"bit") => true,
        Some(_) => return Err(CommandError::Syntax),
    };
    if words.next().is_some() {
        return Err(CommandError::Syntax);
    }
    let number = |text| parse_integer(text).ok_or(CommandError::NotAnInteger);
    Ok(Some(Span { start: number(start)?, end: number(end)?, in_bits }))
}

fn bitcount(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let span = parse_span(args)?;
    let Some(item) = context.store.get(args.get(1).unwrap_or_default()) else {
        return Ok(Reply::Integer(0));
    };
    let Some(span) = span else {
        return Ok(Reply::count(ones(item.value)));
    };
    let length = if span.in_bits { item.value.len() * 8 } else { item.value.len() };
    let Some(range) = clamp(span.start, span.end, length) else {
        return Ok(Reply::Integer(0));
    };
    if !span.in_bits {
        return Ok(Reply::count(ones(&item.value[range])));
    }
    // Whole bytes, less what stands before the first bit and behind the last.
    let (first, last) = (*range.start(), *range.end());
    let bytes = &item.value[first / 8..=last / 8];
    let before = bytes[0] & !(0xff_u8 >> (first % 8));
    let behind = bytes[bytes.len() - 1] & (0x7f_u8 >> (last % 8));
    let outside = before.count_ones() + behind.count_ones();
    Ok(Reply::count(ones(bytes) - outside as usize))
}

fn ones(bytes: &[u8]) -> usize {
    bytes.iter().map(|byte| byte.count_ones() as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::luck::Luck;
    use crate::kv::store::Store;
    use crate::proto::args::push_arg;
    use crate::types::ClusterTime;
    use proptest::prelude::*;

    fn with<T>(words: &[&[u8]], run: impl FnOnce(Args<'_>) -> T) -> T {
        let mut bytes = Vec::new();
        words.iter().for_each(|word| push_arg(&mut bytes, word));
        run(Args::new(words.len() as u32, &bytes))
    }

    proptest! {
        #[test]
        fn bitcount_counts_what_getbit_shows(
            value in prop::collection::vec(any::<u8>(), 0..5),
            start in -45_i64..45,
            end in -45_i64..45,
        ) {
            let mut store = Store::new();
            store.set(b"k", &value, None);
            let luck = Luck::new(1);
            let context = ReadContext { store: &store, now: ClusterTime(0), luck: &luck };
            let bit = |offset: usize| {
                let offset = offset.to_string();
                let reply = with(&[b"getbit", b"k", offset.as_bytes()], |a| getbit(&context, a));
                i64::from(reply == Ok(Reply::Integer(1)))
            };
            let expected: i64 =
                clamp(start, end, value.len() * 8).into_iter().flatten().map(bit).sum();
            let (start, end) = (start.to_string(), end.to_string());
            let words: [&[u8]; 5] = [b"bitcount", b"k", start.as_bytes(), end.as_bytes(), b"bit"];
            let counted = with(&words, |args| bitcount(&context, args));
            prop_assert_eq!(counted, Ok(Reply::Integer(expected)));
        }
    }
}
