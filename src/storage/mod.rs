//! The data directory: the log and meta, made durable, and recovered after a stop of any kind.
//!
//! This is the front door; behind it, in reading order: [`segment`] (a file of the log),
//! [`writer`] (one disk write at a time), [`ahead`] (zeros and the next segment, before they are
//! needed), [`recovery`] with [`scan`], [`meta`], [`lock`], and below them [`disk`], the trait that
//! all of these stand on, with [`real`] (the filesystem) on [`uring`] or [`thread`].
//!
//! Called by the loop and by main. A failed write or sync is final: the error is printed, and the
//! process exits. Nothing here is ever retried, and nothing that is wrong is ever repaired
//! silently.

pub mod ahead;
pub mod buffer;
pub mod disk;
pub mod error;
pub mod lock;
pub mod meta;
pub mod real;
pub mod recovery;
pub mod scan;
pub mod segment;
pub mod thread;
pub mod uring;
pub mod writer;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod memory;

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crate::config::SyncMode;
use crate::limits;
use crate::proto::entry::{LogWrite, Recovered};
use crate::types::{Boot, ClusterId, Identity, Incarnation, Nonce, Room, ServerId, WalSeq};

use ahead::Ahead;
use disk::{Disk, Open};
use meta::Meta;
use real::RealDisk;
use segment::{FIRST_RECORD, Owner};
use writer::Writer;

pub use error::{DiskError, StorageError};

/// Which directory to open, and as whose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if it isn't there.
    pub dir: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// This server's id.
    pub server: ServerId,
    /// How a write becomes durable.
    pub sync: SyncMode,
    /// The size of a new segment, rounded up to a block.
    pub segment_bytes: u64,
}

/// An open data directory.
pub struct Storage {
    disk: Box<dyn Disk>,
    dir: PathBuf,
    meta: Meta,
    writer: Writer,
    engine: (&'static str, String),
    /// A fatal error that came up where none could be returned; the next call returns it.
    failed: Option<StorageError>,
    /// Held until the process ends or the storage is closed. After `disk`, so that it falls last.
    _lock: Option<File>,
}

impl Storage {
    /// Takes the directory's lock, reads its meta file (or makes it, where the directory is new),
    /// recovers the log, and raises the boot counter, durably.
    ///
    /// # Errors
    /// Whatever keeps the directory from being used as it is; nothing was changed then, but that a
    /// write that was never acknowledged may have been cut off.
    pub fn open(options: &Options) -> Result<(Storage, Recovered), StorageError> {
        // The directory must be there before its lock can be.
        real::make_directory(&options.dir)?;
        let lock = lock::acquire(&options.dir)?;
        let disk = RealDisk::open(options.sync, &options.dir, &lock)?;
        let engine = disk.engine();
        let (mut storage, recovered) = Storage::open_on(Box::new(disk), options)?;
        storage.engine = engine;
        storage._lock = Some(lock);
        Ok((storage, recovered))
    }

    /// The same on any disk, without a lock.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn open_on(
        mut disk: Box<dyn Disk>,
        options: &Options,
    ) -> Result<(Storage, Recovered), StorageError> {
        let disk_mut = &mut *disk;
        let log = options.dir.join("log");
        disk_mut.create_directory(&options.dir)?;
        let mut meta = own_meta(disk_mut, &log, options)?;
        let owner =
            Owner { cluster: meta.cluster, server: meta.server, incarnation: meta.incarnation };
        disk_mut.create_directory(&log)?;
        let names = disk_mut.open(&log, Open::Directory)?;
        let segment_bytes = segment_size(options.segment_bytes);
        let mut found = recovery::recover(disk_mut, &log, names, owner, meta.boot, segment_bytes)?;
        meta.boot = meta.boot.next();
        meta.replace(disk_mut, &options.dir)?;
        let identity = Identity {
            cluster: meta.cluster,
            server: meta.server,
            incarnation: meta.incarnation,
            boot: meta.boot,
            nonce: Nonce(disk_mut.random()?),
        };
        let recovered = Recovered {
            identity,
            hard_state: found.hard_state.unwrap_or_default(),
            entries: std::mem::take(&mut found.entries),
            known_peers: meta.peers.clone(),
            is_old_copy: meta.is_old_copy,
        };
        let ahead = Ahead::new(log, names, owner, segment_bytes, found.next.take());
        let mut storage = Storage {
            writer: Writer::new(found, ahead),
            disk,
            dir: options.dir.clone(),
            meta,
            engine: ("simulated", String::new()),
            failed: None,
            _lock: None,
        };
        // The filling ahead begins at once, and goes on with each completion.
        storage.complete()?;
        Ok((storage, recovered))
    }

