//! Leases and the keys of them, by what the store shows.
//!
//! Called by `cargo test`.

use super::*;
use crate::kv::history::{Change, ChangeKind};

const ID: LeaseId = LeaseId(7);

/// A store with a lease of 100 ms that two keys are attached to, and a third that is not.
fn leased() -> Store {
    let mut store = Store::new();
    store.advance_clock(ClusterTime(1000));
    assert_eq!(store.grant_lease(Some(ID), 100, ClusterTime(1100)), Ok(ID));
    for key in [b"a", b"b"] {
        store.set(key, b"1", None);
        store.may_attach(key, ID).unwrap();
        store.attach(key, ID);
    }
    store.set(b"c", b"1", None);
    store
}

fn keys(store: &Store) -> Vec<&[u8]> {
    store.iter_from(b"").map(|(key, _)| key).collect()
}

fn changes(store: &Store) -> Vec<(ChangeKind, Vec<u8>)> {
    let mut position = store.history().behind_revision(crate::types::Revision::ZERO).unwrap();
    let owned = |change: Change<'_>| (change.kind, change.key.to_vec());
    std::iter::from_fn(|| store.history().next(&mut position).map(owned)).collect()
}

#[test]
fn keys_die_at_one_moment_and_are_removed_some_at_a_time() {
    let mut store = leased();
    assert_eq!(store.next_deadline(), Some(ClusterTime(1100)));
    store.advance_clock(ClusterTime(1099));
    assert_eq!((keys(&store).len(), store.expire_due(9)), (3, 0));
    store.advance_clock(ClusterTime(1100));
    // 1. None of them is there any more, though all are stored.
    assert_eq!(keys(&store), [b"c"]);
    assert_eq!((store.len(), store.stored(), store.get(b"a")), (1, 3, None));
    assert_eq!(store.leases().get(ID, store.clock()), None);
    assert_eq!(store.keep_lease_alive(ID), Err(CommandError::NoLease));
    assert_eq!(store.may_attach(b"d", ID), Err(CommandError::NoLease));
    // 2. Removed they change nothing that shows, but for being told.
    assert_eq!(store.expire_due(1), 1);
    assert_eq!((store.len(), store.stored()), (1, 2));
    assert_eq!(store.next_deadline(), Some(ClusterTime(1100)));
    assert_eq!(store.expire_due(9), 2, "the last key, and the lease");
    assert_eq!((store.expire_due(9), store.next_deadline()), (0, None));
    let expired = |key: &[u8]| (ChangeKind::Expired, key.to_vec());
    assert_eq!(changes(&store)[3..], [expired(b"a"), expired(b"b")]);
    assert_eq!((store.leases().keys(), store.leases().bytes()), (0, 0));
}

#[test]
fn write_of_a_dead_key_is_told_as_its_end_and_a_beginning() {
    let mut store = leased();
    store.advance_clock(ClusterTime(1100));
    let before = store.revision();
    store.set(b"a", b"2", None);
    assert_eq!(store.revision().0, before.0 + 2);
    assert_eq!(store.expire_due(9), 2);
    assert_eq!(keys(&store), [b"a", b"c"]);
    let told: Vec<ChangeKind> = changes(&store)[3..].iter().map(|(kind, _)| *kind).collect();
    assert_eq!(told, [ChangeKind::Expired, ChangeKind::Set, ChangeKind::Expired]);
}

#[test]
fn key_leaves_its_lease_with_another_value_and_stays_with_another_deadline() {
    let mut store = leased();
    store.set(b"a", b"2", None);
    store.append(b"b", b"2");
    assert_eq!(store.leases().keys(), 0);
    store.attach(b"a", ID);
    store.attach(b"b", ID);
    assert!(store.delete(b"b"));
    assert!(store.set_deadline(b"a", Some(ClusterTime(5000))));
    assert_eq!(store.leases().of_key(b"a"), Some(ID));
    store.advance_clock(ClusterTime(1100));
    assert_eq!((keys(&store).len(), store.len(), store.expiring()), (1, 1, 1));
    store.expire_due(9);
    assert_eq!((store.expiring(), store.used_bytes() > 0), (0, true));
    assert_eq!(keys(&store), [b"c"]);
}

#[test]
fn key_dies_by_its_own_deadline_if_that_comes_first() {
    let mut store = leased();
    store.set_deadline(b"a", Some(ClusterTime(1050)));
    store.advance_clock(ClusterTime(1050));
    assert_eq!((store.len(), keys(&store).len()), (2, 2));
    assert_eq!(store.expire_due(9), 1);
    assert_eq!(store.leases().keys(), 1);
    // With both past it is counted once.
    let mut store = leased();
    store.set_deadline(b"a", Some(ClusterTime(1050)));
    store.advance_clock(ClusterTime(1100));
    assert_eq!((store.len(), store.expire_due(9), store.stored()), (1, 3, 1));
}

