//! The arguments of one command, as one run of bytes: a length (u32, little-endian) and the bytes
//! of each, one behind the other.
//!
//! The parsers write this form once, and it stays the same through the gateway, the log and the
//! store, so that a command is copied, never rebuilt. Called by `resp`, `inline`, `batch`, `kv/`
//! and `node/`.

use byteorder::{ByteOrder, LittleEndian};

/// Appends one argument in the encoded form.
pub fn push_arg(out: &mut Vec<u8>, arg: &[u8]) {
    let length =
        u32::try_from(arg.len()).expect("an argument is far below 4 GiB: limits::VALUE_BYTES");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(arg);
}

/// The arguments of one command, borrowed in their encoded form. The first one is the command's
/// name as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Args<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Args<'a> {
    /// Arguments that our own parsers encoded: `count` of them, exactly filling `bytes`.
    pub fn new(count: u32, bytes: &'a [u8]) -> Args<'a> {
        debug_assert_eq!(Args { count, bytes }.iter().count(), count as usize);
        Args { count, bytes }
    }

    /// Arguments from outside (a log entry, a peer): checked to be `count` of them that exactly
    /// fill `bytes`, or `None`.
    pub fn checked(count: u32, bytes: &'a [u8]) -> Option<Args<'a>> {
        let mut rest = bytes;
        for _ in 0..count {
            let length = LittleEndian::read_u32(rest.get(..4)?) as usize;
            rest = rest[4..].get(length..)?;
        }
        rest.is_empty().then_some(Args { count, bytes })
    }

    /// How many there are, the command's name included.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The argument at `position`, the command's name being 0. Walks there: use
    /// [`iter`](Args::iter) for more than a few.
    pub fn get(&self, position: usize) -> Option<&'a [u8]> {
        self.iter().nth(position)
    }

    /// All arguments in order, the command's name first.
    pub fn iter(&self) -> ArgsIter<'a> {
        ArgsIter { bytes: self.bytes }
    }

    /// What is left without the first `skipped` arguments.
    #[must_use]
    pub fn behind(&self, skipped: usize) -> Args<'a> {
        let mut iter = self.iter();
        let passed = iter.by_ref().take(skipped).count();
        let passed = u32::try_from(passed).expect("not more than the count, which is a u32");
        Args { count: self.count - passed, bytes: iter.bytes }
    }

    /// The first `count`, or `None` if there are fewer.
    pub fn first(&self, count: usize) -> Option<Args<'a>> {
        let rest = self.behind(count);
        let count = u32::try_from(count).ok().filter(|count| *count <= self.count)?;
        Some(Args { count, bytes: &self.bytes[..self.bytes.len() - rest.bytes.len()] })
    }

    /// The encoded form.
    pub fn encoded(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Walks [`Args`].
#[derive(Clone, Debug)]
pub struct ArgsIter<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for ArgsIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = LittleEndian::read_u32(self.bytes.get(..4)?) as usize;
        let (arg, rest) = self.bytes[4..].split_at(length);
        self.bytes = rest;
        Some(arg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn args_walk_what_was_pushed() {
        let mut bytes = Vec::new();
        for arg in [&b"SET"[..], b"", b"value"] {
            push_arg(&mut bytes, arg);
        }
        let args = Args::checked(3, &bytes).expect("encoded just now");
        assert_eq!(args.iter().collect::<Vec<_>>(), [&b"SET"[..], b"", b"value"]);
        assert_eq!(args.get(2), Some(&b"value"[..]));
        assert_eq!(args.get(3), None);
    }

    #[test]
    fn args_checked_rejects_short_long_and_miscounted() {
        let mut bytes = Vec::new();
        push_arg(&mut bytes, b"GET");
        push_arg(&mut bytes, b"key");
        assert!(Args::checked(1, &bytes).is_none());
        assert!(Args::checked(3, &bytes).is_none());
        assert!(Args::checked(2, &bytes[..bytes.len() - 1]).is_none());
        assert!(Args::checked(2, &[0xff; 8]).is_none());
    }
}
