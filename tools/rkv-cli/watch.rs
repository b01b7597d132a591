//! `--watch PREFIX`: every change of the keys with a prefix, once and in order, through fail-overs.
//!
//! Stands on KWATCH: when a node is lost, the next one is asked for what came behind the last
//! revision that was shown, so nothing is missed and nothing shown twice. A node that keeps quiet for
//! longer than its marks allow counts as lost, and so does one that has no majority. Where the changes are gone from every node's history,
//! it says so and ends. Called by `main`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use raftkv::client::{Client, Connection, ErrorReply, LinkError, Options, Wire};
use raftkv::limits;
use raftkv::proto::reply_decoder::Value;
use serde_json::json;

use super::Outcome;
use super::paint::Colour;
use super::render::{self, Look, Style, quoted};

/// A node says every few seconds how far it is; after so long without a word it is left.
const PATIENCE: Duration = limits::WATCH_MARK_INTERVAL.saturating_mul(3);
/// Before each round over all nodes but the first.
const PAUSE: Duration = Duration::from_millis(200);

/// What is watched.
#[derive(Clone, Debug)]
pub struct Watch {
    pub prefix: OsString,
    /// The changes behind this revision; `None`: those from now on.
    pub from: Option<u64>,
    /// How many changes to show.
    pub count: Option<u64>,
}

/// One change.
#[derive(Clone, PartialEq, Debug)]
struct Change {
    event: String,
    revision: u64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    /// Unix milliseconds.
    deadline: Option<i64>,
}

/// Why one node's stream is over.
enum End {
    /// All that was asked for was shown.
    Enough,
    /// The node is lost, or can't serve; another one may.
    Lost(String),
    /// No node can go on.
    Refused(String),
}

