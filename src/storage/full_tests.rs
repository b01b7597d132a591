//! What a disk does that has no room for a name, or none for a meta file: nothing but to say so.
//!
//! Beside [`super::fault_tests`], on a disk in memory. A rename can need a block for its directory,
//! and a peer's restart has a meta file written: neither may end a node whose disk is full.

use std::collections::BTreeMap;

use super::Storage;
use super::crash_model::Model;
use super::memory::{Image, MemoryDisk};
use super::snapshot_tests::{commit, open, settle, start};
use crate::types::{Boot, Identity, Incarnation, LogIndex, Nonce, Room, ServerId, SnapshotKind};

fn temporary_files(image: &Image) -> usize {
    image.keys().filter(|path| path.extension().is_some_and(|end| end == "tmp")).count()
}

#[test]
fn a_name_without_room_is_tried_again_and_ends_nothing() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let mut model = Model::default();
    let mut storage = start(&disk, &mut model).unwrap();
    commit(&mut storage, &mut model, 5).unwrap();
    disk.0.borrow_mut().is_directory_full = true;
    // 1. The log goes on up to the end of the segments that have names, and is not ended.
    let mut written = 0;
    while storage.room() == Room::Ample {
        commit(&mut storage, &mut model, 1).unwrap();
        written += 1;
        assert!(written < 1000, "the next segment never needs a name");
    }
    // 2. Asked again, the disk is full until it has answered: who took it for empty would take
    //    growth that it can't write.
    disk.0.borrow_mut().prompt = false;
    let mut asked = 0;
    for _ in 0..3 {
        storage.retry_room();
        while !disk.0.borrow().under_way.is_empty() {
            assert_ne!(storage.room(), Room::Ample);
            disk.finish(0);
            storage.complete().unwrap();
            asked += 1;
        }
        assert_ne!(storage.room(), Room::Ample);
    }
    assert!(asked >= 3, "each time a segment was begun");
    disk.0.borrow_mut().prompt = true;
    // 3. A snapshot is given up.
    let index = model.log().len();
    model.make(&mut storage, SnapshotKind::Own, index).unwrap();
    settle(&mut storage, &mut model).unwrap();
    assert_eq!((model.fulls, model.durables), (1, 0));
    assert_eq!(temporary_files(&disk.image()), 0, "what is given up is gone");
    // 4. There is room: both are done.
    disk.0.borrow_mut().is_directory_full = false;
    storage.retry_room();
    settle(&mut storage, &mut model).unwrap();
    assert_eq!(storage.room(), Room::Ample);
    for _ in 0..40 {
        commit(&mut storage, &mut model, 1).unwrap();
    }
    model.make(&mut storage, SnapshotKind::Own, index).unwrap();
    settle(&mut storage, &mut model).unwrap();
    assert_eq!(model.durables, 1);
    drop(storage);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(model.read(&recovered), model.log());
    let last = recovered.entries.last().map(|entry| entry.index);
    assert_eq!(last, Some(LogIndex(model.log().len() as u64)));
}

#[test]
fn record_peer_on_a_full_disk_keeps_nothing_and_ends_nothing() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, recovered) = open(&disk).unwrap();
    let peer = |boot| Identity {
        cluster: recovered.identity.cluster,
        server: ServerId(2),
        incarnation: Incarnation(8),
        boot: Boot(boot),
        nonce: Nonce(boot),
    };
    assert!(storage.record_peer(peer(1)).unwrap());
    let before = disk.image();
    // 1. Neither the file nor its name has room: it is asked again, and says so again.
    disk.0.borrow_mut().capacity = Some(0);
    assert!(!storage.record_peer(peer(2)).unwrap());
    disk.0.borrow_mut().capacity = None;
    disk.0.borrow_mut().is_directory_full = true;
    assert!(!storage.record_peer(peer(2)).unwrap());
    assert_eq!(disk.image(), before, "nothing is left of it");
    // 2. There is room.
    disk.0.borrow_mut().is_directory_full = false;
    assert!(storage.record_peer(peer(2)).unwrap());
    drop(storage);
    assert_eq!(open(&disk).unwrap().1.known_peers, [peer(2)]);
}

/// A directory on a disk whose filesystem promises no space, so that zeros have to claim it.
fn without_promise() -> (MemoryDisk, Storage, Model) {
    let disk = MemoryDisk::new(BTreeMap::new());
    disk.0.borrow_mut().has_no_promise = true;
    let mut model = Model::default();
    let mut storage = start(&disk, &mut model).unwrap();
    commit(&mut storage, &mut model, 5).unwrap();
    (disk, storage, model)
}

#[test]
fn zeros_without_room_make_the_disk_a_full_one_and_end_nothing() {
    let (disk, mut storage, mut model) = without_promise();
    // 1. There is no space ahead of the log: it takes what has a place, and says so.
    disk.0.borrow_mut().zeros_fail = Some(28);
    let mut written = 0;
    while storage.room() == Room::Ample {
        commit(&mut storage, &mut model, 1).unwrap();
        written += 1;
        assert!(written < 1000, "zeros are never needed");
    }
    storage.retry_room();
    settle(&mut storage, &mut model).unwrap();
    assert_ne!(storage.room(), Room::Ample, "it was asked again, and said the same");
    // 2. There is room.
    disk.0.borrow_mut().zeros_fail = None;
    storage.retry_room();
    settle(&mut storage, &mut model).unwrap();
    assert_eq!(storage.room(), Room::Ample);
    for _ in 0..40 {
        commit(&mut storage, &mut model, 1).unwrap();
    }
    drop(storage);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(model.read(&recovered), model.log());
}

#[test]
fn zeros_that_fail_are_final() {
    let (disk, mut storage, mut model) = without_promise();
    disk.0.borrow_mut().zeros_fail = Some(5);
    let failed = (0..1000).find_map(|_| commit(&mut storage, &mut model, 1).err());
    let error = failed.expect("zeros are due sooner or later");
    assert!(error.to_string().contains("Input/output error"), "{error}");
    // What was acknowledged before is there.
    drop(storage);
    disk.0.borrow_mut().zeros_fail = None;
    let (_, recovered) = open(&disk).unwrap();
    assert!(model.read(&recovered).starts_with(&model.log()[..model.applied()]));
}
