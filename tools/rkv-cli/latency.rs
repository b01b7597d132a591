//! `--latency [COMMAND ...]`: how long a command takes, from its sending to its reply.
//!
//! One at a time over one connection, PING unless another one is given: PING is the way to the node
//! and back, a GET or SET the way to a majority as well. Called by `main`.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use raftkv::client::Client;
use serde_json::json;

use super::Outcome;
use super::render::{self, Look, Style};

/// Between two commands.
const PAUSE: Duration = Duration::from_millis(10);
/// How long it measures where nobody looks on and nothing else is said.
const UNWATCHED: Duration = Duration::from_secs(1);
/// Between two looks at a terminal.
const REFRESH: Duration = Duration::from_millis(100);

/// Measures until there are `count` samples; without a number, at a terminal until Ctrl-C, else for
/// a second.
pub fn run(
    client: &mut Client,
    args: &[Vec<u8>],
    count: Option<u64>,
    look: Look,
) -> io::Result<Outcome> {
    let ping = [b"PING".to_vec()];
    let args = if args.is_empty() { &ping[..] } else { args };
    let mut samples = Histogram::<u64>::new(3).map_err(io::Error::other)?;
    let is_watched = io::stdout().is_terminal() && matches!(look.style, Style::Typed | Style::Raw);
    let began = Instant::now();
    let mut shown_at = began;
    let mut stdout = io::stdout();
    loop {
        let sent = Instant::now();
        if let Err(error) = client.command(args) {
            let line = render::error(&error, Look { style: Style::Raw, ..look });
            io::stderr().write_all(line.as_bytes())?;
            return Ok(Outcome::Failed);
        }
        let us = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        samples.saturating_record(us);
        let is_over = match count {
            Some(count) => samples.len() >= count,
            None => !is_watched && began.elapsed() >= UNWATCHED,
        };
        if is_over {
            break;
        }
        if is_watched && shown_at.elapsed() >= REFRESH {
            write!(stdout, "\x1b[2K\r{}", text(&samples))?;
            stdout.flush()?;
            shown_at = Instant::now();
        }
        std::thread::sleep(PAUSE);
    }
    if is_watched {
        write!(stdout, "\x1b[2K\r")?;
    }
    stdout.write_all(summary(&samples, look.style).as_bytes())?;
    stdout.flush()?;
    Ok(Outcome::Done)
}

/// What is shown of the distribution, in milliseconds.
fn figures(samples: &Histogram<u64>) -> [(&'static str, f64); 6] {
    let ms = |us: u64| us as f64 / 1000.0;
    [
        ("min", ms(samples.min())),
        ("p50", ms(samples.value_at_quantile(0.5))),
        ("p99", ms(samples.value_at_quantile(0.99))),
        ("p99.9", ms(samples.value_at_quantile(0.999))),
        ("max", ms(samples.max())),
        ("mean", samples.mean() / 1000.0),
    ]
}

fn text(samples: &Histogram<u64>) -> String {
    let figures = figures(samples).map(|(name, ms)| format!("{name} {ms:.3}"));
    format!("{} ms ({} samples)", figures.join(", "), samples.len())
}

fn summary(samples: &Histogram<u64>, style: Style) -> String {
    match style {
        Style::Json => {
            let mut object = json!({ "samples": samples.len() });
            for (name, ms) in figures(samples) {
                object[format!("{}_ms", name.replace('.', "_"))] = json!(ms);
            }
            format!("{object}\n")
        }
        Style::Csv => {
            let figures = figures(samples);
            let names = figures.map(|(name, _)| format!("\"{name}_ms\""));
            let values = figures.map(|(_, ms)| ms.to_string());
            let count = samples.len();
            format!("\"samples\",{}\r\n{count},{}\r\n", names.join(","), values.join(","))
        }
        Style::Typed | Style::Raw => format!("{}\n", text(samples)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_is_in_milliseconds() {
        let mut samples = Histogram::<u64>::new(3).unwrap();
        for us in [500, 1000, 1500] {
            samples.record(us).unwrap();
        }
        let shown = summary(&samples, Style::Raw);
        assert!(shown.starts_with("min 0.500, p50 1.000, p99 1.5"), "{shown}");
        assert!(shown.ends_with("(3 samples)\n"), "{shown}");
        let object: serde_json::Value =
            serde_json::from_str(&summary(&samples, Style::Json)).unwrap();
        assert_eq!(object["samples"], 3);
        assert_eq!(object["min_ms"], 0.5);
        assert!(object["p99_9_ms"].is_number());
        let csv = summary(&samples, Style::Csv);
        assert!(csv.starts_with("\"samples\",\"min_ms\",\"p50_ms\""), "{csv}");
    }
}
