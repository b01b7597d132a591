//! rkv-cli as people use it, against real nodes: watching through a node's death, bulk loads, the
//! looking-on modes, tables, colour, the prompt, exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common::{Cluster, eventually, skip, works};
use serde_json::Value as Json;

const PATIENCE: Duration = Duration::from_secs(30);

fn cli(cluster: &Cluster, first: usize) -> Command {
    let mut all: Vec<&str> = cluster.nodes.iter().map(|node| node.client.as_str()).collect();
    all.rotate_left(first);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rkv-cli"));
    command.args(["-c", &all.join(",")]).env_remove("NO_COLOR").env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(cluster: &Cluster, args: &[&str]) -> (Option<i32>, String, String) {
    told(cli(cluster, 0).args(args).output().unwrap())
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json(line: &str) -> Json {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// A child that doesn't outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap)
    }
}

/// Sends `input` through `--pipe`.
fn pipe(cluster: &Cluster, args: &[&str], input: Vec<u8>) -> (Option<i32>, String, String) {
    let mut command = cli(cluster, 0);
    let mut child = command.arg("--pipe").args(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // It ends early where the input is none.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    told(output)
}

#[test]
fn watch_misses_and_repeats_nothing_through_the_death_of_its_node() {
    const CHANGES: usize = 200;
    let mut cluster = Cluster::start();
    let watched = cluster.wait_for_leader();
    let args = ["--json", "--watch", "user:", "-n", &CHANGES.to_string(), "--from", "0"];
    let mut command = cli(&cluster, watched);
    let mut watching = Running(command.args(args).spawn().unwrap());
    let mut lines = watching.lines();
    let mut client = cluster.client(cluster.others(watched)[0]);
    let mut seen = Vec::new();
    let mut last = 0;
    let mut take = |count: usize, seen: &mut Vec<String>| {
        while seen.len() < count {
            let change = json(&lines.next().expect("the watch goes on"));
            let revision = change["revision"].as_u64().unwrap();
            if change["event"] == "progress" {
                assert!(revision >= last, "{change}");
                continue;
            }
            assert!(revision > last, "{change} behind {last}");
            last = revision;
            assert_eq!(change["event"], "set");
            assert_eq!(change["key"], format!("user:{}", change["value"].as_str().unwrap()));
            seen.push(change["value"].as_str().unwrap().to_owned());
        }
    };
    for number in 0..CHANGES {
        if number == CHANGES / 2 {
            // Some were shown already; the others come from elsewhere.
            take(CHANGES / 4, &mut seen);
            cluster.kill(watched);
        }
        client.must(&["SET", "elsewhere", "x"]);
        client.must(&["SET", &format!("user:{number}"), &number.to_string()]);
    }
    take(CHANGES, &mut seen);
    assert_eq!(seen, (0..CHANGES).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(watching.0.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_leaves_a_node_that_has_no_majority() {
    let cluster = Cluster::start();
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    let watched = cluster.others(leader)[0];
    let mut command = cli(&cluster, watched);
    let args = ["--watch", "k", "-n", "2", "--timeout", "1", "--from", "0"];
    let mut watching = Running(command.args(args).spawn().unwrap());
    let mut said = BufReader::new(watching.0.stderr.take().unwrap()).lines();
    let mut lines = watching.lines();
    cluster.client(leader).must(&["SET", "k", "1"]);
    assert!(lines.next().unwrap().ends_with(r#"set "k" "1""#));
    // It goes on to say how far it is, and would do so for ever.
    let others = cluster.others(watched);
    others.iter().for_each(|other| cluster.pause(*other));
    let line = said.next().unwrap().unwrap();
    let endpoint = &cluster.nodes[watched].client;
    assert!(line.starts_with(&format!("rkv-cli: {endpoint}: ")), "{line}");
    assert!(line.ends_with("; going on from 1"), "{line}");
    others.iter().for_each(|other| cluster.resume(*other));
    cluster.wait_until_even();
    cluster.client(leader).must(&["SET", "k", "2"]);
    assert!(lines.next().unwrap().ends_with(r#"set "k" "2""#));
    assert_eq!(watching.0.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_says_why_it_cannot_go_on() {
    let cluster = Cluster::start();
    let (code, out, err) = run(&cluster, &["--watch", &"k".repeat(70_000)]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("key exceeds maximum allowed size"), "{err}");
    // Each form of a change.
    let mut client = cluster.client(0);
    client.must(&["SET", "k 1", "a\"b"]);
    client.must(&["SET", "k2", "x", "PX", "1000000"]);
    client.must(&["DEL", "k2"]);
    let shown = |more: &[&str]| {
        let args = [&["--watch", "k", "--from", "0", "-n", "3"], more].concat();
        let (code, out, _) = run(&cluster, &args);
        assert_eq!(code, Some(0));
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = shown(&[]);
    assert!(lines[0].ends_with(r#" set "k 1" "a\"b""#), "{lines:?}");
    assert!(lines[1].contains(r#" set "k2" "x" expires_at_ms="#), "{lines:?}");
    assert!(lines[2].ends_with(r#" del "k2""#), "{lines:?}");
    let lines = shown(&["--csv"]);
    assert!(lines[0].ends_with(r#","set","k 1","a""b","#), "{lines:?}");
    assert!(shown(&["--color", "always"])[2].contains("\x1b[31mdel\x1b[0m"));
}

#[test]
fn pipe_loads_what_the_client_port_takes_and_counts() {
    let cluster = Cluster::start();
    // 1. RESP and lines by turns, more than goes ahead of replies at once.
    let mut input = Vec::new();
    for number in 0..10_000 {
        let value = "v".repeat(50);
        match number % 2 {
            0 => writeln!(input, "SET key:{number} \"{value}\"\r").unwrap(),
            _ => write!(
                input,
                "*3\r\n$3\r\nSET\r\n${}\r\nkey:{number}\r\n$50\r\n{value}\r\n",
                format!("key:{number}").len()
            )
            .unwrap(),
        }
    }
    input.extend_from_slice(b"\n\nINCR key:1\nGET key:1");
    let (code, out, err) = pipe(&cluster, &[], input.clone());
    assert_eq!((code, out.as_str()), (Some(1), "replies: 10002, errors: 1\n"), "{err}");
    assert_eq!(err, "ERR value is not an integer or out of range\n");
    let mut client = cluster.client(0);
    assert_eq!(client.must(&["DBSIZE"]).number(), Some(10_000));
    let (code, out, _) = pipe(&cluster, &["--json"], b"PING\nPING\n".to_vec());
    let expected = r#"{"errors":0,"in_doubt":0,"not_sent":0,"replies":2}"#;
    assert_eq!((code, out.trim_end()), (Some(0), expected));
    // 2. What is no list of commands: what came before it is carried out.
    let broken: [(&[u8], &str); 3] = [
        (b"SET a 1\n*1\r\nGET\r\n", "expected '$'"),
        (b"SET a 2\n*2\r\n$3\r\nGET\r\n$1\r\n", "the input ends within a command"),
        (b"SET a 3\nSET \"a 4\n", "unbalanced quotes"),
    ];
    for (number, (input, expected)) in broken.into_iter().enumerate() {
        let (code, out, err) = pipe(&cluster, &[], input.to_vec());
        assert_eq!((code, out.as_str()), (Some(2), "replies: 1, errors: 0\n"), "{err}");
        assert!(err.contains(expected), "{err}");
        assert_eq!(client.must(&["GET", "a"]).text(), (number + 1).to_string());
    }
}

#[test]
fn pipe_goes_on_when_its_node_dies_and_tells_what_is_in_doubt() {
    let mut cluster = Cluster::start();
    let victim = cluster.wait_for_leader();
    let mut command = cli(&cluster, victim);
    let mut child = command.args(["--pipe", "--json"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let commands = 60_000_u64;
    let writer = std::thread::spawn(move || {
        for number in 0..commands {
            writeln!(stdin, "SET key:{number} value").unwrap();
        }
    });
    let mut client = cluster.client(cluster.others(victim)[0]);
    eventually("some were loaded", PATIENCE, || {
        client.must(&["DBSIZE"]).number().filter(|count| *count > 1000)
    });
    cluster.kill(victim);
    let (code, out, err) = told(child.wait_with_output().unwrap());
    writer.join().unwrap();
    let tally = json(&out);
    let count = |name: &str| tally[name].as_u64().unwrap();
    // Each command is accounted for, and what was answered was done.
    assert_eq!(count("replies") + count("in_doubt") + count("not_sent"), commands, "{tally} {err}");
    assert_eq!((count("errors"), count("not_sent")), (0, 0), "{tally} {err}");
    assert_eq!(code, Some(i32::from(count("in_doubt") > 0)), "{tally} {err}");
    let keys = client.must(&["DBSIZE"]).number().unwrap().unsigned_abs();
    assert!((count("replies")..=commands).contains(&keys), "{keys} keys, {tally}");
}

#[test]
fn stat_latency_and_bigkeys_tell_what_is_so() {
    let cluster = Cluster::start();
    let mut client = cluster.client(0);
    for (key, length) in [("small", 1), ("middle", 1000), ("large", 100_000)] {
        client.must(&["SET", key, &"x".repeat(length)]);
    }
    client.must(&["SET", "empty", ""]);
    let (code, out, _) = run(&cluster, &["--stat", "-i", "0.05", "-n", "3", "--json"]);
    let lines: Vec<Json> = out.lines().map(json).collect();
    assert_eq!((code, lines.len()), (Some(0), 3));
    assert_eq!(lines[2]["keys"], 4);
    assert!(lines[0]["commands_per_second"].is_null(), "a rate needs two looks");
    assert!(lines[1]["commands_per_second"].is_number());
    assert!(["leader", "follower"].contains(&lines[0]["role"].as_str().unwrap()));
    let (_, out, _) = run(&cluster, &["--stat", "-n", "1"]);
    assert_eq!(out.lines().count(), 2, "a heading and a line: {out}");

    let (code, out, _) = run(&cluster, &["--latency", "-n", "20", "--json", "GET", "small"]);
    let figures = json(&out);
    assert_eq!((code, &figures["samples"]), (Some(0), &Json::from(20)));
    assert!(figures["p50_ms"].as_f64() <= figures["max_ms"].as_f64());
    let (code, _, err) = run(&cluster, &["--latency", "-n", "2", "INCR", "large"]);
    assert_eq!((code, err.as_str()), (Some(1), "ERR value is not an integer or out of range\n"));

    let (code, out, _) = run(&cluster, &["--bigkeys", "--json"]);
    let found = json(&out);
    assert_eq!((code, &found["keys"]), (Some(0), &Json::from(4)));
    assert_eq!(found["value_bytes"], 101_001);
    let named: Vec<&str> =
        found["largest"].as_array().unwrap().iter().map(|it| it["key"].as_str().unwrap()).collect();
    assert_eq!(named, ["large", "middle", "small", "empty"]);
    let (_, out, _) = run(&cluster, &["--bigkeys"]);
    assert!(out.contains("97.7 KiB  \"large\"\n"), "{out}");
}

#[test]
fn administration_is_a_table_for_people_and_objects_for_programs() {
    let cluster = Cluster::start();
    cluster.wait_for_leader();
    let (code, out, _) = run(&cluster, &["--no-raw", "RAFT", "NODES"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 4), "{out}");
    assert!(lines[0].starts_with("id  role"), "{out}");
    let column = lines[0].find("client").unwrap();
    for (line, node) in lines[1..].iter().zip(&cluster.nodes) {
        assert!(line[column..].starts_with(&node.client), "{out}");
    }
    let (_, painted, _) = run(&cluster, &["--no-raw", "--color", "always", "RAFT", "NODES"]);
    assert!(painted.contains("\x1b[32mleader\x1b[0m"), "{painted}");
    assert!(!out.contains('\x1b'), "no colour but at a terminal");
    let (_, bare, _) = run(&cluster, &["RAFT", "NODES"]);
    assert!(bare.starts_with("id=1 role="), "a pipe gets what the node says: {bare}");
    let (_, out, _) = run(&cluster, &["--json", "RAFT", "NODES"]);
    assert_eq!(json(&out)[2]["client"], cluster.nodes[2].client);
    let (_, out, _) = run(&cluster, &["--json", "RAFT", "INFO"]);
    assert_eq!(json(&out)["raft_voters"], "3");
}

#[test]
fn exit_codes_and_forms_are_what_the_help_says() {
    let cluster = Cluster::start();
    let (code, out, _) = run(&cluster, &["--csv", "MSET", "a", "1,\"2\"", "b", ""]);
    assert_eq!((code, out.as_str()), (Some(0), "\"OK\"\r\n"));
    let (_, out, _) = run(&cluster, &["--csv", "MGET", "a", "none", "b"]);
    assert_eq!(out, "\"1,\"\"2\"\"\",,\"\"\r\n");
    let (code, out, _) = run(&cluster, &["--csv", "INCR", "a"]);
    assert_eq!(code, Some(1));
    assert_eq!(out, "ERROR,\"ERR value is not an integer or out of range\"\r\n");
    let wrong: [&[&str]; 6] = [
        &["--watch", "a", "GET", "a"],
        &["--pipe", "--stat"],
        &["--from", "1", "GET", "a"],
        &["--csv", "--json", "GET", "a"],
        &["--stat", "-i", "0"],
        &["--color", "perhaps"],
    ];
    for args in wrong {
        assert_eq!(run(&cluster, args).0, Some(2), "{args:?}");
    }
    let unreachable = Command::new(env!("CARGO_BIN_EXE_rkv-cli"))
        .args(["-c", "127.0.0.1:1", "--watch", "a"])
        .output()
        .unwrap();
    assert_eq!(unreachable.status.code(), Some(1));
    let (code, help, _) = run(&cluster, &["--help"]);
    assert_eq!(code, Some(0));
    for option in ["--watch <PREFIX>", "--pipe", "--history <FILE>", "NO_COLOR", "Exit code:"] {
        assert!(help.contains(option), "{option} is not in the help");
    }
}

#[test]
fn monitor_streams_until_it_is_ended() {
    let cluster = Cluster::start();
    let mut monitoring = Running(cli(&cluster, 0).arg("MONITOR").spawn().unwrap());
    let mut lines = monitoring.lines();
    assert_eq!(lines.next().as_deref(), Some("OK"));
    cluster.client(0).must(&["SET", "a", "b c"]);
    let line = lines.next().unwrap();
    assert!(line.ends_with(r#"] "SET" "a" "b c""#), "{line}");
}

/// A terminal with rkv-cli in it.
struct Terminal {
    child: Running,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    /// Up to here what is shown was looked at.
    seen: usize,
}

impl Terminal {
    fn open(cluster: &Cluster, history: &Path, color: &str) -> Terminal {
        let (program, endpoint) = (env!("CARGO_BIN_EXE_rkv-cli"), &cluster.nodes[0].client);
        let history = history.display();
        // A shell that stays between would, after a Ctrl-C, end with 130 whatever the program said.
        let line = format!("exec {program} -c {endpoint} --history {history} --color {color}");
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut output, target) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                target.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let mut terminal = Terminal { child: Running(child), shown, reader, seen: 0 };
        terminal.wait_for(&format!("{endpoint}> "));
        terminal
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until this is shown, behind what was waited for before.
    fn wait_for(&mut self, wanted: &str) {
        let found = eventually(&format!("{wanted:?} is shown"), PATIENCE, || {
            let text = self.text();
            text[self.seen..].find(wanted).map(|place| self.seen + place + wanted.len())
        });
        self.seen = found;
    }

    fn type_in(&mut self, keys: &str) {
        let stdin = self.child.0.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Ends by `quit`; returns the exit code and all that was shown.
    fn quit(mut self) -> (Option<i32>, String) {
        self.type_in("quit\r");
        let code = self.child.0.wait().unwrap().code();
        let text = Arc::clone(&self.shown);
        self.reader.join().unwrap();
        let text = String::from_utf8_lossy(&text.lock().unwrap()).into_owned();
        (code, text)
    }
}

#[test]
fn prompt_keeps_history_and_helps() {
    if !works("script", &["--version"]) {
        return skip("prompt_keeps_history_and_helps", "there is no program script");
    }
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let history = directory.path().join("history");
    // 1. Completed by Tab, carried out, explained; a password is not kept.
    let mut terminal = Terminal::open(&cluster, &history, "never");
    for (keys, shown) in [
        ("SET a 17\r", "OK"),
        ("GETRE\ta\r", "1) \"17\""),
        ("help slowlog\r", "SLOWLOG GET [count]"),
        ("AUTH secret\r", "(error) ERR AUTH <password> called without"),
        ("nope\r", "(error) ERR unknown command 'nope'"),
    ] {
        terminal.type_in(keys);
        terminal.wait_for(shown);
        terminal.wait_for("> ");
    }
    let (code, shown) = terminal.quit();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("\x1b[31m"), "no colour: {shown}");
    let kept = std::fs::read_to_string(&history).unwrap();
    assert!(kept.contains("SET a 17\n") && kept.contains("help slowlog\n"), "{kept}");
    assert!(!kept.contains("secret"), "{kept}");
    // 2. The next time it is still there, three lines up. What a command takes is shown dim.
    let mut terminal = Terminal::open(&cluster, &history, "auto");
    terminal.type_in("\x1b[A\x1b[A\x1b[A\r");
    terminal.wait_for("SLOWLOG RESET");
    terminal.wait_for("> ");
    terminal.type_in("SET b");
    terminal.wait_for("\x1b[2m value [NX");
    // Ctrl-U takes the line back.
    terminal.type_in("\x15");
    // 3. A stream of messages ends by Ctrl-C, and the prompt goes on.
    terminal.type_in("MONITOR\r");
    terminal.wait_for("OK");
    cluster.client(0).must(&["SET", "seen", "1"]);
    terminal.wait_for("\"SET\" \"seen\" \"1\"");
    terminal.type_in("\x03");
    terminal.wait_for("> ");
    terminal.type_in("GET a\r");
    terminal.wait_for("\"17\"");
    assert_eq!(terminal.quit().0, Some(0));
}
