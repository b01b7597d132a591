//! A node: recover, bind, serve, end.
//!
//! Called by `main`. The only place that draws a random seed and that says how a failed assertion
//! ends the process: it prints and exits, so that nothing is acknowledged after it.

use std::process::ExitCode;

use log::{info, warn};
use rand::TryRng as _;
use rand::rngs::SysRng;
use rustix::process::set_parent_process_death_signal;
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, getrlimit, setrlimit};

use raftkv::config::Config;
use raftkv::event_loop::{Clock, Ended, Listeners, LoopError, Server};
use raftkv::limits;
use raftkv::node::Node;
use raftkv::storage::{Storage, allocator};

use super::arguments::Arguments;
use super::{FAULT, USAGE, configuration, fail, journal, storage_options};

/// Runs a node until it is asked to end.
pub fn run(arguments: &Arguments) -> ExitCode {
    let overrides = arguments.node.overrides();
    let mut config = match configuration(arguments.node.config.as_deref(), &overrides) {
        Ok(config) => config,
        Err(problem) => return fail(USAGE, &problem),
    };
    if let Err(problem) = journal::start(&config) {
        return fail(FAULT, &problem);
    }
    exit_on_panic(config.log.file.is_some());
    allocator::keep_freed();
    if let Some(parent) = arguments.end_with_parent
        && !end_with(parent)
    {
        return fail(FAULT, "the parent has ended already");
    }
    config.limits.max_clients = allow_clients(config.limits.max_clients);
    info!("raftkvd {} begins, process {}", env!("CARGO_PKG_VERSION"), std::process::id());
    // An old copy is set aside by the start behind it, which is not one: it has another incarnation.
    let ended = loop {
        match serve(&config) {
            Ok(Ended::OldCopy) => info!("starts over, to set the old copy aside"),
            ended => break ended,
        }
    };
    match ended {
        Ok(_) => {
            info!("ended");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            log::error!("{problem}");
            if config.log.file.is_some() {
                eprintln!("raftkvd: {problem}");
            }
            ExitCode::from(FAULT)
        }
    }
}

/// Binds, so that nothing is touched where that fails; recovers; turns until the end.
fn serve(config: &Config) -> Result<Ended, String> {
    let listeners = Listeners::bind(config).map_err(|error| loop_fault(config, &error))?;
    let opened = Storage::open(&storage_options(config)).map_err(|error| error.to_string())?;
    let (storage, recovered) = opened;
    let seed = SysRng.try_next_u64().map_err(|error| format!("no randomness: {error}"))?;
    let clock = Clock::start();
    let node = Node::recover(config, recovered, seed, clock.now());
    let server = Server::new(config, clock, node, storage, listeners);
    let ended = server.and_then(Server::run);
    ended.map_err(|error| loop_fault(config, &error))
}

/// One line; an address that cannot be bound is named with the key that gives it.
fn loop_fault(config: &Config, error: &LoopError) -> String {
    let keys = [config.client_listen(), config.peer_listen()];
    if let LoopError::Bind { address, .. } = error
        && let Some((_, key)) = keys.iter().find(|(configured, _)| configured == address)
    {
        return format!("{key}: {error}");
    }
    error.to_string()
}

/// A failed assertion ends the process at once: whatever it would have done next would rest on a
/// state that cannot be.
fn exit_on_panic(log_too: bool) {
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        eprintln!("raftkvd: {panic}\n{backtrace}");
        if log_too {
            log::error!("{panic}");
        }
        std::process::exit(i32::from(FAULT));
    }));
}

/// Asks the kernel to end this process when its parent does. False if the parent is gone already.
fn end_with(parent: i32) -> bool {
    let asked = set_parent_process_death_signal(Some(Signal::TERM));
    // Asked first, looked second: a parent that ended in between is seen here.
    asked.is_ok() && getppid().map(Pid::as_raw_pid) == Some(parent)
}

/// Raises the limit on open files to what the clients need, as far as the system allows, and
/// returns how many clients it then has room for. Taking more would one day leave no descriptor
/// for the log's next segment, which ends the process.
fn allow_clients(max_clients: usize) -> usize {
    let needed = max_clients as u64 + limits::SPARE_DESCRIPTORS;
    let current = getrlimit(Resource::Nofile);
    let Some(allowed) = current.current.filter(|allowed| *allowed < needed) else {
        return max_clients;
    };
    let raised = current.maximum.map_or(needed, |maximum| maximum.min(needed));
    let wanted = Rlimit { current: Some(raised), maximum: current.maximum };
    let allowed = if setrlimit(Resource::Nofile, wanted).is_ok() { raised } else { allowed };
    if allowed == needed {
        return max_clients;
    }
    // Where there are hardly any, half of them are for the node itself.
    let spare = limits::SPARE_DESCRIPTORS.min(allowed / 2);
    let room = usize::try_from(allowed - spare).unwrap_or(usize::MAX).min(max_clients);
    warn!(
        "limits.max_clients is {max_clients}, but the system allows this process {allowed} open \
         files, and {needed} are needed: {room} clients are taken; raise ulimit -n"
    );
    room
}
