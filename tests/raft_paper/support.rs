//! One server under test: its clock, its disk and its mail, and short names for messages.

use std::time::Duration;

use bytes::Bytes;
use raftkv::config::RaftConfig;
use raftkv::proto::entry::{Entry, EntryKind, HardState, LogWrite};
use raftkv::proto::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, InstallOutcome, InstallSnapshot,
    InstallSnapshotResponse, Message, RequestVote, Vote,
};
use raftkv::raft::membership::{Member, Membership};
use raftkv::raft::{Action, Founder, Piece, Raft, RoleName, Setup, Snapshot};
use raftkv::types::{
    ClusterTime, Incarnation, Instant, LogIndex, ReadRound, ServerId, SnapshotId, Term, WalSeq,
    WallClock,
};

/// The default election timeout, and a heartbeat.
pub const LEAST: Duration = Duration::from_millis(150);
pub const MOST: Duration = Duration::from_millis(300);
pub const HEARTBEAT: Duration = Duration::from_millis(50);

/// What stays of the log in front of a snapshot's end.
pub const LOG_TAIL_BYTES: usize = 16 * 1024 * 1024;

/// A server's mail: to whom, and what.
pub type Mail = Vec<(u64, Message)>;

/// One server, and what stands around it.
pub struct Server {
    pub raft: Raft,
    pub now: Instant,
    /// Every write it has handed out.
    pub writes: Vec<(WalSeq, LogWrite)>,
    /// Pieces of the snapshot that it receives.
    pub pieces: Vec<Piece>,
    /// How often it has given up one that it received.
    pub abandoned: u32,
    /// Pieces of its own snapshot that it wants to read: for whom, which, where and how long.
    pub reads: Vec<(u64, SnapshotId, u64, usize)>,
    /// Its wall clock.
    pub wall: WallClock,
}

/// How a server starts.
pub struct Start {
    id: u64,
    members: u64,
    founded: bool,
    terms: Vec<u64>,
    hard_state: HardState,
    snapshot: Option<Snapshot>,
    lease: bool,
}

impl Start {
    /// A member of a founded cluster of three whose log holds entries of `terms`; the first one is
    /// the membership.
    pub fn member(id: u64, terms: &[u64]) -> Start {
        let hard_state =
            HardState { current_term: Term(terms.last().copied().unwrap_or(0)), voted_for: None };
        Start {
            id,
            members: 3,
            founded: true,
            terms: terms.to_vec(),
            hard_state,
            snapshot: None,
            lease: false,
        }
    }

    /// The same, but its log begins behind a snapshot that ends with entry `last` = (index, term).
    pub fn behind(id: u64, last: (u64, u64), terms: &[u64]) -> Start {
        let start = Start::member(id, terms);
        let term = start.hard_state.current_term.0.max(last.1);
        Start { snapshot: Some(snapshot(last, 3)), ..start }.term(term)
    }

    /// A server with nothing, listed with two others.
    pub fn founder(id: u64) -> Start {
        Start { founded: false, ..Start::member(id, &[]) }
    }

    /// Its snapshot's file is so long.
    pub fn with_bytes(mut self, bytes: u64) -> Start {
        self.snapshot.as_mut().expect("it has one").bytes = bytes;
        self
    }

    pub fn of(mut self, members: u64) -> Start {
        self.members = members;
        self
    }

    pub fn term(mut self, term: u64) -> Start {
        self.hard_state.current_term = Term(term);
        self
    }

    pub fn voted_for(mut self, id: u64) -> Start {
        self.hard_state.voted_for = Some(ServerId(id));
        self
    }

    pub fn lease(mut self) -> Start {
        self.lease = true;
        self
    }

