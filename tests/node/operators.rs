//! What operators and test harnesses ask of a node, on a cluster in memory: WAIT, CLIENT KILL and
//! PAUSE, CLIENT REPLY, RESET, CONFIG SET, SLOWLOG, DEBUG, SHUTDOWN.

use std::time::Duration;

use raftkv::limits;
use raftkv::proto::reply_decoder::Value;
use raftkv::sim::{Cluster, Connection};
use raftkv::types::ServerId;

use super::values::{bulk, error, founded, ok, simple};

fn follower_of(cluster: &Cluster, leader: ServerId) -> ServerId {
    cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes")
}

/// Sends lines, and takes what has come a while later.
fn after(cluster: &mut Cluster, client: Connection, ms: u64, lines: &[&str]) -> Vec<Value> {
    cluster.send(client, lines);
    cluster.run_for(Duration::from_millis(ms));
    cluster.replies(client)
}

/// Sends all lines at once and takes all replies.
fn say(cluster: &mut Cluster, client: Connection, lines: &[&str]) -> Vec<Value> {
    let replies = after(cluster, client, 200, lines);
    assert_eq!(replies.len(), lines.len(), "{lines:?} got {replies:?}");
    replies
}

/// The text of a reply that is one.
fn text(value: &Value) -> String {
    match value {
        Value::Bulk(bytes) => String::from_utf8(bytes.clone()).expect("it is text"),
        other => panic!("{other:?} is no text"),
    }
}

fn number_of(cluster: &mut Cluster, client: Connection) -> i64 {
    match say(cluster, client, &["CLIENT ID"])[..] {
        [Value::Integer(id)] => id,
        ref other => panic!("{other:?}"),
    }
}

/// How many clients the node of this connection has.
fn connected(cluster: &mut Cluster, client: Connection) -> usize {
    let info = text(&say(cluster, client, &["INFO clients"])[0]);
    let line = info.lines().find_map(|line| line.strip_prefix("connected_clients:"));
    line.and_then(|count| count.parse().ok()).expect("INFO has it")
}

#[test]
fn wait_counts_the_nodes_that_have_the_write() {
    let (mut cluster, leader) = founded(1);
    let client = cluster.connect(leader);
    let replies = say(&mut cluster, client, &["SET a 1", "WAIT 2 0", "GET a"]);
    assert_eq!(replies, [ok(), Value::Integer(2), bulk("1")]);

    // 1. A follower knows that a majority has it, and no more: it never says too many.
    let follower = follower_of(&cluster, leader);
    let other = cluster.connect(follower);
    let replies = say(&mut cluster, other, &["SET b 1", "WAIT 1 0", "WAIT 2 50"]);
    assert_eq!(replies, [ok(), Value::Integer(1), Value::Integer(1)]);

    //    It never learns more either, so nobody waits there for ever.
    assert_eq!(say(&mut cluster, other, &["WAIT 2 0"]), [Value::Integer(1)]);

    // 2. One node is gone: two others are waited for until the time is over, and what comes behind
    //    is held meanwhile.
    cluster.kill(follower);
    cluster.run_for(Duration::from_millis(500));
    let leader = cluster.leader().expect("two of three are there");
    let client = cluster.connect(leader);
    assert_eq!(after(&mut cluster, client, 300, &["SET a 2", "WAIT 2 1000", "GET a"]), [ok()]);
    cluster.run_for(Duration::from_millis(1000));
    assert_eq!(cluster.replies(client), [Value::Integer(1), bulk("2")]);

    // 3. It is over at once when the node comes back in time.
    cluster.send(client, &["SET a 3", "WAIT 2 0", "PING"]);
    cluster.run_for(Duration::from_millis(300));
    assert_eq!(cluster.replies(client), [ok()]);
    cluster.start(follower);
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(cluster.replies(client), [Value::Integer(2), simple("PONG")]);
}

