//! The search for an order that explains the answers of one component.
//!
//! Source: Wing and Gong, "Testing and verifying concurrent objects" (1993), with the memory of
//! Lowe's "Testing for linearizability" (2017) and his just-in-time order. Called by `mod` and by
//! `report`, which runs it on weakened histories. Deterministic; it gives up only by its budget.
//!
//! The search walks the answers in the order in which they came; at each, that operation must
//! have taken effect. A place in it is a *configuration*: the state, which of the operations
//! pending at that answer have taken effect already, and which of unknown outcome. Four rules
//! keep the number of configurations small, and none of them changes the verdict:
//!
//! 1. **At once.** A pending operation whose answer fits and says that it changed nothing is put
//!    in its place at once: in any order that puts it later it can be moved here, and all states
//!    stay. (Not a write that happens to change nothing here: later it would change something.)
//! 2. **Alike.** Unknown operations with the same command are counted, not told apart: none has
//!    an end, so the one invoked first can stand wherever another of them stands.
//! 3. **Dominated.** Of two configurations at the same answer with the same state and the same
//!    pending operations done, the one that has used no more of any unknown command suffices:
//!    what the other still does it can do as well, for an unknown operation need not happen.
//! 4. **Unobserved** (`drop_unobserved`): unknown writes that nobody could have told.
//! 5. **Needed** (`Needs`): a value that an operation must still meet is not left for good.
//! 6. **Covered.** When a SET or MSET takes effect, so do, just before it, the pending ones on its
//!    keys that nobody could have told: wherever else an order has them they can be taken out, by
//!    the proof of rule 4, and here they are overwritten before anyone looks.

use std::collections::{BTreeMap, HashMap};

use super::model::{Action, Result, ValueId, Values};
use super::needs::Needs;

/// An answered operation.
pub(super) struct Known {
    pub action: Action,
    pub result: Result,
    /// The events of its invocation and its answer.
    pub invoked: usize,
    pub answered: usize,
    /// The operation of the same client that must have taken effect before it.
    pub after: Option<usize>,
    /// Its number in the history.
    pub id: usize,
}

/// A write of unknown outcome.
#[derive(Clone)]
pub(super) struct Unknown {
    pub action: Action,
    pub invoked: usize,
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

/// What a search came to.
pub(super) enum Outcome {
    /// There is an order.
    Explained,
    /// There is none up to and including the answer of `known[operation]`; `states` are some of
    /// those that could hold before it.
    Contradicted { operation: usize, states: Vec<Vec<ValueId>> },
    /// The budget is used up.
    OutOfBudget,
}

/// States that a contradiction lists.
const STATES: usize = 8;

/// Unknown commands used: class and count, ascending by class, no zero counts.
type Used = Vec<(u32, u32)>;

#[derive(Clone)]
struct Node {
    state: Vec<ValueId>,
    /// A bit for each slot of a pending operation.
    done: Vec<u64>,
    used: Used,
}

impl Node {
    fn is_done(&self, slot: usize) -> bool {
        self.done[slot / 64] & (1 << (slot % 64)) != 0
    }

    fn set_done(&mut self, slot: usize) {
        self.done[slot / 64] |= 1 << (slot % 64);
    }

    fn clear_done(&mut self, slot: usize) {
        self.done[slot / 64] &= !(1 << (slot % 64));
    }
}

/// Unknown operations with one command.
struct Class {
    action: Action,
    /// The events of their invocations, ascending.
    invoked: Vec<usize>,
}

/// An answer, in the order of time.
struct Level {
    operation: usize,
    /// Operations invoked and not answered before it, itself among them, by their answers.
    pending: Vec<usize>,
    /// Configurations met here: for each state and pending set, the sets of unknown commands.
    met: HashMap<(Vec<ValueId>, Vec<u64>), Vec<Used>>,
}

/// A level on the path of the search, with the configurations not yet tried: the ones that need
/// the fewest operations out of turn first. The number breaks ties in the order of making.
struct Frame {
    level: usize,
    waiting: BTreeMap<(u32, u64), (Node, bool)>,
}

struct Search<'a> {
    problem: &'a mut Problem,
    classes: Vec<Class>,
    levels: Vec<Level>,
    slots: Vec<usize>,
    needs: Needs,
    /// Known SETs and MSETs that rule 4 would drop if they were unknown.
    untold: Vec<bool>,
    steps: &'a mut u64,
    made: u64,
    furthest: usize,
    states: Vec<Vec<ValueId>>,
}

