//! Values that answered operations must meet, and who can make them.
//!
//! Source: the read mapping of Gibbons and Korach's "Testing shared memories" (1997), used only to
//! give up early. Called by `search`. Never gives up a configuration that leads anywhere.

use std::collections::HashMap;

use super::model::{ABSENT, Action, Result, ValueId};
use super::search::Problem;

/// One value of one key. Operations by the order of their answers.
#[derive(Default)]
struct Need {
    /// Answered operations that can take effect only while the key holds the value.
    observers: Vec<usize>,
    /// Answered operations that can put it there.
    producers: Vec<usize>,
    /// Whether one of unknown outcome can.
    maybe: bool,
}

/// What must be met. The map is only ever looked up.
pub(super) struct Needs {
    needs: HashMap<(usize, ValueId), Need>,
    /// Keys whose producers are all known: those nobody adds or appends to; and those that are
    /// only read and counted upwards, whose values never come back.
    settled: Vec<bool>,
}

impl Needs {
    pub fn new(problem: &mut Problem) -> Needs {
        let mut computed = vec![false; problem.keys];
        let mut written = vec![false; problem.keys];
        let known = problem.known.iter().map(|known| &known.action);
        for action in known.chain(problem.unknown.iter().map(|unknown| &unknown.action)) {
            match action {
                Action::Get(_) | Action::MGet(_) | Action::Strlen(_) | Action::Exists(_) => {}
                Action::Add(key, by) if *by > 0 => computed[*key] = true,
                Action::Add(key, _) | Action::Append(key, _) => {
                    computed[*key] = true;
                    written[*key] = true;
                }
                _ => action.keys().into_iter().for_each(|key| written[key] = true),
            }
        }
        let settled = (0..problem.keys).map(|key| !computed[key] || !written[key]).collect();
        let mut needs: HashMap<(usize, ValueId), Need> = HashMap::new();
        let mut order: Vec<usize> = (0..problem.known.len()).collect();
        order.sort_by_key(|operation| problem.known[*operation].answered);
        for operation in order {
            let known = &problem.known[operation];
            for (key, value) in observed(&known.action, &known.result, &mut problem.values) {
                needs.entry((key, value)).or_default().observers.push(operation);
            }
            for (key, value) in produced(&known.action) {
                needs.entry((key, value)).or_default().producers.push(operation);
            }
        }
        for unknown in &problem.unknown {
            for (key, value) in produced(&unknown.action) {
                needs.entry((key, value)).or_default().maybe = true;
            }
        }
        Needs { needs, settled }
    }

    /// Whether an operation still to come needs `key` to hold `value`, which it has just lost, and
    /// none still to come can put it back. `is_past` are those answered already, `is_open` those
    /// of the others that have not taken effect.
    pub fn are_missed(
        &self,
        key: usize,
        value: ValueId,
        is_past: impl Fn(usize) -> bool,
        is_open: impl Fn(usize) -> bool,
    ) -> bool {
        let Some(need) = self.needs.get(&(key, value)).filter(|_| self.settled[key]) else {
            return false;
        };
        // From the latest answer backwards: before the first past one all are past.
        let any_open = |operations: &[usize]| {
            let to_come = operations.iter().rev().take_while(|operation| !is_past(**operation));
            to_come.copied().any(&is_open)
        };
        !need.maybe && any_open(&need.observers) && !any_open(&need.producers)
    }
}

fn observed(
    action: &Action,
    result: &Result,
    values: &mut super::model::Values,
) -> Vec<(usize, ValueId)> {
    match (action, result) {
        (Action::Get(key), Result::Value(value)) => vec![(*key, *value)],
        (Action::MGet(keys), Result::Values(seen)) => {
            keys.iter().copied().zip(seen.iter().copied()).collect()
        }
        (Action::Swap { key, old, .. }, Result::Integer(1)) => vec![(*key, *old)],
        (Action::Add(key, by), Result::Integer(sum)) => match sum.checked_sub(*by) {
            // Zero may be no value as well.
            None | Some(0) => Vec::new(),
            Some(before) => vec![(*key, values.integer(before))],
        },
        _ => Vec::new(),
    }
}

fn produced(action: &Action) -> Vec<(usize, ValueId)> {
    match action {
        Action::Put(pairs) => pairs.clone(),
        Action::PutNew(key, value) => vec![(*key, *value)],
        Action::Delete(keys) => keys.iter().map(|key| (*key, ABSENT)).collect(),
        Action::Swap { key, new, .. } => vec![(*key, *new)],
        _ => Vec::new(),
    }
}
