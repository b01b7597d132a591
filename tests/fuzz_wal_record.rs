//! Replays the committed corpus of the fuzz target `wal_record`.

mod corpus;

#[path = "../fuzz/checks/wal_record.rs"]
mod checks;

#[test]
fn wal_record_corpus_holds() {
    corpus::replay("wal_record", &Vec::new(), 17, checks::check);
}
