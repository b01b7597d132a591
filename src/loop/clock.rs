//! The clocks of the machine as the crate's own numbers.
//!
//! Nothing else in the server reads a clock: the core is given [`Instant`]s and, with each tick, a
//! [`WallClock`]. Called by `main` (recovery needs a first instant) and by the loop.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::types::{Instant, WallClock};

/// The monotonic clock, counted from when this value was made. A copy counts from the same point.
///
/// Time in which the machine was suspended counts (`CLOCK_BOOTTIME`, clock_gettime(2)). To
/// `CLOCK_MONOTONIC`, the standard library's, it does not: a leader that slept for an hour would hold
/// its lease for what was left of it, and answer reads that are an hour old. The poll's own timeouts
/// do not count it; so the first turn may be late by one of them, and then reads this clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Duration,
}

impl Clock {
    /// A clock that begins now. One process makes one: instants of two clocks cannot be compared.
    pub fn start() -> Clock {
        Clock { origin: since_boot() }
    }

    /// Monotonic nanoseconds. Time that the process was stopped or the machine slept counts, but not
    /// time in which a hypervisor kept the whole guest, its clocks included, from running.
    pub fn now(&self) -> Instant {
        let elapsed = since_boot().saturating_sub(self.origin);
        Instant(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX - 1))
    }

    /// The wall clock; zero if it stands before 1970. A begun millisecond counts as over: what is
    /// counted on from here in whole milliseconds is then never behind the millisecond that a client
    /// on this machine reads, and a deadline that the client makes of it never too far away.
    pub fn wall(&self) -> WallClock {
        WallClock(rounded_up(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::try_from(time).expect("a machine has not been running for less than no time")
}

fn rounded_up(since: Duration) -> u64 {
    u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_never_goes_back_and_is_shared_by_copies() {
        let clock = Clock::start();
        let copy = clock;
        let first = clock.now();
        let second = copy.now();
        assert!(first <= second);
        assert!(second.since(first) < std::time::Duration::from_secs(60));
    }

    #[test]
    fn now_counts_suspended_time() {
        // /proc/uptime is CLOCK_BOOTTIME, in hundredths of a second (proc_uptime(5)).
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            Duration::from_secs_f64(text.split(' ').next().unwrap().parse().unwrap())
        };
        let clock = Clock { origin: Duration::ZERO };
        let hundredth = Duration::from_millis(10);
        let (before, shown, after) = (uptime(), Duration::from_nanos(clock.now().0), uptime());
        assert!(before <= shown && shown <= after + hundredth, "{before:?} {shown:?} {after:?}");
    }

    #[test]
    fn what_is_counted_on_from_wall_is_never_behind_whole_milliseconds() {
        for begun_us in 5_000..6_100 {
            for later_us in [0, 1, 499, 999, 1000, 1001, 1999, 2500] {
                let (begun, later) =
                    (Duration::from_micros(begun_us), Duration::from_micros(later_us));
                let counted = rounded_up(begun) + later.as_millis() as u64;
                let read = (begun + later).as_millis() as u64;
                assert!((read..=read + 1).contains(&counted), "{begun:?} and {later:?}");
            }
        }
    }
}
