//! One plot for each anomaly, bad and as it would be good.

use raftkv::proto::reply_decoder::Value;
use raftkv::sim::linearizability::{
    Answer, ClientId, Command, Contradiction, Failure, History, OperationId, STEPS, check,
};

use crate::brute_force::is_linearizable;
use crate::plot::{history, plot};

fn good(text: &str) {
    let operations = plot(text);
    assert!(is_linearizable(&operations), "every order was tried");
    if let Err(failure) = check(&history(&operations), STEPS) {
        panic!("{failure}");
    }
}

/// Panics unless the plot is contradictory and the report names `culprits`, and no others.
fn bad(text: &str, culprits: &[u32]) -> Contradiction {
    let operations = plot(text);
    assert!(!is_linearizable(&operations), "every order was tried");
    match check(&history(&operations), STEPS) {
        Err(Failure::Contradiction(contradiction)) => {
            let named: Vec<u32> = contradiction.operations.iter().map(|id| id.0).collect();
            assert_eq!(named, culprits, "{contradiction}");
            contradiction
        }
        other => panic!("not found: {other:?}"),
    }
}

#[test]
fn check_passes_an_empty_history() {
    let verdict = check(&History::new(), 0).unwrap();
    assert_eq!((verdict.operations, verdict.components, verdict.steps), (0, 0, 0));
}

#[test]
fn check_finds_stale_read() {
    bad(
        "1 10 20 SET a 1 -> OK
         1 30 40 SET a 2 -> OK
         2 50 60 GET a -> =1",
        &[0, 1, 2],
    );
    good(
        "1 10 20 SET a 1 -> OK
         1 30 40 SET a 2 -> OK
         2 35 60 GET a -> =1",
    );
}

#[test]
fn check_finds_a_doubtful_write_behind_a_later_one_of_its_connection() {
    bad(
        "1 10 ? SET a 1
         1 30 40 SET a 2 -> OK
         2 50 60 GET a -> =1",
        &[0, 1, 2],
    );
    // Not even where the later one came to nothing, or was on another key.
    bad(
        "1 10 ? SET a 1
         1 30 40 SETNX b 2 -> :1
         3 45 48 SET a 3 -> OK
         2 50 60 GET a -> =1",
        &[0, 2, 3],
    );
    // Before it, or from another connection, it may be.
    good(
        "1 10 ? SET a 1
         1 30 45 SET a 2 -> OK
         2 35 40 GET a -> =1
         2 50 60 GET a -> =2",
    );
    good(
        "1 10 ? SET a 1
         3 30 40 SET a 2 -> OK
         2 50 60 GET a -> =1",
    );
    // A read says nothing of what was written before it.
    good(
        "1 10 ? SET a 1
         1 30 40 GET a -> nil
         2 50 60 GET a -> =1",
    );
}

#[test]
fn may_be_written_tells_what_a_discarded_exec_may_blame() {
    let history = history(&plot(
        "1 10 20 SET a 1 -> OK
         2 30 ? SET b 1
         3 30 60 SET c 1 -> OK
         3 70 80 SET d 1 -> refused
         3 90 95 GET e -> nil",
    ));
    assert!(history.may_be_written(b"a", 15, 100), "under way");
    assert!(!history.may_be_written(b"a", 25, 100), "over");
    assert!(history.may_be_written(b"b", 50, 100), "nobody knows when");
    assert!(!history.may_be_written(b"b", 5, 20), "not yet sent");
    assert!(history.may_be_written(b"c", 40, 50));
    assert!(!history.may_be_written(b"d", 5, 100) && !history.may_be_written(b"e", 5, 100));
}

#[test]
fn check_finds_lost_update() {
    bad(
        "1 10 20 SET a 1 -> OK
         2 30 40 GET a -> nil",
        &[0, 1],
    );
    // Both counted, one is lost.
    bad(
        "1 10 20 INCR a -> :1
         2 30 40 INCR a -> :2
         3 50 60 GET a -> =1",
        &[1, 2],
    );
    good(
        "1 10 20 INCR a -> :1
         2 30 40 INCR a -> :2
         3 50 60 GET a -> =2",
    );
}

