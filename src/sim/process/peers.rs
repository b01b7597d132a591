//! A process and its peers: whom it dials, whose hello it takes, and how a connection ends.
//!
//! The same order as `loop/peers.rs`, with the world in place of sockets. Called by the process in
//! its turn. Judges no hello: the node does.

use super::super::link::{PeerLink, Said, Stage};
use super::super::network::StreamId;
use super::{Callee, Output, Process};
use crate::driver;
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
                    self.dial_failed(now, *peer);
                }
            }
            Callee::Anyone(address) => {
                for ask in self.asks.iter_mut().filter(|ask| ask.address == *address) {
                    ask.is_under_way = false;
                }
            }
        }
    }

    pub(super) fn dial_failed(&mut self, now: Instant, peer: ServerId) {
        if let Some(dial) = self.dials.get_mut(&peer) {
            let pause = limits::DIAL_RETRY_MIN * (1 << dial.failures.min(8));
            let pause = pause.min(limits::DIAL_RETRY_MAX);
            dial.is_under_way = false;
            dial.stream = None;
            dial.failures = dial.failures.saturating_add(1);
            dial.retry_at = now.after(pause + pause * (now.0 % 256) as u32 / 1024);
        }
    }

    pub(super) fn read_peer(&mut self, stream: StreamId, bytes: &[u8]) -> Result<(), StorageError> {
        let mut said = Vec::new();
        let link = self.peers.get_mut(&stream).expect("the caller has seen it");
        let verdict = link.receive(bytes, &mut said);
        turn::has_read(self);
        let now = self.now;
        for one in said {
            match one {
                Said::Hello(hello) => self.greet(now, stream, &hello)?,
                Said::Refused(refused) => {
                    if self.peers.contains_key(&stream) {
                        if refused.code == Refusal::OldCopy {
                            self.storage.note_old_copy()?;
                            self.is_old_copy = true;
                        }
                        let peer = self.peers.get(&stream).and_then(|link| link.peer);
                        self.node.hello_refused(now, peer, &refused);
                        self.end_peer(now, stream);
                    }
                }
                Said::Packet(packet) => {
                    let link = self.peers.get(&stream).filter(|l| l.stage == Stage::Established);
                    if let Some(link) = link {
                        assert_eq!(link.peer, Some(packet.envelope.from), "a server is itself");
                        self.handle(Input::Receive { packet });
                    }
                }
            }
        }
        if let Err(nonsense) = verdict {
            assert!(self.network_lies, "servers send sound frames: {nonsense:?}");
            self.strikes.push(("nonsense-from-peer", 1));
            self.end_peer(now, stream);
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
            // Where both have dialled, the smaller id's connection is kept.
            let by_smaller = |link: &PeerLink| link.dialled == (self.own < verdict.peer);
            let gives_way = self.peers.get(&older).is_some_and(by_smaller)
                && self.peers.get(&stream).is_some_and(|link| !by_smaller(link));
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
        let Some(link) = self.peers.remove(&stream) else {
            return;
        };
        self.outputs.push(Output::Close(stream));
        for ask in self.asks.iter_mut().filter(|ask| ask.stream == Some(stream)) {
            ask.stream = None;
            ask.retry_at = now.after(limits::JOIN_RETRY);
        }
        let Some(peer) = link.peer else { return };
        if self.dials.get(&peer).is_some_and(|dial| dial.stream == Some(stream)) {
            self.dial_failed(now, peer);
        }
        if link.stage == Stage::Established {
            self.established.remove(&peer);
            self.handle(Input::PeerDown { peer });
        }
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
                self.end_peer(now, stream);
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
        let first = driver::first_dial(self.own, peer, now);
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
            self.dial_failed(now, peer);
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
