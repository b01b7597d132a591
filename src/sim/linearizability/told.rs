//! Which values can still be told from each other, and which unknown commands still matter.
//!
//! Source: the usual abstraction by what an observer can see (Milner's bisimulation), computed from
//! the answers that are still to come. Called by `search`, whose configurations hold values so
//! simplified. Never makes two values one that an operation still to come tells apart.
//!
//! At an answer, a value of a key is *told* if an operation that is answered there or later, or
//! one of unknown outcome, behaves in one way on it and in another on some value like it: GET that
//! saw it, CAS that names it, INCR that came from it. All the others of a key are one integer and
//! one text, [`SOME_INTEGER`] and [`SOME_TEXT`].

use std::collections::{BTreeMap, HashMap};

use super::model::{ABSENT, Action, Result, SOME_INTEGER, SOME_TEXT, ValueId, Values};
use super::needs::Sums;
use super::problem::{Class, End, Problem};

/// Values of one key and what unknown additions make of them: with more, none is simplified.
const STARTS: usize = 100_000;

/// Integers beyond this are always told apart: an addition to them may overflow.
const FAR: u64 = 1 << 62;

/// What is still to come, as it concerns values. The map is only ever looked up.
pub(super) struct Told {
    /// By key and value: the latest answer that tells it; the end of time for unknown commands.
    until: HashMap<(usize, ValueId), usize>,
    keys: Vec<Key>,
}

/// One key. Events of the latest answers of some kind, behind which there is none.
#[derive(Clone, Copy, Default)]
struct Key {
    /// Its values have lengths and parts that matter, or too many sums.
    is_whole: bool,
    /// That fit an integer, or a text, which nobody tells.
    some_integer: usize,
    some_text: usize,
    /// That look at it at all.
    any: usize,
}

/// Unknown commands as they differ at one answer.
#[derive(Debug)]
pub(super) struct Groups {
    /// By class: the first class that does the same, or nothing for one that nobody could tell.
    first: Vec<Option<u32>>,
    /// By that first class.
    groups: BTreeMap<u32, Group>,
}

/// Unknown commands that do the same up to the same end.
#[derive(Debug)]
pub(super) struct Group {
    pub action: Action,
    pub end: End,
    /// The events of their invocations, ascending.
    pub invoked: Vec<usize>,
}

impl Told {
    pub fn new(problem: &mut Problem, classes: &[Class], sums: &Sums) -> Told {
        let whole = Key { is_whole: !problem.gives_up_early, ..Key::default() };
        let mut keys = vec![whole; problem.keys];
        let until: HashMap<(usize, ValueId), usize> = HashMap::new();
        let mut told: BTreeMap<(usize, ValueId), usize> = BTreeMap::new();
        for known in &problem.known {
            let at = known.answered;
            look(&mut keys, &known.action);
            for key in known.action.keys() {
                let values = &mut problem.values;
                let mut fits = |value| known.action.fits(&known.result, key, value, values);
                let (integer, text) = (fits(SOME_INTEGER), fits(SOME_TEXT));
                let key = &mut keys[key];
                if !matches!(known.action, Action::Put(_)) {
                    key.any = key.any.max(at);
                    key.some_integer = key.some_integer.max(if integer { at } else { 0 });
                    key.some_text = key.some_text.max(if text { at } else { 0 });
                }
            }
            for place in tells(&known.action, Some(&known.result), &mut problem.values) {
                let latest = told.entry(place).or_default();
                *latest = at.max(*latest);
            }
        }
        for class in classes {
            look(&mut keys, &class.action);
            // What it finds in one key decides what it leaves in others.
            if let Action::Transaction { .. } = class.action {
                class.action.keys().into_iter().for_each(|key| keys[key].any = usize::MAX);
            }
        }
        let starts = vec![0; problem.keys];
        let mut told_until = Until { until, raised: HashMap::new(), starts, keys, sums };
        for (place, at) in told {
            told_until.raise(place, at, &mut problem.values);
        }
        told_until.spread(classes, &mut problem.values);
        let Until { until, keys, .. } = told_until;
        Told { until, keys }
    }

    /// What is left of a value at the answer `now`.
    pub fn simplify(&self, key: usize, value: ValueId, now: usize, values: &Values) -> ValueId {
        let is_simple = matches!(value, ABSENT | SOME_INTEGER | SOME_TEXT);
        if is_simple || self.keys[key].is_whole {
            return value;
        }
        if self.until.get(&(key, value)).is_some_and(|until| *until >= now) {
            return value;
        }
        match values.as_integer(value) {
            Some(integer) if integer.unsigned_abs() >= FAR => value,
            Some(_) => SOME_INTEGER,
            None => SOME_TEXT,
        }
    }

    /// The unknown commands at the answer `now`.
    pub fn groups(&self, classes: &[Class], now: usize, values: &Values) -> Groups {
        let mut first_of: BTreeMap<(Action, End), u32> = BTreeMap::new();
        let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
        let mut first = Vec::with_capacity(classes.len());
        for (class, number) in classes.iter().zip(0..) {
            let action = self.simplify_action(&class.action, now, values);
            if !self.is_seen(&action, now) {
                first.push(None);
                continue;
            }
            let end = class.end;
            let of = *first_of.entry((action.clone(), end)).or_insert(number);
            let make = || Group { action, end, invoked: Vec::new() };
            let group = groups.entry(of).or_insert_with(make);
            group.invoked.extend(&class.invoked);
            first.push(Some(of));
        }
        groups.values_mut().for_each(|group| group.invoked.sort_unstable());
        Groups { first, groups }
    }

