//! The commands that `node/` answers by itself: their rows, and the reading of their arguments.
//!
//! Redis's connection and server commands as far as client libraries need them, and RAFT (design
//! 4-surface §3). The rows carry no code: none of these ever travels through the log. Nothing here
//! knows a connection; `node/` carries them out.

use super::admin;
use super::clients;
use super::command::{Command, ConnectionCommand, Flags, Group, Handler, ROW};
use super::error::CommandError;
use super::export;
use super::server;
use super::tracking;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::{Protocol, escape_echo};

pub(super) const LOADING_STALE: Flags = Flags::LOADING.and(Flags::STALE);
const LOADING_STALE_FAST: Flags = LOADING_STALE.and(Flags::FAST);
pub(super) const NOSCRIPT_LOADING_STALE: Flags = LOADING_STALE.and(Flags::NOSCRIPT);
pub(super) const ADMIN: Flags = NOSCRIPT_LOADING_STALE.and(Flags::ADMIN);
/// What may be sent at any moment of a connection's life.
const ALWAYS: Flags =
    NOSCRIPT_LOADING_STALE.and(Flags::FAST).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY);

/// A command whose arguments are always right once their number is.
const fn plain(command: ConnectionCommand) -> Handler {
    Handler::Connection { check: |_| Ok(()), command }
}

const CONNECTION: Command = Command { group: Group::Connection, ..ROW };
const SERVER: Command = Command { group: Group::Server, flags: LOADING_STALE, ..ROW };
const CLIENT: Command = Command { flags: NOSCRIPT_LOADING_STALE, arity: 2, ..CONNECTION };
const COMMAND: Command = Command { flags: LOADING_STALE.and(Flags::CATEGORY_CONNECTION), ..SERVER };
const RAFT: Command =
    Command { group: Group::Raft, flags: NOSCRIPT_LOADING_STALE, arity: 2, since: "0.1.0", ..ROW };

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "ping",
        arity: -1,
        flags: Flags::FAST,
        summary: "Ping the server",
        usage: "[message]",
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        handler: Handler::Connection { check: check_ping, command: ConnectionCommand::Ping },
        ..CONNECTION
    },
    Command {
        name: "echo",
        arity: 2,
        flags: LOADING_STALE_FAST,
        summary: "Echo the given string",
        usage: "message",
        handler: plain(ConnectionCommand::Echo),
        ..CONNECTION
    },
    Command {
        name: "quit",
        arity: -1,
        flags: ALWAYS,
        summary: "Close the connection",
        handler: plain(ConnectionCommand::Quit),
        ..CONNECTION
    },
    Command {
        name: "select",
        arity: 2,
        flags: LOADING_STALE_FAST,
        summary: "Change the selected database for the current connection",
        usage: "index",
        handler: Handler::Connection { check: check_select, command: ConnectionCommand::Select },
        ..CONNECTION
    },
    Command {
        name: "hello",
        arity: -1,
        flags: ALWAYS,
        since: "6.0.0",
        summary: "Handshake with Redis",
        usage: "[protover [AUTH username password] [SETNAME clientname]]",
        handler: Handler::Connection {
            check: |args| hello(args).map(drop),
            command: ConnectionCommand::Hello,
        },
        ..CONNECTION
    },
    Command {
        name: "command",
        arity: -1,
        since: "2.8.13",
        complexity: "O(N) where N is the total number of Redis commands",
        summary: "Get array of Redis command details",
        tips: &["nondeterministic_output_order"],
        subcommands: COMMAND_SUBCOMMANDS,
        handler: plain(ConnectionCommand::Command),
        ..COMMAND
    },
    Command {
        name: "client",
        arity: -2,
        flags: Flags::NONE,
        since: "2.4.0",
        complexity: "Depends on subcommand.",
        summary: "A container for client connection commands",
        subcommands: CLIENT_SUBCOMMANDS,
        group: Group::Connection,
        ..ROW
    },
    Command {
        name: "info",
        arity: -1,
        flags: LOADING_STALE.and(Flags::CATEGORY_DANGEROUS),
        summary: "Get information and statistics about the server",
        usage: "[section ...]",
        tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
        handler: plain(ConnectionCommand::Info),
        ..SERVER
    },
    Command {
        name: "config",
        arity: -2,
        flags: Flags::NONE,
        since: "2.0.0",
        complexity: "Depends on subcommand.",
        summary: "A container for server configuration commands",
        subcommands: CONFIG_SUBCOMMANDS,
        ..SERVER
    },
    Command {
        name: "role",
        flags: NOSCRIPT_LOADING_STALE
            .and(Flags::FAST)
            .and(Flags::CATEGORY_ADMIN)
            .and(Flags::CATEGORY_DANGEROUS),
        since: "2.8.12",
        summary: "Return the role of the instance in the context of replication",
        handler: plain(ConnectionCommand::Role),
        ..SERVER
    },
    Command {
        name: "readonly",
        flags: LOADING_STALE_FAST.and(Flags::CATEGORY_CONNECTION),
        group: Group::Cluster,
        since: "3.0.0",
        summary: "Read this node's state as it is, for this connection; writes stay allowed",
        handler: plain(ConnectionCommand::ReadOnly),
        ..ROW
    },
    Command {
        name: "readwrite",
        flags: LOADING_STALE_FAST.and(Flags::CATEGORY_CONNECTION),
        group: Group::Cluster,
        since: "3.0.0",
        summary: "Read linearizably again, for this connection",
        handler: plain(ConnectionCommand::ReadWrite),
        ..ROW
    },
    Command {
        name: "raft",
        arity: -2,
        flags: Flags::NONE,
        complexity: "Depends on subcommand.",
        summary: "A container for commands about consensus",
        subcommands: RAFT_SUBCOMMANDS,
        ..RAFT
    },
];

