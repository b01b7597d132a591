//! A hint where a key's record stands: a hash table that may know a key or not.
//!
//! The tree knows every key, in some five steps, each of which waits for memory; the hint takes
//! one. Linear hashing (Litwin, VLDB 1980): the table grows by one bucket at a time, so that no
//! command ever waits for all of it to be hashed again. A bucket is one cache line, and what finds
//! it full is not in the table: so keys that are chosen to meet cost the tree's time, no more.
//! Called by `records.rs`; holds no key. Its order reaches nobody.

use super::slab::Handle;
use crate::limits;

/// Records that a bucket takes, and how many there are for each bucket when the table grows. A tenth
/// of new keys finds its bucket full; a write of a key that the table doesn't know teaches it, so
/// that in the long run it is less.
const BUCKET_RECORDS: usize = 10;
const RECORDS_PER_BUCKET: usize = 6;

/// A tag is this part of a record's hash. Those bits decide where records go when a table of many
/// buckets grows, which then looks at no record; what they don't decide yet tells the records of a
/// bucket apart.
const TAG_SHIFT: u32 = 12;
const MOST_BUCKETS: usize = 1 << (TAG_SHIFT + u16::BITS);

/// Buckets that are allocated together: what there is already never moves.
const SEGMENT_BUCKETS: usize = limits::STORE_PAGE_BYTES / size_of::<Bucket>();

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    handles: [Handle; BUCKET_RECORDS],
    tags: [u16; BUCKET_RECORDS],
    count: u8,
}

const EMPTY: Bucket =
    Bucket { handles: [Handle(0); BUCKET_RECORDS], tags: [0; BUCKET_RECORDS], count: 0 };

/// The table. See the file's head.
#[derive(Clone, Default, Debug)]
pub(super) struct Index {
    segments: Vec<Box<[Bucket; SEGMENT_BUCKETS]>>,
    buckets: usize,
}

impl Index {
    /// The record with this hash for which `is_it`, if the table knows it.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(Handle) -> bool) -> Option<Handle> {
        if self.buckets == 0 {
            return None;
        }
        let bucket = self.bucket(self.place(hash));
        bucket.with_tag(tag(hash)).find(|handle| is_it(*handle))
    }

    /// Brings a hash's bucket near. Returns what can't be known without it, so that no compiler
    /// leaves that out.
    pub(super) fn touch(&self, hash: u64) -> u8 {
        match self.buckets {
            0 => 0,
            _ => self.bucket(self.place(hash)).count,
        }
    }

    /// A record that probably has this hash.
    pub(super) fn guess(&self, hash: u64) -> Option<Handle> {
        self.find(hash, |_| true)
    }

    /// Learns of a record, where there is room for it. There are `records` in all.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        handle: Handle,
        records: usize,
        hash_of: impl Fn(Handle) -> u64,
    ) {
        if self.buckets * RECORDS_PER_BUCKET < records && self.buckets < MOST_BUCKETS {
            self.grow(hash_of);
        }
        let place = self.place(hash);
        self.bucket_mut(place).push(tag(hash), handle);
    }

    /// Forgets a record, which is about to leave or to move. `records` are left.
    pub(super) fn remove(&mut self, hash: u64, handle: Handle, records: usize) {
        if self.buckets == 0 {
            return;
        }
        let place = self.place(hash);
        self.bucket_mut(place).remove(handle);
        if self.buckets * RECORDS_PER_BUCKET > 4 * records.max(RECORDS_PER_BUCKET) {
            self.shrink();
        }
    }

    /// How many records it knows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        (0..self.buckets).map(|place| usize::from(self.bucket(place).count)).sum()
    }

    /// Bytes of memory that it takes, but for what their alignment does.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let segment = super::record::piece_bytes(SEGMENT_BUCKETS * size_of::<Bucket>());
        self.segments.len() * segment + self.segments.capacity() * 8
    }

    /// Adds a bucket, which takes what is its own from the one that had it so far.
    fn grow(&mut self, hash_of: impl Fn(Handle) -> u64) {
        if self.buckets.is_multiple_of(SEGMENT_BUCKETS)
            && self.buckets / SEGMENT_BUCKETS == self.segments.len()
        {
            let segment = vec![EMPTY; SEGMENT_BUCKETS].into_boxed_slice();
            self.segments.push(segment.try_into().expect("it has the length of a segment"));
        }
        let added = self.buckets;
        self.buckets += 1;
        if added == 0 {
            return;
        }
        let bit = added.ilog2();
        let split = added - (1 << bit);
        let old = std::mem::replace(self.bucket_mut(split), EMPTY);
        for (tag, handle) in old.entries() {
            let goes = match bit.checked_sub(TAG_SHIFT) {
                Some(tag_bit) => u64::from(tag) >> tag_bit & 1,
                None => hash_of(handle) >> bit & 1,
            };
            let place = if goes == 1 { added } else { split };
            self.bucket_mut(place).push(tag, handle);
        }
    }

    /// Takes the last bucket away; what it has goes back, where there is room.
    fn shrink(&mut self) {
        self.buckets -= 1;
        let removed = self.buckets;
        let last = std::mem::replace(self.bucket_mut(removed), EMPTY);
        let joined = removed - (1 << removed.ilog2());
        for (tag, handle) in last.entries() {
            self.bucket_mut(joined).push(tag, handle);
        }
        if removed.is_multiple_of(SEGMENT_BUCKETS) {
            self.segments.pop();
        }
    }

    fn place(&self, hash: u64) -> usize {
        let wide = self.buckets.next_power_of_two() - 1;
        let place = hash as usize & wide;
        if place < self.buckets { place } else { place & (wide >> 1) }
    }

    fn bucket(&self, place: usize) -> &Bucket {
        &self.segments[place / SEGMENT_BUCKETS][place % SEGMENT_BUCKETS]
    }

    fn bucket_mut(&mut self, place: usize) -> &mut Bucket {
        &mut self.segments[place / SEGMENT_BUCKETS][place % SEGMENT_BUCKETS]
    }

    /// Takes everything apart, in pieces of bounded size; each says how many bytes it was.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = usize> + Send + 'static {
        self.segments.into_iter().map(|segment| size_of_val(&*segment))
    }
}

