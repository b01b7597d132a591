//! The house rules that a compiler doesn't know, read from the source text: imports go downwards
//! only, pure modules touch nothing outside, files stay short, `unsafe` stays in `storage/`.
//!
//! ARCHITECTURE.md has the floors. The reader of the text is in `floors/scan.rs`; here are the
//! rules, and bad snippets that show that each of them can fail.

#[path = "floors/scan.rs"]
mod scan;

use std::fs;
use std::path::{Path, PathBuf};

use scan::{Found, paths, words};

/// The floors, lowest first. A module may name itself and what is below; on the floors marked so,
/// its neighbours too.
const FLOORS: [(&[&str], bool); 7] = [
    (&["types", "limits", "testing"], true),
    (&["proto", "config"], true),
    (&["raft", "kv"], false),
    (&["node", "storage"], false),
    (&["driver"], false),
    (&["event_loop", "sim", "client"], false),
    (&["main", "daemon", "tools"], true),
];

/// What decides, and so must run the same in a simulator.
const PURE: [&str; 4] = ["raft", "kv", "node", "proto"];

/// The modules of std that a pure module must not name, each with what is a mere value in it.
const OUTSIDE: [(&str, &[&str]); 5] = [
    ("net", &["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr"]),
    ("fs", &[]),
    ("time", &["Duration"]),
    ("thread", &[]),
    ("env", &[]),
];

/// Packages that reach the system.
const SYSTEM_PACKAGES: [&str; 7] =
    ["mio", "rustix", "io_uring", "libc", "getrandom", "signal_hook", "signal_hook_mio"];

/// Their iteration order differs from run to run.
const UNORDERED: [&str; 5] = ["HashMap", "HashSet", "hash_map", "hash_set", "RandomState"];

/// All that a pure module needs of `rand`: the traits of a generator that it was given a seed for.
const SEEDED: [&str; 3] = ["Rng", "RngExt", "SeedableRng"];

/// A file that is longer is two ideas.
const FILE_LINES: usize = 600;

/// A file's text with its place in the package.
struct Source {
    /// From the package's root: `src/raft/log.rs`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// Where it stands in the crate: `["raft", "log"]`. The tools are crates of their own.
    fn module(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        let Some(inside) = path.strip_prefix("src/") else {
            return vec!["tools".to_owned()];
        };
        let mut module: Vec<String> = inside.split('/').map(str::to_owned).collect();
        if module[0] == "loop" {
            module[0] = "event_loop".to_owned();
        }
        if module.last().is_some_and(|name| name == "mod") {
            module.pop();
        }
        if module == ["lib"] { Vec::new() } else { module }
    }

    fn complaint(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// The floor of a top-level module, and whether neighbours on it may know each other.
fn floor(module: &str) -> Option<(usize, bool)> {
    let holds = |(names, _): &(&[&str], bool)| names.contains(&module);
    FLOORS.iter().position(holds).map(|position| (position, FLOORS[position].1))
}

/// Imports that go upwards or sideways.
fn check_floors(source: &Source) -> Vec<String> {
    let module = source.module();
    // lib.rs names everything, and imports nothing.
    let Some(own) = module.first() else {
        return Vec::new();
    };
    let Some((own_floor, knows_neighbours)) = floor(own) else {
        return vec![source.complaint(1, &format!("{own} has no floor: give it one in FLOORS"))];
    };
    if own_floor + 1 == FLOORS.len() {
        // Binaries: `crate` is the program itself there, and the whole library is below it.
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for Found { line, path } in paths(&source.text, &module) {
        if path[0] != "crate" {
            continue;
        }
        let Some(named) = path.get(1) else {
            complaints.push(source.complaint(line, "names the whole crate"));
            continue;
        };
        if named == own {
            continue;
        }
        let problem = match floor(named) {
            None => format!("{own} names {named}, which has no floor"),
            Some((other, _)) if other > own_floor => format!("{own} names {named}, above it"),
            Some((other, _)) if other == own_floor && !knows_neighbours => {
                format!("{own} names {named}, and neither may know the other")
            }
            Some(_) => continue,
        };
        complaints.push(source.complaint(line, &problem));
    }
    complaints
}

/// What would make a pure module depend on more than its inputs.
fn check_purity(source: &Source) -> Vec<String> {
    let module = source.module();
    if !module.first().is_some_and(|name| PURE.contains(&name.as_str())) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for Found { line, path } in paths(&source.text, &module) {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let is_impure = match names.as_slice() {
            ["std"] | ["std", "*" | "self"] => true,
            ["std", outside, rest @ ..] => OUTSIDE.iter().any(|(name, values)| {
                name == outside && !rest.first().is_some_and(|value| values.contains(value))
            }),
            ["rand", rest @ ..] => !rest.first().is_some_and(|name| SEEDED.contains(name)),
            [package, ..] => SYSTEM_PACKAGES.contains(package),
            [] => false,
        };
        if is_impure || names.iter().any(|name| UNORDERED.contains(name)) {
            let what = format!("{} is pure, and names {}", module[0], names.join("::"));
            complaints.push(source.complaint(line, &what));
        }
    }
    complaints
}

fn check_length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let what = format!("{lines} lines; past {FILE_LINES} a file is two ideas");
    if lines > FILE_LINES { vec![source.complaint(lines, &what)] } else { Vec::new() }
}

fn check_unsafe(source: &Source) -> Vec<String> {
    if source.path.starts_with("src/storage/") {
        return Vec::new();
    }
    let found = words(&source.text).into_iter().filter(|(_, word)| word == "unsafe");
    found.map(|(line, _)| source.complaint(line, "unsafe outside src/storage")).collect()
}

/// Every Rust file of `src/` and `tools/`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut left: Vec<PathBuf> = vec![root.join("src"), root.join("tools")];
    let mut sources = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            sources.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
        }
    }
    sources.sort_by(|left, right| left.path.cmp(&right.path));
    assert!(sources.len() > 50, "the whole package was read");
    sources
}

