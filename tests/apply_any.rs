//! Whatever stands in the log, applying it must not panic and must be the same on every node: each
//! command with any arguments, right or wrong in number, on two stores.

use proptest::prelude::*;
use raftkv::kv::command::{self, Handler, ReadContext, WriteContext};
use raftkv::kv::luck::Luck;
use raftkv::kv::store::Store;
use raftkv::proto::args::{Args, push_arg};
use raftkv::proto::reply::Reply;
use raftkv::types::ClusterTime;

fn word() -> impl Strategy<Value = Vec<u8>> {
    let option = prop::sample::select(vec![
        "NX", "XX", "GET", "EX", "PX", "EXAT", "PXAT", "KEEPTTL", "IFEQ", "IFREV", "GT", "LT",
        "ASYNC", "LEASE", "KEYS",
    ]);
    let number = prop::sample::select(vec![
        0,
        1,
        -1,
        5,
        1000,
        i64::MAX,
        i64::MAX - 1,
        i64::MIN,
        i64::MAX / 1000,
        i64::MIN / 1000,
    ]);
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c", ""]).prop_map(|key| key.as_bytes().to_vec()),
        2 => option.prop_map(|word| word.as_bytes().to_vec()),
        2 => number.prop_map(|number| number.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ]
}

/// A code, the arguments behind the name, and how far the clock moves before.
fn entry() -> impl Strategy<Value = (u16, Vec<Vec<u8>>, u64)> {
    (
        1_u16..128,
        prop::collection::vec(word(), 0..6),
        prop_oneof![Just(0), 0_u64..2000, any::<u64>()],
    )
}

fn apply(store: &mut Store, code: u16, words: &[Vec<u8>]) -> Option<Reply> {
    let command = command::by_code(code)?;
    let mut encoded = Vec::new();
    push_arg(&mut encoded, command.name.as_bytes());
    words.iter().for_each(|word| push_arg(&mut encoded, word));
    let args = Args::checked(words.len() as u32 + 1, &encoded).unwrap();
    let before = store.revision();
    let result = match command.handler {
        Handler::Write { apply, .. } => apply(&mut WriteContext { store }, args),
        Handler::Read { run, .. } => {
            run(&ReadContext { store, now: store.clock(), luck: &Luck::new(1) }, args)
        }
        Handler::Connection { .. } | Handler::Container => unreachable!("these have no code"),
    };
    if result.is_err() {
        assert_eq!(store.revision(), before, "an error changes nothing");
    }
    Some(result.unwrap_or_else(|error| error.reply()))
}

proptest! {
    #[test]
    fn apply_takes_anything_and_is_deterministic(entries in prop::collection::vec(entry(), 0..30)) {
        let (mut one, mut other) = (Store::new(), Store::new());
        let mut clock = 0_u64;
        for (code, words, passed_ms) in entries {
            clock = clock.saturating_add(passed_ms);
            one.advance_clock(ClusterTime(clock));
            other.advance_clock(ClusterTime(clock));
            // An expiry is a mutation, so every node removes as many. Some of the dead stay stored.
            prop_assert_eq!(one.expire_due(1), other.expire_due(1));
            prop_assert_eq!(apply(&mut one, code, &words), apply(&mut other, code, &words));
            prop_assert!(one.iter_from(b"").eq(other.iter_from(b"")));
            prop_assert_eq!(one.revision(), other.revision());
        }
    }
}
