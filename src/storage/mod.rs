//! The data directory: the log and meta, made durable, and recovered after a stop of any kind.
//!
//! This is the front door; behind it, in reading order: [`segment`] (a file of the log),
//! [`writer`] (one disk write at a time), [`ahead`] (zeros and the next segment, before they are
//! needed), [`compaction`] (segments that are no longer needed), [`snapshots`] with
//! [`snapshot_reads`], [`sweep`] and [`shelf`] (their files while the node runs, and at the start),
//! [`founding`] (a directory made from one), [`recovery`] with [`replay`], [`scan`] and [`terms`],
//! [`aside`] (what becomes of a corrupt directory), [`inspection`] (looking without touching, on
//! [`read_only`]), [`meta`], [`lock`], and below them [`disk`], the trait that all of these stand
//! on, with [`real`] (the filesystem) on [`uring`] or [`thread`].
//!
//! Called by the loop and by main. A failed write or sync is final: the error is printed, and the
//! process exits. Nothing here is ever retried, and nothing that is wrong is ever repaired
//! silently.

pub mod ahead;
pub mod allocator;
pub mod aside;
pub mod buffer;
pub mod compaction;
pub mod disk;
pub mod error;
pub mod founding;
pub mod inspection;
pub mod lock;
pub mod meta;
pub mod pages;
pub mod read_only;
pub mod real;
pub mod recovery;
pub mod replay;
pub mod scan;
pub mod segment;
pub mod shelf;
pub mod snapshot_reads;
pub mod snapshots;
pub mod sweep;
pub mod terms;
pub mod thread;
pub mod uring;
pub mod writer;

#[cfg(test)]
mod aside_tests;
#[cfg(test)]
pub(crate) mod crash_model;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod flip_tests;
#[cfg(test)]
mod full_tests;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod snapshot_read_tests;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod sweep_tests;

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use bytes::Bytes;

use crate::config::SyncMode;
use crate::limits;
use crate::proto::entry::{LogWrite, Recovered};
use crate::testing::{Mutation, is_on};
use crate::types::{
    Boot, ClusterId, Divergence, Identity, Incarnation, Lineage, LogIndex, Nonce, Room, ServerId,
    SnapshotId, SnapshotKind, WalSeq,
};

use ahead::Ahead;
use compaction::Compaction;
use disk::{Disk, Done, Open, Token};
use meta::{Meta, Standing};
use real::RealDisk;
use recovery::{Place, RecoveredLog};
use segment::{FIRST_RECORD, Owner};
use shelf::Shelf;
use snapshots::Snapshots;
use writer::Writer;

pub use error::{DiskError, StorageError};
pub use snapshot_reads::PieceRead;
pub use snapshots::SnapshotEvent;

/// Which directory to open, and as whose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if it isn't there.
    pub dir: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// This server's id.
    pub server: ServerId,
    /// Whether the configuration names other servers, founders or such as are to let this one in:
    /// they may hold what a damaged directory has lost.
    pub has_others: bool,
    /// How a write becomes durable.
    pub sync: SyncMode,
    /// The size of a new segment, rounded up to a block.
    pub segment_bytes: u64,
}

/// What a directory is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// A node is to run on it.
    Serve,
    /// It is being made from a snapshot.
    Found,
    /// What it holds is to be the whole of a new cluster.
    Rescue,
}

/// An open data directory.
pub struct Storage {
    disk: Box<dyn Disk>,
    dir: PathBuf,
    meta: Meta,
    writer: Writer,
    snapshots: Snapshots,
    done: Vec<Done>,
    engine: (&'static str, String),
    /// A fatal error that came up where none could be returned; the next call returns it.
    failed: Option<StorageError>,
    /// Held until the process ends or the storage is closed. After `disk`, so that it falls last.
    _lock: Option<File>,
}

impl Storage {
    /// Takes the directory's lock, reads its meta file (or makes it, where the directory is new),
    /// finds the newest snapshot, recovers the log, and raises the boot counter, durably.
    ///
    /// # Errors
    /// Whatever keeps the directory from being used as it is; nothing was changed then, but that a
    /// write that was never acknowledged may have been cut off.
    pub fn open(options: &Options) -> Result<(Storage, Recovered), StorageError> {
        Storage::open_for(options, Purpose::Serve)
    }

