//! What a stopped data directory holds, and what a start would do with it.
//!
//! Design page 3 §2: it tells the truth, with the offset of the first bad byte. It runs the recovery
//! of a start on a disk whose changes go nowhere ([`super::read_only`]), so it cannot say anything
//! else than a start would; beyond that it reads what a start skips. Called by `raftkvd verify` and
//! `inspect`. Never changes anything, and never looks at a directory that is in use.

use std::path::{Path, PathBuf};

use super::aside::{self, Fate};
use super::disk::{Disk, FileKind, Open};
use super::error::{DiskError, StorageError};
use super::meta::{self, Meta, Standing};
use super::read_only::ReadOnly;
use super::real::RealDisk;
use super::recovery::Torn;
use super::scan::{Records, Step};
use super::segment::{self, Owner, Segment};
use super::{Options, lock, read_files, replay, shelf};
use crate::config::SyncMode;
use crate::limits;
use crate::proto::entry::HardState;
use crate::proto::record::{Body, Record};
use crate::proto::snapshot::SnapshotHeader;
use crate::types::{Boot, LogIndex, SnapshotId};

/// All that is to be said of a data directory.
#[derive(Debug)]
pub struct Report {
    /// The directory.
    pub dir: PathBuf,
    /// Whose it is; nothing where the meta file is missing or damaged.
    pub meta: Option<Meta>,
    /// Each file, in the order in which a start reads them.
    pub files: Vec<FileReport>,
    /// The snapshots, oldest first.
    pub snapshots: Vec<SnapshotReport>,
    /// The segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// What a start would do.
    pub start: Start,
}

/// A file.
#[derive(Debug)]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// Its length; 0 where there is none.
    pub bytes: u64,
    /// Whether it is what was written.
    pub verdict: Verdict,
}

/// Whether a file is what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is.
    Sound,
    /// Its end is a write that a crash has torn, and that was never acknowledged: a start cuts it
    /// off at `offset`.
    Torn {
        /// Where it is cut off.
        offset: u64,
        /// What is there.
        what: String,
    },
    /// It is not.
    Bad {
        /// The first bad byte.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A leftover, which a start removes.
    Leftover,
    /// It cannot be told, because the meta file doesn't say whose it is.
    NotRead,
}

/// A snapshot's header, and whether the file is whole.
#[derive(Debug)]
pub struct SnapshotReport {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it begins with, if that can be read.
    pub header: Option<SnapshotHeader>,
    /// What is wrong with it, if anything is.
    pub error: Option<StorageError>,
}

/// What the readable records of a segment say.
#[derive(Debug)]
pub struct SegmentReport {
    /// Its number.
    pub number: u64,
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where its records stop.
    pub used: u64,
    /// How many there are.
    pub records: u64,
    /// The first and the last entry in it, by their places in the file.
    pub entries: Option<(SnapshotId, SnapshotId)>,
    /// The last term and vote in it.
    pub hard_state: Option<HardState>,
    /// The process that ended cleanly behind its last record.
    pub sealed: Option<Boot>,
    /// Whether it says that the next segment follows.
    pub continues: bool,
}

/// What a start would do with the directory.
#[derive(Debug)]
pub enum Start {
    /// It goes on with all that was acknowledged.
    Recovers {
        /// The snapshot that it begins with.
        snapshot: Option<SnapshotId>,
        /// The log's last entry, or the snapshot's.
        last: LogIndex,
        /// Term and vote.
        hard_state: HardState,
        /// The log was sealed by a clean stop.
        is_sealed: bool,
    },
    /// It sets the files aside, and the server must be admitted again.
    SetsAside {
        /// Where to.
        kept: PathBuf,
        /// Why.
        why: String,
    },
    /// It doesn't start.
    Refuses {
        /// Why not.
        error: StorageError,
        /// What else it would say.
        hint: String,
    },
}

