//! The table of sessions by itself: numbers, kept replies, bounds, the clock, and what a snapshot
//! has of it.
//!
//! Called by `cargo test`.

use super::*;

const ID: SessionId = SessionId(7);

fn mark(number: u64, awaited: u64) -> SessionMark {
    let (number, awaited) = (RequestSeq(number), RequestSeq(awaited));
    SessionMark { session: ID, number, awaited }
}

fn opened() -> Sessions {
    let mut sessions = Sessions::default();
    sessions.open(ID, None, ClusterTime(1000));
    sessions
}

/// What becomes of a command that, where it is the next one, answers its number.
fn say(sessions: &mut Sessions, number: u64, awaited: u64, now: u64) -> Verdict {
    let verdict = sessions.admit(mark(number, awaited), ClusterTime(now));
    if verdict == Verdict::Next {
        sessions.keep(ID, &Reply::Integer(number as i64));
    }
    verdict
}

fn kept(number: i64) -> Verdict {
    Verdict::Kept(Reply::Integer(number))
}

#[test]
fn admit_takes_each_number_once_and_in_order() {
    let mut sessions = opened();
    assert_eq!(say(&mut sessions, 2, 1, 1000), Verdict::Gap(RequestSeq(1)));
    assert_eq!(say(&mut sessions, 1, 1, 1000), Verdict::Next);
    assert_eq!(say(&mut sessions, 1, 1, 1000), kept(1));
    assert_eq!(say(&mut sessions, 2, 1, 1000), Verdict::Next);
    assert_eq!(say(&mut sessions, 1, 1, 1000), kept(1));
    assert_eq!(say(&mut sessions, 2, 1, 1000), kept(2));
    assert_eq!(say(&mut sessions, 9, 1, 1000), Verdict::Gap(RequestSeq(3)));
    let other = SessionMark { session: SessionId(8), ..mark(1, 1) };
    assert_eq!(sessions.admit(other, ClusterTime(1000)), Verdict::Over);
}

#[test]
fn admit_lets_go_of_what_nobody_awaits() {
    let mut sessions = opened();
    (1..=5).for_each(|number| assert_eq!(say(&mut sessions, number, 1, 1000), Verdict::Next));
    // 1. Those below the lowest awaited go; none that is awaited does, whatever a client says.
    assert_eq!(say(&mut sessions, 5, 4, 1000), kept(5));
    assert_eq!(say(&mut sessions, 3, 3, 1000), Verdict::Forgotten);
    assert_eq!(say(&mut sessions, 4, 3, 1000), kept(4));
    assert_eq!(say(&mut sessions, 5, 99, 1000), kept(5));
    assert_eq!(say(&mut sessions, 4, 4, 1000), Verdict::Forgotten);
    // 2. With the next command only its own reply is left.
    assert_eq!(say(&mut sessions, 6, 6, 1000), Verdict::Next);
    let one = 9 + limits::SESSION_REPLY_COST;
    assert_eq!(sessions.bytes(), one);
}

#[test]
fn keep_holds_no_more_than_its_bounds() {
    // 1. In number.
    let mut sessions = opened();
    let many = limits::SESSION_REPLIES as u64 + 1;
    (1..=many).for_each(|number| assert_eq!(say(&mut sessions, number, 1, 1000), Verdict::Next));
    assert_eq!(say(&mut sessions, 1, 1, 1000), Verdict::Forgotten);
    assert_eq!(say(&mut sessions, 2, 1, 1000), kept(2));
    // 2. In bytes: one that is too large takes those before it along.
    assert_eq!(sessions.admit(mark(many + 1, 1), ClusterTime(1000)), Verdict::Next);
    sessions.keep(ID, &Reply::bulk(&vec![0; limits::SESSION_REPLY_BYTES]));
    assert_eq!(sessions.bytes(), 0);
    assert_eq!(say(&mut sessions, many + 1, 1, 1000), Verdict::Forgotten);
    assert_eq!(say(&mut sessions, many + 2, 1, 1000), Verdict::Next);
    assert_eq!(say(&mut sessions, many + 2, 1, 1000), kept(many as i64 + 2));
}

