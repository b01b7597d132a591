//! A log as marks, which may begin behind a base: what a snapshot has replaced.
//!
//! Called by the checkers, for the logs that nodes hold and for those on the disks.

use super::Mark;
use crate::types::LogIndex;

/// Marks of entries without gaps.
#[derive(Clone, Default)]
pub(super) struct Marks {
    base: LogIndex,
    marks: Vec<Mark>,
}

impl Marks {
    /// None yet, behind `base`.
    pub fn behind(base: LogIndex) -> Marks {
        Marks { base, marks: Vec::new() }
    }

    /// The entry before the first mark.
    pub fn base(&self) -> LogIndex {
        self.base
    }

    pub fn last_index(&self) -> LogIndex {
        self.base.plus(self.marks.len() as u64)
    }

    pub fn last(&self) -> Option<Mark> {
        self.marks.last().copied()
    }

    pub fn at(&self, index: LogIndex) -> Option<Mark> {
        self.marks.get(index.0.checked_sub(self.base.0 + 1)? as usize).copied()
    }

    pub fn push(&mut self, mark: Mark) {
        self.marks.push(mark);
    }

    pub fn pop(&mut self) {
        self.marks.pop();
    }

    /// Nothing is left from `from` on, which may be before the base.
    pub fn truncate_from(&mut self, from: LogIndex) {
        match from.0.checked_sub(self.base.0 + 1) {
            Some(kept) => self.marks.truncate(kept as usize),
            None => *self = Marks::behind(from.prev()),
        }
    }

    /// Nothing is left up to `through`.
    pub fn compact(&mut self, through: LogIndex) {
        let gone = (through.0 - self.base.0).min(self.marks.len() as u64);
        self.marks.drain(..gone as usize);
        self.base = through;
    }
}
