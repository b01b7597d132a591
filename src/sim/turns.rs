//! One turn of one server: its mail goes in, the checkers look, and what it wants is carried out.
//!
//! Called by the world when a turn is due. The turn's inner order is `process.rs`'s; here is what
//! stands around a process: the invariants, kills in the middle, lost and doubled frames.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;

use super::drive::State;
use super::network::{Host, StreamId};
use super::process::{Mail, Output, Stage};
use super::rules::Rules;
use super::server::Stumble;
use super::world::{Event, World};
use crate::limits;
use crate::node::Effect;
use crate::proto::message::Message;
use crate::types::{LogIndex, ServerId};

/// Turns in a row, less than a millisecond apart, in which a server does nothing.
const IDLE_TURNS: u32 = 1000;

impl World {
    /// One turn of one server, or what is left of one in which it stood still.
    pub(super) fn turn(&mut self, id: ServerId) {
        let now = self.now;
        let server = self.servers.get_mut(&id).expect("a server of this world");
        if server.turn_at != Some(now) {
            return;
        }
        server.turn_at = None;
        let Some(process) = server.process.as_mut() else {
            return;
        };
        if server.paused_until > now {
            return self.wake(id, now);
        }
        let local = server.clock.local(now);
        let mut stage = process.stage.take();
        if stage.is_none() {
            process.poll(local, std::mem::take(&mut server.mail));
            if self.stands_still(id, Stage::Polled) {
                return;
            }
        }
        if stage.is_none_or(|stage| stage == Stage::Polled) {
            let server = self.servers.get_mut(&id).expect("a server of this world");
            let process = server.process.as_mut().expect("it is its turn");
            if let Err(error) = process.hear(local, &mut server.mail) {
                return self.die(id, &error);
            }
            stage = Some(Stage::Heard);
            if self.stands_still(id, Stage::Heard) {
                return;
            }
        }
        if stage == Some(Stage::Heard) {
            self.decide(id);
            if self.stands_still(id, Stage::Decided) {
                return;
            }
        }
        self.carry_out(id);
    }

    /// Whether the server stands still here, in the middle of its turn: the world goes on, and it
    /// does when that is over.
    fn stands_still(&mut self, id: ServerId, stage: Stage) -> bool {
        let settings = &self.script.settings;
        let (pm, most) = (settings.stumble_pm, settings.stumble_ms.max(1));
        let server = self.servers.get_mut(&id).expect("a server of this world");
        let process = server.process.as_mut().expect("it is its turn");
        let is_awaited = |stumble: &mut Stumble| {
            stumble.stage == stage && (stage != Stage::Polled || process.is_told_something())
        };
        let stumble = server.stumble.take_if(is_awaited);
        let pause = match &stumble {
            Some(stumble) => stumble.pause,
            None if pm == 0 || self.is_healing => return false,
            None if self.random.random_range(0..1000) >= pm => return false,
            None => Duration::from_micros(self.random.random_range(1..=most * 1000)),
        };
        process.stage = Some(stage);
        server.busy_until = self.now.after(pause);
        self.strike("stands-still-in-turn");
        self.tell(|| format!("n{id} stands still for {pause:?}: {stage:?}"));
        for (delay, fault) in stumble.into_iter().flat_map(|stumble| stumble.meanwhile) {
            self.plan(delay, Event::Strike { fault });
        }
        self.wake(id, self.now);
        true
    }

