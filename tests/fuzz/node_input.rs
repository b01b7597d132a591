//! Replays the committed corpus of the fuzz target `node_input`. With `UPDATE_CORPUS=1` it writes
//! the seeds anew first; inputs that the fuzzer found are left alone.

#[path = "../../fuzz/checks/node_input.rs"]
mod checks;

use raftkv::testing::{Mark, mark};

use checks::{FLOOD, SNAPSHOTS, Step};

/// The first byte of an input: a real node among others that are not, or three, or five real ones.
const HOSTILE: u8 = 0;
const ALONE: u8 = 2;
const HONEST: u8 = 1;
const HONEST_FIVE: u8 = 5;
const LEASE: u8 = 8;
const QUOTA: u8 = 16;

#[test]
fn node_input_corpus_holds() {
    crate::corpus::replay("node_input", &seeds(), 0, |input| {
        assert_eq!(checks::check(input), checks::check(input), "reproducible");
    });
}

/// A seed that came nowhere would be replayed for nothing.
#[test]
fn node_input_seeds_come_as_far_as_their_names_say() {
    for (name, seed) in seeds() {
        mark::take();
        let seen = checks::check(&seed);
        let installed = mark::take()[Mark::SnapshotInstalled as usize].1;
        println!("{name}: {seen:?}");
        let leads = ["elected", "alone", "honest"].iter().any(|word| name.contains(word));
        assert!(!leads || (seen.leaders > 0 && seen.applied > 1 && seen.replies > 0), "{name}");
        assert!(name != "hostile-followed" || (seen.applied > 1 && seen.replies > 0), "{name}");
        assert!(name != "hostile-two-leaders" || seen.refused > 0, "{name}");
        assert!(!name.contains("snapshot") || seen.snapshots > 0, "{name}");
        let has_installed = seen.installs > 0 && installed > 0;
        assert!(!name.contains("install") || has_installed, "{name}");
    }
}

/// The first byte, then steps, each with its own bytes.
fn input(first: u8, steps: &[(Step, &[u8])]) -> Vec<u8> {
    let mut out = vec![first];
    for (step, bytes) in steps {
        out.push(*step as u8);
        out.extend_from_slice(bytes);
    }
    out
}

/// Bytes that `Reader` makes a choice of: our own term, the next one, and so on.
const OWN: u8 = 0;
const NEXT: u8 = 80;

