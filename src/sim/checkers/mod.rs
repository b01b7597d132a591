//! The invariants of design page 5 that need to see every server, asserted after every turn.
//!
//! Each assertion bears the invariant's name. They rest on three things: the logs and stores as the
//! nodes hold them ([`log`], [`once`], [`leaders`], [`bounds`]), the log records and snapshots on the
//! *stable* media ([`stable`], [`shelf`]), and who was told what. Logs may begin behind a snapshot
//! ([`marks`]). Called by the world. A failed one panics; the run catches it and tells the story.

mod bounds;
mod leaders;
mod log;
mod marks;
mod once;
mod shelf;
mod stable;

use std::collections::{BTreeMap, BTreeSet};

use super::media::Media;
use super::rules::Rules;
use crate::kv::store::Store;
use crate::node::{Node, Role};
use crate::proto::entry::Entry;
use crate::raft::membership::{Member, Membership};
use crate::types::{LogIndex, ServerId, Term};

use marks::Marks;
use once::Once;
use shelf::StableSnapshots;
use stable::StableLog;

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

/// What is known of one server.
struct Watched {
    stable: StableLog,
    snapshots: StableSnapshots,
    /// The log as the node held it when it was last looked at.
    log: Marks,
    applied: LogIndex,
    commit: LogIndex,
    term: Term,
    /// The highest term that it voted, campaigned or acknowledged in.
    promised: Term,
    role: Role,
}

/// What is known of the whole cluster.
pub(super) struct Checkers {
    nodes: usize,
    rules: Rules,
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
    /// exactly-once: a store in which each batch takes effect once.
    once: Once,
    /// hard-state: whom a server voted for in a term.
    votes: BTreeMap<(ServerId, Term), ServerId>,
    /// Servers whose disk was damaged, replaced or put back: they may have forgotten.
    pub damaged: BTreeSet<ServerId>,
    /// Servers that a test gave inputs which no driver would.
    pub lied_to: BTreeSet<ServerId>,
    /// Servers whose state a test has made wrong, to see whether the others find out.
    pub distrusted: BTreeSet<ServerId>,
}

impl Checkers {
    pub fn new(nodes: usize) -> Checkers {
        Checkers {
            nodes,
            rules: Rules::default(),
            servers: BTreeMap::new(),
            leaders: BTreeMap::new(),
            entries: BTreeMap::new(),
            committed: Vec::new(),
            durable: BTreeMap::new(),
            digests: BTreeMap::new(),
            once: Once::new(),
            votes: BTreeMap::new(),
            damaged: BTreeSet::new(),
            lied_to: BTreeSet::new(),
            distrusted: BTreeSet::new(),
        }
    }

    /// Entries that some server has applied.
    pub fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// A server has started from its disk: nothing that it promised may be forgotten.
    pub fn started(&mut self, id: ServerId, node: &Node, media: &Media) {
        let before = self.servers.remove(&id);
        let promised = before.as_ref().map_or(Term::ZERO, |watched| watched.promised);
        let mut stable = StableLog::new();
        let durable = &mut self.durable;
        stable.read_on(media, |index, mark| {
            durable.entry((index, mark.term)).or_default().insert(id);
        });
        let mut snapshots = StableSnapshots::default();
        snapshots.look(id, media, &mut self.digests);
        let term = node.raft().current_term();
        if !self.damaged.contains(&id) {
            assert!(term >= promised, "hard-state: n{id} promised {promised}, came back in {term}");
            let vote = self.votes.get(&(id, term));
            assert!(
                vote.is_none() || vote == node.raft().voted_for().as_ref(),
                "hard-state: n{id} forgot its vote in term {term}"
            );
            if let Some(before) = &before {
                stable::check_recovered(id, before, &stable, &snapshots, node);
            }
        }
        let base = node.raft().log().base().last.index;
        let watched = Watched {
            stable,
            snapshots,
            log: Marks::behind(base),
            applied: LogIndex::ZERO,
            commit: LogIndex::ZERO,
            term,
            promised,
            role: Role::Follower,
        };
        self.servers.insert(id, watched);
        self.rules.started(id, node);
    }

    /// A server's disk has finished something.
    pub fn disk_moved(&mut self, id: ServerId, media: &Media) {
        let durable = &mut self.durable;
        if let Some(watched) = self.servers.get_mut(&id) {
            watched.stable.read_on(media, |index, mark| {
                durable.entry((index, mark.term)).or_default().insert(id);
            });
            watched.snapshots.look(id, media, &mut self.digests);
        }
    }

    /// A server has taken its turn. Returns its role if that has changed.
    pub fn after_turn(&mut self, id: ServerId, node: &Node) -> Option<Role> {
        self.check_monotone(id, node);
        self.check_log(id, node);
        self.check_applied(id, node);
        self.check_leader(id, node);
        self.rules.after_turn(id, node, self.damaged.contains(&id));
        self.check_one_change(id, node);
        self.check_bounded(id, node);
        let role = node.status().role;
        let watched = self.servers.get_mut(&id).expect("it has started");
        let is_new = std::mem::replace(&mut watched.role, role) != role;
        is_new.then_some(role)
    }
}

/// Whether `has` holds for a majority of the voters: of the old ones and of the new ones, while the
/// membership is joint (§4.3). Counted here, so that a mistake in the server's own counting shows.
fn has_majority(membership: &Membership, has: impl Fn(ServerId) -> bool) -> bool {
    let is_majority = |is_voter: fn(&Member) -> bool| {
        let voters = || membership.members().iter().filter(|member| is_voter(member));
        let count = voters().filter(|member| has(member.id)).count();
        2 * count > voters().count()
    };
    is_majority(|member| member.voter)
        && (!membership.is_joint() || is_majority(|member| member.outgoing_voter))
}

/// Everything that a store holds.
fn digest(store: &Store) -> u32 {
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
