//! Membership changes: §4.1 (when), §4.2.1 (catching up), §4.2.3 (disruptive servers), and what the
//! design adds: a member's data directory is recorded when it first says hello.
//!
//! §4.2.2 and §4.3, where the voters change, are in `membership_joint.rs`, which uses the helpers
//! of this file.

use raftkv::proto::admin::Addresses;
use raftkv::proto::entry::EntryKind;
use raftkv::proto::message::Message;
use raftkv::raft::RoleName;
use raftkv::raft::change::{Change, ChangeRefused};
use raftkv::raft::membership::{Member, Membership};
use raftkv::types::{Incarnation, LogIndex, ServerId};

use crate::support::*;

pub fn addresses(id: u64) -> Addresses {
    Addresses {
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: String::new(),
    }
}

pub fn add(id: u64) -> Change {
    Change::Add { id: ServerId(id), addresses: addresses(id), promote: true, replaces: None }
}

pub fn learner(id: u64) -> Change {
    Change::Add { id: ServerId(id), addresses: addresses(id), promote: false, replaces: None }
}

pub fn remove(id: u64) -> Change {
    Change::Remove { id: ServerId(id) }
}

/// A leader of `members` in term 2 whose first entry, at 2, is committed by all of them.
pub fn ready(members: u64) -> Server {
    let mut leader = elect(Start::member(1, &[1]).of(members));
    for peer in 2..=members {
        leader.answer(peer, matched(2, 2));
    }
    assert_eq!(leader.commit(), 2);
    leader
}

pub fn change(server: &mut Server, change: &Change) -> Result<Option<u64>, ChangeRefused> {
    let begun = server.raft.propose_change(server.now, change, false);
    begun.map(|index| index.map(|index| index.0))
}

/// The members of the membership in force: id, incarnation, and how they vote: `V` in the new set,
/// `O` in the old one, `VO` in both, `L` not at all, `P` to be promoted.
pub fn members(server: &Server) -> Vec<(u64, u64, &'static str)> {
    let vote = |member: &Member| match (member.voter, member.outgoing_voter, member.promote) {
        (true, true, _) => "VO",
        (true, false, _) => "V",
        (false, true, false) => "O",
        (false, true, true) => "OP",
        (false, false, true) => "P",
        (false, false, false) => "L",
    };
    let all = server.raft.membership().members().iter();
    all.map(|member| (member.id.0, member.incarnation.0, vote(member))).collect()
}

/// `id` says hello on its own data directory.
pub fn greet(server: &mut Server, id: u64) {
    server.peer_up(id);
}

#[test]
fn section_4_1_only_a_leader_whose_term_has_a_committed_entry_changes_members() {
    // 1. A follower, then a leader whose first entry is not committed.
    let mut follower = Start::member(1, &[1]).start();
    assert_eq!(change(&mut follower, &add(4)), Err(ChangeRefused::NotLeader));
    let mut leader = elect(Start::member(1, &[1]));
    assert_eq!(change(&mut leader, &add(4)), Err(ChangeRefused::NotReady));
    // 2. Committed.
    leader.answer(2, matched(2, 2));
    assert_eq!(change(&mut leader, &add(4)), Ok(Some(3)));
}

#[test]
fn section_4_1_one_change_at_a_time() {
    let mut leader = ready(3);
    assert_eq!(change(&mut leader, &add(4)), Ok(Some(3)));
    assert_eq!(change(&mut leader, &remove(2)), Err(ChangeRefused::Underway));
    leader.settle();
    leader.answer(2, matched(2, 3));
    assert!(leader.raft.change_concluded(LogIndex(3)));
    assert!(change(&mut leader, &remove(2)).is_ok());
}

#[test]
fn section_4_1_no_change_during_a_transfer() {
    let mut leader = ready(3);
    assert!(leader.raft.hand_over(leader.now));
    assert_eq!(change(&mut leader, &add(4)), Err(ChangeRefused::Transferring));
}

