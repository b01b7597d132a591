//! A queue of jobs for many producers and many workers.
//!
//! Push: `INCR queue:NAME:tail` reserves a number, `SET queue:NAME:job:NUMBER payload NX` files the
//! job under it. Take: `KRANGE` lists the earliest jobs in one linearizable read, and
//! `SET queue:NAME:claim:NUMBER worker NX PX ttl` claims one. Done: a `TXN` deletes job and claim at
//! once, if the claim is still one's own.
//!
//! What it promises: a job that [`Queue::push`] has returned from is not lost; it is worked on until
//! some worker says that it is done. While a worker holds a claim, nobody else gets the job. Jobs
//! are handed out in the order of their numbers, as far as workers keep up with them.
//!
//! What it does not: a job can be worked on twice, if its worker takes longer than `ttl` or dies
//! between its work and [`Queue::done`]; and it can be filed twice, if a node dies right when it is
//! pushed and it is done before the push is repeated. So work has to bear being done again. A number
//! that was reserved and never used is a gap, and nobody minds.
//!
//! ```sh
//! cargo run --example queue -- 127.0.0.1:7101 127.0.0.1:7102 127.0.0.1:7103
//! ```

use std::time::Duration;

use redis::{RedisResult, cmd};

use cluster::Cluster;

pub mod cluster;

/// How many of the earliest jobs a worker looks at: more than there are workers.
const WINDOW: u64 = 64;

/// A queue, and who pushes or works here.
pub struct Queue {
    cluster: Cluster,
    name: String,
    worker: String,
}

/// A job that is claimed.
pub struct Job {
    number: String,
    /// What was pushed.
    pub payload: String,
}

impl Queue {
    /// The queue of that name.
    pub fn new(cluster: Cluster, name: &str) -> Queue {
        Queue { cluster, name: name.to_owned(), worker: cluster::unique_name() }
    }

    fn key(&self, kind: &str, number: &str) -> String {
        format!("queue:{}:{kind}:{number}", self.name)
    }

    /// Files a job.
    pub fn push(&mut self, payload: &str) -> RedisResult<()> {
        // A second INCR reserves another number, and leaves a gap.
        let tail = format!("queue:{}:tail", self.name);
        let number: u64 = self.cluster.repeat(cmd("INCR").arg(tail))?;
        // As wide as the largest number, so that keys are ordered as numbers are.
        let key = self.key("job", &format!("{number:020}"));
        let mut set = cmd("SET");
        set.arg(key).arg(payload).arg("NX");
        // Said twice the second one finds the first.
        self.cluster.repeat::<Option<String>>(&set)?;
        Ok(())
    }

    /// Claims the earliest job that nobody works on, for `ttl`.
    pub fn take(&mut self, ttl: Duration) -> RedisResult<Option<Job>> {
        let prefix = self.key("job", "");
        // Behind all jobs: `;` is the character behind `:`.
        let end = format!("{};", prefix.trim_end_matches(':'));
        let mut range = cmd("KRANGE");
        range.arg(&prefix).arg(end).arg("LIMIT").arg(WINDOW).arg("VALUES");
        type Listed = (u64, Vec<(String, String, u64)>);
        let (_, jobs): Listed = self.cluster.repeat(&range)?;
        for (key, payload, _) in jobs {
            let number = key[prefix.len()..].to_owned();
            if self.claim(&number, ttl)? {
                return Ok(Some(Job { number, payload }));
            }
        }
        Ok(None)
    }

    fn claim(&mut self, number: &str, ttl: Duration) -> RedisResult<bool> {
        // Claimed only while the job is there: it may be done since it was listed.
        let (job, claim) = (self.key("job", number), self.key("claim", number));
        let mut txn = cmd("TXN");
        txn.arg("IF").arg("EXISTS").arg(&job).arg("IF").arg("MISSING").arg(&claim);
        let ttl = ttl.as_millis() as u64;
        txn.arg("THEN").arg(5).arg("SET").arg(&claim).arg(&self.worker).arg("PX").arg(ttl);
        match self.cluster.once::<(bool, redis::Value)>(&txn) {
            Err(error) if cluster::is_in_doubt(&error) => {
                let owner: Option<String> = self.cluster.repeat(cmd("GET").arg(&claim))?;
                Ok(owner.as_deref() == Some(&self.worker))
            }
            Err(error) if cluster::is_worth_another(&error) => Ok(false),
            answer => Ok(answer?.0),
        }
    }

    /// The job is done, and gone. False: the claim was lost, and somebody else may work on it.
    pub fn done(&mut self, job: &Job) -> RedisResult<bool> {
        let (key, claim) = (self.key("job", &job.number), self.key("claim", &job.number));
        let mut txn = cmd("TXN");
        txn.arg("IF").arg("VALUE").arg(&claim).arg(&self.worker);
        txn.arg("THEN").arg(3).arg("DEL").arg(&key).arg(&claim);
        // Said twice the second one finds no claim: then the job being gone tells that it was ours,
        // or somebody's who has done it after us.
        let (is_ours, _): (bool, redis::Value) = self.cluster.repeat(&txn)?;
        Ok(is_ours || !self.cluster.repeat::<bool>(cmd("EXISTS").arg(&key))?)
    }
}

fn main() -> RedisResult<()> {
    let endpoints = cluster::endpoints();
    let queue = || Queue::new(Cluster::new(&endpoints), "example");
    let (mut producer, mut worker) = (queue(), queue());
    for payload in ["write", "print", "post"] {
        producer.push(payload)?;
    }
    while let Some(job) = worker.take(Duration::from_secs(30))? {
        println!("worked on: {}, done: {}", job.payload, worker.done(&job)?);
    }
    Ok(())
}
