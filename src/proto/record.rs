//! Log records: what one disk write of the log is made of, as bytes.
//!
//! A record is a header of 48 bytes (payload length, crc32, kind, flags, segment number, write
//! number, index, term; little-endian), its payload, and zeros up to a multiple of 8. The checksum
//! covers all of that but itself, and begins with the segment's salt. Called by `storage/`; never
//! reads a file, never allocates by a declared length.

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::limits;
use crate::proto::entry::{Entry, EntryKind, HardState};
use crate::testing::{Mutation, is_on};
use crate::types::{Boot, ClusterTime, LogIndex, ServerId, SnapshotId, Term};

/// Bytes before a record's payload.
pub const HEADER_BYTES: usize = 48;

/// Every record begins at a multiple of this, so that a search for records behind a damaged one
/// has few places to look at.
pub const ALIGN: usize = 8;

/// Bytes of an entry's payload before the bytes of the entry itself: its kind and its time.
const ENTRY_PREFIX_BYTES: usize = 9;

const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_TRUNCATION: u8 = 3;
const KIND_CONTINUES: u8 = 4;
const KIND_SEAL: u8 = 5;
const KIND_RESET: u8 = 6;
const KIND_CONTINUED: u8 = 7;

const FLAG_ENDS_WRITE: u8 = 1;

/// Which segment a record belongs to. A record of another segment, or of an earlier life of a
/// recycled one, fails its check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentKey {
    /// The segment's number, 1 and up.
    pub number: u64,
    /// A random number drawn when the segment was created. It enters every checksum, so that no
    /// value that a client stores can pass for a record.
    pub salt: u64,
}

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// An entry follows on the log.
    Entry(Entry),
    /// The term and the vote from here on.
    HardState(HardState),
    /// Entries at this index and above are no longer part of the log.
    Truncation(LogIndex),
    /// The log goes on in the next segment, and nothing follows in this one.
    Continues,
    /// A clean stop of the process with this boot counter.
    Seal(Boot),
    /// The log is empty from here on, and goes on behind the last entry of this snapshot.
    Reset(SnapshotId),
    /// The first record of a segment that is not the log's first: the log's last entry before it,
    /// so that the segments before it may go. Term 0 at an index above 0 stands for "not known".
    Continued(SnapshotId),
}

/// A record that passed its check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The number of the disk write that carried it; each write's is one more than the last one's.
    pub write: u64,
    /// Whether it is the last record of its write: only then is the whole write there.
    pub ends_write: bool,
    /// What it says.
    pub body: Body,
}

/// What was found at the start of some bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// A record, and how many bytes it takes.
    Record(Record, usize),
    /// Zeros: no record begins here.
    Blank,
    /// A record may begin here, but more bytes are needed to tell.
    Incomplete,
}

/// Why some bytes are no record of their segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// The declared length is over [`limits::RECORD_BYTES`].
    TooLong,
    /// It bears another segment's number.
    OtherSegment,
    /// The checksum doesn't match.
    BadChecksum,
    /// The checksum matches, but this version doesn't know the kind or a flag.
    UnknownKind,
    /// The checksum matches, but the payload is not what its kind has.
    BadPayload,
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RecordError::TooLong => "a record's length is over the limit",
            RecordError::OtherSegment => "a record bears another segment's number",
            RecordError::BadChecksum => "a record fails its checksum",
            RecordError::UnknownKind => "a record is of an unknown kind",
            RecordError::BadPayload => "a record's payload is not what its kind has",
        })
    }
}

impl std::error::Error for RecordError {}

impl Body {
    fn payload_len(&self) -> usize {
        match self {
            Body::Entry(entry) => ENTRY_PREFIX_BYTES + entry.payload.len(),
            Body::HardState(_) => 8,
            Body::Truncation(_) | Body::Continues | Body::Seal(_) => 0,
            Body::Reset(_) | Body::Continued(_) => 0,
        }
    }

    /// How many bytes its record takes.
    pub fn encoded_len(&self) -> usize {
        (HEADER_BYTES + self.payload_len()).next_multiple_of(ALIGN)
    }
}

