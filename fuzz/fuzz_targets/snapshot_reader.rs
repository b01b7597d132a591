//! Any bytes into the readers of snapshots: see `../checks/snapshot_reader.rs`.
#![no_main]

#[path = "../checks/snapshot_reader.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
