//! raftkv: a small, durable, strongly consistent key-value server.
//!
//! Three or five nodes keep the same data by Raft; clients speak Redis's protocol to any of them.
//! README.md says how to run it, ARCHITECTURE.md how the parts work together. The path through the
//! files, the same in all three:
//!
//! 1. [`types`] and [`limits`]: the vocabulary, one newtype for each kind of number, and every
//!    bound with what happens at it. Beside them [`testing`]: switches that break a rule on
//!    purpose, and marks on rare branches; nothing of it is in a shipped build.
//! 2. [`proto`]: the values that cross a wire or a disk (`entry`, `batch`, `message`, `reply`), and
//!    their bytes (`resp`, `frame`, `peer_message`, `record`, `snapshot`).
//! 3. [`raft`]: consensus, one file for each part of the dissertation, in the order that its front
//!    door gives.
//! 4. [`kv`]: the store, the one table of commands with the functions that run them, and what makes
//!    a batch count once.
//! 5. [`node`]: `raft` and `kv` put together with the clients' gateway: `Input` in, `Effect`s out;
//!    begin with `Node::handle`.
//! 6. [`storage`]: the data directory: the log made durable, and recovered after a stop of any
//!    kind; snapshot files, and the log's beginning let go behind them.
//! 7. [`event_loop`]: the server around a node: sockets, timers, files; begin with `turn`, which is
//!    one turn from top to bottom. What it and the simulator do alike is in [`driver`].
//! 8. [`config`]: node.toml, and every mistake in it named by its key; with `src/main.rs` and
//!    `src/daemon/`, the program raftkvd.
//! 9. [`client`]: the blocking client with its fail-over; on it stand `tools/rkv-cli/` and
//!    `tools/rkv-bench/`.
//! 10. [`sim`]: whole clusters in one thread, network, disks and clocks included, from one seed;
//!     `tools/rkv-sim/` runs it over many.
//! 11. `tests/`: the rules of the paper one by one (`raft_paper`), clusters in memory
//!     (`raft`, `sim`), real processes (`cluster`, `chaos`), real clients (`clients`), bad input.
//!
//! Imports go downwards only; `raft`, `kv`, `node` and `proto` are pure: no sockets, files, clocks
//! or threads. `tests/floors.rs` holds both.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod limits;
pub mod testing;
pub mod types;

pub mod config;
pub mod proto;

pub mod kv;
pub mod raft;

pub mod node;
pub mod storage;

pub mod driver;

pub mod client;
#[path = "loop/mod.rs"]
pub mod event_loop;
pub mod sim;
