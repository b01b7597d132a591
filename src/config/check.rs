//! From what node.toml says to a [`Config`], or to the first [`Mistake`] in it.
//!
//! Ranges come from `limits`. Called by [`Config::parse`]; every message names the key, says what
//! was found, and what would be right.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::file::{File, NodeTable, Number, RaftTable, StorageTable};
use super::notify::NotifyFlags;
use super::{
    ClientConfig, ClusterConfig, Config, LimitsConfig, ListenConfig, LogConfig, Mistake,
    NodeConfig, Overrides, RaftConfig, Readmit, Redirect, StorageConfig, SyncMode, address,
};
use crate::limits;
use crate::types::ServerId;

const DATA_DIR: &str = "./raftkv-data";
const CLIENT: &str = "127.0.0.1:7101";
const PEER: &str = "127.0.0.1:7201";

/// The text that the values came from: it gives each mistake its line.
#[derive(Clone, Copy)]
struct Checker<'a> {
    text: &'a str,
}

/// Checks `file`, which was read from `text`.
pub(super) fn config(text: &str, file: File, overrides: &Overrides) -> Result<Config, Mistake> {
    let checker = Checker { text };
    let name = checker.cluster_name(file.cluster.name.as_ref())?;
    let listed = checker.nodes(&file.cluster.node)?;
    let (id, nodes) = checker.id(&file, listed, overrides)?;
    let listen = checker.listen(&file, &nodes, id)?;
    Ok(Config {
        id,
        data_dir: checker.data_dir(file.data_dir.as_ref(), overrides)?,
        join: join_addresses(&nodes, id, overrides)?,
        cluster: ClusterConfig { name, nodes, readmit: checker.readmit(&file)? },
        listen,
        raft: checker.raft(&file.raft)?,
        client: checker.client(&file)?,
        storage: checker.storage(&file.storage)?,
        limits: checker.limits(&file)?,
        log: checker.log(&file)?,
    })
}

/// A mistake that has no line: a key that is missing, or an option of the command line.
fn missing(key: &str, problem: &str) -> Mistake {
    Mistake::at("", None, key, problem)
}

/// What `--join` gives: other servers' peer addresses.
fn join_addresses(
    nodes: &[NodeConfig],
    id: ServerId,
    overrides: &Overrides,
) -> Result<Vec<String>, Mistake> {
    let own = nodes.iter().find(|node| node.id == id).map(|node| &node.peer);
    for address in &overrides.join {
        if let Some(problem) = address::problem(address) {
            return Err(missing("--join", &problem));
        }
        if own.is_some_and(|own| own.eq_ignore_ascii_case(address)) {
            let problem = format!("{address} is this node itself, expected members of a cluster");
            return Err(missing("--join", &problem));
        }
    }
    Ok(overrides.join.clone())
}

