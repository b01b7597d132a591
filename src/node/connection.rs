//! Commands about the connection, which a node answers by itself.
//!
//! Redis's PING, HELLO, CLIENT, CONFIG GET and their like, as far as client libraries need them.
//! Called by `pipeline.rs`; what INFO and RAFT show is in `info.rs`.

use bytes::Bytes;

use super::clients::Client;
use super::node::Node;
use super::{Effect, Role};
use crate::kv::command::ConnectionCommand;
use crate::kv::connection::{ClientAttribute, ReadMode, client_attribute, hello, read_mode};
use crate::kv::{glob, introspection};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::{Protocol, Reply};
use crate::types::{ClientId, Instant};

/// The version of Redis that this server answers like.
pub(super) const REDIS_VERSION: &str = "7.0.15";

impl Node {
    /// Carries out a command whose arguments the table's check has passed.
    pub(super) fn connection_command(
        &mut self,
        now: Instant,
        id: ClientId,
        command: ConnectionCommand,
        args: Args<'_>,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        use ConnectionCommand as C;
        match command {
            C::Ping if self.listens_in_resp2(id) => {
                let message = args.get(1).unwrap_or_default();
                Reply::Array(vec![Reply::Word("pong"), Reply::bulk(message)])
            }
            C::Ping => args.get(1).map_or(Reply::Simple("PONG"), Reply::bulk),
            C::Echo => Reply::bulk(args.get(1).unwrap_or_default()),
            C::Select => Reply::OK,
            C::Quit => {
                self.clients.close(id, effects);
                Reply::OK
            }
            C::Command => introspection::commands(),
            C::Help => introspection::help(args),
            C::CommandCount => introspection::count(),
            C::CommandInfo => introspection::info(args),
            C::CommandDocs => introspection::docs(args),
            C::CommandList => introspection::list(args),
            C::CommandGetKeys => {
                introspection::get_keys(args).unwrap_or_else(|error| error.reply())
            }
            C::ConfigGet => self.config_get(args),
            C::Info => self.info(now, args),
            C::Role => self.role_reply(),
            C::RaftInfo => Reply::Text(Bytes::from(self.raft_lines(now))),
            C::RaftNodes => self.raft_nodes(now),
            C::RaftHealth => self.raft_health(now),
            C::RaftAdmin => unreachable!("the pipeline hands it to the leader"),
            C::RaftSnapshot => self.raft_snapshot(),
            C::RaftExport => unreachable!("the pipeline has the disk read first"),
            C::ClientList => self.client_list(now),
            C::Multi | C::Discard | C::Watch | C::Unwatch => {
                self.transaction_command(id, command, args)
            }
            C::Subscribe
            | C::PSubscribe
            | C::Unsubscribe
            | C::PUnsubscribe
            | C::PubSubChannels
            | C::PubSubNumSub
            | C::PubSubNumPat => self.subscription_command(id, command, args),
            C::ClientTracking | C::ClientCaching => self.tracking_command(id, command, args),
            C::KWatch | C::KUnwatch => self.watch_command(now, id, command, args),
            C::Exec => unreachable!("the pipeline makes one command of it"),
            C::Hello
            | C::ReadOnly
            | C::ReadWrite
            | C::ClientId
            | C::ClientSetName
            | C::ClientGetName
            | C::ClientSetInfo
            | C::ClientInfo
            | C::ClientReadMode => self.client_command(now, id, command, args),
        }
    }

    /// Commands about the settings of the connection that sends them.
    fn client_command(
        &mut self,
        now: Instant,
        id: ClientId,
        command: ConnectionCommand,
        args: Args<'_>,
    ) -> Reply {
        use ConnectionCommand as C;
        let has_leases = self.config.raft.lease;
        let leads = self.status().role == Role::Leader;
        let Some(client) = self.clients.find(id) else {
            return Reply::OK;
        };
        match command {
            C::Hello => return say_hello(client, leads, args),
            C::ReadOnly => client.read_mode = ReadMode::Stale,
            C::ReadWrite => client.read_mode = ReadMode::Linearizable,
            C::ClientReadMode => match read_mode(args) {
                Ok(ReadMode::Lease) if !has_leases => {
                    let text = "ERR lease reads are off: they need 'lease = true' under [raft] in \
                                every node's configuration";
                    return Reply::Error(text.into());
                }
                Ok(mode) => client.read_mode = mode,
                Err(error) => return error.reply(),
            },
            C::ClientId => return Reply::Integer(client.info.id as i64),
            C::ClientGetName if client.name.is_empty() => return Reply::Nil,
            C::ClientGetName => return Reply::bulk(client.name.as_bytes()),
            C::ClientSetName => client.name = text(args.get(2).unwrap_or_default()),
            C::ClientSetInfo => match client_attribute(args) {
                Ok(ClientAttribute::LibraryName(name)) => client.library_name = text(name),
                Ok(ClientAttribute::LibraryVersion(version)) => {
                    client.library_version = text(version);
                }
                Err(error) => return error.reply(),
            },
            C::ClientInfo => {
                let line = client_line(client, now) + "\n";
                return Reply::Text(Bytes::from(line));
            }
            _ => unreachable!("connection_command sends only these here"),
        }
        Reply::OK
    }

