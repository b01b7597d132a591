//! Divergence: nodes compare what they have made of the same log, and who is wrong stops.
//!
//! Design page 3, §4. At some indexes (checkpoints) every node tells the others the digest of what
//! it has applied up to there. The node that a majority of the voters contradicts stops, be it the
//! leader: what it would answer, or give as a snapshot, cannot be trusted. Where nobody has a
//! majority, it is said, and nobody stops. Called by `apply.rs` and for what peers say; costs
//! nothing where nothing is applied. Never corrects a state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Effect;
use super::node::Node;
use crate::limits;
use crate::proto::message::Message;
use crate::types::{ClusterTime, Divergence, LogIndex, ServerId};

/// The digest of everything applied up to an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Checkpoint {
    index: LogIndex,
    digest: u64,
}

/// The last checkpoints of one node, the oldest first.
#[derive(Default, Debug)]
struct Track {
    kept: VecDeque<Checkpoint>,
}

impl Track {
    /// Keeps one more; the oldest goes at [`limits::CHECKPOINTS`]. A peer that starts anew applies
    /// its log again, from an earlier index on: what it says then replaces what it said before.
    fn push(&mut self, checkpoint: Checkpoint) {
        while self.kept.back().is_some_and(|last| last.index >= checkpoint.index) {
            self.kept.pop_back();
        }
        if self.kept.len() == limits::CHECKPOINTS {
            self.kept.pop_front();
        }
        self.kept.push_back(checkpoint);
    }

    fn digest_at(&self, index: LogIndex) -> Option<u64> {
        let at = self.kept.binary_search_by_key(&index, |checkpoint| checkpoint.index).ok()?;
        Some(self.kept[at].digest)
    }
}

/// What this node and its peers have come to.
#[derive(Default, Debug)]
pub(super) struct Checkpoints {
    own: Track,
    peers: BTreeMap<ServerId, Track>,
    /// Peers whose difference was said already.
    differing: BTreeSet<ServerId>,
}

impl Checkpoints {
    /// How many peers have come to something else.
    pub fn differing(&self) -> usize {
        self.differing.len()
    }
}

/// Whether a node that has applied `index`, by which its clock went from `before` to `after`, tells
/// the others its digest: at every so many entries, and at the first entry of every second of the
/// cluster's clock. It follows from the log alone, so that all nodes do it at the same indexes.
fn is_checkpoint(index: LogIndex, before: ClusterTime, after: ClusterTime) -> bool {
    let period = |time: ClusterTime| time.0 / limits::CHECKPOINT_MS;
    index.0.is_multiple_of(limits::CHECKPOINT_ENTRIES) || period(before) != period(after)
}

impl Node {
    /// An entry was applied; before it, the state machine's clock showed `before`.
    pub(super) fn note_checkpoint(&mut self, before: ClusterTime, effects: &mut Vec<Effect>) {
        let index = self.machine.last_applied();
        if !is_checkpoint(index, before, self.machine.store().clock()) {
            return;
        }
        let checkpoint = Checkpoint { index, digest: self.machine.digest() };
        self.checkpoints.own.push(checkpoint);
        let membership = self.raft.membership();
        self.checkpoints.peers.retain(|id, _| membership.member(*id).is_some());
        self.checkpoints.differing.retain(|id| membership.member(*id).is_some());
        let members: Vec<ServerId> = membership.members().iter().map(|one| one.id).collect();
        for id in members.into_iter().filter(|_| !self.raft.is_recovering()) {
            if id != self.identity.server && self.raft.has_link(id) {
                self.tell(id, checkpoint, effects);
            }
        }
        self.compare(index, effects);
    }

    /// A connection to `peer` stands: it may have missed the last checkpoint, or not be there yet.
    pub(super) fn tell_last_checkpoint(&mut self, peer: ServerId, effects: &mut Vec<Effect>) {
        let takes_part = !self.raft.is_recovering();
        let is_member = takes_part && self.raft.membership().member(peer).is_some();
        if let Some(last) = self.checkpoints.own.kept.back().copied().filter(|_| is_member) {
            self.tell(peer, last, effects);
        }
    }

    fn tell(&self, peer: ServerId, checkpoint: Checkpoint, effects: &mut Vec<Effect>) {
        let Checkpoint { index, digest } = checkpoint;
        self.send(peer, Message::Checkpoint { index, digest }, effects);
    }

    /// A peer says what it has come to.
    pub(super) fn receive_checkpoint(
        &mut self,
        from: ServerId,
        index: LogIndex,
        digest: u64,
        effects: &mut Vec<Effect>,
    ) {
        if self.raft.is_recovering() || self.raft.membership().member(from).is_none() {
            return;
        }
        let track = self.checkpoints.peers.entry(from).or_default();
        track.push(Checkpoint { index, digest });
        self.compare(index, effects);
    }

    /// Compares what is known of `index`, once this node has been there.
    fn compare(&mut self, index: LogIndex, effects: &mut Vec<Effect>) {
        let Some(own) = self.checkpoints.own.digest_at(index) else {
            return;
        };
        let tracks = self.checkpoints.peers.iter();
        let told: BTreeMap<ServerId, u64> =
            tracks.filter_map(|(id, track)| Some((*id, track.digest_at(index)?))).collect();
        let others: BTreeSet<u64> =
            told.values().copied().filter(|digest| *digest != own).collect();
        // This server's own digest isn't among them, so it counts for itself.
        let has_majority = |digest: &u64| {
            self.raft.membership().is_quorum(|voter| told.get(&voter) == Some(digest))
        };
        if let Some(majority) = others.into_iter().find(has_majority) {
            effects.push(Effect::Diverged(Divergence { index, own, majority }));
            return;
        }
        for (peer, digest) in told {
            if digest == own {
                self.checkpoints.differing.remove(&peer);
            } else if self.checkpoints.differing.insert(peer) {
                self.notice(format!(
                    "DIVERGENCE: server {peer} and this one have applied the same log up to entry \
                     {index} and come to different states (digests {digest:016x} and {own:016x}); \
                     whoever a majority contradicts stops; as long as there is none, nobody does, \
                     and what these two answer cannot be trusted"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(index: u64, digest: u64) -> Checkpoint {
        Checkpoint { index: LogIndex(index), digest }
    }

    #[test]
    fn track_keeps_the_last_ones_and_begins_again_with_a_peer_that_does() {
        let mut track = Track::default();
        let most = limits::CHECKPOINTS as u64;
        for index in 1..=most + 2 {
            track.push(checkpoint(index, 7));
        }
        assert_eq!(track.kept.len(), limits::CHECKPOINTS, "bounded");
        assert_eq!(track.digest_at(LogIndex(2)), None);
        assert_eq!(track.digest_at(LogIndex(3)), Some(7));
        track.push(checkpoint(5, 8));
        assert_eq!(track.digest_at(LogIndex(5)), Some(8));
        assert_eq!(track.digest_at(LogIndex(6)), None);
        assert_eq!(track.digest_at(LogIndex(4)), Some(7));
    }

    #[test]
    fn is_checkpoint_follows_from_the_log() {
        let at = |index, before, after| {
            is_checkpoint(LogIndex(index), ClusterTime(before), ClusterTime(after))
        };
        let period = limits::CHECKPOINT_MS;
        assert!(at(limits::CHECKPOINT_ENTRIES, 0, 0));
        assert!(at(3, period - 1, period));
        assert!(!at(3, period, 2 * period - 1));
    }
}
