//! The real filesystem: blocking operations by std, submitted ones by one of two engines.
//!
//! Called by `storage/` through [`Disk`], which says what each method promises. The only file
//! besides its two engines and the lock that touches std's files. Never decides what is written.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rand::TryRng;
use rand::rngs::SysRng;
use rustix::fs::{Advice, FallocateFlags, OFlags};
use slab::Slab;

use super::buffer::{BLOCK_BYTES, BlockBuffer};
use super::disk::{Disk, Done, FileId, FileKind, Open, Operation, Outcome, Token};
use super::error::DiskError;
use super::thread::{Helper, LogThread};
use super::uring::{Direct, Uring};
use crate::config::SyncMode;

/// The filesystem of the operating system.
pub struct RealDisk {
    files: Slab<OpenFile>,
    engine: Engine,
    ended: Vec<Ended>,
    why: String,
    /// Whether a direct write was tried in this directory, and ended well.
    has_direct: bool,
}

/// The end of an operation, as an engine says it.
pub struct Ended {
    /// Which one.
    pub token: Token,
    /// Of what was opened, else of no meaning.
    pub path: PathBuf,
    /// How it ended.
    pub result: Result<Brought, DiskError>,
}

/// What it has brought.
pub enum Brought {
    /// It is done.
    Nothing,
    /// What was read.
    Bytes(Vec<u8>),
    /// What was opened.
    File(File),
}

enum Engine {
    /// The log's writes are the thread's where the device has no write-through.
    Uring(Box<Uring>, LogThread),
    Thread(Helper),
}

struct OpenFile {
    path: PathBuf,
    file: Arc<File>,
    directory: bool,
    direct: Option<Direct>,
    cache: Cache,
}

/// Whether writes to a file that is no segment go to the page cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// They do, until whole blocks are written.
    Used,
    /// They go past it.
    Passed,
    /// They always do: the filesystem has no direct access.
    Needed,
}

impl OpenFile {
    fn new(path: PathBuf, file: File) -> OpenFile {
        let (directory, direct, cache) = (false, None, Cache::Used);
        OpenFile { path, file: Arc::new(file), directory, direct, cache }
    }

    /// Has the next write of a snapshot go past the page cache, if it is of whole blocks: they would
    /// be copied there, written back at the cost of all who sync, and hardly ever be read. Whether
    /// it does.
    fn pass_cache(&mut self, is_whole_blocks: bool) -> Result<bool, DiskError> {
        let wanted = if is_whole_blocks { Cache::Passed } else { Cache::Used };
        if self.cache == wanted || self.cache == Cache::Needed {
            return Ok(self.cache == Cache::Passed);
        }
        let flag = if is_whole_blocks { OFlags::DIRECT } else { OFlags::empty() };
        self.cache = match rustix::fs::fcntl_setfl(&self.file, flag) {
            Ok(()) => wanted,
            Err(rustix::io::Errno::INVAL) => Cache::Needed,
            Err(errno) => return Err(DiskError::new("fcntl", &self.path, errno.into())),
        };
        Ok(self.cache == Cache::Passed)
    }
}

impl RealDisk {
    /// Chooses the engine: io_uring if it passes a trial in `directory`, else the helper thread;
    /// or the one that `mode` demands. The io_uring keeps `lock` open until the last write of this
    /// process has ended, even if it is killed, so that no successor starts before.
    ///
    /// # Errors
    /// The engine that was demanded cannot be had.
    pub fn open(mode: SyncMode, directory: &Path, lock: &File) -> Result<RealDisk, DiskError> {
        if mode == SyncMode::Thread {
            return RealDisk::on_thread(directory, "as configured".to_owned());
        }
        match RealDisk::try_uring(directory, lock) {
            Ok(disk) => Ok(disk),
            Err(error) if mode == SyncMode::Auto => {
                RealDisk::on_thread(directory, format!("io_uring: {error}"))
            }
            Err(error) => Err(error),
        }
    }

