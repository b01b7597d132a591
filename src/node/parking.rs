//! Commands that wait on their connection (are *parked*) because one before them holds them up.
//!
//! Behind a held read or a CLIENT PAUSE it is this node that makes them wait: past a bound no
//! client's socket is read, and TCP does the rest. Behind a WAIT, a SAVE or a DEBUG SLEEP it is the
//! client itself that asked to wait, perhaps for ever, and nobody else may suffer for what it sends
//! meanwhile: past a bound of its own it is cut off, as Redis does past `client-query-buffer-limit`.
//! Called by `pipeline.rs` and `node.rs`.

use std::ops::Range;

use super::node::Node;
use super::{Effect, Requests};
use crate::limits;
use crate::testing::{Mark, reached};
use crate::types::{ClientId, Instant};

/// Bytes of parked commands.
#[derive(Default, Debug)]
pub struct ParkedBytes {
    /// Of connections that this node makes wait.
    behind_node: usize,
    /// Of connections that wait because they asked to.
    behind_themselves: usize,
}

impl ParkedBytes {
    /// Whether clients' sockets may be read on.
    pub fn has_room(&self) -> bool {
        self.behind_node < limits::GATEWAY_WAITING_BYTES
    }

    /// Bytes of connections that this node makes wait.
    pub fn behind_node(&self) -> usize {
        self.behind_node
    }

    /// Bytes of connections that wait because they asked to.
    pub fn behind_themselves(&self) -> usize {
        self.behind_themselves
    }

    fn of(&mut self, parks_held: bool) -> &mut usize {
        match parks_held {
            true => &mut self.behind_themselves,
            false => &mut self.behind_node,
        }
    }
}

impl Node {
    /// Parks commands of one connection.
    pub(super) fn park(
        &mut self,
        id: ClientId,
        batch: &Requests,
        places: Range<usize>,
        looks_back: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(client) = self.clients.find(id) else {
            return;
        };
        reached(Mark::CommandParked);
        if client.parked.is_empty() {
            client.parks_watch = looks_back;
            client.parks_held = client.is_held;
        }
        let before = client.parked.bytes();
        for position in places {
            client.parked.push_from(batch, position);
        }
        let held = client.parked.bytes();
        let parks_held = client.parks_held;
        let of_all = self.parked_bytes.of(parks_held);
        *of_all += held - before;
        if parks_held && (held > limits::HELD_CLIENT_BYTES || *of_all > limits::HELD_BYTES) {
            let address = client.info.address;
            let most = limits::HELD_CLIENT_BYTES;
            let command = self.operations.holding.command_of(id);
            self.notice(format!(
                "closed the client at {address}: it has sent {held} bytes behind its {command} \
                 (at most {most} wait there)"
            ));
            self.drop_parked(id);
            self.clients.cut_off(id, effects);
        }
    }

    /// What held a connection's commands up is over.
    pub(super) fn take_parked(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for id in self.clients.take_unparked() {
            let parked = self.drop_parked(id);
            self.take_requests(now, &parked, effects);
        }
    }

    /// Takes a connection's parked commands from it.
    pub(super) fn drop_parked(&mut self, id: ClientId) -> Requests {
        let Some(client) = self.clients.find(id) else {
            return Requests::default();
        };
        let parked = std::mem::take(&mut client.parked);
        client.parks_watch = false;
        *self.parked_bytes.of(client.parks_held) -= parked.bytes();
        parked
    }
}
