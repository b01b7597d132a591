//! Everything that can happen to a node.
//!
//! Called by the drivers. A disk error is not among them: it ends the process and never reaches
//! the core. Malformed bytes are not either: the decoders reject them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::node::{Requests, SnapshotReader};
use crate::proto::message::Packet;
use crate::types::{
    ClientId, Incarnation, Room, ServerId, SnapshotId, SnapshotKind, WalSeq, WallClock,
};

/// One input. What it means is written at each; the order of the inputs of one turn is the
/// driver's: peers' messages, completions, then the tick, then the requests.
#[derive(Debug)]
pub enum Input {
    /// Time has passed. Handled after all readable sockets were drained, so that this process's own
    /// pause is never taken for a dead leader.
    Tick {
        /// This machine's wall clock.
        wall: WallClock,
    },
    /// A connection to a peer stands, and both hellos were accepted.
    PeerUp {
        /// The peer.
        peer: ServerId,
        /// Its data directory, by its hello.
        incarnation: Incarnation,
    },
    /// The connection to a peer is gone. News: see the failure detector in `raft/election.rs`.
    PeerDown {
        /// The peer.
        peer: ServerId,
    },
    /// A message from a peer.
    Receive {
        /// The message in its envelope.
        packet: Packet,
    },
    /// A client connected.
    ClientArrived {
        /// Its place with the driver.
        client: ClientId,
        /// What is known of it.
        info: ClientInfo,
    },
    /// All client commands of this turn, in arrival order; those of one connection stand together.
    Requests {
        /// The commands.
        batch: Requests,
    },
    /// A client's socket has taken all that it was told: pushes and replies.
    Drained {
        /// The client.
        client: ClientId,
    },
    /// A client's connection is gone; nothing more is sent to it.
    ClientGone {
        /// The client.
        client: ClientId,
    },
    /// Everything up to this number is durable.
    Persisted {
        /// The number of the newest durable [`Persist`](super::Effect::Persist).
        through: WalSeq,
    },
    /// Bytes of a snapshot were written, not durably.
    SnapshotWritten {
        /// Whose work it is.
        kind: SnapshotKind,
        /// Which one.
        id: SnapshotId,
        /// The offset behind the last byte.
        through: u64,
    },
    /// A snapshot is durable under its name.
    SnapshotDurable {
        /// Whose work it was.
        kind: SnapshotKind,
        /// Which one.
        id: SnapshotId,
    },
    /// The disk is full: a snapshot was given up.
    SnapshotFull {
        /// Whose work it was.
        kind: SnapshotKind,
        /// Which one.
        id: SnapshotId,
    },
    /// A piece of a snapshot was read.
    SnapshotRead {
        /// Which one.
        id: SnapshotId,
        /// From where.
        offset: u64,
        /// As many bytes as were asked for, or `None` where there is no such snapshot any more.
        bytes: Option<Bytes>,
        /// For whom.
        reader: SnapshotReader,
    },
    /// How much the log can still grow has changed.
    LogRoom {
        /// The new state.
        room: Room,
    },
    /// What the driver knows of the process, for `INFO`; about once a second.
    Observed {
        /// The figures.
        facts: Facts,
    },
    /// Everything of this turn was given: apply, answer, write and send what follows from it.
    EndOfTurn,
    /// The process is asked to end: hand over leadership, take no new commands, and be done soon.
    Stop,
}

/// A client's connection, for `CLIENT LIST`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientInfo {
    /// The number that `CLIENT ID` answers: 1, 2, 3 ... in this process.
    pub id: u64,
    /// The client's address.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local_address: SocketAddr,
}

/// The process's own figures, for `INFO`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Facts {
    /// `uring` or `thread`.
    pub storage_engine: &'static str,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// The process id.
    pub process_id: u32,
    /// The port that clients connect to.
    pub client_port: u16,
    /// User time that the process has used, in microseconds.
    pub cpu_user_us: u64,
    /// System time, likewise.
    pub cpu_system_us: u64,
    /// Connections accepted since the start.
    pub connections_accepted: u64,
    /// Connections refused because of the limit on clients.
    pub connections_refused: u64,
    /// Bytes read from clients.
    pub client_input_bytes: u64,
    /// Bytes written to clients.
    pub client_output_bytes: u64,
    /// Frames, hellos and messages from peers that were refused.
    pub peer_rejects: u64,
    /// How long the longest turn of the loop took since the start.
    pub longest_turn: Duration,
}
