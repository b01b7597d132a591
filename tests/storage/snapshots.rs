//! Snapshot files on a real filesystem, with both engines: written and read while the log goes on,
//! there after a reopening, and a disk that is too small for them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::*;
use bytes::Bytes;
use raftkv::limits;
use raftkv::storage::{PieceRead, SnapshotEvent, Storage, StorageError};
use raftkv::types::{LogIndex, SnapshotId, SnapshotReader};

/// Reads a piece, waiting for it as the loop does.
fn read(storage: &mut Storage, id: SnapshotId, offset: u64, length: usize) -> Option<Bytes> {
    let piece = PieceRead { id, offset, length, reader: SnapshotReader::Load };
    storage.read_snapshot(piece).unwrap();
    loop {
        if let Some(event) = storage.next_snapshot_event() {
            let SnapshotEvent::Read { piece: of, bytes } = event else {
                panic!("nothing is written: {event:?}");
            };
            assert_eq!(of, piece);
            return bytes;
        }
        wait_readable(storage);
        storage.complete().unwrap();
    }
}

/// Waits until a file in `directory` was held open without a name, and is no more.
fn wait_until_swept(storage: &mut Storage, directory: &Path) {
    let is_nameless = |link: &Path| {
        link.starts_with(directory) && link.to_string_lossy().ends_with(".snap (deleted)")
    };
    let mut was_seen = false;
    loop {
        let held = fs::read_dir("/proc/self/fd").unwrap();
        let mut links = held.filter_map(|held| fs::read_link(held.ok()?.path()).ok());
        match links.any(|link| is_nameless(&link)) {
            true => was_seen = true,
            false if was_seen => return,
            false => {}
        }
        wait_readable(storage);
        storage.complete().unwrap();
        while storage.next_snapshot_event().is_some() {}
    }
}

#[test]
fn snapshots_and_the_log_behind_them_are_there_after_a_reopening() {
    for sync in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), sync, 64 * 1024);
        let (mut storage, _) = open(&options);
        let mut seq = 0;
        while seq < 200 {
            seq += 1;
            persist(&mut storage, seq, &entries(vec![entry(seq, 1, &[1; 3000])])).unwrap();
        }
        // 1. Three snapshots, longer than what is synced or removed at once; the newest two stay,
        //    and nothing holds the space of the first one once its removal has ended.
        let length = 2 * limits::SWEEP_STEP_BYTES as usize;
        for index in [100, 150, 200] {
            let (_, bytes) = snapshot(id(index), length);
            assert!(make(&mut storage, &mut seq, id(index), &bytes));
            storage.compact(LogIndex(index)).unwrap();
        }
        wait_until_swept(&mut storage, dir.path());
        storage.close().unwrap();
        // 2. They can be read, and the log begins behind the older one.
        let (header, bytes) = snapshot(id(200), length);
        for _ in 0..2 {
            let (mut storage, recovered) = open(&options);
            assert_eq!(recovered.snapshot, Some((header.clone(), bytes.len() as u64)));
            assert_eq!(recovered.entries.first().map(|entry| entry.index), Some(LogIndex(201)));
            assert_eq!(recovered.entries.len() as u64, seq - 200);
            for (at, expected) in bytes.chunks(1 << 20).enumerate() {
                let piece = read(&mut storage, id(200), (at as u64) << 20, expected.len());
                assert_eq!(piece.as_deref(), Some(expected));
            }
            assert_eq!(read(&mut storage, id(200), 5, bytes.len()), None, "it ends before");
            assert_eq!(read(&mut storage, id(100), 0, 10), None, "it was removed");
            let first = dir.path().join("log/0000000000000001.wal");
            assert!(!first.exists());
            // A crash.
            drop(storage);
        }
        let mut held: Vec<_> = fs::read_dir(dir.path().join("snap")).unwrap().collect();
        held.sort_by_key(|file| file.as_ref().unwrap().file_name());
        let held: Vec<_> = held.into_iter().map(|file| file.unwrap().path()).collect();
        assert_eq!(held, [150, 200].map(|index| dir.path().join(name(index))));
    }
}

#[test]
fn open_refuses_or_replaces_what_is_no_regular_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), BOTH[1], 64 * 1024);
    let (mut storage, _) = open(&options);
    let mut seq = 0;
    for index in [10, 20] {
        while seq < index {
            seq += 1;
            persist(&mut storage, seq, &entries(vec![entry(seq, 1, b"x")])).unwrap();
        }
        assert!(make(&mut storage, &mut seq, id(index), &snapshot(id(index), 2000).1));
    }
    drop(storage);
    let path = |index: u64| dir.path().join(name(index));
    // 1. In place of the newest: the one before it and the log have all of it.
    let newest = dir.path().join("aside");
    fs::rename(path(20), &newest).unwrap();
    symlink(&newest, path(20)).unwrap();
    let (storage, recovered) = open(&options);
    assert_eq!(recovered.snapshot.map(|(header, _)| header.id), Some(id(10)));
    assert_eq!(recovered.entries.last().map(|entry| entry.index), Some(LogIndex(seq)));
    assert!(path(20).with_extension("snap.damaged").is_symlink());
    drop(storage);
    // 2. In place of the only one it is refused by name.
    fs::remove_file(path(10)).unwrap();
    let made = std::process::Command::new("mkfifo").arg(path(10)).status();
    assert!(made.unwrap().success());
    match Storage::open(&options).err() {
        Some(StorageError::Corrupt { file, what, .. }) => {
            assert_eq!(file, path(10));
            assert!(what.contains("regular"), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_filesystem_gives_up_the_snapshot_and_keeps_the_log() {
    let Some(mount) = SmallFilesystem::mount(3) else { return };
    for sync in BOTH {
        let data = mount.path().join(format!("{sync:?}"));
        let options = options(&data, sync, 64 * 1024);
        let (mut storage, _) = open(&options);
        // 1. One is too large: it is given up in the middle of a slice, and leaves nothing.
        let mut seq = 1;
        persist(&mut storage, seq, &entries(vec![entry(seq, 1, b"x")])).unwrap();
        assert!(!make(&mut storage, &mut seq, id(1), &snapshot(id(1), 6_000_000).1));
        // 2. Log and snapshots go on, once the last write to the one that was given up has ended,
        //    and with it the file.
        let small = snapshot(id(2), 700_000).1;
        let mut tries = 0..100;
        let goes_on = tries.any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            make(&mut storage, &mut seq, id(2), &small)
        });
        assert!(goes_on, "there is space, and no snapshot");
        drop(storage);
        let (_, recovered) = open(&options);
        assert_eq!(recovered.snapshot.map(|(header, _)| header.id), Some(id(2)));
        assert_eq!(recovered.entries.len() as u64, seq - 2);
        let held = fs::read_dir(data.join("snap")).unwrap().count();
        assert_eq!(held, 1);
        fs::remove_dir_all(&data).unwrap();
    }
}
