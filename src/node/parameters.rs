//! CONFIG GET and SET: what this node's parameters are, in Redis's names, and which can change.
//!
//! What is set lasts until the process ends: node.toml is its author's. A parameter that this
//! server cannot vary may be set to what it is, which is what test harnesses and set-up scripts
//! mostly do; another value is refused, never ignored. Called by `connection.rs` and `server.rs`.

use std::time::Duration;

use bytes::Bytes;

use super::node::Node;
use crate::config::NotifyFlags;
use crate::kv::error::CommandError;
use crate::kv::glob;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::integer::parse_integer;
use crate::proto::message::GrowthRefusal;
use crate::proto::reply::{Reply, escape_echo};

/// A parameter that can be set, with its new value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Setting {
    MaxMemory(u64),
    SlowerThan(i64),
    SlowlogLen(usize),
    LatencyThreshold(u64),
    Notify(NotifyFlags),
    Timeout(Duration),
    MaxClients(usize),
    /// To what it is.
    AsItIs,
}

impl Node {
    /// Whether the store has all the memory that it may take. An empty one counts as a byte, so that
    /// a quota of 1 refuses all growth, as Redis's does.
    pub(super) fn is_over_quota(&self) -> bool {
        let quota = self.config.limits.max_memory;
        quota > 0 && self.used_bytes().max(1) >= quota
    }

    /// Why commands of this node's clients that grow the store are refused, if they are: the leader
    /// says so, or this node's own quota does, which CONFIG SET may have made the smaller one.
    pub(super) fn growth_refusal(&self) -> Option<GrowthRefusal> {
        let own = || self.is_over_quota().then_some(GrowthRefusal::Memory);
        self.raft.growth_refusal().or_else(own)
    }

    /// How many clients there may be, and how long one may be idle, zero being for ever: what the
    /// driver goes by, and CONFIG SET changes.
    pub fn client_bounds(&self) -> (usize, Duration) {
        (self.config.limits.max_clients, self.config.client.idle_timeout)
    }

    /// CONFIG SET maxclients. The process has made sure of descriptors for as many as it began with.
    fn max_clients(&self, value: &[u8]) -> Result<Setting, CommandError> {
        let name = "maxclients";
        match usize::try_from(integer(name, value)?) {
            Ok(count) if (1..=self.most_clients).contains(&count) => Ok(Setting::MaxClients(count)),
            Ok(0) | Err(_) => {
                Err(wrong(name, "argument must be between 1 and 4294967295 inclusive"))
            }
            Ok(_) => Err(CommandError::TooManyClients(self.most_clients)),
        }
    }

    /// All parameters that are shown, ordered by name.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        let slowlog = &self.operations.slowlog;
        let debug = if config.client.debug_commands { "yes" } else { "no" };
        vec![
            ("appendfsync", "always".to_owned()),
            ("appendonly", "yes".to_owned()),
            ("databases", "1".to_owned()),
            ("enable-debug-command", debug.to_owned()),
            ("latency-monitor-threshold", slowlog.latency_threshold_ms.to_string()),
            ("maxclients", config.limits.max_clients.to_string()),
            ("maxmemory", config.limits.max_memory.to_string()),
            ("maxmemory-policy", "noeviction".to_owned()),
            ("notify-keyspace-events", config.client.notify_keyspace_events.to_string()),
            ("proto-max-bulk-len", limits::VALUE_BYTES.to_string()),
            ("save", String::new()),
            ("slowlog-log-slower-than", slowlog.slower_than_us.to_string()),
            ("slowlog-max-len", slowlog.max_len.to_string()),
            ("timeout", config.client.idle_timeout.as_secs().to_string()),
        ]
    }

    /// `CONFIG GET pattern ...`
    pub(super) fn config_get(&self, args: Args<'_>) -> Reply {
        let is_asked = |name: &str| {
            args.iter()
                .skip(2)
                .any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
        };
        let asked = self.parameters().into_iter().filter(|(name, _)| is_asked(name));
        let pair = |(name, value)| (Reply::Word(name), Reply::Bulk(Bytes::from(value)));
        Reply::Map(asked.map(pair).collect())
    }

    /// `CONFIG SET parameter value ...`: all of them, or none.
    pub(super) fn config_set(&mut self, args: Args<'_>) -> Result<Reply, CommandError> {
        let parameters = self.parameters();
        let mut settings = Vec::new();
        let mut seen: Vec<&'static str> = Vec::new();
        let mut words = args.iter().skip(2);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let is_named =
                |(known, _): &&(&'static str, String)| name.eq_ignore_ascii_case(known.as_bytes());
            let Some((name, current)) = parameters.iter().find(is_named) else {
                let name = escape_echo(name, limits::ECHO_BYTES);
                return Err(CommandError::UnknownParameter(name));
            };
            if seen.contains(name) {
                return Err(wrong(name, "duplicate parameter"));
            }
            seen.push(name);
            settings.push(match *name {
                "maxclients" => self.max_clients(value)?,
                _ => read(name, value, current)?,
            });
        }
        for setting in settings {
            match setting {
                Setting::MaxMemory(bytes) => self.config.limits.max_memory = bytes,
                Setting::SlowerThan(us) => self.operations.slowlog.slower_than_us = us,
                Setting::SlowlogLen(len) => self.operations.slowlog.set_max_len(len),
                Setting::LatencyThreshold(ms) => self.operations.slowlog.latency_threshold_ms = ms,
                Setting::Notify(flags) => self.config.client.notify_keyspace_events = flags,
                Setting::Timeout(timeout) => self.config.client.idle_timeout = timeout,
                Setting::MaxClients(count) => self.config.limits.max_clients = count,
                Setting::AsItIs => {}
            }
        }
        Ok(Reply::OK)
    }
}

