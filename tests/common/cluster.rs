//! Several real nodes in a directory of their own: started, asked, killed, paused, brought back.
//!
//! Called by every test of real processes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::client::Client;
use super::eventually;
use super::node::Node;
use super::ports::{self, Ports};

/// How long a cluster may take to do what it should do in milliseconds: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a cluster is started with.
#[derive(Clone, Default)]
pub struct Options {
    /// How many nodes; 0 means three.
    pub nodes: usize,
    /// More of node.toml, after the list of nodes.
    pub toml: String,
    /// Data directories elsewhere than in the cluster's own.
    pub data: Vec<PathBuf>,
    /// A program that runs the nodes, by position; also those that are prepared later.
    pub wrappers: Vec<Vec<String>>,
    /// The addresses of the nodes, by position, where they are not all on the loopback; also of
    /// those that are prepared later.
    pub addresses: Vec<String>,
}

const LOOPBACK: &str = "127.0.0.1";

/// A cluster; its nodes are named by their position, 0 and up (node 0 has the id 1).
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// Where peers reach the nodes, by position.
    pub peers: Vec<String>,
    wrappers: Vec<Vec<String>>,
    /// The host of each node, by position; the loopback behind the end.
    addresses: Vec<String>,
    toml: String,
    // Dropped after the nodes, which still use them.
    ports: Vec<Ports>,
    directory: TempDir,
}

impl Cluster {
    /// Three nodes with the defaults, which have a leader.
    pub fn start() -> Cluster {
        Cluster::start_with(Options::default())
    }

    /// Starts all nodes and waits for a leader.
    pub fn start_with(options: Options) -> Cluster {
        let mut cluster = Cluster::prepare(options);
        for position in 0..cluster.nodes.len() {
            cluster.restart(position);
        }
        cluster.wait_for_leader();
        cluster
    }

    /// Writes the configurations and starts nothing.
    pub fn prepare(options: Options) -> Cluster {
        let count = if options.nodes == 0 { 3 } else { options.nodes };
        let directory = tempfile::tempdir().unwrap();
        let ports = ports::reserve(2 * count);
        let mut addresses = options.addresses;
        addresses.resize(addresses.len().max(count), LOOPBACK.to_owned());
        let mut list = String::new();
        for (position, address) in addresses[..count].iter().enumerate() {
            let (client, peer) = (ports.numbers[2 * position], ports.numbers[2 * position + 1]);
            write!(
                list,
                "\n[[cluster.node]]\nid = {}\npeer = \"{address}:{peer}\"\n\
                 client = \"{address}:{client}\"\n",
                position + 1
            )
            .unwrap();
        }
        let mut nodes = Vec::new();
        let mut peers = Vec::new();
        for (position, address) in addresses[..count].iter().enumerate() {
            let id = position as u64 + 1;
            let in_directory = |name: String| directory.path().join(name);
            let data = options.data.get(position).cloned();
            let data = data.unwrap_or_else(|| in_directory(format!("data{id}")));
            let file = in_directory(format!("node{id}.toml"));
            let head = format!("id = {id}\ndata_dir = {:?}\n", data.display().to_string());
            std::fs::write(&file, head + &list + &options.toml).unwrap();
            let client = format!("{address}:{}", ports.numbers[2 * position]);
            let log = in_directory(format!("node{id}.log"));
            peers.push(format!("{address}:{}", ports.numbers[2 * position + 1]));
            nodes.push(Node::new(id, client, file, data, log));
        }
        let mut wrappers = options.wrappers;
        wrappers.resize(wrappers.len().max(count), Vec::new());
        let (toml, ports) = (options.toml, vec![ports]);
        Cluster { nodes, peers, wrappers, addresses, toml, ports, directory }
    }

    /// Writes the configuration of one more node, which is to join; returns its position. It is
    /// not started, and nobody is asked to take it.
    pub fn prepare_another(&mut self) -> usize {
        let position = self.nodes.len();
        let id = position as u64 + 1;
        let join = self.peers.join(",");
        let host = self.addresses.get(position).map_or(LOOPBACK, String::as_str).to_owned();
        let (peer, client) = self.reserve_addresses_at(&host);
        let file = self.directory.path().join(format!("node{id}.toml"));
        let data = self.directory.path().join(format!("data{id}"));
        let log = self.directory.path().join(format!("node{id}.log"));
        let mut node = Node::new(id, client, file, data, log);
        node.arguments = vec!["--join".to_owned(), join];
        self.nodes.push(node);
        self.peers.push(peer);
        self.wrappers.resize(self.wrappers.len().max(position + 1), Vec::new());
        self.write_alone(position);
        position
    }

