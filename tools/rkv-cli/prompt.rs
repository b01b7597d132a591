//! The interactive loop: history, completion and hints from the command table, the node's name as
//! the prompt.
//!
//! Called by `main` when there is a terminal and no command. Which commands there are is asked of
//! the server (`COMMAND`); what they take is told by this program's own table. Decides nothing about
//! commands.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::PathBuf;

use raftkv::client::Client;
use raftkv::kv::command::{self, Command};
use raftkv::kv::manual;
use raftkv::proto::reply_decoder::Value;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter, HistoryHinter};
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, CompletionType, Config, Context, Editor, Helper};

use super::paint::{Colour, Paint};
use super::{Outcome, Session};

const HELP: &str = "\
Type a command, such as: SET greeting hello   GET greeting   CAS greeting hello bye   RAFT NODES
`help SET` tells what a command takes and answers. Tab completes names; the arrow keys and Ctrl-R go
through earlier lines. Quotes as in a shell: SET a \"two words\\n\". `clear` clears the screen; `quit`,
`exit` or Ctrl-D ends. INDOUBT means: may have been done, or not.
";

/// Lines that the history keeps.
const HISTORY_LINES: usize = 1000;

struct Prompter {
    /// Upper case, sorted; a subcommand's is behind its command's, with a blank between.
    names: Vec<String>,
    history: HistoryHinter,
    paint: Paint,
}

/// What is shown behind the cursor, and what the right arrow takes of it.
struct Shown {
    text: String,
    is_taken: bool,
}

impl Hint for Shown {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.is_taken.then_some(self.text.as_str())
    }
}

impl Completer for Prompter {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok((0, candidates(&self.names, &line[..position])))
    }
}

impl Hinter for Prompter {
    type Hint = Shown;

    fn hint(&self, line: &str, position: usize, context: &Context<'_>) -> Option<Shown> {
        if position < line.len() {
            return None;
        }
        // What a command takes, once it is named; before that, an earlier line.
        let rest = arguments_hint(line).map(|text| Shown { text, is_taken: false });
        let earlier = || self.history.hint(line, position, context);
        rest.or_else(|| earlier().map(|text| Shown { text, is_taken: true }))
    }
}

impl Highlighter for Prompter {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        Cow::Owned(self.paint.paint(Colour::Cyan, prompt))
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(self.paint.paint(Colour::Dim, hint))
    }
}

impl Validator for Prompter {}
impl Helper for Prompter {}

/// Names that begin with `typed`: of commands in the first word, of subcommands in the second.
/// Behind `help` they are the same.
fn candidates(names: &[String], typed: &str) -> Vec<Pair> {
    let (before, wanted) = match typed.get(..5) {
        Some(word) if word.eq_ignore_ascii_case("help ") => typed.split_at(5),
        _ => ("", typed),
    };
    let wanted = wanted.to_ascii_uppercase();
    let depth = wanted.matches(' ').count();
    let fits = |name: &&String| name.starts_with(&wanted) && name.matches(' ').count() == depth;
    let pair =
        |name: &String| Pair { display: name.clone(), replacement: format!("{before}{name} ") };
    names.iter().filter(fits).map(pair).collect()
}

/// The row that these words name, and how many of them do.
fn row(words: &[&str]) -> Option<(&'static Command, usize)> {
    let row = command::lookup(words.first()?.as_bytes())?;
    let own = |row: &'static Command| row.name.split_once('|').map_or("", |(_, name)| name);
    let subcommand = words
        .get(1)
        .and_then(|word| row.subcommands.iter().find(|row| own(row).eq_ignore_ascii_case(word)));
    Some(subcommand.map_or((row, 1), |row| (row, 2)))
}

