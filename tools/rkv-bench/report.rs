//! What a run came to: counts, errors and a latency histogram, as a table or as JSON.
//!
//! Filled by `worker`, shown by `progress` and `load`.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(300);

/// What one second of measuring came to, for one worker or for all together.
#[derive(Debug)]
pub struct Second {
    /// From 0 up.
    pub number: u64,
    /// Its own requests.
    pub report: Report,
}

/// How far a row of the distribution reaches, beside the one before it.
const STEP: f64 = 1.5;

/// The length of the longest bar.
const BAR_WIDTH: usize = 40;

/// The results of one worker, or of all together.
#[derive(Debug)]
pub struct Report {
    /// Latencies of requests that were answered without an error, in nanoseconds.
    latencies: Histogram<u64>,
    /// How often which error came: a reply's first word, or how a connection was lost.
    pub errors: BTreeMap<String, u64>,
    /// How often something was sent once more, where the client does that.
    pub retries: u64,
    /// From the first measured request to the last reply.
    pub elapsed: Duration,
}

impl Report {
    /// Nothing yet.
    pub fn new() -> Report {
        let longest = LATENCY_MAX.as_nanos() as u64;
        Report {
            latencies: Histogram::new_with_bounds(1, longest, 3)
                .expect("1 ns to 300 s at three digits are bounds that the histogram takes"),
            errors: BTreeMap::new(),
            retries: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// One request that was answered.
    pub fn record(&mut self, latency: Duration) {
        self.latencies.saturating_record(latency.as_nanos() as u64);
    }

    /// `count` requests that came to nothing.
    pub fn record_errors(&mut self, word: &str, count: u64) {
        if count > 0 {
            *self.errors.entry(word.to_owned()).or_default() += count;
        }
    }

    /// Adds another worker's results. They ran side by side.
    pub fn merge(&mut self, other: &Report) {
        self.latencies.add(&other.latencies).expect("both have the same bounds");
        for (word, count) in &other.errors {
            self.record_errors(word, *count);
        }
        self.retries += other.retries;
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    /// Requests that were answered without an error.
    pub fn requests(&self) -> u64 {
        self.latencies.len()
    }

    fn per_second(&self) -> f64 {
        if self.elapsed.is_zero() {
            return 0.0;
        }
        self.requests() as f64 / self.elapsed.as_secs_f64()
    }

    /// A latency in milliseconds that so large a part (0 to 1) of the requests did not pass.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e6
    }

    /// Milliseconds: mean, p50, p90, p99, p99.9, p99.99, max.
    fn latencies_ms(&self) -> [(&'static str, f64); 7] {
        [
            ("mean", self.latencies.mean() / 1e6),
            ("p50", self.quantile_ms(0.5)),
            ("p90", self.quantile_ms(0.9)),
            ("p99", self.quantile_ms(0.99)),
            ("p99.9", self.quantile_ms(0.999)),
            ("p99.99", self.quantile_ms(0.9999)),
            ("max", self.latencies.max() as f64 / 1e6),
        ]
    }

    /// For people. `title` says what was run.
    pub fn table(&self, title: &str) -> String {
        let mut out = format!(
            "{title}\n  requests    {} in {:.2} s, {:.0} a second\n",
            self.requests(),
            self.elapsed.as_secs_f64(),
            self.per_second()
        );
        if self.requests() > 0 {
            let latencies = self.latencies_ms();
            out.push_str("  latency ms ");
            latencies.iter().for_each(|(name, _)| out.push_str(&format!("{name:>10}")));
            out.push_str("\n             ");
            latencies.iter().for_each(|(_, value)| out.push_str(&format!("{value:>10.3}")));
            out.push('\n');
        }
        if self.retries > 0 {
            out.push_str(&format!("  sent again  {}\n", self.retries));
        }
        let errors: Vec<_> =
            self.errors.iter().map(|(word, count)| format!("{word} {count}")).collect();
        let errors = if errors.is_empty() { "none".to_owned() } else { errors.join(", ") };
        out + &format!("  errors      {errors}\n")
    }

    /// How the latencies are distributed, as bars: each row reaches half as far again as the one
    /// before it.
    pub fn distribution(&self) -> String {
        let mut rows: Vec<(f64, u64)> = Vec::new();
        for value in self.latencies.iter_recorded() {
            let ms = value.value_iterated_to() as f64 / 1e6;
            let row = (ms.ln() / STEP.ln()).floor();
            match rows.last_mut().filter(|(last, _)| *last == row) {
                Some((_, count)) => *count += value.count_at_value(),
                None => rows.push((row, value.count_at_value())),
            }
        }
        let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1);
        let mut below = 0;
        let mut out = String::new();
        for (row, count) in rows {
            below += count;
            let bar = (count as f64 / most as f64 * BAR_WIDTH as f64).ceil() as usize;
            out.push_str(&format!(
                "  < {:>9.3} ms {:<BAR_WIDTH$} {:>8.4} %\n",
                STEP.powf(row + 1.0),
                "#".repeat(bar),
                below as f64 / self.requests() as f64 * 100.0
            ));
        }
        out
    }

    /// For people: one line of a run that goes on.
    pub fn line(&self, second: u64) -> String {
        let errors: u64 = self.errors.values().sum();
        format!(
            "{second:>5} s {:>9} a second   p50 {:>8.3}   p99 {:>8.3}   max {:>8.3} ms{}",
            self.requests(),
            self.quantile_ms(0.5),
            self.quantile_ms(0.99),
            self.latencies.max() as f64 / 1e6,
            if errors == 0 { String::new() } else { format!("   {errors} errors") }
        )
    }

    /// For programs: one second of the run.
    pub fn second_json(&self, second: u64) -> Value {
        json!({
            "second": second,
            "requests": self.requests(),
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "max_ms": self.latencies.max() as f64 / 1e6,
            "errors": self.errors.values().sum::<u64>(),
        })
    }

    /// For programs; `run` says what was run.
    pub fn json(&self, run: Value) -> Value {
        let latencies: serde_json::Map<_, _> = self
            .latencies_ms()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json!({
            "run": run,
            "requests": self.requests(),
            "seconds": self.elapsed.as_secs_f64(),
            "requests_per_second": self.per_second(),
            "latency_ms": latencies,
            "errors": self.errors,
            "sent_again": self.retries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_merges_and_shows_what_was_recorded() {
        let mut first = Report::new();
        for latency_ms in 1..=100 {
            first.record(Duration::from_millis(latency_ms));
        }
        first.elapsed = Duration::from_secs(1);
        let mut second = Report::new();
        second.record(Duration::from_secs(1000));
        second.record_errors("CLUSTERDOWN", 2);
        second.retries = 3;
        second.elapsed = Duration::from_secs(2);
        first.merge(&second);

        let json = first.json(json!({}));
        assert_eq!(json["requests"], 101);
        assert_eq!(json["requests_per_second"], 50.5);
        assert_eq!(json["errors"]["CLUSTERDOWN"], 2);
        assert_eq!(json["sent_again"], 3);
        let p50 = json["latency_ms"]["p50"].as_f64().unwrap();
        assert!((50.9..51.1).contains(&p50), "{p50}");
        // What is beyond the histogram counts as its end, within its precision.
        assert!(json["latency_ms"]["max"].as_f64().unwrap() > 299_000.0);
        let chart = first.distribution();
        assert!(chart.lines().count() > 8, "{chart}");
        assert!(chart.ends_with(" 100.0000 %\n"), "{chart}");
        assert!(first.line(3).starts_with("    3 s       101 a second"), "{}", first.line(3));
        assert!(first.line(3).ends_with("   2 errors"));
        let table = first.table("SET");
        assert!(table.contains("101 in 2.00 s, 50 a second"), "{table}");
        assert!(table.ends_with("sent again  3\n  errors      CLUSTERDOWN 2\n"), "{table}");
    }
}
