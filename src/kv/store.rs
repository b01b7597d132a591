//! The store: keys in order, each with its value, its revision and perhaps a deadline.
//!
//! Follows design 2-client-path §4 (the cluster clock) and §5 (revisions). Called by the commands
//! beside it and by the state machine, with nothing but what the log says; it reads no clock. A
//! key is dead, and invisible to every method, once the store's clock has reached its deadline.
//! How records are kept and found is `records.rs`'s business; `store/snapshots.rs` is what a snapshot
//! asks of a store.

mod snapshots;

use std::collections::BTreeSet;

use super::capture::Capture;
use super::graveyard::Graveyard;
use super::history::{ChangeKind, History};
use super::leases::Leases;
use super::record::{NEVER, RecordRef, known_deadline};
use super::records::Records;
use super::sessions::Sessions;
use super::slab::Handle;
use crate::limits;
use crate::types::{ClusterTime, Revision};

/// What one record costs beside the bytes of its key and value: a header, its length rounded up,
/// its places in the tree and the index, and a share of the pivots. An estimate that is the same on
/// every node.
const RECORD_BYTES: usize = 42;

/// What one deadline costs beside the bytes of its copy of the key.
const DEADLINE_BYTES: usize = 48;

/// What the digest counts instead of these two; nodes of different versions compare it, so that it
/// stays as it was when records cost more.
const DIGEST_RECORD_BYTES: usize = 104;
const DIGEST_DEADLINE_BYTES: usize = 48;

/// Bytes at which [`Store::random_key`] goes one way or another: behind so many that differ it
/// takes the first key.
const RANDOM_KEY_STEPS: usize = 64;

/// One living key's value and what the store knows about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<'a> {
    /// The value.
    pub value: &'a [u8],
    /// The number of the last mutation of this key.
    pub revision: Revision,
    /// When the key dies, by the cluster clock.
    pub deadline: Option<ClusterTime>,
}

/// The keys and values of a database. See the file's head.
#[derive(Clone, Default, Debug)]
pub struct Store {
    records: Records,
    /// The records that have a deadline, soonest first; ties by key, so that every node removes
    /// the same keys.
    deadlines: BTreeSet<(ClusterTime, Box<[u8]>)>,
    clock: ClusterTime,
    revision: Revision,
    /// Of all keys and values, and of the copies of keys that have a deadline.
    content_bytes: usize,
    /// The snapshot that is being taken: it is told of every record that changes or leaves.
    capture: Option<Box<Capture>>,
    /// What has left and still takes memory.
    graveyard: Graveyard,
    /// The last changes: it is told of every mutation.
    history: History,
    /// What clients have done that may ask again.
    pub(super) sessions: Sessions,
    /// Which keys die together.
    pub(super) leases: Leases,
}

impl Store {
    /// An empty store at revision 0, its clock at 0.
    pub fn new() -> Store {
        Store::default()
    }

    /// The time of the last entry applied: what decides who is dead.
    pub fn clock(&self) -> ClusterTime {
        self.clock
    }

    /// Moves the clock to `time`. It never goes back: a dead key would come to life again. Nor
    /// does it reach `NEVER`, whatever the log says: keys without a deadline would die.
    pub fn advance_clock(&mut self, time: ClusterTime) {
        self.clock = self.clock.max(time.min(NEVER.prev()));
    }