    /// A peer and a client address that nobody uses.
    pub fn reserve_addresses(&mut self) -> (String, String) {
        self.reserve_addresses_at(LOOPBACK)
    }

    fn reserve_addresses_at(&mut self, host: &str) -> (String, String) {
        let ports = ports::reserve(2);
        let [client, peer] = ports.numbers[..] else { panic!("two were asked for") };
        self.ports.push(ports);
        (format!("{host}:{peer}"), format!("{host}:{client}"))
    }

    /// Writes a configuration that lists a node alone, at its addresses as they are now.
    pub fn write_alone(&self, position: usize) {
        let node = &self.nodes[position];
        let (id, data) = (node.id, node.data.display().to_string());
        let text = format!(
            "id = {id}\ndata_dir = {data:?}\n\n[[cluster.node]]\nid = {id}\npeer = {:?}\n\
             client = {:?}\n{}",
            self.peers[position], node.client, self.toml
        );
        std::fs::write(&node.file, text).unwrap();
    }

    /// What RAFT ADD and its like want to know of a node: its id and addresses.
    pub fn introduced(&self, position: usize) -> [String; 3] {
        let node = &self.nodes[position];
        [node.id.to_string(), self.peers[position].clone(), node.client.clone()]
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn set_wrapper(&mut self, position: usize, wrapper: Vec<String>) {
        self.wrappers[position] = wrapper;
    }

    /// Starts a node that does not run.
    pub fn restart(&mut self, position: usize) {
        let wrapper = &self.wrappers[position];
        self.nodes[position].start(wrapper);
    }

    /// `kill -9`
    pub fn kill(&mut self, position: usize) {
        self.nodes[position].kill();
    }

    /// `kill -9` for all, all signals first.
    pub fn kill_all(&mut self) {
        for node in self.nodes.iter().filter(|node| node.runs()) {
            node.signal(Signal::KILL);
        }
        for node in self.nodes.iter_mut().filter(|node| node.runs()) {
            node.wait(PATIENCE);
        }
    }

    pub fn pause(&self, position: usize) {
        self.nodes[position].signal(Signal::STOP);
    }

    pub fn resume(&self, position: usize) {
        self.nodes[position].signal(Signal::CONT);
    }

    /// A connection to a node that should accept one.
    pub fn client(&self, position: usize) -> Client {
        let address = &self.nodes[position].client;
        eventually(&format!("node {} accepts", self.nodes[position].id), PATIENCE, || {
            Client::connect(address).ok()
        })
    }

    /// The lines of a node's `INFO raft`, or nothing where it does not answer.
    pub fn info(&self, position: usize) -> Option<BTreeMap<String, String>> {
        let mut client = Client::connect(&self.nodes[position].client).ok()?;
        client.set_timeout(Duration::from_secs(2));
        let text = client.call(&["INFO", "raft"]).ok()?.text();
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// One number of a node's `INFO raft`; 0 where it does not answer.
    pub fn figure(&self, position: usize, name: &str) -> u64 {
        let info = self.info(position).unwrap_or_default();
        info.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// The position of the node that says it leads and can serve a write, if there is one.
    pub fn leader(&self) -> Option<usize> {
        self.running().into_iter().find(|&position| {
            let leads = self
                .info(position)
                .is_some_and(|info| info.get("raft_role").is_some_and(|role| role == "leader"));
            leads && self.is_healthy(position)
        })
    }

    /// Whether a node says that it can serve a linearizable write now.
    pub fn is_healthy(&self, position: usize) -> bool {
        let client = Client::connect(&self.nodes[position].client);
        let reply = client.and_then(|mut client| {
            client.set_timeout(Duration::from_secs(2));
            client.call(&["RAFT", "HEALTH"])
        });
        reply.is_ok_and(|reply| !reply.is_error())
    }

    pub fn wait_for_leader(&self) -> usize {
        eventually("a node leads", PATIENCE, || self.leader())
    }

    /// Waits until all running nodes can serve and have applied what the leader had committed.
    pub fn wait_until_even(&self) {
        let leader = self.wait_for_leader();
        let goal = self.figure(leader, "raft_commit_index");
        for position in self.running() {
            let what = format!("node {} has applied {goal}", self.nodes[position].id);
            eventually(&what, PATIENCE, || {
                let applied = self.figure(position, "raft_applied_index");
                (applied >= goal && self.is_healthy(position)).then_some(())
            });
        }
    }

    /// The positions of the nodes that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&position| self.nodes[position].runs()).collect()
    }

    /// The positions of the running nodes but this one.
    pub fn others(&self, position: usize) -> Vec<usize> {
        self.running().into_iter().filter(|&other| other != position).collect()
    }
}
