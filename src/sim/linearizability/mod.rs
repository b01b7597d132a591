//! Is a history of clients linearizable? The answer, and for a no, which operations contradict.
//!
//! Source: Herlihy and Wing, "Linearizability" (1990); keys that no operation joins are checked
//! apart (its locality theorem; Horn and Kroening's P-compositionality), each by Wing and Gong's
//! search in Lowe's order (`search`). Called by the simulator at the end of a seed and by tests. Never trusts an answer that it did not find an order for: a
//! search that runs out of its budget is a failure.

mod attempts;
mod history;
mod model;
mod needs;
mod node;
mod problem;
mod report;
mod search;
mod told;
mod transaction;

use std::collections::BTreeMap;
use std::fmt;

pub use history::{Answer, ClientId, Command, History, OperationId, Word};
pub use report::Contradiction;
pub use transaction::Transaction;

use history::Ending;
use model::{Action, Values};
use problem::{End, Known, Problem, Unknown};
use search::{Outcome, search};

/// Operations that a search may try for a whole history. A history of thousands of operations
/// that is linearizable takes some ten or hundred for each.
pub const STEPS: u64 = 100_000_000;

/// A history that some order explains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Operations that were answered.
    pub operations: usize,
    /// Groups of keys that were checked apart.
    pub components: usize,
    /// Operations that the search tried.
    pub steps: u64,
}

/// Why a history does not pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No order explains it.
    Contradiction(Contradiction),
    /// The search was not finished: nothing is known, which is no better than a contradiction.
    OutOfBudget {
        /// The keys that were checked together.
        keys: Vec<Word>,
        /// Operations on them.
        operations: usize,
        /// The budget of the whole history.
        steps: u64,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Contradiction(contradiction) => contradiction.fmt(f),
            Failure::OutOfBudget { keys, operations, steps } => write!(
                f,
                "linearizable: undecided after {steps} steps, which counts as a failure: \
                 {operations} operations on {}",
                report::list(keys)
            ),
        }
    }
}

impl std::error::Error for Failure {}

/// Looks for an order of the operations of `history` that agrees with time, with the order of
/// each client and with all answers, in at most `steps` tries (usually [`STEPS`]).
///
/// # Errors
/// The contradiction that shows first; or that the budget was too small to tell.
pub fn check(history: &History, steps: u64) -> Result<Verdict, Failure> {
    let components = components(history);
    let mut left = steps;
    let mut earliest: Option<(usize, Broken)> = None;
    let mut undecided = None;
    for component in &components {
        let mut problem = problem(history, component, |_| Sight::AsItWas);
        match search(&mut problem, &mut left) {
            Outcome::Explained => {}
            Outcome::Contradicted { .. } => {
                let (answered, last) = report::first(history, component, &problem);
                if earliest.as_ref().is_none_or(|(first, _)| answered < *first) {
                    earliest = Some((answered, Broken { component, last }));
                }
            }
            Outcome::OutOfBudget => undecided = undecided.or(Some(component)),
        }
    }
    if let Some((_, broken)) = earliest {
        return Err(Failure::Contradiction(report::explain(history, broken)));
    }
    if let Some(component) = undecided {
        let (keys, operations) = (component.keys.clone(), component.operations.len());
        return Err(Failure::OutOfBudget { keys, operations, steps });
    }
    let answered = |one: &&history::Operation| matches!(one.ending, Ending::Answered { .. });
    let operations = history.operations.iter().filter(answered).count();
    Ok(Verdict { operations, components: components.len(), steps: steps - left })
}

/// Keys that operations join, and the operations on them.
struct Component {
    /// Ascending.
    keys: Vec<Word>,
    /// Numbers in the history, ascending.
    operations: Vec<usize>,
}

/// A component without an order.
struct Broken<'a> {
    component: &'a Component,
    /// The operation up to whose answer there is none, by its number in the history.
    last: usize,
}

/// Whether an operation says anything at all: one without effect doesn't, nor does a read that
/// was not answered.
fn counts(operation: &history::Operation) -> bool {
    match operation.ending {
        Ending::NotDone => false,
        Ending::Unknown => !operation.command.is_read(),
        Ending::Answered { .. } => true,
    }
}

