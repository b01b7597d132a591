//! Replays the committed corpus of the fuzz target `peer_message`. With `UPDATE_CORPUS=1` it writes
//! the seeds anew first; inputs that the fuzzer found are left alone.

use bytes::Bytes;

use raftkv::proto::args::{Args, push_arg};
use raftkv::proto::batch::{Batch, BatchBuilder, Standing};
use raftkv::proto::entry::{Entry, EntryKind};
use raftkv::proto::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, BatchId, Envelope, GatewayId,
    GrowthRefusal, InstallOutcome, InstallSnapshot, InstallSnapshotResponse, Message, Packet,
    ReadId, RequestVote, Vote,
};
use raftkv::proto::peer_message;
use raftkv::raft::membership::{Member, Membership};
use raftkv::types::{
    BatchSeq, Boot, ClusterId, ClusterTime, Incarnation, LogIndex, ReadRound, ServerId, SnapshotId,
    Term,
};

#[path = "../../fuzz/checks/peer_message.rs"]
mod checks;

#[test]
fn peer_message_corpus_holds() {
    crate::corpus::replay("peer_message", &seeds(), 0, checks::check);
}

/// One byte that says how to cut, and a message.
fn seed(cut: u8, message: Message) -> Vec<u8> {
    let envelope = Envelope {
        cluster: ClusterId::from_name("main"),
        from: ServerId(2),
        from_incarnation: Incarnation(3),
        to: ServerId(1),
        to_incarnation: Incarnation(4),
    };
    let mut out = vec![cut];
    peer_message::encode(&Packet { envelope, message }, &mut out);
    out
}

fn batch() -> Bytes {
    let mut builder = BatchBuilder::default();
    for words in [&[&b"set"[..], b"k", b"v"][..], &[b"incr", b"n"]] {
        let mut encoded = Vec::new();
        words.iter().for_each(|word| push_arg(&mut encoded, word));
        builder.push(7, &Args::new(words.len() as u32, &encoded));
    }
    let gateway =
        GatewayId { server: ServerId(2), incarnation: Incarnation(3), admitted: LogIndex(1) };
    builder.finish(BatchId { gateway, epoch: Boot(1), seq: BatchSeq(9) })
}

fn membership() -> Bytes {
    let member = |id: u64| Member {
        id: ServerId(id),
        incarnation: Incarnation(id + 1),
        admitted: LogIndex(1),
        voter: true,
        outgoing_voter: false,
        promote: false,
        replaces: None,
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: String::new(),
    };
    Membership::new((1..=3).map(member).collect()).encode()
}

fn append(kinds: &[(EntryKind, Bytes)], numbers: u64) -> AppendEntries {
    let entry = |(position, (kind, payload)): (usize, &(EntryKind, Bytes))| Entry {
        index: LogIndex(numbers.saturating_add(position as u64 + 1)),
        term: Term(numbers),
        time: ClusterTime(numbers),
        kind: *kind,
        payload: payload.clone(),
    };
    AppendEntries {
        term: Term(numbers),
        prev_log_index: LogIndex(numbers),
        prev_log_term: Term(numbers),
        leader_commit: LogIndex(numbers),
        read_round: ReadRound(numbers),
        cluster_time: ClusterTime(numbers),
        refuses_growth: Some(GrowthRefusal::Disk),
        entries: kinds.iter().enumerate().map(entry).collect(),
    }
}

