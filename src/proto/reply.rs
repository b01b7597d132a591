//! What a command answers, as a value; [`Reply::encode`] writes it in RESP2 or RESP3.
//!
//! Follows Redis's protocol description (RESP2 and the part of RESP3 that we need). Built by the
//! commands and by `node/`, written by the connection it belongs to. Never reads anything.

use std::borrow::Cow;

use bytes::Bytes;

use super::integer::push_integer;

/// Which version of Redis's protocol a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Protocol {
    /// What a connection begins with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// One reply.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// `+OK` and its like.
    Simple(&'static str),
    /// An error line, its code (`ERR`, `WRONGTYPE` ...) first, without the leading `-`. CR and LF
    /// in it are written as blanks: they would end the line and let a client's own bytes be taken
    /// for a second reply.
    Error(Cow<'static, str>),
    /// `:n`
    Integer(i64),
    /// A string of bytes.
    Bulk(Bytes),
    /// A string of bytes that the program holds.
    Word(&'static str),
    /// Text for people (`INFO`): a verbatim string in RESP3, a bulk string in RESP2.
    Text(Bytes),
    /// No value: `$-1` in RESP2, `_` in RESP3.
    Nil,
    /// No value where an array would stand: `*-1` in RESP2, `_` in RESP3.
    NilArray,
    /// A reply that is encoded already, in the protocol of whom it goes to.
    Encoded(Bytes),
    /// Replies in order.
    Array(Vec<Reply>),
    /// Strings of bytes in order, encoded already: too many to be made in one turn.
    Bulks {
        /// How many.
        count: usize,
        /// Each by [`push_bulk`].
        encoded: Bytes,
    },
    /// Replies in no order that means anything: a set in RESP3, an array in RESP2.
    Set(Vec<Reply>),
    /// Pairs: a map in RESP3, a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// `+OK`
    pub const OK: Reply = Reply::Simple("OK");

    /// A string of bytes, copied.
    pub fn bulk(bytes: &[u8]) -> Reply {
        Reply::Bulk(Bytes::copy_from_slice(bytes))
    }

    /// A number of things that are in memory, or were.
    pub fn count(count: usize) -> Reply {
        Reply::Integer(i64::try_from(count).expect("memory holds fewer than 2^63 things"))
    }

    /// Bytes of what it carries: less than its encoding takes.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Reply::Simple(text) | Reply::Word(text) => text.len(),
            Reply::Error(text) => text.len(),
            Reply::Bulk(bytes) | Reply::Text(bytes) | Reply::Encoded(bytes) => bytes.len(),
            Reply::Bulks { encoded, .. } => encoded.len(),
            Reply::Integer(_) | Reply::Nil | Reply::NilArray => 0,
            Reply::Array(replies) | Reply::Set(replies) => {
                replies.iter().map(Reply::payload_bytes).sum()
            }
            Reply::Map(pairs) => {
                pairs.iter().map(|(key, value)| key.payload_bytes() + value.payload_bytes()).sum()
            }
        }
    }

    /// Appends the reply as the connection's protocol has it.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        match self {
            Reply::Simple(text) => push_line(out, b'+', text.as_bytes()),
            Reply::Error(text) => push_error(out, text),
            Reply::Integer(value) => push_header(out, b':', *value),
            Reply::Bulk(bytes) => push_bulk(out, bytes),
            Reply::Word(text) => push_bulk(out, text.as_bytes()),
            Reply::Text(bytes) => match protocol {
                Protocol::Resp2 => push_bulk(out, bytes),
                Protocol::Resp3 => push_verbatim(out, bytes),
            },
            Reply::Encoded(bytes) => out.extend_from_slice(bytes),
            Reply::Nil => push_nil(out, protocol, b"$-1\r\n"),
            Reply::NilArray => push_nil(out, protocol, b"*-1\r\n"),
            Reply::Array(replies) => push_all(out, protocol, b'*', replies),
            Reply::Bulks { count, encoded } => {
                push_count(out, b'*', *count);
                out.extend_from_slice(encoded);
            }
            Reply::Set(replies) => {
                let marker = if protocol == Protocol::Resp3 { b'~' } else { b'*' };
                push_all(out, protocol, marker, replies);
            }
            Reply::Map(pairs) => {
                match protocol {
                    Protocol::Resp2 => push_count(out, b'*', pairs.len() * 2),
                    Protocol::Resp3 => push_count(out, b'%', pairs.len()),
                }
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
        }
    }

    /// Roughly how many bytes [`encode`](Reply::encode) would write: what a held reply counts
    /// towards its client's output bound.
    pub fn size_hint(&self) -> usize {
        match self {
            Reply::Simple(text) | Reply::Word(text) => text.len() + 16,
            Reply::Error(text) => text.len() + 16,
            Reply::Bulk(bytes) | Reply::Text(bytes) | Reply::Encoded(bytes) => bytes.len() + 16,
            Reply::Bulks { encoded, .. } => encoded.len() + 16,
            Reply::Integer(_) | Reply::Nil | Reply::NilArray => 16,
            Reply::Array(replies) | Reply::Set(replies) => {
                16 + replies.iter().map(Reply::size_hint).sum::<usize>()
            }
            Reply::Map(pairs) => {
                let each = pairs.iter().map(|(key, value)| key.size_hint() + value.size_hint());
                16 + each.sum::<usize>()
            }
        }
    }
}

