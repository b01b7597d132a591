//! What is done ahead of the log's writes: filling space with zeros and making the next segment.
//!
//! A sync over space that was written before has no metadata to write. Both go in small steps that
//! never block the loop and that no log write waits for, but for a slice in its very place. Called
//! by the writer. A full disk is no error here: it is what [`Room`](crate::types::Room) tells.

use std::path::PathBuf;

use super::disk::{Disk, FileId, Operation, Token};
use super::error::{DiskError, StorageError};
use super::segment::{self, FIRST_RECORD, Owner, Segment};
use crate::limits;
use crate::testing::{Mark, Mutation, is_on, reached};

/// The segment after the current one, and the zeros ahead of the last record.
pub struct Ahead {
    log: PathBuf,
    names: FileId,
    owner: Owner,
    segment_bytes: u64,
    next: Next,
    filling: Option<Filling>,
    /// A log write that waits for the slice that is under way in its place.
    held: Option<Operation>,
    starved: bool,
    /// Whether a full disk is being asked again; until it has answered it counts as full.
    retrying: bool,
    stopping: bool,
}

enum Next {
    None,
    /// Its header is being written.
    Header(Segment),
    /// Its name is being made durable.
    Name(Segment),
    Ready(Segment),
}

/// A slice of zeros that is under way.
struct Filling {
    segment: u64,
    end: u64,
}

impl Ahead {
    /// For the log at `log`, whose open directory is `names`; `next` was found there.
    pub fn new(
        log: PathBuf,
        names: FileId,
        owner: Owner,
        segment_bytes: u64,
        next: Option<Segment>,
    ) -> Ahead {
        Ahead {
            log,
            names,
            owner,
            segment_bytes,
            next: next.map_or(Next::None, Next::Ready),
            filling: None,
            held: None,
            starved: false,
            retrying: false,
            stopping: false,
        }
    }

    /// Starts no further slice, nor a segment that no write waits for.
    pub fn stop_filling(&mut self) {
        self.stopping = true;
    }

    /// The configured size of a segment in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Whether the disk was full when it was last asked for space.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Lets a full disk be asked again.
    pub fn retry(&mut self) {
        self.retrying = self.starved;
    }

    fn may_ask(&self) -> bool {
        !self.starved || self.retrying
    }

    /// Whether an operation of this part is under way.
    pub fn is_under_way(&self) -> bool {
        self.filling.is_some() || matches!(self.next, Next::Header(_) | Next::Name(_))
    }

    /// Whether the next segment is there and holds `needed` bytes, its header included.
    pub fn is_ready(&self, needed: u64) -> bool {
        matches!(&self.next, Next::Ready(segment) if segment.capacity >= needed)
    }

    /// Bytes of the next segment that are promised.
    pub fn promised(&self) -> u64 {
        match &self.next {
            Next::Ready(segment) => segment.promised.saturating_sub(FIRST_RECORD),
            _ => 0,
        }
    }

    /// Gives the next segment away: it is the current one from now on.
    pub fn take_ready(&mut self) -> Segment {
        match std::mem::replace(&mut self.next, Next::None) {
            Next::Ready(segment) => segment,
            _ => unreachable!("a segment is ended only once the next one is ready"),
        }
    }

    /// Begins to make the next segment, of the configured size or of `needed` bytes if that is
    /// more. One that is there but too small is replaced.
    ///
    /// # Errors
    /// The disk's, unless it is full.
    pub fn prepare(
        &mut self,
        disk: &mut dyn Disk,
        current: &Segment,
        needed: u64,
    ) -> Result<(), StorageError> {
        if !self.may_ask() || matches!(self.next, Next::Header(_) | Next::Name(_)) {
            return Ok(());
        }
        let number = current.key.number + 1;
        let filling_next = self.filling.as_ref().is_some_and(|slice| slice.segment == number);
        if filling_next {
            // The segment that is too small must not be given up while zeros go there.
            return Ok(());
        }
        let capacity = self.segment_bytes.max(needed.next_multiple_of(FIRST_RECORD));
        let made = match segment::allocate(disk, &self.log, number, capacity) {
            Err(StorageError::Disk(error)) if error.is_full() => {
                self.starve(&error);
                return Ok(());
            }
            made => made?,
        };
        let blocks = segment::header(self.owner, made.key, capacity);
        let operation = Operation::WriteDurable { file: made.file, offset: 0, blocks };
        disk.submit(Token::Prepare, operation)?;
        if let Next::Ready(small) = std::mem::replace(&mut self.next, Next::Header(made)) {
            disk.close(small.file);
        }
        Ok(())
    }

