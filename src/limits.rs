//! Every bound of the program, and the relations between them, checked at compile time.
//!
//! What happens at a bound is written beside it. Nothing else in the crate writes a bound as a bare
//! number. Those of who is told of changes are in `limits/listeners.rs`, of sessions and leases in
//! `limits/sessions.rs`, of snapshots in `limits/snapshots.rs`, and named like all others.

use std::time::Duration;

mod listeners;
mod sessions;
mod snapshots;

pub use listeners::*;
pub use sessions::*;
pub use snapshots::*;

/// A key's length in bytes. A longer one is an error reply; the connection stays.
pub const KEY_BYTES: usize = 64 * 1024;

/// A value's length in bytes, and that of any one argument. A longer bulk is a protocol error and
/// closes the connection, as in Redis with `proto-max-bulk-len`.
pub const VALUE_BYTES: usize = 8 * 1024 * 1024;

/// An inline command's line in bytes. A longer one without an end is a protocol error.
pub const INLINE_BYTES: usize = 64 * 1024;

/// Arguments of one command. A larger count is a protocol error; nothing is reserved for it.
pub const ARGS: usize = 1024 * 1024;

/// Arguments of one command that is carried out, and of all commands of a transaction together. More
/// are an error: a command takes effect at one moment, and a key takes up to a microsecond, for
/// which the loop has to let everybody else wait.
pub const COMMAND_ARGS: usize = 32 * 1024;

/// What an argument counts beside its bytes, where the commands of a turn are bounded by bytes.
pub const ARG_COST_BYTES: usize = 64;

/// One command with all its arguments, encoded. A larger one is an error reply; the connection
/// stays. Below the frame, so that a batch of one command always fits an entry and a frame.
pub const COMMAND_BYTES: usize = 12 * 1024 * 1024;

/// A frame's payload in bytes. A larger declared length closes the connection before anything is
/// allocated.
pub const FRAME_BYTES: usize = 16 * 1024 * 1024;

/// One batch's payload in bytes: the gateway begins a new batch before it would be exceeded.
pub const BATCH_BYTES: usize = 13 * 1024 * 1024;

/// Entries of one AppendEntries in bytes: at least one entry is always sent, so the bound is
/// `APPEND_BYTES` or a single entry, whichever is larger.
pub const APPEND_BYTES: usize = 1024 * 1024;

/// Entries of one AppendEntries.
pub const APPEND_ENTRIES: usize = 4096;

/// Bytes of entries that are under way to one follower. At the bound nothing more is sent to it
/// until it acknowledges.
pub const PEER_WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// AppendEntries with entries that are under way to one follower; the same at the bound.
pub const PEER_WINDOW_MESSAGES: usize = 256;

/// What an entry of the log takes in memory beside its payload, in bytes: its place in the log and
/// the allocator's share. Whatever counts the log's bytes counts it.
pub const LOG_ENTRY_BYTES: usize = 96;

/// Bytes of the log that stay in memory once they were applied, for followers that lag a little: a
/// quarter of what makes a snapshot due, but no more than this; or a share of the newest snapshot's
/// bytes if that is more. Who lags further is sent a snapshot; but for a follower that was moving
/// until a while ago ([`INSTALL_PATIENCE`]) its leader keeps more, see [`LOG_INSTALL_TAILS`].
pub const LOG_TAIL_BYTES: u64 = 16 * 1024 * 1024;
/// See [`LOG_TAIL_BYTES`].
pub const LOG_TAIL_SHARE: u64 = 4;
/// See [`LOG_TAIL_BYTES`].
pub const LOG_STATE_SHARE: u64 = 32;

/// While a follower is being sent a snapshot, or takes the entries behind it, what it will need next
/// stays for it, up to so many times that, or the snapshot's own bytes if that is more: a follower
/// whose link brings it the snapshot before as much was written again catches up. One that takes
/// longer is sent the next snapshot after this one.
pub const LOG_INSTALL_TAILS: usize = 8;

/// A follower that has taken nothing for so long is waited for no more: neither a snapshot nor
/// entries stay for it.
pub const INSTALL_PATIENCE: Duration = Duration::from_secs(30);

