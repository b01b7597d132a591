//! SLOWLOG and LATENCY: commands that took long, from arrival to answer.
//!
//! Redis times a command's execution; here most of what a client waits for is the round trip to a
//! majority and its disks, so that is included. Noted once a batch and once a group of reads
//! (`apply.rs`, `reads.rs`): a command that is not slow costs nothing. Never keeps more than
//! `limits.rs` says.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::clients::{Clients, Origin};
use super::latencies::Latencies;
use crate::kv::command::Command;
use crate::limits;
use crate::proto::args::Args;
use crate::proto::reply::Reply;
use crate::types::ClusterTime;

/// One slow command.
#[derive(Debug)]
struct Entry {
    id: i64,
    at: ClusterTime,
    took: Duration,
    words: Vec<Bytes>,
    address: String,
    name: String,
}

/// One sample of an event: the slowest command of a second.
#[derive(Clone, Copy, Debug)]
struct Sample {
    second: u64,
    took_ms: u64,
}

/// What was slow on this node.
#[derive(Debug)]
pub struct Slowlog {
    entries: VecDeque<Entry>,
    next_id: i64,
    /// In microseconds; below 0: nothing is slow.
    pub slower_than_us: i64,
    /// How many entries are kept.
    pub max_len: usize,
    /// LATENCY's threshold in milliseconds; 0: it is off.
    pub latency_threshold_ms: u64,
    samples: VecDeque<Sample>,
    longest_ms: u64,
    /// How long all commands took.
    pub latencies: Latencies,
}

/// The only event there is, in Redis's name for it.
const EVENT: &str = "command";

impl Default for Slowlog {
    fn default() -> Slowlog {
        Slowlog {
            entries: VecDeque::new(),
            next_id: 0,
            slower_than_us: 10_000,
            max_len: limits::SLOWLOG_DEFAULT,
            latency_threshold_ms: 0,
            samples: VecDeque::new(),
            longest_ms: 0,
            latencies: Latencies::default(),
        }
    }
}

impl Slowlog {
    /// Whether what took so long is to be noted.
    pub fn is_slow(&self, took: Duration) -> bool {
        let is_slow = |threshold: i64| took.as_micros() as i64 >= threshold;
        let is_sampled =
            self.latency_threshold_ms > 0 && took.as_millis() as u64 >= self.latency_threshold_ms;
        is_sampled || (self.slower_than_us >= 0 && is_slow(self.slower_than_us))
    }

    /// Notes that `count` commands took so long. How many of them, the first ones, need not be noted
    /// each: those behind them would drive them out again, or nobody wants any.
    pub fn note_all(&mut self, at: ClusterTime, took: Duration, count: usize) -> usize {
        self.sample(at, took);
        if self.slower_than_us < 0 || (took.as_micros() as i64) < self.slower_than_us {
            return count;
        }
        let passed = count.saturating_sub(self.max_len);
        self.next_id += passed as i64;
        passed
    }