/// Looks for an order, in at most `steps` tried operations, which it counts down.
pub(super) fn search(problem: &mut Problem, steps: &mut u64) -> Outcome {
    let untold = drop_unobserved(problem);
    let (levels, slots, words) = levels(&problem.known);
    let classes = classes(&problem.unknown);
    let needs = Needs::new(problem);
    let first = Node { state: vec![0; problem.keys], done: vec![0; words], used: Used::new() };
    let (made, furthest, states) = (0, 0, Vec::new());
    let mut search =
        Search { problem, classes, levels, slots, needs, untold, steps, made, furthest, states };
    search.run(first)
}

impl Search<'_> {
    fn run(&mut self, first: Node) -> Outcome {
        let mut path: Vec<Frame> = Vec::new();
        match self.enter(0, first) {
            Entered::End => return Outcome::Explained,
            Entered::Frame(frame) => path.push(frame),
            Entered::Known => unreachable!("nothing has been met before the first"),
        }
        while let Some(frame) = path.last_mut() {
            if *self.steps == 0 {
                return Outcome::OutOfBudget;
            }
            let Some((key, (node, tried))) = frame.waiting.pop_first() else {
                path.pop();
                continue;
            };
            let level = frame.level;
            if tried {
                self.branch(frame, key.0, &node);
                continue;
            }
            let after = self.attempt(level, &node);
            self.note(level, &node);
            // The other ways on from here are made only if this one fails.
            frame.waiting.insert(key, (node, true));
            if let Some(after) = after {
                match self.enter(level + 1, after) {
                    Entered::End => return Outcome::Explained,
                    Entered::Frame(next) => path.push(next),
                    Entered::Known => {}
                }
            }
        }
        let operation = self.levels[self.furthest].operation;
        Outcome::Contradicted { operation, states: std::mem::take(&mut self.states) }
    }

    /// Lets the operation that is answered at `level` take effect, if its answer fits.
    fn attempt(&mut self, level: usize, node: &Node) -> Option<Node> {
        let operation = self.levels[level].operation;
        if node.is_done(self.slots[operation]) {
            // An operation before it made its answer fit, and it was settled.
            let mut next = node.clone();
            next.clear_done(self.slots[operation]);
            return Some(next);
        }
        if !self.is_free(level, operation, node) {
            return None;
        }
        self.effect(level, operation, node).map(|(mut next, _)| {
            next.clear_done(self.slots[operation]);
            next
        })
    }

    /// `node` after the operation, and whether the state is another one.
    fn effect(&mut self, level: usize, operation: usize, node: &Node) -> Option<(Node, bool)> {
        *self.steps = self.steps.saturating_sub(1);
        let known = &self.problem.known[operation];
        let mut state = node.state.clone();
        if known.action.run(&mut state, &mut self.problem.values) != known.result {
            return None;
        }
        let changed = state != node.state;
        let mut next = Node { state, done: node.done.clone(), used: node.used.clone() };
        next.set_done(self.slots[operation]);
        self.cover(level, operation, node, &mut next);
        (!changed || !self.is_dead(level, node, &next)).then_some((next, changed))
    }

    /// Rule 6.
    fn cover(&self, level: usize, operation: usize, node: &Node, next: &mut Node) {
        let Action::Put(pairs) = &self.problem.known[operation].action else {
            return;
        };
        for &other in &self.levels[level].pending {
            let covered = |key: &usize| pairs.iter().any(|(put, _)| put == key);
            if self.untold[other]
                && self.is_free(level, other, node)
                && self.problem.known[other].action.keys().iter().all(covered)
            {
                next.set_done(self.slots[other]);
            }
        }
    }

    /// Rule 5.
    fn is_dead(&self, level: usize, node: &Node, next: &Node) -> bool {
        if !self.problem.gives_up_early {
            return false;
        }
        let now = self.problem.known[self.levels[level].operation].answered;
        let is_open = |operation: usize| {
            let known = &self.problem.known[operation];
            known.invoked >= now || !next.is_done(self.slots[operation])
        };
        let is_past = |operation: usize| self.problem.known[operation].answered < now;
        let mut left = (0..node.state.len()).filter(|key| node.state[*key] != next.state[*key]);
        left.any(|key| self.needs.are_missed(key, node.state[key], is_past, is_open))
    }

    /// Whether a pending operation may be next: not done, and its client's earlier one is.
    fn is_free(&self, level: usize, operation: usize, node: &Node) -> bool {
        let answer = self.problem.known[self.levels[level].operation].answered;
        let earlier_done = self.problem.known[operation].after.is_none_or(|earlier| {
            self.problem.known[earlier].answered < answer || node.is_done(self.slots[earlier])
        });
        earlier_done && !node.is_done(self.slots[operation])
    }

    /// Rule 1.
    fn settle(&mut self, level: usize, node: &mut Node) {
        loop {
            let mut settled = false;
            for place in 0..self.levels[level].pending.len() {
                let operation = self.levels[level].pending[place];
                let known = &self.problem.known[operation];
                if known.action.changes_nothing(&known.result)
                    && self.is_free(level, operation, node)
                    && let Some((next, _)) = self.effect(level, operation, node)
                {
                    *node = next;
                    settled = true;
                }
            }
            // Settling one may free another of the same client that stood before it in `pending`.
            if !settled {
                return;
            }
        }
    }

    /// Goes to `level`, and on past every answer whose operation has taken effect already.
    fn enter(&mut self, mut level: usize, mut node: Node) -> Entered {
        while level < self.levels.len() {
            self.settle(level, &mut node);
            let slot = self.slots[self.levels[level].operation];
            if !node.is_done(slot) {
                if !self.is_new(level, &node) {
                    return Entered::Known;
                }
                let mut frame = Frame { level, waiting: BTreeMap::new() };
                self.push(&mut frame, 0, node);
                return Entered::Frame(frame);
            }
            node.clear_done(slot);
            level += 1;
        }
        Entered::End
    }

    /// Rule 3. A configuration that was met before is either tried in vain or still waiting in
    /// the same frame: no two frames of one path are at one level.
    fn is_new(&mut self, level: usize, node: &Node) -> bool {
        let key = (node.state.clone(), node.done.clone());
        let met = self.levels[level].met.entry(key).or_default();
        if met.iter().any(|used| is_no_more(used, &node.used)) {
            return false;
        }
        met.retain(|used| !is_no_more(&node.used, used));
        met.push(node.used.clone());
        true
    }

    fn push(&mut self, frame: &mut Frame, cost: u32, node: Node) {
        self.made += 1;
        frame.waiting.insert((cost, self.made), (node, false));
    }

    /// All configurations that one more operation leads to, other than the answered one.
    fn branch(&mut self, frame: &mut Frame, cost: u32, node: &Node) {
        let level = frame.level;
        for place in 0..self.levels[level].pending.len() {
            let operation = self.levels[level].pending[place];
            if operation != self.levels[level].operation
                && self.is_free(level, operation, node)
                && let Some((next, _)) = self.effect(level, operation, node)
            {
                self.offer(frame, cost + 1, next);
            }
        }
        let now = self.problem.known[self.levels[level].operation].answered;
        for class in 0..self.classes.len() {
            let place = node.used.binary_search_by_key(&(class as u32), |used| used.0);
            let used = place.map_or(0, |place| node.used[place].1);
            let invoked = self.classes[class].invoked.get(used as usize);
            if invoked.is_none_or(|invoked| *invoked >= now) {
                continue;
            }
            *self.steps = self.steps.saturating_sub(1);
            let mut next = node.clone();
            self.classes[class].action.run(&mut next.state, &mut self.problem.values);
            if next.state == node.state {
                continue; // Rule 3: not to do it is as good.
            }
            if self.is_dead(level, node, &next) {
                continue;
            }
            match place {
                Ok(place) => next.used[place].1 += 1,
                Err(place) => next.used.insert(place, (class as u32, 1)),
            }
            self.offer(frame, cost + 2, next);
        }
    }

    fn offer(&mut self, frame: &mut Frame, cost: u32, mut node: Node) {
        let level = frame.level;
        self.settle(level, &mut node);
        if self.is_new(level, &node) {
            self.push(frame, cost, node);
        }
    }

    /// Remembers the states at the furthest answer, for the report.
    fn note(&mut self, level: usize, node: &Node) {
        if level > self.furthest {
            self.furthest = level;
            self.states.clear();
        }
        let room = level == self.furthest && self.states.len() < STATES;
        if room && !self.states.contains(&node.state) {
            self.states.push(node.state.clone());
        }
    }
}

