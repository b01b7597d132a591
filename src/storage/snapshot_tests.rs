//! What crashes, flipped bytes, lost files and a full disk do to a directory with snapshots.
//!
//! Beside [`super::fault_tests`], and like those on a disk in memory: every operation is failed at
//! once, every byte of a small snapshot flipped, every length cut. What must be there then is told by
//! [`super::crash_model`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::crash_model::{Model, id, snapshot};
use super::disk::Token;
use super::memory::{Image, MemoryDisk, options};
use super::{SnapshotEvent, Storage, StorageError, segment, shelf};
use crate::proto::entry::{Entry, EntryKind, HardState, LogWrite, Recovered};
use crate::types::{ClusterTime, LogIndex, SnapshotId, SnapshotKind, Term, WalSeq};

const OWN: SnapshotKind = SnapshotKind::Own;
const RECEIVED: SnapshotKind = SnapshotKind::Received;

pub(super) fn open(disk: &MemoryDisk) -> Result<(Storage, Recovered), StorageError> {
    disk.forget_under_way();
    Storage::open_on(Box::new(disk.clone()), &options(false))
}

pub(super) fn start(disk: &MemoryDisk, model: &mut Model) -> Result<Storage, StorageError> {
    let (storage, recovered) = open(disk)?;
    model.started(&recovered);
    Ok(storage)
}

/// Lets everything end that is under way or follows from it.
pub(super) fn settle(storage: &mut Storage, model: &mut Model) -> Result<(), StorageError> {
    for _ in 0..40 {
        storage.submit()?;
        model.complete(storage)?;
    }
    assert!(model.is_settled());
    Ok(())
}

/// Committed entries, acknowledged.
pub(super) fn commit(
    storage: &mut Storage,
    model: &mut Model,
    count: usize,
) -> Result<(), StorageError> {
    model.append(storage, model.log().len(), count)?;
    settle(storage, model)?;
    model.commit_log();
    Ok(())
}

pub(super) fn path(id: SnapshotId) -> PathBuf {
    shelf::path(Path::new("/data/snap"), id)
}

fn segments(disk: &MemoryDisk) -> Vec<u64> {
    let image = disk.image();
    let names = image.keys().filter_map(|path| path.file_name()?.to_str());
    names.filter_map(segment::number).collect()
}

fn snapshots(disk: &MemoryDisk) -> Vec<PathBuf> {
    let image = disk.image();
    image.into_keys().filter(|path| path.starts_with("/data/snap")).collect()
}

/// A life with two own snapshots, two installed ones, and the log compacted after each.
fn life(disk: &MemoryDisk, model: &mut Model) -> Result<(), StorageError> {
    // 1. The log fills some segments; an own snapshot in its middle, and one of its end.
    let mut storage = start(disk, model)?;
    for _ in 0..20 {
        commit(&mut storage, model, 5)?;
    }
    model.make(&mut storage, OWN, 90)?;
    settle(&mut storage, model)?;
    storage.compact(LogIndex(90))?;
    commit(&mut storage, model, 20)?;
    let own = model.make(&mut storage, OWN, 120)?;
    settle(&mut storage, model)?;
    storage.compact(own.index)?;
    settle(&mut storage, model)?;
    // 2. A suffix that is never committed; one is installed that the log conflicts with, and then
    // one that it ends before.
    model.append(&mut storage, 120, 10)?;
    model.append(&mut storage, 125, 10)?;
    settle(&mut storage, model)?;
    model.commit_elsewhere(7);
    model.make(&mut storage, RECEIVED, 127)?;
    settle(&mut storage, model)?;
    commit(&mut storage, model, 3)?;
    model.commit_elsewhere(50);
    let received = model.make(&mut storage, RECEIVED, 180)?;
    settle(&mut storage, model)?;
    storage.compact(received.index)?;
    // 3. The log goes on behind it, over the end of a segment.
    for _ in 0..10 {
        commit(&mut storage, model, 5)?;
    }
    let own = model.make(&mut storage, OWN, 220)?;
    settle(&mut storage, model)?;
    storage.compact(own.index)?;
    settle(&mut storage, model)?;
    storage.close()
}

