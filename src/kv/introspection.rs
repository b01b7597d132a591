//! What COMMAND and its subcommands answer, made from the table alone.
//!
//! The shapes are those of Redis 7: ten fields a command, maps for the documentation. Called by
//! `node/` with the whole command as it was sent.

use super::command::{self, Command, Flags, Group, Keys};
use super::connection;
use super::error::CommandError;
use super::glob;
use crate::proto::args::Args;
use crate::proto::reply::Reply;

/// The flags that Redis shows, in its order.
const SHOWN_FLAGS: [(Flags, &str); 12] = [
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_SLOWLOG, "skip_slowlog"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::ALLOW_BUSY, "allow_busy"),
];

/// `COMMAND`: every command's ten fields.
pub fn commands() -> Reply {
    Reply::Array(command::all().map(fields).collect())
}

/// `COMMAND COUNT`
pub fn count() -> Reply {
    integer(command::all().count())
}

/// `COMMAND INFO [name ...]`: the fields of each, nil for a name that is unknown.
pub fn info(args: Args<'_>) -> Reply {
    if args.len() <= 2 {
        return commands();
    }
    let found = args.iter().skip(2).map(find);
    Reply::Array(found.map(|row| row.map_or(Reply::Nil, fields)).collect())
}

/// `COMMAND DOCS [name ...]`: a map from each name to what people read; unknown names are left out.
pub fn docs(args: Args<'_>) -> Reply {
    let documented = |row: &'static Command| (Reply::Word(row.name), documentation(row));
    if args.len() <= 2 {
        return Reply::Map(command::all().map(documented).collect());
    }
    Reply::Map(args.iter().skip(2).filter_map(find).map(documented).collect())
}

/// Refuses what `COMMAND LIST` does not take. Modules are a filter too, in Redis: it has no
/// commands here, as with a module that isn't loaded.
pub(super) fn check_list(args: Args<'_>) -> Result<(), CommandError> {
    let mut words = args.iter().skip(2);
    match (words.next(), words.next(), words.next(), words.next()) {
        (None, ..) => Ok(()),
        (Some(filter), Some(by), Some(_), None) if filter.eq_ignore_ascii_case(b"filterby") => {
            let known = [&b"aclcat"[..], b"pattern", b"module"];
            let known = known.into_iter().any(|name| by.eq_ignore_ascii_case(name));
            if known { Ok(()) } else { Err(CommandError::Syntax) }
        }
        _ => Err(CommandError::Syntax),
    }
}

/// `COMMAND LIST [FILTERBY ACLCAT category | FILTERBY PATTERN pattern]`: names. The check has
/// refused every other form.
pub fn list(args: Args<'_>) -> Reply {
    let by = args.get(3).unwrap_or_default();
    let wanted = args.get(4).unwrap_or_default();
    let listed = |row: &&Command| {
        if args.len() <= 2 {
            true
        } else if by.eq_ignore_ascii_case(b"aclcat") {
            categories(row).any(|category| category.as_bytes()[1..].eq_ignore_ascii_case(wanted))
        } else if by.eq_ignore_ascii_case(b"pattern") {
            glob::matches(wanted, row.name.as_bytes())
        } else {
            false
        }
    };
    let with_subcommands =
        command::all().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    Reply::Array(with_subcommands.filter(listed).map(|row| Reply::Word(row.name)).collect())
}

