//! The invariants of design page 5 that need to see every server, asserted after every turn.
//!
//! Each assertion bears the invariant's name. They rest on three things: the logs as the nodes hold
//! them, the log records on the *stable* media (read with the real record codec), and who was told
//! what. Called by the world. A failed one panics; the run catches it and tells the story.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::media::Media;
use crate::node::{Node, Role};
use crate::proto::entry::{Entry, HardState};
use crate::proto::message::{AppendOutcome, Message, Packet};
use crate::proto::record::{Body, Decoded, SegmentKey, decode};
use crate::storage::segment::{self, FIRST_RECORD};
use crate::types::{LogIndex, ServerId, Term};

/// An entry's identity: its term, and a digest of everything that it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    term: Term,
    digest: u32,
}

fn mark(entry: &Entry) -> Mark {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&entry.time.0.to_le_bytes());
    hasher.update(&[entry.kind as u8]);
    hasher.update(&entry.payload);
    Mark { term: entry.term, digest: hasher.finalize() }
}

/// The log on one disk's stable media, read as far as it goes, and further each time.
struct StableLog {
    segment: u64,
    /// The segment's file, once its name was found: looking for it costs more than reading on.
    inode: Option<usize>,
    position: usize,
    pending: Vec<Body>,
    marks: Vec<Mark>,
    hard_state: HardState,
}

impl StableLog {
    fn new() -> StableLog {
        StableLog {
            segment: 1,
            inode: None,
            position: FIRST_RECORD as usize,
            pending: Vec::new(),
            marks: Vec::new(),
            hard_state: HardState::default(),
        }
    }

    /// Reads on, and calls each entry that was not there before.
    fn read_on(&mut self, media: &Media, mut seen: impl FnMut(LogIndex, Mark)) {
        loop {
            let number = self.segment;
            let find = || {
                let path = segment::path(Path::new(super::world::LOG), number);
                media.stable_names.get(&path).copied()
            };
            self.inode = self.inode.or_else(find);
            let Some(inode) = self.inode else { return };
            let bytes = &media.inodes[inode].stable;
            let Some(salt) = bytes.get(48..56) else { return };
            let salt = u64::from_le_bytes(salt.try_into().expect("eight bytes"));
            let key = SegmentKey { number: self.segment, salt };
            let Some(rest) = bytes.get(self.position..) else { return };
            let Ok(Decoded::Record(record, length)) = decode(key, rest) else { return };
            self.position += length;
            self.pending.push(record.body);
            if record.ends_write {
                for body in std::mem::take(&mut self.pending) {
                    self.apply(body, &mut seen);
                }
            }
        }
    }

    fn apply(&mut self, body: Body, seen: &mut impl FnMut(LogIndex, Mark)) {
        match body {
            Body::Entry(entry) => {
                self.marks.push(mark(&entry));
                seen(LogIndex(self.marks.len() as u64), mark(&entry));
            }
            Body::Truncation(from) => self.marks.truncate(from.0 as usize - 1),
            Body::HardState(state) => self.hard_state = state,
            Body::Continues => {
                self.segment += 1;
                self.inode = None;
                self.position = FIRST_RECORD as usize;
            }
            Body::Seal(_) => {}
        }
    }

    fn at(&self, index: LogIndex) -> Option<Mark> {
        self.marks.get(index.0.checked_sub(1)? as usize).copied()
    }
}

/// What is known of one server.
struct Watched {
    stable: StableLog,
    /// The log as the node held it when it was last looked at.
    log: Vec<Mark>,
    applied: LogIndex,
    /// The highest term that it voted, campaigned or acknowledged in.
    promised: Term,
    role: Role,
}

