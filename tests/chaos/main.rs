//! Real nodes in network namespaces, killed, paused and cut off in one direction, under clients
//! that go wherever they are served: nothing acknowledged is lost, nothing is done twice, and what
//! all of them were told together is linearizable, by the checker that judges the simulator too.
//!
//! Needs root, `ip` and `nft`. `RAFTKV_CHAOS_SECONDS` is how long each test breaks things,
//! `RAFTKV_CHAOS_SEED` what it draws from; the times are the machine's, so a seed gives the same
//! draws and not the same run. `soak` takes minutes, and runs when asked for.

#[allow(dead_code, reason = "the other half is for `cluster`")]
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod gauge;
mod network;
mod operator;
mod registers;
mod soak;
mod verdict;
mod workload;

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use common::{Client, Cluster, Options, Reply, eventually, skip};
use faults::Faults;
use network::{Cut, Network, Side};
use workload::{Asked, Outcome, Story, Workload};

const SECONDS: u64 = 20;
/// How long healed nodes may take to agree and serve, on a busy machine.
const CONVERGENCE: Duration = Duration::from_secs(15);
/// Commands are given up by a node after so long, before most clients do.
const TOML: &str = "\n[client]\nrequest_timeout_ms = 1500\n";

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}")))
}

/// What the faults and the load are drawn from: as it was asked for, or another one every time.
fn seed() -> u64 {
    from_environment("RAFTKV_CHAOS_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        now.as_micros() as u64
    })
}

/// Waits until every node serves, and new commands are answered.
fn wait_until_served(cluster: &Cluster, load: &Workload) {
    let goal = load.answered() + 100;
    eventually("every node is healthy, and commands are answered", CONVERGENCE, || {
        let healthy = (0..cluster.nodes.len()).all(|position| cluster.is_healthy(position));
        (healthy && load.answered() >= goal).then_some(())
    });
}

/// Waits until every node has committed and applied the same.
fn wait_until_one(cluster: &Cluster) {
    eventually("all nodes reach one commit index", CONVERGENCE, || {
        let mut indices = Vec::new();
        for position in 0..cluster.nodes.len() {
            let info = cluster.info(position)?;
            indices.push(info.get("raft_commit_index")?.clone());
            indices.push(info.get("raft_applied_index")?.clone());
        }
        let one = indices.windows(2).all(|pair| pair[0] == pair[1]);
        let healthy = (0..cluster.nodes.len()).all(|position| cluster.is_healthy(position));
        (one && healthy).then_some(())
    });
}

fn start(network: &Network, nodes: usize) -> Cluster {
    Cluster::start_with(Options {
        nodes,
        toml: TOML.to_owned(),
        addresses: (0..nodes).map(|position| network.address(position)).collect(),
        wrappers: (0..nodes).map(|position| network.wrapper(position)).collect(),
        ..Options::default()
    })
}

