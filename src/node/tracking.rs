//! CLIENT TRACKING: clients that keep what they have read are told when it changes.
//!
//! Redis's client-side caching, in its default and its broadcasting mode. A node remembers what its
//! own clients have read at the moment a read is evaluated; invalidations come from the changes that
//! it applies, behind the reply to the read. So nothing that was read is missed, on whichever node.
//! A state that came in a snapshot invalidates everything. Called by `listeners.rs`, and where a
//! read is evaluated.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::Effect;
use super::clients::{Client, Clients, Origin};
use super::node::Node;
use crate::kv::command::{Command, ConnectionCommand};
use crate::kv::error::CommandError;
use crate::kv::history::{ChangeKind, History, Position};
use crate::kv::tracking::{self, Mode, Tracking};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::{Protocol, Reply, push_bulk, push_count, push_nil, push_number};
use crate::types::{ClientId, Revision};

type Key = Box<[u8]>;

/// The channel that a redirected invalidation comes over.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// What all tracking clients of a node have read, or want told without having read it.
#[derive(Default, Debug)]
pub struct Trackers {
    of_clients: BTreeMap<ClientId, Tracker>,
    /// Who has read a key since that was last invalidated.
    readers: BTreeMap<Key, BTreeSet<ClientId>>,
    bytes: usize,
    /// Which client made the changes behind one revision up to another, in this turn; only kept
    /// where somebody wants to hear nothing of its own.
    authors: Vec<(Revision, Revision, ClientId)>,
    loopless: usize,
    /// They have read something for which the table had no room.
    flooded: BTreeSet<ClientId>,
    /// Those in broadcasting mode.
    broadcasters: BTreeSet<ClientId>,
}

#[derive(Debug)]
struct Tracker {
    switch: Tracking,
    /// Who is told, and by which number it was named; `None`: it is told itself.
    redirect: Option<(u64, ClientId)>,
    /// CLIENT CACHING has said something of the next command.
    is_pending: bool,
    /// The commands that it was said of, by their places among the connection's, oldest first.
    marked: VecDeque<u64>,
}

/// What was invalidated for whom, in this turn.
#[derive(Default)]
struct Told<'a> {
    keys: BTreeMap<ClientId, BTreeSet<&'a [u8]>>,
    /// They are to forget everything.
    all: BTreeSet<ClientId>,
}

fn reader_bytes(key: &[u8]) -> usize {
    limits::WATCH_BYTES + key.len()
}

impl Trackers {
    /// Whether nobody tracks.
    pub fn is_empty(&self) -> bool {
        self.of_clients.is_empty()
    }

    /// Whether this client tracks.
    pub fn has(&self, client: ClientId) -> bool {
        self.of_clients.contains_key(&client)
    }

    /// Whether it is told of every change.
    pub fn broadcasts(&self, client: ClientId) -> bool {
        self.broadcasters.contains(&client)
    }

    /// CLIENT GETREDIR: the number of the client that is told in its place, 0 where it is told
    /// itself, -1 where it doesn't track.
    pub fn redirection(&self, client: ClientId) -> i64 {
        self.of_clients.get(&client).map_or(-1, |tracker| {
            tracker.redirect.map_or(0, |(named, _)| i64::try_from(named).unwrap_or(i64::MAX))
        })
    }

    /// What the table of readers counts, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A client is gone, or tracks no more. What it has read stays in the table until it changes.
    pub fn end(&mut self, client: ClientId) {
        if let Some(tracker) = self.of_clients.remove(&client) {
            self.loopless -= usize::from(tracker.switch.noloop);
            self.broadcasters.remove(&client);
        }
    }

    /// A client's command came: what CLIENT CACHING has said before it is said of this one.
    pub fn note_command(&mut self, origin: Origin) {
        if let Some(tracker) = self.of_clients.get_mut(&origin.client)
            && std::mem::take(&mut tracker.is_pending)
        {
            tracker.marked.push_back(origin.number());
        }
    }