#[test]
fn keep_and_open_end_who_was_silent_for_longest() {
    // 1. All replies together.
    let large = Reply::bulk(&vec![0; limits::SESSION_REPLY_BYTES - 100]);
    let mut sessions = Sessions::default();
    for id in 1..=17 {
        sessions.open(SessionId(id), None, ClusterTime(id));
        let mark = SessionMark { session: SessionId(id), ..mark(1, 1) };
        assert_eq!(sessions.admit(mark, ClusterTime(id)), Verdict::Next);
        sessions.keep(SessionId(id), &large);
        assert!(sessions.bytes() <= limits::SESSIONS_BYTES);
    }
    assert_eq!(sessions.len(), 16);
    let first = SessionMark { session: SessionId(1), ..mark(1, 1) };
    assert_eq!(sessions.admit(first, ClusterTime(20)), Verdict::Over);
    // 2. Their number.
    let mut sessions = Sessions::default();
    (1..=limits::SESSIONS as u64).for_each(|id| sessions.open(SessionId(id), None, ClusterTime(5)));
    sessions.admit(first, ClusterTime(5 + limits::SESSION_TOUCH_MS));
    sessions.open(SessionId(1 << 40), None, ClusterTime(6 + limits::SESSION_TOUCH_MS));
    assert_eq!(sessions.len(), limits::SESSIONS);
    let second = SessionMark { session: SessionId(2), ..first };
    let now = ClusterTime(7 + limits::SESSION_TOUCH_MS);
    assert_eq!(sessions.admit(second, now), Verdict::Over);
    assert_eq!(sessions.admit(first, now), Verdict::Next);
}

#[test]
fn session_is_over_after_an_hour_of_silence_whether_it_was_removed_or_not() {
    let hour = limits::SESSION_IDLE_MS;
    let mut sessions = opened();
    assert_eq!(say(&mut sessions, 1, 1, 1000 + hour - 1), Verdict::Next);
    assert_eq!(say(&mut sessions, 1, 1, 1000 + hour), kept(1));
    let mut removed = sessions.clone();
    let over = 1000 + hour - 1 + hour;
    removed.expire(ClusterTime(over - 1));
    assert_eq!(removed.len(), 1);
    removed.expire(ClusterTime(over));
    assert_eq!((removed.len(), removed.bytes()), (0, 0));
    assert_eq!(say(&mut sessions, 1, 1, over), Verdict::Over);
    assert_eq!(say(&mut removed, 1, 1, over), Verdict::Over);
    assert_eq!(say(&mut sessions, 2, 1, over - 1), Verdict::Next, "a millisecond earlier");
}

#[test]
fn close_ends_a_session_and_what_it_kept() {
    let mut sessions = opened();
    assert_eq!(say(&mut sessions, 1, 1, 1000), Verdict::Next);
    assert!(sessions.close(ID));
    assert!(!sessions.close(ID));
    assert_eq!(say(&mut sessions, 1, 1, 1000), Verdict::Over);
    assert_eq!(sessions.bytes(), 0);
}

