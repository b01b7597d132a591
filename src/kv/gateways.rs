//! Exactly once: which batches of which gateways were applied.
//!
//! Design 2-client-path §2. Part of the state machine: the same on every node. A gateway numbers
//! its batches 1, 2, 3 ... from each boot and sends them as often as it must; here each takes
//! effect once, in order. Called by `machine.rs` for every batch of the log.

use std::collections::BTreeMap;

use crate::proto::message::{BatchId, GatewayId};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{BatchSeq, Boot};

/// What becomes of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is the next one: it takes effect.
    Apply,
    /// It has taken effect before, or its epoch is over.
    Duplicate,
    /// One before it is missing: its gateway has to send again.
    Gap,
    /// Its gateway isn't a member.
    Stranger,
}

/// The newest batch of every member's gateway, learners included, and of no one else.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Gateways {
    newest: BTreeMap<GatewayId, (Boot, BatchSeq)>,
}

impl Gateways {
    /// The members are these from now on; whoever left is forgotten.
    pub fn set_members(&mut self, members: impl Iterator<Item = GatewayId>) {
        let known = std::mem::take(&mut self.newest);
        for member in members {
            let newest = known.get(&member).copied().unwrap_or_default();
            self.newest.insert(member, newest);
        }
    }

    /// Decides about a batch, and remembers it if it takes effect.
    pub fn admit(&mut self, id: BatchId) -> Verdict {
        let Some((epoch, last_seq)) = self.newest.get_mut(&id.gateway) else {
            return Verdict::Stranger;
        };
        if id.epoch < *epoch || (id.epoch == *epoch && id.seq <= *last_seq) {
            reached(if id.epoch < *epoch { Mark::DeadEpoch } else { Mark::DuplicateBatch });
            return match is_on(Mutation::AppliesDuplicate) {
                true => Verdict::Apply,
                false => Verdict::Duplicate,
            };
        }
        let expected = if id.epoch == *epoch { last_seq.next() } else { BatchSeq(1) };
        if id.seq != expected && !is_on(Mutation::AppliesBehindGap) {
            return Verdict::Gap;
        }
        if id.epoch != *epoch && *epoch != Boot::ZERO {
            reached(Mark::NewEpoch);
        }
        *epoch = id.epoch;
        *last_seq = id.seq;
        Verdict::Apply
    }

    /// The table, as a snapshot has it; ordered by gateway.
    pub fn rows(&self) -> Vec<(GatewayId, Boot, BatchSeq)> {
        self.newest.iter().map(|(gateway, (boot, seq))| (*gateway, *boot, *seq)).collect()
    }

    /// The table of a snapshot.
    pub fn of_rows(rows: &[(GatewayId, Boot, BatchSeq)]) -> Gateways {
        Gateways {
            newest: rows.iter().map(|(gateway, boot, seq)| (*gateway, (*boot, *seq))).collect(),
        }
    }

    /// The newest batch of `gateway` that took effect.
    pub fn newest(&self, gateway: GatewayId) -> Option<(Boot, BatchSeq)> {
        self.newest.get(&gateway).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, LogIndex, ServerId};

    const GATEWAY: GatewayId =
        GatewayId { server: ServerId(1), incarnation: Incarnation(9), admitted: LogIndex(1) };

    fn admit(gateways: &mut Gateways, epoch: u64, seq: u64) -> Verdict {
        gateways.admit(BatchId { gateway: GATEWAY, epoch: Boot(epoch), seq: BatchSeq(seq) })
    }

    #[test]
    fn admit_takes_each_number_once_and_in_order() {
        let mut gateways = Gateways::default();
        gateways.set_members([GATEWAY].into_iter());
        assert_eq!(admit(&mut gateways, 1, 1), Verdict::Apply);
        assert_eq!(admit(&mut gateways, 1, 1), Verdict::Duplicate);
        assert_eq!(admit(&mut gateways, 1, 3), Verdict::Gap);
        assert_eq!(admit(&mut gateways, 1, 2), Verdict::Apply);
        assert_eq!(admit(&mut gateways, 1, 3), Verdict::Apply);
    }

    #[test]
    fn admit_ends_an_epoch_when_the_next_begins() {
        let mut gateways = Gateways::default();
        gateways.set_members([GATEWAY].into_iter());
        assert_eq!(admit(&mut gateways, 1, 1), Verdict::Apply);
        assert_eq!(admit(&mut gateways, 2, 2), Verdict::Gap);
        assert_eq!(admit(&mut gateways, 2, 1), Verdict::Apply);
        assert_eq!(admit(&mut gateways, 1, 2), Verdict::Duplicate);
        assert_eq!(admit(&mut gateways, 2, 2), Verdict::Apply);
    }

    #[test]
    fn set_members_forgets_who_left_and_a_new_admission_starts_anew() {
        let mut gateways = Gateways::default();
        gateways.set_members([GATEWAY].into_iter());
        assert_eq!(admit(&mut gateways, 1, 1), Verdict::Apply);
        let readmitted = GatewayId { admitted: LogIndex(50), ..GATEWAY };
        gateways.set_members([readmitted].into_iter());
        assert_eq!(admit(&mut gateways, 1, 2), Verdict::Stranger, "an old batch stays old");
        let first = BatchId { gateway: readmitted, epoch: Boot(1), seq: BatchSeq(1) };
        assert_eq!(gateways.admit(first), Verdict::Apply);
    }
}
