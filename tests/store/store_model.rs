//! The store against a model so simple that it is obviously right, with any sequence of operations
//! (design 2-client-path §4 and §5).

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use raftkv::kv::history::ChangeKind;
use raftkv::kv::store::Store;
use raftkv::types::{ClusterTime, Revision};

#[derive(Clone, Debug)]
enum Operation {
    Set(u8, u8, Option<u64>),
    Append(u8, u8),
    SetDeadline(u8, Option<u64>),
    Delete(u8),
    Clear,
    AdvanceClock(u64),
    ExpireDue(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let deadline = || prop::option::of(0_u64..60);
    prop_oneof![
        6 => (0_u8..6, any::<u8>(), deadline()).prop_map(|(k, v, d)| Operation::Set(k, v, d)),
        2 => (0_u8..6, any::<u8>()).prop_map(|(k, v)| Operation::Append(k, v)),
        3 => (0_u8..6, deadline()).prop_map(|(k, d)| Operation::SetDeadline(k, d)),
        2 => (0_u8..6).prop_map(Operation::Delete),
        1 => Just(Operation::Clear),
        4 => (0_u64..60).prop_map(Operation::AdvanceClock),
        2 => (0_usize..3).prop_map(Operation::ExpireDue),
    ]
}

#[derive(Clone, PartialEq, Debug)]
struct Value {
    bytes: Vec<u8>,
    revision: u64,
    deadline: Option<u64>,
}

/// What is dead is kept apart until it is removed, soonest first, which takes a revision.
#[derive(Default)]
struct Model {
    values: BTreeMap<Vec<u8>, Value>,
    dead: BTreeSet<(u64, Vec<u8>)>,
    clock: u64,
    revision: u64,
    /// Mutations that change nothing: what is set was dead before, and is dead at once.
    silent: u64,
}

impl Model {
    /// A key is written: if it was dead, its removal comes first.
    fn bury(&mut self, key: u8) {
        let before = self.dead.len();
        self.dead.retain(|(_, dead)| *dead != [key]);
        self.revision += (before - self.dead.len()) as u64;
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Set(key, value, deadline) => {
                if deadline.is_none_or(|deadline| deadline > self.clock) {
                    self.bury(key);
                } else {
                    self.silent += u64::from(!self.values.contains_key(&vec![key]));
                }
                self.revision += 1;
                let value = Value { bytes: vec![value], revision: self.revision, deadline };
                self.values.insert(vec![key], value);
            }
            Operation::Append(key, value) => {
                self.bury(key);
                self.revision += 1;
                let new = Value { bytes: Vec::new(), revision: 0, deadline: None };
                let entry = self.values.entry(vec![key]).or_insert(new);
                entry.bytes.push(value);
                entry.revision = self.revision;
            }
            Operation::SetDeadline(key, deadline) => {
                if let Some(value) = self.values.get_mut(&vec![key]) {
                    self.revision += 1;
                    value.revision = self.revision;
                    value.deadline = deadline;
                }
            }
            Operation::Delete(key) => {
                self.revision += u64::from(self.values.remove(&vec![key]).is_some());
            }
            Operation::Clear => {
                self.revision += u64::from(!self.values.is_empty() || !self.dead.is_empty());
                self.values.clear();
                self.dead.clear();
            }
            Operation::AdvanceClock(time) => {
                self.clock = self.clock.max(time);
                for (key, value) in &self.values {
                    let dies = value.deadline.filter(|deadline| *deadline <= self.clock);
                    self.dead.extend(dies.map(|deadline| (deadline, key.clone())));
                }
            }
            Operation::ExpireDue(limit) => {
                for _ in 0..limit {
                    self.revision += u64::from(self.dead.pop_first().is_some());
                }
            }
        }
        let clock = self.clock;
        self.values.retain(|_, value| value.deadline.is_none_or(|deadline| deadline > clock));
    }
}

fn apply(store: &mut Store, operation: &Operation) {
    match *operation {
        Operation::Set(key, value, deadline) => {
            let revision = store.set(&[key], &[value], deadline.map(ClusterTime));
            assert_eq!(revision, store.revision());
        }
        Operation::Append(key, value) => {
            let length = store.append(&[key], &[value]);
            assert_eq!(store.get(&[key]).unwrap().value.len(), length);
        }
        Operation::SetDeadline(key, deadline) => {
            let lived = store.contains(&[key]);
            assert_eq!(store.set_deadline(&[key], deadline.map(ClusterTime)), lived);
        }
        Operation::Delete(key) => {
            let lived = store.contains(&[key]);
            assert_eq!(store.delete(&[key]), lived);
        }
        Operation::Clear => store.clear(),
        Operation::AdvanceClock(time) => store.advance_clock(ClusterTime(time)),
        Operation::ExpireDue(limit) => assert!(store.expire_due(limit) <= limit),
    }
}

/// What somebody holds who was told every change and nothing else, and how many those were.
fn told(store: &Store) -> (BTreeMap<Vec<u8>, Value>, u64) {
    let mut values: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
    let mut position = store.history().behind_revision(Revision::ZERO).expect("all of it is kept");
    let (mut last, mut count) = (0, 0);
    while let Some(change) = store.history().next(&mut position) {
        let (key, revision) = (change.key.to_vec(), change.revision.0);
        assert!(revision > last && revision <= store.revision().0, "in order, each once");
        (last, count) = (revision, count + 1);
        let deadline = change.deadline.map(|deadline| deadline.0);
        match change.kind {
            ChangeKind::Set => {
                let value = Value { bytes: change.value.to_vec(), revision, deadline };
                values.insert(key, value);
            }
            ChangeKind::Appended => {
                let value = values.get_mut(&key).expect("there is something to append to");
                value.bytes.extend_from_slice(change.value);
                value.revision = revision;
            }
            ChangeKind::Deadline => {
                let value = values.get_mut(&key).expect("what is given a deadline is there");
                (value.revision, value.deadline) = (revision, deadline);
            }
            ChangeKind::Deleted => assert!(values.remove(&key).is_some()),
            ChangeKind::Expired => {
                let value = values.remove(&key).expect("what expires was there");
                assert!(value.deadline.is_some_and(|deadline| deadline <= store.clock().0));
            }
            ChangeKind::Cleared => values.clear(),
            ChangeKind::Message => panic!("nobody has published"),
        }
    }
    (values, count)
}