fn seeds() -> crate::corpus::Seeds {
    use Step::*;
    // Rounds of good weather; enough of them for an election.
    let calm: (Step, &[u8]) = (Calm, &[23]);
    let calm_all: (Step, &[u8]) = (Calm, &[0, 23]);
    let with = |first, steps: &[(Step, &[u8])]| {
        let calm = if first & HONEST == 0 { calm } else { calm_all };
        input(first, &[&[calm, calm], steps].concat())
    };
    // One client, on its first place, sends two commands: SET and GET, or GET and MGET. Where
    // there are several servers, the first byte of a step says which.
    let set: (Step, &[u8]) = (Commands, &[0, 0, 1, 0, 1]);
    let reads: (Step, &[u8]) = (Commands, &[0, 0, 1, 3, 5]);
    let honest_set: (Step, &[u8]) = (Commands, &[0, 0, 0, 1, 0, 1]);
    // Server 2 leads the next term, founds the cluster and appends a batch of its own.
    let founded = [
        &[0, NEXT, 224, 0, 2][..],
        &[0, 0, 0, 0, 0, 0, 9],
        &[0, 0, 0, 4, 1, 0, 0, 1, 0, 0, 8, 9],
        &[0, 8, 9, 0],
    ]
    .concat();
    // Then it appends the batch that the node has forwarded.
    let forwarded = [&[0, OWN, 0, 0, 1][..], &[0, 0, 0, 0, 1, 9], &[0, 16, 9, 0]].concat();
    let at = |server: u8| [server, 0];
    vec![
        ("nothing", Vec::new()),
        ("hostile-elected", with(HOSTILE, &[set, (EndTurn, &[]), calm, reads, calm])),
        ("hostile-slow-disk", {
            let late: [(Step, &[u8]); 5] =
                [set, (EndTurn, &[]), (Deliver, &[0]), (Persist, &[0]), (EndTurn, &[])];
            with(HOSTILE, &late)
        }),
        // Members, then the term: our own or the next, pre-vote or not.
        ("hostile-vote-asked", {
            let asked: [(Step, &[u8]); 4] = [
                (Forge, &[0, 0, NEXT, 0, 0, 0, OWN, OWN]),
                (EndTurn, &[]),
                (Persist, &[3]),
                (EndTurn, &[]),
            ];
            input(HOSTILE, &asked)
        }),
        ("hostile-followed", {
            let appended: [(Step, &[u8]); 7] = [
                (Append, &founded),
                (EndTurn, &[]),
                (Persist, &[3]),
                set,
                (EndTurn, &[]),
                (Append, &forwarded),
                (EndTurn, &[]),
            ];
            input(HOSTILE, &appended)
        }),
        ("hostile-two-leaders", {
            let both: [(Step, &[u8]); 4] = [
                (Append, &founded),
                (Append, &[1, OWN, 0, 0, 0, 0, 8, 9, 0]),
                (LinkDown, &[1]),
                (Append, &[1, OWN, 0, 0, 0, 0, 8, 9, 0]),
            ];
            input(HOSTILE, &both)
        }),
        ("hostile-lost-disk", {
            let lost: [(Step, &[u8]); 5] = [
                (Forge, &[0, 0, NEXT, 0, 0, 0, OWN, OWN]),
                (Hello, &[0, 0, 6, 3]),
                (Persist, &[3]),
                (EndTurn, &[]),
                calm,
            ];
            input(HOSTILE, &lost)
        }),
        // One of each, to a leader of its own making and to one that follows.
        ("hostile-flooded-with-commands", with(HOSTILE, &[(Flood, &[FLOOD, 0, 0]), calm])),
        ("hostile-flooded-with-reads", with(HOSTILE, &[(Flood, &[FLOOD, 0, 2]), calm])),
        ("hostile-flooded-with-questions", {
            let flood: [(Step, &[u8]); 4] =
                [(Flood, &[FLOOD, 0, 1]), (EndTurn, &[]), (Persist, &[3]), (EndTurn, &[])];
            input(HOSTILE, &flood)
        }),
        ("hostile-followed-and-flooded", {
            let flood: [(Step, &[u8]); 4] =
                [(Append, &founded), (EndTurn, &[]), (Flood, &[FLOOD, 0, 0]), (Wait, &[252])];
            input(HOSTILE, &flood)
        }),
        (
            "alone",
            with(ALONE, &[set, (EndTurn, &[]), (Persist, &[3]), reads, (EndTurn, &[]), calm]),
        ),
        ("alone-quota-and-full-disk", {
            let full: [(Step, &[u8]); 6] =
                [(Commands, &[0, 0, 0, 254, 12]), calm, set, (Room, &[2]), set, (Room, &[1])];
            with(ALONE | QUOTA, &full)
        }),
        ("honest-elected", with(HONEST, &[honest_set, (EndTurn, &at(0)), calm_all])),
        ("honest-five-with-leases", {
            let leased: [(Step, &[u8]); 3] =
                [(Commands, &[0, 0, 0, 2, 25, 1, 0]), calm_all, calm_all];
            with(HONEST_FIVE | LEASE, &leased)
        }),
        ("honest-killed-and-cut", {
            let killed: [(Step, &[u8]); 7] = [
                (Commands, &[1, 0, 0, 1, 0, 2]),
                (EndTurn, &[1]),
                (Restart, &[0, 1]),
                (LinkDown, &[1, 2]),
                calm_all,
                (LinkUp, &[1, 2]),
                calm_all,
            ];
            with(HONEST, &killed)
        }),
        ("alone-snapshots", {
            let steps = [[set, (EndTurn, &[]), (Persist, &[3]), calm]; 6].concat();
            let steps = [&steps[..], &[(Restart, &[3]), calm, reads, calm]].concat();
            with(ALONE | SNAPSHOTS, &steps)
        }),
        // Server 2 is away while the others write and forget, and comes back.
        ("honest-install-under-load", {
            let write: (Step, &[u8]) = (Commands, &[0, 0, 0, 1, 0, 1]);
            let away = [(LinkDown, &[1, 0][..]), (LinkDown, &[1, 2])];
            let back = [(LinkUp, &[1, 0][..]), (LinkUp, &[1, 2]), calm_all, write, calm_all];
            let turn: (Step, &[u8]) = (EndTurn, &[0]);
            let writes = [[write, turn, calm_all]; 12].concat();
            with(HONEST | SNAPSHOTS, &[&away[..], &writes, &back].concat())
        }),
        ("honest-install-killed-and-without-room", {
            let write: (Step, &[u8]) = (Commands, &[0, 0, 0, 1, 0, 1]);
            let away = [(LinkDown, &[1, 0][..]), (LinkDown, &[1, 2]), (Room, &[1, 2])];
            let back = [
                (LinkUp, &[1, 0][..]),
                (LinkUp, &[1, 2]),
                (Calm, &[0, 3]),
                (Room, &[1, 0]),
                (Calm, &[0, 3]),
                (Restart, &[1, 0]),
                calm_all,
            ];
            let turn: (Step, &[u8]) = (EndTurn, &[0]);
            let writes = [[write, turn, calm_all]; 12].concat();
            with(HONEST | SNAPSHOTS, &[&away[..], &writes, &back].concat())
        }),
        ("honest-stopped", {
            let stopped: [(Step, &[u8]); 5] = [
                (Commands, &[0, 0, 0, 1, 0, 2]),
                (Stop, &[0]),
                (EndTurn, &[0]),
                calm_all,
                (Stop, &[1]),
            ];
            with(HONEST, &stopped)
        }),
        ("honest-lost-and-doubled", {
            let unruly: [(Step, &[u8]); 9] = [
                (Commands, &[1, 0, 0, 0, 2]),
                (EndTurn, &[1]),
                (Double, &[0, 0]),
                (Lose, &[0, 1]),
                (Deliver, &[0, 1]),
                (Misdirect, &[0, 1, 2, 0, 0]),
                (EndTurn, &[0]),
                (Wait, &[0, 200]),
                (Tick, &[2]),
            ];
            with(HONEST, &unruly)
        }),
    ]
}
