//! What must hold of the decoder of peers' messages on any bytes: it never panics, what it accepts
//! is encoded to the same bytes again, and a message in frames and in pieces is the same message.
//! The batches and memberships that messages carry are held to it too. Called by the fuzz target
//! and by the replay of its corpus in `cargo test`.

use bytes::Bytes;

use raftkv::limits;
use raftkv::proto::batch::{Batch, BatchBuilder, Standing};
use raftkv::proto::entry::EntryKind;
use raftkv::proto::frame::{FrameDecoder, FrameKind, PREFACE, encode_frame};
use raftkv::proto::message::{Message, Packet};
use raftkv::proto::peer_message::{self, PeerError};
use raftkv::raft::membership::Membership;

/// The first byte says how the framed message is cut into pieces; the rest is its payload.
pub fn check(data: &[u8]) {
    let Some((&cut, payload)) = data.split_first() else {
        return;
    };
    if payload.len() > limits::FRAME_BYTES {
        return;
    }
    let whole = peer_message::decode(&Bytes::copy_from_slice(payload));
    if let Ok(packet) = &whole {
        let mut encoded = Vec::new();
        peer_message::encode(packet, &mut encoded);
        assert!(encoded == payload, "encoding undoes decoding");
        check_contents(packet);
    }
    if !payload.is_empty() {
        let mut stream = PREFACE.to_vec();
        encode_frame(FrameKind::Peer, 0, &mut stream, |out| out.extend_from_slice(payload));
        for piece_bytes in [usize::from(cut).max(1), stream.len()] {
            assert_eq!(decode_framed(stream.chunks(piece_bytes)), whole, "{piece_bytes} at a time");
        }
    }
}

fn check_contents(packet: &Packet) {
    match &packet.message {
        Message::Forward { batch } => check_batch(batch),
        Message::AppendEntries(request) => {
            for entry in &request.entries {
                match entry.kind {
                    EntryKind::Batch => check_batch(&entry.payload),
                    EntryKind::Membership => check_membership(&entry.payload),
                    EntryKind::Empty | EntryKind::CommandSet => {}
                }
            }
        }
        _ => {}
    }
}

fn check_batch(payload: &[u8]) {
    let Some(batch) = Batch::decode(payload) else {
        return;
    };
    let mut builder = BatchBuilder::default();
    for command in batch.commands() {
        // What it counts is what it gives: nothing behind a decoded batch looks twice.
        assert_eq!(command.args.iter().count(), command.args.len());
        builder.push(command.code, &command.args);
    }
    assert_eq!(builder.len(), batch.len());
    let rebuilt = builder.finish(batch.id);
    let again = Batch::decode(&rebuilt).expect("a built batch is one");
    assert_eq!((again.id, again.standing), (batch.id, Standing::Whole));
    assert!(again.commands().eq(batch.commands()));
    assert_eq!(rebuilt.len(), payload.len());

    let emptied = batch.emptied(Standing::GivenUp);
    let emptied = Batch::decode(&emptied).expect("an emptied batch is one");
    assert_eq!((emptied.id, emptied.standing), (batch.id, Standing::GivenUp));
    assert!(emptied.is_empty());
}

fn check_membership(payload: &[u8]) {
    if let Some(membership) = Membership::decode(payload) {
        assert!(membership.encode() == payload, "encoding undoes decoding");
        // Whoever they are, a majority of them can be asked for.
        membership.is_quorum(|id| id.0 % 2 == 0);
    }
}

fn decode_framed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Packet, PeerError> {
    let mut decoder = FrameDecoder::new();
    let mut decoded = None;
    for mut piece in pieces {
        while let Some(frame) = decoder.decode(&mut piece).expect("it was framed just now") {
            assert!(decoded.is_none(), "one frame went in");
            decoded = Some(peer_message::decode(&Bytes::copy_from_slice(frame.payload)));
        }
    }
    decoded.expect("the whole frame went in")
}