enum Entered {
    /// Past the last answer: everything is explained.
    End,
    /// A configuration to go on from.
    Frame(Frame),
    /// Nothing new.
    Known,
}

/// Whether `one` holds no more of any class than `other`.
fn is_no_more(one: &Used, other: &Used) -> bool {
    let mut rest = other.iter();
    one.iter().all(|(class, count)| {
        rest.by_ref()
            .find(|used| used.0 >= *class)
            .is_some_and(|used| used.0 == *class && *count <= used.1)
    })
}

/// The answers in order with what is pending at each, a slot for each operation that no other
/// one pending at the same time has, and the words that all slots take.
fn levels(known: &[Known]) -> (Vec<Level>, Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..known.len()).collect();
    order.sort_by_key(|operation| known[*operation].answered);
    let mut slots = vec![0; known.len()];
    let mut free: Vec<usize> = Vec::new();
    let mut highest = 0;
    let mut next = 0;
    let mut pending: Vec<usize> = Vec::new();
    let mut levels = Vec::with_capacity(known.len());
    for operation in order {
        let answered = known[operation].answered;
        while next < known.len() && known[next].invoked < answered {
            slots[next] = free.pop().unwrap_or_else(|| {
                highest += 1;
                highest - 1
            });
            let place = pending.partition_point(|one| known[*one].answered < known[next].answered);
            pending.insert(place, next);
            next += 1;
        }
        levels.push(Level { operation, pending: pending.clone(), met: HashMap::new() });
        let first = pending.remove(0);
        assert_eq!(first, operation, "pending operations stand in the order of their answers");
        free.push(slots[operation]);
    }
    (levels, slots, highest.div_ceil(64))
}

/// Rule 2.
fn classes(unknown: &[Unknown]) -> Vec<Class> {
    let mut classes: BTreeMap<&Action, Vec<usize>> = BTreeMap::new();
    for one in unknown {
        classes.entry(&one.action).or_default().push(one.invoked);
    }
    let class = |(action, mut invoked): (&Action, Vec<usize>)| {
        invoked.sort_unstable();
        Class { action: action.clone(), invoked }
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
fn drop_unobserved(problem: &mut Problem) -> Vec<bool> {
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
    known.iter().map(|known| is_put(known) && !is_told(&known.action)).collect()
}

/// What a blind write leaves in which keys; `None` for an operation that depends on the state.
fn written(action: &Action) -> Option<Vec<(usize, ValueId)>> {
    match action {
        Action::Put(pairs) => {
            let last: BTreeMap<usize, ValueId> = pairs.iter().copied().collect();
            Some(last.into_iter().collect())
        }
        Action::Delete(keys) => Some(keys.iter().map(|key| (*key, super::model::ABSENT)).collect()),
        _ => None,
    }
}
