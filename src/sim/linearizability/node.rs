//! A configuration of the search: what has taken effect so far, and what that led to.
//!
//! Called by `search`, whose rules are numbered in its head. Knows no operation.

use super::history::ClientId;
use super::model::{Action, ValueId};

/// Unknown commands used: class and count, ascending by class, no zero counts.
pub(super) type Used = Vec<(u32, u32)>;

/// A configuration.
#[derive(Clone)]
pub(super) struct Node {
    pub state: Vec<ValueId>,
    /// A bit for each slot of a pending operation.
    pub done: Vec<u64>,
    pub used: Used,
    /// The state before the latest operation, if that was an unknown one and nothing was settled
    /// since (rule 10).
    pub before: Option<Vec<ValueId>>,
    /// For each key the unknown operation that wrote it last, by a number of its own, as long as
    /// nobody has looked at what it left in any key (rule 11); 0 for none.
    pub unseen: Vec<u32>,
    /// Operations that took effect out of turn at this answer and have led to nothing yet (rule 7).
    pub loose: Vec<Loose>,
}

/// What follows from one operation, or from an unbroken chain of them: an operation that shares a
/// key or a client with it cannot change places with it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Loose {
    pub keys: Vec<usize>,
    pub clients: Vec<ClientId>,
}

impl Loose {
    pub fn tidy(&mut self) {
        self.keys.sort_unstable();
        self.keys.dedup();
        self.clients.sort_unstable();
        self.clients.dedup();
    }

    pub fn leads_to(&self, keys: &[usize], clients: &[ClientId]) -> bool {
        keys.iter().any(|key| self.keys.contains(key))
            || clients.iter().any(|client| self.clients.contains(client))
    }
}

/// Another operation out of turn: what it follows from leads to it, and it to nothing yet.
pub(super) fn chain(loose: &mut Vec<Loose>, keys: Vec<usize>, clients: Vec<ClientId>) {
    loose.retain(|one| !one.leads_to(&keys, &clients));
    let mut one = Loose { keys, clients };
    one.tidy();
    let place = loose.partition_point(|other| *other < one);
    loose.insert(place, one);
}

impl Node {
    /// Rule 11: `action` has just taken effect. Whether an unknown operation before it has turned
    /// out to be in vain.
    pub fn overwrites_unseen(&mut self, action: &Action, is_unknown: bool) -> bool {
        let keys = action.keys();
        let is_blind = match action {
            Action::Put(_) => true,
            // What is answered tells how many keys there were.
            Action::Delete(_) => is_unknown,
            _ => false,
        };
        let before: Vec<u32> = keys.iter().map(|key| self.unseen[*key]).collect();
        for key in &keys {
            self.unseen[*key] = 0;
        }
        let written = || before.iter().filter(|number| **number > 0);
        if !is_blind {
            written().for_each(|number| {
                self.unseen.iter_mut().filter(|one| *one == number).for_each(|one| *one = 0);
            });
        }
        let is_vain = is_blind && written().any(|number| !self.unseen.contains(number));
        if is_unknown {
            let number = 1 + self.unseen.iter().copied().max().unwrap_or(0);
            keys.iter().for_each(|key| self.unseen[*key] = number);
        }
        is_vain
    }

    pub fn is_done(&self, slot: usize) -> bool {
        self.done[slot / 64] & (1 << (slot % 64)) != 0
    }

    pub fn set_done(&mut self, slot: usize) {
        self.done[slot / 64] |= 1 << (slot % 64);
    }

    pub fn used_of(&self, class: u32) -> usize {
        let place = self.used.binary_search_by_key(&class, |used| used.0);
        place.map_or(0, |place| self.used[place].1 as usize)
    }

    pub fn use_some(&mut self, class: u32, count: u32) {
        match self.used.binary_search_by_key(&class, |used| used.0) {
            Ok(place) => self.used[place].1 += count,
            Err(place) => self.used.insert(place, (class, count)),
        }
    }

    pub fn clear_done(&mut self, slot: usize) {
        self.done[slot / 64] &= !(1 << (slot % 64));
    }
}

/// Whether `one` holds no more of any class than `other`.
pub(super) fn is_no_more(one: &Used, other: &Used) -> bool {
    let mut rest = other.iter();
    one.iter().all(|(class, count)| {
        rest.by_ref()
            .find(|used| used.0 >= *class)
            .is_some_and(|used| used.0 == *class && *count <= used.1)
    })
}