    /// Notes one of the commands that [`note_all`](Slowlog::note_all) has left.
    pub fn note(
        &mut self,
        at: ClusterTime,
        took: Duration,
        origin: Origin,
        (command, args): (&Command, Args<'_>),
        clients: &mut Clients,
    ) {
        let client = clients.find(origin.client);
        let client = client.map(|client| (client.info.address.to_string(), client.name.clone()));
        let (address, name) = client.unwrap_or_default();
        let id = self.next_id;
        self.next_id += 1;
        let words = shortened(command, args);
        self.entries.push_front(Entry { id, at, took, words, address, name });
        self.entries.truncate(self.max_len);
    }

    fn sample(&mut self, at: ClusterTime, took: Duration) {
        let took_ms = took.as_millis() as u64;
        if self.latency_threshold_ms == 0 || took_ms < self.latency_threshold_ms {
            return;
        }
        self.longest_ms = self.longest_ms.max(took_ms);
        let second = at.0 / 1000;
        match self.samples.back_mut() {
            Some(last) if last.second == second => last.took_ms = last.took_ms.max(took_ms),
            _ => {
                if self.samples.len() >= limits::LATENCY_SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(Sample { second, took_ms });
            }
        }
    }

    /// `SLOWLOG GET`: the newest `count` first.
    pub fn entries(&self, count: usize) -> Reply {
        let entry = |entry: &Entry| {
            Reply::Array(vec![
                Reply::Integer(entry.id),
                Reply::Integer((entry.at.0 / 1000) as i64),
                Reply::Integer(entry.took.as_micros() as i64),
                Reply::Array(entry.words.iter().cloned().map(Reply::Bulk).collect()),
                Reply::bulk(entry.address.as_bytes()),
                Reply::bulk(entry.name.as_bytes()),
            ])
        };
        Reply::Array(self.entries.iter().take(count).map(entry).collect())
    }

    /// `SLOWLOG LEN`
    pub fn len(&self) -> Reply {
        Reply::count(self.entries.len())
    }

    /// `SLOWLOG RESET`
    pub fn reset(&mut self) {
        self.entries.clear();
    }

    /// Keeps at most so many entries from now on.
    pub fn set_max_len(&mut self, max_len: usize) {
        self.max_len = max_len;
        self.entries.truncate(max_len);
    }

    /// `LATENCY LATEST`
    pub fn latest(&self) -> Reply {
        let Some(last) = self.samples.back() else {
            return Reply::Array(Vec::new());
        };
        Reply::Array(vec![Reply::Array(vec![
            Reply::Word(EVENT),
            Reply::Integer(last.second as i64),
            Reply::Integer(last.took_ms as i64),
            Reply::Integer(self.longest_ms as i64),
        ])])
    }

    /// `LATENCY HISTORY event`
    pub fn history(&self, event: &[u8]) -> Reply {
        let samples = self.samples.iter().filter(|_| event == EVENT.as_bytes());
        let pair = |sample: &Sample| {
            let numbers = [sample.second, sample.took_ms];
            Reply::Array(numbers.map(|number| Reply::Integer(number as i64)).into())
        };
        Reply::Array(samples.map(pair).collect())
    }

    /// `LATENCY RESET [event ...]`: how many events were forgotten.
    pub fn reset_latency<'a>(&mut self, mut events: impl Iterator<Item = &'a [u8]>) -> Reply {
        let first = events.next();
        let is_meant = first.is_none_or(|event| event == EVENT.as_bytes())
            || events.any(|event| event == EVENT.as_bytes());
        if !is_meant || self.samples.is_empty() {
            return Reply::Integer(0);
        }
        self.samples.clear();
        self.longest_ms = 0;
        Reply::Integer(1)
    }

    /// `LATENCY DOCTOR`
    pub fn diagnosis(&self) -> String {
        if self.latency_threshold_ms == 0 {
            return "Latency monitoring is disabled in this node. CONFIG SET \
                    latency-monitor-threshold <milliseconds> enables it.\n"
                .to_owned();
        }
        let count = self.samples.len();
        if count == 0 {
            return "No command took as long as latency-monitor-threshold.\n".to_owned();
        }
        let sum: u64 = self.samples.iter().map(|sample| sample.took_ms).sum();
        format!(
            "{EVENT}: {count} seconds with a command over the threshold; the slowest of each took \
             {} ms on average, {} ms at most. A command's time includes its way to a majority and \
             their disks: see raft_longest_turn_us and raft_disk_stalled in INFO raft.\n",
            sum / count as u64,
            self.longest_ms
        )
    }
}

