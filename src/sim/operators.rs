//! Operators: they launch servers and change the membership, over clients' connections, and insist.
//!
//! A request that is not answered in time, or answered by something that passes, is said again to
//! another server, as `rkv-cli` and its user do. Called by the world for the faults that are
//! requests, and at the end to repair what was damaged. Looks into no server: it is told replies.

use std::time::Duration;

use rand::RngExt;

use super::clients::Client;
use super::script::{Fault, Kind};
use super::server::{client_address, peer_address};
use super::world::{Event, World};
use crate::node::Node;
use crate::proto::reply_decoder::Value;
use crate::raft::membership::Member;
use crate::types::ServerId;

/// How often an operator says the same at most while faults strike, and once they are over.
const TRIES: u32 = 12;
const TRIES_IN_PEACE: u32 = 200;

/// More often than this no machine moves in one run.
const MOVES: u64 = 1000;

/// How long an operator waits before the first look, and between two.
const PAUSE: Duration = Duration::from_millis(60);

/// Replies that ask for patience. Whatever else is an error, an operator accepts as the last word.
const PASSING: [&str; 8] = [
    "CLUSTERDOWN",
    "INDOUBT",
    "LOADING",
    "MISCONF",
    "ERR another change",
    "ERR leadership is being",
    "ERR too many requests",
    RISKY,
];

/// What is refused for want of servers that are heard, some of which may never be heard again.
const RISKY: &str = "ERR of the voters there would be";

/// What comes of a request to readmit a server that nobody has heard of its loss yet.
const NOT_MET: &str = "if it lost its disk, start it first";

/// The same, where the server ran on an old copy and the cluster has yet to meet it on another.
const RAN_ON_COPY: &str = "start it if it doesn't run, and say this again";

/// Something that an operator wants.
#[derive(Debug)]
pub(super) struct Request {
    line: String,
    /// The connection that it is said over, as a client of the world.
    client: usize,
    tries: u32,
    /// It would leave too few servers that are heard, or waits for a disk that nobody replaces.
    is_risky: bool,
    /// Looks at the present attempt.
    looks: u32,
    /// It is done, was refused, or the operator has given up.
    pub is_over: bool,
}

impl World {
    /// A fault that is an operator's request.
    pub(super) fn request(&mut self, fault: Fault) -> bool {
        let Some(via) = self.target(fault.a).filter(|via| self.node(*via).is_some()) else {
            return false;
        };
        let named = |world: &World, number| match number {
            0 => world.leader(),
            number => Some(ServerId(number)),
        };
        let Some(id) = named(self, fault.b).or_else(|| self.ids().first().copied()) else {
            return false;
        };
        let addresses = |world: &World, id: ServerId| {
            let moves = world.servers.get(&id).map_or(0, |server| server.moves);
            format!("{} {}", peer_address(id, moves), client_address(id, moves))
        };
        let dry = if fault.c & 4 > 0 { " DRYRUN" } else { "" };
        let line = match fault.kind {
            Kind::Add => {
                let learner = if fault.c & 1 > 0 { " LEARNER" } else { "" };
                let addresses = match fault.c & 2 {
                    0 => format!(" {}", addresses(self, id)),
                    _ => String::new(),
                };
                format!("RAFT ADD {id}{addresses}{learner}{dry}")
            }
            Kind::Remove => {
                let force = fault.c & 1 > 0;
                if force && !self.may_force() {
                    return false;
                }
                format!("RAFT REMOVE {id}{}{dry}", if force { " FORCE" } else { "" })
            }
            Kind::Promote => format!("RAFT PROMOTE {id}{dry}"),
            Kind::Replace => {
                let new = ServerId(fault.c);
                format!("RAFT REPLACE {id} {new} {}", addresses(self, new))
            }
            Kind::Move => {
                if !self.servers.contains_key(&id) {
                    return false;
                }
                return self.relocate(id, via, fault.c == 1);
            }
            Kind::Transfer if fault.b == 0 => format!("RAFT TRANSFER{dry}"),
            Kind::Transfer => format!("RAFT TRANSFER {id}{dry}"),
            Kind::Snapshot => "RAFT SNAPSHOT".to_owned(),
            _ => unreachable!("the caller knows which faults are requests"),
        };
        self.ask(via, line);
        true
    }

