//! Commands of a client session: the rows of SESSION, and what a session's command is in the log.
//!
//! Design 2-client-path §2. Such a command is one command of a batch that carries another: its
//! first argument says which session, number and command, the rest is that command as it was sent.
//! `sessions.rs` decides whether it takes effect. Called through the command table; `node/` wraps
//! what a client sends, and unwraps what is to be shown.

use byteorder::{ByteOrder, LittleEndian};

use super::command::{self, Command, Flags, Group, Handler, ROW, WriteContext};
use super::error::CommandError;
use super::sessions::Verdict;
use crate::limits;
use crate::proto::args::{Args, push_arg};
use crate::proto::batch::BatchCommand;
use crate::proto::frame::SessionMark;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;
use crate::types::{RequestSeq, Revision, SessionId};

/// What a client is answered whose session is over. A command that was sent for the first time was
/// surely not done then.
pub const SESSION_OVER: &str =
    "INDOUBT the session is over or unknown; the command may or may not have been executed before";

/// What a command is answered that took effect before, where its reply is not kept any more.
pub const REPLY_FORGOTTEN: &str =
    "INDOUBT the command was executed before; what it answered is not kept any more";

/// The first word of what a command is answered whose number is not the session's next one; the
/// second word is the next one. The command was surely not done.
pub const SESSION_GAP: &str = "SESSIONGAP";

const SESSION: Command = Command { group: Group::Connection, since: "0.1.0", ..ROW };

const CONTAINER: Command = Command {
    name: "session",
    arity: -2,
    summary: "A container for commands of client sessions",
    complexity: "Depends on subcommand.",
    subcommands: SUBCOMMANDS,
    ..SESSION
};

pub(super) const COMMANDS: &[Command] = &[CONTAINER];

const SUBCOMMANDS: &[Command] = &[
    Command {
        name: "session|open",
        code: 90,
        arity: -2,
        flags: Flags::WRITE.and(Flags::NOSCRIPT).and(Flags::FAST),
        complexity: "O(log N) where N is the number of sessions.",
        summary: "Begin a client session and answer its number",
        usage: "[token]",
        handler: Handler::Write { check: |args| token_of(args).map(drop), apply: open },
        ..SESSION
    },
    Command {
        name: "session|close",
        code: 91,
        arity: 3,
        flags: Flags::WRITE.and(Flags::NOSCRIPT).and(Flags::FAST),
        complexity: "O(log N) where N is the number of sessions.",
        summary: "End a client session",
        usage: "session",
        handler: Handler::Write { check: |args| parse_id(args).map(drop), apply: close },
        ..SESSION
    },
    Command {
        name: "session|do",
        arity: -6,
        flags: Flags::NOSCRIPT,
        complexity: "That of the command.",
        summary: "Carry out a command of a session, exactly once however often it is sent",
        usage: "session number awaited command [arg ...]",
        handler: Handler::Connection {
            check: |args| parse_do(args).map(drop).ok_or(CommandError::NotAnInteger),
            command: command::ConnectionCommand::SessionDo,
        },
        ..SESSION
    },
    Command {
        name: "session|help",
        arity: 2,
        flags: Flags::LOADING.and(Flags::STALE),
        summary: "Show helpful text about the different subcommands",
        handler: Handler::Connection {
            check: |_| Ok(()),
            command: command::ConnectionCommand::Help,
        },
        ..SESSION
    },
];

/// What stands in the log. No client can name them.
pub(super) const INTERNAL: &[Command] = &[
    Command {
        name: "session|writes",
        code: 92,
        flags: Flags::WRITE,
        handler: Handler::Write { check: |_| Ok(()), apply },
        ..SESSION
    },
    Command {
        name: "session|grows",
        code: 93,
        flags: Flags::WRITE.and(Flags::DENYOOM),
        handler: Handler::Write { check: |_| Ok(()), apply },
        ..SESSION
    },
];

/// Session, number, the lowest number awaited, and the command's code.
const HEAD_BYTES: usize = 3 * 8 + 2;

/// A command of a session as one command's arguments.
#[derive(Debug)]
pub struct InSession {
    row: &'static Command,
    count: u32,
    bytes: Vec<u8>,
}

impl InSession {
    /// This command, which goes through the log, as that of a session.
    pub fn new(mark: SessionMark, command: &Command, args: Args<'_>) -> InSession {
        let mut head = [0; HEAD_BYTES];
        LittleEndian::write_u64(&mut head[..8], mark.session.0);
        LittleEndian::write_u64(&mut head[8..16], mark.number.0);
        LittleEndian::write_u64(&mut head[16..24], mark.awaited.0);
        LittleEndian::write_u16(&mut head[24..], command.code);
        let mut bytes = Vec::with_capacity(4 + HEAD_BYTES + args.encoded().len());
        push_arg(&mut bytes, &head);
        bytes.extend_from_slice(args.encoded());
        let row = &INTERNAL[usize::from(command.grows())];
        InSession { row, count: args.len() as u32 + 1, bytes }
    }

