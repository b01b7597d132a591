//! Recovery: what a log says after a stop of any kind, or why it cannot be believed.
//!
//! A write counts only as a whole. Bytes that are no record, with nothing valid of a later write
//! behind them, are the last write, torn by a crash; it was never acknowledged, and is cut away.
//! Anything else is corruption, named by file and offset. Called when a directory is opened, by
//! [`super::Storage`]. Never skips a record.

use std::path::Path;

use super::buffer::{BLOCK_BYTES, ZEROS};
use super::disk::{Disk, FileId, FileKind};
use super::error::StorageError;
use super::scan::{self, Behind, Records, Step};
use super::segment::{self, FIRST_RECORD, Owner, Segment};
use crate::limits;
use crate::proto::entry::{Entry, HardState};
use crate::proto::record::{Body, RecordError};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Boot, LogIndex, Term};

/// A recovered log: what it says, and where it goes on.
pub struct RecoveredLog {
    /// The entries from index 1.
    pub entries: Vec<Entry>,
    /// The last term and vote, if any was ever written.
    pub hard_state: Option<HardState>,
    /// The number of the last write that is whole.
    pub last_write: u64,
    /// The segment that the next write goes to.
    pub current: Segment,
    /// Where in it.
    pub position: u64,
    /// The bytes of that place's block before it.
    pub tail: Vec<u8>,
    /// The segment after it, if it was made already.
    pub next: Option<Segment>,
}

/// What has been read so far.
struct Replay {
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
    last_write: u64,
    /// The last whole write: in which segment, from where to where.
    last_place: Option<(usize, u64, u64)>,
    /// The write whose last record was not met yet: where it begins, and its records.
    pending: Option<(u64, Vec<Body>)>,
    sealed: Option<Boot>,
    continues: bool,
}

/// Reads the log's directory; `boot` is the directory's boot counter before this start.
///
/// # Errors
/// The disk's; [`StorageError::Corrupt`] and [`StorageError::Foreign`].
pub fn recover(
    disk: &mut dyn Disk,
    log: &Path,
    names: FileId,
    owner: Owner,
    boot: Boot,
    segment_bytes: u64,
) -> Result<RecoveredLog, StorageError> {
    let mut segments = open_all(disk, log, owner)?;
    if segments.is_empty() {
        if boot > Boot::ZERO {
            let first = segment::path(log, 1);
            return Err(StorageError::corrupt(&first, 0, "the log's segments are missing"));
        }
        segments.push(segment::create(disk, log, names, 1, segment_bytes, owner)?);
    }
    // A crash may have left a name that isn't durable yet.
    disk.sync(names)?;
    let mut replay = Replay::new();
    let mut current = 0;
    let (at, why) = loop {
        replay.continues = false;
        let stop = replay.read_segment(disk, &segments[current], current)?;
        if !replay.continues {
            break stop;
        }
        expect_blank(disk, &segments[current], stop.0)?;
        current += 1;
        if current == segments.len() {
            let missing = segment::path(log, current as u64 + 1);
            let what = "the segment is missing: the one before it says that it follows";
            return Err(StorageError::corrupt(&missing, 0, what));
        }
    };
    expect_unused(disk, &segments, current, at)?;
    let was_sealed = replay.sealed == Some(boot);
    if was_sealed {
        reached(Mark::SealFound);
    }
    let segment = &segments[current];
    let position = cut_torn(disk, segment, &mut replay, at, why, was_sealed)?;
    if !was_sealed {
        make_durable(disk, &segments, &replay)?;
    }
    let block = position - position % BLOCK_BYTES as u64;
    let mut tail = vec![0; (position - block) as usize];
    disk.read_at(segment.file, block, &mut tail)?;
    segments.truncate(current + 2);
    let next = (segments.len() == current + 2).then(|| segments.pop()).flatten();
    if next.is_some() {
        reached(Mark::NextSegmentFound);
    }
    for passed in segments.drain(..current) {
        disk.close(passed.file);
    }
    let mut current = segments.pop().expect("the segment where the log stops is among them");
    current.filled = current.filled.max(position.next_multiple_of(BLOCK_BYTES as u64));
    Ok(RecoveredLog {
        entries: replay.entries,
        hard_state: replay.hard_state,
        last_write: replay.last_write,
        current,
        position,
        tail,
        next,
    })
}

