//! THE command table: what each command is called, takes, does to keys, and which functions run it.
//!
//! The rows stand beside their functions in the themed files; this file holds what a row is, joins
//! the themes into one table, and finds a row by name or by code. Called by `node/` for every
//! command of a client and every command of the log. The meaning of each field is that of Redis's
//! `COMMAND INFO` and `COMMAND DOCS`. Runs nothing by itself.

use super::clients::ClientCommand;
use super::cluster::ClusterCommand;
use super::error::CommandError;
use super::luck::Luck;
use super::server::ServerCommand;
use super::store::Store;
use super::{
    bits, cluster, compare, connection, counters, exchange, expiry, in_session, keys, latency, lcs,
    lease, monitor, moves,
};
use super::{object, pubsub, range, scan, server, strings, substrings, transaction, txn, watches};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::types::ClusterTime;

/// One row of the table.
#[derive(Debug)]
pub struct Command {
    /// In lower case; a subcommand's is `container|name`.
    pub name: &'static str,
    /// What stands for the command in the log, forever: never change one, never use one again.
    /// [`NEVER_LOGGED`] for what a connection's own node answers.
    pub code: u16,
    /// How many arguments, the name included; negative: at least so many.
    pub arity: i32,
    /// What Redis shows of it, and what we decide by.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// Redis's group of it.
    pub group: Group,
    /// The version of Redis, or for our own commands of raftkv, that brought it.
    pub since: &'static str,
    /// Its cost, for `COMMAND DOCS`.
    pub complexity: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Its arguments, for people: `key value [EX seconds]`.
    pub usage: &'static str,
    /// Redis's hints for proxies.
    pub tips: &'static [&'static str],
    /// The rows of its subcommands.
    pub subcommands: &'static [Command],
    /// What runs it.
    pub handler: Handler,
}

/// The code of commands that never travel in a batch.
pub const NEVER_LOGGED: u16 = 0;

/// A row with nothing in it, for the rows that write only what differs.
pub(super) const ROW: Command = Command {
    name: "",
    code: NEVER_LOGGED,
    arity: 1,
    flags: Flags::NONE,
    keys: Keys::NONE,
    group: Group::Generic,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    tips: &[],
    subcommands: &[],
    handler: Handler::Container,
};

/// Finds every error that does not depend on the store, so that such a command never reaches the
/// log. The number of arguments was checked before.
pub type Check = fn(Args<'_>) -> Result<(), CommandError>;

/// What runs a command.
#[derive(Clone, Copy, Debug)]
pub enum Handler {
    /// Changes the store: goes through the log.
    Write {
        /// Refuses what is wrong by itself.
        check: Check,
        /// Carries it out. Deterministic: the same store and arguments give the same on every node.
        apply: fn(&mut WriteContext<'_>, Args<'_>) -> Result<Reply, CommandError>,
    },
    /// Reads the store.
    Read {
        /// Refuses what is wrong by itself.
        check: Check,
        /// Makes the reply.
        run: fn(&ReadContext<'_>, Args<'_>) -> Result<Reply, CommandError>,
    },
    /// About the connection or the node: the node answers by itself.
    Connection {
        /// Refuses what is wrong by itself.
        check: Check,
        /// Which one it is.
        command: ConnectionCommand,
    },
    /// Only its subcommands can be run. [`resolve`] never returns such a row.
    Container,
}

/// What a write command works on. The time that it happens at is the store's clock.
#[derive(Debug)]
pub struct WriteContext<'a> {
    /// The store, its clock at the time of the entry that is applied.
    pub store: &'a mut Store,
}

/// What a read command works on.
#[derive(Debug)]
pub struct ReadContext<'a> {
    /// The store. Who is dead is decided by its clock alone.
    pub store: &'a Store,
    /// This node's estimate of the cluster clock, not below the store's: what a time to live is
    /// counted from.
    pub now: ClusterTime,
    /// Random numbers, for what has several right answers.
    pub luck: &'a Luck,
}

