//! The incremental parser of what a client sends: RESP arrays of bulk strings and inline commands,
//! freely alternating.
//!
//! Follows Redis 7's `processMultibulkBuffer` and `processInlineBuffer`, with their error texts;
//! stricter than they in one thing: what should be CRLF is checked. Called by every client
//! connection. Allocates by what arrived, never by what was declared, and looks at each byte a
//! fixed number of times, however the input is cut.

use super::args::{Args, push_arg};
use super::inline::split_line;
use super::integer::parse_integer;
use super::reply::{Reply, escape_echo};
use crate::limits;

/// What [`RequestDecoder::decode`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// No whole command. All of the input was consumed; the decoder keeps what it needs of it.
    Incomplete,
    /// A command: its arguments were appended to `out`, in the form of [`Args`].
    Command {
        /// How many arguments, the name included; at least 1.
        count: u32,
    },
    /// A command that is refused as a whole. It was skipped, and the connection stays.
    Refused(Refusal),
    /// What cannot be a command: the connection is to be closed, after the error's reply.
    Closed(ProtocolError),
}

/// Why a command is refused while the connection stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its arguments are longer than [`limits::COMMAND_BYTES`] altogether.
    CommandTooLarge,
}

impl Refusal {
    /// The error that the client gets.
    pub fn reply(self) -> Reply {
        match self {
            Refusal::CommandTooLarge => {
                let limit = limits::COMMAND_BYTES;
                Reply::Error(format!("ERR command is larger than {limit} bytes").into())
            }
        }
    }
}

/// Why a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// The number behind `*` is none, or more than [`limits::ARGS`].
    InvalidMultibulkLength,
    /// The number behind `$` is none, negative, or more than [`limits::VALUE_BYTES`].
    InvalidBulkLength,
    /// An argument that does not begin with `$`, but with this.
    ExpectedDollar(u8),
    /// Something other than CRLF behind an argument.
    ExpectedBulkEnd,
    /// A line behind `*` that does not end.
    TooBigCountLine,
    /// A line behind `$` that does not end.
    TooBigBulkLine,
    /// An inline command longer than [`limits::INLINE_BYTES`].
    TooBigInline,
    /// An inline command whose quotes don't match.
    UnbalancedQuotes,
    /// An inline command with a zero byte. Redis would wait for the end of such a line forever.
    ZeroByte,
    /// A browser's request, perhaps made by a page that attacks the server: nothing behind it may
    /// be run, and it gets no reply.
    Http,
    /// The first byte is nothing that begins a command (a TLS hello, say). No reply.
    NotText,
}

impl ProtocolError {
    /// The error that the client gets before the connection closes, if any.
    pub fn reply(self) -> Option<Reply> {
        let text = match self {
            ProtocolError::InvalidMultibulkLength => "invalid multibulk length",
            ProtocolError::InvalidBulkLength => "invalid bulk length",
            ProtocolError::ExpectedDollar(byte) => {
                let shown = escape_echo(&[byte], limits::ECHO_BYTES);
                let text = format!("ERR Protocol error: expected '$', got '{shown}'");
                return Some(Reply::Error(text.into()));
            }
            ProtocolError::ExpectedBulkEnd => "expected CRLF after bulk",
            ProtocolError::TooBigCountLine => "too big mbulk count string",
            ProtocolError::TooBigBulkLine => "too big bulk count string",
            ProtocolError::TooBigInline => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
            ProtocolError::ZeroByte => "zero byte in inline request",
            ProtocolError::Http | ProtocolError::NotText => return None,
        };
        Some(Reply::Error(format!("ERR Protocol error: {text}").into()))
    }
}

/// Where in the stream the decoder stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum State {
    /// Before the first byte of a command.
    #[default]
    Start,
    /// In an inline command.
    Inline,
    /// In the line behind `*`.
    Count,
    /// In or before the `$` line of an argument.
    BulkLine,
    /// In an argument of which so many bytes are to come.
    Bulk { left: usize },
    /// Before the CRLF (or, after `cr`, the LF) behind an argument.
    BulkEnd { cr: bool },
    /// After an error: whatever comes is dropped.
    Closed,
}

/// The parser of one connection's input. See the file's head.
#[derive(Clone, Default, Debug)]
pub struct RequestDecoder {
    state: State,
    /// The begun line, without its end.
    line: Vec<u8>,
    /// The arguments, as far as they came, of a command that is not whole yet.
    pending: Vec<u8>,
    /// The arguments of the array, and those whose end is still to come.
    count: u32,
    left: u32,
    /// Bytes that the arguments take in their encoded form.
    command_bytes: usize,
}

/// What one step came to: on to the next, a result, or an error.
type Step = Result<Option<Decoded>, ProtocolError>;

const ON: Step = Ok(None);
const WAIT: Step = Ok(Some(Decoded::Incomplete));

