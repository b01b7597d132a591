//! One server in memory: the unchanged `Node`, `Storage` and codecs, and one turn of them.
//!
//! The order of a turn is that of `loop/turn.rs` (design page 1, §5), with buffers in place of
//! sockets. Called by `cluster`. Contains no system call, so that a count of its instructions is
//! the same in every run.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use raftkv::config::{Config, SyncMode};
use raftkv::driver;
use raftkv::node::{ClientInfo, Effect, Input, Node, Requests};
use raftkv::proto::frame::{FrameDecoder, FrameKind, PREFACE, encode_frame};
use raftkv::proto::peer_message;
use raftkv::proto::resp::{Decoded, RequestDecoder};
use raftkv::storage::{Options, Storage, StorageError};
use raftkv::types::{ClientId, Instant, ServerId, WallClock};

use crate::disk::ForgetfulDisk;

/// What the wall clocks show when the count begins, in milliseconds.
const WALL_BEGIN_MS: u64 = 1_700_000_000_000;

/// Random numbers of each node come from this and its id.
const SEED: u64 = 7;

/// A connection with a peer.
#[derive(Default)]
struct Link {
    frames: FrameDecoder,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

/// A client's connection.
struct Conversation {
    id: ClientId,
    commands: RequestDecoder,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Commands without a reply.
    awaited: usize,
}

/// See the file's head.
pub struct Server {
    pub node: Node,
    storage: Storage,
    links: BTreeMap<ServerId, Link>,
    clients: Vec<Conversation>,
    /// Clients with bytes to be read.
    ready: Vec<usize>,
    /// Bytes have come from a peer.
    has_mail: bool,
    /// The disk has finished something.
    disk_ready: Rc<Cell<bool>>,
    requests: Requests,
    effects: Vec<Effect>,
}

impl Server {
    /// A server of `config`, on an empty data directory.
    ///
    /// # Errors
    /// The storage's.
    pub fn start(config: &Config, now: Instant) -> Result<Server, StorageError> {
        let options = Options {
            dir: PathBuf::from("/data"),
            cluster: config.cluster.name.clone(),
            server: config.id,
            has_others: config.cluster.nodes.len() > 1,
            sync: SyncMode::Auto,
            segment_bytes: config.storage.segment_bytes,
        };
        let (disk, disk_ready) = ForgetfulDisk::new(config.id.0);
        let (storage, recovered) = Storage::open_on(Box::new(disk), &options)?;
        Ok(Server {
            node: Node::recover(config, recovered, SEED + config.id.0, now),
            storage,
            links: BTreeMap::new(),
            clients: Vec::new(),
            ready: Vec::new(),
            has_mail: false,
            disk_ready,
            requests: Requests::default(),
            effects: Vec::new(),
        })
    }

    /// Says hello to `other`, which takes it: half of a connection between the two.
    ///
    /// # Errors
    /// The storage's, which remembers the peer.
    pub fn meet(&mut self, other: &mut Server, now: Instant) -> Result<(), StorageError> {
        let own = self.node.status().server;
        let hello = self.node.hello_to(other.node.status().server);
        let verdict = other.node.judge_hello(now, &hello).expect("founders know each other");
        if let Some(identity) = verdict.record {
            other.storage.record_peer(identity)?;
        }
        let mut link = Link::default();
        link.incoming.extend_from_slice(&PREFACE);
        other.links.insert(own, link);
        let (peer, incarnation) = (verdict.peer, verdict.incarnation);
        other.handle(now, Input::PeerUp { peer, incarnation });
        Ok(())
    }

    /// A client connects; returns its number.
    pub fn connect(&mut self, now: Instant) -> usize {
        let number = self.clients.len();
        let id = ClientId { slot: number as u32, generation: number as u32 + 1 };
        let address = SocketAddr::from(([127, 0, 0, 1], 50_000));
        let info = ClientInfo { id: id.generation.into(), address, local_address: address };
        self.clients.push(Conversation {
            id,
            commands: RequestDecoder::new(),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            awaited: 0,
        });
        self.handle(now, Input::ClientArrived { client: id, info });
        number
    }

    /// Where a client's bytes go that are read in the next turn.
    pub fn incoming(&mut self, client: usize) -> &mut Vec<u8> {
        self.ready.push(client);
        &mut self.clients[client].incoming
    }

