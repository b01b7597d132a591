//! Files that are no longer wanted, removed one after the other; the space of a large one in steps.
//!
//! Called by [`super::snapshots`]. To remove a gigabyte at once keeps a filesystem from all else for
//! as long as that takes, the log's syncs included. So a large file loses its name first, durably,
//! while it is held open; then its space is given back piece by piece, each of them durably before
//! the next, which lets others in between. Whatever a crash interrupts is whole or has no name.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::disk::{Disk, FileId, Open, Operation, Outcome, Token};
use super::error::{DiskError, StorageError};
use super::snapshot_reads::opened;
use crate::limits;

/// A file that is to go.
struct Unwanted {
    path: PathBuf,
    /// Bytes that were written to it.
    length: u64,
    /// If it is open already: it is the sweep's to close.
    file: Option<FileId>,
}

/// The operation that is under way.
enum Step {
    Open,
    Remove,
    Names,
    /// Space is given back, up to here.
    Release {
        through: u64,
    },
    Sync {
        through: u64,
    },
}

/// The files that are to go, and how far the first of them is gone.
pub struct Sweep {
    names: FileId,
    queue: VecDeque<Unwanted>,
    under_way: Option<Step>,
    is_stopped: bool,
}

impl Sweep {
    /// For a directory, open as `names`.
    pub fn new(names: FileId) -> Sweep {
        Sweep { names, queue: VecDeque::new(), under_way: None, is_stopped: false }
    }

    /// The file at `path`, of `length` bytes, is no longer wanted, nor what it is open as.
    pub fn push(&mut self, path: PathBuf, length: u64, file: Option<FileId>) {
        self.queue.push_back(Unwanted { path, length, file });
    }

    /// Begins no further step. The names that are left go when the directory is opened again, and
    /// the space of what has none with this process.
    pub fn stop(&mut self) {
        self.queue.clear();
        self.is_stopped = true;
    }

    /// Whether an operation is under way.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins with the next file unless one is on its way out. Whether the removal of a small one is
    /// durable is all the same: what a crash brings back goes when the directory is opened again.
    ///
    /// # Errors
    /// The disk's.
    pub fn go_on(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        if self.under_way.is_some() || self.is_stopped {
            return Ok(());
        }
        let Some(next) = self.queue.front_mut() else {
            return Ok(());
        };
        let is_small = next.length <= limits::SWEEP_STEP_BYTES;
        if let Some(file) = next.file.take_if(|_| is_small) {
            disk.close(file);
        }
        let path = next.path.clone();
        match is_small || next.file.is_some() {
            true => self.begin(disk, Step::Remove, Operation::Remove { path }),
            false => self.begin(disk, Step::Open, Operation::Open { path, how: Open::Existing }),
        }
    }

    fn begin(
        &mut self,
        disk: &mut dyn Disk,
        step: Step,
        operation: Operation,
    ) -> Result<(), StorageError> {
        assert!(self.under_way.is_none(), "one step at a time");
        self.under_way = Some(step);
        Ok(disk.submit(Token::Sweep, operation)?)
    }

    /// A step has ended.
    ///
    /// # Errors
    /// The disk's. That space cannot be given back in parts is none: it goes all at once.
    pub fn ended(
        &mut self,
        disk: &mut dyn Disk,
        result: Result<Outcome, DiskError>,
    ) -> Result<(), StorageError> {
        let step = self.under_way.take().expect("only a step that is under way ends");
        let Some(first) = self.queue.front_mut() else {
            // A stop has emptied the queue meanwhile.
            result?;
            return Ok(());
        };
        match (step, first.file) {
            (Step::Open, _) => {
                first.file = Some(opened(result?));
                self.go_on(disk)
            }
            (Step::Remove, None) => {
                result?;
                self.end_first(disk)
            }
            (Step::Remove, Some(_)) => {
                result?;
                let file = self.names;
                self.begin(disk, Step::Names, Operation::SyncDirectory { file })
            }
            (Step::Names, Some(file)) => {
                result?;
                self.release(disk, file, 0)
            }
            (Step::Release { through }, Some(file)) => match result {
                // The filesystem can't, or has no space to note it: what is left goes at once.
                Err(error) if error.is_full() || error.is_unsupported() => self.end_first(disk),
                result => {
                    result?;
                    self.begin(disk, Step::Sync { through }, Operation::SyncFile { file })
                }
            },
            (Step::Sync { through }, Some(file)) => {
                result?;
                self.release(disk, file, through)
            }
            (Step::Names | Step::Release { .. } | Step::Sync { .. }, None) => {
                unreachable!("a file whose space is given back in steps is open")
            }
        }
    }

    fn release(
        &mut self,
        disk: &mut dyn Disk,
        file: FileId,
        offset: u64,
    ) -> Result<(), StorageError> {
        let all = self.queue.front().map_or(0, |first| first.length);
        let length = (all - offset).min(limits::SWEEP_STEP_BYTES);
        if length == 0 {
            return self.end_first(disk);
        }
        let step = Step::Release { through: offset + length };
        self.begin(disk, step, Operation::Release { file, offset, length })
    }

    fn end_first(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        let first = self.queue.pop_front();
        if let Some(file) = first.and_then(|first| first.file) {
            disk.close(file);
        }
        self.go_on(disk)
    }
}
