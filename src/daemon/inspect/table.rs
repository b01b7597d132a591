//! The reports as text for people.
//!
//! Called by `inspect`. A line for each thing, aligned; sizes in bytes, times as they are kept.

use std::fmt::Write as _;

use raftkv::proto::entry::EntryKind;
use raftkv::proto::record::{Body, Record};
use raftkv::raft::membership::Membership;
use raftkv::storage::inspection::{Report, SegmentReport, SnapshotReport, Start, Verdict};
use raftkv::storage::meta::{Meta, Standing};
use raftkv::types::{Divergence, Lineage, ServerId};

use super::relative;

/// Lines that are being gathered.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        writeln!(self.0, "{line}").expect("a String takes all that is written");
    }

    fn named(&mut self, name: &str, value: &str) {
        self.line(&format!("{name:<15} {value}"));
    }
}

/// What `verify` prints.
pub fn verify(report: &Report) -> String {
    let mut text = Text::default();
    for file in &report.files {
        let verdict = match &file.verdict {
            Verdict::Sound => "ok".to_owned(),
            Verdict::Torn { offset, what } => {
                format!("ok, torn by a crash: a start cuts it off at offset {offset} ({what})")
            }
            Verdict::Bad { offset, what } => format!("BAD from offset {offset} on: {what}"),
            Verdict::Leftover => "a leftover: a start removes it".to_owned(),
            Verdict::NotRead => "not read: whose it is cannot be told".to_owned(),
        };
        let name = relative(report, &file.path).to_string();
        text.line(&format!("{name:<34} {:>12} bytes  {verdict}", file.bytes));
    }
    text.line(&start(&report.start));
    text.0
}

/// What a start would do, in words.
pub fn start(start: &Start) -> String {
    match start {
        Start::Recovers { snapshot, last, .. } => match snapshot {
            Some(id) if id.index == *last => {
                format!("a start recovers the snapshot at entry {last}, and no entry behind it")
            }
            Some(id) => format!(
                "a start recovers the snapshot at entry {}, and the entries up to {last}",
                id.index
            ),
            None => format!("a start recovers the entries up to {last}"),
        },
        Start::SetsAside { kept, why } => format!(
            "a start sets all files aside, into {}, and the server must be admitted again: {why}",
            kept.display()
        ),
        Start::Refuses { error, hint } if hint.is_empty() => format!("no start: {error}"),
        Start::Refuses { error, hint } => format!("no start: {error}; {hint}"),
    }
}

/// What `inspect` prints.
pub fn inspect(report: &Report) -> String {
    let mut text = Text::default();
    text.named("data directory", &report.dir.display().to_string());
    if let Some(meta) = &report.meta {
        describe(meta, &mut text);
    }
    if let Start::Recovers { hard_state, is_sealed, .. } = &report.start {
        text.named("term", &voted(hard_state.current_term.0, hard_state.voted_for));
        let sealed = if *is_sealed { "ended cleanly" } else { "not ended cleanly" };
        text.named("log", sealed);
    }
    for file in &report.files {
        if let Verdict::Bad { offset, what } | Verdict::Torn { offset, what } = &file.verdict {
            let kind = if matches!(file.verdict, Verdict::Bad { .. }) { "bad" } else { "torn" };
            let place = format!("{} from offset {offset} on: {what}", relative(report, &file.path));
            text.named(kind, &place);
        }
    }
    text.line(&start(&report.start));
    for one in &report.snapshots {
        text.line("");
        text.0.push_str(&snapshot(one));
    }
    if !report.segments.is_empty() {
        text.line("");
        text.line(&format!(
            "{:<26} {:>10} {:>10} {:>9} {:>9} {:>10} {:>10}  end",
            "segment", "first", "last", "terms", "records", "used", "bytes"
        ));
    }
    for one in &report.segments {
        text.line(&segment(report, one));
    }
    text.0
}

fn describe(meta: &Meta, text: &mut Text) {
    text.named("cluster", &format!("{} ({:016x})", meta.cluster_name, meta.cluster.0));
    if meta.lineage != Lineage::ZERO {
        text.named("lineage", &format!("{:016x}", meta.lineage.0));
    }
    text.named("server", &meta.server.to_string());
    text.named("incarnation", &meta.incarnation.to_string());
    text.named("boot", &meta.boot.to_string());
    let standing = match &meta.standing {
        Standing::Sound => "sound".to_owned(),
        Standing::OldCopy => "an old copy of a directory".to_owned(),
        Standing::Contradicted(Divergence { index, own, majority }) => format!(
            "contradicted by a majority: up to entry {index} its digest was {own:016x}, and theirs \
             {majority:016x}"
        ),
        Standing::Unfinished => "unfinished: a restore or recover-quorum was broken off".to_owned(),
        Standing::SettingAside(aside) => {
            format!("being set aside into damaged-{}: {}", aside.number, aside.why)
        }
        Standing::Recovering(aside) => {
            format!("recovering, set aside into damaged-{}: {}", aside.number, aside.why)
        }
    };
    text.named("standing", &standing);
    for peer in &meta.peers {
        let known = format!("on data directory {}, boot {}", peer.incarnation, peer.boot);
        text.named(&format!("has met {}", peer.server), &known);
    }
}

