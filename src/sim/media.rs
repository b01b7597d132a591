//! What a simulated disk's platters and page cache hold, sector by sector, and what a crash leaves.
//!
//! Crash model of design page 3: a file has cached bytes, stable bytes, and writes that are in the
//! cache only; a name counts once its directory was synced. Called by [`super::disk`], which puts
//! the storage's operations on top, and by the faults. Never fails and knows no time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::content::Content;
use crate::limits;
use crate::storage::buffer::ZEROS;
use crate::types::Boot;

/// The unit that a disk writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;

/// The file that says whose data directory it is.
pub(super) const META: &str = "/data/meta";

/// Old contents of sectors that are kept, for a disk that shows one of them again.
const KEPT_OLD_SECTORS: usize = 64;

/// A file without its name.
#[derive(Clone, Default)]
pub(super) struct Inode {
    /// What a read sees.
    pub cache: Content,
    /// What is there after the power went.
    pub stable: Content,
    /// Writes that are in the cache only, oldest first.
    dirty: Vec<(usize, Piece)>,
    /// Where the filesystem promises no space: up to where the file has any.
    sparse: Option<usize>,
}

/// What was written.
#[derive(Clone)]
enum Piece {
    Bytes(Vec<u8>),
    /// So many zeros.
    Zeros(usize),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Zeros(count) => *count,
        }
    }
}

/// A change of a directory that isn't durable yet.
#[derive(Clone)]
enum NameChange {
    Created(PathBuf, usize),
    Renamed(PathBuf, PathBuf, usize),
    Removed(PathBuf),
}

/// A sector as it was before it was written.
#[derive(Clone)]
pub(super) struct OldSector {
    pub inode: usize,
    pub offset: usize,
    pub bytes: Vec<u8>,
}

/// What a crash did, for the counters and the story.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Losses {
    /// Sectors of unsynced writes that are gone.
    pub sectors: u32,
    /// Log writes of which a part is there.
    pub torn: u32,
    /// Names that were not durable and are gone.
    pub names: u32,
}

/// All files of one server.
#[derive(Clone, Default)]
pub(super) struct Media {
    pub inodes: Vec<Inode>,
    pub names: BTreeMap<PathBuf, usize>,
    pub stable_names: BTreeMap<PathBuf, usize>,
    /// How often those may have become others: who has looked at them needn't look again before.
    pub names_moved: u64,
    /// Writes that a process left behind in part, and files that were longer behind a loss of power
    /// than what was synced of them.
    pub in_part: u32,
    pub longer_tails: u32,
    changes: Vec<NameChange>,
    /// Files that another one was renamed over, oldest first.
    replaced: Vec<usize>,
    pub(super) old: Vec<OldSector>,
    /// Snapshots that have rotted: where, and what was there.
    pub(super) rotten: Vec<(usize, usize, Vec<u8>)>,
    /// The newest log write that was reported durable: its file, and its first byte that was new.
    pub(super) last_durable: Option<(usize, usize)>,
}

impl Inode {
    /// A write into the page cache.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let is_blank = bytes.len() <= limits::FILL_SLICE_BYTES && bytes == ZEROS.first(bytes.len());
        if is_blank {
            return self.write_zeros(offset, bytes.len());
        }
        self.cache.put(offset, bytes);
        self.dirty.push((offset, Piece::Bytes(bytes.to_vec())));
    }

    /// A write of zeros into the page cache.
    pub fn write_zeros(&mut self, offset: usize, count: usize) {
        self.cache.put_zeros(offset, count);
        self.dirty.push((offset, Piece::Zeros(count)));
    }

    /// A write that is stable when it ends, and the file's length with it.
    pub fn write_through(&mut self, offset: usize, bytes: &[u8]) {
        self.cache.put(offset, bytes);
        self.stable.resize(self.cache.len());
        self.stable.put(offset, bytes);
        let end = offset + bytes.len();
        // Older bytes of these places must not come back over the newer ones.
        self.dirty.retain(|(at, old)| *at + old.len() <= offset || *at >= end);
    }

    /// The file has no more space than it takes now, however long it gets.
    pub fn becomes_sparse(&mut self) {
        let length = self.cache.len();
        self.sparse.get_or_insert(length);
    }

    pub fn is_sparse(&self) -> bool {
        self.sparse.is_some()
    }

    /// Bytes that the file takes of the disk.
    pub fn allocated(&self) -> usize {
        self.sparse.unwrap_or(self.cache.len())
    }

    /// It has space up to there.
    pub fn is_written_to(&mut self, end: usize) {
        self.sparse = self.sparse.map(|sparse| sparse.max(end));
    }

    /// What was written is stable; not what a failed sync has left in the cache.
    pub fn sync(&mut self) {
        for (offset, piece) in std::mem::take(&mut self.dirty) {
            match piece {
                Piece::Bytes(bytes) => self.stable.put(offset, &bytes),
                Piece::Zeros(count) => self.stable.put_zeros(offset, count),
            }
        }
        self.stable.resize(self.cache.len());
    }

    /// A sync has failed: what it was for looks written, and never will be.
    pub fn fail_sync(&mut self) {
        self.dirty.clear();
    }

    /// The cache is given back; what is read from now on is on the disk.
    pub fn drop_cache(&mut self) {
        self.cache.copy_from(&self.stable);
    }

    /// Of some bytes a subset of the sectors becomes stable; how many did not.
    fn tear(&mut self, offset: usize, piece: &Piece, random: &mut Xoshiro256PlusPlus) -> u32 {
        let mut lost = 0;
        let share = random.random_range(0..=100);
        for (at, from, length) in sectors(offset, piece.len()) {
            let is_kept = random.random_range(0..100) < share && at + length <= self.stable.len();
            match piece {
                _ if !is_kept => lost += 1,
                Piece::Bytes(bytes) => self.stable.put(at, &bytes[from..from + length]),
                Piece::Zeros(_) => self.stable.put_zeros(at, length),
            }
        }
        lost
    }
}

