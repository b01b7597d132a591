//! Snapshot files while the node runs: written, made durable, read, and the older ones removed.
//!
//! Design page 3 §2 and §3. Called by [`super::Storage`]. One operation for each kind of snapshot is
//! under way at a time, and one of reading; nothing here blocks. A snapshot bears its final name only once all of its bytes are durable, and counts only once the name is. A full disk
//! is no error: the unfinished file goes, and the caller is told. Never looks into a snapshot.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::disk::{Disk, FileId, Open, Operation, Outcome, Token};
use super::error::{DiskError, StorageError};
use super::shelf::{self, Shelf};
use super::snapshot_reads::{Kept, PieceRead, Read, Reads, opened};
use super::sweep::Sweep;
use crate::limits;
use crate::types::{LogIndex, SnapshotId, SnapshotKind};

/// What became of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotEvent {
    /// Bytes were written, not durably: everything before this offset.
    Written {
        /// Whose work it is.
        kind: SnapshotKind,
        /// Which one.
        id: SnapshotId,
        /// The offset behind the last byte.
        through: u64,
    },
    /// The whole snapshot is durable under its name, or a newer one was before it came to that. It
    /// may still be said of one that was given up just before.
    Durable {
        /// Whose work it was.
        kind: SnapshotKind,
        /// Which one.
        id: SnapshotId,
    },
    /// The disk is full: the snapshot was given up.
    Full {
        /// Whose work it was.
        kind: SnapshotKind,
        /// Which one.
        id: SnapshotId,
    },
    /// A piece was read.
    Read {
        /// What was asked for.
        piece: PieceRead,
        /// All of its bytes, or `None` where there is no such snapshot any more.
        bytes: Option<Bytes>,
    },
}

/// The snapshot files of a directory.
pub struct Snapshots {
    directory: PathBuf,
    names: FileId,
    /// Durable under their names, oldest first.
    kept: Vec<Kept>,
    own: Slot,
    received: Slot,
    reads: Reads,
    sweep: Sweep,
    events: VecDeque<SnapshotEvent>,
    /// Makes the names of temporary files differ.
    begun: u64,
}

/// The one unfinished snapshot of a kind.
#[derive(Default)]
struct Slot {
    writing: Option<Writing>,
    under_way: Option<Step>,
}

struct Writing {
    id: SnapshotId,
    path: PathBuf,
    /// `None` until it is open.
    file: Option<FileId>,
    queue: VecDeque<Bytes>,
    /// Where the next bytes that are handed over belong.
    queued: u64,
    /// Where the next bytes that are written belong.
    written: u64,
    /// Bytes that were written since the last sync.
    unsynced: u64,
    /// The whole length, once it was said.
    length: Option<u64>,
}

/// The operation that is under way for a kind.
enum Step {
    Open,
    /// The opening of a file that was given up meanwhile.
    OrphanOpen {
        path: PathBuf,
    },
    Write {
        bytes: u64,
    },
    Sync,
    /// A write or sync of a file that was given up meanwhile.
    Orphan,
    /// The file is being renamed. It can't be given up any more.
    Rename {
        id: SnapshotId,
        length: u64,
        file: FileId,
        path: PathBuf,
    },
    /// The name is being made durable.
    Name {
        id: SnapshotId,
        length: u64,
    },
}

impl Slot {
    /// The file at `path` is given up: what is under way for it is nobody's.
    fn orphan(&mut self, path: &Path) {
        self.under_way = match self.under_way.take() {
            Some(Step::Open) => Some(Step::OrphanOpen { path: path.to_path_buf() }),
            Some(Step::Write { .. } | Step::Sync) => Some(Step::Orphan),
            other => other,
        };
    }
}

impl Snapshots {
    /// With what was found when the directory was opened.
    pub fn new(shelf: Shelf) -> Snapshots {
        let newest = shelf.newest.iter().map(|(header, length)| (header.id, *length));
        let kept = shelf.older.into_iter().chain(newest);
        let mut snapshots = Snapshots {
            directory: shelf.directory,
            names: shelf.names,
            kept: kept.map(|(id, length)| Kept { id, length, file: None }).collect(),
            own: Slot::default(),
            received: Slot::default(),
            reads: Reads::default(),
            sweep: Sweep::new(shelf.names),
            events: VecDeque::new(),
            begun: 0,
        };
        snapshots.drop_surplus();
        snapshots
    }

