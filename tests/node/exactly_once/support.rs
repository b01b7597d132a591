//! Node 1 of three, and the peers and clients that the test plays.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use raftkv::config::{
    ClientConfig, ClusterConfig, Config, LimitsConfig, ListenConfig, LogConfig, NodeConfig,
    RaftConfig, Readmit, StorageConfig,
};
use raftkv::node::{ClientInfo, Effect, Input, Node, Requests};
use raftkv::proto::args::push_arg;
use raftkv::proto::entry::{Entry, EntryKind, HardState, Recovered};
use raftkv::proto::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Envelope, GatewayId, GrowthRefusal,
    InstallSnapshot, Message, Packet, ReadId, Vote,
};
use raftkv::proto::snapshot::{SnapshotHeader, SnapshotRecord};
use raftkv::proto::snapshot_encoder::SnapshotEncoder;
use raftkv::raft::membership::{Member, Membership};
use raftkv::types::{
    BatchSeq, Boot, ClientId, ClusterId, ClusterTime, CommandSet, Identity, Incarnation, Instant,
    Lineage, LogIndex, Nonce, ReadRound, Revision, ServerId, SnapshotId, Term, WalSeq, WallClock,
};

pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CLUSTER: &str = "test";

/// Node 1, and everything around it.
pub struct World {
    pub node: Node,
    pub now: Instant,
    /// Whether writes become durable by themselves.
    pub disk_works: bool,
    /// The log as the leader that the test plays has it.
    pub log: Vec<Entry>,
    pub refuses_growth: Option<GrowthRefusal>,
    /// The newest round that this node has begun as a leader.
    pub round_begun: ReadRound,
    written: WalSeq,
    sent: Vec<(u64, Message)>,
    replies: Vec<(u32, String)>,
    closed: Vec<u32>,
    /// The snapshot that is being received, or was.
    snapshot: Vec<u8>,
    /// What the disk says of it in the next turn.
    completions: Vec<Input>,
}

fn identity(server: u64, boot: u64) -> Identity {
    Identity {
        cluster: ClusterId::from_name(CLUSTER),
        server: ServerId(server),
        incarnation: Incarnation(server * 11),
        boot: Boot(boot),
        nonce: Nonce(7),
    }
}

pub fn config() -> Config {
    let node = |id: u64| NodeConfig {
        id: ServerId(id),
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: None,
    };
    Config {
        id: ServerId(1),
        data_dir: "unused".into(),
        cluster: ClusterConfig {
            name: CLUSTER.to_owned(),
            nodes: (1..=3).map(node).collect(),
            readmit: Readmit::Manual,
        },
        join: Vec::new(),
        listen: ListenConfig::default(),
        raft: RaftConfig::default(),
        client: ClientConfig { request_timeout: REQUEST_TIMEOUT, ..ClientConfig::default() },
        storage: StorageConfig::default(),
        limits: LimitsConfig::default(),
        log: LogConfig::default(),
    }
}

fn founding() -> Entry {
    let member = |id: u64| Member {
        id: ServerId(id),
        incarnation: Incarnation(id * 11),
        admitted: LogIndex(1),
        voter: true,
        outgoing_voter: false,
        promote: false,
        replaces: None,
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: String::new(),
    };
    Entry {
        index: LogIndex(1),
        term: Term(1),
        time: ClusterTime(1_000),
        kind: EntryKind::Membership,
        payload: Membership::new((1..=3).map(member).collect()).encode(),
    }
}

impl World {
    /// A node of a founded cluster, in its `boot`, that knows no leader yet.
    pub fn start(boot: u64) -> World {
        World::start_with(&config(), boot)
    }

    fn start_with(config: &Config, boot: u64) -> World {
        let now = Instant::ZERO.after(Duration::from_secs(1));
        let recovered = Recovered {
            identity: identity(1, boot),
            lineage: Lineage::ZERO,
            hard_state: HardState { current_term: Term(1), voted_for: None },
            snapshot: None,
            entries: vec![founding()],
            known_peers: Vec::new(),
            recovering: None,
        };
        let mut world = World {
            node: Node::recover(config, recovered, 1, now),
            now,
            disk_works: true,
            log: vec![founding()],
            refuses_growth: None,
            round_begun: ReadRound::ZERO,
            written: WalSeq::ZERO,
            sent: Vec::new(),
            replies: Vec::new(),
            closed: Vec::new(),
            snapshot: Vec::new(),
            completions: Vec::new(),
        };
        for peer in [2, 3] {
            world.peer_up(peer);
        }
        for client in 1..=3 {
            world.arrive(client);
        }
        world
    }

