//! What a node tells of itself: INFO, ROLE and RAFT.
//!
//! Redis's INFO sections with the fields that tools read, and a section `raft` of our own. Called
//! by `connection.rs`.

use std::fmt::Write;

use bytes::Bytes;

use super::Role;
use super::connection::REDIS_VERSION;
use super::node::Node;
use super::pipeline::loading;
use crate::config::Redirect;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::raft::membership::Member;
use crate::types::{Incarnation, Instant, LogIndex, ServerId, SnapshotId};

/// Sections in the order in which INFO shows them.
const SECTIONS: [&str; 11] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "raft",
    LATENCIES,
    "cluster",
    "keyspace",
];

/// Shown where it is asked for by name, or all is: it grows with the commands that are used.
const LATENCIES: &str = "latencystats";

impl Node {
    /// Whether the disk has been at one write for longer than an election timeout. A leader hands
    /// over then, and a follower is not waited for.
    pub fn is_disk_stalled(&self, now: Instant) -> bool {
        self.raft.is_disk_stalled(now)
    }

    /// `INFO [section ...]`
    pub(super) fn info(&self, now: Instant, args: Args<'_>) -> Reply {
        let asked = |section: &str| {
            let is_default = section != LATENCIES;
            args.len() == 1 && is_default
                || args.iter().skip(1).any(|word| {
                    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
                    is("all") || is("everything") || is("default") && is_default || is(section)
                })
        };
        let mut text = String::new();
        for section in SECTIONS.into_iter().filter(|section| asked(section)) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let title = section[..1].to_ascii_uppercase() + &section[1..];
            let title = if section == "cpu" { "CPU".to_owned() } else { title };
            let _ = write!(text, "# {title}\r\n{}", self.section(now, section));
        }
        Reply::Text(Bytes::from(text))
    }

    fn section(&self, now: Instant, section: &str) -> String {
        let facts = &self.facts;
        match section {
            "server" => {
                let uptime = now.since(self.started).as_secs();
                lines(&[
                    ("redis_version", REDIS_VERSION.to_owned()),
                    ("raftkv_version", env!("CARGO_PKG_VERSION").to_owned()),
                    ("redis_mode", "standalone".to_owned()),
                    ("os", "Linux".to_owned()),
                    ("arch_bits", "64".to_owned()),
                    ("multiplexing_api", "epoll".to_owned()),
                    ("process_id", facts.process_id.to_string()),
                    ("run_id", self.run_id()),
                    ("tcp_port", facts.client_port.to_string()),
                    ("uptime_in_seconds", uptime.to_string()),
                    ("uptime_in_days", (uptime / 86_400).to_string()),
                ])
            }
            "clients" => lines(&[
                ("connected_clients", self.clients.len().to_string()),
                ("maxclients", self.config.limits.max_clients.to_string()),
                ("blocked_clients", self.operations.holding.len().to_string()),
                ("client_sessions", self.machine.store().sessions().len().to_string()),
                ("client_session_bytes", self.machine.store().sessions().bytes().to_string()),
            ]),
            "memory" => {
                let used = self.machine.store().used_bytes() as u64;
                lines(&[
                    ("used_memory", facts.resident_bytes.to_string()),
                    ("used_memory_human", human(facts.resident_bytes)),
                    ("used_memory_rss", facts.resident_bytes.to_string()),
                    ("used_memory_rss_human", human(facts.resident_bytes)),
                    ("used_memory_dataset", used.to_string()),
                    ("maxmemory", self.config.limits.max_memory.to_string()),
                    ("maxmemory_human", human(self.config.limits.max_memory)),
                    ("maxmemory_policy", "noeviction".to_owned()),
                ])
            }
            "persistence" => self.persistence_section(),
            "stats" => self.stats_section(),
            "replication" => self.replication_section(),
            "cpu" => lines(&[
                ("used_cpu_sys", seconds(facts.cpu_system_us)),
                ("used_cpu_user", seconds(facts.cpu_user_us)),
            ]),
            "raft" => self.raft_lines(now),
            LATENCIES => {
                let percentiles = self.operations.slowlog.latencies.percentiles();
                let line = |(name, figures): &(String, String)| format!("{name}:{figures}\r\n");
                percentiles.iter().map(line).collect()
            }
            "cluster" => {
                let is_moved = self.config.client.redirect == Redirect::Moved;
                lines(&[("cluster_enabled", u8::from(is_moved).to_string())])
            }
            _ => self.keyspace_section(),
        }
    }

    fn stats_section(&self) -> String {
        let (facts, from) = (&self.facts, &self.operations.figures_from);
        let since = |now: u64, then: u64| now.saturating_sub(then).to_string();
        let accepted = since(facts.connections_accepted, from.connections_accepted);
        let refused = since(facts.connections_refused, from.connections_refused);
        lines(&[
            ("total_connections_received", accepted),
            ("total_commands_processed", self.counters.commands.to_string()),
            ("total_net_input_bytes", since(facts.client_input_bytes, from.client_input_bytes)),
            ("total_net_output_bytes", since(facts.client_output_bytes, from.client_output_bytes)),
            ("rejected_connections", refused),
            ("evicted_keys", "0".to_owned()),
            ("pubsub_channels", "0".to_owned()),
        ])
    }

    fn persistence_section(&self) -> String {
        let loading = self.snapshots.loading_percent();
        let is_saving = self.snapshots.taking().is_some();
        let mut text = lines(&[("loading", u8::from(loading.is_some()).to_string())]);
        if let Some(percent) = loading {
            text += &lines(&[("loading_loaded_perc", format!("{percent}.00"))]);
        }
        text + &lines(&[
            ("aof_enabled", "1".to_owned()),
            ("aof_rewrite_in_progress", "0".to_owned()),
            ("rdb_bgsave_in_progress", u8::from(is_saving).to_string()),
            ("rdb_changes_since_last_save", "0".to_owned()),
            ("rdb_last_save_time", (self.operations.last_save.0 / 1000).to_string()),
            ("rdb_last_bgsave_status", "ok".to_owned()),
        ])
    }

    fn replication_section(&self) -> String {
        let leads = self.raft.is_leader();
        let mut text = lines(&[("role", if leads { "master" } else { "slave" }.to_owned())]);
        if leads {
            let matches = self.raft.match_indexes();
            text += &lines(&[("connected_slaves", matches.len().to_string())]);
        } else {
            let (host, port) = self.leader_client_address().unwrap_or_default();
            let link = if self.raft.leader().is_some() { "up" } else { "down" };
            text += &lines(&[
                ("master_host", host),
                ("master_port", port.to_string()),
                ("master_link_status", link.to_owned()),
            ]);
        }
        let offset = self.machine.last_applied().to_string();
        text + &lines(&[("master_replid", self.run_id()), ("master_repl_offset", offset)])
    }

    fn keyspace_section(&self) -> String {
        let keys = self.machine.store().len();
        if keys == 0 {
            return String::new();
        }
        let expires = self.machine.store().expiring();
        lines(&[("db0", format!("keys={keys},expires={expires},avg_ttl=0"))])
    }

    /// `INFO raft` and `RAFT INFO`.
    pub(super) fn raft_lines(&self, now: Instant) -> String {
        let status = self.status();
        let membership = self.raft.membership();
        let voters = membership.members().iter().filter(|member| member.voter);
        let learners = membership.members().iter().filter(|member| member.is_learner());
        lines(&[
            ("raft_role", status.role.name().to_owned()),
            ("raft_node_id", status.server.to_string()),
            ("raft_cluster", self.config.cluster.name.clone()),
            ("raft_term", status.current_term.to_string()),
            ("raft_leader_id", status.leader.unwrap_or(ServerId::ZERO).to_string()),
            ("raft_voters", voters.count().to_string()),
            ("raft_learners", learners.count().to_string()),
            ("raft_joint", if membership.is_joint() { "yes" } else { "no" }.to_owned()),
            ("raft_first_log_index", status.first_log_index.to_string()),
            ("raft_last_log_index", status.last_log_index.to_string()),
            ("raft_durable_index", self.raft.durable_index().to_string()),
            ("raft_commit_index", status.commit_index.to_string()),
            ("raft_applied_index", status.last_applied.to_string()),
            ("raft_command_set", self.machine.command_set().to_string()),
            ("raft_command_set_known", self.known_command_set().to_string()),
            ("raft_command_set_awaits", self.upgrade_line()),
            ("raft_lineage", format!("{:016x}", self.descent.lineage.0)),
            ("raft_incarnation", status.incarnation.to_string()),
            ("raft_boot", self.identity.boot.to_string()),
            ("raft_revision", self.machine.store().revision().to_string()),
            ("raft_cluster_time_ms", self.estimate(now).to_string()),
            ("raft_staleness_ms", self.raft.staleness(now).as_millis().to_string()),
            ("raft_storage", self.facts.storage_engine.to_owned()),
            ("raft_misdirected_messages", self.counters.misdirected.to_string()),
            ("raft_refused_messages", self.raft.refused_messages().to_string()),
            ("raft_snapshot_index", snapshot_index(status.snapshot)),
            ("raft_snapshot_term", status.snapshot.map_or(0, |(id, _)| id.term.0).to_string()),
            ("raft_snapshot_bytes", status.snapshot.map_or(0, |(_, bytes)| bytes).to_string()),
            ("raft_snapshot_due_after_bytes", self.bytes_to_snapshot().to_string()),
            ("raft_disk_stalled", if self.is_disk_stalled(now) { "yes" } else { "no" }.to_owned()),
            ("raft_snapshot_state", self.snapshot_state()),
            ("raft_bad_snapshots", self.counters.bad_snapshots.to_string()),
            ("raft_diverging_peers", self.checkpoints.differing().to_string()),
            ("raft_malformed_batches", self.counters.malformed.to_string()),
            ("raft_peer_rejects", self.facts.peer_rejects.to_string()),
            ("raft_longest_turn_us", self.facts.longest_turn.as_micros().to_string()),
            ("raft_recovering_reason", self.recovering_reason().unwrap_or("-").to_owned()),
        ])
    }

    /// What is being done with a snapshot now.
    fn snapshot_state(&self) -> String {
        if let Some(percent) = self.snapshots.loading_percent() {
            return format!("loading,{percent}%");
        }
        if let Some((id, received, total)) = self.raft.receiving() {
            let percent = received * 100 / total.max(1);
            return format!("receiving,index={},{percent}%", id.index);
        }
        match (self.snapshots.taking(), self.machine.snapshot_progress()) {
            (Some(id), Some(progress)) => {
                let percent = progress.records * 100 / progress.total_records.max(1);
                format!("taking,index={},{percent}%", id.index)
            }
            (Some(id), None) => format!("taking,index={},100%", id.index),
            (None, _) => "idle".to_owned(),
        }
    }

    /// `RAFT SNAPSHOT`: takes one now.
    pub(super) fn raft_snapshot(&mut self) -> Reply {
        if let Some(percent) = self.snapshots.loading_percent() {
            return loading(percent);
        }
        match self.ask_for_snapshot() {
            None => Reply::OK,
            Some(id) => {
                let index = id.index;
                let text = format!("ERR a snapshot at index {index} is being taken already");
                Reply::Error(text.into())
            }
        }
    }

    /// `RAFT NODES`: a line for each member.
    pub(super) fn raft_nodes(&self, now: Instant) -> Reply {
        let matches = self.raft.match_indexes();
        let last_index = self.raft.log().last_index();
        let is_joint = self.raft.membership().is_joint();
        let line = |member: &Member| {
            let id = member.id;
            let is_self = id == self.identity.server;
            let is_lost = is_self && self.raft.is_recovering() || self.requested.is_stray(now, id);
            let role = match (self.raft.leader() == Some(id), member.is_learner()) {
                _ if is_lost => "recovering",
                (true, _) => "leader",
                (false, false) => "follower",
                (false, true) => "learner",
            };
            let vote = match (member.voter, member.outgoing_voter) {
                (true, false) if is_joint => "joining",
                (false, true) => "leaving",
                (true, _) => "yes",
                (false, false) => "no",
            };
            // Only the leader knows how far the others are; anyone knows how far it is itself.
            let own = is_self.then(|| self.raft.durable_index());
            let match_index = own.or_else(|| matches.get(&id).copied());
            let percent = match_index.map(|index| index.0 * 100 / last_index.0.max(1));
            let percent = percent.map_or("-".to_owned(), |percent| format!("{percent}%"));
            let match_index = match_index.as_ref().map_or("-".to_owned(), LogIndex::to_string);
            let contact = self.raft.last_contact(now, id);
            let contact = contact.map_or("-".to_owned(), |ago| ago.as_millis().to_string());
            let http = if member.http.is_empty() { "-" } else { &member.http };
            format!(
                "id={id} role={role} peer={} client={} http={http} match={match_index} link={} \
                 vote={vote} promote={} met={} caught_up={percent} contact_ms={contact}",
                member.peer,
                member.client,
                if is_self || self.raft.has_link(id) { "up" } else { "down" },
                if member.promote { "yes" } else { "no" },
                if member.is_met() { "yes" } else { "no" },
            )
        };
        let lines: Vec<String> = self.raft.membership().members().iter().map(line).collect();
        Reply::Text(Bytes::from(lines.join("\r\n") + "\r\n"))
    }

    /// Why this node is not one that is told what the cluster does, if it isn't.
    pub(super) fn outsider(&self) -> Option<Reply> {
        let refused = |text: String| Some(Reply::Error(text.into()));
        if let Some(reason) = self.recovering_reason() {
            return refused(format!("CLUSTERDOWN this node takes part in nothing: {reason}"));
        }
        if self.status().role == Role::Removed {
            return refused("CLUSTERDOWN this node was removed from the cluster".to_owned());
        }
        self.snapshots.loading_percent().map(loading)
    }

    /// `RAFT HEALTH`: whether this node can serve a linearizable write now.
    pub(super) fn raft_health(&self, now: Instant) -> Reply {
        let refused = |text: String| Reply::Error(text.into());
        if let Some(why) = self.outsider() {
            return why;
        }
        let Some(leader) = self.raft.leader() else {
            return refused("CLUSTERDOWN this node knows no leader".to_owned());
        };
        if !self.raft.is_in_touch(now) {
            return refused(format!(
                "CLUSTERDOWN no majority was heard of within an election timeout; server {leader} \
                 led last"
            ));
        }
        if self.raft.is_leader() && !self.raft.is_ready() {
            let text = "CLUSTERDOWN this leader has not committed an entry of its term yet";
            return refused(text.to_owned());
        }
        if self.gateway.id().is_none() {
            return refused("CLUSTERDOWN this node has not applied its admission yet".to_owned());
        }
        if self.raft.growth_refusal().is_some() {
            return refused("MISCONF the leader takes no command that grows the store".to_owned());
        }
        Reply::OK
    }

    /// `ROLE`, as Redis has it.
    pub(super) fn role_reply(&self) -> Reply {
        let offset = Reply::Integer(self.machine.last_applied().0 as i64);
        if self.raft.is_leader() {
            let matches = self.raft.match_indexes();
            let replicas = matches.iter().filter_map(|(id, match_index)| {
                let member = self.raft.membership().member(*id)?;
                let (host, port) = split_address(&member.client);
                let words = [host, port.to_string(), match_index.to_string()];
                Some(Reply::Array(words.map(bulk).into()))
            });
            return Reply::Array(vec![
                Reply::Word("master"),
                offset,
                Reply::Array(replicas.collect()),
            ]);
        }
        let (host, port) = self.leader_client_address().unwrap_or_default();
        let link = if self.raft.leader().is_some() { "connected" } else { "connect" };
        Reply::Array(vec![
            Reply::Word("slave"),
            bulk(host),
            Reply::Integer(port.into()),
            Reply::Word(link),
            offset,
        ])
    }

    fn leader_client_address(&self) -> Option<(String, u16)> {
        let member = self.raft.membership().member(self.raft.leader()?)?;
        Some(split_address(&member.client))
    }

    /// Forty hexadecimal digits, as tools expect of a run id: the process's names.
    fn run_id(&self) -> String {
        let Incarnation(incarnation) = self.identity.incarnation;
        let (boot, nonce) = (self.identity.boot.0, self.identity.nonce.0);
        format!("{incarnation:016x}{:08x}{nonce:016x}", boot & 0xffff_ffff)
    }
}

fn snapshot_index(snapshot: Option<(SnapshotId, u64)>) -> String {
    snapshot.map_or(LogIndex::ZERO, |(id, _)| id.index).to_string()
}

/// `name:value` lines.
fn lines(fields: &[(&str, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect()
}

fn bulk(text: String) -> Reply {
    Reply::Bulk(Bytes::from(text))
}

/// Host and port of `host:port`; the configuration checked the form.
pub(super) fn split_address(address: &str) -> (String, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    (host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or(0))
}

fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

/// Bytes as Redis shows them to people.
fn human(bytes: u64) -> String {
    let bytes = bytes as f64;
    let units = [("G", 1024.0 * 1024.0 * 1024.0), ("M", 1024.0 * 1024.0), ("K", 1024.0)];
    for (unit, size) in units {
        if bytes >= size {
            return format!("{:.2}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}