#[test]
fn section_4_1_a_membership_is_in_force_once_it_is_in_the_log_and_gone_once_it_is_not() {
    // 1. A follower appends a membership that is not committed.
    let mut server = Start::member(2, &[1]).start();
    let mut next = server.raft.membership().members().to_vec();
    next.retain(|member| member.id != ServerId(3));
    let mut request = append_request(1, (1, 1), &[1], 0);
    request.entries[0].kind = EntryKind::Membership;
    request.entries[0].payload = Membership::new(next).encode();
    server.answer(1, Message::AppendEntries(request));
    assert_eq!(members(&server).len(), 2);
    // 2. Another leader replaces it.
    server.answer(3, append(2, (1, 1), &[2], 0));
    assert_eq!(members(&server).len(), 3);
}

#[test]
fn section_4_2_1_a_new_member_is_a_learner_that_nobody_counts() {
    let mut leader = ready(3);
    change(&mut leader, &add(4)).unwrap();
    leader.settle();
    assert_eq!(members(&leader)[3], (4, 0, "P"));
    leader.answer(2, matched(2, 3));
    assert_eq!(leader.commit(), 3, "two of three voters are a majority");
}

#[test]
fn first_hello_admits_a_data_directory_and_only_then_is_it_replicated_to() {
    let mut leader = ready(3);
    change(&mut leader, &learner(4)).unwrap();
    let mut mail = leader.settle();
    // 1. It greets before its entry is committed: one change at a time.
    greet(&mut leader, 4);
    mail.extend(leader.settle());
    assert_eq!(appends(&mail, 4).len(), 0);
    assert_eq!(members(&leader)[3], (4, 0, "L"));
    // 2. Committed: its directory is recorded, with the index of that entry.
    let mail = leader.answer(2, matched(2, 3));
    let member = leader.raft.membership().member(ServerId(4)).unwrap().clone();
    assert_eq!((member.incarnation, member.admitted), (incarnation(4), LogIndex(4)));
    assert_eq!(appends(&mail, 4).len(), 1, "it is followed from now on");
}

#[test]
fn first_hello_on_another_members_directory_admits_nothing() {
    let mut leader = ready(3);
    change(&mut leader, &learner(4)).unwrap();
    leader.settle();
    leader.answer(2, matched(2, 3));
    leader.raft.peer_up(leader.now, ServerId(4), incarnation(2));
    leader.settle();
    assert_eq!(members(&leader)[3], (4, 0, "L"));
    leader.raft.peer_up(leader.now, ServerId(4), Incarnation(99));
    leader.settle();
    assert_eq!(members(&leader)[3], (4, 99, "L"));
}

#[test]
fn admission_is_kept_through_later_changes() {
    let mut leader = ready(3);
    admit(&mut leader, &learner(4), 4);
    let moved = Change::Move { id: ServerId(4), addresses: addresses(44) };
    assert_eq!(change(&mut leader, &moved), Ok(Some(5)));
    let member = leader.raft.membership().member(ServerId(4)).unwrap();
    assert_eq!((member.admitted, member.peer.as_str()), (LogIndex(4), "10.0.0.44:7201"));
    let founder = leader.raft.membership().member(ServerId(2)).unwrap();
    assert_eq!(founder.admitted, LogIndex(1));
}

/// Adds a member and hears its hello; both entries are committed by servers 2 and 3.
pub fn admit(leader: &mut Server, wanted: &Change, id: u64) {
    change(leader, wanted).unwrap();
    for _ in 0..2 {
        leader.settle();
        let last = leader.raft.log().last_index().0;
        leader.answer(2, matched(2, last));
        leader.answer(3, matched(2, last));
        greet(leader, id);
    }
    leader.settle();
    assert!(leader.raft.membership().member(ServerId(id)).unwrap().is_met());
}

#[test]
fn section_4_2_1_a_learner_is_promoted_once_a_round_took_less_than_an_election_timeout() {
    let mut leader = ready(3);
    admit(&mut leader, &add(4), 4);
    let last = leader.raft.log().last_index().0;
    // 1. The first round takes longer than an election timeout.
    for _ in 0..4 {
        leader.wait(HEARTBEAT);
        for peer in [2, 3] {
            leader.answer(peer, matched(2, last));
        }
        leader.answer(4, matched(2, 1));
    }
    assert_eq!(leader.propose(), Some(last + 1));
    leader.settle();
    leader.answer(4, matched(2, last));
    assert_eq!(members(&leader)[3], (4, 44, "P"), "the round was too long");
    // 2. The next one does not: it goes through a joint membership.
    leader.wait(HEARTBEAT);
    leader.answer(4, matched(2, last + 1));
    assert_eq!(members(&leader)[3], (4, 44, "V"));
    assert!(leader.raft.membership().is_joint());
}

