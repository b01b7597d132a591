//! Replies as text: with types as redis-cli shows them at a terminal, bare as it does in a pipe, as
//! JSON or as CSV.
//!
//! Called for each reply. Only makes bytes; where they go is its caller's affair.

use raftkv::client::ClientError;
use raftkv::proto::reply_decoder::Value;
use serde_json::json;

use super::paint::{Colour, Paint};
use super::tables;

/// How replies are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// `(integer) 1`, `"a string"`, `(nil)`, numbered arrays.
    Typed,
    /// The bare content, an array's items one a line.
    Raw,
    /// One line of JSON a reply.
    Json,
    /// One record of CSV a reply (RFC 4180), an array's items its fields.
    Csv,
}

/// How everything is shown.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Its form.
    pub style: Style,
    /// Its colour.
    pub paint: Paint,
}

/// A reply to the command `args`, its line's end included.
pub fn reply(value: &Value, args: &[Vec<u8>], look: Look) -> Vec<u8> {
    let mut out = Vec::new();
    let text = match value {
        Value::Bulk(bytes) | Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    };
    let form = tables::form(args).zip(text);
    match look.style {
        Style::Typed if !is_text(args) => typed(value, "", look.paint, &mut out),
        Style::Typed if form.is_some() => {
            let table = form.and_then(|(form, text)| tables::table(form, text, look.paint));
            out.extend_from_slice(table.as_deref().or(text).unwrap_or_default().as_bytes());
        }
        Style::Typed | Style::Raw => {
            raw(value, &mut out);
            if !(is_text(args) && out.ends_with(b"\n")) {
                out.push(b'\n');
            }
        }
        Style::Json => {
            let object = form.and_then(|(form, text)| tables::object(form, text));
            let json = object.unwrap_or_else(|| json_of(value));
            out.extend_from_slice(json.to_string().as_bytes());
            out.push(b'\n');
        }
        Style::Csv => {
            csv(value, &mut out);
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

/// What came instead of a reply, its line's end included.
pub fn error(error: &ClientError, look: Look) -> String {
    match (look.style, error) {
        (Style::Json, ClientError::Reply(_)) => {
            format!("{}\n", json!({"error": error.to_string()}))
        }
        (Style::Json, ClientError::InDoubt(_)) => {
            format!("{}\n", json!({"indoubt": error.to_string()}))
        }
        (Style::Json, _) => format!("{}\n", json!({"failed": error.to_string()})),
        (Style::Csv, ClientError::Reply(_) | ClientError::InDoubt(_)) => {
            let mut out = b"ERROR,".to_vec();
            push_csv(error.to_string().as_bytes(), &mut out);
            format!("{}\r\n", String::from_utf8_lossy(&out))
        }
        (Style::Typed, ClientError::Reply(_)) => {
            format!("{}\n", look.paint.paint(Colour::Red, &format!("(error) {error}")))
        }
        (_, ClientError::Reply(_) | ClientError::InDoubt(_)) => format!("{error}\n"),
        _ => format!("rkv-cli: {error}\n"),
    }
}

/// What the server said belongs to the output; that nothing could be asked does not, but for JSON,
/// where each command has its line.
pub fn is_for_stderr(error: &ClientError, style: Style) -> bool {
    style != Style::Json && !matches!(error, ClientError::Reply(_) | ClientError::InDoubt(_))
}

/// Commands whose reply is a text for people, shown as it is.
fn is_text(args: &[Vec<u8>]) -> bool {
    let word = |place: usize, expected: &str| {
        args.get(place).is_some_and(|arg| arg.eq_ignore_ascii_case(expected.as_bytes()))
    };
    word(0, "INFO")
        || word(0, "CLIENT") && (word(1, "LIST") || word(1, "INFO"))
        || word(0, "RAFT") && (word(1, "NODES") || word(1, "INFO"))
}

/// Ends each line. `prefix` goes in front of every line but the first, which stands behind the
/// number of its item.
fn typed(value: &Value, prefix: &str, paint: Paint, out: &mut Vec<u8>) {
    let line = match value {
        Value::Simple(text) => text.clone(),
        Value::Error(text) => paint.paint(Colour::Red, &format!("(error) {text}")),
        Value::Integer(number) => format!("(integer) {number}"),
        Value::Bulk(bytes) | Value::Text(bytes) => quoted(bytes),
        Value::Nil => paint.paint(Colour::Dim, "(nil)"),
        Value::Double(number) => format!("(double) {number}"),
        Value::Boolean(truth) => format!("({truth})"),
        Value::BigNumber(digits) => format!("(integer) {digits}"),
        Value::Array(items) => {
            return typed_items(items, (')', "(empty array)"), prefix, paint, out);
        }
        Value::Set(items) => {
            return typed_items(items, ('~', "(empty set)"), prefix, paint, out);
        }
        Value::Push(items) => {
            return typed_items(items, ('>', "(empty push)"), prefix, paint, out);
        }
        Value::Map(pairs) => return typed_pairs(pairs, prefix, paint, out),
    };
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

fn typed_items(
    items: &[Value],
    (mark, empty): (char, &str),
    prefix: &str,
    paint: Paint,
    out: &mut Vec<u8>,
) {
    let (width, inner) = numbering(items.len(), prefix);
    for (place, item) in items.iter().enumerate() {
        let before = if place == 0 { "" } else { prefix };
        out.extend_from_slice(format!("{before}{:>width$}{mark} ", place + 1).as_bytes());
        typed(item, &inner, paint, out);
    }
    if items.is_empty() {
        out.extend_from_slice(empty.as_bytes());
        out.push(b'\n');
    }
}

fn typed_pairs(pairs: &[(Value, Value)], prefix: &str, paint: Paint, out: &mut Vec<u8>) {
    let (width, inner) = numbering(pairs.len(), prefix);
    for (place, (key, value)) in pairs.iter().enumerate() {
        let before = if place == 0 { "" } else { prefix };
        out.extend_from_slice(format!("{before}{:>width$}# ", place + 1).as_bytes());
        typed(key, &inner, paint, out);
        out.pop();
        out.extend_from_slice(b" => ");
        if is_long(value) {
            out.extend_from_slice(format!("\n{inner}").as_bytes());
        }
        typed(value, &inner, paint, out);
    }
    if pairs.is_empty() {
        out.extend_from_slice(b"(empty hash)\n");
    }
}

/// Whether a value takes several lines, and so begins on one of its own.
fn is_long(value: &Value) -> bool {
    match value {
        Value::Array(items) | Value::Set(items) | Value::Push(items) => items.len() > 1,
        Value::Map(pairs) => pairs.len() > 1,
        _ => false,
    }
}

/// The width of the items' numbers, and what goes in front of their further lines.
fn numbering(count: usize, prefix: &str) -> (usize, String) {
    let width = count.to_string().len();
    (width, format!("{prefix}{}", " ".repeat(width + 2)))
}

/// In quotes, on one line, whatever it holds.
pub fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend(['\\', char::from(byte)]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            7 => out.push_str("\\a"),
            8 => out.push_str("\\b"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

fn raw(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Simple(text) | Value::Error(text) | Value::BigNumber(text) => {
            out.extend_from_slice(text.as_bytes());
        }
        Value::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Bulk(bytes) | Value::Text(bytes) => out.extend_from_slice(bytes),
        Value::Nil => {}
        Value::Double(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Boolean(truth) => out.extend_from_slice(format!("({truth})").as_bytes()),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b'\n');
                }
                raw(item, out);
            }
        }
        Value::Map(pairs) => {
            for (place, (key, value)) in pairs.iter().enumerate() {
                if place > 0 {
                    out.push(b'\n');
                }
                raw(key, out);
                out.push(b' ');
                raw(value, out);
            }
        }
    }
}

/// A record's fields: nested ones one after the other, nil as an empty field without quotes.
fn csv(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Simple(text) => push_csv(text.as_bytes(), out),
        Value::Error(text) => {
            out.extend_from_slice(b"ERROR,");
            push_csv(text.as_bytes(), out);
        }
        Value::Bulk(bytes) | Value::Text(bytes) => push_csv(bytes, out),
        Value::Integer(_) | Value::Double(_) | Value::BigNumber(_) => raw(value, out),
        Value::Boolean(truth) => out.extend_from_slice(truth.to_string().as_bytes()),
        Value::Nil => {}
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                csv(item, out);
            }
        }
        Value::Map(pairs) => {
            for (place, (key, value)) in pairs.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                csv(key, out);
                out.push(b',');
                csv(value, out);
            }
        }
    }
}

