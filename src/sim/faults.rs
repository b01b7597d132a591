//! How each kind of fault strikes the world.
//!
//! Damage that makes a server forget what it promised (a lost, old or rotten disk) is dealt to less
//! than half of the servers of a run: past that Raft promises nothing, and neither would a checker
//! be right to complain. A fault that finds nothing to strike does nothing and isn't counted.
//! Called by the world when a fault's time has come, and once at the end to heal everything.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;

use super::damage::Damage;
use super::network::Host;
use super::process::{Mail, Process};
use super::script::{Fault, Kind};
use super::server::Saved;
use super::world::{Event, World};
use crate::limits;
use crate::types::{Boot, Instant, ServerId};

impl World {
    pub(super) fn strike_fault(&mut self, place: usize) {
        self.strike_now(self.script.faults[place]);
    }

    /// Lets a fault strike.
    pub(super) fn strike_now(&mut self, fault: Fault) {
        let Some(id) = self.target(fault.a) else {
            return;
        };
        let is_quiet = fault.kind == Kind::SnapshotRot && fault.b == 0;
        if self.changes_members && fault.kind.is_ruin() && !is_quiet {
            return self.hold_for(fault, id);
        }
        self.strike_on(fault, id);
    }

    /// Where the membership changes, a server is stopped before it forgets what it promised, and
    /// long enough that no leader takes it for one that is heard: else a change that leans on it
    /// could begin in the meantime, and could never end.
    fn hold_for(&mut self, fault: Fault, id: ServerId) {
        let server = self.servers.get_mut(&id).expect("a server of this world");
        if server.is_held || !server.is_launched {
            return;
        }
        server.is_held = true;
        self.kill(id);
        let pause = Duration::from_millis(3 * self.script.settings.election_max_ms);
        self.plan(pause, Event::Ruin { fault });
    }

    /// The time has come for what a server was stopped for.
    pub(super) fn ruin(&mut self, fault: Fault) {
        let Some(id) = self.target(fault.a) else { return };
        let server = self.servers.get_mut(&id).expect("a server of this world");
        if !std::mem::take(&mut server.is_held) {
            return;
        }
        if !self.is_healing {
            self.strike_on(fault, id);
        }
        self.plan(Duration::from_millis(20), Event::Start { server: id });
    }

