//! A server's disk as the core knows it: writes become durable in order, late, or never.
//!
//! Called by `server`. Has no faults of its own: `sim/` has those, under the real log.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raftkv::proto::entry::{Entry, HardState, LogWrite};
use raftkv::proto::snapshot::SnapshotHeader;
use raftkv::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};
use raftkv::types::{Boot, Identity, LogIndex, ServerId, SnapshotId, SnapshotKind, Term, WalSeq};

#[derive(Default)]
pub struct Disk {
    pub boot: Boot,
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
    pub known_peers: BTreeMap<ServerId, Identity>,
    under_way: VecDeque<(WalSeq, LogWrite)>,
    /// What the log begins behind.
    base: SnapshotId,
    /// Unfinished snapshots: of the server's own, and received.
    unfinished: [Option<(SnapshotId, Vec<u8>)>; 2],
    /// The newest two that are durable, oldest first.
    snapshots: Vec<(SnapshotId, Bytes)>,
}

impl Disk {
    /// Takes a write, which is not durable yet.
    pub fn take(&mut self, seq: WalSeq, write: LogWrite) {
        self.under_way.push_back((seq, write));
    }

    pub fn writes_under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Finishes the oldest writes; the number of the last of them, if there is one.
    pub fn finish(&mut self, count: usize) -> Option<WalSeq> {
        let count = count.min(self.under_way.len());
        let mut through = None;
        for (seq, write) in self.under_way.drain(..count) {
            if let Some(id) = write.reset {
                let is_durable = self.snapshots.iter().any(|(durable, _)| *durable == id);
                assert!(is_durable, "the log is given up for a durable snapshot only");
                self.base = id;
                self.entries.clear();
            }
            if let Some(from) = write.truncate_from {
                assert!(from > self.base.index, "what a snapshot includes stays");
                let kept = (from.0 - self.base.index.0) as usize - 1;
                assert!(kept <= self.entries.len(), "a truncation removes what was written");
                self.entries.truncate(kept);
            }
            for entry in write.entries {
                let next = self.base.index.0 + self.entries.len() as u64 + 1;
                assert_eq!(entry.index.0, next, "the log has no gaps");
                self.entries.push(entry);
            }
            if let Some(after) = write.hard_state {
                let before = self.hard_state;
                assert!(after.current_term >= before.current_term, "hard-state: a term fell");
                let is_new_term = after.current_term > before.current_term;
                let keeps_vote = before.voted_for.is_none() || after.voted_for == before.voted_for;
                assert!(is_new_term || keeps_vote, "hard-state: two votes in a term");
                self.hard_state = after;
            }
            through = Some(seq);
        }
        through
    }

    /// The process dies: some of the writes under way were finished all the same.
    pub fn crash(&mut self, finished: usize) {
        self.finish(finished);
        self.under_way.clear();
        self.unfinished = [None, None];
    }

    /// What a start finds: the newest snapshot, and the entries behind it. A log that doesn't have
    /// the snapshot's last entry is given up.
    pub fn recover(&mut self) -> Option<(SnapshotHeader, u64)> {
        let (id, file) = self.snapshots.last()?.clone();
        if self.base.index < id.index {
            match self.entry(id.index).map(|entry| entry.term) == Some(id.term) {
                true => self.entries.retain(|entry| entry.index > id.index),
                false => self.entries.clear(),
            }
            self.base = id;
        }
        let terms = self.entries.last().map_or(id.term, |entry| entry.term);
        if self.hard_state.current_term < terms {
            self.hard_state = HardState { current_term: terms, voted_for: None };
        }
        Some((header(&file), file.len() as u64))
    }

    /// Takes bytes of a snapshot, without gaps; how many it has now. `None` where it was given up.
    pub fn write_snapshot(
        &mut self,
        kind: SnapshotKind,
        id: SnapshotId,
        offset: u64,
        bytes: &[u8],
    ) -> Option<u64> {
        let slot = &mut self.unfinished[kind as usize];
        if offset == 0 {
            *slot = Some((id, Vec::new()));
        }
        let (_, file) = slot.as_mut().filter(|(held, _)| *held == id)?;
        assert_eq!(file.len() as u64, offset, "a snapshot is written without gaps");
        file.extend_from_slice(bytes);
        Some(file.len() as u64)
    }

    /// It is durable now, unless it was given up.
    pub fn finish_snapshot(&mut self, kind: SnapshotKind, id: SnapshotId, length: u64) -> bool {
        let slot = &mut self.unfinished[kind as usize];
        let Some((_, file)) = slot.take_if(|(held, _)| *held == id) else {
            return false;
        };
        assert_eq!(file.len() as u64, length, "all of it was handed over");
        assert_eq!(header(&file).id, id, "a snapshot is what its name says");
        if self.snapshots.iter().all(|(held, _)| *held != id) {
            self.snapshots.push((id, Bytes::from(file)));
            self.snapshots.sort_by_key(|(id, _)| *id);
            let surplus = self.snapshots.len().saturating_sub(2);
            self.snapshots.drain(..surplus);
        }
        true
    }

    pub fn abandon_snapshot(&mut self, kind: SnapshotKind) {
        self.unfinished[kind as usize] = None;
    }

    /// The log's beginning may go, as far as the older snapshot covers it.
    pub fn compact(&mut self, through: LogIndex) {
        let oldest = self.snapshots.first().map_or(LogIndex::ZERO, |(id, _)| id.index);
        if let Some(last) = self.entry(through.min(oldest)) {
            self.base = SnapshotId { index: last.index, term: last.term };
            let base = self.base.index;
            self.entries.retain(|entry| entry.index > base);
        }
    }

    /// A piece of a durable snapshot.
    pub fn read_snapshot(&self, id: SnapshotId, offset: u64, length: usize) -> Option<Bytes> {
        let (_, file) = self.snapshots.iter().find(|(held, _)| *held == id)?;
        Some(file.slice(offset as usize..offset as usize + length))
    }

    /// Whether a durable snapshot includes the entry.
    pub fn covers(&self, index: LogIndex) -> bool {
        self.snapshots.iter().any(|(id, _)| index <= id.index)
    }

    fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let position = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index && index > LogIndex::ZERO {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }
}

fn header(file: &[u8]) -> SnapshotHeader {
    match SnapshotDecoder::new().decode(&mut &file[..]) {
        Ok(Some(SnapshotItem::Header(header))) => header,
        other => panic!("a snapshot begins with its header, not with {other:?}"),
    }
}
