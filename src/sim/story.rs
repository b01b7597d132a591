//! What happened, in short dated lines that a person can read.
//!
//! Told by the world as it goes, kept only where somebody wants to read it: a seed runs silently
//! first, and again with its story once it has failed.

use std::collections::VecDeque;
use std::fmt;

use super::world::BEGIN;
use crate::types::Instant;

/// Lines that are kept: the newest.
const LINES: usize = 400;

/// A story.
#[derive(Clone, Default, Debug)]
pub struct Story {
    tells: bool,
    lines: VecDeque<(Instant, String)>,
    dropped: u64,
}

impl Story {
    /// An empty one that keeps what it is told, or doesn't.
    pub fn new(tells: bool) -> Story {
        Story { tells, ..Story::default() }
    }

    /// Adds a line.
    pub fn tell(&mut self, now: Instant, what: impl FnOnce() -> String) {
        if self.tells {
            self.lines.push_back((now, what()));
            if self.lines.len() > LINES {
                self.lines.pop_front();
                self.dropped += 1;
            }
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped > 0 {
            writeln!(f, "({} earlier lines)", self.dropped)?;
        }
        for (at, line) in &self.lines {
            let us = at.since(BEGIN).as_micros();
            writeln!(f, "t={}.{:03}ms {line}", us / 1000, us % 1000)?;
        }
        Ok(())
    }
}
