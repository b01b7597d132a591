//! What a crash, a flipped byte and a lost file do to a small data directory: it recovers with all
//! that was acknowledged, or is refused by file and offset. Faults and bad files of the crate's
//! list; on a disk in memory, so that every byte gets its turn.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::disk::Token;
use super::memory::{Image, MemoryDisk, options};
use super::{Storage, StorageError};
use crate::limits;
use crate::proto::entry::{Entry, EntryKind, HardState, LogWrite, Recovered};
use crate::types::{Boot, ClusterTime, Identity, Incarnation, LogIndex, Nonce};
use crate::types::{Room, ServerId, Term, WalSeq};

fn entry(index: u64, term: u64, length: usize) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        time: ClusterTime(5),
        kind: EntryKind::Batch,
        payload: Bytes::from(vec![index as u8; length]),
    }
}

fn write(entries: Vec<Entry>, term: u64) -> LogWrite {
    LogWrite {
        reset: None,
        truncate_from: None,
        entries,
        hard_state: Some(HardState { current_term: Term(term), voted_for: Some(ServerId(2)) }),
    }
}

fn open(disk: &MemoryDisk) -> Result<(Storage, Recovered), StorageError> {
    open_as(disk, false)
}

/// The same where others may hold what is lost.
fn open_as(disk: &MemoryDisk, has_others: bool) -> Result<(Storage, Recovered), StorageError> {
    disk.forget_under_way();
    Storage::open_on(Box::new(disk.clone()), &options(has_others))
}

fn persist(storage: &mut Storage, seq: u64, write: &LogWrite) {
    storage.append(WalSeq(seq), write);
    storage.submit().unwrap();
    while storage.complete().unwrap() != Some(WalSeq(seq)) {}
}

/// A directory with two used segments and some lives of the process; what is in it, and the image
/// before its last write.
fn small_directory(seal: bool) -> (Image, Vec<Entry>, Image, usize) {
    let disk = MemoryDisk::new(BTreeMap::new());
    let mut log = Vec::new();
    let mut before = Image::new();
    let mut acknowledged_before = 0;
    for life in 1..=2u64 {
        let (mut storage, _) = open(&disk).unwrap();
        for seq in 1..=6 {
            before = disk.image();
            acknowledged_before = log.len();
            let length = if seq == 2 { 9_000 } else { 700 };
            let entries: Vec<Entry> =
                (1..=3).map(|more| entry(log.len() as u64 + more, life, length)).collect();
            log.extend(entries.clone());
            persist(&mut storage, seq, &write(entries, life));
        }
        if seal {
            storage.close().unwrap();
        }
    }
    assert!(disk.image().len() > 3, "meta and more than one segment");
    (disk.image(), log, before, acknowledged_before)
}

/// Opens a damaged image: everything acknowledged is there, or all but the last write if that may
/// be, or it is refused by file and offset. Where others may hold what is lost, it is not refused
/// but set aside, if it can be told whose it is.
fn judge(image: Image, log: &[Entry], may_lose_to: usize, damaged: &Path, at: usize) {
    let with_others = MemoryDisk::new(image.clone());
    let set_aside = open_as(&with_others, true);
    let disk = MemoryDisk::new(image);
    match open(&disk) {
        Ok((_, recovered)) => {
            let (_, same) = set_aside.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((same.entries, same.recovering), (recovered.entries.clone(), None));
            let all = recovered.entries == log;
            let rest = recovered.entries == log[..may_lose_to];
            let found = recovered.entries.len();
            assert!(all || rest, "{} at {at}: {found} entries", damaged.display());
            assert_eq!(recovered.hard_state.current_term, Term(2));
        }
        Err(StorageError::Corrupt { file, offset, .. }) if !file.ends_with("meta") => {
            assert_eq!(file, damaged, "at {at}");
            let (_, anew) = set_aside.unwrap_or_else(|error| panic!("{error}"));
            let why = anew.recovering.expect("it was begun anew");
            let named = format!("{} is corrupt at offset {offset}", file.display());
            assert!(why.contains(&named), "{why}");
            assert_eq!(anew.entries, []);
        }
        Err(StorageError::Corrupt { file, .. } | StorageError::Foreign { file, .. }) => {
            assert_eq!(file, damaged, "at {at}");
            assert!(set_aside.is_err(), "whose it is cannot be told");
        }
        Err(other) => panic!("{} at {at}: {other}", damaged.display()),
    }
}

