//! The cluster clock: milliseconds that the leader sets and the log carries.
//!
//! Design: expiry is decided by the log, never by a replica's own clock. Each server keeps a
//! running estimate, the last cluster time it received plus what its monotonic clock has counted
//! since; a new leader continues from the highest estimate of its majority. So a wrong or jumping
//! wall clock never expires a key early and never brings one back. Called by `raft/`.

use std::time::Duration;

use crate::testing::{Mark, reached};
use crate::types::{ClusterTime, Instant, Term, WallClock};

/// A leader moves towards its wall clock by one part in this many: 0.05 %.
const SLEW: u64 = 2000;

/// Two clocks' rates differ by less than one part in this many, lease bounds included.
const RATE_SHARE: u64 = 4;

/// One server's knowledge of the cluster clock.
#[derive(Debug)]
pub struct ClusterClock {
    /// The cluster time at `since`, if this server has heard a leader (or led) since its start.
    base: Option<ClusterTime>,
    since: Instant,
    /// Whose word that was: the leader's of that term.
    term: Term,
    /// The newest reading of this machine's wall clock, and when it was read.
    wall: WallClock,
    wall_since: Instant,
    /// When the leader last slewed.
    slewed: Instant,
    /// When this server's last turn ended.
    turned: Instant,
    /// A server that runs has no longer pause than this between two turns.
    longest_pause: Duration,
    /// This server stood still, and until then it may hear what has waited for it.
    doubtful_until: Instant,
}

impl ClusterClock {
    /// A clock that knows nothing yet. A longer pause than that between two turns is none of the
    /// server's own: it stood still.
    pub fn new(now: Instant, longest_pause: Duration) -> ClusterClock {
        ClusterClock {
            base: None,
            since: now,
            term: Term::ZERO,
            wall: WallClock::ZERO,
            wall_since: now,
            slewed: now,
            turned: now,
            longest_pause,
            doubtful_until: Instant::ZERO,
        }
    }

    /// A turn of this server is over: whatever had arrived by now was heard.
    pub fn turn_ended(&mut self, now: Instant) {
        self.turned = now;
    }

    /// The running estimate, if there is one.
    pub fn estimate(&self, now: Instant) -> Option<ClusterTime> {
        let elapsed_ms = now.since(self.since).as_millis() as u64;
        self.base.map(|base| base.plus_ms(elapsed_ms))
    }

    /// The leader of `term` says what time it is. Its word may have been under way for long, or have
    /// waited in the socket of a process that stood still: what lags by more than clock rates explain
    /// would let keys live on for as long as that, and says nothing. Nor does the first word of a
    /// leader to a server that stood still, for which there is nothing to compare it with: that
    /// leader may be long dead, and its time would come back with this server's vote.
    pub fn hear(&mut self, now: Instant, term: Term, time: ClusterTime) {
        if now.since(self.turned) > self.longest_pause {
            self.doubtful_until = now.after(self.longest_pause);
        }
        if now < self.doubtful_until && (self.base.is_none() || term != self.term) {
            reached(Mark::ClockWordWaited);
            return;
        }
        let elapsed_ms = now.since(self.since).as_millis() as u64;
        let least = self.estimate(now).map(|estimate| estimate.0 - elapsed_ms / RATE_SHARE);
        let is_late = term == self.term && least.is_some_and(|least| time.0 < least);
        let time = if is_late { ClusterTime(least.unwrap_or(time.0)) } else { time };
        self.term = term;
        self.set(now, time);
    }

    fn set(&mut self, now: Instant, time: ClusterTime) {
        self.base = Some(time);
        self.since = now;
    }

    /// A reading of this machine's wall clock.
    pub fn observe_wall(&mut self, now: Instant, wall: WallClock) {
        self.wall = wall;
        self.wall_since = now;
    }

    /// This server leads from now on. `voted` is the highest estimate among its votes, `logged` the
    /// time of its last entry.
    pub fn lead(&mut self, now: Instant, voted: Option<ClusterTime>, logged: ClusterTime) {
        let known = self.estimate(now).max(voted);
        reached(if known.is_some() { Mark::ClockFromVotes } else { Mark::ClockFromWall });
        let time = known.unwrap_or_else(|| {
            let elapsed_ms = now.since(self.wall_since).as_millis() as u64;
            ClusterTime(self.wall.0.saturating_add(elapsed_ms))
        });
        self.set(now, time.max(logged));
        self.slewed = now;
    }

