//! Snapshots read while the node runs, and files that no reader may take.
//!
//! Beside [`super::snapshot_tests`], on the same disk in memory. What a hung disk means is told here:
//! an operation that was submitted and doesn't end leaves everything else as it is.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::crash_model::{Model, snapshot};
use super::disk::Token;
use super::memory::MemoryDisk;
use super::snapshot_tests::{commit, open, path, settle, start};
use super::{PieceRead, SnapshotEvent, Storage, StorageError};
use crate::limits;
use crate::proto::snapshot::{SnapshotFault, SnapshotRecord};
use crate::proto::snapshot_encoder::SnapshotEncoder;
use crate::types::{LogIndex, Revision, ServerId, SnapshotId, SnapshotKind, SnapshotReader};

const OWN: SnapshotKind = SnapshotKind::Own;

/// A directory with two snapshots, up to entries 50 and 100.
fn two_snapshots(disk: &MemoryDisk) -> (Storage, Model) {
    let mut model = Model::default();
    let mut storage = start(disk, &mut model).unwrap();
    for index in [50, 100] {
        for _ in 0..10 {
            commit(&mut storage, &mut model, 5).unwrap();
        }
        model.make(&mut storage, OWN, index).unwrap();
        settle(&mut storage, &mut model).unwrap();
    }
    (storage, model)
}

fn piece(id: SnapshotId, offset: u64, length: usize) -> PieceRead {
    PieceRead { id, offset, length, reader: SnapshotReader::Peer(ServerId(2)) }
}

/// What has been read since.
fn reads(storage: &mut Storage) -> Vec<(PieceRead, Option<Bytes>)> {
    for _ in 0..10 {
        storage.complete().unwrap();
    }
    let events = std::iter::from_fn(|| storage.next_snapshot_event());
    let read = events.map(|event| match event {
        SnapshotEvent::Read { piece, bytes } => (piece, bytes),
        other => panic!("nothing is written: {other:?}"),
    });
    read.collect()
}

#[test]
fn read_snapshot_brings_pieces_in_the_order_of_asking() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, model) = two_snapshots(&disk);
    let (older, newest) = (model.id_at(50), model.id_at(100));
    let file = snapshot(newest).1;
    let gone = SnapshotId { index: LogIndex(7), ..older };
    let asked = [
        (piece(newest, 0, 100), Some(file.slice(..100))),
        (piece(older, 100, 7), Some(snapshot(older).1.slice(100..107))),
        (piece(gone, 0, 10), None),
        (piece(newest, 100, file.len() - 100), Some(file.slice(100..))),
        (piece(newest, file.len() as u64, 0), Some(Bytes::new())),
        (piece(newest, 1, file.len()), None),
    ];
    for (piece, _) in &asked {
        storage.read_snapshot(*piece).unwrap();
    }
    assert_eq!(reads(&mut storage), asked);
    // What is gone is answered although nothing is under way that could wake anybody.
    storage.read_snapshot(piece(gone, 0, 10)).unwrap();
    assert!(storage.has_snapshot_event());
    assert_eq!(reads(&mut storage), [(piece(gone, 0, 10), None)]);
    assert!(!storage.has_snapshot_event());
}

/// What comes of a read of the newest snapshot on a disk that was made to fail so.
fn read_failing(fail: impl FnOnce(&MemoryDisk)) -> StorageError {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, model) = two_snapshots(&disk);
    fail(&disk);
    storage.read_snapshot(piece(model.id_at(100), 0, 100)).unwrap();
    let failed = (0..10).find_map(|_| storage.complete().err());
    assert!(storage.next_snapshot_event().is_none(), "what failed is no answer");
    failed.expect("it ended")
}

#[test]
fn a_read_that_fails_or_ends_early_is_final() {
    let error = read_failing(|disk| disk.0.borrow_mut().reads_fail = Some(5));
    assert!(error.to_string().contains("Input/output error"), "{error}");
    let error = read_failing(|disk| disk.0.borrow_mut().reads_lack = 1);
    let StorageError::Corrupt { offset, what, .. } = &error else { panic!("{error}") };
    assert_eq!(*offset, 99, "{what}");
}