#[test]
fn open_after_a_crash_at_any_operation_finds_what_was_acknowledged() {
    let mut crashes = 0;
    for good in 0.. {
        let disk = MemoryDisk::new(BTreeMap::new());
        disk.0.borrow_mut().good_writes = Some(good);
        let mut model = Model::default();
        let ended = life(&disk, &mut model);
        disk.0.borrow_mut().good_writes = None;
        if ended.is_ok() {
            assert_eq!(model.resets, 2);
            break;
        }
        crashes += 1;
        // 1. The next start finds it, and so does the one after it.
        let mut storage = start(&disk, &mut model).unwrap();
        drop(storage);
        storage = start(&disk, &mut model).unwrap();
        // 2. It goes on: entries, a snapshot, compaction.
        if model.applied() < model.log().len() {
            model.append(&mut storage, model.applied(), 1).unwrap();
        }
        model.committed.truncate(model.applied());
        commit(&mut storage, &mut model, 5).unwrap();
        model.make(&mut storage, OWN, model.applied()).unwrap();
        settle(&mut storage, &mut model).unwrap();
        storage.compact(model.durable.index).unwrap();
        settle(&mut storage, &mut model).unwrap();
        assert!(snapshots(&disk).len() <= 2, "{:?}", snapshots(&disk));
        drop(storage);
        start(&disk, &mut model).unwrap();
    }
    assert!(crashes > 100, "{crashes} places to crash at");
}

#[test]
fn compact_removes_the_segments_that_two_snapshots_cover_and_nothing_else() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let mut model = Model::default();
    let mut storage = start(&disk, &mut model).unwrap();
    for _ in 0..30 {
        commit(&mut storage, &mut model, 5).unwrap();
    }
    let all = segments(&disk);
    assert!(all.len() > 4);
    // 1. Without a snapshot nothing goes.
    storage.compact(LogIndex(150)).unwrap();
    settle(&mut storage, &mut model).unwrap();
    assert_eq!(segments(&disk), all);
    // 2. The only one covers what is before it.
    model.make(&mut storage, OWN, 60).unwrap();
    settle(&mut storage, &mut model).unwrap();
    storage.compact(LogIndex(150)).unwrap();
    settle(&mut storage, &mut model).unwrap();
    let left = segments(&disk);
    assert!(left[0] > all[0] && left.len() > 2, "{left:?}");
    // 3. With two, the log still reaches back to the older.
    model.make(&mut storage, OWN, 150).unwrap();
    settle(&mut storage, &mut model).unwrap();
    storage.compact(LogIndex(150)).unwrap();
    settle(&mut storage, &mut model).unwrap();
    assert_eq!(segments(&disk), left);
    // 4. A third one lets the first go, and the log before the second; only the tail is left.
    commit(&mut storage, &mut model, 1).unwrap();
    model.make(&mut storage, OWN, 151).unwrap();
    settle(&mut storage, &mut model).unwrap();
    storage.compact(LogIndex(151)).unwrap();
    settle(&mut storage, &mut model).unwrap();
    assert!(segments(&disk).len() <= 2, "{:?}", segments(&disk));
    assert_eq!(snapshots(&disk), [path(model.id_at(150)), path(model.id_at(151))]);
    storage.close().unwrap();
    let (_, recovered) = open(&disk).unwrap();
    let (header, bytes) = snapshot(model.id_at(151));
    assert_eq!(recovered.snapshot, Some((header, bytes.len() as u64)));
    assert_eq!(recovered.entries, []);
}

#[test]
fn compact_waits_until_the_next_segment_says_what_it_leaves() {
    for seal in [false, true] {
        // 1. A segment that a snapshot covers whole, and a disk that ends nothing by itself.
        let disk = MemoryDisk::new(BTreeMap::new());
        let mut model = Model::default();
        let mut storage = start(&disk, &mut model).unwrap();
        let index = 20;
        commit(&mut storage, &mut model, index).unwrap();
        model.make(&mut storage, OWN, index).unwrap();
        settle(&mut storage, &mut model).unwrap();
        storage.compact(LogIndex(index as u64)).unwrap();
        let under_way = |token| {
            let state = disk.0.borrow();
            state.under_way.iter().position(|(other, _)| *other == token)
        };
        disk.0.borrow_mut().prompt = false;
        // 2. Entries that end it: it stays while the first write of the next one is under way.
        model.append(&mut storage, index, 15).unwrap();
        disk.finish(under_way(Token::Log).unwrap());
        model.complete(&mut storage).unwrap();
        while under_way(Token::Log).is_none() {
            disk.finish(under_way(Token::Fill).unwrap());
            model.complete(&mut storage).unwrap();
        }
        assert!(under_way(Token::Compact).is_none() && !model.is_settled());
        assert_eq!(segments(&disk), [1, 2]);
        drop(storage);
        disk.0.borrow_mut().prompt = true;
        // 3. After a crash the term is still there. A seal may be the first write just as well.
        let mut storage = start(&disk, &mut model).unwrap();
        if seal {
            storage.close().unwrap();
            storage = start(&disk, &mut model).unwrap();
        } else {
            commit(&mut storage, &mut model, 1).unwrap();
        }
        storage.compact(LogIndex(index as u64)).unwrap();
        settle(&mut storage, &mut model).unwrap();
        assert_eq!(segments(&disk)[0], 2, "sealed: {seal}");
        drop(storage);
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.hard_state.current_term, Term(1));
    }
}

