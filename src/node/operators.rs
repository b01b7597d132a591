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
            C::GetRedir => Ok(Reply::Integer(self.clients.listeners.trackers.redirection(id))),
            C::TrackingInfo => Ok(self.clients.tracking_info(id)),
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
        let is_listed = |(id, client): &(ClientId, &Client)| match list {
            List::All => true,
            List::Kind(kind) => *kind == self.kind_of(*id),
            List::Ids(ids) => ids.contains(&client.info.id),
        };
        let there = self.clients.iter_with_ids().filter(|(_, client)| !client.is_cut_off());
        let mut clients: Vec<(ClientId, &Client)> = there.filter(is_listed).collect();
        clients.sort_by_key(|(_, client)| client.info.id);
        let line = |(id, client): &(ClientId, &Client)| self.client_line(*id, client, now);
        let lines: String = clients.iter().map(line).collect();
        Reply::Text(Bytes::from(lines))
    }

    /// `CLIENT INFO`: the sender's own line.
    pub(super) fn client_info(&self, now: Instant, id: ClientId) -> Reply {
        let own = self.clients.get(id);
        let line = own.map(|client| self.client_line(id, client, now)).unwrap_or_default();
        Reply::Text(Bytes::from(line))
    }

    /// Redis's kind of a client.
    fn kind_of(&self, id: ClientId) -> ClientKind {
        match self.clients.listeners.subscribers.count(id) {
            0 => ClientKind::Normal,
            _ => ClientKind::PubSub,
        }
    }

    /// One line of `CLIENT LIST`: Redis's fields in Redis's order, as far as they mean something
    /// here.
    fn client_line(&self, id: ClientId, client: &Client, now: Instant) -> String {
        let queued = client.block.queued();
        let multi = queued.map_or(-1, |count| i64::try_from(count).expect("a count in memory"));
        let listeners = &self.clients.listeners;
        let (channels, patterns) = listeners.subscribers.counts(id);
        let mut flags = String::new();
        let letters = [
            ('O', listeners.monitors.has(id)),
            ('P', self.kind_of(id) == ClientKind::PubSub),
            ('x', queued.is_some()),
            ('b', client.is_held),
            ('t', listeners.trackers.has(id)),
            ('R', self.clients.is_redirect_broken(id)),
            ('B', listeners.trackers.broadcasts(id)),
        ];
        flags.extend(letters.iter().filter(|(_, is_so)| *is_so).map(|(letter, _)| letter));
        if flags.is_empty() {
            flags.push('N');
        }
        format!(
            "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={flags} db=0 \
             sub={channels} psub={patterns} ssub=0 multi={multi} cmd={} user=default redir={} \
             resp={} lib-name={} lib-ver={}\n",
            client.info.id,
            client.info.address,
            client.info.local_address,
            client.name,
            now.since(client.since).as_secs(),
            now.since(client.active).as_secs(),
            client.last_command,
            listeners.trackers.redirection(id),
            version_number(client.protocol),
            client.library_name,
            client.library_version,
        )
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
                && kill.kind.is_none_or(|kind| kind == self.kind_of(*id))
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

/// 2 or 3.
pub(super) fn version_number(protocol: Protocol) -> i64 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}
