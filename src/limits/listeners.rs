//! The bounds of who is told of changes: watches, subscriptions and tracking.
//!
//! A part of [`super`], which names them all; checked against the others here. What they bound is
//! in `kv/history.rs` and `node/listeners.rs`. Nothing is decided here.

use std::time::Duration;

use super::{BATCH_BYTES, KEY_BYTES};

/// Memory of the last changes that a node keeps for watches, in bytes. The oldest go at the bound:
/// a watch that would begin before them, or hasn't read them yet, ends with COMPACTED. Larger than a
/// batch, so that no command that was written into one batch cuts whoever watches.
pub const HISTORY_BYTES: usize = 16 * 1024 * 1024;

/// Where nobody on this node is told of changes, so much of the state's estimated bytes is kept of
/// them, but at least the second figure: for who comes from a node that has gone. Memory that nobody
/// reads would be a tenth of what a million small records take.
pub const HISTORY_UNHEARD_SHARE: usize = 32;
/// See [`HISTORY_UNHEARD_SHARE`].
pub const HISTORY_UNHEARD_BYTES: usize = 1024 * 1024;

/// They go in pieces of so many bytes; a single larger change has one of its own.
pub const HISTORY_CHUNK_BYTES: usize = 64 * 1024;

/// Bytes that a client was told without asking and has not taken. At the bound a watcher is told no
/// more until it has; one slice may go beyond it.
pub const PUSH_WINDOW_BYTES: usize = 256 * 1024;

/// The same of notifications and invalidations, which can't be told later: at the bound the client is
/// closed.
pub const PUSH_LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// The same over all clients of a node, at which each behaves as if its own bound were reached.
pub const PUSHED_BYTES: usize = 256 * 1024 * 1024;

/// Bytes that a watcher is told at once. A single larger change may go beyond it.
pub const WATCH_SLICE_BYTES: usize = 128 * 1024;

/// Bytes of changes that one turn looks at for watchers that lag, all of them together.
pub const WATCH_CATCH_UP_BYTES: usize = 1024 * 1024;

/// What watches take on a node, in bytes: each this much beside its prefix. At the bound a further
/// one is an error reply.
pub const WATCHES_BYTES: usize = 32 * 1024 * 1024;
/// See [`WATCHES_BYTES`].
pub const WATCH_BYTES: usize = 256;

/// What a node remembers of the keys that tracking clients have read, in bytes, each key beside
/// [`WATCH_BYTES`]. At the bound keys are forgotten, and their readers told as if they had changed.
pub const TRACKED_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of keys that are forgotten at that bound, in one turn: one reader of them all is told in
/// one message, which must not be more than it may be told.
pub const TRACKED_FORGOTTEN_BYTES: usize = 4 * 1024 * 1024;

/// Prefixes of one CLIENT TRACKING. More are an error reply.
pub const TRACKED_PREFIXES: usize = 64;

/// A watcher that was told nothing for so long is told how far it is.
pub const WATCH_MARK_INTERVAL: Duration = Duration::from_secs(5);

const _: () = assert!(TRACKED_FORGOTTEN_BYTES + KEY_BYTES < PUSH_LIMIT_BYTES);
const _: () = assert!(HISTORY_UNHEARD_BYTES >= 2 * HISTORY_CHUNK_BYTES);
const _: () = assert!(HISTORY_UNHEARD_BYTES <= HISTORY_BYTES);
const _: () = assert!(BATCH_BYTES + 16 * HISTORY_CHUNK_BYTES <= HISTORY_BYTES);
