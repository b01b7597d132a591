//! A process and its peers: whom it dials, whose hello it takes, and how a connection ends.
//!
//! The same order as `loop/peers.rs`, with the world in place of sockets; what both decide is in
//! `driver/peers.rs`. Called by the process in its turn. Judges no hello: the node does.

use super::super::link::{PeerLink, Stage};
use super::super::network::StreamId;
use super::{Callee, Output, Process};
use crate::driver;
use crate::driver::peers::{News, dial_pause, first_dial, gives_way};
use crate::driver::turn;
use crate::limits;
use crate::node::Input;
use crate::proto::hello::{Hello, HelloRefused, Refusal};
use crate::storage::StorageError;
use crate::types::{Instant, ServerId};

/// An address where this server asks to be let in.
pub(super) struct Ask {
    address: String,
    stream: Option<StreamId>,
    is_under_way: bool,
    deadline: Instant,
    retry_at: Instant,
}

impl Ask {
    /// When it wants to be looked at.
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Ask { is_under_way: true, deadline, .. } => *deadline,
            Ask { stream: None, retry_at, .. } => *retry_at,
            Ask { .. } => Instant::NEVER,
        }
    }
}

/// A connection that this server makes, and makes again.
pub(super) struct Dial {
    address: String,
    pub(super) stream: Option<StreamId>,
    pub(super) is_under_way: bool,
    /// When an attempt that nobody answers is given up.
    pub(super) deadline: Instant,
    pub(super) retry_at: Instant,
    pub(super) failures: u32,
}

impl Dial {
    /// To be tried at `retry_at`; the connection of an older address stays until it ends.
    fn new(address: String, older: Option<&Dial>, retry_at: Instant) -> Dial {
        Dial {
            address,
            stream: older.and_then(|dial| dial.stream),
            is_under_way: false,
            deadline: Instant::ZERO,
            retry_at,
            failures: 0,
        }
    }
}

impl Process {
    pub(super) fn connected(&mut self, now: Instant, callee: &Callee, stream: StreamId) {
        let peer = match callee {
            Callee::Peer(peer, address) => {
                let dial = self.dials.get_mut(peer);
                let dial = dial.filter(|dial| dial.is_under_way && dial.address == *address);
                dial.map(|dial| {
                    dial.is_under_way = false;
                    dial.stream = Some(stream);
                    Some(*peer)
                })
            }
            Callee::Anyone(address) => {
                let mut asks = self.asks.iter_mut();
                let ask = asks.find(|ask| ask.is_under_way && ask.address == *address);
                ask.map(|ask| {
                    ask.is_under_way = false;
                    ask.stream = Some(stream);
                    None
                })
            }
        };
        let Some(peer) = peer else {
            // The answer came after the attempt was given up.
            self.outputs.push(Output::Close(stream));
            return;
        };
        let mut link = PeerLink::new(peer, now);
        // Who asks to be let in does not know whom it reaches.
        link.dialled = true;
        link.say_hello(&self.node.hello_to(peer.unwrap_or(ServerId::ZERO)));
        self.peers.insert(stream, link);
    }

    /// Nobody answered there, or whoever did refused.
    pub(super) fn call_failed(&mut self, now: Instant, callee: &Callee) {
        match callee {
            Callee::Peer(peer, address) => {
                if self.dials.get(peer).is_some_and(|dial| dial.address == *address) {
                    self.dial_failed(now, *peer, false);
                }
            }
            Callee::Anyone(address) => {
                for ask in self.asks.iter_mut().filter(|ask| ask.address == *address) {
                    ask.is_under_way = false;
                }
            }
        }
    }

    pub(super) fn dial_failed(&mut self, now: Instant, peer: ServerId, is_stranger: bool) {
        if let Some(dial) = self.dials.get_mut(&peer) {
            dial.is_under_way = false;
            dial.stream = None;
            dial.retry_at = now.after(dial_pause(dial.failures, is_stranger, now));
            dial.failures = dial.failures.saturating_add(1);
        }
    }

    /// A connection has bytes, or has ended.
    pub(super) fn is_ready(&mut self, stream: StreamId) {
        if let Some(link) = self.peers.get_mut(&stream)
            && !std::mem::replace(&mut link.in_ready, true)
        {
            self.ready.push(stream);
        }
    }

