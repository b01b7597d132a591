//! Histories of a few clients with deep pipelines on two keys that MSET and MGET join, begun in a
//! storm of broken connections: many operations at once, and many of which nobody knows the end.
//!
//! The simulator's hardest histories are like these; a search that only tries orders drowns.

use raftkv::sim::linearizability::{Answer, Command, STEPS, check};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::brute_force::{Store, run};
use crate::plot::{Fate, Operation, history, plot};

const CLIENTS: u32 = 6;
const PIPELINE: u64 = 12;
/// Commands of all clients, and how many of them are sent in the storm.
const COMMANDS: usize = 400;
const STORM: usize = 60;

/// Values are unique, as the simulator's are; a swap names one of the latest.
fn command(random: &mut Xoshiro256PlusPlus, number: usize) -> String {
    let key = random.random_range(0..2);
    let recent = number.saturating_sub(random.random_range(0..40)) * 100;
    let value = number * 100;
    match random.random_range(0..20) {
        0..5 => format!("GET {key}"),
        5..8 => format!("SET {key} {value}"),
        8..11 => format!("CAS {key} {recent} {value}"),
        11..14 => format!("INCR {key}"),
        14 | 15 => format!("DEL {key}"),
        16 | 17 => format!("MSET {key} {value} {} {}", 1 - key, value + 50),
        _ => format!("MGET {key} {}", 1 - key),
    }
}

fn execute(seed: u64) -> Vec<Operation> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut free_at = [0; CLIENTS as usize];
    let mut connections = CLIENTS;
    let mut names: Vec<u32> = (0..CLIENTS).collect();
    let mut operations: Vec<Operation> = Vec::new();
    let mut served: Vec<(u64, usize)> = Vec::new();
    while operations.len() < COMMANDS {
        let client = (0..names.len()).min_by_key(|client| free_at[*client]).expect("some");
        let from = free_at[client] + random.random_range(1..100);
        let first = operations.len();
        let breaks = first < STORM && random.random_range(0..10) < 3;
        let mut at = from;
        for number in first..first + random.random_range(1..=PIPELINE) as usize {
            at += random.random_range(1..60);
            let words = command(&mut random, number + 1);
            let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            let command = Command::from_words(&words).expect("it is modelled");
            match breaks {
                false => served.push((at, number)),
                // Half of what is in doubt takes effect, some of it late.
                true if random.random() => {
                    served.push((at + random.random_range(0..10) * 300, number));
                }
                true => {}
            }
            let client = names[client];
            operations.push(Operation { client, from, command, fate: Fate::Unknown });
        }
        let to = at + random.random_range(1..100);
        free_at[client] = to;
        match breaks {
            true => {
                names[client] = connections;
                connections += 1;
            }
            // The answers' time; the answers come when they are served.
            false => operations[first..].iter_mut().for_each(|operation| {
                operation.fate = Fate::Answered(to, Answer::Nil);
            }),
        }
    }
    served.sort_unstable();
    let mut store = Store::new();
    for (_, number) in served {
        let answer = run(&mut store, &operations[number].command);
        if let Fate::Answered(_, told) = &mut operations[number].fate {
            *told = answer;
        }
    }
    operations
}

#[test]
fn check_decides_pipelines_after_a_storm() {
    let mut most = 0;
    for seed in 0..20 {
        let verdict = check(&history(&execute(seed)), STEPS);
        let verdict = verdict.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        most = most.max(verdict.steps);
    }
    println!("{most} steps at most");
    assert!(most < STEPS / 20, "{most} steps are too near to the budget");
}

/// A history of the simulator, by its seed, in which the first order takes a wrong turn early.
#[test]
fn check_decides_what_the_simulator_found_hard() {
    let operations = plot(include_str!("seed-14789.plot"));
    let verdict = check(&history(&operations), STEPS);
    let verdict = verdict.unwrap_or_else(|failure| panic!("seed 14789: {failure}"));
    assert!(verdict.steps < STEPS / 5, "seed 14789: {} steps", verdict.steps);
}

/// A value that an answer tells, and that unknown additions make another told one from as well: what
/// it is made from itself must be told too.
#[test]
fn check_follows_what_a_told_value_is_made_from_twice() {
    let operations = plot(
        "0  0  ? INCRBY a 2
         1 10 20 SET a 1 -> OK
         1 30 40 INCRBY a 2 -> :5
         1 50 60 GET a -> =5",
    );
    let verdict = check(&history(&operations), STEPS);
    assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
}