#[test]
fn check_finds_double_apply() {
    bad(
        "1 10 20 INCR a -> :1
         2 30 40 GET a -> =2",
        &[1],
    );
    bad(
        "1 10 20 APPEND a x -> :1
         2 30 40 GET a -> =xx",
        &[1],
    );
    // One of unknown outcome happens once at most.
    bad(
        "1 10 ? INCR a
         2 30 40 GET a -> =1
         2 50 60 GET a -> =2",
        &[2],
    );
    good(
        "1 10 ? INCR a
         3 20 ? INCR a
         2 30 40 GET a -> =1
         2 50 60 GET a -> =2",
    );
}

#[test]
fn check_finds_read_of_a_write_that_was_surely_not_done() {
    let contradiction = bad(
        "1 10 20 SET a 1 -> refused
         2 30 40 GET a -> =1",
        &[1],
    );
    let text = contradiction.to_string();
    assert!(
        text.contains("refused as surely not done:\n  #0 client 1, from 10 us: SET a"),
        "{text}"
    );
    good(
        "1 10 20 SET a 1 -> refused
         2 30 40 GET a -> nil",
    );
}

#[test]
fn check_finds_read_from_the_future() {
    let contradiction = bad(
        "1 10 20 GET a -> =1
         2 30 40 SET a 1 -> OK",
        &[0],
    );
    assert!(contradiction.to_string().contains("came later:\n  #1 "), "{contradiction}");
    bad(
        "1 10 20 GET a -> =1
         2 30 ? SET a 1",
        &[0],
    );
}

#[test]
fn check_finds_split_brain() {
    // Two leaders each take writes, and answer from their own.
    bad(
        "1 10 20 SET a 1 -> OK
         2 30 60 SET a 2 -> OK
         1 30 60 SET a 3 -> OK
         1 70 80 GET a -> =3
         2 70 80 GET a -> =2
         1 90 95 GET a -> =3
         2 90 95 GET a -> =2",
        &[1, 2, 3, 4],
    );
}

#[test]
fn check_finds_reads_that_go_back() {
    bad(
        "1 10 20 SET a 1 -> OK
         1 30 90 SET a 2 -> OK
         2 40 50 GET a -> =2
         3 60 70 GET a -> =1",
        &[0, 2, 3],
    );
    good(
        "1 10 20 SET a 1 -> OK
         1 30 90 SET a 2 -> OK
         2 40 65 GET a -> =2
         3 60 70 GET a -> =1",
    );
}

#[test]
fn check_finds_torn_multi_key_write() {
    bad(
        "1 10 20 MSET a 1 b 1 -> OK
         1 30 60 MSET a 2 b 2 -> OK
         2 40 50 MGET a b -> [2,1]",
        &[2],
    );
    good(
        "1 10 20 MSET a 1 b 1 -> OK
         1 30 60 MSET a 2 b 2 -> OK
         2 40 50 MGET a b -> [2,2]
         3 40 50 MGET b a -> [1,1]",
    );
    // Two readers that see two writes in two orders.
    bad(
        "1 10 90 SET a 1 -> OK
         2 10 90 SET b 1 -> OK
         3 20 30 MGET a b -> [1,nil]
         4 40 50 MGET a b -> [nil,1]",
        &[2, 3],
    );
}

#[test]
fn check_finds_two_increments_answered_alike() {
    bad(
        "1 10 20 INCR a -> :1
         2 15 25 INCR a -> :1",
        &[0, 1],
    );
}

#[test]
fn check_finds_two_swaps_that_both_succeed() {
    bad(
        "1 10 20 SET a 1 -> OK
         2 30 50 CAS a 1 2 -> :1
         3 30 50 CAS a 1 3 -> :1",
        &[1, 2],
    );
    good(
        "1 10 20 SET a 1 -> OK
         2 30 50 CAS a 1 2 -> :1
         3 30 50 CAS a 1 3 -> :0
         4 60 70 CAS b 1 3 -> :-1",
    );
    bad(
        "1 10 20 SETNX a 1 -> :1
         2 10 20 SET a 2 NX -> OK",
        &[0, 1],
    );
}

