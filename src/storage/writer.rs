//! The log's writer: gathers what is to be written, and has one durable write under way at a time.
//!
//! The last, partly filled block is written again with its old bytes unchanged, and a write never
//! spans two segments. Called by [`super::Storage`]; making and filling segments ahead is in
//! [`super::ahead`]. Never blocks on a log write, and never repeats a failed one.

use std::collections::VecDeque;

use super::ahead::Ahead;
use super::buffer::{BLOCK_BYTES, BlockBuffer};
use super::disk::{Disk, Done, Operation, Token};
use super::error::StorageError;
use super::recovery::RecoveredLog;
use super::segment::{FIRST_RECORD, Segment};
use crate::limits;
use crate::proto::entry::{HardState, LogWrite};
use crate::proto::record::{self, Body, HEADER_BYTES, Record};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Boot, Room, Term, WalSeq};

/// Bytes at the end of every segment that only the record that ends it and a seal may use.
const END_BYTES: u64 = 2 * HEADER_BYTES as u64;

/// Bytes of the hard state's record.
const HARD_STATE_BYTES: u64 = HEADER_BYTES as u64 + 8;

/// The writing end of the log.
pub struct Writer {
    ahead: Ahead,
    current: Segment,
    /// Where the next record goes.
    position: u64,
    /// The bytes of that place's block before it, as they are on the disk.
    tail: Vec<u8>,
    /// The number of the last disk write that was begun.
    last_write: u64,
    gathered: VecDeque<Gathered>,
    gathered_bytes: u64,
    under_way: Option<UnderWay>,
    /// The last hard state that was gathered, and the last one that was written.
    gathered_state: Option<HardState>,
    written_state: Option<HardState>,
    /// Something gathered could not be written yet: it is tried again when something has ended.
    owed: bool,
    done: Vec<Done>,
}

/// One [`LogWrite`] that waits for its disk write.
struct Gathered {
    seq: WalSeq,
    bodies: Vec<Body>,
    bytes: u64,
}

/// What the disk write that is under way is for.
enum UnderWay {
    /// Log writes up to this one.
    Log(WalSeq),
    /// The current segment's end.
    Continues,
    /// A clean stop.
    Seal,
}

impl Writer {
    /// Goes on where recovery left off.
    pub fn new(recovered: RecoveredLog, ahead: Ahead) -> Writer {
        Writer {
            ahead,
            current: recovered.current,
            position: recovered.position,
            tail: recovered.tail,
            last_write: recovered.last_write,
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            under_way: None,
            gathered_state: recovered.hard_state,
            written_state: recovered.hard_state,
            owed: false,
            done: Vec::new(),
        }
    }

    /// Takes a log write for the next disk write. Nothing is written yet.
    pub fn append(&mut self, seq: WalSeq, write: &LogWrite) {
        assert!(self.gathered.back().is_none_or(|last| last.seq < seq));
        let mut bodies = Vec::with_capacity(write.entries.len() + 2);
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
        let bytes = bodies.iter().map(|body| body.encoded_len() as u64).sum();
        self.gathered_bytes += bytes;
        self.gathered.push_back(Gathered { seq, bodies, bytes });
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
        let mut bodies = self.carried_state();
        let mut seq = WalSeq::ZERO;
        for gathered in self.gathered.drain(..count) {
            self.gathered_bytes -= gathered.bytes;
            seq = gathered.seq;
            bodies.extend(gathered.bodies);
        }
        self.owed = !self.gathered.is_empty();
        self.write(disk, bodies, UnderWay::Log(seq))
    }

    /// A new segment begins with the hard state, so that the segments before it may go some day.
    fn carried_state(&self) -> Vec<Body> {
        let fresh = self.position == FIRST_RECORD;
        let state = self.written_state.filter(|_| fresh);
        state.map(Body::HardState).into_iter().collect()
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
        let carried = if self.position == FIRST_RECORD { HARD_STATE_BYTES } else { 0 };
        (self.current.capacity - self.position).saturating_sub(END_BYTES + carried)
    }

