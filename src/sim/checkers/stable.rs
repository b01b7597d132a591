//! *durable-before-ack* and *hard-state*: what a server promises is on its stable media by then, and
//! is still there when it comes back.
//!
//! The log records on the stable media are read with the real record codec, on as they grow and
//! from the beginning at each start. Called by the checkers' front door.

use std::path::Path;

use super::{Checkers, Mark, Watched, mark};
use crate::node::Node;
use crate::proto::entry::HardState;
use crate::proto::message::{AppendOutcome, Message, Packet};
use crate::proto::record::{Body, Decoded, SegmentKey, decode};
use crate::sim::media::Media;
use crate::sim::world::LOG;
use crate::storage::segment::{self, FIRST_RECORD};
use crate::types::{LogIndex, ServerId, Term};

/// The log on one disk's stable media, read as far as it goes, and further each time.
pub(super) struct StableLog {
    segment: u64,
    position: usize,
    pending: Vec<Body>,
    marks: Vec<Mark>,
    hard_state: HardState,
    /// A digest of each whole write that was read, in order.
    writes: Vec<u32>,
}

impl StableLog {
    pub fn new() -> StableLog {
        StableLog {
            segment: 1,
            position: FIRST_RECORD as usize,
            pending: Vec::new(),
            marks: Vec::new(),
            hard_state: HardState::default(),
            writes: Vec::new(),
        }
    }

    /// Reads on, and calls each entry that was not there before.
    pub fn read_on(&mut self, media: &Media, mut seen: impl FnMut(LogIndex, Mark)) {
        loop {
            let path = segment::path(Path::new(LOG), self.segment);
            let Some(inode) = media.stable_names.get(&path) else { return };
            let bytes = &media.inodes[*inode].stable;
            let Some(salt) = bytes.get(48..56) else { return };
            let salt = u64::from_le_bytes(salt.try_into().expect("eight bytes"));
            let key = SegmentKey { number: self.segment, salt };
            let Some(rest) = bytes.get(self.position..) else { return };
            let Ok(Decoded::Record(record, length)) = decode(key, rest) else { return };
            self.position += length;
            self.pending.push(record.body);
            if record.ends_write {
                let mut hasher = crc32fast::Hasher::new();
                hasher.update(&record.write.to_le_bytes());
                for body in std::mem::take(&mut self.pending) {
                    hasher.update(&self.apply(body, &mut seen).to_le_bytes());
                }
                self.writes.push(hasher.finalize());
            }
        }
    }

    /// Takes a record in, and returns a digest of it.
    fn apply(&mut self, body: Body, seen: &mut impl FnMut(LogIndex, Mark)) -> u32 {
        match body {
            Body::Entry(entry) => {
                let mark = mark(&entry);
                self.marks.push(mark);
                seen(LogIndex(self.marks.len() as u64), mark);
                mark.digest ^ mark.term.0 as u32
            }
            Body::Truncation(from) => {
                self.marks.truncate(from.0 as usize - 1);
                from.0 as u32
            }
            Body::HardState(state) => {
                self.hard_state = state;
                state.current_term.0 as u32
            }
            Body::Continues => {
                self.segment += 1;
                self.position = FIRST_RECORD as usize;
                1
            }
            Body::Seal(boot) => boot.0 as u32,
        }
    }

    /// The entry at `index`, as it is on the disk.
    pub fn at(&self, index: LogIndex) -> Option<Mark> {
        self.marks.get(index.0.checked_sub(1)? as usize).copied()
    }
}

/// A server has come back: every whole write that was stable before is there, and what the node
/// begins with is what they say.
pub(super) fn check_recovered(id: ServerId, before: &Watched, after: &StableLog, node: &Node) {
    let kept = after.writes.iter().zip(&before.stable.writes).take_while(|(a, b)| a == b).count();
    assert_eq!(
        kept,
        before.stable.writes.len(),
        "durable-before-ack: n{id} came back without writes that its disk had"
    );
    let log = node.raft().log();
    assert_eq!(
        log.last_index().0,
        after.marks.len() as u64,
        "durable-before-ack: n{id} begins with another log than its disk's"
    );
    for (mark, index) in after.marks.iter().zip(1..) {
        let term = log.term_at(LogIndex(index));
        assert_eq!(term, Some(mark.term), "durable-before-ack: n{id} begins wrongly at {index}");
    }
    assert_eq!(
        (after.hard_state.current_term, after.hard_state.voted_for),
        (node.raft().current_term(), node.raft().voted_for()),
        "hard-state: n{id} begins with another term or vote than its disk's"
    );
}

impl Checkers {
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
        let voted = *self.votes.entry((id, term)).or_insert(candidate);
        if self.damaged.contains(&id) {
            return;
        }
        assert_eq!(voted, candidate, "hard-state: n{id} votes twice in term {term}");
        if let Some(watched) = self.servers.get_mut(&id) {
            watched.promised = watched.promised.max(term);
        }
    }
}
