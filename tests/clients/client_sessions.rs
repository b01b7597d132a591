//! The client's sessions against scripted servers: what it sends again under its number, when it
//! begins another session, and what it still calls in doubt.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raftkv::client::{Client, ClientError, Doubt, Options};
use raftkv::kv::in_session::SESSION_OVER;
use raftkv::proto::reply_decoder::Value;

use crate::scripted::{Act, Server};

fn client_of(endpoints: &[&Server]) -> Client {
    let mut options = Options::new(endpoints.iter().map(|it| it.endpoint.clone()).collect());
    options.retry_timeout = Duration::from_millis(700);
    options.reply_timeout = Duration::from_millis(200);
    Client::new(options)
}

fn reply(text: &str) -> Act {
    Act::Reply(format!("{text}\r\n").into_bytes())
}

/// Every session is number 5, and every other command is answered with `text`.
fn answers(text: &'static str) -> impl Fn(&str) -> Act + Send + Clone + 'static {
    move |line| reply(if line == "SESSION OPEN" { ":5" } else { text })
}

/// Answers these lines one after the other, whoever asks; an empty one closes the connection.
fn in_turn(lines: &'static [&'static str]) -> impl Fn(&str) -> Act + Send + Clone + 'static {
    let place = Arc::new(AtomicUsize::new(0));
    move |_| match lines.get(place.fetch_add(1, Ordering::SeqCst)) {
        Some(&"") => Act::Close,
        Some(line) => reply(line),
        None => panic!("the script is at its end"),
    }
}

fn number(value: Result<Value, ClientError>) -> i64 {
    match value {
        Ok(Value::Integer(number)) => number,
        other => panic!("{other:?}"),
    }
}

#[test]
fn write_whose_reply_is_lost_is_sent_again_under_its_number() {
    for lost in [|_: &str| Act::Close, |_: &str| Act::Silence] {
        // 1. The first node takes the write and says nothing more; the second answers.
        let first = Server::start_with_sessions(move |line| match line {
            "SESSION OPEN" => reply(":5"),
            line => lost(line),
        });
        let second = Server::start_with_sessions(answers(":1"));
        let mut client = client_of(&[&first, &second]);
        assert_eq!(number(client.command(&["INCR", "a"])), 1);
        assert_eq!(first.asked(), ["SESSION OPEN", "5/1/1 INCR a"]);
        assert_eq!(second.asked(), ["5/1/1 INCR a"]);
        // 2. The session goes on there; a read has no number.
        assert_eq!(number(client.command(&["GET", "a"])), 1);
        assert_eq!(number(client.command(&["INCR", "a"])), 1);
        assert_eq!(second.asked(), ["GET a", "5/2/2 INCR a"]);
        // 3. At its end the client ends it.
        drop(client);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(second.asked(), ["SESSION CLOSE 5"]);
    }
}

#[test]
fn write_that_the_server_is_in_doubt_about_is_asked_for_again() {
    let lines = &[":5", "-INDOUBT no majority", "-CLUSTERDOWN no leader", "-OOM no", ":9"];
    let server = Server::start_with_sessions(in_turn(lines));
    let mut client = client_of(&[&server]);
    assert_eq!(number(client.command(&["INCR", "a"])), 9);
    let asked = server.asked();
    assert_eq!(asked[1..], ["5/1/1 INCR a"; 4]);
}

#[test]
fn write_without_an_answer_to_the_end_is_in_doubt_and_its_number_is_never_used_again() {
    let deaf = Arc::new(Mutex::new(true));
    let is_deaf = deaf.clone();
    let server = Server::start_with_sessions(move |line| match line {
        "SESSION OPEN" => reply(":5"),
        _ if *is_deaf.lock().unwrap() => Act::Close,
        _ => reply(":1"),
    });
    let mut client = client_of(&[&server]);
    let error = client.command(&["INCR", "a"]).unwrap_err();
    assert!(matches!(error, ClientError::InDoubt(Doubt::Link { .. })), "{error:?}");
    assert!(server.asked().len() > 2, "it was asked again");
    *deaf.lock().unwrap() = false;
    assert_eq!(number(client.command(&["INCR", "a"])), 1);
    assert_eq!(server.asked(), ["SESSION OPEN", "5/1/1 INCR a"]);
}

