//! Log records from hostile bytes: see `record::check_chunks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftkv::proto::record::check_chunks(data));
