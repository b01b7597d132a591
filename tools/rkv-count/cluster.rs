//! Servers in memory that take their turns one after the other, and clients that wait for them.
//!
//! Called by `count`. Time is a number that each step moves by the same distance, so that nothing
//! depends on how fast it runs. What is counted is marked by functions of its own: a profiler
//! counts while one of [`counted_leader_turn`] and [`counted_follower_turn`] runs, and nothing else
//! (`bench/instructions` names them).

use std::hint::black_box;
use std::time::Duration;

use raftkv::config::{Config, Overrides};
use raftkv::limits;
use raftkv::node::Role;
use raftkv::storage::StorageError;
use raftkv::types::{Instant, LogIndex, ServerId};

use crate::server::Server;

/// How far a step moves the time: about what a message and a synced write take.
const STEP: Duration = Duration::from_micros(50);

/// How far a step moves it while nothing is asked for.
const IDLE_STEP: Duration = Duration::from_millis(1);

/// After so many steps something is wrong: a second of the cluster's time.
const STEPS_MAX: usize = 20_000;

/// Large enough that few rows begin a new one, and those by a share of their counts that is small.
const SEGMENT_BYTES: u64 = 4 << 20;

/// See the file's head.
pub struct Cluster {
    servers: Vec<Server>,
    leader: usize,
    now: Instant,
    pub is_counting: bool,
}

impl Cluster {
    /// Servers that have met and elected one of them.
    ///
    /// # Errors
    /// The storage's.
    pub fn start(nodes: usize) -> Result<Cluster, StorageError> {
        let now = Instant(1_000_000_000);
        let text = configuration(nodes);
        let mut servers = Vec::new();
        for id in 1..=nodes as u64 {
            let own = Overrides { id: Some(ServerId(id)), ..Overrides::default() };
            let config = Config::parse(&text, &own).expect("the text is ours");
            servers.push(Server::start(&config, now)?);
        }
        for first in 0..nodes {
            for second in 0..nodes {
                if let Ok([from, to]) = servers.get_disjoint_mut([first, second]) {
                    from.meet(to, now)?;
                }
            }
        }
        let mut cluster = Cluster { servers, leader: 0, now, is_counting: false };
        for _ in 0..STEPS_MAX {
            cluster.step(IDLE_STEP)?;
            if let Some(leader) = cluster.settled_leader() {
                cluster.leader = leader;
                return Ok(cluster);
            }
        }
        let statuses: Vec<_> = cluster.servers.iter().map(|one| one.node.status()).collect();
        panic!("nobody leads after {STEPS_MAX} steps: {statuses:#?}");
    }

    /// A client connects to the leader.
    pub fn connect(&mut self) -> usize {
        self.servers[self.leader].connect(self.now)
    }

    /// Each client sends what is in its place of `sent`; all wait for their replies, which come
    /// back in the same places.
    ///
    /// # Errors
    /// The storage's.
    pub fn call(
        &mut self,
        clients: &[usize],
        sent: &[Vec<u8>],
        answers: &mut [Vec<u8>],
    ) -> Result<(), StorageError> {
        for (client, bytes) in clients.iter().zip(sent) {
            self.servers[self.leader].incoming(*client).extend_from_slice(bytes);
        }
        for _ in 0..STEPS_MAX {
            self.step(STEP)?;
            if self.servers.iter().any(|server| server.is_due(self.now)) {
                continue;
            }
            for (client, answer) in clients.iter().zip(&mut *answers) {
                let awaited = self.servers[self.leader].take_answers(*client, answer);
                assert_eq!(awaited, 0, "a cluster at rest has answered everybody");
            }
            return Ok(());
        }
        panic!("not at rest after {STEPS_MAX} steps");
    }

    /// Every server that has something to do takes a turn; what it says arrives in the next step.
    fn step(&mut self, distance: Duration) -> Result<(), StorageError> {
        self.now = self.now.after(distance);
        let is_due: Vec<bool> = self.servers.iter().map(|one| one.is_due(self.now)).collect();
        for (number, server) in self.servers.iter_mut().enumerate().filter(|(n, _)| is_due[*n]) {
            match (self.is_counting, number == self.leader) {
                (false, _) => server.turn(self.now)?,
                (true, true) => counted_leader_turn(server, self.now)?,
                (true, false) => counted_follower_turn(server, self.now)?,
            }
        }
        for first in 0..self.servers.len() {
            for second in 0..self.servers.len() {
                if let Ok([from, to]) = self.servers.get_disjoint_mut([first, second]) {
                    from.carry_mail(server_id(first), to, server_id(second));
                }
            }
        }
        Ok(())
    }

    /// Who leads, once all follow it and have applied what is committed.
    fn settled_leader(&self) -> Option<usize> {
        let statuses: Vec<_> = self.servers.iter().map(|server| server.node.status()).collect();
        let leader = statuses.iter().position(|status| status.role == Role::Leader)?;
        let committed = statuses[leader].commit_index;
        let follows = |status: &raftkv::node::Status| {
            status.leader == Some(server_id(leader)) && status.last_applied == committed
        };
        let is_settled = committed > LogIndex::ZERO && statuses.iter().all(follows);
        is_settled.then_some(leader)
    }
}

/// The two must not come to the same code: a linker would make one function of them.
#[inline(never)]
fn counted_leader_turn(server: &mut Server, now: Instant) -> Result<(), StorageError> {
    let result = server.turn(now);
    black_box("leader");
    result
}

#[inline(never)]
fn counted_follower_turn(server: &mut Server, now: Instant) -> Result<(), StorageError> {
    let result = server.turn(now);
    black_box("follower");
    result
}

fn server_id(number: usize) -> ServerId {
    ServerId(number as u64 + 1)
}

/// Snapshots are put off: one that falls into a count would be counted whole. Segments are small:
/// a start reads a whole one, which is not counted and takes most of the time.
fn configuration(nodes: usize) -> String {
    let snapshot_log_bytes = limits::SNAPSHOT_LOG_BYTES_MAX;
    let mut text = format!(
        "[storage]\nsegment_bytes = {SEGMENT_BYTES}\nsnapshot_log_bytes = {snapshot_log_bytes}\n"
    );
    text += "[cluster]\nname = \"count\"\n";
    for id in 1..=nodes {
        let line = format!("peer = \"10.0.0.{id}:7201\"\nclient = \"10.0.0.{id}:7101\"\n");
        text += &format!("[[cluster.node]]\nid = {id}\n{line}");
    }
    text
}