fn components(history: &History) -> Vec<Component> {
    let mut places: BTreeMap<&[u8], usize> = BTreeMap::new();
    let counted = || history.operations.iter().enumerate().filter(|(_, one)| counts(one));
    for key in counted().flat_map(|(_, operation)| operation.command.keys()) {
        places.insert(key, 0);
    }
    for (number, place) in places.values_mut().enumerate() {
        *place = number;
    }
    // Each key points towards the first of its group.
    let mut group: Vec<usize> = (0..places.len()).collect();
    let first_of = |group: &[usize], mut key: usize| {
        while group[key] != key {
            key = group[key];
        }
        key
    };
    for (_, operation) in counted() {
        let keys = operation.command.keys();
        for pair in keys.windows(2) {
            let (one, other) = (places[pair[0]], places[pair[1]]);
            let (one, other) = (first_of(&group, one), first_of(&group, other));
            group[one.max(other)] = one.min(other);
        }
    }
    let mut components: BTreeMap<usize, Component> = BTreeMap::new();
    for (key, place) in &places {
        let component = components
            .entry(first_of(&group, *place))
            .or_insert_with(|| Component { keys: Vec::new(), operations: Vec::new() });
        component.keys.push(key.to_vec());
    }
    for (number, operation) in counted() {
        let key = operation.command.keys()[0];
        let component = components.get_mut(&first_of(&group, places[key]));
        component.expect("every key has a component").operations.push(number);
    }
    components.into_values().collect()
}

/// How much of an operation a search is told. Less than it was makes only more orders possible.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// All of it.
    AsItWas,
    /// That it was invoked, when it was.
    Unanswered,
    /// That somebody may at any time have tried it.
    Anytime,
    /// Nothing. Only right where the operation comes after all others, or is a read.
    Hidden,
}

/// What the operation comes before, whose outcome is unknown.
fn end(history: &History, component: &Component, id: usize, known: &[Known]) -> End {
    let operation = &history.operations[id];
    let Some((next, answered)) = operation.next_write else { return End::default() };
    let place = |from: usize, fits: &dyn Fn(&Known) -> bool| {
        let changes = |one: &Known| !one.action.changes_nothing(&one.result) && fits(one);
        known[from..].iter().position(changes).map(|place| from + place)
    };
    let behind = known.partition_point(|one| one.id < id);
    let own = place(behind, &|one| one.client == operation.client);
    let behind = known.partition_point(|one| one.id < next);
    // What the search isn't told of bounds nothing.
    let is_known = known.get(behind).is_some_and(|one| one.id == next);
    let is_told = is_known || component.operations.binary_search(&next).is_err();
    let behind = known.partition_point(|one| one.invoked < answered);
    End { own, later: if is_told { place(behind, &|_| true) } else { None } }
}

fn problem(history: &History, component: &Component, sight: impl Fn(usize) -> Sight) -> Problem {
    let keys = component.keys.iter().enumerate();
    let places: BTreeMap<&[u8], usize> = keys.map(|(place, key)| (key.as_slice(), place)).collect();
    let mut values = Values::new();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let mut latest: BTreeMap<ClientId, usize> = BTreeMap::new();
    let mut doubtful: Vec<(usize, usize)> = Vec::new();
    for &id in &component.operations {
        let operation = &history.operations[id];
        let sight = sight(id);
        if sight == Sight::Hidden {
            continue;
        }
        let action = Action::new(&operation.command, &places, &mut values);
        if let Ending::Answered { event, answer, .. } = &operation.ending
            && sight == Sight::AsItWas
        {
            let result = action.result(answer, &mut values);
            let after = latest.insert(operation.client, known.len());
            let (invoked, answered, client) = (operation.invoked, *event, operation.client);
            known.push(Known { action, result, invoked, answered, after, client, id });
        } else if !operation.command.is_read() {
            let is_bound = sight == Sight::AsItWas;
            doubtful.extend(is_bound.then_some((id, unknown.len())));
            let invoked = if sight == Sight::Anytime { 0 } else { operation.invoked };
            unknown.push(Unknown { action, invoked, end: End::default() });
        }
    }
    for (id, place) in doubtful {
        unknown[place].end = end(history, component, id, &known);
    }
    Problem { values, keys: places.len(), known, unknown, gives_up_early: true }
}
