//! One real node: a process of raftkvd with its own directory, configuration and log.
//!
//! Called by `cluster`. It dies with the test, whatever the test does.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// A node, whether it runs or not.
pub struct Node {
    pub id: u64,
    /// Where clients reach it.
    pub client: String,
    pub file: PathBuf,
    pub data: PathBuf,
    pub log: PathBuf,
    /// More of its command line.
    pub arguments: Vec<String>,
    child: Option<Child>,
}

impl Node {
    pub fn new(id: u64, client: String, file: PathBuf, data: PathBuf, log: PathBuf) -> Node {
        Node { id, client, file, data, log, arguments: Vec::new(), child: None }
    }

    /// Starts it. `wrapper` is a program that runs it, such as strace with its options.
    pub fn start(&mut self, wrapper: &[String]) {
        assert!(self.child.is_none(), "node {} runs already", self.id);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let program = env!("CARGO_BIN_EXE_raftkvd").to_owned();
        let words: Vec<String> = wrapper.iter().cloned().chain([program]).collect();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .arg("-c")
            .arg(&self.file)
            // Should the test be killed, its nodes end too. (A wrapper that stays our direct child
            // breaks the relation; `strace -D` doesn't.)
            .arg("--end-with-parent")
            .arg(std::process::id().to_string())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", words[0]));
        self.child = Some(child);
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// How it ended, if it was started and has ended by itself since.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    pub fn process_id(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process_id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`, and the corpse is collected.
    pub fn kill(&mut self) {
        if self.child.is_some() {
            self.signal(Signal::KILL);
            self.wait(Duration::from_secs(10));
        }
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("the node runs");
        let what = format!("node {} ends", self.id);
        let status = eventually(&what, within, || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// What it has logged since its first start.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended meanwhile: nothing is left to do then.
            let _ended = child.kill();
            let _collected = child.wait();
        }
        if std::thread::panicking() {
            let log = self.logged();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- node {}'s log, its end:\n{}\n", self.id, tail.join("\n"));
        }
    }
}
