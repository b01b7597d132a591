//! Where a key stands among the sorted keys of a tree's node, mostly without looking at the keys.
//!
//! Of each key the node keeps the *head*: four bytes as one number, those behind the beginning
//! that all its keys share. So a search goes through one short array, and looks at the one key that
//! it ends at; comparing whole keys costs a cache miss each. Known from B-trees of databases as
//! prefix truncation and poor man's normalized keys (Graefe, "Modern B-Tree Techniques", 2011,
//! §3.4 to §3.6). Called by `tree.rs`; never holds a key.

/// Bytes of the shared beginning that are skipped at most: they are kept here, so that a search
/// compares them without a look at a key.
const SKIPPED_BYTES: usize = 23;

/// The heads of a node's keys, in the keys' order. It may hold none.
#[derive(Clone, Default, Debug)]
pub(super) struct Heads {
    heads: Vec<u32>,
    skipped: u8,
    /// What all keys begin with: the first `skipped` bytes of it.
    beginning: [u8; SKIPPED_BYTES],
}

impl Heads {
    /// The heads of these keys, which are sorted: `count` of them, each found by its place.
    pub(super) fn of<'a>(count: usize, key_at: impl Fn(usize) -> &'a [u8]) -> Heads {
        let mut heads = Heads::default();
        if count > 0 {
            // What the first and the last key share is shared by all between them.
            let (first, last) = (key_at(0), key_at(count - 1));
            heads.skip(shared_bytes(first, last), first);
            let skipped = usize::from(heads.skipped);
            heads.heads = (0..count).map(|place| head(&key_at(place)[skipped..])).collect();
        }
        heads
    }

    /// The place of `key`, or as an error the place at which it would be put in.
    pub(super) fn find<'a>(
        &self,
        key: &[u8],
        key_at: impl Fn(usize) -> &'a [u8],
    ) -> Result<usize, usize> {
        let beginning = &self.beginning[..usize::from(self.skipped)];
        let Some(rest) = key.strip_prefix(beginning) else {
            let is_before = key < beginning;
            return Err(if is_before { 0 } else { self.heads.len() });
        };
        let head = head(rest);
        let mut low = self.heads.partition_point(|other| *other < head);
        // Keys of the same head differ only behind it, if at all. Mostly there is one, or none.
        let mut high = low;
        while self.heads.get(high) == Some(&head) {
            high += 1;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match key_at(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Puts in the head of a key that was put in at `place`, where it is found by now.
    pub(super) fn insert<'a>(&mut self, place: usize, key_at: impl Fn(usize) -> &'a [u8]) {
        let key = key_at(place);
        let skipped = usize::from(self.skipped);
        let count = self.heads.len() + 1;
        if count > 1 && key.starts_with(&self.beginning[..skipped]) {
            grow(&mut self.heads);
            self.heads.insert(place, head(&key[skipped..]));
        } else {
            *self = Heads::of(count, key_at);
        }
    }

    /// Takes out the head of the key that was at `place`.
    pub(super) fn remove(&mut self, place: usize) {
        self.heads.remove(place);
    }

    /// Bytes of memory that they take.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        super::record::piece_bytes(self.heads.capacity() * size_of::<u32>())
    }

    fn skip(&mut self, bytes: usize, key: &[u8]) {
        let bytes = bytes.min(SKIPPED_BYTES);
        self.skipped = bytes as u8;
        self.beginning[..bytes].copy_from_slice(&key[..bytes]);
    }
}

/// Four bytes as a number that orders as they do. A key that ends earlier orders before one that
/// goes on with zeros, which its head can't tell: heads that are equal say nothing.
fn head(bytes: &[u8]) -> u32 {
    match bytes.first_chunk() {
        Some(chunk) => u32::from_be_bytes(*chunk),
        None => {
            let mut chunk = [0; 4];
            chunk[..bytes.len()].copy_from_slice(bytes);
            u32::from_be_bytes(chunk)
        }
    }
}

/// How many bytes two keys have in common at their beginning.
pub(super) fn shared_bytes(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// Makes room for one element more, in steps that waste less than doubling: nodes are many, and
/// each is small.
pub(super) fn grow<T>(list: &mut Vec<T>) {
    const STEP: usize = 8;
    if list.len() == list.capacity() {
        list.reserve_exact(STEP);
    }
}
