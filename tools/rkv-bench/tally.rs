//! What one thread of load counts: when measuring begins and ends, and what each second, or shorter
//! interval, came to.
//!
//! Called by the drivers (`worker` for Redis's protocol, `etcd` for etcd's), so that the same rules
//! count for both. Sends each second to whoever shows it.

use std::io;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::report::{Report, Second};
use crate::schedule::Schedule;
use crate::worker::{Measure, Plan};

/// Whether and as what new batches are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// They are sent and not counted.
    WarmUp,
    /// They count.
    Measured,
    /// None are sent.
    Over,
}

/// A batch that may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch {
    /// How many commands.
    pub count: usize,
    /// From when its latency counts.
    pub began: Instant,
    /// Whether it counts at all.
    pub is_measured: bool,
}

/// See the file's head.
#[derive(Debug)]
pub struct Tally {
    pipeline: usize,
    measure: Measure,
    interval: Duration,
    seconds: Sender<Second>,
    /// What the second under way has come to.
    second: Second,
    report: Report,
    warm_until: Instant,
    measure_until: Option<Instant>,
    /// Measured requests that may still be sent.
    quota: u64,
    /// The last reply to a measured request.
    last_measured: Instant,
    /// The last reply of all.
    last_reply: Instant,
}

impl Tally {
    /// The share of thread `thread` of `threads`, beginning now.
    pub fn new(plan: &Plan, thread: usize, threads: usize, seconds: &Sender<Second>) -> Tally {
        let begin = Instant::now();
        let warm_until = begin + plan.warm_up;
        let (measure_until, quota) = match plan.measure {
            Measure::For(duration) => (Some(warm_until + duration), u64::MAX),
            Measure::Requests(requests) => (None, share(requests, thread, threads)),
        };
        Tally {
            pipeline: plan.pipeline,
            measure: plan.measure,
            interval: plan.interval,
            seconds: seconds.clone(),
            second: Second { number: 0, report: Report::new() },
            report: Report::new(),
            warm_until,
            measure_until,
            quota,
            last_measured: warm_until,
            last_reply: begin,
        }
    }

    /// What becomes of a batch that begins at `now`.
    pub fn phase(&self, now: Instant) -> Phase {
        if now < self.warm_until {
            Phase::WarmUp
        } else if self.quota == 0 || self.measure_until.is_some_and(|end| now >= end) {
            Phase::Over
        } else {
            Phase::Measured
        }
    }

    /// The batch that begins at `began`, unless no more are sent.
    pub fn take_batch(&mut self, began: Instant) -> Option<Batch> {
        let phase = self.phase(began);
        if phase == Phase::Over {
            return None;
        }
        let mut count = self.pipeline;
        if phase == Phase::Measured {
            count = count.min(usize::try_from(self.quota).unwrap_or(usize::MAX));
            self.quota -= count as u64;
        }
        Some(Batch { count, began, is_measured: phase == Phase::Measured })
    }

    /// A reply has come at `now`; `error` is the word that it counts under if it is one.
    pub fn replied(&mut self, batch: Batch, now: Instant, error: Option<&str>) {
        if batch.is_measured {
            match error {
                Some(word) => self.second.report.record_errors(word, 1),
                None => self.second.report.record(now - batch.began),
            }
            self.last_measured = now;
        }
        self.last_reply = now;
    }

    /// Counts what was sent once more.
    pub fn retried(&mut self, count: u64) {
        self.second.report.retries += count;
    }

    /// Counts commands that came to nothing.
    pub fn failed(&mut self, word: &str, count: usize) {
        self.second.report.record_errors(word, count as u64);
    }

    /// Counts a whole batch that came to nothing.
    #[cfg(feature = "etcd")]
    pub fn failed_of(&mut self, batch: Batch, word: &str) {
        if batch.is_measured {
            self.failed(word, batch.count);
        }
    }

    /// Counts what was due at these moments and never sent, as far as it would have been measured.
    pub fn never_sent(&mut self, due: impl Iterator<Item = Instant>) {
        let batches = due.filter(|due| *due >= self.warm_until).count();
        self.failed("not-sent", batches * self.pipeline);
    }

    /// When the last batch may begin, unless a number of requests says so.
    #[cfg(feature = "etcd")]
    pub fn ends_at(&self) -> Option<Instant> {
        self.measure_until
    }

    /// How long no reply has come.
    pub fn silence(&self) -> Duration {
        self.last_reply.elapsed()
    }

    /// Adds a second that is over to the whole, and sends it.
    pub fn end_second_if_over(&mut self, now: Instant) {
        let intervals = |time: Duration| (time.as_nanos() / self.interval.as_nanos()) as u64;
        let mut number = intervals(now.saturating_duration_since(self.warm_until));
        if let Measure::For(duration) = self.measure {
            // The last replies come after the last second, and belong to it.
            number = number.min(intervals(duration).saturating_sub(1));
        }
        if number > self.second.number {
            self.end_second();
            self.second.number = number;
        }
    }

    /// All that was measured; the last second is sent.
    pub fn finish(&mut self) -> Report {
        self.end_second();
        self.report.elapsed = self.last_measured.saturating_duration_since(self.warm_until);
        std::mem::replace(&mut self.report, Report::new())
    }

    fn end_second(&mut self) {
        self.report.merge(&self.second.report);
        let next = Second { number: self.second.number + 1, report: Report::new() };
        // Whoever shows the seconds may have stopped.
        let _shown = self.seconds.send(std::mem::replace(&mut self.second, next));
    }
}

/// When the batches of this thread's share of the connections are due, for an open loop.
///
/// # Errors
/// The system's, where it gives no timer.
pub fn schedule(plan: &Plan, thread: usize, threads: usize) -> io::Result<Option<Schedule>> {
    let own = (thread..plan.connections).step_by(threads).count();
    let batches_per_second = plan.rate.map(|rate| rate / plan.pipeline as f64);
    batches_per_second.map(|rate| Schedule::new(rate, thread, threads, own)).transpose()
}

/// The part of `total` that falls to one of `threads`.
fn share(total: u64, thread: usize, threads: usize) -> u64 {
    let (thread, threads) = (thread as u64, threads as u64);
    total / threads + u64::from(thread < total % threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_adds_up() {
        for (total, threads) in [(10, 3), (1, 4), (0, 2), (1000, 7)] {
            let shares: u64 = (0..threads).map(|thread| share(total, thread, threads)).sum();
            assert_eq!(shares, total);
        }
    }
}
