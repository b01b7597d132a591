//! MONITOR: its row, and how a command that a client sent is shown.
//!
//! Redis 7's line, to the letter: the time, whose command it is, and its words in quotes; what a
//! client proves itself with is never shown. Called by the table, and by `node/monitors.rs`, which
//! keeps who is shown them. Knows no connection.

use std::io::Write as _;
use std::net::SocketAddr;

use super::command::{Command, ConnectionCommand, Flags, Group, Handler, ROW};
use super::connection::ADMIN;
use crate::proto::args::Args;
use crate::types::ClusterTime;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "monitor",
    flags: ADMIN,
    group: Group::Server,
    summary: "Show every command that this node's clients send, as it is taken",
    handler: Handler::Connection { check: |_| Ok(()), command: ConnectionCommand::Monitor },
    ..ROW
}];

/// Whether monitors are shown this command: not those of administrators, which may hold what only
/// they should know.
pub fn is_shown(command: &Command) -> bool {
    !command.flags.contains(Flags::ADMIN)
}

/// What monitors are shown, in RESP: `+1700000000.123000 [0 127.0.0.1:5000] "SET" "a" "1"`.
pub fn line(at: ClusterTime, address: SocketAddr, command: &Command, args: Args<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + args.encoded().len());
    let (seconds, us) = (at.0 / 1000, at.0 % 1000 * 1000);
    write!(out, "+{seconds}.{us:06} [0 {address}]").expect("memory takes all that is written");
    let mut secrets = Secrets::of(command);
    for word in args.iter() {
        out.push(b' ');
        match secrets.is_next(word) {
            true => out.extend_from_slice(b"\"(redacted)\""),
            false => push_quoted(&mut out, word),
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Which words of a command are a name and a password: all of AUTH's, and two behind HELLO's AUTH,
/// also where the command is wrong in another way.
struct Secrets {
    name: &'static str,
    /// How many of the next words are secret.
    hidden: usize,
    /// The next word is a name that SETNAME gives, whatever it is.
    is_name: bool,
}

impl Secrets {
    fn of(command: &Command) -> Secrets {
        Secrets { name: command.name, hidden: 0, is_name: true }
    }

    /// Whether the next word is one. It is called for each, in order; the first one, the command's
    /// name, is none.
    fn is_next(&mut self, word: &[u8]) -> bool {
        let is_first = std::mem::take(&mut self.is_name);
        if self.hidden > 0 {
            self.hidden -= 1;
            return true;
        }
        if is_first && self.name == "auth" {
            self.hidden = usize::MAX;
        } else if !is_first && self.name == "hello" {
            self.hidden = if word.eq_ignore_ascii_case(b"auth") { 2 } else { 0 };
            self.is_name = word.eq_ignore_ascii_case(b"setname");
        }
        false
    }
}

/// A word as Redis quotes it: what is not printable ASCII as an escape of C's.
fn push_quoted(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b'"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => write!(out, "\\x{byte:02x}").expect("memory takes all that is written"),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::command::lookup;
    use crate::proto::args::push_arg;

    fn shown(words: &[&[u8]]) -> String {
        let mut encoded = Vec::new();
        for word in words {
            push_arg(&mut encoded, word);
        }
        let args = Args::new(words.len() as u32, &encoded);
        let command = lookup(words[0]).expect("it is a command");
        let address = SocketAddr::from(([127, 0, 0, 1], 5000));
        let line = line(ClusterTime(1_700_000_000_042), address, command, args);
        String::from_utf8(line).expect("it is ASCII")
    }

    #[test]
    fn line_quotes_as_redis_does() {
        assert_eq!(
            shown(&[b"set", b"a", b"b\x00\"\\\r\n\t\x07\x08 \xff"]),
            "+1700000000.042000 [0 127.0.0.1:5000] \"set\" \"a\" \
             \"b\\x00\\\"\\\\\\r\\n\\t\\a\\b \\xff\"\r\n"
        );
    }

    #[test]
    fn line_shows_no_password() {
        let words = |line: &str| line.split_once("] ").expect("whose it is").1.to_owned();
        let auth = words(&shown(&[b"AUTH", b"ann", b"secret"]));
        assert_eq!(auth, "\"AUTH\" \"(redacted)\" \"(redacted)\"\r\n");
        let hello = words(&shown(&[b"HELLO", b"3", b"auth", b"ann", b"secret", b"SETNAME", b"x"]));
        let expected =
            "\"HELLO\" \"3\" \"auth\" \"(redacted)\" \"(redacted)\" \"SETNAME\" \"x\"\r\n";
        assert_eq!(hello, expected);
        // AUTH as a name is none: SETNAME takes it.
        let named = words(&shown(&[b"HELLO", b"3", b"SETNAME", b"AUTH", b"AUTH", b"a", b"b"]));
        let expected =
            "\"HELLO\" \"3\" \"SETNAME\" \"AUTH\" \"AUTH\" \"(redacted)\" \"(redacted)\"\r\n";
        assert_eq!(named, expected);
    }
}
