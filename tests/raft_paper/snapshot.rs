//! Log compaction and InstallSnapshot: §5 and §5.1 of the dissertation, §7 of the Raft paper.

use std::time::Duration;

use bytes::Bytes;
use raftkv::limits;
use raftkv::proto::message::{InstallOutcome, InstallSnapshot, Message};
use raftkv::raft::RoleName;
use raftkv::types::{LogIndex, ServerId, SnapshotId, Term};

use crate::support::*;

/// A leader of term 2 whose log begins behind entry 8 of term 1, with entries 9 and 10 of that term
/// and its own first one, 11; server 2 has said that it has nothing behind entry 3.
fn leader_of_a_lagging_follower() -> Server {
    let mut leader = elect(Start::behind(1, (8, 1), &[1, 1]));
    leader.flush();
    leader.hear(2, conflict(2, 10, 3));
    leader
}

/// A follower's log ends at `last` and doesn't have the entry `rejected`.
fn conflict(term: u64, rejected: u64, last: u64) -> Message {
    use raftkv::proto::message::{AppendEntriesResponse, AppendOutcome};
    Message::AppendEntriesResponse(AppendEntriesResponse {
        term: Term(term),
        read_round: Default::default(),
        outcome: AppendOutcome::Conflict {
            rejected_index: LogIndex(rejected),
            hint_index: LogIndex(last),
            hint_term: Term(1),
        },
    })
}

fn file(bytes: u64) -> Bytes {
    Bytes::from((0..bytes).map(|at| at as u8).collect::<Vec<u8>>())
}

/// Where the pieces of a snapshot begin and end.
fn ranges(pieces: &[InstallSnapshot]) -> Vec<(u64, u64)> {
    pieces.iter().map(|piece| (piece.offset, piece.offset + piece.bytes.len() as u64)).collect()
}

#[test]
fn section_5_a_log_behind_a_snapshot_votes_and_matches_by_its_base() {
    // 1. Nothing behind the snapshot: it stands for the last entry.
    let mut server = Start::behind(1, (8, 3), &[]).start();
    assert_eq!((server.commit(), server.raft.log().last_index()), (8, LogIndex(8)));
    assert_eq!(server.raft.membership().members().len(), 3);
    server.wait(LEAST);
    let mail = server.answer(2, ask_vote(4, (7, 3)));
    assert_eq!(votes(&mail), [(2, 4, false)], "its log is longer");
    let mail = server.answer(3, ask_vote(4, (8, 3)));
    assert_eq!(votes(&mail), [(3, 4, true)]);

    // 2. Entries that follow on the base, and on something before it.
    let mail = server.answer(3, append(4, (8, 3), &[4], 9));
    assert_eq!(acknowledged(&mail).last(), Some(&9));
    let mail = server.answer(3, append(4, (5, 2), &[3, 3, 3, 4, 4], 9));
    assert_eq!(acknowledged(&mail), [10], "what the snapshot replaced is passed over");
    assert_eq!(server.terms(), [3, 4, 4]);
    assert_eq!(server.commit(), 9);

    // 3. A heartbeat that names no entry at all is no conflict.
    let mail = server.answer(3, append(4, (0, 0), &[], 10));
    assert_eq!(acknowledged(&mail), [10]);
}

#[test]
fn section_5_entries_that_contradict_the_base_are_not_taken() {
    // Entry 8 of term 3 was committed: nobody who leads has another one there, and a peer that says
    // so must not end this server.
    let mut server = Start::behind(1, (8, 3), &[]).start();
    server.answer(2, append(4, (7, 1), &[1, 1], 9));
    assert_eq!(server.raft.log().last_index(), LogIndex(8));
}

#[test]
fn section_5_the_conflict_hint_does_not_go_behind_the_base() {
    let mut server = Start::behind(1, (8, 3), &[4, 4]).start();
    // No leader has an entry 9 of an older term than entry 8; one that says so is not believed.
    let mail = server.answer(2, append(5, (10, 2), &[], 0));
    let hints: Vec<_> = responses(&mail).into_iter().map(|response| response.outcome).collect();
    let expected = raftkv::proto::message::AppendOutcome::Conflict {
        rejected_index: LogIndex(10),
        hint_index: LogIndex(8),
        hint_term: Term(3),
    };
    assert_eq!(hints, [expected]);
}

