//! Setting a data directory's files aside, when they can no longer be believed.
//!
//! Design page 3 §2 and page 1 §4: a server whose log is corrupt, or an old copy, has forgotten
//! promises. It is treated as one that lost its disk: the files are kept for inspection, and the
//! directory begins anew under another incarnation. Called when a directory is opened. Never does so
//! where no other server is known that could hold the data, and never removes a byte.
//!
//! The steps, each durable before the next begins:
//!
//! 1. The meta file says that the files are being set aside, where to and why. From here on nothing
//!    that is left in its place is looked at: without its damaged part the rest may look whole.
//! 2. The files are moved, in any order.
//! 3. A copy of the meta file follows them.
//! 4. The meta file has a new incarnation, no boot, and says that the server is recovering.
//!
//! A crash before 1 leaves the damaged directory; one between 1 and 4 is gone on with at the next
//! start; behind 4 the directory is a new one, whose log is made as any new one's is.

use std::path::{Path, PathBuf};

use super::disk::{Disk, Open};
use super::error::StorageError;
use super::meta::{Aside, Meta, Standing};
use super::scan::{Records, Step};
use super::segment::{self, Owner};
use super::{Options, shelf};
use crate::limits;
use crate::proto::entry::{Entry, EntryKind};
use crate::proto::record::Body;
use crate::raft::membership::{Member, Membership};
use crate::testing::{Mark, reached};
use crate::types::{Boot, Divergence, Incarnation, LogIndex, ServerId};

/// What is moved.
const MOVED: [&str; 2] = ["log", "snap"];

/// The directory that keeps what was set aside under a number.
pub fn path(data: &Path, number: u32) -> PathBuf {
    data.join(format!("damaged-{number}"))
}

/// What becomes of a directory that a start finds corrupt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Its files are set aside under this number, and its server is admitted again.
    SetAside(u32),
    /// It is left as it is, for this reason; what can be done about it is said there too.
    Refused(String),
}

/// Decides what becomes of a corrupt directory. Changes nothing.
///
/// # Errors
/// The disk's.
pub fn fate(disk: &mut dyn Disk, options: &Options, meta: &Meta) -> Result<Fate, StorageError> {
    let id = options.server;
    let others = match newest_membership(disk, &options.dir, meta)? {
        Some(membership) => membership.members().iter().any(|member| has_data(member, id)),
        None => options.has_others || !meta.peers.is_empty(),
    };
    if !others {
        return Ok(Fate::Refused(format!(
            "no other server is known that holds this data, so all is left as it is; restore a \
             backup, or, if others do hold it, move the directory away, start again, and say RAFT \
             ADD {id} to one of them"
        )));
    }
    Ok(match free_number(disk, options)? {
        Some(number) => Fate::SetAside(number),
        None => Fate::Refused(too_many(options)),
    })
}

