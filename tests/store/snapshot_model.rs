//! Snapshots against a replay of the log: whatever happens while one is taken, it is the state at
//! its index, record by record (design page 3, §3).

use bytes::Bytes;
use proptest::prelude::*;

use raftkv::kv::command;
use raftkv::kv::gateways::Verdict;
use raftkv::kv::in_session::{self, InSession};
use raftkv::kv::loader::Loader;
use raftkv::kv::machine::{SnapshotContext, StateMachine};
use raftkv::limits;
use raftkv::proto::args::{Args, push_arg};
use raftkv::proto::batch::BatchCommand;
use raftkv::proto::entry::{Entry, EntryKind};
use raftkv::proto::message::{BatchId, GatewayId};
use raftkv::proto::snapshot::{SnapshotFault, SnapshotHeader};
use raftkv::types::{
    BatchSeq, Boot, ClusterId, ClusterTime, Incarnation, LogIndex, ServerId, SnapshotId, Term,
};

type Words = Vec<Vec<u8>>;

/// An entry of the log, and what it means.
#[derive(Clone, Debug)]
struct Applied {
    entry: Entry,
    batch: Option<(BatchId, Vec<Words>)>,
}

fn words(text: &[&str]) -> Words {
    text.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn gateway(server: u64) -> GatewayId {
    GatewayId {
        server: ServerId(server),
        incarnation: Incarnation(server * 11),
        admitted: LogIndex(1),
    }
}

/// A log that grows, the machine that applies it, and the snapshot that is being taken of it.
#[derive(Default)]
struct Plot {
    log: Vec<Applied>,
    machine: StateMachine,
    clock_ms: u64,
    next_seq: u64,
    taken: Option<(SnapshotId, Vec<u8>)>,
    finished: usize,
}

impl Plot {
    fn founded() -> Plot {
        let mut plot = Plot::default();
        plot.append(EntryKind::Membership, None);
        plot
    }

    fn append(&mut self, kind: EntryKind, commands: Option<Vec<Words>>) {
        let batch = commands.map(|commands| {
            self.next_seq += 1;
            let seq = BatchSeq(self.next_seq);
            (BatchId { gateway: gateway(1), epoch: Boot(1), seq }, commands)
        });
        let index = self.log.len() as u64 + 1;
        let entry = Entry {
            index: LogIndex(index),
            term: Term(1 + index / 7),
            time: ClusterTime(self.clock_ms),
            kind,
            payload: Bytes::from(
                batch.as_ref().map_or(Vec::new(), |(_, all)| all.concat().concat()),
            ),
        };
        let applied = Applied { entry, batch };
        apply(&mut self.machine, &applied);
        self.log.push(applied);
    }

    fn batch(&mut self, commands: Vec<Words>) {
        self.append(EntryKind::Batch, Some(commands));
    }

    fn begin(&mut self) {
        let mut file = Vec::new();
        let id = self.machine.begin_snapshot(context(), &mut file);
        let last = &self.log.last().expect("founded").entry;
        assert_eq!(id, SnapshotId { index: last.index, term: last.term });
        self.taken = Some((id, file));
    }

    /// One slice; at the end the whole file is compared with a replay.
    fn slice(&mut self, max_bytes: usize) -> bool {
        let (id, file) = self.taken.as_mut().expect("begun");
        let before = self.machine.snapshot_progress().expect("it is being taken");
        assert_eq!((before.id, before.bytes), (*id, file.len() as u64));
        let Some(end) = self.machine.snapshot_slice(max_bytes, file) else {
            let after = self.machine.snapshot_progress().expect("it is still being taken");
            assert_eq!(after.total_records, before.total_records);
            assert!(after.records <= after.total_records && after.bytes == file.len() as u64);
            return false;
        };
        assert_eq!((end.records, end.bytes), (before.total_records, file.len() as u64));
        assert_eq!(self.machine.snapshot_progress(), None);
        self.check();
        true
    }

    fn check(&mut self) {
        let (id, file) = self.taken.take().expect("it was taken just now");
        let mut replayed = StateMachine::default();
        let applied = id.index.0 as usize;
        self.log[..applied].iter().for_each(|applied| apply(&mut replayed, applied));

        // 1. Loaded it is what a replay up to its index gives.
        let (header, mut loaded) = load(&file, 1 + applied * 7919 % 5000);
        assert_eq!((header.id, header.digest), (id, replayed.digest()));
        assert_same(&loaded, &replayed);
        // 2. So is a snapshot of what was loaded, to the byte: dead records and all.
        let second = whole_snapshot(&mut loaded);
        assert_eq!(second, whole_snapshot(&mut replayed));
        assert_same(&load(&second, second.len()).1, &replayed);
        // 3. And it goes on like the machine that never stopped.
        for applied in &self.log[applied..] {
            apply(&mut loaded, applied);
        }
        assert_same(&loaded, &self.machine);
        self.finished += 1;
    }
}

fn context() -> SnapshotContext {
    SnapshotContext {
        cluster: ClusterId(7),
        membership_index: LogIndex(1),
        membership: Bytes::from_static(b"a membership"),
    }
}

fn apply(machine: &mut StateMachine, applied: &Applied) {
    machine.begin(&applied.entry);
    if applied.entry.kind == EntryKind::Membership {
        // Each time another one, so that its row in the table is told from an older one's.
        machine.set_members([gateway(1), gateway(1 + applied.entry.index.0)].into_iter());
    }
    let Some((id, commands)) = &applied.batch else {
        return;
    };
    assert_eq!(machine.admit(*id), Verdict::Apply);
    for words in commands {
        let mut encoded = Vec::new();
        words.iter().for_each(|word| push_arg(&mut encoded, word));
        let args = Args::checked(words.len() as u32, &encoded).expect("just encoded");
        if let Some((mark, args)) = in_session::parse_do(args) {
            let row = command::resolve(args).expect("it is in the table");
            let marked = InSession::new(mark, row, args);
            machine.execute(BatchCommand { code: marked.row().code, args: marked.args() });
            continue;
        }
        let row = command::resolve(args).expect("it is in the table");
        machine.execute(BatchCommand { code: row.code, args });
    }
}

fn load(file: &[u8], piece_bytes: usize) -> (SnapshotHeader, StateMachine) {
    let mut loader = Loader::new();
    file.chunks(piece_bytes).for_each(|piece| loader.feed(piece).expect("just written"));
    loader.finish().expect("whole")
}

fn whole_snapshot(machine: &mut StateMachine) -> Vec<u8> {
    let mut file = Vec::new();
    machine.begin_snapshot(context(), &mut file);
    while machine.snapshot_slice(usize::MAX, &mut file).is_none() {}
    file
}

fn assert_same(one: &StateMachine, other: &StateMachine) {
    assert_eq!((one.last_applied(), one.digest()), (other.last_applied(), other.digest()));
    let figures = |machine: &StateMachine| {
        let store = machine.store();
        let times = (store.clock(), store.next_deadline());
        (times, store.revision(), store.stored(), store.expiring(), store.used_bytes())
    };
    assert_eq!(figures(one), figures(other));
    assert!(one.store().iter_from(b"").eq(other.store().iter_from(b"")));
    assert_eq!(one.store().sessions(), other.store().sessions());
    assert_eq!(one.store().leases(), other.store().leases());
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Words>),
    Pass(u64),
    Membership,
    Begin,
    Slice(usize),
    Abandon,
}