#[test]
fn wait_ends_by_client_unblock_and_does_not_wait_in_a_transaction() {
    let (mut cluster, leader) = founded(2);
    let (client, other) = (cluster.connect(leader), cluster.connect(leader));
    let id = number_of(&mut cluster, client);
    assert_eq!(after(&mut cluster, client, 100, &["WAIT 9 0", "PING"]), []);
    let listed = say(&mut cluster, other, &[&format!("CLIENT LIST ID {id}")]);
    assert!(text(&listed[0]).contains(" flags=b "), "{listed:?}");
    let replies = say(&mut cluster, other, &[&format!("CLIENT UNBLOCK {id}")]);
    assert_eq!(replies, [Value::Integer(1)]);
    assert_eq!(cluster.replies(client), [Value::Integer(2), simple("PONG")]);

    assert_eq!(after(&mut cluster, client, 100, &["WAIT 9 0"]), []);
    let line = format!("CLIENT UNBLOCK {id} ERROR");
    assert_eq!(say(&mut cluster, other, &[&line, &line]), [1, 0].map(Value::Integer));
    let unblocked = error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
    assert_eq!(cluster.replies(client), [unblocked]);

    let replies = say(&mut cluster, client, &["MULTI", "WAIT 9 0", "EXEC"]);
    assert_eq!(replies[2], Value::Array(vec![Value::Integer(2)]));
}

#[test]
fn who_pipelines_behind_a_wait_without_end_stops_nobody_else() {
    let (mut cluster, leader) = founded(3);
    let (client, other) = (cluster.connect(leader), cluster.connect(leader));
    assert_eq!(after(&mut cluster, client, 100, &["WAIT 9 0"]), []);
    let line = format!("SET a {}", "x".repeat(1_000_000));
    for _ in 0..1 + limits::HELD_CLIENT_BYTES / 1_000_000 {
        cluster.send(client, &[&line]);
        cluster.run_for(Duration::from_millis(100));
        assert_eq!(say(&mut cluster, other, &["SET b 1", "GET b"]), [ok(), bulk("1")]);
    }
    assert_eq!(connected(&mut cluster, other), 1, "what it sends is bounded, at nobody's cost");
    let held = cluster
        .node(leader)
        .expect("it lives")
        .queues()
        .into_iter()
        .find(|it| it.name == "HELD_BYTES");
    assert_eq!(held.expect("it is listed").held, 0);
}