/// A directory with two snapshots, the log reaching back to the older one, and their ids.
fn two_snapshots() -> (Image, Model, SnapshotId, SnapshotId) {
    let disk = MemoryDisk::new(BTreeMap::new());
    let mut model = Model::default();
    let mut storage = start(&disk, &mut model).unwrap();
    let mut made = Vec::new();
    for index in [60, 100, 140] {
        while model.log().len() < index {
            commit(&mut storage, &mut model, 5).unwrap();
        }
        made.push(model.make(&mut storage, OWN, index).unwrap());
        settle(&mut storage, &mut model).unwrap();
        storage.compact(LogIndex(index as u64)).unwrap();
        settle(&mut storage, &mut model).unwrap();
    }
    commit(&mut storage, &mut model, 5).unwrap();
    assert!(segments(&disk)[0] > 1);
    (disk.image(), model, made[1], made[2])
}

/// Opens an image whose newest snapshot is damaged: the one before it and the log have it all.
fn judge_newest(image: Image, model: &Model, older: SnapshotId, newest: SnapshotId, what: &str) {
    let disk = MemoryDisk::new(image);
    let (storage, recovered) = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let header = recovered.snapshot.as_ref().map(|(header, _)| header.id);
    assert_eq!(header, Some(older), "{what}");
    assert_eq!(model.read(&recovered), model.log(), "{what}");
    // The damaged file is kept, and in nobody's way.
    let aside = format!("{}.damaged", path(newest).display());
    assert_eq!(snapshots(&disk), [path(older), PathBuf::from(aside)]);
    drop(storage);
    assert_eq!(model.read(&open(&disk).unwrap().1), model.log());
}

#[test]
fn open_takes_the_snapshot_before_a_damaged_one_for_every_flipped_byte_and_cut() {
    let (image, model, older, newest) = two_snapshots();
    let length = image[&path(newest)].len();
    for at in 0..length {
        let mut flipped = image.clone();
        flipped.get_mut(&path(newest)).unwrap()[at] ^= 1 << (at % 8);
        match open(&MemoryDisk::new(flipped.clone())) {
            // A byte of the format's number or of the cluster's is covered by the checksum too, so
            // none of them is ever taken for another format or cluster.
            Ok(_) => judge_newest(flipped, &model, older, newest, &format!("byte {at}")),
            Err(refused) => panic!("byte {at}: {refused}"),
        }
        let mut cut = image.clone();
        cut.get_mut(&path(newest)).unwrap().truncate(at);
        judge_newest(cut, &model, older, newest, &format!("cut at {at}"));
    }
    let mut longer = image.clone();
    longer.get_mut(&path(newest)).unwrap().push(0);
    judge_newest(longer, &model, older, newest, "a byte more");
    // Another one's content under its name.
    let mut other = image.clone();
    other.insert(path(newest), image[&path(older)].clone());
    judge_newest(other, &model, older, newest, "the older one's content");
}

/// It is refused by this file, and nothing was changed.
fn refused(image: Image, file: &Path) -> String {
    let disk = MemoryDisk::new(image.clone());
    match open(&disk).err() {
        Some(StorageError::Corrupt { file: named, what, .. }) => {
            assert_eq!(named, file, "{what}");
            assert_eq!(disk.image(), image);
            what
        }
        other => panic!("{}: {other:?}", file.display()),
    }
}

