//! Commands that are answered again and again: MONITOR, SUBSCRIBE, PSUBSCRIBE, KWATCH.
//!
//! Each runs on a connection of its own, in plain RESP2, where messages come as replies do, until
//! the node closes it, or Ctrl-C. `watch` is the kind that goes on elsewhere. Called by `main`.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raftkv::client::{Connection, LinkError, Wire};
use raftkv::proto::reply_decoder::Value;
use signal_hook::consts::SIGINT;
use signal_hook::{flag, low_level};

use super::Outcome;
use super::render::{self, Look, Style};

/// How soon Ctrl-C is noticed at a prompt.
const INTERVAL: Duration = Duration::from_millis(100);

/// Whether the command is one of these.
pub fn is_one(args: &[Vec<u8>]) -> bool {
    let names = ["MONITOR", "SUBSCRIBE", "PSUBSCRIBE", "KWATCH"];
    let name = args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    names.iter().any(|known| name == known.as_bytes())
}

/// Shows what comes, until it ends. `is_prompt`: Ctrl-C ends this and not the program.
pub fn run(
    endpoint: &str,
    timeout: Duration,
    args: &[Vec<u8>],
    look: Look,
    is_prompt: bool,
) -> io::Result<Outcome> {
    let mut connection = match Connection::open(endpoint, Wire::Text, timeout) {
        Ok(connection) => connection,
        Err(error) => return fail(endpoint, &error),
    };
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let handler = match is_prompt {
        true => Some(flag::register(SIGINT, Arc::clone(&is_interrupted))?),
        false => None,
    };
    if look.style == Style::Typed {
        writeln!(io::stderr(), "Reading messages... (Ctrl-C to end)")?;
    }
    connection.queue(args);
    let sent = connection.flush(Instant::now() + timeout);
    let ended = sent.map_or_else(
        |error| fail(endpoint, &error),
        |()| read(&mut connection, endpoint, args, look, &is_interrupted),
    );
    if let Some(handler) = handler {
        low_level::unregister(handler);
    }
    ended
}

fn read(
    connection: &mut Connection,
    endpoint: &str,
    args: &[Vec<u8>],
    look: Look,
    is_interrupted: &AtomicBool,
) -> io::Result<Outcome> {
    let mut stdout = io::stdout();
    while !is_interrupted.load(Ordering::Relaxed) {
        match connection.receive(Instant::now() + INTERVAL) {
            Ok(value) => {
                stdout.write_all(&render::reply(&value, args, look))?;
                stdout.flush()?;
                if matches!(value, Value::Error(_)) {
                    return Ok(Outcome::Failed);
                }
            }
            Err(LinkError::TimedOut) => {}
            Err(error) => return fail(endpoint, &error),
        }
    }
    Ok(Outcome::Done)
}

fn fail(endpoint: &str, error: &LinkError) -> io::Result<Outcome> {
    writeln!(io::stderr(), "rkv-cli: {endpoint}: {error}")?;
    Ok(Outcome::Failed)
}
