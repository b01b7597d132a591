//! The invariants of design page 5 that need to see every server, asserted after every turn.
//!
//! Each assertion bears the invariant's name. They rest on three things: the logs and stores as the
//! nodes hold them ([`log`], [`once`], [`leaders`], [`members`], [`bounds`],
//! [`watched`]), the log records and snapshots on the
//! *stable* media ([`stable`], [`shelf`]), and who was told what. Logs may begin behind a snapshot
//! ([`marks`]). Called by the world. A failed one panics; the run catches it and tells the story.

mod bounds;
mod holders;
mod leaders;
mod log;
mod marks;
mod members;
mod once;
mod shelf;
mod stable;
mod watched;

use std::collections::{BTreeMap, BTreeSet};

use super::media::Media;
use super::rules::Rules;
use crate::kv::command_set::Build;
use crate::kv::store::Store;
use crate::node::{Node, Role};
use crate::proto::entry::Entry;
use crate::raft::membership::Membership;
use crate::types::{Incarnation, Instant, LogIndex, ServerId, Term};

use holders::Holders;
use marks::Marks;
use once::Once;
use shelf::{Known, StableSnapshots};
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

/// A server on one of its data directories.
type Directory = (ServerId, Incarnation);

/// What is known of one server.
struct Watched {
    incarnation: Incarnation,
    stable: StableLog,
    snapshots: StableSnapshots,
    /// The log as the node held it when it was last looked at.
    log: Marks,
    applied: LogIndex,
    commit: LogIndex,
    /// How far what it knows to be committed was compared with what is decided.
    decided: LogIndex,
    term: Term,
    /// The highest term that it voted, campaigned or acknowledged in.
    promised: Term,
    role: Role,
}

/// What is known of the whole cluster.
pub(super) struct Checkers {
    /// How many servers found the cluster.
    founders: usize,
    rules: Rules,
    servers: BTreeMap<ServerId, Watched>,
    /// election-safety
    leaders: BTreeMap<Term, ServerId>,
    /// log-matching: what an entry of that index and term is, and the term of the one before it.
    entries: BTreeMap<(LogIndex, Term), (u32, Term)>,
    /// What is committed.
    committed: Vec<Mark>,
    /// When the first server was seen to have applied each of it.
    applied_at: Vec<Instant>,
    /// leader-completeness: what is decided, whether anyone has applied it or not, and in which
    /// leader's term each was.
    decided: Vec<(Mark, Term)>,
    /// The highest index that any server knew to be committed.
    commit: LogIndex,
    /// On whose stable media an entry is.
    holders: Holders,
    /// How far each directory's stable media ever reached.
    reached: BTreeMap<Directory, LogIndex>,
    /// one-change: the memberships that any log ever held, by index and term.
    memberships: BTreeMap<(LogIndex, Term), Membership>,
    /// The newest one that is committed.
    newest: Option<(LogIndex, Term)>,
    /// The directories that any membership names.
    admitted: BTreeSet<Directory>,
    /// The directory that each server has started on last.
    directories: BTreeMap<ServerId, Incarnation>,
    /// state-machine-safety: the store's digest where someone stood at that index.
    digests: BTreeMap<LogIndex, u32>,
    /// state-machine-safety: the running digest of the state machine there.
    running: BTreeMap<LogIndex, u64>,
    /// exactly-once: a store in which each batch takes effect once.
    once: Once,
    /// hard-state: whom a server voted for in a term.
    votes: BTreeMap<(ServerId, Incarnation, Term), ServerId>,
    /// Servers whose disk was damaged, replaced or put back, until they are readmitted on another
    /// one, and the directory that may have forgotten.
    pub damaged: BTreeMap<ServerId, Incarnation>,
    /// Servers that a test gave inputs which no driver would.
    pub lied_to: BTreeSet<ServerId>,
    /// Servers whose state a test has made wrong, to see whether the others find out.
    pub distrusted: BTreeSet<ServerId>,
}

