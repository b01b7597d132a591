//! A follower's gateway: numbering, sending again, giving up.

use std::time::Duration;

use raftkv::node::Role;
use raftkv::proto::batch::{Batch, Standing};
use raftkv::proto::message::{GrowthRefusal, Message};
use raftkv::types::{Incarnation, Instant};

use super::support::*;

fn seq(payload: &[u8]) -> u64 {
    Batch::decode(payload).expect("a batch").id.seq.0
}

#[test]
fn batch_of_a_turn_is_numbered_once_and_answered_when_applied_here() {
    // 1. Two clients write in one turn: one batch, forwarded to the leader.
    let mut world = World::following();
    world.request_without_end(1, "SET a 1");
    world.request_without_end(2, "INCR n");
    world.turn();
    let batches = world.forwarded(2);
    assert_eq!(batches.len(), 1);
    let batch = Batch::decode(&batches[0]).expect("a batch");
    assert_eq!((batch.id.seq.0, batch.id.epoch.0, batch.len()), (1, 1, 2));

    // 2. In the log, but not committed: no answer.
    world.append(2, &batches[0]);
    world.append_from(2, 2, 1);
    assert_eq!(world.replies(1), [""; 0]);

    // 3. Committed: both are answered. The next turn's batch has the next number.
    world.append_from(2, 2, 2);
    assert_eq!((world.replies(1), world.replies(2)), (vec!["+OK".into()], vec![":1".into()]));
    world.request(1, "INCR n");
    assert_eq!(seq(&world.forwarded(2)[0]), 2);
}

#[test]
fn batch_that_is_logged_twice_is_applied_and_answered_once() {
    let mut world = World::following();
    world.request(1, "INCR n");
    let [batch] = &world.forwarded(2)[..] else {
        panic!("one batch");
    };
    world.commit(&[batch.clone(), batch.clone()]);
    world.commit(std::slice::from_ref(batch));
    assert_eq!(world.replies(1), [":1"]);
    assert_eq!(world.value("n").as_deref(), Some("1"));
}

#[test]
fn batch_behind_a_gap_is_skipped_and_everything_is_sent_again_in_order() {
    // 1. Three batches, of which the leader gets the second and third.
    let mut world = World::following();
    for _ in 0..3 {
        world.request(1, "INCR n");
    }
    let batches = world.forwarded(2);
    world.commit(&batches[1..]);
    assert_eq!(world.replies(1), [""; 0]);
    assert_eq!(world.value("n"), None);

    // 2. More such gaps in the same moment cost nothing: what was sent may be on its way still.
    world.commit(&batches[2..]);
    assert!(world.forwarded(2).is_empty());

    // 3. A heartbeat later all three are sent again, the same bytes, and take effect once.
    world.wait(Duration::from_millis(50));
    let again = world.forwarded(2);
    assert_eq!(again, batches);
    world.commit(&again);
    assert_eq!(world.replies(1), [":1", ":2", ":3"]);
}

#[test]
fn batch_goes_to_whoever_leads_now() {
    // 1. Sent to server 2, which is deposed: server 3 leads in term 3.
    let mut world = World::following();
    world.request(1, "INCR n");
    let batches = world.forwarded(2);
    world.append_from(3, 3, 1);
    assert_eq!(world.forwarded(3), batches);

    // 2. The link to it is lost and comes back: sent again.
    world.peer_down(3);
    world.peer_up(3);
    world.append_from(3, 3, 1);
    assert_eq!(world.forwarded(3), batches);

    // 3. Nothing happens for two election timeouts: sent again.
    for _ in 0..13 {
        world.wait(Duration::from_millis(50));
        world.append_from(3, 3, 1);
    }
    assert_eq!(world.forwarded(3), batches);
}

#[test]
fn batch_is_taken_over_when_its_own_node_leads() {
    let mut world = World::following();
    world.request(1, "INCR n");
    let batches = world.forwarded(2);
    world.peer_down(2);
    world.become_leader();
    assert_eq!(world.logged(), batches);
    world.confirm();
    assert_eq!(world.replies(1), [":1"]);
}

#[test]
fn clusterdown_when_it_was_never_numbered() {
    let mut world = World::start(1);
    world.request(1, "SET a 1");
    world.request(2, "GET a");
    world.wait(REQUEST_TIMEOUT - Duration::from_millis(1));
    assert_eq!(world.replies(1), [""; 0]);
    world.wait(Duration::from_millis(1));
    assert!(world.replies(1)[0].starts_with("-CLUSTERDOWN "));
    assert!(world.replies(2)[0].starts_with("-CLUSTERDOWN "));

    // It was dropped: a leader that comes later gets the next write under the first number.
    world.append_from(2, 2, 1);
    assert_eq!(world.forwarded(2).len(), 0);
    world.request(1, "SET a 2");
    assert_eq!(seq(&world.forwarded(2)[0]), 1);
}