fn seeds() -> crate::corpus::Seeds {
    let entries = [
        (EntryKind::Membership, membership()),
        (EntryKind::Empty, Bytes::new()),
        (EntryKind::Batch, batch()),
    ];
    let question = RequestVote {
        term: Term(7),
        pre_vote: true,
        transfer: false,
        bootstrap: true,
        last_log_index: LogIndex(8),
        last_log_term: Term(6),
    };
    let vote = Vote { term: Term(7), pre_vote: false, granted: true, cluster_time: None };
    let response =
        |outcome| AppendEntriesResponse { term: Term(7), read_round: ReadRound(3), outcome };
    let conflict = AppendOutcome::Conflict {
        rejected_index: LogIndex(12),
        hint_index: LogIndex(4),
        hint_term: Term(2),
    };
    let id = ReadId { boot: Boot(1), number: 2 };
    let emptied = Batch::decode(&batch()).expect("just built").emptied(Standing::RefusedDisk);
    let mut cut_short = seed(5, Message::AppendEntries(append(&entries, 3)));
    cut_short.truncate(cut_short.len() - 1);
    let mut trailing = seed(5, Message::TimeoutNow { term: Term(7) });
    trailing.push(0);
    // Found by the fuzzer: a time beside the flag that says that there is none.
    let mut vote_with_hidden_time = seed(2, Message::Vote(vote));
    *vote_with_hidden_time.last_mut().unwrap() = 1;
    let mut unknown = seed(5, Message::TimeoutNow { term: Term(7) });
    unknown[41] = 99;
    let mut count_huge = seed(5, Message::AppendEntries(append(&[], 3)));
    let at = count_huge.len() - 4;
    count_huge[at..].fill(0xff);
    let mut count_wrong = batch().to_vec();
    count_wrong[41] = 3;
    let snapshot = SnapshotId { index: LogIndex(12), term: Term(6) };
    let install = InstallSnapshot {
        term: Term(7),
        snapshot,
        offset: 100,
        total: 107,
        cluster_time: ClusterTime(1_700_000_000_000),
        bytes: Bytes::from_static(b"a piece"),
    };
    let mut install_changed = seed(5, Message::InstallSnapshot(install.clone()));
    *install_changed.last_mut().unwrap() ^= 1;
    let asking = InstallSnapshot { offset: u64::MAX, total: u64::MAX, ..install.clone() };
    let asking = InstallSnapshot { bytes: Bytes::new(), ..asking };
    let installed =
        |outcome| InstallSnapshotResponse { term: Term(7), snapshot, asked: 100, outcome };
    let next = InstallOutcome::Next { offset: 107 };
    let matched = AppendOutcome::Match { match_index: LogIndex(12) };
    vec![
        ("request-vote", seed(1, Message::RequestVote(question))),
        ("vote", seed(2, Message::Vote(vote))),
        ("append-entries", seed(3, Message::AppendEntries(append(&entries, 3)))),
        (
            "append-entries-huge-numbers",
            seed(7, Message::AppendEntries(append(&entries, u64::MAX))),
        ),
        ("append-entries-none", seed(64, Message::AppendEntries(append(&[], 0)))),
        ("append-response-match", seed(5, Message::AppendEntriesResponse(response(matched)))),
        ("append-response-conflict", seed(5, Message::AppendEntriesResponse(response(conflict)))),
        ("timeout-now", seed(5, Message::TimeoutNow { term: Term(u64::MAX) })),
        ("forward", seed(9, Message::Forward { batch: batch() })),
        ("forward-emptied", seed(9, Message::Forward { batch: emptied })),
        ("forward-miscounted", seed(9, Message::Forward { batch: Bytes::from(count_wrong) })),
        ("forward-nothing", seed(9, Message::Forward { batch: Bytes::new() })),
        ("read-index", seed(5, Message::ReadIndex { id })),
        (
            "read-index-response",
            seed(5, Message::ReadIndexResponse { id, index: LogIndex(u64::MAX) }),
        ),
        ("checkpoint", seed(5, Message::Checkpoint { index: LogIndex(9), digest: u64::MAX })),
        ("install-snapshot", seed(5, Message::InstallSnapshot(install))),
        ("install-snapshot-asks", seed(5, Message::InstallSnapshot(asking))),
        ("install-snapshot-changed", install_changed),
        ("install-response-next", seed(5, Message::InstallSnapshotResponse(installed(next)))),
        (
            "install-response-refused",
            seed(5, Message::InstallSnapshotResponse(installed(InstallOutcome::Refused))),
        ),
        ("vote-with-hidden-time", vote_with_hidden_time),
        ("cut-short", cut_short),
        ("trailing", trailing),
        ("unknown-kind", unknown),
        ("count-huge", count_huge),
    ]
}