/// What the command on this line takes beside what is there already.
fn arguments_hint(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (row, named) = row(&words)?;
    let is_between = line.ends_with(' ');
    if row.usage.is_empty() {
        return None;
    }
    let typed = &words[named..];
    let mut places = 0;
    let left: Vec<&str> = parts(row.usage)
        .into_iter()
        .filter(|part| match part.strip_prefix('[') {
            // An option is gone once one of its words is there.
            Some(inner) => {
                let marks = inner.split(|c: char| !c.is_ascii_alphanumeric());
                let mut marks = marks.filter(|mark| {
                    !mark.is_empty() && mark.bytes().all(|byte| !byte.is_ascii_lowercase())
                });
                !marks.any(|mark| typed.iter().any(|word| word.eq_ignore_ascii_case(mark)))
            }
            None => {
                places += 1;
                places > typed.len()
            }
        })
        .collect();
    if left.is_empty() {
        return None;
    }
    Some(format!("{}{}", if is_between { "" } else { " " }, left.join(" ")))
}

/// The words of a usage line; what stands in brackets is one.
fn parts(usage: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (place, byte) in usage.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 => {
                parts.push(&usage[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&usage[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// `help COMMAND`, from the table and the manual.
fn help(words: &[&str], paint: Paint) -> String {
    let Some((row, _)) = row(words) else {
        return format!("no such command: {}\n", words.join(" "));
    };
    let name = row.name.replace('|', " ").to_ascii_uppercase();
    let title = paint.paint(Colour::Bold, &format!("{name} {}", row.usage));
    let mut out = format!(
        "{}\n  {}. Since {}, {}\n",
        title.trim_end(),
        row.summary,
        row.since,
        row.complexity
    );
    if let Some(entry) = manual::entry(row.name) {
        for (what, text) in
            [("Replies", entry.replies), ("Errors", entry.errors), ("Differs", entry.differs)]
        {
            if !text.is_empty() {
                out.push_str(&format!("  {what}: {text}\n"));
            }
        }
    }
    for row in row.subcommands {
        let name = row.name.replace('|', " ").to_ascii_uppercase();
        out.push_str(&format!("  {}\n", format!("{name} {}", row.usage).trim_end()));
    }
    out
}

/// The names in a reply to `COMMAND`, and those of their subcommands.
fn names_of(reply: Value) -> Vec<String> {
    let Value::Array(commands) = reply else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for command in commands {
        let Value::Array(fields) = command else { continue };
        let name = match fields.into_iter().next() {
            Some(Value::Bulk(bytes)) => String::from_utf8_lossy(&bytes).to_ascii_uppercase(),
            Some(Value::Simple(text)) => text.to_ascii_uppercase(),
            _ => continue,
        };
        let row = command::lookup(name.as_bytes());
        for row in row.into_iter().flat_map(|row| row.subcommands) {
            names.push(row.name.replace('|', " ").to_ascii_uppercase());
        }
        names.push(name);
    }
    names.sort();
    names
}

fn command_names(client: &mut Client) -> Vec<String> {
    client.command(&["COMMAND"]).map(names_of).unwrap_or_default()
}

/// Whether a line may be kept: passwords are not.
fn is_kept(line: &str) -> bool {
    let words: Vec<String> = line.split_whitespace().map(str::to_ascii_lowercase).collect();
    let is = |place: usize, word: &str| words.get(place).is_some_and(|it| it == word);
    let says_auth = words.iter().any(|word| word == "auth");
    let is_secret = is(0, "auth") || is(0, "hello") && says_auth;
    !words.is_empty() && !is_secret
}

fn history_file(wanted: Option<PathBuf>) -> Option<PathBuf> {
    match wanted {
        Some(path) if path.as_os_str().is_empty() => None,
        Some(path) => Some(path),
        None => std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".rkv_history")),
    }
}

/// Reads and runs lines until the end. The exit code is 0: errors were seen by who typed.
/// `history`: the file that keeps the lines, an empty name for none; by default `~/.rkv_history`.
pub fn run(session: &mut Session, history: Option<PathBuf>) -> io::Result<Outcome> {
    let mut names = Vec::new();
    match session.client.connect() {
        Ok(()) => {
            // Only an extra: without it fail-over goes to the given endpoints alone.
            let _ = session.client.discover();
            names = command_names(&mut session.client);
        }
        Err(error) => eprintln!("rkv-cli: {error}"),
    }
    let paint = session.look.paint;
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)
        .map_err(io::Error::other)?
        .completion_type(CompletionType::List)
        .color_mode(if paint.is_on() { ColorMode::Enabled } else { ColorMode::Disabled })
        .build();
    let mut editor: Editor<Prompter, FileHistory> =
        Editor::with_config(config).map_err(io::Error::other)?;
    editor.set_helper(Some(Prompter { names, history: HistoryHinter::new(), paint }));
    let history = history_file(history);
    if let Some(path) = &history {
        // There is none on the first run.
        let _ = editor.load_history(path);
    }
    let ended = read_lines(session, &mut editor);
    if let Some(path) = &history
        && let Err(error) = editor.save_history(path)
    {
        eprintln!("rkv-cli: the history was not saved: {error}");
    }
    ended.map(|()| Outcome::Done)
}

fn read_lines(session: &mut Session, editor: &mut Editor<Prompter, FileHistory>) -> io::Result<()> {
    loop {
        let line = match editor.readline(&format!("{}> ", session.client.endpoint())) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        };
        if is_kept(&line) {
            editor.add_history_entry(line.as_str()).map_err(io::Error::other)?;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().map(|word| word.to_ascii_lowercase()).as_deref() {
            Some("quit" | "exit") => return Ok(()),
            Some("help" | "?") if words.len() == 1 => print!("{HELP}"),
            Some("help" | "?") => print!("{}", help(&words[1..], session.look.paint)),
            Some("clear") if words.len() == 1 => {
                editor.clear_screen().map_err(io::Error::other)?;
            }
            _ => {
                session.run_line(line.as_bytes())?;
            }
        }
        io::stdout().flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        let named = |name: &str| Value::Array(vec![Value::Bulk(name.as_bytes().to_vec())]);
        names_of(Value::Array(vec![
            named("set"),
            named("get"),
            Value::Array(vec![Value::Simple("getrev".to_owned())]),
            named("slowlog"),
            Value::Nil,
        ]))
    }

    #[test]
    fn candidates_complete_names_and_subcommands() {
        let names = names();
        let expected =
            ["GET", "GETREV", "SET", "SLOWLOG", "SLOWLOG GET", "SLOWLOG LEN", "SLOWLOG RESET"];
        assert_eq!(names, expected);
        let found = |typed: &str| -> Vec<String> {
            candidates(&names, typed).into_iter().map(|pair| pair.replacement).collect()
        };
        assert_eq!(found("ge"), ["GET ", "GETREV "]);
        assert_eq!(found("S"), ["SET ", "SLOWLOG "]);
        assert_eq!(found("slowlog l"), ["SLOWLOG LEN "]);
        assert_eq!(found("help sl"), ["help SLOWLOG "]);
        assert!(found("SET ").is_empty());
        assert!(found("x").is_empty());
    }

    #[test]
    fn arguments_hint_tells_what_is_left() {
        let hint = |line: &str| arguments_hint(line).unwrap_or_default();
        assert_eq!(hint("get"), " key");
        assert_eq!(hint("GET "), "key");
        assert_eq!(hint("get a"), "");
        assert!(hint("SET ").starts_with("key value [NX"), "{}", hint("SET "));
        assert!(hint("SET a").starts_with(" value [NX"), "{}", hint("SET a"));
        let rest = hint("SET a 1 nx ");
        assert!(rest.starts_with('[') && !rest.contains("NX"), "{rest}");
        assert_eq!(hint("slowlog get"), " [count]");
        assert_eq!(hint("nope "), "");
        assert_eq!(hint(""), "");
    }

    #[test]
    fn help_tells_of_a_command_what_the_manual_does() {
        let text = help(&["set"], Paint::OFF);
        assert!(text.starts_with("SET key value ["), "{text}");
        assert!(text.contains("\n  Replies: ") && text.contains("\n  Errors: "), "{text}");
        let text = help(&["slowlog"], Paint::OFF);
        assert!(text.contains("\n  SLOWLOG GET [count]\n"), "{text}");
        assert_eq!(help(&["no", "such"], Paint::OFF), "no such command: no such\n");
    }

    #[test]
    fn passwords_are_not_kept() {
        assert!(is_kept("GET auth"));
        assert!(!is_kept("auth secret"));
        assert!(!is_kept("HELLO 3 AUTH default secret"));
        assert!(!is_kept("   "));
    }
}
