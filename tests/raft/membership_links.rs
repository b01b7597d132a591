//! Who is linked with whom while members come and go: nodes in memory that dial as real ones do.
//!
//! Design 1-architecture §4. A member that was away, was removed, or sits on an uncommitted
//! membership knows others than there are; whoever it has to hear must reach it all the same. What
//! is asked of the membership itself is in `membership.rs`.

use std::time::Duration;

use crate::memory::Cluster;
use crate::memory::members::{SECOND, founded, server, wait_for_voters, words};
use raftkv::config::{Config, Overrides, Readmit};
use raftkv::limits;
use raftkv::node::{Effect, Input, Node, Role};
use raftkv::proto::entry::{HardState, Recovered};
use raftkv::proto::hello::{Hello, HelloRefused, Refusal};
use raftkv::proto::message::{AppendEntries, Envelope, Message, Packet};
use raftkv::proto::reply::Reply;
use raftkv::types::{
    Boot, ClusterId, ClusterTime, Identity, Incarnation, Instant, LogIndex, Nonce, ReadRound,
    ServerId, Term, WallClock,
};

/// Adds a server that joins, and waits until exactly `expected` vote.
fn add(cluster: &mut Cluster, through: u64, id: u64, expected: &[u64]) {
    cluster.join(server(id));
    let line = format!("RAFT ADD {}", words(id));
    assert_eq!(cluster.call(server(through), &line), Reply::OK);
    wait_for_voters(cluster, expected);
}

fn remove(cluster: &mut Cluster, through: u64, id: u64, expected: &[u64]) {
    assert_eq!(cluster.call(server(through), &format!("RAFT REMOVE {id}")), Reply::OK);
    wait_for_voters(cluster, expected);
}

fn transfer(cluster: &mut Cluster, through: u64, to: u64) {
    assert_eq!(cluster.call(server(through), &format!("RAFT TRANSFER {to}")), Reply::OK);
    cluster.run_until(2 * SECOND, "it leads", |c| c.leader() == Some(server(to)));
}

/// Server `id` loses its disk, comes back, and is readmitted.
fn lose_disk(cluster: &mut Cluster, through: u64, id: u64, expected: &[u64]) {
    cluster.kill(server(id));
    cluster.wipe(server(id));
    cluster.start(server(id));
    cluster.run_for(2 * SECOND);
    assert_eq!(cluster.call(server(through), &format!("RAFT ADD {id}")), Reply::OK);
    wait_for_voters(cluster, expected);
    cluster.run_for(SECOND);
}

#[test]
fn a_member_that_was_away_is_reached_by_a_readmitted_leader_of_a_larger_id() {
    let (mut cluster, _) = founded(5, 9);
    // 1. While server 4 is away, server 5 loses its disk, is readmitted, and leads.
    cluster.kill(server(4));
    lose_disk(&mut cluster, 1, 5, &[1, 2, 3, 4, 5]);
    transfer(&mut cluster, 1, 5);
    // 2. Server 4 would dial server 5, which it knows on another directory.
    cluster.start(server(4));
    cluster.converge(5 * SECOND);
    assert_eq!(cluster.leader(), Some(server(5)));
    assert_eq!(cluster.call(server(4), "INCR n"), Reply::Integer(1));
}

#[test]
fn a_member_that_was_away_is_reached_by_a_leader_of_a_larger_id_that_moved() {
    let (mut cluster, _) = founded(3, 2);
    cluster.kill(server(2));
    let line = "RAFT MOVE 3 10.0.0.33:7201 10.0.0.33:7101";
    assert_eq!(cluster.call(server(1), line), Reply::OK);
    cluster.kill(server(3));
    cluster.relocate(server(3), &["10.0.0.33:7201".to_owned()]);
    cluster.start(server(3));
    cluster.run_until(5 * SECOND, "one leads", |c| c.leader().is_some());
    transfer(&mut cluster, 1, 3);
    // Server 2 would dial server 3 where it was.
    cluster.start(server(2));
    cluster.converge(5 * SECOND);
    assert_eq!(cluster.leader(), Some(server(3)));
}

