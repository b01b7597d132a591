//! Parts a line into words by redis-cli's quoting rules.
//!
//! `"..."` knows `\n \r \t \b \a \xhh` and takes any other escaped byte as it is; `'...'` knows
//! `\'` alone; a closing quote must be followed by a space. Called by the prompt and the pipe.

/// The words of `line`, or `None` if its quotes are not balanced.
pub fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some((&byte, behind)) = rest.split_first() {
            rest = match byte {
                _ if byte.is_ascii_whitespace() => break,
                b'"' => closed(double_quoted(behind, &mut word)?)?,
                b'\'' => closed(single_quoted(behind, &mut word)?)?,
                _ => {
                    word.push(byte);
                    behind
                }
            };
        }
        words.push(word);
    }
}

/// `rest` lies behind a closing quote.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(u8::is_ascii_whitespace).then_some(rest)
}

/// Returns what lies behind the closing quote.
fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, behind) = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', b'x', high, low, behind @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) << 4 | hex_digit(*low), behind)
            }
            [b'\\', escaped, behind @ ..] => {
                let byte = match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                };
                (byte, behind)
            }
            [byte, behind @ ..] => (*byte, behind),
            [] => return None,
        };
        word.push(byte);
        rest = behind;
    }
}

/// Returns what lies behind the closing quote.
fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, behind) = match rest {
            [b'\'', behind @ ..] => return Some(behind),
            [b'\\', b'\'', behind @ ..] => (b'\'', behind),
            [byte, behind @ ..] => (*byte, behind),
            [] => return None,
        };
        word.push(byte);
        rest = behind;
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let words = split(line.as_bytes())?;
        Some(words.iter().map(|word| word.escape_ascii().to_string()).collect())
    }

    fn some(expected: &[&str]) -> Option<Vec<String>> {
        Some(expected.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn split_knows_the_quoting_rules() {
        assert_eq!(words(""), some(&[]));
        assert_eq!(words("  \t\r"), some(&[]));
        assert_eq!(words(" SET a  1\r"), some(&["SET", "a", "1"]));
        assert_eq!(words(r#"a "b c" 'd "e'"#), some(&["a", "b c", "d \\\"e"]));
        assert_eq!(words(r#""" ''"#), some(&["", ""]));
        assert_eq!(words(r#""\x41\n\q\"\xzz""#), some(&["A\\nq\\\"xzz"]));
        assert_eq!(words(r"'it\'s \n'"), some(&["it\\'s \\\\n"]));
        assert_eq!(words(r#"ab"c d""#), some(&["abc d"]));
        assert_eq!(words("\"\\xff\""), some(&["\\xff"]));
    }

    #[test]
    fn split_rejects_unbalanced_quotes() {
        for line in ["\"a", "'a", "\"a\"b", "'a'b", "a \"", r#""a\"#, r#""a\""#] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}
