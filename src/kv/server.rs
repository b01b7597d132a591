//! The rows of the commands about the server as a whole, and the reading of their arguments.
//!
//! Redis 7's TIME, WAIT, CONFIG SET, DEBUG, SHUTDOWN, SLOWLOG and their like, as far as
//! they can be true of a replicated store of strings. None ever travels through the log. `node/`
//! carries them out (`node/server.rs`); nothing here knows a node.

use super::command::{Command, ConnectionCommand, Flags, Group, Handler, Keys, ROW};
use super::connection::{ADMIN, LOADING_STALE, NOSCRIPT_LOADING_STALE};
use super::error::CommandError;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;

/// Which of them it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerCommand {
    /// `TIME`
    Time,
    /// `WAIT numreplicas timeout`: see [`wait`].
    Wait,
    /// `AUTH [username] password`
    Auth,
    /// `RESET`
    Reset,
    /// `CONFIG SET parameter value ...`
    ConfigSet,
    /// `CONFIG RESETSTAT`
    ConfigResetStat,
    /// `CONFIG REWRITE`
    ConfigRewrite,
    /// `DEBUG subcommand ...`: see [`debug`].
    Debug,
    /// `SHUTDOWN`
    Shutdown,
    /// `LASTSAVE`
    LastSave,
    /// `BGSAVE`
    BackgroundSave,
    /// `SAVE`
    Save,
    /// `SWAPDB 0 0`, `FUNCTION FLUSH`, `SCRIPT FLUSH`: there is nothing to do.
    Nothing,
    /// `FUNCTION LIST`: there are none.
    NoFunctions,
    /// `FUNCTION STATS`
    FunctionStats,
    /// `SCRIPT EXISTS sha1 ...`: none does.
    ScriptExists,
    /// `SLOWLOG GET [count]`
    SlowlogGet,
    /// `SLOWLOG LEN`
    SlowlogLen,
    /// `SLOWLOG RESET`
    SlowlogReset,
    /// `LATENCY LATEST`
    LatencyLatest,
    /// `LATENCY HISTORY event`
    LatencyHistory,
    /// `LATENCY RESET [event ...]`
    LatencyReset,
    /// `LATENCY DOCTOR`
    LatencyDoctor,
    /// `LATENCY HISTOGRAM [command ...]`
    LatencyHistogram,
    /// `MEMORY DOCTOR`
    MemoryDoctor,
    /// `MEMORY STATS`
    MemoryStats,
}

/// A command that needs no look at its arguments.
pub(super) const fn plain(command: ServerCommand) -> Handler {
    checked(|_| Ok(()), command)
}

pub(super) const fn checked(check: super::command::Check, command: ServerCommand) -> Handler {
    Handler::Connection { check, command: ConnectionCommand::Server(command) }
}

const SERVER: Command = Command { group: Group::Server, flags: LOADING_STALE, ..ROW };
const SCRIPTING: Command =
    Command { group: Group::Scripting, flags: Flags::NOSCRIPT, arity: 2, ..ROW };
