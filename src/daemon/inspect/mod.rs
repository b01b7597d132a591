//! `raftkvd verify DIR` and `raftkvd inspect DIR`: the truth about a stopped data directory.
//!
//! Called by `main`. What is read, and what a start would make of it, is the library's
//! ([`raftkv::storage::inspection`]); here it is printed, for people or as JSON. Never writes.

pub mod json;
pub mod table;

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use raftkv::config::Overrides;
use raftkv::storage::inspection::{self, Report, Start};
use raftkv::storage::{DiskError, StorageError, check_owner};
use raftkv::types::ServerId;

use super::arguments::{InspectArguments, VerifyArguments};
use super::{FAULT, USAGE, configuration, fail, storage_options};

/// Checks every byte: 0 and a line for each file, or 1 and the first bad byte. Where a configuration
/// is given, whose directory it is as well.
pub fn verify(arguments: &VerifyArguments) -> ExitCode {
    let VerifyArguments { dir, config, id, .. } = arguments;
    let overrides =
        Overrides { id: id.map(ServerId), data_dir: dir.clone(), ..Overrides::default() };
    let options = config.as_deref().map(|file| configuration(Some(file), &overrides));
    let options = match options.transpose() {
        Ok(config) => config.as_ref().map(storage_options),
        Err(problem) => return fail(USAGE, &problem),
    };
    let configured = options.as_ref().map(|options| &options.dir);
    let Some(dir) = dir.as_ref().or(configured) else {
        return fail(USAGE, "neither a directory nor a configuration is given");
    };
    let report = match inspection::inspect(dir) {
        Ok(report) => report,
        Err(error) => return fail(FAULT, &error.to_string()),
    };
    let text = match arguments.json {
        true => json::verify(&report) + "\n",
        false => table::verify(&report),
    };
    if let Err(problem) = print(&text) {
        return fail(FAULT, &problem);
    }
    if let Some((meta, options)) = report.meta.as_ref().zip(options.as_ref())
        && let Err(error) = check_owner(meta, options)
    {
        return fail(FAULT, &error.to_string());
    }
    match (report.first_bad(), &report.start) {
        (Some((path, offset, what)), _) => {
            fail(FAULT, &format!("{} is bad from offset {offset} on: {what}", path.display()))
        }
        (None, Start::Recovers { .. }) => ExitCode::SUCCESS,
        (None, start) => fail(FAULT, &table::start(start)),
    }
}

/// Prints what a directory holds; 0 if it could be read, whatever it holds.
pub fn inspect(arguments: &InspectArguments) -> ExitCode {
    let report = match inspection::inspect(&arguments.dir) {
        Ok(report) => report,
        Err(error) => return fail(FAULT, &error.to_string()),
    };
    let text = match arguments.json {
        true => json::inspect(&report) + "\n",
        false => table::inspect(&report),
    };
    let printed = print(&text).and_then(|()| match arguments.log {
        true => print_log(&report, arguments.json).map_err(|error| error.to_string()),
        false => Ok(()),
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(FAULT, &problem),
    }
}

/// A line for each record of the log that can be read, as it is read: a log may be long.
fn print_log(report: &Report, as_json: bool) -> Result<(), StorageError> {
    if report.meta.is_none() {
        return Ok(());
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    inspection::records(&report.dir, |segment, offset, record| {
        let line = match as_json {
            true => json::record(segment, offset, record),
            false => table::record(segment, offset, record),
        };
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    })?;
    let written = written.and_then(|()| out.flush());
    match written {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| {
            StorageError::Disk(DiskError::new("write", Path::new("/dev/stdout"), error))
        }),
    }
}

fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// `path` as it is called in the directory.
fn relative(report: &Report, path: &Path) -> String {
    path.strip_prefix(&report.dir).unwrap_or(path).display().to_string()
}
