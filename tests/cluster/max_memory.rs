//! `limits.max_memory`: growth is refused with -OOM on every node, reads and deletions go on, and
//! growth resumes by itself.

use crate::common::cluster::PATIENCE;
use crate::common::{Cluster, Options, Reply, eventually};

#[test]
fn a_full_memory_refuses_growth_and_resumes_by_itself() {
    let cluster = Cluster::start_with(Options {
        toml: "\n[limits]\nmax_memory = 1048576\n".to_owned(),
        ..Options::default()
    });
    let mut clients: Vec<_> = (0..3).map(|position| cluster.client(position)).collect();
    // 1. Values are written until growth is refused, through each node in turn.
    let value = "v".repeat(4096);
    let mut written = 0;
    let refusal = loop {
        let key = format!("key{written}");
        match clients[written % 3].must(&["SET", &key, &value]) {
            Reply::Simple(_) => written += 1,
            other => break other,
        }
        assert!(written < 1000, "no quota");
    };
    assert!(refusal.text().starts_with("OOM "), "{refusal:?}");
    assert!((100..=256).contains(&written), "{written} values of 4 KiB fit into 1 MiB");
    // 2. Every node refuses growth, serves reads, and takes deletions.
    for client in &mut clients {
        for growing in [&["SET", "more", &value][..], &["INCR", "n"], &["APPEND", "key1", "x"]] {
            let reply = client.must(growing);
            assert!(reply.text().starts_with("OOM "), "{growing:?}: {reply:?}");
        }
        assert_eq!(client.must(&["STRLEN", "key1"]), Reply::Integer(4096));
        assert_eq!(client.must(&["EXPIRE", "key1", "1000"]), Reply::Integer(1));
    }
    for number in 10..40 {
        let key = format!("key{number}");
        assert_eq!(clients[number % 3].must(&["DEL", &key]), Reply::Integer(1));
    }
    // 3. Each lets growth in again as soon as it has applied the deletions.
    for client in &mut clients {
        eventually("growth is taken again", PATIENCE, || {
            let reply = client.must(&["SET", "more", &value]);
            assert!(reply == Reply::ok() || reply.text().starts_with("OOM "), "{reply:?}");
            (reply == Reply::ok()).then_some(())
        });
    }
    assert_eq!(clients[0].must(&["DBSIZE"]).number(), Some(written as i64 - 30 + 1));
}
