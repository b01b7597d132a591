//! Reading a segment: its records in order, and what lies behind the place where they stop.
//!
//! Called by recovery. Reads in windows of a fixed size, so that a segment of any length takes
//! little memory. Judges nothing: what a stop means is decided in [`super::recovery`].

use byteorder::{ByteOrder, LittleEndian};

use super::buffer::{BLOCK_BYTES, Window, ZEROS};
use super::disk::Disk;
use super::error::{DiskError, StorageError};
use super::segment::{FIRST_RECORD, Segment};
use crate::limits;
use crate::proto::record::{
    self, ALIGN, Decoded, HEADER_BYTES, Record, RecordDecoder, RecordError,
};

/// Bytes read at a time.
const WINDOW_BYTES: usize = 256 * 1024;

/// The records of a segment, in order.
pub struct Records<'a> {
    segment: &'a Segment,
    decoder: RecordDecoder,
    /// Where the next record begins.
    at: u64,
    /// How far the file was read.
    read: u64,
    /// What it is read through.
    window: Window,
}

/// One step through a segment.
pub enum Step {
    /// A record, and where it begins.
    Record(Record, u64),
    /// Here the records stop: at zeros or at the end of the file (`None`), or at bytes that are no
    /// record.
    Stop(u64, Option<RecordError>),
}

impl<'a> Records<'a> {
    /// Begins at the segment's first record.
    pub fn new(segment: &'a Segment) -> Records<'a> {
        Records {
            segment,
            decoder: RecordDecoder::new(segment.key),
            at: FIRST_RECORD,
            read: FIRST_RECORD,
            window: Window::new(WINDOW_BYTES),
        }
    }

    /// Where the next record begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next record, or the stop.
    ///
    /// # Errors
    /// The disk's.
    pub fn step(&mut self, disk: &mut dyn Disk) -> Result<Step, DiskError> {
        loop {
            match self.decoder.next_record() {
                Ok(Decoded::Record(record, bytes)) => {
                    let at = self.at;
                    self.at += bytes as u64;
                    return Ok(Step::Record(record, at));
                }
                Ok(Decoded::Blank) => return Ok(Step::Stop(self.at, None)),
                Err(error) => return Ok(Step::Stop(self.at, Some(error))),
                Ok(Decoded::Incomplete) if self.read >= self.segment.capacity => {
                    // Too few bytes for a header are the unused end of the segment; a record that
                    // reaches past the end is none.
                    let fits = self.segment.capacity - self.at < HEADER_BYTES as u64;
                    let why = (!fits).then_some(RecordError::BadChecksum);
                    return Ok(Step::Stop(self.at, why));
                }
                Ok(Decoded::Incomplete) => {
                    let left = (self.segment.capacity - self.read).min(WINDOW_BYTES as u64);
                    let window = self.window.first(left as usize);
                    disk.read_at(self.segment.file, self.read, window)?;
                    self.decoder.push(window);
                    self.read += left;
                }
            }
        }
    }
}

/// What lies behind the place where a segment's records stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Behind {
    /// The end of the last byte that is not zero, rounded up to a block; `None` if all are.
    pub written_to: Option<u64>,
    /// Where a valid record of a later write begins.
    pub later: Option<u64>,
}

/// Looks at everything from `from` on, for records of writes above `last_possible`.
///
/// # Errors
/// The disk's.
pub fn behind(
    disk: &mut dyn Disk,
    segment: &Segment,
    from: u64,
    last_possible: u64,
) -> Result<Behind, StorageError> {
    assert!(from.is_multiple_of(ALIGN as u64), "records begin aligned");
    let mut found = Behind::default();
    // Whole blocks are read, so that it can be done directly. A header may reach into the next ones.
    let mut window = Window::new(WINDOW_BYTES + BLOCK_BYTES);
    let mut at = from - from % BLOCK_BYTES as u64;
    while at < segment.capacity {
        let left = (segment.capacity - at).min((WINDOW_BYTES + BLOCK_BYTES) as u64) as usize;
        let window = window.first(left);
        disk.read_at(segment.file, at, window)?;
        let passed = from.saturating_sub(at) as usize;
        let (start, looked) = (at + passed as u64, &window[passed..]);
        if *looked != *ZEROS.first(looked.len()) {
            look_through(disk, segment, start, looked, last_possible, &mut found)?;
        }
        at += WINDOW_BYTES as u64;
    }
    Ok(found)
}

fn look_through(
    disk: &mut dyn Disk,
    segment: &Segment,
    start: u64,
    window: &[u8],
    last_possible: u64,
    found: &mut Behind,
) -> Result<(), StorageError> {
    if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
        let end = (start + last as u64 + 1).next_multiple_of(BLOCK_BYTES as u64);
        found.written_to = Some(end.max(found.written_to.unwrap_or(0)));
    }
    for at in (0..window.len().saturating_sub(HEADER_BYTES - 1)).step_by(ALIGN) {
        let header = &window[at..at + HEADER_BYTES];
        // Nearly every place is told by these two fields; only then is a whole record read.
        let length = LittleEndian::read_u32(&header[0..4]) as usize;
        if LittleEndian::read_u64(&header[16..24]) != segment.key.number
            || LittleEndian::read_u64(&header[24..32]) <= last_possible
            || length > limits::RECORD_BYTES
            || found.later.is_some()
        {
            continue;
        }
        let mut bytes = vec![0; (HEADER_BYTES + length).next_multiple_of(ALIGN)];
        let read = disk.read_at(segment.file, start + at as u64, &mut bytes)?;
        if let Ok(Decoded::Record(..)) = record::decode(segment.key, &bytes[..read]) {
            found.later = Some(start + at as u64);
        }
    }
    Ok(())
}

const _: () = assert!(WINDOW_BYTES + BLOCK_BYTES <= limits::FILL_SLICE_BYTES);
const _: () = assert!(HEADER_BYTES <= BLOCK_BYTES);
const _: () = assert!(WINDOW_BYTES.is_multiple_of(BLOCK_BYTES));
