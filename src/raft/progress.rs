//! What the leader knows of one follower's log, and what is under way to it (§3.5, §10.2.1).
//!
//! A follower is *probed* with one message at a time until a first match is known, then fed through
//! a window bounded in messages and bytes; or sent a snapshot, where its next entry was discarded.
//! Called by `replication.rs` and `install.rs`; sends nothing itself.

use std::collections::VecDeque;

use super::sending::Sending;
use crate::limits;
use crate::testing::{Mark, reached};
use crate::types::{Instant, LogIndex, ReadRound, SnapshotId};

/// How entries are sent.
#[derive(Debug)]
enum Mode {
    /// Where the logs agree isn't known: one message, then wait for its answer.
    Probe {
        /// Whether a message is under way.
        waiting: bool,
    },
    /// Messages follow each other without waiting.
    Replicate,
    /// No entries are sent before this snapshot is installed (§5.1).
    Snapshot(Sending),
}

/// One follower, as its leader sees it.
#[derive(Debug)]
pub struct Progress {
    /// `matchIndex`: the logs are known to be the same, and durable there, up to here.
    pub match_index: LogIndex,
    /// `nextIndex`: the next entry to send.
    pub next_index: LogIndex,
    /// When it last answered in this term.
    pub last_heard: Instant,
    /// Whether it has answered this leader at all.
    pub has_answered: bool,
    /// The newest read round it has echoed in this term.
    pub read_round: ReadRound,
    /// The commit index that it was last told.
    pub commit_told: LogIndex,
    /// The read round that it was last told.
    pub round_told: ReadRound,
    mode: Mode,
    /// When its log last grew.
    moved_at: Option<Instant>,
    /// How often in a row it has refused a snapshot, and until when it is sent none.
    refusals: u32,
    retry_at: Instant,
    /// Messages with entries under way: the last index of each, and its bytes.
    in_flight: VecDeque<(LogIndex, usize)>,
    in_flight_bytes: usize,
}

