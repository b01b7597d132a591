//! Fills a snapshot file: header, records, footer.
//!
//! The layout stands in [`super::snapshot`] (design page 3, §3). Called by `kv/`, a slice at a
//! time. Appends whole blocks to a buffer of its caller and forgets them; writes no file.

use byteorder::{ByteOrder, LittleEndian};

use super::snapshot::{
    BLOCK_HEADER_BYTES, HAS_DEADLINE, IS_EARLY, KIND_FOOTER, KIND_HEADER, KIND_RECORDS,
    KIND_SECTION, RECORD_PREFIX_BYTES, Section, SnapshotEnd, SnapshotHeader, SnapshotRecord,
    checksum,
};
use crate::limits;

/// A snapshot file that is being filled. What its methods append to their `out`, one after
/// another, is the file.
#[derive(Clone, Debug)]
pub struct SnapshotEncoder {
    /// The records of the block that is not yet full; at most [`limits::SNAPSHOT_BLOCK_BYTES`].
    records_block: Vec<u8>,
    /// The checksum of the last block.
    last_checksum: u32,
    blocks: u64,
    records: u64,
    bytes: u64,
}

impl SnapshotEncoder {
    /// Begins a file: appends the block of its header.
    ///
    /// # Panics
    /// The membership or the gateways are more than a cluster can have.
    pub fn new(header: &SnapshotHeader, out: &mut Vec<u8>) -> SnapshotEncoder {
        let mut payload = Vec::new();
        header.encode(&mut payload);
        let mut encoder = SnapshotEncoder {
            records_block: Vec::with_capacity(limits::SNAPSHOT_BLOCK_BYTES),
            last_checksum: 0,
            blocks: 0,
            records: 0,
            bytes: 0,
        };
        encoder.push_block(KIND_HEADER, &[&payload], out);
        encoder
    }

    /// Adds a section, whose block it appends.
    ///
    /// # Panics
    /// A record was added before, or it is larger than [`limits::SNAPSHOT_RECORD_BYTES`].
    pub fn section(&mut self, section: Section, payload: &[u8], out: &mut Vec<u8>) {
        assert_eq!(self.records, 0, "sections come before the records");
        assert!(payload.len() < limits::SNAPSHOT_RECORD_BYTES, "what makes sections is bounded");
        self.push_block(KIND_SECTION, &[&[section as u8], payload], out);
    }

    /// Adds a record; in the order of keys, or [early](SnapshotRecord::is_early): a reader refuses
    /// the file where that isn't so. Appends what it completes: nothing as a rule, one block when it no longer
    /// fits, two when it is larger than a block.
    ///
    /// # Panics
    /// The record is larger than [`limits::SNAPSHOT_RECORD_BYTES`], which no log can make.
    pub fn record(&mut self, record: SnapshotRecord<'_>, out: &mut Vec<u8>) {
        let length = record.encoded_len();
        assert!(length <= limits::SNAPSHOT_RECORD_BYTES, "a frame brought its key, and its value");
        self.records += 1;
        if self.records_block.len() + length > limits::SNAPSHOT_BLOCK_BYTES {
            self.close_records_block(out);
        }
        let mut prefix = [0; RECORD_PREFIX_BYTES + 8];
        let prefix = encode_prefix(&record, &mut prefix);
        if length > limits::SNAPSHOT_BLOCK_BYTES {
            self.push_block(KIND_RECORDS, &[prefix, record.key, record.value], out);
        } else {
            self.records_block.extend_from_slice(prefix);
            self.records_block.extend_from_slice(record.key);
            self.records_block.extend_from_slice(record.value);
        }
    }

    /// Ends the file: appends the records that are left, and the footer.
    pub fn finish(mut self, out: &mut Vec<u8>) -> SnapshotEnd {
        self.close_records_block(out);
        let (blocks, records) = (self.blocks.to_le_bytes(), self.records.to_le_bytes());
        self.push_block(KIND_FOOTER, &[&blocks, &records], out);
        SnapshotEnd { records: self.records, bytes: self.bytes }
    }

    /// How many records were added.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many bytes were appended so far: the offset in the file of what comes next.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A section that no version knows.
    #[cfg(test)]
    pub(super) fn unknown_section(&mut self, out: &mut Vec<u8>) {
        self.close_records_block(out);
        self.push_block(KIND_SECTION, &[&[99, 0]], out);
    }

    fn close_records_block(&mut self, out: &mut Vec<u8>) {
        if self.records_block.is_empty() {
            return;
        }
        let mut block = std::mem::take(&mut self.records_block);
        self.push_block(KIND_RECORDS, &[&block], out);
        block.clear();
        self.records_block = block;
    }

    fn push_block(&mut self, kind: u8, payload: &[&[u8]], out: &mut Vec<u8>) {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        let mut head = [0; BLOCK_HEADER_BYTES];
        let declared = u32::try_from(length).expect("limits::SNAPSHOT_RECORD_BYTES bounds it");
        LittleEndian::write_u32(&mut head[0..4], declared);
        head[8] = kind;
        LittleEndian::write_u32(&mut head[12..16], self.blocks as u32);
        self.last_checksum = checksum(self.last_checksum, &head, payload);
        LittleEndian::write_u32(&mut head[4..8], self.last_checksum);
        out.extend_from_slice(&head);
        payload.iter().for_each(|part| out.extend_from_slice(part));
        self.blocks += 1;
        self.bytes += (BLOCK_HEADER_BYTES + length) as u64;
    }
}

/// What stands before a record's key, in a buffer that has room for the longer form.
fn encode_prefix<'a>(
    record: &SnapshotRecord<'_>,
    buffer: &'a mut [u8; RECORD_PREFIX_BYTES + 8],
) -> &'a [u8] {
    let has_deadline = if record.deadline.is_some() { HAS_DEADLINE } else { 0 };
    let is_early = if record.is_early { IS_EARLY } else { 0 };
    LittleEndian::write_u32(&mut buffer[0..4], record.key.len() as u32 | has_deadline | is_early);
    LittleEndian::write_u32(&mut buffer[4..8], record.value.len() as u32);
    LittleEndian::write_u64(&mut buffer[8..16], record.revision.0);
    let Some(deadline) = record.deadline else {
        return &buffer[..RECORD_PREFIX_BYTES];
    };
    LittleEndian::write_u64(&mut buffer[16..24], deadline.0);
    buffer
}
