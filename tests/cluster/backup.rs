//! Backups of a cluster that runs, and what is made of them: real processes, used as an operator
//! uses them.
//!
//! `rkv-cli snapshot save`, `raftkvd snapshot restore` and `inspect`, `raftkvd recover-quorum`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::cluster::PATIENCE;
use crate::common::history::Action;
use crate::common::load::Load;
use crate::common::{Cluster, Options, Reply, eventually, skip};

const RAISED: u64 = 1 << 40;

fn run(program: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).output().unwrap()
}

fn raftkvd(words: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_raftkvd"), words)
}

fn save(address: &str, words: &[&str]) -> Output {
    let words: Vec<&str> =
        ["-c", address, "snapshot", "save"].iter().chain(words).copied().collect();
    run(env!("CARGO_BIN_EXE_rkv-cli"), &words)
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// It ended with that code; what it said.
fn expect(output: &Output, code: i32) -> String {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits until exactly these vote.
fn wait_for_voters(cluster: &Cluster, expected: &[u64]) {
    eventually(&format!("the voters are {expected:?}"), PATIENCE, || {
        let leader = cluster.leader()?;
        let text = cluster.client(leader).must(&["RAFT", "NODES"]).text();
        let voter = |line: &str| {
            let id = line.split_whitespace().next()?.strip_prefix("id=")?.parse().ok()?;
            line.contains(" vote=yes ").then_some(id)
        };
        let voters: Vec<Option<u64>> = text.lines().map(voter).collect();
        voters.into_iter().eq(expected.iter().map(|id| Some(*id))).then_some(())
    });
}

fn add(cluster: &Cluster, position: usize) {
    let [id, peer, client] = cluster.introduced(position);
    let reply = cluster.client(0).must(&["RAFT", "ADD", &id, &peer, &client]);
    assert_eq!(reply, Reply::ok());
}

/// A single node that was restored from the file, and runs.
fn restored(file: &Path) -> Cluster {
    let mut cluster = Cluster::prepare(Options { nodes: 1, ..Options::default() });
    let toml = cluster.nodes[0].file.clone();
    let text = expect(&raftkvd(&["snapshot", "restore", name(file), "-c", name(&toml)]), 0);
    assert!(text.contains("only member of a new cluster"), "{text}");
    cluster.restart(0);
    cluster.wait_for_leader();
    cluster
}

#[test]
fn a_backup_under_load_begins_a_new_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup");
    let mut old = Cluster::start();
    old.wait_until_even();
    let leader = old.wait_for_leader();
    let follower = old.others(leader)[0];
    // 1. A backup is taken from a follower, while clients of another node write.
    let load = Load::begin(&[old.nodes[leader].client.clone()], 2, 8, |_, _| Action::Increment(0));
    eventually("the load is on", PATIENCE, || (load.answered() > 500).then_some(()));
    let mut client = old.client(leader);
    let with_deadline = client.must(&["SET", "mortal", "x", "EX", "5000"]);
    assert_eq!((with_deadline, client.must(&["SET", "before", "1"])), (Reply::ok(), Reply::ok()));
    let answered = load.answered();
    let text = expect(&save(&old.nodes[follower].client, &[name(&file)]), 0);
    assert!(text.contains("saving: 100%") && text.contains("saved "), "{text}");
    // 2. It is never overwritten by mistake.
    let text = expect(&save(&old.nodes[follower].client, &[name(&file)]), 1);
    assert!(text.contains("is there already"), "{text}");
    expect(&save(&old.nodes[leader].client, &[name(&file), "--force"]), 0);
    let total = load.finish()[0].operations[0].action.words()[1].clone();
    assert_eq!(client.must(&["SET", "after", "1"]), Reply::ok());
    old.wait_until_even();
    let last_revision = old.figure(leader, "raft_revision");
    // 3. It says what it holds.
    let text = expect(&raftkvd(&["snapshot", "inspect", name(&file)]), 0);
    assert!(text.contains("whole") && text.contains("member 3"), "{text}");
    let text = expect(&raftkvd(&["snapshot", "inspect", name(&file), "--json"]), 0);
    assert!(text.contains("\"expiring\":1,"), "{text}");
    let lost_one = old.nodes[1].data.clone();
    old.kill_all();
    // 4. Restored, it has everything that was acknowledged before it, and nothing after it.
    let mut new = restored(&file);
    let mut client = new.client(0);
    assert_eq!(client.must(&["GET", "before"]), Reply::bulk("1"));
    assert_eq!(client.must(&["GET", "after"]), Reply::Nil);
    let count = client.must(&["GET", &total]).number().unwrap();
    assert!(count >= answered as i64, "{count} of {answered}");
    let left = client.must(&["TTL", "mortal"]).number().unwrap();
    assert!((4900..=5000).contains(&left), "{left}");
    // 5. Revisions never go back.
    assert_eq!(client.must(&["SET", "new", "1"]), Reply::ok());
    let revision = new.figure(0, "raft_revision");
    assert!(revision > last_revision && revision > RAISED, "{revision} after {last_revision}");
    // 6. A second and a third server join it.
    for voters in [&[1, 2][..], &[1, 2, 3]] {
        let position = new.prepare_another();
        new.restart(position);
        add(&new, position);
        wait_for_voters(&new, voters);
    }
    new.wait_until_even();
    assert_eq!(new.client(2).must(&["GET", "before"]), Reply::bulk("1"));
    assert_ne!(new.info(0).unwrap()["raft_lineage"], "0000000000000000");
    assert_eq!(new.info(0).unwrap()["raft_lineage"], new.info(2).unwrap()["raft_lineage"]);
    // 7. They keep their lineage, and go on without the first.
    new.kill_all();
    (0..3).for_each(|position| new.restart(position));
    new.wait_until_even();
    // 8. A server with the old cluster's data is refused, and both say why.
    new.kill(1);
    std::fs::rename(&new.nodes[1].data, directory.path().join("aside")).unwrap();
    std::fs::rename(lost_one, &new.nodes[1].data).unwrap();
    new.restart(1);
    for position in [0, 1] {
        eventually("it says that a restore lies between them", PATIENCE, || {
            new.nodes[position].logged().contains("a restore lies between them").then_some(())
        });
    }
    assert_eq!(new.client(2).must(&["SET", "new", "2"]), Reply::ok());
    assert!(!new.is_healthy(1), "it takes part in nothing");
    // 9. With an empty directory it is let in.
    new.kill(1);
    std::fs::remove_dir_all(&new.nodes[1].data).unwrap();
    new.restart(1);
    eventually("it is recovering", PATIENCE, || {
        (new.info(1)?.get("raft_role")? == "recovering").then_some(())
    });
    // The leader has to have met it.
    eventually("it is admitted again", PATIENCE, || {
        (new.client(0).must(&["RAFT", "ADD", "2"]) == Reply::ok()).then_some(())
    });
    wait_for_voters(&new, &[1, 2, 3]);
    new.wait_until_even();
    assert_eq!(new.client(1).must(&["GET", "new"]), Reply::bulk("2"));
}

/// A cluster of one with some data, and a backup of it.
fn small_backup(directory: &Path) -> (Cluster, PathBuf) {
    let cluster = Cluster::start_with(Options { nodes: 1, ..Options::default() });
    let mut client = cluster.client(0);
    for key in 0..50 {
        assert_eq!(client.must(&["SET", &format!("key{key}"), "value"]), Reply::ok());
    }
    let file = directory.join("backup");
    expect(&save(&cluster.nodes[0].client, &[name(&file)]), 0);
    (cluster, file)
}

#[test]
fn a_damaged_backup_is_refused_by_its_offset_and_touches_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, file) = small_backup(directory.path());
    let whole = std::fs::read(&file).unwrap();
    let data = directory.path().join("data");
    let refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let words = ["snapshot", "restore", name(&file), "--data-dir", name(&data)];
        let text = expect(&raftkvd(&words), 1);
        assert!(text.contains("at byte "), "{text}");
        assert!(!data.exists(), "a data directory was made of a damaged file");
    };
    for at in [0, 4, 9, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        refused(&flipped);
    }
    for length in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..length]);
    }
    refused(&[&whole[..], b"x"].concat());
    // Whole again, it is taken; but not into a directory that holds something.
    std::fs::write(&file, &whole).unwrap();
    let words = ["snapshot", "restore", name(&file), "--data-dir", name(&data)];
    expect(&raftkvd(&words), 0);
    let text = expect(&raftkvd(&words), 1);
    assert!(text.contains("is not empty"), "{text}");
    let missing = directory.path().join("none");
    expect(&raftkvd(&["snapshot", "inspect", name(&missing)]), 1);
}

