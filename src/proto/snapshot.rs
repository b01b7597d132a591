//! The snapshot file: what it says, and how it is laid out; its two ends stand beside it.
//!
//! Design page 3, §3. [`super::snapshot_encoder`] fills a file, [`super::snapshot_decoder`] reads
//! one; called by `kv/` (captures and loads), by `node/` (checks what a leader sends) and by
//! `storage/` (checks files at open). Never opens a file, never allocates by a declared length.
//!
//! A file is blocks, each a header of 16 bytes and a payload; integers are little-endian:
//!
//! ```text
//! length u32, crc32 u32, kind u8, zero [u8; 3], number u32 (0, 1, 2 ..., wrapping), payload
//! ```
//!
//! The checksum covers the checksum of the block before (0 for the first), then the block without
//! its own: so a block vouches for all before it, and the last one for the file. The first block
//! is the header, the last one the footer (blocks before it and records, u64 each), those between
//! hold records, never none. Behind the header there may be *sections*, blocks that hold what a
//! state has beside records (a code u8, then what `kv/` makes of it); a version that doesn't know
//! them refuses the file, and a state that has nothing of the kind has none. A record is `key length u32 (its top bit: a deadline follows), value
//! length u32, revision u64, deadline u64 if any, key, value`. Records come in the order of their
//! keys, but for *early* ones, which the second bit of the key length marks: those come before the
//! keys that they stand among, never behind (see [`crate::kv::capture`]). No key comes twice.

use std::fmt;

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use super::message::GatewayId;
use crate::limits;
use crate::types::{
    BatchSeq, Boot, ClusterId, ClusterTime, CommandSet, Incarnation, LogIndex, Revision, ServerId,
    SnapshotId, Term,
};

/// What a header's payload begins with.
pub const MAGIC: [u8; 8] = *b"RKVSNAP\n";

/// The version of this layout. The block's own layout and the place of this number are those of
/// every version.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a block before its payload.
pub const BLOCK_HEADER_BYTES: usize = 16;

pub(super) const KIND_HEADER: u8 = 1;
pub(super) const KIND_RECORDS: u8 = 2;
pub(super) const KIND_FOOTER: u8 = 3;
pub(super) const KIND_SECTION: u8 = 4;

/// What a section holds: a part of the state beside the records. The number is its code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Section {
    /// Client sessions.
    Sessions = 1,
    /// Leases.
    Leases = 2,
}

impl Section {
    /// The section that has this code.
    pub(super) fn from_code(code: u8) -> Option<Section> {
        match code {
            1 => Some(Section::Sessions),
            2 => Some(Section::Leases),
            _ => None,
        }
    }
}

/// The bit of a record's key length that says that a deadline follows.
pub(super) const HAS_DEADLINE: u32 = 1 << 31;

/// The bit of a record's key length that says that it comes before its turn.
pub(super) const IS_EARLY: u32 = 1 << 30;

/// Bytes of a record before its deadline and its key.
pub(super) const RECORD_PREFIX_BYTES: usize = 16;

/// Bytes of a footer's payload.
pub(super) const FOOTER_BYTES: usize = 16;

/// Bytes of a header's payload before the membership, and of each gateway behind it.
const HEADER_PREFIX_BYTES: usize = 84;
const GATEWAY_BYTES: usize = 40;

const _: () = assert!(2 * limits::FRAME_BYTES < IS_EARLY as usize);

/// What stands at the beginning of a snapshot: all of the state but the records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotHeader {
    /// The cluster.
    pub cluster: ClusterId,
    /// The last entry that it includes.
    pub id: SnapshotId,
    /// The index of the membership entry in force there; 0 where there was none.
    pub membership_index: LogIndex,
    /// That membership, as its entry has it.
    pub membership: Bytes,
    /// The state machine's clock.
    pub clock: ClusterTime,
    /// The number of the last mutation.
    pub revision: Revision,
    /// The running digest of everything applied.
    pub digest: u64,
    /// The memory that the records take, by the store's own estimate, in bytes.
    pub used_bytes: u64,
    /// The version of the command set in force.
    pub command_set: CommandSet,
    /// The newest batch of every member's gateway, ordered by gateway.
    pub gateways: Vec<(GatewayId, Boot, BatchSeq)>,
}