fn command() -> impl Strategy<Value = Words> {
    let key = || (0_u8..14).prop_map(|key| format!("key:{key}"));
    let value = prop_oneof![
        20 => (0_usize..40).prop_map(|length| "v".repeat(length)),
        4 => Just("w".repeat(2000)),
        1 => Just("V".repeat(limits::SNAPSHOT_BLOCK_BYTES + 1)),
    ];
    let ms = || prop::sample::select(vec!["1", "30", "60", "100"]);
    prop_oneof![
        6 => (key(), value).prop_map(|(key, value)| words(&["set", &key, &value])),
        4 => (key(), ms()).prop_map(|(key, ms)| words(&["set", &key, "mortal", "px", ms])),
        4 => (key(), "[a-z]{0,9}").prop_map(|(key, tail)| words(&["append", &key, &tail])),
        4 => (key(), ms()).prop_map(|(key, ms)| words(&["pexpire", &key, ms])),
        1 => key().prop_map(|key| words(&["pexpire", &key, "-1"])),
        2 => key().prop_map(|key| words(&["persist", &key])),
        4 => key().prop_map(|key| words(&["del", &key])),
        2 => key().prop_map(|key| words(&["incr", &key])),
        1 => Just(words(&["flushall"])),
        1 => Just(words(&["session", "open"])),
        // A session has the number of its mutation: some of these meet one.
        4 => (1_u8..12, 1_u8..5, 1_u8..5, key()).prop_map(|(session, number, awaited, key)| {
            let [session, number, awaited] = [session, number, awaited].map(|n| n.to_string());
            words(&["session", "do", &session, &number, &awaited, "append", &key, "s"])
        }),
        1 => (1_u8..12).prop_map(|session| words(&["session", "close", &session.to_string()])),
        2 => (1_u8..4, ms()).prop_map(|(lease, ms)| {
            words(&["lease", "grant", ms, &lease.to_string()])
        }),
        4 => (key(), 1_u8..4).prop_map(|(key, lease)| {
            words(&["set", &key, "leased", "lease", &lease.to_string()])
        }),
        1 => (1_u8..4).prop_map(|lease| words(&["lease", "keepalive", &lease.to_string()])),
        1 => (1_u8..4).prop_map(|lease| words(&["lease", "revoke", &lease.to_string()])),
    ]
}

