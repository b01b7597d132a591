//! What a data directory must hold after a crash, for tests: a log, snapshots and what of both was
//! acknowledged.
//!
//! Called by the storage's tests and the simulator's, which choose what happens when. An entry is
//! its term here; its index and term make its bytes. Never looks at files.

use bytes::Bytes;

use super::{SnapshotEvent, Storage, StorageError};
use crate::proto::entry::{Entry, EntryKind, HardState, LogWrite, Recovered};
use crate::proto::snapshot::{SnapshotHeader, SnapshotRecord};
use crate::proto::snapshot_encoder::SnapshotEncoder;
use crate::types::{ClusterId, ClusterTime, LogIndex, Revision, SnapshotId, SnapshotKind};
use crate::types::{CommandSet, Term, WalSeq};

/// A server's log and what the cluster has committed.
#[derive(Default)]
pub struct Model {
    /// The terms of the committed entries, from index 1.
    pub committed: Vec<u64>,
    /// The terms of the log's entries after each log write of this life, from index 1.
    states: Vec<Vec<u64>>,
    /// How many of these writes were acknowledged.
    acknowledged: usize,
    /// The newest snapshot that was reported durable.
    pub durable: SnapshotId,
    /// Snapshots that became durable.
    pub durables: u32,
    /// Of those, how many replaced the log.
    pub resets: u32,
    /// Snapshots that found the disk full.
    pub fulls: u32,
    term: u64,
}

/// A snapshot's name.
pub fn id(index: u64, term: u64) -> SnapshotId {
    SnapshotId { index: LogIndex(index), term: Term(term) }
}

/// The entry of that index and term.
pub fn entry(index: u64, term: u64) -> Entry {
    // Some are long, so that segments end now and then.
    let length = (index * 7919 + term * 104_729) % 4001;
    Entry {
        index: LogIndex(index),
        term: Term(term),
        time: ClusterTime(index),
        kind: EntryKind::Batch,
        payload: Bytes::from(vec![index as u8; length as usize]),
    }
}

/// A snapshot's header, and its whole file.
pub fn snapshot(id: SnapshotId) -> (SnapshotHeader, Bytes) {
    let header = SnapshotHeader {
        cluster: ClusterId::from_name("test"),
        id,
        membership_index: LogIndex(1),
        membership: Bytes::from_static(b"members"),
        clock: ClusterTime(id.index.0),
        revision: Revision(id.index.0),
        digest: id.term.0,
        used_bytes: 0,
        command_set: CommandSet::FIRST,
        gateways: Vec::new(),
    };
    let mut bytes = Vec::new();
    let mut encoder = SnapshotEncoder::new(&header, &mut bytes);
    let value = &vec![id.index.0 as u8; 300][..];
    for key in [b"a", b"b"] {
        let (revision, deadline, is_early) = (Revision(1), None, false);
        let record = SnapshotRecord { key, value, revision, deadline, is_early };
        encoder.record(record, &mut bytes);
    }
    encoder.finish(&mut bytes);
    (header, Bytes::from(bytes))
}

impl Model {
    /// The log as it was last written.
    pub fn log(&self) -> &[u64] {
        self.states.last().expect("it has started")
    }

    /// How many committed entries the log has from its beginning on.
    pub fn applied(&self) -> usize {
        self.committed
            .iter()
            .zip(self.log())
            .take_while(|(committed, own)| committed == own)
            .count()
    }

    /// A snapshot of the committed entries up to an index.
    pub fn id_at(&self, index: usize) -> SnapshotId {
        id(index as u64, self.committed[index - 1])
    }

    /// The directory was opened: what is in it is what was acknowledged, or what was written since.
    pub fn started(&mut self, recovered: &Recovered) {
        let found = self.read(recovered);
        let snapshot = recovered.snapshot.as_ref().map(|(header, _)| header.id);
        let snapshot = snapshot.unwrap_or_default();
        assert!(snapshot >= self.durable, "{snapshot:?} is older than {:?}", self.durable);
        if self.states.is_empty() {
            self.states.push(Vec::new());
        }
        let possible: Vec<Vec<u64>> =
            self.states[self.acknowledged..].iter().map(|log| self.behind(snapshot, log)).collect();
        assert!(possible.contains(&found), "{found:?} of {possible:?} behind {snapshot:?}");
        let term = recovered.hard_state.current_term;
        assert!(term.0 >= found.last().copied().unwrap_or(0), "the term of {term}");
        self.durable = snapshot;
        self.states = vec![found];
        self.acknowledged = 0;
    }

