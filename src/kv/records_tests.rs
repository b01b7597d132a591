//! The records against the standard library's map: whatever moves or leaves, all three structures
//! agree on where each record is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::kv::record::NEVER;

#[derive(Default)]
struct Plot {
    records: Records,
    model: BTreeMap<Vec<u8>, Record>,
    revision: Revision,
}

#[derive(Clone, Debug)]
enum Step {
    /// So many keys from here on, with values of this length.
    Set(u16, u8, usize),
    Append(u16, usize),
    Deadline(u16, Option<u64>),
    /// So many keys from here on.
    Remove(u16, u8),
    PopFirst,
}

/// Fewer keys than numbers, so that steps meet; more than what the index takes without growing.
fn key(number: u16) -> Vec<u8> {
    format!("user:{:04}:name", number % 3000).into_bytes()
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![3 => 0..40_usize, 1 => 2000..2060_usize, 1 => 0..5000_usize];
    let deadline = prop::option::of(1..100_u64);
    prop_oneof![
        5 => (any::<u16>(), any::<u8>(), length).prop_map(|(n, c, l)| Step::Set(n, c, l)),
        2 => (any::<u16>(), 0..200_usize).prop_map(|(n, l)| Step::Append(n, l)),
        2 => (any::<u16>(), deadline).prop_map(|(n, d)| Step::Deadline(n, d)),
        3 => (any::<u16>(), any::<u8>()).prop_map(|(n, c)| Step::Remove(n, c)),
        1 => Just(Step::PopFirst),
    ]
}

impl Plot {
    fn carry_out(&mut self, step: &Step) {
        self.revision = self.revision.next();
        match *step {
            Step::Set(number, count, length) => {
                (0..=u16::from(count)).for_each(|n| self.set(&key(number.wrapping_add(n)), length));
            }
            Step::Append(number, length) => {
                let Some(place) = self.records.seek(&key(number)) else { return };
                let tail = vec![b't'; length];
                self.records.append(place, &tail, self.revision);
                let record = self.model.get_mut(&key(number)).expect("it was found");
                record.value.extend_from_slice(&tail);
                record.revision = self.revision;
            }
            Step::Deadline(number, deadline) => {
                let Some(place) = self.records.seek(&key(number)) else { return };
                let deadline = deadline.map_or(NEVER, ClusterTime);
                self.records.set_deadline(place, self.revision, deadline);
                let record = self.model.get_mut(&key(number)).expect("it was found");
                (record.deadline, record.revision) = (deadline, self.revision);
            }
            Step::Remove(number, count) => {
                for key in (0..=u16::from(count)).map(|n| key(number.wrapping_add(n))) {
                    assert_eq!(self.records.remove(&key), self.model.remove(&key));
                }
            }
            Step::PopFirst => {
                let first = self.records.pop_first().map(|(key, record)| (key.into_vec(), record));
                assert_eq!(first, self.model.pop_first());
            }
        }
    }

    fn set(&mut self, key: &[u8], length: usize) {
        let value = vec![b'v'; length];
        let record = Record { value, revision: self.revision, deadline: NEVER };
        let known = self.records.known(key);
        match self.records.insert(record.with_key(key)) {
            Err(place) => {
                assert!(known.is_none_or(|known| known == place));
                assert_eq!(self.records.seek(key), Some(place));
                self.records.overwrite(place, record.with_key(key));
            }
            Ok(()) => assert_eq!((known, self.model.contains_key(key)), (None, false)),
        }
        self.model.insert(key.into(), record);
    }

    fn check(&self) {
        assert_eq!(self.records.len(), self.model.len());
        let expected = || self.model.iter().map(|(key, record)| record.with_key(key));
        assert!(self.records.iter_behind(None).eq(expected()));
        assert!(self.records.iter_down_from(None).eq(expected().rev()));
        let keys: Vec<&[u8]> = self.model.keys().map(Vec::as_slice).collect();
        self.records.warm(&keys);
        let mut known = 0;
        for (key, record) in &self.model {
            assert_eq!(self.records.get(key), Some(record.with_key(key)));
            let Records { slab, tree, index, .. } = &self.records;
            let hint = index.find(index::hash(key), |handle| slab.key(handle) == *key);
            assert!(hint.is_none() || hint == tree.get(key, slab), "the index knows it elsewhere");
            known += usize::from(hint.is_some());
        }
        assert_eq!(self.records.index.len(), known, "the index knows what is gone");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_do_what_the_standard_map_does(steps in prop::collection::vec(step(), 0..80)) {
        let mut plot = Plot::default();
        for step in &steps {
            plot.carry_out(step);
            plot.check();
        }
    }
}

#[test]
fn seek_teaches_the_index_what_it_lost() {
    let mut plot = Plot::default();
    (0..3000).for_each(|number| plot.set(&key(number), 10));
    let known = plot.records.index.len();
    assert!(known < 3000, "chance has filled some buckets");
    // The table grows over 600 more, and splits what was full: there is room for some of the lost.
    (0..600_u16).for_each(|number| plot.set(format!("more:{number}").as_bytes(), 10));
    (0..3000).for_each(|number| assert!(plot.records.seek(&key(number)).is_some()));
    assert!(plot.records.index.len() > known + 600, "not only the new ones are known");
    plot.check();
}

/// What records of 18 and 100 bytes take in slab, tree and index, beside that, in hundredths of a
/// byte each.
fn beside_content(keys: impl Iterator<Item = u32>) -> [usize; 3] {
    let mut records = Records::default();
    let (value, mut count) = ([b'v'; 100], 0);
    for number in keys {
        count += 1;
        let key = format!("bench:{number:012}");
        let (key, revision) = (key.as_bytes(), Revision(count));
        let inserted = records.insert(RecordRef { key, value: &value, revision, deadline: NEVER });
        assert_eq!(inserted, Ok(()));
    }
    let Records { slab, tree, index, .. } = &records;
    let each = |bytes: usize| 100 * bytes / count as usize;
    [each(slab.heap_bytes()) - 11_800, each(tree.heap_bytes()), each(index.heap_bytes())]
}

#[test]
fn records_take_little_beside_their_content() {
    const COUNT: u32 = 100_000;
    // One behind the other, with one that is behind all of them, as there may be.
    let [slab, tree, index] = beside_content(std::iter::once(u32::MAX).chain(0..COUNT));
    assert!(slab <= 650 && tree <= 980 && index <= 1100, "{slab} {tree} {index}");
    // In no order at all.
    let scattered = (0..COUNT).map(|number| number.wrapping_mul(2_654_435_761));
    let [slab, tree, index] = beside_content(scattered);
    assert!(slab <= 650 && tree <= 1400 && index <= 1100, "{slab} {tree} {index}");
}
