//! Leader election: §3.3, §3.4, §3.6.1.

use raftkv::raft::RoleName;
use raftkv::types::{ServerId, Term};

use crate::support::*;

#[test]
fn section_3_4_a_follower_that_hears_nothing_asks_within_the_timeout() {
    let mut server = Start::member(1, &[1]).start();

    // 1. The deadline lies within the configured bounds.
    let left = server.raft.deadline().since(server.now);
    assert!((LEAST..=MOST).contains(&left), "{left:?}");

    // 2. Just before it nothing happens; at it the others are asked.
    server.wait(left - std::time::Duration::from_nanos(1));
    assert_eq!(questions(&server.flush()), []);
    server.time_out();
    assert_eq!(questions(&server.flush()), [(2, 2, true), (3, 2, true)]);
}

#[test]
fn section_3_4_a_heartbeat_restarts_the_timer() {
    let mut server = Start::member(1, &[1]).start();
    for _ in 0..20 {
        server.answer(2, append(1, (1, 1), &[], 0));
        server.wait(LEAST - std::time::Duration::from_millis(1));
        assert_eq!(server.raft.role(), RoleName::Follower);
    }
}

#[test]
fn section_3_4_timeouts_are_random() {
    let mut server = Start::member(1, &[1]).start();
    let mut timeouts: Vec<_> = (0..20)
        .map(|_| {
            server.answer(2, append(1, (1, 1), &[], 0));
            server.raft.deadline().since(server.now)
        })
        .collect();
    timeouts.sort();
    timeouts.dedup();
    assert!(timeouts.len() > 15, "{timeouts:?}");
}

#[test]
fn section_3_4_a_candidate_votes_for_itself_only_once_that_vote_is_durable() {
    // 1. Both others grant the pre-vote: a campaign in term 2 begins.
    let mut server = Start::member(1, &[1]).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
    assert_eq!(server.term(), 2);

    // 2. Nobody is asked while term and vote are not durable.
    assert_eq!(questions(&server.flush()), []);
    let (_, write) = server.writes.last().expect("the vote is being written");
    let hard_state = write.hard_state.expect("a term and a vote");
    assert_eq!(hard_state.current_term, Term(2));
    assert_eq!(hard_state.voted_for, Some(ServerId(1)));

    // 3. Then everybody is, and one other vote decides.
    server.sync();
    assert_eq!(questions(&server.flush()), [(2, 2, false), (3, 2, false)]);
    server.hear(3, vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Leader);
}

#[test]
fn section_3_4_a_server_alone_leads_only_once_its_vote_is_durable() {
    let mut server = Start::member(1, &[1]).of(1).start();
    server.time_out();
    server.flush();
    assert_eq!(server.raft.role(), RoleName::Candidate);
    server.sync();
    assert_eq!(server.raft.role(), RoleName::Leader);
}

#[test]
fn section_3_4_an_unsynced_own_vote_is_not_the_second_of_five() {
    // 1. A candidate of five; its own vote is not durable when others answer an earlier question of
    //    the same campaign. (They can't have been asked, so these answers are forged.)
    let mut server = Start::member(1, &[1]).of(5).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(2, true));
    server.hear(3, pre_vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
    server.hear(2, vote(2, true));
    server.hear(3, vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);

    // 2. Durable, it is the third.
    server.settle();
    assert_eq!(server.raft.role(), RoleName::Leader);
}

#[test]
fn section_3_4_a_vote_is_withheld_until_it_is_durable() {
    let mut server = Start::member(1, &[1]).start();
    server.hear(2, ask_vote(2, (1, 1)));
    assert_eq!(votes(&server.flush()), []);
    server.sync();
    assert_eq!(votes(&server.flush()), [(2, 2, true)]);
}

#[test]
fn section_3_4_a_withheld_vote_is_not_sent_in_a_later_term() {
    // 1. A vote in term 2 is being written when term 3 begins.
    let mut server = Start::member(1, &[1]).start();
    server.hear(2, ask_vote(2, (1, 1)));
    server.flush();
    let (first, _) =
        *server.writes.last().map(|(seq, write)| (*seq, write)).as_ref().expect("a vote");
    server.hear(3, ask_vote(3, (1, 1)));

    // 2. The first write's completion frees nothing, the second one's the new vote.
    assert_eq!(votes(&server.flush()), []);
    server.raft.persisted(server.now, first);
    assert_eq!(votes(&server.flush()), []);
    server.sync();
    assert_eq!(votes(&server.flush()), [(3, 3, true)]);
}

#[test]
fn section_3_4_one_vote_in_a_term_first_come_first_served() {
    let mut server = Start::member(1, &[1]).start();
    assert_eq!(votes(&server.answer(2, ask_vote(2, (1, 1)))), [(2, 2, true)]);
    assert_eq!(votes(&server.answer(3, ask_vote(2, (9, 1)))), [(3, 2, false)]);
    // The same candidate asks again: the answer may have been lost.
    assert_eq!(votes(&server.answer(2, ask_vote(2, (1, 1)))), [(2, 2, true)]);
}