fn chaos(test: &str, nodes: usize) {
    let seconds = from_environment("RAFTKV_CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = seed();
    let network = match Network::make(nodes) {
        Ok(network) => network,
        Err(why) => return skip(test, &why),
    };
    // Past the test runner's capture: it must be known also of a run that hangs.
    let line = format!("\n{test}: RAFTKV_CHAOS_SEED={seed}, {seconds} s\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();

    // 1. All nodes are there.
    let mut cluster = start(&network, nodes);

    // 2. Faults under load.
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.client.clone()).collect();
    let load = Workload::begin(&addresses, workload::PAUSE_MS, seed);
    let mut faults = Faults::new(&mut cluster, &network, seed);
    faults.rage(Duration::from_secs(seconds));
    let during = load.answered();

    // 3. All is healed: every node serves the load that still goes on, and then they are one.
    faults.heal();
    let healed = Instant::now();
    let struck = faults.struck;
    wait_until_served(&cluster, &load);
    let served = healed.elapsed();
    let stories = load.finish();
    wait_until_one(&cluster);

    // 4. What the clients saw is possible, whichever node is asked, also of its own copy alone.
    let mut last: Vec<Client> = (0..nodes).map(|position| cluster.client(position)).collect();
    for position in 0..nodes {
        let mut own = cluster.client(position);
        assert_eq!(own.must(&["CLIENT", "READMODE", "stale"]), Reply::ok());
        last.push(own);
    }
    let judging = Instant::now();
    let checked = verdict::judge(&stories, &mut last);
    tell(test, &stories, during, served);
    println!("{struck:?}\n{checked:?} in {:?}", judging.elapsed());
    assert!(checked.operations > during / 2, "most of what was answered is searched through");
    assert!(during > 1000 || seconds < SECONDS, "only {during} commands were answered");
    assert!(struck.len() == faults::KINDS.len() || seconds < SECONDS, "some never struck");
}

fn tell(test: &str, stories: &[Story], during: usize, served: Duration) {
    let connections = stories.iter().map(|story| story.connections.len()).sum::<usize>();
    let outcomes = || {
        let operations = stories.iter().flat_map(|story| story.connections.iter().flatten());
        operations.map(|operation| &operation.outcome)
    };
    let in_doubt = outcomes().filter(|outcome| matches!(outcome, Outcome::InDoubt)).count();
    let not_done = outcomes().filter(|outcome| matches!(outcome, Outcome::NotDone(_))).count();
    println!(
        "{test}: {during} commands answered, {not_done} not done, {in_doubt} in doubt, \
         {connections} connections; all served {served:?} after healing"
    );
}

/// Without this, a filter that dropped nothing would look like nodes that survive everything.
#[test]
fn network_cuts_what_is_cut_and_nothing_else() {
    let network = match Network::make(3) {
        Ok(network) => network,
        Err(why) => return skip("network_cuts_what_is_cut_and_nothing_else", &why),
    };
    let cluster = start(&network, 3);
    let sides = [Side::Sender, Side::Receiver];
    for (deaf, side) in [true, false].into_iter().flat_map(|deaf| sides.map(|side| (deaf, side))) {
        // 1. The leader hears nobody, or nobody hears it; each is enough to lose the lead.
        let old = cluster.wait_for_leader();
        let term = cluster.figure(old, "raft_term");
        let cuts: Vec<Cut> = cluster
            .others(old)
            .into_iter()
            .map(|other| if deaf { (other, old) } else { (old, other) })
            .map(|(from, to)| Cut { from, to, side })
            .collect();
        network.cut(&cuts);
        eventually("the others lead, and the old leader cannot serve", CONVERGENCE, || {
            let new = cluster.leader().filter(|new| *new != old)?;
            let moved = cluster.figure(new, "raft_term") > term && !cluster.is_healthy(old);
            moved.then_some(())
        });
        // 2. Healed, all three serve again.
        network.cut(&[]);
        wait_until_one(&cluster);
    }
}

/// Reads that are allowed to be stale, judged as if they were not: what the verdict is for.
#[test]
fn verdict_finds_the_stale_read_of_a_node_that_was_cut_off() {
    let network = match Network::make(3) {
        Ok(network) => network,
        Err(why) => {
            return skip("verdict_finds_the_stale_read_of_a_node_that_was_cut_off", &why);
        }
    };
    let cluster = start(&network, 3);
    let leader = cluster.wait_for_leader();
    let deaf = cluster.others(leader)[0];
    let mut writer = cluster.client(leader);
    let mut reader = cluster.client(deaf);
    assert_eq!(reader.must(&["CLIENT", "READMODE", "stale"]), Reply::ok());
    let ask = |client: &mut Client, line: &str| {
        let operations = workload::exchange(client, "a node", &[Asked::line(0, line)]);
        let answered = matches!(operations[0].outcome, Outcome::Answered(..));
        assert!(answered, "{operations:?}");
        operations
    };
    // 1. Everyone knows the first value.
    let mut written = ask(&mut writer, "SET k 1");
    cluster.wait_until_even();
    let mut read = ask(&mut reader, "GET k");
    // 2. One follower does not hear of the second one, and says what it knows.
    let cut = |from: usize| Cut { from, to: deaf, side: Side::Receiver };
    network.cut(&cluster.others(deaf).into_iter().map(cut).collect::<Vec<Cut>>());
    written.extend(ask(&mut writer, "SET k 2"));
    let story =
        |read: &[workload::Operation]| Story { connections: vec![written.clone(), read.to_vec()] };
    registers::judge([&story(&read)]).expect("so far nothing is stale");
    read.extend(ask(&mut reader, "GET k"));
    let failure = registers::judge([&story(&read)]).expect_err("the last read is stale");
    println!("{failure}");
}

#[test]
fn chaos_of_three_nodes_keeps_every_promise() {
    chaos("chaos_of_three_nodes_keeps_every_promise", 3);
}

#[test]
fn chaos_of_five_nodes_keeps_every_promise() {
    chaos("chaos_of_five_nodes_keeps_every_promise", 5);
}