    fn strike_on(&mut self, fault: Fault, id: ServerId) {
        let now = self.now;
        let struck = match fault.kind {
            Kind::Add
            | Kind::Remove
            | Kind::Promote
            | Kind::Replace
            | Kind::Move
            | Kind::Transfer
            | Kind::Snapshot => self.request(fault),
            Kind::Launch => self.launch(id),
            Kind::Upgrade => self.upgrade(id),
            Kind::SnapshotRot if fault.b == 0 => self.rot_quietly(id),
            Kind::SnapshotRot => self.rot_snapshots(id, fault.b as usize),
            Kind::Kill => self.strike_kill(id, fault.b),
            Kind::PowerLoss => self.lose_power(id),
            Kind::KillAll => self.of_all(|world, id| world.strike_kill(id, 0)),
            Kind::PowerLossAll => self.of_all(World::lose_power),
            Kind::Start if fault.a == 0 => self.of_all(World::start_again),
            Kind::Start => self.start_again(id),
            Kind::Pause => self.pause(id, Duration::from_millis(fault.b)),
            Kind::Stumble => self.stumble(id, fault.b, fault.c, Vec::new()),
            Kind::SleepyVoter => self.put_voter_to_sleep(fault.a, fault.b, fault.c),
            Kind::Suspend => self.suspend(Duration::from_secs(60 * fault.b)),
            Kind::Stop => {
                let is_alive = self.node(id).is_some();
                self.give(id, Mail::Stop);
                is_alive
            }
            Kind::Wipe => self.wipe(id),
            Kind::Save => self.save(id),
            Kind::OldCopy => self.old_copy(id),
            Kind::CrashAt => self.crash_at(id, fault.b as u32),
            Kind::CrashInStart => self.crash_in_start(id, fault.b as u32),
            Kind::ReadError if fault.c > 0 => {
                self.disk(id, |state| state.bad_reads = fault.b as u32)
            }
            Kind::ReadError => self.fail_reads(id, fault.b as u32),
            Kind::MetaRot => self.damage(id, Damage::Meta),
            Kind::MetaCut => self.damage(id, Damage::MetaCut),
            Kind::MetaStale => self.old_meta(id),
            Kind::SegmentCut => self.damage(id, Damage::Cut),
            Kind::Rot => self.damage(id, Damage::Rot),
            Kind::Misdirected => self.damage(id, Damage::Misdirected),
            Kind::Stale => self.damage(id, Damage::Stale),
            Kind::Error => self.disk(id, |state| state.good_left = Some(fault.b as u32)),
            Kind::Full => self.disk(id, |state| {
                state.capacity = Some(state.media.used() + fault.b * 1024);
            }),
            Kind::Space => self.disk(id, |state| state.capacity = None),
            Kind::Stall | Kind::Hang => {
                let struck = self.disk(id, |state| state.stall = Duration::from_millis(fault.b));
                self.unblock(id);
                struck
            }
            Kind::Cut => self.cut(|from, to| from.0 == fault.a && to.0 == fault.b),
            Kind::Split => self.cut(|from, to| (fault.a >> from.0 ^ fault.a >> to.0) & 1 == 1),
            Kind::Bridge => self.cut_bridge(id),
            Kind::Ring => self.cut_ring(),
            Kind::Isolate => self.cut(|from, to| from == id || to == id),
            Kind::Flap => self.flap(fault.a, fault.b, fault.c),
            Kind::Reset => self.network.reset(now, ServerId(fault.a), ServerId(fault.b)),
            Kind::Slow => self.slow(fault.a, fault.b, fault.c * 1024),
            Kind::Crawl => self.slow(fault.a, fault.b, fault.c),
            Kind::StalledReads => self.network.stall(ServerId(fault.a), ServerId(fault.b)),
            Kind::Swap => self.swap_addresses(ServerId(fault.a), ServerId(fault.b)),
            Kind::Heal => self.heal_network(),
            Kind::WallJump => self.jump(id, fault.b as i64 - fault.c as i64),
            Kind::ClientReset => self.reset_client(fault.a as usize),
            Kind::ClientCut => self.cut_off_client(fault.a as usize, fault.b, fault.c),
            Kind::ClientSlow => self.slow_client(fault.a as usize, fault.b, fault.c),
            Kind::HalfReply => self.network.reset_client(now, fault.a as usize),
            Kind::LateAnswers => self.answer_late(id, fault.b),
            Kind::ForgetfulVoter => self.forget_leader(fault.a, fault.b, fault.c),
            Kind::IdleClients => self.connect_idle_clients(id, fault.b),
        };
        if struck {
            if !fault.kind.only_arms() {
                self.strike(fault.kind.name());
            }
            self.story.tell(now, || format!("-- {fault}"));
        }
    }

    /// The server of that number; of 0 the leader, or whoever runs.
    pub(super) fn target(&self, number: u64) -> Option<ServerId> {
        match number {
            0 => self.leader().or_else(|| self.ids().first().copied()),
            number => Some(ServerId(number.min(self.script.settings.machines()).max(1))),
        }
    }

    fn of_all(&mut self, mut strike: impl FnMut(&mut World, ServerId) -> bool) -> bool {
        let mut struck = false;
        for id in self.ids() {
            struck |= strike(self, id);
        }
        struck
    }

    fn strike_kill(&mut self, id: ServerId, behind: u64) -> bool {
        if self.node(id).is_none() {
            return false;
        }
        match behind {
            0 => self.kill(id),
            behind => {
                let server = self.servers.get_mut(&id).expect("just seen");
                server.kill_behind = Some(behind as usize - 1);
            }
        }
        true
    }

