//! How a small record stands in its slot: a head, the key, the value, in one run of bytes.
//!
//! What most records don't have takes nothing: a record without a deadline, of short key and value
//! and of one of the first four thousand million revisions has a head of six bytes. Only `slab.rs`
//! calls this; what it writes never leaves the process, so that it may change from version to
//! version. Knows no slot and no page; is given whole records alone.
//!
//! ```text
//! short   key length u8 (below 248), value length u8, revision u32
//! long    248 + flags u8, two lengths (u8, or u16 each), revision (u32 or u64), deadline u64 if any
//! ```

use byteorder::{ByteOrder, LittleEndian};

use super::record::{NEVER, RecordRef};
use crate::types::{ClusterTime, Revision};

const SHORT_HEAD_BYTES: usize = 6;

/// From here on the first byte is no length of a key: it says what the head has.
const LONG: u8 = 0xf8;
const HAS_DEADLINE: u8 = 1;
const WIDE_REVISION: u8 = 2;
const WIDE_LENGTHS: u8 = 4;

/// What stands before a record's key.
struct Head {
    bytes: usize,
    key_bytes: usize,
    value_bytes: usize,
    revision: Revision,
    deadline: ClusterTime,
}

/// Bytes that a record takes. Only one whose lengths are below 2^16 can be written.
#[inline]
pub(super) fn length(record: &RecordRef<'_>) -> usize {
    let head_bytes = if is_short(record) { SHORT_HEAD_BYTES } else { head_bytes(flags(record)) };
    head_bytes + record.key.len() + record.value.len()
}

/// Writes a record to the beginning of `bytes`, which has room for it.
#[inline]
pub(super) fn write(bytes: &mut [u8], record: &RecordRef<'_>) {
    let (key, rest) = write_head(bytes, record).split_at_mut(record.key.len());
    key.copy_from_slice(record.key);
    rest[..record.value.len()].copy_from_slice(record.value);
}

/// The same where a record of the same key stands already: mostly that stays where it is.
#[inline]
pub(super) fn overwrite(bytes: &mut [u8], record: &RecordRef<'_>) {
    if bytes[0] < LONG && is_short(record) {
        let rest = write_short_head(bytes, record);
        rest[record.key.len()..][..record.value.len()].copy_from_slice(record.value);
    } else {
        write(bytes, record);
    }
}

/// The key of the record at the beginning of `bytes`.
#[inline]
pub(super) fn key(bytes: &[u8]) -> &[u8] {
    match bytes[0] {
        short if short < LONG => &bytes[SHORT_HEAD_BYTES..][..usize::from(short)],
        _ => {
            let Head { bytes: head_bytes, key_bytes, .. } = read_long_head(bytes);
            &bytes[head_bytes..][..key_bytes]
        }
    }
}

/// The record at the beginning of `bytes`.
#[inline]
pub(super) fn read(bytes: &[u8]) -> RecordRef<'_> {
    let Head { bytes: head_bytes, key_bytes, value_bytes, revision, deadline } = read_head(bytes);
    let (key, rest) = bytes[head_bytes..].split_at(key_bytes);
    RecordRef { key, value: &rest[..value_bytes], revision, deadline }
}

/// Whether the short head will do.
#[inline]
fn is_short(record: &RecordRef<'_>) -> bool {
    let RecordRef { key, value, revision, deadline } = record;
    // No decision for each: nearly always all of them hold.
    (key.len() < LONG.into())
        & (value.len() <= u8::MAX.into())
        & (revision.0 <= u32::MAX.into())
        & (*deadline == NEVER)
}

/// The flags of a long head.
fn flags(record: &RecordRef<'_>) -> u8 {
    let RecordRef { key, value, revision, deadline } = record;
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    flag(*deadline != NEVER, HAS_DEADLINE)
        | flag(revision.0 > u32::MAX.into(), WIDE_REVISION)
        | flag(key.len().max(value.len()) > u8::MAX.into(), WIDE_LENGTHS)
}

/// Bytes of a long head.
fn head_bytes(flags: u8) -> usize {
    let lengths = if flags & WIDE_LENGTHS == 0 { 2 } else { 4 };
    let revision = if flags & WIDE_REVISION == 0 { 4 } else { 8 };
    let deadline = if flags & HAS_DEADLINE == 0 { 0 } else { 8 };
    1 + lengths + revision + deadline
}

/// Writes a record's head; what is behind it.
#[inline]
fn write_head<'a>(bytes: &'a mut [u8], record: &RecordRef<'_>) -> &'a mut [u8] {
    match is_short(record) {
        true => write_short_head(bytes, record),
        false => write_long_head(bytes, record),
    }
}

#[inline]
fn write_short_head<'a>(bytes: &'a mut [u8], record: &RecordRef<'_>) -> &'a mut [u8] {
    let (head, rest) = bytes.split_at_mut(SHORT_HEAD_BYTES);
    head[0] = record.key.len() as u8;
    head[1] = record.value.len() as u8;
    LittleEndian::write_u32(&mut head[2..], record.revision.0 as u32);
    rest
}

