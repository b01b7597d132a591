//! Why a command is refused: every error a command of ours can answer, in Redis 7's words.
//!
//! Called by the command table and the commands. The text goes to clients, which match on it, so
//! it is Redis's to the letter wherever Redis has the command.

use std::borrow::Cow;

use super::lacking;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::{Reply, escape_echo};
use crate::types::CommandSet;

/// Why a command is refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// Not every node of the cluster knows it yet.
    NotYet {
        /// The command.
        name: &'static str,
        /// The version of the command set that brought it.
        needed: CommandSet,
        /// The version in force.
        in_force: CommandSet,
    },
    /// No such command; the name and arguments as they are shown.
    UnknownCommand {
        /// The name that was sent, cut and escaped.
        name: String,
        /// The first arguments, each in quotes and with a blank behind it.
        arguments: String,
    },
    /// A command with subcommands has none of this name.
    UnknownSubcommand {
        /// The subcommand's name that was sent, cut and escaped.
        name: String,
        /// The command, as its table row has it.
        command: &'static str,
    },
    /// Too few or too many arguments for this command.
    WrongArity(&'static str),
    /// So many arguments, which are more than [`limits::COMMAND_ARGS`].
    TooManyArguments(usize),
    /// An option that is unknown, twice there or in conflict with another.
    Syntax,
    /// An argument or a value that should be a 64-bit integer.
    NotAnInteger,
    /// A time to live that is not positive, or past the end of time, for this command.
    InvalidExpire(&'static str),
    /// The sum does not fit 64 bits.
    IncrementOverflow,
    /// The decrement cannot be negated.
    DecrementOverflow,
    /// The value would grow past [`limits::VALUE_BYTES`].
    ValueTooLong,
    /// A key is longer than [`limits::KEY_BYTES`].
    KeyTooLong,
    /// EXPIRE was given a word that is no option of its.
    UnsupportedOption(String),
    /// EXPIRE was given NX with another condition.
    NxWithCondition,
    /// EXPIRE was given GT and LT.
    GtWithLt,
    /// An argument that should be a 32-bit integer and is a larger one.
    NotAnInteger32,
    /// SELECT of a database other than 0.
    DatabaseRange,
    /// HELLO with something that is no version.
    ProtocolNotAnInteger,
    /// HELLO of a version other than 2 and 3.
    ProtocolUnsupported,
    /// HELLO with a word that is no option of its.
    HelloOption(String),
    /// HELLO with AUTH of a user that does not exist.
    WrongPassword,
    /// A client name or library name that cannot be printed.
    ClientName(&'static str),
    /// CLIENT SETINFO of something that cannot be set.
    ClientAttribute(String),
    /// CLIENT READMODE of a mode that does not exist.
    ReadMode,
    /// COMMAND GETKEYS of a command that does not exist.
    InvalidCommand,
    /// COMMAND GETKEYS of a command with too few or too many arguments.
    InvalidArgumentCount,
    /// COMMAND GETKEYS of a command without keys.
    NoKeys,
    /// A server's id that is none.
    ServerId(String),
    /// A server's address that is none: what is wrong with it.
    Address(String),
    /// A value or an increment that should be a number with or without a fraction.
    NotAFloat,
    /// INCRBYFLOAT of or by what is infinite, or with a sum that has too many digits.
    NotFinite,
    /// An offset below 0.
    OffsetRange,
    /// An offset of a bit that is below 0 or past the largest value.
    BitOffset,
    /// A bit that is neither 0 nor 1.
    BitValue,
    /// LCS with both LEN and IDX.
    LcsLenAndIdx,
    /// LCS of values whose table would have more than [`limits::LCS_CELLS`].
    LcsTooLarge,
    /// A key that has to exist does not.
    NoSuchKey,
    /// A lease that does not exist, or not any more.
    NoLease,
    /// LEASE GRANT of a number that a lease has.
    LeaseExists,
    /// More than [`limits::LEASES`].
    TooManyLeases,
    /// More keys than [`limits::LEASE_KEYS`] on one lease, or [`limits::LEASES_BYTES`] on all.
    TooManyLeasedKeys,
    /// COPY of a key to itself.
    SameKey,
    /// MULTI in a transaction.
    NestedMulti,
    /// EXEC outside of one.
    ExecWithoutMulti,
    /// DISCARD outside of one.
    DiscardWithoutMulti,
    /// WATCH in one.
    WatchInMulti,
    /// A command that is answered by others in a transaction.
    NotInMulti,
    /// A command on a RESP2 connection that is told messages.
    WhileSubscribed(&'static str),
    /// A command on keys from a client that monitors.
    WhileMonitoring,
    /// CONFIG SET maxclients to more than so many.
    TooManyClients(usize),
    /// MONITOR in a transaction.
    MonitorInMulti,
    /// CLIENT TRACKING with more prefixes than [`limits::TRACKED_PREFIXES`].
    TooManyPrefixes,
    /// CLIENT TRACKING with PREFIX and without BCAST.
    PrefixWithoutBroadcast,
    /// CLIENT TRACKING with two prefixes of which one begins with the other: the one that is
    /// refused, what the other is to it, and the other.
    PrefixOverlap(String, &'static str, String),
    /// CLIENT TRACKING with OPTIN and OPTOUT.
    OptInAndOut,
    /// CLIENT TRACKING with BCAST and OPTIN or OPTOUT.
    OptWithBroadcast,
    /// CLIENT TRACKING that redirects to nobody.
    NoRedirectTarget,
    /// CLIENT TRACKING that would begin or end broadcasting.
    SwitchesBroadcast,
    /// CLIENT TRACKING that would begin or end OPTIN or OPTOUT.
    SwitchesOpt,
    /// CLIENT CACHING of a client that doesn't choose what is tracked.
    CachingWithoutOpt,
    /// CLIENT CACHING YES where all is tracked anyway.
    CachingYes,
    /// CLIENT CACHING NO where nothing is tracked anyway.
    CachingNo,
    /// EXEC of a transaction in which a command was refused.
    Aborted,
    /// A transaction that is longer than [`limits::COMMAND_BYTES`].
    TransactionTooLong,
    /// A transaction of more than [`limits::COMMAND_ARGS`] in all.
    TransactionTooWide,
    /// KEYS in a transaction, over more than [`limits::TRANSACTION_KEYS`].
    TransactionKeys,
    /// More than [`limits::TRANSACTIONS_BYTES`] are queued and watched.
    TransactionsFull,
    /// OBJECT IDLETIME.
    IdleTime,
    /// OBJECT FREQ.
    Frequency,
    /// SCAN from what is no cursor.
    InvalidCursor,
    /// KRANGE whose reply would exceed [`limits::RANGE_REPLY_BYTES`].
    RangeReply,
    /// KRANGE of more than [`limits::RANGE_REPLY_KEYS`].
    RangeKeys,
    /// KDEL of more than [`limits::RANGE_DELETE_KEYS`].
    RangeDelete,
    /// A request about the membership that is longer than [`limits::ADMIN_BYTES`].
    RequestTooLong,
    /// A time-out that is no number.
    TimeoutNotAnInteger,
    /// A time-out below 0.
    TimeoutNegative,
    /// AUTH with a password, where there is none.
    NoPassword,
    /// SWAPDB of what is no index: `first` or `second`.
    SwapIndex(&'static str),
    /// SHUTDOWN ABORT: nothing is to be aborted.
    NoShutdown,
    /// FUNCTION or SCRIPT FLUSH with another word.
    FlushMode(&'static str),
    /// FUNCTION KILL, SCRIPT KILL.
    NotBusy,
    /// CONFIG REWRITE.
    NoRewrite,
    /// CONFIG SET of what can't be set: the parameter.
    UnknownParameter(String),
    /// CONFIG SET of a value that can't be: the parameter, and why.
    Parameter(String, &'static str),
    /// SLOWLOG GET of a number below -1.
    SlowlogCount,
    /// DEBUG where it isn't on.
    DebugOff,
    /// CLIENT LIST or KILL of a type of clients that there is not.
    ClientType(String),
    /// CLIENT LIST ID of what is no number.
    ClientId,
    /// CLIENT KILL ID of what is no number above 0.
    ClientIdPositive,
    /// CLIENT KILL USER of somebody else than `default`.
    NoSuchUser(String),
    /// CLIENT KILL of an address that nobody has.
    NoSuchClient,
    /// CLIENT PAUSE in another mode.
    PauseMode,
    /// CLIENT UNBLOCK for another reason.
    UnblockReason,
    /// A subcommand with too many arguments, where Redis says it so: its name, its container's.
    SubcommandSyntax(String, &'static str),
    /// The leader has the key: its slot, the leader's address.
    Moved(u16, String),
    /// The leader is elsewhere: its address.
    Redirect(String),
}

impl CommandError {
    /// The error line, its code first, without the leading `-`.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            CommandError::UnknownCommand { name, arguments } => {
                let hint = lacking::hint(name);
                format!("ERR unknown command '{name}', with args beginning with: {arguments}{hint}")
                    .into()
            }
            CommandError::NotYet { name, needed, in_force } => format!(
                "CLUSTERDOWN '{name}' needs command set {needed}, and this node has seen {in_force} \
                 in force: it is behind, or not all nodes know {needed} yet (INFO raft: \
                 raft_command_set_awaits)"
            )
            .into(),
            CommandError::UnknownSubcommand { name, command } => {
                let command = command.to_ascii_uppercase();
                format!("ERR unknown subcommand '{name}'. Try {command} HELP.").into()
            }
            CommandError::WrongArity(name) => {
                format!("ERR wrong number of arguments for '{name}' command").into()
            }
            CommandError::TooManyArguments(count) => {
                let most = limits::COMMAND_ARGS;
                format!("ERR a command of {count} arguments: at most {most} at once").into()
            }
            CommandError::Syntax => "ERR syntax error".into(),
            CommandError::NotAnInteger => "ERR value is not an integer or out of range".into(),
            CommandError::InvalidExpire(name) => {
                format!("ERR invalid expire time in '{name}' command").into()
            }
            CommandError::IncrementOverflow => "ERR increment or decrement would overflow".into(),
            CommandError::DecrementOverflow => "ERR decrement would overflow".into(),
            CommandError::ValueTooLong => {
                "ERR string exceeds maximum allowed size (proto-max-bulk-len)".into()
            }
            CommandError::KeyTooLong => {
                format!("ERR key exceeds maximum allowed size ({} bytes)", limits::KEY_BYTES).into()
            }
            CommandError::UnsupportedOption(word) => {
                format!("ERR Unsupported option {word}").into()
            }
            CommandError::NxWithCondition => {
                "ERR NX and XX, GT or LT options at the same time are not compatible".into()
            }
            CommandError::GtWithLt => {
                "ERR GT and LT options at the same time are not compatible".into()
            }
            CommandError::NotAnInteger32 => {
                let (low, high) = (i32::MIN, i32::MAX);
                format!("ERR value is out of range, value must between {low} and {high}").into()
            }
            CommandError::DatabaseRange => "ERR DB index is out of range".into(),
            CommandError::ProtocolNotAnInteger => {
                "ERR Protocol version is not an integer or out of range".into()
            }
            CommandError::ProtocolUnsupported => "NOPROTO unsupported protocol version".into(),
            CommandError::HelloOption(word) => {
                format!("ERR Syntax error in HELLO option '{word}'").into()
            }
            CommandError::WrongPassword => {
                "WRONGPASS invalid username-password pair or user is disabled.".into()
            }
            CommandError::ClientName(what) => {
                format!("ERR {what} cannot contain spaces, newlines or special characters.").into()
            }
            CommandError::ClientAttribute(word) => {
                format!("ERR Unrecognized option '{word}'").into()
            }
            CommandError::ReadMode => {
                "ERR read mode must be one of linearizable, lease, stale".into()
            }
            CommandError::InvalidCommand => "ERR Invalid command specified".into(),
            CommandError::InvalidArgumentCount => {
                "ERR Invalid number of arguments specified for command".into()
            }
            CommandError::NoKeys => "ERR The command has no key arguments".into(),
            CommandError::ServerId(word) => {
                format!("ERR {word} is no server's id: expected a number, 1 or above").into()
            }
            CommandError::Address(problem) => format!("ERR {problem}").into(),
            CommandError::NotAFloat => "ERR value is not a valid float".into(),
            CommandError::NotFinite => "ERR increment would produce NaN or Infinity".into(),
            CommandError::OffsetRange => "ERR offset is out of range".into(),
            CommandError::BitOffset => "ERR bit offset is not an integer or out of range".into(),
            CommandError::BitValue => "ERR bit is not an integer or out of range".into(),
            CommandError::LcsLenAndIdx => {
                "ERR If you want both the length and indexes, please just use IDX.".into()
            }
            CommandError::LcsTooLarge => {
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
                    .into()
            }
            CommandError::NoSuchKey => "ERR no such key".into(),
            CommandError::NoLease => "NOLEASE no such lease".into(),
            CommandError::LeaseExists => "ERR there is a lease of that number".into(),
            CommandError::TooManyLeases => "ERR too many leases".into(),
            CommandError::TooManyLeasedKeys => "ERR too many keys are attached to leases".into(),
            CommandError::SameKey => "ERR source and destination objects are the same".into(),
            CommandError::NestedMulti => "ERR MULTI calls can not be nested".into(),
            CommandError::ExecWithoutMulti => "ERR EXEC without MULTI".into(),
            CommandError::DiscardWithoutMulti => "ERR DISCARD without MULTI".into(),
            CommandError::WatchInMulti => "ERR WATCH inside MULTI is not allowed".into(),
            CommandError::NotInMulti => "ERR Command not allowed inside a transaction".into(),
            CommandError::TooManyPrefixes => {
                format!("ERR more than {} prefixes", limits::TRACKED_PREFIXES).into()
            }
            CommandError::PrefixWithoutBroadcast => {
                "ERR PREFIX option requires BCAST mode to be enabled".into()
            }
            CommandError::PrefixOverlap(prefix, which, other) => format!(
                "ERR Prefix '{prefix}' overlaps with {which} prefix '{other}'. Prefixes for a \
                 single client must not overlap."
            )
            .into(),
            CommandError::OptInAndOut => {
                "ERR You can't specify both OPTIN mode and OPTOUT mode".into()
            },
            CommandError::OptWithBroadcast => {
                "ERR OPTIN and OPTOUT are not compatible with BCAST".into()
            }
            CommandError::NoRedirectTarget => {
                "ERR The client ID you want redirect to does not exist".into()
            }
            CommandError::SwitchesBroadcast => {
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, \
                 and then re-enabling it with a different mode."
                    .into()
            }
            CommandError::SwitchesOpt => {
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, \
                 and then re-enabling it with a different mode."
                    .into()
            }
            CommandError::CachingWithoutOpt => {
                "ERR CLIENT CACHING can be called only when the client is in tracking mode with \
                 OPTIN or OPTOUT mode enabled"
                    .into()
            }
            CommandError::CachingYes => {
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.".into()
            }
            CommandError::CachingNo => {
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.".into()
            }
            CommandError::WhileSubscribed(name) => format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                 RESET are allowed in this context"
            )
            .into(),
            CommandError::TooManyClients(most) => format!(
                "ERR CONFIG SET failed (possibly related to argument 'maxclients') - The operating \
                 system is not able to handle the specified number of clients, try with {most}"
            )
            .into(),
            CommandError::WhileMonitoring => "ERR Replica can't interact with the keyspace".into(),
            CommandError::MonitorInMulti => {
                "ERR MONITOR isn't allowed for DENY BLOCKING client".into()
            }
            CommandError::Aborted => {
                "EXECABORT Transaction discarded because of previous errors.".into()
            }
            CommandError::TransactionTooLong => {
                format!("ERR the transaction is longer than {} bytes", limits::COMMAND_BYTES).into()
            }
            CommandError::TransactionTooWide => {
                let most = limits::COMMAND_ARGS;
                format!("ERR the transaction has more than {most} arguments in all").into()
            }
            CommandError::TransactionKeys => {
                let most = limits::TRANSACTION_KEYS;
                format!("ERR there are more than {most} keys: KEYS outside a transaction, or SCAN")
                    .into()
            }
            CommandError::TransactionsFull => {
                let mib = limits::TRANSACTIONS_BYTES >> 20;
                format!("ERR this node's clients have queued and watched {mib} MiB").into()
            }
            CommandError::IdleTime => "ERR when a key was last used is not kept".into(),
            CommandError::Frequency => {
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
                 note that when switching between policies at runtime LRU and LFU data will take \
                 some time to adjust."
                    .into()
            }
            CommandError::InvalidCursor => "ERR invalid cursor".into(),
            CommandError::RangeReply => {
                let mib = limits::RANGE_REPLY_BYTES >> 20;
                format!("ERR the range's reply exceeds {mib} MiB: use LIMIT").into()
            }
            CommandError::RangeKeys => {
                let keys = limits::RANGE_REPLY_KEYS;
                format!("ERR the range has more than {keys} keys: use LIMIT, and go on").into()
            }
            CommandError::RangeDelete => {
                let keys = limits::RANGE_DELETE_KEYS;
                format!("ERR one KDEL deletes at most {keys} keys: use LIMIT, and repeat").into()
            }
            CommandError::RequestTooLong => {
                format!("ERR the request is longer than {} bytes", limits::ADMIN_BYTES).into()
            }
            other => other.operators_message(),
        }
    }

    /// The lines for commands of operators.
    fn operators_message(&self) -> Cow<'static, str> {
        match self {
            CommandError::TimeoutNotAnInteger => {
                "ERR timeout is not an integer or out of range".into()
            }
            CommandError::TimeoutNegative => "ERR timeout is negative".into(),
            CommandError::NoPassword => {
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?"
                    .into()
            }
            CommandError::SwapIndex(which) => format!("ERR invalid {which} DB index").into(),
            CommandError::NoShutdown => "ERR No shutdown in progress.".into(),
            CommandError::FlushMode("FUNCTION") => {
                "ERR FUNCTION FLUSH only supports SYNC|ASYNC option".into()
            }
            CommandError::FlushMode(name) => {
                format!("ERR {name} FLUSH only support SYNC|ASYNC option").into()
            }
            CommandError::NotBusy => "NOTBUSY No scripts in execution right now.".into(),
            CommandError::NoRewrite => {
                "ERR node.toml is never written by the server: edit it, and start the node again"
                    .into()
            }
            CommandError::UnknownParameter(name) => {
                format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
                    .into()
            }
            CommandError::Parameter(name, why) => {
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
                    .into()
            }
            CommandError::SlowlogCount => "ERR count should be greater than or equal to -1".into(),
            CommandError::DebugOff => {
                "ERR DEBUG command not allowed. Set 'debug_commands = true' under [client] in this \
                 node's configuration, and then restart the server."
                    .into()
            }
            CommandError::ClientType(word) => format!("ERR Unknown client type '{word}'").into(),
            CommandError::ClientId => "ERR Invalid client ID".into(),
            CommandError::ClientIdPositive => "ERR client-id should be greater than 0".into(),
            CommandError::NoSuchUser(user) => format!("ERR No such user '{user}'").into(),
            CommandError::NoSuchClient => "ERR No such client".into(),
            CommandError::PauseMode => "ERR CLIENT PAUSE mode must be WRITE or ALL".into(),
            CommandError::UnblockReason => {
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()
            }
            CommandError::SubcommandSyntax(name, container) => format!(
                "ERR unknown subcommand or wrong number of arguments for '{name}'. Try {container} \
                 HELP."
            )
            .into(),
            CommandError::Moved(slot, address) => format!("MOVED {slot} {address}").into(),
            CommandError::Redirect(address) => format!("REDIRECT {address}").into(),
            other => unreachable!("message has a line for {other:?}"),
        }
    }

    /// Whether Redis finds it when a command is queued, and not only when it is carried out.
    pub fn is_found_early(&self) -> bool {
        matches!(
            self,
            CommandError::UnknownCommand { .. }
                | CommandError::NotYet { .. }
                | CommandError::UnknownSubcommand { .. }
                | CommandError::WrongArity(_)
                | CommandError::TooManyArguments(_)
                | CommandError::KeyTooLong
                | CommandError::WhileMonitoring
                | CommandError::Moved(..)
                | CommandError::Redirect(_)
        )
    }

    /// The error for a subcommand with too many arguments, of a container.
    pub(super) fn subcommand_syntax(args: Args<'_>, container: &'static str) -> CommandError {
        let word = args.get(1).unwrap_or_default();
        CommandError::SubcommandSyntax(escape_echo(word, limits::ECHO_BYTES), container)
    }

    /// The error as a reply.
    pub fn reply(&self) -> Reply {
        Reply::Error(self.message())
    }

    /// The error for a name that the table does not have: Redis shows what was sent, within
    /// bounds.
    pub(super) fn unknown_command(args: Args<'_>) -> CommandError {
        let mut words = args.iter();
        let name = escape_echo(words.next().unwrap_or_default(), limits::ECHO_BYTES);
        let mut arguments = String::new();
        // Redis stops before an argument, and cuts within one, by the length so far.
        for word in words {
            if arguments.len() >= limits::ECHO_BYTES {
                break;
            }
            let left = limits::ECHO_BYTES - arguments.len();
            arguments.push('\'');
            arguments.push_str(&escape_echo(word, left));
            arguments.push_str("' ");
        }
        CommandError::UnknownCommand { name, arguments }
    }
}
