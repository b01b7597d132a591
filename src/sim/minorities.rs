//! *convergence* where a majority alone is healed: the rest is half dead, and must not hold it up.
//!
//! A server that hears nothing and is heard, or the other way round, hangs, flaps or restarts again
//! and again asks for votes and answers late; pre-vote and check-quorum (dissertation §9.6, §6.2) are
//! there so that the others go on all the same. Called by [`super::run`] between the faults and the
//! healing of everything, in the seeds that [`settle`] draws.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::network::StreamId;
use super::run::write_through;
use super::script::Settings;
use super::world::World;
use crate::types::{ServerId, Term};

/// What is drawn here is not what is drawn elsewhere from the same seed.
const SALT: u64 = 0x3a1f_5eed_7ead_5eed;

/// One seed in so many has it, of those with servers enough and no change of members.
const MINORITY_IN: u64 = 3;

/// How long what hangs takes.
const HANGS: Duration = Duration::from_secs(300);

/// Thirds of an election timeout in which the others settle, and in which nothing may happen then.
const STEPS: u32 = 30;

/// For how many election timeouts one server is deaf, where all is well otherwise; and how many the
/// others may take to elect another one.
const DEAF: u32 = 15;

/// Draws whether a majority is healed before the rest is.
pub(super) fn settle(seed: u64, settings: &mut Settings) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT);
    let is_drawn = random.random_range(0..MINORITY_IN) == 0;
    let changes_members = settings.spares > 0 || settings.readmit > 0 || settings.repair > 0;
    if is_drawn && settings.nodes >= 3 && !changes_members {
        settings.half_healed = 1;
    }
}

/// How a server of the minority is half dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    /// It hears nobody of the majority, and is heard.
    Deaf,
    /// It hears everybody, and nobody of the majority hears it.
    Mute,
    /// Neither.
    Apart,
    /// It hears everybody but whoever leads, and is heard.
    DeafToLeader,
    Down,
    /// Its disk does nothing any more.
    Hung,
    /// It loses all others and finds them again, again and again.
    Flapping,
    Restarting,
    /// It stands still again and again.
    Pausing,
}

impl Trouble {
    const ALL: [Trouble; 9] = [
        Trouble::Deaf,
        Trouble::Mute,
        Trouble::Apart,
        Trouble::DeafToLeader,
        Trouble::Down,
        Trouble::Hung,
        Trouble::Flapping,
        Trouble::Restarting,
        Trouble::Pausing,
    ];

    fn strike(self) -> &'static str {
        match self {
            Trouble::Deaf => "minority-deaf",
            Trouble::Mute => "minority-mute",
            Trouble::Apart => "minority-apart",
            Trouble::DeafToLeader => "minority-deaf-to-leader",
            Trouble::Down => "minority-down",
            Trouble::Hung => "minority-hung",
            Trouble::Flapping => "minority-flapping",
            Trouble::Restarting => "minority-restarting",
            Trouble::Pausing => "minority-pausing",
        }
    }

    /// Whether it stays as it is, so that the majority's leader has nothing to lose its office for.
    /// (A leader whose disk hangs hands over some time; one that comes and goes may win elections.)
    fn is_steady(self) -> bool {
        use Trouble as T;
        matches!(self, T::Deaf | T::Mute | T::Apart | T::DeafToLeader | T::Down)
    }
}

