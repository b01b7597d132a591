//! Members come and go while nodes die, lose their disks, move and are cut off, all at once.
//!
//! Whole nodes in memory, one seed each, of clusters that begin with one to three servers. The
//! cluster in memory checks election-safety, state-machine-safety and durable-before-ack all the
//! time; the end checks that everything healed comes to agree. `SIM_SEEDS=from..to` draws anew.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::memory::members::{SECOND, server, voters};
use crate::memory::{Cluster, Disk, Weather};
use raftkv::config::{Config, Overrides, Readmit};
use raftkv::limits;
use raftkv::node::Role;
use raftkv::proto::reply::Reply;
use raftkv::types::{ClientId, ServerId};

/// How many servers there are, members or not.
const SERVERS: u64 = 6;

fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SIM_SEEDS") else { return default };
    let (from, to) = text.split_once("..").expect("SIM_SEEDS=from..to");
    from.parse().unwrap()..to.parse().unwrap()
}

/// Every node at a glance, for the story of a seed.
fn glance(cluster: &Cluster) -> String {
    let line = |id: ServerId| {
        let node = cluster.node(id)?;
        let links: Vec<ServerId> =
            cluster.ids().into_iter().filter(|other| node.raft().has_link(*other)).collect();
        let members = node.raft().membership().members().iter();
        let members: Vec<_> = members
            .map(|m| (m.id.0, m.incarnation.0, m.voter, m.outgoing_voter, m.promote, &m.peer))
            .collect();
        let at = node.raft().membership_index();
        let where_it_is = cluster.addresses(id);
        Some(format!("{:?} {links:?} {where_it_is:?} {at} {members:?}\n", node.status()))
    };
    cluster.ids().into_iter().filter_map(line).collect()
}

/// A storm under way.
struct Storm {
    cluster: Cluster,
    down: Vec<ServerId>,
    /// Disks that were put aside when a new one was put in.
    aside: BTreeMap<ServerId, (Disk, u64)>,
    /// Who was asked to move, and where to.
    moving: Vec<(ServerId, String, ServerId, ClientId)>,
    moves: u64,
    founders: u64,
    /// How much is written.
    writes: u64,
    story: Vec<String>,
}

impl Storm {
    fn begin(seed: u64) -> Storm {
        let founders = 1 + seed % 3;
        let mut config = Config::single(&Overrides::default()).expect("the defaults are sound");
        config.cluster.nodes = crate::memory::listed(founders);
        if seed % 4 == 1 {
            // Newcomers, and those who were away, begin with a snapshot.
            config.storage.snapshot_log_bytes = limits::SNAPSHOT_LOG_BYTES_MIN;
        }
        if seed % 5 == 2 {
            config.cluster.readmit = Readmit::Auto;
        }
        let writes = if seed % 4 == 1 { 4 } else { 1 };
        let mut cluster = Cluster::with_config(config, seed);
        cluster.run_until(3 * SECOND, "the first leader", |c| c.leader().is_some());
        for id in founders + 1..=SERVERS {
            cluster.join(server(id));
        }
        if seed.is_multiple_of(2) {
            cluster.weather = Weather::storm();
        }
        Storm {
            cluster,
            down: Vec::new(),
            aside: BTreeMap::new(),
            moving: Vec::new(),
            moves: 0,
            founders,
            writes,
            story: Vec::new(),
        }
    }

    /// Whether a member is on the directory that it was admitted with, by whoever leads.
    fn is_on_its_disk(&self, id: ServerId) -> bool {
        let leader = self.cluster.leader().and_then(|leader| self.cluster.node(leader));
        let member = leader.and_then(|node| node.raft().membership().member(id).cloned());
        let node = self.cluster.node(id);
        match (member, node) {
            (Some(member), Some(node)) => member.incarnation == node.status().incarnation,
            _ => false,
        }
    }

    /// Whether the voters that run, and have their disks, are a majority: no more is promised.
    fn survives_the_loss(&self) -> bool {
        let Some(voters) = voters(&self.cluster) else { return false };
        let alive = voters.iter().filter(|id| self.is_on_its_disk(server(**id))).count();
        alive > voters.len() / 2
    }

    /// Whether no member has lost its disk, as far as whoever leads knows.
    fn nobody_lost_its_disk(&self) -> bool {
        let Some(voters) = voters(&self.cluster) else { return false };
        let has_disk =
            |id: &u64| self.cluster.node(server(*id)).is_none() || self.is_on_its_disk(server(*id));
        self.aside.is_empty() && voters.iter().all(has_disk)
    }

    fn say(&mut self, line: &str) -> Option<(ServerId, ClientId)> {
        let alive = self.cluster.alive();
        if alive.is_empty() {
            return None;
        }
        let through = alive[self.cluster.draw(alive.len() as u64) as usize];
        let client = self.cluster.connect(through);
        self.story.push(format!("{} n{through}: {line}", self.cluster.now.0 / 1_000_000));
        self.cluster.send(through, client, &[line]);
        Some((through, client))
    }

