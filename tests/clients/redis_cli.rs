//! redis-cli and redis-benchmark, as Debian ships them, against a real cluster.
//!
//! Where they are not installed the tests say that they were skipped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use crate::common::{Cluster, skip, works};

fn missing(test: &str) -> bool {
    let there = works("redis-cli", &["--version"]) && works("redis-benchmark", &["--version"]);
    if !there {
        skip(test, "redis-cli or redis-benchmark is not installed");
    }
    !there
}

fn command(program: &str, cluster: &Cluster, position: usize) -> Command {
    let (host, port) = cluster.nodes[position].client.rsplit_once(':').unwrap();
    let mut command = Command::new(program);
    command.args(["-h", host, "-p", port]);
    command
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn redis_cli_prints_replies_on_every_node() {
    if missing("redis_cli_prints_replies_on_every_node") {
        return;
    }
    let cluster = Cluster::start();
    cluster.wait_until_even();
    for position in 0..3 {
        for resp3 in [false, true] {
            let run = |words: &[&str]| {
                let mut command = command("redis-cli", &cluster, position);
                command.args(resp3.then_some("-3")).arg("--raw").args(words);
                text(&command.output().unwrap())
            };
            assert_eq!(run(&["SET", "a", "hello world"]), "OK\n");
            assert_eq!(run(&["GET", "a"]), "hello world\n");
            assert_eq!(run(&["GET", "none"]), "\n");
            assert_eq!(run(&["CAS", "a", "hello world", "2"]), "1\n");
            assert_eq!(run(&["MGET", "a", "none"]), "2\n\n");
            assert_eq!(run(&["DEL", "a"]), "1\n");
            assert_eq!(run(&["ECHO", "x"]), "x\n");
            assert!(run(&["INFO", "raft"]).contains("raft_leader_id:"));
        }
        // A session on standard input, with what redis-cli asks for when it begins one.
        let mut child = command("redis-cli", &cluster, position)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"INCR n\nGET n\nNOSUCH\nSELECT 1\nSELECT 0\n").unwrap();
        drop(stdin);
        let answer = text(&child.wait_with_output().unwrap());
        let n = position + 1;
        let lines: Vec<&str> = answer.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(
            lines,
            [
                &n.to_string(),
                &n.to_string(),
                "ERR unknown command 'NOSUCH', with args beginning with: ",
                "ERR DB index is out of range",
                "OK"
            ]
        );
    }
}

#[test]
fn redis_cli_stat_reads_our_figures() {
    if missing("redis_cli_stat_reads_our_figures") {
        return;
    }
    let cluster = Cluster::start();
    cluster.client(0).must(&["SET", "a", "1"]);
    let mut child = command("redis-cli", &cluster, 0)
        .args(["--stat", "-i", "0.01"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It never ends by itself, and hands its lines to a pipe by the block: hence the short interval.
    // Two lines of headings, then a line of figures each interval:
    // keys, memory, clients, blocked, requests (+difference), connections.
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let figures: Vec<String> = lines.skip(2).take(2).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    for line in &figures {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "1", "keys: {line}");
        assert!(words[1].ends_with(['K', 'M']), "memory: {line}");
        assert!(words[2].parse::<u32>().unwrap() >= 1, "clients: {line}");
        assert!(words[4].parse::<u64>().unwrap() >= 1, "requests: {line}");
    }
}

#[test]
fn redis_benchmark_runs_set_and_get_without_an_error() {
    if missing("redis_benchmark_runs_set_and_get_without_an_error") {
        return;
    }
    let cluster = Cluster::start();
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    for position in [leader, cluster.others(leader)[0]] {
        for (pipeline, requests) in [("1", "2000"), ("16", "10000")] {
            let output = command("redis-benchmark", &cluster, position)
                .args(["-q", "-t", "set,get", "-c", "50", "-P", pipeline, "-n", requests])
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && stderr.is_empty(), "{output:?}");
            // Progress is written over itself with carriage returns; results end in a newline.
            let answer = text(&output);
            assert!(!answer.contains("WARNING") && !answer.contains("rror"), "{answer}");
            for name in ["SET: ", "GET: "] {
                let result = answer
                    .split(['\r', '\n'])
                    .find(|line| line.starts_with(name) && line.contains("requests per second"));
                println!("{}", result.unwrap_or_else(|| panic!("{name} in {answer}")).trim());
            }
        }
    }
}