    pub(super) fn lose_power(&mut self, id: ServerId) -> bool {
        let was_alive = self.node(id).is_some();
        let is_starting = self.servers[&id].disk.with(|state| state.has_crashed());
        if self.network.dark.contains(&id) && !is_starting {
            return false;
        }
        self.forget_process(id);
        for (stream, end) in self.network.of(Host::Server(id)) {
            self.network.vanish(stream, end);
            // Peers have their kernels ask whether the other one is still there.
            if matches!(self.network.host(stream, 1 - end), Some(Host::Server(_))) {
                self.plan(2 * limits::PEER_SILENCE, Event::Silence { stream, end: 1 - end });
            }
        }
        self.network.dark.insert(id);
        let losses = self.servers[&id].disk.lose_power();
        *self.strikes.entry("unsynced-sector-lost").or_default() += u64::from(losses.sectors);
        *self.strikes.entry("torn-write").or_default() += u64::from(losses.torn);
        *self.strikes.entry("unsynced-name-lost").or_default() += u64::from(losses.names);
        was_alive
    }

    /// A spare goes into operation.
    fn launch(&mut self, id: ServerId) -> bool {
        let is_new = !self.servers[&id].is_launched;
        if is_new {
            self.start(id);
        }
        is_new
    }

    pub(super) fn start_again(&mut self, id: ServerId) -> bool {
        let server = &self.servers[&id];
        let is_in_operation = server.is_launched && !server.is_held;
        let is_down = is_in_operation && self.node(id).is_none() && server.rotten.is_none();
        if is_down {
            self.start(id);
        }
        is_down
    }

    pub(super) fn pause(&mut self, id: ServerId, duration: Duration) -> bool {
        let until = self.now.after(duration);
        let is_alive = self.node(id).is_some();
        let server = self.servers.get_mut(&id).expect("a server of this world");
        server.paused_until = server.paused_until.max(until);
        is_alive
    }

    /// Everybody stands still, and what is under way on the network waits with them.
    fn suspend(&mut self, duration: Duration) -> bool {
        self.slept += duration;
        self.sleeps_until = self.now.after(duration);
        self.of_all(|world, id| world.pause(id, duration))
    }

    /// Whether one more server may forget what it promised. Not before the cluster is founded: that
    /// needs every server, once.
    fn may_damage(&mut self, id: ServerId) -> bool {
        let budget = (self.script.settings.nodes as usize - 1) / 2;
        let is_founded = self.checkers.committed() > 0
            && self.ids().into_iter().all(|id| {
                self.node(id).is_some_and(|node| !node.raft().membership().is_empty())
                    || self.checkers.damaged.contains_key(&id)
                    || self.node(id).is_none()
                    || self.servers[&id].joins
            });
        let doubtful = self.servers.iter().filter(|(_, server)| server.is_doubtful);
        let doubtful: BTreeSet<ServerId> = doubtful.map(|(id, _)| *id).chain([id]).collect();
        if self.changes_members {
            return is_founded
                && !self.has_forced
                && self.checkers.keeps_majority_without(&doubtful);
        }
        let damaged = self.checkers.damaged.keys().copied();
        let others = damaged.chain(doubtful).filter(|other| *other != id).collect::<BTreeSet<_>>();
        let others = others.len();
        is_founded && others < budget
    }

    fn wipe(&mut self, id: ServerId) -> bool {
        if !self.may_damage(id) {
            return false;
        }
        self.replace_disk(id);
        true
    }

    /// The server dies, and comes back on an empty disk.
    pub(super) fn replace_disk(&mut self, id: ServerId) {
        self.kill(id);
        self.checkers.loses_its_disk(id);
        self.joins_if_no_member(id);
        let server = self.servers.get_mut(&id).expect("a server of this world");
        server.is_doubtful = false;
        server.disk.with(|state| state.media = super::media::Media::default());
        server.rotten = None;
        server.is_copy = false;
        server.saved = None;
        server.met.clear();
    }

