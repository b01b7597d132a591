//! Snapshots as consensus sees them: what they allow to be discarded (§5), and what installing one
//! replaces (§5.1; figure 13 of the Raft paper), the follower's side.
//!
//! Called by `server.rs` and `node/`. The file itself is the node's and the driver's business: a
//! piece that arrives is handed on ([`Action::WriteSnapshot`]), and nothing is replaced before the
//! whole file is verified and durable under its name.
//!
//! [`Action::WriteSnapshot`]: super::Action::WriteSnapshot

use bytes::Bytes;

use super::append::InstallAnswer;
use super::log::Base;
use super::membership::Membership;
use super::server::{Raft, Role};
use crate::limits;
use crate::proto::message::{InstallOutcome, InstallSnapshot, InstallSnapshotResponse, Message};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{ClusterTime, Instant, LogIndex, ServerId, SnapshotId, Term};

/// A snapshot that is durable under its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The last entry that it includes.
    pub id: SnapshotId,
    /// Its file's length in bytes.
    pub bytes: u64,
    /// The state machine's clock there.
    pub time: ClusterTime,
    /// The membership in force there, and the index of its entry.
    pub membership_index: LogIndex,
    /// See `membership_index`.
    pub membership: Membership,
}

impl Snapshot {
    /// What a log that was replaced by it begins behind.
    pub(super) fn base(&self) -> Base {
        Base { last: self.id, time: self.time }
    }
}

/// A piece of a snapshot from the leader, to be appended to the file that is being received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// The file's length in bytes, once it is whole.
    pub total: u64,
    /// Where the piece belongs: 0 begins a new file.
    pub offset: u64,
    /// What it holds.
    pub bytes: Bytes,
}

/// What a server knows of its snapshots.
#[derive(Default, Debug)]
pub(super) struct Snapshots {
    /// The newest durable one, and its file's length.
    pub newest: Option<(SnapshotId, u64)>,
    /// The file that is being received.
    receiving: Option<Receiving>,
    /// Pieces of it that came in this turn.
    pub pieces: Vec<Piece>,
    /// Whether the file that was being received is of no use any more.
    pub is_abandoned: bool,
    /// Whether the newest one cannot be sent: another should be taken soon.
    wants_another: bool,
    /// After a full disk: no piece is taken before this.
    pause_until: Instant,
}

#[derive(Debug)]
struct Receiving {
    /// Whose file it is. Two servers' snapshots of one index are the same state in different bytes.
    from: ServerId,
    /// The term in which its last piece came.
    term: Term,
    snapshot: SnapshotId,
    total: u64,
    /// Up to here it was handed on.
    received: u64,
    /// Up to here it was written.
    written: u64,
    /// The offset of the last piece that came, whether it was news or not.
    asked: u64,
}

impl Receiving {
    fn is_whole(&self) -> bool {
        self.received == self.total
    }
}

impl Snapshots {
    pub fn new(newest: Option<(SnapshotId, u64)>) -> Snapshots {
        Snapshots { newest, ..Snapshots::default() }
    }

    /// The file of a snapshot is gone.
    pub fn is_lost(&mut self, snapshot: SnapshotId) {
        if self.newest.is_some_and(|(newest, _)| newest == snapshot) {
            self.newest = None;
            self.wants_another = true;
        }
    }

    /// A follower needs a snapshot, and what follows on the newest one was discarded.
    pub fn is_outrun(&mut self) {
        self.wants_another = true;
    }

    /// A follower found a snapshot damaged.
    pub fn is_doubted(&mut self, snapshot: SnapshotId) {
        self.wants_another |= self.newest.is_some_and(|(newest, _)| newest == snapshot);
    }

    fn note(&mut self, snapshot: SnapshotId, bytes: u64) {
        if self.newest.is_none_or(|(newest, _)| newest.index < snapshot.index) {
            self.newest = Some((snapshot, bytes));
            self.wants_another = false;
        }
    }
}

impl Raft {
    /// The newest durable snapshot, and its file's length in bytes.
    pub fn snapshot(&self) -> Option<(SnapshotId, u64)> {
        self.snapshots.newest
    }

