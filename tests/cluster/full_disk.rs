//! A disk that is full, of bytes or of names: growth is refused, reads and deletions go on, nothing
//! is lost, and writing resumes once there is room.
//!
//! Each node gets a small file system of its own, or strace around it, which has calls find no
//! space; where neither is allowed the test says that it was skipped.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::cluster::PATIENCE;
use crate::common::{Cluster, Options, Reply, eventually, skip, strace};

const DISK: &str = "size=12m,nr_inodes=300";
const THREAD: &str = "\n[storage]\nsync = \"thread\"\nsegment_bytes = 1048576\n";
const VALUE_BYTES: usize = 16 * 1024;

/// A mounted tmpfs, unmounted at the end.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path) -> Result<SmallDisk, String> {
        std::fs::create_dir_all(path).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(path);
        let output = command.output().map_err(|error| format!("mount: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(SmallDisk { path: path.to_owned() })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        // Lazily: a node that is still ending may hold files for a moment.
        let status = command.arg("-l").arg(&self.path).status().unwrap();
        assert!(status.success() || std::thread::panicking(), "umount {}", self.path.display());
    }
}

/// Three nodes, each on a small disk, or why there are none.
fn start(directory: &Path) -> Result<(Vec<SmallDisk>, Cluster), String> {
    let mount = |number| SmallDisk::mount(&directory.join(format!("disk{number}")));
    let disks: Vec<SmallDisk> = (0..3).map(mount).collect::<Result<_, String>>()?;
    let cluster = Cluster::start_with(Options {
        toml: "\n[storage]\nsegment_bytes = 1048576\n".to_owned(),
        data: disks.iter().map(|disk| disk.path.join("data")).collect(),
        ..Options::default()
    });
    Ok((disks, cluster))
}

/// Takes all the space that is left on a disk.
fn fill(disk: &SmallDisk) -> Vec<PathBuf> {
    let path = disk.path.join("ballast");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = [0; 4096];
    let full = loop {
        if let Err(error) = file.write_all(&block) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    vec![path]
}

/// Takes all the names that a disk still has: nothing can be created, but what is there can grow.
fn fill_with_names(disk: &SmallDisk) -> Vec<PathBuf> {
    let mut made = Vec::new();
    loop {
        let path = disk.path.join(format!("ballast{}", made.len()));
        match std::fs::File::create(&path) {
            Ok(_) => made.push(path),
            Err(full) => {
                assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
                return made;
            }
        }
    }
}

#[test]
fn full_disk_refuses_growth_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // The disks are unmounted after the nodes have ended.
    let (_disks, mut cluster) = match start(directory.path()) {
        Ok(started) => started,
        Err(why) => return skip("full_disk_refuses_growth_and_loses_nothing", &why),
    };

    // 1. Values are written until growth is refused, through each node in turn.
    let value = "v".repeat(VALUE_BYTES);
    let mut clients: Vec<_> = (0..3).map(|position| cluster.client(position)).collect();
    let mut written = Vec::new();
    let refusal = loop {
        let key = format!("key{}", written.len());
        let full = format!("{key}:{value}");
        match clients[written.len() % 3].must(&["SET", &key, &full]) {
            Reply::Simple(_) => written.push(key),
            other => break other,
        }
        assert!(written.len() * VALUE_BYTES < 64 << 20, "the disk never fills");
    };
    assert!(refusal.text().starts_with("MISCONF "), "{refusal:?}");
    assert!(written.len() > 50, "only {} values fit", written.len());

    // 2. Every node refuses growth, serves reads, takes deletions, and still says that it is there.
    for client in &mut clients {
        let reply = client.must(&["SET", "more", &value]);
        assert!(reply.text().starts_with("MISCONF "), "{reply:?}");
        let reply = client.must(&["INCR", "counter"]);
        assert!(reply.text().starts_with("MISCONF "), "{reply:?}");
        assert_eq!(client.must(&["PING"]), Reply::Simple("PONG".to_owned()));
        for key in &written {
            assert_eq!(client.must(&["GET", key]), Reply::bulk(&format!("{key}:{value}")));
        }
    }
    let deleted = written.remove(0);
    assert_eq!(clients[0].must(&["DEL", &deleted]), Reply::Integer(1));

    // 3. All of it is there after all nodes were killed, and the deletion too.
    cluster.kill_all();
    for position in 0..3 {
        cluster.restart(position);
    }
    let mut client = eventually("a node leads again", Duration::from_secs(20), || {
        cluster.leader().map(|leader| cluster.client(leader)).or_else(|| {
            // A node whose disk is full is not healthy: it is asked whether it answers reads.
            let mut client = cluster.client(0);
            client.call(&["GET", "key1"]).is_ok_and(|reply| !reply.is_error()).then_some(client)
        })
    });
    for key in &written {
        assert_eq!(client.must(&["GET", key]), Reply::bulk(&format!("{key}:{value}")));
    }
    assert_eq!(client.must(&["EXISTS", &deleted]), Reply::Integer(0));
}

