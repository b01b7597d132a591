//! One mistake in a configuration: the line, the key, and what would be right.
//!
//! Called by `file` and `check`, printed by `main` behind the file's name. Its text is always a
//! single line, whatever the file contained.

use std::fmt;
use std::ops::Range;

/// A mistake in a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The line in the file, 1 and up; none if the mistake has no place there (a missing key, an
    /// option of the command line).
    pub line: Option<usize>,
    /// The key with its table, such as `raft.heartbeat_ms`; empty where the text is no TOML.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Mistake {
    /// A mistake at the bytes `span` of `text`.
    pub(super) fn at(text: &str, span: Option<Range<usize>>, key: &str, problem: &str) -> Mistake {
        Mistake {
            line: span.map(|span| line_of(text, span.start)),
            key: key.to_owned(),
            problem: one_line(problem),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Mistake {}

fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn one_line(problem: &str) -> String {
    let lines: Vec<&str> = problem.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(", ").chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
