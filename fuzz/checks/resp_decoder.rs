//! What must hold of the request decoder for any bytes: no panic, bounded memory, well-formed
//! arguments, and the same result however the input is cut. Called by the fuzz target and by
//! `tests/fuzz/resp_decoder.rs`, which replays the corpus.

use raftkv::limits;
use raftkv::proto::args::Args;
use raftkv::proto::resp::{Decoded, RequestDecoder};

/// Decodes `data` whole, in single bytes and in pieces of many sizes, and compares.
pub fn resp_decoder(data: &[u8]) {
    let whole = decode(data, |left| left);
    assert_eq!(decode(data, |_| 1), whole, "single bytes");
    // A small generator, so that a failing input fails again: cuts depend on the data alone.
    let mut state =
        data.iter().fold(1_u64, |state, byte| state * 31 % 1_000_003 + u64::from(*byte));
    let in_pieces = decode(data, |left| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        left.min(1 + (state >> 33) as usize % 61)
    });
    assert_eq!(in_pieces, whole, "in pieces");
}

/// Everything that the decoder finds, `piece` giving the size of the next piece of what is left.
fn decode(data: &[u8], mut piece: impl FnMut(usize) -> usize) -> Vec<(Decoded, Vec<u8>)> {
    let mut decoder = RequestDecoder::new();
    let mut found = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let (mut input, behind) = rest.split_at(piece(rest.len()));
        rest = behind;
        loop {
            // Something of another client stands in `out` already, and has to stay as it is.
            let mut out = b"before".to_vec();
            let (consumed, decoded) = decoder.decode(input, &mut out);
            assert!(out.starts_with(b"before"));
            let args = &out[6..];
            input = &input[consumed..];
            match &decoded {
                Decoded::Command { count } => {
                    let args = Args::checked(*count, args).expect("well-formed arguments");
                    assert!((1..=limits::ARGS).contains(&args.len()));
                }
                Decoded::Incomplete | Decoded::Refused(_) | Decoded::Closed(_) => {
                    assert!(args.is_empty(), "only a command has arguments");
                }
            }
            match decoded {
                Decoded::Incomplete => {
                    assert!(input.is_empty(), "an incomplete command consumes its input");
                    // Each argument of n bytes came in n + 5 at least, and is kept in n + 4.
                    assert!(decoder.held_bytes() <= data.len() - rest.len());
                    break;
                }
                Decoded::Closed(_) => {
                    found.push((decoded, Vec::new()));
                    return found;
                }
                Decoded::Command { .. } | Decoded::Refused(_) => {
                    found.push((decoded, args.to_vec()));
                }
            }
        }
    }
    found
}
