//! A disk goes bad under a real node: it says what is wrong and keeps the files, takes part in
//! nothing, and is one of the cluster again after one command, or by itself.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::cluster::PATIENCE;
use crate::common::{Cluster, Options, Reply, eventually};

fn raftkvd(words: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raftkvd")).args(words).arg(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A cluster with some keys, in which everybody has them.
fn cluster(readmit: &str) -> Cluster {
    let toml = format!("\n[cluster]\nreadmit = \"{readmit}\"\n");
    let cluster = Cluster::start_with(Options { toml, ..Options::default() });
    for key in 0..100 {
        cluster.client(0).must(&["SET", &format!("key{key}"), "value"]);
    }
    cluster.wait_until_even();
    cluster
}

/// Flips a byte in the middle of what a stopped node's log holds; the file.
fn damage(cluster: &Cluster, position: usize) -> PathBuf {
    let path = cluster.nodes[position].data.join("log/0000000000000001.wal");
    let content = fs::read(&path).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap();
    let middle = (4096 + (end - 4096) / 2) as u64;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[content[middle as usize] ^ 1], middle).unwrap();
    path
}

fn wait_until_recovering(cluster: &Cluster, position: usize) -> String {
    let what = format!("node {} is recovering", position + 1);
    eventually(&what, PATIENCE, || {
        let info = cluster.info(position)?;
        (info.get("raft_role")? == "recovering").then(|| info["raft_recovering_reason"].clone())
    })
}

/// Waits until all three vote, by the leader's word.
fn wait_for_voters(cluster: &Cluster) {
    eventually("all three vote", PATIENCE, || {
        let leader = cluster.leader()?;
        let nodes = cluster.client(leader).must(&["RAFT", "NODES"]).text();
        let votes = nodes.lines().filter(|line| line.contains(" vote=yes ")).count();
        let lost = nodes.contains("role=recovering");
        (votes == 3 && nodes.lines().count() == 3 && !lost).then_some(())
    });
}

/// It votes and serves: with it, one of the others may go.
fn check_takes_part(cluster: &mut Cluster, position: usize) {
    wait_for_voters(cluster);
    cluster.wait_until_even();
    let other = cluster.others(position)[0];
    cluster.kill(other);
    cluster.wait_for_leader();
    assert_eq!(cluster.client(position).must(&["DBSIZE"]).number(), Some(100));
    assert_eq!(cluster.client(position).must(&["SET", "key0", "again"]), Reply::ok());
}