/// Appends the record to `out`.
pub fn encode(key: SegmentKey, record: &Record, out: &mut Vec<u8>) {
    let body = &record.body;
    assert!(body.payload_len() <= limits::RECORD_BYTES);
    let start = out.len();
    let (kind, index, term) = match body {
        Body::Entry(entry) => (KIND_ENTRY, entry.index.0, entry.term.0),
        Body::HardState(state) => (KIND_HARD_STATE, 0, state.current_term.0),
        Body::Truncation(from) => (KIND_TRUNCATION, from.0, 0),
        Body::Continues => (KIND_CONTINUES, key.number.saturating_add(1), 0),
        Body::Seal(boot) => (KIND_SEAL, boot.0, 0),
        Body::Reset(id) => (KIND_RESET, id.index.0, id.term.0),
        Body::Continued(last) => (KIND_CONTINUED, last.index.0, last.term.0),
    };
    let mut header = [0; HEADER_BYTES];
    LittleEndian::write_u32(&mut header[0..4], body.payload_len() as u32);
    header[8] = kind;
    header[9] = if record.ends_write { FLAG_ENDS_WRITE } else { 0 };
    LittleEndian::write_u64(&mut header[16..24], key.number);
    LittleEndian::write_u64(&mut header[24..32], record.write);
    LittleEndian::write_u64(&mut header[32..40], index);
    LittleEndian::write_u64(&mut header[40..48], term);
    out.extend_from_slice(&header);
    match body {
        Body::Entry(entry) => {
            out.push(entry.kind as u8);
            out.extend_from_slice(&entry.time.0.to_le_bytes());
            out.extend_from_slice(&entry.payload);
        }
        Body::HardState(state) => {
            let vote = state.voted_for.unwrap_or(ServerId::ZERO);
            out.extend_from_slice(&vote.0.to_le_bytes());
        }
        Body::Truncation(_) | Body::Continues | Body::Seal(_) => {}
        Body::Reset(_) | Body::Continued(_) => {}
    }
    out.resize(start + body.encoded_len(), 0);
    let sum = checksum(key, &out[start..]);
    LittleEndian::write_u32(&mut out[start + 4..start + 8], sum);
}

/// Tells what is at the start of `input`. Reads no further than the record that begins there.
///
/// # Errors
/// The bytes are no record of this segment.
pub fn decode(key: SegmentKey, input: &[u8]) -> Result<Decoded, RecordError> {
    let Some(header) = input.first_chunk::<HEADER_BYTES>() else {
        return Ok(Decoded::Incomplete);
    };
    if header.iter().all(|byte| *byte == 0) {
        return Ok(Decoded::Blank);
    }
    let length = LittleEndian::read_u32(&header[0..4]) as usize;
    if length > limits::RECORD_BYTES {
        return Err(RecordError::TooLong);
    }
    if LittleEndian::read_u64(&header[16..24]) != key.number {
        return Err(RecordError::OtherSegment);
    }
    let total = (HEADER_BYTES + length).next_multiple_of(ALIGN);
    let Some(record) = input.get(..total) else {
        return Ok(Decoded::Incomplete);
    };
    let is_sound = LittleEndian::read_u32(&header[4..8]) == checksum(key, record);
    if !is_sound && !is_on(Mutation::IgnoresChecksum) {
        return Err(RecordError::BadChecksum);
    }
    let (payload, padding) = record[HEADER_BYTES..].split_at(length);
    if header[9] & !FLAG_ENDS_WRITE != 0 || header[10..16] != [0; 6] {
        return Err(RecordError::UnknownKind);
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Err(RecordError::BadPayload);
    }
    let record = Record {
        write: LittleEndian::read_u64(&header[24..32]),
        ends_write: header[9] & FLAG_ENDS_WRITE != 0,
        body: decode_body(key, header, payload)?,
    };
    Ok(Decoded::Record(record, total))
}

