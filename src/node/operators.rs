//! CLIENT's commands about other connections: LIST, KILL, PAUSE, REPLY, UNBLOCK and their like.
//!
//! Redis's, about the clients of this node alone: another node's clients are its own. The rows and
//! the reading of arguments are in `kv/clients.rs`. Called by `connection.rs`.

use bytes::Bytes;

use super::Effect;
use super::clients::Client;
use super::node::Node;
use super::server::SILENCE;
use crate::kv::clients::{self, ClientCommand, ClientKind, Kill, List, ReplyMode};
use crate::kv::error::CommandError;
use crate::proto::args::Args;
use crate::proto::reply::{Protocol, Reply};
use crate::types::{ClientId, Instant};

impl Node {
    /// Carries out a command whose arguments the table's check has passed.
    pub(super) fn operators_command(
        &mut self,
        now: Instant,
        id: ClientId,
        command: ClientCommand,
        args: Args<'_>,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        use ClientCommand as C;
        let answered = match command {
            C::List => clients::list(args).map(|list| self.client_list(now, &list)),
            C::Kill => clients::kill(args).and_then(|kill| self.kill(id, &kill, effects)),
            C::Pause => clients::pause(args).map(|(ms, whom)| {
                self.operations.holding.pause(now, ms, whom);
                Reply::OK
            }),
            C::Unpause => {
                self.unpause();
                Ok(Reply::OK)
            }
            C::Reply => clients::reply_mode(args).map(|mode| self.set_reply_mode(id, mode)),
            C::Unblock => clients::unblock(args).map(|(number, is_error)| {
                Reply::Integer(self.unblock(number, is_error, effects).into())
            }),
            C::Nothing => Ok(Reply::OK),
            C::GetRedir => Ok(Reply::Integer(-1)),
            C::TrackingInfo => Ok(tracking_info()),
            C::Capa => {
                if let Some(client) = self.clients.find(id) {
                    client.takes_redirects |= clients::redirects(args);
                }
                Ok(Reply::OK)
            }
        };
        answered.unwrap_or_else(|error| error.reply())
    }

    /// `CLIENT LIST`, in the order of arrival.
    fn client_list(&self, now: Instant, list: &List) -> Reply {
        let is_listed = |client: &&Client| match list {
            List::All => true,
            List::Kind(kind) => *kind == ClientKind::Normal,
            List::Ids(ids) => ids.contains(&client.info.id),
        };
        let there = self.clients.iter().filter(|client| !client.is_cut_off());
        let mut clients: Vec<&Client> = there.filter(is_listed).collect();
        clients.sort_by_key(|client| client.info.id);
        let lines: String = clients.iter().map(|client| client_line(client, now) + "\n").collect();
        Reply::Text(Bytes::from(lines))
    }

    /// `CLIENT KILL`: whoever fits is cut off, and what it still awaits is not answered. Who asks
    /// is answered first.
    fn kill(
        &mut self,
        own: ClientId,
        kill: &Kill<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, CommandError> {
        let is_meant = |(id, client): &(ClientId, &Client)| {
            let shows = |wanted: Option<&[u8]>, address: std::net::SocketAddr| {
                wanted.is_none_or(|wanted| wanted == address.to_string().as_bytes())
            };
            (kill.includes_self || *id != own)
                && !client.is_cut_off()
                && kill.id.is_none_or(|number| number == client.info.id)
                && kill.kind.is_none_or(|kind| kind == ClientKind::Normal)
                && shows(kill.address, client.info.address)
                && shows(kill.local_address, client.info.local_address)
        };
        let meant: Vec<ClientId> =
            self.clients.iter_with_ids().filter(is_meant).map(|(id, _)| id).collect();
        for id in &meant {
            match *id == own {
                true => self.clients.close(*id, effects),
                false => self.clients.cut_off(*id, effects),
            }
        }
        match (kill.is_old_form, meant.len()) {
            (true, 0) => Err(CommandError::NoSuchClient),
            (true, _) => Ok(Reply::OK),
            (false, count) => Ok(Reply::count(count)),
        }
    }

    fn set_reply_mode(&mut self, id: ClientId, mode: ReplyMode) -> Reply {
        let Some(client) = self.clients.find(id) else {
            return SILENCE;
        };
        match mode {
            ReplyMode::On => {
                client.speak_again();
                Reply::OK
            }
            ReplyMode::Off => {
                client.is_silent = true;
                SILENCE
            }
            ReplyMode::Skip => {
                client.skips_next = !client.is_silent;
                SILENCE
            }
        }
    }
}

fn tracking_info() -> Reply {
    Reply::Map(vec![
        (Reply::Word("flags"), Reply::Set(vec![Reply::Word("off")])),
        (Reply::Word("redirect"), Reply::Integer(-1)),
        (Reply::Word("prefixes"), Reply::Array(Vec::new())),
    ])
}

/// One line of `CLIENT LIST`: Redis's fields in Redis's order, as far as they mean something here.
pub(super) fn client_line(client: &Client, now: Instant) -> String {
    let queued = client.block.queued();
    let flags = match (client.is_held, queued) {
        (true, Some(_)) => "bx",
        (true, None) => "b",
        (false, Some(_)) => "x",
        (false, None) => "N",
    };
    let multi = queued.map_or(-1, |count| i64::try_from(count).expect("a count in memory"));
    format!(
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={flags} db=0 sub=0 psub=0 \
         ssub=0 multi={multi} cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
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

/// 2 or 3.
pub(super) fn version_number(protocol: Protocol) -> i64 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}
