//! What nodes take of the machine, as it goes on: memory, open files, and their directories.
//!
//! Called by the soak, between two faults.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::common::Cluster;

/// One look at one node.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    at: Duration,
    process: u32,
    /// In bytes.
    memory: u64,
    files: usize,
    /// In bytes, of all files in the data directory.
    directory: u64,
}

/// All that was seen, by node.
#[derive(Default)]
pub struct Gauge {
    samples: BTreeMap<u64, Vec<Sample>>,
}

/// No file or memory that a node holds may pass these, however long it runs.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub memory: u64,
    pub files: usize,
    pub directory: u64,
}

impl Gauge {
    /// Looks at every node that runs.
    pub fn look(&mut self, cluster: &Cluster, at: Duration) {
        for position in cluster.running() {
            let node = &cluster.nodes[position];
            let process = node.process_id();
            // It may end between two of these.
            let Some(memory) = resident(process) else { continue };
            let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { continue };
            let (files, directory) = (files.count(), size(&node.data));
            let sample = Sample { at, process, memory, files, directory };
            self.samples.entry(node.id).or_default().push(sample);
        }
    }

    /// Panics where a node ever took more.
    pub fn assert_bounded(&self, bounds: Bounds) {
        for (id, samples) in &self.samples {
            for sample in samples {
                let is_within = sample.memory <= bounds.memory
                    && sample.files <= bounds.files
                    && sample.directory <= bounds.directory;
                assert!(is_within, "node {id}: {sample:?} is over {bounds:?}");
            }
        }
    }

    /// Panics where a process that was there from `since` on has grown by more than `slack` bytes
    /// of memory, or has more open files at the end than it had.
    pub fn assert_flat(&self, since: Duration, slack: u64) {
        let mut compared = 0;
        for (id, samples) in &self.samples {
            let late: Vec<Sample> = samples.iter().filter(|one| one.at >= since).copied().collect();
            let (Some(first), Some(last)) = (late.first(), late.last()) else { continue };
            if first.process != last.process || late.len() < 3 {
                continue;
            }
            compared += 1;
            assert!(last.memory <= first.memory + slack, "node {id} grows: {late:?}");
            assert!(last.files <= first.files + 2, "node {id} opens more and more: {late:?}");
        }
        assert!(compared >= 2, "{compared} nodes were there from the beginning of the calm");
    }

    /// The largest of each, by node.
    pub fn tell(&self) {
        for (id, samples) in &self.samples {
            let most = |value: fn(&Sample) -> u64| samples.iter().map(value).max().unwrap_or(0);
            println!(
                "node {id}: at most {} KiB of memory, {} open files, {} KiB on the disk; \
                 {} looks",
                most(|one| one.memory) / 1024,
                most(|one| one.files as u64),
                most(|one| one.directory) / 1024,
                samples.len()
            );
        }
    }
}

/// A process's resident memory in bytes.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The bytes of all files below a directory; what goes meanwhile counts nothing.
fn size(directory: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sum += size(&entry.path()),
            Ok(metadata) => sum += metadata.len(),
            Err(_) => {}
        }
    }
    sum
}
