//! Every command's replies, byte for byte: `redis_replies.txt` holds what a real Redis 7 answers,
//! `own_replies.txt` what we answer where Redis has no such command.
//!
//! With `RAFTKV_REDIS=host:port` the first file is written anew from the server there, which is
//! emptied. A change is committed only when it is understood.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;

use raftkv::kv::command::{self, ConnectionCommand, Handler, ReadContext, WriteContext};
use raftkv::kv::error::CommandError;
use raftkv::kv::introspection;
use raftkv::kv::luck::Luck;
use raftkv::kv::store::Store;
use raftkv::proto::args::Args;
use raftkv::proto::reply::{Protocol, Reply};
use raftkv::proto::resp::{Decoded, RequestDecoder};
use raftkv::types::ClusterTime;

/// The cluster's time in all sections: the autumn of 2023, so that EXAT 1 is long past.
const NOW: ClusterTime = ClusterTime(1_700_000_000_000);

/// One line of a section and its reply, escaped.
struct Row {
    line: String,
    reply: String,
}

struct Section {
    title: String,
    rows: Vec<Row>,
}

fn read_golden(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            sections.push(Section { title: title.into(), rows: Vec::new() });
            continue;
        }
        let rows = &mut sections.last_mut().expect("a section comes first").rows;
        match line.strip_prefix("> ") {
            Some(line) => rows.push(Row { line: line.into(), reply: String::new() }),
            None => rows.last_mut().expect("a command comes first").reply = line.into(),
        }
    }
    sections
}

fn escape(bytes: &[u8]) -> String {
    // Quotes need no escape in this file; everything else is as Rust writes it.
    bytes.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

fn protocol_of(title: &str) -> Protocol {
    if title.starts_with("RESP3") { Protocol::Resp3 } else { Protocol::Resp2 }
}

/// What the state machine answers to a line.
fn answer(store: &mut Store, line: &str) -> Reply {
    let mut encoded = Vec::new();
    let line = format!("{line}\r\n");
    let (_, decoded) = RequestDecoder::new().decode(line.as_bytes(), &mut encoded);
    let Decoded::Command { count } = decoded else { panic!("{line:?} is {decoded:?}") };
    let args = Args::checked(count, &encoded).unwrap();
    execute(store, args).unwrap_or_else(|error| error.reply())
}

fn execute(store: &mut Store, args: Args<'_>) -> Result<Reply, CommandError> {
    let command = command::resolve(args)?;
    match command.handler {
        Handler::Write { apply, .. } => apply(&mut WriteContext { store }, args),
        Handler::Read { run, .. } => {
            run(&ReadContext { store, now: NOW, luck: &Luck::new(1) }, args)
        }
        Handler::Connection { command: ConnectionCommand::CommandInfo, .. } => {
            Ok(introspection::info(args))
        }
        Handler::Connection { command: ConnectionCommand::CommandGetKeys, .. } => {
            introspection::get_keys(args)
        }
        handler => panic!("{handler:?} is for the node to answer"),
    }
}

/// The sections whose replies are not what the file says, told line by line.
fn differences(sections: &[Section]) -> String {
    let mut told = String::new();
    for section in sections {
        let mut store = Store::new();
        store.advance_clock(NOW);
        for row in &section.rows {
            let mut bytes = Vec::new();
            answer(&mut store, &row.line).encode(protocol_of(&section.title), &mut bytes);
            if escape(&bytes) != row.reply {
                let Row { line, reply } = row;
                let title = &section.title;
                let found = escape(&bytes);
                writeln!(told, "{title}: {line}\n expected {reply}\n    found {found}").unwrap();
            }
        }
    }
    told
}

#[test]
fn replies_are_those_of_redis() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/redis_replies.txt");
    let golden = std::fs::read_to_string(path).unwrap();
    let mut sections = read_golden(&golden);
    if let Ok(address) = std::env::var("RAFTKV_REDIS") {
        ask_redis(&address, &mut sections);
        let head: Vec<&str> = golden.lines().take_while(|line| line.starts_with('#')).collect();
        std::fs::write(path, written(&head.join("\n"), &sections)).unwrap();
    }
    let lines: usize = sections.iter().map(|section| section.rows.len()).sum();
    assert!(lines > 300, "the golden file has shrunk to {lines} lines");
    let told = differences(&sections);
    assert!(told.is_empty(), "{told}");
}

#[test]
fn replies_of_our_own_are_as_written() {
    let told = differences(&read_golden(include_str!("own_replies.txt")));
    assert!(told.is_empty(), "{told}");
}

fn written(head: &str, sections: &[Section]) -> String {
    let mut text = format!("{head}\n");
    for section in sections {
        writeln!(text, "\n== {}", section.title).unwrap();
        for Row { line, reply } in &section.rows {
            writeln!(text, "> {line}\n{reply}").unwrap();
        }
    }
    text
}

/// Runs every section against a real server and keeps what it answers.
fn ask_redis(address: &str, sections: &mut [Section]) {
    for section in sections {
        let mut server = BufReader::new(TcpStream::connect(address).unwrap());
        let version = if protocol_of(&section.title) == Protocol::Resp3 { 3 } else { 2 };
        for line in [format!("HELLO {version}"), "FLUSHALL".into()] {
            ask(&mut server, &line);
        }
        for row in &mut section.rows {
            row.reply = escape(&ask(&mut server, &row.line));
        }
    }
}

fn ask(server: &mut BufReader<TcpStream>, line: &str) -> Vec<u8> {
    server.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let mut reply = Vec::new();
    read_reply(server, &mut reply);
    reply
}

fn read_reply(server: &mut BufReader<TcpStream>, reply: &mut Vec<u8>) {
    let start = reply.len();
    server.read_until(b'\n', reply).unwrap();
    let marker = reply[start];
    let digits = std::str::from_utf8(&reply[start + 1..]).unwrap().trim_end();
    let count = digits.parse::<i64>().ok().and_then(|count| usize::try_from(count).ok());
    match (marker, count) {
        (b'$' | b'=', Some(length)) => {
            let begin = reply.len();
            reply.resize(begin + length + 2, 0);
            server.read_exact(&mut reply[begin..]).unwrap();
        }
        (b'*' | b'~', Some(count)) => (0..count).for_each(|_| read_reply(server, reply)),
        (b'%', Some(count)) => (0..count * 2).for_each(|_| read_reply(server, reply)),
        _ => {}
    }
}
