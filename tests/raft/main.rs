//! Whole clusters in memory, with a virtual clock and a network that loses, delays and doubles:
//! elections, snapshots, changes of members.
//!
//! The rules of a single server are in `raft_paper`, real processes in `cluster`.

mod cluster;
mod membership;
mod membership_links;
mod membership_storm;
mod memory;
mod snapshots;