    /// The number of the last mutation, 0 before the first.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many living keys there are. Walks the dead ones that were not yet removed.
    pub fn len(&self) -> usize {
        let dead = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= self.clock);
        let leased = self.leases.dead_keys(self.clock).filter(|key| {
            // Those that are past their own deadline too are counted already.
            self.records.get(key).is_some_and(|record| record.deadline > self.clock)
        });
        self.records.len() - dead.count() - leased.count()
    }

    /// How many stored keys have a deadline, the dead ones included.
    pub fn expiring(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether no key lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An estimate of the memory that the records take, in bytes; the same on every node.
    pub fn used_bytes(&self) -> usize {
        let beside = self.sessions.bytes() + self.leases.bytes();
        self.estimate(RECORD_BYTES, DEADLINE_BYTES) + beside
    }

    /// What the digest folds in for it, forever.
    pub(super) fn digest_bytes(&self) -> usize {
        self.estimate(DIGEST_RECORD_BYTES, DIGEST_DEADLINE_BYTES)
    }

    fn estimate(&self, record_bytes: usize, deadline_bytes: usize) -> usize {
        let places = self.records.len() * record_bytes + self.deadlines.len() * deadline_bytes;
        self.content_bytes + places
    }

    /// The soonest deadline of a record that is still stored, the dead ones included: the time at
    /// which [`expire_due`](Store::expire_due) next has something to do.
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        let of_key = self.deadlines.first().map(|(deadline, _)| *deadline);
        [of_key, self.leases.next_deadline()].into_iter().flatten().min()
    }

    /// The last changes, in the order of their revisions.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Whether somebody is told of changes: if not, fewer are kept.
    pub(super) fn bound_history(&mut self, is_heard: bool) {
        let share = self.used_bytes() / limits::HISTORY_UNHEARD_SHARE;
        let unheard = share.clamp(limits::HISTORY_UNHEARD_BYTES, limits::HISTORY_BYTES);
        self.history.bound(if is_heard { limits::HISTORY_BYTES } else { unheard });
    }

    /// What changes from here on is done by the command of this code.
    pub(super) fn begin_command(&mut self, code: u16) {
        self.history.begin(code);
    }

    /// Removes dead keys, soonest deadline first, then leases that have ended with their keys, at
    /// most `limit` of them all; returns how many. Each key is a
    /// mutation, so that who watches can tell which ones it has seen.
    pub fn expire_due(&mut self, limit: usize) -> usize {
        let mut removed = 0;
        while removed < limit {
            let Some((deadline, _)) = self.deadlines.first() else {
                break;
            };
            if *deadline > self.clock {
                break;
            }
            let (_, key) = self.deadlines.pop_first().expect("first() saw it just now");
            self.content_bytes -= key.len();
            self.remove_expired(&key);
            removed += 1;
        }
        while removed < limit
            && let Some(key) = self.next_leased_dead()
        {
            removed += 1;
            if let Some(key) = key {
                self.expire_leased(&key);
            }
        }
        removed
    }

    /// Removes a key whose lease has ended.
    pub(super) fn expire_leased(&mut self, key: &[u8]) {
        match self.records.get(key).map(|record| record.deadline) {
            Some(deadline) => {
                self.move_deadline(key, deadline, NEVER);
                self.remove_expired(key);
            }
            // Nothing but a snapshot from elsewhere attaches a key that isn't there.
            None => self.leases.detach(key),
        }
    }

    /// Takes the record of a dead key out, which is in no list of deadlines any more. One mutation.
    fn remove_expired(&mut self, key: &[u8]) {
        let record = self.records.remove(key).expect("each deadline has its record");
        self.content_bytes -= key.len() + record.value.len();
        self.leases.detach(key);
        self.revision = self.revision.next();
        self.history.push(ChangeKind::Expired, self.revision, key, b"", None);
        if let Some(capture) = &mut self.capture {
            capture.record_left(key, record);
        }
    }

    /// Brings near what commands on these keys will need; see [`limits::WARMED_KEYS`].
    pub(super) fn warm(&self, keys: &[&[u8]]) {
        self.records.warm(keys);
    }

    /// The living key's item.
    pub fn get(&self, key: &[u8]) -> Option<Item<'_>> {
        let record = self.records.get(key)?;
        self.is_alive(record).then(|| item(record))
    }

    /// The number of the last mutation of a living key, 0 for one that does not exist.
    pub fn revision_of(&self, key: &[u8]) -> Revision {
        self.get(key).map_or(Revision::ZERO, |item| item.revision)
    }

    /// Whether the key lives.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// The living keys from `start` on, in order.
    pub fn iter_from<'a>(
        &'a self,
        start: &[u8],
    ) -> impl Iterator<Item = (&'a [u8], Item<'a>)> + use<'a> {
        self.records
            .iter_from(start)
            .filter(|record| self.is_alive(*record))
            .map(|record| (record.key, item(record)))
    }

    /// The living keys below `end` (all, where it is empty), from the last one down.
    pub fn iter_down_from<'a>(
        &'a self,
        end: &[u8],
    ) -> impl Iterator<Item = (&'a [u8], Item<'a>)> + use<'a> {
        self.records
            .iter_down_from((!end.is_empty()).then_some(end))
            .filter(|record| self.is_alive(*record))
            .map(|record| (record.key, item(record)))
    }

    /// The first key of the page that a cursor of SCAN stands for: that of the first page for 0,
    /// and for one whose key is gone.
    pub fn scan_start(&self, cursor: u64) -> &[u8] {
        self.records.key_at(cursor).unwrap_or_default()
    }

    /// The cursor of a page that begins with this key, if a page may.
    pub fn scan_cursor(&self, key: &[u8]) -> Option<u64> {
        self.records.cursor_of(key)
    }

    /// Some living key. Any can come, but not all as often: at each byte in which keys that begin
    /// alike differ, each way is as likely, however many keys lie that way.
    pub fn random_key(&self, draw: impl Fn() -> u64) -> Option<&[u8]> {
        let mut prefix = Vec::new();
        let mut key = self.first_from(b"")?;
        for _ in 0..RANDOM_KEY_STEPS {
            let last = self.last_with(&prefix)?;
            let common = key.iter().zip(last).take_while(|(one, other)| one == other).count();
            if common == last.len() {
                break;
            }
            prefix.clear();
            prefix.extend_from_slice(&last[..common]);
            key = self.random_way(&prefix, key, last, &draw);
            match key.get(common) {
                Some(byte) => prefix.push(*byte),
                None => break,
            }
        }
        // The first key that lives, from there on or else from the beginning.
        let living = self.iter_from(key).next().or_else(|| self.iter_from(b"").next());
        living.map(|(key, _)| key)
    }

    /// The keys from `first` to `last` all begin with `prefix`: for one of the bytes that follow it
    /// in some, or for its end, the first that goes on so.
    fn random_way<'a>(
        &'a self,
        prefix: &[u8],
        first: &'a [u8],
        last: &[u8],
        draw: impl Fn() -> u64,
    ) -> &'a [u8] {
        let (mut chosen, mut way, mut ways) = (first, first, 1);
        let mut start = prefix.to_vec();
        while way.get(prefix.len()) < last.get(prefix.len()) {
            start.truncate(prefix.len());
            start.push(way.get(prefix.len()).map_or(0, |byte| byte + 1));
            way = self.first_from(&start).expect("the last one is not behind it");
            ways += 1;
            if draw().is_multiple_of(ways) {
                chosen = way;
            }
        }
        chosen
    }

    /// The first record's key from `start` on, living or dead.
    fn first_from(&self, start: &[u8]) -> Option<&[u8]> {
        self.records.iter_from(start).next().map(|record| record.key)
    }

    /// The last record's key that begins with `prefix`, living or dead.
    fn last_with(&self, prefix: &[u8]) -> Option<&[u8]> {
        let kept = prefix.iter().rposition(|byte| *byte != u8::MAX).map_or(0, |last| last + 1);
        let mut end = prefix[..kept].to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let end = (!end.is_empty()).then_some(&end[..]);
        self.records.iter_down_from(end).next().map(|record| record.key)
    }

    /// What a living key takes of [`used_bytes`](Store::used_bytes).
    pub fn bytes_of(&self, key: &[u8]) -> Option<usize> {
        let item = self.get(key)?;
        let deadline = item.deadline.map_or(0, |_| DEADLINE_BYTES + key.len());
        Some(RECORD_BYTES + key.len() + item.value.len() + deadline)
    }

    /// Gives the key a value and a deadline (or none), whatever it had before. One mutation, also
    /// if the deadline is already past and the key is gone at once; and one before it if the key
    /// was dead and not yet removed.
    pub fn set(&mut self, key: &[u8], value: &[u8], deadline: Option<ClusterTime>) -> Revision {
        let given = deadline;
        let deadline = deadline.unwrap_or(NEVER);
        if deadline <= self.clock {
            if !self.delete(key) {
                self.revision = self.revision.next();
            }
            return self.revision;
        }
        let next = self.revision.next();
        // What the index doesn't know is new as a rule: then one way down the tree is enough.
        let found = self.records.known(key).map_or_else(
            || self.records.insert(RecordRef { key, value, revision: next, deadline }),
            Err,
        );
        match found {
            Ok(()) => {
                self.revision = next;
                self.content_bytes += key.len() + value.len();
                self.move_deadline(key, NEVER, deadline);
            }
            Err(place) => self.replace(place, RecordRef { key, value, revision: next, deadline }),
        }
        self.history.push(ChangeKind::Set, self.revision, key, value, given);
        self.revision
    }

    /// Gives the record at this place another value and deadline; its revision is the next one, or
    /// that behind it where the record was dead.
    #[inline]
    fn replace(&mut self, place: Handle, record: RecordRef<'_>) {
        let RecordRef { key, value, deadline, .. } = record;
        let before = self.records.at(place);
        let (value_before, deadline_before) = (before.value.len(), before.deadline);
        if !self.is_alive(before) {
            self.revision = self.revision.next();
            self.history.push(ChangeKind::Expired, self.revision, key, b"", None);
        }
        self.revision = self.revision.next();
        if let Some(capture) = &mut self.capture {
            capture.record_left(key, self.records.take_value(place));
        }
        self.records.overwrite(place, RecordRef { revision: self.revision, ..record });
        self.content_bytes -= value_before;
        self.content_bytes += value.len();
        self.leases.detach(key);
        self.move_deadline(key, deadline_before, deadline);
    }

    /// Appends to the living key's value and keeps its deadline, or makes the key. Returns the
    /// value's new length. One mutation.
    pub fn append(&mut self, key: &[u8], tail: &[u8]) -> usize {
        let Some(place) = self.living(key) else {
            self.set(key, tail, None);
            return tail.len();
        };
        let record = self.records.at(place);
        let length = record.value.len() + tail.len();
        if let Some(capture) = &mut self.capture {
            capture.record_changes(record);
        }
        self.revision = self.revision.next();
        self.records.append(place, tail, self.revision);
        self.leases.detach(key);
        self.content_bytes += tail.len();
        self.history.push(ChangeKind::Appended, self.revision, key, tail, None);
        length
    }

    /// Gives a living key another deadline, or none. One mutation; a deadline that is already past
    /// deletes the key. `false`, and nothing done, if there is no such key.
    pub fn set_deadline(&mut self, key: &[u8], deadline: Option<ClusterTime>) -> bool {
        let Some(place) = self.living(key) else {
            return false;
        };
        let given = deadline;
        let deadline = deadline.unwrap_or(NEVER);
        if deadline <= self.clock {
            return self.delete(key);
        }
        self.revision = self.revision.next();
        let record = self.records.at(place);
        if let Some(capture) = &mut self.capture {
            capture.record_changes(record);
        }
        let before = record.deadline;
        self.records.set_deadline(place, self.revision, deadline);
        self.move_deadline(key, before, deadline);
        self.history.push(ChangeKind::Deadline, self.revision, key, b"", given);
        true
    }

    /// Deletes a living key: one mutation. `false`, and nothing done, if there is none.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        if !self.contains(key) {
            return false;
        }
        self.revision = self.revision.next();
        self.remove(key);
        self.history.push(ChangeKind::Deleted, self.revision, key, b"", None);
        true
    }

    /// A mutation that changes no key; its number names what is no key.
    pub(super) fn take_revision(&mut self) -> Revision {
        self.revision = self.revision.next();
        self.revision
    }

    /// The client sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Lets a message take its place among the changes. No mutation.
    pub(super) fn publish(&mut self, channel: &[u8], message: &[u8]) {
        self.history.push(ChangeKind::Message, self.revision, channel, message, None);
    }

    /// Deletes every key: one mutation, or none where nothing was stored.
    pub fn clear(&mut self) {
        if self.stored() > 0 {
            self.revision = self.revision.next();
            self.history.push(ChangeKind::Cleared, self.revision, b"", b"", None);
        }
        let mut records = std::mem::take(&mut self.records);
        if let Some(capture) = &mut self.capture {
            records = capture.all_left(records);
        }
        let deadlines = std::mem::take(&mut self.deadlines);
        self.bury_all(records, deadlines);
        self.leases.detach_all();
        self.content_bytes = 0;
    }

    /// How many records are stored, those of dead keys included: the same on every node.
    pub fn stored(&self) -> usize {
        self.records.len()
    }

    fn is_alive(&self, record: RecordRef<'_>) -> bool {
        record.deadline > self.clock && !self.leases.is_dead(record.key, self.clock)
    }

    /// Where the record of a living key is, which is about to change.
    fn living(&mut self, key: &[u8]) -> Option<Handle> {
        self.records.seek(key).filter(|place| self.is_alive(self.records.at(*place)))
    }

    /// Takes a record out, living or dead, without a revision.
    fn remove(&mut self, key: &[u8]) {
        let Some(record) = self.records.remove(key) else {
            return;
        };
        self.content_bytes -= key.len() + record.value.len();
        self.leases.detach(key);
        self.move_deadline(key, record.deadline, NEVER);
        if let Some(capture) = &mut self.capture {
            capture.record_left(key, record);
        }
    }

    /// Keeps `deadlines` in step with a record whose deadline changed.
    fn move_deadline(&mut self, key: &[u8], before: ClusterTime, after: ClusterTime) {
        if before == after {
            return;
        }
        if before != NEVER {
            let was_there = self.deadlines.remove(&(before, Box::from(key)));
            assert!(was_there, "each record with a deadline is in the set");
            self.content_bytes -= key.len();
        }
        if after != NEVER {
            self.deadlines.insert((after, Box::from(key)));
            self.content_bytes += key.len();
        }
    }
}

fn item(record: RecordRef<'_>) -> Item<'_> {
    let RecordRef { value, revision, deadline, .. } = record;
    Item { value, revision, deadline: known_deadline(deadline) }
}
