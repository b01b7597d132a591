//! Damaged files of a real directory, with snapshots and several segments: what `verify` says of them
//! is what a start does, and looking changes nothing. Every byte is in the storage's own tests.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::*;
use raftkv::config::SyncMode;
use raftkv::storage::inspection::{self, Start, Verdict};
use raftkv::storage::{Options, Storage, StorageError};
use raftkv::types::LogIndex;

/// Two snapshots, and a log that begins between them.
fn directory(sync: SyncMode, is_sealed: bool) -> (tempfile::TempDir, Options, u64) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { has_others: true, ..options(dir.path(), sync, 64 * 1024) };
    let (mut storage, _) = open(&options);
    let mut seq = 0;
    for index in [40, 80] {
        while seq < index {
            seq += 1;
            persist(&mut storage, seq, &entries(vec![entry(seq, 1, &[5; 3000])])).unwrap();
        }
        assert!(make(&mut storage, &mut seq, id(index), &snapshot(id(index), 20_000).1));
        storage.compact(LogIndex(index)).unwrap();
        for _ in 0..20 {
            seq += 1;
            persist(&mut storage, seq, &entries(vec![entry(seq, 1, &[6; 3000])])).unwrap();
        }
    }
    match is_sealed {
        true => storage.close().unwrap(),
        false => drop(storage),
    }
    (dir, options, seq)
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// All files but the lock, by their paths in the directory.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for below in ["", "snap", "log"] {
        for file in fs::read_dir(dir.join(below)).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() && !path.ends_with("LOCK") {
                found.push((
                    path.strip_prefix(dir).unwrap().to_path_buf(),
                    fs::read(&path).unwrap(),
                ));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn verify_says_what_a_start_does() {
    let (mut whole, mut set_aside, mut refused) = (0, 0, 0);
    for (sync, is_sealed) in [(SyncMode::Uring, true), (SyncMode::Thread, false)] {
        let (dir, options, last) = directory(sync, is_sealed);
        let sound = inspection::inspect(dir.path()).unwrap();
        assert!(sound.first_bad().is_none(), "{:?}", sound.first_bad());
        let Start::Recovers { last: told, is_sealed: sealed, .. } = sound.start else { panic!() };
        assert_eq!((told, sealed), (LogIndex(last), is_sealed));
        for (path, content) in files(dir.path()) {
            // Where something is written: at the beginning, in the middle and at the end of that.
            let end = content.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            for at in [0, end / 4, end / 2, end * 3 / 4, end] {
                let copied = tempfile::tempdir().unwrap();
                let data = copied.path().join("data");
                copy(dir.path(), &data);
                let file = fs::OpenOptions::new().write(true).open(data.join(&path)).unwrap();
                file.write_all_at(&[content[at] ^ 0x10], at as u64).unwrap();
                drop(file);
                let what = format!("{} at {at}", path.display());
                let before = files(&data);
                let report = inspection::inspect(&data).unwrap();
                assert_eq!(files(&data), before, "{what}: looking has changed something");
                let options = Options { dir: data.clone(), ..options.clone() };
                match Storage::open(&options) {
                    Ok((_, recovered)) if recovered.recovering.is_none() => {
                        let Start::Recovers { last: told, .. } = report.start else {
                            panic!("{what}: {:?}", report.start)
                        };
                        let found = recovered.entries.last().map(|entry| entry.index);
                        assert_eq!(found, Some(told), "{what}");
                        assert!(told.0 + 1 >= last, "{what}: {told} of {last}");
                        let file = report.files.iter().find(|file| file.path == data.join(&path));
                        assert_ne!(file.unwrap().verdict, Verdict::Sound, "{what}");
                        whole += 1;
                    }
                    Ok((_, recovered)) => {
                        let (file, offset, _) = report.first_bad().expect("a bad byte");
                        let named = format!("{} is corrupt at offset {offset}", file.display());
                        assert!(recovered.recovering.unwrap().starts_with(&named), "{what}");
                        assert_eq!(file, data.join(&path));
                        assert!(data.join("damaged-1").join(&path).exists(), "{what}");
                        let kept = inspection::inspect(&data.join("damaged-1")).unwrap();
                        let (file, again, _) = kept.first_bad().expect("it is as bad as it was");
                        assert_eq!((file, again), (&*data.join("damaged-1").join(&path), offset));
                        set_aside += 1;
                    }
                    Err(StorageError::Corrupt { file, offset, .. }) => {
                        let (bad, first, _) = report.first_bad().expect("a bad byte");
                        assert_eq!((bad, first), (&*file, offset), "{what}");
                        assert_eq!(files(&data), before, "{what}");
                        refused += 1;
                    }
                    Err(other) => panic!("{what}: {other}"),
                }
            }
        }
    }
    println!("{whole} recovered, {set_aside} set aside, {refused} refused");
    assert!(whole > 5 && set_aside > 10 && refused > 5);
}

#[test]
fn a_directory_in_use_is_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(&options(dir.path(), SyncMode::Thread, 64 * 1024));
    match inspection::inspect(dir.path()).err() {
        Some(StorageError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    storage.close().unwrap();
    let report = inspection::inspect(dir.path()).unwrap();
    assert!(report.first_bad().is_none());
    // What is no data directory is told too, and nothing is made of it.
    let empty = tempfile::tempdir().unwrap();
    assert!(inspection::inspect(empty.path()).is_err());
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}
