//! rkv-cli and rkv-bench as processes, against a scripted server: output, exit codes, input from a
//! pipe, what a load run counts.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::scripted::{Act, Server};

fn script(line: &str) -> Act {
    let reply: &[u8] = match line {
        "GET a" => b"$7\r\nx \"y\"\n\xff\r\n",
        "GET none" => b"$-1\r\n",
        "SET a -1" | "SET b two words" => b"+OK\r\n",
        "MGET a b" => b"*2\r\n:1\r\n$-1\r\n",
        "SET lost 1" => return Act::Close,
        "SET silent 1" => return Act::Silence,
        "SET doubt 1" => b"-INDOUBT may or may not have been done\r\n",
        _ => b"-ERR unknown command\r\n",
    };
    Act::Reply(reply.to_vec())
}

fn cli(server: &Server, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rkv-cli"))
        .args(["-c", &server.endpoint])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A one-shot command doesn't read it, and may be gone before it is written.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn shown(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn one_shot_shows_replies_and_exits_by_them() {
    let server = Server::start(script);
    let run = |args: &[&str]| shown(&cli(&server, args, ""));
    assert_eq!(run(&["SET", "a", "-1"]), (Some(0), "OK\n".to_owned()));
    assert_eq!(run(&["--text", "SET", "a", "-1"]), (Some(0), "OK\n".to_owned()));
    assert_eq!(run(&["GET", "none"]), (Some(0), "\n".to_owned()));
    assert_eq!(run(&["--no-raw", "GET", "none"]), (Some(0), "(nil)\n".to_owned()));
    let typed = "\"x \\\"y\\\"\\n\\xff\"\n".to_owned();
    assert_eq!(run(&["--no-raw", "GET", "a"]), (Some(0), typed));
    assert_eq!(run(&["--json", "MGET", "a", "b"]), (Some(0), "[1,null]\n".to_owned()));
    assert_eq!(run(&["NOPE"]), (Some(1), "ERR unknown command\n".to_owned()));
    assert_eq!(
        run(&["--json", "NOPE"]),
        (Some(1), "{\"error\":\"ERR unknown command\"}\n".to_owned())
    );
    assert_eq!(cli(&server, &["GET", "a"], "").stdout, b"x \"y\"\n\xff\n");
}

#[test]
fn one_shot_reports_a_maybe_as_such() {
    let server = Server::start(script);
    for key in ["lost", "silent", "doubt"] {
        let (code, out) = shown(&cli(&server, &["--timeout", "1", "SET", key, "1"], ""));
        assert_eq!(code, Some(1));
        assert!(out.starts_with("INDOUBT "), "{out}");
    }
    assert_eq!(server.asked().len(), 3, "a maybe is never sent again");
}

#[test]
fn bad_usage_exits_2_and_asks_nobody() {
    let server = Server::start(script);
    assert_eq!(cli(&server, &["--bogus", "GET", "a"], "").status.code(), Some(2));
    assert_eq!(cli(&server, &["-c", "nowhere", "GET", "a"], "").status.code(), Some(2));
    assert!(server.asked().is_empty());
}

#[test]
fn pipe_runs_one_command_a_line_and_exits_by_the_worst() {
    let server = Server::start(script);
    let output = cli(&server, &[], "SET b \"two words\"\r\n\n  GET none\n");
    assert_eq!(shown(&output), (Some(0), "OK\n\n".to_owned()));
    assert_eq!(server.asked(), ["RAFT NODES", "SET b two words", "GET none"]);

    let output = cli(&server, &[], "NOPE\nMGET a b\n");
    assert_eq!(shown(&output), (Some(1), "ERR unknown command\n1\n\n".to_owned()));

    let output = cli(&server, &[], "GET \"a\nNOPE\n");
    assert_eq!(shown(&output), (Some(2), "ERR unknown command\n".to_owned()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unbalanced quotes"));
}

/// Runs 20 measured requests of `workload`; returns the exit code and the result.
fn bench(endpoint: &str, workload: &str) -> (Option<i32>, serde_json::Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_rkv-bench"))
        .args(["-c", endpoint, "-w", workload, "-n", "20", "--clients", "3", "-P", "4"])
        .args(["--warm-up", "0", "--json"])
        .output()
        .unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn bench_sends_just_what_it_counts() {
    let server = Server::start(|_| Act::Reply(b"+OK\r\n".to_vec()));
    let (code, result) = bench(&server.endpoint, "set");
    assert_eq!(code, Some(0));
    assert_eq!(result["requests"], 20);
    assert_eq!(result["errors"], serde_json::json!({}));
    let asked = server.asked();
    assert_eq!(asked.len(), 20);
    assert!(asked.iter().all(|line| line.starts_with("SET bench:")), "{asked:?}");
}

#[test]
fn bench_counts_errors_by_their_first_word() {
    let server = Server::start(|_| Act::Reply(b"-CLUSTERDOWN no leader\r\n".to_vec()));
    let (code, result) = bench(&server.endpoint, "incr");
    assert_eq!(code, Some(1));
    assert_eq!(result["requests"], 0);
    assert_eq!(result["errors"], serde_json::json!({"CLUSTERDOWN": 20}));
}

#[test]
fn bench_counts_what_waited_on_a_lost_connection() {
    let server = Server::start(|_| Act::Close);
    let (code, result) = bench(&server.endpoint, "get");
    assert_eq!(code, Some(1));
    assert_eq!(result["requests"], 0);
    let errors = result["errors"].as_object().unwrap();
    let lost: u64 = errors.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(lost, 20, "{errors:?}");
    // A server that closes with requests unread resets the connection.
    assert!(errors.keys().all(|word| word == "closed" || word == "reset"), "{errors:?}");
}

#[test]
fn bench_in_sessions_sends_again_what_was_not_answered_and_counts_it() {
    let lost = Arc::new(AtomicBool::new(false));
    let server = Server::start_with_sessions(move |line| match line {
        "SESSION OPEN" => Act::Reply(b":5\r\n".to_vec()),
        line if line.starts_with("5/7/") && !lost.swap(true, Ordering::SeqCst) => Act::Close,
        _ => Act::Reply(b":1\r\n".to_vec()),
    });
    let output = Command::new(env!("CARGO_BIN_EXE_rkv-bench"))
        .args(["-c", &server.endpoint, "-w", "incr", "-n", "20", "--clients", "1", "--sessions"])
        .args(["--warm-up", "0", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["requests"], &result["sent_again"]), (&20.into(), &1.into()));
    assert_eq!(result["errors"], serde_json::json!({}));
    // One more than was counted: the seventh twice, under one number.
    let writes: Vec<String> =
        server.asked().into_iter().filter(|line| line.contains("INCR")).collect();
    assert_eq!(writes.len(), 21);
    assert!(writes[6].starts_with("5/7/7 INCR") && writes[6] == writes[7], "{writes:?}");
}