#[test]
fn open_survives_or_names_every_flipped_byte() {
    for seal in [false, true] {
        let (image, log, _, before) = small_directory(seal);
        let may_lose_to = if seal { log.len() } else { before };
        for (path, content) in &image {
            for at in 0..content.len() {
                // Every byte that holds something, and its neighbourhood; of long zeros a part.
                let near = at.saturating_sub(64)..content.len().min(at + 64);
                if content[near].iter().all(|byte| *byte == 0) && at % 61 != 0 {
                    continue;
                }
                let mut damaged = image.clone();
                damaged.get_mut(path).unwrap()[at] ^= 1 << (at % 8);
                judge(damaged, &log, may_lose_to, path, at);
            }
        }
    }
}

#[test]
fn open_names_every_file_that_was_cut() {
    for seal in [false, true] {
        let (image, log, _, _) = small_directory(seal);
        for (path, content) in &image {
            for length in (0..content.len()).step_by(if content.len() < 1000 { 1 } else { 37 }) {
                let mut damaged = image.clone();
                damaged.get_mut(path).unwrap().truncate(length);
                let refused = open(&MemoryDisk::new(damaged)).err();
                let refused = refused.unwrap_or_else(|| panic!("{} at {length}", path.display()));
                assert!(
                    matches!(&refused, StorageError::Corrupt { file, .. } if file == path),
                    "{refused}"
                );
            }
            let mut damaged = image.clone();
            damaged.remove(path);
            let mut segments = image.iter().rev();
            let unused = segments.find(|(_, content)| {
                content.len() > 4096 && content.iter().skip(4096).all(|b| *b == 0)
            });
            let last = unused.is_some_and(|(unused, _)| unused == path);
            match open(&MemoryDisk::new(damaged)) {
                // The segment after the current one was made ahead, and holds nothing yet.
                Ok((_, recovered)) if last => assert_eq!(recovered.entries, log),
                Ok(_) => panic!("{} was removed, and not missed", path.display()),
                Err(refused) => assert!(refused.to_string().contains("missing"), "{refused}"),
            }
        }
    }
}

#[test]
fn open_cuts_a_last_write_torn_at_any_byte() {
    let (after, log, before, kept) = small_directory(false);
    let path = before
        .iter()
        .find(|(path, content)| after[*path] != **content)
        .map(|(path, _)| path.clone())
        .unwrap();
    let differ = |at: &usize| before[&path][*at] != after[&path][*at];
    let first = (0..before[&path].len()).find(differ).unwrap();
    let last = (0..before[&path].len()).rfind(differ).unwrap();
    // 1. Torn at every length of the last write.
    for torn_at in first..=last {
        let mut torn = before.clone();
        torn.get_mut(&path).unwrap()[..torn_at].copy_from_slice(&after[&path][..torn_at]);
        check_torn(torn, &log[..kept]);
    }
    // 2. Torn into any subset of its sectors.
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    for _ in 0..300 {
        let mut torn = before.clone();
        for sector in first / 512..=last / 512 {
            if rng.random_bool(0.5) {
                let sector = sector * 512..(sector + 1) * 512;
                torn.get_mut(&path).unwrap()[sector.clone()].copy_from_slice(&after[&path][sector]);
            }
        }
        if torn[&path] != after[&path] {
            check_torn(torn, &log[..kept]);
        }
    }
}

/// A torn directory opens without its last write, and goes on: what is written then is there after
/// the next crash, and nothing of the torn write ever follows on.
fn check_torn(torn: Image, expected: &[Entry]) {
    let disk = MemoryDisk::new(torn);
    let (mut storage, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries, expected);
    let next = entry(expected.len() as u64 + 1, 3, 10);
    persist(&mut storage, 1, &write(vec![next.clone()], 3));
    drop(storage);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries.len(), expected.len() + 1);
    assert_eq!(recovered.entries.last(), Some(&next));
    assert_eq!(recovered.hard_state.current_term, Term(3));
}