/// The pause before a snapshot is sent again to a follower that has refused one; it grows up to the
/// maximum while it does.
pub const INSTALL_RETRY_MIN: Duration = Duration::from_millis(250);
/// See [`INSTALL_RETRY_MIN`].
pub const INSTALL_RETRY_MAX: Duration = Duration::from_secs(15);

/// A follower that doesn't say what it has of a snapshot is asked again after an election timeout,
/// which is doubled so many times at most while it is silent.
pub const INSTALL_ASK_DOUBLINGS: u32 = 4;

/// After a full disk a follower takes no piece of a snapshot for so long.
pub const INSTALL_FULL_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of the log that a node holds while it loads a snapshot and can apply none of it, or the
/// snapshot's own bytes if that is more. At the bound it takes no further entries, from its leader
/// or from clients, until it has loaded; what it has stays.
pub const LOADING_LOG_BYTES: usize = 64 * 1024 * 1024;

/// Entries that one turn discards from memory; what is left goes in the next ones.
pub const COMPACT_ENTRIES: u64 = 4096;

/// Bytes of one page of the store's records, or of their index: the piece of memory that they grow and
/// shrink by.
pub const STORE_PAGE_BYTES: usize = 32 * 1024;

/// Keys of a batch that are looked up together in advance, so that the processor waits for their
/// memory at once. What a batch's later commands need is brought near when it is their turn: all of
/// a large batch would not fit the near caches.
pub const WARMED_KEYS: usize = 64;

/// Keys whose memory one turn gives back: of a store that was emptied, of a state that a snapshot is
/// about to replace, of a snapshot that was given up. What is left goes in the next turns.
pub const DISCARD_KEYS: usize = 2048;
/// The same in bytes of values, which take their time too; one value may go beyond it.
pub const DISCARD_BYTES: usize = 32 * 1024 * 1024;

/// Encoded bytes waiting in one peer connection's send buffer. A connection past it is closed: the
/// peer isn't reading, and Raft sends again what matters.
pub const PEER_OUTPUT_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of commands that gather over several turns while a leader's last entry is on its way to the
/// disk. With that many there is enough to do at once: the batch is ended, and the next one begins.
pub const GATHER_BYTES: usize = 64 * 1024;

/// Bytes of numbered batches that one gateway keeps until they are applied. At the bound new
/// commands wait, unnumbered, and client sockets are not read.
pub const GATEWAY_WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// The same in batches.
pub const GATEWAY_WINDOW_BATCHES: usize = 4096;

/// Bytes of commands that wait at a gateway without a number (no leader is known, or the window is
/// full). At the bound client sockets are not read; commands that were read already still enter.
pub const GATEWAY_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Read groups (one a turn) that wait at a gateway for their read index. At the bound client
/// sockets are not read.
pub const GATEWAY_READ_GROUPS: usize = 4096;

/// Messages that wait for a term or a vote to be durable. At the bound further ones are dropped,
/// like lost ones: whoever asked asks again.
pub const WITHHELD_MESSAGES: usize = 1024;

/// Read requests of followers that wait on the leader for their round. At the bound further ones
/// are dropped: the follower asks again on its timer.
pub const LEADER_READ_REQUESTS: usize = 65_536;

/// Payload bytes that one turn applies; what is left is applied in the next turn, so that a node
/// with much to catch up on still answers its peers. Small commands take some 30 bytes and half a
/// microsecond each.
pub const APPLY_BYTES: usize = 512 * 1024;

/// Bytes of the commands that all clients of a node have queued between MULTI and EXEC, and of the
/// keys that they watch. A command that would exceed it is an error, and its transaction is aborted.
pub const TRANSACTIONS_BYTES: usize = 64 * 1024 * 1024;

/// What a watched key counts towards [`TRANSACTIONS_BYTES`] beside its bytes.
pub const WATCHED_KEY_BYTES: usize = 64;

/// Keys that one call of SCAN looks at, whatever COUNT asks for, but for those up to the next place
/// where a page may end.
pub const SCAN_KEYS: usize = 10_000;

