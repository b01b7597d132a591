//! The interactive loop: history, completion of command names, the node's name as the prompt.
//!
//! Called by `main` when there is a terminal and no command. The names come from the server
//! (`COMMAND`), so that they are those of its version.

use std::io;
use std::path::PathBuf;

use raftkv::client::Client;
use raftkv::proto::reply_decoder::Value;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

use super::{Outcome, Session};

const HELP: &str = "\
Type a command, such as: SET greeting hello   GET greeting   CAS greeting hello bye   RAFT NODES
Quotes as in a shell: SET a \"two words\\n\". Tab completes command names; the arrow keys and Ctrl-R
go through earlier lines. `quit`, `exit` or Ctrl-D ends. INDOUBT means: may have been done, or not.
";

/// Lines that the history keeps.
const HISTORY_LINES: usize = 1000;

struct Completion {
    /// Upper case, sorted.
    names: Vec<String>,
    history: HistoryHinter,
}

impl Completer for Completion {
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

impl Hinter for Completion {
    type Hint = String;

    fn hint(&self, line: &str, position: usize, context: &Context<'_>) -> Option<String> {
        self.history.hint(line, position, context)
    }
}

impl Highlighter for Completion {}
impl Validator for Completion {}
impl Helper for Completion {}

/// Names that begin with `typed`, if that is the beginning of a line's first word.
fn candidates(names: &[String], typed: &str) -> Vec<Pair> {
    if typed.contains(' ') {
        return Vec::new();
    }
    let wanted = typed.to_ascii_uppercase();
    let fitting = names.iter().filter(|name| name.starts_with(&wanted));
    fitting.map(|name| Pair { display: name.clone(), replacement: format!("{name} ") }).collect()
}

/// The names in a reply to `COMMAND`.
fn names_of(reply: Value) -> Vec<String> {
    let Value::Array(commands) = reply else {
        return Vec::new();
    };
    let mut names: Vec<_> = commands
        .into_iter()
        .filter_map(|command| match command {
            Value::Array(fields) => fields.into_iter().next(),
            _ => None,
        })
        .filter_map(|name| match name {
            Value::Bulk(bytes) => Some(String::from_utf8_lossy(&bytes).to_ascii_uppercase()),
            Value::Simple(text) => Some(text.to_ascii_uppercase()),
            _ => None,
        })
        .collect();
    names.sort();
    names
}

fn command_names(client: &mut Client) -> Vec<String> {
    client.command(&["COMMAND"]).map(names_of).unwrap_or_default()
}

fn history_file() -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".rkv_cli_history"))
}

/// Reads and runs lines until the end. The exit code is 0: errors were seen by who typed.
pub fn run(session: &mut Session) -> io::Result<Outcome> {
    let mut names = Vec::new();
    match session.client.connect() {
        Ok(()) => {
            // Only an extra: without it fail-over goes to the given endpoints alone.
            let _ = session.client.discover();
            names = command_names(&mut session.client);
        }
        Err(error) => eprintln!("rkv-cli: {error}"),
    }
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)
        .map_err(io::Error::other)?
        .auto_add_history(true)
        .build();
    let mut editor: Editor<Completion, FileHistory> =
        Editor::with_config(config).map_err(io::Error::other)?;
    editor.set_helper(Some(Completion { names, history: HistoryHinter::new() }));
    let history = history_file();
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

fn read_lines(
    session: &mut Session,
    editor: &mut Editor<Completion, FileHistory>,
) -> io::Result<()> {
    loop {
        let line = match editor.readline(&format!("{}> ", session.client.endpoint())) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        };
        match line.trim().to_ascii_lowercase().as_str() {
            "quit" | "exit" => return Ok(()),
            "help" | "?" => print!("{HELP}"),
            "clear" => editor.clear_screen().map_err(io::Error::other)?,
            _ => {
                session.run_line(line.as_bytes())?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_complete_the_first_word_only() {
        let reply = Value::Array(vec![
            Value::Array(vec![Value::Bulk(b"set".to_vec()), Value::Integer(-3)]),
            Value::Array(vec![Value::Bulk(b"get".to_vec()), Value::Integer(2)]),
            Value::Array(vec![Value::Simple("getrev".to_owned())]),
            Value::Nil,
        ]);
        let names = names_of(reply);
        assert_eq!(names, ["GET", "GETREV", "SET"]);
        let found = |typed: &str| -> Vec<String> {
            candidates(&names, typed).into_iter().map(|pair| pair.replacement).collect()
        };
        assert_eq!(found("ge"), ["GET ", "GETREV "]);
        assert_eq!(found("S"), ["SET "]);
        assert!(found("SET ").is_empty());
        assert!(found("x").is_empty());
    }
}
