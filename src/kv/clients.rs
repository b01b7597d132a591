//! The rows of CLIENT's subcommands about other connections, and the reading of their arguments.
//!
//! Redis 7's CLIENT LIST, KILL, PAUSE, REPLY, UNBLOCK and their like. None ever travels through the
//! log: they are about the clients of the node that they are sent to. `node/operators.rs` carries
//! them out; nothing here knows a connection.

use super::command::{Command, ConnectionCommand, Group, Handler, ROW};
use super::connection::{ADMIN, NOSCRIPT_LOADING_STALE};
use super::error::CommandError;
use super::server::timeout_ms;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::escape_echo;

/// Which of them it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientCommand {
    /// `CLIENT LIST [TYPE type | ID id ...]`: see [`list`].
    List,
    /// `CLIENT KILL ...`: see [`kill`].
    Kill,
    /// `CLIENT PAUSE timeout [WRITE | ALL]`: see [`pause`].
    Pause,
    /// `CLIENT UNPAUSE`
    Unpause,
    /// `CLIENT REPLY ON | OFF | SKIP`: see [`reply_mode`].
    Reply,
    /// `CLIENT UNBLOCK id [TIMEOUT | ERROR]`: see [`unblock`].
    Unblock,
    /// `CLIENT NO-EVICT`, `CLIENT NO-TOUCH`: nothing is evicted here, and no use is noted.
    Nothing,
    /// `CLIENT GETREDIR`
    GetRedir,
    /// `CLIENT TRACKINGINFO`
    TrackingInfo,
    /// `CLIENT CAPA capability ...`: see [`redirects`].
    Capa,
}

const fn row(name: &'static str, check: super::command::Check, command: ClientCommand) -> Command {
    Command {
        name,
        group: Group::Connection,
        flags: ADMIN,
        handler: Handler::Connection { check, command: ConnectionCommand::Client(command) },
        ..ROW
    }
}

/// `CLIENT LIST`
pub(super) const LIST: Command = Command {
    arity: -2,
    since: "2.4.0",
    complexity: "O(N) where N is the number of client connections",
    summary: "Get the list of client connections",
    usage: "[TYPE normal | master | replica | pubsub] [ID client-id ...]",
    tips: &["nondeterministic_output"],
    ..row("client|list", |args| list(args).map(drop), ClientCommand::List)
};

/// `CLIENT KILL`
pub(super) const KILL: Command = Command {
    arity: -3,
    since: "2.4.0",
    complexity: "O(N) where N is the number of client connections",
    summary: "Kill the connection of a client",
    usage: "ip:port | [ID client-id] [TYPE type] [USER username] [ADDR ip:port] [LADDR ip:port] \
            [SKIPME yes | no]",
    ..row("client|kill", |args| kill(args).map(drop), ClientCommand::Kill)
};

/// `CLIENT PAUSE`
pub(super) const PAUSE: Command = Command {
    arity: -3,
    since: "3.0.0",
    summary: "Stop processing commands from clients of this node for some time",
    usage: "timeout [WRITE | ALL]",
    ..row("client|pause", |args| pause(args).map(drop), ClientCommand::Pause)
};

/// `CLIENT UNPAUSE`
pub(super) const UNPAUSE: Command = Command {
    arity: 2,
    since: "6.2.0",
    complexity: "O(N) where N is the number of paused clients",
    summary: "Resume processing of clients that were paused",
    ..row("client|unpause", |_| Ok(()), ClientCommand::Unpause)
};

/// `CLIENT REPLY`
pub(super) const REPLY: Command = Command {
    arity: 3,
    flags: NOSCRIPT_LOADING_STALE,
    since: "3.2.0",
    summary: "Instruct the server whether to reply to commands",
    usage: "ON | OFF | SKIP",
    ..row("client|reply", |args| reply_mode(args).map(drop), ClientCommand::Reply)
};

/// `CLIENT UNBLOCK`
pub(super) const UNBLOCK: Command = Command {
    arity: -3,
    since: "5.0.0",
    complexity: "O(log N) where N is the number of client connections",
    summary: "Unblock a client that waits in WAIT, from a different connection",
    usage: "client-id [TIMEOUT | ERROR]",
    ..row("client|unblock", |args| unblock(args).map(drop), ClientCommand::Unblock)
};

