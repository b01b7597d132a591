//! Membership changes: what the leader is asked for, and whether it can be done (chapter 4).
//!
//! One at a time, and only once an entry of the leader's own term is committed (§4.1, and the
//! correction to it: without that, two leaders' changes could miss each other's majorities). What
//! then follows by itself, up to the end of the change, is in `catch_up.rs`. Called by `node/`.

use std::time::Duration;

use super::membership::{Member, Membership};
use super::server::{Raft, Role};
use crate::limits;
use crate::proto::admin::Addresses;
use crate::proto::entry::EntryKind;
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{Incarnation, Instant, LogIndex, ServerId};

/// What may be asked for. Asking for what is so already changes nothing and is no mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new learner, to be promoted once it has caught up if `promote`, and then to take the place
    /// of `replaces`.
    Add {
        /// Its id.
        id: ServerId,
        /// Where it is reached.
        addresses: Addresses,
        /// Whether it is to vote.
        promote: bool,
        /// Whose place it takes.
        replaces: Option<ServerId>,
    },
    /// A member on a new data directory: it becomes a learner that is awaited, and is promoted
    /// once it has caught up.
    Readmit {
        /// Its id.
        id: ServerId,
    },
    /// A member less.
    Remove {
        /// Its id.
        id: ServerId,
    },
    /// A learner is to vote once it has caught up.
    Promote {
        /// Its id.
        id: ServerId,
    },
    /// Other addresses.
    Move {
        /// The member's id.
        id: ServerId,
        /// Its new addresses.
        addresses: Addresses,
    },
}

/// Why a change is not made; nothing has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChangeRefused {
    /// This server doesn't lead.
    NotLeader,
    /// No entry of this leader's own term is committed yet.
    NotReady,
    /// Another change is not concluded yet.
    Underway,
    /// Leadership is being handed over.
    Transferring,
    /// The log can take nothing but terms and votes.
    LogFull,
    /// Nobody has this id: ids begin at 1.
    BadId,
    /// The cluster has all the members that it may have.
    TooMany,
    /// A member has this id already, at other addresses.
    IdTaken(Addresses),
    /// A member is at this address already.
    AddressTaken(String, ServerId),
    /// There is no such member.
    NotMember(ServerId),
    /// Nobody would vote any more.
    LastVoter,
    /// Too few of those who would vote are heard: a majority would be missing.
    QuorumAtRisk {
        /// Who would vote.
        voters: Vec<ServerId>,
        /// Which of them are heard.
        in_touch: Vec<ServerId>,
    },
    /// The server is no voter that leadership could be handed to.
    NotSuccessor(ServerId),
}

impl ChangeRefused {
    /// Whether the same request may succeed in a moment, with nothing done about it.
    pub fn is_passing(&self) -> bool {
        use ChangeRefused as R;
        matches!(self, R::NotReady | R::Underway | R::Transferring | R::LogFull)
    }
}

/// What a change would do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The membership in the end; `None` where it is so already.
    pub target: Option<Membership>,
    /// Who votes in the end.
    pub voters: Vec<ServerId>,
    /// Which of them are heard.
    pub in_touch: Vec<ServerId>,
}

impl Plan {
    /// Whether those who are heard would be a majority of the voters.
    pub fn keeps_quorum(&self) -> bool {
        self.in_touch.len() > self.voters.len() / 2
    }
}

impl Raft {
    /// What `change` would lead to from the membership in force, whoever leads.
    ///
    /// # Errors
    /// The change can't be made, now or ever; see [`ChangeRefused::is_passing`].
    pub fn plan_change(&self, now: Instant, change: &Change) -> Result<Plan, ChangeRefused> {
        let current = self.membership();
        if current.is_joint() {
            return Err(ChangeRefused::Underway);
        }
        let mut target = current.clone();
        match change {
            // It is here, on the data directory that it was admitted with.
            Change::Readmit { id } if self.is_heard(now, *id) => {}
            _ => edit(&mut target, change)?,
        }
        let voters: Vec<ServerId> = target.voters().collect();
        if voters.is_empty() {
            return Err(ChangeRefused::LastVoter);
        }
        let in_touch = voters.iter().copied().filter(|id| self.is_heard(now, *id)).collect();
        let target = (target != *current).then_some(target);
        Ok(Plan { target, voters, in_touch })
    }

