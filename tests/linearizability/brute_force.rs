//! A checker that tries every order, and the store that it runs them on: slow, short, and sharing
//! no line with the checker under test.

use std::collections::BTreeMap;

use raftkv::sim::linearizability::{Answer, Command, Transaction};

use crate::plot::{Fate, Operation};

/// Keys and their values.
pub type Store = BTreeMap<Vec<u8>, Vec<u8>>;

/// Runs one command as Redis would.
pub fn run(store: &mut Store, command: &Command) -> Answer {
    let number = |count: usize| Answer::Integer(count as i64);
    match command {
        Command::Get { key } => store.get(key).cloned().map_or(Answer::Nil, Answer::Value),
        Command::Set { key, value } => {
            store.insert(key.clone(), value.clone());
            Answer::Ok
        }
        Command::SetNx { key, value } => {
            let absent = !store.contains_key(key);
            store.entry(key.clone()).or_insert_with(|| value.clone());
            number(usize::from(absent))
        }
        Command::Del { keys } => number(keys.iter().filter_map(|key| store.remove(key)).count()),
        Command::Exists { keys } => {
            number(keys.iter().filter(|key| store.contains_key(*key)).count())
        }
        Command::Cas { key, old, new } => match store.get_mut(key) {
            None => Answer::Integer(-1),
            Some(value) if value != old => Answer::Integer(0),
            Some(value) => {
                value.clone_from(new);
                Answer::Integer(1)
            }
        },
        Command::Cad { key, old } => match store.get(key) {
            None => Answer::Integer(-1),
            Some(value) if value != old => Answer::Integer(0),
            Some(_) => {
                store.remove(key);
                Answer::Integer(1)
            }
        },
        Command::Incr { key, by } => {
            let text = store.get(key).map_or("0".into(), |value| String::from_utf8_lossy(value));
            let Some(sum) = text.parse::<i64>().ok().and_then(|one| one.checked_add(*by)) else {
                return Answer::Error("ERR no".into());
            };
            store.insert(key.clone(), sum.to_string().into_bytes());
            Answer::Integer(sum)
        }
        Command::Append { key, tail } => {
            let value = store.entry(key.clone()).or_default();
            value.extend_from_slice(tail);
            number(value.len())
        }
        Command::Strlen { key } => number(store.get(key).map_or(0, Vec::len)),
        Command::MSet { pairs } => {
            pairs.iter().for_each(|(key, value)| {
                store.insert(key.clone(), value.clone());
            });
            Answer::Ok
        }
        Command::Transaction(Transaction { compares, then, otherwise }) => {
            let held = compares.iter().all(|(key, value)| store.get(key) == value.as_ref());
            let branch = if held { then } else { otherwise };
            let replies = branch.iter().map(|one| run(store, one)).collect();
            Answer::Replies { held, replies }
        }
        Command::MGet { keys } => {
            Answer::Values(keys.iter().map(|key| store.get(key).cloned()).collect())
        }
    }
}

/// Whether some order of the operations explains all answers.
pub fn is_linearizable(operations: &[Operation]) -> bool {
    is_linearizable_as(operations, are_joined(operations))
}

/// Whether an operation that says anything joins the keys (there are two at most).
pub fn are_joined(operations: &[Operation]) -> bool {
    operations.iter().any(|one| {
        let is_silent = match one.fate {
            Fate::NotDone(_) => true,
            Fate::Unknown => one.command.is_read(),
            Fate::Answered(..) => false,
        };
        !is_silent && one.command.keys().windows(2).any(|pair| pair[0] != pair[1])
    })
}

/// The same, told whether the keys are joined.
pub fn is_linearizable_as(operations: &[Operation], joined: bool) -> bool {
    let possible = |one: &&Operation| !matches!(one.fate, Fate::NotDone(_));
    let operations: Vec<&Operation> = operations.iter().filter(possible).collect();
    go_on(&operations, joined, &mut vec![false; operations.len()], &Store::new())
}

