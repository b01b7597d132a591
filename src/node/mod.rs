//! A node: Raft, the state machine and the client gateway put together. PURE.
//!
//! `(now, Input)` in, [`Effect`]s out: see [`Input`] and [`Effect`]. Two drivers stand around it,
//! the poll loop and the simulator, and neither decides anything.

mod effect;
mod input;
mod requests;
mod status;

pub use effect::Effect;
pub use input::{ClientInfo, Facts, Input, Room};
pub use requests::{Request, Requests};
pub use status::{Peer, Role, Status};