const SLOWLOG: Command = Command { flags: ADMIN, arity: 2, since: "2.2.12", ..SERVER };

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "time",
        flags: LOADING_STALE.and(Flags::FAST),
        since: "2.6.0",
        summary: "Return the cluster's time as this node knows it",
        tips: &["nondeterministic_output"],
        handler: plain(ServerCommand::Time),
        ..SERVER
    },
    Command {
        name: "wait",
        arity: 3,
        flags: Flags::NOSCRIPT.and(Flags::CATEGORY_CONNECTION),
        since: "3.0.0",
        summary: "Wait until this connection's last write is durable on so many other nodes",
        usage: "numreplicas timeout",
        tips: &["request_policy:all_shards", "response_policy:agg_min"],
        handler: checked(|args| wait(args).map(drop), ServerCommand::Wait),
        ..ROW
    },
    Command {
        name: "auth",
        arity: -2,
        flags: NOSCRIPT_LOADING_STALE.and(Flags::FAST).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY),
        group: Group::Connection,
        complexity: "O(N) where N is the number of passwords defined for the user",
        summary: "Authenticate to the server",
        usage: "[username] password",
        handler: checked(check_auth, ServerCommand::Auth),
        ..ROW
    },
    Command {
        name: "reset",
        flags: NOSCRIPT_LOADING_STALE.and(Flags::FAST).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY),
        group: Group::Connection,
        since: "6.2.0",
        summary: "Reset the connection",
        handler: plain(ServerCommand::Reset),
        ..ROW
    },
    Command {
        name: "swapdb",
        arity: 3,
        flags: Flags::FAST,
        since: "4.0.0",
        summary: "Swaps two Redis databases",
        usage: "index1 index2",
        handler: checked(check_swap, ServerCommand::Nothing),
        ..SERVER
    },
    Command {
        name: "move",
        arity: 3,
        flags: Flags::FAST,
        keys: Keys::one(&["RW", "access", "delete"]),
        summary: "Refused: there is one database",
        usage: "key db",
        handler: checked(check_move, ServerCommand::Nothing),
        ..ROW
    },
    Command {
        name: "shutdown",
        arity: -1,
        flags: ADMIN.and(Flags::ALLOW_BUSY),
        complexity: "O(1), and the time to hand leadership over",
        summary: "Hand over leadership, answer what is under way and end this node",
        usage: "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
        handler: checked(check_shutdown, ServerCommand::Shutdown),
        ..SERVER
    },
    Command {
        name: "lastsave",
        flags: LOADING_STALE
            .and(Flags::FAST)
            .and(Flags::CATEGORY_ADMIN)
            .and(Flags::CATEGORY_DANGEROUS),
        summary: "Return the time of the last snapshot that this process has completed",
        tips: &["nondeterministic_output"],
        handler: plain(ServerCommand::LastSave),
        ..SERVER
    },
    Command {
        name: "save",
        flags: Flags::ADMIN.and(Flags::NOSCRIPT),
        complexity: "O(N) where N is the number of keys",
        summary: "Take a snapshot of this node's state, and answer once it is durable",
        handler: plain(ServerCommand::Save),
        ..SERVER
    },
    Command {
        name: "bgsave",
        arity: -1,
        flags: Flags::ADMIN.and(Flags::NOSCRIPT),
        summary: "Begin to take a snapshot of this node's state, as RAFT SNAPSHOT does",
        usage: "[SCHEDULE]",
        handler: checked(check_save, ServerCommand::BackgroundSave),
        ..SERVER
    },
    Command {
        name: "debug",
        arity: -2,
        flags: ADMIN,
        complexity: "Depends on subcommand.",
        summary: "For tests; refused unless client.debug_commands is on",
        usage: "subcommand [argument ...]",
        handler: plain(ServerCommand::Debug),
        ..SERVER
    },
    Command {
        name: "slowlog",
        flags: Flags::NONE,
        arity: -2,
        complexity: "Depends on subcommand.",
        summary: "A container for slow log commands",
        subcommands: SLOWLOG_SUBCOMMANDS,
        ..SLOWLOG
    },
    Command {
        name: "function",
        flags: Flags::NONE,
        arity: -2,
        since: "7.0.0",
        complexity: "Depends on subcommand.",
        summary: "A container for function commands; there are no functions",
        subcommands: FUNCTION_SUBCOMMANDS,
        ..SCRIPTING
    },
    Command {
        name: "script",
        flags: Flags::NONE,
        arity: -2,
        since: "2.6.0",
        complexity: "Depends on subcommand.",
        summary: "A container for Lua scripts management commands; there are no scripts",
        subcommands: SCRIPT_SUBCOMMANDS,
        ..SCRIPTING
    },
];