    /// A membership without a majority may come of FORCE: never together with lost disks, which
    /// could make that majority one that nobody can heal.
    fn may_force(&mut self) -> bool {
        let may_force =
            self.checkers.damaged.is_empty() && !self.servers.values().any(|s| s.is_held);
        self.has_forced |= may_force;
        may_force
    }

    /// The machine moves: it goes down, and comes back at another address.
    fn relocate(&mut self, id: ServerId, via: ServerId, is_told_before: bool) -> bool {
        let server = self.servers.get_mut(&id).expect("the caller has seen it");
        // Before the cluster is founded everyone is where its file says.
        let newest = self.checkers.newest_committed();
        let is_member = newest.is_some_and(|newest| newest.member(id).is_some());
        if !server.is_launched || server.is_held || !is_member {
            return false;
        }
        server.moves += 1;
        let moves = server.moves;
        let line =
            format!("RAFT MOVE {id} {} {}", peer_address(id, moves), client_address(id, moves));
        self.kill(id);
        self.plan(Duration::from_millis(150), Event::Start { server: id });
        let via = if via == id { self.any_running().unwrap_or(via) } else { via };
        if is_told_before || self.node(via).is_some() {
            self.ask(via, line);
        }
        true
    }

    /// Says a line to a server, and looks what becomes of it.
    pub(super) fn ask(&mut self, via: ServerId, line: String) {
        let number = self.clients.len();
        let random = self.random.clone();
        let mut client = Client::new(number, random, &self.script.settings);
        client.server = via;
        client.told = Some(Vec::new());
        self.clients.push(client);
        let request = self.requests.len();
        let (tries, looks) = (0, 0);
        let (is_risky, is_over) = (false, false);
        self.requests.push(Request { line, client: number, tries, is_risky, looks, is_over });
        self.say_request(request);
    }

    fn say_request(&mut self, number: usize) {
        let request = &mut self.requests[number];
        request.tries += 1;
        request.looks = 0;
        let (client, line) = (request.client, request.line.clone());
        let server = self.clients[client].server;
        let was_sent = self.client_sends_lines(client, &[&line]);
        self.tell(|| match was_sent {
            true => format!("an operator says {line} to n{server}"),
            false => format!("an operator finds n{server} closed for {line}"),
        });
        self.plan(PAUSE, Event::Operator { request: number });
    }

    /// An operator looks what became of a request, and says it again where that may help.
    pub(super) fn look_after_request(&mut self, number: usize) {
        if self.requests[number].is_over {
            return;
        }
        let client = self.requests[number].client;
        let told = self.clients[client].told.as_mut().map(std::mem::take).unwrap_or_default();
        let Some(reply) = told.into_iter().next_back() else {
            let request = &mut self.requests[number];
            request.looks += 1;
            let patience = u64::from(request.looks) * PAUSE.as_millis() as u64;
            let most = self.script.settings.request_timeout_ms + 500;
            if self.clients[client].stream.is_some() && patience < most {
                return self.plan(PAUSE, Event::Operator { request: number });
            }
            return self.insist(number);
        };
        let line = self.requests[number].line.clone();
        match &reply {
            Value::Error(text) if is_passing(text) => {
                self.tell(|| format!("{line}: {text}"));
                self.strike("request-repeated");
                let awaits_disk = !self.is_repaired && is_not_met(text);
                self.requests[number].is_risky = text.starts_with(RISKY) || awaits_disk;
                self.insist(number);
            }
            Value::Error(text) => {
                self.tell(|| format!("{line}: {text}"));
                self.strike("request-refused");
                self.end_request(number);
            }
            _ => {
                self.tell(|| format!("{line}: done"));
                self.strike("request-done");
                self.end_request(number);
            }
        }
    }

    fn end_request(&mut self, number: usize) {
        self.requests[number].is_over = true;
        self.drop_client(self.requests[number].client);
    }