fn decode_body(
    key: SegmentKey,
    header: &[u8; HEADER_BYTES],
    payload: &[u8],
) -> Result<Body, RecordError> {
    let index = LittleEndian::read_u64(&header[32..40]);
    let term = Term(LittleEndian::read_u64(&header[40..48]));
    match header[8] {
        KIND_ENTRY if payload.len() >= ENTRY_PREFIX_BYTES => Ok(Body::Entry(Entry {
            index: LogIndex(index),
            term,
            time: ClusterTime(LittleEndian::read_u64(&payload[1..9])),
            kind: EntryKind::from_code(payload[0]).ok_or(RecordError::UnknownKind)?,
            payload: Bytes::copy_from_slice(&payload[ENTRY_PREFIX_BYTES..]),
        })),
        KIND_HARD_STATE if payload.len() == 8 && index == 0 => {
            let vote = ServerId(LittleEndian::read_u64(payload));
            Ok(Body::HardState(HardState {
                current_term: term,
                voted_for: (vote != ServerId::ZERO).then_some(vote),
            }))
        }
        KIND_TRUNCATION | KIND_CONTINUES | KIND_SEAL if !payload.is_empty() || term.0 != 0 => {
            Err(RecordError::BadPayload)
        }
        KIND_TRUNCATION => Ok(Body::Truncation(LogIndex(index))),
        KIND_CONTINUES if index == key.number.saturating_add(1) => Ok(Body::Continues),
        KIND_SEAL => Ok(Body::Seal(Boot(index))),
        KIND_RESET | KIND_CONTINUED if !payload.is_empty() => Err(RecordError::BadPayload),
        KIND_RESET => Ok(Body::Reset(SnapshotId { index: LogIndex(index), term })),
        KIND_CONTINUED => Ok(Body::Continued(SnapshotId { index: LogIndex(index), term })),
        KIND_ENTRY | KIND_HARD_STATE | KIND_CONTINUES => Err(RecordError::BadPayload),
        _ => Err(RecordError::UnknownKind),
    }
}

