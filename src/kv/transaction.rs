//! Transactions: the rows of MULTI and its family, and what EXEC becomes in the log.
//!
//! Redis's semantics. A node queues a connection's commands and makes one command of them all: the
//! keys that were watched with their revisions, then each command. It is carried out at one place
//! of the log, or, where nothing in it writes, evaluated as one read. Called through the command
//! table; `node/transactions.rs` builds it.

use std::collections::BTreeMap;

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use super::command::{self, Command, ConnectionCommand, Flags, Group, Handler, Keys, ROW};
use super::command::{ReadContext, WriteContext};
use super::error::CommandError;
use super::luck::Luck;
use crate::proto::args::{Args, push_arg};
use crate::proto::reply::Reply;
use crate::testing::{Mutation, is_on};
use crate::types::Revision;

const ALWAYS: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);

const TRANSACTION: Command = Command {
    group: Group::Transactions,
    flags: ALWAYS.and(Flags::FAST).and(Flags::ALLOW_BUSY),
    ..ROW
};

const fn plain(command: ConnectionCommand) -> Handler {
    Handler::Connection { check: |_| Ok(()), command }
}

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "multi",
        since: "1.2.0",
        summary: "Mark the start of a transaction block",
        handler: plain(ConnectionCommand::Multi),
        ..TRANSACTION
    },
    Command {
        name: "exec",
        flags: ALWAYS.and(Flags::SKIP_SLOWLOG),
        since: "1.2.0",
        complexity: "Depends on commands in the transaction",
        summary: "Execute all commands issued after MULTI",
        handler: plain(ConnectionCommand::Exec),
        ..TRANSACTION
    },
    Command {
        name: "discard",
        since: "2.0.0",
        complexity: "O(N), when N is the number of queued commands",
        summary: "Discard all commands issued after MULTI",
        handler: plain(ConnectionCommand::Discard),
        ..TRANSACTION
    },
    Command {
        name: "watch",
        arity: -2,
        keys: Keys::all(1, &["RO"]),
        since: "2.2.0",
        complexity: "O(1) for every key.",
        summary: "Watch the given keys to determine execution of the MULTI/EXEC block",
        usage: "key [key ...]",
        handler: plain(ConnectionCommand::Watch),
        ..TRANSACTION
    },
    Command {
        name: "unwatch",
        since: "2.2.0",
        summary: "Forget about all watched keys",
        handler: plain(ConnectionCommand::Unwatch),
        ..TRANSACTION
    },
];

/// What stands in the log, or waits as a read. No client can name them.
pub(super) const INTERNAL: &[Command] = &[
    Command {
        name: "exec|reads",
        code: 61,
        flags: Flags::READONLY,
        handler: Handler::Read { check: |_| Ok(()), run: read },
        ..TRANSACTION
    },
    Command {
        name: "exec|writes",
        code: 62,
        flags: Flags::WRITE,
        handler: Handler::Write { check: |_| Ok(()), apply },
        ..TRANSACTION
    },
    Command {
        name: "exec|grows",
        code: 63,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        handler: Handler::Write { check: |_| Ok(()), apply },
        ..TRANSACTION
    },
];

/// What a transaction does to the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Effect {
    /// Nothing.
    #[default]
    Reads,
    /// Something, but it makes nothing grow.
    Writes,
    /// It may make the store grow.
    Grows,
}

impl Effect {
    /// That of one command of the store.
    pub fn of(command: &Command) -> Effect {
        match (command.is_write(), command.grows()) {
            (false, _) => Effect::Reads,
            (true, false) => Effect::Writes,
            (true, true) => Effect::Grows,
        }
    }

    /// The row of a transaction that does this.
    pub fn row(self) -> &'static Command {
        &INTERNAL[self as usize]
    }
}

/// Stands for a reply that the node made by itself.
const ANSWERED: u16 = command::NEVER_LOGGED;

/// A transaction as one command's arguments: the name; how many keys were watched; of each its
/// name and revision; then of each command its code and number of arguments, and those.
#[derive(Debug)]
pub struct Composite {
    count: u32,
    bytes: Vec<u8>,
}

impl Composite {
    /// One that holds if these keys still have these revisions, 0 for a key that is not there.
    pub fn new(watched: &BTreeMap<Box<[u8]>, Revision>) -> Composite {
        let mut composite = Composite { count: 0, bytes: Vec::new() };
        composite.push(b"exec");
        composite.push(&(watched.len() as u64).to_le_bytes());
        for (key, revision) in watched {
            composite.push(key);
            composite.push(&revision.0.to_le_bytes());
        }
        composite
    }

    /// Adds a command of the store.
    pub fn push_command(&mut self, command: &Command, args: Args<'_>) {
        self.push_head(command.code, args.len() as u32);
        self.bytes.extend_from_slice(args.encoded());
        self.count += args.len() as u32;
    }

