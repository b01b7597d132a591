//! The helper threads: where the kernel refuses io_uring, one thread writes and syncs the log, and
//! another one does what no client waits for. Beside io_uring, one for the log alone.
//!
//! Called by [`super::real`]. The contract is that of io_uring: a job goes in by a channel, its end
//! comes back by another, and an eventfd wakes the loop. Never retries: `fdatasync` is called once
//! for each durable write, if the file's writes are not synced by themselves.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::FallocateFlags;

use super::buffer::ZEROS;
use super::disk::{Operation, Token};
use super::error::DiskError;
use super::real::{Brought, Ended, open_options};

/// The threads' near end.
pub struct Helper {
    log: Worker,
    /// Zeros and all about snapshots: a log write must not wait for the sync of one.
    background: Worker,
    ended: Receiver<Ended>,
    ready: VecDeque<Ended>,
    /// Readable when an operation has ended.
    pub event: Arc<OwnedFd>,
}

struct Worker {
    /// `None` only while it is dropped.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    token: Token,
    operation: Operation,
    path: PathBuf,
    /// `None` for what is done with names alone.
    file: Option<Arc<File>>,
    /// Whether the file was opened so that a write ends only once it is durable.
    is_synced: bool,
}

/// The log's thread beside an io_uring, where that needs two operations for a durable write: each of
/// them would wake the loop, and the kernel's own worker between them.
pub struct LogThread {
    log: Worker,
    ended: Receiver<Ended>,
    ready: Vec<Ended>,
    under_way: usize,
}

impl LogThread {
    /// Starts it; `event` becomes readable when one of its operations has ended.
    ///
    /// # Errors
    /// The process may have no more threads.
    pub fn start(event: &Arc<OwnedFd>) -> io::Result<LogThread> {
        let (outbox, ended) = mpsc::channel();
        let log = Worker::start("disk", outbox, event)?;
        Ok(LogThread { log, ended, ready: Vec::new(), under_way: 0 })
    }

    /// Hands over a durable write to a file which is called `path` now. `is_synced`: a write to it
    /// is durable when it ends; else it is synced behind each.
    pub fn submit(
        &mut self,
        token: Token,
        operation: Operation,
        path: &Path,
        (file, is_synced): (&Arc<File>, bool),
    ) -> Result<(), DiskError> {
        let file = Some(Arc::clone(file));
        let job = Job { token, operation, path: path.to_path_buf(), file, is_synced };
        self.under_way += 1;
        self.log.hand_over(job)
    }

    /// Appends what has ended.
    pub fn reap(&mut self, done: &mut Vec<Ended>) {
        let before = done.len();
        done.append(&mut self.ready);
        done.extend(self.ended.try_iter());
        self.under_way -= done.len() - before;
    }

    /// Blocks until something has ended, if anything is under way. Whether it was.
    pub fn wait(&mut self) -> Result<bool, DiskError> {
        if self.under_way > 0 && self.ready.is_empty() {
            self.ready.push(self.ended.recv().map_err(|_| gone(Path::new("")))?);
        }
        Ok(self.under_way > 0)
    }
}

impl Helper {
    /// Starts the threads.
    ///
    /// # Errors
    /// The process may have no more threads or files.
    pub fn start() -> io::Result<Helper> {
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (outbox, ended) = mpsc::channel();
        let log = Worker::start("disk", outbox.clone(), &event)?;
        let background = Worker::start("disk-background", outbox, &event)?;
        Ok(Helper { log, background, ended, ready: VecDeque::new(), event })
    }

    /// Hands over one operation on `file`, which is called `path` now; without a file, on that name.
    pub fn submit(
        &mut self,
        token: Token,
        operation: Operation,
        path: &Path,
        file: Option<&Arc<File>>,
    ) -> Result<(), DiskError> {
        let (path, file) = (path.to_path_buf(), file.cloned());
        let job = Job { token, operation, path, file, is_synced: false };
        let worker = match token {
            Token::Log | Token::Prepare => &self.log,
            Token::Fill | Token::Compact | Token::Snapshot(_) | Token::Sweep | Token::Read => {
                &self.background
            }
        };
        worker.hand_over(job)
    }

