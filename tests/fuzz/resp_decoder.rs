//! The request decoder against bytes from outside: Redis's errors to the letter, the fuzz corpus,
//! and the same result however the input is cut (design 5-faults, "Bad input").

use proptest::prelude::*;
use raftkv::limits;
use raftkv::proto::args::Args;
use raftkv::proto::reply::Protocol;
use raftkv::proto::resp::{Decoded, RequestDecoder};

#[path = "../../fuzz/checks/resp_decoder.rs"]
mod check;

/// What a client would see of `input`: each command's words, each error's line.
fn story(input: &[u8]) -> Vec<String> {
    let mut decoder = RequestDecoder::new();
    let mut told = Vec::new();
    let mut at = 0;
    loop {
        let mut out = Vec::new();
        let (consumed, decoded) = decoder.decode(&input[at..], &mut out);
        at += consumed;
        let error = match decoded {
            Decoded::Incomplete => return told,
            Decoded::Command { count } => {
                let args = Args::checked(count, &out).unwrap();
                let words: Vec<_> =
                    args.iter().map(|word| word.escape_ascii().to_string()).collect();
                told.push(words.join(" "));
                continue;
            }
            Decoded::Refused(refusal) => Some(refusal.reply()),
            Decoded::Closed(error) => error.reply(),
        };
        let mut line = Vec::new();
        if let Some(reply) = error {
            reply.encode(Protocol::Resp2, &mut line);
        }
        told.push(String::from_utf8(line).unwrap());
        if matches!(decoded, Decoded::Closed(_)) {
            told.push("closed".into());
            return told;
        }
    }
}

#[test]
fn decode_alternates_between_resp_and_inline() {
    let input = b"PING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\nSET a \"x y\"\n*1\r\n$4\r\nQUIT\r\n";
    assert_eq!(story(input), ["PING", "GET a", "SET a x y", "QUIT"]);
    check::resp_decoder(input);
}

#[test]
fn decode_ignores_empty_lines_and_empty_arrays() {
    let input = b"\r\n\n  \r\n*0\r\n*-1\r\n*-7\r\nPING\n";
    assert_eq!(story(input), ["PING"]);
    check::resp_decoder(input);
}

#[test]
fn decode_keeps_binary_arguments() {
    let input = b"*3\r\n$3\r\nSET\r\n$4\r\n\r\n\0\xff\r\n$0\r\n\r\n";
    assert_eq!(story(input), ["SET \\r\\n\\x00\\xff "]);
    check::resp_decoder(input);
}

