//! Rust's text as far as the rules need it: words and paths with their lines, without comments and
//! literals, grouped imports written out, `self` and `super` resolved.
//!
//! Called by `floors.rs`. No parser: macros are read as if they were code, which is stricter.

/// A path as it was written, in full.
#[derive(Debug)]
pub struct Found {
    /// The line of its last segment.
    pub line: usize,
    /// `["crate", "raft", "Raft"]`, `["std", "fmt"]`; a glob is `*`.
    pub path: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    /// `::`
    Separator,
    Other(char),
}

/// Every word of the code, with its line.
pub fn words(text: &str) -> Vec<(usize, String)> {
    let tokens = tokens(text).into_iter();
    tokens
        .filter_map(|(line, token)| match token {
            Token::Word(word) => Some((line, word)),
            _ => None,
        })
        .collect()
}

/// Every path of a file that is `module` of its crate; a lone word is a path too.
pub fn paths(text: &str, module: &[String]) -> Vec<Found> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    // The modules of the file that the code at `at` stands in, with the depth of their braces.
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at].1 {
            Token::Word(word) if word == "mod" && opens_module(&tokens, at) => {
                let Token::Word(name) = &tokens[at + 1].1 else { unreachable!("just seen") };
                inner.push((name.clone(), depth));
                at += 2;
            }
            Token::Word(_) => {
                let mut here = module.to_vec();
                here.extend(inner.iter().map(|(name, _)| name.clone()));
                at = path(&tokens, at, &[], &here, &mut found);
            }
            Token::Other('{') => {
                depth += 1;
                at += 1;
            }
            Token::Other('}') => {
                depth -= 1;
                if inner.last().is_some_and(|(_, outside)| *outside == depth) {
                    inner.pop();
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    found
}

fn opens_module(tokens: &[(usize, Token)], at: usize) -> bool {
    let named = matches!(tokens.get(at + 1), Some((_, Token::Word(_))));
    named && matches!(tokens.get(at + 2), Some((_, Token::Other('{'))))
}

/// Reads the path, or the tree of paths, that begins at `at` behind `prefix`. Returns where the
/// code goes on.
fn path(
    tokens: &[(usize, Token)],
    at: usize,
    prefix: &[String],
    module: &[String],
    found: &mut Vec<Found>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut at = at;
    let mut line = tokens[at].0;
    loop {
        match tokens.get(at) {
            Some((here, Token::Word(word))) => {
                line = *here;
                path.push(word.clone());
                at += 1;
            }
            Some((here, Token::Other('*'))) if !path.is_empty() => {
                line = *here;
                path.push("*".to_owned());
                at += 1;
                break;
            }
            Some((_, Token::Other('{'))) if !path.is_empty() => {
                return group(tokens, at + 1, &path, module, found);
            }
            _ => break,
        }
        match tokens.get(at) {
            Some((_, Token::Separator)) => at += 1,
            _ => break,
        }
    }
    let is_renamed = matches!(tokens.get(at), Some((_, Token::Word(word))) if word == "as");
    let is_visibility = path == ["crate"] || path == ["super"];
    // `pub(crate)` and `pub(super)` import nothing, `use crate as all` imports everything.
    if !is_visibility || is_renamed {
        found.push(Found { line, path: resolved(path, module) });
    }
    at
}

/// Reads the members of `prefix::{...}` from behind the brace on.
fn group(
    tokens: &[(usize, Token)],
    at: usize,
    prefix: &[String],
    module: &[String],
    found: &mut Vec<Found>,
) -> usize {
    let mut at = at;
    while let Some((_, token)) = tokens.get(at) {
        match token {
            Token::Other('}') => return at + 1,
            Token::Word(word) if word == "as" => at += 2,
            Token::Word(_) | Token::Other('*') => at = path(tokens, at, prefix, module, found),
            _ => at += 1,
        }
    }
    at
}

/// Makes a path that begins with `self` or `super` begin with `crate`.
fn resolved(path: Vec<String>, module: &[String]) -> Vec<String> {
    let mut from = module;
    let mut rest = path.as_slice();
    match rest.first().map(String::as_str) {
        // A method's `self` stands alone.
        Some("self") if rest.len() > 1 => rest = &rest[1..],
        Some("super") => {
            while rest.first().is_some_and(|word| word == "super") {
                from = &from[..from.len().saturating_sub(1)];
                rest = &rest[1..];
            }
        }
        _ => return path,
    }
    let root = std::iter::once("crate".to_owned());
    root.chain(from.iter().cloned()).chain(rest.iter().cloned()).collect()
}

fn tokens(text: &str) -> Vec<(usize, Token)> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end > at {
            line += chars[at..end].iter().filter(|char| **char == '\n').count();
            at = end;
        } else if is_word(chars[at]) {
            let length = chars[at..].iter().take_while(|char| is_word(**char)).count();
            tokens.push((line, Token::Word(chars[at..at + length].iter().collect())));
            at += length;
        } else if chars[at..].starts_with(&[':', ':']) {
            tokens.push((line, Token::Separator));
            at += 2;
        } else {
            tokens.push((line, Token::Other(chars[at])));
            at += 1;
        }
    }
    tokens
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Where the blank, comment or literal that begins at `at` ends, or `at`.
fn skipped(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let to = |length: usize| (at + length).min(chars.len());
    if rest[0].is_whitespace() {
        return at + 1;
    }
    if rest.starts_with(&['/', '/']) {
        return to(rest.iter().take_while(|char| **char != '\n').count());
    }
    if rest.starts_with(&['/', '*']) {
        return to(block_comment(rest));
    }
    if rest[0] == '\'' {
        return to(char_literal(rest));
    }
    let prefix = rest.iter().take_while(|char| matches!(char, 'b' | 'c' | 'r')).count();
    let hashes = rest[prefix..].iter().take_while(|char| **char == '#').count();
    if prefix > 2 || rest.get(prefix + hashes) != Some(&'"') {
        return at;
    }
    let is_raw = rest[..prefix].contains(&'r');
    if hashes > 0 && !is_raw {
        return at;
    }
    let start = prefix + hashes + 1;
    to(start + string_length(&rest[start..], is_raw, hashes))
}

/// The length of what a string holds, its end included.
fn string_length(rest: &[char], is_raw: bool, hashes: usize) -> usize {
    let mut at = 0;
    while at < rest.len() {
        if rest[at] == '\\' && !is_raw {
            at += 2;
        } else if rest[at] == '"'
            && rest[at + 1..].iter().take_while(|char| **char == '#').count() >= hashes
        {
            return at + 1 + hashes;
        } else {
            at += 1;
        }
    }
    at
}

/// The length of a block comment, those within it included.
fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of a character literal, or of the whole lifetime if it is one.
fn char_literal(rest: &[char]) -> usize {
    if rest.get(1) == Some(&'\\') {
        let end = rest.iter().skip(3).position(|char| *char == '\'');
        return end.map_or(rest.len(), |end| end + 4);
    }
    if rest.get(2) == Some(&'\'') {
        return 3;
    }
    1 + rest[1..].iter().take_while(|char| is_word(**char)).count()
}
