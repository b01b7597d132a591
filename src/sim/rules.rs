//! Rules whose breach does harm only if further rare faults follow, checked where they are broken.
//!
//! [`super::checkers`] asserts the invariants of design page 5 as they are stated; here is what they
//! rest on, from outside and without a look at how a node keeps it. Each assertion bears the name
//! of the invariant that would fall in the end. Called by the checkers, turn by turn.

use std::collections::BTreeMap;

use crate::node::{Node, Role};
use crate::proto::message::{AppendOutcome, Message, Packet, ReadId};
use crate::types::{LogIndex, ServerId, Term};

/// Where a log ends: what an election compares (§3.6.1).
type LogEnd = (Term, LogIndex);

/// One server, as its last turn left it.
#[derive(Clone, Copy, Default)]
struct Seen {
    term: Term,
    leads: bool,
    commit_index: LogIndex,
    /// The end of its log, and what that was a turn earlier.
    log_end: LogEnd,
    log_end_before: LogEnd,
    /// The newest term in which it acknowledged entries, and how far.
    acknowledged: (Term, LogIndex),
    /// Its vote, and the end of its log when it decided on that.
    vote: (Term, Option<ServerId>, LogEnd),
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Rules {
    servers: BTreeMap<ServerId, Seen>,
    /// What was committed when a follower asked for a read index.
    asked: BTreeMap<(ServerId, ReadId), LogIndex>,
    /// The best log that a server asked for votes with, by the term that it wants.
    canvassed: BTreeMap<(ServerId, Term), LogEnd>,
}

impl Rules {
    /// A server has started from what its disk holds. `is_new`: on another one than before.
    pub fn started(&mut self, id: ServerId, node: &Node, is_new: bool) {
        let end = log_end(node);
        let seen = self.servers.entry(id).or_default();
        let acknowledged = if is_new { (Term::ZERO, LogIndex::ZERO) } else { seen.acknowledged };
        *seen = Seen { log_end: end, log_end_before: end, acknowledged, ..Seen::default() };
    }

    /// A server has taken its turn. `may_forget`: its disk was damaged, replaced or put back.
    pub fn after_turn(&mut self, id: ServerId, node: &Node, may_forget: bool) {
        let seen = self.servers.get_mut(&id).expect("it has started");
        let status = node.status();
        let (term, leads) = (status.current_term, status.role == Role::Leader);
        let still_leads = seen.leads && leads && seen.term == term;
        if still_leads && status.commit_index > seen.commit_index {
            // §3.6.2: what an older term left is committed by an entry of this one, never by
            // counting: another leader may replace it yet (figure 3.7).
            let counted = node.raft().log().term_at(status.commit_index);
            assert_eq!(
                counted,
                Some(term),
                "leader-completeness: n{id} commits {} by counting, in {term}",
                status.commit_index
            );
        }
        let (acknowledged_in, index) = seen.acknowledged;
        if acknowledged_in == term && !may_forget {
            // A leader never takes back an entry within its term, so neither does who follows it.
            assert!(
                status.last_log_index >= index,
                "durable-before-ack: n{id} takes back {index}, acknowledged in term {term}"
            );
        }
        let log_end_before = std::mem::replace(&mut seen.log_end, log_end(node));
        let commit_index = status.commit_index;
        *seen = Seen { term, leads, commit_index, log_end_before, ..*seen };
        let voted_for = node.raft().voted_for();
        if (seen.vote.0, seen.vote.1) != (term, voted_for) {
            seen.vote = (term, voted_for, seen.log_end.min(log_end_before));
        }
    }

    /// A server sends a message. `committed`: how many entries were ever applied by anyone.
    /// `is_lost`: whose disk was damaged, replaced or put back.
    pub fn sends(
        &mut self,
        id: ServerId,
        packet: &Packet,
        committed: LogIndex,
        is_lost: impl Fn(ServerId) -> bool,
    ) {
        let to = packet.envelope.to;
        // Two servers that both lost their disks know nothing of each other.
        if is_lost(id) && !is_lost(to) {
            let promises = match &packet.message {
                // Whoever has nothing cannot know that the cluster was founded without it, and may
                // vote for another who has nothing; that founds no cluster, for want of the others.
                Message::Vote(vote) => {
                    let best = self.canvassed.get(&(to, vote.term)).copied().unwrap_or_default();
                    vote.granted && best != LogEnd::default()
                }
                Message::AppendEntriesResponse(response) => matches!(
                    response.outcome,
                    AppendOutcome::Match { match_index } if match_index > LogIndex::ZERO
                ),
                _ => false,
            };
            assert!(!promises, "fail-stop: n{id} lost its disk, and says {:?}", packet.message);
        }
        match &packet.message {
            Message::AppendEntriesResponse(response) => {
                if let AppendOutcome::Match { match_index } = response.outcome {
                    let seen = self.servers.get_mut(&id).expect("it has started");
                    seen.acknowledged = seen.acknowledged.max((response.term, match_index));
                }
            }
            Message::ReadIndex { id: read } => {
                self.asked.entry((id, *read)).or_insert(committed);
            }
            Message::ReadIndexResponse { id: read, index } => {
                // §6.4: what was applied anywhere before the question was committed then.
                let before = self.asked.get(&(to, *read)).copied().unwrap_or_default();
                assert!(
                    *index >= before,
                    "linearizable: n{id} lets n{to} read at {index}, asked when {before} was applied"
                );
            }
            Message::RequestVote(request) => {
                let end = (request.last_log_term, request.last_log_index);
                let best = self.canvassed.entry((id, request.term)).or_default();
                *best = end.max(*best);
            }
            Message::Vote(vote) if vote.pre_vote && vote.granted => {
                // §9.6: whoever could not win must not be encouraged to raise everybody's term.
                let seen = self.servers.get(&id).expect("it has started");
                let own = seen.log_end.min(seen.log_end_before);
                let best = self.canvassed.get(&(to, vote.term)).copied().unwrap_or_default();
                assert!(
                    best >= own,
                    "convergence: n{id}, whose log ends at {own:?}, encourages n{to} with {best:?}"
                );
            }
            Message::Vote(vote) if vote.granted => {
                let seen = self.servers.get(&id).expect("it has started");
                let (term, voted_for, own) = seen.vote;
                let best = self.canvassed.get(&(to, vote.term)).copied().unwrap_or_default();
                let is_this = (term, voted_for) == (vote.term, Some(to));
                assert!(
                    best >= own || !is_this,
                    "leader-completeness: n{id}, whose log ends at {own:?}, votes for n{to} with \
                     {best:?}"
                );
            }
            _ => {}
        }
    }

    /// A server answers a client. `applied`: how far it has applied the log. `floor`: how far anyone
    /// had when the command was sent.
    pub fn answers(id: ServerId, applied: LogIndex, floor: LogIndex) {
        assert!(
            applied >= floor,
            "linearizable: n{id} answers out of {applied}, asked when {floor} was applied"
        );
    }
}

fn log_end(node: &Node) -> LogEnd {
    let log = node.raft().log();
    (log.last_term(), log.last_index())
}