/// `HELP` of the command that the arguments begin with: a line for each subcommand and one for what
/// it is there for, laid out as Redis does.
pub fn help(args: Args<'_>) -> Reply {
    let name = args.get(0).unwrap_or_default();
    let Some(row) = command::lookup(name) else {
        return CommandError::InvalidCommand.reply();
    };
    let container = row.name.to_ascii_uppercase();
    let mut lines =
        vec![format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    for subcommand in row.subcommands {
        let name = connection::subcommand_name(subcommand).to_ascii_uppercase();
        lines.push(format!("{name} {}", subcommand.usage).trim_end().to_owned());
        lines.push(format!("    {}", subcommand.summary));
    }
    lines.extend(["HELP".to_owned(), "    Print this help.".to_owned()]);
    // Status lines, as in Redis.
    let encode = |line: String| Reply::Encoded(format!("+{line}\r\n").into());
    Reply::Array(lines.into_iter().map(encode).collect())
}

/// `COMMAND GETKEYS command [arg ...]`: the keys in it.
pub fn get_keys(args: Args<'_>) -> Result<Reply, CommandError> {
    let command = args.behind(2);
    let row = command::named(command).map_err(|_| CommandError::InvalidCommand)?;
    if row.keys.first == 0 {
        return Err(CommandError::NoKeys);
    }
    if !row.takes(command.len()) {
        return Err(CommandError::InvalidArgumentCount);
    }
    Ok(Reply::Array(row.keys.of(command).map(Reply::bulk).collect()))
}

/// The row of `name` or `container|name`.
fn find(name: &[u8]) -> Option<&'static Command> {
    let Some(bar) = name.iter().position(|byte| *byte == b'|') else {
        return command::lookup(name);
    };
    let container = command::lookup(&name[..bar])?;
    container.subcommands.iter().find(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

/// The ten fields of `COMMAND INFO`.
fn fields(row: &'static Command) -> Reply {
    let shown = SHOWN_FLAGS.iter().filter(|(flag, _)| row.flags.contains(*flag));
    let statuses = |words: &mut dyn Iterator<Item = &'static str>| {
        Reply::Set(words.map(Reply::Simple).collect())
    };
    Reply::Array(vec![
        Reply::Word(row.name),
        Reply::Integer(i64::from(row.arity)),
        statuses(&mut shown.map(|(_, name)| *name)),
        integer(row.keys.first),
        Reply::Integer(i64::from(row.keys.last)),
        integer(row.keys.step),
        statuses(&mut categories(row)),
        Reply::Set(row.tips.iter().map(|tip| Reply::Word(tip)).collect()),
        Reply::Set(key_specifications(row)),
        subcommand_fields(row),
    ])
}

/// Redis writes an array here, and an empty set where there are no subcommands.
fn subcommand_fields(row: &'static Command) -> Reply {
    if row.subcommands.is_empty() {
        return Reply::Set(Vec::new());
    }
    Reply::Array(row.subcommands.iter().map(fields).collect())
}

/// The ACL categories, in Redis's order, which it makes from flags and group in this way too.
fn categories(row: &Command) -> impl Iterator<Item = &'static str> {
    let has = |flag| row.flags.contains(flag);
    let admin = has(Flags::ADMIN);
    [
        ("@keyspace", is_generic(row) || has(Flags::CATEGORY_KEYSPACE)),
        ("@read", has(Flags::READONLY)),
        ("@write", has(Flags::WRITE)),
        ("@string", row.group == Group::String),
        ("@bitmap", row.group == Group::Bitmap),
        ("@pubsub", row.group == Group::PubSub),
        ("@admin", admin || has(Flags::CATEGORY_ADMIN)),
        ("@fast", has(Flags::FAST)),
        ("@slow", !has(Flags::FAST)),
        ("@dangerous", admin || has(Flags::CATEGORY_DANGEROUS)),
        ("@connection", is_connection(row)),
        ("@transaction", row.group == Group::Transactions),
        ("@scripting", runs(row) && row.group == Group::Scripting),
    ]
    .into_iter()
    .filter_map(|(name, belongs)| belongs.then_some(name))
}

/// A container alone can't be run, and has no category of its group.
fn runs(row: &Command) -> bool {
    !matches!(row.handler, command::Handler::Container)
}

fn is_generic(row: &Command) -> bool {
    let is_other = row.flags.contains(Flags::CATEGORY_CONNECTION);
    runs(row) && row.group == Group::Generic && !is_other
}

fn is_connection(row: &Command) -> bool {
    runs(row) && (row.group == Group::Connection || row.flags.contains(Flags::CATEGORY_CONNECTION))
}

/// Redis's key specifications of a command: one for all its keys, or one for each of two.
fn key_specifications(row: &Command) -> Vec<Reply> {
    let Keys { first, last, step, access, second } = row.keys;
    if first == 0 {
        return Vec::new();
    }
    if !second.is_empty() {
        return vec![
            key_specification(access, first, 0, step),
            key_specification(second, first + 1, 0, step),
        ];
    }
    // Counted from the first key, where the field `last` counts from the name.
    let first_too = i32::try_from(first).expect("a row's position is small");
    let last = if last < 0 { last } else { last - first_too };
    vec![key_specification(access, first, last, step)]
}