impl Checkers {
    pub fn new(founders: usize) -> Checkers {
        Checkers {
            founders,
            rules: Rules::default(),
            servers: BTreeMap::new(),
            leaders: BTreeMap::new(),
            entries: BTreeMap::new(),
            committed: Vec::new(),
            applied_at: Vec::new(),
            decided: Vec::new(),
            commit: LogIndex::ZERO,
            holders: Holders::default(),
            reached: BTreeMap::new(),
            memberships: BTreeMap::new(),
            newest: None,
            admitted: BTreeSet::new(),
            directories: BTreeMap::new(),
            digests: BTreeMap::new(),
            running: BTreeMap::new(),
            once: Once::new(),
            votes: BTreeMap::new(),
            damaged: BTreeMap::new(),
            lied_to: BTreeSet::new(),
            distrusted: BTreeSet::new(),
        }
    }

    /// Entries that some server has applied.
    pub fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// When a state that ends with entry `applied` was no longer the newest one: nothing behind
    /// that entry was answered before. `None` for one that still is.
    pub fn outdated_at(&self, applied: LogIndex) -> Option<Instant> {
        self.applied_at.get(applied.0 as usize).copied()
    }

    /// The server's next process is of this build.
    pub fn is_of_build(&mut self, id: ServerId, build: Build) {
        self.once.builds.insert(id, build);
    }

    /// A server has started from its disk: nothing that it promised may be forgotten.
    pub fn started(&mut self, id: ServerId, node: &Node, media: &Media) {
        let incarnation = node.status().incarnation;
        // Another directory has promised nothing.
        let before = self.servers.remove(&id).filter(|before| before.incarnation == incarnation);
        self.directories.insert(id, incarnation);
        let promised = before.as_ref().map_or(Term::ZERO, |watched| watched.promised);
        let watched = Watched {
            incarnation,
            stable: StableLog::new(),
            snapshots: StableSnapshots::default(),
            log: Marks::behind(node.raft().log().base().last.index),
            applied: LogIndex::ZERO,
            commit: LogIndex::ZERO,
            decided: LogIndex::ZERO,
            term: node.raft().current_term(),
            promised,
            role: Role::Follower,
        };
        self.rules.started(id, node, before.is_none());
        self.servers.insert(id, watched);
        if self.may_forget(id) {
            self.holders.forgets((id, incarnation));
        }
        self.disk_moved(id, media);
        let term = node.raft().current_term();
        if !self.may_forget(id) {
            assert!(term >= promised, "hard-state: n{id} promised {promised}, came back in {term}");
            let vote = self.votes.get(&(id, incarnation, term));
            assert!(
                vote.is_none() || vote == node.raft().voted_for().as_ref(),
                "hard-state: n{id} forgot its vote in term {term}"
            );
            if let Some(before) = &before {
                let watched = &self.servers[&id];
                stable::check_recovered(id, before, &watched.stable, &watched.snapshots, node);
            }
        }
    }

    /// A server's disk has finished something.
    pub fn disk_moved(&mut self, id: ServerId, media: &Media) {
        let holders = &mut self.holders;
        let Some(watched) = self.servers.get_mut(&id) else {
            return;
        };
        let directory = (id, watched.incarnation);
        let reached = self.reached.entry(directory).or_default();
        watched.stable.read_on(media, |index, mark| match mark {
            Some(mark) => {
                holders.holds(directory, index, mark.term);
                *reached = index.max(*reached);
            }
            None => holders.truncates(directory, index),
        });
        let known = Known { memberships: &self.memberships, committed: &self.committed };
        watched.snapshots.look(id, media, &mut self.digests, &known);
        *reached = watched.snapshots.newest().index.max(*reached);
    }

    /// What is committed at `index`.
    fn committed_at(&self, index: LogIndex) -> Option<Mark> {
        self.committed.get(index.0.checked_sub(1)? as usize).copied()
    }

    /// A server has decided in its turn, and not yet said what. Returns its role if that has
    /// changed.
    pub fn after_turn(&mut self, now: Instant, id: ServerId, node: &Node) -> Option<Role> {
        self.check_monotone(id, node);
        self.check_log(id, node);
        self.check_decided(id, node);
        self.check_applied(id, node);
        self.applied_at.resize(self.committed.len(), now);
        self.check_leader(id, node);
        let may_forget = self.may_forget(id);
        self.rules.after_turn(id, node, may_forget);
        self.check_one_change(id);
        self.check_bounded(id, node);
        let role = node.status().role;
        let watched = self.servers.get_mut(&id).expect("it has started");
        let is_new = std::mem::replace(&mut watched.role, role) != role;
        is_new.then_some(role)
    }
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