#[test]
fn a_damaged_log_is_set_aside_and_one_command_readmits_its_node() {
    let mut cluster = cluster("manual");
    let leader = cluster.wait_for_leader();
    let bad = cluster.others(leader)[0];
    let data = cluster.nodes[bad].data.clone();
    // 1. Sound, and looked at while it runs, then stopped.
    let busy = raftkvd(&["verify"], &data);
    assert_eq!(busy.status.code(), Some(1));
    let pid = format!("process {}", cluster.nodes[bad].process_id());
    assert!(text(&busy.stderr).contains(&pid), "{}", text(&busy.stderr));
    cluster.kill(bad);
    let sound = raftkvd(&["verify"], &data);
    assert_eq!(sound.status.code(), Some(0), "{}", text(&sound.stderr));
    println!("{}{}", text(&sound.stdout), text(&raftkvd(&["inspect"], &data).stdout));
    // 2. A byte flips. Verify names it, and says what the next start does.
    let file = damage(&cluster, bad);
    let verified = raftkvd(&["verify"], &data);
    let (shown, said) = (text(&verified.stdout), text(&verified.stderr));
    println!("{shown}{said}");
    assert_eq!(verified.status.code(), Some(1));
    assert!(said.contains(&format!("{} is bad from offset ", file.display())), "{said}");
    assert!(shown.contains("a start sets all files aside, into"), "{shown}");
    assert!(!data.join("damaged-1").exists(), "verify changes nothing");
    // 3. The start does so, and tells it in its log and in INFO; the leader shows it too.
    cluster.restart(bad);
    let why = wait_until_recovering(&cluster, bad);
    assert!(why.contains("is corrupt at offset") && why.contains("damaged-1"), "{why}");
    let offset = said.split(" offset ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(why.contains(&format!("offset {offset}:")), "{why} / {said}");
    let logged = cluster.nodes[bad].logged();
    let id = cluster.nodes[bad].id.to_string();
    assert!(logged.contains(&format!("RAFT ADD {id} to any member")), "{logged}");
    eventually("the leader shows it", PATIENCE, || {
        let nodes = cluster.client(leader).must(&["RAFT", "NODES"]).text();
        let line = nodes.lines().find(|line| line.starts_with(&format!("id={id} ")))?.to_owned();
        line.contains("role=recovering").then_some(())
    });
    // 4. It stays so, over restarts, and nothing else is set aside.
    cluster.kill(bad);
    cluster.restart(bad);
    assert_eq!(wait_until_recovering(&cluster, bad), why);
    assert!(!data.join("damaged-2").exists());
    // 5. One command.
    eventually("it is readmitted", PATIENCE, || {
        let output = Command::new(env!("CARGO_BIN_EXE_rkv-cli"))
            .args(["-c", &cluster.nodes[leader].client, "RAFT", "ADD", &id])
            .output()
            .unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        let is_early = said.contains("say this again");
        assert!(output.status.success() || is_early, "{said}");
        (!is_early).then_some(())
    });
    check_takes_part(&mut cluster, bad);
    // 6. What was set aside is as bad as it was, and can be looked at while the node runs.
    let kept = raftkvd(&["verify"], &data.join("damaged-1"));
    assert_eq!(kept.status.code(), Some(1));
    assert!(text(&kept.stderr).contains(&format!("offset {offset}")), "{}", text(&kept.stderr));
    // 7. Behind a clean stop it is a directory like any other.
    cluster.nodes[bad].signal(rustix::process::Signal::TERM);
    cluster.nodes[bad].wait(PATIENCE);
    let sound = raftkvd(&["verify"], &data);
    assert_eq!(sound.status.code(), Some(0), "{}", text(&sound.stderr));
}

#[test]
fn a_damaged_log_is_readmitted_by_itself_where_that_is_configured() {
    let mut cluster = cluster("auto");
    let leader = cluster.wait_for_leader();
    // The leader's own, for once.
    cluster.kill(leader);
    damage(&cluster, leader);
    cluster.restart(leader);
    eventually("it is healthy again", PATIENCE, || cluster.is_healthy(leader).then_some(()));
    assert!(cluster.nodes[leader].data.join("damaged-1/meta").exists());
    check_takes_part(&mut cluster, leader);
}

#[test]
fn an_old_copy_is_set_aside_and_readmitted_without_a_restart() {
    let mut cluster = cluster("auto");
    let leader = cluster.wait_for_leader();
    let position = cluster.others(leader)[0];
    // 1. A copy of a stopped node's directory; the node runs on, two boots more.
    cluster.kill(position);
    let data = cluster.nodes[position].data.clone();
    let copy = data.with_extension("copy");
    let copied = Command::new("cp").arg("-a").arg(&data).arg(&copy).status();
    assert!(copied.unwrap().success());
    for _ in 0..2 {
        cluster.restart(position);
        eventually("it is back", PATIENCE, || cluster.is_healthy(position).then_some(()));
        cluster.kill(position);
    }
    // 2. The copy takes its place. The process is told, starts over, and is let in again.
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&copy, &data).unwrap();
    cluster.restart(position);
    let process = cluster.nodes[position].process_id();
    eventually("it says so", PATIENCE, || {
        cluster.nodes[position].logged().contains("starts over").then_some(())
    });
    eventually("it is healthy again", PATIENCE, || cluster.is_healthy(position).then_some(()));
    assert_eq!(cluster.nodes[position].process_id(), process);
    assert!(data.join("damaged-1/log/0000000000000001.wal").exists());
    check_takes_part(&mut cluster, position);
}

