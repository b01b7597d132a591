//! Bytes <-> values. PURE: no socket, no file, no clock.
//!
//! Every decoder here is incremental and bounded: it never panics on bytes from outside, and never
//! allocates by a declared length. What a decoder rejects never reaches the core.

pub mod args;
pub mod batch;
pub mod entry;
pub mod frame;
pub mod hello;
pub mod inline;
pub mod integer;
pub mod message;
pub mod peer_message;
pub mod record;
pub mod reply;
pub mod reply_decoder;
pub mod resp;
