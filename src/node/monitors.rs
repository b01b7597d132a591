//! MONITOR: the clients that are shown what all clients of this node send.
//!
//! As Redis shows it, with one difference that follows from the log: a command is shown when this
//! node takes it, before it is decided, so what a transaction has queued is shown at its EXEC even
//! where a WATCH will let it do nothing. Who reads too slowly is closed, as a subscriber is. Called
//! by `pipeline.rs` and `transactions.rs`; costs nothing while nobody monitors.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Effect;
use super::node::Node;
use super::server::SILENCE;
use crate::kv::command::{self, Command};
use crate::kv::error::CommandError;
use crate::kv::monitor;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::types::{ClientId, Instant};

/// Who monitors.
#[derive(Default, Debug)]
pub struct Monitors {
    clients: BTreeSet<ClientId>,
}

impl Monitors {
    /// Whether this client monitors.
    pub fn has(&self, client: ClientId) -> bool {
        self.clients.contains(&client)
    }

    /// A client is gone, or was reset.
    pub fn end(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// Whether nobody monitors.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

impl Node {
    /// MONITOR. Said a second time it has no answer, as in Redis.
    pub(super) fn begin_monitor(&mut self, id: ClientId) -> Reply {
        match self.clients.listeners.monitors.clients.insert(id) {
            true => Reply::OK,
            false => SILENCE,
        }
    }

    /// The same of a command that its own check refuses. One that is no command, or has too few
    /// words, is not shown, as in Redis.
    pub(super) fn show_wrong(
        &mut self,
        now: Instant,
        id: ClientId,
        error: &CommandError,
        args: Args<'_>,
        effects: &mut Vec<Effect>,
    ) {
        if self.clients.listeners.monitors.is_empty() || error.is_found_early() {
            return;
        }
        if let Ok(command) = command::named(args) {
            self.show_monitors(now, id, command, args, effects);
        }
    }

    /// Shows all monitors a command that this node has taken from a client.
    pub(super) fn show_monitors(
        &mut self,
        now: Instant,
        id: ClientId,
        command: &Command,
        args: Args<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let monitors = &self.clients.listeners.monitors;
        if monitors.is_empty() || !monitor::is_shown(command) || self.snapshots.is_loading() {
            return;
        }
        let Some(client) = self.clients.get(id) else {
            return;
        };
        let line = monitor::line(self.estimate(now), client.info.address, command, args);
        let line = Bytes::from(line);
        let all: Vec<ClientId> = monitors.clients.iter().copied().collect();
        for monitor in all {
            self.clients.push_or_cut(monitor, line.clone(), effects);
        }
    }
}
