//! The slab: what is put in comes out, places are used again, and empty pages are given back.

use proptest::prelude::*;

use super::*;
use crate::kv::record::NEVER;

fn record<'a>(key: &'a [u8], value: &'a [u8], deadline: ClusterTime) -> RecordRef<'a> {
    RecordRef { key, value, revision: Revision(7), deadline }
}

fn pages(slab: &Slab) -> usize {
    slab.pages.iter().filter(|page| page.bytes.is_some()).count()
}

#[test]
fn free_gives_back_pages_and_places() {
    let mut slab = Slab::default();
    let put = |slab: &mut Slab| -> Vec<Handle> {
        let key = |number: u32| number.to_le_bytes();
        (0..5000).map(|n| slab.put(record(&key(n), &[1; 100], NEVER))).collect()
    };
    let first = put(&mut slab);
    let filled = pages(&slab);
    // 6 + 4 + 100 bytes, rounded up to 112, of a page's 32,768: 292 to a page.
    assert_eq!(filled, 5000_usize.div_ceil(292));
    // Every second slot is free, and is used again before there is a new page.
    first.iter().step_by(2).for_each(|handle| slab.free(*handle));
    assert_eq!(pages(&slab), filled);
    let again: Vec<_> =
        (0..2500_u32).map(|n| slab.put(record(&n.to_be_bytes(), &[2; 100], NEVER))).collect();
    assert_eq!(pages(&slab), filled);
    for handle in again.iter().chain(first.iter().skip(1).step_by(2)) {
        slab.free(*handle);
    }
    assert_eq!(pages(&slab), 0, "an empty page is given back");
    assert!(slab.roomy.iter().all(Vec::is_empty));
    put(&mut slab);
    assert_eq!((pages(&slab), slab.pages.len()), (filled, filled), "numbers are used again");
}

#[test]
fn put_beyond_a_page_stands_alone() {
    let mut slab = Slab::default();
    // A head for such a length takes 9 bytes, and a deadline 8 more.
    let largest = vec![1; SMALL_BYTES - 9 - 1];
    let small = slab.put(record(b"k", &largest, NEVER));
    let alone = slab.put(record(b"k", &largest, ClusterTime(5)));
    assert!(
        matches!(place_of(small), Place::Slot(..)) && matches!(place_of(alone), Place::Alone(_))
    );
    assert_eq!(slab.record(alone), record(b"k", &largest, ClusterTime(5)));
    // A value that is moved out leaves the key, so that the record can be found and overwritten.
    let kept = slab.take_value(alone);
    assert_eq!((kept.value, slab.key(alone)), (largest.clone(), &b"k"[..]));
    let long = vec![2; 3 * SMALL_BYTES];
    assert_eq!(slab.overwrite(alone, record(b"k", &long, NEVER)), None);
    assert_eq!(slab.record(alone), record(b"k", &long, NEVER));
    let moved = slab.overwrite(alone, record(b"k", b"short", NEVER));
    assert!(moved.is_some_and(|handle| matches!(place_of(handle), Place::Slot(..))));
    slab.free(alone);
    assert_eq!(slab.put(record(b"l", &long, NEVER)), alone, "the place is used again");
}

#[test]
fn class_of_is_the_shortest_that_fits_and_wastes_little() {
    let mut before = 0;
    for bytes in SHORTEST_BYTES..=SMALL_BYTES {
        let class = class_of(bytes);
        let length = slot_bytes(class);
        assert_eq!(class_of(length), class);
        assert!(class == before || slot_bytes(class - 1) < bytes && length >= bytes);
        assert!(length - bytes < FINE_STEP_BYTES.max(bytes / 31), "{bytes} in {length}");
        before = class;
    }
    assert!((0..SHORTEST_BYTES).all(|bytes| class_of(bytes) == class_of(SHORTEST_BYTES)));
}