#[test]
fn section_5_compaction_keeps_a_tail_and_the_membership() {
    let mut leader = elect(Start::member(1, &[1]));
    let large = Bytes::from(vec![0; 1024 * 1024]);
    for _ in 0..40 {
        leader.raft.propose(leader.now, raftkv::proto::entry::EntryKind::Batch, large.clone());
    }
    leader.settle();
    leader.answer(2, matched(2, 42));
    assert_eq!(leader.commit(), 42);
    // 1. What was not applied stays.
    leader.raft.compact(leader.now, LogIndex(1), None);
    assert_eq!(leader.raft.log().first_index(), LogIndex(2));
    // 2. Of what was, a tail does, whether a snapshot has it or only the log on the disk.
    leader.raft.compact(leader.now, LogIndex(42), None);
    let tail = LOG_TAIL_BYTES / (large.len() + limits::LOG_ENTRY_BYTES);
    let first_index = leader.raft.log().first_index();
    assert_eq!(first_index, LogIndex(42 - tail as u64 + 1));
    assert_eq!(leader.raft.membership().members().len(), 3, "its entry is gone, it is not");
    assert_eq!(leader.raft.membership_at(LogIndex(41)).map(|(at, _)| at), Some(LogIndex(1)));
    // 3. A follower that lags no further is sent entries.
    leader.peer_down(3);
    leader.peer_up(3);
    leader.hear(3, matched(2, first_index.0 - 1));
    let mail = leader.flush();
    assert!(!appends(&mail, 3).iter().all(|request| request.entries.is_empty()));
    assert!(leader.reads.is_empty() && !leader.raft.wants_snapshot());
}

#[test]
fn section_5_1_who_lags_further_than_the_log_in_memory_waits_for_a_snapshot_and_what_follows_it() {
    let mut leader = elect(Start::behind(1, (8, 1), &[1, 1]));
    grow(&mut leader, 40);
    let last = leader.raft.log().last_index();
    leader.raft.compact(leader.now, last, None);
    assert!(leader.raft.log().first_index() > LogIndex(20));
    // 1. The newest snapshot is older than that: to send it would be in vain. Another one is asked
    // for.
    leader.hear(2, conflict(2, 10, 3));
    leader.flush();
    assert!(leader.reads.is_empty());
    assert!(leader.raft.wants_snapshot());
    // 2. While that is made, what follows on it stays, more than the tail.
    grow(&mut leader, 60);
    let now_last = leader.raft.log().last_index();
    leader.raft.compact(leader.now, now_last, Some(last));
    assert_eq!(leader.raft.log().first_index(), last.next());
    // 3. It is there: the follower is sent it, and what follows stays until it takes it.
    leader.raft.snapshot_taken(snapshot_id((last.0, 2)), 1000);
    assert!(!leader.raft.wants_snapshot());
    leader.raft.compact(leader.now, now_last, None);
    leader.hear(2, matched(2, 0));
    leader.flush();
    assert!(leader.reads.iter().any(|read| read.1 == snapshot_id((last.0, 2))));
    leader.raft.compact(leader.now, now_last, None);
    assert_eq!(leader.raft.log().first_index(), last.next());
    // 4. Nobody waits for a follower that is gone.
    leader.peer_down(2);
    leader.raft.compact(leader.now, now_last, None);
    assert_eq!(leader.raft.role(), RoleName::Leader);
    assert!(leader.raft.log().bytes() <= LOG_TAIL_BYTES);
}

#[test]
fn section_5_an_older_snapshot_changes_nothing() {
    let mut leader = elect(Start::behind(1, (8, 1), &[1]));
    leader.answer(2, matched(2, 10));
    leader.raft.snapshot_taken(snapshot_id((10, 2)), 1000);
    leader.raft.snapshot_taken(snapshot_id((9, 1)), 1000);
    assert_eq!(leader.raft.snapshot(), Some((snapshot_id((10, 2)), 1000)));
}