    fn note(&mut self, what: &str, id: ServerId) {
        self.story.push(format!("{} {what} n{id}", self.cluster.now.0 / 1_000_000));
    }

    fn kill(&mut self, id: ServerId) {
        let most = self.cluster.alive().len() > 2 && self.down.len() < 3;
        if most && self.cluster.node(id).is_some() {
            self.note("kill", id);
            self.cluster.kill(id);
            self.down.push(id);
        }
    }

    /// A server is started that was down: on its disk, on a new one, or on one put aside before.
    fn start_one(&mut self) {
        if self.down.is_empty() {
            return;
        }
        let place = self.cluster.draw(self.down.len() as u64) as usize;
        let id = self.down.swap_remove(place);
        let draw = self.cluster.draw(4);
        // Who listed itself alone can't know that it has founded before, unless somebody tells it.
        let can_be_told = self.founders > 1 || id != server(1);
        if draw == 0 && can_be_told && self.survives_the_loss() {
            self.note("wipe", id);
            let disk = self.cluster.exchange_disk(id);
            self.aside.insert(id, disk);
        } else if draw == 1
            && let Some(old) = self.aside.remove(&id)
        {
            // The old disk is found again: as good as a loss if the new one was admitted since.
            if self.survives_the_loss() {
                self.note("old disk", id);
                let newer = self.cluster.exchange_disk(id);
                self.cluster.put_back(id, old);
                self.aside.insert(id, newer);
            } else {
                self.aside.insert(id, old);
            }
        }
        self.note("start", id);
        self.cluster.start(id);
    }

    /// The operator moves a server: first the command, then the server.
    fn ask_to_move(&mut self, id: ServerId) {
        if self.moving.iter().any(|(moving, ..)| *moving == id) {
            return;
        }
        self.moves += 1;
        let address = format!("10.1.{}.{id}:7201", self.moves);
        let client = format!("10.1.{}.{id}:7101", self.moves);
        if let Some((through, at)) = self.say(&format!("RAFT MOVE {id} {address} {client}")) {
            self.moving.push((id, address, through, at));
        }
    }

    /// Whoever is known to have moved does; where that is in doubt it listens at both addresses.
    fn move_on(&mut self) {
        for (id, address, through, client) in std::mem::take(&mut self.moving) {
            let is_there = self.cluster.node(through).is_some();
            let reply = is_there.then(|| self.cluster.replies(through, client).pop()).flatten();
            let mut addresses = self.cluster.addresses(id).to_vec();
            match reply {
                None if is_there => {
                    self.moving.push((id, address, through, client));
                    continue;
                }
                Some(Reply::Error(text)) if !text.starts_with("INDOUBT") => continue,
                Some(Reply::Simple(_)) => addresses = vec![address],
                _ => addresses.push(address),
            }
            self.cluster.relocate(id, &addresses);
        }
    }

    /// A server's id and addresses, as an operator knows them.
    fn words(&self, id: ServerId) -> String {
        let peer = self.cluster.addresses(id).last().expect("it has one");
        format!("{id} {peer} {}", peer.replace(":7201", ":7101"))
    }

    fn strike(&mut self) {
        let id = server(1 + self.cluster.draw(SERVERS));
        let other = server(1 + self.cluster.draw(SERVERS));
        let words = self.words(id);
        let line = match self.cluster.draw(24) {
            0..=4 => format!("RAFT ADD {words}"),
            5 => format!("RAFT ADD {words} LEARNER"),
            6 => format!("RAFT PROMOTE {id}"),
            7..=9 => format!("RAFT REMOVE {id}"),
            10 if self.nobody_lost_its_disk() => format!("RAFT REMOVE {id} FORCE"),
            11 => format!("RAFT REPLACE {other} {words}"),
            12 => format!("RAFT TRANSFER {id}"),
            13..=14 => format!("RAFT ADD {id}"),
            15 => return self.kill(id),
            16 => {
                // Whoever leads dies in the middle of whatever it is at.
                let pause = Duration::from_micros(self.cluster.draw(4000));
                self.cluster.run_for(pause);
                if let Some(leader) = self.cluster.leader() {
                    self.kill(leader);
                }
                return;
            }
            17..=18 => return self.start_one(),
            19 if id != other => {
                self.note("cut", id);
                self.note("   from", other);
                return self.cluster.cut(id, other);
            }
            20 => {
                if let Some(leader) = self.cluster.leader() {
                    self.note("isolate", leader);
                    for other in self.cluster.ids().into_iter().filter(|id| *id != leader) {
                        self.cluster.cut(leader, other);
                    }
                }
                return;
            }
            21 => return self.cluster.heal(),
            22 => return self.ask_to_move(id),
            _ => "INCR n".to_owned(),
        };
        self.say(&line);
        self.write();
    }

