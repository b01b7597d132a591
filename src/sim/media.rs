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
use super::world::{LOG, SNAP};
use crate::limits;
use crate::storage::buffer::ZEROS;
use crate::types::Boot;

/// The unit that a disk writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;

/// The file that says whose data directory it is.
const META: &str = "/data/meta";

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
struct OldSector {
    inode: usize,
    offset: usize,
    bytes: Vec<u8>,
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
    changes: Vec<NameChange>,
    /// Files that another one was renamed over, oldest first.
    replaced: Vec<usize>,
    old: Vec<OldSector>,
    /// Snapshots in which a bit has flipped, and which.
    rotten: Vec<(usize, usize, u8)>,
    /// The newest log write that was reported durable: its file, and its first byte that was new.
    last_durable: Option<(usize, usize)>,
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
        self.names.values().map(|inode| self.inodes[*inode].cache.len() as u64).sum()
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

    /// The process died in the middle of this write; the machine goes on. The kernel may have
    /// finished it, or kept it in memory, or never begun.
    pub fn abandon(
        &mut self,
        inode: usize,
        offset: usize,
        bytes: &[u8],
        random: &mut Xoshiro256PlusPlus,
    ) {
        match random.random_range(0..4) {
            0 => self.inodes[inode].write(offset, bytes),
            1 => self.inodes[inode].cache.put(offset, bytes),
            2 => self.inodes[inode].write_through(offset, bytes),
            _ => {}
        }
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

    /// The power goes: of what was not synced, any subset of sectors and names is left.
    pub fn lose_power(&mut self, random: &mut Xoshiro256PlusPlus) -> Losses {
        let mut losses = Losses::default();
        for inode in &mut self.inodes {
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

    /// Flips a bit, misplaces a sector or brings an old one back, somewhere before the newest
    /// acknowledged log write: damage there can be told from a torn write and must be. What was
    /// done, or nothing where there is no such place.
    pub fn damage(&mut self, kind: Damage, random: &mut Xoshiro256PlusPlus) -> Option<String> {
        if matches!(kind, Damage::Meta | Damage::MetaCut) {
            return self.damage_meta(kind, random);
        }
        let (last, limit) = self.last_durable?;
        let candidates: Vec<(PathBuf, usize, usize)> = self
            .stable_names
            .iter()
            .filter(|(path, _)| path.parent() == Some(Path::new(LOG)))
            .filter(|(path, _)| path.extension().is_some_and(|suffix| suffix == "wal"))
            .filter_map(|(path, inode)| {
                let is_last = *inode == last;
                let written = self.inodes[*inode].stable.written();
                let end = written.iter().rposition(|byte| *byte != 0)? / SECTOR * SECTOR;
                let end = if is_last { end.min(limit / SECTOR * SECTOR) } else { end };
                Some((path.clone(), *inode, end))
            })
            .take_while(|(_, inode, _)| *inode <= last)
            .filter(|(_, _, end)| *end >= SECTOR)
            .collect();
        if candidates.is_empty() {
            return None;
        }
        let (path, inode, end) = candidates[random.random_range(0..candidates.len())].clone();
        let (offset, bytes) = match kind {
            Damage::Rot => self.rot(inode, end, random)?,
            Damage::Misdirected => self.misdirect(inode, end, random)?,
            Damage::Stale => self.stale(inode, end, random)?,
            Damage::Cut => return Some(self.cut(&path, inode, end, random)),
            Damage::Meta | Damage::MetaCut => unreachable!("the log is damaged here"),
        };
        let file = &mut self.inodes[inode];
        file.stable.put(offset, &bytes);
        file.cache.put(offset, &bytes);
        Some(format!("{kind:?} in {} at {offset}", path.display()))
    }

    fn damage_meta(&mut self, kind: Damage, random: &mut Xoshiro256PlusPlus) -> Option<String> {
        let inode = *self.stable_names.get(Path::new(META))?;
        let file = &mut self.inodes[inode];
        let at = random.random_range(0..file.stable.len().max(1));
        match kind {
            Damage::MetaCut => file.stable.resize(at),
            _ if at < file.stable.len() => file.stable.flip(at, 1 << random.random_range(0..8)),
            _ => return None,
        }
        file.drop_cache();
        Some(format!("{kind:?} at {at}"))
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

    /// A segment ends before its last acknowledged byte.
    fn cut(
        &mut self,
        path: &Path,
        inode: usize,
        end: usize,
        random: &mut Xoshiro256PlusPlus,
    ) -> String {
        let length = random.random_range(0..end);
        let file = &mut self.inodes[inode];
        file.stable.resize(length);
        file.cache.resize(length);
        format!("Cut of {} at {length}", path.display())
    }

    /// Flips a bit in the middle of the newest snapshot; false if there is none.
    pub fn damage_snapshot(&mut self) -> bool {
        // Not those that were set aside: nobody looks at them any more.
        let is_snapshot = |path: &Path| {
            let is_whole = path.extension().is_some_and(|suffix| suffix == "snap");
            is_whole && path.parent() == Some(Path::new(SNAP))
        };
        let mut names = self.stable_names.iter().rev();
        let Some((_, inode)) = names.find(|(path, _)| is_snapshot(path)) else {
            return false;
        };
        let file = &mut self.inodes[*inode];
        let middle = file.stable.len() / 2;
        file.stable.flip(middle, 1);
        file.cache.flip(middle, 1);
        true
    }

    /// Flips a bit in each of the newest `count` snapshots in use. Returns in how many.
    pub fn rot_snapshots(&mut self, count: usize, random: &mut Xoshiro256PlusPlus) -> usize {
        // Not those that were set aside: nobody looks at them any more.
        let is_snapshot = |path: &Path| {
            let is_whole = path.extension().is_some_and(|suffix| suffix == "snap");
            is_whole && path.parent() == Some(Path::new(SNAP))
        };
        let names = self.stable_names.iter().rev().filter(|(path, _)| is_snapshot(path));
        let newest: Vec<usize> = names.map(|(_, inode)| *inode).take(count).collect();
        for inode in &newest {
            let file = &mut self.inodes[*inode];
            let (at, bit) = (random.random_range(0..file.stable.len()), random.random_range(0..8));
            file.stable.flip(at, 1 << bit);
            file.cache.flip(at, 1 << bit);
            self.rotten.push((*inode, at, 1 << bit));
        }
        newest.len()
    }

    /// The bits that have flipped in snapshots flip back.
    pub fn mend_snapshots(&mut self) {
        for (inode, at, bit) in std::mem::take(&mut self.rotten) {
            let file = &mut self.inodes[inode];
            if at < file.stable.len() {
                file.stable.flip(at, bit);
                file.cache.flip(at, bit);
            }
        }
    }

    /// Whether a bit of the file has flipped.
    pub fn is_rotten(&self, inode: usize) -> bool {
        self.rotten.iter().any(|(rotten, ..)| *rotten == inode)
    }

    fn sector(&self, inode: usize, at: usize) -> Vec<u8> {
        self.inodes[inode].stable.copy(at, SECTOR)
    }

    /// A written sector of the file before `end`.
    fn written(&self, inode: usize, end: usize, random: &mut Xoshiro256PlusPlus) -> Option<usize> {
        let is_written = |at: &usize| self.sector(inode, *at).iter().any(|byte| *byte != 0);
        let written: Vec<usize> = (0..end).step_by(SECTOR).filter(is_written).collect();
        (!written.is_empty()).then(|| written[random.random_range(0..written.len())])
    }

    fn rot(
        &self,
        inode: usize,
        end: usize,
        random: &mut Xoshiro256PlusPlus,
    ) -> Option<(usize, Vec<u8>)> {
        let at = self.written(inode, end, random)?;
        let mut bytes = self.sector(inode, at);
        // A byte that says something: behind the records a segment's last sector may be unused.
        let last = bytes.iter().rposition(|byte| *byte != 0)?;
        bytes[random.random_range(0..=last)] ^= 1 << random.random_range(0..8);
        Some((at, bytes))
    }

    fn misdirect(
        &self,
        inode: usize,
        end: usize,
        random: &mut Xoshiro256PlusPlus,
    ) -> Option<(usize, Vec<u8>)> {
        let (from, to) = (self.written(inode, end, random)?, self.written(inode, end, random)?);
        let bytes = self.sector(inode, from);
        (bytes != self.sector(inode, to)).then_some((to, bytes))
    }

    fn stale(
        &self,
        inode: usize,
        end: usize,
        random: &mut Xoshiro256PlusPlus,
    ) -> Option<(usize, Vec<u8>)> {
        let fits = |old: &&OldSector| {
            old.inode == inode
                && old.offset + SECTOR <= end
                && old.bytes.len() == SECTOR
                && old.bytes != self.sector(inode, old.offset)
        };
        let old: Vec<&OldSector> = self.old.iter().filter(fits).collect();
        let old = old.get(random.random_range(0..old.len().max(1)))?;
        Some((old.offset, old.bytes.clone()))
    }
}

/// How a disk lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Damage {
    Rot,
    Misdirected,
    Stale,
    Cut,
    Meta,
    MetaCut,
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
