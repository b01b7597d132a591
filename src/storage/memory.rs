//! A disk in memory for the storage's own tests: every byte can be looked at, flipped and torn.
//!
//! Called by the tests beside it. Submitted operations take effect when the test lets them end, in
//! the order that it chooses; blocking ones are durable at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Options;
use super::buffer::ZEROS;
use super::disk::{Disk, Done, FileId, FileKind, Open, Operation, Outcome, Token};
use super::error::DiskError;
use crate::config::SyncMode;
use crate::limits;
use crate::types::ServerId;

/// The files by their paths.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

/// The directory that these tests open; whether others may hold what it loses.
pub fn options(has_others: bool) -> Options {
    Options {
        dir: PathBuf::from("/data"),
        cluster: "test".to_owned(),
        server: ServerId(1),
        has_others,
        sync: SyncMode::Auto,
        segment_bytes: limits::SEGMENT_BYTES_MIN,
    }
}

/// What the test and the storage share.
#[derive(Default)]
pub struct State {
    pub files: Image,
    open: Vec<Option<PathBuf>>,
    pub under_way: Vec<(Token, Operation)>,
    done: Vec<Done>,
    /// Whether submitted operations end at once.
    pub prompt: bool,
    /// Bytes that all files may have together.
    pub capacity: Option<usize>,
    /// How many writes and syncs still succeed.
    pub good_writes: Option<usize>,
    /// With which error number zeros that are submitted fail, and reads.
    pub zeros_fail: Option<i32>,
    pub reads_fail: Option<i32>,
    /// How many bytes less than it was asked for a submitted read brings.
    pub reads_lack: usize,
    /// Whether the filesystem promises no space.
    pub has_no_promise: bool,
    /// Everything that was submitted since.
    pub submitted: Vec<Token>,
    /// Whether no name finds room in its directory.
    pub is_directory_full: bool,
    /// Whether space can be given back in parts, and what was.
    pub is_punching: bool,
    pub released: Vec<(PathBuf, u64, u64)>,
    random: u64,
}

/// A handle on the shared state.
#[derive(Clone, Default)]
pub struct MemoryDisk(pub Rc<RefCell<State>>);

impl MemoryDisk {
    pub fn new(files: Image) -> MemoryDisk {
        let disk = MemoryDisk::default();
        disk.0.borrow_mut().files = files;
        disk.0.borrow_mut().prompt = true;
        disk.0.borrow_mut().is_punching = true;
        disk
    }

    pub fn image(&self) -> Image {
        self.0.borrow().files.clone()
    }

    /// A crash: what was submitted and has not ended never happens.
    pub fn forget_under_way(&self) {
        let mut state = self.0.borrow_mut();
        state.under_way.clear();
        state.done.clear();
    }

    /// Lets one operation that is under way end.
    pub fn finish(&self, at: usize) {
        self.0.borrow_mut().finish(at);
    }
}

impl State {
    fn path(&self, file: FileId) -> PathBuf {
        self.open[file.0].clone().expect("the file is open")
    }

    fn error<T>(&self, what: &'static str, path: &Path, errno: i32) -> Result<T, DiskError> {
        let source = io::Error::from_raw_os_error(errno);
        Err(DiskError::new(what, path, source))
    }