/// A command as an entry keeps it: Redis's bounds, and Redis's words for what was cut. Of a
/// transaction, the name: its arguments are the log's own.
fn shortened(command: &Command, args: Args<'_>) -> Vec<Bytes> {
    if command.name.starts_with("exec|") {
        return vec![Bytes::from_static(b"EXEC")];
    }
    let count = args.len();
    let shown =
        if count > limits::SLOWLOG_ARGUMENTS { limits::SLOWLOG_ARGUMENTS - 1 } else { count };
    let word = |word: &[u8]| {
        if word.len() <= limits::SLOWLOG_ARGUMENT_BYTES {
            return Bytes::copy_from_slice(word);
        }
        let (kept, cut) = word.split_at(limits::SLOWLOG_ARGUMENT_BYTES);
        let more = format!("... ({} more bytes)", cut.len());
        Bytes::from([kept, more.as_bytes()].concat())
    };
    let mut words: Vec<Bytes> = args.iter().take(shown).map(word).collect();
    if shown < count {
        words.push(Bytes::from(format!("... ({} more arguments)", count - shown)));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::args::push_arg;

    fn noted(slowlog: &mut Slowlog, second: u64, took_ms: u64, words: &[&str]) {
        let (mut encoded, mut clients) = (Vec::new(), Clients::default());
        for word in words {
            push_arg(&mut encoded, word.as_bytes());
        }
        let args = Args::new(words.len() as u32, &encoded);
        let command = crate::kv::command::lookup(words[0].as_bytes()).unwrap();
        let (at, took) = (ClusterTime(second * 1000), Duration::from_millis(took_ms));
        if slowlog.is_slow(took) && slowlog.note_all(at, took, 1) == 0 {
            slowlog.note(at, took, Origin::nobody(), (command, args), &mut clients);
        }
    }

    #[test]
    fn slowlog_keeps_the_newest_of_what_was_slow() {
        let mut slowlog = Slowlog { max_len: 2, ..Slowlog::default() };
        noted(&mut slowlog, 1, 9, &["GET", "fast"]);
        for (second, key) in [(2, "a"), (3, "b"), (4, "c")] {
            noted(&mut slowlog, second, 10, &["GET", key]);
        }
        assert_eq!(slowlog.len(), Reply::Integer(2));
        let Reply::Array(entries) = slowlog.entries(10) else { panic!("an array") };
        let Reply::Array(newest) = &entries[0] else { panic!("an entry is an array") };
        assert_eq!(newest[..3], [2, 4, 10_000].map(Reply::Integer));
        assert_eq!(newest[3], Reply::Array(vec![Reply::bulk(b"GET"), Reply::bulk(b"c")]));
        slowlog.slower_than_us = -1;
        assert!(!slowlog.is_slow(Duration::from_secs(9)), "-1 turns it off");
        slowlog.reset();
        assert_eq!(slowlog.len(), Reply::Integer(0));
    }

    #[test]
    fn note_all_leaves_what_would_be_kept_and_numbers_go_on() {
        let (at, took) = (ClusterTime(1000), Duration::from_millis(10));
        let mut slowlog = Slowlog { max_len: 3, ..Slowlog::default() };
        assert_eq!(slowlog.note_all(at, took, 3), 0);
        assert_eq!(slowlog.note_all(at, took, 1000), 997);
        noted(&mut slowlog, 1, 10, &["GET", "a"]);
        assert_eq!(slowlog.entries[0].id, 997);
        slowlog.max_len = 0;
        assert_eq!(slowlog.note_all(at, took, 2), 2);
        let mut sampled = Slowlog { latency_threshold_ms: 5, ..Slowlog::default() };
        assert_eq!(sampled.note_all(at, took / 2, 2), 2, "only LATENCY wants them");
        assert_eq!((sampled.samples.len(), sampled.next_id), (1, 0));
    }

    #[test]
    fn shortened_keeps_redis_s_bounds() {
        let long = "x".repeat(130);
        let mut words = vec!["MGET", long.as_str()];
        words.resize(40, "k");
        let mut slowlog = Slowlog::default();
        noted(&mut slowlog, 1, 50, &words);
        let words = &slowlog.entries[0].words;
        assert_eq!(words.len(), 32);
        assert!(words[1].ends_with(b"x... (2 more bytes)"));
        assert_eq!(&words[31][..], b"... (9 more arguments)");
    }

    #[test]
    fn latency_samples_the_slowest_of_each_second() {
        let mut slowlog = Slowlog { latency_threshold_ms: 5, ..Slowlog::default() };
        for (second, took_ms) in [(1, 4), (2, 6), (2, 9), (2, 7), (4, 5)] {
            noted(&mut slowlog, second, took_ms, &["GET", "a"]);
        }
        let pair = |second, took| Reply::Array([second, took].map(Reply::Integer).into());
        assert_eq!(slowlog.history(b"command"), Reply::Array(vec![pair(2, 9), pair(4, 5)]));
        assert_eq!(slowlog.history(b"fork"), Reply::Array(Vec::new()));
        let Reply::Array(latest) = slowlog.latest() else { panic!("an array") };
        let Reply::Array(event) = &latest[0] else { panic!("an event is an array") };
        assert_eq!(event[1..], [4, 5, 9].map(Reply::Integer));
        assert_eq!(slowlog.reset_latency([&b"fork"[..]].into_iter()), Reply::Integer(0));
        assert_eq!(slowlog.reset_latency(std::iter::empty()), Reply::Integer(1));
        assert_eq!(slowlog.latest(), Reply::Array(Vec::new()));
    }
}
