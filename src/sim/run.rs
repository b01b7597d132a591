//! One run from beginning to end: faults, then healing, then *convergence*; and what came of it.
//!
//! A failed assertion anywhere (a checker's, or the node's own) ends the run as a [`Failure`]. Called
//! by `rkv-sim` and tests.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

use super::clients::{Client, Words, shared_keys};
use super::minorities;
use super::script::{Kind, Script};
use super::story::Story;
use super::swarm;
use super::transactions::transaction_keys;
use super::watchers::Watcher;
use super::world::{BEGIN, World};
use crate::proto::reply_decoder::Value;
use crate::types::{LogIndex, ServerId};

/// By how much a snapshot on a slow path may put off *convergence*: so many times its usual time.
const LONGEST_CONVERGENCE: u32 = 8;

/// What strikes besides the faults of a script: by chance all the time, or as their consequence.
pub const STRIKES: &[&str] = &[
    "asked-again-in-session",
    "blocked-turn",
    "clean-stop",
    "client-cut-off",
    "client-gives-up",
    "clock-skew",
    "connection-given-up",
    "copied-frame",
    "crash-in-disk-operation",
    "crash-in-start",
    "deaf-client",
    "dripping-client",
    "fail-stop",
    "failed-start",
    "frame-hours-late",
    "half-frame",
    "half-open-client",
    "hello-late",
    "hello-lost",
    "hello-twice",
    "inline-client",
    "killed-before-write",
    "killed-behind-applying",
    "leader-deaf",
    "longer-tail-kept",
    "lost-frame",
    "lost-segment",
    "mail-for-another",
    "minority-apart",
    "minority-deaf",
    "minority-deaf-to-leader",
    "minority-down",
    "minority-flapping",
    "minority-hung",
    "minority-mute",
    "minority-pausing",
    "minority-restarting",
    "misrouted-dial",
    "name-without-space",
    "nonsense-from-client",
    "nonsense-from-peer",
    "old-copy-starts-over",
    "outdated-stop",
    "peer-overflow",
    "peer-read-in-parts",
    "refused-start",
    "repeated-command",
    "request-done",
    "request-refused",
    "request-repeated",
    "resp3-client",
    "short-read",
    "short-write",
    "slowed-segment",
    "set-aside",
    "snapshot-done-without",
    "snapshot-received",
    "snapshot-taken",
    "snapshot-without-space",
    "snapshot-written",
    "stands-still-in-turn",
    "torn-write",
    "transaction-discarded",
    "transaction-executed",
    "unsynced-name-lost",
    "unsynced-sector-lost",
    "watch-compacted",
    "watch-resumed",
    "write-in-part",
    "zeros-failed",
];

/// Of so many seeds one is run twice: *reproducible*.
const REPRODUCED: u64 = 50;

/// What a good run has shown.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// A digest of everything that happened: the same wherever the same script runs.
    pub trace_hash: u64,
    /// How often which fault struck.
    pub strikes: BTreeMap<&'static str, u64>,
    /// Virtual time, without the hours in which everybody slept.
    pub simulated: Duration,
    /// Commands that were answered.
    pub answered: u64,
    /// Commands that were surely not done.
    pub refused: u64,
    /// Commands that nobody knows the end of.
    pub in_doubt: u64,
    /// Entries that were committed.
    pub committed: u64,
}

/// The invariants of design page 5, in its order, by the names that assertions begin with.
pub const INVARIANTS: &[&str] = &[
    "election-safety",
    "log-matching",
    "leader-completeness",
    "state-machine-safety",
    "durable-before-ack",
    "linearizable",
    "exactly-once",
    "hard-state",
    "monotone",
    "bounded",
    "fail-stop",
    "convergence",
    "reproducible",
    "one-change",
    "known-commands",
    "watch-lossless",
];

/// What a bad run has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What does not hold: one of [`INVARIANTS`]; `undecided` for a history that the checker could
    /// not decide; the place in the source for any other assertion, the node's own among them.
    pub invariant: String,
    /// The assertion, its invariant's name first.
    pub what: String,
    /// Where it stands in the source.
    pub at: String,
}

