//! The linearizability checker, held against histories known to be good and bad, and against a
//! second checker that tries every order.
//!
//! Source: design 5-faults, the invariant *linearizable*. Each anomaly is a plot: one operation a
//! line, its interval, its answer. Starts no server.

#[path = "linearizability/anomalies.rs"]
mod anomalies;
#[path = "linearizability/brute_force.rs"]
mod brute_force;
#[path = "linearizability/large.rs"]
mod large;
#[path = "linearizability/pipelines.rs"]
mod pipelines;
#[path = "linearizability/plot.rs"]
mod plot;
#[path = "linearizability/random.rs"]
mod random;
