//! Frames: what peers, `rkv-cli` and the Rust client exchange (design page 4, §5).
//!
//! Each direction of a connection begins with the preface `00 'R' 'K' 'V' version`; after it come
//! frames, all integers little-endian: `length u32` (of the payload), `crc32 u32` (of all that
//! follows it), `kind u8`, `flags u8`, `reserved u16 = 0`, payload. The first frame is a
//! [`Hello`](super::hello::Hello). Called by `loop/`, `sim/` and `client/`. Never allocates by a
//! declared length, and never looks into a peer message.

use std::error::Error;
use std::fmt;

use byteorder::{ByteOrder, LittleEndian};

use crate::limits;
use crate::types::{RequestSeq, SessionId};

/// The first byte of a framed connection; no text protocol begins with it.
pub const PREFACE_BYTE: u8 = 0;

/// The version of this layout, the preface's last byte.
pub const FRAME_VERSION: u8 = 1;

/// What each direction of a framed connection begins with.
pub const PREFACE: [u8; 5] = [PREFACE_BYTE, b'R', b'K', b'V', FRAME_VERSION];

/// A header's length in bytes.
pub const HEADER_BYTES: usize = 12;

/// Where the bytes begin that the checksum covers.
const CHECKED_FROM: usize = 8;

/// A flag of [`FrameKind::ClientReply`]: the reply goes on in the next frame, under the same tag.
pub const FLAG_MORE: u8 = 1;

/// A flag of [`FrameKind::ClientRequest`]: the command is one of the tag's session. Behind the tag
/// stands the lowest number whose reply the client still awaits (u64). A server that knows no
/// sessions closes the connection, so that none takes such a command for another.
pub const FLAG_IN_SESSION: u8 = 1;

/// What a frame carries. The number is its code on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// Who speaks: the first frame of each direction ([`Hello`](super::hello::Hello)).
    Hello = 1,
    /// Instead of an answering hello ([`HelloRefused`](super::hello::HelloRefused)); then the
    /// connection is closed.
    HelloRefused = 2,
    /// One message between peers: see [`super::peer_message`].
    Peer = 3,
    /// A [`ClientTag`], then exactly one command in RESP; between them, with
    /// [`FLAG_IN_SESSION`], what makes the tag a [`SessionMark`].
    ClientRequest = 4,
    /// The request's [`ClientTag`], then its reply in RESP, or the next piece of it: see
    /// [`FLAG_MORE`].
    ClientReply = 5,
}

impl FrameKind {
    /// The kind that has this code.
    pub fn from_code(code: u8) -> Option<FrameKind> {
        match code {
            1 => Some(FrameKind::Hello),
            2 => Some(FrameKind::HelloRefused),
            3 => Some(FrameKind::Peer),
            4 => Some(FrameKind::ClientRequest),
            5 => Some(FrameKind::ClientReply),
            _ => None,
        }
    }
}

/// One frame, its checksum verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: FrameKind,
    /// Their meaning depends on the kind; unknown ones are the kind's decoder's affair.
    pub flags: u8,
    /// Never empty.
    pub payload: &'a [u8],
}

/// Why bytes are no frame. Always the sender's fault, and always the end of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The connection doesn't begin with `00 'R' 'K' 'V'`.
    BadPreface,
    /// It does, but the layout's version is not ours.
    UnknownVersion(u8),
    /// The declared length is over [`limits::FRAME_BYTES`].
    TooLarge(u32),
    /// The declared length is zero; no kind has an empty payload.
    Empty,
    /// The reserved field is not zero.
    ReservedNotZero(u16),
    /// No kind has this code.
    UnknownKind(u8),
    /// The checksum doesn't match the bytes.
    BadChecksum,
    /// The payload is shorter than what its kind begins with.
    Truncated,
    /// A command of a session names no session, or no number.
    BadMark,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::BadPreface => write!(f, "the connection does not begin with a preface"),
            FrameError::UnknownVersion(version) => {
                write!(f, "frame version {version}, expected {FRAME_VERSION}")
            }
            FrameError::TooLarge(length) => {
                write!(f, "a frame of {length} bytes, limit {}", limits::FRAME_BYTES)
            }
            FrameError::Empty => write!(f, "a frame without a payload"),
            FrameError::ReservedNotZero(value) => write!(f, "a reserved field of {value}, not 0"),
            FrameError::UnknownKind(code) => write!(f, "unknown frame kind {code}"),
            FrameError::BadChecksum => write!(f, "a frame whose checksum does not match"),
            FrameError::BadMark => write!(f, "a command of no session, or without a number"),
            FrameError::Truncated => write!(f, "a payload that ends too early"),
        }
    }
}

