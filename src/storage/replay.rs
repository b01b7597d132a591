//! Replay: what the records of a log say, one after the other, from the first segment that is there.
//!
//! Called by recovery, which decides what a stop means. Refuses a record that doesn't follow on what
//! was read before it; a write counts only as a whole. Keeps only the entries behind the snapshot.

use super::compaction::Held;
use super::disk::Disk;
use super::error::StorageError;
use super::scan::{Records, Step};
use super::segment::{FIRST_RECORD, Segment};
use super::terms::Terms;
use crate::proto::entry::{Entry, HardState};
use crate::proto::record::{Body, RecordError};
use crate::types::{Boot, LogIndex, SnapshotId, Term};

/// What has been read so far.
pub struct Replay {
    /// The snapshot's index: entries up to there are not kept.
    covered: LogIndex,
    /// The entries above it.
    pub entries: Vec<Entry>,
    /// Where the log begins and ends.
    pub terms: Terms,
    /// The last reset, if it is still what the log begins behind.
    pub reset: Option<SnapshotId>,
    /// The last term and vote.
    pub hard_state: Option<HardState>,
    /// The number of the last whole write; before the first one, the number before its.
    pub last_write: Option<u64>,
    /// The last whole write: in which segment, from where to where.
    pub last_place: Option<(usize, u64, u64)>,
    /// The write whose last record was not met yet: where it begins, and its records.
    pub pending: Option<(u64, Vec<Body>)>,
    /// The process that sealed the log, if nothing follows.
    pub sealed: Option<Boot>,
    /// Whether the log goes on in the next segment.
    pub continues: bool,
    /// What each segment holds.
    pub held: Vec<Held>,
}

impl Replay {
    /// Before the first record; entries up to `covered` are in a snapshot.
    pub fn new(covered: LogIndex) -> Replay {
        Replay {
            covered,
            entries: Vec::new(),
            terms: Terms::new(SnapshotId::default()),
            reset: None,
            hard_state: None,
            last_write: None,
            last_place: None,
            pending: None,
            sealed: None,
            continues: false,
            held: Vec::new(),
        }
    }

    /// Reads until the segment says that the log continues in the next, or its records stop.
    ///
    /// # Errors
    /// The disk's; a record that doesn't follow on.
    pub fn read_segment(
        &mut self,
        disk: &mut dyn Disk,
        segment: &Segment,
        position: usize,
    ) -> Result<(u64, Option<RecordError>), StorageError> {
        self.continues = false;
        self.held.push(Held::new(segment.key.number));
        if segment.key.number == 1 {
            self.last_write = Some(0);
        }
        let mut records = Records::new(segment);
        while !self.continues {
            let (record, at) = match records.step(disk)? {
                Step::Record(record, at) => (record, at),
                Step::Stop(at, why) => return Ok((at, why)),
            };
            // The write numbers of a log whose beginning is gone go on from the first one there.
            let last_write = *self.last_write.get_or_insert(record.write.saturating_sub(1));
            if record.write != last_write + 1 {
                let due = last_write + 1;
                let what = format!("a record of write {} where write {due} is due", record.write);
                return Err(StorageError::corrupt(&segment.path, at, what));
            }
            let (start, bodies) = self.pending.get_or_insert_with(|| (at, Vec::new()));
            bodies.push(record.body);
            let start = *start;
            if record.ends_write {
                self.last_write = Some(record.write);
                self.last_place = Some((position, start, records.at()));
                self.sealed = None;
                let (_, bodies) = self.pending.take().expect("it was just pushed to");
                self.apply_write(start, bodies)
                    .map_err(|what| StorageError::corrupt(&segment.path, start, what))?;
            }
        }
        Ok((records.at(), None))
    }

    fn apply_write(&mut self, start: u64, bodies: Vec<Body>) -> Result<(), String> {
        let mut is_first = start == FIRST_RECORD;
        for body in bodies {
            if std::mem::take(&mut is_first) {
                self.begin_segment(&body)?;
            } else if matches!(body, Body::Continued(_)) {
                return Err("a segment's first record within the segment".to_owned());
            }
            self.apply(body)?;
        }
        Ok(())
    }

