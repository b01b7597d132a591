//! The lives of a server's processes: started from a disk, ended, killed, dead of a fault.
//!
//! Called by `world.rs` and `faults.rs`. What a process does while it lives is in `process.rs`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt;

use super::network::Host;
use super::process::Process;
use super::script::Kind;
use super::server::client_address;
use super::world::{DIR, Event, World};
use crate::config::{NodeConfig, SyncMode};
use crate::node::Node;
use crate::storage::{self, Storage, StorageError};
use crate::types::{Boot, Instant, ServerId};

impl World {
    /// Starts a server from what its disk holds.
    pub fn start(&mut self, id: ServerId) {
        if self.sleeps_until > self.now {
            let pause = self.sleeps_until.since(self.now);
            return self.plan(pause, Event::Start { server: id });
        }
        let server = self.servers.get_mut(&id).expect("a server of this world");
        if server.process.is_some() || server.is_held {
            return;
        }
        server.is_launched = true;
        if server.is_copy && !self.would_be_told(id, self.servers[&id].boot.next()) {
            return self.tell(|| format!("n{id} stays down: an old copy that nobody could tell"));
        }
        self.spare_last_majority(id);
        let has_others = self.servers.len() > 1;
        let server = self.servers.get_mut(&id).expect("just seen");
        let options = storage::Options {
            dir: PathBuf::from(DIR),
            cluster: self.config.cluster.name.clone(),
            server: id,
            has_others,
            sync: SyncMode::Auto,
            segment_bytes: self.config.storage.segment_bytes,
        };
        let opened = Storage::open_on(Box::new(server.disk.clone()), &options);
        if server.disk.with(|state| state.has_crashed()) {
            assert!(opened.is_err(), "fail-stop: n{id} starts although its disk has failed");
            self.strike("crash-in-start");
            return self.crash(id);
        }
        if self.network.dark.remove(&id) {
            self.network.release(self.now);
        }
        // How long a start takes is part of the pause before it.
        self.servers[&id].disk.take_blocked();
        let (storage, recovered) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.refused(id, &error),
        };
        let boot = recovered.identity.boot;
        if self.servers[&id].is_copy
            && recovered.recovering.is_none()
            && !self.would_be_told(id, boot)
        {
            // A start that failed has counted one boot more.
            self.servers[&id].disk.kill();
            return self.tell(|| format!("n{id} goes down: an old copy that nobody could tell"));
        }
        let server = self.servers.get_mut(&id).expect("just seen");
        if recovered.recovering.is_some() {
            // From here on it is a server with an empty disk, like one that was wiped.
            let was_rotten = server.rotten.take().is_some();
            server.is_copy = false;
            server.saved = None;
            server.disk.with(|state| state.media.begin_anew());
            let is_doubtful = std::mem::take(&mut server.is_doubtful);
            if self.checkers.distrusted.remove(&id) {
                self.checkers.is_damaged(id);
                self.strike("diverged-start");
            }
            if is_doubtful {
                self.checkers.is_damaged(id);
                self.strike("set-aside");
            } else if was_rotten {
                self.strike("set-aside");
            }
        }
        let server = self.servers.get_mut(&id).expect("just seen");
        if let Some(what) = &server.rotten {
            panic!("fail-stop: n{id} starts in spite of {what}");
        }
        if std::mem::take(&mut server.is_doubtful) {
            self.strike("snapshot-done-without");
        }
        let others = self.servers.iter().filter(|(other, _)| **other != id);
        let others: Vec<String> = others.map(|(other, server)| server.address(*other)).collect();
        let server = self.servers.get_mut(&id).expect("just seen");
        let seed = self.random.random_range(0..=u64::MAX);
        let mut config = self.config.clone();
        config.id = id;
        if server.joins {
            // Its own file knows no other server; it asks the founders. The only one that ever
            // founded asks whoever is there now: it would be the only one once more.
            let founders = std::mem::take(&mut config.cluster.nodes).into_iter();
            let founders = founders.filter(|founder| founder.id != id);
            config.join = founders.map(|founder| founder.peer).collect();
            if config.join.is_empty() {
                config.join = others;
            }
            config.cluster.nodes = vec![NodeConfig {
                id,
                peer: server.address(id),
                client: client_address(id, server.moves),
                http: None,
            }];
        }
        server.boot = recovered.identity.boot;
        let now = server.clock.local(self.now);
        let node = Node::recover(&config, recovered, seed, now).of_build(server.build);
        self.checkers.is_of_build(id, server.build);
        server.disk.with(|state| self.checkers.started(id, &node, &state.media));
        let entries = node.status().last_log_index;
        let term = node.status().current_term;
        let network_lies = self.script.settings.hello_pm > 0;
        server.process = Some(Process::new(id, node, storage, now, network_lies));
        server.kill_behind = None;
        let boot = server.boot;
        self.tell(|| format!("n{id} starts (boot {boot}, term {term}, {entries} entries)"));
        self.plan_disk(id);
        self.wake(id, self.now);
    }

    /// A snapshot of the server has rotted, which was no harm beyond measure when it happened; but
    /// members have gone since, and without this one there is no majority. Past that Raft promises
    /// nothing, so the bits are as they were: the disk has found them in its other copy.
    fn spare_last_majority(&mut self, id: ServerId) {
        let is_needed = || !self.checkers.keeps_majority_without(&BTreeSet::from([id]));
        if self.servers[&id].is_doubtful && self.changes_members && is_needed() {
            let server = self.servers.get_mut(&id).expect("just seen");
            server.disk.with(|state| state.media.mend_snapshots());
            server.is_doubtful = false;
            self.tell(|| format!("n{id}: the flipped bits flip back"));
        }
    }

    /// Whether every other server has met that boot of `id`, or a later one: only then is an old copy
    /// that comes back with it told from the directory itself (design page 1, §4).
    pub(super) fn would_be_told(&self, id: ServerId, boot: Boot) -> bool {
        let mut others = self.servers.iter().filter(|(other, _)| **other != id);
        others.all(|(_, other)| other.met.get(&id).is_some_and(|met| boot <= *met))
    }

    /// A server cannot start: on damage it must not, and an error of the disk it tries again.
    pub(super) fn refused(&mut self, id: ServerId, error: &StorageError) {
        self.tell(|| format!("n{id} does not start: {error}"));
        let server = self.servers.get_mut(&id).expect("a server of this world");
        server.disk.kill();
        match error {
            StorageError::Disk(_) => {
                self.strike("failed-start");
                self.plan(Duration::from_millis(300), Event::Start { server: id });
            }
            _ if server.rotten.is_some() => self.strike("refused-start"),
            _ if std::mem::take(&mut server.is_doubtful) => {
                server.rotten = Some(error.to_string());
                self.checkers.is_damaged(id);
                self.strike("refused-start");
            }
            _ => panic!("n{id} finds damage where there was none: {error}"),
        }
    }

    /// A process was told that its directory is an old copy: it starts over, to set that aside.
    pub(super) fn start_over(&mut self, id: ServerId) {
        self.tell(|| format!("n{id} is told that it is an old copy, and starts over"));
        self.strike("old-copy-starts-over");
        // That is written down: no number of restarts makes it pass for the newest.
        self.servers.get_mut(&id).expect("a server of this world").is_copy = false;
        self.kill(id);
        self.plan(Duration::from_millis(10), Event::Start { server: id });
    }

    /// A process ends well.
    pub(super) fn end(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).expect("a server of this world");
        let process = server.process.take().expect("it was just seen");
        let closed = process.close();
        self.tell(|| format!("n{id} has stopped"));
        if let Err(error) = closed {
            self.tell(|| format!("n{id} could not seal its log: {error}"));
        }
        self.strike("clean-stop");
        self.kill(id);
        if self.is_healing {
            self.plan(Duration::from_millis(100), Event::Start { server: id });
        }
    }

    /// The machine or the process dies in the middle of a disk operation.
    pub(super) fn crash(&mut self, id: ServerId) {
        self.tell(|| format!("n{id} dies in the middle of a disk operation"));
        if self.servers[&id].process.is_some() {
            self.strike(Kind::CrashAt.name());
        }
        match self.random.random_bool(0.5) {
            true => self.kill(id),
            false => {
                self.lose_power(id);
            }
        }
        self.strike("crash-in-disk-operation");
        let delay = self.random.random_range(20..400);
        self.plan(Duration::from_millis(delay), Event::Start { server: id });
    }

    /// A process ends because its disk failed.
    pub(super) fn die(&mut self, id: ServerId, error: &StorageError) {
        if self.servers[&id].disk.with(|state| state.has_crashed()) {
            return self.crash(id);
        }
        self.tell(|| format!("n{id} ends: {error}"));
        if let StorageError::Outdated { in_force, .. } = error {
            self.outdated(id, *in_force);
        }
        if let StorageError::Diverged { .. } = error {
            let is_told = self.checkers.distrusted.contains(&id);
            assert!(is_told, "state-machine-safety: n{id} stops: {error}");
            self.strike("diverged");
        }
        self.strike("fail-stop");
        self.kill(id);
        let delay = self.random.random_range(50..400);
        self.plan(Duration::from_millis(delay), Event::Start { server: id });
    }

    /// kill -9: the kernel closes its connections, and the machine goes on.
    pub fn kill(&mut self, id: ServerId) {
        let now = self.now;
        self.forget_process(id);
        for (stream, end) in self.network.of(Host::Server(id)) {
            self.network.close(now, stream, end);
        }
        self.servers[&id].disk.kill();
    }

    pub(super) fn forget_process(&mut self, id: ServerId) {
        let server = self.servers.get_mut(&id).expect("a server of this world");
        server.process = None;
        server.life += 1;
        server.mail.clear();
        server.turn_at = None;
        server.paused_until = Instant::ZERO;
        server.kill_behind = None;
        server.stumble = None;
        // What it was blocked by ends with it.
        let turn = Duration::from_micros(self.script.settings.turn_us);
        server.busy_until = server.busy_until.min(self.now.after(turn));
    }
}
