//! A node: Raft, the state machine and the client gateway put together. PURE.
//!
//! `(now, Input)` in, [`Effect`]s out. Read in this order: [`Input`], [`Effect`], [`Node::handle`]
//! with the end of a turn, `pipeline` (requests come in), `gateway`, `reads` and `held` (they
//! wait), `apply` (they take effect), `clients` (they are answered), `connection`, `info`,
//! `server`, `operators`, `redirects`, `parameters`, `holding`, `slowlog`, `latencies` and `monitors`
//! (what a node answers by itself), `admin` and `plan` (who is to be a member), `snapshots` with `pace`
//! and `verify` (what replaces the log), `export` (what backups are made of), `divergence` (who has
//! come to something else), `handshake`, `lineage` and `admission` and
//! `versions` (who may connect, and which commands there are). Drivers stand
//! around it, the poll loop and the simulator, and neither of them decides anything.

mod admin;
mod admission;
mod apply;
mod clients;
mod connection;
mod divergence;
mod effect;
mod expiry;
mod export;
mod gateway;
mod handshake;
mod held;
mod holding;
mod info;
mod input;
mod latencies;
mod lineage;
mod listeners;
mod listings;
mod monitors;
#[expect(clippy::module_inception, reason = "the file holds Node and nothing else")]
mod node;
mod operators;
mod pace;
mod parameters;
mod parking;
mod pipeline;
mod plan;
mod queues;
mod reads;
mod redirects;
pub mod refound;
mod requests;
mod server;
mod slowlog;
mod snapshots;
mod status;
mod subscribers;
mod tracking;
mod transactions;
mod verify;
mod versions;
mod watches;

pub use effect::Effect;
pub use handshake::Verdict;
pub use input::{ClientInfo, Facts, Input};
pub use node::Node;
pub use queues::Queue;
pub use requests::{Request, Requests};
pub use status::{Peer, PeersStamp, Role, Status};

pub use crate::types::SnapshotReader;
