//! What one search is given: the operations of one component, and what can be said of them at once.
//!
//! Called by `mod`, which makes it, and by `search`. Leaves out only unknown operations that no
//! order needs.

use std::collections::{BTreeMap, BTreeSet};

use super::history::ClientId;
use super::model::{ABSENT, Action, Result, ValueId, Values};

/// An answered operation.
pub(super) struct Known {
    pub action: Action,
    pub result: Result,
    /// The events of its invocation and its answer.
    pub invoked: usize,
    pub answered: usize,
    /// The operation of the same client that must have taken effect before it.
    pub after: Option<usize>,
    /// Whose it is.
    pub client: ClientId,
    /// Its number in the history.
    pub id: usize,
}

/// A write of unknown outcome.
#[derive(Clone)]
pub(super) struct Unknown {
    pub action: Action,
    pub invoked: usize,
    pub end: End,
}

/// Known operations, which change something, that a write of unknown outcome comes before if it takes
/// effect at all. Once a later write of its own connection was answered it is either done or never
/// will be: a gateway's writes are applied in the order in which they came, and one that is given up
/// isn't sent again (design 2-client-path §2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct End {
    /// The next of its own connection.
    pub own: Option<usize>,
    /// The first, of whatever connection, that was invoked behind that answer.
    pub later: Option<usize>,
}

impl End {
    /// Both of them.
    pub fn all(self) -> impl Iterator<Item = usize> {
        self.own.into_iter().chain(self.later)
    }
}

/// One component: operations in the order of their invocation.
pub(super) struct Problem {
    pub values: Values,
    /// Keys, that is, places in the state.
    pub keys: usize,
    pub known: Vec<Known>,
    pub unknown: Vec<Unknown>,
    /// Whether rule 5 holds. Without it a search fails only at the answer that nothing explains,
    /// and so knows the states there.
    pub gives_up_early: bool,
}

/// Unknown operations with one command and one end.
pub(super) struct Class {
    pub action: Action,
    pub end: End,
    /// The events of their invocations, ascending.
    pub invoked: Vec<usize>,
}

/// Rule 2: unknown operations with the same command and the same end.
pub(super) fn classes(unknown: &[Unknown]) -> Vec<Class> {
    let mut classes: BTreeMap<(&Action, End), Vec<usize>> = BTreeMap::new();
    for one in unknown {
        classes.entry((&one.action, one.end)).or_default().push(one.invoked);
    }
    let class = |((action, end), mut invoked): ((&Action, End), Vec<usize>)| {
        invoked.sort_unstable();
        Class { action: action.clone(), end, invoked }
    };
    classes.into_iter().map(class).collect()
}

/// Rule 4: drops unknown SETs, MSETs and DELs that no order needs.
///
/// A write `u` is dropped if for each of its keys `k` and the value `v` it leaves there, (a) every
/// answered operation on `k` is a SET or MSET, or could not have got its answer while `k` held
/// `v`, and (b) every unknown operation on `k` is a SET, MSET or DEL. Proof: take an order with `u`
/// in it. Between `u` and the next operation that writes `k`, `k` holds `v`, so by (a) no answered
/// operation that looks at `k` stands there, and by (b) no unknown one that does is anywhere. So
/// the value of `k` there makes no difference, and the order without `u` explains the same
/// answers. What is dropped later is dropped from an order that is shorter already.
///
/// Answers which of the known SETs and MSETs fulfil the same.
pub(super) fn drop_unobserved(problem: &mut Problem) -> Vec<bool> {
    let mut blind = vec![true; problem.keys];
    for one in &problem.unknown {
        if written(&one.action).is_none() {
            one.action.keys().into_iter().for_each(|key| blind[key] = false);
        }
    }
    let mut observers: Vec<Vec<usize>> = vec![Vec::new(); problem.keys];
    for (operation, known) in problem.known.iter().enumerate() {
        if !matches!((&known.action, &known.result), (Action::Put(_), Result::Ok)) {
            known.action.keys().into_iter().for_each(|key| observers[key].push(operation));
        }
    }
    let mut told: BTreeMap<(usize, ValueId), bool> = BTreeMap::new();
    let (known, values) = (&problem.known, &mut problem.values);
    let mut is_told = |action: &Action| {
        let mut writes = written(action).into_iter().flatten();
        writes.any(|(key, value)| {
            !blind[key]
                || *told.entry((key, value)).or_insert_with(|| {
                    observers[key].iter().any(|operation| {
                        let known = &known[*operation];
                        known.action.fits(&known.result, key, value, values)
                    })
                })
        })
    };
    problem.unknown.retain(|one| written(&one.action).is_none() || is_told(&one.action));
    let is_put =
        |known: &Known| matches!((&known.action, &known.result), (Action::Put(_), Result::Ok));
    // Nor may one that others must come before be put in its place early.
    let ends: BTreeSet<usize> = problem.unknown.iter().flat_map(|one| one.end.all()).collect();
    let is_untold = |(number, known): (usize, &Known)| {
        is_put(known) && !ends.contains(&number) && !is_told(&known.action)
    };
    known.iter().enumerate().map(is_untold).collect()
}

/// What a blind write leaves in which keys; `None` for an operation that depends on the state.
fn written(action: &Action) -> Option<Vec<(usize, ValueId)>> {
    match action {
        Action::Put(pairs) => {
            let last: BTreeMap<usize, ValueId> = pairs.iter().copied().collect();
            Some(last.into_iter().collect())
        }
        Action::Delete(keys) => Some(keys.iter().map(|key| (*key, ABSENT)).collect()),
        _ => None,
    }
}
