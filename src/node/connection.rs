//! Commands about the connection, which a node answers by itself.
//!
//! Redis's PING, HELLO, CLIENT, CONFIG GET and their like, as far as client libraries need them.
//! Called by `pipeline.rs`; what INFO and RAFT show is in `info.rs`.

use bytes::Bytes;

use super::clients::Client;
use super::node::Node;
use super::operators::version_number;
use super::{Effect, Role};
use crate::config::Redirect;
use crate::kv::command::ConnectionCommand;
use crate::kv::connection::{ClientAttribute, ReadMode, client_attribute, hello, read_mode};
use crate::kv::error::CommandError;
use crate::kv::introspection;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
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
            // The pipeline takes what it carries; this one is carried itself.
            C::SessionDo => CommandError::Syntax.reply(),
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
            C::Client(command) => self.operators_command(now, id, command, args, effects),
            C::Server(command) => self.server_command(now, id, command, args),
            C::Cluster(command) => self.cluster_command(command, args),
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
            C::Monitor => self.begin_monitor(id),
            C::KWatch | C::KUnwatch => self.watch_command(now, id, command, args),
            C::ClientInfo => self.client_info(now, id),
            C::Exec => unreachable!("the pipeline makes one command of it"),
            C::Hello
            | C::ReadOnly
            | C::ReadWrite
            | C::ClientId
            | C::ClientSetName
            | C::ClientGetName
            | C::ClientSetInfo
            | C::ClientReadMode => self.client_command(id, command, args),
        }
    }

    /// Commands about the settings of the connection that sends them.
    fn client_command(
        &mut self,
        id: ClientId,
        command: ConnectionCommand,
        args: Args<'_>,
    ) -> Reply {
        use ConnectionCommand as C;
        let has_leases = self.config.raft.lease;
        let leads = self.status().role == Role::Leader;
        let is_moved = self.config.client.redirect == Redirect::Moved;
        let mode = if is_moved { "cluster" } else { "standalone" };
        let Some(client) = self.clients.find(id) else {
            return Reply::OK;
        };
        match command {
            C::Hello => return say_hello(client, leads, mode, args),
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
            _ => unreachable!("connection_command sends only these here"),
        }
        Reply::OK
    }
}

/// `HELLO`: answered in the version that it asks for.
fn say_hello(client: &mut Client, leads: bool, mode: &'static str, args: Args<'_>) -> Reply {
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
        (Reply::Word("mode"), Reply::Word(mode)),
        (Reply::Word("role"), Reply::Word(role)),
        (Reply::Word("modules"), Reply::Array(Vec::new())),
    ])
}

/// The table's check let only printable characters through.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
