//! Who may connect as a peer.
//!
//! Design 1-architecture §4: a data directory has a random incarnation, recorded in the membership;
//! a hello names it, the boot counter and a random number of the process. A server that lost its
//! disk, or runs on an old copy of one, shows here. Called by the drivers for every hello.

use super::node::Node;
use crate::proto::hello::{Hello, HelloRefused, Refusal, Role};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Identity, Incarnation, Instant, Lineage, ServerId};

/// A hello that is in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Who says hello.
    pub peer: ServerId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// A process that this directory has not met: to be recorded durably before the hello counts.
    pub record: Option<Identity>,
    /// This blank server belongs to the peer's lineage from now on: to be made durable before
    /// anything else.
    pub adopt: Option<Lineage>,
}

impl Node {
    /// What this node says to `peer` first.
    pub fn hello_to(&self, peer: ServerId) -> Hello {
        let member = self.raft.membership().member(peer);
        let identity = &self.identity;
        let admitted = member.map(|member| member.incarnation);
        let guest = self.known_peers.get(&peer).filter(|_| self.is_guest(peer));
        let guest = guest.map(|identity| identity.incarnation);
        let receiver_incarnation = guest.or(admitted).unwrap_or(Incarnation::ZERO);
        Hello {
            role: Role::Peer,
            cluster: self.config.cluster.name.clone(),
            sender: identity.server,
            receiver: peer,
            sender_incarnation: identity.incarnation,
            receiver_incarnation,
            boot: identity.boot,
            nonce: identity.nonce,
            membership_index: self.raft.committed_membership_index(),
            lineage: self.descent.lineage,
            is_blank: self.is_blank(),
        }
    }

    /// Decides about a peer's hello.
    pub fn judge_hello(&mut self, now: Instant, hello: &Hello) -> Result<Verdict, HelloRefused> {
        self.check_address(now, hello)?;
        let (peer, incarnation) = (hello.sender, hello.sender_incarnation);
        let membership = self.raft.membership();
        let member = membership.member(peer).filter(|member| member.is_met());
        if let Some(known) = member.map(|member| member.incarnation)
            && known != incarnation
            && !self.is_called_back(hello)
            && !is_on(Mutation::LostDiskTakesPart)
        {
            self.requested.note_stray(peer, Refusal::LostDisk);
            reached(Mark::LostDiskTold);
            let text = format!(
                "server {peer} is a member on data directory {known}, not on {incarnation}: it \
                 lost its disk, or was given another one, and must be admitted again"
            );
            return Err(HelloRefused { code: Refusal::LostDisk, text });
        }
        let mut members = membership.members().iter();
        let taken = members.find(|other| other.incarnation == incarnation && other.id != peer);
        if let Some(other) = taken {
            let text = format!("data directory {incarnation} is server {}'s", other.id);
            return Err(HelloRefused { code: Refusal::Sender, text });
        }
        let cluster = self.cluster_of(hello.lineage, hello.is_blank);
        let identity =
            Identity { cluster, server: peer, incarnation, boot: hello.boot, nonce: hello.nonce };
        let known = self.known_peers.get(&peer).copied();
        let known = known.filter(|known| known.incarnation == incarnation);
        let is_old = known.is_some_and(|known| {
            hello.boot < known.boot || (hello.boot == known.boot && hello.nonce != known.nonce)
        });
        if is_old && !is_on(Mutation::AcceptsOldCopy) {
            self.requested.note_stray(peer, Refusal::OldCopy);
            reached(Mark::OldCopyTold);
            let text = format!(
                "server {peer} has run on a later state of data directory {incarnation} than boot \
                 {}: this is an old copy of it, and must be admitted again",
                hello.boot
            );
            return Err(HelloRefused { code: Refusal::OldCopy, text });
        }
        if hello.receiver_incarnation == self.identity.incarnation {
            self.admitted_again();
        }
        let adopt = self.adopt(cluster, hello.lineage);
        let record = (known != Some(identity)).then_some(identity);
        self.known_peers.insert(peer, identity);
        Ok(Verdict { peer, incarnation, record, adopt })
    }

