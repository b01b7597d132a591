//! The rules of Ongaro's dissertation, each as a test named after its section.
//!
//! Each test drives one `Raft` (now and then two) through its public interface, with a clock that
//! stands still unless a step moves it and a disk that is durable when a step says so. The scenarios
//! that need a whole cluster and chance are in `raft/cluster.rs`.

mod bootstrap;
mod commitment;
mod detector;
mod election;
mod lease;
mod membership;
mod membership_joint;
mod prevote;
mod reads;
mod replication;
mod snapshot;
mod support;
mod transfer;
