//! Messages of members that do as they like: any term, any index, any entries.
//!
//! Some numbers are taken from the node itself, so that a message gets as far as the rule that it
//! breaks. What is never forged, and why, is said at the head of `node_input`. Called by `world`.

use bytes::Bytes;

use raftkv::kv::command;
use raftkv::kv::command_set;
use raftkv::node::Node;
use raftkv::proto::args::{Args, push_arg};
use raftkv::proto::batch::{Batch, BatchBuilder, Standing};
use raftkv::proto::entry::{Entry, EntryKind};
use raftkv::proto::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, BatchId, Envelope, GatewayId,
    GrowthRefusal, Message, Packet, ReadId, RequestVote, Vote,
};
use raftkv::raft::membership::{Member, Membership};
use raftkv::types::{
    BatchSeq, Boot, ClusterId, ClusterTime, CommandSet, Incarnation, LogIndex, ReadRound, ServerId,
    Term,
};

use super::reader::Reader;
use super::server::{Server, incarnation};

/// Entries of one forged AppendEntries.
const ENTRIES: usize = 5;

/// Commands in forged batches: sound ones, reads, and arguments that no gateway let through.
const COMMANDS: [&[&str]; 14] = [
    &["set", "a", "1"],
    &["incr", "n"],
    &["set", "a", "1", "px", "4"],
    &["mset", "a", "1", "b", "2"],
    &["mset", "a", "1", "b"],
    &["del", "a", "b"],
    &["cas", "a", "1", "2"],
    &["cas", "a"],
    &["incrby", "n", "9223372036854775807"],
    &["pexpire", "a", "9223372036854775807"],
    &["append", "a", "x"],
    &["get", "a"],
    &["flushall"],
    &["set"],
];

/// The message that `choice` stands for.
pub fn message(reader: &mut Reader<'_>, choice: Kind, server: &Server, from: ServerId) -> Message {
    let node = &server.node;
    let raft = node.raft();
    let term = raft.current_term();
    let (last, commit) = (raft.log().last_index(), raft.commit_index());
    match choice {
        Kind::RequestVote => Message::RequestVote(RequestVote {
            term: reader.term(term),
            pre_vote: reader.flag(),
            transfer: reader.one_in(4),
            bootstrap: reader.one_in(4),
            last_log_index: reader.index(last, commit),
            last_log_term: reader.term(raft.log().last_term()),
        }),
        Kind::Vote => Message::Vote(Vote {
            term: reader.term(term),
            pre_vote: reader.flag(),
            granted: !reader.one_in(4),
            cluster_time: reader.flag().then(|| time(reader)),
        }),
        Kind::Append => Message::AppendEntries(append_entries(reader, server)),
        Kind::Response => Message::AppendEntriesResponse(AppendEntriesResponse {
            term: reader.term(term),
            read_round: ReadRound(reader.number()),
            outcome: outcome(reader, last, commit, term),
        }),
        Kind::TimeoutNow => Message::TimeoutNow { term: reader.term(term) },
        Kind::Forward => Message::Forward { batch: batch(reader, server, Some(from)) },
        Kind::ReadIndex => Message::ReadIndex { id: read_id(reader) },
        Kind::ReadAnswer => {
            Message::ReadIndexResponse { id: read_id(reader), index: reader.index(last, commit) }
        }
    }
}

/// What kind of message is forged.
#[derive(Clone, Copy)]
pub enum Kind {
    RequestVote,
    Vote,
    Append,
    Response,
    TimeoutNow,
    Forward,
    ReadIndex,
    ReadAnswer,
}

pub const KINDS: [Kind; 8] = [
    Kind::RequestVote,
    Kind::Vote,
    Kind::Append,
    Kind::Response,
    Kind::TimeoutNow,
    Kind::Forward,
    Kind::ReadIndex,
    Kind::ReadAnswer,
];

/// What a good follower, voter or leader would answer to a packet of the node's.
pub fn answer(packet: &Packet) -> Option<Message> {
    Some(match &packet.message {
        Message::RequestVote(request) => Message::Vote(Vote {
            term: request.term,
            pre_vote: request.pre_vote,
            granted: true,
            cluster_time: None,
        }),
        Message::AppendEntries(request) => {
            let last = request.entries.last().map_or(request.prev_log_index, |entry| entry.index);
            Message::AppendEntriesResponse(AppendEntriesResponse {
                term: request.term,
                read_round: request.read_round,
                outcome: AppendOutcome::Match { match_index: last },
            })
        }
        Message::ReadIndex { id } => Message::ReadIndexResponse { id: *id, index: LogIndex::ZERO },
        _ => return None,
    })
}

