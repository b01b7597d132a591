//! One turn of the loop, in the order of design page 1, §5.
//!
//! [`Server::turn`] is the plot; each step is a function below it, in the same order. Called by
//! [`Server::run`]. Never waits for anything but the poll.

use std::io::ErrorKind;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};

use super::peer::Fault;
use super::{
    CLIENT_PORT, FIRST_CLIENT, FIRST_PEER, LoopError, News, PEER_PORT, SIGNALS, STORAGE, Server,
    facts,
};
use crate::limits;
use crate::node::{Effect, Facts, Input};
use crate::proto::hello::{Hello, HelloRefused, Refusal};
use crate::types::{Instant, ServerId};

impl Server {
    /// One turn. Returns whether it was the last one.
    pub(super) fn turn(&mut self) -> Result<bool, LoopError> {
        self.wait()?;
        self.hear_signals()?;
        self.accept();
        self.read_peers()?;
        self.clients_say();
        self.complete_writes()?;
        self.tick()?;
        self.hand_over_requests();
        self.carry_out()?;
        self.before_sleep()?;
        self.log_leadership();
        Ok(self.may_end())
    }

    /// Step 1: until something happens or is due. What happened is noted, not yet acted upon.
    fn wait(&mut self) -> Result<(), LoopError> {
        let timeout = self.timeout();
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(LoopError::Poll(error)),
        }
        self.now = self.clock.now();
        for event in &self.events {
            match event.token() {
                CLIENT_PORT => self.listeners.client.on_event(),
                PEER_PORT => self.listeners.peer.on_event(),
                STORAGE => self.storage_ready = true,
                // They are asked in any case.
                SIGNALS => {}
                token if token.0 >= FIRST_CLIENT => {
                    self.clients.on_event(token.0 - FIRST_CLIENT, event);
                }
                token => {
                    let slot = token.0 - FIRST_PEER;
                    let node = &self.node;
                    self.peers.on_event(slot, event, |peer| node.hello_to(peer), self.now);
                }
            }
        }
        Ok(())
    }

    /// Nothing is waited for while there is something left to do.
    fn timeout(&self) -> Option<Duration> {
        let clients_wait = self.clients.has_ready() && self.node.accepts_requests();
        let unfinished = self.peers.has_ready()
            || self.peers.has_lost()
            || self.clients.has_gone()
            || clients_wait;
        if unfinished {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.node.deadline(),
            self.peers.deadline(),
            self.clients.deadline(),
            self.listeners.client.deadline(),
            self.listeners.peer.deadline(),
            self.observe_at,
            self.stop.unwrap_or(Instant::NEVER),
        ];
        let next = deadlines.into_iter().min().expect("the list is not empty");
        Some(next.since(self.clock.now()))
    }
}