    /// Those before the newest two are no longer wanted.
    fn drop_surplus(&mut self) {
        let surplus = self.kept.len().saturating_sub(limits::SNAPSHOTS_KEPT);
        for old in self.kept.drain(..surplus) {
            self.sweep.push(shelf::path(&self.directory, old.id), old.length, old.file);
        }
    }

    /// The snapshots that are durable, oldest first, with their lengths in bytes.
    pub fn kept(&self) -> impl Iterator<Item = (SnapshotId, u64)> {
        self.kept.iter().map(|kept| (kept.id, kept.length))
    }

    /// Up to where the log may be compacted: the end of the second newest snapshot, or of the only
    /// one, or nothing.
    pub fn covered(&self) -> LogIndex {
        let before_newest = self.kept.len().saturating_sub(2);
        self.kept.get(before_newest).map_or(LogIndex::ZERO, |kept| kept.id.index)
    }

    /// What happened, oldest first.
    pub fn next_event(&mut self) -> Option<SnapshotEvent> {
        self.events.pop_front()
    }

    /// Whether something happened that was not yet taken.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    fn slot(&mut self, kind: SnapshotKind) -> &mut Slot {
        match kind {
            SnapshotKind::Own => &mut self.own,
            SnapshotKind::Received => &mut self.received,
        }
    }

    /// Takes bytes of a snapshot; offset 0 begins a new one and gives up an unfinished one.
    ///
    /// # Errors
    /// The disk's, unless it is full.
    pub fn write(
        &mut self,
        disk: &mut dyn Disk,
        kind: SnapshotKind,
        id: SnapshotId,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StorageError> {
        assert!(!bytes.is_empty(), "a slice has bytes");
        assert!(bytes.len() <= limits::SNAPSHOT_QUEUE_BYTES, "a slice is bounded");
        if offset == 0 {
            self.abandon(disk, kind)?;
            self.begin(kind, id);
        }
        let slot = self.slot(kind);
        let Some(writing) = slot.writing.as_mut().filter(|writing| writing.id == id) else {
            // It was given up, and the event that says so is on its way.
            return Ok(());
        };
        assert_eq!(writing.queued, offset, "a snapshot is written without gaps");
        assert!(writing.length.is_none(), "nothing follows on the end");
        writing.queued += bytes.len() as u64;
        writing.queue.push_back(bytes);
        let waiting = writing.queued - writing.written;
        assert!(waiting <= limits::SNAPSHOT_QUEUE_BYTES as u64, "bounded: the caller waits");
        self.go_on(disk, kind)
    }

    fn begin(&mut self, kind: SnapshotKind, id: SnapshotId) {
        self.begun += 1;
        let name = format!("{}.{}.tmp", shelf::name(id), self.begun);
        let path = self.directory.join(name);
        self.slot(kind).writing = Some(Writing {
            id,
            path,
            file: None,
            queue: VecDeque::new(),
            queued: 0,
            written: 0,
            unsynced: 0,
            length: None,
        });
    }

    /// All bytes of the snapshot were handed over, `length` of them: it is to become durable.
    ///
    /// # Errors
    /// The disk's, unless it is full.
    pub fn finish(
        &mut self,
        disk: &mut dyn Disk,
        kind: SnapshotKind,
        id: SnapshotId,
        length: u64,
    ) -> Result<(), StorageError> {
        let slot = self.slot(kind);
        let Some(writing) = slot.writing.as_mut().filter(|writing| writing.id == id) else {
            return Ok(());
        };
        assert_eq!(writing.queued, length, "a snapshot is finished when all of it was written");
        writing.length = Some(length);
        self.go_on(disk, kind)
    }

    /// Gives up the unfinished snapshot of this kind, if there is one.
    ///
    /// # Errors
    /// The disk's.
    pub fn abandon(&mut self, disk: &mut dyn Disk, kind: SnapshotKind) -> Result<(), StorageError> {
        let slot = self.slot(kind);
        let Some(writing) = slot.writing.take() else {
            return Ok(());
        };
        slot.orphan(&writing.path);
        let Some(file) = writing.file else {
            // Either it was never begun, or what opens it is about to see that nobody wants it.
            return Ok(());
        };
        // What is under way may still be written.
        self.sweep.push(writing.path, writing.queued, Some(file));
        self.sweep.go_on(disk)
    }

    /// Asks for a piece of a durable snapshot.
    ///
    /// # Errors
    /// The disk's; the file is shorter than it was.
    pub fn read(&mut self, disk: &mut dyn Disk, piece: PieceRead) -> Result<(), StorageError> {
        self.reads.push(piece);
        self.go_on_reading(disk)
    }

    /// A step of reading has ended.
    ///
    /// # Errors
    /// The disk's; the file is shorter than it was.
    pub fn read_ended(
        &mut self,
        disk: &mut dyn Disk,
        result: Result<Outcome, DiskError>,
    ) -> Result<(), StorageError> {
        let Snapshots { reads, events, kept, directory, .. } = self;
        let mut answers = |(piece, bytes): Read| {
            events.push_back(SnapshotEvent::Read { piece, bytes });
        };
        reads.ended(disk, directory, kept, result, &mut answers)?;
        self.go_on_reading(disk)
    }

    fn go_on_reading(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        let Snapshots { reads, events, kept, directory, .. } = self;
        let mut answers = |(piece, bytes): Read| {
            events.push_back(SnapshotEvent::Read { piece, bytes });
        };
        reads.go_on(disk, directory, kept, &mut answers)
    }

    /// Whether an operation of this part is under way.
    pub fn is_under_way(&self) -> bool {
        let is_writing = self.own.under_way.is_some() || self.received.under_way.is_some();
        is_writing || self.sweep.is_under_way() || self.reads.is_under_way()
    }

    /// A clean stop: what is unfinished is given up, and nothing more is begun. The files go when
    /// the directory is opened again.
    pub fn stop(&mut self) {
        self.sweep.stop();
        self.reads.stop();
        for slot in [&mut self.own, &mut self.received] {
            if let Some(writing) = slot.writing.take() {
                slot.orphan(&writing.path);
            }
        }
    }

    /// Starts the next operation of this kind if none is under way.
    fn go_on(&mut self, disk: &mut dyn Disk, kind: SnapshotKind) -> Result<(), StorageError> {
        let slot = self.slot(kind);
        let Some(writing) = slot.writing.as_mut().filter(|_| slot.under_way.is_none()) else {
            return Ok(());
        };
        let is_last_sync = writing.queue.is_empty() && writing.length.is_some();
        let is_sync_due = is_last_sync || writing.unsynced >= limits::SNAPSHOT_SYNC_BYTES;
        let (step, operation) = if writing.file.is_none() {
            (Step::Open, Operation::Open { path: writing.path.clone(), how: Open::New })
        } else if let Some(file) = writing.file.filter(|_| is_sync_due) {
            (Step::Sync, Operation::SyncFile { file })
        } else if let (Some(file), Some(bytes)) = (writing.file, writing.queue.pop_front()) {
            let step = Step::Write { bytes: bytes.len() as u64 };
            (step, Operation::Write { file, offset: writing.written, bytes })
        } else {
            return Ok(());
        };
        slot.under_way = Some(step);
        Ok(disk.submit(Token::Snapshot(kind), operation)?)
    }

    /// An operation of this kind has ended.
    ///
    /// # Errors
    /// The disk's, unless it is full.
    pub fn ended(
        &mut self,
        disk: &mut dyn Disk,
        kind: SnapshotKind,
        result: Result<Outcome, DiskError>,
    ) -> Result<(), StorageError> {
        let slot = self.slot(kind);
        let step = slot.under_way.take().expect("only an operation that is under way ends");
        let is_full = result.as_ref().is_err_and(DiskError::is_full);
        match (step, &mut slot.writing) {
            (Step::Orphan | Step::OrphanOpen { .. }, _) if is_full => {}
            (Step::Orphan, _) => drop(result?),
            (Step::OrphanOpen { path }, _) => {
                self.sweep.push(path, 0, Some(opened(result?)));
                self.sweep.go_on(disk)?;
            }
            (Step::Rename { id, length, file, path }, _) if is_full => {
                self.sweep.push(path, length, Some(file));
                self.sweep.go_on(disk)?;
                self.note_full(kind, id);
            }
            (Step::Rename { id, length, file, .. }, _) => {
                result?;
                disk.close(file);
                self.sync_name(disk, kind, id, length)?;
            }
            (Step::Name { id, length }, _) => {
                result?;
                self.keep(disk, id, length)?;
                self.events.push_back(SnapshotEvent::Durable { kind, id });
            }
            (_, None) => unreachable!("the operations of what was given up are orphans"),
            (Step::Open | Step::Write { .. } | Step::Sync, Some(_)) if is_full => {
                self.full(disk, kind)?;
            }
            (Step::Open, Some(writing)) => writing.file = Some(opened(result?)),
            (Step::Write { bytes }, Some(writing)) => {
                result?;
                writing.written += bytes;
                writing.unsynced += bytes;
                let (id, through) = (writing.id, writing.written);
                self.events.push_back(SnapshotEvent::Written { kind, id, through });
            }
            (Step::Sync, Some(writing)) => {
                result?;
                writing.unsynced = 0;
                if writing.queue.is_empty() && writing.length.is_some() {
                    self.name(disk, kind)?;
                }
            }
        }
        self.go_on(disk, kind)
    }

    /// Every byte is durable: the file takes its final name.
    fn name(&mut self, disk: &mut dyn Disk, kind: SnapshotKind) -> Result<(), StorageError> {
        let writing = self.slot(kind).writing.as_ref().expect("it was synced just now");
        let (id, length) = (writing.id, writing.written);
        assert_eq!(writing.length, Some(length), "all of it is there");
        if self.kept.last().is_some_and(|newest| newest.id > id) {
            // It came too late: a newer one is durable, which includes all that it does. It would
            // be the next to go, and its name might be that of a file that is about to.
            self.abandon(disk, kind)?;
            self.events.push_back(SnapshotEvent::Durable { kind, id });
            return Ok(());
        }
        if let Some(length) = self.named(id) {
            // Two nodes' files of one state may differ in their bytes, and the one that is there
            // may be being sent to a third: it stays.
            self.abandon(disk, kind)?;
            return self.sync_name(disk, kind, id, length);
        }
        let to = shelf::path(&self.directory, id);
        let slot = self.slot(kind);
        let Writing { path, file, .. } = slot.writing.take().expect("it was synced just now");
        let file = file.expect("what was synced is open");
        let operation = Operation::Rename { from: path.clone(), to };
        slot.under_way = Some(Step::Rename { id, length, file, path });
        Ok(disk.submit(Token::Snapshot(kind), operation)?)
    }

    /// The length of the snapshot that bears this name already, durably or not.
    fn named(&self, id: SnapshotId) -> Option<u64> {
        let being_named = [&self.own, &self.received].map(|slot| match &slot.under_way {
            Some(Step::Rename { id, length, .. } | Step::Name { id, length }) => {
                Some((*id, *length))
            }
            _ => None,
        });
        let mut named = self.kept().chain(being_named.into_iter().flatten());
        named.find(|(other, _)| *other == id).map(|(_, length)| length)
    }

    fn sync_name(
        &mut self,
        disk: &mut dyn Disk,
        kind: SnapshotKind,
        id: SnapshotId,
        length: u64,
    ) -> Result<(), StorageError> {
        let file = self.names;
        self.slot(kind).under_way = Some(Step::Name { id, length });
        Ok(disk.submit(Token::Snapshot(kind), Operation::SyncDirectory { file })?)
    }

    fn full(&mut self, disk: &mut dyn Disk, kind: SnapshotKind) -> Result<(), StorageError> {
        let writing = self.slot(kind).writing.as_ref().expect("it has found the disk full");
        let id = writing.id;
        self.abandon(disk, kind)?;
        self.note_full(kind, id);
        Ok(())
    }

    fn note_full(&mut self, kind: SnapshotKind, id: SnapshotId) {
        log::warn!("the disk is full: snapshot {} was given up", shelf::name(id));
        self.events.push_back(SnapshotEvent::Full { kind, id });
    }

    /// A snapshot is durable under its name: those before the newest two may go.
    fn keep(
        &mut self,
        disk: &mut dyn Disk,
        id: SnapshotId,
        length: u64,
    ) -> Result<(), StorageError> {
        if self.kept.iter().any(|kept| kept.id == id) {
            return Ok(());
        }
        let at = self.kept.partition_point(|kept| kept.id < id);
        self.kept.insert(at, Kept { id, length, file: None });
        self.drop_surplus();
        self.sweep.go_on(disk)
    }

    /// Goes on with the removal of files that are no longer wanted.
    ///
    /// # Errors
    /// The disk's.
    pub fn go_on_sweeping(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        self.sweep.go_on(disk)
    }

    /// A step of a removal has ended.
    ///
    /// # Errors
    /// The disk's.
    pub fn swept(
        &mut self,
        disk: &mut dyn Disk,
        result: Result<Outcome, DiskError>,
    ) -> Result<(), StorageError> {
        self.sweep.ended(disk, result)
    }
}
