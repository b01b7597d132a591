//! Histories of thousands of operations of fifty clients, of the size that the simulator makes,
//! within a budget of steps for each operation.

use std::time::Instant;

use raftkv::sim::linearizability::{Command, Failure, STEPS, Verdict, check};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::brute_force::{Store, run};
use crate::plot::{Fate, Operation, history, plot};

const CLIENTS: usize = 50;
const OPERATIONS: usize = 5_000;

/// What a workload consists of: given a number that no other command has, and a random one.
type Workload = fn(usize, u32) -> String;

fn registers(number: usize, random: u32) -> String {
    let key = random % 8;
    match random / 8 % 10 {
        0..=3 => format!("SET key:{key} {number}"),
        4 => format!("DEL key:{key}"),
        _ => format!("GET key:{key}"),
    }
}

fn one_register(number: usize, random: u32) -> String {
    if random.is_multiple_of(2) { format!("SET a {number}") } else { "GET a".into() }
}

fn counters(_: usize, random: u32) -> String {
    let key = random % 4;
    match random / 4 % 3 {
        0 => format!("GET key:{key}"),
        1 => format!("INCR key:{key}"),
        _ => format!("INCRBY key:{key} 3"),
    }
}

fn several_keys(number: usize, random: u32) -> String {
    let (group, key) = (random % 3, random / 3 % 4);
    match random / 12 % 4 {
        0 => format!("MSET {group}:0 {number} {group}:1 {number} {group}:2 {number}"),
        1 => format!("MGET {group}:0 {group}:1 {group}:2 {group}:3"),
        2 => format!("SET {group}:{key} {number}"),
        _ => format!("GET {group}:{key}"),
    }
}

/// Fifty clients, each one command at a time, served in one order. One in fifty is never answered:
/// half of those have no effect, half have it up to a hundred times later than usual.
fn execute(seed: u64, workload: Workload) -> Vec<Operation> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut operations = Vec::new();
    let mut served: Vec<(u64, usize)> = Vec::new();
    let mut free_at = [0; CLIENTS];
    for number in 0..OPERATIONS {
        let client = (0..CLIENTS).min_by_key(|client| free_at[*client]).unwrap();
        let from = free_at[client] + random.random_range(1..200);
        let (before, after) = (random.random_range(0..1_000), random.random_range(0..1_000));
        let words = workload(number, random.random());
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let command = Command::from_words(&words).unwrap();
        let is_lost = random.random_range(0..50) == 0;
        free_at[client] = from + before + after;
        if !is_lost {
            served.push((from + before, number));
        } else if random.random() {
            served.push((from + before * random.random_range(1..100), number));
        }
        let client = if is_lost { CLIENTS + number } else { client } as u32;
        operations.push(Operation { client, from, command, fate: Fate::Unknown });
        if !is_lost {
            // The answer's time; the answer itself comes when it is served.
            operations[number].fate = Fate::NotDone(from + before + after);
        }
    }
    served.sort_unstable();
    let mut store = Store::new();
    for (_, number) in served {
        let answer = run(&mut store, &operations[number].command);
        if let Fate::NotDone(at) = operations[number].fate {
            operations[number].fate = Fate::Answered(at, answer);
        }
    }
    operations
}

fn pass(name: &str, workload: Workload, seed: u64) -> Verdict {
    let history = history(&execute(seed, workload));
    let start = Instant::now();
    let verdict = check(&history, STEPS).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    let seconds = start.elapsed().as_secs_f64();
    let rate = OPERATIONS as f64 / seconds;
    println!("{name} seed {seed}: {} steps, {rate:.0} operations a second", verdict.steps);
    verdict
}

#[test]
fn check_decides_thousands_of_operations_in_few_steps() {
    let workloads: [(&str, Workload); 4] = [
        ("registers", registers),
        ("one register", one_register),
        ("counters", counters),
        ("several keys", several_keys),
    ];
    for (name, workload) in workloads {
        for seed in 0..3 {
            let verdict = pass(name, workload, seed);
            let each = verdict.steps / OPERATIONS as u64;
            assert!(each < 200, "{name}: {each} steps for each operation");
        }
    }
}

#[test]
fn check_finds_one_defect_among_thousands() {
    for (workload, defect) in [
        (registers as Workload, "9999 900000 900001 GET key:0 -> =stale"),
        (registers, "9999 4000000 4000001 GET key:0 -> =1"),
        (counters, "9999 4000000 4000001 INCR key:1 -> :7"),
        (several_keys, "9999 4000000 4000001 MGET 0:0 0:1 -> [1,2]"),
    ] {
        let mut operations = execute(7, workload);
        operations.extend(plot(defect));
        let start = Instant::now();
        match check(&history(&operations), STEPS) {
            Err(Failure::Contradiction(contradiction)) => {
                let count = contradiction.operations.len();
                println!("{defect}: {count} left of {OPERATIONS}, {:?}", start.elapsed());
                println!("{contradiction}");
            }
            other => panic!("{defect}: {other:?}"),
        }
    }
}
