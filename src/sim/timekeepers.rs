//! Whether all servers agree what time the cluster's clock shows.
//!
//! Design 2 (cluster clock): a new leader goes on from the highest estimate of those who elected it,
//! and asks its wall clock only where none of them has any. Wall clocks that jump then move the
//! cluster's, and what was said of deadlines before does not hold; in every other case it must. Called
//! by the world after each turn of a run whose wall clocks jump, and tells the recorder.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::script::{Kind, Script};
use super::world::World;
use crate::node::Role;
use crate::types::{ServerId, Term};

/// By how much estimates that agree differ at most, in milliseconds.
const TOLERANCE_MS: u64 = 100;

/// A leader moves towards its wall clock by one part in this many at most.
const SLEW: u64 = 2000;

/// Who knew what time it was.
pub(super) struct Timekeepers {
    /// Whether wall clocks jump in this run: else they are right, and to ask them is no harm.
    is_needed: bool,
    /// The last term in which each server had no estimate.
    ignorant_in: BTreeMap<ServerId, Term>,
    /// Terms whose leader was seen.
    led: BTreeSet<Term>,
    is_agreed: bool,
}

impl Timekeepers {
    pub fn new(script: &Script) -> Timekeepers {
        Timekeepers {
            is_needed: has_jumps(script),
            ignorant_in: BTreeMap::new(),
            led: BTreeSet::new(),
            is_agreed: true,
        }
    }
}

fn has_jumps(script: &Script) -> bool {
    script.faults.iter().any(|fault| fault.kind == Kind::WallJump)
}

/// How much earlier or later a key may expire than its writer's clock says.
pub(super) fn expiry_slack(script: &Script) -> Duration {
    // Skewed clocks may differ by twice their bound over all the time that the run can take.
    let suspended: u64 =
        script.faults.iter().filter(|f| f.kind == Kind::Suspend).map(|f| f.b * 60_000).sum();
    let all_ms = script.settings.chaos_ms + suspended + 60_000;
    let skew_ms = all_ms * script.settings.skew_ppm * 2 / 1_000_000;
    let jump_ms = if has_jumps(script) { TOLERANCE_MS + all_ms / SLEW } else { 0 };
    Duration::from_millis(60 + skew_ms + jump_ms)
}

impl World {
    /// A server has taken its turn.
    pub(super) fn look_at_clock(&mut self, id: ServerId) {
        if !self.timekeepers.is_needed {
            return;
        }
        let local = self.servers[&id].clock.local(self.now);
        if let Some(node) = self.node(id) {
            let term = node.raft().current_term();
            let knows = node.raft().cluster_time(local).is_some();
            let leads = node.status().role == Role::Leader;
            if !knows {
                self.timekeepers.ignorant_in.insert(id, term);
            }
            if leads && self.timekeepers.led.insert(term) && self.may_begin_anew(id, term) {
                self.timekeepers.is_agreed = false;
                self.recorder.time_is_open();
            }
        }
        if !self.timekeepers.is_agreed && self.agrees_on_time() {
            self.timekeepers.is_agreed = true;
            self.recorder.time_is_agreed(self.now);
        }
    }

    /// Whether none of those who elected this leader may have known the time.
    fn may_begin_anew(&self, leader: ServerId, term: Term) -> bool {
        let Some(node) = self.node(leader) else { return false };
        let membership = node.raft().membership();
        let was_ignorant = |voter: ServerId| {
            self.timekeepers.ignorant_in.get(&voter).is_some_and(|last| match voter == leader {
                // Who elects itself alone has no turn in between.
                true => last.next() >= term,
                false => *last >= term,
            })
        };
        let voters: Vec<ServerId> = membership.voters().collect();
        let ignorant = voters.iter().filter(|voter| was_ignorant(**voter)).count();
        voters.is_empty() || 2 * ignorant > voters.len()
    }

    /// Whether all that run and have an estimate have the same one, and there is one.
    fn agrees_on_time(&self) -> bool {
        let estimates: Vec<u64> = self
            .servers
            .values()
            .filter_map(|server| {
                let node = &server.process.as_ref()?.node;
                Some(node.raft().cluster_time(server.clock.local(self.now))?.0)
            })
            .collect();
        let (least, most) = (estimates.iter().min(), estimates.iter().max());
        least.zip(most).is_some_and(|(least, most)| most - least <= TOLERANCE_MS)
    }
}
