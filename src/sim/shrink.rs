//! A failing script becomes a smaller one that still fails in the same way.
//!
//! Delta debugging (Zeller, 2002): halves of the faults are left out, then quarters, down to single
//! ones; then the load and the noise. Called by `rkv-sim` once a seed has failed.

use super::run::{Failure, run};
use super::script::{Script, Settings};

/// Runs that shrinking may take.
const RUNS: u32 = 400;

/// The invariant that a failure names: what comes before the first colon or number.
fn name(failure: &Failure) -> &str {
    let end = failure.what.find(|c: char| c == ':' || c.is_ascii_digit());
    &failure.what[..end.unwrap_or(failure.what.len()).min(60)]
}

/// Makes `script`, which fails with `failure`, as small as it gets within some hundred runs.
pub fn shrink(script: &Script, failure: &Failure) -> (Script, Failure) {
    let mut shrinker = Shrinker { best: script.clone(), failure: failure.clone(), left: RUNS };
    shrinker.drop_faults();
    shrinker.calm_down();
    shrinker.drop_faults();
    (shrinker.best, shrinker.failure)
}

struct Shrinker {
    best: Script,
    failure: Failure,
    left: u32,
}

impl Shrinker {
    /// Takes the smaller script if it still fails in the same way.
    fn attempt(&mut self, script: Script) -> bool {
        if self.left == 0 || script == self.best {
            return false;
        }
        self.left -= 1;
        match run(&script) {
            Err(failure) if name(&failure) == name(&self.failure) => {
                self.best = script;
                self.failure = failure;
                true
            }
            _ => false,
        }
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

    /// Each number back to what is usual, then fewer servers, clients and seconds.
    fn calm_down(&mut self) {
        for (name, usual) in Settings::default().all() {
            let mut script = self.best.clone();
            let known = script.settings.set(name, usual);
            assert!(known, "the name is from the same list");
            self.attempt(script);
        }
        while self.best.settings.clients > 1 {
            let mut script = self.best.clone();
            script.settings.clients -= 1;
            if !self.attempt(script) {
                break;
            }
        }
        for chaos_ms in [100, 300, 1000] {
            let mut script = self.best.clone();
            script.settings.chaos_ms = script.settings.chaos_ms.min(chaos_ms);
            if self.attempt(script) {
                break;
            }
        }
    }
}