    /// Begins `change`. Returns the index of its first entry, or `None` where there is nothing to
    /// change; [`change_concluded`](Raft::change_concluded) tells when it is done. `force` takes
    /// the risk of a membership without a majority.
    ///
    /// # Errors
    /// Nothing has happened.
    pub fn propose_change(
        &mut self,
        now: Instant,
        change: &Change,
        force: bool,
    ) -> Result<Option<LogIndex>, ChangeRefused> {
        self.may_change()?;
        let plan = self.plan_change(now, change)?;
        let keeps_quorum = plan.keeps_quorum();
        let Plan { target: Some(target), voters, in_touch } = plan else {
            return Ok(None);
        };
        let changes_voters = !voters.iter().copied().eq(self.membership().voters());
        if changes_voters && !keeps_quorum && !force {
            reached(Mark::QuorumAtRisk);
            return Err(ChangeRefused::QuorumAtRisk { voters, in_touch });
        }
        if matches!(change, Change::Readmit { .. }) {
            reached(Mark::MemberReadmitted);
        }
        Ok(Some(self.enter(now, &target)))
    }

    /// Whether the change whose first entry is at `index` is done: its last entry is committed.
    pub fn change_concluded(&self, index: LogIndex) -> bool {
        let behind = self.memberships.iter().filter(|(at, _)| *at >= index);
        let last = behind.map(|(at, membership)| (*at, membership.is_joint()));
        let last = last.into_iter().find(|(_, is_joint)| !is_joint);
        last.is_some_and(|(at, _)| at <= self.commit_index)
    }

    /// How long ago `id` last answered this leader; `None` where it isn't followed.
    pub fn last_contact(&self, now: Instant, id: ServerId) -> Option<Duration> {
        match &self.role {
            Role::Leader(leading) => {
                leading.followers.get(&id).map(|progress| now.since(progress.last_heard))
            }
            _ => None,
        }
    }

    /// Whether a change could begin now.
    pub(super) fn may_change(&self) -> Result<(), ChangeRefused> {
        let Role::Leader(leading) = &self.role else {
            return Err(ChangeRefused::NotLeader);
        };
        if leading.transfer.is_some() {
            return Err(ChangeRefused::Transferring);
        }
        if self.log_is_full {
            return Err(ChangeRefused::LogFull);
        }
        if !self.is_ready() && !is_on(Mutation::ChangesBeforeTermCommits) {
            return Err(ChangeRefused::NotReady);
        }
        let (index, membership) = self.memberships.last().expect("a leader has a membership");
        let is_uncommitted = *index > self.commit_index && !is_on(Mutation::ChangesTwice);
        if is_uncommitted || membership.is_joint() {
            return Err(ChangeRefused::Underway);
        }
        Ok(())
    }

    /// Appends what leads from the membership in force to `target`: where the voters change, the
    /// joint one, which is left once it is committed (§4.3).
    pub(super) fn enter(&mut self, now: Instant, target: &Membership) -> LogIndex {
        let current = self.membership();
        let changes_voters = !target.voters().eq(current.voters());
        let is_joint = changes_voters && !is_on(Mutation::SkipsJoint);
        let next = if is_joint { current.joint_with(target) } else { target.clone() };
        self.append_membership(now, &next)
    }

    /// Appends a membership, which is in force at once.
    pub(super) fn append_membership(&mut self, now: Instant, next: &Membership) -> LogIndex {
        let index = self.append_own(now, EntryKind::Membership, next.encode());
        let uncommitted = self.memberships.iter().filter(|(at, _)| *at > self.commit_index);
        let is_one = uncommitted.count() <= 1 || is_on(Mutation::ChangesTwice);
        assert!(is_one, "one-change: the one before is committed");
        self.track_members(now);
        index
    }

    /// Whether `id` could vote now, as far as this leader can tell: it answered within an election
    /// timeout over a connection that stands, on the data directory that was admitted.
    pub fn is_heard(&self, now: Instant, id: ServerId) -> bool {
        if id == self.id {
            return true;
        }
        let Role::Leader(leading) = &self.role else {
            return self.links.contains_key(&id);
        };
        // A new leader has heard nobody: the connection of a server that died while it was cut off
        // may stand for seconds yet.
        let answered = leading.followers.get(&id).filter(|progress| progress.has_answered);
        let heard = answered.map(|progress| progress.last_heard);
        let member = self.membership().member(id).map(|member| member.incarnation);
        self.links.get(&id).copied() == member
            && heard.is_some_and(|at| now.since(at) < self.config.election_timeout.1)
    }
}

