//! Three real nodes answer what `nc` sends, every one of them, and soon.

use std::time::{Duration, Instant};

use crate::common::{Cluster, Options, Reply, eventually};

#[test]
fn cluster_answers_inline_commands_on_every_node() {
    let cluster = Cluster::start();
    for position in 0..3 {
        let mut client = cluster.client(position);
        client.must(&["DEL", "a"]);
        // As nc sends it, and then nothing more: the socket is half closed.
        let mut client = cluster.client(position);
        client.send_raw(b"SET a 1\r\nGET a\r\nCAS a 1 2\r\n").unwrap();
        client.finish_sending().unwrap();
        let answer = String::from_utf8(client.read_to_end().unwrap()).unwrap();
        assert_eq!(answer, "+OK\r\n$1\r\n1\r\n:1\r\n", "node {position}");
        // The write is seen through all of them.
        for other in 0..3 {
            assert_eq!(cluster.client(other).must(&["GET", "a"]), Reply::bulk("2"));
        }
    }
}

#[test]
fn cluster_takes_lines_that_end_in_a_newline_alone_and_byte_by_byte() {
    let cluster = Cluster::start();
    let mut client = cluster.client(1);
    for byte in b"SET \"a b\" 'c d'\nGET \"a b\"\n" {
        client.send_raw(&[*byte]).unwrap();
    }
    assert_eq!(client.receive().unwrap(), Reply::ok());
    assert_eq!(client.receive().unwrap(), Reply::bulk("c d"));
    client.send_raw(b"QUIT\n").unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"+OK\r\n");
}

#[test]
fn cluster_accepts_a_write_within_two_seconds_of_its_start() {
    let mut cluster = Cluster::prepare(Options::default());
    let began = Instant::now();
    for position in 0..3 {
        cluster.restart(position);
    }
    eventually("a write is accepted", Duration::from_secs(10), || {
        let mut client = crate::common::Client::connect(&cluster.nodes[0].client).ok()?;
        (client.call(&["SET", "first", "1"]).ok()? == Reply::ok()).then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    assert_eq!(cluster.client(2).must(&["GET", "first"]), Reply::bulk("1"));
}

#[test]
fn cluster_executes_pipelines_in_order_on_every_node() {
    let cluster = Cluster::start();
    for position in 0..3 {
        let key = format!("k{position}");
        let mut commands = Vec::new();
        let mut expected = Vec::new();
        for number in 1..=500 {
            for words in [vec!["INCR", &key], vec!["GET", &key]] {
                commands.push(words.into_iter().map(str::to_owned).collect());
            }
            expected.extend([Reply::Integer(number), Reply::bulk(&number.to_string())]);
        }
        let replies = cluster.client(position).pipeline(&commands).unwrap();
        assert_eq!(replies, expected, "node {position}");
    }
}

#[test]
fn single_node_serves_alone() {
    let mut cluster = Cluster::start_with(Options { nodes: 1, ..Options::default() });
    assert_eq!(cluster.client(0).must(&["SET", "a", "1"]), Reply::ok());
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_for_leader();
    assert_eq!(cluster.client(0).must(&["GET", "a"]), Reply::bulk("1"));
}
