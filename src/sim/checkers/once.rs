//! *exactly-once*: a store in which each numbered batch takes effect once, in its gateway's order.
//!
//! The committed entries are carried out a second time, with the real commands, but each (gateway,
//! epoch, seq) by a rule of this file's own; the nodes' stores must be the same. Called by the
//! checkers for every entry that is committed. Never asks the nodes what they took for duplicates.

use std::collections::{BTreeMap, BTreeSet};

use crate::kv::command_set::{self, Build, THIS};
use crate::kv::machine::StateMachine;
use crate::kv::store::Store;
use crate::proto::batch::Batch;
use crate::proto::entry::{Entry, EntryKind};
use crate::proto::message::{BatchId, GatewayId};
use crate::raft::membership::Membership;
use crate::types::{BatchSeq, Boot, LogIndex, ServerId};

/// What the committed log makes of nothing, each batch once.
pub(super) struct Once {
    machine: StateMachine,
    members: BTreeSet<GatewayId>,
    /// What each server's newest process knows.
    pub(super) builds: BTreeMap<ServerId, Build>,
    /// How many batches of each epoch took effect: they are 1, 2, 3 ...
    taken: BTreeMap<(GatewayId, Boot), u64>,
}

impl Once {
    pub fn new() -> Once {
        Once {
            machine: StateMachine::default(),
            members: BTreeSet::new(),
            builds: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    pub fn last_applied(&self) -> LogIndex {
        self.machine.last_applied()
    }

    pub fn store(&self) -> &Store {
        self.machine.store()
    }

    /// The next committed entry.
    pub fn apply(&mut self, entry: &Entry) {
        self.machine.begin(entry);
        match entry.kind {
            EntryKind::Empty => {}
            EntryKind::CommandSet => {
                let set = command_set::decode(&entry.payload);
                let set = set.expect("known-commands: what is committed can be read");
                for GatewayId { server, .. } in &self.members {
                    let known = self.builds[server].known;
                    assert!(
                        known >= set,
                        "known-commands: {set} in force, n{server} knows {known}"
                    );
                }
                self.machine.raise(set);
            }
            EntryKind::Membership => {
                let membership = Membership::decode(&entry.payload);
                let membership = membership.expect("one-change: what is committed can be read");
                let gateway = |member: &crate::raft::membership::Member| GatewayId {
                    server: member.id,
                    incarnation: member.incarnation,
                    admitted: member.admitted,
                };
                let met = membership.members().iter().filter(|member| member.is_met());
                self.members = met.map(gateway).collect();
            }
            EntryKind::Batch => {
                let batch = Batch::decode(&entry.payload);
                let batch = batch.expect("a gateway of this version built it");
                if self.takes_effect(batch.id) {
                    for command in batch.commands() {
                        let needed = self.builds.values().next();
                        let needed = needed.map_or(THIS, |build| *build).needed_in_log(command);
                        assert!(
                            needed.is_some_and(|needed| needed <= self.machine.command_set()),
                            "known-commands: entry {} has a command that not everybody knows",
                            entry.index
                        );
                        self.machine.execute(command);
                    }
                }
            }
        }
    }

    /// A member's batch takes effect if it is the next one of its epoch, and no later epoch has
    /// begun.
    fn takes_effect(&mut self, id: BatchId) -> bool {
        let later = (id.gateway, id.epoch.next())..=(id.gateway, Boot(u64::MAX));
        let is_over = self.taken.range(later).next().is_some();
        let taken = self.taken.get(&(id.gateway, id.epoch)).copied().unwrap_or(0);
        let is_next = id.seq == BatchSeq(taken + 1);
        let takes_effect = self.members.contains(&id.gateway) && is_next && !is_over;
        if takes_effect {
            self.taken.insert((id.gateway, id.epoch), taken + 1);
        }
        takes_effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Incarnation;

    #[test]
    fn takes_effect_is_once_in_order_and_ends_with_the_next_epoch() {
        let gateway =
            GatewayId { server: ServerId(1), incarnation: Incarnation(9), admitted: LogIndex(1) };
        let mut once = Once::new();
        let mut take = |epoch, seq| {
            once.takes_effect(BatchId { gateway, epoch: Boot(epoch), seq: BatchSeq(seq) })
        };
        assert!(!take(1, 1), "nobody is a member yet");
        once.members.insert(gateway);
        let mut take = |epoch, seq| {
            once.takes_effect(BatchId { gateway, epoch: Boot(epoch), seq: BatchSeq(seq) })
        };
        let order = [(1, 1), (1, 1), (1, 3), (1, 2), (3, 2), (3, 1), (2, 1), (1, 3), (3, 2)];
        let taken = order.map(|(epoch, seq)| take(epoch, seq));
        assert_eq!(taken, [true, false, false, true, false, true, false, false, true]);
    }
}
