//! The log's writer: gathers what is to be written, and has one durable write under way at a time.
//!
//! The last, partly filled block is written again with its old bytes unchanged, and a write never
//! spans two segments. Called by [`super::Storage`]; making and filling segments ahead is in
//! [`super::ahead`]. Never blocks on a log write, and never repeats a failed one.

use std::collections::VecDeque;

use super::ahead::Ahead;
use super::buffer::{BLOCK_BYTES, BlockBuffer};
use super::compaction::{Compaction, Held};
use super::disk::{Disk, Operation, Token};
use super::error::{DiskError, StorageError};
use super::recovery::RecoveredLog;
use super::segment::{FIRST_RECORD, Segment};
use super::terms::Terms;
use crate::limits;
use crate::proto::entry::{HardState, LogWrite};
use crate::proto::record::{self, Body, HEADER_BYTES, Record};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Boot, LogIndex, Room, Term, WalSeq};

/// Bytes at the end of every segment that only the record that ends it and a seal may use.
const END_BYTES: u64 = 2 * HEADER_BYTES as u64;

/// Bytes at the beginning of a segment that say what was before it: the last entry, and the hard
/// state.
const CARRIED_BYTES: u64 = 2 * HEADER_BYTES as u64 + 8;

/// The writing end of the log.
pub struct Writer {
    ahead: Ahead,
    compaction: Compaction,
    current: Segment,
    /// What the current segment holds.
    held: Held,
    /// The entries that were written.
    terms: Terms,
    /// Where the next record goes.
    position: u64,
    /// The bytes of that place's block before it, as they are on the disk.
    tail: Vec<u8>,
    /// The number of the last disk write that was begun.
    last_write: u64,
    gathered: VecDeque<Gathered>,
    gathered_bytes: u64,
    under_way: Option<UnderWay>,
    /// Whether the write that is under way is its segment's first, and carries what was before.
    is_carrying: bool,
    /// The last hard state that was gathered, and the last one that was written.
    gathered_state: Option<HardState>,
    written_state: Option<HardState>,
    /// Something gathered could not be written yet: it is tried again when something has ended.
    owed: bool,
}

/// One [`LogWrite`] that waits for its disk write.
struct Gathered {
    seq: WalSeq,
    bodies: Vec<Body>,
    bytes: u64,
}

impl Gathered {
    fn new(seq: WalSeq, bodies: Vec<Body>) -> Gathered {
        let bytes = bodies.iter().map(|body| body.encoded_len() as u64).sum();
        Gathered { seq, bodies, bytes }
    }
}

/// What the disk write that is under way is for.
enum UnderWay {
    /// Log writes up to this one, and whether one of them was a reset.
    Log { seq: WalSeq, is_reset: bool },
    /// The current segment's end.
    Continues,
    /// A clean stop.
    Seal,
}

impl Writer {
    /// Goes on where recovery left off.
    pub fn new(recovered: RecoveredLog, ahead: Ahead, compaction: Compaction) -> Writer {
        let due = recovered.reset_due.map(|id| Gathered::new(WalSeq::ZERO, vec![Body::Reset(id)]));
        Writer {
            ahead,
            compaction,
            held: recovered.current_held,
            terms: recovered.terms,
            current: recovered.current,
            position: recovered.position,
            tail: recovered.tail,
            last_write: recovered.last_write,
            gathered_bytes: due.as_ref().map_or(0, |due| due.bytes),
            gathered: due.into_iter().collect(),
            under_way: None,
            is_carrying: false,
            gathered_state: recovered.hard_state,
            written_state: recovered.hard_state,
            owed: false,
        }
    }

    /// Takes a log write for the next disk write. Nothing is written yet.
    pub fn append(&mut self, seq: WalSeq, write: &LogWrite) {
        assert!(self.gathered.back().is_none_or(|last| last.seq < seq));
        let mut bodies = Vec::with_capacity(write.entries.len() + 3);
        bodies.extend(write.reset.map(Body::Reset));
        bodies.extend(write.truncate_from.map(Body::Truncation));
        bodies.extend(write.entries.iter().cloned().map(Body::Entry));
        if let Some(state) = write.hard_state {
            let term = self.gathered_state.map_or(Term::ZERO, |state| state.current_term);
            assert!(term <= state.current_term, "the term never falls");
            self.gathered_state = Some(state);
            bodies.push(Body::HardState(state));
        }
        if bodies.is_empty() {
            // Nothing to write still has its turn: it is durable when what came before it is.
            bodies.push(Body::HardState(self.gathered_state.unwrap_or_default()));
        }
        let gathered = Gathered::new(seq, bodies);
        self.gathered_bytes += gathered.bytes;
        self.gathered.push_back(gathered);
    }

