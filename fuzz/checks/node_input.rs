//! What must hold of a `Node` whatever happens to it: it never panics, promises nothing that is
//! not on its disk, answers each command once, and never spins. Called by the fuzz target and by
//! the replay of its corpus in `cargo test`.
//!
//! The first byte chooses between two worlds. In the *hostile* one a single real node stands among
//! members that send what they like. In the *honest* one all members are real, and the bytes are
//! the schedule: what arrives, is lost, doubled, becomes durable, and who is restarted; there the
//! global invariants hold as well, and once all is well again everyone agrees and serves.
//!
//! No Raft survives a member that lies about what the log holds, so that much is never forged:
//! a batch in the node's own name and boot that it did not make, or with other commands (its
//! gateway answers its clients by what it made); two different entries of one index and term (the
//! log-matching property is what AppendEntries rests on); a membership that admits a member at
//! another index than its own entry's (that index is what tells a gateway from its predecessor);
//! and a connection whose hello the node has refused. All else is.

#[path = "node_input/commands.rs"]
mod commands;
#[path = "node_input/disk.rs"]
mod disk;
#[path = "node_input/forge.rs"]
mod forge;
#[path = "node_input/reader.rs"]
mod reader;
#[path = "node_input/server.rs"]
mod server;
#[path = "node_input/world.rs"]
mod world;

use world::World;
#[allow(unused_imports, reason = "the replay builds its seeds from them, the target does not")]
pub use world::{FLOOD, SNAPSHOTS, Step};

/// Steps of one input. More would only make the fuzzer slow.
const STEPS: usize = 400;

/// How far an input came, so that its replay can tell that it came anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// A digest of all that the nodes did: the same for the same bytes.
    pub trace: u32,
    /// Terms in which a real node led.
    pub leaders: usize,
    /// Entries that the node that is furthest has applied.
    pub applied: u64,
    /// Commands that were answered.
    pub replies: u64,
    /// Forged messages that a node counted as such.
    pub refused: u64,
    /// Servers that have a snapshot.
    pub snapshots: usize,
    /// Snapshots that were sent, verified and made durable.
    pub installs: u64,
}

/// Runs what the bytes say.
pub fn check(data: &[u8]) -> Seen {
    let mut reader = reader::Reader::new(data);
    let mut world = World::new(&mut reader);
    for _ in 0..STEPS {
        if reader.is_empty() {
            break;
        }
        world.step(&mut reader);
    }
    world.finish();
    world.seen()
}
