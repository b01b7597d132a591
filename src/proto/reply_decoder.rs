//! Replies as a client reads them: RESP2 and RESP3 into owned values.
//!
//! Source: Redis's protocol specification, RESP3 included but for streamed types, which no server
//! sends. Called by `client/`, the tools and tests. Incremental and bounded: a declared length
//! or count reserves nothing, and nesting ends at [`limits::REPLY_DEPTH`].

use std::error::Error;
use std::fmt;

use crate::limits;

/// One reply.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// `+OK`. Bytes that are no UTF-8 are replaced.
    Simple(String),
    /// An error, its code first, without the leading `-`. Bytes that are no UTF-8 are replaced.
    Error(String),
    /// `:1`
    Integer(i64),
    /// A string of bytes.
    Bulk(Vec<u8>),
    /// RESP3's verbatim string without its three-letter format.
    Text(Vec<u8>),
    /// `$-1`, `*-1` or `_`.
    Nil,
    /// Replies in order.
    Array(Vec<Value>),
    /// RESP3's map, in the order of the wire.
    Map(Vec<(Value, Value)>),
    /// RESP3's set, in the order of the wire.
    Set(Vec<Value>),
    /// RESP3's out-of-band message.
    Push(Vec<Value>),
    /// RESP3's `,1.5`
    Double(f64),
    /// RESP3's `#t`
    Boolean(bool),
    /// RESP3's integer of any size, as its digits.
    BigNumber(String),
}

/// Why bytes are no reply. Always the server's fault, and the end of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyError {
    /// No reply begins with this byte.
    UnknownType(u8),
    /// A length or count that is no number, or negative.
    BadLength,
    /// A number, boolean or nil that is none.
    BadNumber,
    /// A line or a bulk that doesn't end in CRLF.
    BadLineEnd,
    /// A line over [`limits::INLINE_BYTES`].
    LineTooLong,
    /// Arrays within arrays beyond [`limits::REPLY_DEPTH`].
    TooDeep,
    /// A reply over [`limits::REPLY_BYTES`].
    TooLarge,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::UnknownType(byte) => {
                write!(f, "a reply that begins with '{}'", byte.escape_ascii())
            }
            ReplyError::BadLength => write!(f, "a reply with an impossible length"),
            ReplyError::BadNumber => write!(f, "a reply with a number that is none"),
            ReplyError::BadLineEnd => write!(f, "a reply that does not end in CRLF"),
            ReplyError::LineTooLong => write!(f, "a reply whose line has no end"),
            ReplyError::TooDeep => write!(f, "a reply nested too deeply"),
            ReplyError::TooLarge => write!(f, "a reply over {} bytes", limits::REPLY_BYTES),
        }
    }
}

impl Error for ReplyError {}

/// A string whose length is known and whose bytes are still coming.
#[derive(Debug)]
struct OpenBulk {
    kind: u8,
    length: usize,
    /// Content and line end, as far as they came.
    bytes: Vec<u8>,
}

/// An array, map, set or push whose items are still coming.
#[derive(Debug)]
struct OpenAggregate {
    kind: u8,
    missing: usize,
    items: Vec<Value>,
}

/// What one line of the protocol stands for.
enum Line {
    Value(Value),
    Bulk(OpenBulk),
    Aggregate(OpenAggregate),
}

/// Turns a stream of bytes into replies.
#[derive(Debug, Default)]
pub struct ReplyDecoder {
    /// The beginning of a line that did not arrive in one piece.
    line: Vec<u8>,
    bulk: Option<OpenBulk>,
    /// The aggregates around what comes next, outermost first.
    open: Vec<OpenAggregate>,
    /// Bytes of the current reply so far.
    received: usize,
    failed: Option<ReplyError>,
}

impl ReplyDecoder {
    /// A decoder at the beginning of a reply.
    pub fn new() -> ReplyDecoder {
        ReplyDecoder::default()
    }

