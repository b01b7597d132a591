//! io_uring: a synced write is submitted, the loop goes on, and an eventfd says when it has ended.
//!
//! Called by [`super::real`]. Where the device writes through its cache a durable write is one
//! `O_DIRECT|O_DSYNC` write; else a write, direct if the filesystem allows it, with a linked
//! fdatasync: there the kernel would end a synced write in a work queue, which waits milliseconds
//! for a busy processor. (The log's writes are the thread's there, see [`super::real`].) Never
//! retries, and never polls: an idle node costs nothing.
#![allow(
    unsafe_code,
    reason = "the kernel uses a submitted operation's memory after submit has returned; the \
              buffers in `under_way` outlive the operation"
)]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, FallocateFlags, OFlags};
use slab::Slab;

use super::buffer::{BlockBuffer, ZEROS};
use super::disk::{Open, Operation, Token};
use super::error::DiskError;
use super::real::{Brought, Ended};

/// Slots of the ring: each of the eight operations that may be under way takes at most two.
const ENTRIES: u32 = 16;

/// What a new file may be used for, before the process's mask: as std has it.
const NEW_FILE_MODE: u32 = 0o666;

/// The ring.
pub struct Uring {
    ring: IoUring,
    under_way: Slab<UnderWay>,
    /// Told whenever an operation has ended. Nobody reads it: the poll hears each telling as an
    /// edge, whatever the counter holds.
    pub event: Arc<OwnedFd>,
}

/// An operation that the kernel has: its memory and files, until the last of its parts has ended.
struct UnderWay {
    token: Token,
    path: PathBuf,
    memory: Memory,
    parts: u8,
    failure: Option<DiskError>,
    opened: Option<File>,
}

/// What the kernel reads or fills while it works on an operation.
enum Memory {
    None,
    /// Written whole or not at all.
    Blocks(BlockBuffer),
    /// What is left of a plain write, and where it goes.
    Rest(Arc<File>, u64, Bytes),
    /// What a read fills, from where in the file, and how much of it is filled.
    Into(Arc<File>, u64, Vec<u8>, usize),
    /// The names of files, in their order. Held, and read by the kernel alone.
    Names(#[expect(dead_code, reason = "the kernel reads them")] [CString; 2]),
}

/// What a part is, in the low bits of its user data.
#[derive(Clone, Copy)]
enum Part {
    Write = 0,
    Fdatasync = 1,
    Fsync = 2,
    Unlink = 3,
    Read = 4,
    Rename = 5,
    Open = 6,
    Fallocate = 7,
}

const PART_BITS: u32 = 3;

/// A segment's file as it is opened for durable writes.
pub struct Direct {
    /// A write has ended only once it is durable; direct if the filesystem has that.
    synced: Arc<File>,
    /// Direct, or nothing where the filesystem has no direct access.
    unsynced: Option<File>,
    /// Whether the device writes through its cache: a synced write is then one operation for it.
    writes_through: bool,
    /// Whether there is a block device. Where there is none, a remote or stacked filesystem may not
    /// take a synced write for what it is.
    has_device: bool,
}

impl Direct {
    /// Opens the file for direct access, or notes that its filesystem has none.
    pub fn open(path: &Path) -> io::Result<Direct> {
        let open = |flags: OFlags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(flags.bits() as i32).open(path)
        };
        let unsynced = match open(OFlags::DIRECT) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
            Err(error) => return Err(error),
        };
        let direct = if unsynced.is_some() { OFlags::DIRECT } else { OFlags::empty() };
        let synced = Arc::new(open(direct | OFlags::DSYNC)?);
        let device = device(&synced);
        let has_device = device.as_ref().is_some_and(|device| Path::new(device).exists());
        let writes_through =
            device.filter(|_| unsynced.is_some()).is_some_and(|device| writes_through(&device));
        Ok(Direct { synced, unsynced, writes_through, has_device })
    }

    /// The file for reading whole blocks into aligned memory, past what memory has of it.
    pub fn for_reading(&self) -> Option<&File> {
        self.unsynced.as_ref()
    }

    /// Whether the filesystem took the file for direct access.
    pub fn has_direct_access(&self) -> bool {
        self.unsynced.is_some()
    }

    /// How the log's writes become durable here, for the start-up line.
    pub fn describe(&self) -> &'static str {
        match (self.writes_through, &self.unsynced) {
            (true, _) => "direct synced writes",
            (false, Some(_)) => {
                "direct synced writes by a thread, as the device has no write-through"
            }
            (false, None) => "synced writes by a thread, as there is no direct access",
        }
    }

    /// The file for whoever waits for each write by itself: where the ring would need two
    /// operations for one. And whether a write to it is synced by itself.
    pub fn awaited(&self) -> Option<(&Arc<File>, bool)> {
        (!self.writes_through).then_some((&self.synced, self.has_device))
    }
}

