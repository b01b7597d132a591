//! Leases against a model so simple that it is obviously right: any sequence of commands, and dead
//! keys that are removed sooner or later.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use raftkv::kv::command::{self, Handler, ReadContext, WriteContext};
use raftkv::kv::history::ChangeKind;
use raftkv::kv::luck::Luck;
use raftkv::kv::store::Store;
use raftkv::proto::args::{Args, push_arg};
use raftkv::proto::reply::Reply;
use raftkv::types::{ClusterTime, Revision};

#[derive(Clone, Debug)]
enum Step {
    Grant(u8, u64),
    KeepAlive(u8),
    Revoke(u8),
    /// A key, perhaps with a time to live, perhaps of a lease.
    Set(u8, Option<u64>, Option<u8>),
    Append(u8),
    Expire(u8, u64),
    Delete(u8),
    Clear,
    Pass(u64),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (key, lease, ms) = (|| 0_u8..6, || 1_u8..4, || 1_u64..40);
    prop_oneof![
        4 => (lease(), ms()).prop_map(|(lease, ms)| Step::Grant(lease, ms)),
        3 => lease().prop_map(Step::KeepAlive),
        1 => lease().prop_map(Step::Revoke),
        9 => (key(), prop::option::of(ms()), prop::option::weighted(0.7, lease()))
            .prop_map(|(key, ms, lease)| Step::Set(key, ms, lease)),
        1 => key().prop_map(Step::Append),
        2 => (key(), ms()).prop_map(|(key, ms)| Step::Expire(key, ms)),
        2 => key().prop_map(Step::Delete),
        1 => Just(Step::Clear),
        6 => (0_u64..20).prop_map(Step::Pass),
        3 => (0_usize..3).prop_map(Step::Remove),
    ]
}

/// What lives, and nothing else.
#[derive(Default)]
struct Model {
    clock: u64,
    /// Time to live and end of each lease.
    leases: BTreeMap<u8, (u64, u64)>,
    /// Deadline and lease of each key.
    keys: BTreeMap<u8, (Option<u64>, Option<u8>)>,
}

impl Model {
    /// Returns what the command answers, if the step is one.
    fn apply(&mut self, step: &Step) -> Option<Reply> {
        let no_lease = Reply::Error("NOLEASE no such lease".into());
        let count = |is_done: bool| Reply::Integer(i64::from(is_done));
        let reply = match *step {
            Step::Grant(lease, _) if self.leases.contains_key(&lease) => {
                Reply::Error("ERR there is a lease of that number".into())
            }
            Step::Grant(lease, ms) => {
                self.leases.insert(lease, (ms, self.clock + ms));
                Reply::Integer(i64::from(lease))
            }
            Step::KeepAlive(lease) => match self.leases.get_mut(&lease) {
                Some((ms, end)) => {
                    *end = self.clock + *ms;
                    Reply::Integer(*ms as i64)
                }
                None => no_lease,
            },
            Step::Revoke(lease) => match self.leases.remove(&lease) {
                Some(_) => {
                    let before = self.keys.len();
                    self.keys.retain(|_, (_, of)| *of != Some(lease));
                    Reply::Integer((before - self.keys.len()) as i64)
                }
                None => no_lease,
            },
            Step::Set(_, _, Some(lease)) if !self.leases.contains_key(&lease) => no_lease,
            Step::Set(key, ms, lease) => {
                self.keys.insert(key, (ms.map(|ms| self.clock + ms), lease));
                Reply::OK
            }
            Step::Append(key) => {
                self.keys.entry(key).or_default().1 = None;
                return None;
            }
            Step::Expire(key, ms) => {
                let deadline = self.clock + ms;
                count(self.keys.get_mut(&key).map(|it| it.0 = Some(deadline)).is_some())
            }
            Step::Delete(key) => count(self.keys.remove(&key).is_some()),
            Step::Clear => {
                self.keys.clear();
                Reply::OK
            }
            Step::Pass(ms) => {
                self.clock += ms;
                let clock = self.clock;
                self.leases.retain(|_, (_, end)| *end > clock);
                let leases = &self.leases;
                self.keys.retain(|_, (deadline, lease)| {
                    deadline.is_none_or(|deadline| deadline > clock)
                        && lease.is_none_or(|lease| leases.contains_key(&lease))
                });
                return None;
            }
            Step::Remove(_) => return None,
        };
        Some(reply)
    }
}

