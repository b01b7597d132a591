//! The simulated disk: storage's [`Disk`] on [`Media`], with latency, errors and an end of space.
//!
//! Handed to the unchanged `Storage::open_on`; the world keeps a second handle, lets submitted
//! operations end when their time has come, and crashes it. Submitted operations end in any order;
//! blocking ones take their effect at once. Never reads a clock.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::media::{Losses, Media};
use crate::storage::DiskError;
use crate::storage::buffer::ZEROS;
use crate::storage::disk::{Disk, Done, FileId, FileKind, Open, Operation, Outcome, Token};

const EIO: i32 = 5;
const ENOENT: i32 = 2;
const ENOSPC: i32 = 28;

/// What an open file stands for.
#[derive(Clone)]
enum Handle {
    File(usize, PathBuf),
    Directory(PathBuf),
}

struct UnderWay {
    number: u64,
    token: Token,
    operation: Operation,
}

/// What the storage and the world share.
pub(super) struct State {
    pub media: Media,
    handles: Vec<Option<Handle>>,
    under_way: Vec<UnderWay>,
    done: Vec<Done>,
    /// Operations that were submitted since the world last looked, and how long each takes.
    fresh: Vec<(u64, Duration)>,
    next_number: u64,
    /// How long an operation takes, from and to.
    pub latency: (Duration, Duration),
    /// Added to every operation: a disk that stalls.
    pub stall: Duration,
    /// After so many good writes and syncs, the next one fails.
    pub good_left: Option<u32>,
    /// After so many steps, writes and syncs and names, the machine dies in the middle of one.
    pub steps_left: Option<u32>,
    /// The machine has died so: nothing takes effect any more.
    has_crashed: bool,
    /// So many more reads fail.
    pub bad_reads: u32,
    /// An error that no process may survive was reported to this one.
    has_failed: bool,
    /// Bytes that all files may have together.
    pub capacity: Option<u64>,
    /// How often an error or a lack of space was reported.
    pub struck_errors: u32,
    pub struck_full: u32,
    random: Xoshiro256PlusPlus,
}

/// A handle on one server's disk.
#[derive(Clone)]
pub(super) struct SimDisk(Rc<RefCell<State>>);

impl SimDisk {
    pub fn new(random: Xoshiro256PlusPlus, latency: (Duration, Duration)) -> SimDisk {
        SimDisk(Rc::new(RefCell::new(State {
            media: Media::default(),
            handles: Vec::new(),
            under_way: Vec::new(),
            done: Vec::new(),
            fresh: Vec::new(),
            next_number: 0,
            latency,
            stall: Duration::ZERO,
            good_left: None,
            steps_left: None,
            has_crashed: false,
            bad_reads: 0,
            has_failed: false,
            capacity: None,
            struck_errors: 0,
            struck_full: 0,
            random,
        })))
    }

    /// Looks at, or changes, what is inside.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }

    /// Operations that were submitted since the last call, and how long each takes.
    pub fn take_fresh(&self) -> Vec<(u64, Duration)> {
        std::mem::take(&mut self.0.borrow_mut().fresh)
    }

    /// Operations that have not ended.
    pub fn under_way(&self) -> Vec<u64> {
        self.0.borrow().under_way.iter().map(|one| one.number).collect()
    }

    /// Lets an operation end. False if a crash has taken it.
    pub fn finish(&self, number: u64) -> bool {
        let mut state = self.0.borrow_mut();
        let Some(at) = state.under_way.iter().position(|one| one.number == number) else {
            return false;
        };
        state.finish(at);
        true
    }

    /// The process is gone, the machine goes on.
    pub fn kill(&self) {
        let mut state = self.0.borrow_mut();
        let State { media, random, under_way, handles, .. } = &mut *state;
        for one in under_way.drain(..) {
            match (target(handles, &one.operation), &one.operation) {
                (Some((inode, offset, bytes)), _) => media.abandon(inode, offset, bytes, random),
                (None, operation) => change_names(media, operation, random),
            }
        }
        state.forget_process();
    }

    /// The power is gone.
    pub fn lose_power(&self) -> Losses {
        let mut state = self.0.borrow_mut();
        let State { media, random, under_way, handles, .. } = &mut *state;
        let mut torn = 0;
        for one in under_way.drain(..) {
            if let Some((inode, offset, bytes)) = target(handles, &one.operation)
                && one.token == Token::Log
            {
                torn += u32::from(media.tear(inode, offset, bytes, random));
            }
            change_names(media, &one.operation, random);
        }
        let mut losses = media.lose_power(random);
        losses.torn = torn;
        state.forget_process();
        losses
    }
}