#[test]
fn open_refuses_a_damaged_snapshot_that_nothing_can_stand_in_for() {
    let (image, _, older, newest) = two_snapshots();
    // 1. The only snapshot of a compacted log.
    let mut only = image.clone();
    only.remove(&path(older));
    for at in (0..only[&path(newest)].len()).step_by(7) {
        let mut flipped = only.clone();
        flipped.get_mut(&path(newest)).unwrap()[at] ^= 1;
        refused(flipped, &path(newest));
        let mut cut = only.clone();
        cut.get_mut(&path(newest)).unwrap().truncate(at);
        refused(cut, &path(newest));
    }
    // 2. Both are damaged: the newest is named.
    let mut both = image.clone();
    for id in [older, newest] {
        both.get_mut(&path(id)).unwrap()[0] ^= 1;
    }
    refused(both, &path(newest));
    // 3. The log was reset to it: what the older one and the log have is not enough.
    let disk = MemoryDisk::new(image.clone());
    let mut storage = open(&disk).unwrap().0;
    let installed = id(200, 2);
    let (_, bytes) = snapshot(installed);
    storage.write_snapshot(RECEIVED, installed, 0, bytes.clone()).unwrap();
    storage.finish_snapshot(RECEIVED, installed, bytes.len() as u64).unwrap();
    for _ in 0..9 {
        storage.complete().unwrap();
    }
    drop(storage);
    let mut early = disk.image();
    early.get_mut(&path(installed)).unwrap()[99] ^= 1;
    refused(early, &path(installed));
    drop(open(&disk).unwrap());
    let mut late = disk.image();
    late.get_mut(&path(installed)).unwrap()[99] ^= 1;
    refused(late, &path(installed));
    // 4. It is gone without a trace.
    let mut gone = disk.image();
    gone.remove(&path(installed));
    assert!(refused(gone, &path(installed)).contains("missing"));
}

#[test]
fn open_refuses_a_log_that_a_snapshot_does_not_reach() {
    let (image, model, older, newest) = two_snapshots();
    let log = Path::new("/data/log");
    let number = |path: &PathBuf| segment::number(path.file_name()?.to_str()?);
    let numbers: Vec<u64> = image.keys().filter_map(number).collect();
    // 1. Without its first segment the log still follows on the newest snapshot, or it doesn't.
    let mut gone = image.clone();
    for (place, removed) in numbers.iter().enumerate() {
        gone.remove(&segment::path(log, *removed));
        match open(&MemoryDisk::new(gone.clone())) {
            Ok((_, recovered)) => {
                assert_eq!(model.read(&recovered), model.log(), "without {removed:x}");
            }
            Err(error) => {
                let what = error.to_string();
                let named = what.contains("missing") || what.contains("holds no whole write");
                assert!(named && place > 0, "without {removed:x}: {what}");
            }
        }
    }
    // 2. With the older snapshot only, it must reach back to that.
    let mut gone = image.clone();
    gone.remove(&path(newest));
    assert_eq!(model.read(&open(&MemoryDisk::new(gone.clone())).unwrap().1), model.log());
    gone.remove(&segment::path(log, numbers[0]));
    let what = refused(gone, &segment::path(log, numbers[0]));
    assert!(what.contains("missing"), "{what}");
    // 3. Without snapshots, from the first segment.
    let mut gone = image.clone();
    gone.remove(&path(newest));
    gone.remove(&path(older));
    refused(gone, &segment::path(log, 1));
    // 4. A missing segment in the middle, and a missing meta file.
    let mut gone = image.clone();
    gone.remove(&segment::path(log, numbers[1]));
    refused(gone, &segment::path(log, numbers[1]));
    let mut gone = image.clone();
    gone.remove(Path::new("/data/meta"));
    refused(gone, Path::new("/data/meta"));
}

#[test]
fn open_knows_a_foreign_snapshot() {
    let (image, _, older, newest) = two_snapshots();
    let (mut header, _) = snapshot(newest);
    header.cluster = crate::types::ClusterId::from_name("other");
    let mut bytes = Vec::new();
    let encoder = crate::proto::snapshot_encoder::SnapshotEncoder::new(&header, &mut bytes);
    encoder.finish(&mut bytes);
    let mut foreign = image.clone();
    foreign.insert(path(newest), bytes);
    let error = open(&MemoryDisk::new(foreign)).err().unwrap();
    assert!(matches!(&error, StorageError::Foreign { file, .. } if *file == path(newest)));
    // Leftovers go, and what is nobody's stays.
    let mut leftovers = image.clone();
    for name in ["0000000000000200-3.snap.1.tmp", "0000000000000100-1.snap.2.tmp", "notes"] {
        leftovers.insert(Path::new("/data/snap").join(name), vec![1]);
    }
    let disk = MemoryDisk::new(leftovers);
    drop(open(&disk).unwrap());
    let notes = PathBuf::from("/data/snap/notes");
    assert_eq!(snapshots(&disk), [path(older), path(newest), notes]);
}

