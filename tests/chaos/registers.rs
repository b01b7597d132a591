//! Whether what clients read of a key was ever stale, lost or invented.
//!
//! Each value is written once, so each read names its write, and the times decide by sorting:
//! Gibbons and Korach, "Testing shared memories" (1997), section on known reads-from. A value must
//! hold from the first end to the last start among its own operations; two values' spans can't
//! overlap. Exact for reads and writes; of CAS it checks what follows from its two values. Called
//! by the tests of chaos, with times in any unit.

use std::collections::BTreeMap;

/// What a client did with one key, and learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Did {
    Write(u64),
    /// A read, and its value.
    Read(u64),
    /// A compare-and-set that was done: from, to. In doubt, it only counts as seen.
    Swap(u64, u64),
    /// A compare-and-set that found another value than this.
    Differed(u64),
}

/// One operation; `ended` is nothing where the outcome is in doubt.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub did: Did,
    pub began: u64,
    pub ended: Option<u64>,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// When its write began.
    written: u64,
    /// The earliest end of an operation that wrote or saw it.
    first_end: u64,
    /// The latest start of an operation that wrote or saw it.
    last_start: u64,
    /// Whether anybody can tell that it was ever there.
    seen: bool,
}

/// Whether the history of one key is possible; 0 is the value before all. Says what is not.
pub fn check(events: &[Event]) -> Result<(), String> {
    let spans = spans(events)?;
    let mut successors = BTreeMap::new();
    for event in events {
        let Did::Swap(from, to) = event.did else { continue };
        let happened = event.ended.is_some() || spans.get(&to).is_some_and(|span| span.seen);
        if happened && let Some(other) = successors.insert(from, to) {
            return Err(format!("{from} was swapped twice, for {other} and {to}"));
        }
    }
    let seen = || spans.iter().filter(|(_, span)| span.seen);
    let mut held: Vec<_> = seen().filter(|(_, span)| span.first_end < span.last_start).collect();
    held.sort_unstable_by_key(|(_, span)| span.first_end);
    for pair in held.windows(2) {
        let [(one, first), (other, second)] = pair else { unreachable!("windows of two") };
        if second.first_end < first.last_start {
            return Err(format!("{one} and {other} were both there: {first:?}, {second:?}"));
        }
    }
    // The spans don't overlap now: only the last one that began before can hold another inside.
    let around = |begin: u64, end: u64| {
        let after = held.partition_point(|(_, span)| span.first_end < begin);
        let (value, span) = held.get(after.checked_sub(1)?)?;
        (end < span.last_start).then_some(**value)
    };
    for (value, span) in seen().filter(|(_, span)| span.first_end >= span.last_start) {
        if let Some(outer) = around(span.last_start, span.first_end) {
            return Err(format!("{value} came and went while {outer} was there: {span:?}"));
        }
    }
    for event in events {
        if let (Did::Differed(value), Some(ended)) = (event.did, event.ended)
            && around(event.began, ended) == Some(value)
        {
            return Err(format!("{value} was there, and was said to differ: {event:?}"));
        }
    }
    Ok(())
}

fn spans(events: &[Event]) -> Result<BTreeMap<u64, Span>, String> {
    let before_all = Span { written: 0, first_end: 0, last_start: 0, seen: true };
    let mut spans = BTreeMap::from([(0, before_all)]);
    for event in events {
        if let Did::Write(value) | Did::Swap(_, value) = event.did {
            let span = Span {
                written: event.began,
                first_end: event.ended.unwrap_or(u64::MAX),
                last_start: event.began,
                seen: event.ended.is_some(),
            };
            assert!(spans.insert(value, span).is_none(), "{value} is written once");
        }
    }
    for event in events {
        let (Did::Read(value) | Did::Swap(value, _)) = event.did else { continue };
        let Some(ended) = event.ended else { continue };
        let span = spans.get_mut(&value);
        let span = span.ok_or_else(|| format!("nobody wrote {value}: {event:?}"))?;
        if ended < span.written {
            return Err(format!("{value} was seen before it was written: {event:?}, {span:?}"));
        }
        span.first_end = span.first_end.min(ended);
        span.last_start = span.last_start.max(event.began);
        span.seen = true;
    }
    Ok(spans)
}

fn event(did: Did, began: u64, ended: u64) -> Event {
    Event { did, began, ended: Some(ended) }
}

#[test]
fn registers_accept_what_is_possible() {
    use Did::{Differed, Read, Swap, Write};
    let in_doubt = Event { did: Write(3), began: 5, ended: None };
    let good = [
        vec![event(Read(0), 1, 2), event(Write(1), 3, 4), event(Read(1), 5, 6)],
        // Both reads run beside the write.
        vec![event(Write(1), 1, 9), event(Read(1), 2, 3), event(Read(1), 4, 5)],
        vec![event(Write(1), 1, 9), event(Read(0), 2, 3), event(Read(1), 4, 5)],
        // A write in doubt takes effect late, or never.
        vec![event(Write(1), 1, 2), in_doubt, event(Read(1), 6, 7), event(Read(3), 8, 9)],
        vec![event(Write(1), 1, 2), in_doubt, event(Read(1), 6, 7), event(Read(1), 8, 9)],
        vec![event(Write(1), 1, 2), event(Swap(1, 2), 3, 4), event(Differed(1), 5, 6)],
    ];
    for history in good {
        assert_eq!(check(&history), Ok(()), "{history:?}");
    }
}

#[test]
fn registers_reject_each_anomaly() {
    use Did::{Differed, Read, Swap, Write};
    let bad = [
        ("stale read", vec![event(Write(1), 1, 2), event(Write(2), 3, 4), event(Read(1), 5, 6)]),
        ("lost write", vec![event(Write(1), 1, 2), event(Read(0), 3, 4)]),
        ("invented", vec![event(Read(7), 1, 2)]),
        ("from the future", vec![event(Read(1), 1, 2), event(Write(1), 3, 4)]),
        ("lost update", vec![event(Swap(0, 1), 1, 9), event(Swap(0, 2), 2, 8)]),
        (
            "split brain",
            vec![
                event(Write(1), 1, 2),
                event(Read(1), 7, 8),
                event(Write(2), 3, 4),
                event(Read(2), 5, 6),
            ],
        ),
        (
            "back and forth",
            vec![
                event(Write(1), 1, 20),
                event(Write(2), 1, 20),
                event(Read(1), 2, 3),
                event(Read(2), 4, 5),
                event(Read(1), 6, 7),
            ],
        ),
        (
            "wrong refusal",
            vec![event(Write(1), 1, 2), event(Differed(1), 3, 4), event(Read(1), 5, 6)],
        ),
    ];
    for (name, history) in bad {
        assert!(check(&history).is_err(), "{name}");
    }
}
