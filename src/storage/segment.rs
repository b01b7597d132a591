//! A segment of the log: its name, its header block, and how one comes to be.
//!
//! A segment bears its final name only once its header is durable and its space allocated, so that
//! a bad header is never the trace of a crash. Called by the writer and by recovery. Records are
//! none of its business.

use std::path::{Path, PathBuf};

use byteorder::{ByteOrder, LittleEndian};

use super::buffer::{BLOCK_BYTES, BlockBuffer, ZEROS};
use super::disk::{Disk, FileId, FileKind, Open};
use super::error::StorageError;
use super::meta::Meta;
use crate::limits;
use crate::proto::record::SegmentKey;
use crate::types::{ClusterId, Incarnation, ServerId};

/// Where the first record begins: behind the header's block.
pub const FIRST_RECORD: u64 = BLOCK_BYTES as u64;

const MAGIC: &[u8; 8] = b"raftkvwl";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 64;

/// Whose segments these are: what every header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The digest of the cluster's name.
    pub cluster: ClusterId,
    /// The server's id.
    pub server: ServerId,
    /// The data directory's random number.
    pub incarnation: Incarnation,
}

impl Owner {
    /// Whoever the meta file says.
    pub fn of(meta: &Meta) -> Owner {
        Owner { cluster: meta.cluster, server: meta.server, incarnation: meta.incarnation }
    }
}

/// An open segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its number and salt.
    pub key: SegmentKey,
    /// Where it is.
    pub path: PathBuf,
    /// Its file, open for submitted writes.
    pub file: FileId,
    /// The file's length in bytes, a multiple of the block.
    pub capacity: u64,
    /// Space up to here was written before.
    pub filled: u64,
    /// Space up to here is promised by the filesystem, even on a full disk.
    pub promised: u64,
}

/// A segment's name in the log's directory.
pub fn path(log: &Path, number: u64) -> PathBuf {
    log.join(format!("{number:016x}.wal"))
}

/// The number that a name stands for, if it is a segment's.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (format!("{number:016x}") == digits).then_some(number)
}

