//! A contradiction cut down to the operations that make it, and told in plain words.
//!
//! Source: Zeller's delta debugging, on constraints instead of input: an operation is left out by
//! letting it take effect at any time or never, so that what remains contradicts itself whatever
//! the others did. Called by `check` after a search has failed. Decides nothing.

use std::collections::BTreeSet;
use std::fmt;

use super::history::{Answer, Command, Ending, History, OperationId, Word, show};
use super::problem::Problem;
use super::search::{Outcome, search};
use super::transaction::Transaction;
use super::{Broken, Component, Sight, problem};

/// Tries for all attempts at leaving operations out, and for each. What they don't reach stays in.
const REPORT_STEPS: u64 = 2_000_000;
const ATTEMPT_STEPS: u64 = 50_000;

/// Operations that the text lists, the latest ones.
const LISTED: usize = 40;

/// Operations that no order explains. `Display` tells it, over several lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contradiction {
    /// The keys that were checked together.
    pub keys: Vec<Word>,
    /// The operations that contradict each other, in the order of their invocation.
    pub operations: Vec<OperationId>,
    /// The one of them whose answer completed the contradiction.
    pub last: OperationId,
    /// Some of the states that could hold when the last one had to take effect: for each key its
    /// value.
    pub states: Vec<Vec<Option<Word>>>,
    text: String,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub(super) fn explain(history: &History, broken: Broken<'_>) -> Contradiction {
    let Broken { component, last } = broken;
    let (remaining, states) = cut_down(history, component, last);
    let id = |number: usize| OperationId(u32::try_from(number).expect("it came from an id"));
    let mut contradiction = Contradiction {
        keys: component.keys.clone(),
        operations: remaining.iter().copied().map(id).collect(),
        last: id(last),
        states,
        text: String::new(),
    };
    contradiction.text = tell(history, component, &contradiction);
    contradiction
}

/// For each key of a component its value.
type State = Vec<Option<Word>>;

/// The first answer up to which there is no order (event and operation), given that there is none
/// for the whole: what holds for a beginning holds for all that goes on from it, so halving finds
/// it. A beginning that cannot be decided counts as one with an order.
pub(super) fn first(history: &History, component: &Component, whole: &Problem) -> (usize, usize) {
    let mut ends: Vec<(usize, usize)> =
        whole.known.iter().map(|known| (known.answered, known.id)).collect();
    ends.sort_unstable();
    let has_order = |&(end, _): &(usize, usize)| {
        let sight = |id: usize| match answered(history, id) {
            _ if history.operations[id].invoked > end => Sight::Hidden,
            answer if answer <= end => Sight::AsItWas,
            _ => Sight::Unanswered,
        };
        let mut steps = REPORT_STEPS;
        let outcome = search(&mut problem(history, component, sight), &mut steps);
        !matches!(outcome, Outcome::Contradicted { .. })
    };
    let place = ends.partition_point(has_order);
    ends[place.min(ends.len() - 1)]
}

fn answered(history: &History, operation: usize) -> usize {
    match history.operations[operation].ending {
        Ending::Answered { event, .. } => event,
        _ => usize::MAX,
    }
}

/// The operations that cannot be left out, `last` among them.
fn cut_down(
    history: &History,
    component: &Component,
    last: usize,
) -> (BTreeSet<usize>, Vec<State>) {
    let end = answered(history, last);
    let before = |id: usize| history.operations[id].invoked < end;
    let all = component.operations.iter().copied().filter(|id| before(*id));
    let mut remaining: BTreeSet<usize> = all.collect();
    let mut left = REPORT_STEPS;
    let mut states = Vec::new();
    let mut is_contradiction = |kept: &BTreeSet<usize>, told: Option<&mut Vec<State>>| {
        let sight = |id: usize| match id {
            _ if !before(id) => Sight::Hidden,
            _ if !kept.contains(&id) => Sight::Anytime,
            _ if answered(history, id) <= end => Sight::AsItWas,
            _ => Sight::Unanswered,
        };
        let mut steps = left.min(ATTEMPT_STEPS);
        let given = steps;
        let mut problem = problem(history, component, sight);
        problem.gives_up_early = told.is_none();
        let outcome = search(&mut problem, &mut steps);
        left -= given - steps;
        let Outcome::Contradicted { operation, states } = outcome else {
            return false;
        };
        let word = |value: &_| problem.values.word(*value).map(<[u8]>::to_vec);
        if let Some(told) = told.filter(|_| problem.known[operation].id == last) {
            *told = states.iter().map(|state| state.iter().map(word).collect()).collect();
        }
        true
    };
    let mut size = remaining.len();
    while size > 0 {
        let candidates: Vec<usize> = remaining.iter().copied().filter(|id| *id != last).collect();
        for chunk in candidates.chunks(size) {
            let mut kept = remaining.clone();
            chunk.iter().for_each(|id| {
                kept.remove(id);
            });
            if is_contradiction(&kept, None) {
                remaining = kept;
            }
        }
        size /= 2;
    }
    is_contradiction(&remaining, Some(&mut states));
    (remaining, states)
}