#[test]
fn a_leader_that_is_said_to_have_moved_is_linked_until_it_does() {
    // The command comes before the server's own restart: meanwhile it is where it was.
    let (mut cluster, _) = founded(3, 4);
    transfer(&mut cluster, 1, 3);
    let line = "RAFT MOVE 3 10.0.0.33:7201 10.0.0.33:7101";
    assert_eq!(cluster.call(server(1), line), Reply::OK);
    let term = cluster.node(server(3)).unwrap().status().current_term;
    for other in [1, 2] {
        cluster.reset_link(server(3), server(other));
        cluster.run_for(2 * SECOND);
        let raft = cluster.node(server(3)).unwrap().raft();
        assert!(raft.has_link(server(other)), "server {other} can't dial it there");
    }
    assert!(cluster.node(server(3)).unwrap().status().current_term <= Term(term.0 + 2));
    // It moves.
    cluster.kill(server(3));
    cluster.relocate(server(3), &["10.0.0.33:7201".to_owned()]);
    cluster.start(server(3));
    cluster.converge(5 * SECOND);
}

#[test]
fn a_member_that_lags_and_a_new_one_elect_a_leader() {
    let (mut cluster, _) = founded(3, 1);
    // 1. While server 3 is away, server 4 comes and server 1 goes.
    cluster.kill(server(3));
    add(&mut cluster, 2, 4, &[1, 2, 3, 4]);
    remove(&mut cluster, 2, 1, &[2, 3, 4]);
    assert_eq!(cluster.call(server(2), "SET a 1"), Reply::OK);
    cluster.run_for(SECOND);
    // 2. Of the three that vote now, the one that both know dies. Server 3 has never heard of
    //    server 4, which starts again and leads nobody yet.
    for id in [1, 2, 4] {
        cluster.kill(server(id));
    }
    for id in [3, 4] {
        cluster.start(server(id));
    }
    cluster.run_until(10 * SECOND, "they elect", |c| c.leader() == Some(server(4)));
    cluster.converge(5 * SECOND);
    assert_eq!(cluster.call(server(3), "INCR a"), Reply::Integer(2));
}

#[test]
fn a_member_that_lags_votes_for_a_readmitted_one() {
    let (mut cluster, _) = founded(3, 3);
    add(&mut cluster, 1, 4, &[1, 2, 3, 4]);
    add(&mut cluster, 1, 5, &[1, 2, 3, 4, 5]);
    // 1. While server 3 is away, server 5 loses its disk and is readmitted; a write follows that
    //    servers 1, 2 and 5 have and server 4 has not.
    cluster.kill(server(3));
    lose_disk(&mut cluster, 1, 5, &[1, 2, 3, 4, 5]);
    cluster.kill(server(4));
    cluster.run_for(SECOND);
    assert_eq!(cluster.call(server(1), "SET a 1"), Reply::OK);
    cluster.run_for(SECOND);
    // 2. Servers 3 and 4 are back and servers 1 and 2 gone: only server 5 can lead, and only by
    //    the vote of server 3, which knows its old directory.
    for id in [1, 2] {
        cluster.kill(server(id));
    }
    for id in [3, 4] {
        cluster.start(server(id));
    }
    cluster.run_until(10 * SECOND, "server 5 is elected", |c| c.leader() == Some(server(5)));
    cluster.converge(5 * SECOND);
}

#[test]
fn a_guest_stays_one_until_its_membership_is_reached() {
    let (mut cluster, _) = founded(5, 5);
    // 1. While server 4 is away, others come and go, with much written in between; the last one
    //    that changes is server 5: it lost its disk, and leads.
    cluster.kill(server(4));
    let big = "x".repeat(300 * 1024);
    let write = |cluster: &mut Cluster| {
        for key in 0..6 {
            assert_eq!(cluster.call(server(1), &format!("SET big{key} {big}")), Reply::OK);
        }
    };
    write(&mut cluster);
    let line = "RAFT ADD 6 10.0.0.6:7201 10.0.0.6:7101 LEARNER";
    assert_eq!(cluster.call(server(1), line), Reply::OK);
    write(&mut cluster);
    assert_eq!(cluster.call(server(1), "RAFT REMOVE 6"), Reply::OK);
    write(&mut cluster);
    lose_disk(&mut cluster, 1, 5, &[1, 2, 3, 4, 5]);
    transfer(&mut cluster, 1, 5);
    // 2. Server 4 gets all of it in pieces from a leader that it knows on another directory.
    cluster.start(server(4));
    cluster.converge(5 * SECOND);
    assert_eq!(cluster.leader(), Some(server(5)));
}

