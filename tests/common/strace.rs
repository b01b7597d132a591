//! What the kernel was asked: strace around a node, and its account read back.
//!
//! Called by the tests of durability. strace runs detached (`-D`), so that the node stays our
//! child with its own exit code, and writes one file per thread (`-ff`), so that no line is split.

use std::path::{Path, PathBuf};

use super::works;

/// A finished system call.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    /// When it returned, in seconds since the Unix epoch.
    pub ended: f64,
    /// The whole line.
    pub line: String,
}

/// Why strace cannot be used here, or nothing.
pub fn missing() -> Option<&'static str> {
    if !works("strace", &["-V"]) {
        Some("strace is not installed")
    } else if !works("strace", &["-D", "-f", "-o", "/dev/null", "true"]) {
        Some("strace is not allowed to trace here")
    } else {
        None
    }
}

/// The command line that traces `calls` of a program, and `more` options, into `prefix.TID`.
pub fn wrapper(prefix: &Path, calls: &str, more: &[&str]) -> Vec<String> {
    let options = ["strace", "-D", "-ff", "-q", "-ttt", "-T", "-e", calls];
    let mut words: Vec<String> = options.iter().map(|word| (*word).to_owned()).collect();
    words.extend(more.iter().map(|word| (*word).to_owned()));
    words.extend(["-o".to_owned(), prefix.display().to_string()]);
    words
}

/// All calls in the files `prefix.TID`, by the time of their end.
pub fn calls(prefix: &Path) -> Vec<Call> {
    let mut calls = Vec::new();
    for path in files(prefix) {
        let text = std::fs::read_to_string(path).unwrap();
        calls.extend(text.lines().filter_map(parse));
    }
    calls.sort_by(|a, b| a.ended.total_cmp(&b.ended));
    calls
}

/// When the last thread ended, in seconds since the epoch, if it has.
pub fn ended(prefix: &Path) -> Option<f64> {
    let exits = files(prefix).into_iter().filter_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().rev().find(|line| line.contains("+++ exited with"))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    });
    exits.max_by(f64::total_cmp)
}

fn files(prefix: &Path) -> Vec<PathBuf> {
    let name = prefix.file_name().unwrap().to_string_lossy().into_owned() + ".";
    let entries = std::fs::read_dir(prefix.parent().unwrap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&name)).collect()
}

/// From `1700000000.123456 fdatasync(5) = 0 <0.000123>`.
fn parse(line: &str) -> Option<Call> {
    let (began, rest) = line.split_once(' ')?;
    let (name, _) = rest.split_once('(')?;
    let took = rest.rsplit_once('<').and_then(|(_, took)| took.strip_suffix('>'));
    let took: f64 = took.and_then(|took| took.parse().ok()).unwrap_or(0.0);
    Some(Call {
        name: name.to_owned(),
        ended: began.parse::<f64>().ok()? + took,
        line: line.to_owned(),
    })
}
