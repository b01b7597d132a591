//! `--pipe`: commands from a pipe, many ahead of their replies: for loading much at once.
//!
//! Takes what a node's client port takes, RESP arrays and inline lines, and only counts the replies.
//! Where a connection breaks, what may have been done is counted as in doubt and not sent again, and
//! what surely was not sent goes on with the next node. Called by `main`. Holds a few MiB.

use std::io::{self, IsTerminal, Read, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use raftkv::client::{Client, ClientError};
use raftkv::proto::args::Args;
use raftkv::proto::reply::Reply;
use raftkv::proto::resp::{Decoded, ProtocolError, RequestDecoder};
use rustix::fs::fstat;
use serde_json::json;

use super::Outcome;
use super::render::{Look, Style};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;
/// Commands that are sent in one go, and bytes of them: the client parts them further.
const CHUNK_COMMANDS: usize = 10_000;
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// How many errors are shown as they come; all are counted.
const SHOWN: u64 = 10;

type Command = Vec<Vec<u8>>;

/// What came of the commands.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    replies: u64,
    errors: u64,
    in_doubt: u64,
    not_sent: u64,
}

impl Tally {
    fn text(self, style: Style) -> String {
        let Tally { replies, errors, in_doubt, not_sent } = self;
        match style {
            Style::Json => {
                let object = json!({
                    "replies": replies, "errors": errors, "in_doubt": in_doubt,
                    "not_sent": not_sent,
                });
                format!("{object}\n")
            }
            Style::Csv => format!(
                "\"replies\",\"errors\",\"in_doubt\",\"not_sent\"\r\n\
                 {replies},{errors},{in_doubt},{not_sent}\r\n"
            ),
            Style::Typed | Style::Raw => {
                let mut text = format!("replies: {replies}, errors: {errors}");
                for (count, what) in [(in_doubt, "in doubt"), (not_sent, "not sent")] {
                    if count > 0 {
                        text += &format!(", {what}: {count}");
                    }
                }
                text + "\n"
            }
        }
    }
}

/// Sends all that comes from the pipe; an error of the replies shows in the exit code.
pub fn run(client: &mut Client, look: Look) -> io::Result<Outcome> {
    // Only an extra: without it fail-over goes to the given endpoints alone.
    let _ = client.discover();
    let mut load = Load {
        client,
        waiting: Vec::new(),
        waiting_bytes: 0,
        tally: Tally::default(),
        is_over: false,
        bar: progress(),
    };
    let ended = load.read(&mut io::stdin().lock())?;
    let mut stdout = io::stdout();
    if let Some(bar) = &load.bar {
        bar.finish_and_clear();
    }
    let tally = load.tally;
    stdout.write_all(tally.text(look.style).as_bytes())?;
    stdout.flush()?;
    if let Err(problem) = ended {
        writeln!(io::stderr(), "rkv-cli: {problem}")?;
        return Ok(Outcome::BadUsage);
    }
    let is_well = tally.errors + tally.in_doubt + tally.not_sent == 0;
    Ok(if is_well { Outcome::Done } else { Outcome::Failed })
}

struct Load<'a> {
    client: &'a mut Client,
    waiting: Vec<Command>,
    waiting_bytes: usize,
    tally: Tally,
    /// No node could be reached any more: nothing further is read.
    is_over: bool,
    bar: Option<ProgressBar>,
}

impl Load<'_> {
    /// Reads to the end. What is wrong with the input is told once all before it was sent.
    fn read(&mut self, input: &mut impl Read) -> io::Result<Result<(), String>> {
        let mut decoder = RequestDecoder::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut total = 0;
        // Whether the input ends where a command ends.
        let mut is_whole = true;
        loop {
            let count = input.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            if self.is_over {
                return Ok(Ok(()));
            }
            total += count as u64;
            if let Err(problem) = self.take(&mut decoder, &buffer[..count], &mut is_whole)? {
                self.send()?;
                return Ok(Err(problem));
            }
            if let Some(bar) = &self.bar {
                bar.set_position(total);
            }
        }
        if !is_whole {
            // The last line may have no end.
            let ended = self.take(&mut decoder, b"\n", &mut is_whole)?;
            self.send()?;
            let is_cut = || Err("the input ends within a command".to_owned());
            return Ok(ended.and_then(|()| if is_whole { Ok(()) } else { is_cut() }));
        }
        self.send()?;
        Ok(Ok(()))
    }

    fn take(
        &mut self,
        decoder: &mut RequestDecoder,
        mut input: &[u8],
        is_whole: &mut bool,
    ) -> io::Result<Result<(), String>> {
        let mut encoded = Vec::new();
        loop {
            encoded.clear();
            let (used, decoded) = decoder.decode(input, &mut encoded);
            *is_whole &= input[..used].trim_ascii().is_empty();
            input = &input[used..];
            match decoded {
                Decoded::Incomplete => return Ok(Ok(())),
                Decoded::Command { count } => {
                    *is_whole = true;
                    let args = Args::new(count, &encoded);
                    self.waiting.push(args.iter().map(<[u8]>::to_vec).collect());
                    self.waiting_bytes += encoded.len();
                    let is_much = self.waiting.len() >= CHUNK_COMMANDS;
                    if is_much || self.waiting_bytes >= CHUNK_BYTES {
                        self.send()?;
                    }
                }
                Decoded::Refused(_) => {
                    *is_whole = true;
                    self.note_error("a command is too large")?;
                }
                Decoded::Closed(error) => return Ok(Err(problem(error))),
            }
        }
    }

    /// Sends what waits, and counts what comes of it.
    fn send(&mut self) -> io::Result<()> {
        self.waiting_bytes = 0;
        while !self.waiting.is_empty() {
            let commands = std::mem::take(&mut self.waiting);
            let results = self.client.pipeline(&commands);
            for (command, result) in commands.into_iter().zip(results) {
                match result {
                    Ok(_) => self.tally.replies += 1,
                    Err(ClientError::Reply(reply)) => {
                        self.tally.replies += 1;
                        self.note_error(&reply.text)?;
                    }
                    Err(error @ ClientError::InDoubt(_)) => {
                        self.tally.in_doubt += 1;
                        self.show(&error.to_string(), self.tally.in_doubt)?;
                    }
                    Err(ClientError::NotSent) if !self.is_over => self.waiting.push(command),
                    Err(ClientError::NotSent) => self.tally.not_sent += 1,
                    Err(error @ ClientError::Unreachable { .. }) => {
                        self.is_over = true;
                        self.tally.not_sent += 1;
                        self.show(&error.to_string(), 1)?;
                    }
                    Err(error) => self.note_error(&error.to_string())?,
                }
            }
        }
        Ok(())
    }

    fn note_error(&mut self, text: &str) -> io::Result<()> {
        self.tally.errors += 1;
        self.show(text, self.tally.errors)
    }

    /// Shows one of the first of its kind.
    fn show(&self, text: &str, number: u64) -> io::Result<()> {
        match number {
            ..=SHOWN => writeln!(io::stderr(), "{text}"),
            _ => Ok(()),
        }
    }
}

fn problem(error: ProtocolError) -> String {
    let text = match error.reply() {
        Some(Reply::Error(text)) => text,
        _ => "ERR it is neither RESP nor text".into(),
    };
    format!("the input is no list of commands: {text}")
}

/// A bar where somebody looks on: of the file's length where it is a file.
fn progress() -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let length = fstat(io::stdin()).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
    let length = length.filter(|length| *length > 0);
    let template = match length {
        Some(_) => "[{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go",
        None => "{spinner} {bytes}, {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    Some(bar.with_style(style.expect("the template is a constant, and a good one")))
}