#[test]
fn section_4_2_1_a_learner_that_never_started_or_lags_is_not_promoted() {
    // 1. One that never said hello.
    let mut leader = ready(3);
    change(&mut leader, &add(4)).unwrap();
    leader.settle();
    leader.answer(2, matched(2, 3));
    assert_eq!(change(&mut leader, &Change::Promote { id: ServerId(4) }), Ok(None), "it waits");
    for _ in 0..20 {
        leader.wait(HEARTBEAT);
        leader.answer(2, matched(2, 3));
        leader.answer(3, matched(2, 3));
    }
    assert_eq!(members(&leader)[3], (4, 0, "P"));
    // 2. One that is there, but gets nowhere.
    let mut leader = ready(3);
    admit(&mut leader, &add(4), 4);
    for _ in 0..20 {
        leader.wait(HEARTBEAT);
        leader.answer(2, matched(2, 4));
        leader.answer(3, matched(2, 4));
        leader.answer(4, matched(2, 3));
    }
    assert_eq!(members(&leader)[3], (4, 44, "P"));
}

#[test]
fn section_4_2_1_a_learner_without_the_wish_stays_one_until_it_is_promoted() {
    let mut leader = ready(3);
    admit(&mut leader, &learner(4), 4);
    leader.answer(4, matched(2, 4));
    leader.answer(4, matched(2, 4));
    assert_eq!(members(&leader)[3], (4, 44, "L"));
    assert_eq!(change(&mut leader, &Change::Promote { id: ServerId(4) }), Ok(Some(5)));
    leader.settle();
    leader.answer(2, matched(2, 5));
    leader.answer(3, matched(2, 5));
    leader.answer(4, matched(2, 5));
    leader.answer(4, matched(2, 5));
    assert!(leader.raft.membership().is_joint());
}

#[test]
fn section_4_2_1_a_learner_is_not_promoted_where_a_majority_would_be_missing() {
    // Of two servers one is heard; with the learner in, two of three voters would be needed, and
    // are there. Of three with two silent ones nothing goes on at all.
    let mut leader = ready(2);
    change(&mut leader, &add(3)).unwrap();
    leader.settle();
    leader.answer(2, matched(2, 3));
    greet(&mut leader, 3);
    leader.settle();
    leader.answer(2, matched(2, 4));
    // 1. The learner's link is down when it would be promoted.
    leader.answer(3, matched(2, 2));
    leader.peer_down(3);
    leader.answer(2, matched(2, 4));
    assert_eq!(members(&leader)[2], (3, 33, "P"));
    // 2. It is back.
    greet(&mut leader, 3);
    leader.answer(3, matched(2, 4));
    leader.answer(3, matched(2, 4));
    assert_eq!(members(&leader)[2], (3, 33, "V"));
}

#[test]
fn learner_never_campaigns() {
    // A server whose log says that it is a learner.
    let mut server = Start::member(4, &[1]).of(3).start();
    for _ in 0..20 {
        server.time_out();
        assert_eq!(questions(&server.settle()), []);
    }
    assert_eq!(server.raft.role(), RoleName::Follower);
    let mail = server.answer(2, Message::TimeoutNow { term: raftkv::types::Term(1) });
    assert_eq!(questions(&mail), [], "not even if it is asked to");
}

#[test]
fn section_4_2_3_a_removed_server_that_keeps_calling_elections_disturbs_nobody() {
    // Server 3 was removed, and asks on.
    let mut leader = ready(3);
    change(&mut leader, &remove(3)).unwrap();
    conclude(&mut leader, &[2]);
    let mail = leader.answer(3, ask_pre_vote(9, (3, 2)));
    assert_eq!(votes(&mail), [(3, 2, false)]);
    let mut follower = Start::member(2, &[1]).start();
    follower.answer(1, append(1, (1, 1), &[], 1));
    let mail = follower.answer(3, ask_pre_vote(9, (9, 9)));
    assert_eq!(votes(&mail), [(3, 1, false)], "it hears its leader");
    assert_eq!((leader.term(), follower.term()), (2, 1));
}

