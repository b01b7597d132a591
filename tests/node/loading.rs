//! A node that loads a snapshot: what it takes meanwhile is bounded, in memory and by the quota; and
//! what it would not be able to load it doesn't take in the first place.
//!
//! One real node; the disk, the clock and the leader are played. Design page 3, §3.

use std::time::Duration;

use bytes::Bytes;
use raftkv::config::{Config, Overrides};
use raftkv::limits;
use raftkv::node::{Effect, Input, Node};
use raftkv::proto::entry::{Entry, EntryKind, HardState, Recovered};
use raftkv::proto::message::{
    AppendEntries, AppendOutcome, Envelope, GrowthRefusal, InstallOutcome, InstallSnapshot,
    Message, Packet,
};
use raftkv::proto::snapshot::{SnapshotHeader, SnapshotRecord};
use raftkv::proto::snapshot_encoder::SnapshotEncoder;
use raftkv::raft::membership::{Member, Membership};
use raftkv::types::{
    Boot, ClusterId, ClusterTime, CommandSet, Identity, Incarnation, Instant, LogIndex, Nonce,
    ReadRound, Revision, ServerId, SnapshotId, Term, WallClock,
};

const CLUSTER: ClusterId = ClusterId(7);
const LAST: SnapshotId = SnapshotId { index: LogIndex(10), term: Term(1) };
const MIB: usize = 1024 * 1024;

/// A node that starts from a snapshot and whose disk reads nothing before it is told to.
struct Loading {
    node: Node,
    now: Instant,
    file: Vec<u8>,
    read: Option<(u64, usize)>,
    written: Option<Input>,
    sent: Vec<Message>,
    /// Snapshots from a leader that it gave up.
    abandoned: u32,
}

fn incarnation(id: u64) -> Incarnation {
    Incarnation(id * 11)
}

fn membership(members: u64) -> Membership {
    let member = |id: u64| Member {
        id: ServerId(id),
        incarnation: incarnation(id),
        admitted: LogIndex(1),
        voter: true,
        outgoing_voter: false,
        promote: false,
        replaces: None,
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: String::new(),
    };
    Membership::new((1..=members).map(member).collect())
}

/// A snapshot's header, and its file with these keys.
fn snapshot(
    id: SnapshotId,
    members: u64,
    used_bytes: u64,
    keys: &[&[u8]],
) -> (SnapshotHeader, Vec<u8>) {
    let header = SnapshotHeader {
        cluster: CLUSTER,
        id,
        membership_index: LogIndex(1),
        membership: membership(members).encode(),
        clock: ClusterTime(5),
        revision: Revision(1),
        digest: 0,
        used_bytes,
        command_set: CommandSet::FIRST,
        gateways: Vec::new(),
    };
    let mut file = Vec::new();
    let mut encoder = SnapshotEncoder::new(&header, &mut file);
    for key in keys {
        let (value, revision, deadline, is_early) = (&b"7"[..], Revision(1), None, false);
        let record = SnapshotRecord { key, value, revision, deadline, is_early };
        encoder.record(record, &mut file);
    }
    encoder.finish(&mut file);
    (header, file)
}

fn start(members: u64, used_bytes: u64, max_memory: u64) -> Loading {
    let (header, file) = snapshot(LAST, members, used_bytes, &[b"a"]);
    let recovered = Recovered {
        identity: Identity {
            cluster: CLUSTER,
            server: ServerId(1),
            incarnation: incarnation(1),
            boot: Boot(2),
            nonce: Nonce(3),
        },
        hard_state: HardState { current_term: Term(1), voted_for: None },
        snapshot: Some((header, file.len() as u64)),
        entries: Vec::new(),
        known_peers: Vec::new(),
        recovering: None,
        lineage: raftkv::types::Lineage::ZERO,
    };
    let mut config = Config::single(&Overrides::default()).expect("the defaults are sound");
    config.limits.max_memory = max_memory;
    let now = Instant(1_000_000_000);
    let node = Node::recover(&config, recovered, 1, now);
    Loading { node, now, file, read: None, written: None, sent: Vec::new(), abandoned: 0 }
}

