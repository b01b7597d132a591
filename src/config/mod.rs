//! node.toml -> [`Config`]. Every mistake is one line that names its key and what would be right.
//!
//! `file` is the file as serde reads it, `check` turns it into a `Config` or a [`Mistake`],
//! `values` is what the rest of the program sees. Called by `main`; opens no file itself, so that a
//! refused configuration has touched nothing.

mod address;
mod check;
mod file;
mod mistake;
mod notify;
mod values;

use std::path::PathBuf;

pub use address::problem as address_problem;
pub use mistake::Mistake;
pub use notify::NotifyFlags;
pub use values::{
    ClientConfig, ClusterConfig, Config, LimitsConfig, ListenConfig, LogConfig, NodeConfig,
    RaftConfig, Readmit, Redirect, StorageConfig, SyncMode,
};

use crate::types::ServerId;

/// What the command line says; it beats the file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Overrides {
    /// `--id`
    pub id: Option<ServerId>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--join`
    pub join: Vec<String>,
}

impl Config {
    /// The configuration that `text`, a node.toml, and the command line give together.
    ///
    /// # Errors
    /// The first mistake in the file.
    pub fn parse(text: &str, overrides: &Overrides) -> Result<Config, Mistake> {
        check::config(text, file::parse(text)?, overrides)
    }

    /// A single node with the defaults: what `raftkvd` without a file runs.
    ///
    /// # Errors
    /// An `--id` that cannot be one.
    pub fn single(overrides: &Overrides) -> Result<Config, Mistake> {
        Config::parse("", overrides)
    }

    /// This node's own line of the list.
    pub fn own(&self) -> &NodeConfig {
        self.cluster
            .nodes
            .iter()
            .find(|node| node.id == self.id)
            .expect("check::config has found the id in the list")
    }

    /// Where the client port is bound, and the key that says so.
    pub fn client_listen(&self) -> (&str, &'static str) {
        match &self.listen.client {
            Some(address) => (address, "listen.client"),
            None => (&self.own().client, "cluster.node.client"),
        }
    }

    /// Where the peer port is bound, and the key that says so.
    pub fn peer_listen(&self) -> (&str, &'static str) {
        match &self.listen.peer {
            Some(address) => (address, "listen.peer"),
            None => (&self.own().peer, "cluster.node.peer"),
        }
    }
}