    /// A client's read was evaluated: an EXEC or a TXN with reads in it is one.
    pub fn note_read(&mut self, origin: Origin, command: &Command, args: Args<'_>) {
        let Some(tracker) = self.of_clients.get_mut(&origin.client) else {
            return;
        };
        // Commands of a connection are evaluated in order, so what is in front of this one is over.
        while tracker.marked.front().is_some_and(|number| *number < origin.number()) {
            tracker.marked.pop_front();
        }
        let is_marked = tracker.marked.front() == Some(&origin.number());
        let wants = match tracker.switch.mode {
            Mode::All => true,
            Mode::OptIn => is_marked,
            Mode::OptOut => !is_marked,
            Mode::Broadcast => false,
        };
        if wants {
            tracking::read_keys(command, args, &mut |key| self.note_key(origin.client, key));
        }
    }

    fn note_key(&mut self, client: ClientId, key: &[u8]) {
        if self.bytes >= limits::TRACKED_BYTES {
            self.flooded.insert(client);
            return;
        }
        if self.readers.entry(key.into()).or_default().insert(client) {
            self.bytes += reader_bytes(key);
        }
    }

    /// A client's own commands made the changes behind `from` up to `to`.
    pub fn note_author(&mut self, from: Revision, to: Revision, client: ClientId) {
        if self.loopless > 0 && from < to {
            self.authors.push((from, to, client));
        }
    }

    /// Tells what was read, or is broadcast, and has changed behind `from`.
    pub fn feed(
        &mut self,
        history: &History,
        from: Position,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let authors = std::mem::take(&mut self.authors);
        if !history.has(from) {
            // So much has changed in one turn that nobody can say what.
            self.invalidate_all(clients, effects);
            return;
        }
        let mut told = Told::default();
        let mut position = from;
        while let Some(change) = history.next(&mut position) {
            match change.kind {
                ChangeKind::Message => {}
                ChangeKind::Cleared => {
                    told = Told {
                        keys: BTreeMap::new(),
                        all: self.of_clients.keys().copied().collect(),
                    };
                    self.readers.clear();
                    self.bytes = 0;
                }
                _ => {
                    let by = authors
                        .iter()
                        .find(|(from, to, _)| *from < change.revision && change.revision <= *to);
                    self.note_change(change.key, by.map(|(.., client)| *client), &mut told);
                }
            }
        }
        let evicted = self.evict();
        for (key, readers) in &evicted {
            for client in readers {
                told.keys.entry(*client).or_default().insert(key);
            }
        }
        told.all.append(&mut self.flooded);
        for client in told.all {
            self.tell(client, None, clients, effects);
        }
        for (client, keys) in told.keys {
            self.tell(client, Some(&keys), clients, effects);
        }
    }

