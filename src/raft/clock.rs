//! The cluster clock: milliseconds that the leader sets and the log carries.
//!
//! Design: expiry is decided by the log, never by a replica's own clock. Each server keeps a
//! running estimate, the last cluster time it received plus what its monotonic clock has counted
//! since; a new leader continues from the highest estimate of its majority. So a wrong or jumping
//! wall clock never expires a key early and never brings one back. Called by `raft/`.

use std::time::Duration;

use crate::testing::{Mark, Mutation, is_on, reached};
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
    /// A leader's word that no later one has borne out yet.
    unproven: Option<Word>,
    /// How much later that has to be.
    proof: Duration,
}

/// What time it was by the leader of a term, and when that was heard.
#[derive(Clone, Copy, Debug)]
struct Word {
    term: Term,
    time: ClusterTime,
    heard: Instant,
}

impl ClusterClock {
    /// A clock that knows nothing yet. It takes a leader's word once another, `proof` later, agrees.
    pub fn new(now: Instant, proof: Duration) -> ClusterClock {
        ClusterClock {
            base: None,
            since: now,
            term: Term::ZERO,
            wall: WallClock::ZERO,
            wall_since: now,
            slewed: now,
            unproven: None,
            proof,
        }
    }

    /// The running estimate, if there is one.
    pub fn estimate(&self, now: Instant) -> Option<ClusterTime> {
        let elapsed_ms = now.since(self.since).as_millis() as u64;
        self.base.map(|base| base.plus_ms(elapsed_ms))
    }

    /// The leader of `term` says what time it is. Its word may have been under way for long, or have
    /// waited in the socket of a process that stood still: what lags by more than clock rates explain
    /// would let keys live on for as long as that, and says nothing.
    pub fn hear(&mut self, now: Instant, term: Term, time: ClusterTime) {
        match self.estimate(now) {
            Some(estimate) if term == self.term => {
                let least = estimate.0 - now.since(self.since).as_millis() as u64 / RATE_SHARE;
                self.set(now, time.max(ClusterTime(least)));
            }
            _ => self.hear_first(now, term, time),
        }
    }

    /// The first words of a leader, for which there is nothing to compare them with. It may be long
    /// dead, and its time would come back with this server's vote: so they count once one that comes
    /// later agrees with one before it. Until then the estimate, if there is one, runs on.
    fn hear_first(&mut self, now: Instant, term: Term, time: ClusterTime) {
        let Some(first) = self.unproven.filter(|first| first.term == term) else {
            self.unproven = Some(Word { term, time, heard: now });
            return;
        };
        let passed = now.since(first.heard);
        let tolerance_ms = passed.as_millis() as u64 / RATE_SHARE;
        let expected = first.time.plus_ms(passed.as_millis() as u64);
        if time > expected.plus_ms(tolerance_ms) {
            // The first one was under way for longer than this one.
            reached(Mark::ClockWordLate);
            self.unproven = Some(Word { term, time, heard: now });
        } else if time.plus_ms(tolerance_ms) >= expected && passed >= self.proof {
            self.unproven = None;
            self.term = term;
            self.set(now, time.max(ClusterTime(expected.0 - tolerance_ms)));
        }
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
        let elapsed_ms = now.since(self.wall_since).as_millis() as u64;
        let wall = ClusterTime(self.wall.0.saturating_add(elapsed_ms));
        let time = match known {
            Some(known) if is_on(Mutation::LeadsByWallClock) => known.max(wall),
            Some(known) => known,
            None => wall,
        };
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

    /// A clock that has heard the leader of term 1 say, in the end, that it is `time_ms`.
    fn heard(at: Instant, time_ms: u64) -> ClusterClock {
        let mut clock = ClusterClock::new(Instant(0), SECOND);
        clock.hear(Instant(at.0 - 1_000_000_000), Term(1), ClusterTime(time_ms - 1000));
        clock.hear(at, Term(1), ClusterTime(time_ms));
        assert_eq!(clock.estimate(at), Some(ClusterTime(time_ms)));
        clock
    }

    #[test]
    fn hear_takes_no_word_that_was_under_way_for_long() {
        let begin = Instant(0).after(SECOND);
        let mut clock = heard(begin, 1_000_000);
        let later = begin.after(1000 * SECOND);
        // 1. The same leader's clock may run slower, but not by much.
        clock.hear(later, Term(1), ClusterTime(1_000_050));
        assert_eq!(clock.estimate(later), Some(ClusterTime(1_750_000)));
        // 2. A second such word in the same moment moves nothing.
        clock.hear(later, Term(1), ClusterTime(1_000_100));
        assert_eq!(clock.estimate(later), Some(ClusterTime(1_750_000)));
        // 3. Another leader's time holds, whatever it is, once it has said so twice.
        clock.hear(later, Term(2), ClusterTime(1_000_200));
        assert_eq!(clock.estimate(later), Some(ClusterTime(1_750_000)));
        let again = later.after(SECOND);
        clock.hear(again, Term(2), ClusterTime(1_001_200));
        assert_eq!(clock.estimate(again), Some(ClusterTime(1_001_200)));
    }

    #[test]
    fn hear_takes_no_first_words_that_waited_and_that_no_other_follows() {
        let later = Instant(0).after(1000 * SECOND);
        let mut clock = ClusterClock::new(Instant(0), SECOND);
        // 1. A dead leader's last words, read one after the other, give no estimate to vote with.
        for ms in 0..100 {
            clock.hear(later, Term(2), ClusterTime(1_000_000 + 50 * ms));
        }
        assert_eq!(clock.estimate(later.after(SECOND)), None);
        // 2. Nor does one that comes later still, and was under way for as much longer.
        clock.hear(later.after(SECOND), Term(2), ClusterTime(1_000_100));
        assert_eq!(clock.estimate(later.after(SECOND)), None);
        // 3. A leader that lives goes on, and counts; what it says first was late as well.
        clock.hear(later.after(2 * SECOND), Term(2), ClusterTime(2_000_000));
        clock.hear(later.after(3 * SECOND), Term(2), ClusterTime(2_001_000));
        assert_eq!(clock.estimate(later.after(3 * SECOND)), Some(ClusterTime(2_001_000)));
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
