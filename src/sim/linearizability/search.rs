//! The search for an order that explains the answers of one component.
//!
//! Source: Wing and Gong, "Testing and verifying concurrent objects" (1993), with the memory of
//! Lowe's "Testing for linearizability" (2017) and his just-in-time order. Called by `mod` and by
//! `report`, which runs it on weakened histories. Deterministic; it gives up only by its budget.
//!
//! The search walks the answers in the order in which they came; at each, that operation must
//! have taken effect. A place in it is a *configuration*: the state, which of the operations
//! pending at that answer have taken effect already, and which of unknown outcome. Eleven rules keep
//! the number of configurations small, and none of them changes the verdict:
//!
//! 1. **At once.** A pending operation whose answer fits and says that it changed nothing is put
//!    in its place at once: in any order that puts it later it can be moved here, and all states
//!    stay. (Not a write that happens to change nothing here: later it would change something.)
//!    No unknown operation must come before one of these, nor before one that rule 6 moves.
//! 2. **Alike.** Unknown operations with the same command and the same [`End`] are counted, not told
//!    apart: the one invoked first can stand wherever another of them stands.
//! 3. **Dominated.** Of two configurations at the same answer with the same state and the same
//!    pending operations done, the one that has used no more of any unknown command suffices:
//!    what the other still does it can do as well, for an unknown operation need not happen.
//! 4. **Unobserved** (`drop_unobserved`): unknown writes that nobody could have told.
//! 5. **Needed** (`Needs`): a value that an operation must still meet is not left for good.
//! 6. **Covered.** When a SET or MSET takes effect, so do, just before it, the pending ones on its
//!    keys that nobody could have told: wherever else an order has them they can be taken out, by
//!    the proof of rule 4, and here they are overwritten before anyone looks.
//! 7. **Just in time** (`Loose`): what takes effect before the answered operation, out of turn,
//!    leads to it: a chain of operations, each sharing a key or a client with the next, ends there.
//!    What doesn't can change places with all that does, and so come after the answer (Godefroid's
//!    partial-order reduction). A settled operation (rule 1) moves with what it follows from.
//! 8. **Told** (`Told`): values that nothing to come tells apart are one, and so are unknown
//!    commands that differ in such values only. One that nothing to come could see is forgotten.
//! 9. **Within reach** (`Needs::distance`): a value that the answered operation must meet is there,
//!    or can be made before it; configurations that need fewer operations for it go first.
//! 10. **In vain.** An unknown operation without which the next one answers and leaves the same is
//!     left out: the same order without it is shorter.
//! 11. **Unseen** (`Node::overwrites_unseen`): so is an unknown operation of which every key is
//!     overwritten before anybody looks at one of them.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::attempts::Chance;
use super::model::{Action, Result, ValueId};
use super::needs::{Needs, Sums, ToCome};
use super::node::{Loose, Node, Used, chain, is_no_more};
use super::problem::{Class, End, Known, Problem, classes, drop_unobserved};
use super::told::{Groups, Told};

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

/// Configurations met at one answer: for each state and pending set, the sets of unknown commands
/// and what was loose. Only ever looked up.
type Met = HashMap<(Vec<ValueId>, Vec<u64>), Vec<(Used, Vec<Loose>)>>;

/// An answer, in the order of time.
struct Level {
    operation: usize,
    /// Operations invoked and not answered before it, itself among them, by their answers.
    pending: Vec<usize>,
    /// The unknown commands as they differ here, once that was asked.
    groups: Option<Rc<Groups>>,
    met: Met,
}

/// A level on the path of the search, with the configurations not yet tried: the ones that need
/// the fewest operations out of turn first. The number breaks ties in the order of making.
struct Frame {
    level: usize,
    waiting: BTreeMap<(u32, u64), Waiting>,
}

struct Waiting {
    node: Node,
    /// What its operations out of turn cost.
    cost: u32,
    /// Whether the answered operation was tried already.
    is_tried: bool,
}

