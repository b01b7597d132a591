//! rkv-cli: commands from the command line, from a prompt or from a pipe; replies as redis-cli
//! shows them.
//!
//! The way through its files: this one reads the arguments and runs commands, `render` shows
//! replies, `raft` follows changes of members, `save` makes backups, `prompt` is the interactive
//! loop. Stands on `raftkv::client`, which decides what may be sent twice.

mod prompt;
mod raft;
mod render;
mod save;

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use raftkv::client::{Client, Options, Wire, is_endpoint};
use raftkv::proto::args::Args;
use raftkv::proto::inline::{UnbalancedQuotes, split_line};

use render::Style;

const LONG_ABOUT: &str = "\
A client for raftkv. With a command it runs that one; at a terminal without one it prompts; from a
pipe it runs one command a line.

Any node serves any command. If the node it talks to fails, it goes on with the next one: reads, and
writes that were surely not done, are repeated; a write that may have been done is not, and is
reported as INDOUBT.";

const AFTER_HELP: &str = "\
Examples:
  rkv-cli SET greeting hello
  rkv-cli GET greeting
  rkv-cli -c 10.0.0.1:7101,10.0.0.2:7101,10.0.0.3:7101 INCR visits
  rkv-cli RAFT NODES                     who is in the cluster, and who leads
  rkv-cli RAFT ADD 4 10.0.0.4:7201 10.0.0.4:7101    a new member, followed until it votes
  rkv-cli snapshot save FILE             a backup, while all goes on; restored by
                                         raftkvd snapshot restore FILE
  printf 'SET a 1\\nGET a\\n' | rkv-cli    one command a line
  rkv-cli                                a prompt with history and completion

Exit code: 0 if all is done, 1 if a reply was an error, a write is in doubt or no node could be
reached, 2 for bad usage.";

/// The command line.
#[derive(Parser)]
#[command(name = "rkv-cli", version, about = "A client for raftkv", long_about = LONG_ABOUT)]
#[command(after_help = AFTER_HELP)]
struct Arguments {
    /// The nodes to try, in this order; at a prompt and in a pipe the other members are found too
    #[arg(short, long = "connect", value_name = "HOST:PORT,...", value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:7101", value_parser = parse_endpoint)]
    connect: Vec<String>,

    /// Show each reply as one line of JSON
    #[arg(long, conflicts_with_all = ["raw", "no_raw"])]
    json: bool,

    /// Show replies bare, as when the output is not a terminal
    #[arg(long, conflicts_with = "no_raw")]
    raw: bool,

    /// Show replies with their types, as when the output is a terminal
    #[arg(long)]
    no_raw: bool,

    /// Speak plain RESP instead of frames (works with any Redis server)
    #[arg(long)]
    text: bool,

    /// Seconds to wait for one reply
    #[arg(long, value_name = "SECONDS", default_value_t = 7)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    if is_endpoint(text) {
        return Ok(text.to_owned());
    }
    Err("expected host:port, such as 127.0.0.1:7101".to_owned())
}

/// How it went; the worst of all commands is the exit code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Done = 0,
    Failed = 1,
    BadUsage = 2,
}

/// What runs commands and shows what came of them.
struct Session {
    client: Client,
    style: Style,
}

impl Session {
    /// Runs one command and shows its reply. An error is that of writing the output.
    fn run(&mut self, args: &[Vec<u8>]) -> io::Result<Outcome> {
        let result = self.client.command(args);
        let mut stdout = io::stdout().lock();
        let outcome = match &result {
            Ok(value) => {
                stdout.write_all(&render::reply(value, args, self.style))?;
                Outcome::Done
            }
            Err(error) => {
                let line = render::error(error, self.style);
                if render::is_for_stderr(error, self.style) {
                    io::stderr().write_all(line.as_bytes())?;
                } else {
                    stdout.write_all(line.as_bytes())?;
                }
                Outcome::Failed
            }
        };
        stdout.flush()?;
        drop(stdout);
        match raft::goal(args).filter(|_| outcome == Outcome::Done) {
            Some(goal) if self.style != Style::Json => {
                let is_reached = raft::follow(&mut self.client, &goal)?;
                Ok(if is_reached { Outcome::Done } else { Outcome::Failed })
            }
            _ => Ok(outcome),
        }
    }

