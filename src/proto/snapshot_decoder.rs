//! Reads a snapshot file in pieces of any size, and checks every byte of it.
//!
//! The layout stands in [`super::snapshot`] (design page 3, §3). Called by `kv/` (loads), `node/`
//! (checks what a leader sends) and `storage/` (checks files at open). Holds one block at a time,
//! and what [`super::snapshot_order`] keeps; never allocates by a declared length.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use super::snapshot::{
    BLOCK_HEADER_BYTES, FOOTER_BYTES, HAS_DEADLINE, IS_EARLY, KIND_FOOTER, KIND_HEADER,
    KIND_RECORDS, KIND_SECTION, MAGIC, RECORD_PREFIX_BYTES, Section, SnapshotEnd, SnapshotError,
    SnapshotFault, SnapshotHeader, SnapshotRecord, checksum,
};
use super::snapshot_order::KeyOrder;
use crate::limits;
use crate::types::{ClusterTime, Revision};

/// What a decoder finds, in this order: one header, any number of sections, any number of records,
/// one end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotItem<'a> {
    /// The header; always the first.
    Header(SnapshotHeader),
    /// A part of the state beside the records, in a block that passed its check. Before all records.
    Section(Section, &'a [u8]),
    /// A record, in a block that passed its check. Only the end vouches that these are all.
    Record(SnapshotRecord<'a>),
    /// The footer agrees with everything before it.
    End(SnapshotEnd),
}

/// Turns the bytes of a snapshot file, from the first one on, into its items. The file is whole
/// when the [`End`](SnapshotItem::End) has come and no byte is left.
#[derive(Debug, Default)]
pub struct SnapshotDecoder {
    /// The block that is being gathered, or whose records are being handed out.
    block: Vec<u8>,
    /// Where the next record of `block` begins; 0 while the block is being gathered.
    at: usize,
    /// Where the last record that was handed out begins.
    record_at: usize,
    /// The offset in the file of the first byte of `block`.
    offset: u64,
    place: Place,
    /// The checksum of the last block.
    last_checksum: u32,
    blocks: u64,
    records: u64,
    /// The header's revision: no record has a higher one.
    revision: Revision,
    keys: KeyOrder,
    /// A fault is final: nothing behind it can be trusted to be a block's beginning.
    failed: Option<SnapshotError>,
}

/// Which blocks may come next.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Place {
    #[default]
    BeforeHeader,
    AmongRecords,
    BehindFooter,
}

/// An item, its record as places in the block.
enum Found {
    Header(SnapshotHeader),
    Section(Section),
    Record(FoundRecord),
    End(SnapshotEnd),
}

struct FoundRecord {
    key: Range<usize>,
    value: Range<usize>,
    revision: Revision,
    deadline: Option<ClusterTime>,
    is_early: bool,
}

impl SnapshotDecoder {
    /// A decoder at the first byte of a file.
    pub fn new() -> SnapshotDecoder {
        SnapshotDecoder::default()
    }

    /// The same for a reader that knows each key that it was given, and says so if one comes twice
    /// ([`duplicate`](SnapshotDecoder::duplicate)): of early keys nothing is kept here. That they are
    /// in order is seen to all the same.
    pub fn of_store() -> SnapshotDecoder {
        SnapshotDecoder { keys: KeyOrder::of_store(), ..SnapshotDecoder::default() }
    }

    /// The reader knows the key of the last record already: the file is refused.
    pub fn duplicate(&mut self) -> SnapshotError {
        let error = self.error_at(self.record_at, SnapshotFault::DuplicateKey);
        self.failed = Some(error);
        error
    }

