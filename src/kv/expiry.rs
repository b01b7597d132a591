//! The commands about a key's time to live, and how a lifetime is written in any command.
//!
//! Redis's EXPIRE, TTL and their family. A deadline is a time of the cluster clock (design
//! 2-client-path §4): what is relative counts from the time of the entry that is applied. Called
//! through the command table.

use super::command::{Command, Flags, Group, Handler, Keys, ROW, ReadContext, WriteContext};
use super::error::CommandError;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::{Reply, escape_echo};
use crate::types::ClusterTime;

const EXPIRE: Command = Command {
    arity: -3,
    flags: Flags::WRITE.and(Flags::FAST),
    keys: Keys::one(&["RW", "update"]),
    ..ROW
};

const TTL: Command = Command {
    arity: 2,
    flags: Flags::READONLY.and(Flags::FAST),
    keys: Keys::one(&["RO", "access"]),
    usage: "key",
    ..ROW
};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "expire",
        code: 18,
        summary: "Set a key's time to live in seconds",
        usage: "key seconds [NX | XX | GT | LT]",
        handler: Handler::Write {
            check: |args| parse_expire(args, Unit::Seconds, "expire").map(drop),
            apply: |context, args| expire_in(context, args, Unit::Seconds, "expire"),
        },
        ..EXPIRE
    },
    Command {
        name: "pexpire",
        code: 19,
        since: "2.6.0",
        summary: "Set a key's time to live in milliseconds",
        usage: "key milliseconds [NX | XX | GT | LT]",
        handler: Handler::Write {
            check: |args| parse_expire(args, Unit::Milliseconds, "pexpire").map(drop),
            apply: |context, args| expire_in(context, args, Unit::Milliseconds, "pexpire"),
        },
        ..EXPIRE
    },
    Command {
        name: "expireat",
        code: 50,
        summary: "Set the expiration for a key as a UNIX timestamp",
        usage: "key unix-time-seconds [NX | XX | GT | LT]",
        since: "1.2.0",
        handler: Handler::Write {
            check: |args| parse_expire(args, Unit::Seconds, "expireat").map(drop),
            apply: |context, args| expire_at(context, args, Unit::Seconds, "expireat"),
        },
        ..EXPIRE
    },
    Command {
        name: "pexpireat",
        code: 51,
        since: "2.6.0",
        summary: "Set the expiration for a key as a UNIX timestamp specified in milliseconds",
        usage: "key unix-time-milliseconds [NX | XX | GT | LT]",
        handler: Handler::Write {
            check: |args| parse_expire(args, Unit::Milliseconds, "pexpireat").map(drop),
            apply: |context, args| expire_at(context, args, Unit::Milliseconds, "pexpireat"),
        },
        ..EXPIRE
    },
    Command {
        name: "ttl",
        code: 20,
        summary: "Get the time to live for a key in seconds",
        tips: &["nondeterministic_output"],
        handler: Handler::Read {
            check: |_| Ok(()),
            // Rounded to the nearest second, as in Redis.
            run: |context, args| time_to_live(context, args, |left_ms| (left_ms + 500) / 1000),
        },
        ..TTL
    },
    Command {
        name: "pttl",
        code: 21,
        since: "2.6.0",
        summary: "Get the time to live for a key in milliseconds",
        tips: &["nondeterministic_output"],
        handler: Handler::Read {
            check: |_| Ok(()),
            run: |context, args| time_to_live(context, args, |left_ms| left_ms),
        },
        ..TTL
    },
    Command {
        name: "expiretime",
        code: 52,
        since: "7.0.0",
        summary: "Get the expiration Unix timestamp for a key",
        handler: Handler::Read {
            check: |_| Ok(()),
            run: |context, args| expire_time(context, args, |time_ms| (time_ms + 500) / 1000),
        },
        ..TTL
    },
    Command {
        name: "pexpiretime",
        code: 53,
        since: "7.0.0",
        summary: "Get the expiration Unix timestamp for a key in milliseconds",
        handler: Handler::Read {
            check: |_| Ok(()),
            run: |context, args| expire_time(context, args, |time_ms| time_ms),
        },
        ..TTL
    },
    Command {
        name: "persist",
        code: 22,
        arity: 2,
        flags: Flags::WRITE.and(Flags::FAST),
        keys: Keys::one(&["RW", "update"]),
        group: Group::Generic,
        since: "2.2.0",
        summary: "Remove the expiration from a key",
        usage: "key",
        handler: Handler::Write { check: |_| Ok(()), apply: persist },
        ..ROW
    },
];

/// What a time is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// How long a value lives, as EX, PX, EXAT and PXAT give it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lifetime {
    /// Milliseconds from the time of the entry.
    For(i64),
    /// Milliseconds of the cluster clock.
    Until(i64),
}

impl Lifetime {
    /// Reads EX or PX.
    pub(super) fn relative(
        text: &[u8],
        unit: Unit,
        command: &'static str,
    ) -> Result<Lifetime, CommandError> {
        positive_ms(text, unit, command).map(Lifetime::For)
    }

    /// Reads EXAT or PXAT.
    pub(super) fn absolute(
        text: &[u8],
        unit: Unit,
        command: &'static str,
    ) -> Result<Lifetime, CommandError> {
        positive_ms(text, unit, command).map(Lifetime::Until)
    }

