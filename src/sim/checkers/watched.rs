//! *watch-lossless*: a watcher is told every committed change of its prefix, each once, in order,
//! on whatever servers it has watched one after the other.
//!
//! Ours; etcd's "robustness" tests check the same of its watches. What is told is compared with the
//! history of the store in which each batch takes effect once ([`super::once`]), word by word.
//! Called by the simulated watchers.

use super::Checkers;
use crate::kv::history::{Change, ChangeKind, History};
use crate::kv::watches::push_change;
use crate::proto::reply_decoder::{ReplyDecoder, Value};
use crate::types::Revision;

/// The first change of a prefix behind a revision, or none. Nothing at all where that is more than
/// the history keeps: of large values it keeps few.
fn next<'a>(history: &'a History, prefix: &[u8], after: Revision) -> Option<Option<Change<'a>>> {
    let mut position = history.behind_revision(after)?;
    let next =
        std::iter::from_fn(|| history.next(&mut position)).find(|change| match change.kind {
            ChangeKind::Message => false,
            ChangeKind::Cleared => true,
            _ => change.key.starts_with(prefix),
        });
    Some(next)
}

/// The words in which a watcher is told of a change.
fn words_of(prefix: &[u8], change: &Change<'_>) -> Vec<Value> {
    let mut bytes = Vec::new();
    push_change(&mut bytes, prefix, change);
    match ReplyDecoder::new().decode(&mut &bytes[..]) {
        Ok(Some(Value::Push(words))) => words,
        other => panic!("{other:?} is no push"),
    }
}

impl Checkers {
    /// A watch has begun behind that revision.
    pub fn check_begun(&self, after: Revision) {
        let committed = self.once.store().revision();
        assert!(after <= committed, "watch-lossless: begins behind {after}, not yet committed");
    }

    /// A watcher that knows everything up to `after` is told these words. Returns up to where it
    /// knows everything now; nothing if it was told that it doesn't.
    pub fn check_told(&self, prefix: &[u8], after: Revision, words: &[Value]) -> Option<Revision> {
        let [_, _, Value::Bulk(event), Value::Integer(revision), ..] = words else {
            panic!("watch-lossless: {words:?} says nothing");
        };
        let told = Revision(u64::try_from(*revision).expect("revisions are not negative"));
        let history = self.once.store().history();
        let expected = next(history, prefix, after);
        match &event[..] {
            b"compacted" => {
                assert!(told > after, "watch-lossless: {after} and up to {told} is gone");
                None
            }
            b"progress" => {
                let skips = expected.flatten().is_some_and(|change| change.revision <= told);
                assert!(!skips && told >= after, "watch-lossless: {after} to {told} has changes");
                self.check_begun(told);
                Some(told)
            }
            _ => {
                assert!(told > after, "watch-lossless: {told} behind {after}");
                if let Some(expected) = expected {
                    let expected = expected.map(|change| words_of(prefix, &change));
                    let expected = expected.unwrap_or_default();
                    assert_eq!(words, expected, "watch-lossless: the next behind {after}");
                }
                Some(told)
            }
        }
    }

    /// Whether a watcher of that prefix that knows everything up to `told` knows everything.
    pub fn has_heard_all(&self, prefix: &[u8], told: Option<Revision>) -> bool {
        let history = self.once.store().history();
        told.is_some_and(|told| next(history, prefix, told).is_some_and(|next| next.is_none()))
    }
}
