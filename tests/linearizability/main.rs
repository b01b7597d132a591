//! The linearizability checker, held against histories known to be good and bad, and against a
//! second checker that tries every order.
//!
//! Source: design 5-faults, the invariant *linearizable*. Each anomaly is a plot: one operation a
//! line, its interval, its answer. Starts no server.

mod anomalies;
mod brute_force;
mod large;
mod pipelines;
mod plot;
mod random;
