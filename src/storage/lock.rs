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
    wait_for(&file, &path)?;
    let pid = format!("{}\n", std::process::id());
    // A full disk must not keep a node from starting: the number only makes an error clearer.
    let noted = file.set_len(0).and_then(|()| file.write_all_at(pid.as_bytes(), 0));
    match noted.map_err(failed("write")) {
        Err(error) if !error.is_full() => Err(error.into()),
        _ => Ok(file),
    }
}

/// Takes the lock without a trace, to look at the directory; nothing where it was never locked,
/// such as a copy that was made without the file.
///
/// # Errors
/// As [`acquire`].
pub fn look(directory: &Path) -> Result<Option<File>, StorageError> {
    let path = directory.join("LOCK");
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::new("open", &path, error).into()),
    };
    wait_for(&file, &path)?;
    Ok(Some(file))
}

fn wait_for(file: &File, path: &Path) -> Result<(), StorageError> {
    let started = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(DiskError::new("flock", path, errno.into()).into()),
        }
        if started.elapsed() >= limits::LOCK_WAIT {
            let pid = holder(file);
            return Err(StorageError::Locked { file: path.to_path_buf(), pid });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn holder(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}
