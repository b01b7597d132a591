//! The clients of this node: what each connection is set to, and its unanswered commands in order.
//!
//! A connection gets its replies in the order of its commands, whatever order they are decided in:
//! each command has a slot, and slots leave from the front. Called by the gateway; never touches a
//! socket.

use std::collections::VecDeque;

use bytes::Bytes;

use super::listeners::Listeners;
use super::listings::Listings;
use super::server::SILENCE;
use super::transactions::Block;
use super::{ClientInfo, Effect, Requests};
use crate::kv::connection::ReadMode;
use crate::limits;
use crate::proto::reply::{Protocol, Reply};
use crate::types::{ClientId, Instant, LogIndex};

/// Whose command it is, and which: an answer finds its way by this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The client.
    pub client: ClientId,
    /// The number of its command on that connection.
    slot: u64,
}

impl Origin {
    /// Commands of one connection have growing numbers.
    pub fn number(self) -> u64 {
        self.slot
    }

    /// An origin whose client isn't there.
    #[cfg(test)]
    pub fn nobody() -> Origin {
        Origin { client: ClientId { slot: 0, generation: 0 }, slot: 0 }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// What the driver knows of it.
    pub info: ClientInfo,
    /// The protocol that its next reply is written in.
    pub protocol: Protocol,
    /// `CLIENT SETNAME`
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`
    pub library_name: String,
    /// `CLIENT SETINFO LIB-VER`
    pub library_version: String,
    /// How it reads.
    pub read_mode: ReadMode,
    /// `CLIENT REPLY OFF`: its commands are not answered.
    pub is_silent: bool,
    /// `CLIENT REPLY SKIP`: nor is its next one.
    pub skips_next: bool,
    /// `CLIENT CAPA redirect`: it goes to the leader where it is told to.
    pub takes_redirects: bool,
    /// It waits in WAIT or DEBUG SLEEP: what it sends is parked.
    pub is_held: bool,
    /// The log entry of the newest of its writes that was applied.
    pub last_write: LogIndex,
    /// Its last command, as the table names it.
    pub last_command: &'static str,
    /// When it connected.
    pub since: Instant,
    /// When it last sent a command.
    pub active: Instant,
    /// Reads that wait for their read index.
    pub reading: usize,
    /// Commands in batches that are not yet applied: writes, and reads behind them.
    pub writing: usize,
    /// Commands that wait until no read before them is held; for a WATCH, until nothing before it
    /// is unanswered.
    pub parked: Requests,
    /// Whether a WATCH is the first of these.
    pub parks_watch: bool,
    /// Whether they wait for as long as the client itself asked to (`is_held`).
    pub parks_held: bool,
    /// What it has queued between MULTI and EXEC, and what it watches.
    pub block: Block,
    /// Nothing more is taken from it; it is closed behind its last reply.
    pub closing: bool,
    generation: u32,
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first_slot: u64,
    /// Bytes of replies that wait in their slots.
    held_bytes: usize,
    /// Bytes of replies that left in the turn of that number.
    left_bytes: usize,
    left_in: u64,
    /// It asked for more at once than may wait for one client: nothing more is answered.
    is_cut_off: bool,
    /// Bytes of pushes that its socket is not known to have taken.
    pushed_bytes: usize,
}

#[derive(Debug)]
enum Slot {
    /// A command, answered or not.
    Command { protocol: Protocol, reply: Option<Reply>, is_silent: bool },
    /// What no command asked for: it leaves behind the replies to all commands before it, so that
    /// nobody is told of a change to what it has yet to be told.
    Push(Bytes),
}

/// All connections, by the driver's dense slots.
#[derive(Default, Debug)]
pub struct Clients {
    connections: Vec<Option<Client>>,
    count: usize,
    /// The answers that take several turns.
    pub listings: Listings,
    /// Who is told of changes.
    pub listeners: Listeners,
    /// Bytes of pushes to all clients that no socket is known to have taken.
    pushed_bytes: usize,
    /// Turns so far.
    turn: u64,
    /// Those whose parked commands may go on.
    unparked: Vec<ClientId>,
    /// What all of them have queued and watch.
    block_bytes: usize,
}

impl Clients {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// A client connected.
    pub fn arrive(&mut self, now: Instant, id: ClientId, info: ClientInfo) {
        let place = id.slot as usize;
        if self.connections.len() <= place {
            self.connections.resize_with(place + 1, || None);
        }
        let client = Client {
            info,
            protocol: Protocol::Resp2,
            name: String::new(),
            library_name: String::new(),
            library_version: String::new(),
            read_mode: ReadMode::Linearizable,
            is_silent: false,
            skips_next: false,
            takes_redirects: false,
            is_held: false,
            last_write: LogIndex::ZERO,
            last_command: "NULL",
            since: now,
            active: now,
            reading: 0,
            writing: 0,
            parked: Requests::default(),
            parks_watch: false,
            parks_held: false,
            block: Block::default(),
            closing: false,
            generation: id.generation,
            slots: VecDeque::new(),
            first_slot: 0,
            held_bytes: 0,
            left_bytes: 0,
            left_in: 0,
            is_cut_off: false,
            pushed_bytes: 0,
        };
        let before = self.connections[place].replace(client);
        assert!(before.is_none(), "the driver says that a client is gone before it reuses a slot");
        self.count += 1;
    }

    /// A client's connection is gone.
    pub fn leave(&mut self, id: ClientId) {
        let Some(client) = self.find(id) else {
            return;
        };
        self.pushed_bytes -= std::mem::take(&mut client.pushed_bytes);
        self.take_block(id);
        self.listeners.leave(id);
        self.connections[id.slot as usize] = None;
        self.count -= 1;
    }

    /// The client, if it is still there.
    pub fn find(&mut self, id: ClientId) -> Option<&mut Client> {
        let client = self.connections.get_mut(id.slot as usize)?.as_mut()?;
        (client.generation == id.generation).then_some(client)
    }

    /// The client to look at, if it is still there.
    pub fn get(&self, id: ClientId) -> Option<&Client> {
        let client = self.connections.get(id.slot as usize)?.as_ref()?;
        (client.generation == id.generation).then_some(client)
    }

    /// The client that `CLIENT ID` answers this number to.
    pub fn find_by_number(&self, number: u64) -> Option<ClientId> {
        let mut all = self.iter_with_ids();
        all.find_map(|(id, client)| (client.info.id == number).then_some(id))
    }

    /// All clients, by slot, with what names them.
    pub fn iter_with_ids(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.connections.iter().enumerate().filter_map(|(slot, client)| {
            let client = client.as_ref()?;
            let slot = u32::try_from(slot).expect("the driver's slots are 32 bits wide");
            Some((ClientId { slot, generation: client.generation }, client))
        })
    }

    /// Takes the next place in the client's order of replies.
    pub fn open_slot(&mut self, id: ClientId) -> Option<Origin> {
        let client = self.find(id)?;
        let slot = client.first_slot + client.slots.len() as u64;
        let is_silent = client.is_silent | std::mem::take(&mut client.skips_next);
        let protocol = client.protocol;
        client.slots.push_back(Slot::Command { protocol, reply: None, is_silent });
        Some(Origin { client: id, slot })
    }

    /// The turn is over: its replies are the driver's now.
    pub fn end_turn(&mut self) {
        self.turn += 1;
    }

    /// Whether anybody is left to be answered. Who is not costs no evaluation.
    pub fn awaits(&mut self, origin: Origin) -> bool {
        self.find(origin.client).is_some_and(|client| !client.is_cut_off)
    }

    /// Answers a command; whatever may leave now does. Nothing happens if the client is gone. One
    /// that is owed more than may wait for a client is closed: a packet of short reads can ask for
    /// more memory than there is, and the driver sees replies only when all of them are made.
    pub fn answer(&mut self, origin: Origin, reply: Reply, effects: &mut Vec<Effect>) {
        let turn = self.turn;
        let Some(client) = self.find(origin.client).filter(|client| !client.is_cut_off) else {
            return;
        };
        if client.left_in != turn {
            (client.left_in, client.left_bytes) = (turn, 0);
        }
        if client.held_bytes + client.left_bytes > limits::CLIENT_OUTPUT_BYTES {
            self.cut_off(origin.client, effects);
            return;
        }
        let place = origin.slot.checked_sub(client.first_slot).expect("a slot is answered once");
        let slot = client.slots.get_mut(place as usize).expect("an origin names an opened slot");
        let Slot::Command { reply: answer, is_silent, .. } = slot else {
            unreachable!("an origin names a command's slot");
        };
        assert!(answer.is_none(), "exactly-once: a command has one reply");
        let reply = if *is_silent { SILENCE } else { reply };
        client.held_bytes += reply.payload_bytes();
        *answer = Some(reply);
        client.release(origin.client, effects);
        if client.closing && client.slots.is_empty() {
            effects.push(Effect::Close { client: origin.client });
        }
    }

    /// The protocol in which a client can be told more of what it didn't ask for; `None` while it
    /// has not taken what it was told before, or all clients together haven't.
    pub fn pushes_in(&mut self, id: ClientId) -> Option<Protocol> {
        let has_room = self.pushed_bytes < limits::PUSHED_BYTES;
        let client = self.find(id).filter(|client| !client.closing)?;
        (has_room && client.pushed_bytes < limits::PUSH_WINDOW_BYTES).then_some(client.protocol)
    }

    /// The protocol that a client speaks, unless it is about to be closed.
    pub fn protocol(&mut self, id: ClientId) -> Option<Protocol> {
        self.find(id).filter(|client| !client.closing).map(|client| client.protocol)
    }

    /// Tells a client something that can't be told later. One that doesn't take it is closed.
    pub fn push_or_cut(&mut self, id: ClientId, bytes: Bytes, effects: &mut Vec<Effect>) {
        let is_full = self.pushed_bytes >= limits::PUSHED_BYTES;
        let Some(client) = self.find(id) else { return };
        if is_full || client.pushed_bytes > limits::PUSH_LIMIT_BYTES {
            self.cut_off(id, effects);
        } else {
            self.push(id, bytes, effects);
        }
    }

    /// Tells a client something that no command asked for, encoded in its protocol.
    pub fn push(&mut self, id: ClientId, bytes: Bytes, effects: &mut Vec<Effect>) {
        let length = bytes.len();
        let Some(client) = self.find(id).filter(|client| !client.closing) else {
            return;
        };
        client.pushed_bytes += length;
        if client.slots.is_empty() {
            effects.push(Effect::Push { client: id, bytes });
        } else {
            client.held_bytes += length;
            client.slots.push_back(Slot::Push(bytes));
        }
        self.pushed_bytes += length;
    }

    /// Bytes of pushes that no socket is known to have taken.
    pub fn pushed_bytes(&self) -> usize {
        self.pushed_bytes
    }

    /// The driver's buffer for a client is empty.
    pub fn drained(&mut self, id: ClientId) {
        let Some(client) = self.find(id) else { return };
        let held = client.slots.iter().map(|slot| match slot {
            Slot::Push(bytes) => bytes.len(),
            Slot::Command { .. } => 0,
        });
        let left = held.sum::<usize>();
        let taken = client.pushed_bytes - left;
        client.pushed_bytes = left;
        self.pushed_bytes -= taken;
        self.listeners.watches.drained(id);
    }

    /// Closes the client at once: what it awaits is not answered.
    pub fn cut_off(&mut self, id: ClientId, effects: &mut Vec<Effect>) {
        let Some(client) = self.find(id).filter(|client| !client.is_cut_off) else {
            return;
        };
        client.is_cut_off = true;
        client.closing = true;
        client.slots.clear();
        effects.push(Effect::Close { client: id });
    }

    /// Closes the client behind its last reply; nothing more is taken from it.
    pub fn close(&mut self, id: ClientId, effects: &mut Vec<Effect>) {
        let Some(client) = self.find(id) else { return };
        if client.closing {
            return;
        }
        client.closing = true;
        if client.slots.is_empty() {
            effects.push(Effect::Close { client: id });
        }
    }

    /// One of the client's held reads was answered.
    pub fn read_done(&mut self, id: ClientId) {
        if let Some(client) = self.find(id) {
            client.reading = client.reading.checked_sub(1).expect("each held read was counted");
            self.unpark(id);
        }
    }

    /// One of the client's commands left its batch.
    pub fn write_done(&mut self, id: ClientId) {
        self.leave_batch(id, None);
    }

    /// One of the client's commands was applied in this entry.
    pub fn write_applied(&mut self, id: ClientId, index: LogIndex) {
        self.leave_batch(id, Some(index));
    }

    fn leave_batch(&mut self, id: ClientId, applied: Option<LogIndex>) {
        if let Some(client) = self.find(id) {
            client.writing = client.writing.checked_sub(1).expect("each batched command counted");
            client.last_write = applied.unwrap_or(client.last_write);
            if client.parks_watch {
                self.unpark(id);
            }
        }
    }

    /// The client's WAIT is over.
    pub fn released(&mut self, id: ClientId) {
        if let Some(client) = self.find(id) {
            client.is_held = false;
            self.unpark(id);
        }
    }

    /// Lets everybody's parked commands go on who waits for nothing else.
    pub fn unpark_all(&mut self) {
        let parked = |(_, client): &(ClientId, &Client)| !client.parked.is_empty();
        let ids: Vec<ClientId> = self.iter_with_ids().filter(parked).map(|(id, _)| id).collect();
        for id in ids {
            self.unpark(id);
        }
    }

    /// Lets the client's parked commands go on if what they waited for has come.
    fn unpark(&mut self, id: ClientId) {
        let Some(client) = self.find(id) else { return };
        let is_free =
            !client.is_held && client.reading == 0 && (client.writing == 0 || !client.parks_watch);
        if is_free && !client.parked.is_empty() {
            self.unparked.push(id);
        }
    }

    /// Whether clients may queue and watch so many bytes more; they are counted if so.
    pub fn reserve_block(&mut self, bytes: usize) -> bool {
        let fits = self.block_bytes + bytes <= limits::TRANSACTIONS_BYTES;
        if fits {
            self.block_bytes += bytes;
        }
        fits
    }

    /// Ends what a client has queued and watches.
    pub fn take_block(&mut self, id: ClientId) -> Block {
        let block = self.find(id).map(|client| std::mem::take(&mut client.block));
        let block = block.unwrap_or_default();
        self.block_bytes -= block.bytes();
        block
    }

    /// Whether parked commands of somebody may go on.
    pub fn has_unparked(&self) -> bool {
        !self.unparked.is_empty()
    }

    /// Those whose parked commands may go on, now told.
    pub fn take_unparked(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.unparked)
    }
}

impl Client {
    /// Whether it is as good as gone: nothing more is answered to it.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// The number of the slot that was opened last.
    pub fn newest_slot(&self) -> Option<u64> {
        let behind = self.first_slot + self.slots.len() as u64;
        behind.checked_sub(1)
    }

    /// Commands are answered again, the one just opened among them.
    pub fn speak_again(&mut self) {
        self.is_silent = false;
        self.skips_next = false;
        if let Some(Slot::Command { is_silent, .. }) = self.slots.back_mut() {
            *is_silent = false;
        }
    }

    /// The protocol of the command just opened follows a change of the connection's: `HELLO` is
    /// answered in the version that it asks for.
    pub fn retag_last_slot(&mut self) {
        if let Some(Slot::Command { protocol, .. }) = self.slots.back_mut() {
            *protocol = self.protocol;
        }
    }

    /// Lets everything leave that waits for nothing.
    fn release(&mut self, id: ClientId, effects: &mut Vec<Effect>) {
        while let Some(Slot::Command { reply: Some(_), .. } | Slot::Push(_)) = self.slots.front() {
            self.first_slot += 1;
            let bytes = match self.slots.pop_front() {
                Some(Slot::Command { protocol, reply: Some(reply), .. }) => {
                    let bytes = reply.payload_bytes();
                    effects.push(Effect::Reply { client: id, protocol, reply });
                    bytes
                }
                Some(Slot::Push(bytes)) => {
                    let length = bytes.len();
                    effects.push(Effect::Push { client: id, bytes });
                    length
                }
                _ => unreachable!("just seen"),
            };
            self.held_bytes -= bytes;
            self.left_bytes += bytes;
        }
    }
}