    /// Whether the hello is for this node, from someone it knows.
    fn check_address(&mut self, now: Instant, hello: &Hello) -> Result<(), HelloRefused> {
        let own = self.identity;
        let refused = |code: Refusal, text: String| Err(HelloRefused { code, text });
        if hello.role != Role::Peer {
            let text = "this is the peer port; clients connect elsewhere".to_owned();
            return refused(Refusal::Role, text);
        }
        if hello.cluster != self.config.cluster.name {
            let name = &self.config.cluster.name;
            let text = format!("this is cluster '{name}', not '{}'", hello.cluster);
            return refused(Refusal::Cluster, text);
        }
        self.check_lineage(hello)?;
        // Who asks to be let in does not know whom it has reached.
        if hello.receiver != own.server && hello.receiver != ServerId::ZERO {
            let text = format!("this is server {}, not {}", own.server, hello.receiver);
            return refused(Refusal::Receiver, text);
        }
        if self.is_called_back(hello) {
            self.guests.insert(hello.sender, self.raft.membership_index());
        }
        if !self.knows(hello.sender) {
            let text = format!("server {} is not a member", hello.sender);
            return refused(Refusal::Sender, text);
        }
        let expected = hello.receiver_incarnation;
        let is_other = expected != Incarnation::ZERO && expected != own.incarnation;
        if is_other && !is_on(Mutation::LostDiskTakesPart) {
            let text = format!(
                "server {} knows this server on data directory {expected}, not on {}",
                hello.sender, own.incarnation
            );
            if !self.is_admitted_by_own_log() {
                self.lost_disk(now, text.clone());
            }
            return refused(Refusal::ReceiverIncarnation, text);
        }
        Ok(())
    }

    /// Whether `peer` was let in because it knows a later membership than this node does.
    pub(super) fn is_guest(&self, peer: ServerId) -> bool {
        self.guests.get(&peer) == Some(&self.raft.membership_index())
    }

    /// Whether the hello is from a member that this node can't know yet, or not on its directory:
    /// it was away while members came and went, and the sender, which knows a later membership,
    /// knows it on its own. A server that lost its disk knows no membership at all.
    fn is_called_back(&self, hello: &Hello) -> bool {
        hello.receiver_incarnation == self.identity.incarnation
            && hello.membership_index > self.raft.membership_index()
    }

    /// What is said to a server that dialled, and should not have.
    pub fn refuse_direction(&self, peer: ServerId) -> HelloRefused {
        if self.knows(peer) {
            let text = format!("server {} dials server {peer} itself", self.identity.server);
            return HelloRefused { code: Refusal::Direction, text };
        }
        HelloRefused { code: Refusal::Sender, text: format!("server {peer} is not a member") }
    }

    /// Whether `peer` may be connected with: it is a member, or this node can't tell, because it
    /// waits to be let in or lost its disk, and takes part in nothing before that.
    pub fn knows(&self, peer: ServerId) -> bool {
        let is_blank = self.raft.membership().is_empty();
        self.is_guest(peer)
            || (is_blank && peer != self.identity.server)
            || self.peers().iter().any(|known| known.id == peer)
    }

    /// `peer` refused this node's hello; nobody, where it was dialled without knowing who it is.
    pub fn hello_refused(&mut self, now: Instant, peer: Option<ServerId>, refused: &HelloRefused) {
        match (refused.code, peer) {
            (Refusal::OldCopy, _) => {
                self.is_old_copy = true;
                self.lost_disk(now, refused.text.clone());
            }
            // A member that lags may know an older directory than the one we are a member on.
            (Refusal::LostDisk, _) if !self.is_admitted_by_own_log() => {
                self.lost_disk(now, refused.text.clone());
            }
            (Refusal::ReceiverIncarnation, Some(peer)) => {
                self.requested.note_stray(peer, Refusal::LostDisk);
            }
            (Refusal::Lineage, Some(peer)) => {
                let text = format!("is refused by server {peer}: {}", refused.text);
                self.tell_stranger(peer, text);
            }
            (Refusal::LostDisk | Refusal::Sender | Refusal::Lineage, _) => {
                self.cast_out(&refused.text)
            }
            _ => {}
        }
    }

    /// Somebody doesn't know this node as a member: said once in the log.
    fn cast_out(&mut self, text: &str) {
        if self.outcast_reason.is_none() {
            self.outcast_reason = Some(text.to_owned());
            let hint = match self.asks_to_join() {
                [] => "",
                _ => "; waiting to be added: RAFT ADD, to any member",
            };
            self.notice(format!("is not let in: {text}{hint}"));
        }
    }

    /// Why this node takes part in nothing, if it doesn't.
    pub fn recovering_reason(&self) -> Option<&str> {
        self.recovering_reason.as_deref()
    }

    pub(super) fn lost_disk(&mut self, now: Instant, reason: String) {
        self.raft.lost_disk(now);
        self.recovering_reason.get_or_insert(reason);
    }
}
