//! Whether what all clients saw together is possible, and all that was acknowledged is there.
//!
//! Counters are judged by tests/common/history.rs, registers by `registers`, and keys that are
//! written once by what is left of them. Called by the tests of chaos after all was healed.

use std::collections::BTreeMap;
use std::time::Instant;

use super::registers::{self, Did, Event};
use super::workload::{COUNTERS, REGISTERS, Story};
use crate::common::history::{self, Action, Operation};
use crate::common::{Client, Reply};

/// How many keys one MGET asks for.
const CHUNK: usize = 500;

/// Panics where a client was told what cannot be. `began` is before the first operation; `last`
/// reads each node.
pub fn judge(stories: &[Story], began: Instant, last: &mut [Client]) {
    for story in stories {
        story.connections.iter().for_each(|connection| assert_own_order(connection));
    }
    let connections = stories.iter().flat_map(|story| &story.connections);
    let all: Vec<Operation> = connections.flatten().cloned().collect();
    for client in &mut *last {
        let mut counters = BTreeMap::new();
        for counter in 0..COUNTERS {
            let value = client.must(&["GET", &format!("counter:{counter}")]);
            counters.insert(counter, value.number().unwrap());
        }
        history::assert_counters_linearizable(&all, &counters);
    }
    for register in 0..REGISTERS {
        let mut events: Vec<Event> =
            all.iter().filter_map(|operation| event(operation, register, began)).collect();
        for client in &mut *last {
            let sent = Instant::now();
            let reply = client.must(&["GET", &format!("register:{register}")]);
            let done = Some((Instant::now(), reply));
            let action = Action::Look(register);
            let read = Operation { address: String::new(), action, sent, done };
            events.extend(event(&read, register, began));
        }
        if let Err(why) = registers::check(&events) {
            panic!("register {register}: {why}\n{}", around(&all, register, &why));
        }
    }
    for client in last {
        assert_kept(&all, stories, client);
    }
}

/// The operations of a register that name a value which the verdict names.
fn around(all: &[Operation], register: usize, why: &str) -> String {
    let named = |value: u64| value != 0 && why.contains(&value.to_string());
    let concerns = |operation: &&Operation| match operation.action {
        Action::Write(at, value) => at == register && named(value),
        Action::Swap(at, old, new) => at == register && (named(old) || named(new)),
        Action::Look(at) => {
            at == register && operation.number().is_some_and(|seen| named(seen.cast_unsigned()))
        }
        _ => false,
    };
    let lines = all.iter().filter(concerns).map(|operation| format!("{operation:?}\n"));
    lines.take(100).collect()
}

/// A connection's commands take effect in their order: what it learns of a counter only grows.
fn assert_own_order(connection: &[Operation]) {
    let mut least = [i64::MIN; COUNTERS];
    for operation in connection {
        let (counter, grows) = match operation.action {
            Action::Increment(counter) => (counter, 1),
            Action::Read(counter) => (counter, 0),
            _ => continue,
        };
        let Some(number) = operation.number() else { continue };
        let least = &mut least[counter];
        assert!(number >= least.saturating_add(grows), "{least} was there before: {operation:?}");
        *least = number;
    }
}

fn event(operation: &Operation, register: usize, began: Instant) -> Option<Event> {
    let since = |at: Instant| at.duration_since(began).as_nanos() as u64;
    let reply = operation.done.as_ref().map(|(_, reply)| reply);
    let did = match operation.action {
        Action::Write(at, value) if at == register => {
            assert!(reply.is_none_or(|reply| *reply == Reply::ok()), "{operation:?}");
            Did::Write(value)
        }
        Action::Look(at) if at == register => {
            let value = reply?.number();
            let value = value.unwrap_or_else(|| panic!("it was never deleted: {operation:?}"));
            Did::Read(value.cast_unsigned())
        }
        Action::Swap(at, old, new) if at == register => match reply.map(Reply::number) {
            None | Some(Some(1)) => Did::Swap(old, new),
            Some(Some(0)) => Did::Differed(old),
            Some(other) => panic!("CAS of a key that was never deleted: {other:?}, {operation:?}"),
        },
        _ => return None,
    };
    let ended = operation.done.as_ref().map(|(done, _)| since(*done));
    Some(Event { did, began: since(operation.sent), ended })
}

/// Keys that were written once: there if acknowledged, absent if surely not done.
fn assert_kept(all: &[Operation], stories: &[Story], client: &mut Client) {
    let mut puts: BTreeMap<Action, Option<bool>> = BTreeMap::new();
    for operation in all {
        puts.insert(operation.action, operation.done.is_some().then_some(true));
    }
    for action in stories.iter().flat_map(|story| &story.not_done) {
        puts.insert(*action, Some(false));
    }
    let puts: Vec<_> =
        puts.into_iter().filter(|(action, _)| matches!(action, Action::Put(..))).collect();
    for chunk in puts.chunks(CHUNK) {
        let keys: Vec<String> =
            chunk.iter().map(|(action, _)| action.words().swap_remove(1)).collect();
        let words: Vec<&str> =
            std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
        let Reply::Array(values) = client.must(&words) else { panic!("MGET: no array") };
        assert_eq!(values.len(), chunk.len());
        for ((action, done), value) in chunk.iter().zip(values) {
            let there = value == Reply::Bulk(action.words().swap_remove(2).into_bytes());
            assert!(there || value == Reply::Nil, "{action:?} left {value:?}");
            assert!(done.is_none_or(|done| done == there), "{action:?}: {done:?} was said");
        }
    }
}