#[test]
fn an_isolated_leader_with_an_uncommitted_membership_is_reached_by_a_new_one() {
    let (mut cluster, _) = founded(3, 6);
    transfer(&mut cluster, 2, 1);
    // 1. Server 1 is cut off and told to remove server 2, far behind the others' end of the log.
    for id in [2, 3] {
        cluster.cut(server(1), server(id));
    }
    let client = cluster.connect(server(1));
    // Large enough that each is an entry of its own.
    let large = "x".repeat(raftkv::limits::GATHER_BYTES);
    for value in 0..200 {
        cluster.send(server(1), client, &[&format!("SET key{value} {large}")]);
        cluster.step();
    }
    cluster.send(server(1), client, &["RAFT REMOVE 2 FORCE"]);
    cluster.run_for(Duration::from_millis(20));
    let alone = cluster.node(server(1)).unwrap().raft();
    let wrong = alone.membership_index();
    assert!(alone.membership().is_joint() && wrong > LogIndex(60), "{wrong}");
    // 2. The others go on without it: server 4 comes, and leads.
    cluster.run_until(5 * SECOND, "another leads", |c| c.leader().is_some_and(|l| l != server(1)));
    add(&mut cluster, 2, 4, &[1, 2, 3, 4]);
    transfer(&mut cluster, 2, 4);
    assert!(cluster.node(server(4)).unwrap().raft().membership_index() < wrong);
    // 3. Server 1 knows no server 4, whose membership is older than its own.
    cluster.heal();
    cluster.converge(5 * SECOND);
    assert_eq!(cluster.leader(), Some(server(4)));
}

#[test]
fn a_removed_server_is_added_again_by_a_leader_that_it_never_met() {
    let (mut cluster, _) = founded(3, 7);
    remove(&mut cluster, 1, 3, &[1, 2]);
    let removed = |c: &Cluster| c.node(server(3)).map(|node| node.status().role);
    cluster.run_until(2 * SECOND, "it knows", |c| removed(c) == Some(Role::Removed));
    cluster.kill(server(3));
    // 1. Everyone it knows goes.
    add(&mut cluster, 1, 4, &[1, 2, 4]);
    add(&mut cluster, 1, 5, &[1, 2, 4, 5]);
    remove(&mut cluster, 5, 1, &[2, 4, 5]);
    remove(&mut cluster, 5, 2, &[4, 5]);
    for id in [1, 2] {
        cluster.kill(server(id));
    }
    // 2. Added again, on its old directory.
    cluster.start(server(3));
    cluster.run_for(SECOND);
    assert_eq!(cluster.call(server(5), &format!("RAFT ADD {}", words(3))), Reply::OK);
    wait_for_voters(&mut cluster, &[3, 4, 5]);
    cluster.converge(5 * SECOND);
}

fn automatic(count: u64, seed: u64) -> Cluster {
    let mut config = Config::single(&Overrides::default()).unwrap();
    config.cluster.readmit = Readmit::Auto;
    config.cluster.nodes = crate::memory::listed(count);
    let mut cluster = Cluster::with_config(config, seed);
    cluster.run_until(2 * SECOND, "the first leader", |c| c.leader().is_some());
    cluster.converge(2 * SECOND);
    cluster
}

#[test]
fn a_wiped_node_makes_itself_known_from_where_nobody_was_told_that_it_is() {
    for id in 1..=3 {
        let mut cluster = automatic(3, 20 + id);
        let known = |c: &Cluster| {
            let membership = c.node(c.leader()?)?.raft().membership();
            let member = membership.member(server(id))?;
            member.voter.then_some(member.incarnation)
        };
        let before = known(&cluster).expect("who founded votes");
        // 1. A server gets a new machine, with another address and an empty disk, and the others'
        //    addresses in its configuration.
        cluster.kill(server(id));
        cluster.wipe(server(id));
        cluster.relocate(server(id), &["10.0.0.33:7201".to_owned()]);
        cluster.start(server(id));
        // 2. The others can't dial it. Whatever its id, it dials them, and is readmitted.
        cluster.run_until(20 * SECOND, "it votes anew", |c| {
            known(c).is_some_and(|incarnation| incarnation != before)
        });
        cluster.converge(5 * SECOND);
    }
}