impl Failure {
    /// What a panic with the words `what` at `at` shows.
    pub(super) fn new(what: &str, at: String) -> Failure {
        let said = what
            .strip_prefix("assertion `left == right` failed: ")
            .or_else(|| what.strip_prefix("assertion `left != right` failed: "))
            .unwrap_or(what);
        let (name, rest) = said.split_once(": ").unwrap_or((said, ""));
        let invariant = match name {
            "linearizable" if rest.starts_with("undecided") => "undecided",
            name if INVARIANTS.contains(&name) => name,
            _ => at.as_str(),
        };
        Failure { invariant: invariant.to_owned(), what: what.to_owned(), at }
    }
}

thread_local! {
    /// Where this thread's last panic was, while it runs a script.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs what a seed stands for.
///
/// # Errors
/// An invariant does not hold.
pub fn run_seed(seed: u64) -> Result<Outcome, Failure> {
    let script = swarm::script(seed);
    let outcome = run(&script)?;
    if seed.is_multiple_of(REPRODUCED) {
        let again = run(&script)?;
        let (first, second) = (outcome.trace_hash, again.trace_hash);
        if first != second {
            let what = format!("reproducible: trace {first:016x}, then {second:016x}");
            return Err(Failure::new(&what, format!("seed {seed}")));
        }
    }
    Ok(outcome)
}

/// Runs a script.
///
/// # Errors
/// An invariant does not hold.
pub fn run(script: &Script) -> Result<Outcome, Failure> {
    attempt(script, false).0
}

/// Runs a script and tells its story.
pub fn tell(script: &Script) -> (Result<Outcome, Failure>, Story) {
    attempt(script, true)
}

fn attempt(script: &Script, tells: bool) -> (Result<Outcome, Failure>, Story) {
    hush();
    PANICKED_AT.set(Some(String::new()));
    let mut world = None;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(script, tells));
        live(world);
    }));
    let at = PANICKED_AT.take().unwrap_or_default();
    let story = world.as_mut().map(|world| std::mem::take(&mut world.story)).unwrap_or_default();
    let outcome = match (result, &world) {
        (Ok(()), Some(world)) => Ok(outcome(world)),
        (Ok(()), None) => unreachable!("a world that lived is there"),
        (Err(payload), _) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            Err(Failure::new(text.unwrap_or("a panic without words"), at))
        }
    };
    // What a failed assertion has left behind may not be fit to be taken apart.
    if outcome.is_err() {
        std::mem::forget(world);
    }
    (outcome, story)
}

/// A panic of a run is its result, and not for the terminal.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_ours = PANICKED_AT.with_borrow_mut(|at| match at {
                Some(at) => {
                    *at = info.location().map(ToString::to_string).unwrap_or_default();
                    true
                }
                None => false,
            });
            if !is_ours {
                usual(info);
            }
        }));
    });
}

fn outcome(world: &World) -> Outcome {
    let mut strikes = world.strikes.clone();
    let mut count = |name, times| *strikes.entry(name).or_default() += times;
    count("lost-segment", world.network.lost_segments);
    count("half-frame", world.network.half_frames);
    count("slowed-segment", world.network.slowed);
    count("transaction-executed", world.recorder.executed);
    count("transaction-discarded", world.recorder.discarded);
    for server in world.servers.values() {
        server.disk.with(|state| {
            count("disk-full", u64::from(state.struck_full));
            count("disk-error", u64::from(state.struck_errors));
            count("read-error", u64::from(state.struck_reads));
            count("short-read", u64::from(state.struck_short));
            count("zeros-failed", u64::from(state.struck_zeros));
            count("name-without-space", u64::from(state.struck_names));
            count("write-in-part", u64::from(state.media.in_part));
            count("longer-tail-kept", u64::from(state.media.longer_tails));
            count("blocked-turn", u64::from(state.struck_blocks));
        });
    }
    Outcome {
        trace_hash: world.trace_hash(),
        strikes,
        simulated: world.now.since(BEGIN).saturating_sub(world.slept),
        answered: world.recorder.answered,
        refused: world.recorder.refused,
        in_doubt: world.recorder.in_doubt,
        committed: world.checkers.committed(),
    }
}

