//! The simulator's modules.

pub mod linearizability;
