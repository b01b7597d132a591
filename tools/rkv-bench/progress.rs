//! A run as it goes on: a line for each second, and how much of it is done.
//!
//! Called by `load`, in a thread of its own; the workers send their seconds. Lines go to standard
//! error, so that the result on standard output can be redirected.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::mpsc::Receiver;

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::{Report, Second};
use crate::worker::Measure;

/// Seconds that were not sent by every thread so far, with the number of those that have.
type Gathering = BTreeMap<u64, (usize, Report)>;

/// Shows the seconds that `threads` workers send until all have ended; gives back those seconds.
pub fn follow(
    seconds: &Receiver<Second>,
    threads: usize,
    measure: Measure,
    is_quiet: bool,
) -> Vec<Second> {
    let bar = if is_quiet { ProgressBar::hidden() } else { bar(measure) };
    let mut gathering = Gathering::new();
    let mut whole = Vec::new();
    let mut answered = 0;
    while let Ok(second) = seconds.recv() {
        let entry = gathering.entry(second.number).or_insert_with(|| (0, Report::new()));
        entry.0 += 1;
        entry.1.merge(&second.report);
        answered += second.report.requests();
        bar.set_position(match measure {
            Measure::For(_) => second.number + 1,
            Measure::Requests(_) => answered,
        });
        while gathering.first_key_value().is_some_and(|(_, (sent, _))| *sent == threads) {
            whole.extend(pop(&mut gathering).inspect(|second| show(&bar, second, is_quiet)));
        }
    }
    // A second in which some thread had already ended.
    while let Some(second) = pop(&mut gathering) {
        show(&bar, &second, is_quiet);
        whole.push(second);
    }
    bar.finish_and_clear();
    whole
}

fn pop(gathering: &mut Gathering) -> Option<Second> {
    gathering.pop_first().map(|(number, (_, report))| Second { number, report })
}

fn show(bar: &ProgressBar, second: &Second, is_quiet: bool) {
    if is_quiet || second.report.requests() == 0 && second.report.errors.is_empty() {
        return;
    }
    let line = second.report.line(second.number + 1);
    // A bar that is not at a terminal swallows what it is given to print.
    match std::io::stderr().is_terminal() {
        true => bar.println(line),
        false => eprintln!("{line}"),
    }
}

fn bar(measure: Measure) -> ProgressBar {
    let (length, unit) = match measure {
        Measure::For(duration) => (duration.as_secs(), "s"),
        Measure::Requests(requests) => (requests, "requests"),
    };
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {unit}, {{eta}} to go");
    let style = ProgressStyle::with_template(&template)
        .expect("the template is made of constants and well-formed");
    ProgressBar::new(length).with_style(style)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn follow_adds_up_what_all_threads_did_in_a_second() {
        let (sender, receiver) = channel();
        for number in [0, 0, 1, 2, 1] {
            let mut report = Report::new();
            report.record(Duration::from_millis(number + 1));
            sender.send(Second { number, report }).unwrap();
        }
        drop(sender);
        let seconds = follow(&receiver, 2, Measure::Requests(5), true);
        let seen: Vec<(u64, u64)> =
            seconds.iter().map(|second| (second.number, second.report.requests())).collect();
        assert_eq!(seen, [(0, 2), (1, 2), (2, 1)]);
    }
}
