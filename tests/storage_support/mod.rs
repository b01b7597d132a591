//! What the storage's tests share: a directory, a log write, and waiting for the disk.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::os::fd::AsFd;
use std::path::Path;

use bytes::Bytes;
use raftkv::config::SyncMode;
use raftkv::proto::entry::{Entry, EntryKind, HardState, LogWrite, Recovered};
use raftkv::storage::{Options, Storage, StorageError};
use raftkv::types::{ClusterTime, LogIndex, ServerId, Term, WalSeq};

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

/// Blocks until the storage has something to complete.
pub fn wait_readable(storage: &Storage) {
    let fd = storage.completion_fd();
    let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let ready = rustix::event::poll(&mut polled, Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "nothing ended within ten seconds");
    let _ = fd.as_fd();
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
