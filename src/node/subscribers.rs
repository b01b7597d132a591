//! (P)SUBSCRIBE: which client listens to which channels, and what it is told.
//!
//! Redis's semantics. Messages come out of the log (PUBLISH), so that subscribers of every node get
//! them in one order; keyspace notifications are made by each node from the changes that it
//! applies. Who subscribed after a message gets none of it, and nothing is kept for who isn't
//! there: for that there is KWATCH. Called by `listeners.rs`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Effect;
use super::clients::Clients;
use super::node::Node;
use crate::config::NotifyFlags;
use crate::kv::command::ConnectionCommand;
use crate::kv::history::{ChangeKind, History, Position};
use crate::kv::server::ServerCommand;
use crate::kv::{glob, pubsub};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::{Protocol, Reply, push_bulk, push_count, push_nil, push_number};
use crate::types::ClientId;

type Name = Box<[u8]>;

/// Who listens to what.
#[derive(Default, Debug)]
pub struct Subscribers {
    channels: BTreeMap<Name, BTreeSet<ClientId>>,
    patterns: BTreeMap<Name, BTreeSet<ClientId>>,
    of_clients: BTreeMap<ClientId, Subscriptions>,
    bytes: usize,
}

/// What one client listens to.
#[derive(Default, Debug)]
struct Subscriptions {
    channels: BTreeSet<Name>,
    patterns: BTreeSet<Name>,
}

/// Channels, or patterns of channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Channel,
    Pattern,
}

impl Kind {
    fn begun(self) -> &'static [u8] {
        match self {
            Kind::Channel => b"subscribe",
            Kind::Pattern => b"psubscribe",
        }
    }

    fn ended(self) -> &'static [u8] {
        match self {
            Kind::Channel => b"unsubscribe",
            Kind::Pattern => b"punsubscribe",
        }
    }
}

fn name_bytes(name: &[u8]) -> usize {
    limits::WATCH_BYTES + name.len()
}

fn begin(out: &mut Vec<u8>, protocol: Protocol, count: usize) {
    let marker = if protocol == Protocol::Resp3 { b'>' } else { b'*' };
    push_count(out, marker, count);
}

/// A message to who listens to this channel, by its name or by a pattern.
fn message(protocol: Protocol, pattern: Option<&[u8]>, channel: &[u8], parts: &[&[u8]]) -> Bytes {
    let mut out = Vec::new();
    begin(&mut out, protocol, if pattern.is_some() { 4 } else { 3 });
    match pattern {
        None => push_bulk(&mut out, b"message"),
        Some(pattern) => {
            push_bulk(&mut out, b"pmessage");
            push_bulk(&mut out, pattern);
        }
    }
    push_bulk(&mut out, channel);
    push_bulk(&mut out, &parts.concat());
    Bytes::from(out)
}