    /// What it is in the log.
    pub fn row(&self) -> &'static Command {
        self.row
    }

    /// All of it.
    pub fn args(&self) -> Args<'_> {
        Args::new(self.count, &self.bytes)
    }
}

/// What a client sent that a command of the log stands for: the one that it carries, if it is one
/// of a session, else itself.
pub fn sent(command: BatchCommand<'_>) -> BatchCommand<'_> {
    if !is_in_session(command.code) {
        return command;
    }
    unpack(command.args).map_or(command, |(_, inner)| inner)
}

fn is_in_session(code: u16) -> bool {
    INTERNAL.iter().any(|row| row.code == code)
}

fn unpack(args: Args<'_>) -> Option<(SessionMark, BatchCommand<'_>)> {
    let head = args.get(0).filter(|head| head.len() == HEAD_BYTES)?;
    let number = |at: usize| LittleEndian::read_u64(&head[at..at + 8]);
    let mark = SessionMark {
        session: SessionId(number(0)),
        number: RequestSeq(number(8)),
        awaited: RequestSeq(number(16)),
    };
    // Every command has its name.
    (mark.number > RequestSeq::ZERO && args.len() > 1).then(|| {
        (mark, BatchCommand { code: LittleEndian::read_u16(&head[24..]), args: args.behind(1) })
    })
}

fn apply(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    // What a log from elsewhere may hold and no gateway of ours sends.
    let (mark, command) = unpack(args).ok_or(CommandError::Syntax)?;
    let now = context.store.clock();
    Ok(match context.store.sessions.admit(mark, now) {
        Verdict::Next => {
            let reply = run(context, command).unwrap_or_else(|error| error.reply());
            context.store.sessions.keep(mark.session, &reply);
            reply
        }
        Verdict::Kept(reply) => reply,
        Verdict::Forgotten => Reply::Error(REPLY_FORGOTTEN.into()),
        Verdict::Gap(next) => {
            let text = format!(
                "{SESSION_GAP} {} is the session's next number; the command was not executed",
                next.0
            );
            Reply::Error(text.into())
        }
        Verdict::Over => Reply::Error(SESSION_OVER.into()),
    })
}

fn run(context: &mut WriteContext<'_>, command: BatchCommand<'_>) -> Result<Reply, CommandError> {
    match command::by_code(command.code).map(|row| row.handler) {
        Some(Handler::Write { apply, .. }) if !is_in_session(command.code) => {
            context.store.begin_command(command.code);
            apply(context, command.args)
        }
        _ => Err(CommandError::Syntax),
    }
}

/// What a client calls the session that it opens, so that it may say so again.
fn token_of(args: Args<'_>) -> Result<Option<&[u8]>, CommandError> {
    let token = args.get(2);
    match args.len() <= 3 && token.is_none_or(|it| it.len() <= limits::SESSION_TOKEN_BYTES) {
        true => Ok(token),
        false => Err(CommandError::Syntax),
    }
}

fn open(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let token = token_of(args)?;
    let now = context.store.clock();
    if let Some(id) = token.and_then(|token| context.store.sessions.opened(token, now)) {
        return Ok(Reply::Integer(Revision(id.0).signed()));
    }
    let revision = context.store.take_revision();
    context.store.sessions.open(SessionId(revision.0), token, now);
    Ok(Reply::Integer(revision.signed()))
}

fn close(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let id = parse_id(args)?;
    Ok(Reply::Integer(i64::from(context.store.sessions.close(id))))
}

/// The command that a `SESSION DO` carries, and which one of its session it is; `None` if it is
/// another command, or its numbers are none.
pub fn parse_do(args: Args<'_>) -> Option<(SessionMark, Args<'_>)> {
    let mut words = args.iter();
    let is = |word: Option<&[u8]>, name: &[u8]| word.is_some_and(|w| w.eq_ignore_ascii_case(name));
    if !is(words.next(), b"session") || !is(words.next(), b"do") {
        return None;
    }
    let mut number = || u64::try_from(parse_integer(words.next()?)?).ok().filter(|n| *n > 0);
    let mark = SessionMark {
        session: SessionId(number()?),
        number: RequestSeq(number()?),
        awaited: RequestSeq(number()?),
    };
    (args.len() > 5).then(|| (mark, args.behind(5)))
}

fn parse_id(args: Args<'_>) -> Result<SessionId, CommandError> {
    let number = args.get(2).and_then(parse_integer).and_then(|id| u64::try_from(id).ok());
    number.map(SessionId).ok_or(CommandError::NotAnInteger)
}
