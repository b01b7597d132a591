//! One turn of the loop, in the order of design page 1, §5.
//!
//! [`Server::turn`] is the plot, with [`turn`], which the simulator has in common with it; each step
//! is a function below it, those of [`Steps`] last. Called by [`Server::run`]. Never waits for
//! anything but the poll.

use std::io::ErrorKind;
use std::time::Duration;

use mio::event::Event;

use super::peer::Fault;
use super::{
    CLIENT_PORT, FIRST_CLIENT, FIRST_PEER, LoopError, PEER_PORT, SIGNALS, STORAGE, Server, facts,
    snapshots,
};
use crate::driver;
use crate::driver::peers::News;
use crate::driver::turn::{self, Steps};
use crate::limits;
use crate::node::{Effect, Facts, Input};
use crate::proto::hello::{Hello, HelloRefused, Refusal};
use crate::storage::{SnapshotEvent, allocator};
use crate::types::{Instant, Room};

/// How the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// With another turn.
    GoOn,
    /// It was asked to end, and everything is done or the time for it is over.
    Ended,
    /// Its directory is an old copy.
    OldCopy,
}

impl Server {
    /// One turn.
    pub(super) fn turn(&mut self) -> Result<Turn, LoopError> {
        self.wait()?;
        let began = self.now;
        self.hear_signals()?;
        self.accept();
        turn::hear(self)?;
        turn::decide(self);
        let has_appended = self.carry_out()?;
        self.has_appended |= has_appended;
        turn::send_out(self, !has_appended && self.node.raft().is_leader())?;
        for notice in self.node.take_notices() {
            log::warn!("{notice}");
        }
        self.log_leadership();
        self.log_disk();
        self.snapshot_lines.log(&self.node.status());
        self.note_turn(began);
        Ok(self.verdict())
    }