#[test]
fn section_5_1_a_follower_whose_next_entry_is_gone_is_sent_the_snapshot() {
    let mut leader = leader_of_a_lagging_follower();
    // 1. One piece asks what the follower has.
    leader.flush();
    assert_eq!(leader.reads, [(2, snapshot_id((8, 1)), 0, 1000)]);
    let mail = leader.read_pieces(&file(1000));
    let pieces = installs(&mail, 2);
    assert_eq!(ranges(&pieces), [(0, 1000)]);
    assert_eq!((pieces[0].term, pieces[0].total), (Term(2), 1000));
    assert_eq!(pieces[0].bytes, file(1000));

    // 2. Heartbeats go on meanwhile, and their answers are no end of it.
    leader.wait(HEARTBEAT);
    let mail = leader.flush();
    let beats = appends(&mail, 2);
    assert_eq!(beats.len(), 1);
    assert_eq!((beats[0].prev_log_index, beats[0].entries.len()), (LogIndex(0), 0));
    let mail = leader.answer(2, matched(2, 0));
    assert!(appends(&mail, 2).iter().all(|request| request.entries.is_empty()), "{mail:?}");

    // 3. It has written everything, and then installed it: entries follow.
    let mail = leader.answer(2, installed(2, (8, 1), 0, 1000));
    assert_eq!((installs(&mail, 2), leader.reads.len()), (vec![], 0));
    let mail = leader.answer(2, matched(2, 8));
    let indexes: Vec<u64> =
        appends(&mail, 2).iter().flat_map(|request| &request.entries).map(|e| e.index.0).collect();
    assert_eq!(indexes, [9, 10, 11]);
    leader.answer(2, matched(2, 11));
    assert_eq!(leader.commit(), 11, "it counts like any other");
}

/// Server 2 answers each piece that it is sent at once, until a whole window is under way to it.
/// Returns up to where it has written the file.
fn open_window(leader: &mut Server, file: &Bytes) -> u64 {
    let mut through = 0;
    loop {
        let mail = leader.read_pieces(file);
        let pieces = ranges(&installs(&mail, 2));
        let (first, last) = (pieces[0].0, pieces.last().expect("it is sent something").1);
        assert!(last - first <= limits::SNAPSHOT_WINDOW_BYTES);
        if last - first == limits::SNAPSHOT_WINDOW_BYTES {
            return through;
        }
        through = last;
        leader.hear(2, installed(2, (8, 1), first, through));
        leader.flush();
    }
}

#[test]
fn section_5_1_the_window_is_bounded_and_two_followers_are_sent_at_once() {
    let chunk = limits::SNAPSHOT_CHUNK_BYTES as u64;
    let total = 100 * chunk;
    let file = file(total);
    let mut leader = elect(Start::behind(1, (8, 1), &[1, 1]).with_bytes(total));
    // 1. One piece asks each of them.
    leader.hear(2, conflict(2, 10, 3));
    leader.hear(3, conflict(2, 10, 4));
    leader.flush();
    let reads: Vec<_> = leader.reads.iter().map(|read| (read.0, read.2)).collect();
    assert_eq!(reads, [(2, 0), (3, 0)]);
    leader.read_pieces(&file);

    // 2. The answers of one open its window.
    leader.hear(2, installed(2, (8, 1), 0, limits::SNAPSHOT_WINDOW_BYTES_MIN));
    leader.flush();
    assert!(leader.reads.iter().all(|read| read.0 == 2), "the other hasn't answered");
    open_window(&mut leader, &file);
    leader.hear(2, matched(2, 0));
    leader.flush();
    assert!(leader.reads.is_empty(), "the window is full");

    // 3. A heartbeat doesn't wait for the window to open.
    leader.wait(HEARTBEAT);
    assert_eq!(appends(&leader.flush(), 2).len(), 1);
    assert!(leader.reads.is_empty());
}