fn write_long_head<'a>(bytes: &'a mut [u8], record: &RecordRef<'_>) -> &'a mut [u8] {
    let RecordRef { key, value, revision, deadline } = record;
    let flags = flags(record);
    let (head, rest) = bytes.split_at_mut(head_bytes(flags));
    head[0] = LONG | flags;
    let lengths = if flags & WIDE_LENGTHS == 0 { 1 } else { 2 };
    LittleEndian::write_uint(&mut head[1..], key.len() as u64, lengths);
    LittleEndian::write_uint(&mut head[1 + lengths..], value.len() as u64, lengths);
    let at = 1 + 2 * lengths;
    let revision_bytes = if flags & WIDE_REVISION == 0 { 4 } else { 8 };
    LittleEndian::write_uint(&mut head[at..], revision.0, revision_bytes);
    if flags & HAS_DEADLINE != 0 {
        LittleEndian::write_u64(&mut head[at + revision_bytes..], deadline.0);
    }
    rest
}

#[inline]
fn read_head(bytes: &[u8]) -> Head {
    if bytes[0] >= LONG {
        return read_long_head(bytes);
    }
    Head {
        bytes: SHORT_HEAD_BYTES,
        key_bytes: bytes[0].into(),
        value_bytes: bytes[1].into(),
        revision: Revision(LittleEndian::read_u32(&bytes[2..]).into()),
        deadline: NEVER,
    }
}

fn read_long_head(bytes: &[u8]) -> Head {
    let flags = bytes[0] & !LONG;
    let lengths = if flags & WIDE_LENGTHS == 0 { 1 } else { 2 };
    let at = 1 + 2 * lengths;
    let revision_bytes = if flags & WIDE_REVISION == 0 { 4 } else { 8 };
    let deadline = match flags & HAS_DEADLINE {
        0 => NEVER,
        _ => ClusterTime(LittleEndian::read_u64(&bytes[at + revision_bytes..])),
    };
    Head {
        bytes: head_bytes(flags),
        key_bytes: LittleEndian::read_uint(&bytes[1..], lengths) as usize,
        value_bytes: LittleEndian::read_uint(&bytes[1 + lengths..], lengths) as usize,
        revision: Revision(LittleEndian::read_uint(&bytes[at..], revision_bytes)),
        deadline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each side of every bound at which a head becomes another one.
    fn records() -> impl Iterator<Item = (Vec<u8>, Vec<u8>, Revision, ClusterTime)> {
        let lengths = [0, 1, 18, 247, 248, 255, 256, 2000];
        let revisions = [0, 1, u64::from(u32::MAX), 1 << 32, 1 << 40, u64::MAX];
        let deadlines = [0, 1, u64::MAX - 1, NEVER.0];
        lengths.into_iter().flat_map(move |key| {
            lengths.into_iter().flat_map(move |value| {
                revisions.into_iter().flat_map(move |revision| {
                    deadlines.into_iter().map(move |deadline| {
                        let (key, value) = (vec![0xfe; key], vec![0xff; value]);
                        (key, value, Revision(revision), ClusterTime(deadline))
                    })
                })
            })
        })
    }

    #[test]
    fn read_returns_what_was_written_and_nothing_beyond_is_touched() {
        for (key, value, revision, deadline) in records() {
            let record = RecordRef { key: &key, value: &value, revision, deadline };
            let mut bytes = vec![0xaa; length(&record) + 3];
            write(&mut bytes, &record);
            assert_eq!(read(&bytes), record);
            assert_eq!(super::key(&bytes), key);
            assert_eq!(bytes[length(&record)..], [0xaa; 3]);
        }
    }

    #[test]
    fn overwrite_does_what_write_does_whatever_was_there() {
        for (key, old_value, revision, deadline) in records() {
            if key.len() % 247 > 8 {
                continue;
            }
            let old = RecordRef { key: &key, value: &old_value, revision, deadline };
            for (_, value, revision, deadline) in records().step_by(7) {
                let new = RecordRef { key: &key, value: &value, revision, deadline };
                let mut bytes = vec![0xaa; length(&old).max(length(&new))];
                write(&mut bytes, &old);
                overwrite(&mut bytes, &new);
                assert_eq!(read(&bytes), new);
            }
        }
    }

    #[test]
    fn length_is_six_bytes_more_than_key_and_value_as_a_rule() {
        let (key, value, revision) = (&[1; 18][..], &[2; 100][..], Revision(4_000_000_000));
        let record = RecordRef { key, value, revision, deadline: NEVER };
        assert_eq!(length(&record), 124);
        let expiring = RecordRef { deadline: ClusterTime(7), ..record };
        let late = RecordRef { revision: Revision(1 << 40), ..record };
        let long = RecordRef { value: &[2; 256], ..record };
        assert_eq!([length(&expiring), length(&late), length(&long)], [133, 129, 18 + 256 + 9]);
    }
}