#[test]
fn indoubt_when_it_was_numbered_and_then_it_is_emptied_under_its_own_number() {
    // 1. A write and a read behind it, sent, and no majority.
    let mut world = World::following();
    world.request(1, "INCR n;GET n");
    let whole = world.forwarded(2);
    world.wait(REQUEST_TIMEOUT);
    let replies = world.replies(1);
    assert!(replies[0].starts_with("-INDOUBT "), "{replies:?}");
    assert!(replies[1].starts_with("-CLUSTERDOWN "), "a read has no effect");

    // 2. What is sent from now on has the number and nothing else; the next batch is no gap.
    world.append_from(3, 3, 1);
    world.request(1, "INCR n");
    let sent = world.forwarded(3);
    let emptied = Batch::decode(&sent[0]).expect("a batch");
    assert_eq!((emptied.id.seq.0, emptied.len()), (1, 0));
    assert_eq!(emptied.standing, Standing::GivenUp);
    assert_eq!(seq(&sent[1]), 2);

    // 3. Whichever copy the log holds first counts: here the emptied one.
    world.append(3, &sent[0]);
    world.append(3, &whole[0]);
    world.append(3, &sent[1]);
    world.append_from(3, 3, 4);
    assert_eq!(world.replies(1), [":1"]);
}

#[test]
fn indoubt_the_whole_copy_may_still_take_effect_and_is_answered_once() {
    let mut world = World::following();
    world.request(1, "INCR n;GET n");
    let whole = world.forwarded(2);
    world.wait(REQUEST_TIMEOUT);
    assert_eq!(world.replies(1).len(), 2);
    world.append_from(2, 2, 1);
    world.commit(&whole);
    assert_eq!(world.replies(1), [""; 0]);
    assert_eq!(world.value("n").as_deref(), Some("1"));
    // The connection's order is unharmed: its next read waits for nothing but its read index.
    world.request(1, "GET n");
    let [(2, id)] = world.asked()[..] else {
        panic!("one question");
    };
    world.answer_read(id, 2);
    assert_eq!(world.replies(1), ["$1 1"]);
}

#[test]
fn restart_begins_a_new_epoch_and_the_old_one_is_over() {
    // 1. A batch of boot 1 is under way when the node restarts.
    let mut world = World::following();
    world.request(1, "INCR n");
    let old = world.forwarded(2);
    let mut world = World::start(2);
    world.append_from(2, 2, 1);

    // 2. It is committed before the first batch of boot 2, and applied; its late copy is not.
    world.commit(&old);
    assert_eq!(world.value("n").as_deref(), Some("1"));
    world.request(1, "INCR n");
    let new = world.forwarded(2);
    assert_eq!(seq(&new[0]), 1);
    world.commit(&new);
    world.commit(&old);
    assert_eq!(world.replies(1), [":2"]);
    assert_eq!(world.value("n").as_deref(), Some("2"));
}

#[test]
fn refusal_of_growth_is_answered_before_numbering() {
    for (refused, error) in [(GrowthRefusal::Disk, "-MISCONF "), (GrowthRefusal::Memory, "-OOM ")] {
        let mut world = World::following();
        world.refuses_growth = Some(refused);
        world.append_from(2, 2, 1);
        world.request(1, "SET a 1");
        let replies = world.replies(1);
        assert!(replies[0].starts_with(error), "{replies:?}");
        assert_eq!(world.forwarded(2).len(), 0);

        // What doesn't grow the store goes on.
        world.request(1, "DEL a");
        let batches = world.forwarded(2);
        assert_eq!(seq(&batches[0]), 1);
        world.commit(&batches);
        assert_eq!(world.replies(1), [":0"]);
    }
}

#[test]
fn refusal_of_growth_by_the_leader_is_the_batchs_result() {
    let mut world = World::following();
    world.request(1, "SET a 1;GET a;DEL b");
    let batches = world.forwarded(2);
    let batch = Batch::decode(&batches[0]).expect("a batch");
    world.commit(&[batch.emptied(Standing::RefusedDisk)]);
    let replies = world.replies(1);
    assert!(replies[0].starts_with("-MISCONF "), "{replies:?}");
    assert_eq!(replies[1], "$-1");
    assert!(replies[2].starts_with("-MISCONF "), "{replies:?}");
    assert_eq!(world.value("a"), None);
}

