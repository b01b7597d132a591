//! Client sessions through a node: what comes again is answered as it was, wherever it comes from.

use std::time::Duration;

use raftkv::kv::in_session::SESSION_OVER;
use raftkv::proto::message::GrowthRefusal;

use super::support::*;

/// A leader with a session, and its number.
fn opened() -> (World, String) {
    let mut world = World::leading();
    let id = ask(&mut world, 1, "SESSION OPEN");
    let id = id[0].strip_prefix(':').expect("a number").to_owned();
    (world, id)
}

fn ask(world: &mut World, slot: u32, commands: &str) -> Vec<String> {
    world.request(slot, commands);
    world.confirm();
    world.replies(slot)
}

#[test]
fn command_that_comes_again_on_another_connection_is_answered_and_not_done() {
    let (mut world, id) = opened();
    assert_eq!(ask(&mut world, 1, &format!("SESSION DO {id} 1 1 INCR n")), [":1"]);
    world.leave(1);
    // 1. The client is back, on another connection and in doubt; other clients have gone on.
    ask(&mut world, 3, "INCR n");
    assert_eq!(ask(&mut world, 2, &format!("SESSION DO {id} 1 1 INCR n")), [":1"]);
    assert_eq!(world.value("n").as_deref(), Some("2"));
    // 2. What it answered is kept while it is awaited.
    let both = format!("SESSION DO {id} 2 1 INCR n;SESSION DO {id} 1 1 INCR n");
    assert_eq!(ask(&mut world, 2, &both), [":3", ":1"]);
    let late = format!("SESSION DO {id} 3 3 INCR n;SESSION DO {id} 2 2 INCR n");
    let replies = ask(&mut world, 2, &late);
    assert_eq!(replies[0], ":4");
    assert!(replies[1].starts_with("-INDOUBT the command was executed before"), "{replies:?}");
    assert_eq!(world.value("n").as_deref(), Some("4"));
}

#[test]
fn command_behind_a_missing_one_is_refused_without_effect() {
    let (mut world, id) = opened();
    let replies = ask(&mut world, 1, &format!("SESSION DO {id} 2 1 INCR n"));
    assert!(replies[0].starts_with("-SESSIONGAP 1 "), "{replies:?}");
    assert_eq!(world.value("n"), None);
    assert_eq!(ask(&mut world, 1, &format!("SESSION DO {id} 1 1 INCR n")), [":1"]);
    assert_eq!(ask(&mut world, 1, &format!("SESSION DO {id} 2 1 INCR n")), [":2"]);
}

#[test]
fn error_of_a_command_is_kept_like_a_reply_and_a_refusal_uses_no_number() {
    let (mut world, id) = opened();
    ask(&mut world, 1, "SET word x");
    let wrong = format!("SESSION DO {id} 1 1 INCR word");
    let error = ask(&mut world, 1, &wrong);
    assert!(error[0].starts_with("-ERR value is not an integer"), "{error:?}");
    ask(&mut world, 1, "SET word 5");
    assert_eq!(ask(&mut world, 1, &wrong), error);
    // 1. What is wrong by itself never reaches the session; nor does what a full disk refuses.
    let syntax = ask(&mut world, 1, &format!("SESSION DO {id} 2 2 SET a"));
    assert!(syntax[0].starts_with("-ERR wrong number"), "{syntax:?}");
    world.refuses_growth = Some(GrowthRefusal::Disk);
    world.input(raftkv::node::Input::LogRoom { room: raftkv::types::Room::Scarce });
    let full = ask(&mut world, 1, &format!("SESSION DO {id} 2 2 SET a 1"));
    assert!(full[0].starts_with("-MISCONF "), "{full:?}");
    assert_eq!(ask(&mut world, 1, &format!("SESSION DO {id} 2 2 DEL word")), [":1"]);
}

#[test]
fn read_of_a_session_is_a_read_and_has_no_number() {
    let (mut world, id) = opened();
    assert_eq!(ask(&mut world, 1, &format!("SESSION DO {id} 7 7 GET n")), ["$-1"]);
    assert_eq!(ask(&mut world, 1, &format!("SESSION DO {id} 1 1 INCR n")), [":1"]);
    let logged = world.logged().len();
    ask(&mut world, 1, &format!("SESSION DO {id} 7 7 GET n"));
    assert_eq!(world.logged().len(), logged);
}