    /// Step 1: until something happens or is due. What happened is noted, not yet acted upon.
    fn wait(&mut self) -> Result<(), LoopError> {
        loop {
            let (timeout, asked_at) = self.timeout();
            match self.poll.poll(&mut self.events, timeout) {
                // The kernel's own work on our disk writes does this, too: that is no turn.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.map_err(LoopError::Poll)?,
            }
            // Nor is the first half of a synced write: both the write and the sync are reported.
            let of_storage = |event: &Event| event.token() == STORAGE;
            let alone = !self.events.is_empty() && self.events.iter().all(of_storage);
            if !alone || self.storage.has_completion()? {
                self.now = self.clock.now();
                // All that had come when it was asked is reported; when it has waited in vain, there
                // was nothing. What came behind its last look, while the process stood still, is not.
                self.looked_at = if self.events.is_empty() { self.now } else { asked_at };
                break;
            }
        }
        for event in &self.events {
            match event.token() {
                CLIENT_PORT => self.listeners.client.on_event(),
                PEER_PORT => self.listeners.peer.on_event(),
                STORAGE => self.storage_ready = true,
                SIGNALS => self.signals_ready = true,
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

    /// How long to wait, and what time it is. Nothing is waited for while there is something left to
    /// do.
    fn timeout(&self) -> (Option<Duration>, Instant) {
        let now = self.clock.now();
        let clients_wait = self.clients.has_ready() && self.node.accepts_requests();
        let unfinished = self.storage.has_snapshot_event()
            || self.peers.has_ready()
            || self.peers.has_lost()
            || self.clients.has_told()
            || self.clients.has_gone()
            || self.clients.has_drained()
            || (self.node.is_asked_to_stop() && self.stop.is_none())
            || clients_wait;
        if unfinished {
            return (Some(Duration::ZERO), now);
        }
        let deadlines = [
            self.node.deadline(now),
            self.peers.deadline(),
            self.clients.deadline(),
            self.listeners.client.deadline(),
            self.listeners.peer.deadline(),
            self.observe_at,
            self.stop.unwrap_or(Instant::NEVER),
        ];
        let next = deadlines.into_iter().min().expect("the list is not empty");
        (Some(next.since(now)), now)
    }

    /// The first signal asks the node to leave well and closes the client port, unless a client's
    /// SHUTDOWN has done so; a second one ends the process.
    fn hear_signals(&mut self) -> Result<(), LoopError> {
        if self.node.is_asked_to_stop() && self.stop.is_none() {
            log::info!("asked to stop by a client's SHUTDOWN");
            self.begin_to_stop();
        }
        if !std::mem::take(&mut self.signals_ready) {
            return Ok(());
        }
        let signals = self.signals.pending().count();
        if signals == 0 {
            return Ok(());
        }
        if signals > 1 || self.is_signalled {
            return Err(LoopError::Interrupted);
        }
        self.is_signalled = true;
        if self.stop.is_some() {
            return Ok(());
        }
        log::info!("asked to stop");
        self.begin_to_stop();
        Ok(())
    }

    fn begin_to_stop(&mut self) {
        self.stop = Some(self.now.after(limits::STOP_TIMEOUT));
        self.listeners.client.close();
        self.handle(Input::Stop);
    }

    fn accept(&mut self) {
        let Server { listeners, clients, peers, node, effects, poll, now, .. } = self;
        let registry = poll.registry();
        listeners.peer.accept(*now, |stream, _| peers.admit(stream, registry, *now));
        listeners.client.accept(*now, |stream, address| {
            if let Some((client, info)) = clients.admit(stream, address, registry, *now) {
                node.handle(*now, Input::ClientArrived { client, info }, effects);
            }
        });
    }

    fn hear_peer(&mut self, slot: usize) -> Result<(), LoopError> {
        let mut news = std::mem::take(&mut self.news);
        for item in news.drain(..) {
            match item {
                News::Hello(hello) => self.greet_peer(slot, &hello)?,
                News::Refused(refused) => {
                    if self.peers.is_dialled_or_known(slot) {
                        let peer = self.peers.peer(slot);
                        log::debug!("our hello is not accepted: {}", refused.text);
                        if refused.code == Refusal::OldCopy {
                            self.storage.note_old_copy()?;
                            log::error!("{}", refused.text);
                            self.is_old_copy = true;
                        }
                        self.node.hello_refused(self.now, peer, &refused);
                    }
                    let fault = match refused.code {
                        Refusal::Sender => Fault::Stranger,
                        _ => Fault::NotAccepted,
                    };
                    self.end_peer(slot, fault);
                }
                News::Packet(packet) => match self.peers.established_peer(slot) {
                    Some(peer) if peer == packet.envelope.from => {
                        self.handle(Input::Receive { packet });
                    }
                    Some(_) => self.end_peer(slot, Fault::WrongSender(packet.envelope.from)),
                    // The connection was ended by something it said before.
                    None => {}
                },
            }
        }
        // The emptied list keeps its memory.
        self.news = news;
        Ok(())
    }

    /// A hello is accepted once the node says so and what it asks to be remembered is durable.
    fn greet_peer(&mut self, slot: usize, hello: &Hello) -> Result<(), LoopError> {
        if !self.peers.may_greet(slot, hello.sender) {
            let text = format!("this connection was not made to server {}", hello.sender);
            self.refuse_peer(slot, &HelloRefused { code: Refusal::Sender, text });
            return Ok(());
        }
        let verdict = match self.node.judge_hello(self.now, hello) {
            Ok(verdict) => verdict,
            Err(refused) => {
                self.refuse_peer(slot, &refused);
                return Ok(());
            }
        };
        if let Some(refused) = driver::remember(&verdict, &mut self.node, &mut self.storage)? {
            self.refuse_peer(slot, &refused);
            return Ok(());
        }
        let answer = self.node.hello_to(verdict.peer);
        if self.peers.gives_way(slot, verdict.peer, verdict.record.is_some()) {
            self.end_peer(slot, Fault::Replaced);
            return Ok(());
        }
        if let Some(peer) = self.peers.establish(slot, verdict.peer, &answer, self.now) {
            self.handle(Input::PeerDown { peer });
        }
        self.handle(Input::PeerUp { peer: verdict.peer, incarnation: verdict.incarnation });
        Ok(())
    }

    fn refuse_peer(&mut self, slot: usize, refused: &HelloRefused) {
        log::debug!("refused the hello of a server: {}", refused.text);
        self.peers.refuse(slot, refused, self.poll.registry(), self.now);
    }

    fn end_peer(&mut self, slot: usize, fault: Fault) {
        if let Some(peer) = self.peers.close(slot, fault, self.now) {
            self.handle(Input::PeerDown { peer });
        }
    }

    fn observe(&mut self) {
        self.observe_at = self.now.after(limits::OBSERVE_INTERVAL);
        self.give_back_in_a_quiet_moment();
        self.update_peers();
        if self.room != Room::Ample {
            // It may answer in this call or with a later completion.
            self.storage.retry_room();
            self.storage_ready = true;
        }
        let (cpu_user_us, cpu_system_us) = facts::processor_times_us();
        let figures = self.clients.figures();
        let facts = Facts {
            storage_engine: self.storage.engine().0,
            resident_bytes: facts::resident_bytes(),
            process_id: std::process::id(),
            client_port: self.listeners.client.address().port(),
            cpu_user_us,
            cpu_system_us,
            connections_accepted: figures.accepted,
            connections_refused: figures.refused,
            client_input_bytes: figures.input_bytes,
            client_output_bytes: figures.output_bytes,
            peer_rejects: self.peers.violations() + figures.violations,
            longest_turn: self.longest_turn,
        };
        self.handle(Input::Observed { facts });
    }

    /// Where nothing was written for a while, what the writing took and left goes back, once.
    fn give_back_in_a_quiet_moment(&mut self) {
        if std::mem::take(&mut self.has_appended) {
            self.has_freed = true;
        } else if self.has_freed {
            self.has_freed = allocator::give_back();
        }
    }

    /// Whom the node wants connections with.
    fn update_peers(&mut self) {
        self.peers_stamp = self.node.peers_stamp();
        self.peers.update(&self.node.peers(), self.now);
        self.peers.ask_at(self.node.asks_to_join());
        let node = &self.node;
        self.peers.forget(|peer| node.knows(peer), self.now);
    }

    fn note_room(&mut self) {
        let room = self.storage.room();
        if room == self.room {
            return;
        }
        log::warn!("room for the log: {room:?}");
        self.room = room;
        self.handle(Input::LogRoom { room });
    }

    /// Step 6: the effects, in list order, none of them conditional. Whether the log is to be
    /// written.
    fn carry_out(&mut self) -> Result<bool, LoopError> {
        let mut has_appended = false;
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Persist { seq, write } => {
                    has_appended = true;
                    self.storage.append(seq, &write);
                }
                Effect::Send { packet } => self.peers.send(&packet, self.now),
                Effect::Reply { client, protocol, reply } => {
                    self.clients.reply(client, protocol, &reply);
                }
                Effect::Push { client, bytes } => self.clients.push(client, &bytes, self.now),
                Effect::Close { client } => self.clients.close(client, self.now),
                effect => {
                    driver::carry_out(effect, &mut self.storage)?;
                }
            }
        }
        Ok(has_appended)
    }

    /// Whether this was the last turn.
    fn verdict(&self) -> Turn {
        if self.is_old_copy {
            return Turn::OldCopy;
        }
        let Some(latest) = self.stop else {
            return Turn::GoOn;
        };
        let left_well = self.node.may_exit() && self.clients.all_flushed();
        match left_well || latest <= self.now {
            true => Turn::Ended,
            false => Turn::GoOn,
        }
    }

    /// While a turn lasts, nobody else is heard: how long the longest one took is a figure to watch.
    fn note_turn(&mut self, began: Instant) {
        let took = self.clock.now().since(began);
        if took <= self.longest_turn {
            return;
        }
        self.longest_turn = took;
        if took > limits::LONG_TURN {
            log::info!("a turn of the loop took {} ms, longer than any before", took.as_millis());
        }
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(self.now, input, &mut self.effects);
    }
}

impl Steps for Server {
    type Error = LoopError;