    /// Starts it, a second after its clock began, with connections to all others.
    pub fn start(self) -> Server {
        let now = Instant::ZERO.after(Duration::from_secs(1));
        let founders = (1..=self.members).map(founder).collect();
        let first = self.snapshot.as_ref().map_or(1, |snapshot| snapshot.id.index.0 + 1);
        let entries = self.terms.iter().zip(first..).map(|(term, index)| {
            if index == 1 && self.founded {
                membership_entry(*term, self.members)
            } else {
                entry(index, *term)
            }
        });
        let setup = Setup {
            id: ServerId(self.id),
            incarnation: incarnation(self.id),
            config: RaftConfig {
                election_timeout: (LEAST, MOST),
                heartbeat: HEARTBEAT,
                lease: self.lease,
            },
            founders,
            hard_state: self.hard_state,
            snapshot: self.snapshot,
            log_tail_bytes: LOG_TAIL_BYTES,
            entries: entries.collect(),
            seed: self.id,
        };
        let mut server = Server {
            raft: Raft::new(setup, now),
            now,
            writes: Vec::new(),
            pieces: Vec::new(),
            abandoned: 0,
            reads: Vec::new(),
            wall: WallClock(1_000_000),
        };
        for peer in (1..=self.members).filter(|peer| *peer != self.id) {
            server.peer_up(peer);
        }
        server
    }
}

impl Server {
    /// Ends the turn: what it sends now.
    pub fn flush(&mut self) -> Mail {
        let mut actions = Vec::new();
        self.raft.flush(self.now, &mut actions);
        let mut mail = Mail::new();
        for action in actions {
            match action {
                Action::Persist { seq, write } => self.writes.push((seq, write)),
                Action::Send { to, message } => mail.push((to.0, message)),
                Action::ReadSnapshot { to, snapshot, offset, length } => {
                    self.reads.push((to.0, snapshot, offset, length));
                }
                Action::WriteSnapshot(piece) => self.pieces.push(piece),
                Action::AbandonSnapshot => self.abandoned += 1,
            }
        }
        mail
    }

    /// The pieces of its snapshot that it wants are read from `file`, and sent.
    pub fn read_pieces(&mut self, file: &Bytes) -> Mail {
        for (to, snapshot, offset, length) in std::mem::take(&mut self.reads) {
            let bytes = file.slice(offset as usize..offset as usize + length);
            self.raft.snapshot_read(self.now, ServerId(to), snapshot, offset, Some(bytes));
        }
        self.flush()
    }

    /// The pieces that it receives are written.
    pub fn write_pieces(&mut self) -> Mail {
        if let Some(last) = self.pieces.last() {
            let through = last.offset + last.bytes.len() as u64;
            self.raft.piece_written(last.snapshot, through);
        }
        self.flush()
    }

    /// Ends the turn, lets the disk finish, and ends the next: everything it sends.
    pub fn settle(&mut self) -> Mail {
        let mut mail = self.flush();
        self.sync();
        mail.extend(self.flush());
        mail
    }

    /// The disk has finished everything that was handed out.
    pub fn sync(&mut self) {
        if let Some((seq, _)) = self.writes.last() {
            self.raft.persisted(self.now, *seq);
        }
    }

    /// A message arrives.
    pub fn hear(&mut self, from: u64, message: Message) {
        self.raft.receive(self.now, ServerId(from), message);
    }

    /// A message arrives, and everything that follows from it is durable and sent.
    pub fn answer(&mut self, from: u64, message: Message) -> Mail {
        self.hear(from, message);
        self.settle()
    }

    /// Time passes, and the server notices.
    pub fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.wall = WallClock(self.wall.0 + duration.as_millis() as u64);
        self.raft.tick(self.now, self.wall);
    }

    /// Time passes until the server's own deadline.
    pub fn time_out(&mut self) {
        let left = self.raft.deadline().since(self.now);
        self.wait(left);
    }

    pub fn peer_up(&mut self, peer: u64) {
        self.raft.peer_up(self.now, ServerId(peer), incarnation(peer));
    }

    pub fn peer_down(&mut self, peer: u64) {
        self.raft.peer_down(self.now, ServerId(peer));
    }

    pub fn term(&self) -> u64 {
        self.raft.current_term().0
    }

    pub fn commit(&self) -> u64 {
        self.raft.commit_index().0
    }

    /// The terms of its log.
    pub fn terms(&self) -> Vec<u64> {
        let last = self.raft.log().last_index().0;
        let term = |index| self.raft.log().term_at(LogIndex(index));
        (1..=last).filter_map(term).map(|term| term.0).collect()
    }

    pub fn propose(&mut self) -> Option<u64> {
        let payload = Bytes::from_static(b"payload");
        let index = self.raft.propose(self.now, EntryKind::Batch, payload);
        index.map(|index| index.0)
    }
}

