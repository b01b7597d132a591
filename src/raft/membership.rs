//! Who is a member, and what counts as a majority (§4.1, §4.3).
//!
//! A membership is an entry of the log, and the newest one in the log is in force, committed or
//! not. Called by the rest of `raft/` and by `node/`. While a change of voters is under way the
//! membership is *joint*: a majority of the old and one of the new voters are needed.

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::limits;
use crate::testing::{Mutation, is_on};
use crate::types::{Incarnation, LogIndex, ServerId};

/// One member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its id.
    pub id: ServerId,
    /// The data directory that was admitted under this id; 0 where the member has yet to say its
    /// first hello. Nothing is replicated to it before that, and a voter's is never 0.
    pub incarnation: Incarnation,
    /// The log index of the entry that admitted that directory; 0 with the incarnation.
    pub admitted: LogIndex,
    /// Whether it votes (in the new set, while joint).
    pub voter: bool,
    /// Whether it votes in the old set, while joint.
    pub outgoing_voter: bool,
    /// Whether it is to vote as soon as it has caught up (§4.2.1).
    pub promote: bool,
    /// Whose place it takes when it is promoted.
    pub replaces: Option<ServerId>,
    /// Where peers reach it.
    pub peer: String,
    /// Where clients reach it.
    pub client: String,
    /// Where it serves HTTP; empty where it doesn't.
    pub http: String,
}

impl Member {
    /// Whether its data directory is known: it has said hello since it was added.
    pub fn is_met(&self) -> bool {
        self.incarnation != Incarnation::ZERO
    }

    /// Whether it has no vote.
    pub fn is_learner(&self) -> bool {
        !self.voter && !self.outgoing_voter
    }

    /// Whether it is a learner that only has to catch up to become a voter.
    pub fn is_awaiting_promotion(&self) -> bool {
        self.promote && !self.voter && self.is_met()
    }
}

/// All members, ordered by id.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Membership {
    members: Vec<Member>,
    joint: bool,
}

const VERSION: u8 = 1;
const VOTER: u8 = 1;
const OUTGOING_VOTER: u8 = 2;
const PROMOTE: u8 = 4;
/// The id of the server that it replaces follows on the other numbers.
const REPLACES: u8 = 8;
const FLAGS: u8 = VOTER | OUTGOING_VOTER | PROMOTE | REPLACES;

impl Membership {
    /// A membership that is not joint.
    pub fn new(mut members: Vec<Member>) -> Membership {
        members.sort_by_key(|member| member.id);
        Membership { members, joint: false }
    }

    /// Nobody: the membership before the cluster was founded.
    pub const fn nobody() -> Membership {
        Membership { members: Vec::new(), joint: false }
    }

    /// Whether there is nobody: the cluster has not been founded yet.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Everyone, ordered by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this id.
    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The same, to be changed. Whoever changes an id has to keep the order.
    pub(super) fn members_mut(&mut self) -> &mut Vec<Member> {
        &mut self.members
    }

    /// Whether a change of voters is under way.
    pub fn is_joint(&self) -> bool {
        self.joint
    }

    /// Who votes once no change is under way.
    pub fn voters(&self) -> impl Iterator<Item = ServerId> {
        self.members.iter().filter(|member| member.voter).map(|member| member.id)
    }

    /// The way from this membership to `target`, neither of them joint (§4.3): while it is in
    /// force, a majority of the old voters and one of the new ones are needed. A voter that
    /// `target` demotes keeps its data directory until [`leave_joint`](Membership::leave_joint),
    /// because until then it is that directory's vote that counts.
    pub(super) fn joint_with(&self, target: &Membership) -> Membership {
        assert!(!self.joint && !target.joint, "one-change: the way begins and ends in one set");
        let mut joint = target.clone();
        joint.joint = true;
        for old in self.members.iter().filter(|old| old.voter) {
            match joint.members.iter_mut().find(|member| member.id == old.id) {
                Some(member) => {
                    member.outgoing_voter = true;
                    member.incarnation = old.incarnation;
                    member.admitted = old.admitted;
                }
                None => {
                    let gone = Member { voter: false, promote: false, ..old.clone() };
                    joint.members.push(Member { outgoing_voter: true, ..gone });
                }
            }
        }
        joint.members.sort_by_key(|member| member.id);
        joint
    }

