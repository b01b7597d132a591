//! io_uring: a synced write is submitted, the loop goes on, and an eventfd says when it has ended.
//!
//! Called by [`super::real`]. Where the device writes through its cache a durable write is one
//! `O_DIRECT|O_DSYNC` write; else a write, direct if the filesystem allows it, with a linked
//! fdatasync: there the kernel would end a synced write in a work queue, which waits milliseconds
//! for a busy processor. Never retries, and never polls: an idle node costs nothing.
#![allow(
    unsafe_code,
    reason = "the kernel reads a submitted operation's memory after submit has returned; the \
              buffers in `under_way` outlive the operation"
)]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, OFlags};
use slab::Slab;

use super::buffer::{BlockBuffer, ZEROS};
use super::disk::{Done, Operation, Token};
use super::error::DiskError;

/// Slots of the ring: each of the seven operations that may be under way takes at most two.
const ENTRIES: u32 = 16;

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
    memory: Memory,
    parts: u8,
    failure: Option<DiskError>,
}

/// What the kernel reads while it works on an operation.
enum Memory {
    None,
    /// Written whole or not at all.
    Blocks(BlockBuffer),
    /// What is left of a plain write, and where it goes.
    Rest(Arc<File>, u64, Bytes),
    /// The name of a file that is removed. Held, and read by the kernel alone.
    Name(#[expect(dead_code, reason = "the kernel reads it")] CString),
}

/// What a part is, in the low bits of its user data.
#[derive(Clone, Copy)]
enum Part {
    Write = 0,
    Fdatasync = 1,
    Fsync = 2,
    Unlink = 3,
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
        let unsynced = open(OFlags::empty())?;
        let synced = match &unsynced {
            Some(file) if writes_through(file) => open(OFlags::DSYNC)?,
            _ => None,
        };
        Ok(Direct { synced, unsynced })
    }

    /// How a write becomes durable here, for the start-up line.
    pub fn describe(&self) -> &'static str {
        match (&self.synced, &self.unsynced) {
            (Some(_), _) => "direct synced writes",
            (None, Some(_)) => "direct writes with fdatasync, as the device has no write-through",
            (None, None) => "buffered writes with fdatasync, as there is no direct access",
        }
    }
}

