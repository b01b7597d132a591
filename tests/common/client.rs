//! A small client of the text protocol, for tests: one command at a time, pipelines, raw bytes.
//!
//! It knows nothing of the server's own code, so that an error in one is not hidden by the same
//! error in the other. Speaks RESP2.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// How long a reply may take, unless a test says otherwise.
const TIMEOUT: Duration = Duration::from_secs(15);

/// One reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
}

impl Reply {
    pub fn ok() -> Reply {
        Reply::Simple("OK".to_owned())
    }

    pub fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec())
    }

    /// The text of a simple string, a bulk or an error.
    pub fn text(&self) -> String {
        match self {
            Reply::Simple(text) | Reply::Error(text) => text.clone(),
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// The value of an integer, or of a bulk that holds one.
    pub fn number(&self) -> Option<i64> {
        match self {
            Reply::Integer(number) => Some(*number),
            Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        }
    }
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    consumed: usize,
}

impl Client {
    pub fn connect(address: &str) -> io::Result<Client> {
        let address = address.parse().map_err(io::Error::other)?;
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Client { stream, input: Vec::new(), consumed: 0 })
    }

    pub fn set_timeout(&mut self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).unwrap();
    }

    /// Sends one command and waits for its reply.
    pub fn call(&mut self, words: &[&str]) -> io::Result<Reply> {
        self.send(words)?;
        self.receive()
    }

    /// Sends one command and waits for its reply, which must come.
    pub fn must(&mut self, words: &[&str]) -> Reply {
        self.call(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Sends one command.
    pub fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(words, &mut bytes);
        self.send_raw(&bytes)
    }

    /// Sends many commands at once and waits for all replies.
    pub fn pipeline(&mut self, commands: &[Vec<String>]) -> io::Result<Vec<Reply>> {
        let mut bytes = Vec::new();
        for command in commands {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            encode(&words, &mut bytes);
        }
        self.send_raw(&bytes)?;
        commands.iter().map(|_| self.receive()).collect()
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent, as `nc` does at the end of its input.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// All that still comes until the server closes.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = self.input.split_off(self.consumed);
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Waits for the next reply.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let deadline = self.stream.read_timeout()?.map(|timeout| Instant::now() + timeout);
        loop {
            let mut at = self.consumed;
            if let Some(reply) = decode(&self.input, &mut at)? {
                self.consumed = at;
                if self.consumed == self.input.len() {
                    self.input.clear();
                    self.consumed = 0;
                }
                return Ok(reply);
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Err(ErrorKind::TimedOut.into());
            }
            self.input.drain(..self.consumed);
            self.consumed = 0;
            let mut chunk = [0; 64 * 1024];
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&chunk[..count]);
        }
    }
}

/// Appends a command as an array of bulks.
pub fn encode(words: &[&str], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn decode(input: &[u8], at: &mut usize) -> io::Result<Option<Reply>> {
    let Some(line) = take_line(input, at) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(line).into_owned();
    let malformed = || io::Error::new(ErrorKind::InvalidData, format!("no reply: {text:?}"));
    let (kind, rest) = text.split_at_checked(1).ok_or_else(malformed)?;
    let number = || rest.parse::<i64>().map_err(|_| malformed());
    Ok(Some(match kind {
        "+" => Reply::Simple(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Integer(number()?),
        "$" => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let Some(bytes) = input.get(*at..*at + length + 2) else {
                    return Ok(None);
                };
                *at += length + 2;
                assert!(bytes.ends_with(b"\r\n"), "a bulk ends in CRLF");
                Reply::Bulk(bytes[..length].to_vec())
            }
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(count) => {
                let mut items = Vec::new();
                for _ in 0..count {
                    match decode(input, at)? {
                        Some(item) => items.push(item),
                        None => return Ok(None),
                    }
                }
                Reply::Array(items)
            }
        },
        _ => return Err(malformed()),
    }))
}

fn take_line<'a>(input: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = input.get(*at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}