/// Heals a majority, keeps the rest in trouble, and wants commits.
pub(super) fn heal_a_majority(world: &mut World, patience: Duration) {
    let Some(minority) = choose(world) else { return };
    let leader = world.leader();
    world.heal();
    let troubles: Vec<(ServerId, Trouble)> = minority
        .iter()
        .map(|id| {
            let drawn = Trouble::ALL[world.random.random_range(0..Trouble::ALL.len())];
            // A leader that is heard and hears nobody is the worst.
            let is_worst = leader == Some(*id) && world.random.random_bool(0.5);
            (*id, if is_worst { Trouble::Deaf } else { drawn })
        })
        .collect();
    let majority: Vec<ServerId> =
        world.ids().into_iter().filter(|id| !minority.contains(id)).collect();
    world.tell(|| format!("-- but for {troubles:?}"));
    for (id, trouble) in &troubles {
        world.strike(trouble.strike());
        begin(world, *id, *trouble, &majority);
    }
    // 1. Each server of the majority gets a write through.
    let mut follow = |world: &mut World| follow_leader(world, &troubles, &majority);
    for id in &majority {
        write_through(world, *id, patience, &mut follow);
    }
    // 2. And goes on to, and where nothing changes any more, the leader stays who it is.
    let election = Duration::from_millis(world.script.settings.election_max_ms);
    let is_steady = troubles.iter().all(|(_, trouble)| trouble.is_steady());
    let mut before = highest_term(world, &majority);
    for step in 0..2 * STEPS {
        if step == STEPS {
            before = highest_term(world, &majority);
        }
        follow(world);
        for (id, trouble) in &troubles {
            go_on(world, *id, *trouble, &majority, step);
        }
        world.run_for(election / 3);
        if step % 6 == 0 {
            let id = majority[world.random.random_range(0..majority.len())];
            write_through(world, id, patience, &mut follow);
        }
    }
    let after = highest_term(world, &majority);
    assert!(
        !is_steady || before == after,
        "convergence: {troubles:?} cost the others their leader, from {before} to {after}"
    );
}

/// Where all agree and nothing else goes wrong: a follower that doesn't hear the leader costs it
/// nothing, and a leader that hears nobody makes room before the kernels of the others would tell them.
pub(super) fn half_deafen(world: &mut World, patience: Duration) {
    let sound = world.sound();
    let leads = world.leader().is_some_and(|leader| sound.contains(&leader));
    if !leads || sound.len() - 1 < world.ids().len() / 2 + 1 {
        return;
    }
    let (leader, others) = connect(world, patience);
    let election = Duration::from_millis(world.script.settings.election_max_ms);
    // 1. A follower is deaf to the leader.
    let deaf = others[world.random.random_range(0..others.len())];
    let before = highest_term(world, &others);
    world.tell(|| format!("-- n{deaf} does not hear n{leader}, which leads"));
    world.network.cut.insert((leader, deaf));
    world.run_for(DEAF * election);
    let after = highest_term(world, &others);
    assert!(before == after, "convergence: n{deaf} is deaf to n{leader}, and it is {after} for it");
    world.heal_network();
    // 2. The leader is deaf.
    let (leader, others) = connect(world, patience);
    world.strike("leader-deaf");
    world.tell(|| format!("-- n{leader} leads and hears nobody"));
    begin(world, leader, Trouble::Deaf, &others);
    let deadline = world.now.after(DEAF * election);
    while world.leader().is_none_or(|now| now == leader) {
        assert!(world.now < deadline, "convergence: n{leader} is deaf, and nobody else leads");
        world.run_for(Duration::from_millis(5));
    }
    write_through(world, others[0], patience, &mut |_| {});
    world.heal_network();
}

/// A leader in its term, and its connections with all other sound servers.
#[derive(PartialEq, Eq, Debug)]
struct Connected {
    leader: ServerId,
    term: Term,
    links: Vec<(ServerId, StreamId)>,
}

impl Connected {
    /// `None` where nobody leads, or one of the connections is known to one of its ends alone.
    fn now(world: &World) -> Option<Connected> {
        let sound = world.sound();
        let leader = world.leader().filter(|leader| sound.contains(leader))?;
        let link = |from: ServerId, to| world.servers[&from].process.as_ref()?.link_with(to);
        let both = |id| link(leader, id).filter(|there| link(id, leader) == Some(*there));
        let others = sound.into_iter().filter(|id| *id != leader);
        let links = others.map(|id| Some((id, both(id)?))).collect::<Option<_>>()?;
        Some(Connected { leader, term: world.node(leader)?.status().current_term, links })
    }
}

/// Waits until whoever leads has kept its office and its connections with all other sound servers
/// for two election timeouts. Returns it, and them. That all have the same log says nothing of that:
/// one that nobody heard may have had it all along, while its connections came to their end, as
/// nothing was acknowledged on them; until it has new ones it hears nobody.
fn connect(world: &mut World, patience: Duration) -> (ServerId, Vec<ServerId>) {
    let deadline = world.now.after(patience);
    let election = Duration::from_millis(world.script.settings.election_max_ms);
    loop {
        let before = Connected::now(world);
        world.run_for(2 * election);
        let after = Connected::now(world);
        if let Some(connected) = after.as_ref().filter(|_| before == after) {
            return (connected.leader, connected.links.iter().map(|(other, _)| *other).collect());
        }
        assert!(world.now < deadline, "convergence: a leader is left alone: {before:?}, {after:?}");
    }
}

