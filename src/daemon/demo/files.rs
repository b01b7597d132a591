//! The files of a demo: one node.toml for each node, written once and used again afterwards.
//!
//! Called by `demo`. A directory that holds a demo is resumed with what its files say, because the
//! nodes' data remembers the addresses; options that say otherwise are refused.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use raftkv::config::{Config, Overrides};
use raftkv::limits;

use crate::daemon::arguments::DemoArguments;

const NODES: u16 = 3;
const BASE_PORT: u16 = 7100;
const PEER_OFFSET: u16 = 100;
const HTTP_OFFSET: u16 = 200;

/// One node of a demo.
pub struct NodeFiles {
    pub config: Config,
    /// Its node.toml.
    pub file: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// What it logs.
    pub log: PathBuf,
}

/// Reads the demo in the directory, or writes a new one.
///
/// # Errors
/// One line for the operator.
pub fn prepare(arguments: &DemoArguments) -> Result<Vec<NodeFiles>, String> {
    std::fs::create_dir_all(&arguments.dir)
        .map_err(|error| format!("--dir: {}: {error}", arguments.dir.display()))?;
    let dir = std::path::absolute(&arguments.dir)
        .map_err(|error| format!("--dir: {}: {error}", arguments.dir.display()))?;
    if config_path(&dir, 1).exists() { resume(arguments, &dir) } else { create(arguments, &dir) }
}

fn config_path(dir: &Path, id: u16) -> PathBuf {
    dir.join(format!("node{id}.toml"))
}

fn create(arguments: &DemoArguments, dir: &Path) -> Result<Vec<NodeFiles>, String> {
    let nodes = arguments.nodes.unwrap_or(NODES);
    let base = arguments.base_port.unwrap_or(BASE_PORT);
    if nodes == 0 || usize::from(nodes) > limits::MEMBERS {
        return Err(format!("--nodes: is {nodes}, expected 1 to {}", limits::MEMBERS));
    }
    let highest = u16::MAX - HTTP_OFFSET - nodes;
    if base > highest {
        return Err(format!("--base-port: is {base}, expected at most {highest}"));
    }
    // Node 1's file is written last: its presence says that all of them are there.
    for id in (1..=nodes).rev() {
        let path = config_path(dir, id);
        std::fs::write(&path, text(dir, id, nodes, base))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    read(dir)
}

fn text(dir: &Path, id: u16, nodes: u16, base: u16) -> String {
    let data = dir.join(format!("node{id}"));
    let mut text = format!("id = {id}\ndata_dir = {:?}\n", data.display().to_string());
    for id in 1..=nodes {
        let (peer, client, http) = (base + PEER_OFFSET + id, base + id, base + HTTP_OFFSET + id);
        write!(
            text,
            "\n[[cluster.node]]\nid = {id}\npeer = \"127.0.0.1:{peer}\"\n\
             client = \"127.0.0.1:{client}\"\nhttp = \"127.0.0.1:{http}\"\n"
        )
        .expect("a String takes all that is written");
    }
    text + "\n[cluster]\nname = \"demo\"\n"
}

fn resume(arguments: &DemoArguments, dir: &Path) -> Result<Vec<NodeFiles>, String> {
    let nodes = read(dir)?;
    let held = nodes.len();
    let shown = arguments.dir.display();
    if arguments.nodes.is_some_and(|asked| usize::from(asked) != held) {
        return Err(format!(
            "--nodes: {shown} holds a demo of {held}; leave --nodes out, or give another --dir"
        ));
    }
    let first = nodes.first().map(|node| node.config.own().client.clone()).unwrap_or_default();
    let asked = arguments.base_port.map(|base| format!("127.0.0.1:{}", base.saturating_add(1)));
    if asked.is_some_and(|asked| asked != first) {
        return Err(format!(
            "--base-port: {shown} holds a demo whose node 1 is at {first}; leave --base-port out, \
             or give another --dir"
        ));
    }
    Ok(nodes)
}

/// Reads the files of all nodes that node 1's file lists.
fn read(dir: &Path) -> Result<Vec<NodeFiles>, String> {
    let mut nodes = vec![read_one(dir, 1)?];
    let listed = nodes[0].config.cluster.nodes.len();
    for id in 2..=listed as u16 {
        nodes.push(read_one(dir, id)?);
    }
    Ok(nodes)
}

fn read_one(dir: &Path, id: u16) -> Result<NodeFiles, String> {
    let file = config_path(dir, id);
    let data = dir.join(format!("node{id}"));
    // The directory may have been moved since it was written: where it is now counts.
    let overrides = Overrides { id: None, data_dir: Some(data.clone()), ..Overrides::default() };
    Ok(NodeFiles {
        config: crate::daemon::configuration(Some(&file), &overrides)?,
        file,
        data,
        log: dir.join(format!("node{id}.log")),
    })
}
