//! A log that fills its disk: growth is refused, reads and deletions go on, nothing is lost.
//!
//! Each node gets a small file system of its own; where none can be mounted the test says that it
//! was skipped.

mod common;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::cluster::PATIENCE;
use common::{Cluster, Options, Reply, eventually, skip};

const DISK: &str = "size=12m";
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
fn fill(disk: &SmallDisk) -> PathBuf {
    let path = disk.path.join("ballast");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = [0; 4096];
    let full = loop {
        if let Err(error) = file.write_all(&block) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    path
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
    let directory = tempfile::tempdir().unwrap();
    let (disks, cluster) = match start(directory.path()) {
        Ok(started) => started,
        Err(why) => {
            return skip("a_full_disk_lets_writing_resume_by_itself_once_there_is_space", &why);
        }
    };
    // 1. Something else fills all disks. The segment at hand is filled, and then growth refused.
    let ballast: Vec<PathBuf> = disks.iter().map(fill).collect();
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
    }
}