fn push_line(out: &mut Vec<u8>, marker: u8, text: &[u8]) {
    out.reserve(text.len() + 3);
    out.push(marker);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn push_error(out: &mut Vec<u8>, text: &str) {
    let start = out.len() + 1;
    push_line(out, b'-', text.as_bytes());
    let end = out.len() - 2;
    for byte in &mut out[start..end] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

/// Appends a number.
pub fn push_number(out: &mut Vec<u8>, value: i64) {
    push_header(out, b':', value);
}

fn push_header(out: &mut Vec<u8>, marker: u8, value: i64) {
    out.push(marker);
    push_integer(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an array, a map, or another collection with this marker.
pub fn push_count(out: &mut Vec<u8>, marker: u8, count: usize) {
    push_header(out, marker, i64::try_from(count).expect("memory holds fewer than 2^63 replies"));
}

/// Appends a string of bytes.
pub fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 16);
    push_count(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn push_verbatim(out: &mut Vec<u8>, bytes: &[u8]) {
    push_count(out, b'=', bytes.len() + 4);
    out.extend_from_slice(b"txt:");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends what stands for nothing: this in RESP2.
pub fn push_nil(out: &mut Vec<u8>, protocol: Protocol, resp2: &[u8]) {
    match protocol {
        Protocol::Resp2 => out.extend_from_slice(resp2),
        Protocol::Resp3 => out.extend_from_slice(b"_\r\n"),
    }
}

fn push_all(out: &mut Vec<u8>, protocol: Protocol, marker: u8, replies: &[Reply]) {
    push_count(out, marker, replies.len());
    for reply in replies {
        reply.encode(protocol, out);
    }
}

/// A client's bytes as an error message shows them: the first `limit` of them, CR and LF as blanks
/// as in Redis, other control characters and what is not UTF-8 as `\xNN`, so that an error is
/// always one printable line of text.
pub fn escape_echo(bytes: &[u8], limit: usize) -> String {
    let cut = &bytes[..bytes.len().min(limit)];
    let mut text = String::with_capacity(cut.len());
    for chunk in cut.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\r' | '\n' => text.push(' '),
                _ if character.is_control() => {
                    let mut utf8 = [0; 4];
                    for byte in character.encode_utf8(&mut utf8).bytes() {
                        push_escaped(&mut text, byte);
                    }
                }
                _ => text.push(character),
            }
        }
        for &byte in chunk.invalid() {
            push_escaped(&mut text, byte);
        }
    }
    text
}

fn push_escaped(text: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    text.push_str("\\x");
    text.push(char::from(HEX[usize::from(byte >> 4)]));
    text.push(char::from(HEX[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(reply: &Reply, protocol: Protocol) -> String {
        let mut out = Vec::new();
        reply.encode(protocol, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn encode_writes_both_protocols() {
        let reply = Reply::Array(vec![
            Reply::OK,
            Reply::Error("ERR no".into()),
            Reply::Integer(-7),
            Reply::bulk(b"a\r\nb"),
            Reply::Text(Bytes::from_static(b"x:1\r\n")),
            Reply::Nil,
            Reply::NilArray,
            Reply::Set(vec![Reply::Simple("fast")]),
            Reply::Map(vec![(Reply::Word("k"), Reply::Integer(1))]),
        ]);
        assert_eq!(
            encoded(&reply, Protocol::Resp2),
            "*9\r\n+OK\r\n-ERR no\r\n:-7\r\n$4\r\na\r\nb\r\n$5\r\nx:1\r\n\r\n$-1\r\n*-1\r\n\
             *1\r\n+fast\r\n*2\r\n$1\r\nk\r\n:1\r\n"
        );
        assert_eq!(
            encoded(&reply, Protocol::Resp3),
            "*9\r\n+OK\r\n-ERR no\r\n:-7\r\n$4\r\na\r\nb\r\n=9\r\ntxt:x:1\r\n\r\n_\r\n_\r\n\
             ~1\r\n+fast\r\n%1\r\n$1\r\nk\r\n:1\r\n"
        );
    }

    #[test]
    fn encode_keeps_an_error_on_one_line() {
        let reply = Reply::Error("ERR a\r\n+OK".into());
        assert_eq!(encoded(&reply, Protocol::Resp2), "-ERR a  +OK\r\n");
    }

    #[test]
    fn escape_echo_cuts_and_escapes() {
        assert_eq!(escape_echo(b"a\r\nb\x1b\xff\0", 128), "a  b\\x1b\\xff\\x00");
        assert_eq!(escape_echo("gr\u{fc}n".as_bytes(), 3), "gr\\xc3");
        assert_eq!(escape_echo("gr\u{fc}n".as_bytes(), 4), "gr\u{fc}");
    }
}
