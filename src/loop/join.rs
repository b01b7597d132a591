//! Asking to be let into a cluster: the connections of a server that was started with `--join`.
//!
//! It knows peer addresses, but not whose they are. Whoever answers either takes it for a member,
//! or says why not; once the membership is known, nobody is asked any more. Part of `peers`.

use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Registry, Token};

use super::{Peers, look_up};
use crate::event_loop::peer::PeerConnection;
use crate::event_loop::sockets;
use crate::limits;
use crate::types::Instant;

/// An address that is asked.
#[derive(Debug)]
pub(super) struct Ask {
    name: String,
    /// Nothing if the name could not be looked up.
    address: Option<SocketAddr>,
    /// The attempt under way, or the connection that came of it.
    slot: Option<usize>,
    retry_at: Instant,
}

impl Peers {
    /// Takes over where this server is to ask; nowhere once it knows the membership.
    pub(in crate::event_loop) fn ask_at(&mut self, names: &[String]) {
        if self.asks.iter().map(|ask| &ask.name).eq(names) {
            return;
        }
        let ask = |name: &String| Ask {
            name: name.clone(),
            address: look_up(name),
            slot: None,
            retry_at: Instant::ZERO,
        };
        self.asks = names.iter().map(ask).collect();
    }

    /// Dials every address that isn't connected and is due.
    pub(super) fn keep_asking(&mut self, registry: &Registry, now: Instant) {
        for place in 0..self.asks.len() {
            let ask = &mut self.asks[place];
            let (None, Some(address)) = (ask.slot, ask.address) else {
                continue;
            };
            if ask.retry_at > now {
                continue;
            }
            ask.retry_at = now.after(limits::JOIN_RETRY);
            let slot = self.slots.vacant_key();
            let token = Token(self.first_token + slot);
            let connection = TcpStream::connect(address).and_then(|stream| {
                sockets::tune_peer(&stream);
                let mut connection = PeerConnection::to_anyone(stream, now);
                connection.register(registry, token)?;
                Ok(connection)
            });
            match connection {
                Ok(connection) => {
                    self.slots.insert(connection);
                    ask.slot = Some(slot);
                }
                Err(error) => log::debug!("nobody can be asked at {}: {error}", ask.name),
            }
        }
    }

    /// When [`keep_asking`](Peers::keep_asking) wants to be called.
    pub(super) fn asking_deadline(&self) -> Instant {
        let due = self.asks.iter().filter(|ask| ask.slot.is_none() && ask.address.is_some());
        due.map(|ask| ask.retry_at).min().unwrap_or(Instant::NEVER)
    }

    /// The connection in a slot is gone.
    pub(super) fn stop_asking(&mut self, slot: usize, now: Instant) {
        for ask in self.asks.iter_mut().filter(|ask| ask.slot == Some(slot)) {
            ask.slot = None;
            ask.retry_at = now.after(limits::JOIN_RETRY);
        }
    }
}
