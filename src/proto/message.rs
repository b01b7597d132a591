//! What servers say to each other, as values.
//!
//! Dissertation §3 (RequestVote, AppendEntries), §3.10 (TimeoutNow), §5.1 (InstallSnapshot), §6.4
//! (read rounds), §9.6 (pre-vote); forwarding and read requests are our own, see ARCHITECTURE.md.
//! Called by `raft/` and `node/`; [`super::peer_message`] holds the encoding.

use bytes::Bytes;

use crate::proto::admin::{AdminId, Answer};
use crate::proto::entry::Entry;
use crate::types::{
    BatchSeq, Boot, ClusterId, ClusterTime, Incarnation, LogIndex, ReadRound, ServerId, SnapshotId,
    Term,
};

/// Whom a message is from and for. Mail for someone else is dropped and counted: a wiped disk, a
/// second cluster and an address that changed hands all show here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub from: ServerId,
    /// The sender's data directory.
    pub from_incarnation: Incarnation,
    /// The receiver.
    pub to: ServerId,
    /// The data directory that the message is meant for.
    pub to_incarnation: Incarnation,
}

/// A message and its envelope: what one frame between peers carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// From whom, for whom.
    pub envelope: Envelope,
    /// What it says.
    pub message: Message,
}

/// One message between servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// §3.4, and §9.6 when `pre_vote`.
    RequestVote(RequestVote),
    /// The answer to it.
    Vote(Vote),
    /// §3.5; without entries it is a heartbeat, a read round, or the news of a commit.
    AppendEntries(AppendEntries),
    /// The answer to it.
    AppendEntriesResponse(AppendEntriesResponse),
    /// §3.10: the leader asks its chosen successor to campaign at once.
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// A gateway hands a batch (see [`super::batch`]) to the leader.
    Forward {
        /// The batch, encoded.
        batch: Bytes,
    },
    /// A follower asks the leader for a read index (§6.4) for the reads it holds.
    ReadIndex {
        /// Names the question.
        id: ReadId,
    },
    /// A node hands an operator's request to the leader.
    Admin {
        /// Names the request.
        id: AdminId,
        /// The leader's term: whoever leads in another one drops it, so that a late copy changes
        /// nothing that was decided since.
        term: Term,
        /// The command's words: see [`super::admin::unpack_words`].
        words: Bytes,
    },
    /// The leader's answer, once the entry that concludes it is committed.
    AdminResponse {
        /// The request.
        id: AdminId,
        /// What came of it.
        answer: Answer,
    },
    /// The leader's answer, once a majority confirmed it.
    ReadIndexResponse {
        /// The question.
        id: ReadId,
        /// Reads may be served by whoever has applied this far.
        index: LogIndex,
    },
    /// What the sender has come to by applying the log up to an index; see `node/divergence.rs`.
    Checkpoint {
        /// The last entry applied.
        index: LogIndex,
        /// The running digest there.
        digest: u64,
    },
    /// §5.1: a piece of the leader's snapshot, for a follower whose next entry is gone.
    InstallSnapshot(InstallSnapshot),
    /// The answer to it. That the snapshot is installed is said by [`AppendOutcome::Match`].
    InstallSnapshotResponse(InstallSnapshotResponse),
}

/// A question for a read index. It begins with the boot counter, so that no late answer serves a
/// later process's question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReadId {
    /// The asking process's boot.
    pub boot: Boot,
    /// 1, 2, 3 ... in this boot.
    pub number: u64,
}

/// A candidate asks for a vote (§3.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestVote {
    /// The candidate's term; for a pre-vote the term it would campaign in.
    pub term: Term,
    /// Whether this only asks if a campaign would succeed (§9.6).
    pub pre_vote: bool,
    /// Whether the leader itself asked the candidate to campaign (§3.10): nobody protects it then.
    pub transfer: bool,
    /// Whether the candidate is founding the cluster: its log is empty and it knows no membership.
    pub bootstrap: bool,
    /// The index of the candidate's last entry.
    pub last_log_index: LogIndex,
    /// The term of the candidate's last entry.
    pub last_log_term: Term,
}

/// The answer to [`RequestVote`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// For a granted pre-vote the term it was granted for, else the voter's own term.
    pub term: Term,
    /// Which question this answers.
    pub pre_vote: bool,
    /// The answer.
    pub granted: bool,
    /// The voter's estimate of the cluster clock, if it has heard a leader since it started.
    pub cluster_time: Option<ClusterTime>,
}

/// A leader cannot take growth; gateways refuse growing commands before they number them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum GrowthRefusal {
    /// Its disk is full.
    Disk = 1,
    /// Its memory quota is used up.
    Memory = 2,
}

/// The leader replicates (§3.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The index before the first of `entries`.
    pub prev_log_index: LogIndex,
    /// The term of the entry there.
    pub prev_log_term: Term,
    /// The leader's commit index.
    pub leader_commit: LogIndex,
    /// The newest read round; the answer echoes it.
    pub read_round: ReadRound,
    /// The cluster clock now, by the leader.
    pub cluster_time: ClusterTime,
    /// Whether the leader cannot take growth.
    pub refuses_growth: Option<GrowthRefusal>,
    /// What follows on `prev_log_index`, possibly nothing.
    pub entries: Vec<Entry>,
}

/// The answer to [`AppendEntries`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendEntriesResponse {
    /// The follower's term.
    pub term: Term,
    /// The read round of the newest request that was seen.
    pub read_round: ReadRound,
    /// How the log compares.
    pub outcome: AppendOutcome,
}

/// How a follower's log compares with what the leader sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// The logs are the same up to here, and it is durable at the follower.
    Match {
        /// Becomes the leader's `matchIndex`.
        match_index: LogIndex,
    },
    /// The follower has another entry, or none, at the request's `prev_log_index`.
    Conflict {
        /// The request's `prev_log_index`.
        rejected_index: LogIndex,
        /// The last index at which the logs may agree, by what the follower knows.
        hint_index: LogIndex,
        /// The term of the follower's entry at `hint_index`.
        hint_term: Term,
    },
}

/// A piece of a snapshot's file (§5.1). It also says that the leader is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// Where in the file the piece belongs.
    pub offset: u64,
    /// The file's length in bytes.
    pub total: u64,
    /// The cluster clock now, by the leader.
    pub cluster_time: ClusterTime,
    /// At most [`SNAPSHOT_CHUNK_BYTES`](crate::limits::SNAPSHOT_CHUNK_BYTES); empty where the
    /// leader only asks what the follower has.
    pub bytes: Bytes,
}

/// The answer to [`InstallSnapshot`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstallSnapshotResponse {
    /// The follower's term.
    pub term: Term,
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// The offset of the piece that this answers.
    pub asked: u64,
    /// What has become of it.
    pub outcome: InstallOutcome,
}

/// How far a follower is with a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstallOutcome {
    /// It has written the file up to here, and wants what follows.
    Next {
        /// 0 where it has nothing of it.
        offset: u64,
    },
    /// The whole file came and is damaged, or isn't the snapshot that it was called: the follower
    /// has thrown it away.
    Refused,
}

/// The name of one batch: which gateway sent it, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GatewayId {
    /// The gateway's server.
    pub server: ServerId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// The log index that admitted it to the cluster.
    pub admitted: LogIndex,
}

/// One batch's place in its gateway's sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchId {
    /// The gateway.
    pub gateway: GatewayId,
    /// The gateway's boot.
    pub epoch: Boot,
    /// The number in that boot.
    pub seq: BatchSeq,
}