impl Loading {
    fn handle(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.node.handle(self.now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Persist { seq, .. } => {
                    self.written = Some(Input::Persisted { through: seq });
                }
                Effect::Send { packet } => self.sent.push(packet.message),
                Effect::ReadSnapshot { offset, length, .. } => self.read = Some((offset, length)),
                Effect::AbandonSnapshot { .. } => self.abandoned += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Server 2 says something.
    fn receive(&mut self, message: Message) {
        let envelope = Envelope {
            cluster: CLUSTER,
            from: ServerId(2),
            from_incarnation: incarnation(2),
            to: ServerId(1),
            to_incarnation: incarnation(1),
        };
        self.handle(Input::Receive { packet: Packet { envelope, message } });
        self.turn();
    }

    /// A turn, behind which the disk has what it was given.
    fn turn(&mut self) {
        self.now = self.now.after(Duration::from_millis(10));
        self.handle(Input::Tick { wall: WallClock(1_700_000_000_000) });
        self.handle(Input::EndOfTurn);
        if let Some(written) = self.written.take() {
            self.handle(written);
            self.handle(Input::EndOfTurn);
        }
    }

    /// The disk answers what was asked of it.
    fn load(&mut self) {
        while let Some((offset, length)) = self.read.take() {
            let bytes = &self.file[offset as usize..offset as usize + length];
            let bytes = Some(Bytes::copy_from_slice(bytes));
            let reader = raftkv::node::SnapshotReader::Load;
            self.handle(Input::SnapshotRead { id: LAST, offset, bytes, reader });
            self.turn();
        }
        assert_eq!(self.node.status().loading_percent, None);
    }

    /// Server 2 leads, and appends an entry of a MiB behind what this server has said it has.
    fn append(&mut self, index: u64) {
        let prev_log_index = LogIndex(index - 1);
        let term = if index == LAST.index.0 + 1 { LAST.term } else { Term(2) };
        let entry = Entry {
            index: LogIndex(index),
            term: Term(2),
            time: ClusterTime(6),
            kind: EntryKind::Batch,
            payload: Bytes::from(vec![0; MIB]),
        };
        let request = AppendEntries {
            term: Term(2),
            prev_log_index,
            prev_log_term: term,
            leader_commit: LAST.index,
            read_round: ReadRound(index),
            cluster_time: ClusterTime(6),
            refuses_growth: None,
            entries: vec![entry],
        };
        self.receive(Message::AppendEntries(request));
    }

    /// The newest entry that it has acknowledged.
    fn acknowledged(&self) -> u64 {
        let matches = self.sent.iter().filter_map(|message| match message {
            Message::AppendEntriesResponse(response) => match response.outcome {
                AppendOutcome::Match { match_index } => Some(match_index.0),
                AppendOutcome::Conflict { .. } => None,
            },
            _ => None,
        });
        matches.max().unwrap_or(0)
    }
}

#[test]
fn a_leader_that_loads_knows_what_memory_its_state_will_take() {
    for (max_memory, refusal) in [(4_000, Some(GrowthRefusal::Memory)), (1 << 20, None)] {
        let mut loading = start(1, 5_000, max_memory);
        while !loading.node.raft().is_leader() {
            loading.turn();
        }
        loading.turn();
        assert_eq!(loading.node.status().loading_percent, Some(0), "the disk has read nothing");
        assert_eq!(loading.node.raft().growth_refusal(), refusal);
        // What there is, once it is there, counts.
        loading.load();
        loading.turn();
        assert_eq!(loading.node.raft().growth_refusal(), None, "it was little");
    }
}

#[test]
fn a_follower_that_loads_takes_no_more_of_the_log_than_fits() {
    let mut loading = start(3, 100, 0);
    loading.handle(Input::PeerUp { peer: ServerId(2), incarnation: incarnation(2) });
    // 1. The leader sends more than it may hold; whatever it acknowledges, it has.
    let first = LAST.index.0 + 1;
    let most = (limits::LOADING_LOG_BYTES / MIB) as u64;
    for index in first..first + 2 * most {
        loading.append(index);
        let last = loading.node.status().last_log_index.0;
        assert!(loading.acknowledged() <= last);
    }
    let raft = loading.node.raft();
    assert!(raft.log().bytes() <= limits::LOADING_LOG_BYTES + 2 * MIB, "{}", raft.log().bytes());
    assert!(raft.log().bytes() >= limits::LOADING_LOG_BYTES);
    assert_eq!(raft.leader(), Some(ServerId(2)), "it heard the leader all the while");
    // 2. It has loaded: it goes on where it stopped, and has lost nothing.
    let stopped = loading.acknowledged();
    loading.load();
    loading.turn();
    loading.append(stopped + 1);
    assert_eq!(loading.acknowledged(), stopped + 1);
}

#[test]
fn a_follower_refuses_a_snapshot_with_a_key_twice_or_out_of_order() {
    let id = SnapshotId { index: LogIndex(20), term: Term(2) };
    for keys in [&[&b"a"[..], b"b", b"b"], &[&b"a"[..], b"c", b"b"]] {
        let mut loading = start(3, 100, 0);
        loading.handle(Input::PeerUp { peer: ServerId(2), incarnation: incarnation(2) });
        loading.turn();
        loading.load();
        let (_, file) = snapshot(id, 3, 100, keys);
        loading.receive(Message::InstallSnapshot(InstallSnapshot {
            term: Term(2),
            snapshot: id,
            offset: 0,
            total: file.len() as u64,
            cluster_time: ClusterTime(6),
            bytes: Bytes::from(file),
        }));
        // Nothing of it was written or replaced, and the leader is told.
        assert_eq!(loading.abandoned, 1);
        assert_eq!(loading.node.status().snapshot.map(|(id, _)| id), Some(LAST));
        let is_refusal = |message: &Message| match message {
            Message::InstallSnapshotResponse(answer) => answer.outcome == InstallOutcome::Refused,
            _ => false,
        };
        assert_eq!(loading.sent.iter().filter(|message| is_refusal(message)).count(), 1);
    }
}