impl Report {
    /// The first bad byte, as a start names it.
    pub fn first_bad(&self) -> Option<(&Path, u64, &str)> {
        if let Start::Refuses { error, .. } = &self.start
            && let Some(place) = place(error)
        {
            return Some(place);
        }
        self.files.iter().find_map(|file| match &file.verdict {
            Verdict::Bad { offset, what } => Some((&*file.path, *offset, &**what)),
            _ => None,
        })
    }
}

/// The file, the offset and what is wrong there.
fn place(error: &StorageError) -> Option<(&Path, u64, &str)> {
    match error {
        StorageError::Corrupt { file, offset, what }
        | StorageError::Foreign { file, offset, what } => Some((file, *offset, what)),
        _ => None,
    }
}

/// Looks at a directory that no process uses.
///
/// # Errors
/// It is in use, cannot be read, or is no data directory.
pub fn inspect(dir: &Path) -> Result<Report, StorageError> {
    let _lock = lock::look(dir)?;
    inspect_on(&mut ReadOnly::new(RealDisk::blocking(dir)?), dir)
}

/// Calls `each` with the segment, the offset and the record for all records that can be read.
///
/// # Errors
/// As [`inspect`]; the meta file's.
pub fn records(dir: &Path, mut each: impl FnMut(u64, u64, &Record)) -> Result<(), StorageError> {
    let _lock = lock::look(dir)?;
    let disk = &mut ReadOnly::new(RealDisk::blocking(dir)?);
    let meta = Meta::read(disk, dir)?.ok_or_else(|| not_there(dir))?;
    let log = dir.join("log");
    for number in segment::numbers(disk, &log)? {
        if let Ok(segment) = segment::open(disk, &log, number, Owner::of(&meta)) {
            read_segment(disk, &segment, &mut |at, record| each(number, at, record))?;
            disk.close(segment.file);
        }
    }
    Ok(())
}

/// Reads a snapshot's file, wherever it is, to its end.
///
/// # Errors
/// The disk's. What is wrong with the snapshot is in the report.
pub fn snapshot(path: &Path) -> Result<SnapshotReport, StorageError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let disk = RealDisk::blocking(directory.unwrap_or(Path::new(".")))?;
    read_snapshot(&mut ReadOnly::new(disk), path)
}

fn read_snapshot(disk: &mut dyn Disk, path: &Path) -> Result<SnapshotReport, StorageError> {
    let (header, error) = match shelf::read(disk, path) {
        Ok((header, _)) => (Some(header), None),
        Err(error @ StorageError::Disk(_)) => return Err(error),
        Err(error) => (shelf::read_header(disk, path).ok(), Some(error)),
    };
    Ok(SnapshotReport { path: path.to_path_buf(), bytes: length(disk, path)?, header, error })
}

fn not_there(dir: &Path) -> StorageError {
    let source = std::io::Error::from(std::io::ErrorKind::NotFound);
    DiskError::new("open", &meta::path(dir), source).into()
}

