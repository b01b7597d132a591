//! The works of a simulated disk: what is under way, what it comes to, and what goes wrong with it.
//!
//! Every operation of the storage may fail, find no space, be done in part, or take its time, as the
//! faults of a run have set it. Called by [`super::disk`], which is the storage's side of it, and by
//! the faults. Never reads a clock.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::media::Media;
use crate::storage::DiskError;
use crate::storage::buffer::ZEROS;
use crate::storage::disk::{Done, FileId, Open, Operation, Outcome, Token};

pub(super) const EIO: i32 = 5;
pub(super) const ENOENT: i32 = 2;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

/// What an open file stands for.
#[derive(Clone)]
pub(super) enum Handle {
    File(usize, PathBuf),
    Directory(PathBuf),
}

/// An operation that was submitted and has not ended.
pub(super) struct UnderWay {
    pub number: u64,
    pub token: Token,
    pub operation: Operation,
}

/// One blocking read in so many is short.
const SHORT_IN: u32 = 4;

/// What the storage and the world share.
pub(super) struct State {
    pub media: Media,
    pub handles: Vec<Option<Handle>>,
    pub under_way: Vec<UnderWay>,
    pub done: Vec<Done>,
    /// Operations that were submitted since the world last looked, and how long each takes.
    pub fresh: Vec<(u64, Duration)>,
    pub next_number: u64,
    /// How long an operation takes, from and to.
    pub latency: (Duration, Duration),
    /// Added to every operation: a disk that stalls.
    pub stall: Duration,
    /// After so many good writes and syncs, the next one fails.
    pub good_left: Option<u32>,
    /// After so many steps, writes and syncs and names, the machine dies in the middle of one.
    pub steps_left: Option<u32>,
    /// The machine has died so: nothing takes effect any more.
    pub(super) has_crashed: bool,
    /// So many more reads fail.
    pub bad_reads: u32,
    /// An error that no process may survive was reported to this one.
    pub(super) has_failed: bool,
    /// Bytes that all files may have together.
    pub capacity: Option<u64>,
    /// Whether somebody was told so since it had space.
    pub was_full: bool,
    /// How often an error or a lack of space was reported.
    pub struck_errors: u32,
    pub struck_full: u32,
    /// How often a read brought less than it was asked for.
    pub struck_short: u32,
    /// How often one failed.
    pub struck_reads: u32,
    /// How often zeros found no space or failed, a name found no room, and the process was blocked for
    /// as long as an operation takes.
    pub struck_zeros: u32,
    pub struck_names: u32,
    pub struck_blocks: u32,
    /// Whether zeros, holes and names fail too, writes are done in part, and what blocks takes time.
    pub is_rough: bool,
    /// Whether the filesystem promises no space.
    pub has_no_promise: bool,
    /// Whether it is unable to give space back in parts.
    pub has_no_holes: bool,
    /// How long the process has been blocked since the world last looked.
    pub blocked: Duration,
    /// What decides of short reads and of what is rough: apart, so that it changes nothing else.
    pub apart: Xoshiro256PlusPlus,
    pub random: Xoshiro256PlusPlus,
}