    /// The same again, elsewhere.
    fn insist(&mut self, number: usize) {
        let request = &self.requests[number];
        let is_patient = self.is_healing && !request.is_risky;
        let most = if is_patient { TRIES_IN_PEACE } else { TRIES };
        if request.tries >= most {
            self.strike("request-given-up");
            return self.end_request(number);
        }
        let client = request.client;
        self.drop_client(client);
        if let Some(via) = self.any_running() {
            self.clients[client].server = via;
        }
        self.say_request(number);
    }

    /// Whoever runs; in peace a member, as an operator would know by then.
    fn any_running(&mut self) -> Option<ServerId> {
        let mut running = self.alive();
        if self.is_healing {
            let sound = self.sound();
            running.retain(|id| sound.contains(id));
        }
        let place = self.random.random_range(0..running.len().max(1));
        running.get(place).copied()
    }

    /// Members whose machines have moved are said to be where they are now. Where so many have that
    /// those left behind are no majority, nobody could take that down: whoever moved a machine before
    /// its last move was recorded has to move it back. Returns whether that was so.
    pub(super) fn correct_addresses(&mut self) -> bool {
        let moved = self.moved();
        let ids = moved.iter().map(|(id, _)| *id).collect();
        if !moved.is_empty() && !self.checkers.keeps_majority_without(&ids) {
            moved.into_iter().for_each(|(id, to)| self.move_back(id, to));
            return true;
        }
        for (id, _) in moved {
            let moves = self.servers[&id].moves;
            if let Some(via) = self.any_running() {
                let (peer, client) = (peer_address(id, moves), client_address(id, moves));
                self.ask(via, format!("RAFT MOVE {id} {peer} {client}"));
            }
        }
        false
    }

    /// Members that are not where the newest committed membership has them, and after how many moves
    /// they were there.
    fn moved(&self) -> Vec<(ServerId, u64)> {
        let Some(newest) = self.checkers.newest_committed() else {
            return Vec::new();
        };
        let known = |member: &Member| {
            let server = self.servers.get(&member.id)?;
            let mut moves = 0..MOVES;
            let known = moves.find(|moves| peer_address(member.id, *moves) == member.peer)?;
            (known != server.moves).then_some((member.id, known))
        };
        newest.members().iter().filter_map(known).collect()
    }

    /// A machine goes back to where it was `moves` moves after its first place.
    fn move_back(&mut self, id: ServerId, moves: u64) {
        self.tell(|| format!("n{id} is moved back to {}", peer_address(id, moves)));
        self.strike("moved-back");
        let line = format!("RAFT MOVE {id} ");
        for number in 0..self.requests.len() {
            let request = &self.requests[number];
            if !request.is_over && request.line.starts_with(&line) {
                self.end_request(number);
            }
        }
        self.kill(id);
        self.servers.get_mut(&id).expect("a server of this world").moves = moves;
        self.plan(Duration::from_millis(150), Event::Start { server: id });
    }

    /// Everything has healed but for lost disks: these are replaced, and their servers readmitted.
    pub(super) fn repair(&mut self) {
        self.is_repaired = true;
        for (id, _) in self.checkers.damaged.clone() {
            let server = &self.servers[&id];
            if server.rotten.is_some() || server.is_copy || !self.is_on_new_disk(id) {
                self.replace_disk(id);
                self.start(id);
            }
            let is_member =
                self.checkers.newest_committed().is_some_and(|newest| newest.member(id).is_some());
            if is_member && self.script.settings.readmit == 0 {
                let via = self.any_running().unwrap_or(id);
                self.ask(via, format!("RAFT ADD {id}"));
            }
        }
    }

    /// A member that was removed and added again while it was away, and that knows nobody who could
    /// tell it so, because the one who leads is a stranger to it, begins on an empty directory.
    pub(super) fn begin_afresh(&mut self) {
        let Some(leader) = self.leader() else {
            return;
        };
        let membership = self.node(leader).map(|node| node.raft().membership().clone());
        let members = membership.iter().flat_map(|membership| membership.members());
        let is_stranded = |member: &&Member| {
            let own = self.node(member.id).map(|node| node.raft().membership());
            !member.is_met() && own.is_some_and(|own| own.member(leader).is_none())
        };
        let stranded: Vec<ServerId> = members.filter(is_stranded).map(|member| member.id).collect();
        for id in stranded {
            self.tell(|| format!("n{id} begins on an empty directory"));
            self.strike("begun-afresh");
            self.replace_disk(id);
            self.start(id);
        }
    }

