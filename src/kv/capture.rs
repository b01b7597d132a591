//! A snapshot in the making: the state at one log index, taken in slices while it changes.
//!
//! Design page 3, §3. A cursor walks the records in the order of their keys. A change of a record
//! that the cursor has not reached keeps what it was, in a queue that the next slice writes first:
//! moved there where the change drops it, copied where it is small; of a large value that stays a
//! part of the new one only the length is kept. Which records belong is told by their revisions.
//! Called by `store.rs`, which tells it every change; reads no clock.

use std::collections::{BTreeMap, VecDeque};

use super::graveyard::Graveyard;
use super::leases::CapturedLeases;
use super::record::{Record, RecordRef, known_deadline};
use super::records::Records;
use super::sessions::CapturedSessions;
use crate::limits;
use crate::proto::snapshot::{Section, SnapshotEnd, SnapshotHeader, SnapshotRecord};
use crate::proto::snapshot_encoder::SnapshotEncoder;
use crate::testing::{Mutation, is_on};
use crate::types::{ClusterTime, Revision, SnapshotId};

/// What one record that waits in the queue costs beside its key and value; an estimate of the same
/// kind as the store's.
const EARLY_BYTES: usize = 88;

/// What one old form costs beside its key, and how many times smaller than the value it has to be.
/// Old forms wait for the cursor, so that all of them must be little beside the store; whereas a
/// copy is gone after the next slices, but many copies of large values would not be little.
const OLD_FORM_BYTES: usize = 80;
const OLD_FORM_SHARE: usize = 16;

/// How far a snapshot has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotProgress {
    /// Which one.
    pub id: SnapshotId,
    /// Records that are in the file.
    pub records: u64,
    /// Records that will be there at the end.
    pub total_records: u64,
    /// Bytes of the file so far.
    pub bytes: u64,
    /// Memory that old records take until the next slices write them, which do so first. It grows
    /// by what is overwritten, deleted or expires while no slice is taken, and can't be more than
    /// what the records that are not yet written took. Where it has passed
    /// [`limits::SNAPSHOT_BACKLOG_BYTES`], nothing more is to be applied before the next slice.
    pub backlog_bytes: usize,
}

/// The snapshot of a store that goes on changing.
#[derive(Clone, Debug)]
pub(super) struct Capture {
    id: SnapshotId,
    /// The store's revision when it began. A record with a higher one has changed since.
    revision: Revision,
    total_records: u64,
    encoder: SnapshotEncoder,
    /// What the state had beside records when it began, until all of it is in the file.
    sections: Option<Sections>,
    /// The last key that the cursor has passed.
    cursor: Option<Box<[u8]>>,
    /// The records that a `clear` took from the store. From then on they are what the cursor walks,
    /// and nothing that happens to the store concerns this snapshot.
    orphans: Option<Records>,
    /// Records that left the store before the cursor came.
    early: VecDeque<(Box<[u8]>, Record)>,
    early_bytes: usize,
    /// What records were that changed in their place before the cursor came: it finds these here.
    old_forms: BTreeMap<Box<[u8]>, OldForm>,
}

/// What a record was whose old value is still the beginning of its new one.
#[derive(Clone, Copy, Debug)]
struct OldForm {
    value_bytes: usize,
    revision: Revision,
    deadline: ClusterTime,
}

/// What a state had beside records when a snapshot began: made bytes of when its turn has come.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    sessions: CapturedSessions,
    leases: CapturedLeases,
}

impl Sections {
    pub(super) fn new(sessions: CapturedSessions, leases: CapturedLeases) -> Sections {
        Sections { sessions, leases }
    }

    /// The next one as the file has it.
    fn next(&mut self) -> Option<(Section, Vec<u8>)> {
        let sessions = self.sessions.next().map(|bytes| (Section::Sessions, bytes));
        sessions.or_else(|| self.leases.next().map(|bytes| (Section::Leases, bytes)))
    }
}