    /// The membership in force at `index` of the log, and the index of its entry; `None` where that
    /// is before the log's beginning, or the cluster was not founded yet.
    pub fn membership_at(&self, index: LogIndex) -> Option<(LogIndex, &Membership)> {
        let mut before = self.memberships.iter().rev().filter(|(at, _)| *at <= index);
        before.next().map(|(at, membership)| (*at, membership))
    }

    /// The oldest membership that is remembered, and the index of its entry.
    pub fn oldest_membership(&self) -> Option<(LogIndex, &Membership)> {
        self.memberships.first().map(|(at, membership)| (*at, membership))
    }

    /// Whether a follower was offered a snapshot that can't be sent: the next one is urgent.
    pub fn wants_snapshot(&self) -> bool {
        self.snapshots.wants_another
    }

    /// The snapshot that is being received from a leader: how many of its bytes came, and how many
    /// there are.
    pub fn receiving(&self) -> Option<(SnapshotId, u64, u64)> {
        let receiving = self.snapshots.receiving.as_ref()?;
        Some((receiving.snapshot, receiving.received, receiving.total))
    }

    /// Bytes of a snapshot that were received and are not yet written.
    pub fn receiving_held(&self) -> usize {
        let held = |receiving: &Receiving| (receiving.received - receiving.written) as usize;
        self.snapshots.receiving.as_ref().map_or(0, held)
    }

    /// A snapshot of this server's own is durable under its name.
    pub fn snapshot_taken(&mut self, snapshot: SnapshotId, bytes: u64) {
        assert!(snapshot.index <= self.commit_index, "what isn't committed is in no snapshot");
        self.snapshots.note(snapshot, bytes);
    }

    /// The oldest snapshot that a follower is taking, while the log has room to wait for it: should
    /// another be taken meanwhile, its file would go, or what the follower needs behind it.
    pub fn pinned_snapshot(&self, now: Instant) -> Option<SnapshotId> {
        let Role::Leader(leading) = &self.role else {
            return None;
        };
        let taken = leading.followers.values().filter_map(|follower| follower.is_taking(now));
        taken.min().filter(|_| self.log.bytes() < self.most_log_bytes())
    }

    /// What stays in memory for followers at most, in bytes.
    fn most_log_bytes(&self) -> usize {
        let snapshot_bytes = self.snapshots.newest.map_or(0, |(_, bytes)| bytes);
        let tails = limits::LOG_INSTALL_TAILS.saturating_mul(self.log_tail_bytes);
        tails.max(usize::try_from(snapshot_bytes).unwrap_or(usize::MAX))
    }

    /// Discards entries from memory that this server has applied and its disk has, but for the last
    /// ones: they stay for followers that lag. The disk keeps what the newest snapshot doesn't
    /// include; a follower that needs what was discarded is sent a snapshot. `taking` is the last
    /// entry of the snapshot that is being made. A bounded number in each turn.
    pub fn compact(&mut self, now: Instant, last_applied: LogIndex, taking: Option<LogIndex>) {
        let bytes = self.log.bytes();
        if bytes <= self.least_log_bytes() {
            return;
        }
        let needed = self.needed_behind(now, taking);
        let is_pinned = needed.is_some_and(|needed| needed <= self.log.base().last.index);
        if is_pinned && bytes <= self.most_log_bytes() {
            return;
        }
        let surplus = bytes - self.least_log_bytes();
        let ours = last_applied.min(self.durability.durable_index());
        let mut to = self.log.index_past(surplus, limits::COMPACT_ENTRIES).min(ours);
        if let Some(needed) = needed
            && needed < to
        {
            let surplus = bytes.saturating_sub(self.most_log_bytes());
            to = needed.max(self.log.index_past(surplus, limits::COMPACT_ENTRIES).min(to));
        }
        if to > self.log.base().last.index {
            self.log.compact(to);
            let in_force = self.memberships.iter().rposition(|(at, _)| *at <= to);
            self.memberships.drain(..in_force.unwrap_or(0));
        }
    }

