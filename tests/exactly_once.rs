//! Exactly once, and in order: one `Node` driven through its inputs and effects (design
//! 2-client-path §2 and §3). Its peers are played by the test: what the log holds, and who leads,
//! is what the steps say. No sockets, no files, no waiting.

#[path = "exactly_once/batches.rs"]
mod batches;
#[path = "exactly_once/leader.rs"]
mod leader;
#[path = "exactly_once/order.rs"]
mod order;
#[path = "exactly_once/sessions.rs"]
mod sessions;
#[path = "exactly_once/support.rs"]
mod support;
