//! What can go wrong with a data directory, and who is at fault.
//!
//! Called by everything in `storage/`; main prints the error and exits with 1. None of these is
//! ever retried: after a failed sync the kernel may have dropped the pages and would claim success.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::types::{CommandSet, Divergence};

/// An operation on a file that the operating system refused.
#[derive(Debug)]
pub struct DiskError {
    /// The system call, or the operation as the storage names it.
    pub operation: &'static str,
    /// The file it was for.
    pub file: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl DiskError {
    /// An error of `operation` on `file`.
    pub fn new(operation: &'static str, file: &Path, source: io::Error) -> DiskError {
        DiskError { operation, file: file.to_path_buf(), source }
    }

    /// Whether the disk, or this user's share of it, is full.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the filesystem cannot do this at all.
    pub fn is_unsupported(&self) -> bool {
        self.source.kind() == io::ErrorKind::Unsupported
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        write!(f, "{} failed on {file}: {}", self.operation, self.source)
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Why a data directory cannot be opened, or no longer be written. Every one is final.
#[derive(Debug)]
pub enum StorageError {
    /// The operating system refused an operation.
    Disk(DiskError),
    /// The file is not what was written: it is never repaired, cut or skipped.
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// The first byte of what is wrong.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The file is sound, but not this node's: another cluster's, another server's, or of a newer
    /// format.
    Foreign {
        /// Which file.
        file: PathBuf,
        /// Where it says so.
        offset: u64,
        /// What it says, and what was expected.
        what: String,
    },
    /// A majority of the voters has come to another state than this directory's node.
    Diverged {
        /// The meta file, which remembers it.
        file: PathBuf,
        /// Where, and what was compared.
        divergence: Divergence,
    },
    /// The log or a snapshot has a later version of the command set in force than this build knows.
    Outdated {
        /// The version in force.
        in_force: CommandSet,
        /// The newest that this build knows.
        known: CommandSet,
    },
    /// The directory was to be made from a snapshot, and that did not come to its end.
    Unfinished {
        /// The meta file, which says so.
        file: PathBuf,
    },
    /// A directory that was to be empty is not.
    NotEmpty {
        /// Which directory.
        directory: PathBuf,
        /// What is in it, or some of it.
        name: String,
    },
    /// There is no space for what is being made of a snapshot.
    NoSpace {
        /// Where.
        directory: PathBuf,
    },
    /// Another process uses the data directory.
    Locked {
        /// The lock file.
        file: PathBuf,
        /// The process that wrote its number there, if any did.
        pid: Option<u32>,
    },
    /// More than [`KNOWN_PEERS`](crate::limits::KNOWN_PEERS) peers.
    TooManyPeers {
        /// The meta file.
        file: PathBuf,
    },
}

impl StorageError {
    pub(super) fn corrupt(file: &Path, offset: u64, what: impl fmt::Display) -> StorageError {
        StorageError::Corrupt { file: file.to_path_buf(), offset, what: what.to_string() }
    }

    pub(super) fn foreign(file: &Path, offset: u64, what: impl fmt::Display) -> StorageError {
        StorageError::Foreign { file: file.to_path_buf(), offset, what: what.to_string() }
    }
}

impl From<DiskError> for StorageError {
    fn from(error: DiskError) -> StorageError {
        StorageError::Disk(error)
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Disk(error) => error.fmt(f),
            StorageError::Corrupt { file, offset, what } => {
                write!(f, "{} is corrupt at offset {offset}: {what}", file.display())
            }
            StorageError::Foreign { file, offset, what } => {
                let file = file.display();
                write!(f, "{file} is not this node's, at offset {offset}: {what}")
            }
            StorageError::Locked { file, pid } => {
                write!(f, "{} is held by ", file.display())?;
                match pid {
                    Some(pid) => write!(f, "process {pid}: the data directory is in use"),
                    None => f.write_str("another process: the data directory is in use"),
                }
            }
            StorageError::Diverged { file, divergence } => {
                let Divergence { index, own, majority } = divergence;
                write!(
                    f,
                    "DIVERGENCE: up to entry {index} this node's state has the digest {own:016x}, \
                     and that of a majority {majority:016x}: nothing in its data directory can be \
                     trusted, which {} remembers. The next start keeps the files for inspection \
                     and begins with none: then say RAFT ADD and this server's id to any member. \
                     If it happens again, look at this machine's memory",
                    file.display()
                )
            }
            StorageError::Outdated { in_force, known } => write!(
                f,
                "version {in_force} of the command set is in force in this cluster, and this build \
                 of raftkvd knows it up to version {known}: start a newer one. Nothing is lost"
            ),
            StorageError::Unfinished { file } => write!(
                f,
                "{} says that a restore, or recover-quorum, into this directory did not come to \
                 its end. Empty the directory and restore again; if there is a directory before-* \
                 in it, move meta, log and snap from there back, and run recover-quorum again",
                file.display()
            ),
            StorageError::NotEmpty { directory, name } => {
                write!(f, "{} is not empty: it has {name:?}", directory.display())
            }
            StorageError::NoSpace { directory } => {
                write!(f, "no space left in {}", directory.display())
            }
            StorageError::TooManyPeers { file } => {
                write!(f, "{} has no room for another peer", file.display())
            }
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StorageError::Disk(error) => Some(error),
            _ => None,
        }
    }
}