    /// A step of making the next segment has ended.
    ///
    /// # Errors
    /// The disk's, unless it is full.
    pub fn prepared(
        &mut self,
        disk: &mut dyn Disk,
        result: Result<(), DiskError>,
    ) -> Result<(), StorageError> {
        match std::mem::replace(&mut self.next, Next::None) {
            Next::Header(segment) => match result {
                Err(error) if error.is_full() => return self.give_up(disk, &segment, &error),
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    let mut segment = segment;
                    let path = segment::path(&self.log, segment.key.number);
                    match disk.rename(&segment.path, &path) {
                        // A directory may need a block for a name.
                        Err(error) if error.is_full() => {
                            return self.give_up(disk, &segment, &error);
                        }
                        renamed => renamed?,
                    }
                    segment.path = path;
                    if is_on(Mutation::SkipsDirectorySync) {
                        self.next = Next::Ready(segment);
                        return Ok(());
                    }
                    let operation = Operation::SyncDirectory { file: self.names };
                    disk.submit(Token::Prepare, operation)?;
                    self.next = Next::Name(segment);
                }
            },
            Next::Name(segment) => {
                result?;
                self.next = Next::Ready(segment);
            }
            Next::None | Next::Ready(_) => unreachable!("only a step that is under way ends"),
        }
        Ok(())
    }

    /// There is no room for a segment that bears no final name yet, and so promises nothing: it is
    /// made again later.
    fn give_up(
        &mut self,
        disk: &mut dyn Disk,
        segment: &Segment,
        error: &DiskError,
    ) -> Result<(), StorageError> {
        disk.close(segment.file);
        disk.remove(&segment.path)?;
        self.starve(error);
        Ok(())
    }

    fn starve(&mut self, error: &DiskError) {
        reached(Mark::DiskFull);
        self.starved = true;
        self.retrying = false;
        log::debug!("the log finds no more space: {error}");
    }

    /// Submits a log write that ends at `end` of the current segment, or holds it while a slice of
    /// zeros is under way in its place.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_or_hold(
        &mut self,
        disk: &mut dyn Disk,
        current: &mut Segment,
        end: u64,
        operation: Operation,
    ) -> Result<(), StorageError> {
        let slice = self.filling.as_ref().filter(|slice| slice.segment == current.key.number);
        // A slice begins at `filled`, and the records end where they end: they meet if this write
        // goes past that.
        let meet = slice.is_some() && end > current.filled;
        if meet && !is_on(Mutation::ZerosOverRecords) {
            reached(Mark::HeldForZeros);
            self.held = Some(operation);
        } else {
            current.filled = current.filled.max(end);
            disk.submit(Token::Log, operation)?;
        }
        Ok(())
    }

    /// A slice of zeros has ended.
    ///
    /// # Errors
    /// The disk's, unless it is full.
    pub fn filled(
        &mut self,
        disk: &mut dyn Disk,
        current: &mut Segment,
        result: Result<(), DiskError>,
    ) -> Result<(), StorageError> {
        let slice = self.filling.take().expect("only a slice that is under way ends");
        match result {
            Err(error) if error.is_full() => self.starve(&error),
            Err(error) => return Err(error.into()),
            Ok(()) => {
                let next = match &mut self.next {
                    Next::Ready(next) => Some(next),
                    _ => None,
                };
                let filled = std::iter::once(&mut *current)
                    .chain(next)
                    .find(|segment| segment.key.number == slice.segment);
                if let Some(segment) = filled {
                    segment.filled = slice.end;
                    segment.promised = segment.promised.max(slice.end);
                }
            }
        }
        if let Some(operation) = self.held.take() {
            let Operation::WriteDurable { offset, blocks, .. } = &operation else {
                unreachable!("only log writes are held");
            };
            let end = offset + blocks.blocks().len() as u64;
            current.filled = current.filled.max(end);
            disk.submit(Token::Log, operation)?;
        }
        Ok(())
    }

    /// Starts what is due: the next segment, or a slice of zeros. Once both are far enough ahead of
    /// `position` in the current segment, nothing.
    ///
    /// # Errors
    /// The disk's, unless it is full.
    pub fn go_on(
        &mut self,
        disk: &mut dyn Disk,
        current: &mut Segment,
        position: u64,
    ) -> Result<(), StorageError> {
        if self.stopping {
            return Ok(());
        }
        self.begin_due(disk, current, position)?;
        if self.retrying && !self.is_under_way() {
            // Everything that is due was done.
            self.starved = false;
            self.retrying = false;
        }
        Ok(())
    }

    fn begin_due(
        &mut self,
        disk: &mut dyn Disk,
        current: &mut Segment,
        position: u64,
    ) -> Result<(), StorageError> {
        let left = current.capacity - position;
        let missing = matches!(self.next, Next::None);
        if missing && left < limits::SEGMENT_PREPARE_BYTES.max(current.capacity / 2) {
            self.prepare(disk, current, 0)?;
        }
        if self.filling.is_some() || !self.may_ask() || self.held.is_some() {
            return Ok(());
        }
        let target = current.capacity.min(position + limits::FILL_AHEAD_BYTES);
        let target = target - target % FIRST_RECORD;
        if fill_slice(disk, current, target, &mut self.filling)? {
            return Ok(());
        }
        if let Next::Ready(next) = &mut self.next {
            let rest = limits::FILL_AHEAD_BYTES.saturating_sub(left);
            let target = next.capacity.min(rest - rest % FIRST_RECORD);
            fill_slice(disk, next, target, &mut self.filling)?;
        }
        Ok(())
    }
}

/// Starts one slice if a whole one, or the segment's end, is missing to the target.
fn fill_slice(
    disk: &mut dyn Disk,
    segment: &Segment,
    target: u64,
    filling: &mut Option<Filling>,
) -> Result<bool, StorageError> {
    let missing = target.saturating_sub(segment.filled);
    let slice = limits::FILL_SLICE_BYTES as u64;
    if missing == 0 || missing < slice && target < segment.capacity {
        return Ok(false);
    }
    let length = missing.min(slice);
    let operation = Operation::WriteZeros {
        file: segment.file,
        offset: segment.filled,
        length: length as usize,
    };
    disk.submit(Token::Fill, operation)?;
    *filling = Some(Filling { segment: segment.key.number, end: segment.filled + length });
    Ok(true)
}
