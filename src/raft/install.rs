//! InstallSnapshot (§5.1; figure 13 of the Raft paper), the leader's side.
//!
//! A follower whose next entry was discarded is sent the newest snapshot, piece by piece, straight
//! from its file: this asks for a piece ([`Action::ReadSnapshot`]), the driver reads it, and
//! [`Raft::snapshot_read`] sends it. Heartbeats go on meanwhile. Called by `replication.rs` and
//! `node/`; which piece is next is [`super::sending`]'s.
//!
//! [`Action::ReadSnapshot`]: super::Action::ReadSnapshot

use bytes::Bytes;

use super::server::{Raft, Role};
use crate::proto::message::{InstallOutcome, InstallSnapshot, InstallSnapshotResponse, Message};
use crate::types::{Instant, ServerId, SnapshotId};

/// A piece of a snapshot's file that is to be read for a follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PieceWanted {
    pub to: ServerId,
    pub snapshot: SnapshotId,
    pub offset: u64,
    pub length: usize,
}

impl Raft {
    /// Whether `to` needs a snapshot before it can take entries; begins to send it one.
    pub(super) fn needs_snapshot(&mut self, now: Instant, to: ServerId) -> bool {
        let first_index = self.log.first_index();
        let newest = self.snapshots.newest;
        let Role::Leader(leading) = &mut self.role else {
            return false;
        };
        let progress = leading.followers.get_mut(&to).expect("the caller walks the followers");
        if progress.sending().is_some() {
            return true;
        }
        if progress.next_index >= first_index {
            return false;
        }
        match newest {
            // What follows on it must still be there.
            Some((snapshot, bytes)) if snapshot.index.next() >= first_index => {
                if progress.takes_snapshot(now) {
                    progress.send_snapshot(now, snapshot, bytes);
                }
            }
            _ => self.snapshots.is_outrun(),
        }
        true
    }

    /// Asks for the pieces that may be sent to `to` now.
    pub(super) fn want_pieces(&mut self, now: Instant, to: ServerId) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let progress = leading.followers.get_mut(&to).expect("the caller walks the followers");
        let Some(sending) = progress.sending() else {
            return;
        };
        let snapshot = sending.snapshot();
        while let Some((offset, length)) = sending.next_piece(now) {
            self.pieces_wanted.push(PieceWanted { to, snapshot, offset, length });
        }
    }

    /// A heartbeat is due: who was silent for an election timeout is asked what it has. Who has taken
    /// nothing for long begins with the newest snapshot, if that is another one.
    pub(super) fn look_after_installs(&mut self, now: Instant) {
        let patience = self.config.election_timeout.1;
        let newest = self.snapshots.newest.map(|(newest, _)| newest);
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        for progress in leading.followers.values_mut() {
            let Some(sending) = progress.sending() else { continue };
            if sending.is_stalled(now) && newest.is_some_and(|newest| newest != sending.snapshot())
            {
                progress.restart_without_snapshot();
            } else {
                sending.look_after(now, patience);
            }
        }
    }

    /// The piece that was asked for; `None` where the file is gone or shorter than it was, and
    /// another snapshot has to be sent.
    pub fn snapshot_read(
        &mut self,
        now: Instant,
        to: ServerId,
        snapshot: SnapshotId,
        offset: u64,
        bytes: Option<Bytes>,
    ) {
        let term = self.current_term;
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let Some(progress) = leading.followers.get_mut(&to) else {
            return;
        };
        let Some(sending) = progress.sending().filter(|sending| sending.snapshot() == snapshot)
        else {
            return;
        };
        let total = sending.total();
        let Some(bytes) = bytes.filter(|bytes| offset + bytes.len() as u64 <= total) else {
            progress.restart_without_snapshot();
            self.snapshots.is_lost(snapshot);
            return;
        };
        if !self.links.contains_key(&to) {
            return;
        }
        let cluster_time = self.clock.estimate(now).expect("a leader knows the time");
        let request = InstallSnapshot { term, snapshot, offset, total, cluster_time, bytes };
        self.outbox.push((to, Message::InstallSnapshot(request)));
    }

    /// InstallSnapshot, the answer.
    pub(super) fn receive_install_response(
        &mut self,
        now: Instant,
        from: ServerId,
        response: InstallSnapshotResponse,
    ) {
        if !self.answers_this_term(now, response.term) {
            return;
        }
        let Some((progress, _)) = self.role.hear(now, from) else {
            return;
        };
        let heartbeat = self.config.heartbeat;
        let snapshot = response.snapshot;
        let Some(sending) = progress.sending().filter(|sending| sending.snapshot() == snapshot)
        else {
            return;
        };
        match response.outcome {
            InstallOutcome::Next { offset } => {
                sending.answered(now, response.asked, offset, heartbeat);
            }
            InstallOutcome::Refused => {
                // What is on our disk is damaged, or was on the way: another snapshot will do.
                progress.refused_snapshot(now);
                self.snapshots.is_doubted(snapshot);
            }
        }
    }
}
