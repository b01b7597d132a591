//! A disk whose changes go nowhere: what a start does to a directory, without doing it.
//!
//! `raftkvd verify` and `inspect` run the recovery that a start runs, on this. Called by
//! [`super::inspection`]. Never writes, makes, renames or removes anything, and pretends that it did.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::disk::{Disk, Done, FileId, FileKind, Open, Operation, Outcome, Token};
use super::error::DiskError;

/// What stands for a file or a directory that would have been made, or is only to be synced.
const NOTHING: FileId = FileId(usize::MAX);

/// Another disk, to be looked at.
pub struct ReadOnly<D> {
    inner: D,
    done: Vec<Done>,
}

impl<D: Disk> ReadOnly<D> {
    /// Looks at that one.
    pub fn new(inner: D) -> ReadOnly<D> {
        ReadOnly { inner, done: Vec::new() }
    }
}

impl<D: Disk> Disk for ReadOnly<D> {
    fn create_directory(&mut self, _: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn list(&mut self, path: &Path) -> Result<Vec<(String, FileKind)>, DiskError> {
        // A start would have made it.
        match self.inner.kind(path)? {
            None => Ok(Vec::new()),
            Some(_) => self.inner.list(path),
        }
    }

    fn kind(&mut self, path: &Path) -> Result<Option<FileKind>, DiskError> {
        self.inner.kind(path)
    }

    fn open(&mut self, path: &Path, how: Open) -> Result<FileId, DiskError> {
        match how {
            Open::Existing | Open::Segment | Open::ReadOnly => {
                self.inner.open(path, Open::ReadOnly)
            }
            Open::New | Open::NewSegment | Open::Directory => Ok(NOTHING),
        }
    }

    fn close(&mut self, file: FileId) {
        if file != NOTHING {
            self.inner.close(file);
        }
    }

    fn length(&mut self, file: FileId) -> Result<u64, DiskError> {
        if file == NOTHING { Ok(0) } else { self.inner.length(file) }
    }

    fn read_some_at(
        &mut self,
        file: FileId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, DiskError> {
        if file == NOTHING { Ok(0) } else { self.inner.read_some_at(file, offset, out) }
    }

    fn write_at(&mut self, _: FileId, _: u64, _: &[u8]) -> Result<(), DiskError> {
        Ok(())
    }

    fn allocate(&mut self, _: FileId, _: u64) -> Result<bool, DiskError> {
        Ok(true)
    }

    fn sync(&mut self, _: FileId) -> Result<(), DiskError> {
        Ok(())
    }

    fn rename(&mut self, _: &Path, _: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn remove(&mut self, _: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn random(&mut self) -> Result<u64, DiskError> {
        self.inner.random()
    }

    fn submit(&mut self, token: Token, _: Operation) -> Result<(), DiskError> {
        self.done.push(Done { token, result: Ok(Outcome::Done) });
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Done>) -> Result<(), DiskError> {
        done.append(&mut self.done);
        Ok(())
    }

    fn wait(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn completion_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
