//! The steps of a simulated server's turn, in the order that `driver/turn.rs` has them done.
//!
//! Design page 1, §5. What `loop/turn.rs` does with sockets and timers. Called by that order alone.

use super::super::link::Conversation;
use super::super::network::StreamId;
use super::{Output, Process};
use crate::driver;
use crate::driver::conversation::Flow;
use crate::driver::turn::{self, Steps};
use crate::limits;
use crate::node::Input;
use crate::storage::{SnapshotEvent, StorageError};
use crate::types::{ClientId, SnapshotKind};

impl Steps for Process {
    type Error = StorageError;

    fn read_clock(&mut self) {
        self.now = self.shown;
    }

    fn read_peers(&mut self) -> Result<(), StorageError> {
        for peer in std::mem::take(&mut self.lost) {
            self.handle(Input::PeerDown { peer });
        }
        for one in std::mem::take(&mut self.inbox) {
            self.open(self.now, one)?;
        }
        self.read_links()
    }

    /// Reads the clients in turn, as much as one turn takes; the next turn begins where this ends.
    fn read_clients(&mut self) {
        if !self.node.accepts_requests() {
            return;
        }
        let wants_read =
            |(id, client): (&StreamId, &Conversation)| client.wants_read().then_some(*id);
        let behind = self.clients.range(self.next_client..).filter_map(wants_read);
        let before = self.clients.range(..self.next_client).filter_map(wants_read);
        let due: Vec<StreamId> = behind.chain(before).collect();
        for id in due {
            self.next_client = id;
            if self.requests.cost() >= limits::TURN_BYTES {
                return;
            }
            if let Some(client) = self.clients.get_mut(&id)
                && client.read(&mut self.requests, &self.host) != Flow::Open
            {
                self.strikes.push(("nonsense-from-client", 1));
            }
        }
        self.next_client = StreamId(0);
    }

    fn complete_writes(&mut self) -> Result<(), StorageError> {
        if std::mem::take(&mut self.disk_ready) {
            while let Some(through) = self.storage.complete()? {
                self.handle(Input::Persisted { through });
            }
        }
        while let Some(event) = self.storage.next_snapshot_event() {
            self.strikes.push((strike(&event), 1));
            self.handle(driver::input(event));
        }
        Ok(())
    }

    fn tick(&mut self) {
        let now = self.now;
        if self.observe_at <= now {
            self.observe(now);
        }
        self.update_dials(now);
        self.keep_up(now);
        let room = self.storage.room();
        if room != self.room {
            self.room = room;
            self.handle(Input::LogRoom { room });
        }
        if turn::is_due(self.looked_at, |then| self.node.deadline(then)) {
            let wall = self.wall;
            self.handle(Input::Tick { wall });
        }
        let over: Vec<StreamId> =
            self.clients.iter().filter(|(_, c)| c.is_over()).map(|(id, _)| *id).collect();
        for stream in over {
            self.forget_client(stream);
        }
    }

    fn hand_over_requests(&mut self) {
        if !self.requests.is_empty() {
            let batch = std::mem::take(&mut self.requests);
            self.handle(Input::Requests { batch });
        }
        let drained: Vec<ClientId> =
            self.clients.values_mut().filter_map(|c| c.take_drained().then_some(c.id)).collect();
        for client in drained {
            self.handle(Input::Drained { client });
        }
        for client in std::mem::take(&mut self.gone) {
            self.slots[client.slot as usize] = false;
            self.handle(Input::ClientGone { client });
        }
        self.handle(Input::EndOfTurn);
    }

    fn check_storage(&mut self) -> Result<(), StorageError> {
        self.storage.check()
    }

    fn submit(&mut self) -> Result<(), StorageError> {
        if self.lives_on() {
            self.storage.submit()?;
            self.has_submitted = true;
        }
        Ok(())
    }

    fn flush_peers(&mut self) {
        let waiting = self.peers.iter().filter(|(_, link)| link.wants_flush());
        let waiting: Vec<StreamId> = waiting.map(|(id, _)| *id).collect();
        for stream in waiting {
            if !self.lives_on() {
                return;
            }
            let link = self.peers.get_mut(&stream).expect("just seen");
            let bytes = link.flush();
            if link.waits_writable {
                self.strikes.push(("short-write", 1));
            }
            if !bytes.is_empty() {
                self.outputs.push(match std::mem::take(&mut link.greets) {
                    true => Output::Greet(stream, bytes),
                    false => Output::Send(stream, bytes),
                });
            }
        }
    }

    fn flush_clients(&mut self) {
        let Process { clients, outputs, left, .. } = self;
        for (stream, client) in clients {
            if *left == 0 {
                return;
            }
            if !client.out.is_empty() && !client.is_stuck {
                *left -= 1;
                outputs.push(Output::Send(*stream, std::mem::take(&mut client.out).into()));
            }
            if client.is_closing && !client.is_closed {
                client.is_closed = true;
                outputs.push(Output::Close(*stream));
            }
        }
    }
}

/// What became of a snapshot, for the summary.
fn strike(event: &SnapshotEvent) -> &'static str {
    match event {
        SnapshotEvent::Written { .. } => "snapshot-written",
        SnapshotEvent::Durable { kind: SnapshotKind::Own, .. } => "snapshot-taken",
        SnapshotEvent::Durable { kind: SnapshotKind::Received, .. } => "snapshot-received",
        SnapshotEvent::Full { .. } => "snapshot-without-space",
        SnapshotEvent::Read { .. } => "snapshot-read",
    }
}