const SLOWLOG_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "slowlog|get",
        arity: -2,
        complexity: "O(N) where N is the number of entries returned",
        summary: "Get the slow log's entries: commands that took long from arrival to answer",
        usage: "[count]",
        tips: &["request_policy:all_nodes", "nondeterministic_output"],
        handler: checked(|args| slowlog_count(args).map(drop), ServerCommand::SlowlogGet),
        ..SLOWLOG
    },
    Command {
        name: "slowlog|len",
        summary: "Get the slow log's length",
        tips: &["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"],
        handler: plain(ServerCommand::SlowlogLen),
        ..SLOWLOG
    },
    Command {
        name: "slowlog|reset",
        complexity: "O(N) where N is the number of entries in the slowlog",
        summary: "Clear all entries from the slow log",
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        handler: plain(ServerCommand::SlowlogReset),
        ..SLOWLOG
    },
];

const FUNCTION_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "function|flush",
        arity: -2,
        since: "7.0.0",
        summary: "Deletes all functions, of which there are none",
        usage: "[ASYNC | SYNC]",
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        handler: checked(check_function_flush, ServerCommand::Nothing),
        ..SCRIPTING
    },
    Command {
        name: "function|list",
        arity: -2,
        since: "7.0.0",
        summary: "List information about all the functions, of which there are none",
        usage: "[LIBRARYNAME library-name-pattern] [WITHCODE]",
        tips: &["nondeterministic_output_order"],
        handler: plain(ServerCommand::NoFunctions),
        ..SCRIPTING
    },
    Command {
        name: "function|stats",
        since: "7.0.0",
        flags: Flags::NOSCRIPT.and(Flags::ALLOW_BUSY),
        summary: "Return information about the function currently running: none",
        tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
        handler: plain(ServerCommand::FunctionStats),
        ..SCRIPTING
    },
    Command {
        name: "function|kill",
        since: "7.0.0",
        flags: Flags::NOSCRIPT.and(Flags::ALLOW_BUSY),
        summary: "Refused: no function runs",
        handler: checked(|_| Err(CommandError::NotBusy), ServerCommand::Nothing),
        ..SCRIPTING
    },
];

const SCRIPT_SUBCOMMANDS: &[Command] = &[
    Command {
        name: "script|flush",
        arity: -2,
        since: "2.6.0",
        summary: "Remove all the scripts from the script cache, which is empty",
        usage: "[ASYNC | SYNC]",
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        handler: checked(check_script_flush, ServerCommand::Nothing),
        ..SCRIPTING
    },
    Command {
        name: "script|exists",
        arity: -3,
        since: "2.6.0",
        complexity: "O(N) with N being the number of scripts to check",
        summary: "Check existence of scripts in the script cache, which is empty",
        usage: "sha1 [sha1 ...]",
        tips: &["request_policy:all_shards", "response_policy:agg_logical_and"],
        handler: plain(ServerCommand::ScriptExists),
        ..SCRIPTING
    },
    Command {
        name: "script|kill",
        since: "2.6.0",
        flags: Flags::NOSCRIPT.and(Flags::ALLOW_BUSY),
        summary: "Refused: no script runs",
        handler: checked(|_| Err(CommandError::NotBusy), ServerCommand::Nothing),
        ..SCRIPTING
    },
];

/// `CONFIG SET`
pub(super) const CONFIG_SET: Command = Command {
    name: "config|set",
    arity: -4,
    flags: ADMIN,
    since: "2.0.0",
    complexity: "O(N) when N is the number of configuration parameters provided",
    summary: "Set parameters of this node until it ends",
    usage: "parameter value [parameter value ...]",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    handler: checked(
        |args| match args.len() % 2 {
            0 => Ok(()),
            _ => Err(CommandError::Syntax),
        },
        ServerCommand::ConfigSet,
    ),
    ..SERVER
};

