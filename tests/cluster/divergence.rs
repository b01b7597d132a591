//! Divergence with real processes: a node whose state is wrong is contradicted by the majority,
//! stops, and comes back as one that lost its disk; what it knew can be looked at, and recovered.
//!
//! The state is made wrong where no checksum can tell: a stopped node's snapshot is written anew
//! with one value changed, by the writer that wrote it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::cluster::PATIENCE;
use crate::common::{Cluster, Options, Reply, eventually};
use raftkv::proto::snapshot::{SnapshotHeader, SnapshotRecord};
use raftkv::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};
use raftkv::proto::snapshot_encoder::SnapshotEncoder;

const WRONG: usize = 2;

fn raftkvd(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raftkvd")).args(words).output().unwrap()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn newest_snapshot(data: &Path) -> PathBuf {
    let names = fs::read_dir(data.join("snap")).unwrap().map(|file| file.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|end| end == "snap")).max().unwrap()
}

/// The file with another value for one key, and right checksums.
fn with_a_wrong_value(bytes: &[u8], key: &[u8], wrong: &[u8]) -> Vec<u8> {
    let mut decoder = SnapshotDecoder::new();
    let mut left = bytes;
    let mut out = Vec::new();
    let mut encoder: Option<SnapshotEncoder> = None;
    let mut changed = 0;
    loop {
        match decoder.decode(&mut left).unwrap() {
            Some(SnapshotItem::Header(header)) => {
                let header: SnapshotHeader = header;
                encoder = Some(SnapshotEncoder::new(&header, &mut out));
            }
            Some(SnapshotItem::Section(section, bytes)) => {
                encoder.as_mut().expect("behind the header").section(section, bytes, &mut out);
            }
            Some(SnapshotItem::Record(record)) => {
                let is_it = record.key == key;
                changed += u32::from(is_it);
                let value = if is_it { wrong } else { record.value };
                let record = SnapshotRecord { value, ..record };
                encoder.as_mut().expect("behind the header").record(record, &mut out);
            }
            Some(SnapshotItem::End(_)) => break,
            None => panic!("the file ends before its footer"),
        }
    }
    assert_eq!(changed, 1);
    encoder.expect("it has a header").finish(&mut out);
    out
}

/// Three nodes with some keys, the third of them stopped, with a wrong value in its snapshot.
fn cluster_with_a_wrong_node() -> Cluster {
    let toml = "\n[cluster]\nreadmit = \"manual\"\n".to_owned();
    let mut cluster = Cluster::start_with(Options { toml, ..Options::default() });
    for key in 0..100 {
        cluster.client(0).must(&["SET", &format!("key{key}"), "value"]);
    }
    cluster.wait_until_even();
    cluster.client(WRONG).must(&["RAFT", "SNAPSHOT"]);
    eventually("the snapshot is taken", PATIENCE, || {
        (cluster.figure(WRONG, "raft_snapshot_index") > 100).then_some(())
    });
    cluster.kill(WRONG);
    let data = cluster.nodes[WRONG].data.clone();
    let path = newest_snapshot(&data);
    let wrong = with_a_wrong_value(&fs::read(&path).unwrap(), b"key50", b"another value");
    fs::write(&path, wrong).unwrap();
    cluster
}

#[test]
fn a_node_with_a_wrong_value_is_contradicted_and_comes_back_with_nothing() {
    let mut cluster = cluster_with_a_wrong_node();
    let data = cluster.nodes[WRONG].data.clone();
    let file = cluster.nodes[WRONG].file.display().to_string();
    // 1. Nothing is wrong with the file, and it loads.
    let output = raftkvd(&["verify", "-c", &file]);
    assert!(output.status.success(), "{}", said(&output));
    cluster.restart(WRONG);
    // 2. It is found out by what it makes of the next entries, says so, and ends.
    let mut client = cluster.client(0);
    let nodes = &mut cluster.nodes;
    eventually("it has ended", 2 * PATIENCE, || {
        assert_eq!(client.must(&["SET", "key0", "value"]), Reply::ok());
        std::thread::sleep(Duration::from_millis(200));
        nodes[WRONG].ended()
    });
    assert_eq!(cluster.nodes[WRONG].wait(PATIENCE).code(), Some(1));
    let log = cluster.nodes[WRONG].logged();
    let line = log.lines().find(|line| line.contains("[ERROR]") && line.contains("majority"));
    assert!(line.is_some_and(|line| line.contains("digest")), "{log}");
    // 3. Started again it takes part in nothing, and has kept what it had.
    cluster.restart(WRONG);
    let reason = eventually("it is recovering", PATIENCE, || {
        let info = cluster.info(WRONG)?;
        (info.get("raft_role")? == "recovering").then(|| info["raft_recovering_reason"].clone())
    });
    assert!(reason.contains("a majority has come to another state"), "{reason}");
    let kept = data.join("damaged-1");
    assert!(newest_snapshot(&kept).exists());
    // 4. The others have what is right.
    assert_eq!(cluster.client(0).must(&["GET", "key50"]), Reply::bulk("value"));

    // 5. All but it is lost for good: what its directory has is nothing, and what was set aside can
    //    be gone on with, if somebody says so.
    cluster.kill_all();
    let consent = "--yes-i-lost-the-majority-for-good";
    let output = raftkvd(&["recover-quorum", "-c", &file, consent]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    for word in ["there is no data", "damaged-1: whole up to entry", "another state", "COPY"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let copy = cluster.directory().join("copy");
    assert!(Command::new("cp").arg("-r").args([&kept, &copy]).status().unwrap().success());
    let copy = copy.display().to_string();
    let output = raftkvd(&["recover-quorum", "-c", &file, "--data-dir", &copy, consent]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains(": 100 records"), "{}", said(&output));
    let output = raftkvd(&["verify", &copy, "-c", &file]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn verify_says_whose_directory_it_is() {
    let mut cluster = Cluster::start_with(Options { nodes: 1, ..Options::default() });
    cluster.client(0).must(&["SET", "a", "1"]);
    cluster.kill(0);
    let (file, data) = (cluster.nodes[0].file.clone(), cluster.nodes[0].data.clone());
    let verify = |words: &[&str]| {
        let output = raftkvd(&[&["verify"], words].concat());
        (output.status.code(), said(&output))
    };
    let (file_name, data_name) = (file.display().to_string(), data.display().to_string());
    // 1. Its own configuration, with and without the directory; and none.
    for words in [&["-c", &file_name][..], &[&data_name, "-c", &file_name], &[&data_name]] {
        assert_eq!(verify(words).0, Some(0), "{words:?}");
    }
    // 2. Another cluster's, and another server's.
    let text = fs::read_to_string(&file).unwrap();
    let other = cluster.directory().join("other.toml");
    let other_name = other.display().to_string();
    fs::write(&other, format!("{text}\n[cluster]\nname = \"other\"\n")).unwrap();
    let (code, said) = verify(&["-c", &other_name]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cluster \"main\", not \"other\""), "{said}");
    fs::write(&other, text.replace("id = 1", "id = 2")).unwrap();
    let (code, said) = verify(&[&data_name, "-c", &other_name]);
    assert_eq!(code, Some(1));
    assert!(said.contains("server 1, not 2"), "{said}");
    // 3. Neither: a wrong command line.
    assert_eq!(verify(&[]).0, Some(2));
    assert_eq!(verify(&[&data_name, "--id", "1"]).0, Some(2));
}
