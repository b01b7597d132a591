//! Recovery: what a log says after a stop of any kind, or why it cannot be believed.
//!
//! A write counts only as a whole. Bytes that are no record, with nothing valid of a later write
//! behind them, are the last write, torn by a crash; it was never acknowledged, and is cut away.
//! Anything else is corruption, named by file and offset. Called when a directory is opened, by
//! [`super::Storage`]. Never skips a record.
//!
//! **With a snapshot**, the state is the snapshot and the log's entries behind it. These steps
//! change the directory, and each begins only when the one before it is durable:
//!
//! 1. A snapshot gets its name: its file was synced before, so a name stands for a whole file.
//! 2. An installed one replaces the log: `Reset` is written, in the order of all log writes.
//! 3. Segments are removed, the oldest first, each removal durable before the next: only such as
//!    hold nothing above the older of the two kept snapshots (the only one, where there is one), or
//!    that a durable `Reset` has made void, and whose successor says durably what came before it,
//!    and term and vote.
//! 4. Snapshots before the newest two are removed, in any order.
//!
//! So a crash leaves one of these, and each has one meaning:
//!
//! - A temporary file: it never counted, and goes.
//! - A snapshot whose last entry the log has, in the same term: what follows on it in the log
//!   stays. The crash came before, between or after removals, which leave the log's end in one
//!   piece; it begins at or before the snapshot's end, or something else than a crash took away
//!   what was between: corruption.
//! - A snapshot whose last entry the log doesn't have, because it ends before it or has another
//!   entry there: the crash came before `Reset` was durable, or (an own snapshot) before the
//!   entries were. Of the log behind it nothing was committed (§3.5: that would follow on the
//!   snapshot's entry), and nothing else can become so. `Reset` is written now, as it would have
//!   been (§7 of the paper on Raft), before anything is acknowledged.
//! - A snapshot of a later term than the log's: the term had begun, and no vote was given in it, or
//!   it would be in the log, durably, before it was sent.
//! - `Reset` without its snapshot: not a crash, as it was written when that was durable.
//! - A newest snapshot that is damaged, which is not a crash either: the one before it takes its
//!   place if the log has all entries behind that, up to the damaged one's last entry, in its term.
//!   Then nothing is lost that the damaged one vouched for. Else it is corruption.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::buffer::{BLOCK_BYTES, ZEROS};
use super::compaction::Held;
use super::disk::{Disk, FileId, FileKind};
use super::error::StorageError;
use super::replay::Replay;
use super::scan::{self, Behind};
use super::segment::{self, FIRST_RECORD, Owner, Segment};
use super::shelf::{self, Shelf};
use super::terms::Terms;
use crate::limits;
use crate::proto::entry::{Entry, HardState};
use crate::proto::record::RecordError;
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Boot, LogIndex, SnapshotId};

/// A recovered log: what it says, and where it goes on.
pub struct RecoveredLog {
    /// The entries behind the snapshot, or from index 1.
    pub entries: Vec<Entry>,
    /// What the log on the disk has, the reset that is due left out.
    pub terms: Terms,
    /// The log on the disk doesn't follow on the snapshot: this reset is the next thing to write.
    pub reset_due: Option<SnapshotId>,
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
    /// What the segments before the current one hold, and what it does itself.
    pub passed: VecDeque<Held>,
    /// See there.
    pub current_held: Held,
    /// A clean stop has sealed it.
    pub is_sealed: bool,
    /// The last write, if it was torn.
    pub torn: Option<Torn>,
}

/// A last write that a crash has torn: it was never acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torn {
    /// Its number.
    pub write: u64,
    /// Where it begins: the log is cut off there.
    pub cut: u64,
    /// Where the records stop.
    pub at: u64,
    /// Zeros are written up to here.
    end: u64,
    /// What is there instead of a record.
    pub what: String,
}

/// A log's directory, and what is known of it before it is read.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it is.
    pub log: PathBuf,
    /// That directory, open.
    pub names: FileId,
    /// Whose it is.
    pub owner: Owner,
    /// The boot counter before this start.
    pub boot: Boot,
    /// The size of a new segment.
    pub segment_bytes: u64,
}

