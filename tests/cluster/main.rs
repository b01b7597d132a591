//! Real nodes, three and more processes on loopback: what they promise, under kills, full and
//! failing disks, bad input and changes of members.
//!
//! `chaos` does it in network namespaces.

#[cfg(feature = "tools")]
mod backup;
mod bad_input;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod divergence;
mod full_disk;
mod harness;
mod idle;
mod kill_all;
mod kill_leader;
mod max_memory;
mod membership;
mod monitor;
mod paused_leader;
mod pubsub;
mod sessions;
mod shutdown;
mod slow_disk;
mod smoke;
mod snapshot;
mod sync_failure;
mod synced_writes;
mod watch;
mod wiped_node;