#[test]
fn session_that_is_over_is_followed_by_another() {
    // 1. Sent once, a command was surely not done by a session that is over.
    let over: &'static str = Box::leak(format!("-{SESSION_OVER}").into_boxed_str());
    let lines: &[_] = Box::leak(Box::new([":5", ":1", over, ":6", ":2"]));
    let server = Server::start_with_sessions(in_turn(lines));
    let mut client = client_of(&[&server]);
    assert_eq!(number(client.command(&["INCR", "a"])), 1);
    assert_eq!(number(client.command(&["INCR", "a"])), 2);
    let expected = ["SESSION OPEN", "5/1/1 INCR a", "5/2/2 INCR a", "SESSION OPEN", "6/1/1 INCR a"];
    assert_eq!(server.asked(), expected);
    // 2. Sent before, it may have been.
    let lines: &[_] = Box::leak(Box::new([":5", "", over]));
    let server = Server::start_with_sessions(in_turn(lines));
    let error = client_of(&[&server]).command(&["INCR", "a"]).unwrap_err();
    assert!(matches!(error, ClientError::InDoubt(_)), "{error:?}");
    assert_eq!(server.asked()[1..], ["5/1/1 INCR a"; 2]);
}

#[test]
fn number_of_a_refused_write_is_used_again_and_that_of_a_lost_one_is_not() {
    // 1. A node refuses a write before it is counted; and once a version of it did that knows less.
    let refused = "-OOM command not allowed";
    let lines: &[_] =
        Box::leak(Box::new([":5", refused, ":1", "-ERR no", "-SESSIONGAP 2 is the next", ":2"]));
    let server = Server::start_with_sessions(in_turn(lines));
    let mut client = client_of(&[&server]);
    assert!(matches!(client.command(&["INCR", "a"]), Err(ClientError::Reply(_))));
    assert_eq!(number(client.command(&["INCR", "a"])), 1);
    assert!(matches!(client.command(&["INCR", "a"]), Err(ClientError::Reply(_))));
    assert_eq!(number(client.command(&["INCR", "a"])), 2);
    let numbers = ["5/1/1 INCR a", "5/1/1 INCR a", "5/2/2 INCR a", "5/3/3 INCR a", "5/2/2 INCR a"];
    assert_eq!(server.asked()[1..], numbers);
    // 2. A copy of the number may be on its way: the session is left behind.
    let lines: &[_] = Box::leak(Box::new([":5", "", "-SESSIONGAP 1 is the next", ":6", ":3"]));
    let server = Server::start_with_sessions(in_turn(lines));
    assert_eq!(number(client_of(&[&server]).command(&["INCR", "a"])), 3);
    let expected = ["SESSION OPEN", "5/1/1 INCR a", "5/1/1 INCR a", "SESSION OPEN", "6/1/1 INCR a"];
    assert_eq!(server.asked()[..5], expected);
}

#[test]
fn pipeline_sends_again_what_has_no_reply_in_order() {
    // 1. The first node answers the first three, and is gone.
    let count = Arc::new(AtomicUsize::new(0));
    let first = Server::start_with_sessions(move |line| match line {
        "SESSION OPEN" => reply(":5"),
        _ if count.fetch_add(1, Ordering::SeqCst) < 3 => reply(":1"),
        _ => Act::Close,
    });
    let second = Server::start_with_sessions(answers(":2"));
    let mut client = client_of(&[&first, &second]);
    let commands: Vec<Vec<String>> = ["INCR a", "INCR b", "GET b", "INCR c", "GET c", "INCR d"]
        .iter()
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect();
    let results: Vec<i64> = client.pipeline(&commands).into_iter().map(number).collect();
    assert_eq!(results, [1, 1, 1, 2, 2, 2]);
    // 2. The first one opened the session alone; the others went ahead of their replies.
    let sent = ["SESSION OPEN", "5/1/1 INCR a", "5/2/2 INCR b", "GET b", "5/3/2 INCR c"];
    assert_eq!(first.asked()[..5], sent);
    assert_eq!(second.asked(), ["5/3/2 INCR c", "GET c", "5/4/2 INCR d"]);
}

#[test]
fn pipeline_behind_a_refused_write_is_surely_not_done_and_the_next_finds_the_number() {
    let gap = "-SESSIONGAP 2 is the next";
    let lines: &[_] = Box::leak(Box::new([":5", ":1", "-OOM no", gap, gap, gap, ":7", ":8"]));
    let server = Server::start_with_sessions(in_turn(lines));
    let mut client = client_of(&[&server]);
    let commands = vec![vec!["INCR", "a"]; 4];
    let results = client.pipeline(&commands);
    assert!(matches!(results[1], Err(ClientError::Reply(_))));
    assert!(results[2..].iter().all(|result| matches!(result, Err(ClientError::NotSent))));
    let results: Vec<i64> = client.pipeline(&commands[..2]).into_iter().map(number).collect();
    assert_eq!(results, [7, 8]);
    let last = ["5/5/5 INCR a", "5/2/2 INCR a", "5/3/3 INCR a"];
    assert_eq!(server.asked()[5..], last);
}