/// Lets `peers` acknowledge everything until no change is under way.
pub fn conclude(leader: &mut Server, peers: &[u64]) {
    for _ in 0..4 {
        leader.settle();
        let last = leader.raft.log().last_index().0;
        for peer in peers {
            leader.answer(*peer, matched(2, last));
        }
    }
    assert!(!leader.raft.membership().is_joint());
}

#[test]
fn section_4_2_3_a_removed_server_is_told_before_it_is_forgotten() {
    let mut leader = ready(3);
    change(&mut leader, &remove(3)).unwrap();
    // 1. The change is concluded without server 3, which is sent it all the same.
    conclude(&mut leader, &[2]);
    assert_eq!(leader.raft.farewells(), [ServerId(3)]);
    // 2. It has everything, is told that it is committed, and is let go.
    let mail = leader.answer(3, matched(2, 4));
    assert!(appends(&mail, 3).iter().all(|request| request.leader_commit == LogIndex(4)));
    for _ in 0..4 {
        leader.wait(HEARTBEAT);
        leader.answer(2, matched(2, 4));
        leader.answer(3, matched(2, 4));
    }
    assert_eq!(leader.raft.farewells(), []);
    assert_eq!(appends(&leader.settle(), 3).len(), 0);
}

#[test]
fn change_refuses_what_makes_no_sense() {
    let mut leader = ready(3);
    let refused = |leader: &mut Server, wanted: &Change| change(leader, wanted).unwrap_err();
    // An id or an address that another member has.
    let at = |id, at| Change::Add {
        id: ServerId(id),
        addresses: addresses(at),
        promote: true,
        replaces: None,
    };
    assert_eq!(refused(&mut leader, &at(0, 9)), ChangeRefused::BadId);
    let taken = ChangeRefused::AddressTaken("10.0.0.2:7201".to_owned(), ServerId(2));
    assert_eq!(refused(&mut leader, &at(4, 2)), taken);
    assert_eq!(refused(&mut leader, &at(2, 4)), ChangeRefused::IdTaken(addresses(2)));
    let moved = Change::Move { id: ServerId(3), addresses: addresses(2) };
    assert_eq!(refused(&mut leader, &moved), taken);
    // Nobody's id.
    let nobody = ChangeRefused::NotMember(ServerId(9));
    assert_eq!(refused(&mut leader, &Change::Promote { id: ServerId(9) }), nobody);
    assert_eq!(refused(&mut leader, &Change::Readmit { id: ServerId(9) }), nobody);
    // The last voter.
    let mut alone = ready(1);
    assert_eq!(refused(&mut alone, &remove(1)), ChangeRefused::LastVoter);
    // What is so already.
    assert_eq!(change(&mut leader, &add(2)), Ok(None));
    assert_eq!(change(&mut leader, &remove(9)), Ok(None));
    assert_eq!(change(&mut leader, &Change::Promote { id: ServerId(2) }), Ok(None));
    assert_eq!(change(&mut leader, &Change::Readmit { id: ServerId(2) }), Ok(None), "it is here");
    let stays = Change::Move { id: ServerId(2), addresses: addresses(2) };
    assert_eq!(change(&mut leader, &stays), Ok(None));
    assert_eq!(leader.raft.log().last_index(), LogIndex(2));
}

#[test]
fn change_refuses_more_members_than_there_may_be() {
    let mut leader = ready(31);
    assert_eq!(change(&mut leader, &learner(32)), Err(ChangeRefused::TooMany));
}

/// A follower that never answered this leader may be long dead, whatever its connection says: a
/// change that needs its vote would be the end.
#[test]
fn change_takes_nobody_for_heard_who_never_answered() {
    let mut leader = elect(Start::member(1, &[1]).of(3));
    leader.answer(2, matched(2, 2));
    assert_eq!(leader.commit(), 2);
    let (now, change) = (leader.now, remove(2));
    let refused = leader.raft.propose_change(now, &change, false);
    let voters = vec![ServerId(1), ServerId(3)];
    assert_eq!(refused, Err(ChangeRefused::QuorumAtRisk { voters, in_touch: vec![ServerId(1)] }));
    leader.answer(3, matched(2, 2));
    assert!(leader.raft.propose_change(now, &change, false).is_ok());
}