/// Keys that KEYS in a transaction looks at, all at one moment. Where there are more that begin as its
/// pattern does, it is an error.
pub const TRANSACTION_KEYS: usize = 65_536;

/// Keys in a reply to KRANGE. More are an error that names LIMIT.
pub const RANGE_REPLY_KEYS: usize = 65_536;

/// Bytes of a reply to KRANGE. A longer one is an error that names LIMIT.
pub const RANGE_REPLY_BYTES: usize = 16 * 1024 * 1024;

/// Keys that one KDEL may delete. More are an error that names LIMIT, and none is deleted.
pub const RANGE_DELETE_KEYS: usize = 65_536;

/// Cells of LCS's table, of four bytes each: the product of the two lengths. More are an error.
pub const LCS_CELLS: usize = 4 * 1024 * 1024;

/// Bytes of a number with a fraction, as Redis reads it. A longer one is no number.
pub const FLOAT_BYTES: usize = 5 * 1024;

/// Dead keys that applying one entry removes.
pub const EXPIRE_KEYS: usize = 256;

/// A key whose deadline is past by so many milliseconds without an entry that says so has a leader
/// that stood still: reads wait for such an entry. Longer than an entry takes to be committed, so
/// that no read waits for a key that expires in the usual way.
pub const EXPIRY_OVERDUE_MS: u64 = 200;

/// A turn of the loop that takes longer than this, and than any before, is logged: while it lasts,
/// nobody is heard.
pub const LONG_TURN: Duration = Duration::from_millis(50);

/// Keys that one turn looks at for KEYS. Where there are more, its answer takes several turns.
pub const KEYS_SLICE: usize = 4 * 1024;

/// KEYS that take several turns and are under way; a further one is refused.
pub const LISTINGS: usize = 16;

/// Client connections, unless configured. Further ones get an error reply and are closed.
pub const CLIENTS: usize = 10_000;

/// Bytes of replies that wait for one client. A client past it is closed.
pub const CLIENT_OUTPUT_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of replies beyond which a client's commands are no longer read. Client libraries write a
/// whole pipeline before they read: one whose replies pass this while its commands fill the socket
/// waits for ever, so this leaves room for the pipelines that people write.
pub const CLIENT_OUTPUT_PAUSE_BYTES: usize = 16 * 1024 * 1024;

/// Commands of one client that are not yet answered. At the bound its socket is not read: behind
/// one that takes long, cheap ones would otherwise pile up without end.
pub const CLIENT_AWAITED_COMMANDS: u32 = 16 * 1024;

/// Bytes read from one socket in one turn.
pub const READ_BUDGET_BYTES: usize = 256 * 1024;

/// Connections accepted in one turn from one listener.
pub const ACCEPTS: usize = 256;

/// Bytes of commands that one turn of the loop gathers, each argument with its
/// [`ARG_COST_BYTES`]. At the bound the sockets that were not read are the first ones in the next
/// turn.
pub const TURN_BYTES: usize = 2 * 1024 * 1024;

/// The loop reads sockets through one buffer of this size, whatever their number.
pub const READ_SCRATCH_BYTES: usize = 64 * 1024;

/// Emptied output buffers that are kept for the next connection, and the size of the largest kept.
pub const SPARE_BUFFERS: usize = 64;
/// See [`SPARE_BUFFERS`].
pub const SPARE_BUFFER_BYTES: usize = 64 * 1024;

/// Clients that have only been told what they didn't ask for, and are written to in one turn: each
/// takes a system call of some microseconds. The others' turn comes next, behind new commands.
pub const TOLD_CLIENTS: usize = 64;

/// Clients that one look for idle ones examines; looks are this far apart.
pub const SWEEP_CLIENTS: usize = 1024;
/// See [`SWEEP_CLIENTS`].
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// A client counts as alive when a command of it is complete, or when this many bytes of one come
/// at once. Bytes that drip in one by one are not life: they would hold a connection for ever.
pub const CLIENT_PROGRESS_BYTES: usize = 1024;

/// How long a closed client may go without reading any of its last replies, and how long it may
/// take to close in its turn.
pub const CLIENT_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long accepting rests when the kernel has no memory or no descriptor for it.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections on the peer port, those without a hello included. Further ones are closed.
pub const PEER_CONNECTIONS: usize = 128;

