//! Replays the committed corpus of the fuzz target `wal_record`.

#[path = "../../fuzz/checks/wal_record.rs"]
mod checks;

#[test]
fn wal_record_corpus_holds() {
    crate::corpus::replay("wal_record", &Vec::new(), 17, checks::check);
}
