//! Log replication: §3.5 and figure 3.6, the bounded windows, and the full log.

use raftkv::limits;
use raftkv::proto::entry::EntryKind;
use raftkv::proto::message::{AppendOutcome, GrowthRefusal, Message};
use raftkv::types::{LogIndex, Term};

use crate::support::*;

/// The leader's log in figure 3.6, for term 8.
const FIGURE_3_6: [u64; 10] = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];

/// Lets a leader and one follower talk until both are silent; returns how many rejections it took.
fn heal(leader: &mut Server, follower: &mut Server) -> usize {
    let (leader_id, follower_id) = (leader.raft.id().0, follower.raft.id().0);
    let mut rejections = 0;
    leader.peer_up(follower_id);
    for _ in 0..100 {
        let requests = leader.settle();
        let requests = requests.into_iter().filter(|(to, _)| *to == follower_id);
        let requests: Vec<Message> = requests.map(|(_, message)| message).collect();
        if requests.is_empty() {
            return rejections;
        }
        for request in requests {
            follower.hear(leader_id, request);
        }
        for (_, answer) in follower.settle() {
            rejections += usize::from(is_conflict(&answer));
            leader.hear(follower_id, answer);
        }
    }
    panic!("they never fall silent");
}

fn is_conflict(message: &Message) -> bool {
    matches!(
        message,
        Message::AppendEntriesResponse(response)
            if matches!(response.outcome, AppendOutcome::Conflict { .. })
    )
}

#[test]
fn figure_3_6_every_log_is_healed() {
    let logs: [(&str, &[u64], usize); 6] = [
        ("a", &[1, 1, 1, 4, 4, 5, 5, 6, 6], 1),
        ("b", &[1, 1, 1, 4], 1),
        ("c", &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6], 0),
        ("d", &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7], 0),
        ("e", &[1, 1, 1, 4, 4, 4, 4], 1),
        ("f", &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3], 1),
    ];
    for (name, log, most_rejections) in logs {
        let mut leader = elect(Start::member(1, &FIGURE_3_6).term(7));
        let mut follower = Start::member(2, log).start();
        let rejections = heal(&mut leader, &mut follower);
        let healed: Vec<u64> = FIGURE_3_6.into_iter().chain([8]).collect();
        assert_eq!(follower.terms(), healed, "({name})");
        assert_eq!(follower.raft.durable_index(), LogIndex(11), "({name})");
        assert_eq!(follower.commit(), 11, "({name}): the two are a majority");
        assert!(rejections <= most_rejections, "({name}) took {rejections}");
    }
}

#[test]
fn section_3_5_the_conflict_hint_skips_a_term_in_each_round_trip() {
    // Interleaved terms, far apart: one rejection for each run on either side, not one an entry.
    let own: Vec<u64> = [1; 50].into_iter().chain([3; 50]).chain([5; 50]).collect();
    let other: Vec<u64> = [1; 10].into_iter().chain([2; 90]).chain([4; 90]).collect();
    let mut leader = elect(Start::member(1, &own).term(5));
    let mut follower = Start::member(2, &other).start();
    let rejections = heal(&mut leader, &mut follower);
    assert_eq!(follower.terms(), leader.terms());
    assert!(rejections <= 2, "{rejections}");
}

#[test]
fn section_3_5_a_gap_is_rejected_with_a_hint() {
    let mut server = Start::member(1, &[1, 1]).start();
    let mail = server.answer(2, append(2, (5, 2), &[2], 9));
    let [response] = responses(&mail)[..] else {
        panic!("one answer: {mail:?}");
    };
    let expected = AppendOutcome::Conflict {
        rejected_index: LogIndex(5),
        hint_index: LogIndex(2),
        hint_term: Term(1),
    };
    assert_eq!((response.term, response.outcome), (Term(2), expected));
    assert_eq!((server.terms(), server.commit()), (vec![1, 1], 0));
}

#[test]
fn section_3_5_a_delayed_duplicate_truncates_nothing() {
    // 1. Three entries of one leader, acknowledged.
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(2, (1, 1), &[2], 0));
    server.answer(2, append(2, (2, 2), &[2, 2], 0));
    let writes = server.writes.len();

    // 2. The first message again.
    let mail = server.answer(2, append(2, (1, 1), &[2], 0));
    assert_eq!(server.terms(), [1, 2, 2, 2]);
    assert_eq!(server.writes.len(), writes, "nothing is written");
    assert_eq!(acknowledged(&mail), [4], "an answer is a report of the state");
}

#[test]
fn section_3_5_messages_out_of_order_end_in_the_same_log() {
    let mut server = Start::member(1, &[1]).start();
    let mail = server.answer(2, append(2, (2, 2), &[2], 0));
    assert_eq!(acknowledged(&mail), []);
    server.answer(2, append(2, (1, 1), &[2], 0));
    let mail = server.answer(2, append(2, (2, 2), &[2], 0));
    assert_eq!(acknowledged(&mail), [3]);
    assert_eq!(server.terms(), [1, 2, 2]);
}