/// The kernel may have come to what changes names, or not.
fn change_names(media: &mut Media, operation: &Operation, random: &mut Xoshiro256PlusPlus) {
    match operation {
        Operation::Remove { path } if random.random_bool(0.5) => {
            media.remove(path);
        }
        Operation::Rename { from, to } if random.random_bool(0.5) => {
            media.rename(from, to);
        }
        Operation::Open { path, how: Open::New } if random.random_bool(0.5) => {
            media.create(path);
        }
        _ => {}
    }
}

/// The bytes that an operation writes, and where.
fn target<'a>(
    handles: &[Option<Handle>],
    operation: &'a Operation,
) -> Option<(usize, usize, &'a [u8])> {
    let (file, offset, bytes) = match operation {
        Operation::WriteDurable { file, offset, blocks } => (file, offset, blocks.blocks()),
        Operation::WriteZeros { file, offset, length } => (file, offset, ZEROS.first(*length)),
        Operation::Write { file, offset, bytes } => (file, offset, &bytes[..]),
        _ => return None,
    };
    match handles.get(file.0)? {
        Some(Handle::File(inode, _)) => Some((*inode, *offset as usize, bytes)),
        _ => None,
    }
}

impl State {
    fn forget_process(&mut self) {
        self.handles.clear();
        self.under_way.clear();
        self.done.clear();
        self.fresh.clear();
        self.steps_left = None;
        self.has_crashed = false;
        self.has_failed = false;
    }

    /// Whether the machine died in the middle of an operation.
    pub fn has_crashed(&self) -> bool {
        self.has_crashed
    }

