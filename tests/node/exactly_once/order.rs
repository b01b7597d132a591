//! A connection sees its commands in order.

use std::time::Duration;

use raftkv::limits;

use super::support::*;

#[test]
fn write_behind_a_held_read_waits_for_it() {
    // 1. A read asks for its index; a write comes behind it, in a later turn.
    let mut world = World::following();
    world.request(1, "GET a");
    let [(2, id)] = world.asked()[..] else {
        panic!("one question");
    };
    world.request(1, "SET a 1;GET a");
    assert_eq!(world.forwarded(2).len(), 0, "the read might see the write");

    // 2. Another client's write does not wait.
    world.request(2, "SET b 1");
    let others = world.forwarded(2);
    assert_eq!(others.len(), 1);

    // 3. The read is released, and the write goes on its way with what is behind it.
    world.answer_read(id, 1);
    assert_eq!(world.replies(1), ["$-1"]);
    let own = world.forwarded(2);
    assert_eq!(own.len(), 1);
    world.commit(&others);
    world.commit(&own);
    assert_eq!(world.replies(1), ["+OK", "$1 1"]);
    assert_eq!(world.replies(2), ["+OK"]);
}

#[test]
fn run_with_a_write_goes_through_the_batch_as_a_whole() {
    let mut world = World::following();
    world.request(1, "GET n;INCR n;GET n;PING;INCR n;GET n");
    let batches = world.forwarded(2);
    assert_eq!(batches.len(), 1);
    assert_eq!(world.replies(1), [""; 0], "PING keeps its place");
    world.commit(&batches);
    let expected = ["$-1", ":1", "$1 1", "+PONG", ":2", "$1 2"];
    assert_eq!(world.replies(1), expected);
}

#[test]
fn read_behind_an_unapplied_write_waits_for_its_own_batch() {
    // 1. A write is under way; a read comes in the next turn.
    let mut world = World::following();
    world.request(1, "SET a 1");
    let first = world.forwarded(2);
    world.request(1, "GET a");
    let second = world.forwarded(2);
    assert_eq!(second.len(), 1, "it travels behind the write");

    // 2. The write is applied; the read still waits for its place in the log.
    world.commit(&first);
    assert_eq!(world.replies(1), ["+OK"]);
    world.commit(&second);
    assert_eq!(world.replies(1), ["$1 1"]);

    // 3. Nothing is left of it: the next read asks for an index again.
    world.request(1, "GET a");
    assert_eq!(world.asked().len(), 1);
}

#[test]
fn reads_of_one_turn_ask_once_and_a_late_answer_serves_no_later_question() {
    // 1. Two clients' reads: one question.
    let mut world = World::following();
    world.request_without_end(1, "GET a");
    world.request_without_end(2, "GET a");
    world.turn();
    let [(2, first)] = world.asked()[..] else {
        panic!("one question");
    };

    // 2. A new leader is asked anew; the old question's answer is nobody's any more.
    world.append_from(3, 3, 1);
    let [(3, second)] = world.asked()[..] else {
        panic!("one question");
    };
    assert!(second > first);
    world.answer_read(first, 1);
    assert_eq!(world.replies(1), [""; 0]);
    world.answer_read(second, 1);
    assert_eq!((world.replies(1), world.replies(2)), (vec!["$-1".into()], vec!["$-1".into()]));
}

#[test]
fn read_waits_until_its_index_is_applied() {
    let mut world = World::following();
    world.request(2, "SET a 1");
    let batches = world.forwarded(2);
    world.request(1, "GET a");
    let [(2, id)] = world.asked()[..] else {
        panic!("one question");
    };
    world.answer_read(id, 2);
    assert_eq!(world.replies(1), [""; 0], "entry 2 is not here yet");
    world.commit(&batches);
    assert_eq!(world.replies(1), ["$1 1"]);
}

#[test]
fn parked_commands_go_on_when_the_read_before_them_times_out() {
    let mut world = World::start(1);
    world.request(1, "GET a");
    world.request(1, "SET a 1");
    world.wait(REQUEST_TIMEOUT);
    let replies = world.replies(1);
    assert_eq!(replies.len(), 1);
    assert!(replies[0].starts_with("-CLUSTERDOWN "));
    world.append_from(2, 2, 1);
    let batches = world.forwarded(2);
    assert_eq!(batches.len(), 1);
    world.commit(&batches);
    assert_eq!(world.replies(1), ["+OK"]);
}

#[test]
fn quit_closes_once_behind_the_last_reply() {
    let mut world = World::following();
    world.request(1, "SET a 1;QUIT;SET a 2");
    assert_eq!(world.closed(), [0; 0]);
    let batches = world.forwarded(2);
    world.commit(&batches);
    assert_eq!(world.replies(1), ["+OK", "+OK"]);
    assert_eq!(world.closed(), [1]);
    assert_eq!(world.value("a").as_deref(), Some("1"));
}

#[test]
fn malformed_bytes_behind_quit_close_once() {
    let mut world = World::following();
    world.request(1, "QUIT;!ERR Protocol error");
    assert_eq!(world.replies(1), ["+OK"]);
    assert_eq!(world.closed(), [1]);

    // Alone they are answered, behind what is under way.
    world.request(2, "SET a 1;!ERR Protocol error");
    let batches = world.forwarded(2);
    world.commit(&batches);
    let replies = world.replies(2);
    assert_eq!(replies[0], "+OK");
    assert!(replies[1].starts_with("-ERR Protocol error"), "{replies:?}");
    assert_eq!(world.closed(), [1, 2]);
}

#[test]
fn lease_read_stays_behind_a_read_that_waits() {
    // 1. A leader whose lease has run out, while a round of its is under way.
    let mut world = World::leading_with_leases();
    world.request(1, "CLIENT READMODE lease");
    assert_eq!(world.replies(1), ["+OK"]);
    world.wait(Duration::from_millis(130));
    let under_way = world.round_begun;

    // 2. A read waits for the next round; then the one under way is confirmed, and the lease holds.
    world.request(1, "GET a");
    let next = world.round_begun;
    assert!(next > under_way && world.replies(1).is_empty());
    world.round_begun = under_way;
    world.confirm();
    assert!(world.node.raft().has_lease(world.now));

    // 3. A second read of that connection, and a write that is committed with the first one's round:
    //    it must not show in the first read and be missing in the second.
    world.request(1, "GET a");
    world.request(2, "SET a 2");
    world.round_begun = world.round_begun.max(next);
    world.confirm();
    let replies = world.replies(1);
    assert!(replies.is_sorted(), "an older value after a newer one: {replies:?}");
    assert_eq!(replies.len(), 2);
}

#[test]
fn who_is_cut_off_behind_what_holds_it_is_told_by_what() {
    let mut config = config();
    config.client.debug_commands = true;
    let line = format!("SET a {}", "x".repeat(1_000_000));
    for (held_by, command) in [("WAIT", "WAIT 9 0"), ("DEBUG SLEEP", "DEBUG SLEEP 5")] {
        let mut world = World::leading_with(&config);
        world.node.take_notices();
        world.request(1, command);
        for _ in 0..=limits::HELD_CLIENT_BYTES / 1_000_000 {
            world.request(1, &line);
        }
        assert_eq!(world.closed(), [1], "{held_by}");
        let notices = world.node.take_notices();
        let said = format!("bytes behind its {held_by} (");
        assert!(notices.iter().any(|notice| notice.contains(&said)), "{notices:?}");
    }
}