/// How long a connection to a peer may take to be established.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause before a peer is dialled again; it grows up to the maximum while that fails.
pub const DIAL_RETRY_MIN: Duration = Duration::from_millis(50);
/// See [`DIAL_RETRY_MIN`].
pub const DIAL_RETRY_MAX: Duration = Duration::from_millis(250);

/// A peer connection whose bytes are not acknowledged for so long is given up by the kernel, so
/// that a healed network is met by a new connection and not by an old one's long retransmission
/// pause.
pub const PEER_SILENCE: Duration = Duration::from_secs(2);

/// How long a clean stop may take before the process ends anyway.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the process's own figures are taken, and a full disk is looked at again.
pub const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);

/// Peers of one cluster, learners included.
pub const MEMBERS: usize = 31;

/// Servers that are linked without being members by this server's own log: it waits to be let in, or
/// they know a later membership. At the bound a further one's hello is refused.
pub const GUESTS: usize = MEMBERS;

/// An address (`host:port`) in bytes: its length is one byte of a membership entry.
pub const ADDRESS_BYTES: usize = 255;

/// The words of one request about the membership, and the text of its answer, in bytes. A longer
/// request is an error reply.
pub const ADMIN_BYTES: usize = 8 * 1024;

/// Requests about the membership that wait at one node for the leader, and at the leader for their
/// turn. At the bound further ones are an error reply.
pub const ADMIN_REQUESTS: usize = 64;

/// Answered requests that a leader remembers, so that a copy of one that comes late gets the same
/// answer. What was forgotten may be carried out again: asking for what is so changes nothing.
pub const ADMIN_ANSWERS: usize = 256;

/// Lines for the log that wait for the driver. At the bound further ones are dropped.
pub const NOTICES: usize = 16;

/// The pause before a peer that doesn't know this server as a member is dialled again.
pub const DIAL_RETRY_STRANGER: Duration = Duration::from_secs(2);

/// The pause before a server dials a peer of a smaller id for the first time: as a rule the smaller
/// id dials, and has done so by then.
pub const DIAL_BY_LARGER: Duration = Duration::from_millis(300);

/// What was seen of a member on another data directory counts for so long. It tries to connect more
/// often than that.
pub const STRAY_LAPSE: Duration = Duration::from_secs(5);

/// How long a server waits that is to found a cluster by itself: should it have lost its disk, the
/// members of the cluster that it founded before dial it within this time.
pub const FOUNDING_ALONE: Duration = Duration::from_millis(600);

/// The pause between two attempts of a new server to be let in.
pub const JOIN_RETRY: Duration = Duration::from_secs(1);

/// How long a new connection may take to say its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster's name in bytes. The configuration refuses a longer one; a hello with one closes the
/// connection.
pub const CLUSTER_NAME_BYTES: usize = 64;

/// The explanation in a refused hello, in bytes. What is longer is cut when it is written; a longer
/// one from outside closes the connection.
pub const REFUSAL_BYTES: usize = 256;

/// A frame decoder keeps its buffer for the next frame up to this size; a larger one is given back
/// after its frame, so that one big value doesn't stay on a connection's account.
pub const FRAME_BUFFER_KEPT_BYTES: usize = 16 * 1024;

/// Arrays within arrays of a reply that a client reads. A deeper one is a protocol error.
pub const REPLY_DEPTH: usize = 32;

/// One reply that a client reads, in bytes. A larger one is a protocol error.
pub const REPLY_BYTES: usize = 512 * 1024 * 1024;

/// Commands that a client sends ahead of their replies, in bytes; a single larger one goes alone.
/// More could wedge it against a server that stops reading until its replies are read.
pub const CLIENT_PIPELINE_BYTES: usize = 64 * 1024;

/// Bytes of an error reply's echoed input.
pub const ECHO_BYTES: usize = 128;

/// A log segment's size, unless configured.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The smallest and largest segment that may be configured.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// See [`SEGMENT_BYTES_MIN`].
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// A segment is a whole number of these, because direct writes go by whole blocks.
pub const SEGMENT_BYTES_MULTIPLE: u64 = 4096;

