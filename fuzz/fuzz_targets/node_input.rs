//! Anything that can happen to a node, in any order: see `../checks/node_input.rs`.
#![no_main]

#[path = "../checks/node_input.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checks::check(data);
});
