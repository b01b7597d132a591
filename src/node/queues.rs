//! How full every queue of a node is, beside what it may hold.
//!
//! The bounds are those of `limits.rs`; what happens at each is written there. Read by the
//! simulator's checker *bounded* after every turn. Changes nothing.

use super::node::Node;
use crate::limits;

/// Bytes of commands that one turn takes in at most: the turn's own bound is looked at before each
/// command, and a command may be large.
const TURN_AT_MOST: usize = limits::TURN_BYTES + limits::COMMAND_BYTES;

/// A queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue {
    /// Its bound's name in `limits.rs`.
    pub name: &'static str,
    /// What it holds, in items or bytes.
    pub held: usize,
    /// What it may hold.
    pub most: usize,
}

impl Node {
    /// All queues that have a bound; for tests and checkers.
    pub fn queues(&self) -> [Queue; 19] {
        let queue = |name, held, most| Queue { name, held, most };
        let (batches, batch_bytes) = self.gateway.pending_held();
        let (waiting, waiting_bytes) = self.gateway.waiting_held();
        let (groups, group_bytes, remote) = self.reads.held();
        let (withheld, in_flight, in_flight_bytes) = self.raft.held();
        // What was parked behind reads may all go on in one turn.
        let waiting_most = 2 * (limits::GATEWAY_WAITING_BYTES + TURN_AT_MOST);
        let window_most = limits::GATEWAY_WINDOW_BYTES + TURN_AT_MOST;
        let write_ahead_most =
            limits::SNAPSHOT_WRITE_AHEAD_BYTES as usize + limits::SNAPSHOT_WRITE_BYTES;
        let received_most = limits::SNAPSHOT_WINDOW_BYTES as usize + limits::SNAPSHOT_CHUNK_BYTES;
        let listeners = &self.clients.listeners;
        let parked = &self.parked_bytes;
        let history = self.machine.store().history().bytes();
        // A single change that is larger than all that is kept is kept alone.
        let history_most = limits::HISTORY_BYTES + limits::FRAME_BYTES;
        // Each client may be told one turn's changes beyond the bound.
        let pushed_most = 2 * limits::PUSHED_BYTES;
        let in_flight_most = limits::PEER_WINDOW_BYTES + limits::FRAME_BYTES;
        [
            queue("GATEWAY_WINDOW_BATCHES", batches, limits::GATEWAY_WINDOW_BATCHES),
            queue("GATEWAY_WINDOW_BYTES", batch_bytes, window_most),
            queue("GATEWAY_WINDOW_BATCHES (waiting)", waiting, limits::GATEWAY_WINDOW_BATCHES),
            queue("GATEWAY_WAITING_BYTES", waiting_bytes + parked.behind_node(), waiting_most),
            queue("HELD_BYTES", parked.behind_themselves(), limits::HELD_BYTES),
            queue("GATEWAY_READ_GROUPS", groups, limits::GATEWAY_READ_GROUPS),
            queue("GATEWAY_WAITING_BYTES (reads)", group_bytes, waiting_most),
            queue("LEADER_READ_REQUESTS", remote, limits::LEADER_READ_REQUESTS),
            queue("WITHHELD_MESSAGES", withheld, limits::WITHHELD_MESSAGES),
            queue("PEER_WINDOW_MESSAGES", in_flight, limits::PEER_WINDOW_MESSAGES),
            queue("PEER_WINDOW_BYTES", in_flight_bytes, in_flight_most),
            queue("SNAPSHOT_WRITE_AHEAD_BYTES", self.snapshots.held(), write_ahead_most),
            queue("EXPORT_PIECES", self.exports.held(), limits::EXPORT_PIECES),
            queue("HISTORY_BYTES", history, history_most),
            queue("WATCHES_BYTES", listeners.watches.bytes(), limits::WATCHES_BYTES),
            queue(
                "WATCHES_BYTES (subscriptions)",
                listeners.subscribers.bytes(),
                limits::WATCHES_BYTES,
            ),
            queue(
                "TRACKED_BYTES",
                listeners.trackers.bytes(),
                limits::TRACKED_BYTES + limits::KEY_BYTES + limits::WATCH_BYTES,
            ),
            queue("PUSHED_BYTES", self.clients.pushed_bytes(), pushed_most),
            queue("SNAPSHOT_WINDOW_BYTES", self.raft.receiving_held(), received_most),
        ]
    }
}
