//! Watches: every change of a prefix's keys, in order, told to whoever watches it.
//!
//! Ours; etcd's watches are the model. A watcher that takes what it is told is *live*: a turn's
//! changes are encoded once for all live watchers of a prefix. One that doesn't is *lagging*: it is
//! told slices of the history as its socket takes them, and ends with COMPACTED where the history
//! no longer reaches back to it. So a slow watcher holds a bounded amount of memory and nobody up.
//! Called at the end of a turn by `listeners.rs`; never looks at the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::Effect;
use super::clients::Clients;
use crate::kv::history::{Change, ChangeKind, History, Position};
use crate::kv::watches::{as_arrays, push_change, push_compacted, push_progress};
use crate::limits;
use crate::proto::reply::Protocol;
use crate::testing::{Mutation, is_on};
use crate::types::{ClientId, Instant, Revision};

type Prefix = Box<[u8]>;

/// The watchers of one prefix.
#[derive(Default, Debug)]
struct Group {
    members: BTreeMap<ClientId, Pace>,
    /// Whether anything was told since the last marks.
    was_told: bool,
}

/// How far a watcher is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    /// It was told all that the node has told anyone.
    Live,
    Lagging {
        /// It was told, or doesn't want, what happened up to this.
        after: Revision,
        /// The place behind that in the history, if that was looked up already.
        position: Option<Position>,
        /// It stands in the queue; else it waits for its socket.
        is_queued: bool,
    },
}

/// All watches of this node's clients.
#[derive(Default, Debug)]
pub struct Watches {
    groups: BTreeMap<Prefix, Group>,
    /// How many prefixes of each length there are: a key is looked up once for each length.
    lengths: BTreeMap<usize, usize>,
    of_clients: BTreeMap<ClientId, BTreeSet<Prefix>>,
    /// Lagging watchers that can be told more, the longest waiting first.
    queue: VecDeque<(ClientId, Prefix)>,
    /// Whether the next turn has more to tell without anything happening.
    has_more: bool,
    bytes: usize,
    /// When idle watchers are told how far they are.
    marks_at: Option<Instant>,
}

/// Messages of one prefix, one behind the other.
#[derive(Default, Debug)]
struct Told {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Told {
    fn add(&mut self, prefix: &[u8], change: &Change<'_>) {
        self.starts.push(self.bytes.len());
        push_change(&mut self.bytes, prefix, change);
    }

    fn in_protocol(&self, protocol: Protocol) -> Bytes {
        let mut bytes = self.bytes.clone();
        if protocol == Protocol::Resp2 {
            as_arrays(&mut bytes, &self.starts);
        }
        Bytes::from(bytes)
    }
}

/// What both protocols' clients are told, each made once and when it is first needed.
#[derive(Default)]
struct Shared {
    resp2: Option<Bytes>,
    resp3: Option<Bytes>,
}

impl Shared {
    fn of(&mut self, told: &Told, protocol: Protocol) -> Bytes {
        let slot = match protocol {
            Protocol::Resp2 => &mut self.resp2,
            Protocol::Resp3 => &mut self.resp3,
        };
        slot.get_or_insert_with(|| told.in_protocol(protocol)).clone()
    }
}

/// What a prefix counts towards the bound on watches.
fn watch_bytes(prefix: &[u8]) -> usize {
    limits::WATCH_BYTES + prefix.len()
}

impl Watches {
    /// Whether nobody watches.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many watches a client has.
    pub fn of_client(&self, client: ClientId) -> usize {
        self.of_clients.get(&client).map_or(0, BTreeSet::len)
    }

