//! Members come and go: whole nodes in memory with a virtual clock, asked as operators ask them.
//!
//! The scenarios of single servers are in `raft_paper`, those of real processes in
//! `cluster/membership.rs`. The cluster in memory checks election-safety, state-machine-safety and
//! durable-before-ack all the time. Storms are in `membership_storm`.

use std::time::Duration;

use crate::memory::Cluster;
use crate::memory::members::{SECOND, error, founded, server, voters, wait_for_voters, words};
use raftkv::config::{Config, Overrides, Readmit};
use raftkv::node::Role;
use raftkv::proto::reply::Reply;
use raftkv::types::{ClientId, ServerId};

fn text(reply: Reply) -> String {
    match reply {
        Reply::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("not a text: {other:?}"),
    }
}

/// Increments through every node that is given, over and over, one command at a time each.
struct Load {
    clients: Vec<(ServerId, ClientId, bool)>,
    done: i64,
}

impl Load {
    fn new() -> Load {
        Load { clients: Vec::new(), done: 0 }
    }

    fn through(&mut self, cluster: &mut Cluster, id: u64) {
        let client = cluster.connect(server(id));
        self.clients.push((server(id), client, false));
    }

    fn leave(&mut self, id: u64) {
        self.clients.retain(|(at, ..)| *at != server(id));
    }

    /// Takes what was answered, none of it an error, and sends the next.
    fn step(&mut self, cluster: &mut Cluster) {
        for (id, client, is_waiting) in &mut self.clients {
            for reply in cluster.replies(*id, *client) {
                assert!(matches!(reply, Reply::Integer(_)), "through {id}: {reply:?}");
                self.done += 1;
                *is_waiting = false;
            }
            if !*is_waiting {
                cluster.send(*id, *client, &["INCR n"]);
                *is_waiting = true;
            }
        }
        cluster.step();
    }

    fn until(&mut self, cluster: &mut Cluster, what: &str, done: impl Fn(&Cluster) -> bool) {
        let deadline = cluster.now.after(20 * SECOND);
        while !done(cluster) {
            assert!(cluster.now < deadline, "not within 20 s: {what}");
            self.step(cluster);
        }
    }

    /// Asks for a change while the load goes on.
    fn ask(&mut self, cluster: &mut Cluster, through: u64, line: &str) -> Reply {
        let client = cluster.connect(server(through));
        cluster.send(server(through), client, &[line]);
        let deadline = cluster.now.after(20 * SECOND);
        loop {
            assert!(cluster.now < deadline, "no reply to {line}");
            self.step(cluster);
            if let Some(reply) = cluster.replies(server(through), client).pop() {
                return reply;
            }
        }
    }

    /// Everything that was sent is answered.
    fn finish(&mut self, cluster: &mut Cluster) {
        for (id, client, is_waiting) in &mut self.clients {
            let deadline = cluster.now.after(20 * SECOND);
            while *is_waiting {
                assert!(cluster.now < deadline, "no reply through {id}");
                cluster.step();
                for reply in cluster.replies(*id, *client) {
                    assert!(matches!(reply, Reply::Integer(_)), "through {id}: {reply:?}");
                    self.done += 1;
                    *is_waiting = false;
                }
            }
        }
    }
}

