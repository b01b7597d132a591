//! Bad files in a data directory, on a real filesystem: each is refused by name, or harmless.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::*;
use raftkv::config::SyncMode;
use raftkv::storage::{Storage, StorageError};
use raftkv::types::{Boot, Identity, Incarnation, Nonce, ServerId};

const FIRST: &str = "log/0000000000000001.wal";
const SECOND: &str = "log/0000000000000002.wal";

/// A directory with at least three segments and 20 entries.
fn directory(sync: SyncMode) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut storage, _) = open(&options(dir.path(), sync, 64 * 1024));
    for seq in 1..=20 {
        persist(&mut storage, seq, &entries(vec![entry(seq, 1, &[1; 8000])])).unwrap();
    }
    dir
}

fn refused(dir: &Path, file: &str) -> StorageError {
    let error = Storage::open(&options(dir, SyncMode::Thread, 64 * 1024)).err();
    let error = error.unwrap_or_else(|| panic!("{file} was taken as it is"));
    let named = match &error {
        StorageError::Corrupt { file, .. } | StorageError::Foreign { file, .. } => file.clone(),
        StorageError::Disk(error) => error.file.clone(),
        other => panic!("{other}"),
    };
    assert_eq!(named, dir.join(file), "{error}");
    error
}

#[test]
fn open_refuses_what_is_no_regular_file() {
    for file in ["meta", FIRST, SECOND] {
        let dir = directory(SyncMode::Thread);
        let path = dir.path().join(file);
        let aside = dir.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        assert!(refused(dir.path(), file).to_string().contains("regular"));
        fs::remove_file(&path).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(pipe.unwrap().success());
        assert!(refused(dir.path(), file).to_string().contains("regular"));
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(open(&options(dir.path(), SyncMode::Thread, 65536)).1.entries.len(), 20);
    }
}

#[test]
fn open_refuses_missing_files() {
    for file in ["meta", FIRST, SECOND] {
        let dir = directory(SyncMode::Uring);
        fs::remove_file(dir.path().join(file)).unwrap();
        assert!(refused(dir.path(), file).to_string().contains("missing"));
        // Nothing was made in its place.
        assert!(!dir.path().join(file).exists());
    }
    let dir = directory(SyncMode::Uring);
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    assert!(refused(dir.path(), FIRST).to_string().contains("missing"));
}

#[test]
fn open_refuses_a_segment_of_another_directory() {
    let (dir, other) = (directory(SyncMode::Thread), directory(SyncMode::Thread));
    fs::copy(other.path().join(SECOND), dir.path().join(SECOND)).unwrap();
    assert!(refused(dir.path(), SECOND).to_string().contains("incarnation"));
    fs::copy(dir.path().join(FIRST), dir.path().join(SECOND)).unwrap();
    assert!(refused(dir.path(), SECOND).to_string().contains("another's name"));
}

#[test]
fn open_refuses_files_of_a_newer_format() {
    let sum = |bytes: &[u8]| crc32fast::hash(bytes);
    // 1. The meta file says so in its first line, and is whole otherwise.
    let dir = directory(SyncMode::Thread);
    let path = dir.path().join("meta");
    let text = fs::read_to_string(&path).unwrap();
    let body = text.rsplit_once("crc32 ").unwrap().0.replace("raftkv meta 1\n", "raftkv meta 2\n");
    let newer = format!("{body}crc32 {:08x}\n", sum(body.as_bytes()));
    fs::write(&path, &newer).unwrap();
    let error = refused(dir.path(), "meta");
    assert!(matches!(error, StorageError::Foreign { offset: 0, .. }), "{error}");
    assert!(error.to_string().contains("its format is \"raftkv meta 2\""), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), newer, "nothing was touched");
    // 2. A segment says so in its header.
    let dir = directory(SyncMode::Thread);
    let path = dir.path().join(SECOND);
    let mut segment = fs::read(&path).unwrap();
    segment[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let header = sum(&segment[..64]);
    segment[64..68].copy_from_slice(&header.to_le_bytes());
    fs::write(&path, &segment).unwrap();
    let error = refused(dir.path(), SECOND);
    assert!(matches!(error, StorageError::Foreign { offset: 8, .. }), "{error}");
    assert!(error.to_string().contains("its format is 2, this program's is 1"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), segment, "nothing was touched");
}

#[test]
fn open_refuses_a_directory_that_it_can_only_read() {
    let Some(mount) = SmallFilesystem::mount(4) else { return };
    let data = mount.path().join("data");
    let options = options(&data, SyncMode::Thread, 64 * 1024);
    let (mut storage, _) = open(&options);
    persist(&mut storage, 1, &entries(vec![entry(1, 1, b"x")])).unwrap();
    storage.close().unwrap();
    mount.forbid_writes(true);
    let error = Storage::open(&options).err().expect("nothing can be written");
    let StorageError::Disk(failed) = &error else { panic!("{error}") };
    assert!(failed.file.starts_with(&data), "{error}");
    assert!(error.to_string().contains("Read-only file system"), "{error}");
    mount.forbid_writes(false);
    assert_eq!(open(&options).1.entries.len(), 1);
}

