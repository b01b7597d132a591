//! Values that answered operations must meet, and who can make them.
//!
//! Source: the read mapping of Gibbons and Korach's "Testing shared memories" (1997), used only to
//! give up early. Called by `search`. Never gives up a configuration that leads anywhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::model::{ABSENT, Action, Result, ValueId, Values};
use super::problem::{Class, Known, Problem};

/// Sums of unknown additions that are followed for one key; with more, a value may come from
/// anywhere.
const SUMS: usize = 64;

/// One value of one key that an answered operation must meet. It is made by an operation that puts
/// it there, or by unknown additions from a value that is.
struct Need {
    /// Answered operations that can take effect only while the key holds the value, in the order of
    /// their answers.
    observers: Vec<usize>,
    /// Answered operations that put the value, or one that additions start from, there; likewise.
    producers: Vec<usize>,
    /// Unknown commands that do.
    classes: Vec<u32>,
    /// The value, and all that unknown additions make it from.
    from: Vec<ValueId>,
}

/// What must be met. The maps are only ever looked up.
pub(super) struct Needs {
    /// By operation: the values that it must meet.
    met_by: Vec<Vec<(usize, ValueId)>>,
    /// Without those that may come from anywhere.
    needs: HashMap<(usize, ValueId), Need>,
    /// What needs a value: itself, or what additions make of it.
    needed_for: HashMap<(usize, ValueId), Vec<ValueId>>,
    /// Keys that are only read and counted upwards: none of their values ever comes back.
    is_only_raised: Vec<bool>,
}

/// What is still to come, as a configuration has it.
pub(super) struct ToCome<Past, Open, Left> {
    /// Whether an operation has been answered already.
    pub is_past: Past,
    /// Whether one that has not been answered has not taken effect either.
    pub is_open: Open,
    /// Whether an unknown command can still take effect, now or later.
    pub is_left: Left,
}

impl Needs {
    pub fn new(problem: &mut Problem, classes: &[Class], sums: &Sums) -> Needs {
        let mut order: Vec<usize> = (0..problem.known.len()).collect();
        order.sort_by_key(|operation| problem.known[*operation].answered);
        let mut makers = Makers::default();
        let mut met_by = vec![Vec::new(); problem.known.len()];
        let mut observers: BTreeMap<(usize, ValueId), Vec<usize>> = BTreeMap::new();
        for operation in order {
            let known = &problem.known[operation];
            makers.look(&known.action);
            for place in produced_by(known, &mut problem.values) {
                makers.known.entry(place).or_default().push(operation);
            }
            met_by[operation] = observed(&known.action, &known.result, &mut problem.values);
            for place in &met_by[operation] {
                observers.entry(*place).or_default().push(operation);
            }
        }
        for (class, number) in classes.iter().zip(0..) {
            makers.look(&class.action);
            for place in produced(&class.action) {
                makers.unknown.entry(place).or_default().push(number);
            }
        }
        let is_only_raised =
            (0..problem.keys).map(|key| !makers.is_written.contains(&key)).collect();
        let mut needs = HashMap::new();
        let mut needed_for: HashMap<(usize, ValueId), Vec<ValueId>> = HashMap::new();
        for ((key, value), observers) in observers {
            let Some(from) = sums.sources(key, value, &mut problem.values) else { continue };
            if makers.is_appended.contains(&key) {
                continue;
            }
            for source in &from {
                needed_for.entry((key, *source)).or_default().push(value);
            }
            let need = makers.need(key, from, observers, &problem.known);
            needs.insert((key, value), need);
        }
        Needs { met_by, needs, needed_for, is_only_raised }
    }

    /// How many operations must at least take effect before `operation` can in `state`; nothing if
    /// it cannot. `produced_in` says it of an operation that may put a missing value there, and
    /// `is_left` whether an unknown command may.
    pub fn distance(
        &self,
        operation: usize,
        state: &[ValueId],
        produced_in: impl Fn(usize) -> Option<u32>,
        is_left: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut most = 0;
        for &(key, value) in &self.met_by[operation] {
            let Some(need) = self.needs.get(&(key, value)).filter(|_| state[key] != value) else {
                continue;
            };
            let known = need.producers.iter().filter_map(|one| produced_in(*one));
            let unknown = need.classes.iter().filter(|class| is_left(**class)).map(|_| 1);
            let added = need.from.contains(&state[key]).then_some(1);
            most = most.max(known.chain(unknown).chain(added).min()?);
        }
        Some(most)
    }

    /// Whether an operation still to come needs what `key` has just lost by turning from `before`
    /// into `after`, and none still to come can put it back.
    pub fn are_missed(
        &self,
        key: usize,
        (before, after): (ValueId, ValueId),
        to_come: &ToCome<impl Fn(usize) -> bool, impl Fn(usize) -> bool, impl Fn(u32) -> bool>,
    ) -> bool {
        let needed = self.needed_for.get(&(key, before)).map_or(&[][..], Vec::as_slice);
        needed.iter().any(|value| {
            let need = &self.needs[&(key, *value)];
            // From the latest answer backwards: before the first past one all are past.
            let any_open = |operations: &[usize]| {
                let late = operations.iter().rev().take_while(|one| !(to_come.is_past)(**one));
                late.copied().any(&to_come.is_open)
            };
            if !any_open(&need.observers) {
                return false;
            }
            if self.is_only_raised[key] && *value == before {
                return true;
            }
            !need.from.contains(&after)
                && !any_open(&need.producers)
                && !need.classes.iter().any(|class| (to_come.is_left)(*class))
        })
    }
}

