//! Clients that are held: by WAIT, by SAVE, by CLIENT PAUSE, by DEBUG SLEEP.
//!
//! What a held client sends is *parked*, as behind a held read (`pipeline.rs`), and goes on when it
//! is let go. WAIT counts the other nodes that have the connection's last write on disk: exactly on
//! the leader, which knows how far each is. A follower knows that the entry is committed, and so
//! that a majority has it: it answers the number that is sure, and never one that is too high. It
//! learns no more by waiting, and so waits for nobody who would wait for ever.
//! Called by `pipeline.rs`, and at the end of a turn by `node.rs`.

use std::time::Duration;

use super::Effect;
use super::clients::Origin;
use super::node::Node;
use crate::kv::clients::Paused;
use crate::kv::server;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::types::{ClientId, Instant, LogIndex};

/// One WAIT, SAVE or DEBUG SLEEP that goes on.
#[derive(Clone, Copy, Debug)]
struct Held {
    origin: Origin,
    until: Instant,
    what: For,
}

/// What is waited for, the time that is the most for it apart.
#[derive(Clone, Copy, Debug)]
enum For {
    Replicas { wanted: usize, index: LogIndex },
    Snapshot { through: LogIndex },
    Time,
}

/// All that are held.
#[derive(Default, Debug)]
pub struct Holding {
    held: Vec<Held>,
    pause: Option<(Instant, Paused)>,
}

impl Holding {
    /// How many clients wait.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// By which command a client is held.
    pub fn command_of(&self, client: ClientId) -> &'static str {
        let held = self.held.iter().find(|held| held.origin.client == client);
        match held.map(|held| held.what) {
            Some(For::Snapshot { .. }) => "SAVE",
            Some(For::Time) => "DEBUG SLEEP",
            // Who has just been let go was answered, and parks nothing more.
            Some(For::Replicas { .. }) | None => "WAIT",
        }
    }

    /// When somebody is to be let go whatever comes.
    pub fn deadline(&self) -> Instant {
        let pause = self.pause.map_or(Instant::NEVER, |(until, _)| until);
        self.held.iter().map(|held| held.until).fold(pause, Instant::min)
    }

    /// Holds clients for so many milliseconds. A pause that is longer, or holds more, stays so.
    pub fn pause(&mut self, now: Instant, ms: u64, whom: Paused) {
        let until = now.after(Duration::from_millis(ms.min(limits::PAUSE_MS_MAX)));
        self.pause = Some(match self.pause {
            Some((before, of)) if before > now => (until.max(before), whom.max(of)),
            _ => (until, whom),
        });
    }

    /// Whether a run of commands, with a write or without, has to wait.
    pub fn is_paused(&self, now: Instant, has_write: bool) -> bool {
        match self.pause {
            Some((until, whom)) => now < until && (whom == Paused::All || has_write),
            None => false,
        }
    }
}

impl Node {
    /// Lets everybody go whom CLIENT PAUSE holds.
    pub(super) fn unpause(&mut self) {
        self.operations.holding.pause = None;
        self.clients.unpark_all();
    }

    /// `WAIT`: the pipeline has seen to it that nothing before it on its connection is unanswered.
    pub(super) fn take_wait(
        &mut self,
        now: Instant,
        origin: Origin,
        args: Args<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let Ok((wanted, timeout_ms)) = server::wait(args) else {
            unreachable!("the table's check has read it")
        };
        let index = self.last_write_of(origin.client);
        let count = self.replicas_with(index);
        let is_full = self.operations.holding.held.len() >= limits::WAITING_CLIENTS;
        let is_endless = timeout_ms == 0 && !self.raft.is_leader();
        if count >= wanted || is_full || is_endless {
            return self.clients.answer(origin, Reply::count(count), effects);
        }
        let until = match timeout_ms {
            0 => Instant::NEVER,
            ms => now.after(Duration::from_millis(ms)),
        };
        self.hold_client(Held { origin, until, what: For::Replicas { wanted, index } });
    }

    /// What WAIT answers in a transaction: the count as it is.
    pub(super) fn replicas_now(&mut self, client: ClientId) -> Reply {
        let index = self.last_write_of(client);
        Reply::count(self.replicas_with(index))
    }

    /// `DEBUG SLEEP`: this node's clients are held, all of them. Consensus goes on: a node that
    /// really slept would be one that is suspended, which is what SIGSTOP is there for.
    pub(super) fn take_sleep(&mut self, now: Instant, origin: Origin, ms: u64) {
        self.operations.holding.pause(now, ms, Paused::All);
        self.hold_client(Held {
            origin,
            until: now.after(Duration::from_millis(ms)),
            what: For::Time,
        });
    }

