//! The data directory's lock: two processes must never write one log.
//!
//! `flock` on the file LOCK, held by the running process and by its io_uring. Called when a
//! directory is opened. Never removes the file: a lock on a removed name would lock nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::error::{DiskError, StorageError};
use crate::limits;

/// Takes the lock, and writes this process's id into it; it falls when the file is closed.
///
/// # Errors
/// Another process holds it and goes on to, or the file cannot be had.
pub fn acquire(directory: &Path) -> Result<File, StorageError> {
    let path = directory.join("LOCK");
    let failed = |operation| {
        let path = path.clone();
        move |source| DiskError::new(operation, &path, source)
    };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags.bits() as i32)
        .open(&path)
        .map_err(failed("open"))?;
    if !file.metadata().map_err(failed("stat"))?.is_file() {
        return Err(StorageError::corrupt(&path, 0, "not a regular file"));
    }
    let started = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed("flock")(io::Error::from(errno)).into()),
        }
        if started.elapsed() >= limits::LOCK_WAIT {
            let pid = holder(&file);
            return Err(StorageError::Locked { file: path, pid });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = format!("{}\n", std::process::id());
    // A full disk must not keep a node from starting: the number only makes an error clearer.
    let noted = file.set_len(0).and_then(|()| file.write_all_at(pid.as_bytes(), 0));
    match noted.map_err(failed("write")) {
        Err(error) if !error.is_full() => Err(error.into()),
        _ => Ok(file),
    }
}

fn holder(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}
