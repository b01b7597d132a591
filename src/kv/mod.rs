//! The state machine: the store, and the commands that read and change it. PURE.
//!
//! A reader begins with [`store`], then [`command`] (the one table), then the themed files that
//! hold the commands: [`strings`] with [`set`], [`counters`], [`compare`], [`keys`], [`expiry`],
//! [`connection`], and ends with [`gateways`] (exactly once) and [`machine`]; [`capture`] takes
//! snapshots of it all, and [`loader`] reads them. Called by `node/`. Knows nothing of Raft: it is
//! given what the log says.

pub mod admin;
pub mod capture;
pub mod command;
pub mod compare;
pub mod connection;
pub mod counters;
mod digest;
pub mod error;
pub mod expiry;
pub mod export;
pub mod gateways;
pub mod glob;
mod graveyard;
mod heads;
pub mod introspection;
pub mod keys;
pub mod loader;
pub mod machine;
pub mod set;
pub mod store;
pub mod strings;
mod tree;
