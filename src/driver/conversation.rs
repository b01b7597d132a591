//! What one client connection says and is told: bytes in, commands out; replies in, bytes out.
//!
//! Design page 4, §3: the first byte tells frames from text. Commands go straight into the turn's
//! [`Requests`], replies straight into the connection's output. Called by `loop/client.rs` and
//! `sim/link.rs`; never touches the socket.

use std::collections::VecDeque;

use crate::limits;
use crate::node::Requests;
use crate::proto::frame::{
    ClientTag, FLAG_IN_SESSION, Frame, FrameDecoder, FrameKind, PREFACE, PREFACE_BYTE, SessionMark,
    encode_client_reply, encode_frame,
};
use crate::proto::hello::{Hello, HelloRefused, Refusal, Role};
use crate::proto::reply::{Protocol, Reply};
use crate::proto::resp::{Decoded, RequestDecoder};
use crate::types::{ClientId, RequestSeq, ServerId, SessionId};

/// What the connection's further fate is after some bytes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// More may follow.
    Open,
    /// The stream makes no sense from here on. The core was told and answers it in its turn.
    Ended,
    /// The frames make no sense. The core knows nothing of it; what is in the output is written,
    /// and the connection is closed.
    Violated,
}

/// The codec's state of one client connection.
#[derive(Default, Debug)]
pub(crate) struct Conversation {
    wire: Wire,
    commands: RequestDecoder,
    /// Commands that the core was given and has not answered.
    awaited: u32,
}

/// How the connection's bytes are to be read.
#[derive(Default, Debug)]
enum Wire {
    /// Nothing has come yet.
    #[default]
    Fresh,
    /// Redis's protocol, or lines.
    Text,
    /// Frames. Boxed: most connections are of the other kind and should stay small.
    Framed(Box<Framed>),
}

#[derive(Default, Debug)]
struct Framed {
    frames: FrameDecoder,
    greeted: bool,
    /// Of the requests that were not answered, the oldest first.
    tags: VecDeque<ClientTag>,
}

/// Whom the commands of one connection go to, and in whose name.
pub(crate) struct Inbox<'a> {
    /// The connection.
    pub(crate) client: ClientId,
    /// This turn's commands.
    pub(crate) requests: &'a mut Requests,
    /// What this server says of itself to a framed client.
    pub(crate) host: &'a Hello,
}

impl Conversation {
    /// Takes the connection's next bytes. An answer to a hello is appended to `output`.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        inbox: &mut Inbox<'_>,
        output: &mut Vec<u8>,
    ) -> Flow {
        let Some(&first) = bytes.first() else {
            return Flow::Open;
        };
        if let Wire::Fresh = self.wire {
            self.wire = match first {
                PREFACE_BYTE => Wire::Framed(Box::default()),
                _ => Wire::Text,
            };
        }
        match &mut self.wire {
            Wire::Framed(framed) => {
                framed.receive(bytes, &mut self.commands, &mut self.awaited, inbox, output)
            }
            Wire::Text | Wire::Fresh => self.receive_text(bytes, inbox),
        }
    }

    /// Appends the reply to the oldest unanswered command. `scratch` is any buffer.
    pub(crate) fn answer(
        &mut self,
        protocol: Protocol,
        reply: &Reply,
        output: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) {
        assert!(self.awaited > 0, "the core answers each command once");
        self.awaited -= 1;
        let Wire::Framed(framed) = &mut self.wire else {
            reply.encode(protocol, output);
            return;
        };
        let tag = framed.tags.pop_front().expect("each framed request left its tag");
        scratch.clear();
        reply.encode(protocol, scratch);
        encode_client_reply(tag, scratch, output);
        scratch.clear();
        scratch.shrink_to(limits::SPARE_BUFFER_BYTES);
    }

    /// Appends whole messages that no command asked for. In a frame their number is 0, which no
    /// request has.
    pub(crate) fn push(&mut self, messages: &[u8], output: &mut Vec<u8>) {
        match &self.wire {
            Wire::Framed(_) => {
                let tag = ClientTag { session: SessionId::ZERO, sequence: RequestSeq::ZERO };
                encode_client_reply(tag, messages, output);
            }
            _ => output.extend_from_slice(messages),
        }
    }

    /// Commands that the core was given and has not answered.
    pub(crate) fn awaited(&self) -> u32 {
        self.awaited
    }

    /// Whether the connection is still to say who it is.
    pub(crate) fn awaits_hello(&self) -> bool {
        matches!(&self.wire, Wire::Framed(framed) if !framed.greeted)
    }

    fn receive_text(&mut self, mut bytes: &[u8], inbox: &mut Inbox<'_>) -> Flow {
        loop {
            let (consumed, decoded) = self.commands.decode(bytes, inbox.requests.arena());
            bytes = &bytes[consumed..];
            let error = match decoded {
                // The decoder keeps the beginning of a command, and all bytes are used up.
                Decoded::Incomplete => return Flow::Open,
                Decoded::Command { count } => {
                    inbox.requests.push_command(inbox.client, count);
                    self.awaited += 1;
                    continue;
                }
                Decoded::Refused(refusal) => {
                    inbox.requests.push_refused(inbox.client, error_text(&refusal.reply()));
                    self.awaited += 1;
                    continue;
                }
                Decoded::Closed(error) => error.reply(),
            };
            let text = error.as_ref().map_or("", error_text);
            inbox.requests.push_malformed(inbox.client, text);
            self.awaited += u32::from(!text.is_empty());
            return Flow::Ended;
        }
    }
}

