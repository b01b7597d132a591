//! Commands about this node as a server: TIME, CONFIG SET, DEBUG, SHUTDOWN, SLOWLOG and their like.
//!
//! Redis's, as far as they can be true here; the rows and the reading of arguments are in
//! `kv/server.rs`. Called by `pipeline.rs` (what takes a while) and `connection.rs` (what is
//! answered at once). What a node keeps for operators is [`Operations`].

use bytes::Bytes;

use super::clients::Origin;
use super::holding::Holding;
use super::node::Node;
use super::slowlog::Slowlog;
use super::{Effect, Facts};
use crate::kv::connection::ReadMode;
use crate::kv::error::CommandError;
use crate::kv::server::{self, Debug, ServerCommand};
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::{Protocol, Reply, escape_echo};
use crate::types::{ClientId, ClusterTime, Instant};

/// What a node keeps for operators. None of it is part of the state machine.
#[derive(Default, Debug)]
pub struct Operations {
    /// What took long.
    pub slowlog: Slowlog,
    /// Whom WAIT and CLIENT PAUSE hold.
    pub holding: Holding,
    /// The driver's figures when CONFIG RESETSTAT was last said.
    pub figures_from: Facts,
    /// When this process last completed a snapshot.
    pub last_save: ClusterTime,
    /// SHUTDOWN was said.
    pub is_asked_to_stop: bool,
}

/// No answer at all.
pub(super) const SILENCE: Reply = Reply::Encoded(Bytes::new());

impl Node {
    /// Whether a client has asked this node to end: the driver is to give it
    /// [`Input::Stop`](super::Input::Stop), as it does for a signal.
    pub fn is_asked_to_stop(&self) -> bool {
        self.operations.is_asked_to_stop
    }

    /// Carries out what may take a while.
    pub(super) fn take_server_command(
        &mut self,
        now: Instant,
        origin: Origin,
        command: ServerCommand,
        args: Args<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let is_on = self.config.client.debug_commands;
        let reply = match (command, server::debug(args)) {
            (ServerCommand::Wait, _) => return self.take_wait(now, origin, args, effects),
            (ServerCommand::Save, _) => return self.take_save(origin, effects),
            (ServerCommand::Debug, _) if !is_on => CommandError::DebugOff.reply(),
            (ServerCommand::Debug, Ok(Debug::Sleep(ms))) => {
                return self.take_sleep(now, origin, ms);
            }
            _ => self.server_command(now, origin.client, command, args),
        };
        self.clients.answer(origin, reply, effects);
    }

    /// Carries out what is answered at once.
    pub(super) fn server_command(
        &mut self,
        now: Instant,
        id: ClientId,
        command: ServerCommand,
        args: Args<'_>,
    ) -> Reply {
        use ServerCommand as S;
        let slowlog = &mut self.operations.slowlog;
        match command {
            S::Time => {
                let ClusterTime(ms) = self.estimate(now);
                let words = [(ms / 1000).to_string(), (ms % 1000 * 1000).to_string()];
                Reply::Array(words.map(|word| Reply::Bulk(Bytes::from(word))).into())
            }
            S::Wait => self.replicas_now(id),
            S::Auth | S::Nothing => Reply::OK,
            S::Reset => self.reset(id),
            S::ConfigSet => self.config_set(args).unwrap_or_else(|error| error.reply()),
            S::ConfigResetStat => {
                self.counters.commands = 0;
                slowlog.latencies.reset();
                self.operations.figures_from = self.facts.clone();
                Reply::OK
            }
            S::ConfigRewrite => CommandError::NoRewrite.reply(),
            S::Debug => self.debug(id, args),
            S::Shutdown => {
                self.operations.is_asked_to_stop = true;
                SILENCE
            }
            S::LastSave => Reply::Integer((self.operations.last_save.0 / 1000) as i64),
            S::BackgroundSave => match self.raft_snapshot() {
                Reply::OK => Reply::Simple("Background saving started"),
                refused => refused,
            },
            S::Save => unreachable!("take_server_command holds it, and no transaction takes it"),
            S::NoFunctions => Reply::Array(Vec::new()),
            S::FunctionStats => Reply::Map(vec![
                (Reply::Word("running_script"), Reply::Nil),
                (Reply::Word("engines"), Reply::Map(Vec::new())),
            ]),
            S::ScriptExists => {
                Reply::Array(args.iter().skip(2).map(|_| Reply::Integer(0)).collect())
            }
            S::SlowlogGet => match server::slowlog_count(args) {
                Ok(count) => slowlog.entries(count),
                Err(error) => error.reply(),
            },
            S::SlowlogLen => slowlog.len(),
            S::SlowlogReset => {
                slowlog.reset();
                Reply::OK
            }
            S::LatencyLatest => slowlog.latest(),
            S::LatencyHistory => slowlog.history(args.get(2).unwrap_or_default()),
            S::LatencyReset => slowlog.reset_latency(args.iter().skip(2)),
            S::LatencyDoctor => Reply::Text(Bytes::from(slowlog.diagnosis())),
            S::LatencyHistogram => slowlog.latencies.histogram(args),
            S::MemoryDoctor => self.memory_doctor(),
            S::MemoryStats => self.memory_stats(),
        }
    }