/// A log record's payload in bytes: a whole entry, as it may arrive from a peer. A larger declared
/// length is a bad record; nothing is allocated by it.
pub const RECORD_BYTES: usize = FRAME_BYTES;

/// Bytes of one log write, unless a single [`LogWrite`](crate::proto::entry::LogWrite) is larger.
/// What else is gathered goes into the next one.
pub const LOG_WRITE_BYTES: u64 = 32 * 1024 * 1024;

/// How far ahead of its last record the log is filled with zeros. Once that is reached nothing more
/// is filled, so that an idle node writes nothing.
pub const FILL_AHEAD_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes of one slice of that filling; one is under way at a time.
pub const FILL_SLICE_BYTES: usize = 512 * 1024;

/// Bytes of a new directory's first segment that are filled before the node starts.
pub const FILL_AT_OPEN_BYTES: u64 = 256 * 1024;

/// The next segment is created once the current one has less than this left: long before it is
/// needed, but an empty node doesn't hold a second segment for nothing.
pub const SEGMENT_PREPARE_BYTES: u64 = 32 * 1024 * 1024;

/// With a full disk (the next segment cannot be created) growing commands are refused once the log
/// has less than this left, or half a segment if that is less. Above the exhausted bound by more
/// than one turn's batch and one frame, so that what was accepted before the refusal still fits.
pub const LOG_SCARCE_BYTES: u64 = 24 * 1024 * 1024;

/// With a full disk nothing but hard states is appended once the log has less than this left, or
/// an eighth of a segment if that is less: the reserve in which terms and votes still fit.
pub const LOG_EXHAUSTED_BYTES: u64 = 1024 * 1024;

/// Snapshots that a data directory keeps: the newest, and one that can take its place. Those before
/// them are removed once a new one is durable.
pub const SNAPSHOTS_KEPT: usize = 2;

/// The space of a file that is no longer wanted is given back in steps of so many bytes, if it is
/// larger: freeing a gigabyte at once would keep the log's syncs waiting.
pub const SWEEP_STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Peers whose newest process a data directory remembers, past members included. At the bound the
/// hello of a new one is refused.
pub const KNOWN_PEERS: usize = 1024;

/// The same for servers that are no members by this server's own log: they leave room for members.
pub const KNOWN_STRANGERS: usize = KNOWN_PEERS - 4 * MEMBERS;

/// Damaged directories that are kept beside each other. A disk that goes bad once more than this is
/// not used until its operator has looked at them. Of damaged snapshots that others have replaced
/// the newest ones are kept, so many of them.
pub const DAMAGED_KEPT: usize = 4;

/// Characters of the reason that a meta file keeps for a directory that was set aside. A longer one
/// is cut.
pub const ASIDE_REASON_CHARS: usize = 512;

/// A meta file's length in bytes. A longer one is corrupt.
pub const META_BYTES: usize = 256 * 1024;

/// How long a start waits for the data directory's lock: the kernel may still be ending the disk
/// writes of a process that was killed a moment ago.
pub const LOCK_WAIT: Duration = Duration::from_millis(800);

/// What may be configured as an election timeout or a heartbeat, in milliseconds: below, a busy
/// machine's own pauses are elections; above, a dead leader is no news.
pub const ELECTION_TIMEOUT_MS_MIN: u64 = 10;
/// See [`ELECTION_TIMEOUT_MS_MIN`].
pub const ELECTION_TIMEOUT_MS_MAX: u64 = 60_000;

/// The longest request timeout that may be configured, in milliseconds.
pub const REQUEST_TIMEOUT_MS_MAX: u64 = 3_600_000;

/// The longest idle timeout that may be configured, in milliseconds.
pub const IDLE_TIMEOUT_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// The most client connections that may be configured: each costs a file descriptor, and Linux
/// allows a process about a million of them (`fs.nr_open`).
pub const CLIENTS_MAX: usize = 1_000_000;

/// File descriptors that a node needs beside its clients': listeners, peers, segments, snapshots,
/// the ring, and some to spare.
pub const SPARE_DESCRIPTORS: u64 = 256;

