//! MULTI on a connection: its commands are queued, and EXEC makes one command of them.
//!
//! Redis's semantics; design 2-client-path §3: a transaction with a write in it is one command of
//! one batch, one of reads is one read. WATCH notes revisions, by this node's state, once everything
//! before it on its connection is answered: a state that is behind makes EXEC answer nil once too
//! often, never once too seldom. Called by `pipeline.rs`.

use std::collections::BTreeMap;

use super::Effect;
use super::clients::{Client, Origin};
use super::node::Node;
use super::pipeline::{loading, refusal};
use crate::kv::clients::ClientCommand;
use crate::kv::command::{Command, ConnectionCommand, Handler};
use crate::kv::error::CommandError;
use crate::kv::server::ServerCommand;
use crate::kv::transaction::{self, Composite};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::types::{ClientId, Instant, Revision};

/// What a connection has queued, and what it watches.
#[derive(Default, Debug)]
pub struct Block {
    /// Since MULTI.
    transaction: Option<Box<Transaction>>,
    /// The keys that it watches, with the revisions that they had.
    watched: BTreeMap<Box<[u8]>, Revision>,
}

#[derive(Default, Debug)]
struct Transaction {
    queued: Vec<Queued>,
    arena: Vec<u8>,
    /// Arguments of all that is queued.
    args: usize,
    /// What it will do, once EXEC comes.
    effect: transaction::Effect,
    /// A command was refused: EXEC does nothing.
    is_aborted: bool,
}

#[derive(Debug)]
struct Queued {
    /// What is wrong by itself is an error in its place.
    command: Result<&'static Command, CommandError>,
    count: u32,
    start: usize,
    end: usize,
}

impl Block {
    /// How many commands are queued, if a transaction is open.
    pub fn queued(&self) -> Option<usize> {
        self.transaction.as_ref().map(|transaction| transaction.queued.len())
    }

    /// What it counts towards [`limits::TRANSACTIONS_BYTES`].
    pub fn bytes(&self) -> usize {
        let queued = self.transaction.as_ref().map_or(0, |transaction| transaction.bytes());
        queued + self.watched.keys().map(|key| watched_bytes(key)).sum::<usize>()
    }
}

fn watched_bytes(key: &[u8]) -> usize {
    limits::WATCHED_KEY_BYTES + key.len()
}

impl Transaction {
    fn bytes(&self) -> usize {
        self.arena.len() + self.queued.len() * size_of::<Queued>()
    }

    fn push(&mut self, command: Result<&'static Command, CommandError>, args: Args<'_>) {
        let start = self.arena.len();
        self.arena.extend_from_slice(args.encoded());
        let (end, count) = (self.arena.len(), args.len() as u32);
        self.args += args.len();
        if let Ok(command) = command {
            self.effect = self.effect.max(transaction::Effect::of(command));
        }
        self.queued.push(Queued { command, count, start, end });
    }
}

/// Whether a command is carried out at once although a transaction is open.
fn is_never_queued(command: &Command) -> bool {
    use ConnectionCommand as C;
    let Handler::Connection { command, .. } = command.handler else {
        return false;
    };
    let resets = command == C::Server(ServerCommand::Reset);
    resets || matches!(command, C::Multi | C::Exec | C::Discard | C::Watch | C::Quit)
}

/// Whether a command can't be part of a transaction: its answer takes a while and comes from
/// elsewhere, or more than an answer follows.
fn is_never_part(command: &Command) -> bool {
    use ConnectionCommand as C;
    use ServerCommand as S;
    let Handler::Connection { command, .. } = command.handler else {
        return false;
    };
    let ends = matches!(command, C::Server(S::Debug | S::Save | S::Shutdown));
    // An answer that is none has no place in EXEC's array.
    let is_silent = command == C::Client(ClientCommand::Reply);
    let tells_more = matches!(
        command,
        C::KWatch | C::KUnwatch | C::Subscribe | C::PSubscribe | C::Unsubscribe | C::PUnsubscribe
    );
    ends || is_silent || tells_more || matches!(command, C::RaftAdmin | C::RaftExport)
}