/// The commands that `node/` answers by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionCommand {
    /// `PING [message]`
    Ping,
    /// `ECHO message`
    Echo,
    /// `QUIT`
    Quit,
    /// `SELECT 0`; the check refused every other index.
    Select,
    /// `MULTI`: this and the next four are carried out by `node/transactions.rs`.
    Multi,
    /// `EXEC`
    Exec,
    /// `DISCARD`
    Discard,
    /// `WATCH key ...`
    Watch,
    /// `UNWATCH`
    Unwatch,
    /// `KWATCH prefix [FROM revision]`: see [`watches`].
    KWatch,
    /// `KUNWATCH [prefix ...]`
    KUnwatch,
    /// `SUBSCRIBE channel ...`: this and the next six are carried out by `node/subscribers.rs`.
    Subscribe,
    /// `PSUBSCRIBE pattern ...`
    PSubscribe,
    /// `UNSUBSCRIBE [channel ...]`
    Unsubscribe,
    /// `PUNSUBSCRIBE [pattern ...]`
    PUnsubscribe,
    /// `PUBSUB CHANNELS [pattern]`
    PubSubChannels,
    /// `PUBSUB NUMSUB [channel ...]`
    PubSubNumSub,
    /// `PUBSUB NUMPAT`
    PubSubNumPat,
    /// `MONITOR`
    Monitor,
    /// `HELLO`: see [`connection::hello`].
    Hello,
    /// `COMMAND`
    Command,
    /// `HELP` of a command with subcommands
    Help,
    /// `SESSION DO session number awaited command ...`: see [`in_session`]. Whoever takes commands
    /// from clients takes the one that it carries instead.
    SessionDo,
    /// `COMMAND COUNT`
    CommandCount,
    /// `COMMAND INFO`
    CommandInfo,
    /// `COMMAND DOCS`
    CommandDocs,
    /// `COMMAND LIST`
    CommandList,
    /// `COMMAND GETKEYS`
    CommandGetKeys,
    /// `CLIENT ID`
    ClientId,
    /// `CLIENT SETNAME name`
    ClientSetName,
    /// `CLIENT GETNAME`
    ClientGetName,
    /// `CLIENT SETINFO attribute value`
    ClientSetInfo,
    /// `CLIENT TRACKING ON|OFF ...`: see [`super::tracking`].
    ClientTracking,
    /// `CLIENT CACHING YES|NO`
    ClientCaching,
    /// `CLIENT INFO`
    ClientInfo,
    /// `CLIENT READMODE mode`: see [`connection::read_mode`].
    ClientReadMode,
    /// CLIENT's commands about other connections.
    Client(ClientCommand),
    /// CLUSTER's and SENTINEL's commands.
    Cluster(ClusterCommand),
    /// Commands about the server as a whole.
    Server(ServerCommand),
    /// `INFO [section ...]`
    Info,
    /// `CONFIG GET pattern ...`
    ConfigGet,
    /// `ROLE`
    Role,
    /// `READONLY`
    ReadOnly,
    /// `READWRITE`
    ReadWrite,
    /// `RAFT INFO`
    RaftInfo,
    /// `RAFT NODES`
    RaftNodes,
    /// `RAFT HEALTH`
    RaftHealth,
    /// `RAFT ADD`, `REMOVE`, `PROMOTE`, `REPLACE`, `MOVE`, `TRANSFER`: see [`super::admin`]. The
    /// leader carries them out, so the answer takes a while.
    RaftAdmin,
    /// `RAFT SNAPSHOT`
    RaftSnapshot,
    /// `RAFT EXPORT index term offset length`: see [`super::export`]. It is answered once the disk
    /// has been read.
    RaftExport,
}

/// Properties of a command. Those that Redis shows come in the order in which it shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(u32);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// Changes the store.
    pub const WRITE: Flags = Flags(1);
    /// Only reads the store.
    pub const READONLY: Flags = Flags(1 << 1);
    /// May make the store grow: refused when memory or disk is short.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// For administrators.
    pub const ADMIN: Flags = Flags(1 << 3);
    /// Not for scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 4);
    /// Answered while the node still recovers.
    pub const LOADING: Flags = Flags(1 << 5);
    /// Answered without a leader.
    pub const STALE: Flags = Flags(1 << 6);
    /// Constant or logarithmic time.
    pub const FAST: Flags = Flags(1 << 7);
    /// Answered without authentication.
    pub const NO_AUTH: Flags = Flags(1 << 8);
    /// Answered while a script runs.
    pub const ALLOW_BUSY: Flags = Flags(1 << 9);
    /// Not in the log of slow commands.
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 10);
    /// About messages between clients.
    pub const PUBSUB: Flags = Flags(1 << 11);
    /// In the category `@admin` without being flagged so, as Redis has it for ROLE.
    pub const CATEGORY_ADMIN: Flags = Flags(1 << 16);
    /// In the category `@dangerous`.
    pub const CATEGORY_DANGEROUS: Flags = Flags(1 << 17);
    /// In the category `@keyspace`; every command of [`Group::Generic`] is.
    pub const CATEGORY_KEYSPACE: Flags = Flags(1 << 18);
    /// In the category `@connection`; every command of [`Group::Connection`] is.
    pub const CATEGORY_CONNECTION: Flags = Flags(1 << 19);

    /// These flags and those.
    #[must_use]
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are there.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Where a command's keys are, in Redis's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    /// The first key's position, 0 for none.
    pub first: usize,
    /// The last key's position; negative: counted from the end, -1 being the last argument.
    pub last: i32,
    /// From one key to the next.
    pub step: usize,
    /// What is done with them, in the words of Redis's key specifications.
    pub access: &'static [&'static str],
    /// What is done with the second of two keys, where that is something else; empty: the same.
    pub second: &'static [&'static str],
}