/// Makes `membership` what `change` asks for.
fn edit(membership: &mut Membership, change: &Change) -> Result<(), ChangeRefused> {
    match change {
        Change::Add { id, addresses, promote, replaces } => {
            add(membership, *id, addresses, *promote, *replaces)
        }
        Change::Readmit { id } => {
            let member = find(membership, *id)?;
            // Who was a learner by wish stays one.
            member.promote |= member.voter;
            member.voter = false;
            member.incarnation = Incarnation::ZERO;
            member.admitted = LogIndex::ZERO;
            Ok(())
        }
        Change::Remove { id } => {
            let members = membership.members_mut();
            members.retain(|member| member.id != *id);
            for member in members.iter_mut().filter(|member| member.replaces == Some(*id)) {
                member.replaces = None;
            }
            Ok(())
        }
        Change::Promote { id } => {
            let member = find(membership, *id)?;
            member.promote = !member.voter;
            Ok(())
        }
        Change::Move { id, addresses } => {
            find(membership, *id)?;
            check_addresses(membership, *id, addresses)?;
            let member = find(membership, *id)?;
            set_addresses(member, addresses);
            Ok(())
        }
    }
}

fn add(
    membership: &mut Membership,
    id: ServerId,
    addresses: &Addresses,
    promote: bool,
    replaces: Option<ServerId>,
) -> Result<(), ChangeRefused> {
    if id == ServerId::ZERO {
        return Err(ChangeRefused::BadId);
    }
    // A replacement that is over asks for nothing more.
    let replaces = replaces.filter(|old| membership.member(*old).is_some());
    check_addresses(membership, id, addresses)?;
    if let Ok(member) = find(membership, id) {
        let known = addresses_of(member);
        if known != *addresses {
            return Err(ChangeRefused::IdTaken(known));
        }
        if member.voter {
            // Nobody is to be left in its place behind its back: that is REMOVE's to say.
            return replaces.map_or(Ok(()), |_| Err(ChangeRefused::IdTaken(known)));
        }
        member.promote |= promote;
        member.replaces = replaces.or(member.replaces);
        return Ok(());
    }
    let members = membership.members_mut();
    if members.len() >= limits::MEMBERS {
        return Err(ChangeRefused::TooMany);
    }
    let mut member = Member {
        id,
        incarnation: Incarnation::ZERO,
        admitted: LogIndex::ZERO,
        voter: false,
        outgoing_voter: false,
        promote,
        replaces,
        peer: String::new(),
        client: String::new(),
        http: String::new(),
    };
    set_addresses(&mut member, addresses);
    members.push(member);
    members.sort_by_key(|member| member.id);
    Ok(())
}

fn find(membership: &mut Membership, id: ServerId) -> Result<&mut Member, ChangeRefused> {
    let mut members = membership.members_mut().iter_mut();
    members.find(|member| member.id == id).ok_or(ChangeRefused::NotMember(id))
}

/// The addresses of a member.
pub fn addresses_of(member: &Member) -> Addresses {
    let Member { peer, client, http, .. } = member.clone();
    Addresses { peer, client, http }
}

fn set_addresses(member: &mut Member, addresses: &Addresses) {
    member.peer.clone_from(&addresses.peer);
    member.client.clone_from(&addresses.client);
    member.http.clone_from(&addresses.http);
}

/// Whether nobody but `id` is at one of the addresses.
fn check_addresses(
    membership: &Membership,
    id: ServerId,
    addresses: &Addresses,
) -> Result<(), ChangeRefused> {
    let wanted = [&addresses.peer, &addresses.client, &addresses.http];
    for other in membership.members().iter().filter(|other| other.id != id) {
        for taken in [&other.peer, &other.client, &other.http] {
            let is_wanted = |address: &&&String| address.eq_ignore_ascii_case(taken);
            if !taken.is_empty() && wanted.iter().any(|address| is_wanted(&address)) {
                return Err(ChangeRefused::AddressTaken(taken.clone(), other.id));
            }
        }
    }
    Ok(())
}