    /// What a client was answered since the last call, and how many commands still wait.
    pub fn take_answers(&mut self, client: usize, answers: &mut Vec<u8>) -> usize {
        let client = &mut self.clients[client];
        answers.clear();
        answers.append(&mut client.outgoing);
        client.awaited
    }

    /// What goes to a peer, into its buffer there.
    pub fn carry_mail(&mut self, own: ServerId, other: &mut Server, peer: ServerId) {
        let Some(link) = self.links.get_mut(&peer).filter(|link| !link.outgoing.is_empty()) else {
            return;
        };
        let there = other.links.get_mut(&own).expect("connections have two ends");
        there.incoming.append(&mut link.outgoing);
        other.has_mail = true;
    }

    /// Whether a turn would bring something about.
    pub fn is_due(&self, now: Instant) -> bool {
        self.has_mail
            || self.disk_ready.get()
            || !self.ready.is_empty()
            || self.node.deadline(now) <= now
    }

    /// One turn.
    ///
    /// # Errors
    /// The storage's.
    pub fn turn(&mut self, now: Instant) -> Result<(), StorageError> {
        self.read_peers(now);
        if self.node.accepts_requests() {
            self.read_clients();
        }
        self.complete_writes(now)?;
        if self.node.deadline(now) <= now {
            let wall = WallClock(WALL_BEGIN_MS + now.0 / 1_000_000);
            self.handle(now, Input::Tick { wall });
        }
        if !self.requests.is_empty() {
            let batch = std::mem::take(&mut self.requests);
            self.handle(now, Input::Requests { batch });
        }
        self.handle(now, Input::EndOfTurn);
        self.carry_out()?;
        self.storage.submit()
    }

    fn read_peers(&mut self, now: Instant) {
        if !std::mem::take(&mut self.has_mail) {
            return;
        }
        for link in self.links.values_mut() {
            let mut bytes = &link.incoming[..];
            while let Some(frame) = link.frames.decode(&mut bytes).expect("servers send frames") {
                // As `loop/peer.rs` does: the one copy.
                let payload = Bytes::copy_from_slice(frame.payload);
                let packet = peer_message::decode(&payload).expect("servers send messages");
                self.node.handle(now, Input::Receive { packet }, &mut self.effects);
            }
            link.incoming.clear();
        }
    }

    fn read_clients(&mut self) {
        for number in self.ready.drain(..) {
            let client = &mut self.clients[number];
            let mut bytes = &client.incoming[..];
            loop {
                let (consumed, decoded) = client.commands.decode(bytes, self.requests.arena());
                bytes = &bytes[consumed..];
                match decoded {
                    Decoded::Incomplete => break,
                    Decoded::Command { count } => self.requests.push_command(client.id, count),
                    other => unreachable!("the workload speaks the protocol: {other:?}"),
                }
                client.awaited += 1;
            }
            client.incoming.clear();
        }
    }

    fn complete_writes(&mut self, now: Instant) -> Result<(), StorageError> {
        if self.disk_ready.get() {
            while let Some(through) = self.storage.complete()? {
                self.handle(now, Input::Persisted { through });
            }
        }
        while let Some(event) = self.storage.next_snapshot_event() {
            self.handle(now, driver::input(event));
        }
        Ok(())
    }

    fn carry_out(&mut self) -> Result<(), StorageError> {
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Persist { seq, write } => self.storage.append(seq, &write),
                Effect::Send { packet } => {
                    if let Some(link) = self.links.get_mut(&packet.envelope.to) {
                        let out = &mut link.outgoing;
                        let payload = |out: &mut Vec<u8>| peer_message::encode(&packet, out);
                        encode_frame(FrameKind::Peer, 0, out, payload);
                    }
                }
                Effect::Reply { client, protocol, reply } => {
                    let client = &mut self.clients[client.slot as usize];
                    client.awaited -= 1;
                    reply.encode(protocol, &mut client.outgoing);
                }
                Effect::Push { .. } => unreachable!("no client of the workload listens"),
                Effect::Close { .. } => unreachable!("no client of the workload is closed"),
                effect => driver::carry_out(effect, &mut self.storage)?,
            }
        }
        Ok(())
    }

    fn handle(&mut self, now: Instant, input: Input) {
        self.node.handle(now, input, &mut self.effects);
    }
}