    /// Whether the process was told of an error that it must not survive.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// One more step that changes something; not taken if the machine dies now or has died.
    fn take_step(&mut self, what: &'static str, path: &Path) -> Result<(), DiskError> {
        match &mut self.steps_left {
            _ if self.has_crashed => {}
            Some(0) => self.has_crashed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.has_crashed { Err(error(what, path, EIO)) } else { Ok(()) }
    }

    fn file(&self, file: FileId) -> (usize, PathBuf) {
        match self.handles.get(file.0) {
            Some(Some(Handle::File(inode, path))) => (*inode, path.clone()),
            _ => unreachable!("the storage uses a file while it is open"),
        }
    }

    fn path(&self, file: FileId) -> PathBuf {
        match self.handles.get(file.0) {
            Some(Some(Handle::File(_, path) | Handle::Directory(path))) => path.clone(),
            _ => unreachable!("the storage uses a file while it is open"),
        }
    }

    /// A write or sync is about to succeed, unless the disk has had enough.
    fn strike(&mut self, what: &'static str, path: &Path) -> Result<(), DiskError> {
        self.take_step(what, path)?;
        self.fail_if_due(what, path)
    }

    fn fail_if_due(&mut self, what: &'static str, path: &Path) -> Result<(), DiskError> {
        match &mut self.good_left {
            None => Ok(()),
            Some(0) => {
                self.good_left = None;
                self.struck_errors += 1;
                self.has_failed = true;
                Err(error(what, path, EIO))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn sync_file(&mut self, inode: usize, path: &Path) -> Result<(), DiskError> {
        self.take_step("fdatasync", path)?;
        self.end_sync(inode, path)
    }

    fn end_sync(&mut self, inode: usize, path: &Path) -> Result<(), DiskError> {
        let file = &mut self.media.inodes[inode];
        match self.good_left {
            Some(0) => file.fail_sync(),
            _ => file.sync(),
        }
        self.fail_if_due("fdatasync", path)
    }

    /// Whether `more` bytes still fit.
    fn take_space(&mut self, what: &'static str, path: &Path, more: u64) -> Result<(), DiskError> {
        let used = self.media.used();
        if more > 0 && self.capacity.is_some_and(|capacity| used + more > capacity) {
            self.struck_full += 1;
            return Err(error(what, path, ENOSPC));
        }
        Ok(())
    }

    fn finish(&mut self, at: usize) {
        // A read is no step: it changes nothing.
        let is_read = self.under_way[at].token == Token::Read;
        if self.has_crashed || !is_read && self.take_step("write", Path::new("")).is_err() {
            // The machine dies in the middle of it: what is left of it is decided there.
            return;
        }
        let UnderWay { token, operation, .. } = self.under_way.remove(at);
        let result = match &operation {
            Operation::WriteDurable { file, offset, blocks } => {
                let (inode, path) = self.file(*file);
                let struck = self.fail_if_due("write", &path);
                match (&struck, token) {
                    (Ok(()), Token::Log) => {
                        self.media.write_durable(inode, *offset as usize, blocks.blocks());
                    }
                    (Ok(()), _) => {
                        let file = &mut self.media.inodes[inode];
                        file.write_through(*offset as usize, blocks.blocks());
                    }
                    // The kernel may have kept the bytes in memory, where they look written.
                    (Err(_), _) => {
                        let State { media, random, .. } = self;
                        media.abandon(inode, *offset as usize, blocks.blocks(), random);
                    }
                }
                struck
            }
            Operation::WriteZeros { file, offset, length } => {
                // The segment may have been given up meanwhile.
                if let Some(Some(Handle::File(inode, _))) = self.handles.get(file.0) {
                    self.media.inodes[*inode].write_zeros(*offset as usize, *length);
                }
                Ok(())
            }
            Operation::Write { file, offset, bytes } => self.finish_write(*file, *offset, bytes),
            Operation::Release { file, offset, length } => {
                if let Some(Some(Handle::File(inode, _))) = self.handles.get(file.0) {
                    let (offset, length) = (*offset as usize, *length as usize);
                    self.media.inodes[*inode].write_zeros(offset, length);
                }
                Ok(())
            }
            Operation::SyncFile { file } => match self.handles.get(file.0).cloned() {
                Some(Some(Handle::File(inode, path))) => self.end_sync(inode, &path),
                // The snapshot was given up meanwhile.
                _ => Ok(()),
            },
            Operation::SyncDirectory { file } => {
                let path = self.path(*file);
                let struck = self.fail_if_due("fsync", &path);
                if struck.is_ok() {
                    self.media.sync_directory(&path);
                }
                struck
            }
            Operation::Remove { path } => match self.fail_if_due("unlink", path) {
                Ok(()) if !self.media.remove(path) => Err(error("unlink", path, ENOENT)),
                struck => struck,
            },
            Operation::Rename { from, to } => {
                self.fail_if_due("rename", from).and_then(|()| self.rename(from, to))
            }
            Operation::Open { path, how } => {
                let result = self.end_open(path, *how).map(Outcome::File);
                return self.done.push(Done { token, result });
            }
            Operation::Read { file, offset, length } => {
                let result = self.read(*file, *offset, *length).map(Outcome::Bytes);
                return self.done.push(Done { token, result });
            }
        };
        self.done.push(Done { token, result: result.map(|()| Outcome::Done) });
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DiskError> {
        if !self.media.rename(from, to) {
            return Err(error("rename", from, ENOENT));
        }
        for handle in self.handles.iter_mut().flatten() {
            if let Handle::File(_, path) = handle
                && path == from
            {
                *path = to.to_path_buf();
            }
        }
        Ok(())
    }

    /// Opens a file. A new one finds no space on a disk that has no byte left.
    fn end_open(&mut self, path: &Path, how: Open) -> Result<FileId, DiskError> {
        let inode = match how {
            Open::New | Open::NewSegment => {
                self.fail_if_due("open", path)?;
                self.take_space("open", path, 1)?;
                self.media.create(path)
            }
            _ => self.media.find(path).ok_or_else(|| error("open", path, ENOENT))?,
        };
        self.handles.push(Some(Handle::File(inode, path.to_path_buf())));
        Ok(FileId(self.handles.len() - 1))
    }

    /// As many bytes as there are; of a file that was given up meanwhile, none.
    fn read(&mut self, file: FileId, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        let Some(Some(Handle::File(inode, path))) = self.handles.get(file.0) else {
            return Ok(Vec::new());
        };
        if self.bad_reads > 0 {
            self.bad_reads -= 1;
            return Err(error("pread", path, EIO));
        }
        let mut bytes = vec![0; length];
        let count = self.media.inodes[*inode].cache.read(offset as usize, &mut bytes);
        bytes.truncate(count);
        Ok(bytes)
    }

    /// A plain write into the page cache; of a file that was given up meanwhile, nothing is left.
    fn finish_write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let Some(Some(Handle::File(inode, path))) = self.handles.get(file.0).cloned() else {
            return Ok(());
        };
        self.fail_if_due("write", &path)?;
        let length = self.media.inodes[inode].cache.len() as u64;
        let more = (offset + bytes.len() as u64).saturating_sub(length);
        self.take_space("write", &path, more)?;
        self.media.inodes[inode].write(offset as usize, bytes);
        Ok(())
    }
}

fn error(what: &'static str, path: &Path, errno: i32) -> DiskError {
    DiskError::new(what, path, io::Error::from_raw_os_error(errno))
}

impl Disk for SimDisk {
    fn create_directory(&mut self, _: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn list(&mut self, path: &Path) -> Result<Vec<(String, FileKind)>, DiskError> {
        let state = self.0.borrow();
        let inside = state.media.names.keys().filter(|file| file.parent() == Some(path));
        let name = |file: &PathBuf| {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.unwrap_or_default(), FileKind::Regular)
        };
        Ok(inside.map(name).collect())
    }

    fn kind(&mut self, path: &Path) -> Result<Option<FileKind>, DiskError> {
        let state = self.0.borrow();
        if state.media.find(path).is_some() {
            return Ok(Some(FileKind::Regular));
        }
        let inside = state.media.names.keys().any(|file| file.starts_with(path));
        Ok(inside.then_some(FileKind::Directory))
    }

    fn open(&mut self, path: &Path, how: Open) -> Result<FileId, DiskError> {
        let mut state = self.0.borrow_mut();
        let handle = match how {
            Open::New | Open::NewSegment => {
                state.strike("open", path)?;
                let inode = state.media.create(path);
                Handle::File(inode, path.to_path_buf())
            }
            Open::Existing | Open::Segment | Open::ReadOnly => {
                let inode = state.media.find(path);
                let inode = inode.ok_or_else(|| error("open", path, ENOENT))?;
                if how == Open::Segment {
                    state.sync_file(inode, path)?;
                    state.media.inodes[inode].drop_cache();
                }
                Handle::File(inode, path.to_path_buf())
            }
            Open::Directory => Handle::Directory(path.to_path_buf()),
        };
        state.handles.push(Some(handle));
        Ok(FileId(state.handles.len() - 1))
    }

    fn close(&mut self, file: FileId) {
        let closed = self.0.borrow_mut().handles[file.0].take();
        assert!(closed.is_some(), "a file is closed once");
    }

    fn length(&mut self, file: FileId) -> Result<u64, DiskError> {
        let state = self.0.borrow();
        Ok(state.media.inodes[state.file(file).0].cache.len() as u64)
    }

    fn read_at(&mut self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize, DiskError> {
        let bytes = self.0.borrow_mut().read(file, offset, out.len())?;
        out[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        let (inode, path) = state.file(file);
        state.strike("pwrite", &path)?;
        let length = state.media.inodes[inode].cache.len() as u64;
        let more = (offset + bytes.len() as u64).saturating_sub(length);
        state.take_space("pwrite", &path, more)?;
        state.media.inodes[inode].write(offset as usize, bytes);
        Ok(())
    }

    fn allocate(&mut self, file: FileId, length: u64) -> Result<bool, DiskError> {
        let mut state = self.0.borrow_mut();
        let (inode, path) = state.file(file);
        let has = state.media.inodes[inode].cache.len() as u64;
        if length > has {
            state.take_step("fallocate", &path)?;
        }
        state.take_space("fallocate", &path, length.saturating_sub(has))?;
        let length = has.max(length) as usize;
        state.media.inodes[inode].cache.resize(length);
        Ok(true)
    }

    fn sync(&mut self, file: FileId) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        match state.handles[file.0].clone() {
            Some(Handle::File(inode, path)) => state.sync_file(inode, &path)?,
            Some(Handle::Directory(path)) => {
                state.strike("fsync", &path)?;
                state.media.sync_directory(&path);
            }
            None => unreachable!("the storage syncs a file while it is open"),
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        state.strike("rename", from)?;
        state.rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        state.take_step("unlink", path)?;
        match state.media.remove(path) {
            true => Ok(()),
            false => Err(error("unlink", path, ENOENT)),
        }
    }

    fn random(&mut self) -> Result<u64, DiskError> {
        Ok(self.0.borrow_mut().random.random_range(1..=u64::MAX))
    }

    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        assert!(
            state.under_way.iter().all(|other| other.token != token),
            "bounded: one operation of a kind is under way"
        );
        let (least, most) = state.latency;
        let nanos = least.as_nanos() as u64..=most.as_nanos() as u64;
        let takes = state.stall + Duration::from_nanos(state.random.random_range(nanos));
        state.next_number += 1;
        let number = state.next_number;
        state.fresh.push((number, takes));
        state.under_way.push(UnderWay { number, token, operation });
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Done>) -> Result<(), DiskError> {
        done.append(&mut self.0.borrow_mut().done);
        Ok(())
    }

    fn wait(&mut self) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        if state.done.is_empty() {
            state.finish(0);
        }
        if state.has_crashed { Err(error("wait", Path::new(""), EIO)) } else { Ok(()) }
    }

    fn completion_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
