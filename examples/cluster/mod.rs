//! What all recipes stand on: any node serves any client, so a client of several nodes goes on with
//! the next one when its own fails, and must know what it may say twice.
//!
//! A plain Redis client underneath (the `redis` crate); nothing of raftkv's own library. Used by the
//! recipes beside it.
// Each recipe is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::time::{Duration, Instant};

use redis::{Cmd, Connection, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind};

/// How long one node may take to connect, or to answer: a little longer than the server's own
/// `request_timeout_ms`, so that its verdict comes first.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a command is said again before its caller is told that it failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// The nodes, and a connection to one of them.
pub struct Cluster {
    endpoints: Vec<String>,
    next: usize,
    connection: Option<Connection>,
}

impl Cluster {
    /// Nodes as `host:port`.
    pub fn new(endpoints: &[String]) -> Cluster {
        Cluster { endpoints: endpoints.to_vec(), next: 0, connection: None }
    }

    /// Says a command that may be said twice, on one node after the other, until it is answered.
    pub fn repeat<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.once(command) {
                Err(error) if is_worth_another(&error) && Instant::now() < give_up => {
                    std::thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }

    /// Says a command once. After an error that is [`is_in_doubt`] it may have been done.
    pub fn once<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let result = command.query(&mut connection);
        let is_lost = matches!(&result, Err(error) if error.is_io_error());
        if is_lost {
            self.next += 1;
        } else {
            self.connection = Some(connection);
        }
        result
    }

    /// A connection of its own to the next node that can be reached.
    pub fn connect(&mut self) -> RedisResult<Connection> {
        let mut failure = None;
        for _ in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[self.next % self.endpoints.len()];
            match open(endpoint) {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
            self.next += 1;
        }
        Err(failure.unwrap_or_else(|| (ErrorKind::InvalidClientConfig, "no endpoints").into()))
    }

    /// The next connection is to the next node.
    pub fn leave_node(&mut self) {
        self.connection = None;
        self.next += 1;
    }
}

fn open(endpoint: &str) -> RedisResult<Connection> {
    let client = redis::Client::open(format!("redis://{endpoint}/"))?;
    let connection = client.get_connection_with_timeout(NODE_TIMEOUT)?;
    connection.set_read_timeout(Some(NODE_TIMEOUT))?;
    connection.set_write_timeout(Some(NODE_TIMEOUT))?;
    Ok(connection)
}

/// Whether a command may have been done although it has failed: the connection broke, or the node
/// says so itself.
pub fn is_in_doubt(error: &redis::RedisError) -> bool {
    error.is_io_error() || error.code() == Some("INDOUBT")
}

/// Whether the same command may fare better: in doubt, or surely not done for now.
pub fn is_worth_another(error: &redis::RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown};
    let is_passing =
        matches!(error.kind(), ErrorKind::Server(ClusterDown) | ErrorKind::Server(BusyLoading));
    is_in_doubt(error) || is_passing
}

/// The endpoints from the command line, by default those of `raftkvd demo`.
pub fn endpoints() -> Vec<String> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if given.is_empty() {
        return (7101..=7103).map(|port| format!("127.0.0.1:{port}")).collect();
    }
    given
}

/// A name that nobody else has: who owns a lock, leads, or has claimed a job.
pub fn unique_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    // Each RandomState is seeded by the system.
    let random = |number: u8| RandomState::new().hash_one(number);
    format!("{:016x}{:016x}", random(1), random(2))
}
