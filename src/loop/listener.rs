//! Listening sockets that go on accepting, come what may.
//!
//! Design page 5, "Bad input": accept errors (EMFILE, aborted connections) never stop the
//! accepting. Called by the turn. Never spins: what cannot be accepted now is tried again after a
//! pause, and what cannot be served is closed at once.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;

use super::LoopError;
use crate::config::Config;
use crate::limits;
use crate::types::Instant;

/// The listening sockets of a node, bound before anything else is touched.
#[derive(Debug)]
pub struct Listeners {
    pub(super) client: Listener,
    pub(super) peer: Listener,
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    /// Nothing once it was closed.
    socket: Option<TcpListener>,
    address: SocketAddr,
    /// Given up when descriptors run out, so that the waiting connection can be accepted and
    /// closed: left in the queue it would stay for ever and hide all later ones.
    reserve: Option<File>,
    /// The kernel may have connections for us.
    ready: bool,
    /// Not before this.
    resume_at: Instant,
    /// Whether the shortage was logged, once for each that comes.
    complained: bool,
}

impl Listeners {
    /// Binds the client and the peer port. Names are looked up here, which may block.
    pub fn bind(config: &Config) -> Result<Listeners, LoopError> {
        let own = config.cluster.nodes.iter().find(|node| node.id == config.id);
        let own = own.expect("the configuration checked that the list holds this node");
        let client = config.listen.client.as_ref().unwrap_or(&own.client);
        let peer = config.listen.peer.as_ref().unwrap_or(&own.peer);
        Ok(Listeners { client: Listener::bind(client)?, peer: Listener::bind(peer)? })
    }
}

impl Listener {
    fn bind(address: &str) -> Result<Listener, LoopError> {
        let bound = bind_first(address);
        let listener = bound.and_then(|socket| {
            let address = socket.local_addr()?;
            Ok(Listener {
                socket: Some(socket),
                address,
                reserve: Some(File::open("/dev/null")?),
                ready: true,
                resume_at: Instant::ZERO,
                complained: false,
            })
        });
        listener.map_err(|error| LoopError::Bind { address: address.to_owned(), error })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let socket = self.socket.as_mut().expect("it is registered before it can be closed");
        registry.register(socket, token, Interest::READABLE)
    }

    /// Accepts no more.
    pub(super) fn close(&mut self) {
        self.socket = None;
        self.ready = false;
    }

    pub(super) fn on_event(&mut self) {
        self.ready = true;
    }

    /// When it wants to be called without an event.
    pub(super) fn deadline(&self) -> Instant {
        if self.ready { self.resume_at } else { Instant::NEVER }
    }

    /// Hands each waiting connection to `admit`, a bounded number of them.
    pub(super) fn accept(&mut self, now: Instant, mut admit: impl FnMut(TcpStream, SocketAddr)) {
        if now < self.resume_at {
            return;
        }
        for _ in 0..limits::ACCEPTS {
            let Some(socket) = self.socket.as_ref().filter(|_| self.ready) else {
                return;
            };
            match socket.accept() {
                Ok((stream, address)) => {
                    self.complained = false;
                    admit(stream, address);
                }
                Err(error) => self.on_error(&error, now),
            }
            if now < self.resume_at {
                return;
            }
        }
    }

    fn on_error(&mut self, error: &io::Error, now: Instant) {
        match error.kind() {
            ErrorKind::WouldBlock => self.ready = false,
            // The connection died in the queue, or a signal came: the next one may be well.
            ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
            _ => {
                if !self.complained {
                    log::warn!("cannot accept on {}: {error}", self.address);
                    self.complained = true;
                }
                let code = error.raw_os_error();
                let exhausted = [Errno::MFILE, Errno::NFILE].map(|errno| errno.raw_os_error());
                let descriptors = code.is_some_and(|code| exhausted.contains(&code));
                if !(descriptors && self.turn_one_away()) {
                    self.resume_at = now.after(limits::ACCEPT_RETRY);
                }
            }
        }
    }

    /// Accepts one connection on the reserved descriptor and closes it. Whether that went well and
    /// the reserve stands again. The kernel looks for a descriptor before it looks at the queue, so
    /// that nobody may have been waiting: that is seen here, or accepting would be tried on and on.
    fn turn_one_away(&mut self) -> bool {
        // Closed before the attempt, or its descriptor would not be free for it.
        drop(self.reserve.take());
        let Some(socket) = &self.socket else {
            return false;
        };
        let was_turned_away = match socket.accept() {
            Ok(connection) => {
                drop(connection);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.ready = false;
                true
            }
            Err(_) => false,
        };
        self.reserve = File::open("/dev/null").ok();
        was_turned_away && self.reserve.is_some()
    }
}

/// A name may have several addresses; the first one that can be bound is taken.
fn bind_first(address: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpListener::bind(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Connects and returns both ends, accepting with `listener`.
    fn connect(listener: &mut Listener) -> (std::net::TcpStream, Option<TcpStream>) {
        let outer = std::net::TcpStream::connect(listener.address()).unwrap();
        let mut accepted = None;
        listener.on_event();
        listener.accept(Instant(1), |stream, _| accepted = Some(stream));
        (outer, accepted)
    }

    #[test]
    fn accept_takes_what_waits_and_then_rests() {
        let mut listener = Listener::bind("127.0.0.1:0").unwrap();
        let (_outer, accepted) = connect(&mut listener);
        assert!(accepted.is_some());
        assert_eq!(listener.deadline(), Instant::NEVER, "the queue was seen empty");
    }

    #[test]
    fn accept_without_descriptors_closes_the_connection_and_goes_on() {
        // 1. A connection waits, and the kernel says EMFILE.
        let mut listener = Listener::bind("127.0.0.1:0").unwrap();
        let mut outer = std::net::TcpStream::connect(listener.address()).unwrap();
        let error = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        listener.on_error(&error, Instant(1));

        // 2. It was accepted on the reserve and closed: the client sees the end.
        let mut rest = Vec::new();
        assert_eq!(outer.read_to_end(&mut rest).unwrap_or(0), 0);
        assert!(listener.reserve.is_some());
        assert_eq!(listener.resume_at, Instant::ZERO, "no pause: the queue got shorter");

        // 3. The next one is served.
        let (_outer, accepted) = connect(&mut listener);
        assert!(accepted.is_some());
    }

    #[test]
    fn accept_without_descriptors_and_without_connections_rests() {
        let mut listener = Listener::bind("127.0.0.1:0").unwrap();
        let error = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        listener.on_error(&error, Instant(1));
        assert_eq!(listener.deadline(), Instant::NEVER, "it would spin");
        let (_outer, accepted) = connect(&mut listener);
        assert!(accepted.is_some());
    }

    #[test]
    fn accept_error_without_remedy_pauses_and_resumes() {
        let mut listener = Listener::bind("127.0.0.1:0").unwrap();
        let error = io::Error::from_raw_os_error(Errno::NOBUFS.raw_os_error());
        listener.on_error(&error, Instant(1));
        let resume_at = Instant(1).after(limits::ACCEPT_RETRY);
        assert_eq!(listener.deadline(), resume_at);

        let _outer = std::net::TcpStream::connect(listener.address()).unwrap();
        let mut accepted = 0;
        listener.accept(Instant(2), |_, _| accepted += 1);
        assert_eq!(accepted, 0, "it rests");
        listener.accept(resume_at, |_, _| accepted += 1);
        assert_eq!(accepted, 1, "it resumes by itself");
    }
}
