//! The real disk: what is written past the page cache and what is not meet in one file; a segment is
//! read the same directly and through memory.

use super::*;
use crate::storage::buffer::Window;
use crate::types::SnapshotKind;

const TOKEN: Token = Token::Snapshot(SnapshotKind::Own);

fn carry_out(disk: &mut RealDisk, operation: Operation) -> Outcome {
    disk.submit(TOKEN, operation).unwrap();
    let mut done = Vec::new();
    while done.is_empty() {
        disk.wait().unwrap();
        disk.reap(&mut done).unwrap();
    }
    done.swap_remove(0).result.unwrap()
}

fn create(disk: &mut RealDisk, path: &Path) -> FileId {
    let operation = Operation::Open { path: path.to_path_buf(), how: Open::New };
    match carry_out(disk, operation) {
        Outcome::File(file) => file,
        other => panic!("a file is opened, not {other:?}"),
    }
}

#[test]
fn writes_of_whole_blocks_and_others_make_one_file() {
    for mode in [SyncMode::Auto, SyncMode::Thread] {
        let dir = tempfile::tempdir().unwrap();
        let lock = File::create(dir.path().join("lock")).unwrap();
        let mut disk = RealDisk::open(mode, dir.path(), &lock).unwrap();
        let path = dir.path().join("file");
        let file = create(&mut disk, &path);
        let whole: Vec<u8> = (0..40_000u32).flat_map(u32::to_le_bytes).collect();
        // Blocks, blocks once more, less than one, one at no block's place, the rest, and blocks
        // over what has gone through the page cache.
        let ends = [64 * 1024, 72 * 1024, 75_000, 79_096, whole.len()];
        let mut start = 0;
        for end in ends {
            // Where its memory begins is no matter.
            let bytes = Bytes::copy_from_slice(&whole[start..end]);
            let write = Operation::Write { file, offset: start as u64, bytes };
            assert_eq!(carry_out(&mut disk, write), Outcome::Done);
            start = end;
        }
        let over = vec![7; 8192];
        let bytes = Bytes::from(over.clone());
        carry_out(&mut disk, Operation::Write { file, offset: 69_632, bytes });
        carry_out(&mut disk, Operation::SyncFile { file });
        let mut expected = whole;
        expected[69_632..77_824].copy_from_slice(&over);
        assert_eq!(std::fs::read(&path).unwrap(), expected, "{mode:?}");
    }
}

/// A segment with three blocks of different bytes, as a start opens it.
fn segment(mode: SyncMode, directory: &Path) -> (RealDisk, FileId, Vec<u8>) {
    let lock = File::create(directory.join("lock")).unwrap();
    let mut disk = RealDisk::open(mode, directory, &lock).unwrap();
    let path = directory.join("segment");
    let bytes: Vec<u8> = (0..3 * BLOCK_BYTES).map(|at| (at / 16 % 251) as u8).collect();
    let file = disk.open(&path, Open::NewSegment).unwrap();
    disk.write_at(file, 0, &bytes).unwrap();
    disk.close(file);
    let file = disk.open(&path, Open::Segment).unwrap();
    (disk, file, bytes)
}

#[test]
fn read_at_reads_the_same_directly_and_through_memory() {
    for mode in [SyncMode::Auto, SyncMode::Thread] {
        let directory = tempfile::tempdir().unwrap();
        let (mut disk, file, bytes) = segment(mode, directory.path());
        let mut window = Window::new(4 * BLOCK_BYTES);
        // Whole blocks, and the end of the file within what is asked for.
        for (from, length, read) in [(0, 1, 1), (1, 2, 2), (0, 4, 3), (2, 4, 1), (3, 1, 0)] {
            let (from, to) = (from * BLOCK_BYTES, (from + read) * BLOCK_BYTES);
            let out = window.first(length * BLOCK_BYTES);
            assert!(out.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
            let count = disk.read_at(file, from as u64, out).unwrap();
            assert_eq!(out[..count], bytes[from..to], "{from}, {mode:?}");
        }
        // Neither the place nor the length is a whole block's.
        let out = &mut window.first(BLOCK_BYTES)[..100];
        assert_eq!(disk.read_at(file, 50, out).unwrap(), 100);
        assert_eq!(*out, bytes[50..150]);
    }
}
