//! LCS: the longest common subsequence of two values.
//!
//! Redis's command and replies; the algorithm is the textbook table of lengths (Cormen et al.,
//! *Introduction to Algorithms*, "Longest common subsequence"), walked back from its end. The
//! table's size is bounded by [`limits::LCS_CELLS`]. Called through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext};
use super::error::CommandError;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "lcs",
    code: 35,
    arity: -3,
    flags: Flags::READONLY,
    keys: Keys::two(&["RO", "access"], &[]),
    group: Group::String,
    since: "7.0.0",
    complexity: "O(N*M) where N and M are the lengths of s1 and s2, respectively",
    summary: "Find longest common substring",
    usage: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    handler: Handler::Read { check: |args| parse(args).map(drop), run: lcs },
    ..ROW
}];

/// What LCS is to answer.
#[derive(Default)]
struct Options {
    len: bool,
    idx: bool,
    min_match: usize,
    with_match_len: bool,
}

fn parse(args: Args<'_>) -> Result<Options, CommandError> {
    let mut options = Options::default();
    let mut words = args.iter().skip(3);
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"len" => options.len = true,
            b"idx" => options.idx = true,
            b"withmatchlen" => options.with_match_len = true,
            b"minmatchlen" => {
                let text = words.next().ok_or(CommandError::Syntax)?;
                let length = parse_integer(text).ok_or(CommandError::NotAnInteger)?;
                options.min_match = usize::try_from(length).unwrap_or(0);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    if options.len && options.idx {
        return Err(CommandError::LcsLenAndIdx);
    }
    Ok(options)
}

fn lcs(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let options = parse(args)?;
    let value = |position| {
        let item = context.store.get(args.get(position).unwrap_or_default());
        item.map_or(&b""[..], |item| item.value)
    };
    let table = Table::build(value(1), value(2)).ok_or(CommandError::LcsTooLarge)?;
    if options.len {
        return Ok(Reply::count(table.length()));
    }
    if !options.idx {
        return Ok(Reply::bulk(&table.common()));
    }
    let matches = table.matches().into_iter().filter(|found| found.length >= options.min_match);
    let matches = matches.map(|found| found.reply(options.with_match_len)).collect();
    Ok(Reply::Map(vec![
        (Reply::Word("matches"), Reply::Array(matches)),
        (Reply::Word("len"), Reply::count(table.length())),
    ]))
}

/// The length of the longest common subsequence of each pair of beginnings.
struct Table<'a> {
    one: &'a [u8],
    other: &'a [u8],
    /// Row by row: `one.len() + 1` rows of `other.len() + 1`.
    lengths: Vec<u32>,
}

/// A run of bytes that both values have, where the walk back from their ends finds it.
struct Match {
    /// Where it begins in the first value.
    one: usize,
    /// Where it begins in the second.
    other: usize,
    length: usize,
}

impl<'a> Table<'a> {
    /// `None` if it would have more than [`limits::LCS_CELLS`].
    fn build(one: &'a [u8], other: &'a [u8]) -> Option<Table<'a>> {
        let width = other.len() + 1;
        let cells = (one.len() + 1).checked_mul(width).filter(|n| *n <= limits::LCS_CELLS)?;
        let mut lengths = vec![0; cells];
        for row in 1..=one.len() {
            for column in 1..=other.len() {
                let at = row * width + column;
                lengths[at] = match one[row - 1] == other[column - 1] {
                    true => lengths[at - width - 1] + 1,
                    false => lengths[at - width].max(lengths[at - 1]),
                };
            }
        }
        Some(Table { one, other, lengths })
    }

    fn at(&self, row: usize, column: usize) -> u32 {
        self.lengths[row * (self.other.len() + 1) + column]
    }

    fn length(&self) -> usize {
        self.at(self.one.len(), self.other.len()) as usize
    }

    /// The pairs of positions of equal bytes on the way back, last first; as Redis's walk decides
    /// between ways of one length.
    fn walk(&self) -> impl Iterator<Item = (usize, usize)> {
        let (mut row, mut column) = (self.one.len(), self.other.len());
        std::iter::from_fn(move || {
            while row > 0 && column > 0 {
                if self.one[row - 1] == self.other[column - 1] {
                    (row, column) = (row - 1, column - 1);
                    return Some((row, column));
                }
                if self.at(row - 1, column) > self.at(row, column - 1) {
                    row -= 1;
                } else {
                    column -= 1;
                }
            }
            None
        })
    }

    fn common(&self) -> Vec<u8> {
        let mut common: Vec<u8> = self.walk().map(|(row, _)| self.one[row]).collect();
        common.reverse();
        common
    }

    fn matches(&self) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        for (one, other) in self.walk() {
            match matches.last_mut() {
                Some(last) if last.one == one + 1 && last.other == other + 1 => {
                    *last = Match { one, other, length: last.length + 1 };
                }
                _ => matches.push(Match { one, other, length: 1 }),
            }
        }
        matches
    }
}

impl Match {
    fn reply(&self, with_length: bool) -> Reply {
        let range = |start: usize| {
            Reply::Array(vec![Reply::count(start), Reply::count(start + self.length - 1)])
        };
        let mut parts = vec![range(self.one), range(self.other)];
        if with_length {
            parts.push(Reply::count(self.length));
        }
        Reply::Array(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lcs_finds_what_the_redis_manual_shows() {
        let table = Table::build(b"ohmytext", b"mynewtext").expect("small");
        assert_eq!(table.common(), b"mytext");
        let found: Vec<_> =
            table.matches().iter().map(|found| (found.one, found.other, found.length)).collect();
        assert_eq!(found, [(4, 5, 4), (2, 0, 2)]);
        assert!(Table::build(&[0; 5000], &[0; 5000]).is_none());
    }

    proptest! {
        #[test]
        fn lcs_is_in_both_and_as_long_as_the_definition_says(
            one in "[abc]{0,9}",
            other in "[abc]{0,9}",
        ) {
            fn longest(one: &[u8], other: &[u8]) -> usize {
                match (one, other) {
                    ([], _) | (_, []) => 0,
                    ([a, one @ ..], [b, other @ ..]) if a == b => 1 + longest(one, other),
                    ([_, rest @ ..], [_, behind @ ..]) => {
                        longest(rest, other).max(longest(one, behind))
                    }
                }
            }
            let within = |common: &[u8], text: &[u8]| {
                let mut text = text.iter();
                common.iter().all(|byte| text.any(|other| other == byte))
            };
            let (one, other) = (one.as_bytes(), other.as_bytes());
            let table = Table::build(one, other).expect("small");
            let common = table.common();
            prop_assert_eq!(common.len(), longest(one, other));
            prop_assert_eq!(table.length(), common.len());
            prop_assert!(within(&common, one) && within(&common, other));
        }
    }
}
