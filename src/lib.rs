//! raftkv: a small, durable, strongly consistent key-value server.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod limits;
pub mod types;

pub mod config;
pub mod proto;

pub mod kv;
pub mod raft;

pub mod node;
pub mod storage;

pub mod client;
#[path = "loop/mod.rs"]
pub mod event_loop;

pub mod sim;