    /// The same, following server 2 in term 2, with everything committed applied.
    pub fn following() -> World {
        let mut world = World::start(1);
        world.append_from(2, 2, 1);
        world.take_sent();
        world
    }

    /// The same, leading in term 2, its first entry committed.
    pub fn leading() -> World {
        World::start(1).elected()
    }

    /// The same, where leases are on.
    pub fn leading_with_leases() -> World {
        let mut config = config();
        config.raft.lease = true;
        World::leading_with(&config)
    }

    pub fn leading_with(config: &Config) -> World {
        World::start_with(config, 1).elected()
    }

    fn elected(self) -> World {
        let mut world = self;
        world.become_leader();
        world.wait(Duration::ZERO);
        world.confirm();
        world.take_sent();
        world
    }

    pub fn become_leader(&mut self) {
        let left = self.node.raft().deadline().since(self.now);
        self.wait(left);
        let term = self.node.raft().current_term().next();
        for pre_vote in [true, false] {
            let vote = Vote { term, pre_vote, granted: true, cluster_time: None };
            self.receive(3, Message::Vote(vote));
        }
        assert!(self.node.raft().is_leader());
    }

    /// Server 3 acknowledges all that this leader has, and the newest round.
    pub fn confirm(&mut self) {
        self.confirm_as(3);
    }

    /// Another server does.
    pub fn confirm_as(&mut self, server: u64) {
        let raft = self.node.raft();
        let response = AppendEntriesResponse {
            term: raft.current_term(),
            read_round: self.round_begun,
            outcome: AppendOutcome::Match { match_index: raft.log().last_index() },
        };
        self.receive(server, Message::AppendEntriesResponse(response));
    }

    /// What was handed out to the disk is durable by now.
    pub fn durable(&mut self) {
        self.input(Input::Persisted { through: self.written });
        self.turn();
    }

    /// The disk has what it was handed out until now, but hears of more before it says so.
    pub fn durable_behind(&mut self, more: impl FnOnce(&mut World)) {
        let through = self.written;
        more(self);
        self.input(Input::Persisted { through });
        self.turn();
    }