    /// The same, to go on with what the directory holds where no other one is left: nothing of it
    /// is set aside, be it an old copy or contradicted ([`Recovered::recovering`] says so), and
    /// corruption is an error.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn open_to_rescue(options: &Options) -> Result<(Storage, Recovered), StorageError> {
        Storage::open_for(options, Purpose::Rescue)
    }

    fn open_for(options: &Options, purpose: Purpose) -> Result<(Storage, Recovered), StorageError> {
        // The directory must be there before its lock can be.
        real::make_directory(&options.dir)?;
        let lock = lock::acquire(&options.dir)?;
        let disk = RealDisk::open(options.sync, &options.dir, &lock)?;
        let engine = disk.engine();
        let (mut storage, recovered) = Storage::recover_on(Box::new(disk), options, purpose)?;
        storage.engine = engine;
        storage._lock = Some(lock);
        Ok((storage, recovered))
    }

    /// The same on any disk, without a lock.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn open_on(
        disk: Box<dyn Disk>,
        options: &Options,
    ) -> Result<(Storage, Recovered), StorageError> {
        Storage::recover_on(disk, options, Purpose::Serve)
    }

    fn recover_on(
        mut disk: Box<dyn Disk>,
        options: &Options,
        purpose: Purpose,
    ) -> Result<(Storage, Recovered), StorageError> {
        let disk_mut = &mut *disk;
        disk_mut.create_directory(&options.dir)?;
        let mut meta =
            own_meta(disk_mut, options).map_err(|error| aside::unknown_owner(options, error))?;
        if purpose != Purpose::Found && meta.standing == Standing::Unfinished {
            return Err(StorageError::Unfinished { file: meta::path(&options.dir) });
        }
        let mut told = aside::told(&meta);
        if let Some(why) = told.as_deref().filter(|_| purpose == Purpose::Serve) {
            aside::begin_told(disk_mut, options, &mut meta, why)?;
        }
        match aside::decided(disk_mut, options, &meta)? {
            Some(why) if purpose == Purpose::Rescue => told = Some(why),
            _ => aside::finish(disk_mut, options, &mut meta)?,
        }
        let (mut shelf, place, mut found) = match read_files(disk_mut, options, &meta) {
            Err(error @ StorageError::Corrupt { .. }) if purpose == Purpose::Serve => {
                aside::begin(disk_mut, options, &mut meta, error)?;
                read_files(disk_mut, options, &meta)?
            }
            read => read?,
        };
        shelf.put_aside(disk_mut)?;
        let newest = shelf.newest.as_ref().map(|(header, _)| &header.membership[..]);
        let recovering = aside::recovering(&mut meta, options, newest, &found.entries);
        let recovering = recovering.or(told.filter(|_| purpose == Purpose::Rescue));
        meta.boot = meta.boot.next();
        if !is_on(Mutation::BootNotSaved) || meta.boot == Boot::ZERO.next() {
            meta.replace(disk_mut, &options.dir)?;
        }
        let identity = Identity {
            cluster: meta.cluster,
            server: meta.server,
            incarnation: meta.incarnation,
            boot: meta.boot,
            nonce: Nonce(disk_mut.random()?),
        };
        let term = shelf.newest_id().map(|id| id.term);
        let recovered = Recovered {
            identity,
            lineage: meta.lineage,
            hard_state: replay::with_term(found.hard_state.unwrap_or_default(), term),
            snapshot: shelf.newest.clone(),
            entries: std::mem::take(&mut found.entries),
            known_peers: meta.peers.clone(),
            recovering,
        };
        let Place { log, names, owner, segment_bytes, .. } = place;
        let compaction = Compaction::new(log.clone(), names, std::mem::take(&mut found.passed));
        let ahead = Ahead::new(log, names, owner, segment_bytes, found.next.take());
        let mut storage = Storage {
            writer: Writer::new(found, ahead, compaction),
            snapshots: Snapshots::new(shelf),
            done: Vec::new(),
            disk,
            dir: options.dir.clone(),
            meta,
            engine: ("simulated", String::new()),
            failed: None,
            _lock: None,
        };
        storage.begin()?;
        Ok((storage, recovered))
    }

    /// What is due before the first write: a reset that the last process didn't come to is durable
    /// before anything can be acknowledged that rests on it, or else is the first thing that a full
    /// disk takes. Files go that it didn't come to either: what is in them is in no node's memory
    /// any more. The filling ahead begins, and goes on with each completion.
    fn begin(&mut self) -> Result<(), StorageError> {
        self.snapshots.go_on_sweeping(&mut *self.disk)?;
        self.compact(self.snapshots.covered())?;
        self.writer.submit(&mut *self.disk)?;
        self.complete()?;
        while self.writer.is_reset_due() && self.writer.is_under_way() {
            self.disk.wait()?;
            self.complete()?;
        }
        Ok(())
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
        self.check()?;
        self.writer.submit(&mut *self.disk)
    }

    /// Whether something has failed where no error could be returned. Found behind the turn's
    /// completions, that must still end the turn before anything is sent.
    ///
    /// # Errors
    /// It has; final: see [`StorageError`].
    pub fn check(&mut self) -> Result<(), StorageError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Readable when [`Storage::complete`] has something to do. The storage reads it.
    pub fn completion_fd(&self) -> BorrowedFd<'_> {
        self.disk
            .completion_fd()
            .expect("only a simulated disk has none, and its driver doesn't ask")
    }

    /// Whether there is something for [`complete`](Storage::complete), as far as the disk can tell:
    /// its descriptor is also readable when a part of an operation has ended.
    ///
    /// # Errors
    /// Final: see [`StorageError`].
    pub fn has_completion(&mut self) -> Result<bool, StorageError> {
        self.disk.reap(&mut self.done)?;
        Ok(self.failed.is_some() || !self.done.is_empty())
    }

    /// Takes what has ended: the last write that is now durable, with all before it, if that moved.
    ///
    /// # Errors
    /// Final: see [`StorageError`].
    pub fn complete(&mut self) -> Result<Option<WalSeq>, StorageError> {
        self.check()?;
        let mut through = None;
        let mut done = std::mem::take(&mut self.done);
        self.disk.reap(&mut done)?;
        for Done { token, result } in done.drain(..) {
            let disk = &mut *self.disk;
            match token {
                Token::Snapshot(kind) => self.snapshots.ended(disk, kind, result)?,
                Token::Sweep => self.snapshots.swept(disk, result)?,
                Token::Read => self.snapshots.read_ended(disk, result)?,
                Token::Log | Token::Fill | Token::Prepare | Token::Compact => {
                    let result = result.map(|_| ());
                    through = self.writer.ended(disk, token, result)?.or(through);
                }
            }
        }
        self.done = done;
        self.writer.go_on(&mut *self.disk)?;
        Ok(through)
    }

    /// What happened to snapshots, oldest first, one at a time; to be asked in every turn behind
    /// [`Storage::complete`], until nothing is left. (What asks for a snapshot that is gone is
    /// answered with nothing under way, and then nothing wakes the caller but
    /// [`has_snapshot_event`](Storage::has_snapshot_event).)
    pub fn next_snapshot_event(&mut self) -> Option<SnapshotEvent> {
        self.snapshots.next_event()
    }

    /// Whether there is something to take at once.
    pub fn has_snapshot_event(&self) -> bool {
        self.snapshots.has_event()
    }

    /// Takes bytes of a snapshot that is being made; they are written in the background, without a
    /// promise. Offset 0 begins a new file, and gives up an unfinished one of the same kind; else
    /// `offset` is where the last bytes ended. Bytes of a snapshot that was given up are ignored.
    ///
    /// # Errors
    /// Final: see [`StorageError`]. A full disk is [`SnapshotEvent::Full`].
    ///
    /// # Panics
    /// More than [`limits::SNAPSHOT_QUEUE_BYTES`] were handed over and not yet reported
    /// [`SnapshotEvent::Written`].
    pub fn write_snapshot(
        &mut self,
        kind: SnapshotKind,
        id: SnapshotId,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StorageError> {
        self.snapshots.write(&mut *self.disk, kind, id, offset, bytes)
    }

    /// All `length` bytes of the snapshot were handed over, and are one whole snapshot: makes it
    /// durable under its name, which is [`SnapshotEvent::Durable`]. Snapshots before the newest two
    /// are removed then.
    ///
    /// # Errors
    /// Final: see [`StorageError`]. A full disk is [`SnapshotEvent::Full`].
    pub fn finish_snapshot(
        &mut self,
        kind: SnapshotKind,
        id: SnapshotId,
        length: u64,
    ) -> Result<(), StorageError> {
        self.snapshots.finish(&mut *self.disk, kind, id, length)
    }

    /// Gives up the unfinished snapshot of this kind, if there is one. No event follows, but that
    /// one which was about to become durable may be.
    ///
    /// # Errors
    /// Final: see [`StorageError`].
    pub fn abandon_snapshot(&mut self, kind: SnapshotKind) -> Result<(), StorageError> {
        self.snapshots.abandon(&mut *self.disk, kind)
    }

    /// Reads a piece of a durable snapshot in the background: what came is
    /// [`SnapshotEvent::Read`]. What is asked for again before it was read is read once; beyond
    /// [`limits::SNAPSHOT_READS`] nothing comes.
    ///
    /// # Errors
    /// Final: see [`StorageError`].
    pub fn read_snapshot(&mut self, piece: PieceRead) -> Result<(), StorageError> {
        self.snapshots.read(&mut *self.disk, piece)
    }

    /// The durable snapshots, oldest first, at most two, with their lengths in bytes.
    pub fn snapshots(&self) -> impl Iterator<Item = (SnapshotId, u64)> {
        self.snapshots.kept()
    }

    /// Lets the log's beginning go, in whole segments and in the background: what is at or below
    /// `through`, but not what is above the second newest snapshot, so that it can stand in for a
    /// damaged newest one. Where there is one snapshot, that is the bound.
    ///
    /// # Errors
    /// Final: see [`StorageError`].
    pub fn compact(&mut self, through: LogIndex) -> Result<(), StorageError> {
        let through = match is_on(Mutation::CompactsPastSnapshot) {
            true => LogIndex(u64::MAX),
            false => through.min(self.snapshots.covered()),
        };
        self.writer.compact(&mut *self.disk, through)
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
    /// as that takes, but only if the peer's process is news. False where the disk is full: nothing
    /// was kept.
    ///
    /// # Errors
    /// Final: see [`StorageError`].
    pub fn record_peer(&mut self, peer: Identity) -> Result<bool, StorageError> {
        assert_eq!(peer.cluster, self.meta.cluster);
        let before = self.meta.peers.clone();
        if !self.meta.note_peer(&self.dir, peer)? {
            return Ok(true);
        }
        let is_kept = self.meta.replace_if_room(&mut *self.disk, &self.dir)?;
        if !is_kept {
            self.meta.peers = before;
        }
        Ok(is_kept)
    }

    /// The cluster of this lineage admits this blank directory: it belongs to it from now on.
    /// Durable on return; blocks for as long as that takes, but only if that is news.
    ///
    /// # Errors
    /// The disk's; final.
    pub fn adopt_lineage(&mut self, lineage: Lineage) -> Result<(), StorageError> {
        if self.meta.lineage == lineage {
            return Ok(());
        }
        self.meta.adopt(lineage);
        self.meta.replace(&mut *self.disk, &self.dir)
    }

    /// A peer has met a later process of this data directory: this is an old copy of it. That is
    /// noted, durably, so that no number of restarts can raise its boot counter past what the peers
    /// remember and pass it off as the one that it was copied from. The next opening sets its files
    /// aside.
    ///
    /// # Errors
    /// The disk's; final.
    pub fn note_old_copy(&mut self) -> Result<(), StorageError> {
        if self.meta.standing == Standing::OldCopy {
            return Ok(());
        }
        self.meta.standing = Standing::OldCopy;
        self.meta.replace(&mut *self.disk, &self.dir)
    }

    /// A majority contradicts what this directory's node has made of its log: that is noted,
    /// durably, so that it doesn't come back with the same state.
    ///
    /// # Errors
    /// Always one: [`StorageError::Diverged`], or the disk's.
    pub fn note_divergence(&mut self, divergence: Divergence) -> Result<(), StorageError> {
        self.meta.standing = Standing::Contradicted(divergence);
        self.meta.replace(&mut *self.disk, &self.dir)?;
        Err(StorageError::Diverged { file: meta::path(&self.dir), divergence })
    }

    /// A clean stop: writes what was gathered, waits for all that is under way, and seals the log.
    ///
    /// # Errors
    /// The disk's; the log is then as after a crash.
    pub fn close(mut self) -> Result<(), StorageError> {
        self.writer.stop();
        self.snapshots.stop();
        self.submit()?;
        while self.writer.is_under_way() || self.snapshots.is_under_way() {
            self.disk.wait()?;
            self.complete()?;
            self.submit()?;
        }
        if !self.writer.seal(&mut *self.disk, self.meta.boot)? {
            return Ok(());
        }
        while self.writer.is_under_way() {
            self.disk.wait()?;
            self.complete()?;
        }
        self.writer.sync(&mut *self.disk)
    }
}

fn segment_size(configured: u64) -> u64 {
    let bounded = configured.clamp(limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX);
    bounded.next_multiple_of(FIRST_RECORD)
}

/// Reads snapshots and log.
fn read_files(
    disk: &mut dyn Disk,
    options: &Options,
    meta: &Meta,
) -> Result<(Shelf, Place, RecoveredLog), StorageError> {
    let log = options.dir.join("log");
    disk.create_directory(&log)?;
    let shelf = Shelf::open(disk, &options.dir, meta.cluster)?;
    let names = disk.open(&log, Open::Directory)?;
    let segment_bytes = segment_size(options.segment_bytes);
    let place = Place { log, names, owner: Owner::of(meta), boot: meta.boot, segment_bytes };
    match recovery::recover(disk, &place, &shelf) {
        Ok(found) => Ok((shelf, place, found)),
        Err(error) => {
            disk.close(names);
            disk.close(shelf.names);
            Err(error)
        }
    }
}

/// Whether a directory is the one of the server, and of the cluster, that a configuration names.
///
/// # Errors
/// [`StorageError::Foreign`]: it is another's.
pub fn check_owner(meta: &Meta, options: &Options) -> Result<(), StorageError> {
    let path = meta::path(&options.dir);
    let named = ClusterId::from_name(&options.cluster);
    let cluster_name: String = options.cluster.escape_debug().collect();
    if meta.named != named || meta.cluster_name != cluster_name {
        let what = format!("cluster {:?}, not {:?}", meta.cluster_name, cluster_name);
        return Err(StorageError::foreign(&path, 0, what));
    }
    if meta.server != options.server {
        let what = format!("server {}, not {}", meta.server, options.server);
        return Err(StorageError::foreign(&path, 0, what));
    }
    Ok(())
}

/// Reads the meta file, or makes it where there is neither meta nor log.
fn own_meta(disk: &mut dyn Disk, options: &Options) -> Result<Meta, StorageError> {
    let path = meta::path(&options.dir);
    let named = ClusterId::from_name(&options.cluster);
    let cluster_name: String = options.cluster.escape_debug().collect();
    if let Some(meta) = Meta::read(disk, &options.dir)? {
        check_owner(&meta, options)?;
        if meta.boot == Boot::ZERO {
            // The first start was killed, perhaps before this file's name was durable: the log that
            // is made next must never be there without it.
            aside::sync_names(disk, &options.dir)?;
        }
        return Ok(meta);
    }
    for (held, what) in [
        (!segment::numbers(disk, &options.dir.join("log"))?.is_empty(), "a log"),
        (!shelf::ids(disk, &options.dir.join("snap"))?.is_empty(), "a snapshot"),
    ] {
        if held {
            let what = format!("the file is missing, and {what} is there");
            return Err(StorageError::corrupt(&path, 0, what));
        }
    }
    let meta = Meta {
        named,
        cluster: named,
        lineage: Lineage::ZERO,
        cluster_name,
        server: options.server,
        incarnation: Incarnation(disk.random()?),
        boot: Boot::ZERO,
        standing: Standing::Sound,
        peers: Vec::new(),
    };
    meta.replace(disk, &options.dir)?;
    Ok(meta)
}
