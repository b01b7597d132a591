//! MONITOR and CONFIG SET timeout and maxclients on real nodes: what the sockets make of them.

use std::time::Duration;

use crate::common::client::{Client, Reply};
use crate::common::{Cluster, Options, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

fn ok() -> Reply {
    Reply::ok()
}

#[test]
fn a_monitor_that_reads_too_slowly_is_closed_and_holds_nobody_up() {
    let cluster = Cluster::start_with(Options { nodes: 1, ..Options::default() });
    let mut slow = cluster.client(0);
    let mut quick = cluster.client(0);
    let mut client = cluster.client(0);
    for monitor in [&mut slow, &mut quick] {
        assert_eq!(monitor.must(&["MONITOR"]), ok());
    }
    let monitors =
        |client: &mut Client| client.must(&["CLIENT", "LIST"]).text().matches(" flags=O ").count();
    assert_eq!(monitors(&mut client), 2);
    // More than sockets and the bound take; the other one reads along.
    let value = "x".repeat(1 << 20);
    for number in 0..40 {
        assert_eq!(client.must(&["SET", "big", &value]), ok());
        assert_eq!(client.must(&["PING"]), Reply::Simple("PONG".to_owned()), "{number}");
        for expected in ["] \"SET\" \"big\" \"xxx", "] \"PING\""] {
            match quick.receive().unwrap() {
                Reply::Simple(line) => assert!(line.contains(expected), "{expected}"),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(monitors(&mut client), 1);
    let mut shown = 0;
    while slow.receive().is_ok() {
        shown += 1;
    }
    assert!((1..80).contains(&shown), "{shown} of 80 lines, and then the end");
}

#[test]
fn maxclients_and_timeout_change_while_the_node_runs() {
    let cluster = Cluster::start_with(Options { nodes: 1, ..Options::default() });
    let mut client = cluster.client(0);
    let address = &cluster.nodes[0].client;
    assert_eq!(client.must(&["CONFIG", "SET", "maxclients", "2"]), ok());
    let mut second = Client::connect(address).unwrap();
    assert_eq!(second.must(&["PING"]), Reply::Simple("PONG".to_owned()));
    let mut third = Client::connect(address).unwrap();
    let refused = Reply::Error("ERR max number of clients reached".to_owned());
    assert_eq!(third.receive().unwrap(), refused);
    assert!(third.receive().is_err(), "it is closed");
    // Fewer than there are closes nobody.
    assert_eq!(client.must(&["CONFIG", "SET", "maxclients", "1"]), ok());
    assert_eq!(second.must(&["PING"]), Reply::Simple("PONG".to_owned()));
    assert_eq!(client.must(&["CONFIG", "SET", "maxclients", "100", "timeout", "1"]), ok());
    // Who says something stays; the other one goes.
    eventually("the idle one is closed", PATIENCE, || {
        assert_eq!(client.must(&["PING"]), Reply::Simple("PONG".to_owned()));
        let list = client.must(&["CLIENT", "LIST"]).text();
        (list.lines().count() == 1).then_some(())
    });
    assert!(second.receive().is_err());
    assert_eq!(client.must(&["CONFIG", "SET", "timeout", "0"]), ok());
}
