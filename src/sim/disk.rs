//! The simulated disk: storage's [`Disk`] on [`Media`], with latency, errors and an end of space.
//!
//! Handed to the unchanged `Storage::open_on`; the world keeps a second handle, lets submitted
//! operations end when their time has come, and crashes it. Submitted operations end in any order;
//! blocking ones take their effect at once. Never reads a clock.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::drive::{EIO, ENOENT, Handle, State, UnderWay, change_names, error, target};
use super::media::{Losses, Media};
use crate::storage::DiskError;
use crate::storage::disk::{Disk, Done, FileId, FileKind, Open, Operation, Token};

/// A handle on one server's disk.
#[derive(Clone)]
pub(super) struct SimDisk(Rc<RefCell<State>>);

impl SimDisk {
    pub fn new(random: Xoshiro256PlusPlus, latency: (Duration, Duration)) -> SimDisk {
        let mut apart = random.clone();
        apart.jump();
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
            was_full: false,
            struck_errors: 0,
            struck_full: 0,
            struck_short: 0,
            struck_reads: 0,
            struck_zeros: 0,
            struck_names: 0,
            struck_blocks: 0,
            is_rough: false,
            has_no_promise: false,
            has_no_holes: false,
            blocked: Duration::ZERO,
            apart,
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

    /// How long the process was blocked since the last call.
    pub fn take_blocked(&self) -> Duration {
        std::mem::take(&mut self.0.borrow_mut().blocked)
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

    /// From now on everything goes wrong that can go wrong with a disk, and what blocks takes time.
    pub fn roughen(&self) {
        let mut state = self.0.borrow_mut();
        state.is_rough = true;
        state.has_no_promise = state.apart.random_bool(0.3);
        state.has_no_holes = state.apart.random_bool(0.3);
    }

    /// The process is gone, the machine goes on.
    pub fn kill(&self) {
        let mut state = self.0.borrow_mut();
        let State { media, random, under_way, handles, apart, is_rough, .. } = &mut *state;
        for one in under_way.drain(..) {
            match (target(handles, &one.operation), &one.operation) {
                (Some((inode, offset, bytes)), _) => {
                    media.abandon(inode, offset, bytes, random, is_rough.then_some(&mut *apart));
                }
                (None, operation) => change_names(media, operation, random),
            }
        }
        state.forget_process();
    }

    /// The power is gone.
    pub fn lose_power(&self) -> Losses {
        let mut state = self.0.borrow_mut();
        let State { media, random, under_way, handles, apart, is_rough, .. } = &mut *state;
        let mut torn = 0;
        for one in under_way.drain(..) {
            let Some((inode, offset, bytes)) = target(handles, &one.operation) else {
                change_names(media, &one.operation, random);
                continue;
            };
            if one.token == Token::Log {
                torn += u32::from(media.tear(inode, offset, bytes, random));
            } else if *is_rough {
                media.tear(inode, offset, bytes, apart);
            }
        }
        let mut losses = media.lose_power(random, is_rough.then_some(&mut *apart));
        losses.torn = torn;
        state.forget_process();
        losses
    }
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
                state.block();
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

    fn read_some_at(
        &mut self,
        file: FileId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, DiskError> {
        let mut state = self.0.borrow_mut();
        let length = state.shorten(out.len());
        let bytes = state.read(file, offset, length)?;
        out[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        let (inode, path) = state.file(file);
        state.block();
        state.strike("pwrite", &path)?;
        state.take_space_to("pwrite", inode, &path, offset + bytes.len() as u64)?;
        state.media.inodes[inode].write(offset as usize, bytes);
        Ok(())
    }

    fn allocate(&mut self, file: FileId, length: u64) -> Result<bool, DiskError> {
        let mut state = self.0.borrow_mut();
        let (inode, path) = state.file(file);
        let has = state.media.inodes[inode].cache.len() as u64;
        if length > has {
            state.block();
            state.take_step("fallocate", &path)?;
        }
        let promises = !state.has_no_promise;
        match promises {
            true => state.take_space("fallocate", &path, length.saturating_sub(has))?,
            false => state.media.inodes[inode].becomes_sparse(),
        }
        let length = has.max(length) as usize;
        state.media.inodes[inode].cache.resize(length);
        Ok(promises)
    }

    fn sync(&mut self, file: FileId) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        state.block();
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
        state.block();
        state.strike("rename", from)?;
        state.rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        state.block();
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