#[test]
fn check_passes_unknown_that_took_effect_late() {
    good(
        "1 10 ? SET a 1
         2 20 30 SET a 2 -> OK
         2 40 50 GET a -> =2
         3 60 70 GET a -> =1
         4 80 90 GET a -> =1",
    );
    // But once only, and not back to what was before.
    bad(
        "1 10 ? SET a 1
         2 20 30 SET a 2 -> OK
         3 60 70 GET a -> =1
         4 80 90 GET a -> =2",
        &[1, 2, 3],
    );
}

#[test]
fn check_passes_unknown_that_never_took_effect() {
    good(
        "1 10 ? SET a 1
         1 12 ? DEL a
         1 14 ? MSET a 7 b 7
         2 20 30 SETNX a 2 -> :1
         2 40 50 GET a -> =2
         2 60 70 EXISTS a b -> :1",
    );
}

#[test]
fn check_keeps_unknown_that_only_a_condition_saw() {
    // Nobody reads 1, yet it was there: the SETNX failed, and the CAS found another value.
    good(
        "1 10 ? SET a 1
         2 20 30 SETNX a 2 -> :0",
    );
    good(
        "1 10 ? SET a 1
         2 20 30 CAS a 2 3 -> :0",
    );
    good(
        "1 10 ? SET a 1
         2 20 ? INCR a
         2 30 40 GET a -> =2",
    );
    bad("2 20 30 SETNX a 2 -> :0", &[0]);
}

#[test]
fn check_passes_duplicates_that_change_nothing() {
    good(
        "1 10 20 SET a 1 -> OK
         2 10 ? SET a 1
         3 30 40 SET a 1 -> OK
         4 50 60 GET a -> =1",
    );
}

#[test]
fn check_holds_a_connection_to_its_order() {
    // A pipeline: the read was sent behind the write.
    bad(
        "1 10 50 SET a 1 -> OK
         1 20 50 GET a -> nil",
        &[0, 1],
    );
    good(
        "1 10 50 SET a 1 -> OK
         2 20 50 GET a -> nil",
    );
}

#[test]
fn check_holds_errors_against_the_state() {
    good(
        "1 10 20 SET a x -> OK
         1 30 40 INCR a -> error
         1 50 60 STRLEN a -> :1",
    );
    bad("1 30 40 INCR a -> error", &[0]);
    bad("1 30 40 GET a -> error", &[0]);
}

#[test]
fn check_tells_the_contradiction_without_the_bystanders() {
    let contradiction = bad(
        "1 1 2 SET a 0 -> OK
         1 3 4 GET a -> =0
         5 5 6 SET other 9 -> OK
         1 10 20 SET a 1 -> OK
         1 30 40 SET a 2 -> OK
         3 30 ? SET a 8
         3 32 34 GET a -> =1
         2 50 60 GET a -> =1
         1 70 80 GET a -> =2",
        &[3, 4, 7],
    );
    assert_eq!(contradiction.last, OperationId(7));
    assert_eq!(contradiction.keys, [b"a"]);
    assert_eq!(
        contradiction.to_string(),
        "linearizable: broken on key a. No order explains the answers of:\n  \
         #3 client 1, 10 to 20 us: SET a \"1\" -> OK\n  \
         #4 client 1, 30 to 40 us: SET a \"2\" -> OK\n  \
         #7 client 2, 50 to 60 us: GET a -> \"1\"\n\
         The other 4 sent by then on the same keys don't matter: the contradiction stays even if each took \
         effect at any other time, or never.\n\
         When #7 had to take effect the state could be, among others that fit no better: a = \"2\"."
    );
}

#[test]
fn check_reports_the_contradiction_that_shows_first() {
    let contradiction = bad(
        "1 50 60 GET a -> =1
         2 30 40 GET b -> =1
         3 70 80 GET c -> =1",
        &[0],
    );
    assert_eq!(contradiction.keys, [b"b"]);
}