#[test]
fn a_hung_read_holds_up_no_log_write_and_no_snapshot() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, mut model) = two_snapshots(&disk);
    let newest = model.id_at(100);
    // 1. The file is opened, and that doesn't end; it is asked for again and again.
    disk.0.borrow_mut().prompt = false;
    for _ in 0..10 * limits::SNAPSHOT_READS {
        storage.read_snapshot(piece(newest, 0, 10)).unwrap();
    }
    assert_eq!(disk.0.borrow().under_way.len(), 1);
    // 2. Meanwhile the log is written, and a snapshot too: whatever else ends, ends.
    model.append(&mut storage, model.log().len(), 5).unwrap();
    let index = model.applied();
    model.make(&mut storage, OWN, index).unwrap();
    for _ in 0..100 {
        storage.submit().unwrap();
        let other = disk.0.borrow().under_way.iter().position(|(token, _)| *token != Token::Read);
        if let Some(at) = other {
            disk.finish(at);
        }
        model.complete(&mut storage).unwrap();
    }
    assert!(model.is_settled());
    // 3. It ends: what was asked for ten thousand times is read once.
    disk.0.borrow_mut().prompt = true;
    disk.finish(0);
    assert_eq!(reads(&mut storage), [(piece(newest, 0, 10), Some(snapshot(newest).1.slice(..10)))]);
}

#[test]
fn opening_and_naming_a_snapshot_are_submitted_and_may_hang() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, mut model) = two_snapshots(&disk);
    commit(&mut storage, &mut model, 5).unwrap();
    disk.0.borrow_mut().prompt = false;
    let id = model.make(&mut storage, OWN, 105).unwrap();
    // 1. Nothing is there before the first operation has ended, and the name not before the last.
    let mut steps = 0;
    while storage.snapshots().all(|(kept, _)| kept != id) {
        assert!(!disk.image().contains_key(&path(id)) || steps > 4);
        let at = disk.0.borrow().under_way.iter().position(|(t, _)| *t == Token::Snapshot(OWN));
        disk.finish(at.expect("each step follows on the last"));
        model.complete(&mut storage).unwrap();
        steps += 1;
    }
    assert_eq!(steps, 6, "open, two writes, sync, rename, sync of the directory");

    // 2. One that is given up while it is being opened leaves nothing.
    commit_slowly(&disk, &mut storage, &mut model);
    let id = model.make(&mut storage, OWN, 110).unwrap();
    storage.abandon_snapshot(OWN).unwrap();
    disk.0.borrow_mut().prompt = true;
    while !disk.0.borrow().under_way.is_empty() {
        disk.finish(0);
        model.complete(&mut storage).unwrap();
    }
    settle(&mut storage, &mut model).unwrap();
    assert!(storage.snapshots().all(|(kept, _)| kept != id));
    let unfinished = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".tmp");
    assert!(!disk.image().keys().any(unfinished), "{:?}", disk.image().keys());
}

/// Five more entries, on a disk that ends operations when it is told to.
fn commit_slowly(disk: &MemoryDisk, storage: &mut Storage, model: &mut Model) {
    model.append(storage, model.log().len(), 5).unwrap();
    while !model.is_settled() {
        storage.submit().unwrap();
        disk.finish(0);
        model.complete(storage).unwrap();
    }
    model.commit_log();
}

/// The snapshot's file with two keys of the wrong order, or the same one twice.
fn misordered(id: SnapshotId, keys: [&[u8]; 2]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = SnapshotEncoder::new(&snapshot(id).0, &mut file);
    for key in keys {
        let (value, revision, deadline, is_early) = (&b"v"[..], Revision(1), None, false);
        let record = SnapshotRecord { key, value, revision, deadline, is_early };
        encoder.record(record, &mut file);
    }
    encoder.finish(&mut file);
    file
}

#[test]
fn open_refuses_a_snapshot_with_a_key_twice_or_out_of_order() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (storage, model) = two_snapshots(&disk);
    drop(storage);
    let (older, newest) = (model.id_at(50), model.id_at(100));
    let faults = [SnapshotFault::DuplicateKey, SnapshotFault::OutOfOrder];
    for (second, fault) in [&b"b"[..], b"a"].into_iter().zip(faults) {
        let file = misordered(newest, [b"b", second]);
        // 1. The one before it and the log have all that it held: that one counts.
        let mut image = disk.image();
        image.insert(path(newest), file.clone());
        let damaged = MemoryDisk::new(image);
        let (storage, recovered) = open(&damaged).unwrap();
        assert_eq!(recovered.snapshot.map(|(header, _)| header.id), Some(older));
        assert_eq!(recovered.entries.last().map(|entry| entry.index), Some(LogIndex(100)));
        drop(storage);
        // 2. Where nothing can stand in for it, it is refused by its name, and where in the file.
        let mut image = disk.image();
        image.insert(path(newest), file.clone());
        image.remove(&path(older));
        match open(&MemoryDisk::new(image)).err() {
            Some(StorageError::Corrupt { file: named, offset, what }) => {
                assert_eq!(named, path(newest));
                // What can be done about it follows.
                assert!(what.starts_with(&fault.to_string()), "{what}");
                assert!(offset > 0 && offset < file.len() as u64, "{offset}");
            }
            other => panic!("{other:?}"),
        }
    }
}
