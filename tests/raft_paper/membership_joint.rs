//! Changes of voters: §4.3 (joint consensus), §4.2.2 (removing the leader), readmission and
//! replacement.

use raftkv::proto::entry::EntryKind;
use raftkv::proto::message::Message;
use raftkv::raft::RoleName;
use raftkv::raft::change::{Change, ChangeRefused};
use raftkv::raft::membership::{Member, Membership};
use raftkv::types::{Incarnation, LogIndex, ServerId, Term};

use crate::membership::*;
use crate::support::*;

fn told(mail: &Mail) -> Vec<u64> {
    let told = |(to, message): &(u64, Message)| {
        matches!(message, Message::TimeoutNow { .. }).then_some(*to)
    };
    mail.iter().filter_map(told).collect()
}

/// A membership entry at `index` of `term`: the members, each with its part in the old and in the
/// new set. It is joint where anybody has one in the old set.
fn joint_request(
    index: u64,
    term: u64,
    parts: &[(u64, bool, bool)],
) -> raftkv::proto::message::AppendEntries {
    let member = |(id, old, new): &(u64, bool, bool)| Member {
        id: ServerId(*id),
        incarnation: incarnation(*id),
        admitted: LogIndex(1),
        voter: *new,
        outgoing_voter: *old,
        promote: false,
        replaces: None,
        peer: addresses(*id).peer,
        client: addresses(*id).client,
        http: String::new(),
    };
    let mut payload = Membership::new(parts.iter().map(member).collect()).encode().to_vec();
    payload[1] = u8::from(parts.iter().any(|(_, old, _)| *old));
    let mut request = append_request(term, (index - 1, 1), &[term], 0);
    request.entries[0].kind = EntryKind::Membership;
    request.entries[0].payload = payload.into();
    request
}

#[test]
fn section_4_3_a_change_of_voters_goes_through_a_joint_membership() {
    // 1. Server 3 is removed: in the joint membership it still has its old vote.
    let mut leader = ready(3);
    assert_eq!(change(&mut leader, &remove(3)), Ok(Some(3)));
    assert_eq!(members(&leader), [(1, 11, "VO"), (2, 22, "VO"), (3, 33, "O")]);
    leader.settle();
    assert_eq!(change(&mut leader, &add(4)), Err(ChangeRefused::Underway));
    // 2. Server 3 is part of an old majority, but no new one: nothing is committed.
    leader.answer(3, matched(2, 3));
    assert_eq!(leader.commit(), 2);
    // 3. Server 2 makes both: the joint membership is committed, and left.
    leader.answer(2, matched(2, 3));
    assert_eq!(leader.commit(), 3);
    assert_eq!(members(&leader), [(1, 11, "V"), (2, 22, "V")]);
    assert!(!leader.raft.change_concluded(LogIndex(3)));
    assert_eq!(change(&mut leader, &add(4)), Err(ChangeRefused::Underway));
    // 4. The new membership alone decides about its own entry.
    leader.answer(3, matched(2, 4));
    assert_eq!(leader.commit(), 3);
    leader.answer(2, matched(2, 4));
    assert_eq!(leader.commit(), 4);
    assert!(leader.raft.change_concluded(LogIndex(3)));
}

