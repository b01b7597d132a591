//! The snapshots that a directory holds when it is opened: their names, and which one counts.
//!
//! Design page 3 §2 and §3. Called when a directory is opened; what recovery makes of the choice is
//! argued in [`super::recovery`]. Reads a snapshot from its beginning to its end in windows of a
//! fixed size. Never removes or renames a snapshot, damaged or not, before recovery has ended well.

use std::path::{Path, PathBuf};

use super::disk::{Disk, FileId, FileKind, Open};
use super::error::StorageError;
use crate::proto::snapshot::{SnapshotError, SnapshotFault, SnapshotHeader};
use crate::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};
use crate::types::{ClusterId, LogIndex, SnapshotId, Term};

/// Bytes read at a time.
const WINDOW_BYTES: usize = 256 * 1024;

/// What is added to the name of a damaged snapshot that another one has replaced.
const ASIDE: &str = "damaged";

/// The snapshots of a directory.
pub struct Shelf {
    /// Where they are.
    pub directory: PathBuf,
    /// That directory, open.
    pub names: FileId,
    /// The newest whole one: its header, and its length in bytes.
    pub newest: Option<(SnapshotHeader, u64)>,
    /// Those before it with their lengths, oldest first. They were not looked into.
    pub older: Vec<(SnapshotId, u64)>,
    /// Those after it. None is whole.
    pub damaged: Vec<Damaged>,
}

/// A snapshot that is not what was written.
pub struct Damaged {
    /// What its name says.
    pub id: SnapshotId,
    offset: u64,
    what: String,
}

/// A snapshot's name: index and term of the last entry that it includes.
pub fn name(id: SnapshotId) -> String {
    format!("{:016}-{}.snap", id.index.0, id.term.0)
}

/// Where the snapshot is.
pub fn path(directory: &Path, id: SnapshotId) -> PathBuf {
    directory.join(name(id))
}

/// The snapshot that a name stands for.
pub fn parse(text: &str) -> Option<SnapshotId> {
    let (index, term) = text.strip_suffix(".snap")?.split_once('-')?;
    let id = SnapshotId { index: LogIndex(index.parse().ok()?), term: Term(term.parse().ok()?) };
    (id.index > LogIndex::ZERO && name(id) == text).then_some(id)
}

