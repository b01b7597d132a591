//! docs/COMMANDS.md: made from the command table and the manual, and as fresh as they are.
//!
//! `RAFTKV_WRITE=1 cargo test --test surface commands_page` writes it anew.

use std::fmt::Write as _;

use raftkv::kv::command::{self, Command, Flags, Handler};
use raftkv::kv::manual::{self, Entry};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/COMMANDS.md");

const HEAD: &str = "\
# Commands

Made from the command table by `RAFTKV_WRITE=1 cargo test --test surface commands_page`: don't edit. Where a
command says nothing of Redis, it answers as Redis 7.0 does, errors to the letter.

Every command can be sent to every node. These errors can come from many of them:

| error | when |
|---|---|
| `ERR unknown command ...` | there is none of that name; for commands on other types than strings, and for scripts, it says so |
| `ERR wrong number of arguments for '...' command` | |
| `ERR a command of ... arguments: at most 32768 at once` | more would keep all other clients waiting; a transaction has no more in all |
| `ERR key exceeds maximum allowed size (65536 bytes)` | a key is too long |
| `CLUSTERDOWN ...` | no majority could be reached, or not every node knows the command yet: surely not done |
| `INDOUBT ...` | a write may have been done, or be done yet |
| `LOADING ... (NN%)` | this node is loading a snapshot; another one may serve |
| `OOM ...` | the store is at its quota: commands marked *grows* are refused |
| `MISCONF ...` | the leader's disk is full, likewise |

Marks: *write*, *read*: through the log, linearizably. *grows*: may make the store larger. *node*:
answered by the node that is asked, without the log.
";

fn runnable() -> Vec<&'static Command> {
    command::all()
        .flat_map(|row| std::iter::once(row).chain(row.subcommands))
        .filter(|row| !matches!(row.handler, Handler::Container))
        .collect()
}

fn marks(row: &Command) -> &'static str {
    match row.handler {
        Handler::Write { .. } if row.flags.contains(Flags::DENYOOM) => "*write, grows*",
        Handler::Write { .. } => "*write*",
        Handler::Read { .. } => "*read*",
        Handler::Connection { .. } | Handler::Container => "*node*",
    }
}

fn describe(page: &mut String, row: &Command, entry: &Entry) {
    let name = row.name.replace('|', " ").to_ascii_uppercase();
    let syntax = format!("{name} {}", row.usage);
    let _ = writeln!(page, "\n### {name}\n\n```\n{}\n```\n", syntax.trim_end());
    let summary = row.summary.trim_end_matches('.');
    let _ = writeln!(page, "{summary}. {} since {}, {}", marks(row), row.since, row.complexity);
    for (what, text) in
        [("Replies", entry.replies), ("Errors", entry.errors), ("Differs", entry.differs)]
    {
        if !text.is_empty() {
            let _ = writeln!(page, "- {what}: {text}");
        }
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let rows = runnable();
    let mut groups: Vec<&str> = rows.iter().map(|row| row.group.name()).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let _ = writeln!(page, "\n## {group}");
        let mut of_group: Vec<&&Command> =
            rows.iter().filter(|row| row.group.name() == group).collect();
        of_group.sort_by_key(|row| row.name);
        for row in of_group {
            let entry = manual::entry(row.name).unwrap_or_else(|| panic!("{}: no entry", row.name));
            describe(&mut page, row, entry);
        }
    }
    page
}

#[test]
fn page_is_as_fresh_as_the_table() {
    let made = page();
    if std::env::var_os("RAFTKV_WRITE").is_some() {
        std::fs::write(PAGE, &made).expect("the page can be written");
    }
    let kept = std::fs::read_to_string(PAGE).unwrap_or_default();
    let differing = made.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
    assert!(made == kept, "docs/COMMANDS.md is stale, first at {differing:?}");
}

#[test]
fn manual_and_table_name_the_same_commands() {
    let rows: Vec<&str> = runnable().iter().map(|row| row.name).collect();
    let entries: Vec<&str> = manual::ENTRIES.iter().map(|entry| entry.name).collect();
    let without: Vec<_> = rows.iter().filter(|name| !entries.contains(name)).collect();
    let stray: Vec<_> = entries.iter().filter(|name| !rows.contains(name)).collect();
    assert!(without.is_empty(), "commands without an entry in kv/manual.rs: {without:?}");
    assert!(stray.is_empty(), "entries without a command: {stray:?}");
    let mut sorted = entries.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), entries.len(), "a command is there twice");
    for entry in manual::ENTRIES {
        assert!(!entry.replies.is_empty() || !entry.errors.is_empty(), "{}", entry.name);
    }
}
