//! Lineages: what lies before a restore is never heard behind it, and blank servers are let in.
//!
//! Two nodes and their hellos, by hand; the same with real processes is in `cluster/backup.rs`.

use std::time::Duration;

use raftkv::config::{Config, Overrides, SyncMode};
use raftkv::node::{Input, Node};
use raftkv::proto::entry::{Entry, EntryKind, HardState, Recovered};
use raftkv::proto::hello::Refusal;
use raftkv::proto::message::{Envelope, Message, Packet, RequestVote};
use raftkv::raft::membership::{Member, Membership};
use raftkv::storage::{Options, Storage, StorageError};
use raftkv::types::{
    Boot, ClusterId, ClusterTime, Identity, Incarnation, Instant, Lineage, LogIndex, Nonce,
    ServerId, Term,
};

const NOW: Instant = Instant(5_000_000_000);
const OLD: Lineage = Lineage::ZERO;
const NEW: Lineage = Lineage(0x5eed);

fn incarnation(id: u64) -> Incarnation {
    Incarnation(10 + id)
}

fn member(id: u64, is_met: bool) -> Member {
    Member {
        id: ServerId(id),
        incarnation: if is_met { incarnation(id) } else { Incarnation::ZERO },
        admitted: LogIndex(u64::from(is_met)),
        voter: is_met,
        outgoing_voter: false,
        promote: !is_met,
        replaces: None,
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: String::new(),
    }
}

/// A server whose log has one entry, with these members; or none.
fn node(id: u64, lineage: Lineage, members: Vec<Member>) -> Node {
    let text = format!(
        "id = {id}\n[[cluster.node]]\nid = {id}\npeer = \"10.0.0.{id}:7201\"\n\
         client = \"10.0.0.{id}:7101\"\n"
    );
    let join = vec!["10.0.0.9:7201".to_owned()];
    let overrides = Overrides { join, ..Overrides::default() };
    let config = Config::parse(&text, &overrides).unwrap();
    let entry = Entry {
        index: LogIndex(1),
        term: Term(1),
        time: ClusterTime(1),
        kind: EntryKind::Membership,
        payload: Membership::new(members.clone()).encode(),
    };
    let entries = if members.is_empty() { Vec::new() } else { vec![entry] };
    let current_term = if members.is_empty() { Term::ZERO } else { Term(1) };
    let recovered = Recovered {
        identity: Identity {
            cluster: ClusterId::from_name(&config.cluster.name).of_lineage(lineage),
            server: ServerId(id),
            incarnation: incarnation(id),
            boot: Boot(1),
            nonce: Nonce(id),
        },
        lineage,
        hard_state: HardState { current_term, voted_for: None },
        snapshot: None,
        entries,
        known_peers: Vec::new(),
        recovering: None,
    };
    Node::recover(&config, recovered, 1, NOW)
}

#[test]
fn a_blank_server_takes_over_the_lineage_of_who_admits_it() {
    let mut member_one = node(1, NEW, vec![member(1, true), member(2, false)]);
    let mut blank = node(2, OLD, Vec::new());
    // 1. Whoever says hello first, the member takes it as it is.
    let verdict = member_one.judge_hello(NOW, &blank.hello_to(ServerId(1))).unwrap();
    assert_eq!(verdict.adopt, None);
    // 2. The blank one hears which lineage it is let into, and is of it from then on.
    let verdict = blank.judge_hello(NOW, &member_one.hello_to(ServerId(2))).unwrap();
    assert_eq!(verdict.adopt, Some(NEW));
    let recorded = verdict.record.unwrap();
    assert_eq!(recorded.cluster, ClusterId::from_name("main").of_lineage(NEW));
    assert_eq!(blank.hello_to(ServerId(1)).lineage, NEW);
    assert_eq!(blank.take_notices().len(), 1, "it says so");
    // 3. That was news once.
    let verdict = blank.judge_hello(NOW, &member_one.hello_to(ServerId(2))).unwrap();
    assert_eq!(verdict.adopt, None);
}