/// Makes a member the leader of its next term: the others grant its pre-vote and its vote. What it
/// then sends is thrown away; its first entry is durable on itself.
pub fn elect(start: Start) -> Server {
    let members = start.members;
    elect_started(start.start(), members)
}

/// The same with a server that runs already.
pub fn elect_started(mut server: Server, members: u64) -> Server {
    server.time_out();
    server.flush();
    let term = server.term() + 1;
    let others = (1..=members).filter(|id| *id != server.raft.id().0);
    let others: Vec<u64> = others.collect();
    for peer in &others {
        server.hear(*peer, pre_vote(term, true));
    }
    server.settle();
    for peer in &others {
        server.hear(*peer, vote(term, true));
    }
    assert_eq!(server.raft.role(), RoleName::Leader);
    server.settle();
    server
}

pub fn incarnation(id: u64) -> Incarnation {
    Incarnation(id * 11)
}

fn founder(id: u64) -> Founder {
    Founder {
        id: ServerId(id),
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: String::new(),
    }
}

pub fn membership_entry(term: u64, members: u64) -> Entry {
    let member = |id| Member {
        id: ServerId(id),
        incarnation: incarnation(id),
        admitted: LogIndex(1),
        voter: true,
        outgoing_voter: false,
        promote: false,
        replaces: None,
        peer: founder(id).peer,
        client: founder(id).client,
        http: String::new(),
    };
    Entry {
        kind: EntryKind::Membership,
        payload: Membership::new((1..=members).map(member).collect()).encode(),
        ..entry(1, term)
    }
}

/// A snapshot whose last entry is `last` = (index, term); its file is a thousand bytes long.
pub fn snapshot(last: (u64, u64), members: u64) -> Snapshot {
    let membership = Membership::decode(&membership_entry(1, members).payload);
    Snapshot {
        id: snapshot_id(last),
        bytes: 1000,
        time: ClusterTime(4_000),
        membership_index: LogIndex(1),
        membership: membership.expect("just encoded"),
    }
}

pub fn snapshot_id((index, term): (u64, u64)) -> SnapshotId {
    SnapshotId { index: LogIndex(index), term: Term(term) }
}

/// A piece of a snapshot of a thousand bytes that ends with entry `last`.
pub fn install(term: u64, last: (u64, u64), offset: u64, length: u64) -> Message {
    Message::InstallSnapshot(InstallSnapshot {
        term: Term(term),
        snapshot: snapshot_id(last),
        offset,
        total: 1000,
        cluster_time: ClusterTime(5_000),
        bytes: Bytes::from(vec![offset as u8; length as usize]),
    })
}

/// An answer to the piece at `asked`: the file is written up to `offset`.
pub fn installed(term: u64, last: (u64, u64), asked: u64, offset: u64) -> Message {
    let outcome = InstallOutcome::Next { offset };
    let snapshot = snapshot_id(last);
    let response = InstallSnapshotResponse { term: Term(term), snapshot, asked, outcome };
    Message::InstallSnapshotResponse(response)
}

/// The pieces of snapshots in `mail` to one server.
pub fn installs(mail: &Mail, to: u64) -> Vec<InstallSnapshot> {
    let install = |(receiver, message): &(u64, Message)| match message {
        Message::InstallSnapshot(request) if *receiver == to => Some(request.clone()),
        _ => None,
    };
    mail.iter().filter_map(install).collect()
}

/// What the answers to pieces of snapshots in `mail` say.
pub fn install_outcomes(mail: &Mail) -> Vec<InstallOutcome> {
    let outcome = |(_, message): &(u64, Message)| match message {
        Message::InstallSnapshotResponse(response) => Some(response.outcome),
        _ => None,
    };
    mail.iter().filter_map(outcome).collect()
}

pub fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        time: ClusterTime(0),
        kind: EntryKind::Batch,
        payload: Bytes::from_static(b"payload"),
    }
}

/// AppendEntries of `term` behind entry `prev` = (index, term), with entries of `terms`.
pub fn append(term: u64, prev: (u64, u64), terms: &[u64], commit: u64) -> Message {
    Message::AppendEntries(append_request(term, prev, terms, commit))
}

