//! The recipes in examples/, as they are, against real nodes of which some die meanwhile.

#![expect(clippy::duplicate_mod, reason = "each recipe is a program, with what all of them share")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Cluster as Nodes, eventually};

// A recipe's `main` is for those who run it.
#[allow(dead_code)]
#[path = "../../examples/config_watch.rs"]
mod config_watch;
#[allow(dead_code)]
#[path = "../../examples/leader_election.rs"]
mod leader_election;
#[allow(dead_code)]
#[path = "../../examples/lock.rs"]
mod lock;
#[allow(dead_code)]
#[path = "../../examples/queue.rs"]
mod queue;
#[allow(dead_code)]
#[path = "../../examples/rate_limit.rs"]
mod rate_limit;

const SECOND: Duration = Duration::from_secs(1);

/// The nodes' addresses, beginning with that of node `first`.
fn endpoints(nodes: &Nodes, first: usize) -> Vec<String> {
    let mut all: Vec<String> = nodes.nodes.iter().map(|node| node.client.clone()).collect();
    all.rotate_left(first);
    all
}

/// Kills the leader, and brings it back once the others have another one.
fn exchange_leader(nodes: &mut Nodes) {
    let leader = nodes.wait_for_leader();
    nodes.kill(leader);
    nodes.wait_for_leader();
    nodes.restart(leader);
}

/// Ends the threads of a test, also where it fails.
struct EndWithTest<'a>(&'a AtomicBool);

impl Drop for EndWithTest<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn lock_is_held_by_one_at_a_time_through_a_fail_over() {
    let mut nodes = Nodes::start();
    let counted = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    // What the lock protects: who comes with a token that is not larger than all before would have
    // been let in beside somebody else.
    let entered = Mutex::new((0_u64, false));
    thread::scope(|scope| {
        let _end = EndWithTest(&is_over);
        for first in 0..3 {
            let mut cluster = lock::cluster::Cluster::new(&endpoints(&nodes, first));
            let (counted, is_over, entered) = (&counted, &is_over, &entered);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // Longer than the test: a node's death must not let two in.
                    let held = lock::acquire(&mut cluster, "lock", 60 * SECOND);
                    let Ok(Some(held)) = held else {
                        thread::sleep(Duration::from_millis(2));
                        continue;
                    };
                    {
                        let mut inside = entered.lock().unwrap();
                        assert!(!inside.1, "two hold it");
                        assert!(held.token > inside.0, "{} after {}", held.token, inside.0);
                        *inside = (held.token, true);
                    }
                    thread::sleep(Duration::from_millis(1));
                    entered.lock().unwrap().1 = false;
                    counted.fetch_add(1, Ordering::Relaxed);
                    // Said again after a node's death it finds nothing more to delete.
                    held.release(&mut cluster).unwrap();
                }
            });
        }
        let grows = |by: usize| {
            let goal = counted.load(Ordering::Relaxed) + by;
            eventually("the lock goes round", 60 * SECOND, || {
                (counted.load(Ordering::Relaxed) >= goal).then_some(())
            });
        };
        grows(30);
        let leader = nodes.wait_for_leader();
        nodes.kill(leader);
        nodes.wait_for_leader();
        // A holder that no longer knows whether it is one leaves the lock until its time is over:
        // whoever looks on frees it, as an operator would.
        let mut operator = nodes.client(nodes.others(leader)[0]);
        eventually("the lock is free or goes round", 60 * SECOND, || {
            let before = counted.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(500));
            let is_stuck = counted.load(Ordering::Relaxed) == before;
            if is_stuck && !entered.lock().unwrap().1 {
                operator.must(&["DEL", "lock"]);
            }
            (!is_stuck).then_some(())
        });
        grows(30);
    });
}

