//! The redis crate against every node of a real cluster.

use crate::common::Cluster;
use redis::{Commands as _, ErrorKind, RedisResult, ServerErrorKind, SetExpiry, SetOptions};

#[test]
fn redis_rs_works_on_every_node() {
    let cluster = Cluster::start();
    cluster.wait_until_even();
    for node in &cluster.nodes {
        for protocol in ["resp2", "resp3"] {
            let url = format!("redis://{}/?protocol={protocol}", node.client);
            let client = redis::Client::open(url).unwrap();
            session(&mut client.get_connection().unwrap(), &format!("{}:{protocol}", node.id));
        }
    }
}

fn session(connection: &mut redis::Connection, name: &str) {
    let key = |suffix: &str| format!("{name}:{suffix}");
    let () = connection.set(key("a"), "1").unwrap();
    assert_eq!(connection.get::<_, String>(key("a")).unwrap(), "1");
    assert_eq!(connection.get::<_, Option<String>>(key("none")).unwrap(), None);
    assert_eq!(connection.incr::<_, _, i64>(key("n"), 5).unwrap(), 5);
    let () = connection.mset(&[(key("b"), "b"), (key("c"), "c")]).unwrap();
    let values: Vec<Option<String>> = connection.mget(&[key("b"), key("none"), key("c")]).unwrap();
    assert_eq!(values, [Some("b".to_owned()), None, Some("c".to_owned())]);
    let expiry = SetOptions::default().with_expiration(SetExpiry::EX(100));
    let () = connection.set_options(key("t"), "x", expiry).unwrap();
    let ttl: i64 = connection.ttl(key("t")).unwrap();
    assert!((98..=100).contains(&ttl), "{ttl}");
    assert_eq!(connection.del::<_, i64>(&[key("t"), key("none")]).unwrap(), 1);

    // Binary values come back as they went.
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let () = connection.set(key("bytes"), &bytes).unwrap();
    assert_eq!(connection.get::<_, Vec<u8>>(key("bytes")).unwrap(), bytes);

    // Our own commands, and an error as Redis words it.
    let swapped: i64 = redis::cmd("CAS").arg(key("a")).arg("1").arg("2").query(connection).unwrap();
    assert_eq!(swapped, 1);
    let (value, revision): (String, u64) =
        redis::cmd("GETREV").arg(key("a")).query(connection).unwrap();
    assert!(value == "2" && revision > 0, "{value} {revision}");
    let wrong: RedisResult<i64> = connection.incr(key("b"), 1);
    let error = wrong.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError));
    assert_eq!(error.detail(), Some("value is not an integer or out of range"));

    // A pipeline.
    let mut pipeline = redis::pipe();
    for number in 0..200 {
        pipeline.set(key("p"), number).ignore().get(key("p"));
    }
    let values: Vec<i64> = pipeline.query(connection).unwrap();
    assert_eq!(values, (0..200).collect::<Vec<i64>>());
}