    /// Who is no member any more is set up as a new server, which founds nothing: nobody dials it to
    /// tell it that there is a cluster, and by its own file it may be a founder, even the only one.
    fn joins_if_no_member(&mut self, id: ServerId) {
        let newest = self.checkers.newest_committed();
        let is_member = newest.is_none_or(|newest| newest.member(id).is_some());
        self.servers.get_mut(&id).expect("a server of this world").joins |= !is_member;
    }

    fn save(&mut self, id: ServerId) -> bool {
        let server = self.servers.get_mut(&id).expect("a server of this world");
        let process = server.process.as_ref().filter(|_| server.rotten.is_none());
        let is_running = process.is_some();
        if let Some(Process { node, .. }) = process {
            // As a snapshot of the block device has it: what is stable, at one moment.
            let media = server.disk.with(|state| {
                let mut media = state.media.clone();
                media.forget_unsynced();
                media
            });
            let membership = node.raft().membership();
            let votes_alone = match membership.is_empty() {
                true => self.script.settings.nodes == 1,
                false => membership.voters().count() == 1,
            };
            server.saved = Some(Saved { media, boot: server.boot, votes_alone });
        }
        is_running
    }

    /// Only where every other server has met a later boot than the copy would come back with: one
    /// that nobody can tell is out of reach of any check (design page 1, §4). So is one that decides
    /// alone: it needs to hear nobody, who could tell it that there are others now.
    fn old_copy(&mut self, id: ServerId) -> bool {
        let Some(Saved { media, boot, votes_alone }) = self.servers[&id].saved.clone() else {
            return false;
        };
        let newest = self.checkers.newest_committed();
        let others = newest.is_some_and(|newest| newest.voters().any(|voter| voter != id));
        let is_known = self.would_be_told(id, boot.next()) && !(votes_alone && others);
        let is_sound = self.servers[&id].rotten.is_none();
        if !is_known || !is_sound || !self.may_damage(id) || boot == Boot::ZERO {
            return false;
        }
        self.kill(id);
        self.checkers.is_damaged(id);
        self.joins_if_no_member(id);
        let server = self.servers.get_mut(&id).expect("a server of this world");
        server.disk.with(|state| state.media = media);
        server.is_doubtful = false;
        server.boot = boot;
        server.is_copy = true;
        self.start(id);
        true
    }

    /// The meta file is as it was some boots ago, as far as the others can tell: see [`Self::old_copy`].
    fn old_meta(&mut self, id: ServerId) -> bool {
        let old = self.servers[&id].disk.with(|state| state.media.old_metas());
        let boot = self.servers[&id].boot;
        let fits = |(_, old): &&(usize, Boot)| *old < boot && *old > Boot::ZERO;
        let Some((inode, old)) = old.iter().rfind(fits).copied() else {
            return false;
        };
        let is_known = self.would_be_told(id, old.next());
        if !is_known || self.servers[&id].rotten.is_some() || !self.may_damage(id) {
            return false;
        }
        self.lose_power(id);
        self.checkers.is_damaged(id);
        let server = self.servers.get_mut(&id).expect("a server of this world");
        server.disk.with(|state| state.media.put_back_meta(inode));
        server.boot = old;
        server.is_copy = true;
        self.start(id);
        true
    }

    fn damage(&mut self, id: ServerId, kind: Damage) -> bool {
        if self.servers[&id].rotten.is_some() || !self.may_damage(id) {
            return false;
        }
        self.lose_power(id);
        let World { servers, random, .. } = self;
        let server = servers.get_mut(&id).expect("a server of this world");
        let done = server.disk.with(|state| {
            // A start that was killed may have left what is not on the media yet, on a machine that
            // counts as dark: the damage must meet what the next start reads.
            state.media.forget_unsynced();
            state.media.damage(kind, random)
        });
        server.rotten = done.clone();
        if done.is_some() {
            self.checkers.is_damaged(id);
        }
        if let Some(what) = &done {
            self.tell(|| format!("n{id}: {what}"));
        }
        let pause = Duration::from_millis(100);
        self.plan(pause, Event::Start { server: id });
        done.is_some()
    }

