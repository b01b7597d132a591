//! `raftkvd snapshot`: what can be done with a backup where no node runs.
//!
//! `restore` makes a data directory of one, `inspect` says what is in one. Both read it from its
//! first byte to its last, with all its checksums, before anything is believed. Called by `main`.

pub mod inspect;
pub mod restore;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use raftkv::proto::snapshot::{SnapshotEnd, SnapshotHeader};
use raftkv::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};

use super::progress::Progress;

/// Bytes read at a time.
pub const WINDOW_BYTES: usize = 256 * 1024;

/// What a whole backup holds.
pub struct Contents {
    pub header: SnapshotHeader,
    pub end: SnapshotEnd,
    pub key_bytes: u64,
    pub value_bytes: u64,
    /// Records with a deadline.
    pub expiring: u64,
}

/// Reads a backup from its first byte to its last.
///
/// # Errors
/// One line: the file, and at which byte it stops being a snapshot.
pub fn verify(path: &Path) -> Result<Contents, String> {
    let (mut decoder, mut header) = (SnapshotDecoder::new(), None);
    let (mut key_bytes, mut value_bytes, mut expiring) = (0, 0, 0);
    each_piece(path, "verifying", |mut bytes| {
        while let Some(item) = decoder.decode(&mut bytes).map_err(|error| error.to_string())? {
            match item {
                SnapshotItem::Header(found) => header = Some(found),
                SnapshotItem::Record(record) => {
                    key_bytes += record.key.len() as u64;
                    value_bytes += record.value.len() as u64;
                    expiring += u64::from(record.deadline.is_some());
                }
                SnapshotItem::Section(..) | SnapshotItem::End(_) => {}
            }
        }
        Ok(())
    })?;
    let end = decoder.finish().map_err(|error| named(path, &error))?;
    let header = header.expect("a snapshot that came to its end began with a header");
    Ok(Contents { header, end, key_bytes, value_bytes, expiring })
}

/// Hands over a file piece by piece.
///
/// # Errors
/// One line that names the file.
pub fn each_piece(
    path: &Path,
    what: &'static str,
    mut take: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| named(path, &error))?;
    let status = file.metadata().map_err(|error| named(path, &error))?;
    if !status.is_file() {
        return Err(named(path, &"not a regular file"));
    }
    let mut progress = Progress::new(what, status.len());
    let mut window = vec![0; WINDOW_BYTES];
    let mut done = 0;
    loop {
        let read = file.read(&mut window).map_err(|error| named(path, &error))?;
        if read == 0 {
            progress.end();
            return Ok(());
        }
        if let Err(problem) = take(&window[..read]) {
            progress.end();
            return Err(named(path, &problem));
        }
        done += read as u64;
        progress.at(done);
    }
}

fn named(path: &Path, problem: &dyn std::fmt::Display) -> String {
    format!("{}: {problem}", path.display())
}