/// Where the system tells of the device that the file is on; there may be none.
fn device(file: &File) -> Option<String> {
    let stat = rustix::fs::fstat(file).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    Some(format!("/sys/dev/block/{major}:{minor}"))
}

/// Whether the device has write-through writes (FUA). Where nothing says so, it has not.
fn writes_through(device: &str) -> bool {
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
        let files = [opcode::Write::CODE, opcode::Read::CODE, opcode::Fsync::CODE];
        let names = [opcode::UnlinkAt::CODE, opcode::RenameAt::CODE, opcode::OpenAt::CODE];
        for code in files.into_iter().chain(names) {
            if !probe.is_supported(code) {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
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
        let synced = direct.filter(|direct| direct.writes_through).map(|direct| &direct.synced);
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
                    // The write's own completion is asked for although nothing is done with it: a
                    // kernel that was told to skip it has been seen to lose the sync's, too.
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
            Operation::Read { offset, length, .. } => {
                let mut bytes = vec![0; length];
                let entry = read(file.as_raw_fd(), &mut bytes, offset);
                self.under_way[slot].memory = Memory::Into(Arc::clone(file), offset, bytes, 0);
                self.push(&[entry.user_data(user_data(slot, Part::Read))]);
            }
            Operation::Release { offset, length, .. } => {
                let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let release = opcode::Fallocate::new(types::Fd(file.as_raw_fd()), length)
                    .offset(offset)
                    .mode(how.bits() as i32)
                    .build();
                self.push(&[release.user_data(user_data(slot, Part::Fallocate))]);
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
            Operation::Remove { .. } | Operation::Rename { .. } | Operation::Open { .. } => {
                unreachable!("what is done with names has no file")
            }
        }
        self.enter(0).map_err(|source| DiskError::new("io_uring_enter", path, source))
    }

    /// Starts what is done with names alone; errors name `path`.
    pub fn submit_name(
        &mut self,
        token: Token,
        operation: &Operation,
        path: &Path,
    ) -> Result<(), DiskError> {
        let cwd = types::Fd(CWD.as_raw_fd());
        let (entry, part, names) = match operation {
            Operation::Remove { path } => {
                let names = [c_name(path)?, CString::default()];
                (opcode::UnlinkAt::new(cwd, names[0].as_ptr()).build(), Part::Unlink, names)
            }
            Operation::Rename { from, to } => {
                let names = [c_name(from)?, c_name(to)?];
                let rename = opcode::RenameAt::new(cwd, names[0].as_ptr(), cwd, names[1].as_ptr());
                (rename.build(), Part::Rename, names)
            }
            Operation::Open { path, how } => {
                let names = [c_name(path)?, CString::default()];
                let open = opcode::OpenAt::new(cwd, names[0].as_ptr())
                    .flags(open_flags(*how).bits() as i32)
                    .mode(NEW_FILE_MODE);
                (open.build(), Part::Open, names)
            }
            _ => unreachable!("every other operation has a file"),
        };
        let slot = self.begin(token, path);
        self.under_way[slot].memory = Memory::Names(names);
        self.push(&[entry.user_data(user_data(slot, part))]);
        self.enter(0).map_err(|source| DiskError::new("io_uring_enter", path, source))
    }

    fn begin(&mut self, token: Token, path: &Path) -> usize {
        let (path, memory) = (path.to_path_buf(), Memory::None);
        let (parts, failure, opened) = (1, None, None);
        self.under_way.insert(UnderWay { token, path, memory, parts, failure, opened })
    }

    fn push(&mut self, entries: &[squeue::Entry]) {
        // SAFETY: the memory of a write is ZEROS, which is never freed, or a block buffer or bytes
        // in `under_way`, and what a read fills and names are there too. All of these stay in their
        // place on the heap, nobody else touches what a read fills, and they are dropped only after the kernel has reported the operation's end (see `reap` and
        // `drop`): the rest of a plain write shares the memory of the whole.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        pushed.expect("eight operations of two parts fit the ring");
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
    pub fn reap(&mut self, done: &mut Vec<Ended>) -> Result<(), DiskError> {
        let mut again = Vec::new();
        for completion in self.ring.completion() {
            let slot = (completion.user_data() >> PART_BITS) as usize;
            let part = completion.user_data() & ((1 << PART_BITS) - 1);
            let under_way = &mut self.under_way[slot];
            let rest = under_way.end_part(part, completion.result());
            again.extend(rest.map(|rest| rest.user_data(completion.user_data())));
            if under_way.parts == 0 {
                done.push(self.under_way.remove(slot).ended());
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
    /// What has come of it, once its last part has ended.
    fn ended(self) -> Ended {
        let UnderWay { token, path, memory, failure, opened, .. } = self;
        let brought = match (memory, opened) {
            (Memory::Into(_, _, mut bytes, filled), _) => {
                bytes.truncate(filled);
                Brought::Bytes(bytes)
            }
            (_, Some(file)) => Brought::File(file),
            (_, None) => Brought::Nothing,
        };
        Ended { token, path, result: failure.map_or(Ok(brought), Err) }
    }

    /// Takes note of a part's end. A plain write of which a part was written, as it happens where
    /// the disk is nearly full, goes on with the rest, which says why: that is no retry. So does a
    /// read, until nothing comes: that is the file's end.
    fn end_part(&mut self, part: u64, result: i32) -> Option<squeue::Entry> {
        self.parts -= 1;
        let operation = match part {
            0 => "write",
            1 => "fdatasync",
            2 => "fsync",
            3 => "unlink",
            4 => "read",
            5 => "rename",
            6 => "open",
            _ => "fallocate",
        };
        let source = match (part, result, &mut self.memory) {
            (_, ..=-1, _) => io::Error::from_raw_os_error(-result),
            (4, count @ 1.., Memory::Into(file, offset, bytes, filled)) => {
                *filled += count as usize;
                let at = *filled;
                if at < bytes.len() {
                    self.parts += 1;
                    let rest = &mut bytes[at..];
                    return Some(read(file.as_raw_fd(), rest, *offset + at as u64));
                }
                return None;
            }
            (6, fd, _) => {
                // SAFETY: the kernel has just opened it for this operation, and nobody else knows it.
                self.opened = Some(unsafe { File::from_raw_fd(fd) });
                return None;
            }
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

fn read(fd: RawFd, bytes: &mut [u8], offset: u64) -> squeue::Entry {
    let (start, length) = (bytes.as_mut_ptr(), bytes.len() as u32);
    opcode::Read::new(types::Fd(fd), start, length).offset(offset).build()
}

fn c_name(path: &Path) -> Result<CString, DiskError> {
    let name = CString::new(path.as_os_str().as_bytes());
    let invalid = || DiskError::new("using the name", path, io::ErrorKind::InvalidInput.into());
    name.map_err(|_| invalid())
}

/// As [`Disk::open`](super::disk::Disk::open) opens files that are no segments.
fn open_flags(how: Open) -> OFlags {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match how {
        Open::New => flags | OFlags::CREATE | OFlags::TRUNC,
        _ => flags,
    }
}

fn user_data(slot: usize, part: Part) -> u64 {
    (slot as u64) << PART_BITS | part as u64
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