#[test]
fn a_full_disk_gives_up_a_snapshot_and_nothing_else() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let mut model = Model::default();
    let mut storage = start(&disk, &mut model).unwrap();
    commit(&mut storage, &mut model, 30).unwrap();
    let used: usize = disk.image().values().map(Vec::len).sum();
    // 1. There is room for a part of it.
    let (_, bytes) = snapshot(model.id_at(30));
    for room in [0, 50, 150, bytes.len() - 1] {
        disk.0.borrow_mut().capacity = Some(used + room);
        let fulls = model.fulls;
        model.make(&mut storage, OWN, 30).unwrap();
        settle(&mut storage, &mut model).unwrap();
        assert_eq!((model.fulls, model.durables), (fulls + 1, 0));
        assert_eq!(snapshots(&disk), [] as [PathBuf; 0]);
        // What comes late for it is ignored.
        storage.write_snapshot(OWN, model.id_at(30), 700, bytes.slice(0..1)).unwrap();
        storage.finish_snapshot(OWN, model.id_at(30), 701).unwrap();
        settle(&mut storage, &mut model).unwrap();
    }
    // 2. The log goes on, and so do snapshots once there is space.
    model.append(&mut storage, 30, 1).unwrap();
    settle(&mut storage, &mut model).unwrap();
    disk.0.borrow_mut().capacity = None;
    model.make(&mut storage, OWN, 30).unwrap();
    settle(&mut storage, &mut model).unwrap();
    assert_eq!(model.durables, 1);
    drop(storage);
    start(&disk, &mut model).unwrap();
}

#[test]
fn snapshots_of_both_kinds_grow_beside_each_other_and_can_be_given_up() {
    let disk = MemoryDisk::new(BTreeMap::new());
    disk.0.borrow_mut().prompt = false;
    let mut storage = open(&disk).unwrap().0;
    let (own, received) = (id(10, 1), id(20, 1));
    let (_, own_bytes) = snapshot(own);
    let (_, received_bytes) = snapshot(received);
    let finish_all = |storage: &mut Storage| {
        let mut events = Vec::new();
        loop {
            storage.complete().unwrap();
            events.extend(std::iter::from_fn(|| storage.next_snapshot_event()));
            let under_way = disk.0.borrow().under_way.len();
            match under_way.checked_sub(1) {
                Some(newest) => disk.finish(newest),
                None => return events,
            }
        }
    };
    // 1. An unfinished one is given up by the next of its kind, while a write of it is under way.
    storage.write_snapshot(OWN, id(5, 1), 0, Bytes::from_static(b"half")).unwrap();
    storage.write_snapshot(RECEIVED, received, 0, received_bytes.slice(..9)).unwrap();
    storage.write_snapshot(OWN, own, 0, own_bytes.slice(..5)).unwrap();
    storage.write_snapshot(OWN, own, 5, own_bytes.slice(5..)).unwrap();
    storage.write_snapshot(OWN, id(5, 1), 4, Bytes::from_static(b"late")).unwrap();
    let events = finish_all(&mut storage);
    let through = own_bytes.len() as u64;
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(events.contains(&SnapshotEvent::Written { kind: RECEIVED, id: received, through: 9 }));
    assert!(events.contains(&SnapshotEvent::Written { kind: OWN, id: own, through }));
    assert_eq!(snapshots(&disk).len(), 2, "{:?}", snapshots(&disk));
    // 2. One becomes durable while the other grows.
    storage.finish_snapshot(OWN, own, own_bytes.len() as u64).unwrap();
    storage.write_snapshot(RECEIVED, received, 9, received_bytes.slice(9..)).unwrap();
    let events = finish_all(&mut storage);
    assert!(events.contains(&SnapshotEvent::Durable { kind: OWN, id: own }));
    storage.finish_snapshot(RECEIVED, received, received_bytes.len() as u64).unwrap();
    let events = finish_all(&mut storage);
    assert_eq!(events, [SnapshotEvent::Durable { kind: RECEIVED, id: received }]);
    assert_eq!(snapshots(&disk), [path(own), path(received)]);
    // 3. One that is there already stays as it is; one that was given up leaves nothing.
    storage.write_snapshot(OWN, received, 0, Bytes::from_static(b"other bytes")).unwrap();
    storage.finish_snapshot(OWN, received, 11).unwrap();
    storage.write_snapshot(RECEIVED, id(30, 1), 0, Bytes::from_static(b"half")).unwrap();
    storage.abandon_snapshot(RECEIVED).unwrap();
    let events = finish_all(&mut storage);
    assert!(events.contains(&SnapshotEvent::Durable { kind: OWN, id: received }));
    assert_eq!(disk.image()[&path(received)], received_bytes);
    assert_eq!(snapshots(&disk), [path(own), path(received)]);
    // 4. One that a newer one has overtaken is not needed any more.
    storage.write_snapshot(OWN, id(15, 1), 0, Bytes::from_static(b"late")).unwrap();
    storage.finish_snapshot(OWN, id(15, 1), 4).unwrap();
    let events = finish_all(&mut storage);
    assert!(events.contains(&SnapshotEvent::Durable { kind: OWN, id: id(15, 1) }));
    assert_eq!(snapshots(&disk), [path(own), path(received)]);
    let held: Vec<(SnapshotId, u64)> = storage.snapshots().collect();
    assert_eq!(held, [(own, through), (received, received_bytes.len() as u64)]);
}

