//! Publish and subscribe: the rows, and the names of what happens to keys.
//!
//! Redis's commands and keyspace notifications. A message is published through the log, so that
//! subscribers of every node get it, in one order; it leaves no trace in the store. Called by the
//! table, and by `node/subscribers.rs`, which keeps who listens to what.

use super::command::WriteContext;
use super::command::{self, Command, ConnectionCommand, Flags, Group, Handler, Keys, ROW};
use super::error::CommandError;
use super::history::{Change, ChangeKind};
use crate::config::NotifyFlags;
use crate::proto::args::Args;
use crate::proto::reply::Reply;

const ALWAYS: Flags = Flags::PUBSUB.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE);

const SUBSCRIBING: Command =
    Command { group: Group::PubSub, flags: ALWAYS, since: "2.0.0", keys: Keys::NONE, ..ROW };

const fn plain(command: ConnectionCommand) -> Handler {
    Handler::Connection { check: |_| Ok(()), command }
}

/// PUBLISH's code in the log.
pub const PUBLISH: u16 = 80;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "subscribe",
        arity: -2,
        complexity: "O(N) where N is the number of channels to subscribe to.",
        summary: "Listen for messages published to the given channels",
        usage: "channel [channel ...]",
        handler: plain(ConnectionCommand::Subscribe),
        ..SUBSCRIBING
    },
    Command {
        name: "psubscribe",
        arity: -2,
        complexity: "O(N) where N is the number of patterns the client is already subscribed to.",
        summary: "Listen for messages published to channels matching the given patterns",
        usage: "pattern [pattern ...]",
        handler: plain(ConnectionCommand::PSubscribe),
        ..SUBSCRIBING
    },
    Command {
        name: "unsubscribe",
        arity: -1,
        complexity: "O(N) where N is the number of clients already subscribed to a channel.",
        summary: "Stop listening for messages posted to the given channels",
        usage: "[channel ...]",
        handler: plain(ConnectionCommand::Unsubscribe),
        ..SUBSCRIBING
    },
    Command {
        name: "punsubscribe",
        arity: -1,
        complexity: "O(N+M) where N is the number of patterns the client is already subscribed and \
                     M is the number of total patterns subscribed in the system (by any client).",
        summary: "Stop listening for messages posted to channels matching the given patterns",
        usage: "[pattern ...]",
        handler: plain(ConnectionCommand::PUnsubscribe),
        ..SUBSCRIBING
    },
    Command {
        name: "publish",
        code: PUBLISH,
        arity: 3,
        flags: Flags::WRITE.and(Flags::FAST),
        complexity: "O(N+M) where N is the number of clients subscribed to the receiving channel \
                     and M is the total number of subscribed patterns (by any client).",
        summary: "Post a message to a channel",
        usage: "channel message",
        handler: Handler::Write { check: |_| Ok(()), apply: publish },
        ..SUBSCRIBING
    },
    Command {
        name: "pubsub",
        arity: -2,
        flags: Flags::NONE,
        since: "2.8.0",
        complexity: "Depends on subcommand.",
        summary: "A container for Pub/Sub commands",
        subcommands: PUBSUB_SUBCOMMANDS,
        ..SUBSCRIBING
    },
];

const PUBSUB_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "pubsub|channels",
        arity: -2,
        since: "2.8.0",
        summary: "List active channels",
        usage: "[pattern]",
        handler: Handler::Connection {
            check: |args| match args.len() <= 3 {
                true => Ok(()),
                false => Err(CommandError::subcommand_syntax(args, "PUBSUB")),
            },
            command: ConnectionCommand::PubSubChannels,
        },
        ..SUBSCRIBING
    },
    Command {
        name: "pubsub|numsub",
        arity: -2,
        since: "2.8.0",
        summary: "Get the count of subscribers for channels",
        usage: "[channel ...]",
        handler: plain(ConnectionCommand::PubSubNumSub),
        ..SUBSCRIBING
    },
    Command {
        name: "pubsub|numpat",
        arity: 2,
        since: "2.8.0",
        summary: "Get the count of unique patterns pattern subscriptions",
        handler: plain(ConnectionCommand::PubSubNumPat),
        ..SUBSCRIBING
    },
];

/// Nothing but the message's place in the order of changes. The node that the publisher is connected
/// to answers how many of its own clients get it; nobody knows of the others'.
fn publish(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut words = args.iter().skip(1);
    let (Some(channel), Some(message)) = (words.next(), words.next()) else {
        return Err(CommandError::WrongArity("publish"));
    };
    context.store.publish(channel, message);
    Ok(Reply::Integer(0))
}

/// What Redis calls that which happened to a key, and the letter of its class; two names at most.
pub fn events(change: &Change<'_>) -> impl Iterator<Item = (&'static str, NotifyFlags)> {
    let name = command::by_code(change.command).map_or("", |command| command.name);
    let moves = matches!(name, "rename" | "renamenx");
    let first = match change.kind {
        ChangeKind::Set => Some(match name {
            "incr" | "decr" | "incrby" | "decrby" => ("incrby", NotifyFlags::STRING),
            "incrbyfloat" => ("incrbyfloat", NotifyFlags::STRING),
            "append" => ("append", NotifyFlags::STRING),
            "setrange" => ("setrange", NotifyFlags::STRING),
            "setbit" => ("setbit", NotifyFlags::STRING),
            "copy" => ("copy_to", NotifyFlags::GENERIC),
            _ if moves => ("rename_to", NotifyFlags::GENERIC),
            _ => ("set", NotifyFlags::STRING),
        }),
        ChangeKind::Appended => Some(("append", NotifyFlags::STRING)),
        ChangeKind::Deadline if change.deadline.is_some() => Some(("expire", NotifyFlags::GENERIC)),
        ChangeKind::Deadline => Some(("persist", NotifyFlags::GENERIC)),
        ChangeKind::Deleted if moves => Some(("rename_from", NotifyFlags::GENERIC)),
        ChangeKind::Deleted => Some(("del", NotifyFlags::GENERIC)),
        ChangeKind::Expired => Some(("expired", NotifyFlags::EXPIRED)),
        ChangeKind::Cleared | ChangeKind::Message => None,
    };
    let gives_deadline = matches!(name, "set" | "setex" | "psetex" | "cas");
    let expires = change.kind == ChangeKind::Set && change.deadline.is_some() && gives_deadline;
    let second = expires.then_some(("expire", NotifyFlags::GENERIC));
    first.into_iter().chain(second)
}
