//! LATENCY HISTOGRAM and INFO latencystats: how long each command took, from its arrival to its
//! answer.
//!
//! One count a command, in a bucket that is found once for a batch or a group of reads. What a node
//! answers by itself is not counted: it takes no time that this node could see. Called by `apply.rs`
//! and `reads.rs` through `slowlog.rs`, and by `server.rs`.

use std::time::Duration;

use crate::kv::command::{CODE_LIMIT, by_code};
use crate::kv::latency::{BUCKETS, bucket, bucket_end_us};
use crate::proto::args::Args;
use crate::proto::reply::Reply;

/// The bucket of a batch, or of a group of reads.
#[derive(Clone, Copy, Debug)]
pub struct Took(usize);

impl Took {
    /// That of what took so long.
    pub fn of(took: Duration) -> Took {
        Took(bucket(took))
    }
}

/// Counts by a command's code in the log, then by the bucket.
#[derive(Debug)]
pub struct Latencies {
    counts: Box<[[u64; BUCKETS]]>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { counts: vec![[0; BUCKETS]; CODE_LIMIT].into() }
    }
}

impl Latencies {
    /// Counts a command.
    pub fn count(&mut self, code: u16, took: Took) {
        // Another version's command has no row here, and so no name to be shown by.
        if let Some(counts) = self.counts.get_mut(usize::from(code)) {
            counts[took.0] += 1;
        }
    }

    /// Forgets everything: CONFIG RESETSTAT.
    pub fn reset(&mut self) {
        self.counts.fill([0; BUCKETS]);
    }

    /// The section of INFO: what half, 99 % and 99.9 % of each command's calls took at most, in
    /// microseconds, as one line each.
    pub fn percentiles(&self) -> Vec<(String, String)> {
        let line = |(name, counts): (&str, [u64; BUCKETS])| {
            let [half, most, nearly_all] = [500, 990, 999].map(|mille| quantile_us(&counts, mille));
            let figures = format!("p50={half}.000,p99={most}.000,p99.9={nearly_all}.000");
            (format!("latency_percentiles_usec_{name}"), figures)
        };
        self.used().map(line).collect()
    }

    /// Each command that was used, with its counts.
    fn used(&self) -> impl Iterator<Item = (&'static str, [u64; BUCKETS])> {
        let mut shown: Vec<(&'static str, [u64; BUCKETS])> = Vec::new();
        for (code, counts) in self.counts.iter().enumerate() {
            let Some(row) = u16::try_from(code).ok().and_then(by_code) else {
                continue;
            };
            // What stands for a transaction in the log is the client's EXEC.
            let name = if row.name.starts_with("exec|") { "exec" } else { row.name };
            match shown.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sums)) => sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n),
                None => shown.push((name, *counts)),
            }
        }
        shown.into_iter().filter(|(_, counts)| counts.iter().any(|count| *count > 0))
    }

    /// `LATENCY HISTOGRAM [command ...]`: of each command that was used, how many calls took at most
    /// so many microseconds. A container stands for its subcommands.
    pub fn histogram(&self, args: Args<'_>) -> Reply {
        let is_asked = |name: &str| {
            let container = name.split('|').next().unwrap_or(name);
            let asks = |word: &[u8]| {
                word.eq_ignore_ascii_case(name.as_bytes())
                    || word.eq_ignore_ascii_case(container.as_bytes())
            };
            args.len() <= 2 || args.iter().skip(2).any(asks)
        };
        let used = self.used().filter(|(name, _)| is_asked(name));
        Reply::Map(used.map(|(name, counts)| (Reply::Word(name), distribution(&counts))).collect())
    }
}

/// The end of the bucket within which so many of a thousand calls were answered.
fn quantile_us(counts: &[u64; BUCKETS], mille: u64) -> u64 {
    let wanted = (counts.iter().sum::<u64>() * mille).div_ceil(1000);
    let mut calls = 0;
    let reaches = counts.iter().position(|count| {
        calls += count;
        calls >= wanted
    });
    bucket_end_us(reaches.expect("all calls are enough for any share of them"))
}

/// Buckets that nothing fell into are left out, as in Redis.
fn distribution(counts: &[u64; BUCKETS]) -> Reply {
    let number = |number: u64| Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let mut calls = 0;
    let mut buckets = Vec::new();
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        calls += count;
        buckets.push((number(bucket_end_us(bucket)), number(calls)));
    }
    Reply::Map(vec![
        (Reply::Word("calls"), number(calls)),
        (Reply::Word("histogram_usec"), Reply::Map(buckets)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::command::lookup;
    use crate::proto::args::push_arg;

    fn histogram(latencies: &Latencies, line: &str) -> String {
        let mut encoded = Vec::new();
        let words: Vec<&str> = line.split(' ').collect();
        words.iter().for_each(|word| push_arg(&mut encoded, word.as_bytes()));
        let mut out = Vec::new();
        let reply = latencies.histogram(Args::new(words.len() as u32, &encoded));
        reply.encode(crate::proto::reply::Protocol::Resp3, &mut out);
        String::from_utf8(out).expect("it is text").replace("\r\n", " ")
    }

    #[test]
    fn histogram_sums_up_what_took_at_most_so_long() {
        let mut latencies = Latencies::default();
        let code = |name: &str| lookup(name.as_bytes()).expect("it is a command").code;
        for us in [3, 30, 31, 5000] {
            latencies.count(code("set"), Took::of(Duration::from_micros(us)));
        }
        latencies.count(code("get"), Took::of(Duration::ZERO));
        latencies.count(61, Took::of(Duration::ZERO));
        latencies.count(62, Took::of(Duration::ZERO));
        latencies.count(u16::MAX, Took::of(Duration::ZERO));
        let set = "$3 set %2 $5 calls :4 $14 histogram_usec %3 :4 :1 :33 :3 :8454 :4 ";
        assert_eq!(histogram(&latencies, "LATENCY HISTOGRAM SET nope"), format!("%1 {set}"));
        let get = "$3 get %2 $5 calls :1 $14 histogram_usec %1 :1 :1 ";
        let exec = "$4 exec %2 $5 calls :2 $14 histogram_usec %1 :1 :2 ";
        let all = format!("%3 {set}{get}{exec}");
        assert_eq!(histogram(&latencies, "LATENCY HISTOGRAM"), all);
        assert_eq!(histogram(&latencies, "LATENCY HISTOGRAM exec"), format!("%1 {exec}"));
        let lines = latencies.percentiles();
        let line = |name: &str, figures: &str| {
            (format!("latency_percentiles_usec_{name}"), figures.to_owned())
        };
        assert_eq!(lines[0], line("set", "p50=33.000,p99=8454.000,p99.9=8454.000"));
        assert_eq!(lines[1], line("get", "p50=1.000,p99=1.000,p99.9=1.000"));
        assert_eq!(lines.len(), 3);
        latencies.reset();
        assert_eq!(histogram(&latencies, "LATENCY HISTOGRAM"), "%0 ");
        assert!(latencies.percentiles().is_empty());
    }
}
