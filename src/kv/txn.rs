//! `TXN`: compares, and what is done where they hold or where they don't, in one command.
//!
//! Ours; etcd's transactions are the model. One round trip and one place in the log: nothing comes
//! between the compares and the commands, and it is done exactly once, like every write. Called
//! through the command table.

use super::command::{self, Command, Flags, Group, Handler, Keys, ROW, ReadContext, WriteContext};
use super::error::CommandError;
use super::luck::Luck;
use super::scan;
use super::store::Store;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::reply::Reply;
use crate::types::Revision;

/// Its code in the log.
pub(super) const CODE: u16 = 81;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "txn",
    code: CODE,
    arity: -4,
    flags: Flags::WRITE.and(Flags::DENYOOM),
    keys: Keys::NONE,
    group: Group::Transactions,
    since: "0.1.0",
    complexity: "Depends on commands in the transaction",
    summary: "Carry out commands if all compares hold, and others if not, at once",
    usage: "[IF VALUE key value | IF REV key revision | IF EXISTS key | IF MISSING key [IF ...]] \
            [THEN numargs command [arg ...] [THEN ...]] [ELSE numargs command [arg ...] [ELSE ...]]",
    handler: Handler::Write { check, apply },
    ..ROW
}];

/// What must be true of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Compare<'a> {
    Value(&'a [u8], &'a [u8]),
    /// Revision 0 is that of a key that does not exist.
    Revision(&'a [u8], Revision),
    Exists(&'a [u8]),
    Missing(&'a [u8]),
}

impl Compare<'_> {
    fn holds(self, store: &Store) -> bool {
        match self {
            Compare::Value(key, value) => store.get(key).is_some_and(|item| item.value == value),
            Compare::Revision(key, revision) => store.revision_of(key) == revision,
            Compare::Exists(key) => store.contains(key),
            Compare::Missing(key) => !store.contains(key),
        }
    }
}

/// A TXN as it was sent.
#[derive(Default)]
struct Txn<'a> {
    compares: Vec<Compare<'a>>,
    then: Vec<Args<'a>>,
    otherwise: Vec<Args<'a>>,
}