#[test]
fn completions_in_any_order_and_crashes_at_any_point_lose_nothing_acknowledged() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
    for round in 0..40 {
        let disk = MemoryDisk::new(BTreeMap::new());
        let mut term = 1;
        for life in 1..=4 {
            disk.0.borrow_mut().prompt = true;
            let (mut storage, recovered) = open(&disk).unwrap();
            assert_eq!(recovered.identity.boot, Boot(life));
            let mut log = recovered.entries;
            disk.0.borrow_mut().prompt = false;
            // The log after each log write.
            let mut states = vec![log.clone()];
            let mut seq = 0;
            let mut durable = 0;
            for _ in 0..rng.random_range(1..60) {
                // 1. Gather some writes, a few of them truncating what isn't durable yet.
                for _ in 0..rng.random_range(0..4) {
                    seq += 1;
                    let mut write = LogWrite::default();
                    let floor = states[durable as usize].len();
                    if log.len() > floor && rng.random_bool(0.2) {
                        term += 1;
                        let from = rng.random_range(floor..log.len());
                        log.truncate(from);
                        write.truncate_from = Some(LogIndex(from as u64 + 1));
                    }
                    let length = rng.random_range(0..20_000);
                    let next = entry(log.len() as u64 + 1, term, length);
                    log.push(next.clone());
                    write.entries.push(next);
                    storage.append(WalSeq(seq), &write);
                    states.push(log.clone());
                }
                storage.submit().unwrap();
                // 2. Let some of what is under way end, in any order.
                for _ in 0..rng.random_range(0..4) {
                    let count = disk.0.borrow().under_way.len();
                    if count > 0 {
                        disk.finish(rng.random_range(0..count));
                    }
                }
                if let Some(through) = storage.complete().unwrap() {
                    assert!(through.0 > durable && through.0 <= seq);
                    durable = through.0;
                }
            }
            // 3. Crash: what is under way is lost, or was done and not yet told.
            while rng.random_bool(0.5) && !disk.0.borrow().under_way.is_empty() {
                disk.finish(0);
            }
            drop(storage);
            let copy = MemoryDisk::new(disk.image());
            let (_, recovered) = open(&copy).unwrap();
            let kept = recovered.entries;
            let since = &states[durable as usize..];
            assert!(since.contains(&kept), "round {round}, life {life}");
        }
    }
}

#[test]
fn an_idle_log_submits_nothing() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, _) = open(&disk).unwrap();
    persist(&mut storage, 1, &write(vec![entry(1, 1, 100)], 1));
    for _ in 0..1000 {
        storage.complete().unwrap();
    }
    disk.0.borrow_mut().submitted.clear();
    for _ in 0..1000 {
        storage.submit().unwrap();
        storage.complete().unwrap();
    }
    assert_eq!(disk.0.borrow().submitted, []);
}

#[test]
fn a_log_write_waits_only_for_zeros_in_its_own_place() {
    // 1. A directory whose filling is under way, and doesn't end.
    let disk = MemoryDisk::new(BTreeMap::new());
    drop(open(&disk).unwrap());
    disk.0.borrow_mut().prompt = false;
    let (mut storage, _) = open(&disk).unwrap();
    let filling = |disk: &MemoryDisk| {
        let under_way = disk.0.borrow();
        under_way.under_way.iter().position(|(token, _)| *token == Token::Fill)
    };
    assert!(filling(&disk).is_some());
    // 2. A write to the place that is being filled is held until the zeros are there.
    storage.append(WalSeq(1), &write(vec![entry(1, 1, 100)], 1));
    storage.submit().unwrap();
    let logging = |disk: &MemoryDisk| {
        let under_way = disk.0.borrow();
        under_way.under_way.iter().position(|(token, _)| *token == Token::Log)
    };
    assert_eq!(logging(&disk), None);
    disk.finish(filling(&disk).unwrap());
    assert_eq!(storage.complete().unwrap(), None);
    // 3. Then it goes ahead, and no zeros fall on it.
    disk.finish(logging(&disk).unwrap());
    assert_eq!(storage.complete().unwrap(), Some(WalSeq(1)));
    drop(storage);
    disk.0.borrow_mut().prompt = true;
    assert_eq!(open(&disk).unwrap().1.entries.len(), 1);
}