#[test]
fn three_four_five_three_under_load_without_an_error() {
    for seed in 0..10 {
        let (mut cluster, _) = founded(3, seed);
        let mut load = Load::new();
        for id in 1..=3 {
            load.through(&mut cluster, id);
        }
        // 1. Two more, each asked for through another node, and each serves as soon as it votes.
        for id in [4, 5] {
            cluster.join(server(id));
            let reply = load.ask(&mut cluster, id - 3, &format!("RAFT ADD {}", words(id)));
            assert_eq!(reply, Reply::OK, "seed {seed}");
            let expected: Vec<u64> = (1..=id).collect();
            let what = format!("{id} votes");
            load.until(&mut cluster, &what, |c| voters(c).as_ref() == Some(&expected));
            load.through(&mut cluster, id);
        }
        // 2. Two of the founders leave, and whoever leads among them hands over.
        for id in [1, 2] {
            load.leave(id);
            let reply = load.ask(&mut cluster, 5, &format!("RAFT REMOVE {id}"));
            assert_eq!(reply, Reply::OK, "seed {seed}");
        }
        load.until(&mut cluster, "three are left", |c| voters(c).as_deref() == Some(&[3, 4, 5]));
        load.finish(&mut cluster);
        let lost = cluster.call(server(3), "GET n");
        let Reply::Bulk(value) = lost else { panic!("{lost:?}") };
        let value: i64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
        // The two that left may have had one on its way each.
        assert!((load.done..=load.done + 2).contains(&value), "{value} of {}", load.done);
        // 3. Those who left know it, stay quiet, and disturb nobody.
        let leader = cluster.leader().expect("one leads");
        let term = cluster.node(leader).unwrap().status().current_term;
        cluster.run_for(5 * SECOND);
        for id in [1, 2] {
            assert_eq!(cluster.node(server(id)).unwrap().status().role, Role::Removed);
        }
        assert_eq!(cluster.leader(), Some(leader));
        assert_eq!(cluster.node(leader).unwrap().status().current_term, term);
    }
}

#[test]
fn removing_the_leader_through_itself_is_answered_and_costs_no_error() {
    for seed in 0..20 {
        let (mut cluster, leader) = founded(3, seed);
        let mut load = Load::new();
        for id in cluster.ids().into_iter().filter(|id| *id != leader) {
            load.through(&mut cluster, id.0);
        }
        let reply = load.ask(&mut cluster, leader.0, &format!("RAFT REMOVE {leader}"));
        assert_eq!(reply, Reply::OK, "seed {seed}");
        let left_at = cluster.now;
        load.until(&mut cluster, "another leads", |c| c.leader().is_some_and(|l| l != leader));
        assert!(cluster.now.since(left_at) < SECOND, "it handed over");
        load.finish(&mut cluster);
        assert_eq!(voters(&cluster).unwrap().len(), 2);
    }
}

#[test]
fn asking_twice_changes_nothing_more() {
    let (mut cluster, leader) = founded(3, 1);
    cluster.join(server(4));
    for _ in 0..2 {
        assert_eq!(cluster.call(server(1), &format!("RAFT ADD {}", words(4))), Reply::OK);
        wait_for_voters(&mut cluster, &[1, 2, 3, 4]);
    }
    let last = cluster.node(leader).unwrap().raft().membership_index();
    let moved = "RAFT MOVE 4 10.0.0.4:7201 10.0.0.4:7101";
    for line in ["RAFT ADD 4", "RAFT PROMOTE 4", "RAFT REMOVE 9", moved] {
        assert_eq!(cluster.call(server(2), line), Reply::OK, "{line}");
    }
    assert_eq!(cluster.call(server(3), &format!("RAFT TRANSFER {leader}")), Reply::OK);
    assert_eq!(cluster.node(leader).unwrap().raft().membership_index(), last);
    // What contradicts is told.
    let reply = cluster.call(server(1), "RAFT ADD 4 10.0.0.9:7201 10.0.0.9:7101");
    assert!(error(&reply).contains("RAFT MOVE"), "{reply:?}");
    let reply = cluster.call(server(1), "RAFT ADD 5 10.0.0.5:7201 10.0.0.4:7101");
    assert!(error(&reply).contains("10.0.0.4:7101 is an address of server 4"), "{reply:?}");
    let reply = cluster.call(server(1), "RAFT ADD 5");
    assert!(error(&reply).contains("is not a member"), "{reply:?}");
}