#[test]
fn a_note_about_a_lost_disk_lapses() {
    let mut cluster = automatic(5, 8);
    transfer(&mut cluster, 2, 1);
    let known = |c: &Cluster| {
        let membership = c.node(server(1)).unwrap().raft().membership();
        membership.member(server(3)).unwrap().incarnation
    };
    let before = known(&cluster);
    // 1. Server 3 is started without its disk, for a moment, and only server 2 hears of it.
    cluster.kill(server(3));
    let disk = cluster.exchange_disk(server(3));
    for id in [1, 4, 5] {
        cluster.cut(server(3), server(id));
    }
    cluster.start(server(3));
    cluster.run_for(SECOND);
    assert_eq!(cluster.node(server(3)).unwrap().status().role, Role::Recovering);
    // 2. It is down; its disk is found. Long after, server 2 leads.
    cluster.kill(server(3));
    cluster.put_back(server(3), disk);
    cluster.heal();
    cluster.run_for(60 * SECOND);
    transfer(&mut cluster, 1, 2);
    cluster.run_for(2 * SECOND);
    assert_eq!(known(&cluster), before, "a member that is merely down is left alone");
    cluster.start(server(3));
    cluster.converge(5 * SECOND);
    assert_eq!(known(&cluster), before);
}

fn identity(id: u64) -> Identity {
    Identity {
        cluster: ClusterId::from_name("raftkv"),
        server: server(id),
        incarnation: Incarnation(1000 + id),
        boot: Boot(1),
        nonce: Nonce(1),
    }
}

/// A node that has nothing.
fn blank(id: u64, edit: impl FnOnce(&mut Config)) -> Node {
    let mut config = Config::single(&Overrides::default()).unwrap();
    config.id = server(id);
    config.cluster.nodes = crate::memory::listed(1);
    edit(&mut config);
    let recovered = Recovered {
        identity: Identity { cluster: ClusterId::from_name(&config.cluster.name), ..identity(id) },
        lineage: raftkv::types::Lineage::ZERO,
        hard_state: HardState::default(),
        snapshot: None,
        entries: Vec::new(),
        known_peers: Vec::new(),
        recovering: None,
    };
    Node::recover(&config, recovered, 1, Instant(1_000_000_000))
}

/// What server `from` would say to `node`.
fn hello(node: &Node, from: u64) -> Hello {
    let own = node.hello_to(server(from));
    Hello {
        sender: server(from),
        receiver: own.sender,
        sender_incarnation: Incarnation(1000 + from),
        receiver_incarnation: Incarnation::ZERO,
        boot: Boot(1),
        nonce: Nonce(from),
        ..own
    }
}