/// `CONFIG RESETSTAT`
pub(super) const CONFIG_RESETSTAT: Command = Command {
    name: "config|resetstat",
    arity: 2,
    flags: ADMIN,
    since: "2.0.0",
    summary: "Reset the counters of INFO's section stats",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    handler: plain(ServerCommand::ConfigResetStat),
    ..SERVER
};

/// `CONFIG REWRITE`
pub(super) const CONFIG_REWRITE: Command = Command {
    name: "config|rewrite",
    arity: 2,
    flags: ADMIN,
    since: "2.8.0",
    summary: "Refused: node.toml is its author's",
    handler: checked(|_| Err(CommandError::NoRewrite), ServerCommand::ConfigRewrite),
    ..SERVER
};

/// `MEMORY DOCTOR`
pub(super) const MEMORY_DOCTOR: Command = Command {
    name: "memory|doctor",
    arity: 2,
    flags: Flags::NONE,
    since: "4.0.0",
    summary: "Outputs memory problems report",
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    handler: plain(ServerCommand::MemoryDoctor),
    ..SERVER
};

/// `MEMORY STATS`
pub(super) const MEMORY_STATS: Command = Command {
    name: "memory|stats",
    arity: 2,
    flags: Flags::NONE,
    since: "4.0.0",
    summary: "Show memory usage details",
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    handler: plain(ServerCommand::MemoryStats),
    ..SERVER
};

fn is(word: &[u8], name: &[u8]) -> bool {
    word.eq_ignore_ascii_case(name)
}

/// What a WAIT asks for: how many other nodes, and for how many milliseconds at most, 0 for ever.
///
/// # Errors
/// A number that is none, or below 0.
pub fn wait(args: Args<'_>) -> Result<(usize, u64), CommandError> {
    let number = |at| args.get(at).and_then(parse_integer);
    let replicas = number(1).ok_or(CommandError::NotAnInteger)?;
    let replicas = usize::try_from(replicas).unwrap_or(0);
    Ok((replicas, timeout_ms(number(2))?))
}

/// A time-out in milliseconds, as Redis's blocking commands and CLIENT PAUSE take it.
///
/// # Errors
/// A number that is none, or below 0.
pub(super) fn timeout_ms(number: Option<i64>) -> Result<u64, CommandError> {
    let number = number.ok_or(CommandError::TimeoutNotAnInteger)?;
    u64::try_from(number).map_err(|_| CommandError::TimeoutNegative)
}

/// As in a Redis without passwords: the user `default` needs none, and there is no other.
fn check_auth(args: Args<'_>) -> Result<(), CommandError> {
    match (args.len(), args.get(1)) {
        (2, _) => Err(CommandError::NoPassword),
        (3, Some(b"default")) => Ok(()),
        (3, _) => Err(CommandError::WrongPassword),
        _ => Err(CommandError::Syntax),
    }
}

fn check_swap(args: Args<'_>) -> Result<(), CommandError> {
    let index = |at, which| {
        let index = args.get(at).and_then(parse_integer);
        index.and_then(|index| i32::try_from(index).ok()).ok_or(CommandError::SwapIndex(which))
    };
    match (index(1, "first")?, index(2, "second")?) {
        (0, 0) => Ok(()),
        _ => Err(CommandError::DatabaseRange),
    }
}

/// There is one database: whatever this one is moved to is itself, or nothing.
fn check_move(args: Args<'_>) -> Result<(), CommandError> {
    match args.get(2).and_then(parse_integer) {
        None => Err(CommandError::NotAnInteger),
        Some(0) => Err(CommandError::SameKey),
        Some(index) if i32::try_from(index).is_err() => Err(CommandError::NotAnInteger32),
        Some(_) => Err(CommandError::DatabaseRange),
    }
}

