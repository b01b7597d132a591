//! The leader's side: forwarded batches, followers' reads, growth, the timekeeper, stopping.

use std::time::Duration;

use raftkv::node::Input;
use raftkv::proto::batch::{Batch, Standing};
use raftkv::proto::message::{Message, ReadId};
use raftkv::types::Room;
use raftkv::types::{Boot, Term};

use super::support::*;

/// A batch as the gateway of node 3 would send it: taken from node 1's and renamed.
fn foreign_batch(commands: &str) -> bytes::Bytes {
    let mut world = World::following();
    world.request(1, commands);
    let mut payload = world.forwarded(2)[0].to_vec();
    payload[0] = 3;
    payload[8] = 33;
    payload.into()
}

#[test]
fn forwarded_batch_is_appended_by_the_leader_and_by_no_one_else() {
    let batch = foreign_batch("INCR n");
    let forward = || Message::Forward { batch: batch.clone() };

    let mut leader = World::leading();
    leader.receive(3, forward());
    leader.confirm();
    assert_eq!(leader.logged(), std::slice::from_ref(&batch));
    assert_eq!(leader.value("n").as_deref(), Some("1"));

    let mut follower = World::following();
    follower.receive(3, forward());
    assert_eq!(follower.logged().len(), 0);
    assert_eq!(follower.forwarded(2).len(), 0, "its gateway sends it again itself");
}

#[test]
fn forwarded_nonsense_is_dropped() {
    let mut leader = World::leading();
    let batch = foreign_batch("INCR n");
    leader.receive(3, Message::Forward { batch: batch.slice(..20) });
    leader.receive(2, Message::Forward { batch });
    assert_eq!(leader.logged().len(), 0, "neither half a batch nor another's");
}

#[test]
fn forwarded_growth_is_appended_emptied_while_it_is_refused() {
    let mut leader = World::leading();
    leader.input(Input::LogRoom { room: Room::Scarce });
    leader.turn();
    leader.receive(3, Message::Forward { batch: foreign_batch("SET a 1") });
    leader.receive(3, Message::Forward { batch: foreign_batch("DEL a") });
    let standings: Vec<Standing> = leader
        .logged()
        .iter()
        .map(|payload| Batch::decode(payload).expect("a batch").standing)
        .collect();
    assert_eq!(standings, [Standing::RefusedDisk, Standing::Whole]);
}

#[test]
fn full_log_of_the_leader_appends_nothing_and_serves_reads() {
    let mut leader = World::leading();
    leader.request(1, "SET a 1");
    leader.confirm();
    assert_eq!(leader.replies(1), ["+OK"]);
    leader.input(Input::LogRoom { room: Room::Exhausted });
    leader.turn();
    leader.request(1, "SET a 2");
    assert!(leader.replies(1)[0].starts_with("-MISCONF "));
    leader.request(1, "GET a");
    leader.confirm();
    assert_eq!(leader.replies(1), ["$1 1"]);
    assert_eq!(leader.logged().len(), 1);
}

#[test]
fn leaders_commands_gather_while_its_last_entry_is_on_its_way_to_the_disk() {
    let commands = |payload: &bytes::Bytes| Batch::decode(payload).expect("a batch").len();
    let mut leader = World::leading();

    // 1. The first one is appended at once. What comes while the disk is at it is not.
    leader.disk_works = false;
    leader.request(1, "INCR n");
    leader.request(2, "INCR n");
    leader.request(3, "INCR n;GET n");
    assert_eq!(leader.logged().iter().map(commands).collect::<Vec<_>>(), [1]);

    // 2. The disk has it: the others are one entry, in the order in which they came.
    leader.disk_works = true;
    leader.durable();
    assert_eq!(leader.logged().iter().map(commands).collect::<Vec<_>>(), [1, 2]);
    leader.confirm();
    assert_eq!(
        (leader.replies(1), leader.replies(2), leader.replies(3)),
        (vec![":1".into()], vec![":2".into()], vec![":3".into(), "$1 3".into()])
    );
}

#[test]
fn leaders_own_disk_keeps_nothing_back_that_a_majority_takes() {
    let mut leader = World::leading();
    leader.disk_works = false;
    leader.request(1, "SET a 1");
    leader.request(2, "SET b 1");
    assert_eq!(leader.logged().len(), 1);
    // Server 2 and server 3 are a majority without us.
    leader.confirm_as(2);
    leader.confirm_as(3);
    assert_eq!(leader.replies(1), ["+OK"]);
    assert_eq!(leader.logged().len(), 2);
}

#[test]
fn leaders_own_commands_wait_for_no_entry_that_others_forward_behind_the_first() {
    let mut leader = World::leading();
    leader.disk_works = false;
    leader.request(1, "INCR n");
    leader.request(2, "INCR n");
    assert_eq!(leader.logged().len(), 1, "the second one gathers");
    // There is always something under way, and yet it is not kept back any longer.
    leader.durable_behind(|leader| {
        leader.receive(3, Message::Forward { batch: foreign_batch("SET a 1") });
        assert_eq!(leader.logged().len(), 2);
    });
    assert_eq!(leader.logged().len(), 3);
}