#[test]
fn many_watches_in_a_packet_are_taken_one_by_one() {
    let (mut cluster, leader) = founded(3);
    let client = cluster.connect(leader);
    let lines: Vec<String> = (0..3000).map(|key| format!("WATCH key:{key}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(say(&mut cluster, client, &lines), vec![ok(); 3000]);
}

#[test]
fn pause_holds_clients_and_lets_them_go_in_order() {
    let (mut cluster, leader) = founded(4);
    let (client, other) = (cluster.connect(leader), cluster.connect(leader));
    // 1. Writes alone are held; reads of others go on.
    assert_eq!(say(&mut cluster, other, &["CLIENT PAUSE 1000 WRITE"]), [ok()]);
    assert_eq!(after(&mut cluster, client, 200, &["SET a 1", "GET a"]), []);
    assert_eq!(say(&mut cluster, other, &["GET a"]), [Value::Nil]);
    cluster.run_for(Duration::from_millis(800));
    assert_eq!(cluster.replies(client), [ok(), bulk("1")]);
    // 2. UNPAUSE lets them go at once.
    assert_eq!(say(&mut cluster, other, &["CLIENT PAUSE 100000 WRITE"]), [ok()]);
    assert_eq!(after(&mut cluster, client, 200, &["SET a 2"]), []);
    assert_eq!(say(&mut cluster, other, &["CLIENT UNPAUSE"]), [ok()]);
    assert_eq!(cluster.replies(client), [ok()]);
    // 3. What stands behind a PAUSE in its own packet is held too; another node's clients are not.
    let replies = after(&mut cluster, other, 200, &["CLIENT PAUSE 1000", "PING"]);
    assert_eq!(replies, [ok()]);
    assert_eq!(after(&mut cluster, client, 200, &["PING"]), []);
    let follower = follower_of(&cluster, leader);
    assert_eq!(cluster.call(follower, "SET a 3"), ok());
    cluster.run_for(Duration::from_millis(1000));
    assert_eq!(cluster.replies(client), [simple("PONG")]);
    assert_eq!(cluster.replies(other), [simple("PONG")]);
}

#[test]
fn kill_ends_who_fits_and_nobody_else() {
    let (mut cluster, leader) = founded(5);
    let (client, other) = (cluster.connect(leader), cluster.connect(leader));
    let id = number_of(&mut cluster, client);
    let replies = say(
        &mut cluster,
        other,
        &["CLIENT KILL 1.2.3.4:5", "CLIENT KILL ID 999999", "CLIENT KILL TYPE what"],
    );
    let nobody = error("ERR No such client");
    let unknown = error("ERR Unknown client type 'what'");
    assert_eq!(replies, [nobody, Value::Integer(0), unknown]);
    assert_eq!(after(&mut cluster, client, 100, &["WAIT 9 0"]), []);
    let line = format!("CLIENT KILL ID {id}");
    assert_eq!(say(&mut cluster, other, &[&line, &line]), [1, 0].map(Value::Integer));
    let listed = text(&say(&mut cluster, other, &["CLIENT LIST"])[0]);
    assert!(!listed.contains(&format!("id={id} ")), "{listed}");
    // In a transaction too: the connection is closed, and not only forgotten.
    let third = cluster.connect(leader);
    let id = number_of(&mut cluster, third);
    let before = connected(&mut cluster, other);
    let line = format!("CLIENT KILL ID {id}");
    let replies = say(&mut cluster, other, &["MULTI", &line, "CLIENT REPLY OFF", "PING", "EXEC"]);
    assert!(matches!(&replies[2], Value::Error(text) if text.contains("inside a transaction")));
    let replies = say(&mut cluster, other, &["MULTI", &line, "PING", "EXEC"]);
    assert_eq!(replies[3], Value::Array(vec![Value::Integer(1), simple("PONG")]));
    assert_eq!(connected(&mut cluster, other), before - 1, "its end reached the driver");
    // Who kills everybody, itself included, still hears of it.
    let replies = after(&mut cluster, other, 200, &["CLIENT KILL SKIPME no", "PING"]);
    assert_eq!(replies, [Value::Integer(1)]);
}

#[test]
fn reply_off_and_skip_answer_nothing() {
    let (mut cluster, leader) = founded(6);
    let client = cluster.connect(leader);
    let lines = ["CLIENT REPLY SKIP", "SET a 1", "GET a"];
    assert_eq!(after(&mut cluster, client, 200, &lines), [bulk("1")]);
    let lines = ["CLIENT REPLY OFF", "INCR a", "GET a", "FOO"];
    assert_eq!(after(&mut cluster, client, 200, &lines), []);
    assert_eq!(say(&mut cluster, client, &["CLIENT REPLY ON"]), [ok()]);
    assert_eq!(say(&mut cluster, client, &["GET a"]), [bulk("2")]);
}

#[test]
fn reset_makes_a_connection_new() {
    let (mut cluster, leader) = founded(7);
    let client = cluster.connect(leader);
    let lines = ["CLIENT SETNAME x", "READONLY", "SET a 1", "WATCH a", "SET a 2", "MULTI"];
    say(&mut cluster, client, &lines);
    let replies = say(&mut cluster, client, &["SET a 3", "RESET", "GET a", "CLIENT GETNAME"]);
    assert_eq!(replies, [simple("QUEUED"), simple("RESET"), bulk("2"), Value::Nil]);
    let replies = say(&mut cluster, client, &["MULTI", "PING", "EXEC"]);
    assert_eq!(replies[2], Value::Array(vec![simple("PONG")]), "nothing is watched any more");
}

/// TRACKINGINFO in RESP2.
fn tracking_info(flags: &[&str], redirect: i64, prefixes: &[&str]) -> Value {
    let all = |words: &[&str]| Value::Array(words.iter().map(|word| bulk(word)).collect());
    let (flags, prefixes) = (all(flags), all(prefixes));
    let redirect = Value::Integer(redirect);
    Value::Array(vec![bulk("flags"), flags, bulk("redirect"), redirect, bulk("prefixes"), prefixes])
}

#[test]
fn who_listens_is_shown_and_found_and_hears_nothing_behind_reset() {
    let (mut cluster, leader) = founded(21);
    let (other, client) = (cluster.connect(leader), cluster.connect(leader));
    let id = number_of(&mut cluster, client);
    // 1. What is told can be changed while the node runs.
    let name = "notify-keyspace-events";
    let line = format!("CONFIG SET {name} KEQ");
    let refused = "ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') \
                   - Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
    assert_eq!(say(&mut cluster, other, &[&line]), [error(refused)]);
    let lines = [&format!("CONFIG SET {name} KA")[..], &format!("CONFIG GET {name}")];
    let shown = Value::Array(vec![bulk(name), bulk("AK")]);
    assert_eq!(say(&mut cluster, other, &lines), [ok(), shown]);
    // 2. A client subscribes, watches and tracks.
    say(&mut cluster, client, &["CLIENT TRACKING ON BCAST PREFIX u: NOLOOP", "SUBSCRIBE a"]);
    let lines = ["PSUBSCRIBE __keyspace@0__:*", "KWATCH u: FROM 0", "SUBSCRIBE b"];
    say(&mut cluster, client, &lines);
    let line = say(&mut cluster, other, &["CLIENT LIST TYPE pubsub"]);
    let line = text(&line[0]);
    assert!(line.starts_with(&format!("id={id} ")) && line.lines().count() == 1, "{line}");
    assert!(line.contains(" flags=PtB db=0 sub=2 psub=1 "), "{line}");
    assert!(line.contains(" redir=0 "), "{line}");
    let normal = text(&say(&mut cluster, other, &["CLIENT LIST TYPE normal"])[0]);
    assert!(!normal.contains(&format!("id={id} ")), "{normal}");
    // 3. It hears of a change twice (nothing is invalidated in RESP2), and takes no GET.
    assert_eq!(say(&mut cluster, other, &["SET u:1 x"]), [ok()]);
    let heard = cluster.replies(client);
    let words = ["pmessage", "__keyspace@0__:*", "__keyspace@0__:u:1", "set"].map(bulk);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard.contains(&Value::Array(words.into())), "{heard:?}");
    let refused = say(&mut cluster, client, &["GET u:1"]);
    assert!(matches!(&refused[0], Value::Error(text) if text.contains("/ RESET are allowed")));
    // 4. Behind RESET it is a client like others.
    let lines = ["RESET", "GET u:1", "CLIENT GETREDIR", "CLIENT TRACKINGINFO"];
    let info = tracking_info(&["off"], -1, &[]);
    let expected = [simple("RESET"), bulk("x"), Value::Integer(-1), info];
    assert_eq!(say(&mut cluster, client, &lines), expected);
    let counts = say(&mut cluster, other, &["SET u:1 y", "PUBLISH a x", "PUBSUB NUMPAT"]);
    assert_eq!(counts, [ok(), Value::Integer(0), Value::Integer(0)]);
    assert_eq!(cluster.replies(client), []);
    let line = text(&say(&mut cluster, client, &["CLIENT INFO"])[0]);
    assert!(line.contains(" flags=N db=0 sub=0 psub=0 "), "{line}");
}

#[test]
fn tracking_info_tells_modes_and_a_redirection_to_who_is_gone() {
    let (mut cluster, leader) = founded(22);
    let (client, target) = (cluster.connect(leader), cluster.connect(leader));
    let lines = ["CLIENT TRACKING ON BCAST PREFIX u: NOLOOP", "CLIENT TRACKINGINFO"];
    let info = tracking_info(&["on", "bcast", "noloop"], 0, &["u:"]);
    assert_eq!(say(&mut cluster, client, &lines), [ok(), info]);
    let id = number_of(&mut cluster, target);
    say(&mut cluster, target, &["SUBSCRIBE __redis__:invalidate"]);
    let line = format!("CLIENT TRACKING ON OPTIN REDIRECT {id}");
    let lines = ["CLIENT TRACKING OFF", &line, "CLIENT CACHING YES", "CLIENT TRACKINGINFO"];
    let replies = say(&mut cluster, client, &lines);
    let info = tracking_info(&["on", "optin", "caching-yes"], id, &[]);
    assert_eq!(replies, [ok(), ok(), ok(), info]);
    // Whoever listens is found by its kind.
    let lines = ["CLIENT KILL TYPE pubsub", "CLIENT GETREDIR", "CLIENT TRACKINGINFO"];
    let replies = say(&mut cluster, client, &lines);
    assert_eq!(replies[..2], [Value::Integer(1), Value::Integer(id)]);
    let info = tracking_info(&["on", "optin", "broken_redirect"], id, &[]);
    assert_eq!(say(&mut cluster, client, &["CLIENT TRACKINGINFO"]), [info]);
    let line = text(&say(&mut cluster, client, &["CLIENT INFO"])[0]);
    assert!(line.contains(" flags=tR ") && line.contains(&format!(" redir={id} ")), "{line}");
}

#[test]
fn config_set_is_whole_or_nothing_and_a_quota_counts_on_any_node() {
    let (mut cluster, leader) = founded(8);
    let follower = follower_of(&cluster, leader);
    for id in [leader, follower] {
        let client = cluster.connect(id);
        let say = |cluster: &mut Cluster, line: &str| say(cluster, client, &[line]).remove(0);
        let refused = say(&mut cluster, "CONFIG SET slowlog-max-len 3 maxmemory bla");
        let expected = "ERR CONFIG SET failed (possibly related to argument 'maxmemory') - \
                        argument must be a memory value";
        assert_eq!(refused, error(expected));
        let shown = say(&mut cluster, "CONFIG GET slowlog-max-len");
        assert_eq!(shown, Value::Array(vec![bulk("slowlog-max-len"), bulk("128")]));
        let unknown = "ERR Unknown option or number of arguments for CONFIG SET - 'what'";
        assert_eq!(say(&mut cluster, "CONFIG SET what 1"), error(unknown));

        assert_eq!(say(&mut cluster, "CONFIG SET maxmemory 1 appendonly yes"), ok());
        let full = say(&mut cluster, "SET a 1");
        assert!(matches!(&full, Value::Error(text) if text.starts_with("OOM ")), "{full:?}");
        assert_eq!(say(&mut cluster, "DEL a"), Value::Integer(0));
        assert_eq!(say(&mut cluster, "CONFIG SET MAXMEMORY 0"), ok());
        assert_eq!(say(&mut cluster, "SET a 1"), ok());
        assert_eq!(say(&mut cluster, "DEL a"), Value::Integer(1));
        let used = say(&mut cluster, "CONFIG RESETSTAT");
        assert_eq!(used, ok());
        let stats = text(&say(&mut cluster, "INFO stats"));
        assert!(stats.contains("total_commands_processed:1\r\n"), "{stats}");
    }
}

#[test]
fn slowlog_names_writes_reads_and_transactions() {
    let (mut cluster, leader) = founded(9);
    let client = cluster.connect(leader);
    let lines = ["CLIENT SETNAME me", "CONFIG SET slowlog-log-slower-than 0", "SET a 1"];
    say(&mut cluster, client, &lines);
    say(&mut cluster, client, &["GET a"]);
    say(&mut cluster, client, &["MULTI", "INCR a", "EXEC"]);
    let replies = say(&mut cluster, client, &["SLOWLOG LEN", "SLOWLOG GET -1"]);
    assert_eq!(replies[0], Value::Integer(3));
    let Value::Array(entries) = &replies[1] else { panic!("{replies:?}") };
    let words: Vec<&Value> = entries
        .iter()
        .map(|entry| match entry {
            Value::Array(fields) => {
                assert_eq!((fields.len(), &fields[5]), (6, &bulk("me")));
                &fields[3]
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let line = |words: &[&str]| Value::Array(words.iter().map(|word| bulk(word)).collect());
    assert_eq!(words, [&line(&["EXEC"]), &line(&["GET", "a"]), &line(&["SET", "a", "1"])]);
    assert_eq!(say(&mut cluster, client, &["SLOWLOG RESET", "SLOWLOG LEN"])[1], Value::Integer(0));
}

#[test]
fn save_answers_once_the_snapshot_is_durable() {
    let (mut cluster, leader) = founded(10);
    let client = cluster.connect(leader);
    let lines = ["LASTSAVE", "SET a 1", "SAVE", "LASTSAVE"];
    let replies = after(&mut cluster, client, 2000, &lines);
    assert_eq!(replies[..3], [Value::Integer(0), ok(), ok()]);
    assert!(matches!(replies[3], Value::Integer(second) if second > 0), "{replies:?}");
    let status = cluster.node(leader).expect("it runs").status();
    assert!(status.snapshot.is_some(), "it is durable");
}

#[test]
fn debug_is_refused_where_it_is_not_on() {
    let (mut cluster, leader) = founded(11);
    let client = cluster.connect(leader);
    for line in ["DEBUG SLEEP 1", "DEBUG JMAP", "DEBUG PROTOCOL null"] {
        let reply = say(&mut cluster, client, &[line]).remove(0);
        let is_refused = matches!(&reply, Value::Error(text) if text.starts_with("ERR DEBUG command not allowed"));
        assert!(is_refused, "{line} got {reply:?}");
    }
}

#[test]
fn shutdown_is_asked_of_the_driver_and_answered_by_the_end() {
    let (mut cluster, leader) = founded(12);
    let client = cluster.connect(leader);
    let refused = say(&mut cluster, client, &["SHUTDOWN ABORT", "SHUTDOWN WHAT"]);
    assert_eq!(refused, [error("ERR No shutdown in progress."), error("ERR syntax error")]);
    assert!(!cluster.node(leader).expect("it runs").is_asked_to_stop());
    assert_eq!(after(&mut cluster, client, 100, &["SHUTDOWN NOSAVE"]), []);
    assert!(cluster.node(leader).expect("the driver decides").is_asked_to_stop());
}

#[test]
fn what_harnesses_say_is_answered() {
    let (mut cluster, leader) = founded(13);
    let client = cluster.connect(leader);
    let rows: [(&str, Value); 16] = [
        ("FUNCTION FLUSH", ok()),
        ("FUNCTION FLUSH NOW", error("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")),
        ("FUNCTION LIST", Value::Array(vec![])),
        ("FUNCTION KILL", error("NOTBUSY No scripts in execution right now.")),
        ("SCRIPT FLUSH ASYNC", ok()),
        ("SCRIPT EXISTS a b", Value::Array(vec![Value::Integer(0), Value::Integer(0)])),
        ("SWAPDB 0 0", ok()),
        ("SWAPDB 0 1", error("ERR DB index is out of range")),
        ("SWAPDB x 1", error("ERR invalid first DB index")),
        ("MOVE a 1", error("ERR DB index is out of range")),
        ("MOVE a 0", error("ERR source and destination objects are the same")),
        ("AUTH default x", ok()),
        ("AUTH x y", error("WRONGPASS invalid username-password pair or user is disabled.")),
        ("CLIENT NO-EVICT on", ok()),
        ("CLIENT GETREDIR", Value::Integer(-1)),
        (
            "LPUSH a b",
            error(
                "ERR unknown command 'LPUSH', with args beginning with: 'a' 'b' ; raftkv stores \
                 strings, and no other type",
            ),
        ),
    ];
    for (line, expected) in rows {
        assert_eq!(say(&mut cluster, client, &[line]), [expected], "{line}");
    }
    let time = say(&mut cluster, client, &["TIME"]).remove(0);
    assert!(matches!(&time, Value::Array(words) if words.len() == 2), "{time:?}");
    let refused = text_of_error(&say(&mut cluster, client, &["CONFIG REWRITE"])[0]);
    assert!(refused.contains("node.toml"), "{refused}");
}

fn text_of_error(value: &Value) -> String {
    match value {
        Value::Error(text) => text.clone(),
        other => panic!("{other:?} is no error"),
    }
}

#[test]
fn sentinel_names_the_leader_on_any_node_and_after_it_has_changed() {
    let (mut cluster, leader) = founded(14);
    let ask = |cluster: &mut Cluster, id: ServerId| {
        let client = cluster.connect(id);
        let asked = say(cluster, client, &["SENTINEL get-master-addr-by-name main"]).remove(0);
        match asked {
            Value::Array(words) => words.iter().map(text).collect::<Vec<String>>().join(":"),
            other => panic!("{other:?}"),
        }
    };
    let address_of = |cluster: &Cluster, id: ServerId| {
        let node = cluster.node(id).expect("it runs");
        node.raft().membership().member(id).expect("a member").client.clone()
    };
    // 1. All name the leader.
    for id in cluster.ids() {
        assert_eq!(ask(&mut cluster, id), address_of(&cluster, leader), "{id}");
    }
    // 2. What it knows of the others, and of another name.
    let client = cluster.connect(leader);
    let lines = ["SENTINEL MASTERS", "SENTINEL REPLICAS main", "SENTINEL SENTINELS main"];
    for (line, count) in lines.iter().zip([1, 2, 2]) {
        let reply = say(&mut cluster, client, &[line]).remove(0);
        assert!(matches!(&reply, Value::Array(all) if all.len() == count), "{line}: {reply:?}");
    }
    let lines = ["SENTINEL MASTER what", "SENTINEL get-master-addr-by-name what"];
    let unknown = error("ERR No such master with that name");
    assert_eq!(say(&mut cluster, client, &lines), [unknown, Value::Nil]);
    let off = error("ERR This instance has cluster support disabled");
    assert_eq!(say(&mut cluster, client, &["CLUSTER SLOTS"]), [off]);
    // 3. Another one leads.
    cluster.kill(leader);
    cluster.run_for(Duration::from_secs(2));
    let next = cluster.leader().expect("two of three are there");
    for id in cluster.alive() {
        assert_eq!(ask(&mut cluster, id), address_of(&cluster, next), "{id}");
    }
}

#[test]
fn redirect_goes_to_who_asked_for_it_and_leaves_reads_that_stay() {
    let (mut cluster, leader) = founded(15);
    let follower = follower_of(&cluster, leader);
    let node = cluster.node(leader).expect("it runs");
    let address = node.raft().membership().member(leader).expect("a member").client.clone();
    let elsewhere = error(&format!("REDIRECT {address}"));
    let (client, other) = (cluster.connect(follower), cluster.connect(follower));
    assert_eq!(say(&mut cluster, client, &["CLIENT CAPA what redirect"]), [ok()]);
    assert_eq!(
        say(&mut cluster, client, &["SET a 1", "GET a", "DBSIZE", "PING"]),
        [elsewhere.clone(), elsewhere.clone(), Value::Integer(0), simple("PONG")]
    );
    let replies = say(&mut cluster, client, &["READONLY", "GET a", "SET a 1"]);
    assert_eq!(replies, [ok(), Value::Nil, elsewhere.clone()]);
    let replies = say(&mut cluster, client, &["MULTI", "SET a 1", "EXEC"]);
    let aborted = error("EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(replies[1..], [elsewhere, aborted]);
    assert_eq!(say(&mut cluster, other, &["SET a 2"]), [ok()], "nobody else is sent away");
    let on_leader = cluster.connect(leader);
    let replies = say(&mut cluster, on_leader, &["CLIENT CAPA redirect", "GET a"]);
    assert_eq!(replies, [ok(), bulk("2")]);
}

#[test]
fn info_latencystats_is_shown_where_it_is_asked_for() {
    let (mut cluster, leader) = founded(25);
    let client = cluster.connect(leader);
    say(&mut cluster, client, &["SET a 1", "GET a"]);
    let shown = |cluster: &mut Cluster, line| text(&say(cluster, client, &[line])[0]);
    for line in ["INFO latencystats", "INFO all", "INFO everything", "INFO default LatencyStats"] {
        let info = shown(&mut cluster, line);
        assert!(info.contains("# Latencystats\r\nlatency_percentiles_usec_"), "{line}: {info}");
        let set = info.lines().find_map(|it| it.strip_prefix("latency_percentiles_usec_set:"));
        let figures: Vec<&str> = set.expect("SET was used").split(',').collect();
        assert_eq!(figures.len(), 3);
        for (figure, name) in figures.iter().zip(["p50=", "p99=", "p99.9="]) {
            let us: f64 = figure.strip_prefix(name).expect("in order").parse().expect("a number");
            assert!(us > 0.0, "{figure}");
        }
    }
    for line in ["INFO", "INFO default", "INFO stats"] {
        assert!(!shown(&mut cluster, line).contains("Latencystats"), "{line}");
    }
}