/// More keys with one deadline than one entry removes, so that dead ones stay stored.
fn crowd() -> Vec<Words> {
    let key = |n| words(&["set", &format!("crowd:{n}"), "", "px", "40"]);
    (0..limits::EXPIRE_KEYS + 20).map(key).collect()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(command(), 0..5).prop_map(Step::Batch),
        1 => Just(Step::Batch(crowd())),
        3 => (0_u64..50).prop_map(Step::Pass),
        1 => Just(Step::Membership),
        4 => Just(Step::Begin),
        9 => prop::sample::select(vec![1, 60, 200, 30_000]).prop_map(Step::Slice),
        1 => Just(Step::Abandon),
    ]
}

fn run(steps: Vec<Step>) -> Plot {
    let mut plot = Plot::founded();
    for step in steps {
        match step {
            Step::Batch(commands) => plot.batch(commands),
            Step::Membership => plot.append(EntryKind::Membership, None),
            Step::Pass(ms) => {
                plot.clock_ms += ms;
                plot.append(EntryKind::Empty, None);
            }
            Step::Begin if plot.taken.is_none() => plot.begin(),
            Step::Slice(max_bytes) if plot.taken.is_some() => {
                plot.slice(max_bytes);
            }
            Step::Abandon => {
                plot.machine.abandon_snapshot();
                plot.taken = None;
            }
            Step::Begin | Step::Slice(_) => {}
        }
    }
    while plot.taken.is_some() {
        plot.slice(100);
    }
    plot
}

proptest! {
    #[test]
    fn snapshot_is_the_state_at_its_index(
        before in prop::collection::vec(step(), 0..30),
        during in prop::collection::vec(step(), 0..60),
    ) {
        let steps = [before, vec![Step::Begin], during].concat();
        run(steps);
    }
}

/// A machine with `count` keys of which the last ones are reached last.
fn filled(count: usize) -> Plot {
    let mut plot = Plot::founded();
    let key = |n| words(&["set", &format!("key:{n:04}"), &format!("value {n}"), "px", "1000"]);
    plot.batch((0..count).map(key).collect());
    plot
}

fn finish(plot: &mut Plot) -> usize {
    (1..).find(|_| plot.slice(64)).expect("a snapshot comes to its end")
}

