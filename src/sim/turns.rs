//! One turn of one server: its mail goes in, the checkers look, and what it wants is carried out.
//!
//! Called by the world when a turn is due. The turn's inner order is `process.rs`'s; here is what
//! stands around a process: the invariants, kills in the middle, lost and doubled frames.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;

use super::drive::State;
use super::network::{Host, StreamId};
use super::process::{Mail, Output};
use super::rules::Rules;
use super::world::{Event, World};
use crate::node::Effect;
use crate::proto::message::Message;
use crate::types::{LogIndex, ServerId};

/// Turns in a row, less than a millisecond apart, in which a server does nothing.
const IDLE_TURNS: u32 = 1000;

impl World {
    /// One turn of one server.
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
        let mail = std::mem::take(&mut server.mail);
        let has_mail = !mail.is_empty();
        let (local, wall) = (server.clock.local(now), server.clock.wall(now));
        let applied = process.node.status().last_applied;
        if let Err(error) = process.take_turn(local, wall, mail) {
            return self.die(id, &error);
        }
        let has_applied = process.node.status().last_applied > applied;
        server.met.extend(process.met.drain(..));
        if let Some(role) = self.checkers.after_turn(id, &process.node) {
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
        let has_effects = !process.effects.is_empty();
        for (name, times) in std::mem::take(&mut process.strikes) {
            *self.strikes.entry(name).or_default() += times;
        }
        self.carry_out(id, has_applied);
        self.settle(id, has_mail || has_effects);
    }

    fn carry_out(&mut self, id: ServerId, has_applied: bool) {
        let World { servers, random, script, mailbag, .. } = self;
        let server = servers.get_mut(&id).expect("a server of this world");
        let process = server.process.as_mut().expect("it is its turn");
        let settings = &script.settings;
        let is_calm = self.is_healing;
        let mut copies = Vec::new();
        let mut lost = 0;
        let kill_behind = server.kill_behind;
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
        let done = match carried_out {
            Ok(done) => done,
            Err(error) => return self.die(id, &error),
        };
        let has_failed = |state: &mut State| state.has_failed() || state.has_crashed();
        assert!(
            !self.servers[&id].disk.with(has_failed),
            "fail-stop: n{id} goes on although its disk has failed"
        );
        for (to, frame, is_late) in copies {
            self.copy(id, to, frame, is_late);
        }
        for output in done.outputs {
            self.output(id, output);
        }
        if let Some(kill_behind) = kill_behind {
            if !done.has_submitted {
                self.strike("killed-before-write");
            }
            if has_applied && !done.has_submitted {
                self.strike("killed-behind-applying");
            }
            self.tell(|| format!("n{id} is killed in its turn, behind {kill_behind} steps of it"));
            self.kill(id);
        }
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
        let next = process.deadline(local);
        let status = process.node.status();
        assert!(server.idle_turns < IDLE_TURNS, "bounded: n{id} spins: {next:?} {status:?}");
        server.busy_until = now.after(Duration::from_micros(turn_us) + server.disk.take_blocked());
        let next = server.clock.world(next);
        self.plan_disk(id);
        self.wake(id, next);
    }
}
