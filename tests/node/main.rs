//! One `Node`, driven through its inputs and effects, and small clusters of them in memory.
//!
//! Its peers, its disk, its clock and its clients are played by the tests: no sockets, no waiting.

mod divergence;
mod exactly_once;
mod hostile_peer;
mod lineage;
mod loading;
mod monitor;
mod operators;
mod redis_replies;
mod tracking;
mod transactions;
mod values;
mod versions;
mod watches;