fn voted(term: u64, voted_for: Option<ServerId>) -> String {
    match voted_for {
        Some(server) => format!("{term}, voted for server {server}"),
        None => format!("{term}, no vote given"),
    }
}

/// A snapshot's header and whether its file is whole.
pub fn snapshot(report: &SnapshotReport) -> String {
    let mut text = Text::default();
    text.named("snapshot", &report.path.display().to_string());
    let state = match &report.error {
        None => "ok".to_owned(),
        Some(error) => format!("BAD: {error}"),
    };
    text.named("  bytes", &format!("{}  {state}", report.bytes));
    let Some(header) = &report.header else {
        return text.0;
    };
    text.named("  cluster", &format!("{:016x}", header.cluster.0));
    text.named("  last entry", &format!("{} of term {}", header.id.index, header.id.term));
    text.named("  revision", &header.revision.to_string());
    text.named("  cluster time", &format!("{} ms since 1970", header.clock));
    text.named("  digest", &format!("{:016x}", header.digest));
    text.named("  command set", &header.command_set.to_string());
    text.named("  gateways", &header.gateways.len().to_string());
    let members = Membership::decode(&header.membership).map(|membership| {
        let member = |member: &raftkv::raft::membership::Member| {
            let learns = if member.is_learner() { " (learner)" } else { "" };
            format!("{} at {}{learns}", member.id, member.peer)
        };
        let members: Vec<String> = membership.members().iter().map(member).collect();
        members.join(", ")
    });
    let members = members.unwrap_or_else(|| "not readable".to_owned());
    text.named("  members", &format!("{members} (by entry {})", header.membership_index));
    text.0
}

fn segment(report: &Report, segment: &SegmentReport) -> String {
    let (mut first, mut last, mut terms) = ("-".to_owned(), "-".to_owned(), "-".to_owned());
    if let Some((from, to)) = segment.entries {
        (first, last) = (from.index.to_string(), to.index.to_string());
        terms = if from.term == to.term {
            from.term.to_string()
        } else {
            format!("{}-{}", from.term, to.term)
        };
    }
    let end = match segment.sealed {
        Some(boot) => format!("sealed by boot {boot}"),
        None if segment.continues => "continues".to_owned(),
        None => "open".to_owned(),
    };
    format!(
        "{:<26} {first:>10} {last:>10} {terms:>9} {:>9} {:>10} {:>10}  {end}",
        relative(report, &segment.path).to_string(),
        segment.records,
        segment.used,
        segment.bytes
    )
}

/// What a record is, in a word.
pub fn kind(body: &Body) -> &'static str {
    match body {
        Body::Entry(entry) => match entry.kind {
            EntryKind::Empty => "empty",
            EntryKind::Batch => "batch",
            EntryKind::Membership => "membership",
            EntryKind::CommandSet => "command-set",
        },
        Body::HardState(_) => "hard-state",
        Body::Truncation(_) => "truncation",
        Body::Continues => "continues",
        Body::Seal(_) => "seal",
        Body::Reset(_) => "reset",
        Body::Continued(_) => "continued",
    }
}

/// A record of the log, on a line.
pub fn record(segment: u64, offset: u64, record: &Record) -> String {
    let what = match &record.body {
        Body::Entry(entry) => {
            format!("{} of term {}, {} bytes", entry.index, entry.term, entry.payload.len())
        }
        Body::HardState(state) => voted(state.current_term.0, state.voted_for),
        Body::Truncation(from) => format!("from {from} on"),
        Body::Reset(id) | Body::Continued(id) => format!("behind {} of term {}", id.index, id.term),
        Body::Seal(boot) => format!("by boot {boot}"),
        Body::Continues => String::new(),
    };
    let end = if record.ends_write { "" } else { " ..." };
    let kind = kind(&record.body);
    format!("{segment:016x} {offset:>10}  write {:<8} {kind:<10} {what}{end}", record.write)
}