#[test]
fn transfer_goes_where_it_is_asked_to_through_any_node() {
    let (mut cluster, leader) = founded(3, 4);
    let others: Vec<ServerId> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    // 1. Through the one that takes over, the one that gives up, and a bystander.
    for (through, to) in [(others[0], others[0]), (others[0], others[1]), (leader, others[0])] {
        assert_eq!(cluster.call(through, &format!("RAFT TRANSFER {to}")), Reply::OK);
        cluster.run_until(SECOND, "it leads", |c| c.leader() == Some(to));
    }
    // 2. To whoever is best.
    let before = cluster.leader();
    assert_eq!(cluster.call(leader, "RAFT TRANSFER"), Reply::OK);
    cluster.run_until(SECOND, "another leads", |c| c.leader().is_some() && c.leader() != before);
    // 3. To one that is down, or nobody.
    let leads = cluster.leader().unwrap();
    let down = cluster.ids().into_iter().find(|id| *id != leads).unwrap();
    cluster.kill(down);
    cluster.run_for(Duration::from_millis(50));
    let reply = cluster.call(leads, &format!("RAFT TRANSFER {down}"));
    assert!(error(&reply).contains("can't take over"), "{reply:?}");
    let reply = cluster.call(leads, "RAFT TRANSFER 9");
    assert!(error(&reply).contains("not a member"), "{reply:?}");
}

#[test]
fn dry_run_tells_and_changes_nothing() {
    let (mut cluster, leader) = founded(3, 2);
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let index = cluster.node(leader).unwrap().raft().membership_index();
    let said = text(cluster.call(follower, &format!("RAFT REMOVE {follower} DRYRUN")));
    assert!(said.contains("voters now: 1, 2, 3; 2 of 3 are needed; in touch: 1, 2, 3"), "{said}");
    assert!(said.contains("2 of 2 are needed"), "{said}");
    assert!(said.contains("0 failures would be survived, instead of 1"), "{said}");
    let said = text(cluster.call(follower, &format!("RAFT REMOVE {leader} DRYRUN")));
    assert!(said.contains("would hand over"), "{said}");
    let said = text(cluster.call(follower, &format!("RAFT ADD {} DRYRUN", words(4))));
    assert!(said.contains("voters then: 1, 2, 3, 4; 3 of 4 are needed"), "{said}");
    assert!(said.contains("4 votes once it has caught up"), "{said}");
    let said =
        text(cluster.call(follower, &format!("RAFT REPLACE {follower} {} DRYRUN", words(4))));
    assert!(said.contains("voters then: ") && said.contains("2 of 3 are needed"), "{said}");
    let said = text(cluster.call(follower, &format!("RAFT TRANSFER {follower} DRYRUN")));
    assert!(said.contains(&format!("leads then: server {follower}")), "{said}");
    let said = text(cluster.call(follower, "RAFT ADD 2 DRYRUN"));
    assert!(said.contains("nothing would change"), "{said}");
    // With one of three down, another's leaving would stop the cluster.
    cluster.kill(follower);
    let other = cluster.ids().into_iter().find(|id| ![leader, follower].contains(id)).unwrap();
    cluster.run_for(SECOND);
    let said = text(cluster.call(leader, &format!("RAFT REMOVE {other} DRYRUN")));
    assert!(said.contains("a majority would be missing"), "{said}");
    let reply = cluster.call(leader, &format!("RAFT REMOVE {other}"));
    assert!(error(&reply).contains("FORCE"), "{reply:?}");
    assert_eq!(cluster.node(leader).unwrap().raft().membership_index(), index);
}

#[test]
fn without_a_leader_requests_are_surely_not_done() {
    let (mut cluster, leader) = founded(3, 6);
    for id in cluster.ids().into_iter().filter(|id| *id != leader) {
        cluster.kill(id);
    }
    cluster.run_for(2 * SECOND);
    let reply = cluster.call(leader, "RAFT REMOVE 2");
    assert!(error(&reply).starts_with("CLUSTERDOWN "), "{reply:?}");
}

