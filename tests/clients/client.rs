//! The client against scripted servers: what it repeats, what it calls in doubt, and that it never
//! sends a write twice.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use raftkv::client::{Client, ClientError, Connection, Doubt, LinkError, Options, Wire};
use raftkv::limits;
use raftkv::proto::frame::{FrameKind, PREFACE, encode_frame};
use raftkv::proto::hello::{HelloRefused, Refusal};
use raftkv::proto::reply_decoder::Value;

use crate::scripted::{Act, Server};

fn ok(_: &str) -> Act {
    Act::Reply(b"+OK\r\n".to_vec())
}

fn closed_endpoint() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn client_of(endpoints: &[&str]) -> Client {
    let mut options = Options::new(endpoints.iter().map(|&it| it.to_owned()).collect());
    options.retry_timeout = Duration::from_millis(700);
    options.reply_timeout = Duration::from_millis(300);
    Client::new(options)
}

fn simple(text: &str) -> Value {
    Value::Simple(text.to_owned())
}

#[test]
fn command_goes_to_the_first_endpoint_that_answers() {
    let server = Server::start(ok);
    let mut client = client_of(&[&closed_endpoint(), &server.endpoint]);
    assert_eq!(client.command(&["SET", "a", "1"]).unwrap(), simple("OK"));
    assert_eq!(client.endpoint(), server.endpoint);
    assert_eq!(server.asked(), ["SET a 1"]);
}

#[test]
fn command_without_any_node_is_unreachable_and_says_why() {
    let (first, second) = (closed_endpoint(), closed_endpoint());
    let error = client_of(&[&first, &second]).command(&["SET", "a", "1"]).unwrap_err();
    assert!(error.is_surely_not_done());
    let ClientError::Unreachable { attempts } = error else { panic!("{error:?}") };
    assert_eq!(attempts.len(), 2);
    assert!(attempts.iter().all(|(_, error)| matches!(error, LinkError::Connect(_))));
}

#[test]
fn command_that_writes_is_in_doubt_when_its_reply_is_lost() {
    for lost in [|_: &str| Act::Close, |_: &str| Act::Silence] {
        // 1. The first node takes the write and says nothing more.
        let (first, second) = (Server::start(lost), Server::start(ok));
        let mut client = client_of(&[&first.endpoint, &second.endpoint]);
        let error = client.command(&["INCR", "a"]).unwrap_err();
        let ClientError::InDoubt(Doubt::Link { endpoint, .. }) = error else { panic!("{error:?}") };
        assert_eq!(endpoint, first.endpoint);
        // 2. Nobody was asked a second time; the next command finds the second node.
        assert_eq!((first.asked().len(), second.asked().len()), (1, 0));
        assert_eq!(client.command(&["INCR", "b"]).unwrap(), simple("OK"));
        assert_eq!(second.asked(), ["INCR b"]);
    }
}

#[test]
fn command_that_reads_is_repeated_on_the_next_node() {
    let (first, second) = (Server::start(|_| Act::Close), Server::start(ok));
    let mut client = client_of(&[&first.endpoint, &second.endpoint]);
    assert_eq!(client.command(&["GET", "a"]).unwrap(), simple("OK"));
    assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
}

#[test]
fn command_surely_not_done_is_repeated_even_if_it_writes() {
    for refusal in ["-CLUSTERDOWN no leader\r\n", "-LOADING wait\r\n"] {
        let first = Server::start(move |_| Act::Reply(refusal.as_bytes().to_vec()));
        let second = Server::start(ok);
        let mut client = client_of(&[&first.endpoint, &second.endpoint]);
        assert_eq!(client.command(&["INCR", "a"]).unwrap(), simple("OK"));
        assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
    }
}

#[test]
fn command_refused_for_good_returns_the_refusal_at_once() {
    let server = Server::start(|_| Act::Reply(b"-ERR syntax error\r\n".to_vec()));
    let error = client_of(&[&server.endpoint]).command(&["SET", "a"]).unwrap_err();
    let ClientError::Reply(reply) = error else { panic!("{error:?}") };
    assert_eq!((reply.code(), reply.text.as_str()), ("ERR", "ERR syntax error"));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn command_refused_by_all_for_now_gives_up_with_the_refusal() {
    let down = |_: &str| Act::Reply(b"-CLUSTERDOWN no leader\r\n".to_vec());
    let server = Server::start(down);
    let error = client_of(&[&server.endpoint]).command(&["SET", "a", "1"]).unwrap_err();
    assert!(matches!(&error, ClientError::Reply(reply) if reply.code() == "CLUSTERDOWN"));
    assert!(server.asked().len() > 2);
}

#[test]
fn command_answered_indoubt_is_in_doubt_and_not_repeated() {
    let server = Server::start(|_| Act::Reply(b"-INDOUBT may have been done\r\n".to_vec()));
    let error = client_of(&[&server.endpoint]).command(&["SET", "a", "1"]).unwrap_err();
    assert!(!error.is_surely_not_done());
    assert_eq!(error.to_string(), "INDOUBT may have been done");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn command_on_a_connection_closed_while_idle_is_no_doubt() {
    // 1. The server closes after each reply, as one that is restarted does.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 100]).unwrap();
            stream.write_all(b":1\r\n").unwrap();
        }
    });
    // 2. The client sees the end of the first connection before it sends on it.
    let mut options = Options::new(vec![endpoint]);
    options.wire = Wire::Text;
    let mut client = Client::new(options);
    assert_eq!(client.command(&["INCR", "a"]).unwrap(), Value::Integer(1));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(client.command(&["INCR", "a"]).unwrap(), Value::Integer(1));
    server.join().unwrap();
}

