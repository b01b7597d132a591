//! Versions of the command set: the leader raises the one in force once every member knows a later
//! one, and nobody sends a command before it may.
//!
//! Design 3-storage §5. Each server says in its hello which version it knows. So a cluster is
//! upgraded node by node, and a node never meets a command that it cannot carry out; one that was
//! left behind, or was taken back to an older build, is refused, and stops where the log has what it
//! doesn't know. Called by `node.rs` at the end of a turn, by `handshake` and `pipeline`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Effect;
use super::node::Node;
use crate::kv::command::Command;
use crate::kv::command_set::{self, Build, THIS};
use crate::kv::error::CommandError;
use crate::proto::args::Args;
use crate::proto::entry::{Entry, EntryKind};
use crate::proto::hello::{Hello, HelloRefused, Refusal};
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{CommandSet, Incarnation, Instant, LogIndex, ServerId, Term};

/// What a node knows of versions.
#[derive(Debug)]
pub(super) struct Versions {
    /// What this build knows.
    build: Build,
    /// The newest that other servers know, each on its data directory, by its last hello.
    announced: BTreeMap<ServerId, (Incarnation, CommandSet)>,
    /// The entry that this node, as the leader of that term, has raised the version with.
    raised: Option<(Term, LogIndex)>,
    /// What the log, or a snapshot, has put in force and this build doesn't know.
    beyond: Option<CommandSet>,
}

impl Default for Versions {
    fn default() -> Versions {
        Versions { build: THIS, announced: BTreeMap::new(), raised: None, beyond: None }
    }
}

impl Node {
    /// The same node as of another build; for simulations of an upgrade.
    #[must_use]
    pub fn of_build(mut self, build: Build) -> Node {
        self.versions.build = build;
        self
    }

    /// The newest version that this build knows.
    pub(super) fn known_command_set(&self) -> CommandSet {
        self.versions.build.known
    }

    /// Whether a peer knows what is in force; else why it is refused.
    pub(super) fn check_version(&self, hello: &Hello) -> Result<(), HelloRefused> {
        let in_force = self.machine.command_set();
        if hello.command_set >= in_force {
            return Ok(());
        }
        let text = format!(
            "server {} knows the command set up to version {}, and {in_force} is in force: start a \
             newer build of raftkvd there",
            hello.sender, hello.command_set
        );
        Err(HelloRefused { code: Refusal::CommandSet, text })
    }

    /// A peer has said hello: what it knows.
    pub(super) fn note_version(&mut self, hello: &Hello) {
        let known_peers = &self.known_peers;
        self.versions.announced.retain(|peer, _| known_peers.contains_key(peer));
        let announced = (hello.sender_incarnation, hello.command_set);
        self.versions.announced.insert(hello.sender, announced);
    }

    /// The members that this node has not heard to know the newest version that it knows itself.
    pub(super) fn awaited_for_upgrade(&self) -> Vec<ServerId> {
        let members = self.raft.membership().members().iter();
        let behind = members.filter(|member| {
            let announced = match member.id == self.identity.server {
                true => Some((self.identity.incarnation, self.versions.build.known)),
                false => self.versions.announced.get(&member.id).copied(),
            };
            !announced.is_some_and(|(incarnation, known)| {
                incarnation == member.incarnation && known >= self.versions.build.known
            })
        });
        behind.map(|member| member.id).collect()
    }

    /// The same for INFO: their ids.
    pub(super) fn upgrade_line(&self) -> String {
        let ids: Vec<String> = self.awaited_for_upgrade().iter().map(ServerId::to_string).collect();
        if ids.is_empty() { "-".to_owned() } else { ids.join(",") }
    }

    /// The leader raises the version in force, once every member knows the leader's own. A member
    /// that is added meanwhile and doesn't is refused like every server that was left behind.
    pub(super) fn raise_command_set(&mut self, now: Instant) {
        let known = self.versions.build.known;
        if self.machine.command_set() >= known || !self.raft.is_ready() {
            return;
        }
        let term = self.raft.current_term();
        let is_under_way = self.versions.raised.is_some_and(|(raised_in, index)| {
            raised_in == term && self.machine.last_applied() < index
        });
        let awaits = !self.awaited_for_upgrade().is_empty();
        if is_under_way || (awaits && !is_on(Mutation::RaisesCommandSetAlone)) {
            return;
        }
        let payload = Bytes::copy_from_slice(&command_set::encode(known));
        if let Some(index) = self.raft.propose(now, EntryKind::CommandSet, payload) {
            self.versions.raised = Some((term, index));
        }
    }

    /// An entry raises the version in force.
    pub(super) fn apply_command_set(&mut self, entry: &Entry) {
        let Some(set) = command_set::decode(&entry.payload) else {
            // No leader of this version appends what it can't read; it has no effect on any node.
            return;
        };
        let is_news = set > self.machine.command_set();
        self.machine.raise(set);
        self.note_in_force(set);
        if is_news && set <= self.versions.build.known {
            reached(Mark::CommandSetRaised);
            self.notice(format!("version {set} of the command set is in force: all nodes know it"));
        }
    }

    /// The log or a snapshot has this version in force.
    pub(super) fn note_in_force(&mut self, set: CommandSet) {
        if set > self.versions.build.known {
            self.versions.beyond = Some(set);
        }
    }

    /// Whether the log holds, or may hold, what this build doesn't know: nothing more is applied,
    /// and the process ends.
    pub(super) fn is_outdated(&self) -> bool {
        self.versions.beyond.is_some()
    }

    /// Ends the process, where this build is too old for the log.
    pub(super) fn stop_if_outdated(&self, effects: &mut Vec<Effect>) {
        if let Some(in_force) = self.versions.beyond {
            effects.push(Effect::Outdated { in_force, known: self.versions.build.known });
        }
    }

    /// Why a command cannot be taken before all nodes know it.
    pub(super) fn not_yet(&self, command: &Command, args: Args<'_>) -> Option<CommandError> {
        let in_force = self.machine.command_set();
        if in_force >= self.versions.build.newest() || is_on(Mutation::TakesCommandsEarly) {
            return None;
        }
        let needed = self.versions.build.needed(command, args);
        if needed <= in_force {
            return None;
        }
        reached(Mark::CommandNotYet);
        Some(CommandError::NotYet { name: command.name, needed, in_force })
    }
}