/// A field that is text: in quotes, quotes in it twice.
pub fn push_csv(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in bytes {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// A value in JSON.
pub fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Simple(text) | Value::BigNumber(text) => json!(text),
        Value::Error(text) => json!({ "error": text }),
        Value::Integer(number) => json!(number),
        Value::Bulk(bytes) | Value::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            // JSON has no bytes.
            Err(_) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                json!({ "hex": hex })
            }
        },
        Value::Nil => json!(null),
        Value::Double(number) if number.is_finite() => json!(number),
        Value::Double(number) => json!(number.to_string()),
        Value::Boolean(truth) => json!(truth),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            items.iter().map(json_of).collect()
        }
        Value::Map(pairs) => json_of_map(pairs),
    }
}

/// An object if all keys are strings, else an array of pairs.
fn json_of_map(pairs: &[(Value, Value)]) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    for (key, value) in pairs {
        let serde_json::Value::String(key) = json_of(key) else {
            return pairs
                .iter()
                .map(|(key, value)| json!([json_of(key), json_of(value)]))
                .collect();
        };
        object.insert(key, json_of(value));
    }
    serde_json::Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    fn shown(value: &Value, style: Style) -> String {
        let look = Look { style, paint: Paint::OFF };
        String::from_utf8(reply(value, &[b"GET".to_vec()], look)).unwrap()
    }

    #[test]
    fn typed_shows_nesting_as_redis_cli_does() {
        let inner = Value::Array(vec![bulk("x\n\"\u{7}\u{e9}"), Value::Nil]);
        let mut items = vec![inner, Value::Integer(7), Value::Array(Vec::new())];
        items.resize(10, Value::Simple("OK".to_owned()));
        let expected = concat!(
            " 1) 1) \"x\\n\\\"\\a\\xc3\\xa9\"\n",
            "    2) (nil)\n",
            " 2) (integer) 7\n",
            " 3) (empty array)\n",
            " 4) OK\n 5) OK\n 6) OK\n 7) OK\n 8) OK\n 9) OK\n10) OK\n",
        );
        assert_eq!(shown(&Value::Array(items), Style::Typed), expected);
    }

    #[test]
    fn typed_shows_the_types_of_resp3() {
        let map = Value::Map(vec![
            (bulk("a"), Value::Double(1.5)),
            (bulk("b"), Value::Set(vec![Value::Boolean(true)])),
            (bulk("c"), Value::Set(vec![Value::Nil, Value::Nil])),
        ]);
        let expected = concat!(
            "1# \"a\" => (double) 1.5\n",
            "2# \"b\" => 1~ (true)\n",
            "3# \"c\" => \n   1~ (nil)\n   2~ (nil)\n",
        );
        assert_eq!(shown(&map, Style::Typed), expected);
        assert_eq!(shown(&Value::Map(Vec::new()), Style::Typed), "(empty hash)\n");
    }

    #[test]
    fn raw_shows_bare_content() {
        assert_eq!(shown(&Value::Nil, Style::Raw), "\n");
        assert_eq!(shown(&Value::Array(Vec::new()), Style::Raw), "\n");
        let items = Value::Array(vec![bulk("a"), Value::Integer(1), Value::Nil, bulk("b")]);
        assert_eq!(shown(&items, Style::Raw), "a\n1\n\nb\n");
        let look = Look { style: Style::Raw, paint: Paint::OFF };
        let info = reply(&bulk("# Server\r\n"), &[b"info".to_vec()], look);
        assert_eq!(info, b"# Server\r\n");
    }

    #[test]
    fn csv_is_one_record_a_reply() {
        let items = Value::Array(vec![
            bulk("a \"b\", c"),
            Value::Integer(1),
            Value::Nil,
            bulk(""),
            Value::Array(vec![Value::Error("ERR no".to_owned())]),
        ]);
        assert_eq!(shown(&items, Style::Csv), "\"a \"\"b\"\", c\",1,,\"\",ERROR,\"ERR no\"\r\n");
        assert_eq!(shown(&Value::Nil, Style::Csv), "\r\n");
    }

    #[test]
    fn json_shows_every_reply_in_one_line() {
        let items = Value::Array(vec![
            bulk("a\nb"),
            Value::Integer(1),
            Value::Nil,
            Value::Bulk(vec![0xff, 0]),
            Value::Map(vec![(bulk("k"), Value::Boolean(false))]),
            Value::Map(vec![(Value::Integer(1), Value::Double(f64::INFINITY))]),
            Value::Error("ERR no".to_owned()),
        ]);
        let expected =
            r#"["a\nb",1,null,{"hex":"ff00"},{"k":false},[[1,"inf"]],{"error":"ERR no"}]"#;
        assert_eq!(shown(&items, Style::Json), format!("{expected}\n"));
    }
}