/// A mounted tmpfs, unmounted at the end.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: PathBuf, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(&path).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&path);
        let output = command.output().ok()?;
        output.status.success().then_some(SmallDisk { path })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(&self.path).status().unwrap();
        assert!(status.success() || std::thread::panicking(), "umount {}", self.path.display());
    }
}

#[test]
fn a_full_disk_leaves_no_half_backup_and_no_half_directory_that_starts() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path().join("disk"), "size=1m") else {
        let test = "a_full_disk_leaves_no_half_backup_and_no_half_directory_that_starts";
        return skip(test, "tmpfs cannot be mounted");
    };
    let cluster = Cluster::start_with(Options { nodes: 1, ..Options::default() });
    let mut client = cluster.client(0);
    let value = "v".repeat(100_000);
    for key in 0..40 {
        assert_eq!(client.must(&["SET", &format!("key{key}"), &value]), Reply::ok());
    }
    // 1. The backup doesn't fit.
    let file = disk.path.join("backup");
    let text = expect(&save(&cluster.nodes[0].client, &[name(&file)]), 1);
    assert!(text.contains("backup.tmp: No space left on device"), "{text}");
    assert_eq!(std::fs::read_dir(&disk.path).unwrap().count(), 0, "nothing is left of it");
    assert_eq!(client.must(&["SET", "key0", "1"]), Reply::ok());
    // 2. Nor does what is restored from one; what there is of it never starts.
    let file = directory.path().join("backup");
    expect(&save(&cluster.nodes[0].client, &[name(&file)]), 0);
    let data = disk.path.join("data");
    let text =
        expect(&raftkvd(&["snapshot", "restore", name(&file), "--data-dir", name(&data)]), 1);
    assert!(text.to_lowercase().contains("no space left"), "{text}");
    if data.join("meta").exists() {
        let text = expect(&raftkvd(&["--data-dir", name(&data)]), 1);
        assert!(text.contains("did not come to its end"), "{text}");
    }
}