    /// Appends what has ended.
    pub fn reap(&mut self, done: &mut Vec<Ended>) {
        let mut count = [0; 8];
        // Nothing to read only means that nobody has woken us.
        let _ = rustix::io::read(&self.event, &mut count);
        done.extend(self.ready.drain(..));
        done.extend(self.ended.try_iter());
    }

    /// Blocks until something has ended.
    pub fn wait(&mut self) -> Result<(), DiskError> {
        if self.ready.is_empty() {
            let done = self.ended.recv().map_err(|_| gone(Path::new("")))?;
            self.ready.push_back(done);
        }
        Ok(())
    }
}

impl Worker {
    fn start(name: &str, outbox: Sender<Ended>, event: &Arc<OwnedFd>) -> io::Result<Worker> {
        let (jobs, inbox) = mpsc::channel();
        let wake = Arc::clone(event);
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || work(&inbox, &outbox, &wake))?;
        Ok(Worker { jobs: Some(jobs), thread: Some(thread) })
    }

    fn hand_over(&self, job: Job) -> Result<(), DiskError> {
        let Some(jobs) = &self.jobs else { return Err(gone(&job.path)) };
        jobs.send(job).map_err(|refused| gone(&refused.0.path))
    }
}

impl Drop for Worker {
    /// Waits until all that was handed over is done: a late write must not reach the disk after
    /// the directory's lock has fallen.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The thread has nothing to tell but a panic, which was printed when it happened.
            let _ = thread.join();
        }
    }
}

fn gone(path: &Path) -> DiskError {
    let source = io::Error::other("the disk thread has ended");
    DiskError::new("handing over a write", path, source)
}

fn work(inbox: &Receiver<Job>, outbox: &Sender<Ended>, event: &OwnedFd) {
    for job in inbox {
        let result = carry_out(&job);
        let Job { token, path, .. } = job;
        if outbox.send(Ended { token, path, result }).is_err() {
            return;
        }
        // It only fails when the counter is full, and then the loop is awake already.
        let _ = rustix::io::write(event, &1u64.to_ne_bytes());
    }
}

fn carry_out(job: &Job) -> Result<Brought, DiskError> {
    let failed = |operation| move |source| DiskError::new(operation, &job.path, source);
    let Some(file) = &job.file else {
        return match &job.operation {
            Operation::Rename { from, to } => {
                std::fs::rename(from, to).map(|()| Brought::Nothing).map_err(failed("rename"))
            }
            Operation::Open { path, how } => {
                open_options(*how).open(path).map(Brought::File).map_err(failed("open"))
            }
            _ => {
                std::fs::remove_file(&job.path).map(|()| Brought::Nothing).map_err(failed("unlink"))
            }
        };
    };
    let done = match &job.operation {
        Operation::Read { offset, length, .. } => {
            let bytes = read_at(file, *offset, *length).map_err(failed("pread"))?;
            return Ok(Brought::Bytes(bytes));
        }
        Operation::WriteDurable { offset, blocks, .. } => {
            let written = file.write_all_at(blocks.blocks(), *offset);
            written.map_err(failed("pwrite"))?;
            if job.is_synced {
                return Ok(Brought::Nothing);
            }
            file.sync_data().map_err(failed("fdatasync"))
        }
        Operation::WriteZeros { offset, length, .. } => {
            let written = file.write_all_at(ZEROS.first(*length), *offset);
            written.map_err(failed("pwrite of zeros"))
        }
        Operation::Write { offset, bytes, .. } => {
            file.write_all_at(bytes, *offset).map_err(failed("pwrite"))
        }
        Operation::Release { offset, length, .. } => {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let released = rustix::fs::fallocate(file, how, *offset, *length);
            released.map_err(|errno| failed("fallocate")(errno.into()))
        }
        Operation::SyncFile { .. } => file.sync_data().map_err(failed("fdatasync")),
        Operation::SyncDirectory { .. } => file.sync_all().map_err(failed("fsync")),
        Operation::Remove { .. } | Operation::Rename { .. } | Operation::Open { .. } => {
            unreachable!("what is done with names has no file")
        }
    };
    done.map(|()| Brought::Nothing)
}

/// As many bytes as there are, `length` at most.
fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut read = 0;
    while read < length {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}