    fn note_change<'a>(&mut self, key: &'a [u8], by: Option<ClientId>, told: &mut Told<'a>) {
        if let Some(readers) = self.readers.remove(key) {
            self.bytes -= readers.len() * reader_bytes(key);
            for client in readers {
                let is_own = by == Some(client) && self.is_loopless(client);
                if !is_own {
                    told.keys.entry(client).or_default().insert(key);
                }
            }
        }
        for client in &self.broadcasters {
            let Some(tracker) = self.of_clients.get(client) else { continue };
            let prefixes = &tracker.switch.prefixes;
            let concerns = prefixes.iter().any(|prefix| key.starts_with(prefix));
            let is_own = by == Some(*client) && tracker.switch.noloop;
            if concerns && !is_own {
                told.keys.entry(*client).or_default().insert(key);
            }
        }
    }

    fn is_loopless(&self, client: ClientId) -> bool {
        self.of_clients.get(&client).is_some_and(|tracker| tracker.switch.noloop)
    }

    /// Takes keys out of a table that is too large; their readers are told, as if they had changed.
    fn evict(&mut self) -> Vec<(Key, BTreeSet<ClientId>)> {
        let mut evicted = Vec::new();
        if self.bytes < limits::TRACKED_BYTES {
            return evicted;
        }
        while self.bytes > limits::TRACKED_BYTES - limits::TRACKED_FORGOTTEN_BYTES
            && let Some((key, readers)) = self.readers.pop_first()
        {
            self.bytes -= readers.len() * reader_bytes(&key);
            evicted.push((key, readers));
        }
        evicted
    }

    /// Everybody is to forget everything: the state is another one.
    pub fn invalidate_all(&mut self, clients: &mut Clients, effects: &mut Vec<Effect>) {
        self.readers.clear();
        self.bytes = 0;
        let all: Vec<ClientId> = self.of_clients.keys().copied().collect();
        for client in all {
            self.tell(client, None, clients, effects);
        }
    }

    /// Tells a client, or whom it has named, that these keys have changed; `None`: any.
    fn tell(
        &self,
        client: ClientId,
        keys: Option<&BTreeSet<&[u8]>>,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let Some(tracker) = self.of_clients.get(&client) else {
            return;
        };
        let Some((named, target)) = tracker.redirect else {
            if clients.protocol(client) == Some(Protocol::Resp3) {
                clients.push_or_cut(client, invalidation(Protocol::Resp3, keys), effects);
            }
            return;
        };
        match clients.protocol(target) {
            Some(protocol) => clients.push_or_cut(target, invalidation(protocol, keys), effects),
            None if clients.protocol(client) == Some(Protocol::Resp3) => {
                let mut out = Vec::new();
                push_count(&mut out, b'>', 2);
                push_bulk(&mut out, b"tracking-redir-broken");
                push_number(&mut out, i64::try_from(named).unwrap_or(i64::MAX));
                clients.push_or_cut(client, Bytes::from(out), effects);
            }
            None => {}
        }
    }

    fn begin(&mut self, client: ClientId, switch: Tracking, redirect: Option<(u64, ClientId)>) {
        self.end(client);
        self.loopless += usize::from(switch.noloop);
        if switch.mode == Mode::Broadcast {
            self.broadcasters.insert(client);
        }
        let (is_pending, marked) = (false, VecDeque::new());
        self.of_clients.insert(client, Tracker { switch, redirect, is_pending, marked });
    }
}

impl Clients {
    /// Whether a client tracks for another one that is gone.
    pub fn is_redirect_broken(&self, client: ClientId) -> bool {
        let tracker = self.listeners.trackers.of_clients.get(&client);
        let target = tracker.and_then(|tracker| tracker.redirect).map(|(_, target)| target);
        target.is_some_and(|target| self.get(target).is_none())
    }

    /// `CLIENT TRACKINGINFO`
    pub fn tracking_info(&self, client: ClientId) -> Reply {
        let trackers = &self.listeners.trackers;
        let mut flags = vec![Reply::Word("off")];
        let mut prefixes = Vec::new();
        if let Some(tracker) = trackers.of_clients.get(&client) {
            let mode = tracker.switch.mode;
            // Said of the command that asks, or of the next one.
            let newest = self.get(client).and_then(Client::newest_slot);
            let is_said =
                tracker.is_pending || newest.is_some() && tracker.marked.back().copied() == newest;
            let words = [
                ("on", true),
                ("bcast", mode == Mode::Broadcast),
                ("optin", mode == Mode::OptIn),
                ("caching-yes", mode == Mode::OptIn && is_said),
                ("optout", mode == Mode::OptOut),
                ("caching-no", mode == Mode::OptOut && is_said),
                ("noloop", tracker.switch.noloop),
                ("broken_redirect", self.is_redirect_broken(client)),
            ];
            let told = words.into_iter().filter(|(_, is_so)| *is_so);
            flags = told.map(|(word, _)| Reply::Word(word)).collect();
            prefixes = tracker.switch.prefixes.iter().map(|prefix| Reply::bulk(prefix)).collect();
        }
        Reply::Map(vec![
            (Reply::Word("flags"), Reply::Set(flags)),
            (Reply::Word("redirect"), Reply::Integer(trackers.redirection(client))),
            (Reply::Word("prefixes"), Reply::Array(prefixes)),
        ])
    }
}

