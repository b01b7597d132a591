//! The real server: one thread that owns all sockets, timers and files, and one [`Node`].
//!
//! Design page 1, §5. `main` binds the [`Listeners`], recovers the node and calls [`Server::run`];
//! `turn` is what happens again and again from there on. Nothing here decides anything that the
//! simulator would have to repeat: what a message or a command means is the node's.

mod client;
mod clients;
mod clock;
mod facts;
mod listener;
mod output;
mod peer;
mod peers;
mod snapshots;
mod sockets;
mod turn;

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use self::clients::Clients;
use self::peers::Peers;
use self::snapshots::SnapshotLines;
use self::turn::Turn;
use crate::config::Config;
use crate::driver::peers::News;
use crate::limits;
use crate::node::{Effect, Node, PeersStamp, Requests, Role};
use crate::proto::hello;
use crate::storage::{Storage, StorageError};
use crate::types::{Instant, Room, ServerId, Term};

pub use self::clock::Clock;
pub use self::listener::Listeners;

const CLIENT_PORT: Token = Token(0);
const PEER_PORT: Token = Token(1);
const STORAGE: Token = Token(2);
const SIGNALS: Token = Token(3);
/// Peers' connections have the tokens from here on, a bounded number of them ...
const FIRST_PEER: usize = 16;
/// ... and clients' connections all the others.
const FIRST_CLIENT: usize = FIRST_PEER + limits::PEER_CONNECTIONS + limits::MEMBERS;

/// Readiness reports taken from the kernel at once; what is left is taken in the next turn.
const EVENTS: usize = 1024;

/// Why the loop ended, other than by being asked to.
#[derive(Debug)]
pub enum LoopError {
    /// An address of the configuration cannot be listened on.
    Bind {
        /// The address as configured.
        address: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// The poll itself failed, or its set-up.
    Poll(io::Error),
    /// A write, a sync or the directory failed; nothing was acknowledged after it.
    Storage(StorageError),
    /// A second signal came while the first one's clean stop was under way.
    Interrupted,
}

impl fmt::Display for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoopError::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            LoopError::Poll(error) => write!(f, "the poll loop failed: {error}"),
            LoopError::Storage(error) => write!(f, "{error}"),
            LoopError::Interrupted => write!(f, "ended by a second signal before a clean stop"),
        }
    }
}

impl Error for LoopError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            LoopError::Bind { error, .. } | LoopError::Poll(error) => Some(error),
            LoopError::Storage(error) => Some(error),
            LoopError::Interrupted => None,
        }
    }
}

impl From<StorageError> for LoopError {
    fn from(error: StorageError) -> LoopError {
        LoopError::Storage(error)
    }
}

/// How a server ended that nothing has gone wrong with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// A peer said that its directory is an old copy, which is noted there: opened once more, it is
    /// set aside, and the server can be admitted again.
    OldCopy,
}

/// A node and everything around it.
pub struct Server {
    node: Node,
    storage: Storage,
    clock: Clock,
    poll: Poll,
    events: Events,
    listeners: Listeners,
    signals: Signals,
    clients: Clients,
    peers: Peers,
    /// All sockets are read through it.
    scratch: Vec<u8>,
    /// What a peer's connection brought in one read.
    news: Vec<News>,
    /// This turn's commands.
    requests: Requests,
    /// What the node wants done, in order.
    effects: Vec<Effect>,
    snapshot_lines: SnapshotLines,
    /// The time of this turn.
    now: Instant,
    /// What had come by then was reported by this turn's poll.
    looked_at: Instant,
    /// The storage has finished something.
    storage_ready: bool,
    /// A signal has come.
    signals_ready: bool,
    /// The room that the node knows of.
    room: Room,
    observe_at: Instant,
    longest_turn: Duration,
    /// Whether the log was written since the last time that figures were taken.
    has_appended: bool,
    /// Whether memory may have been freed since it last went back.
    has_freed: bool,
    /// The state of the node for which the peers were taken over.
    peers_stamp: PeersStamp,
    /// A signal asked for the end, and by this instant it comes in any case.
    stop: Option<Instant>,
    /// A signal has asked it to; the next one ends the process.
    is_signalled: bool,
    /// A peer has met a later process of this directory.
    is_old_copy: bool,
    /// What was last logged about who leads.
    leadership: Leadership,
    /// Whether the log says last that the disk has stalled.
    disk_is_stalled: bool,
}

/// Who leads, as far as the log lines tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Leadership {
    role: Role,
    leader: Option<ServerId>,
    term: Term,
}

impl Leadership {
    fn of(node: &Node) -> Leadership {
        let status = node.status();
        Leadership { role: status.role, leader: status.leader, term: status.current_term }
    }

