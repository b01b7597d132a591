//! One real `Node` with what a driver keeps beside it, and what must hold of its effects.
//!
//! Called by `world`. Everything that leaves the node passes through [`Server::carry_out`], which
//! compares each promise with the disk as it is at that moment.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use raftkv::config::Config;
use raftkv::limits;
use raftkv::node::{ClientInfo, Effect, Input, Node, Requests, Role, Status};
use raftkv::proto::batch::Batch;
use raftkv::proto::entry::{EntryKind, Recovered};
use raftkv::proto::hello::Hello;
use raftkv::proto::message::{AppendOutcome, BatchId, Message, Packet};
use raftkv::proto::peer_message;
use raftkv::proto::reply::Reply;
use raftkv::proto::resp::{Decoded, RequestDecoder};
use raftkv::types::{
    BatchSeq, Boot, ClientId, ClusterId, Identity, Incarnation, Instant, Lineage, LogIndex, Nonce,
    ServerId, SnapshotKind, Term, WalSeq, WallClock,
};

use super::commands;
use super::disk::Disk;
use super::reader::Reader;

/// Turns that may be wanted without any time passing. A node that wants more spins.
const TURNS_AT_ONCE: usize = 64;
/// Batches that are remembered, to be offered again.
const BATCHES: usize = 32;
const CLIENTS: usize = 4;

/// A connection of a client.
struct Client {
    id: ClientId,
    commands: RequestDecoder,
    sent: u64,
    replied: u64,
    /// The node wants it closed.
    is_closing: bool,
    /// It sent what is no command: nothing more is read from it.
    has_ended: bool,
}

pub struct Server {
    pub id: ServerId,
    pub node: Node,
    pub disk: Disk,
    /// Peers whose hello was accepted, and whose connection stands.
    pub links: BTreeSet<ServerId>,
    /// Batches that this node made or was given: what an honest leader may append.
    pub batches: Vec<Bytes>,
    pub is_stopping: bool,
    config: Config,
    clients: Vec<Option<Client>>,
    generation: u32,
    last_seq: WalSeq,
    /// Promises that left in this turn: votes, and read indices.
    left: (usize, usize),
    /// The numbers of its own batches that were sent or appended.
    numbered: BTreeSet<BatchSeq>,
    before: Status,
    /// Whom it promised its vote, in all its lives.
    votes: BTreeMap<Term, ServerId>,
    effects: Vec<Effect>,
    /// What the disk did with snapshots, reported in the next turn.
    reports: Vec<Input>,
    /// Whether there is room for them.
    pub has_room: bool,
    /// Snapshots from leaders that it has installed.
    pub installs: u64,
    /// What it sent since that was last taken.
    pub outbox: Vec<Packet>,
    /// A digest of all that it did.
    pub trace: u32,
    /// Commands that it answered.
    pub replies: u64,
}

pub fn incarnation(id: ServerId) -> Incarnation {
    Incarnation(1000 + id.0)
}

impl Server {
    pub fn new(id: ServerId, config: &Config, now: Instant) -> Server {
        let mut config = config.clone();
        config.id = id;
        let mut disk = Disk::default();
        let node = start(id, &config, &mut disk, now);
        let before = node.status();
        Server {
            id,
            node,
            disk,
            links: BTreeSet::new(),
            batches: Vec::new(),
            is_stopping: false,
            config,
            clients: (0..CLIENTS).map(|_| None).collect(),
            generation: 0,
            last_seq: WalSeq::ZERO,
            left: (0, 0),
            numbered: BTreeSet::new(),
            before,
            votes: BTreeMap::new(),
            effects: Vec::new(),
            reports: Vec::new(),
            has_room: true,
            installs: 0,
            outbox: Vec::new(),
            trace: 0,
            replies: 0,
        }
    }

