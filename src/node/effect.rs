//! Everything that a node can want done.
//!
//! Effects are carried out in list order and none is conditional: what must wait for the disk is
//! withheld by the core until `Persisted` says so.

use bytes::Bytes;

use crate::proto::entry::LogWrite;
use crate::proto::message::Packet;
use crate::proto::reply::{Protocol, Reply};
use crate::types::{
    ClientId, CommandSet, Divergence, LogIndex, SnapshotId, SnapshotKind, SnapshotReader, WalSeq,
};

/// One effect.
#[derive(Debug)]
pub enum Effect {
    /// Write this to the log; report `Persisted` once it is durable.
    Persist {
        /// 1, 2, 3 ... in this process.
        seq: WalSeq,
        /// What to write.
        write: LogWrite,
    },
    /// Send a message to the peer that its envelope names, if its connection stands; else drop it.
    Send {
        /// The message in its envelope.
        packet: Packet,
    },
    /// Answer a client's oldest unanswered command.
    Reply {
        /// The client.
        client: ClientId,
        /// The protocol version to write it in.
        protocol: Protocol,
        /// The answer.
        reply: Reply,
    },
    /// Tell a client something that it didn't ask for: a change, a message. Report `Drained` once
    /// its socket has taken all that waits for it.
    Push {
        /// The client.
        client: ClientId,
        /// Whole messages, in the client's protocol.
        bytes: Bytes,
    },
    /// Close a client's connection once its replies have been written.
    Close {
        /// The client.
        client: ClientId,
    },
    /// Write this to a snapshot that is being made; report `SnapshotWritten`, or `SnapshotFull`.
    WriteSnapshot {
        /// Whose work it is.
        kind: SnapshotKind,
        /// Which one.
        id: SnapshotId,
        /// Where the bytes belong: behind those before, or 0, which begins a new one and gives up
        /// an unfinished one of the same kind.
        offset: u64,
        /// What to write.
        bytes: Bytes,
    },
    /// All of it was handed over: make it durable under its name; report `SnapshotDurable`, or
    /// `SnapshotFull`.
    FinishSnapshot {
        /// Whose work it is.
        kind: SnapshotKind,
        /// Which one.
        id: SnapshotId,
        /// Its length in bytes.
        length: u64,
    },
    /// Give up the unfinished snapshot of this kind, if there is one.
    AbandonSnapshot {
        /// Whose work it is.
        kind: SnapshotKind,
    },
    /// Read from a durable snapshot; report `SnapshotRead`.
    ReadSnapshot {
        /// Which one.
        id: SnapshotId,
        /// From where.
        offset: u64,
        /// How many bytes: the file has them, if it is there. May be 0.
        length: usize,
        /// For whom.
        reader: SnapshotReader,
    },
    /// A majority contradicts this node: nothing it says can be trusted. Note that durably, so that
    /// the directory doesn't serve again, and end the process; nothing of this turn leaves it.
    Diverged(Divergence),
    /// The log has commands in force that this build doesn't know: end the process; nothing of this
    /// turn leaves it.
    Outdated {
        /// The version in force.
        in_force: CommandSet,
        /// The newest that this build knows.
        known: CommandSet,
    },
    /// The log up to here is in a durable snapshot, and may go.
    CompactLog {
        /// The last entry that isn't needed.
        through: LogIndex,
    },
}
