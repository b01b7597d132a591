//! A file's bytes, of which the zeros that were filled in ahead take no memory.
//!
//! A segment of the log is a few records and, behind them, zeros for the whole length that it will
//! have; every start reads it and every crash copies it. Called by [`super::media`] and by whoever
//! reads a disk from outside. Knows nothing of sectors, caches and crashes.

/// The bytes of a file.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// From the beginning to behind the last write that wasn't zeros only.
    written: Vec<u8>,
    /// The file's length: what lies between is zeros.
    length: usize,
}

impl Content {
    /// The file's length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The file up to behind its last write that wasn't zeros only; the rest is zeros.
    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// All of it.
    pub fn whole(&self) -> Vec<u8> {
        let mut whole = self.written.clone();
        whole.resize(self.length, 0);
        whole
    }

    /// Writes; the file grows where that is needed.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.written.len() < end {
            self.written.resize(end, 0);
        }
        self.written[offset..end].copy_from_slice(bytes);
        self.length = self.length.max(end);
    }

    /// Writes so many zeros, likewise.
    pub fn put_zeros(&mut self, offset: usize, count: usize) {
        let end = offset + count;
        let within = self.written.len().min(end);
        if offset < within {
            self.written[offset..within].fill(0);
        }
        self.length = self.length.max(end);
    }

    /// Cuts the file, or lets it grow by zeros.
    pub fn resize(&mut self, length: usize) {
        self.written.truncate(length);
        self.length = length;
    }

    /// Reads from `offset` on until `out` is full or the file ends; returns how many bytes.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> usize {
        let from = self.length.min(offset);
        let count = out.len().min(self.length - from);
        let there = self.written.get(from..).unwrap_or_default();
        let there = &there[..there.len().min(count)];
        out[..there.len()].copy_from_slice(there);
        out[there.len()..count].fill(0);
        count
    }

    /// Bytes from `offset` on, as far as the file goes.
    pub fn copy(&self, offset: usize, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = self.read(offset, &mut bytes);
        bytes.truncate(read);
        bytes
    }

    /// Flips bits of one byte, which must be there.
    pub fn flip(&mut self, at: usize, bits: u8) {
        assert!(at < self.length, "only what is there rots");
        if self.written.len() <= at {
            self.written.resize(at + 1, 0);
        }
        self.written[at] ^= bits;
    }

    /// Makes it the same as `other`, in the memory that it has.
    pub fn copy_from(&mut self, other: &Content) {
        self.written.clone_from(&other.written);
        self.length = other.length;
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    /// The same operations on a content and on plain bytes.
    #[test]
    fn content_is_what_plain_bytes_would_be() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for _ in 0..500 {
            let (mut content, mut plain) = (Content::default(), Vec::new());
            for _ in 0..random.random_range(1..30) {
                let (offset, count) = (random.random_range(0..200), random.random_range(0..100));
                let end = offset + count;
                let grow = |plain: &mut Vec<u8>| {
                    let length = plain.len().max(end);
                    plain.resize(length, 0);
                };
                match random.random_range(0..4) {
                    0 => {
                        let bytes = vec![random.random_range(0..3u8); count];
                        content.put(offset, &bytes);
                        grow(&mut plain);
                        plain[offset..end].copy_from_slice(&bytes);
                    }
                    1 => {
                        content.put_zeros(offset, count);
                        grow(&mut plain);
                        plain[offset..end].fill(0);
                    }
                    2 => {
                        content.resize(end);
                        plain.resize(end, 0);
                    }
                    _ if offset < plain.len() => {
                        content.flip(offset, 4);
                        plain[offset] ^= 4;
                    }
                    _ => {}
                }
                assert_eq!(content.whole(), plain);
                assert_eq!(content.len(), plain.len());
                let expected = plain.get(offset..).unwrap_or_default();
                let expected = &expected[..expected.len().min(count)];
                assert_eq!(content.copy(offset, count), expected);
                assert!(plain[content.written().len()..].iter().all(|byte| *byte == 0));
            }
        }
    }
}