#[test]
fn a_wiped_node_is_readmitted_by_one_command() {
    for seed in 0..10 {
        let (mut cluster, leader) = founded(3, seed);
        assert_eq!(cluster.call(leader, "SET x 1"), Reply::OK);
        let wiped = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
        cluster.kill(wiped);
        // 1. Nothing is assumed of one that is merely down.
        cluster.run_for(SECOND);
        let reply = cluster.call(leader, &format!("RAFT ADD {wiped}"));
        assert!(error(&reply).contains("out of touch"), "{reply:?}");
        cluster.wipe(wiped);
        cluster.start(wiped);
        cluster.run_for(SECOND);
        let role = |c: &Cluster| c.node(wiped).map(|node| node.status().role);
        assert_eq!(role(&cluster), Some(Role::Recovering));
        // 2. One word, through another follower.
        let other = cluster.ids().into_iter().find(|id| ![leader, wiped].contains(id)).unwrap();
        assert_eq!(cluster.call(other, &format!("RAFT ADD {wiped}")), Reply::OK);
        wait_for_voters(&mut cluster, &[1, 2, 3]);
        assert_eq!(role(&cluster), Some(Role::Follower), "seed {seed}");
        // 3. It is as good as any: the cluster lives on with it and one more.
        cluster.converge(5 * SECOND);
        cluster.kill(other);
        cluster.run_for(SECOND);
        assert_eq!(cluster.call(wiped, "INCR x"), Reply::Integer(2), "seed {seed}");
    }
}

#[test]
fn a_wiped_node_is_readmitted_by_itself_where_the_configuration_says_so() {
    let mut config = Config::single(&Overrides::default()).unwrap();
    config.cluster.readmit = Readmit::Auto;
    config.cluster.nodes = crate::memory::listed(3);
    for seed in 0..10 {
        let mut cluster = Cluster::with_config(config.clone(), seed);
        cluster.run_until(2 * SECOND, "the first leader", |c| c.leader().is_some());
        cluster.converge(2 * SECOND);
        let leader = cluster.leader().unwrap();
        // Whoever led loses its disk.
        cluster.kill(leader);
        cluster.wipe(leader);
        cluster.start(leader);
        let known = |c: &Cluster| {
            let leads = c.leader()?;
            let member = c.node(leads)?.raft().membership().member(leader)?.clone();
            Some((member.voter, member.incarnation.0))
        };
        let anew = 1000 + leader.0 + 100;
        cluster.run_until(20 * SECOND, "it votes anew", |c| known(c) == Some((true, anew)));
        cluster.converge(5 * SECOND);
    }
}

#[test]
fn a_node_is_replaced_in_one_change() {
    for seed in 0..10 {
        let (mut cluster, leader) = founded(3, seed);
        let old = server(1 + seed % 3);
        cluster.join(server(4));
        if seed % 2 == 0 && old != leader {
            cluster.kill(old);
        }
        let through = cluster.leader().unwrap_or(leader);
        let line = format!("RAFT REPLACE {old} {}", words(4));
        assert_eq!(cluster.call(through, &line), Reply::OK, "seed {seed}");
        let expected: Vec<u64> = (1..=4).filter(|id| *id != old.0).collect();
        wait_for_voters(&mut cluster, &expected);
        cluster.run_until(5 * SECOND, "one leads", |c| c.leader().is_some());
        assert_eq!(cluster.call(server(4), &line), Reply::OK, "asked again");
        assert_eq!(voters(&cluster), Some(expected));
    }
}