pub fn append_request(term: u64, prev: (u64, u64), terms: &[u64], commit: u64) -> AppendEntries {
    let entries = terms.iter().zip(prev.0.saturating_add(1)..);
    AppendEntries {
        term: Term(term),
        prev_log_index: LogIndex(prev.0),
        prev_log_term: Term(prev.1),
        leader_commit: LogIndex(commit),
        read_round: ReadRound::ZERO,
        cluster_time: ClusterTime(5_000),
        refuses_growth: None,
        entries: entries.map(|(term, index)| entry(index, *term)).collect(),
    }
}

/// A heartbeat that carries a read round.
pub fn round(term: u64, prev: (u64, u64), round: u64) -> Message {
    let request = append_request(term, prev, &[], 0);
    Message::AppendEntries(AppendEntries { read_round: ReadRound(round), ..request })
}

pub fn matched(term: u64, match_index: u64) -> Message {
    echo(term, match_index, 0)
}

/// An acknowledgement that echoes a read round.
pub fn echo(term: u64, match_index: u64, round: u64) -> Message {
    let match_index = LogIndex(match_index);
    Message::AppendEntriesResponse(AppendEntriesResponse {
        term: Term(term),
        read_round: ReadRound(round),
        outcome: AppendOutcome::Match { match_index },
    })
}

pub fn ask_vote(term: u64, last: (u64, u64)) -> Message {
    Message::RequestVote(vote_request(term, last))
}

pub fn ask_pre_vote(term: u64, last: (u64, u64)) -> Message {
    Message::RequestVote(RequestVote { pre_vote: true, ..vote_request(term, last) })
}

/// A question for a vote from a candidate whose last entry is `last` = (index, term).
pub fn vote_request(term: u64, last: (u64, u64)) -> RequestVote {
    RequestVote {
        term: Term(term),
        pre_vote: false,
        transfer: false,
        bootstrap: false,
        last_log_index: LogIndex(last.0),
        last_log_term: Term(last.1),
    }
}

pub fn vote(term: u64, granted: bool) -> Message {
    vote_message(term, false, granted)
}

pub fn pre_vote(term: u64, granted: bool) -> Message {
    vote_message(term, true, granted)
}

fn vote_message(term: u64, pre_vote: bool, granted: bool) -> Message {
    Message::Vote(Vote { term: Term(term), pre_vote, granted, cluster_time: None })
}

/// The votes in `mail`: to whom, of which term, granted or not.
pub fn votes(mail: &Mail) -> Vec<(u64, u64, bool)> {
    let vote = |(to, message): &(u64, Message)| match message {
        Message::Vote(vote) => Some((*to, vote.term.0, vote.granted)),
        _ => None,
    };
    mail.iter().filter_map(vote).collect()
}

/// The questions for votes in `mail`: to whom, of which term, pre-vote or not.
pub fn questions(mail: &Mail) -> Vec<(u64, u64, bool)> {
    let question = |(to, message): &(u64, Message)| match message {
        Message::RequestVote(request) => Some((*to, request.term.0, request.pre_vote)),
        _ => None,
    };
    mail.iter().filter_map(question).collect()
}

/// The AppendEntries in `mail` to one server.
pub fn appends(mail: &Mail, to: u64) -> Vec<AppendEntries> {
    let append = |(receiver, message): &(u64, Message)| match message {
        Message::AppendEntries(request) if *receiver == to => Some(request.clone()),
        _ => None,
    };
    mail.iter().filter_map(append).collect()
}

/// The answers to AppendEntries in `mail`.
pub fn responses(mail: &Mail) -> Vec<AppendEntriesResponse> {
    let response = |(_, message): &(u64, Message)| match message {
        Message::AppendEntriesResponse(response) => Some(*response),
        _ => None,
    };
    mail.iter().filter_map(response).collect()
}

/// What the acknowledgements in `mail` say is the same and durable.
pub fn acknowledged(mail: &Mail) -> Vec<u64> {
    let index = |response: AppendEntriesResponse| match response.outcome {
        AppendOutcome::Match { match_index } => Some(match_index.0),
        AppendOutcome::Conflict { .. } => None,
    };
    responses(mail).into_iter().filter_map(index).collect()
}
