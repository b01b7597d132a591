//! One snapshot on its way from the leader to one follower (§5.1): which piece is next.
//!
//! Pieces follow each other through a window of bytes ([`super::flow`]); the follower answers how far
//! it has *written*. Where that isn't known (at first, after a connection closed, after a silence), one
//! piece asks, and its answer says where to go on. Called by `progress.rs` and `install.rs`; reads
//! no file and sends nothing itself.

use std::time::Duration;

use super::flow::Flow;
use crate::limits;
use crate::types::{Instant, SnapshotId};

/// Whether the leader knows what the follower has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It has to ask.
    Unknown,
    /// It asked with the piece at this offset.
    Asked { offset: u64 },
    /// It does, and pieces follow each other without waiting.
    Known,
}

/// A snapshot that a follower is being sent.
#[derive(Debug)]
pub struct Sending {
    snapshot: SnapshotId,
    total: u64,
    standing: Standing,
    /// The follower has written the file up to here.
    acknowledged: u64,
    /// Up to here it was sent.
    sent: u64,
    /// When the follower's last news came, or it was last asked.
    since: Instant,
    /// The most that the follower ever had, and when it came to that; or the beginning.
    furthest: u64,
    moved_at: Instant,
    /// How often it was asked after a silence since its last news.
    asks: u32,
    flow: Flow,
}

impl Sending {
    /// Begins to send a snapshot whose file is `total` bytes long.
    pub fn new(snapshot: SnapshotId, total: u64, now: Instant) -> Sending {
        Sending {
            snapshot,
            total,
            standing: Standing::Unknown,
            acknowledged: 0,
            sent: 0,
            since: now,
            furthest: 0,
            moved_at: now,
            asks: 0,
            flow: Flow::new(),
        }
    }

    /// Which snapshot.
    pub fn snapshot(&self) -> SnapshotId {
        self.snapshot
    }

    /// The file's length in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How much of it the follower has written, in bytes.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The piece to be sent now, if any: its offset and its length, which is 0 where the follower
    /// has everything and is only asked about it.
    pub fn next_piece(&mut self, now: Instant) -> Option<(u64, usize)> {
        match self.standing {
            Standing::Asked { .. } => return None,
            Standing::Unknown => {
                self.standing = Standing::Asked { offset: self.acknowledged };
                self.sent = self.acknowledged;
                self.since = now;
            }
            Standing::Known => {
                let is_full = self.sent - self.acknowledged >= self.flow.window();
                if is_full || self.sent == self.total {
                    return None;
                }
            }
        }
        let offset = self.sent;
        let length = (self.total - offset).min(self.flow.piece());
        self.sent += length;
        self.flow.sent(now, self.sent);
        Some((offset, length as usize))
    }

    /// The follower got the piece at `asked`, and has written the file up to `offset`. Answers may
    /// come late: only the one to a question can take anything back. A heartbeat is to wait for half
    /// of `heartbeat` at most behind what is under way.
    pub fn answered(&mut self, now: Instant, asked: u64, offset: u64, heartbeat: Duration) {
        if offset > self.total {
            return;
        }
        self.flow.acknowledged(now, offset, heartbeat / 2);
        if self.standing == (Standing::Asked { offset: asked }) {
            self.standing = Standing::Known;
            self.acknowledged = offset;
            self.sent = offset;
            self.since = now;
        } else if offset > self.acknowledged {
            self.acknowledged = offset;
            self.sent = self.sent.max(offset);
            self.since = now;
        }
        if self.acknowledged > self.furthest {
            self.furthest = self.acknowledged;
            self.moved_at = now;
            self.asks = 0;
        }
    }

    /// Whether the follower has taken something of it, and not too long ago: then the file and the
    /// log behind it are worth their space.
    pub fn is_moving(&self, now: Instant) -> bool {
        self.furthest > 0 && !self.is_stalled(now)
    }

    /// Whether the follower has taken nothing for too long. To ask it again, or to begin again, is
    /// no progress.
    pub fn is_stalled(&self, now: Instant) -> bool {
        now.since(self.moved_at) >= limits::INSTALL_PATIENCE
    }

    /// Time has passed: a follower that was silent for `patience` is asked what it has; then for
    /// twice as long, and so on, up to a bound. A slow link would else carry nothing but questions,
    /// each of them a piece long.
    pub fn look_after(&mut self, now: Instant, patience: Duration) {
        let patience = patience * 2_u32.pow(self.asks.min(limits::INSTALL_ASK_DOUBLINGS));
        if now.since(self.since) >= patience {
            self.asks += 1;
            self.ask();
        }
    }

    /// What was under way may be lost: the follower is asked what it has. What was known of the
    /// path to it may be so no more.
    pub fn ask(&mut self) {
        self.standing = Standing::Unknown;
        self.flow = Flow::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogIndex, Term};