#[test]
fn a_full_disk_lets_writing_resume_by_itself_once_there_is_space() {
    resumes_after("a_full_disk_lets_writing_resume_by_itself_once_there_is_space", fill);
}

#[test]
fn a_disk_without_names_lets_writing_resume_by_itself_once_there_are_some() {
    let test = "a_disk_without_names_lets_writing_resume_by_itself_once_there_are_some";
    resumes_after(test, fill_with_names);
}

/// All disks are filled, and emptied again.
fn resumes_after(test: &str, fill: fn(&SmallDisk) -> Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let (disks, mut cluster) = match start(directory.path()) {
        Ok(started) => started,
        Err(why) => return skip(test, &why),
    };
    // 1. Something else fills all disks. The segment at hand is filled, and then growth refused.
    let ballast: Vec<PathBuf> = disks.iter().flat_map(fill).collect();
    let mut client = cluster.client(0);
    let value = "v".repeat(VALUE_BYTES);
    let mut written = 0;
    let refusal = loop {
        match client.must(&["SET", &format!("key{written}"), &value]) {
            Reply::Simple(_) => written += 1,
            other => break other,
        }
        assert!(written * VALUE_BYTES < 4 << 20, "the disk never fills");
    };
    assert!(refusal.text().starts_with("MISCONF "), "{refusal:?}");

    // 2. A snapshot finds no space either: it is told, and harms nothing.
    for position in 0..3 {
        assert_eq!(cluster.client(position).must(&["RAFT", "SNAPSHOT"]), Reply::ok());
        eventually("the node says that there is no space", PATIENCE, || {
            cluster.nodes[position].logged().contains("no space for a snapshot").then_some(())
        });
        assert_eq!(cluster.client(position).must(&["STRLEN", "key0"]).number(), Some(16 * 1024));
    }

    // 3. The space is back: nobody restarts anything.
    ballast.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    eventually("growth is taken again", PATIENCE, || {
        let reply = client.must(&["SET", &format!("key{written}"), &value]);
        assert!(reply == Reply::ok() || reply.text().starts_with("MISCONF "), "{reply:?}");
        (reply == Reply::ok()).then_some(())
    });
    eventually("the snapshots are tried again, and taken", PATIENCE, || {
        let taken = |position| cluster.figure(position, "raft_snapshot_index") > 0;
        (0..3).all(taken).then_some(())
    });
    cluster.wait_until_even();
    for position in 0..3 {
        let size = cluster.client(position).must(&["DBSIZE"]).number();
        assert_eq!(size, Some(written as i64 + 1), "node {}", position + 1);
    } // 4. It was by themselves.
    assert!(cluster.nodes.iter_mut().all(|node| node.ended().is_none()));
}

#[test]
fn a_peer_that_restarts_ends_nobody_whose_disk_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let (disks, mut cluster) = match start(directory.path()) {
        Ok(started) => started,
        Err(why) => return skip("a_peer_that_restarts_ends_nobody_whose_disk_is_full", &why),
    };
    assert_eq!(cluster.client(0).must(&["SET", "a", "1"]), Reply::ok());
    cluster.wait_until_even();
    // 1. Two disks are full to the last byte; a node on the third one is killed and comes back. Its
    //    new process is to be remembered by the others before it counts, and they have no room.
    let ballast: Vec<PathBuf> = disks[..2].iter().flat_map(fill).collect();
    cluster.kill(2);
    cluster.restart(2);
    std::thread::sleep(Duration::from_secs(2));
    assert!(cluster.nodes.iter_mut().all(|node| node.ended().is_none()));
    let info = cluster.info(2).expect("it answers");
    assert_eq!(info["raft_leader_id"], "0", "it counts, and nobody remembers it");
    eventually("the others serve reads", PATIENCE, || {
        let reply = cluster.client(0).call(&["GET", "a"]).ok()?;
        (reply == Reply::bulk("1")).then_some(())
    });
    // 2. There is room: it is one of them again, by itself.
    ballast.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    cluster.wait_until_even();
    let mut client = cluster.client(2);
    eventually("growth is taken again", PATIENCE, || {
        (client.must(&["SET", "b", "2"]) == Reply::ok()).then_some(())
    });
    assert!(cluster.nodes.iter_mut().all(|node| node.ended().is_none()));
}