impl Bucket {
    fn entries(&self) -> impl Iterator<Item = (u16, Handle)> + '_ {
        let tags = self.tags.iter().copied();
        tags.zip(self.handles).take(usize::from(self.count))
    }

    fn with_tag(&self, tag: u16) -> impl Iterator<Item = Handle> + '_ {
        let mut left = self.places_of(tag);
        std::iter::from_fn(move || {
            let handle = *self.handles.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(handle)
        })
    }

    /// A bit for each of its records that has this tag. All places are looked at, whether there is a
    /// record or not: that takes no decision, which a processor would have to guess.
    fn places_of(&self, tag: u16) -> u16 {
        let alike = |place: usize| u16::from(self.tags[place] == tag) << place;
        let places = (0..BUCKET_RECORDS).fold(0, |bits, place| bits | alike(place));
        places & ((1 << self.count) - 1)
    }

    fn push(&mut self, tag: u16, handle: Handle) {
        let place = usize::from(self.count);
        if place < BUCKET_RECORDS {
            (self.tags[place], self.handles[place]) = (tag, handle);
            self.count += 1;
        }
    }

    fn remove(&mut self, handle: Handle) {
        let count = usize::from(self.count);
        if let Some(place) = self.handles[..count].iter().position(|other| *other == handle) {
            self.tags[place] = self.tags[count - 1];
            self.handles[place] = self.handles[count - 1];
            self.count -= 1;
        }
    }
}

fn tag(hash: u64) -> u16 {
    (hash >> TAG_SHIFT) as u16
}

/// A key's hash: eight bytes a step, and all of its bits good for a place. Nothing that nodes agree
/// on comes of it.
pub(super) fn hash(key: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(MULTIPLIER);
        mixed ^ (mixed >> 32)
    };
    let mut hash = key.len() as u64;
    let mut rest = key;
    while let Some((word, behind)) = rest.split_first_chunk() {
        hash = step(hash, u64::from_le_bytes(*word));
        rest = behind;
    }
    let mut last = 0;
    for byte in rest {
        last = last << 8 | u64::from(*byte);
    }
    step(step(hash, last), 0)
}

const _: () = assert!(size_of::<Bucket>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for a record whose key is its number.
    fn hash_of(handle: Handle) -> u64 {
        hash(&handle.0.to_le_bytes())
    }

    fn known(index: &Index, numbers: std::ops::Range<u32>) -> usize {
        let find = |number| index.find(hash_of(Handle(number)), |handle| handle.0 == number);
        numbers.filter(|number| find(*number).is_some()).count()
    }

    /// Each record is in its own bucket.
    fn check(index: &Index) {
        for place in 0..index.buckets {
            for (tag_there, handle) in index.bucket(place).entries() {
                let hash = hash_of(handle);
                assert_eq!((index.place(hash), tag(hash)), (place, tag_there));
            }
        }
    }

    fn filled(count: u32) -> Index {
        let mut index = Index::default();
        for number in 0..count {
            let handle = Handle(number);
            index.insert(hash_of(handle), handle, number as usize + 1, hash_of);
        }
        index
    }

    #[test]
    fn index_knows_most_records_at_every_size() {
        for count in [1, 5, 100, 1000, 1500, 2000, 3000, 50_000] {
            let index = filled(count);
            let (known, all) = (known(&index, 0..count), count as usize);
            // A tenth finds no place on average; where buckets are few, chance makes it more.
            assert!(known * 100 >= all * 85, "{known} of {count}");
            assert_eq!(index.buckets, all.div_ceil(RECORDS_PER_BUCKET));
            check(&index);
        }
    }

    #[test]
    fn remove_forgets_and_gives_memory_back() {
        let mut index = filled(20_000);
        let segments = index.segments.len();
        for number in 0..19_900 {
            let handle = Handle(number);
            index.remove(hash_of(handle), handle, 19_999 - number as usize);
            if number % 64 == 0 {
                assert_eq!(known(&index, 0..number + 1), 0);
                check(&index);
            }
        }
        assert_eq!(known(&index, 0..19_900), 0);
        assert!(known(&index, 19_900..20_000) >= 70);
        assert_eq!(index.buckets, 4 * 100 / RECORDS_PER_BUCKET);
        assert_eq!((segments, index.segments.len()), (7, index.buckets.div_ceil(SEGMENT_BUCKETS)));
    }

    #[test]
    fn records_of_one_hash_fill_a_bucket_and_no_more() {
        let mut index = Index::default();
        for number in 0..1000 {
            index.insert(42, Handle(number), number as usize + 1, |_| 42);
        }
        let found = (0..1000).filter(|n| index.find(42, |handle| handle.0 == *n).is_some());
        assert_eq!(found.count(), BUCKET_RECORDS);
    }
}
