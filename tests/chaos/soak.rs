//! A cluster whose members all change while it is killed, paused and cut, under clients: three
//! become five and three again, and then each founder is replaced. Nothing acknowledged is lost,
//! nothing is done twice, and no node takes more and more of the machine.
//!
//! Needs root, `ip` and `nft`. `RAFTKV_SOAK_SECONDS` is how long (default 60; a thorough run takes
//! 1800), `RAFTKV_CHAOS_SEED` what the faults are drawn from. `.ci/soak` runs it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::faults::Faults;
use super::gauge::{Bounds, Gauge};
use super::network::Network;
use super::operator::Change;
use super::workload::Workload;
use super::{from_environment, seed, verdict};
use crate::common::{Client, Cluster, Options, Reply, eventually, skip};

const SECONDS: u64 = 60;
const CONVERGENCE: Duration = Duration::from_secs(20);
/// Small, so that snapshots are taken, logs let go, and newcomers brought up by a snapshot.
const TOML: &str = "\n[client]\nrequest_timeout_ms = 1500\n\n[storage]\n\
                    segment_bytes = 4194304\nsnapshot_log_bytes = 1048576\n";
/// Between two faults, in milliseconds: a member comes and goes in between.
const NEXT_MS: Range<u64> = 300..5_000;
/// Between two pipelines of a client: what all clients saw stays in memory.
const PAUSE_MS: Range<u64> = 10..80;
const BOUNDS: Bounds = Bounds { memory: 128 << 20, files: 128, directory: 128 << 20 };
/// How long it is calm at the end, at least.
const CALM: Duration = Duration::from_secs(8);
/// What a process may grow by in the calm at the end, when keys are still written.
const SLACK: u64 = 8 << 20;

/// What happens to the members, step by step.
#[derive(Clone, Copy)]
enum Step {
    Add,
    Remove(usize),
    Replace(usize),
}

/// Three, five, three, and three others.
const STEPS: [Step; 7] = [
    Step::Add,
    Step::Add,
    Step::Remove(3),
    Step::Remove(4),
    Step::Replace(0),
    Step::Replace(1),
    Step::Replace(2),
];
const SERVERS: usize = 8;

/// The soak under way.
struct Soak<'a> {
    faults: Faults<'a>,
    load: Workload,
    gauge: Gauge,
    began: Instant,
}

impl Soak<'_> {
    fn addresses(&self) -> Vec<String> {
        let members = self.faults.members.iter();
        members.map(|position| self.faults.cluster.nodes[*position].client.clone()).collect()
    }

    fn ids(&self, positions: &[usize]) -> BTreeSet<u64> {
        positions.iter().map(|position| self.faults.cluster.nodes[*position].id).collect()
    }

    /// One change of the members, asked for and concluded between faults.
    fn change(&mut self, step: Step) {
        let before = self.faults.members.clone();
        let leaves = match step {
            Step::Add => None,
            Step::Remove(position) | Step::Replace(position) => Some(position),
        };
        let comes = match step {
            Step::Remove(_) => None,
            Step::Add | Step::Replace(_) => {
                let position = self.faults.cluster.prepare_another();
                self.faults.cluster.restart(position);
                self.faults.members.push(position);
                Some(position)
            }
        };
        let introduced = comes.map(|position| self.faults.cluster.introduced(position).to_vec());
        let introduced = introduced.unwrap_or_default();
        let id = leaves.map(|position| self.faults.cluster.nodes[position].id.to_string());
        let words = match step {
            Step::Add => vec!["RAFT".to_owned(), "ADD".to_owned()],
            Step::Remove(_) => vec!["RAFT".to_owned(), "REMOVE".to_owned()],
            Step::Replace(_) => vec!["RAFT".to_owned(), "REPLACE".to_owned()],
        };
        let words = words.into_iter().chain(id).chain(introduced).collect();
        let mut stay = self.faults.members.clone();
        stay.retain(|position| Some(*position) != leaves);
        let asked = before.iter().filter(|position| stay.contains(position));
        let asked = asked.map(|at| self.faults.cluster.nodes[*at].client.clone()).collect();
        let change = Change::begin(asked, words, self.ids(&stay));
        while !change.is_over() {
            self.strike();
        }
        change.finish();
        if let Some(position) = leaves {
            self.faults.retire(position);
        }
        self.load.move_to(&self.addresses());
    }

    fn strike(&mut self) {
        self.faults.strike_once();
        self.gauge.look(self.faults.cluster, self.began.elapsed());
    }

    /// No faults until then; returns when it began.
    fn calm(&mut self, until: Instant) -> Duration {
        self.faults.heal();
        // Nodes that were just started still grow to their size.
        self.faults.wait_until(Instant::now() + Duration::from_secs(5));
        let since = self.began.elapsed();
        // Also where the changes took longer than they were given.
        let until = until.max(Instant::now() + CALM);
        while Instant::now() < until {
            self.gauge.look(self.faults.cluster, self.began.elapsed());
            self.faults.wait_until(Instant::now() + Duration::from_secs(2));
        }
        self.gauge.look(self.faults.cluster, self.began.elapsed());
        since
    }
}

