//! Messages that are well formed and make no sense: numbers at the end of their range, answers to
//! questions that nobody asked, batches over the limit. A member sends them (a stranger's hello is
//! refused), and no node may panic, spin or lose what it has.
//!
//! What would break Raft itself if a member said it (votes and acknowledgements that it did not
//! give) is not among them: members are trusted to follow the protocol, not to count.

use std::time::Duration;

use bytes::Bytes;
use raftkv::limits;
use raftkv::node::Input;
use raftkv::proto::args::{Args, push_arg};
use raftkv::proto::batch::BatchBuilder;
use raftkv::proto::entry::{Entry, EntryKind};
use raftkv::proto::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, BatchId, Envelope, GatewayId,
    InstallOutcome, InstallSnapshot, InstallSnapshotResponse, Message, Packet, ReadId, RequestVote,
    Vote,
};
use raftkv::proto::reply_decoder::Value;
use raftkv::sim::Cluster;
use raftkv::types::{
    BatchSeq, Boot, ClusterId, ClusterTime, LogIndex, ReadRound, Room, ServerId, SnapshotId, Term,
};

/// The numbers that arithmetic goes wrong at.
const ABSURD: [u64; 4] = [0, 1, u64::MAX - 1, u64::MAX];

const SECOND: Duration = Duration::from_secs(1);

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn ok() -> Value {
    Value::Simple("OK".to_owned())
}

fn founded(seed: u64) -> (Cluster, ServerId) {
    let mut cluster = Cluster::new(3, seed);
    cluster.run_until(2 * SECOND, "the first leader", |c| c.leader().is_some());
    let leader = cluster.leader().expect("just seen");
    cluster.converge(2 * SECOND);
    (cluster, leader)
}

fn follower(cluster: &Cluster, leader: ServerId) -> ServerId {
    cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes")
}

/// Gives `to` a message in the name of `from`, whose envelope is in order.
fn forge(cluster: &mut Cluster, from: ServerId, to: ServerId, message: Message) {
    let ours = cluster.node(from).expect("alive").hello_to(to);
    let theirs = cluster.node(to).expect("alive").hello_to(from);
    let envelope = Envelope {
        cluster: ClusterId::from_name(&ours.cluster),
        from,
        from_incarnation: ours.sender_incarnation,
        to,
        to_incarnation: theirs.sender_incarnation,
    };
    cluster.give(to, Input::Receive { packet: Packet { envelope, message } });
}

fn term_of(cluster: &Cluster, id: ServerId) -> Term {
    cluster.node(id).expect("alive").status().current_term
}

fn appending(term: Term, prev: u64) -> AppendEntries {
    AppendEntries {
        term,
        prev_log_index: LogIndex(prev),
        prev_log_term: Term(prev),
        leader_commit: LogIndex(u64::MAX),
        read_round: ReadRound(u64::MAX),
        cluster_time: ClusterTime(u64::MAX),
        refuses_growth: None,
        entries: Vec::new(),
    }
}

