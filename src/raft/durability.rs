//! What of the log is durable on this server, while writes are still under way.
//!
//! Dissertation §10.2.1 (writing to the leader's disk in parallel). The danger is the ABA problem
//! of asynchronous writes: entry 7 is written, replaced by another entry 7, and then the first
//! write's completion arrives. [`WalSeq`] is never reused and truncation clamps every older record,
//! so a late completion can never vouch for an entry that was replaced meanwhile. Called by
//! `raft/`; does no writing itself.

use std::collections::VecDeque;
use std::time::Duration;

use crate::proto::entry::{Entry, HardState, LogWrite};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Instant, LogIndex, SnapshotId, WalSeq};

/// A write that was handed out and is not reported durable yet.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    seq: WalSeq,
    /// The last index whose entry it makes durable.
    last_index: LogIndex,
    since: Instant,
}

/// The writes that were handed to the driver, and what their completion proves.
#[derive(Debug)]
pub struct Durability {
    /// What will be written next.
    gathering: LogWrite,
    /// The number of the newest write that was handed out.
    last_seq: WalSeq,
    /// The newest number that the driver reported durable.
    persisted: WalSeq,
    /// Writes under way, oldest first.
    under_way: VecDeque<UnderWay>,
    /// The last index that was handed out and not truncated since.
    handed_out_index: LogIndex,
    /// Entries up to here are durable.
    durable_index: LogIndex,
    /// The write that carries the newest hard state.
    hard_state_seq: WalSeq,
}

impl Durability {
    /// A log that was recovered from disk: all of it is durable up to `last_index`.
    pub fn new(last_index: LogIndex) -> Durability {
        Durability {
            gathering: LogWrite::default(),
            last_seq: WalSeq::ZERO,
            persisted: WalSeq::ZERO,
            under_way: VecDeque::new(),
            handed_out_index: last_index,
            durable_index: last_index,
            hard_state_seq: WalSeq::ZERO,
        }
    }

    /// Entries up to here are durable.
    pub fn durable_index(&self) -> LogIndex {
        self.durable_index
    }

    /// The write whose completion makes the current term and vote durable.
    pub fn hard_state_seq(&self) -> WalSeq {
        self.hard_state_seq
    }

    /// Whether everything in the write `seq` is durable.
    pub fn is_persisted(&self, seq: WalSeq) -> bool {
        seq <= self.persisted
    }

    /// Whether the current term and vote are durable.
    pub fn is_hard_state_persisted(&self) -> bool {
        self.is_persisted(self.hard_state_seq)
    }

    /// How long the disk has been at the oldest write that it has not finished.
    pub fn stall(&self, now: Instant) -> Duration {
        self.under_way.front().map_or(Duration::ZERO, |write| now.since(write.since))
    }

    /// An entry was appended to the log.
    pub fn append(&mut self, entry: Entry) {
        self.gathering.entries.push(entry);
    }

    /// Entries at `from` and above were removed from the log.
    pub fn truncate_from(&mut self, from: LogIndex) {
        let last_kept = from.prev();
        self.gathering.entries.retain(|entry| entry.index < from);
        if from <= self.handed_out_index {
            // The disk holds, or is about to hold, entries that are no longer part of the log.
            self.gathering.truncate_from = Some(from);
            self.handed_out_index = last_kept;
        }
        for write in &mut self.under_way {
            if write.last_index >= from {
                reached(Mark::TruncatedWhileWriting);
            }
            if is_on(Mutation::TruncationKeepsPending) {
                break;
            }
            write.last_index = last_kept.min(write.last_index);
        }
        self.durable_index = last_kept.min(self.durable_index);
    }

    /// The log was discarded, and begins behind a snapshot that is durable under its name: what
    /// was under way vouches for nothing any more, and the snapshot for everything up to its end.
    pub fn reset(&mut self, snapshot: SnapshotId) {
        self.gathering.reset = Some(snapshot);
        self.gathering.truncate_from = None;
        self.gathering.entries.clear();
        self.handed_out_index = snapshot.index;
        for write in &mut self.under_way {
            write.last_index = snapshot.index.min(write.last_index);
        }
        self.durable_index = snapshot.index;
    }

    /// Term or vote changed.
    pub fn save_hard_state(&mut self, hard_state: HardState) {
        self.gathering.hard_state = Some(hard_state);
        self.hard_state_seq = self.last_seq.next();
    }