    /// The leader moves a little towards its wall clock.
    pub fn slew(&mut self, now: Instant) {
        let Some(time) = self.estimate(now) else {
            return;
        };
        let step_ms = now.since(self.slewed).as_millis() as u64 / SLEW;
        if step_ms == 0 {
            return;
        }
        self.slewed = now;
        let ahead_ms = self.wall.0.abs_diff(time.0).min(step_ms);
        let time = if self.wall.0 > time.0 { time.0 + ahead_ms } else { time.0 - ahead_ms };
        self.set(now, ClusterTime(time));
    }

    /// How long from `now` until the clock surely shows `time`.
    pub fn until(&self, now: Instant, time: ClusterTime) -> Duration {
        let estimate = self.estimate(now).unwrap_or(time);
        // The estimate was rounded down to a millisecond, and so may be the wait.
        Duration::from_millis(time.0.saturating_sub(estimate.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lead_takes_the_wall_clock_only_where_nobody_knows_the_time() {
        let now = Instant(0).after(SECOND);
        let mut clock = ClusterClock::new(now, SECOND);
        clock.observe_wall(now, WallClock(9_000));
        clock.lead(now, None, ClusterTime(5_000));
        assert_eq!(clock.estimate(now), Some(ClusterTime(9_000)));

        let mut clock = ClusterClock::new(now, SECOND);
        clock.observe_wall(now, WallClock(9_000_000));
        clock.lead(now, Some(ClusterTime(7_000)), ClusterTime(5_000));
        assert_eq!(clock.estimate(now.after(SECOND)), Some(ClusterTime(8_000)));
    }

    #[test]
    fn hear_takes_no_word_that_was_under_way_for_long() {
        let mut clock = ClusterClock::new(Instant(0), SECOND);
        clock.hear(Instant(0), Term(1), ClusterTime(1_000_000));
        let later = Instant(0).after(1000 * SECOND);
        clock.turn_ended(later);
        // 1. The same leader's clock may run slower, but not by much.
        clock.hear(later, Term(1), ClusterTime(1_000_050));
        assert_eq!(clock.estimate(later), Some(ClusterTime(1_750_000)));
        // 2. A second such word in the same moment moves nothing.
        clock.hear(later, Term(1), ClusterTime(1_000_100));
        assert_eq!(clock.estimate(later), Some(ClusterTime(1_750_000)));
        // 3. Another leader's time holds, whatever it is.
        clock.hear(later, Term(2), ClusterTime(1_000_200));
        assert_eq!(clock.estimate(later), Some(ClusterTime(1_000_200)));
    }

    #[test]
    fn hear_takes_no_leaders_first_word_that_waited_while_the_server_stood_still() {
        let mut clock = ClusterClock::new(Instant(0), SECOND);
        clock.turn_ended(Instant(0).after(SECOND));
        let later = Instant(0).after(1000 * SECOND);
        // 1. The first word may be as old as the pause was: it gives no estimate to vote with.
        clock.hear(later, Term(2), ClusterTime(1_000_000));
        clock.turn_ended(later);
        assert_eq!(clock.estimate(later), None);
        // 2. What is read in the next turns may have waited too.
        clock.hear(later.after(SECOND / 2), Term(2), ClusterTime(1_000_100));
        assert_eq!(clock.estimate(later), None);
        // 3. A leader that lives goes on, and counts.
        let at_last = later.after(SECOND);
        clock.hear(at_last, Term(2), ClusterTime(2_000_000));
        assert_eq!(clock.estimate(at_last), Some(ClusterTime(2_000_000)));
        // 4. An estimate that there is runs on, whatever the first word of another leader is.
        clock.turn_ended(at_last);
        let again = at_last.after(1000 * SECOND);
        clock.hear(again, Term(3), ClusterTime(2_000_001));
        assert_eq!(clock.estimate(again), Some(ClusterTime(3_000_000)));
    }

    #[test]
    fn lead_never_goes_behind_the_log() {
        let mut clock = ClusterClock::new(Instant(0), SECOND);
        clock.observe_wall(Instant(0), WallClock(1_000));
        clock.lead(Instant(0), None, ClusterTime(5_000));
        assert_eq!(clock.estimate(Instant(0)), Some(ClusterTime(5_000)));
    }

    #[test]
    fn slew_moves_by_at_most_a_twentieth_of_a_percent() {
        let mut clock = ClusterClock::new(Instant(0), SECOND);
        clock.observe_wall(Instant(0), WallClock(0));
        clock.lead(Instant(0), Some(ClusterTime(1_000_000)), ClusterTime(0));
        let later = Instant(0).after(100 * SECOND);
        clock.observe_wall(later, WallClock(3_600_000));
        clock.slew(later);
        assert_eq!(clock.estimate(later), Some(ClusterTime(1_100_050)));
    }
}