/// Reads the log's directory; `shelf` is what was found of snapshots.
///
/// # Errors
/// The disk's; [`StorageError::Corrupt`] and [`StorageError::Foreign`].
pub fn recover(
    disk: &mut dyn Disk,
    place: &Place,
    shelf: &Shelf,
) -> Result<RecoveredLog, StorageError> {
    let mut segments = Vec::new();
    let read = read(disk, place, shelf, &mut segments);
    if read.is_err() {
        // The process may go on, with these files under other names.
        segments.into_iter().for_each(|segment| disk.close(segment.file));
    }
    read
}

fn read(
    disk: &mut dyn Disk,
    place: &Place,
    shelf: &Shelf,
    segments: &mut Vec<Segment>,
) -> Result<RecoveredLog, StorageError> {
    let Place { log, names, owner, boot, segment_bytes } = place;
    let (names, owner, boot) = (*names, *owner, *boot);
    let snapshot = shelf.newest_id();
    open_all(disk, log, owner, snapshot.is_some(), segments)?;
    if segments.is_empty() {
        if boot > Boot::ZERO {
            let first = segment::path(log, 1);
            return Err(StorageError::corrupt(&first, 0, "the log's segments are missing"));
        }
        segments.push(segment::create(disk, log, names, 1, *segment_bytes, owner)?);
    }
    // A crash may have left a name that isn't durable yet.
    disk.sync(names)?;
    let mut replay = Replay::new(snapshot.unwrap_or_default().index);
    let mut current = 0;
    let (at, why) = loop {
        let stop = replay.read_segment(disk, &segments[current], current)?;
        if !replay.continues {
            break stop;
        }
        expect_blank(disk, &segments[current], stop.0)?;
        current += 1;
        if current == segments.len() {
            let number = segments[0].key.number + current as u64;
            let missing = segment::path(log, number);
            let what = "the segment is missing: the one before it says that it follows";
            return Err(StorageError::corrupt(&missing, 0, what));
        }
    };
    expect_unused(disk, segments, current, at)?;
    let was_sealed = replay.sealed == Some(boot);
    if was_sealed {
        reached(Mark::SealFound);
    }
    let reset_due = follow_on(log, &segments[0], &mut replay, shelf)?;
    let segment = &segments[current];
    let torn = judge_tail(disk, segment, &mut replay, at, why, was_sealed)?;
    let position = match &torn {
        Some(torn) => torn.cut_off(disk, segment)?,
        None => at,
    };
    if !was_sealed {
        make_durable(disk, segments, &replay)?;
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
    let current_held = replay.held.pop().expect("it was read");
    Ok(RecoveredLog {
        entries: replay.entries,
        terms: replay.terms,
        reset_due,
        hard_state: replay.hard_state,
        last_write: replay.last_write.expect("a first segment without a record was refused"),
        current,
        position,
        tail,
        next,
        passed: replay.held.into(),
        current_held,
        is_sealed: was_sealed,
        torn,
    })
}

/// Removes temporary files and opens all segments, which must be numbered without a gap: from 1, if
/// no snapshot covers what is gone.
fn open_all(
    disk: &mut dyn Disk,
    log: &Path,
    owner: Owner,
    has_snapshot: bool,
    segments: &mut Vec<Segment>,
) -> Result<(), StorageError> {
    for (name, kind) in disk.list(log)? {
        match segment::number(&name) {
            Some(_) => {}
            None if name.ends_with(".tmp") && kind == FileKind::Regular => {
                disk.remove(&log.join(name))?;
            }
            None => log::warn!("{} is no segment of the log: left alone", log.join(name).display()),
        }
    }
    let numbers = segment::numbers(disk, log)?;
    let first = numbers.first().copied().filter(|_| has_snapshot).unwrap_or(1);
    for (number, expected) in numbers.into_iter().zip(first..) {
        if number != expected {
            let missing = segment::path(log, expected);
            let what = format!("the segment is missing, and {number:016x}.wal is there");
            return Err(StorageError::corrupt(&missing, 0, what));
        }
        let segment = segment::open(disk, log, number, owner)?;
        let (file, capacity) = (segment.file, segment.capacity);
        segments.push(segment);
        // Where the filesystem makes no promise, this asks for one and changes nothing else.
        if !disk.allocate(file, capacity)? {
            let segment = segments.last_mut().expect("just pushed");
            segment.promised = segment.filled;
        }
    }
    Ok(())
}

/// Brings snapshot and log together; the reset that is due, if the log doesn't follow on.
fn follow_on(
    log: &Path,
    first: &Segment,
    replay: &mut Replay,
    shelf: &Shelf,
) -> Result<Option<SnapshotId>, StorageError> {
    let number = first.key.number;
    if replay.last_write.is_none() {
        let what = "it is the log's first segment, and holds no whole write";
        return Err(StorageError::corrupt(&first.path, FIRST_RECORD, what));
    }
    let snapshot = shelf.newest_id().unwrap_or_default();
    let base = replay.terms.base();
    // What a damaged snapshot vouched for must be in the log to the end.
    for damaged in &shelf.damaged {
        let id = damaged.id;
        if base > snapshot.index || replay.terms.term_at(id.index) != Some(id.term) {
            return Err(shelf.refusal(damaged));
        }
    }
    if base > snapshot.index {
        let (missing, what) = match replay.reset.filter(|reset| reset.index == base) {
            Some(reset) => (shelf::path(&shelf.directory, reset), "the snapshot is missing"),
            None => (segment::path(log, number - 1), "the segment is missing"),
        };
        let what = format!(
            "{what}: the log begins with entry {}, and what there is of snapshots ends with {}",
            base.next(),
            snapshot.index
        );
        return Err(StorageError::corrupt(&missing, 0, what));
    }
    if shelf.newest_id().is_none() {
        return Ok(None);
    }
    match replay.terms.term_at(snapshot.index) {
        Some(term) if term == snapshot.term => return Ok(None),
        _ if base == snapshot.index => {
            let what = format!(
                "the log begins behind entry {base} of another term than that of snapshot {}",
                shelf::name(snapshot)
            );
            return Err(StorageError::corrupt(&first.path, FIRST_RECORD, what));
        }
        _ => {}
    }
    if replay.terms.last() > LogIndex::ZERO {
        log::warn!(
            "the log has not the last entry of snapshot {}: it goes on behind that, and what it \
             has from entry {} to {} is given up",
            shelf::name(snapshot),
            base.next(),
            replay.terms.last()
        );
    }
    replay.entries.clear();
    Ok(Some(snapshot))
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

/// Tells a torn last write from the log's end (`None`) and from corruption.
fn judge_tail(
    disk: &mut dyn Disk,
    segment: &Segment,
    replay: &mut Replay,
    at: u64,
    why: Option<RecordError>,
    was_sealed: bool,
) -> Result<Option<Torn>, StorageError> {
    // One write is under way at a time: of the one after the last whole write a part may be there,
    // but if a yet later one left a trace, this one had been acknowledged.
    let write = replay.last_write.unwrap_or(0) + 1;
    let behind = scan::behind(disk, segment, at, write)?;
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
        return Ok(None);
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
    let end = end.max(at.next_multiple_of(BLOCK_BYTES as u64)).min(segment.capacity);
    Ok(Some(Torn { write, cut, at, end, what }))
}

impl Torn {
    /// Cuts it off, durably; returns where the next write goes.
    fn cut_off(&self, disk: &mut dyn Disk, segment: &Segment) -> Result<u64, StorageError> {
        let Torn { write, cut, at, end, what } = self;
        log::warn!(
            "{}: write {write} was torn by a crash ({what} at offset {at}); it was never \
             acknowledged, and is cut off at offset {cut}",
            segment.path.display()
        );
        if is_on(Mutation::TornTailStays) {
            return Ok(*cut);
        }
        let mut from = *cut;
        while from < *end {
            let length = (end - from).min(limits::FILL_SLICE_BYTES as u64);
            disk.write_at(segment.file, from, ZEROS.first(length as usize))?;
            from += length;
        }
        disk.sync(segment.file)?;
        Ok(*cut)
    }
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