#[test]
fn a_blank_server_keeps_its_lineage_where_it_is_not_let_in() {
    let member_one = node(1, NEW, vec![member(1, true), member(2, true)]);
    let mut blank = node(2, OLD, Vec::new());
    let mut hello = member_one.hello_to(ServerId(2));
    hello.receiver_incarnation = Incarnation(99);
    assert_eq!(blank.judge_hello(NOW, &hello).unwrap_err().code, Refusal::ReceiverIncarnation);
    assert_eq!(blank.hello_to(ServerId(1)).lineage, OLD);
}

#[test]
fn data_of_two_lineages_never_meets() {
    let members = || vec![member(1, true), member(2, true)];
    let mut new = node(1, NEW, members());
    let mut old = node(2, OLD, members());
    // 1. Neither accepts the other, and both say who belongs to the cluster before.
    let told_by_new = new.judge_hello(NOW, &old.hello_to(ServerId(1))).unwrap_err();
    let told_by_old = old.judge_hello(NOW, &new.hello_to(ServerId(2))).unwrap_err();
    for refused in [&told_by_new, &told_by_old] {
        assert_eq!(refused.code, Refusal::Lineage);
        assert!(refused.text.contains("server 2 belongs to the cluster before it"), "{refused:?}");
        assert!(refused.text.len() <= raftkv::limits::REFUSAL_BYTES, "{}", refused.text.len());
    }
    // 2. Once each, however often they try.
    new.judge_hello(NOW, &old.hello_to(ServerId(1))).unwrap_err();
    new.hello_refused(NOW, Some(ServerId(2)), &told_by_old);
    assert_eq!(new.take_notices().len(), 1);
    old.hello_refused(NOW, Some(ServerId(1)), &told_by_new);
    assert_eq!(old.take_notices().len(), 1);
    // 3. A message of the old one that gets through all the same is nobody's.
    let envelope = Envelope {
        cluster: ClusterId::from_name("main"),
        from: ServerId(2),
        from_incarnation: incarnation(2),
        to: ServerId(1),
        to_incarnation: incarnation(1),
    };
    let request = |cluster| Packet {
        envelope: Envelope { cluster, ..envelope },
        message: Message::RequestVote(RequestVote {
            term: Term(9),
            pre_vote: false,
            transfer: false,
            bootstrap: false,
            last_log_index: LogIndex(9),
            last_log_term: Term(9),
        }),
    };
    let later = NOW.after(Duration::from_secs(1));
    let packet = request(envelope.cluster);
    new.handle(later, Input::Receive { packet }, &mut Vec::new());
    assert_eq!(new.status().current_term, Term(1));
    let packet = request(envelope.cluster.of_lineage(NEW));
    new.handle(later, Input::Receive { packet }, &mut Vec::new());
    assert_eq!(new.status().current_term, Term(9), "one of its own lineage is heard");
}

#[test]
fn a_directory_keeps_the_lineage_that_it_took_over() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        dir: directory.path().join("data"),
        cluster: "main".to_owned(),
        server: ServerId(2),
        has_others: true,
        sync: SyncMode::Thread,
        segment_bytes: raftkv::limits::SEGMENT_BYTES_MIN,
    };
    let named = ClusterId::from_name("main");
    let (mut storage, recovered) = Storage::open(&options).unwrap();
    assert_eq!((recovered.lineage, recovered.identity.cluster), (Lineage::ZERO, named));
    storage.adopt_lineage(NEW).unwrap();
    storage.record_peer(Identity { cluster: named.of_lineage(NEW), ..recovered.identity }).unwrap();
    storage.close().unwrap();
    let (storage, again) = Storage::open(&options).unwrap();
    assert_eq!((again.lineage, again.identity.cluster), (NEW, named.of_lineage(NEW)));
    assert_eq!(again.identity.incarnation, recovered.identity.incarnation);
    assert_eq!(again.known_peers[0].cluster, named.of_lineage(NEW));
    storage.close().unwrap();
    let other = Options { cluster: "other".to_owned(), ..options };
    assert!(matches!(Storage::open(&other), Err(StorageError::Foreign { .. })));
}
