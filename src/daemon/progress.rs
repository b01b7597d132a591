//! How far a long offline work is: one line that changes at a terminal, a line each tenth elsewhere.
//!
//! Called by `snapshot/` and `recover_quorum`. Writes to stderr only. The tools' progress bar is not
//! used, so that raftkvd builds without what the tools need.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// A terminal's line is written anew so often at most.
const INTERVAL: Duration = Duration::from_millis(100);

/// The width of the bar in characters.
const WIDTH: u64 = 30;

/// How far a work is.
pub struct Progress {
    what: &'static str,
    total: u64,
    is_terminal: bool,
    shown_at: Option<Instant>,
    tenths: Option<u64>,
}

impl Progress {
    /// A work of `total` bytes, of which nothing is done yet.
    pub fn new(what: &'static str, total: u64) -> Progress {
        let is_terminal = io::stderr().is_terminal();
        Progress { what, total: total.max(1), is_terminal, shown_at: None, tenths: None }
    }

    /// So many bytes are done.
    pub fn at(&mut self, done: u64) {
        let tenths = done * 10 / self.total;
        let is_due = match self.is_terminal {
            true => self.shown_at.is_none_or(|at| at.elapsed() >= INTERVAL) || done >= self.total,
            false => self.tenths != Some(tenths),
        };
        if is_due {
            self.tenths = Some(tenths);
            self.shown_at = Some(Instant::now());
            self.show(done);
        }
    }

    /// The work has come to its end, or is given up: the line stays as it is.
    pub fn end(self) {
        if self.is_terminal && self.shown_at.is_some() {
            eprintln!();
        }
    }

    fn show(&self, done: u64) {
        let Progress { what, total, .. } = self;
        let percent = done.min(*total) * 100 / total;
        let line = format!("{what}: {percent:3}% of {total} bytes");
        // A progress line that cannot be written is not worth ending the work for.
        let _lost = match self.is_terminal {
            true => {
                let filled = "#".repeat((percent * WIDTH / 100) as usize);
                write!(io::stderr(), "\r[{filled:<30}] {line}")
            }
            false => writeln!(io::stderr(), "{line}"),
        };
    }
}