impl Keys {
    /// No keys.
    pub const NONE: Keys = Keys { first: 0, last: 0, step: 0, access: &[], second: &[] };

    /// One key, the first argument.
    pub const fn one(access: &'static [&'static str]) -> Keys {
        Keys { first: 1, last: 1, ..Keys::all(1, access) }
    }

    /// Every argument, or every second one.
    pub const fn all(step: usize, access: &'static [&'static str]) -> Keys {
        Keys { first: 1, last: -1, step, access, second: &[] }
    }

    /// Two keys, the first two arguments.
    pub const fn two(access: &'static [&'static str], second: &'static [&'static str]) -> Keys {
        Keys { first: 1, last: 2, step: 1, access, second }
    }

    /// One key, behind the name of a subcommand.
    pub const fn of_subcommand(access: &'static [&'static str]) -> Keys {
        Keys { first: 2, last: 2, ..Keys::all(1, access) }
    }

    /// The keys among `args`, in order.
    pub fn of<'a>(self, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> {
        let last = match usize::try_from(self.last) {
            Ok(last) => last,
            Err(_) => args.len().saturating_sub(self.last.unsigned_abs() as usize),
        };
        let span = if self.first == 0 { 0 } else { (last + 1).saturating_sub(self.first) };
        args.iter().skip(self.first).take(span).step_by(self.step.max(1))
    }
}

/// Redis's group of a command; ours are in [`Group::Raft`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Keys of any type.
    Generic,
    /// Strings.
    String,
    /// Strings as rows of bits.
    Bitmap,
    /// The connection.
    Connection,
    /// The server.
    Server,
    /// Transactions.
    Transactions,
    /// Messages and changes that a connection is told.
    PubSub,
    /// Scripts and functions.
    Scripting,
    /// Redis Sentinel.
    Sentinel,
    /// Redis's cluster mode.
    Cluster,
    /// Consensus.
    Raft,
}

impl Group {
    /// Its name in `COMMAND DOCS`.
    pub fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::Bitmap => "bitmap",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Transactions => "transactions",
            Group::PubSub => "pubsub",
            Group::Scripting => "scripting",
            Group::Sentinel => "sentinel",
            Group::Cluster => "cluster",
            Group::Raft => "raft",
        }
    }
}

impl Command {
    /// Whether it changes the store, and so goes through the log.
    pub fn is_write(&self) -> bool {
        matches!(self.handler, Handler::Write { .. })
    }

    /// Whether it may make the store grow.
    pub fn grows(&self) -> bool {
        self.flags.contains(Flags::DENYOOM)
    }

    /// Whether `count` arguments, the name included, are what it takes.
    pub fn takes(&self, count: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { count >= wanted } else { count == wanted }
    }
}

/// The themes, in the order in which `COMMAND` shows them.
static THEMES: [&[Command]; NAMED + 2] = [
    strings::COMMANDS,
    exchange::COMMANDS,
    substrings::COMMANDS,
    bits::COMMANDS,
    lcs::COMMANDS,
    counters::COMMANDS,
    compare::COMMANDS,
    keys::COMMANDS,
    moves::COMMANDS,
    scan::COMMANDS,
    range::COMMANDS,
    object::COMMANDS,
    expiry::COMMANDS,
    lease::COMMANDS,
    transaction::COMMANDS,
    txn::COMMANDS,
    watches::COMMANDS,
    pubsub::COMMANDS,
    monitor::COMMANDS,
    connection::COMMANDS,
    server::COMMANDS,
    latency::COMMANDS,
    cluster::COMMANDS,
    in_session::COMMANDS,
    transaction::INTERNAL,
    in_session::INTERNAL,
];

/// How many of the themes have commands that a client can name: all but the last two.
const NAMED: usize = 24;

/// Every command, without subcommands, in the table's order.
pub fn all() -> impl Iterator<Item = &'static Command> {
    THEMES.into_iter().take(NAMED).flatten()
}

/// The command of this name, in whatever case it is written.
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    INDEX.find(name)
}

/// The command that has this code in the log.
pub fn by_code(code: u16) -> Option<&'static Command> {
    let place = *CODES.get(usize::from(code))?;
    place.map(Place::command)
}