#[test]
fn nodes_that_are_all_damaged_found_no_empty_cluster() {
    let mut cluster = cluster("auto");
    cluster.kill_all();
    for position in 0..3 {
        damage(&cluster, position);
    }
    for position in 0..3 {
        cluster.restart(position);
    }
    for position in 0..3 {
        wait_until_recovering(&cluster, position);
    }
    std::thread::sleep(Duration::from_secs(2));
    for position in 0..3 {
        wait_until_recovering(&cluster, position);
        assert!(cluster.nodes[position].data.join("damaged-1/meta").exists());
    }
    assert!(cluster.leader().is_none());
}

#[test]
fn a_node_that_is_alone_refuses_to_start_on_damage_and_keeps_everything() {
    let mut cluster = Cluster::start_with(Options { nodes: 1, ..Options::default() });
    for key in 0..100 {
        cluster.client(0).must(&["SET", &format!("key{key}"), "value"]);
    }
    cluster.kill(0);
    let data = cluster.nodes[0].data.clone();
    let file = damage(&cluster, 0);
    let before = fs::read(&file).unwrap();
    cluster.restart(0);
    let status = cluster.nodes[0].wait(PATIENCE);
    assert_eq!(status.code(), Some(1));
    let logged = cluster.nodes[0].logged();
    let named = format!("{} is corrupt at offset ", file.display());
    assert!(logged.contains(&named) && logged.contains("restore a backup"), "{logged}");
    assert!(fs::read(&file).unwrap() == before && !data.join("damaged-1").exists());
    let verified = raftkvd(&["verify"], &data);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stdout).contains("no start: "), "{}", text(&verified.stdout));
}

#[test]
fn verify_and_inspect_print_json() {
    let toml = "\n[storage]\nsnapshot_log_bytes = 65536\n".to_owned();
    let mut cluster = Cluster::start_with(Options { nodes: 1, toml, ..Options::default() });
    for key in 0..200 {
        cluster.client(0).must(&["SET", &format!("key{key}"), &"v".repeat(1000)]);
    }
    eventually("there is a snapshot", PATIENCE, || {
        (cluster.figure(0, "raft_snapshot_index") > 0).then_some(())
    });
    cluster.nodes[0].signal(rustix::process::Signal::TERM);
    cluster.nodes[0].wait(PATIENCE);
    let data = cluster.nodes[0].data.clone();
    let parse = |words: &[&str]| -> Vec<serde_json::Value> {
        let output = raftkvd(words, &data);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // 1. Verify.
    let verified = &parse(&["verify", "--json"])[0];
    assert_eq!(verified["sound"], true);
    assert_eq!(verified["start"]["does"], "recovers");
    assert!(verified["files"].as_array().unwrap().len() >= 3, "{verified}");
    // 2. Inspect, with every record.
    let all = parse(&["inspect", "--json", "--log"]);
    let inspected = &all[0];
    assert_eq!(inspected["meta"]["server"], 1);
    assert_eq!(inspected["meta"]["standing"], "sound");
    assert_eq!(inspected["start"]["sealed"], true);
    let snapshot = &inspected["snapshots"][0];
    assert_eq!(snapshot["sound"], true);
    assert_eq!(snapshot["header"]["members"][0]["id"], 1);
    let segments = inspected["segments"].as_array().unwrap();
    let records: u64 = segments.iter().map(|one| one["records"].as_u64().unwrap()).sum();
    assert_eq!(all.len() as u64, 1 + records);
    let last = all.iter().rev().find(|one| one["kind"] == "batch" || one["kind"] == "empty");
    assert_eq!(last.unwrap()["index"], inspected["start"]["last_index"]);
    assert_eq!(all.last().unwrap()["kind"], "seal");
    // 3. The same for people.
    let shown = text(&raftkvd(&["inspect", "--log"], &data).stdout);
    println!("{}", shown.lines().take(40).collect::<Vec<_>>().join("\n"));
    for word in ["incarnation", "snapshot ", "revision", "segment ", "sealed by boot 1", "batch"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}
