//! Client sessions: which commands of which clients were carried out, and what they answered.
//!
//! Design 2-client-path §2; the dissertation's §6.3. Part of the state machine and of snapshots: the
//! same on every node, so that a client may ask any of them again. A session numbers its commands
//! 1, 2, 3 ...; here each takes effect once, in order. Called by `in_session.rs` for every command
//! of a session, and by `store.rs`. Knows no command and reads no clock of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian};

use crate::limits;
use crate::proto::frame::SessionMark;
use crate::proto::kept_reply::{decode_reply, encode_reply};
use crate::proto::reply::Reply;
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{ClusterTime, RequestSeq, SessionId};

/// What becomes of a session's command.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// It is the next one: it takes effect.
    Next,
    /// It has taken effect before, and this is what it answered.
    Kept(Reply),
    /// It has taken effect before, and what it answered is not kept any more.
    Forgotten,
    /// One before it is missing: it takes no effect. The number that would be the next one.
    Gap(RequestSeq),
    /// There is no such session, or not any more: nobody knows what became of it before.
    Over,
}

/// One client's commands.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Session {
    /// When it was last used, or up to [`limits::SESSION_TOUCH_MS`] earlier.
    used: ClusterTime,
    /// The last command that took effect.
    last: RequestSeq,
    /// What the last ones answered, `last` at the end.
    replies: VecDeque<Box<[u8]>>,
    /// Bytes of these, with what each costs.
    bytes: usize,
    /// What its client calls it, where it was named, until its first command takes effect.
    token: Option<Box<[u8]>>,
}

/// All sessions.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sessions {
    /// A snapshot that is being taken shares them as they were: who changes then makes a copy.
    table: BTreeMap<SessionId, Arc<Session>>,
    /// Who was silent for longest comes first.
    by_use: BTreeSet<(ClusterTime, SessionId)>,
    /// Those in which nothing was done, by what their clients call them.
    unused: BTreeMap<Box<[u8]>, SessionId>,
    bytes: usize,
    /// Changes with every command that took effect.
    folded: u64,
}

impl Sessions {
    /// How many there are, some of them perhaps over.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes of the replies that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A number that differs where another command took effect; 0 where there never was a session.
    pub(super) fn digest(&self) -> u64 {
        self.folded
    }

    /// The session that a client has opened under this token and not used, as its answer was lost.
    pub(super) fn opened(&self, token: &[u8], now: ClusterTime) -> Option<SessionId> {
        let id = *self.unused.get(token)?;
        self.table.get(&id).filter(|session| !session.is_over(now)).map(|_| id)
    }

    /// Begins a session under a number that none ever had.
    pub(super) fn open(&mut self, id: SessionId, token: Option<&[u8]>, now: ClusterTime) {
        if let Some(old) = token.and_then(|token| self.unused.get(token).copied()) {
            // It is over, or its client has one more reason to leave it.
            self.close(old);
        }
        if self.table.len() >= limits::SESSIONS {
            self.end_oldest();
        }
        let mut session = Session::new(now, RequestSeq::ZERO);
        session.token = token.map(Box::from);
        self.unused.extend(session.token.clone().map(|token| (token, id)));
        let before = self.table.insert(id, Arc::new(session));
        assert!(before.is_none(), "a session's number is that of a mutation, which no other has");
        self.by_use.insert((now, id));
        self.fold(id.0);
    }

    /// Ends a session; `false` if there was none.
    pub(super) fn close(&mut self, id: SessionId) -> bool {
        let Some(session) = self.table.remove(&id) else {
            return false;
        };
        self.by_use.remove(&(session.used, id));
        if let Some(token) = &session.token {
            self.unused.remove(token);
        }
        self.bytes -= session.bytes;
        self.fold(id.0);
        true
    }

    /// Decides about a command, and lets go of the replies that nobody awaits any more. One that is
    /// the next takes effect now, and is followed by [`keep`](Sessions::keep).
    pub(super) fn admit(&mut self, mark: SessionMark, now: ClusterTime) -> Verdict {
        let SessionMark { session: id, number, awaited } = mark;
        let Some(session) = self.table.get_mut(&id).filter(|session| !session.is_over(now)) else {
            return Verdict::Over;
        };
        let session = Arc::make_mut(session);
        if now.0 >= session.used.0.saturating_add(limits::SESSION_TOUCH_MS) {
            self.by_use.remove(&(session.used, id));
            session.used = now;
            self.by_use.insert((now, id));
        }
        while session.first_kept() < awaited.min(number)
            && let Some(reply) = session.replies.pop_front()
        {
            let cost = cost(&reply);
            session.bytes -= cost;
            self.bytes -= cost;
        }
        if number > session.last.next() {
            reached(Mark::SessionGap);
            return Verdict::Gap(session.last.next());
        }
        if number == session.last.next() || is_on(Mutation::SessionForgetsReplies) {
            return Verdict::Next;
        }
        reached(Mark::SessionRepeat);
        let place = number.0.checked_sub(session.first_kept().0);
        let kept = place.and_then(|place| session.replies.get(usize::try_from(place).ok()?));
        // One that doesn't decode came with a snapshot of who knows whom.
        kept.and_then(|bytes| decode_reply(bytes)).map_or(Verdict::Forgotten, Verdict::Kept)
    }