    fn decide(&mut self, id: ServerId) {
        let now = self.now;
        let server = self.servers.get_mut(&id).expect("a server of this world");
        let process = server.process.as_mut().expect("it is its turn");
        process.decide(server.clock.local(now), server.clock.wall(now));
        server.met.extend(process.met.drain(..));
        if let Some(role) = self.checkers.after_turn(now, id, &process.node) {
            let term = process.node.status().current_term;
            self.story.tell(now, || format!("n{id} is {}, term {term}", role.name()));
        }
        for effect in &process.effects {
            if let Effect::Send { packet } = effect {
                self.checkers.sends(id, packet);
                if let Message::Vote(vote) = &packet.message
                    && vote.granted
                    && !vote.pre_vote
                {
                    let (to, term) = (packet.envelope.to, vote.term);
                    self.story.tell(now, || format!("n{id} votes for n{to}, term {term}"));
                }
            }
        }
        let applied = process.node.machine().last_applied();
        for client in process.answered() {
            let client = self.clients.iter().find(|other| other.stream == Some(client));
            Rules::answers(id, applied, client.map_or(LogIndex::ZERO, |client| client.floor));
        }
        process.is_busy |= !process.effects.is_empty();
        for (name, times) in std::mem::take(&mut process.strikes) {
            *self.strikes.entry(name).or_default() += times;
        }
    }

    fn carry_out(&mut self, id: ServerId) {
        let World { servers, random, script, mailbag, network, .. } = self;
        let server = servers.get_mut(&id).expect("a server of this world");
        let process = server.process.as_mut().expect("it is its turn");
        let settings = &script.settings;
        let is_calm = self.is_healing;
        let mut copies = Vec::new();
        let mut lost = 0;
        let kill_behind = server.kill_behind;
        let bounds = |kib: u64, usual: usize| match kib {
            _ if is_calm => usual,
            0 => usual,
            kib => kib as usize * 1024,
        };
        process.peer_output_bytes = bounds(settings.peer_output_kib, limits::PEER_OUTPUT_BYTES);
        let kernel_bytes = bounds(settings.kernel_kib, usize::MAX);
        process.set_room(|stream| {
            let end = network.end_of(stream, Host::Server(id));
            kernel_bytes - end.map_or(0, |end| network.pending_bytes(stream, end)).min(kernel_bytes)
        });
        let had_failed = server.disk.with(|state| state.has_failed());
        let said_before = process.said();
        let carried_out = process.carry_out(kill_behind, |packet, frame| {
            let mut chance = |pm: u64| pm > 0 && random.random_range(0..1000) < pm;
            if is_calm {
                return false;
            }
            mailbag.keep(packet, frame);
            if chance(settings.copy_pm) {
                let is_late = chance(settings.hours_pm);
                copies.push((packet.envelope.to, Bytes::copy_from_slice(frame), is_late));
            }
            let is_lost = chance(settings.frame_loss_pm);
            lost += u64::from(is_lost);
            is_lost
        });
        *self.strikes.entry("lost-frame").or_default() += lost;
        let is_silent = !had_failed || process.said() == said_before;
        assert!(is_silent, "fail-stop: n{id} speaks although its disk has failed");
        let (outputs, has_submitted) = (process.take_outputs(), process.has_submitted);
        let waiting = process.waits_writable();
        for (name, times) in std::mem::take(&mut process.strikes) {
            *self.strikes.entry(name).or_default() += times;
        }
        let (has_applied, was_busy) = (process.has_applied(), process.is_busy);
        for (to, frame, is_late) in copies {
            self.copy(id, to, frame, is_late);
        }
        for output in outputs {
            self.output(id, output);
        }
        for stream in waiting {
            let end = self.network.end_of(stream, Host::Server(id));
            if end.is_some_and(|end| !self.network.await_room(stream, end)) {
                self.give(id, Mail::Writable(stream));
            }
        }
        if let Err(error) = carried_out {
            return self.die(id, &error);
        }
        let has_failed = |state: &mut State| state.has_failed() || state.has_crashed();
        assert!(
            !self.servers[&id].disk.with(has_failed),
            "fail-stop: n{id} goes on although its disk has failed"
        );
        if let Some(kill_behind) = kill_behind {
            if !has_submitted {
                self.strike("killed-before-write");
            }
            if has_applied && !has_submitted {
                self.strike("killed-behind-applying");
            }
            self.tell(|| format!("n{id} is killed in its turn, behind {kill_behind} steps of it"));
            self.kill(id);
        }
        self.settle(id, was_busy);
    }