#[test]
fn strangers_cannot_fill_what_a_server_remembers() {
    let now = Instant(1_000_000_000);
    // 1. A server that waits to be let in takes anyone for a member, up to a bound: of those that
    //    are there at once, and of those that come and go.
    for leave in [false, true] {
        let mut joining = blank(7, |config| config.join = vec!["10.0.0.1:7201".to_owned()]);
        let mut recorded = 0;
        for stranger in 100..100 + 2 * limits::KNOWN_PEERS as u64 {
            let greeting = hello(&joining, stranger);
            let (peer, incarnation) = (server(stranger), greeting.sender_incarnation);
            match joining.judge_hello(now, &greeting) {
                Ok(verdict) => {
                    recorded += usize::from(verdict.record.is_some());
                    joining.handle(now, Input::PeerUp { peer, incarnation }, &mut Vec::new());
                    if leave {
                        joining.handle(now, Input::PeerDown { peer }, &mut Vec::new());
                    }
                }
                Err(refused) => assert!(refused.text.contains("too many"), "{}", refused.text),
            }
        }
        let expected = if leave { limits::KNOWN_STRANGERS } else { limits::GUESTS };
        assert_eq!(recorded, expected, "the storage refuses more than a bound, for good");
    }
    // 2. In a cluster they can claim to know a later membership.
    let (mut cluster, leader) = founded(3, 1);
    let node = cluster.node(leader).unwrap();
    let own = node.status().incarnation;
    let greetings: Vec<Hello> = (100..100 + 2 * limits::KNOWN_PEERS as u64)
        .map(|stranger| Hello {
            receiver_incarnation: own,
            membership_index: LogIndex(u64::MAX),
            ..hello(node, stranger)
        })
        .collect();
    let others: Vec<ServerId> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let mut accepted = 0;
    for greeting in greetings {
        match cluster.greet(leader, &greeting) {
            Ok(_) => accepted += 1,
            Err(refused) => assert!(refused.text.contains("too many"), "{}", refused.text),
        }
    }
    assert_eq!(accepted, limits::GUESTS);
    // 3. Whoever is a member is accepted all the same.
    for other in others {
        let greeting = cluster.node(other).unwrap().hello_to(leader);
        assert!(cluster.greet(leader, &greeting).is_ok());
    }
}

#[test]
fn founder_of_a_list_of_one_that_is_known_on_another_directory_founds_nothing() {
    // 1. Server 1 listed itself alone, founded, and let server 2 in.
    let (mut cluster, _) = founded(1, 1);
    add(&mut cluster, 1, 2, &[1, 2]);
    add(&mut cluster, 1, 3, &[1, 2, 3]);
    cluster.converge(2 * SECOND);
    // 2. It loses its disk. Whoever calls it back knows it on another directory.
    for round in 0..20 {
        cluster.kill(server(1));
        cluster.wipe(server(1));
        for id in [2, 3] {
            cluster.cut(server(1), server(id));
        }
        cluster.run_for(SECOND + Duration::from_millis(13 * round));
        cluster.start(server(1));
        // Who is down is dialled again after this pause at most.
        cluster.run_for(limits::DIAL_RETRY_MAX * 5 / 4);
        cluster.heal();
        cluster.run_for(3 * SECOND);
        let node = cluster.node(server(1)).unwrap();
        assert_eq!(node.status().role, Role::Recovering, "round {round}");
        assert_eq!(node.status().last_log_index, LogIndex::ZERO);
    }
    // 3. One command, and it is in again.
    let through = cluster.leader().unwrap();
    assert_eq!(cluster.call(through, "RAFT ADD 1"), Reply::OK);
    wait_for_voters(&mut cluster, &[1, 2, 3]);
}

/// Lets a node that stands alone go on for that long; its disk writes at once.
fn run_alone(node: &mut Node, from: Instant, duration: Duration) -> Instant {
    let mut now = from;
    while now < from.after(duration) {
        now = now.after(Duration::from_millis(10));
        let mut effects = Vec::new();
        let wall = WallClock(1_700_000_000_000 + now.0 / 1_000_000);
        node.handle(now, Input::Tick { wall }, &mut effects);
        node.handle(now, Input::EndOfTurn, &mut effects);
        for effect in std::mem::take(&mut effects) {
            if let Effect::Persist { seq, .. } = effect {
                node.handle(now, Input::Persisted { through: seq }, &mut effects);
            }
        }
    }
    now
}

#[test]
fn founder_of_a_list_of_one_that_has_founded_anew_says_so_to_both_sides() {
    // 1. Nobody called in time: it cannot know.
    let mut alone = blank(1, |_| {});
    let now = run_alone(&mut alone, Instant(1_000_000_000), 2 * SECOND);
    assert_eq!(alone.status().role, Role::Leader);
    // 2. Server 2 knows it on another directory. Neither joins the other.
    let greeting = Hello {
        receiver_incarnation: Incarnation(77),
        membership_index: LogIndex(9),
        ..hello(&alone, 2)
    };
    let refused = alone.judge_hello(now, &greeting).unwrap_err();
    assert_eq!(refused.code, Refusal::ReceiverIncarnation, "so that the other one notes it");
    assert_eq!(alone.status().role, Role::Leader, "what it was told to keep since is kept");
    let notices = alone.take_notices();
    assert!(
        notices.iter().any(|line| line.contains("founded a cluster of its own")),
        "{notices:?}"
    );
    // 3. It says so once.
    alone.judge_hello(now, &greeting).unwrap_err();
    assert!(alone.take_notices().is_empty());
}

