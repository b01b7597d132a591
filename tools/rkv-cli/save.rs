//! `rkv-cli snapshot save FILE`: a backup of a cluster that runs, from any of its nodes.
//!
//! Ours; design page 3, §3. A read that is linearizable comes first, so that the node has applied
//! whatever was acknowledged before; then the node takes a snapshot, and its file is read piece by
//! piece, verified as it comes, and gets its name only once it is whole and on the disk. Called by
//! `main`. Holds a few pieces in memory, never the file.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use raftkv::client::{Connection, Wire};
use raftkv::limits;
use raftkv::proto::reply_decoder::Value;
use raftkv::proto::snapshot::SnapshotEnd;
use raftkv::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};
use raftkv::types::{LogIndex, SnapshotId, Term};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Pieces that are asked for ahead.
const AHEAD: usize = 4;
/// Between two looks at how far the node is.
const INTERVAL: Duration = Duration::from_millis(50);
/// A node that takes no snapshot for so long cannot.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a snapshot may be replaced by newer ones while it is read.
const ATTEMPTS: u32 = 3;

/// What is to be saved, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Save {
    pub file: PathBuf,
    /// Overwrite the file.
    pub force: bool,
    /// Take what the node has, without asking a majority whether that is all.
    pub stale: bool,
}

/// Reads `snapshot save FILE [--force] [--stale]`; `None` where it is another command.
pub fn parse(args: &[Vec<u8>]) -> Option<Result<Save, String>> {
    let is = |place: usize, word: &[u8]| {
        args.get(place).is_some_and(|arg: &Vec<u8>| arg.eq_ignore_ascii_case(word))
    };
    if !is(0, b"snapshot") {
        return None;
    }
    let usage = "usage: rkv-cli snapshot save FILE [--force] [--stale]".to_owned();
    if !is(1, b"save") {
        return Some(Err(usage));
    }
    let mut save = Save { file: PathBuf::new(), force: false, stale: false };
    for arg in &args[2..] {
        match arg.as_slice() {
            b"--force" => save.force = true,
            b"--stale" => save.stale = true,
            option if option.starts_with(b"--") => return Some(Err(usage)),
            _ if !save.file.as_os_str().is_empty() => return Some(Err(usage)),
            name => save.file = PathBuf::from(OsString::from_vec(name.to_vec())),
        }
    }
    let has_file = !save.file.as_os_str().is_empty();
    Some(if has_file { Ok(save) } else { Err(usage) })
}

/// Why there is no backup.
type Problem = String;

/// A snapshot that a node has on its disk.
#[derive(Clone, Copy, Debug)]
struct Source {
    id: SnapshotId,
    bytes: u64,
}

/// Makes the backup from the first node that answers. Returns what is to be said.
///
/// # Errors
/// One line.
pub fn save(
    endpoints: &[String],
    wire: Wire,
    timeout: Duration,
    wanted: &Save,
) -> Result<String, Problem> {
    let path = &wanted.file;
    if !wanted.force && path.symlink_metadata().is_ok() {
        return Err(format!("{} is there already; --force overwrites it", path.display()));
    }
    let mut node = Node::reach(endpoints, wire, timeout)?;
    let mut tried = 0;
    loop {
        let source = node.snapshot(wanted.stale)?;
        if let Some(end) = fetch(&mut node, source, wanted)? {
            let (index, file) = (source.id.index, path.display());
            let SnapshotEnd { records, bytes } = end;
            return Ok(format!(
                "saved {records} records, {bytes} bytes, up to entry {index}, to {file}"
            ));
        }
        tried += 1;
        if tried == ATTEMPTS {
            let text = "newer snapshots replace what is being read faster than it comes";
            return Err(format!("{}: {text}", node.endpoint));
        }
    }
}

