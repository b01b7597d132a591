//! `--stat`: a line about a node each second: what it holds, what it does, and what it is.
//!
//! Made from INFO, of the node that the client is connected to. Called by `main`.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use raftkv::client::{Client, ClientError};
use raftkv::proto::reply_decoder::Value;
use serde_json::json;

use super::Outcome;
use super::paint::Colour;
use super::render::{self, Look, Style};

/// Lines between two headings.
const PAGE: u64 = 20;

/// What a line tells.
#[derive(Clone, PartialEq, Debug)]
struct Sample {
    node: String,
    role: String,
    term: u64,
    leader: u64,
    keys: u64,
    memory_bytes: u64,
    clients: u64,
    /// All commands so far.
    commands: u64,
    commit: u64,
    applied: u64,
}

/// Shows a line each `interval`, `count` lines at most.
pub fn run(
    client: &mut Client,
    interval: Duration,
    count: Option<u64>,
    look: Look,
) -> io::Result<Outcome> {
    let mut last: Option<(Instant, Sample)> = None;
    // Only an extra: without it fail-over goes to the given endpoints alone.
    let _ = client.discover();
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        if shown > 0 {
            std::thread::sleep(interval);
        }
        let sample = match ask(client) {
            Ok(sample) => sample,
            Err(error) => {
                let line = render::error(&error, Look { style: Style::Raw, ..look });
                io::stderr().write_all(line.as_bytes())?;
                return Ok(Outcome::Failed);
            }
        };
        let now = Instant::now();
        let before = last.as_ref().filter(|(_, before)| before.node == sample.node);
        let rate = before.map(|(at, before)| {
            let done = sample.commands.saturating_sub(before.commands);
            done as f64 / now.duration_since(*at).as_secs_f64()
        });
        let mut stdout = io::stdout();
        if shown % PAGE == 0 && look.style != Style::Json {
            stdout.write_all(heading(look).as_bytes())?;
        }
        stdout.write_all(line(&sample, rate, look).as_bytes())?;
        stdout.flush()?;
        shown += 1;
        last = Some((now, sample));
    }
    Ok(Outcome::Done)
}

fn ask(client: &mut Client) -> Result<Sample, ClientError> {
    let info = client.command(&["INFO", "everything"])?;
    let text = match &info {
        Value::Bulk(text) | Value::Text(text) => String::from_utf8_lossy(text),
        _ => "".into(),
    };
    Ok(read(&text, client.endpoint()))
}

/// What INFO says; 0 for what it does not.
fn read(info: &str, endpoint: &str) -> Sample {
    let value = |name: &str| {
        let field = |line: &str| {
            line.split_once(':').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        info.lines().find_map(field)
    };
    let number = |name: &str| value(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    let keys = value("db0").and_then(|text| {
        let first = text.split(',').next()?;
        first.strip_prefix("keys=")?.parse().ok()
    });
    Sample {
        node: endpoint.to_owned(),
        role: value("raft_role").unwrap_or_default(),
        term: number("raft_term"),
        leader: number("raft_leader_id"),
        keys: keys.unwrap_or(0),
        memory_bytes: number("used_memory"),
        clients: number("connected_clients"),
        commands: number("total_commands_processed"),
        commit: number("raft_commit_index"),
        applied: number("raft_applied_index"),
    }
}

const COLUMNS: [(&str, usize); 10] = [
    ("node", 21),
    ("role", 10),
    ("term", 6),
    ("leader", 6),
    ("keys", 10),
    ("memory", 9),
    ("clients", 7),
    ("commands/s", 10),
    ("commit", 11),
    ("behind", 7),
];

fn heading(look: Look) -> String {
    match look.style {
        Style::Csv => {
            let names = COLUMNS.map(|(name, _)| format!("\"{name}\""));
            format!("{}\r\n", names.join(","))
        }
        _ => {
            let names = COLUMNS.map(|(name, width)| format!("{name:>width$}"));
            format!("{}\n", look.paint.paint(Colour::Bold, &names.join(" ")))
        }
    }
}

fn line(sample: &Sample, rate: Option<f64>, look: Look) -> String {
    let behind = sample.commit.saturating_sub(sample.applied);
    if look.style == Style::Json {
        let object = json!({
            "node": sample.node, "role": sample.role, "term": sample.term,
            "leader": sample.leader, "keys": sample.keys, "memory_bytes": sample.memory_bytes,
            "clients": sample.clients, "commands": sample.commands,
            "commands_per_second": rate, "commit": sample.commit, "behind": behind,
        });
        return format!("{object}\n");
    }
    let is_csv = look.style == Style::Csv;
    let memory = match is_csv {
        true => sample.memory_bytes.to_string(),
        false => human(sample.memory_bytes),
    };
    let rate = rate.map_or(if is_csv { "" } else { "-" }.to_owned(), |rate| format!("{rate:.0}"));
    let cells = [
        sample.node.clone(),
        sample.role.clone(),
        sample.term.to_string(),
        sample.leader.to_string(),
        sample.keys.to_string(),
        memory,
        sample.clients.to_string(),
        rate,
        sample.commit.to_string(),
        behind.to_string(),
    ];
    if is_csv {
        return format!("{}\r\n", cells.join(","));
    }
    let padded: Vec<String> =
        cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:>width$}")).collect();
    let text = padded.join(" ");
    let painted = match sample.role.as_str() {
        "leader" => look.paint.paint(Colour::Green, &text),
        "follower" => text,
        _ => look.paint.paint(Colour::Yellow, &text),
    };
    format!("{painted}\n")
}

/// Bytes as people read them.
pub fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{size:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::super::paint::Paint;
    use super::*;

    #[test]
    fn line_tells_what_info_says() {
        let info = "# Memory\r\nused_memory:2097152\r\nconnected_clients:3\r\nraft_role:leader\r\n\
                    raft_term:4\r\nraft_leader_id:2\r\nraft_commit_index:12\r\n\
                    raft_applied_index:10\r\ntotal_commands_processed:99\r\n\
                    db0:keys=7,expires=0,avg_ttl=0\r\n";
        let sample = read(info, "a:1");
        let raw = Look { style: Style::Raw, paint: Paint::OFF };
        let words: Vec<String> =
            line(&sample, Some(10.4), raw).split_whitespace().map(str::to_owned).collect();
        let expected = ["a:1", "leader", "4", "2", "7", "2.0", "MiB", "3", "10", "12", "2"];
        assert_eq!(words, expected);
        let heading = heading(raw);
        assert_eq!(heading.len(), line(&sample, None, raw).len(), "columns stand under names");
        let json = Look { style: Style::Json, ..raw };
        let object: serde_json::Value = serde_json::from_str(&line(&sample, None, json)).unwrap();
        assert_eq!(object["keys"], 7);
        assert_eq!(object["commands_per_second"], serde_json::Value::Null);
        let csv = Look { style: Style::Csv, ..raw };
        assert_eq!(line(&sample, None, csv), "a:1,leader,4,2,7,2097152,3,,12,2\r\n");
    }

    #[test]
    fn human_keeps_numbers_short() {
        let shown = [0, 1023, 1024, 1536, 1 << 30].map(human);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 GiB"]);
    }
}