#[test]
fn command_too_large_is_not_sent() {
    let server = Server::start(ok);
    let value = vec![b'x'; limits::COMMAND_BYTES];
    let args = [&b"SET"[..], b"a", &value];
    let error = client_of(&[&server.endpoint]).command(&args).unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { bytes } if bytes > limits::COMMAND_BYTES));
    assert!(server.asked().is_empty());
}

#[test]
fn command_reads_a_reply_larger_than_a_frame() {
    let value = vec![b'x'; limits::FRAME_BYTES + 1000];
    let mut resp = format!("${}\r\n", value.len()).into_bytes();
    resp.extend_from_slice(&value);
    resp.extend_from_slice(b"\r\n");
    let server = Server::start(move |_| Act::Reply(resp.clone()));
    let mut options = Options::new(vec![server.endpoint]);
    options.reply_timeout = Duration::from_secs(30);
    assert!(Client::new(options).command(&["GET", "a"]).unwrap() == Value::Bulk(value));
}

#[test]
fn pipeline_keeps_order_and_goes_on_beyond_its_window() {
    let echo = |line: &str| Act::Reply(format!("+{}\r\n", &line[5..9]).into_bytes());
    let server = Server::start(echo);
    let padding = "x".repeat(1000);
    let commands: Vec<Vec<String>> = (1000..1300)
        .map(|number| vec!["ECHO".to_owned(), number.to_string(), padding.clone()])
        .collect();
    let results = client_of(&[&server.endpoint]).pipeline(&commands);
    let expected: Vec<_> = (1000..1300).map(|number| simple(&number.to_string())).collect();
    assert_eq!(results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected);
}

#[test]
fn pipeline_that_breaks_parts_done_doubtful_and_not_sent() {
    // 1. The node closes at the third command of a window; a second node is there for reads.
    let first = Server::start(|line| if line == "SET c 1" { Act::Close } else { ok(line) });
    let second = Server::start(ok);
    let large = "x".repeat(limits::CLIENT_PIPELINE_BYTES);
    let commands = [
        vec!["SET", "a", "1"],
        vec!["GET", "a"],
        vec!["SET", "c", "1"],
        vec!["GET", "c"],
        vec!["SET", "d", &large],
    ];
    let results = client_of(&[&first.endpoint, &second.endpoint]).pipeline(&commands);
    // 2. Two are done, one is a maybe, the read behind it is done elsewhere, the rest never left.
    assert_eq!(*results[0].as_ref().unwrap(), simple("OK"));
    assert_eq!(*results[1].as_ref().unwrap(), simple("OK"));
    assert!(matches!(results[2], Err(ClientError::InDoubt(_))));
    assert_eq!(*results[3].as_ref().unwrap(), simple("OK"));
    assert!(matches!(results[4], Err(ClientError::NotSent)));
    assert_eq!(second.asked(), ["GET c"]);
}

#[test]
fn discover_adds_the_other_members() {
    let second = Server::start(ok);
    let nodes = format!(
        "id=1 role=leader peer=127.0.0.1:1 client=127.0.0.1:2 match=7\n\
         id=2 role=follower peer=127.0.0.1:3 client={} match=7\n",
        second.endpoint
    );
    let reply = format!("${}\r\n{nodes}\r\n", nodes.len()).into_bytes();
    let first = Server::start(move |line| match line {
        "RAFT NODES" => Act::Reply(reply.clone()),
        _ => Act::Close,
    });
    let mut client = client_of(&[&first.endpoint]);
    assert_eq!(client.discover().unwrap(), 2);
    assert_eq!(client.endpoints(), [&first.endpoint[..], "127.0.0.1:2", &second.endpoint]);
    assert_eq!(client.command(&["GET", "a"]).unwrap(), simple("OK"));
    assert_eq!(second.asked(), ["GET a"]);
}

#[test]
fn open_reports_what_the_server_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut out = PREFACE.to_vec();
        let refused = HelloRefused { code: Refusal::Role, text: "the peers' port".to_owned() };
        encode_frame(FrameKind::HelloRefused, 0, &mut out, |out| refused.encode(out));
        stream.write_all(&out).unwrap();
    });
    let error = Connection::open(&endpoint, Wire::Frames, Duration::from_secs(5)).unwrap_err();
    assert_eq!(error.to_string(), "refused: the peers' port");
}

#[test]
fn transaction_takes_no_command_that_would_end_it() {
    let mut client = client_of(&["127.0.0.1:1"]);
    for word in ["MULTI", "exec", "DISCARD", "RESET", "WATCH", "UNWATCH", "QUIT"] {
        let refused = client.transaction(&[vec!["SET", "a", "1"], vec![word, "a"]]);
        let text = format!("ERR {} can't be one of a transaction's", word.to_ascii_uppercase());
        match refused {
            Err(ClientError::Reply(reply)) => assert!(reply.text.starts_with(&text), "{reply:?}"),
            other => panic!("{word}: {other:?}"),
        }
    }
}
