//! A data directory made from a snapshot: by a restore, and where a quorum is lost for good.
//!
//! Ours; design page 3, §3. The directory says that it is unfinished from before the first byte
//! until the snapshot is durable under its name, so that a start in between refuses it: it must
//! never pass for an empty one. What was in it before is set aside, never removed. Called by
//! `daemon/`, with no node running; blocks.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::disk::Disk;
use super::error::{DiskError, StorageError};
use super::meta::{Meta, Standing};
use super::real::{self, RealDisk};
use super::snapshots::SnapshotEvent;
use super::{Options, Purpose, Storage, lock};
use crate::limits;
use crate::types::{Boot, ClusterId, Identity, Incarnation, Lineage, SnapshotId, SnapshotKind};

/// A data directory that is being made.
pub struct Founding {
    storage: Storage,
    identity: Identity,
    id: SnapshotId,
    handed: u64,
    written: u64,
}

/// What may be in a directory that counts as empty.
fn counts_for_nothing(name: &str) -> bool {
    name == "LOCK" || name == "lost+found"
}

impl Founding {
    /// Makes a directory of that lineage where there is none, or an empty one.
    ///
    /// # Errors
    /// [`StorageError::NotEmpty`]; the lock's; the disk's.
    pub fn begin(options: &Options, lineage: Lineage) -> Result<Founding, StorageError> {
        real::make_directory(&options.dir)?;
        // Looked at first: a directory that is somebody else's doesn't even get a lock file.
        expect_empty(&options.dir)?;
        let lock = lock::acquire(&options.dir)?;
        expect_empty(&options.dir)?;
        let mut disk = RealDisk::open(options.sync, &options.dir, &lock)?;
        let meta = new_meta(&mut disk, options, lineage)?;
        meta.replace(&mut disk, &options.dir)?;
        Founding::go_on(disk, options, lock)
    }

    /// Makes a directory of that lineage in the place of an open one, whose files are kept in a
    /// directory inside it, which is returned too.
    ///
    /// # Errors
    /// The disk's. From the moment on that the meta file is replaced, the directory is unfinished.
    pub fn begin_over(
        mut old: Storage,
        options: &Options,
        lineage: Lineage,
    ) -> Result<(Founding, PathBuf), StorageError> {
        let lock = old._lock.take();
        let old_meta = old.meta.clone();
        old.close()?;
        let lock = match lock {
            Some(lock) => lock,
            None => lock::acquire(&options.dir)?,
        };
        let mut disk = RealDisk::open(options.sync, &options.dir, &lock)?;
        let aside = options.dir.join(format!("before-{:016x}", lineage.0));
        disk.create_directory(&aside)?;
        old_meta.replace(&mut disk, &aside)?;
        let meta = new_meta(&mut disk, options, lineage)?;
        meta.replace(&mut disk, &options.dir)?;
        for name in ["log", "snap"] {
            disk.rename(&options.dir.join(name), &aside.join(name))?;
        }
        sync_directory(&mut disk, &aside)?;
        sync_directory(&mut disk, &options.dir)?;
        Ok((Founding::go_on(disk, options, lock)?, aside))
    }

    fn go_on(
        disk: RealDisk,
        options: &Options,
        lock: std::fs::File,
    ) -> Result<Founding, StorageError> {
        let (mut storage, recovered) =
            Storage::recover_on(Box::new(disk), options, Purpose::Found)?;
        storage._lock = Some(lock);
        let (identity, id) = (recovered.identity, SnapshotId::default());
        Ok(Founding { storage, identity, id, handed: 0, written: 0 })
    }

    /// The directory's cluster.
    pub fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    /// The directory's random number.
    pub fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// Writes the next bytes of the snapshot that the directory is to hold.
    ///
    /// # Errors
    /// The disk's; [`StorageError::NoSpace`].
    pub fn write(&mut self, id: SnapshotId, bytes: Vec<u8>) -> Result<(), StorageError> {
        self.id = id;
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(limits::SNAPSHOT_WRITE_BYTES));
            let (offset, length) = (self.handed, piece.len() as u64);
            self.storage.write_snapshot(SnapshotKind::Received, id, offset, piece)?;
            self.handed += length;
            while self.handed - self.written > limits::SNAPSHOT_WRITE_AHEAD_BYTES {
                self.wait()?;
            }
        }
        Ok(())
    }

    /// All was written: makes it durable, and the directory one that a node can start from.
    ///
    /// # Errors
    /// As [`Founding::write`].
    pub fn finish(mut self) -> Result<(), StorageError> {
        let (kind, id, length) = (SnapshotKind::Received, self.id, self.handed);
        self.storage.finish_snapshot(kind, id, length)?;
        while !self.wait()? {}
        self.storage.meta.standing = Standing::Sound;
        let Storage { meta, disk, dir, .. } = &mut self.storage;
        meta.replace(&mut **disk, dir)?;
        self.storage.close()
    }

    /// Waits for the disk; whether the snapshot is durable.
    fn wait(&mut self) -> Result<bool, StorageError> {
        let mut is_durable = false;
        loop {
            let mut has_moved = false;
            while let Some(event) = self.storage.next_snapshot_event() {
                has_moved = true;
                match event {
                    SnapshotEvent::Written { through, .. } => self.written = through,
                    SnapshotEvent::Durable { .. } => is_durable = true,
                    SnapshotEvent::Read { .. } => {}
                    SnapshotEvent::Full { .. } => {
                        return Err(StorageError::NoSpace { directory: self.storage.dir.clone() });
                    }
                }
            }
            if has_moved {
                return Ok(is_durable);
            }
            if self.storage.snapshots.is_under_way() || self.storage.writer.is_under_way() {
                self.storage.disk.wait()?;
            }
            self.storage.complete()?;
        }
    }
}

fn new_meta(
    disk: &mut RealDisk,
    options: &Options,
    lineage: Lineage,
) -> Result<Meta, StorageError> {
    let named = ClusterId::from_name(&options.cluster);
    Ok(Meta {
        named,
        cluster: named.of_lineage(lineage),
        lineage,
        cluster_name: options.cluster.escape_debug().collect(),
        server: options.server,
        incarnation: Incarnation(disk.random()?),
        boot: Boot::ZERO,
        standing: Standing::Unfinished,
        peers: Vec::new(),
    })
}

fn expect_empty(directory: &Path) -> Result<(), StorageError> {
    let failed = |source| DiskError::new("list", directory, source);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if !counts_for_nothing(&name) {
            return Err(StorageError::NotEmpty { directory: directory.to_path_buf(), name });
        }
    }
    Ok(())
}

fn sync_directory(disk: &mut RealDisk, directory: &Path) -> Result<(), StorageError> {
    let names = disk.open(directory, super::disk::Open::Directory)?;
    let synced = disk.sync(names);
    disk.close(names);
    Ok(synced?)
}