#[test]
fn decode_closes_with_the_errors_of_redis() {
    for (input, error) in [
        (&b"*2147483648\r\n"[..], "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*a\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\n$4\r\nPING\r\n", "invalid multibulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$04\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (b"*1\r\n$4\nPING\r\n", "invalid bulk length"),
        (b"*1\r\n$8388609\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n:4\r\n", "expected '$', got ':'"),
        (b"*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*2\r\n$3\r\nGET\r\n\r\n", "expected '$', got ' '"),
        (b"*1\r\n\xff\r\n", "expected '$', got '\\xff'"),
        (b"*1\r\n$4\r\nPINGxx", "expected CRLF after bulk"),
        (b"*1\r\n$4\r\nPING\rx", "expected CRLF after bulk"),
        (b"SET a \"b\r\n", "unbalanced quotes in request"),
        (b"SET a 'b\r\n", "unbalanced quotes in request"),
        (b"SET a \"b\"c\r\n", "unbalanced quotes in request"),
        (b"SET a\0b\r\n", "zero byte in inline request"),
    ] {
        let expected = [format!("-ERR Protocol error: {error}\r\n"), "closed".into()];
        assert_eq!(story(input), expected, "{}", input.escape_ascii());
        check::resp_decoder(input);
    }
}

#[test]
fn decode_closes_on_lines_without_an_end() {
    for (start, error) in [
        (&b"a"[..], "too big inline request"),
        (b"*1", "too big mbulk count string"),
        (b"*1\r\n$1", "too big bulk count string"),
    ] {
        let input = [start, &b"1".repeat(limits::INLINE_BYTES)].concat();
        let expected = [format!("-ERR Protocol error: {error}\r\n"), "closed".into()];
        assert_eq!(story(&input), expected);
        check::resp_decoder(&input);
    }
    let longest = [&b"a".repeat(limits::INLINE_BYTES)[..], b"\n"].concat();
    assert_eq!(story(&longest).len(), 1);
    check::resp_decoder(&longest);
}

#[test]
fn decode_closes_without_a_reply_on_http_and_tls() {
    for input in [
        &b"GET / HTTP/1.1\r\nPING\r\n"[..],
        b"POST / HTTP/1.1\r\nPING\r\n",
        b"Host: localhost\r\nPING\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"\0RKV",
        b"\xff\xfe",
    ] {
        assert_eq!(story(input), ["", "closed"], "{}", input.escape_ascii());
        check::resp_decoder(input);
    }
    assert_eq!(story(b"GET HTTP/1.1\r\n"), ["GET HTTP/1.1"]);
}

#[test]
fn decode_drops_everything_behind_an_error() {
    let mut decoder = RequestDecoder::new();
    let mut out = Vec::new();
    let (_, decoded) = decoder.decode(b"*x\r\n", &mut out);
    assert!(matches!(decoded, Decoded::Closed(_)));
    assert_eq!(decoder.decode(b"PING\r\n", &mut out), (6, Decoded::Incomplete));
    assert!(out.is_empty() && decoder.held_bytes() == 0);
}

#[test]
fn decode_skips_a_command_over_its_limit_and_keeps_the_connection() {
    let value = vec![b'v'; limits::VALUE_BYTES];
    let mut input = b"*3\r\n".to_vec();
    for _ in 0..3 {
        input.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
        input.extend_from_slice(&value);
        input.extend_from_slice(b"\r\n");
    }
    input.extend_from_slice(b"PING\r\n");
    let refused = format!("-ERR command is larger than {} bytes\r\n", limits::COMMAND_BYTES);
    assert_eq!(story(&input), [refused, "PING".into()]);

    // In pieces, as a socket gives it: nothing is kept of it once it is too large.
    let mut decoder = RequestDecoder::new();
    let mut out = Vec::new();
    let mut seen = Vec::new();
    for (number, piece) in input.chunks(limits::READ_BUDGET_BYTES).enumerate() {
        let mut at = 0;
        loop {
            let (consumed, decoded) = decoder.decode(&piece[at..], &mut out);
            at += consumed;
            if decoded == Decoded::Incomplete {
                break;
            }
            seen.push(decoded);
        }
        assert!(decoder.held_bytes() <= limits::COMMAND_BYTES);
        if number * limits::READ_BUDGET_BYTES > 2 * limits::VALUE_BYTES {
            assert_eq!(decoder.held_bytes(), 0);
        }
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn decode_reserves_nothing_for_what_is_declared() {
    let mut decoder = RequestDecoder::new();
    let mut out = Vec::new();
    let (_, decoded) = decoder.decode(b"*1048576\r\n$8388608\r\nabc", &mut out);
    assert_eq!(decoded, Decoded::Incomplete);
    assert_eq!(decoder.held_bytes(), 4 + 3);
    assert!(out.capacity() < 64);
}

#[test]
fn corpus_is_replayed() {
    crate::corpus::replay("resp_decoder", &Vec::new(), 20, check::resp_decoder);
}

/// Pieces of which streams are made that come near to being right.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..5).prop_map(encode),
        2 => "[ -~]{0,20}\r?\n".prop_map(String::into_bytes),
        1 => "[*$][0-9+-]{0,3}\r?\n?".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

fn encode(words: Vec<Vec<u8>>) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(&word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

proptest! {
    #[test]
    fn decode_does_not_depend_on_the_cuts(stream in prop::collection::vec(fragment(), 0..8)) {
        check::resp_decoder(&stream.concat());
    }

    #[test]
    fn decode_returns_what_was_encoded(
        commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..5),
            0..6,
        ),
    ) {
        let stream: Vec<u8> = commands.iter().cloned().flat_map(encode).collect();
        let expected: Vec<String> = commands
            .iter()
            .map(|words| {
                let words: Vec<_> = words.iter().map(|w| w.escape_ascii().to_string()).collect();
                words.join(" ")
            })
            .collect();
        prop_assert_eq!(story(&stream), expected);
    }
}