#[test]
fn session_whose_opening_is_not_answered_is_opened_again_under_its_token() {
    let first = Server::start_with_sessions(|_| Act::Close);
    let second = Server::start_with_sessions(answers(":1"));
    let mut client = client_of(&[&first, &second]);
    assert_eq!(number(client.command(&["INCR", "a"])), 1);
    let (before, after) = (first.tokens(), second.tokens());
    assert_eq!(before, after);
    assert_eq!(before[0].len(), 16);
    // Another client has another token.
    client_of(&[&second]).command(&["INCR", "a"]).unwrap();
    assert_ne!(second.tokens(), after);
}

#[test]
fn commands_of_a_transaction_have_no_numbers() {
    let server = Server::start_with_sessions(answers("+OK"));
    let mut client = client_of(&[&server]);
    for line in ["MULTI", "SET a 1", "EXEC"] {
        let words: Vec<&str> = line.split(' ').collect();
        client.command(&words).unwrap();
    }
    client.command(&["SET", "a", "2"]).unwrap();
    assert_eq!(server.asked(), ["MULTI", "SET a 1", "EXEC", "SESSION OPEN", "5/1/1 SET a 2"]);
}

#[test]
fn transaction_whose_reply_is_lost_is_sent_again_as_a_whole_under_one_number() {
    // 1. The first node takes all of it and says nothing of the EXEC.
    let part = |line: &str| match line {
        "SESSION OPEN" => ":5",
        "MULTI" => "+OK",
        "SET a 1" | "INCR b" => "+QUEUED",
        _ => "*2\r\n+OK\r\n:1",
    };
    let first = Server::start_with_sessions(move |line| match line.ends_with("EXEC") {
        true => Act::Close,
        false => reply(part(line)),
    });
    let second = Server::start_with_sessions(move |line| reply(part(line)));
    let mut client = client_of(&[&first, &second]);
    let commands = vec![vec!["SET", "a", "1"], vec!["INCR", "b"]];
    let done = Value::Array(vec![Value::Simple("OK".to_owned()), Value::Integer(1)]);
    assert_eq!(client.transaction(&commands).unwrap(), done);
    let sent = ["MULTI", "SET a 1", "INCR b", "5/1/1 EXEC"];
    assert_eq!(first.asked(), [&["SESSION OPEN"], &sent[..]].concat());
    assert_eq!(second.asked(), sent);
    assert_eq!(client.retries(), 1);
    // 2. One that only reads has no number, and is asked for again all the same.
    let third =
        Server::start_with_sessions(|line| reply(if line == "EXEC" { "*0" } else { "+OK" }));
    let mut client = client_of(&[&first, &third]);
    client.transaction(&[vec!["GET", "a"]]).unwrap();
    assert_eq!(third.asked(), ["MULTI", "GET a", "EXEC"]);
}

#[test]
fn transaction_that_is_refused_says_why_and_the_next_finds_the_number() {
    let (gap, aborted) = ("-SESSIONGAP 1 is the next", "-EXECABORT previous errors");
    let first = [":5", "+OK", "-ERR unknown command 'NOPE'", aborted];
    let again = ["+OK", "+QUEUED", gap, "+OK", "+QUEUED", "*1\r\n:1"];
    let lines: &[_] = Box::leak([&first[..], &again].concat().into_boxed_slice());
    let server = Server::start_with_sessions(in_turn(lines));
    let mut client = client_of(&[&server]);
    let wrong = client.transaction(&[vec!["INCR", "a"]]);
    let error = wrong.unwrap_err();
    assert!(
        matches!(&error, ClientError::Reply(reply) if reply.text.contains("NOPE")),
        "{error:?}"
    );
    assert_eq!(
        client.transaction(&[vec!["INCR", "a"]]).unwrap(),
        Value::Array(vec![Value::Integer(1)])
    );
    let asked = server.asked();
    assert_eq!([&asked[3], &asked[6], &asked[9]], ["5/1/1 EXEC", "5/2/2 EXEC", "5/1/1 EXEC"]);
    // What depends on one connection isn't begun.
    let server = Server::start_with_sessions(answers("+OK"));
    let mut client = client_of(&[&server]);
    for line in ["WATCH a", "MULTI"] {
        client.command(&line.split(' ').collect::<Vec<_>>()).unwrap();
        let refused = client.transaction(&[vec!["INCR", "a"]]);
        assert!(matches!(refused, Err(ClientError::Reply(_))), "{refused:?}");
    }
    client.command(&["DISCARD"]).unwrap();
    assert!(client.transaction(&[vec!["INCR", "a"]]).is_ok());
}