    /// Gives an input without ending the turn.
    pub fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.node.handle(self.now, input, &mut effects);
        self.carry_out(effects);
    }

    /// Ends the turn, and those that the disk begins, until nothing happens any more.
    pub fn turn(&mut self) {
        loop {
            let before = self.written;
            for completion in std::mem::take(&mut self.completions) {
                self.input(completion);
            }
            self.input(Input::EndOfTurn);
            if !self.completions.is_empty() {
                continue;
            }
            if self.written == before || !self.disk_works {
                break;
            }
            let through = self.written;
            self.input(Input::Persisted { through });
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist { seq, .. } => self.written = seq,
                Effect::Send { packet } => {
                    if let Message::AppendEntries(request) = &packet.message {
                        self.round_begun = request.read_round;
                    }
                    self.sent.push((packet.envelope.to.0, packet.message));
                }
                Effect::Push { .. } => panic!("no client of these tests listens"),
                Effect::Close { client } => self.closed.push(client.slot),
                Effect::Reply { client, protocol, reply } => {
                    let mut bytes = Vec::new();
                    reply.encode(protocol, &mut bytes);
                    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                    self.replies.push((client.slot, text.replace("\r\n", " ")));
                }
                Effect::WriteSnapshot { kind, id, offset, bytes } => {
                    assert_eq!(offset, self.snapshot.len() as u64);
                    self.snapshot.extend_from_slice(&bytes);
                    let through = self.snapshot.len() as u64;
                    self.completions.push(Input::SnapshotWritten { kind, id, through });
                }
                Effect::FinishSnapshot { kind, id, .. } => {
                    self.completions.push(Input::SnapshotDurable { kind, id });
                }
                Effect::ReadSnapshot { id, offset, length, reader } => {
                    let at = offset as usize;
                    let bytes = Bytes::copy_from_slice(&self.snapshot[at..at + length]);
                    let bytes = Some(bytes);
                    self.completions.push(Input::SnapshotRead { id, offset, bytes, reader });
                }
                Effect::AbandonSnapshot { .. } | Effect::CompactLog { .. } => {}
                Effect::Outdated { .. } => panic!("known-commands: there is one version"),
                Effect::Diverged(divergence) => panic!("state-machine-safety: {divergence:?}"),
            }
        }
    }

    pub fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        let wall = WallClock(1_000 + self.now.0 / 1_000_000);
        self.input(Input::Tick { wall });
        self.turn();
    }

    pub fn peer_up(&mut self, peer: u64) {
        let incarnation = Incarnation(peer * 11);
        let peer = ServerId(peer);
        self.input(Input::PeerUp { peer, incarnation });
        self.turn();
    }

    pub fn peer_down(&mut self, peer: u64) {
        let peer = ServerId(peer);
        self.input(Input::PeerDown { peer });
        self.turn();
    }

    pub fn arrive(&mut self, slot: u32) {
        let address: SocketAddr = "10.1.1.1:5000".parse().expect("an address");
        let info = ClientInfo { id: u64::from(slot), address, local_address: address };
        let client = client(slot);
        self.input(Input::ClientArrived { client, info });
    }

    pub fn leave(&mut self, slot: u32) {
        let client = client(slot);
        self.input(Input::ClientGone { client });
    }

    /// A client sends commands, separated by `;`, in one turn. One that begins with `!` stands for
    /// bytes that make no sense, and the error that answers them.
    pub fn request(&mut self, slot: u32, commands: &str) {
        self.request_without_end(slot, commands);
        self.turn();
    }

    pub fn request_without_end(&mut self, slot: u32, commands: &str) {
        let mut batch = Requests::default();
        for command in commands.split(';') {
            if let Some(error) = command.strip_prefix('!') {
                batch.push_malformed(client(slot), error);
                continue;
            }
            let words: Vec<&str> = command.split_whitespace().collect();
            for word in &words {
                push_arg(batch.arena(), word.as_bytes());
            }
            batch.push_command(client(slot), words.len() as u32);
        }
        self.input(Input::Requests { batch });
    }

    /// A packet from a peer, and the end of the turn.
    pub fn receive(&mut self, from: u64, message: Message) {
        self.receive_packet(self.envelope(from), message);
    }

    pub fn receive_packet(&mut self, envelope: Envelope, message: Message) {
        let packet = Packet { envelope, message };
        self.input(Input::Receive { packet });
        self.turn();
    }

    pub fn envelope(&self, from: u64) -> Envelope {
        Envelope {
            cluster: ClusterId::from_name(CLUSTER),
            from: ServerId(from),
            from_incarnation: Incarnation(from * 11),
            to: ServerId(1),
            to_incarnation: Incarnation(11),
        }
    }

    /// The leader that the test plays appends a batch to its log.
    pub fn append(&mut self, term: u64, payload: &Bytes) {
        let index = LogIndex(self.log.len() as u64 + 1);
        self.log.push(Entry {
            index,
            term: Term(term),
            time: ClusterTime(1_000),
            kind: EntryKind::Batch,
            payload: payload.clone(),
        });
    }

    /// Server `leader` sends its whole log in `term`, of which `commit` entries are committed.
    pub fn append_from(&mut self, leader: u64, term: u64, commit: u64) {
        let request = AppendEntries {
            term: Term(term),
            prev_log_index: LogIndex::ZERO,
            prev_log_term: Term::ZERO,
            leader_commit: LogIndex(commit),
            read_round: ReadRound::ZERO,
            cluster_time: ClusterTime(1_000),
            refuses_growth: self.refuses_growth,
            entries: self.log.clone(),
        };
        self.receive(leader, Message::AppendEntries(request));
    }

    /// Server 2 sends a snapshot that ends with entry `index` of term 2 and holds one key, `a` = 7.
    /// Of this node's batches it includes those up to `batches`.
    pub fn install(&mut self, index: u64, batches: u64) {
        let gateway =
            GatewayId { server: ServerId(1), incarnation: Incarnation(11), admitted: LogIndex(1) };
        let snapshot = SnapshotId { index: LogIndex(index), term: Term(2) };
        let header = SnapshotHeader {
            cluster: ClusterId::from_name(CLUSTER),
            id: snapshot,
            membership_index: LogIndex(1),
            membership: founding().payload,
            clock: ClusterTime(1_000),
            revision: Revision(1),
            digest: 0,
            used_bytes: 0,
            command_set: CommandSet::FIRST,
            gateways: vec![(gateway, Boot(1), BatchSeq(batches))],
        };
        let mut file = Vec::new();
        let mut encoder = SnapshotEncoder::new(&header, &mut file);
        let (key, value): (&[u8], &[u8]) = (b"a", b"7");
        let (revision, deadline, is_early) = (Revision(1), None, false);
        let record = SnapshotRecord { key, value, revision, deadline, is_early };
        encoder.record(record, &mut file);
        encoder.finish(&mut file);
        let request = InstallSnapshot {
            term: Term(2),
            snapshot,
            offset: 0,
            total: file.len() as u64,
            cluster_time: ClusterTime(1_000),
            bytes: Bytes::from(file),
        };
        self.snapshot.clear();
        self.receive(2, Message::InstallSnapshot(request));
        // What it brought is the leader's log from now on, behind its end.
        self.turn();
        assert_eq!(self.node.machine().last_applied(), LogIndex(index));
    }

    /// An entry of term 2 that holds a batch, without its index and payload.
    pub fn entry_of_term_2(&self) -> Entry {
        Entry {
            index: LogIndex::ZERO,
            term: Term(2),
            time: ClusterTime(1_000),
            kind: EntryKind::Batch,
            payload: Bytes::new(),
        }
    }

    /// Server 2 sends entries that follow on entry `prev` of term 2, all of them committed.
    pub fn append_behind(&mut self, prev: u64, entries: Vec<Entry>) {
        let request = AppendEntries {
            term: Term(2),
            prev_log_index: LogIndex(prev),
            prev_log_term: Term(2),
            leader_commit: entries.last().expect("there are some").index,
            read_round: ReadRound::ZERO,
            cluster_time: ClusterTime(1_000),
            refuses_growth: None,
            entries,
        };
        self.receive(2, Message::AppendEntries(request));
    }

    /// Server 2 appends these batches in term 2, and they are committed.
    pub fn commit(&mut self, batches: &[Bytes]) {
        for batch in batches {
            self.append(2, batch);
        }
        self.append_from(2, 2, self.log.len() as u64);
    }

    fn take_sent(&mut self) -> Vec<(u64, Message)> {
        std::mem::take(&mut self.sent)
    }

    /// The batches that were forwarded to `to` since the last look; other mail is thrown away.
    pub fn forwarded(&mut self, to: u64) -> Vec<Bytes> {
        let batch = |(receiver, message): (u64, Message)| match message {
            Message::Forward { batch } if receiver == to => Some(batch),
            _ => None,
        };
        self.take_sent().into_iter().filter_map(batch).collect()
    }

    /// The read indexes that were asked for since the last look.
    pub fn asked(&mut self) -> Vec<(u64, ReadId)> {
        let question = |(to, message)| match message {
            Message::ReadIndex { id } => Some((to, id)),
            _ => None,
        };
        self.take_sent().into_iter().filter_map(question).collect()
    }

    pub fn answer_read(&mut self, id: ReadId, index: u64) {
        let index = LogIndex(index);
        self.receive(2, Message::ReadIndexResponse { id, index });
    }

    /// The read indexes that were answered since the last look.
    pub fn read_answers(&mut self) -> Vec<(u64, ReadId, u64)> {
        let answer = |(to, message)| match message {
            Message::ReadIndexResponse { id, index } => Some((to, id, index.0)),
            _ => None,
        };
        self.take_sent().into_iter().filter_map(answer).collect()
    }

    /// Who was told to campaign since the last look, and in which term.
    pub fn told_to_campaign(&mut self) -> Vec<(u64, Term)> {
        let told = |(to, message)| match message {
            Message::TimeoutNow { term } => Some((to, term)),
            _ => None,
        };
        self.take_sent().into_iter().filter_map(told).collect()
    }

    /// This node's own log.
    pub fn whole_log(&self) -> Vec<Entry> {
        let log = self.node.raft().log();
        let entry = |index| log.entry(LogIndex(index)).cloned();
        (1..=log.last_index().0).filter_map(entry).collect()
    }

    /// A peer answers a heartbeat, with nothing new.
    pub fn hear_from(&mut self, peer: u64) {
        let response = AppendEntriesResponse {
            term: self.node.raft().current_term(),
            read_round: ReadRound::ZERO,
            outcome: AppendOutcome::Match { match_index: LogIndex::ZERO },
        };
        self.receive(peer, Message::AppendEntriesResponse(response));
    }

    /// The replies to one client since the last look; those to others are kept.
    pub fn replies(&mut self, slot: u32) -> Vec<String> {
        let (own, others) =
            std::mem::take(&mut self.replies).into_iter().partition(|(client, _)| *client == slot);
        self.replies = others;
        let own: Vec<(u32, String)> = own;
        own.into_iter().map(|(_, reply)| reply).collect()
    }

    pub fn closed(&self) -> &[u32] {
        &self.closed
    }

    /// The payloads of the batches in this node's own log.
    pub fn logged(&self) -> Vec<Bytes> {
        let log = self.node.raft().log();
        let entry = |index| log.entry(LogIndex(index));
        (1..=log.last_index().0)
            .filter_map(entry)
            .filter(|entry| entry.kind == EntryKind::Batch)
            .map(|entry| entry.payload.clone())
            .collect()
    }

    pub fn value(&self, key: &str) -> Option<String> {
        let item = self.node.machine().store().get(key.as_bytes())?;
        Some(String::from_utf8_lossy(item.value).into_owned())
    }
}

fn client(slot: u32) -> ClientId {
    ClientId { slot, generation: 1 }
}
