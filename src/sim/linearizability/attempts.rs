//! Attempts of a search: it begins anew in another order where the one that it took leads nowhere.
//!
//! A search that has taken a wrong turn early may try all that follows from it before it comes
//! back. So it begins anew after a while, in an order that chance has a hand in (Gomes, Selman and
//! Kautz, "Boosting combinatorial search through randomization", 1998; the lengths are those of
//! Luby, Sinclair and Zuckerman, 1993). What one attempt has found out the next doesn't know. Half of
//! the budget is left for one more attempt in the first order. Called by `search`. Changes no answer.

use super::node::Node;
use super::search::{Outcome, Search};

/// Tries for the first attempt, and the unit of the others: so many at least, and so many for each
/// answer. A long history takes many without a wrong turn.
const ATTEMPT_STEPS: u64 = 20_000;
const STEPS_EACH: u64 = 200;

/// What chance adds to the cost of a configuration, at most: in sixteenths of an operation.
const NOISE: [u64; 4] = [16, 32, 64, 48];

impl Search<'_> {
    /// Looks for an order, in at most [`Search::steps`] for all attempts together.
    pub fn run_attempts(&mut self, first: &Node) -> Outcome {
        let all = *self.steps;
        let mut left = all;
        let length = ATTEMPT_STEPS.max(STEPS_EACH * self.answers() as u64);
        for attempt in 0u64.. {
            // Luby's sequence without its repetitions: 1, 1, 2, 1, 4, 1, 2, 1, 8 ...
            let unit = if attempt == 0 { 1 } else { attempt & attempt.wrapping_neg() };
            let is_last = left <= all / 2;
            let given = if is_last { left } else { left.min(unit * length) };
            self.chance = (attempt > 0 && !is_last).then(|| Chance::new(attempt));
            *self.steps = given;
            let outcome = self.run(first.clone());
            left -= given - *self.steps;
            if is_last || !matches!(outcome, Outcome::OutOfBudget) {
                *self.steps = left;
                return outcome;
            }
            self.begin_anew();
        }
        unreachable!("the attempts use up half of the steps")
    }
}

/// Which of two ways is tried first in an attempt of that number.
pub(super) struct Chance {
    state: u64,
    most: u64,
}

impl Chance {
    fn new(attempt: u64) -> Chance {
        let state = attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Chance { state, most: NOISE[attempt as usize % NOISE.len()] }
    }

    /// What it adds to a cost; Marsaglia's xorshift.
    pub fn noise(&mut self) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % self.most) as u32
    }
}
