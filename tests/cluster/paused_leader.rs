//! A leader that was stopped for longer than its timeout finds reads in its sockets when it wakes:
//! none of them may be answered with what has been overwritten meanwhile.

use crate::common::{Client, Cluster, Reply, eventually};

const ROUNDS: usize = 8;
const READERS: usize = 16;

#[test]
fn paused_leader_never_answers_with_a_stale_value() {
    let cluster = Cluster::start();
    for round in 0..ROUNDS {
        // 1. Clients are connected to the leader, and have read from it.
        cluster.wait_until_even();
        let leader = cluster.wait_for_leader();
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        cluster.client(leader).must(&["SET", "x", &old]);
        let mut readers: Vec<Client> = (0..READERS).map(|_| cluster.client(leader)).collect();
        for reader in &mut readers {
            assert_eq!(reader.must(&["GET", "x"]), Reply::bulk(&old));
        }

        // 2. It stops; a read is waiting already when the others go on without it.
        cluster.pause(leader);
        readers[0].send(&["GET", "x"]).unwrap();
        let survivor = cluster.others(leader)[0];
        let mut writer = cluster.client(survivor);
        eventually("the others elect a leader and write", crate::common::cluster::PATIENCE, || {
            (writer.must(&["SET", "x", &new]) == Reply::ok()).then_some(())
        });
        assert_eq!(cluster.client(survivor).must(&["GET", "x"]), Reply::bulk(&new));

        // 3. Reads that begin after the write was acknowledged, queued in the sleeper's sockets.
        for (number, reader) in readers.iter_mut().enumerate() {
            if number % 2 == 0 {
                reader.send(&["GET", "x"]).unwrap();
            } else {
                reader.send_raw(b"STRLEN x\r\nGET x\r\n").unwrap();
            }
        }

        // 4. It wakes. The first reader's first read began before the write: it may see either.
        cluster.resume(leader);
        let early = readers[0].receive().unwrap();
        assert!([Reply::bulk(&old), Reply::bulk(&new)].contains(&early), "{early:?}");
        for (number, reader) in readers.iter_mut().enumerate() {
            if number % 2 == 1 {
                assert_eq!(reader.receive().unwrap(), Reply::Integer(new.len() as i64));
            }
            assert_eq!(reader.receive().unwrap(), Reply::bulk(&new), "reader {number}");
        }
    }
}

#[test]
fn paused_leader_does_not_acknowledge_what_it_cannot_commit() {
    let cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    let mut client = cluster.client(leader);
    client.must(&["SET", "n", "0"]);
    // 1. Writes wait in the sleeper's socket while another leads.
    cluster.pause(leader);
    for _ in 0..50 {
        client.send(&["INCR", "n"]).unwrap();
    }
    let survivor = cluster.others(leader)[0];
    let mut writer = cluster.client(survivor);
    assert_eq!(writer.must(&["INCR", "n"]), Reply::Integer(1));
    // 2. It wakes, and forwards them to whoever leads now: each counts once, in order.
    cluster.resume(leader);
    for expected in 2..=51 {
        assert_eq!(client.receive().unwrap(), Reply::Integer(expected));
    }
    assert_eq!(writer.must(&["GET", "n"]), Reply::bulk("51"));
}