    fn read_clock(&mut self) {
        self.now = self.clock.now();
    }

    /// Step 2, peers: each message is the node's as it comes. An end of a connection is news that
    /// cannot wait: the election after a leader's death begins here.
    fn read_peers(&mut self) -> Result<(), LoopError> {
        for peer in self.peers.take_lost() {
            self.handle(Input::PeerDown { peer });
        }
        for slot in self.peers.take_ready() {
            let mut budget = limits::READ_BUDGET_BYTES;
            while budget > 0 {
                let read = self.peers.read(slot, &mut self.scratch, &mut self.news);
                if !self.news.is_empty() {
                    turn::has_read(self);
                }
                // What came before a fault was said all the same.
                self.hear_peer(slot)?;
                match read {
                    Ok(0) => break,
                    Ok(count) => budget = budget.saturating_sub(count),
                    Err(fault) => {
                        self.end_peer(slot, fault);
                        break;
                    }
                }
            }
            self.peers.settle(slot);
        }
        Ok(())
    }

    /// Step 2, clients: their commands are gathered. While the node's window is full they stay in
    /// the sockets, and TCP does the rest.
    fn read_clients(&mut self) {
        if self.node.accepts_requests() {
            self.clients.read_queries(self.now, &mut self.scratch, &mut self.requests);
        }
    }