fn live(world: &mut World) {
    let settings = world.script.settings.clone();
    let suspended: u64 = world
        .script
        .faults
        .iter()
        .filter(|fault| fault.kind == Kind::Suspend)
        .map(|fault| fault.b * 60_000)
        .sum();
    // 1. Faults strike.
    world.run_for(Duration::from_millis(settings.chaos_ms + suspended));
    let mut patience_ms = 30 * settings.election_max_ms + 2 * settings.request_timeout_ms + 10_000;
    // 2. A majority heals, in some seeds; then everything does: those who are left agree, and every
    // client has its answer.
    if settings.half_healed > 0 {
        minorities::heal_a_majority(world, Duration::from_millis(patience_ms));
    }
    world.heal();
    if world.changes_members || settings.repair > 0 {
        // A change takes an entry or two, an operator asks again, and each waits for the others.
        patience_ms += 10_000;
        if world.correct_addresses() {
            // What was asked before machines were moved back may yet be done. Who is to be readmitted
            // can't be found before that is put right.
            world.is_relocating = true;
            world.run_for(Duration::from_millis(settings.request_timeout_ms));
            converge(world, Duration::from_millis(patience_ms));
            world.is_relocating = false;
            world.correct_addresses();
        }
    }
    converge(world, Duration::from_millis(patience_ms));
    if settings.half_healed > 0 {
        minorities::half_deafen(world, Duration::from_millis(patience_ms));
        converge(world, Duration::from_millis(patience_ms));
    }
    if settings.repair > 0 {
        world.repair();
        converge(world, Duration::from_millis(patience_ms));
    }
    // 3. Every sound server still takes a write and tells everything that was written.
    let ids: Vec<ServerId> = world.sound();
    for id in ids {
        read_back(world, id, Duration::from_millis(patience_ms));
    }
    converge(world, Duration::from_millis(patience_ms));
    hear_out(world, Duration::from_millis(patience_ms));
    // 4. No client was told anything that one server without faults would not have said.
    world.recorder.check_linearizable();
}

/// Everyone has to agree within `patience`; a snapshot that is under way may take as long again and
/// again, as long as more and more of it arrives, but no more than [`LONGEST_CONVERGENCE`] says.
fn converge(world: &mut World, patience: Duration) {
    let mut deadline = world.now.after(patience);
    let end = world.now.after(patience * LONGEST_CONVERGENCE);
    let mut received = BTreeMap::new();
    let late = world.now.after(patience / 2);
    let mut has_looked = !world.changes_members;
    while !has_converged(world) {
        if world.now >= late && !has_looked {
            has_looked = true;
            world.begin_afresh();
        }
        let states: Vec<_> =
            world.ids().iter().map(|id| world.node(*id).map(|node| node.status())).collect();
        let waiting = world.clients.iter().filter(|client| client.is_waiting()).count();
        let why = world.is_unsettled().filter(|_| world.changes_members).unwrap_or_default();
        assert!(
            world.now < deadline,
            "convergence: not within {patience:?}, {waiting} clients wait, {why}: {states:#?}"
        );
        for (server, snapshot, bytes) in states.iter().flatten().filter_map(|one| {
            one.receiving.map(|(snapshot, bytes, _)| (one.server, snapshot, bytes))
        }) {
            let before = received.insert((server, snapshot), bytes);
            if before < Some(bytes) {
                deadline = world.now.after(patience).min(end).max(deadline);
            }
        }
        world.run_for(Duration::from_millis(5));
    }
}

