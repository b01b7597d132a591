//! `CLIENT TRACKING` and `CLIENT CACHING`: the rows, and the reading of their words.
//!
//! Redis's client-side caching. Called by the table, for the check, and by `node/tracking.rs`,
//! which remembers who has read what. Knows no connection.

use super::command::{Command, ConnectionCommand, Flags, Group, Handler, ROW};
use super::error::CommandError;
use super::{transaction, txn};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::escape_echo;

const CLIENT: Command = Command {
    group: Group::Connection,
    flags: Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE),
    since: "6.0.0",
    ..ROW
};

pub(super) const TRACKING: Command = Command {
    name: "client|tracking",
    arity: -3,
    complexity: "O(1). Some options may introduce additional complexity.",
    summary: "Enable or disable server assisted client side caching support",
    usage: "ON | OFF [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] \
            [OPTOUT] [NOLOOP]",
    handler: Handler::Connection {
        check: |args| parse(args).map(drop),
        command: ConnectionCommand::ClientTracking,
    },
    ..CLIENT
};

pub(super) const CACHING: Command = Command {
    name: "client|caching",
    arity: 3,
    summary: "Instruct the server about tracking or not keys in the next request",
    usage: "YES | NO",
    handler: Handler::Connection {
        // Whether it may be said at all comes first, and only the node knows.
        check: |_| Ok(()),
        command: ConnectionCommand::ClientCaching,
    },
    ..CLIENT
};

/// Which reads are tracked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Mode {
    /// All.
    #[default]
    All,
    /// Those behind `CLIENT CACHING YES`.
    OptIn,
    /// All but those behind `CLIENT CACHING NO`.
    OptOut,
    /// None: every change of a key with one of the prefixes is told.
    Broadcast,
}

/// What a CLIENT TRACKING ON asks for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tracking {
    /// Which reads.
    pub mode: Mode,
    /// The `CLIENT ID` of the connection that is told instead.
    pub redirect: Option<u64>,
    /// Where broadcast: of which keys.
    pub prefixes: Vec<Box<[u8]>>,
    /// Whether the client's own changes are not told.
    pub noloop: bool,
}

/// Reads a CLIENT TRACKING. `None`: off.
///
/// # Errors
/// Words that are not its own, or don't go together.
pub fn parse(args: Args<'_>) -> Result<Option<Tracking>, CommandError> {
    let mut words = args.iter().skip(2);
    let switch = words.next().ok_or(CommandError::Syntax)?;
    let mut tracking = Tracking::default();
    let (mut opt_in, mut opt_out, mut broadcast) = (false, false, false);
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"bcast" => broadcast = true,
            b"optin" => opt_in = true,
            b"optout" => opt_out = true,
            b"noloop" => tracking.noloop = true,
            b"redirect" if tracking.redirect.is_none() => {
                let id = parse_integer(words.next().ok_or(CommandError::Syntax)?);
                let id = id.and_then(|id| u64::try_from(id).ok());
                tracking.redirect = Some(id.ok_or(CommandError::NotAnInteger)?);
            }
            b"prefix" => {
                let prefix = words.next().ok_or(CommandError::Syntax)?;
                if tracking.prefixes.len() == limits::TRACKED_PREFIXES {
                    return Err(CommandError::TooManyPrefixes);
                }
                tracking.prefixes.push(prefix.into());
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    match switch.to_ascii_lowercase().as_slice() {
        b"on" => {}
        b"off" => return Ok(None),
        _ => return Err(CommandError::Syntax),
    }
    if !broadcast && !tracking.prefixes.is_empty() {
        return Err(CommandError::PrefixWithoutBroadcast);
    }
    if opt_in && opt_out {
        return Err(CommandError::OptInAndOut);
    }
    if broadcast && (opt_in || opt_out) {
        return Err(CommandError::OptWithBroadcast);
    }
    tracking.mode = match (broadcast, opt_in, opt_out) {
        (true, ..) => Mode::Broadcast,
        (_, true, _) => Mode::OptIn,
        (_, _, true) => Mode::OptOut,
        _ => Mode::All,
    };
    Ok(Some(tracking))
}

/// Adds what a client has asked for before to what it asks for now, in the order of the prefixes.
///
/// # Errors
/// Two of them overlap, or they are too many.
pub fn add_prefixes(tracking: &mut Tracking, before: &[Box<[u8]>]) -> Result<(), CommandError> {
    let overlaps = |one: &[u8], other: &[u8]| one.starts_with(other) || other.starts_with(one);
    let refused = |one: &[u8], which, other: &[u8]| {
        let [one, other] = [one, other].map(|prefix| escape_echo(prefix, limits::ECHO_BYTES));
        Err(CommandError::PrefixOverlap(one, which, other))
    };
    for (place, prefix) in tracking.prefixes.iter().enumerate() {
        if let Some(other) = before.iter().find(|other| overlaps(prefix, other)) {
            return refused(prefix, "an existing", other);
        }
        let mut behind = tracking.prefixes[place + 1..].iter();
        if let Some(other) = behind.find(|other| overlaps(prefix, other)) {
            return refused(prefix, "another provided", other);
        }
    }
    if tracking.prefixes.is_empty() {
        // All keys begin with nothing.
        tracking.prefixes.push(Box::default());
    }
    tracking.prefixes.extend_from_slice(before);
    tracking.prefixes.sort();
    tracking.prefixes.dedup();
    match tracking.prefixes.len() > limits::TRACKED_PREFIXES {
        true => Err(CommandError::TooManyPrefixes),
        false => Ok(()),
    }
}

/// Reads a CLIENT CACHING: whether the next command's keys are to be tracked.
///
/// # Errors
/// Another word.
pub fn caching(args: Args<'_>) -> Result<bool, CommandError> {
    match args.get(2).unwrap_or_default().to_ascii_lowercase().as_slice() {
        b"yes" => Ok(true),
        b"no" => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

/// Calls each key whose value a command answers with: those of a read, and of the reads in a
/// transaction. As in Redis a write's keys are not among them, nor what SCAN and its like find.
pub fn read_keys(command: &Command, args: Args<'_>, note: &mut dyn FnMut(&[u8])) {
    if transaction::is_composite(command.code) {
        transaction::each_command(args, &mut |row, args| read_keys(row, args, note));
    } else if command.code == txn::CODE {
        txn::each_command(args, &mut |row, args| read_keys(row, args, note));
    } else if command.flags.contains(Flags::READONLY) {
        command.keys.of(args).for_each(note);
    }
}
