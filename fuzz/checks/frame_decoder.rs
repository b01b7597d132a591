//! What must hold of the frame decoder on any bytes: it never panics, and a stream in pieces
//! decodes like the whole. Called by the fuzz target and by the replay of its corpus in
//! `cargo test`.

use raftkv::proto::frame::{
    ClientTag, FrameDecoder, FrameError, FrameKind, HEADER_BYTES, PREFACE, encode_frame,
};
use raftkv::proto::hello::{Hello, HelloRefused};

type Decoded = (Vec<(FrameKind, u8, Vec<u8>)>, Option<FrameError>);

/// The first byte says how the rest is cut into pieces.
pub fn check(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    check_stream(cut, stream);
    // A fuzzer cannot guess checksums: mend them, so that it gets behind them.
    check_stream(cut, &with_mended_checksums(stream));
}

fn check_stream(cut: u8, stream: &[u8]) {
    let whole = decode([stream]);
    let piece_bytes = usize::from(cut).max(1);
    assert_eq!(decode(stream.chunks(piece_bytes)), whole);
    assert_eq!(decode(stream.chunks(1)), whole);

    let mut encoded = PREFACE.to_vec();
    for (kind, flags, payload) in &whole.0 {
        encode_frame(*kind, *flags, &mut encoded, |out| out.extend_from_slice(payload));
        check_payload(*kind, payload);
    }
    assert!(whole.0.is_empty() || stream.starts_with(&encoded), "decoding undoes encoding");
}

fn check_payload(kind: FrameKind, payload: &[u8]) {
    let mut encoded = Vec::new();
    match kind {
        FrameKind::Hello => {
            let Ok(hello) = Hello::decode(payload) else {
                return;
            };
            hello.encode(&mut encoded);
            assert_eq!(encoded, payload);
        }
        FrameKind::HelloRefused => {
            let Ok(refused) = HelloRefused::decode(payload) else {
                return;
            };
            refused.encode(&mut encoded);
            // A code from the future is decoded as the unknown one.
            assert_eq!(encoded[1..], payload[1..]);
        }
        FrameKind::ClientRequest | FrameKind::ClientReply => {
            let Ok((tag, resp)) = ClientTag::decode(payload) else {
                return;
            };
            tag.encode(&mut encoded);
            encoded.extend_from_slice(resp);
            assert_eq!(encoded, payload);
        }
        // Its own target is `peer_message`.
        FrameKind::Peer => {}
    }
}

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for mut piece in pieces {
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(frame)) => frames.push((frame.kind, frame.flags, frame.payload.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(piece.is_empty(), "`None` means that all was taken");
    }
    (frames, None)
}

fn with_mended_checksums(stream: &[u8]) -> Vec<u8> {
    let mut mended = stream.to_vec();
    let mut rest = mended.get_mut(PREFACE.len()..).unwrap_or_default();
    while rest.len() >= HEADER_BYTES {
        let length = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let Some((frame, behind)) = rest.split_at_mut_checked(HEADER_BYTES + length) else {
            break;
        };
        let mut right = Vec::new();
        // An unknown kind keeps its code; the checksum is only wrong where nobody looks at it.
        if let (Some(kind), 1..) = (FrameKind::from_code(frame[8]), length) {
            if length <= raftkv::limits::FRAME_BYTES {
                encode_frame(kind, frame[9], &mut right, |out| {
                    out.extend_from_slice(&frame[HEADER_BYTES..]);
                });
                frame[4..8].copy_from_slice(&right[4..8]);
            }
        }
        rest = behind;
    }
    mended
}