/// The input and how far it was read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        taken
    }
}

/// Where the arguments go: behind `start` in `bytes`.
struct Target<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl RequestDecoder {
    /// A decoder at the start of a connection, or behind its preface.
    pub fn new() -> RequestDecoder {
        RequestDecoder::default()
    }

    /// Bytes of a begun command that the decoder keeps.
    pub fn held_bytes(&self) -> usize {
        self.line.len() + self.pending.len()
    }

    /// Reads up to the end of the next command. Returns how much of `input` it consumed and what it
    /// found; call it again with the rest until it is [`Decoded::Incomplete`], which consumes all.
    /// `out` is appended to for [`Decoded::Command`] only.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Decoded) {
        let mut input = Input { bytes: input, at: 0 };
        if self.pending.is_empty() {
            // The common case: the arguments go where they are wanted, and are copied once.
            let start = out.len();
            let decoded = self.advance(&mut input, &mut Target { bytes: out, start });
            match decoded {
                Decoded::Command { .. } => {}
                Decoded::Incomplete => {
                    self.pending.extend_from_slice(&out[start..]);
                    out.truncate(start);
                }
                Decoded::Refused(_) | Decoded::Closed(_) => out.truncate(start),
            }
            return (input.at, decoded);
        }
        let mut pending = std::mem::take(&mut self.pending);
        let decoded = self.advance(&mut input, &mut Target { bytes: &mut pending, start: 0 });
        match decoded {
            Decoded::Command { .. } => out.extend_from_slice(&pending),
            // Of a command that is being skipped nothing is kept, not even the room it had.
            Decoded::Incomplete if self.is_refused() => {}
            Decoded::Incomplete => self.pending = pending,
            Decoded::Refused(_) | Decoded::Closed(_) => {}
        }
        (input.at, decoded)
    }

    fn advance(&mut self, input: &mut Input<'_>, target: &mut Target<'_>) -> Decoded {
        loop {
            let step = match self.state {
                State::Start => self.start(input),
                State::Inline => self.inline(input, target),
                State::Count => self.count_line(input),
                State::BulkLine => self.bulk_line(input, target),
                State::Bulk { left } => self.bulk(left, input, target),
                State::BulkEnd { cr } => self.bulk_end(cr, input),
                State::Closed => {
                    input.at = input.bytes.len();
                    WAIT
                }
            };
            match step {
                Ok(None) => {}
                Ok(Some(decoded)) => return decoded,
                Err(error) => {
                    *self = RequestDecoder { state: State::Closed, ..RequestDecoder::default() };
                    return Decoded::Closed(error);
                }
            }
        }
    }

    fn start(&mut self, input: &mut Input<'_>) -> Step {
        match input.rest().first() {
            None => WAIT,
            Some(b'*') => {
                input.at += 1;
                self.state = State::Count;
                ON
            }
            Some(b' '..=b'~' | b'\t'..=b'\r') => {
                self.state = State::Inline;
                ON
            }
            Some(_) => Err(ProtocolError::NotText),
        }
    }

    fn inline(&mut self, input: &mut Input<'_>, target: &mut Target<'_>) -> Step {
        let Some(line) = self.take_line(input, ProtocolError::TooBigInline)? else {
            return WAIT;
        };
        let line = line.as_slice(&self.line);
        if line.contains(&0) {
            return Err(ProtocolError::ZeroByte);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let count = split_line(line, target.bytes).map_err(|_| ProtocolError::UnbalancedQuotes)?;
        self.line = Vec::new();
        self.state = State::Start;
        if count == 0 {
            return ON;
        }
        if is_http(Args::new(count, &target.bytes[target.start..])) {
            return Err(ProtocolError::Http);
        }
        Ok(Some(Decoded::Command { count }))
    }

    fn count_line(&mut self, input: &mut Input<'_>) -> Step {
        let Some(line) = self.take_line(input, ProtocolError::TooBigCountLine)? else {
            return WAIT;
        };
        let digits = line.as_slice(&self.line).strip_suffix(b"\r");
        let count = digits.and_then(parse_integer).ok_or(ProtocolError::InvalidMultibulkLength)?;
        self.line = Vec::new();
        if count <= 0 {
            self.state = State::Start;
            return ON;
        }
        self.count = u32::try_from(count)
            .ok()
            .filter(|count| *count as usize <= limits::ARGS)
            .ok_or(ProtocolError::InvalidMultibulkLength)?;
        self.left = self.count;
        self.command_bytes = 0;
        self.state = State::BulkLine;
        ON
    }

    /// Reads the `$` line of an argument; and the argument at once, where all of it is there.
    fn bulk_line(&mut self, input: &mut Input<'_>, target: &mut Target<'_>) -> Step {
        let Some(line) = self.take_line(input, ProtocolError::TooBigBulkLine)? else {
            return WAIT;
        };
        let (first, rest) = match line.as_slice(&self.line) {
            [] => (b'\n', &[][..]),
            [first, rest @ ..] => (*first, rest),
        };
        if first != b'$' {
            return Err(ProtocolError::ExpectedDollar(first));
        }
        let length = rest
            .strip_suffix(b"\r")
            .and_then(parse_integer)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= limits::VALUE_BYTES)
            .ok_or(ProtocolError::InvalidBulkLength)?;
        self.line = Vec::new();
        self.count_bytes(length, target);
        if !self.is_refused() {
            if let [b'\r', b'\n', ..] = input.rest().get(length..).unwrap_or_default() {
                push_arg(target.bytes, input.take(length));
                input.at += 2;
                return self.end_of_argument();
            }
            let length = u32::try_from(length).expect("limits::VALUE_BYTES is far below 4 GiB");
            target.bytes.extend_from_slice(&length.to_le_bytes());
        }
        self.state = State::Bulk { left: length };
        ON
    }

    fn bulk(&mut self, left: usize, input: &mut Input<'_>, target: &mut Target<'_>) -> Step {
        let taken = input.take(left.min(input.rest().len()));
        if !self.is_refused() {
            target.bytes.extend_from_slice(taken);
        }
        let left = left - taken.len();
        if left > 0 {
            self.state = State::Bulk { left };
            return WAIT;
        }
        self.state = State::BulkEnd { cr: false };
        ON
    }

    fn bulk_end(&mut self, cr: bool, input: &mut Input<'_>) -> Step {
        let Some(byte) = input.rest().first() else {
            return WAIT;
        };
        if *byte != if cr { b'\n' } else { b'\r' } {
            return Err(ProtocolError::ExpectedBulkEnd);
        }
        input.at += 1;
        if !cr {
            self.state = State::BulkEnd { cr: true };
            return ON;
        }
        self.end_of_argument()
    }

    fn end_of_argument(&mut self) -> Step {
        assert!(self.left > 0, "an argument ends only in an array that still wants one");
        self.left -= 1;
        if self.left > 0 {
            self.state = State::BulkLine;
            return ON;
        }
        self.state = State::Start;
        if self.is_refused() {
            return Ok(Some(Decoded::Refused(Refusal::CommandTooLarge)));
        }
        Ok(Some(Decoded::Command { count: self.count }))
    }

    /// Adds an argument to the command's size. At the bound what was kept of it is let go.
    fn count_bytes(&mut self, length: usize, target: &mut Target<'_>) {
        // Saturating: a refused command may go on for 2^20 arguments of 8 MiB.
        self.command_bytes = self.command_bytes.saturating_add(length + size_of::<u32>());
        if self.is_refused() {
            target.bytes.truncate(target.start);
        }
    }

    fn is_refused(&self) -> bool {
        self.command_bytes > limits::COMMAND_BYTES
    }

    /// The next line, without its LF; `None` if its end is still to come. `too_big` is the error
    /// for a line of more than [`limits::INLINE_BYTES`].
    fn take_line<'a>(
        &mut self,
        input: &mut Input<'a>,
        too_big: ProtocolError,
    ) -> Result<Option<Line<'a>>, ProtocolError> {
        // What is in `line` was searched before: only new bytes are looked at.
        let room = limits::INLINE_BYTES - self.line.len();
        let rest = input.rest();
        let searched = &rest[..rest.len().min(room + 1)];
        let Some(length) = searched.iter().position(|byte| *byte == b'\n') else {
            if searched.len() > room {
                return Err(too_big);
            }
            self.line.extend_from_slice(input.take(rest.len()));
            return Ok(None);
        };
        let found = input.take(length);
        input.at += 1;
        if self.line.is_empty() {
            return Ok(Some(Line::Input(found)));
        }
        self.line.extend_from_slice(found);
        Ok(Some(Line::Held))
    }
}

/// A whole line: in the input, or put together in the decoder's `line`.
enum Line<'a> {
    Input(&'a [u8]),
    Held,
}

impl<'a> Line<'a> {
    fn as_slice(&self, held: &'a [u8]) -> &'a [u8] {
        match self {
            Line::Input(line) => line,
            Line::Held => held,
        }
    }
}

/// Whether an inline command is a line of an HTTP request: Redis closes on `POST` and `Host:`, we
/// on `GET path HTTP/1.x` too, which no GET of ours can be.
fn is_http(args: Args<'_>) -> bool {
    let name = args.get(0).unwrap_or_default();
    if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
        return true;
    }
    let is_get = name.eq_ignore_ascii_case(b"get") && args.len() == 3;
    is_get && args.get(2).is_some_and(|word| word.starts_with(b"HTTP/1."))
}