const COMMAND_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "command|info",
        arity: -2,
        since: "2.8.13",
        complexity: "O(N) where N is the number of commands to look up",
        summary: "Get array of specific Redis command details, or all when no argument is given.",
        usage: "[command-name ...]",
        tips: &["nondeterministic_output_order"],
        handler: plain(ConnectionCommand::CommandInfo),
        ..COMMAND
    },
    Command {
        name: "command|getkeys",
        arity: -4,
        since: "2.8.13",
        complexity: "O(N) where N is the number of arguments to the command",
        summary: "Extract keys given a full Redis command",
        usage: "command [arg ...]",
        handler: plain(ConnectionCommand::CommandGetKeys),
        ..COMMAND
    },
    Command {
        name: "command|count",
        arity: 2,
        since: "2.8.13",
        summary: "Get total number of Redis commands",
        handler: plain(ConnectionCommand::CommandCount),
        ..COMMAND
    },
    Command {
        name: "command|list",
        arity: -2,
        since: "7.0.0",
        complexity: "O(N) where N is the total number of Redis commands",
        summary: "Get an array of Redis command names",
        usage: "[FILTERBY ACLCAT category | FILTERBY PATTERN pattern]",
        tips: &["nondeterministic_output_order"],
        handler: Handler::Connection {
            check: super::introspection::check_list,
            command: ConnectionCommand::CommandList,
        },
        ..COMMAND
    },
    Command {
        name: "command|docs",
        arity: -2,
        since: "7.0.0",
        complexity: "O(N) where N is the number of commands to look up",
        summary: "Get array of specific Redis command documentation",
        usage: "[command-name ...]",
        tips: &["nondeterministic_output_order"],
        handler: plain(ConnectionCommand::CommandDocs),
        ..COMMAND
    },
];

const CONFIG_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "config|get",
        arity: -3,
        flags: ADMIN,
        since: "2.0.0",
        complexity: "O(N) when N is the number of configuration parameters provided",
        summary: "Get the values of configuration parameters",
        usage: "parameter [parameter ...]",
        handler: plain(ConnectionCommand::ConfigGet),
        ..SERVER
    },
    server::CONFIG_SET,
    server::CONFIG_RESETSTAT,
    server::CONFIG_REWRITE,
];

