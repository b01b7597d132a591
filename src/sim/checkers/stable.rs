//! *durable-before-ack* and *hard-state*: what a server promises is on its stable media by then, and
//! is still there when it comes back.
//!
//! The log records on the stable media are read with the real record codec, on as they grow and
//! from the beginning at each start. Called by the checkers' front door.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::marks::Marks;
use super::shelf::StableSnapshots;
use super::{Checkers, Mark, Watched, mark};
use crate::node::Node;
use crate::proto::entry::HardState;
use crate::proto::message::{AppendOutcome, Message, Packet};
use crate::proto::record::{Body, Decoded, SegmentKey, decode};
use crate::sim::media::{Media, SECTOR};
use crate::sim::world::LOG;
use crate::storage::segment::{self, FIRST_RECORD};
use crate::types::{LogIndex, ServerId, SnapshotId, Term};

/// The log on one disk's stable media, read as far as it goes, and further each time.
pub(super) struct StableLog {
    /// The segment that is being read; those before it may be gone.
    segment: Option<u64>,
    /// The segment's file, once its name was found: looking for it costs more than reading on.
    inode: Option<usize>,
    position: usize,
    pending: Vec<Body>,
    log: Marks,
    hard_state: HardState,
    /// A digest of each whole write that was read, by its number.
    writes: BTreeMap<u64, u32>,
}

impl StableLog {
    pub fn new() -> StableLog {
        StableLog {
            segment: None,
            inode: None,
            position: FIRST_RECORD as usize,
            pending: Vec::new(),
            log: Marks::default(),
            hard_state: HardState::default(),
            writes: BTreeMap::new(),
        }
    }

    /// Reads on, and calls each entry that was not there before; without a mark, that all those from
    /// there on are gone.
    pub fn read_on(&mut self, media: &Media, mut seen: impl FnMut(LogIndex, Option<Mark>)) {
        loop {
            let number = self.segment.or_else(|| first_segment(media));
            let Some(number) = number else { return };
            self.segment = Some(number);
            let find = || {
                let path = segment::path(Path::new(LOG), number);
                media.stable_names.get(&path).copied()
            };
            self.inode = self.inode.or_else(find);
            let Some(inode) = self.inode else { return };
            let content = &media.inodes[inode].stable;
            let bytes = content.written();
            let Some(salt) = bytes.get(48..56) else { return };
            let salt = u64::from_le_bytes(salt.try_into().expect("eight bytes"));
            let key = SegmentKey { number, salt };
            let rest = bytes.get(self.position..).unwrap_or_default();
            if rest.is_empty() {
                return;
            }
            let mut decoded = decode(key, rest);
            if matches!(decoded, Ok(Decoded::Incomplete)) {
                // A torn record whose last bytes are zeros may be whole without having been written.
                let longer = content.copy(self.position, rest.len() + SECTOR);
                decoded = decode(key, &longer);
            }
            let Ok(Decoded::Record(record, length)) = decoded else { return };
            self.position += length;
            self.pending.push(record.body);
            if record.ends_write {
                let mut hasher = crc32fast::Hasher::new();
                for body in std::mem::take(&mut self.pending) {
                    hasher.update(&self.apply(body, &mut seen).to_le_bytes());
                }
                self.writes.insert(record.write, hasher.finalize());
            }
        }
    }

    /// Takes a record in, and returns a digest of it.
    fn apply(&mut self, body: Body, seen: &mut impl FnMut(LogIndex, Option<Mark>)) -> u32 {
        match body {
            Body::Entry(entry) => {
                let mark = mark(&entry);
                if entry.index != self.log.last_index().next() {
                    // The segments before the first one that is there are gone.
                    self.log = Marks::behind(entry.index.prev());
                }
                self.log.push(mark);
                seen(entry.index, Some(mark));
                mark.digest ^ mark.term.0 as u32
            }
            Body::Truncation(from) => {
                self.log.truncate_from(from);
                seen(from, None);
                from.0 as u32
            }
            Body::Reset(id) => {
                self.log = Marks::behind(id.index);
                seen(id.index.next(), None);
                id.index.0 as u32
            }
            Body::Continued(last) => {
                if self.log.last_index() == LogIndex::ZERO {
                    self.log = Marks::behind(last.index);
                }
                last.index.0 as u32
            }
            Body::HardState(state) => {
                self.hard_state = state;
                state.current_term.0 as u32
            }
            Body::Continues => {
                self.segment = self.segment.map(|number| number + 1);
                self.inode = None;
                self.position = FIRST_RECORD as usize;
                1
            }
            Body::Seal(boot) => boot.0 as u32,
        }
    }

    /// The entry at `index`, as it is on the disk.
    pub fn at(&self, index: LogIndex) -> Option<Mark> {
        self.log.at(index)
    }
}

