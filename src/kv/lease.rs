//! LEASE and its subcommands.
//!
//! Ours; the semantics are those of etcd's leases: `SET key value LEASE id` attaches a key, a write
//! of another value without LEASE detaches it, and with the lease's end all of its keys die at one
//! moment. What a lease is stands in `leases.rs`. Called through the command table.

use super::command::{Command, ConnectionCommand, Flags, Group, Handler, ROW};
use super::command::{ReadContext, WriteContext};
use super::error::CommandError;
use super::expiry::{Lifetime, Unit};
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;
use crate::types::LeaseId;

const LEASE: Command = Command { group: Group::Generic, since: "0.1.0", ..ROW };

const CHANGES: Flags = Flags::WRITE.and(Flags::FAST);

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "lease",
    arity: -2,
    summary: "A container for commands of leases",
    complexity: "Depends on subcommand.",
    subcommands: SUBCOMMANDS,
    ..LEASE
}];

const SUBCOMMANDS: &[Command] = &[
    Command {
        name: "lease|grant",
        code: 95,
        arity: -3,
        flags: CHANGES.and(Flags::DENYOOM),
        complexity: "O(log N) where N is the number of leases.",
        summary: "Begin a lease, and answer its number",
        usage: "milliseconds [lease]",
        handler: Handler::Write { check: |args| parse_grant(args).map(drop), apply: grant },
        ..LEASE
    },
    Command {
        name: "lease|keepalive",
        code: 96,
        arity: 3,
        flags: CHANGES,
        complexity: "O(log N) where N is the number of leases.",
        summary: "Have a lease last its whole time from now on",
        usage: "lease",
        handler: Handler::Write { check: |args| parse_id(args).map(drop), apply: keep_alive },
        ..LEASE
    },
    Command {
        name: "lease|revoke",
        code: 97,
        arity: 3,
        flags: Flags::WRITE,
        complexity: "O(N log M) where N is the number of keys of the lease, and M that of all keys.",
        summary: "End a lease, and delete the keys that are attached to it",
        usage: "lease",
        handler: Handler::Write { check: |args| parse_id(args).map(drop), apply: revoke },
        ..LEASE
    },
    Command {
        name: "lease|ttl",
        code: 98,
        arity: -3,
        flags: Flags::READONLY.and(Flags::FAST),
        complexity: "O(N) where N is the number of keys of the lease, with KEYS.",
        summary: "Get the time that a lease has left, the time that it was granted for, and its keys",
        usage: "lease [KEYS]",
        handler: Handler::Read { check: |args| parse_ttl(args).map(drop), run: ttl },
        ..LEASE
    },
    Command {
        name: "lease|list",
        code: 99,
        arity: 2,
        flags: Flags::READONLY,
        complexity: "O(N) where N is the number of leases.",
        summary: "Get the numbers of all leases",
        handler: Handler::Read { check: |_| Ok(()), run: list },
        ..LEASE
    },
    Command {
        name: "lease|help",
        arity: 2,
        flags: Flags::LOADING.and(Flags::STALE),
        summary: "Show helpful text about the different subcommands",
        handler: Handler::Connection { check: |_| Ok(()), command: ConnectionCommand::Help },
        ..LEASE
    },
];

/// Reads a lease's number: 1 and up.
pub(super) fn lease_id(word: Option<&[u8]>) -> Result<LeaseId, CommandError> {
    let number = word.and_then(parse_integer).and_then(|id| u64::try_from(id).ok());
    number.filter(|id| *id > 0).map(LeaseId).ok_or(CommandError::NotAnInteger)
}

fn parse_id(args: Args<'_>) -> Result<LeaseId, CommandError> {
    lease_id(args.get(2))
}

fn parse_grant(args: Args<'_>) -> Result<(Lifetime, u64, Option<LeaseId>), CommandError> {
    let text = args.get(2).unwrap_or_default();
    let lifetime = Lifetime::relative(text, Unit::Milliseconds, "lease|grant")?;
    let ttl_ms = parse_integer(text).and_then(|ms| u64::try_from(ms).ok());
    let ttl_ms = ttl_ms.ok_or(CommandError::NotAnInteger)?;
    match args.len() {
        3 => Ok((lifetime, ttl_ms, None)),
        4 => Ok((lifetime, ttl_ms, Some(lease_id(args.get(3))?))),
        _ => Err(CommandError::Syntax),
    }
}

fn grant(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (lifetime, ttl_ms, id) = parse_grant(args)?;
    let deadline = lifetime.deadline(context.store.clock(), "lease|grant")?;
    context.store.grant_lease(id, ttl_ms, deadline).map(number)
}

fn keep_alive(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.store.keep_lease_alive(parse_id(args)?).map(milliseconds)
}

fn revoke(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.store.revoke_lease(parse_id(args)?).map(Reply::count)
}

/// The lease, and whether its keys are asked for.
fn parse_ttl(args: Args<'_>) -> Result<(LeaseId, bool), CommandError> {
    let id = parse_id(args)?;
    match (args.len(), args.get(3)) {
        (3, _) => Ok((id, false)),
        (4, Some(word)) if word.eq_ignore_ascii_case(b"keys") => Ok((id, true)),
        _ => Err(CommandError::Syntax),
    }
}

fn ttl(context: &ReadContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (id, with_keys) = parse_ttl(args)?;
    let store = context.store;
    let lease = store.leases().get(id, store.clock()).ok_or(CommandError::NoLease)?;
    let left_ms = lease.deadline.0.saturating_sub(context.now.0).min(lease.ttl_ms);
    let mut replies = vec![milliseconds(left_ms), milliseconds(lease.ttl_ms)];
    if with_keys {
        // One may be dead by its own deadline.
        let living = lease.keys.iter().filter(|key| store.contains(key));
        replies.push(Reply::Array(living.map(|key| Reply::bulk(key)).collect()));
    }
    Ok(Reply::Array(replies))
}

fn list(context: &ReadContext<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let store = context.store;
    Ok(Reply::Array(store.leases().ids(store.clock()).map(number).collect()))
}

fn number(id: LeaseId) -> Reply {
    milliseconds(id.0)
}

fn milliseconds(ms: u64) -> Reply {
    Reply::Integer(i64::try_from(ms).expect("numbers and times of leases are read as an i64"))
}