    /// Takes bytes from the front of `input` until an item is whole. `None` means that all of
    /// `input` was taken, and more is needed (or, behind the end, that nothing more came). Call it
    /// again with the same `input` until it says so.
    ///
    /// # Errors
    /// The bytes are not those of a snapshot. After an error every further call returns it again.
    pub fn decode<'a>(
        &'a mut self,
        input: &mut &[u8],
    ) -> Result<Option<SnapshotItem<'a>>, SnapshotError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let found = self.find(input).inspect_err(|error| self.failed = Some(*error))?;
        Ok(found.map(|found| match found {
            Found::Header(header) => SnapshotItem::Header(header),
            Found::End(end) => SnapshotItem::End(end),
            Found::Section(section) => {
                SnapshotItem::Section(section, &self.block[BLOCK_HEADER_BYTES + 1..])
            }
            Found::Record(record) => SnapshotItem::Record(SnapshotRecord {
                key: &self.block[record.key],
                value: &self.block[record.value],
                revision: record.revision,
                deadline: record.deadline,
                is_early: record.is_early,
            }),
        }))
    }

    /// To be called where the file ends.
    ///
    /// # Errors
    /// Its end has not come yet, or it failed before.
    pub fn finish(&self) -> Result<SnapshotEnd, SnapshotError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let bytes = self.bytes();
        if self.place != Place::BehindFooter {
            return Err(SnapshotError { offset: bytes, fault: SnapshotFault::Cut });
        }
        Ok(SnapshotEnd { records: self.records, bytes })
    }

    /// How many bytes of the file were taken.
    pub fn bytes(&self) -> u64 {
        self.offset + self.block.len() as u64
    }

    fn find(&mut self, input: &mut &[u8]) -> Result<Option<Found>, SnapshotError> {
        if self.at > 0 {
            // A section's block was handed out as a whole.
            if self.at < self.block.len() {
                return self.next_record().map(|record| Some(Found::Record(record)));
            }
            self.forget_block();
        }
        if self.place == Place::BehindFooter {
            return if input.is_empty() {
                Ok(None)
            } else {
                Err(self.error_at(0, SnapshotFault::TrailingBytes))
            };
        }
        let Some(kind) = self.gather(input).map_err(|fault| self.error_at(0, fault))? else {
            return Ok(None);
        };
        self.check_block().map_err(|fault| self.error_at(0, fault))?;
        let found = match kind {
            KIND_HEADER => self.take_header().map(Found::Header),
            KIND_FOOTER => self.take_footer().map(Found::End),
            KIND_SECTION => {
                let section = self.section().map_err(|fault| self.error_at(0, fault))?;
                self.at = self.block.len();
                return Ok(Some(Found::Section(section)));
            }
            _ => {
                self.at = BLOCK_HEADER_BYTES;
                return self.next_record().map(|record| Some(Found::Record(record)));
            }
        };
        let found = found.map_err(|fault| self.error_at(0, fault))?;
        self.forget_block();
        Ok(Some(found))
    }

    /// Gathers the block that comes next; its kind once it is whole.
    fn gather(&mut self, input: &mut &[u8]) -> Result<Option<u8>, SnapshotFault> {
        take(&mut self.block, BLOCK_HEADER_BYTES, input);
        let Some(head) = self.block.first_chunk::<BLOCK_HEADER_BYTES>() else {
            return Ok(None);
        };
        let (kind, length) = check_head(head, self.place, self.blocks as u32)?;
        take(&mut self.block, BLOCK_HEADER_BYTES + length, input);
        Ok((self.block.len() == BLOCK_HEADER_BYTES + length).then_some(kind))
    }

    /// Checks the block that was gathered, and counts it.
    fn check_block(&mut self) -> Result<(), SnapshotFault> {
        let (head, payload) =
            self.block.split_first_chunk().expect("gather() waited for the whole block");
        if self.place == Place::BeforeHeader && !payload.starts_with(&MAGIC) {
            return Err(SnapshotFault::BadMagic);
        }
        let sum = checksum(self.last_checksum, head, &[payload]);
        if LittleEndian::read_u32(&head[4..8]) != sum {
            return Err(SnapshotFault::BadChecksum);
        }
        self.last_checksum = sum;
        self.blocks += 1;
        Ok(())
    }

    fn take_header(&mut self) -> Result<SnapshotHeader, SnapshotFault> {
        let header = SnapshotHeader::decode(&self.block[BLOCK_HEADER_BYTES..])?;
        self.revision = header.revision;
        self.place = Place::AmongRecords;
        Ok(header)
    }

    /// Which section the block is.
    fn section(&self) -> Result<Section, SnapshotFault> {
        if self.records > 0 {
            return Err(SnapshotFault::BadKind(KIND_SECTION));
        }
        Section::from_code(self.block[BLOCK_HEADER_BYTES]).ok_or(SnapshotFault::BadSection)
    }

    fn take_footer(&mut self) -> Result<SnapshotEnd, SnapshotFault> {
        let payload = &self.block[BLOCK_HEADER_BYTES..];
        let blocks = LittleEndian::read_u64(&payload[0..8]);
        let records = LittleEndian::read_u64(&payload[8..16]);
        // The footer was counted as well.
        if (blocks + 1, records) != (self.blocks, self.records) {
            return Err(SnapshotFault::BadCount);
        }
        self.place = Place::BehindFooter;
        Ok(SnapshotEnd { records, bytes: self.bytes() })
    }

    /// Passes over the record at `at`.
    fn next_record(&mut self) -> Result<FoundRecord, SnapshotError> {
        let at = self.at;
        let record = parse_record(&self.block, at)
            .filter(|record| self.is_possible(record))
            .ok_or_else(|| self.error_at(at, SnapshotFault::BadRecord))?;
        let key = &self.block[record.key.clone()];
        self.keys.check(key, record.is_early).map_err(|fault| self.error_at(at, fault))?;
        (self.record_at, self.at) = (at, record.value.end);
        self.records += 1;
        Ok(record)
    }

    /// Whether the record could be one of this snapshot. A record that is larger than a block has
    /// one of its own.
    fn is_possible(&self, record: &FoundRecord) -> bool {
        let is_alone = self.at == BLOCK_HEADER_BYTES && record.value.end == self.block.len();
        let fits = self.block.len() <= BLOCK_HEADER_BYTES + limits::SNAPSHOT_BLOCK_BYTES;
        (is_alone || fits)
            && record.revision > Revision::ZERO
            && record.revision <= self.revision
            && record.deadline != Some(ClusterTime(u64::MAX))
    }

    fn forget_block(&mut self) {
        self.offset += self.block.len() as u64;
        self.at = 0;
        self.block.clear();
        if self.block.capacity() > 2 * limits::SNAPSHOT_BLOCK_BYTES {
            self.block = Vec::new();
        }
    }

    fn error_at(&self, at: usize, fault: SnapshotFault) -> SnapshotError {
        SnapshotError { offset: self.offset + at as u64, fault }
    }
}