    /// The next command of a session has taken effect, and answered this.
    pub(super) fn keep(&mut self, id: SessionId, reply: &Reply) {
        // It may have been the one that ended its own session.
        let Some(session) = self.table.get_mut(&id) else { return };
        let session = Arc::make_mut(session);
        session.last = session.last.next();
        if let Some(token) = session.token.take() {
            self.unused.remove(&token);
        }
        let before = session.bytes;
        let mut bytes = Vec::new();
        encode_reply(reply, &mut bytes);
        let sum = u64::from(crc32fast::hash(&bytes));
        session.push(bytes.into());
        self.bytes += session.bytes;
        self.bytes -= before;
        let last = session.last;
        self.fold(id.0 ^ sum << 32 ^ last.0);
        while self.bytes > limits::SESSIONS_BYTES {
            self.end_oldest();
        }
    }

    /// Removes sessions whose time is over, some at a time.
    pub(super) fn expire(&mut self, now: ClusterTime) {
        for _ in 0..limits::EXPIRE_SESSIONS {
            match self.by_use.first() {
                Some((used, id)) if is_over(*used, now) => {
                    let id = *id;
                    reached(Mark::SessionExpired);
                    self.close(id);
                }
                _ => return,
            }
        }
    }

    fn end_oldest(&mut self) {
        if let Some((_, id)) = self.by_use.first().copied() {
            self.close(id);
        }
    }

    fn fold(&mut self, number: u64) {
        // Never 0 again: the multiplier is odd, and so is what is multiplied.
        let mixed = self.folded.rotate_left(7) ^ number;
        self.folded = (mixed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The sessions as they are now, to be made sections of, whatever happens to them meanwhile.
    /// Copies none of the replies.
    pub(super) fn captured(&self) -> CapturedSessions {
        let sessions = self.table.iter().map(|(id, session)| (*id, Arc::clone(session)));
        CapturedSessions { folded: self.folded, is_begun: false, left: sessions.collect() }
    }

    /// Takes over one such piece; `None`, and something of it perhaps taken, where it is none.
    pub(super) fn restore(&mut self, mut section: &[u8]) -> Option<()> {
        let rest = &mut section;
        self.folded = take_number(rest)?;
        while !rest.is_empty() {
            let id = SessionId(take_number(rest)?);
            let (used, last) = (ClusterTime(take_number(rest)?), RequestSeq(take_number(rest)?));
            let mut session = Session::new(used, last);
            for _ in 0..take_number(rest)? {
                let length = usize::try_from(take_number(rest)?).ok()?;
                let piece = rest.split_off(..length)?;
                match last == RequestSeq::ZERO && session.token.is_none() {
                    true => session.token = Some(piece.into()),
                    false => session.push(piece.into()),
                }
            }
            let is_possible = session.replies.len() as u64 <= last.0
                && last.0 < u64::MAX
                && self.table.len() < limits::SESSIONS
                && !self.table.contains_key(&id);
            if !is_possible {
                return None;
            }
            self.bytes += session.bytes;
            self.unused.extend(session.token.clone().map(|token| (token, id)));
            self.table.insert(id, Arc::new(session));
            self.by_use.insert((used, id));
        }
        Some(())
    }
}

impl Session {
    fn new(used: ClusterTime, last: RequestSeq) -> Session {
        Session { used, last, replies: VecDeque::new(), bytes: 0, token: None }
    }

    fn is_over(&self, now: ClusterTime) -> bool {
        is_over(self.used, now)
    }

    fn encode(&self, id: SessionId, out: &mut Vec<u8>) {
        // A token stands where the reply to command 0 would: only an unused session has one.
        let kept = self.token.iter().chain(&self.replies);
        for number in [id.0, self.used.0, self.last.0, kept.clone().count() as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for reply in kept {
            out.extend_from_slice(&(reply.len() as u64).to_le_bytes());
            out.extend_from_slice(reply);
        }
    }

    /// The number of the first command whose reply is kept; the next one's where none is.
    fn first_kept(&self) -> RequestSeq {
        RequestSeq(self.last.0 + 1 - self.replies.len() as u64)
    }

    fn push(&mut self, reply: Box<[u8]>) {
        self.bytes += cost(&reply);
        self.replies.push_back(reply);
        // All before one that isn't kept go too, so that they remain those of the last commands.
        while self.bytes > limits::SESSION_REPLY_BYTES
            || self.replies.len() > limits::SESSION_REPLIES
        {
            let gone = self.replies.pop_front().expect("what is over a bound is not nothing");
            self.bytes -= cost(&gone);
        }
    }
}

/// The sessions as they were when a snapshot began.
#[derive(Clone, Debug)]
pub(super) struct CapturedSessions {
    folded: u64,
    is_begun: bool,
    left: VecDeque<(SessionId, Arc<Session>)>,
}

impl Iterator for CapturedSessions {
    type Item = Vec<u8>;

    /// The next piece that a snapshot has of them, of some [`limits::SNAPSHOT_BLOCK_BYTES`]; a
    /// session is never parted. Where there is none but was one, a piece says so.
    fn next(&mut self) -> Option<Vec<u8>> {
        let is_told = std::mem::replace(&mut self.is_begun, true) || self.folded == 0;
        if self.left.is_empty() && is_told {
            return None;
        }
        let mut out = self.folded.to_le_bytes().to_vec();
        while out.len() < limits::SNAPSHOT_BLOCK_BYTES
            && let Some((id, session)) = self.left.pop_front()
        {
            session.encode(id, &mut out);
        }
        Some(out)
    }
}

fn is_over(used: ClusterTime, now: ClusterTime) -> bool {
    now.0 >= used.0.saturating_add(limits::SESSION_IDLE_MS)
}

fn cost(reply: &[u8]) -> usize {
    reply.len() + limits::SESSION_REPLY_COST
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    rest.split_off(..8).map(LittleEndian::read_u64)
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