/// What is left of a slice.
struct Budget {
    bytes: usize,
    keys: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.bytes == 0 || self.keys == 0
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.keys -= 1;
    }
}

impl Capture {
    /// Begins with the header, whose bytes it appends to `out`. `records` is how many the store
    /// has, `sections` what there is beside them.
    pub(super) fn new(
        header: &SnapshotHeader,
        sections: Sections,
        records: usize,
        out: &mut Vec<u8>,
    ) -> Capture {
        Capture {
            id: header.id,
            revision: header.revision,
            total_records: records as u64,
            encoder: SnapshotEncoder::new(header, out),
            sections: Some(sections),
            cursor: None,
            orphans: None,
            early: VecDeque::new(),
            early_bytes: 0,
            old_forms: BTreeMap::new(),
        }
    }

    pub(super) fn progress(&self) -> SnapshotProgress {
        SnapshotProgress {
            id: self.id,
            records: self.encoder.records(),
            total_records: self.total_records,
            bytes: self.encoder.bytes(),
            backlog_bytes: self.early_bytes,
        }
    }

    /// `old` is no longer the record of `key`.
    pub(super) fn record_left(&mut self, key: &[u8], mut old: Record) {
        if self.orphans.is_some() {
            return;
        }
        if let Some(form) = self.take_old_form(key) {
            old.value.truncate(form.value_bytes);
            old.value.shrink_to_fit();
            (old.revision, old.deadline) = (form.revision, form.deadline);
        } else if !self.is_missing(key, old.revision) {
            return;
        }
        self.push_early(key, old);
    }

    /// `record` is about to get another deadline, or more bytes at its value's end.
    pub(super) fn record_changes(&mut self, record: RecordRef<'_>) {
        let key = record.key;
        // A record that has an old form already has changed before: it is not missing by itself.
        if self.orphans.is_some() || !self.is_missing(key, record.revision) {
            return;
        }
        let value_bytes = record.value.len();
        if value_bytes < OLD_FORM_SHARE * (OLD_FORM_BYTES + key.len()) {
            self.push_early(key, record.to_record());
            return;
        }
        let form = OldForm { value_bytes, revision: record.revision, deadline: record.deadline };
        self.old_forms.insert(key.into(), form);
    }

    /// `records` left the store all at once. If it is not the first time, they came later, and are
    /// given back.
    pub(super) fn all_left(&mut self, records: Records) -> Records {
        if self.orphans.is_some() {
            return records;
        }
        self.orphans = Some(records);
        Records::default()
    }

    /// Gives up: what is left, for its memory to be given back.
    pub(super) fn abandon(self) -> Graveyard {
        let mut graveyard = Graveyard::default();
        graveyard.bury_records(self.orphans.unwrap_or_default());
        graveyard.bury(self.early, |(_, record)| record.value.len());
        graveyard.bury(self.old_forms, |(key, _)| key.len());
        graveyard
    }

    /// Appends the next slice of the file to `out`: whole blocks of it, some `max_bytes` of records
    /// and at most [`limits::SNAPSHOT_SLICE_KEYS`] of them. `true` once nothing is left.
    pub(super) fn slice(&mut self, records: &Records, max_bytes: usize, out: &mut Vec<u8>) -> bool {
        let mut budget = Budget { bytes: max_bytes.max(1), keys: limits::SNAPSHOT_SLICE_KEYS };
        while let Some(sections) = &mut self.sections {
            if budget.is_spent() {
                return false;
            }
            match sections.next() {
                Some((section, bytes)) => {
                    self.encoder.section(section, &bytes, out);
                    budget.spend(bytes.len());
                }
                None => self.sections = None,
            }
        }
        while !budget.is_spent()
            && let Some((key, record)) = self.early.pop_front()
        {
            self.early_bytes -= early_bytes(&key, &record);
            let record = record.with_key(&key).as_snapshot_record();
            budget.spend(self.write(SnapshotRecord { is_early: true, ..record }, out));
        }
        let is_at_end = match self.orphans.take() {
            Some(mut orphans) => {
                let is_at_end = self.walk_orphans(&mut orphans, &mut budget, out);
                self.orphans = Some(orphans);
                is_at_end
            }
            None => self.walk_store(records, &mut budget, out),
        };
        // Where the store is empty, the walk is at its end with the queue still full.
        is_at_end && self.early.is_empty()
    }

