//! Faults that wait for a role: whom they strike, and with what, depends on who leads just then.
//!
//! A rule that guards one moment (a lease, an answer from a former term) is tested only by what comes
//! in that moment; servers drawn beforehand are hardly ever the right ones. Called by
//! [`super::faults`] when such a fault strikes, and by a turn for each answer that is sent. Plans what
//! happens, and lets nothing happen itself.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;

use super::process::Stage;
use super::script::{Fault, Kind, Script};
use super::server::Stumble;
use super::world::{Event, World};
use crate::proto::message::{Message, Packet};
use crate::types::ServerId;

/// Answers that are kept at most, the newest ones.
const KEPT: usize = 8192;

/// In so long a follower whose disk goes on has what another one's disk had when it stood still.
const CATCH_UP: Duration = Duration::from_millis(20);

/// For longer than any run a disk stands still, in milliseconds.
const STILL_MS: u64 = 3_600_000;

/// What servers have answered each other, to come once more.
pub(super) struct Mailbag {
    /// Whether any fault of this run asks for it.
    is_kept: bool,
    answers: VecDeque<(ServerId, ServerId, Bytes)>,
}

impl Mailbag {
    pub fn new(script: &Script) -> Mailbag {
        let is_kept = script.faults.iter().any(|fault| fault.kind == Kind::LateAnswers);
        Mailbag { is_kept, answers: VecDeque::new() }
    }

    /// Takes note of a frame that is sent, if it is an answer.
    pub fn keep(&mut self, packet: &Packet, frame: &[u8]) {
        let is_answer = matches!(
            packet.message,
            Message::AppendEntriesResponse(_)
                | Message::Vote(_)
                | Message::ReadIndexResponse { .. }
                | Message::InstallSnapshotResponse(_)
        );
        if !self.is_kept || !is_answer {
            return;
        }
        if self.answers.len() == KEPT {
            self.answers.pop_front();
        }
        let (from, to) = (packet.envelope.from, packet.envelope.to);
        self.answers.push_back((from, to, Bytes::copy_from_slice(frame)));
    }
}

impl World {
    /// What `to` was ever answered, in whatever term, comes once more within `ms` milliseconds, in
    /// any order.
    pub(super) fn answer_late(&mut self, to: ServerId, ms: u64) -> bool {
        let answers = self.mailbag.answers.iter().filter(|(_, asked, _)| *asked == to);
        let answers: Vec<_> = answers.cloned().collect();
        for (from, to, frame) in &answers {
            let delay = Duration::from_micros(self.random.random_range(0..ms.max(1) * 1000));
            let frame = frame.clone();
            self.plan(delay, Event::Copy { from: *from, to: *to, frame, is_late: false });
        }
        !answers.is_empty()
    }

    /// A server stands still in the middle of its next turn, and faults strike meanwhile.
    pub(super) fn stumble(
        &mut self,
        id: ServerId,
        ms: u64,
        place: u64,
        meanwhile: Vec<(Duration, Fault)>,
    ) -> bool {
        let stage = match place {
            0 => Stage::Polled,
            1 => Stage::Heard,
            _ => Stage::Decided,
        };
        let server = self.servers.get_mut(&id).expect("a server of this world");
        server.stumble = Some(Stumble { stage, pause: Duration::from_millis(ms), meanwhile });
        server.process.is_some()
    }

    /// One of three, the candidate, loses the leader. The other one, the voter, is the only one whom
    /// the leader's lease rests on, and stands still: between its poll and its read, so that what it
    /// reads was sent long after the poll; or before it answers, so that its answer comes long after
    /// it heard the leader. Then it hears no more of it, and may vote for the candidate.
    pub(super) fn put_voter_to_sleep(&mut self, place: u64, ms: u64, stage: u64) -> bool {
        let Some((leader, candidate, voter)) = self.candidate_and_voter(place) else {
            return false;
        };
        let cut =
            |a: ServerId, b: ServerId| Fault { at_ms: 0, kind: Kind::Cut, a: a.0, b: b.0, c: 0 };
        self.strike_now(cut(leader, candidate));
        self.strike_now(cut(candidate, leader));
        let path = Duration::from_micros(self.script.settings.delay_max_us);
        let end = match stage {
            0 => Duration::from_millis(ms).saturating_sub(path),
            _ => Duration::ZERO,
        };
        self.stumble(voter, ms, stage, vec![(end, cut(leader, voter))])
    }

    /// The leader of three, and both others, in one order or the other.
    fn candidate_and_voter(&self, place: u64) -> Option<(ServerId, ServerId, ServerId)> {
        let leader = self.leader()?;
        let others: Vec<ServerId> = self.ids().into_iter().filter(|id| *id != leader).collect();
        let [one, other] = others[..] else {
            return None;
        };
        Some(if place == 0 { (leader, one, other) } else { (leader, other, one) })
    }

    /// The disk of one of three, the voter, stands still, so that it gets no entry that the third,
    /// the candidate, lacks when it in turn loses the leader. It asks the voter for its vote in vain,
    /// which hears the leader; until that one dies in `dies_ms`, as the last one whom the leader
    /// hears, and comes back `back_ms` later without a memory of whom it heard.
    pub(super) fn forget_leader(&mut self, place: u64, dies_ms: u64, back_ms: u64) -> bool {
        let Some((leader, candidate, voter)) = self.candidate_and_voter(place) else {
            return false;
        };
        let dies = CATCH_UP + Duration::from_millis(dies_ms);
        let back = dies + Duration::from_millis(back_ms);
        let steps = [
            (Duration::ZERO, Kind::Stall, voter, STILL_MS),
            (CATCH_UP, Kind::Cut, leader, candidate.0),
            (CATCH_UP, Kind::Cut, candidate, leader.0),
            (dies, Kind::Cut, leader, voter.0),
            (dies, Kind::Cut, voter, leader.0),
            (dies, Kind::Kill, voter, 0),
            (dies, Kind::Stall, voter, 0),
            (back, Kind::Start, voter, 0),
        ];
        for (delay, kind, server, b) in steps {
            let fault = Fault { at_ms: 0, kind, a: server.0, b, c: 0 };
            self.plan(delay, Event::Strike { fault });
        }
        true
    }
}
