//! Glob patterns as `KEYS` takes them: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! Matches what Redis's `stringmatchlen` matches, but remembers only the last `*`: going back
//! further never helps, and it keeps the time below pattern times text where Redis's recursion is
//! exponential. Called by `KEYS`; allocates only for the literal prefix.

/// Whether all of `text` matches all of `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut at = 0;
    let mut position = 0;
    // The pattern behind the last star, and the text that the star has not swallowed yet.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            if at == pattern.len() {
                return true;
            }
            star = Some((at, position));
            continue;
        }
        if position == text.len() {
            return at == pattern.len();
        }
        let (matched, length) = match_byte(&pattern[at..], text[position]);
        if matched {
            at += length;
            position += 1;
            continue;
        }
        let Some((behind, swallowed)) = star else {
            return false;
        };
        star = Some((behind, swallowed + 1));
        at = behind;
        position = swallowed + 1;
    }
}

/// Whether the first element of `pattern`, which is no star, takes `byte`; and its length.
fn match_byte(pattern: &[u8], byte: u8) -> (bool, usize) {
    match pattern {
        [] => (false, 0),
        [b'?', ..] => (true, 1),
        [b'[', class @ ..] => {
            let (matched, length) = match_class(class, byte);
            (matched, length + 1)
        }
        [b'\\', escaped, ..] => (*escaped == byte, 2),
        [literal, ..] => (*literal == byte, 1),
    }
}

/// Whether the class behind a `[` takes `byte`; and its length, the `]` included. A class without
/// its `]` ends with the pattern, as in Redis.
fn match_class(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut matched = false;
    loop {
        match &class[at..] {
            [] => break,
            [b'\\', escaped, ..] => {
                matched |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [first, b'-', last, ..] => {
                let (low, high) = (first.min(last), first.max(last));
                matched |= (*low..=*high).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                matched |= *literal == byte;
                at += 1;
            }
        }
    }
    (matched != negated, at)
}

/// What every match begins with: where a search through ordered keys starts and ends.
pub fn literal_prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    loop {
        match rest {
            [] | [b'*' | b'?' | b'[', ..] => return prefix,
            [b'\\', escaped, behind @ ..] => {
                prefix.push(*escaped);
                rest = behind;
            }
            [literal, behind @ ..] => {
                prefix.push(*literal);
                rest = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn matches_what_redis_matches() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h*llo", "hllo", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("h[a-b]llo", "hcllo", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[\\]]", "]", true),
            ("[ab", "b", true),
            ("a[", "a", false),
            ("a\\", "a\\", true),
            ("**a**", "bab", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn matches_ends_where_redis_would_not() {
        let mut pattern = b"a*".repeat(10_000);
        pattern.push(b'b');
        assert!(!matches(&pattern, &b"a".repeat(20_000)));
    }

    /// The definition, by recursion.
    fn matches_slowly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                (0..=text.len()).any(|skipped| matches_slowly(rest, &text[skipped..]))
            }
            ([_, ..], [byte, behind @ ..]) => {
                let (matched, length) = match_byte(pattern, *byte);
                matched && matches_slowly(&pattern[length..], behind)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matches_agrees_with_the_definition(pattern in "[ab*?^\\[\\]\\\\-]{0,8}", text in "[ab\\]-]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), matches_slowly(pattern, text));
            if matches(pattern, text) {
                prop_assert!(text.starts_with(&literal_prefix(pattern)));
            }
        }
    }
}