#[test]
fn messages_of_absurd_numbers_change_nothing_and_stop_nobody() {
    let (mut cluster, leader) = founded(1);
    let follower = follower(&cluster, leader);
    assert_eq!(cluster.call(leader, "INCR n"), Value::Integer(1));
    let term = term_of(&cluster, leader);
    for a in ABSURD {
        for b in ABSURD {
            // 1. Answers to the leader, about entries that it doesn't have.
            let conflict = AppendOutcome::Conflict {
                rejected_index: LogIndex(a),
                hint_index: LogIndex(b),
                hint_term: Term(a),
            };
            let mut outcomes = vec![conflict];
            outcomes.extend((a > 1).then_some(AppendOutcome::Match { match_index: LogIndex(a) }));
            for outcome in outcomes {
                let response = AppendEntriesResponse { term, read_round: ReadRound(0), outcome };
                forge(&mut cluster, follower, leader, Message::AppendEntriesResponse(response));
            }
            // 2. Reads that nobody waits for.
            let id = ReadId { boot: Boot(a), number: b };
            for to in [leader, follower] {
                let from = if to == leader { follower } else { leader };
                forge(&mut cluster, from, to, Message::ReadIndex { id });
                let index = LogIndex(b);
                forge(&mut cluster, from, to, Message::ReadIndexResponse { id, index });
            }
            // 3. Entries behind a place that the follower doesn't have.
            let entry = Entry {
                index: LogIndex(a.saturating_add(1)),
                term: Term(b),
                time: ClusterTime(a),
                kind: EntryKind::Batch,
                payload: Bytes::from_static(b"no batch"),
            };
            let mut request = appending(term, a.max(1000));
            request.cluster_time = ClusterTime::ZERO;
            request.entries = vec![entry];
            forge(&mut cluster, leader, follower, Message::AppendEntries(request));
            // 4. Questions and answers of terms that are over.
            let question = RequestVote {
                term: Term(a.min(1)),
                pre_vote: b > 1,
                transfer: a > 1,
                bootstrap: b % 2 == 0,
                last_log_index: LogIndex(a),
                last_log_term: Term(b),
            };
            forge(&mut cluster, follower, leader, Message::RequestVote(question));
            let cluster_time = Some(ClusterTime(a));
            let vote = Vote { term: Term(1), pre_vote: b > 1, granted: true, cluster_time };
            forge(&mut cluster, follower, leader, Message::Vote(vote));
            let stale = Message::TimeoutNow { term: Term(a) };
            forge(&mut cluster, leader, follower, stale);
            // 5. Snapshots that are none, and answers about some that nobody sent.
            let snapshot = SnapshotId { index: LogIndex(a), term: Term(b) };
            let piece = InstallSnapshot {
                term,
                snapshot,
                offset: 0,
                total: a.max(11),
                cluster_time: ClusterTime::ZERO,
                bytes: Bytes::from_static(b"no snapshot"),
            };
            let beyond = InstallSnapshot { offset: a / 2, total: u64::MAX, ..piece.clone() };
            for piece in [piece, beyond] {
                forge(&mut cluster, leader, follower, Message::InstallSnapshot(piece));
            }
            for outcome in [InstallOutcome::Refused, InstallOutcome::Next { offset: b }] {
                let response = InstallSnapshotResponse { term, snapshot, asked: a, outcome };
                forge(&mut cluster, follower, leader, Message::InstallSnapshotResponse(response));
            }
            cluster.run_for(Duration::from_millis(20));
        }
    }
    cluster.run_for(SECOND);
    assert_eq!(cluster.call(follower, "INCR n"), Value::Integer(2));
    cluster.converge(2 * SECOND);
}

#[test]
fn the_last_of_all_terms_is_the_end_of_elections_and_not_of_processes() {
    let (mut cluster, leader) = founded(2);
    let follower = follower(&cluster, leader);
    // 1. A member asks for a vote in the last term that there is.
    let question = RequestVote {
        term: Term(u64::MAX),
        pre_vote: false,
        transfer: true,
        bootstrap: false,
        last_log_index: LogIndex(0),
        last_log_term: Term(0),
    };
    for to in cluster.ids().into_iter().filter(|id| *id != follower) {
        forge(&mut cluster, follower, to, Message::RequestVote(question));
    }
    cluster.run_for(SECOND);
    // 2. Whoever is told to campaign has no term left for it.
    let term = Term(u64::MAX);
    let mut request = appending(term, 0);
    request.leader_commit = LogIndex(0);
    for _ in 0..3 {
        for message in [Message::AppendEntries(request.clone()), Message::TimeoutNow { term }] {
            for to in cluster.ids() {
                let from = if to == leader { follower } else { leader };
                forge(&mut cluster, from, to, message.clone());
            }
            cluster.run_for(Duration::from_millis(10));
        }
    }
    cluster.run_for(SECOND);
    // 3. The end: nobody leads, and every node lives and says so.
    let Value::Error(text) = cluster.call(leader, "SET x 1") else { panic!("somebody leads") };
    assert!(text.starts_with("CLUSTERDOWN"), "{text}");
}

