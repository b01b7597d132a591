//! What becomes of a directory that cannot be believed: set aside where others hold the data, left
//! as it is where nobody does.
//!
//! On a disk in memory; a crash at every operation is in the simulator's tests of the storage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::aside;
use super::memory::{Image, MemoryDisk, options};
use super::{Storage, StorageError};
use crate::limits;
use crate::proto::entry::{Entry, EntryKind, LogWrite, Recovered};
use crate::raft::membership::{Member, Membership};
use crate::types::{Boot, ClusterTime, Identity, Incarnation, LogIndex, Nonce, ServerId};
use crate::types::{Term, WalSeq};

const LOG: &str = "/data/log/0000000000000001.wal";

fn open(disk: &MemoryDisk, has_others: bool) -> Result<(Storage, Recovered), StorageError> {
    disk.forget_under_way();
    Storage::open_on(Box::new(disk.clone()), &options(has_others))
}

fn entry(index: u64, kind: EntryKind, payload: Bytes) -> Entry {
    let (index, time) = (LogIndex(index), ClusterTime(5));
    Entry { index, term: Term(1), time, kind, payload }
}

/// Voters with these ids, the first of them on this directory.
fn membership(incarnation: Incarnation, ids: &[u64]) -> Bytes {
    let member = |id: &u64| Member {
        id: ServerId(*id),
        incarnation: if *id == 1 { incarnation } else { Incarnation(*id) },
        admitted: LogIndex(1),
        voter: true,
        outgoing_voter: false,
        promote: false,
        replaces: None,
        peer: "a:1".to_owned(),
        client: "a:2".to_owned(),
        http: String::new(),
    };
    Membership::new(ids.iter().map(member).collect()).encode()
}

fn persist(storage: &mut Storage, seq: u64, entry: Entry) {
    storage.append(WalSeq(seq), &LogWrite { entries: vec![entry], ..LogWrite::default() });
    storage.submit().unwrap();
    while storage.complete().unwrap() != Some(WalSeq(seq)) {}
}

/// A directory of a cluster of these voters, whose log is damaged in the middle.
fn damaged(voters: &[u64]) -> MemoryDisk {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, recovered) = open(&disk, false).unwrap();
    fill(&mut storage, recovered.identity.incarnation, voters);
    drop(storage);
    damage(&disk);
    disk
}

fn fill(storage: &mut Storage, incarnation: Incarnation, voters: &[u64]) {
    if !voters.is_empty() {
        let members = membership(incarnation, voters);
        persist(storage, 1, entry(1, EntryKind::Membership, members));
    }
    for seq in 1 + voters.len().min(1) as u64..=8 {
        persist(storage, seq, entry(seq, EntryKind::Batch, Bytes::from_static(&[7; 3000])));
    }
}

fn damage(disk: &MemoryDisk) {
    disk.0.borrow_mut().files.get_mut(Path::new(LOG)).unwrap()[9000] ^= 1;
}

/// The files below a directory, by their paths in it.
fn below(image: &Image, directory: &str) -> Image {
    let inside = image.iter().filter_map(|(path, bytes)| {
        Some((path.strip_prefix(directory).ok()?.to_path_buf(), bytes.clone()))
    });
    inside.collect()
}

#[test]
fn a_corrupt_log_is_set_aside_and_the_directory_begins_anew() {
    let disk = damaged(&[1, 2, 3]);
    let before = disk.image();
    // 1. It names file and offset, and where the files are.
    let (storage, first) = open(&disk, false).unwrap();
    let why = first.recovering.unwrap();
    assert!(why.contains("/data/log/0000000000000001.wal is corrupt at offset "), "{why}");
    assert!(why.ends_with("its files are kept in /data/damaged-1"), "{why}");
    assert_eq!((first.entries, first.hard_state.current_term), (Vec::new(), Term::ZERO));
    assert_eq!(first.identity.boot, Boot(1));
    // 2. All of the log is there, byte for byte, with a meta file that says what happened.
    let kept = below(&disk.image(), "/data/damaged-1");
    for (path, bytes) in below(&before, "/data/log") {
        assert_eq!(kept[&Path::new("log").join(path)], bytes);
    }
    let meta = String::from_utf8(kept[Path::new("meta")].clone()).unwrap();
    assert!(meta.contains("standing setting-aside 1 /data/log"), "{meta}");
    assert!(meta.contains("boot 1\n"), "{meta}");
    drop(storage);
    // 3. It goes on recovering for as many starts as it takes, and nothing else is set aside.
    let (mut storage, again) = open(&disk, false).unwrap();
    assert!(again.recovering.is_some_and(|again| again == why));
    assert_eq!(again.identity.incarnation, first.identity.incarnation);
    assert_eq!(again.identity.boot, Boot(2));
    assert_eq!(below(&disk.image(), "/data/damaged-2"), Image::new());
    // 4. Until its own log says that it is a member on this directory.
    let other = membership(Incarnation(99), &[1, 2, 3]);
    persist(&mut storage, 1, entry(1, EntryKind::Membership, other));
    drop(storage);
    let (mut storage, again) = open(&disk, false).unwrap();
    assert!(again.recovering.is_some(), "it is one on another directory");
    let own = membership(again.identity.incarnation, &[1, 2, 3]);
    persist(&mut storage, 1, entry(2, EntryKind::Membership, own));
    drop(storage);
    for _ in 0..2 {
        assert_eq!(open(&disk, false).unwrap().1.recovering, None);
    }
}