/// A number of a parameter.
fn integer(name: &str, value: &[u8]) -> Result<i64, CommandError> {
    let refused = || wrong(name, "argument couldn't be parsed into an integer");
    parse_integer(value).ok_or_else(refused)
}

fn wrong(name: &str, why: &'static str) -> CommandError {
    CommandError::Parameter(name.to_owned(), why)
}

/// What setting `name` to `value` means.
fn read(name: &'static str, value: &[u8], current: &str) -> Result<Setting, CommandError> {
    let integer = || integer(name, value);
    match name {
        "maxmemory" => {
            let refused = || wrong(name, "argument must be a memory value");
            memory_bytes(value).map(Setting::MaxMemory).ok_or_else(refused)
        }
        "slowlog-log-slower-than" => match integer()? {
            us if us >= -1 => Ok(Setting::SlowerThan(us)),
            _ => Err(wrong(name, "argument must be between -1 and 9223372036854775807 inclusive")),
        },
        "slowlog-max-len" => match usize::try_from(integer()?) {
            Ok(len) if len <= limits::SLOWLOG_ENTRIES => Ok(Setting::SlowlogLen(len)),
            _ => Err(wrong(name, "argument must be between 0 and 1024 inclusive")),
        },
        "latency-monitor-threshold" => match u64::try_from(integer()?) {
            Ok(ms) => Ok(Setting::LatencyThreshold(ms)),
            Err(_) => {
                Err(wrong(name, "argument must be between 0 and 9223372036854775807 inclusive"))
            }
        },
        "timeout" => match i32::try_from(integer()?).map(u64::try_from) {
            Ok(Ok(seconds)) => Ok(Setting::Timeout(Duration::from_secs(seconds))),
            _ => Err(wrong(name, "argument must be between 0 and 2147483647 inclusive")),
        },
        "notify-keyspace-events" => {
            let refused = || wrong(name, "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.");
            NotifyFlags::parse(value).map(Setting::Notify).ok_or_else(refused)
        }
        _ if value.eq_ignore_ascii_case(current.as_bytes()) => Ok(Setting::AsItIs),
        _ => Err(wrong(name, "can't set immutable config")),
    }
}

/// A number of bytes as Redis's configuration takes it: `100`, `100mb`, `1g`; 1k is 1000 and 1kb is
/// 1024.
fn memory_bytes(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = value.split_at(digits);
    let number = u64::try_from(parse_integer(number)?).ok()?;
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

const _: () = assert!(limits::SLOWLOG_ENTRIES == 1024, "the error of slowlog-max-len names it");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bytes_reads_redis_s_units() {
        let read: [(&[u8], _); 8] = [
            (b"0", Some(0)),
            (b"100", Some(100)),
            (b"1k", Some(1000)),
            (b"2Kb", Some(2048)),
            (b"1GB", Some(1 << 30)),
            (b"bla", None),
            (b"-1", None),
            (b"1tb", None),
        ];
        for (text, bytes) in read {
            assert_eq!(memory_bytes(text), bytes, "{}", text.escape_ascii());
        }
        assert_eq!(memory_bytes(b"99999999999gb"), None, "it overflows");
    }

    #[test]
    fn read_takes_what_is_and_refuses_what_cannot_be() {
        assert_eq!(read("appendonly", b"YES", "yes"), Ok(Setting::AsItIs));
        let refused = read("appendonly", b"no", "yes").unwrap_err();
        assert_eq!(
            refused.message(),
            "ERR CONFIG SET failed (possibly related to argument 'appendonly') - can't set \
             immutable config"
        );
        assert_eq!(read("slowlog-max-len", b"7", "128"), Ok(Setting::SlowlogLen(7)));
        assert!(read("slowlog-max-len", b"1025", "128").is_err());
        assert!(read("slowlog-log-slower-than", b"-2", "0").is_err());
        let flags = NotifyFlags::parse(b"KEA").expect("they are letters");
        assert_eq!(read("notify-keyspace-events", b"KEA", ""), Ok(Setting::Notify(flags)));
        assert!(read("notify-keyspace-events", b"KEQ", "").is_err());
        assert!(read("latency-monitor-threshold", b"x", "0").is_err());
    }
}