    /// Takes bytes from the front of `input` until a reply is whole. `None` means that all of
    /// `input` was taken and more is needed. After an error every further call returns it again.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Value>, ReplyError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let decoded = self.decode_reply(input);
        if let Err(error) = decoded {
            self.failed = Some(error);
        }
        decoded
    }

    /// Whether the bytes so far end in the middle of a reply.
    pub fn is_within_reply(&self) -> bool {
        self.received > 0
    }

    fn decode_reply(&mut self, input: &mut &[u8]) -> Result<Option<Value>, ReplyError> {
        loop {
            let before = input.len();
            let item = match self.bulk.take() {
                Some(bulk) => self.continue_bulk(bulk, input)?,
                None => self.decode_line(input)?,
            };
            self.received += before - input.len();
            if self.received > limits::REPLY_BYTES {
                return Err(ReplyError::TooLarge);
            }
            if let Some(reply) = item.and_then(|value| self.close(value)) {
                self.received = 0;
                return Ok(Some(reply));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// One line, if it is whole and is a value by itself; what it opens is kept.
    fn decode_line(&mut self, input: &mut &[u8]) -> Result<Option<Value>, ReplyError> {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            self.line.extend_from_slice(input);
            *input = &[];
            return if self.line.len() > limits::INLINE_BYTES {
                Err(ReplyError::LineTooLong)
            } else {
                Ok(None)
            };
        };
        let (taken, rest) = input.split_at(end + 1);
        *input = rest;
        if self.line.len() + taken.len() > limits::INLINE_BYTES + 1 {
            return Err(ReplyError::LineTooLong);
        }
        let line = if self.line.is_empty() {
            parse_line(taken)?
        } else {
            self.line.extend_from_slice(taken);
            let line = parse_line(&self.line)?;
            self.line.clear();
            line
        };
        match line {
            Line::Value(value) => Ok(Some(value)),
            Line::Bulk(bulk) => self.continue_bulk(bulk, input),
            Line::Aggregate(aggregate) => {
                if self.open.len() == limits::REPLY_DEPTH {
                    return Err(ReplyError::TooDeep);
                }
                if aggregate.missing > 0 {
                    self.open.push(aggregate);
                    return Ok(None);
                }
                Ok(aggregate.into_value())
            }
        }
    }

    fn continue_bulk(
        &mut self,
        mut bulk: OpenBulk,
        input: &mut &[u8],
    ) -> Result<Option<Value>, ReplyError> {
        let whole = bulk.length + 2;
        let (taken, rest) = input.split_at((whole - bulk.bytes.len()).min(input.len()));
        bulk.bytes.extend_from_slice(taken);
        *input = rest;
        if bulk.bytes.len() < whole {
            self.bulk = Some(bulk);
            return Ok(None);
        }
        bulk.into_value().map(Some)
    }

    /// Puts a whole value into the innermost open aggregate, and closes every one that it
    /// completes. Returns what is left outside of all: a reply.
    fn close(&mut self, mut value: Value) -> Option<Value> {
        while let Some(innermost) = self.open.last_mut() {
            innermost.items.push(value);
            innermost.missing -= 1;
            if innermost.missing > 0 {
                return None;
            }
            let closed = self.open.pop().expect("it was the last one just now");
            value = closed.into_value()?;
        }
        Some(value)
    }
}

impl OpenBulk {
    fn into_value(mut self) -> Result<Value, ReplyError> {
        if !self.bytes.ends_with(b"\r\n") {
            return Err(ReplyError::BadLineEnd);
        }
        self.bytes.truncate(self.length);
        match self.kind {
            b'!' => Ok(Value::Error(text_of(&self.bytes))),
            // A verbatim string begins with a format of three letters and a colon.
            b'=' if self.bytes.get(3) == Some(&b':') => Ok(Value::Text(self.bytes.split_off(4))),
            b'=' => Err(ReplyError::BadLength),
            _ => Ok(Value::Bulk(self.bytes)),
        }
    }
}

impl OpenAggregate {
    /// `None` for attributes, which describe the reply behind them and are passed over.
    fn into_value(self) -> Option<Value> {
        match self.kind {
            b'%' => {
                let mut items = self.items.into_iter();
                let mut pairs = Vec::with_capacity(items.len() / 2);
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Some(Value::Map(pairs))
            }
            b'~' => Some(Value::Set(self.items)),
            b'>' => Some(Value::Push(self.items)),
            b'|' => None,
            _ => Some(Value::Array(self.items)),
        }
    }
}

/// `line` with its type in front and its end behind.
fn parse_line(line: &[u8]) -> Result<Line, ReplyError> {
    let (&kind, rest) = line.split_first().expect("a line has at least its end");
    if !b"+-:$*_,#(!=%~>|".contains(&kind) {
        return Err(ReplyError::UnknownType(kind));
    }
    let rest = rest.strip_suffix(b"\r\n").ok_or(ReplyError::BadLineEnd)?;
    let value = match kind {
        b'+' => Value::Simple(text_of(rest)),
        b'-' => Value::Error(text_of(rest)),
        b':' => Value::Integer(parse_number(rest).ok_or(ReplyError::BadNumber)?),
        b'_' if rest.is_empty() => Value::Nil,
        b'_' => return Err(ReplyError::BadNumber),
        b',' => Value::Double(
            std::str::from_utf8(rest)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(ReplyError::BadNumber)?,
        ),
        b'#' => match rest {
            b"t" => Value::Boolean(true),
            b"f" => Value::Boolean(false),
            _ => return Err(ReplyError::BadNumber),
        },
        b'(' => {
            let digits = rest.strip_prefix(b"-").unwrap_or(rest);
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(ReplyError::BadNumber);
            }
            Value::BigNumber(text_of(rest))
        }
        b'$' | b'*' if rest == b"-1" => Value::Nil,
        _ => return parse_opening(kind, rest),
    };
    Ok(Line::Value(value))
}

