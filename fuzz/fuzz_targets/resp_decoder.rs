//! Feeds a client's bytes to the request decoder: see `checks/resp_decoder.rs`.
#![no_main]

#[path = "../checks/resp_decoder.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::resp_decoder(data));
