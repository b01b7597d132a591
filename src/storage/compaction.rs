//! Compaction: segments whose entries a snapshot covers are removed, the oldest first.
//!
//! Design page 3 §2. One segment at a time, and its removal is durable before the next one's
//! begins: so whatever a crash leaves is the log's end in one piece, which begins with a segment
//! that says what came before it. Called by the writer. Never removes the segment that is written,
//! nor one before a segment that doesn't yet bear the hard state durably.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::disk::{Disk, FileId, Operation, Token};
use super::error::{DiskError, StorageError};
use super::segment;
use crate::types::LogIndex;

/// What a segment holds, as far as compaction asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The segment's number.
    pub number: u64,
    /// The highest entry that was ever written to it and that a reset has not made void; 0 if none.
    pub highest: LogIndex,
    /// Whether it begins, durably, with what the segments before it leave behind: the log's last
    /// entry and the hard state.
    pub stands_alone: bool,
}

impl Held {
    /// A segment without a record.
    pub fn new(number: u64) -> Held {
        Held { number, highest: LogIndex::ZERO, stands_alone: false }
    }
}

/// The segments behind the one that is written.
pub struct Compaction {
    log: PathBuf,
    names: FileId,
    /// Oldest first.
    passed: VecDeque<Held>,
    /// Entries up to here are covered.
    covered: LogIndex,
    under_way: Option<Step>,
}

enum Step {
    Remove,
    Names,
}

impl Compaction {
    /// For the log at `log`, whose open directory is `names`.
    pub fn new(log: PathBuf, names: FileId, passed: VecDeque<Held>) -> Compaction {
        Compaction { log, names, passed, covered: LogIndex::ZERO, under_way: None }
    }

    /// Snapshots cover everything up to `through`.
    pub fn cover(&mut self, through: LogIndex) {
        self.covered = self.covered.max(through);
    }

    /// Begins no further removal.
    pub fn stop(&mut self) {
        self.covered = LogIndex::ZERO;
    }

    /// A segment was ended.
    pub fn pass(&mut self, segment: Held) {
        self.passed.push_back(segment);
    }

    /// A reset of the log is durable: what the segments before it hold is void.
    pub fn void_all(&mut self) {
        for segment in &mut self.passed {
            segment.highest = LogIndex::ZERO;
        }
    }

    /// Whether an operation of this part is under way.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Starts the next removal if one is due.
    ///
    /// # Errors
    /// The disk's.
    pub fn go_on(&mut self, disk: &mut dyn Disk, current: Held) -> Result<(), StorageError> {
        let Some(oldest) = self.passed.front() else {
            return Ok(());
        };
        let next = *self.passed.get(1).unwrap_or(&current);
        assert_eq!(next.number, oldest.number + 1, "segments follow on each other");
        let is_due = oldest.highest <= self.covered && self.covered > LogIndex::ZERO;
        if self.under_way.is_some() || !is_due || !next.stands_alone {
            return Ok(());
        }
        let path = segment::path(&self.log, oldest.number);
        disk.submit(Token::Compact, Operation::Remove { path })?;
        self.under_way = Some(Step::Remove);
        Ok(())
    }

    /// A step has ended.
    ///
    /// # Errors
    /// The disk's.
    pub fn ended(
        &mut self,
        disk: &mut dyn Disk,
        result: Result<(), DiskError>,
    ) -> Result<(), StorageError> {
        result?;
        match self.under_way.take().expect("only a step that is under way ends") {
            Step::Remove => {
                disk.submit(Token::Compact, Operation::SyncDirectory { file: self.names })?;
                self.under_way = Some(Step::Names);
            }
            Step::Names => {
                self.passed.pop_front();
            }
        }
        Ok(())
    }
}
