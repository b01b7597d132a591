//! `--bigkeys`: where the bytes are: the largest values, and how sizes are distributed.
//!
//! A SCAN with a STRLEN for each key, a page at a time: it may run beside all else, and sees each
//! key that is there throughout. Called by `main`. Holds a page of keys and the largest ones.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use raftkv::client::{Client, ClientError, ErrorReply};
use raftkv::proto::reply_decoder::Value;
use serde_json::json;

use super::Outcome;
use super::paint::Colour;
use super::render::{self, Look, Style, quoted};
use super::stat::human;

/// Keys of one page.
const PAGE: &str = "1000";
/// How many keys are named.
const NAMED: usize = 10;

/// What was seen.
#[derive(Debug)]
struct Seen {
    /// The largest first; of equal ones the one that was seen first.
    largest: Vec<(u64, Vec<u8>)>,
    keys: u64,
    key_bytes: u64,
    value_bytes: u64,
    /// Values by how many bits their length has: 0, 1, 2-3, 4-7, ...
    by_size: [u64; 65],
}

impl Seen {
    fn nothing() -> Seen {
        Seen { largest: Vec::new(), keys: 0, key_bytes: 0, value_bytes: 0, by_size: [0; 65] }
    }

    fn note(&mut self, key: Vec<u8>, bytes: u64) {
        self.keys += 1;
        self.key_bytes += key.len() as u64;
        self.value_bytes += bytes;
        self.by_size[(u64::BITS - bytes.leading_zeros()) as usize] += 1;
        let place = self.largest.partition_point(|(known, _)| *known >= bytes);
        if place < NAMED {
            self.largest.insert(place, (bytes, key));
            self.largest.truncate(NAMED);
        }
    }
}

/// Looks at all keys, and shows what was seen.
pub fn run(client: &mut Client, look: Look) -> io::Result<Outcome> {
    // Only an extra: without it fail-over goes to the given endpoints alone.
    let _ = client.discover();
    let mut seen = Seen::nothing();
    match scan(client, &mut seen) {
        Ok(()) => {
            let mut stdout = io::stdout();
            stdout.write_all(summary(&seen, look).as_bytes())?;
            stdout.flush()?;
            Ok(Outcome::Done)
        }
        Err(error) => {
            let line = render::error(&error, Look { style: Style::Raw, ..look });
            io::stderr().write_all(line.as_bytes())?;
            Ok(Outcome::Failed)
        }
    }
}

fn scan(client: &mut Client, seen: &mut Seen) -> Result<(), ClientError> {
    let total = match client.command(&["DBSIZE"])? {
        Value::Integer(count) => count.unsigned_abs(),
        _ => 0,
    };
    let bar = progress(total);
    let mut cursor = b"0".to_vec();
    loop {
        let page = client.command(&[b"SCAN", &cursor[..], b"COUNT", PAGE.as_bytes()])?;
        let (next, keys) = read_page(page).ok_or_else(odd)?;
        let asked: Vec<Vec<&[u8]>> = keys.iter().map(|key| vec![&b"STRLEN"[..], key]).collect();
        let lengths = client.pipeline(&asked);
        for (key, length) in keys.iter().zip(lengths) {
            let Value::Integer(bytes) = length? else {
                return Err(odd());
            };
            seen.note(key.clone(), bytes.unsigned_abs());
        }
        if let Some(bar) = &bar {
            bar.set_position(seen.keys.min(total));
        }
        if next == b"0" {
            break;
        }
        cursor = next;
    }
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    Ok(())
}

fn odd() -> ClientError {
    ClientError::Reply(ErrorReply { text: "the server answers what is no answer".to_owned() })
}

fn read_page(page: Value) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let Value::Array(parts) = page else {
        return None;
    };
    let [Value::Bulk(next), Value::Array(keys)] = <[Value; 2]>::try_from(parts).ok()? else {
        return None;
    };
    let key = |value| match value {
        Value::Bulk(key) => Some(key),
        _ => None,
    };
    Some((next, keys.into_iter().map(key).collect::<Option<_>>()?))
}