#[test]
fn section_5_1_a_cut_link_resumes_where_the_follower_is() {
    let chunk = limits::SNAPSHOT_CHUNK_BYTES as u64;
    let least = limits::SNAPSHOT_WINDOW_BYTES_MIN;
    let total = 1000 * chunk;
    let mut leader = elect(Start::behind(1, (8, 1), &[1, 1]).with_bytes(total));
    let file = file(total);
    leader.hear(2, conflict(2, 10, 3));
    leader.flush();
    let begin = open_window(&mut leader, &file);
    assert!(begin > 0);

    // 1. The link is cut: nothing is read or sent until it stands again.
    leader.peer_down(2);
    leader.flush();
    leader.reads.clear();
    leader.wait(HEARTBEAT);
    leader.flush();
    assert!(leader.reads.is_empty());

    // 2. One small piece asks; the follower had written more than it could say.
    leader.peer_up(2);
    leader.flush();
    assert_eq!(leader.reads.len(), 1);
    let mail = leader.read_pieces(&file);
    assert_eq!(ranges(&installs(&mail, 2)), [(begin, begin + least)]);
    let has = total - 2 * least;
    leader.hear(2, installed(2, (8, 1), begin, has));
    leader.flush();
    let mail = leader.read_pieces(&file);
    assert_eq!(ranges(&installs(&mail, 2)), [(has, has + least), (has + least, total)]);
}

#[test]
fn section_5_1_a_lost_piece_is_asked_for_after_a_silence() {
    let mut leader = leader_of_a_lagging_follower();
    leader.flush();
    leader.read_pieces(&file(1000));
    let mut asked = 0;
    for _ in 0..20 {
        leader.wait(HEARTBEAT);
        leader.hear(2, matched(2, 0));
        leader.hear(3, matched(2, 0));
        leader.flush();
        asked += installs(&leader.read_pieces(&file(1000)), 2).len();
    }
    assert!((2..=4).contains(&asked), "about once an election timeout: {asked}");
    assert_eq!(leader.raft.role(), RoleName::Leader);
}

#[test]
fn section_5_1_a_snapshot_that_is_gone_or_damaged_gives_way_to_a_newer_one() {
    let mut leader = leader_of_a_lagging_follower();
    leader.flush();
    // 1. The file is gone: nothing but heartbeats, and another snapshot is wanted.
    leader.reads.clear();
    let id = snapshot_id((8, 1));
    leader.raft.snapshot_read(leader.now, ServerId(2), id, 0, None);
    assert!(leader.raft.wants_snapshot());
    leader.wait(HEARTBEAT);
    assert_eq!(appends(&leader.flush(), 2).len(), 1);
    assert!(leader.reads.is_empty());

    // 2. A newer one is taken.
    leader.answer(3, matched(2, 11));
    leader.raft.snapshot_taken(snapshot_id((11, 2)), 1000);
    assert!(!leader.raft.wants_snapshot());
    leader.flush();
    assert_eq!(leader.reads, [(2, snapshot_id((11, 2)), 0, 1000)]);

    // 3. The follower finds it damaged.
    leader.read_pieces(&file(1000));
    let refused = raftkv::proto::message::InstallSnapshotResponse {
        term: Term(2),
        snapshot: snapshot_id((11, 2)),
        asked: 0,
        outcome: InstallOutcome::Refused,
    };
    leader.hear(2, Message::InstallSnapshotResponse(refused));
    assert!(leader.raft.wants_snapshot());
}

#[test]
fn section_5_1_a_follower_goes_on_with_the_snapshot_it_began() {
    let mut leader = leader_of_a_lagging_follower();
    leader.flush();
    leader.answer(3, matched(2, 11));
    leader.raft.snapshot_taken(snapshot_id((11, 2)), 1000);
    leader.read_pieces(&file(1000));
    let mail = leader.answer(2, installed(2, (8, 1), 0, 500));
    assert!(installs(&mail, 2).is_empty());
    assert_eq!(leader.reads, [(2, snapshot_id((8, 1)), 500, 500)]);
}

