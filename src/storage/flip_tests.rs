//! Every byte of every file of a small data directory flipped, and every file cut at every length:
//! it recovers with all that was acknowledged, or names file and offset, and `verify` says the same.
//!
//! Design page 5, files. On a disk in memory. Every 23rd byte and length gets its turn, all of them
//! where RAFTKV_EVERY_BYTE is set.

use std::collections::BTreeMap;
use std::path::Path;

use super::crash_model::Model;
use super::inspection::{self, Report, Start, Verdict};
use super::memory::{Image, MemoryDisk, options};
use super::read_only::ReadOnly;
use super::{Storage, StorageError};
use crate::proto::entry::Recovered;
use crate::types::{LogIndex, SnapshotKind};

/// Bytes from one that is damaged to the next, where not all are.
const STRIDE: usize = 23;

fn stride() -> usize {
    if std::env::var_os("RAFTKV_EVERY_BYTE").is_some() { 1 } else { STRIDE }
}

/// A directory, and what it stands for.
struct Case {
    image: Image,
    model: Model,
    /// The length of the log without its last write, where that cannot be told from a torn one.
    may_lose_to: usize,
}

/// How often a damaged directory came to which end.
#[derive(Default, Debug)]
struct Ends {
    whole: u32,
    torn: u32,
    set_aside: u32,
    refused: u32,
}

fn open(disk: &MemoryDisk, has_others: bool) -> Result<(Storage, Recovered), StorageError> {
    Storage::open_on(Box::new(disk.clone()), &options(has_others))
}

fn settle(storage: &mut Storage, model: &mut Model) {
    for _ in 0..40 {
        storage.submit().unwrap();
        model.complete(storage).unwrap();
    }
    assert!(model.is_settled());
}

/// Two lives of a process, with more than one segment, and with two snapshots if asked for.
fn case(has_snapshots: bool, is_sealed: bool) -> Case {
    let disk = MemoryDisk::new(BTreeMap::new());
    let mut model = Model::default();
    for life in [1, 2] {
        let (mut storage, recovered) = open(&disk, false).unwrap();
        model.started(&recovered);
        for _ in 0..4 {
            model.append(&mut storage, model.log().len(), 3 * life).unwrap();
            settle(&mut storage, &mut model);
            model.commit_log();
        }
        if has_snapshots {
            let index = model.log().len() - 3;
            model.make(&mut storage, SnapshotKind::Own, index).unwrap();
            settle(&mut storage, &mut model);
            storage.compact(LogIndex(index as u64)).unwrap();
            settle(&mut storage, &mut model);
        }
        match is_sealed {
            true => storage.close().unwrap(),
            false => drop(storage),
        }
    }
    let length = model.log().len();
    let image = disk.image();
    assert!(image.len() > 3, "meta and more than one segment: {:?}", image.keys());
    Case { image, model, may_lose_to: if is_sealed { length } else { length - 6 } }
}

/// What is said about a directory without touching it.
fn look(image: &Image) -> Report {
    let disk = MemoryDisk::new(image.clone());
    let report = inspection::inspect_on(&mut ReadOnly::new(disk.clone()), Path::new("/data"));
    assert!(disk.image() == *image, "looking changes nothing");
    report.unwrap()
}

