//! How a simulated disk lies: bits that flip, sectors that are old or another's, files cut short.
//!
//! Design page 5, disk. In the log only before the newest acknowledged write: damage there can be
//! told from a torn write and must be. Called by the faults, and by the storage's tests on the
//! simulated disk. Decides nothing about what a server may do then.

use std::path::{Path, PathBuf};

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::media::{META, Media, OldSector, SECTOR};
use super::world::{LOG, SNAP};

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

impl Media {
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
            Damage::Misdirected => {
                let all: Vec<_> = candidates.iter().map(|(_, inode, end)| (*inode, *end)).collect();
                self.misdirect((inode, end), &all, random)?
            }
            Damage::Stale => self.stale(inode, end, random)?,
            Damage::Cut => return Some(self.cut(&path, inode, end, random)),
            Damage::Meta | Damage::MetaCut => unreachable!("the log is damaged here"),
        };
        self.overwrite(inode, offset, &bytes);
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

    /// Flips a bit in each of the newest `count` snapshots in use, or puts a sector of it in the place of
    /// another. Returns in how many.
    pub fn rot_snapshots(&mut self, count: usize, random: &mut Xoshiro256PlusPlus) -> usize {
        // Not those that were set aside: nobody looks at them any more.
        let is_snapshot = |path: &Path| {
            let is_whole = path.extension().is_some_and(|suffix| suffix == "snap");
            is_whole && path.parent() == Some(Path::new(SNAP))
        };
        let names = self.stable_names.iter().rev().filter(|(path, _)| is_snapshot(path));
        let newest: Vec<usize> = names.map(|(_, inode)| *inode).take(count).collect();
        for inode in &newest {
            let length = self.inodes[*inode].stable.len();
            let (at, bit) = (random.random_range(0..length), random.random_range(0..8));
            let misplaced = self.misplaced_in(*inode, at, length);
            let (at, bytes) = misplaced.filter(|_| bit == 7).unwrap_or_else(|| {
                let byte = self.inodes[*inode].stable.copy(at, 1)[0];
                (at, vec![byte ^ (1 << bit)])
            });
            let before = self.inodes[*inode].stable.copy(at, bytes.len());
            self.overwrite(*inode, at, &bytes);
            self.rotten.push((*inode, at, before));
        }
        newest.len()
    }

    /// The sector of a file that `at` is in, as it is if the next one was written there, or the one
    /// before; nothing where that is the same.
    fn misplaced_in(&self, inode: usize, at: usize, length: usize) -> Option<(usize, Vec<u8>)> {
        let to = at / SECTOR * SECTOR;
        let from = if to + 2 * SECTOR <= length { to + SECTOR } else { to.checked_sub(SECTOR)? };
        let size = SECTOR.min(length - to);
        let copy = |at: usize| self.inodes[inode].stable.copy(at, size);
        (copy(from) != copy(to)).then(|| (to, copy(from)))
    }

    fn overwrite(&mut self, inode: usize, at: usize, bytes: &[u8]) {
        let file = &mut self.inodes[inode];
        file.stable.put(at, bytes);
        file.cache.put(at, bytes);
    }

    /// What has rotted in snapshots is as it was.
    pub fn mend_snapshots(&mut self) {
        for (inode, at, before) in std::mem::take(&mut self.rotten).into_iter().rev() {
            if at + before.len() <= self.inodes[inode].stable.len() {
                self.overwrite(inode, at, &before);
            }
        }
    }

    /// Whether the file has rotted.
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

    /// A sector of any of the segments `from` is found in this one.
    fn misdirect(
        &self,
        (inode, end): (usize, usize),
        from: &[(usize, usize)],
        random: &mut Xoshiro256PlusPlus,
    ) -> Option<(usize, Vec<u8>)> {
        let (other, its_end) = from[random.random_range(0..from.len())];
        let (from, to) = (self.written(other, its_end, random)?, self.written(inode, end, random)?);
        let bytes = self.sector(other, from);
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
