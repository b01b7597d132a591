//! What must hold of the decoder of log records on any bytes: it never panics, decodes in pieces
//! what it decodes as a whole, and what it accepts is encoded to the same bytes again. Called by
//! the fuzz target and by the replay of its corpus in `cargo test`.

use raftkv::limits;
use raftkv::proto::record::{ALIGN, HEADER_BYTES, check_chunks};

/// A segment's number and salt, and the size of the pieces.
const PREFIX_BYTES: usize = 17;

/// The first 17 bytes are the prefix, the rest is what the segment holds.
pub fn check(data: &[u8]) {
    check_chunks(data);
    // A fuzzer guesses neither checksums nor a segment's number: mend them, so that it gets behind
    // them.
    check_chunks(&mended(data));
}

fn mended(data: &[u8]) -> Vec<u8> {
    let mut mended = data.to_vec();
    let Some((prefix, mut rest)) = mended.split_at_mut_checked(PREFIX_BYTES) else {
        return mended;
    };
    let (number, salt) = (&prefix[..8], &prefix[8..16]);
    while let Some(header) = rest.first_chunk_mut::<HEADER_BYTES>() {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let is_blank = header.iter().all(|byte| *byte == 0);
        if is_blank || length > limits::RECORD_BYTES {
            break;
        }
        header[16..24].copy_from_slice(number);
        let total = (HEADER_BYTES + length).next_multiple_of(ALIGN);
        let Some((record, behind)) = rest.split_at_mut_checked(total) else { break };
        let mut hasher = crc32fast::Hasher::new();
        for part in [salt, &record[..4], &record[8..]] {
            hasher.update(part);
        }
        record[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
        rest = behind;
    }
    mended
}
