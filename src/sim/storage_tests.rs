//! The storage alone on the simulated disk: power that goes at any moment, names and sectors that
//! were not synced, and then a damaged snapshot.
//!
//! Design page 5, disk: a crash at every step of snapshot and compaction, any subset of what was not
//! synced. What must be there then is told by [`crate::storage::crash_model`]; here it is chosen what
//! happens, from a seed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::damage::Damage;
use super::disk::SimDisk;
use super::media::Media;
use crate::config::SyncMode;
use crate::limits;
use crate::proto::entry::Recovered;
use crate::storage::crash_model::Model;
use crate::storage::{Options, Storage, StorageError};
use crate::types::{LogIndex, ServerId, SnapshotKind};

type Random = Xoshiro256PlusPlus;

fn options() -> Options {
    Options {
        dir: PathBuf::from("/data"),
        cluster: "test".to_owned(),
        server: ServerId(1),
        has_others: false,
        sync: SyncMode::Auto,
        segment_bytes: limits::SEGMENT_BYTES_MIN,
    }
}

fn disk(seed: u64) -> SimDisk {
    let latency = (Duration::from_micros(1), Duration::from_micros(9));
    SimDisk::new(Random::seed_from_u64(seed), latency)
}

fn open(disk: &SimDisk) -> Result<(Storage, Recovered), StorageError> {
    open_as(disk, false)
}

fn open_as(disk: &SimDisk, has_others: bool) -> Result<(Storage, Recovered), StorageError> {
    Storage::open_on(Box::new(disk.clone()), &Options { has_others, ..options() })
}

/// Does one thing that a node does.
fn step(storage: &mut Storage, model: &mut Model, random: &mut Random) -> Result<(), StorageError> {
    let (length, applied) = (model.log().len(), model.applied());
    match random.random_range(0..100) {
        0..40 => model.append(storage, length, random.random_range(1..6)),
        40..45 if length > applied => {
            let kept = random.random_range(applied..length);
            model.append(storage, kept, random.random_range(0..3))
        }
        45..75 => {
            model.commit_log();
            Ok(())
        }
        75..85 if applied as u64 > model.durable.index.0 => {
            let least = model.durable.index.0 as usize + 1;
            let index = random.random_range(least..=applied);
            model.make(storage, SnapshotKind::Own, index).map(|_| ())
        }
        85..89 => {
            model.commit_elsewhere(random.random_range(1..9));
            let index = model.committed.len();
            model.make(storage, SnapshotKind::Received, index).map(|_| ())
        }
        89..91 => storage.abandon_snapshot(SnapshotKind::Own),
        _ => {
            let through = LogIndex(random.random_range(0..=model.durable.index.0));
            storage.compact(through)
        }
    }
}

/// A life of the process until its power goes or it is killed.
fn live(disk: &SimDisk, model: &mut Model, random: &mut Random) {
    let (mut storage, recovered) = open(disk).unwrap_or_else(|error| panic!("{error}"));
    model.started(&recovered);
    for _ in 0..random.random_range(1..120) {
        step(&mut storage, model, random).unwrap();
        storage.submit().unwrap();
        for _ in 0..random.random_range(0..4) {
            let under_way = disk.under_way();
            if !under_way.is_empty() {
                disk.finish(under_way[random.random_range(0..under_way.len())]);
            }
        }
        model.complete(&mut storage).unwrap();
    }
    if random.random_bool(0.3) {
        disk.kill();
    } else {
        disk.lose_power();
    }
}

/// The newest snapshot on the stable media, if there is one.
fn newest(media: &Media) -> Option<PathBuf> {
    let snap = Path::new("/data/snap");
    let mut inside = media.stable_names.keys().rev().filter(|path| path.parent() == Some(snap));
    inside.find(|path| path.extension().is_some_and(|suffix| suffix == "snap")).cloned()
}

/// The same directory with a flipped bit in its newest snapshot is refused by that file's name, or
/// holds all that it would without.
fn damage(media: &Media, model: &Model, seed: u64, random: &mut Random) -> Option<bool> {
    let path = newest(media)?;
    let (whole, damaged) = (disk(seed), disk(seed));
    whole.with(|state| state.media = media.clone());
    damaged.with(|state| {
        state.media = media.clone();
        let inode = state.media.find(&path).expect("it is there");
        let file = &mut state.media.inodes[inode];
        let at = random.random_range(0..file.stable.len());
        file.stable.flip(at, 1 << random.random_range(0..8));
        file.drop_cache();
    });
    let (_, expected) = open(&whole).unwrap_or_else(|error| panic!("{error}"));
    match open(&damaged) {
        Ok((_, found)) => {
            assert_eq!(model.read(&found), model.read(&expected), "{}", path.display());
            Some(true)
        }
        Err(StorageError::Corrupt { file, .. }) => {
            assert_eq!(file, path);
            Some(false)
        }
        Err(other) => panic!("{other}"),
    }
}