/// The oldest segment that is there.
fn first_segment(media: &Media) -> Option<u64> {
    let log = Path::new(LOG);
    let inside = media.stable_names.keys().filter(|path| path.parent() == Some(log));
    inside.filter_map(|path| segment::number(path.file_name()?.to_str()?)).min()
}

/// A server has come back: every whole write that was stable before is there, but for those whose
/// segments a snapshot has replaced, and what the node begins with is what they say.
pub(super) fn check_recovered(
    id: ServerId,
    before: &Watched,
    after: &StableLog,
    snapshots: &StableSnapshots,
    node: &Node,
) {
    let first = after.writes.keys().next().copied().unwrap_or(u64::MAX);
    for (number, digest) in before.stable.writes.range(first..) {
        let found = after.writes.get(number);
        assert_eq!(
            found,
            Some(digest),
            "durable-before-ack: n{id} came back without write {number}, which its disk had"
        );
    }
    let snapshot = snapshots.newest();
    let reached = after.log.last_index().max(snapshot.index);
    let lost = before.stable.log.last_index() > reached;
    let was_cut = before.stable.writes.keys().last() < after.writes.keys().last();
    assert!(!lost || was_cut, "durable-before-ack: n{id} came back with a shorter log");

    let log = node.raft().log();
    assert_eq!(
        log.base().last,
        snapshot,
        "durable-before-ack: n{id} begins behind another snapshot"
    );
    // A log that doesn't hold the snapshot's last entry, or ends before it, is given up for it.
    let continues = snapshot == SnapshotId::default()
        || after.log.base() == snapshot.index
        || after.at(snapshot.index).is_some_and(|mark| mark.term == snapshot.term);
    let last = if continues { after.log.last_index() } else { snapshot.index };
    assert_eq!(
        log.last_index(),
        last,
        "durable-before-ack: n{id} begins with another log than its disk's"
    );
    for index in (snapshot.index.0 + 1..=last.0).map(LogIndex) {
        let term = after.at(index).map(|mark| mark.term);
        assert_eq!(log.term_at(index), term, "durable-before-ack: n{id} begins wrongly at {index}");
    }
    // Whoever has a snapshot of a term knew of that term.
    let HardState { current_term, voted_for } = match after.hard_state {
        state if state.current_term < snapshot.term => {
            HardState { current_term: snapshot.term, voted_for: None }
        }
        state => state,
    };
    assert_eq!(
        (current_term, voted_for),
        (node.raft().current_term(), node.raft().voted_for()),
        "hard-state: n{id} begins with another term or vote than its disk's"
    );
}

impl Checkers {
    /// A server sends a message: what it promises must be on its stable media by now.
    pub fn sends(&mut self, id: ServerId, packet: &Packet) {
        let committed = LogIndex(self.committed());
        let lost: BTreeSet<ServerId> =
            self.damaged.keys().copied().filter(|server| self.is_lost(*server)).collect();
        // To one that takes it for no voter it may say whatever it likes: a learner's word counts for
        // nothing, and a new one is known by its address before its directory is.
        let to = packet.envelope.to;
        let counts = self.servers.get(&to).is_some_and(|watched| {
            let membership = self.in_force(&watched.log, watched.log.last_index());
            membership.is_none_or(|membership| {
                membership.member(id).is_some_and(|member| member.voter || member.outgoing_voter)
            })
        });
        let lost = if counts { lost } else { BTreeSet::new() };
        self.rules.sends(id, packet, committed, |server| lost.contains(&server));
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
                    // What was applied may be in memory no more: then it is what is committed.
                    let committed = self.committed.get((match_index.0 as usize).wrapping_sub(1));
                    let is_gone = match_index <= watched.log.base();
                    let held =
                        watched.log.at(match_index).or(committed.copied().filter(|_| is_gone));
                    let is_in_log = held.is_some() && watched.stable.at(match_index) == held;
                    assert!(
                        match_index <= watched.snapshots.newest().index || is_in_log,
                        "durable-before-ack: n{id} acknowledges {match_index}"
                    );
                    watched.promised = watched.promised.max(response.term);
                }
            }
            _ => {}
        }
    }

    fn vote(&mut self, id: ServerId, term: Term, candidate: ServerId) {
        let incarnation = self.directories.get(&id).copied().unwrap_or_default();
        let voted = *self.votes.entry((id, incarnation, term)).or_insert(candidate);
        if self.may_forget(id) {
            return;
        }
        assert_eq!(voted, candidate, "hard-state: n{id} votes twice in term {term}");
        if let Some(watched) = self.servers.get_mut(&id) {
            watched.promised = watched.promised.max(term);
        }
    }
}
