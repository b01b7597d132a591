//! `raftkvd recover-quorum`: one server goes on alone, when the majority is gone for good.
//!
//! Ours; design page 3 §3. Everything that this server's log holds is kept, committed or not: what
//! was acknowledged and is not in it is lost, and nobody can say whether there was any. So it asks
//! first, keeps the old files, and starts a new lineage, so that no server of the old cluster that
//! turns up is ever heard again. Called by `main`, with the node stopped.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use raftkv::config::Config;
use raftkv::kv::command_set::THIS;
use raftkv::kv::loader::Loader;
use raftkv::kv::machine::StateMachine;
use raftkv::limits;
use raftkv::node::refound::{RefoundError, Refounding, begin_snapshot_of, refounded, replay};
use raftkv::proto::entry::{EntryKind, Recovered};
use raftkv::proto::snapshot::SnapshotHeader;
use raftkv::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};
use raftkv::raft::membership::{Member, Membership};
use raftkv::storage::founding::Founding;
use raftkv::storage::inspection::{self, Start};
use raftkv::storage::{Storage, aside, shelf};

use super::arguments::RecoverArguments;
use super::progress::Progress;
use super::snapshot::each_piece;
use super::snapshot::restore::{new_cluster, new_lineage};
use super::{FAULT, USAGE, configuration, fail, storage_options};

/// Why it ends without having changed anything.
enum Problem {
    Usage(String),
    Fault(String),
}

impl From<String> for Problem {
    fn from(text: String) -> Problem {
        Problem::Fault(text)
    }
}

/// Recovers; 0, 1 or 2.
pub fn recover_quorum(arguments: &RecoverArguments) -> ExitCode {
    let overrides = arguments.node.overrides();
    let config = match configuration(arguments.node.config.as_deref(), &overrides) {
        Ok(config) => config,
        Err(problem) => return fail(USAGE, &problem),
    };
    match recover(arguments, &config) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(Problem::Usage(problem)) => fail(USAGE, &problem),
        Err(Problem::Fault(problem)) => fail(FAULT, &problem),
    }
}

fn recover(arguments: &RecoverArguments, config: &Config) -> Result<String, Problem> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    if !config.data_dir.join("meta").exists() {
        let text = format!("{} is no data directory: nothing there", config.data_dir.display());
        return Err(Problem::Fault(text));
    }
    let options = storage_options(config);
    let (storage, recovered) = Storage::open_to_rescue(&options).map_err(|error| text(&error))?;
    let membership = membership(&recovered);
    let Some(membership) = membership.filter(|membership| !membership.is_empty()) else {
        storage.close().map_err(|error| text(&error))?;
        let text = "there is no data in this directory: there is nothing to go on with";
        return Err(Problem::Fault(format!("{text}\n{}", set_aside(config)).trim_end().to_owned()));
    };
    eprint!("{}{}", warning(config, &recovered, &membership), set_aside(config));
    if !arguments.yes_i_lost_the_majority_for_good && !is_confirmed(&config.cluster.name)? {
        storage.close().map_err(|error| text(&error))?;
        let text = "not confirmed: nothing was changed. Type the cluster's name at a terminal, or \
                    say --yes-i-lost-the-majority-for-good";
        return Err(Problem::Usage(text.to_owned()));
    }
    let (header, mut machine) = load(config, &recovered)?;
    let lineage = new_lineage()?;
    let begun = Founding::begin_over(storage, &options, lineage).map_err(|error| text(&error))?;
    let (mut founding, aside) = begun;
    write(config, &mut founding, &header, &mut machine)?;
    founding.finish().map_err(|error| text(&error))?;
    Ok(format!(
        "server {} is the only member of a new cluster \"{}\" (lineage {:016x}): {} records\n\
         revisions go on behind {}\n\
         the old files are in {}\n\
         start it; then, for each further server, with an empty data directory:\n  \
         raftkvd -c node.toml --id N --join {}\n  \
         rkv-cli -c {} RAFT ADD N peer-address client-address\n",
        config.id,
        config.cluster.name,
        lineage.0,
        machine.store().stored(),
        machine.store().revision().0.saturating_add(limits::RESTORE_REVISIONS),
        aside.display(),
        config.own().peer,
        config.own().client,
    ))
}

/// The newest membership in the log, committed or not.
fn membership(recovered: &Recovered) -> Option<Membership> {
    let mut entries = recovered.entries.iter().rev();
    let newest = entries.find(|entry| entry.kind == EntryKind::Membership);
    let payload = match newest {
        Some(entry) => &entry.payload,
        None => &recovered.snapshot.as_ref()?.0.membership,
    };
    Membership::decode(payload)
}

