//! What a snapshot asks of a store: to be captured, to be made anew from a file, and to give back what
//! has left, a slice at a time.
//!
//! Design 3-storage; `capture.rs` says how a state is captured while it changes, `graveyard.rs` how
//! memory is given back. Called by the state machine and the loader. Decides nothing.

use std::collections::BTreeSet;

use super::super::capture::{Capture, Sections, SnapshotProgress};
use super::super::graveyard::Graveyard;
use super::super::history::History;
use super::super::record::{NEVER, RecordRef};
use super::super::records::Records;
use super::Store;
use crate::proto::snapshot::{SnapshotEnd, SnapshotHeader, SnapshotRecord};
use crate::types::ClusterTime;

impl Store {
    /// Begins a snapshot of the state as it is, under this header; appends the file's first bytes
    /// to `out`. Until the snapshot is finished or abandoned, each change keeps what it needs.
    pub(in crate::kv) fn begin_capture(&mut self, header: &SnapshotHeader, out: &mut Vec<u8>) {
        assert!(self.capture.is_none(), "one snapshot is taken at a time");
        assert_eq!(header.revision, self.revision, "the header is that of this state");
        let sections = Sections::new(self.sessions.captured(), self.leases.captured());
        let capture = Capture::new(header, sections, self.records.len(), out);
        self.capture = Some(Box::new(capture));
    }

    /// Appends the snapshot's next bytes to `out`; its end once these were the last.
    pub(in crate::kv) fn capture_slice(
        &mut self,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Option<SnapshotEnd> {
        let mut capture = self.capture.take().expect("slices are taken of a snapshot that began");
        if capture.slice(&self.records, max_bytes, out) {
            return Some(capture.finish(out));
        }
        self.capture = Some(capture);
        None
    }

    /// Gives up the snapshot that is being taken, if there is one.
    pub(in crate::kv) fn abandon_capture(&mut self) {
        if let Some(capture) = self.capture.take() {
            self.graveyard.take_over(capture.abandon());
        }
    }

    /// What has left and still takes memory.
    pub(in crate::kv) fn graveyard(&self) -> &Graveyard {
        &self.graveyard
    }

    /// Gives back a slice of the memory of what has left.
    pub(in crate::kv) fn free_slice(&mut self) {
        self.graveyard.free_slice();
    }

    /// Takes all that another store holds, to give its memory back.
    pub(in crate::kv) fn bury(&mut self, other: Store) {
        assert!(other.capture.is_none(), "a store in the making is in no snapshot");
        self.graveyard.take_over(other.graveyard);
        self.bury_all(other.records, other.deadlines);
    }

    pub(super) fn bury_all(
        &mut self,
        records: Records,
        deadlines: BTreeSet<(ClusterTime, Box<[u8]>)>,
    ) {
        self.graveyard.bury_records(records);
        self.graveyard.bury(deadlines, |(_, key)| key.len());
    }

    /// How far the snapshot that is being taken has come.
    pub(in crate::kv) fn capture_progress(&self) -> Option<SnapshotProgress> {
        self.capture.as_ref().map(|capture| capture.progress())
    }

    /// An empty store with the clock and revision of a snapshot.
    pub(in crate::kv) fn of_snapshot(header: &SnapshotHeader) -> Store {
        let history = History::behind(header.revision);
        let mut store = Store { revision: header.revision, history, ..Store::default() };
        store.advance_clock(header.clock);
        store
    }

    /// Puts a snapshot's record in. `false`, and nothing done, if its key was there already. Records
    /// that come in the order of their keys are put in fast.
    pub(in crate::kv) fn restore(&mut self, record: SnapshotRecord<'_>) -> bool {
        let SnapshotRecord { key, value, revision, deadline, .. } = record;
        let deadline = deadline.unwrap_or(NEVER);
        if !self.records.restore(RecordRef { key, value, revision, deadline }) {
            return false;
        }
        self.content_bytes += key.len() + value.len();
        self.move_deadline(key, NEVER, deadline);
        true
    }

    /// To be called behind the last record that was restored, before the store is used.
    pub(in crate::kv) fn restored(&mut self) {
        self.records.learn_all();
    }

    /// Drops everything without a revision.
    pub(in crate::kv) fn discard(&mut self) {
        assert!(self.capture.is_none(), "a snapshot of what is dropped was given up");
        let records = std::mem::take(&mut self.records);
        let deadlines = std::mem::take(&mut self.deadlines);
        self.bury_all(records, deadlines);
        self.history.forget(self.revision);
        self.content_bytes = 0;
    }
}