/// The line of an error reply, as the core is given it.
fn error_text(reply: &Reply) -> &str {
    let Reply::Error(text) = reply else { unreachable!("decoders refuse with errors") };
    text
}

impl Framed {
    fn receive(
        &mut self,
        mut bytes: &[u8],
        commands: &mut RequestDecoder,
        awaited: &mut u32,
        inbox: &mut Inbox<'_>,
        output: &mut Vec<u8>,
    ) -> Flow {
        loop {
            let frame = match self.frames.decode(&mut bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Flow::Open,
                Err(_) => return Flow::Violated,
            };
            if !self.greeted {
                if !greet(&frame, inbox.host, output) {
                    return Flow::Violated;
                }
                self.greeted = true;
                continue;
            }
            let Some((tag, mark, command)) = parse_request(&frame) else {
                return Flow::Violated;
            };
            self.tags.push_back(tag);
            *awaited += 1;
            if !take_one_command(command, mark, commands, inbox) {
                return Flow::Ended;
            }
        }
    }
}

/// A request's tag, what it is in its session if it is of one, and its command.
fn parse_request<'a>(frame: &Frame<'a>) -> Option<(ClientTag, Option<SessionMark>, &'a [u8])> {
    match (frame.kind, frame.flags) {
        (FrameKind::ClientRequest, 0) => {
            let (tag, command) = ClientTag::decode(frame.payload).ok()?;
            Some((tag, None, command))
        }
        (FrameKind::ClientRequest, FLAG_IN_SESSION) => {
            let (mark, command) = SessionMark::decode(frame.payload).ok()?;
            Some((mark.tag(), Some(mark), command))
        }
        _ => None,
    }
}

/// A frame holds exactly one command. If it does not, the core is told to refuse and close, and
/// the answer is no: which reply would belong to which request could not be told any more.
fn take_one_command(
    bytes: &[u8],
    mark: Option<SessionMark>,
    commands: &mut RequestDecoder,
    inbox: &mut Inbox<'_>,
) -> bool {
    let start = inbox.requests.bytes();
    let (consumed, decoded) = commands.decode(bytes, inbox.requests.arena());
    let whole = consumed == bytes.len();
    match decoded {
        Decoded::Command { count } if whole => {
            match mark {
                Some(mark) => inbox.requests.push_in_session(inbox.client, mark, count),
                None => inbox.requests.push_command(inbox.client, count),
            }
            return true;
        }
        Decoded::Refused(refusal) if whole => {
            inbox.requests.push_refused(inbox.client, error_text(&refusal.reply()));
            return true;
        }
        _ => {}
    }
    // Whatever of it was decoded is taken back.
    inbox.requests.arena().truncate(start);
    let error = "ERR Protocol error: a frame holds exactly one command";
    inbox.requests.push_malformed(inbox.client, error);
    false
}