    /// `CLIENT LIST`, in the order of arrival.
    fn client_list(&self, now: Instant) -> Reply {
        let mut clients: Vec<&Client> = self.clients.iter().collect();
        clients.sort_by_key(|client| client.info.id);
        let lines: String = clients.iter().map(|client| client_line(client, now) + "\n").collect();
        Reply::Text(Bytes::from(lines))
    }

    /// `CONFIG GET pattern ...`: what clients and benchmarks ask for, in Redis's names.
    fn config_get(&self, args: Args<'_>) -> Reply {
        let limits = &self.config.limits;
        let idle_seconds = self.config.client.idle_timeout.as_secs();
        let notify = self.config.client.notify_keyspace_events;
        let all: [(&'static str, String); 10] = [
            ("appendfsync", "always".to_owned()),
            ("appendonly", "yes".to_owned()),
            ("databases", "1".to_owned()),
            ("maxclients", limits.max_clients.to_string()),
            ("maxmemory", limits.max_memory.to_string()),
            ("maxmemory-policy", "noeviction".to_owned()),
            ("notify-keyspace-events", notify.to_string()),
            ("proto-max-bulk-len", limits::VALUE_BYTES.to_string()),
            ("save", String::new()),
            ("timeout", idle_seconds.to_string()),
        ];
        let is_asked = |name: &str| {
            args.iter()
                .skip(2)
                .any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
        };
        let asked = all.into_iter().filter(|(name, _)| is_asked(name));
        Reply::Map(asked.map(|(name, value)| (Reply::Word(name), text_reply(value))).collect())
    }
}

/// `HELLO`: answered in the version that it asks for.
fn say_hello(client: &mut Client, leads: bool, args: Args<'_>) -> Reply {
    let wanted = match hello(args) {
        Ok(wanted) => wanted,
        Err(error) => return error.reply(),
    };
    if let Some(name) = wanted.name {
        client.name = text(name);
    }
    client.protocol = wanted.protocol.unwrap_or(client.protocol);
    client.retag_last_slot();
    let version = version_number(client.protocol);
    let role = if leads { "master" } else { "replica" };
    Reply::Map(vec![
        (Reply::Word("server"), Reply::Word("redis")),
        (Reply::Word("version"), Reply::Word(REDIS_VERSION)),
        (Reply::Word("proto"), Reply::Integer(version)),
        (Reply::Word("id"), Reply::Integer(client.info.id as i64)),
        (Reply::Word("mode"), Reply::Word("standalone")),
        (Reply::Word("role"), Reply::Word(role)),
        (Reply::Word("modules"), Reply::Array(Vec::new())),
    ])
}

/// One line of `CLIENT LIST`: Redis's fields in Redis's order, as far as they mean something here.
fn client_line(client: &Client, now: Instant) -> String {
    format!(
        "id={} addr={} laddr={} name={} age={} idle={} flags=N db=0 multi=-1 cmd={} user=default \
         resp={} lib-name={} lib-ver={}",
        client.info.id,
        client.info.address,
        client.info.local_address,
        client.name,
        now.since(client.since).as_secs(),
        now.since(client.active).as_secs(),
        client.last_command,
        version_number(client.protocol),
        client.library_name,
        client.library_version,
    )
}

fn version_number(protocol: Protocol) -> i64 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}

/// The table's check let only printable characters through.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text_reply(text: String) -> Reply {
    Reply::Bulk(Bytes::from(text))
}