/// One key with its value and what the store knows about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRecord<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The number of the last mutation of this key; 1 and up, at most the header's.
    pub revision: Revision,
    /// When the key dies, by the cluster clock. It may be past: who is dead is part of the state
    /// until it is removed.
    pub deadline: Option<ClusterTime>,
    /// Whether it comes before its turn in the order of keys. Says nothing about the state.
    pub is_early: bool,
}

/// What a whole snapshot counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SnapshotEnd {
    /// Its records.
    pub records: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Where bytes stop being a snapshot, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotError {
    /// The offset in the file: of the damaged block as a rule, else of the field that is wrong.
    pub offset: u64,
    /// What is wrong there.
    pub fault: SnapshotFault,
}

/// What can be wrong with a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotFault {
    /// A declared length is over its limit, or not that of the block's kind.
    BadLength(u32),
    /// A block's kind is unknown, or can't stand at this place.
    BadKind(u8),
    /// A field that has to be zero isn't.
    NotZero,
    /// A block bears another number than its place.
    BadNumber(u32),
    /// The first block is not that of a snapshot.
    BadMagic,
    /// A block, or one before it, is not what was written.
    BadChecksum,
    /// The layout's version is not ours.
    UnknownVersion(u32),
    /// The checksum matches, but the header's fields are not what a header has.
    BadHeader,
    /// The checksum matches, but a record is not one.
    BadRecord,
    /// The checksum matches, but a section is not one that this version knows.
    BadSection,
    /// A key has come before.
    DuplicateKey,
    /// A key comes behind one that it should stand before.
    OutOfOrder,
    /// The footer counts other blocks or records than there were.
    BadCount,
    /// The file ends before its footer does.
    Cut,
    /// Something follows on the footer.
    TrailingBytes,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.fault)
    }
}

impl fmt::Display for SnapshotFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotFault::BadLength(length) => {
                write!(f, "a block of {length} bytes, which its kind can't have")
            }
            SnapshotFault::BadKind(kind) => write!(f, "a block of kind {kind} at this place"),
            SnapshotFault::NotZero => f.write_str("a reserved field that is not zero"),
            SnapshotFault::BadNumber(number) => write!(f, "a block with number {number}"),
            SnapshotFault::BadMagic => f.write_str("not a snapshot of raftkv"),
            SnapshotFault::BadChecksum => f.write_str("a block fails its checksum"),
            SnapshotFault::UnknownVersion(version) => {
                write!(f, "snapshot format {version}, expected {FORMAT_VERSION}")
            }
            SnapshotFault::BadHeader => f.write_str("a header whose fields are not a header's"),
            SnapshotFault::BadSection => f.write_str("a section of an unknown kind or form"),
            SnapshotFault::BadRecord => f.write_str("a record that is none"),
            SnapshotFault::DuplicateKey => f.write_str("a key for the second time"),
            SnapshotFault::OutOfOrder => f.write_str("a key behind one that it comes before"),
            SnapshotFault::BadCount => f.write_str("a footer that counts something else"),
            SnapshotFault::Cut => f.write_str("the file ends before the snapshot does"),
            SnapshotFault::TrailingBytes => f.write_str("bytes follow on the snapshot"),
        }
    }
}

impl std::error::Error for SnapshotError {}

impl SnapshotRecord<'_> {
    /// How many bytes it takes in its block.
    pub fn encoded_len(&self) -> usize {
        let deadline = if self.deadline.is_some() { 8 } else { 0 };
        RECORD_PREFIX_BYTES + deadline + self.key.len() + self.value.len()
    }
}

