//! What tests the tests: rules of the server that can be broken on purpose, and marks on its rare
//! branches.
//!
//! Both stand in the real code path and exist only with the cargo feature `testing`, which every
//! `cargo test` has and no shipped build: without it [`is_on`] is a constant and [`reached`] is
//! empty. Called by everything; the simulator's runner and its tests turn the switches and read the
//! marks. State is one thread's, as a simulated run is. Never decides anything by itself.

pub mod mark;
pub mod mutation;

pub use mark::{Mark, reached};
pub use mutation::{Mutation, is_on};