    /// `RESET`: the connection is as it was when it began: its name and its transaction are gone,
    /// and it is told of nothing any more.
    fn reset(&mut self, id: ClientId) -> Reply {
        self.clients.take_block(id);
        self.clients.listeners.leave(id);
        if let Some(client) = self.clients.find(id) {
            client.protocol = Protocol::Resp2;
            client.name.clear();
            client.read_mode = ReadMode::Linearizable;
            client.takes_redirects = false;
            client.speak_again();
            client.retag_last_slot();
        }
        Reply::Simple("RESET")
    }

    fn debug(&mut self, id: ClientId, args: Args<'_>) -> Reply {
        let protocol = self.clients.find(id).map(|client| client.protocol).unwrap_or_default();
        match server::debug(args) {
            Err(error) => error.reply(),
            Ok(Debug::Sleep(_) | Debug::SetActiveExpire) => Reply::OK,
            Ok(Debug::Log(text)) => {
                self.notices.push(escape_echo(text, limits::ECHO_BYTES));
                Reply::OK
            }
            Ok(Debug::Error(text)) => {
                Reply::Error(String::from_utf8_lossy(text).into_owned().into())
            }
            Ok(Debug::Protocol(name)) => sample(name, protocol),
        }
    }

    fn memory_doctor(&self) -> Reply {
        let used = self.used_bytes();
        let quota = self.config.limits.max_memory;
        let text = match quota {
            0 => format!("The store takes {used} bytes; there is no quota (max_memory).\n"),
            _ => format!("The store takes {used} of {quota} bytes (max_memory).\n"),
        };
        Reply::Text(Bytes::from(text))
    }

    fn memory_stats(&self) -> Reply {
        let keys = self.machine.store().len() as u64;
        let used = self.used_bytes();
        let fields = [
            ("total.allocated", self.facts.resident_bytes),
            ("dataset.bytes", used),
            ("keys.count", keys),
            ("keys.bytes-per-key", used.checked_div(keys).unwrap_or(0)),
        ];
        let pair = |(name, number)| (Reply::Word(name), Reply::Integer(number as i64));
        Reply::Map(fields.map(pair).into())
    }
}

/// `DEBUG PROTOCOL type`: Redis's sample of each type of reply, for those who test their parsers.
fn sample(name: &[u8], protocol: Protocol) -> Reply {
    let is_3 = protocol == Protocol::Resp3;
    let encoded = |new: &'static [u8], old: &'static [u8]| {
        Reply::Encoded(Bytes::from_static(if is_3 { new } else { old }))
    };
    let numbers = || [0, 1, 2].map(Reply::Integer).to_vec();
    match name.to_ascii_lowercase().as_slice() {
        b"string" => Reply::Word("Hello World"),
        b"integer" => Reply::Integer(12345),
        b"double" => encoded(b",3.141\r\n", b"$5\r\n3.141\r\n"),
        b"null" => Reply::Nil,
        b"array" => Reply::Array(numbers()),
        b"set" => Reply::Set(numbers()),
        b"map" => {
            let pair = |at, is_true| {
                let value = match (is_3, is_true) {
                    (true, true) => Reply::Encoded(Bytes::from_static(b"#t\r\n")),
                    (true, false) => Reply::Encoded(Bytes::from_static(b"#f\r\n")),
                    (false, _) => Reply::Integer(is_true.into()),
                };
                (Reply::Integer(at), value)
            };
            Reply::Map(vec![pair(0, false), pair(1, true), pair(2, false)])
        }
        b"attrib" => encoded(
            b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n\
              $39\r\nSome real reply following the attribute\r\n",
            b"$39\r\nSome real reply following the attribute\r\n",
        ),
        b"push" if is_3 => Reply::Encoded(Bytes::from_static(
            b">2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n$40\r\nSome real reply following the push \
              reply\r\n",
        )),
        b"push" => Reply::Error("ERR RESP2 is not supported by this command".into()),
        b"verbatim" => encoded(
            b"=29\r\ntxt:This is a verbatim\nstring\r\n",
            b"$25\r\nThis is a verbatim\nstring\r\n",
        ),
        b"true" => encoded(b"#t\r\n", b":1\r\n"),
        b"false" => encoded(b"#f\r\n", b":0\r\n"),
        b"bignum" => encoded(
            b"(1234567999999999999999999999999999999\r\n",
            b"$37\r\n1234567999999999999999999999999999999\r\n",
        ),
        _ => Reply::Error(
            "ERR Wrong protocol type name. Please use one of the following: \
             string|integer|double|null|array|set|map|attrib|push|verbatim|true|false"
                .into(),
        ),
    }
}
