//! Reads that wait: for a read index, or for their place in a batch.
//!
//! A held read keeps its arguments, not a reply: it is evaluated when it is released, in one place
//! for leader and follower, so that no reply ever has to be made anew. Called by `gateway.rs` and
//! `reads.rs`.

use std::time::Duration;

use super::Effect;
use super::clients::{Clients, Origin};
use super::latencies::Took;
use super::slowlog::Slowlog;
use crate::kv::command::{Command, Handler, ReadContext};
use crate::kv::scan;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::types::ClusterTime;

/// Reads in arrival order, their arguments in one piece of memory.
#[derive(Default, Debug)]
pub struct HeldReads {
    arena: Vec<u8>,
    reads: Vec<HeldRead>,
}

#[derive(Clone, Copy, Debug)]
struct HeldRead {
    origin: Origin,
    command: &'static Command,
    count: u32,
    start: usize,
    end: usize,
    /// How many commands of its batch come before it.
    position: usize,
}

impl HeldReads {
    /// Holds a read that comes behind `position` commands of its batch.
    pub fn push(
        &mut self,
        origin: Origin,
        command: &'static Command,
        args: Args<'_>,
        position: usize,
    ) {
        let start = self.arena.len();
        self.arena.extend_from_slice(args.encoded());
        let (end, count) = (self.arena.len(), args.len() as u32);
        self.reads.push(HeldRead { origin, command, count, start, end, position });
    }

    /// Bytes of arguments.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Whose they are, in order.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.reads.iter().map(|read| read.origin)
    }

    /// Counts how long it took until they were answered, and notes all of them in the slow log, if
    /// that was long.
    pub fn note_time(
        &self,
        took: Duration,
        at: ClusterTime,
        clients: &mut Clients,
        slowlog: &mut Slowlog,
    ) {
        let bucket = Took::of(took);
        for read in &self.reads {
            slowlog.latencies.count(read.command.code, bucket);
        }
        if !slowlog.is_slow(took) {
            return;
        }
        let passed = slowlog.note_all(at, took, self.reads.len());
        for read in &self.reads[passed..] {
            let args = Args::new(read.count, &self.arena[read.start..read.end]);
            slowlog.note(at, took, read.origin, (read.command, args), clients);
        }
    }

    /// Evaluates and answers the reads from `next` on that come behind at most `position` commands.
    /// Returns the place of the first one that is left.
    pub fn release(
        &self,
        next: usize,
        position: usize,
        context: &ReadContext<'_>,
        clients: &mut Clients,
        effects: &mut Vec<Effect>,
    ) -> usize {
        let mut next = next;
        while let Some(read) = self.reads.get(next)
            && read.position <= position
        {
            let args = Args::new(read.count, &self.arena[read.start..read.end]);
            if clients.awaits(read.origin) {
                answer(read.origin, read.command, context, args, clients, effects);
            }
            next += 1;
        }
        next
    }
}

/// Answers one read command; one that would hold the loop is begun, and answered in a later turn.
pub fn answer(
    origin: Origin,
    command: &Command,
    context: &ReadContext<'_>,
    args: Args<'_>,
    clients: &mut Clients,
    effects: &mut Vec<Effect>,
) {
    clients.listeners.trackers.note_read(origin, command, args);
    let is_long = scan::is_listing(command) && context.store.stored() > limits::KEYS_SLICE;
    let reply = match is_long {
        true => clients.listings.begin(origin, args),
        false => Some(evaluate(command, context, args)),
    };
    if let Some(reply) = reply {
        clients.answer(origin, reply, effects);
    }
}

fn evaluate(command: &Command, context: &ReadContext<'_>, args: Args<'_>) -> Reply {
    match command.handler {
        Handler::Read { run, .. } => run(context, args).unwrap_or_else(|error| error.reply()),
        _ => unreachable!("only reads are held"),
    }
}
