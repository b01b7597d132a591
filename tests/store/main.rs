//! The state machine, held against models of it, and against itself on another node.

mod apply_any;
mod lease_model;
mod scan;
mod snapshot_model;
mod store_model;
