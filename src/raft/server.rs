//! One server's consensus state (§3.3, figure 3.1), and the changes of role.
//!
//! Called by `node/`. The other files of `raft/` are this type's methods, one file for each part of
//! the dissertation. Never sends, writes or reads a clock: see [`Raft::flush`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::append::Following;
use super::clock::ClusterClock;
use super::durability::Durability;
use super::election::Ballot;
use super::install::PieceWanted;
use super::log::Log;
use super::membership::Membership;
use super::replication::Leading;
use super::snapshot::{Piece, Snapshot, Snapshots};
use crate::config::RaftConfig;
use crate::limits;
use crate::proto::entry::{Entry, EntryKind, HardState, LogWrite};
use crate::proto::message::{GrowthRefusal, Message};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{
    ClusterTime, Incarnation, Instant, LogIndex, ServerId, SnapshotId, Term, WalSeq, WallClock,
};

/// What consensus wants done, in this order.
#[derive(Debug)]
pub enum Action {
    /// Make this durable, then call [`Raft::persisted`].
    Persist {
        /// The write's number.
        seq: WalSeq,
        /// The write.
        write: LogWrite,
    },
    /// Send this.
    Send {
        /// To whom.
        to: ServerId,
        /// What.
        message: Message,
    },
    /// Read this piece of a snapshot's file, then call [`Raft::snapshot_read`].
    ReadSnapshot {
        /// For whom.
        to: ServerId,
        /// Which snapshot.
        snapshot: SnapshotId,
        /// Where the piece begins.
        offset: u64,
        /// Its length in bytes; 0 where the follower is only asked what it has.
        length: usize,
    },
    /// Append this to the snapshot that is being received, and call [`Raft::piece_written`]. Once
    /// it is whole, verify it and make it durable under its name, then call [`Raft::install`]; or
    /// [`Raft::snapshot_refused`] or [`Raft::snapshot_full`].
    WriteSnapshot(Piece),
    /// The snapshot that is being received is of no use any more.
    AbandonSnapshot,
}

/// A server that a new cluster begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founder {
    /// Its id.
    pub id: ServerId,
    /// Where peers reach it.
    pub peer: String,
    /// Where clients reach it.
    pub client: String,
    /// Where it serves HTTP, or empty.
    pub http: String,
}

/// What a server starts from.
#[derive(Debug)]
pub struct Setup {
    /// This server.
    pub id: ServerId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// Timing.
    pub config: RaftConfig,
    /// The servers that a new cluster begins with.
    pub founders: Vec<Founder>,
    /// Term and vote, as the disk has them.
    pub hard_state: HardState,
    /// The newest snapshot, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Bytes of the log that stay in memory in front of a snapshot's end.
    pub log_tail_bytes: usize,
    /// The log behind it, as the disk has it.
    pub entries: Vec<Entry>,
    /// The seed of this server's random numbers.
    pub seed: u64,
}

/// A server's role, without what belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleName {
    /// §3.2
    Follower,
    /// §9.6
    PreCandidate,
    /// §3.4
    Candidate,
    /// §3.5
    Leader,
}

/// A server's role, and the state that lives as long as the role does.
#[derive(Debug)]
pub(super) enum Role {
    Follower(Following),
    PreCandidate(Ballot),
    Candidate(Ballot),
    Leader(Box<Leading>),
}

/// A message that must not leave before a write is durable.
#[derive(Debug)]
pub(super) struct Withheld {
    pub until: WalSeq,
    pub to: ServerId,
    pub message: Message,
}

/// One server of the cluster.
#[derive(Debug)]
pub struct Raft {
    pub(super) id: ServerId,
    pub(super) incarnation: Incarnation,
    pub(super) config: RaftConfig,
    pub(super) founders: Vec<Founder>,
    pub(super) random: Xoshiro256PlusPlus,

    pub(super) current_term: Term,
    pub(super) voted_for: Option<ServerId>,
    pub(super) log: Log,
    pub(super) durability: Durability,

    pub(super) commit_index: LogIndex,
    pub(super) role: Role,
    pub(super) leader: Option<ServerId>,
    /// Memberships in the log, oldest first; the last one is in force.
    pub(super) memberships: Vec<(LogIndex, Membership)>,

