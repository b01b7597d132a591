//! Replays the committed corpus of the fuzz target `wal_record`.

use std::fs;
use std::path::Path;

#[test]
fn corpus_decodes_in_pieces_as_a_whole() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/wal_record");
    let mut inputs = 0;
    for file in fs::read_dir(corpus).unwrap() {
        raftkv::proto::record::check_chunks(&fs::read(file.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 17, "{inputs} inputs");
}
