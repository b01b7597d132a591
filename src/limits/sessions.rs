//! The bounds of what the state machine keeps for clients beside keys: sessions and leases.
//!
//! A part of [`super`], which names them all; checked against the others here. What they bound is
//! in `kv/sessions.rs` and `kv/leases.rs`; every node of a cluster has to have the same. Nothing is
//! decided here.

use super::{KEY_BYTES, SNAPSHOT_BLOCK_BYTES, SNAPSHOT_RECORD_BYTES};

/// A session whose client has been silent for so long is over, by the cluster clock. A command that
/// comes later is answered `-INDOUBT`, and is not carried out.
pub const SESSION_IDLE_MS: u64 = 3_600_000;

/// A session's use is noted once in so many milliseconds: it may be over earlier by that much.
pub const SESSION_TOUCH_MS: u64 = 1000;

/// Sessions of a cluster. At the bound the one that was silent for longest is over when another is
/// opened.
pub const SESSIONS: usize = 16_384;

/// Bytes of the token under which a client opens a session. A longer one is an error.
pub const SESSION_TOKEN_BYTES: usize = 64;

/// Replies that are kept for one session. At the bound the oldest goes: who asks for it again is
/// answered `-INDOUBT`.
pub const SESSION_REPLIES: usize = 1024;

/// Bytes of these, as they are kept. At the bound the oldest go; a reply that is larger by itself
/// is not kept.
pub const SESSION_REPLY_BYTES: usize = 1024 * 1024;

/// What keeping one reply costs beside its bytes.
pub const SESSION_REPLY_COST: usize = 16;

/// Bytes of the replies of all sessions. At the bound the sessions that were silent for longest are
/// over.
pub const SESSIONS_BYTES: usize = 16 * 1024 * 1024;

/// Sessions whose hour is over that one entry removes; nobody sees the difference.
pub const EXPIRE_SESSIONS: usize = 256;

/// Replies of a session in each other: a transaction in a session has three. What is deeper is
/// damage.
pub const KEPT_REPLY_DEPTH: usize = 16;

/// Leases of a cluster. At the bound no other is granted.
pub const LEASES: usize = 65_536;

/// Keys that are attached to one lease: revoking it deletes them all at once. At the bound another
/// one is an error.
pub const LEASE_KEYS: usize = 10_000;

/// Memory of all leases and of who is attached to them, by the store's estimate. At the bound
/// attaching another key is an error.
pub const LEASES_BYTES: usize = 24 * 1024 * 1024;

const _: () = assert!(LEASES * 160 < LEASES_BYTES);
const _: () = assert!(LEASES_BYTES + SNAPSHOT_BLOCK_BYTES < SNAPSHOT_RECORD_BYTES);
const _: () = assert!(SESSION_REPLY_BYTES + SESSION_REPLY_COST <= SESSIONS_BYTES);
const _: () = assert!(SESSION_TOUCH_MS < SESSION_IDLE_MS);
const _: () = assert!(SESSION_REPLY_BYTES + SNAPSHOT_BLOCK_BYTES <= SNAPSHOT_RECORD_BYTES);
const _: () = assert!(KEY_BYTES + SNAPSHOT_BLOCK_BYTES <= SNAPSHOT_RECORD_BYTES);