    /// Adds what is already answered: the reply's bytes as the connection's protocol has them.
    pub fn push_reply(&mut self, encoded: &[u8]) {
        self.push_head(ANSWERED, 1);
        self.push(encoded);
    }

    /// All of it.
    pub fn args(&self) -> Args<'_> {
        Args::new(self.count, &self.bytes)
    }

    fn push_head(&mut self, code: u16, count: u32) {
        let mut head = [0; 6];
        LittleEndian::write_u16(&mut head[..2], code);
        LittleEndian::write_u32(&mut head[2..], count);
        self.push(&head);
    }

    fn push(&mut self, arg: &[u8]) {
        push_arg(&mut self.bytes, arg);
        self.count += 1;
    }
}

/// What a log from elsewhere may hold and no gateway of ours sends.
fn malformed() -> CommandError {
    CommandError::Syntax
}

fn number(arg: Option<&[u8]>) -> Result<u64, CommandError> {
    arg.filter(|arg| arg.len() == 8).map(LittleEndian::read_u64).ok_or_else(malformed)
}

/// The commands, if every watched key is as it was, else nothing.
fn unpack<'a>(
    args: Args<'a>,
    revision_of: impl Fn(&[u8]) -> Revision,
) -> Result<Option<Vec<(u16, Args<'a>)>>, CommandError> {
    let mut holds = true;
    let ignores_watch = is_on(Mutation::ExecIgnoresWatch);
    let commands = take_apart(args, |key, revision| {
        holds &= revision_of(key) == revision || ignores_watch;
        holds &= !is_on(Mutation::ExecDiscardsAtWill) || !revision.0.is_multiple_of(3);
    })?;
    Ok(holds.then_some(commands))
}

/// Calls each watched key with its revision, then returns the commands.
fn take_apart(
    args: Args<'_>,
    mut watched: impl FnMut(&[u8], Revision),
) -> Result<Vec<(u16, Args<'_>)>, CommandError> {
    let mut words = args.iter().skip(1);
    let mut passed = 2;
    for _ in 0..number(words.next())? {
        let key = words.next().ok_or_else(malformed)?;
        watched(key, Revision(number(words.next())?));
        passed += 2;
    }
    let mut rest = args.behind(passed);
    let mut commands = Vec::new();
    while let Some(head) = rest.get(0) {
        if head.len() != 6 {
            return Err(malformed());
        }
        let count = LittleEndian::read_u32(&head[2..]) as usize;
        let command = rest.behind(1).first(count).ok_or_else(malformed)?;
        commands.push((LittleEndian::read_u16(head), command));
        rest = rest.behind(1 + count);
    }
    Ok(commands)
}

fn read(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(commands) = unpack(args, |key| context.store.revision_of(key))? else {
        return Ok(Reply::NilArray);
    };
    let run = |(code, args): (u16, Args<'_>)| match command::by_code(code).map(|row| row.handler) {
        Some(Handler::Read { run, .. }) if !is_composite(code) => run(context, args),
        _ if code == ANSWERED => answered(args),
        _ => Err(malformed()),
    };
    Ok(replies(commands.into_iter().map(run)))
}

fn apply(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(commands) = unpack(args, |key| context.store.revision_of(key))? else {
        return Ok(Reply::NilArray);
    };
    let run = |(code, args): (u16, Args<'_>)| match command::by_code(code).map(|row| row.handler) {
        _ if is_composite(code) => Err(malformed()),
        Some(Handler::Write { apply, .. }) => {
            context.store.begin_command(code);
            apply(context, args)
        }
        Some(Handler::Read { run, .. }) => {
            let store = &*context.store;
            // Replies may differ from node to node: only one of them gives them to a client.
            let luck = Luck::new(store.revision().0);
            run(&ReadContext { store, now: store.clock(), luck: &luck }, args)
        }
        _ if code == ANSWERED => answered(args),
        _ => Err(malformed()),
    };
    Ok(replies(commands.into_iter().map(run)))
}

/// Whether this is a transaction, which is never part of one.
pub(super) fn is_composite(code: u16) -> bool {
    INTERNAL.iter().any(|row| row.code == code)
}

/// Calls each command of a transaction, with its row.
pub(super) fn each_command(args: Args<'_>, call: &mut dyn FnMut(&'static Command, Args<'_>)) {
    // One that is malformed is answered with an error, which nobody keeps.
    for (code, args) in take_apart(args, |_, _| {}).unwrap_or_default() {
        if let Some(row) = command::by_code(code).filter(|_| !is_composite(code)) {
            call(row, args);
        }
    }
}

fn answered(args: Args<'_>) -> Result<Reply, CommandError> {
    let encoded = args.get(0).ok_or_else(malformed)?;
    Ok(Reply::Encoded(Bytes::copy_from_slice(encoded)))
}

/// One that fails does not keep the others from being done, as in Redis.
fn replies(results: impl Iterator<Item = Result<Reply, CommandError>>) -> Reply {
    Reply::Array(results.map(|result| result.unwrap_or_else(|error| error.reply())).collect())
}
