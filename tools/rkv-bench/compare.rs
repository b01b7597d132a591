//! Two results side by side: `rkv-bench --compare A.json B.json`.
//!
//! Called by `main`. Reads what `--json` printed; B is told as a ratio of A.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

/// The figures that are compared: their place in the JSON, and whether more is better.
const FIGURES: [(&str, &str, bool); 8] = [
    ("a second", "/requests_per_second", true),
    ("mean ms", "/latency_ms/mean", false),
    ("p50 ms", "/latency_ms/p50", false),
    ("p90 ms", "/latency_ms/p90", false),
    ("p99 ms", "/latency_ms/p99", false),
    ("p99.9 ms", "/latency_ms/p99.9", false),
    ("p99.99 ms", "/latency_ms/p99.99", false),
    ("max ms", "/latency_ms/max", false),
];

/// Prints the comparison.
///
/// # Errors
/// A file that can't be read, or that is no result of this program, by its name.
pub fn run(first: &Path, second: &Path) -> io::Result<bool> {
    print!("{}", table(&read(first)?, &read(second)?));
    Ok(true)
}

fn read(path: &Path) -> io::Result<Value> {
    let wrong = |what: String| io::Error::other(format!("{}: {what}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let result: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match FIGURES.iter().find(|(_, place, _)| number(&result, place).is_none()) {
        None => Ok(result),
        Some((_, place, _)) => {
            let what = format!("has no number at {place}: expected what --json prints");
            Err(wrong(what))
        }
    }
}

fn number(result: &Value, place: &str) -> Option<f64> {
    result.pointer(place).and_then(Value::as_f64)
}

/// What differs in how they were run, and the figures with their ratio.
fn table(first: &Value, second: &Value) -> String {
    let mut out = String::new();
    let run = |result: &Value| result.get("run").and_then(Value::as_object).cloned();
    let (one, other) = (run(first).unwrap_or_default(), run(second).unwrap_or_default());
    for (name, value) in &one {
        let counterpart = other.get(name).unwrap_or(&Value::Null);
        if counterpart != value {
            out.push_str(&format!("differs: {name} is {value} in A and {counterpart} in B\n"));
        }
    }
    out.push_str(&format!("{:<10} {:>12} {:>12} {:>8}\n", "", "A", "B", "B/A"));
    for (name, place, more_is_better) in FIGURES {
        let (one, other) = (number(first, place), number(second, place));
        let (Some(one), Some(other)) = (one, other) else { continue };
        let verdict = match other / one {
            ratio if !ratio.is_finite() => String::new(),
            ratio if (0.98..=1.02).contains(&ratio) => format!("{ratio:>8.2}  the same"),
            ratio if (ratio > 1.0) == more_is_better => format!("{ratio:>8.2}  better"),
            ratio => format!("{ratio:>8.2}  worse"),
        };
        let line = format!("{name:<10} {one:>12.3} {other:>12.3} {verdict}");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(per_second: f64, ms: f64, clients: u64) -> Value {
        let names = ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
        let latencies: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!(ms))).collect();
        json!({
            "run": { "clients": clients, "pipeline": 1 },
            "requests_per_second": per_second,
            "latency_ms": latencies,
        })
    }

    #[test]
    fn table_says_what_is_better_and_what_was_run_differently() {
        let text = table(&result(1000.0, 2.0, 50), &result(1500.0, 2.02, 60));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "differs: clients is 50 in A and 60 in B");
        assert!(lines[2].ends_with("1500.000     1.50  better"), "{}", lines[2]);
        assert!(lines[3].ends_with("1.01  the same"), "{}", lines[3]);
        let text = table(&result(1000.0, 2.0, 50), &result(1000.0, 3.0, 50));
        assert!(text.lines().last().unwrap().ends_with("1.50  worse"), "{text}");
    }

    #[test]
    fn read_names_the_file_and_what_is_missing() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("rkv-bench-{}.json", std::process::id()));
        std::fs::write(&path, "{\"requests_per_second\": 1}").unwrap();
        let error = read(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("has no number at /latency_ms/mean"), "{error}");
        assert!(read(&path).unwrap_err().to_string().contains(&*path.to_string_lossy()));
    }
}