    /// The deadline of a value that is set at `clock`.
    pub(super) fn deadline(
        self,
        clock: ClusterTime,
        command: &'static str,
    ) -> Result<ClusterTime, CommandError> {
        let deadline = match self {
            Lifetime::For(duration_ms) => signed(clock).checked_add(duration_ms),
            Lifetime::Until(time_ms) => Some(time_ms),
        };
        let deadline = deadline.ok_or(CommandError::InvalidExpire(command))?;
        Ok(ClusterTime(u64::try_from(deadline).unwrap_or(0)))
    }
}

fn positive_ms(text: &[u8], unit: Unit, command: &'static str) -> Result<i64, CommandError> {
    let value = parse_integer(text).ok_or(CommandError::NotAnInteger)?;
    if value <= 0 {
        return Err(CommandError::InvalidExpire(command));
    }
    in_ms(value, unit, command)
}

fn in_ms(value: i64, unit: Unit, command: &'static str) -> Result<i64, CommandError> {
    match unit {
        Unit::Seconds => value.checked_mul(1000).ok_or(CommandError::InvalidExpire(command)),
        Unit::Milliseconds => Ok(value),
    }
}

/// The clock as a number that can be counted with. Real clocks are far below 2^63.
fn signed(time: ClusterTime) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// The conditions of EXPIRE; Redis allows XX beside GT or LT.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    /// Whether a key with `current` may get `new`. No deadline is later than all, but for GT alone
    /// does that decide anything.
    fn hold(self, current: Option<ClusterTime>, new: i64) -> bool {
        let Some(current) = current.map(signed) else {
            return !self.xx && !self.gt;
        };
        let refused = self.nx || (self.gt && new <= current) || (self.lt && new >= current);
        !refused
    }
}

fn parse_expire(
    args: Args<'_>,
    unit: Unit,
    command: &'static str,
) -> Result<(i64, Conditions), CommandError> {
    let mut words = args.iter().skip(2);
    let time = words.next().ok_or(CommandError::WrongArity(command))?;
    let mut conditions = Conditions::default();
    for word in words {
        match word.to_ascii_lowercase().as_slice() {
            b"nx" => conditions.nx = true,
            b"xx" => conditions.xx = true,
            b"gt" => conditions.gt = true,
            b"lt" => conditions.lt = true,
            _ => {
                let shown = escape_echo(word, limits::ECHO_BYTES);
                return Err(CommandError::UnsupportedOption(shown));
            }
        }
    }
    if conditions.nx && (conditions.xx || conditions.gt || conditions.lt) {
        return Err(CommandError::NxWithCondition);
    }
    if conditions.gt && conditions.lt {
        return Err(CommandError::GtWithLt);
    }
    let value = parse_integer(time).ok_or(CommandError::NotAnInteger)?;
    Ok((in_ms(value, unit, command)?, conditions))
}

fn expire_in(
    context: &mut WriteContext<'_>,
    args: Args<'_>,
    unit: Unit,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let (duration_ms, conditions) = parse_expire(args, unit, command)?;
    let when = signed(context.store.clock())
        .checked_add(duration_ms)
        .ok_or(CommandError::InvalidExpire(command))?;
    expire(context, args, when, conditions)
}

fn expire_at(
    context: &mut WriteContext<'_>,
    args: Args<'_>,
    unit: Unit,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let (when, conditions) = parse_expire(args, unit, command)?;
    expire(context, args, when, conditions)
}

/// Lets a key die at `when`, in milliseconds of the cluster clock.
fn expire(
    context: &mut WriteContext<'_>,
    args: Args<'_>,
    when: i64,
    conditions: Conditions,
) -> Result<Reply, CommandError> {
    let key = args.get(1).unwrap_or_default();
    let Some(item) = context.store.get(key) else {
        return Ok(Reply::Integer(0));
    };
    if !conditions.hold(item.deadline, when) {
        return Ok(Reply::Integer(0));
    }
    // A time before the epoch is as past as any other: the store deletes the key.
    let deadline = ClusterTime(u64::try_from(when).unwrap_or(0));
    let done = context.store.set_deadline(key, Some(deadline));
    Ok(Reply::Integer(i64::from(done)))
}

fn time_to_live(
    context: &ReadContext<'_>,
    args: Args<'_>,
    shown: fn(u64) -> u64,
) -> Result<Reply, CommandError> {
    let key = args.get(1).unwrap_or_default();
    let Some(item) = context.store.get(key) else {
        return Ok(Reply::Integer(-2));
    };
    let Some(deadline) = item.deadline else {
        return Ok(Reply::Integer(-1));
    };
    let left = shown(deadline.0.saturating_sub(context.now.0));
    Ok(Reply::Integer(i64::try_from(left).unwrap_or(i64::MAX)))
}

fn expire_time(
    context: &ReadContext<'_>,
    args: Args<'_>,
    shown: fn(u64) -> u64,
) -> Result<Reply, CommandError> {
    let item = context.store.get(args.get(1).unwrap_or_default());
    Ok(Reply::Integer(match item.map(|item| item.deadline) {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline)) => i64::try_from(shown(deadline.0)).unwrap_or(i64::MAX),
    }))
}

fn persist(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.get(1).ok_or(CommandError::WrongArity("persist"))?;
    let expires = context.store.get(key).is_some_and(|item| item.deadline.is_some());
    let done = expires && context.store.set_deadline(key, None);
    Ok(Reply::Integer(i64::from(done)))
}