    /// The process ends, with or without having been asked to, and starts again.
    pub fn restart(&mut self, now: Instant, finished_writes: usize) {
        let was_recovering = self.node.recovering_reason().is_some();
        self.disk.crash(finished_writes);
        self.node = start(self.id, &self.config, &mut self.disk, now);
        self.links.clear();
        self.reports.clear();
        self.clients.iter_mut().for_each(|client| *client = None);
        self.last_seq = WalSeq::ZERO;
        self.is_stopping = false;
        self.before = self.node.status();
        let raft = self.node.raft();
        assert_eq!(raft.current_term(), self.disk.hard_state.current_term);
        assert_eq!(raft.voted_for(), self.disk.hard_state.voted_for);
        if let (Some((term, candidate)), false) = (self.votes.last_key_value(), was_recovering) {
            let keeps = raft.current_term() > *term || raft.voted_for() == Some(*candidate);
            assert!(keeps, "hard-state: a vote was forgotten");
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        self.node.handle(now, input, &mut self.effects);
        self.check_state();
        self.carry_out();
    }

    pub fn end_turn(&mut self, now: Instant) {
        self.left = (0, 0);
        for report in std::mem::take(&mut self.reports) {
            let is_received = SnapshotKind::Received;
            self.installs += u64::from(matches!(&report,
                Input::SnapshotDurable { kind, .. } if *kind == is_received));
            self.handle(now, report);
        }
        self.handle(now, Input::EndOfTurn);
        let (votes, reads) = self.left;
        assert!(votes <= limits::WITHHELD_MESSAGES, "bounded: withheld messages");
        assert!(reads <= limits::LEADER_READ_REQUESTS, "bounded: read requests");
    }

    /// Gives it the ticks that it wants, until it wants none for now.
    pub fn tick(&mut self, now: Instant, wall: WallClock) {
        let mut turns = 0;
        while self.node.deadline(now) <= now {
            assert!(turns < TURNS_AT_ONCE, "bounded: it spins: {:?}", self.node.status());
            turns += 1;
            self.handle(now, Input::Tick { wall });
            self.end_turn(now);
        }
    }

    /// The disk finishes its oldest writes.
    pub fn persist(&mut self, now: Instant, count: usize) {
        if let Some(through) = self.disk.finish(count) {
            self.handle(now, Input::Persisted { through });
        }
    }

    pub fn receive(&mut self, now: Instant, packet: Packet) {
        if self.links.contains(&packet.envelope.from) {
            self.handle(now, Input::Receive { packet });
        }
    }

    /// A peer says hello; the connection stands if that is accepted.
    pub fn hear_hello(&mut self, now: Instant, hello: &Hello) -> bool {
        let verdict = match self.node.judge_hello(now, hello) {
            Ok(verdict) => verdict,
            Err(_) => {
                self.check_state();
                return false;
            }
        };
        self.disk.known_peers.extend(verdict.record.map(|peer| (peer.server, peer)));
        self.unlink(now, verdict.peer);
        self.links.insert(verdict.peer);
        let (peer, incarnation) = (verdict.peer, verdict.incarnation);
        self.handle(now, Input::PeerUp { peer, incarnation });
        true
    }

    pub fn unlink(&mut self, now: Instant, peer: ServerId) {
        if self.links.remove(&peer) {
            self.handle(now, Input::PeerDown { peer });
        }
    }

    /// A client connects, in the place of the one that was there.
    pub fn connect(&mut self, now: Instant, slot: usize) {
        self.disconnect(now, slot);
        self.generation += 1;
        let client = ClientId { slot: slot as u32, generation: self.generation };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 50_000));
        let info = ClientInfo { id: self.generation.into(), address, local_address: address };
        self.clients[slot] = Some(Client {
            id: client,
            commands: RequestDecoder::new(),
            sent: 0,
            replied: 0,
            is_closing: false,
            has_ended: false,
        });
        self.handle(now, Input::ClientArrived { client, info });
    }

    pub fn disconnect(&mut self, now: Instant, slot: usize) {
        if let Some(client) = self.clients[slot].take() {
            self.handle(now, Input::ClientGone { client: client.id });
        }
    }

    /// Some clients send something, all of it in one turn. While the node takes no requests, the
    /// sockets are not read.
    pub fn send_commands(&mut self, now: Instant, reader: &mut Reader<'_>) {
        if !self.node.accepts_requests() {
            return;
        }
        let mut requests = Requests::default();
        for _ in 0..=reader.below(3) {
            let slot = reader.below(CLIENTS);
            if self.clients[slot].is_none() {
                self.connect(now, slot);
            }
            let mut bytes = Vec::new();
            (0..=reader.below(4)).for_each(|_| commands::write(reader, &mut bytes));
            let client = self.clients[slot].as_mut().expect("it connected");
            client.read(&bytes, &mut requests);
        }
        if !requests.is_empty() {
            self.handle(now, Input::Requests { batch: requests });
        }
    }

    /// One client sends a write in each turn, for as long as its socket is read; a leader gathers
    /// what is small, so to a leader they are large.
    pub fn flood_commands(&mut self, now: Instant) {
        self.connect(now, 0);
        self.numbered.clear();
        let mut turns = 0;
        let value = vec![b'v'; limits::GATHER_BYTES];
        let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nn\r\n${}\r\n", value.len());
        let large = [head.as_bytes(), &value, b"\r\n"].concat();
        // Where growth is refused, so is each of them at once, and nothing waits.
        while self.node.accepts_requests() && self.node.raft().growth_refusal().is_none() {
            turns += 1;
            assert!(turns <= 2 * limits::GATEWAY_WINDOW_BATCHES + 1, "bounded: waiting batches");
            let mut requests = Requests::default();
            let leads = self.node.raft().is_leader();
            let client = self.clients[0].as_mut().expect("it connected");
            client.read(if leads { &large } else { b"INCR n\r\n" }, &mut requests);
            self.handle(now, Input::Requests { batch: requests });
            self.end_turn(now);
        }
        let numbered = self.numbered.len();
        assert!(numbered <= limits::GATEWAY_WINDOW_BATCHES, "bounded: {numbered} batches");
    }

    /// Whether every command that was sent on a standing connection has its reply.
    pub fn has_answered_all(&self) -> bool {
        let mut clients = self.clients.iter().flatten();
        clients.all(|client| client.is_closing || client.replied == client.sent)
    }

    pub fn wants_to_exit(&self) -> bool {
        self.is_stopping && self.node.may_exit()
    }

    fn check_state(&mut self) {
        let status = self.node.status();
        let before = &self.before;
        assert!(status.current_term >= before.current_term, "hard-state: a term fell");
        assert!(status.commit_index >= before.commit_index, "monotone: commit fell");
        assert!(status.last_applied >= before.last_applied, "monotone: applied fell");
        assert!(status.last_applied <= status.commit_index, "monotone: applied <= commit");
        assert!(status.commit_index <= status.last_log_index, "monotone: commit <= last");
        let raft = self.node.raft();
        assert!(raft.durable_index() <= status.last_log_index, "durable: behind the log's end");
        assert!(raft.log().last_term() <= status.current_term, "a term came before its entries");
        let leads = matches!(status.role, Role::Leader);
        assert!(!leads || status.leader == Some(self.id), "a leader follows itself");
        self.before = status;
    }

    fn carry_out(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Persist { seq, write } => {
                    assert_eq!(seq, self.last_seq.next(), "a write's number is never reused");
                    assert!(!write.is_empty(), "nothing is written for nothing");
                    self.last_seq = seq;
                    let batches = write.entries.iter().filter(|e| e.kind == EntryKind::Batch);
                    batches.for_each(|entry| self.remember(&entry.payload));
                    self.disk.take(seq, write);
                }
                Effect::Send { packet } => {
                    self.check_promise(&packet);
                    self.encode(&packet);
                    self.outbox.push(packet);
                }
                Effect::Reply { client, reply, .. } => self.answer(client, &reply),
                Effect::Push { client, bytes } => {
                    let client = self.client(client).expect("it is there");
                    assert!(!client.is_closing && !bytes.is_empty());
                }
                Effect::Close { client } => {
                    let client = self.client(client).expect("it is there");
                    assert!(!client.is_closing, "a client is closed once");
                    client.is_closing = true;
                }
                Effect::Diverged(told) => panic!("state-machine-safety: {told:?}"),
                effect => self.carry_out_snapshot(effect),
            }
        }
    }

    fn carry_out_snapshot(&mut self, effect: Effect) {
        let report = match effect {
            Effect::WriteSnapshot { kind, id, .. } if !self.has_room => {
                self.disk.abandon_snapshot(kind);
                Input::SnapshotFull { kind, id }
            }
            Effect::WriteSnapshot { kind, id, offset, bytes } => {
                let written = self.disk.write_snapshot(kind, id, offset, &bytes);
                let Some(through) = written else { return };
                Input::SnapshotWritten { kind, id, through }
            }
            Effect::FinishSnapshot { kind, id, length } => {
                if !self.disk.finish_snapshot(kind, id, length) {
                    return;
                }
                Input::SnapshotDurable { kind, id }
            }
            Effect::AbandonSnapshot { kind } => return self.disk.abandon_snapshot(kind),
            Effect::CompactLog { through } => return self.disk.compact(through),
            Effect::ReadSnapshot { id, offset, length, reader } => {
                let bytes = self.disk.read_snapshot(id, offset, length);
                Input::SnapshotRead { id, offset, bytes, reader }
            }
            other => panic!("not an effect on snapshots: {other:?}"),
        };
        self.reports.push(report);
    }

    /// Whether it has something to hear of its snapshots.
    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// A message leaves: what it promises is on the disk by now.
    fn check_promise(&mut self, packet: &Packet) {
        let state = self.disk.hard_state;
        let to = packet.envelope.to;
        assert_eq!(packet.envelope.from, self.id);
        assert_ne!(to, self.id, "the node never sends to itself");
        let takes_part = !matches!(
            packet.message,
            Message::Forward { .. } | Message::ReadIndex { .. } | Message::ReadIndexResponse { .. }
        );
        let recovers = self.node.recovering_reason().is_some();
        assert!(!recovers || !takes_part, "a node that lost its disk takes part: {packet:?}");
        let own_vote = (state.current_term, state.voted_for);
        match &packet.message {
            Message::RequestVote(request) if !request.pre_vote => {
                assert_eq!(own_vote, (request.term, Some(self.id)), "durable-before-ack: campaign");
                self.vote(request.term, self.id);
            }
            Message::Vote(vote) if vote.granted && !vote.pre_vote => {
                assert_eq!(own_vote, (vote.term, Some(to)), "durable-before-ack: vote");
                self.vote(vote.term, to);
                self.left.0 += 1;
            }
            Message::ReadIndexResponse { .. } => self.left.1 += 1,
            Message::Vote(vote) if !vote.pre_vote => {
                self.left.0 += 1;
                assert!(state.current_term >= vote.term, "durable-before-ack: a vote's term");
            }
            Message::AppendEntries(request) => {
                assert_eq!(own_vote, (request.term, Some(self.id)), "durable-before-ack: lead");
                let bytes: usize = request.entries.iter().map(|one| one.payload.len()).sum();
                let count = request.entries.len();
                assert!(count <= limits::APPEND_ENTRIES, "bounded: entries of one message");
                assert!(count <= 1 || bytes <= limits::APPEND_BYTES, "bounded: a message's bytes");
                assert!(request.leader_commit <= self.before.last_log_index);
            }
            Message::AppendEntriesResponse(response) => {
                assert!(state.current_term >= response.term, "durable-before-ack: a term");
                if let AppendOutcome::Match { match_index } = response.outcome
                    && match_index > LogIndex::ZERO
                    && !self.disk.covers(match_index)
                {
                    let kept = self.disk.term_at(match_index);
                    assert!(kept.is_some(), "durable-before-ack: {match_index} is not on disk");
                    // What was applied long ago has left the memory; what is there is the same.
                    let log = self.node.raft().log();
                    let own = log.term_at(match_index);
                    let is_kept = match_index >= log.base().last.index;
                    assert!(
                        kept == own || !is_kept,
                        "durable-before-ack: {match_index} is of {kept:?} on disk, not of {own:?}"
                    );
                }
            }
            Message::Forward { batch } => {
                assert!(batch.len() <= limits::BATCH_BYTES, "bounded: a batch's bytes");
                self.remember(batch);
            }
            _ => {}
        }
    }

    fn vote(&mut self, term: Term, candidate: ServerId) {
        let voted = *self.votes.entry(term).or_insert(candidate);
        assert_eq!(voted, candidate, "hard-state: two votes in {term}");
    }

    /// What is sent fits a frame, and is what the receiver decodes.
    fn encode(&mut self, packet: &Packet) {
        let mut encoded = Vec::new();
        peer_message::encode(packet, &mut encoded);
        assert!(encoded.len() <= limits::FRAME_BYTES, "bounded: a frame");
        self.note(&encoded);
        let decoded = peer_message::decode(&Bytes::from(encoded));
        assert!(decoded.as_ref() == Ok(packet), "decoding undoes encoding");
    }

    fn answer(&mut self, id: ClientId, reply: &Reply) {
        let mut encoded = Vec::new();
        reply.encode(raftkv::proto::reply::Protocol::Resp2, &mut encoded);
        self.note(&encoded);
        self.replies += 1;
        let client = self.client(id).expect("nobody answers a client that is gone");
        assert!(!client.is_closing, "nothing follows on the close");
        client.replied += 1;
        assert!(client.replied <= client.sent, "exactly-once: one reply to a command");
    }

    /// A batch that an honest leader may append, or append again.
    fn remember(&mut self, payload: &Bytes) {
        let own = Batch::decode(payload).map(|batch| batch.id);
        let is_own = |id: &BatchId| id.gateway.server == self.id && id.epoch == self.disk.boot;
        self.numbered.extend(own.filter(is_own).map(|id| id.seq));
        if !self.batches.contains(payload) {
            if self.batches.len() == BATCHES {
                self.batches.remove(0);
            }
            self.batches.push(payload.clone());
        }
    }

    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients[id.slot as usize].as_mut().filter(|client| client.id == id)
    }

    fn note(&mut self, bytes: &[u8]) {
        self.trace = self.trace.rotate_left(5) ^ bytes.len() as u32;
        for byte in bytes {
            self.trace = self.trace.wrapping_mul(0x0100_0193) ^ u32::from(*byte);
        }
    }
}