    /// A bit of the newest snapshot flips while the server runs: whoever is sent it must notice, and
    /// the next start too.
    fn rot_quietly(&mut self, id: ServerId) -> bool {
        let reads_it = |node: &crate::node::Node| {
            let status = node.status();
            status.receiving.is_some() || status.loading_percent.is_some()
        };
        let is_quiet = self.node(id).is_some_and(|node| !reads_it(node));
        if !is_quiet || self.servers[&id].rotten.is_some() || !self.may_damage(id) {
            return false;
        }
        self.rot(id, 1)
    }

    /// Bits of the newest snapshots flip while the server is down. Where the log has what they held,
    /// it may start; else it must not.
    fn rot_snapshots(&mut self, id: ServerId, count: usize) -> bool {
        if self.servers[&id].rotten.is_some() || !self.may_damage(id) {
            return false;
        }
        self.lose_power(id);
        self.servers[&id].disk.with(|state| state.media.forget_unsynced());
        let done = self.rot(id, count);
        self.plan(Duration::from_millis(100), Event::Start { server: id });
        done
    }

    fn rot(&mut self, id: ServerId, count: usize) -> bool {
        let World { servers, random, .. } = self;
        let server = servers.get_mut(&id).expect("a server of this world");
        let rotten = server.disk.with(|state| state.media.rot_snapshots(count, random));
        server.is_doubtful |= rotten > 0;
        self.tell(|| format!("n{id}: bits flip in {rotten} of its snapshots"));
        rotten > 0
    }