    /// Reads every connection that has something, each within a turn's budget.
    pub(super) fn read_links(&mut self) -> Result<(), StorageError> {
        for stream in std::mem::take(&mut self.ready) {
            let mut budget = limits::READ_BUDGET_BYTES;
            while budget > 0
                && let Some(link) = self.peers.get_mut(&stream)
            {
                link.in_ready = false;
                if !link.wants_read() {
                    break;
                }
                let mut news = Vec::new();
                let (count, verdict) = link.read(&mut news);
                if !news.is_empty() {
                    turn::has_read(self);
                }
                self.hear_peer(stream, news)?;
                if let Err(nonsense) = verdict {
                    assert!(self.network_lies, "servers send sound frames: {nonsense:?}");
                    self.strikes.push(("nonsense-from-peer", 1));
                    self.end_peer(self.now, stream);
                } else if count == 0 {
                    self.end_peer(self.now, stream);
                }
                budget = budget.saturating_sub(count);
            }
            if self.peers.get(&stream).is_some_and(PeerLink::wants_read) {
                self.strikes.push(("peer-read-in-parts", 1));
                self.is_ready(stream);
            }
        }
        Ok(())
    }

    fn hear_peer(&mut self, stream: StreamId, news: Vec<News>) -> Result<(), StorageError> {
        for item in news {
            match item {
                News::Hello(hello) => self.greet(self.now, stream, &hello)?,
                News::Refused(refused) => {
                    if self.peers.contains_key(&stream) {
                        if refused.code == Refusal::OldCopy {
                            self.storage.note_old_copy()?;
                            self.is_old_copy = true;
                        }
                        let peer = self.peers.get(&stream).and_then(|link| link.peer);
                        self.node.hello_refused(self.now, peer, &refused);
                        let is_stranger = refused.code == Refusal::Sender;
                        self.end_link(self.now, stream, is_stranger);
                    }
                }
                News::Packet(packet) => {
                    let link = self.peers.get(&stream).filter(|l| l.stage == Stage::Established);
                    if let Some(link) = link {
                        assert_eq!(link.peer, Some(packet.envelope.from), "a server is itself");
                        self.handle(Input::Receive { packet });
                    }
                }
            }
        }
        Ok(())
    }

    fn greet(&mut self, now: Instant, stream: StreamId, hello: &Hello) -> Result<(), StorageError> {
        let Some(link) = self.peers.get_mut(&stream) else {
            return Ok(());
        };
        // Whom we dialled is who answers.
        let verdict = match link.peer.is_none_or(|dialled| dialled == hello.sender) {
            true => self.node.judge_hello(now, hello),
            false => {
                let text = format!("this connection was not made to server {}", hello.sender);
                Err(HelloRefused { code: Refusal::Sender, text })
            }
        };
        let remembered = match verdict {
            Ok(verdict) => driver::remember(&verdict, &mut self.node, &mut self.storage)?
                .map_or(Ok(verdict), Err),
            Err(refused) => Err(refused),
        };
        let verdict = match remembered {
            Ok(verdict) => verdict,
            Err(refused) => {
                link.say_refused(&refused);
                let out = std::mem::take(&mut link.out);
                self.outputs.push(Output::Send(stream, out.into()));
                self.end_peer(now, stream);
                return Ok(());
            }
        };
        self.met.push((verdict.peer, hello.boot));
        if let Some(older) = self.established.get(&verdict.peer).copied() {
            let dialled = |stream: StreamId| self.peers.get(&stream).map(|link| link.dialled);
            let (new, is_news) = (dialled(stream) == Some(true), verdict.record.is_some());
            let gives_way = gives_way(self.own, verdict.peer, is_news, new, dialled(older));
            self.end_peer(now, if gives_way { stream } else { older });
            if gives_way {
                return Ok(());
            }
        }
        let answer = self.node.hello_to(verdict.peer);
        let link = self.peers.get_mut(&stream).expect("just seen, and not the older one");
        if !link.dialled {
            link.say_hello(&answer);
        }
        link.establish(verdict.peer);
        self.established.insert(verdict.peer, stream);
        self.first_dials.remove(&verdict.peer);
        if let Some(dial) = self.dials.get_mut(&verdict.peer) {
            dial.failures = 0;
        }
        self.handle(Input::PeerUp { peer: verdict.peer, incarnation: verdict.incarnation });
        Ok(())
    }

    /// Ends a connection with a peer, and tells the node if it was established.
    pub(super) fn end_peer(&mut self, now: Instant, stream: StreamId) {
        self.end_link(now, stream, false);
    }

    fn end_link(&mut self, now: Instant, stream: StreamId, is_stranger: bool) {
        if let Some(peer) = self.drop_link(now, stream, is_stranger) {
            self.handle(Input::PeerDown { peer });
        }
    }