#[test]
fn term_zero_is_nobodys() {
    // A node that knows no term yet, and whose mail can only come from a member.
    let mut cluster = Cluster::new(3, 8);
    let (from, to) = (ServerId(2), ServerId(1));
    let linked = |c: &Cluster| c.node(to).expect("alive").raft().has_link(from);
    cluster.run_until(SECOND, "the members are linked", linked);
    let before = cluster.node(to).expect("alive").status();
    assert_eq!(before.current_term, Term::ZERO, "nobody has campaigned yet");
    for entry_terms in [vec![], vec![0], vec![0, 0]] {
        let mut request = appending(Term::ZERO, 0);
        let entry = |(position, term): (usize, &u64)| Entry {
            index: LogIndex(position as u64 + 1),
            term: Term(*term),
            time: ClusterTime(1),
            kind: EntryKind::Empty,
            payload: Bytes::new(),
        };
        request.entries = entry_terms.iter().enumerate().map(entry).collect();
        forge(&mut cluster, from, to, Message::AppendEntries(request));
    }
    cluster.step();
    let node = cluster.node(to).expect("alive");
    assert_eq!((node.status(), node.raft().refused_messages()), (before, 3));
}

#[test]
fn second_leader_of_a_term_is_refused_by_leader_and_follower() {
    let (mut cluster, leader) = founded(9);
    let liar = follower(&cluster, leader);
    let term = term_of(&cluster, leader);
    let others: Vec<ServerId> = cluster.ids().into_iter().filter(|id| *id != liar).collect();
    for &to in &others {
        let before = cluster.node(to).expect("alive").status();
        let last = before.last_log_index;
        let mut request = appending(term, last.0);
        request.prev_log_term = cluster.node(to).expect("alive").raft().log().last_term();
        request.entries = vec![Entry {
            index: last.next(),
            term,
            time: ClusterTime(1),
            kind: EntryKind::Empty,
            payload: Bytes::new(),
        }];
        forge(&mut cluster, liar, to, Message::AppendEntries(request));
        cluster.step();
        let node = cluster.node(to).expect("alive");
        assert_eq!((node.status(), node.raft().refused_messages()), (before, 1), "{to}");
    }
    assert_eq!(cluster.call(liar, "INCR n"), Value::Integer(1));
    cluster.converge(2 * SECOND);
}

#[test]
fn cluster_time_at_its_end_expires_keys_and_breaks_nothing() {
    let (mut cluster, leader) = founded(3);
    assert_eq!(cluster.call(leader, "SET plain 1"), ok());
    assert_eq!(cluster.call(leader, "SET mortal 1 EX 1000"), ok());
    cluster.converge(SECOND);
    // 1. The followers hear that it is the end of time, and one of them leads from there on.
    for to in cluster.ids().into_iter().filter(|id| *id != leader) {
        let mut request = appending(term_of(&cluster, leader), 0);
        request.leader_commit = LogIndex(0);
        forge(&mut cluster, leader, to, Message::AppendEntries(request));
    }
    cluster.run_for(Duration::from_millis(1));
    cluster.kill(leader);
    cluster.run_until(2 * SECOND, "another leads", |c| c.leader().is_some());
    let leader = cluster.leader().expect("just seen");
    // 2. Everything that tells a time still answers.
    assert_eq!(cluster.call(leader, "GET plain"), bulk("1"));
    for line in [
        "PTTL mortal",
        "TTL plain",
        "SET late 1 EX 10",
        "SET later 1 PXAT 9223372036854775807",
        "PTTL later",
        "EXPIRE plain 9223372036854775",
        "PEXPIRE plain 9223372036854775807",
        "EXPIRE plain -9223372036854775808",
        "EXPIRE plain -1",
        "PERSIST plain",
        "INFO",
        "CLIENT LIST",
    ] {
        cluster.call(leader, line);
    }
    cluster.run_for(SECOND);
    assert_eq!(cluster.call(leader, "INCR n"), Value::Integer(1));
}

