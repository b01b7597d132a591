//! `raftkvd demo`: a whole cluster on this machine, as real processes.
//!
//! Writes or resumes the files (`files`), runs the nodes (`nodes`), tells the user how to talk to
//! them, and waits. Called by `main`. It is no part of the cluster: the nodes need nothing from it.

mod files;
mod nodes;

use std::io::Write as _;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::arguments::DemoArguments;
use super::{FAULT, USAGE, fail};
use nodes::DemoNode;

/// How often children and signals are looked at.
const POLL: Duration = Duration::from_millis(20);
/// After how long without a leader the user is told where to look.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the demo until it is asked to end, or until no node is left.
pub fn demo(arguments: &DemoArguments) -> ExitCode {
    let prepared = match files::prepare(arguments) {
        Ok(prepared) => prepared,
        Err(problem) => return fail(USAGE, &problem),
    };
    if let Err(problem) = nodes::check_ports(&prepared) {
        return fail(FAULT, &problem);
    }
    let mut asked = match Asked::listen() {
        Ok(asked) => asked,
        Err(error) => return fail(FAULT, &format!("signals: {error}")),
    };
    let began = Instant::now();
    let mut running: Vec<DemoNode> = Vec::new();
    for files in prepared {
        match DemoNode::start(files) {
            Ok(node) => running.push(node),
            Err(problem) => {
                nodes::end(&mut running, || false);
                return fail(FAULT, &problem);
            }
        }
    }
    say(&introduction(&running, arguments));
    let outcome = watch(&mut running, began, &mut asked);
    if running.iter().any(DemoNode::runs) {
        say("\nEnding the nodes.\n");
    }
    nodes::end(&mut running, || asked.times() > 1);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(FAULT, &problem),
    }
}

/// How often the process was asked to end.
struct Asked {
    signals: Signals,
    times: usize,
}

impl Asked {
    fn listen() -> std::io::Result<Asked> {
        Ok(Asked { signals: Signals::new([SIGINT, SIGTERM, SIGHUP])?, times: 0 })
    }

    fn times(&mut self) -> usize {
        self.times += self.signals.pending().count();
        self.times
    }
}

/// Waits for a leader, says who it is, then waits for the end. An error is why the demo cannot go
/// on.
fn watch(running: &mut [DemoNode], began: Instant, asked: &mut Asked) -> Result<(), String> {
    let mut ready = false;
    let mut patience = began + PATIENCE;
    while asked.times() == 0 {
        for node in running.iter_mut() {
            let Some(status) = node.just_ended() else {
                continue;
            };
            let log = node.files.log.display();
            let id = node.files.config.id;
            if !ready {
                let last = last_line(&node.files.log);
                return Err(format!("node {id} {}: {last} ({log})", ending(status)));
            }
            let file = node.files.file.display();
            let data = node.files.data.display();
            say(&format!(
                "Node {id} {}. To bring it back: raftkvd -c {file} --data-dir {data}\n",
                ending(status)
            ));
        }
        if !running.iter().any(DemoNode::runs) {
            return Err("no node is left".to_owned());
        }
        if !ready && let Some(leader) = running.iter().find_map(DemoNode::leader) {
            ready = true;
            let seconds = began.elapsed().as_secs_f64();
            say(&format!(
                "Ready after {seconds:.2} s: node {leader} leads. Ctrl-C ends them all.\n"
            ));
        }
        if !ready && Instant::now() > patience {
            patience = Instant::now() + PATIENCE;
            say("Still no leader; the nodes' logs say why.\n");
        }
        // No server runs on this thread: it only watches processes, which nothing wakes it for.
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn last_line(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

fn introduction(running: &[DemoNode], arguments: &DemoArguments) -> String {
    let mut text = format!("{} nodes in {}\n\n", running.len(), arguments.dir.display());
    text += "  node  process  clients          peers            log\n";
    let mut clients = Vec::new();
    for node in running {
        let own = node.files.config.own();
        let (id, pid, log) = (own.id.0, node.child.id(), node.files.log.display());
        text += &format!("  {id:<5} {pid:<8} {:<16} {:<16} {log}\n", own.client, own.peer);
        clients.push(own.client.as_str());
    }
    let any = clients.first().copied().unwrap_or_default();
    let (host, port) = any.rsplit_once(':').unwrap_or((any, ""));
    let last = clients.last().copied().unwrap_or_default();
    let last_port = last.rsplit_once(':').map_or("", |(_, port)| port);
    let pid = running.first().map_or(0, |node| node.child.id());
    let list = clients.join(",");
    text + &format!(
        r"
Every node serves every client:

  printf 'SET a 1\r\nGET a\r\nCAS a 1 2\r\nQUIT\r\n' | nc {host} {port}
  redis-cli -h {host} -p {last_port}
  rkv-cli -c {list}

Kill one (kill -9 {pid}) and go on with the others.

"
    )
}

/// Prints at once. That nobody reads it any more is no reason to end the nodes.
fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _unread = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