const CLIENT_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "client|id",
        since: "5.0.0",
        summary: "Returns the client ID for the current connection",
        handler: plain(ConnectionCommand::ClientId),
        ..CLIENT
    },
    Command {
        name: "client|setname",
        arity: 3,
        since: "2.6.9",
        summary: "Set the current connection name",
        usage: "connection-name",
        handler: Handler::Connection {
            check: |args| check_name(args.get(2).unwrap_or_default(), "Client names"),
            command: ConnectionCommand::ClientSetName,
        },
        ..CLIENT
    },
    Command {
        name: "client|getname",
        since: "2.6.9",
        summary: "Get the current connection name",
        handler: plain(ConnectionCommand::ClientGetName),
        ..CLIENT
    },
    Command {
        name: "client|setinfo",
        arity: 4,
        since: "7.2.0",
        summary: "Set client or connection specific info",
        usage: "LIB-NAME libname | LIB-VER libver",
        handler: Handler::Connection {
            check: |args| client_attribute(args).map(drop),
            command: ConnectionCommand::ClientSetInfo,
        },
        ..CLIENT
    },
    Command {
        name: "client|info",
        since: "6.2.0",
        summary: "Returns information about the current client connection.",
        tips: &["nondeterministic_output"],
        handler: plain(ConnectionCommand::ClientInfo),
        ..CLIENT
    },
    clients::LIST,
    clients::KILL,
    clients::PAUSE,
    clients::UNPAUSE,
    clients::REPLY,
    clients::UNBLOCK,
    clients::NO_EVICT,
    clients::NO_TOUCH,
    clients::GETREDIR,
    clients::TRACKINGINFO,
    clients::CAPA,
    Command {
        name: "client|readmode",
        arity: 3,
        since: "0.1.0",
        summary: "Choose how this connection reads",
        usage: "linearizable | lease | stale",
        handler: Handler::Connection {
            check: |args| read_mode(args).map(drop),
            command: ConnectionCommand::ClientReadMode,
        },
        ..CLIENT
    },
    tracking::TRACKING,
    tracking::CACHING,
];

const RAFT_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "raft|info",
        summary: "Show this node's view of consensus, one name:value a line",
        handler: plain(ConnectionCommand::RaftInfo),
        ..RAFT
    },
    Command {
        name: "raft|nodes",
        summary: "Show the members of the cluster, one a line",
        handler: plain(ConnectionCommand::RaftNodes),
        ..RAFT
    },
    Command {
        name: "raft|health",
        summary: "Tell whether this node can serve a linearizable write now",
        handler: plain(ConnectionCommand::RaftHealth),
        ..RAFT
    },
    Command {
        name: "raft|snapshot",
        summary: "Begin to take a snapshot of this node's state, which lets its log be shorter",
        handler: plain(ConnectionCommand::RaftSnapshot),
        ..RAFT
    },
    export::EXPORT,
    admin::ADD,
    admin::REMOVE,
    admin::PROMOTE,
    admin::REPLACE,
    admin::MOVE,
    admin::TRANSFER,
];

/// `HELP` of every command with subcommands; in no list of them.
static HELP: Command = Command {
    name: "help",
    arity: 2,
    summary: "Show the subcommands",
    handler: plain(ConnectionCommand::Help),
    ..SERVER
};

/// The row of a command's subcommand, in whatever case it is written.
pub(super) fn subcommand(
    command: &'static Command,
    word: &[u8],
) -> Result<&'static Command, CommandError> {
    if word.eq_ignore_ascii_case(b"help") {
        return Ok(&HELP);
    }
    let wanted = |row: &&Command| subcommand_name(row).as_bytes().eq_ignore_ascii_case(word);
    command.subcommands.iter().find(wanted).ok_or_else(|| CommandError::UnknownSubcommand {
        name: escape_echo(word, limits::ECHO_BYTES),
        command: command.name,
    })
}

/// A subcommand's own name: what stands behind `container|`.
pub(super) fn subcommand_name(row: &Command) -> &'static str {
    row.name.split_once('|').map_or(row.name, |(_, name)| name)
}

