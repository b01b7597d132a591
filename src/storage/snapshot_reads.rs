//! Reading snapshots while the node runs: one piece after another, none of them blocking.
//!
//! Design page 3 §2: a slow disk must not silence a node, so even what is most often in memory is
//! read by [`Disk::submit`]. Called by [`super::snapshots`]. Pieces are read in the order in which
//! they were asked for; one operation is under way at a time. Never looks into a snapshot.

use std::collections::VecDeque;
use std::path::Path;

use bytes::Bytes;

use super::disk::{Disk, FileId, Open, Operation, Outcome, Token};
use super::error::{DiskError, StorageError};
use super::shelf;
use crate::limits;
use crate::types::{SnapshotId, SnapshotReader};

/// A piece that is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceRead {
    /// Of which snapshot.
    pub id: SnapshotId,
    /// From where.
    pub offset: u64,
    /// How many bytes; may be 0.
    pub length: usize,
    /// For whom.
    pub reader: SnapshotReader,
}

/// A durable snapshot.
pub struct Kept {
    /// Which one.
    pub id: SnapshotId,
    /// Its length in bytes.
    pub length: u64,
    /// Open once it was read.
    pub file: Option<FileId>,
}

/// What a piece came to: `None` where there is no such snapshot any more, or it is shorter.
pub type Read = (PieceRead, Option<Bytes>);

/// What is under way for the first piece of the queue.
enum Step {
    Open(SnapshotId),
    Bytes,
}

/// The pieces that are to be read.
#[derive(Default)]
pub struct Reads {
    queue: VecDeque<PieceRead>,
    under_way: Option<Step>,
}

impl Reads {
    /// Asks for a piece. What is asked for twice is read once: a disk that hangs is asked again and
    /// again. At the bound it is dropped, and whoever waits for it asks again.
    pub fn push(&mut self, piece: PieceRead) {
        let is_bounded = self.queue.len() < limits::SNAPSHOT_READS;
        if !self.queue.contains(&piece) && (is_bounded || piece.reader == SnapshotReader::Load) {
            self.queue.push_back(piece);
        }
    }

    /// Whether an operation is under way.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins nothing more.
    pub fn stop(&mut self) {
        self.queue.clear();
    }

    /// Starts the next operation if none is under way; what needs none is answered at once.
    ///
    /// # Errors
    /// The disk's.
    pub fn go_on(
        &mut self,
        disk: &mut dyn Disk,
        directory: &Path,
        kept: &[Kept],
        answers: &mut impl FnMut(Read),
    ) -> Result<(), StorageError> {
        while let Some(piece) = self.queue.front().filter(|_| self.under_way.is_none()) {
            let PieceRead { id, offset, length, .. } = *piece;
            let held = kept.iter().find(|held| held.id == id);
            let held = held.filter(|held| offset + length as u64 <= held.length);
            match held {
                Some(Kept { file: Some(file), .. }) if length > 0 => {
                    let operation = Operation::Read { file: *file, offset, length };
                    disk.submit(Token::Read, operation)?;
                    self.under_way = Some(Step::Bytes);
                }
                Some(Kept { file: None, .. }) if length > 0 => {
                    let (path, how) = (shelf::path(directory, id), Open::Existing);
                    disk.submit(Token::Read, Operation::Open { path, how })?;
                    self.under_way = Some(Step::Open(id));
                }
                _ => {
                    answers((*piece, held.map(|_| Bytes::new())));
                    self.queue.pop_front();
                }
            }
        }
        Ok(())
    }

    /// An operation has ended.
    ///
    /// # Errors
    /// The disk's; the file is shorter than it was. Not where the snapshot is no longer kept.
    pub fn ended(
        &mut self,
        disk: &mut dyn Disk,
        directory: &Path,
        kept: &mut [Kept],
        result: Result<Outcome, DiskError>,
        answers: &mut impl FnMut(Read),
    ) -> Result<(), StorageError> {
        match self.under_way.take().expect("only an operation that is under way ends") {
            Step::Open(id) => {
                let held = kept.iter_mut().find(|held| held.id == id);
                match (held, result) {
                    (Some(held), result) => held.file = Some(opened(result?)),
                    (None, Ok(outcome)) => disk.close(opened(outcome)),
                    (None, Err(_)) => {}
                }
            }
            Step::Bytes => {
                // A stop has emptied the queue meanwhile.
                let Some(piece) = self.queue.pop_front() else {
                    return Ok(());
                };
                if !kept.iter().any(|held| held.id == piece.id) {
                    answers((piece, None));
                    return Ok(());
                }
                let Outcome::Bytes(bytes) = result? else {
                    unreachable!("a read brings bytes");
                };
                if bytes.len() < piece.length {
                    let end = piece.offset + bytes.len() as u64;
                    let path = shelf::path(directory, piece.id);
                    let what = "the snapshot ends here, and was longer when it was opened";
                    return Err(StorageError::corrupt(&path, end, what));
                }
                answers((piece, Some(Bytes::from(bytes))));
            }
        }
        Ok(())
    }
}

/// The file that an operation has opened.
pub fn opened(outcome: Outcome) -> FileId {
    match outcome {
        Outcome::File(file) => file,
        Outcome::Done | Outcome::Bytes(_) => unreachable!("an opening brings a file"),
    }
}