#[test]
fn restore_takes_what_sections_gave_and_refuses_every_cut() {
    let mut sessions = opened();
    let large = Reply::bulk(&vec![b'v'; limits::SNAPSHOT_BLOCK_BYTES]);
    for id in 100..103 {
        sessions.open(SessionId(id), None, ClusterTime(1000 + id));
        let mark = SessionMark { session: SessionId(id), ..mark(1, 1) };
        assert_eq!(sessions.admit(mark, ClusterTime(1000 + id)), Verdict::Next);
        sessions.keep(SessionId(id), &large);
    }
    (1..=3).for_each(|number| assert_eq!(say(&mut sessions, number, 2, 1000), Verdict::Next));
    // 1. What is large is parted, between two sessions.
    let sections: Vec<Vec<u8>> = sessions.captured().collect();
    assert_eq!(sections.len(), 3);
    let mut restored = Sessions::default();
    sections.iter().for_each(|section| restored.restore(section).expect("made just now"));
    assert_eq!(restored, sessions);
    assert_eq!(say(&mut restored, 2, 2, 1000), kept(2));
    // 2. A cut, or a session twice.
    let small: Vec<u8> = opened().captured().flatten().collect();
    let whole = |cut: usize| Sessions::default().restore(&small[..cut]).is_some();
    let wholes: Vec<usize> = (0..=small.len()).filter(|cut| whole(*cut)).collect();
    assert_eq!(wholes, [8, small.len()], "none, or one");
    assert!(restored.restore(&small).is_none());
    // 3. Where nobody ever opened one, there is nothing.
    assert_eq!(Sessions::default().captured().count(), 0);
}

#[test]
fn captured_sessions_stay_as_they_were_whatever_happens() {
    let mut sessions = opened();
    (1..=3).for_each(|number| assert_eq!(say(&mut sessions, number, 1, 1000), Verdict::Next));
    let before = sessions.clone();
    let captured = sessions.captured();
    // One more reply, two that nobody awaits, another session, and the end of the first one.
    assert_eq!(say(&mut sessions, 4, 3, 9000), Verdict::Next);
    sessions.open(SessionId(100), None, ClusterTime(9000));
    assert!(sessions.close(ID));
    let mut restored = Sessions::default();
    captured.for_each(|section| restored.restore(&section).expect("made just now"));
    assert_eq!(restored, before);
    assert_ne!(restored, sessions);
}

#[test]
fn digest_tells_what_took_effect_and_stays_with_the_last_session_gone() {
    let (mut one, mut other) = (opened(), opened());
    assert_eq!(one.digest(), other.digest());
    assert_eq!(say(&mut one, 1, 1, 1000), Verdict::Next);
    assert_ne!(one.digest(), other.digest());
    assert_eq!(say(&mut other, 1, 1, 1000), Verdict::Next);
    assert_eq!(one.digest(), other.digest());
    one.close(ID);
    let digest = one.digest();
    assert_ne!(digest, 0);
    let mut restored = Sessions::default();
    one.captured().for_each(|section| restored.restore(&section).expect("made just now"));
    assert_eq!(restored.digest(), digest);
}

#[test]
fn token_finds_its_session_until_that_is_used_over_or_closed_also_behind_a_snapshot() {
    let mut sessions = Sessions::default();
    sessions.open(ID, Some(b"mine"), ClusterTime(1000));
    let found = |sessions: &Sessions, now| sessions.opened(b"mine", ClusterTime(now));
    // 1. Its bytes are those of no reply.
    assert_eq!(sessions.bytes(), 0);
    let mut restored = Sessions::default();
    sessions.captured().for_each(|section| restored.restore(&section).expect("made just now"));
    assert_eq!(restored, sessions);
    assert_eq!(found(&restored, 1000), Some(ID));
    assert_eq!(restored.opened(b"yours", ClusterTime(1000)), None);
    // 2. It is used.
    assert_eq!(say(&mut restored, 1, 1, 1000), Verdict::Next);
    assert_eq!(found(&restored, 1000), None);
    assert_eq!(say(&mut restored, 1, 1, 1000), kept(1));
    // 3. It is over: the token is that of the next one, and the old one is gone.
    assert_eq!(found(&sessions, 1000 + limits::SESSION_IDLE_MS), None);
    sessions.open(SessionId(8), Some(b"mine"), ClusterTime(2000));
    assert_eq!((found(&sessions, 2000), sessions.len()), (Some(SessionId(8)), 1));
    assert!(sessions.close(SessionId(8)));
    assert_eq!(found(&sessions, 2000), None);
}