fn check_shutdown(args: Args<'_>) -> Result<(), CommandError> {
    let (mut saves, mut aborts) = (None, false);
    for word in args.iter().skip(1) {
        if is(word, b"save") || is(word, b"nosave") {
            let wants = is(word, b"save");
            if saves.replace(wants).is_some_and(|before| before != wants) {
                return Err(CommandError::Syntax);
            }
        } else if is(word, b"abort") {
            aborts = true;
        } else if !is(word, b"now") && !is(word, b"force") {
            return Err(CommandError::Syntax);
        }
    }
    match aborts {
        true if args.len() > 2 => Err(CommandError::Syntax),
        true => Err(CommandError::NoShutdown),
        false => Ok(()),
    }
}

fn check_save(args: Args<'_>) -> Result<(), CommandError> {
    match (args.len(), args.get(1)) {
        (1, _) => Ok(()),
        (2, Some(word)) if is(word, b"schedule") => Ok(()),
        _ => Err(CommandError::Syntax),
    }
}

fn takes_async(args: Args<'_>) -> bool {
    match (args.len(), args.get(2)) {
        (2, _) => true,
        (3, Some(word)) => is(word, b"async") || is(word, b"sync"),
        _ => false,
    }
}

fn check_function_flush(args: Args<'_>) -> Result<(), CommandError> {
    if takes_async(args) { Ok(()) } else { Err(CommandError::FlushMode("FUNCTION")) }
}

fn check_script_flush(args: Args<'_>) -> Result<(), CommandError> {
    if takes_async(args) { Ok(()) } else { Err(CommandError::FlushMode("SCRIPT")) }
}

/// How many entries a SLOWLOG GET asks for: ten, unless it says; -1 for all.
///
/// # Errors
/// A number that is none, or below -1.
pub fn slowlog_count(args: Args<'_>) -> Result<usize, CommandError> {
    match (args.len(), args.get(2).and_then(parse_integer)) {
        (2, _) => Ok(limits::SLOWLOG_SHOWN),
        (3, Some(-1)) => Ok(usize::MAX),
        (3, Some(count)) => usize::try_from(count).map_err(|_| CommandError::SlowlogCount),
        (3, None) => Err(CommandError::SlowlogCount),
        _ => Err(CommandError::WrongArity("slowlog|get")),
    }
}

/// What a DEBUG asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Debug<'a> {
    /// `SLEEP seconds`: this node's clients are held for so many milliseconds.
    Sleep(u64),
    /// `SET-ACTIVE-EXPIRE 0|1`: there is nothing to be set, keys expire by the log.
    SetActiveExpire,
    /// `PROTOCOL type`: a reply of that type.
    Protocol(&'a [u8]),
    /// `ERROR text`
    Error(&'a [u8]),
    /// `LOG text`: a line for this node's log.
    Log(&'a [u8]),
}

/// Reads a DEBUG.
///
/// # Errors
/// A subcommand that isn't offered, or its arguments.
pub fn debug(args: Args<'_>) -> Result<Debug<'_>, CommandError> {
    let name = args.get(1).unwrap_or_default();
    let unknown = || CommandError::subcommand_syntax(args, "DEBUG");
    let argument = if args.len() == 3 { args.get(2) } else { None };
    let argument = argument.ok_or_else(unknown)?;
    if is(name, b"sleep") {
        let seconds = std::str::from_utf8(argument).ok().and_then(|text| text.parse::<f64>().ok());
        let seconds = seconds.filter(|seconds| (0.0..=limits::DEBUG_SLEEP_S).contains(seconds));
        return Ok(Debug::Sleep((seconds.ok_or(CommandError::NotAFloat)? * 1000.0) as u64));
    }
    if is(name, b"set-active-expire") {
        return Ok(Debug::SetActiveExpire);
    }
    if is(name, b"protocol") {
        return Ok(Debug::Protocol(argument));
    }
    if is(name, b"error") {
        return Ok(Debug::Error(argument));
    }
    if is(name, b"log") {
        return Ok(Debug::Log(argument));
    }
    Err(unknown())
}