#[test]
fn section_4_3_a_new_leader_finds_the_joint_membership_in_its_log_and_leaves_it() {
    // 1. The log ends with {1, 2, 3} -> {1, 2}, which was never committed.
    let mut server = Start::member(2, &[1]).start();
    let request = joint_request(2, 1, &[(1, true, true), (2, true, true), (3, true, false)]);
    server.answer(1, Message::AppendEntries(request));
    assert!(server.raft.membership().is_joint());
    // 2. The leader dies. Server 3's votes make a majority of the old set only.
    server.peer_down(1);
    server.time_out();
    server.flush();
    server.hear(3, pre_vote(2, true));
    assert_eq!(server.raft.role(), RoleName::PreCandidate);
    server.hear(1, pre_vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
    server.settle();
    server.hear(3, vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Candidate, "of the new set only itself");
    server.hear(1, vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Leader);
    // 3. Its first entry commits the joint membership too, which it then leaves.
    server.peer_up(1);
    server.settle();
    assert!(server.raft.membership().is_joint(), "not before it is committed");
    server.answer(1, matched(2, 3));
    assert_eq!(members(&server), [(1, 11, "V"), (2, 22, "V")]);
    server.answer(1, matched(2, 4));
    assert!(server.raft.change_concluded(LogIndex(2)));
}

#[test]
fn section_4_3_a_joint_membership_that_is_overwritten_never_was() {
    // Two leaders changed the same membership: 1 added server 4, 3 removed server 1.
    let mut server = Start::member(2, &[1]).start();
    let added =
        joint_request(2, 1, &[(1, true, true), (2, true, true), (3, true, true), (4, false, true)]);
    server.answer(1, Message::AppendEntries(added));
    assert_eq!(members(&server).len(), 4);
    let removed = joint_request(2, 2, &[(1, true, false), (2, true, true), (3, true, true)]);
    server.answer(3, Message::AppendEntries(removed));
    assert_eq!(members(&server), [(1, 11, "O"), (2, 22, "VO"), (3, 33, "VO")]);
    assert!(server.raft.membership().is_joint());
}

#[test]
fn section_4_3_a_transfer_cut_midway_leaves_the_change_to_the_same_leader() {
    // 1. While a joint membership is in force, server 2 is asked to take over, and is cut off.
    let mut leader = ready(3);
    assert_eq!(change(&mut leader, &remove(3)), Ok(Some(3)));
    leader.settle();
    leader.hear(2, matched(2, 3));
    leader.raft.hand_over_to(leader.now, Some(ServerId(2))).unwrap();
    assert_eq!(told(&leader.settle()), [2]);
    assert!(leader.raft.membership().is_joint(), "nothing is appended meanwhile");
    // 2. It never takes over; the leader goes on, and leaves the joint membership.
    for _ in 0..7 {
        leader.wait(HEARTBEAT);
        leader.answer(3, matched(2, 3));
        leader.answer(2, matched(2, 3));
    }
    assert!(!leader.raft.is_handing_over());
    assert_eq!(members(&leader), [(1, 11, "V"), (2, 22, "V")]);
}

#[test]
fn section_4_2_2_a_leader_that_removes_itself_leads_until_that_is_committed() {
    // 1. It needs both of the others: it doesn't count itself.
    let mut leader = ready(3);
    assert_eq!(change(&mut leader, &remove(1)), Ok(Some(3)));
    leader.settle();
    leader.answer(2, matched(2, 3));
    assert_eq!(leader.commit(), 2);
    let mail = leader.answer(3, matched(2, 3));
    assert_eq!(members(&leader), [(2, 22, "V"), (3, 33, "V")]);
    assert_eq!(told(&mail), []);
    leader.answer(2, matched(2, 4));
    assert_eq!(leader.commit(), 3);
    // 2. Committed: it hands over to the one that is furthest along.
    let mail = leader.answer(3, matched(2, 4));
    assert_eq!(leader.commit(), 4);
    assert_eq!(told(&mail).len(), 1);
    assert_eq!(leader.propose(), None);
    // 3. Nobody takes over in time: it gives up, and never stands for election again.
    for _ in 0..8 {
        leader.wait(HEARTBEAT);
        leader.answer(2, matched(2, 4));
        leader.answer(3, matched(2, 4));
    }
    assert_eq!(leader.raft.role(), RoleName::Follower);
    for _ in 0..5 {
        leader.time_out();
        assert_eq!(questions(&leader.settle()), []);
    }
}

#[test]
fn section_4_2_2_who_has_left_stands_for_election_while_its_leaving_is_not_committed() {
    // 1. {1, 2} -> {2}: server 1 led, and is the only one with the last entry. Without it server 2
    //    could not win, because in the joint membership it needs server 1's vote.
    let mut server = Start::member(1, &[1]).of(2).start();
    let joint = joint_request(2, 1, &[(1, true, false), (2, true, true)]);
    server.answer(2, Message::AppendEntries(joint));
    let left = joint_request(3, 1, &[(2, false, true)]);
    server.answer(2, Message::AppendEntries(left));
    assert_eq!(members(&server), [(2, 22, "V")]);
    server.peer_down(2);
    server.peer_up(2);
    server.time_out();
    assert_eq!(questions(&server.settle()), [(2, 2, true)]);
    assert_eq!(server.raft.role(), RoleName::PreCandidate, "its own vote does not count");
    server.hear(2, pre_vote(2, true));
    server.settle();
    server.hear(2, vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Leader);
    // 2. It commits its leaving, and hands over.
    server.settle();
    let mail = server.answer(2, matched(2, 4));
    assert_eq!(told(&mail), [2]);
}

#[test]
fn section_4_3_an_isolated_leader_told_to_remove_everyone_else_cannot() {
    let mut leader = ready(3);
    for peer in [2, 3] {
        leader.peer_down(peer);
    }
    // 1. {1, 2} would have no majority. {1} would: itself. But the old voters have a say.
    let risk = ChangeRefused::QuorumAtRisk {
        voters: vec![ServerId(1), ServerId(3)],
        in_touch: vec![ServerId(1)],
    };
    assert_eq!(change(&mut leader, &remove(2)), Err(risk));
    let forced = leader.raft.propose_change(leader.now, &remove(2), true);
    assert_eq!(forced, Ok(Some(LogIndex(3))));
    leader.settle();
    assert_eq!(leader.commit(), 2);
    // 2. It steps down before anything comes of it.
    for _ in 0..10 {
        leader.wait(HEARTBEAT);
        leader.settle();
    }
    assert_eq!((leader.raft.role(), leader.commit()), (RoleName::Follower, 2));
}

#[test]
fn change_refuses_a_majority_that_would_be_missing() {
    // Server 3 is down: without server 2 two voters would be left, one of them dead.
    let mut leader = ready(3);
    leader.peer_down(3);
    assert!(matches!(change(&mut leader, &remove(2)), Err(ChangeRefused::QuorumAtRisk { .. })));
    // The dead one may go.
    assert_eq!(change(&mut leader, &remove(3)), Ok(Some(3)));
}

#[test]
fn readmission_of_a_voter_that_lost_its_disk() {
    // 1. Server 3 comes back on another directory: it is demoted, by way of a joint membership in
    //    which its old directory's vote is still wanted, and can't be given.
    let mut leader = ready(3);
    leader.peer_down(3);
    assert_eq!(change(&mut leader, &Change::Readmit { id: ServerId(3) }), Ok(Some(3)));
    assert_eq!(members(&leader)[2], (3, 33, "OP"));
    let greet_anew = |leader: &mut Server| {
        leader.raft.peer_up(leader.now, ServerId(3), Incarnation(99));
    };
    greet_anew(&mut leader);
    leader.settle();
    assert_eq!(members(&leader)[2], (3, 33, "OP"), "not while joint");
    // 2. Demoted: now it is awaited, and met as soon as that is committed.
    leader.answer(2, matched(2, 3));
    assert_eq!(members(&leader)[2], (3, 0, "P"));
    let mail = leader.answer(2, matched(2, 4));
    assert_eq!(members(&leader)[2], (3, 99, "P"));
    assert_eq!(appends(&mail, 3).len(), 1);
    let admitted = leader.raft.membership().member(ServerId(3)).unwrap().admitted;
    assert_eq!(admitted, LogIndex(5));
    // 3. It catches up, and votes again.
    leader.answer(2, matched(2, 5));
    leader.answer(3, matched(2, 5));
    leader.answer(3, matched(2, 5));
    assert_eq!(members(&leader)[2], (3, 99, "V"));
    conclude(&mut leader, &[2, 3]);
    assert_eq!(members(&leader), [(1, 11, "V"), (2, 22, "V"), (3, 99, "V")]);
}

#[test]
fn readmission_of_a_learner_needs_one_entry() {
    let mut leader = ready(3);
    admit(&mut leader, &learner(4), 4);
    leader.peer_down(4);
    assert_eq!(change(&mut leader, &Change::Readmit { id: ServerId(4) }), Ok(Some(5)));
    assert_eq!(members(&leader)[3], (4, 0, "L"), "nobody has asked for its vote");
    assert!(!leader.raft.membership().is_joint());
}

#[test]
fn promotion_forgets_that_others_were_to_replace_the_same_server() {
    let mut leader = ready(3);
    let replace = |id: u64| Change::Add {
        id: ServerId(id),
        addresses: addresses(id),
        promote: true,
        replaces: Some(ServerId(3)),
    };
    // 1. Two are to take server 3's place; the first one catches up, and server 3 leaves.
    admit(&mut leader, &replace(4), 4);
    change(&mut leader, &replace(5)).unwrap();
    for _ in 0..4 {
        leader.settle();
        let last = leader.raft.log().last_index().0;
        for peer in [2, 3, 4] {
            leader.answer(peer, matched(2, last));
        }
    }
    let membership = leader.raft.membership().clone();
    assert!(membership.member(ServerId(3)).is_none() && membership.is_voter(ServerId(4)));
    // 2. The other one removes nobody who gets that id later.
    assert_eq!(membership.member(ServerId(5)).unwrap().replaces, None);
}

#[test]
fn replacement_is_one_change_of_voters() {
    // 1. Server 4 takes server 3's place once it has caught up.
    let mut leader = ready(3);
    let replace = Change::Add {
        id: ServerId(4),
        addresses: addresses(4),
        promote: true,
        replaces: Some(ServerId(3)),
    };
    admit(&mut leader, &replace, 4);
    assert_eq!(members(&leader).len(), 4);
    let last = leader.raft.log().last_index().0;
    leader.answer(4, matched(2, last));
    leader.answer(4, matched(2, last));
    let joint = [(1, 11, "VO"), (2, 22, "VO"), (3, 33, "O"), (4, 44, "V")];
    assert_eq!(members(&leader), joint);
    conclude(&mut leader, &[2, 4]);
    assert_eq!(members(&leader), [(1, 11, "V"), (2, 22, "V"), (4, 44, "V")]);
    // 2. Asked again, there is nothing to do.
    assert_eq!(change(&mut leader, &replace), Ok(None));
}

#[test]
fn section_3_10_leadership_goes_to_whom_it_is_asked_for() {
    let mut leader = ready(3);
    admit(&mut leader, &learner(4), 4);
    let to = |leader: &mut Server, id| leader.raft.hand_over_to(leader.now, Some(ServerId(id)));
    assert_eq!(to(&mut leader, 9), Err(ChangeRefused::NotMember(ServerId(9))));
    for id in [1, 4] {
        assert_eq!(to(&mut leader, id), Err(ChangeRefused::NotSuccessor(ServerId(id))));
    }
    leader.answer(2, matched(2, 4));
    leader.answer(3, matched(2, 4));
    assert_eq!(to(&mut leader, 3), Ok(()));
    assert_eq!(told(&leader.settle()), [3]);
    assert_eq!(to(&mut leader, 2), Err(ChangeRefused::Transferring));
}

#[test]
fn a_rejoining_server_of_a_lower_term_helps_to_elect_after_a_crash() {
    // 1. Server 3 was away since term 1; the cluster is in term 5, whose leader crashes.
    let mut server = Start::member(2, &[1, 5]).term(5).start();
    server.peer_down(1);
    let mail = server.answer(3, ask_pre_vote(2, (1, 1)));
    assert_eq!(votes(&mail), [(3, 5, false)], "answered, so that it learns the term");
    // 2. It follows into the new term, and its vote is enough.
    let mut back = Start::member(3, &[1]).start();
    back.time_out();
    back.flush();
    back.answer(2, pre_vote(5, false));
    assert_eq!(back.raft.current_term(), Term(5));
    let mail = back.answer(2, ask_pre_vote(6, (2, 5)));
    assert_eq!(votes(&mail), [(2, 6, true)]);
    let mail = back.answer(2, ask_vote(6, (2, 5)));
    assert_eq!(votes(&mail), [(2, 6, true)]);
}
