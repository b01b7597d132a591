//! The same load through the Rust client: every connection is a client with a session of its own.
//!
//! Called by `load`, with --sessions. Each connection is a thread that sends a batch, waits for its
//! replies and sends the next, as the client does it: a write whose reply is lost is sent again under
//! its number, to the next node. What was sent more than once is counted beside the errors, of which
//! there are none unless no node answers for long. The counting is that of `worker`.

use std::io;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use raftkv::client::{Client, ClientError, Options};
use raftkv::proto::reply_decoder::{ReplyDecoder, Value};

use crate::report::{Report, Second};
use crate::tally::{Batch, Tally};
use crate::worker::Plan;
use crate::workload::Commands;

/// How long a client goes on with what was surely not done, or may be sent again.
const RETRY: Duration = Duration::from_secs(20);

/// Runs connection `number` of `connections`; each second's results go to `seconds`.
///
/// # Errors
/// None: what happens to connections is counted.
pub fn run(
    plan: &Plan,
    number: usize,
    connections: usize,
    seconds: &Sender<Second>,
) -> io::Result<Report> {
    let mut endpoints: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
    endpoints.rotate_left(number % plan.addresses.len());
    let mut options = Options::new(endpoints);
    options.retry_timeout = RETRY;
    let mut client = Client::new(options);
    let mut commands = Commands::new(&plan.workload, number);
    let mut tally = Tally::new(plan, number, connections, seconds);
    while let Some(batch) = tally.take_batch(Instant::now()) {
        let before = client.retries();
        let words: Vec<_> = (0..batch.count).map(|_| next(&mut commands)).collect();
        let results = match &words[..] {
            [words] => vec![client.command(words)],
            words => client.pipeline(words),
        };
        for result in results {
            count(&mut tally, &mut commands, batch, result);
        }
        if batch.is_measured {
            tally.retried(client.retries() - before);
        }
        tally.end_second_if_over(Instant::now());
    }
    Ok(tally.finish())
}

/// The next command's words.
fn next(commands: &mut Commands) -> Vec<Vec<u8>> {
    let mut encoded = Vec::new();
    commands.push_next(&mut encoded);
    let Ok(Some(Value::Array(words))) = ReplyDecoder::new().decode(&mut &encoded[..]) else {
        unreachable!("a command is an array of bulks");
    };
    let bytes = |word| match word {
        Value::Bulk(bytes) => bytes,
        _ => unreachable!("a command's words are bulks"),
    };
    words.into_iter().map(bytes).collect()
}

fn count(
    tally: &mut Tally,
    commands: &mut Commands,
    batch: Batch,
    result: Result<Value, ClientError>,
) {
    let error = match result {
        Ok(reply) => commands.error_of(&reply),
        Err(ClientError::Reply(reply)) => commands.error_of(&Value::Error(reply.text)),
        Err(error) => {
            commands.forget();
            Some(word_of(&error).to_owned())
        }
    };
    tally.replied(batch, Instant::now(), error.as_deref());
}

/// The word under which a command without a reply counts.
fn word_of(error: &ClientError) -> &'static str {
    match error {
        ClientError::InDoubt(_) => "INDOUBT",
        ClientError::Unreachable { .. } => "unreachable",
        _ => "not-sent",
    }
}