/// Reads the snapshot into the file; `None` if the node no longer has it.
fn fetch(node: &mut Node, source: Source, wanted: &Save) -> Result<Option<SnapshotEnd>, Problem> {
    let mut target = Target::begin(wanted)?;
    let mut decoder = SnapshotDecoder::new();
    let progress = Progress::new(source.bytes);
    let mut asked = 0;
    let mut under_way = VecDeque::new();
    let mut done = 0;
    while done < source.bytes {
        while under_way.len() < AHEAD && asked < source.bytes {
            let length = (source.bytes - asked).min(limits::EXPORT_PIECE_BYTES as u64);
            node.ask(source.id, asked, length)?;
            under_way.push_back(length);
            asked += length;
        }
        let length = under_way.pop_front().expect("something is left to be read");
        let Some(piece) = node.piece(length)? else {
            return Ok(None);
        };
        check(&mut decoder, &piece, source.id)
            .map_err(|problem| format!("{}: what it sends is damaged: {problem}", node.endpoint))?;
        target.write(&piece)?;
        done += length;
        progress.at(done);
    }
    let end = decoder.finish().map_err(|error| format!("{}: {error}", node.endpoint))?;
    target.finish()?;
    progress.end();
    Ok(Some(end))
}

/// Every byte is verified before it is written, and so is which snapshot it is of.
fn check(decoder: &mut SnapshotDecoder, mut piece: &[u8], id: SnapshotId) -> Result<(), Problem> {
    while let Some(item) = decoder.decode(&mut piece).map_err(|error| error.to_string())? {
        if let SnapshotItem::Header(header) = item
            && header.id != id
        {
            return Err(format!("it is the snapshot of entry {}", header.id.index));
        }
    }
    Ok(())
}

/// The node that the backup comes from.
struct Node {
    endpoint: String,
    connection: Connection,
    timeout: Duration,
}

impl Node {
    fn reach(endpoints: &[String], wire: Wire, timeout: Duration) -> Result<Node, Problem> {
        let mut problems = Vec::new();
        for endpoint in endpoints {
            match Connection::open(endpoint, wire, timeout) {
                Ok(connection) => {
                    return Ok(Node { endpoint: endpoint.clone(), connection, timeout });
                }
                Err(error) => problems.push(format!("{endpoint}: {error}")),
            }
        }
        Err(problems.join("; "))
    }

    fn call(&mut self, words: &[&str]) -> Result<Value, Problem> {
        let reply = self.connection.call(words, self.timeout);
        reply.map_err(|error| format!("{}: {error}", self.endpoint))
    }

    /// A durable snapshot that includes everything that was acknowledged before.
    fn snapshot(&mut self, stale: bool) -> Result<Source, Problem> {
        if !stale {
            // Answered only by who has applied all that was committed when it came.
            self.call(&["CLIENT", "READMODE", "linearizable"])?;
            if let Value::Error(text) = self.call(&["EXISTS", "raftkv"])? {
                let advice = "--stale saves what this node has, which may not be all";
                return Err(format!("{}: {text} ({advice})", self.endpoint));
            }
        }
        let info = self.info()?;
        let wanted = number(&info, "raft_applied_index")?;
        let mut since = Instant::now();
        let mut last = String::new();
        loop {
            let info = self.info()?;
            let index = number(&info, "raft_snapshot_index")?;
            if index >= wanted && index > 0 {
                let id = SnapshotId {
                    index: LogIndex(index),
                    term: Term(number(&info, "raft_snapshot_term")?),
                };
                return Ok(Source { id, bytes: number(&info, "raft_snapshot_bytes")? });
            }
            let state = value(&info, "raft_snapshot_state")?.to_owned();
            if state == "idle" {
                self.call(&["RAFT", "SNAPSHOT"])?;
            }
            if state != last && state != "idle" {
                since = Instant::now();
            }
            last = state;
            if since.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                let text = "it has taken no snapshot; is its disk full? Its log says why";
                return Err(format!("{}: for {seconds} seconds {text}", self.endpoint));
            }
            std::thread::sleep(INTERVAL);
        }
    }

    fn info(&mut self) -> Result<String, Problem> {
        match self.call(&["INFO", "raft"])? {
            Value::Bulk(text) | Value::Text(text) => Ok(String::from_utf8_lossy(&text).into()),
            Value::Error(text) => Err(format!("{}: {text}", self.endpoint)),
            _ => Err(format!("{}: it is no raftkv", self.endpoint)),
        }
    }

    fn ask(&mut self, id: SnapshotId, offset: u64, length: u64) -> Result<(), Problem> {
        let numbers = [id.index.0, id.term.0, offset, length].map(|number| number.to_string());
        let [index, term, offset, length] = &numbers;
        self.connection.queue(&["RAFT", "EXPORT", index, term, offset, length]);
        let sent = self.connection.flush(Instant::now() + self.timeout);
        sent.map_err(|error| format!("{}: {error}", self.endpoint))
    }

    fn piece(&mut self, length: u64) -> Result<Option<Vec<u8>>, Problem> {
        let reply = self.connection.receive(Instant::now() + self.timeout);
        match reply.map_err(|error| format!("{}: {error}", self.endpoint))? {
            Value::Bulk(piece) if piece.len() as u64 == length => Ok(Some(piece)),
            Value::Nil => Ok(None),
            Value::Error(text) => Err(format!("{}: {text}", self.endpoint)),
            _ => Err(format!("{}: a piece of another length than was asked for", self.endpoint)),
        }
    }
}

