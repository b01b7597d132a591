//! The closed connection as a failure detector, and the cluster clock: design 1-architecture §4 and
//! 2-client-path §4.

use std::time::Duration;

use raftkv::proto::message::{AppendEntries, Message, Vote};
use raftkv::raft::RoleName;
use raftkv::types::{ClusterTime, Term};

use crate::support::*;

#[test]
fn closed_connection_of_the_leader_starts_a_pre_vote_within_milliseconds() {
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    server.peer_down(2);
    assert!(server.raft.deadline().since(server.now) <= Duration::from_millis(8));
    assert_eq!(server.raft.leader(), None);
    server.time_out();
    assert_eq!(questions(&server.flush()), [(2, 2, true), (3, 2, true)]);
}

#[test]
fn closed_connection_refused_pre_votes_are_asked_again_within_milliseconds_for_a_while() {
    // 1. The others still hear the leader.
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    server.peer_down(2);
    let closed = server.now;
    let mut asked = 0;
    while server.now.since(closed) < MOST {
        server.time_out();
        asked += questions(&server.settle()).len() / 2;
        server.hear(3, pre_vote(1, false));
    }
    assert!((10..=40).contains(&asked), "{asked}");

    // 2. After an election timeout the hurry is over.
    server.time_out();
    server.flush();
    assert!(server.raft.deadline().since(server.now) >= LEAST);
    assert_eq!(server.term(), 1);
}

#[test]
fn closed_connection_is_the_end_of_hearing() {
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    server.peer_down(2);
    let mail = server.answer(3, ask_pre_vote(2, (1, 1)));
    assert_eq!(votes(&mail), [(3, 2, true)]);
}

#[test]
fn closed_connection_of_another_follower_is_no_news() {
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    let deadline = server.raft.deadline();
    server.peer_down(3);
    assert_eq!(server.raft.deadline(), deadline);
    assert_eq!(server.raft.leader().map(|id| id.0), Some(2));
}

#[test]
fn closed_connection_that_comes_back_with_its_leader_ends_the_hurry() {
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    server.peer_down(2);
    server.time_out();
    server.settle();
    server.peer_up(2);
    server.answer(2, append(1, (1, 1), &[], 0));
    assert_eq!(server.raft.role(), RoleName::Follower);
    assert!(server.raft.deadline().since(server.now) >= LEAST);
}

#[test]
fn closed_connection_that_opens_is_asked_again() {
    // The question of a campaign under way didn't reach a server that was not connected.
    let mut server = Start::member(1, &[1]).start();
    server.peer_down(3);
    server.time_out();
    server.flush();
    server.peer_up(3);
    assert_eq!(questions(&server.flush()), [(3, 2, true)]);
}

#[test]
fn cluster_clock_a_vote_carries_the_estimate_or_none() {
    let time = |mail: &Mail| match &mail[0].1 {
        Message::Vote(vote) => vote.cluster_time,
        other => panic!("not a vote: {other:?}"),
    };
    let mut server = Start::member(1, &[1]).start();
    assert_eq!(time(&server.answer(3, ask_pre_vote(2, (1, 1)))), None);
    // A leader's first word may have been under way for long; it takes another that agrees.
    server.answer(2, append(1, (1, 1), &[], 0));
    server.now = server.now.after(LEAST);
    assert_eq!(time(&server.answer(3, ask_pre_vote(2, (1, 1)))), None);
    let cluster_time = ClusterTime(5_150);
    let again = AppendEntries { cluster_time, ..append_request(1, (1, 1), &[], 0) };
    server.answer(2, Message::AppendEntries(again));
    server.now = server.now.after(LEAST);
    let mail = server.answer(3, ask_pre_vote(2, (1, 1)));
    assert_eq!(time(&mail), Some(ClusterTime(5_300)));
}

#[test]
fn cluster_clock_a_new_leader_continues_from_the_highest_estimate_not_its_wall_clock() {
    let mut server = Start::member(1, &[1]).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(2, true));
    server.settle();
    let told = Vote {
        term: Term(2),
        pre_vote: false,
        granted: true,
        cluster_time: Some(ClusterTime(77_000)),
    };
    server.hear(2, Message::Vote(told));
    let first = server.raft.log().last().expect("its first entry");
    assert_eq!(first.time, ClusterTime(77_000));
}

#[test]
fn cluster_clock_a_majority_that_knows_nothing_takes_the_wall_clock() {
    let leader = elect(Start::member(1, &[1]));
    let first = leader.raft.log().last().expect("its first entry");
    assert_eq!(first.time.0, leader.wall.0);
}

#[test]
fn cluster_clock_never_falls_along_the_log() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    leader.wall.0 = 0;
    for _ in 0..100 {
        leader.wait(HEARTBEAT);
        leader.propose();
        leader.answer(2, matched(2, leader.raft.log().last_index().0));
    }
    let log = leader.raft.log();
    let times: Vec<_> = (1..=log.last_index().0)
        .filter_map(|index| log.entry(raftkv::types::LogIndex(index)))
        .map(|entry| entry.time)
        .collect();
    assert!(times.is_sorted());
    assert!(leader.raft.is_leader());
}