    /// Starts a disk write with everything that is gathered, unless one is under way.
    ///
    /// # Errors
    /// The disk's. Final.
    pub fn submit(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        if self.under_way.is_some() || self.gathered.is_empty() {
            return Ok(());
        }
        self.owed = true;
        let count = self.fitting();
        if count == 0 {
            return self.roll(disk);
        }
        let mut bodies = Vec::new();
        let mut seq = WalSeq::ZERO;
        for gathered in self.gathered.drain(..count) {
            self.gathered_bytes -= gathered.bytes;
            seq = gathered.seq;
            bodies.extend(gathered.bodies);
        }
        self.owed = !self.gathered.is_empty();
        let is_reset = bodies.iter().any(|body| matches!(body, Body::Reset(_)));
        self.write(disk, bodies, UnderWay::Log { seq, is_reset })
    }

    /// A new segment begins with the log's last entry and the hard state, so that the segments
    /// before it may go some day.
    fn carried(&self) -> Vec<Body> {
        if self.position != FIRST_RECORD {
            return Vec::new();
        }
        let is_first = self.current.key.number == 1;
        let last = (!is_first).then(|| Body::Continued(self.terms.last_id()));
        let state = self.written_state.map(Body::HardState);
        last.into_iter().chain(state).collect()
    }

    /// How many of the gathered log writes the next disk write takes.
    fn fitting(&self) -> usize {
        let mut left = self.left().min(limits::LOG_WRITE_BYTES);
        let mut count = 0;
        for gathered in &self.gathered {
            let alone = count == 0 && gathered.bytes <= self.left();
            if gathered.bytes > left && !alone {
                break;
            }
            left = left.saturating_sub(gathered.bytes);
            count += 1;
        }
        count
    }

    /// Bytes that the current segment still takes.
    fn left(&self) -> u64 {
        let carried = if self.position == FIRST_RECORD { CARRIED_BYTES } else { 0 };
        (self.current.capacity - self.position).saturating_sub(END_BYTES + carried)
    }

    /// Ends the current segment if the next is there, and sees to it that it will be.
    fn roll(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        let first = self.gathered.front().map_or(0, |gathered| gathered.bytes);
        let needed = FIRST_RECORD + CARRIED_BYTES + first + END_BYTES;
        if self.ahead.is_ready(needed) {
            return self.write(disk, vec![Body::Continues], UnderWay::Continues);
        }
        self.ahead.prepare(disk, &self.current, needed)
    }

    fn write(
        &mut self,
        disk: &mut dyn Disk,
        mut bodies: Vec<Body>,
        purpose: UnderWay,
    ) -> Result<(), StorageError> {
        assert!(self.under_way.is_none(), "one write at a time");
        self.is_carrying = self.position == FIRST_RECORD;
        bodies.splice(0..0, self.carried());
        self.last_write += 1;
        let block = self.position - self.tail.len() as u64;
        let bytes: usize = bodies.iter().map(Body::encoded_len).sum();
        let end = self.position + bytes as u64;
        assert!(end <= self.current.capacity);
        let last = bodies.len() - 1;
        bodies.iter().for_each(|body| self.note(body));
        let mut next_tail = Vec::with_capacity(BLOCK_BYTES);
        let blocks = BlockBuffer::build(self.tail.len() + bytes, |out| {
            let start = out.len();
            out.extend_from_slice(&self.tail);
            for (at, body) in bodies.into_iter().enumerate() {
                let record = Record { write: self.last_write, ends_write: at == last, body };
                record::encode(self.current.key, &record, out);
            }
            let partial = end as usize % BLOCK_BYTES;
            assert_eq!((out.len() - start) % BLOCK_BYTES, partial);
            next_tail.extend_from_slice(&out[out.len() - partial..]);
        });
        self.tail = next_tail;
        self.position = end;
        self.under_way = Some(purpose);
        let write_end = block + blocks.blocks().len() as u64;
        let operation = Operation::WriteDurable { file: self.current.file, offset: block, blocks };
        // A slice of zeros that is under way in this very place would fall on top of the records.
        self.ahead.write_or_hold(disk, &mut self.current, write_end, operation)
    }

    /// Takes note of what a record changes.
    fn note(&mut self, body: &Body) {
        match body {
            Body::Entry(entry) => {
                assert_eq!(entry.index, self.terms.last().next(), "a log has no gaps");
                self.terms.append(entry.term);
                self.held.highest = self.held.highest.max(entry.index);
            }
            Body::Truncation(from) => {
                assert!(*from > self.terms.base(), "what a snapshot covers is never truncated");
                self.terms.truncate(*from);
            }
            Body::Reset(id) => {
                assert!(id.index >= self.terms.base(), "a reset never goes back");
                self.terms = Terms::new(*id);
                self.held.highest = LogIndex::ZERO;
            }
            Body::HardState(state) => self.written_state = Some(*state),
            Body::Continues | Body::Continued(_) | Body::Seal(_) => {}
        }
    }

    /// An operation of the log has ended; the last log write that is durable by that, if it was one.
    ///
    /// # Errors
    /// The disk's. Final.
    pub fn ended(
        &mut self,
        disk: &mut dyn Disk,
        token: Token,
        result: Result<(), DiskError>,
    ) -> Result<Option<WalSeq>, StorageError> {
        match token {
            Token::Log => {
                if !is_on(Mutation::IgnoresSyncError) {
                    result?;
                }
                return Ok(self.written(disk));
            }
            Token::Fill => self.ahead.filled(disk, &mut self.current, result)?,
            Token::Prepare => self.ahead.prepared(disk, result)?,
            Token::Compact => self.compaction.ended(disk, result)?,
            Token::Snapshot(_) | Token::Sweep | Token::Read => {
                unreachable!("no operation of the log")
            }
        }
        Ok(None)
    }

