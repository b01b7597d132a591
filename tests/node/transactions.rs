//! MULTI, EXEC, WATCH on a cluster in memory: atomic, in order, exactly once through a fail-over,
//! on whichever node.

use std::time::Duration;

use raftkv::proto::reply_decoder::Value;
use raftkv::sim::{Cluster, Connection};
use raftkv::types::ServerId;

use super::values::{bulk, error, founded, ok, simple};

fn queued(count: usize) -> Vec<Value> {
    vec![simple("QUEUED"); count]
}

/// Sends all lines at once and takes all replies.
fn say(cluster: &mut Cluster, connection: Connection, lines: &[&str]) -> Vec<Value> {
    cluster.send(connection, lines);
    cluster.run_for(Duration::from_millis(200));
    let replies = cluster.replies(connection);
    assert_eq!(replies.len(), lines.len(), "{lines:?} got {replies:?}");
    replies
}

#[test]
fn exec_does_everything_in_order_on_every_node() {
    let (mut cluster, _) = founded(1);
    for id in cluster.ids() {
        let client = cluster.connect(id);
        let lines =
            ["SET a 1", "MULTI", "INCR a", "GET a", "PING", "DEL a", "GET a", "EXEC", "GET a"];
        let replies = say(&mut cluster, client, &lines);
        let done = Value::Array(vec![
            Value::Integer(2),
            bulk("2"),
            simple("PONG"),
            Value::Integer(1),
            Value::Nil,
        ]);
        let mut expected = vec![ok(), ok()];
        expected.extend(queued(5));
        expected.extend([done, Value::Nil]);
        assert_eq!(replies, expected, "{id}");
    }
}

#[test]
fn a_transaction_of_reads_is_no_log_entry() {
    let (mut cluster, leader) = founded(2);
    assert_eq!(cluster.call(leader, "SET a 1"), ok());
    let index = |cluster: &Cluster| cluster.node(leader).expect("it runs").status().commit_index;
    let before = index(&cluster);
    for id in cluster.ids() {
        let client = cluster.connect(id);
        let replies = say(&mut cluster, client, &["MULTI", "GET a", "STRLEN a", "EXEC"]);
        assert_eq!(replies[3], Value::Array(vec![bulk("1"), Value::Integer(1)]), "{id}");
    }
    assert_eq!(index(&cluster), before);
}