fn assert_same(store: &Store, model: &Model) {
    let (mut held, count) = told(store);
    // Also what the next change hides is told: a dead key that is overwritten has expired.
    assert_eq!(count, model.revision - model.silent, "each mutation is told");
    let stored = held.len();
    held.retain(|_, value| value.deadline.is_none_or(|deadline| deadline > model.clock));
    assert_eq!((&held, stored), (&model.values, model.values.len() + model.dead.len()));
    let start = [2];
    let living: Vec<_> = store
        .iter_from(b"")
        .map(|(key, item)| {
            assert_eq!(store.get(key), Some(item));
            let deadline = item.deadline.map(|deadline| deadline.0);
            let bytes = item.value.to_vec();
            (key.to_vec(), Value { bytes, revision: item.revision.0, deadline })
        })
        .collect();
    assert!(living.iter().cloned().eq(model.values.clone()), "{living:?}\n{:?}", model.values);
    assert!(store.iter_from(&start).map(|(key, _)| key[0]).all(|key| key >= 2));
    assert_eq!(store.len(), model.values.len());
    assert_eq!(store.is_empty(), model.values.is_empty());
    assert_eq!(store.revision(), Revision(model.revision));
    assert_eq!(store.clock(), ClusterTime(model.clock));
    // Dead keys may still be stored, so that the next deadline is never later than the model's.
    let soonest = model.values.values().filter_map(|value| value.deadline).min();
    if let Some(soonest) = soonest {
        assert!(store.next_deadline().is_some_and(|deadline| deadline.0 <= soonest));
    }
}

proptest! {
    #[test]
    fn store_agrees_with_its_model(operations in prop::collection::vec(operation(), 0..60)) {
        let mut store = Store::new();
        let mut model = Model::default();
        for operation in &operations {
            apply(&mut store, operation);
            model.apply(operation);
            assert_same(&store, &model);
        }
        // 1. Everything dead goes in bounded steps, and nobody sees it go.
        while store.expire_due(1) > 0 {}
        let dead = model.dead.len();
        model.apply(&Operation::ExpireDue(dead));
        assert_same(&store, &model);
        prop_assert!(store.next_deadline().is_none_or(|deadline| deadline > store.clock()));
        // 2. A store that was filled with just what lives counts the same bytes.
        let mut again = Store::new();
        for (key, value) in &model.values {
            again.set(key, &value.bytes, value.deadline.map(ClusterTime));
        }
        prop_assert_eq!(store.used_bytes(), again.used_bytes());
        // 3. And an emptied one counts none.
        store.clear();
        prop_assert_eq!((store.used_bytes(), store.next_deadline()), (0, None));
    }
}

#[test]
fn expire_due_removes_the_soonest_first_and_ties_by_key() {
    let mut store = Store::new();
    for (key, deadline) in [(b"c", 5), (b"b", 5), (b"a", 9), (b"d", 3)] {
        store.set(key, b"", Some(ClusterTime(deadline)));
    }
    store.advance_clock(ClusterTime(5));
    // 1. Three are dead at once, for everybody.
    assert_eq!(store.len(), 1);
    assert!(!store.contains(b"b") && !store.contains(b"d"));
    // 2. They are removed one by one, in an order that is the same on every node.
    let bytes: Vec<_> = (0..4)
        .map(|_| {
            store.expire_due(1);
            (store.next_deadline().map(|deadline| deadline.0), store.used_bytes())
        })
        .collect();
    let deadlines: Vec<_> = bytes.iter().map(|(deadline, _)| *deadline).collect();
    assert_eq!(deadlines, [Some(5), Some(5), Some(9), Some(9)]);
    // 3. Each removal is a mutation with a revision of its own.
    assert_eq!(store.revision(), Revision(7));
}

#[test]
fn set_on_a_dead_key_that_is_still_stored_begins_anew() {
    let mut store = Store::new();
    store.set(b"a", b"old", Some(ClusterTime(5)));
    store.advance_clock(ClusterTime(5));
    assert!(!store.delete(b"a"), "a dead key is not there to be deleted");
    assert!(!store.set_deadline(b"a", None), "nor to be brought back");
    assert_eq!(store.append(b"a", b"new"), 3);
    assert_eq!(store.get(b"a").unwrap().deadline, None);
    assert_eq!(store.next_deadline(), None);
}

#[test]
fn advance_clock_never_brings_a_key_back() {
    let mut store = Store::new();
    store.set(b"a", b"", Some(ClusterTime(5)));
    store.advance_clock(ClusterTime(6));
    store.advance_clock(ClusterTime(1));
    assert_eq!(store.clock(), ClusterTime(6));
    assert!(!store.contains(b"a"));
}

#[test]
fn advance_clock_to_the_end_of_time_spares_keys_without_a_deadline() {
    let mut store = Store::new();
    store.set(b"a", b"", None);
    store.set(b"b", b"", Some(ClusterTime(i64::MAX as u64)));
    store.advance_clock(ClusterTime(u64::MAX));
    assert!(store.contains(b"a") && !store.contains(b"b"));
}
