//! What the storage's tests share: a directory, a log write, and waiting for the disk.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use raftkv::config::SyncMode;
use raftkv::proto::entry::{Entry, EntryKind, HardState, LogWrite, Recovered};
use raftkv::proto::snapshot::{SnapshotHeader, SnapshotRecord};
use raftkv::proto::snapshot_encoder::SnapshotEncoder;
use raftkv::storage::{Options, SnapshotEvent, Storage, StorageError};
use raftkv::types::{
    ClusterId, ClusterTime, CommandSet, LogIndex, Revision, ServerId, SnapshotId, SnapshotKind,
    Term, WalSeq,
};

pub const BOTH: [SyncMode; 2] = [SyncMode::Uring, SyncMode::Thread];

pub fn options(dir: &Path, sync: SyncMode, segment_bytes: u64) -> Options {
    Options {
        dir: dir.to_path_buf(),
        cluster: "test".to_owned(),
        server: ServerId(1),
        has_others: false,
        sync,
        segment_bytes,
    }
}

pub fn entry(index: u64, term: u64, payload: &[u8]) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        time: ClusterTime(1000 + index),
        kind: EntryKind::Batch,
        payload: Bytes::copy_from_slice(payload),
    }
}

pub fn state(term: u64, voted_for: u64) -> HardState {
    HardState { current_term: Term(term), voted_for: Some(ServerId(voted_for)) }
}

pub fn entries(entries: Vec<Entry>) -> LogWrite {
    LogWrite { entries, ..LogWrite::default() }
}

/// Blocks until something has ended since the last call, whichever engine it is: that of io_uring
/// leaves its descriptor readable, for a loop that waits for edges.
pub fn wait_readable(storage: &Storage) {
    let fd = storage.completion_fd();
    let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let ready = rustix::event::poll(&mut polled, Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "nothing ended within ten seconds");
    rustix::io::read(fd, &mut [0; 8]).expect("it is readable, and nobody else reads it");
}

/// Writes one log write and waits until it is durable.
pub fn persist(storage: &mut Storage, seq: u64, write: &LogWrite) -> Result<(), StorageError> {
    storage.append(WalSeq(seq), write);
    storage.submit()?;
    wait_for(storage, seq)
}

/// Waits until everything up to `seq` is durable.
pub fn wait_for(storage: &mut Storage, seq: u64) -> Result<(), StorageError> {
    loop {
        wait_readable(storage);
        if storage.complete()?.is_some_and(|through| through >= WalSeq(seq)) {
            return Ok(());
        }
        storage.submit()?;
    }
}

pub fn open(options: &Options) -> (Storage, Recovered) {
    Storage::open(options).unwrap_or_else(|error| panic!("{error}"))
}

/// A snapshot of the first term.
pub fn id(index: u64) -> SnapshotId {
    SnapshotId { index: LogIndex(index), term: Term(1) }
}

/// Its file, below the data directory.
pub fn name(index: u64) -> String {
    format!("snap/{index:016}-1.snap")
}

/// A snapshot file of about so many bytes.
pub fn snapshot(id: SnapshotId, length: usize) -> (SnapshotHeader, Bytes) {
    let header = SnapshotHeader {
        cluster: ClusterId::from_name("test"),
        id,
        membership_index: LogIndex(1),
        membership: Bytes::from_static(b"members"),
        clock: ClusterTime(7),
        revision: Revision(u64::MAX),
        digest: 9,
        used_bytes: 0,
        command_set: CommandSet::FIRST,
        gateways: Vec::new(),
    };
    let mut bytes = Vec::new();
    let mut encoder = SnapshotEncoder::new(&header, &mut bytes);
    let value = &vec![id.index.0 as u8; 1000][..];
    for number in 0..length / 1000 {
        let key = format!("key{number:08}");
        let (key, revision) = (key.as_bytes(), Revision(number as u64 + 1));
        let (deadline, is_early) = (None, false);
        let record = SnapshotRecord { key, value, revision, deadline, is_early };
        encoder.record(record, &mut bytes);
    }
    encoder.finish(&mut bytes);
    (header, Bytes::from(bytes))
}

/// Writes a snapshot in slices, each handed over once the one before it was written, and log
/// entries in between; true once it is durable, false if the disk was full.
pub fn make(storage: &mut Storage, seq: &mut u64, id: SnapshotId, bytes: &Bytes) -> bool {
    const SLICE: usize = 300_000;
    let mut handed = 0;
    let mut through = 0;
    loop {
        if through == handed as u64 && handed < bytes.len() {
            let slice = bytes.slice(handed..bytes.len().min(handed + SLICE));
            storage.write_snapshot(SnapshotKind::Own, id, handed as u64, slice.clone()).unwrap();
            handed += slice.len();
            if handed == bytes.len() {
                storage.finish_snapshot(SnapshotKind::Own, id, handed as u64).unwrap();
            }
            *seq += 1;
            persist(storage, *seq, &entries(vec![entry(*seq, 1, &[2; 500])])).unwrap();
        } else {
            wait_readable(storage);
            storage.complete().unwrap();
        }
        while let Some(event) = storage.next_snapshot_event() {
            match event {
                SnapshotEvent::Written { through: written, .. } => through = written,
                SnapshotEvent::Durable { id: durable, .. } => {
                    assert_eq!((durable, through), (id, bytes.len() as u64));
                    return true;
                }
                SnapshotEvent::Full { .. } => return false,
                SnapshotEvent::Read { .. } => panic!("nobody reads"),
            }
        }
    }
}

/// A filesystem in memory of so many megabytes, which goes with this value.
pub struct SmallFilesystem {
    directory: tempfile::TempDir,
}

impl SmallFilesystem {
    /// Mounts one; nothing where that is not allowed.
    pub fn mount(megabytes: u32) -> Option<SmallFilesystem> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted = Command::new("mount").args(arguments).arg(directory.path()).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            println!("skipped: mounting a small filesystem needs root");
            return None;
        }
        Some(SmallFilesystem { directory })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes it one that can only be read, or one that can be written again.
    pub fn forbid_writes(&self, forbids: bool) {
        let how = if forbids { "remount,ro" } else { "remount,rw" };
        let remounted = Command::new("mount").args(["-o", how]).arg(self.path()).status();
        assert!(remounted.unwrap().success());
    }

    /// Makes it larger or smaller.
    pub fn resize(&self, megabytes: u32) {
        let size = format!("remount,size={megabytes}m");
        let resized = Command::new("mount").args(["-o", &size]).arg(self.path()).status();
        assert!(resized.unwrap().success());
    }
}

impl Drop for SmallFilesystem {
    fn drop(&mut self) {
        // Lazily: a failed test may have left files open.
        let _unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
