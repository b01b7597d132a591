//! What a command answers, as a value; [`Reply::encode`] writes it in RESP2 or RESP3.

use std::borrow::Cow;

use bytes::Bytes;

/// Which version of Redis's protocol a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Protocol {
    /// What a connection begins with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// One reply.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// `+OK` and its like.
    Simple(&'static str),
    /// An error line, its code (`ERR`, `WRONGTYPE` ...) first, without the leading `-`.
    Error(Cow<'static, str>),
    /// `:n`
    Integer(i64),
    /// A string of bytes.
    Bulk(Bytes),
    /// Text for people (`INFO`): a verbatim string in RESP3, a bulk string in RESP2.
    Text(Bytes),
    /// No value: `$-1` in RESP2, `_` in RESP3.
    Nil,
    /// Replies in order.
    Array(Vec<Reply>),
    /// Pairs: a map in RESP3, a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
}
