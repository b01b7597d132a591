//! `RAFT EXPORT`: the row, and the reading of its words.
//!
//! Ours: how a backup leaves a node, piece by piece, as its reader asks. Called by the table, for
//! the check, and by `node/export.rs`, which answers. Knows no snapshot.

use super::command::{Command, ConnectionCommand, Flags, Group, Handler, ROW};
use super::error::CommandError;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::types::{LogIndex, SnapshotId, Term};

pub(super) const EXPORT: Command = Command {
    name: "raft|export",
    arity: 6,
    group: Group::Raft,
    flags: Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::STALE),
    since: "0.1.0",
    summary: "Read a piece of the file of a durable snapshot, or nil if that is gone",
    usage: "index term offset length",
    handler: Handler::Connection {
        check: |args| parse(args).map(drop),
        command: ConnectionCommand::RaftExport,
    },
    ..ROW
};

/// A piece of a snapshot's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportedPiece {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// Where the piece begins.
    pub offset: u64,
    /// How many bytes it has: 1 to [`limits::EXPORT_PIECE_BYTES`].
    pub length: usize,
}

/// Reads the words behind `RAFT EXPORT`.
///
/// # Errors
/// A word is no number of its range.
pub fn parse(args: Args<'_>) -> Result<ExportedPiece, CommandError> {
    let number = |place: usize| {
        let number = parse_integer(args.get(place).ok_or(CommandError::Syntax)?);
        number.and_then(|number| u64::try_from(number).ok()).ok_or(CommandError::NotAnInteger)
    };
    let snapshot = SnapshotId { index: LogIndex(number(2)?), term: Term(number(3)?) };
    let (offset, length) = (number(4)?, number(5)? as usize);
    if length == 0 || length > limits::EXPORT_PIECE_BYTES {
        return Err(CommandError::NotAnInteger);
    }
    Ok(ExportedPiece { snapshot, offset, length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::args::push_arg;

    fn read(line: &str) -> Result<ExportedPiece, CommandError> {
        let words: Vec<&str> = line.split(' ').collect();
        let mut bytes = Vec::new();
        words.iter().for_each(|word| push_arg(&mut bytes, word.as_bytes()));
        parse(Args::new(words.len() as u32, &bytes))
    }

    #[test]
    fn parse_bounds_the_piece() {
        let snapshot = SnapshotId { index: LogIndex(7), term: Term(2) };
        let piece = ExportedPiece { snapshot, offset: 0, length: 10 };
        assert_eq!(read("RAFT EXPORT 7 2 0 10"), Ok(piece));
        let most = limits::EXPORT_PIECE_BYTES;
        assert!(read(&format!("RAFT EXPORT 7 2 0 {most}")).is_ok());
        for line in [
            format!("RAFT EXPORT 7 2 0 {}", most + 1),
            "RAFT EXPORT 7 2 0 0".to_owned(),
            "RAFT EXPORT 7 2 -1 10".to_owned(),
            "RAFT EXPORT 7 x 0 10".to_owned(),
        ] {
            assert!(read(&line).is_err(), "{line}");
        }
    }
}