fn value<'a>(info: &'a str, name: &str) -> Result<&'a str, Problem> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.ok_or_else(|| format!("the node does not say {name}: it is of another version"))
}

fn number(info: &str, name: &str) -> Result<u64, Problem> {
    let text = value(info, name)?;
    text.trim().parse().map_err(|_| format!("the node says {name}:{text}"))
}

/// The file that is being made, under another name until it is whole.
struct Target {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    force: bool,
    is_done: bool,
}

impl Target {
    fn begin(wanted: &Save) -> Result<Target, Problem> {
        let path = wanted.file.clone();
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true);
        match wanted.force {
            true => options.create(true).truncate(true),
            false => options.create_new(true),
        };
        let file = options.open(&temporary).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{} is there: another backup is being made, or one was killed; --force \
                 overwrites it",
                temporary.display()
            ),
            _ => named(&temporary, &error),
        })?;
        Ok(Target { path, temporary, file, force: wanted.force, is_done: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.file.write_all(bytes).map_err(|error| named(&self.temporary, &error))
    }

    /// The file is whole: durable first, then under its name, then that is durable.
    fn finish(mut self) -> Result<(), Problem> {
        self.file.sync_all().map_err(|error| named(&self.temporary, &error))?;
        let flags = if self.force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &self.temporary, CWD, &self.path, flags)
            .map_err(|errno| named(&self.path, &io::Error::from(errno)))?;
        self.is_done = true;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|names| names.sync_all());
        synced.map_err(|error| named(parent, &error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.is_done {
            // Nobody could use it; where it can't be removed, the next backup says that it is there.
            let _left = std::fs::remove_file(&self.temporary);
        }
    }
}

fn named(path: &Path, error: &io::Error) -> Problem {
    format!("{}: {error}", path.display())
}

/// A bar at a terminal, a line for each tenth elsewhere.
struct Progress {
    total: u64,
    bar: Option<ProgressBar>,
    tenths: std::cell::Cell<u64>,
}

impl Progress {
    fn new(total: u64) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let template = "[{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go";
            let style = ProgressStyle::with_template(template);
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            bar.with_style(style.expect("the template is a constant, and a good one"))
        });
        Progress { total, bar, tenths: std::cell::Cell::new(u64::MAX) }
    }

    fn at(&self, done: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(done);
        }
        let tenths = done * 10 / self.total.max(1);
        if self.tenths.replace(tenths) != tenths {
            eprintln!("saving: {:3}% of {} bytes", tenths * 10, self.total);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn parse_reads_the_file_and_options_in_any_order() {
        let save = |force, stale| Some(Ok(Save { file: PathBuf::from("f"), force, stale }));
        assert_eq!(parse(&words("snapshot save f")), save(false, false));
        assert_eq!(parse(&words("SNAPSHOT SAVE --force f --stale")), save(true, true));
        assert_eq!(parse(&words("get snapshot")), None);
        for line in ["snapshot", "snapshot save", "snapshot save a b", "snapshot save a --x"] {
            assert!(matches!(parse(&words(line)), Some(Err(_))), "{line}");
        }
    }

    #[test]
    fn finish_overwrites_nothing_that_came_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("backup");
        let wanted = Save { file: file.clone(), force: false, stale: false };
        let mut target = Target::begin(&wanted).unwrap();
        assert!(Target::begin(&wanted).is_err(), "two at once");
        target.write(b"ours").unwrap();
        std::fs::write(&file, b"theirs").unwrap();
        assert!(target.finish().is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"theirs");
        assert!(!directory.path().join("backup.tmp").exists());
    }
}