/// Checks every field of a block's header that can be checked without the payload; the kind, and
/// the payload's length.
fn check_head(
    head: &[u8; BLOCK_HEADER_BYTES],
    place: Place,
    number: u32,
) -> Result<(u8, usize), SnapshotFault> {
    let (kind, declared) = (head[8], LittleEndian::read_u32(&head[0..4]));
    let lengths = match (kind, place) {
        (KIND_HEADER, Place::BeforeHeader) => MAGIC.len()..=limits::SNAPSHOT_HEADER_BYTES,
        (KIND_RECORDS, Place::AmongRecords) => RECORD_PREFIX_BYTES..=limits::SNAPSHOT_RECORD_BYTES,
        (KIND_SECTION, Place::AmongRecords) => 2..=limits::SNAPSHOT_RECORD_BYTES,
        (KIND_FOOTER, Place::AmongRecords) => FOOTER_BYTES..=FOOTER_BYTES,
        _ => return Err(SnapshotFault::BadKind(kind)),
    };
    if !lengths.contains(&(declared as usize)) {
        return Err(SnapshotFault::BadLength(declared));
    }
    if head[9..12] != [0; 3] {
        return Err(SnapshotFault::NotZero);
    }
    let declared_number = LittleEndian::read_u32(&head[12..16]);
    if declared_number != number {
        return Err(SnapshotFault::BadNumber(declared_number));
    }
    Ok((kind, declared as usize))
}

