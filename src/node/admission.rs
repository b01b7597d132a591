//! Who this node is to the others: member, learner, removed, recovering, or not let in yet.
//!
//! Design 1-architecture §4. Called by `node.rs` and `handshake.rs`; decides whom this node wants
//! connections with, and when it takes part again.

use super::node::Node;
use super::{Peer, PeersStamp};
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
            // it was given. Whoever is to found dials everyone: it may be a member that lost its
            // disk and runs on another machine, whom nobody would look for there.
            let nodes = self.config.cluster.nodes.iter().filter(|_| self.config.join.is_empty());
            let others = nodes.filter(|node| node.id != own);
            let peer =
                |node: &NodeConfig| Peer { id: node.id, address: node.peer.clone(), dial: true };
            return others.map(peer).collect();
        }
        let dials_everyone = self.dials_everyone();
        let peer = |member: &Member| Peer {
            id: member.id,
            address: member.peer.clone(),
            dial: own < member.id || !member.is_met() || dials_everyone,
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

    /// A member that was away may know nobody who is there, or not where or on which directory: it
    /// can't dial whom it has to hear. So whoever leads dials everyone, and as long as nobody does,
    /// everyone does: a candidate may need the vote of a member that has never heard of it. So may
    /// one that has left, and doesn't know that this is committed: nobody else may hold that entry.
    fn dials_everyone(&self) -> bool {
        let may_lead = self.raft.leader().is_none_or(|leader| leader == self.identity.server);
        may_lead && (!self.was_removed() || self.raft.may_campaign())
    }

    /// Changes whenever [`peers`](Node::peers) or [`knows`](Node::knows) may have.
    pub fn peers_stamp(&self) -> PeersStamp {
        PeersStamp {
            membership: self.raft.membership_index(),
            committed: self.raft.committed_membership_index(),
            dials_everyone: self.dials_everyone(),
            concerned: self.raft.concerned().len() + self.raft.farewells().len(),
        }
    }

    /// Where this node asks to be let into a cluster; empty where it doesn't.
    pub fn asks_to_join(&self) -> &[String] {
        if self.raft.membership().is_empty() { &self.config.join } else { &[] }
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

    /// Whether it is no member by its log only because that has not come to the entry by which
    /// somebody knows it: a newcomer reads the log of the time before it.
    pub(super) fn is_brought_up(&self) -> bool {
        self.was_removed() && self.named_as_of > self.raft.membership_index()
    }

    /// Whether it is one without a vote.
    pub(super) fn is_learner(&self) -> bool {
        let member = self.raft.membership().member(self.identity.server);
        member.is_some_and(Member::is_learner)
    }

    /// A leader replicates to a data directory only once it is admitted: a message of that kind,
    /// meant for ours, is how a server that lost its disk learns that it may take part again.
    pub(super) fn note_admission(&mut self, from: ServerId, message: &Message) {
        if matches!(message, Message::AppendEntries(_) | Message::InstallSnapshot(_)) {
            let named = self.guests.get(&from).copied().unwrap_or_default();
            self.named_as_of = self.named_as_of.max(named);
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
    /// membership that we lack, and may be voted for: a server takes entries from a leader, and
    /// votes for a candidate, that its own membership doesn't name (§4.1); it is the candidate's
    /// membership that says whose votes count. A guest gives no vote, and nothing else that we
    /// would count as a member's.
    ///
    /// Two directories of one id can't both be elected, even in a term in which we vote for both:
    /// the newer one is a voter only after the older one's demotion was committed, and of any
    /// majority that could elect the older one somebody has that entry, which the older one lacks.
    fn incarnation_of_sender(&self, peer: ServerId, message: &Message) -> Option<Incarnation> {
        let is_a_guests = matches!(
            message,
            Message::AppendEntries(_) | Message::InstallSnapshot(_) | Message::RequestVote(_)
        );
        let guest = self.raft.link(peer).filter(|_| is_a_guests && self.is_guest(peer));
        guest.or_else(|| self.raft.incarnation_of(peer))
    }

    /// The data directory that what is sent to `peer` is meant for.
    pub(super) fn incarnation_of_receiver(&self, peer: ServerId) -> Option<Incarnation> {
        let guest = self.raft.link(peer).filter(|_| self.is_guest(peer));
        guest.or_else(|| self.raft.incarnation_of(peer))
    }

    /// Whether this node is a member on this data directory, by its own log or by what a server has
    /// said, and neither is older than the membership at `index`, by which it isn't. A member that
    /// lags may know an older directory, and whoever was just admitted has not got so far in the
    /// log; a directory that is used again after another one took its place has an older log. Who
    /// leads, or has a leader, is admitted whatever anybody says.
    pub(super) fn is_admitted_as_of(&self, index: LogIndex) -> bool {
        let member = self.raft.membership().member(self.identity.server);
        let is_own = member.is_some_and(|one| one.incarnation == self.identity.incarnation);
        let is_up_to_date = self.raft.membership_index() >= index || self.raft.leader().is_some();
        let is_named = self.named_as_of > LogIndex::ZERO && self.named_as_of >= index;
        is_named || (is_own && is_up_to_date)
    }
}
