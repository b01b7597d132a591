//! Random small histories against the checker that tries every order, and stretched sequential
//! executions, which must pass.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use raftkv::sim::linearizability::{Answer, Command, Failure, STEPS, Transaction, check};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::brute_force::{Store, are_joined, is_linearizable, is_linearizable_as, run};
use crate::plot::{Fate, Operation, history};

type Random = Xoshiro256PlusPlus;

fn command(random: &mut Random) -> Command {
    let key = |random: &mut Random| vec![b'a' + random.random_range(0..2u8)];
    let value = |random: &mut Random| vec![b'1' + random.random_range(0..2u8)];
    let both = || vec![b"a".to_vec(), b"b".to_vec()];
    match random.random_range(0..19) {
        0..=2 => Command::Get { key: key(random) },
        3..=5 => Command::Set { key: key(random), value: value(random) },
        6 => Command::SetNx { key: key(random), value: value(random) },
        7 => Command::Del { keys: vec![key(random)] },
        8 => Command::Del { keys: both() },
        9 => Command::Exists { keys: both() },
        10 => Command::Cas { key: key(random), old: value(random), new: value(random) },
        11 => Command::Cad { key: key(random), old: value(random) },
        12 => Command::Incr { key: key(random), by: random.random_range(1..3) },
        13 => Command::Append { key: key(random), tail: value(random) },
        14 => Command::MSet {
            pairs: vec![(b"a".to_vec(), value(random)), (b"b".to_vec(), value(random))],
        },
        15 => Command::MGet { keys: both() },
        _ => Command::Transaction(transaction(random)),
    }
}

fn transaction(random: &mut Random) -> Transaction {
    let key = |random: &mut Random| vec![b'a' + random.random_range(0..2u8)];
    let value = |random: &mut Random| vec![b'1' + random.random_range(0..2u8)];
    let branch = |random: &mut Random, least: usize| {
        let count = random.random_range(least..=2);
        let one = |random: &mut Random| match random.random_range(0..4) {
            0 => Command::Get { key: key(random) },
            1 => Command::Del { keys: vec![key(random)] },
            _ => Command::Set { key: key(random), value: value(random) },
        };
        (0..count).map(|_| one(random)).collect()
    };
    let compares = (0..random.random_range(0..=2)).map(|_| match random.random_range(0..3) {
        0 => (key(random), None),
        _ => (key(random), Some(value(random))),
    });
    Transaction {
        compares: compares.collect(),
        then: branch(random, 1),
        otherwise: branch(random, 0),
    }
}

/// Runs `count` commands one after another, the n-th at time 100 n, and then stretches each by up
/// to `stretch` both ways. Some have no answer, of which some have no effect; some are refused.
fn stretched(random: &mut Random, count: u64, stretch: u64) -> Vec<Operation> {
    let mut store = Store::new();
    let mut latest = [0; 4];
    let mut operations = Vec::new();
    for place in 1..=count {
        let (at, command) = (100 * place, command(random));
        let client = random.random_range(0..latest.len());
        // A client sends in the order in which it is served.
        let from = at.saturating_sub(random.random_range(0..=stretch)).max(latest[client]);
        let to = at + random.random_range(0..=stretch);
        latest[client] = from;
        let fate = match random.random_range(0..10) {
            0 => Fate::NotDone(to),
            1 => Fate::Unknown,
            2 => {
                run(&mut store, &command);
                Fate::Unknown
            }
            _ => Fate::Answered(to, run(&mut store, &command)),
        };
        operations.push(Operation { client: client as u32, from, command, fate });
    }
    operations
}

/// Another answer of the same kind.
fn mutate(random: &mut Random, answer: &mut Answer) {
    let word = |random: &mut Random| match random.random_range(0..4u8) {
        0 => None,
        digit => Some(vec![b'0' + digit]),
    };
    *answer = match answer {
        Answer::Ok => Answer::Nil,
        Answer::Integer(number) => Answer::Integer(*number + [-1, 1][random.random_range(0..2)]),
        Answer::Values(values) => Answer::Values(values.iter().map(|_| word(random)).collect()),
        Answer::Error(_) => Answer::Integer(1),
        Answer::Replies { held, replies } => match replies.first_mut() {
            Some(first) if random.random_bool(0.7) => {
                mutate(random, first);
                answer.clone()
            }
            _ => Answer::Replies { held: !*held, replies: replies.clone() },
        },
        Answer::Nil | Answer::Value(_) => word(random).map_or(Answer::Nil, Answer::Value),
    };
}