    /// Appends what is left of the file.
    pub(super) fn finish(self, out: &mut Vec<u8>) -> SnapshotEnd {
        assert!(self.sections.is_none(), "no record comes before the sections");
        assert!(self.early.is_empty(), "the last slice wrote all of the queue");
        assert!(self.old_forms.is_empty(), "the cursor has met every record that changed");
        let records = self.encoder.records();
        assert_eq!(records, self.total_records, "each record was written once");
        self.encoder.finish(out)
    }

    fn walk_store(&mut self, records: &Records, budget: &mut Budget, out: &mut Vec<u8>) -> bool {
        let cursor = self.cursor.take();
        let mut passed = None;
        let mut is_at_end = true;
        for record in records.iter_behind(cursor.as_deref()) {
            if budget.is_spent() {
                is_at_end = false;
                break;
            }
            budget.spend(self.pass(record, out));
            passed = Some(record.key);
        }
        self.cursor = passed.map(Box::from).or(cursor);
        is_at_end
    }

    /// Takes the records out one by one: so the memory of a cleared store is freed in slices too.
    fn walk_orphans(
        &mut self,
        orphans: &mut Records,
        budget: &mut Budget,
        out: &mut Vec<u8>,
    ) -> bool {
        while !budget.is_spent() {
            let Some((key, record)) = orphans.pop_first() else {
                return true;
            };
            let is_passed = self.is_passed(&key);
            let record = record.with_key(&key);
            budget.spend(if is_passed { 0 } else { self.pass(record, out) });
        }
        false
    }

    /// The cursor comes to a record: writes what it was when the snapshot began, if it was there.
    /// Returns how many bytes that is.
    fn pass(&mut self, record: RecordRef<'_>, out: &mut Vec<u8>) -> usize {
        if record.revision <= self.revision || is_on(Mutation::SnapshotKeepsNewValues) {
            return self.write(record.as_snapshot_record(), out);
        }
        let Some(form) = self.take_old_form(record.key) else {
            return 0;
        };
        let old = SnapshotRecord {
            key: record.key,
            value: &record.value[..form.value_bytes],
            revision: form.revision,
            deadline: known_deadline(form.deadline),
            is_early: false,
        };
        self.write(old, out)
    }

    fn write(&mut self, record: SnapshotRecord<'_>, out: &mut Vec<u8>) -> usize {
        self.encoder.record(record, out);
        record.encoded_len()
    }

    fn push_early(&mut self, key: &[u8], record: Record) {
        self.early_bytes += early_bytes(key, &record);
        self.early.push_back((key.into(), record));
    }

    fn take_old_form(&mut self, key: &[u8]) -> Option<OldForm> {
        // Mostly there is none: then this costs no look-up.
        if self.old_forms.is_empty() {
            return None;
        }
        self.old_forms.remove(key)
    }

    /// Whether the record is part of the snapshot as it is, and not yet written.
    fn is_missing(&self, key: &[u8], revision: Revision) -> bool {
        let is_part = revision <= self.revision && !self.is_passed(key);
        is_part && !is_on(Mutation::SnapshotKeepsNewValues)
    }

    fn is_passed(&self, key: &[u8]) -> bool {
        self.cursor.as_deref().is_some_and(|cursor| key <= cursor)
    }
}

fn early_bytes(key: &[u8], record: &Record) -> usize {
    EARLY_BYTES + key.len() + record.value.len()
}
