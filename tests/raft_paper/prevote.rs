//! Pre-vote: §9.6, and check-quorum: §6.2.

use raftkv::raft::RoleName;
use raftkv::types::Instant;

use crate::support::*;

#[test]
fn section_9_6_a_partitioned_server_keeps_its_term() {
    let mut server = Start::member(1, &[1]).start();
    for _ in 0..50 {
        server.time_out();
        server.settle();
    }
    assert_eq!(server.term(), 1);
    assert_eq!(server.raft.role(), RoleName::PreCandidate);
    assert!(server.writes.is_empty(), "a pre-vote writes nothing");
}

#[test]
fn section_9_6_who_hears_the_leader_refuses_and_stays() {
    // 1. A follower of server 2 in term 1; server 3, back from a partition, asks.
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    server.wait(LEAST - std::time::Duration::from_millis(1));
    assert_eq!(votes(&server.answer(3, ask_pre_vote(2, (1, 1)))), [(3, 1, false)]);
    assert_eq!(server.term(), 1);

    // 2. An election timeout's silence later it agrees, for the term that was asked for.
    server.wait(std::time::Duration::from_millis(1));
    assert_eq!(votes(&server.answer(3, ask_pre_vote(2, (1, 1)))), [(3, 2, true)]);
    assert_eq!(server.term(), 1, "a pre-vote changes no state");
    assert_eq!(server.raft.voted_for(), None);
}

#[test]
fn section_9_6_a_leader_refuses() {
    let mut leader = elect(Start::member(1, &[1]));
    let mail = leader.answer(3, ask_pre_vote(9, (9, 2)));
    assert_eq!(votes(&mail), [(3, 2, false)]);
    assert_eq!(leader.raft.role(), RoleName::Leader);
}

#[test]
fn section_9_6_a_lower_term_is_answered_so_that_its_asker_catches_up() {
    let mut ahead = Start::member(1, &[1]).term(7).start();
    let mail = ahead.answer(3, ask_pre_vote(2, (5, 1)));
    assert_eq!(votes(&mail), [(3, 7, false)]);

    let mut behind = Start::member(3, &[1]).start();
    behind.time_out();
    behind.hear(1, pre_vote(7, false));
    assert_eq!(behind.term(), 7);
    assert_eq!(behind.raft.role(), RoleName::Follower);
}

#[test]
fn section_9_6_the_log_check_holds_for_pre_votes_too() {
    let mut server = Start::member(1, &[1, 1, 2]).start();
    assert_eq!(votes(&server.answer(3, ask_pre_vote(3, (2, 2)))), [(3, 2, false)]);
    assert_eq!(votes(&server.answer(3, ask_pre_vote(3, (3, 2)))), [(3, 3, true)]);
}

#[test]
fn section_9_6_a_granted_pre_vote_is_no_vote() {
    let mut server = Start::member(1, &[1]).start();
    server.time_out();
    server.flush();
    server.hear(2, vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Follower, "a real vote's term");
    let mut server = Start::member(1, &[1]).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(2, true));
    server.settle();
    server.hear(3, pre_vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
}

#[test]
fn section_9_6_a_pre_vote_leaves_without_waiting_for_the_disk() {
    // 1. Term 2 is being written.
    let mut server = Start::member(1, &[1]).start();
    server.hear(2, ask_vote(2, (0, 0)));
    server.flush();
    // 2. A pre-vote promises nothing, so it doesn't wait.
    server.hear(3, ask_pre_vote(3, (1, 1)));
    assert_eq!(votes(&server.flush()), [(3, 3, true)]);
}

#[test]
fn section_6_2_check_quorum_a_leader_that_reaches_no_majority_steps_down() {
    let mut leader = elect(Start::member(1, &[1]));
    let begin = leader.now;
    while leader.raft.is_leader() {
        leader.time_out();
        leader.settle();
        assert!(leader.now.since(begin) <= MOST + HEARTBEAT, "within a timeout");
    }
    assert_eq!(leader.raft.leader(), None);
    assert_eq!(leader.term(), 2, "it gives up leading, not its term");
}

#[test]
fn section_6_2_check_quorum_one_of_two_followers_is_enough() {
    let mut leader = elect(Start::member(1, &[1]));
    for _ in 0..40 {
        leader.time_out();
        leader.settle();
        leader.answer(3, matched(2, 0));
        assert!(leader.raft.is_leader());
    }
}

#[test]
fn section_6_2_check_quorum_answers_of_an_older_term_do_not_count() {
    let mut leader = elect(Start::member(1, &[1]));
    let deadline: Instant = leader.now.after(MOST + HEARTBEAT);
    while leader.now < deadline {
        leader.time_out();
        leader.settle();
        leader.answer(3, matched(1, 1));
    }
    assert!(!leader.raft.is_leader());
}
