//! SCAN returns every key that is there throughout, whatever else comes and goes and on whichever
//! node each call runs; RANDOMKEY can return any key.

use std::collections::BTreeSet;

use proptest::prelude::*;
use raftkv::kv::command::{self, Handler, ReadContext, WriteContext};
use raftkv::kv::luck::Luck;
use raftkv::kv::store::Store;
use raftkv::proto::args::{Args, push_arg};
use raftkv::proto::reply::Reply;
use raftkv::types::ClusterTime;

fn run(store: &mut Store, words: &[&str]) -> Reply {
    let mut encoded = Vec::new();
    words.iter().for_each(|word| push_arg(&mut encoded, word.as_bytes()));
    let args = Args::checked(words.len() as u32, &encoded).unwrap();
    let command = command::resolve(args).unwrap();
    match command.handler {
        Handler::Write { apply, .. } => apply(&mut WriteContext { store }, args).unwrap(),
        Handler::Read { run, .. } => {
            let luck = Luck::new(store.revision().0);
            run(&ReadContext { store, now: store.clock(), luck: &luck }, args).unwrap()
        }
        _ => unreachable!("a command of the store"),
    }
}

fn text(reply: &Reply) -> String {
    let Reply::Bulk(bytes) = reply else { panic!("{reply:?} is no string") };
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One page: the next cursor, and the keys.
fn page(store: &mut Store, cursor: &str, options: &[&str]) -> (String, Vec<String>) {
    let words: Vec<&str> = ["SCAN", cursor].into_iter().chain(options.iter().copied()).collect();
    let Reply::Array(parts) = run(store, &words) else { panic!("SCAN answers an array") };
    let Reply::Array(keys) = &parts[1] else { panic!("SCAN answers an array of keys") };
    (text(&parts[0]), keys.iter().map(text).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn scan_returns_what_is_there_throughout(
        changes in prop::collection::vec((0_u32..2000, any::<bool>(), any::<bool>()), 400),
        count in 1_usize..40,
    ) {
        // The same log on two nodes; one of them has a dead key that the other has removed.
        let mut nodes = [Store::new(), Store::new()];
        let stays: BTreeSet<String> = (0..2000).step_by(2).map(|n| format!("key:{n}")).collect();
        for store in &mut nodes {
            stays.iter().for_each(|key| {
                store.set(key.as_bytes(), b"v", None);
            });
            store.set(b"key:0:dead", b"v", Some(ClusterTime(1)));
            store.advance_clock(ClusterTime(1));
        }
        nodes[0].expire_due(usize::MAX);
        let count = count.to_string();
        let mut seen = BTreeSet::new();
        let mut cursor = String::from("0");
        let mut changes = changes.into_iter();
        // Where the pivot of a cursor goes, the scan begins anew: that ends with the changes.
        for _ in 0..4000 {
            let change = changes.next();
            for store in &mut nodes {
                if let Some((number, sets, _)) = change {
                    let key = format!("key:{}", number | 1);
                    run(store, &if sets { vec!["SET", &key, "w"] } else { vec!["DEL", &key] });
                }
            }
            let at = usize::from(change.is_some_and(|(_, _, other)| other));
            let (next, keys) = page(&mut nodes[at], &cursor, &["COUNT", &count]);
            seen.extend(keys);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        prop_assert_eq!(cursor, "0", "the scan ends");
        prop_assert!(stays.is_subset(&seen));
        prop_assert!(!seen.contains("key:0:dead"));
    }
}

#[test]
fn scan_with_a_pattern_looks_only_where_it_can_match() {
    let mut store = Store::new();
    for number in 0..20_000 {
        store.set(format!("a:{number}").as_bytes(), b"", None);
        store.set(format!("b:{number}").as_bytes(), b"", None);
    }
    store.set(b"user:7", b"", None);
    let found = page(&mut store, "0", &["MATCH", "user:*"]);
    assert_eq!(found, ("0".into(), vec!["user:7".into()]), "one page holds it all");
}

#[test]
fn a_scan_that_deletes_what_it_finds_never_begins_anew() {
    let mut store = Store::new();
    (0..5000).for_each(|number| {
        store.set(format!("key:{number}").as_bytes(), b"", None);
    });
    let (mut cursor, mut pages, mut deleted) = (String::from("0"), 0, 0);
    loop {
        let (next, keys) = page(&mut store, &cursor, &[]);
        deleted += keys.len();
        for key in &keys {
            run(&mut store, &["DEL", key]);
        }
        pages += 1;
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!((deleted, store.len()), (5000, 0));
    assert!(pages > 50, "{pages} pages of ten keys and a little more");
}

proptest! {
    #[test]
    fn randomkey_can_return_every_key(
        keys in prop::collection::btree_set("[ab\u{0}\u{7f}]{0,5}", 1..12),
    ) {
        let mut store = Store::new();
        keys.iter().for_each(|key| {
            store.set(key.as_bytes(), b"", None);
        });
        let luck = Luck::new(7);
        let mut seen = BTreeSet::new();
        for _ in 0..20_000 {
            let key = store.random_key(|| luck.draw()).expect("there are keys");
            seen.insert(String::from_utf8(key.to_vec()).unwrap());
        }
        prop_assert_eq!(seen, keys);
    }
}

#[test]
fn randomkey_returns_no_dead_key() {
    let mut store = Store::new();
    let luck = Luck::new(7);
    assert_eq!(store.random_key(|| luck.draw()), None);
    (0..100).for_each(|n| {
        store.set(format!("dead:{n}").as_bytes(), b"", Some(ClusterTime(5)));
    });
    store.set(b"alive", b"", None);
    store.advance_clock(ClusterTime(5));
    for _ in 0..100 {
        assert_eq!(store.random_key(|| luck.draw()), Some(&b"alive"[..]));
    }
    store.delete(b"alive");
    assert_eq!(store.random_key(|| luck.draw()), None);
}