impl Node {
    /// Queues a command of a client with an open transaction. `None`: there is none, or this
    /// command is never queued.
    pub(super) fn queue(
        &mut self,
        id: ClientId,
        command: &'static Command,
        args: Args<'_>,
    ) -> Option<Reply> {
        let refused = self.growth_refusal().filter(|_| command.grows());
        let loading_percent = self.snapshots.loading_percent();
        let queued = self.clients.find(id)?.block.transaction.as_ref()?;
        let (queued_bytes, queued_args) = (queued.arena.len(), queued.args);
        if is_never_queued(command) {
            return None;
        }
        let of_store = !matches!(command.handler, Handler::Connection { .. });
        let problem = match (loading_percent, refused) {
            (Some(percent), _) if of_store => Some(loading(percent)),
            (_, Some(refused)) => Some(refusal(refused)),
            _ if is_never_part(command) => Some(CommandError::NotInMulti.reply()),
            _ if queued_bytes + args.encoded().len() > limits::COMMAND_BYTES => {
                Some(CommandError::TransactionTooLong.reply())
            }
            _ if queued_args + args.len() > limits::COMMAND_ARGS => {
                Some(CommandError::TransactionTooWide.reply())
            }
            _ => self.reserve(args.encoded().len()).err().map(|error| error.reply()),
        };
        let transaction = self.clients.find(id)?.block.transaction.as_mut()?;
        match problem {
            Some(problem) => {
                transaction.is_aborted = true;
                Some(problem)
            }
            None => {
                transaction.push(Ok(command), args);
                Some(Reply::Simple("QUEUED"))
            }
        }
    }

    /// Takes room for one more queued command with so many bytes of arguments.
    fn reserve(&mut self, args_bytes: usize) -> Result<(), CommandError> {
        match self.clients.reserve_block(args_bytes + size_of::<Queued>()) {
            true => Ok(()),
            false => Err(CommandError::TransactionsFull),
        }
    }

    /// A command of a client is wrong by itself.
    pub(super) fn queue_wrong(
        &mut self,
        id: ClientId,
        error: CommandError,
        args: Args<'_>,
    ) -> Reply {
        // As in Redis an EXEC that is wrong ends the transaction, even one that there isn't.
        if error == CommandError::WrongArity("exec") {
            self.clients.take_block(id);
            return abort_because(&error.reply());
        }
        let is_open = self.clients.find(id).is_some_and(|c| c.block.transaction.is_some());
        if !is_open {
            return error.reply();
        }
        let refused = match error.is_found_early() {
            true => Some(error.clone()),
            false => self.reserve(args.encoded().len()).err(),
        };
        let Some(transaction) =
            self.clients.find(id).and_then(|client| client.block.transaction.as_mut())
        else {
            return error.reply();
        };
        match refused {
            Some(refused) => {
                transaction.is_aborted = true;
                refused.reply()
            }
            None => {
                transaction.push(Err(error), args);
                Reply::Simple("QUEUED")
            }
        }
    }

    /// Carries out MULTI, DISCARD, WATCH and UNWATCH.
    pub(super) fn transaction_command(
        &mut self,
        id: ClientId,
        command: ConnectionCommand,
        args: Args<'_>,
    ) -> Reply {
        let Some(client) = self.clients.find(id) else {
            return Reply::OK;
        };
        let is_open = client.block.transaction.is_some();
        match command {
            ConnectionCommand::Multi if is_open => return CommandError::NestedMulti.reply(),
            ConnectionCommand::Multi => client.block.transaction = Some(Box::default()),
            ConnectionCommand::Discard if !is_open => {
                return CommandError::DiscardWithoutMulti.reply();
            }
            ConnectionCommand::Discard | ConnectionCommand::Unwatch => {
                self.clients.take_block(id);
            }
            ConnectionCommand::Watch if is_open => return CommandError::WatchInMulti.reply(),
            ConnectionCommand::Watch => return self.watch(id, args),
            _ => unreachable!("the pipeline sends only these here"),
        }
        Reply::OK
    }

    fn watch(&mut self, id: ClientId, args: Args<'_>) -> Reply {
        if let Some(percent) = self.snapshots.loading_percent() {
            return loading(percent);
        }
        for key in args.iter().skip(1) {
            let is_new = self.clients.find(id).is_some_and(|c| !c.block.watched.contains_key(key));
            if is_new && !self.clients.reserve_block(watched_bytes(key)) {
                return CommandError::TransactionsFull.reply();
            }
            let revision = self.machine.store().revision_of(key);
            if let Some(client) = self.clients.find(id) {
                client.block.watched.entry(key.into()).or_insert(revision);
            }
        }
        Reply::OK
    }