/// An envelope in which all is right.
pub fn envelope(cluster: ClusterId, from: ServerId, to: ServerId) -> Envelope {
    Envelope {
        cluster,
        from,
        from_incarnation: incarnation(from),
        to,
        to_incarnation: incarnation(to),
    }
}

/// An envelope in which something is wrong.
pub fn wrong_envelope(reader: &mut Reader<'_>, right: Envelope) -> Envelope {
    match reader.below(5) {
        0 => Envelope { cluster: ClusterId(right.cluster.0 ^ 1), ..right },
        1 => Envelope { to: ServerId(right.to.0 + 1), ..right },
        2 => Envelope { to_incarnation: Incarnation(reader.number()), ..right },
        3 => Envelope { from_incarnation: Incarnation(reader.number()), ..right },
        _ => Envelope { from: right.to, from_incarnation: right.to_incarnation, ..right },
    }
}

fn time(reader: &mut Reader<'_>) -> ClusterTime {
    match reader.byte() {
        byte @ 0..=199 => ClusterTime(u64::from(byte)),
        200..=239 => ClusterTime(1_700_000_000_000),
        240..=247 => ClusterTime(i64::MAX as u64),
        _ => ClusterTime(u64::MAX),
    }
}

fn read_id(reader: &mut Reader<'_>) -> ReadId {
    ReadId { boot: Boot(reader.number()), number: reader.number() }
}

fn outcome(reader: &mut Reader<'_>, last: LogIndex, commit: LogIndex, term: Term) -> AppendOutcome {
    if reader.flag() {
        return AppendOutcome::Match { match_index: reader.index(last, commit) };
    }
    AppendOutcome::Conflict {
        rejected_index: reader.index(last, commit),
        hint_index: reader.index(last, commit),
        hint_term: reader.term(term),
    }
}

fn append_entries(reader: &mut Reader<'_>, server: &Server) -> AppendEntries {
    let raft = server.node.raft();
    let (last, commit) = (raft.log().last_index(), raft.commit_index());
    let term = reader.term(raft.current_term());
    let prev_log_index = reader.index(last, commit);
    let own_prev_term = raft.log().term_at(prev_log_index);
    let prev_log_term = match own_prev_term {
        Some(own) if !reader.one_in(8) => own,
        _ => reader.term(raft.log().last_term()),
    };
    let mut membership = membership_at(&server.node, prev_log_index);
    let mut entries = Vec::new();
    let mut entry_term = prev_log_term;
    for number in 1..=reader.below(ENTRIES + 1) as u64 {
        let gap = u64::from(reader.one_in(32));
        entry_term = match reader.below(8) {
            0..=4 => term,
            5..=6 => entry_term,
            _ => reader.term(entry_term),
        };
        let index = prev_log_index.plus(number + gap);
        let entry = match raft.log().entry(index) {
            // Of one index and term there is one entry.
            Some(own) if own.term == entry_term => own.clone(),
            _ => forge_entry(reader, server, index, entry_term, &membership),
        };
        if let (EntryKind::Membership, Some(new)) = (entry.kind, Membership::decode(&entry.payload))
        {
            membership = new;
        }
        entries.push(entry);
    }
    AppendEntries {
        term,
        prev_log_index,
        prev_log_term,
        leader_commit: reader.index(last.plus(entries.len() as u64), commit),
        read_round: ReadRound(reader.number()),
        cluster_time: time(reader),
        refuses_growth: [None, Some(GrowthRefusal::Disk), Some(GrowthRefusal::Memory)]
            [reader.below(8).saturating_sub(5)],
        entries,
    }
}