impl SnapshotHeader {
    /// Appends the payload of the header's block.
    ///
    /// # Panics
    /// The membership or the gateways are more than a cluster can have.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.gateways.len() <= limits::MEMBERS, "only members have gateways");
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        let SnapshotHeader { cluster, id, membership_index, clock, revision, .. } = self;
        for number in [cluster.0, id.index.0, id.term.0, membership_index.0, clock.0, revision.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.digest.to_le_bytes());
        out.extend_from_slice(&self.used_bytes.to_le_bytes());
        out.extend_from_slice(&self.command_set.0.to_le_bytes());
        let length = u32::try_from(self.membership.len()).expect("limits::MEMBERS bounds it");
        out.extend_from_slice(&length.to_le_bytes());
        assert_eq!(out.len() - start, HEADER_PREFIX_BYTES);
        out.extend_from_slice(&self.membership);
        for (gateway, boot, seq) in &self.gateways {
            let GatewayId { server, incarnation, admitted } = gateway;
            for number in [server.0, incarnation.0, admitted.0, boot.0, seq.0] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        let is_bounded = out.len() - start <= limits::SNAPSHOT_HEADER_BYTES;
        assert!(is_bounded, "limits::MEMBERS bounds it");
    }

    /// The header of a payload that begins with [`MAGIC`] and passed its check.
    pub(super) fn decode(payload: &[u8]) -> Result<SnapshotHeader, SnapshotFault> {
        let version = payload.get(8..12).map(LittleEndian::read_u32);
        let version = version.ok_or(SnapshotFault::BadHeader)?;
        if version != FORMAT_VERSION {
            return Err(SnapshotFault::UnknownVersion(version));
        }
        let (prefix, rest) =
            payload.split_at_checked(HEADER_PREFIX_BYTES).ok_or(SnapshotFault::BadHeader)?;
        let number = |at: usize| LittleEndian::read_u64(&prefix[at..at + 8]);
        let membership_bytes = LittleEndian::read_u32(&prefix[80..84]) as usize;
        let (membership, rest) =
            rest.split_at_checked(membership_bytes).ok_or(SnapshotFault::BadHeader)?;
        Ok(SnapshotHeader {
            cluster: ClusterId(number(12)),
            id: SnapshotId { index: LogIndex(number(20)), term: Term(number(28)) },
            membership_index: LogIndex(number(36)),
            membership: Bytes::copy_from_slice(membership),
            clock: ClusterTime(number(44)),
            revision: Revision(number(52)),
            digest: number(60),
            used_bytes: number(68),
            command_set: CommandSet(LittleEndian::read_u32(&prefix[76..80])),
            gateways: decode_gateways(rest)?,
        })
    }
}

fn decode_gateways(bytes: &[u8]) -> Result<Vec<(GatewayId, Boot, BatchSeq)>, SnapshotFault> {
    let (rows, rest) = bytes.as_chunks::<GATEWAY_BYTES>();
    if !rest.is_empty() || rows.len() > limits::MEMBERS {
        return Err(SnapshotFault::BadHeader);
    }
    let gateway = |row: &[u8; GATEWAY_BYTES]| {
        let number = |at: usize| LittleEndian::read_u64(&row[at..at + 8]);
        let id = GatewayId {
            server: ServerId(number(0)),
            incarnation: Incarnation(number(8)),
            admitted: LogIndex(number(16)),
        };
        (id, Boot(number(24)), BatchSeq(number(32)))
    };
    let gateways: Vec<_> = rows.iter().map(gateway).collect();
    let is_ordered = gateways.is_sorted_by(|a, b| a.0 < b.0);
    is_ordered.then_some(gateways).ok_or(SnapshotFault::BadHeader)
}

/// The checksum of a block: `before` is that of the block before it, `head` its header, whose
/// checksum field is left out, and `payload` its payload in any number of parts.
pub(super) fn checksum(before: u32, head: &[u8; BLOCK_HEADER_BYTES], payload: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(&head[0..4]);
    hasher.update(&head[8..]);
    payload.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}