#[test]
fn deadlines_at_the_end_of_time_make_no_node_spin() {
    let (mut cluster, leader) = founded(4);
    // 2^58 ms are a multiple of 2^64 ns: where nanoseconds wrap round, such a wait is none at all.
    for wait_ms in [i64::MAX / 2, 1 << 58, (1 << 58) + 50, (1 << 62) + 1] {
        let line = format!("SET k 1 PX {wait_ms}");
        assert_eq!(cluster.call(leader, &line), ok());
        cluster.run_for(Duration::from_millis(200));
        let index = cluster.node(leader).expect("alive").status().last_log_index;
        cluster.run_for(SECOND);
        let later = cluster.node(leader).expect("alive").status().last_log_index;
        assert_eq!(later, index, "nothing was due");
    }
    assert_eq!(cluster.call(leader, "GET k"), bulk("1"));
}

#[test]
fn expired_keys_wait_without_spinning_while_nothing_can_be_appended() {
    let (mut cluster, leader) = founded(5);
    assert_eq!(cluster.call(leader, "SET k 1 PX 500"), ok());
    for id in cluster.ids() {
        cluster.give(id, Input::LogRoom { room: Room::Exhausted });
    }
    cluster.run_for(2 * SECOND);
    for id in cluster.ids() {
        cluster.give(id, Input::LogRoom { room: Room::Ample });
    }
    cluster.run_for(SECOND);
    assert_eq!(cluster.node(leader).expect("alive").machine().store().len(), 0);
}

/// A batch of one command whose payload has `bytes` bytes.
fn batch(cluster: &Cluster, from: ServerId, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::default();
    let fixed = builder.bytes() + 10 + 3 * 4 + "set".len() + "k".len();
    let mut encoded = Vec::new();
    for word in [&b"set"[..], b"k", &vec![b'v'; bytes - fixed]] {
        push_arg(&mut encoded, word);
    }
    builder.push(1, &Args::new(3, &encoded));
    let node = cluster.node(from).expect("alive");
    let member = node.raft().membership().member(from).expect("a founder");
    let (incarnation, admitted) = (member.incarnation, member.admitted);
    let gateway = GatewayId { server: from, incarnation, admitted };
    let payload = builder.finish(BatchId { gateway, epoch: Boot(1000), seq: BatchSeq(1) });
    assert_eq!(payload.len(), bytes);
    payload
}

#[test]
fn forwarded_batch_over_the_limit_is_refused_and_wedges_nothing() {
    let (mut cluster, leader) = founded(6);
    let follower = follower(&cluster, leader);
    let before = cluster.node(leader).expect("alive").status().last_log_index;
    // A payload that fits a frame on its own, but not in an AppendEntries any more.
    for bytes in [limits::BATCH_BYTES + 1, limits::FRAME_BYTES - 41] {
        let batch = batch(&cluster, follower, bytes);
        forge(&mut cluster, follower, leader, Message::Forward { batch });
        cluster.run_for(Duration::from_millis(10));
    }
    assert_eq!(cluster.node(leader).expect("alive").status().last_log_index, before);

    let largest = batch(&cluster, follower, limits::BATCH_BYTES);
    forge(&mut cluster, follower, leader, Message::Forward { batch: largest });
    cluster.run_for(Duration::from_millis(10));
    assert_eq!(cluster.node(leader).expect("alive").status().last_log_index, before.next());
    assert_eq!(cluster.call(leader, "STRLEN k"), cluster.call(follower, "STRLEN k"));
}

#[test]
fn forwarded_batch_in_another_gateways_name_is_refused() {
    let (mut cluster, leader) = founded(7);
    let follower = follower(&cluster, leader);
    let before = cluster.node(leader).expect("alive").status().last_log_index;
    // The leader's own gateway never sent this: applying it would find no client to answer.
    let batch = batch(&cluster, leader, 1000);
    forge(&mut cluster, follower, leader, Message::Forward { batch });
    cluster.run_for(Duration::from_millis(50));
    assert_eq!(cluster.node(leader).expect("alive").status().last_log_index, before);
}