    /// Whether this is worth a line after `other`: campaigns that come to nothing are not.
    fn differs(self, other: Leadership) -> bool {
        let settled =
            |role| matches!(role, Role::Leader | Role::Recovering | Role::Removed | Role::Learner);
        self.leader != other.leader
            || (self.role != other.role && (settled(self.role) || settled(other.role)))
    }
}

impl Server {
    /// Puts a recovered node and its files, whose clock is `clock`, into a loop of its own.
    pub fn new(
        config: &Config,
        clock: Clock,
        node: Node,
        storage: Storage,
        mut listeners: Listeners,
    ) -> Result<Server, LoopError> {
        let poll = Poll::new().map_err(LoopError::Poll)?;
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(LoopError::Poll)?;
        let registry = poll.registry();
        listeners.client.register(registry, CLIENT_PORT).map_err(LoopError::Poll)?;
        listeners.peer.register(registry, PEER_PORT).map_err(LoopError::Poll)?;
        signals.register(registry, SIGNALS, Interest::READABLE).map_err(LoopError::Poll)?;
        SourceFd(&storage.completion_fd().as_raw_fd())
            .register(registry, STORAGE, Interest::READABLE)
            .map_err(LoopError::Poll)?;

        let mut host = node.hello_to(ServerId::ZERO);
        host.role = hello::Role::Client;
        let now = clock.now();
        let server = Server {
            clients: Clients::new(config, host, FIRST_CLIENT),
            peers: Peers::new(config.id, FIRST_PEER),
            leadership: Leadership::of(&node),
            disk_is_stalled: false,
            node,
            storage,
            clock,
            poll,
            events: Events::with_capacity(EVENTS),
            listeners,
            signals,
            scratch: vec![0; limits::READ_SCRATCH_BYTES],
            news: Vec::new(),
            requests: Requests::default(),
            effects: Vec::new(),
            snapshot_lines: SnapshotLines::default(),
            now,
            looked_at: now,
            // Whatever happened before the registration is looked at in the first turn.
            storage_ready: true,
            signals_ready: true,
            room: Room::Ample,
            observe_at: now,
            longest_turn: Duration::ZERO,
            has_appended: false,
            has_freed: true,
            peers_stamp: PeersStamp::default(),
            stop: None,
            is_signalled: false,
            is_old_copy: false,
        };
        server.log_start();
        Ok(server)
    }

    /// Turns until a signal asks for the end and the node had its chance to leave well.
    ///
    /// # Errors
    ///
    /// A storage fault ends the loop at once, and nothing is acknowledged after it.
    pub fn run(mut self) -> Result<Ended, LoopError> {
        let ended = loop {
            match self.turn()? {
                Turn::GoOn => {}
                Turn::Ended => break Ended::Stopped,
                Turn::OldCopy => break Ended::OldCopy,
            }
        };
        self.storage.close()?;
        if ended == Ended::Stopped {
            log::info!("stopped");
        }
        Ok(ended)
    }

    fn log_start(&self) {
        let status = self.node.status();
        let (engine, reason) = self.storage.engine();
        log::info!(
            "server {} started: clients on {}, peers on {}, storage {engine} ({reason}), \
             {} in term {}, log up to {}",
            status.server,
            self.listeners.client.address(),
            self.listeners.peer.address(),
            status.role.name(),
            status.current_term,
            status.last_log_index,
        );
    }

    /// Says who leads if that has changed.
    fn log_leadership(&mut self) {
        let current = Leadership::of(&self.node);
        if !current.differs(self.leadership) {
            return;
        }
        let term = current.term;
        match (current.role, current.leader) {
            (Role::Leader, _) => log::info!("leads in term {term}"),
            (Role::Removed, _) => {
                log::warn!("was removed from the cluster: takes part in nothing, and stays quiet");
            }
            (Role::Learner, Some(leader)) => {
                log::info!("learns from server {leader} in term {term}, without a vote");
            }
            (Role::Recovering, _) => {
                let reason = self.node.recovering_reason().unwrap_or("its disk is not known");
                log::warn!("takes part in nothing until it is admitted again: {reason}");
            }
            (_, Some(leader)) => log::info!("follows server {leader} in term {term}"),
            (_, None) => log::info!("knows no leader in term {term}"),
        }
        self.leadership = current;
    }

    /// Says that the disk has stalled, and that it goes on.
    fn log_disk(&mut self) {
        let is_stalled = self.node.is_disk_stalled(self.now);
        if is_stalled == self.disk_is_stalled {
            return;
        }
        match is_stalled {
            true => log::warn!(
                "the disk has been at one write for longer than an election timeout: others go on \
                 without it, and if this node leads it hands over"
            ),
            false => log::info!("the disk goes on"),
        }
        self.disk_is_stalled = is_stalled;
    }
}