impl Client {
    /// What a driver does with a client's bytes.
    fn read(&mut self, mut bytes: &[u8], requests: &mut Requests) {
        while !self.has_ended {
            let (consumed, decoded) = self.commands.decode(bytes, requests.arena());
            bytes = &bytes[consumed..];
            match decoded {
                Decoded::Incomplete => return,
                Decoded::Command { count } => requests.push_command(self.id, count),
                Decoded::Refused(refusal) => {
                    requests.push_refused(self.id, &error_text(&refusal.reply()));
                }
                Decoded::Closed(error) => {
                    let text = error.reply().map_or(String::new(), |reply| error_text(&reply));
                    requests.push_malformed(self.id, &text);
                    self.has_ended = true;
                    if text.is_empty() {
                        return;
                    }
                }
            }
            self.sent += 1;
        }
    }
}

fn error_text(reply: &Reply) -> String {
    let Reply::Error(text) = reply else { panic!("decoders refuse with errors") };
    text.to_string()
}

fn start(id: ServerId, config: &Config, disk: &mut Disk, now: Instant) -> Node {
    disk.boot = Boot(disk.boot.0 + 1);
    let snapshot = disk.recover();
    let identity = Identity {
        cluster: ClusterId::from_name(&config.cluster.name),
        server: id,
        incarnation: incarnation(id),
        boot: disk.boot,
        nonce: Nonce(disk.boot.0 * 7919 + id.0),
    };
    let recovered = Recovered {
        identity,
        lineage: Lineage::ZERO,
        hard_state: disk.hard_state,
        snapshot,
        entries: disk.entries.clone(),
        known_peers: disk.known_peers.values().copied().collect(),
        recovering: None,
    };
    Node::recover(config, recovered, disk.boot.0 ^ id.0 << 32, now)
}