fn forge_entry(
    reader: &mut Reader<'_>,
    server: &Server,
    index: LogIndex,
    term: Term,
    membership: &Membership,
) -> Entry {
    // The first entry of a cluster is its membership; without it nothing else goes on.
    let kind = match reader.below(16) {
        _ if membership.is_empty() && !reader.one_in(16) => EntryKind::Membership,
        0..=8 => EntryKind::Batch,
        9..=12 => EntryKind::Empty,
        13 => EntryKind::CommandSet,
        _ => EntryKind::Membership,
    };
    let payload = match kind {
        EntryKind::Empty if reader.one_in(16) => Bytes::copy_from_slice(reader.bytes(8)),
        EntryKind::Empty => Bytes::new(),
        EntryKind::Batch => batch(reader, server, None),
        // One that the node doesn't know would end its process, and rightly so.
        EntryKind::CommandSet if reader.one_in(4) => Bytes::copy_from_slice(reader.bytes(3)),
        EntryKind::CommandSet => Bytes::copy_from_slice(&command_set::encode(CommandSet::FIRST)),
        EntryKind::Membership if reader.one_in(16) => Bytes::copy_from_slice(reader.bytes(8)),
        EntryKind::Membership => change(reader, membership, index).encode(),
    };
    Entry { index, term, time: time(reader), kind, payload }
}

/// The membership that the node's log has in force at `index`.
fn membership_at(node: &Node, index: LogIndex) -> Membership {
    let mut at = index.min(node.raft().log().last_index());
    while let Some(entry) = node.raft().log().entry(at) {
        if let (EntryKind::Membership, Some(found)) =
            (entry.kind, Membership::decode(&entry.payload))
        {
            return found;
        }
        at = at.prev();
    }
    Membership::nobody()
}

/// Someone comes, goes, or gets or loses a vote. Whoever comes is admitted at this entry.
fn change(reader: &mut Reader<'_>, before: &Membership, index: LogIndex) -> Membership {
    let member = |id: ServerId| Member {
        id,
        incarnation: incarnation(id),
        admitted: index,
        voter: true,
        outgoing_voter: false,
        promote: false,
        replaces: None,
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: String::new(),
    };
    if before.is_empty() {
        let count = [3, 5, 2, 1][reader.below(4)];
        return Membership::new((1..=count).map(|id| member(ServerId(id))).collect());
    }
    let mut members = before.members().to_vec();
    let id = ServerId(1 + reader.below(6) as u64);
    match members.iter().position(|one| one.id == id) {
        Some(at) if reader.flag() => members[at].voter ^= true,
        Some(at) => drop(members.remove(at)),
        None => {
            let incarnation = if reader.one_in(8) { Incarnation(5) } else { incarnation(id) };
            members.push(Member { incarnation, voter: reader.flag(), ..member(id) });
        }
    }
    Membership::new(members)
}

/// A batch that the node knows, or one of somebody else's; never a new one in the node's own name
/// and boot.
fn batch(reader: &mut Reader<'_>, server: &Server, from: Option<ServerId>) -> Bytes {
    let known = &server.batches;
    match reader.below(8) {
        0..=2 if !known.is_empty() => return known[reader.below(known.len())].clone(),
        3 if !known.is_empty() => {
            let payload = &known[reader.below(known.len())];
            let standings = [Standing::RefusedDisk, Standing::RefusedMemory];
            if let Some(batch) = Batch::decode(payload) {
                return batch.emptied(standings[reader.below(2)]);
            }
        }
        7 => return Bytes::copy_from_slice(reader.bytes(64)),
        _ => {}
    }
    let mut builder = BatchBuilder::default();
    for _ in 0..reader.below(4) {
        let words = COMMANDS[reader.below(COMMANDS.len())];
        let mut encoded = Vec::new();
        words.iter().for_each(|word| push_arg(&mut encoded, word.as_bytes()));
        let code = command::lookup(words[0].as_bytes()).map_or(0, |command| command.code);
        let code = if reader.one_in(16) { u16::from(reader.byte()) } else { code };
        builder.push(code, &Args::new(words.len() as u32, &encoded));
    }
    let mut gateway = ServerId(1 + reader.below(5) as u64);
    if let Some(from) = from.filter(|_| !reader.one_in(8)) {
        gateway = from;
    }
    let own = gateway == server.id;
    let epoch = if own { Boot::ZERO } else { Boot(1 + reader.below(3) as u64) };
    let gateway = GatewayId {
        server: gateway,
        incarnation: incarnation(gateway),
        admitted: LogIndex(1 + reader.below(3) as u64),
    };
    builder.finish(BatchId { gateway, epoch, seq: BatchSeq(reader.number()) })
}