/// Whether the file's device has write-through writes (FUA). Where nothing says so, it has not.
fn writes_through(file: &File) -> bool {
    let Ok(stat) = rustix::fs::fstat(file) else {
        return false;
    };
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A partition has no queue of its own, but its disk above it has.
    ["queue/fua", "../queue/fua"].iter().any(|queue| {
        std::fs::read_to_string(format!("{device}/{queue}")).is_ok_and(|fua| fua.trim() == "1")
    })
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
        for code in [opcode::Write::CODE, opcode::Fsync::CODE, opcode::UnlinkAt::CODE] {
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
        let slot = self.begin(token, path);
        match operation {
            Operation::WriteDurable { offset, blocks, .. } => {
                let under_way = &mut self.under_way[slot];
                under_way.memory = Memory::Blocks(blocks);
                let Memory::Blocks(blocks) = &under_way.memory else {
                    unreachable!("it was put there just now");
                };
                let bytes = blocks.blocks();
                if let Some(synced) = synced {
                    let write = write(synced.as_raw_fd(), bytes, offset);
                    self.push(&[write.user_data(user_data(slot, Part::Write))]);
                } else {
                    let fd = unsynced.unwrap_or(file).as_raw_fd();
                    let write = write(fd, bytes, offset)
                        .flags(squeue::Flags::IO_LINK)
                        .user_data(user_data(slot, Part::Write));
                    let sync = opcode::Fsync::new(types::Fd(fd))
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
            Operation::Write { offset, bytes, .. } => {
                let write = write(file.as_raw_fd(), &bytes, offset);
                self.under_way[slot].memory = Memory::Rest(Arc::clone(file), offset, bytes);
                self.push(&[write.user_data(user_data(slot, Part::Write))]);
            }
            Operation::SyncFile { .. } => {
                let sync = opcode::Fsync::new(types::Fd(file.as_raw_fd()))
                    .flags(types::FsyncFlags::DATASYNC)
                    .build();
                self.push(&[sync.user_data(user_data(slot, Part::Fdatasync))]);
            }
            Operation::SyncDirectory { .. } => {
                let sync = opcode::Fsync::new(types::Fd(file.as_raw_fd())).build();
                self.push(&[sync.user_data(user_data(slot, Part::Fsync))]);
            }
            Operation::Remove { .. } => unreachable!("a removal has no file"),
        }
        self.enter(0).map_err(|source| DiskError::new("io_uring_enter", path, source))
    }

    /// Starts the removal of a file.
    pub fn remove(&mut self, token: Token, path: &Path) -> Result<(), DiskError> {
        let failed = |source| DiskError::new("unlink", path, source);
        let name = CString::new(path.as_os_str().as_bytes());
        let name = name.map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
        let slot = self.begin(token, path);
        let unlink = opcode::UnlinkAt::new(types::Fd(CWD.as_raw_fd()), name.as_ptr()).build();
        self.under_way[slot].memory = Memory::Name(name);
        self.push(&[unlink.user_data(user_data(slot, Part::Unlink))]);
        self.enter(0).map_err(|source| DiskError::new("io_uring_enter", path, source))
    }

    fn begin(&mut self, token: Token, path: &Path) -> usize {
        let (path, memory) = (path.to_path_buf(), Memory::None);
        self.under_way.insert(UnderWay { token, path, memory, parts: 1, failure: None })
    }

    fn push(&mut self, entries: &[squeue::Entry]) {
        // SAFETY: the memory of a write is ZEROS, which is never freed, or a block buffer or bytes
        // in `under_way`, and a name is there too. All of these stay in their place on the heap and
        // are dropped only after the kernel has reported the operation's end (see `reap` and
        // `drop`): the rest of a plain write shares the memory of the whole.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        pushed.expect("seven operations of two parts fit the ring");
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
    ///
    /// # Errors
    /// The kernel takes no more operations.
    pub fn reap(&mut self, done: &mut Vec<Done>) -> Result<(), DiskError> {
        let mut count = [0; 8];
        // Nothing to read only means that nobody has woken us.
        let _ = rustix::io::read(&self.event, &mut count);
        let mut again = Vec::new();
        for completion in self.ring.completion() {
            let slot = (completion.user_data() >> 2) as usize;
            let under_way = &mut self.under_way[slot];
            let rest = under_way.end_part(completion.user_data() & 3, completion.result());
            again.extend(rest.map(|write| write.user_data(completion.user_data())));
            if under_way.parts == 0 {
                let ended = self.under_way.remove(slot);
                done.push(Done { token: ended.token, result: ended.failure.map_or(Ok(()), Err) });
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        self.push(&again);
        let entered = self.enter(0);
        entered.map_err(|source| DiskError::new("io_uring_enter", Path::new("io_uring"), source))
    }

    /// Blocks until something has ended.
    pub fn wait(&mut self) -> Result<(), DiskError> {
        let entered = self.enter(1);
        entered.map_err(|source| DiskError::new("io_uring_enter", Path::new("io_uring"), source))
    }
}

impl UnderWay {
    /// Takes note of a part's end. A plain write of which a part was written, as it happens where
    /// the disk is nearly full, goes on with the rest, which says why: that is no retry.
    fn end_part(&mut self, part: u64, result: i32) -> Option<squeue::Entry> {
        self.parts -= 1;
        let operation = match part {
            0 => "write",
            1 => "fdatasync",
            2 => "fsync",
            _ => "unlink",
        };
        let source = match (part, result, &mut self.memory) {
            (_, ..0, _) => io::Error::from_raw_os_error(-result),
            (0, written @ 1.., Memory::Rest(file, offset, bytes))
                if (written as usize) < bytes.len() =>
            {
                bytes.advance(written as usize);
                *offset += written as u64;
                self.parts += 1;
                return Some(write(file.as_raw_fd(), bytes, *offset));
            }
            (0, written, Memory::Blocks(blocks)) if written as usize != blocks.blocks().len() => {
                io::Error::new(io::ErrorKind::WriteZero, "a part was written")
            }
            (0, 0, Memory::Rest(..)) => io::ErrorKind::WriteZero.into(),
            _ => return None,
        };
        // A failed write cancels the sync that is linked to it: the first failure is the cause.
        if self.failure.is_none() {
            self.failure = Some(DiskError::new(operation, &self.path, source));
        }
        None
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
            if self.wait().is_err() || self.reap(&mut done).is_err() {
                // The kernel may still read the buffers: they must never be freed.
                std::mem::forget(std::mem::take(&mut self.under_way));
                return;
            }
        }
        // The kernel ends a ring some time after its last user; the lock need not wait for that
        // now. A failure only means that it does.
        let _ = self.ring.submitter().unregister_files();
    }
}