#[test]
fn section_5_1_a_follower_takes_pieces_in_order_and_says_what_it_has_written() {
    let mut server = Start::member(1, &[1, 1]).start();
    // 1. A piece that doesn't begin at the beginning: nothing is there before it.
    let mail = server.answer(2, install(2, (8, 2), 400, 100));
    assert_eq!(install_outcomes(&mail), [InstallOutcome::Next { offset: 0 }]);
    assert!(server.pieces.is_empty());

    // 2. The first ones are handed on; they count once they are written.
    let mail = server.answer(2, install(2, (8, 2), 0, 300));
    assert_eq!(install_outcomes(&mail), []);
    let mail = server.answer(2, install(2, (8, 2), 300, 300));
    assert_eq!(install_outcomes(&mail), []);
    let offsets: Vec<u64> = server.pieces.iter().map(|piece| piece.offset).collect();
    assert_eq!(offsets, [0, 300]);
    let mail = server.write_pieces();
    assert_eq!(install_outcomes(&mail), [InstallOutcome::Next { offset: 600 }]);

    // 3. A gap, a duplicate, and a piece of which a part is news.
    server.pieces.clear();
    let mail = server.answer(2, install(2, (8, 2), 700, 100));
    assert_eq!(install_outcomes(&mail), [InstallOutcome::Next { offset: 600 }]);
    let mail = server.answer(2, install(2, (8, 2), 0, 300));
    assert_eq!(install_outcomes(&mail), [InstallOutcome::Next { offset: 600 }]);
    assert!(server.pieces.is_empty());
    server.answer(2, install(2, (8, 2), 500, 200));
    assert_eq!((server.pieces[0].offset, server.pieces[0].bytes.len()), (600, 100));

    // 4. Nothing of its log was touched, and the leader was heard all the time.
    assert_eq!((server.terms(), server.commit()), (vec![1, 1], 0));
    assert_eq!(server.raft.leader(), Some(ServerId(2)));
    assert_eq!(server.raft.receiving(), Some((snapshot_id((8, 2)), 700, 1000)));
}

/// Receives a whole snapshot that ends with entry `last`, up to where it is verified.
fn receive(server: &mut Server, term: u64, last: (u64, u64)) {
    server.answer(2, install(term, last, 0, 1000));
    server.write_pieces();
}

#[test]
fn section_5_1_installing_replaces_a_log_that_lacks_the_last_entry() {
    for terms in [&[1, 1][..], &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]] {
        let mut server = Start::member(1, terms).start();
        receive(&mut server, 3, (8, 2));
        assert!(server.raft.install(server.now, &snapshot((8, 2), 5)));
        assert_eq!(server.raft.log().last_index(), LogIndex(8));
        assert_eq!(server.raft.log().last_term(), Term(2));
        assert_eq!((server.commit(), server.raft.durable_index()), (8, LogIndex(8)));
        assert_eq!(server.raft.membership().members().len(), 5, "its membership is in force");
        // 2. It is acknowledged: its file is durable. The log on disk begins anew.
        let mail = server.flush();
        assert_eq!(acknowledged(&mail), [8]);
        let (_, write) = server.writes.last().expect("the log begins anew");
        assert_eq!(write.reset, Some(snapshot_id((8, 2))));
        // 3. The log goes on behind it.
        let mail = server.answer(2, append(3, (8, 2), &[3], 9));
        assert_eq!((acknowledged(&mail), server.commit()), (vec![9], 9));
    }
}

#[test]
fn section_5_1_installing_keeps_what_follows_on_the_last_entry() {
    // Entries came from another leader while the file was being written.
    let mut server = Start::member(1, &[1, 1]).start();
    receive(&mut server, 2, (4, 2));
    server.answer(3, append(3, (2, 1), &[2, 2, 3], 0));
    assert!(!server.raft.install(server.now, &snapshot((4, 2), 3)));
    assert_eq!((server.terms(), server.commit()), (vec![1, 1, 2, 2, 3], 4));
    let writes = server.writes.len();
    server.flush();
    assert_eq!(server.writes.len(), writes, "the log on disk is as it was");
}

#[test]
fn section_5_1_a_snapshot_of_what_is_there_is_answered_as_matched() {
    // 1. Committed.
    let mut server = Start::member(1, &[1, 1, 1]).start();
    server.answer(2, append(1, (3, 1), &[], 3));
    let mail = server.answer(2, install(1, (2, 1), 0, 1000));
    assert_eq!((acknowledged(&mail), server.pieces.len()), (vec![3], 0));
    // 2. There, and by the snapshot committed.
    let mut server = Start::member(1, &[1, 1, 1]).start();
    let mail = server.answer(2, install(2, (2, 1), 0, 1000));
    assert_eq!((acknowledged(&mail), server.pieces.len()), (vec![2], 0));
    assert_eq!((server.commit(), server.terms().len()), (2, 3));
}