    /// What all of them count, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins a watch behind `after`, or begins the client's watch of that prefix anew. `false`, and
    /// nothing done, at the bound.
    pub fn begin(
        &mut self,
        now: Instant,
        client: ClientId,
        prefix: &[u8],
        after: Revision,
    ) -> bool {
        if self.bytes + watch_bytes(prefix) > limits::WATCHES_BYTES {
            return false;
        }
        self.end(client, prefix);
        let group = self.groups.entry(prefix.into()).or_default();
        if group.members.is_empty() {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
        let after = match is_on(Mutation::WatchResumesTooFar) {
            true => after.next(),
            false => after,
        };
        // It becomes a live one at the end of the turn, if it has nothing to catch up on.
        group.members.insert(client, Pace::Lagging { after, position: None, is_queued: true });
        self.queue.push_back((client, prefix.into()));
        self.of_clients.entry(client).or_default().insert(prefix.into());
        self.bytes += watch_bytes(prefix);
        self.marks_at.get_or_insert(now.after(limits::WATCH_MARK_INTERVAL));
        true
    }

    /// Ends a watch. `false`: there was none.
    pub fn end(&mut self, client: ClientId, prefix: &[u8]) -> bool {
        let Some(prefixes) = self.of_clients.get_mut(&client) else {
            return false;
        };
        if !prefixes.remove(prefix) {
            return false;
        }
        if prefixes.is_empty() {
            self.of_clients.remove(&client);
        }
        let group = self.groups.get_mut(prefix).expect("each watch is in its prefix's group");
        group.members.remove(&client);
        if group.members.is_empty() {
            self.groups.remove(prefix);
            let count = self.lengths.get_mut(&prefix.len()).expect("each group was counted");
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
        self.queue.retain(|(other, watched)| *other != client || **watched != *prefix);
        self.bytes -= watch_bytes(prefix);
        if self.groups.is_empty() {
            // Nobody is there to be told the rest.
            self.has_more = false;
            self.marks_at = None;
        }
        true
    }

    /// Ends all watches of a client; returns how many those were.
    pub fn end_all(&mut self, client: ClientId) -> usize {
        let prefixes = self.of_clients.get(&client).cloned().unwrap_or_default();
        for prefix in &prefixes {
            self.end(client, prefix);
        }
        prefixes.len()
    }

    /// The client's socket has taken what it was told: it can be told more.
    pub fn drained(&mut self, client: ClientId) {
        for prefix in self.of_clients.get(&client).into_iter().flatten() {
            let group = self.groups.get_mut(prefix).expect("each watch is in its prefix's group");
            if let Some(Pace::Lagging { is_queued, .. }) = group.members.get_mut(&client)
                && !std::mem::replace(is_queued, true)
            {
                self.queue.push_back((client, prefix.clone()));
            }
        }
    }

    /// When there is something to be told without anything happening before.
    pub fn deadline(&self) -> Instant {
        match self.has_more {
            true => Instant::ZERO,
            false => self.marks_at.unwrap_or(Instant::NEVER),
        }
    }

    /// Tells live watchers the changes behind `from`, and lagging ones as much as a turn may. Live
    /// ones were told everything up to `fed`; the newest change may be up to `revision`.
    pub fn feed(
        &mut self,
        history: &History,
        from: Position,
        fed: Revision,
        revision: Revision,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        match history.has(from) {
            true => self.tell_live(history, from, fed, clients, effects),
            // So much has changed in one turn that its beginning may be gone already.
            false => self.begin_anew(fed),
        }
        self.tell_lagging(history, revision, clients, effects);
    }

    fn tell_live(
        &mut self,
        history: &History,
        from: Position,
        fed: Revision,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let mut told: BTreeMap<&[u8], Told> = BTreeMap::new();
        let mut position = from;
        while let Some(change) = history.next(&mut position) {
            if change.kind == ChangeKind::Message {
                continue;
            }
            if change.kind == ChangeKind::Cleared {
                for prefix in self.groups.keys() {
                    told.entry(prefix).or_default().add(prefix, &change);
                }
                continue;
            }
            for length in self.lengths.keys().take_while(|length| **length <= change.key.len()) {
                let prefix = &change.key[..*length];
                if !self.groups.contains_key(prefix) {
                    continue;
                }
                let told = told.entry(prefix).or_default();
                // What is more than a watcher may be told at once is told in slices.
                if told.bytes.len() <= limits::WATCH_SLICE_BYTES {
                    told.add(prefix, &change);
                }
            }
        }
        let said: Vec<(Prefix, Told)> =
            told.into_iter().map(|(prefix, told)| (prefix.into(), told)).collect();
        for (prefix, told) in said {
            self.tell_group(&prefix, &told, fed, clients, effects);
        }
    }

    fn tell_group(
        &mut self,
        prefix: &[u8],
        told: &Told,
        fed: Revision,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let group = self.groups.get_mut(prefix).expect("only what is watched is told");
        group.was_told = true;
        let is_slice = told.bytes.len() <= limits::WATCH_SLICE_BYTES;
        let mut shared = Shared::default();
        for (client, pace) in &mut group.members {
            if *pace != Pace::Live {
                continue;
            }
            match clients.pushes_in(*client) {
                Some(protocol) if is_slice => {
                    clients.push(*client, shared.of(told, protocol), effects);
                }
                takes => {
                    let is_queued = takes.is_some();
                    *pace = Pace::Lagging { after: fed, position: None, is_queued };
                    if is_queued {
                        self.queue.push_back((*client, prefix.into()));
                    }
                }
            }
        }
    }

    fn tell_lagging(
        &mut self,
        history: &History,
        revision: Revision,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        self.has_more = false;
        let mut budget = limits::WATCH_CATCH_UP_BYTES;
        for _ in 0..self.queue.len() {
            if budget == 0 {
                self.has_more = true;
                return;
            }
            let Some((client, prefix)) = self.queue.pop_front() else {
                return;
            };
            let group = self.groups.get_mut(&prefix).expect("ended watches leave the queue");
            let pace = group.members.get_mut(&client).expect("ended watches leave the queue");
            let Pace::Lagging { after, position, is_queued } = pace else {
                unreachable!("live watchers are not queued");
            };
            let Some(protocol) = clients.pushes_in(client) else {
                *is_queued = false;
                continue;
            };
            let known = position.filter(|position| history.has(*position));
            let Some(mut next) = known.or_else(|| history.behind_revision(*after)) else {
                let mut said = Told { bytes: Vec::new(), starts: vec![0] };
                push_compacted(&mut said.bytes, &prefix, history.floor());
                clients.push(client, said.in_protocol(protocol), effects);
                self.end(client, &prefix);
                continue;
            };
            let said = read_slice(history, &prefix, &mut next, after, &mut budget);
            *position = Some(next);
            if !said.bytes.is_empty() {
                group.was_told = true;
                clients.push(client, said.in_protocol(protocol), effects);
            }
            if next < history.end() {
                self.has_more = true;
                self.queue.push_back((client, prefix));
            } else if *after <= revision {
                *pace = Pace::Live;
            } else {
                // It has seen more than this node, which will get there.
                self.queue.push_back((client, prefix));
            }
        }
    }

    /// Tells idle watchers how far they are, if it is time.
    pub fn mark(
        &mut self,
        now: Instant,
        revision: Revision,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        if self.marks_at.is_none_or(|due| now < due) {
            return;
        }
        self.marks_at = Some(now.after(limits::WATCH_MARK_INTERVAL));
        for (prefix, group) in &mut self.groups {
            if std::mem::take(&mut group.was_told) {
                continue;
            }
            let mut said = Told { bytes: Vec::new(), starts: vec![0] };
            push_progress(&mut said.bytes, prefix, revision);
            let mut shared = Shared::default();
            for (client, pace) in &group.members {
                if *pace == Pace::Live
                    && let Some(protocol) = clients.pushes_in(*client)
                {
                    clients.push(*client, shared.of(&said, protocol), effects);
                }
            }
        }
    }

    /// Places in the history mean nothing any more, because it is another one, behind an installed
    /// snapshot: each watcher goes on behind what it was told, or ends, if that is gone.
    pub fn begin_anew(&mut self, fed: Revision) {
        let mut queued = Vec::new();
        for (prefix, group) in &mut self.groups {
            for (client, pace) in &mut group.members {
                match pace {
                    Pace::Live if is_on(Mutation::WatchOutlivesInstall) => {}
                    Pace::Live => {
                        *pace = Pace::Lagging { after: fed, position: None, is_queued: true };
                        queued.push((*client, prefix.clone()));
                    }
                    Pace::Lagging { position, .. } => *position = None,
                }
            }
        }
        self.queue.extend(queued);
    }
}

/// The next changes of a prefix, as many as may be told at once, and no further than `budget` goes.
/// Moves `position` and `after` behind them.
fn read_slice(
    history: &History,
    prefix: &[u8],
    position: &mut Position,
    after: &mut Revision,
    budget: &mut usize,
) -> Told {
    let mut told = Told::default();
    while *budget > 0 && told.bytes.len() < limits::WATCH_SLICE_BYTES {
        let Some(change) = history.next(position) else {
            break;
        };
        let looked_at = limits::WATCH_BYTES + change.key.len() + change.value.len();
        *budget = budget.saturating_sub(looked_at);
        let concerns = match change.kind {
            ChangeKind::Cleared => true,
            ChangeKind::Message => false,
            _ => change.key.starts_with(prefix),
        };
        if concerns && change.revision > *after {
            told.add(prefix, &change);
        }
        *after = (*after).max(change.revision);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::store::Store;
    use crate::node::ClientInfo;

    /// Found by seed 9308: the process went on waking up for nobody.
    #[test]
    fn the_last_watch_that_ends_leaves_nothing_to_be_told() {
        let (mut clients, mut effects) = (Clients::default(), Vec::new());
        let client = ClientId { slot: 0, generation: 1 };
        let address = "127.0.0.1:1".parse().unwrap();
        let info = ClientInfo { id: 1, address, local_address: address };
        clients.arrive(Instant::ZERO, client, info);
        let mut store = Store::new();
        for number in 0..64 {
            store.set(format!("k{number}").as_bytes(), &[b'v'; 4096], None);
        }
        let (history, revision) = (store.history(), store.revision());

        let mut watches = Watches::default();
        assert!(watches.begin(Instant::ZERO, client, b"k", Revision::ZERO));
        let end = history.end();
        watches.feed(history, end, revision, revision, &mut clients, &mut effects);
        assert_eq!(watches.deadline(), Instant::ZERO, "the past takes more than a turn");
        assert_eq!(watches.end_all(client), 1);
        assert_eq!(watches.deadline(), Instant::NEVER);
    }
}
