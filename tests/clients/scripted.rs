//! A server for tests of the client and of rkv-cli: framed or plain, it answers each request as a
//! script says, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use raftkv::proto::frame::{
    ClientTag, FLAG_IN_SESSION, FrameDecoder, FrameKind, PREFACE, SessionMark, encode_client_reply,
    encode_frame,
};
use raftkv::proto::hello::{Hello, Role};
use raftkv::proto::reply_decoder::{ReplyDecoder, Value};

/// Where requests go, and the tokens of sessions that are opened.
type Asked = (Sender<String>, Sender<String>);

/// What a scripted server does with a request.
pub enum Act {
    Reply(Vec<u8>),
    /// Closes the connection without a reply.
    Close,
    /// Never answers.
    Silence,
}

/// A server that answers each request, framed or plain, as `script` says of its words. What it
/// was asked comes out of the channel, in order.
pub struct Server {
    pub endpoint: String,
    asked: Receiver<String>,
    tokens: Receiver<String>,
}

impl Server {
    /// One that knows no sessions.
    pub fn start(script: impl Fn(&str) -> Act + Send + Clone + 'static) -> Server {
        Server::listen(move |line| match line {
            "SESSION OPEN" => None,
            line => Some(script(line)),
        })
    }

    /// One that is asked for sessions too. Of a command of a session the script sees the numbers
    /// first: `session/number/awaited SET a 1`.
    pub fn start_with_sessions(script: impl Fn(&str) -> Act + Send + Clone + 'static) -> Server {
        Server::listen(move |line| Some(script(line)))
    }

    /// What the script doesn't know is an unknown command, and nobody asked for it.
    fn listen(script: impl Fn(&str) -> Option<Act> + Send + Clone + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (sender, asked) = channel();
        let (token_sender, tokens) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let script = script.clone();
                let sender = (sender.clone(), token_sender.clone());
                thread::spawn(move || serve(stream.unwrap(), &script, &sender));
            }
        });
        Server { endpoint, asked, tokens }
    }

    /// Under which tokens sessions were opened; the requests themselves are shown without.
    #[allow(dead_code)] // Not every test that has a scripted server looks at them.
    pub fn tokens(&self) -> Vec<String> {
        self.tokens.try_iter().collect()
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

fn serve(mut stream: TcpStream, script: &impl Fn(&str) -> Option<Act>, asked: &Asked) {
    let mut buffer = vec![0; 1 << 16];
    let mut first = [0];
    if stream.peek(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let framed = first == [0];
    let mut frames = FrameDecoder::new();
    let mut commands = ReplyDecoder::new();
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer) else {
            return;
        };
        let mut input = &buffer[..count];
        if !framed {
            while let Some(command) = commands.decode(&mut input).unwrap() {
                match run("", &command, script, asked) {
                    Act::Reply(resp) => stream.write_all(&resp).unwrap(),
                    Act::Close => return,
                    Act::Silence => {}
                }
            }
            continue;
        }
        while let Some(frame) = frames.decode(&mut input).unwrap() {
            let mut out = Vec::new();
            if frame.kind == FrameKind::Hello {
                assert_eq!(Hello::decode(frame.payload).unwrap().role, Role::Client);
                out.extend_from_slice(&PREFACE);
                encode_frame(FrameKind::Hello, 0, &mut out, |out| Hello::client().encode(out));
                stream.write_all(&out).unwrap();
                continue;
            }
            assert_eq!(frame.kind, FrameKind::ClientRequest);
            let (tag, mut resp) = ClientTag::decode(frame.payload).unwrap();
            let mut numbers = String::new();
            if frame.flags == FLAG_IN_SESSION {
                let (mark, rest) = SessionMark::decode(frame.payload).unwrap();
                numbers = format!("{}/{}/{} ", mark.session.0, mark.number.0, mark.awaited.0);
                resp = rest;
            }
            let command = commands.decode(&mut resp).unwrap().unwrap();
            match run(&numbers, &command, script, asked) {
                Act::Reply(resp) => encode_client_reply(tag, &resp, &mut out),
                Act::Close => return,
                Act::Silence => {}
            }
            stream.write_all(&out).unwrap();
        }
    }
}

fn run(
    numbers: &str,
    command: &Value,
    script: &impl Fn(&str) -> Option<Act>,
    asked: &Asked,
) -> Act {
    let Value::Array(words) = command else { panic!("not a command: {command:?}") };
    let words: Vec<_> = words
        .iter()
        .map(|word| match word {
            Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("not a bulk: {other:?}"),
        })
        .collect();
    let mut line = numbers.to_owned() + &words.join(" ");
    if let Some(token) = line.strip_prefix("SESSION OPEN ") {
        let _ = asked.1.send(token.to_owned());
        line = "SESSION OPEN".to_owned();
    }
    match script(&line) {
        None => Act::Reply(b"-ERR unknown command 'SESSION'\r\n".to_vec()),
        Some(act) => {
            let _ = asked.0.send(line);
            act
        }
    }
}