    /// Gathers a write for the next disk write. Nothing is written yet. `seq` only grows.
    pub fn append(&mut self, seq: WalSeq, write: &LogWrite) {
        self.writer.append(seq, write);
    }

    /// Starts a disk write with everything that was gathered, unless one is under way.
    ///
    /// # Errors
    /// Final: see [`StorageError`].
    pub fn submit(&mut self) -> Result<(), StorageError> {
        // Found behind the turn's completions, an error must still end it before anything is sent.
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.writer.submit(&mut *self.disk)
    }

    /// Readable when [`Storage::complete`] has something to do. The storage reads it.
    pub fn completion_fd(&self) -> BorrowedFd<'_> {
        self.disk
            .completion_fd()
            .expect("only a simulated disk has none, and its driver doesn't ask")
    }

    /// Takes what has ended: the last write that is now durable, with all before it, if that moved.
    ///
    /// # Errors
    /// Final: see [`StorageError`].
    pub fn complete(&mut self) -> Result<Option<WalSeq>, StorageError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.writer.complete(&mut *self.disk)
    }

    /// What the log still has room for.
    pub fn room(&self) -> Room {
        self.writer.room()
    }

    /// Asks a full disk once more for space; for about once a second while the room is not ample.
    pub fn retry_room(&mut self) {
        if let Err(error) = self.writer.retry_room(&mut *self.disk) {
            self.failed = Some(error);
        }
    }

    /// How writes become durable here, `uring` or `thread`, and why.
    pub fn engine(&self) -> (&'static str, String) {
        self.engine.clone()
    }

    /// Keeps the newest process of a peer in the meta file. Durable on return; blocks for as long
    /// as that takes, but only if the peer's process is news.
    ///
    /// # Errors
    /// Final: see [`StorageError`].
    pub fn record_peer(&mut self, peer: Identity) -> Result<(), StorageError> {
        assert_eq!(peer.cluster, self.meta.cluster);
        if self.meta.note_peer(&self.dir, peer)? {
            self.meta.replace(&mut *self.disk, &self.dir)?;
        }
        Ok(())
    }

    /// A peer has met a later process of this data directory: this is an old copy of it. That is
    /// noted, durably, so that no number of restarts can raise its boot counter past what the peers
    /// remember and pass it off as the one that it was copied from.
    ///
    /// # Errors
    /// The disk's; final.
    pub fn note_old_copy(&mut self) -> Result<(), StorageError> {
        if self.meta.is_old_copy {
            return Ok(());
        }
        self.meta.is_old_copy = true;
        self.meta.replace(&mut *self.disk, &self.dir)
    }

    /// A clean stop: writes what was gathered, waits for all that is under way, and seals the log.
    ///
    /// # Errors
    /// The disk's; the log is then as after a crash.
    pub fn close(mut self) -> Result<(), StorageError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.writer.close(&mut *self.disk, self.meta.boot)
    }
}

fn segment_size(configured: u64) -> u64 {
    let bounded = configured.clamp(limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX);
    bounded.next_multiple_of(FIRST_RECORD)
}

/// Reads the meta file, or makes it where there is neither meta nor log.
fn own_meta(disk: &mut dyn Disk, log: &Path, options: &Options) -> Result<Meta, StorageError> {
    let path = meta::path(&options.dir);
    let cluster = ClusterId::from_name(&options.cluster);
    let cluster_name: String = options.cluster.escape_debug().collect();
    if let Some(meta) = Meta::read(disk, &options.dir)? {
        if meta.cluster != cluster || meta.cluster_name != cluster_name {
            let what = format!("cluster {:?}, not {:?}", meta.cluster_name, cluster_name);
            return Err(StorageError::foreign(&path, 0, what));
        }
        if meta.server != options.server {
            let what = format!("server {}, not {}", meta.server, options.server);
            return Err(StorageError::foreign(&path, 0, what));
        }
        return Ok(meta);
    }
    if disk.kind(log)?.is_some() {
        let held = disk.list(log)?;
        if held.iter().any(|(name, _)| segment::number(name).is_some()) {
            let what = "the file is missing, and a log is there";
            return Err(StorageError::corrupt(&path, 0, what));
        }
    }
    let meta = Meta {
        cluster,
        cluster_name,
        server: options.server,
        incarnation: Incarnation(disk.random()?),
        boot: Boot::ZERO,
        is_old_copy: false,
        peers: Vec::new(),
    };
    meta.replace(disk, &options.dir)?;
    Ok(meta)
}
