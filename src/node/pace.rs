//! How fast a snapshot is taken: at a bounded rate, so that the log's writes don't wait behind it.
//!
//! Design page 3, §3. Called by `snapshots.rs`. A slice is followed by a pause in proportion to its
//! bytes, shorter while nobody writes. The pauses fall away where they would let something grow
//! without bound: the log behind the snapshot, or the memory of old records that it still needs. So
//! its end comes in a bounded time, whatever is written meanwhile. Reads no clock.

use std::time::Duration;

use crate::kv::capture::SnapshotProgress;
use crate::limits;
use crate::types::Instant;

/// The pace of one snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Bytes of log that may come while it is taken.
    log_budget_bytes: u64,
    /// When the next slice may be made.
    next_at: Instant,
    /// The log that had come at the last slice.
    logged_bytes: u64,
}

impl Pace {
    /// Of a snapshot that begins now, where `threshold_bytes` of log make the next one due.
    pub fn new(now: Instant, threshold_bytes: u64) -> Pace {
        let log_budget_bytes = (threshold_bytes / limits::SNAPSHOT_PACE_SHARE).max(1);
        Pace { log_budget_bytes, next_at: now, logged_bytes: 0 }
    }

    /// A slice of so many bytes was made, when `logged_bytes` of log had been applied since the
    /// beginning; `is_waiting` where more is on its way to the disk, be it ever so slow.
    pub fn note_slice(&mut self, now: Instant, bytes: usize, logged_bytes: u64, is_waiting: bool) {
        let is_idle = logged_bytes == self.logged_bytes && !is_waiting;
        let rate = match is_idle {
            true => limits::SNAPSHOT_IDLE_BYTES_PER_S,
            false => limits::SNAPSHOT_BYTES_PER_S,
        };
        let pause = Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate);
        // What a late wake-up has cost is made good, but not what a disk that hung has.
        let earliest = Instant(now.0.saturating_sub(limits::SNAPSHOT_PACE_SLACK.as_nanos() as u64));
        self.next_at = self.next_at.max(earliest).after(pause);
        self.logged_bytes = logged_bytes;
    }

    /// When the next slice may be made; at once where it is in a hurry.
    pub fn next_at(&self, progress: SnapshotProgress, logged_bytes: u64) -> Instant {
        match self.is_in_a_hurry(progress, logged_bytes) {
            true => Instant::ZERO,
            false => self.next_at,
        }
    }

    /// Whether a larger part of the log's budget is used up than is written of the records; or half
    /// of the memory that old ones may take.
    fn is_in_a_hurry(&self, progress: SnapshotProgress, logged_bytes: u64) -> bool {
        let SnapshotProgress { records, total_records, backlog_bytes, .. } = progress;
        let used = u128::from(logged_bytes) * u128::from(total_records);
        let written = u128::from(records) * u128::from(self.log_budget_bytes);
        used > written || backlog_bytes >= limits::SNAPSHOT_BACKLOG_BYTES / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogIndex, SnapshotId, Term};

    const THRESHOLD: u64 = 64 << 20;
    const SLICE: usize = limits::SNAPSHOT_SLICE_BYTES;

    fn progress(records: u64, backlog_bytes: usize) -> SnapshotProgress {
        let id = SnapshotId { index: LogIndex(9), term: Term(2) };
        SnapshotProgress { id, records, total_records: 1000, bytes: 0, backlog_bytes }
    }

    /// Slices in the first second, where each is followed by so many bytes of log, and the loop
    /// wakes up late by a millisecond.
    fn slices_in_a_second(logged_each: u64) -> u64 {
        let start = Instant(7_000_000_000);
        let mut pace = Pace::new(start, THRESHOLD);
        let (mut now, mut slices) = (start, 0);
        while now.since(start) < Duration::from_secs(1) {
            slices += 1;
            pace.note_slice(now, SLICE, slices * logged_each, false);
            let next_at = pace.next_at(progress(slices, 0), slices * logged_each);
            now = now.max(next_at).after(Duration::from_millis(1));
        }
        slices
    }

    #[test]
    fn note_slice_keeps_the_rate() {
        let rate = |bytes_per_s: u64| bytes_per_s / SLICE as u64;
        let busy = slices_in_a_second(100);
        let expected = rate(limits::SNAPSHOT_BYTES_PER_S);
        assert!(busy >= expected * 95 / 100 && busy <= expected + 5, "{busy}, not {expected}");
        let mut stalled = Pace::new(Instant(0), THRESHOLD);
        stalled.note_slice(Instant(0), SLICE, 0, true);
        let pause = stalled.next_at(progress(1, 0), 0).since(Instant(0)).as_nanos() as u64;
        assert!(pause >= 1_000_000_000 / (expected + 1), "a disk that hangs is not idle");
        let idle = slices_in_a_second(0);
        assert!(idle > 950 && idle <= rate(limits::SNAPSHOT_IDLE_BYTES_PER_S) + 10, "{idle}");
    }

    #[test]
    fn note_slice_makes_no_hang_good() {
        let mut pace = Pace::new(Instant(0), THRESHOLD);
        pace.note_slice(Instant(0), SLICE, 1, false);
        let later = Instant(0).after(Duration::from_secs(60));
        let mut at_once = 0;
        while pace.next_at(progress(500, 0), 1) <= later {
            at_once += 1;
            pace.note_slice(later, SLICE, 1 + at_once, false);
        }
        assert!(at_once <= 4, "{at_once} slices without a pause");
    }

    #[test]
    fn next_at_is_now_when_the_log_or_the_backlog_has_grown() {
        let now = Instant(5_000_000_000);
        let mut pace = Pace::new(now, THRESHOLD);
        pace.note_slice(now, SLICE, 1, false);
        let budget = THRESHOLD / limits::SNAPSHOT_PACE_SHARE;
        // 1. Half of the records are written: half of the budget may be used.
        assert!(pace.next_at(progress(500, 0), budget / 2) > now);
        assert_eq!(pace.next_at(progress(500, 0), budget / 2 + budget / 100), Instant::ZERO);
        // 2. All of it is, and the last record is not yet written.
        assert_eq!(pace.next_at(progress(999, 0), budget), Instant::ZERO);
        // 3. The backlog.
        let most = limits::SNAPSHOT_BACKLOG_BYTES;
        assert_eq!(pace.next_at(progress(999, most / 2), 1), Instant::ZERO);
        assert!(pace.next_at(progress(999, most / 2 - 1), 1) > now);
    }
}
