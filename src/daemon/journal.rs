//! Where the process's log lines go: stderr or a file, each line written at once.
//!
//! `n2 2026-03-01T12:00:00.123Z [INFO] text`: the node's id first, because the logs of several
//! nodes are often read side by side. Called by `run`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::LevelFilter;
use raftkv::config::Config;
use simplelog::{ConfigBuilder, WriteLogger};

/// Starts logging as `config` says.
///
/// # Errors
/// One line that names the file which cannot be opened.
pub fn start(config: &Config) -> Result<(), String> {
    let target = match &config.log.file {
        None => Target::Stderr,
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Target::File(file.map_err(|error| format!("log.file: {}: {error}", path.display()))?)
        }
    };
    let lines = Lines { prefix: format!("n{} ", config.id), line: Vec::new(), target };
    // The time is written by `Lines`: the logger's own formats have no milliseconds.
    let format = ConfigBuilder::new()
        .set_time_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    WriteLogger::init(config.log.level, format, lines)
        .map_err(|_| "a logger was set already".to_owned())
}

enum Target {
    Stderr,
    File(File),
}

/// Gathers what the logger writes into whole lines, so that lines of several processes that share
/// one stderr never mix.
struct Lines {
    prefix: String,
    line: Vec<u8>,
    target: Target,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.line.is_empty() {
            // A clock before 1970 is wrong anyway: the line matters, not its date.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.line.extend_from_slice(self.prefix.as_bytes());
            self.line.extend_from_slice(utc(now).as_bytes());
            self.line.push(b' ');
        }
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            // A log that cannot be written must not end a node that serves: the line is lost.
            let _lost = match &mut self.target {
                Target::Stderr => io::stderr().write_all(&self.line),
                Target::File(file) => file.write_all(&self.line),
            };
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `2026-03-01T12:00:00.123Z`, for a time since the Unix epoch.
fn utc(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from March, so that the leap day is the last of its year, and in eras of
    // 400 years, which all have the same number of days.
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let leap_days = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leap_days) / 365;
    let first_of_year = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
    let day_of_year = day_of_era - first_of_year;
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    let (second, millisecond) = (second % 60, since_epoch.subsec_millis());
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_knows_leap_years_and_the_ends_of_years() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_123, "2024-02-29T23:59:59.123Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, expected) in cases {
            assert_eq!(utc(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn lines_write_gathers_a_line_and_names_the_node() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut lines = Lines {
            prefix: "n7 ".to_owned(),
            line: Vec::new(),
            target: Target::File(file.reopen().unwrap()),
        };
        lines.write_all(b"[INFO] a").unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "");
        lines.write_all(b" b\n").unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text.starts_with("n7 20") && text.ends_with("Z [INFO] a b\n"), "{text}");
    }
}