/// Removes temporary files and opens all segments, which must be numbered from 1 without a gap.
fn open_all(disk: &mut dyn Disk, log: &Path, owner: Owner) -> Result<Vec<Segment>, StorageError> {
    let mut numbers = Vec::new();
    for (name, kind) in disk.list(log)? {
        match segment::number(&name) {
            Some(number) => numbers.push(number),
            None if name.ends_with(".tmp") && kind == FileKind::Regular => {
                disk.remove(&log.join(name))?;
            }
            None => log::warn!("{} is no segment of the log: left alone", log.join(name).display()),
        }
    }
    numbers.sort_unstable();
    let mut segments = Vec::new();
    for (number, expected) in numbers.into_iter().zip(1..) {
        if number != expected {
            let missing = segment::path(log, expected);
            let what = format!("the segment is missing, and {number:016x}.wal is there");
            return Err(StorageError::corrupt(&missing, 0, what));
        }
        let mut segment = segment::open(disk, log, number, owner)?;
        // Where the filesystem makes no promise, this asks for one and changes nothing else.
        if !disk.allocate(segment.file, segment.capacity)? {
            segment.promised = segment.filled;
        }
        segments.push(segment);
    }
    Ok(segments)
}

impl Replay {
    fn new() -> Replay {
        Replay {
            entries: Vec::new(),
            hard_state: None,
            last_write: 0,
            last_place: None,
            pending: None,
            sealed: None,
            continues: false,
        }
    }

    /// Reads until the segment says that the log continues in the next, or its records stop.
    fn read_segment(
        &mut self,
        disk: &mut dyn Disk,
        segment: &Segment,
        number: usize,
    ) -> Result<(u64, Option<RecordError>), StorageError> {
        let mut records = Records::new(segment);
        while !self.continues {
            let (record, at) = match records.step(disk)? {
                Step::Record(record, at) => (record, at),
                Step::Stop(at, why) => return Ok((at, why)),
            };
            if record.write != self.last_write + 1 {
                let what = format!(
                    "a record of write {} where write {} is due",
                    record.write,
                    self.last_write + 1
                );
                return Err(StorageError::corrupt(&segment.path, at, what));
            }
            let (start, bodies) = self.pending.get_or_insert_with(|| (at, Vec::new()));
            bodies.push(record.body);
            let start = *start;
            if record.ends_write {
                self.last_write = record.write;
                self.last_place = Some((number, start, records.at()));
                self.sealed = None;
                let (_, bodies) = self.pending.take().expect("it was just pushed to");
                for body in bodies {
                    self.apply(body)
                        .map_err(|what| StorageError::corrupt(&segment.path, start, what))?;
                }
            }
        }
        Ok((records.at(), None))
    }

    fn apply(&mut self, body: Body) -> Result<(), String> {
        let next = LogIndex(self.entries.len() as u64 + 1);
        let last_term = self.entries.last().map_or(Term::ZERO, |entry| entry.term);
        match body {
            Body::Entry(entry) if entry.index != next => {
                Err(format!("entry {} where entry {next} is due", entry.index))
            }
            Body::Entry(entry) if entry.term < last_term => Err(format!(
                "entry {} is of term {}, the one before it of term {last_term}",
                entry.index, entry.term
            )),
            Body::Entry(entry) => {
                self.entries.push(entry);
                Ok(())
            }
            Body::Truncation(from) if from == LogIndex::ZERO || from > next => {
                Err(format!("a truncation at {from} of a log that ends before {next}"))
            }
            Body::Truncation(from) => {
                self.entries.truncate(from.0 as usize - 1);
                Ok(())
            }
            Body::HardState(state) => {
                let term = self.hard_state.unwrap_or_default().current_term;
                if state.current_term < term {
                    let now = state.current_term;
                    return Err(format!("the term falls from {term} to {now}"));
                }
                self.hard_state = Some(state);
                Ok(())
            }
            Body::Continues => {
                self.continues = true;
                Ok(())
            }
            Body::Seal(boot) => {
                self.sealed = Some(boot);
                Ok(())
            }
        }
    }
}

/// Behind the end of a segment that says that the log continues elsewhere, there is nothing.
fn expect_blank(disk: &mut dyn Disk, segment: &Segment, from: u64) -> Result<(), StorageError> {
    match scan::behind(disk, segment, from, u64::MAX)? {
        Behind { written_to: None, .. } => Ok(()),
        _ => {
            let what = "the segment has ended here, but what follows is not zeros";
            Err(StorageError::corrupt(&segment.path, from, what))
        }
    }
}

