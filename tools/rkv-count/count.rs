//! Runs a row: makes its cluster, fills its keys, and sends its commands in steps.
//!
//! Called by `main`. Each reply is looked at: a count of commands that failed would say nothing.

use std::hint::black_box;

use raftkv::client::encode_command;
use raftkv::storage::StorageError;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::cluster::Cluster;
use crate::matrix::{Command, Row};

/// Steps before the count begins.
const WARM_UP_STEPS: usize = 4;

/// Commands that are counted at least ...
const COMMANDS_MIN: usize = 1000;

/// ... and steps.
const STEPS_MIN: usize = 4;

/// Keys that are set by one command of the fill, and commands of it in one step.
const FILL_KEYS: u64 = 100;
const FILL_COMMANDS: u64 = 100;

struct Load {
    row: Row,
    rng: Xoshiro256PlusPlus,
    value: Vec<u8>,
}

/// Runs a row; returns how many commands were counted.
///
/// # Errors
/// The storage's.
pub fn run(row: &Row) -> Result<usize, StorageError> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let value = (0..row.value_bytes).map(|_| rng.random_range(b'!'..=b'~')).collect();
    let mut load = Load { row: *row, rng, value };
    let mut cluster = Cluster::start(row.nodes)?;
    let clients: Vec<usize> = (0..row.clients).map(|_| cluster.connect()).collect();
    for _ in 0..row.idle {
        cluster.connect();
    }
    load.fill(&mut cluster, clients[0])?;
    let mut sent = vec![Vec::new(); row.clients];
    let mut answers = vec![Vec::new(); row.clients];
    let steps = STEPS_MIN.max(COMMANDS_MIN.div_ceil(row.batch()));
    for step in 0..WARM_UP_STEPS + steps {
        cluster.is_counting = step >= WARM_UP_STEPS;
        load.make(&mut sent);
        cluster.call(&clients, &sent, &mut answers)?;
        answers.iter().for_each(|answer| load.check(answer));
    }
    Ok(steps * row.batch())
}

/// A profiler writes down what it has counted so far, and begins anew.
#[inline(never)]
pub fn row_ends(row: &Row) {
    black_box(row);
}

impl Load {
    /// Sets all keys.
    fn fill(&mut self, cluster: &mut Cluster, client: usize) -> Result<(), StorageError> {
        let mut number = 0;
        let mut answers = [Vec::new()];
        while number < self.row.keys {
            let mut sent = Vec::new();
            let end = self.row.keys.min(number + FILL_KEYS * FILL_COMMANDS);
            while number < end {
                let next = end.min(number + FILL_KEYS);
                let mut words = vec![b"MSET".to_vec()];
                for key in number..next {
                    words.push(self.key(key));
                    words.push(match self.row.command {
                        Command::Incr => b"0".to_vec(),
                        Command::Set | Command::Get => self.value.clone(),
                    });
                }
                encode_command(&words, &mut sent);
                number = next;
            }
            cluster.call(&[client], &[sent], &mut answers)?;
            assert!(answers[0].starts_with(b"+OK\r\n"), "the keys are set");
        }
        Ok(())
    }

    fn key(&self, number: u64) -> Vec<u8> {
        format!("bench:{number:012}").into_bytes()
    }

    /// What each client sends in one step.
    fn make(&mut self, sent: &mut [Vec<u8>]) {
        for bytes in sent {
            bytes.clear();
            for _ in 0..self.row.pipeline {
                let number = self.rng.random_range(0..self.row.keys);
                let key = self.key(number);
                match self.row.command {
                    Command::Set => encode_command(&[&b"SET"[..], &key, &self.value], bytes),
                    Command::Get => encode_command(&[&b"GET"[..], &key], bytes),
                    Command::Incr => encode_command(&[&b"INCR"[..], &key], bytes),
                }
            }
        }
    }

    fn check(&self, answer: &[u8]) {
        let expected = match self.row.command {
            Command::Set => b"+OK\r\n".repeat(self.row.pipeline),
            Command::Get => {
                let mut one = format!("${}\r\n", self.value.len()).into_bytes();
                one.extend_from_slice(&self.value);
                one.extend_from_slice(b"\r\n");
                one.repeat(self.row.pipeline)
            }
            Command::Incr => {
                let lines = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                let counts = lines.filter(|line| line.starts_with(b":")).count();
                assert_eq!(counts, self.row.pipeline, "each INCR is answered by a number");
                return;
            }
        };
        assert!(answer == expected, "{}", String::from_utf8_lossy(answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each answer is checked by `run` itself: what is asserted here is that it sends as much as it
    /// says, on clusters of every size.
    #[test]
    fn run_sends_what_it_counts() {
        for (command, nodes) in [(Command::Set, 1), (Command::Get, 3), (Command::Incr, 5)] {
            let row = Row {
                family: "nodes",
                command,
                clients: 7,
                pipeline: 3,
                value_bytes: 64,
                keys: 250,
                idle: 2,
                nodes,
            };
            let commands = run(&row).unwrap();
            assert_eq!(commands % (7 * 3), 0);
            assert!(commands >= COMMANDS_MIN, "{commands}");
        }
    }

    #[test]
    #[should_panic(expected = "-ERR")]
    fn check_does_not_take_an_error_for_an_answer() {
        let mut load = Load {
            row: crate::matrix::rows(false)[0],
            rng: Xoshiro256PlusPlus::seed_from_u64(1),
            value: Vec::new(),
        };
        load.row.pipeline = 1;
        load.check(b"-ERR\r\n");
    }
}