#[test]
fn section_5_1_entries_that_come_first_make_the_snapshot_useless() {
    let mut server = Start::member(1, &[1, 1]).start();
    server.answer(2, install(2, (4, 2), 0, 500));
    server.answer(3, append(3, (2, 1), &[2, 2, 3], 4));
    assert_eq!((server.abandoned, server.raft.receiving()), (1, None));
    // A file that was about to become durable is no harm either.
    assert!(!server.raft.install(server.now, &snapshot((4, 2), 3)));
    assert_eq!((server.terms(), server.commit()), (vec![1, 1, 2, 2, 3], 4));
}

#[test]
fn section_5_1_a_damaged_file_is_refused_and_begun_again() {
    let mut server = Start::member(1, &[1, 1]).start();
    receive(&mut server, 2, (8, 2));
    server.raft.snapshot_refused(snapshot_id((8, 2)));
    assert_eq!(install_outcomes(&server.flush()), [InstallOutcome::Refused]);
    server.pieces.clear();
    server.answer(2, install(2, (8, 2), 0, 500));
    assert_eq!(server.pieces.len(), 1);
}

#[test]
fn section_5_1_a_full_disk_is_not_asked_with_each_piece() {
    let mut server = Start::member(1, &[1, 1]).start();
    server.answer(2, install(2, (8, 2), 0, 500));
    server.raft.snapshot_full(server.now, snapshot_id((8, 2)));
    server.pieces.clear();
    // 1. Whatever comes is heard, and not taken; nothing invites the leader to send more.
    let start = server.now;
    while server.now.since(start) < limits::INSTALL_FULL_PAUSE {
        let mail = server.answer(2, install(2, (8, 2), 0, 500));
        assert_eq!((install_outcomes(&mail), server.pieces.len()), (vec![], 0));
        server.wait(HEARTBEAT);
    }
    assert_eq!(server.raft.leader(), Some(ServerId(2)), "it is heard all the while");
    // 2. Then there may be room.
    server.answer(2, install(2, (8, 2), 0, 500));
    assert_eq!(server.pieces.len(), 1);
}

/// Server 2 says that it can't use the snapshot.
fn refused(term: u64, last: (u64, u64)) -> Message {
    Message::InstallSnapshotResponse(raftkv::proto::message::InstallSnapshotResponse {
        term: Term(term),
        snapshot: snapshot_id(last),
        asked: 0,
        outcome: InstallOutcome::Refused,
    })
}

#[test]
fn section_5_1_a_follower_that_refuses_is_sent_a_snapshot_less_and_less_often() {
    let mut leader = leader_of_a_lagging_follower();
    // Whatever it is sent, for ten minutes: it says that it can't use it.
    let begun = leader.now;
    let mut sent = Vec::new();
    while leader.now.since(begun) < Duration::from_secs(600) {
        leader.flush();
        if !leader.reads.is_empty() {
            leader.read_pieces(&file(1000));
            leader.hear(2, refused(2, (8, 1)));
            sent.push(leader.now.since(begun));
        }
        leader.wait(HEARTBEAT);
        leader.hear(2, matched(2, 0));
        leader.hear(3, matched(2, 0));
    }
    let most = 600 / limits::INSTALL_RETRY_MAX.as_secs() as usize + 10;
    assert!((40..=most).contains(&sent.len()), "{}", sent.len());
    assert!(sent[1] >= limits::INSTALL_RETRY_MIN && sent[1] < Duration::from_secs(1));
    assert_eq!(leader.raft.role(), RoleName::Leader);
}

/// A leader whose snapshot ends with entry 8 and is `bytes` long, and server 2, which has said that
/// it has written the first piece of it.
fn leader_of_a_taking_follower(bytes: u64) -> Server {
    let mut leader = elect(Start::behind(1, (8, 1), &[1, 1]).with_bytes(bytes));
    leader.hear(3, matched(2, 11));
    leader.hear(2, conflict(2, 10, 3));
    leader.flush();
    leader.read_pieces(&file(limits::SNAPSHOT_CHUNK_BYTES as u64));
    leader.hear(2, installed(2, (8, 1), 0, limits::SNAPSHOT_CHUNK_BYTES as u64));
    leader.flush();
    leader
}