/// Panics unless both checkers agree; tells what they found.
fn agree(operations: &[Operation]) -> bool {
    let expected = is_linearizable(operations);
    match check(&history(operations), STEPS) {
        Ok(_) => assert!(expected, "passed, but no order explains {operations:#?}"),
        Err(Failure::Contradiction(contradiction)) => {
            assert!(!expected, "an order explains {operations:#?}, yet\n{contradiction}");
            // What the report names contradicts itself, whatever the others did and when.
            let mut order: Vec<&Operation> = operations.iter().collect();
            order.sort_by_key(|one| one.from);
            let named =
                |number: usize| contradiction.operations.iter().any(|id| id.0 as usize == number);
            let last = order[contradiction.last.0 as usize];
            let Fate::Answered(end, _) = last.fate else {
                panic!("the last one was answered");
            };
            let weakened: Vec<Operation> = order
                .iter()
                .copied()
                .enumerate()
                .filter(|(_, one)| one.from <= end)
                .map(|(number, one)| match named(number) {
                    true => one.clone(),
                    false if matches!(one.fate, Fate::NotDone(_)) => one.clone(),
                    // Of a client of its own, that nothing is known of.
                    false => Operation {
                        client: 1000 + number as u32,
                        from: 0,
                        fate: Fate::Unknown,
                        ..one.clone()
                    },
                })
                .collect();
            assert!(
                !is_linearizable_as(&weakened, are_joined(operations)),
                "{operations:#?}\n{contradiction}"
            );
        }
        Err(failure) => panic!("{failure}: {operations:#?}"),
    }
    expected
}

#[test]
fn check_agrees_with_every_order_on_mutated_histories() {
    let mut random = Random::seed_from_u64(1);
    let mut verdicts = [0; 2];
    for _ in 0..20_000 {
        let (count, stretch) = (random.random_range(1..=7), random.random_range(0..400));
        let mut operations = stretched(&mut random, count, stretch);
        assert!(agree(&operations), "a stretched sequential execution passes");
        let victim = random.random_range(0..operations.len());
        if let Fate::Answered(_, answer) = &mut operations[victim].fate {
            mutate(&mut random, answer);
        }
        verdicts[usize::from(agree(&operations))] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 2_000), "{verdicts:?}");
}

#[test]
fn check_agrees_with_every_order_on_random_histories() {
    let mut random = Random::seed_from_u64(2);
    let mut verdicts = [0; 2];
    for _ in 0..20_000 {
        let count = random.random_range(2..=7);
        let mut operations = stretched(&mut random, count, 300);
        // The answers stay, the times are drawn anew: what was in order overlaps or is reversed.
        for operation in &mut operations {
            operation.from = random.random_range(0..100);
            if let Fate::Answered(to, _) | Fate::NotDone(to) = &mut operation.fate {
                *to = operation.from + random.random_range(0..100);
            }
        }
        verdicts[usize::from(agree(&operations))] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 2_000), "{verdicts:?}");
}

#[test]
fn check_agrees_with_every_order_where_most_outcomes_are_unknown() {
    let mut random = Random::seed_from_u64(3);
    let mut verdicts = [0; 2];
    for _ in 0..20_000 {
        let count = random.random_range(4..=8);
        let mut operations = stretched(&mut random, count, 300);
        for operation in &mut operations {
            let is_answered = matches!(operation.fate, Fate::Answered(..));
            if is_answered && !operation.command.is_read() && random.random_bool(0.6) {
                operation.fate = Fate::Unknown;
            }
        }
        let victim = random.random_range(0..operations.len());
        if let Fate::Answered(_, answer) = &mut operations[victim].fate {
            mutate(&mut random, answer);
        }
        verdicts[usize::from(agree(&operations))] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 2_000), "{verdicts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, rng_seed: RngSeed::Fixed(64), ..Default::default() })]

    #[test]
    fn check_passes_stretched_sequential_executions(
        seed in any::<u64>(),
        count in 1..100u64,
        stretch in 0..400u64,
    ) {
        let operations = stretched(&mut Random::seed_from_u64(seed), count, stretch);
        let verdict = check(&history(&operations), STEPS);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }
}