    /// A segment behind another one says what the log's last entry is before it; one that is the
    /// first there must.
    fn begin_segment(&mut self, first: &Body) -> Result<(), String> {
        let is_first_there = self.held.len() == 1;
        let held = self.held.last_mut().expect("a segment is being read");
        let number = held.number;
        let Body::Continued(last) = first else {
            held.stands_alone = number == 1;
            return match is_first_there && number > 1 {
                true => Err("the segment doesn't say what came before it".to_owned()),
                false => Ok(()),
            };
        };
        held.stands_alone = true;
        if number == 1 {
            return Err("the log's first segment continues another one".to_owned());
        }
        if is_first_there {
            self.terms = Terms::new(*last);
            return Ok(());
        }
        let known = self.terms.last_id();
        let terms_differ = known.term != last.term && known.term.0 != 0 && last.term.0 != 0;
        if known.index != last.index || terms_differ {
            let SnapshotId { index, term } = last;
            return Err(format!(
                "the log ends with entry {} of term {} before this segment, which says {index} of \
                 term {term}",
                known.index, known.term
            ));
        }
        Ok(())
    }

    /// Takes a record in, or says why it does not follow on those before.
    pub fn apply(&mut self, body: Body) -> Result<(), String> {
        match body {
            Body::Entry(entry) => self.append(entry),
            Body::Truncation(from) => self.truncate(from),
            Body::HardState(state) => {
                let term = self.hard_state.unwrap_or_default().current_term;
                if state.current_term < term {
                    let now = state.current_term;
                    return Err(format!("the term falls from {term} to {now}"));
                }
                self.hard_state = Some(state);
                Ok(())
            }
            Body::Reset(id) => {
                // Only an earlier reset is a bound. What the first segment says was before it may
                // have been longer, of entries that were never committed: this reset made it void,
                // so that its segments could go.
                if let Some(last) = self.reset.filter(|last| last.index > id.index) {
                    let (to, base) = (id.index, last.index);
                    return Err(format!("a reset to {to} of a log that begins behind {base}"));
                }
                self.terms = Terms::new(id);
                self.reset = Some(id);
                self.entries.clear();
                for held in &mut self.held {
                    held.highest = LogIndex::ZERO;
                }
                Ok(())
            }
            Body::Continues => {
                self.continues = true;
                Ok(())
            }
            Body::Seal(boot) => {
                self.sealed = Some(boot);
                Ok(())
            }
            Body::Continued(_) => Ok(()),
        }
    }

    fn append(&mut self, entry: Entry) -> Result<(), String> {
        let (last, next) = (self.terms.last_id(), self.terms.last().next());
        if entry.index != next {
            return Err(format!("entry {} where entry {next} is due", entry.index));
        }
        if entry.term < last.term {
            return Err(format!(
                "entry {next} is of term {}, the one before it of term {}",
                entry.term, last.term
            ));
        }
        self.terms.append(entry.term);
        let held = self.held.last_mut().expect("a segment is being read");
        held.highest = held.highest.max(next);
        if next > self.covered {
            self.entries.push(entry);
        }
        Ok(())
    }

    fn truncate(&mut self, from: LogIndex) -> Result<(), String> {
        let next = self.terms.last().next();
        if from == LogIndex::ZERO || from > next {
            return Err(format!("a truncation at {from} of a log that ends before {next}"));
        }
        // Entries may have been in segments that are gone: a snapshot covers them, or the log is
        // refused at the end. Those before a reset are not part of the log.
        if let Some(reset) = self.reset.filter(|reset| from <= reset.index) {
            let base = reset.index;
            return Err(format!("a truncation at {from} of a log that begins behind {base}"));
        }
        self.terms.truncate(from);
        let kept = from.prev().0.saturating_sub(self.covered.0);
        self.entries.truncate(kept as usize);
        Ok(())
    }
}

/// The hard state, with the term that a snapshot proves to have begun: no vote was ever given in it,
/// or it would be in the log.
pub fn with_term(state: HardState, snapshot: Option<Term>) -> HardState {
    match snapshot {
        Some(term) if term > state.current_term => {
            HardState { current_term: term, voted_for: None }
        }
        _ => state,
    }
}