fn complaints(check: fn(&Source) -> Vec<String>) -> Vec<String> {
    sources().iter().flat_map(check).collect()
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn imports_go_downwards() {
    assert_none(&complaints(check_floors));
}

#[test]
fn pure_modules_touch_nothing_outside() {
    assert_none(&complaints(check_purity));
}

#[test]
fn files_stay_short() {
    assert_none(&complaints(check_length));
}

#[test]
fn unsafe_stays_in_storage() {
    assert_none(&complaints(check_unsafe));
}

#[test]
fn check_floors_refuses_what_goes_up_or_sideways() {
    let refused = |path: &str, text: &str| check_floors(&Source::new(path, text));
    assert_eq!(
        refused("src/raft/log.rs", "//! Log.\nuse crate::types::Term;\nuse crate::kv::store;\n"),
        ["src/raft/log.rs:3: raft names kv, and neither may know the other"]
    );
    let upwards = [
        ("src/raft/log.rs", "use crate::node::Node;"),
        ("src/raft/log.rs", "use crate::{types::Term, node::Node};"),
        ("src/raft/log.rs", "use super::super::node;"),
        ("src/raft/mod.rs", "use super::node;"),
        ("src/raft/log.rs", "fn f() { crate::node::Node::new() }"),
        ("src/raft/log.rs", "mod tests { use super::super::super::node; }"),
        ("src/types.rs", "use super::proto::entry::Entry;"),
        ("src/limits.rs", "use crate::config;"),
        ("src/proto/frame.rs", "use crate::raft::Raft;"),
        ("src/storage/meta.rs", "use crate::node::Node;"),
        ("src/node/node.rs", "use crate::storage::Storage;"),
        ("src/node/node.rs", "use crate::event_loop::Clock;"),
        ("src/client/mod.rs", "use crate::event_loop::Clock;"),
        ("src/loop/mod.rs", "use crate::client::Client;"),
        ("src/kv/store.rs", "use crate as all;"),
        ("src/kv/store.rs", "use crate::*;"),
        ("src/kv/mod.rs", "use super as all;"),
        ("src/kv/store.rs", "use crate::unheard_of::Thing;"),
        ("src/unheard_of.rs", ""),
    ];
    for (path, text) in upwards {
        assert_eq!(refused(path, text).len(), 1, "{path}: {text}");
    }
}

#[test]
fn check_floors_takes_what_goes_down() {
    let downwards = [
        ("src/node/node.rs", "use crate::{raft::Raft, kv::machine, proto, types::Term};"),
        ("src/node/node.rs", "use super::{Effect, gateway::Gateway};"),
        ("src/proto/entry.rs", "use crate::config::Config;"),
        ("src/types.rs", "mod tests { use super::*; }"),
        ("src/raft/mod.rs", "pub(super) fn f() {} pub(crate) fn g() {}"),
        ("src/types.rs", "/// See [`crate::node::Node`].\n// use crate::node;\nstruct A;"),
        ("src/types.rs", "const A: &str = \"crate::node\"; const B: char = '\"';"),
        ("src/raft/log.rs", "/* crate::node /* crate::node */ crate::node */"),
        ("src/daemon/run.rs", "use crate::daemon::fail; use raftkv::node::Node;"),
        ("tools/rkv-cli/main.rs", "use crate::render; use raftkv::client::Client;"),
    ];
    for (path, text) in downwards {
        assert_none(&check_floors(&Source::new(path, text)));
    }
}

#[test]
fn check_purity_refuses_the_world_outside() {
    let refused = |text: &str| check_purity(&Source::new("src/kv/store.rs", text));
    assert_eq!(
        refused("use std::{\n    fmt,\n    time::Instant,\n};"),
        ["src/kv/store.rs:3: kv is pure, and names std::time::Instant"]
    );
    let impure = [
        "use std::time::SystemTime;",
        "use std::time::{Duration, Instant};",
        "use std::time;",
        "use std::time::*;",
        "use std::time::{self};",
        "use std::*;",
        "use std as s;",
        "use std::net::TcpStream;",
        "use std::fs::File;",
        "fn f() { let x = std::thread::spawn(g); }",
        "fn f() { ::std::env::args(); }",
        "use std::collections::{BTreeMap, HashMap};",
        "fn f(set: std::collections::HashSet<u8>) {}",
        "use mio::Poll;",
        "use rand::rngs::SysRng;",
        "fn f() -> u8 { rand::random() }",
        "use rand::{RngExt, rng};",
    ];
    for text in impure {
        assert_eq!(refused(text).len(), 1, "{text}");
    }
    let pure = [
        "use std::time::Duration; use std::net::SocketAddr; use std::collections::BTreeMap;",
        "use rand::{RngExt, SeedableRng}; use rand_xoshiro::Xoshiro256PlusPlus;",
        "const VERSION: &str = env!(\"CARGO_PKG_VERSION\");",
        "// std::fs::File, HashMap\nconst A: &str = r#\"std::fs \"HashMap\"#;",
        "fn f<'fs>(time: &'fs u64) -> char { '\\'' }",
    ];
    for text in pure {
        assert_none(&refused(text));
    }
    assert_none(&check_purity(&Source::new("src/storage/real.rs", "use std::fs::File;")));
}

#[test]
fn check_length_and_check_unsafe_name_the_line() {
    let long = Source::new("src/kv/store.rs", &"\n".repeat(FILE_LINES + 1));
    assert_eq!(check_length(&long).len(), 1);
    assert_none(&check_length(&Source::new("src/kv/store.rs", &"\n".repeat(FILE_LINES))));

    let text = "#![deny(unsafe_code)]\n// unsafe\nfn f() {\n    unsafe { g() }\n}\n";
    let found = check_unsafe(&Source::new("src/loop/mod.rs", text));
    assert_eq!(found, ["src/loop/mod.rs:4: unsafe outside src/storage"]);
    assert_eq!(check_unsafe(&Source::new("tools/rkv-cli/main.rs", text)).len(), 1);
    assert_none(&check_unsafe(&Source::new("src/storage/uring.rs", text)));
}

/// The numbered path through the files, as one line of plain words: without link targets,
/// backticks and line breaks, and with the folder's name for the loop.
fn reading_path(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches("//!").trim()).collect();
    let begin = lines.iter().position(|line| line.starts_with("1. [")).unwrap_or(lines.len());
    let end = lines[begin..].iter().position(|line| line.is_empty());
    let path = lines[begin..end.map_or(lines.len(), |end| begin + end)].join(" ");
    let mut plain = String::new();
    let mut rest = path.as_str();
    while let Some((before, after)) = rest.split_once("](") {
        plain.push_str(before);
        plain.push(']');
        rest = after.split_once(')').map_or("", |(_target, after)| after);
    }
    plain.push_str(rest);
    plain.replace(['[', ']', '`'], "").replace("event_loop", "loop")
}

#[test]
fn the_reading_path_is_one_and_the_same_in_its_three_places() {
    let read = |path: &str| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
    };
    let own = reading_path(&read("src/lib.rs"));
    assert!(own.starts_with("1. types and limits") && own.contains("11. "), "{own}");
    assert_eq!(reading_path(&read("ARCHITECTURE.md")), own);
    assert_eq!(reading_path(&read("README.md")), own);
}

#[test]
fn a_reading_path_that_differs_is_seen() {
    let one = "//! 1. [`types`]: the\n//!    words.\n//! 2. [`event_loop`]: it.\n//!\n//! More.";
    let same =
        "text\n\n1. [types](src/types.rs): the words.\n2. [loop](src/loop):\n   it.\n\nMore.";
    assert_eq!(reading_path(one), reading_path(same));
    assert_ne!(reading_path(one), reading_path(&same.replace("words", "terms")));
}