#[test]
fn snapshot_slice_writes_old_values_once_whatever_happens_to_a_key() {
    let changes: [&[&[&str]]; 9] = [
        &[&["set", "key:0050", "new"]],
        &[&["append", "key:0050", " tail"]],
        &[&["pexpire", "key:0050", "5"]],
        &[&["pexpire", "key:0050", "-5"]],
        &[&["persist", "key:0050"], &["append", "key:0050", "x"], &["del", "key:0050"]],
        &[&["append", "key:0050", "x"], &["set", "key:0050", "new"], &["del", "key:0050"]],
        &[&["del", "key:0050"], &["set", "key:0050", "again"], &["append", "key:0050", "x"]],
        &[&["append", "key:0050", "x"], &["flushall"], &["set", "key:0050", "anew"]],
        &[&["flushall"], &["set", "key:0050", "anew"], &["append", "key:0050", "x"], &["flushall"]],
    ];
    let large = "x".repeat(2000);
    for change in changes {
        // With the cursor before the key, and behind it; with a value that is copied where it
        // stays, and one that isn't.
        for (slices, value) in [(3, "small"), (70, "small"), (3, &large), (70, &large)] {
            let mut plot = filled(100);
            plot.batch(vec![words(&["set", "key:0050", value, "px", "1000"])]);
            plot.begin();
            (0..slices).for_each(|_| assert!(!plot.slice(1)));
            change.iter().for_each(|command| plot.batch(vec![words(command)]));
            finish(&mut plot);
            assert_eq!(plot.finished, 1, "{change:?} after {slices} slices");
        }
    }
}

#[test]
fn snapshot_slice_has_what_expired_meanwhile() {
    let mut plot = filled(100);
    plot.begin();
    (0..10).for_each(|_| assert!(!plot.slice(1)));
    plot.clock_ms += 5000;
    plot.append(EntryKind::Empty, None);
    assert_eq!(plot.machine.store().stored(), 0, "all were removed");
    let backlog = plot.machine.snapshot_progress().expect("it goes on").backlog_bytes;
    assert!(backlog > 90 * 10, "what was not yet written waits: {backlog}");
    finish(&mut plot);
    assert_eq!(plot.finished, 1);
}

#[test]
fn snapshot_slice_keeps_no_copy_of_a_large_value_that_grows_or_gets_a_deadline() {
    let mut plot = Plot::founded();
    let large = "x".repeat(1024 * 1024);
    let key = |n| words(&["set", &format!("key:{n}"), &large]);
    plot.batch((0..8).map(key).collect());
    plot.begin();
    for n in 0..8 {
        plot.batch(vec![words(&["append", &format!("key:{n}"), "tail"])]);
        plot.batch(vec![words(&["pexpire", &format!("key:{n}"), "10"])]);
    }
    let backlog = plot.machine.snapshot_progress().expect("it goes on").backlog_bytes;
    assert_eq!(backlog, 0);
    // What is dropped then waits, but no more than it took before.
    plot.batch(vec![words(&["set", "key:7", "small"])]);
    plot.batch(vec![words(&["del", "key:6"])]);
    let backlog = plot.machine.snapshot_progress().expect("it goes on").backlog_bytes;
    assert!((2 << 20..(2 << 20) + 2000).contains(&backlog), "{backlog}");
    plot.slice(1);
    plot.slice(1);
    let backlog = plot.machine.snapshot_progress().expect("it goes on").backlog_bytes;
    assert_eq!(backlog, 0, "the next slices wrote it first");
    finish(&mut plot);
    assert_eq!(plot.finished, 1);
}

#[test]
fn snapshot_slice_is_bounded_by_bytes_and_by_keys() {
    let mut plot = filled(3 * limits::SNAPSHOT_SLICE_KEYS);
    plot.begin();
    let records = |plot: &Plot| plot.machine.snapshot_progress().map(|progress| progress.records);
    assert!(!plot.slice(usize::MAX));
    assert_eq!(records(&plot), Some(limits::SNAPSHOT_SLICE_KEYS as u64));
    // Changed keys are passed by, but looking at them counts, and so does what left in between.
    let key = |n| words(&["set", &format!("key:{n:04}"), "new"]);
    plot.batch((0..3 * limits::SNAPSHOT_SLICE_KEYS).map(key).collect());
    assert!(!plot.slice(100 * limits::SNAPSHOT_SLICE_KEYS));
    assert_eq!(records(&plot), Some(2 * limits::SNAPSHOT_SLICE_KEYS as u64));
    plot.batch(vec![words(&["flushall"])]);
    assert!(!plot.slice(usize::MAX));
    assert_eq!(records(&plot), Some(3 * limits::SNAPSHOT_SLICE_KEYS as u64));
    assert_eq!(finish(&mut plot), 4, "the cleared store is freed in slices");
}