    /// EXEC, whose place among the connection's replies is `origin`.
    pub(super) fn take_exec(
        &mut self,
        now: Instant,
        origin: Origin,
        in_batch: bool,
        effects: &mut Vec<Effect>,
    ) {
        let refused = self.growth_refusal();
        let Some(client) = self.clients.find(origin.client) else {
            return;
        };
        let read_mode = client.read_mode;
        if client.block.transaction.is_none() {
            self.clients.answer(origin, CommandError::ExecWithoutMulti.reply(), effects);
            return;
        }
        let block = self.clients.take_block(origin.client);
        let transaction = block.transaction.expect("just seen");
        let grows = transaction.effect == transaction::Effect::Grows;
        let problem = match refused.filter(|_| grows) {
            _ if transaction.is_aborted => CommandError::Aborted.reply(),
            Some(refused) => abort_because(&refusal(refused)),
            None => {
                let id = origin.client;
                let composite = self.composite(now, id, &transaction, &block.watched, effects);
                let (row, args) = (transaction.effect.row(), composite.args());
                if args.encoded().len() <= limits::COMMAND_BYTES {
                    self.take_store_command(now, origin, row, args, in_batch, read_mode, effects);
                    return;
                }
                CommandError::TransactionTooLong.reply()
            }
        };
        self.clients.answer(origin, problem, effects);
    }

    /// The transaction as one command. What the node answers by itself is answered now.
    fn composite(
        &mut self,
        now: Instant,
        id: ClientId,
        transaction: &Transaction,
        watched: &BTreeMap<Box<[u8]>, Revision>,
        effects: &mut Vec<Effect>,
    ) -> Composite {
        let mut composite = Composite::new(watched);
        let mut encoded = Vec::new();
        for Queued { command, count, start, end } in &transaction.queued {
            let args = Args::new(*count, &transaction.arena[*start..*end]);
            let reply = match command {
                Err(error) => {
                    self.show_wrong(now, id, error, args, effects);
                    error.reply()
                }
                Ok(row) => {
                    self.show_monitors(now, id, row, args, effects);
                    match row.handler {
                        Handler::Connection { command: ConnectionCommand::Monitor, .. } => {
                            CommandError::MonitorInMulti.reply()
                        }
                        Handler::Connection { command, .. } => {
                            self.connection_command(now, id, command, args, effects)
                        }
                        _ => {
                            composite.push_command(row, args);
                            continue;
                        }
                    }
                }
            };
            let protocol = self.clients.find(id).map(|client| client.protocol).unwrap_or_default();
            encoded.clear();
            reply.encode(protocol, &mut encoded);
            composite.push_reply(&encoded);
        }
        composite
    }
}

/// Redis's words for a transaction that EXEC refuses as a whole.
fn abort_because(refused: &Reply) -> Reply {
    let Reply::Error(reason) = refused else {
        return CommandError::Aborted.reply();
    };
    let reason = reason.strip_prefix("ERR ").unwrap_or(reason);
    Reply::Error(format!("EXECABORT Transaction discarded because of: {reason}").into())
}

/// Whether a run of commands sends something through the log: a write, or an EXEC of one.
pub(super) fn has_write<'a>(client: &Client, commands: impl Iterator<Item = &'a Command>) -> bool {
    let mut open = client.block.transaction.as_ref().map(|t| t.effect > transaction::Effect::Reads);
    for command in commands {
        let connection = match command.handler {
            Handler::Connection { command, .. } => Some(command),
            _ => None,
        };
        match (connection, &mut open) {
            (Some(ConnectionCommand::Multi), None) => open = Some(false),
            (Some(ConnectionCommand::Exec), Some(true)) => return true,
            (Some(ConnectionCommand::Exec | ConnectionCommand::Discard), _) => open = None,
            (Some(ConnectionCommand::Server(ServerCommand::Reset)), _) => open = None,
            (_, Some(writes)) => *writes |= command.is_write(),
            (_, None) if command.is_write() => return true,
            _ => {}
        }
    }
    false
}
