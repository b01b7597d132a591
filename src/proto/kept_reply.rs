//! A reply as a session keeps it: in the state machine and in snapshots, whatever protocol the
//! client speaks that asks for it again.
//!
//! Design 2-client-path §2. Every node makes the same bytes of the same reply. Called by
//! `kv/sessions.rs`. A reply is its kind (u8) and what follows on it; integers are little-endian,
//! lengths and counts u32.

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use super::reply::Reply;
use crate::limits;

const SIMPLE: u8 = 0;
const ERROR: u8 = 1;
const INTEGER: u8 = 2;
const BULK: u8 = 3;
const TEXT: u8 = 4;
const NIL: u8 = 5;
const NIL_ARRAY: u8 = 6;
const ENCODED: u8 = 7;
const ARRAY: u8 = 8;
const BULKS: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;

/// Appends the reply.
pub fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Simple(text) => push_bytes(SIMPLE, text.as_bytes(), out),
        Reply::Error(text) => push_bytes(ERROR, text.as_bytes(), out),
        Reply::Integer(value) => {
            out.push(INTEGER);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Reply::Bulk(bytes) => push_bytes(BULK, bytes, out),
        Reply::Word(text) => push_bytes(BULK, text.as_bytes(), out),
        Reply::Text(bytes) => push_bytes(TEXT, bytes, out),
        Reply::Nil => out.push(NIL),
        Reply::NilArray => out.push(NIL_ARRAY),
        Reply::Encoded(bytes) => push_bytes(ENCODED, bytes, out),
        Reply::Array(replies) => push_all(ARRAY, replies, out),
        Reply::Bulks { count, encoded } => {
            push_head(BULKS, *count, out);
            out.extend_from_slice(&length(encoded.len()));
            out.extend_from_slice(encoded);
        }
        Reply::Set(replies) => push_all(SET, replies, out),
        Reply::Map(pairs) => {
            push_head(MAP, pairs.len(), out);
            for (key, value) in pairs {
                encode_reply(key, out);
                encode_reply(value, out);
            }
        }
    }
}

/// The reply that these bytes are, or `None` where they are none: a snapshot brought them.
pub fn decode_reply(mut bytes: &[u8]) -> Option<Reply> {
    let reply = take_reply(&mut bytes, limits::KEPT_REPLY_DEPTH)?;
    bytes.is_empty().then_some(reply)
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a reply is far below 4 GiB: limits::FRAME_BYTES").to_le_bytes()
}

fn push_head(kind: u8, count: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&length(count));
}

fn push_bytes(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    push_head(kind, bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn push_all(kind: u8, replies: &[Reply], out: &mut Vec<u8>) {
    push_head(kind, replies.len(), out);
    replies.iter().for_each(|reply| encode_reply(reply, out));
}

/// Takes a reply off `rest`, with replies in it at most `depth` deep.
fn take_reply(rest: &mut &[u8], depth: usize) -> Option<Reply> {
    let kind = *rest.split_off_first()?;
    let depth = depth.checked_sub(1)?;
    Some(match kind {
        SIMPLE => {
            let text = take_bytes(rest)?;
            // A line is the same in both protocols.
            match text {
                b"OK" => Reply::OK,
                _ => Reply::Encoded(Bytes::from([b"+", text, b"\r\n"].concat())),
            }
        }
        ERROR => Reply::Error(String::from_utf8(take_bytes(rest)?.to_vec()).ok()?.into()),
        INTEGER => Reply::Integer(LittleEndian::read_i64(rest.split_off(..8)?)),
        BULK => Reply::bulk(take_bytes(rest)?),
        TEXT => Reply::Text(Bytes::copy_from_slice(take_bytes(rest)?)),
        NIL => Reply::Nil,
        NIL_ARRAY => Reply::NilArray,
        ENCODED => Reply::Encoded(Bytes::copy_from_slice(take_bytes(rest)?)),
        ARRAY => Reply::Array(take_all(rest, depth)?),
        BULKS => {
            let count = take_length(rest)?;
            Reply::Bulks { count, encoded: Bytes::copy_from_slice(take_bytes(rest)?) }
        }
        SET => Reply::Set(take_all(rest, depth)?),
        MAP => {
            let count = take_length(rest)?;
            let pair = |_| Some((take_reply(rest, depth)?, take_reply(rest, depth)?));
            Reply::Map((0..count).map(pair).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    rest.split_off(..4).map(|bytes| LittleEndian::read_u32(bytes) as usize)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_length(rest)?;
    rest.split_off(..length)
}

fn take_all(rest: &mut &[u8], depth: usize) -> Option<Vec<Reply>> {
    let count = take_length(rest)?;
    (0..count).map(|_| take_reply(rest, depth)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::reply::Protocol;

    fn kept(reply: &Reply) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_reply(reply, &mut bytes);
        bytes
    }

    fn written(reply: &Reply, protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        reply.encode(protocol, &mut out);
        out
    }

    fn every_kind() -> Reply {
        let bulks = Reply::Bulks { count: 1, encoded: Bytes::from_static(b"$1\r\na\r\n") };
        Reply::Array(vec![
            Reply::OK,
            Reply::Simple("QUEUED"),
            Reply::Error("ERR no".into()),
            Reply::Integer(-7),
            Reply::bulk(b"a\r\nb"),
            Reply::Word("word"),
            Reply::Text(Bytes::from_static(b"text")),
            Reply::Nil,
            Reply::NilArray,
            Reply::Encoded(Bytes::from_static(b":1\r\n")),
            Reply::Array(vec![]),
            bulks,
            Reply::Set(vec![Reply::Integer(1)]),
            Reply::Map(vec![(Reply::bulk(b"k"), Reply::Nil)]),
        ])
    }

    #[test]
    fn decode_gives_what_is_written_the_same_in_both_protocols() {
        let reply = every_kind();
        let again = decode_reply(&kept(&reply)).expect("encoded just now");
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            assert_eq!(written(&again, protocol), written(&reply, protocol));
        }
    }

    #[test]
    fn decode_refuses_every_cut_and_what_is_too_deep() {
        let bytes = kept(&every_kind());
        for cut in 0..bytes.len() {
            assert!(decode_reply(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        assert!(decode_reply(&[bytes, vec![NIL]].concat()).is_none(), "something follows");
        let mut deep = Reply::Nil;
        for _ in 0..limits::KEPT_REPLY_DEPTH {
            deep = Reply::Array(vec![deep]);
        }
        assert!(decode_reply(&kept(&deep)).is_none());
        assert!(decode_reply(&[ARRAY, 255, 255, 255, 255]).is_none(), "nothing is reserved");
    }
}