#[test]
fn snapshot_has_sessions_and_leases_as_they_were_when_it_began() {
    let mut plot = filled(100);
    plot.batch(vec![words(&["session", "open"])]);
    let id = plot.machine.store().revision().0.to_string();
    let session = |number: &str| words(&["session", "do", &id, number, "1", "incr", "counter"]);
    plot.batch(vec![session("1"), words(&["lease", "grant", "500", "9"])]);
    plot.batch(vec![words(&["set", "key:0050", "leased", "lease", "9"])]);
    plot.begin();
    plot.batch(vec![session("2"), session("1"), words(&["session", "close", &id])]);
    plot.batch(vec![words(&["set", "key:0050", "free"]), words(&["lease", "revoke", "9"])]);
    plot.clock_ms += 400;
    plot.append(EntryKind::Empty, None);
    assert!(plot.machine.store().sessions().is_empty());
    finish(&mut plot);
    assert_eq!(plot.finished, 1);
}

#[test]
fn begin_snapshot_of_nothing_is_a_whole_file() {
    let mut machine = StateMachine::default();
    let file = whole_snapshot(&mut machine);
    assert_same(&load(&file, 1).1, &StateMachine::default());
}

#[test]
fn loader_refuses_a_key_that_comes_twice_and_a_file_that_is_cut() {
    use raftkv::proto::snapshot::{BLOCK_HEADER_BYTES, SnapshotRecord};
    use raftkv::proto::snapshot_encoder::SnapshotEncoder;
    use raftkv::types::Revision;

    let mut plot = filled(3);
    let file = whole_snapshot(&mut plot.machine);
    let (header, _) = load(&file, file.len());
    let mut twice = Vec::new();
    let mut encoder = SnapshotEncoder::new(&header, &mut twice);
    let start = encoder.bytes();
    let (key, revision, deadline, is_early) = (b"a", Revision(1), None, false);
    let mut first_bytes = 0;
    for value in [b"1", b"2"] {
        let record = SnapshotRecord { key, value, revision, deadline, is_early };
        encoder.record(record, &mut twice);
        first_bytes = record.encoded_len();
    }
    encoder.finish(&mut twice);
    let error = Loader::new().feed(&twice).expect_err("a key twice");
    let second = start + (BLOCK_HEADER_BYTES + first_bytes) as u64;
    assert_eq!((error.offset, error.fault), (second, SnapshotFault::DuplicateKey));

    // What the decoder doesn't remember for it, the loader knows: a key that came early.
    let mut twice = Vec::new();
    let mut encoder = SnapshotEncoder::new(&header, &mut twice);
    let record = SnapshotRecord { key, value: b"1", revision, deadline, is_early };
    encoder.record(SnapshotRecord { key: b"b", is_early: true, ..record }, &mut twice);
    encoder.record(record, &mut twice);
    encoder.record(SnapshotRecord { key: b"b", ..record }, &mut twice);
    encoder.finish(&mut twice);
    let error = Loader::new().feed(&twice).expect_err("a key twice");
    let third = start + (BLOCK_HEADER_BYTES + 2 * first_bytes) as u64;
    assert_eq!((error.offset, error.fault), (third, SnapshotFault::DuplicateKey));

    let mut loader = Loader::new();
    loader.feed(&file[..file.len() - 1]).expect("so far it is good");
    assert_eq!(loader.finish().expect_err("cut").fault, SnapshotFault::Cut);
}

#[test]
fn digest_tells_entries_results_and_orders_apart() {
    let digest = |commands: &[&[&str]]| {
        let mut plot = Plot::founded();
        commands.iter().for_each(|command| plot.batch(vec![words(command)]));
        plot.machine.digest()
    };
    let digests = [
        digest(&[]),
        digest(&[&["set", "a", "1"]]),
        digest(&[&["set", "a", "12"]]),
        digest(&[&["set", "a", "1"], &["del", "a"]]),
        digest(&[&["del", "a"], &["set", "a", "1"]]),
        digest(&[&["set", "a", "1"], &["flushall"]]),
    ];
    for (at, digest) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(digest), "{digests:x?}");
    }
}