/// The number of the next directory to be set aside, unless there are too many already.
pub(super) fn free_number(
    disk: &mut dyn Disk,
    options: &Options,
) -> Result<Option<u32>, StorageError> {
    for number in 1..=limits::DAMAGED_KEPT as u32 {
        if disk.kind(&path(&options.dir, number))?.is_none() {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn too_many(options: &Options) -> String {
    format!(
        "{} directories damaged-* are kept in {} already: this disk may be failing; look at them, \
         move them away, and start again",
        limits::DAMAGED_KEPT,
        options.dir.display()
    )
}

/// Whether that is another server which votes, and so has what was acknowledged.
fn has_data(member: &Member, own: ServerId) -> bool {
    member.id != own && (member.voter || member.outgoing_voter)
}

/// Sets the files aside because of `error`, or says why that is not done.
///
/// # Errors
/// The disk's; `error` itself, with what can be done about it, where the directory is refused.
pub fn begin(
    disk: &mut dyn Disk,
    options: &Options,
    meta: &mut Meta,
    error: StorageError,
) -> Result<(), StorageError> {
    let StorageError::Corrupt { file, offset, what } = &error else {
        return Err(error);
    };
    let number = match fate(disk, options, meta)? {
        Fate::SetAside(number) => number,
        Fate::Refused(why) => {
            return Err(StorageError::corrupt(file, *offset, format!("{what}; {why}")));
        }
    };
    reached(Mark::DamageSetAside);
    log::error!("{error}");
    meta.standing = Standing::SettingAside(Aside::new(number, &error.to_string()));
    meta.replace(disk, &options.dir)?;
    finish(disk, options, meta)
}

/// What a start says of a meta file that is damaged or missing: whose directory it was, and what
/// that has promised, cannot be told, so nothing is done.
pub fn unknown_owner(options: &Options, error: StorageError) -> StorageError {
    let StorageError::Corrupt { file, offset, what } = &error else {
        return error;
    };
    let id = options.server;
    let what = format!(
        "{what}; whose directory this is cannot be told, so all is left as it is: move it away, \
         start again, and say RAFT ADD {id} to another member, or, if there is none that holds \
         the data, restore a backup"
    );
    StorageError::corrupt(file, *offset, what)
}

/// Why the others say that a directory is not to be used, if they did.
pub(super) fn told(meta: &Meta) -> Option<String> {
    match meta.standing {
        Standing::OldCopy => {
            let why = "a peer has met a later state of this data directory: it was an old copy";
            Some(why.to_owned())
        }
        Standing::Contradicted(Divergence { index, own, majority }) => Some(format!(
            "a majority has come to another state: up to entry {index} the digest here was \
             {own:016x}, and theirs {majority:016x}"
        )),
        _ => None,
    }
}

/// Sets a directory aside because the others said so: so there are others.
///
/// # Errors
/// As [`begin`].
pub(super) fn begin_told(
    disk: &mut dyn Disk,
    options: &Options,
    meta: &mut Meta,
    why: &str,
) -> Result<(), StorageError> {
    let Some(number) = free_number(disk, options)? else {
        let what = format!("{why}; {}", too_many(options));
        return Err(StorageError::foreign(&super::meta::path(&options.dir), 0, what));
    };
    log::error!("{why}");
    meta.standing = Standing::SettingAside(Aside::new(number, why));
    meta.replace(disk, &options.dir)?;
    finish(disk, options, meta)
}

/// Why the files are to be set aside, where that was decided and nothing of them was moved yet: they
/// can be read where they are. So it is with a directory that was set aside, too.
///
/// # Errors
/// The disk's.
pub(super) fn decided(
    disk: &mut dyn Disk,
    options: &Options,
    meta: &Meta,
) -> Result<Option<String>, StorageError> {
    let Standing::SettingAside(aside) = &meta.standing else {
        return Ok(None);
    };
    let is_begun = disk.kind(&path(&options.dir, aside.number))?.is_some();
    Ok((!is_begun).then(|| aside.why.clone()))
}

/// Goes on with what was begun, from wherever a crash has left it.
///
/// # Errors
/// The disk's; the next start goes on.
pub fn finish(disk: &mut dyn Disk, options: &Options, meta: &mut Meta) -> Result<(), StorageError> {
    if matches!(meta.standing, Standing::SettingAside(_) | Standing::Recovering(_)) {
        // The last process may have been killed before this name of the meta file was durable. What
        // follows must never be there without it: a new log would be moved over the old one.
        sync_names(disk, &options.dir)?;
    }
    let Standing::SettingAside(aside) = &meta.standing else {
        return Ok(());
    };
    let aside = aside.clone();
    let kept = path(&options.dir, aside.number);
    for name in MOVED {
        move_files(disk, &options.dir.join(name), &kept.join(name))?;
    }
    disk.create_directory(&kept)?;
    meta.replace(disk, &kept)?;
    let before = meta.incarnation;
    meta.incarnation = Incarnation(disk.random()?);
    meta.boot = Boot::ZERO;
    meta.standing = Standing::Recovering(aside);
    meta.replace(disk, &options.dir)?;
    let id = options.server;
    log::error!(
        "all files of data directory {before} were put into {}, and data directory {} begins: \
         server {id} has forgotten what it promised, and takes part in nothing until it is \
         admitted again, by RAFT ADD {id} to any member, or by itself where cluster.readmit is \
         \"auto\"; where no majority of the members is left, it stays out: see raftkvd \
         recover-quorum",
        kept.display(),
        meta.incarnation
    );
    Ok(())
}

/// Moves all that is in a directory, durably.
fn move_files(disk: &mut dyn Disk, from: &Path, to: &Path) -> Result<(), StorageError> {
    if disk.kind(from)?.is_some() {
        disk.create_directory(to)?;
        for (name, _) in disk.list(from)? {
            let (old, new) = (from.join(&name), to.join(&name));
            if disk.kind(&new)?.is_some() {
                let what = format!("it was set aside already, but {} is there", old.display());
                return Err(StorageError::corrupt(&new, 0, what));
            }
            disk.rename(&old, &new)?;
        }
    }
    // The new names first: never is there a moment at which a file may have none. Also where nothing
    // was left to move: whoever moved it may have been killed before this.
    for directory in [to, from] {
        if disk.kind(directory)?.is_some() {
            sync_names(disk, directory)?;
        }
    }
    Ok(())
}

pub(super) fn sync_names(disk: &mut dyn Disk, directory: &Path) -> Result<(), StorageError> {
    let names = disk.open(directory, Open::Directory)?;
    let synced = disk.sync(names);
    disk.close(names);
    Ok(synced?)
}

/// Why the server is recovering: nothing once it was admitted on this directory, as its own log or
/// snapshot says.
pub fn recovering(
    meta: &mut Meta,
    options: &Options,
    snapshot: Option<&[u8]>,
    entries: &[Entry],
) -> Option<String> {
    let Standing::Recovering(aside) = &meta.standing else {
        return None;
    };
    let mut newest = entries.iter().rev().filter(|entry| entry.kind == EntryKind::Membership);
    let payload = newest.next().map(|entry| &entry.payload[..]).or(snapshot);
    let membership = payload.and_then(Membership::decode);
    let member = membership.as_ref().and_then(|membership| membership.member(meta.server));
    if member.is_some_and(|member| member.incarnation == meta.incarnation) {
        meta.standing = Standing::Sound;
        return None;
    }
    let kept = path(&options.dir, aside.number);
    Some(format!("{}; its files are kept in {}", aside.why, kept.display()))
}

/// The newest membership that can still be read, of the log and of all snapshots.
fn newest_membership(
    disk: &mut dyn Disk,
    data: &Path,
    meta: &Meta,
) -> Result<Option<Membership>, StorageError> {
    let mut in_snapshots = (LogIndex::ZERO, None);
    let snap = data.join("snap");
    for id in shelf::ids(disk, &snap)? {
        // A header that cannot be read says nothing; the others may.
        let header = readable(shelf::read_header(disk, &shelf::path(&snap, id)))?;
        if let Some(header) = header
            && header.membership_index >= in_snapshots.0
        {
            in_snapshots = (header.membership_index, Membership::decode(&header.membership));
        }
    }
    let mut in_log = (LogIndex::ZERO, None);
    let log = data.join("log");
    let owner = Owner::of(meta);
    for number in segment::numbers(disk, &log)? {
        let Some(segment) = readable(segment::open(disk, &log, number, owner))? else {
            continue;
        };
        let mut records = Records::new(&segment);
        while let Step::Record(record, _) = records.step(disk)? {
            let Body::Entry(entry) = record.body else { continue };
            if entry.kind == EntryKind::Membership {
                in_log = (entry.index, Membership::decode(&entry.payload));
            }
        }
        disk.close(segment.file);
    }
    Ok(if in_log.0 > in_snapshots.0 { in_log.1 } else { in_snapshots.1 })
}

/// What could be read of a damaged directory; nothing where that is what is damaged. A disk that
/// fails says nothing about what it holds, and ends the start.
fn readable<T>(read: Result<T, StorageError>) -> Result<Option<T>, StorageError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ StorageError::Disk(_)) => Err(error),
        Err(_) => Ok(None),
    }
}