    const CHUNK: u64 = limits::SNAPSHOT_CHUNK_BYTES as u64;
    const LEAST: u64 = limits::SNAPSHOT_WINDOW_BYTES_MIN;
    const NOW: Instant = Instant(1);
    const HEARTBEAT: Duration = Duration::from_millis(50);

    fn sending(total: u64) -> Sending {
        Sending::new(SnapshotId { index: LogIndex(9), term: Term(2) }, total, NOW)
    }

    /// The offsets of what may be sent now.
    fn pieces(sending: &mut Sending) -> Vec<u64> {
        std::iter::from_fn(|| sending.next_piece(NOW)).map(|(offset, _)| offset).collect()
    }

    /// Answers everything at once, until a whole window is under way. Returns where that begins.
    fn open_window(sending: &mut Sending) -> u64 {
        let mut through = 0;
        loop {
            let offsets = pieces(sending);
            if sending.sent - sending.acknowledged >= limits::SNAPSHOT_WINDOW_BYTES {
                return through;
            }
            through = sending.sent;
            sending.answered(NOW, offsets[0], through, HEARTBEAT);
        }
    }

    #[test]
    fn next_piece_asks_first_and_keeps_the_window() {
        let mut sending = sending(1000 * CHUNK + 7);
        assert_eq!(pieces(&mut sending), [0], "one piece asks");
        assert_eq!(sending.sent, LEAST, "a small one");
        sending.answered(NOW, 0, LEAST, HEARTBEAT);
        assert_eq!(pieces(&mut sending), [LEAST, 2 * LEAST], "twice as much");
        sending.answered(NOW, LEAST, 3 * LEAST, HEARTBEAT);
        let begin = open_window(&mut sending);
        assert_eq!(sending.sent, begin + limits::SNAPSHOT_WINDOW_BYTES);
        sending.answered(NOW, begin, begin + CHUNK, HEARTBEAT);
        assert_eq!(pieces(&mut sending), [begin + limits::SNAPSHOT_WINDOW_BYTES]);
    }

    #[test]
    fn answered_resumes_where_the_follower_is() {
        let mut sending = sending(1000 * CHUNK + 7);
        let begin = open_window(&mut sending);
        sending.answered(NOW, begin, 998 * CHUNK, HEARTBEAT);
        let last: Vec<_> = std::iter::from_fn(|| sending.next_piece(NOW)).collect();
        let chunk = CHUNK as usize;
        assert_eq!(last, [(998 * CHUNK, chunk), (999 * CHUNK, chunk), (1000 * CHUNK, 7)]);
        // 2. The connection closes: what it has is asked anew, and it may be less.
        sending.ask();
        assert_eq!(pieces(&mut sending), [998 * CHUNK]);
        assert_eq!(sending.sent, 998 * CHUNK + LEAST, "it begins small again");
        sending.answered(NOW, 999 * CHUNK, 0, HEARTBEAT);
        assert_eq!(pieces(&mut sending), [], "that answers no question");
        sending.answered(NOW, 998 * CHUNK, 0, HEARTBEAT);
        assert_eq!(pieces(&mut sending)[0], 0);
    }

    #[test]
    fn is_moving_while_the_follower_takes_more_than_it_ever_had() {
        let mut sending = sending(100 * CHUNK);
        assert!(!sending.is_moving(NOW), "nobody has said that it takes it");
        pieces(&mut sending);
        sending.answered(NOW, 0, CHUNK, HEARTBEAT);
        let later = NOW.after(limits::INSTALL_PATIENCE / 2);
        assert!(sending.is_moving(later));
        sending.answered(later, CHUNK, 2 * CHUNK, HEARTBEAT);
        // It lost what it had, and comes as far as before: again and again that is no progress.
        let end = later.after(limits::INSTALL_PATIENCE);
        sending.ask();
        pieces(&mut sending);
        sending.answered(end, 2 * CHUNK, 0, HEARTBEAT);
        sending.answered(end, 0, 2 * CHUNK, HEARTBEAT);
        assert!(sending.is_stalled(end) && !sending.is_moving(end));
        sending.answered(end, 0, 3 * CHUNK, HEARTBEAT);
        assert!(sending.is_moving(end));
    }

    #[test]
    fn look_after_asks_again_after_a_silence() {
        let mut sending = sending(5);
        assert_eq!(pieces(&mut sending), [0]);
        let patience = Duration::from_millis(300);
        sending.look_after(NOW.after(patience / 2), patience);
        assert_eq!(pieces(&mut sending), []);
        sending.look_after(NOW.after(patience), patience);
        assert_eq!(pieces(&mut sending), [0]);
        sending.answered(NOW, 0, 5, HEARTBEAT);
        assert_eq!(pieces(&mut sending), [], "it has everything");
        sending.ask();
        assert_eq!(sending.next_piece(NOW), Some((5, 0)), "is it installed?");
        sending.answered(NOW, 5, 6, HEARTBEAT);
        assert_eq!(sending.acknowledged(), 5, "nobody has more than there is");
    }
}
