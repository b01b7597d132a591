//! A durable snapshot leaves this node for a backup, piece by piece, as a client asks (RAFT EXPORT).
//!
//! Ours; design page 3 §3. The client sets the pace, and what it asks for is read by the driver, so
//! that neither memory nor a turn grows with the snapshot. Called by `pipeline.rs` and for what the
//! driver has read. Promises nothing about how long a snapshot stays: a piece of one that is gone
//! is nil, and the client begins again.

use bytes::Bytes;

use super::clients::Origin;
use super::node::Node;
use super::{Effect, SnapshotReader};
use crate::kv::export::{ExportedPiece, parse};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::types::{Instant, SnapshotId};

/// What clients have asked for and not got.
#[derive(Default, Debug)]
pub(super) struct Exports {
    asked: Vec<(Origin, ExportedPiece)>,
    /// When a piece was last asked for.
    last_asked: Option<Instant>,
}

impl Exports {
    /// Pieces that are being read.
    pub fn held(&self) -> usize {
        self.asked.len()
    }

    /// Whether somebody is at it: then the next snapshot, which would push out what is being
    /// exported sooner or later, can wait a little.
    pub fn is_at_work(&self, now: Instant) -> bool {
        self.last_asked.is_some_and(|last| now.since(last) < limits::EXPORT_PATIENCE)
    }
}

impl Node {
    /// `RAFT EXPORT`: asks the driver for the piece.
    pub(super) fn take_export(
        &mut self,
        now: Instant,
        origin: Origin,
        args: Args<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let piece = match parse(args) {
            Ok(piece) => piece,
            Err(error) => return self.clients.answer(origin, error.reply(), effects),
        };
        if self.exports.asked.len() >= limits::EXPORT_PIECES {
            let text = "ERR too many pieces of snapshots are asked for at once";
            return self.clients.answer(origin, Reply::Error(text.into()), effects);
        }
        self.exports.last_asked = Some(now);
        self.exports.asked.push((origin, piece));
        let ExportedPiece { snapshot: id, offset, length } = piece;
        effects.push(Effect::ReadSnapshot { id, offset, length, reader: SnapshotReader::Client });
    }

    /// The driver has read a piece: everybody who asked for it gets it. (The same question by two
    /// is read once.)
    pub(super) fn export_read(
        &mut self,
        id: SnapshotId,
        offset: u64,
        bytes: Option<Bytes>,
        effects: &mut Vec<Effect>,
    ) {
        let fits = |length: usize| bytes.as_ref().is_none_or(|bytes| bytes.len() == length);
        let is_it = |(_, piece): &mut (Origin, ExportedPiece)| {
            piece.snapshot == id && piece.offset == offset && fits(piece.length)
        };
        let done: Vec<_> = self.exports.asked.extract_if(.., is_it).collect();
        for (origin, _) in done {
            let reply = bytes.clone().map_or(Reply::Nil, Reply::Bulk);
            self.clients.answer(origin, reply, effects);
        }
    }
}