/// The snapshots in a directory by their names, oldest first; none where there is no directory.
///
/// # Errors
/// The disk's.
pub fn ids(disk: &mut dyn Disk, directory: &Path) -> Result<Vec<SnapshotId>, StorageError> {
    if disk.kind(directory)?.is_none() {
        return Ok(Vec::new());
    }
    let names = disk.list(directory)?.into_iter();
    let mut ids: Vec<SnapshotId> = names.filter_map(|(name, _)| parse(&name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

impl Shelf {
    /// Removes temporary files, makes all names durable, and finds the newest whole snapshot.
    ///
    /// # Errors
    /// The disk's; the newest snapshot is damaged and there is no whole one before it; one is
    /// another cluster's, or of a newer format.
    pub fn open(
        disk: &mut dyn Disk,
        data: &Path,
        cluster: ClusterId,
    ) -> Result<Shelf, StorageError> {
        let directory = data.join("snap");
        disk.create_directory(&directory)?;
        let names = disk.open(&directory, Open::Directory)?;
        let mut shelf =
            Shelf { directory, names, newest: None, older: Vec::new(), damaged: Vec::new() };
        match shelf.fill(disk, cluster) {
            Ok(()) => Ok(shelf),
            Err(error) => {
                disk.close(names);
                Err(error)
            }
        }
    }

    fn fill(&mut self, disk: &mut dyn Disk, cluster: ClusterId) -> Result<(), StorageError> {
        let shelf = self;
        let mut found = list(disk, &shelf.directory)?;
        // A crash may have left a name that isn't durable yet; the log may go on behind it.
        disk.sync(shelf.names)?;
        found.sort_unstable();
        while let Some(id) = found.pop() {
            let path = path(&shelf.directory, id);
            match verify(disk, &path, id, cluster) {
                Ok(whole) => {
                    shelf.newest = Some(whole);
                    break;
                }
                Err(StorageError::Corrupt { offset, what, .. }) => {
                    shelf.damaged.push(Damaged { id, offset, what });
                }
                Err(other) => return Err(other),
            }
        }
        if shelf.newest.is_none()
            && let Some(damaged) = shelf.damaged.first()
        {
            return Err(shelf.refusal(damaged));
        }
        for id in found {
            let path = path(&shelf.directory, id);
            if disk.kind(&path)? != Some(FileKind::Regular) {
                log::warn!("{} is not a regular file: left alone", path.display());
                continue;
            }
            let file = disk.open(&path, Open::Existing)?;
            let length = disk.length(file);
            disk.close(file);
            shelf.older.push((id, length?));
        }
        Ok(())
    }

    /// The newest whole snapshot.
    pub fn newest_id(&self) -> Option<SnapshotId> {
        self.newest.as_ref().map(|(header, _)| header.id)
    }

    /// Why a directory with this snapshot is not used.
    pub fn refusal(&self, damaged: &Damaged) -> StorageError {
        StorageError::corrupt(&path(&self.directory, damaged.id), damaged.offset, &damaged.what)
    }

    /// Recovery has ended well: what is damaged makes way, and is kept for inspection.
    ///
    /// # Errors
    /// The disk's.
    pub fn put_aside(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        let newest = self.newest_id().map(name).unwrap_or_default();
        for damaged in std::mem::take(&mut self.damaged) {
            log::error!(
                "{}; the log has all that it held behind snapshot {newest}, which takes its \
                 place; the damaged file is kept with the suffix .{ASIDE}",
                self.refusal(&damaged)
            );
            let path = path(&self.directory, damaged.id);
            let aside = self.directory.join(format!("{}.{ASIDE}", name(damaged.id)));
            disk.rename(&path, &aside)?;
            disk.sync(self.names)?;
        }
        Ok(())
    }
}

/// Removes temporary files; the snapshots among the rest.
fn list(disk: &mut dyn Disk, directory: &Path) -> Result<Vec<SnapshotId>, StorageError> {
    let mut found = Vec::new();
    for (name, kind) in disk.list(directory)? {
        match parse(&name) {
            Some(id) => found.push(id),
            None if name.ends_with(".tmp") && kind == FileKind::Regular => {
                disk.remove(&directory.join(name))?;
            }
            None if name.ends_with(ASIDE) => {}
            None => {
                log::warn!("{} is no snapshot: left alone", directory.join(name).display());
            }
        }
    }
    Ok(found)
}

/// Reads a snapshot's header, and nothing behind it.
///
/// # Errors
/// The disk's, or what is there is not the beginning of a snapshot.
pub fn read_header(disk: &mut dyn Disk, path: &Path) -> Result<SnapshotHeader, StorageError> {
    if disk.kind(path)? != Some(FileKind::Regular) {
        return Err(StorageError::corrupt(path, 0, "not a regular file"));
    }
    let file = disk.open(path, Open::Existing)?;
    let mut header = None;
    let read = decode(disk, file, path, |item| match item {
        SnapshotItem::Header(found) => {
            header = Some(found);
            false
        }
        _ => true,
    });
    disk.close(file);
    read?;
    header.ok_or_else(|| StorageError::corrupt(path, 0, "it has no header"))
}

/// Reads a snapshot to its end; its header and its length.
///
/// # Errors
/// The disk's; it is not that snapshot, whole, or another cluster's.
pub fn verify(
    disk: &mut dyn Disk,
    path: &Path,
    id: SnapshotId,
    cluster: ClusterId,
) -> Result<(SnapshotHeader, u64), StorageError> {
    let (header, length) = read(disk, path)?;
    if header.cluster != cluster {
        let what = format!("its cluster is {}, not {cluster}", header.cluster);
        return Err(StorageError::foreign(path, 0, what));
    }
    if header.id != id {
        let what = format!("it is snapshot {} under another's name", name(header.id));
        return Err(StorageError::corrupt(path, 0, what));
    }
    Ok((header, length))
}

/// The same for any snapshot, whoever's it is.
///
/// # Errors
/// The disk's, or what is there is not a whole snapshot.
pub fn read(disk: &mut dyn Disk, path: &Path) -> Result<(SnapshotHeader, u64), StorageError> {
    if disk.kind(path)? != Some(FileKind::Regular) {
        return Err(StorageError::corrupt(path, 0, "not a regular file"));
    }
    let file = disk.open(path, Open::Existing)?;
    let mut header = None;
    let end = decode(disk, file, path, |item| {
        if let SnapshotItem::Header(found) = item {
            header = Some(found);
        }
        true
    });
    disk.close(file);
    let (header, length) = header.zip(end?).expect("a whole snapshot begins with a header");
    Ok((header, length))
}

/// Decodes a snapshot's file until `goes_on` says no (`None`) or it ends (its length in bytes).
fn decode(
    disk: &mut dyn Disk,
    file: FileId,
    path: &Path,
    mut goes_on: impl FnMut(SnapshotItem) -> bool,
) -> Result<Option<u64>, StorageError> {
    let wrong = |error: SnapshotError| match error.fault {
        SnapshotFault::UnknownVersion(_) => StorageError::foreign(path, error.offset, error.fault),
        fault => StorageError::corrupt(path, error.offset, fault),
    };
    let mut decoder = SnapshotDecoder::new();
    let mut window = vec![0; WINDOW_BYTES];
    let mut at = 0;
    loop {
        let read = disk.read_at(file, at, &mut window)?;
        at += read as u64;
        let mut input = &window[..read];
        while let Some(item) = decoder.decode(&mut input).map_err(wrong)? {
            if !goes_on(item) {
                return Ok(None);
            }
        }
        if read < window.len() {
            break;
        }
    }
    Ok(Some(decoder.finish().map_err(wrong)?.bytes))
}