    /// `SAVE`: the connection waits until the snapshot is durable.
    pub(super) fn take_save(&mut self, origin: Origin, effects: &mut Vec<Effect>) {
        let refused = self.raft_snapshot();
        if refused != Reply::OK {
            return self.clients.answer(origin, refused, effects);
        }
        let through = self.machine.last_applied();
        let what = For::Snapshot { through };
        self.hold_client(Held { origin, until: Instant::NEVER, what });
    }

    fn hold_client(&mut self, held: Held) {
        if let Some(client) = self.clients.find(held.origin.client) {
            client.is_held = true;
            self.operations.holding.held.push(held);
        }
    }

    /// The end of a turn: who has waited long enough is answered and goes on.
    pub(super) fn release_held(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.operations.holding.pause.is_some_and(|(until, _)| until <= now) {
            self.unpause();
        }
        if self.operations.holding.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.operations.holding.held);
        for held in held {
            let is_due = held.until <= now;
            let reply = match held.what {
                For::Time => is_due.then_some(Reply::OK),
                For::Snapshot { through } => self.saved(through),
                For::Replicas { wanted, index } => {
                    let count = self.replicas_with(index);
                    let is_endless = held.until == Instant::NEVER && !self.raft.is_leader();
                    (is_due || is_endless || count >= wanted).then(|| Reply::count(count))
                }
            };
            match reply {
                Some(reply) => self.let_go(held.origin, reply, effects),
                None if self.clients.find(held.origin.client).is_some() => {
                    self.operations.holding.held.push(held);
                }
                None => {}
            }
        }
    }

    /// What SAVE answers, once its snapshot is durable or was given up.
    fn saved(&self, through: LogIndex) -> Option<Reply> {
        if self.is_snapshot_wanted() {
            return None;
        }
        let has = self.raft.snapshot().is_some_and(|(newest, _)| newest.index >= through);
        let given_up = "MISCONF the snapshot was given up: the disk is full";
        Some(if has { Reply::OK } else { Reply::Error(given_up.into()) })
    }

    /// `CLIENT UNBLOCK`: whether there was somebody with this number in WAIT.
    pub(super) fn unblock(
        &mut self,
        number: i64,
        is_error: bool,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let clients = &mut self.clients;
        let mut is_meant = |held: &Held| {
            let client = clients.find(held.origin.client);
            let is_waiting = matches!(held.what, For::Replicas { .. });
            is_waiting && client.is_some_and(|client| client.info.id as i64 == number)
        };
        let holding = &mut self.operations.holding;
        let Some(place) = holding.held.iter().position(&mut is_meant) else {
            return false;
        };
        let held = holding.held.swap_remove(place);
        let reply = match held.what {
            _ if is_error => Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into()),
            For::Replicas { index, .. } => Reply::count(self.replicas_with(index)),
            For::Time | For::Snapshot { .. } => unreachable!("only a WAIT is meant"),
        };
        self.let_go(held.origin, reply, effects);
        true
    }

    fn let_go(&mut self, origin: Origin, reply: Reply, effects: &mut Vec<Effect>) {
        self.clients.answer(origin, reply, effects);
        self.clients.released(origin.client);
    }

    fn last_write_of(&mut self, id: ClientId) -> LogIndex {
        self.clients.find(id).map_or(LogIndex::ZERO, |client| client.last_write)
    }

    /// How many nodes besides the leader surely have everything up to `index` on disk.
    fn replicas_with(&self, index: LogIndex) -> usize {
        if self.raft.is_leader() {
            let matches = self.raft.match_indexes();
            return matches.values().filter(|match_index| **match_index >= index).count();
        }
        // It is applied here, and so committed: a majority has it, this one of the voters or not.
        self.raft.membership().voters().count() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_stays_as_long_and_as_wide_as_it_was() {
        let now = Instant::ZERO;
        let later = |ms| now.after(Duration::from_millis(ms));
        let mut holding = Holding::default();
        assert_eq!(holding.deadline(), Instant::NEVER);
        holding.pause(now, 100, Paused::All);
        holding.pause(now, 50, Paused::Writes);
        assert!(holding.is_paused(later(99), false), "a shorter, narrower one changes nothing");
        assert!(!holding.is_paused(later(100), true));
        assert_eq!(holding.deadline(), later(100));
        holding.pause(later(100), 50, Paused::Writes);
        assert!(holding.is_paused(later(120), true) && !holding.is_paused(later(120), false));
    }
}
