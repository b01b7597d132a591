//! Log records from hostile bytes: see `../checks/wal_record.rs`.
#![no_main]

#[path = "../checks/wal_record.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
