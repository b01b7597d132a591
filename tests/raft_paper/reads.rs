//! Linearizable reads without a log entry: §6.4.

use raftkv::types::{LogIndex, ReadRound};

use crate::support::*;

#[test]
fn section_6_4_no_read_before_this_terms_first_commit() {
    let mut leader = elect(Start::member(1, &[1, 1]));
    assert!(!leader.raft.is_ready());
    assert_eq!(leader.raft.request_read(), None);
    leader.answer(2, matched(2, 3));
    assert_eq!(leader.raft.request_read(), Some((ReadRound(1), LogIndex(3))));
}

#[test]
fn section_6_4_a_round_must_begin_after_the_read() {
    // 1. Round 1 is under way when a second read arrives.
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    let (first, _) = leader.raft.request_read().expect("it is ready");
    let mail = leader.flush();
    assert_eq!(appends(&mail, 2)[0].read_round, first);
    let (second, _) = leader.raft.request_read().expect("it is ready");
    assert!(second > first);

    // 2. The first round's echo confirms the first read only.
    leader.hear(2, echo(2, 2, first.0));
    assert_eq!(leader.raft.confirmed_round(), first);
    leader.flush();
    leader.hear(3, echo(2, 0, second.0));
    assert_eq!(leader.raft.confirmed_round(), second);
}

#[test]
fn section_6_4_reads_of_one_turn_share_a_round() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    let first = leader.raft.request_read();
    assert_eq!(leader.raft.request_read(), first);
    let mail = leader.flush();
    assert_eq!(appends(&mail, 2).len(), 1);
    assert_eq!(appends(&leader.flush(), 2), [], "no read, no round");
}

#[test]
fn section_6_4_a_round_needs_a_majority_of_this_term() {
    let mut leader = elect(Start::member(1, &[1]).of(5));
    leader.hear(2, matched(2, 2));
    leader.answer(3, matched(2, 2));
    let (round, _) = leader.raft.request_read().expect("it is ready");
    leader.flush();
    leader.hear(2, echo(2, 2, round.0));
    leader.hear(3, echo(1, 2, round.0));
    assert!(leader.raft.confirmed_round() < round, "two of five");
    leader.hear(4, echo(2, 0, round.0));
    assert_eq!(leader.raft.confirmed_round(), round);
}

#[test]
fn section_6_4_a_deposed_leader_confirms_nothing() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    let (round, _) = leader.raft.request_read().expect("it is ready");
    leader.flush();
    leader.hear(3, matched(9, 0));
    leader.hear(2, echo(2, 2, round.0));
    assert_eq!(leader.raft.confirmed_round(), ReadRound(0));
    assert_eq!(leader.raft.request_read(), None);
}

#[test]
fn section_6_4_a_follower_echoes_the_newest_round_of_its_leader_only() {
    let mut server = Start::member(1, &[1]).start();
    let echoed = |mail| responses(&mail).last().map(|response| response.read_round.0);
    assert_eq!(echoed(server.answer(2, round(2, (1, 1), 9))), Some(9));
    assert_eq!(echoed(server.answer(2, round(2, (1, 1), 8))), Some(9));
    assert_eq!(echoed(server.answer(3, round(3, (1, 1), 2))), Some(2));
    let late = server.answer(2, round(2, (1, 1), 10));
    assert_eq!(responses(&late)[0].term.0, 3, "the deposed leader is told so");
    assert_eq!(echoed(late), Some(0));
}

#[test]
fn section_6_4_a_rejected_request_still_confirms_the_round() {
    let mut server = Start::member(1, &[1]).start();
    let mail = server.answer(2, round(2, (5, 2), 4));
    assert_eq!(responses(&mail)[0].read_round.0, 4);
}

#[test]
fn section_6_4_a_server_alone_confirms_its_own_round() {
    let mut server = Start::member(1, &[1]).of(1).start();
    server.time_out();
    server.settle();
    server.settle();
    let (round, _) = server.raft.request_read().expect("it is ready");
    assert!(server.raft.confirmed_round() < round, "not before it began");
    server.flush();
    assert_eq!(server.raft.confirmed_round(), round);
}

#[test]
fn section_6_4_an_echo_of_a_round_that_has_not_begun_confirms_nothing() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    leader.answer(2, echo(2, 2, u64::MAX));
    let (round, _) = leader.raft.request_read().expect("it is ready");
    leader.flush();
    assert!(leader.raft.confirmed_round() < round);
}