/// `CLIENT NO-EVICT`
pub(super) const NO_EVICT: Command = Command {
    arity: 3,
    since: "7.0.0",
    summary: "Set client eviction mode for the current connection; nothing is evicted here",
    usage: "ON | OFF",
    ..row("client|no-evict", check_switch, ClientCommand::Nothing)
};

/// `CLIENT NO-TOUCH`
pub(super) const NO_TOUCH: Command = Command {
    arity: 3,
    flags: NOSCRIPT_LOADING_STALE,
    since: "7.2.0",
    summary: "Whether commands of this connection count as use of a key; no use is noted here",
    usage: "ON | OFF",
    ..row("client|no-touch", check_switch, ClientCommand::Nothing)
};

/// `CLIENT GETREDIR`
pub(super) const GETREDIR: Command = Command {
    arity: 2,
    flags: NOSCRIPT_LOADING_STALE,
    since: "6.0.0",
    summary: "Get tracking notifications redirection client ID if any",
    ..row("client|getredir", |_| Ok(()), ClientCommand::GetRedir)
};

/// `CLIENT TRACKINGINFO`
pub(super) const TRACKINGINFO: Command = Command {
    arity: 2,
    flags: NOSCRIPT_LOADING_STALE,
    since: "6.2.0",
    summary: "Return information about server assisted client side caching for the connection",
    ..row("client|trackinginfo", |_| Ok(()), ClientCommand::TrackingInfo)
};

/// `CLIENT CAPA`
pub(super) const CAPA: Command = Command {
    arity: -3,
    flags: NOSCRIPT_LOADING_STALE,
    since: "0.1.0",
    summary: "Tell what the client can do: with redirect, it is told where the leader is",
    usage: "capability [capability ...]",
    ..row("client|capa", |_| Ok(()), ClientCommand::Capa)
};

/// Whether a CLIENT CAPA names `redirect`. What is unknown is passed over, as in Valkey.
pub fn redirects(args: Args<'_>) -> bool {
    args.iter().skip(2).any(|word| is(word, b"redirect"))
}

fn is(word: &[u8], name: &[u8]) -> bool {
    word.eq_ignore_ascii_case(name)
}

fn check_switch(args: Args<'_>) -> Result<(), CommandError> {
    let word = args.get(2).unwrap_or_default();
    if is(word, b"on") || is(word, b"off") { Ok(()) } else { Err(CommandError::Syntax) }
}

/// Redis's kinds of clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientKind {
    /// All but those that have subscribed to something.
    Normal,
    /// What isn't there: nodes are not each other's clients.
    Peer,
    /// Those that have subscribed to something.
    PubSub,
}

fn kind(word: &[u8]) -> Result<ClientKind, CommandError> {
    if is(word, b"normal") {
        Ok(ClientKind::Normal)
    } else if is(word, b"master") || is(word, b"replica") || is(word, b"slave") {
        Ok(ClientKind::Peer)
    } else if is(word, b"pubsub") {
        Ok(ClientKind::PubSub)
    } else {
        Err(CommandError::ClientType(escape_echo(word, limits::ECHO_BYTES)))
    }
}

/// Whom CLIENT LIST shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum List {
    /// Everybody.
    All,
    /// Those of a kind.
    Kind(ClientKind),
    /// Those with these numbers.
    Ids(Vec<u64>),
}

/// Reads a CLIENT LIST.
///
/// # Errors
/// A filter that is unknown, or whose value is.
pub fn list(args: Args<'_>) -> Result<List, CommandError> {
    match (args.len(), args.get(2), args.get(3)) {
        (2, ..) => Ok(List::All),
        (4, Some(word), Some(name)) if is(word, b"type") => kind(name).map(List::Kind),
        (_, Some(word), Some(_)) if is(word, b"id") => {
            // Nobody has a number below 1; asking for one is no error, as in Redis.
            let id = |word| parse_integer(word).ok_or(CommandError::ClientId);
            let ids: Result<Vec<i64>, _> = args.iter().skip(3).map(id).collect();
            Ok(List::Ids(ids?.into_iter().filter_map(|id| u64::try_from(id).ok()).collect()))
        }
        _ => Err(CommandError::Syntax),
    }
}