/// A node is started anew under strace, which has some of its calls find no space; `when` says
/// which, in strace's words. Nothing where strace can't be used.
fn with_failing_calls(test: &str, calls: &str, when: &str) -> Option<(Cluster, usize, PathBuf)> {
    if let Some(why) = strace::missing() {
        skip(test, why);
        return None;
    }
    let toml = THREAD.to_owned();
    let mut cluster = Cluster::start_with(Options { toml, ..Options::default() });
    assert_eq!(cluster.client(0).must(&["SET", "a", "1"]), Reply::ok());
    cluster.wait_until_even();
    let leader = cluster.wait_for_leader();
    let victim = cluster.others(leader)[0];
    cluster.kill(victim);
    let prefix = cluster.directory().join("trace");
    let inject = format!("inject={calls}:error=ENOSPC:when={when}");
    let wrapper = strace::wrapper(&prefix, &format!("trace={calls}"), &["-e", &inject]);
    cluster.set_wrapper(victim, wrapper);
    cluster.restart(victim);
    cluster.wait_until_even();
    Some((cluster, victim, prefix))
}

/// Writes values through another node than `victim`, each of which must be acknowledged.
fn write_beside(cluster: &Cluster, victim: usize, from: usize, count: usize) {
    let mut client = cluster.client(cluster.others(victim)[0]);
    let value = "v".repeat(VALUE_BYTES);
    for number in from..from + count {
        assert_eq!(client.must(&["SET", &format!("key{number}"), &value]), Reply::ok());
    }
}

#[test]
fn a_rename_without_space_is_tried_again_and_ends_nobody() {
    let test = "a_rename_without_space_is_tried_again_and_ends_nobody";
    // strace counts the calls of each thread: the first one of the loop is the meta file's at the
    // start, and the first one of the background thread the first snapshot's.
    let renames = "rename,renameat,renameat2";
    let Some((mut cluster, victim, prefix)) = with_failing_calls(test, renames, "2..3") else {
        return;
    };
    assert_eq!(cluster.client(victim).must(&["RAFT", "SNAPSHOT"]), Reply::ok());
    let first = eventually("the first snapshot is taken", PATIENCE, || {
        Some(cluster.figure(victim, "raft_snapshot_index")).filter(|index| *index > 0)
    });
    write_beside(&cluster, victim, 200, 1);
    cluster.wait_until_even();
    // 1. Neither a snapshot nor a segment of the log gets its name. The others don't mind.
    assert_eq!(cluster.client(victim).must(&["RAFT", "SNAPSHOT"]), Reply::ok());
    write_beside(&cluster, victim, 0, 200);
    eventually("it says that there is no space", PATIENCE, || {
        let log = cluster.nodes[victim].logged();
        let has_said = log.contains("no space for a snapshot") && log.contains("room for the log:");
        has_said.then_some(())
    });
    // 2. There is space: the log and the snapshot go on by themselves.
    cluster.wait_until_even();
    eventually("the next snapshot is taken", PATIENCE, || {
        (cluster.figure(victim, "raft_snapshot_index") > first).then_some(())
    });
    assert!(cluster.nodes[victim].ended().is_none());
    let failed = strace::calls(&prefix);
    let failed = failed.iter().filter(|call| call.line.contains("INJECTED")).count();
    assert_eq!(failed, 4, "all that were to fail did");
    assert_eq!(cluster.client(victim).must(&["DBSIZE"]).number(), Some(202));
}

#[test]
fn a_directory_sync_without_space_ends_the_node_and_loses_nothing() {
    let test = "a_directory_sync_without_space_ends_the_node_and_loses_nothing";
    // Only directories are synced by fsync. A sync that failed is final, whatever it says.
    let Some((mut cluster, victim, prefix)) = with_failing_calls(test, "fsync", "10+") else {
        return;
    };
    let mut written = 0;
    while strace::ended(&prefix).is_none() {
        write_beside(&cluster, victim, written, 10);
        written += 10;
        assert!(written < 2000, "no directory was synced");
        // It may be ending just now.
        if let Ok(mut client) = Client::connect(&cluster.nodes[victim].client) {
            let _asked = client.call(&["RAFT", "SNAPSHOT"]);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(cluster.nodes[victim].wait(PATIENCE).code(), Some(1));
    let log = cluster.nodes[victim].logged();
    assert!(log.contains("fsync failed on") && log.contains("os error 28"), "{log}");
    cluster.set_wrapper(victim, Vec::new());
    cluster.restart(victim);
    cluster.wait_until_even();
    let size = cluster.client(victim).must(&["DBSIZE"]).number();
    assert_eq!(size, Some(written as i64 + 1));
}