    /// What blocked a server takes no longer than the disk takes now.
    fn unblock(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).expect("a server of this world");
        let (stall, most) = server.disk.with(|state| (state.stall, state.latency.1));
        server.busy_until = server.busy_until.min(self.now.after(stall + most));
        if server.process.is_some() {
            self.wake(id, self.now);
        }
    }

    fn disk(&mut self, id: ServerId, change: impl FnOnce(&mut super::drive::State)) -> bool {
        let server = &self.servers[&id];
        server.disk.with(change);
        server.process.is_some()
    }

    fn cut(&mut self, is_cut: impl Fn(ServerId, ServerId) -> bool) -> bool {
        let ids = self.ids();
        let before = self.network.cut.len();
        for from in &ids {
            for to in ids.iter().filter(|to| *to != from) {
                if is_cut(*from, *to) {
                    self.network.cut.insert((*from, *to));
                }
            }
        }
        self.network.cut.len() > before
    }

    fn cut_bridge(&mut self, bridge: ServerId) -> bool {
        let half = |id: ServerId| id.0 % 2;
        self.cut(|from, to| from != bridge && to != bridge && half(from) != half(to))
    }

    fn cut_ring(&mut self) -> bool {
        let nodes = self.script.settings.machines();
        self.cut(|from, to| {
            let apart = from.0.abs_diff(to.0);
            apart > 1 && apart < nodes - 1
        })
    }

    fn flap(&mut self, a: u64, b: u64, times: u64) -> bool {
        let nodes = self.script.settings.machines();
        if a == b || !(1..=nodes).contains(&a) || !(1..=nodes).contains(&b) {
            return false;
        }
        let mut at = Duration::ZERO;
        for _ in 0..times.min(50) {
            for is_cut in [true, false] {
                for (from, to) in [(a, b), (b, a)] {
                    let (from, to) = (ServerId(from), ServerId(to));
                    self.plan(at, Event::Cut { from, to, is_cut });
                }
                at += Duration::from_millis(self.random.random_range(1..60));
            }
        }
        times > 0
    }

    fn slow(&mut self, from: u64, to: u64, bytes: u64) -> bool {
        let pair = (ServerId(from), ServerId(to));
        match bytes {
            0 => self.network.slow.remove(&pair).is_some(),
            bytes => self.network.slow.insert(pair, bytes).is_none(),
        }
    }

    /// Whoever dials one of the two from now on meets the other.
    fn swap_addresses(&mut self, a: ServerId, b: ServerId) -> bool {
        if a == b || !self.servers.contains_key(&a) || !self.servers.contains_key(&b) {
            return false;
        }
        let misrouted = &mut self.network.misrouted;
        misrouted.clear();
        misrouted.extend([(a, b), (b, a)]);
        true
    }

    /// The machine dies in the middle of the disk operation behind `steps` more.
    fn crash_at(&mut self, id: ServerId, steps: u32) -> bool {
        self.disk(id, |state| state.steps_left = Some(steps))
    }

    /// The same in the start of a process: recovery's writes are counted from its first.
    fn crash_in_start(&mut self, id: ServerId, steps: u32) -> bool {
        match self.random.random_bool(0.5) {
            true => self.kill(id),
            false => {
                self.lose_power(id);
            }
        }
        self.servers[&id].disk.with(|state| state.steps_left = Some(steps));
        self.start(id);
        true
    }

    /// The process dies, and its successor cannot read at first.
    fn fail_reads(&mut self, id: ServerId, reads: u32) -> bool {
        if self.servers[&id].rotten.is_some() {
            return false;
        }
        self.kill(id);
        self.servers[&id].disk.with(|state| state.bad_reads = reads);
        self.start(id);
        true
    }

    pub(super) fn heal_network(&mut self) -> bool {
        let was_cut = !self.network.cut.is_empty();
        self.network.cut.clear();
        self.network.misrouted.clear();
        self.network.read_on();
        self.network.slow.clear();
        self.network.unheard.clear();
        self.network.deafened.clear();
        self.network.slow_clients.clear();
        self.network.release(self.now);
        was_cut
    }

    fn jump(&mut self, id: ServerId, minutes: i64) -> bool {
        let server = self.servers.get_mut(&id).expect("a server of this world");
        server.clock.wall_ms += minutes * 60_000;
        minutes != 0
    }

    /// The end of all faults: everything works again, but for disks that were lost.
    pub(super) fn heal(&mut self) {
        self.is_healing = true;
        let now = self.now;
        self.tell(|| "-- everything heals".to_owned());
        self.network.loss_pm = 0;
        self.heal_network();
        // Raft promises a leader only where an election takes much less than its timeout (§3.9): a
        // pre-vote and a vote, there and back, and a sync at both ends.
        let most = Duration::from_millis(self.script.settings.election_min_ms) / 8;
        self.network.delay.1 = self.network.delay.1.min(most).max(self.network.delay.0);
        // What crawled or was held up for long would go on to do so.
        let usual = 4 * Duration::from_micros(self.script.settings.delay_max_us);
        for (stream, end) in self.network.clogged(now.after(usual)) {
            self.give_up(stream, end);
        }
        for id in self.ids() {
            let server = self.servers.get_mut(&id).expect("a server of this world");
            server.paused_until = Instant::ZERO;
            server.kill_behind = None;
            server.stumble = None;
            server.is_held = false;
            server.disk.with(|state| {
                state.latency.1 = state.latency.1.min(most).max(state.latency.0);
                state.stall = Duration::ZERO;
                state.capacity = None;
                state.good_left = None;
                state.steps_left = None;
                state.bad_reads = 0;
            });
            // What hung ends now.
            let life = server.life;
            for number in server.disk.under_way() {
                self.plan(Duration::ZERO, Event::Disk { server: id, life, number });
            }
            self.unblock(id);
            self.upgrade(id);
            self.start_again(id);
            self.wake(id, now);
        }
    }
}
