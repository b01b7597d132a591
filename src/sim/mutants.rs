//! The tester tested: which seed fails when a rule is broken on purpose, and by which invariant.
//!
//! Called by `rkv-sim --mutants` and `tests/mutants.rs`. A search that ran out of its budget has
//! shown nothing, so it is no catch. Exists only with the feature `testing`.

pub use super::run::INVARIANTS;
use super::run::{Failure, run_seed};
use crate::testing::mutation::{self, Mutation};

/// A mutation that a seed has caught.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caught {
    /// The seed.
    pub seed: u64,
    /// Seeds that were run, this one included.
    pub runs: u64,
    /// What its run says.
    pub failure: Failure,
}

/// Runs `seeds` with a rule broken until one fails; `None` where the mutation survives them all.
pub fn hunt(mutation: Mutation, seeds: impl IntoIterator<Item = u64>) -> Option<Caught> {
    for (seed, runs) in seeds.into_iter().zip(1..) {
        if let Err(failure) = mutation::with(Some(mutation), || run_seed(seed))
            && !failure.what.contains(UNDECIDED)
        {
            return Some(Caught { seed, runs, failure });
        }
    }
    None
}

/// How a search without a verdict says so.
const UNDECIDED: &str = "undecided";

/// The invariant that a failure names, or where the assertion stands that has no such name.
pub fn invariant(failure: &Failure) -> String {
    match INVARIANTS.contains(&&*failure.invariant) {
        true => failure.invariant.clone(),
        false => format!("({})", failure.at),
    }
}

#[cfg(test)]
mod tests {
    use super::super::linearizability;
    use super::*;

    #[test]
    fn a_search_without_a_verdict_is_told_by_its_text() {
        let failure =
            linearizability::Failure::OutOfBudget { keys: Vec::new(), operations: 9, steps: 5 };
        assert!(format!("linearizable: {failure}").contains(UNDECIDED));
    }

    #[test]
    fn invariant_names_the_design_or_the_place() {
        let failure = |what: &str| Failure::new(what, "a.rs:1:2".to_owned());
        assert_eq!(invariant(&failure("hard-state: n1 votes twice")), "hard-state");
        let equal = "assertion `left == right` failed: log-matching: n1 at 3";
        assert_eq!(invariant(&failure(equal)), "log-matching");
        assert_eq!(invariant(&failure("the log has no gaps")), "(a.rs:1:2)");
    }
}