#[test]
fn a_joint_change_goes_on_after_the_leader_is_killed_midway() {
    for seed in 0..40 {
        let (mut cluster, leader) = founded(3, seed);
        cluster.join(server(4));
        cluster.run_for(Duration::from_millis(300));
        let client = cluster.connect(leader);
        let removed = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
        cluster.send(leader, client, &[&format!("RAFT REPLACE {removed} {}", words(4))]);
        // 1. The leader dies at some moment of the change.
        let moment = Duration::from_micros(cluster.draw(4000));
        cluster.run_for(moment);
        cluster.kill(leader);
        // 2. Whoever leads next has the whole change in its log, or nothing of it.
        cluster.run_until(10 * SECOND, "one leads", |c| c.leader().is_some());
        cluster.run_for(3 * SECOND);
        cluster.start(leader);
        cluster.run_for(3 * SECOND);
        let found = voters(&cluster).expect("no change is under way");
        let before = vec![1, 2, 3];
        let after: Vec<u64> = (1..=4).filter(|id| *id != removed.0).collect();
        assert!(found == before || found == after, "seed {seed}: {found:?}");
        assert_eq!(cluster.call(cluster.leader().unwrap(), "INCR n"), Reply::Integer(1));
    }
}

#[test]
fn a_removed_server_that_comes_back_is_added_anew() {
    let (mut cluster, leader) = founded(3, 3);
    let gone = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    assert_eq!(cluster.call(gone, "INCR n"), Reply::Integer(1));
    assert_eq!(cluster.call(leader, &format!("RAFT REMOVE {gone}")), Reply::OK);
    cluster.run_for(3 * SECOND);
    // 1. Its clients are told that nothing is done.
    let reply = cluster.call(gone, "INCR n");
    assert!(error(&reply).starts_with("CLUSTERDOWN "), "{reply:?}");
    // 2. Added again under the same id, on the same directory: its batches begin anew.
    assert_eq!(cluster.call(leader, &format!("RAFT ADD {}", words(gone.0))), Reply::OK);
    wait_for_voters(&mut cluster, &[1, 2, 3]);
    cluster.converge(5 * SECOND);
    assert_eq!(cluster.call(gone, "INCR n"), Reply::Integer(2));
}

#[test]
fn a_member_that_was_away_while_everyone_else_changed_finds_back() {
    // It knows only members that are gone, and none that are there: it is called back.
    let (mut cluster, _) = founded(3, 8);
    cluster.kill(server(3));
    for id in [4, 5] {
        cluster.join(server(id));
        assert_eq!(cluster.call(server(1), &format!("RAFT ADD {}", words(id))), Reply::OK);
        wait_for_voters(&mut cluster, &(1..=id).collect::<Vec<u64>>());
    }
    for id in [1, 2] {
        assert_eq!(cluster.call(server(4), &format!("RAFT REMOVE {id}")), Reply::OK);
    }
    wait_for_voters(&mut cluster, &[3, 4, 5]);
    for id in [1, 2] {
        cluster.kill(server(id));
    }
    cluster.start(server(3));
    cluster.converge(5 * SECOND);
    assert_eq!(cluster.call(server(3), "INCR n"), Reply::Integer(1));
}

#[test]
fn a_member_that_was_away_takes_a_readmitted_one_for_its_leader() {
    let (mut cluster, _) = founded(5, 9);
    // 1. While server 5 is away, server 4 loses its disk, is readmitted, and leads.
    cluster.kill(server(5));
    cluster.kill(server(4));
    cluster.wipe(server(4));
    cluster.start(server(4));
    cluster.run_for(2 * SECOND);
    assert_eq!(cluster.call(server(1), "RAFT ADD 4"), Reply::OK);
    wait_for_voters(&mut cluster, &[1, 2, 3, 4, 5]);
    cluster.run_for(SECOND);
    assert_eq!(cluster.call(server(1), "RAFT TRANSFER 4"), Reply::OK);
    // 2. Server 5 comes back, and knows server 4 on its old directory.
    cluster.start(server(5));
    cluster.converge(5 * SECOND);
    assert_eq!(cluster.leader(), Some(server(4)));
    assert_eq!(cluster.call(server(5), "INCR n"), Reply::Integer(1));
}