    /// For who only reads, and needs no engine in particular.
    ///
    /// # Errors
    /// The process may have no more threads or files.
    pub fn blocking(directory: &Path) -> Result<RealDisk, DiskError> {
        RealDisk::on_thread(directory, "nothing is written".to_owned())
    }

    fn on_thread(directory: &Path, why: String) -> Result<RealDisk, DiskError> {
        let helper = Helper::start();
        let failed = |source| DiskError::new("starting the disk thread", directory, source);
        let engine = Engine::Thread(helper.map_err(failed)?);
        let (files, ended, has_direct) = (Slab::new(), Vec::new(), false);
        Ok(RealDisk { files, engine, ended, why, has_direct })
    }

    fn try_uring(directory: &Path, lock: &File) -> Result<RealDisk, DiskError> {
        let setup = |source| DiskError::new("io_uring setup", directory, source);
        let uring = Uring::new(lock).map_err(setup)?;
        let log = LogThread::start(&uring.event).map_err(setup)?;
        let engine = Engine::Uring(Box::new(uring), log);
        let (files, ended) = (Slab::new(), Vec::new());
        let has_direct = false;
        let mut disk = RealDisk { files, engine, ended, why: String::new(), has_direct };
        let path = directory.join("probe.tmp");
        let tried = disk.try_write(&path);
        // The trial's file holds nothing; a leftover is overwritten by the next trial.
        let removed = disk.remove(&path);
        match tried {
            // A full disk is no fault of the engine: the write was carried out and refused.
            Err(error) if !error.is_full() => return Err(error),
            _ => removed?,
        }
        Ok(disk)
    }

    fn try_write(&mut self, path: &Path) -> Result<(), DiskError> {
        let file = self.open(path, Open::NewSegment)?;
        let direct = self.files[file.0].direct.as_ref();
        self.why = direct.map(Direct::describe).unwrap_or_default().to_owned();
        let has_direct = direct.is_some_and(Direct::has_direct_access);
        let blocks = BlockBuffer::build(1, |out| out.push(0));
        let offset = 0;
        // Not as the log's, which may be no matter of the ring.
        self.submit(Token::Prepare, Operation::WriteDurable { file, offset, blocks })?;
        let mut done = Vec::new();
        while done.is_empty() {
            self.wait()?;
            self.reap(&mut done)?;
        }
        self.close(file);
        done.swap_remove(0).result?;
        self.has_direct = has_direct;
        Ok(())
    }

    /// The engine's name, and why it is this one.
    pub fn engine(&self) -> (&'static str, String) {
        let name = match self.engine {
            Engine::Uring(..) => "uring",
            Engine::Thread(_) => "thread",
        };
        (name, self.why.clone())
    }

    fn file(&self, file: FileId) -> &OpenFile {
        &self.files[file.0]
    }

    /// Errors of open files name the file as it is called now.
    fn note_rename(&mut self, from: &Path, to: &Path) {
        for (_, open) in &mut self.files {
            if open.path == from {
                open.path = to.to_path_buf();
            }
        }
    }
}

/// Makes a directory with its parents, each durable in the one above it.
///
/// # Errors
/// The operating system's.
pub fn make_directory(path: &Path) -> Result<(), DiskError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_directory(parent)?;
    fs::create_dir(path).map_err(|source| DiskError::new("mkdir", path, source))?;
    let synced = File::open(parent).and_then(|names| names.sync_all());
    synced.map_err(|source| DiskError::new("fsync", parent, source))
}

/// How a file is opened, whoever does it.
pub(super) fn open_options(how: Open) -> OpenOptions {
    let mut options = OpenOptions::new();
    // A pipe in place of a file must not block the start, nor a symbolic link lead elsewhere.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    options.read(true).custom_flags(flags.bits() as i32);
    match how {
        Open::Directory | Open::ReadOnly => {}
        Open::Existing | Open::Segment => {
            options.write(true);
        }
        Open::New | Open::NewSegment => {
            options.write(true).create(true).truncate(true);
        }
    }
    options
}

