//! rkv-cli: commands from the command line, from a prompt or from a pipe; replies as redis-cli
//! shows them.
//!
//! The way through its files: this one reads the arguments and runs commands, `render` shows
//! replies (`tables` those about the cluster, `paint` in colour), `stream` the commands that are
//! answered again and again, `raft` follows changes of members, `save` makes backups, `prompt` is
//! the interactive loop; `watch`, `stat`, `latency`, `bigkeys` and `pipe` are the options of those
//! names. Stands on `raftkv::client`, which decides what may be sent twice.

mod bigkeys;
mod latency;
mod paint;
mod pipe;
mod prompt;
mod raft;
mod render;
mod save;
mod stat;
mod stream;
mod tables;
mod watch;

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use raftkv::client::{Client, Options, Wire, is_endpoint};
use raftkv::proto::args::Args;
use raftkv::proto::inline::{UnbalancedQuotes, split_line};

use paint::{Paint, When};
use render::{Look, Style};
use watch::Watch;

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
  rkv-cli --watch user:                  every change of keys that begin so, once and in order
  rkv-cli --latency GET greeting         how long a read takes
  rkv-cli --pipe < commands.txt          load much at once: RESP, or one command a line
  printf 'SET a 1\\nGET a\\n' | rkv-cli    one command a line, each reply shown
  rkv-cli                                a prompt with history, completion and hints

Replies are shown with their types at a terminal and bare elsewhere; colour is for terminals alone,
and NO_COLOR turns it off.

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

    /// Watch the keys with this prefix: each change with its revision, through fail-overs
    #[arg(long, value_name = "PREFIX", group = "mode")]
    #[arg(help_heading = "Instead of a command")]
    watch: Option<OsString>,

    /// With --watch: begin behind this revision, rather than now
    #[arg(long, value_name = "REVISION", requires = "watch")]
    #[arg(help_heading = "Instead of a command")]
    from: Option<u64>,

    /// Show a line about the node each second: keys, memory, clients, commands, Raft
    #[arg(long, group = "mode")]
    #[arg(help_heading = "Instead of a command")]
    stat: bool,

    /// Measure how long a command takes, PING unless one is given
    #[arg(long, group = "mode")]
    #[arg(help_heading = "Instead of a command")]
    latency: bool,

    /// Look through all keys for the largest values
    #[arg(long, group = "mode")]
    #[arg(help_heading = "Instead of a command")]
    bigkeys: bool,

    /// Send what comes on stdin, RESP or one command a line, and only count the replies
    #[arg(long, group = "mode")]
    #[arg(help_heading = "Instead of a command")]
    pipe: bool,

    /// Seconds between two lines of --stat
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    #[arg(help_heading = "Instead of a command")]
    interval: Duration,

    /// End after so many changes of --watch, lines of --stat, commands of --latency
    #[arg(short = 'n', long, value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(help_heading = "Instead of a command")]
    count: Option<u64>,

    /// Show each reply as one line of JSON
    #[arg(long, conflicts_with_all = ["csv", "raw", "no_raw"])]
    #[arg(help_heading = "Output")]
    json: bool,

    /// Show each reply as one record of CSV
    #[arg(long, conflicts_with_all = ["raw", "no_raw"])]
    #[arg(help_heading = "Output")]
    csv: bool,

    /// Show replies bare, as when the output is not a terminal
    #[arg(long, conflicts_with = "no_raw")]
    #[arg(help_heading = "Output")]
    raw: bool,

    /// Show replies with their types, as when the output is a terminal
    #[arg(long)]
    #[arg(help_heading = "Output")]
    no_raw: bool,

    /// When to use colour
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    #[arg(help_heading = "Output")]
    color: When,

    /// The file that keeps what was typed at the prompt, '' for none [default: ~/.rkv_history]
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,

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

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.01..=86_400.0).contains(seconds));
    let refused = || "expected seconds, from 0.01 to 86400".to_owned();
    seconds.map(Duration::from_secs_f64).ok_or_else(refused)
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
    look: Look,
    /// How long connecting may take.
    connect_timeout: Duration,
    /// Somebody types.
    is_prompt: bool,
}

impl Session {
    /// Runs one command and shows its reply. An error is that of writing the output.
    fn run(&mut self, args: &[Vec<u8>]) -> io::Result<Outcome> {
        if stream::is_one(args) {
            let endpoint = self.client.endpoint();
            return stream::run(endpoint, self.connect_timeout, args, self.look, self.is_prompt);
        }
        let result = self.client.command(args);
        let mut stdout = io::stdout().lock();
        let outcome = match &result {
            Ok(value) => {
                stdout.write_all(&render::reply(value, args, self.look))?;
                Outcome::Done
            }
            Err(error) => {
                let line = render::error(error, self.look);
                if render::is_for_stderr(error, self.look.style) {
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
            Some(goal) if matches!(self.look.style, Style::Typed | Style::Raw) => {
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

/// How things are to be shown.
fn look(arguments: &Arguments) -> Look {
    let is_terminal = io::stdout().is_terminal();
    let style = match () {
        () if arguments.json => Style::Json,
        () if arguments.csv => Style::Csv,
        () if arguments.raw => Style::Raw,
        () if arguments.no_raw || is_terminal => Style::Typed,
        () => Style::Raw,
    };
    Look { style, paint: Paint::new(arguments.color, is_terminal) }
}

/// Does what the arguments ask for.
fn run(arguments: Arguments, command: &[Vec<u8>], options: Options) -> io::Result<Outcome> {
    let look = look(&arguments);
    if let Some(prefix) = arguments.watch {
        let watch = Watch { prefix, from: arguments.from, count: arguments.count };
        return watch::run(&options, watch, look);
    }
    let connect_timeout = options.connect_timeout;
    let is_prompt = command.is_empty() && io::stdin().is_terminal();
    let mut session = Session { client: Client::new(options), look, connect_timeout, is_prompt };
    let client = &mut session.client;
    if arguments.stat {
        stat::run(client, arguments.interval, arguments.count, look)
    } else if arguments.latency {
        latency::run(client, command, arguments.count, look)
    } else if arguments.bigkeys {
        bigkeys::run(client, look)
    } else if arguments.pipe {
        pipe::run(client, look)
    } else if !command.is_empty() {
        session.run(command)
    } else if is_prompt {
        prompt::run(&mut session, arguments.history)
    } else {
        // Only an extra: without it fail-over goes to the given endpoints alone.
        let _ = session.client.discover();
        session.run_lines(io::stdin().lock())
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let mut options = Options::new(std::mem::take(&mut arguments.connect));
    options.wire = if arguments.text { Wire::Text } else { Wire::Frames };
    options.reply_timeout = Duration::from_secs(arguments.timeout);
    options.retry_timeout = options.retry_timeout.max(options.reply_timeout);
    let command = std::mem::take(&mut arguments.command);
    let command: Vec<Vec<u8>> = command.into_iter().map(OsString::into_vec).collect();
    let has_mode = arguments.watch.is_some() || arguments.stat || arguments.bigkeys;
    if (has_mode || arguments.pipe) && !command.is_empty() {
        eprintln!("rkv-cli: --watch, --stat, --bigkeys and --pipe take no command; see --help");
        return ExitCode::from(Outcome::BadUsage as u8);
    }
    if let Some(wanted) = save::parse(&command) {
        return run_save(wanted, &options);
    }
    match run(arguments, &command, options) {
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
