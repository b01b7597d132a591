//! Bytes <-> values. PURE: no socket, no file, no clock.
//!
//! The values: [`entry`] (the log's), [`batch`] (a gateway's), [`message`] and [`admin`] (between
//! servers), [`args`] and [`reply`] (a client's). Their bytes: [`record`] and [`snapshot`] (with
//! [`snapshot_encoder`] and [`snapshot_decoder`]) on disk; [`frame`], [`hello`] and
//! [`peer_message`] between servers; [`resp`], [`inline`] and [`integer`] from a client, and
//! [`reply_decoder`] at the client's end; [`kept_reply`] in a client session.
//!
//! Every decoder here is incremental and bounded: it never panics on bytes from outside, and never
//! allocates by a declared length. What a decoder rejects never reaches the core.

pub mod admin;
pub mod args;
pub mod batch;
pub mod entry;
pub mod frame;
pub mod hello;
pub mod inline;
pub mod integer;
pub mod kept_reply;
pub mod message;
pub mod peer_message;
pub mod record;
pub mod reply;
pub mod reply_decoder;
pub mod resp;
pub mod snapshot;
pub mod snapshot_decoder;
pub mod snapshot_encoder;
mod snapshot_order;
