//! Where the leader is, for clients that ask: CLUSTER, SENTINEL, and errors that send them there.
//!
//! Any node serves any client; a redirection saves the hop to the leader. Two kinds, both off unless
//! asked for: `-MOVED` to every client, where `client.redirect = "moved"`, as Redis Cluster's
//! clients understand it; `-REDIRECT` to a connection that said `CLIENT CAPA redirect`, which is
//! Valkey's. A connection that said READONLY reads where it is. Called by `pipeline.rs` and
//! `connection.rs`.

use std::fmt::Write as _;

use bytes::Bytes;

use super::info::split_address;
use super::node::Node;
use crate::config::Redirect;
use crate::kv::cluster::{ClusterCommand, SLOTS, key_slot};
use crate::kv::command::{Command, Handler};
use crate::kv::connection::ReadMode;
use crate::kv::error::CommandError;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::raft::membership::Member;
use crate::types::{ClientId, Incarnation, ServerId};

impl Node {
    /// Where a command is to be sent instead, if this node is not the leader and the client wants
    /// to know. What has no key is carried out here.
    pub(super) fn redirection(
        &mut self,
        id: ClientId,
        command: &Command,
        args: Args<'_>,
    ) -> Option<CommandError> {
        let is_of_store = matches!(command.handler, Handler::Write { .. } | Handler::Read { .. });
        if !is_of_store || self.raft.is_leader() {
            return None;
        }
        let is_moved = self.config.client.redirect == Redirect::Moved;
        let client = self.clients.find(id)?;
        let reads_here = client.read_mode == ReadMode::Stale && !command.is_write();
        if reads_here || !(is_moved || client.takes_redirects) {
            return None;
        }
        let key = command.keys.of(args).next()?;
        // Without a leader the command waits for one here.
        let leader = self.leader_member()?.client.clone();
        Some(match is_moved {
            true => CommandError::Moved(key_slot(key), leader),
            false => CommandError::Redirect(leader),
        })
    }

    /// Answers CLUSTER and SENTINEL.
    pub(super) fn cluster_command(&self, command: ClusterCommand, args: Args<'_>) -> Reply {
        use ClusterCommand as C;
        if command.is_cluster() && self.config.client.redirect == Redirect::None {
            return Reply::Error("ERR This instance has cluster support disabled".into());
        }
        match command {
            C::Info => self.cluster_info(),
            C::MyId => self.member(self.identity.server).map_or(Reply::Nil, |own| text(name(own))),
            C::Nodes => self.cluster_nodes(),
            C::Slots => self.cluster_slots(),
            C::Shards => self.cluster_shards(),
            C::KeySlot => Reply::Integer(key_slot(args.get(2).unwrap_or_default()).into()),
            C::Masters => {
                Reply::Array(self.leader_member().map(|_| self.master()).into_iter().collect())
            }
            C::MasterAddress if !self.is_named(args) => Reply::NilArray,
            C::MasterAddress => self.leader_member().map_or(Reply::NilArray, |leader| {
                let (host, port) = split_address(&leader.client);
                Reply::Array(vec![text(host), text(port.to_string())])
            }),
            _ if !self.is_named(args) => Reply::Error("ERR No such master with that name".into()),
            C::Master => self.master(),
            C::Replicas => self.others(self.raft.leader(), "slave"),
            C::Sentinels => self.others(Some(self.identity.server), "sentinel"),
        }
    }

    /// Whether SENTINEL is asked for this cluster.
    fn is_named(&self, args: Args<'_>) -> bool {
        args.get(2).is_some_and(|name| name == self.config.cluster.name.as_bytes())
    }

    fn members(&self) -> &[Member] {
        self.raft.membership().members()
    }

    fn member(&self, id: ServerId) -> Option<&Member> {
        self.raft.membership().member(id)
    }

    fn leader_member(&self) -> Option<&Member> {
        self.member(self.raft.leader()?)
    }

    fn leads(&self, member: &Member) -> bool {
        self.raft.leader() == Some(member.id)
    }

    fn is_up(&self, member: &Member) -> bool {
        member.id == self.identity.server || self.raft.has_link(member.id)
    }

    fn cluster_info(&self) -> Reply {
        let has_leader = self.raft.leader().is_some();
        let (state, slots) = if has_leader { ("ok", SLOTS) } else { ("fail", 0) };
        let (term, known) = (self.raft.current_term(), self.members().len());
        let lines = format!(
            "cluster_enabled:1\r\ncluster_state:{state}\r\ncluster_slots_assigned:{slots}\r\n\
             cluster_slots_ok:{slots}\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n\
             cluster_known_nodes:{known}\r\ncluster_size:1\r\ncluster_current_epoch:{term}\r\n\
             cluster_my_epoch:{term}\r\n"
        );
        Reply::Text(Bytes::from(lines))
    }