fn key_specification(access: &[&'static str], first: usize, last: i32, step: usize) -> Reply {
    let words = |pairs: Vec<(&'static str, Reply)>| {
        Reply::Map(pairs.into_iter().map(|(name, value)| (Reply::Word(name), value)).collect())
    };
    let range = words(vec![
        ("lastkey", Reply::Integer(i64::from(last))),
        ("keystep", integer(step)),
        ("limit", Reply::Integer(0)),
    ]);
    let index = words(vec![("index", integer(first))]);
    words(vec![
        ("flags", Reply::Set(access.iter().map(|flag| Reply::Simple(flag)).collect())),
        ("begin_search", words(vec![("type", Reply::Word("index")), ("spec", index)])),
        ("find_keys", words(vec![("type", Reply::Word("range")), ("spec", range)])),
    ])
}

fn documentation(row: &'static Command) -> Reply {
    let mut pairs = vec![
        (Reply::Word("summary"), Reply::Word(row.summary)),
        (Reply::Word("since"), Reply::Word(row.since)),
        (Reply::Word("group"), Reply::Word(row.group.name())),
        (Reply::Word("complexity"), Reply::Word(row.complexity)),
    ];
    if !row.usage.is_empty() {
        let arguments = split_usage(row.usage).map(argument).collect();
        pairs.push((Reply::Word("arguments"), Reply::Array(arguments)));
    }
    if !row.subcommands.is_empty() {
        let each = row.subcommands.iter().map(|row| (Reply::Word(row.name), documentation(row)));
        pairs.push((Reply::Word("subcommands"), Reply::Map(each.collect())));
    }
    Reply::Map(pairs)
}

/// One argument of `COMMAND DOCS`. What stands in brackets is shown as one optional word, which is
/// what redis-cli makes its hints from.
fn argument(word: &'static str) -> Reply {
    let inner = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
    let kind = if word == "key" { "key" } else { "string" };
    let mut pairs = vec![
        (Reply::Word("name"), Reply::Word(inner.unwrap_or(word))),
        (Reply::Word("type"), Reply::Word(kind)),
    ];
    if word == "key" {
        pairs.push((Reply::Word("key_spec_index"), Reply::Integer(0)));
    }
    if inner.is_some() {
        pairs.push((Reply::Word("flags"), Reply::Set(vec![Reply::Simple("optional")])));
    }
    Reply::Map(pairs)
}

/// The words of a usage line; brackets hold together.
fn split_usage(usage: &'static str) -> impl Iterator<Item = &'static str> {
    let mut depth = 0_usize;
    usage
        .split(move |character| {
            match character {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            character == ' ' && depth == 0
        })
        .filter(|word| !word.is_empty())
}

fn integer(value: usize) -> Reply {
    Reply::Integer(i64::try_from(value).expect("the table is small"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::args::push_arg;
    use crate::proto::reply::Protocol;

    fn encoded(words: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in words {
            push_arg(&mut bytes, word.as_bytes());
        }
        bytes
    }

    fn shown(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.encode(Protocol::Resp2, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn words_of(reply: &Reply) -> Vec<&'static str> {
        let Reply::Array(replies) = reply else { panic!("{reply:?}") };
        let word = |reply: &Reply| match reply {
            Reply::Word(word) => *word,
            other => panic!("{other:?}"),
        };
        replies.iter().map(word).collect()
    }

    #[test]
    fn count_and_command_cover_the_table() {
        let Reply::Array(rows) = commands() else { panic!("COMMAND is an array") };
        assert_eq!(count(), integer(rows.len()));
        let bytes = encoded(&["COMMAND", "INFO"]);
        assert_eq!(info(Args::new(2, &bytes)), commands());
    }

    #[test]
    fn help_has_two_lines_for_each_subcommand() {
        let bytes = encoded(&["memory", "help"]);
        let Reply::Array(lines) = help(Args::new(2, &bytes)) else { panic!("HELP is an array") };
        let lines: Vec<String> = lines.iter().map(shown).collect();
        assert_eq!(lines.len(), 9);
        assert!(
            lines[0].contains("MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
        );
        assert!(lines[1].contains("USAGE key [SAMPLES count]"), "{}", lines[1]);
        for row in command::all().filter(|row| !row.subcommands.is_empty()) {
            let bytes = encoded(&[row.name, "HELP"]);
            assert!(command::resolve(Args::new(2, &bytes)).is_ok(), "{}", row.name);
        }
    }

    #[test]
    fn docs_has_what_redis_cli_makes_hints_from() {
        let bytes = encoded(&["COMMAND", "DOCS", "PING", "nothing", "config|get"]);
        let expected = "*4\r\n$4\r\nping\r\n*10\r\n$7\r\nsummary\r\n$15\r\nPing the server\r\n\
             $5\r\nsince\r\n$5\r\n1.0.0\r\n$5\r\ngroup\r\n$10\r\nconnection\r\n\
             $10\r\ncomplexity\r\n$4\r\nO(1)\r\n$9\r\narguments\r\n*1\r\n*6\r\n\
             $4\r\nname\r\n$7\r\nmessage\r\n$4\r\ntype\r\n$6\r\nstring\r\n\
             $5\r\nflags\r\n*1\r\n+optional\r\n$10\r\nconfig|get\r\n*10\r\n";
        let found = shown(&docs(Args::new(5, &bytes)));
        assert!(found.starts_with(expected), "{found}");
        let bytes = encoded(&["COMMAND", "DOCS"]);
        let Reply::Map(all) = docs(Args::new(2, &bytes)) else { panic!("DOCS is a map") };
        assert_eq!(integer(all.len()), count());
    }

    #[test]
    fn list_filters_by_category_and_pattern() {
        let bytes = encoded(&["COMMAND", "LIST", "FILTERBY", "ACLCAT", "Write"]);
        let writes = words_of(&list(Args::new(5, &bytes)));
        assert!(writes.contains(&"set") && !writes.contains(&"get"));
        let bytes = encoded(&["COMMAND", "LIST", "FILTERBY", "PATTERN", "raft*"]);
        let named = words_of(&list(Args::new(5, &bytes)));
        assert_eq!(named[..4], ["raft", "raft|info", "raft|nodes", "raft|health"]);
        assert!(named.contains(&"raft|transfer") && named.contains(&"raft|snapshot"));
        let bytes = encoded(&["COMMAND", "LIST", "FILTERBY", "MODULE", "any"]);
        assert!(words_of(&list(Args::new(5, &bytes))).is_empty());
    }

    #[test]
    fn split_usage_keeps_brackets_together() {
        let words: Vec<_> = split_usage("key [a [b] | c] value [d]").collect();
        assert_eq!(words, ["key", "[a [b] | c]", "value", "[d]"]);
    }
}