/// The numbers of the segments in a log's directory, ascending; none where there is no directory.
///
/// # Errors
/// The disk's.
pub fn numbers(disk: &mut dyn Disk, log: &Path) -> Result<Vec<u64>, StorageError> {
    if disk.kind(log)?.is_none() {
        return Ok(Vec::new());
    }
    let names = disk.list(log)?.into_iter();
    let mut numbers: Vec<u64> = names.filter_map(|(name, _)| number(&name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A header's block.
pub fn header(owner: Owner, key: SegmentKey, capacity: u64) -> BlockBuffer {
    let mut header = [0; HEADER_BYTES];
    header[0..8].copy_from_slice(MAGIC);
    LittleEndian::write_u32(&mut header[8..12], FORMAT);
    LittleEndian::write_u64(&mut header[16..24], owner.cluster.0);
    LittleEndian::write_u64(&mut header[24..32], owner.server.0);
    LittleEndian::write_u64(&mut header[32..40], owner.incarnation.0);
    LittleEndian::write_u64(&mut header[40..48], key.number);
    LittleEndian::write_u64(&mut header[48..56], key.salt);
    LittleEndian::write_u64(&mut header[56..64], capacity);
    BlockBuffer::build(BLOCK_BYTES, |out| {
        out.extend_from_slice(&header);
        out.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    })
}

/// Opens segment `number` and checks its header.
///
/// # Errors
/// The disk's, or the file is not that segment, whole.
pub fn open(
    disk: &mut dyn Disk,
    log: &Path,
    number: u64,
    owner: Owner,
) -> Result<Segment, StorageError> {
    let path = path(log, number);
    if disk.kind(&path)? != Some(FileKind::Regular) {
        return Err(StorageError::corrupt(&path, 0, "not a regular file"));
    }
    let file = disk.open(&path, Open::Segment)?;
    match read_header(disk, file, &path, number, owner) {
        Ok((key, capacity)) => {
            Ok(Segment { key, path, file, capacity, filled: FIRST_RECORD, promised: capacity })
        }
        Err(error) => {
            disk.close(file);
            Err(error)
        }
    }
}

fn read_header(
    disk: &mut dyn Disk,
    file: FileId,
    path: &Path,
    number: u64,
    owner: Owner,
) -> Result<(SegmentKey, u64), StorageError> {
    let mut block = [0; BLOCK_BYTES];
    let read = disk.read_at(file, 0, &mut block)?;
    if read < BLOCK_BYTES {
        let what = "the segment is cut short within its header";
        return Err(StorageError::corrupt(path, read as u64, what));
    }
    let (key, capacity) = check_header(path, &block, number, owner)?;
    let length = disk.length(file)?;
    if length != capacity {
        let what = format!("the segment is {length} bytes long, its header says {capacity}");
        return Err(StorageError::corrupt(path, length.min(capacity), what));
    }
    Ok((key, capacity))
}

fn check_header(
    path: &Path,
    block: &[u8; BLOCK_BYTES],
    number: u64,
    owner: Owner,
) -> Result<(SegmentKey, u64), StorageError> {
    let corrupt = |offset, what| Err(StorageError::corrupt(path, offset, what));
    let (header, rest) = block.split_at(HEADER_BYTES);
    if header[0..8] != *MAGIC {
        return corrupt(0, "the header doesn't begin as a segment's");
    }
    if LittleEndian::read_u32(&rest[0..4]) != crc32fast::hash(header) {
        return corrupt(HEADER_BYTES as u64, "the header fails its checksum");
    }
    if let Some(at) = rest[4..].iter().position(|byte| *byte != 0) {
        return corrupt((HEADER_BYTES + 4 + at) as u64, "the header's block holds more");
    }
    let format = LittleEndian::read_u32(&header[8..12]);
    if format != FORMAT {
        let what = format!("its format is {format}, this program's is {FORMAT}");
        return Err(StorageError::foreign(path, 8, what));
    }
    let field = |at: usize| LittleEndian::read_u64(&header[at..at + 8]);
    for (at, name, expected) in [
        (16, "cluster", owner.cluster.0),
        (24, "server", owner.server.0),
        (32, "incarnation", owner.incarnation.0),
    ] {
        if field(at) != expected {
            let what = format!("its {name} is {:x}, not {expected:x}", field(at));
            return Err(StorageError::foreign(path, at as u64, what));
        }
    }
    if field(40) != number {
        let what = format!("it is segment {:x} under another's name", field(40));
        return Err(StorageError::corrupt(path, 40, what));
    }
    let capacity = field(56);
    if capacity < 2 * FIRST_RECORD || !capacity.is_multiple_of(FIRST_RECORD) {
        return corrupt(56, "its length is not whole blocks");
    }
    let salt = field(48);
    Ok((SegmentKey { number, salt }, capacity))
}

/// The first step of a new segment: a file under a temporary name, its space allocated, but nothing
/// written. The header and the final name are the caller's.
///
/// # Errors
/// The disk's; where it is full, nothing is left behind.
pub fn allocate(
    disk: &mut dyn Disk,
    log: &Path,
    number: u64,
    capacity: u64,
) -> Result<Segment, StorageError> {
    let salt = disk.random()?;
    let path = path(log, number).with_extension("tmp");
    let file = disk.open(&path, Open::NewSegment)?;
    let promised = match disk.allocate(file, capacity) {
        Ok(promised) => promised,
        Err(error) => {
            disk.close(file);
            disk.remove(&path)?;
            return Err(error.into());
        }
    };
    Ok(Segment {
        key: SegmentKey { number, salt },
        path,
        file,
        capacity,
        filled: FIRST_RECORD,
        promised: if promised { capacity } else { FIRST_RECORD },
    })
}

/// Makes a whole new segment, blocking: the first one of a new directory.
///
/// # Errors
/// The disk's.
pub fn create(
    disk: &mut dyn Disk,
    log: &Path,
    log_names: FileId,
    key_number: u64,
    capacity: u64,
    owner: Owner,
) -> Result<Segment, StorageError> {
    let mut segment = allocate(disk, log, key_number, capacity)?;
    let block = header(owner, segment.key, capacity);
    disk.write_at(segment.file, 0, block.blocks())?;
    let target = capacity.min(limits::FILL_AT_OPEN_BYTES);
    while segment.filled < target {
        let length = (target - segment.filled).min(limits::FILL_SLICE_BYTES as u64);
        disk.write_at(segment.file, segment.filled, ZEROS.first(length as usize))?;
        segment.filled += length;
    }
    segment.promised = segment.promised.max(segment.filled);
    disk.sync(segment.file)?;
    let name = path(log, key_number);
    disk.rename(&segment.path, &name)?;
    segment.path = name;
    disk.sync(log_names)?;
    Ok(segment)
}
