//! The reports as JSON, one document to a line.
//!
//! Called by `inspect`. Random numbers of 64 bits are strings, because many readers of JSON round
//! large numbers: incarnations decimal, as logs and `INFO` have them, digests hexadecimal. Nothing is
//! left out: what isn't there is `null`.

use std::fmt::{Display, Write as _};

use raftkv::proto::record::{Body, Record};
use raftkv::raft::membership::Membership;
use raftkv::storage::inspection::{
    FileReport, Report, SegmentReport, SnapshotReport, Start, Verdict,
};
use raftkv::storage::meta::{Meta, Standing};
use raftkv::types::SnapshotId;

use super::{relative, table};

/// An object that is being written.
struct Object(String);

impl Object {
    fn new() -> Object {
        Object("{".to_owned())
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        write!(self.0, "\"{key}\":").expect("a String takes all that is written");
    }

    /// A number, a boolean or what is JSON already.
    fn raw(mut self, key: &str, value: impl Display) -> Object {
        self.key(key);
        write!(self.0, "{value}").expect("a String takes all that is written");
        self
    }

    fn text(self, key: &str, value: impl Display) -> Object {
        let quoted = quote(&value.to_string());
        self.raw(key, quoted)
    }

    fn optional(self, key: &str, value: Option<impl Display>) -> Object {
        match value {
            Some(value) => self.raw(key, value),
            None => self.raw(key, "null"),
        }
    }

