//! The real disk: what is written past the page cache and what is not meet in one file.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use super::disk::{Disk, FileId, Open, Operation, Outcome, Token};
use super::real::RealDisk;
use crate::config::SyncMode;
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