/// What is known of the whole cluster.
pub(super) struct Checkers {
    nodes: usize,
    servers: BTreeMap<ServerId, Watched>,
    /// election-safety
    leaders: BTreeMap<Term, ServerId>,
    /// log-matching: what an entry of that index and term is, and the term of the one before it.
    entries: BTreeMap<(LogIndex, Term), (u32, Term)>,
    /// What is committed.
    committed: Vec<Mark>,
    /// On whose stable media an entry has been.
    durable: BTreeMap<(LogIndex, Term), BTreeSet<ServerId>>,
    /// state-machine-safety: the store's digest where someone stood at that index.
    digests: BTreeMap<LogIndex, u32>,
    /// hard-state: whom a server voted for in a term.
    votes: BTreeMap<(ServerId, Term), ServerId>,
    /// Servers whose disk was damaged, replaced or put back: they may have forgotten.
    pub damaged: BTreeSet<ServerId>,
}

impl Checkers {
    pub fn new(nodes: usize) -> Checkers {
        Checkers {
            nodes,
            servers: BTreeMap::new(),
            leaders: BTreeMap::new(),
            entries: BTreeMap::new(),
            committed: Vec::new(),
            durable: BTreeMap::new(),
            digests: BTreeMap::new(),
            votes: BTreeMap::new(),
            damaged: BTreeSet::new(),
        }
    }

    /// Entries that some server has applied.
    pub fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// A server has started from its disk: nothing that it promised may be forgotten.
    pub fn started(&mut self, id: ServerId, node: &Node, media: &Media) {
        let promised = self.servers.get(&id).map_or(Term::ZERO, |watched| watched.promised);
        let mut watched = Watched {
            stable: StableLog::new(),
            log: Vec::new(),
            applied: LogIndex::ZERO,
            promised,
            role: Role::Follower,
        };
        let durable = &mut self.durable;
        watched.stable.read_on(media, |index, mark| {
            durable.entry((index, mark.term)).or_default().insert(id);
        });
        if !self.damaged.contains(&id) {
            let term = node.raft().current_term();
            assert!(term >= promised, "hard-state: n{id} promised {promised}, came back in {term}");
            let vote = self.votes.get(&(id, term));
            assert!(
                vote.is_none() || vote == node.raft().voted_for().as_ref(),
                "hard-state: n{id} forgot its vote in term {term}"
            );
        }
        self.servers.insert(id, watched);
    }

    /// A server's disk has finished something.
    pub fn disk_moved(&mut self, id: ServerId, media: &Media) {
        let durable = &mut self.durable;
        if let Some(watched) = self.servers.get_mut(&id) {
            watched.stable.read_on(media, |index, mark| {
                durable.entry((index, mark.term)).or_default().insert(id);
            });
        }
    }

    /// A server sends a message: what it promises must be on its stable media by now.
    pub fn sends(&mut self, id: ServerId, packet: &Packet) {
        let watched = self.servers.get_mut(&id).expect("it has started");
        let state = watched.stable.hard_state;
        match &packet.message {
            Message::Vote(vote) if vote.granted && !vote.pre_vote => {
                let to = packet.envelope.to;
                assert!(
                    state.current_term == vote.term && state.voted_for == Some(to),
                    "durable-before-ack: n{id} votes for n{to} in {}, its disk says {state:?}",
                    vote.term
                );
                self.vote(id, vote.term, to);
            }
            Message::RequestVote(request) if !request.pre_vote => {
                assert!(
                    state.current_term >= request.term,
                    "durable-before-ack: n{id} campaigns in {}, its disk says {state:?}",
                    request.term
                );
                self.vote(id, request.term, id);
            }
            Message::AppendEntriesResponse(response) => {
                if let AppendOutcome::Match { match_index } = response.outcome {
                    let held = watched.log.get((match_index.0 as usize).wrapping_sub(1)).copied();
                    assert!(
                        match_index == LogIndex::ZERO || watched.stable.at(match_index) == held,
                        "durable-before-ack: n{id} acknowledges {match_index}"
                    );
                    watched.promised = watched.promised.max(response.term);
                }
            }
            _ => {}
        }
    }

    fn vote(&mut self, id: ServerId, term: Term, candidate: ServerId) {
        if self.damaged.contains(&id) {
            return;
        }
        let voted = *self.votes.entry((id, term)).or_insert(candidate);
        assert_eq!(voted, candidate, "hard-state: n{id} votes twice in term {term}");
        if let Some(watched) = self.servers.get_mut(&id) {
            watched.promised = watched.promised.max(term);
        }
    }

