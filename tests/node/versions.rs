//! Versions of the command set: in force once every member knows one, refused before, and fatal to
//! a build that is too old. Design page 3, §5.
//!
//! Single nodes and hellos, by hand; whole upgrades are in the simulator's seeds.

use std::time::Duration;

use bytes::Bytes;
use raftkv::config::{Config, Overrides};
use raftkv::kv::command_set::{self, Build, THIS};
use raftkv::node::{Effect, Input, Node};
use raftkv::proto::entry::{Entry, EntryKind, HardState, Recovered};
use raftkv::proto::hello::Refusal;
use raftkv::raft::membership::{Member, Membership};
use raftkv::types::{
    Boot, ClusterId, ClusterTime, CommandSet, Identity, Incarnation, Instant, Lineage, LogIndex,
    Nonce, ServerId, Term, WallClock,
};

const NEWER: &[(&str, CommandSet)] = &[("append", CommandSet(2))];
const OLD: Build = Build { known: CommandSet::FIRST, newer: NEWER };
const NEW: Build = Build { known: CommandSet(2), newer: NEWER };

/// The first server votes; another one is a learner.
fn member(id: u64) -> Member {
    Member {
        id: ServerId(id),
        incarnation: Incarnation(10 + id),
        admitted: LogIndex(1),
        voter: id == 1,
        outgoing_voter: false,
        promote: false,
        replaces: None,
        peer: format!("10.0.0.{id}:7201"),
        client: format!("10.0.0.{id}:7101"),
        http: String::new(),
    }
}

/// A server of that build; its log has the membership of so many servers and, perhaps, a version
/// of the command set.
fn node(id: u64, build: Build, members: u64, in_force: Option<CommandSet>) -> Node {
    let text = format!(
        "id = {id}\n[[cluster.node]]\nid = {id}\npeer = \"10.0.0.{id}:7201\"\n\
         client = \"10.0.0.{id}:7101\"\n"
    );
    let config = Config::parse(&text, &Overrides::default()).unwrap();
    let entry = |index, kind, payload| Entry {
        index: LogIndex(index),
        term: Term(1),
        time: ClusterTime(1),
        kind,
        payload,
    };
    let founders = Membership::new((1..=members).map(member).collect());
    let mut entries = vec![entry(1, EntryKind::Membership, founders.encode())];
    let payload = in_force.map(|set| Bytes::copy_from_slice(&command_set::encode(set)));
    entries.extend(payload.map(|payload| entry(2, EntryKind::CommandSet, payload)));
    let recovered = Recovered {
        identity: Identity {
            cluster: ClusterId::from_name(&config.cluster.name),
            server: ServerId(id),
            incarnation: Incarnation(10 + id),
            boot: Boot(1),
            nonce: Nonce(id),
        },
        lineage: Lineage::ZERO,
        hard_state: HardState { current_term: Term(1), voted_for: None },
        snapshot: None,
        entries,
        known_peers: Vec::new(),
        recovering: None,
    };
    Node::recover(&config, recovered, 1, Instant(1_000_000_000)).of_build(build)
}

/// Lets a second and a bit pass, from this one on; the disk is quick, and no peer is there. Returns what the node wants that is neither the disk's nor a peer's.
fn run(node: &mut Node, from_s: u64) -> Vec<Effect> {
    let mut told = Vec::new();
    let mut now = Instant(from_s * 1_000_000_000);
    for turn in 0..60 {
        now = now.after(Duration::from_millis(20));
        let mut effects = Vec::new();
        node.handle(now, Input::Tick { wall: WallClock(1_700_000_000_000 + turn) }, &mut effects);
        node.handle(now, Input::EndOfTurn, &mut effects);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Persist { seq, .. } => {
                        node.handle(now, Input::Persisted { through: seq }, &mut effects);
                        node.handle(now, Input::EndOfTurn, &mut effects);
                    }
                    effect => told.push(effect),
                }
            }
        }
    }
    told
}

#[test]
fn a_leader_alone_puts_in_force_what_it_knows() {
    for (build, in_force) in [(THIS, CommandSet::FIRST), (OLD, CommandSet::FIRST), (NEW, NEW.known)]
    {
        let mut node = node(1, build, 1, None);
        assert!(run(&mut node, 1).is_empty());
        assert!(node.raft().is_leader());
        assert_eq!(node.machine().command_set(), in_force);
    }
}

#[test]
fn a_leader_awaits_that_every_member_knows_it() {
    let mut leader = node(1, NEW, 2, None);
    run(&mut leader, 1);
    assert!(leader.raft().is_leader(), "the other one is a learner");
    assert_eq!(leader.machine().command_set(), CommandSet::FIRST, "nobody has said what 2 knows");
    for (second, build, in_force) in [(3, OLD, CommandSet::FIRST), (5, NEW, CommandSet(2))] {
        let hello = node(2, build, 2, None).hello_to(ServerId(1));
        assert_eq!(hello.command_set, build.known);
        leader.judge_hello(Instant(second * 1_000_000_000), &hello).unwrap();
        run(&mut leader, second);
        assert_eq!(leader.machine().command_set(), in_force);
    }
}

#[test]
fn a_build_that_is_too_old_for_the_log_ends_before_it_applies_anything_more() {
    let mut old = node(1, OLD, 1, Some(CommandSet(2)));
    let told = run(&mut old, 1);
    let is_end = |effect: &Effect| {
        matches!(effect, Effect::Outdated { in_force: CommandSet(2), known: CommandSet::FIRST })
    };
    assert!(told.iter().any(is_end), "{told:?}");
    assert_eq!(old.machine().last_applied(), LogIndex(2));
    // The same log is no harm to a newer one.
    let mut new = node(1, NEW, 1, Some(CommandSet(2)));
    assert!(run(&mut new, 1).is_empty());
    assert!(new.machine().last_applied() > LogIndex(2));
}

#[test]
fn a_server_that_was_left_behind_is_refused_and_told_why() {
    let now = Instant(3_000_000_000);
    let mut leader = node(1, NEW, 2, Some(CommandSet(2)));
    let hello = |build| node(2, build, 2, None).hello_to(ServerId(1));
    assert!(leader.judge_hello(now, &hello(OLD)).is_ok(), "it is not applied yet");
    run(&mut leader, 4);
    let now = Instant(6_000_000_000);
    let refused = leader.judge_hello(now, &hello(OLD)).unwrap_err();
    assert_eq!(refused.code, Refusal::CommandSet);
    assert_eq!(
        refused.text,
        "server 2 knows the command set up to version 1, and 2 is in force: start a newer build of \
         raftkvd there"
    );
    assert!(leader.judge_hello(now, &hello(NEW)).is_ok());
}