#[test]
fn who_is_left_of_three_goes_on_alone_when_told_so() {
    let mut cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    let mut client = cluster.client(leader);
    assert_eq!(client.must(&["SET", "a", "1"]), Reply::ok());
    assert_eq!(client.must(&["INCR", "b"]).number(), Some(1));
    cluster.wait_until_even();
    let revision = cluster.figure(leader, "raft_revision");
    let toml = cluster.nodes[0].file.clone();
    let words = ["recover-quorum", "-c", name(&toml), "--yes-i-lost-the-majority-for-good"];
    // 1. Not while it runs.
    let text = expect(&raftkvd(&words), 1);
    assert!(text.contains("in use"), "{text}");
    // 2. Two of three are gone with their disks; nothing happens unless it is confirmed.
    cluster.kill_all();
    for position in [1, 2] {
        std::fs::remove_dir_all(&cluster.nodes[position].data).unwrap();
    }
    let text = expect(&raftkvd(&words[..3]), 2);
    assert!(text.contains("WARNING") && text.contains("nothing was changed"), "{text}");
    assert!(text.contains("voter 1") && text.contains("this one"), "{text}");
    // 3. Confirmed, it is a new cluster, and the old files are kept.
    let text = expect(&raftkvd(&words), 0);
    assert!(text.contains("is the only member"), "{text}");
    let entries = std::fs::read_dir(&cluster.nodes[0].data).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let aside = names.into_iter().find(|name| name.starts_with("before-")).unwrap();
    for kept in ["meta", "log", "snap"] {
        assert!(cluster.nodes[0].data.join(&aside).join(kept).exists(), "{kept}");
    }
    cluster.restart(0);
    cluster.wait_for_leader();
    let mut client = cluster.client(0);
    assert_eq!(client.must(&["GET", "a"]), Reply::bulk("1"));
    assert_eq!(client.must(&["INCR", "b"]).number(), Some(2));
    assert!(cluster.figure(0, "raft_revision") > revision + RAISED);
    // 4. The others come back with empty directories, and their old configuration.
    for position in [1, 2] {
        cluster.restart(position);
        add(&cluster, position);
        wait_for_voters(&cluster, &[1, 2, 3][..=position]);
    }
    cluster.kill(0);
    cluster.wait_for_leader();
    assert_eq!(cluster.client(2).must(&["GET", "b"]), Reply::bulk("2"));
    // 5. Where there is no data, there is nothing to go on with.
    std::fs::remove_dir_all(&cluster.nodes[0].data).unwrap();
    let text = expect(&raftkvd(&words), 1);
    assert!(text.contains("nothing there"), "{text}");
}