    /// Where a joint membership leads to. Who voted and doesn't any more has left, unless it is to
    /// be promoted again: then it lost its disk, and is awaited on a new one.
    pub(super) fn leave_joint(&self) -> Membership {
        assert!(self.joint, "only a joint membership is left");
        let stays = |member: &&Member| member.voter || !member.outgoing_voter || member.promote;
        let settled = |member: &Member| {
            let lost_disk = member.outgoing_voter && !member.voter;
            let mut member = Member { outgoing_voter: false, ..member.clone() };
            if lost_disk {
                member.incarnation = Incarnation::ZERO;
                member.admitted = LogIndex::ZERO;
            }
            member
        };
        Membership::new(self.members.iter().filter(stays).map(settled).collect())
    }

    /// Whether `id` has a vote.
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.member(id).is_some_and(|member| member.voter || member.outgoing_voter)
    }

    /// Whether those for whom `holds` is true are enough to decide.
    pub fn is_quorum(&self, holds: impl Fn(ServerId) -> bool) -> bool {
        self.quorum_value(|id| u8::from(holds(id))) == Some(1)
    }

    /// The highest value that a majority has reached or passed, by each voter's `value`. `None`
    /// where nobody votes.
    pub fn quorum_value<T: Ord + Copy>(&self, value: impl Fn(ServerId) -> T) -> Option<T> {
        let votes =
            |m: &&Member| m.voter || (is_on(Mutation::LearnerCounts) && m.is_met() && !self.joint);
        let new = majority_value(self.members.iter().filter(votes), &value)?;
        if !self.joint || is_on(Mutation::JointCountsNewHalf) {
            return Some(new);
        }
        let old = majority_value(self.members.iter().filter(|m| m.outgoing_voter), &value)?;
        Some(new.min(old))
    }

    /// The payload of a membership entry.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, u8::from(self.joint), self.members.len() as u8];
        for member in &self.members {
            let voter = if member.voter { VOTER } else { 0 };
            let outgoing = if member.outgoing_voter { OUTGOING_VOTER } else { 0 };
            let promote = if member.promote { PROMOTE } else { 0 };
            let replaces = if member.replaces.is_some() { REPLACES } else { 0 };
            out.push(voter | outgoing | promote | replaces);
            for number in [member.id.0, member.incarnation.0, member.admitted.0] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            if let Some(replaced) = member.replaces {
                out.extend_from_slice(&replaced.0.to_le_bytes());
            }
            for text in [&member.peer, &member.client, &member.http] {
                let length = u8::try_from(text.len()).expect("config bounds an address's length");
                out.push(length);
                out.extend_from_slice(text.as_bytes());
            }
        }
        Bytes::from(out)
    }

    /// The membership of a payload, or `None` where it isn't one.
    pub fn decode(payload: &[u8]) -> Option<Membership> {
        let [version, joint, count, rest @ ..] = payload else {
            return None;
        };
        if *version != VERSION || *joint > 1 || usize::from(*count) > limits::MEMBERS {
            return None;
        }
        let mut rest = rest;
        let mut members = Vec::new();
        for _ in 0..*count {
            members.push(decode_member(&mut rest)?);
        }
        let is_ordered = members.is_sorted_by(|a: &Member, b| a.id < b.id);
        let is_one_set = members.iter().all(|member| !member.outgoing_voter);
        (rest.is_empty() && is_ordered && (*joint == 1 || is_one_set))
            .then_some(Membership { members, joint: *joint == 1 })
    }
}

fn decode_member(rest: &mut &[u8]) -> Option<Member> {
    let flags = *rest.split_off_first()?;
    if flags & !FLAGS != 0 {
        return None;
    }
    let mut number = || rest.split_off(..8).map(LittleEndian::read_u64);
    let (id, incarnation, admitted) = (number()?, number()?, number()?);
    let replaces = if flags & REPLACES != 0 { Some(ServerId(number()?)) } else { None };
    let mut text = || {
        let length = usize::from(*rest.split_off_first()?);
        let bytes = rest.split_off(..length)?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    };
    Some(Member {
        id: ServerId(id),
        incarnation: Incarnation(incarnation),
        admitted: LogIndex(admitted),
        voter: flags & VOTER != 0,
        outgoing_voter: flags & OUTGOING_VOTER != 0,
        promote: flags & PROMOTE != 0,
        replaces,
        peer: text()?,
        client: text()?,
        http: text()?,
    })
}

