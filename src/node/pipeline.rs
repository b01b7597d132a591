//! From a client's commands to the batch, the read group or an answer at once.
//!
//! Design 2-client-path §3, "a connection sees its commands in order": what a connection sends in
//! one turn is a *run*. A run with a write goes into the batch as a whole, reads in their places;
//! so does a read behind an unapplied write of its connection. A write behind a held read waits
//! (is *parked*, `parking.rs`) until the read is released. Called by `node.rs`.

use std::ops::Range;

use bytes::Bytes;

use super::clients::Origin;
use super::held;
use super::node::Node;
use super::requests::Request;
use super::transactions::has_write;
use super::{Effect, Requests};
use crate::kv::clients::ClientCommand;
use crate::kv::command::{self, Command, ConnectionCommand, Handler, ReadContext};
use crate::kv::connection::ReadMode;
use crate::kv::error::CommandError;
use crate::kv::in_session::{self, InSession};
use crate::kv::server::ServerCommand;
use crate::proto::args::Args;
use crate::proto::batch::{Batch, Standing};
use crate::proto::frame::SessionMark;
use crate::proto::message::GrowthRefusal;
use crate::proto::reply::Reply;
use crate::testing::{Mark, Mutation, is_on, reached};
use crate::types::{ClientId, Instant};

const WAIT: ConnectionCommand = ConnectionCommand::Server(ServerCommand::Wait);
const SAVE: ConnectionCommand = ConnectionCommand::Server(ServerCommand::Save);
const DEBUG: ConnectionCommand = ConnectionCommand::Server(ServerCommand::Debug);

/// A request, looked up.
enum Resolved<'a> {
    Command(&'static Command, Args<'a>),
    InSession(SessionMark, &'static Command, Args<'a>),
    Wrong(CommandError, Args<'a>),
    Refused(&'a str),
    Malformed(&'a str),
}

impl Resolved<'_> {
    fn command(&self) -> Option<&'static Command> {
        match self {
            Resolved::Command(command, _) | Resolved::InSession(_, command, _) => Some(command),
            _ => None,
        }
    }

    fn connection_command(&self) -> Option<ConnectionCommand> {
        match self.command()?.handler {
            Handler::Connection { command, .. } => Some(command),
            _ => None,
        }
    }

    /// Whether it looks at what the commands before it on its connection have left: they have to be
    /// answered first.
    fn looks_back(&self) -> bool {
        let command = self.connection_command();
        matches!(command, Some(ConnectionCommand::Watch | WAIT | SAVE))
    }

    /// Whether it may hold what comes behind it.
    fn holds(&self) -> bool {
        let command = self.connection_command();
        matches!(
            command,
            Some(WAIT | SAVE | DEBUG | ConnectionCommand::Client(ClientCommand::Pause))
        )
    }
}

impl Node {
    /// Takes all commands of a turn.
    pub(super) fn take_requests(
        &mut self,
        now: Instant,
        batch: &Requests,
        effects: &mut Vec<Effect>,
    ) {
        let mut start = 0;
        while let Some((client, _)) = batch.get(start) {
            let mut end = start + 1;
            while batch.get(end).is_some_and(|(other, _)| other == client) {
                end += 1;
            }
            self.take_run(now, client, batch, start..end, effects);
            start = end;
        }
    }