    /// What stays in memory in any case, in bytes: of a large state a snapshot is sent less lightly.
    fn least_log_bytes(&self) -> usize {
        let snapshot_bytes = self.snapshots.newest.map_or(0, |(_, bytes)| bytes);
        let share = usize::try_from(snapshot_bytes / limits::LOG_STATE_SHARE);
        self.log_tail_bytes.max(share.unwrap_or(usize::MAX))
    }

    /// Behind which entry the log is still needed: by followers that take something, be it entries
    /// or a snapshot, or that wait for the one that is being made.
    fn needed_behind(&self, now: Instant, taking: Option<LogIndex>) -> Option<LogIndex> {
        let Role::Leader(leading) = &self.role else {
            return None;
        };
        let newest = self.snapshots.newest.map(|(newest, _)| newest.index);
        let first_index = self.log.first_index();
        let needs = leading.followers.iter().filter_map(|(id, follower)| {
            let lacks = follower.next_index < first_index;
            match (lacks, follower.is_sent()) {
                (true, _) if !self.links.contains_key(id) => None,
                (true, None) => taking.or(newest),
                _ => follower.needs_behind(now),
            }
        });
        needs.min()
    }

    /// InstallSnapshot, receiver.
    pub(super) fn receive_install_snapshot(
        &mut self,
        now: Instant,
        from: ServerId,
        request: InstallSnapshot,
    ) {
        let InstallSnapshot { term, snapshot, offset, total, cluster_time, .. } = request;
        if term < self.current_term && !is_on(Mutation::InstallIgnoresTerm) {
            // The sender was deposed and doesn't know: our term tells it.
            let outcome = InstallOutcome::Next { offset: 0 };
            let term = self.current_term;
            let response = InstallSnapshotResponse { term, snapshot, asked: offset, outcome };
            return self.withhold(from, Message::InstallSnapshotResponse(response));
        }
        let is_sound = snapshot.index > LogIndex::ZERO && snapshot.term <= term && total > 0;
        if !is_sound || self.knows_another_leader(from, term) {
            self.refused_messages += 1;
            return;
        }
        self.hear_leader(now, from, term, cluster_time);
        if snapshot.index <= self.commit_index || self.log.includes(snapshot) {
            // We have what it includes, and it includes only what is committed (§5.1).
            reached(Mark::InstallNotNeeded);
            self.commit_index = self.commit_index.max(snapshot.index);
            self.following().verified(snapshot.index);
            return;
        }
        // A full disk is not asked again with each piece; the leader asks now and then.
        if now >= self.snapshots.pause_until {
            self.receive_piece(from, request);
        }
    }

    /// A piece in its turn is handed on; any other is answered with what we have.
    fn receive_piece(&mut self, from: ServerId, request: InstallSnapshot) {
        let InstallSnapshot { term, snapshot, offset, total, bytes, .. } = request;
        let is_same = |receiving: &Receiving| {
            (receiving.from, receiving.snapshot, receiving.total) == (from, snapshot, total)
        };
        match &self.snapshots.receiving {
            Some(receiving) if is_same(receiving) => {}
            // A whole file is about to become durable, or an older one's piece came late.
            Some(receiving) if receiving.is_whole() => return,
            Some(receiving) if receiving.term == term && receiving.snapshot > snapshot => return,
            _ if offset > 0 => {
                let outcome = InstallOutcome::Next { offset: 0 };
                let answer = InstallAnswer { snapshot, asked: offset, outcome };
                self.following().install_answer = Some(answer);
                return;
            }
            _ => {
                self.snapshots.pieces.clear();
                self.snapshots.receiving = Some(Receiving {
                    from,
                    term,
                    snapshot,
                    total,
                    received: 0,
                    written: 0,
                    asked: 0,
                });
            }
        }
        let receiving = self.snapshots.receiving.as_mut().expect("just seen or set");
        receiving.term = term;
        receiving.asked = offset;
        let waiting = receiving.received - receiving.written;
        let known = receiving.received.checked_sub(offset);
        let news = known.and_then(|known| bytes.get(usize::try_from(known).ok()?..));
        match news {
            Some(news) if !news.is_empty() && waiting <= limits::SNAPSHOT_WINDOW_BYTES => {
                let piece = Piece {
                    snapshot,
                    total,
                    offset: receiving.received,
                    bytes: bytes.slice_ref(news),
                };
                receiving.received += news.len() as u64;
                self.snapshots.pieces.push(piece);
            }
            _ => self.answer_install(),
        }
    }

