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

/// What anybody can see of a store: the live keys. Revisions aside: a removal takes one, and so they
/// depend on when it was, which is the same on every node.
fn visible(store: &Store) -> Vec<(Vec<u8>, Vec<u8>, Option<ClusterTime>)> {
    let items = store.iter_from(b"");
    items.map(|(key, item)| (key.to_vec(), item.value.to_vec(), item.deadline)).collect()
}

proptest! {
    #[test]
    fn apply_takes_anything_and_is_deterministic(entries in prop::collection::vec(entry(), 0..30)) {
        let mut stores = [Store::new(), Store::new()];
        let mut clock = 0_u64;
        for (code, words, passed_ms) in entries {
            clock = clock.saturating_add(passed_ms);
            let replies = stores.each_mut().map(|store| {
                store.advance_clock(ClusterTime(clock));
                store.expire_due(1);
                apply(store, code, &words)
            });
            let [one, other] = &stores;
            prop_assert_eq!(&replies[0], &replies[1]);
            prop_assert!(one.iter_from(b"").eq(other.iter_from(b"")));
            prop_assert_eq!(one.revision(), other.revision());
        }
    }

    #[test]
    fn apply_hides_what_is_dead_before_it_is_removed(
        entries in prop::collection::vec(entry(), 0..30)
    ) {
        let (mut swift, mut slow) = (Store::new(), Store::new());
        let mut clock = 0_u64;
        for (code, words, passed_ms) in entries {
            clock = clock.saturating_add(passed_ms);
            let name = command::by_code(code).map_or("", |command| command.name);
            // A number that nobody gave is that of a mutation.
            if name == "session|open" || name == "lease|grant" && words.len() == 2 {
                continue;
            }
            swift.advance_clock(ClusterTime(clock));
            slow.advance_clock(ClusterTime(clock));
            swift.expire_due(usize::MAX);
            let replies = [&mut swift, &mut slow].map(|store| apply(store, code, &words));
            // These tell revisions, or draw among what is stored.
            let may_differ = ["getrev", "krange", "set", "txn", "randomkey"].contains(&name);
            prop_assert!(may_differ || replies[0] == replies[1], "{}: {:?}", name, replies);
            prop_assert_eq!(visible(&swift), visible(&slow));
        }
    }
}