#[test]
fn what_is_wrong_is_told_as_in_redis() {
    let (mut cluster, leader) = founded(3);
    let client = cluster.connect(leader);
    let mut say = |lines: &[&str]| say(&mut cluster, client, lines);
    assert_eq!(say(&["EXEC"]), [error("ERR EXEC without MULTI")]);
    assert_eq!(say(&["DISCARD"]), [error("ERR DISCARD without MULTI")]);
    assert_eq!(
        say(&["MULTI", "MULTI", "WATCH a", "EXEC"])[1..],
        [
            error("ERR MULTI calls can not be nested"),
            error("ERR WATCH inside MULTI is not allowed"),
            Value::Array(vec![]),
        ]
    );
    // Found when queued: nothing is done.
    let aborted = error("EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(say(&["MULTI", "SET a 1", "FOO", "EXEC"])[3], aborted);
    assert_eq!(say(&["MULTI", "SET a 1", "GET", "EXEC"])[3], aborted);
    assert_eq!(say(&["MULTI", "RAFT TRANSFER", "SET a 1", "EXEC"])[3], aborted);
    assert_eq!(say(&["GET a"]), [Value::Nil]);
    // Found when carried out: the others are done.
    let replies = say(&["MULTI", "SET a x", "INCR a", "SET a y FOO", "APPEND a z", "EXEC"]);
    assert_eq!(replies[1..5], queued(4));
    let expected = Value::Array(vec![
        ok(),
        error("ERR value is not an integer or out of range"),
        error("ERR syntax error"),
        Value::Integer(2),
    ]);
    assert_eq!(replies[5], expected);
    assert_eq!(say(&["MULTI", "SET a 1", "DISCARD", "GET a"])[2..], [ok(), bulk("xz")]);
}

#[test]
fn exec_answers_nil_when_a_watched_key_has_changed() {
    let (mut cluster, leader) = founded(4);
    let follower = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
    let client = cluster.connect(follower);
    let attempt = ["MULTI", "INCR hits", "EXEC"];
    for (change, still_holds) in [
        ("SET w 2", false),
        ("DEL w", false),
        ("PEXPIRE w 100000", false),
        ("FLUSHALL", false),
        ("SET other 1", true),
        ("GET w", true),
    ] {
        assert_eq!(cluster.call(leader, "SET w 1"), ok());
        cluster.converge(Duration::from_secs(1));
        assert_eq!(say(&mut cluster, client, &["WATCH w missing"]), [ok()]);
        cluster.call(leader, change);
        let replies = say(&mut cluster, client, &attempt);
        assert_eq!(replies[2] != Value::Nil, still_holds, "{change}");
        // Whatever came of it, nothing is watched any more.
        cluster.call(leader, "SET w 3");
        assert_ne!(say(&mut cluster, client, &attempt)[2], Value::Nil);
    }
    // A key that dies while it is watched has changed, one that came to be too.
    say(&mut cluster, client, &["SET w 1 PX 50", "WATCH w"]);
    cluster.run_for(Duration::from_millis(500));
    assert_eq!(say(&mut cluster, client, &attempt)[2], Value::Nil);
    say(&mut cluster, client, &["WATCH fresh"]);
    cluster.call(leader, "SET fresh 1");
    assert_eq!(say(&mut cluster, client, &attempt)[2], Value::Nil);
    for forget in ["UNWATCH", "MULTI"] {
        say(&mut cluster, client, &["WATCH fresh", forget]);
        cluster.call(leader, "SET fresh 2");
        if forget == "MULTI" {
            say(&mut cluster, client, &["DISCARD"]);
        }
        assert_ne!(say(&mut cluster, client, &attempt)[2], Value::Nil, "{forget}");
    }
}

#[test]
fn watch_looks_at_what_the_pipeline_before_it_has_left() {
    let (mut cluster, _) = founded(5);
    for id in cluster.ids() {
        let client = cluster.connect(id);
        let lines = [
            "SET w 1", "GET w", "WATCH w", "MULTI", "INCR w", "EXEC", "WATCH w", "SET w 5",
            "MULTI", "INCR w", "EXEC", "GET w",
        ];
        let replies = say(&mut cluster, client, &lines);
        assert_eq!(replies[5], Value::Array(vec![Value::Integer(2)]), "{id}");
        assert_eq!(replies[10..], [Value::Nil, bulk("5")], "{id}");
    }
}

#[test]
fn exec_is_atomic_and_exactly_once_through_fail_overs() {
    for seed in 0..15 {
        let (mut cluster, leader) = founded(seed);
        let survivor = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
        let writer = cluster.connect(survivor);
        let reader = cluster.connect(survivor);
        let mut answers = 0;
        for round in 0..40 {
            cluster.send(writer, &["MULTI", "INCR a", "INCR b", "EXEC"]);
            cluster.send(reader, &["MGET a b"]);
            if round == 15 {
                cluster.kill(leader);
            }
            cluster.run_for(Duration::from_millis(1 + seed));
            if round == 30 {
                cluster.start(leader);
            }
        }
        cluster.run_for(Duration::from_secs(2));
        for reply in cluster.replies(writer) {
            if let Value::Array(counts) = reply {
                answers += 1;
                let expected = Value::Integer(answers);
                assert_eq!(counts, [expected.clone(), expected], "seed {seed}");
            }
        }
        assert_eq!(answers, 40, "seed {seed}: each was done once and answered");
        for seen in cluster.replies(reader) {
            let Value::Array(both) = seen else { panic!("seed {seed}: {seen:?}") };
            assert_eq!(both[0], both[1], "seed {seed}: nobody sees half of a transaction");
        }
    }
}

#[test]
fn optimistic_locking_loses_no_update() {
    for seed in 0..10 {
        let (mut cluster, _) = founded(seed);
        cluster.call(ServerId(1), "SET n 0");
        let ids = cluster.ids();
        let clients: Vec<Connection> = ids.iter().map(|id| cluster.connect(*id)).collect();
        let mut done = 0;
        for _ in 0..15 {
            for client in &clients {
                cluster.send(*client, &["WATCH n", "GET n"]);
            }
            cluster.run_for(Duration::from_millis(200));
            for client in &clients {
                let [_, Value::Bulk(seen)] = &cluster.replies(*client)[..] else {
                    panic!("seed {seed}: WATCH and GET are answered");
                };
                let next: u64 = String::from_utf8_lossy(seen).parse::<u64>().unwrap() + 1;
                cluster.send(*client, &["MULTI", &format!("SET n {next}"), "EXEC"]);
            }
            cluster.run_for(Duration::from_millis(200));
            let mut took = 0;
            for client in &clients {
                match cluster.replies(*client).last() {
                    Some(Value::Array(_)) => took += 1,
                    other => assert_eq!(other, Some(&Value::Nil), "seed {seed}"),
                }
            }
            assert!(took <= 1, "seed {seed}: of those who saw the same, one may write");
            done += took;
        }
        assert_eq!(cluster.call(ServerId(2), "GET n"), bulk(&done.to_string()), "seed {seed}");
        assert!(done > 5, "seed {seed}: {done} of 15 rounds came to something");
    }
}

#[test]
fn a_client_that_leaves_gives_back_what_it_queued() {
    let (mut cluster, leader) = founded(6);
    let value = "v".repeat(7 << 20);
    let set = format!("SET a {value}");
    // Nine such commands are queued by clients that stay; the tenth does not fit.
    let clients: Vec<Connection> = (0..10).map(|_| cluster.connect(leader)).collect();
    for (place, client) in clients.iter().enumerate() {
        cluster.send(*client, &["MULTI"]);
        cluster.send(*client, &[&set]);
        cluster.run_for(Duration::from_secs(1));
        let replies = cluster.replies(*client);
        let expected = match place {
            9 => error("ERR this node's clients have queued and watched 64 MiB"),
            _ => simple("QUEUED"),
        };
        assert_eq!(replies, [ok(), expected], "client {place}");
    }
    assert_eq!(say(&mut cluster, clients[0], &["DISCARD"]), [ok()]);
    let late = cluster.connect(leader);
    cluster.send(late, &["MULTI"]);
    cluster.send(late, &[&set]);
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.replies(late), [ok(), simple("QUEUED")]);
    // Two of them at once are longer than a command may be.
    cluster.send(late, &[&set]);
    cluster.run_for(Duration::from_secs(1));
    let Some(Value::Error(text)) = cluster.replies(late).pop() else { panic!("it is refused") };
    assert!(text.starts_with("ERR the transaction is longer than"), "{text}");
}