/// The same as [`inspect`] on any disk that is not to be changed.
///
/// # Errors
/// The disk's, or it is no data directory.
pub fn inspect_on(disk: &mut dyn Disk, dir: &Path) -> Result<Report, StorageError> {
    let mut report = Report {
        dir: dir.to_path_buf(),
        meta: None,
        files: Vec::new(),
        snapshots: Vec::new(),
        segments: Vec::new(),
        start: Start::SetsAside { kept: PathBuf::new(), why: String::new() },
    };
    let (log, snap) = (dir.join("log"), dir.join("snap"));
    let numbers = segment::numbers(disk, &log)?;
    let ids = shelf::ids(disk, &snap)?;
    let meta = match Meta::read(disk, dir) {
        Ok(None) if numbers.is_empty() && ids.is_empty() => return Err(not_there(dir)),
        Ok(None) => Err(StorageError::corrupt(&meta::path(dir), 0, "the file is missing")),
        Ok(Some(meta)) => Ok(meta),
        Err(error @ StorageError::Disk(_)) => return Err(error),
        Err(error) => Err(error),
    };
    let path = meta::path(dir);
    let verdict = meta.as_ref().err().map_or(Verdict::Sound, bad);
    report.files.push(FileReport { bytes: length(disk, &path)?, path, verdict });
    let segments = numbers.iter().map(|number| segment::path(&log, *number));
    let all: Vec<PathBuf> = ids.iter().map(|id| shelf::path(&snap, *id)).chain(segments).collect();
    let meta = match meta {
        Ok(meta) => meta,
        Err(error) => {
            for path in all {
                let (bytes, verdict) = (length(disk, &path)?, Verdict::NotRead);
                report.files.push(FileReport { path, bytes, verdict });
            }
            let hint = "whose directory this is cannot be told".to_owned();
            report.start = Start::Refuses { error, hint };
            return Ok(report);
        }
    };
    let outcome = recover(disk, dir, &meta, &mut report.start);
    for id in ids {
        let one = read_snapshot(disk, &shelf::path(&snap, id))?;
        let other = one.header.as_ref().filter(|header| {
            one.error.is_none() && (header.id != id || header.cluster != meta.cluster)
        });
        let verdict = match (&one.error, other) {
            (Some(error), _) => bad(error),
            (None, Some(_)) => {
                Verdict::Bad { offset: 0, what: "another snapshot under its name".to_owned() }
            }
            (None, None) => Verdict::Sound,
        };
        report.files.push(FileReport { path: one.path.clone(), bytes: one.bytes, verdict });
        report.snapshots.push(one);
    }
    for number in numbers {
        let verdict = add_segment(disk, &log, number, &meta, &mut report.segments)?;
        let path = segment::path(&log, number);
        report.files.push(FileReport { bytes: length(disk, &path)?, path, verdict });
    }
    settle(&mut report.files, outcome);
    add_leftovers(disk, dir, &mut report.files)?;
    report.meta = Some(meta);
    Ok(report)
}

/// What a start's recovery says: what it would do into `start`, and what is wrong or torn where.
fn recover(
    disk: &mut dyn Disk,
    dir: &Path,
    meta: &Meta,
    start: &mut Start,
) -> Result<Option<(PathBuf, Torn)>, StorageError> {
    let options = Options {
        dir: dir.to_path_buf(),
        cluster: meta.cluster_name.clone(),
        server: meta.server,
        // The configuration isn't known: it can only say of fewer directories that all is lost.
        has_others: false,
        sync: SyncMode::Thread,
        segment_bytes: limits::SEGMENT_BYTES_MIN,
    };
    let read = read_files(disk, &options, meta);
    let aside = match &meta.standing {
        Standing::OldCopy => aside::free_number(disk, &options)?.map(|number| {
            let why = "a peer has met a later state of this data directory: it is an old copy";
            (number, why.to_owned())
        }),
        Standing::SettingAside(aside) => Some((aside.number, aside.why.clone())),
        Standing::Sound | Standing::Recovering(_) => None,
    };
    if let Some((number, why)) = aside {
        *start = Start::SetsAside { kept: aside::path(dir, number), why };
        return read.map(|_| None);
    }
    match read {
        Ok((shelf, _, found)) => {
            let snapshot = shelf.newest_id();
            let term = snapshot.map(|id| id.term);
            let ends = found.entries.last().map(|entry| entry.index);
            *start = Start::Recovers {
                snapshot,
                last: ends.or(snapshot.map(|id| id.index)).unwrap_or_default(),
                hard_state: replay::with_term(found.hard_state.unwrap_or_default(), term),
                is_sealed: found.is_sealed,
            };
            let path = found.current.path.clone();
            Ok(found.torn.map(|torn| (path, torn)))
        }
        Err(error) => {
            let again =
                place(&error).map(|(file, offset, what)| StorageError::corrupt(file, offset, what));
            let fate = match &error {
                StorageError::Corrupt { .. } => Some(aside::fate(disk, &options, meta)?),
                _ => None,
            };
            *start = match fate {
                Some(Fate::SetAside(number)) => {
                    let why = error.to_string();
                    Start::SetsAside { kept: aside::path(dir, number), why }
                }
                Some(Fate::Refused(hint)) => Start::Refuses { error, hint },
                None => Start::Refuses { error, hint: String::new() },
            };
            match again {
                Some(again) => Err(again),
                None => Ok(None),
            }
        }
    }
}

