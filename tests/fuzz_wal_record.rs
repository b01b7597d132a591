//! Replays the committed corpus of the fuzz target `wal_record`.

use std::fs;

#[path = "../fuzz/checks/wal_record.rs"]
mod checks;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/wal_record");

#[test]
fn wal_record_corpus_holds() {
    let mut inputs = 0;
    for file in fs::read_dir(CORPUS).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        checks::check(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 17, "{inputs} inputs");
}