/// Judges a client's first frame and answers it.
fn greet(frame: &Frame<'_>, host: &Hello, output: &mut Vec<u8>) -> bool {
    output.extend_from_slice(&PREFACE);
    match judge(frame, host) {
        Ok(()) => {
            encode_frame(FrameKind::Hello, 0, output, |out| host.encode(out));
            true
        }
        Err((code, text)) => {
            let refused = HelloRefused { code, text: text.to_owned() };
            encode_frame(FrameKind::HelloRefused, 0, output, |out| refused.encode(out));
            false
        }
    }
}

fn judge(frame: &Frame<'_>, host: &Hello) -> Result<(), (Refusal, &'static str)> {
    if frame.kind != FrameKind::Hello {
        return Err((Refusal::Malformed, "the first frame is a hello"));
    }
    let Ok(hello) = Hello::decode(frame.payload) else {
        return Err((Refusal::Malformed, "the hello cannot be read; is its version another one?"));
    };
    if hello.role != Role::Client {
        return Err((Refusal::Role, "this is the client port; peers have one of their own"));
    }
    if !hello.cluster.is_empty() && hello.cluster != host.cluster {
        return Err((Refusal::Cluster, "this server belongs to another cluster"));
    }
    if hello.receiver != ServerId::ZERO && hello.receiver != host.sender {
        return Err((Refusal::Receiver, "this is another server"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Request;
    use crate::types::{RequestSeq, SessionId};

    const CLIENT: ClientId = ClientId { slot: 3, generation: 9 };
    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

    fn host() -> Hello {
        Hello { cluster: "main".to_owned(), sender: ServerId(1), ..Hello::client() }
    }

    /// Feeds `bytes` as one read; what came out is the flow, the requests and the output.
    fn feed(conversation: &mut Conversation, bytes: &[u8]) -> (Flow, Requests, Vec<u8>) {
        let (mut requests, mut output, host) = (Requests::default(), Vec::new(), host());
        let mut inbox = Inbox { client: CLIENT, requests: &mut requests, host: &host };
        let flow = conversation.receive(bytes, &mut inbox, &mut output);
        (flow, requests, output)
    }

    fn tag(sequence: u64) -> ClientTag {
        ClientTag { session: SessionId(7), sequence: RequestSeq(sequence) }
    }

    fn request(sequence: u64, command: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_frame(FrameKind::ClientRequest, 0, &mut bytes, |out| {
            tag(sequence).encode(out);
            out.extend_from_slice(command);
        });
        bytes
    }

    fn hello(hello: &Hello) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        encode_frame(FrameKind::Hello, 0, &mut bytes, |out| hello.encode(out));
        bytes
    }

    fn framed() -> Conversation {
        let mut conversation = Conversation::default();
        let (flow, requests, output) = feed(&mut conversation, &hello(&Hello::client()));
        assert_eq!((flow, requests.len()), (Flow::Open, 0));
        assert!(output.starts_with(&PREFACE), "the server greets in its turn");
        conversation
    }

    #[test]
    fn text_commands_come_out_however_the_bytes_are_cut() {
        let bytes = [PING, b"GET key\r\n", PING].concat();
        let mut conversation = Conversation::default();
        let mut commands = Vec::new();
        for byte in bytes {
            let (flow, requests, _) = feed(&mut conversation, &[byte]);
            assert_eq!(flow, Flow::Open);
            for position in 0..requests.len() {
                let (client, request) = requests.get(position).unwrap();
                let Request::Command(args) = request else { panic!("{request:?}") };
                assert_eq!(client, CLIENT);
                commands.push(args.iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
            }
        }
        assert_eq!(commands, [vec![&b"PING"[..]], vec![b"GET", b"key"], vec![b"PING"]]);
        assert_eq!(conversation.awaited(), 3);
    }

    #[test]
    fn text_ends_at_nonsense_and_owes_the_replies_before_it() {
        let mut conversation = Conversation::default();
        let (flow, requests, _) = feed(&mut conversation, b"PING\r\n*1\r\n:4\r\nPING\r\n");
        assert_eq!(flow, Flow::Ended);
        assert_eq!(requests.len(), 2, "nothing behind the nonsense is run");
        assert!(matches!(requests.get(1), Some((_, Request::Malformed(text)))
            if text == "ERR Protocol error: expected '$', got ':'"));
        assert_eq!(conversation.awaited(), 2);
    }

    #[test]
    fn framed_replies_bear_their_requests_tags_in_order() {
        let mut conversation = framed();
        let bytes = [request(1, PING), request(5, b"GET key\r\n")].concat();
        let (flow, requests, _) = feed(&mut conversation, &bytes);
        assert_eq!((flow, requests.len()), (Flow::Open, 2));

        let (mut output, mut scratch) = (Vec::new(), Vec::new());
        let pong = Reply::Simple("PONG");
        conversation.answer(Protocol::Resp2, &pong, &mut output, &mut scratch);
        conversation.answer(Protocol::Resp2, &Reply::Integer(4), &mut output, &mut scratch);
        assert_eq!(conversation.awaited(), 0);

        let mut expected = Vec::new();
        encode_client_reply(tag(1), b"+PONG\r\n", &mut expected);
        encode_client_reply(tag(5), b":4\r\n", &mut expected);
        assert_eq!(output, expected);
    }

    #[test]
    fn framed_command_of_a_session_bears_its_mark_and_its_reply_the_tag() {
        let mark =
            SessionMark { session: SessionId(7), number: RequestSeq(3), awaited: RequestSeq(2) };
        let framed_as = |flags: u8, mark: SessionMark| {
            let mut bytes = Vec::new();
            encode_frame(FrameKind::ClientRequest, flags, &mut bytes, |out| {
                mark.encode(out);
                out.extend_from_slice(PING);
            });
            bytes
        };
        let mut conversation = framed();
        let (flow, requests, _) = feed(&mut conversation, &framed_as(FLAG_IN_SESSION, mark));
        assert_eq!(flow, Flow::Open);
        assert!(matches!(requests.get(0), Some((_, Request::InSession(it, _))) if it == mark));
        let (mut output, mut scratch, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        conversation.answer(Protocol::Resp2, &Reply::Integer(4), &mut output, &mut scratch);
        encode_client_reply(mark.tag(), b":4\r\n", &mut expected);
        assert_eq!(output, expected);
        // A flag that nobody knows, and a mark that names nothing.
        let nameless = SessionMark { session: SessionId::ZERO, ..mark };
        let numberless = SessionMark { number: RequestSeq::ZERO, ..mark };
        for bytes in [
            framed_as(FLAG_IN_SESSION << 1, mark),
            framed_as(FLAG_IN_SESSION, nameless),
            framed_as(FLAG_IN_SESSION, numberless),
        ] {
            let (flow, requests, _) = feed(&mut framed(), &bytes);
            assert_eq!((flow, requests.len()), (Flow::Violated, 0));
        }
    }

    #[test]
    fn framed_payload_that_is_not_one_command_is_refused_and_ends() {
        for payload in [[PING, PING].concat(), b"*1\r\n$4\r\nPI".to_vec(), b"*1\r\n:".to_vec()] {
            let mut conversation = framed();
            let bytes = [request(1, &payload), request(2, PING)].concat();
            let (flow, requests, _) = feed(&mut conversation, &bytes);
            assert_eq!(flow, Flow::Ended);
            assert_eq!(requests.len(), 1, "nothing of it and nothing behind it is run");
            assert!(matches!(requests.get(0), Some((_, Request::Malformed(_)))));
            assert_eq!(conversation.awaited(), 1);
        }
    }

    #[test]
    fn framed_violations_reach_no_core() {
        let other = Hello { cluster: "other".to_owned(), ..Hello::client() };
        let stranger = Hello { receiver: ServerId(2), ..Hello::client() };
        let peer = Hello { role: Role::Peer, ..Hello::client() };
        for bytes in [hello(&other), hello(&stranger), hello(&peer)] {
            let (flow, requests, output) = feed(&mut Conversation::default(), &bytes);
            assert_eq!((flow, requests.len()), (Flow::Violated, 0));
            assert!(output.len() > PREFACE.len(), "it is said why");
        }
        let unannounced = [PREFACE.to_vec(), request(1, PING)].concat();
        let (flow, requests, _) = feed(&mut Conversation::default(), &unannounced);
        assert_eq!((flow, requests.len()), (Flow::Violated, 0));

        let mut bad = request(1, PING);
        *bad.last_mut().unwrap() ^= 1;
        let (flow, requests, _) = feed(&mut framed(), &bad);
        assert_eq!((flow, requests.len()), (Flow::Violated, 0));
    }
}