pub(super) struct Search<'a> {
    problem: &'a mut Problem,
    classes: Vec<Class>,
    levels: Vec<Level>,
    slots: Vec<usize>,
    needs: Needs,
    told: Told,
    /// Known SETs and MSETs that rule 4 would drop if they were unknown.
    untold: Vec<bool>,
    pub steps: &'a mut u64,
    /// None for an attempt in the first order.
    pub chance: Option<Chance>,
    made: u64,
    furthest: usize,
    states: Vec<Vec<ValueId>>,
}

/// Looks for an order, in at most `steps` tried operations, which it counts down.
pub(super) fn search(problem: &mut Problem, steps: &mut u64) -> Outcome {
    let untold = drop_unobserved(problem);
    let (levels, slots, words) = levels(&problem.known);
    let classes = classes(&problem.unknown);
    let sums = Sums::new(&classes);
    let needs = Needs::new(problem, &classes, &sums);
    let told = Told::new(problem, &classes, &sums);
    let first = Node {
        state: vec![0; problem.keys],
        done: vec![0; words],
        used: Used::new(),
        before: None,
        unseen: vec![0; problem.keys],
        loose: Vec::new(),
    };
    let (made, furthest, states) = (0, 0, Vec::new());
    let mut search = Search {
        problem,
        classes,
        levels,
        slots,
        needs,
        told,
        untold,
        steps,
        chance: None,
        made,
        furthest,
        states,
    };
    search.run_attempts(&first)
}

