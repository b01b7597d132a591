//! The committed corpora of the fuzz targets, replayed, and what each target's check must see.

mod corpus;
mod frame_decoder;
mod node_input;
mod peer_message;
mod resp_decoder;
mod snapshot_reader;
mod wal_record;