#[test]
fn section_10_2_1_entries_are_acknowledged_once_they_are_durable() {
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    server.hear(2, append(1, (1, 1), &[1, 1], 0));
    assert_eq!(acknowledged(&server.flush()), []);
    server.sync();
    assert_eq!(acknowledged(&server.flush()), [3]);
}

#[test]
fn section_10_2_1_heartbeats_are_answered_while_a_sync_is_under_way() {
    // 1. An entry is being written.
    let mut server = Start::member(1, &[1]).start();
    server.answer(2, append(1, (1, 1), &[], 0));
    server.hear(2, append(1, (1, 1), &[1], 0));
    server.flush();

    // 2. A heartbeat and a read round behind it are answered with what is durable.
    server.hear(2, append(1, (2, 1), &[], 0));
    assert_eq!(acknowledged(&server.flush()), [1]);
    server.hear(2, round(1, (2, 1), 7));
    let mail = server.flush();
    assert_eq!(acknowledged(&mail), [1]);
    assert_eq!(responses(&mail)[0].read_round.0, 7);
}

#[test]
fn section_3_5_nothing_is_acknowledged_in_a_term_that_is_not_durable() {
    let mut server = Start::member(1, &[1]).start();
    server.hear(2, append(4, (1, 1), &[], 0));
    assert_eq!(responses(&server.flush()), []);
    server.sync();
    let mail = server.flush();
    assert_eq!(acknowledged(&mail), [1]);
    assert_eq!(responses(&mail)[0].term, Term(4));
}

#[test]
fn section_3_5_what_was_not_verified_with_this_leader_is_not_acknowledged() {
    // Entries 2 and 3 are durable here, but a leader that has only shown entry 1 may have others.
    let mut server = Start::member(1, &[1, 2, 2]).start();
    let mail = server.answer(3, append(3, (1, 1), &[], 0));
    assert_eq!(acknowledged(&mail), [1]);
}

#[test]
fn section_3_5_entries_that_no_leader_sends_change_nothing() {
    let server = || Start::member(1, &[1, 2]).start();
    let request = || append_request(3, (2, 2), &[3, 3], 0);
    let mut backwards = request();
    backwards.entries[0].term = Term(1);
    let mut beyond = request();
    beyond.entries[1].term = Term(4);
    let mut gap = request();
    gap.entries[1].index = LogIndex(9);
    let mut overflow = append_request(3, (u64::MAX, 2), &[], 0);
    overflow.entries = vec![entry(u64::MAX, 3)];
    let mut no_membership = request();
    no_membership.entries[1].kind = EntryKind::Membership;
    for request in [backwards, beyond, gap, overflow, no_membership] {
        let mut server = server();
        server.answer(2, Message::AppendEntries(request));
        assert_eq!((server.terms(), server.term()), (vec![1, 2], 2));
    }
}

#[test]
fn section_3_5_forged_acknowledgements_commit_nothing() {
    let mut leader = elect(Start::member(1, &[1]));
    for index in [3, 99, u64::MAX] {
        leader.answer(2, matched(2, index));
        leader.answer(3, matched(2, index));
    }
    let outcome = AppendOutcome::Conflict {
        rejected_index: LogIndex(1),
        hint_index: LogIndex(u64::MAX),
        hint_term: Term(u64::MAX),
    };
    let Message::AppendEntriesResponse(response) = matched(2, 0) else {
        unreachable!("matched builds a response");
    };
    for from in [2, 3, 77] {
        let response = raftkv::proto::message::AppendEntriesResponse { outcome, ..response };
        leader.answer(from, Message::AppendEntriesResponse(response));
    }
    assert_eq!(leader.commit(), 0);
    assert!(leader.raft.is_leader());
}

#[test]
fn bounded_window_messages_to_one_follower() {
    // 1. A follower whose log is known to match, and far more turns than the window holds.
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    let mut sent = 0;
    for _ in 0..limits::PEER_WINDOW_MESSAGES + 50 {
        leader.propose();
        sent += appends(&leader.settle(), 2).len();
    }
    assert_eq!(sent, limits::PEER_WINDOW_MESSAGES);

    // 2. One acknowledgement opens it for what waited, in one message.
    leader.hear(2, matched(2, 3));
    let mail = appends(&leader.settle(), 2);
    let with_entries: Vec<_> = mail.iter().filter(|m| !m.entries.is_empty()).collect();
    assert_eq!(with_entries.len(), 1);
    assert_eq!(with_entries[0].entries.len(), 50);
}