impl Search<'_> {
    /// How many operations were answered.
    pub fn answers(&self) -> usize {
        self.levels.len()
    }

    /// Forgets what an attempt has found out.
    pub fn begin_anew(&mut self) {
        self.levels.iter_mut().for_each(|level| level.met.clear());
        self.furthest = 0;
        self.states.clear();
    }

    /// One attempt, in at most [`Search::steps`].
    pub fn run(&mut self, first: Node) -> Outcome {
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
            let Some((key, Waiting { node, cost, is_tried })) = frame.waiting.pop_first() else {
                path.pop();
                continue;
            };
            let level = frame.level;
            if is_tried {
                self.branch(frame, cost, &node);
                continue;
            }
            let after = self.attempt(level, &node);
            self.note(level, &node);
            // The other ways on from here are made only if this one fails.
            frame.waiting.insert(key, Waiting { node, cost, is_tried: true });
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
        let (mut next, _) = self.effect(level, operation, node)?;
        self.ties_up(operation, &mut next).then(|| {
            next.clear_done(self.slots[operation]);
            next
        })
    }

    /// What was settled moves with the loose operations that it follows from.
    fn attach(&self, operation: usize, node: &mut Node) {
        let known = &self.problem.known[operation];
        let keys = known.action.keys();
        for loose in &mut node.loose {
            if loose.leads_to(&keys, &[known.client]) {
                loose.keys.extend(&keys);
                loose.clients.push(known.client);
                loose.tidy();
            }
        }
    }

    /// Rule 7: whether the answered operation follows from everything that is loose.
    fn ties_up(&self, operation: usize, node: &mut Node) -> bool {
        let known = &self.problem.known[operation];
        let keys = known.action.keys();
        let all = node.loose.iter().all(|loose| loose.leads_to(&keys, &[known.client]));
        node.loose.clear();
        all
    }

    /// `node` after the operation, and whether the state is another one.
    fn effect(&mut self, level: usize, operation: usize, node: &Node) -> Option<(Node, bool)> {
        *self.steps = self.steps.saturating_sub(1);
        let known = &self.problem.known[operation];
        let mut state = node.state.clone();
        if known.action.run(&mut state, &mut self.problem.values) != known.result {
            return None;
        }
        self.simplify(level, &mut state);
        let changed = state != node.state;
        let (action, result) = (known.action.clone(), known.result.clone());
        if self.is_vain(level, node, &action, Some(&result), &state) {
            return None;
        }
        let mut next = Node { state, before: None, ..node.clone() };
        next.set_done(self.slots[operation]);
        if next.overwrites_unseen(&action, false) {
            return None;
        }
        self.cover(level, operation, node, &mut next);
        (!changed || !self.is_dead(level, node, &next)).then_some((next, changed))
    }

    /// Rule 8.
    fn simplify(&self, level: usize, state: &mut [ValueId]) {
        let now = self.problem.known[self.levels[level].operation].answered;
        for (key, value) in state.iter_mut().enumerate() {
            *value = self.told.simplify(key, *value, now, &self.problem.values);
        }
    }

    /// What was used of unknown commands, as far as it still matters at `level`.
    fn regroup(&mut self, level: usize, node: &mut Node) {
        if node.used.is_empty() {
            return;
        }
        let groups = self.groups(level);
        for (class, count) in std::mem::take(&mut node.used) {
            if let Some((first, _)) = groups.of(class) {
                node.use_some(first, count);
            }
        }
    }

    fn groups(&mut self, level: usize) -> Rc<Groups> {
        let level = &mut self.levels[level];
        let now = self.problem.known[level.operation].answered;
        let make = || Rc::new(self.told.groups(&self.classes, now, &self.problem.values));
        Rc::clone(level.groups.get_or_insert_with(make))
    }

    /// Rule 10: whether `action` comes to the same without the unknown operation just before it.
    fn is_vain(
        &mut self,
        level: usize,
        node: &Node,
        action: &Action,
        result: Option<&Result>,
        after: &[ValueId],
    ) -> bool {
        let Some(mut state) = node.before.clone() else {
            return false;
        };
        let without = action.run(&mut state, &mut self.problem.values);
        self.simplify(level, &mut state);
        state == after && result.is_none_or(|result| *result == without)
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
        let groups = self.levels[level].groups.as_ref();
        // Groups are made where something was used.
        let is_left = |class: u32| {
            let group = groups.and_then(|groups| groups.of(class));
            group.is_none_or(|(first, group)| next.used_of(first) < group.invoked.len())
        };
        let to_come = ToCome { is_past, is_open, is_left };
        let mut left = (0..node.state.len()).filter(|key| node.state[*key] != next.state[*key]);
        left.any(|key| self.needs.are_missed(key, (node.state[key], next.state[key]), &to_come))
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
                    node.before = None;
                    self.attach(operation, node);
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
            self.simplify(level, &mut node.state);
            self.regroup(level, &mut node);
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
        // Where nothing is loose everything may follow.
        let suffices = |(used, loose): &(Used, Vec<Loose>)| {
            (loose.is_empty() || *loose == node.loose) && is_no_more(used, &node.used)
        };
        if met.iter().any(suffices) {
            return false;
        }
        met.retain(|(used, loose)| {
            !((node.loose.is_empty() || *loose == node.loose) && is_no_more(&node.used, used))
        });
        met.push((node.used.clone(), node.loose.clone()));
        true
    }

    fn push(&mut self, frame: &mut Frame, cost: u32, node: Node) {
        if let Some(distance) = self.distance(frame.level, &node) {
            self.made += 1;
            let noise = self.chance.as_mut().map_or(0, Chance::noise);
            let key = (cost + distance) * 16 + noise;
            frame.waiting.insert((key, self.made), Waiting { node, cost, is_tried: false });
        }
    }

    /// Rule 9: how many operations must at least come before the answered one; nothing if no
    /// number is enough.
    fn distance(&self, level: usize, node: &Node) -> Option<u32> {
        let Level { operation, groups, .. } = &self.levels[level];
        if node.is_done(self.slots[*operation]) || !self.problem.gives_up_early {
            return Some(0);
        }
        let now = self.problem.known[*operation].answered;
        let is_open = |one: usize| {
            let known = &self.problem.known[one];
            known.invoked < now && known.answered >= now && !node.is_done(self.slots[one])
        };
        let produced_in = |producer: usize| {
            let mut count = 0;
            let mut next = Some(producer).filter(|one| is_open(*one));
            next?;
            while let Some(one) = next {
                let known = &self.problem.known[one];
                count += u32::from(!known.action.changes_nothing(&known.result));
                next = known.after.filter(|one| is_open(*one));
            }
            Some(count)
        };
        let is_invoked = |invoked: Option<&usize>| invoked.is_some_and(|invoked| *invoked < now);
        let is_left = |class: u32| match groups.as_ref().map(|groups| groups.of(class)) {
            None => is_invoked(self.classes[class as usize].invoked.first()),
            Some(None) => true,
            Some(Some((first, group))) => is_invoked(group.invoked.get(node.used_of(first))),
        };
        self.needs.distance(*operation, &node.state, produced_in, is_left)
    }

    /// All configurations that one more operation leads to, other than the answered one.
    fn branch(&mut self, frame: &mut Frame, cost: u32, node: &Node) {
        let level = frame.level;
        for place in 0..self.levels[level].pending.len() {
            let operation = self.levels[level].pending[place];
            if operation != self.levels[level].operation
                && self.is_free(level, operation, node)
                && let Some((mut next, _)) = self.effect(level, operation, node)
            {
                let covered = |other: &usize| {
                    let slot = self.slots[*other];
                    next.is_done(slot) && !node.is_done(slot)
                };
                let took_effect = self.levels[level].pending.iter().copied().filter(covered);
                let clients = took_effect.map(|one| self.problem.known[one].client).collect();
                chain(&mut next.loose, self.problem.known[operation].action.keys(), clients);
                self.offer(frame, cost + 1, next);
            }
        }
        let now = self.problem.known[self.levels[level].operation].answered;
        let groups = self.groups(level);
        for (class, group) in groups.iter() {
            let used = node.used_of(class);
            let is_invoked = group.invoked.get(used).is_some_and(|invoked| *invoked < now);
            if !is_invoked || self.has_ended(level, group.end, node) {
                continue;
            }
            *self.steps = self.steps.saturating_sub(1);
            let mut next = node.clone();
            group.action.run(&mut next.state, &mut self.problem.values);
            self.simplify(level, &mut next.state);
            // Rule 3: not to do it is as good.
            if next.state == node.state
                || self.is_vain(level, node, &group.action, None, &next.state)
            {
                continue;
            }
            next.before = Some(node.state.clone());
            next.use_some(class, 1);
            if next.overwrites_unseen(&group.action, true) {
                continue;
            }
            if !self.is_dead(level, node, &next) {
                // It can't change places with what it must come before.
                let clients = group.end.all().map(|later| self.problem.known[later].client);
                chain(&mut next.loose, group.action.keys(), clients.collect());
                self.offer(frame, cost + 2, next);
            }
        }
    }

    /// Whether an operation that it must come before has taken effect.
    fn has_ended(&self, level: usize, end: End, node: &Node) -> bool {
        let now = self.problem.known[self.levels[level].operation].answered;
        end.all().any(|later| {
            let known = &self.problem.known[later];
            known.answered < now || known.invoked < now && node.is_done(self.slots[later])
        })
    }

    fn offer(&mut self, frame: &mut Frame, cost: u32, mut node: Node) {
        let level = frame.level;
        let operation = self.levels[level].operation;
        // One that the latest one has covered follows from it: they share a client then.
        if !node.is_done(self.slots[operation]) {
            self.settle(level, &mut node);
        }
        if node.is_done(self.slots[operation]) && !self.ties_up(operation, &mut node) {
            return;
        }
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
        levels.push(Level { operation, pending: pending.clone(), groups: None, met: Met::new() });
        let first = pending.remove(0);
        assert_eq!(first, operation, "pending operations stand in the order of their answers");
        free.push(slots[operation]);
    }
    (levels, slots, highest.div_ceil(64))
}
