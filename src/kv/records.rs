//! The records: in order, and found fast by key.
//!
//! Three structures, each with one task: a slab has the bytes, a tree of handles the order, an index
//! of handles the short way to a key that is there. The tree is the truth; what the index doesn't
//! know is looked up in it. Beside them are the pivots, which are a few of the handles. Called by `store.rs` and `capture.rs`; knows no clock.

use super::index::{self, Index};
use super::pivots::{self, Pivots};
use super::record::{Record, RecordRef};
use super::slab::{Handle, Slab};
use super::tree::Tree;
use crate::limits;
use crate::types::{ClusterTime, Revision};

/// See the file's head.
#[derive(Clone, Default, Debug)]
pub(super) struct Records {
    slab: Slab,
    tree: Tree,
    index: Index,
    /// Where a page of SCAN may end.
    pivots: Pivots,
    /// What was restored and is yet to be learned by the index.
    unlearned: Vec<Handle>,
}

impl Records {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.tree.len()
    }

    /// Where the record of `key` is, until that or any other one changes.
    pub(super) fn find(&self, key: &[u8]) -> Option<Handle> {
        self.known(key).or_else(|| self.tree.get(key, &self.slab))
    }

    /// The same, where the record is about to change: the index learns what it didn't know.
    pub(super) fn seek(&mut self, key: &[u8]) -> Option<Handle> {
        self.known(key).or_else(|| {
            let handle = self.tree.get(key, &self.slab)?;
            self.learn(handle);
            Some(handle)
        })
    }

    /// Brings near what a look-up of these keys will need: at most [`limits::WARMED_KEYS`] of them.
    /// One look-up after the other would wait for memory each time; here none depends on another
    /// one, so that the processor waits for many at once.
    pub(super) fn warm(&self, keys: &[&[u8]]) {
        let mut hashes = [0; limits::WARMED_KEYS];
        let mut seen = 0;
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = index::hash(key);
            seen ^= self.index.touch(*hash);
        }
        for hash in hashes.iter().take(keys.len()) {
            seen ^= self.index.guess(*hash).map_or(0, |handle| self.slab.touch(handle));
        }
        std::hint::black_box(seen);
    }

    /// The record of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<RecordRef<'_>> {
        self.find(key).map(|handle| self.slab.record(handle))
    }

    /// The record at a place that `find` has told.
    pub(super) fn at(&self, handle: Handle) -> RecordRef<'_> {
        self.slab.record(handle)
    }

    /// Where the record of `key` is, as far as the index knows. What it doesn't know may be there.
    pub(super) fn known(&self, key: &[u8]) -> Option<Handle> {
        self.index.find(index::hash(key), |handle| self.slab.key(handle) == key)
    }

    /// Puts a record in.
    ///
    /// # Errors
    /// Its key is there: where, which the index has learned. Nothing else was done.
    pub(super) fn insert(&mut self, record: RecordRef<'_>) -> Result<(), Handle> {
        let handle = self.slab.put(record);
        let inserted = self.tree.insert(handle, &self.slab);
        match inserted {
            Ok(()) => {
                self.pivots.insert(record.key, handle);
                self.learn(handle);
            }
            Err(there) => {
                self.slab.free(handle);
                if self.known(record.key).is_none() {
                    self.learn(there);
                }
            }
        }
        inserted
    }

    /// Puts one of many records in that come one after the other, and that nobody looks for before
    /// the last one was followed by [`learn_all`](Records::learn_all): the index learns many at once,
    /// so that the processor waits for many of its lines at once. `false`, and nothing done, if its
    /// key is there.
    pub(super) fn restore(&mut self, record: RecordRef<'_>) -> bool {
        let handle = self.slab.put(record);
        let is_new = self.tree.insert(handle, &self.slab).is_ok();
        if is_new {
            self.pivots.insert(record.key, handle);
            self.unlearned.push(handle);
            if self.unlearned.len() == limits::WARMED_KEYS {
                self.learn_all();
            }
        } else {
            self.slab.free(handle);
        }
        is_new
    }

    /// The index learns what was restored.
    pub(super) fn learn_all(&mut self) {
        let mut seen = 0;
        for handle in &self.unlearned {
            seen ^= self.index.touch(index::hash(self.slab.key(*handle)));
        }
        std::hint::black_box(seen);
        let mut unlearned = std::mem::take(&mut self.unlearned);
        for handle in unlearned.drain(..) {
            self.learn(handle);
        }
        // The emptied list keeps its memory for the next ones.
        self.unlearned = unlearned;
    }

    /// Makes the record at this place, which has the same key, what is given.
    pub(super) fn overwrite(&mut self, handle: Handle, record: RecordRef<'_>) {
        let moved = self.slab.overwrite(handle, record);
        self.move_from(handle, moved);
    }

    /// Appends to a record's value.
    pub(super) fn append(&mut self, handle: Handle, tail: &[u8], revision: Revision) {
        let moved = self.slab.append(handle, tail, revision);
        self.move_from(handle, moved);
    }

    /// Gives a record another revision and deadline.
    pub(super) fn set_deadline(
        &mut self,
        handle: Handle,
        revision: Revision,
        deadline: ClusterTime,
    ) {
        let moved = self.slab.set_deadline(handle, revision, deadline);
        self.move_from(handle, moved);
    }

    /// What a record is that is about to be overwritten, for someone who keeps it.
    pub(super) fn take_value(&mut self, handle: Handle) -> Record {
        self.slab.take_value(handle)
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Record> {
        let handle = self.tree.remove(key, &self.slab)?;
        self.index.remove(index::hash(key), handle, self.tree.len());
        self.pivots.remove(key, handle);
        Some(self.slab.take(handle))
    }

    /// Takes the first record out, with its key.
    pub(super) fn pop_first(&mut self) -> Option<(Box<[u8]>, Record)> {
        let first = self.tree.iter().next()?;
        let key: Box<[u8]> = self.slab.key(first).into();
        let record = self.remove(&key)?;
        Some((key, record))
    }

    /// The cursor that stands for this key, never 0, if it is a pivot.
    pub(super) fn cursor_of(&self, key: &[u8]) -> Option<u64> {
        let cursor = pivots::sampled(key)?;
        (self.key_at(cursor)? == key).then_some(cursor)
    }

    /// The key that a cursor stands for.
    pub(super) fn key_at(&self, cursor: u64) -> Option<&[u8]> {
        self.pivots.place_of(cursor).map(|handle| self.slab.key(handle))
    }

    /// The records from `start` on, in order.
    pub(super) fn iter_from<'a>(
        &'a self,
        start: &[u8],
    ) -> impl Iterator<Item = RecordRef<'a>> + use<'a> {
        self.tree.iter_from(start, &self.slab).map(|handle| self.slab.record(handle))
    }

    /// The records behind `start`, or all where there is none, in order.
    pub(super) fn iter_behind<'a>(
        &'a self,
        start: Option<&[u8]>,
    ) -> impl Iterator<Item = RecordRef<'a>> + use<'a> {
        let handles = match start {
            Some(start) => self.tree.iter_behind(start, &self.slab),
            None => self.tree.iter(),
        };
        handles.map(|handle| self.slab.record(handle))
    }

    /// The records below `end`, or all where there is none, from the last one down.
    pub(super) fn iter_down_from<'a>(
        &'a self,
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = RecordRef<'a>> + use<'a> {
        self.tree.iter_down_from(end, &self.slab).map(|handle| self.slab.record(handle))
    }

    /// Takes everything apart, in pieces of bounded size; each says how many bytes it was.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = usize> + Send + 'static {
        let Records { slab, tree, index, .. } = self;
        slab.into_pieces().chain(tree.into_pieces()).chain(index.into_pieces())
    }

    /// A change has perhaps given a record another place.
    fn move_from(&mut self, before: Handle, moved: Option<Handle>) {
        let Some(after) = moved else {
            return;
        };
        let key: &[u8] = self.slab.key(after);
        self.index.remove(index::hash(key), before, self.tree.len());
        // Both are still there: the tree looks at the one that it has.
        self.tree.replace(key, after, &self.slab);
        self.pivots.replace(key, before, after);
        self.learn(after);
        self.slab.free(before);
    }

    fn learn(&mut self, handle: Handle) {
        let hash_of = |handle| index::hash(self.slab.key(handle));
        self.index.insert(hash_of(handle), handle, self.tree.len(), hash_of);
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