#[test]
fn check_fails_without_budget() {
    let history = history(&plot(
        "1 10 20 SET a 1 -> OK
         2 30 40 GET a -> =1",
    ));
    let needed = check(&history, STEPS).unwrap().steps;
    assert!(check(&history, needed).is_ok());
    for steps in 0..1 {
        match check(&history, steps) {
            Err(Failure::OutOfBudget { keys, operations: 2, steps: given }) => {
                assert_eq!((keys.as_slice(), given), ([b"a".to_vec()].as_slice(), steps));
            }
            other => panic!("{steps} steps: {other:?}"),
        }
    }
}

#[test]
fn reply_sorts_what_a_client_is_told() {
    let mut history = History::new();
    let set = |value: &[u8]| Command::Set { key: b"a".to_vec(), value: value.to_vec() };
    let refused = history.invoke(ClientId(1), 0, set(b"1"));
    history.reply(refused, 1, &Value::Error("CLUSTERDOWN no leader".into()));
    let unknown = history.invoke(ClientId(1), 2, set(b"2"));
    history.reply(unknown, 3, &Value::Error("INDOUBT maybe".into()));
    let read = history.invoke(ClientId(1), 4, Command::Get { key: b"a".to_vec() });
    let mut other = history.clone();
    history.reply(read, 5, &Value::Bulk(b"2".to_vec()));
    assert_eq!(check(&history, STEPS).unwrap().operations, 1);
    other.answer(read, 5, Answer::Value(b"1".to_vec()));
    assert!(matches!(check(&other, STEPS), Err(Failure::Contradiction(_))));
}

#[test]
fn check_finds_torn_transaction() {
    bad(
        "1 10 20 TXN THEN 3 SET a 1 THEN 3 SET b 1 -> then OK;OK
         1 30 60 TXN THEN 3 SET a 2 THEN 3 SET b 2 -> then OK;OK
         2 40 50 MGET a b -> [2,1]",
        &[2],
    );
    good(
        "1 10 20 TXN THEN 3 SET a 1 THEN 3 SET b 1 -> then OK;OK
         1 30 60 TXN THEN 3 SET a 2 THEN 3 SET b 2 -> then OK;OK
         2 40 50 MGET a b -> [2,2]",
    );
}

#[test]
fn check_finds_transaction_that_overlooks_a_write() {
    bad(
        "1 10 20 SET a 1 -> OK
         2 30 40 SET a 2 -> OK
         1 50 60 TXN IF VALUE a 1 THEN 3 SET b 1 -> then OK",
        &[0, 1, 2],
    );
    good(
        "1 10 20 SET a 1 -> OK
         2 30 55 SET a 2 -> OK
         1 50 60 TXN IF VALUE a 1 THEN 3 SET b 1 -> then OK",
    );
}

#[test]
fn check_follows_what_an_unanswered_transaction_led_to() {
    // Nobody reads a. That the first SET took effect shows only in what the transaction made of it.
    good(
        "1 10 ? SET a 1
         2 20 ? TXN IF VALUE a 1 THEN 3 SET b 7
         3 30 40 GET b -> =7",
    );
    bad(
        "1 10 ? TXN IF VALUE a 1 THEN 3 SET b 7
         3 30 40 GET b -> =7",
        &[1],
    );
}

#[test]
fn reply_of_an_exec_that_was_discarded_is_no_answer() {
    let mut history = History::new();
    let words: [&[u8]; 8] = [b"TXN", b"IF", b"MISSING", b"a", b"THEN", b"3", b"SET", b"a"];
    assert_eq!(Command::from_words(&words), None, "one word is missing");
    let words = [&words[..], &[b"1"]].concat();
    let command = Command::from_words(&words).unwrap();
    let id = history.invoke(ClientId(1), 1, command);
    history.reply(id, 2, &Value::Nil);
    let get = Command::from_words(&[b"GET", b"a"]).unwrap();
    let id = history.invoke(ClientId(1), 3, get);
    history.reply(id, 4, &Value::Bulk(b"1".to_vec()));
    assert!(check(&history, STEPS).is_err(), "what was discarded has no effect");
}