/// Behind the segment where the log stops there is at most one more, made but not yet used.
fn expect_unused(
    disk: &mut dyn Disk,
    segments: &[Segment],
    current: usize,
    at: u64,
) -> Result<(), StorageError> {
    for (later, segment) in segments.iter().enumerate().skip(current + 1) {
        let used = scan::behind(disk, segment, FIRST_RECORD, 0)?;
        if used.later.is_some() || later > current + 1 {
            let stopped = &segments[current].path;
            let what = format!("the records stop here, but {} follows", segment.path.display());
            return Err(StorageError::corrupt(stopped, at, what));
        }
        if used.written_to.is_some() {
            let what = "the segment holds no record, but is not all zeros";
            return Err(StorageError::corrupt(&segment.path, FIRST_RECORD, what));
        }
    }
    Ok(())
}

/// Cuts the last write if it is torn, durably; returns where the next one goes.
fn cut_torn(
    disk: &mut dyn Disk,
    segment: &Segment,
    replay: &mut Replay,
    at: u64,
    why: Option<RecordError>,
    was_sealed: bool,
) -> Result<u64, StorageError> {
    // One write is under way at a time: of the one after the last whole write a part may be there,
    // but if a yet later one left a trace, this one had been acknowledged.
    let torn_write = replay.last_write + 1;
    let behind = scan::behind(disk, segment, at, torn_write)?;
    let what = why.map_or("zeros in place of a record".to_owned(), |why| why.to_string());
    if let Some(later) = behind.later
        && !is_on(Mutation::CutsCorruption)
    {
        reached(Mark::CorruptionRefused);
        let what = format!("{what}, and a later write is there at offset {later}");
        return Err(StorageError::corrupt(&segment.path, at, what));
    }
    if why == Some(RecordError::UnknownKind) {
        return Err(StorageError::foreign(&segment.path, at, "written by a newer version"));
    }
    let pending = replay.pending.take();
    if behind.written_to.is_none() && pending.is_none() {
        return Ok(at);
    }
    if was_sealed {
        let what = format!("{what}, and the log was sealed by a clean stop");
        return Err(StorageError::corrupt(&segment.path, at, what));
    }
    reached(if pending.is_some() { Mark::TornWriteIncomplete } else { Mark::TornTailCut });
    if is_on(Mutation::TornWriteCounts) {
        for body in pending.iter().flat_map(|(_, bodies)| bodies.iter().cloned()) {
            replay.apply(body).map_err(|what| StorageError::corrupt(&segment.path, at, what))?;
        }
    }
    let cut = pending.map_or(at, |(start, _)| start);
    let end = behind.written_to.unwrap_or(0);
    log::warn!(
        "{}: write {torn_write} was torn by a crash ({what} at offset {at}); it was never \
         acknowledged, and is cut off at offset {cut}",
        segment.path.display()
    );
    if is_on(Mutation::TornTailStays) {
        return Ok(cut);
    }
    let end = end.max(at.next_multiple_of(BLOCK_BYTES as u64)).min(segment.capacity);
    let mut from = cut;
    while from < end {
        let length = (end - from).min(limits::FILL_SLICE_BYTES as u64);
        disk.write_at(segment.file, from, ZEROS.first(length as usize))?;
        from += length;
    }
    disk.sync(segment.file)?;
    Ok(cut)
}

/// Writes the last whole write once more and syncs it, before it counts: it may have been read from
/// memory that a failed sync of the last process had left there, marked as written.
fn make_durable(
    disk: &mut dyn Disk,
    segments: &[Segment],
    replay: &Replay,
) -> Result<(), StorageError> {
    let Some((number, start, end)) = replay.last_place else {
        return Ok(());
    };
    reached(Mark::TailRewritten);
    let segment = &segments[number];
    let start = start - start % BLOCK_BYTES as u64;
    let end = end.next_multiple_of(BLOCK_BYTES as u64);
    let mut bytes = vec![0; (end - start) as usize];
    disk.read_at(segment.file, start, &mut bytes)?;
    disk.write_at(segment.file, start, &bytes)?;
    disk.sync(segment.file)?;
    Ok(())
}