/// The row of the command, or subcommand, that these words name.
///
/// # Errors
/// There is none.
pub fn named(args: Args<'_>) -> Result<&'static Command, CommandError> {
    let mut words = args.iter();
    let name = words.next().unwrap_or_default();
    let command = lookup(name).ok_or_else(|| CommandError::unknown_command(args))?;
    match words.next().filter(|_| !command.subcommands.is_empty()) {
        Some(word) => connection::subcommand(command, word),
        None => Ok(command),
    }
}

/// Finds what a client asks for, and every error that can be known without the store: the command
/// or subcommand, the number of its arguments, then what its own check says.
pub fn resolve(args: Args<'_>) -> Result<&'static Command, CommandError> {
    let command = named(args)?;
    if args.len() > limits::COMMAND_ARGS {
        return Err(CommandError::TooManyArguments(args.len()));
    }
    if !command.takes(args.len()) {
        return Err(CommandError::WrongArity(command.name));
    }
    if command.keys.of(args).any(|key| key.len() > limits::KEY_BYTES) {
        return Err(CommandError::KeyTooLong);
    }
    match command.handler {
        Handler::Write { check, .. }
        | Handler::Read { check, .. }
        | Handler::Connection { check, .. } => check(args)?,
        Handler::Container => return Err(CommandError::WrongArity(command.name)),
    }
    Ok(command)
}

/// A row's theme and its place in it; for a subcommand, its place in that row too.
#[derive(Clone, Copy)]
struct Place {
    theme: u8,
    row: u8,
    subcommand: Option<u8>,
}

impl Place {
    const fn command(self) -> &'static Command {
        let row = &THEMES[self.theme as usize][self.row as usize];
        match self.subcommand {
            None => row,
            Some(place) => &row.subcommands[place as usize],
        }
    }

    /// Enters it under its code, if it is logged.
    const fn enter(self, places: &mut [Option<Place>; CODE_LIMIT]) {
        let command = self.command();
        let logged = matches!(command.handler, Handler::Write { .. } | Handler::Read { .. });
        assert!(logged == (command.code != NEVER_LOGGED), "only what is logged has a code");
        if logged {
            assert!(places[command.code as usize].is_none(), "a code is used twice");
            places[command.code as usize] = Some(self);
        }
    }
}

/// Slots of the name index: a power of two, and more than twice the commands, so that a search
/// ends after a step or two.
const SLOTS: usize = 256;

/// Codes are below this; the table by code is that long.
pub const CODE_LIMIT: usize = 128;

/// Names to rows: open addressing, built by the compiler.
struct Index {
    slots: [Option<Place>; SLOTS],
}

static INDEX: Index = Index::build();
static CODES: [Option<Place>; CODE_LIMIT] = places_by_code();

impl Index {
    const fn build() -> Index {
        let mut slots = [None; SLOTS];
        let mut used = 0;
        let mut theme = 0;
        while theme < NAMED {
            let mut row = 0;
            while row < THEMES[theme].len() {
                let mut slot = hash(THEMES[theme][row].name.as_bytes());
                while slots[slot].is_some() {
                    slot = (slot + 1) % SLOTS;
                }
                slots[slot] = Some(Place { theme: theme as u8, row: row as u8, subcommand: None });
                used += 1;
                row += 1;
            }
            theme += 1;
        }
        assert!(used * 2 < SLOTS, "the index is too full: double SLOTS");
        Index { slots }
    }

    fn find(&self, name: &[u8]) -> Option<&'static Command> {
        let mut slot = hash(name);
        while let Some(place) = self.slots[slot] {
            let command = place.command();
            if command.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(command);
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }
}

const fn places_by_code() -> [Option<Place>; CODE_LIMIT] {
    let mut places = [None; CODE_LIMIT];
    let mut theme = 0;
    while theme < THEMES.len() {
        let mut row = 0;
        while row < THEMES[theme].len() {
            let place = Place { theme: theme as u8, row: row as u8, subcommand: None };
            place.enter(&mut places);
            let mut subcommand = 0;
            while subcommand < THEMES[theme][row].subcommands.len() {
                Place { subcommand: Some(subcommand as u8), ..place }.enter(&mut places);
                subcommand += 1;
            }
            row += 1;
        }
        theme += 1;
    }
    places
}

/// FNV-1a over the first bytes of the name in lower case. Bounded, because a name comes from
/// outside and may be 8 MiB long.
const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() && at < 16 {
        hash ^= name[at].to_ascii_lowercase() as u32;
        hash = hash.wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ (hash >> 16)) as usize % SLOTS
}