/// Shows changes until there were enough, or none can be had any more.
pub fn run(options: &Options, watch: Watch, look: Look) -> io::Result<Outcome> {
    let mut endpoints = options.endpoints.clone();
    // Only an extra: without it fail-over goes to the given endpoints alone.
    let mut client = Client::new(options.clone());
    if client.discover().is_ok() {
        endpoints = client.endpoints().to_vec();
    }
    drop(client);
    let mut watching = Watching {
        prefix: watch.prefix.into_vec(),
        position: watch.from,
        left: watch.count.unwrap_or(u64::MAX),
        look,
        was_connected: false,
    };
    for turn in 0.. {
        let place = turn % endpoints.len();
        let endpoint = &endpoints[place];
        let text = match watching.follow(endpoint, options)? {
            End::Enough => return Ok(Outcome::Done),
            End::Lost(text) => text,
            End::Refused(text) => {
                writeln!(io::stderr(), "rkv-cli: {endpoint}: {text}")?;
                return Ok(Outcome::Failed);
            }
        };
        writeln!(io::stderr(), "rkv-cli: {endpoint}: {text}{}", watching.where_it_goes_on())?;
        if place + 1 == endpoints.len() {
            if !watching.was_connected {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(Outcome::Failed)
}

struct Watching {
    prefix: Vec<u8>,
    /// Everything up to this revision was shown.
    position: Option<u64>,
    left: u64,
    look: Look,
    was_connected: bool,
}

impl Watching {
    fn where_it_goes_on(&self) -> String {
        match self.position {
            Some(position) if self.was_connected => format!("; going on from {position}"),
            _ => String::new(),
        }
    }

    /// Shows what one node tells.
    fn follow(&mut self, endpoint: &str, options: &Options) -> io::Result<End> {
        let opened = Connection::open(endpoint, Wire::Text, options.connect_timeout);
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(error) => return Ok(End::Lost(error.to_string())),
        };
        let mut words = vec![b"KWATCH".to_vec(), self.prefix.clone()];
        if let Some(position) = self.position {
            words.extend([b"FROM".to_vec(), position.to_string().into_bytes()]);
        }
        match connection.call(&words, options.reply_timeout) {
            Ok(Value::Integer(revision)) => {
                self.was_connected = true;
                self.position.get_or_insert(revision.unsigned_abs());
            }
            // This node can't serve for now, or was removed; others may.
            Ok(Value::Error(text)) if is_passing(&text) => return Ok(End::Lost(text)),
            Ok(Value::Error(text)) => return Ok(End::Refused(text)),
            Ok(_) => return Ok(End::Refused("it is no raftkv".to_owned())),
            Err(error) => return Ok(End::Lost(error.to_string())),
        }
        while self.left > 0 {
            let change = match connection.receive(Instant::now() + PATIENCE) {
                Ok(Value::Error(text)) => return Ok(End::Lost(text)),
                Ok(value) => change(value),
                Err(LinkError::TimedOut) => {
                    return Ok(End::Lost(format!("silent for {} seconds", PATIENCE.as_secs())));
                }
                Err(error) => return Ok(End::Lost(error.to_string())),
            };
            let Some(change) = change else {
                return Ok(End::Refused("it tells what is no change".to_owned()));
            };
            if change.event == "compacted" {
                return Ok(End::Refused(format!(
                    "COMPACTED {} changes up to this revision are gone: read the keys, and watch \
                     from the revision of what was read",
                    change.revision
                )));
            }
            self.show(&change)?;
            self.position = Some(change.revision);
            if change.event == "progress"
                && let Err(text) = ask_health(endpoint, options)
            {
                return Ok(End::Lost(text));
            }
        }
        Ok(End::Enough)
    }

    fn show(&mut self, change: &Change) -> io::Result<()> {
        let is_mark = change.event == "progress";
        // A mark is for programs, which go on from it one day.
        if is_mark && self.look.style != Style::Json {
            return Ok(());
        }
        let mut stdout = io::stdout();
        stdout.write_all(&line(change, self.look))?;
        stdout.flush()?;
        self.left -= u64::from(!is_mark);
        Ok(())
    }
}

fn is_passing(text: &str) -> bool {
    ErrorReply { text: text.to_owned() }.is_passing()
}

/// A node without a majority has nothing to tell, and doesn't know it: it is asked where it was quiet.
fn ask_health(endpoint: &str, options: &Options) -> Result<(), String> {
    let opened = Connection::open(endpoint, Wire::Text, options.connect_timeout);
    let mut connection = opened.map_err(|error| error.to_string())?;
    match connection.call(&["RAFT", "HEALTH"], options.reply_timeout) {
        Ok(Value::Error(text)) => Err(text),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a message says; `None` if it is no change.
fn change(message: Value) -> Option<Change> {
    let Value::Array(words) = message else {
        return None;
    };
    let mut words = words.into_iter();
    let mut bulk = || match words.next()? {
        Value::Bulk(bytes) => Some(bytes),
        _ => None,
    };
    let (word, _prefix, event) = (bulk()?, bulk()?, bulk()?);
    let event = String::from_utf8(event).ok().filter(|_| word == b"kwatch")?;
    let Value::Integer(revision) = words.next()? else {
        return None;
    };
    let mut change = Change {
        event,
        revision: u64::try_from(revision).ok()?,
        key: None,
        value: None,
        deadline: None,
    };
    for word in words {
        match word {
            Value::Bulk(bytes) if change.key.is_none() => change.key = Some(bytes),
            Value::Bulk(bytes) => change.value = Some(bytes),
            Value::Integer(deadline) => change.deadline = Some(deadline),
            _ => return None,
        }
    }
    Some(change)
}

/// A change as it is shown: its revision, what happened, and to what.
fn line(change: &Change, look: Look) -> Vec<u8> {
    let Change { event, revision, key, value, deadline } = change;
    match look.style {
        Style::Json => {
            let text = |bytes: &Vec<u8>| render::json_of(&Value::Bulk(bytes.clone()));
            let mut object = json!({ "revision": revision, "event": event });
            let fields = [
                ("key", key.as_ref().map(text)),
                ("value", value.as_ref().map(text)),
                ("expires_at_ms", deadline.map(|deadline| json!(deadline))),
            ];
            for (name, field) in fields {
                if let Some(field) = field {
                    object[name] = field;
                }
            }
            format!("{object}\n").into_bytes()
        }
        Style::Csv => {
            let mut out = format!("{revision},").into_bytes();
            render::push_csv(event.as_bytes(), &mut out);
            for field in [key, value] {
                out.push(b',');
                if let Some(bytes) = field {
                    render::push_csv(bytes, &mut out);
                }
            }
            let deadline = deadline.map(|deadline| deadline.to_string()).unwrap_or_default();
            out.extend_from_slice(format!(",{deadline}\r\n").as_bytes());
            out
        }
        Style::Typed | Style::Raw => {
            let colour = match event.as_str() {
                "set" | "append" => Colour::Green,
                "del" | "expired" | "clear" => Colour::Red,
                _ => Colour::Yellow,
            };
            let mut out = format!("{revision} {}", look.paint.paint(colour, event));
            for bytes in [key, value].into_iter().flatten() {
                out.push(' ');
                out.push_str(&quoted(bytes));
            }
            if let Some(deadline) = deadline {
                out.push_str(&look.paint.paint(Colour::Dim, &format!(" expires_at_ms={deadline}")));
            }
            out.push('\n');
            out.into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::paint::Paint;
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    fn set() -> Change {
        let words = vec![
            bulk("kwatch"),
            bulk("k"),
            bulk("set"),
            Value::Integer(7),
            bulk("k1"),
            bulk("a \"b\"\n"),
            Value::Integer(9000),
        ];
        change(Value::Array(words)).unwrap()
    }

    #[test]
    fn change_reads_what_is_told() {
        assert_eq!((set().revision, set().deadline), (7, Some(9000)));
        let mark = vec![bulk("kwatch"), bulk("k"), bulk("progress"), Value::Integer(8)];
        let mark = change(Value::Array(mark)).unwrap();
        assert_eq!((mark.event.as_str(), mark.key, mark.value), ("progress", None, None));
        assert_eq!(change(Value::Array(vec![bulk("message"), bulk("a"), bulk("b")])), None);
        assert_eq!(change(Value::Nil), None);
    }

    #[test]
    fn line_is_one_line_in_each_form() {
        let shown = |style| {
            let look = Look { style, paint: Paint::OFF };
            String::from_utf8(line(&set(), look)).unwrap()
        };
        assert_eq!(shown(Style::Raw), "7 set \"k1\" \"a \\\"b\\\"\\n\" expires_at_ms=9000\n");
        let json =
            r#"{"event":"set","expires_at_ms":9000,"key":"k1","revision":7,"value":"a \"b\"\n"}"#;
        assert_eq!(shown(Style::Json), format!("{json}\n"));
        assert_eq!(shown(Style::Csv), "7,\"set\",\"k1\",\"a \"\"b\"\"\n\",9000\r\n");
    }
}