    /// Ends a connection. Returns the peer if it was established: its node wants to know.
    /// `is_stranger`: because one of both is no member for the other.
    pub(super) fn drop_link(
        &mut self,
        now: Instant,
        stream: StreamId,
        is_stranger: bool,
    ) -> Option<ServerId> {
        let link = self.peers.remove(&stream)?;
        self.outputs.push(Output::Close(stream));
        for ask in self.asks.iter_mut().filter(|ask| ask.stream == Some(stream)) {
            ask.stream = None;
            ask.retry_at = now.after(limits::JOIN_RETRY);
        }
        let peer = link.peer?;
        if self.dials.get(&peer).is_some_and(|dial| dial.stream == Some(stream)) {
            self.dial_failed(now, peer, is_stranger);
        }
        if link.stage != Stage::Established {
            return None;
        }
        self.established.remove(&peer);
        Some(peer)
    }

    /// Takes over whom the node wants connections with, and where it asks to be let in.
    pub(super) fn update_dials(&mut self, now: Instant) {
        let stamp = self.node.peers_stamp();
        if self.peers_stamp != Some(stamp) {
            self.peers_stamp = Some(stamp);
            let known = self.node.peers();
            self.dials.retain(|id, _| known.iter().any(|peer| peer.id == *id && peer.dial));
            self.first_dials.retain(|id, _| known.iter().any(|peer| peer.id == *id));
            for peer in known.into_iter().filter(|peer| peer.dial) {
                let first = self.first_dial(peer.id, now);
                let dial = self.dials.get(&peer.id);
                if dial.is_none_or(|dial| dial.address != peer.address) {
                    let retry_at = dial.map_or(first, |_| Instant::ZERO);
                    self.dials.insert(peer.id, Dial::new(peer.address, dial, retry_at));
                }
            }
            let node = &self.node;
            let strangers = self.established.iter().filter(|(peer, _)| !node.knows(**peer));
            let strangers: Vec<StreamId> = strangers.map(|(_, stream)| *stream).collect();
            for stream in strangers {
                let lost = self.drop_link(now, stream, true);
                self.lost.extend(lost);
            }
        }
        let asks = self.node.asks_to_join();
        if !self.asks.iter().map(|ask| &ask.address).eq(asks) {
            let ask = |address: &String| Ask {
                address: address.clone(),
                stream: None,
                is_under_way: false,
                deadline: Instant::ZERO,
                retry_at: Instant::ZERO,
            };
            self.asks = asks.iter().map(ask).collect();
        }
    }

    fn first_dial(&mut self, peer: ServerId, now: Instant) -> Instant {
        let first = first_dial(self.own, peer, now);
        match self.established.contains_key(&peer) {
            true => first,
            false => *self.first_dials.entry(peer).or_insert(first),
        }
    }

    /// Dials whoever is missing, and gives up what takes too long.
    pub(super) fn keep_up(&mut self, now: Instant) {
        let overdue: Vec<StreamId> =
            self.peers.iter().filter(|(_, l)| l.deadline <= now).map(|(id, _)| *id).collect();
        for stream in overdue {
            self.end_peer(now, stream);
        }
        let late = |dial: &Dial| dial.is_under_way && dial.deadline <= now;
        let late: Vec<ServerId> =
            self.dials.iter().filter(|(_, d)| late(d)).map(|(id, _)| *id).collect();
        for peer in late {
            self.dial_failed(now, peer, false);
        }
        // Whom we dial may have dialled us.
        let established = &self.established;
        for (peer, dial) in self.dials.iter_mut().filter(|(id, _)| !established.contains_key(id)) {
            if dial.stream.is_none() && !dial.is_under_way && dial.retry_at <= now {
                dial.is_under_way = true;
                dial.deadline = now.after(limits::DIAL_TIMEOUT);
                self.outputs.push(Output::Dial(Callee::Peer(*peer, dial.address.clone())));
            }
        }
        for ask in &mut self.asks {
            if ask.is_under_way && ask.deadline <= now {
                ask.is_under_way = false;
            }
            if ask.stream.is_none() && !ask.is_under_way && ask.retry_at <= now {
                ask.is_under_way = true;
                ask.deadline = now.after(limits::DIAL_TIMEOUT);
                ask.retry_at = now.after(limits::JOIN_RETRY);
                self.outputs.push(Output::Dial(Callee::Anyone(ask.address.clone())));
            }
        }
    }
}
