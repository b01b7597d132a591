//! io_uring: a synced write is submitted, the loop goes on, and an eventfd says when it has ended.
//!
//! Called by [`super::real`]. Where the filesystem has direct access a durable write is one
//! `O_DIRECT|O_DSYNC` write; where it has not, a buffered write with a linked fdatasync. Never
//! retries, and never polls the kernel from a thread: an idle node costs nothing.
#![allow(
    unsafe_code,
    reason = "the kernel reads a submitted operation's memory after submit has returned; the \
              buffers in `under_way` outlive the operation"
)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use slab::Slab;

use super::buffer::{BlockBuffer, ZEROS};
use super::disk::{Done, Operation, Token};
use super::error::DiskError;

/// Slots of the ring: each of the three operations that may be under way takes at most two.
const ENTRIES: u32 = 8;

/// The ring.
pub struct Uring {
    ring: IoUring,
    under_way: Slab<UnderWay>,
    /// Readable when an operation has ended.
    pub event: OwnedFd,
}

/// An operation that the kernel has: its memory and files, until the last of its parts has ended.
struct UnderWay {
    token: Token,
    path: PathBuf,
    blocks: Option<BlockBuffer>,
    parts: u8,
    failure: Option<DiskError>,
}

/// What a part is, in the low bits of its user data.
#[derive(Clone, Copy)]
enum Part {
    Write = 0,
    Fdatasync = 1,
    Fsync = 2,
}

/// A segment's file as io_uring writes it.
pub struct Direct {
    synced: Option<File>,
    unsynced: Option<File>,
}

impl Direct {
    /// Opens the file for direct access, or notes that its filesystem has none.
    pub fn open(path: &Path) -> io::Result<Direct> {
        let open = |flags: OFlags| {
            let flags = flags | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(flags.bits() as i32);
            match options.open(path) {
                Ok(file) => Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
                Err(error) => Err(error),
            }
        };
        Ok(Direct { synced: open(OFlags::DSYNC)?, unsynced: open(OFlags::empty())? })
    }

    /// Whether the filesystem has direct access.
    pub fn is_direct(&self) -> bool {
        self.synced.is_some()
    }
}

impl Uring {
    /// Sets up a ring that keeps `lock` open for as long as the kernel works for it.
    ///
    /// # Errors
    /// The kernel has no io_uring, refuses it, or lacks an operation that is needed.
    pub fn new(lock: &File) -> io::Result<Uring> {
        let ring = IoUring::builder().dontfork().build(ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        for code in [opcode::Write::CODE, opcode::Fsync::CODE] {
            if !probe.is_supported(code) {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        // The lock falls with its last reference, and a ring gives up its registered files only
        // once all its operations have ended: so a killed process's last write cannot reach the
        // disk after its successor has read the log.
        ring.submitter().register_files(&[lock.as_raw_fd()])?;
        Ok(Uring { ring, under_way: Slab::new(), event })
    }

    /// Starts one operation on a file, which is called `path` now.
    pub fn submit(
        &mut self,
        token: Token,
        operation: Operation,
        path: &Path,
        file: &Arc<File>,
        direct: Option<&Direct>,
    ) -> Result<(), DiskError> {
        let synced = direct.and_then(|direct| direct.synced.as_ref());
        let unsynced = direct.and_then(|direct| direct.unsynced.as_ref());
        let slot = self.under_way.insert(UnderWay {
            token,
            path: path.to_path_buf(),
            blocks: None,
            parts: 1,
            failure: None,
        });
        match operation {
            Operation::WriteDurable { offset, blocks, .. } => {
                let under_way = &mut self.under_way[slot];
                let bytes = under_way.blocks.insert(blocks).blocks();
                if let Some(synced) = synced {
                    let write = write(synced.as_raw_fd(), bytes, offset);
                    self.push(&[write.user_data(user_data(slot, Part::Write))]);
                } else {
                    let write = write(file.as_raw_fd(), bytes, offset)
                        .flags(squeue::Flags::IO_LINK)
                        .user_data(user_data(slot, Part::Write));
                    let sync = opcode::Fsync::new(types::Fd(file.as_raw_fd()))
                        .flags(types::FsyncFlags::DATASYNC)
                        .build()
                        .user_data(user_data(slot, Part::Fdatasync));
                    under_way.parts = 2;
                    self.push(&[write, sync]);
                }
            }
            Operation::WriteZeros { offset, length, .. } => {
                let fd = unsynced.unwrap_or(file).as_raw_fd();
                let write = write(fd, ZEROS.first(length), offset);
                self.push(&[write.user_data(user_data(slot, Part::Write))]);
            }
            Operation::SyncDirectory { .. } => {
                let sync = opcode::Fsync::new(types::Fd(file.as_raw_fd())).build();
                self.push(&[sync.user_data(user_data(slot, Part::Fsync))]);
            }
        }
        self.enter(0).map_err(|source| DiskError::new("io_uring_enter", path, source))
    }

    fn push(&mut self, entries: &[squeue::Entry]) {
        // SAFETY: the memory of a write is ZEROS, which is never freed, or the block buffer in
        // `under_way`, which stays in its place on the heap and is dropped only after the kernel
        // has reported the operation's end (see `reap` and `drop`).
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        pushed.expect("three operations of two parts fit the ring");
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(want) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Appends what has ended.
    pub fn reap(&mut self, done: &mut Vec<Done>) {
        let mut count = [0; 8];
        // Nothing to read only means that nobody has woken us.
        let _ = rustix::io::read(&self.event, &mut count);
        for completion in self.ring.completion() {
            let slot = (completion.user_data() >> 2) as usize;
            let under_way = &mut self.under_way[slot];
            under_way.end_part(completion.user_data() & 3, completion.result());
            if under_way.parts == 0 {
                let ended = self.under_way.remove(slot);
                done.push(Done { token: ended.token, result: ended.failure.map_or(Ok(()), Err) });
            }
        }
    }

    /// Blocks until something has ended.
    pub fn wait(&mut self) -> Result<(), DiskError> {
        let entered = self.enter(1);
        entered.map_err(|source| DiskError::new("io_uring_enter", Path::new("io_uring"), source))
    }
}

impl UnderWay {
    fn end_part(&mut self, part: u64, result: i32) {
        self.parts -= 1;
        let operation = match part {
            0 => "write",
            1 => "fdatasync",
            _ => "fsync",
        };
        let expected = self.blocks.as_ref().map(|blocks| blocks.blocks().len());
        let source = match (part, result) {
            (_, ..0) => io::Error::from_raw_os_error(-result),
            (0, written) if expected.is_some_and(|all| written as usize != all) => {
                io::Error::new(io::ErrorKind::WriteZero, "a part was written")
            }
            _ => return,
        };
        // A failed write cancels the sync that is linked to it: the first failure is the cause.
        if self.failure.is_none() {
            self.failure = Some(DiskError::new(operation, &self.path, source));
        }
    }
}

fn write(fd: RawFd, bytes: &[u8], offset: u64) -> squeue::Entry {
    opcode::Write::new(types::Fd(fd), bytes.as_ptr(), bytes.len() as u32).offset(offset).build()
}

fn user_data(slot: usize, part: Part) -> u64 {
    (slot as u64) << 2 | part as u64
}

impl Drop for Uring {
    fn drop(&mut self) {
        let mut done = Vec::new();
        while !self.under_way.is_empty() {
            if self.wait().is_err() {
                // The kernel may still read the buffers: they must never be freed.
                std::mem::forget(std::mem::take(&mut self.under_way));
                return;
            }
            self.reap(&mut done);
        }
    }
}
