//! `raftkvd check`: what a configuration would run, in words.
//!
//! Called by `main`. Touches neither the data directory nor a port.

use std::fmt::Write as _;
use std::process::ExitCode;

use raftkv::config::{Config, SyncMode};

use super::arguments::NodeArguments;
use super::{USAGE, configuration, fail};

/// Checks and prints; 0 or 2.
pub fn check(arguments: &NodeArguments) -> ExitCode {
    match configuration(arguments.config.as_deref(), &arguments.overrides()) {
        Ok(config) => {
            print!("{}", describe(&config));
            ExitCode::SUCCESS
        }
        Err(problem) => fail(USAGE, &problem),
    }
}

fn describe(config: &Config) -> String {
    let nodes = &config.cluster.nodes;
    let (client, client_key) = config.client_listen();
    let (peer, peer_key) = config.peer_listen();
    let (low, high) = config.raft.election_timeout;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "  {name:<10} {value}").expect("a String takes all that is written");
    };
    line("data", config.data_dir.display().to_string());
    line("clients", format!("{client} ({client_key})"));
    line("peers", format!("{peer} ({peer_key})"));
    line(
        "election",
        format!(
            "{} to {} ms without a leader, who speaks every {} ms",
            low.as_millis(),
            high.as_millis(),
            config.raft.heartbeat.as_millis()
        ),
    );
    line(
        "log",
        format!("segments of {} bytes, sync = {}", config.storage.segment_bytes, sync(config)),
    );
    line("snapshots", format!("after {} bytes of log, or more", config.storage.snapshot_log_bytes));
    line("quorum", format!("{} of {}", nodes.len() / 2 + 1, nodes.len()));
    for node in nodes {
        let http = node.http.as_ref().map_or(String::new(), |http| format!(", http {http}"));
        let address = format!("peer {}, client {}{http}", node.peer, node.client);
        line(&format!("node {}", node.id), address);
    }
    if nodes.len() > 1 && nodes.len().is_multiple_of(2) {
        let fewer = nodes.len() - 1;
        line("note", format!("{fewer} nodes survive as many failures as {} do", nodes.len()));
    }
    let name = &config.cluster.name;
    format!("node {} of {} in cluster \"{name}\"\n{text}", config.id, nodes.len())
}

fn sync(config: &Config) -> &'static str {
    match config.storage.sync {
        SyncMode::Auto => "auto",
        SyncMode::Uring => "uring",
        SyncMode::Thread => "thread",
    }
}