    /// Step 3: what has become durable, and whether there is room for more.
    fn complete_writes(&mut self) -> Result<(), LoopError> {
        // What ends while this looks is reported anew, and taken in the next turn.
        if std::mem::take(&mut self.storage_ready)
            && let Some(through) = self.storage.complete()?
        {
            self.handle(Input::Persisted { through });
        }
        // A piece of a snapshot that is gone is answered with nothing under way that could complete.
        while let Some(event) = self.storage.next_snapshot_event() {
            snapshots::log_event(&event);
            let is_whole = matches!(event, SnapshotEvent::Durable { .. });
            self.handle(driver::input(event));
            if is_whole {
                // Old records and a part of the log were kept for it.
                allocator::give_back();
            }
        }
        Ok(())
    }

    /// Step 4: time, after everything that waited in the sockets was heard, so that our own pause is
    /// never taken for a dead leader.
    fn tick(&mut self) {
        if self.observe_at <= self.now {
            self.observe();
        }
        if self.peers_stamp != self.node.peers_stamp() {
            self.update_peers();
        }
        self.peers.keep_up(self.poll.registry(), self.now);
        self.clients.set_bounds(self.node.client_bounds());
        self.clients.sweep(self.now);
        self.note_room();
        if turn::is_due(self.looked_at, |then| self.node.deadline(then)) {
            // The wall clock first: who then stands still takes it for older than it is, which puts
            // deadlines off; the other way round keys would expire early.
            let wall = self.clock.wall();
            self.read_clock();
            self.handle(Input::Tick { wall });
        }
    }

    /// Step 5: all commands of this turn in one piece, then the news of connections that ended
    /// (after their last commands, so that the node never meets a command of a forgotten client).
    /// Behind them the node says what it wants done.
    fn hand_over_requests(&mut self) {
        if !self.requests.is_empty() {
            let batch = std::mem::take(&mut self.requests);
            self.handle(Input::Requests { batch });
        }
        let Server { clients, node, effects, now, .. } = self;
        clients.tell_drained(|client| node.handle(*now, Input::Drained { client }, effects));
        clients.forget_gone(|client| node.handle(*now, Input::ClientGone { client }, effects));
        self.handle(Input::EndOfTurn);
    }

    fn check_storage(&mut self) -> Result<(), LoopError> {
        Ok(self.storage.check()?)
    }

    /// Step 7, with the three below it; their order is [`turn::send_out`]'s.
    fn submit(&mut self) -> Result<(), LoopError> {
        Ok(self.storage.submit()?)
    }

    fn flush_peers(&mut self) {
        self.peers.flush(self.poll.registry(), self.now);
    }

    fn flush_clients(&mut self) {
        self.clients.flush(self.now, self.poll.registry());
    }
}
