//! What the tests of real processes stand on: nodes, clients, load, and what the kernel saw.
//!
//! Used by `cluster` and `clients`. Nothing here sleeps to let something happen:
//! it polls until it has happened, with a deadline.

pub mod client;
pub mod cluster;
pub mod history;
pub mod load;
pub mod node;
pub mod ports;
pub mod strace;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use client::{Client, Reply};
pub use cluster::{Cluster, Options};

/// Asks `attempt` until it has an answer, and panics with `what` once `within` has passed.
pub fn eventually<T>(what: &str, within: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that a test could not run, past the test runner's capture: a test that was left out must
/// never look like one that passed.
pub fn skip(test: &str, why: &str) {
    let line = format!("\nSKIPPED {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Whether a program of the system runs with these arguments.
pub fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