    /// A server has taken its turn. Returns its role if that has changed.
    pub fn after_turn(&mut self, id: ServerId, node: &Node) -> Option<Role> {
        self.check_log(id, node);
        self.check_applied(id, node);
        self.check_leader(id, node);
        let role = node.status().role;
        let watched = self.servers.get_mut(&id).expect("it has started");
        let is_new = std::mem::replace(&mut watched.role, role) != role;
        is_new.then_some(role)
    }

    fn check_log(&mut self, id: ServerId, node: &Node) {
        let watched = self.servers.get_mut(&id).expect("it has started");
        let log = node.raft().log();
        watched.log.truncate(log.last_index().0 as usize);
        // Entries of one index and term are the same, so a log that agrees in its last term agrees
        // before it too.
        while let Some(last) = watched.log.last()
            && log.term_at(LogIndex(watched.log.len() as u64)) != Some(last.term)
        {
            watched.log.pop();
        }
        while (watched.log.len() as u64) < log.last_index().0 {
            let index = LogIndex(watched.log.len() as u64 + 1);
            let entry = log.entry(index).expect("a log has no gaps");
            let prev_term = watched.log.last().map_or(Term::ZERO, |mark| mark.term);
            let mark = mark(entry);
            let key = (index, mark.term);
            let known = *self.entries.entry(key).or_insert((mark.digest, prev_term));
            assert_eq!(known, (mark.digest, prev_term), "log-matching: n{id} at {index}");
            watched.log.push(mark);
        }
    }

    fn check_applied(&mut self, id: ServerId, node: &Node) {
        let watched = self.servers.get_mut(&id).expect("it has started");
        let applied = node.machine().last_applied();
        if applied == watched.applied {
            return;
        }
        let majority = self.nodes / 2 + 1;
        for at in watched.applied.0..applied.0 {
            let index = LogIndex(at + 1);
            let mark = watched.log[at as usize];
            match self.committed.get(at as usize) {
                Some(known) => assert_eq!(*known, mark, "state-machine-safety: n{id} at {index}"),
                None => {
                    let holders = self.durable.get(&(index, mark.term)).map_or(0, BTreeSet::len);
                    assert!(
                        holders >= majority,
                        "durable-before-ack: {index} is applied, and on {holders} disks"
                    );
                    self.committed.push(mark);
                }
            }
        }
        watched.applied = applied;
        let digest = digest(node);
        let known = *self.digests.entry(applied).or_insert(digest);
        assert_eq!(known, digest, "state-machine-safety: the store of n{id} at {applied}");
    }

    fn check_leader(&mut self, id: ServerId, node: &Node) {
        let status = node.status();
        if status.role != Role::Leader {
            return;
        }
        let is_new = !self.leaders.contains_key(&status.current_term);
        let leader = *self.leaders.entry(status.current_term).or_insert(id);
        assert_eq!(leader, id, "election-safety: two leaders in term {}", status.current_term);
        if is_new {
            let log = &self.servers[&id].log;
            let missing = self
                .committed
                .iter()
                .zip(1..)
                .find(|(mark, index)| log.get(*index as usize - 1) != Some(*mark));
            assert!(
                missing.is_none(),
                "leader-completeness: n{id} leads term {} without entry {missing:?}",
                status.current_term
            );
        }
        let members = node.raft().membership().members().len();
        assert!(members == 0 || members == self.nodes, "one-change: nobody changed the members");
    }
}

/// Everything that the state machine holds.
fn digest(node: &Node) -> u32 {
    let store = node.machine().store();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&store.clock().0.to_le_bytes());
    hasher.update(&store.revision().0.to_le_bytes());
    for (key, item) in store.iter_from(b"") {
        hasher.update(key);
        hasher.update(item.value);
        hasher.update(&item.revision.0.to_le_bytes());
        hasher.update(&item.deadline.map_or(0, |deadline| deadline.0).to_le_bytes());
    }
    hasher.finalize()
}