    fn written(&mut self, disk: &mut dyn Disk) -> Option<WalSeq> {
        self.held.stands_alone |= std::mem::take(&mut self.is_carrying);
        match self.under_way.take().expect("only a write that is under way ends") {
            UnderWay::Log { seq, is_reset } => {
                if is_reset {
                    self.compaction.void_all();
                }
                return (seq > WalSeq::ZERO).then_some(seq);
            }
            UnderWay::Continues => self.enter_next(disk),
            UnderWay::Seal => {}
        }
        None
    }

    /// Starts what is due after something has ended.
    ///
    /// # Errors
    /// The disk's. Final.
    pub fn go_on(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        if self.owed {
            self.submit(disk)?;
        }
        self.compaction.go_on(disk, self.held)?;
        self.ahead.go_on(disk, &mut self.current, self.position)
    }

    /// Entries up to `through` are covered by snapshots: segments that hold nothing else may go.
    ///
    /// # Errors
    /// The disk's. Final.
    pub fn compact(&mut self, disk: &mut dyn Disk, through: LogIndex) -> Result<(), StorageError> {
        // A truncation that is gathered and not yet written may go back behind what a snapshot has
        // covered meanwhile: until then its entries' terms are asked for.
        let bodies = self.gathered.iter().flat_map(|gathered| &gathered.bodies);
        let truncated = bodies.filter_map(|body| match body {
            Body::Truncation(from) => Some(from.prev()),
            _ => None,
        });
        self.terms.forget_before(truncated.fold(through, LogIndex::min));
        self.compaction.cover(through);
        self.compaction.go_on(disk, self.held)
    }

    fn enter_next(&mut self, disk: &mut dyn Disk) {
        reached(Mark::SegmentRolled);
        let next = self.ahead.take_ready();
        disk.close(self.current.file);
        self.compaction.pass(self.held);
        self.held = Held::new(next.key.number);
        self.current = next;
        self.position = FIRST_RECORD;
        self.tail.clear();
    }

    /// What the log still has room for.
    pub fn room(&self) -> Room {
        if !self.ahead.is_starved() {
            return Room::Ample;
        }
        if self.owed && self.under_way.is_none() {
            // Something gathered fits neither this segment nor the next, whatever they have left.
            reached(Mark::RoomExhausted);
            return Room::Exhausted;
        }
        let promised = self.current.promised.saturating_sub(self.position);
        let left = (promised + self.ahead.promised()).saturating_sub(self.gathered_bytes);
        let segment = self.ahead.segment_bytes();
        if left < limits::LOG_EXHAUSTED_BYTES.min(segment / 8) {
            reached(Mark::RoomExhausted);
            Room::Exhausted
        } else if left < limits::LOG_SCARCE_BYTES.min(segment / 2) {
            Room::Scarce
        } else {
            Room::Ample
        }
    }

    /// Asks a full disk once more for space.
    pub fn retry_room(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        if !self.ahead.is_starved() {
            return Ok(());
        }
        self.ahead.retry();
        if self.owed {
            self.submit(disk)?;
        }
        self.ahead.go_on(disk, &mut self.current, self.position)
    }

    /// Whether an operation of the log is under way.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some() || self.ahead.is_under_way() || self.compaction.is_under_way()
    }

    /// Whether a reset that recovery found missing waits for its write, with nothing to wait for
    /// but the disk.
    pub fn is_reset_due(&self) -> bool {
        let is_due = self.gathered.front().is_some_and(|first| first.seq == WalSeq::ZERO);
        let is_written = matches!(self.under_way, Some(UnderWay::Log { seq: WalSeq::ZERO, .. }));
        is_written || is_due && !self.ahead.is_starved()
    }

    /// Begins a clean stop. Filling ends here, but a slice that is under way must not fall on what
    /// a successor writes.
    pub fn stop(&mut self) {
        self.ahead.stop_filling();
        self.compaction.stop();
    }

    /// Starts the seal of a clean stop, behind everything that was gathered. False if there is no
    /// room for it: the next start takes care as after a crash.
    ///
    /// # Errors
    /// The disk's.
    pub fn seal(&mut self, disk: &mut dyn Disk, boot: Boot) -> Result<bool, StorageError> {
        assert!(!self.is_under_way(), "a seal is the last write");
        if !self.gathered.is_empty() {
            log::warn!("the disk is full: what was not yet written to the log was never promised");
        }
        if self.current.capacity - self.position < END_BYTES {
            return Ok(false);
        }
        self.write(disk, vec![Body::Seal(boot)], UnderWay::Seal)?;
        Ok(true)
    }

    /// Makes the current segment's bytes durable once more, all of them.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        Ok(disk.sync(self.current.file)?)
    }
}