    /// Runs one line of input.
    fn run_line(&mut self, line: &[u8]) -> io::Result<Outcome> {
        let mut encoded = Vec::new();
        match split_line(line, &mut encoded) {
            Ok(0) => Ok(Outcome::Done),
            Ok(count) => {
                let args = Args::new(count, &encoded);
                self.run(&args.iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
            }
            Err(UnbalancedQuotes) => {
                eprintln!("rkv-cli: unbalanced quotes in: {}", line.escape_ascii());
                Ok(Outcome::BadUsage)
            }
        }
    }

    fn run_lines(&mut self, input: impl BufRead) -> io::Result<Outcome> {
        let mut worst = Outcome::Done;
        for line in input.split(b'\n') {
            worst = worst.max(self.run_line(&line?)?);
        }
        Ok(worst)
    }
}

/// `snapshot save FILE`
fn run_save(wanted: Result<save::Save, String>, options: &Options) -> ExitCode {
    let Options { endpoints, wire, reply_timeout, .. } = options;
    let (problem, outcome) = match wanted {
        Err(usage) => (usage, Outcome::BadUsage),
        Ok(wanted) => match save::save(endpoints, *wire, *reply_timeout, &wanted) {
            Ok(text) => {
                println!("{text}");
                return ExitCode::SUCCESS;
            }
            Err(problem) => (problem, Outcome::Failed),
        },
    };
    eprintln!("rkv-cli: {problem}");
    ExitCode::from(outcome as u8)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let style = match (arguments.json, arguments.raw, arguments.no_raw) {
        (true, _, _) => Style::Json,
        (_, true, _) => Style::Raw,
        (_, _, true) => Style::Typed,
        _ if io::stdout().is_terminal() => Style::Typed,
        _ => Style::Raw,
    };
    let mut options = Options::new(arguments.connect);
    options.wire = if arguments.text { Wire::Text } else { Wire::Frames };
    options.reply_timeout = Duration::from_secs(arguments.timeout);
    options.retry_timeout = options.retry_timeout.max(options.reply_timeout);
    let given: Vec<Vec<u8>> =
        arguments.command.iter().map(|word| word.clone().into_vec()).collect();
    if let Some(wanted) = save::parse(&given) {
        return run_save(wanted, &options);
    }
    let mut session = Session { client: Client::new(options), style };

    let outcome = if !arguments.command.is_empty() {
        let args: Vec<_> = arguments.command.into_iter().map(OsString::into_vec).collect();
        session.run(&args)
    } else if io::stdin().is_terminal() {
        prompt::run(&mut session)
    } else {
        // Only an extra: without it fail-over goes to the given endpoints alone.
        let _ = session.client.discover();
        session.run_lines(io::stdin().lock())
    };
    match outcome {
        Ok(outcome) => ExitCode::from(outcome as u8),
        // Nobody reads the output any more, as with `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rkv-cli: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_behind_the_command_belong_to_it() {
        let parsed = Arguments::parse_from(["rkv-cli", "--json", "SET", "a", "-1", "--raw"]);
        assert_eq!(parsed.command, ["SET", "a", "-1", "--raw"]);
        assert!(parsed.json && !parsed.raw);
        assert_eq!(parsed.connect, ["127.0.0.1:7101"]);
    }

    #[test]
    fn arguments_reject_an_endpoint_without_a_port() {
        for endpoint in ["localhost", ":7101", "a:0", "a:70000", "a:1,"] {
            assert!(Arguments::try_parse_from(["rkv-cli", "-c", endpoint]).is_err(), "{endpoint}");
        }
        let parsed = Arguments::parse_from(["rkv-cli", "-c", "a:1,[::1]:2"]);
        assert_eq!(parsed.connect, ["a:1", "[::1]:2"]);
    }
}