impl Error for FrameError {}

/// Appends one frame. `payload` appends its content to the same buffer, behind a header that is
/// filled in afterwards, so that no second buffer is needed.
///
/// # Panics
///
/// If the payload is empty or over [`limits::FRAME_BYTES`]: what builds payloads is bounded below
/// that by `limits.rs`.
pub fn encode_frame(
    kind: FrameKind,
    flags: u8,
    out: &mut Vec<u8>,
    payload: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    payload(out);

    let length = out.len() - start - HEADER_BYTES;
    assert!(length > 0, "a payload is never empty");
    assert!(length <= limits::FRAME_BYTES, "a payload stays below limits::FRAME_BYTES");
    let frame = &mut out[start..];
    LittleEndian::write_u32(&mut frame[..4], length as u32);
    frame[8] = kind as u8;
    frame[9] = flags;
    let checksum = crc32fast::hash(&frame[CHECKED_FROM..]);
    LittleEndian::write_u32(&mut frame[4..8], checksum);
}

/// A header whose fields are within bounds.
#[derive(Clone, Copy)]
struct Header {
    length: usize,
    checksum: u32,
    kind: FrameKind,
    flags: u8,
}

impl Header {
    /// Checks every field that can be checked without the payload.
    fn decode(bytes: &[u8]) -> Result<Header, FrameError> {
        assert!(bytes.len() >= HEADER_BYTES, "callers wait for a whole header");
        let length = LittleEndian::read_u32(&bytes[..4]);
        if length as usize > limits::FRAME_BYTES {
            return Err(FrameError::TooLarge(length));
        }
        if length == 0 {
            return Err(FrameError::Empty);
        }
        let kind = FrameKind::from_code(bytes[8]).ok_or(FrameError::UnknownKind(bytes[8]))?;
        let reserved = LittleEndian::read_u16(&bytes[10..12]);
        if reserved != 0 {
            return Err(FrameError::ReservedNotZero(reserved));
        }
        Ok(Header {
            length: length as usize,
            checksum: LittleEndian::read_u32(&bytes[4..8]),
            kind,
            flags: bytes[9],
        })
    }

    /// `bytes` are the whole frame, header included.
    fn frame(self, bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
        assert_eq!(bytes.len(), HEADER_BYTES + self.length);
        if crc32fast::hash(&bytes[CHECKED_FROM..]) != self.checksum {
            return Err(FrameError::BadChecksum);
        }
        Ok(Frame { kind: self.kind, flags: self.flags, payload: &bytes[HEADER_BYTES..] })
    }
}

/// Turns one direction of a connection, from its first byte on, into frames.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    /// How much of the preface has been seen.
    preface_seen: usize,
    /// What has come of a frame that did not arrive in one piece; grows with what arrives.
    partial: Vec<u8>,
    /// `partial` is a whole frame that was handed out, to be forgotten on the next call.
    handed_out: bool,
    /// A violation is final: nothing behind it can be trusted to be a frame's beginning.
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder that expects the preface first.
    pub fn new() -> FrameDecoder {
        FrameDecoder::default()
    }

    /// Takes bytes from the front of `input` until a frame is whole. `None` means that all of
    /// `input` was taken and more is needed. A frame that lies in `input` as a whole is not
    /// copied. After an error every further call returns it again.
    pub fn decode<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'a>>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.handed_out {
            self.forget_handed_out();
        }
        // The field is borrowed apart from the rest, so that the frame may borrow `partial`.
        let failed = &mut self.failed;
        let decoded = decode_preface(&mut self.preface_seen, input)
            .and_then(|()| decode_next(&mut self.partial, &mut self.handed_out, input));
        if let Err(error) = &decoded {
            *failed = Some(*error);
        }
        decoded
    }

    /// Bytes of a frame that is not whole yet.
    pub fn pending_bytes(&self) -> usize {
        if self.handed_out { 0 } else { self.partial.len() }
    }

    fn forget_handed_out(&mut self) {
        self.handed_out = false;
        self.partial.clear();
        if self.partial.capacity() > limits::FRAME_BUFFER_KEPT_BYTES {
            self.partial = Vec::new();
        }
    }
}

