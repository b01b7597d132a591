//! The committed corpus of a fuzz target, replayed by its test.
//!
//! Called by the tests that are named after the targets in `fuzz/fuzz_targets/`. Removes nothing
//! that the fuzzer found.

use std::fs;
use std::path::Path;

/// Inputs made by hand, and their names.
pub type Seeds = Vec<(&'static str, Vec<u8>)>;

/// Gives `check` every input of the target's corpus. With `UPDATE_CORPUS=1` the seeds are written
/// into it first.
///
/// # Panics
/// If fewer inputs are there than seeds or than `least`: the corpus is gone, and nothing was shown.
pub fn replay(target: &str, seeds: &Seeds, least: usize, mut check: impl FnMut(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        fs::create_dir_all(&corpus).unwrap();
        for (name, seed) in seeds {
            fs::write(corpus.join(name), seed).unwrap();
        }
    }
    let mut inputs = 0;
    for file in fs::read_dir(&corpus).unwrap() {
        let path = file.unwrap().path();
        // Shown only where the test fails: the last one named is the one.
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs >= least.max(seeds.len()), "{target}: only {inputs} inputs are there");
}
