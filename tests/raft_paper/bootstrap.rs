//! Founding a cluster, and lost disks: design 1-architecture §4, for want of a section.

use raftkv::proto::entry::EntryKind;
use raftkv::proto::message::{Message, RequestVote};
use raftkv::raft::RoleName;
use raftkv::raft::membership::Membership;
use raftkv::types::{Incarnation, LogIndex, ServerId};

use crate::support::*;

fn founders_question(term: u64, pre_vote: bool) -> Message {
    Message::RequestVote(RequestVote { pre_vote, bootstrap: true, ..vote_request(term, (0, 0)) })
}

#[test]
fn bootstrap_needs_all_founders_not_a_majority() {
    // 1. Of three founders two agree: no campaign.
    let mut server = Start::founder(1).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(1, true));
    assert_eq!(server.raft.role(), RoleName::PreCandidate);

    // 2. All three agree. The same holds for the vote itself.
    server.hear(3, pre_vote(1, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
    server.settle();
    server.hear(3, vote(1, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
    server.hear(2, vote(1, true));
    assert_eq!(server.raft.role(), RoleName::Leader);
}

#[test]
fn bootstrap_first_entry_is_the_membership_with_incarnations() {
    let mut server = Start::founder(1).start();
    // Server 3 came back on another directory before it voted.
    server.peer_down(3);
    server.raft.peer_up(server.now, ServerId(3), Incarnation(999));
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(1, true));
    server.hear(3, pre_vote(1, true));
    server.settle();
    server.hear(2, vote(1, true));
    server.hear(3, vote(1, true));

    let entry = server.raft.log().entry(LogIndex(1)).expect("just founded");
    assert_eq!(entry.kind, EntryKind::Membership);
    let membership = Membership::decode(&entry.payload).expect("a membership");
    let members: Vec<_> = membership
        .members()
        .iter()
        .map(|member| (member.id.0, member.incarnation.0, member.admitted.0, member.voter))
        .collect();
    assert_eq!(members, [(1, 11, 1, true), (2, 22, 1, true), (3, 999, 1, true)]);
    assert_eq!(server.raft.membership(), &membership, "in force at once");
}

#[test]
fn bootstrap_a_member_refuses_a_founder() {
    // A wiped server asks one that has the log: it never founds a second, empty cluster.
    let mut server = Start::member(1, &[1]).start();
    for pre_vote in [true, false] {
        let mail = server.answer(3, founders_question(9, pre_vote));
        assert!(votes(&mail).iter().all(|(_, _, granted)| !granted));
    }
    // Not even with nothing but the membership's loss: an empty log is behind any other.
    let mut server = Start::member(1, &[1]).start();
    let mail = server.answer(3, ask_vote(9, (0, 0)));
    assert_eq!(votes(&mail), [(3, 9, false)]);
}

#[test]
fn bootstrap_a_founder_agrees_with_a_founder() {
    let mut server = Start::founder(1).start();
    let mail = server.answer(3, founders_question(1, true));
    assert_eq!(votes(&mail), [(3, 1, true)]);
    let mail = server.answer(3, founders_question(1, false));
    assert_eq!(votes(&mail), [(3, 1, true)]);
}

#[test]
fn bootstrap_a_server_that_is_not_listed_founds_nothing() {
    let mut server = Start::founder(9).start();
    for _ in 0..20 {
        server.time_out();
        assert_eq!(questions(&server.settle()), []);
    }
    assert_eq!(server.raft.role(), RoleName::Follower);
}

#[test]
fn bootstrap_a_founder_without_the_first_entry_votes_for_who_has_it() {
    // 1. Server 1 voted for server 2, which founded the cluster with server 3, and died.
    let mut server = Start::founder(1).term(1).voted_for(2).start();
    // 2. Server 3 has the membership: a majority of it is enough.
    let mail = server.answer(3, ask_vote(2, (1, 1)));
    assert_eq!(votes(&mail), [(3, 2, true)]);
    let mut successor = Start::member(3, &[1]).start();
    successor.time_out();
    successor.flush();
    successor.hear(1, pre_vote(2, true));
    successor.settle();
    successor.hear(1, vote(2, true));
    assert_eq!(successor.raft.role(), RoleName::Leader);
}

#[test]
fn lost_disk_takes_part_in_nothing() {
    let mut server = Start::founder(1).start();
    server.raft.lost_disk(server.now);
    assert_eq!(server.answer(2, founders_question(1, true)), []);
    assert_eq!(server.answer(2, ask_vote(5, (9, 4))), []);
    assert_eq!(server.answer(2, append(5, (0, 0), &[5], 1)), []);
    for _ in 0..20 {
        server.time_out();
        assert_eq!(server.settle(), []);
    }
    assert!(server.writes.is_empty());
    assert!(server.raft.is_recovering());
}

#[test]
fn lost_disk_keeps_the_votes_that_wait_for_it() {
    // A vote, a pre-vote and a campaign that were decided before, and have not left yet.
    let mut server = Start::member(1, &[1, 2]).start();
    server.hear(2, ask_pre_vote(3, (2, 2)));
    server.hear(2, ask_vote(3, (2, 2)));
    server.raft.lost_disk(server.now);
    assert_eq!(server.settle(), []);

    let mut server = Start::member(1, &[1, 2]).start();
    server.time_out();
    server.flush();
    server.hear(2, pre_vote(3, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
    server.raft.lost_disk(server.now);
    assert_eq!(server.settle(), []);
}

#[test]
fn lost_disk_a_vote_of_a_stranger_does_not_count() {
    let mut server = Start::member(1, &[1]).start();
    server.time_out();
    server.flush();
    server.hear(7, pre_vote(2, true));
    server.hear(8, pre_vote(2, true));
    assert_eq!(server.raft.role(), RoleName::PreCandidate);
}
