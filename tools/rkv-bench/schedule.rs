//! An open loop: when each batch is due, whether or not the server has answered those before it.
//!
//! A server that stalls delays all that would have been sent meanwhile, and each of them waits from
//! the moment at which it was due: no stall hides behind a client that politely waits (what Gil Tene
//! calls coordinated omission). Called by the drivers, one schedule a thread.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Batches that are due at even distances, by turns for each of a thread's connections.
#[derive(Debug)]
pub struct Schedule {
    begin: Instant,
    /// Between two batches of this thread.
    distance: Duration,
    /// How many batches have been handed out.
    taken: u64,
    connections: u64,
    timer: OwnedFd,
}

impl Schedule {
    /// Thread `thread` of `threads` sends its share of `batches_per_second`, beginning now.
    ///
    /// # Errors
    /// The system's, where it gives no timer.
    pub fn new(
        batches_per_second: f64,
        thread: usize,
        threads: usize,
        connections: usize,
    ) -> io::Result<Schedule> {
        let distance = Duration::from_secs_f64(threads as f64 / batches_per_second);
        let offset = distance.mul_f64(thread as f64 / threads as f64);
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let begin = Instant::now() + offset;
        Ok(Schedule { begin, distance, taken: 0, connections: connections as u64, timer })
    }

    /// Wakes a poll whenever the alarm that was set last goes off.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.timer.as_raw_fd()), token, Interest::READABLE)
    }

    /// The connection whose next batch is due by `now`, and since when.
    pub fn take(&mut self, now: Instant) -> Option<(usize, Instant)> {
        let due = self.next();
        if due > now {
            return None;
        }
        let connection = self.taken % self.connections;
        self.taken += 1;
        Some((connection as usize, due))
    }

    /// Sets the alarm to the next batch. It is set anew each time: only a new one wakes the poll.
    pub fn set_alarm(&self, now: Instant) -> io::Result<()> {
        // Zero would switch it off.
        let wait = self.next().saturating_duration_since(now).max(Duration::from_nanos(1));
        let value =
            Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let alarm = Itimerspec { it_interval: interval, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &alarm)?;
        Ok(())
    }

    /// When the next batch is due.
    pub fn next(&self) -> Instant {
        // Counted from the beginning, so that no error adds up.
        self.begin + Duration::from_secs_f64(self.distance.as_secs_f64() * self.taken as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_gives_each_connection_its_turn_at_even_distances() {
        let mut schedule = Schedule::new(1000.0, 0, 1, 3).unwrap();
        let begin = schedule.begin;
        assert_eq!(schedule.take(begin - Duration::from_nanos(1)), None);
        let now = begin + Duration::from_millis(4);
        let taken: Vec<(usize, Instant)> = std::iter::from_fn(|| schedule.take(now)).collect();
        let expected = [(0, 0), (1, 1), (2, 2), (0, 3), (1, 4)];
        assert_eq!(taken, expected.map(|(at, ms)| (at, begin + Duration::from_millis(ms))));
    }

    #[test]
    fn threads_send_in_between_each_other() {
        let first = Schedule::new(100.0, 0, 2, 1).unwrap();
        let second = Schedule::new(100.0, 1, 2, 1).unwrap();
        assert_eq!((first.distance, second.distance), (Duration::from_millis(20), first.distance));
        let apart = second.begin - first.begin;
        assert!(apart >= Duration::from_millis(10), "{apart:?}");
    }
}