    pub(super) clock: ClusterClock,
    pub(super) election_deadline: Instant,
    /// When the current leader was last heard; `None` once its connection closed.
    pub(super) leader_heard: Option<Instant>,
    /// When any leader was last heard, or this server started. Never forgotten, unlike
    /// `leader_heard`: a lease that was confirmed then may still hold (§6.4.1).
    pub(super) leader_contact: Instant,
    /// Until then, refused pre-votes are asked again after milliseconds: the leader's connection
    /// closed, and the others will notice any moment.
    pub(super) hurry_until: Instant,
    /// Standing connections, and the peer's data directory by its hello.
    pub(super) links: BTreeMap<ServerId, Incarnation>,
    pub(super) withheld: VecDeque<Withheld>,
    /// Messages that need not wait for the disk.
    pub(super) outbox: Vec<(ServerId, Message)>,
    pub(super) snapshots: Snapshots,
    pub(super) log_tail_bytes: usize,
    /// Pieces of snapshots that followers are to be sent.
    pub(super) pieces_wanted: Vec<PieceWanted>,
    /// Whether the cluster knows this id under another data directory.
    pub(super) recovering: bool,
    /// What this server cannot take, should it lead.
    pub(super) refuses_growth: Option<GrowthRefusal>,
    /// What the leader cannot take, by its last AppendEntries.
    pub(super) leader_refuses_growth: Option<GrowthRefusal>,
    /// Whether the log can take nothing but terms and votes.
    pub(super) log_is_full: bool,
    /// Requests that no leader of this cluster can have sent.
    pub(super) refused_messages: u64,
}

impl Raft {
    /// A server that starts, or starts again, as a follower.
    pub fn new(setup: Setup, now: Instant) -> Raft {
        let snapshot = setup.snapshot.as_ref();
        let log = Log::new(snapshot.map(Snapshot::base).unwrap_or_default(), setup.entries);
        let mut raft = Raft {
            clock: ClusterClock::new(now, setup.config.election_timeout.0 / 2),
            id: setup.id,
            incarnation: setup.incarnation,
            config: setup.config,
            founders: setup.founders,
            random: Xoshiro256PlusPlus::seed_from_u64(setup.seed),
            current_term: setup.hard_state.current_term,
            voted_for: setup.hard_state.voted_for,
            durability: Durability::new(log.last_index()),
            memberships: Vec::new(),
            // What a snapshot includes was committed.
            commit_index: log.base().last.index,
            log,
            role: Role::Follower(Following::default()),
            leader: None,
            election_deadline: now,
            leader_heard: None,
            leader_contact: now,
            hurry_until: Instant::ZERO,
            links: BTreeMap::new(),
            withheld: VecDeque::new(),
            outbox: Vec::new(),
            snapshots: Snapshots::new(snapshot.map(|snapshot| (snapshot.id, snapshot.bytes))),
            pieces_wanted: Vec::new(),
            log_tail_bytes: setup.log_tail_bytes,
            recovering: false,
            refuses_growth: None,
            leader_refuses_growth: None,
            log_is_full: false,
            refused_messages: 0,
        };
        let is_later = raft.log.last_term() > raft.current_term && !is_on(Mutation::TermNotSaved);
        assert!(!is_later, "a term is saved before its votes and entries: a bug of ours");
        if let Some(snapshot) = setup.snapshot {
            raft.memberships.push((snapshot.membership_index, snapshot.membership));
        }
        let mut index = raft.log.first_index();
        while let Some(entry) = raft.log.entry(index) {
            if entry.kind == EntryKind::Membership {
                let payload = entry.payload.clone();
                raft.adopt_membership(index, &payload);
            }
            index = index.next();
        }
        raft.start_election_timer(now);
        raft
    }

    /// This server.
    pub fn id(&self) -> ServerId {
        self.id
    }

    /// `currentTerm`.
    pub fn current_term(&self) -> Term {
        self.current_term
    }

    /// `votedFor`.
    pub fn voted_for(&self) -> Option<ServerId> {
        self.voted_for
    }