/// The record that begins at `at`; `None` where the block ends before it does.
fn parse_record(block: &[u8], at: usize) -> Option<FoundRecord> {
    let mut rest = &block[at..];
    let prefix = rest.split_off(..RECORD_PREFIX_BYTES)?;
    let key_length = LittleEndian::read_u32(&prefix[0..4]);
    let value_bytes = LittleEndian::read_u32(&prefix[4..8]) as usize;
    let deadline = match key_length & HAS_DEADLINE {
        0 => None,
        _ => Some(ClusterTime(LittleEndian::read_u64(rest.split_off(..8)?))),
    };
    let key_start = block.len() - rest.len();
    rest.split_off(..(key_length & !(HAS_DEADLINE | IS_EARLY)) as usize)?;
    let value_start = block.len() - rest.len();
    rest.split_off(..value_bytes)?;
    Some(FoundRecord {
        key: key_start..value_start,
        value: value_start..value_start + value_bytes,
        revision: Revision(LittleEndian::read_u64(&prefix[8..16])),
        deadline,
        is_early: key_length & IS_EARLY != 0,
    })
}

/// Moves bytes from `input` to `block` until that has `wanted` of them.
fn take(block: &mut Vec<u8>, wanted: usize, input: &mut &[u8]) {
    let missing = wanted.saturating_sub(block.len());
    let (taken, rest) = input.split_at(missing.min(input.len()));
    block.extend_from_slice(taken);
    *input = rest;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::message::GatewayId;
    use crate::proto::snapshot::BLOCK_HEADER_BYTES;
    use crate::proto::snapshot_encoder::SnapshotEncoder;
    use crate::types::CommandSet;
    use crate::types::{
        BatchSeq, Boot, ClusterId, Incarnation, LogIndex, ServerId, SnapshotId, Term,
    };

    fn header() -> SnapshotHeader {
        let gateway = |id| GatewayId {
            server: ServerId(id),
            incarnation: Incarnation(id * 11),
            admitted: LogIndex(1),
        };
        SnapshotHeader {
            cluster: ClusterId(7),
            id: SnapshotId { index: LogIndex(1234), term: Term(5) },
            membership_index: LogIndex(3),
            membership: Bytes::from_static(b"a membership"),
            clock: ClusterTime(1_700_000_000_000),
            revision: Revision(99),
            digest: 0x0123_4567_89ab_cdef,
            used_bytes: 77,
            command_set: CommandSet::FIRST,
            gateways: vec![(gateway(1), Boot(2), BatchSeq(3)), (gateway(2), Boot(4), BatchSeq(5))],
        }
    }

    type OwnedRecord = (Vec<u8>, Vec<u8>, u64, Option<u64>);

    fn encoded(records: &[OwnedRecord]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = SnapshotEncoder::new(&header(), &mut out);
        for (key, value, revision, deadline) in records {
            let (deadline, is_early) = (deadline.map(ClusterTime), false);
            let revision = Revision(*revision);
            let record = SnapshotRecord { key, value, revision, deadline, is_early };
            encoder.record(record, &mut out);
            assert_eq!(encoder.bytes(), out.len() as u64);
        }
        let end = encoder.finish(&mut out);
        let (records, bytes) = (records.len() as u64, out.len() as u64);
        assert_eq!(end, SnapshotEnd { records, bytes });
        out
    }

    fn few_records() -> Vec<OwnedRecord> {
        vec![
            (b"".to_vec(), b"an empty key".to_vec(), 50, Some(u64::MAX - 1)),
            (b"a".to_vec(), b"1".to_vec(), 1, None),
            (b"b".to_vec(), b"".to_vec(), 99, Some(0)),
        ]
    }

    /// Header, records and end of a file that comes in pieces.
    fn decode(file: &[u8], piece_bytes: usize) -> Result<Vec<OwnedRecord>, SnapshotError> {
        let mut decoder = SnapshotDecoder::new();
        let mut records = Vec::new();
        let mut seen_header = None;
        for mut piece in file.chunks(piece_bytes) {
            while let Some(item) = decoder.decode(&mut piece)? {
                match item {
                    SnapshotItem::Header(header) => seen_header = Some(header),
                    SnapshotItem::Section(..) => panic!("these files have none"),
                    SnapshotItem::Record(record) => records.push((
                        record.key.to_vec(),
                        record.value.to_vec(),
                        record.revision.0,
                        record.deadline.map(|deadline| deadline.0),
                    )),
                    SnapshotItem::End(end) => assert_eq!(end.records, records.len() as u64),
                }
            }
            assert!(piece.is_empty(), "`None` means that all was taken");
        }
        assert_eq!(decoder.bytes(), file.len() as u64);
        let end = decoder.finish()?;
        assert_eq!(seen_header, Some(header()));
        assert_eq!(end, SnapshotEnd { records: records.len() as u64, bytes: file.len() as u64 });
        Ok(records)
    }

    #[test]
    fn decode_takes_sections_before_the_records_and_nowhere_else() {
        let section = |bytes: &[u8]| (Section::Leases, bytes.to_vec());
        let (mut file, mut sections) = (Vec::new(), Vec::new());
        let mut encoder = SnapshotEncoder::new(&header(), &mut file);
        encoder.section(Section::Leases, b"one", &mut file);
        encoder.section(Section::Leases, &[7; 100_000], &mut file);
        let key = SnapshotRecord {
            key: b"a",
            value: b"1",
            revision: Revision(1),
            deadline: None,
            is_early: false,
        };
        encoder.record(key, &mut file);
        encoder.finish(&mut file);
        // 1. In pieces of any size.
        for piece_bytes in [1, 13, file.len()] {
            let mut decoder = SnapshotDecoder::new();
            sections.clear();
            for mut piece in file.chunks(piece_bytes) {
                while let Some(item) = decoder.decode(&mut piece).unwrap() {
                    if let SnapshotItem::Section(kind, bytes) = item {
                        sections.push((kind, bytes.to_vec()));
                    }
                }
            }
            assert_eq!(decoder.finish().map(|end| end.records), Ok(1));
            assert_eq!(sections, [section(b"one"), section(&[7; 100_000])]);
        }
        // 2. One that nobody knows, and one behind a record.
        for (is_behind, fault) in
            [(false, SnapshotFault::BadSection), (true, SnapshotFault::BadKind(KIND_SECTION))]
        {
            let mut out = Vec::new();
            let mut encoder = SnapshotEncoder::new(&header(), &mut out);
            if is_behind {
                encoder.record(key, &mut out);
            }
            encoder.unknown_section(&mut out);
            encoder.finish(&mut out);
            let mut decoder = SnapshotDecoder::new();
            let mut bytes = &out[..];
            let found = loop {
                match decoder.decode(&mut bytes) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("nothing was refused"),
                    Err(error) => break error.fault,
                }
            };
            assert_eq!(found, fault);
        }
    }

    #[test]
    fn decode_returns_what_encode_was_given_in_pieces_of_any_size() {
        let large = |length| (vec![b'k'; length], vec![b'v'; length], 7, Some(8));
        let block = limits::SNAPSHOT_BLOCK_BYTES;
        let mut many = few_records();
        // One that just fits into a block, one that just doesn't, and one of many blocks.
        many.extend([block / 2 - 12, block / 2 - 11, block * 5].map(large));
        many.extend(
            (0..3000).map(|n| (format!("z{n:05}").into_bytes(), vec![b'x'; 50], n % 99 + 1, None)),
        );
        for records in [Vec::new(), few_records(), many] {
            let file = encoded(&records);
            for piece_bytes in [1, 7, 4096, 100_000, file.len()] {
                assert_eq!(decode(&file, piece_bytes), Ok(records.clone()));
            }
        }
    }

    #[test]
    fn decode_rejects_every_flipped_bit_at_its_block() {
        let file = encoded(&few_records());
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                let error = decode(&damaged, file.len()).expect_err("a flipped bit is found");
                // A length that grew swallows the end of the file: then the end is missing.
                let is_found_before_end = error.fault == SnapshotFault::Cut;
                assert!(error.offset <= at as u64 || is_found_before_end, "{at} {bit} {error}");
            }
        }
    }

    #[test]
    fn decode_rejects_every_cut_and_whatever_follows() {
        let file = encoded(&few_records());
        for length in 0..file.len() {
            let offset = length as u64;
            let cut = SnapshotError { offset, fault: SnapshotFault::Cut };
            assert_eq!(decode(&file[..length], file.len().max(1)), Err(cut));
        }
        let mut longer = file.clone();
        longer.push(0);
        let offset = file.len() as u64;
        let trailing = SnapshotError { offset, fault: SnapshotFault::TrailingBytes };
        for piece_bytes in [1, longer.len()] {
            assert_eq!(decode(&longer, piece_bytes), Err(trailing));
        }
    }

    #[test]
    fn decode_rejects_blocks_of_another_file_or_in_another_order() {
        let value = vec![b'v'; limits::SNAPSHOT_BLOCK_BYTES];
        let record = |key: &[u8]| (key.to_vec(), value.clone(), 1, None);
        let (file, other) = (
            encoded(&[record(b"a"), record(b"b"), record(b"c")]),
            encoded(&[record(b"A"), record(b"b"), record(b"c")]),
        );
        let block = BLOCK_HEADER_BYTES + RECORD_PREFIX_BYTES + 1 + value.len();
        let first = file.len() - (BLOCK_HEADER_BYTES + FOOTER_BYTES) - 3 * block;
        // 1. A block that a file with other blocks before has at the same place.
        let mut mixed = file.clone();
        mixed[first + block..].copy_from_slice(&other[first + block..]);
        let offset = (first + block) as u64;
        let bad_checksum = SnapshotError { offset, fault: SnapshotFault::BadChecksum };
        assert_eq!(decode(&mixed, mixed.len()), Err(bad_checksum));
        // 2. A block that is missing, and one that comes twice.
        let missing = [&file[..first], &file[first + block..]].concat();
        let offset = first as u64;
        let bad_number = SnapshotError { offset, fault: SnapshotFault::BadNumber(2) };
        assert_eq!(decode(&missing, missing.len()), Err(bad_number));
        let twice = [&file[..first + block], &file[first..]].concat();
        let offset = (first + block) as u64;
        let bad_number = SnapshotError { offset, fault: SnapshotFault::BadNumber(1) };
        assert_eq!(decode(&twice, twice.len()), Err(bad_number));
    }

    #[test]
    fn decode_reserves_nothing_for_a_declared_length() {
        let value = vec![b'v'; 1024 * 1024];
        let file = encoded(&[(b"a".to_vec(), value, 1, None)]);
        let mut decoder = SnapshotDecoder::new();
        let mut head = &file[..1000];
        assert!(matches!(decoder.decode(&mut head), Ok(Some(SnapshotItem::Header(_)))));
        assert_eq!(decoder.decode(&mut head), Ok(None));
        assert!(decoder.block.capacity() < 4096, "{}", decoder.block.capacity());
        // And once a large block was read, its memory is given back.
        let mut rest = &file[1000..];
        assert!(matches!(decoder.decode(&mut rest), Ok(Some(SnapshotItem::Record(_)))));
        assert!(matches!(decoder.decode(&mut rest), Ok(Some(SnapshotItem::End(_)))));
        assert!(decoder.block.capacity() < 4096, "{}", decoder.block.capacity());
    }

    #[test]
    fn decode_repeats_its_first_error() {
        let mut file = encoded(&few_records());
        file[20] ^= 1;
        let mut decoder = SnapshotDecoder::new();
        let bad_magic = Err(SnapshotError { offset: 0, fault: SnapshotFault::BadMagic });
        assert_eq!(decoder.decode(&mut &file[..]), bad_magic);
        assert_eq!(decoder.decode(&mut &encoded(&[])[..]), bad_magic);
        assert_eq!(decoder.finish().map(|_| None), bad_magic);
    }

    #[test]
    fn decode_names_a_newer_version() {
        let mut file = encoded(&[]);
        let (head, payload) = file.split_at_mut(BLOCK_HEADER_BYTES);
        payload[8] = 2;
        let payload_bytes = LittleEndian::read_u32(&head[0..4]) as usize;
        let mut sealed = *head.first_chunk().unwrap();
        let sum = checksum(0, &sealed, &[&payload[..payload_bytes]]);
        LittleEndian::write_u32(&mut sealed[4..8], sum);
        head.copy_from_slice(&sealed);
        let newer = SnapshotError { offset: 0, fault: SnapshotFault::UnknownVersion(2) };
        assert_eq!(decode(&file, file.len()), Err(newer));
    }
}