/// In RESP2 it is a message on a channel of its own, as Redis sends it to whom was named.
fn invalidation(protocol: Protocol, keys: Option<&BTreeSet<&[u8]>>) -> Bytes {
    let mut out = Vec::new();
    match protocol {
        Protocol::Resp3 => {
            push_count(&mut out, b'>', 2);
            push_bulk(&mut out, b"invalidate");
        }
        Protocol::Resp2 => {
            push_count(&mut out, b'*', 3);
            push_bulk(&mut out, b"message");
            push_bulk(&mut out, CHANNEL);
        }
    }
    match keys {
        None => push_nil(&mut out, protocol, b"*-1\r\n"),
        Some(keys) => {
            push_count(&mut out, b'*', keys.len());
            keys.iter().for_each(|key| push_bulk(&mut out, key));
        }
    }
    Bytes::from(out)
}

impl Node {
    /// Carries out CLIENT TRACKING and CLIENT CACHING.
    pub(super) fn tracking_command(
        &mut self,
        id: ClientId,
        command: ConnectionCommand,
        args: Args<'_>,
    ) -> Reply {
        let done = match command {
            ConnectionCommand::ClientTracking => self.track(id, args),
            ConnectionCommand::ClientCaching => self.note_caching(id, args),
            _ => unreachable!("connection_command sends only these here"),
        };
        done.map_or_else(|error| error.reply(), |()| Reply::OK)
    }

    fn track(&mut self, id: ClientId, args: Args<'_>) -> Result<(), CommandError> {
        let Some(mut switch) = tracking::parse(args)? else {
            self.clients.listeners.trackers.end(id);
            return Ok(());
        };
        let redirect = match switch.redirect {
            None => None,
            Some(named) => {
                let target = self.clients.find_by_number(named);
                Some((named, target.ok_or(CommandError::NoRedirectTarget)?))
            }
        };
        let trackers = &mut self.clients.listeners.trackers;
        if let Some(tracker) = trackers.of_clients.get(&id) {
            let before = tracker.switch.mode;
            if (before == Mode::Broadcast) != (switch.mode == Mode::Broadcast) {
                return Err(CommandError::SwitchesBroadcast);
            }
            let is_opt = |mode| matches!(mode, Mode::OptIn | Mode::OptOut);
            if (is_opt(before) || is_opt(switch.mode)) && before != switch.mode {
                return Err(CommandError::SwitchesOpt);
            }
        }
        if switch.mode == Mode::Broadcast {
            let before = trackers.of_clients.get(&id).map(|tracker| &tracker.switch.prefixes[..]);
            tracking::add_prefixes(&mut switch, before.unwrap_or_default())?;
        }
        trackers.begin(id, switch, redirect);
        Ok(())
    }

    fn note_caching(&mut self, id: ClientId, args: Args<'_>) -> Result<(), CommandError> {
        let tracker = self.clients.listeners.trackers.of_clients.get_mut(&id);
        let is_opt =
            |tracker: &&mut Tracker| matches!(tracker.switch.mode, Mode::OptIn | Mode::OptOut);
        let tracker = tracker.filter(is_opt).ok_or(CommandError::CachingWithoutOpt)?;
        match (tracker.switch.mode, tracking::caching(args)?) {
            (Mode::OptIn, true) | (Mode::OptOut, false) => tracker.is_pending = true,
            (Mode::OptIn, false) => return Err(CommandError::CachingNo),
            _ => return Err(CommandError::CachingYes),
        }
        Ok(())
    }
}