fn progress(total: u64) -> Option<ProgressBar> {
    io::stderr().is_terminal().then(|| {
        let template = "[{bar:30}] {pos} of {len} keys, {eta} to go";
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        bar.with_style(style.expect("the template is a constant, and a good one"))
    })
}

/// The sizes that a place of `by_size` stands for, as text.
fn sizes(bits: usize) -> String {
    match bits {
        0 => "empty".to_owned(),
        1 => "1 B".to_owned(),
        _ => format!("from {}", human(1 << (bits - 1))),
    }
}

fn summary(seen: &Seen, look: Look) -> String {
    let used = || seen.by_size.iter().enumerate().filter(|(_, count)| **count > 0);
    match look.style {
        Style::Json => {
            let text = |key: &[u8]| render::json_of(&Value::Bulk(key.to_vec()));
            let named = |(bytes, key): &(u64, Vec<u8>)| json!({ "key": text(key), "bytes": bytes });
            let sized = |(bits, count): (usize, &u64)| {
                let from = if bits == 0 { 0 } else { 1_u64 << (bits - 1) };
                json!({ "from_bytes": from, "values": count })
            };
            let object = json!({
                "keys": seen.keys, "key_bytes": seen.key_bytes, "value_bytes": seen.value_bytes,
                "largest": seen.largest.iter().map(named).collect::<Vec<_>>(),
                "sizes": used().map(sized).collect::<Vec<_>>(),
            });
            format!("{object}\n")
        }
        Style::Csv => {
            let mut out = b"\"key\",\"bytes\"\r\n".to_vec();
            for (bytes, key) in &seen.largest {
                render::push_csv(key, &mut out);
                out.extend_from_slice(format!(",{bytes}\r\n").as_bytes());
            }
            String::from_utf8_lossy(&out).into_owned()
        }
        Style::Typed | Style::Raw => {
            let bold = |text: &str| look.paint.paint(Colour::Bold, text);
            let mut out = format!("{}\n", bold("Largest values"));
            for (bytes, key) in &seen.largest {
                out.push_str(&format!("  {:>10}  {}\n", human(*bytes), quoted(key)));
            }
            out.push_str(&format!("{}\n", bold("Values by size")));
            for (bits, count) in used() {
                let share = *count as f64 * 100.0 / seen.keys as f64;
                out.push_str(&format!("  {:>14}  {count} ({share:.1}%)\n", sizes(bits)));
            }
            let mean = seen.value_bytes.checked_div(seen.keys).unwrap_or(0);
            let (keys, key_bytes) = (seen.keys, human(seen.key_bytes));
            let values = human(seen.value_bytes);
            let mean = human(mean);
            out + &format!("{keys} keys of {key_bytes}, values of {values}, {mean} on average\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::paint::Paint;
    use super::*;

    #[test]
    fn note_keeps_the_largest() {
        let mut seen = Seen::nothing();
        for bytes in 0..100 {
            seen.note(format!("k{bytes}").into_bytes(), bytes);
        }
        let largest: Vec<u64> = seen.largest.iter().map(|(bytes, _)| *bytes).collect();
        assert_eq!(largest, (90..100).rev().collect::<Vec<_>>());
        assert_eq!((seen.by_size[0], seen.by_size[1], seen.by_size[7]), (1, 1, 36));
        let look = Look { style: Style::Raw, paint: Paint::OFF };
        let text = summary(&seen, look);
        assert!(text.contains("99 B  \"k99\"\n"), "{text}");
        assert!(text.contains("from 64 B  36 (36.0%)\n"), "{text}");
        assert!(
            text.ends_with("100 keys of 290 B, values of 4.8 KiB, 49 B on average\n"),
            "{text}"
        );
        let json = summary(&seen, Look { style: Style::Json, ..look });
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(object["largest"][0]["key"], "k99");
        assert_eq!(object["sizes"][2], json!({"from_bytes": 2, "values": 2}));
        assert!(
            summary(&Seen::nothing(), look)
                .ends_with("0 keys of 0 B, values of 0 B, 0 B on average\n")
        );
    }
}