    /// Takes what one connection sent in this turn: in one piece, unless a command in it looks back
    /// or holds what follows.
    fn take_run(
        &mut self,
        now: Instant,
        id: ClientId,
        batch: &Requests,
        run: Range<usize>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(client) = self.clients.find(id) else {
            return;
        };
        if client.closing {
            return;
        }
        client.active = now;
        let resolved: Vec<Resolved<'_>> =
            run.clone().filter_map(|position| resolve(batch, position)).collect();
        let mut begin = 0;
        while begin < resolved.len() {
            let rest = &resolved[begin..];
            let cuts = |pair: &[Resolved<'_>]| pair[0].holds() || pair[1].looks_back();
            let count = rest.windows(2).position(cuts).map_or(rest.len(), |last| last + 1);
            let places = run.start + begin..run.start + begin + count;
            self.take_piece(now, id, &rest[..count], batch, places, effects);
            begin += count;
        }
    }

    /// Takes a piece of a run, or parks it.
    fn take_piece(
        &mut self,
        now: Instant,
        id: ClientId,
        resolved: &[Resolved<'_>],
        batch: &Requests,
        places: Range<usize>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(client) = self.clients.find(id) else {
            return;
        };
        let has_write = has_write(client, resolved.iter().filter_map(Resolved::command));
        let follows_read = client.reading > 0 && has_write;
        let looks_back = resolved.first().is_some_and(Resolved::looks_back);
        let looks_early = looks_back && (client.reading > 0 || client.writing > 0);
        let must_park = follows_read && !is_on(Mutation::WriteOvertakesRead) || looks_early;
        let is_held = client.is_held || self.operations.holding.is_paused(now, has_write);
        if !client.parked.is_empty() || must_park || is_held {
            return self.park(id, batch, places, looks_back, effects);
        }
        let follows_write = client.writing > 0 && !is_on(Mutation::ReadOvertakesWrite);
        if follows_write && !has_write {
            reached(Mark::ReadJoinsBatch);
        }
        let in_batch = has_write || follows_write;
        for request in resolved {
            self.take_request(now, id, request, in_batch, effects);
        }
    }

    fn take_request(
        &mut self,
        now: Instant,
        id: ClientId,
        request: &Resolved<'_>,
        in_batch: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.commands += 1;
        match request {
            Resolved::Command(command, args) => {
                self.take_command(now, id, command, *args, in_batch, effects);
            }
            Resolved::InSession(mark, command, args) => {
                if let Some(client) = self.clients.find(id) {
                    client.mark = Some(*mark);
                }
                self.take_command(now, id, command, *args, in_batch, effects);
                if let Some(client) = self.clients.find(id) {
                    client.mark = None;
                }
            }
            Resolved::Wrong(error, args) => {
                let is_queued = self.clients.find(id).is_some_and(|c| c.block.queued().is_some());
                let reply = self.queue_wrong(id, error.clone(), *args);
                self.answer_now(id, reply, effects);
                if !is_queued {
                    self.show_wrong(now, id, error, *args, effects);
                }
            }
            Resolved::Refused(error) => {
                self.answer_now(id, Reply::Error((*error).to_owned().into()), effects);
            }
            Resolved::Malformed(error) => {
                if !error.is_empty() {
                    self.answer_now(id, Reply::Error((*error).to_owned().into()), effects);
                }
                self.clients.close(id, effects);
            }
        }
    }

    fn take_command(
        &mut self,
        now: Instant,
        id: ClientId,
        command: &'static Command,
        args: Args<'_>,
        in_batch: bool,
        effects: &mut Vec<Effect>,
    ) {
        let growth_refusal = self.growth_refusal();
        let loading_percent = self.snapshots.loading_percent();
        let Some(client) = self.clients.find(id) else {
            return;
        };
        if client.closing {
            return;
        }
        client.last_command = command.name;
        let read_mode = client.read_mode;
        let Some(origin) = self.clients.open_slot(id) else {
            return;
        };
        let own = match command.handler {
            Handler::Connection { command, .. } => Some(command),
            _ => None,
        };
        if self.is_restricted(id, own) {
            let error = CommandError::WhileSubscribed(command.name);
            let reply = self.queue_wrong(id, error, args);
            return self.clients.answer(origin, reply, effects);
        }
        if own.is_none() && self.clients.listeners.monitors.has(id) {
            let reply = self.queue_wrong(id, CommandError::WhileMonitoring, args);
            return self.clients.answer(origin, reply, effects);
        }
        if let Some(elsewhere) = self.redirection(id, command, args) {
            let reply = self.queue_wrong(id, elsewhere, args);
            return self.clients.answer(origin, reply, effects);
        }
        if let Some(early) = self.not_yet(command, args) {
            let reply = self.queue_wrong(id, early, args);
            return self.clients.answer(origin, reply, effects);
        }
        if let Some(queued) = self.queue(id, command, args) {
            self.clients.answer(origin, queued, effects);
            return;
        }
        use ConnectionCommand as C;
        if !matches!(own, Some(C::Multi | C::ClientCaching)) {
            self.clients.listeners.trackers.note_command(origin);
        }
        if let Some(percent) = loading_percent.filter(|_| own.is_none()) {
            return self.clients.answer(origin, loading(percent), effects);
        }
        if let Some(refused) = growth_refusal.filter(|_| own.is_none() && command.grows()) {
            reached(Mark::GrowthRefused);
            return self.clients.answer(origin, refusal(refused), effects);
        }
        match command.handler {
            Handler::Write { .. } | Handler::Read { .. } => {
                self.take_store_command(now, origin, command, args, in_batch, read_mode, effects);
            }
            Handler::Connection { command: ConnectionCommand::RaftAdmin, .. } => {
                self.take_admin(now, origin, args, effects);
            }
            Handler::Connection { command: ConnectionCommand::RaftExport, .. } => {
                self.take_export(now, origin, args, effects);
            }
            Handler::Connection { command: ConnectionCommand::Exec, .. } => {
                self.take_exec(now, origin, in_batch, effects);
            }
            Handler::Connection { command: ConnectionCommand::Server(command), .. } => {
                self.take_server_command(now, origin, command, args, effects);
            }
            Handler::Connection { command, .. } => {
                let reply = self.connection_command(now, id, command, args, effects);
                self.clients.answer(origin, reply, effects);
            }
            Handler::Container => unreachable!("resolve returns no container"),
        }
        // Behind it, so that who has just ended to monitor is not shown by which command.
        self.show_monitors(now, id, command, args, effects);
    }

    /// Sends a command of the store where it belongs: into the batch, beside it, or to the reads.
    #[allow(clippy::too_many_arguments)] // One command, and where it stands.
    pub(super) fn take_store_command(
        &mut self,
        now: Instant,
        origin: Origin,
        command: &'static Command,
        args: Args<'_>,
        in_batch: bool,
        read_mode: ReadMode,
        effects: &mut Vec<Effect>,
    ) {
        if command.is_write() {
            self.count_in_batch(origin.client);
            match self.clients.find(origin.client).and_then(|client| client.mark.take()) {
                None => self.gateway.push_write(now, origin, command, args),
                Some(mark) => {
                    let marked = InSession::new(mark, command, args);
                    self.gateway.push_write(now, origin, marked.row(), marked.args());
                }
            }
        } else if in_batch {
            self.count_in_batch(origin.client);
            self.gateway.push_read(now, origin, command, args);
        } else {
            self.take_read(now, origin, command, args, read_mode, effects);
        }
    }

    /// A read with nothing unapplied before it on its connection.
    fn take_read(
        &mut self,
        now: Instant,
        origin: Origin,
        command: &'static Command,
        args: Args<'_>,
        read_mode: ReadMode,
        effects: &mut Vec<Effect>,
    ) {
        // A read of this connection that waits will show the state of a later moment.
        let follows_read = self.clients.find(origin.client).is_some_and(|c| c.reading > 0);
        let is_at_once = match read_mode {
            ReadMode::Linearizable => false,
            ReadMode::Lease => !follows_read && self.raft.has_lease(now) && !self.has_unapplied(),
            ReadMode::Stale => true,
        };
        if is_at_once {
            if read_mode == ReadMode::Lease {
                reached(Mark::LeaseRead);
            }
            let (store, now) = (self.machine.store(), self.estimate(now));
            let context = ReadContext { store, now, luck: &self.luck };
            held::answer(origin, command, &context, args, &mut self.clients, effects);
        } else {
            if let Some(client) = self.clients.find(origin.client) {
                client.reading += 1;
            }
            self.reads.push(now, origin, command, args);
        }
    }

    fn count_in_batch(&mut self, id: ClientId) {
        if let Some(client) = self.clients.find(id) {
            client.writing += 1;
        }
    }

    fn answer_now(&mut self, id: ClientId, reply: Reply, effects: &mut Vec<Effect>) {
        let is_closing = self.clients.find(id).is_none_or(|client| client.closing);
        if !is_closing && let Some(origin) = self.clients.open_slot(id) {
            self.clients.answer(origin, reply, effects);
        }
    }
}

fn resolve(batch: &Requests, position: usize) -> Option<Resolved<'_>> {
    let (_, request) = batch.get(position)?;
    let found = |mark: Option<SessionMark>, args| match (command::resolve(args), mark) {
        (Ok(command), Some(mark)) => Resolved::InSession(mark, command, args),
        (Ok(command), None) => Resolved::Command(command, args),
        (Err(error), _) => Resolved::Wrong(error, args),
    };
    Some(match request {
        Request::InSession(mark, args) => found(Some(mark), args),
        Request::Command(args) => match in_session::parse_do(args) {
            Some((mark, inner)) => found(Some(mark), inner),
            None => found(None, args),
        },
        Request::Refused(error) => Resolved::Refused(error),
        Request::Malformed(error) => Resolved::Malformed(error),
    })
}

/// The state machine is being made from a snapshot: nothing was done.
pub(super) fn loading(percent: u64) -> Reply {
    let text = format!("LOADING raftkv is loading the dataset in memory ({percent}%)");
    Reply::Error(text.into())
}

/// Growth is refused: nothing was done.
pub(super) fn refusal(refused: GrowthRefusal) -> Reply {
    Reply::Error(match refused {
        GrowthRefusal::Disk => {
            "MISCONF the leader's disk is full: only commands that don't grow the store are taken \
             until there is space again"
                .into()
        }
        GrowthRefusal::Memory => "OOM command not allowed when used memory > 'max_memory'.".into(),
    })
}

/// The batch as it may be appended while growth is refused.
pub(super) fn without_growth(payload: Bytes, refused: GrowthRefusal) -> Bytes {
    let standing = match refused {
        GrowthRefusal::Disk => Standing::RefusedDisk,
        GrowthRefusal::Memory => Standing::RefusedMemory,
    };
    let Some(batch) = Batch::decode(&payload) else {
        return payload;
    };
    let grows =
        batch.commands().any(|command| command::by_code(command.code).is_none_or(Command::grows));
    if !grows {
        return payload;
    }
    reached(Mark::GrowthEmptied);
    batch.emptied(standing)
}
