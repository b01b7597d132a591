//! Consensus: the Raft of Ongaro's dissertation, with pre-vote and check-quorum. PURE.
//!
//! Read in this order: [`membership`] (what is a majority), [`log`] (the entries), [`durability`]
//! (which of them are on disk), [`server`](Raft) (the state, and becoming), `election`,
//! `replication` (the leader's side), `append` (the follower's), [`progress`] (one follower as the
//! leader sees it), `snapshot` (what they replace, and the follower's side of installing one),
//! `install` with [`sending`] and `flow` (the leader's side), `read` (linearizable reads), `transfer` (handing
//! over), [`change`] and `catch_up` (members come and go), [`clock`].
//!
//! Nothing is sent while an input is handled: inputs change the state, and [`Raft::flush`] at the
//! end of a turn derives from it one write and what each peer has to be told. So a turn with a
//! hundred inputs costs one write and one message a peer.

mod append;
mod catch_up;
pub mod change;
pub mod clock;
pub mod durability;
mod election;
mod flow;
mod install;
pub mod log;
pub mod membership;
pub mod progress;
mod read;
mod replication;
pub mod sending;
mod server;
mod snapshot;
mod transfer;

pub use server::{Action, Founder, Raft, RoleName, Setup};
pub use snapshot::{Piece, Snapshot};
