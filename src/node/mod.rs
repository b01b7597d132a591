//! A node: Raft, the state machine and the client gateway put together. PURE.
//!
//! `(now, Input)` in, [`Effect`]s out: see [`Input`], [`Effect`], and [`Node::handle`]. Two drivers
//! stand around it, the poll loop and the simulator, and neither decides anything.

mod apply;
mod clients;
mod connection;
mod effect;
mod gateway;
mod handshake;
mod held;
mod info;
mod input;
#[expect(clippy::module_inception, reason = "the file holds Node and nothing else")]
mod node;
mod pipeline;
mod reads;
mod requests;
mod status;

pub use effect::Effect;
pub use handshake::Verdict;
pub use input::{ClientInfo, Facts, Input};
pub use node::Node;
pub use requests::{Request, Requests};
pub use status::{Peer, Role, Status};
