//! A disk in memory: writes become durable in order, some time after they were handed over.

use std::collections::{BTreeMap, VecDeque};

use raftkv::proto::entry::{Entry, HardState, LogWrite};
use raftkv::types::{Identity, Instant, ServerId, WalSeq};

/// One server's disk.
#[derive(Default)]
pub struct Disk {
    /// How often it was replaced.
    pub generation: u64,
    pub known_peers: BTreeMap<ServerId, Identity>,
    hard_state: HardState,
    entries: Vec<Entry>,
    under_way: VecDeque<(WalSeq, LogWrite)>,
    busy_until: Instant,
}

impl Disk {
    /// A new, empty disk in the place of this one.
    pub fn replacement(&self) -> Disk {
        Disk { generation: self.generation + 1, ..Disk::default() }
    }

    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.entries.clone()
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
            if let Some(from) = write.truncate_from {
                self.entries.truncate(from.0 as usize - 1);
            }
            self.entries.extend(write.entries);
            self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        }
    }

    /// The process died: what was not durable is lost.
    pub fn crash(&mut self) {
        self.under_way.clear();
        self.busy_until = Instant::ZERO;
    }

    pub fn has_durable(&self, entry: &Entry) -> bool {
        let own = self.entries.get(entry.index.0 as usize - 1);
        own.is_some_and(|own| own.term == entry.term)
    }
}
