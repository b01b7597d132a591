//! A disk that takes everything at once and forgets the log: what is counted is the program's own
//! work, not a disk's.
//!
//! Handed to the unchanged `Storage::open_on`. Called by `server`. What is written while a
//! directory is made is kept, as the storage reads it again; of log writes nothing is. Never fails
//! for lack of space.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use raftkv::storage::DiskError;
use raftkv::storage::disk::{Disk, Done, FileId, FileKind, Open, Operation, Outcome, Token};

/// One file, or what is left of it.
#[derive(Default)]
struct Content {
    length: u64,
    /// Its first bytes; those behind them are zeros.
    bytes: Vec<u8>,
}

/// See the file's head.
#[derive(Default)]
pub struct ForgetfulDisk {
    /// Names, and which file each stands for.
    names: BTreeMap<PathBuf, usize>,
    files: Vec<Content>,
    /// Which file each open one is; a directory is none.
    open: Vec<Option<usize>>,
    done: Vec<Done>,
    has_done: Rc<Cell<bool>>,
    random: u64,
}

impl ForgetfulDisk {
    /// An empty disk, whose random numbers follow from `seed`: what differs from run to run would
    /// be counted. The flag says whether there is something to reap, as a real disk's descriptor
    /// does.
    pub fn new(seed: u64) -> (ForgetfulDisk, Rc<Cell<bool>>) {
        let disk = ForgetfulDisk { random: seed << 32, ..ForgetfulDisk::default() };
        let has_done = Rc::clone(&disk.has_done);
        (disk, has_done)
    }

    fn content(&mut self, file: FileId) -> &mut Content {
        let number = self.open[file.0].expect("nothing is read from or written to a directory");
        &mut self.files[number]
    }

    fn missing<T>(what: &'static str, path: &Path) -> Result<T, DiskError> {
        Err(DiskError::new(what, path, io::ErrorKind::NotFound.into()))
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) {
        let content = self.content(file);
        let end = offset + bytes.len() as u64;
        content.length = content.length.max(end);
        if content.bytes.len() < end as usize {
            content.bytes.resize(end as usize, 0);
        }
        content.bytes[offset as usize..end as usize].copy_from_slice(bytes);
    }

    fn carry_out(&mut self, operation: Operation) -> Result<Outcome, DiskError> {
        match operation {
            // A segment: nothing of it is kept, and its length was promised when it was made.
            Operation::WriteDurable { .. } | Operation::WriteZeros { .. } => {}
            Operation::Write { file, offset, bytes } => self.write(file, offset, &bytes),
            Operation::Release { file, offset, length } => {
                let bytes = &mut self.content(file).bytes;
                let released = offset as usize..(offset + length) as usize;
                bytes.get_mut(released).unwrap_or_default().fill(0);
            }
            Operation::SyncFile { .. } | Operation::SyncDirectory { .. } => {}
            Operation::Remove { path } => self.remove(&path)?,
            Operation::Rename { from, to } => self.rename(&from, &to)?,
            Operation::Open { path, how } => return self.open(&path, how).map(Outcome::File),
            Operation::Read { file, offset, length } => {
                let mut bytes = vec![0; length];
                let count = self.read_at(file, offset, &mut bytes)?;
                bytes.truncate(count);
                return Ok(Outcome::Bytes(bytes));
            }
        }
        Ok(Outcome::Done)
    }
}

impl Disk for ForgetfulDisk {
    fn create_directory(&mut self, _: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn list(&mut self, path: &Path) -> Result<Vec<(String, FileKind)>, DiskError> {
        let inside = self.names.keys().filter(|file| file.parent() == Some(path));
        let names = inside.filter_map(|file| file.file_name()?.to_str());
        Ok(names.map(|name| (name.to_owned(), FileKind::Regular)).collect())
    }

    fn kind(&mut self, path: &Path) -> Result<Option<FileKind>, DiskError> {
        Ok(self.names.contains_key(path).then_some(FileKind::Regular))
    }

    fn open(&mut self, path: &Path, how: Open) -> Result<FileId, DiskError> {
        let file = match how {
            Open::Directory => None,
            Open::New | Open::NewSegment => {
                self.files.push(Content::default());
                self.names.insert(path.to_owned(), self.files.len() - 1);
                Some(self.files.len() - 1)
            }
            Open::Existing | Open::ReadOnly | Open::Segment => match self.names.get(path) {
                Some(number) => Some(*number),
                None => return Self::missing("open", path),
            },
        };
        self.open.push(file);
        Ok(FileId(self.open.len() - 1))
    }

    fn close(&mut self, _: FileId) {}

    fn length(&mut self, file: FileId) -> Result<u64, DiskError> {
        Ok(self.content(file).length)
    }

    fn read_some_at(
        &mut self,
        file: FileId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, DiskError> {
        let content = self.content(file);
        let left = content.length.saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let out = &mut out[..count];
        out.fill(0);
        let kept = content.bytes.get(offset as usize..).unwrap_or_default();
        let kept = &kept[..kept.len().min(count)];
        out[..kept.len()].copy_from_slice(kept);
        Ok(count)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write(file, offset, bytes);
        Ok(())
    }

    fn allocate(&mut self, file: FileId, length: u64) -> Result<bool, DiskError> {
        self.content(file).length = length;
        Ok(true)
    }

    fn sync(&mut self, _: FileId) -> Result<(), DiskError> {
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let Some(file) = self.names.remove(from) else {
            return Self::missing("rename", from);
        };
        self.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> Result<(), DiskError> {
        match self.names.remove(path) {
            Some(_) => Ok(()),
            None => Self::missing("unlink", path),
        }
    }

    fn random(&mut self) -> Result<u64, DiskError> {
        self.random += 1;
        Ok(self.random.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), DiskError> {
        let result = self.carry_out(operation);
        self.done.push(Done { token, result });
        self.has_done.set(true);
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Done>) -> Result<(), DiskError> {
        done.append(&mut self.done);
        self.has_done.set(false);
        Ok(())
    }

    fn wait(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn completion_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