#[test]
fn section_3_3_a_vote_survives_a_restart() {
    let mut server = Start::member(1, &[1]).term(2).voted_for(3).start();
    assert_eq!(votes(&server.answer(2, ask_vote(2, (1, 1)))), [(2, 2, false)]);
    assert_eq!(votes(&server.answer(3, ask_vote(2, (1, 1)))), [(3, 2, true)]);
}

#[test]
fn section_3_4_a_candidate_that_hears_a_leader_of_its_term_follows_it() {
    let mut server = Start::member(1, &[1]).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(2, true));
    server.settle();
    server.answer(3, append(2, (1, 1), &[2], 0));
    assert_eq!(server.raft.role(), RoleName::Follower);
    assert_eq!(server.raft.leader(), Some(ServerId(3)));
    assert_eq!(server.raft.voted_for(), Some(ServerId(1)));
}

#[test]
fn section_3_4_a_candidate_ignores_a_leader_of_an_older_term_and_names_its_own() {
    let mut server = Start::member(1, &[1]).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(2, true));
    server.settle();
    let mail = server.answer(3, append(1, (1, 1), &[], 0));
    assert_eq!(server.raft.role(), RoleName::Candidate);
    assert_eq!(responses(&mail)[0].term, Term(2));
}

#[test]
fn section_3_4_a_split_vote_is_tried_again_in_a_new_term() {
    // 1. A campaign in term 2 that nobody answers.
    let mut server = Start::member(1, &[1]).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(2, true));
    server.settle();

    // 2. It times out, asks again whether a campaign would succeed, and it does in term 3.
    server.time_out();
    assert_eq!(questions(&server.flush()), [(2, 3, true), (3, 3, true)]);
    server.hear(2, pre_vote(3, true));
    assert_eq!(questions(&server.settle()), [(2, 3, false), (3, 3, false)]);

    // 3. A late vote of term 2 doesn't count.
    server.hear(2, vote(2, true));
    server.hear(3, vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
}

#[test]
fn section_3_4_a_vote_counts_once_however_often_it_arrives() {
    let mut server = Start::member(1, &[1]).of(5).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(2, true));
    server.hear(2, pre_vote(2, true));
    assert_eq!(server.raft.role(), RoleName::PreCandidate);
    server.hear(3, pre_vote(2, true));
    server.settle();
    server.hear(2, vote(2, true));
    server.hear(2, vote(2, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
}

#[test]
fn section_3_4_a_leader_of_a_newer_term_deposes() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, append(5, (1, 1), &[5], 0));
    assert_eq!(leader.raft.role(), RoleName::Follower);
    assert_eq!(leader.raft.leader(), Some(ServerId(2)));
    assert_eq!(leader.terms(), [1, 5]);
}

#[test]
fn section_3_6_1_up_to_date_compares_terms_then_lengths() {
    let cases = [
        ((3, 2), true, "the same"),
        ((4, 2), true, "longer"),
        ((1, 3), true, "a later term, shorter"),
        ((2, 2), false, "shorter"),
        ((9, 1), false, "an older term, longer"),
    ];
    for (last, granted, case) in cases {
        let mut server = Start::member(1, &[1, 1, 2]).start();
        let mail = server.answer(2, ask_vote(3, last));
        assert_eq!(votes(&mail), [(2, 3, granted)], "{case}");
        assert_eq!(server.term(), 3, "the term is adopted either way: {case}");
    }
}

#[test]
fn section_3_6_1_a_refused_vote_leaves_the_timer_alone() {
    let mut server = Start::member(1, &[1, 1, 2]).start();
    let deadline = server.raft.deadline();
    server.answer(2, ask_vote(3, (1, 1)));
    assert_eq!(server.raft.deadline(), deadline);
}

#[test]
fn section_10_2_1_a_slow_disk_does_not_end_a_campaign_before_anyone_was_asked() {
    // 1. The leader's process died; the pre-vote succeeds, and the vote is being written.
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    server.peer_down(2);
    server.time_out();
    server.flush();
    server.hear(3, pre_vote(2, true));
    server.flush();
    assert_eq!(server.term(), 2);

    // 2. The write takes longer than the hurried retry: the campaign goes on.
    for _ in 0..4 {
        server.time_out();
        server.flush();
    }
    assert_eq!(server.raft.role(), RoleName::Candidate);
    assert_eq!(server.term(), 2);

    // 3. Durable at last, the question leaves.
    server.sync();
    assert_eq!(questions(&server.flush()), [(2, 2, false), (3, 2, false)]);
}

#[test]
fn bounded_withheld_answers_while_the_disk_hangs() {
    let mut server = Start::member(1, &[1]).start();
    for _ in 0..100_000 {
        server.hear(2, ask_vote(2, (1, 1)));
        server.hear(3, append(0, (1, 1), &[], 0));
    }
    let mail = server.settle();
    assert!(votes(&mail).contains(&(2, 2, true)));
    assert!(mail.len() <= raftkv::limits::WITHHELD_MESSAGES, "{}", mail.len());
}
