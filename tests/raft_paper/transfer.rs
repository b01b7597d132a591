//! Leadership transfer: §3.10.

use raftkv::proto::message::Message;
use raftkv::raft::RoleName;
use raftkv::types::Term;

use crate::support::*;

fn told(mail: &Mail) -> Vec<u64> {
    let told = |(to, message): &(u64, Message)| {
        matches!(message, Message::TimeoutNow { .. }).then_some(*to)
    };
    mail.iter().filter_map(told).collect()
}

#[test]
fn section_3_10_the_successor_is_told_once_it_has_everything() {
    // 1. Server 3 is furthest along, but not quite.
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 1));
    leader.answer(3, matched(2, 2));
    assert_eq!(leader.propose(), Some(3));
    assert!(leader.raft.hand_over(leader.now));
    assert_eq!(leader.propose(), None, "nothing new is taken meanwhile");
    assert_eq!(told(&leader.settle()), []);

    // 2. Now it is; it is told once.
    assert_eq!(told(&leader.answer(3, matched(2, 3))), [3]);
    assert_eq!(told(&leader.answer(3, matched(2, 3))), []);
}

#[test]
fn section_3_10_a_successor_that_does_not_take_over_leaves_the_leader_leading() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    assert!(leader.raft.hand_over(leader.now));
    assert_eq!(told(&leader.settle()), [2]);
    for _ in 0..7 {
        leader.wait(HEARTBEAT);
        leader.settle();
        leader.hear(2, matched(2, 2));
    }
    assert_eq!(leader.propose(), Some(3));
}

#[test]
fn section_3_10_only_a_connected_voter_succeeds() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(3, matched(2, 2));
    leader.peer_down(3);
    leader.answer(2, matched(2, 1));
    assert!(leader.raft.hand_over(leader.now));
    assert_eq!(told(&leader.answer(2, matched(2, 2))), [2]);

    let mut alone = elect(Start::member(1, &[1]));
    alone.peer_down(2);
    alone.peer_down(3);
    assert!(!alone.raft.hand_over(alone.now));
    assert!(alone.propose().is_some(), "there is nobody to hand over to");
}

#[test]
fn section_3_10_the_successor_campaigns_at_once_without_a_pre_vote() {
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    let mail = server.answer(2, Message::TimeoutNow { term: Term(1) });
    assert_eq!(questions(&mail), [(2, 2, false), (3, 2, false)]);
    let transfers = mail.iter().filter(
        |(_, message)| matches!(message, Message::RequestVote(request) if request.transfer),
    );
    assert_eq!(transfers.count(), 2, "nobody protects the leader");
}

#[test]
fn section_3_10_a_late_order_does_nothing() {
    let mut server = Start::member(1, &[1]).term(3).start();
    for term in [2, 4] {
        let mail = server.answer(2, Message::TimeoutNow { term: Term(term) });
        assert_eq!(questions(&mail), []);
    }
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, Message::TimeoutNow { term: Term(2) });
    assert_eq!(leader.raft.role(), RoleName::Leader);
}

#[test]
fn section_3_10_a_leader_whose_disk_stalls_hands_over_to_one_whose_disk_does_not() {
    // 1. The leader's disk is at entry 3 for six heartbeats; server 2 has it.
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    leader.answer(3, matched(2, 2));
    assert_eq!(leader.propose(), Some(3));
    leader.flush();
    leader.hear(2, matched(2, 3));
    let mut mail = Mail::new();
    for _ in 0..7 {
        leader.wait(HEARTBEAT);
        leader.hear(3, matched(2, 2));
        leader.hear(2, matched(2, 3));
        mail.extend(leader.flush());
    }
    // 2. It is told to take over, once.
    assert_eq!(told(&mail), [2]);
}

#[test]
fn section_3_10_a_leader_stays_where_every_disk_stalls() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    leader.answer(3, matched(2, 2));
    assert_eq!(leader.propose(), Some(3));
    for _ in 0..20 {
        leader.wait(HEARTBEAT);
        for peer in [2, 3] {
            leader.hear(peer, matched(2, 2));
        }
        assert_eq!(told(&leader.flush()), []);
    }
    assert!(leader.propose().is_some(), "no transfer is under way");
}