    /// The terms of all entries that a directory stands for.
    pub fn read(&self, recovered: &Recovered) -> Vec<u64> {
        let snapshot = recovered.snapshot.as_ref().map(|(header, _)| header.id);
        let SnapshotId { index, term } = snapshot.unwrap_or_default();
        let mut found = self.committed[..index.0 as usize].to_vec();
        assert_eq!(found.last().copied().unwrap_or(0), term.0);
        for own in &recovered.entries {
            assert_eq!(*own, entry(found.len() as u64 + 1, own.term.0));
            found.push(own.term.0);
        }
        found
    }

    /// What a log is behind a snapshot (§7 of the paper).
    fn behind(&self, snapshot: SnapshotId, log: &[u64]) -> Vec<u64> {
        let end = snapshot.index.0 as usize;
        if end == 0 || log.get(end - 1) == Some(&snapshot.term.0) {
            return log.to_vec();
        }
        self.committed[..end].to_vec()
    }

    fn write(
        &mut self,
        storage: &mut Storage,
        write: LogWrite,
        log: Vec<u64>,
    ) -> Result<(), StorageError> {
        self.states.push(log);
        storage.append(WalSeq(self.states.len() as u64 - 1), &write);
        storage.submit()
    }

    /// Appends `count` entries behind the first `kept`; a new term where that truncates.
    pub fn append(
        &mut self,
        storage: &mut Storage,
        kept: usize,
        count: usize,
    ) -> Result<(), StorageError> {
        let mut log = self.log().to_vec();
        let mut write = LogWrite::default();
        if kept < log.len() || self.term == 0 {
            self.term += 1;
        }
        if kept < log.len() {
            write.truncate_from = Some(LogIndex(kept as u64 + 1));
            log.truncate(kept);
        }
        for _ in 0..count {
            log.push(self.term);
            write.entries.push(entry(log.len() as u64, self.term));
        }
        write.hard_state = Some(HardState { current_term: Term(self.term), voted_for: None });
        self.write(storage, write, log)
    }

    /// All of the log is committed.
    pub fn commit_log(&mut self) {
        if self.applied() == self.committed.len() {
            self.committed = self.log().to_vec();
        }
    }

    /// Others have committed `count` entries that this log has not.
    pub fn commit_elsewhere(&mut self, count: usize) {
        self.term += 1;
        let end = self.committed.len() + count;
        self.committed.resize(end, self.term);
        // What this server goes on to append is of another leader's term.
        self.term += 1;
    }

    /// Hands over a whole snapshot, in two slices.
    pub fn make(
        &mut self,
        storage: &mut Storage,
        kind: SnapshotKind,
        index: usize,
    ) -> Result<SnapshotId, StorageError> {
        let id = self.id_at(index);
        let (_, bytes) = snapshot(id);
        storage.write_snapshot(kind, id, 0, bytes.slice(..100))?;
        storage.write_snapshot(kind, id, 100, bytes.slice(100..))?;
        storage.finish_snapshot(kind, id, bytes.len() as u64)?;
        Ok(id)
    }

    /// Takes what has ended. An installed snapshot replaces a log that doesn't have its last entry.
    pub fn complete(&mut self, storage: &mut Storage) -> Result<(), StorageError> {
        if let Some(through) = storage.complete()? {
            assert!(through.0 as usize > self.acknowledged);
            self.acknowledged = through.0 as usize;
        }
        while let Some(event) = storage.next_snapshot_event() {
            match event {
                SnapshotEvent::Durable { kind, id } => {
                    self.durable = self.durable.max(id);
                    self.durables += 1;
                    let end = id.index.0 as usize;
                    let has = self.log().get(end - 1) == Some(&id.term.0);
                    if kind == SnapshotKind::Received && !has {
                        self.resets += 1;
                        let log = self.committed[..end].to_vec();
                        let reset = LogWrite { reset: Some(id), ..LogWrite::default() };
                        self.write(storage, reset, log)?;
                    }
                }
                SnapshotEvent::Full { .. } => self.fulls += 1,
                SnapshotEvent::Written { .. } | SnapshotEvent::Read { .. } => {}
            }
        }
        Ok(())
    }

    /// Whether every log write was acknowledged.
    pub fn is_settled(&self) -> bool {
        self.acknowledged + 1 == self.states.len()
    }
}