#[test]
fn a_learner_that_catches_up_is_not_put_off_by_a_member_that_lags() {
    let now = Instant(1_000_000_000);
    // 1. Server 4 lost its disk. The leader has met it, and replicates to it.
    let mut node = blank(4, |config| config.cluster.nodes = crate::memory::listed(4));
    let identity = node.hello_to(server(1));
    let greeting = Hello { membership_index: LogIndex(9), ..hello(&node, 1) };
    let incarnation = node.judge_hello(now, &greeting).unwrap().incarnation;
    node.handle(now, Input::PeerUp { peer: server(1), incarnation }, &mut Vec::new());
    let envelope = Envelope {
        cluster: ClusterId::from_name(&identity.cluster),
        from: server(1),
        from_incarnation: incarnation,
        to: server(4),
        to_incarnation: identity.sender_incarnation,
    };
    let message = Message::AppendEntries(AppendEntries {
        term: Term(3),
        prev_log_index: LogIndex(20),
        prev_log_term: Term(3),
        leader_commit: LogIndex(20),
        read_round: ReadRound::ZERO,
        cluster_time: ClusterTime(1),
        refuses_growth: None,
        entries: Vec::new(),
    });
    let packet = Packet { envelope, message };
    node.handle(now, Input::Receive { packet }, &mut Vec::new());
    // 2. Server 2 was away and knows its old directory.
    let expects = |node: &Node, index| Hello {
        receiver_incarnation: Incarnation(77),
        membership_index: LogIndex(index),
        ..hello(node, 2)
    };
    let greeting = expects(&node, 5);
    let refused = node.judge_hello(now, &greeting).unwrap_err();
    assert_eq!(refused.code, Refusal::ReceiverIncarnation);
    let refused = HelloRefused { code: Refusal::LostDisk, text: "another".to_owned() };
    node.hello_refused(now, Some(server(2)), &refused);
    assert_eq!(node.status().role, Role::Follower, "it was taken in since");
    // 3. Whoever knows a later membership is believed.
    let greeting = expects(&node, 10);
    node.judge_hello(now, &greeting).unwrap_err();
    assert_eq!(node.status().role, Role::Recovering);
}

#[test]
fn a_directory_whose_place_was_taken_is_told_and_admitted_again() {
    let (mut cluster, _) = founded(3, 11);
    // 1. Server 3 is given a new disk and readmitted, then everyone else is replaced.
    cluster.kill(server(3));
    let old = cluster.exchange_disk(server(3));
    cluster.start(server(3));
    cluster.run_for(2 * SECOND);
    assert_eq!(cluster.call(server(1), "RAFT ADD 3"), Reply::OK);
    wait_for_voters(&mut cluster, &[1, 2, 3]);
    add(&mut cluster, 1, 4, &[1, 2, 3, 4]);
    add(&mut cluster, 1, 5, &[1, 2, 3, 4, 5]);
    remove(&mut cluster, 4, 1, &[2, 3, 4, 5]);
    remove(&mut cluster, 4, 2, &[3, 4, 5]);
    for id in [1, 2] {
        cluster.kill(server(id));
    }
    // 2. Its old disk is back: by its own log it is a member, of a membership that is no more.
    cluster.kill(server(3));
    cluster.exchange_disk(server(3));
    cluster.put_back(server(3), old);
    cluster.start(server(3));
    cluster.run_for(2 * SECOND);
    assert_eq!(cluster.node(server(3)).unwrap().status().role, Role::Recovering);
    // 3. One command lets it in.
    let through = cluster.leader().unwrap();
    assert_eq!(cluster.call(through, "RAFT ADD 3"), Reply::OK);
    wait_for_voters(&mut cluster, &[3, 4, 5]);
    cluster.converge(5 * SECOND);
}