/// Takes the words apart; says nothing of the commands in it.
fn parse(args: Args<'_>) -> Result<Txn<'_>, CommandError> {
    let mut txn = Txn::default();
    let mut rest = args.behind(1);
    while let Some(word) = rest.get(0) {
        let taken = match word.to_ascii_lowercase().as_slice() {
            b"if" => {
                let (compare, taken) = parse_compare(rest)?;
                txn.compares.push(compare);
                taken
            }
            clause @ (b"then" | b"else") => {
                let count = rest.get(1).and_then(parse_integer).ok_or(CommandError::Syntax)?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                let count = count.ok_or(CommandError::Syntax)?;
                let command = rest.behind(2).first(count).ok_or(CommandError::Syntax)?;
                let commands = if clause == b"then" { &mut txn.then } else { &mut txn.otherwise };
                commands.push(command);
                2 + count
            }
            _ => return Err(CommandError::Syntax),
        };
        rest = rest.behind(taken);
    }
    Ok(txn)
}

/// The rows of the commands that it carries.
pub(super) fn carried(args: Args<'_>) -> impl Iterator<Item = &'static Command> {
    let txn = parse(args).unwrap_or_default();
    let carried = txn.then.into_iter().chain(txn.otherwise);
    carried.filter_map(|command| command::resolve(command).ok())
}

/// The compare that these words begin with, and how many words it has.
fn parse_compare(args: Args<'_>) -> Result<(Compare<'_>, usize), CommandError> {
    let mut words = args.iter().skip(1);
    let mut word = || words.next().ok_or(CommandError::Syntax);
    let (kind, key) = (word()?, word()?);
    Ok(match kind.to_ascii_lowercase().as_slice() {
        b"value" => (Compare::Value(key, word()?), 4),
        b"rev" => {
            let revision = parse_integer(word()?).and_then(|revision| u64::try_from(revision).ok());
            (Compare::Revision(key, Revision(revision.ok_or(CommandError::NotAnInteger)?)), 4)
        }
        b"exists" => (Compare::Exists(key), 3),
        b"missing" => (Compare::Missing(key), 3),
        _ => return Err(CommandError::Syntax),
    })
}

/// Every command in it is right by itself, or nothing of it is done.
fn check(args: Args<'_>) -> Result<(), CommandError> {
    let txn = parse(args)?;
    for command in txn.then.iter().chain(&txn.otherwise) {
        let row = command::resolve(*command)?;
        let is_of_store = matches!(row.handler, Handler::Write { .. } | Handler::Read { .. });
        // KEYS over many keys takes turns, and so can't be done at one moment.
        if !is_of_store || row.code == CODE || scan::is_listing(row) {
            return Err(CommandError::NotInMulti);
        }
    }
    Ok(())
}

/// `[1, [reply, ...]]` where all compares hold, else `[0, [reply, ...]]`.
fn apply(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    // The compares are made anew here: they are about the state at this place of the log.
    let txn = parse(args)?;
    let holds = txn.compares.iter().all(|compare| compare.holds(context.store));
    let commands = if holds { txn.then } else { txn.otherwise };
    let replies = commands.into_iter().map(|command| run(context, command));
    // One that fails does not keep the others from being done, as in EXEC.
    let replies = replies.map(|result| result.unwrap_or_else(|error| error.reply())).collect();
    Ok(Reply::Array(vec![Reply::Integer(i64::from(holds)), Reply::Array(replies)]))
}

fn run(context: &mut WriteContext<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let row = command::resolve(args)?;
    match row.handler {
        Handler::Write { apply, .. } if row.code != CODE => {
            context.store.begin_command(row.code);
            apply(context, args)
        }
        Handler::Read { run, .. } => {
            let store = &*context.store;
            // Replies may differ from node to node: only one of them gives them to a client.
            let luck = Luck::new(store.revision().0);
            run(&ReadContext { store, now: store.clock(), luck: &luck }, args)
        }
        _ => Err(CommandError::NotInMulti),
    }
}

/// Calls each command in it, with its row, whether it would be carried out or not.
pub(super) fn each_command(args: Args<'_>, call: &mut dyn FnMut(&'static Command, Args<'_>)) {
    // One that is malformed is answered with an error, which nobody keeps.
    let txn = parse(args).unwrap_or_default();
    for args in txn.then.into_iter().chain(txn.otherwise) {
        if let Some(row) = command::resolve(args).ok().filter(|row| row.code != CODE) {
            call(row, args);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::args::push_arg;

    fn with<T>(line: &str, run: impl FnOnce(Args<'_>) -> T) -> T {
        let words: Vec<&str> = line.split(' ').collect();
        let mut bytes = Vec::new();
        words.iter().for_each(|word| push_arg(&mut bytes, word.as_bytes()));
        run(Args::new(words.len() as u32, &bytes))
    }

    fn txn(store: &mut Store, line: &str) -> Reply {
        with(line, |args| {
            assert_eq!(command::resolve(args).map(|row| row.name), Ok("txn"), "{line}");
            apply(&mut WriteContext { store }, args).unwrap()
        })
    }

    fn done(holds: i64, replies: Vec<Reply>) -> Reply {
        Reply::Array(vec![Reply::Integer(holds), Reply::Array(replies)])
    }

    #[test]
    fn txn_does_what_its_compares_say_and_nothing_else() {
        let mut store = Store::new();
        let lock = "TXN IF MISSING lock THEN 3 SET lock me THEN 2 INCR fence ELSE 2 GET lock";
        assert_eq!(txn(&mut store, lock), done(1, vec![Reply::OK, Reply::Integer(1)]));
        assert_eq!(txn(&mut store, lock), done(0, vec![Reply::bulk(b"me")]));
        // All of them have to hold.
        let both = "TXN IF EXISTS lock IF VALUE lock you THEN 2 DEL lock";
        assert_eq!(txn(&mut store, both), done(0, vec![]));
        let revision = store.revision_of(b"lock").0;
        let mine = format!("TXN IF VALUE lock me IF REV lock {revision} THEN 2 DEL lock");
        assert_eq!(txn(&mut store, &mine), done(1, vec![Reply::Integer(1)]));
        assert_eq!(txn(&mut store, &mine), done(0, vec![]));
        let gone = "TXN IF REV lock 0 THEN 3 SET a x THEN 2 INCR a THEN 3 SET b y";
        let error = CommandError::NotAnInteger.reply();
        assert_eq!(txn(&mut store, gone), done(1, vec![Reply::OK, error, Reply::OK]));
    }

    #[test]
    fn txn_is_refused_as_a_whole_where_a_part_is_wrong() {
        for line in [
            "TXN IF MISSING THEN 2 GET a",
            "TXN IF MISSING a THEN 9 GET a",
            "TXN IF MISSING a THEN 0 GET",
            "TXN IF LATER a THEN 2 GET a",
            "TXN IF MISSING a THEN 1 GET",
            "TXN IF REV a x THEN 2 GET a",
            "TXN IF MISSING a THEN 1 PING",
            "TXN IF MISSING a THEN 1 MULTI",
            "TXN IF MISSING a THEN 2 KEYS *",
            "TXN IF MISSING a ELSE 4 TXN IF MISSING a",
            "TXN IF MISSING a ELSE 1 FOO",
            "TXN IF MISSING a AND",
        ] {
            let refused = with(line, |args| command::resolve(args).is_err());
            assert!(refused, "{line}");
        }
    }
}
