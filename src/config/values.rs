//! node.toml as values: [`Config`] and its parts, with their defaults.
//!
//! The file is the same on all nodes but for `id` and `data_dir`. Called by everything that is
//! configured; the core is given the parts it needs. Checks nothing: that is `check`.

use std::path::PathBuf;
use std::time::Duration;

use super::notify::NotifyFlags;
use crate::limits;
use crate::types::ServerId;

/// One node's whole configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// This node.
    pub id: ServerId,
    /// Where its files are.
    pub data_dir: PathBuf,
    /// The members that a new cluster starts with.
    pub cluster: ClusterConfig,
    /// Peer addresses of a cluster to be let into, which the command line gives; such a node founds
    /// nothing, and of the list above only its own line counts.
    pub join: Vec<String>,
    /// Where to bind, if elsewhere than the addresses above.
    pub listen: ListenConfig,
    /// Timing of consensus.
    pub raft: RaftConfig,
    /// The client port.
    pub client: ClientConfig,
    /// The log.
    pub storage: StorageConfig,
    /// Quotas.
    pub limits: LimitsConfig,
    /// Diagnostics.
    pub log: LogConfig,
}

/// `[cluster]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfig {
    /// The cluster's name; nodes of another name are refused.
    pub name: String,
    /// `[[cluster.node]]`, ordered by id.
    pub nodes: Vec<NodeConfig>,
    /// What becomes of a member that lost its disk.
    pub readmit: Readmit,
}

/// How a member that comes back on another data directory is let in again, as a learner that is
/// promoted once it has caught up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Readmit {
    /// By RAFT ADD.
    #[default]
    Manual,
    /// By whoever leads, as soon as it says hello.
    Auto,
}

/// `[[cluster.node]]`: addresses are `host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    /// Its id, 1 and up.
    pub id: ServerId,
    /// Where peers reach it.
    pub peer: String,
    /// Where clients reach it.
    pub client: String,
    /// Where HTTP is served, if it is.
    pub http: Option<String>,
}

/// `[listen]`: `host:port`, or nothing to bind where the node's own addresses say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ListenConfig {
    /// For clients.
    pub client: Option<String>,
    /// For peers.
    pub peer: Option<String>,
    /// For HTTP.
    pub http: Option<String>,
}

/// `[raft]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RaftConfig {
    /// A follower that hears no leader for a random time between these becomes a candidate.
    pub election_timeout: (Duration, Duration),
    /// How often an idle leader says that it is there.
    pub heartbeat: Duration,
    /// Whether lease reads are offered. They rely on clocks that no hypervisor stops.
    pub lease: bool,
}

/// `[client]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientConfig {
    /// A command that could not be decided for so long is answered `-CLUSTERDOWN` or `-INDOUBT`.
    pub request_timeout: Duration,
    /// A client that sends nothing for so long is closed; zero: never.
    pub idle_timeout: Duration,
    /// Which changes are told to subscribers.
    pub notify_keyspace_events: NotifyFlags,
    /// Whether DEBUG is carried out: for tests alone.
    pub debug_commands: bool,
    /// Whether clients are sent to the leader.
    pub redirect: Redirect,
}

/// Whether a node that doesn't lead sends clients on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Redirect {
    /// It serves them.
    #[default]
    None,
    /// It answers `-MOVED`, as a replica in a Redis Cluster does.
    Moved,
}

/// How a log write becomes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMode {
    /// io_uring where the kernel allows it, else the helper thread.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// The helper thread.
    Thread,
}

/// `[storage]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageConfig {
    /// How a write becomes durable.
    pub sync: SyncMode,
    /// A log segment's size in bytes.
    pub segment_bytes: u64,
    /// So many bytes of log since the last snapshot make the next one due, or as many as the
    /// last one has if that is more.
    pub snapshot_log_bytes: u64,
}

/// `[limits]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitsConfig {
    /// The store's quota in bytes; zero: none.
    pub max_memory: u64,
    /// Client connections.
    pub max_clients: usize,
}

/// `[log]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// error, warn, info, debug or trace.
    pub level: log::LevelFilter,
    /// A file to write to instead of stderr.
    pub file: Option<PathBuf>,
}

impl Default for RaftConfig {
    fn default() -> RaftConfig {
        RaftConfig {
            election_timeout: (Duration::from_millis(150), Duration::from_millis(300)),
            heartbeat: Duration::from_millis(50),
            lease: false,
        }
    }
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            request_timeout: Duration::from_secs(5),
            idle_timeout: Duration::ZERO,
            notify_keyspace_events: NotifyFlags::default(),
            debug_commands: false,
            redirect: Redirect::None,
        }
    }
}

impl Default for StorageConfig {
    fn default() -> StorageConfig {
        StorageConfig {
            sync: SyncMode::Auto,
            segment_bytes: limits::SEGMENT_BYTES,
            snapshot_log_bytes: limits::SNAPSHOT_LOG_BYTES,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig { max_memory: 0, max_clients: limits::CLIENTS }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { level: log::LevelFilter::Info, file: None }
    }
}
