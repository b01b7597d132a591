//! The rules of Ongaro's dissertation, each as a test named after its section.
//!
//! Each test drives one `Raft` (now and then two) through its public interface, with a clock that
//! stands still unless a step moves it and a disk that is durable when a step says so. The scenarios
//! that need a whole cluster and chance are in `raft_cluster.rs`.

#[path = "raft_paper/bootstrap.rs"]
mod bootstrap;
#[path = "raft_paper/commitment.rs"]
mod commitment;
#[path = "raft_paper/detector.rs"]
mod detector;
#[path = "raft_paper/election.rs"]
mod election;
#[path = "raft_paper/lease.rs"]
mod lease;
#[path = "raft_paper/membership.rs"]
mod membership;
#[path = "raft_paper/membership_joint.rs"]
mod membership_joint;
#[path = "raft_paper/prevote.rs"]
mod prevote;
#[path = "raft_paper/reads.rs"]
mod reads;
#[path = "raft_paper/replication.rs"]
mod replication;
#[path = "raft_paper/snapshot.rs"]
mod snapshot;
#[path = "raft_paper/support.rs"]
mod support;
#[path = "raft_paper/transfer.rs"]
mod transfer;
