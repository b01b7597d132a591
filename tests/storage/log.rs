//! The log on a real filesystem, with both engines: what was durable is there after a reopening.

use crate::support::*;
use raftkv::config::SyncMode;
use raftkv::proto::entry::LogWrite;
use raftkv::storage::{Storage, StorageError};
use raftkv::types::Room;
use raftkv::types::{Boot, LogIndex, ServerId, WalSeq};

#[test]
fn reopen_returns_what_was_durable() {
    for sync in BOTH {
        // 1. Ten lives of one directory, alternately stopped cleanly and dropped.
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), sync, 64 * 1024);
        let mut expected = Vec::new();
        let mut incarnation = None;
        for life in 1..=10u64 {
            let (mut storage, recovered) = open(&options);
            assert_eq!(recovered.entries, expected);
            assert_eq!(recovered.identity.boot, Boot(life));
            assert_eq!(
                *incarnation.get_or_insert(recovered.identity.incarnation),
                recovered.identity.incarnation
            );
            if life > 1 {
                assert_eq!(recovered.hard_state, state(life - 1, 1));
            }
            // 2. Each writes some entries and a term.
            for seq in 1..=8 {
                let index = expected.len() as u64 + 1;
                let payload = vec![life as u8; 3000];
                expected.push(entry(index, life, &payload));
                let write = LogWrite {
                    reset: None,
                    truncate_from: None,
                    entries: expected[expected.len() - 1..].to_vec(),
                    hard_state: Some(state(life, 1)),
                };
                persist(&mut storage, seq, &write).unwrap();
            }
            if life % 2 == 0 {
                storage.close().unwrap();
            }
        }
        // 3. 80 entries of 3000 bytes took several segments.
        let segments = std::fs::read_dir(dir.path().join("log")).unwrap().count();
        assert!(segments >= 4, "{segments} segments");
    }
}

#[test]
fn gathered_writes_ride_in_one_disk_write() {
    for sync in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), sync, 1024 * 1024);
        let (mut storage, _) = open(&options);
        for seq in 1..=100 {
            storage.append(WalSeq(seq), &entries(vec![entry(seq, 1, b"x")]));
        }
        storage.submit().unwrap();
        let through = loop {
            wait_readable(&storage);
            if let Some(through) = storage.complete().unwrap() {
                break through;
            }
        };
        assert_eq!(through, WalSeq(100));
        drop(storage);
        assert_eq!(open(&options).1.entries.len(), 100);
    }
}

#[test]
fn truncation_replaces_entries() {
    for sync in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), sync, 64 * 1024);
        let (mut storage, _) = open(&options);
        let first: Vec<_> = (1..=9).map(|index| entry(index, 1, b"old")).collect();
        persist(&mut storage, 1, &entries(first.clone())).unwrap();
        let write = LogWrite {
            reset: None,
            truncate_from: Some(LogIndex(4)),
            entries: vec![entry(4, 2, b"new"), entry(5, 2, b"new")],
            hard_state: Some(state(2, 3)),
        };
        persist(&mut storage, 2, &write).unwrap();
        drop(storage);
        let (storage, recovered) = open(&options);
        let mut expected = first[..3].to_vec();
        expected.extend(write.entries);
        assert_eq!(recovered.entries, expected);
        assert_eq!(recovered.hard_state, state(2, 3));
        assert_eq!(storage.room(), Room::Ample);
    }
}

#[test]
fn append_takes_an_entry_larger_than_a_segment() {
    for sync in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), sync, 64 * 1024);
        let (mut storage, _) = open(&options);
        let log = [
            entry(1, 1, b"small"),
            entry(2, 1, &vec![7; 12 * 1024 * 1024]),
            entry(3, 1, b"small again"),
            entry(4, 1, &vec![8; 3 * 1024 * 1024]),
        ];
        for (at, entry) in log.iter().enumerate() {
            persist(&mut storage, at as u64 + 1, &entries(vec![entry.clone()])).unwrap();
        }
        drop(storage);
        assert!(open(&options).1.entries == log);
    }
}

#[test]
fn open_refuses_a_locked_directory_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), SyncMode::Auto, 64 * 1024);
    let (storage, _) = open(&options);
    let started = std::time::Instant::now();
    let refused = Storage::open(&options).err().unwrap();
    assert!(started.elapsed() < std::time::Duration::from_secs(1));
    let StorageError::Locked { pid, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())));
    storage.close().unwrap();
    open(&options);
}

#[test]
fn open_refuses_another_clusters_and_another_servers_directory() {
    let dir = tempfile::tempdir().unwrap();
    let own = options(dir.path(), SyncMode::Thread, 64 * 1024);
    open(&own).0.close().unwrap();
    for (cluster, server) in [("other", 1), ("test", 2)] {
        let mut options = own.clone();
        options.cluster = cluster.to_owned();
        options.server = ServerId(server);
        let refused = Storage::open(&options).err().unwrap();
        assert!(matches!(&refused, StorageError::Foreign { file, .. } if file.ends_with("meta")));
    }
    assert_eq!(open(&own).1.identity.boot, Boot(2));
}