fn is_whole_blocks(offset: u64, bytes: &[u8]) -> bool {
    offset.is_multiple_of(BLOCK_BYTES as u64) && bytes.len().is_multiple_of(BLOCK_BYTES)
}

/// The same bytes where direct access takes them.
fn aligned(bytes: &[u8]) -> Bytes {
    Bytes::from_owner(BlockBuffer::build(bytes.len(), |out| out.extend_from_slice(bytes)))
}

fn kind_of(kind: fs::FileType) -> FileKind {
    if kind.is_file() {
        FileKind::Regular
    } else if kind.is_dir() {
        FileKind::Directory
    } else {
        FileKind::Other
    }
}

impl Disk for RealDisk {
    fn create_directory(&mut self, path: &Path) -> Result<(), DiskError> {
        make_directory(path)
    }

    fn list(&mut self, path: &Path) -> Result<Vec<(String, FileKind)>, DiskError> {
        let failed = |source| DiskError::new("reading the directory", path, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            names.push((name, kind_of(entry.file_type().map_err(failed)?)));
        }
        Ok(names)
    }

    fn kind(&mut self, path: &Path) -> Result<Option<FileKind>, DiskError> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(kind_of(metadata.file_type()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::new("stat", path, error)),
        }
    }

    fn open(&mut self, path: &Path, how: Open) -> Result<FileId, DiskError> {
        let failed = |source| DiskError::new("open", path, source);
        let file = open_options(how).open(path).map_err(failed)?;
        if how == Open::ReadOnly {
            // What is on the disk, not what memory has of it.
            let dropped = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
            dropped.map_err(|source| DiskError::new("fadvise", path, source.into()))?;
        }
        if how == Open::Segment {
            // Linux keeps pages whose writing failed, marked as written: recovery would take them
            // for what is on the disk. What is sound is written first, then memory is given back.
            file.sync_data().map_err(|source| DiskError::new("fdatasync", path, source))?;
            let dropped = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
            dropped.map_err(|source| DiskError::new("fadvise", path, source.into()))?;
        }
        let direct = match (&self.engine, how) {
            (Engine::Uring(..), Open::Segment | Open::NewSegment) => {
                Some(Direct::open(path).map_err(failed)?)
            }
            _ => None,
        };
        let opened = OpenFile::new(path.to_path_buf(), file);
        let directory = how == Open::Directory;
        Ok(FileId(self.files.insert(OpenFile { directory, direct, ..opened })))
    }

    fn close(&mut self, file: FileId) {
        self.files.remove(file.0);
    }

    fn length(&mut self, file: FileId) -> Result<u64, DiskError> {
        let OpenFile { file, path, .. } = self.file(file);
        let metadata = file.metadata();
        Ok(metadata.map_err(|source| DiskError::new("stat", path, source))?.len())
    }

    fn read_some_at(
        &mut self,
        file: FileId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, DiskError> {
        let OpenFile { file: buffered, path, direct, .. } = self.file(file);
        let is_whole = |number: usize| number.is_multiple_of(BLOCK_BYTES);
        let is_aligned = is_whole(out.as_ptr().addr()) && offset.is_multiple_of(BLOCK_BYTES as u64);
        // What is read once and has been dropped from memory would only be copied through it.
        let mut direct = direct.as_ref().filter(|_| is_aligned && is_whole(out.len()));
        loop {
            let file = direct.and_then(Direct::for_reading).unwrap_or(buffered.as_ref());
            match file.read_at(out, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A filesystem may want more of an alignment than we have.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && direct.is_some() => {
                    direct = None;
                }
                read => return read.map_err(|error| DiskError::new("pread", path, error)),
            }
        }
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let OpenFile { file, path, .. } = self.file(file);
        let written = file.write_all_at(bytes, offset);
        written.map_err(|source| DiskError::new("pwrite", path, source))
    }

    fn allocate(&mut self, file: FileId, length: u64) -> Result<bool, DiskError> {
        let OpenFile { file, path, .. } = self.file(file);
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let set = file.set_len(length);
                set.map_err(|source| DiskError::new("ftruncate", path, source))?;
                Ok(false)
            }
            Err(errno) => Err(DiskError::new("fallocate", path, errno.into())),
        }
    }

    fn sync(&mut self, file: FileId) -> Result<(), DiskError> {
        let OpenFile { file, path, directory, .. } = self.file(file);
        if *directory {
            file.sync_all().map_err(|source| DiskError::new("fsync", path, source))
        } else {
            file.sync_data().map_err(|source| DiskError::new("fdatasync", path, source))
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DiskError> {
        fs::rename(from, to).map_err(|source| DiskError::new("rename", to, source))?;
        self.note_rename(from, to);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> Result<(), DiskError> {
        fs::remove_file(path).map_err(|source| DiskError::new("unlink", path, source))
    }

    fn random(&mut self) -> Result<u64, DiskError> {
        SysRng.try_next_u64().map_err(|error| {
            DiskError::new("getrandom", Path::new("/dev/urandom"), io::Error::other(error))
        })
    }

    fn submit(&mut self, token: Token, mut operation: Operation) -> Result<(), DiskError> {
        if let Operation::Write { file, offset, bytes } = &mut operation
            && self.has_direct
        {
            let is_whole_blocks = is_whole_blocks(*offset, bytes);
            if self.files[file.0].pass_cache(is_whole_blocks)? {
                *bytes = aligned(bytes);
            }
        }
        let id = match &operation {
            Operation::WriteDurable { file, .. }
            | Operation::WriteZeros { file, .. }
            | Operation::Write { file, .. }
            | Operation::Read { file, .. }
            | Operation::Release { file, .. }
            | Operation::SyncFile { file }
            | Operation::SyncDirectory { file } => *file,
            Operation::Remove { path }
            | Operation::Open { path, .. }
            | Operation::Rename { to: path, .. } => {
                let path = path.clone();
                if let Operation::Rename { from, to } = &operation {
                    self.note_rename(from, to);
                }
                return match &mut self.engine {
                    Engine::Uring(uring, _) => uring.submit_name(token, &operation, &path),
                    Engine::Thread(helper) => helper.submit(token, operation, &path, None),
                };
            }
        };
        let OpenFile { path, file, direct, .. } = &self.files[id.0];
        let awaited = direct.as_ref().filter(|_| token == Token::Log).and_then(Direct::awaited);
        match &mut self.engine {
            Engine::Uring(uring, log) => match awaited {
                Some(file) => log.submit(token, operation, path, file),
                None => uring.submit(token, operation, path, file, direct.as_ref()),
            },
            Engine::Thread(helper) => helper.submit(token, operation, path, Some(file)),
        }
    }

    fn reap(&mut self, done: &mut Vec<Done>) -> Result<(), DiskError> {
        let mut ended = std::mem::take(&mut self.ended);
        match &mut self.engine {
            Engine::Uring(uring, log) => {
                log.reap(&mut ended);
                uring.reap(&mut ended)?;
            }
            Engine::Thread(helper) => helper.reap(&mut ended),
        }
        for Ended { token, path, result } in ended.drain(..) {
            let result = result.map(|brought| match brought {
                Brought::Nothing => Outcome::Done,
                Brought::Bytes(bytes) => Outcome::Bytes(bytes),
                Brought::File(file) => {
                    Outcome::File(FileId(self.files.insert(OpenFile::new(path, file))))
                }
            });
            done.push(Done { token, result });
        }
        self.ended = ended;
        Ok(())
    }

    fn wait(&mut self) -> Result<(), DiskError> {
        match &mut self.engine {
            Engine::Uring(uring, log) => match log.wait()? {
                true => Ok(()),
                false => uring.wait(),
            },
            Engine::Thread(helper) => helper.wait(),
        }
    }

    fn completion_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(match &self.engine {
            Engine::Uring(uring, _) => uring.event.as_fd(),
            Engine::Thread(helper) => helper.event.as_fd(),
        })
    }
}

#[cfg(test)]
#[path = "real_tests.rs"]
mod tests;