    /// `commitIndex`.
    pub fn commit_index(&self) -> LogIndex {
        self.commit_index
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Entries up to here are durable on this server.
    pub fn durable_index(&self) -> LogIndex {
        self.durability.durable_index()
    }

    /// The membership in force; empty until the cluster was founded.
    pub fn membership(&self) -> &Membership {
        static NOBODY: Membership = Membership::nobody();
        self.memberships.last().map_or(&NOBODY, |(_, membership)| membership)
    }

    /// Who leads, as far as this server knows.
    pub fn leader(&self) -> Option<ServerId> {
        self.leader
    }

    /// This server's role.
    pub fn role(&self) -> RoleName {
        match self.role {
            Role::Follower(_) => RoleName::Follower,
            Role::PreCandidate(_) => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// Whether this server leads.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// How many requests came that no leader of this cluster can have sent.
    pub fn refused_messages(&self) -> u64 {
        self.refused_messages
    }

    /// Whether the cluster knows this id under another data directory.
    pub fn is_recovering(&self) -> bool {
        self.recovering
    }

    /// The running estimate of the cluster clock, once a leader was heard.
    pub fn cluster_time(&self, now: Instant) -> Option<ClusterTime> {
        self.clock.estimate(now)
    }

    /// How long until the cluster clock shows `time`.
    pub fn until(&self, now: Instant, time: ClusterTime) -> Duration {
        self.clock.until(now, time)
    }

    /// Whether a connection to `peer` stands.
    pub fn has_link(&self, peer: ServerId) -> bool {
        self.links.contains_key(&peer)
    }

    /// How far each other member's log is known to match; empty where this server doesn't lead.
    pub fn match_indexes(&self) -> BTreeMap<ServerId, LogIndex> {
        let Role::Leader(leading) = &self.role else {
            return BTreeMap::new();
        };
        leading.followers.iter().map(|(id, progress)| (*id, progress.match_index)).collect()
    }

    /// Messages that wait for the disk; and messages and bytes under way to the follower that has
    /// the most.
    pub fn held(&self) -> (usize, usize, usize) {
        let Role::Leader(leading) = &self.role else {
            return (self.withheld.len(), 0, 0);
        };
        let under_way = leading.followers.values().map(|progress| progress.under_way());
        let most = |a: (usize, usize), b: (usize, usize)| (a.0.max(b.0), a.1.max(b.1));
        let (messages, bytes) = under_way.reduce(most).unwrap_or_default();
        (self.withheld.len(), messages, bytes)
    }

    /// Whether a majority answered this leader, or this follower heard its leader, within an
    /// election timeout.
    pub fn is_in_touch(&self, now: Instant) -> bool {
        let most = self.config.election_timeout.1;
        match &self.role {
            Role::Leader(leading) => self.membership().is_quorum(|id| {
                let heard = leading.followers.get(&id).map(|progress| progress.last_heard);
                id == self.id || heard.is_some_and(|heard| now.since(heard) < most)
            }),
            _ => self.leader_heard.is_some_and(|heard| now.since(heard) < most),
        }
    }

    /// How long ago this server knew what was committed: when it last heard a leader, or 0 where a
    /// leader's majority answers it. What a stale read may miss is younger than that.
    pub fn staleness(&self, now: Instant) -> Duration {
        if self.is_leader() && self.is_in_touch(now) {
            return Duration::ZERO;
        }
        now.since(self.leader_contact)
    }

    /// What whoever leads cannot take.
    pub fn growth_refusal(&self) -> Option<GrowthRefusal> {
        if self.is_leader() { self.refuses_growth } else { self.leader_refuses_growth }
    }

    /// Says whether this server could take growth if it led, and whether its log can take anything
    /// but terms and votes.
    pub fn set_room(&mut self, refuses_growth: Option<GrowthRefusal>, log_is_full: bool) {
        self.refuses_growth = refuses_growth;
        self.log_is_full = log_is_full;
    }

    /// The cluster knows this id under another data directory: from now on this server takes part
    /// in nothing, until it was admitted again.
    pub fn lost_disk(&mut self, now: Instant) {
        if !self.recovering {
            self.recovering = true;
            self.become_follower(now, self.current_term, None);
            // A vote that waits for the disk would be one of a server that may have forgotten
            // another vote in the same term.
            self.withheld.clear();
            self.outbox.clear();
        }
    }

    /// When [`tick`](Raft::tick) has something to do.
    pub fn deadline(&self) -> Instant {
        match &self.role {
            Role::Leader(leading) => leading.heartbeat_deadline,
            _ => self.election_deadline,
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, wall: WallClock) {
        self.clock.observe_wall(now, wall);
        if self.is_leader() {
            self.clock.slew(now);
            self.tick_leader(now);
        } else if now >= self.election_deadline {
            self.election_timed_out(now);
        }
    }

    /// A connection to `peer` stands.
    pub fn peer_up(&mut self, now: Instant, peer: ServerId, incarnation: Incarnation) {
        self.links.insert(peer, incarnation);
        if let Role::Follower(following) = &mut self.role {
            following.link_is_new();
        }
        if let Role::Leader(leading) = &mut self.role
            && let Some(progress) = leading.followers.get_mut(&peer)
        {
            progress.restart();
            leading.heartbeat_due.insert(peer);
        }
        self.ask_vote_again(now, peer);
    }

    /// The connection to `peer` is gone.
    pub fn peer_down(&mut self, now: Instant, peer: ServerId) {
        self.links.remove(&peer);
        if let Role::Leader(leading) = &mut self.role
            && let Some(progress) = leading.followers.get_mut(&peer)
        {
            progress.restart();
        }
        self.leader_link_closed(now, peer);
    }

    /// A message from `from`, whose envelope was found to be in order.
    pub fn receive(&mut self, now: Instant, from: ServerId, message: Message) {
        if self.recovering {
            return;
        }
        match message {
            Message::RequestVote(request) => self.receive_request_vote(now, from, request),
            Message::Vote(vote) => self.receive_vote(now, from, vote),
            Message::AppendEntries(request) => self.receive_append_entries(now, from, request),
            Message::AppendEntriesResponse(response) => {
                self.receive_append_response(now, from, response);
            }
            Message::TimeoutNow { term } => self.receive_timeout_now(now, from, term),
            Message::InstallSnapshot(request) => self.receive_install_snapshot(now, from, request),
            Message::InstallSnapshotResponse(response) => {
                self.receive_install_response(now, from, response);
            }
            Message::Forward { .. }
            | Message::Admin { .. }
            | Message::AdminResponse { .. }
            | Message::ReadIndex { .. }
            | Message::ReadIndexResponse { .. }
            | Message::Checkpoint { .. } => {
                unreachable!("the node keeps the gateways' mail to itself")
            }
        }
    }

    /// Everything up to `through` is durable.
    pub fn persisted(&mut self, now: Instant, through: WalSeq) {
        self.durability.persisted(through);
        self.count_own_vote(now);
        self.advance_commit();
    }

    /// Derives from the state what has to be written and sent: the end of a turn.
    pub fn flush(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.progress_change(now);
        self.progress_transfer(now);
        // What is replicated goes out before this server's own write is durable (§10.2.1). In which
        // order the driver flushes its sockets and begins the write is its own business.
        if let Some((seq, write)) = self.durability.take_write(now) {
            actions.push(Action::Persist { seq, write });
        }
        while let Some(front) = self.withheld.front()
            && self.durability.is_persisted(front.until)
        {
            let Withheld { to, message, .. } = self.withheld.pop_front().expect("just seen");
            actions.push(Action::Send { to, message });
        }
        match self.role {
            Role::Leader(_) => self.replicate(now),
            Role::Follower(_) => self.acknowledge(),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
        actions.extend(self.outbox.drain(..).map(|(to, message)| Action::Send { to, message }));
        self.flush_snapshots(actions);
    }

    /// What has to be read and written for snapshots.
    fn flush_snapshots(&mut self, actions: &mut Vec<Action>) {
        self.abandon_receiving();
        if std::mem::take(&mut self.snapshots.is_abandoned) {
            actions.push(Action::AbandonSnapshot);
        }
        actions.extend(self.snapshots.pieces.drain(..).map(Action::WriteSnapshot));
        let wanted = self.pieces_wanted.drain(..);
        actions.extend(wanted.map(|PieceWanted { to, snapshot, offset, length }| {
            Action::ReadSnapshot { to, snapshot, offset, length }
        }));
    }

    /// Adopts a term, as a follower of `leader`.
    pub(super) fn become_follower(&mut self, now: Instant, term: Term, leader: Option<ServerId>) {
        assert!(term >= self.current_term, "hard-state: a term never falls");
        if term > self.current_term {
            self.save_hard_state(term, None);
            self.drop_withheld();
        }
        if leader != self.leader {
            self.leader_heard = None;
            self.leader_refuses_growth = None;
        }
        self.leader = leader;
        if !matches!(self.role, Role::Follower(_)) || leader.is_some() {
            self.reset_election_timer(now);
        }
        self.role = Role::Follower(Following::default());
    }

    /// Sets term and vote; what depends on them is withheld until they are durable.
    pub(super) fn save_hard_state(&mut self, current_term: Term, voted_for: Option<ServerId>) {
        let is_new_term = current_term > self.current_term;
        let is_first_vote = current_term == self.current_term && self.voted_for.is_none();
        assert!(is_new_term || is_first_vote, "hard-state: one vote in a term");
        self.current_term = current_term;
        self.voted_for = voted_for;
        if is_on(Mutation::TermNotSaved) && voted_for.is_none() {
            return;
        }
        let voted_for = voted_for.filter(|_| !is_on(Mutation::VoteNotSaved));
        self.durability.save_hard_state(HardState { current_term, voted_for });
    }

    /// What waits for the disk was said in a term, or by a candidate, that is no more.
    pub(super) fn drop_withheld(&mut self) {
        if !self.withheld.is_empty() {
            reached(Mark::WithheldDropped);
            self.withheld.clear();
        }
    }

    /// Sends `message` once the newest term and vote are durable. At the bound it is dropped: the
    /// disk hangs, and whoever waits for it asks again.
    pub(super) fn withhold(&mut self, to: ServerId, message: Message) {
        if self.withheld.len() >= limits::WITHHELD_MESSAGES {
            return;
        }
        if is_on(Mutation::VoteNotWithheld) {
            return self.outbox.push((to, message));
        }
        let until = self.durability.hard_state_seq();
        self.withheld.push_back(Withheld { until, to, message });
    }

    /// Appends an entry of this server's own term to its log.
    pub(super) fn append_own(&mut self, now: Instant, kind: EntryKind, payload: Bytes) -> LogIndex {
        let estimate = self.clock.estimate(now).expect("a leader knows the time");
        let time = estimate.max(self.log.last_time());
        let index = self.log.last_index().next();
        self.append(Entry { index, term: self.current_term, time, kind, payload });
        index
    }

    /// Appends an entry, on disk too.
    pub(super) fn append(&mut self, entry: Entry) {
        self.durability.append(entry.clone());
        if entry.kind == EntryKind::Membership {
            self.adopt_membership(entry.index, &entry.payload);
        }
        self.log.append(entry);
    }

    /// Removes the entries from `from` on, on disk too.
    pub(super) fn truncate_from(&mut self, from: LogIndex) {
        assert!(from > self.commit_index, "leader-completeness: a committed entry stays");
        self.durability.truncate_from(from);
        self.log.truncate_from(from);
        self.memberships.retain(|(index, _)| *index < from);
    }

    /// The membership of the entry at `index` is in force from now on.
    fn adopt_membership(&mut self, index: LogIndex, payload: &[u8]) {
        let membership = Membership::decode(payload)
            .expect("a membership entry was made by a leader and guarded by checksums since");
        self.memberships.push((index, membership));
    }

    /// Draws a new election timeout (§3.4).
    pub(super) fn reset_election_timer(&mut self, now: Instant) {
        let (least, most) = self.config.election_timeout;
        self.election_deadline = now.after(self.random_between(least, most));
    }

    /// A random duration, both ends included.
    pub(super) fn random_between(&mut self, least: Duration, most: Duration) -> Duration {
        let nanos = self.random.random_range(least.as_nanos() as u64..=most.as_nanos() as u64);
        Duration::from_nanos(nanos)
    }
}