    /// Something that snapshots are taken of.
    fn write(&mut self) {
        let alive = self.cluster.alive();
        let through = alive[self.cluster.draw(alive.len() as u64) as usize];
        let client = self.cluster.connect(through);
        for _ in 0..self.writes {
            let key = self.cluster.draw(8);
            let line = format!("SET key{key} {}", "x".repeat(4096 * self.writes as usize));
            self.cluster.send(through, client, &[&line]);
        }
    }

    /// The operator has added servers where they were before they moved, and makes up for it.
    fn go_where_they_are_looked_for(&mut self) {
        let nodes = self.cluster.alive().into_iter().filter_map(|id| self.cluster.node(id));
        let memberships = nodes.map(|node| node.raft().membership().clone());
        for member in memberships.flat_map(|one| one.members().to_vec()).collect::<Vec<_>>() {
            let mut addresses = self.cluster.addresses(member.id).to_vec();
            if !addresses.contains(&member.peer) {
                addresses.push(member.peer);
                self.cluster.relocate(member.id, &addresses);
            }
        }
    }

    /// Healed, a change under way ends, and everyone who is a member agrees.
    fn settle(&mut self) {
        self.cluster.weather = Weather::calm();
        self.cluster.heal();
        for id in std::mem::take(&mut self.down) {
            self.cluster.start(id);
        }
        self.go_where_they_are_looked_for();
        for patience in [60, 20, 20] {
            let deadline = self.cluster.now.after(patience * SECOND);
            while !self.has_settled() {
                self.move_on();
                assert!(self.cluster.now < deadline, "it does not settle");
                self.cluster.step();
            }
            let leader = self.cluster.leader().expect("it has settled");
            let reply = self.cluster.call(leader, "INCR n");
            // What was asked for in the storm may remove it in this very moment, but not for long.
            let role = self.cluster.node(leader).expect("it runs").status().role;
            let is_excused = patience == 60 && role == Role::Removed;
            let is_done = !matches!(reply, Reply::Error(_));
            assert!(is_done || is_excused, "{reply:?} by n{leader}");
            // Whoever lost its disk hears of it.
            self.cluster.run_for(2 * SECOND);
        }
        // Whoever lost its disk is let in again by a word, and then they are all alike.
        let lost: Vec<ServerId> = self.strangers();
        for id in lost {
            if self.is_on_its_disk(id) {
                continue;
            }
            let role = self.cluster.node(id).expect("everyone runs").status().role;
            assert_eq!(role, Role::Recovering, "n{id} is on another disk, and knows it");
            let through = self.cluster.leader().expect("one leads");
            self.note("readmit", id);
            let reply = self.cluster.call(through, &format!("RAFT ADD {id}"));
            assert_eq!(reply, Reply::OK, "n{id}");
            let deadline = self.cluster.now.after(30 * SECOND);
            while !self.is_on_its_disk(id) || !self.has_settled() {
                assert!(self.cluster.now < deadline, "n{id} is not let in again");
                self.cluster.step();
            }
        }
    }

    /// Members that run on another disk than the one that was admitted.
    fn strangers(&self) -> Vec<ServerId> {
        let Some(leader) = self.cluster.leader().and_then(|id| self.cluster.node(id)) else {
            return Vec::new();
        };
        let members = leader.raft().membership().members().iter().filter(|m| m.is_met());
        members.map(|m| m.id).filter(|id| !self.is_on_its_disk(*id)).collect()
    }

    /// Whether one leads, no change is under way, and every member on its disk has applied all.
    fn has_settled(&self) -> bool {
        let Some(leader) = self.cluster.leader().and_then(|id| self.cluster.node(id)) else {
            return false;
        };
        let last = leader.status().last_log_index;
        let membership = leader.raft().membership();
        let is_done = |id: ServerId| {
            let node = self.cluster.node(id).expect("everyone runs");
            node.status().last_applied == last && node.status().role != Role::Recovering
        };
        let members = membership.members().iter().filter(|m| m.is_met());
        let mut on_disk = members.filter(|m| self.is_on_its_disk(m.id));
        !membership.is_joint()
            && leader.raft().committed_membership_index() == leader.raft().membership_index()
            && on_disk.all(|member| is_done(member.id))
    }
}

fn storm(seed: u64) {
    let mut storm = Storm::begin(seed);
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..80 {
            storm.strike();
            storm.move_on();
            let pause = storm.cluster.draw(400);
            storm.cluster.run_for(Duration::from_millis(pause));
        }
        storm.settle();
    }));
    if let Err(panic) = told {
        println!("seed {seed}:\n{}\n{}", storm.story.join("\n"), glance(&storm.cluster));
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn members_come_and_go_in_a_storm() {
    let mut fallen = Vec::new();
    for seed in seeds(0..60) {
        if std::panic::catch_unwind(|| storm(seed)).is_err() {
            fallen.push(seed);
        }
    }
    assert!(fallen.is_empty(), "seeds {fallen:?}");
}