    /// Ends the current segment if the next is there, and sees to it that it will be.
    fn roll(&mut self, disk: &mut dyn Disk) -> Result<(), StorageError> {
        let first = self.gathered.front().map_or(0, |gathered| gathered.bytes);
        let needed = FIRST_RECORD + HARD_STATE_BYTES + first + END_BYTES;
        if self.ahead.is_ready(needed) {
            return self.write(disk, vec![Body::Continues], UnderWay::Continues);
        }
        self.ahead.prepare(disk, &self.current, needed)
    }

    fn write(
        &mut self,
        disk: &mut dyn Disk,
        bodies: Vec<Body>,
        purpose: UnderWay,
    ) -> Result<(), StorageError> {
        assert!(self.under_way.is_none(), "one write at a time");
        self.last_write += 1;
        let block = self.position - self.tail.len() as u64;
        let bytes: usize = bodies.iter().map(Body::encoded_len).sum();
        let end = self.position + bytes as u64;
        assert!(end <= self.current.capacity);
        let last = bodies.len() - 1;
        let mut next_tail = Vec::with_capacity(BLOCK_BYTES);
        let blocks = BlockBuffer::build(self.tail.len() + bytes, |out| {
            let start = out.len();
            out.extend_from_slice(&self.tail);
            for (at, body) in bodies.into_iter().enumerate() {
                if let Body::HardState(state) = body {
                    self.written_state = Some(state);
                }
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

    /// Takes what has ended; the last log write that is now durable, if there is a new one.
    ///
    /// # Errors
    /// The disk's. Final.
    pub fn complete(&mut self, disk: &mut dyn Disk) -> Result<Option<WalSeq>, StorageError> {
        let mut through = None;
        let mut done = std::mem::take(&mut self.done);
        disk.reap(&mut done)?;
        for Done { token, result } in done.drain(..) {
            match token {
                Token::Log => {
                    if !is_on(Mutation::IgnoresSyncError) {
                        result?;
                    }
                    match self.under_way.take().expect("only a write that is under way ends") {
                        UnderWay::Log(seq) => through = Some(seq),
                        UnderWay::Continues => self.enter_next(disk),
                        UnderWay::Seal => {}
                    }
                }
                Token::Fill => self.ahead.filled(disk, &mut self.current, result)?,
                Token::Prepare => self.ahead.prepared(disk, result)?,
            }
        }
        self.done = done;
        if self.owed {
            self.submit(disk)?;
        }
        self.ahead.go_on(disk, &mut self.current, self.position)?;
        Ok(through)
    }

    fn enter_next(&mut self, disk: &mut dyn Disk) {
        reached(Mark::SegmentRolled);
        let next = self.ahead.take_ready();
        disk.close(self.current.file);
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

    /// Writes what is gathered, waits until it is durable, and seals the log.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(&mut self, disk: &mut dyn Disk, boot: Boot) -> Result<(), StorageError> {
        // Filling ends here, but a slice that is under way must not fall on what a successor
        // writes.
        self.ahead.stop_filling();
        self.submit(disk)?;
        while self.under_way.is_some() || self.ahead.is_under_way() {
            disk.wait()?;
            self.complete(disk)?;
            self.submit(disk)?;
        }
        if !self.gathered.is_empty() {
            log::warn!("the disk is full: what was not yet written to the log was never promised");
        }
        if self.current.capacity - self.position < END_BYTES {
            // No room for a seal: the next start takes care as after a crash.
            return Ok(());
        }
        self.write(disk, vec![Body::Seal(boot)], UnderWay::Seal)?;
        while self.under_way.is_some() {
            disk.wait()?;
            self.complete(disk)?;
        }
        disk.sync(self.current.file)?;
        Ok(())
    }
}