#[test]
fn bounded_window_bytes_to_one_follower() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.answer(2, matched(2, 2));
    let payload = bytes::Bytes::from(vec![7; limits::APPEND_BYTES / 2]);
    let mut bytes = 0;
    for _ in 0..64 {
        leader.raft.propose(leader.now, EntryKind::Batch, payload.clone());
    }
    for request in appends(&leader.settle(), 2) {
        let size: usize = request.entries.iter().map(|entry| entry.payload.len()).sum();
        assert!(size <= limits::APPEND_BYTES);
        bytes += size;
    }
    assert!(bytes >= limits::PEER_WINDOW_BYTES);
    assert!(bytes < limits::PEER_WINDOW_BYTES + limits::APPEND_BYTES);
}

#[test]
fn section_3_5_a_lost_message_is_sent_again() {
    // 1. Two messages to a follower are lost; the heartbeat behind them shows it.
    let mut leader = elect(Start::member(1, &[1]));
    let mut follower = Start::member(2, &[1]).start();
    heal(&mut leader, &mut follower);
    leader.propose();
    leader.settle();
    leader.propose();
    leader.settle();
    assert_eq!(follower.terms(), [1, 2]);
    leader.wait(HEARTBEAT);
    for request in appends(&leader.settle(), 2) {
        for (_, answer) in follower.answer(1, Message::AppendEntries(request)) {
            leader.hear(2, answer);
        }
    }
    heal(&mut leader, &mut follower);
    assert_eq!(follower.terms(), leader.terms());
    assert_eq!(leader.commit(), 4);
}

#[test]
fn log_full_a_follower_takes_nothing_loses_nothing_and_goes_on_later() {
    // 1. A full follower keeps what it has, conflicting or not, and says how far it is.
    let mut server = Start::member(1, &[1, 1]).start();
    server.raft.set_room(Some(GrowthRefusal::Disk), true);
    let mail = server.answer(2, append(2, (1, 1), &[2, 2], 0));
    assert_eq!((server.terms(), acknowledged(&mail)), (vec![1, 1], vec![1]));

    // 2. There is space again.
    server.raft.set_room(None, false);
    let mail = server.answer(2, append(2, (1, 1), &[2, 2], 0));
    assert_eq!(server.terms(), [1, 2, 2]);
    assert_eq!(acknowledged(&mail), [3]);
}

#[test]
fn log_full_a_leader_proposes_nothing_and_says_so() {
    let mut leader = elect(Start::member(1, &[1]));
    leader.raft.set_room(Some(GrowthRefusal::Disk), true);
    assert_eq!(leader.propose(), None);
    assert!(!leader.raft.accepts_proposals());
    leader.wait(HEARTBEAT);
    let mail = leader.settle();
    assert_eq!(appends(&mail, 2)[0].refuses_growth, Some(GrowthRefusal::Disk));
}

#[test]
fn log_full_a_new_leaders_first_entry_still_fits() {
    // Without it nothing of the new term could commit, and a full cluster could serve no read.
    let mut server = Start::member(1, &[1, 1]).start();
    server.raft.set_room(Some(GrowthRefusal::Disk), true);
    let mut request = append_request(2, (2, 1), &[2, 2], 0);
    request.entries[0].kind = EntryKind::Empty;
    request.entries[0].payload = bytes::Bytes::new();
    let mail = server.answer(2, Message::AppendEntries(request));
    assert_eq!((server.terms(), acknowledged(&mail)), (vec![1, 1, 2], vec![3]));
}

#[test]
fn log_full_a_follower_that_lags_is_not_fed_in_vain() {
    // 1. A full follower, and a leader that goes on with the others.
    let mut leader = elect(Start::member(1, &[1]));
    let mut follower = Start::member(2, &[1]).start();
    heal(&mut leader, &mut follower);
    follower.raft.set_room(Some(GrowthRefusal::Disk), true);
    let payload = bytes::Bytes::from(vec![7; limits::APPEND_BYTES]);
    for _ in 0..20 {
        leader.raft.propose(leader.now, EntryKind::Batch, payload.clone());
    }

    // 2. Over a hundred heartbeats it is sent no more than a window's worth.
    let mut bytes = 0;
    for _ in 0..100 {
        leader.wait(HEARTBEAT);
        for request in appends(&leader.settle(), 2) {
            let entries = request.entries.iter();
            bytes += entries.map(|entry| entry.payload.len()).sum::<usize>();
            for (_, answer) in follower.answer(1, Message::AppendEntries(request)) {
                leader.hear(2, answer);
            }
        }
    }
    assert!(bytes <= 2 * limits::PEER_WINDOW_BYTES, "{bytes}");

    // 3. There is space again: it catches up.
    follower.raft.set_room(None, false);
    for _ in 0..10 {
        leader.wait(HEARTBEAT);
        for request in appends(&leader.settle(), 2) {
            for (_, answer) in follower.answer(1, Message::AppendEntries(request)) {
                leader.hear(2, answer);
            }
        }
    }
    assert_eq!(follower.terms(), leader.terms());
}
