//! The RAFT commands that change who is a member: their rows, and the reading of their words.
//!
//! Design page 4, §3. Nothing here knows a membership; `node/` carries the requests out, on the
//! leader. Called by the table, for the check, and by `node/admin.rs`.

use super::command::{Command, ConnectionCommand, Flags, Group, Handler, ROW};
use super::error::CommandError;
use crate::config::address_problem;
use crate::limits;
use crate::proto::admin::{Addresses, Admin, AdminRequest};
use crate::proto::args::{Args, ArgsIter};
use crate::proto::integer::parse_integer;
use crate::proto::reply::escape_echo;
use crate::types::ServerId;

const ADMIN: Command = Command {
    group: Group::Raft,
    flags: Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::STALE),
    since: "0.1.0",
    handler: Handler::Connection {
        check: |args| parse(args).map(drop),
        command: ConnectionCommand::RaftAdmin,
    },
    ..ROW
};

pub(super) const ADD: Command = Command {
    name: "raft|add",
    arity: -3,
    summary: "Add a member: a learner that is promoted by itself once it has caught up",
    usage: "id [peer-address client-address [http-address]] [LEARNER] [DRYRUN]",
    ..ADMIN
};

pub(super) const REMOVE: Command = Command {
    name: "raft|remove",
    arity: -3,
    summary: "Remove a member",
    usage: "id [FORCE] [DRYRUN]",
    ..ADMIN
};

pub(super) const PROMOTE: Command = Command {
    name: "raft|promote",
    arity: -3,
    summary: "Let a learner vote once it has caught up",
    usage: "id [DRYRUN]",
    ..ADMIN
};

pub(super) const REPLACE: Command = Command {
    name: "raft|replace",
    arity: -6,
    summary: "Let a new member take another's place once it has caught up",
    usage: "old-id new-id peer-address client-address [http-address] [DRYRUN]",
    ..ADMIN
};

pub(super) const MOVE: Command = Command {
    name: "raft|move",
    arity: -5,
    summary: "Change the addresses of a member",
    usage: "id peer-address client-address [http-address] [DRYRUN]",
    ..ADMIN
};

pub(super) const TRANSFER: Command = Command {
    name: "raft|transfer",
    arity: -2,
    summary: "Hand leadership to another voter",
    usage: "[id] [DRYRUN]",
    ..ADMIN
};

/// The words behind the fixed ones, each an option or, in their order, an address.
#[derive(Default)]
struct Rest {
    addresses: Vec<String>,
    learner: bool,
    force: bool,
    dry_run: bool,
}

