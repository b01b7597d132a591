//! Lease reads (§6.4.1), and what elections owe them where leases are on.

use std::time::Duration;

use raftkv::proto::message::{Message, RequestVote};
use raftkv::raft::RoleName;

use crate::support::*;

const ALMOST: Duration = Duration::from_millis(149);

/// A leader with a lease that was confirmed by server 2 just now.
fn leader_with_lease() -> Server {
    let mut leader = elect(Start::member(1, &[1]).lease());
    leader.answer(2, matched(2, 2));
    leader.wait(HEARTBEAT);
    let mail = leader.settle();
    let round = appends(&mail, 2)[0].read_round.0;
    leader.hear(2, echo(2, 2, round));
    assert!(leader.raft.has_lease(leader.now));
    leader
}

#[test]
fn section_6_4_1_a_lease_counts_from_the_send_time_and_ends_before_the_timeout() {
    // 1. The round is sent now and confirmed 100 ms later.
    let mut leader = elect(Start::member(1, &[1]).lease());
    leader.answer(2, matched(2, 2));
    leader.wait(HEARTBEAT);
    let mail = leader.settle();
    let round = appends(&mail, 2)[0].read_round.0;
    let sent = leader.now;
    leader.now = leader.now.after(Duration::from_millis(100));
    leader.hear(2, echo(2, 2, round));
    assert!(leader.raft.has_lease(leader.now));

    // 2. It ends 80 % of the minimum election timeout after the sending.
    assert!(leader.raft.has_lease(sent.after(Duration::from_millis(119))));
    assert!(!leader.raft.has_lease(sent.after(Duration::from_millis(120))));
}

#[test]
fn section_6_4_1_no_lease_unless_it_is_on() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    leader.wait(HEARTBEAT);
    leader.settle();
    leader.answer(2, echo(2, 2, 1));
    assert!(!leader.raft.has_lease(leader.now));
}

#[test]
fn section_6_4_1_who_hears_a_leader_refuses_votes_too_and_keeps_its_term() {
    let mut server = Start::member(1, &[1]).lease().start();
    server.wait(LEAST);
    server.answer(2, append(1, (1, 1), &[], 0));
    server.now = server.now.after(ALMOST);
    assert_eq!(votes(&server.answer(3, ask_vote(5, (1, 1)))), [(3, 1, false)]);
    assert_eq!(server.term(), 1);
    server.now = server.now.after(Duration::from_millis(1));
    assert_eq!(votes(&server.answer(3, ask_vote(5, (1, 1)))), [(3, 5, true)]);
}

#[test]
fn section_6_4_1_a_server_that_just_started_refuses_votes_and_pre_votes() {
    // It may have confirmed a leader's round a moment before it was restarted.
    let mut server = Start::member(1, &[1]).lease().start();
    server.now = server.now.after(ALMOST);
    assert_eq!(votes(&server.answer(3, ask_pre_vote(2, (1, 1)))), [(3, 1, false)]);
    assert_eq!(votes(&server.answer(3, ask_vote(2, (1, 1)))), [(3, 1, false)]);
    server.now = server.now.after(Duration::from_millis(1));
    assert_eq!(votes(&server.answer(3, ask_vote(2, (1, 1)))), [(3, 2, true)]);
}

#[test]
fn section_6_4_1_a_higher_term_does_not_make_a_server_forget_whom_it_heard() {
    // 1. A follower of server 2 in term 1; server 3's late refusal of an old pre-vote brings term 7.
    let mut server = Start::member(1, &[1]).lease().start();
    server.wait(LEAST);
    server.answer(2, append(1, (1, 1), &[], 0));
    server.answer(3, pre_vote(7, false));
    assert_eq!(server.term(), 7);

    // 2. Server 2's lease may still hold: nobody gets a vote, of that term or the next.
    for term in [7, 8] {
        let mail = server.answer(3, ask_vote(term, (1, 1)));
        assert_eq!(votes(&mail), [(3, 7, false)], "asked in term {term}");
        let mail = server.answer(3, ask_pre_vote(term, (1, 1)));
        assert_eq!(votes(&mail), [(3, 7, false)], "asked in term {term}");
    }
}

#[test]
fn section_6_4_1_a_vote_that_was_given_is_given_again() {
    // The answer was lost; by now another leader of an older term was heard... of none, in fact.
    let mut server = Start::member(1, &[1]).lease().start();
    server.wait(LEAST);
    assert_eq!(votes(&server.answer(3, ask_vote(2, (1, 1)))), [(3, 2, true)]);
    assert_eq!(votes(&server.answer(3, ask_vote(2, (1, 1)))), [(3, 2, true)]);
}

#[test]
fn section_6_4_1_a_transfer_is_excepted() {
    let mut server = Start::member(1, &[1]).lease().start();
    server.answer(2, append(1, (1, 1), &[], 0));
    let request = RequestVote { transfer: true, ..vote_request(2, (1, 1)) };
    let mail = server.answer(3, Message::RequestVote(request));
    assert_eq!(votes(&mail), [(3, 2, true)]);
}

#[test]
fn section_6_4_1_a_lease_dies_on_transfer_for_good() {
    // 1. The successor is told to campaign.
    let mut leader = leader_with_lease();
    assert!(leader.raft.hand_over(leader.now));
    assert!(!leader.raft.has_lease(leader.now));
    leader.settle();

    // 2. It doesn't, and the leader goes on. But the message may be late, and whoever campaigns by
    //    it gets its votes at once: there is no lease in this term any more.
    for _ in 0..20 {
        leader.wait(HEARTBEAT);
        let mail = leader.settle();
        if let Some(request) = appends(&mail, 2).last() {
            leader.hear(2, echo(2, 2, request.read_round.0));
        }
    }
    assert!(leader.raft.is_leader() && leader.raft.accepts_proposals());
    assert!(!leader.raft.has_lease(leader.now));
}

#[test]
fn section_6_4_1_a_closed_connection_makes_nobody_early() {
    let mut server = Start::member(1, &[1]).lease().start();
    server.wait(LEAST);
    server.answer(2, append(1, (1, 1), &[], 0));
    let deadline = server.raft.deadline();
    server.peer_down(2);
    assert_eq!(server.raft.deadline(), deadline);
    assert_eq!(votes(&server.answer(3, ask_pre_vote(2, (1, 1)))), [(3, 1, false)]);
    assert_eq!(server.raft.role(), RoleName::Follower);
}
