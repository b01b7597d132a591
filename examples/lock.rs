//! A lock with a fencing token, in the commands that any Redis client can send.
//!
//! Acquire: `SET name owner NX PX ttl REV`; it answers the revision that the key got, the *token*,
//! or nil where somebody else holds the lock. Release: `CAD name owner`, which deletes only what is
//! one's own. Extend: `SET name owner IFEQ owner PX ttl`.
//!
//! What it promises: on the cluster's clock at most one owner holds the lock, through the failure of
//! any minority of nodes; each new owner's token is larger than all before. If the owner dies, the
//! lock is free after `ttl`.
//!
//! What it does not: an owner that was stopped for longer than `ttl` (a pause of its process, a slow
//! network) still believes that it holds the lock. No lock with a time-out can know better; that is
//! what the token is for. Whatever the lock protects must remember the largest token that it has
//! seen and refuse smaller ones, as [`Guarded`] does. Nor is it fair: who asks again first, gets it.
//!
//! ```sh
//! raftkvd demo
//! cargo run --example lock -- 127.0.0.1:7101 127.0.0.1:7102 127.0.0.1:7103
//! ```

use std::time::{Duration, Instant};

use redis::{RedisResult, cmd};

use cluster::Cluster;

pub mod cluster;

/// A lock that is held.
pub struct Lock {
    name: String,
    owner: String,
    /// Larger than that of every earlier holder: hand it to what the lock protects.
    pub token: u64,
    /// Until then it is surely held: by this machine's clock, from before it was asked for.
    pub held_until: Instant,
}

/// Tries to take the lock, once. `None`: somebody else holds it.
pub fn acquire(cluster: &mut Cluster, name: &str, ttl: Duration) -> RedisResult<Option<Lock>> {
    let owner = cluster::unique_name();
    let mut set = cmd("SET");
    set.arg(name).arg(&owner).arg("NX").arg("PX").arg(ttl.as_millis() as u64).arg("REV");
    let asked = Instant::now();
    let token = match cluster.once::<Option<u64>>(&set) {
        // It may be ours already: a second SET NX would then be refused by the first. The owner's
        // name is nobody else's, so looking tells.
        Err(error) if cluster::is_in_doubt(&error) => look(cluster, name, &owner)?,
        answer => answer?,
    };
    let held_until = asked + ttl;
    Ok(token.map(|token| Lock { name: name.to_owned(), owner, token, held_until }))
}

/// The token, if the lock is this owner's.
fn look(cluster: &mut Cluster, name: &str, owner: &str) -> RedisResult<Option<u64>> {
    let found: Option<(String, u64)> = cluster.repeat(cmd("GETREV").arg(name))?;
    Ok(found.filter(|(holder, _)| holder == owner).map(|(_, revision)| revision))
}

impl Lock {
    /// Keeps the lock for `ttl` from now. False: it was lost, and somebody else may hold it. The
    /// token stays as it is: those who come later get larger ones.
    pub fn extend(&mut self, cluster: &mut Cluster, ttl: Duration) -> RedisResult<bool> {
        let mut set = cmd("SET");
        set.arg(&self.name).arg(&self.owner).arg("IFEQ").arg(&self.owner);
        set.arg("PX").arg(ttl.as_millis() as u64);
        let asked = Instant::now();
        // Said twice it is the same.
        let is_held = cluster.repeat::<Option<String>>(&set)?.is_some();
        if is_held {
            self.held_until = asked + ttl;
        }
        Ok(is_held)
    }

    /// Gives the lock back. False: it was lost before.
    pub fn release(self, cluster: &mut Cluster) -> RedisResult<bool> {
        // Said twice the second one finds nothing: 0 or -1 then says nothing about the first.
        let deleted: i64 = cluster.repeat(cmd("CAD").arg(&self.name).arg(&self.owner))?;
        Ok(deleted == 1)
    }
}

/// What a lock protects, as it has to be: it takes nothing from who held the lock earlier.
#[derive(Default)]
pub struct Guarded<T> {
    largest_token: u64,
    value: T,
}

impl<T> Guarded<T> {
    /// Writes, unless a later holder of the lock has been here already.
    pub fn write(&mut self, token: u64, value: T) -> Result<(), &'static str> {
        if token < self.largest_token {
            return Err("a later holder of the lock has written");
        }
        self.largest_token = token;
        self.value = value;
        Ok(())
    }
}

fn main() -> RedisResult<()> {
    let mut cluster = Cluster::new(&cluster::endpoints());
    let mut file = Guarded::default();
    let ttl = Duration::from_secs(5);
    let Some(mut lock) = acquire(&mut cluster, "lock:report", ttl)? else {
        println!("somebody else makes the report");
        return Ok(());
    };
    println!("the lock is ours, with token {}", lock.token);
    assert!(acquire(&mut cluster, "lock:report", ttl)?.is_none(), "one at a time");
    println!("extended: {}", lock.extend(&mut cluster, ttl)?);
    println!("written: {:?}", file.write(lock.token, "the report"));
    println!("released: {}", lock.release(&mut cluster)?);
    Ok(())
}
