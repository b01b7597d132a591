//! One of several processes leads; when it dies, another one does.
//!
//! Campaign: `SET name candidate NX PX ttl REV`; whoever it answers a revision leads, and that
//! revision is the *term*. Stay: `SET name candidate IFEQ candidate PX ttl`, several times within
//! `ttl`. Resign: `CAD name candidate`. Everyone can ask who leads: `GET name`.
//!
//! What it promises: on the cluster's clock at most one candidate leads, through the failure of any
//! minority of nodes; terms grow. [`Candidate::leads_until`] ends before the cluster gives the place
//! to somebody else, as long as this machine's clock runs as fast as the cluster's: a leader that
//! can't renew its place has left it by then.
//!
//! What it does not: a process that is stopped and goes on later looks at its clock only when it
//! next asks. What a leader does to the world has to carry its term, and be refused where a larger
//! one has been seen (see `lock.rs`). A leader that dies is missed for up to `ttl`.
//!
//! ```sh
//! cargo run --example leader_election -- 127.0.0.1:7101 127.0.0.1:7102 127.0.0.1:7103
//! ```

use std::time::{Duration, Instant};

use redis::{RedisResult, cmd};

use cluster::Cluster;

pub mod cluster;

/// A process that would lead.
pub struct Candidate {
    cluster: Cluster,
    election: String,
    /// Its own name; nobody else's.
    pub name: String,
    ttl: Duration,
    reign: Option<Reign>,
}

#[derive(Clone, Copy)]
struct Reign {
    term: u64,
    until: Instant,
}

impl Candidate {
    /// One that does not lead yet.
    pub fn new(cluster: Cluster, election: &str, ttl: Duration) -> Candidate {
        let election = election.to_owned();
        Candidate { cluster, election, name: cluster::unique_name(), ttl, reign: None }
    }

    /// Call it every `ttl / 3` or so: campaigns, or renews its place. Returns the term in which it
    /// leads now. After an error it leads until [`leads_until`](Candidate::leads_until), if it did.
    pub fn campaign(&mut self) -> RedisResult<Option<u64>> {
        let asked = Instant::now();
        let term = match self.leads() {
            Some(term) if self.renew()? => Some(term),
            Some(_) => None,
            None => self.stand()?,
        };
        self.reign = term.map(|term| Reign { term, until: asked + self.ttl });
        Ok(self.leads())
    }

    fn set(&self) -> redis::Cmd {
        let mut set = cmd("SET");
        set.arg(&self.election).arg(&self.name).arg("PX").arg(self.ttl.as_millis() as u64);
        set
    }

    fn stand(&mut self) -> RedisResult<Option<u64>> {
        let mut set = self.set();
        set.arg("NX").arg("REV");
        match self.cluster.once(&set) {
            // It may be ours already; nobody else has our name.
            Err(error) if cluster::is_in_doubt(&error) => {
                let found: Option<(String, u64)> =
                    self.cluster.repeat(cmd("GETREV").arg(&self.election))?;
                Ok(found.filter(|(leader, _)| *leader == self.name).map(|(_, term)| term))
            }
            term => term,
        }
    }

    fn renew(&mut self) -> RedisResult<bool> {
        let mut set = self.set();
        set.arg("IFEQ").arg(&self.name);
        // Said twice it is the same.
        Ok(self.cluster.repeat::<Option<String>>(&set)?.is_some())
    }

    /// The term in which it leads, by its own clock.
    pub fn leads(&self) -> Option<u64> {
        let reign = self.reign.filter(|reign| Instant::now() < reign.until);
        reign.map(|reign| reign.term)
    }

    /// When it stops to lead unless it renews its place before.
    pub fn leads_until(&self) -> Option<Instant> {
        self.reign.map(|reign| reign.until)
    }

    /// Leaves its place to the others at once.
    pub fn resign(&mut self) -> RedisResult<()> {
        if self.reign.take().is_some() {
            self.cluster.repeat::<i64>(cmd("CAD").arg(&self.election).arg(&self.name))?;
        }
        Ok(())
    }

    /// Who leads, for those who only want to know.
    pub fn leader(&mut self) -> RedisResult<Option<String>> {
        self.cluster.repeat(cmd("GET").arg(&self.election))
    }
}

fn main() -> RedisResult<()> {
    let ttl = Duration::from_secs(3);
    let endpoints = cluster::endpoints();
    let candidate = || Candidate::new(Cluster::new(&endpoints), "election:example", ttl);
    let (mut first, mut second) = (candidate(), candidate());
    println!("the first leads in term {:?}", first.campaign()?);
    println!("the second: {:?}, it knows who does: {:?}", second.campaign()?, second.leader()?);
    first.resign()?;
    println!("the first has resigned; the second leads in term {:?}", second.campaign()?);
    second.resign()
}