/// Reads a request; its first word is `RAFT`.
pub fn parse(args: Args<'_>) -> Result<Admin, CommandError> {
    if args.encoded().len() + 4 > limits::ADMIN_BYTES {
        return Err(CommandError::RequestTooLong);
    }
    let mut words = args.iter().skip(1);
    let name = words.next().unwrap_or_default().to_ascii_lowercase();
    let mut words = args.behind(2).iter();
    let request = match name.as_slice() {
        b"add" => {
            let id = server_id(words.next())?;
            let mut rest = rest(words, 3, &[Word::Learner])?;
            let learner = rest.learner;
            let addresses = rest.take_addresses()?;
            return Ok(rest.admin(AdminRequest::Add { id, addresses, learner }));
        }
        b"remove" => {
            let id = server_id(words.next())?;
            let rest = rest(words, 0, &[Word::Force])?;
            let force = rest.force;
            return Ok(rest.admin(AdminRequest::Remove { id, force }));
        }
        b"promote" => AdminRequest::Promote { id: server_id(words.next())? },
        b"replace" => {
            let (old, new) = (server_id(words.next())?, server_id(words.next())?);
            let mut rest = rest(words, 3, &[])?;
            let addresses = rest.take_addresses()?.ok_or(CommandError::Syntax)?;
            return Ok(rest.admin(AdminRequest::Replace { old, new, addresses }));
        }
        b"move" => {
            let id = server_id(words.next())?;
            let mut rest = rest(words, 3, &[])?;
            let addresses = rest.take_addresses()?.ok_or(CommandError::Syntax)?;
            return Ok(rest.admin(AdminRequest::Move { id, addresses }));
        }
        b"transfer" => {
            let first = words.clone().next();
            let to = match first.filter(|word| !word.eq_ignore_ascii_case(b"dryrun")) {
                Some(_) => Some(server_id(words.next())?),
                None => None,
            };
            AdminRequest::Transfer { to }
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok(rest(words, 0, &[])?.admin(request))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Learner,
    Force,
}

impl Rest {
    fn admin(self, request: AdminRequest) -> Admin {
        Admin { request, dry_run: self.dry_run }
    }

    /// Two or three addresses, none of them twice; nothing where there are none.
    fn take_addresses(&mut self) -> Result<Option<Addresses>, CommandError> {
        let mut words = std::mem::take(&mut self.addresses).into_iter();
        let Some(peer) = words.next() else {
            return Ok(None);
        };
        let client = words.next().ok_or(CommandError::Syntax)?;
        let http = words.next().unwrap_or_default();
        for (one, other) in [(&peer, &client), (&peer, &http), (&client, &http)] {
            if one.eq_ignore_ascii_case(other) {
                let problem = format!("{one} is there twice; each port needs its own");
                return Err(CommandError::Address(problem));
            }
        }
        Ok(Some(Addresses { peer, client, http }))
    }
}

/// Reads the rest of a request: up to `most` addresses, then options.
fn rest(words: ArgsIter<'_>, most: usize, allowed: &[Word]) -> Result<Rest, CommandError> {
    let mut rest = Rest::default();
    for word in words {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        let option = if is(b"learner") {
            Some(Word::Learner).filter(|option| allowed.contains(option)).map(|_| &mut rest.learner)
        } else if is(b"force") {
            Some(Word::Force).filter(|option| allowed.contains(option)).map(|_| &mut rest.force)
        } else if is(b"dryrun") {
            Some(&mut rest.dry_run)
        } else if rest.addresses.len() < most {
            rest.addresses.push(address(word)?);
            continue;
        } else {
            None
        };
        let option = option.ok_or(CommandError::Syntax)?;
        if std::mem::replace(option, true) {
            return Err(CommandError::Syntax);
        }
    }
    Ok(rest)
}

fn server_id(word: Option<&[u8]>) -> Result<ServerId, CommandError> {
    let word = word.ok_or(CommandError::Syntax)?;
    let number = parse_integer(word).and_then(|number| u64::try_from(number).ok());
    match number.filter(|number| *number > 0) {
        Some(number) => Ok(ServerId(number)),
        None => Err(CommandError::ServerId(escape_echo(word, limits::ECHO_BYTES))),
    }
}

fn address(word: &[u8]) -> Result<String, CommandError> {
    let shown = || escape_echo(word, limits::ECHO_BYTES);
    let Ok(text) = std::str::from_utf8(word) else {
        return Err(CommandError::Address(format!("{:?} is no address", shown())));
    };
    match address_problem(text) {
        None => Ok(text.to_owned()),
        // The problem may echo the whole of it.
        Some(problem) if problem.len() <= 2 * limits::ECHO_BYTES => {
            Err(CommandError::Address(problem))
        }
        Some(_) => Err(CommandError::Address(format!("{:?} is no host:port", shown()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::args::push_arg;

    fn read(line: &str) -> Result<Admin, CommandError> {
        let words: Vec<&str> = line.split(' ').collect();
        let mut bytes = Vec::new();
        for word in &words {
            push_arg(&mut bytes, word.as_bytes());
        }
        parse(Args::new(words.len() as u32, &bytes))
    }

    #[test]
    fn parse_reads_addresses_and_options_in_any_case() {
        let addresses =
            Addresses { peer: "a:1".to_owned(), client: "b:2".to_owned(), http: String::new() };
        let add = |addresses, learner| AdminRequest::Add { id: ServerId(4), addresses, learner };
        let whole = |request, dry_run| Ok(Admin { request, dry_run });
        let given = Some(addresses.clone());
        assert_eq!(read("RAFT ADD 4 a:1 b:2"), whole(add(given.clone(), false), false));
        assert_eq!(read("RAFT add 4 a:1 b:2 dryrun learner"), whole(add(given, true), true));
        assert_eq!(read("RAFT ADD 4"), whole(add(None, false), false));
        let moved = AdminRequest::Move {
            id: ServerId(4),
            addresses: Addresses { http: "c:3".to_owned(), ..addresses },
        };
        assert_eq!(read("RAFT MOVE 4 a:1 b:2 c:3"), whole(moved, false));
        let transfer = |to| AdminRequest::Transfer { to };
        assert_eq!(read("RAFT TRANSFER"), whole(transfer(None), false));
        assert_eq!(read("RAFT TRANSFER DRYRUN"), whole(transfer(None), true));
        assert_eq!(read("RAFT TRANSFER 3"), whole(transfer(Some(ServerId(3))), false));
        let remove = AdminRequest::Remove { id: ServerId(3), force: true };
        assert_eq!(read("RAFT REMOVE 3 FORCE"), whole(remove, false));
    }

    #[test]
    fn parse_refuses_the_rest() {
        for line in [
            "RAFT ADD 0",
            "RAFT ADD -1",
            "RAFT ADD x a:1 b:2",
            "RAFT ADD 4 a:1",
            "RAFT ADD 4 a:1 A:1",
            "RAFT ADD 4 a b:2",
            "RAFT ADD 4 a:1 b:2 c:3 d:4",
            "RAFT ADD 4 a:1 b:2 FORCE",
            "RAFT ADD 4 LEARNER LEARNER",
            "RAFT REMOVE 3 now",
            "RAFT REMOVE 3 LEARNER",
            "RAFT PROMOTE 3 FORCE",
            "RAFT MOVE 3",
            "RAFT REPLACE 3 4 DRYRUN DRYRUN",
            "RAFT TRANSFER 3 4",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        let long = "x".repeat(limits::ADMIN_BYTES);
        assert_eq!(read(&format!("RAFT ADD 4 {long}:1 b:2")), Err(CommandError::RequestTooLong));
    }
}