/// Opens a damaged image, alone and with others that may hold the data, and looks at it.
fn judge(case: &Case, image: &Image, damaged: &Path, at: usize, ends: &mut Ends) {
    let what = format!("{} at {at}", damaged.display());
    let report = look(image);
    let with_others = MemoryDisk::new(image.clone());
    let set_aside = open(&with_others, true).map(|(_, recovered)| recovered);
    match open(&MemoryDisk::new(image.clone()), false) {
        Ok((_, recovered)) => {
            let found = case.model.read(&recovered);
            // The last entries may have taken two writes, at the end of a segment.
            let is_enough = found.len() >= case.may_lose_to;
            let is_part = case.model.log().starts_with(&found);
            assert!(is_enough && is_part, "{what}: {} entries", found.len());
            assert_eq!(set_aside.unwrap(), recovered, "{what}");
            let verdict = report.files.iter().find(|file| file.path == damaged);
            let verdict = &verdict.unwrap_or_else(|| panic!("{what}: not listed")).verdict;
            assert_ne!(*verdict, Verdict::Sound, "{what}: nobody has noticed");
            let Start::Recovers { last, .. } = report.start else { panic!("{what}") };
            assert_eq!(last.0 as usize, found.len(), "{what}");
            match verdict {
                Verdict::Torn { .. } => ends.torn += 1,
                _ => ends.whole += 1,
            }
        }
        Err(StorageError::Corrupt { file, offset, .. }) => {
            assert_eq!(file, damaged, "{what}");
            let (bad, first, _) = report.first_bad().unwrap_or_else(|| panic!("{what}: unseen"));
            assert_eq!((bad, first), (damaged, offset), "{what}");
            assert!(matches!(report.start, Start::Refuses { .. }), "{what}");
            if damaged.ends_with("meta") {
                assert!(set_aside.is_err(), "{what}: whose it is cannot be told");
                ends.refused += 1;
                return;
            }
            let why = set_aside.unwrap().recovering.expect("it was begun anew");
            let named = format!("{} is corrupt at offset {offset}", file.display());
            assert!(why.contains(&named), "{why}");
            let image = with_others.image();
            let kept = Path::new("/data/damaged-1").join(damaged.strip_prefix("/data").unwrap());
            assert!(image.contains_key(&kept), "{what}");
            ends.set_aside += 1;
        }
        Err(other) => panic!("{what}: {other}"),
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let all = [(false, false), (false, true), (true, false), (true, true)];
    all.into_iter().map(|(has_snapshots, is_sealed)| case(has_snapshots, is_sealed))
}

#[test]
fn every_flipped_byte_is_survived_or_named() {
    let mut ends = Ends::default();
    for case in cases() {
        let is_whole = look(&case.image).first_bad().is_none();
        assert!(is_whole, "an undamaged directory is sound");
        for (path, content) in &case.image {
            for at in (content.len() % STRIDE..content.len()).step_by(stride()) {
                // Of long zeros a part: they are all the same.
                let near = at.saturating_sub(64)..content.len().min(at + 64);
                if content[near].iter().all(|byte| *byte == 0) && at % 61 != 0 {
                    continue;
                }
                let mut image = case.image.clone();
                image.get_mut(path).unwrap()[at] ^= 1 << (at % 8);
                judge(&case, &image, path, at, &mut ends);
            }
        }
    }
    println!("{ends:?}");
    let Ends { whole, torn, set_aside, refused } = ends;
    assert!(whole > 10 && torn > 10 && set_aside > 1000 && refused > 10, "{ends:?}");
}

#[test]
fn every_cut_file_is_survived_or_named() {
    let mut ends = Ends::default();
    for case in cases() {
        for (path, content) in &case.image {
            let step = if content.len() < 2000 { 1 } else { stride() };
            for length in (0..content.len()).step_by(step) {
                let mut image = case.image.clone();
                image.get_mut(path).unwrap().truncate(length);
                judge(&case, &image, path, length, &mut ends);
            }
        }
    }
    println!("{ends:?}");
    let Ends { whole, torn, set_aside, refused } = ends;
    assert!(whole > 10 && set_aside > 1000 && refused > 100, "{ends:?}");
    assert_eq!(torn, 0, "a segment is never shorter than it says");
}

#[test]
fn every_removed_file_is_survived_or_named() {
    for case in cases() {
        for path in case.image.keys() {
            let mut image = case.image.clone();
            image.remove(path);
            match open(&MemoryDisk::new(image.clone()), false) {
                Ok((_, recovered)) => {
                    // Nothing is missed: a segment that was made ahead, one that the newest snapshot
                    // covers, or the snapshot that the other one and the log can stand in for.
                    assert_eq!(case.model.read(&recovered), case.model.log(), "{path:?}");
                    assert!(matches!(look(&image).start, Start::Recovers { .. }), "{path:?}");
                }
                Err(StorageError::Corrupt { file, offset, what }) => {
                    assert!(what.contains("missing") || what.contains("no whole write"), "{what}");
                    let report = look(&image);
                    let (bad, first, _) = report.first_bad().expect("it is told");
                    assert_eq!((bad, first), (&*file, offset));
                }
                Err(other) => panic!("{}: {other}", path.display()),
            }
        }
    }
}
