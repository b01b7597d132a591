//! The helper threads: where the kernel refuses io_uring, one thread writes and syncs the log, and
//! another one does what no client waits for.
//!
//! Called by [`super::real`]. The contract is that of io_uring: a job goes in by a channel, its end
//! comes back by another, and an eventfd wakes the loop. Never retries: `fdatasync` is called once
//! for each durable write.

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

use super::buffer::ZEROS;
use super::disk::{Done, Operation, Token};
use super::error::DiskError;

/// The threads' near end.
pub struct Helper {
    log: Worker,
    /// Zeros, snapshots and removals: a log write must not wait for the sync of a snapshot.
    background: Worker,
    ended: Receiver<Done>,
    ready: VecDeque<Done>,
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
    /// `None` for the removal of `path`.
    file: Option<Arc<File>>,
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

    /// Hands over one operation on `file`, which is called `path` now; without a file, it is the
    /// removal of `path`.
    pub fn submit(
        &mut self,
        token: Token,
        operation: Operation,
        path: &Path,
        file: Option<&Arc<File>>,
    ) -> Result<(), DiskError> {
        let job = Job { token, operation, path: path.to_path_buf(), file: file.cloned() };
        let worker = match token {
            Token::Log | Token::Prepare => &self.log,
            Token::Fill | Token::Compact | Token::Snapshot(_) | Token::Sweep => &self.background,
        };
        let sent = worker.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(gone(path)) }
    }

    /// Appends what has ended.
    pub fn reap(&mut self, done: &mut Vec<Done>) {
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
    fn start(name: &str, outbox: Sender<Done>, event: &Arc<OwnedFd>) -> io::Result<Worker> {
        let (jobs, inbox) = mpsc::channel();
        let wake = Arc::clone(event);
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || work(&inbox, &outbox, &wake))?;
        Ok(Worker { jobs: Some(jobs), thread: Some(thread) })
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

fn work(inbox: &Receiver<Job>, outbox: &Sender<Done>, event: &OwnedFd) {
    for job in inbox {
        let done = Done { token: job.token, result: carry_out(&job) };
        if outbox.send(done).is_err() {
            return;
        }
        // It only fails when the counter is full, and then the loop is awake already.
        let _ = rustix::io::write(event, &1u64.to_ne_bytes());
    }
}

fn carry_out(job: &Job) -> Result<(), DiskError> {
    let failed = |operation| move |source| DiskError::new(operation, &job.path, source);
    let Some(file) = &job.file else {
        return std::fs::remove_file(&job.path).map_err(failed("unlink"));
    };
    match &job.operation {
        Operation::WriteDurable { offset, blocks, .. } => {
            let written = file.write_all_at(blocks.blocks(), *offset);
            written.map_err(failed("pwrite"))?;
            file.sync_data().map_err(failed("fdatasync"))
        }
        Operation::WriteZeros { offset, length, .. } => {
            let written = file.write_all_at(ZEROS.first(*length), *offset);
            written.map_err(failed("pwrite of zeros"))
        }
        Operation::Write { offset, bytes, .. } => {
            file.write_all_at(bytes, *offset).map_err(failed("pwrite"))
        }
        Operation::SyncFile { .. } => file.sync_data().map_err(failed("fdatasync")),
        Operation::SyncDirectory { .. } => file.sync_all().map_err(failed("fsync")),
        Operation::Remove { .. } => unreachable!("a removal has no file"),
    }
}
