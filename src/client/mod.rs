//! The blocking Rust client: one [`Client`] that stays usable while nodes come and go.
//!
//! Called by `tools/` and by programs that embed it; stands on `proto/` and std's sockets. Any node
//! serves any client (design page 2 §1), so it stays with the node that answers and goes to the
//! next when that one fails. Its writes are those of a client session, opened when the first one is
//! sent: one whose reply was lost is sent again and is done once. Where there is no session (the text
//! protocol, a server that knows none, [`Options::sessions`]) it never sends a write a second time
//! unless the first was surely not done: what it cannot know it returns as [`ClientError::InDoubt`].

mod command;
mod connection;
mod error;
mod failover;
mod pipeline;
mod request;
mod session;

pub use command::{encode_command, is_repeatable};
pub use connection::{Connection, Wire, is_endpoint};
pub use error::{ClientError, Doubt, ErrorReply, LinkError};
pub use failover::{Client, Options};
