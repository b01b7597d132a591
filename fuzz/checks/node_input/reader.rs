//! The bytes of an input, as small choices: what to do next, to whom, and with which number.
//!
//! A number from outside is most telling near the node's own: its term and one more, the end of
//! its log and the place behind it. So numbers are drawn around those, and now and then at the
//! ends of the range. Called by the rest of `node_input`; once the bytes are used up every choice
//! is the first one.

use raftkv::types::{LogIndex, Term};

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Whether anything is left to be done.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.rest.split_off_first().copied().unwrap_or(0)
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count.max(1)
    }

    /// One choice in `count` that is the first one.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// So many bytes as the next one says, at most `most`.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let count = self.below(most + 1).min(self.rest.len());
        self.rest.split_off(..count).unwrap_or_default()
    }

    /// A term near `own`.
    pub fn term(&mut self, own: Term) -> Term {
        match self.byte() {
            0..=79 => own,
            80..=159 => own.next(),
            160..=199 => own.prev(),
            200..=229 => Term(own.0.saturating_add(2)),
            230..=239 => Term(1),
            240..=247 => Term::ZERO,
            248..=251 => Term(u64::MAX),
            _ => Term(u64::MAX - 1),
        }
    }

    /// An index near the end of the log, or near what is committed.
    pub fn index(&mut self, last: LogIndex, commit: LogIndex) -> LogIndex {
        match self.byte() {
            0..=95 => last,
            96..=127 => last.prev(),
            128..=143 => last.next(),
            144..=159 => last.plus(7),
            160..=191 => commit,
            192..=207 => commit.next(),
            208..=223 => commit.prev(),
            224..=239 => LogIndex::ZERO,
            240..=247 => LogIndex(1),
            248..=251 => LogIndex(u64::MAX),
            _ => LogIndex(u64::MAX - 1),
        }
    }

    /// A small number, or one at the end of the range.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=249 => u64::from(byte / 8),
            250..=252 => u64::MAX,
            _ => u64::MAX - 1,
        }
    }
}
