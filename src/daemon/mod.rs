//! What the program raftkvd is beside the library: its command line and its subcommands.
//!
//! Called by `main`. Reads files and arguments, prints, and ends the process with 0, 1 or 2; the
//! node itself is in the library.

pub mod arguments;
pub mod check;
pub mod demo;
pub mod inspect;
mod journal;
mod progress;
pub mod recover_quorum;
pub mod run;
pub mod snapshot;

use std::path::Path;
use std::process::ExitCode;

use raftkv::config::{Config, Overrides};
use raftkv::storage;

/// A runtime fault: a lock held, corruption, a disk error, a failed assertion.
pub const FAULT: u8 = 1;
/// Bad usage or a mistake in the configuration.
pub const USAGE: u8 = 2;

/// Prints `problem` on one line and gives the exit code.
pub fn fail(code: u8, problem: &str) -> ExitCode {
    eprintln!("raftkvd: {problem}");
    ExitCode::from(code)
}

/// The configuration that a file, or none, and the command line give together.
///
/// # Errors
/// One line for the operator.
pub fn configuration(file: Option<&Path>, overrides: &Overrides) -> Result<Config, String> {
    let Some(file) = file else {
        return Config::single(overrides).map_err(|mistake| mistake.to_string());
    };
    let named = |problem: &dyn std::fmt::Display| format!("{}: {problem}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    Config::parse(&text, overrides).map_err(|mistake| named(&mistake))
}

/// Which data directory, and as whose.
pub fn storage_options(config: &Config) -> storage::Options {
    storage::Options {
        dir: config.data_dir.clone(),
        cluster: config.cluster.name.clone(),
        server: config.id,
        has_others: config.cluster.nodes.len() > 1 || !config.join.is_empty(),
        sync: config.storage.sync,
        segment_bytes: config.storage.segment_bytes,
    }
}
