//! A network for one cluster: a namespace for each node, one that switches between them, and
//! packet filters that cut one direction of one link.
//!
//! Made with `ip` and `nft`, in 10.213.X.0/24, and reached from the test through one veth pair.
//! Nothing outside is reachable from within. Called by the tests of chaos; all of it goes when
//! this is dropped, and what a killed run left behind goes when the next one begins.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{self, Command, Stdio};

/// The start of each namespace's name; then come the process, the network and the node.
const PREFIX: &str = "raftkv-chaos-";
/// Where the names of namespaces are.
const NAMESPACES: &str = "/run/netns";

/// Where a packet is dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// Before it leaves the sender.
    Sender,
    /// When it reaches the receiver.
    Receiver,
}

/// One direction of one link, closed; the nodes by position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cut {
    pub from: usize,
    pub to: usize,
    pub side: Side,
}

/// The namespaces; the last one is the switch.
pub struct Network {
    number: u8,
    nodes: usize,
    namespaces: Vec<String>,
    /// Held for as long as the addresses are ours: two tests never take the same.
    _reserved: UnixListener,
}

impl Network {
    /// Lays out the network for so many nodes, or says why it can't be done here.
    pub fn make(nodes: usize) -> Result<Network, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        for program in ["ip", "nft"] {
            run(program, &["-V"]).map_err(|error| format!("no {program}: {error}"))?;
        }
        sweep();
        let (number, reserved) = reserve()?;
        let names = (1..=nodes).map(|id| format!("n{id}")).chain(["switch".to_owned()]);
        let pid = process::id();
        let namespaces = names.map(|name| format!("{PREFIX}{pid}-{number}-{name}")).collect();
        let network = Network { number, nodes, namespaces, _reserved: reserved };
        // From here on `drop` removes what there is, also when a step fails.
        network.lay_out()?;
        Ok(network)
    }

    /// The address of a node; the test itself has .254.
    pub fn address(&self, position: usize) -> String {
        format!("10.213.{}.{}", self.number, position + 1)
    }

    /// What runs a program as this node.
    pub fn wrapper(&self, position: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespaces[position]].map(str::to_owned).to_vec()
    }

    /// Makes these cuts, and no others, those of one node in one step.
    pub fn cut(&self, cuts: &[Cut]) {
        for position in 0..self.nodes {
            let mut rules = "flush table inet chaos\n".to_owned();
            for cut in cuts {
                let (chain, match_of, other) = match cut.side {
                    Side::Sender if cut.from == position => ("output", "daddr", cut.to),
                    Side::Receiver if cut.to == position => ("input", "saddr", cut.from),
                    _ => continue,
                };
                let other = self.address(other);
                writeln!(rules, "add rule inet chaos {chain} ip {match_of} {other} drop").unwrap();
            }
            self.filter(position, &rules).unwrap();
        }
    }

    fn lay_out(&self) -> Result<(), String> {
        for namespace in &self.namespaces {
            run("ip", &["netns", "add", namespace])?;
            run("ip", &["-n", namespace, "link", "set", "lo", "up"])?;
        }
        let switch = self.namespaces.last().expect("the switch is the last one");
        let in_switch = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            run("ip", &[&["-n", switch], &words[..]].concat())
        };
        // The bridge has a namespace of its own, so that no filter of this machine's sees it.
        in_switch("link add bridge type bridge")?;
        in_switch("link set bridge up")?;
        for (position, namespace) in self.namespaces[..self.nodes].iter().enumerate() {
            let port = format!("port{position}");
            let address = self.address(position) + "/24";
            in_switch(&format!("link add {port} type veth peer name eth0 netns {namespace}"))?;
            in_switch(&format!("link set {port} master bridge up"))?;
            run("ip", &["-n", namespace, "addr", "add", &address, "dev", "eth0"])?;
            run("ip", &["-n", namespace, "link", "set", "eth0", "up"])?;
            let hook = |chain| {
                format!("add chain inet chaos {chain} {{ type filter hook {chain} priority 0; }}\n")
            };
            let table = "add table inet chaos\n".to_owned() + &hook("input") + &hook("output");
            self.filter(position, &table)?;
        }
        let ours = format!("chaos{}x{}", process::id(), self.number);
        let address = format!("10.213.{}.254/24", self.number);
        run(
            "ip",
            &["link", "add", &ours, "type", "veth", "peer", "name", "test", "netns", switch],
        )?;
        in_switch("link set test master bridge up")?;
        run("ip", &["addr", "add", &address, "dev", &ours])?;
        run("ip", &["link", "set", &ours, "up"])
    }

    /// Gives a node's packet filter a script; all of it takes effect, or nothing.
    fn filter(&self, position: usize, script: &str) -> Result<(), String> {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.namespaces[position], "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("nft: {error}"))?;
        child.stdin.take().expect("it is piped").write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().map_err(|error| format!("nft: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The links live in the namespaces, and our own end goes with its peer.
        for namespace in &self.namespaces {
            if Path::new(NAMESPACES).join(namespace).exists() {
                let removed = run("ip", &["netns", "del", namespace]);
                assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
            }
        }
    }
}

/// Removes the namespaces of runs whose process is gone.
fn sweep() {
    for entry in std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another run may have been quicker.
            let _removed = run("ip", &["netns", "del", &name]);
        }
    }
}

/// A number X whose 10.213.X.0/24 no other test has, and this machine does not use.
fn reserve() -> Result<(u8, UnixListener), String> {
    let used = Command::new("ip").args(["-o", "-4", "route"]).output();
    let used = used.map_err(|error| format!("ip: {error}"))?.stdout;
    let used = String::from_utf8_lossy(&used).into_owned();
    for number in 1..=254 {
        if used.contains(&format!("10.213.{number}.")) {
            continue;
        }
        // An abstract name: it goes with the process that holds it.
        let name = SocketAddr::from_abstract_name(format!("{PREFIX}{number}")).unwrap();
        if let Ok(listener) = UnixListener::bind_addr(&name) {
            return Ok((number, listener));
        }
    }
    Err("no part of 10.213.0.0/16 is free".to_owned())
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", words.join(" "), said.trim()))
}
