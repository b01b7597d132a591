//! The simulator: several unchanged nodes, codecs and logs in one thread, from one seed.
//!
//! In reading order: [`script`] (what a run is made of), [`swarm`] (a seed becomes one), [`world`]
//! (the queue of events) of [`server`]s, whose [`lives`] have [`turns`] of a [`process`] on [`link`]
//! (its connections' bytes); [`network`], [`disk`] on [`media`] of [`content`], [`clients`] in their
//! [`traffic`], [`watchers`], [`faults`] and [`operators`] (planned by [`turnover`], [`sieges`] and [`outages`]), or a test's own hands on a
//! [`cluster`]; then what judges: [`checkers`] with [`rules`], [`history`], [`linearizability`]; and
//! what tells: [`story`], [`shrink`]. Called by `rkv-sim` and tests. Contains no second
//! implementation of anything that it tests.

mod ambush;
mod checkers;
mod clients;
mod cluster;
mod content;
mod damage;
mod disk;
mod drive;
mod faults;
mod history;
pub mod linearizability;
mod link;
mod lives;
mod media;
mod minorities;
#[cfg(feature = "testing")]
pub mod mutants;
mod network;
mod operators;
mod outages;
mod process;
mod rules;
mod run;
pub mod script;
mod server;
mod sessions;
pub mod shrink;
mod sieges;
#[cfg(test)]
mod storage_tests;
pub mod story;
pub mod swarm;
mod timekeepers;
mod traffic;
mod transactions;
mod turnover;
mod turns;
mod upgrades;
mod watchers;
mod world;

pub use cluster::{Cluster, Connection};
pub use run::{Failure, INVARIANTS, Outcome, STRIKES, run, run_seed, tell};
pub use world::World;