#[test]
fn leaders_gathered_commands_are_surely_not_done_where_nobody_confirms_the_first() {
    let mut leader = World::leading();
    leader.disk_works = false;
    leader.request(1, "SET a 1");
    leader.request(2, "SET b 1");
    leader.wait(REQUEST_TIMEOUT);
    assert!(leader.replies(1)[0].starts_with("-INDOUBT "));
    assert!(leader.replies(2)[0].starts_with("-CLUSTERDOWN "));
}

#[test]
fn followers_question_is_answered_once_its_round_is_confirmed() {
    let mut leader = World::leading();
    let id = ReadId { boot: Boot(4), number: 9 };
    leader.receive(3, Message::ReadIndex { id });
    leader.confirm();
    let last = leader.node.raft().commit_index();
    assert_eq!(leader.read_answers(), [(3, id, last.0)]);
}

#[test]
fn read_is_not_released_by_a_leader_that_is_deposed_meanwhile() {
    // 1. A read waits for its round; a newer term shows up instead.
    let mut world = World::leading();
    world.request(1, "GET a");
    world.append_from(2, 5, 1);
    assert_eq!(world.replies(1), [""; 0]);

    // 2. It is asked again of the new leader.
    let [(2, id)] = world.asked()[..] else {
        panic!("one question");
    };
    world.answer_read(id, 1);
    assert_eq!(world.replies(1), ["$-1"]);
}

#[test]
fn deadline_of_a_due_key_on_a_full_log_is_not_in_the_past() {
    // 1. A key with a deadline; then the log is full.
    let mut leader = World::leading();
    leader.request(1, "SET a 1 PX 100");
    leader.confirm();
    leader.input(Input::LogRoom { room: Room::Exhausted });
    leader.turn();

    // 2. The key is due, and nothing can be appended for it: the driver isn't woken in vain.
    for _ in 0..100 {
        let deadline = leader.node.deadline(leader.now);
        assert!(deadline > leader.now);
        leader.wait(deadline.since(leader.now));
        leader.confirm();
    }

    // 3. There is room again: the key expires.
    leader.input(Input::LogRoom { room: Room::Ample });
    leader.turn();
    leader.wait(Duration::from_millis(50));
    leader.confirm();
    assert_eq!(leader.value("a"), None);
}

#[test]
fn lease_that_falls_due_is_ended_by_an_entry_with_all_of_its_keys() {
    let mut leader = World::leading();
    leader.request(1, "LEASE GRANT 200 7;SET a 1 LEASE 7;SET b 1 LEASE 7;SET c 1");
    leader.confirm();
    assert_eq!(leader.replies(1), [":7", "+OK", "+OK", "+OK"]);
    // 1. Kept alive it lasts longer, and nothing is appended for it in the meantime.
    leader.wait(Duration::from_millis(150));
    leader.request(1, "LEASE KEEPALIVE 7");
    leader.confirm();
    let last = leader.node.raft().log().last_index();
    leader.wait(Duration::from_millis(150));
    leader.confirm();
    assert_eq!(leader.node.raft().log().last_index(), last);
    assert_eq!(leader.value("a").as_deref(), Some("1"));
    // 2. When it is due the leader says so, once.
    leader.wait(Duration::from_millis(100));
    leader.confirm();
    assert_eq!(leader.node.raft().log().last_index(), last.next());
    assert_eq!((leader.value("a"), leader.value("b")), (None, None));
    assert_eq!(leader.value("c").as_deref(), Some("1"));
    leader.wait(Duration::from_millis(100));
    leader.confirm();
    assert_eq!(leader.node.raft().log().last_index(), last.next());
}

#[test]
fn deadline_of_a_leader_whose_own_batch_takes_long_is_not_in_the_past() {
    let mut leader = World::leading();
    leader.disk_works = false;
    leader.request(1, "SET a 1");
    let begin = leader.now;
    while leader.now.since(begin) < Duration::from_secs(2) {
        let deadline = leader.node.deadline(leader.now);
        assert!(deadline > leader.now, "after {:?}", leader.now.since(begin));
        leader.wait(deadline.since(leader.now));
        leader.hear_from(3);
    }
    assert!(leader.node.raft().is_leader());
}

#[test]
fn stop_hands_over_and_answers_everyone() {
    // 1. A leader with an undecided write is asked to stop.
    let mut leader = World::leading();
    leader.request(1, "SET a 1");
    leader.input(Input::Stop);
    leader.turn();
    assert!(!leader.node.accepts_requests() && !leader.node.may_exit());

    // 2. The write is decided; the successor has everything, takes over, and is followed.
    leader.confirm();
    assert_eq!(leader.replies(1), ["+OK"]);
    assert!(leader.told_to_campaign().contains(&(3, Term(2))));
    let mut successor_log = leader.whole_log();
    std::mem::swap(&mut leader.log, &mut successor_log);
    leader.append_from(3, 3, 1);
    assert!(leader.node.may_exit());
}

#[test]
fn stop_without_a_successor_ends_all_the_same() {
    let mut leader = World::leading();
    leader.request(1, "SET a 1");
    leader.peer_down(2);
    leader.peer_down(3);
    leader.input(Input::Stop);
    leader.turn();
    leader.wait(Duration::from_millis(1500));
    assert!(leader.node.may_exit());
    assert!(leader.replies(1)[0].starts_with("-INDOUBT "));
}