/// A line that only says how much follows.
fn parse_opening(kind: u8, rest: &[u8]) -> Result<Line, ReplyError> {
    let length: usize = parse_number(rest)
        .and_then(|length| usize::try_from(length).ok())
        .ok_or(ReplyError::BadLength)?;
    // Each item takes a byte at the least, so that the bound on bytes bounds counts as well.
    if length > limits::REPLY_BYTES {
        return Err(ReplyError::TooLarge);
    }
    Ok(match kind {
        b'$' | b'!' | b'=' => Line::Bulk(OpenBulk { kind, length, bytes: Vec::new() }),
        b'%' | b'|' => {
            Line::Aggregate(OpenAggregate { kind, missing: length * 2, items: Vec::new() })
        }
        _ => Line::Aggregate(OpenAggregate { kind, missing: length, items: Vec::new() }),
    })
}

fn parse_number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_all(bytes: &[u8]) -> (Vec<Value>, Option<ReplyError>) {
        decode_pieces([bytes])
    }

    fn decode_pieces<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<Value>, Option<ReplyError>) {
        let mut decoder = ReplyDecoder::new();
        let mut values = Vec::new();
        for mut piece in pieces {
            loop {
                match decoder.decode(&mut piece) {
                    Ok(Some(value)) => values.push(value),
                    Ok(None) => break,
                    Err(error) => return (values, Some(error)),
                }
            }
            assert!(piece.is_empty());
        }
        (values, None)
    }

    fn only(bytes: &[u8]) -> Value {
        let (mut values, error) = decode_all(bytes);
        assert_eq!((values.len(), error), (1, None), "{:?}", bytes.escape_ascii().to_string());
        values.remove(0)
    }

    #[test]
    fn decode_reads_every_type() {
        assert_eq!(only(b"+OK\r\n"), Value::Simple("OK".to_owned()));
        assert_eq!(only(b"-ERR no\r\n"), Value::Error("ERR no".to_owned()));
        assert_eq!(only(b":-7\r\n"), Value::Integer(-7));
        assert_eq!(only(b"$4\r\na\r\nb\r\n"), Value::Bulk(b"a\r\nb".to_vec()));
        assert_eq!(only(b"$0\r\n\r\n"), Value::Bulk(Vec::new()));
        assert_eq!(only(b"$-1\r\n"), Value::Nil);
        assert_eq!(only(b"*-1\r\n"), Value::Nil);
        assert_eq!(only(b"_\r\n"), Value::Nil);
        assert_eq!(only(b"*0\r\n"), Value::Array(Vec::new()));
        let nested = Value::Array(vec![Value::Array(vec![Value::Integer(1)]), Value::Nil]);
        assert_eq!(only(b"*2\r\n*1\r\n:1\r\n$-1\r\n"), nested);
        let pair = (Value::Simple("a".to_owned()), Value::Set(vec![Value::Boolean(true)]));
        assert_eq!(only(b"%1\r\n+a\r\n~1\r\n#t\r\n"), Value::Map(vec![pair]));
        assert_eq!(only(b",-1.5\r\n"), Value::Double(-1.5));
        assert_eq!(only(b",inf\r\n"), Value::Double(f64::INFINITY));
        assert_eq!(only(b"(-123456789012345678901\r\n"), {
            Value::BigNumber("-123456789012345678901".to_owned())
        });
        assert_eq!(only(b"!5\r\nERR x\r\n"), Value::Error("ERR x".to_owned()));
        assert_eq!(only(b"=6\r\ntxt:hi\r\n"), Value::Text(b"hi".to_vec()));
        assert_eq!(only(b">1\r\n+m\r\n"), Value::Push(vec![Value::Simple("m".to_owned())]));
        // Attributes are passed over, wherever they stand.
        assert_eq!(only(b"|1\r\n+ttl\r\n:1\r\n*2\r\n:1\r\n|0\r\n:2\r\n"), {
            Value::Array(vec![Value::Integer(1), Value::Integer(2)])
        });
    }

    #[test]
    fn decode_rejects_what_is_no_reply() {
        let error_of = |bytes: &[u8]| decode_all(bytes).1;
        assert_eq!(error_of(b"GET\r\n"), Some(ReplyError::UnknownType(b'G')));
        assert_eq!(error_of(b"+OK\n"), Some(ReplyError::BadLineEnd));
        assert_eq!(error_of(b"$1\r\nabc"), Some(ReplyError::BadLineEnd));
        assert_eq!(error_of(b"$-2\r\n"), Some(ReplyError::BadLength));
        assert_eq!(error_of(b"*x\r\n"), Some(ReplyError::BadLength));
        assert_eq!(error_of(b"=2\r\nab\r\n"), Some(ReplyError::BadLength));
        assert_eq!(error_of(b":\r\n"), Some(ReplyError::BadNumber));
        assert_eq!(error_of(b"#y\r\n"), Some(ReplyError::BadNumber));
        assert_eq!(error_of(b"(1x\r\n"), Some(ReplyError::BadNumber));
        assert_eq!(error_of(b"$99999999999\r\n"), Some(ReplyError::TooLarge));
        assert_eq!(error_of(&b"*1\r\n".repeat(limits::REPLY_DEPTH)), None);
        assert_eq!(error_of(&b"*1\r\n".repeat(limits::REPLY_DEPTH + 1)), Some(ReplyError::TooDeep));
        assert_eq!(error_of(&vec![b'+'; limits::INLINE_BYTES + 1]), Some(ReplyError::LineTooLong));
    }

    #[test]
    fn decode_reserves_nothing_for_declared_sizes() {
        let mut decoder = ReplyDecoder::new();
        assert_eq!(decoder.decode(&mut &b"*500000000\r\n$500000000\r\nabc"[..]), Ok(None));
        assert!(decoder.is_within_reply());
        assert_eq!(decoder.open[0].items.capacity(), 0);
        assert!(decoder.bulk.as_ref().unwrap().bytes.capacity() < 64);
    }

    /// Bytes that look like replies often enough to get deep into the decoder.
    fn replies() -> impl Strategy<Value = Vec<u8>> {
        let tokens: Vec<&[u8]> = vec![
            b"+OK\r\n",
            b"-ERR x\r\n",
            b":1\r\n",
            b"$3\r\nabc\r\n",
            b"$-1\r\n",
            b"*2\r\n",
            b"%1\r\n",
            b"|1\r\n",
            b"*0\r\n",
            b"_\r\n",
            b"=5\r\ntxt:a\r\n",
            b"!1\r\nE\r\n",
            b"~1\r\n",
            b"\r",
            b"\n",
            b"$2\r\na",
            b"*-1\r\n",
            b"x",
            b":99999999999999999999\r\n",
        ];
        prop::collection::vec(prop::sample::select(tokens), 0..20).prop_map(|list| list.concat())
    }

    proptest! {
        #[test]
        fn decode_in_pieces_is_decode_of_the_whole(
            bytes in replies(), piece_bytes in 1_usize..20,
        ) {
            let whole = decode_all(&bytes);
            prop_assert_eq!(decode_pieces(bytes.chunks(piece_bytes)), whole);
        }

        #[test]
        fn decode_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let whole = decode_all(&bytes);
            prop_assert_eq!(decode_pieces(bytes.chunks(1)), whole);
        }
    }
}