#[test]
fn a_directory_that_nobody_else_holds_is_left_as_it_is() {
    // By its log it is alone, whatever the configuration says; or nothing says that it isn't.
    for (voters, has_others) in [(&[1][..], true), (&[1], false), (&[], false)] {
        let disk = damaged(voters);
        let before = disk.image();
        match open(&disk, has_others).err() {
            Some(StorageError::Corrupt { file, offset, what }) => {
                assert_eq!(file, Path::new(LOG));
                assert!((4096..9000).contains(&offset), "{offset}");
                assert!(what.contains("a later write is there"), "{what}");
                assert!(what.contains("restore a backup"), "{what}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(disk.image(), before);
    }
    // What it was told by the configuration, or the peers that it has met, are others too.
    let disk = damaged(&[]);
    assert!(open(&disk, true).unwrap().1.recovering.is_some());
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, recovered) = open(&disk, false).unwrap();
    let peer = Identity { server: ServerId(2), nonce: Nonce(3), ..recovered.identity };
    storage.record_peer(peer).unwrap();
    fill(&mut storage, recovered.identity.incarnation, &[]);
    drop(storage);
    damage(&disk);
    let (_, recovered) = open(&disk, false).unwrap();
    assert!(recovered.recovering.is_some());
    assert_eq!(recovered.known_peers, [peer], "whom it has met it still knows");
}

#[test]
fn a_damaged_meta_file_is_refused_by_name() {
    let disk = damaged(&[1, 2, 3]);
    let meta = PathBuf::from("/data/meta");
    disk.0.borrow_mut().files.get_mut(&meta).unwrap()[40] ^= 1;
    let before = disk.image();
    match open(&disk, true).err() {
        Some(StorageError::Corrupt { file, what, .. }) => {
            assert_eq!(file, meta);
            assert!(what.contains("RAFT ADD 1"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(disk.image(), before);
}

#[test]
fn a_disk_that_goes_bad_again_and_again_is_refused_at_last() {
    let disk = damaged(&[1, 2, 3]);
    for number in 1..=limits::DAMAGED_KEPT {
        let (mut storage, recovered) = open(&disk, true).unwrap();
        assert!(recovered.recovering.unwrap().ends_with(&format!("/data/damaged-{number}")));
        fill(&mut storage, recovered.identity.incarnation, &[1, 2, 3]);
        drop(storage);
        damage(&disk);
    }
    let before = disk.image();
    let refused = open(&disk, true).err().unwrap().to_string();
    assert!(refused.contains("may be failing"), "{refused}");
    assert_eq!(disk.image(), before);
    // Once one was moved away, it goes on.
    disk.0.borrow_mut().files.retain(|path, _| !path.starts_with("/data/damaged-2"));
    let why = open(&disk, true).unwrap().1.recovering.unwrap();
    assert!(why.ends_with("/data/damaged-2"), "{why}");
}

#[test]
fn an_old_copy_is_set_aside_by_the_next_start() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, first) = open(&disk, true).unwrap();
    fill(&mut storage, first.identity.incarnation, &[1, 2, 3]);
    storage.note_old_copy().unwrap();
    storage.note_old_copy().unwrap();
    storage.close().unwrap();
    let segment = disk.image()[Path::new(LOG)].clone();
    let (mut storage, anew) = open(&disk, true).unwrap();
    assert!(anew.recovering.unwrap().contains("old copy"));
    assert_ne!(anew.identity.incarnation, first.identity.incarnation);
    assert_eq!(anew.entries, []);
    assert_eq!(disk.image()[&aside::path(Path::new("/data"), 1).join(&LOG[6..])], segment);
    // A copy of that may be an old one in its turn.
    storage.note_old_copy().unwrap();
    drop(storage);
    let (_, third) = open(&disk, true).unwrap();
    assert_ne!(third.identity.incarnation, anew.identity.incarnation);
    assert!(disk.image().contains_key(Path::new("/data/damaged-2/meta")));
}