fn check_ping(args: Args<'_>) -> Result<(), CommandError> {
    if args.len() <= 2 { Ok(()) } else { Err(CommandError::WrongArity("ping")) }
}

fn check_select(args: Args<'_>) -> Result<(), CommandError> {
    let index = args.get(1).and_then(parse_integer).ok_or(CommandError::NotAnInteger)?;
    match i32::try_from(index) {
        Err(_) => Err(CommandError::NotAnInteger32),
        Ok(0) => Ok(()),
        Ok(_) => Err(CommandError::DatabaseRange),
    }
}

/// What a HELLO asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// The protocol to speak from the reply on; `None`: as before.
    pub protocol: Option<Protocol>,
    /// The connection's new name, empty for none.
    pub name: Option<&'a [u8]>,
}

/// Reads a HELLO. As in a Redis without passwords, AUTH is taken for the user `default` with any
/// password, and refused for every other.
pub fn hello(args: Args<'_>) -> Result<Hello<'_>, CommandError> {
    let mut words = args.iter().skip(1);
    let mut hello = Hello { protocol: None, name: None };
    let Some(version) = words.next() else {
        return Ok(hello);
    };
    hello.protocol = match parse_integer(version) {
        None => return Err(CommandError::ProtocolNotAnInteger),
        Some(2) => Some(Protocol::Resp2),
        Some(3) => Some(Protocol::Resp3),
        Some(_) => return Err(CommandError::ProtocolUnsupported),
    };
    while let Some(word) = words.next() {
        let refused = || CommandError::HelloOption(escape_echo(word, limits::ECHO_BYTES));
        if word.eq_ignore_ascii_case(b"auth") {
            let user = words.next().ok_or_else(refused)?;
            words.next().ok_or_else(refused)?;
            if user != b"default" {
                return Err(CommandError::WrongPassword);
            }
        } else if word.eq_ignore_ascii_case(b"setname") {
            let name = words.next().ok_or_else(refused)?;
            check_name(name, "Client names")?;
            hello.name = Some(name);
        } else {
            return Err(refused());
        }
    }
    Ok(hello)
}

/// Refuses a name that would break the lines of CLIENT LIST.
fn check_name(name: &[u8], what: &'static str) -> Result<(), CommandError> {
    let printable = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if printable { Ok(()) } else { Err(CommandError::ClientName(what)) }
}

/// What CLIENT SETINFO sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientAttribute<'a> {
    /// The client library's name.
    LibraryName(&'a [u8]),
    /// Its version.
    LibraryVersion(&'a [u8]),
}

/// Reads a CLIENT SETINFO.
pub fn client_attribute(args: Args<'_>) -> Result<ClientAttribute<'_>, CommandError> {
    let attribute = args.get(2).unwrap_or_default();
    let value = args.get(3).unwrap_or_default();
    if attribute.eq_ignore_ascii_case(b"lib-name") {
        check_name(value, "lib-name")?;
        Ok(ClientAttribute::LibraryName(value))
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        check_name(value, "lib-ver")?;
        Ok(ClientAttribute::LibraryVersion(value))
    } else {
        let shown = escape_echo(attribute, limits::ECHO_BYTES);
        Err(CommandError::ClientAttribute(shown))
    }
}

/// How a connection reads (design 2-client-path §3).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ReadMode {
    /// A read sees every write that was acknowledged before it was sent.
    #[default]
    Linearizable,
    /// The same while the leader's lease holds and clocks keep their stated rate.
    Lease,
    /// This node's state as it is.
    Stale,
}

/// Reads a CLIENT READMODE.
pub fn read_mode(args: Args<'_>) -> Result<ReadMode, CommandError> {
    let mode = args.get(2).unwrap_or_default();
    if mode.eq_ignore_ascii_case(b"linearizable") {
        Ok(ReadMode::Linearizable)
    } else if mode.eq_ignore_ascii_case(b"lease") {
        Ok(ReadMode::Lease)
    } else if mode.eq_ignore_ascii_case(b"stale") {
        Ok(ReadMode::Stale)
    } else {
        Err(CommandError::ReadMode)
    }
}