impl Subscribers {
    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.of_clients.is_empty()
    }

    /// How many channels and patterns a client listens to.
    pub fn count(&self, client: ClientId) -> usize {
        let (channels, patterns) = self.counts(client);
        channels + patterns
    }

    /// How many channels, and how many patterns.
    pub fn counts(&self, client: ClientId) -> (usize, usize) {
        let subscriptions = self.of_clients.get(&client);
        subscriptions.map_or((0, 0), |one| (one.channels.len(), one.patterns.len()))
    }

    /// What all subscriptions count, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many times a message to this channel is told on this node.
    pub fn receivers(&self, channel: &[u8]) -> usize {
        let by_name = self.channels.get(channel).map_or(0, BTreeSet::len);
        let matching = self.patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel));
        by_name + matching.map(|(_, listeners)| listeners.len()).sum::<usize>()
    }

    /// A client is gone, or wants to hear nothing any more.
    pub fn end_all(&mut self, client: ClientId) {
        let Some(subscriptions) = self.of_clients.remove(&client) else {
            return;
        };
        for name in subscriptions.channels {
            self.leave(Kind::Channel, client, &name);
        }
        for name in subscriptions.patterns {
            self.leave(Kind::Pattern, client, &name);
        }
    }

    fn leave(&mut self, kind: Kind, client: ClientId, name: &[u8]) {
        let all = match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        };
        let listeners = all.get_mut(name).expect("each subscription is in both places");
        listeners.remove(&client);
        if listeners.is_empty() {
            all.remove(name);
        }
        self.bytes -= name_bytes(name);
    }

    /// False: at the bound, nothing was done.
    fn begin(&mut self, kind: Kind, client: ClientId, name: &[u8]) -> bool {
        if self.bytes + name_bytes(name) > limits::WATCHES_BYTES {
            return false;
        }
        let own = self.of_clients.entry(client).or_default();
        let (own, all) = match kind {
            Kind::Channel => (&mut own.channels, &mut self.channels),
            Kind::Pattern => (&mut own.patterns, &mut self.patterns),
        };
        if own.insert(name.into()) {
            all.entry(name.into()).or_default().insert(client);
            self.bytes += name_bytes(name);
        }
        true
    }

    fn end(&mut self, kind: Kind, client: ClientId, name: &[u8]) {
        let Some(subscriptions) = self.of_clients.get_mut(&client) else {
            return;
        };
        let own = match kind {
            Kind::Channel => &mut subscriptions.channels,
            Kind::Pattern => &mut subscriptions.patterns,
        };
        let was_there = own.remove(name);
        if subscriptions.channels.is_empty() && subscriptions.patterns.is_empty() {
            self.of_clients.remove(&client);
        }
        if was_there {
            self.leave(kind, client, name);
        }
    }

    fn names(&self, kind: Kind, client: ClientId) -> Vec<Name> {
        let subscriptions = self.of_clients.get(&client);
        let names = subscriptions.map(|one| match kind {
            Kind::Channel => &one.channels,
            Kind::Pattern => &one.patterns,
        });
        names.into_iter().flatten().cloned().collect()
    }

    /// Tells everyone who listens to this channel. The message comes in parts, so that it is only
    /// put together where somebody listens.
    pub fn tell(
        &self,
        channel: &[u8],
        parts: &[&[u8]],
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let by_name = self.channels.get(channel).map(|listeners| (None, listeners));
        let matching = self.patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel));
        let by_pattern = matching.map(|(pattern, listeners)| (Some(&**pattern), listeners));
        for (pattern, listeners) in by_name.into_iter().chain(by_pattern) {
            let mut made: [Option<Bytes>; 2] = [None, None];
            for client in listeners {
                let Some(protocol) = clients.protocol(*client) else { continue };
                let made = &mut made[protocol as usize];
                let bytes =
                    made.get_or_insert_with(|| message(protocol, pattern, channel, parts)).clone();
                clients.push_or_cut(*client, bytes, effects);
            }
        }
    }

    /// Tells what was published, and what has changed as far as `flags` want it told.
    pub fn feed(
        &self,
        history: &History,
        from: Position,
        flags: NotifyFlags,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let mut position = from;
        while let Some(change) = history.next(&mut position) {
            if change.kind == ChangeKind::Message {
                self.tell(change.key, &[change.value], clients, effects);
                continue;
            }
            for (event, class) in pubsub::events(&change) {
                if !flags.contains(class) {
                    continue;
                }
                if flags.contains(NotifyFlags::KEYSPACE) {
                    let channel = [b"__keyspace@0__:", change.key].concat();
                    self.tell(&channel, &[event.as_bytes()], clients, effects);
                }
                if flags.contains(NotifyFlags::KEYEVENT) {
                    let channel = [b"__keyevent@0__:", event.as_bytes()].concat();
                    self.tell(&channel, &[change.key], clients, effects);
                }
            }
        }
    }

    /// The names of channels that somebody listens to, those that match the pattern.
    fn active(&self, pattern: Option<&[u8]>) -> Reply {
        let wanted = |name: &&Name| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        Reply::Array(self.channels.keys().filter(wanted).map(|name| Reply::bulk(name)).collect())
    }
}

