//! Who may connect as a peer.
//!
//! Design 1-architecture §4: a data directory has a random incarnation, recorded in the membership;
//! a hello names it, the boot counter and a random number of the process. A server that lost its
//! disk, or runs on an old copy of one, shows here. Called by the drivers for every hello.

use super::node::Node;
use crate::limits;
use crate::proto::hello::{Hello, HelloRefused, Refusal, Role};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Identity, Incarnation, Instant, Lineage, LogIndex, ServerId};

/// A hello that is in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Who says hello.
    pub peer: ServerId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// A process that this directory has not met: to be recorded durably before the hello counts.
    pub record: Option<Identity>,
    /// The newest process of it before this one.
    pub known: Option<Identity>,
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
            membership_index: self.raft.membership_index(),
            lineage: self.descent.lineage,
            is_blank: self.is_blank(),
            command_set: self.known_command_set(),
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
            self.requested.note_stray(now, peer, Refusal::LostDisk);
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
            self.requested.note_stray(now, peer, Refusal::OldCopy);
            reached(Mark::OldCopyTold);
            let text = format!(
                "server {peer} has run on a later state of data directory {incarnation} than boot \
                 {}: this is an old copy of it, and must be admitted again",
                hello.boot
            );
            return Err(HelloRefused { code: Refusal::OldCopy, text });
        }
        self.check_version(hello)?;
        self.check_room_for(peer)?;
        self.receive_guest(hello);
        if hello.receiver_incarnation == self.identity.incarnation {
            self.named_as_of = self.named_as_of.max(hello.membership_index);
            self.admitted_again();
        }
        let adopt = self.adopt(cluster, hello.lineage);
        let record = (known != Some(identity)).then_some(identity);
        let known = self.known_peers.insert(peer, identity);
        self.note_version(hello);
        Ok(Verdict { peer, incarnation, record, known, adopt })
    }

    /// What a hello asks to be remembered can't be: the disk is full. It doesn't count, and its
    /// sender will say it again.
    pub fn take_back(&mut self, verdict: &Verdict) -> HelloRefused {
        match verdict.known {
            Some(known) => self.known_peers.insert(verdict.peer, known),
            None => self.known_peers.remove(&verdict.peer),
        };
        let text = "the disk is full: no new process of a peer can be remembered".to_owned();
        HelloRefused { code: Refusal::DiskFull, text }
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
        if hello.sender == own.server || hello.sender == ServerId::ZERO {
            let text = format!("server {} is this one, or none", hello.sender);
            return refused(Refusal::Sender, text);
        }
        // Before anything else that could be wrong: a server that was wiped may have founded a
        // cluster of its own, which knows nobody.
        let expected = hello.receiver_incarnation;
        let is_other = expected != Incarnation::ZERO && expected != own.incarnation;
        if is_other && !is_on(Mutation::LostDiskTakesPart) {
            let text = format!(
                "server {} knows this server on data directory {expected}, not on {}",
                hello.sender, own.incarnation
            );
            if !self.is_admitted_as_of(hello.membership_index) {
                self.lost_disk(now, text.clone());
            } else if hello.membership_index > self.raft.membership_index() {
                self.doubt(&text);
            }
            return refused(Refusal::ReceiverIncarnation, text);
        }
        if !self.is_called_back(hello) && !self.knows_nobody() && !self.is_concerned(hello.sender) {
            let text = format!("server {} is not a member", hello.sender);
            return refused(Refusal::Sender, text);
        }
        Ok(())
    }

    /// Whether this node knows no membership: it founds one with others, or is to be let in.
    fn knows_nobody(&self) -> bool {
        self.raft.membership().is_empty()
    }

    /// Whether this node wants a connection with `peer`.
    fn is_concerned(&self, peer: ServerId) -> bool {
        self.peers().iter().any(|known| known.id == peer)
    }

    /// Whether `peer` was let in because it knows a later membership than this node knows to be
    /// committed: what is behind that may be replaced, by a leader that this node can't know.
    pub(super) fn is_guest(&self, peer: ServerId) -> bool {
        let committed = self.raft.committed_membership_index();
        self.guests.get(&peer).is_some_and(|named| *named > committed)
    }

    /// Whether the hello is from a member that this node can't know yet, or not on its directory:
    /// it was away while members came and went, and the sender, which knows a later membership,
    /// knows it on its own directory; or awaits it, where this node knows that it has left, or that
    /// its directory is not the one that was admitted. A server that lost its disk knows no
    /// membership at all.
    fn is_called_back(&self, hello: &Hello) -> bool {
        let is_out = self.was_removed() || self.raft.is_recovering();
        let is_awaited = is_out && hello.receiver_incarnation == Incarnation::ZERO;
        (is_awaited || hello.receiver_incarnation == self.identity.incarnation)
            && hello.membership_index > self.raft.committed_membership_index()
    }

    /// Takes note of a guest, or that the sender is none any more.
    fn receive_guest(&mut self, hello: &Hello) {
        if self.is_called_back(hello) || self.knows_nobody() {
            self.guests.insert(hello.sender, hello.membership_index);
        } else {
            self.guests.remove(&hello.sender);
        }
    }

    /// Whoever can say hello could fill what a server remembers, and its meta file. So servers that
    /// it doesn't know as members are few at a time, and leave room for those that are.
    fn check_room_for(&mut self, peer: ServerId) -> Result<(), HelloRefused> {
        let concerned: Vec<ServerId> = self.peers().iter().map(|known| known.id).collect();
        let raft = &self.raft;
        self.guests.retain(|id, _| concerned.contains(id) || raft.link(*id).is_some());
        let is_stranger = !concerned.contains(&peer);
        let strangers = self.guests.keys().filter(|id| **id != peer && !concerned.contains(id));
        let bound = match is_stranger {
            true => limits::KNOWN_STRANGERS,
            false => limits::KNOWN_PEERS,
        };
        let is_new = !self.known_peers.contains_key(&peer);
        let text = if is_stranger && strangers.count() >= limits::GUESTS {
            format!("too many servers are linked that are no members; server {peer} is another")
        } else if is_new && self.known_peers.len() >= bound {
            let count = self.known_peers.len();
            format!("too many servers were met: {count}; this one remembers no further one")
        } else {
            return Ok(());
        };
        Err(HelloRefused { code: Refusal::Sender, text })
    }

    /// Whether a connection with `peer` may stand: it is a member, on the directory that was
    /// admitted, or this node can't tell, because it waits to be let in or lost its disk, and takes
    /// part in nothing before that.
    pub fn knows(&self, peer: ServerId) -> bool {
        let member = self.raft.membership().member(peer).filter(|member| member.is_met());
        let is_on_another = match (member, self.raft.link(peer)) {
            (Some(member), Some(link)) => member.incarnation != link,
            _ => false,
        };
        let may_stand = !is_on_another || is_on(Mutation::LostDiskTakesPart);
        self.is_guest(peer) || self.knows_nobody() || (self.is_concerned(peer) && may_stand)
    }

    /// `peer` refused this node's hello; nobody, where it was dialled without knowing who it is.
    pub fn hello_refused(&mut self, now: Instant, peer: Option<ServerId>, refused: &HelloRefused) {
        match (refused.code, peer) {
            (Refusal::OldCopy, _) => {
                self.is_old_copy = true;
                self.lost_disk(now, refused.text.clone());
            }
            // A member that lags may know an older directory than the one we are a member on.
            (Refusal::LostDisk, _) if !self.is_admitted_as_of(LogIndex::ZERO) => {
                self.lost_disk(now, refused.text.clone());
            }
            (Refusal::ReceiverIncarnation, Some(peer)) => {
                self.requested.note_stray(now, peer, Refusal::LostDisk);
            }
            (Refusal::Lineage, Some(peer)) => {
                let text = format!("is refused by server {peer}: {}", refused.text);
                self.tell_stranger(peer, text);
            }
            (Refusal::LostDisk | Refusal::Sender | Refusal::Lineage | Refusal::CommandSet, _) => {
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

    /// Somebody takes this server, which is a member by its own log, for one of another cluster:
    /// said once in the log.
    fn doubt(&mut self, text: &str) {
        if !std::mem::replace(&mut self.is_doubted, true) {
            self.notice(format!(
                "{text}: if this server has lost its disk, it has founded a cluster of its own. \
                 Then stop it, move its data directory away, and start it with --join"
            ));
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