/// Who makes which value of which key. The maps are only ever looked up.
#[derive(Default)]
struct Makers {
    known: HashMap<(usize, ValueId), Vec<usize>>,
    unknown: HashMap<(usize, ValueId), Vec<u32>>,
    /// Keys that something else than reads and increments touches.
    is_written: BTreeSet<usize>,
    /// Keys that are appended to: what that makes is not followed.
    is_appended: BTreeSet<usize>,
}

impl Makers {
    fn look(&mut self, action: &Action) {
        match action {
            Action::Get(_) | Action::MGet(_) | Action::Strlen(_) | Action::Exists(_) => {}
            Action::Add(_, by) if *by > 0 => {}
            other => self.is_written.extend(other.keys()),
        }
        if let Action::Append(key, _) = action {
            self.is_appended.insert(*key);
        }
    }

    fn need(&self, key: usize, from: Vec<ValueId>, observers: Vec<usize>, known: &[Known]) -> Need {
        let places = || from.iter().map(|source| (key, *source));
        let of = |place| self.known.get(&place).into_iter().flatten().copied();
        let mut producers: Vec<usize> = places().flat_map(of).collect();
        producers.sort_by_key(|operation| known[*operation].answered);
        let of = |place| self.unknown.get(&place).into_iter().flatten().copied();
        let classes = places().flat_map(of).collect();
        Need { observers, producers, classes, from }
    }
}

/// What unknown additions to each key add up to.
pub(super) struct Sums(BTreeMap<usize, Option<BTreeSet<i64>>>);

impl Sums {
    pub fn new(classes: &[Class]) -> Sums {
        let mut sums: BTreeMap<usize, Option<BTreeSet<i64>>> = BTreeMap::new();
        for class in classes {
            if let Action::Add(key, by) = class.action {
                let of_key = sums.entry(key).or_insert_with(|| Some(BTreeSet::new()));
                for _ in 0..class.invoked.len() {
                    *of_key = of_key.take().and_then(|sums| with_one_more(sums, by));
                }
            }
        }
        Sums(sums)
    }

    /// The sums of all subsets of the unknown additions to `key`, if there are any; nothing
    /// inside: too many.
    pub fn of(&self, key: usize) -> Option<&Option<BTreeSet<i64>>> {
        self.0.get(&key)
    }

    /// `value`, and what additions make it from; nothing where that may be anything.
    fn sources(&self, key: usize, value: ValueId, values: &mut Values) -> Option<Vec<ValueId>> {
        let mut from = vec![value];
        let (Some(sums), Some(integer)) = (self.of(key), values.as_integer(value)) else {
            return Some(from);
        };
        let sums = sums.as_ref()?;
        from.extend(sums.iter().filter_map(|sum| Some(values.integer(integer.checked_sub(*sum)?))));
        // No value counts as zero.
        from.extend(sums.contains(&integer).then_some(ABSENT));
        Some(from)
    }
}

fn with_one_more(sums: BTreeSet<i64>, by: i64) -> Option<BTreeSet<i64>> {
    let more: Option<Vec<i64>> = sums.iter().map(|sum| sum.checked_add(by)).collect();
    let mut sums = sums;
    sums.extend(more?);
    sums.insert(by);
    (sums.len() <= SUMS).then_some(sums)
}

fn observed(action: &Action, result: &Result, values: &mut Values) -> Vec<(usize, ValueId)> {
    match (action, result) {
        (Action::Get(key), Result::Value(value)) => vec![(*key, *value)],
        (Action::MGet(keys), Result::Values(seen)) => {
            keys.iter().copied().zip(seen.iter().copied()).collect()
        }
        (Action::Swap { key, old, .. }, Result::Integer(1)) => vec![(*key, *old)],
        (Action::Swap { key, .. }, Result::Integer(-1)) => vec![(*key, ABSENT)],
        (Action::PutNew(key, _), Result::Integer(1)) => vec![(*key, ABSENT)],
        (Action::Exists(keys) | Action::Delete(keys), Result::Integer(0)) => {
            keys.iter().map(|key| (*key, ABSENT)).collect()
        }
        (Action::Add(key, by), Result::Integer(sum)) => match sum.checked_sub(*by) {
            // Zero may be no value as well.
            None | Some(0) => Vec::new(),
            Some(before) => vec![(*key, values.integer(before))],
        },
        _ => Vec::new(),
    }
}

/// What an answered operation may have left, so far as its answer tells.
fn produced_by(known: &Known, values: &mut Values) -> Vec<(usize, ValueId)> {
    match (&known.action, &known.result) {
        (Action::Swap { .. } | Action::PutNew(..), Result::Integer(1)) => produced(&known.action),
        (Action::Swap { .. } | Action::PutNew(..), _) => Vec::new(),
        (Action::Delete(_), Result::Integer(0)) => Vec::new(),
        (Action::Add(key, _), Result::Integer(sum)) => vec![(*key, values.integer(*sum))],
        _ => produced(&known.action),
    }
}

fn produced(action: &Action) -> Vec<(usize, ValueId)> {
    match action {
        Action::Put(pairs) => pairs.clone(),
        Action::PutNew(key, value) => vec![(*key, *value)],
        Action::Delete(keys) => keys.iter().map(|key| (*key, ABSENT)).collect(),
        Action::Swap { key, new, .. } => vec![(*key, *new)],
        Action::Transaction { then, otherwise, .. } => {
            then.iter().chain(otherwise).flat_map(produced).collect()
        }
        _ => Vec::new(),
    }
}