#[test]
fn open_raises_the_term_to_that_of_an_installed_snapshot() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let mut model = Model::default();
    let mut storage = start(&disk, &mut model).unwrap();
    commit(&mut storage, &mut model, 3).unwrap();
    let installed = id(9, 7);
    let (_, bytes) = snapshot(installed);
    storage.write_snapshot(RECEIVED, installed, 0, bytes.clone()).unwrap();
    storage.finish_snapshot(RECEIVED, installed, bytes.len() as u64).unwrap();
    for _ in 0..9 {
        storage.complete().unwrap();
    }
    drop(storage);
    for _ in 0..2 {
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.hard_state.current_term, Term(7));
        assert_eq!(recovered.hard_state.voted_for, None);
        assert_eq!(recovered.entries, []);
    }
}

#[test]
fn compact_leaves_a_gathered_truncation_its_place() {
    // 1. Ten entries, and the write of one more under way.
    let disk = MemoryDisk::new(BTreeMap::new());
    let mut model = Model::default();
    let mut storage = start(&disk, &mut model).unwrap();
    let entry = |index: u64, term: u64| Entry {
        index: LogIndex(index),
        term: Term(term),
        time: ClusterTime(5),
        kind: EntryKind::Batch,
        payload: Bytes::from_static(b"a"),
    };
    let state = |term| Some(HardState { current_term: Term(term), voted_for: None });
    let first = (1..=10).map(|index| entry(index, 1)).collect();
    let write = LogWrite { entries: first, hard_state: state(1), ..LogWrite::default() };
    storage.append(WalSeq(1), &write);
    storage.submit().unwrap();
    while storage.complete().unwrap() != Some(WalSeq(1)) {}
    disk.0.borrow_mut().prompt = false;
    let write = LogWrite { entries: vec![entry(11, 1)], ..LogWrite::default() };
    storage.append(WalSeq(2), &write);
    storage.submit().unwrap();
    // 2. Another leader replaces what follows on entry 7; that waits for the write.
    let truncate_from = Some(LogIndex(8));
    let entries = vec![entry(8, 2)];
    let hard_state = state(2);
    let write = LogWrite { truncate_from, entries, hard_state, ..LogWrite::default() };
    storage.append(WalSeq(3), &write);
    // 3. A snapshot that reaches further becomes durable meanwhile.
    let snapshot_id = SnapshotId { index: LogIndex(30), term: Term(2) };
    let bytes = Bytes::from_static(b"not read while this process lives");
    storage.write_snapshot(RECEIVED, snapshot_id, 0, bytes.clone()).unwrap();
    storage.finish_snapshot(RECEIVED, snapshot_id, bytes.len() as u64).unwrap();
    let mut is_durable = false;
    for _ in 0..100 {
        let other = |token: &Token| matches!(token, Token::Snapshot(_) | Token::Sweep);
        let at = disk.0.borrow().under_way.iter().position(|(token, _)| other(token));
        if let Some(at) = at {
            disk.finish(at);
        }
        storage.complete().unwrap();
        while let Some(event) = storage.next_snapshot_event() {
            is_durable |= matches!(event, SnapshotEvent::Durable { .. });
        }
    }
    assert!(is_durable);
    storage.compact(LogIndex(30)).unwrap();
    // 4. The log goes on.
    disk.0.borrow_mut().prompt = true;
    let mut through = None;
    for _ in 0..100 {
        while !disk.0.borrow().under_way.is_empty() {
            disk.finish(0);
        }
        through = storage.complete().unwrap().or(through);
        storage.submit().unwrap();
    }
    assert_eq!(through, Some(WalSeq(3)));
}