#[test]
fn transaction_is_one_command_of_its_session() {
    let (mut world, id) = opened();
    let exec = format!("MULTI;INCR n;INCR n;SESSION DO {id} 1 1 EXEC");
    assert_eq!(ask(&mut world, 1, &exec)[3], "*2 :1 :2");
    assert_eq!(ask(&mut world, 2, &exec)[3], "*2 :1 :2");
    assert_eq!(world.value("n").as_deref(), Some("2"));
    // A command that is queued has no number, whatever it bears.
    let queued = format!("MULTI;SESSION DO {id} 9 9 INCR n;EXEC");
    assert_eq!(ask(&mut world, 1, &queued), ["+OK", "+QUEUED", "*1 :3"]);
    assert_eq!(ask(&mut world, 1, &format!("SESSION DO {id} 2 2 INCR n")), [":4"]);
}

#[test]
fn session_that_is_over_or_closed_does_nothing() {
    let (mut world, id) = opened();
    let first = format!("SESSION DO {id} 1 1 INCR n");
    assert_eq!(ask(&mut world, 1, &first), [":1"]);
    assert_eq!(ask(&mut world, 1, &format!("SESSION CLOSE {id}")), [":1"]);
    assert_eq!(ask(&mut world, 1, &format!("SESSION CLOSE {id}")), [":0"]);
    let over = format!("-{SESSION_OVER}");
    for command in [first, format!("SESSION DO {id} 2 2 INCR n")] {
        assert_eq!(ask(&mut world, 1, &command).concat(), over);
    }
    assert_eq!(world.value("n").as_deref(), Some("1"));
    for wrong in ["SESSION DO x 1 1 INCR n", "SESSION DO 0 1 1 INCR n", "SESSION DO 1 1 1 SESSION"]
    {
        assert!(ask(&mut world, 1, wrong)[0].starts_with("-ERR "), "{wrong}");
    }
    world.wait(Duration::ZERO);
}

#[test]
fn copy_that_another_gateway_sends_later_is_not_done_again() {
    // 1. The client's node forwards its command and is not heard of any more.
    let (mut world, id) = opened();
    let command = format!("SESSION DO {id} 1 1 INCR n");
    let mut other = World::following();
    other.request(1, &command);
    let mut copy = other.forwarded(2)[0].to_vec();
    (copy[0], copy[8]) = (3, 33);
    // 2. The client asks here.
    assert_eq!(ask(&mut world, 1, &command), [":1"]);
    // 3. Now the copy comes, in a batch of its own that was never applied.
    world.receive(3, raftkv::proto::message::Message::Forward { batch: copy.into() });
    world.confirm();
    assert_eq!(world.value("n").as_deref(), Some("1"));
}

#[test]
fn session_that_is_opened_again_under_its_token_is_the_same_until_it_is_used() {
    let mut world = World::leading();
    let first = ask(&mut world, 1, "SESSION OPEN mine");
    // 1. The answer was lost, and the client asks on another connection.
    assert_eq!(ask(&mut world, 2, "SESSION OPEN mine"), first);
    assert_ne!(ask(&mut world, 2, "SESSION OPEN yours"), first);
    assert_ne!(ask(&mut world, 2, "SESSION OPEN"), first);
    // 2. Once something was done in it, who says the same means another one.
    let id = first[0].strip_prefix(':').expect("a number").to_owned();
    assert_eq!(ask(&mut world, 1, &format!("SESSION DO {id} 1 1 INCR n")), [":1"]);
    let second = ask(&mut world, 2, "SESSION OPEN mine");
    assert_ne!(second, first);
    // 3. One that is closed is not found either.
    ask(&mut world, 1, &format!("SESSION CLOSE {}", &second[0][1..]));
    let third = ask(&mut world, 1, "SESSION OPEN mine");
    assert!(third != second && third[0].starts_with(':'), "{third:?}");
    let long = "t".repeat(65);
    assert!(ask(&mut world, 1, &format!("SESSION OPEN {long}"))[0].starts_with("-ERR syntax"));
}