    /// Whether the server's directory is another than the one that was lost.
    fn is_on_new_disk(&self, id: ServerId) -> bool {
        let incarnation = self.node(id).map(|node| node.status().incarnation);
        incarnation.is_some() && incarnation != self.checkers.damaged.get(&id).copied()
    }

    /// Servers that have all that they promised, and that the newest committed membership names on
    /// the directories that they have. Without any membership: those that founded.
    pub(super) fn sound(&self) -> Vec<ServerId> {
        let newest = self.checkers.newest_committed();
        let is_sound = |id: &ServerId| {
            let is_damaged = self.checkers.damaged.contains_key(id);
            let directory = self.checkers.directory(*id);
            match newest {
                Some(newest) => {
                    let member = newest.member(*id).filter(|member| member.is_met());
                    let is_member = member.is_some_and(|m| Some(m.incarnation) == directory);
                    is_member && !is_damaged
                }
                None => !is_damaged && id.0 <= self.script.settings.nodes,
            }
        };
        self.ids().into_iter().filter(is_sound).collect()
    }

    /// What every server takes for the membership, in a line.
    fn memberships(&self) -> String {
        let mut text = String::new();
        for id in self.alive() {
            let Some(node) = self.node(id) else { continue };
            let membership = node.raft().membership();
            text += &format!("n{id}:{}", if membership.is_joint() { " joint" } else { "" });
            for member in membership.members() {
                let (voter, old) = (member.voter, member.outgoing_voter);
                text += &format!(
                    " {}{}{}",
                    member.id,
                    ["", "+"][voter as usize],
                    ["", "-"][old as usize]
                );
            }
            text += "; ";
        }
        text
    }

    /// What keeps the membership from coming to rest, as far as healing can bring that about:
    /// somebody who runs is still awaited or on the way to a vote, or an operator has no answer.
    pub(super) fn is_unsettled(&self) -> Option<String> {
        let Some(leader) = self.leader().and_then(|id| self.node(id)) else {
            return Some(format!("nobody leads; {}", self.memberships()));
        };
        if let Some(request) = self.requests.iter().find(|request| !request.is_over) {
            return Some(format!("{} is not over", request.line));
        }
        let raft = leader.raft();
        let membership = raft.membership();
        if membership.is_joint() || raft.membership_index() > raft.commit_index() {
            return Some("a change is under way".to_owned());
        }
        let is_to_be_readmitted = self.is_repaired || self.script.settings.readmit > 0;
        let awaits = |member: &&Member| {
            let Some(server) = self.servers.get(&member.id) else {
                return false;
            };
            let runs = server.process.is_some() && server.address(member.id) == member.peer;
            let is_to_vote = runs && (!member.is_met() || member.is_awaiting_promotion());
            if !self.checkers.damaged.contains_key(&member.id) {
                return is_to_vote;
            }
            // An operator may have let it in again before anyone was told to.
            let directory = self.checkers.directory(member.id);
            let is_named = !member.is_met() || directory == Some(member.incarnation);
            let is_let_in = is_to_vote && is_named && self.is_on_new_disk(member.id);
            let is_to_come = is_to_be_readmitted && (runs || !self.is_relocating);
            (is_to_come || is_let_in) && server.rotten.is_none() && !server.is_copy
        };
        let awaited = membership.members().iter().find(awaits);
        awaited.map(|member| {
            let (link, there) = (raft.link(member.id), self.node(member.id));
            let back = there.and_then(|node| node.raft().link(leader.status().server));
            let why = there.and_then(Node::recovering_reason);
            format!("{member:?} is awaited, linked {link:?} and {back:?}: {why:?}")
        })
    }
}

fn is_passing(text: &str) -> bool {
    PASSING.iter().any(|word| text.starts_with(word)) || is_not_met(text)
}

fn is_not_met(text: &str) -> bool {
    text.contains(NOT_MET) || text.contains(RAN_ON_COPY)
}