fn bad(error: &StorageError) -> Verdict {
    match place(error) {
        Some((_, offset, what)) => Verdict::Bad { offset, what: what.to_owned() },
        None => Verdict::Bad { offset: 0, what: error.to_string() },
    }
}

/// What recovery has found comes first: it alone can tell a torn write from a bad one.
fn settle(files: &mut Vec<FileReport>, found: Result<Option<(PathBuf, Torn)>, StorageError>) {
    match found {
        Ok(None) => {}
        Ok(Some((path, torn))) => {
            let file = files.iter_mut().find(|file| file.path == path);
            let file = file.expect("the torn segment is one of the files");
            file.verdict = Verdict::Torn { offset: torn.cut, what: torn.what };
        }
        Err(error) => {
            let Some((path, offset, what)) = place(&error) else { return };
            let verdict = Verdict::Bad { offset, what: what.to_owned() };
            match files.iter_mut().find(|file| file.path == path) {
                Some(file) => file.verdict = verdict,
                None => files.push(FileReport { path: path.to_path_buf(), bytes: 0, verdict }),
            }
        }
    }
}

fn length(disk: &mut dyn Disk, path: &Path) -> Result<u64, StorageError> {
    if disk.kind(path)? != Some(FileKind::Regular) {
        return Ok(0);
    }
    let file = disk.open(path, Open::Existing)?;
    let length = disk.length(file);
    disk.close(file);
    Ok(length?)
}

/// Reads a segment as far as its records go. Whether its end is torn is recovery's to say.
fn add_segment(
    disk: &mut dyn Disk,
    log: &Path,
    number: u64,
    meta: &Meta,
    segments: &mut Vec<SegmentReport>,
) -> Result<Verdict, StorageError> {
    let segment = match segment::open(disk, log, number, Owner::of(meta)) {
        Ok(segment) => segment,
        Err(error @ StorageError::Disk(_)) => return Err(error),
        Err(error) => return Ok(bad(&error)),
    };
    let report = read_segment(disk, &segment, &mut |_, _| {})?;
    disk.close(segment.file);
    segments.push(report);
    Ok(Verdict::Sound)
}

fn read_segment(
    disk: &mut dyn Disk,
    segment: &Segment,
    each: &mut dyn FnMut(u64, &Record),
) -> Result<SegmentReport, StorageError> {
    let mut report = SegmentReport {
        number: segment.key.number,
        path: segment.path.clone(),
        bytes: segment.capacity,
        used: 0,
        records: 0,
        entries: None,
        hard_state: None,
        sealed: None,
        continues: false,
    };
    let mut records = Records::new(segment);
    while !report.continues {
        let Step::Record(record, at) = records.step(disk)? else { break };
        each(at, &record);
        report.records += 1;
        report.sealed = None;
        match &record.body {
            Body::Entry(entry) => {
                let id = SnapshotId { index: entry.index, term: entry.term };
                let (_, last) = report.entries.get_or_insert((id, id));
                *last = id;
            }
            Body::HardState(state) => report.hard_state = Some(*state),
            Body::Seal(boot) => report.sealed = Some(*boot),
            Body::Continues => report.continues = true,
            Body::Truncation(_) | Body::Reset(_) | Body::Continued(_) => {}
        }
    }
    report.used = records.at();
    Ok(report)
}

/// Temporary files, which count for nothing.
fn add_leftovers(
    disk: &mut dyn Disk,
    dir: &Path,
    files: &mut Vec<FileReport>,
) -> Result<(), StorageError> {
    for directory in [dir.to_path_buf(), dir.join("snap"), dir.join("log")] {
        if disk.kind(&directory)?.is_none() {
            continue;
        }
        for (name, kind) in disk.list(&directory)? {
            if name.ends_with(".tmp") && kind == FileKind::Regular {
                let path = directory.join(name);
                let bytes = length(disk, &path)?;
                files.push(FileReport { path, bytes, verdict: Verdict::Leftover });
            }
        }
    }
    Ok(())
}