/// Compares byte by byte, so that a wrong one is told at once and not after five.
fn decode_preface(seen: &mut usize, input: &mut &[u8]) -> Result<(), FrameError> {
    while *seen < PREFACE.len() {
        let Some((&byte, rest)) = input.split_first() else {
            return Ok(());
        };
        if byte != PREFACE[*seen] {
            let at_version = *seen == PREFACE.len() - 1;
            return Err(if at_version {
                FrameError::UnknownVersion(byte)
            } else {
                FrameError::BadPreface
            });
        }
        *seen += 1;
        *input = rest;
    }
    Ok(())
}

fn decode_next<'a, 'i: 'a>(
    partial: &'a mut Vec<u8>,
    handed_out: &mut bool,
    input: &mut &'i [u8],
) -> Result<Option<Frame<'a>>, FrameError> {
    if partial.is_empty() && input.len() >= HEADER_BYTES {
        let header = Header::decode(input)?;
        if let Some((frame, rest)) = input.split_at_checked(HEADER_BYTES + header.length) {
            *input = rest;
            return header.frame(frame).map(Some);
        }
    }
    take(partial, HEADER_BYTES, input);
    if partial.len() < HEADER_BYTES {
        return Ok(None);
    }
    let header = Header::decode(partial)?;
    let whole = HEADER_BYTES + header.length;
    take(partial, whole, input);
    if partial.len() < whole {
        return Ok(None);
    }
    *handed_out = true;
    header.frame(partial).map(Some)
}

/// Moves bytes from `input` to `partial` until that has `wanted` of them.
fn take(partial: &mut Vec<u8>, wanted: usize, input: &mut &[u8]) {
    let missing = wanted.saturating_sub(partial.len());
    let (taken, rest) = input.split_at(missing.min(input.len()));
    partial.extend_from_slice(taken);
    *input = rest;
}

/// What a client's request and its reply begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientTag {
    /// The session it belongs to; zero for none.
    pub session: SessionId,
    /// The request's number; a reply bears that of its request.
    pub sequence: RequestSeq,
}

impl ClientTag {
    /// A tag's length in bytes.
    pub const BYTES: usize = 16;

    /// Appends the tag; the command or the reply goes behind it.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.0.to_le_bytes());
        out.extend_from_slice(&self.sequence.0.to_le_bytes());
    }

    /// Parts a payload into its tag and the RESP behind it.
    pub fn decode(payload: &[u8]) -> Result<(ClientTag, &[u8]), FrameError> {
        let (tag, resp) = payload.split_at_checked(Self::BYTES).ok_or(FrameError::Truncated)?;
        let session = SessionId(LittleEndian::read_u64(&tag[..8]));
        let sequence = RequestSeq(LittleEndian::read_u64(&tag[8..]));
        Ok((ClientTag { session, sequence }, resp))
    }
}

/// Which command of which client session a command is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionMark {
    /// The session; never zero.
    pub session: SessionId,
    /// The command's number in it, from 1.
    pub number: RequestSeq,
    /// The lowest number whose reply the client still awaits: those below need not be kept.
    pub awaited: RequestSeq,
}

impl SessionMark {
    /// A mark's length in bytes.
    pub const BYTES: usize = ClientTag::BYTES + 8;

    /// What the reply bears.
    pub fn tag(self) -> ClientTag {
        ClientTag { session: self.session, sequence: self.number }
    }

    /// Appends the mark; the command goes behind it.
    pub fn encode(self, out: &mut Vec<u8>) {
        self.tag().encode(out);
        out.extend_from_slice(&self.awaited.0.to_le_bytes());
    }

