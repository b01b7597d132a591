//! At most so many requests of a kind in a window of time, over all processes that ask.
//!
//! One transaction a request: `INCR key` counts it, `PEXPIRE key window NX` begins the window with the
//! first one. The counter is gone when the window is over.
//!
//! What it promises: of all requests that were asked about within one window, on whichever node, at
//! most `limit` are allowed; a window begins with its first request. A request whose answer was lost
//! counts as used: the limit is never exceeded because of a failure.
//!
//! What it does not: windows don't overlap, so around the border of two of them up to twice `limit`
//! can pass within one window's length. Each request is a write to a majority: where that is too
//! much, let a process take ten at once (`INCRBY key 10`) and hand them out itself.
//!
//! ```sh
//! cargo run --example rate_limit -- 127.0.0.1:7101 127.0.0.1:7102 127.0.0.1:7103
//! ```

use std::time::Duration;

use redis::{RedisResult, Value, cmd};

use cluster::Cluster;

pub mod cluster;

/// A limit on something that has a name: a user, an address, a door.
pub struct RateLimit {
    cluster: Cluster,
    limit: u64,
    window: Duration,
}

impl RateLimit {
    /// `limit` requests in each `window`.
    pub fn new(cluster: Cluster, limit: u64, window: Duration) -> RateLimit {
        RateLimit { cluster, limit, window }
    }

    /// Whether one more request of this name may pass.
    pub fn allow(&mut self, name: &str) -> RedisResult<bool> {
        let key = format!("rate:{name}");
        // A TXN without compares: both commands, at once.
        let mut txn = cmd("TXN");
        txn.arg("THEN").arg(2).arg("INCR").arg(&key);
        let window = self.window.as_millis() as u64;
        txn.arg("THEN").arg(4).arg("PEXPIRE").arg(&key).arg(window).arg("NX");
        // In doubt it is counted again: that errs on the side of fewer.
        let (_, (count, _)): (bool, (u64, Value)) = self.cluster.repeat(&txn)?;
        Ok(count <= self.limit)
    }
}

fn main() -> RedisResult<()> {
    let cluster = Cluster::new(&cluster::endpoints());
    let mut limit = RateLimit::new(cluster, 3, Duration::from_secs(1));
    for number in 1..=5 {
        println!("request {number} may pass: {}", limit.allow("example")?);
    }
    std::thread::sleep(Duration::from_millis(1100));
    println!("a second later: {}", limit.allow("example")?);
    Ok(())
}