#[test]
fn client_that_left_leaves_nothing_behind() {
    // 1. One with a write, a held read and parked commands goes; its place is taken by another.
    let mut world = World::following();
    world.request(1, "SET a 1");
    let batches = world.forwarded(2);
    world.request(2, "GET a");
    let [(2, id)] = world.asked()[..] else {
        panic!("one question");
    };
    world.request(2, "SET a 2");
    world.leave(1);
    world.leave(2);

    // 2. Its write takes effect all the same; what was parked never began.
    world.commit(&batches);
    world.answer_read(id, 2);
    assert_eq!((world.replies(1), world.replies(2)), (vec![], vec![]));
    assert_eq!(world.value("a").as_deref(), Some("1"));
    assert_eq!(world.forwarded(2).len(), 0);
    assert!(world.node.accepts_requests());
}

#[test]
fn deadline_of_an_overdue_batch_without_a_leader_is_not_in_the_past() {
    // 1. A batch is sent; its leader falls silent, nobody else leads.
    let mut world = World::following();
    world.request(1, "SET a 1");
    let begin = world.now;

    // 2. Until it is given up, a driver that follows the deadlines is woken for elections and for
    //    sending again, not all the time.
    let mut wakings = 0;
    while world.now.since(begin) < REQUEST_TIMEOUT * 2 {
        let deadline = world.node.deadline(world.now);
        assert!(deadline > world.now, "after {:?}", world.now.since(begin));
        world.wait(deadline.since(world.now));
        wakings += 1;
        assert!(wakings < 200);
    }
    assert!(world.replies(1)[0].starts_with("-INDOUBT "));
}

#[test]
fn mail_for_someone_else_is_dropped_and_counted() {
    let mut world = World::start(1);
    let good = world.envelope(3);
    let mut strangers = [good; 5];
    strangers[0].cluster.0 += 1;
    strangers[1].to.0 = 2;
    strangers[2].to_incarnation = Incarnation(12);
    strangers[3].from_incarnation = Incarnation(34);
    strangers[4].from.0 = 9;
    let message = || {
        Message::Vote(raftkv::proto::message::Vote {
            term: raftkv::types::Term(99),
            pre_vote: false,
            granted: false,
            cluster_time: None,
        })
    };
    for envelope in strangers {
        world.receive_packet(envelope, message());
    }
    assert_eq!(world.node.status().current_term.0, 1);
    world.request(1, "RAFT INFO");
    let lines = world.replies(1).join(" ");
    assert!(lines.contains("raft_misdirected_messages:5 "), "{lines}");
    world.receive_packet(good, message());
    assert_eq!(world.node.status().current_term.0, 99);
    assert_eq!(world.node.status().role, Role::Follower);
    assert!(world.node.deadline(world.now) > Instant::ZERO);
}

#[test]
fn what_an_installed_snapshot_covers_is_in_doubt_at_once_and_the_rest_goes_on() {
    // 1. Three batches are on their way; the second has a read in its place.
    let mut world = World::following();
    world.request(1, "INCR a");
    world.request(2, "INCR a;GET a");
    world.request(3, "INCR a");
    let batches = world.forwarded(2);
    assert_eq!(batches.len(), 3);

    // 2. A snapshot comes in which the first two are counted.
    world.install(9, 2);
    let replies = world.replies(1);
    assert!(replies[0].starts_with("-INDOUBT this node was brought up to date"), "{replies:?}");
    let replies = world.replies(2);
    assert!(replies[0].starts_with("-INDOUBT "), "{replies:?}");
    assert!(replies[1].starts_with("-CLUSTERDOWN "), "a read has no effect: {replies:?}");
    assert_eq!(world.replies(3), Vec::<String>::new());

    // 3. The third one is applied behind it, once, and answered as ever.
    let behind = |index: u64, payload: &bytes::Bytes| raftkv::proto::entry::Entry {
        index: raftkv::types::LogIndex(index),
        payload: payload.clone(),
        ..world.entry_of_term_2()
    };
    let entries = vec![behind(10, &batches[1]), behind(11, &batches[2]), behind(12, &batches[2])];
    world.append_behind(9, entries);
    assert_eq!(world.replies(3), [":8"]);
    world.request(1, "INCR a");
    assert_eq!(world.forwarded(2).len(), 1, "and the next one has the next number");
}