#[test]
fn keep_alive_moves_the_end_and_revoke_brings_it() {
    let mut store = leased();
    store.advance_clock(ClusterTime(1090));
    assert_eq!(store.keep_lease_alive(ID), Ok(100));
    store.advance_clock(ClusterTime(1189));
    assert_eq!(store.len(), 3);
    assert_eq!(store.revoke_lease(ID), Ok(2));
    assert_eq!(store.revoke_lease(ID), Err(CommandError::NoLease));
    assert_eq!(keys(&store), [b"c"]);
    let deleted = |key: &[u8]| (ChangeKind::Deleted, key.to_vec());
    assert_eq!(changes(&store)[3..], [deleted(b"a"), deleted(b"b")]);
    assert_eq!(store.next_deadline(), None);
}

#[test]
fn clear_leaves_the_lease_without_keys() {
    let mut store = leased();
    store.clear();
    assert_eq!(store.leases().keys(), 0);
    assert_eq!(store.leases().get(ID, store.clock()).map(|lease| lease.keys.len()), Some(0));
    store.set(b"a", b"1", None);
    store.advance_clock(ClusterTime(1100));
    assert_eq!((store.len(), store.expire_due(9), store.expire_due(9)), (1, 1, 0));
}

#[test]
fn grant_and_attach_are_refused_at_their_bounds() {
    let mut store = Store::new();
    let at = ClusterTime(100);
    assert_eq!(store.grant_lease(Some(ID), 100, at), Ok(ID));
    assert_eq!(store.grant_lease(Some(ID), 100, at), Err(CommandError::LeaseExists));
    for number in 0..limits::LEASE_KEYS {
        let key = number.to_string();
        store.set(key.as_bytes(), b"", None);
        store.may_attach(key.as_bytes(), ID).unwrap();
        store.attach(key.as_bytes(), ID);
    }
    assert_eq!(store.may_attach(b"more", ID), Err(CommandError::TooManyLeasedKeys));
    assert_eq!(store.may_attach(b"17", ID), Ok(()), "it is there already");
    let before = store.revision();
    for _ in 1..limits::LEASES {
        store.grant_lease(None, 100, at).unwrap();
    }
    assert!(store.revision() > before);
    assert_eq!(store.grant_lease(None, 100, at), Err(CommandError::TooManyLeases));
    // All together: keys that are long.
    let mut store = Store::new();
    let mut key = vec![b'k'; limits::KEY_BYTES];
    let mut attached = 0;
    for lease in [LeaseId(1), LeaseId(2)] {
        store.grant_lease(Some(lease), 100, at).unwrap();
        for number in 0..200_u8 {
            key[..2].copy_from_slice(&[lease.0 as u8, number]);
            if store.may_attach(&key, lease).is_ok() {
                store.set(&key, b"", None);
                store.attach(&key, lease);
                attached += 1;
            }
        }
    }
    assert!(store.leases().bytes() <= limits::LEASES_BYTES);
    assert!(attached > 350 && attached < 400, "{attached}");
}

#[test]
fn restore_takes_what_sections_gave_and_refuses_every_cut() {
    let mut store = leased();
    store.grant_lease(None, 50, ClusterTime(1050)).unwrap();
    let section: Vec<u8> = store.leases().captured().flatten().collect();
    let mut restored = Leases::default();
    restored.restore(&section).expect("made just now");
    assert_eq!(&restored, store.leases());
    let whole = |cut: usize| Leases::default().restore(&section[..cut]).is_some();
    let wholes: Vec<usize> = (0..=section.len()).filter(|cut| whole(*cut)).collect();
    assert_eq!(wholes.len(), 3, "none, one, two: {wholes:?}");
    assert!(restored.restore(&section).is_none(), "a lease twice");
    assert_eq!(Leases::default().captured().count(), 0);
}

#[test]
fn captured_leases_stay_as_they_were_whatever_happens() {
    for all_at_once in [false, true] {
        let mut store = leased();
        let before = store.leases().clone();
        assert!(before.keys() > 0);
        let captured = store.leases().captured();
        let keys: Vec<Vec<u8>> = before.by_key.keys().map(|key| key.to_vec()).collect();
        match all_at_once {
            true => store.leases.detach_all(),
            false => keys.iter().for_each(|key| store.leases.detach(key)),
        }
        store.grant_lease(None, 50, ClusterTime(1050)).unwrap();
        let mut restored = Leases::default();
        captured.for_each(|section| restored.restore(&section).expect("made just now"));
        assert_eq!(restored, before);
        assert_ne!(&restored, store.leases());
    }
}