fn tell(history: &History, component: &Component, contradiction: &Contradiction) -> String {
    let Contradiction { keys, operations, last, states, .. } = contradiction;
    let mut lines =
        vec![format!("linearizable: broken on {}. No order explains the answers of:", list(keys))];
    let hidden = operations.len().saturating_sub(LISTED);
    if hidden > 0 {
        lines.push(format!("  ({hidden} earlier ones)"));
    }
    lines.extend(operations[hidden..].iter().map(|id| format!("  {}", line(history, *id))));
    let end = answered(history, last.0 as usize);
    let before = |id: &&usize| history.operations[**id].invoked < end;
    let others = component.operations.iter().filter(before).count() - operations.len();
    if others > 0 {
        lines.push(format!(
            "The other {others} sent by then on the same keys don't matter: the contradiction stays even if \
             each took effect at any other time, or never."
        ));
    }
    let state = |state: &Vec<Option<Word>>| {
        let value = |value: &Option<Word>| value.as_deref().map_or("nothing".into(), show);
        let pair = |(key, held): (&Word, _)| format!("{} = {}", key.escape_ascii(), value(held));
        keys.iter().zip(state).map(pair).collect::<Vec<_>>().join(", ")
    };
    let told: Vec<String> = states.iter().map(state).collect();
    let fit = format!(
        "When #{} had to take effect the state could be, among others that fit no better: {}.",
        last.0,
        told.join("; or ")
    );
    lines.extend((!told.is_empty()).then_some(fit));
    let seen = seen(&history.operations[last.0 as usize].ending);
    for (number, operation) in history.operations.iter().enumerate() {
        let late = operation.invoked > answered(history, last.0 as usize);
        let not_done = operation.ending == Ending::NotDone;
        let writes = written(&operation.command).iter().any(|one| seen.contains(one));
        if writes && (late || not_done) && contradiction.keys_of(&operation.command) {
            let why = if not_done { "was refused as surely not done" } else { "came later" };
            let id = OperationId(u32::try_from(number).expect("it came from an id"));
            lines.push(format!("A value that it saw is that of an operation that {why}:"));
            lines.push(format!("  {}", line(history, id)));
        }
    }
    lines.join("\n")
}

impl Contradiction {
    fn keys_of(&self, command: &Command) -> bool {
        command.keys().into_iter().any(|key| self.keys.iter().any(|one| one == key))
    }
}

fn line(history: &History, id: OperationId) -> String {
    let operation = &history.operations[id.0 as usize];
    let (client, command) = (operation.client.0, &operation.command);
    let from = operation.invoked_at_us;
    match &operation.ending {
        Ending::Answered { at_us, answer, .. } => {
            format!("#{} client {client}, {from} to {at_us} us: {command} -> {answer}", id.0)
        }
        Ending::NotDone => format!("#{} client {client}, from {from} us: {command}", id.0),
        Ending::Unknown => {
            let end =
                operation.next_write.map(|(next, _)| format!(", done before #{next} or never"));
            let end = end.unwrap_or_default();
            format!("#{} client {client}, from {from} us: {command} -> outcome unknown{end}", id.0)
        }
    }
}

fn seen(ending: &Ending) -> Vec<&Word> {
    match ending {
        Ending::Answered { answer: Answer::Value(value), .. } => vec![value],
        Ending::Answered { answer: Answer::Values(values), .. } => {
            values.iter().flatten().collect()
        }
        Ending::Answered { answer: Answer::Replies { replies, .. }, .. } => {
            let values = replies.iter().filter_map(|reply| match reply {
                Answer::Value(value) => Some(value),
                _ => None,
            });
            values.collect()
        }
        _ => Vec::new(),
    }
}

fn written(command: &Command) -> Vec<&Word> {
    match command {
        Command::Set { value, .. } | Command::SetNx { value, .. } => vec![value],
        Command::Cas { new, .. } => vec![new],
        Command::MSet { pairs } => pairs.iter().map(|(_, value)| value).collect(),
        Command::Transaction(Transaction { then, otherwise, .. }) => {
            then.iter().chain(otherwise).flat_map(written).collect()
        }
        _ => Vec::new(),
    }
}

/// Keys in words.
pub(super) fn list(keys: &[Word]) -> String {
    let shown = keys.iter().map(|key| key.escape_ascii().to_string()).collect::<Vec<_>>();
    format!("{} {}", if keys.len() == 1 { "key" } else { "keys" }, shown.join(", "))
}