/// The checksum of a whole record, its own field left out.
fn checksum(key: SegmentKey, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&key.salt.to_le_bytes());
    hasher.update(&record[0..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

/// Takes a segment's bytes as they are read, in pieces of any size, and gives its records.
#[derive(Debug)]
pub struct RecordDecoder {
    key: SegmentKey,
    buffer: Vec<u8>,
    consumed: usize,
}

impl RecordDecoder {
    /// A decoder at the first record of a segment.
    pub fn new(key: SegmentKey) -> RecordDecoder {
        RecordDecoder { key, buffer: Vec::new(), consumed: 0 }
    }

    /// More bytes of the segment.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// What is at the decoder's place; a record is passed over, anything else is not.
    ///
    /// # Errors
    /// The bytes there are no record of this segment. Asking again says so again.
    pub fn next_record(&mut self) -> Result<Decoded, RecordError> {
        let decoded = decode(self.key, &self.buffer[self.consumed..])?;
        if let Decoded::Record(_, bytes) = &decoded {
            self.consumed += bytes;
        }
        Ok(decoded)
    }
}

/// What the fuzz target and its corpus assert: the first 16 bytes are a segment's number and salt,
/// the next one the size of the pieces, and the rest decodes in pieces as it does as a whole.
///
/// # Panics
/// It doesn't, or a decoded record doesn't encode to the bytes that it came from.
pub fn check_chunks(data: &[u8]) {
    let Some((prefix, input)) = data.split_first_chunk::<17>() else {
        return;
    };
    let key = SegmentKey {
        number: LittleEndian::read_u64(&prefix[0..8]),
        salt: LittleEndian::read_u64(&prefix[8..16]),
    };
    let mut whole = RecordDecoder::new(key);
    whole.push(input);
    let (expected, end) = drain(&mut whole);
    let mut pieces = RecordDecoder::new(key);
    let mut records = Vec::new();
    let mut last = Ok(Decoded::Incomplete);
    for piece in input.chunks(usize::from(prefix[16]).max(1)) {
        pieces.push(piece);
        let (more, end) = drain(&mut pieces);
        records.extend(more);
        last = end;
    }
    assert_eq!(records, expected);
    assert_eq!(last, end);
    let mut encoded = Vec::new();
    for record in &records {
        encode(key, record, &mut encoded);
    }
    assert_eq!(encoded, input[..encoded.len()]);
}

fn drain(decoder: &mut RecordDecoder) -> (Vec<Record>, Result<Decoded, RecordError>) {
    let mut records = Vec::new();
    loop {
        match decoder.next_record() {
            Ok(Decoded::Record(record, _)) => records.push(record),
            end => return (records, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SegmentKey = SegmentKey { number: 7, salt: 0x0123_4567_89ab_cdef };

    fn records() -> Vec<Record> {
        let entry = |index, payload: &'static [u8]| {
            Body::Entry(Entry {
                index: LogIndex(index),
                term: Term(3),
                time: ClusterTime(1_700_000_000_000),
                kind: EntryKind::Batch,
                payload: Bytes::from_static(payload),
            })
        };
        let vote = |voted_for| Body::HardState(HardState { current_term: Term(3), voted_for });
        let bodies = vec![
            vote(Some(ServerId(2))),
            vote(None),
            Body::Truncation(LogIndex(12)),
            entry(12, b""),
            entry(13, b"some bytes"),
            Body::Seal(Boot(4)),
            Body::Continues,
            Body::Continued(SnapshotId { index: LogIndex(13), term: Term(3) }),
            Body::Reset(SnapshotId { index: LogIndex(90), term: Term(4) }),
        ];
        let number = |(at, body)| Record { write: 40 + at as u64, ends_write: at % 2 == 0, body };
        bodies.into_iter().enumerate().map(number).collect()
    }

    fn encoded() -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in records() {
            let before = bytes.len();
            encode(KEY, &record, &mut bytes);
            assert_eq!(bytes.len() - before, record.body.encoded_len());
        }
        bytes
    }

    #[test]
    fn decode_returns_what_encode_was_given() {
        let bytes = encoded();
        let mut decoder = RecordDecoder::new(KEY);
        let mut decoded = Vec::new();
        for byte in &bytes {
            decoder.push(std::slice::from_ref(byte));
            if let Decoded::Record(record, _) = decoder.next_record().unwrap() {
                decoded.push(record);
            }
        }
        assert_eq!(decoded, records());
        decoder.push(&[0; HEADER_BYTES]);
        assert_eq!(decoder.next_record(), Ok(Decoded::Blank));
    }

    #[test]
    fn decode_rejects_every_flipped_bit() {
        let mut bytes = Vec::new();
        encode(KEY, &records()[4], &mut bytes);
        // Room behind it, so that a longer length doesn't just look incomplete.
        let end = bytes.len();
        bytes.resize(limits::RECORD_BYTES + 2 * HEADER_BYTES, 0);
        for at in 0..end {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert!(decode(KEY, &bytes).is_err(), "byte {at} bit {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn decode_rejects_another_segment_and_another_life_of_it() {
        let bytes = encoded();
        let other = SegmentKey { number: 8, ..KEY };
        assert_eq!(decode(other, &bytes), Err(RecordError::OtherSegment));
        let recycled = SegmentKey { salt: 1, ..KEY };
        assert_eq!(decode(recycled, &bytes), Err(RecordError::BadChecksum));
    }

    #[test]
    fn decode_rejects_padding_that_is_not_zero() {
        let mut bytes = Vec::new();
        encode(KEY, &records()[4], &mut bytes);
        *bytes.last_mut().unwrap() = 1;
        let sum = checksum(KEY, &bytes);
        LittleEndian::write_u32(&mut bytes[4..8], sum);
        assert_eq!(decode(KEY, &bytes), Err(RecordError::BadPayload));
    }

    #[test]
    fn decode_waits_for_a_declared_length_and_allocates_nothing_by_it() {
        let mut header = [0; HEADER_BYTES];
        LittleEndian::write_u32(&mut header[0..4], limits::RECORD_BYTES as u32);
        LittleEndian::write_u64(&mut header[16..24], KEY.number);
        assert_eq!(decode(KEY, &header), Ok(Decoded::Incomplete));
        LittleEndian::write_u32(&mut header[0..4], limits::RECORD_BYTES as u32 + 1);
        assert_eq!(decode(KEY, &header), Err(RecordError::TooLong));
    }
}