/// Nodes compare what they have applied at every so many entries of the log ...
pub const CHECKPOINT_ENTRIES: u64 = 4096;
/// ... and at the first entry of every so many milliseconds of the cluster's clock. A comparison is
/// one message of some eighty bytes to each member.
pub const CHECKPOINT_MS: u64 = 1000;
/// So many checkpoints are kept of this node and of each member, 16 bytes each; the oldest goes. A
/// member that lags by more is compared once it has caught up.
pub const CHECKPOINTS: usize = 64;

/// The largest piece of a snapshot that RAFT EXPORT answers with.
pub const EXPORT_PIECE_BYTES: usize = 256 * 1024;
/// Pieces of snapshots that clients may have asked for and not got, over all clients; more are
/// refused.
pub const EXPORT_PIECES: usize = 16;
/// For so long after a piece was asked for, the next snapshot is not begun before so many times the
/// log that makes one due: what is being exported stays for longer. RAFT SNAPSHOT begins one.
pub const EXPORT_PATIENCE: Duration = Duration::from_secs(5);
/// See [`EXPORT_PATIENCE`].
pub const EXPORT_DEFERS: u64 = 4;

/// A restore, and the recovery of a lost quorum, raise the revision by so much, so that no number
/// that a client has ever seen as a fencing token comes again.
pub const RESTORE_REVISIONS: u64 = 1 << 40;

/// Entries of the slow log; `slowlog-max-len` is at most this, and the oldest goes first.
pub const SLOWLOG_ENTRIES: usize = 1024;
/// Entries that SLOWLOG GET shows where it doesn't say how many.
pub const SLOWLOG_SHOWN: usize = 10;
/// `slowlog-max-len` at the start.
pub const SLOWLOG_DEFAULT: usize = 128;
/// Arguments that an entry of the slow log keeps, and bytes of each, as in Redis.
pub const SLOWLOG_ARGUMENTS: usize = 32;
/// See [`SLOWLOG_ARGUMENTS`].
pub const SLOWLOG_ARGUMENT_BYTES: usize = 128;
/// Samples that LATENCY keeps of an event, one a second at most, as in Redis.
pub const LATENCY_SAMPLES: usize = 160;
/// Clients that wait in WAIT at once; a further one is answered at once.
pub const WAITING_CLIENTS: usize = CLIENTS;
/// Bytes that one client may send behind its own WAIT, SAVE or DEBUG SLEEP; past it is cut off.
pub const HELD_CLIENT_BYTES: usize = 16 * 1024 * 1024;
/// The same of all clients; whoever passes it is cut off.
pub const HELD_BYTES: usize = 4 * HELD_CLIENT_BYTES;
/// The longest DEBUG SLEEP, in seconds.
pub const DEBUG_SLEEP_S: f64 = 60.0;
/// The longest CLIENT PAUSE that is kept, in milliseconds; a longer one is cut: 24 days.
pub const PAUSE_MS_MAX: u64 = 1 << 31;

const _: () = assert!(HELD_CLIENT_BYTES >= FRAME_BYTES);
const _: () = assert!(EXPORT_PIECES * EXPORT_PIECE_BYTES < CLIENT_OUTPUT_BYTES);
const _: () = assert!(EXPORT_PIECE_BYTES <= VALUE_BYTES);
const _: () = assert!(CLIENTS <= CLIENTS_MAX);
const _: () = assert!(ELECTION_TIMEOUT_MS_MIN < ELECTION_TIMEOUT_MS_MAX);
const _: () = assert!(KEY_BYTES <= VALUE_BYTES);
const _: () = assert!(VALUE_BYTES < COMMAND_BYTES);
const _: () = assert!(COMMAND_BYTES + 64 * 1024 <= BATCH_BYTES);
const _: () = assert!(BATCH_BYTES + 64 * 1024 <= FRAME_BYTES);
const _: () = assert!(APPEND_BYTES <= FRAME_BYTES);
const _: () = assert!(FRAME_BYTES < PEER_OUTPUT_BYTES);
const _: () = assert!(SNAPSHOT_CHUNK_BYTES as u64 <= SNAPSHOT_WINDOW_BYTES);
const _: () = assert!(SNAPSHOT_WINDOW_BYTES_MIN <= SNAPSHOT_CHUNK_BYTES as u64);
const _: () =
    assert!(SNAPSHOT_WINDOW_BYTES + 1024 < (PEER_OUTPUT_BYTES - PEER_WINDOW_BYTES) as u64);
