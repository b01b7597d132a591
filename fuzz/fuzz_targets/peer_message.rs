//! Any bytes into the decoder of peers' messages: see `../checks/peer_message.rs`.
#![no_main]

#[path = "../checks/peer_message.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
