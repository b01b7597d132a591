//! Who this node is to the others: member, learner, removed, recovering, or not let in yet.
//!
//! Design 1-architecture §4. Called by `node.rs` and `handshake.rs`; decides whom this node wants
//! connections with, and when it takes part again.

use super::Peer;
use super::node::Node;
use crate::config::NodeConfig;
use crate::limits;
use crate::proto::message::{Envelope, Message};
use crate::raft::membership::Member;
use crate::testing::{Mutation, is_on};
use crate::types::{Incarnation, LogIndex, ServerId};

impl Node {
    /// The servers that this node wants connections with.
    pub fn peers(&self) -> Vec<Peer> {
        let own = self.identity.server;
        let membership = self.raft.membership();
        if membership.is_empty() {
            // Whoever is to join knows nobody's id: it is dialled, or asks at the addresses that
            // it was given.
            let nodes = self.config.cluster.nodes.iter().filter(|_| self.config.join.is_empty());
            let others = nodes.filter(|node| node.id != own);
            let peer = |node: &NodeConfig| Peer {
                id: node.id,
                address: node.peer.clone(),
                dial: own < node.id,
            };
            return others.map(peer).collect();
        }
        let leads = self.raft.is_leader();
        let peer = |member: &Member| Peer {
            id: member.id,
            address: member.peer.clone(),
            // A member that was away for long may not know who leads now.
            dial: own < member.id || !member.is_met() || leads,
        };
        let concerned = self.raft.concerned().into_iter().filter(|member| member.id != own);
        let mut peers: Vec<Peer> = concerned.map(peer).collect();
        // Who has left is told so over the connection that it has.
        let leaving = self.raft.farewells().into_iter();
        let leaving = leaving.filter(|id| !self.raft.concerned().iter().any(|one| one.id == *id));
        let leaving: Vec<ServerId> = leaving.collect();
        peers.extend(leaving.into_iter().map(|id| Peer {
            id,
            address: String::new(),
            dial: false,
        }));
        peers
    }

    /// Changes whenever [`peers`](Node::peers) may have.
    pub fn peers_stamp(&self) -> (LogIndex, bool, usize) {
        let raft = &self.raft;
        let left = raft.farewells().len() + raft.concerned().len();
        (raft.membership_index(), raft.is_leader(), left)
    }

    /// Where this node asks to be let into a cluster; empty where it doesn't.
    pub fn asks_to_join(&self) -> &[String] {
        if self.raft.membership().is_empty() { &self.config.join } else { &[] }
    }

    /// Whether `peer` may be the one that dialled a connection with this node.
    pub fn may_be_dialled_by(&self, peer: ServerId) -> bool {
        let membership = self.raft.membership();
        let knows_it = membership.member(peer).is_some();
        let is_known = membership.is_voter(self.identity.server);
        peer < self.identity.server || !is_known || !knows_it
    }

    /// Lines for the log since the last call.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    pub(super) fn notice(&mut self, text: String) {
        if self.notices.len() < limits::NOTICES {
            self.notices.push(text);
        }
    }

    /// Whether this node is no member by the newest membership in its log.
    pub(super) fn was_removed(&self) -> bool {
        let membership = self.raft.membership();
        !membership.is_empty() && membership.member(self.identity.server).is_none()
    }

    /// Whether it is one without a vote.
    pub(super) fn is_learner(&self) -> bool {
        let member = self.raft.membership().member(self.identity.server);
        member.is_some_and(Member::is_learner)
    }

    /// A leader replicates to a data directory only once it is admitted: a message of that kind,
    /// meant for ours, is how a server that lost its disk learns that it may take part again.
    pub(super) fn note_admission(&mut self, message: &Message) {
        if matches!(message, Message::AppendEntries(_) | Message::InstallSnapshot(_)) {
            self.admitted_again();
        }
    }

    /// Somebody knows this server on this data directory.
    pub(super) fn admitted_again(&mut self) {
        if self.raft.is_recovering() && !self.is_old_copy {
            self.raft.take_part_again();
            self.recovering_reason = None;
            self.notice("was admitted again on its new data directory".to_owned());
        }
    }

    /// Mail for someone else: another cluster, another server, another data directory.
    pub(super) fn is_for_us(&self, envelope: Envelope, message: &Message) -> bool {
        let identity = &self.identity;
        let is_sound = envelope.cluster == identity.cluster
            && envelope.to == identity.server
            && envelope.from != identity.server;
        let is_of_these_directories = envelope.to_incarnation == identity.incarnation
            && self.incarnation_of_sender(envelope.from, message)
                == Some(envelope.from_incarnation);
        is_sound && (is_of_these_directories || is_on(Mutation::LostDiskTakesPart))
    }

    /// The data directory that a message of `peer` has to come from. A guest may lead us to the
    /// membership that we lack; it gives no vote, and nothing else that we would count.
    fn incarnation_of_sender(&self, peer: ServerId, message: &Message) -> Option<Incarnation> {
        let leads = matches!(message, Message::AppendEntries(_) | Message::InstallSnapshot(_));
        let guest = self.raft.link(peer).filter(|_| leads && self.is_guest(peer));
        guest.or_else(|| self.raft.incarnation_of(peer))
    }

    /// The data directory that what is sent to `peer` is meant for.
    pub(super) fn incarnation_of_receiver(&self, peer: ServerId) -> Option<Incarnation> {
        let guest = self.raft.link(peer).filter(|_| self.is_guest(peer));
        guest.or_else(|| self.raft.incarnation_of(peer))
    }

    /// Whether this node's own log says that it is a member on this data directory.
    pub(super) fn is_admitted_by_own_log(&self) -> bool {
        let member = self.raft.membership().member(self.identity.server);
        member.is_some_and(|member| member.incarnation == self.identity.incarnation)
    }
}