/// The kernel may have come to what changes names, or not.
pub(super) fn change_names(
    media: &mut Media,
    operation: &Operation,
    random: &mut Xoshiro256PlusPlus,
) {
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
pub(super) fn target<'a>(
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
    pub fn forget_process(&mut self) {
        self.handles.clear();
        self.under_way.clear();
        self.done.clear();
        self.fresh.clear();
        self.steps_left = None;
        self.has_crashed = false;
        self.has_failed = false;
        self.blocked = Duration::ZERO;
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
    pub fn take_step(&mut self, what: &'static str, path: &Path) -> Result<(), DiskError> {
        match &mut self.steps_left {
            _ if self.has_crashed => {}
            Some(0) => self.has_crashed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.has_crashed { Err(error(what, path, EIO)) } else { Ok(()) }
    }

    pub fn file(&self, file: FileId) -> (usize, PathBuf) {
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
    pub fn strike(&mut self, what: &'static str, path: &Path) -> Result<(), DiskError> {
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

    pub fn sync_file(&mut self, inode: usize, path: &Path) -> Result<(), DiskError> {
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
    pub fn take_space(
        &mut self,
        what: &'static str,
        path: &Path,
        more: u64,
    ) -> Result<(), DiskError> {
        let used = self.media.used();
        if more > 0 && self.capacity.is_some_and(|capacity| used + more > capacity) {
            self.struck_full += 1;
            self.was_full = true;
            return Err(error(what, path, ENOSPC));
        }
        self.was_full &= self.capacity.is_some();
        Ok(())
    }

    /// The same for what a file needs to reach to `end`.
    pub fn take_space_to(
        &mut self,
        what: &'static str,
        inode: usize,
        path: &Path,
        end: u64,
    ) -> Result<(), DiskError> {
        let has = self.media.inodes[inode].allocated() as u64;
        self.take_space(what, path, end.saturating_sub(has))?;
        self.media.inodes[inode].is_written_to(end as usize);
        Ok(())
    }

    /// A blocking operation takes its time.
    pub fn block(&mut self) {
        if self.is_rough {
            let (least, most) = self.latency;
            let nanos = least.as_nanos() as u64..=most.as_nanos() as u64;
            self.struck_blocks += 1;
            self.blocked += self.stall + Duration::from_nanos(self.apart.random_range(nanos));
        }
    }

    /// Whether a name finds no room in its directory, on a disk that may have no block left.
    fn is_directory_full(&mut self) -> bool {
        self.is_rough && self.was_full && self.apart.random_bool(0.3)
    }

    pub fn finish(&mut self, at: usize) {
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
                let end = offset + blocks.blocks().len() as u64;
                let struck = match self.media.inodes[inode].is_sparse() {
                    true => self.take_space_to("write", inode, &path, end),
                    false => Ok(()),
                };
                self.has_failed |= struck.is_err() && token == Token::Log;
                let struck = struck.and_then(|()| self.fail_if_due("write", &path));
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
                        let State { media, random, apart, is_rough, .. } = self;
                        let rough = is_rough.then_some(apart);
                        media.abandon(inode, *offset as usize, blocks.blocks(), random, rough);
                    }
                }
                struck
            }
            Operation::WriteZeros { file, offset, length } => {
                self.finish_zeros(*file, *offset, *length)
            }
            Operation::Write { file, offset, bytes } => self.finish_write(*file, *offset, bytes),
            Operation::Release { file, offset, length } => {
                self.finish_release(*file, *offset, *length)
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

    /// Zeros ahead of the log; of a segment that was given up meanwhile nothing is left.
    fn finish_zeros(&mut self, file: FileId, at: u64, length: usize) -> Result<(), DiskError> {
        let Some(Some(Handle::File(inode, path))) = self.handles.get(file.0).cloned() else {
            return Ok(());
        };
        let mut result = if self.is_rough { self.fail_if_due("write", &path) } else { Ok(()) };
        if result.is_ok() && self.media.inodes[inode].is_sparse() {
            result = self.take_space_to("write", inode, &path, at + length as u64);
        }
        self.struck_zeros += u32::from(result.is_err());
        result?;
        self.media.inodes[inode].write_zeros(at as usize, length);
        Ok(())
    }

    /// The space of some bytes is given back, where the filesystem is able to.
    fn finish_release(&mut self, file: FileId, at: u64, length: u64) -> Result<(), DiskError> {
        let Some(Some(Handle::File(inode, path))) = self.handles.get(file.0).cloned() else {
            return Ok(());
        };
        if self.has_no_holes {
            return Err(error("fallocate", &path, EOPNOTSUPP));
        }
        if self.is_rough {
            self.fail_if_due("fallocate", &path)?;
        }
        self.media.inodes[inode].write_zeros(at as usize, length as usize);
        Ok(())
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DiskError> {
        if self.is_directory_full() {
            self.struck_names += 1;
            return Err(error("rename", to, ENOSPC));
        }
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

    /// How many bytes a read of `length` asks the media for: now and then it is a short one.
    pub fn shorten(&mut self, length: usize) -> usize {
        if length < 2 || self.apart.random_range(0..SHORT_IN) > 0 {
            return length;
        }
        self.struck_short += 1;
        self.apart.random_range(1..length)
    }

    /// As many bytes as there are; of a file that was given up meanwhile, none.
    pub fn read(&mut self, file: FileId, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        let Some(Some(Handle::File(inode, path))) = self.handles.get(file.0) else {
            return Ok(Vec::new());
        };
        if self.bad_reads > 0 {
            self.bad_reads -= 1;
            self.struck_reads += 1;
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
        self.take_space_to("write", inode, &path, offset + bytes.len() as u64)?;
        self.media.inodes[inode].write(offset as usize, bytes);
        Ok(())
    }
}

pub(super) fn error(what: &'static str, path: &Path, errno: i32) -> DiskError {
    DiskError::new(what, path, io::Error::from_raw_os_error(errno))
}
