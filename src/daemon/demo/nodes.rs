//! The nodes of a demo as child processes: started, asked how they are, and ended.
//!
//! Called by `demo`. Each child is this same executable. It is told to end when this process does,
//! so that not even `kill -9` of the demo leaves nodes behind.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::files::NodeFiles;

/// How long a node may take to answer one question.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the nodes may take to end before they are killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the children are looked at while they end.
const POLL: Duration = Duration::from_millis(20);

/// One running node, or one that has ended.
pub struct DemoNode {
    pub files: NodeFiles,
    pub child: Child,
    ended: bool,
}

/// Says which port is taken before any node is started.
///
/// # Errors
/// One line for the operator.
pub fn check_ports(nodes: &[NodeFiles]) -> Result<(), String> {
    for node in nodes {
        let (client, _) = node.config.client_listen();
        let (peer, _) = node.config.peer_listen();
        for (address, what) in [(client, "client"), (peer, "peer")] {
            if let Err(error) = TcpListener::bind(address) {
                let id = node.config.id;
                let port = format!("{address}, the {what} port of node {id}: {error}");
                let hint = "end what uses it, or give another --base-port and --dir";
                return Err(format!("{port}; {hint}"));
            }
        }
    }
    Ok(())
}

impl DemoNode {
    /// Starts the node as a process of its own.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn start(files: NodeFiles) -> Result<DemoNode, String> {
        let start = || -> io::Result<Child> {
            let log = OpenOptions::new().create(true).append(true).open(&files.log)?;
            Command::new(std::env::current_exe()?)
                .arg("-c")
                .arg(&files.file)
                .arg("--data-dir")
                .arg(&files.data)
                .arg("--end-with-parent")
                .arg(std::process::id().to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                // A group of its own: Ctrl-C reaches only this process, which then ends the nodes.
                .process_group(0)
                .spawn()
        };
        match start() {
            Ok(child) => Ok(DemoNode { files, child, ended: false }),
            Err(error) => Err(format!("node {}: {error}", files.config.id)),
        }
    }

    /// How it ended, once.
    pub fn just_ended(&mut self) -> Option<ExitStatus> {
        if self.ended {
            return None;
        }
        // A child that cannot be waited for has been reaped: it is gone as well.
        let status = self.child.try_wait().unwrap_or(Some(ExitStatus::default()))?;
        self.ended = true;
        Some(status)
    }

    /// Whether it has not ended.
    pub fn runs(&self) -> bool {
        !self.ended
    }

    /// Which node leads, if this one can serve a linearizable write now.
    pub fn leader(&self) -> Option<u64> {
        let (address, _) = self.files.config.client_listen();
        let answer = ask(address, "RAFT HEALTH\r\nINFO raft\r\nQUIT\r\n").ok()?;
        let rest = answer.strip_prefix("+OK\r\n")?;
        let line = rest.lines().find_map(|line| line.strip_prefix("raft_leader_id:"))?;
        line.trim().parse().ok().filter(|&id| id != 0)
    }

    fn signal(&self, signal: Signal) {
        // The process may have ended meanwhile: then there is nobody to tell.
        let pid = Pid::from_raw(self.child.id().cast_signed()).filter(|_| self.runs());
        let _told = pid.map(|pid| kill_process(pid, signal));
    }
}

/// Ends all nodes that run: asks them, waits, and kills those that stay.
pub fn end(nodes: &mut [DemoNode], mut hurry: impl FnMut() -> bool) {
    for node in nodes.iter() {
        node.signal(Signal::TERM);
    }
    let deadline = Instant::now() + END_TIMEOUT;
    while nodes.iter().any(DemoNode::runs) && Instant::now() < deadline && !hurry() {
        for node in nodes.iter_mut() {
            node.just_ended();
        }
        // It waits for processes to end, and serves nobody meanwhile.
        std::thread::sleep(POLL);
    }
    for node in nodes.iter_mut().filter(|node| node.runs()) {
        node.signal(Signal::KILL);
        // It cannot refuse, and waiting for it fails only if it was reaped already.
        let _gone = node.child.wait();
    }
}

/// Sends inline commands and reads until the node closes.
fn ask(address: &str, commands: &str) -> io::Result<String> {
    let mut addresses = address.to_socket_addrs()?;
    let no_address = || io::Error::from(io::ErrorKind::NotFound);
    let address: SocketAddr = addresses.next().ok_or_else(no_address)?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(commands.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
