//! Exactly once, and in order: one `Node` driven through its inputs and effects (design
//! 2-client-path §2 and §3). Its peers are played by the test: what the log holds, and who leads,
//! is what the steps say. No sockets, no files, no waiting.

mod batches;
mod leader;
mod order;
mod sessions;
mod support;