/// Appends and commits entries of a MiB, `count` of them.
fn grow(leader: &mut Server, count: u64) {
    let large = Bytes::from(vec![0; 1024 * 1024]);
    for _ in 0..count {
        leader.raft.propose(leader.now, raftkv::proto::entry::EntryKind::Batch, large.clone());
    }
    leader.settle();
    let last = leader.raft.log().last_index().0;
    leader.answer(3, matched(2, last));
    assert_eq!(leader.commit(), last);
}

#[test]
fn section_5_1_a_snapshot_that_is_taken_stays_with_the_log_behind_it() {
    // So large that its share is more than the least that stays.
    let state_mib = 2 * limits::LOG_STATE_SHARE * (LOG_TAIL_BYTES / (1024 * 1024)) as u64;
    let mut leader = leader_of_a_taking_follower(state_mib * 1024 * 1024);
    // 1. As long as the log behind it is no larger than the state.
    grow(&mut leader, state_mib - 2);
    assert_eq!(leader.raft.pinned_snapshot(leader.now), Some(snapshot_id((8, 1))));
    // 2. Another snapshot is taken all the same (somebody asked): the log stays.
    let last = leader.raft.log().last_index();
    leader.raft.snapshot_taken(snapshot_id((last.0, 2)), state_mib * 1024 * 1024);
    leader.raft.compact(leader.now, last, None);
    assert_eq!(leader.raft.log().first_index(), LogIndex(9));
    // 3. The follower has it: entries follow, and what it has not yet taken of them stays too.
    leader.hear(2, matched(2, 8));
    let mail = leader.flush();
    assert_eq!(appends(&mail, 2)[0].entries[0].index, LogIndex(9));
    leader.hear(2, matched(2, 20));
    assert_eq!(leader.raft.pinned_snapshot(leader.now), None);
    leader.wait(HEARTBEAT);
    leader.raft.compact(leader.now, last, None);
    assert_eq!(leader.raft.log().first_index(), LogIndex(21));
    // 4. It has all: a tail is enough, which is larger for a large state.
    leader.hear(2, matched(2, last.0));
    leader.wait(HEARTBEAT);
    leader.raft.compact(leader.now, last, None);
    let share = state_mib * 1024 * 1024 / limits::LOG_STATE_SHARE;
    assert!(leader.raft.log().bytes() as u64 <= share);
    assert!(leader.raft.log().bytes() as u64 > share - 2 * 1024 * 1024);
}

#[test]
fn section_5_1_a_snapshot_is_not_waited_for_beyond_the_bound_or_without_progress() {
    let state_mib = 2 * (limits::LOG_INSTALL_TAILS * LOG_TAIL_BYTES / (1024 * 1024)) as u64;
    let state_bytes = state_mib * 1024 * 1024;
    // 1. More was written than the state is large.
    let mut leader = leader_of_a_taking_follower(state_bytes);
    grow(&mut leader, state_mib + 5);
    assert_eq!(leader.raft.pinned_snapshot(leader.now), None);
    let last = leader.raft.log().last_index();
    leader.raft.snapshot_taken(snapshot_id((last.0, 2)), state_bytes);
    leader.raft.compact(leader.now, last, None);
    assert!(leader.raft.log().bytes() as u64 <= state_bytes, "bounded");
    assert!(leader.raft.log().first_index() > LogIndex(9));

    // 2. The follower answers, and takes nothing: it is waited for no more, and begins with the
    // newest as soon as there is another.
    let mut leader = leader_of_a_taking_follower(state_bytes);
    grow(&mut leader, 5);
    let (begun, beginning) = (leader.now, file(2 * limits::SNAPSHOT_WINDOW_BYTES));
    while leader.now.since(begun) < limits::INSTALL_PATIENCE {
        assert!(leader.raft.pinned_snapshot(leader.now).is_some());
        leader.wait(HEARTBEAT);
        let last = leader.raft.log().last_index().0;
        leader.hear(2, matched(2, 0));
        leader.hear(3, matched(2, last));
        leader.flush();
        leader.read_pieces(&beginning);
    }
    assert_eq!(leader.raft.pinned_snapshot(leader.now), None);
    let last = leader.raft.log().last_index();
    leader.raft.snapshot_taken(snapshot_id((last.0, 2)), state_bytes);
    leader.wait(HEARTBEAT);
    leader.flush();
    assert!(leader.reads.iter().any(|read| read.1 == snapshot_id((last.0, 2))));
}

