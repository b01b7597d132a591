//! What operators ask of the membership: RAFT ADD, REMOVE, PROMOTE, REPLACE, MOVE and TRANSFER.
//!
//! Design page 4, §3. Asked of any node, carried out by the leader, and answered once the entry
//! that concludes it is committed. Requests ask for a state, so a request that is sent twice (the
//! leader changed, its answer was lost) does no harm. Called by `pipeline.rs` and by `node.rs` at
//! the end of each turn; what a dry run says is in `plan.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::Effect;
use super::clients::{Clients, Origin};
use super::gateway::not_done;
use super::node::Node;
use crate::config::Readmit;
use crate::kv::admin::parse;
use crate::limits;
use crate::proto::admin::{Admin, AdminId, AdminRequest, Answer, pack_words, unpack_words};
use crate::proto::args::Args;
use crate::proto::hello::Refusal;
use crate::proto::message::Message;
use crate::proto::reply::Reply;
use crate::raft::change::{Change, ChangeRefused, addresses_of};
use crate::types::{Boot, Instant, LogIndex, ServerId, Term};

/// A request of this node's own clients.
#[derive(Debug)]
struct OwnRequest {
    id: AdminId,
    origin: Origin,
    words: Bytes,
    /// Whether it asks for another leader, and for whom: that shows by itself.
    transfer: Option<Option<ServerId>>,
    since: Instant,
    /// The leader that was asked last: from then on it may be carried out.
    asked: Option<ServerId>,
    /// What is on its way to a leader that can be reached.
    sent: Option<Sent>,
}

/// Where a request was sent last.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    term: Term,
    leader: ServerId,
}

/// A request that this leader is at.
#[derive(Debug)]
struct Held {
    from: ServerId,
    id: AdminId,
    admin: Admin,
    since: Instant,
    stage: Stage,
}

/// How far it is.
#[derive(Debug)]
enum Stage {
    /// It has not begun: something else is under way.
    Waiting,
    /// Its first entry is at this index.
    Begun(LogIndex),
    /// Leadership is on its way to somebody else.
    HandingOver,
    /// It is over.
    Over(Answer),
}

/// All that is asked.
#[derive(Debug)]
pub struct Requested {
    boot: Boot,
    next_number: u64,
    own: Vec<OwnRequest>,
    held: Vec<Held>,
    answered: VecDeque<(ServerId, AdminId, Answer)>,
    /// Members that run on another data directory than the one that was admitted, and when that
    /// was last seen.
    strays: BTreeMap<ServerId, (Refusal, Instant)>,
}

impl Requested {
    /// Nothing yet, in this boot.
    pub fn new(boot: Boot) -> Requested {
        Requested {
            boot,
            next_number: 1,
            own: Vec::new(),
            held: Vec::new(),
            answered: VecDeque::new(),
            strays: BTreeMap::new(),
        }
    }

    /// Whether no client awaits an answer.
    pub fn is_idle(&self) -> bool {
        self.own.is_empty()
    }

    /// A member runs on another data directory than the one that was admitted.
    pub fn note_stray(&mut self, now: Instant, peer: ServerId, why: Refusal) {
        self.strays.insert(peer, (why, now));
    }

    /// Why a member is out, if it still is: who runs on another directory is dialled, or dials,
    /// over and over. One that was merely down since may have its own disk back.
    fn stray(&self, now: Instant, peer: ServerId) -> Option<Refusal> {
        let (why, seen) = self.strays.get(&peer)?;
        (now < seen.after(limits::STRAY_LAPSE)).then_some(*why)
    }

    /// Whether a member was last seen on another data directory.
    pub fn is_stray(&self, peer: ServerId) -> bool {
        self.strays.contains_key(&peer)
    }

    /// It runs on the right one.
    pub fn forget_stray(&mut self, peer: ServerId) {
        self.strays.remove(&peer);
    }

    /// When a time-out or sending again is due.
    pub fn deadline(&self, timeout: Duration, resend_after: Duration) -> Instant {
        let times_out = self.own.iter().map(|own| own.since.after(timeout));
        let resends = self.own.iter().filter_map(|own| own.sent);
        let resends = resends.map(|sent| sent.at.after(resend_after));
        times_out.chain(resends).min().unwrap_or(Instant::NEVER)
    }

    /// Answers what was not concluded within `timeout`.
    pub fn time_out(
        &mut self,
        now: Instant,
        timeout: Duration,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let is_over = |own: &mut OwnRequest| now >= own.since.after(timeout);
        for own in self.own.extract_if(.., is_over) {
            let reply = match own.asked {
                None => not_done(timeout),
                Some(_) => in_doubt(timeout),
            };
            clients.answer(own.origin, reply, effects);
        }
    }

