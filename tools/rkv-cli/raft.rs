//! RAFT ADD and its like, followed to their end: what becomes of the member is shown until nothing
//! more is to come.
//!
//! The cluster carries a change on by itself; this only looks on, by RAFT NODES, and may be
//! interrupted at any time. Called for each command that the server has answered with OK.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use raftkv::client::Client;
use raftkv::proto::reply_decoder::Value;

/// How often the members are looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long nothing may change before this gives up looking on.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Goal {
    /// The member of this id votes.
    Votes(u64),
    /// It follows as a learner, and has caught up.
    Learns(u64),
    /// There is no such member.
    IsGone(u64),
}

/// What the command `args` leads to, if it is one that takes a while.
pub fn goal(args: &[Vec<u8>]) -> Option<Goal> {
    let word = |place: usize| args.get(place).map(|arg| arg.to_ascii_lowercase());
    let has = |option: &[u8]| args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(option));
    if word(0)? != b"raft" || has(b"dryrun") {
        return None;
    }
    let id = |place: usize| std::str::from_utf8(args.get(place)?).ok()?.parse().ok();
    match word(1)?.as_slice() {
        b"add" if has(b"learner") => Some(Goal::Learns(id(2)?)),
        b"add" | b"promote" => Some(Goal::Votes(id(2)?)),
        b"replace" => Some(Goal::Votes(id(3)?)),
        b"remove" => Some(Goal::IsGone(id(2)?)),
        _ => None,
    }
}

/// Shows on stderr how far `goal` is, whenever that changes. Returns whether it was reached.
pub fn follow(client: &mut Client, goal: &Goal) -> io::Result<bool> {
    let mut shown = String::new();
    let mut since = Instant::now();
    loop {
        // A node that can't be asked now is asked again.
        if let Ok(Value::Bulk(text) | Value::Text(text)) = client.command(&["RAFT", "NODES"]) {
            let (state, is_done) = state(&String::from_utf8_lossy(&text), goal);
            if state != shown {
                writeln!(io::stderr(), "{state}")?;
                shown = state;
                since = Instant::now();
            }
            if is_done {
                return Ok(true);
            }
        }
        if since.elapsed() > PATIENCE {
            let seconds = PATIENCE.as_secs();
            let advice = match goal {
                Goal::IsGone(_) => "RAFT NODES shows when it is over",
                _ => "is the server started, with --join? It goes on by itself once it is there",
            };
            writeln!(io::stderr(), "rkv-cli: nothing changed for {seconds} seconds: {advice}")?;
            return Ok(false);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// How far `goal` is by the lines of RAFT NODES, and whether it is reached.
fn state(nodes: &str, goal: &Goal) -> (String, bool) {
    let (Goal::Votes(id) | Goal::Learns(id) | Goal::IsGone(id)) = *goal;
    let own = format!("id={id}");
    let line = nodes.lines().find(|line| line.split_whitespace().next() == Some(own.as_str()));
    let Some(line) = line else {
        let is_gone = *goal == Goal::IsGone(id);
        return (format!("server {id}: not a member"), is_gone);
    };
    let field = |name: &str| {
        let fields = line.split_whitespace().filter_map(|field| field.split_once('='));
        fields.into_iter().find(|(key, _)| *key == name).map_or("-", |(_, value)| value)
    };
    let caught_up = field("caught_up");
    let (text, is_done) = match (field("vote"), field("met"), goal) {
        ("yes", _, Goal::Votes(_)) => ("voter".to_owned(), true),
        ("yes", _, _) => ("voter".to_owned(), false),
        ("joining", ..) => ("learner, becoming a voter".to_owned(), false),
        ("leaving", ..) => ("leaving".to_owned(), false),
        (_, "no", _) => ("learner, waiting for its first hello".to_owned(), false),
        // Only the leader knows how far the others are.
        _ if caught_up == "-" => ("learner".to_owned(), matches!(goal, Goal::Learns(_))),
        _ => {
            let is_done = matches!(goal, Goal::Learns(_)) && caught_up == "100%";
            (format!("learner, catching up {caught_up}"), is_done)
        }
    };
    (format!("server {id}: {text}"), is_done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn goal_is_what_takes_a_while() {
        assert_eq!(goal(&args("raft add 4 a:1 b:2")), Some(Goal::Votes(4)));
        assert_eq!(goal(&args("RAFT ADD 4 a:1 b:2 LEARNER")), Some(Goal::Learns(4)));
        assert_eq!(goal(&args("RAFT REPLACE 3 4 a:1 b:2")), Some(Goal::Votes(4)));
        assert_eq!(goal(&args("RAFT REMOVE 3")), Some(Goal::IsGone(3)));
        for line in ["RAFT ADD 4 DRYRUN", "RAFT NODES", "SET raft add", "RAFT TRANSFER 3"] {
            assert_eq!(goal(&args(line)), None, "{line}");
        }
    }

    #[test]
    fn state_tells_each_step() {
        let nodes = |fields: &str| format!("id=1 role=leader vote=yes\r\nid=4 {fields}\r\n");
        let steps = [
            ("role=learner vote=no met=no caught_up=-", "waiting for its first hello", false),
            ("role=learner vote=no met=yes caught_up=37%", "catching up 37%", false),
            ("role=follower vote=joining met=yes caught_up=100%", "becoming a voter", false),
            ("role=follower vote=yes met=yes caught_up=100%", "voter", true),
        ];
        for (fields, expected, is_over) in steps {
            let (text, is_done) = state(&nodes(fields), &Goal::Votes(4));
            assert!(text.ends_with(expected) && is_done == is_over, "{text}");
        }
        assert_eq!(
            state("id=1 vote=yes\r\n", &Goal::IsGone(4)),
            ("server 4: not a member".to_owned(), true)
        );
    }
}