    /// Parts a payload into its mark and the RESP behind it.
    pub fn decode(payload: &[u8]) -> Result<(SessionMark, &[u8]), FrameError> {
        let (tag, mut rest) = ClientTag::decode(payload)?;
        let awaited = rest.split_off(..8).ok_or(FrameError::Truncated)?;
        let awaited = RequestSeq(LittleEndian::read_u64(awaited));
        let mark = SessionMark { session: tag.session, number: tag.sequence, awaited };
        let is_named = mark.session != SessionId::ZERO && mark.number != RequestSeq::ZERO;
        if is_named { Ok((mark, rest)) } else { Err(FrameError::BadMark) }
    }
}

/// Appends the frames of one reply: as a rule one, and more with [`FLAG_MORE`] for a reply that is
/// larger than a frame may be.
pub fn encode_client_reply(tag: ClientTag, resp: &[u8], out: &mut Vec<u8>) {
    assert!(!resp.is_empty(), "a reply has at least its type and its line's end");
    let mut pieces = resp.chunks(limits::FRAME_BYTES - ClientTag::BYTES).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_some() { FLAG_MORE } else { 0 };
        encode_frame(FrameKind::ClientReply, flags, out, |out| {
            tag.encode(out);
            out.extend_from_slice(piece);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [FrameKind; 5] = [
        FrameKind::Hello,
        FrameKind::HelloRefused,
        FrameKind::Peer,
        FrameKind::ClientRequest,
        FrameKind::ClientReply,
    ];

    fn stream_of(frames: &[(FrameKind, u8, Vec<u8>)]) -> Vec<u8> {
        let mut out = PREFACE.to_vec();
        for (kind, flags, payload) in frames {
            encode_frame(*kind, *flags, &mut out, |out| out.extend_from_slice(payload));
        }
        out
    }

    /// One frame behind a preface, with `change` made to its bytes.
    fn changed(change: impl FnOnce(&mut [u8])) -> Result<bool, FrameError> {
        let mut stream = stream_of(&[(FrameKind::Peer, 0, b"abc".to_vec())]);
        change(&mut stream[PREFACE.len()..]);
        FrameDecoder::new().decode(&mut &stream[..]).map(|frame| frame.is_some())
    }

    #[test]
    fn session_mark_is_decoded_whole_or_not_at_all() {
        let mark = SessionMark {
            session: SessionId(u64::MAX),
            number: RequestSeq(1),
            awaited: RequestSeq(0),
        };
        let mut payload = Vec::new();
        mark.encode(&mut payload);
        payload.extend_from_slice(b"resp");
        assert_eq!(SessionMark::decode(&payload), Ok((mark, &b"resp"[..])));
        for cut in 0..SessionMark::BYTES {
            assert_eq!(SessionMark::decode(&payload[..cut]), Err(FrameError::Truncated));
        }
        payload[8] = 0;
        assert_eq!(SessionMark::decode(&payload), Err(FrameError::BadMark));
    }

    #[test]
    fn decode_rejects_each_bad_field() {
        assert_eq!(changed(|_| ()), Ok(true));
        assert_eq!(changed(|frame| frame[..4].fill(0)), Err(FrameError::Empty));
        assert_eq!(changed(|frame| frame[4] ^= 1), Err(FrameError::BadChecksum));
        assert_eq!(changed(|frame| frame[8] = 9), Err(FrameError::UnknownKind(9)));
        assert_eq!(changed(|frame| frame[9] = 1), Err(FrameError::BadChecksum));
        assert_eq!(changed(|frame| frame[11] = 1), Err(FrameError::ReservedNotZero(256)));
        assert_eq!(changed(|frame| frame[14] ^= 1), Err(FrameError::BadChecksum));
    }

    #[test]
    fn decode_rejects_a_length_over_the_limit_before_its_payload() {
        for length in [limits::FRAME_BYTES as u32 + 1, u32::MAX] {
            // 1. Only the header arrives, one byte at a time.
            let mut decoder = FrameDecoder::new();
            let mut stream = stream_of(&[(FrameKind::Peer, 0, b"abc".to_vec())]);
            LittleEndian::write_u32(&mut stream[PREFACE.len()..][..4], length);
            let (last, before) = stream[..PREFACE.len() + HEADER_BYTES].split_last().unwrap();
            for byte in before {
                assert_eq!(decoder.decode(&mut &[*byte][..]), Ok(None));
            }
            // 2. Its last byte brings the verdict, nothing was reserved, and the verdict stays.
            assert_eq!(decoder.decode(&mut &[*last][..]), Err(FrameError::TooLarge(length)));
            assert!(decoder.partial.capacity() < 64);
            assert_eq!(decoder.decode(&mut &[][..]), Err(FrameError::TooLarge(length)));
        }
    }

    #[test]
    fn decode_reserves_nothing_for_a_declared_length() {
        let mut decoder = FrameDecoder::new();
        let mut stream = stream_of(&[(FrameKind::Peer, 0, b"abc".to_vec())]);
        LittleEndian::write_u32(&mut stream[PREFACE.len()..][..4], limits::FRAME_BYTES as u32);
        assert_eq!(decoder.decode(&mut &stream[..]), Ok(None));
        assert!(decoder.partial.capacity() < 64);
        assert_eq!(decoder.pending_bytes(), HEADER_BYTES + 3);
    }

    #[test]
    fn decode_gives_a_large_buffer_back() {
        let payload = vec![7; 4 * limits::FRAME_BUFFER_KEPT_BYTES];
        let stream = stream_of(&[(FrameKind::Peer, 0, payload)]);
        let mut decoder = FrameDecoder::new();
        for piece in stream.chunks(1000) {
            let _ = decoder.decode(&mut &*piece).unwrap();
        }
        assert_eq!(decoder.decode(&mut &[][..]), Ok(None));
        assert_eq!(decoder.partial.capacity(), 0);
    }

    #[test]
    fn decode_tells_a_wrong_preface_at_its_first_wrong_byte() {
        let mut decoder = FrameDecoder::new();
        assert_eq!(decoder.decode(&mut &b"\0R"[..]), Ok(None));
        assert_eq!(decoder.decode(&mut &b"x"[..]), Err(FrameError::BadPreface));
        let newer = FrameDecoder::new().decode(&mut &b"\0RKV\x02"[..]).map(|_| ());
        assert_eq!(newer, Err(FrameError::UnknownVersion(2)));
        let redis = FrameDecoder::new().decode(&mut &b"-ERR unknown\r\n"[..]).map(|_| ());
        assert_eq!(redis, Err(FrameError::BadPreface));
    }

    #[test]
    fn encode_client_reply_parts_what_is_larger_than_a_frame() {
        let tag = ClientTag { session: SessionId(3), sequence: RequestSeq(4) };
        let resp = vec![b'x'; limits::FRAME_BYTES + 1];
        let mut stream = PREFACE.to_vec();
        encode_client_reply(tag, &resp, &mut stream);

        let mut decoder = FrameDecoder::new();
        let mut input = &stream[..];
        let mut joined = Vec::new();
        let mut flags = Vec::new();
        while let Some(frame) = decoder.decode(&mut input).unwrap() {
            let (its_tag, piece) = ClientTag::decode(frame.payload).unwrap();
            assert_eq!((frame.kind, its_tag), (FrameKind::ClientReply, tag));
            joined.extend_from_slice(piece);
            flags.push(frame.flags);
        }
        assert_eq!(flags, [FLAG_MORE, 0]);
        assert!(joined == resp);
        assert_eq!(ClientTag::decode(&[0; 15]), Err(FrameError::Truncated));
    }

    proptest! {
        #[test]
        fn decode_in_pieces_gives_what_was_encoded(
            frames in prop::collection::vec(
                (
                    prop::sample::select(&KINDS[..]),
                    any::<u8>(),
                    prop::collection::vec(any::<u8>(), 1..300),
                ),
                0..6,
            ),
            piece_bytes in 1_usize..400,
        ) {
            let stream = stream_of(&frames);
            let mut decoder = FrameDecoder::new();
            let mut decoded = Vec::new();
            for mut piece in stream.chunks(piece_bytes) {
                while let Some(frame) = decoder.decode(&mut piece).unwrap() {
                    decoded.push((frame.kind, frame.flags, frame.payload.to_vec()));
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert_eq!(decoded, frames);
            prop_assert_eq!(decoder.pending_bytes(), 0);
        }
    }
}
