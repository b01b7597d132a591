//! What a sweep leaves behind at each of its steps, on a disk in memory.
//!
//! Beside [`super::sweep`]. A crash between any two steps must find each file whole or without a
//! name: another start may take a snapshot for what its name says.

use std::path::{Path, PathBuf};

use super::disk::{Disk, Done, FileId, Open, Token};
use super::memory::{Image, MemoryDisk};
use super::sweep::Sweep;
use crate::limits;

const STEP: u64 = limits::SWEEP_STEP_BYTES;

fn path(number: u64) -> PathBuf {
    Path::new("/data/snap").join(format!("{number}.snap"))
}

/// A directory with files of these lengths, numbered from 0; a sweep of it.
fn begin(lengths: &[u64]) -> (MemoryDisk, Sweep) {
    let file = |(number, length): (usize, &u64)| (path(number as u64), vec![7; *length as usize]);
    let files: Image = lengths.iter().enumerate().map(file).collect();
    let mut disk = MemoryDisk::new(files);
    disk.0.borrow_mut().prompt = false;
    let names = disk.open(Path::new("/data/snap"), Open::Directory).unwrap();
    let mut sweep = Sweep::new(names);
    for (number, length) in lengths.iter().enumerate() {
        sweep.push(path(number as u64), *length, None);
    }
    (disk, sweep)
}

/// Lets the step end that is under way; false where there is none.
fn step(disk: &mut MemoryDisk, sweep: &mut Sweep) -> bool {
    if disk.0.borrow().under_way.is_empty() {
        return false;
    }
    disk.finish(0);
    let mut done = Vec::new();
    disk.reap(&mut done).unwrap();
    for Done { token, result } in done {
        assert_eq!(token, Token::Sweep);
        sweep.ended(disk, result).unwrap();
    }
    true
}

#[test]
fn a_large_file_has_no_name_when_its_first_part_goes() {
    let whole = vec![7; (2 * STEP + 5) as usize];
    let (mut disk, mut sweep) = begin(&[2 * STEP + 5]);
    sweep.go_on(&mut disk).unwrap();
    let mut steps = 0;
    while step(&mut disk, &mut sweep) {
        steps += 1;
        let image = disk.image();
        assert!(image.get(&path(0)).is_none_or(|content| *content == whole), "after step {steps}");
        let has_name = image.contains_key(&path(0));
        assert!(!has_name || disk.0.borrow().released.is_empty());
    }
    // It is opened, its name goes, durably, and three parts follow, each of them durably.
    assert_eq!(steps, 3 + 2 * 3);
    let parts = [(0, STEP), (STEP, STEP), (2 * STEP, 5)];
    let expected = parts.map(|(offset, length)| (path(0), offset, length));
    assert_eq!(disk.0.borrow().released, expected);
    assert!(!sweep.is_under_way());
}

#[test]
fn a_small_file_goes_at_once_and_the_next_one_follows() {
    let (mut disk, mut sweep) = begin(&[STEP, 3]);
    let is_open = disk.open(&path(1), Open::Existing).unwrap();
    sweep.push(path(2), 9, Some(is_open));
    disk.0.borrow_mut().files.insert(path(2), vec![1; 9]);
    sweep.go_on(&mut disk).unwrap();
    let mut steps = 0;
    while step(&mut disk, &mut sweep) {
        steps += 1;
    }
    assert_eq!(steps, 3, "each of them is one step");
    assert!(disk.image().is_empty());
}

#[test]
fn what_cannot_go_in_parts_goes_at_once() {
    let (mut disk, mut sweep) = begin(&[3 * STEP, 3 * STEP]);
    disk.0.borrow_mut().is_punching = false;
    sweep.go_on(&mut disk).unwrap();
    while step(&mut disk, &mut sweep) {}
    assert!(disk.image().is_empty());
    let asked = disk.0.borrow().released.len();
    assert_eq!(asked, 2, "once for each file");
    // Both were closed: closing one again would be refused.
    let still_open = |file| disk.0.borrow().is_open(FileId(file));
    assert!(!still_open(1) && !still_open(2));
}

#[test]
fn stop_ends_with_the_step_that_is_under_way() {
    let (mut disk, mut sweep) = begin(&[3 * STEP, 5]);
    sweep.go_on(&mut disk).unwrap();
    for _ in 0..4 {
        assert!(step(&mut disk, &mut sweep));
    }
    sweep.stop();
    assert!(sweep.is_under_way());
    assert!(step(&mut disk, &mut sweep));
    sweep.push(path(1), 5, None);
    sweep.go_on(&mut disk).unwrap();
    assert!(!sweep.is_under_way() && !step(&mut disk, &mut sweep));
    assert!(disk.image().contains_key(&path(1)), "the next start sees to it");
}