fn go_on(operations: &[&Operation], joined: bool, done: &mut Vec<bool>, store: &Store) -> bool {
    let open =
        |number: &usize, done: &[bool]| !done[*number] && operations[*number].fate != Fate::Unknown;
    let waiting: Vec<usize> = (0..done.len()).filter(|number| open(number, done)).collect();
    if waiting.is_empty() {
        return true;
    }
    for number in 0..done.len() {
        if done[number]
            || waiting.iter().any(|other| must_precede(operations, joined, *other, number))
            || ends(operations, joined, number).iter().any(|later| done[*later])
        {
            continue;
        }
        let mut next = store.clone();
        let answer = run(&mut next, &operations[number].command);
        if matches!(&operations[number].fate, Fate::Answered(_, told) if *told != answer) {
            continue;
        }
        done[number] = true;
        let found = go_on(operations, joined, done, &next);
        done[number] = false;
        if found {
            return true;
        }
    }
    false
}

/// Whether the answered operation `one` comes before `other` in every order: it ended before the
/// other began, or one client sent the two in this order and was answered both.
fn must_precede(operations: &[&Operation], joined: bool, one: usize, other: usize) -> bool {
    let (earlier, later) = (operations[one], operations[other]);
    let Fate::Answered(end, _) = earlier.fate else {
        return false;
    };
    let sent_before = (earlier.from, one) < (later.from, other);
    // Keys that no operation joins are checked apart, and the order of a client with them.
    let share = |key| later.command.keys().contains(key);
    let are_joined = joined || earlier.command.keys().iter().any(share);
    let one_client =
        earlier.client == later.client && matches!(later.fate, Fate::Answered(..)) && are_joined;
    end < later.from || (sent_before && one_client)
}

/// What an operation of unknown outcome comes before, if it takes effect: of the answered operations
/// that change something, the next one of its client, and the first that was sent after the client
/// was answered a later write.
fn ends(operations: &[&Operation], joined: bool, number: usize) -> Vec<usize> {
    let one = operations[number];
    if one.fate != Fate::Unknown {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..operations.len()).collect();
    order.sort_by_key(|other| (operations[*other].from, *other));
    let sent_after = |other: usize| (operations[other].from, other) > (one.from, number);
    let is_changed = |other: usize| {
        let share = |key| one.command.keys().contains(key);
        let other = operations[other];
        let is_joined = joined || other.command.keys().iter().any(share);
        is_joined && matches!(&other.fate, Fate::Answered(_, told) if changes(&other.command, told))
    };
    let own = |other: usize| operations[other].client == one.client && sent_after(other);
    let answered_writes = order.iter().filter_map(|other| match operations[*other] {
        Operation { fate: Fate::Answered(to, _), command, .. }
            if own(*other) && !command.is_read() =>
        {
            Some(*to)
        }
        _ => None,
    });
    let answered_write = answered_writes.min();
    let next = order.iter().copied().find(|other| own(*other) && is_changed(*other));
    let later = order.iter().copied().find(|other| {
        answered_write.is_some_and(|to| operations[*other].from > to) && is_changed(*other)
    });
    next.into_iter().chain(later).collect()
}

/// Whether a command that was answered so may have changed anything.
fn changes(command: &Command, told: &Answer) -> bool {
    match (command, told) {
        (command, _) if command.is_read() => false,
        (_, Answer::Error(_)) => false,
        (Command::SetNx { .. } | Command::Del { .. }, told) => *told != Answer::Integer(0),
        (Command::Cas { .. } | Command::Cad { .. }, told) => *told == Answer::Integer(1),
        (Command::Transaction(one), Answer::Replies { held, replies }) => {
            let branch = if *held { &one.then } else { &one.otherwise };
            branch.iter().zip(replies).any(|(one, told)| changes(one, told))
        }
        _ => true,
    }
}