    /// A line for each member, as Redis Cluster writes it.
    fn cluster_nodes(&self) -> Reply {
        let leader = self.leader_member().map_or("-".to_owned(), name);
        let term = self.raft.current_term();
        let mut lines = String::new();
        for member in self.members() {
            let (host, port) = split_address(&member.client);
            let (_, peer_port) = split_address(&member.peer);
            let own = if member.id == self.identity.server { "myself," } else { "" };
            let (role, master, slots) = match self.leads(member) {
                true => ("master", "-", format!(" 0-{}", SLOTS - 1)),
                false => ("slave", leader.as_str(), String::new()),
            };
            let link = if self.is_up(member) { "connected" } else { "disconnected" };
            let id = name(member);
            let _ = writeln!(
                lines,
                "{id} {host}:{port}@{peer_port} {own}{role} {master} 0 0 {term} {link}{slots}"
            );
        }
        Reply::Text(Bytes::from(lines))
    }

    /// The leader first, then the others, as one range of slots.
    fn cluster_slots(&self) -> Reply {
        let Some(leader) = self.leader_member() else {
            return Reply::Array(Vec::new());
        };
        let node = |member: &Member| {
            let (host, port) = split_address(&member.client);
            let name = text(name(member));
            Reply::Array(vec![text(host), Reply::Integer(port.into()), name, Reply::Array(vec![])])
        };
        let mut range = vec![Reply::Integer(0), Reply::Integer((SLOTS - 1).into()), node(leader)];
        range.extend(self.members().iter().filter(|member| !self.leads(member)).map(node));
        Reply::Array(vec![Reply::Array(range)])
    }

    fn cluster_shards(&self) -> Reply {
        let node = |member: &Member| {
            let (host, port) = split_address(&member.client);
            let role = if self.leads(member) { "master" } else { "replica" };
            let health = if self.is_up(member) { "online" } else { "fail" };
            Reply::Map(vec![
                (Reply::Word("id"), text(name(member))),
                (Reply::Word("port"), Reply::Integer(port.into())),
                (Reply::Word("ip"), text(host.clone())),
                (Reply::Word("endpoint"), text(host)),
                (Reply::Word("role"), Reply::Word(role)),
                (Reply::Word("replication-offset"), Reply::Integer(0)),
                (Reply::Word("health"), Reply::Word(health)),
            ])
        };
        let slots = match self.raft.leader() {
            Some(_) => vec![Reply::Integer(0), Reply::Integer((SLOTS - 1).into())],
            None => Vec::new(),
        };
        let nodes = self.members().iter().map(node).collect();
        Reply::Array(vec![Reply::Map(vec![
            (Reply::Word("slots"), Reply::Array(slots)),
            (Reply::Word("nodes"), Reply::Array(nodes)),
        ])])
    }

    /// What Sentinel says of a master, as far as its clients read it.
    fn master(&self) -> Reply {
        let Some(leader) = self.leader_member() else {
            return Reply::Error("ERR this node knows no leader".into());
        };
        let others = self.members().len().saturating_sub(1);
        let quorum = self.raft.membership().voters().count() / 2 + 1;
        let mut fields = sentinel_fields(self.config.cluster.name.clone(), leader, "master");
        fields.extend([
            (Reply::Word("num-slaves"), text(others.to_string())),
            (Reply::Word("num-other-sentinels"), text(others.to_string())),
            (Reply::Word("quorum"), text(quorum.to_string())),
        ]);
        Reply::Map(fields)
    }

    /// All members but one, as Sentinel lists them.
    fn others(&self, but: Option<ServerId>, kind: &'static str) -> Reply {
        let fields = |member: &Member| {
            let (down, link) = if self.is_up(member) { ("", "ok") } else { (",s_down", "err") };
            let flags = format!("{kind}{down}");
            let mut fields = sentinel_fields(member.client.clone(), member, &flags);
            fields.push((Reply::Word("master-link-status"), Reply::Word(link)));
            Reply::Map(fields)
        };
        let others = self.members().iter().filter(|member| Some(member.id) != but);
        Reply::Array(others.map(fields).collect())
    }
}

fn sentinel_fields(title: String, member: &Member, flags: &str) -> Vec<(Reply, Reply)> {
    let (host, port) = split_address(&member.client);
    vec![
        (Reply::Word("name"), text(title)),
        (Reply::Word("ip"), text(host)),
        (Reply::Word("port"), text(port.to_string())),
        (Reply::Word("runid"), text(name(member))),
        (Reply::Word("flags"), text(flags.to_owned())),
    ]
}

/// Forty hexadecimal digits, as clients expect of a node's name: its directory's number, its id.
fn name(member: &Member) -> String {
    let Incarnation(incarnation) = member.incarnation;
    format!("{incarnation:016x}{:024x}", member.id.0)
}

fn text(text: String) -> Reply {
    Reply::Bulk(Bytes::from(text))
}