    fn answer_own(
        &mut self,
        id: AdminId,
        answer: &Answer,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) {
        let place = self.own.iter().position(|own| own.id == id);
        let Some(place) = place else { return };
        let own = self.own.remove(place);
        let reply = match answer {
            Answer::Done => Reply::OK,
            Answer::Text(text) => Reply::Text(Bytes::from(text.clone())),
            Answer::Refused(text) => Reply::Error(text.clone().into()),
        };
        clients.answer(own.origin, reply, effects);
    }
}

impl Node {
    /// Takes a request of a client; its check has passed.
    pub(super) fn take_admin(
        &mut self,
        now: Instant,
        origin: Origin,
        args: Args<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let requested = &mut self.requested;
        let Ok(admin) = parse(args) else { unreachable!("the table's check has read it") };
        if requested.own.len() >= limits::ADMIN_REQUESTS {
            let text = "ERR too many requests about the membership wait for an answer";
            return self.clients.answer(origin, Reply::Error(text.into()), effects);
        }
        let id = AdminId { boot: requested.boot, number: requested.next_number };
        requested.next_number += 1;
        let transfer = match admin.request {
            AdminRequest::Transfer { to } if !admin.dry_run => Some(to),
            _ => None,
        };
        let words = pack_words(args);
        let own = OwnRequest { id, origin, words, transfer, since: now, asked: None, sent: None };
        requested.own.push(own);
    }

    /// Another node's request.
    pub(super) fn receive_admin(
        &mut self,
        now: Instant,
        from: ServerId,
        id: AdminId,
        term: Term,
        words: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        if self.raft.is_leader() && term == self.raft.current_term() {
            self.hold(now, from, id, words, effects);
        }
    }

    /// The leader's answer to a request of ours.
    pub(super) fn receive_admin_response(
        &mut self,
        id: AdminId,
        answer: &Answer,
        effects: &mut Vec<Effect>,
    ) {
        self.requested.answer_own(id, answer, &mut self.clients, effects);
    }

    /// The end of a turn: requests are sent where they can be carried out, and carried on.
    pub(super) fn progress_admin(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if !self.raft.is_leader() {
            // Whoever asked asks the next leader.
            self.requested.held.clear();
            self.requested.answered.clear();
        }
        self.note_transfers(effects);
        self.send_requests(now, effects);
        let mut held = std::mem::take(&mut self.requested.held);
        for request in &mut held {
            self.carry_on(now, request);
        }
        for request in held.extract_if(.., |request| matches!(request.stage, Stage::Over(_))) {
            if let Stage::Over(answer) = request.stage {
                self.respond(request.from, request.id, answer, effects);
            }
        }
        self.requested.held = held;
        self.readmit_strays(now);
    }

    /// A transfer is over once another leads: the old leader can't tell.
    fn note_transfers(&mut self, effects: &mut Vec<Effect>) {
        let Some(leader) = self.raft.leader() else {
            return;
        };
        let mut done = Vec::new();
        for own in &mut self.requested.own {
            let (Some(wanted), Some(asked)) = (own.transfer, own.asked) else {
                continue;
            };
            if asked != leader {
                done.extend(wanted.is_none_or(|wanted| wanted == leader).then_some(own.id));
            }
        }
        for id in done {
            self.requested.answer_own(id, &Answer::Done, &mut self.clients, effects);
        }
    }

    /// Sends what the leader of this term has not been sent, or has not answered for long.
    fn send_requests(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let own = self.identity.server;
        let leader = self.raft.leader();
        let Some(leader) = leader.filter(|id| *id == own || self.raft.has_link(*id)) else {
            for own in &mut self.requested.own {
                own.sent = None;
            }
            return;
        };
        let is_self = leader == own;
        let term = self.raft.current_term();
        let resend_after = self.resend_after();
        let mut due = Vec::new();
        for own in &mut self.requested.own {
            let is_there = own.sent.is_some_and(|sent| {
                let is_same = sent.term == term && sent.leader == leader;
                is_same && now < sent.at.after(resend_after)
            });
            if !is_there {
                own.asked = Some(leader);
                own.sent = Some(Sent { at: now, term, leader });
                due.push((own.id, own.words.clone()));
            }
        }
        for (id, words) in due {
            if is_self {
                self.hold(now, leader, id, &words, effects);
            } else {
                self.send(leader, Message::Admin { id, term, words }, effects);
            }
        }
    }