/// Waits until the members serve and have committed and applied the same.
fn wait_until_one(cluster: &Cluster, members: &[usize]) {
    eventually("all members serve, and reach one commit index", CONVERGENCE, || {
        let mut indices = Vec::new();
        for position in members {
            let info = cluster.info(*position)?;
            indices.push(info.get("raft_commit_index")?.clone());
            indices.push(info.get("raft_applied_index")?.clone());
        }
        let one = indices.windows(2).all(|pair| pair[0] == pair[1]);
        let healthy = members.iter().all(|position| cluster.is_healthy(*position));
        (one && healthy).then_some(())
    });
}

#[test]
#[ignore = "takes minutes: `.ci/soak SECONDS` runs it"]
fn soak_of_a_cluster_whose_members_all_change() {
    let seconds = from_environment("RAFTKV_SOAK_SECONDS").unwrap_or(SECONDS);
    let seed = seed();
    let network = match Network::make(SERVERS) {
        Ok(network) => network,
        Err(why) => return skip("soak_of_a_cluster_whose_members_all_change", &why),
    };
    println!("RAFTKV_CHAOS_SEED={seed}, {seconds} s");
    let mut cluster = Cluster::start_with(Options {
        nodes: 3,
        toml: TOML.to_owned(),
        addresses: (0..SERVERS).map(|position| network.address(position)).collect(),
        wrappers: (0..SERVERS).map(|position| network.wrapper(position)).collect(),
        ..Options::default()
    });

    // 1. Changes one after the other, and faults before, during and behind each.
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.client.clone()).collect();
    let load = Workload::begin(&addresses, PAUSE_MS, seed);
    let mut faults = Faults::new(&mut cluster, &network, seed);
    faults.next_ms = NEXT_MS;
    let began = Instant::now();
    let mut soak = Soak { faults, load, gauge: Gauge::default(), began };
    let all = Duration::from_secs(seconds);
    let share = all.mul_f64(0.8 / STEPS.len() as f64);
    for (number, step) in (1..).zip(STEPS) {
        soak.change(step);
        while began.elapsed() < share * number {
            soak.strike();
        }
    }

    // 2. Calm at the end: the load goes on, and nothing grows.
    let calm = soak.calm(began + all);
    let Soak { faults, load, gauge, .. } = soak;
    let (members, struck) = (faults.members.clone(), faults.struck.clone());
    println!("{} commands were answered", load.answered());
    let stories = load.finish();
    drop(faults);
    wait_until_one(&cluster, &members);
    gauge.tell();
    gauge.assert_bounded(BOUNDS);
    gauge.assert_flat(calm, SLACK);

    // 3. What the clients saw is possible, whichever member is asked, also of its own copy alone.
    let mut last: Vec<Client> = members.iter().map(|position| cluster.client(*position)).collect();
    for position in &members {
        let mut own = cluster.client(*position);
        assert_eq!(own.must(&["CLIENT", "READMODE", "stale"]), Reply::ok());
        last.push(own);
    }
    let checked = verdict::judge(&stories, &mut last);
    println!("{struck:?}\n{checked:?}");
    assert!(checked.operations > 100, "{checked:?}");
    assert_eq!(members, [5, 6, 7], "every founder was replaced");
}