    fn list(self, key: &str, items: impl Iterator<Item = String>) -> Object {
        let items: Vec<String> = items.collect();
        self.raw(key, format!("[{}]", items.join(",")))
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A string of JSON (RFC 8259 §7).
fn quote(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            control if control < ' ' => {
                let code = u32::from(control);
                write!(quoted, "\\u{code:04x}").expect("a String takes all that is written");
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn hex(number: u64) -> String {
    quote(&format!("{number:016x}"))
}

/// What `verify --json` prints.
pub fn verify(report: &Report) -> String {
    let first = report.first_bad().map(|(path, offset, what)| {
        let object = Object::new().text("file", relative(report, path)).raw("offset", offset);
        object.text("what", what).end()
    });
    let files = report.files.iter().map(|file| self::file(report, file));
    let is_sound = first.is_none() && matches!(report.start, Start::Recovers { .. });
    Object::new()
        .text("directory", report.dir.display())
        .raw("sound", is_sound)
        .optional("first_bad", first)
        .list("files", files)
        .raw("start", start(&report.start))
        .end()
}

fn file(report: &Report, file: &FileReport) -> String {
    let (verdict, place) = match &file.verdict {
        Verdict::Sound => ("sound", None),
        Verdict::Torn { offset, what } => ("torn", Some((offset, what))),
        Verdict::Bad { offset, what } => ("bad", Some((offset, what))),
        Verdict::Leftover => ("leftover", None),
        Verdict::NotRead => ("not-read", None),
    };
    Object::new()
        .text("file", relative(report, &file.path))
        .raw("bytes", file.bytes)
        .text("verdict", verdict)
        .optional("offset", place.map(|(offset, _)| offset))
        .optional("what", place.map(|(_, what)| quote(what)))
        .end()
}

fn start(start: &Start) -> String {
    let object = Object::new();
    let object = match start {
        Start::Recovers { snapshot, last, hard_state, is_sealed } => object
            .text("does", "recovers")
            .optional("snapshot", snapshot.map(id))
            .raw("last_index", last)
            .raw("term", hard_state.current_term)
            .optional("voted_for", hard_state.voted_for)
            .raw("sealed", is_sealed),
        Start::SetsAside { kept, why } => {
            object.text("does", "sets-aside").text("kept", kept.display()).text("why", why)
        }
        Start::Refuses { error, hint } => {
            object.text("does", "refuses").text("why", error).text("hint", hint)
        }
    };
    object.end()
}

fn id(id: SnapshotId) -> String {
    Object::new().raw("index", id.index).raw("term", id.term).end()
}

/// What `inspect --json` prints.
pub fn inspect(report: &Report) -> String {
    let snapshots = report.snapshots.iter().map(snapshot);
    let segments = report.segments.iter().map(|one| segment(report, one));
    Object::new()
        .text("directory", report.dir.display())
        .optional("meta", report.meta.as_ref().map(meta))
        .list("files", report.files.iter().map(|one| file(report, one)))
        .list("snapshots", snapshots)
        .list("segments", segments)
        .raw("start", start(&report.start))
        .end()
}

fn meta(meta: &Meta) -> String {
    let (standing, aside) = match &meta.standing {
        Standing::Sound => ("sound", None),
        Standing::OldCopy => ("old-copy", None),
        Standing::Contradicted(_) => ("contradicted", None),
        Standing::Unfinished => ("unfinished", None),
        Standing::SettingAside(aside) => ("setting-aside", Some(aside)),
        Standing::Recovering(aside) => ("recovering", Some(aside)),
    };
    let peers = meta.peers.iter().map(|peer| {
        let object = Object::new().raw("server", peer.server);
        object.text("incarnation", peer.incarnation).raw("boot", peer.boot).end()
    });
    Object::new()
        .raw("cluster", hex(meta.cluster.0))
        .text("cluster_name", &meta.cluster_name)
        .raw("lineage", hex(meta.lineage.0))
        .raw("server", meta.server)
        .text("incarnation", meta.incarnation)
        .raw("boot", meta.boot)
        .text("standing", standing)
        .optional("set_aside_number", aside.map(|aside| aside.number))
        .optional("set_aside_why", aside.map(|aside| quote(&aside.why)))
        .list("peers", peers)
        .end()
}

/// A snapshot's header and whether its file is whole.
pub fn snapshot(report: &SnapshotReport) -> String {
    let object = Object::new()
        .text("file", report.path.display())
        .raw("bytes", report.bytes)
        .raw("sound", report.error.is_none())
        .optional("error", report.error.as_ref().map(|error| quote(&error.to_string())));
    let Some(header) = &report.header else {
        return object.raw("header", "null").end();
    };
    let membership = Membership::decode(&header.membership);
    let members = membership.iter().flat_map(|membership| membership.members());
    let members = members.map(|member| {
        Object::new()
            .raw("id", member.id)
            .raw("voter", member.voter || member.outgoing_voter)
            .text("peer", &member.peer)
            .text("client", &member.client)
            .end()
    });
    let header = Object::new()
        .raw("cluster", hex(header.cluster.0))
        .raw("index", header.id.index)
        .raw("term", header.id.term)
        .raw("membership_index", header.membership_index)
        .list("members", members)
        .raw("cluster_time_ms", header.clock)
        .raw("revision", header.revision)
        .raw("digest", hex(header.digest))
        .raw("command_set", header.command_set)
        .raw("gateways", header.gateways.len())
        .end();
    object.raw("header", header).end()
}

fn segment(report: &Report, segment: &SegmentReport) -> String {
    Object::new()
        .text("file", relative(report, &segment.path))
        .raw("number", segment.number)
        .raw("bytes", segment.bytes)
        .raw("used", segment.used)
        .raw("records", segment.records)
        .optional("first", segment.entries.map(|(first, _)| id(first)))
        .optional("last", segment.entries.map(|(_, last)| id(last)))
        .optional("sealed_by_boot", segment.sealed)
        .raw("continues", segment.continues)
        .end()
}

/// A record of the log.
pub fn record(segment: u64, offset: u64, record: &Record) -> String {
    let object = Object::new()
        .raw("segment", segment)
        .raw("offset", offset)
        .raw("write", record.write)
        .raw("ends_write", record.ends_write)
        .text("kind", table::kind(&record.body));
    let object = match &record.body {
        Body::Entry(entry) => object
            .raw("index", entry.index)
            .raw("term", entry.term)
            .raw("cluster_time_ms", entry.time)
            .raw("payload_bytes", entry.payload.len()),
        Body::HardState(state) => {
            object.raw("term", state.current_term).optional("voted_for", state.voted_for)
        }
        Body::Truncation(from) => object.raw("index", from),
        Body::Reset(id) | Body::Continued(id) => object.raw("index", id.index).raw("term", id.term),
        Body::Seal(boot) => object.raw("boot", boot),
        Body::Continues => object,
    };
    object.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_quote_what_json_quotes() {
        let object = Object::new().text("a", "x\"\\\n\u{1}é").raw("b", 7).optional("c", None::<u8>);
        let text = object.list("d", ["1".to_owned(), "2".to_owned()].into_iter()).end();
        assert_eq!(text, "{\"a\":\"x\\\"\\\\\\n\\u0001é\",\"b\":7,\"c\":null,\"d\":[1,2]}");
    }
}