/// As many servers as the others can do without, whoever has lost something among them; none where
/// the cluster is not founded, for which it needs every server.
fn choose(world: &mut World) -> Option<BTreeSet<ServerId>> {
    if world.checkers.newest_committed().is_none() || world.changes_members {
        return None;
    }
    let sound = world.sound();
    let is_sound = |id: &ServerId| sound.contains(id) && !world.servers[id].is_doubtful;
    let mut sound: Vec<ServerId> = world.ids().into_iter().filter(is_sound).collect();
    let majority = world.ids().len() / 2 + 1;
    if sound.len() < majority {
        return None;
    }
    // The leader is among the half dead as often as not.
    let leader = world.leader().filter(|id| sound.contains(id));
    if let Some(leader) = leader.filter(|_| sound.len() > majority && world.random.random_bool(0.5))
    {
        sound.retain(|id| *id != leader);
    }
    while sound.len() > majority {
        let place = world.random.random_range(0..sound.len());
        sound.remove(place);
    }
    let minority: BTreeSet<ServerId> =
        world.ids().into_iter().filter(|id| !sound.contains(id)).collect();
    (!minority.is_empty()).then_some(minority)
}

fn begin(world: &mut World, id: ServerId, trouble: Trouble, majority: &[ServerId]) {
    let inwards = majority.iter().map(|other| (*other, id));
    let outwards = majority.iter().map(|other| (id, *other));
    match trouble {
        Trouble::Deaf => world.network.cut.extend(inwards),
        Trouble::Mute => world.network.cut.extend(outwards),
        Trouble::Apart => world.network.cut.extend(inwards.chain(outwards)),
        Trouble::DeafToLeader => {
            follow_leader(world, &[(id, trouble)], majority);
        }
        Trouble::Down => world.kill(id),
        Trouble::Hung => world.servers[&id].disk.with(|state| state.stall = HANGS),
        Trouble::Flapping | Trouble::Restarting | Trouble::Pausing => {}
    }
}

/// Who is deaf to the leader is so to whoever of the majority leads now, and to nobody else. Where it
/// leads itself it hears everybody: else the one that it went on to be deaf to would learn from it who
/// leads, and could neither reach that leader nor do anything about it, as the others are content.
fn follow_leader(world: &mut World, troubles: &[(ServerId, Trouble)], majority: &[ServerId]) {
    let Some(leader) = world.leader() else { return };
    let is_meant = |(_, trouble): &&(ServerId, Trouble)| *trouble == Trouble::DeafToLeader;
    for (id, _) in troubles.iter().filter(is_meant) {
        let cut = &mut world.network.cut;
        let before = cut.len();
        cut.retain(|(from, to)| to != id || *from == leader);
        let hears_more = cut.len() < before;
        if majority.contains(&leader) {
            cut.insert((leader, *id));
        }
        if hears_more {
            world.network.release(world.now);
        }
    }
}

/// One step of what comes and goes.
fn go_on(world: &mut World, id: ServerId, trouble: Trouble, majority: &[ServerId], step: u32) {
    let is_even = step.is_multiple_of(2);
    match trouble {
        Trouble::Flapping if is_even => begin(world, id, Trouble::Apart, majority),
        Trouble::Flapping => {
            world.network.cut.retain(|(from, to)| *from != id && *to != id);
            world.network.release(world.now);
        }
        Trouble::Restarting if is_even => world.kill(id),
        Trouble::Restarting => {
            world.start_again(id);
        }
        Trouble::Pausing => {
            let most = 2 * world.script.settings.election_max_ms;
            let pause = Duration::from_millis(world.random.random_range(1..most));
            world.pause(id, pause);
        }
        _ => {}
    }
}

fn highest_term(world: &World, ids: &[ServerId]) -> Term {
    let terms = ids.iter().filter_map(|id| Some(world.node(*id)?.status().current_term));
    terms.max().unwrap_or(Term::ZERO)
}