    /// Takes what gathered since the last call, as one write with a number of its own.
    pub fn take_write(&mut self, now: Instant) -> Option<(WalSeq, LogWrite)> {
        if self.gathering.is_empty() {
            return None;
        }
        let write = std::mem::take(&mut self.gathering);
        self.last_seq = self.last_seq.next();
        if let Some(last) = write.entries.last() {
            assert_eq!(
                write.entries[0].index,
                self.handed_out_index.next(),
                "writes follow on each other without gaps"
            );
            self.handed_out_index = last.index;
        }
        let (seq, last_index) = (self.last_seq, self.handed_out_index);
        self.under_way.push_back(UnderWay { seq, last_index, since: now });
        Some((self.last_seq, write))
    }

    /// The driver reports everything up to `through` durable.
    pub fn persisted(&mut self, through: WalSeq) {
        assert!(through <= self.last_seq, "only what was handed out can be durable");
        self.persisted = self.persisted.max(through);
        while let Some(write) = self.under_way.front()
            && write.seq <= through
        {
            self.durable_index = self.durable_index.max(write.last_index);
            self.under_way.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::entry::EntryKind;
    use crate::types::{ClusterTime, Term};
    use bytes::Bytes;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index: LogIndex(index),
            term: Term(term),
            time: ClusterTime(0),
            kind: EntryKind::Empty,
            payload: Bytes::new(),
        }
    }

    #[test]
    fn persisted_late_completion_does_not_vouch_for_replaced_entries() {
        let mut durability = Durability::new(LogIndex(5));
        durability.append(entry(6, 1));
        durability.append(entry(7, 1));
        let (first, _) = durability.take_write(Instant::ZERO).expect("two entries gathered");

        durability.truncate_from(LogIndex(6));
        durability.append(entry(6, 2));
        let (second, write) = durability.take_write(Instant::ZERO).expect("a replacement gathered");
        assert_eq!(write.truncate_from, Some(LogIndex(6)));

        durability.persisted(first);
        assert_eq!(durability.durable_index(), LogIndex(5), "entry 6 of term 2 is not durable");
        durability.persisted(second);
        assert_eq!(durability.durable_index(), LogIndex(6));
    }

    #[test]
    fn truncate_from_of_gathering_entries_writes_no_truncation() {
        let mut durability = Durability::new(LogIndex(2));
        durability.append(entry(3, 1));
        durability.append(entry(4, 1));
        durability.truncate_from(LogIndex(4));
        durability.append(entry(4, 2));
        let (_, write) = durability.take_write(Instant::ZERO).expect("entries gathered");
        assert_eq!(write.truncate_from, None);
        assert_eq!(write.entries.len(), 2);
    }

    #[test]
    fn save_hard_state_waits_for_its_own_write() {
        let mut durability = Durability::new(LogIndex(0));
        durability.append(entry(1, 1));
        let (first, _) = durability.take_write(Instant::ZERO).expect("an entry gathered");
        durability.save_hard_state(HardState { current_term: Term(2), voted_for: None });
        durability.persisted(first);
        assert!(!durability.is_hard_state_persisted());
        let (second, _) = durability.take_write(Instant::ZERO).expect("a hard state gathered");
        durability.persisted(second);
        assert!(durability.is_hard_state_persisted());
    }

    #[test]
    fn reset_leaves_nothing_for_a_late_completion_to_vouch_for() {
        let mut durability = Durability::new(LogIndex(5));
        for index in 6..=12 {
            durability.append(entry(index, 1));
        }
        let (first, _) = durability.take_write(Instant::ZERO).expect("entries gathered");
        durability.append(entry(13, 1));
        durability.reset(SnapshotId { index: LogIndex(10), term: Term(2) });
        assert_eq!(durability.durable_index(), LogIndex(10), "by the snapshot");
        durability.append(entry(11, 2));
        let (second, write) = durability.take_write(Instant::ZERO).expect("a reset gathered");
        assert_eq!(write.reset, Some(SnapshotId { index: LogIndex(10), term: Term(2) }));
        assert_eq!((write.truncate_from, write.entries.len()), (None, 1));
        durability.persisted(first);
        assert_eq!(durability.durable_index(), LogIndex(10), "entry 11 of term 2 is not durable");
        durability.persisted(second);
        assert_eq!(durability.durable_index(), LogIndex(11));
    }
}
