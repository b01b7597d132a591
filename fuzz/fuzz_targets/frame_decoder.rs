//! Any bytes into the frame decoder: see `../checks/frame_decoder.rs`.
#![no_main]

#[path = "../checks/frame_decoder.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