const _: () = assert!(INSTALL_RETRY_MIN.as_millis() < INSTALL_RETRY_MAX.as_millis());
const _: () = assert!(LOADING_LOG_BYTES > PEER_WINDOW_BYTES + BATCH_BYTES);
const _: () =
    assert!(MEMBERS * (SNAPSHOT_WINDOW_BYTES as usize / SNAPSHOT_CHUNK_BYTES + 2) < SNAPSHOT_READS);
const _: () = assert!(SNAPSHOT_LOG_BYTES_MIN <= SNAPSHOT_LOG_BYTES);
const _: () = assert!(SNAPSHOT_LOG_BYTES <= SNAPSHOT_LOG_BYTES_MAX);
const _: () = assert!(FRAME_BUFFER_KEPT_BYTES < FRAME_BYTES);
const _: () = assert!(VALUE_BYTES < REPLY_BYTES && CLIENT_OUTPUT_BYTES < REPLY_BYTES);
const _: () = assert!(PEER_WINDOW_BYTES < PEER_OUTPUT_BYTES);
const _: () = assert!(BATCH_BYTES <= GATEWAY_WINDOW_BYTES);
const _: () = assert!(GATHER_BYTES < BATCH_BYTES);
const _: () = assert!(COMMAND_BYTES + 64 * 1024 <= FRAME_BYTES);
const _: () = assert!(CLIENT_PIPELINE_BYTES <= READ_BUDGET_BYTES);
const _: () = assert!(CLIENT_OUTPUT_PAUSE_BYTES < CLIENT_OUTPUT_BYTES);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES && SEGMENT_BYTES <= SEGMENT_BYTES_MAX);
const _: () = assert!(DIAL_RETRY_MAX.as_millis() * 5 / 4 * 3 / 2 < FOUNDING_ALONE.as_millis());
const _: () = assert!(DIAL_RETRY_STRANGER.as_millis() * 5 / 4 < STRAY_LAPSE.as_millis());
const _: () = assert!(JOIN_RETRY.as_millis() < STRAY_LAPSE.as_millis());
const _: () = assert!(GUESTS + MEMBERS < PEER_CONNECTIONS);
const _: () = assert!(2 * MEMBERS < PEER_CONNECTIONS);
const _: () = assert!(READ_SCRATCH_BYTES <= READ_BUDGET_BYTES && READ_BUDGET_BYTES <= TURN_BYTES);
const _: () = assert!(BATCH_BYTES + 1024 <= RECORD_BYTES);
const _: () =
    assert!(FILL_SLICE_BYTES.is_multiple_of(4096) && FILL_AT_OPEN_BYTES.is_multiple_of(4096));
const _: () = assert!(SEGMENT_PREPARE_BYTES < SEGMENT_BYTES && FILL_AHEAD_BYTES < SEGMENT_BYTES);
const _: () = assert!(LOG_SCARCE_BYTES < SEGMENT_PREPARE_BYTES);
const _: () =
    assert!(LOG_EXHAUSTED_BYTES + BATCH_BYTES as u64 + 4 * 1024 * 1024 < LOG_SCARCE_BYTES);
const _: () = assert!(LOG_WRITE_BYTES < u32::MAX as u64);
const _: () = assert!(LOCK_WAIT.as_millis() < 1000);
const _: () = assert!(MEMBERS * 1024 < SNAPSHOT_HEADER_BYTES);
const _: () = assert!(KEY_BYTES + VALUE_BYTES < SNAPSHOT_RECORD_BYTES);
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(SEGMENT_BYTES_MULTIPLE));
const _: () = assert!(SEGMENT_BYTES.is_multiple_of(SEGMENT_BYTES_MULTIPLE));