#[test]
fn put_in_the_shortest_slots_fills_a_page() {
    let mut slab = Slab::default();
    let most = PAGE_BYTES / SHORTEST_BYTES;
    let key = |number: usize| (number as u16).to_le_bytes();
    let all: Vec<_> = (0..most).map(|n| slab.put(record(&key(n), b"", NEVER))).collect();
    assert_eq!(pages(&slab), 1);
    for (number, handle) in all.iter().enumerate() {
        assert_eq!(slab.record(*handle), record(&key(number), b"", NEVER));
    }
    slab.put(record(b"", b"", NEVER));
    assert_eq!(pages(&slab), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, usize, bool),
    Overwrite(usize, usize, bool),
    Append(usize, usize),
    Deadline(usize, bool),
    Free(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || prop::collection::vec(any::<u8>(), 0..40);
    let length = || prop_oneof![4 => 0..60_usize, 2 => 1900..2100_usize, 1 => 0..9000_usize];
    prop_oneof![
        4 => (key(), length(), any::<bool>()).prop_map(|(k, l, d)| Step::Put(k, l, d)),
        4 => (any::<usize>(), length(), any::<bool>()).prop_map(|(n, l, d)| Step::Overwrite(n, l, d)),
        2 => (any::<usize>(), 0..30_usize).prop_map(|(n, l)| Step::Append(n, l)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(n, d)| Step::Deadline(n, d)),
        3 => any::<usize>().prop_map(Step::Free),
    ]
}

/// A record as it should be.
type Expected = (Vec<u8>, Record);

/// A change that has moved a record leaves the place before to be freed.
fn settle(slab: &mut Slab, at: &mut Handle, moved: Option<Handle>, key: &[u8]) {
    if let Some(moved) = moved {
        assert_eq!(slab.key(*at), key, "it can still be found where it was");
        slab.free(std::mem::replace(at, moved));
    }
}

fn carry_out(step: &Step, number: u8, slab: &mut Slab, all: &mut Vec<(Handle, Expected)>) {
    let revision = Revision(u64::from(number));
    let deadline = |has: bool| if has { ClusterTime(u64::from(number)) } else { NEVER };
    let filled = |length: usize| vec![number; length];
    if let Step::Put(key, length, has) = step {
        let record = Record { value: filled(*length), revision, deadline: deadline(*has) };
        all.push((slab.put(record.with_key(key)), (key.clone(), record)));
        return;
    }
    let (Step::Overwrite(one, ..)
    | Step::Append(one, _)
    | Step::Deadline(one, _)
    | Step::Free(one)) = step
    else {
        return;
    };
    if all.is_empty() {
        return;
    }
    let place = one % all.len();
    let (handle, (key, record)) = &mut all[place];
    record.revision = if matches!(step, Step::Free(_)) { record.revision } else { revision };
    let moved = match step {
        Step::Overwrite(_, length, has) => {
            (record.value, record.deadline) = (filled(*length), deadline(*has));
            slab.overwrite(*handle, record.with_key(key))
        }
        Step::Append(_, length) => {
            record.value.extend(filled(*length));
            slab.append(*handle, &filled(*length), revision)
        }
        Step::Deadline(_, has) => {
            record.deadline = deadline(*has);
            slab.set_deadline(*handle, revision, record.deadline)
        }
        Step::Put(..) | Step::Free(_) => {
            let taken = slab.take(*handle);
            assert_eq!(taken, *record);
            all.swap_remove(place);
            return;
        }
    };
    settle(slab, handle, moved, key);
}

proptest! {
    #[test]
    fn slab_keeps_every_record_as_it_was_left(steps in prop::collection::vec(step(), 0..400)) {
        let (mut slab, mut all) = (Slab::default(), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            carry_out(step, number as u8, &mut slab, &mut all);
            for (handle, (key, record)) in &all {
                prop_assert_eq!(slab.record(*handle), record.with_key(key));
            }
        }
        let used: usize = slab.states.iter().map(|state| usize::from(state.used)).sum();
        let alone = slab.alone.iter().flatten().count();
        prop_assert_eq!(used + alone, all.len());
        all.into_iter().for_each(|(handle, _)| slab.free(handle));
        prop_assert_eq!(pages(&slab), 0);
        prop_assert!(slab.alone.iter().all(Option::is_none));
    }
}