#[test]
fn lock_tells_who_lost_it() {
    let nodes = Nodes::start();
    let mut ann = lock::cluster::Cluster::new(&endpoints(&nodes, 0));
    let mut bob = lock::cluster::Cluster::new(&endpoints(&nodes, 1));
    let mut held = lock::acquire(&mut ann, "lock", SECOND).unwrap().unwrap();
    assert!(held.extend(&mut ann, Duration::from_millis(300)).unwrap());
    assert!(lock::acquire(&mut bob, "lock", SECOND).unwrap().is_none());
    let later = eventually("it is free after its time", 10 * SECOND, || {
        lock::acquire(&mut bob, "lock", 60 * SECOND).unwrap()
    });
    assert!(held.held_until < Instant::now(), "its holder's clock has told so before");
    assert!(later.token > held.token);
    // What is protected is written by the later holder, and then by nobody with an earlier token.
    let mut file = lock::Guarded::default();
    assert_eq!(file.write(later.token, "later"), Ok(()));
    assert!(file.write(held.token, "earlier").is_err());
    assert!(!held.extend(&mut ann, SECOND).unwrap(), "it is somebody else's");
    assert!(!held.release(&mut ann).unwrap());
    assert!(later.release(&mut bob).unwrap());
}

#[test]
fn leader_election_has_one_leader_through_a_fail_over() {
    let mut nodes = Nodes::start();
    let ttl = 2 * SECOND;
    let leading = Mutex::new((0_u64, BTreeSet::new()));
    let is_over = AtomicBool::new(false);
    let terms = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _end = EndWithTest(&is_over);
        for first in 0..3 {
            let cluster = leader_election::cluster::Cluster::new(&endpoints(&nodes, first));
            let (leading, is_over, terms) = (&leading, &is_over, &terms);
            scope.spawn(move || {
                let mut candidate = leader_election::Candidate::new(cluster, "election", ttl);
                let mut rounds = 0;
                while !is_over.load(Ordering::Relaxed) {
                    // An error leaves it what it was, until its time is over.
                    let _ = candidate.campaign();
                    // Looked at with the lock held: who came later in has led later.
                    let mut leading = leading.lock().unwrap();
                    if let Some(term) = candidate.leads() {
                        let is_new = leading.1.insert(term);
                        assert!(!is_new || term > leading.0, "{term} after {}", leading.0);
                        terms.fetch_add(usize::from(is_new), Ordering::Relaxed);
                        // Of an earlier leader nothing may come any more.
                        assert!(term >= leading.0, "{term} after {}", leading.0);
                        leading.0 = term;
                        rounds += 1;
                    }
                    drop(leading);
                    if rounds == 3 {
                        rounds = 0;
                        // It may fail: then its place is free after its time.
                        let _ = candidate.resign();
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let goes_on = |by: usize| {
            let goal = terms.load(Ordering::Relaxed) + by;
            eventually("there are further leaders", 60 * SECOND, || {
                (terms.load(Ordering::Relaxed) >= goal).then_some(())
            });
        };
        goes_on(3);
        exchange_leader(&mut nodes);
        goes_on(3);
    });
}

#[test]
fn queue_loses_no_job_through_a_fail_over() {
    const JOBS: usize = 150;
    let mut nodes = Nodes::start();
    let finished = Mutex::new(Vec::new());
    let pushed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for worker in 0..2 {
            let cluster = queue::cluster::Cluster::new(&endpoints(&nodes, worker + 1));
            let finished = &finished;
            scope.spawn(move || {
                let mut queue = queue::Queue::new(cluster, "jobs");
                let began = Instant::now();
                while distinct(finished) < JOBS {
                    assert!(began.elapsed() < 120 * SECOND, "{:?}", finished.lock().unwrap());
                    let Ok(Some(job)) = queue.take(5 * SECOND) else {
                        thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    finished.lock().unwrap().push(job.payload.clone());
                    let _ = queue.done(&job);
                }
            });
        }
        let cluster = queue::cluster::Cluster::new(&endpoints(&nodes, 0));
        let pushed = &pushed;
        scope.spawn(move || {
            let mut queue = queue::Queue::new(cluster, "jobs");
            for job in 0..JOBS {
                queue.push(&format!("job {job}")).unwrap();
                pushed.fetch_add(1, Ordering::Relaxed);
            }
        });
        eventually("jobs are pushed", 60 * SECOND, || {
            (pushed.load(Ordering::Relaxed) > JOBS / 3).then_some(())
        });
        exchange_leader(&mut nodes);
    });
    let finished = finished.into_inner().unwrap();
    let expected: BTreeSet<String> = (0..JOBS).map(|job| format!("job {job}")).collect();
    assert_eq!(finished.iter().cloned().collect::<BTreeSet<_>>(), expected);
    // Twice only around the fail-over.
    assert!(finished.len() < JOBS + 20, "{} were worked on", finished.len());
    let mut client = nodes.client(0);
    eventually("nothing is left", 20 * SECOND, || {
        let left = client.must(&["KRANGE", "queue:jobs:job:", "queue:jobs:job;"]);
        (format!("{left:?}").matches("Bulk").count() == 0).then_some(())
    });
}

fn distinct(finished: &Mutex<Vec<String>>) -> usize {
    finished.lock().unwrap().iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn rate_limit_holds_over_all_nodes() {
    let mut nodes = Nodes::start();
    let limit = |first: usize, window| {
        let cluster = rate_limit::cluster::Cluster::new(&endpoints(&nodes, first));
        rate_limit::RateLimit::new(cluster, 10, window)
    };
    // 1. Of thirty requests to all nodes ten pass, while a node dies.
    let mut limits = [0, 1, 2].map(|first| limit(first, 600 * SECOND));
    let mut short = limit(0, Duration::from_millis(400));
    let mut allowed = 0;
    for number in 0..30 {
        if number == 5 {
            let leader = nodes.wait_for_leader();
            nodes.kill(leader);
        }
        allowed += usize::from(limits[number % 3].allow("door").unwrap());
    }
    // What was asked when the node died may be counted twice, and never not at all.
    assert!((8..=10).contains(&allowed), "{allowed}");
    // 2. In the next window as many again.
    let passed = (0..20).filter(|_| short.allow("gate").unwrap()).count();
    assert!((10..=20).contains(&passed), "{passed}: one window, or two");
    eventually("another window begins", 10 * SECOND, || short.allow("gate").unwrap().then_some(()));
}

#[test]
fn config_watch_follows_every_change_through_a_fail_over() {
    const CHANGES: usize = 300;
    let mut nodes = Nodes::start();
    let addresses = endpoints(&nodes, 0);
    let mut config =
        config_watch::Config::read(config_watch::cluster::Cluster::new(&addresses), "config:")
            .unwrap();
    let seen = AtomicUsize::new(0);
    thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let began = Instant::now();
            let mut values = Vec::new();
            while values.len() < CHANGES {
                assert!(began.elapsed() < 60 * SECOND, "after {} changes", values.len());
                let before = config.entries.get("config:n").cloned();
                config.follow().unwrap();
                let now = config.entries.get("config:n").cloned();
                if now != before {
                    values.extend(now);
                    seen.store(values.len(), Ordering::Relaxed);
                }
            }
            values
        });
        // The writer is somebody else's client: on a node that lives on.
        let leader = nodes.wait_for_leader();
        // The watched node is the first one.
        let writer = if leader == 0 { nodes.others(0)[0] } else { leader };
        let mut client = nodes.client(writer);
        for number in 0..CHANGES {
            if number == CHANGES / 3 {
                nodes.kill(0);
            }
            client.must(&["SET", "elsewhere", "x"]);
            client.must(&["SET", "config:n", &number.to_string()]);
        }
        let values = follower.join().unwrap();
        let expected: Vec<String> = (0..CHANGES).map(|number| number.to_string()).collect();
        assert_eq!(values, expected);
    });
}