#[test]
fn exec_that_is_wrong_ends_its_transaction_as_in_redis() {
    let (mut cluster, leader) = founded(23);
    let client = cluster.connect(leader);
    let aborted = error(
        "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command",
    );
    let lines = ["MULTI", "SET a 1", "EXEC now", "EXEC", "EXEC now", "GET a"];
    let without = error("ERR EXEC without MULTI");
    let expected = [ok(), simple("QUEUED"), aborted.clone(), without, aborted, Value::Nil];
    assert_eq!(say(&mut cluster, client, &lines), expected);
}

#[test]
fn what_would_hold_the_loop_is_refused_and_nothing_of_it_is_done() {
    let (mut cluster, leader) = founded(24);
    let client = cluster.connect(leader);
    let too_many =
        |count: usize| error(&format!("ERR a command of {count} arguments: at most 32768 at once"));
    let mset = |pairs: usize| {
        let pairs: String = (0..pairs).map(|number| format!(" k{number} v")).collect();
        format!("MSET{pairs}")
    };

    // 1. One command: the last one that fits, and one more argument.
    let last = mset(16_383);
    assert_eq!(say(&mut cluster, client, &[&last]), [ok()]);
    let words = format!("{} k0 k0", "DEL".to_owned() + &" k".repeat(32_766));
    assert_eq!(
        say(&mut cluster, client, &[&words, "EXISTS k0"]),
        [too_many(32_769), Value::Integer(1)]
    );

    // 2. A transaction has no more in all, and is aborted.
    let wide = error("ERR the transaction has more than 32768 arguments in all");
    let aborted = error("EXECABORT Transaction discarded because of previous errors.");
    let queued = simple("QUEUED");
    let lines = ["MULTI", &last, "SET k0 w", "EXEC", "GET k0"];
    let expected = [ok(), queued, wide, aborted.clone(), bulk("v")];
    assert_eq!(say(&mut cluster, client, &lines), expected);
    let lines = ["MULTI", &words, "EXEC"];
    assert_eq!(say(&mut cluster, client, &lines), [ok(), too_many(32_769), aborted]);

    // 3. Many keys: KEYS takes turns, but not in a transaction; KRANGE and KDEL want LIMIT.
    for start in (16_383..65_537).step_by(8192) {
        let keys = start..(start + 8192).min(65_537);
        let pairs: String = keys.map(|number| format!(" k{number} v")).collect();
        assert_eq!(say(&mut cluster, client, &[&format!("MSET{pairs}")]), [ok()]);
    }
    assert_eq!(say(&mut cluster, client, &["DBSIZE"]), [Value::Integer(65_537)]);
    let lines = ["MULTI", "KEYS *", "EXEC", "KRANGE a z", "KDEL a z LIMIT 65537"];
    let replies = say(&mut cluster, client, &lines);
    let keys = "ERR there are more than 65536 keys: KEYS outside a transaction, or SCAN";
    assert_eq!(replies[2], Value::Array(vec![error(keys)]));
    assert_eq!(replies[3], error("ERR the range has more than 65536 keys: use LIMIT, and go on"));
    let kdel = "ERR one KDEL deletes at most 65536 keys: use LIMIT, and repeat";
    assert_eq!(replies[4], error(kdel));
}
