//! The bounds of snapshots: when one is taken and how fast, on the disk, between peers, and in it.
//!
//! A part of [`super`], which names them all; checked against the others there. What they bound is in
//! `node/snapshots.rs`, `storage/snapshots.rs` and `proto/snapshot.rs`. Nothing is decided here.

use std::time::Duration;

use super::FRAME_BYTES;

/// Bytes of log that make a snapshot due, unless configured.
pub const SNAPSHOT_LOG_BYTES: u64 = 64 * 1024 * 1024;
/// The least and the most that may be configured.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 64 * 1024;
/// See [`SNAPSHOT_LOG_BYTES_MIN`].
pub const SNAPSHOT_LOG_BYTES_MAX: u64 = 1 << 40;
/// Bytes of one slice of a snapshot that is being taken; one a turn.
pub const SNAPSHOT_SLICE_BYTES: usize = 64 * 1024;

/// How fast one is taken, in bytes a second: the log is synced on the same disk, and each of its
/// syncs waits for what the disk has yet to write.
pub const SNAPSHOT_BYTES_PER_S: u64 = 32 * 1024 * 1024;
/// The same while nothing is written to the log: nobody waits for a sync.
pub const SNAPSHOT_IDLE_BYTES_PER_S: u64 = 128 * 1024 * 1024;
/// Of the log that makes a snapshot due, one part in so many may come while it is taken; where more
/// does, it is taken without a pause.
pub const SNAPSHOT_PACE_SHARE: u64 = 2;
/// Slices that were made late are made good by up to so much: a poll wakes up late by a millisecond
/// or two.
pub const SNAPSHOT_PACE_SLACK: Duration = Duration::from_millis(4);

/// Bytes of one write of it, but for the last: whole blocks of the disk, which need not go through
/// the page cache.
pub const SNAPSHOT_WRITE_BYTES: usize = 256 * 1024;

/// Bytes of it that were handed to the driver and are not written yet. At the bound no slice is
/// made. One write may go beyond it.
pub const SNAPSHOT_WRITE_AHEAD_BYTES: u64 = 256 * 1024;

/// Bytes of a snapshot that are loaded in one turn.
pub const SNAPSHOT_LOAD_BYTES: usize = 256 * 1024;

/// After a full disk a snapshot is not begun again for so long.
pub const SNAPSHOT_RETRY: Duration = Duration::from_secs(5);

/// One piece of a snapshot between peers, in bytes, at most. A longer one from outside closes the
/// connection.
pub const SNAPSHOT_CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of a snapshot that are under way to one follower, at most. At the bound nothing more is read
/// from the file until the follower has written what it got; a follower drops what is sent beyond it.
pub const SNAPSHOT_WINDOW_BYTES: u64 = 1024 * 1024;
/// The least, and what a transfer begins with: heartbeats stand behind it in the connection's
/// buffer, for a twentieth of a second where the link carries 20 KiB in one.
pub const SNAPSHOT_WINDOW_BYTES_MIN: u64 = 1024;

/// Bytes of an unfinished snapshot that were handed to the storage and are not yet written, for each
/// kind. Who hands over more has not waited as it must: that is a panic.
pub const SNAPSHOT_QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// Pieces of snapshots that wait to be read: more than all members' windows together. At the bound
/// further ones are dropped, and asked for again.
pub const SNAPSHOT_READS: usize = 1024;

/// An unfinished snapshot is synced whenever so many bytes were written. Where it goes through the
/// page cache no more than this ever stands in the disk's queue in front of the log's writes.
pub const SNAPSHOT_SYNC_BYTES: u64 = 4 * 1024 * 1024;

/// Records of one block of a snapshot, in bytes; a single larger record has a block of its own.
pub const SNAPSHOT_BLOCK_BYTES: usize = 64 * 1024;

/// One record of a snapshot, in bytes: a frame brought its key, and a frame its value. A larger
/// declared length is damage.
pub const SNAPSHOT_RECORD_BYTES: usize = 2 * FRAME_BYTES;

/// A snapshot's header in bytes: its membership and its gateways stay far below. A larger declared
/// length is damage.
pub const SNAPSHOT_HEADER_BYTES: usize = 64 * 1024;

/// Records that one slice of a snapshot in the making looks at, whatever its bytes.
pub const SNAPSHOT_SLICE_KEYS: usize = 2048;

/// Memory of old records that wait for the next slices of a snapshot in the making. At the bound a
/// node applies nothing more until slices have written some of them.
pub const SNAPSHOT_BACKLOG_BYTES: usize = 64 * 1024 * 1024;
