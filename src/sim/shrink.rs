//! A failing script becomes a smaller one that still fails in the same way.
//!
//! Source: Zeller's delta debugging (2002): halves of the faults are left out, then quarters, down
//! to single ones; then servers, clients, commands, time and noise. The same way is the same
//! invariant, or for an assertion of the node's own the same place. Called by `rkv-sim` once a seed
//! has failed.

use super::run::{Failure, run};
use super::script::{Script, Settings};

/// Runs that shrinking may take.
const RUNS: u32 = 500;

/// Makes `script`, which fails with `failure`, as small as it gets within some hundred runs.
pub fn shrink(script: &Script, failure: &Failure) -> (Script, Failure) {
    shrink_with(script, failure, run)
}

/// The same with another way to run a script: what counts is its failure.
fn shrink_with<T>(
    script: &Script,
    failure: &Failure,
    run: impl FnMut(&Script) -> Result<T, Failure>,
) -> (Script, Failure) {
    let (best, failure) = (script.clone(), failure.clone());
    let mut shrinker = Shrinker { best, failure, left: RUNS, run };
    shrinker.drop_faults();
    shrinker.calm_down();
    shrinker.lessen();
    shrinker.drop_faults();
    (shrinker.best, shrinker.failure)
}

struct Shrinker<F> {
    best: Script,
    failure: Failure,
    left: u32,
    run: F,
}

impl<T, F: FnMut(&Script) -> Result<T, Failure>> Shrinker<F> {
    /// Takes the smaller script if it still fails in the same way.
    fn attempt(&mut self, script: Script) -> bool {
        if self.left == 0 || script == self.best {
            return false;
        }
        self.left -= 1;
        match (self.run)(&script) {
            Err(failure) if failure.invariant == self.failure.invariant => {
                self.best = script;
                self.failure = failure;
                true
            }
            _ => false,
        }
    }

    fn attempt_with(&mut self, change: impl FnOnce(&mut Settings)) -> bool {
        let mut script = self.best.clone();
        change(&mut script.settings);
        self.attempt(script)
    }

    fn drop_faults(&mut self) {
        let mut size = self.best.faults.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let mut script = self.best.clone();
                let to = (from + size).min(script.faults.len());
                script.faults.drain(from..to);
                if !self.attempt(script) {
                    from += size;
                }
            }
            size /= 2;
        }
    }

    /// Each number back to what is usual.
    fn calm_down(&mut self) {
        for (name, usual) in Settings::default().all() {
            self.attempt_with(|settings| {
                let known = settings.set(name, usual);
                assert!(known, "the name is from the same list");
            });
        }
    }

    /// Fewer servers, clients, keys and commands, in less time.
    fn lessen(&mut self) {
        while self.best.settings.nodes > 1 && self.attempt_with(|settings| settings.nodes -= 1) {}
        while self.best.settings.clients > 1 && self.attempt_with(|settings| settings.clients -= 1)
        {
        }
        self.attempt_with(|settings| settings.keys = 1);
        self.attempt_with(|settings| settings.pipeline = 1);
        let last_ms = self.best.faults.iter().map(|fault| fault.at_ms).max().unwrap_or(0);
        for chaos_ms in [100, 300, 1000, last_ms + 100, last_ms + 1000] {
            if chaos_ms < self.best.settings.chaos_ms
                && self.attempt_with(|settings| settings.chaos_ms = chaos_ms)
            {
                break;
            }
        }
        // The fewest commands by halving: fewer of them mostly fail no more often.
        let (mut least, mut most) = (0, 1024);
        if self.best.settings.commands == 0 && !self.attempt_with(|all| all.commands = most) {
            return;
        }
        while least + 1 < most {
            let middle = (least + most) / 2;
            match self.attempt_with(|settings| settings.commands = middle) {
                true => most = middle,
                false => least = middle,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::script::{Fault, Kind};

    fn failure(invariant: &str) -> Failure {
        Failure { invariant: invariant.into(), what: String::new(), at: String::new() }
    }

    fn script() -> Script {
        let fault = |at_ms| Fault { at_ms, kind: Kind::Kill, a: at_ms, b: 0, c: 0 };
        let mut settings = Settings { nodes: 7, clients: 6, ..Settings::default() };
        settings.pipeline = 12;
        Script { seed: 1, settings, faults: (1..40).map(fault).collect() }
    }

    #[test]
    fn shrink_keeps_only_what_the_failure_needs() {
        let needs = |script: &Script| {
            let has = |place| script.faults.iter().any(|fault| fault.a == place);
            let commands = script.settings.commands;
            match has(7)
                && has(31)
                && script.settings.nodes >= 3
                && (commands == 0 || commands >= 5)
            {
                true => Err(failure("log-matching")),
                false => Ok(()),
            }
        };
        let (small, _) = shrink_with(&script(), &failure("log-matching"), needs);
        assert_eq!(small.faults.iter().map(|fault| fault.a).collect::<Vec<_>>(), [7, 31]);
        assert_eq!((small.settings.nodes, small.settings.clients), (3, 1));
        assert_eq!((small.settings.commands, small.settings.pipeline), (5, 1));
    }

    #[test]
    fn shrink_takes_no_other_failure_for_the_same() {
        // Without fault 7 something else fails, which would be smaller.
        let fails = |script: &Script| {
            let has = script.faults.iter().any(|fault| fault.a == 7);
            Err::<(), _>(failure(if has { "log-matching" } else { "convergence" }))
        };
        let (small, found) = shrink_with(&script(), &failure("log-matching"), fails);
        assert_eq!(found.invariant, "log-matching");
        assert_eq!(small.faults.iter().map(|fault| fault.a).collect::<Vec<_>>(), [7]);
    }
}
