//! Committing: §3.6.2, figure 3.7, and the leader's own disk: §10.2.1.

use raftkv::proto::entry::EntryKind;
use raftkv::raft::RoleName;
use raftkv::types::{LogIndex, WalSeq};

use crate::support::*;

#[test]
fn section_3_6_2_commits_no_entry_of_an_older_term_by_counting() {
    // Figure 3.7, (c): a leader of term 4 has entry 2 of term 2, and so does a majority.
    let mut leader = elect(Start::member(1, &[1, 2]).of(5).term(3));
    assert_eq!((leader.term(), leader.terms()), (4, vec![1, 2, 4]));
    leader.hear(2, matched(4, 2));
    leader.hear(3, matched(4, 2));
    assert_eq!(leader.commit(), 0, "entry 2 could still be overwritten, as in (d)");

    // (e): entry 3 of its own term commits both.
    leader.hear(2, matched(4, 3));
    assert_eq!(leader.commit(), 0);
    leader.hear(3, matched(4, 3));
    assert_eq!(leader.commit(), 3);
}

#[test]
fn section_3_6_3_a_new_leader_appends_an_empty_entry_of_its_term_at_once() {
    let leader = elect(Start::member(1, &[1, 1]));
    let last = leader.raft.log().last().expect("just appended");
    assert_eq!((last.kind, last.index), (EntryKind::Empty, LogIndex(3)));
    assert_eq!(leader.terms(), [1, 1, 2]);
}

#[test]
fn section_10_2_1_the_leader_replicates_before_its_own_disk_is_done() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.hear(2, matched(2, 2));
    leader.settle();
    leader.propose();
    let mail = leader.flush();
    assert_eq!(appends(&mail, 2)[0].entries.len(), 1);
    assert_eq!(leader.raft.durable_index(), LogIndex(2));
}

#[test]
fn section_10_2_1_the_leader_counts_itself_only_when_durable() {
    // 1. An entry, sent to both, acknowledged by one.
    let mut leader = elect(Start::member(1, &[1]));
    leader.hear(2, matched(2, 2));
    assert_eq!(leader.commit(), 2);
    leader.propose();
    leader.flush();
    leader.hear(2, matched(2, 3));
    assert_eq!(leader.commit(), 2, "one of three has it on disk");

    // 2. Its own disk makes two.
    leader.sync();
    assert_eq!(leader.commit(), 3);
}

#[test]
fn section_10_2_1_two_followers_commit_without_the_leaders_disk() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.hear(2, matched(2, 2));
    leader.propose();
    leader.flush();
    leader.hear(2, matched(2, 3));
    leader.hear(3, matched(2, 3));
    assert_eq!(leader.commit(), 3);
    assert_eq!(leader.raft.durable_index(), LogIndex(2));
}

#[test]
fn section_10_2_1_a_late_completion_vouches_for_nothing_that_was_replaced() {
    // 1. A follower writes entries 2 and 3 of term 2.
    let mut server = Start::member(1, &[1]).term(2).start();
    server.hear(2, append(2, (1, 1), &[2, 2], 0));
    server.flush();

    // 2. A leader of term 3 replaces them while that write is under way.
    server.hear(3, append(3, (1, 1), &[3, 3, 3], 0));
    server.flush();
    let (_, write) = server.writes.last().expect("a second write");
    assert_eq!(write.truncate_from, Some(LogIndex(2)));

    // 3. The first write's completion proves entry 1 and nothing else.
    server.raft.persisted(server.now, WalSeq(1));
    assert_eq!(server.raft.durable_index(), LogIndex(1));
    assert_eq!(acknowledged(&server.flush()), [], "not even the term is durable");
    server.raft.persisted(server.now, WalSeq(2));
    assert_eq!(acknowledged(&server.flush()), [4]);
}

#[test]
fn section_10_2_1_an_old_completion_commits_nothing_new() {
    // 1. A server alone leads; its entry is on disk, and another one is being written.
    let mut server = Start::member(1, &[1]).of(1).start();
    server.time_out();
    server.settle();
    assert_eq!(server.raft.role(), RoleName::Leader);
    server.settle();
    assert_eq!(server.commit(), 2);
    server.propose();
    server.flush();

    // 2. An old number changes nothing, the new one does.
    server.raft.persisted(server.now, WalSeq(1));
    assert_eq!(server.commit(), 2);
    server.sync();
    assert_eq!(server.commit(), 3);
}

#[test]
fn section_3_5_a_follower_commits_no_further_than_it_has_verified() {
    // 1. A log with two entries that the leader of term 3 doesn't have.
    let mut server = Start::member(1, &[1, 1, 2, 2]).start();
    // 2. Its heartbeat covers entry 2 only, though it has committed four.
    server.answer(3, append(3, (2, 1), &[], 4));
    assert_eq!(server.commit(), 2);
    server.answer(3, append(3, (2, 1), &[3, 3], 4));
    assert_eq!((server.commit(), server.terms()), (4, vec![1, 1, 3, 3]));
}

#[test]
fn section_3_5_the_commit_index_is_told_without_a_heartbeat() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    leader.answer(3, matched(2, 2));
    leader.propose();
    leader.settle();
    leader.hear(2, matched(2, 3));
    let mail = leader.flush();
    assert_eq!(appends(&mail, 2)[0].leader_commit, LogIndex(3));
    assert_eq!(appends(&mail, 3)[0].leader_commit, LogIndex(3));
}

#[test]
fn section_3_5_the_commit_index_alone_is_answered_only_on_a_new_link() {
    // 1. The leader awaits an answer to the first thing that it says, whatever that is.
    let mut server = Start::member(1, &[1, 1, 1]).start();
    server.peer_up(2);
    assert_eq!(acknowledged(&server.answer(2, append(1, (3, 1), &[], 1))), [3]);

    // 2. Then that more is committed is taken without a word, and a heartbeat is answered.
    assert_eq!(acknowledged(&server.answer(2, append(1, (3, 1), &[], 2))), []);
    assert_eq!(server.commit(), 2);
    assert_eq!(acknowledged(&server.answer(2, append(1, (3, 1), &[], 2))), [3]);

    // 3. A new link begins anew: what was said by the old one may be lost.
    server.peer_up(2);
    assert_eq!(acknowledged(&server.answer(2, append(1, (3, 1), &[], 3))), [3]);
}

#[test]
fn section_3_5_a_heartbeat_is_a_message_of_its_own() {
    // 1. A heartbeat is due in the moment in which an entry is committed.
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    leader.answer(3, matched(2, 2));
    leader.propose();
    leader.settle();
    leader.time_out();
    leader.hear(2, matched(2, 3));

    // 2. Both are told: a follower that answers only the second one is heard.
    let mail = leader.flush();
    let told: Vec<u64> = appends(&mail, 3).iter().map(|told| told.leader_commit.0).collect();
    assert_eq!(told, [3, 3]);
    assert!(appends(&mail, 3).iter().all(|told| told.entries.is_empty()));
}

#[test]
fn section_3_6_3_a_committed_entry_is_given_up_for_no_message() {
    let mut server = Start::member(1, &[1, 1, 1]).start();
    server.answer(2, append(1, (3, 1), &[], 3));
    assert_eq!(server.commit(), 3);
    let mail = server.answer(3, append(9, (1, 1), &[9, 9, 9], 4));
    assert_eq!((server.terms(), server.commit()), (vec![1, 1, 1], 3));
    assert_eq!(acknowledged(&mail), [1], "what is the same, and no more");
}