impl Node {
    /// Carries out SUBSCRIBE and its family, and PUBSUB.
    pub(super) fn subscription_command(
        &mut self,
        id: ClientId,
        command: ConnectionCommand,
        args: Args<'_>,
    ) -> Reply {
        use ConnectionCommand as C;
        let Some(protocol) = self.clients.protocol(id) else {
            return Reply::OK;
        };
        let subscribers = &mut self.clients.listeners.subscribers;
        match command {
            C::Subscribe => subscribe(subscribers, Kind::Channel, id, protocol, args),
            C::PSubscribe => subscribe(subscribers, Kind::Pattern, id, protocol, args),
            C::Unsubscribe => unsubscribe(subscribers, Kind::Channel, id, protocol, args),
            C::PUnsubscribe => unsubscribe(subscribers, Kind::Pattern, id, protocol, args),
            C::PubSubChannels => subscribers.active(args.get(2)),
            C::PubSubNumPat => Reply::count(subscribers.patterns.len()),
            C::PubSubNumSub => {
                let count = |channel| subscribers.channels.get(channel).map_or(0, BTreeSet::len);
                let pair = |channel| [Reply::bulk(channel), Reply::count(count(channel))];
                Reply::Array(args.iter().skip(2).flat_map(pair).collect())
            }
            _ => unreachable!("connection_command sends only these here"),
        }
    }

    /// Whether this client's connection takes only what concerns its subscriptions: in RESP2 a reply
    /// and a message look alike.
    pub(super) fn is_restricted(
        &mut self,
        id: ClientId,
        command: Option<ConnectionCommand>,
    ) -> bool {
        use ConnectionCommand as C;
        let is_allowed = matches!(
            command,
            Some(
                C::Subscribe
                    | C::PSubscribe
                    | C::Unsubscribe
                    | C::PUnsubscribe
                    | C::KWatch
                    | C::KUnwatch
                    | C::Ping
                    | C::Quit
                    | C::Server(ServerCommand::Reset)
            )
        );
        !is_allowed && self.listens_in_resp2(id)
    }

    /// Whether messages come to this client as arrays, which replies could be taken for.
    pub(super) fn listens_in_resp2(&mut self, id: ClientId) -> bool {
        let listeners = &self.clients.listeners;
        let listens = listeners.subscribers.count(id) + listeners.watches.of_client(id) > 0;
        listens && self.clients.protocol(id) == Some(Protocol::Resp2)
    }
}

/// What each name is answered with: all of it is one command's reply.
fn subscribe(
    subscribers: &mut Subscribers,
    kind: Kind,
    id: ClientId,
    protocol: Protocol,
    args: Args<'_>,
) -> Reply {
    let mut out = Vec::new();
    for name in args.iter().skip(1) {
        if !subscribers.begin(kind, id, name) {
            return Reply::Error("ERR too many subscriptions on this node".into());
        }
        confirm(&mut out, protocol, kind.begun(), Some(name), subscribers.count(id));
    }
    Reply::Encoded(Bytes::from(out))
}

fn unsubscribe(
    subscribers: &mut Subscribers,
    kind: Kind,
    id: ClientId,
    protocol: Protocol,
    args: Args<'_>,
) -> Reply {
    let names = match args.len() {
        1 => subscribers.names(kind, id),
        _ => args.iter().skip(1).map(Name::from).collect(),
    };
    let mut out = Vec::new();
    for name in &names {
        subscribers.end(kind, id, name);
        confirm(&mut out, protocol, kind.ended(), Some(name), subscribers.count(id));
    }
    if names.is_empty() {
        confirm(&mut out, protocol, kind.ended(), None, subscribers.count(id));
    }
    Reply::Encoded(Bytes::from(out))
}

fn confirm(out: &mut Vec<u8>, protocol: Protocol, word: &[u8], name: Option<&[u8]>, count: usize) {
    begin(out, protocol, 3);
    push_bulk(out, word);
    match name {
        Some(name) => push_bulk(out, name),
        None => push_nil(out, protocol, b"$-1\r\n"),
    }
    push_number(out, i64::try_from(count).expect("subscriptions are bounded"));
}