#[test]
fn section_5_1_a_new_leader_begins_its_own_file() {
    let mut server = Start::member(1, &[1, 1]).start();
    server.answer(2, install(2, (8, 2), 0, 500));
    server.write_pieces();
    // 1. The same snapshot of another server: the same state in other bytes.
    let mail = server.answer(3, install(3, (8, 2), 500, 500));
    assert_eq!(install_outcomes(&mail), [InstallOutcome::Next { offset: 0 }]);
    server.answer(3, install(3, (8, 2), 0, 500));
    let offsets: Vec<u64> = server.pieces.iter().map(|piece| piece.offset).collect();
    assert_eq!(offsets, [0, 0]);
    // 2. Late mail of an older snapshot of the same leader.
    server.answer(3, install(3, (6, 2), 0, 500));
    assert_eq!(server.raft.receiving(), Some((snapshot_id((8, 2)), 500, 1000)));
    // 3. The deposed leader learns of the new term.
    let mail = server.answer(2, install(2, (8, 2), 500, 500));
    assert_eq!(install_outcomes(&mail), [InstallOutcome::Next { offset: 0 }]);
    assert_eq!(server.raft.leader(), Some(ServerId(3)));
}

#[test]
fn section_5_1_what_comes_beyond_the_window_is_dropped() {
    let chunk = limits::SNAPSHOT_CHUNK_BYTES as u64;
    let mut server = Start::member(1, &[1, 1]).start();
    for number in 0..100 {
        let request = InstallSnapshot {
            term: Term(2),
            snapshot: snapshot_id((8, 2)),
            offset: number * chunk,
            total: 1 << 40,
            cluster_time: Default::default(),
            bytes: Bytes::from(vec![0; chunk as usize]),
        };
        server.hear(2, Message::InstallSnapshot(request));
    }
    server.flush();
    let bytes: usize = server.pieces.iter().map(|piece| piece.bytes.len()).sum();
    assert!(bytes as u64 <= limits::SNAPSHOT_WINDOW_BYTES + chunk, "{bytes}");
}

#[test]
fn section_5_1_a_slow_transfer_keeps_elections_away() {
    let mut server = Start::member(1, &[1, 1]).start();
    for number in 0..10 {
        server.answer(2, install(2, (8, 2), number * 100, 100));
        server.wait(LEAST - Duration::from_millis(1));
    }
    assert_eq!((server.raft.role(), server.term()), (RoleName::Follower, 2));
    assert_eq!(server.raft.leader(), Some(ServerId(2)));
}

#[test]
fn section_5_1_a_candidate_that_lacks_what_is_committed_steps_down() {
    let mut server = Start::member(1, &[1, 1]).start();
    receive(&mut server, 2, (8, 2));
    server.peer_down(2);
    server.time_out();
    server.hear(3, pre_vote(server.term() + 1, true));
    assert_eq!(server.raft.role(), RoleName::Candidate);
    assert!(server.raft.install(server.now, &snapshot((8, 2), 3)));
    assert_eq!(server.raft.role(), RoleName::Follower);
    server.settle();
    server.hear(3, vote(server.term(), true));
    assert_eq!(server.raft.role(), RoleName::Follower, "the votes were for another log");
}

#[test]
fn section_5_1_nonsense_is_dropped() {
    let mut server = Start::member(1, &[1, 1]).start();
    let sound = InstallSnapshot {
        term: Term(2),
        snapshot: snapshot_id((8, 2)),
        offset: 0,
        total: 10,
        cluster_time: Default::default(),
        bytes: Bytes::from_static(b"0123456789"),
    };
    let zero = SnapshotId { index: LogIndex(0), term: Term(0) };
    for nonsense in [
        InstallSnapshot { snapshot: zero, ..sound.clone() },
        InstallSnapshot { snapshot: snapshot_id((8, 3)), ..sound.clone() },
        InstallSnapshot { total: 0, bytes: Bytes::new(), ..sound.clone() },
    ] {
        let mail = server.answer(2, Message::InstallSnapshot(nonsense));
        assert_eq!((mail.len(), server.pieces.len(), server.term()), (0, 0, 1));
    }
}