    /// Takes a request in, unless it is here already or was answered before.
    fn hold(
        &mut self,
        now: Instant,
        from: ServerId,
        id: AdminId,
        words: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        let requested = &mut self.requested;
        let known =
            requested.answered.iter().find(|(asked, known, _)| (*asked, *known) == (from, id));
        if let Some((_, _, answer)) = known {
            let answer = answer.clone();
            return self.respond(from, id, answer, effects);
        }
        if requested.held.iter().any(|held| (held.from, held.id) == (from, id)) {
            return;
        }
        if requested.held.len() >= limits::ADMIN_REQUESTS {
            let text = "ERR too many requests about the membership wait at the leader";
            return self.respond(from, id, Answer::Refused(text.to_owned()), effects);
        }
        let admin = unpack_words(words).map(parse);
        match admin {
            Some(Ok(admin)) => {
                requested.held.push(Held { from, id, admin, since: now, stage: Stage::Waiting });
            }
            Some(Err(error)) => {
                let text = error.message().into_owned();
                self.respond(from, id, Answer::Refused(text), effects);
            }
            None => self.counters.malformed += 1,
        }
    }

    fn respond(&mut self, from: ServerId, id: AdminId, answer: Answer, effects: &mut Vec<Effect>) {
        if from == self.identity.server {
            return self.requested.answer_own(id, &answer, &mut self.clients, effects);
        }
        let answered = &mut self.requested.answered;
        if !answered.iter().any(|(asked, known, _)| (*asked, *known) == (from, id)) {
            if answered.len() >= limits::ADMIN_ANSWERS {
                answered.pop_front();
            }
            answered.push_back((from, id, answer.clone()));
        }
        self.send(from, Message::AdminResponse { id, answer }, effects);
    }

    /// Begins a request, or looks whether it is concluded.
    fn carry_on(&mut self, now: Instant, request: &mut Held) {
        let next = match &request.stage {
            Stage::Waiting => self.begin(now, &request.admin),
            Stage::Begun(index) if self.raft.change_concluded(*index) => {
                Ok(Stage::Over(Answer::Done))
            }
            Stage::HandingOver if !self.raft.is_handing_over() => {
                let text = "ERR nobody took over within an election timeout; the leader leads on";
                Ok(Stage::Over(Answer::Refused(text.to_owned())))
            }
            Stage::Begun(_) | Stage::HandingOver | Stage::Over(_) => return,
        };
        match next {
            Ok(stage) => request.stage = stage,
            Err(refused) => {
                let patience = self.config.client.request_timeout / 2;
                if !refused.is_passing() || now >= request.since.after(patience) {
                    request.stage = Stage::Over(Answer::Refused(refusal(&refused)));
                }
            }
        }
    }

    fn begin(&mut self, now: Instant, admin: &Admin) -> Result<Stage, ChangeRefused> {
        if admin.dry_run {
            return Ok(Stage::Over(self.dry_run(now, &admin.request)));
        }
        if let AdminRequest::Transfer { to } = admin.request {
            if to == Some(self.identity.server) {
                return Ok(Stage::Over(Answer::Done));
            }
            self.raft.hand_over_to(now, to)?;
            return Ok(Stage::HandingOver);
        }
        let change = match self.change_of(now, &admin.request) {
            Ok(change) => change,
            Err(text) => return Ok(Stage::Over(Answer::Refused(text))),
        };
        let force = matches!(admin.request, AdminRequest::Remove { force: true, .. });
        let begun = self.raft.propose_change(now, &change, force)?;
        Ok(begun.map_or(Stage::Over(Answer::Done), Stage::Begun))
    }