    /// The file that is being received was written up to `through`.
    pub fn piece_written(&mut self, snapshot: SnapshotId, through: u64) {
        let receiving = self.snapshots.receiving.as_mut();
        let Some(receiving) = receiving.filter(|receiving| receiving.snapshot == snapshot) else {
            return;
        };
        receiving.written = receiving.written.max(through.min(receiving.received));
        self.answer_install();
    }

    /// The leader whose file it is awaits an answer.
    fn answer_install(&mut self) {
        let Some(receiving) = &self.snapshots.receiving else {
            return;
        };
        let Receiving { from, snapshot, asked, written, .. } = *receiving;
        let outcome = InstallOutcome::Next { offset: written };
        if self.leader == Some(from)
            && let Role::Follower(following) = &mut self.role
        {
            following.install_answer = Some(InstallAnswer { snapshot, asked, outcome });
        }
    }

    /// The disk has no room for the file that was being received: the leader, who isn't told, goes
    /// on asking what we have.
    pub fn snapshot_full(&mut self, now: Instant, snapshot: SnapshotId) {
        if self.snapshots.receiving.take_if(|held| held.snapshot == snapshot).is_some() {
            self.snapshots.pieces.clear();
            self.snapshots.pause_until = now.after(limits::INSTALL_FULL_PAUSE);
        }
    }

    /// The file that was being received is damaged, or not what it was called.
    pub fn snapshot_refused(&mut self, snapshot: SnapshotId) {
        let receiving = self.snapshots.receiving.take_if(|held| held.snapshot == snapshot);
        let Some(Receiving { from, asked, .. }) = receiving else {
            return;
        };
        self.snapshots.pieces.clear();
        let outcome = InstallOutcome::Refused;
        if self.leader == Some(from)
            && let Role::Follower(following) = &mut self.role
        {
            following.install_answer = Some(InstallAnswer { snapshot, asked, outcome });
        }
    }

    /// What was being received isn't needed any more: the log has it by now.
    pub(super) fn abandon_receiving(&mut self) {
        let commit_index = self.commit_index;
        let is_stale =
            |held: &mut Receiving| held.snapshot.index <= commit_index && !held.is_whole();
        if self.snapshots.receiving.take_if(is_stale).is_some() {
            self.snapshots.pieces.clear();
            self.snapshots.is_abandoned = true;
        }
    }

    /// The snapshot that was received is verified and durable under its name. Where the log has its
    /// last entry, what follows on it is kept; else the whole log is replaced. Returns whether it
    /// was: then the state machine has to be made from the snapshot.
    pub fn install(&mut self, now: Instant, snapshot: &Snapshot) -> bool {
        self.snapshots.receiving.take_if(|held| held.snapshot == snapshot.id);
        self.snapshots.note(snapshot.id, snapshot.bytes);
        let is_covered = snapshot.id.index <= self.commit_index;
        let replaces = !is_covered && !self.log.includes(snapshot.id);
        if replaces {
            reached(Mark::SnapshotInstalled);
            if !matches!(self.role, Role::Follower(_)) {
                // Whoever lacks what is committed can't lead; nor does its candidacy make sense.
                self.step_down(now);
            }
            self.log.reset(snapshot.base());
            self.durability.reset(snapshot.id);
            self.memberships = vec![(snapshot.membership_index, snapshot.membership.clone())];
        }
        self.commit_index = self.commit_index.max(snapshot.id.index);
        if let Role::Follower(following) = &mut self.role
            && self.leader.is_some()
        {
            following.verified(snapshot.id.index);
        }
        replaces
    }
}