    /// A frame will arrive a second time, out of order.
    fn copy(&mut self, from: ServerId, to: ServerId, frame: Bytes, is_late: bool) {
        let most = match is_late {
            true => 3 * 3_600_000,
            false => self.script.settings.copy_delay_ms.max(1),
        };
        let delay = Duration::from_millis(self.random.random_range(0..most));
        self.plan(delay, Event::Copy { from, to, frame, is_late });
    }

    /// It comes out of the connection that there is now, which its sender has accepted: before that
    /// no byte of a message can be on one.
    pub(super) fn copy_arrives(&mut self, from: ServerId, to: ServerId, frame: Bytes) {
        let sender = self.servers[&from].process.as_ref();
        if sender.is_none_or(|process| process.has_accepted(to)) {
            self.give(to, Mail::Copy(frame));
        }
    }

    fn output(&mut self, id: ServerId, output: Output) {
        let host = Host::Server(id);
        match output {
            Output::Dial(callee) => {
                let life = self.servers[&id].life;
                let delay = self.network.draw_delay();
                self.plan(delay, Event::Dial { from: id, callee, life });
            }
            Output::Greet(stream, bytes) => self.greet(host, stream, bytes),
            Output::Send(stream, bytes) => self.send(host, stream, bytes),
            Output::Close(stream) => {
                if let Some(end) = self.network.end_of(stream, host) {
                    self.network.close(self.now, stream, end);
                }
            }
        }
    }

    fn send(&mut self, host: Host, stream: StreamId, bytes: Bytes) {
        self.fold(self.now.0);
        self.fold(u64::from(crc32fast::hash(&bytes)));
        if let Some(end) = self.network.end_of(stream, host) {
            self.network.send(self.now, stream, end, bytes);
        }
    }

    /// A hello may be lost, come twice, or come late: by then its sender may be another process.
    fn greet(&mut self, host: Host, stream: StreamId, bytes: Bytes) {
        let is_unlucky = !self.is_healing
            && self.script.settings.hello_pm > 0
            && self.random.random_range(0..1000) < self.script.settings.hello_pm;
        if !is_unlucky {
            return self.send(host, stream, bytes);
        }
        match self.random.random_range(0..3) {
            0 => self.strike("hello-lost"),
            1 => {
                self.strike("hello-twice");
                self.send(host, stream, bytes.clone());
                self.send(host, stream, bytes);
            }
            _ => {
                self.strike("hello-late");
                let delay = Duration::from_millis(self.random.random_range(1..8000));
                if let Some(end) = self.network.end_of(stream, host) {
                    self.network.hold_up(self.now.after(delay), stream, end);
                }
                self.send(host, stream, bytes);
            }
        }
    }

    /// What follows on a turn: the disk's operations, the next turn, or the end.
    fn settle(&mut self, id: ServerId, was_busy: bool) {
        let now = self.now;
        let turn_us = self.random.random_range(1..=self.script.settings.turn_us.max(1));
        let server = self.servers.get_mut(&id).expect("a server of this world");
        let Some(process) = server.process.as_ref() else {
            return;
        };
        let local = server.clock.local(now);
        if process.is_old_copy {
            return self.start_over(id);
        }
        if process.is_over(local) {
            return self.end(id);
        }
        let is_idle = !was_busy && now.since(server.last_turn) < Duration::from_millis(1);
        server.idle_turns = if is_idle { server.idle_turns + 1 } else { 0 };
        server.last_turn = now;
        // What came while it stood still, and was not read, is there for its next poll.
        let next = if server.mail.is_empty() { process.deadline(local) } else { local };
        let status = process.node.status();
        assert!(server.idle_turns < IDLE_TURNS, "bounded: n{id} spins: {next:?} {status:?}");
        server.busy_until = now.after(Duration::from_micros(turn_us) + server.disk.take_blocked());
        let next = server.clock.world(next);
        self.plan_disk(id);
        self.wake(id, next);
    }
}
