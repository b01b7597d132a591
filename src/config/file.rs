//! node.toml as serde reads it: every key optional, every value with its place in the text.
//!
//! Called by [`Config::parse`](super::Config::parse). What TOML and the types refuse is refused
//! here and named by its key; what the values mean is left to `check`.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Mistake;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct File {
    pub id: Option<Spanned<Number>>,
    pub data_dir: Option<Spanned<String>>,
    pub cluster: ClusterTable,
    pub listen: ListenTable,
    pub raft: RaftTable,
    pub client: ClientTable,
    pub storage: StorageTable,
    pub limits: LimitsTable,
    pub log: LogTable,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ClusterTable {
    pub name: Option<Spanned<String>>,
    pub readmit: Option<Spanned<String>>,
    pub node: Vec<Spanned<NodeTable>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table: write [[cluster.node]]")]
pub(super) struct NodeTable {
    pub id: Option<Spanned<Number>>,
    pub peer: Option<Spanned<String>>,
    pub client: Option<Spanned<String>>,
    pub http: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ListenTable {
    pub client: Option<Spanned<String>>,
    pub peer: Option<Spanned<String>>,
    pub http: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct RaftTable {
    pub election_timeout_ms: Option<Spanned<Pair>>,
    pub heartbeat_ms: Option<Spanned<Number>>,
    pub lease: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ClientTable {
    pub request_timeout_ms: Option<Spanned<Number>>,
    pub idle_timeout_ms: Option<Spanned<Number>>,
    pub notify_keyspace_events: Option<Spanned<String>>,
    pub debug_commands: Option<bool>,
    pub redirect: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct StorageTable {
    pub sync: Option<Spanned<String>>,
    pub segment_bytes: Option<Spanned<Number>>,
    pub snapshot_log_bytes: Option<Spanned<Number>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct LimitsTable {
    pub max_memory: Option<Spanned<Number>>,
    pub max_clients: Option<Spanned<Number>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct LogTable {
    pub level: Option<Spanned<String>>,
    pub file: Option<Spanned<String>>,
}

/// A whole number, not negative. A type of our own, so that the message of a wrong value speaks of
/// numbers and not of Rust's types.
#[derive(Clone, Copy)]
pub(super) struct Number(pub u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, 0 or above")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Number, E> {
                let unexpected = serde::de::Unexpected::Signed(value);
                let number = u64::try_from(value);
                number.map(Number).map_err(|_| E::invalid_value(unexpected, &self))
            }
        }
        deserializer.deserialize_u64(NumberVisitor)
    }
}

/// `[lowest, highest]`
#[derive(Clone, Copy)]
pub(super) struct Pair(pub u64, pub u64);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pair, D::Error> {
        struct PairVisitor;
        impl<'de> Visitor<'de> for PairVisitor {
            type Value = Pair;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two whole numbers, such as [150, 300]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pair, A::Error> {
                let low = seq.next_element::<Number>()?;
                let low = low.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let high = seq.next_element::<Number>()?;
                let high = high.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                if seq.next_element::<Number>()?.is_some() {
                    return Err(A::Error::invalid_length(3, &self));
                }
                Ok(Pair(low.0, high.0))
            }
        }
        deserializer.deserialize_seq(PairVisitor)
    }
}

/// Reads `text`.
pub(super) fn parse(text: &str) -> Result<File, Mistake> {
    toml::from_str(text).map_err(|error| {
        let span = error.span();
        let (table, _) = DeTable::parse_recoverable(text);
        let key = span.as_ref().and_then(|span| key_at(table.get_ref(), span));
        let message = error.message();
        let (key, problem) = match message.strip_prefix("unknown field ") {
            Some(rest) => (key, unknown_key(rest)),
            None if message == "duplicate key" => {
                let key = span.as_ref().and_then(|span| duplicate_key(text, span));
                (key, "is there twice; keep one".to_owned())
            }
            None => (key, message.to_owned()),
        };
        Mistake::at(text, span, &key.unwrap_or_default(), &problem)
    })
}

/// From serde's "`x`, expected one of `a`, `b`".
fn unknown_key(rest: &str) -> String {
    match rest.split_once(", ") {
        Some((_, expected)) => format!("is not a key here, {expected}"),
        None => "is not a key here".to_owned(),
    }
}

/// The path of the innermost key whose name or value covers the bytes `span`.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let covers = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    table.iter().find_map(|(name, value)| {
        let inner = match value.get_ref() {
            DeValue::Table(table) => key_at(table, span),
            DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
                DeValue::Table(table) => key_at(table, span),
                _ => None,
            }),
            _ => None,
        };
        match inner {
            Some(inner) => Some(format!("{}.{inner}", name.get_ref())),
            None if covers(name.span()) || covers(value.span()) => Some(name.get_ref().to_string()),
            None => None,
        }
    })
}

/// The path of a key that stands at `span` for the second time: its own name, in the table of the
/// nearest header above it. The parsed text is of no help, it holds only the first.
fn duplicate_key(text: &str, span: &Range<usize>) -> Option<String> {
    let name = text.get(span.clone())?.trim();
    let before = text.get(..span.start)?;
    let header_of = |line: &str| {
        let inner = line.trim_start().strip_prefix('[')?.trim_start_matches('[');
        Some(inner.split(']').next().unwrap_or(inner).trim().to_owned())
    };
    let own_line = &before[before.rfind('\n').map_or(0, |at| at + 1)..];
    if let Some(header) = header_of(own_line) {
        return Some(format!("{header}{name}"));
    }
    Some(match before.lines().rev().find_map(header_of) {
        Some(header) => format!("{header}.{name}"),
        None => name.to_owned(),
    })
}