fn warning(config: &Config, recovered: &Recovered, membership: &Membership) -> String {
    let snapshot = recovered.snapshot.as_ref().map(|(header, _)| header.id);
    let last = recovered.entries.last().map(|entry| (entry.index, entry.term));
    let last = last.or(snapshot.map(|id| (id.index, id.term))).unwrap_or_default();
    let role = |member: &Member| if member.is_learner() { "learner" } else { "voter" };
    let mut members = String::new();
    for member in membership.members() {
        let own = if member.id == config.id { ", this one" } else { "" };
        members += &format!("    {} {}, peer {}{own}\n", role(member), member.id, member.peer);
    }
    let directory = match (&recovered.recovering, membership.member(config.id)) {
        (Some(why), _) => format!("  MIND: {why}.\n"),
        (None, None) => {
            "  This server is NO MEMBER by its log: it may lag far behind.\n".to_owned()
        }
        (None, Some(_)) => String::new(),
    };
    format!(
        "WARNING: recover-quorum makes server {} the only member of a new cluster \"{}\".\n  \
         Do this only if a majority of these members is gone for good, with their disks:\n\
         {members}  \
         This server's log ends with entry {} of term {}. Whatever was acknowledged behind that is \
         LOST;\n  \
         entries that were never acknowledged may come to count. If another server of them is \
         left,\n  \
         the one with the highest term, then the highest entry, knows most: recover that one.\n\
         {directory}  \
         The other members of the old cluster can never come back with their data.\n",
        config.id, config.cluster.name, last.0, last.1,
    )
}

/// What the directories hold that were set aside, and how to go on with one of them; nothing where
/// there is none.
fn set_aside(config: &Config) -> String {
    let mut text = String::new();
    for number in 1..=limits::DAMAGED_KEPT as u32 {
        let path = aside::path(&config.data_dir, number);
        if path.is_dir() {
            text += &format!("  {}: {}\n", path.display(), contents(&path));
        }
    }
    if !text.is_empty() {
        text = format!(
            "  Of this server's files some were set aside before. They are not used here:\n{text}  \
             To go on with one of these instead, copy it to a directory of its own, and say\n    \
             raftkvd recover-quorum -c node.toml --id {} --data-dir COPY\n",
            config.id
        );
    }
    text
}

/// How far a directory that was set aside goes, or why that can't be told.
fn contents(path: &Path) -> String {
    let report = match inspection::inspect(path) {
        Ok(report) => report,
        Err(error) => return format!("cannot be read: {error}"),
    };
    if let Some((file, offset, what)) = report.first_bad() {
        let file = file.display();
        return format!("cannot be gone on with: {file} is bad from offset {offset} on: {what}");
    }
    let mut logged = report.segments.iter().rev().filter_map(|segment| Some(segment.entries?.1));
    let headers = report.snapshots.iter().filter_map(|snapshot| snapshot.header.as_ref());
    let last = logged.next().max(headers.map(|header| header.id).max());
    match (last, &report.start) {
        (Some(last), Start::SetsAside { why, .. }) => {
            format!(
                "whole up to entry {} of term {}, set aside because {why}",
                last.index, last.term
            )
        }
        (Some(last), _) => format!("whole up to entry {} of term {}", last.index, last.term),
        (None, _) => "holds nothing".to_owned(),
    }
}

fn is_confirmed(name: &str) -> Result<bool, String> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("Type the cluster's name to go on: ");
    io::stderr().flush().map_err(|error| error.to_string())?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|error| error.to_string())?;
    Ok(line.trim_end_matches(['\r', '\n']) == name)
}

/// The state that the snapshot and every entry behind it make.
fn load(config: &Config, recovered: &Recovered) -> Result<(SnapshotHeader, StateMachine), String> {
    let mut machine = StateMachine::default();
    if let Some((header, _)) = &recovered.snapshot {
        let path = shelf::path(&config.data_dir.join("snap"), header.id);
        let mut loader = Loader::new();
        each_piece(&path, "loading", |bytes| {
            loader.feed(bytes).map_err(|error| error.to_string())
        })?;
        machine = loader.finish().map_err(|error| error.to_string())?.1;
    }
    recovered.entries.iter().for_each(|entry| replay(&mut machine, entry));
    // The header of a snapshot of it says how the new one is called.
    let mut bytes = Vec::new();
    begin_snapshot_of(&mut machine, recovered.identity.cluster, &mut bytes);
    machine.abandon_snapshot();
    match SnapshotDecoder::new().decode(&mut &bytes[..]) {
        // Before anything is moved: what this build can't read another one can.
        Ok(Some(SnapshotItem::Header(header))) if header.command_set > THIS.known => {
            Err(RefoundError::CommandSet(header.command_set).to_string())
        }
        Ok(Some(SnapshotItem::Header(header))) => Ok((header, machine)),
        other => unreachable!("a snapshot begins with its header: {other:?}"),
    }
}

fn write(
    config: &Config,
    founding: &mut Founding,
    header: &SnapshotHeader,
    machine: &mut StateMachine,
) -> Result<(), String> {
    let new = new_cluster(config, founding);
    let id = refounded(header, &new).map_err(|error| error.to_string())?.id;
    let mut refounding = Refounding::new(new);
    let (mut bytes, mut made) = (Vec::new(), Vec::new());
    begin_snapshot_of(machine, header.cluster, &mut bytes);
    let mut progress = Progress::new("writing", machine.store().used_bytes() as u64);
    let mut done = 0;
    loop {
        let end = machine.snapshot_slice(limits::SNAPSHOT_SLICE_BYTES, &mut bytes);
        done += bytes.len() as u64;
        refounding.feed(&bytes, &mut made).map_err(|error| error.to_string())?;
        bytes.clear();
        founding.write(id, std::mem::take(&mut made)).map_err(|error| error.to_string())?;
        progress.at(done);
        if end.is_some() {
            break;
        }
    }
    progress.end();
    refounding.finish(&mut made).map_err(|error| error.to_string())?;
    founding.write(id, made).map_err(|error| error.to_string())
}