fn line(step: &Step) -> Option<String> {
    Some(match step {
        Step::Grant(lease, ms) => format!("LEASE GRANT {ms} {lease}"),
        Step::KeepAlive(lease) => format!("LEASE KEEPALIVE {lease}"),
        Step::Revoke(lease) => format!("LEASE REVOKE {lease}"),
        Step::Set(key, ms, lease) => {
            let ms = ms.map_or(String::new(), |ms| format!(" PX {ms}"));
            let lease = lease.map_or(String::new(), |lease| format!(" LEASE {lease}"));
            format!("SET {key} v{ms}{lease}")
        }
        Step::Append(key) => format!("APPEND {key} v"),
        Step::Expire(key, ms) => format!("PEXPIRE {key} {ms}"),
        Step::Delete(key) => format!("DEL {key}"),
        Step::Clear => "FLUSHALL".to_owned(),
        Step::Pass(_) | Step::Remove(_) => return None,
    })
}

fn run(store: &mut Store, line: &str) -> Reply {
    let mut bytes = Vec::new();
    line.split(' ').for_each(|word| push_arg(&mut bytes, word.as_bytes()));
    let args = Args::new(line.split(' ').count() as u32, &bytes);
    let row = command::resolve(args).expect("a right command");
    let result = match row.handler {
        Handler::Write { apply, .. } => apply(&mut WriteContext { store }, args),
        Handler::Read { run, .. } => {
            run(&ReadContext { store, now: store.clock(), luck: &Luck::new(1) }, args)
        }
        _ => panic!("{line} is no command of the store"),
    };
    result.unwrap_or_else(|error| error.reply())
}

fn assert_same(store: &mut Store, model: &Model) {
    let word = |key: &u8| Reply::bulk(key.to_string().as_bytes());
    let keys = |store: &Store| -> Vec<Reply> {
        store.iter_from(b"").map(|(key, _)| Reply::bulk(key)).collect()
    };
    assert_eq!(keys(store), model.keys.keys().map(word).collect::<Vec<_>>());
    assert_eq!(store.len(), model.keys.len());
    let ids = model.leases.keys().map(|id| Reply::Integer(i64::from(*id))).collect();
    assert_eq!(run(store, "LEASE LIST"), Reply::Array(ids));
    for (lease, (ms, end)) in &model.leases {
        let attached = model.keys.iter().filter(|(_, (_, of))| *of == Some(*lease));
        let attached = attached.map(|(key, _)| word(key)).collect();
        let times = [end - model.clock, *ms].map(|ms| Reply::Integer(ms as i64));
        let expected = Reply::Array([&times[..], &[Reply::Array(attached)]].concat());
        assert_eq!(run(store, &format!("LEASE TTL {lease} KEYS")), expected);
    }
    let ends = model.leases.values().map(|(_, end)| *end);
    if let Some(soonest) = ends.chain(model.keys.values().filter_map(|(at, _)| *at)).min() {
        assert!(store.next_deadline().is_some_and(|deadline| deadline.0 <= soonest));
    }
}

/// Who was told every change has the keys that are stored.
fn told(store: &Store) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    let mut position = store.history().behind_revision(Revision::ZERO).expect("all of it is kept");
    while let Some(change) = store.history().next(&mut position) {
        match change.kind {
            ChangeKind::Set => {
                keys.insert(change.key.to_vec());
            }
            ChangeKind::Deleted | ChangeKind::Expired => assert!(keys.remove(change.key)),
            ChangeKind::Cleared => keys.clear(),
            _ => assert!(keys.contains(change.key)),
        }
    }
    keys
}

proptest! {
    #[test]
    fn store_agrees_with_a_model_of_leases(steps in prop::collection::vec(step(), 0..80)) {
        let (mut store, mut model) = (Store::new(), Model::default());
        for step in &steps {
            match step {
                Step::Pass(ms) => store.advance_clock(ClusterTime(store.clock().0 + ms)),
                Step::Remove(limit) => assert!(store.expire_due(*limit) <= *limit),
                _ => {}
            }
            let reply = line(step).map(|line| run(&mut store, &line));
            if let Some(expected) = model.apply(step) {
                prop_assert_eq!(reply, Some(expected), "{:?}", step);
            }
            assert_same(&mut store, &model);
            prop_assert_eq!(told(&store).len(), store.stored());
        }
        while store.expire_due(1) > 0 {}
        assert_same(&mut store, &model);
        prop_assert_eq!(store.stored(), model.keys.len());
        // With everything gone nothing is left that counts.
        store.clear();
        for lease in model.leases.keys() {
            run(&mut store, &format!("LEASE REVOKE {lease}"));
        }
        prop_assert_eq!((store.used_bytes(), store.next_deadline()), (0, None));
    }
}