/// Every watcher has to be told everything within `patience`.
fn hear_out(world: &mut World, patience: Duration) {
    let deadline = world.now.after(patience);
    loop {
        let mut told = world.watchers.iter().map(Watcher::told);
        let lacks = told.find(|(prefix, told)| !world.checkers.has_heard_all(prefix, *told));
        let Some((prefix, told)) = lacks else {
            return;
        };
        assert!(
            world.now < deadline,
            "convergence: a watcher of '{}' knows only what was up to {told:?}",
            prefix.escape_ascii()
        );
        world.run_for(Duration::from_millis(5));
    }
}

fn has_converged(world: &World) -> bool {
    let Some(leader) = world.leader().and_then(|id| world.node(id)) else {
        return false;
    };
    let last = leader.status().last_log_index;
    let has_all = |id: &ServerId| {
        world.node(*id).is_some_and(|node| {
            let status = node.status();
            status.last_applied == last && status.last_log_index == last && last > LogIndex::ZERO
        })
    };
    world.sound().iter().all(has_all)
        && world.clients.iter().all(|client| !client.is_waiting())
        && (!world.changes_members || world.is_unsettled().is_none())
}

/// A new client writes to and reads everything from one server.
fn read_back(world: &mut World, id: ServerId, patience: Duration) {
    let settings = world.script.settings.clone();
    let mut commands: Vec<Words> = vec![vec![b"INCR".to_vec(), b"probe".to_vec()]];
    commands.push(vec![b"GET".to_vec(), b"journal".to_vec()]);
    let keys = shared_keys(&settings).into_iter().chain(transaction_keys(&settings));
    let keys = keys.chain(world.recorder.promised_keys());
    commands.extend(keys.map(|key| vec![b"GET".to_vec(), key]));
    let replies = ask(world, id, &commands, patience, &mut |_| {});
    match &replies[..] {
        [Value::Integer(_), Value::Bulk(journal), ..] => world.recorder.check_journal(journal),
        [Value::Integer(_), Value::Nil, ..] => world.recorder.check_journal(b""),
        other => panic!("convergence: n{id} answers {other:?}"),
    }
}

/// A new client gets a write through by way of one server; `meanwhile` is called again and again
/// until it has.
pub(super) fn write_through(
    world: &mut World,
    id: ServerId,
    patience: Duration,
    meanwhile: &mut impl FnMut(&mut World),
) {
    let command: Words = vec![b"INCR".to_vec(), b"probe".to_vec()];
    let replies = ask(world, id, &[command], patience, meanwhile);
    assert!(matches!(replies[..], [Value::Integer(_)]), "convergence: n{id} answers {replies:?}");
}

/// What a new client is answered by one server, that it may ask again and again.
fn ask(
    world: &mut World,
    id: ServerId,
    commands: &[Words],
    patience: Duration,
    meanwhile: &mut impl FnMut(&mut World),
) -> Vec<Value> {
    let settings = world.script.settings.clone();
    let random = world.random.clone();
    let number = world.clients.len();
    world.clients.push(Client::new(number, random, &settings));
    let deadline = world.now.after(patience);
    let mut replies = Vec::new();
    // The connection may break once more: a server that was asked to stop before may stop now; a
    // disk that was full is asked only once a second whether it still is; and a link that was cut
    // off is taken for dead only after seconds, which may be more than the server waits.
    while replies.len() < commands.len() || replies.iter().any(is_to_be_asked_again) {
        world.recorder.keep_replies();
        world.client_sends_commands(number, id, commands);
        while world.clients[number].is_waiting() {
            assert!(world.now < deadline, "convergence: n{id} does not answer");
            meanwhile(world);
            world.run_for(Duration::from_millis(1));
        }
        assert!(world.now < deadline, "convergence: n{id} takes no connection");
        replies = world.recorder.take_replies(world.clients[number].connection);
        world.run_for(Duration::from_millis(1));
    }
    replies
}

fn is_to_be_asked_again(reply: &Value) -> bool {
    let Value::Error(text) = reply else {
        return false;
    };
    ["MISCONF", "CLUSTERDOWN", "INDOUBT", "LOADING"].iter().any(|code| text.starts_with(code))
}
