//! Everything that a node can want done.
//!
//! Effects are carried out in list order and none is conditional: what must wait for the disk is
//! withheld by the core until `Persisted` says so.

use crate::proto::entry::LogWrite;
use crate::proto::message::Packet;
use crate::proto::reply::{Protocol, Reply};
use crate::types::{ClientId, WalSeq};

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
    /// Close a client's connection once its replies have been written.
    Close {
        /// The client.
        client: ClientId,
    },
}