    /// What a request means for the membership in force.
    ///
    /// # Errors
    /// The error line, where it makes no sense.
    pub(super) fn change_of(&self, now: Instant, request: &AdminRequest) -> Result<Change, String> {
        let membership = self.raft.membership();
        match request {
            AdminRequest::Add { id, addresses, learner } => {
                let (id, promote) = (*id, !learner);
                let add = |addresses| Change::Add { id, addresses, promote, replaces: None };
                let Some(member) = membership.member(id) else {
                    let addresses = addresses.clone().ok_or_else(|| {
                        format!(
                            "ERR server {id} is not a member: say where it will be, as in \
                             RAFT ADD {id} peer-address client-address"
                        )
                    })?;
                    return Ok(add(addresses));
                };
                let own = addresses_of(member);
                let is_same = addresses.as_ref().is_none_or(|given| *given == own);
                if !is_same || !member.is_met() || self.raft.is_heard(now, id) {
                    return Ok(add(addresses.clone().unwrap_or(own)));
                }
                match self.requested.stray(now, id) {
                    Some(Refusal::OldCopy) => Err(format!(
                        "ERR server {id} ran on an old copy of its data directory, and sets that \
                         aside when it starts: start it if it doesn't run, and say this again"
                    )),
                    Some(_) => Ok(Change::Readmit { id }),
                    None if addresses.is_some() => Ok(add(own)),
                    None => Err(format!(
                        "ERR server {id} is a member already, and out of touch: if it lost its \
                         disk, start it first, and say this again"
                    )),
                }
            }
            AdminRequest::Remove { id, .. } => Ok(Change::Remove { id: *id }),
            AdminRequest::Promote { id } => Ok(Change::Promote { id: *id }),
            AdminRequest::Replace { old, new, addresses } => {
                let is_member = |id: &ServerId| membership.member(*id).is_some();
                if !is_member(old) && !is_member(new) {
                    return Err(refusal(&ChangeRefused::NotMember(*old)));
                }
                let votes = membership.member(*new).is_some_and(|member| member.voter);
                if old == new || (votes && is_member(old)) {
                    return Err(format!(
                        "ERR server {new} is a member already: give the new one an id of its own, \
                         or say RAFT REMOVE {old}"
                    ));
                }
                let (id, addresses) = (*new, addresses.clone());
                Ok(Change::Add { id, addresses, promote: true, replaces: Some(*old) })
            }
            AdminRequest::Move { id, addresses } => {
                Ok(Change::Move { id: *id, addresses: addresses.clone() })
            }
            AdminRequest::Transfer { .. } => unreachable!("a transfer changes no membership"),
        }
    }

    /// Where the configuration says so, whoever lost its disk is let in again without a word.
    fn readmit_strays(&mut self, now: Instant) {
        if self.config.cluster.readmit == Readmit::Manual || !self.raft.is_ready() {
            return;
        }
        let is_lost = |id: &ServerId| self.requested.stray(now, *id) == Some(Refusal::LostDisk);
        let lost: Vec<ServerId> = self.requested.strays.keys().copied().filter(is_lost).collect();
        for id in lost {
            let is_met = self.raft.membership().member(id).is_some_and(|member| member.is_met());
            if is_met && self.raft.propose_change(now, &Change::Readmit { id }, false).is_ok() {
                self.requested.forget_stray(id);
            }
        }
    }
}

/// The change may have been made, or be made yet.
fn in_doubt(timeout: Duration) -> Reply {
    let waited_ms = timeout.as_millis();
    let text = format!(
        "INDOUBT the request was not concluded within {waited_ms} ms, and may be yet: see RAFT NODES"
    );
    Reply::Error(text.into())
}

/// The error line of a refused change: what is wrong, and what would be right.
pub(super) fn refusal(refused: &ChangeRefused) -> String {
    use ChangeRefused as R;
    match refused {
        R::NotLeader => "CLUSTERDOWN this server doesn't lead any more".to_owned(),
        R::NotReady => {
            "CLUSTERDOWN the leader has not committed an entry of its term yet; try again"
                .to_owned()
        }
        R::Underway => {
            "ERR another change of members is under way; try again when RAFT NODES shows \
                        nobody joining or leaving"
                .to_owned()
        }
        R::Transferring => "ERR leadership is being handed over; try again".to_owned(),
        R::LogFull => "MISCONF the leader's disk is full; the membership stays as it is".to_owned(),
        R::BadId => "ERR 0 is no server's id: expected a number, 1 or above".to_owned(),
        R::TooMany => {
            format!("ERR a cluster has at most {} members; RAFT REMOVE one first", limits::MEMBERS)
        }
        R::IdTaken(known) => format!(
            "ERR there is a member of this id, at peer address {} and client address {}: choose \
             another id, or say RAFT MOVE",
            known.peer, known.client
        ),
        R::AddressTaken(address, id) => {
            format!("ERR {address} is an address of server {id}; each port needs its own")
        }
        R::NotMember(id) => format!("ERR server {id} is not a member; RAFT NODES shows who is"),
        R::LastVoter => {
            "ERR nobody would be left to vote; RAFT ADD another server first".to_owned()
        }
        R::QuorumAtRisk { voters, in_touch } => format!(
            "ERR of the voters there would be ({}) only {} in touch, and {} are needed: bring the \
             others back first, or say FORCE and risk that nothing can be written",
            list(voters),
            in_touch.len(),
            voters.len() / 2 + 1
        ),
        R::NotSuccessor(id) => format!(
            "ERR server {id} can't take over, or nobody can: a successor is another voter that is \
             in touch; RAFT NODES shows who is"
        ),
    }
}

/// Ids, for people.
pub(super) fn list(ids: &[ServerId]) -> String {
    let ids: Vec<String> = ids.iter().map(ServerId::to_string).collect();
    ids.join(", ")
}
