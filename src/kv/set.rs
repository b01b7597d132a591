//! SET and its options.
//!
//! Redis 7's SET, with the conditions IFEQ and IFREV of design 4-surface §3. Called through the
//! row in [`super::strings`].

use super::command::WriteContext;
use super::error::CommandError;
use super::expiry::{Lifetime, Unit};
use super::lease::lease_id;
use super::store::Item;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;
use crate::types::{LeaseId, Revision};

/// A SET as it was sent.
pub(super) struct Set<'a> {
    key: &'a [u8],
    value: &'a [u8],
    condition: Condition<'a>,
    expiry: Expiry,
    /// Whether to answer the value before.
    get: bool,
    /// The lease that the key is attached to.
    lease: Option<LeaseId>,
    /// Whether to answer the revision that the value got: a fencing token.
    rev: bool,
}

/// When the value is set at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Condition<'a> {
    Always,
    Missing,
    Present,
    Equals(&'a [u8]),
    /// Revision 0 is that of a key that does not exist.
    AtRevision(Revision),
}

impl Condition<'_> {
    fn holds(self, item: Option<Item<'_>>) -> bool {
        match self {
            Condition::Always => true,
            Condition::Missing => item.is_none(),
            Condition::Present => item.is_some(),
            Condition::Equals(old) => item.is_some_and(|item| item.value == old),
            Condition::AtRevision(revision) => {
                item.map_or(Revision::ZERO, |item| item.revision) == revision
            }
        }
    }
}

/// What becomes of the key's time to live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expiry {
    Clear,
    Keep,
    Set(Lifetime),
}

/// Options as words, before their numbers are read: Redis reports a syntax error anywhere before a
/// bad number.
#[derive(Default)]
struct Options<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    rev: bool,
    keep: bool,
    if_equals: Option<&'a [u8]>,
    if_revision: Option<&'a [u8]>,
    lease: Option<&'a [u8]>,
    lifetime: Option<(LifetimeOption, &'a [u8])>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LifetimeOption {
    Ex,
    Px,
    ExAt,
    PxAt,
}

/// Reads a SET and finds every error that needs no store.
pub(super) fn parse(args: Args<'_>) -> Result<Set<'_>, CommandError> {
    let mut words = args.iter().skip(1);
    let (Some(key), Some(value)) = (words.next(), words.next()) else {
        return Err(CommandError::WrongArity("set"));
    };
    let options = parse_options(words)?;
    let expiry = match options.lifetime {
        None if options.keep => Expiry::Keep,
        None => Expiry::Clear,
        Some((option, text)) => Expiry::Set(match option {
            LifetimeOption::Ex => Lifetime::relative(text, Unit::Seconds, "set")?,
            LifetimeOption::Px => Lifetime::relative(text, Unit::Milliseconds, "set")?,
            LifetimeOption::ExAt => Lifetime::absolute(text, Unit::Seconds, "set")?,
            LifetimeOption::PxAt => Lifetime::absolute(text, Unit::Milliseconds, "set")?,
        }),
    };
    let Options { get, rev, .. } = options;
    let lease = options.lease.map(|word| lease_id(Some(word))).transpose()?;
    Ok(Set { key, value, condition: condition(&options)?, expiry, get, lease, rev })
}

fn parse_options<'a>(
    mut words: impl Iterator<Item = &'a [u8]>,
) -> Result<Options<'a>, CommandError> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut operand = || words.next().ok_or(CommandError::Syntax);
        let mut name = [0; 8];
        match lower_case(word, &mut name) {
            b"nx" => options.nx = true,
            b"xx" => options.xx = true,
            b"get" => options.get = true,
            b"rev" => options.rev = true,
            b"keepttl" => options.keep = true,
            b"ifeq" => options.if_equals = Some(operand()?),
            b"ifrev" => options.if_revision = Some(operand()?),
            b"lease" => options.lease = Some(operand()?),
            b"ex" => options.set_lifetime(LifetimeOption::Ex, operand()?)?,
            b"px" => options.set_lifetime(LifetimeOption::Px, operand()?)?,
            b"exat" => options.set_lifetime(LifetimeOption::ExAt, operand()?)?,
            b"pxat" => options.set_lifetime(LifetimeOption::PxAt, operand()?)?,
            _ => return Err(CommandError::Syntax),
        }
    }
    let conditions =
        [options.nx, options.xx, options.if_equals.is_some(), options.if_revision.is_some()];
    if conditions.into_iter().filter(|given| *given).count() > 1 {
        return Err(CommandError::Syntax);
    }
    if options.keep && options.lifetime.is_some() || options.get && options.rev {
        return Err(CommandError::Syntax);
    }
    Ok(options)
}

/// A short word in lower case; a longer one is no option and stays as it is.
fn lower_case<'a>(word: &'a [u8], buffer: &'a mut [u8; 8]) -> &'a [u8] {
    match buffer.get_mut(..word.len()) {
        Some(short) => {
            short.copy_from_slice(word);
            short.make_ascii_lowercase();
            short
        }
        None => word,
    }
}

impl<'a> Options<'a> {
    /// As in Redis, the same option twice counts the second time, and two of them are an error.
    fn set_lifetime(&mut self, option: LifetimeOption, text: &'a [u8]) -> Result<(), CommandError> {
        if self.lifetime.is_some_and(|(before, _)| before != option) {
            return Err(CommandError::Syntax);
        }
        self.lifetime = Some((option, text));
        Ok(())
    }
}

fn condition<'a>(options: &Options<'a>) -> Result<Condition<'a>, CommandError> {
    if options.nx {
        return Ok(Condition::Missing);
    }
    if options.xx {
        return Ok(Condition::Present);
    }
    if let Some(old) = options.if_equals {
        return Ok(Condition::Equals(old));
    }
    let Some(text) = options.if_revision else {
        return Ok(Condition::Always);
    };
    let revision = parse_integer(text).and_then(|value| u64::try_from(value).ok());
    revision.map(|value| Condition::AtRevision(Revision(value))).ok_or(CommandError::NotAnInteger)
}

/// Carries out a SET.
pub(super) fn apply(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let set = parse(args)?;
    // A plain SET overwrites whatever is there: it needn't be looked up.
    let looks_back = set.get || set.expiry == Expiry::Keep || set.condition != Condition::Always;
    let before = if looks_back { context.store.get(set.key) } else { None };
    let deadline = match set.expiry {
        Expiry::Clear => None,
        Expiry::Keep => before.and_then(|item| item.deadline),
        Expiry::Set(lifetime) => Some(lifetime.deadline(context.store.clock(), "set")?),
    };
    let holds = set.condition.holds(before);
    let reply = match (set.get, holds) {
        (true, _) => before.map_or(Reply::Nil, |item| Reply::bulk(item.value)),
        (false, true) => Reply::OK,
        (false, false) => Reply::Nil,
    };
    if !holds {
        return Ok(reply);
    }
    if let Some(lease) = set.lease {
        context.store.may_attach(set.key, lease)?;
    }
    let revision = context.store.set(set.key, set.value, deadline);
    if let Some(lease) = set.lease {
        context.store.attach(set.key, lease);
    }
    Ok(if set.rev { Reply::Integer(revision.signed()) } else { reply })
}
