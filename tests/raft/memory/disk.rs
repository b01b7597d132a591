//! A disk in memory: writes become durable in order, some time after they were handed over.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raftkv::proto::entry::{Entry, HardState, LogWrite};
use raftkv::proto::snapshot::SnapshotHeader;
use raftkv::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};
use raftkv::types::{Identity, Instant, ServerId, SnapshotId, SnapshotKind, WalSeq};

/// One server's disk.
#[derive(Default)]
pub struct Disk {
    /// How often it was replaced.
    pub generation: u64,
    pub known_peers: BTreeMap<ServerId, Identity>,
    hard_state: HardState,
    base: SnapshotId,
    entries: Vec<Entry>,
    under_way: VecDeque<(WalSeq, LogWrite)>,
    busy_until: Instant,
    /// Unfinished snapshots: of this server's own, and received.
    unfinished: [Option<(SnapshotId, Vec<u8>)>; 2],
    /// The newest two that are durable, oldest first.
    snapshots: Vec<(SnapshotId, Bytes)>,
    /// How many of either kind became durable.
    pub finished: [u32; 2],
}

impl Disk {
    /// A new, empty disk, the so-manieth in the place of its first one.
    pub fn replacement(generation: u64) -> Disk {
        Disk { generation, ..Disk::default() }
    }

    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// What a start finds: the newest snapshot, and the entries behind it. A log that doesn't reach
    /// the snapshot's end, or holds another entry there, is discarded (§5).
    pub fn recover(&mut self) -> (Option<(SnapshotHeader, u64)>, Vec<Entry>) {
        let Some((id, file)) = self.snapshots.last() else {
            return (None, self.entries.clone());
        };
        if self.base.index < id.index {
            let term = self.entry(id.index.0).map(|entry| entry.term);
            match term == Some(id.term) {
                true => self.entries.retain(|entry| entry.index > id.index),
                false => self.entries.clear(),
            }
            self.base = *id;
        }
        (Some((header(file), file.len() as u64)), self.entries.clone())
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        let first = self.base.index.0 + 1;
        self.entries.get(index.checked_sub(first)? as usize)
    }

    /// Takes a write; returns when it will be durable, not before those handed over earlier.
    pub fn write(&mut self, due: Instant, seq: WalSeq, write: LogWrite) -> Instant {
        self.busy_until = self.busy_until.max(due);
        self.under_way.push_back((seq, write));
        self.busy_until
    }

    /// Everything up to `through` is durable now.
    pub fn sync(&mut self, through: WalSeq) {
        while let Some((seq, _)) = self.under_way.front()
            && *seq <= through
        {
            let (_, write) = self.under_way.pop_front().expect("just seen");
            if let Some(id) = write.reset {
                let is_durable = self.snapshots.iter().any(|(durable, _)| *durable == id);
                assert!(is_durable, "the log is given up for a durable snapshot only");
                self.base = id;
                self.entries.clear();
            }
            if let Some(from) = write.truncate_from {
                let kept = from.0.checked_sub(self.base.index.0 + 1);
                self.entries.truncate(kept.expect("behind the base") as usize);
            }
            if let Some(first) = write.entries.first() {
                let next = self.base.index.0 + self.entries.len() as u64 + 1;
                assert_eq!(first.index.0, next, "the log on disk has no gaps");
            }
            self.entries.extend(write.entries);
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        }
    }

    /// The process died: what was not durable is lost.
    pub fn crash(&mut self) {
        self.under_way.clear();
        self.busy_until = Instant::ZERO;
        self.unfinished = [None, None];
    }

    /// Whether the entry, or a snapshot that includes it, is durable.
    pub fn has_durable(&self, entry: &Entry) -> bool {
        let own = self.entry(entry.index.0);
        entry.index <= self.base.index
            || self.snapshots.iter().any(|(id, _)| entry.index <= id.index)
            || own.is_some_and(|own| own.term == entry.term)
    }

    pub fn write_snapshot(
        &mut self,
        kind: SnapshotKind,
        id: SnapshotId,
        offset: u64,
        bytes: &[u8],
    ) -> u64 {
        let slot = &mut self.unfinished[kind as usize];
        if offset == 0 {
            *slot = Some((id, Vec::new()));
        }
        let Some((unfinished, file)) = slot.as_mut().filter(|(held, _)| *held == id) else {
            panic!("{kind:?} {id:?} was not begun");
        };
        assert_eq!((*unfinished, file.len() as u64), (id, offset), "without gaps");
        file.extend_from_slice(bytes);
        file.len() as u64
    }

    /// It is durable now, unless it was given up.
    pub fn finish_snapshot(&mut self, kind: SnapshotKind, id: SnapshotId, length: u64) -> bool {
        let slot = &mut self.unfinished[kind as usize];
        let Some((_, file)) = slot.take_if(|(held, _)| *held == id) else {
            return false;
        };
        assert_eq!(file.len() as u64, length);
        self.finished[kind as usize] += 1;
        assert_eq!(header(&file).id, id);
        self.snapshots.push((id, Bytes::from(file)));
        self.snapshots.sort_by_key(|(id, _)| *id);
        let surplus = self.snapshots.len().saturating_sub(2);
        self.snapshots.drain(..surplus);
        true
    }

    pub fn abandon_snapshot(&mut self, kind: SnapshotKind) {
        self.unfinished[kind as usize] = None;
    }

    /// The log on disk begins behind this at the latest.
    pub fn compact(&mut self, through: u64) {
        let oldest = self.snapshots.first().map_or(0, |(id, _)| id.index.0);
        let through = through.min(oldest);
        if let Some(last) = self.entry(through) {
            self.base = SnapshotId { index: last.index, term: last.term };
            self.entries.retain(|entry| entry.index.0 > through);
        }
    }

    pub fn read_snapshot(&self, id: SnapshotId, offset: u64, length: usize) -> Option<Bytes> {
        let (_, file) = self.snapshots.iter().find(|(held, _)| *held == id)?;
        Some(file.slice(offset as usize..offset as usize + length))
    }
}

fn header(file: &[u8]) -> SnapshotHeader {
    match SnapshotDecoder::new().decode(&mut &file[..]) {
        Ok(Some(SnapshotItem::Header(header))) => header,
        other => panic!("a snapshot begins with its header, not with {other:?}"),
    }
}