    fn simplify_action(&self, action: &Action, now: usize, values: &Values) -> Action {
        let simple = |key: usize, value| self.simplify(key, value, now, values);
        match action {
            Action::Put(pairs) => {
                let last: BTreeMap<usize, ValueId> = pairs.iter().copied().collect();
                Action::Put(
                    last.into_iter().map(|(key, value)| (key, simple(key, value))).collect(),
                )
            }
            Action::PutNew(key, value) => Action::PutNew(*key, simple(*key, *value)),
            Action::Swap { key, old, new } => {
                Action::Swap { key: *key, old: *old, new: simple(*key, *new) }
            }
            other => other.clone(),
        }
    }

    /// Whether an answer at `now` or later can depend on whether the unknown `action` took effect.
    ///
    /// A write that leaves [`SOME_INTEGER`] or [`SOME_TEXT`] is seen by what fits that. Where
    /// nothing does, an order with it can do without: between it and the next operation that writes
    /// the key for good stand only unknown ones, which change nothing that is told and can go too.
    fn is_seen(&self, action: &Action, now: usize) -> bool {
        let by = |key: usize, value| match value {
            SOME_INTEGER => self.keys[key].some_integer,
            SOME_TEXT => self.keys[key].some_text,
            _ => self.keys[key].any,
        };
        match action {
            Action::Put(pairs) => pairs.iter().any(|(key, value)| by(*key, *value) >= now),
            // It finds nothing: what it looks for is told from nothing else.
            Action::Swap { key, old, .. } if !self.keys[*key].is_whole => {
                self.until.get(&(*key, *old)).is_some_and(|until| *until >= now)
            }
            _ => action.keys().iter().any(|key| self.keys[*key].any >= now),
        }
    }
}

/// [`Told`] in the making.
struct Until<'a> {
    until: HashMap<(usize, ValueId), usize>,
    /// Values that were given what unknown additions make them from, and up to when.
    raised: HashMap<(usize, ValueId), usize>,
    /// By key: what unknown additions have added so far.
    starts: Vec<usize>,
    keys: Vec<Key>,
    sums: &'a Sums,
}

impl Until<'_> {
    /// A value is told up to `at`, and so is what unknown additions make it from. Whether that is
    /// news.
    fn raise(&mut self, (key, value): (usize, ValueId), at: usize, values: &mut Values) -> bool {
        // Not `until`: that has values too that are only where others are made from.
        let latest = self.raised.entry((key, value)).or_default();
        if at <= *latest {
            return false;
        }
        *latest = at;
        self.put(key, value, at);
        let Some(integer) = values.as_integer(value) else { return true };
        match self.sums.of(key) {
            None => {}
            Some(Some(sums)) if self.starts[key] + sums.len() <= STARTS => {
                self.starts[key] += sums.len();
                for start in sums.iter().filter_map(|sum| integer.checked_sub(*sum)) {
                    self.put(key, values.integer(start), at);
                }
            }
            Some(_) => self.keys[key].is_whole = true,
        }
        true
    }

    fn put(&mut self, key: usize, value: ValueId, at: usize) {
        let latest = self.until.entry((key, value)).or_default();
        *latest = at.max(*latest);
    }

    /// An unknown CAS tells the value that it looks for as long as what it makes of it is told:
    /// beyond that it makes one value that nobody tells into another.
    fn spread(&mut self, classes: &[Class], values: &mut Values) {
        let mut is_done = false;
        while !is_done {
            is_done = true;
            for class in classes {
                let Action::Swap { key, old, new } = class.action else { continue };
                let (from, to) = (values.as_integer(old), values.as_integer(new));
                let is_near = |one: Option<i64>| one.is_none_or(|one| one.unsigned_abs() < FAR);
                let is_near = is_near(from) && is_near(to);
                let is_alike = new != ABSENT && from.is_some() == to.is_some() && is_near;
                let at = match is_alike {
                    true => self.until.get(&(key, new)).copied().unwrap_or(0),
                    false => usize::MAX,
                };
                if at > 0 && self.raise((key, old), at, values) {
                    is_done = false;
                }
            }
        }
    }
}

impl Groups {
    /// The group of a class, unless nobody could tell it.
    pub fn of(&self, class: u32) -> Option<(u32, &Group)> {
        let first = self.first[class as usize]?;
        Some((first, &self.groups[&first]))
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Group)> {
        self.groups.iter().map(|(first, group)| (*first, group))
    }
}

fn look(keys: &mut [Key], action: &Action) {
    if let Action::Append(key, _) | Action::Strlen(key) = action {
        keys[*key].is_whole = true;
    }
    if let Action::Transaction { .. } = action {
        action.keys().into_iter().for_each(|key| keys[key].is_whole = true);
    }
}

/// The values that an operation behaves on as on no other; without a result, an unknown one.
fn tells(action: &Action, result: Option<&Result>, values: &mut Values) -> Vec<(usize, ValueId)> {
    match (action, result) {
        (Action::Get(key), Some(Result::Value(value))) => vec![(*key, *value)],
        (Action::MGet(keys), Some(Result::Values(seen))) => {
            keys.iter().copied().zip(seen.iter().copied()).collect()
        }
        (Action::Swap { key, old, .. }, _) => vec![(*key, *old)],
        (Action::Add(key, by), Some(Result::Integer(sum))) => {
            let before = sum.checked_sub(*by);
            before.map(|before| (*key, values.integer(before))).into_iter().collect()
        }
        _ => Vec::new(),
    }
}
