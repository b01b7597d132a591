//! Every operation on files that the storage makes, as one trait.
//!
//! The log, meta and recovery stand on it and on nothing else, so that they run unchanged on a real
//! filesystem ([`super::real`]) and on a simulated one. Blocking operations are for the start, the
//! stop and rare changes; what happens while the node serves goes through [`Disk::submit`].

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::buffer::BlockBuffer;
use super::error::DiskError;
use crate::types::SnapshotKind;

/// An open file or directory of a [`Disk`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileId(pub usize);

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// Blocking reads and writes of a file that exists.
    Existing,
    /// Blocking reads of a file that exists, as the disk has it.
    ReadOnly,
    /// Blocking writes of a new file; what was there before is gone.
    New,
    /// A segment that exists: blocking operations and submitted ones. What is read is what the disk
    /// has: bytes that a failed sync of a former process has left in memory are dropped.
    Segment,
    /// A new segment; what was there before is gone.
    NewSegment,
    /// A directory, to sync it.
    Directory,
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// Anything else: a symbolic link, a pipe, a device.
    Other,
}

/// Which of the operations that may be under way has ended. One of each at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Token {
    /// A log write.
    Log,
    /// A slice of zeros.
    Fill,
    /// A step of making the next segment.
    Prepare,
    /// A step of removing segments that a snapshot covers.
    Compact,
    /// A step of writing a snapshot.
    Snapshot(SnapshotKind),
    /// A step of removing a snapshot file that is no longer wanted.
    Sweep,
    /// A step of reading a snapshot.
    Read,
}

/// An operation that doesn't block.
#[derive(Debug)]
pub enum Operation {
    /// Writes the blocks at `offset` and makes them durable, with the metadata that is needed to
    /// read them again.
    WriteDurable {
        /// A segment.
        file: FileId,
        /// A multiple of the block.
        offset: u64,
        /// What to write.
        blocks: BlockBuffer,
    },
    /// Writes zeros; durable whenever the disk likes.
    WriteZeros {
        /// A segment.
        file: FileId,
        /// A multiple of the block.
        offset: u64,
        /// A multiple of the block, at most
        /// [`FILL_SLICE_BYTES`](crate::limits::FILL_SLICE_BYTES).
        length: usize,
    },
    /// Writes bytes anywhere; durable whenever the disk likes.
    Write {
        /// A file that is no segment.
        file: FileId,
        /// Where the first byte goes.
        offset: u64,
        /// What to write, at least a byte and less than 2 GiB.
        bytes: Bytes,
    },
    /// Gives back the space of bytes, which are zeros from then on; durable once the file is synced.
    /// A filesystem may be unable to ([`DiskError::is_unsupported`]).
    Release {
        /// A file that is no segment.
        file: FileId,
        /// Of the first byte.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Makes a file's bytes durable, and its length.
    SyncFile {
        /// A file that is no segment.
        file: FileId,
    },
    /// Makes a directory's names durable.
    SyncDirectory {
        /// A directory.
        file: FileId,
    },
    /// Removes a file's name, and with it the file, which may take its time.
    Remove {
        /// The file.
        path: PathBuf,
    },
    /// Gives a file another name, atomically; durable once the directory is synced.
    Rename {
        /// What it is called.
        from: PathBuf,
        /// What it is to be called.
        to: PathBuf,
    },
    /// Opens a file as [`Disk::open`] does.
    Open {
        /// The file.
        path: PathBuf,
        /// [`Open::Existing`] or [`Open::New`].
        how: Open,
    },
    /// Reads bytes: all of them, or as many as there are before the file ends.
    Read {
        /// A file that is no segment.
        file: FileId,
        /// Where the first byte is.
        offset: u64,
        /// How many, less than 2 GiB.
        length: usize,
    },
}

/// What an operation has brought.
#[derive(PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing: it is done.
    Done,
    /// The bytes that were read.
    Bytes(Vec<u8>),
    /// The file that was opened.
    File(FileId),
}

/// The end of a submitted operation.
#[derive(Debug)]
pub struct Done {
    /// Which one.
    pub token: Token,
    /// How it ended. A write that wrote less than all of its bytes has failed.
    pub result: Result<Outcome, DiskError>,
}

/// A filesystem. All methods but `submit` and `reap` block.
pub trait Disk {
    /// Makes a directory, durably, with its parents; none is made where it exists.
    fn create_directory(&mut self, path: &Path) -> Result<(), DiskError>;
    /// The names in a directory, in any order.
    fn list(&mut self, path: &Path) -> Result<Vec<(String, FileKind)>, DiskError>;
    /// What the path stands for, symbolic links not followed; `None` if nothing is there.
    fn kind(&mut self, path: &Path) -> Result<Option<FileKind>, DiskError>;
    /// Opens a regular file or a directory; never follows a symbolic link.
    fn open(&mut self, path: &Path, how: Open) -> Result<FileId, DiskError>;
    /// Gives the file back. What was submitted for it may still be under way.
    fn close(&mut self, file: FileId);
    /// The file's length in bytes.
    fn length(&mut self, file: FileId) -> Result<u64, DiskError>;
    /// Reads until the buffer is full or the file ends; how many bytes that were.
    fn read_at(&mut self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize, DiskError>;
    /// Writes all bytes.
    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Makes the file `length` bytes long, the new ones zeros. True if the disk space is now
    /// promised, false if the filesystem makes no promise.
    fn allocate(&mut self, file: FileId, length: u64) -> Result<bool, DiskError>;
    /// Makes the file's bytes, or the directory's names, durable.
    fn sync(&mut self, file: FileId) -> Result<(), DiskError>;
    /// Gives a file another name, atomically; durable once the directory is synced.
    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DiskError>;
    /// Removes a file's name.
    fn remove(&mut self, path: &Path) -> Result<(), DiskError>;
    /// A number that nobody can guess.
    fn random(&mut self) -> Result<u64, DiskError>;

    /// Starts an operation. Two that are under way may end in any order.
    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), DiskError>;
    /// Appends what has ended since.
    fn reap(&mut self, done: &mut Vec<Done>) -> Result<(), DiskError>;
    /// Blocks until there is something to reap. Only called while something is under way.
    fn wait(&mut self) -> Result<(), DiskError>;
    /// Readable when there is something to reap; a simulated disk has none.
    fn completion_fd(&self) -> Option<BorrowedFd<'_>>;
}