#[test]
fn every_failed_write_is_final_and_named() {
    let mut failed = 0;
    for good in 0.. {
        let disk = MemoryDisk::new(BTreeMap::new());
        disk.0.borrow_mut().good_writes = Some(good);
        let run = || -> Result<(), StorageError> {
            let (mut storage, _) = open(&disk)?;
            let peer = Identity {
                cluster: crate::types::ClusterId::from_name("test"),
                server: ServerId(2),
                incarnation: Incarnation(9),
                boot: Boot(1),
                nonce: Nonce(4),
            };
            storage.record_peer(peer)?;
            for seq in 1..=4 {
                storage.append(WalSeq(seq), &write(vec![entry(seq, 1, 20_000)], 1));
                storage.submit()?;
                while storage.complete()? != Some(WalSeq(seq)) {}
            }
            storage.close()
        };
        match run() {
            Ok(()) => break,
            Err(StorageError::Disk(error)) => {
                assert_eq!(error.source.raw_os_error(), Some(5));
                assert!(error.file.starts_with("/data"), "{error}");
                failed += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failed > 15, "{failed} places to fail at");
}

#[test]
fn a_full_disk_is_told_keeps_a_reserve_and_ends() {
    let segment = limits::SEGMENT_BYTES_MIN as usize;
    let disk = MemoryDisk::new(BTreeMap::new());
    disk.0.borrow_mut().capacity = Some(4 * segment);
    let (mut storage, _) = open(&disk).unwrap();
    // 1. Growth goes on until the room is scarce.
    let mut seq = 0;
    while storage.room() == Room::Ample {
        seq += 1;
        persist(&mut storage, seq, &write(vec![entry(seq, 1, 3000)], 1));
        assert!(seq < 100);
    }
    assert_eq!(storage.room(), Room::Scarce);
    // 2. What shrinks the store, and terms and votes, still fit.
    while storage.room() == Room::Scarce {
        seq += 1;
        persist(&mut storage, seq, &write(vec![entry(seq, 1, 50)], 1));
    }
    let entries = seq;
    for term in 2..30 {
        seq += 1;
        persist(&mut storage, seq, &write(vec![], term));
    }
    assert_eq!(storage.room(), Room::Exhausted);
    storage.retry_room();
    assert_eq!(storage.room(), Room::Exhausted);
    // 3. A full directory opens again, and says soon that it is full.
    drop(storage);
    let (mut storage, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries.len() as u64, entries);
    assert_eq!(recovered.hard_state.current_term, Term(29));
    assert_eq!(storage.room(), Room::Exhausted);
    // 4. A write that doesn't fit waits, and nothing fails.
    storage.append(WalSeq(1), &write(vec![entry(entries + 1, 29, 60_000)], 29));
    storage.submit().unwrap();
    assert_eq!(storage.complete().unwrap(), None);
    // 5. Space comes back: it is written, and the room is ample by itself.
    disk.0.borrow_mut().capacity = None;
    storage.retry_room();
    let mut durable = None;
    for _ in 0..10 {
        durable = durable.or(storage.complete().unwrap());
    }
    assert_eq!(durable, Some(WalSeq(1)));
    assert_eq!(storage.room(), Room::Ample);
}

#[test]
fn an_empty_write_is_durable_after_what_came_before_it() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, _) = open(&disk).unwrap();
    // Enough of them to cross the end of a segment.
    for seq in 1..=2000 {
        persist(&mut storage, seq, &LogWrite::default());
    }
    persist(&mut storage, 2001, &write(vec![entry(1, 1, 1)], 1));
    persist(&mut storage, 2002, &LogWrite::default());
    drop(storage);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.hard_state, write(vec![], 1).hard_state.unwrap());
    assert_eq!(recovered.entries, [entry(1, 1, 1)]);
}

#[test]
fn record_peer_keeps_the_newest_process() {
    let disk = MemoryDisk::new(BTreeMap::new());
    let (mut storage, recovered) = open(&disk).unwrap();
    let peer = |server, incarnation, boot, nonce| Identity {
        cluster: recovered.identity.cluster,
        server: ServerId(server),
        incarnation: Incarnation(incarnation),
        boot: Boot(boot),
        nonce: Nonce(nonce),
    };
    for seen in [
        peer(3, 7, 2, 11),
        peer(2, 8, 5, 12),
        peer(2, 8, 4, 13),
        peer(2, 8, 6, 14),
        peer(3, 9, 1, 15),
    ] {
        storage.record_peer(seen).unwrap();
    }
    drop(storage);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.known_peers, [peer(2, 8, 6, 14), peer(3, 9, 1, 15)]);
    assert_ne!(recovered.identity.nonce, Nonce(0));
}
