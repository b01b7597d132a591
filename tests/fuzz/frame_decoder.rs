//! Replays the committed corpus of the fuzz target `frame_decoder`. With `UPDATE_CORPUS=1` it
//! writes the seeds anew first; inputs that the fuzzer found are left alone.

use raftkv::proto::frame::{
    ClientTag, FLAG_MORE, FrameKind, PREFACE, encode_client_reply, encode_frame,
};
use raftkv::proto::hello::{Hello, HelloRefused, Refusal, Role};
use raftkv::types::{
    Boot, CommandSet, Incarnation, Lineage, LogIndex, Nonce, RequestSeq, ServerId, SessionId,
};

#[path = "../../fuzz/checks/frame_decoder.rs"]
mod checks;

#[test]
fn frame_decoder_corpus_holds() {
    crate::corpus::replay("frame_decoder", &seeds(), 0, checks::check);
}

/// One byte that says how to cut, the preface, and what `frames` appends.
fn seed(cut: u8, frames: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![cut];
    out.extend_from_slice(&PREFACE);
    frames(&mut out);
    out
}

fn seeds() -> crate::corpus::Seeds {
    let tag = ClientTag { session: SessionId::ZERO, sequence: RequestSeq(1) };
    let peer = Hello {
        role: Role::Peer,
        cluster: "main".to_owned(),
        sender: ServerId(1),
        receiver: ServerId(2),
        sender_incarnation: Incarnation(0x1234_5678_9abc_def0),
        receiver_incarnation: Incarnation::ZERO,
        boot: Boot(3),
        nonce: Nonce(u64::MAX),
        membership_index: LogIndex(7),
        lineage: Lineage(9),
        is_blank: true,
        command_set: CommandSet(3),
    };
    let hello = |out: &mut Vec<u8>| {
        encode_frame(FrameKind::Hello, 0, out, |out| Hello::client().encode(out));
    };
    let request = |out: &mut Vec<u8>| {
        encode_frame(FrameKind::ClientRequest, 0, out, |out| {
            tag.encode(out);
            out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
        });
    };
    let mut bad_checksum = seed(7, request);
    *bad_checksum.last_mut().unwrap() ^= 1;
    let mut too_large = seed(1, request);
    too_large[6..10].fill(0xff);
    let mut no_payload = seed(1, request);
    no_payload[6..10].fill(0);
    let mut reserved = seed(1, request);
    reserved[16] = 1;
    let mut unknown_kind = seed(1, request);
    unknown_kind[14] = 77;
    let mut truncated = seed(3, request);
    truncated.truncate(20);
    vec![
        ("hello-client", seed(1, hello)),
        (
            "hello-peer",
            seed(5, |out| encode_frame(FrameKind::Hello, 0, out, |out| peer.encode(out))),
        ),
        (
            "hello-refused",
            seed(13, |out| {
                let text = "this is server 2, not 3".to_owned();
                let refused = HelloRefused { code: Refusal::Receiver, text };
                encode_frame(FrameKind::HelloRefused, 0, out, |out| refused.encode(out));
            }),
        ),
        (
            "client-conversation",
            seed(17, |out| {
                hello(out);
                request(out);
                encode_client_reply(tag, b"$1\r\n1\r\n", out);
            }),
        ),
        (
            "reply-in-two-frames",
            seed(40, |out| {
                encode_frame(FrameKind::ClientReply, FLAG_MORE, out, |out| {
                    tag.encode(out);
                    out.extend_from_slice(b"$1\r\n");
                });
                encode_client_reply(tag, b"1\r\n", out);
            }),
        ),
        ("peer", seed(64, |out| encode_frame(FrameKind::Peer, 0, out, |out| out.push(1)))),
        ("bad-checksum", bad_checksum),
        ("too-large", too_large),
        ("no-payload", no_payload),
        ("reserved-not-zero", reserved),
        ("unknown-kind", unknown_kind),
        ("truncated", truncated),
        ("newer-version", b"\x01\0RKV\x02".to_vec()),
        ("plain-text", b"\x01PING\r\n".to_vec()),
    ]
}