/// Cuts so many bytes at `offset` of a file where its sectors end: where each piece is in the file,
/// where among the bytes, and how long it is.
fn sectors(offset: usize, count: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done;
        let length = (SECTOR - at % SECTOR).min(count - done);
        let piece = (at, done, length);
        done += length;
        (length > 0).then_some(piece)
    })
}

/// How many bytes two beginnings have in common.
fn common(one: &[u8], other: &[u8]) -> usize {
    let is_other = |(one, other): &(&[u8], &[u8])| one != other;
    let sectors = one.chunks(SECTOR).zip(other.chunks(SECTOR));
    let same: usize = sectors.take_while(|pair| !is_other(pair)).map(|(one, _)| one.len()).sum();
    let rest = one[same..].iter().zip(&other[same..]);
    same + rest.take_while(|(one, other)| one == other).count()
}

impl Media {
    /// The file of that name, as the running system sees it.
    pub fn find(&self, path: &Path) -> Option<usize> {
        self.names.get(path).copied()
    }

    /// A new, empty file under that name.
    pub fn create(&mut self, path: &Path) -> usize {
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.names.insert(path.to_path_buf(), inode);
        self.changes.push(NameChange::Created(path.to_path_buf(), inode));
        inode
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> bool {
        let Some(inode) = self.names.remove(from) else {
            return false;
        };
        self.replaced.extend(self.names.insert(to.to_path_buf(), inode));
        self.changes.push(NameChange::Renamed(from.to_path_buf(), to.to_path_buf(), inode));
        true
    }

    pub fn remove(&mut self, path: &Path) -> bool {
        self.changes.push(NameChange::Removed(path.to_path_buf()));
        self.names.remove(path).is_some()
    }

    /// A directory's names are durable.
    pub fn sync_directory(&mut self, directory: &Path) {
        let (durable, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.changes).into_iter().partition(|change| {
                let (NameChange::Created(path, _)
                | NameChange::Renamed(_, path, _)
                | NameChange::Removed(path)) = change;
                path.parent() == Some(directory)
            });
        self.changes = rest;
        self.names_moved += u64::from(!durable.is_empty());
        for change in durable {
            let removed = match &change {
                NameChange::Removed(path) => self.stable_names.get(path).copied(),
                _ => None,
            };
            apply(&mut self.stable_names, change);
            removed.into_iter().for_each(|inode| self.free(inode));
        }
    }

    /// A name is gone for good: if it was its file's last one, so is the file.
    fn free(&mut self, inode: usize) {
        let mut named = self.names.values().chain(self.stable_names.values());
        if named.all(|other| *other != inode) {
            self.inodes[inode] = Inode::default();
            self.old.retain(|old| old.inode != inode);
        }
    }

    /// Bytes that all files have together.
    pub fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].allocated() as u64).sum()
    }

    /// A log write has ended well: keeps what it replaced.
    pub fn write_durable(&mut self, inode: usize, offset: usize, bytes: &[u8]) {
        let file = &mut self.inodes[inode];
        let before = file.stable.copy(offset, bytes.len());
        let first_new = offset + common(&before, bytes);
        for (at, from, length) in sectors(offset, bytes.len()) {
            let was = before.get(from..from + length);
            if let Some(was) = was.filter(|was| *was != &bytes[from..from + length]) {
                self.old.push(OldSector { inode, offset: at, bytes: was.to_vec() });
            }
        }
        let surplus = self.old.len().saturating_sub(KEPT_OLD_SECTORS);
        self.old.drain(..surplus);
        file.write_through(offset, bytes);
        self.last_durable = Some((inode, first_new));
    }

    /// The process died in the middle of this write, or it failed; the machine goes on. The kernel may
    /// have finished it, or kept it in memory, or never begun; a rough disk, with any of its sectors.
    pub fn abandon(
        &mut self,
        inode: usize,
        offset: usize,
        bytes: &[u8],
        random: &mut Xoshiro256PlusPlus,
        rough: Option<&mut Xoshiro256PlusPlus>,
    ) {
        let file = &mut self.inodes[inode];
        let how = random.random_range(0..4);
        let mut leave = |at: usize, bytes: &[u8]| match how {
            0 => file.write(at, bytes),
            1 => file.cache.put(at, bytes),
            2 => file.write_through(at, bytes),
            _ => {}
        };
        let Some(rough) = rough else {
            return leave(offset, bytes);
        };
        let share = rough.random_range(0..=200);
        let mut lost = false;
        for (at, from, length) in sectors(offset, bytes.len()) {
            let is_left = rough.random_range(0..100) < share;
            lost |= !is_left;
            if is_left {
                leave(at, &bytes[from..from + length]);
            }
        }
        self.in_part += u32::from(lost);
    }

    /// The power went in the middle of this write: any subset of its sectors is there.
    pub fn tear(
        &mut self,
        inode: usize,
        offset: usize,
        bytes: &[u8],
        random: &mut Xoshiro256PlusPlus,
    ) -> bool {
        let count = sectors(offset, bytes.len()).count() as u32;
        let lost = self.inodes[inode].tear(offset, &Piece::Bytes(bytes.to_vec()), random);
        lost > 0 && lost < count
    }

    /// The power goes: of what was not synced, any subset of sectors and names is left; on a rough
    /// disk also of what a file has become longer by.
    pub fn lose_power(
        &mut self,
        random: &mut Xoshiro256PlusPlus,
        mut rough: Option<&mut Xoshiro256PlusPlus>,
    ) -> Losses {
        let mut losses = Losses::default();
        for inode in &mut self.inodes {
            let (stable, cached) = (inode.stable.len(), inode.cache.len());
            if let Some(rough) = rough.as_mut().filter(|_| cached > stable) {
                inode.stable.resize(rough.random_range(stable..=cached));
                self.longer_tails += u32::from(inode.stable.len() > stable);
            }
            for (offset, piece) in std::mem::take(&mut inode.dirty) {
                losses.sectors += inode.tear(offset, &piece, random);
            }
            inode.drop_cache();
        }
        let is_ordered = random.random_bool(0.5);
        let mut goes_on = true;
        for change in std::mem::take(&mut self.changes) {
            // A journal keeps the order; without one, each name is a chance of its own.
            let is_kept = random.random_bool(0.5) && (goes_on || !is_ordered);
            goes_on &= is_kept;
            if is_kept {
                apply(&mut self.stable_names, change);
            } else {
                losses.names += 1;
            }
        }
        self.names = self.stable_names.clone();
        self.names_moved += 1;
        losses
    }

    /// Nothing but what is stable.
    pub fn forget_unsynced(&mut self) {
        for inode in &mut self.inodes {
            inode.dirty.clear();
            inode.drop_cache();
        }
        self.changes.clear();
        self.names = self.stable_names.clone();
    }

    /// Meta files that were there once, oldest first, and the boot that each tells of.
    pub fn old_metas(&self) -> Vec<(usize, Boot)> {
        let boot = |inode: &usize| {
            let text = String::from_utf8_lossy(self.inodes[*inode].stable.written()).into_owned();
            let boot = text.lines().find_map(|line| line.strip_prefix("boot ")?.parse().ok());
            boot.map(|boot| (*inode, Boot(boot)))
        };
        self.replaced.iter().filter_map(boot).collect()
    }

    /// The directory was begun anew: an older meta file would be another directory's, and nothing
    /// of this one was acknowledged yet.
    pub fn begin_anew(&mut self) {
        self.replaced.clear();
        self.last_durable = None;
    }

    /// The directory has that old meta file again.
    pub fn put_back_meta(&mut self, inode: usize) {
        self.names.insert(PathBuf::from(META), inode);
        self.stable_names.insert(PathBuf::from(META), inode);
        self.names_moved += 1;
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Created(path, inode) => {
            names.insert(path, inode);
        }
        NameChange::Renamed(from, to, inode) => {
            names.remove(&from);
            names.insert(to, inode);
        }
        NameChange::Removed(path) => {
            names.remove(&path);
        }
    }
}
