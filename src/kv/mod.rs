//! The state machine: the store, and the commands that read and change it. PURE.
//!
//! A reader begins with [`store`], which stands on `records` (`slab`, `tree`, `index`), then [`command`] (the one table), then the themed files that
//! hold the commands: [`strings`] with [`set`], [`exchange`], [`substrings`], [`bits`], [`lcs`],
//! [`counters`], [`compare`]; [`keys`], [`moves`], [`scan`], [`range`], [`object`], [`expiry`],
//! [`lease`] with [`leases`]; [`transaction`], [`txn`]; [`connection`], [`clients`], [`server`],
//! [`latency`], [`cluster`], [`pubsub`], [`monitor`], [`watches`], [`tracking`]; and ends with
//! [`gateways`] and [`sessions`] with [`in_session`] (exactly once) and [`machine`]; [`capture`] takes
//! snapshots of it all, and [`loader`] reads them; [`history`] keeps the last changes. Called by `node/`. Knows nothing of Raft: it is
//! given what the log says.

pub mod admin;
pub mod bits;
pub mod capture;
pub mod clients;
pub mod cluster;
pub mod command;
pub mod command_set;
pub mod compare;
pub mod connection;
pub mod counters;
mod decimal;
mod digest;
pub mod error;
pub mod exchange;
pub mod expiry;
pub mod export;
pub mod gateways;
pub mod glob;
mod graveyard;
mod heads;
pub mod history;
pub mod in_session;
mod index;
pub mod introspection;
pub mod keys;
mod lacking;
pub mod latency;
pub mod lcs;
pub mod lease;
pub mod leases;
pub mod loader;
pub mod luck;
pub mod machine;
pub mod manual;
pub mod monitor;
pub mod moves;
pub mod object;
mod packed;
mod pivots;
pub mod pubsub;
pub mod range;
mod record;
mod records;
pub mod scan;
pub mod server;
pub mod sessions;
pub mod set;
mod slab;
pub mod store;
pub mod strings;
pub mod substrings;
pub mod tracking;
pub mod transaction;
mod tree;
pub mod txn;
pub mod watches;
