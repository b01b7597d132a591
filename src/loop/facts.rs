//! What the process knows of itself, for `INFO`: memory and processor time.
//!
//! From `/proc/self`, about once a second. Called by the turn. A figure that cannot be read is
//! zero, never an error.

use std::fs;

/// Memory pages' size; what Linux has on every processor that this is built for.
const PAGE_BYTES: u64 = 4096;

/// The kernel's clock ticks in `/proc` are hundredths of a second on Linux (`USER_HZ`).
const TICK_US: u64 = 10_000;

/// Resident memory in bytes.
pub(super) fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

/// User and system time that the process has used, in microseconds.
pub(super) fn processor_times_us() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    parse_processor_times(&stat).unwrap_or((0, 0))
}

/// Fields 14 and 15 of proc_pid_stat(5). The second field is the program's name in parentheses and
/// may hold anything, so counting begins behind the last parenthesis, with field 3.
fn parse_processor_times(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user * TICK_US, system * TICK_US))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_processor_times_survives_a_strange_program_name() {
        let stat = "12 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 111 222 13 14";
        assert_eq!(parse_processor_times(stat), Some((1_110_000, 2_220_000)));
        assert_eq!(parse_processor_times("12 (a"), None);
    }

    #[test]
    fn resident_bytes_are_those_of_a_running_process() {
        let bytes = resident_bytes();
        assert!(bytes > 100 * 1024 && bytes < 64 << 30, "{bytes}");
    }
}