impl Checker<'_> {
    fn mistake(self, span: Range<usize>, key: &str, problem: &str) -> Mistake {
        Mistake::at(self.text, Some(span), key, problem)
    }

    fn number(
        self,
        key: &str,
        value: Option<&Spanned<Number>>,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, Mistake> {
        let Some(value) = value else {
            return Ok(default);
        };
        let number = value.get_ref().0;
        if range.contains(&number) {
            return Ok(number);
        }
        let (low, high) = (range.start(), range.end());
        let problem = format!("is {number}, expected {low} to {high}");
        Err(self.mistake(value.span(), key, &problem))
    }

    fn address(self, key: &str, value: &Spanned<String>) -> Result<String, Mistake> {
        match address::problem(value.get_ref()) {
            None => Ok(value.get_ref().clone()),
            Some(problem) => Err(self.mistake(value.span(), key, &problem)),
        }
    }

    fn cluster_name(self, value: Option<&Spanned<String>>) -> Result<String, Mistake> {
        let Some(value) = value else {
            return Ok("main".to_owned());
        };
        let name = value.get_ref();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let length_fits = (1..=limits::CLUSTER_NAME_BYTES).contains(&name.len());
        if length_fits && name.bytes().all(allowed) {
            return Ok(name.clone());
        }
        let problem = format!(
            "expected 1 to {} letters, digits, '-', '_' or '.'",
            limits::CLUSTER_NAME_BYTES
        );
        Err(self.mistake(value.span(), "cluster.name", &problem))
    }

    fn readmit(self, file: &File) -> Result<Readmit, Mistake> {
        let Some(value) = &file.cluster.readmit else {
            return Ok(Readmit::default());
        };
        match value.get_ref().as_str() {
            "auto" => Ok(Readmit::Auto),
            "manual" => Ok(Readmit::Manual),
            other => {
                let problem = format!("is {other:?}, expected \"auto\" or \"manual\"");
                Err(self.mistake(value.span(), "cluster.readmit", &problem))
            }
        }
    }

    fn redirect(self, file: &File) -> Result<Redirect, Mistake> {
        let Some(value) = &file.client.redirect else {
            return Ok(Redirect::default());
        };
        match value.get_ref().as_str() {
            "none" => Ok(Redirect::None),
            "moved" => Ok(Redirect::Moved),
            other => {
                let problem = format!("is {other:?}, expected \"none\" or \"moved\"");
                Err(self.mistake(value.span(), "client.redirect", &problem))
            }
        }
    }

    /// The list of nodes by id; nothing that names a node twice or an address twice passes.
    fn nodes(self, tables: &[Spanned<NodeTable>]) -> Result<Vec<NodeConfig>, Mistake> {
        let mut nodes: Vec<NodeConfig> = Vec::new();
        let mut taken: Vec<(String, ServerId, &str)> = Vec::new();
        for table in tables {
            if nodes.len() == limits::MEMBERS {
                let problem = format!("more than {} nodes in one cluster", limits::MEMBERS);
                return Err(self.mistake(table.span(), "cluster.node", &problem));
            }
            let node = self.node(table)?;
            if nodes.iter().any(|other| other.id == node.id) {
                let span = table.get_ref().id.as_ref().map_or(table.span(), Spanned::span);
                let problem = format!("two nodes have the id {}; each needs its own", node.id);
                return Err(self.mistake(span, "cluster.node.id", &problem));
            }
            let table = table.get_ref();
            let addresses = [
                ("peer", table.peer.as_ref()),
                ("client", table.client.as_ref()),
                ("http", table.http.as_ref()),
            ];
            for (name, value) in addresses {
                let Some(value) = value else { continue };
                let address = value.get_ref().to_ascii_lowercase();
                if let Some((_, id, other)) = taken.iter().find(|(taken, ..)| *taken == address) {
                    let problem = format!(
                        "{address} is node {id}'s {other} address already; each port needs its own"
                    );
                    let key = format!("cluster.node.{name}");
                    return Err(self.mistake(value.span(), &key, &problem));
                }
                taken.push((address, node.id, name));
            }
            nodes.push(node);
        }
        nodes.sort_by_key(|node| node.id);
        Ok(nodes)
    }

    fn node(self, table: &Spanned<NodeTable>) -> Result<NodeConfig, Mistake> {
        let node = table.get_ref();
        let absent = |name: &str, example: &str| {
            let key = format!("cluster.node.{name}");
            let problem = format!("is missing, expected such as {name} = {example}");
            self.mistake(table.span(), &key, &problem)
        };
        let id = node.id.as_ref().ok_or_else(|| absent("id", "1"))?;
        let peer = node.peer.as_ref().ok_or_else(|| absent("peer", "\"10.0.0.1:7201\""))?;
        let client = node.client.as_ref().ok_or_else(|| absent("client", "\"10.0.0.1:7101\""))?;
        let id = self.number("cluster.node.id", Some(id), 0, 1..=i64::MAX as u64)?;
        let http = node.http.as_ref();
        Ok(NodeConfig {
            id: ServerId(id),
            peer: self.address("cluster.node.peer", peer)?,
            client: self.address("cluster.node.client", client)?,
            http: http.map(|http| self.address("cluster.node.http", http)).transpose()?,
        })
    }

    /// Which node this is, and the list with it in it: a file without a list means a single node.
    fn id(
        self,
        file: &File,
        mut nodes: Vec<NodeConfig>,
        overrides: &Overrides,
    ) -> Result<(ServerId, Vec<NodeConfig>), Mistake> {
        let in_file = self.number("id", file.id.as_ref(), 1, 1..=i64::MAX as u64)?;
        let id = overrides.id.unwrap_or(ServerId(in_file));
        if id == ServerId::ZERO {
            return Err(missing("--id", "is 0, expected 1 or above"));
        }
        if nodes.is_empty() {
            nodes.push(NodeConfig {
                id,
                peer: PEER.to_owned(),
                client: CLIENT.to_owned(),
                http: None,
            });
            return Ok((id, nodes));
        }
        let listed = join(nodes.iter().map(|node| node.id));
        if overrides.id.is_none() && file.id.is_none() {
            let problem =
                format!("is missing here and on the command line, expected one of {listed}");
            return Err(missing("id", &problem));
        }
        if nodes.iter().any(|node| node.id == id) {
            return Ok((id, nodes));
        }
        let problem = format!("is {id}, which no [[cluster.node]] has, expected one of {listed}");
        Err(match (&file.id, overrides.id) {
            (Some(value), None) => self.mistake(value.span(), "id", &problem),
            _ => missing("--id", &problem),
        })
    }

    fn data_dir(
        self,
        value: Option<&Spanned<String>>,
        overrides: &Overrides,
    ) -> Result<PathBuf, Mistake> {
        const EMPTY: &str = "is empty, expected a directory";
        match (&overrides.data_dir, value) {
            (Some(path), _) if path.as_os_str().is_empty() => Err(missing("--data-dir", EMPTY)),
            (Some(path), _) => Ok(path.clone()),
            (None, Some(value)) if value.get_ref().is_empty() => {
                Err(self.mistake(value.span(), "data_dir", EMPTY))
            }
            (None, Some(value)) => Ok(PathBuf::from(value.get_ref())),
            (None, None) => Ok(PathBuf::from(DATA_DIR)),
        }
    }

    fn listen(
        self,
        file: &File,
        nodes: &[NodeConfig],
        id: ServerId,
    ) -> Result<ListenConfig, Mistake> {
        let own = nodes.iter().find(|node| node.id == id);
        let keys = [
            ("listen.client", &file.listen.client, own.map(|node| &node.client)),
            ("listen.peer", &file.listen.peer, own.map(|node| &node.peer)),
            ("listen.http", &file.listen.http, own.and_then(|node| node.http.as_ref())),
        ];
        let mut bound: Vec<(String, &str)> = Vec::new();
        for (key, value, advertised) in keys {
            let Some(address) = value.as_ref().map(Spanned::get_ref).or(advertised) else {
                continue;
            };
            let address = address.to_ascii_lowercase();
            let other = bound.iter().find(|(taken, _)| *taken == address);
            if let (Some(value), Some((_, other))) = (value, other) {
                let problem = format!("{address} is {other} already; each port needs its own");
                return Err(self.mistake(value.span(), key, &problem));
            }
            bound.push((address, key));
        }
        if let (Some(value), true) = (&file.listen.http, own.is_some_and(|own| own.http.is_none()))
        {
            let problem =
                format!("node {id} serves no HTTP, expected http in its [[cluster.node]]");
            return Err(self.mistake(value.span(), "listen.http", &problem));
        }
        let address = |key, value: &Option<Spanned<String>>| {
            value.as_ref().map(|value| self.address(key, value)).transpose()
        };
        Ok(ListenConfig {
            client: address("listen.client", &file.listen.client)?,
            peer: address("listen.peer", &file.listen.peer)?,
            http: address("listen.http", &file.listen.http)?,
        })
    }

    fn raft(self, table: &RaftTable) -> Result<RaftConfig, Mistake> {
        const KEY: &str = "raft.election_timeout_ms";
        let default = RaftConfig::default();
        let mut timeout = default.election_timeout;
        if let Some(value) = &table.election_timeout_ms {
            let pair = *value.get_ref();
            let (floor, ceiling) =
                (limits::ELECTION_TIMEOUT_MS_MIN, limits::ELECTION_TIMEOUT_MS_MAX);
            if pair.0 < floor || pair.1 > ceiling || pair.0 >= pair.1 {
                let problem = format!(
                    "is [{}, {}], expected [lowest, highest] from {floor} to {ceiling}, \
                     the first below the second",
                    pair.0, pair.1
                );
                return Err(self.mistake(value.span(), KEY, &problem));
            }
            timeout = (Duration::from_millis(pair.0), Duration::from_millis(pair.1));
        }
        let lowest_ms = timeout.0.as_millis() as u64;
        let heartbeat = table.heartbeat_ms.as_ref();
        let heartbeat_ms =
            heartbeat.map_or(default.heartbeat.as_millis() as u64, |value| value.get_ref().0);
        if heartbeat_ms == 0 || heartbeat_ms >= lowest_ms {
            // The line is that of whichever of the two the file gives.
            let span = heartbeat.map(Spanned::span);
            let span = span.or(table.election_timeout_ms.as_ref().map(Spanned::span));
            let problem = format!(
                "is {heartbeat_ms}, expected 1 to {}: below {KEY}'s lowest, {lowest_ms}",
                lowest_ms - 1
            );
            return Err(Mistake::at(self.text, span, "raft.heartbeat_ms", &problem));
        }
        Ok(RaftConfig {
            election_timeout: timeout,
            heartbeat: Duration::from_millis(heartbeat_ms),
            lease: table.lease.unwrap_or(default.lease),
        })
    }

    fn client(self, file: &File) -> Result<ClientConfig, Mistake> {
        let default = ClientConfig::default();
        let request_ms = self.number(
            "client.request_timeout_ms",
            file.client.request_timeout_ms.as_ref(),
            default.request_timeout.as_millis() as u64,
            1..=limits::REQUEST_TIMEOUT_MS_MAX,
        )?;
        let idle_ms = self.number(
            "client.idle_timeout_ms",
            file.client.idle_timeout_ms.as_ref(),
            default.idle_timeout.as_millis() as u64,
            0..=limits::IDLE_TIMEOUT_MS_MAX,
        )?;
        Ok(ClientConfig {
            request_timeout: Duration::from_millis(request_ms),
            idle_timeout: Duration::from_millis(idle_ms),
            notify_keyspace_events: self.notify(&file.client.notify_keyspace_events)?,
            debug_commands: file.client.debug_commands.unwrap_or(default.debug_commands),
            redirect: self.redirect(file)?,
        })
    }

    fn notify(self, value: &Option<Spanned<String>>) -> Result<NotifyFlags, Mistake> {
        let Some(value) = value else {
            return Ok(NotifyFlags::default());
        };
        NotifyFlags::parse(value.get_ref().as_bytes()).ok_or_else(|| {
            let problem = format!("is {:?}, expected letters of \"KEg$xA\"", value.get_ref());
            self.mistake(value.span(), "client.notify_keyspace_events", &problem)
        })
    }

    fn storage(self, table: &StorageTable) -> Result<StorageConfig, Mistake> {
        let default = StorageConfig::default();
        let sync = match &table.sync {
            None => default.sync,
            Some(value) => match value.get_ref().as_str() {
                "auto" => SyncMode::Auto,
                "uring" => SyncMode::Uring,
                "thread" => SyncMode::Thread,
                other => {
                    let problem =
                        format!("is {other:?}, expected \"auto\", \"uring\" or \"thread\"");
                    return Err(self.mistake(value.span(), "storage.sync", &problem));
                }
            },
        };
        let segment_bytes = self.number(
            "storage.segment_bytes",
            table.segment_bytes.as_ref(),
            default.segment_bytes,
            limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX,
        )?;
        // Direct writes go by whole blocks, so a segment is a whole number of them.
        let multiple = limits::SEGMENT_BYTES_MULTIPLE;
        if !segment_bytes.is_multiple_of(multiple) {
            let span = table.segment_bytes.as_ref().map(Spanned::span);
            let problem = format!("is {segment_bytes}, expected a multiple of {multiple}");
            return Err(Mistake::at(self.text, span, "storage.segment_bytes", &problem));
        }
        let snapshot_log_bytes = self.number(
            "storage.snapshot_log_bytes",
            table.snapshot_log_bytes.as_ref(),
            default.snapshot_log_bytes,
            limits::SNAPSHOT_LOG_BYTES_MIN..=limits::SNAPSHOT_LOG_BYTES_MAX,
        )?;
        Ok(StorageConfig { sync, segment_bytes, snapshot_log_bytes })
    }

    fn limits(self, file: &File) -> Result<LimitsConfig, Mistake> {
        let default = LimitsConfig::default();
        let clients = self.number(
            "limits.max_clients",
            file.limits.max_clients.as_ref(),
            default.max_clients as u64,
            1..=limits::CLIENTS_MAX as u64,
        )?;
        Ok(LimitsConfig {
            max_memory: file.limits.max_memory.as_ref().map_or(0, |value| value.get_ref().0),
            max_clients: clients as usize,
        })
    }

    fn log(self, file: &File) -> Result<LogConfig, Mistake> {
        let level = match &file.log.level {
            None => LogConfig::default().level,
            Some(value) => match value.get_ref().as_str() {
                "error" => log::LevelFilter::Error,
                "warn" => log::LevelFilter::Warn,
                "info" => log::LevelFilter::Info,
                "debug" => log::LevelFilter::Debug,
                "trace" => log::LevelFilter::Trace,
                other => {
                    let problem = format!(
                        "is {other:?}, expected \"error\", \"warn\", \"info\", \"debug\" or \
                         \"trace\""
                    );
                    return Err(self.mistake(value.span(), "log.level", &problem));
                }
            },
        };
        if let Some(value) = file.log.file.as_ref().filter(|value| value.get_ref().is_empty()) {
            return Err(self.mistake(value.span(), "log.file", "is empty, expected a file's path"));
        }
        let file = file.log.file.as_ref().map(|value| PathBuf::from(value.get_ref()));
        Ok(LogConfig { level, file })
    }
}

fn join(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    items.join(", ")
}
