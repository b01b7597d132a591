//! Who speaks with the nodes: the Rust client and the tools, against scripted servers and real
//! nodes; stock Redis clients; the recipes of `examples/`.
//!
//! A client that isn't installed is left out aloud.

mod client;
mod client_sessions;
#[allow(dead_code, reason = "the other half is for `cluster`")]
#[path = "../common/mod.rs"]
mod common;
mod examples;
mod fail_over;
mod hiredis;
mod node;
mod redis_cli;
mod redis_py;
mod redis_rs;
#[cfg(feature = "tools")]
mod rkv_cli;
mod scripted;
#[cfg(feature = "tools")]
mod tools;
