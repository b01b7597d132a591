//! Inline commands: the words of a line as people type it into `nc`.
//!
//! Follows Redis's `sdssplitargs` to the letter: blanks part words, `"..."` knows `\n \r \t \b \a
//! \xHH`, `'...'` knows only `\'`, and a closing quote ends its word. Called by `resp`; keeps
//! nothing between lines.

use super::args::push_arg;

/// A quote is not closed, or something other than a blank follows on a closed one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnbalancedQuotes;

/// Appends the words of `line`, which has no line end, to `out` as arguments; returns how many.
/// On an error, what was appended is to be cut off by the caller.
pub fn split_line(line: &[u8], out: &mut Vec<u8>) -> Result<u32, UnbalancedQuotes> {
    let mut count = 0;
    let mut rest = skip_blanks(line);
    while !rest.is_empty() {
        let start = out.len();
        // The length is not known yet; it is filled in behind the word.
        push_arg(out, b"");
        let left = push_word(rest, out)?;
        let length = u32::try_from(out.len() - start - LENGTH_BYTES)
            .expect("a word is no longer than its line: limits::INLINE_BYTES");
        out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        count += 1;
        rest = skip_blanks(left);
    }
    Ok(count)
}

const LENGTH_BYTES: usize = 4;

/// C's `isspace`, which has one blank more than `is_ascii_whitespace`: the vertical tab.
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| is_blank(**byte)).count();
    &line[blanks..]
}

/// Appends the bytes of the first word; returns what is behind it.
fn push_word<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            // Redis ends a bare word at these alone, not at every blank.
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [b'"', quoted @ ..] => return push_double_quoted(quoted, out),
            [b'\'', quoted @ ..] => return push_single_quoted(quoted, out),
            [byte, behind @ ..] => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
}

fn push_double_quoted<'a>(
    mut rest: &'a [u8],
    out: &mut Vec<u8>,
) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            [] => return Err(UnbalancedQuotes),
            [b'"', behind @ ..] => return closed(behind),
            [b'\\', b'x', high, low, behind @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push(hex_value(*high) << 4 | hex_value(*low));
                rest = behind;
            }
            [b'\\', escaped, behind @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = behind;
            }
            [byte, behind @ ..] => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
}

fn push_single_quoted<'a>(
    mut rest: &'a [u8],
    out: &mut Vec<u8>,
) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            [] => return Err(UnbalancedQuotes),
            [b'\\', b'\'', behind @ ..] => {
                out.push(b'\'');
                rest = behind;
            }
            [b'\'', behind @ ..] => return closed(behind),
            [byte, behind @ ..] => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
}

/// Behind a closing quote stands a blank or nothing.
fn closed(behind: &[u8]) -> Result<&[u8], UnbalancedQuotes> {
    match behind.first() {
        Some(byte) if !is_blank(*byte) => Err(UnbalancedQuotes),
        _ => Ok(behind),
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::Args;
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
        let mut out = Vec::new();
        let count = split_line(line, &mut out)?;
        let args = Args::checked(count, &out).expect("what was written just now");
        Ok(args.iter().map(<[u8]>::to_vec).collect())
    }

    #[test]
    fn split_line_quotes_as_redis_does() {
        for (line, expected) in [
            (&b""[..], &[][..]),
            (b" \t\x0b\x0c ", &[]),
            (b"SET a 1", &[&b"SET"[..], b"a", b"1"]),
            (b"  SET   a\t1  ", &[b"SET", b"a", b"1"]),
            (b"SET a \"hello world\"", &[b"SET", b"a", b"hello world"]),
            (b"ECHO \"\\x41\\n\\r\\t\\b\\a\\\"\\q\"", &[b"ECHO", b"A\n\r\t\x08\x07\"q"]),
            (b"ECHO \"\\xzz\\x4\"", &[b"ECHO", b"xzzx4"]),
            (b"ECHO '\\n\\'x'", &[b"ECHO", b"\\n'x"]),
            (b"ECHO \"\" ''", &[b"ECHO", b"", b""]),
            (b"ECHO ab\"cd e\"", &[b"ECHO", b"abcd e"]),
            (b"ECHO a\x0bb", &[b"ECHO", b"a\x0bb"]),
            (b"ECHO \"a\"\x0bb", &[b"ECHO", b"a", b"b"]),
            (b"ECHO \xff\\n", &[b"ECHO", b"\xff\\n"]),
        ] {
            let found = words(line).unwrap();
            assert_eq!(found, expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn split_line_refuses_unbalanced_quotes() {
        for line in [&b"\""[..], b"'", b"a \"b", b"a 'b", b"\"a\"b", b"'a'b", b"\"a\\\"", b"\"a\\"]
        {
            assert_eq!(words(line), Err(UnbalancedQuotes), "{}", line.escape_ascii());
        }
    }
}