/// What is in a directory and below it, by what it is called there.
fn below(media: &Media, directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let inside = media.names.iter().filter_map(|(path, inode)| {
        Some((path.strip_prefix(directory).ok()?.to_path_buf(), media.inodes[*inode].cache.whole()))
    });
    inside.collect()
}

/// A flipped bit in the middle of what the log has acknowledged.
fn rot(media: &mut Media, random: &mut Random) -> bool {
    media.damage(Damage::Rot, random).is_some()
}

/// Everything that the damaged directory held is in one directory beside the new one.
fn check_set_aside(before: &Media, after: &Media, recovered: &Recovered) {
    let why = recovered.recovering.as_deref().expect("it was begun anew");
    assert!(why.contains("is corrupt at offset") && why.ends_with("/data/damaged-1"), "{why}");
    assert!(recovered.entries.is_empty() && recovered.snapshot.is_none());
    let kept = below(after, Path::new("/data/damaged-1"));
    for directory in ["log", "snap"] {
        let held = below(before, &Path::new("/data").join(directory));
        // Leftovers that never counted may be gone.
        for (path, bytes) in
            held.iter().filter(|(path, _)| path.extension() != Some("tmp".as_ref()))
        {
            assert_eq!(kept.get(&Path::new(directory).join(path)), Some(bytes), "{path:?}");
        }
    }
    assert_eq!(below(after, Path::new("/data/damaged-2")), BTreeMap::new());
    assert_eq!(below(after, Path::new("/data/snap")), BTreeMap::new());
}

#[test]
fn setting_a_damaged_directory_aside_survives_a_crash_at_any_operation() {
    let (mut crashes, mut begun, mut seed) = (0, 0, 0);
    while begun < 6 {
        seed += 1;
        let mut random = Random::seed_from_u64(seed);
        let source = disk(seed);
        let mut model = Model::default();
        for _ in 0..3 {
            live(&source, &mut model, &mut random);
        }
        let mut media = source.with(|state| state.media.clone());
        media.forget_unsynced();
        if !rot(&mut media, &mut random) {
            continue;
        }
        begun += 1;
        for steps in 0.. {
            // 1. The machine dies in the middle of one operation, and of the next start's ...
            let disk = disk(seed * 1000 + u64::from(steps));
            disk.with(|state| state.media = media.clone());
            let mut left = Some(steps);
            let mut died = 0;
            let (storage, recovered) = loop {
                disk.with(|state| state.steps_left = left);
                match open_as(&disk, true) {
                    Ok(opened) => break opened,
                    Err(StorageError::Disk(_)) => {
                        assert!(disk.with(|state| state.has_crashed()));
                        match random.random_bool(0.5) {
                            true => disk.kill(),
                            false => drop(disk.lose_power()),
                        }
                        died += 1;
                        left = (died < 3).then(|| random.random_range(0..30));
                    }
                    Err(other) => panic!("seed {seed}, step {steps}: {other}"),
                }
            };
            // 2. ... and then it starts, with an empty log and nothing lost.
            disk.with(|state| check_set_aside(&media, &state.media, &recovered));
            drop(storage);
            disk.lose_power();
            let (_, again) = open_as(&disk, true).unwrap();
            assert_eq!(again.identity.incarnation, recovered.identity.incarnation);
            disk.with(|state| check_set_aside(&media, &state.media, &again));
            crashes += died;
            if died == 0 {
                break;
            }
        }
    }
    println!("{crashes} crashes while {begun} directories of {seed} were set aside");
    assert!(crashes > 200, "{crashes}");
}

#[test]
fn a_directory_with_snapshots_survives_power_cuts_at_any_moment() {
    let (mut durables, mut resets, mut replaced, mut refused, mut compacted) = (0, 0, 0, 0, 0);
    // More on demand.
    let seeds = std::env::var("RAFTKV_STORAGE_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(150).max(150) {
        let mut random = Random::seed_from_u64(seed);
        let disk = disk(seed);
        let mut model = Model::default();
        for _ in 0..8 {
            live(&disk, &mut model, &mut random);
            let media = disk.with(|state| state.media.clone());
            let mut settled = media.clone();
            settled.forget_unsynced();
            match damage(&settled, &model, seed, &mut random) {
                Some(true) => replaced += 1,
                Some(false) => refused += 1,
                None => {}
            }
        }
        let first = Path::new("/data/log/0000000000000001.wal");
        compacted += u32::from(disk.with(|state| state.media.find(first).is_none()));
        durables += model.durables;
        resets += model.resets;
    }
    println!("{durables} snapshots, {resets} resets, {replaced} replaced, {refused} refused");
    assert!(durables > 500 && resets > 100, "{durables} snapshots, {resets} resets");
    assert!(replaced > 100 && refused > 50, "{replaced} replaced, {refused} refused");
    assert!(compacted > 50, "{compacted} logs lost their first segment");
}
