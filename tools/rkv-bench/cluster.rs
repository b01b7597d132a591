//! Three real nodes on this machine: started, killed, stopped, continued, and asked how they are.
//!
//! Called by `failover`. Uses only what an operator has: a configuration file (design page 4 §2),
//! signals, `INFO raft` and `RAFT HEALTH`. Whatever happens, dropping it ends its processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use raftkv::client::{Connection, Wire};
use raftkv::proto::reply_decoder::Value;
use rustix::process::{Pid, Signal, kill_process};

/// How many nodes a cluster has.
pub const NODES: usize = 3;

/// How long a node may take to answer a question about itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait between two looks at the cluster.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A cluster of processes. Nodes are named by their place, 0 and up; their ids are one more.
pub struct Cluster {
    raftkvd: PathBuf,
    dir: PathBuf,
    endpoints: Vec<String>,
    children: Vec<Option<Child>>,
}

/// The lines of `INFO raft` that matter here.
struct Info {
    is_leader: bool,
    leader_id: u64,
    commit_index: u64,
    applied_index: u64,
}

impl Cluster {
    /// Writes the configuration into `dir` and starts all nodes.
    pub fn start(raftkvd: &Path, dir: &Path) -> io::Result<Cluster> {
        let ports = free_ports(2 * NODES)?;
        let (peers, clients) = ports.split_at(NODES);
        fs::create_dir_all(dir)?;
        fs::write(dir.join("node.toml"), configuration(dir, peers, clients))?;
        let mut cluster = Cluster {
            raftkvd: raftkvd.to_owned(),
            dir: dir.to_owned(),
            endpoints: clients.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
            children: (0..NODES).map(|_| None).collect(),
        };
        for node in 0..NODES {
            cluster.spawn(node)?;
        }
        Ok(cluster)
    }

    /// Starts a node that isn't running. What it says is added to its file in the directory.
    pub fn spawn(&mut self, node: usize) -> io::Result<()> {
        assert!(self.children[node].is_none(), "a node is started once");
        let path = self.dir.join(format!("node{}.log", node + 1));
        let output = File::options().create(true).append(true).open(path)?;
        let child = Command::new(&self.raftkvd)
            .arg("-c")
            .arg(self.dir.join("node.toml"))
            .args(["--id", &(node + 1).to_string()])
            .arg("--data-dir")
            .arg(self.dir.join(format!("node{}", node + 1)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.raftkvd.display()))
            })?;
        self.children[node] = Some(child);
        Ok(())
    }

    /// Where clients reach a node.
    pub fn endpoint(&self, node: usize) -> &str {
        &self.endpoints[node]
    }

    /// `kill -9`, and waits for the end of the process, so that its data directory is free.
    pub fn kill(&mut self, node: usize) -> io::Result<()> {
        if let Some(mut child) = self.children[node].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends a signal to a running node.
    pub fn signal(&self, node: usize, signal: Signal) -> io::Result<()> {
        let child = self.children[node].as_ref().expect("only running nodes are sent signals");
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Waits until all nodes name one leader, serve writes and have applied what any of them has
    /// committed. Returns the leader.
    pub fn wait_until_healthy(&mut self, timeout: Duration) -> io::Result<usize> {
        let deadline = Instant::now() + timeout;
        loop {
            let why = match self.leader_if_healthy() {
                Ok(leader) => return Ok(leader),
                Err(why) => why,
            };
            self.check_running()?;
            if Instant::now() > deadline {
                let seconds = timeout.as_secs();
                let message = format!("the cluster is not healthy after {seconds} s: {why}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            thread::sleep(LOOK_PAUSE);
        }
    }

    fn leader_if_healthy(&self) -> Result<usize, String> {
        let mut infos = Vec::new();
        for node in 0..NODES {
            infos.push(self.info(node)?);
        }
        let leaders: Vec<_> = (0..NODES).filter(|&node| infos[node].is_leader).collect();
        let [leader] = leaders[..] else {
            return Err(format!("{} leaders", leaders.len()));
        };
        let committed = infos.iter().map(|info| info.commit_index).max().unwrap_or_default();
        for (node, info) in infos.iter().enumerate() {
            if info.leader_id != leader as u64 + 1 {
                return Err(format!("node {} follows {}", node + 1, info.leader_id));
            }
            if info.applied_index < committed {
                return Err(format!("node {} lags behind", node + 1));
            }
            match self.ask(node, &["RAFT", "HEALTH"])? {
                Value::Simple(text) if text == "OK" => {}
                other => return Err(format!("node {}: {other:?}", node + 1)),
            }
        }
        Ok(leader)
    }

    fn info(&self, node: usize) -> Result<Info, String> {
        let text = match self.ask(node, &["INFO", "raft"])? {
            Value::Bulk(text) | Value::Text(text) => String::from_utf8_lossy(&text).into_owned(),
            other => return Err(format!("node {}: INFO raft: {other:?}", node + 1)),
        };
        let fields: BTreeMap<_, _> =
            text.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let field = |name: &str| {
            fields.get(name).copied().ok_or(format!("node {}: no {name} in INFO raft", node + 1))
        };
        let number = |name: &str| {
            let text = field(name)?;
            text.parse().map_err(|_| format!("node {}: {name} is {text}", node + 1))
        };
        Ok(Info {
            is_leader: field("raft_role")? == "leader",
            leader_id: number("raft_leader_id")?,
            commit_index: number("raft_commit_index")?,
            applied_index: number("raft_applied_index")?,
        })
    }

    fn ask(&self, node: usize, args: &[&str]) -> Result<Value, String> {
        Connection::open(&self.endpoints[node], Wire::Text, ANSWER_TIMEOUT)
            .and_then(|mut connection| connection.call(args, ANSWER_TIMEOUT))
            .map_err(|error| format!("node {}: {error}", node + 1))
    }

    /// A node that ended by itself is an error at once, not a time-out later.
    fn check_running(&mut self) -> io::Result<()> {
        for (node, child) in self.children.iter_mut().enumerate() {
            if let Some(child) = child
                && let Some(status) = child.try_wait()?
            {
                return Err(io::Error::other(format!("node {} ended: {status}", node + 1)));
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // One that has ended already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn configuration(dir: &Path, peers: &[u16], clients: &[u16]) -> String {
    let mut text = format!("id = 1\ndata_dir = {:?}\n", dir.join("node1"));
    for (place, (peer, client)) in peers.iter().zip(clients).enumerate() {
        text += &format!(
            "\n[[cluster.node]]\nid = {}\npeer = \"127.0.0.1:{peer}\"\nclient = \
             \"127.0.0.1:{client}\"\n",
            place + 1
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_as_the_design_writes_it() {
        let text = configuration(Path::new("/tmp/x"), &[1, 2, 3], &[4, 5, 6]);
        let parsed: toml::Table = text.parse().unwrap();
        assert_eq!(parsed["id"].as_integer(), Some(1));
        assert_eq!(parsed["data_dir"].as_str(), Some("/tmp/x/node1"));
        let nodes = parsed["cluster"]["node"].as_array().unwrap();
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[2]["id"].as_integer(), Some(3));
        assert_eq!(nodes[2]["peer"].as_str(), Some("127.0.0.1:3"));
        assert_eq!(nodes[2]["client"].as_str(), Some("127.0.0.1:6"));
    }
}