/// Whom CLIENT KILL ends: who fits all that is given.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Kill<'a> {
    /// The form with an address alone, whose answer is `OK` or an error.
    pub is_old_form: bool,
    /// The number.
    pub id: Option<u64>,
    /// The kind.
    pub kind: Option<ClientKind>,
    /// The address, as CLIENT LIST shows it.
    pub address: Option<&'a [u8]>,
    /// The address that it is connected to.
    pub local_address: Option<&'a [u8]>,
    /// Whether who asks is meant too.
    pub includes_self: bool,
}

/// Reads a CLIENT KILL.
///
/// # Errors
/// A filter that is unknown, or whose value is.
pub fn kill(args: Args<'_>) -> Result<Kill<'_>, CommandError> {
    if args.len() == 3 {
        let address = args.get(2);
        return Ok(Kill { is_old_form: true, address, includes_self: true, ..Kill::default() });
    }
    let mut kill = Kill::default();
    let mut words = args.iter().skip(2);
    while let Some(filter) = words.next() {
        let value = words.next().ok_or(CommandError::Syntax)?;
        if is(filter, b"id") {
            let id = parse_integer(value).and_then(|id| u64::try_from(id).ok());
            kill.id = Some(id.filter(|id| *id > 0).ok_or(CommandError::ClientIdPositive)?);
        } else if is(filter, b"type") {
            kill.kind = Some(kind(value)?);
        } else if is(filter, b"addr") {
            kill.address = Some(value);
        } else if is(filter, b"laddr") {
            kill.local_address = Some(value);
        } else if is(filter, b"user") {
            // Everybody is `default` here.
            if value != b"default" {
                let user = escape_echo(value, limits::ECHO_BYTES);
                return Err(CommandError::NoSuchUser(user));
            }
        } else if is(filter, b"skipme") && is(value, b"yes") {
            kill.includes_self = false;
        } else if is(filter, b"skipme") && is(value, b"no") {
            kill.includes_self = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(kill)
}

/// Whom CLIENT PAUSE holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Paused {
    /// Whoever sends a write.
    Writes,
    /// Everybody.
    All,
}

/// Reads a CLIENT PAUSE: for how many milliseconds, and whom.
///
/// # Errors
/// A time that is none, or a mode.
pub fn pause(args: Args<'_>) -> Result<(u64, Paused), CommandError> {
    let whom = match (args.len(), args.get(3)) {
        (3, _) => Paused::All,
        (4, Some(word)) if is(word, b"all") => Paused::All,
        (4, Some(word)) if is(word, b"write") => Paused::Writes,
        (4, _) => return Err(CommandError::PauseMode),
        _ => return Err(CommandError::subcommand_syntax(args, "CLIENT")),
    };
    Ok((timeout_ms(args.get(2).and_then(parse_integer))?, whom))
}

/// Which replies a connection gets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ReplyMode {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// All but that to the next command.
    Skip,
}

/// Reads a CLIENT REPLY.
///
/// # Errors
/// Any other word.
pub fn reply_mode(args: Args<'_>) -> Result<ReplyMode, CommandError> {
    let word = args.get(2).unwrap_or_default();
    if is(word, b"on") {
        Ok(ReplyMode::On)
    } else if is(word, b"off") {
        Ok(ReplyMode::Off)
    } else if is(word, b"skip") {
        Ok(ReplyMode::Skip)
    } else {
        Err(CommandError::Syntax)
    }
}

/// Reads a CLIENT UNBLOCK: whom, and whether with an error.
///
/// # Errors
/// An id that is none, or another word.
pub fn unblock(args: Args<'_>) -> Result<(i64, bool), CommandError> {
    let is_error = match (args.len(), args.get(3)) {
        (3, _) => false,
        (4, Some(word)) if is(word, b"timeout") => false,
        (4, Some(word)) if is(word, b"error") => true,
        (4, _) => return Err(CommandError::UnblockReason),
        _ => return Err(CommandError::subcommand_syntax(args, "CLIENT")),
    };
    let id = args.get(2).and_then(parse_integer).ok_or(CommandError::NotAnInteger)?;
    Ok((id, is_error))
}