#[test]
fn open_removes_temporary_files_and_leaves_others_alone() {
    let dir = directory(SyncMode::Thread);
    fs::write(dir.path().join("meta.tmp"), "half").unwrap();
    fs::write(dir.path().join("log/0000000000000009.tmp"), "half").unwrap();
    fs::write(dir.path().join("log/notes.txt"), "mine").unwrap();
    let (_storage, recovered) = open(&options(dir.path(), SyncMode::Thread, 65536));
    assert_eq!(recovered.entries.len(), 20);
    assert!(!dir.path().join("meta.tmp").exists());
    assert!(!dir.path().join("log/0000000000000009.tmp").exists());
    assert!(dir.path().join("log/notes.txt").exists());
}

#[test]
fn open_goes_on_with_the_other_engine() {
    let dir = tempfile::tempdir().unwrap();
    for life in 1..=6 {
        let sync = BOTH[life as usize % 2];
        let (mut storage, recovered) = open(&options(dir.path(), sync, 65536));
        assert_eq!(recovered.entries.len() as u64, life - 1);
        assert_eq!(storage.engine().0, if sync == SyncMode::Uring { "uring" } else { "thread" });
        persist(&mut storage, 1, &entries(vec![entry(life, 1, b"x")])).unwrap();
    }
}

#[test]
fn record_peer_is_there_after_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), SyncMode::Auto, 65536);
    let (mut storage, recovered) = open(&options);
    let peer = Identity {
        server: ServerId(3),
        incarnation: Incarnation(u64::MAX),
        boot: Boot(12),
        nonce: Nonce(0xabc),
        ..recovered.identity
    };
    storage.record_peer(peer).unwrap();
    drop(storage);
    let (storage, second) = open(&options);
    assert_eq!(second.known_peers, [peer]);
    assert_ne!(second.identity.nonce, recovered.identity.nonce);
    storage.close().unwrap();
}

#[test]
fn a_full_filesystem_is_survived() {
    let Some(mount) = SmallFilesystem::mount(1) else { return };
    for sync in BOTH {
        // 1. Entries are written until there is no more room.
        let data = mount.path().join(format!("{sync:?}"));
        let options = options(&data, sync, 64 * 1024);
        let (mut storage, _) = open(&options);
        let mut seq = 0;
        while storage.room() == raftkv::types::Room::Ample {
            seq += 1;
            persist(&mut storage, seq, &entries(vec![entry(seq, 1, &[9; 5000])])).unwrap();
            assert!(seq < 300);
        }
        assert!(seq > 100, "{seq} entries of 5000 bytes filled a megabyte");
        // 2. A crash and a start on the full disk lose nothing.
        drop(storage);
        let (mut storage, recovered) = open(&options);
        assert_eq!(recovered.entries.len() as u64, seq);
        // 3. With space back, room is ample by itself.
        mount.resize(2);
        storage.retry_room();
        persist(&mut storage, 1, &entries(vec![entry(seq + 1, 1, &[9; 90_000])])).unwrap();
        // It counts as full until the next segment is there, which may take another completion.
        for _ in 0..100 {
            if storage.room() == raftkv::types::Room::Ample {
                break;
            }
            wait_readable(&storage);
            storage.complete().unwrap();
            storage.submit().unwrap();
        }
        assert_eq!(storage.room(), raftkv::types::Room::Ample);
        storage.close().unwrap();
        fs::remove_dir_all(&data).unwrap();
        mount.resize(1);
    }
}

/// Every submitted write is heard of again, on a busy machine too. One start was seen to wait for
/// ever for its trial write; `RAFTKV_STARTS` makes as many in each of four threads as one likes.
#[test]
fn synced_writes_of_many_rings_all_end() {
    let (done, heard) = std::sync::mpsc::channel();
    let starts: u32 = std::env::var("RAFTKV_STARTS").map_or(60, |n| n.parse().unwrap());
    for _ in 0..4 {
        let done = done.clone();
        std::thread::spawn(move || {
            let dir = tempfile::tempdir().unwrap();
            for _ in 0..starts {
                let options = options(dir.path(), SyncMode::Uring, 64 * 1024);
                std::thread::spawn(move || drop(open(&options))).join().unwrap();
                done.send(()).unwrap();
            }
        });
    }
    drop(done);
    let mut ended = 0;
    while ended < 4 * starts {
        let next = heard.recv_timeout(std::time::Duration::from_secs(30));
        next.unwrap_or_else(|error| panic!("after {ended} starts: {error}"));
        ended += 1;
    }
}
