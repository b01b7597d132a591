//! How much of a snapshot may be under way to one follower: little on a slow link, where heartbeats
//! stand behind it; much on a fast one.
//!
//! After LEDBAT (RFC 6817): what a byte has waited is how much longer its answer took than the
//! quickest one. While that is a small part of a heartbeat's time the window doubles with each round
//! trip; when it is more, the window shrinks to what would have waited for less. Called by `sending.rs`; reads no clock.

use std::time::Duration;

use crate::limits;
use crate::types::Instant;

/// The window of one transfer.
#[derive(Debug)]
pub struct Flow {
    /// Bytes that may be under way.
    window: u64,
    /// The quickest answer so far.
    quickest: Option<Duration>,
    /// The piece whose answer is awaited: where it ends, and when it was sent. One at a time.
    timed: Option<(u64, Instant)>,
}

impl Flow {
    /// Of a path of which nothing is known: one small piece.
    pub fn new() -> Flow {
        Flow { window: limits::SNAPSHOT_WINDOW_BYTES_MIN, quickest: None, timed: None }
    }

    /// Bytes that may be under way.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Bytes of the next piece: at least two fill a window, so that the link isn't idle between them.
    pub fn piece(&self) -> u64 {
        let half = self.window / 2;
        half.clamp(limits::SNAPSHOT_WINDOW_BYTES_MIN, limits::SNAPSHOT_CHUNK_BYTES as u64)
    }

    /// A piece that ends at `through` is on its way. Of those that leave at once the last is timed,
    /// which waits behind the others.
    pub fn sent(&mut self, now: Instant, through: u64) {
        match &mut self.timed {
            Some((end, sent_at)) if *sent_at == now => *end = through,
            Some(_) => {}
            None => self.timed = Some((through, now)),
        }
    }

    /// The follower has written everything before `through`. Nothing is to wait for longer than
    /// `most`.
    pub fn acknowledged(&mut self, now: Instant, through: u64, most: Duration) {
        let Some((_, sent_at)) = self.timed.take_if(|(end, _)| *end <= through) else {
            return;
        };
        let took = now.since(sent_at);
        let quickest = self.quickest.map_or(took, |quickest| quickest.min(took));
        self.quickest = Some(quickest);
        let waited = took - quickest;
        let window = if waited > most {
            let fitting = u128::from(self.window) * most.as_nanos() / waited.as_nanos();
            (fitting as u64).min(self.window / 2)
        } else if waited > most / 2 {
            // Twice as much would wait for twice as long.
            self.window
        } else {
            self.window * 2
        };
        let (least, most) = (limits::SNAPSHOT_WINDOW_BYTES_MIN, limits::SNAPSHOT_WINDOW_BYTES);
        self.window = window.clamp(least, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(25);
    const LEAST: u64 = limits::SNAPSHOT_WINDOW_BYTES_MIN;

    /// Sends for so long over a link with this delay and rate. Returns the bytes that arrived, and
    /// the longest that any of them has waited behind others, but for the first second.
    fn send(flow: &mut Flow, duration: Duration, delay_ms: u64, rate: u64) -> (u64, Duration) {
        let start = Instant(1_000_000_000);
        flow.timed = None;
        let delay = Duration::from_millis(delay_ms);
        let (mut now, mut free_at) = (start, start);
        let (mut sent, mut acknowledged) = (0, 0);
        let mut answers = std::collections::VecDeque::new();
        let mut longest = Duration::ZERO;
        while now.since(start) < duration {
            while sent - acknowledged < flow.window() {
                sent += flow.piece();
                flow.sent(now, sent);
                let takes = Duration::from_nanos(flow.piece() * 1_000_000_000 / rate);
                free_at = free_at.max(now).after(takes);
                if now.since(start) > Duration::from_secs(1) {
                    longest = longest.max(free_at.since(now));
                }
                answers.push_back((free_at.after(2 * delay), sent));
            }
            let (at, through) = answers.pop_front().expect("something is under way");
            now = at;
            acknowledged = through;
            flow.acknowledged(now, through, MOST);
        }
        (acknowledged, longest)
    }

    #[test]
    fn a_fast_link_gets_the_whole_window() {
        for delay_ms in [0, 1, 80] {
            let mut flow = Flow::new();
            let second = Duration::from_secs(5);
            let (bytes, _) = send(&mut flow, second, delay_ms, 1_000_000_000);
            assert_eq!(flow.window(), limits::SNAPSHOT_WINDOW_BYTES, "{delay_ms} ms");
            assert_eq!(flow.piece(), limits::SNAPSHOT_CHUNK_BYTES as u64);
            assert!(bytes > 20 * limits::SNAPSHOT_WINDOW_BYTES, "{delay_ms} ms: {bytes}");
        }
    }

    #[test]
    fn a_slow_link_is_used_and_nothing_waits_for_long_behind_it() {
        for rate in [20, 50, 100, 400, 4000] {
            let mut flow = Flow::new();
            let duration = Duration::from_secs(20);
            let (bytes, longest) = send(&mut flow, duration, 0, rate * 1024);
            let piece = Duration::from_nanos(LEAST * 1_000_000_000 / (rate * 1024));
            assert!(longest <= 2 * (MOST + piece), "{rate} KiB/s: {longest:?}");
            assert!(bytes >= 20 * rate * 1024 * 9 / 10, "{rate} KiB/s: {bytes}");
        }
    }

    #[test]
    fn a_link_that_gets_slow_gets_less() {
        let mut flow = Flow::new();
        send(&mut flow, Duration::from_secs(1), 1, 1_000_000_000);
        assert_eq!(flow.window(), limits::SNAPSHOT_WINDOW_BYTES);
        // One answer of the first window is enough.
        send(&mut flow, Duration::from_secs(25), 1, 50 * 1024);
        let (_, longest) = send(&mut flow, Duration::from_secs(10), 1, 50 * 1024);
        assert!(flow.window() <= 4 * LEAST, "{}", flow.window());
        assert!(longest <= 2 * MOST + Duration::from_millis(20), "{longest:?}");
    }
}
