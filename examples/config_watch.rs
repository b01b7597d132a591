//! A configuration that follows the keys with a prefix, through the failure of nodes.
//!
//! Begin: `KRANGE prefix end VALUES` answers the keys and the revision at which they were read.
//! Follow: `KWATCH prefix FROM revision` tells each change behind it, in order. When the node is
//! lost, `KWATCH prefix FROM last` on another one goes on where this one ended.
//!
//! What it promises: each change is told once and in the order in which it was made, so the
//! configuration passes through the very states that the keys passed through. If a node is lost,
//! nothing is missed and nothing told twice.
//!
//! What it does not: it is behind the cluster by a network's delay; who has to know better reads. The
//! history is bounded: if this program was away for too long, the answer is COMPACTED, and the keys
//! are read anew, so states in between are skipped.
//!
//! ```sh
//! cargo run --example config_watch -- 127.0.0.1:7101 127.0.0.1:7102 127.0.0.1:7103
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Connection, ErrorKind, FromRedisValue, RedisResult, Value, cmd};

use cluster::Cluster;

pub mod cluster;

/// A node says every five seconds how far it is; one that is silent for longer is left.
const SILENCE: Duration = Duration::from_secs(12);

/// The keys with a prefix, as they are at a revision.
pub struct Config {
    cluster: Cluster,
    prefix: String,
    /// Where the changes come from; `None`: it was lost.
    watch: Option<Connection>,
    /// Up to this revision all changes are in `entries`.
    pub revision: u64,
    /// What the keys hold.
    pub entries: BTreeMap<String, String>,
}

impl Config {
    /// Reads all keys with this prefix, which must not be empty.
    pub fn read(cluster: Cluster, prefix: &str) -> RedisResult<Config> {
        let (prefix, entries) = (prefix.to_owned(), BTreeMap::new());
        let mut config = Config { cluster, prefix, watch: None, revision: 0, entries };
        config.read_anew()?;
        Ok(config)
    }

    fn read_anew(&mut self) -> RedisResult<()> {
        // The first string behind all that begin with the prefix, which is ASCII.
        let mut end = self.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let mut range = cmd("KRANGE");
        range.arg(&self.prefix).arg(end).arg("VALUES");
        type Listed = (u64, Vec<(String, String, u64)>);
        let (revision, listed): Listed = self.cluster.repeat(&range)?;
        self.revision = revision;
        self.entries = listed.into_iter().map(|(key, value, _)| (key, value)).collect();
        Ok(())
    }

    /// Waits for the next change, and has it in `entries`. It may return without one.
    pub fn follow(&mut self) -> RedisResult<()> {
        let mut watch = match self.watch.take() {
            Some(watch) => watch,
            None => match self.begin() {
                Err(error) if error.code() == Some("COMPACTED") => return self.read_anew(),
                Err(error) if cluster::is_worth_another(&error) => {
                    self.cluster.leave_node();
                    return Ok(());
                }
                watch => watch?,
            },
        };
        match watch.recv_response() {
            Ok(message) => {
                if self.take(message)? {
                    self.watch = Some(watch);
                    Ok(())
                } else {
                    self.read_anew()
                }
            }
            Err(error) if error.is_io_error() => {
                self.cluster.leave_node();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Begins to watch on the next node that can be reached.
    fn begin(&mut self) -> RedisResult<Connection> {
        let mut connection = self.cluster.connect()?;
        connection.set_read_timeout(Some(SILENCE))?;
        let mut watch = cmd("KWATCH");
        watch.arg(&self.prefix).arg("FROM").arg(self.revision);
        let _: u64 = watch.query(&mut connection)?;
        Ok(connection)
    }

    /// Takes one message. False: changes are gone that it was not told of.
    fn take(&mut self, message: Value) -> RedisResult<bool> {
        let Value::Array(words) = message else {
            return Err((ErrorKind::UnexpectedReturnType, "a change is an array").into());
        };
        let word = |place: usize| words.get(place).cloned().unwrap_or(Value::Nil);
        let event = String::from_redis_value(word(2))?;
        let revision = u64::from_redis_value(word(3))?;
        let key = Option::<String>::from_redis_value(word(4))?.unwrap_or_default();
        match event.as_str() {
            "compacted" => return Ok(false),
            "set" => {
                self.entries.insert(key, String::from_redis_value(word(5))?);
            }
            "append" => {
                let appended = String::from_redis_value(word(5))?;
                self.entries.entry(key).or_default().push_str(&appended);
            }
            "del" | "expired" => {
                self.entries.remove(&key);
            }
            "clear" => self.entries.clear(),
            // `expire` and `persist` change deadlines alone, `progress` nothing.
            _ => {}
        }
        self.revision = revision;
        Ok(true)
    }
}

fn main() -> RedisResult<()> {
    let endpoints = cluster::endpoints();
    let mut writer = Cluster::new(&endpoints);
    writer.repeat::<()>(cmd("SET").arg("config:colour").arg("red"))?;
    let mut config = Config::read(Cluster::new(&endpoints), "config:")?;
    println!("at revision {}: {:?}", config.revision, config.entries);
    let before = config.revision;
    writer.repeat::<()>(cmd("SET").arg("config:colour").arg("blue"))?;
    while config.revision <= before {
        config.follow()?;
    }
    println!("at revision {}: {:?}", config.revision, config.entries);
    Ok(())
}