impl Progress {
    /// A follower of whose log nothing is known; the leader's ends at `last_index`.
    pub fn new(last_index: LogIndex, now: Instant) -> Progress {
        Progress {
            match_index: LogIndex::ZERO,
            next_index: last_index.next(),
            last_heard: now,
            has_answered: false,
            read_round: ReadRound::ZERO,
            commit_told: LogIndex::ZERO,
            round_told: ReadRound::ZERO,
            mode: Mode::Probe { waiting: false },
            moved_at: None,
            refusals: 0,
            retry_at: Instant::ZERO,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// Messages with entries that are under way, and their bytes.
    pub fn under_way(&self) -> (usize, usize) {
        (self.in_flight.len(), self.in_flight_bytes)
    }

    /// Whether entries may be sent now.
    pub fn is_open(&self) -> bool {
        match self.mode {
            Mode::Snapshot(_) => false,
            Mode::Probe { waiting } => !waiting,
            Mode::Replicate => !self.is_full(),
        }
    }

    /// Whether as much is under way as may be.
    pub fn is_full(&self) -> bool {
        self.in_flight.len() >= limits::PEER_WINDOW_MESSAGES
            || self.in_flight_bytes >= limits::PEER_WINDOW_BYTES
    }

    /// Entries up to `last_index`, of `bytes`, are now under way.
    pub fn sent(&mut self, last_index: LogIndex, bytes: usize) {
        assert!(last_index >= self.next_index, "entries are sent forwards");
        self.next_index = last_index.next();
        self.in_flight.push_back((last_index, bytes));
        self.in_flight_bytes += bytes;
        if let Mode::Probe { waiting } = &mut self.mode {
            *waiting = true;
        }
    }

    /// A probe without entries is under way.
    pub fn probed(&mut self) {
        if let Mode::Probe { waiting } = &mut self.mode {
            *waiting = true;
        }
    }

    /// The follower's log is the same, and durable, up to `match_index`. Returns whether that is
    /// news.
    pub fn matched(&mut self, match_index: LogIndex) -> bool {
        let is_news = match_index > self.match_index;
        if is_news {
            self.moved_at = Some(self.last_heard);
        }
        self.match_index = self.match_index.max(match_index);
        self.next_index = self.next_index.max(self.match_index.next());
        while let Some(&(last_index, bytes)) = self.in_flight.front() {
            if last_index > self.match_index {
                break;
            }
            self.in_flight.pop_front();
            self.in_flight_bytes -= bytes;
        }
        // The answer to a heartbeat is no end of it: only a match at the snapshot's end is.
        let installs = self.is_sent().map(|snapshot| self.match_index >= snapshot.index);
        if installs == Some(true) {
            self.refusals = 0;
        }
        if installs != Some(false) {
            self.mode = Mode::Replicate;
        }
        is_news
    }

    /// The follower rejected `rejected_index` as the entry before what it was sent; the logs may
    /// agree up to `possible_match`. Returns whether that was news: an answer to an older request
    /// than the last is not.
    pub fn conflicted(&mut self, rejected_index: LogIndex, possible_match: LogIndex) -> bool {
        let is_stale = rejected_index <= self.match_index || rejected_index >= self.next_index;
        reached(if is_stale { Mark::ConflictStale } else { Mark::ConflictHint });
        if is_stale || self.is_sent().is_some() {
            return false;
        }
        self.probe_from(possible_match.next().max(self.match_index.next()));
        true
    }

    /// What was under way is lost (the connection closed): begin again behind what is known.
    pub fn restart(&mut self) {
        match &mut self.mode {
            Mode::Snapshot(sending) => sending.ask(),
            Mode::Probe { .. } | Mode::Replicate => self.probe_from(self.match_index.next()),
        }
        self.commit_told = LogIndex::ZERO;
        self.round_told = ReadRound::ZERO;
    }

    /// The entries from `next_index` on were discarded: the follower is sent a snapshot whose file
    /// is `bytes` long.
    pub fn send_snapshot(&mut self, now: Instant, snapshot: SnapshotId, bytes: u64) {
        self.probe_from(self.match_index.next());
        self.mode = Mode::Snapshot(Sending::new(snapshot, bytes, now));
    }

    /// The snapshot that was being sent can't be: begin again behind what is known.
    pub fn restart_without_snapshot(&mut self) {
        self.probe_from(self.match_index.next());
    }

    /// The follower refused the snapshot. What it refuses now it may refuse again: it is sent none
    /// for a while, which grows.
    pub fn refused_snapshot(&mut self, now: Instant) {
        let pause = limits::INSTALL_RETRY_MIN * 2_u32.saturating_pow(self.refusals.min(16));
        self.retry_at = now.after(pause.min(limits::INSTALL_RETRY_MAX));
        self.refusals += 1;
        self.restart_without_snapshot();
    }

    /// Whether a snapshot may be sent to it.
    pub fn takes_snapshot(&self, now: Instant) -> bool {
        now >= self.retry_at
    }

    /// Behind which entry the log should stay for it: where it takes something still, be it a
    /// snapshot, which may just have begun, or what follows on one.
    pub fn needs_behind(&self, now: Instant) -> Option<LogIndex> {
        match &self.mode {
            Mode::Snapshot(sending) => {
                (!sending.is_stalled(now)).then_some(sending.snapshot().index)
            }
            Mode::Probe { .. } | Mode::Replicate => {
                let is_moving = |at: Instant| now.since(at) < limits::INSTALL_PATIENCE;
                self.moved_at.is_some_and(is_moving).then_some(self.match_index)
            }
        }
    }

    /// The snapshot that the follower is being sent.
    pub fn sending(&mut self) -> Option<&mut Sending> {
        match &mut self.mode {
            Mode::Snapshot(sending) => Some(sending),
            Mode::Probe { .. } | Mode::Replicate => None,
        }
    }

    /// The snapshot that the follower is taking.
    pub fn is_taking(&self, now: Instant) -> Option<SnapshotId> {
        match &self.mode {
            Mode::Snapshot(sending) => sending.is_moving(now).then_some(sending.snapshot()),
            Mode::Probe { .. } | Mode::Replicate => None,
        }
    }

    /// Which snapshot the follower is being sent.
    pub fn is_sent(&self) -> Option<SnapshotId> {
        match &self.mode {
            Mode::Snapshot(sending) => Some(sending.snapshot()),
            Mode::Probe { .. } | Mode::Replicate => None,
        }
    }

    fn probe_from(&mut self, next_index: LogIndex) {
        self.next_index = next_index;
        self.mode = Mode::Probe { waiting: false };
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_closes_the_window_and_matched_opens_it() {
        let mut progress = Progress::new(LogIndex(0), Instant(0));
        progress.matched(LogIndex(0));
        for index in 1..=limits::PEER_WINDOW_MESSAGES as u64 {
            assert!(progress.is_open());
            progress.sent(LogIndex(index), 1);
        }
        assert!(!progress.is_open());
        assert!(progress.matched(LogIndex(1)));
        assert!(progress.is_open());
        progress.sent(LogIndex(progress.next_index.0), limits::PEER_WINDOW_BYTES);
        assert!(!progress.is_open());
    }

    #[test]
    fn probe_sends_one_message_at_a_time() {
        let mut progress = Progress::new(LogIndex(10), Instant(0));
        assert!(progress.is_open());
        progress.probed();
        assert!(!progress.is_open());
        assert!(progress.conflicted(LogIndex(10), LogIndex(4)));
        assert_eq!(progress.next_index, LogIndex(5));
        assert!(progress.is_open());
    }

    #[test]
    fn conflicted_ignores_an_answer_to_an_older_request() {
        let mut progress = Progress::new(LogIndex(10), Instant(0));
        progress.matched(LogIndex(8));
        assert!(!progress.conflicted(LogIndex(8), LogIndex(2)));
        assert!(!progress.conflicted(LogIndex(11), LogIndex(2)));
        assert_eq!(progress.next_index, LogIndex(11));
    }
}