    fn count_write(&mut self, what: &'static str, path: &Path) -> Result<(), DiskError> {
        match &mut self.good_writes {
            Some(0) => self.error(what, path, 5),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether a write of a file without allocated space still fits.
    fn take_space(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let others = self.files.iter().filter(|(other, _)| **other != path);
        let used: usize = others.map(|(_, content)| content.len()).sum();
        let length = offset as usize + bytes.len();
        match self.capacity.is_some_and(|all| used + length > all) {
            true => self.error("write", path, 28),
            false => Ok(()),
        }
    }

    fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) {
        let Some(content) = self.files.get_mut(path) else {
            return;
        };
        let end = offset as usize + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(bytes);
    }

    pub fn is_open(&self, file: FileId) -> bool {
        self.open[file.0].is_some()
    }

    /// Those bytes are zeros; of a file without a name nobody can tell.
    fn release(&mut self, file: FileId, offset: u64, length: u64) -> Result<(), DiskError> {
        let path = self.path(file);
        self.released.push((path.clone(), offset, length));
        match self.is_punching {
            true => self.write(&path, offset, &vec![0; length as usize]),
            false => return self.error("fallocate", &path, 95),
        }
        Ok(())
    }

    fn finish(&mut self, at: usize) {
        let (token, operation) = self.under_way.remove(at);
        let result = match &operation {
            Operation::WriteDurable { file, offset, blocks } => {
                let path = self.path(*file);
                let counted = self.count_write("write", &path);
                if counted.is_ok() {
                    self.write(&path, *offset, blocks.blocks());
                }
                counted
            }
            Operation::WriteZeros { .. } if self.zeros_fail.is_some() => {
                self.error("write", Path::new(""), self.zeros_fail.expect("just seen"))
            }
            Operation::WriteZeros { file, offset, length } => {
                if let Some(path) = self.open[file.0].clone() {
                    self.write(&path, *offset, ZEROS.first(*length));
                }
                Ok(())
            }
            Operation::Write { file, offset, bytes } => match self.open[file.0].clone() {
                Some(path) => {
                    let counted = self.count_write("write", &path);
                    let counted = counted.and_then(|()| self.take_space(&path, *offset, bytes));
                    if counted.is_ok() {
                        self.write(&path, *offset, bytes);
                    }
                    counted
                }
                // The snapshot was given up meanwhile.
                None => Ok(()),
            },
            Operation::Release { file, offset, length } => self.release(*file, *offset, *length),
            Operation::SyncFile { file } => match self.open[file.0].clone() {
                Some(path) => self.count_write("fdatasync", &path),
                None => Ok(()),
            },
            Operation::SyncDirectory { file } => {
                let path = self.path(*file);
                self.count_write("fsync", &path)
            }
            Operation::Remove { path } => {
                let counted = self.count_write("unlink", path);
                if counted.is_ok() {
                    self.files.remove(path).expect("a file is removed once");
                }
                counted
            }
            Operation::Rename { from, to } => {
                let counted = match self.is_directory_full {
                    true => self.error("rename", to, 28),
                    false => self.count_write("rename", from),
                };
                if counted.is_ok() {
                    self.rename(from, to);
                }
                counted
            }
            Operation::Open { path, how } => {
                let result = self.open(path, *how).map(Outcome::File);
                return self.done.push(Done { token, result });
            }
            Operation::Read { file, offset, length } => {
                // The snapshot may have been given up meanwhile.
                let content = self.open[file.0].as_ref().map(|path| &self.files[path][..]);
                let rest = content.unwrap_or_default().get(*offset as usize..).unwrap_or_default();
                let count = rest.len().min(*length).saturating_sub(self.reads_lack);
                let result = match self.reads_fail {
                    Some(errno) => self.error("pread", Path::new(""), errno),
                    None => Ok(Outcome::Bytes(rest[..count].to_vec())),
                };
                return self.done.push(Done { token, result });
            }
        };
        self.done.push(Done { token, result: result.map(|()| Outcome::Done) });
    }

    fn open(&mut self, path: &Path, how: Open) -> Result<FileId, DiskError> {
        match how {
            Open::New | Open::NewSegment => {
                let used: usize = self.files.values().map(Vec::len).sum();
                if self.capacity.is_some_and(|all| used >= all) {
                    return self.error("open", path, 28);
                }
                self.files.insert(path.to_path_buf(), Vec::new());
            }
            Open::Existing | Open::Segment | Open::ReadOnly if !self.files.contains_key(path) => {
                return self.error("open", path, 2);
            }
            Open::Existing | Open::Segment | Open::ReadOnly | Open::Directory => {}
        }
        self.open.push(Some(path.to_path_buf()));
        Ok(FileId(self.open.len() - 1))
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let content = self.files.remove(from).unwrap();
        self.files.insert(to.to_path_buf(), content);
        for open in self.open.iter_mut().flatten() {
            if open == from {
                *open = to.to_path_buf();
            }
        }
    }
}

impl Disk for MemoryDisk {
    fn create_directory(&mut self, _: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn list(&mut self, path: &Path) -> Result<Vec<(String, FileKind)>, DiskError> {
        let state = self.0.borrow();
        let inside = state.files.keys().filter(|file| file.parent() == Some(path));
        let name = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
        Ok(inside.map(|file| (name(file), FileKind::Regular)).collect())
    }

    fn kind(&mut self, path: &Path) -> Result<Option<FileKind>, DiskError> {
        let state = self.0.borrow();
        if state.files.contains_key(path) {
            return Ok(Some(FileKind::Regular));
        }
        let inside = state.files.keys().any(|file| file.starts_with(path));
        Ok(inside.then_some(FileKind::Directory))
    }

    fn open(&mut self, path: &Path, how: Open) -> Result<FileId, DiskError> {
        self.0.borrow_mut().open(path, how)
    }

    fn close(&mut self, file: FileId) {
        let mut state = self.0.borrow_mut();
        assert!(state.open[file.0].take().is_some(), "a file is closed once");
    }

    fn length(&mut self, file: FileId) -> Result<u64, DiskError> {
        let state = self.0.borrow();
        Ok(state.files[&state.path(file)].len() as u64)
    }

    fn read_some_at(
        &mut self,
        file: FileId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, DiskError> {
        let state = self.0.borrow();
        let content = &state.files[&state.path(file)];
        let from = content.len().min(offset as usize);
        let length = out.len().min(content.len() - from);
        out[..length].copy_from_slice(&content[from..from + length]);
        Ok(length)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        let path = state.path(file);
        state.count_write("pwrite", &path)?;
        state.write(&path, offset, bytes);
        Ok(())
    }

    fn allocate(&mut self, file: FileId, length: u64) -> Result<bool, DiskError> {
        let mut state = self.0.borrow_mut();
        let path = state.path(file);
        let others = state.files.iter().filter(|(other, _)| **other != path);
        let used: usize = others.map(|(_, content)| content.len()).sum();
        if state.capacity.is_some_and(|all| used + length as usize > all) {
            return state.error("fallocate", &path, 28);
        }
        let content = state.files.get_mut(&path).unwrap();
        let length = content.len().max(length as usize);
        content.resize(length, 0);
        Ok(!state.has_no_promise)
    }

    fn sync(&mut self, file: FileId) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        let path = state.path(file);
        state.count_write("fdatasync", &path)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        if state.is_directory_full {
            return state.error("rename", to, 28);
        }
        state.rename(from, to);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> Result<(), DiskError> {
        self.0.borrow_mut().files.remove(path).unwrap();
        Ok(())
    }

    fn random(&mut self) -> Result<u64, DiskError> {
        let mut state = self.0.borrow_mut();
        state.random += 1;
        Ok(state.random.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        assert!(state.under_way.iter().all(|(other, _)| *other != token));
        state.submitted.push(token);
        state.under_way.push((token, operation));
        if state.prompt {
            state.finish(0);
        }
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
        Ok(())
    }

    fn completion_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
