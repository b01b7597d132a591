//! Who is told of changes: watches, notifications, invalidations, fed from the history of the store.
//!
//! Every node applies the log, so each tells its own clients, whoever wrote. Called by `node.rs` at
//! the end of a turn, behind the last reply that was made, so that nobody is told of a change
//! before what it was read to be. Changes nothing of the state.

use super::Effect;
use super::monitors::Monitors;
use super::node::Node;
use super::subscribers::Subscribers;
use super::tracking::Trackers;
use super::watches::Watches;
use crate::kv::command::ConnectionCommand;
use crate::kv::history::Position;
use crate::kv::watches;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::types::{ClientId, Instant, Revision};

/// Everyone who is told, and how far that has come.
#[derive(Default, Debug)]
pub struct Listeners {
    /// Watches of prefixes.
    pub watches: Watches,
    /// Subscriptions to channels.
    pub subscribers: Subscribers,
    /// What clients keep that they have read.
    pub trackers: Trackers,
    /// Clients that are shown all commands.
    pub monitors: Monitors,
    /// What is in front of this was told.
    position: Position,
    /// It was told up to this revision.
    fed: Revision,
}

impl Listeners {
    /// A client is gone.
    pub fn leave(&mut self, client: ClientId) {
        self.watches.end_all(client);
        self.subscribers.end_all(client);
        self.trackers.end(client);
        self.monitors.end(client);
    }

    /// Whether nobody is told of anything.
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty() && self.subscribers.is_empty() && self.trackers.is_empty()
    }
}

impl Node {
    /// Tells everyone what has changed since it was last called.
    pub(super) fn feed_listeners(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.snapshots.is_loading() {
            // What the state machine holds meanwhile is no state.
            return;
        }
        let store = self.machine.store();
        let (history, revision) = (store.history(), store.revision());
        let clients = &mut self.clients;
        if !clients.listeners.is_empty() {
            let mut listeners = std::mem::take(&mut clients.listeners);
            let Listeners { watches, subscribers, trackers, position, fed, .. } = &mut listeners;
            let flags = self.config.client.notify_keyspace_events;
            if !subscribers.is_empty() {
                subscribers.feed(history, *position, flags, clients, effects);
            }
            if !trackers.is_empty() {
                trackers.feed(history, *position, clients, effects);
            }
            watches.feed(history, *position, *fed, revision, clients, effects);
            watches.mark(now, revision, clients, effects);
            clients.listeners = listeners;
        }
        clients.listeners.position = history.end();
        clients.listeners.fed = revision;
    }

    /// When there is something to be told without anything happening before. Nothing, while a
    /// snapshot is loaded: a time that is over would only wake us again and again.
    pub(super) fn listeners_deadline(&self) -> Instant {
        match self.snapshots.is_loading() {
            true => Instant::NEVER,
            false => self.clients.listeners.watches.deadline(),
        }
    }

    /// The same between two entries, where so much has changed that its beginning could be gone
    /// before the turn ends.
    pub(super) fn feed_listeners_early(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let history = self.machine.store().history();
        let behind = history.bytes_behind(self.clients.listeners.position);
        if behind > limits::HISTORY_BYTES / 16 {
            self.feed_listeners(now, effects);
        }
    }

    /// The state machine is another one, made from a snapshot.
    pub(super) fn listeners_begin_anew(&mut self, effects: &mut Vec<Effect>) {
        let store = self.machine.store();
        let mut listeners = std::mem::take(&mut self.clients.listeners);
        listeners.watches.begin_anew(listeners.fed);
        listeners.trackers.invalidate_all(&mut self.clients, effects);
        listeners.position = store.history().end();
        listeners.fed = store.revision();
        self.clients.listeners = listeners;
    }

    /// Carries out KWATCH and KUNWATCH.
    pub(super) fn watch_command(
        &mut self,
        now: Instant,
        id: ClientId,
        command: ConnectionCommand,
        args: Args<'_>,
    ) -> Reply {
        let watches = &mut self.clients.listeners.watches;
        match command {
            ConnectionCommand::KUnwatch if args.len() == 1 => Reply::count(watches.end_all(id)),
            ConnectionCommand::KUnwatch => {
                Reply::count(args.iter().skip(1).filter(|prefix| watches.end(id, prefix)).count())
            }
            ConnectionCommand::KWatch => self.begin_watch(now, id, args),
            _ => unreachable!("connection_command sends only these here"),
        }
    }

    /// KWATCH: answers the revision behind which the changes follow.
    fn begin_watch(&mut self, now: Instant, id: ClientId, args: Args<'_>) -> Reply {
        if let Some(why) = self.outsider() {
            return why;
        }
        let watch = match watches::parse(args) {
            Ok(watch) => watch,
            Err(error) => return error.reply(),
        };
        let store = self.machine.store();
        let after = watch.from.unwrap_or(store.revision());
        let floor = store.history().floor();
        if after < floor {
            let text = format!(
                "COMPACTED {floor} changes up to this revision are gone: read the keys, and watch \
                 from the revision of what was read"
            );
            return Reply::Error(text.into());
        }
        match self.clients.listeners.watches.begin(now, id, watch.prefix, after) {
            true => Reply::Integer(after.signed()),
            false => Reply::Error("ERR too many watches on this node".into()),
        }
    }
}