/// The highest value that more than half of `voters` have reached.
fn majority_value<'a, T: Ord + Copy>(
    voters: impl Iterator<Item = &'a Member>,
    value: &impl Fn(ServerId) -> T,
) -> Option<T> {
    let mut values: Vec<T> = voters.map(|member| value(member.id)).collect();
    values.sort_unstable();
    // Of 2f+1 or 2f+2 sorted values, f+1 or f+2 are at least the one at this place.
    let last = values.len().checked_sub(1)?;
    let place = match is_on(Mutation::MajorityTooSmall) {
        true => last.min(last / 2 + 1),
        false => last / 2,
    };
    Some(values[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, voter: bool, outgoing_voter: bool) -> Member {
        Member {
            id: ServerId(id),
            incarnation: Incarnation(id * 11),
            admitted: LogIndex(1),
            voter,
            outgoing_voter,
            promote: false,
            replaces: None,
            peer: format!("10.0.0.{id}:7201"),
            client: format!("10.0.0.{id}:7101"),
            http: String::new(),
        }
    }

    #[test]
    fn quorum_value_is_what_a_majority_reached() {
        let reached = |values: &'static [u64]| {
            let count = values.len() as u64;
            let members = (1..=count).map(|id| member(id, true, false)).collect();
            Membership::new(members).quorum_value(|id| values[id.0 as usize - 1])
        };
        assert_eq!(reached(&[7]), Some(7));
        assert_eq!(reached(&[7, 9]), Some(7));
        assert_eq!(reached(&[7, 9, 8]), Some(8));
        assert_eq!(reached(&[9, 9, 1, 1]), Some(1));
        assert_eq!(reached(&[9, 9, 9, 1, 1]), Some(9));
        assert_eq!(reached(&[]), None);
    }

    #[test]
    fn quorum_value_of_a_joint_membership_needs_both_majorities() {
        let members = vec![
            member(1, false, true),
            member(2, false, true),
            member(3, true, true),
            member(4, true, false),
            member(5, true, false),
        ];
        let joint = Membership { members, joint: true };
        assert!(!joint.is_quorum(|id| id.0 >= 3), "the old set has only server 3");
        assert!(!joint.is_quorum(|id| id.0 <= 3), "the new set has only server 3");
        assert!(joint.is_quorum(|id| id.0 != 1 && id.0 != 5));
    }

    #[test]
    fn decode_returns_what_encode_wrote_and_rejects_the_rest() {
        let learner =
            Member { promote: true, replaces: Some(ServerId(9)), ..member(7, false, false) };
        let membership = Membership {
            members: vec![member(1, true, false), learner, member(9, false, true)],
            joint: true,
        };
        let payload = membership.encode();
        assert_eq!(Membership::decode(&payload), Some(membership));
        for length in 0..payload.len() {
            assert_eq!(Membership::decode(&payload[..length]), None, "cut at {length}");
        }
        let mut unknown = payload.to_vec();
        unknown[3] |= 0x10;
        assert_eq!(Membership::decode(&unknown), None, "a flag that this version doesn't know");
    }

    #[test]
    fn leave_joint_ends_where_joint_with_led_to() {
        let old = Membership::new(vec![
            member(1, true, false),
            member(2, true, false),
            member(3, true, false),
            member(4, false, false),
        ]);
        // Server 2 leaves, 3 lost its disk, 4 is promoted.
        let lost = Member {
            promote: true,
            incarnation: Incarnation::ZERO,
            admitted: LogIndex::ZERO,
            ..member(3, false, false)
        };
        let target = Membership::new(vec![member(1, true, false), lost, member(4, true, false)]);
        let joint = old.joint_with(&target);
        assert_eq!(joint.voters().collect::<Vec<_>>(), [ServerId(1), ServerId(4)]);
        let demoted = joint.member(ServerId(3)).expect("it is still needed");
        assert_eq!((demoted.incarnation, demoted.outgoing_voter), (Incarnation(33), true));
        assert!(!joint.is_quorum(|id| id.0 == 1 || id.0 == 4), "of the old ones only server 1");
        assert_eq!(joint.leave_joint(), target);
    }
}
